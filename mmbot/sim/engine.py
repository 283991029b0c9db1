"""The matching core of the exchange: books, orders, money, timers. No sockets, no clock: wall time in ms is an argument.

Owns: one book per condition, kept in Up terms (a Down bid at p is an Up ask at 1-p), so a match is COMPLEMENTARY (one token, buyer
and seller), MINT (two buyers of the two tokens) or MERGE (two sellers). Price-time priority, fills at the maker's price, integers
only: prices *_e4, shares and dollars *_u6. Rules after "venue protocol, matching core, fees, taker delay, balances".

Who writes: the REST side (submit, cancel, heartbeat) and the tape (set_level, take, change_tick, close_market, resolve); `advance`
runs the timers. Who reads: a `Listener`, called at the moment of each change while the book is in exactly that state, because the
hash of a frame covers the whole book.

The recorded market is one participant with unlimited money, no fees and no delay. It is addressed by level and kept as few queue
entries (consecutive adds merge), so hundreds of changes a second cost little.

What can go wrong: protocol timers (taker delay, settlement, heartbeat) are real durations, so they are multiplied by the clock's
rate; expiries and windows are tape time.
"""

import bisect
import hashlib
import heapq
from collections import deque
from typing import Callable

import msgspec

from mmbot.clock import WallClock
from mmbot.config import Sim
from shm_layout.records import BUY, DOWN, SELL, UP

ONE_E4 = 10_000
DUST_U6 = 9_999               # an order with no more than this left (under 0.01 share) counts as filled
LAST_TRADE_LAG_MS = 20        # the last_trade_price frame comes this much after the match
HEARTBEAT_MS, HEARTBEAT_CHECK_MS = 10_000, 5_000
GTD_THRESHOLD_S = 60          # a GTD order dies this much before its stated expiration
KEEP_CLOSED, KEEP_TRADES = 10_000, 10_000
OUTCOMES = ("Up", "Down")
SIDES = ("BUY", "SELL")
RECORDED_OWNER = "0d0d0d0d-0000-4000-8000-000000000001"
RECORDED_ADDRESS = "0x2222222222222222222222222222222222222222"

E_CROSSES = "invalid post-only order: order crosses book"
E_FOK = "order couldn't be fully filled. FOK orders are fully filled or killed."
E_FAK = "no orders found to match with FAK order. FAK orders are partially filled or killed if no match is found."
E_GONE = "already canceled or matched"
E_DELAYED = "order can't be canceled: it is delayed and pending a match"

#: decimals allowed in the share amount of a FAK/FOK BUY, by tick
AMOUNT_DECIMALS = {1000: 3, 100: 4, 50: 5, 25: 6, 10: 5, 1: 6}


def px_text(px_e4: int) -> str:
    """0.52 for 5200: shortest decimal text of a price."""
    return PX_TEXT[px_e4]


def u6_text(value_u6: int) -> str:
    """20.5 for 20500000: shortest decimal text of shares or dollars."""
    whole, rest = divmod(value_u6, 1_000_000)
    return f"{whole}.{rest:06d}".rstrip("0") if rest else str(whole)


PX_TEXT = [u6_text(px * 100) for px in range(ONE_E4 + 1)]


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
    __slots__ = ("address", "cash_u6", "shares", "unsettled", "redeemed", "reserved_cash", "reserved_shares", "orders", "fills", "unlimited")

    def __init__(self, address: str, cash_u6: int, unlimited: bool = False):
        self.address, self.cash_u6, self.unlimited = address, cash_u6, unlimited
        self.shares: dict[str, int] = {}
        self.unsettled: dict[str, int] = {}
        self.redeemed: dict[str, int] = {}
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


class Level:
    """One price level: total shares, those of the recorded market, the queue, and cached JSON texts for both tokens."""
    __slots__ = ("px", "total", "recorded", "queue", "up_json", "down_json")

    def __init__(self, px: int):
        self.px, self.total, self.recorded, self.queue, self.up_json, self.down_json = px, 0, 0, [], "", ""


