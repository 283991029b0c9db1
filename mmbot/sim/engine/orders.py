"""Orders of API participants: validation, taker delay, resting, cancelling, and the dead-man switch.

Owns: the life of an order between its arrival and its match. Who calls: the REST side (submit, cancel, heartbeat).
What can go wrong: whatever the venue refuses comes back as its text in ``Result.error``.

Source: venue protocol, order types, taker delay, heartbeat.
"""

from mmbot.sim.engine.book import Market
from mmbot.sim.engine.matching import Matching
from mmbot.sim.engine.money import cost_u6
from mmbot.sim.engine.records import NewOrder, Order, Result
from mmbot.sim.engine.terms import (AMOUNT_DECIMALS, DUST_U6, E_CROSSES, E_DELAYED, E_FAK, E_FOK, E_GONE, GTD_THRESHOLD_S, HEARTBEAT_CHECK_MS,
                                    HEARTBEAT_MS, ONE_E4, px_text, u6_text)
from shm_layout.records import BUY, DOWN, UP


class Orders(Matching):
    """Orders, cancels, heartbeats."""

    def __init__(self, *args):
        super().__init__(*args)
        self.tokens: dict[str, Market] = {}
        self.heartbeats: dict[str, list] = {}         # api key -> [expected id, deadline ms]

    def submit(self, new: NewOrder, now_ms: int) -> Result:
        """Validate, then rest, match or hold an order. Errors come back as the venue's text in ``Result.error``."""
        market = self.tokens.get(new.token)
        if market is None or market.closed:
            return Result(error=f"the orderbook {new.token} does not exist")
        if not market.accepting:
            return Result(error="the market is not yet ready to process new orders")
        if new.order_id in self.orders:
            return Result(error=f"order {new.order_id} is invalid. Duplicated.")
        px_e4, error = self._price(new, market)
        order = None
        if not error:
            order = self._order(new, market, px_e4, now_ms)
            error = self._shape_error(new, order, now_ms)
        if error:
            return Result(error=error)
        crosses = self._crosses(order)
        if order.post_only and crosses:
            return Result(error=E_CROSSES)
        error = self.hooks.refusal(order, now_ms) if self.hooks is not None else ""
        error = error or self._money_error(order, crosses) or self._miss_error(order, crosses, now_ms)
        if error:
            return Result(error=error)
        self._open(order)
        if crosses and market.spec.taker_delayed and self.delay_ms:
            order.status = "DELAYED"
            self.listener.on_order(order, "PLACEMENT", "DELAYED", now_ms)
            self._at(now_ms + self.delay_ms, self._release, order)
            return Result(order_id=order.id, status="delayed")
        return self._execute(order, crosses, now_ms)

    def _price(self, new: NewOrder, market: Market) -> tuple[int, str]:
        """Limit price of the signed amounts, and the venue's text when it is off the grid or out of range."""
        cash, shares = (new.maker_u6, new.taker_u6) if new.side == BUY else (new.taker_u6, new.maker_u6)
        if cash <= 0 or shares <= 0:
            return 0, "Invalid order payload"
        tick = market.tick_e4
        px_e4 = (2 * cash * ONE_E4 + shares * tick) // (2 * shares * tick) * tick
        off = abs(cash * ONE_E4 - px_e4 * shares)
        # the share amount of a dollar-sized order is truncated, so its price is only nearly on the grid
        allowed = shares * tick // 10 if new.order_type in ("FAK", "FOK") else ONE_E4 - 1
        if off > allowed or not tick <= px_e4 <= ONE_E4 - tick:
            shown = f"{cash / shares:.6f}".rstrip("0").rstrip(".")
            return 0, f"order {new.order_id} is invalid. Price ({shown}) breaks minimum tick size rule: {px_text(tick)}"
        if new.order_type in ("FAK", "FOK") and new.side == BUY:
            decimals = AMOUNT_DECIMALS.get(tick, 4)
            if cash % 10_000 or shares % 10 ** (6 - decimals):
                return 0, ("invalid amounts, the market buy orders maker amount supports a max accuracy of 2 decimals, "
                           f"taker amount a max of {decimals} decimals")
        return px_e4, ""

    def _order(self, new: NewOrder, market: Market, px_e4: int, now_ms: int) -> Order:
        outcome = UP if new.token == market.tokens[UP] else DOWN
        shares = new.taker_u6 if new.side == BUY else new.maker_u6
        order = Order(new.order_id, self.account(new.address), new.owner, market, outcome, new.side, px_e4, shares)
        order.order_type, order.post_only, order.expiration_s = new.order_type, new.post_only, new.expiration_s
        order.created_ms, order.maker_u6 = now_ms, new.maker_u6
        if new.side == BUY and new.order_type in ("FAK", "FOK"):
            order.budget_u6 = new.maker_u6
        return order

    def _shape_error(self, new: NewOrder, order: Order, now_ms: int) -> str:
        resting = new.order_type in ("GTC", "GTD")
        if new.order_type not in ("GTC", "GTD", "FOK", "FAK") or (new.post_only and not resting):
            return "Invalid order payload"
        if resting and order.size_u6 < order.market.spec.min_size_u6:
            return (f"order {order.id} is invalid. Size ({u6_text(order.size_u6)}) lower than the minimum: "
                    f"{u6_text(order.market.spec.min_size_u6)}")
        if new.order_type == "GTD":
            if new.expiration_s - GTD_THRESHOLD_S <= now_ms / 1000:
                return "invalid expiration"
        elif new.expiration_s:
            return "invalid expiration"
        return ""

    def _crosses(self, order: Order) -> bool:
        best = order.market.sides[1 - order.up_side].best()
        return bool(best) and (order.up_px >= best if order.up_side == BUY else order.up_px <= best)

    def _miss_error(self, order: Order, crosses: bool, now_ms: int) -> str:
        if order.order_type == "FAK" and not crosses:
            text = E_FAK
        elif order.order_type == "FOK" and not self._fillable(order):
            text = E_FOK
        else:
            return ""
        self.orders[order.id] = order
        self._retire(order, f"CANCELED_{text}")
        self.listener.on_order(order, "CANCELLATION", order.status, now_ms)
        return text

    def _fillable(self, order: Order) -> bool:
        """Would the book fill all of a FOK order now?"""
        book = order.market.sides[1 - order.up_side]
        left = order.budget_u6 * ONE_E4 if order.budget_u6 else order.left_u6
        for key in reversed(book.keys):
            px = key * book.sign
            if px > order.up_px if order.up_side == BUY else px < order.up_px:
                break
            own_px = px if order.outcome == UP else ONE_E4 - px
            left -= book.levels[px].total * own_px if order.budget_u6 else book.levels[px].total
        return left <= (DUST_U6 * ONE_E4 if order.budget_u6 else DUST_U6)

    def _release(self, order: Order, now_ms: int) -> None:
        """The taker delay of an order is over: judge it again, against the book as it is now."""
        if not order.open:
            return
        order.status = "LIVE"
        crosses = self._crosses(order)
        if order.order_type == "FOK" and not self._fillable(order):
            self._kill(order, f"CANCELED_{E_FOK}", now_ms)
        elif order.order_type == "FAK" and not crosses:
            self._kill(order, f"CANCELED_{E_FAK}", now_ms)
        else:
            self._execute(order, crosses, now_ms, released=True)

    def _execute(self, order: Order, crosses: bool, now_ms: int, released: bool = False) -> Result:
        """Match what crosses, then rest or kill the remainder."""
        trades = self._match(order, now_ms) if crosses else []
        result = Result(order_id=order.id, status="live")
        if trades:
            cash = sum(t.cash_u6 for t in trades)
            result.status, result.trade_ids = "matched", [t.id for t in trades]
            result.making_u6, result.taking_u6 = (cash, order.matched_u6) if order.side == BUY else (order.matched_u6, cash)
        if not order.open:
            return result
        if order.order_type in ("FAK", "FOK"):
            self._kill(order, "CANCELED", now_ms)
            return result
        if order.side == BUY:
            self._reserve(order, cost_u6(order.left_u6, order.px_e4))
        if not trades:
            self.listener.on_order(order, *(("UPDATE", "UNMATCHED") if released else ("PLACEMENT", "LIVE")), now_ms)
        book = order.market.sides[order.up_side]
        level = book.at(order.up_px)
        level.queue.append(order)
        level.total += order.left_u6
        self._changed(order.market, book, order.up_side, level, now_ms)
        if order.order_type == "GTD":
            self._at((order.expiration_s - GTD_THRESHOLD_S) * 1000, self._expire, order)
        return result

    def _expire(self, order: Order, now_ms: int) -> None:
        if order.open:
            self._kill(order, "CANCELED_EXPIRED_ORDER", now_ms)

    # ---- cancels ----

    def cancel(self, order_id: str, now_ms: int, owner: str | None = None) -> str:
        """Cancel one order. "" when done, else the venue's reason. ``owner``: only this API key's orders."""
        order = self.orders.get(order_id)
        if order is None or not order.open or (owner is not None and order.owner != owner):
            return E_GONE
        if order.status == "DELAYED":
            return E_DELAYED
        if self.hooks is not None:
            self.hooks.before_cancel(order, now_ms)
        self._kill(order, "CANCELED", now_ms)
        return ""

    def cancel_all(self, owner: str, now_ms: int, condition_id: str = "", token: str = "") -> tuple[list[str], dict[str, str]]:
        """Cancel all open orders of an API key (of one market or token if given): (cancelled ids, {id: reason})."""
        done, refused = [], {}
        for order in self.open_orders(owner):
            if (condition_id and order.market.condition_id != condition_id) or (token and order.token != token):
                continue
            if reason := self.cancel(order.id, now_ms):
                refused[order.id] = reason
            else:
                done.append(order.id)
        return done, refused

    def open_orders(self, owner: str) -> list[Order]:
        """Open orders (live and delayed) of an API key, oldest first."""
        return [o for a in self.accounts.values() for o in a.orders.values() if o.owner == owner]

    # ---- heartbeats ----

    def heartbeat(self, owner: str, heartbeat_id: str, now_ms: int) -> tuple[bool, str]:
        """One beat of an API key: (accepted, next id) or (False, the id that was expected). The first accepted beat arms the switch."""
        if self.hooks is not None:
            self.hooks.before_beat(owner, now_ms)
        armed = self.heartbeats.get(owner)
        expected = armed[0] if armed else ""
        if heartbeat_id != expected:
            return False, expected
        following = self.new_uuid()
        self.heartbeats[owner] = [following, now_ms + HEARTBEAT_MS * self.clock.rate]
        return True, following

    def _check_heartbeats(self, now_ms: int) -> None:
        step = HEARTBEAT_CHECK_MS * self.clock.rate
        self._heartbeat_check_ms = (now_ms // step + 1) * step
        for owner in [k for k, (_, deadline) in self.heartbeats.items() if now_ms >= deadline]:
            del self.heartbeats[owner]
            self.cancel_all(owner, now_ms)
