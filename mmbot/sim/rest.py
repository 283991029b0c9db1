"""The exchange's HTTP side: CLOB REST, Gamma, and the operator's own routes.

Owns: routing, authentication of private routes, rate limits per signer, paging, status codes and error texts. All state is the
engine's. What can go wrong: bad requests, answered with the venue's texts; a handler never takes the server down.

Operator routes (not the venue's): /sim/clock, /sim/books (the truth of all accounts, for tests), /sim/health, /sim/stamps.

Source: venue protocol, REST, errors, rate limits, Gamma discovery.
"""

import base64
import heapq
import re
from collections.abc import Callable
from datetime import datetime

import msgspec
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from mmbot.clock import WallClock, mono_ns
from mmbot.sim import orders as bodies
from mmbot.sim import wire
from mmbot.sim.auth import AuthError, Credentials, Keys
from mmbot.sim.channels import Stamps
from mmbot.sim.engine import PX_TEXT, SIDES, Exchange, Market, Result, u6_text
from mmbot.sim.ledger import Ledger
from mmbot.sim.orders import OrderError
from shm_layout.records import DOWN, UP

PAGE = 500
FIRST_CURSOR, END_CURSOR = "MA==", "LTE="
MAX_CANCELS = 1000
E_NO_BOOK = "No orderbook exists for the requested token id"
_ORDER_ID = re.compile(r"0x[0-9a-fA-F]{64}")
_decode = msgspec.json.Decoder().decode


class ApiError(Exception):
    """A refusal: HTTP status, JSON body, extra headers."""

    def __init__(self, status: int, error: str | dict, headers: dict | None = None):
        super().__init__(error)
        self.status, self.headers = status, headers
        self.payload = {"error": error} if isinstance(error, str) else error


class Bucket:
    """Token bucket of the Standard tier, in real time."""

    def __init__(self, per_s: float, burst: int, may_owe: bool):
        self.per_s, self.burst, self.may_owe = per_s, burst, may_owe
        self.tokens, self._at_ns = float(burst), 0

    def take(self, cost: int, now_ns: int) -> bool:
        """All or nothing; a bucket that may owe only asks for one token to be there."""
        if self._at_ns:
            self.tokens = min(self.burst, self.tokens + (now_ns - self._at_ns) * 1e-9 * self.per_s)
        self._at_ns = now_ns
        if self.tokens < (1 if self.may_owe else cost):
            return False
        self.tokens -= cost
        return True

    def wait_s(self, cost: int) -> float:
        """Seconds until ``cost`` would be granted."""
        need = 1 if self.may_owe else min(cost, self.burst)
        return max(0.0, (need - self.tokens) / self.per_s)


class StampedHandler(RequestHandler):
    """An HTTP connection that knows when its newest byte arrived (the handler itself starts later)."""
    __slots__ = ("last_byte_ns",)

    def data_received(self, data: bytes) -> None:
        self.last_byte_ns = mono_ns()
        super().data_received(data)


class StampedServer(web.Server):
    """aiohttp's low-level server with `StampedHandler` connections."""

    def __call__(self) -> RequestHandler:
        return StampedHandler(self, loop=self._loop, **self._kwargs)


