"""What the user channel and the venue's trades say about own orders becomes order states and positions.

Owns: `Fills`, the part of the order manager that reads the `user` ring and books trade legs. State is the manager's.

Three streams tell of the same fill: order events (cumulative matched sizes), trade events (legs, each in several states) and, from another
wire, the public activity of our wallet. Only legs change a position; matched sizes say for how many legs an order still waits; activity is
a witness that has the trades read again when it shows what nobody else did. They come in any order, more than once, and not at all.

A cancel's answer does not say how much was matched before it. From the answer until the venue's last word (the CANCELLATION event, or the
order asked by id) all that was left of the order counts as open: the shares can be anywhere between ours and not.

Can go wrong: the channel is cut, connects anew, or we are lapped in the ring: messages may be missing, so nothing is quoted until the
venue has been read again. A trade of a market nobody listed is counted and asked for again; one of a market that was retired is history.
An order fills by more than its size: booked as the venue says, and named.
"""

from mmbot.execution.order import CANCELING, DONE, Order, id_text, id_words_of
from mmbot.execution.reconcile import NEVER_NS
from mmbot.execution.windows import Window
from mmbot.inventory.positions import BOOKED, CORRECTED, DUST_U6, NOTHING, REVERSED
from mmbot.venues.polymarket.fees import rebate_u6
from shm_layout.records import (BUY, OE_CANCELED, OE_FILL, OE_REVERSED, ST_LIVE, TAKER, UK_ACTIVITY, UK_CONNECTED, UK_DISCONNECTED, UK_ORDER,
                                UK_TRADE, USER, UT_CANCELLATION, UT_PLACEMENT)

USER_BURST = 256                    # user records handled in one wake
_U_KIND, _U_MARKET, _U_TOKEN, _U_SIDE, _U_ROLE, _U_TYPE, _U_STATUS, _U_PX, _U_SIZE, _U_MATCHED, _U_CONNECTION, _U_ORDER, _U_TRADE = (
    USER.fields[n][1] // 8 for n in ("kind", "market_id", "token", "side", "role", "type", "status", "px_u6", "size_u6", "matched_u6", "connection",
                                     "order_id", "trade_id"))


