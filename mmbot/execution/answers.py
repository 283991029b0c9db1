"""The way back: what the venue's answers mean for each order, and the life of an order up to its end.

Owns: `Answers`, the part of the order manager that judges answers leg by leg and moves orders through their states. State is the manager's.
Can go wrong: an answer that is lost or not understood leaves its orders unknown; they are asked about by id (see `recovery`), and nothing is
repeated blindly. A refusal of the venue as a whole pauses posts; cancels go on.
"""

from mmbot.execution.http1 import UnknownOutcome
from mmbot.execution.order import CANCELING, DONE, LIVE, PENDING, Order, id_words_of
from mmbot.execution.order_journal import done_line
from mmbot.execution.windows import Window
from mmbot.execution.wire import ErrorCode, NotCanceled, Outcome, not_canceled_reason, parse_cancel, parse_order, parse_orders, rate_limit
from mmbot.inventory.positions import DUST_U6
from shm_layout.records import OE_CANCELED, OE_LIVE, OE_REJECTED, OE_UNKNOWN, ST_CANCELED, ST_LIVE, ST_MATCHED

LAST_WORD_NS = 300_000_000          # after a cancel the user channel says how much was matched; past this it is asked by id
ARCHIVE = 4000                      # orders that are over, kept to recognise late messages
_MS = 1_000_000
#: how long a quote's place is held after a refusal of its post
QUARANTINE_NS = {ErrorCode.CROSSES_BOOK: 50 * _MS, ErrorCode.NOT_ENOUGH_BALANCE: 1000 * _MS, ErrorCode.RATE_LIMITED: 250 * _MS,
                 ErrorCode.MARKET_NOT_READY: 1000 * _MS}
QUARANTINE_OTHER_NS = 2000 * _MS
#: how long all posts pause when the venue as a whole refuses
PAUSE_NS = {ErrorCode.RATE_LIMITED: 500 * _MS, ErrorCode.RESTARTING: 2000 * _MS, ErrorCode.CANCEL_ONLY: 2000 * _MS,
            ErrorCode.DISABLED: 2000 * _MS, ErrorCode.GEOBLOCK: 30_000 * _MS, ErrorCode.UNAUTHORIZED: 5000 * _MS,
            ErrorCode.BANNED: 30_000 * _MS, ErrorCode.FORBIDDEN: 5000 * _MS}


class Answers:
    """Judging answers for `mmbot.execution.manager.OrderManager`."""

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
                self.finish(o, "canceled", answer.t_ack_ns, final=False)
            else:
                text = kept.get(o.order_id, done.error or "not in the answer")
                if not_canceled_reason(text) is not NotCanceled.GONE:
                    self.report.error("not_canceled", text)
                self.mark_unknown(o, text)
        self._answered()

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

    def finish(self, o: Order, reason: str, now: int, final: bool = True) -> None:
        """The order is over: it leaves the book of live orders and is closed in the journal. Matched shares without a trade are waited for.

        ``final``: the venue has said how much was matched in all; until it has, all that is left of the order counts as open.
        """
        if o.state == DONE:
            return
        o.state, o.t_done_ns, o.final = DONE, now, final
        if not final:
            o.queries, o.t_query_ns = 0, now + LAST_WORD_NS
            self.cut[o.order_id] = o
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
