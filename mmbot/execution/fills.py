"""What the user channel and the venue's trades say about own orders becomes order states and positions.

Owns: `Fills`, the part of the order manager that reads the `user` ring and books trade legs. State is the manager's.
Can go wrong: the channel is cut, connects anew, or we are lapped in the ring: messages may be missing, so nothing is quoted until the
venue has been read again. A trade of a market nobody listed is counted and asked for again.
"""

from mmbot.execution.order import CANCELING, DONE, Order, id_text, id_words_of
from mmbot.execution.windows import Window
from mmbot.inventory.positions import BOOKED, DUST_U6, NOTHING, REVERSED
from shm_layout.records import (BUY, OE_CANCELED, OE_FILL, ST_LIVE, TAKER, TS_FAILED, UK_CONNECTED, UK_DISCONNECTED, UK_ORDER, UK_TRADE, USER,
                                UT_CANCELLATION, UT_PLACEMENT)

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
