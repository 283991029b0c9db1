"""Faults of the HTTP ports: what happens to a request, and what becomes of its answer.

Owns: effects (fault, request, plan) that write into the plan, the venue's texts and codes for its modes, and `mangled`. Pure; waiting
and cutting connections is done by `mmbot.sim.http`. A request that is refused here never reaches the engine.

Source: venue protocol, errors, rate limits, geoblock, heartbeat.
"""

import hashlib
from collections.abc import Callable

import msgspec

from mmbot.sim.faults.plans import Answer, RequestPlan

E_RESTART = "matching engine is restarting"
E_POST_ONLY = "post-only mode: only post-only orders and cancels are allowed"
E_CANCEL_ONLY = "Trading is currently cancel-only. New orders are not accepted, but cancels are allowed."
E_DISABLED = "Trading is currently disabled. Check polymarket.com for updates"
E_BUSY = "wallet busy: it has an active action"
E_RATE = "Too Many Requests"
E_KEY = "Unauthorized/Invalid api key"
E_REGION = ("Trading restricted in your region, please refer to available regions - "
            "https://docs.polymarket.com/developers/CLOB/geoblock")
HTML_PAGE = (b"<html>\r\n<head><title>%d %s</title></head>\r\n<body>\r\n<center><h1>%d %s</h1></center>\r\n<hr><center>cloudflare</center>\r\n"
             b"</body>\r\n</html>\r\n")
REASONS = {500: b"Internal Server Error", 502: b"Bad Gateway", 503: b"Service Temporarily Unavailable", 504: b"Gateway Time-out",
           520: b"Web server returned an unknown error", 403: b"Forbidden"}
JSON = {"Content-Type": "application/json"}

_ORDERS = (("POST", "/order"), ("POST", "/orders"))
_CANCELS = (("DELETE", "/order"), ("DELETE", "/orders"), ("DELETE", "/cancel-all"), ("DELETE", "/cancel-market-orders"))
_BEATS = (("POST", "/v1/heartbeats"), ("POST", "/heartbeats"))
_PRIVATE = ("/data/", "/balance-allowance", "/notifications", "/order-scoring", "/orders-scoring", "/auth/api-keys",
            "/auth/ban-status", "/auth/readonly", "/rewards/user")
_BODY_HASHED = ("market", "asset_id", "timestamp", "hash", "bids", "asks", "min_order_size", "tick_size", "neg_risk", "last_trade_price")

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.encode


class Ask(msgspec.Struct):
    """What an effect sees of a request. ``service`` is "clob", "gamma" or "relayer" (with the chain's node), ``wall_s`` the venue's time."""
    method: str
    path: str
    body: bytes
    service: str
    now_ms: float
    wall_s: float

    def is_for(self, paths: str) -> bool:
        """Is it one of a group of requests (see the catalogue's ``paths``)?"""
        if paths == "all" or self.service != "clob":
            return paths in ("all", self.service)
        route = (self.method, self.path)
        placing, cancelling = route in _ORDERS, route in _CANCELS
        match paths:
            case "orders":
                return placing
            case "cancels":
                return cancelling
            case "trading":
                return placing or cancelling
            case "beats":
                return route in _BEATS
            case "reads":
                return self.method == "GET"
            case "clob":
                return True
        return (placing or cancelling or route in _BEATS or self.path.startswith(_PRIVATE)
                or route == ("DELETE", "/auth/api-key"))

    def legs(self) -> list[dict]:
        """The orders in its body, [] for what is no order."""
        try:
            body = _decode(self.body)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return []
        legs = body if isinstance(body, list) else [body]
        return [leg for leg in legs if isinstance(leg, dict)]


def error(status: int, text: str | dict, headers: dict[str, str] | None = None) -> Answer:
    """A refusal in the venue's form."""
    return Answer(status, JSON | (headers or {}), _encode({"error": text} if isinstance(text, str) else text))


# ---- lost and late ----

def _lose(paths: str) -> Callable:
    def effect(fault, ask: Ask, plan: RequestPlan) -> None:
        if ask.is_for(paths) and fault.strikes():
            plan.lose_answer, plan.delay_after_s = True, plan.delay_after_s + fault.hang_s
    return effect


def _heartbeat_lost(fault, ask: Ask, plan: RequestPlan) -> None:
    if ask.is_for("beats") and fault.strikes():
        plan.run, plan.lose_answer, plan.delay_after_s = False, True, plan.delay_after_s + fault.hang_s


def _post_delayed(fault, ask: Ask, plan: RequestPlan) -> None:
    if ask.is_for("orders") and fault.strikes():
        plan.delay_before_s += fault.delay_s


