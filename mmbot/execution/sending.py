"""The way out: quotes and cancels become requests. Write ahead, one write, then book-keeping.

Owns: `Sending`, the part of the order manager that signs, writes ahead, posts and cancels. State is the manager's.

Every order has a deadline: the decision that wanted it plus ``order_deadline_ms``. Past it nothing is sent, and neither is anything on a
connection that still holds unsent bytes (`http1`). What happens to an order that the venue acknowledges later stands in `overdue` and `answers`.

The same bytes may be sent twice (`repost`): the venue knows an order by the digest of its bytes, so the second copy either finds the first
(refused as duplicated: a success) or takes its place. Bytes with a new salt would be another order, and never replace one of unknown fate.

Can go wrong: the journal cannot be written (no POST leaves); no free connection (nothing left, tried again 1 ms later); the venue refuses
as a whole (`modes` says when to try again); the cancel tokens above the guardian's share are spent (the rest of the list waits).
"""

import struct
from functools import partial

from mmbot.execution.http1 import NotSent
from mmbot.execution.order import CANCELING, PENDING, Order, key_of
from mmbot.execution.order_journal import JournalError, done_line, sent_lines
from mmbot.execution.windows import Window
from shm_layout.records import BUY, OE_CANCEL_SENT, OE_REPOSTED, OE_SENT, QK_POST_ONLY

RETRY_NS = 1_000_000                        # when there was no free connection
UNSIGNABLE_NS = 2_000_000_000               # how long a quote's place is held when no order can be signed for it
REPOST_WITHIN_NS = 10_000_000_000           # bytes first sent longer ago are not sent again
MAX_REPOSTS = 3
_MS = 1_000_000