class Fills:
    """User records and trade legs for `mmbot.execution.manager.OrderManager`."""

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
        if kind == UK_ACTIVITY:         # another stream's word: it says nothing about this channel
            self._activity(t, now)
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
        self.sighted_ns = NEVER_NS
        self.resync_reason = why
        self.losses += 1
        self._account_dirty = True

    def synced(self, losses: int) -> None:
        """The venue was read completely since the count of losses of sight was ``losses``."""
        if self.user_up and losses == self.losses:
            if not self.user_ok:
                self.sighted_ns = self.mono_ns()
            self.user_ok, self.resync_reason = True, ""
            self._account_dirty = True

    def _order_event(self, t: list[int], now: int) -> None:
        order_id = id_text(t[_U_ORDER:_U_ORDER + 4])
        o = self.by_id.get(order_id)
        if o is None:
            if t[_U_TYPE] != UT_CANCELLATION:
                self.reread = f"unknown order {order_id[:10]} on the user channel"
            return
        self.shown(o)
        self.matched(o, t[_U_MATCHED], now)
        if o.state == DONE and not o.confirmed and t[_U_TYPE] != UT_CANCELLATION and t[_U_STATUS] == ST_LIVE:
            self.confirm(o, now)                # given up as absent, and it rests after all
            return
        if o.state == DONE:
            if t[_U_TYPE] == UT_CANCELLATION or o.rest_u6 <= DUST_U6:
                self.last_word(o, t[_U_MATCHED], now)
            self._unbooked(o)
            return
        if t[_U_TYPE] == UT_CANCELLATION:
            o.confirmed, asked = True, o.state == CANCELING
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

    def last_word(self, o: Order, matched_u6: int, now: int) -> None:
        """The order is over and the venue has said how much of it was matched in all: the rest of it can no longer fill."""
        self.matched(o, matched_u6, now)
        o.final = True
        self.cut.pop(o.order_id, None)
        self._unbooked(o)

    def _activity(self, t: list[int], now: int) -> None:
        """The public activity stream shows a fill of our wallet: it must be booked soon, or the user channel has lost it."""
        if t[_U_MARKET] in self.by_market and t[_U_TOKEN] in (0, 1):
            self.witness.shown(t[_U_MARKET], t[_U_TOKEN], t[_U_SIDE], t[_U_SIZE], now)

    def heed_witness(self, now: int) -> None:
        """Have the trades read when the activity stream has shown a fill that nobody has told us of. Call now and then."""
        if self.witness.open and (missing := self.witness.unmet(now)):
            self.reread, self.rebook = "a fill on the activity stream", True
            self.report.event("rereads")
            self.report.error("unseen_fill", f"the activity stream shows {missing / 1e6:g} shares that neither user channel nor trades have shown")

    def book(self, t: list[int], now: int) -> int:
        """One own leg of a trade (USER as integers), from the user channel or from a REST read; returns what `Positions.apply` did.

        Terms of an order that we know are ours; of an unknown one (sent before a restart, or by somebody else) those of the message count.
        """
        trade_id, order_id = tuple(t[_U_TRADE:_U_TRADE + 2]), id_text(t[_U_ORDER:_U_ORDER + 4])
        market_id, token, side, status, px_u6, size_u6 = t[_U_MARKET], t[_U_TOKEN], t[_U_SIDE], t[_U_STATUS], t[_U_PX], t[_U_SIZE]
        o, books = self.by_id.get(order_id), self.positions
        if o is not None:
            market_id, token, side = o.market_id, o.token, o.side
        if market_id in books.retired:
            return NOTHING
        window = self.by_market.get(market_id)
        if window is None or token not in (0, 1):
            self.report.event("frames_bad")
            self.reread, self.rebook = f"trade of an unknown market {market_id}", True
            return NOTHING
        if o is not None and not o.confirmed and o.state != DONE and now > o.deadline_ns > 0:
            self._late(o, now)          # a trade is a sign of life, too
        fee = window.taker_fee_u6(px_u6, size_u6) if t[_U_ROLE] == TAKER else 0
        spent_u6, leg_u6, conflicts = books.spent_u6, books.leg_u6(trade_id, order_id), books.conflicts
        done = books.apply(trade_id, order_id, market_id, token, side, status, px_u6, size_u6, fee)
        self.cash_u6 -= books.spent_u6 - spent_u6
        if (told_u6 := books.leg_u6(trade_id, order_id) - leg_u6) and o is not None:
            self._filled(window, o, told_u6, px_u6, now)
        self._account_dirty = True
        if books.conflicts != conflicts:
            self._difference("trade_conflict", f"the venue contradicts itself about a trade of {order_id[:12]} in {market_id}")
        if done in (BOOKED, REVERSED, CORRECTED):
            self._booked(window, o or Order(order_id, id_words_of(order_id), market_id, token, 0, side, px_u6 // 100, size_u6, DONE, 0),
                         done, t, now)
        return done

    def _booked(self, window: Window, o: Order, done: int, t: list[int], now: int) -> None:
        """A position has changed: tell it, and let the window be looked at again."""
        size_u6, market_id = t[_U_SIZE], window.market_id
        window.dirty = True
        kind = OE_REVERSED if done == REVERSED else OE_FILL
        self._events.append((kind, now, o, t[_U_STATUS], 0, 0, size_u6, 0, tuple(t[_U_TRADE:_U_TRADE + 2]), t[_U_PX] // 100))
        self.positions.resolve(market_id, window.outcome)
        position = self.positions.position(market_id)
        if (done == REVERSED) != (o.side != BUY) and position.sellable_u6[o.token] > 0:    # what was read of the balance is no longer there
            position.sellable_u6[o.token] = max(position.sellable_u6[o.token] - size_u6, 0)
        self._attribute(window, o, done, t, now)
        if done == BOOKED:
            self.report.event("fills")
            self.witness.booked(market_id, o.token, o.side, size_u6, now)
        elif done == REVERSED:
            self.report.event("reversals")
            self.report.error("fill_failed", f"trade of {size_u6 / 1e6:g} shares in {market_id} failed at settlement and was taken back")

    def _attribute(self, window: Window, o: Order, done: int, t: list[int], now: int) -> None:
        """Tell a leg to the split of the result; a fill of long ago, read from a listing, has no mid of its time."""
        key = (*t[_U_TRADE:_U_TRADE + 2], o.order_id)
        if done == REVERSED:
            self.split.undo(window.market_id, key)
            return
        size_u6, px_u6, taker = t[_U_SIZE], t[_U_PX], t[_U_ROLE] == TAKER
        fee = window.taker_fee_u6(px_u6, size_u6) if taker else 0
        rebate = 0 if taker else rebate_u6(size_u6, px_u6, window.fee_rate_e6, window.fee_exponent)
        self.split.fill(window.market_id, key, o.token, o.side, size_u6, px_u6, fee, rebate, self.mid_u6(window.market_id) if self.user_ok else None, now, o.doomed)

    def _difference(self, code: str, text: str) -> None:
        """Our books and the venue's disagree about something: named and counted."""
        self.report.event("reconcile_diffs")
        self.report.error(code, text)

    def knows_market(self, t: list[int]) -> bool:
        """Does this leg (USER as integers) belong to a listed window, or to an order that we remember?"""
        return t[_U_MARKET] in self.by_market or id_text(t[_U_ORDER:_U_ORDER + 4]) in self.by_id

    def _filled(self, window: Window, o: Order, size_u6: int, px_u6: int, now: int) -> None:
        """Legs of so many more shares (fewer when a leg's size was corrected) are known of an order of ours."""
        o.booked_u6 += size_u6
        window.own_due = True
        if o.budget_u6:
            o.spent_u6 += size_u6 * px_u6 // 1_000_000
            if o.spent_u6 > o.budget_u6 + DUST_U6:
                self._difference("overfill", f"{o.order_id[:12]}: {o.spent_u6 / 1e6:g} dollars spent of {o.budget_u6 / 1e6:g}")
        elif o.booked_u6 > o.size_u6 + DUST_U6:
            self._difference("overfill", f"{o.order_id[:12]}: {o.booked_u6 / 1e6:g} shares filled of {o.size_u6 / 1e6:g}")
        if o.booked_u6 > o.matched_u6:
            self._hold(window, o.key, now)
        if o.state == DONE:
            if o.rest_u6 <= DUST_U6:
                self.last_word(o, o.booked_u6, now)
            self._unbooked(o)
            return
        o.confirmed = True
        if o.rest_u6 <= DUST_U6:
            self.finish(o, "filled", now)

    def _unbooked(self, o: Order) -> None:
        """An order that is over: does it still wait for trades, or for the venue's word on how much was matched?"""
        window = self.by_market.get(o.market_id)
        if window is None:
            return
        if o.open_u6 > DUST_U6:
            window.tail[o.order_id] = o
        else:
            window.tail.pop(o.order_id, None)
        self._account_dirty = True
