"""All markets: listing, ticks, closing, resolving. The top room, and the one that others hold.

Owns: the list of markets. Who calls: the tape and the server. What can go wrong: nothing; unknown conditions are the caller's mistake.
"""

from mmbot.clock import WallClock
from mmbot.config import Sim
from mmbot.sim.engine.book import Market
from mmbot.sim.engine.listener import Listener
from mmbot.sim.engine.orders import Orders
from mmbot.sim.engine.records import MarketSpec


class Exchange(Orders):
    """All markets, accounts and orders."""

    def __init__(self, clock: WallClock, seed: int, settings: Sim, listener: Listener | None = None):
        """``clock`` only gives the rate of protocol timers and the salt of ids; times are arguments."""
        super().__init__(clock, seed, settings, listener)

    def add_market(self, spec: MarketSpec, now_ms: int = 0) -> Market:
        """List a market; the same condition again is ignored."""
        market = self.markets.get(spec.condition_id)
        if market is None:
            market = self.markets[spec.condition_id] = Market(spec)
            market.changed_ms = now_ms
            for token in market.tokens:
                self.tokens[token] = market
            self.listener.on_market(market, now_ms)
        return market

    def remove_market(self, condition_id: str) -> None:
        """Forget a market that is over (its orders must be gone: close and resolve it first)."""
        market = self.markets.pop(condition_id)
        for token in market.tokens:
            del self.tokens[token]

    def market(self, condition_id: str) -> Market | None:
        """The market of a condition."""
        return self.markets.get(condition_id)

    def market_by_token(self, token: str) -> Market | None:
        """The market of a token id."""
        return self.tokens.get(token)

    def change_tick(self, condition_id: str, tick_e4: int, now_ms: int) -> None:
        """A finer tick; resting orders stay valid."""
        market = self.markets[condition_id]
        old, market.tick_e4 = market.tick_e4, tick_e4
        if old != tick_e4:
            market.changed_ms = now_ms
            self.listener.on_tick(market, old, tick_e4, now_ms)

    def close_market(self, condition_id: str, now_ms: int) -> None:
        """The window is over: no new orders; resting ones die with CANCELED_MARKET_RESOLVED."""
        market = self.markets[condition_id]
        if market.closed:
            return
        market.accepting, market.closed, market.closed_ms = False, True, now_ms
        for account in self.accounts.values():
            for order in [o for o in account.orders.values() if o.market is market]:
                self._kill(order, "CANCELED_MARKET_RESOLVED", now_ms)

    def resolve(self, condition_id: str, outcome: int, now_ms: int) -> None:
        """The outcome is known. Winning shares pay a dollar each and all shares of the market burn, once its trades have settled."""
        market = self.markets[condition_id]
        if market.outcome >= 0:
            return
        self.close_market(condition_id, now_ms)
        market.outcome, market.resolved_ms = outcome, now_ms
        self.listener.on_resolved(market, now_ms)
        self._at(now_ms + 2 * self.settle_ms + 1, self.pay_out, market)