def _slow(fault, ask: Ask, plan: RequestPlan) -> None:
    if ask.is_for(fault.paths) and fault.strikes():
        half_s = (fault.delay_s + fault.jitter_s * fault.rng.random()) / 2
        plan.delay_before_s += half_s
        plan.delay_after_s += half_s


def _queue(fault, ask: Ask, plan: RequestPlan) -> None:
    """The queue is as long as the fault is old; nobody overtakes, because it only grows."""
    if ask.is_for(fault.paths):
        fault.hits += 1
        plan.delay_before_s += min(fault.max_s, fault.growth_s * fault.elapsed_s(ask.now_ms))


# ---- refused ----

def _refuse(plan: RequestPlan, answer: Answer) -> None:
    """The first fault that refuses is the one that answers."""
    if plan.refuse is None:
        plan.refuse = answer


def _takes(ask: Ask) -> bool:
    """Is there an order in it that is not post-only?"""
    return any(leg.get("postOnly") is not True for leg in ask.legs())


def _only_post_only(fault, ask: Ask, plan: RequestPlan, left_s: float) -> None:
    if ask.is_for("orders") and _takes(ask):
        fault.hits += 1
        wait = str(max(1, round(left_s)))
        _refuse(plan, error(503, {"error": E_POST_ONLY, "code": "post_only_mode", "retry_after_seconds": int(wait)}, {"Retry-After": wait}))


def _post_only(fault, ask: Ask, plan: RequestPlan) -> None:
    _only_post_only(fault, ask, plan, fault.retry_after_s - fault.elapsed_s(ask.now_ms))


def _restart(fault, ask: Ask, plan: RequestPlan) -> None:
    left_s = fault.down_s - fault.elapsed_s(ask.now_ms)
    if left_s <= 0:
        _only_post_only(fault, ask, plan, left_s + fault.post_only_s)
    elif ask.is_for("trading") or (fault.beats_refused and ask.is_for("beats")):
        fault.hits += 1
        _refuse(plan, error(425, E_RESTART))


def _cancel_only(fault, ask: Ask, plan: RequestPlan) -> None:
    if ask.is_for("orders"):
        fault.hits += 1
        _refuse(plan, error(503, E_CANCEL_ONLY))


def _disabled(fault, ask: Ask, plan: RequestPlan) -> None:
    if ask.is_for("trading"):
        fault.hits += 1
        _refuse(plan, error(503, E_DISABLED))


def _rate_limited(fault, ask: Ask, plan: RequestPlan) -> None:
    if ask.is_for(fault.paths) and fault.strikes():
        wait = str(max(1, round(fault.retry_after_s)))
        _refuse(plan, error(429, E_RATE, {"Retry-After": wait, "Poly-RateLimit-Remaining": "0", "Poly-RateLimit-Tier": "Standard",
                                          "Poly-RateLimit-Reset": str(int(ask.wall_s) + int(wait)), "Poly-RateLimit-Warning": "limit exceeded"}))


def _unauthorized(fault, ask: Ask, plan: RequestPlan) -> None:
    if ask.is_for("private") and fault.strikes():
        _refuse(plan, error(401, E_KEY))


def _geoblock(fault, ask: Ask, plan: RequestPlan) -> None:
    if ask.path == "/api/geoblock":
        body = _encode({"blocked": True, "ip": "127.0.0.1", "country": fault.country, "region": ""})
        _refuse(plan, Answer(200, dict(JSON), body))
    elif ask.is_for("orders") or (fault.cancels and ask.is_for("cancels")):
        fault.hits += 1
        _refuse(plan, error(403, E_REGION))


def _down(service: str) -> Callable:
    def effect(fault, ask: Ask, plan: RequestPlan) -> None:
        if ask.service != service:
            return
        fault.hits += 1
        if fault.how in ("cut", "hang"):
            plan.run, plan.lose_answer = False, True
            plan.delay_after_s += fault.hang_s if fault.how == "hang" else 0.0
        else:
            _refuse(plan, html(503) if fault.how == "html" else error(503, "Service Unavailable"))
    return effect


def _sends(ask: Ask) -> bool:
    """Does it send a transaction: through the relayer, or straight to the node?"""
    return ask.path == "/relayer/submit" or (ask.service == "relayer" and b"eth_sendRawTransaction" in ask.body)


def _relayer_busy(fault, ask: Ask, plan: RequestPlan) -> None:
    if ask.path == "/relayer/submit" and fault.strikes():
        _refuse(plan, error(400, E_BUSY))


def _submit_lost(fault, ask: Ask, plan: RequestPlan) -> None:
    if _sends(ask) and fault.strikes():
        plan.lose_answer, plan.delay_after_s = True, plan.delay_after_s + fault.hang_s


