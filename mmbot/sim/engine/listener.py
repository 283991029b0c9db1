"""Who the exchange speaks to: the outer world (`Listener`) and whoever bends its rules (`Hooks`).

Owns: two interfaces whose base classes change nothing. What can go wrong: a listener that raises ends the drive loop, visibly.
"""

from mmbot.sim.engine.book import Market
from mmbot.sim.engine.records import Account, Order, Trade


class Listener:
    """What the exchange tells the world; each method is called at the moment of the change. The base class ignores everything."""

    def on_market(self, market: Market, now_ms: int) -> None:
        """A market was listed."""

    def on_level(self, market: Market, side: int, px_e4: int, now_ms: int) -> None:
        """The total of a level changed (Up terms); the new total is in the book."""

    def on_book(self, market: Market, now_ms: int) -> None:
        """A match is over: both tokens' books are due."""

    def on_last_trade(self, market: Market, outcome: int, side: int, px_e4: int, size_u6: int, tx: str, now_ms: int) -> None:
        """The public print of a trade, in the taker's token."""

    def on_tick(self, market: Market, old_e4: int, new_e4: int, now_ms: int) -> None:
        """The tick of a market changed."""

    def on_resolved(self, market: Market, now_ms: int) -> None:
        """A market has an outcome."""

    def on_paid(self, market: Market, now_ms: int) -> None:
        """A market's shares are about to be paid out."""

    def on_order(self, order: Order, kind: str, status: str, now_ms: int) -> None:
        """PLACEMENT, UPDATE or CANCELLATION of an API participant's order."""

    def on_trade(self, trade: Trade, now_ms: int) -> None:
        """A trade with at least one API participant reached ``trade.status``."""


class Hooks:
    """Faults inside the engine; each method is asked at the moment it names. The base class changes nothing."""

    def refusal(self, order: Order, now_ms: int) -> str:
        """Before an order that is otherwise in order is accepted: a text refuses it."""
        return ""

    def known_u6(self, account: Account, token: str, true_u6: int) -> int:
        """What the venue believes an account to have: dollars (``token`` "") or sellable shares."""
        return true_u6

    def refreshed(self, account: Account) -> None:
        """The owner asked the venue to look at the account again."""

    def stale_u6(self, account: Account, key: str) -> int:
        """What it believes to be reserved beside open orders: dollars of a condition or shares of a token."""
        return 0

    def before_cancel(self, order: Order, now_ms: int) -> None:
        """An owner cancels this open order."""

    def before_beat(self, owner: str, now_ms: int) -> None:
        """A heartbeat of an API key arrives."""

    def matched(self, trade: Trade, now_ms: int) -> None:
        """A trade with an API participant has matched."""

    def settling(self, now_ms: int) -> tuple[str, float]:
        """A transaction is about to be mined: ("", 0) runs it, ("revert", 0) and ("nothing", 0) spoil it, ("", ms) puts it off."""
        return "", 0.0

    def taken_outcome(self, market: Market, side: int) -> int:
        """The token in which a recorded taker deals, -1 to leave it as it is."""
        return -1
