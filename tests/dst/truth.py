"""What is really so at the exchange, computed from its engine: the other side of every invariant.

Owns: nothing; pure reads of the engine. All money in 1e-6 dollars, shares in 1e-6.
"""

from mmbot.sim.accounts import PAPER_ADDRESS
from shm_layout.records import BUY, DOWN, UP

ONE_E4 = 10_000
FINAL = ("CONFIRMED",)


class Truth:
    """Questions about the paper account of an engine."""

    def __init__(self, engine):
        self.engine = engine
        self.account = engine.account(PAPER_ADDRESS)
        self.start_cash_u6 = self.account.cash_u6
        self._all_cash_u6: int | None = None
        self._newest = None                                 # trade up to which fills were sorted into the next two
        self._open: list = []                               # trades that are not final, in markets that are not resolved
        self._sure: dict = {}                               # of final trades: market -> [cost, up, down]

    def live(self) -> dict:
        """Own orders that can still fill, by id."""
        return self.account.orders

    def positions(self) -> dict[int, tuple[int, int]]:
        """Shares (up, down) of every market that has not been paid out, by market id."""
        shares = self.account.shares
        return {m.spec.market_id: (shares.get(m.tokens[UP], 0), shares.get(m.tokens[DOWN], 0))
                for m in self.engine.markets.values() if m.outcome < 0}

    def worst_u6(self) -> int:
        """Greatest possible loss of what is held and what may still fill, over all markets: any set of trades that are not final may fail,
        any set of live orders may fill, and each market may go either way."""
        self._sort_fills()
        loose: dict = {}                        # market -> [greatest loss added if Up wins, if Down wins]
        for trade in self._open:
            total = loose.setdefault(trade.market, [0, 0])
            for outcome, cost, size in self._legs(trade):
                self._add(total, outcome, cost, size)
        for order in self.account.orders.values():
            if order.market.outcome < 0:
                sign = 1 if order.side == BUY else -1
                cost = -(-order.left_u6 * order.px_e4 // ONE_E4)
                self._add(loose.setdefault(order.market, [0, 0]), order.outcome, sign * cost, sign * order.left_u6)
        total = 0
        for market in self._sure.keys() | loose.keys():
            cost, up, down = self._sure.get(market, (0, 0, 0))
            if_up, if_down = loose.get(market, (0, 0))
            total += max(cost - up + if_up, cost - down + if_down, 0)
        return total

    def _legs(self, trade):
        """(outcome, cost, size) of every own leg of a trade, as maker or as taker with its fee; sold ones are negative."""
        legs = [(leg.outcome, leg.side, leg.cash_u6, leg.size_u6, 0) for leg in trade.legs if leg.account is self.account]
        if trade.account is self.account:
            legs.append((trade.outcome, trade.side, trade.cash_u6, trade.size_u6, trade.fee_u6))
        return [(outcome, cash + fee, size) if side == BUY else (outcome, fee - cash, -size) for outcome, side, cash, size, fee in legs]

    def _sort_fills(self) -> None:
        """Bring `_open` and `_sure` up to now: what has failed or is paid out is out of the sum, what is final is summed up."""
        fresh = []
        for trade in reversed(self.account.fills):
            if trade is self._newest:
                break
            fresh.append(trade)
        if fresh:
            self._newest = fresh[0]
        still = []
        for trade in (*self._open, *reversed(fresh)):
            if trade.market.outcome >= 0 or trade.status == "FAILED":
                continue
            if trade.status not in FINAL:
                still.append(trade)
                continue
            held = self._sure.setdefault(trade.market, [0, 0, 0])
            for outcome, cost, size in self._legs(trade):
                held[0] += cost
                held[1 + outcome] += size
        self._open = still
        for market in [m for m in self._sure if m.outcome >= 0]:
            del self._sure[market]

    @staticmethod
    def _add(loose: list[int], outcome: int, cost: int, size: int) -> None:
        loose[UP] += max(cost - (size if outcome == UP else 0), 0)
        loose[DOWN] += max(cost - (size if outcome == DOWN else 0), 0)

    def money(self) -> int:
        """All dollars, the venue's fees among them, and all pairs of shares there are: never changes."""
        engine = self.engine
        accounts = [*engine.accounts.values(), engine.recorded]
        cash = sum(a.cash_u6 for a in accounts) + engine.fees_u6
        for market in engine.markets.values():
            up, down = (sum(a.shares.get(t, 0) for a in accounts) for t in market.tokens)
            if up != down:
                raise AssertionError(f"{market.spec.slug}: {up} Up and {down} Down shares exist")
            cash += up
        return cash

    def conserved(self) -> str:
        """"" while money is conserved, else what is wrong."""
        try:
            now = self.money()
        except AssertionError as e:
            return str(e)
        if self._all_cash_u6 is None:
            self._all_cash_u6 = now
        return "" if now == self._all_cash_u6 else f"{(now - self._all_cash_u6) / 1e6:+.6f} dollars came into being"

    def pair_price_e4(self, market) -> int:
        """Best own bid for Up plus best own bid for Down in a market, 0 unless there are both."""
        best = [0, 0]
        for order in self.account.orders.values():
            if order.market is market and order.side == BUY:
                best[order.outcome] = max(best[order.outcome], order.px_e4)
        return sum(best) if all(best) else 0

    def wealth_u6(self, mid_e4: dict[str, int]) -> int:
        """Cash, and shares at the given Up prices (condition -> 1e-4) or at what they are worth by now."""
        total = self.account.cash_u6
        for market in self.engine.markets.values():
            for outcome, token in enumerate(market.tokens):
                shares = self.account.shares.get(token, 0)
                if shares:
                    px = mid_e4.get(market.condition_id, 5000) if market.outcome < 0 else (ONE_E4 if market.outcome == UP else 0)
                    total += shares * (px if outcome == UP else ONE_E4 - px) // ONE_E4
        return total
