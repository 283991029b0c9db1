"""The exchange's CLOB port: REST with trading, and the operator's own routes.

Owns: orders, cancels, heartbeats, own orders and trades; rate limits per signer; the edge in front of them. Market data, accounts,
rewards and Gamma have rooms of their own (`market_rest`, `account_rest`, `reward_rest`, `gamma_rest`), routing and faults stand in `http`. All state is the
engine's. Relayer and chain node (`relayer`, `chain`) answer under /relayer and /rpc of the same port. What can go wrong: bad requests, answered with the venue's texts; a handler never takes the server down.

Operator routes (not the venue's): /sim/clock, /sim/books (the truth of all accounts, for tests), /sim/health, /sim/stamps.

Source: venue protocol, REST, errors, rate limits.
"""

import heapq
import re
from collections.abc import Callable, Mapping

from mmbot.clock import WallClock, mono_ns
from mmbot.sim import orders as bodies
from mmbot.sim import wire
from mmbot.sim.account_rest import Accounts
from mmbot.sim.auth import Credentials, Keys
from mmbot.sim.chain import Chain
from mmbot.sim.channels import Stamps
from mmbot.sim.engine import SIDES, Exchange, Result, u6_text
from mmbot.sim.http import ApiError, Raw, Request, Service
from mmbot.sim.limits import CANCELS, ORDERS, Limits, Refused
from mmbot.sim.market_rest import MarketData
from mmbot.sim.orders import OrderError
from mmbot.sim.paging import page
from mmbot.sim.relayer import Relayer
from mmbot.sim.reward_rest import Rewards

MAX_CANCELS = 1000
E_NOT_READY = "the market is not yet ready to process new orders"
_ORDER_ID = re.compile(r"0x[0-9a-fA-F]{64}")
#: what the edge answers to a client that names itself as a bare library
EDGE_REFUSES = ("Python-urllib",)
EDGE_PAGE = b"<!DOCTYPE html>\n<html><head><title>Access denied</title></head><body>error code: 1010</body></html>\n"


