"""Matching: price-time priority over one book per condition, and the recorded market that plays in it.

Owns: the books. A match is COMPLEMENTARY (one token, buyer and seller), MINT (two buyers of the two tokens) or MERGE (two sellers); makers
trade at their own price. The recorded market is one participant with unlimited money, no fees and no delay. It is addressed by level and
kept as few queue entries (consecutive adds merge), so hundreds of changes a second cost little.
Who calls: the tape (set_level, take), `orders`. The listener is called while the book is in exactly the state it is told of, because the
hash of a frame covers the whole book. What can go wrong: nothing; amounts are floored as on chain, dust of 1e-6 stays behind.

Source: venue protocol, matching core.
"""

from mmbot.sim.engine.book import BookSide, Level, Market
from mmbot.sim.engine.money import charge, cost_u6, fee_u6, move
from mmbot.sim.engine.records import Account, Leg, Order, Trade
from mmbot.sim.engine.settlement import Settlement
from mmbot.sim.engine.terms import DUST_U6, KEEP_TRADES, ONE_E4, RECORDED_OWNER
from shm_layout.records import BUY, DOWN, UP


class Matching(Settlement):
    """Books and what happens in them."""

    def __init__(self, *args):
        super().__init__(*args)
        self.markets: dict[str, Market] = {}
        self._takes = 0

    # ---- the recorded participant ----

    def set_level(self, condition_id: str, side: int, px_e4: int, size_u6: int, now_ms: int, reason: str = "cancel") -> None:
        """Make the recorded market's total at a level (Up terms) equal ``size_u6``.

        More: the difference joins the tail of the queue and first matches whatever it crosses. Less with ``reason`` "cancel": its
        youngest shares go. Less with "trade": a recorded taker of the difference hits the book down to that level, best price and
        oldest order first, so API orders that stand ahead are filled; then the level is trimmed to ``size_u6``.
        """
        market = self.markets[condition_id]
        book = market.sides[side]
        level = book.levels.get(px_e4)
        have = level.recorded if level is not None else 0
        if size_u6 > have:
            if market.accepting:
                self._recorded_add(market, side, px_e4, size_u6 - have, now_ms)
        elif size_u6 < have:
            if reason == "trade" and market.accepting:
                self.take(condition_id, 1 - side, px_e4, have - size_u6, now_ms)
                level = book.levels.get(px_e4)
            if level is not None and level.recorded > size_u6:
                self._recorded_cut(market, side, level, level.recorded - size_u6, now_ms)

    def take(self, condition_id: str, side: int, px_e4: int, size_u6: int, now_ms: int) -> int:
        """A recorded taker in Up terms: buys or sells up to ``size_u6`` no worse than ``px_e4``, the rest is killed. Returns shares."""
        market = self.markets[condition_id]
        self._takes += 1
        # every second one deals in the Down token, so that API makers meet MINT and MERGE as well
        outcome = UP if self._takes & 1 else DOWN
        if self.hooks is not None and (forced := self.hooks.taken_outcome(market, side)) >= 0:
            outcome = forced
        own_side, own_px = (side, px_e4) if outcome == UP else (1 - side, ONE_E4 - px_e4)
        order = Order("", self.recorded, RECORDED_OWNER, market, outcome, own_side, own_px, size_u6)
        self._match(order, now_ms)
        return order.matched_u6

    def _recorded_add(self, market: Market, side: int, px_e4: int, size_u6: int, now_ms: int) -> None:
        other = market.sides[1 - side].best()
        if other and (px_e4 >= other if side == BUY else px_e4 <= other):
            size_u6 -= self.take(market.condition_id, side, px_e4, size_u6, now_ms)
            if size_u6 <= DUST_U6:
                return
        book = market.sides[side]
        level = book.at(px_e4)
        queue = level.queue
        if queue and queue[-1].account is self.recorded:
            queue[-1].left_u6 += size_u6
        else:
            queue.append(Order("", self.recorded, RECORDED_OWNER, market, UP, side, px_e4, size_u6))
        level.total += size_u6
        level.recorded += size_u6
        self._changed(market, book, side, level, now_ms)

    def _recorded_cut(self, market: Market, side: int, level: Level, cut_u6: int, now_ms: int) -> None:
        self._cut(level, cut_u6)
        self._changed(market, market.sides[side], side, level, now_ms)

    def vanish(self, condition_id: str, side: int, px_e4: int, now_ms: int) -> None:
        """The recorded market's shares at a level are gone, and nobody is told: only the next book shows it."""
        market = self.markets[condition_id]
        book = market.sides[side]
        level = book.levels.get(px_e4)
        if level is not None and level.recorded:
            self._cut(level, level.recorded)
            book.touched(level)
            market.changed_ms = now_ms

    def _cut(self, level: Level, cut_u6: int) -> None:
        """Take recorded shares off a level, youngest first."""
        level.total -= cut_u6
        level.recorded -= cut_u6
        queue = level.queue
        for i in range(len(queue) - 1, -1, -1):
            if queue[i].account is self.recorded:
                part = min(cut_u6, queue[i].left_u6)
                queue[i].left_u6 -= part
                cut_u6 -= part
                if not queue[i].left_u6:
                    del queue[i]
                if not cut_u6:
                    break

    def _changed(self, market: Market, book: BookSide, side: int, level: Level, now_ms: int) -> None:
        book.touched(level)
        market.changed_ms = now_ms
        self.listener.on_level(market, side, level.px, now_ms)

    # ---- one taker against the book ----

    def _match(self, taker: Order, now_ms: int) -> list[Trade]:
        """Sweep the other side by price and time while it crosses; one trade per level with an API participant in it."""
        market, trades, prints = taker.market, [], 0
        book = market.sides[1 - taker.up_side]
        buying = taker.up_side == BUY
        while book.keys:
            px = book.keys[-1] * book.sign
            if (px > taker.up_px if buying else px < taker.up_px) or not self._want(taker, px):
                break
            level = book.levels[px]
            legs = self._fill_level(taker, level, px)
            if not legs:
                break
            prints += 1
            trade = self._settle_legs(taker, px, legs, len(trades), now_ms)
            self._changed(market, book, 1 - taker.up_side, level, now_ms)
            if trade is not None:
                trades.append(trade)
                self._tell(trade, now_ms)
        if prints:
            self.listener.on_book(market, now_ms)
            if trades and taker.account is not self.recorded:
                self._after_taking(taker, now_ms)
        return trades

    def _want(self, taker: Order, px: int) -> int:
        """Shares the taker still wants at an Up price."""
        if taker.budget_u6:
            own_px = px if taker.outcome == UP else ONE_E4 - px
            want = taker.budget_u6 * ONE_E4 // own_px
            return want if want > DUST_U6 else 0
        return taker.left_u6 if taker.left_u6 > DUST_U6 else 0

    def _fill_level(self, taker: Order, level: Level, px: int) -> list[Leg]:
        """Consume a level's queue oldest first. The amounts follow the contract: floor(making * taker / maker), dust stays behind."""
        legs, queue = [], level.queue
        own_px = px if taker.outcome == UP else ONE_E4 - px
        while queue:
            want = self._want(taker, px)
            if not want:
                break
            maker = queue[0]
            shares = min(want, maker.left_u6)
            maker_px = px if maker.outcome == UP else ONE_E4 - px
            cash = shares * maker_px // ONE_E4
            if maker.side == BUY and maker.account is not self.recorded:
                shares = cash * ONE_E4 // maker_px
            recorded = maker.account is self.recorded
            legs.append(Leg(None if recorded else maker, "" if recorded else maker.id, maker.owner, maker.account.address, maker.outcome,
                            maker.side, maker_px, shares, cash, maker.account))
            maker.left_u6 -= shares
            maker.matched_u6 += shares
            level.total -= shares
            if recorded:
                level.recorded -= shares
            if maker.left_u6 <= DUST_U6:
                level.total -= maker.left_u6
                if recorded:
                    level.recorded -= maker.left_u6
                maker.left_u6 = 0
                del queue[0]
            taker.matched_u6 += shares
            if taker.budget_u6:
                # rounded up, so that a dollar budget is never overdrawn
                taker.budget_u6 = max(0, taker.budget_u6 - (shares * own_px + ONE_E4 - 1) // ONE_E4)
                if not taker.budget_u6:
                    taker.left_u6, taker.budget_u6 = 0, 0
                    break
            else:
                taker.left_u6 -= shares
        return legs

    def _settle_legs(self, taker: Order, px: int, legs: list[Leg], bucket: int, now_ms: int) -> Trade | None:
        """Move money and shares of one level's fills; schedule the public print. A Trade only when an API participant is in it."""
        market = taker.market
        size = sum(leg.size_u6 for leg in legs)
        own_px = px if taker.outcome == UP else ONE_E4 - px
        cash = 0
        for leg in legs:
            # MINT and MERGE: the two sides' dollars add up to one per share
            part = leg.cash_u6 if leg.outcome == taker.outcome else leg.size_u6 - leg.cash_u6
            cash += part
            move(leg.account, market.tokens[leg.outcome], leg.side, leg.size_u6, leg.cash_u6)
        move(taker.account, market.tokens[taker.outcome], taker.side, size, cash)
        market.volume_u6 += cash
        api = taker.account is not self.recorded or any(leg.order is not None for leg in legs)
        tx = "0x" + self._name("tx") if api else ""
        self._at(now_ms + self.last_trade_lag_ms, self._print, market, taker.outcome, taker.side, own_px, size, tx)
        if not api:
            return None
        trade = Trade()
        trade.id, trade.seq, trade.market, trade.bucket, trade.tx = self.new_uuid(), self._count, market, bucket, tx
        trade.account, trade.outcome, trade.side, trade.px_e4 = taker.account, taker.outcome, taker.side, own_px
        trade.size_u6, trade.cash_u6, trade.legs, trade.status = size, cash, legs, "MATCHED"
        trade.match_ms = trade.last_ms = now_ms
        trade.taker = None if taker.account is self.recorded else taker
        if not taker.id:
            taker.id = "0x" + self._name("taker")
        trade.taker_id, trade.taker_owner, trade.taker_address = taker.id, taker.owner, taker.account.address
        trade.fee_u6 = fee_u6(market.spec, size, own_px) if trade.taker is not None else 0
        charge(self, taker.account, trade.fee_u6)
        for leg in legs:
            if not leg.order_id:
                leg.order_id = "0x" + self._name("maker")
        return trade

    def _tell(self, trade: Trade, now_ms: int) -> None:
        """Book a trade with its participants, tell them, and send it on its way to settlement."""
        self.trades[trade.id] = trade
        if len(self.trades) > KEEP_TRADES:
            del self.trades[next(iter(self.trades))]
        self._unsettle(trade, 1)
        if self.hooks is not None:
            self.hooks.matched(trade, now_ms)
        parties = {id(trade.account): trade.account} if trade.taker is not None else {}
        parties |= {id(leg.account): leg.account for leg in trade.legs if leg.order is not None}
        for account in parties.values():
            account.fills.append(trade)
        self.listener.on_trade(trade, now_ms)
        for leg in trade.legs:
            order = leg.order
            if order is not None:
                order.trades.append(trade.id)
                if not order.open:                    # it was cancelled before its owner heard of this
                    order.status = order.status if order.left_u6 else "MATCHED"
                elif order.left_u6:
                    self._reserve(order, cost_u6(order.left_u6, order.px_e4) if order.side == BUY else order.left_u6)
                else:
                    self._retire(order, "MATCHED")
                self.listener.on_order(order, "UPDATE", order.status, now_ms)
        if trade.taker is not None:
            trade.taker.trades.append(trade.id)
        for account in parties.values():
            self._revalidate(account, trade.taker, now_ms)
        self._at(now_ms + self.settle_ms, self._mine, trade)

    def fill_unheard(self, order: Order, size_u6: int, late_ms: float, now_ms: int) -> bool:
        """A recorded taker has met a resting order, and its owner hears of it ``late_ms`` later. The caller ends the order at once."""
        market = order.market
        level = market.sides[order.up_side].levels.get(order.up_px)
        if level is None or order not in level.queue:
            return False
        cash = min(size_u6, order.left_u6) * order.px_e4 // ONE_E4
        shares = cash * ONE_E4 // order.px_e4 if order.side == BUY else min(size_u6, order.left_u6)
        if not shares:
            return False
        left = order.left_u6 - shares
        gone = order.left_u6 if left <= DUST_U6 else shares
        order.left_u6 -= gone
        level.total -= gone
        taker = Order("", self.recorded, RECORDED_OWNER, market, order.outcome, 1 - order.side, order.px_e4, shares)
        leg = Leg(order, order.id, order.owner, order.account.address, order.outcome, order.side, order.px_e4, shares, cash, order.account)
        self._at(now_ms + late_ms, self._tell_late, self._settle_legs(taker, order.up_px, [leg], 0, now_ms))
        return True

    def _tell_late(self, trade: Trade, now_ms: int) -> None:
        for leg in trade.legs:
            leg.order.matched_u6 += leg.size_u6
        self._tell(trade, now_ms)

    def _after_taking(self, taker: Order, now_ms: int) -> None:
        left = taker.budget_u6 * ONE_E4 // taker.px_e4 if taker.budget_u6 else taker.left_u6
        if left <= DUST_U6:
            taker.left_u6 = taker.budget_u6 = 0
            self._retire(taker, "MATCHED")
        else:
            left = taker.budget_u6 or cost_u6(taker.left_u6, taker.px_e4)
            self._reserve(taker, min(taker.reserved_u6, left) if taker.side == BUY else taker.left_u6)
        self.listener.on_order(taker, "UPDATE", taker.status, now_ms)
        self._revalidate(taker.account, None, now_ms)

    def _revalidate(self, account: Account, taking: Order | None, now_ms: int) -> None:
        """Cancel the youngest BUY orders of each market whose reservation the dollars no longer cover."""
        for cid in [c for c, reserved in account.reserved_cash.items() if reserved > account.cash_u6]:
            for order in reversed([o for o in account.orders.values() if o.market.condition_id == cid and o.side == BUY]):
                if account.reserved_cash.get(cid, 0) <= account.cash_u6:
                    break
                if order is not taking:
                    self._kill(order, "CANCELED_NOT_ENOUGH_BALANCE", now_ms)

    def _print(self, market: Market, outcome: int, side: int, px_e4: int, size_u6: int, tx: str, now_ms: int) -> None:
        """The public print; from now on book hashes carry this price (the market's, not complemented)."""
        if market.outcome < 0:
            market.last_px_e4, market.last_side = px_e4, side
        self.listener.on_last_trade(market, outcome, side, px_e4, size_u6, tx, now_ms)

    def _kill(self, order: Order, status: str, now_ms: int) -> None:
        """Take an open order out of the book and tell its owner."""
        book = order.market.sides[order.up_side]
        level = book.levels.get(order.up_px)
        resting = level is not None and order in level.queue
        self._retire(order, status)
        if resting:
            level.queue.remove(order)
            level.total -= order.left_u6
        self.listener.on_order(order, "CANCELLATION", status, now_ms)
        if resting:
            self._changed(order.market, book, order.up_side, level, now_ms)