class BookSide:
    """Levels of one side in Up terms. ``keys`` ascend to the best: prices for bids, negated prices for asks."""
    __slots__ = ("sign", "keys", "levels", "up_text", "down_text")

    def __init__(self, sign: int):
        self.sign, self.keys, self.levels = sign, [], {}
        self.up_text: str | None = ""
        self.down_text = ""

    def best(self) -> int:
        """Best price, 0 when empty."""
        return self.keys[-1] * self.sign if self.keys else 0

    def texts(self) -> tuple[str, str]:
        """JSON level arrays (without brackets) worst first: as seen from the Up token, and mirrored for the Down token."""
        if self.up_text is None:
            ladder = [self.levels[key * self.sign] for key in self.keys]
            self.up_text = ",".join([level.up_json for level in ladder])
            self.down_text = ",".join([level.down_json for level in ladder])
        return self.up_text, self.down_text

    def touched(self, level: Level) -> None:
        """Refresh the cached texts of a level whose total changed; drop the level when it is empty."""
        if level.total <= 0:
            del self.levels[level.px]
            del self.keys[bisect.bisect_left(self.keys, level.px * self.sign)]
        else:
            size = u6_text(level.total)
            level.up_json = f'{{"price":"{PX_TEXT[level.px]}","size":"{size}"}}'
            level.down_json = f'{{"price":"{PX_TEXT[ONE_E4 - level.px]}","size":"{size}"}}'
        self.up_text = None

    def at(self, px: int) -> Level:
        """The level at ``px``, created empty when missing (its owner must call `touched`)."""
        level = self.levels.get(px)
        if level is None:
            level = self.levels[px] = Level(px)
            bisect.insort(self.keys, px * self.sign)
        return level


class Market:
    """One condition: its spec, its book, its state. ``sides[BUY]`` are bids and ``sides[SELL]`` asks in Up terms."""

    def __init__(self, spec: MarketSpec):
        self.spec, self.condition_id = spec, spec.condition_id
        self.tokens = (spec.token_up, spec.token_down)
        self.tick_e4 = spec.tick_e4
        self.sides = (BookSide(1), BookSide(-1))
        self.accepting, self.closed, self.outcome = True, False, -1
        self.closed_ms = self.resolved_ms = 0
        self.last_px_e4, self.last_side = 0, -1       # of the market, not complemented; px 0: never traded
        self.changed_ms = 0
        self.volume_u6 = 0

    @property
    def bids(self) -> dict[int, list]:
        """Up bids: price -> queue of orders, oldest first."""
        return {px: level.queue for px, level in self.sides[BUY].levels.items()}

    @property
    def asks(self) -> dict[int, list]:
        """Up asks: price -> queue of orders, oldest first."""
        return {px: level.queue for px, level in self.sides[SELL].levels.items()}

    def best(self, outcome: int = UP) -> tuple[int, int]:
        """(bid, ask) of a token in 1e-4; 0 stands for an empty side."""
        bid, ask = self.sides[BUY].best(), self.sides[SELL].best()
        if outcome == UP:
            return bid, ask
        return (ONE_E4 - ask if ask else 0), (ONE_E4 - bid if bid else 0)

    def level_u6(self, side: int, px_e4: int) -> int:
        """Total shares at a level in Up terms."""
        level = self.sides[side].levels.get(px_e4)
        return level.total if level else 0

    def recorded_u6(self, side: int, px_e4: int) -> int:
        """Shares of the recorded market at a level in Up terms."""
        level = self.sides[side].levels.get(px_e4)
        return level.recorded if level else 0

    def state(self) -> dict:
        """What Gamma shows of a market beside its spec (prices in 1e-4, 0 when unknown; outcome -1 until resolved)."""
        bid, ask = self.best()
        return {"tick_e4": self.tick_e4, "accepting": self.accepting, "closed": self.closed, "outcome": self.outcome,
                "closed_ms": self.closed_ms, "resolved_ms": self.resolved_ms, "bid_e4": bid, "ask_e4": ask,
                "last_e4": self.last_px_e4, "volume_u6": self.volume_u6}


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