class ClobRest(Service):
    """The CLOB port: public market data, private trading, operator routes."""

    def __init__(self, exchange: Exchange, keys: Keys, stamps: Stamps, chain_id: int, label: str):
        super().__init__()
        self.exchange, self.keys, self.stamps, self.label = exchange, keys, stamps, label
        self.clock: WallClock = exchange.clock
        self.domains = bodies.Domains(chain_id)
        self.limits = Limits(exchange.settings.tier)
        self.market_data, self.accounts, self.rewards = MarketData(exchange), Accounts(exchange, keys), Rewards(exchange)
        self.wallets, self.funders = self.accounts.wallets, self.accounts.funders
        self.chain = Chain(exchange, chain_id)
        self.relayer = Relayer(self.chain, self.wallets)
        self.routes |= self.chain.routes | self.relayer.routes
        self.routes |= self.market_data.routes() | self.accounts.open_routes() | self.rewards.open_routes() | {
            ("GET", "/api/geoblock"): lambda r: {"blocked": False, "ip": "127.0.0.1", "country": "CH", "region": "ZH"},
            ("GET", "/sim/clock"): lambda r: self.clock.as_dict(),
            ("GET", "/sim/stamps"): lambda r: self.stamps.since(r.number("since", 0)),
            ("GET", "/sim/books"): lambda r: self.books(),
            ("GET", "/sim/health"): self._health,
        }
        for route, handler in (self.accounts.routes() | self.rewards.routes() | self._trading()).items():
            self.routes[route] = self._with_l2(handler)

    @property
    def ledger(self):
        """Where keys and wallets are remembered, None before the past is recovered."""
        return self.accounts.ledger

    @ledger.setter
    def ledger(self, ledger) -> None:
        self.accounts.ledger = ledger
        self.chain.on_mined = ledger.mined if ledger is not None else lambda tx, done: None

    def now_ms(self) -> int:
        """Tape time in ms."""
        return self.clock.now_ns() // 1_000_000

    def answer(self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes,
               t_ns: int) -> tuple[int, dict[str, str], bytes]:
        """As every service, behind an edge that does not let bare libraries through."""
        if headers.get("User-Agent", "").startswith(EDGE_REFUSES) and not path.startswith("/sim/"):
            return 403, {"Content-Type": "text/html; charset=UTF-8"}, EDGE_PAGE
        return super().answer(method, path, query, headers, body, t_ns)

    def _trading(self) -> dict:
        return {
            ("POST", "/order"): self._post_one, ("POST", "/orders"): self._post_many,
            ("DELETE", "/order"): self._cancel_one, ("DELETE", "/orders"): self._cancel_many,
            ("DELETE", "/cancel-all"): self._cancel_all, ("DELETE", "/cancel-market-orders"): self._cancel_market,
            ("POST", "/v1/heartbeats"): self._heartbeat, ("POST", "/heartbeats"): self._bare_heartbeat,
            ("GET", "/data/order/"): self._order, ("GET", "/data/orders"): self._orders, ("GET", "/data/trades"): self._trades,
            ("GET", "/data/pre-migration-orders"): lambda r, who: page([], r.arg("next_cursor"), dict),
            ("GET", "/builder/trades"): lambda r, who: page([], r.arg("next_cursor"), dict),
        }

    def _with_l2(self, handler: Callable) -> Callable:
        return lambda r: handler(r, self.keys.l2(r.headers, r.method, r.path, r.body))

    # ---- orders ----

    def _limit(self, who: Credentials, kind: int, cost: int) -> dict[str, str]:
        """Take ``cost`` tokens of a signer's ORDERS or CANCELS. Returns the headers of the answer. Errors: ApiError 429."""
        try:
            return self.limits.take(who.address, kind, cost, mono_ns(), self.now_ms() / 1000)
        except Refused as e:
            raise ApiError(429, str(e), e.headers) from None

    def _post_one(self, r: Request, who: Credentials):
        body = bodies.decode_one(r.body)
        self.stamps.post(r.t_ns, 1)
        headers = self._limit(who, ORDERS, 1)
        result = self._submit(body, who)
        if result.error:
            raise ApiError(400, result.error, headers)
        return Raw(wire.encode(order_answer(result)), headers)

    def _post_many(self, r: Request, who: Credentials):
        """Legs are judged one by one; `faults.batch` may refuse some of them."""
        batch = bodies.decode_many(r.body)
        self.stamps.post(r.t_ns, len(batch))
        headers = self._limit(who, ORDERS, len(batch))
        texts = (self.faults.batch or []) + [""] * len(batch)
        results = [Result(error=text) if text else self._submit(body, who) for body, text in zip(batch, texts)]
        return Raw(wire.encode([order_answer(result) for result in results]), headers)

    def _submit(self, body: bodies.Body, who: Credentials) -> Result:
        market = self.exchange.market_by_token(body.order.token_id)
        if market is None:
            return Result(error=f"the orderbook {body.order.token_id} does not exist")
        if self.market_data.bookless(market):
            return Result(error=E_NOT_READY)
        if who.address.lower() in self.accounts.banned:
            return Result(error=f"'{who.address}' address banned")
        if body.order.side == "BUY" and self.accounts.is_closed_only(who.address):
            return Result(error=f"'{who.address}' address in closed only mode")
        try:
            new = bodies.check(body, who, market.spec, self.domains, self.wallets)
        except OrderError as e:
            return Result(error=str(e))
        self.accounts.used(new.address, who.address, body.order.signature_type)
        return self.exchange.submit(new, self.now_ms())

    # ---- cancels ----

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
        return self._cancel(who, [order_id], self._limit(who, CANCELS, 1))

    def _cancel_many(self, r: Request, who: Credentials):
        ids = r.json(list[str])
        if len(ids) > MAX_CANCELS:
            raise ApiError(400, f"Too many orders in payload, max allowed: {MAX_CANCELS}")
        if not all(_ORDER_ID.fullmatch(i) for i in ids):
            raise ApiError(400, "Invalid orderID")
        return self._cancel(who, ids, self._limit(who, CANCELS, max(1, len(ids))))

    def _cancel_all(self, r: Request, who: Credentials):
        return self._sweep(who, "", "")

    def _cancel_market(self, r: Request, who: Credentials):
        asked = r.json(dict) if r.body else {}
        return self._sweep(who, str(asked.get("market") or ""), str(asked.get("asset_id") or ""))

    def _sweep(self, who: Credentials, condition_id: str, token: str):
        """Costs one token and one for each order cancelled."""
        headers = self._limit(who, CANCELS, 1)
        done, refused = self.exchange.cancel_all(who.api_key, self.now_ms(), condition_id, token)
        left = self.limits.charge(who.address, CANCELS, len(done))
        return Raw(wire.encode({"canceled": done, "not_canceled": refused}), headers | {"Poly-RateLimit-Remaining": str(left)})

    # ---- heartbeats ----

    def _heartbeat(self, r: Request, who: Credentials):
        beat = r.json(dict).get("heartbeat_id") or ""
        accepted, beat_id = self.exchange.heartbeat(who.api_key, str(beat), self.now_ms())
        if not accepted:
            raise ApiError(400, {"error_msg": "Invalid Heartbeat ID", "heartbeat_id": beat_id})
        return {"heartbeat_id": beat_id}

    def _bare_heartbeat(self, r: Request, who: Credentials):
        """The older route: no id goes in or out. It starts a chain of its own, so the next id of the other route is "" again."""
        now_ms = self.now_ms()
        self.exchange.heartbeats.pop(who.api_key, None)
        self.exchange.heartbeat(who.api_key, "", now_ms)
        self.exchange.heartbeats[who.api_key][0] = ""
        return {"status": "ok"}

    # ---- own orders and trades ----

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
            "unsettled": {t: s for t, s in account.unsettled.items() if s}, "redeemed": account.redeemed, "merged": account.merged,
            "orders": list(account.orders),
            "fills": fills}