def _batch(fault, ask: Ask, plan: RequestPlan) -> None:
    if (ask.method, ask.path) == ("POST", "/orders"):
        fault.hits += 1
        plan.batch = [fault.error if i % max(1, fault.every) == 0 else "" for i in range(1, len(ask.legs()) + 1)]


# ---- mangled ----

def _html(fault, ask: Ask, plan: RequestPlan) -> None:
    if ask.is_for(fault.paths) and fault.strikes():
        plan.run = plan.run and fault.executed
        plan.mangle.append(("html", fault.status))


def _truncated(fault, ask: Ask, plan: RequestPlan) -> None:
    if ask.is_for(fault.paths) and fault.strikes():
        plan.mangle.append(("truncate", fault.keep))


def _empty(fault, ask: Ask, plan: RequestPlan) -> None:
    wanted = {"orders": ("/data/orders",), "trades": ("/data/trades",), "both": ("/data/orders", "/data/trades")}[fault.listing]
    if ask.method == "GET" and ask.path in wanted and fault.strikes():
        plan.mangle.append(("empty",))


def _ghost_book(fault, ask: Ask, plan: RequestPlan) -> None:
    if ask.path in ("/book", "/books"):
        fault.hits += 1
        plan.mangle.append(("ghost_book", fault.covers))


def _slug_missing(fault, ask: Ask, plan: RequestPlan) -> None:
    if ask.service == "gamma":
        fault.hits += 1
        plan.mangle.append(("unlisted", fault.covers))


def _wrong_clock(fault, ask: Ask, plan: RequestPlan) -> None:
    if ask.path == "/time":
        plan.mangle.append(("add", fault.offset_s))


EFFECTS: dict[str, Callable] = {
    "post_answer_lost": _lose("orders"), "cancel_lost": _lose("cancels"), "heartbeat_lost": _heartbeat_lost, "post_delayed": _post_delayed,
    "slow_responses": _slow, "cloudflare_queue": _queue, "restart_425": _restart, "post_only": _post_only, "cancel_only": _cancel_only,
    "disabled": _disabled, "rate_limited": _rate_limited, "unauthorized": _unauthorized, "geoblock": _geoblock, "gamma_down": _down("gamma"),
    "batch_partly_refused": _batch, "html_errors": _html, "truncated_json": _truncated, "empty_listing": _empty, "ghost_book": _ghost_book,
    "slug_missing": _slug_missing, "wrong_clock": _wrong_clock, "relayer_down": _down("relayer"), "relayer_busy": _relayer_busy,
    "submit_answer_lost": _submit_lost,
}


# ---- what becomes of an answer ----

def mangled(how: tuple, answer: Answer) -> Answer:
    """An answer after one entry of a plan's ``mangle``."""
    kind, *rest = how
    if kind == "html":
        return html(rest[0])
    if kind == "truncate":
        return Answer(answer.status, answer.headers, answer.body[:max(1, int(len(answer.body) * rest[0]))])
    return _MANGLES[kind](answer, *rest) if answer.status == 200 else answer


def html(status: int) -> Answer:
    """An error page of the edge."""
    reason = REASONS.get(status, b"Error")
    return Answer(status, {"Content-Type": "text/html; charset=UTF-8"}, HTML_PAGE % (status, reason, status, reason))


def _ghost(answer: Answer, covers: Callable) -> Answer:
    books = _decode(answer.body)
    for book in books if isinstance(books, list) else [books]:
        if covers(book["market"]):
            book["bids"], book["asks"] = [{"price": "0.01", "size": "1000"}], [{"price": "0.99", "size": "1000"}]
            book["hash"] = ""                         # it is a real book of another moment, so its checksum is right
            book["hash"] = hashlib.sha1(_encode({k: book[k] for k in _BODY_HASHED if k in book})).hexdigest()
    return Answer(200, answer.headers, _encode(books))


def _unlisted(answer: Answer, covers: Callable) -> Answer:
    found = _decode(answer.body)
    if isinstance(found, list):
        return Answer(200, answer.headers, _encode([row for row in found if not _names(row, covers)]))
    return error(404, {"type": "not found error", "error": "slug not found"}) if _names(found, covers) else answer


def _names(row: dict, covers: Callable) -> bool:
    """Is an event or a market of Gamma inside the scope?"""
    return any(covers(market.get("conditionId", "")) for market in row.get("markets", [row]))


def _added(answer: Answer, more: float) -> Answer:
    return Answer(200, answer.headers, str(int(answer.body) + round(more)).encode())


def _nothing(answer: Answer) -> Answer:
    return Answer(200, answer.headers, b'{"data":[],"next_cursor":"LTE=","limit":500,"count":0}')


_MANGLES: dict[str, Callable] = {"empty": _nothing, "add": _added, "ghost_book": _ghost, "unlisted": _unlisted}
