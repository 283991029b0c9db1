"""Public market data of the CLOB: books, prices, midpoints, spreads, last trades, history, market objects.

Owns: nothing; it shows the engine's books. Who calls: the CLOB port (`mmbot.sim.rest`). What can go wrong: bad arguments, answered with
the venue's texts. ``BUY`` is the best bid and ``SELL`` the best ask; the plural routes exist as POST only.

Source: venue protocol, market data.
"""

from collections import deque
from collections.abc import Callable

from mmbot.sim import wire
from mmbot.sim.engine import PX_TEXT, SIDES, Exchange, Market, u6_text
from mmbot.sim.http import ApiError, Request
from mmbot.sim.paging import page
from shm_layout.records import DOWN, UP

MAX_TOKENS = 500
KEEP_POINTS = 3_000            # of a market's price history, one a second at most
E_NO_BOOK, E_TOKEN, E_SIDE = "No orderbook exists for the requested token id", "Invalid token id", "Invalid side"
E_PAYLOAD, E_TOO_MANY, E_MARKET = "Invalid payload", "Payload exceeds the limit", "market not found"
INTERVALS_S = {"1h": 3600, "6h": 21_600, "1d": 86_400, "1w": 604_800, "1m": 2_592_000, "max": 1 << 40}


class MarketData:
    """Routes that need no key."""

    def __init__(self, exchange: Exchange):
        self.exchange = exchange
        self.bookless: Callable[[Market], bool] = lambda market: False   # a market that the list knows before it has its book
        self._history: dict[str, deque] = {}

    def routes(self) -> dict:
        """(method, path) -> handler."""
        get = {
            "/ok": lambda r: "OK",
            "/time": lambda r: self._now_ms() // 1000,
            "/version": lambda r: {"version": 2},
            "/book": lambda r: wire.book_rest(*self._token(r.arg("token_id"))).encode(),
            "/price": self._price, "/midpoint": lambda r: {"mid": self._mid(r.arg("token_id"))},
            "/spread": lambda r: {"spread": self._spread(r.arg("token_id"))},
            "/last-trade-price": lambda r: self._last(r.arg("token_id")),
            "/tick-size": lambda r: {"minimum_tick_size": self._token(r.arg("token_id"))[0].tick_e4 / 10_000},
            "/neg-risk": lambda r: {"neg_risk": self._token(r.arg("token_id"))[0].spec.neg_risk},
            "/fee-rate": lambda r: {"base_fee": self._token(r.arg("token_id")) and 1000},
            "/prices-history": self._prices_history,
            "/markets": lambda r: self._markets(r, wire.rest_market), "/sampling-markets": lambda r: self._markets(r, wire.rest_market),
            "/simplified-markets": lambda r: self._markets(r, wire.simple_market),
            "/sampling-simplified-markets": lambda r: self._markets(r, wire.simple_market),
            "/markets/": lambda r: wire.rest_market(self.market(r.tail)),
            "/markets/live-activity/": self._live_activity,
            "/clob-markets/": lambda r: wire.compact_market(self.market(r.tail)),
            "/markets-by-token/": self._by_token,
            "/fees/builder-fees/": lambda r: {"builder_maker_fee_rate_bps": 0, "builder_taker_fee_rate_bps": 0},
        }
        post = {
            "/books": lambda r: ("[" + ",".join(wire.book_rest(*self._token(t)) for t in self._tokens(r)) + "]").encode(),
            "/prices": self._prices,
            "/midpoints": lambda r: {t: self._mid(t) for t in self._tokens(r)},
            "/spreads": lambda r: {t: self._spread(t) for t in self._tokens(r)},
            "/last-trades-prices": lambda r: [{"token_id": t, **self._last(t)} for t in self._tokens(r)],
        }
        routes = {("GET", p): f for p, f in get.items()} | {("POST", p): f for p, f in post.items()}
        return routes | {("GET", path): self._use_post for path in post}

    def sample(self, now_ms: int) -> None:
        """Note every market's mid for `/prices-history`; call once a second or so."""
        for market in self.exchange.markets.values():
            bid, ask = market.best()
            if bid and ask and not market.closed:
                points = self._history.setdefault(market.condition_id, deque(maxlen=KEEP_POINTS))
                if not points or points[-1][0] < now_ms // 1000:
                    points.append((now_ms // 1000, bid + ask))
        for gone in [c for c in self._history if c not in self.exchange.markets]:
            del self._history[gone]

    def _now_ms(self) -> int:
        return self.exchange.clock.now_ns() // 1_000_000

    def _use_post(self, r: Request):
        raise ApiError(400, E_PAYLOAD)

    def _token(self, token: str) -> tuple[Market, int]:
        if not token.isdecimal():
            raise ApiError(400, E_TOKEN)
        market = self.exchange.market_by_token(token)
        if market is None or self.bookless(market):
            raise ApiError(404, E_NO_BOOK)
        return market, UP if token == market.tokens[UP] else DOWN

    def _items(self, r: Request) -> list[dict]:
        items = r.json(list[dict])
        if not all(isinstance(item.get("token_id"), str) for item in items):
            raise ApiError(400, E_PAYLOAD)
        if len(items) > MAX_TOKENS:
            raise ApiError(400, E_TOO_MANY)
        return items

    def _tokens(self, r: Request) -> list[str]:
        """Tokens of a plural request; those without a book are left out, as the venue does."""
        return [t for t in dict.fromkeys(item["token_id"] for item in self._items(r)) if self._quoted(t)]

    def _quoted(self, token: str) -> bool:
        market = self.exchange.market_by_token(token)
        return market is not None and not self.bookless(market)

    def market(self, condition_id: str) -> Market:
        """The market of a condition. Errors: ApiError 404."""
        market = self.exchange.market(condition_id)
        if market is None or self.bookless(market):
            raise ApiError(404, E_MARKET)
        return market

    def _side_price(self, token: str, side: str) -> str:
        market, outcome = self._token(token)
        if side not in SIDES:
            raise ApiError(400, E_SIDE)
        return PX_TEXT[market.best(outcome)[SIDES.index(side)]]

    def _price(self, r: Request):
        return {"price": self._side_price(r.arg("token_id"), r.arg("side").upper())}

    def _prices(self, r: Request):
        """A missing side prices SELL only, without a word."""
        out: dict[str, dict] = {}
        for item in self._items(r):
            token, side = item["token_id"], str(item.get("side") or "SELL").upper()
            if side not in SIDES:
                raise ApiError(400, E_SIDE)
            if self._quoted(token):
                out.setdefault(token, {})[side] = self._side_price(token, side)
        return out

    def _both(self, token: str) -> tuple[int, int]:
        market, outcome = self._token(token)
        bid, ask = market.best(outcome)
        if not bid or not ask:
            raise ApiError(404, E_NO_BOOK)
        return bid, ask

    def _mid(self, token: str) -> str:
        return u6_text(sum(self._both(token)) * 50)

    def _spread(self, token: str) -> str:
        bid, ask = self._both(token)
        return PX_TEXT[ask - bid]

    def _last(self, token: str) -> dict:
        market, _ = self._token(token)
        return {"price": PX_TEXT[market.last_px_e4], "side": SIDES[market.last_side] if market.last_side >= 0 else ""}

    def _by_token(self, r: Request):
        market, _ = self._token(r.tail)
        return {"condition_id": market.condition_id, "primary_token_id": market.tokens[UP], "secondary_token_id": market.tokens[DOWN]}

    def _markets(self, r: Request, shape):
        return page([m for m in self.exchange.markets.values() if not self.bookless(m)], r.arg("next_cursor"), shape)

    def _live_activity(self, r: Request):
        market = self.market(r.tail)
        trades = [t for t in self.exchange.trades.values() if t.market is market]
        return [wire.activity_trade(t) for t in reversed(trades[-100:])]

    def _prices_history(self, r: Request):
        """Mids of one token, one point per ``fidelity`` minutes, and one extra point stamped now."""
        market, outcome = self._token(r.arg("market"))
        interval, now_s = r.arg("interval"), self._now_ms() // 1000
        if not interval and not (r.arg("startTs") or r.arg("endTs")):
            raise ApiError(400, "invalid filters: 'startTs' and 'endTs' or 'interval' are required")
        if interval and interval not in INTERVALS_S:
            raise ApiError(400, "invalid filters: 'interval' is not supported")
        first, last = (now_s - INTERVALS_S[interval], now_s) if interval else (r.number("startTs", 0), r.number("endTs", now_s))
        step = 60 * max(1, r.number("fidelity", 1))
        rows: dict[int, int] = {t // step * step: both for t, both in self._history.get(market.condition_id, ()) if first <= t <= last}
        bid, ask = market.best()
        if bid and ask:
            rows[now_s] = bid + ask
        return {"history": [{"t": t, "p": (both if outcome == UP else 20_000 - both) / 20_000} for t, both in sorted(rows.items())]}
