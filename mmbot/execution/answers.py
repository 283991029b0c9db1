"""The way back: what the venue's answers mean for each order, and the life of an order up to its end.

Owns: `Answers`, the part of the order manager that judges answers leg by leg and moves orders through their states. State is the manager's.
Can go wrong: an answer that is lost or not understood leaves its orders unknown; they are asked about by id (see `recovery`), and nothing is
repeated blindly. A refusal of the venue as a whole changes its mode (`modes`); a refused leg only holds its own quote's place for a while.

A deadline binds what the venue says first: an order whose first sign of life (answer, user channel, listing) comes past its deadline is doomed
and cancelled at once. That holds for one that was given up as absent, too.
"""

from mmbot.execution.http1 import UnknownOutcome
from mmbot.execution.order import CANCELING, DONE, LIVE, MAKER_KEYS, PENDING, Order, id_words_of
from mmbot.execution.modes import LOST, MODE_OF
from mmbot.execution.order_journal import done_line, sent_line
from mmbot.execution.overdue import HELD_NS
from mmbot.execution.windows import Window
from mmbot.execution.wire import (ErrorCode, NotCanceled, Outcome, explain, not_canceled_reason, parse_cancel, parse_order, parse_orders,
                                   rate_limit)
from mmbot.inventory.exposure import of_orders
from mmbot.inventory.positions import DUST_U6
from shm_layout.records import BUY, OE_CANCELED, OE_LATE, OE_LIVE, OE_REJECTED, OE_UNKNOWN, QK_POST_ONLY, SELL, ST_CANCELED, ST_LIVE, ST_MATCHED

LAST_WORD_NS = 300_000_000          # after a cancel the user channel says how much was matched; past this it is asked by id
ARCHIVE = 4000                      # orders that are over, kept to recognise late messages
_MS = 1_000_000
#: how long a quote's place is held after a refusal of its post
QUARANTINE_NS = {ErrorCode.CROSSES_BOOK: 50 * _MS, ErrorCode.NOT_FILLED: 0, ErrorCode.NOT_ENOUGH_BALANCE: 1000 * _MS, ErrorCode.MARKET_NOT_READY: 1000 * _MS}
QUARANTINE_OTHER_NS = 2000 * _MS
#: refusals that are no failure: a post-only order would have taken, a taking one found nothing
DAILY_BREAD = frozenset({ErrorCode.CROSSES_BOOK, ErrorCode.NOT_FILLED})
MIRROR_GRACE_NS = 10_000_000_000    # so long after its acknowledgement an order is not believed to be absent