class Request(msgspec.Struct):
    """What a route sees of a request."""
    method: str
    path: str
    tail: str                     # of a path that ends in an id
    query: object
    headers: object
    body: bytes
    t_ns: int

    def arg(self, name: str) -> str:
        """One query argument, "" when missing."""
        return self.query.get(name, "")

    def number(self, name: str, default: int) -> int:
        """One query argument as a number. Errors: ApiError."""
        text = self.arg(name)
        if text and not text.isdecimal():
            raise ApiError(400, f"invalid {name}")
        return int(text) if text else default

    def json(self, kind: type):
        """The body as JSON of a type. Errors: ApiError."""
        try:
            return msgspec.json.decode(self.body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise ApiError(400, "Invalid payload") from None


class Raw:
    """An answer that is JSON text already, with extra headers."""

    def __init__(self, text: bytes, headers: dict | None = None):
        self.text, self.headers = text, headers


class Service:
    """Routes of one port. ``routes``: (method, path) -> handler; a path ending in "/" takes an id behind it."""

    def __init__(self):
        self.routes: dict[tuple[str, str], Callable] = {}
        self.failures = 0
        self.last_failure = ""

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Find the route, run it, turn what comes back into a response."""
        body = await request.read()
        path = request.path
        head, _, tail = path.rpartition("/")
        route = self.routes.get((request.method, path)) or (self.routes.get((request.method, head + "/")) if head and tail else None)
        seen = Request(request.method, path, tail, request.query, request.headers, body, getattr(request.protocol, "last_byte_ns", 0))
        status, headers = 200, None
        try:
            if route is None:
                raise ApiError(404, "not found")
            answer = route(seen)
        except ApiError as e:
            status, answer, headers = e.status, e.payload, e.headers
        except AuthError as e:
            status, answer = 401, {"error": str(e)}
        except OrderError as e:
            status, answer = 400, {"error": str(e)}
        except Exception as e:                        # a defect here must look like the venue's, not end the exchange
            self.failures += 1
            self.last_failure = f"{request.method} {path}: {type(e).__name__}: {e}"
            status, answer = 500, {"error": "Internal server error"}
        if isinstance(answer, Raw):
            answer, headers = answer.text, answer.headers
        data = answer if isinstance(answer, bytes) else wire.encode(answer)
        return web.Response(body=data, status=status, content_type="application/json", headers=headers)


class ClobRest(Service):
    """The CLOB port: public market data, private trading, operator routes."""

    def __init__(self, exchange: Exchange, keys: Keys, stamps: Stamps, chain_id: int, label: str):
        super().__init__()
        self.exchange, self.keys, self.stamps, self.label = exchange, keys, stamps, label
        self.clock: WallClock = exchange.clock
        self.domains = bodies.Domains(chain_id)
        self.wallets: dict[str, str] = {}             # funder address -> EOA
        self.funders: dict[tuple[str, int], str] = {}  # (EOA, signature type) -> funder address
        self.ledger: Ledger | None = None             # set by the server once the past is recovered
        self._buckets: dict[str, tuple[Bucket, Bucket]] = {}
        self._public()
        self._private()

    def now_ms(self) -> int:
        """Tape time in ms."""
        return self.clock.now_ns() // 1_000_000

    # ---- public ----

    def _public(self) -> None:
        get = {
            "/ok": lambda r: "OK",
            "/time": lambda r: self.now_ms() // 1000,
            "/version": lambda r: {"version": 2},
            "/book": lambda r: wire.book_rest(*self._token(r.arg("token_id"))).encode(),
            "/price": self._price, "/midpoint": lambda r: {"mid": self._mid(r.arg("token_id"))},
            "/spread": lambda r: {"spread": self._spread(r.arg("token_id"))},
            "/last-trade-price": lambda r: self._last(r.arg("token_id")),
            "/tick-size": lambda r: {"minimum_tick_size": self._token(r.arg("token_id"))[0].tick_e4 / 10_000},
            "/neg-risk": lambda r: {"neg_risk": self._token(r.arg("token_id"))[0].spec.neg_risk},
            "/fee-rate": lambda r: {"base_fee": self._token(r.arg("token_id")) and 1000},
            "/markets/": lambda r: wire.rest_market(self._market(r.tail)),
            "/clob-markets/": lambda r: wire.compact_market(self._market(r.tail)),
            "/markets-by-token/": self._by_token,
            "/api/geoblock": lambda r: {"blocked": False, "ip": "127.0.0.1", "country": "CH", "region": "ZH"},
            "/sim/clock": lambda r: self.clock.as_dict(),
            "/sim/stamps": lambda r: self.stamps.since(r.number("since", 0)),
            "/sim/books": lambda r: self.books(),
            "/sim/health": self._health,
        }
        post = {
            "/books": lambda r: ("[" + ",".join(wire.book_rest(*self._token(t)) for t in self._tokens(r)) + "]").encode(),
            "/prices": self._prices,
            "/midpoints": lambda r: {t: self._mid(t) for t in self._tokens(r)},
            "/spreads": lambda r: {t: self._spread(t) for t in self._tokens(r)},
            "/last-trades-prices": lambda r: [{"token_id": t, **self._last(t)} for t in self._tokens(r)],
        }
        self.routes |= {("GET", p): f for p, f in get.items()} | {("POST", p): f for p, f in post.items()}
        for path in post:
            self.routes["GET", path] = self._use_post

    def _use_post(self, r: Request):
        raise ApiError(400, "Invalid payload")

    def _token(self, token: str) -> tuple[Market, int]:
        if not token.isdigit():
            raise ApiError(400, "Invalid token id")
        market = self.exchange.tokens.get(token)
        if market is None:
            raise ApiError(404, E_NO_BOOK)
        return market, UP if token == market.tokens[UP] else DOWN

    def _tokens(self, r: Request) -> list[str]:
        return [str(item.get("token_id", "")) for item in r.json(list[dict])[:PAGE]]

    def _market(self, condition_id: str) -> Market:
        market = self.exchange.market(condition_id)
        if market is None:
            raise ApiError(404, "market not found")
        return market

    def _side_price(self, token: str, side: str) -> str:
        """BUY is the best bid, SELL the best ask."""
        market, outcome = self._token(token)
        if side not in SIDES:
            raise ApiError(400, "Invalid side")
        return PX_TEXT[market.best(outcome)[SIDES.index(side)]]

    def _price(self, r: Request):
        return {"price": self._side_price(r.arg("token_id"), r.arg("side").upper())}

    def _prices(self, r: Request):
        out: dict[str, dict] = {}
        for item in r.json(list[dict]):
            token, side = str(item.get("token_id", "")), str(item.get("side") or "SELL").upper()
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

    # ---- private ----

    def _private(self) -> None:
        l2 = {
            ("GET", "/auth/api-keys"): lambda r, who: {"apiKeys": self.keys.of(who.address)},
            ("DELETE", "/auth/api-key"): self._drop_key,
            ("GET", "/auth/ban-status/closed-only"): lambda r, who: {"closed_only": False},
            ("POST", "/order"): self._post_one, ("POST", "/orders"): self._post_many,
            ("DELETE", "/order"): self._cancel_one, ("DELETE", "/orders"): self._cancel_many,
            ("DELETE", "/cancel-all"): self._cancel_all, ("DELETE", "/cancel-market-orders"): self._cancel_market,
            ("POST", "/v1/heartbeats"): self._heartbeat,
            ("GET", "/data/order/"): self._order, ("GET", "/data/orders"): self._orders, ("GET", "/data/trades"): self._trades,
            ("GET", "/balance-allowance"): self._balance, ("GET", "/balance-allowance/update"): self._balance,
            ("GET", "/order-scoring"): lambda r, who: {"scoring": self._own(r.arg("order_id"), who) is not None},
            ("GET", "/notifications"): lambda r, who: [],
        }
        for route, handler in l2.items():
            self.routes[route] = self._with_l2(handler)
        self.routes["POST", "/auth/api-key"] = self.routes["GET", "/auth/derive-api-key"] = self._make_key

    def _with_l2(self, handler: Callable) -> Callable:
        return lambda r: handler(r, self.keys.l2(r.headers, r.method, r.path, r.body))

    def _make_key(self, r: Request):
        """Creating and deriving are the same: the key of (address, nonce) is always the same one."""
        address, nonce = self.keys.l1(r.headers)
        c = self.keys.create(address, nonce)
        if self.ledger is not None:
            self.ledger.key(address, nonce)
        self.exchange.account(address)
        return {"apiKey": c.api_key, "secret": c.secret, "passphrase": c.passphrase}

    def _drop_key(self, r: Request, who: Credentials):
        self.keys.remove(who.api_key)
        return "OK"

    def _limit(self, who: Credentials, kind: int, cost: int) -> dict:
        """Take ``cost`` tokens of a signer's orders (0) or cancels (1). Returns the headers of the answer. Errors: ApiError 429."""
        buckets = self._buckets.get(who.address)
        if buckets is None:
            buckets = self._buckets[who.address] = (Bucket(40, 60, False), Bucket(80, 120, True))
        bucket = buckets[kind]
        granted = bucket.take(cost, mono_ns())
        wait_s = bucket.wait_s(cost)
        headers = {"Poly-RateLimit-Remaining": str(int(bucket.tokens)), "Poly-RateLimit-Tier": "Standard",
                   "Poly-RateLimit-Reset": str(int(self.now_ms() / 1000 + wait_s))}
        if not granted:
            raise ApiError(429, "Too Many Requests", headers | {"Retry-After": str(max(1, -int(-wait_s // 1)))})
        return headers

    def _post_one(self, r: Request, who: Credentials):
        body = bodies.decode_one(r.body)
        self.stamps.post(r.t_ns, 1)
        headers = self._limit(who, 0, 1)
        result = self._submit(body, who)
        if result.error:
            raise ApiError(400, result.error, headers)
        return Raw(wire.encode(order_answer(result)), headers)

    def _post_many(self, r: Request, who: Credentials):
        batch = bodies.decode_many(r.body)
        self.stamps.post(r.t_ns, len(batch))
        headers = self._limit(who, 0, len(batch))
        return Raw(wire.encode([order_answer(self._submit(body, who)) for body in batch]), headers)

    def _submit(self, body: bodies.Body, who: Credentials) -> Result:
        market = self.exchange.market_by_token(body.order.token_id)
        if market is None:
            return Result(error=f"the orderbook {body.order.token_id} does not exist")
        try:
            new = bodies.check(body, who, market.spec, self.domains, self.wallets)
        except OrderError as e:
            return Result(error=str(e))
        kind = (who.address, body.order.signature_type)
        if self.funders.get(kind) != new.address:
            self.funders[kind] = new.address
            if self.ledger is not None:
                self.ledger.wallet(new.address, *kind)
        return self.exchange.submit(new, self.now_ms())

    def _cancel(self, who: Credentials, ids: list[str], headers: dict):
        done, refused = [], {}
        now_ms = self.now_ms()
        for order_id in dict.fromkeys(ids):
            if reason := self.exchange.cancel(order_id, now_ms, who.api_key):
                refused[order_id] = reason
            else:
                done.append(order_id)
        return Raw(wire.encode({"canceled": done, "not_canceled": refused}), headers)

    def _cancel_one(self, r: Request, who: Credentials):
        order_id = r.json(dict).get("orderID")
        if not isinstance(order_id, str) or not _ORDER_ID.fullmatch(order_id):
            raise ApiError(400, "Invalid orderID")
        return self._cancel(who, [order_id], self._limit(who, 1, 1))

    def _cancel_many(self, r: Request, who: Credentials):
        ids = r.json(list[str])
        if len(ids) > MAX_CANCELS:
            raise ApiError(400, f"Too many orders in payload, max allowed: {MAX_CANCELS}")
        if not all(_ORDER_ID.fullmatch(i) for i in ids):
            raise ApiError(400, "Invalid orderID")
        return self._cancel(who, ids, self._limit(who, 1, max(1, len(ids))))

    def _cancel_all(self, r: Request, who: Credentials):
        return self._sweep(who, "", "")

    def _cancel_market(self, r: Request, who: Credentials):
        asked = r.json(dict) if r.body else {}
        return self._sweep(who, str(asked.get("market") or ""), str(asked.get("asset_id") or ""))

    def _sweep(self, who: Credentials, condition_id: str, token: str):
        """Costs one token and one for each order cancelled."""
        headers = self._limit(who, 1, 1)
        done, refused = self.exchange.cancel_all(who.api_key, self.now_ms(), condition_id, token)
        self._buckets[who.address][1].tokens -= len(done)
        return Raw(wire.encode({"canceled": done, "not_canceled": refused}), headers)

    def _heartbeat(self, r: Request, who: Credentials):
        beat = r.json(dict).get("heartbeat_id") or ""
        accepted, beat_id = self.exchange.heartbeat(who.api_key, str(beat), self.now_ms())
        if not accepted:
            raise ApiError(400, {"error_msg": "Invalid Heartbeat ID", "heartbeat_id": beat_id})
        return {"heartbeat_id": beat_id}

    def _own(self, order_id: str, who: Credentials):
        order = self.exchange.orders.get(order_id)
        return order if order is not None and order.owner == who.api_key else None

    def _order(self, r: Request, who: Credentials):
        order = self._own(r.tail, who)
        return wire.rest_order(order) if order is not None else None

    def _orders(self, r: Request, who: Credentials):
        wanted, market, token = r.arg("id"), r.arg("market"), r.arg("asset_id")
        rows = [o for o in self.exchange.open_orders(who.api_key) if wanted in ("", o.id) and market in ("", o.market.condition_id)
                and token in ("", o.token)]
        return page(rows, r.arg("next_cursor"), wire.rest_order)

    def _trades(self, r: Request, who: Credentials):
        wanted, market, token, maker = r.arg("id"), r.arg("market"), r.arg("asset_id"), r.arg("maker_address").lower()
        before, after = r.number("before", 1 << 62), r.number("after", 0)
        addresses = [who.address.lower(), *(w for w, eoa in self.wallets.items() if eoa == who.address)]
        accounts = [a for a in map(self.exchange.accounts.get, dict.fromkeys(addresses)) if a is not None]
        rows = []
        for trade in heapq.merge(*(reversed(a.fills) for a in accounts), key=lambda t: -t.seq):
            if trade.match_ms // 1000 < after:
                break
            if (who.api_key in trade.owners() and wanted in ("", trade.id) and market in ("", trade.market.condition_id)
                    and trade.match_ms // 1000 <= before and (not rows or rows[-1] is not trade)
                    and (not token or token in {trade.market.tokens[o] for o in (trade.outcome, *(g.outcome for g in trade.legs))})
                    and (not maker or maker in {a.lower() for a in (trade.taker_address, *(g.address for g in trade.legs))})):
                rows.append(trade)
        return page(rows, r.arg("next_cursor"), lambda trade: wire.rest_trade(trade, who.api_key))

    def _balance(self, r: Request, who: Credentials):
        """Dollars, or settled shares, of the account that this key trades for."""
        kind = r.number("signature_type", 0)
        funder = who.address if kind == 0 else self.funders.get((who.address, kind))
        if r.arg("asset_type") == "COLLATERAL":
            balance = self.exchange.account(funder).cash_u6 if funder else self.exchange.settings.cash_u6
        else:
            token = r.arg("token_id")
            account = self.exchange.account(funder) if funder else None
            balance = account.shares.get(token, 0) - account.unsettled.get(token, 0) if account else 0
        return {"balance": str(balance), "allowances": {address: wire.UNLIMITED for address in wire.EXCHANGES}}

    # ---- operator ----

    def books(self) -> dict:
        """The truth about every account, for tests and audits."""
        return {"accounts": {a.address: _account(a) for a in self.exchange.accounts.values()},
                "markets": [{"condition_id": m.condition_id, "slug": m.spec.slug, "tokens": m.tokens, **m.state()}
                            for m in self.exchange.markets.values()],
                "tape": self.label, "now_ms": self.now_ms()}

    def _health(self, r: Request):
        x = self.exchange
        return {"ok": self.failures == 0, "failures": self.failures, "last_failure": self.last_failure, "markets": len(x.markets),
                "orders": sum(len(a.orders) for a in x.accounts.values()), "trades": len(x.trades), "now_ms": self.now_ms()}


def order_answer(result: Result) -> dict:
    """Order response; in a batch a refused order looks like this too."""
    out = {"success": True, "errorMsg": result.error, "orderID": result.order_id, "status": result.status,
           "makingAmount": u6_text(result.making_u6) if result.making_u6 else "",
           "takingAmount": u6_text(result.taking_u6) if result.taking_u6 else ""}
    return out | {"tradeIDs": result.trade_ids} if result.trade_ids else out


def page(rows: list, cursor: str, shape: Callable) -> dict:
    """One page of rows. Errors: ApiError for a cursor that is the end or no cursor."""
    try:
        start = int(base64.b64decode(cursor or FIRST_CURSOR))
    except ValueError:
        raise ApiError(400, "invalid next_cursor") from None
    if start < 0:
        raise ApiError(400, "next item should be greater than or equal to 0")
    chosen = rows[start:start + PAGE]
    more = start + PAGE < len(rows)
    return {"data": [shape(row) for row in chosen], "next_cursor": base64.b64encode(str(start + PAGE).encode()).decode() if more else END_CURSOR,
            "limit": PAGE, "count": len(chosen)}


def _account(account) -> dict:
    fills = []
    for trade in account.fills:
        status, token = trade.status, trade.market.tokens
        if trade.account is account:
            fills.append({"trade_id": trade.id, "order_id": trade.taker_id, "token": token[trade.outcome], "side": SIDES[trade.side],
                          "px_e4": trade.px_e4, "size_u6": trade.size_u6, "fee_u6": trade.fee_u6, "status": status})
        fills += [{"trade_id": trade.id, "order_id": leg.order_id, "token": token[leg.outcome], "side": SIDES[leg.side],
                   "px_e4": leg.px_e4, "size_u6": leg.size_u6, "fee_u6": 0, "status": status}
                  for leg in trade.legs if leg.account is account]
    return {"cash_u6": account.cash_u6, "reserved_u6": sum(account.reserved_cash.values()), "shares": {t: s for t, s in account.shares.items() if s},
            "unsettled": {t: s for t, s in account.unsettled.items() if s}, "redeemed": account.redeemed, "orders": list(account.orders),
            "fills": fills}


class GammaRest(Service):
    """The Gamma port: finding windows."""

    def __init__(self, exchange: Exchange, event_json: Callable, resolution: Callable):
        """``event_json(spec, market_state, now_s, resolution)`` makes one event object; ``resolution(spec)`` is the tape's verdict or None."""
        super().__init__()
        self.exchange, self.event_json, self.resolution = exchange, event_json, resolution
        self.routes = {("GET", "/events/slug/"): self._by_slug, ("GET", "/events"): self._events, ("GET", "/markets"): self._markets}

    def _event(self, market: Market) -> dict:
        return self.event_json(market.spec, market.state(), self.exchange.clock.now_s(), self.resolution(market.spec))

    def _by_slug(self, r: Request):
        for market in self.exchange.markets.values():
            if market.spec.slug == r.tail:
                return self._event(market)
        raise ApiError(404, {"type": "not found error", "error": "slug not found"})

    def _chosen(self, r: Request, closed: str) -> list[Market]:
        slugs, least, most = r.query.getall("slug", []), moment(r.arg("end_date_min"), 0), moment(r.arg("end_date_max"), 1 << 40)
        chosen = [m for m in self.exchange.markets.values() if (not slugs or m.spec.slug in slugs) and least <= m.spec.end_s <= most
                  and (not closed or (closed == "true") == m.closed)]
        offset = r.number("offset", 0)
        return chosen[offset:offset + r.number("limit", 100)]

    def _events(self, r: Request):
        if r.arg("tag_slug") not in ("", "up-or-down", "crypto", "bitcoin"):
            return []
        return [self._event(m) for m in self._chosen(r, r.arg("closed"))]

    def _markets(self, r: Request):
        """``closed`` defaults to false here, so a finished market vanishes."""
        return [self._event(m)["markets"][0] for m in self._chosen(r, r.arg("closed") or "false")]


def moment(text: str, default: int) -> float:
    """Seconds of an ISO time in a query. Errors: ApiError."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else default
    except ValueError:
        raise ApiError(422, "invalid date") from None