class Sending:
    """Posting and cancelling for `mmbot.execution.manager.OrderManager`."""

    def _post(self, window: Window, quotes: list, fresh: bool, now: int) -> bool:
        """Write ahead and send; false when nothing left (the quotes are tried again later)."""
        if not self.gateway.can_post:
            window.next_ns = min(window.next_ns, now + RETRY_NS)
            self.report.event("throttled", len(quotes))
            return False
        deadline_ns = window.decided_ns + self._deadline_ns
        if now > deadline_ns:
            window.next_ns = min(window.next_ns, now + RETRY_NS)
            self.report.event("targets_expired")
            return False
        wall_ns = self.wall_ns()
        wall_ms = wall_ns // _MS
        signed = self._signed(window, quotes, now, wall_ms)
        if not signed:
            return False
        try:
            self.journal.append(self._ahead(window, signed, wall_ms))
            future = self.gateway.post([s.body for _, s, _ in signed], wall_ns // 1_000_000_000)
        except JournalError as e:
            self.journal_ok, window.dirty = False, True
            self.report.error("journal", str(e))
            return False
        except NotSent as e:
            self._lines += [done_line(s.order_id_hex, "not_sent") for _, s, _ in signed]
            window.next_ns = min(window.next_ns, now + RETRY_NS)
            self.report.error("no_connection", str(e))
            return False
        t_send = self.gateway.t_send_ns
        cause = (*window.cause, self._t_wake_ns, t_send)
        fresh = fresh and any(q not in window.previous for q in quotes)
        orders = [self._sent(window, q, s, pooled, cause, t_send, deadline_ns, now) for q, s, pooled in signed]
        self._publish_own(window)
        self.order_tokens.spend(len(orders), now)
        self.post_pause.sent(now)
        self.n_orders += len(orders)
        future.add_done_callback(partial(self._posted, window, orders, fresh))
        report = self.report
        if fresh:
            report.hop("decide_wake", self._t_wake_ns - window.changed_ns)
            report.hop("wake_send", t_send - self._t_wake_ns)
            if cause[1] > 0:
                report.hop("recv_send", t_send - cause[1])
        else:
            report.event("throttled", len(orders))
        report.event("orders", len(orders))
        report.event("orders_batches")
        return True

    def _signed(self, window: Window, quotes: list, now: int, wall_ms: int) -> list[tuple]:
        """(quote, signed order, 1 if it came from the pool) for each quote that can be signed."""
        out, pool, tick = [], self.pool, window.limits.tick_e4
        for q in quotes:
            token_id, side = window.tokens[q[0]], q[2]
            order = pool.take(token_id, side, q[4], q[5], now, tick) if q[3] == QK_POST_ONLY else None
            if order is not None:
                out.append((q, order, 1))
                continue
            try:
                if q[3] != QK_POST_ONLY:
                    template = pool.taking(token_id, side, q[3], tick, window.version, window.neg_risk)
                    out.append((q, template.build_market(q[4], q[5], wall_ms, pool.salts(), now), 0))
                    continue
                template = pool.template(token_id, side, tick, window.version, window.neg_risk)
                out.append((q, template.build(q[4], q[5], wall_ms, pool.salts(), now), 0))
            except ValueError as e:         # an amount or market that cannot be signed for
                window.limits.hold_ns[key_of(*q[:4])] = now + UNSIGNABLE_NS
                self.report.error("signing", str(e))
        return out

    @staticmethod
    def _ahead(window: Window, signed: list[tuple], wall_ms: int) -> bytes:
        """The write-ahead lines of a POST."""
        return sent_lines(window.market_id, wall_ms, [(s.order_id_hex, q) for q, s, _ in signed])

    def _sent(self, window: Window, q: tuple, signed, pooled: int, cause: tuple, t_send: int, deadline_ns: int, now: int) -> Order:
        kind, buys = q[3], q[2] == BUY
        order = Order(signed.order_id_hex, struct.unpack(">4q", signed.order_id), window.market_id, q[0], q[1], q[2], q[4],
                      signed.taker_u6 if buys else signed.maker_u6, PENDING, t_send, kind, signed.maker_u6 if kind != QK_POST_ONLY and buys else 0)
        if kind != QK_POST_ONLY:
            order.fee_e4 = window.limits.fee_e4(q[2], q[4])
            window.took(order)
            self.report.event("takes")
        order.pooled, order.params_version, order.cause = pooled, window.params_version, cause
        order.deadline_ns, order.body = deadline_ns, signed.body
        window.orders[order.order_id] = self.by_id[order.order_id] = order
        window.own_due = True
        window.limits.last_ns[order.key] = now
        self._events.append((OE_SENT, t_send, order))
        return order

    def repost(self, window: Window, o: Order, now: int) -> bool:
        """Send the identical bytes of an order once more; false when that is not allowed or nothing left.

        For an order that the venue does not know although it was sent: only while it is young, and exactly what is desired still. Never one that takes:
        the venue may forget what it has killed.
        """
        if o.kind != QK_POST_ONLY:
            return False
        wanted = any(q[0] == o.token and q[1] == o.level and q[2] == o.side and q[4] == o.px_e4 and q[5] == o.size_u6 for q in window.desired)
        deadline_ns = window.decided_ns + self._deadline_ns
        young = o.reposts < MAX_REPOSTS and now - o.t_sent_ns <= REPOST_WITHIN_NS and now <= min(deadline_ns, window.deadline_ns)
        if (not wanted or not young or not o.body or o.confirmed or o.doomed or o.t_cancel_ns or not self.may_quote(now)
                or not self.venue.may_post(now) or self.order_tokens.available(now) < 1 or not self.gateway.can_post):
            return False
        try:                            # its line is in the journal already, and open
            future = self.gateway.post([o.body], self.wall_ns() // 1_000_000_000)
        except NotSent as e:
            self.report.error("no_connection", str(e))
            return False
        self._settled(o)
        o.state, o.deadline_ns = PENDING, deadline_ns
        o.reposts += 1
        self.order_tokens.spend(1, now)
        self.post_pause.sent(now)
        self._events.append((OE_REPOSTED, self.gateway.t_send_ns, o))
        self.report.event("reposts")
        future.add_done_callback(partial(self._posted, window, [o], False))
        return True

    def cancel(self, window: Window | None, orders: list[Order], now: int) -> bool:
        """Send one cancel list; the orders stay CANCELING until the venue has answered. False when some or all did not leave: the venue
        refuses cancels for a moment, no connection is free, or only the guardian's tokens are left. They are tried again soon."""
        if not self.venue.may_cancel(now):
            self._again(window, self.venue.cancel_again_ns)
            return False
        asked, orders = len(orders), orders[:self.cancel_tokens.for_safety(now)]
        if len(orders) < asked:
            self._again(window, now + self.cancel_tokens.wait_ns(1))
            self.report.event("throttled", asked - len(orders))
            if not orders:
                return False
        try:
            future = self.gateway.cancel([o.order_id for o in orders], self.wall_ns() // 1_000_000_000)
        except NotSent as e:
            self._again(window, now + RETRY_NS)
            self.report.error("no_connection", str(e))
            return False
        t_send = self.gateway.t_send_ns
        self.cancel_tokens.spend(len(orders), now)
        self.venue.probe_sent(now)
        self.n_cancels += len(orders)
        for o in orders:
            o.state, o.t_cancel_ns = CANCELING, t_send
            if window is not None:
                window.limits.last_ns[o.key] = now
            self._events.append((OE_CANCEL_SENT, t_send, o))
        future.add_done_callback(partial(self._canceled, orders))
        self.report.event("cancels", len(orders))
        self.report.event("cancel_batches")
        return len(orders) == asked

    def cancel_all(self):
        """Cancel everything of the account; the future gives an `http1.HttpAnswer`. It costs 1 and the number cancelled. Errors: NotSent."""
        now = self.mono_ns()
        future = self.gateway.cancel_all(self.wall_ns() // 1_000_000_000)
        self.cancel_tokens.spend(1 + sum(len(w.orders) for w in self.by_market.values()), now)
        return future

    @staticmethod
    def _again(window: Window | None, at_ns: int) -> None:
        if window is not None:
            window.next_ns = min(window.next_ns, at_ns)