class Exchange:
    """All markets, accounts and orders. See the module's first lines for who calls what."""

    def __init__(self, clock: WallClock, seed: int, settings: Sim, listener: Listener | None = None):
        self.clock, self.settings = clock, settings
        self.listener = listener or Listener()
        self.markets: dict[str, Market] = {}
        self.tokens: dict[str, Market] = {}
        self.accounts: dict[str, Account] = {}
        self.recorded = Account(RECORDED_ADDRESS, 0, unlimited=True)
        self.orders: dict[str, Order] = {}
        self.trades: dict[str, Trade] = {}
        self.heartbeats: dict[str, list] = {}         # api key -> [expected id, deadline ms]
        self.settle_hook: Callable[[Trade], str] = lambda trade: "MINED"
        self.delay_ms = settings.taker_delay_ms * clock.rate
        self.settle_ms = settings.settle_ms * clock.rate
        self.last_trade_lag_ms = LAST_TRADE_LAG_MS * clock.rate
        self._closed: deque[str] = deque()
        self._timers: list = []
        self._count = self._takes = 0
        self._salt = f"{seed}:{clock.now_ns()}:"
        self._heartbeat_check_ms = 0.0

    # ---- markets and the recorded participant ----

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
        outcome, own_side, own_px = (UP, side, px_e4) if self._takes & 1 else (DOWN, 1 - side, ONE_E4 - px_e4)
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
        self._changed(market, market.sides[side], side, level, now_ms)

    def _changed(self, market: Market, book: BookSide, side: int, level: Level, now_ms: int) -> None:
        book.touched(level)
        market.changed_ms = now_ms
        self.listener.on_level(market, side, level.px, now_ms)

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

    def pay_out(self, market: Market, now_ms: int) -> None:
        """Turn all shares of a resolved market into dollars."""
        self.listener.on_paid(market, now_ms)
        for account in [*self.accounts.values(), self.recorded]:
            for outcome, token in enumerate(market.tokens):
                shares = account.shares.pop(token, 0)
                account.unsettled.pop(token, None)
                if shares:
                    account.redeemed[token] = account.redeemed.get(token, 0) + shares
                    account.cash_u6 += shares if outcome == market.outcome else 0

    # ---- time ----

    def advance(self, now_ms: int) -> None:
        """Run everything due: delayed takers, prints, settlement, expiries, heartbeats."""
        timers = self._timers
        while timers and timers[0][0] <= now_ms:
            due_ms, _, call, args = heapq.heappop(timers)
            call(*args, now_ms)
        if now_ms >= self._heartbeat_check_ms:
            self._check_heartbeats(now_ms)

    def _at(self, due_ms: float, call: Callable, *args) -> None:
        self._count += 1
        heapq.heappush(self._timers, (due_ms, self._count, call, args))

    def _name(self, kind: str) -> str:
        self._count += 1
        return hashlib.sha256(f"{self._salt}{kind}{self._count}".encode()).hexdigest()

    def _uuid(self) -> str:
        h = self._name("trade")
        return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:32]}"

    # ---- accounts and heartbeats ----

    def account(self, address: str) -> Account:
        """The account of an address; a new one is funded with ``sim.cash_u6``."""
        key = address.lower()
        found = self.accounts.get(key)
        if found is None:
            found = self.accounts[key] = Account(address, self.settings.cash_u6)
        return found

    def heartbeat(self, owner: str, heartbeat_id: str, now_ms: int) -> tuple[bool, str]:
        """One beat of an API key: (accepted, next id) or (False, the id that was expected). The first accepted beat arms the switch."""
        armed = self.heartbeats.get(owner)
        expected = armed[0] if armed else ""
        if heartbeat_id != expected:
            return False, expected
        following = self._uuid()
        self.heartbeats[owner] = [following, now_ms + HEARTBEAT_MS * self.clock.rate]
        return True, following

    def _check_heartbeats(self, now_ms: int) -> None:
        step = HEARTBEAT_CHECK_MS * self.clock.rate
        self._heartbeat_check_ms = (now_ms // step + 1) * step
        for owner in [k for k, (_, deadline) in self.heartbeats.items() if now_ms >= deadline]:
            del self.heartbeats[owner]
            self.cancel_all(owner, now_ms)

    # ---- orders of API participants ----

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
        error = self._money_error(order, crosses) or self._miss_error(order, crosses, now_ms)
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

    def _money_error(self, order: Order, crosses: bool) -> str:
        account, market = order.account, order.market
        if order.side == SELL:
            have = account.sellable_u6(order.token) + account.reserved_shares.get(order.token, 0)
            used, need = account.reserved_shares.get(order.token, 0), order.size_u6
        else:
            if crosses and order.maker_u6 < 1_000_000:
                return f"invalid amount for a marketable BUY order (${u6_text(order.maker_u6)}), min size: $1"
            have, used = account.cash_u6, account.reserved_cash.get(market.condition_id, 0)
            need = order.maker_u6 + (self._fee_bound(order) if crosses else 0)
            order.reserved_u6 = need
        if used + need > have:
            return (f"not enough balance / allowance: the balance is not enough -> balance: {have}, "
                    f"sum of matched orders: {used}, order amount (inc. fees): {need}")
        return ""

    def _fee_bound(self, order: Order) -> int:
        """The most a BUY can pay in fees: at its limit for a share-sized order, at the best price for a dollar-sized one."""
        if not order.budget_u6:
            return fee_u6(order.market.spec, order.size_u6, order.px_e4)
        best = order.market.best(order.outcome)[1] or order.px_e4
        return fee_u6(order.market.spec, order.budget_u6 * ONE_E4 // best, best) + 10

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

    def _open(self, order: Order) -> None:
        """Register an accepted order and its reservation."""
        account = order.account
        self.orders[order.id] = account.orders[order.id] = order
        order.open = True
        if order.side == BUY:
            cid = order.market.condition_id
            account.reserved_cash[cid] = account.reserved_cash.get(cid, 0) + order.reserved_u6
        else:
            order.reserved_u6 = order.size_u6
            account.reserved_shares[order.token] = account.reserved_shares.get(order.token, 0) + order.size_u6

    def _reserve(self, order: Order, reserved_u6: int) -> None:
        table, key = ((order.account.reserved_cash, order.market.condition_id) if order.side == BUY
                      else (order.account.reserved_shares, order.token))
        table[key] += reserved_u6 - order.reserved_u6
        order.reserved_u6 = reserved_u6
        if not table[key]:
            del table[key]

    def _retire(self, order: Order, status: str) -> None:
        """The order's life is over: reservation back, kept for questions among the last KEEP_CLOSED."""
        order.status = status
        if order.open:
            order.open = False
            self._reserve(order, 0)
            del order.account.orders[order.id]
        self._closed.append(order.id)
        if len(self._closed) > KEEP_CLOSED:
            self.orders.pop(self._closed.popleft(), None)

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

    def cancel(self, order_id: str, now_ms: int, owner: str | None = None) -> str:
        """Cancel one order. "" when done, else the venue's reason. ``owner``: only this API key's orders."""
        order = self.orders.get(order_id)
        if order is None or not order.open or (owner is not None and order.owner != owner):
            return E_GONE
        if order.status == "DELAYED":
            return E_DELAYED
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

    # ---- matching ----

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
        trade.id, trade.seq, trade.market, trade.bucket, trade.tx = self._uuid(), self._count, market, bucket, tx
        trade.account, trade.outcome, trade.side, trade.px_e4 = taker.account, taker.outcome, taker.side, own_px
        trade.size_u6, trade.cash_u6, trade.legs, trade.status = size, cash, legs, "MATCHED"
        trade.match_ms = trade.last_ms = now_ms
        trade.taker = None if taker.account is self.recorded else taker
        if not taker.id:
            taker.id = "0x" + self._name("taker")
        trade.taker_id, trade.taker_owner, trade.taker_address = taker.id, taker.owner, taker.account.address
        trade.fee_u6 = fee_u6(market.spec, size, own_px) if trade.taker is not None else 0
        taker.account.cash_u6 -= trade.fee_u6
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
        parties = {id(trade.account): trade.account} if trade.taker is not None else {}
        parties |= {id(leg.account): leg.account for leg in trade.legs if leg.order is not None}
        for account in parties.values():
            account.fills.append(trade)
        self.listener.on_trade(trade, now_ms)
        for leg in trade.legs:
            order = leg.order
            if order is not None:
                order.trades.append(trade.id)
                if order.left_u6:
                    self._reserve(order, cost_u6(order.left_u6, order.px_e4) if order.side == BUY else order.left_u6)
                else:
                    self._retire(order, "MATCHED")
                self.listener.on_order(order, "UPDATE", order.status, now_ms)
        if trade.taker is not None:
            trade.taker.trades.append(trade.id)
        for account in parties.values():
            self._revalidate(account, trade.taker, now_ms)
        self._at(now_ms + self.settle_ms, self._mine, trade)

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

    # ---- settlement ----

    def _unsettle(self, trade: Trade, sign: int) -> None:
        parts = [(trade.account, trade.outcome, trade.side, trade.size_u6)]
        parts += [(leg.account, leg.outcome, leg.side, leg.size_u6) for leg in trade.legs]
        for account, outcome, side, size in parts:
            token = trade.market.tokens[outcome]
            if side == BUY and not account.unlimited and (sign > 0 or token in account.unsettled):
                account.unsettled[token] = account.unsettled.get(token, 0) + sign * size

    def _mine(self, trade: Trade, now_ms: int) -> None:
        """First step of settlement: MINED, or what `settle_hook` says (FAILED rolls the trade back)."""
        trade.status, trade.last_ms = self.settle_hook(trade), now_ms
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
        trade.account.cash_u6 -= trade.fee_u6
        if trade.status == "MATCHED":
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
        trade.account.cash_u6 += trade.fee_u6


def move(account: Account, token: str, side: int, size_u6: int, cash_u6: int) -> None:
    """One account buys or sells shares of a token for dollars."""
    sign = 1 if side == BUY else -1
    account.cash_u6 -= sign * cash_u6
    account.shares[token] = account.shares.get(token, 0) + sign * size_u6


def cost_u6(size_u6: int, px_e4: int) -> int:
    """Dollars of a share amount at a price, rounded up."""
    return -(-size_u6 * px_e4 // ONE_E4)


def fee_u6(spec: MarketSpec, size_u6: int, px_e4: int) -> int:
    """Taker fee: shares * rate * (p * (1 - p)) ** exponent dollars, cut to 5 decimals (the source does not name the rounding)."""
    e = spec.fee_exponent
    raw = size_u6 * spec.fee_rate_e6 * (px_e4 * (ONE_E4 - px_e4)) ** e // (1_000_000 * (ONE_E4 * ONE_E4) ** e)
    return raw // 10 * 10
