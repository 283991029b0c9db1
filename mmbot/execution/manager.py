"""The order manager: what the core desires and what lives at the venue are brought together here, and only here.

Owns: every own order from before its POST to its end, the positions, the token buckets, and the executor's outputs (`account`, `own`,
`orders`). Reads: `targets`, `markets`, `guard`, `user`. Runs in the executor's event loop, single-threaded: `on_wake` for the doorbell,
callbacks for answers; slow reads live in `recovery`. No sockets and no clock of its own: transport, pool and clocks are injected.

The path from a bell to a POST: read the target, `diff`, take pre-signed orders, write ahead, one write. Everything else (order
events, own orders, account record, counters) waits until the bytes are out; `own` follows at once, ahead of the venue's book frame.

Order states: PENDING (sent, not confirmed) -> LIVE -> CANCELING -> DONE. A POST or cancel whose answer is lost or not understood keeps
its state and is marked unknown: its key is busy until the venue, asked by order id, has said what became of it; nothing is repeated blindly.

Hops. decide_wake (t_wake - the decision that changed the quotes), wake_send, recv_send and send_ack are recorded only for a POST that a
fresh decision caused directly: sent in the wake that first saw that decision, holding at least one quote that this decision changed, and
with the stamps of that very decision. Posts that waited (churn interval, rate budget, self-mint, an open answer, a re-quote after a fill) are
counted as ``throttled`` events instead, because their waiting is policy and not latency. One value per request, not per order.

Can go wrong: the journal cannot be written (no POST leaves; quoting stops until it can); no free connection (tried again 1 ms later);
the venue's user channel or the guardian falls silent (desired is empty for all markets); 425, 429 and 503 (posts pause; cancels go on).
"""

import struct
from collections import deque
from functools import partial

from mmbot.config import Execution
from mmbot.execution.http1 import NotSent, UnknownOutcome
from mmbot.execution.order_journal import COMPACT_BYTES, JournalError, OrderJournal, done_line, sent_line
from mmbot.execution.publisher import account_row, event_row, own_row, own_rows
from mmbot.execution.rate import TokenBucket
from mmbot.execution.reconcile import CANCELING, DONE, LIVE, PENDING, Limits, Order, diff
from mmbot.execution.windows import Window, market_of, rows_of
from mmbot.execution.wire import ErrorCode, NotCanceled, Outcome, not_canceled_reason, parse_cancel, parse_order, parse_orders, rate_limit
from mmbot.inventory.positions import BOOKED, DUST_U6, NOTHING, REVERSED, Positions
from shm_layout.records import (AS_BOOT, AS_READY, BUY, GUARD, HALT_BIT, MARKET_SLOTS, MAX_QUOTES, OE_CANCEL_SENT, OE_CANCELED, OE_FILL, OE_LIVE,
                                OE_REJECTED, OE_SENT, OE_UNKNOWN, QUOTE, ST_CANCELED, ST_LIVE, ST_MATCHED, TAKER, TARGET, TS_FAILED,
                                UK_CONNECTED, UK_DISCONNECTED, UK_ORDER, UK_TRADE, USER, UT_CANCELLATION, UT_PLACEMENT)

GUARD_SILENT_NS = 2_000_000_000
ACCOUNT_EVERY_NS = 50_000_000
RETRY_NS = 1_000_000
ARCHIVE = 4000                      # orders that are over, kept to recognise late messages
USER_BURST = 256                    # user records handled in one wake
CANCEL_RESERVE = 40                 # cancel tokens that only moves toward safety may use
_MS = 1_000_000
#: how long a quote's place is held after a refusal of its post
QUARANTINE_NS = {ErrorCode.CROSSES_BOOK: 50 * _MS, ErrorCode.NOT_ENOUGH_BALANCE: 1000 * _MS, ErrorCode.RATE_LIMITED: 250 * _MS,
                 ErrorCode.MARKET_NOT_READY: 1000 * _MS}
QUARANTINE_OTHER_NS = 2000 * _MS
#: how long all posts pause when the venue as a whole refuses
PAUSE_NS = {ErrorCode.RATE_LIMITED: 500 * _MS, ErrorCode.RESTARTING: 2000 * _MS, ErrorCode.CANCEL_ONLY: 2000 * _MS,
            ErrorCode.DISABLED: 2000 * _MS, ErrorCode.GEOBLOCK: 30_000 * _MS, ErrorCode.UNAUTHORIZED: 5000 * _MS,
            ErrorCode.BANNED: 30_000 * _MS, ErrorCode.FORBIDDEN: 5000 * _MS}
_NO_HALT = 0
_STARTING, _USER, _GUARD, _GUARD_SILENT, _JOURNAL, _STOPPING = (
    HALT_BIT[n] for n in ("starting", "user_channel", "guard", "guard_silent", "journal", "stopping"))