class Answers:
    """Judging answers for `mmbot.execution.manager.OrderManager`."""

    def _answered(self) -> None:
        """After an answer: what it made possible is done at once."""
        self._t_wake_ns = now = self.mono_ns()
        self._heed_venue(now)
        self._work(now)
        self._finish_turn()

    def _posted(self, window: Window, orders: list[Order], fresh: bool, future) -> None:
        window.dirty = True
        try:
            answer = future.result()
        except UnknownOutcome as e:
            now = self._unheard(e)
            self._post_lost(e.t_send_ns, now)
            for o in orders:
                self._count_post(True, now)
                self.mark_unknown(o, str(e))
            if now - e.t_send_ns >= self._timeout_ns and (waiting := [o for o in orders if o.state == PENDING]):
                self.cancel(window, waiting, now)       # it may arrive yet; a cancel of an id the venue does not know does nothing
            self._answered()
            return
        if fresh:
            self.report.hop("send_ack", answer.t_ack_ns - answer.t_send_ns)
        ids = [o.order_id for o in orders]
        legs = ([parse_order(answer.status, answer.body, ids[0])] if len(ids) == 1 else parse_orders(answer.status, answer.body, ids))
        self._heard_post(answer, legs)
        for o, leg in zip(orders, legs, strict=True):
            self._post_leg(window, o, leg, answer)
        self._answered()

    # ---- the venue as a whole --------------------------------------------------------------------------------------

    def _unheard(self, e: UnknownOutcome) -> int:
        """A request got no usable answer; returns the time."""
        self._heard_ns = now = self.mono_ns()
        self.report.event("timeouts")
        self.venue.round_trip(now - e.t_send_ns, now)
        self.venue.silent(str(e), now)
        return now

    def _heard(self, answer, bucket) -> float:
        """What every answer tells: the round trip, the rate tier, the tokens left. Returns the seconds we are told to wait (-1: not told)."""
        self._heard_ns = now = answer.t_ack_ns
        self.venue.round_trip(now - answer.t_send_ns, now)
        said = rate_limit(answer.headers)
        if said.tier and self.budget.seen_tier(said.tier):
            self._account_dirty = True
        bucket.told(said.remaining, now)
        if answer.status >= 400:
            return max(said.retry_after_s, explain(answer.status, answer.body)[2])
        return said.retry_after_s

    def _heard_post(self, answer, legs: list) -> None:
        wait_s = self._heard(answer, self.order_tokens)
        about_us_all = next((leg for leg in legs if leg.code in MODE_OF or leg.code in LOST), None)
        if about_us_all is not None and about_us_all.code in LOST:
            self._post_lost(answer.t_send_ns, answer.t_ack_ns)
        else:
            self.post_pause.answered(answer.t_send_ns)
        if about_us_all is None:
            self.venue.post_answer(ErrorCode.NONE, wait_s, answer.t_ack_ns)
            return
        if about_us_all.code is ErrorCode.RATE_LIMITED:
            self.order_tokens.drain(answer.t_ack_ns)
            self.report.event("rate_limited")
        self.venue.post_answer(about_us_all.code, wait_s, answer.t_ack_ns, about_us_all.error)

    def _heard_cancel(self, answer):
        """Judge the answer to a cancel, for the venue as a whole; returns it parsed."""
        done, wait_s = parse_cancel(answer.status, answer.body), self._heard(answer, self.cancel_tokens)
        if done.code is ErrorCode.RATE_LIMITED:
            self.cancel_tokens.drain(answer.t_ack_ns)
            self.report.event("rate_limited")
        self.venue.cancel_answer(done.code, wait_s, answer.t_ack_ns, done.error)
        return done

    def _post_lost(self, sent_ns: int, now: int) -> None:
        """The answer to a POST is lost, or has not come in time."""
        if self.post_pause.lost(sent_ns, now):
            self.report.event("post_pauses")
            self.report.error("answers_lost", f"{self.post_pause.losses} answers to posts in a row are lost: no post for {self.post_pause.wait_ns / 1e9:g} s")

    def _count_post(self, failed: bool, now: int) -> None:
        if self.errors.add(failed, now):
            self._account_dirty = True
            self.report.error("error_rate", f"too many posts refused or lost: no quotes for {self.cfg.error_pause_s:g} s")

    # ---- legs ------------------------------------------------------------------------------------------------------

    def _post_leg(self, window: Window, o: Order, leg, answer) -> None:
        refused = leg.outcome is Outcome.REFUSED and leg.code not in MODE_OF and leg.code not in DAILY_BREAD
        self._count_post(refused or leg.code in LOST, answer.t_ack_ns)
        if leg.outcome is Outcome.ACCEPTED:
            if leg.id_differs:
                self.report.error("order_id", f"the venue knows {o.order_id} as {leg.order_id}")
                self._rename(window, o, leg.order_id.lower())
            self.confirm(o, answer.t_ack_ns)
            if o.kind != QK_POST_ONLY:
                self._taken(o, leg, answer.t_ack_ns)
            elif leg.status != "live":      # a post-only order that matched at once or is held: ask
                self.mark_unknown(o, f"answered {leg.status}")
            return
        if o.state == DONE:                 # its end is known; only an acceptance could be news
            return
        if leg.outcome is Outcome.UNKNOWN:
            if leg.code is ErrorCode.DUPLICATED:        # an earlier copy of these bytes arrived
                self.confirm(o, answer.t_ack_ns)
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
        if leg.code not in MODE_OF:
            window.limits.hold_ns[o.key] = now + QUARANTINE_NS.get(leg.code, QUARANTINE_OTHER_NS)
            if leg.code not in DAILY_BREAD:
                self.report.error(f"refused_{leg.code.name.lower()}", self._unfunded(window, o, leg.error, now)
                                  if leg.code is ErrorCode.NOT_ENOUGH_BALANCE else leg.error)

    def _unfunded(self, window: Window, o: Order, text: str, now: int) -> str:
        """The venue says that the money, or the shares, are not there: take in what it says, so that what does not fit is not tried again; explain it."""
        self.reread = self.reread or "an order was refused for lack of balance"
        if o.side == BUY:
            return self.funds.refused(window.market_id, text, of_orders(window.orders).reserved_u6, self.cash_u6, now)
        self.short.add(window.market_id)
        offered_u6 = sum(x.left_u6 for x in window.orders.values() if x.side == SELL and x.token == o.token)
        held_u6 = self.positions.position(window.market_id).qty_u6[o.token]
        return self.funds.refused((window.market_id, o.token), text, offered_u6, held_u6, now, f"shares to sell of {('Up', 'Down')[o.token]}")

    def _taken(self, o: Order, leg, now: int) -> None:
        """An order that takes was accepted: matched (what it did not match is killed), or held back by the venue and judged again in a moment."""
        matched_u6 = leg.taking_u6 if o.side == BUY else leg.making_u6
        if leg.status == "matched" and matched_u6 > 0:
            self.answer_over(o, matched_u6, "matched", now)
        elif leg.status != "delayed":       # it never rests; matched by how much?
            self.mark_unknown(o, f"answered {leg.status}")

    def _rename(self, window: Window, o: Order, order_id: str) -> None:
        for table in (self.by_id, window.orders, self.unknown):
            if table.pop(o.order_id, None) is not None:
                table[order_id] = o
        o.order_id, o.id_words = order_id, id_words_of(order_id)

    def _canceled(self, orders: list[Order], future) -> None:
        try:
            answer = future.result()
        except UnknownOutcome as e:
            self._unheard(e)
            for o in orders:
                self.mark_unknown(o, str(e))
            self._answered()
            return
        done = self._heard_cancel(answer)
        if done.outcome is not Outcome.ACCEPTED:
            self.report.error(f"cancel_{done.code.name.lower()}", done.error)
        if done.outcome is Outcome.REFUSED:
            self._not_canceled(orders)
            self._answered()
            return
        gone = {i.lower() for i in done.canceled}
        kept = {i.lower(): text for i, text in done.not_canceled.items()}
        for o in orders:
            if o.state == DONE:
                continue
            if o.order_id in gone:
                o.confirmed = True
                self._events.append((OE_CANCELED, answer.t_ack_ns, o, ST_CANCELED))
                self.finish(o, "canceled", answer.t_ack_ns, final=False)
            else:
                text = kept.get(o.order_id, done.error or "not in the answer")
                if not_canceled_reason(text) is not NotCanceled.GONE:
                    self.report.error("not_canceled", text)
                self.mark_unknown(o, text)
        self._answered()

    def _not_canceled(self, orders: list[Order]) -> None:
        """The venue refused the cancel as a whole: what rested rests, and is cancelled again when the venue's mode lets us try."""
        for o in orders:
            if o.state == CANCELING and o.confirmed and not o.unknown:
                o.state = LIVE
                self._touch(o)
            else:
                self.mark_unknown(o, "the cancel was refused")

    def confirm(self, o: Order, now: int) -> None:
        """The venue has the order. The first sign of life past the deadline dooms it: it is cancelled at once."""
        first, o.confirmed = not o.confirmed, True
        if o.state == DONE:
            if first:
                self._revive(o, now)
            return
        if o.state == PENDING or (first and o.state == CANCELING):
            if now > o.deadline_ns > 0:
                self._late(o, now)
            else:
                self._settled(o)            # whatever became of the answer to its POST
                if not o.shown:
                    self._unshown[o.order_id] = o
            o.state, o.t_live_ns = LIVE, now
            self._touch(o)
            self._events.append((OE_LIVE, now, o, ST_LIVE))

    def _late(self, o: Order, now: int) -> None:
        first, o.doomed = not o.doomed, True
        self._settled(o)                    # a cancel sent before may have been there too early: it is sent again
        if first:
            self._events.append((OE_LATE, now, o, ST_LIVE))
            self.n_late += 1
            self.report.event("late_acks")

    def _revive(self, o: Order, now: int) -> None:
        """An order that was given up as refused or absent rests after all: it must go."""
        window = self.by_market.get(o.market_id)
        self.report.error("zombie_order", f"{o.order_id[:12]} rests although it was over for us: cancelling it")
        self._late(o, now)
        o.state, o.t_live_ns = LIVE, now
        self.by_id[o.order_id] = o
        self.cut.pop(o.order_id, None)
        self._lines.append(sent_line(o.order_id, o.market_id, o.token, o.level, o.side, o.kind, o.px_e4, o.budget_u6 or o.size_u6,
                                     self.wall_ns() // _MS))
        if window is not None:
            window.orders[o.order_id] = o
            window.tail.pop(o.order_id, None)
            window.own_due = True
        self._touch(o)

    def absent(self, o: Order, now: int) -> bool:
        """Asked by id, the venue does not know an order that was sent. True when that is no reason to give it up yet: it was acknowledged
        a moment ago (the listing lags behind), or its bytes were sent again."""
        if o.confirmed:
            return now - o.t_live_ns <= MIRROR_GRACE_NS
        window = self.by_market.get(o.market_id)
        return window is not None and self.repost(window, o, now)

    def mark_unknown(self, o: Order, why: str) -> None:
        """What became of it must be asked (see `recovery`); its place stays busy until then."""
        if o.state == DONE:
            return
        if not o.unknown:
            o.unknown, o.queries, o.t_query_ns = True, 0, 0
            o.t_unknown_ns = self.mono_ns()
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
        o.state, o.t_done_ns, o.final, o.body = DONE, now, final, b""
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
        o.t_query_ns = now + HELD_NS        # of use only to those that take
        self.confirm(o, now)
        self._touch(o)

    def answer_over(self, o: Order, matched_u6: int, reason: str, now: int) -> None:
        """Asked by id, the venue says the order is over, with so much matched; ``reason`` "absent": it does not know the id."""
        o.confirmed = o.confirmed or reason != "absent"
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
        if o.state == DONE:
            self._unbooked(o)
        if (window := self.by_market.get(o.market_id)) is not None:
            window.own_due = True
            self._hold(window, o.key, now)

    @staticmethod
    def _hold(window: Window, key: int, now: int) -> None:
        """After a fill or a cancel by the venue: the core may not know yet, so its target is not filled up again in the meantime. (For orders that
        take `Window.wanted_now` sees to that.)"""
        if key >= MAKER_KEYS:
            return
        limits = window.limits
        limits.last_ns[key] = now
        limits.hold_ns[key] = max(limits.hold_ns[key], now + limits.min_update_ns)
