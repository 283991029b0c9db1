"""What the exchange remembers of a market's terms, of accounts, orders and trades.

Owns: the records; the rooms of the engine write them, everybody reads them. Prices *_e4, shares and dollars *_u6.
What can go wrong: nothing by itself; reservations and unsettled shares must be kept by those who change them (`money`, `settlement`).
"""

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from mmbot.sim.engine.terms import KEEP_TRADES, ONE_E4
from shm_layout.records import BUY, UP

if TYPE_CHECKING:
    from mmbot.sim.engine.book import Market


class MarketSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One window as it is listed: ids, times and trading rules. ``version`` "v1" or "v2" is the protocol of its tokens."""
    market_id: int
    start_s: int
    end_s: int
    duration_s: int
    condition_id: str
    token_up: str
    token_down: str
    slug: str
    gamma_id: str = "0"
    tick_e4: int = 100
    min_size_u6: int = 5_000_000
    version: str = "v1"
    neg_risk: bool = False
    fee_rate_e6: int = 70_000
    fee_exponent: int = 1
    taker_delayed: bool = True
    label: str = "recorded"


class NewOrder(msgspec.Struct, kw_only=True):
    """An order as it arrives. Amounts as signed: a BUY makes dollars and takes shares, a SELL makes shares and takes dollars."""
    order_id: str
    address: str
    owner: str
    token: str
    side: int
    maker_u6: int
    taker_u6: int
    order_type: str = "GTC"
    post_only: bool = False
    expiration_s: int = 0


class Result(msgspec.Struct, kw_only=True):
    """What became of a submit. ``error`` is "" when accepted; status live, matched or delayed."""
    error: str = ""
    order_id: str = ""
    status: str = ""
    making_u6: int = 0
    taking_u6: int = 0
    trade_ids: list[str] = []
class Account:
    """Money of one address: dollars, shares per token (matched at once), what of it is not settled yet, and reservations."""
    __slots__ = ("address", "cash_u6", "shares", "unsettled", "redeemed", "merged", "reserved_cash", "reserved_shares", "orders", "fills", "unlimited")

    def __init__(self, address: str, cash_u6: int, unlimited: bool = False):
        self.address, self.cash_u6, self.unlimited = address, cash_u6, unlimited
        self.shares: dict[str, int] = {}
        self.unsettled: dict[str, int] = {}
        self.redeemed: dict[str, int] = {}
        self.merged: dict[str, int] = {}
        self.reserved_cash: dict[str, int] = {}
        self.reserved_shares: dict[str, int] = {}
        self.orders: dict[str, Order] = {}
        self.fills: deque = deque(maxlen=KEEP_TRADES)

    def sellable_u6(self, token: str) -> int:
        """Settled shares of ``token`` that no open SELL has reserved."""
        return self.shares.get(token, 0) - self.unsettled.get(token, 0) - self.reserved_shares.get(token, 0)


class Order:
    """One order and its life. ``left_u6`` shares (for a dollar-sized BUY: ``budget_u6`` dollars) are still to be matched."""
    __slots__ = ("id", "account", "owner", "market", "outcome", "side", "px_e4", "size_u6", "left_u6", "budget_u6", "matched_u6",
                 "order_type", "post_only", "expiration_s", "created_ms", "status", "trades", "up_side", "up_px", "reserved_u6", "open",
                 "maker_u6")

    def __init__(self, id_: str, account: Account, owner: str, market: "Market", outcome: int, side: int, px_e4: int, size_u6: int):
        self.id, self.account, self.owner, self.market, self.outcome = id_, account, owner, market, outcome
        self.side, self.px_e4, self.size_u6, self.left_u6, self.matched_u6 = side, px_e4, size_u6, size_u6, 0
        self.budget_u6 = self.maker_u6 = self.expiration_s = self.created_ms = self.reserved_u6 = 0
        self.order_type, self.post_only, self.status, self.open = "GTC", False, "LIVE", False
        self.trades: list[str] = []
        self.up_side, self.up_px = (side, px_e4) if outcome == UP else (1 - side, ONE_E4 - px_e4)

    @property
    def token(self) -> str:
        """Token id of the order."""
        return self.market.tokens[self.outcome]

    @property
    def original_u6(self) -> int:
        """Size as the venue shows it: shares, but dollars for a FAK/FOK BUY."""
        return self.maker_u6 if self.side == BUY and self.order_type in ("FAK", "FOK") else self.size_u6


class Leg(msgspec.Struct):
    """One maker's part of a trade, in the maker's own token and at its own price. ``order`` is None for a recorded maker."""
    order: Order | None
    order_id: str
    owner: str
    address: str
    outcome: int
    side: int
    px_e4: int
    size_u6: int
    cash_u6: int
    account: Account


class Trade:
    """One taker order against the makers of one price level; ``bucket`` numbers the levels of one sweep."""
    __slots__ = ("id", "seq", "market", "taker", "taker_id", "taker_owner", "taker_address", "outcome", "side", "size_u6", "px_e4", "cash_u6",
                 "fee_u6", "status", "match_ms", "last_ms", "legs", "tx", "bucket", "account")

    def owners(self) -> set[str]:
        """API keys that take part (without the recorded market)."""
        out = {leg.owner for leg in self.legs if leg.order is not None}
        return out | {self.taker_owner} if self.taker is not None else out