def _at(record, name: str) -> int:
    return record.fields[name][1] // 8


_T_MARKET, _T_PARAMS, _T_EXCH, _T_DECIDE = (_at(TARGET, n) for n in ("market_id", "params_version", "t_exch_ns", "t_decide_ns"))
_T_CHANGED, _T_DEADLINE, _T_N, _T_QUOTE = (_at(TARGET, n) for n in ("changed_ns", "deadline_ns", "n_quotes", "quote"))
_QUOTE_WORDS = QUOTE.itemsize // 8
_U_KIND, _U_MARKET, _U_TOKEN, _U_SIDE, _U_ROLE, _U_TYPE, _U_STATUS, _U_PX, _U_SIZE, _U_MATCHED, _U_CONNECTION, _U_ORDER, _U_TRADE = (
    _at(USER, n) for n in ("kind", "market_id", "token", "side", "role", "type", "status", "px_u6", "size_u6", "matched_u6", "connection",
                           "order_id", "trade_id"))
_G_UPDATE, _G_ALLOWED = _at(GUARD, "t_update_ns"), _at(GUARD, "quoting_allowed")
assert QUOTE.names == ("token", "level", "side", "px_e4", "size_u6")
assert TARGET.names[_T_EXCH:_T_DECIDE + 1] == ("t_exch_ns", "t_recv_ns", "t_pub_ns", "t_poll_ns", "t_decide_ns")


def id_text(words) -> str:
    """0x hex of a 256-bit id given as four signed words."""
    return "0x" + struct.pack(">4q", *words).hex()


def id_words_of(order_id: str) -> tuple:
    """Four signed words of a 0x hex id."""
    return struct.unpack(">4q", bytes.fromhex(order_id[2:]))


def _quotes(t: list[int]) -> tuple:
    """Desired quotes of a TARGET given as integers."""
    end = _T_QUOTE + _QUOTE_WORDS * min(max(t[_T_N], 0), MAX_QUOTES)
    return tuple([tuple(t[i:i + _QUOTE_WORDS]) for i in range(_T_QUOTE, end, _QUOTE_WORDS)])


class Links:
    """The memory the manager reads and writes, each with the interface of its shm_layout class."""

    __slots__ = ("targets", "markets", "guard", "user", "account", "own", "orders")

    def __init__(self, targets, markets, guard, user, account, own, orders):
        self.targets, self.markets, self.guard, self.user = targets, markets, guard, user
        self.account, self.own, self.orders = account, own, orders


