"""From MATCHED to CONFIRMED or FAILED, the payout of a resolved market, and what owners do with settled shares: merge and redeem.

Owns: trades and what of them is not settled. MATCHED moves shares and dollars at once; they can be sold when mined; FAILED rolls a trade
back. Durations are `sim.settle_ms` twice. Once a resolved market is paid out its shares can be redeemed; with `sim.auto_redeem` all of them are at
that moment, otherwise only the recorded market's. What can go wrong: nothing by itself; `settle_hook` decides what becomes of a trade.

Source: venue protocol, trade statuses.
"""

from collections.abc import Callable

from mmbot.sim.engine.book import Market
from mmbot.sim.engine.money import Money, charge, move
from mmbot.sim.engine.records import Account, Trade
from shm_layout.records import BUY, SELL


class Settlement(Money):
    """Trades after their match."""

    def __init__(self, *args):
        super().__init__(*args)
        self.trades: dict[str, Trade] = {}
        self.settle_hook: Callable[[Trade], str] = lambda trade: "MINED"
        self.retry_ms = self.settle_ms

    def _unsettle(self, trade: Trade, sign: int) -> None:
        parts = [(trade.account, trade.outcome, trade.side, trade.size_u6)]
        parts += [(leg.account, leg.outcome, leg.side, leg.size_u6) for leg in trade.legs]
        for account, outcome, side, size in parts:
            token = trade.market.tokens[outcome]
            if side == BUY and not account.unlimited and (sign > 0 or token in account.unsettled):
                account.unsettled[token] = account.unsettled.get(token, 0) + sign * size

    def _mine(self, trade: Trade, now_ms: int) -> None:
        """First step of settlement: MINED, or what `settle_hook` says (RETRYING asks it again later, FAILED rolls the trade back)."""
        trade.status, trade.last_ms = self.settle_hook(trade), now_ms
        if trade.status == "RETRYING":
            self._at(now_ms + self.retry_ms, self._mine, trade)
        else:
            self._unsettle(trade, -1)
            if trade.status == "FAILED":
                self._roll_back(trade)
            else:
                self._at(now_ms + self.settle_ms, self._confirm, trade)
        self.listener.on_trade(trade, now_ms)

    def restore(self, trade: Trade, now_ms: int) -> None:
        """Book a trade of an earlier life of this exchange, and settle on what was not settled."""
        self._count += 1
        trade.seq = self._count
        self.trades[trade.id] = trade
        parties = [trade.account, *(leg.account for leg in trade.legs)]
        for account in {id(a): a for a in parties if a is not self.recorded}.values():
            account.fills.append(trade)
        if trade.status == "FAILED":
            return
        for leg in trade.legs:
            move(leg.account, trade.market.tokens[leg.outcome], leg.side, leg.size_u6, leg.cash_u6)
        move(trade.account, trade.market.tokens[trade.outcome], trade.side, trade.size_u6, trade.cash_u6)
        charge(self, trade.account, trade.fee_u6)
        if trade.status in ("MATCHED", "RETRYING"):
            self._unsettle(trade, 1)
            self._at(now_ms + self.settle_ms, self._mine, trade)
        elif trade.status == "MINED":
            self._at(now_ms + self.settle_ms, self._confirm, trade)

    def _confirm(self, trade: Trade, now_ms: int) -> None:
        trade.status, trade.last_ms = "CONFIRMED", now_ms
        self.listener.on_trade(trade, now_ms)

    def _roll_back(self, trade: Trade) -> None:
        tokens = trade.market.tokens
        for leg in trade.legs:
            move(leg.account, tokens[leg.outcome], 1 - leg.side, leg.size_u6, leg.cash_u6)
        move(trade.account, tokens[trade.outcome], 1 - trade.side, trade.size_u6, trade.cash_u6)
        charge(self, trade.account, -trade.fee_u6)
        if trade.market.paid:                         # its shares are dollars already
            self._redeem(trade.market)

    def pay_out(self, market: Market, now_ms: int) -> None:
        """The outcome is on chain: shares of a resolved market can be turned into dollars."""
        self.listener.on_paid(market, now_ms)
        market.paid = True
        self._redeem(market)

    def _redeem(self, market: Market) -> None:
        for account in [*self.accounts.values(), self.recorded] if self.settings.auto_redeem else [self.recorded]:
            for outcome, token in enumerate(market.tokens):
                account.unsettled.pop(token, None)
                self._burn(account, token, account.shares.get(token, 0), outcome == market.outcome)

    @staticmethod
    def _burn(account: Account, token: str, shares: int, wins: bool) -> None:
        left = account.shares.pop(token, 0) - shares
        if left:
            account.shares[token] = left
        if shares:
            account.redeemed[token] = account.redeemed.get(token, 0) + shares
            account.cash_u6 += shares if wins else 0

    @staticmethod
    def settled_u6(account: Account, token: str) -> int:
        """Shares of a token that the chain shows: open orders reserve nothing there."""
        return account.shares.get(token, 0) - account.unsettled.get(token, 0)

    def merge(self, account: Account, market: Market, size_u6: int, now_ms: int) -> None:
        """Full sets become dollars; offers whose shares are gone are cancelled. The caller has looked whether they are there."""
        for token in market.tokens:
            left = account.shares.pop(token, 0) - size_u6
            if left:
                account.shares[token] = left
            account.merged[token] = account.merged.get(token, 0) + size_u6
        account.cash_u6 += size_u6
        for order in [o for o in account.orders.values() if o.market is market and o.side == SELL]:
            if account.reserved_shares.get(order.token, 0) > self.settled_u6(account, order.token):
                self._kill(order, "CANCELED_NOT_ENOUGH_BALANCE", now_ms)

    def redeem(self, account: Account, market: Market, sizes_u6: tuple[int, int]) -> int:
        """Shares (Up, Down) of a market that is paid out become dollars, or nothing; returns the dollars."""
        for outcome, token in enumerate(market.tokens):
            self._burn(account, token, sizes_u6[outcome], outcome == market.outcome)
        return sizes_u6[market.outcome]