class OrderManager:
    """``gateway``: post, cancel, can_post, can_cancel, t_send_ns. ``pool``: a SignedPool. ``report``: event(name, n=1), hop(name, ns), error(code, text).

    ``mono_ns`` and ``wall_ns`` are clock functions. Call `on_wake` on every doorbell and every few ms; see `recovery` for start and stop.
    """

    def __init__(self, cfg: Execution, gateway, pool, journal: OrderJournal, links: Links, report, mono_ns, wall_ns):
        self.cfg, self.gateway, self.pool, self.journal, self.links, self.report = cfg, gateway, pool, journal, links, report
        self.mono_ns, self.wall_ns = mono_ns, wall_ns
        self.positions = Positions()
        self.order_tokens = TokenBucket(cfg.orders_per_s, cfg.orders_burst)
        self.cancel_tokens = TokenBucket(cfg.cancels_per_s, cfg.cancels_burst, min(CANCEL_RESERVE, cfg.cancels_burst // 3))
        self.state, self.stopping = AS_BOOT, False
        self.user_up = self.user_ok = False
        self.connection = -1
        self.losses = 0
        self.resync_reason = "start"    # why the venue must be read again before quoting, "" if it need not
        self.reread = ""                # why the venue should be read again soon
        self.rebook = False             # trades that were read before must be looked at again
        self.guard_allowed, self.guard_ns = False, 0
        self.cash_u6 = 0
        self.post_hold_ns = 0
        self.windows: list[Window | None] = [None] * MARKET_SLOTS
        self.by_market: dict[int, Window] = {}
        self.by_id: dict[str, Order] = {}
        self.unknown: dict[str, Order] = {}
        self.n_orders = self.n_cancels = self.n_rejects = 0
        self.halt = _STARTING
        self._archive: deque[Order] = deque()
        self._seen_target = [0] * MARKET_SLOTS
        self._slots: list[int] = []     # those with a window: only their targets are looked at
        self._seen_markets = self._seen_guard = 0
        self._laps = 0
        self._events: list[tuple] = []
        self._lines: list[bytes] = []
        self._account_ns = 0
        self._account_dirty = True
        self._rehearsal_ns = 0
        self._t_wake_ns = 0
        self._dry: tuple | None = None
        self._counted = (0, 0, 0, 0)
        self.journal_ok = True

    # ---- waking up -------------------------------------------------------------------------------------------------

    def on_wake(self, rehearse: bool = True) -> None:
        """Look at everything that may have changed and act on it; when there is nothing to do, keep the send path warm."""
        now = self._t_wake_ns = self.mono_ns()
        version, seen = self.links.targets.version, self._seen_target
        for slot in self._slots:
            if version(slot) != seen[slot]:
                self._read_target(slot, now)
        if self.links.guard.version() != self._seen_guard:
            self._read_guard()
        if self.links.markets.version() != self._seen_markets:
            self.read_markets()
        if self.links.user.poll():
            self._read_user(now)
        worked = self._work(now)
        if self._finish_turn() or worked or not rehearse:
            return
        self._idle(now)

    def _read_target(self, slot: int, now: int) -> None:
        reader = self.links.targets
        version = reader.read(slot)
        if version <= 0:
            self._seen_target[slot] = min(version, 0)
            self.report.event("seqlock_busy", -version)
            return
        t = reader.words.tolist()
        self._seen_target[slot] = version
        window = self.windows[slot]
        if window is None or window.market_id != t[_T_MARKET]:
            self._seen_target[slot] = -1 if window is None or t[_T_MARKET] > window.market_id else version
            return
        window.deadline_ns = t[_T_DEADLINE]
        if t[_T_CHANGED] == window.changed_ns:
            return
        window.previous = window.desired
        window.desired = _quotes(t)
        window.changed_ns, window.params_version = t[_T_CHANGED], t[_T_PARAMS]
        window.cause = tuple(t[_T_EXCH:_T_DECIDE + 1])
        window.fresh = t[_T_CHANGED] == t[_T_DECIDE]
        window.dirty = True
        if now > window.deadline_ns:
            self.report.event("targets_expired")

    def _read_guard(self) -> None:
        guard = self.links.guard
        version = guard.read()
        if version > 0:
            self._seen_guard = version
            words = guard.words
            self.guard_allowed, self.guard_ns = bool(words.item(_G_ALLOWED)), words.item(_G_UPDATE)

    def read_markets(self) -> None:
        """Take over the market table; a window whose slot was given away is kept until its last order is over."""
        markets = self.links.markets
        version = markets.read()
        if version <= 0:
            return
        self._seen_markets = version
        for slot, row in enumerate(rows_of(markets.words.tolist())):
            market_id, window = market_of(row), self.windows[slot]
            if market_id == 0 or (window is not None and window.row == row):
                continue
            if window is None or window.market_id != market_id:
                if window is not None:
                    self._leave(window)
                window = self.windows[slot] = self.by_market.get(market_id) or self._new_window(market_id, slot)
                window.own_due, window.own_rows = True, None
            window.load(row)
            self._slots = [s for s, w in enumerate(self.windows) if w is not None]
            if not window.tradable:
                self.report.error("market_unknown", f"market {market_id}: protocol version {window.version} is unknown, not quoting it")
            if self.positions.resolve(market_id, window.outcome):
                self._account_dirty = True

    def _new_window(self, market_id: int, slot: int) -> Window:
        cfg = self.cfg
        limits = Limits(min_update_ns=int(cfg.min_update_interval_ms * _MS), reprice_ticks=cfg.reprice_ticks,
                        resize_ppm=int(cfg.resize_fraction * 1_000_000))
        window = self.by_market[market_id] = Window(market_id, slot, limits)
        self._seen_target[slot] = -1        # a target for it may have been there before the market table
        self.reread = "new market"          # trades in it may have been dropped while it was unknown
        self.rebook = True
        return window

    def _leave(self, window: Window) -> None:
        """A slot goes to the next window: the old one is four windows past, nothing of it should be left."""
        window.desired = ()
        window.dirty = True
        for token in window.tokens:
            self.pool.drop(token)
        if not window.orders:
            self.positions.retire(window.market_id)
            self.by_market.pop(window.market_id, None)
        self._account_dirty = True

    def may_quote(self, now: int) -> bool:
        """Whether any order is wanted at all now; `halt` says why not."""
        if self.stopping:
            self.halt = _STOPPING
        elif self.state != AS_READY:
            self.halt = _STARTING
        elif not self.user_ok:
            self.halt = _USER
        elif not self.guard_allowed:
            self.halt = _GUARD
        elif now - self.guard_ns > GUARD_SILENT_NS:
            self.halt = _GUARD_SILENT
        elif not self.journal_ok:
            self.halt = _JOURNAL
        else:
            self.halt = _NO_HALT
        return self.halt == _NO_HALT

    def _work(self, now: int) -> bool:
        """Reconcile every window that needs it; true if any did."""
        before = self.halt
        quoting = self.may_quote(now)
        if self.halt != before:
            self._account_dirty = True
        worked = False
        for window in self.by_market.values():
            live = quoting and now <= window.deadline_ns
            if window.dirty or live != window.was_live or now >= window.next_ns:
                self._reconcile(window, live, now)
                worked = True
        return worked

    def _reconcile(self, window: Window, live: bool, now: int) -> None:
        window.was_live, window.dirty = live, False
        limits = window.limits
        limits.orders = self.order_tokens.available(now) if now >= self.post_hold_ns else 0
        limits.cancels = self.cancel_tokens.available(now)
        limits.cash_u6 = self.cash_u6
        fresh, window.fresh = window.fresh, False
        plan = diff(window.desired if live and window.tradable else (), window.orders.values(), limits, now)
        window.next_ns = plan.again_ns
        cancels = plan.cancels
        if plan.urgent:
            if self.cancel(window, cancels, now) and plan.posts:
                self._post(window, plan.posts, fresh, now)
        elif not cancels:
            if plan.posts:
                self._post(window, plan.posts, fresh, now)
        elif self.gateway.can_cancel and self._post(window, plan.posts, fresh, now):
            self.cancel(window, cancels, now)
        elif plan.n_safe:       # without its post a replacement is still a bid that must go
            self.cancel(window, cancels[:plan.n_safe], now)
        else:
            window.next_ns = min(window.next_ns, now + RETRY_NS)
        if plan.deferred:
            self.report.event("throttled", plan.deferred)
        if plan.invalid:
            self.report.error("bad_target", f"market {window.market_id}: {plan.invalid} desired quotes off the grid, too small or out of range")

    # ---- sending ---------------------------------------------------------------------------------------------------

    def _post(self, window: Window, quotes: list, fresh: bool, now: int) -> bool:
        """Write ahead and send; false when nothing left (the quotes are tried again later)."""
        if not self.gateway.can_post:
            window.next_ns = min(window.next_ns, now + RETRY_NS)
            self.report.event("throttled", len(quotes))
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
        orders = [self._sent(window, q, s, pooled, cause, t_send, now) for q, s, pooled in signed]
        self._publish_own(window)
        self.order_tokens.spend(len(orders), now)
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
            order = pool.take(token_id, side, q[3], q[4], now, tick)
            if order is not None:
                out.append((q, order, 1))
                continue
            try:
                template = pool.template(token_id, side, tick, window.version, window.neg_risk)
                out.append((q, template.build(q[3], q[4], wall_ms, pool.salts(), now), 0))
            except ValueError as e:         # an amount or market that cannot be signed for
                window.limits.hold_ns[q[0] * 4 + q[1]] = now + QUARANTINE_OTHER_NS
                self.report.error("signing", str(e))
        return out

    @staticmethod
    def _ahead(window: Window, signed: list[tuple], wall_ms: int) -> bytes:
        """The write-ahead lines of a POST."""
        market_id = window.market_id
        return b"".join([sent_line(s.order_id_hex, market_id, q[0], q[1], q[2], q[3], q[4], wall_ms) for q, s, _ in signed])

    def _sent(self, window: Window, q: tuple, signed, pooled: int, cause: tuple, t_send: int, now: int) -> Order:
        order = Order(signed.order_id_hex, struct.unpack(">4q", signed.order_id), window.market_id, q[0], q[1], q[2], q[3],
                      signed.size_u6, PENDING, t_send)
        order.pooled, order.params_version, order.cause = pooled, window.params_version, cause
        window.orders[order.order_id] = self.by_id[order.order_id] = order
        window.own_due = True
        window.limits.last_ns[order.key] = now
        self._events.append((OE_SENT, t_send, order))
        return order

    def cancel(self, window: Window | None, orders: list[Order], now: int) -> bool:
        """Send one cancel list; the orders stay CANCELING until the venue has answered. False when nothing left."""
        try:
            future = self.gateway.cancel([o.order_id for o in orders], self.wall_ns() // 1_000_000_000)
        except NotSent as e:
            if window is not None:
                window.next_ns = now + RETRY_NS
            self.report.error("no_connection", str(e))
            return False
        t_send = self.gateway.t_send_ns
        self.cancel_tokens.spend(len(orders), now)
        self.n_cancels += len(orders)
        for o in orders:
            o.state, o.t_cancel_ns = CANCELING, t_send
            if window is not None:
                window.limits.last_ns[o.key] = now
            self._events.append((OE_CANCEL_SENT, t_send, o))
        future.add_done_callback(partial(self._canceled, orders))
        self.report.event("cancels", len(orders))
        self.report.event("cancel_batches")
        return True

    # ---- answers ---------------------------------------------------------------------------------------------------

    def _answered(self) -> None:
        """After an answer: what it made possible is done at once."""
        self._t_wake_ns = now = self.mono_ns()
        self._work(now)
        self._finish_turn()

    def _posted(self, window: Window, orders: list[Order], fresh: bool, future) -> None:
        window.dirty = True
        try:
            answer = future.result()
        except UnknownOutcome as e:
            self.report.event("timeouts")
            for o in orders:
                self.mark_unknown(o, str(e))
            self._answered()
            return
        if fresh:
            self.report.hop("send_ack", answer.t_ack_ns - answer.t_send_ns)
        ids = [o.order_id for o in orders]
        legs = ([parse_order(answer.status, answer.body, ids[0])] if len(ids) == 1 else parse_orders(answer.status, answer.body, ids))
        for o, leg in zip(orders, legs, strict=True):
            self._post_leg(window, o, leg, answer)
        self._answered()

    def _post_leg(self, window: Window, o: Order, leg, answer) -> None:
        if leg.outcome is Outcome.ACCEPTED:
            if leg.id_differs:
                self.report.error("order_id", f"the venue knows {o.order_id} as {leg.order_id}")
                self._rename(window, o, leg.order_id.lower())
            self.confirm(o, answer.t_ack_ns)
            if leg.status != "live":        # a post-only order that matched at once or is held: ask
                self.mark_unknown(o, f"answered {leg.status}")
            return
        if leg.outcome is Outcome.UNKNOWN:
            self.mark_unknown(o, leg.error or leg.code.name)
            return
        if o.confirmed:                     # the user channel has shown it: the refusal cannot be its own
            self.mark_unknown(o, f"refused ({leg.code.name}) but seen on the user channel")
            return
        now = answer.t_ack_ns
        self.n_rejects += 1
        self.report.event("rejects")
        self._events.append((OE_REJECTED, now, o, ST_CANCELED, int(leg.code), answer.status))
        self.finish(o, "refused", now)
        window.limits.hold_ns[o.key] = now + QUARANTINE_NS.get(leg.code, QUARANTINE_OTHER_NS)
        if leg.code is not ErrorCode.CROSSES_BOOK:      # crossing is the daily bread of post-only
            self.report.error(f"refused_{leg.code.name.lower()}", leg.error)
        self._pause(leg.code, answer, now)

    def _pause(self, code: ErrorCode, answer, now: int) -> None:
        """The venue as a whole refuses: posts wait, cancels go on."""
        if (wait := PAUSE_NS.get(code)) is None:
            return
        if code is ErrorCode.RATE_LIMITED:
            self.order_tokens.drain(now)
            self.report.event("rate_limited")
        told = rate_limit(answer.headers).retry_after_s
        self.post_hold_ns = max(self.post_hold_ns, now + (int(min(told, 60.0) * 1e9) if told > 0 else wait))

    def _rename(self, window: Window, o: Order, order_id: str) -> None:
        for table in (self.by_id, window.orders, self.unknown):
            if table.pop(o.order_id, None) is not None:
                table[order_id] = o
        o.order_id, o.id_words = order_id, id_words_of(order_id)

    def _canceled(self, orders: list[Order], future) -> None:
        try:
            answer = future.result()
        except UnknownOutcome as e:
            self.report.event("timeouts")
            for o in orders:
                self.mark_unknown(o, str(e))
            self._answered()
            return
        done = parse_cancel(answer.status, answer.body)
        if done.outcome is not Outcome.ACCEPTED:
            self.report.error(f"cancel_{done.code.name.lower()}", done.error)
        gone = {i.lower() for i in done.canceled}
        kept = {i.lower(): text for i, text in done.not_canceled.items()}
        for o in orders:
            if o.state == DONE:
                continue
            if o.order_id in gone:
                self._events.append((OE_CANCELED, answer.t_ack_ns, o, ST_CANCELED))
                self.finish(o, "canceled", answer.t_ack_ns)
            else:
                text = kept.get(o.order_id, done.error or "not in the answer")
                if not_canceled_reason(text) is not NotCanceled.GONE:
                    self.report.error("not_canceled", text)
                self.mark_unknown(o, text)
        self._answered()

    # ---- life of an order ------------------------------------------------------------------------------------------

    def confirm(self, o: Order, now: int) -> None:
        """The venue has the order."""
        o.confirmed = True
        if o.state == PENDING:
            o.state, o.t_live_ns = LIVE, now
            self._touch(o)
            self._events.append((OE_LIVE, now, o, ST_LIVE))

    def mark_unknown(self, o: Order, why: str) -> None:
        """What became of it must be asked (see `recovery`); its place stays busy until then."""
        if o.state == DONE:
            return
        if not o.unknown:
            o.unknown, o.queries, o.t_query_ns = True, 0, 0
            self.unknown[o.order_id] = o
            self._events.append((OE_UNKNOWN, self.mono_ns(), o))
            self.report.event("unknown")
            if o.state == LIVE:
                o.state = CANCELING         # nothing is posted beside it, nothing is believed about it
        self._account_dirty = True

    def finish(self, o: Order, reason: str, now: int) -> None:
        """The order is over: it leaves the book of live orders and is closed in the journal. Matched shares without a trade are waited for."""
        if o.state == DONE:
            return
        o.state, o.t_done_ns = DONE, now
        self._settled(o)
        self._lines.append(done_line(o.order_id, reason))
        window = self.by_market.get(o.market_id)
        if window is not None:
            window.orders.pop(o.order_id, None)
            window.dirty = window.own_due = True
            if o.open_u6 > DUST_U6:
                window.tail[o.order_id] = o
        self._archive.append(o)
        while len(self._archive) > ARCHIVE:
            self.by_id.pop(self._archive.popleft().order_id, None)
        self._account_dirty = True

    def _settled(self, o: Order) -> None:
        o.unknown = False
        self.unknown.pop(o.order_id, None)

    def answer_live(self, o: Order, matched_u6: int, now: int) -> None:
        """Asked by id, the venue says the order rests: it can be kept or cancelled again."""
        self.matched(o, matched_u6, now)
        self._settled(o)
        if o.state != PENDING:
            o.state = LIVE
        self.confirm(o, now)
        self._touch(o)

    def answer_over(self, o: Order, matched_u6: int, reason: str, now: int) -> None:
        """Asked by id, the venue says the order is over, with so much matched."""
        self.matched(o, matched_u6, now)
        self._events.append((OE_CANCELED, now, o, ST_MATCHED if o.rest_u6 <= DUST_U6 else ST_CANCELED))
        self.finish(o, reason, now)

    def _touch(self, o: Order) -> None:
        self._account_dirty = True
        window = self.by_market.get(o.market_id)
        if window is not None:
            window.dirty = True

    # ---- the user channel ------------------------------------------------------------------------------------------

    def _read_user(self, now: int) -> None:
        """Handle the record just polled and those behind it."""
        user = self.links.user
        for _ in range(USER_BURST):
            self._user_record(user.words.tolist(), now)
            if not user.poll():
                break
        else:
            self._user_record(user.words.tolist(), now)
        laps = int(user.link[2] + user.link[3])
        if laps != self._laps:
            self._laps = laps
            self._lost_sight("lapped in the user ring")

    def _user_record(self, t: list[int], now: int) -> None:
        kind, connection = t[_U_KIND], t[_U_CONNECTION]
        if kind == UK_DISCONNECTED:
            self.user_up = False
            self._lost_sight("user channel disconnected")
            return
        if connection != self.connection or kind == UK_CONNECTED or not self.user_up:
            self.connection, self.user_up = connection, True
            self._lost_sight("user channel connected anew")
        if kind == UK_ORDER:
            self._order_event(t, now)
        elif kind == UK_TRADE:
            self.book(t, now)

    def _lost_sight(self, why: str) -> None:
        """Messages may be missing: no quotes until the venue has been read again."""
        self.user_ok = False
        self.resync_reason = why
        self.losses += 1
        self._account_dirty = True

    def synced(self, losses: int) -> None:
        """The venue was read completely since the count of losses of sight was ``losses``."""
        if self.user_up and losses == self.losses:
            self.user_ok, self.resync_reason = True, ""
            self._account_dirty = True

    def _order_event(self, t: list[int], now: int) -> None:
        order_id = id_text(t[_U_ORDER:_U_ORDER + 4])
        o = self.by_id.get(order_id)
        if o is None:
            if t[_U_TYPE] != UT_CANCELLATION:
                self.reread = f"unknown order {order_id[:10]} on the user channel"
            return
        self.matched(o, t[_U_MATCHED], now)
        if o.state == DONE:
            self._unbooked(o)
            return
        if t[_U_TYPE] == UT_CANCELLATION:
            asked = o.state == CANCELING
            self._events.append((OE_CANCELED, now, o, t[_U_STATUS]))
            self.finish(o, "canceled" if asked else "venue_canceled", now)
            if not asked and (window := self.by_market.get(o.market_id)) is not None:
                self._hold(window, o.key, now)      # whatever the venue's reason is, it may well do so again
            return
        self.confirm(o, now)
        if t[_U_TYPE] == UT_PLACEMENT:
            return
        if o.rest_u6 <= DUST_U6:
            self.finish(o, "filled", now)
        elif t[_U_STATUS] not in (ST_LIVE, 0):  # matched only in part, yet not live: cancelled in the same moment, or something else
            self.mark_unknown(o, "partly matched and not live")

    def book(self, t: list[int], now: int) -> int:
        """One own leg of a trade (USER as integers), from the user channel or from a REST read; returns what `Positions.apply` did.

        Terms of an order that we know are ours; of an unknown one (sent before a restart) those of the message count.
        """
        trade_id, order_id = tuple(t[_U_TRADE:_U_TRADE + 2]), id_text(t[_U_ORDER:_U_ORDER + 4])
        market_id, token, side, status, px_u6, size_u6 = t[_U_MARKET], t[_U_TOKEN], t[_U_SIDE], t[_U_STATUS], t[_U_PX], t[_U_SIZE]
        o = self.by_id.get(order_id)
        if o is not None:
            market_id, token, side = o.market_id, o.token, o.side
        window = self.by_market.get(market_id)
        if window is None or token not in (0, 1):
            self.report.event("frames_bad")
            self.reread, self.rebook = f"trade of an unknown market {market_id}", True
            return NOTHING
        fee = window.taker_fee_u6(px_u6, size_u6) if t[_U_ROLE] == TAKER else 0
        done = self.positions.apply(trade_id, order_id, market_id, token, side, status, px_u6, size_u6, fee)
        if done not in (BOOKED, REVERSED):
            self._account_dirty = True
            return done
        sign = 1 if (side == BUY) == (done == BOOKED) else -1
        self.cash_u6 -= sign * (px_u6 * size_u6 // 1_000_000) + (fee if done == BOOKED else -fee)
        self._account_dirty = window.dirty = True
        if o is None:
            o = Order(order_id, id_words_of(order_id), market_id, token, 0, side, px_u6 // 100, size_u6, DONE, 0)
        elif done == BOOKED:
            self._filled(window, o, size_u6, now)
        self._events.append((OE_FILL, now, o, status if done == BOOKED else TS_FAILED, 0, 0, size_u6, 0, trade_id, px_u6 // 100))
        self.positions.resolve(market_id, window.outcome)
        if done == BOOKED:
            self.report.event("fills")
        else:
            self.report.error("fill_failed", f"trade of {size_u6 / 1e6:g} shares in {market_id} failed at settlement and was taken back")
        return done

    def knows_market(self, t: list[int]) -> bool:
        """Does this leg (USER as integers) belong to a listed window, or to an order that we remember?"""
        return t[_U_MARKET] in self.by_market or id_text(t[_U_ORDER:_U_ORDER + 4]) in self.by_id

    def note(self, kind: int, o: Order) -> None:
        """An order event without further detail."""
        self._events.append((kind, self.mono_ns(), o))

    def matched(self, o: Order, matched_u6: int, now: int) -> None:
        """The venue says that so much of the order was matched in all."""
        if matched_u6 <= o.matched_u6:
            return
        o.matched_u6 = matched_u6
        self._touch(o)
        if (window := self.by_market.get(o.market_id)) is not None:
            window.own_due = True
            self._hold(window, o.key, now)

    @staticmethod
    def _hold(window: Window, key: int, now: int) -> None:
        """After a fill or a cancel by the venue: the core may not know yet, so its target is not filled up again in the meantime."""
        limits = window.limits
        limits.last_ns[key] = now
        limits.hold_ns[key] = max(limits.hold_ns[key], now + limits.min_update_ns)

    def _filled(self, window: Window, o: Order, size_u6: int, now: int) -> None:
        o.booked_u6 += size_u6
        window.own_due = True
        if o.booked_u6 > o.matched_u6:
            self._hold(window, o.key, now)
        if o.state == DONE:
            self._unbooked(o)
            return
        o.confirmed = True
        if o.rest_u6 <= DUST_U6:
            self.finish(o, "filled", now)

    def _unbooked(self, o: Order) -> None:
        """An order that is over: does it still wait for trades?"""
        window = self.by_market.get(o.market_id)
        if window is None:
            return
        if o.open_u6 > DUST_U6:
            window.tail[o.order_id] = o
        else:
            window.tail.pop(o.order_id, None)
        self._account_dirty = True

    # ---- after the sends -------------------------------------------------------------------------------------------

    def _finish_turn(self) -> bool:
        """Publish what happened; true if there was anything."""
        now = self.mono_ns()
        busy = bool(self._events or self._lines)
        for window in self.by_market.values():
            if window.own_due:
                self._publish_own(window)
        if self._events:
            self._account_dirty = True
            events, self._events = self._events, []
            out = self.links.orders
            for e in events:
                out.words[:] = event_row(*e)
                out.publish()
        if self._account_dirty or now - self._account_ns >= ACCOUNT_EVERY_NS:
            self.publish_account(now)
        if self._lines:
            lines, self._lines = self._lines, []
            try:
                self.journal.append(b"".join(lines))
            except JournalError as e:
                self._lines = lines
                self.journal_ok = False
                self.report.error("journal", str(e))
        return busy

    def _publish_own(self, window: Window) -> None:
        """Tell the core what may rest in a window's book, if that changed. A window without a slot has no reader."""
        window.own_due = False
        rows = own_rows(window)
        if rows == window.own_rows or self.windows[window.slot] is not window:
            return
        window.own_rows = rows
        out = self.links.own
        out.words[:] = own_row(window.market_id, window.slot, self.mono_ns(), rows)
        out.write(window.slot)

    def publish_nothing_own(self) -> None:
        """Write empty own orders for every slot: what an earlier life said is no longer true."""
        out, now = self.links.own, self.mono_ns()
        for slot, window in enumerate(self.windows):
            out.words[:] = own_row(0 if window is None else window.market_id, slot, now, ())
            out.write(slot)

    def publish_account(self, now: int) -> None:
        """Write the account record."""
        self._account_dirty, self._account_ns = False, now
        out = self.links.account
        out.words[:] = account_row((now, self.state, self.halt, int(self.user_ok)), self.cash_u6,
                                   (self.n_orders, self.n_cancels, self.n_rejects, len(self.unknown)),
                                   (0, 0, -1, self.order_tokens.available(now), self.cancel_tokens.available(now), 0, 0, 0),
                                   self.windows, self.positions)
        out.write()

    def _idle(self, now: int) -> None:
        """Nothing to do: sign ahead, or run the send path for nothing so that it stays in the caches."""
        hz = self.cfg.rehearse_hz
        if hz <= 0 or now - self._rehearsal_ns < 0.9e9 / hz:
            return
        self._rehearsal_ns = now
        wall_ms = self.wall_ns() // _MS
        if self.pool.refill(now, wall_ms, 2):
            return
        if self._dry is not None:
            self._rehearse(*self._dry, now, wall_ms)
            self.report.event("rehearsals")

    def _rehearse(self, window: Window, signed: list[tuple], now: int, wall_ms: int) -> None:
        """Walk the path from a bell to the write with throw-away orders: same code, same kinds of data, nothing sent or kept."""
        targets, tick = self.links.targets, window.limits.tick_e4
        targets.read(window.slot)
        lower = [(*q[:3], q[3] - tick, q[4]) for q in _quotes(targets.words.tolist())]
        self.order_tokens.available(now)
        self.cancel_tokens.available(now)
        diff(lower, window.orders.values(), window.limits, now)
        self.pool.take(0, BUY, 0, 0, now, tick)
        self.pool.misses -= 1
        self.journal.rehearse(self._ahead(window, signed, wall_ms))
        self.gateway.rehearse([s.body for _, s, _ in signed], [s.order_id_hex for _, s, _ in signed], wall_ms // 1000)

    def _prepare_rehearsal(self) -> None:
        """Throw-away signed orders of the window that is quoted now."""
        now, wall_ms = self.mono_ns(), self.wall_ns() // _MS
        for window in self.windows:
            if window is not None and window.desired and window.tradable:
                limits, pool, out = window.limits, self.pool, []
                for token in (0, 1):
                    template = pool.template(window.tokens[token], BUY, limits.tick_e4, window.version, window.neg_risk)
                    size_u6 = max(limits.min_size_u6, 5_000_000)
                    out.append(((token, 0, BUY, limits.tick_e4, size_u6), template.build(limits.tick_e4, size_u6, wall_ms, pool.salts(), now), 1))
                self._dry = window, out
                return
        self._dry = None

    def want_signed(self) -> None:
        """Tell the pool which orders are likely next: prices around the quotes of every window. Call a few times a second."""
        for window in self.windows:
            if window is None or not window.desired or not window.tradable:
                continue
            for token in (0, 1):
                quotes = [q for q in window.desired if q[0] == token]
                if quotes:
                    self.pool.want(window.tokens[token], quotes[0][2], window.limits.tick_e4, [q[3] for q in quotes],
                                   dict.fromkeys(q[4] for q in quotes), window.version, window.neg_risk)

    def compact_journal(self) -> None:
        """Rewrite the journal to the orders that are not over; a journal that failed may work again after it."""
        wall_ms = self.wall_ns() // _MS
        try:
            self.journal.compact([sent_line(o.order_id, o.market_id, o.token, o.level, o.side, o.px_e4, o.size_u6, wall_ms)
                                  for w in self.by_market.values() for o in w.orders.values()])
            self._lines = []
            self.journal_ok = True
        except OSError as e:
            self.report.error("journal", str(e))

    def tend(self) -> None:
        """House-keeping once a second: windows that left the table and have no order left are dropped, the journal is looked after."""
        if not self.journal_ok or self.journal.size > COMPACT_BYTES:
            self.compact_journal()
        self._prepare_rehearsal()
        pool = self.pool
        counts = (pool.signed, pool.hits, pool.misses, self.journal.writes)
        for name, count, before in zip(("signed", "pool_hits", "pool_misses", "journal_writes"), counts, self._counted, strict=True):
            self.report.event(name, count - before)
        self._counted = counts
        listed = {w.market_id for w in self.windows if w is not None}
        for market_id in [m for m, w in self.by_market.items() if m not in listed and not w.orders]:
            self.positions.retire(market_id)
            del self.by_market[market_id]
