"""Faults of the HTTP ports, each seen on the wire and in the engine's truth."""

import hashlib
import json
import time

import pytest
from exchange_world import CID, DOWN_TOKEN, START_S, UP_TOKEN, spec
from fault_world import FaultWorld

from mmbot.sim import accounts
from shm_layout.records import SELL

SLUG = f"btc-updown-15m-{START_S}"
BEAT = {"heartbeat_id": ""}


@pytest.fixture
def world():
    with FaultWorld() as w:
        yield w


def test_post_answer_lost_leaves_a_live_order(world):
    world.fault("post_answer_lost", n=1)
    assert world.raw("POST", "/order", world.sign(0.45)) is None and world.resting() == [4500]
    assert world.post(price=0.44)[0] == 200, "n is the limit"
    assert world.ask("GET", "/data/orders")[1]["count"] == 2


def test_a_lost_answer_can_hang_before_the_cut(world):
    world.fault("post_answer_lost", hang_s=0.4)
    begin = time.monotonic()
    assert world.raw("POST", "/orders", [world.sign(0.45)]) is None and time.monotonic() - begin >= 0.4


def test_post_delayed_lands_after_the_client_gave_up(world):
    world.fault("post_delayed", delay_s=1.2)
    with pytest.raises(TimeoutError):
        world.raw("POST", "/order", world.sign(0.45), timeout=0.2)
    assert world.resting() == [], "not before its time"
    world.wait(lambda x: x.open_orders(accounts.PAPER_API_KEY), 3)
    assert world.resting() == [4500]


def test_cancel_lost_leaves_no_order(world):
    order_id = world.post(price=0.45)[1]["orderID"]
    world.fault("cancel_lost", n=1)
    assert world.raw("DELETE", "/order", {"orderID": order_id}) is None and world.resting() == []
    assert order_id in world.ask("DELETE", "/order", {"orderID": order_id})[1]["not_canceled"]


def test_batch_partly_refused_inside_200(world):
    world.fault("batch_partly_refused")
    status, legs = world.ask("POST", "/orders", [world.sign(p) for p in (0.41, 0.42, 0.43)])
    assert status == 200 and [leg["errorMsg"] for leg in legs] == ["", "not enough balance / allowance", ""]
    assert (legs[1]["success"], legs[1]["orderID"], legs[1]["status"]) == (True, "", "") and world.resting() == [4100, 4300]
    assert world.post(price=0.44)[0] == 200, "a single order is no batch"


def test_restart_425_then_post_only_then_over(world):
    order_id = world.post(price=0.45)[1]["orderID"]
    user, market = world.stream("/ws/user"), world.stream()
    fault = world.fault("restart_425", down_s=90, post_only_s=79)
    for method, path, body in (("POST", "/order", world.sign(0.44)), ("POST", "/orders", [world.sign(0.44)]),
                               ("DELETE", "/order", {"orderID": order_id}), ("DELETE", "/cancel-all", None)):
        assert world.raw(method, path, body)[0] == 425, (method, path)
    assert world.server.world.halted and world.resting() == [4500], "resting orders are kept"
    for ws in (user, market):
        with pytest.raises(Exception, match="no close frame"):
            while True:
                ws.recv(2)
    world.age(fault, 90)
    status, headers, body = world.raw("POST", "/order", world.sign(0.52, post_only=False))
    assert status == 503 and headers["Retry-After"] == "79" and json.loads(body) == {
        "error": "post-only mode: only post-only orders and cancels are allowed", "code": "post_only_mode", "retry_after_seconds": 79}
    assert world.post(price=0.43)[0] == 200 and world.ask("DELETE", "/order", {"orderID": order_id})[1]["canceled"] == [order_id]
    world.wait(lambda x: not world.server.world.halted)
    world.age(fault, 79)
    assert world.post(price=0.52, post_only=False)[0] == 200
    world.wait(lambda x: not world.faults.running())


def test_a_restart_may_lose_the_orders(world):
    world.post(price=0.45)
    world.fault("restart_425", keep_orders=False, beats_refused=True)
    assert world.resting() == [] and world.raw("POST", "/v1/heartbeats", BEAT)[0] == 425


def test_a_halted_engine_does_not_trade():
    class Tape:
        def __init__(self, specs):
            from exchange_world import QuietTape
            self.__dict__.update(QuietTape(specs).__dict__)
            self.inner, self.steps = QuietTape(specs), 0

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def step(self, exchange, now_ms):
            self.steps += 1
    tape = Tape([spec()])
    with FaultWorld(tape=tape) as w:
        fault = w.fault("restart_425")
        before = w.do(lambda x, now: tape.steps)
        time.sleep(0.05)
        assert w.do(lambda x, now: tape.steps) == before
        w.age(fault, 90)
        w.wait(lambda x: tape.steps > before)


def test_post_only(world):
    world.fault("post_only", retry_after_s=79)
    status, headers, body = world.raw("POST", "/orders", [world.sign(0.45), world.sign(0.52, post_only=False)])
    assert (status, headers["Retry-After"], json.loads(body)["retry_after_seconds"]) == (503, "79", 79) and world.resting() == []
    assert world.post(price=0.45)[0] == 200


def test_cancel_only(world):
    order_id = world.post(price=0.45)[1]["orderID"]
    world.fault("cancel_only")
    assert world.post(price=0.44) == (503, {"error": "Trading is currently cancel-only. New orders are not accepted, but cancels are allowed."})
    assert world.ask("DELETE", "/order", {"orderID": order_id})[1]["canceled"] == [order_id]


def test_disabled(world):
    order_id = world.post(price=0.45)[1]["orderID"]
    world.fault("disabled")
    refused = (503, {"error": "Trading is currently disabled. Check polymarket.com for updates"})
    assert world.post(price=0.44) == refused == world.ask("DELETE", "/order", {"orderID": order_id}) and world.resting() == [4500]
    assert world.ask("GET", "/data/orders")[0] == 200


def test_rate_limited(world):
    world.fault("rate_limited", n=1, paths="cancels", retry_after_s=7)
    status, headers, body = world.raw("DELETE", "/cancel-all")
    assert status == 429 and json.loads(body) == {"error": "Too Many Requests"} and headers["Retry-After"] == "7"
    assert headers["Poly-RateLimit-Remaining"] == "0" and headers["Poly-RateLimit-Tier"] == "Standard" and "Poly-RateLimit-Reset" in headers
    assert int(headers["Poly-RateLimit-Reset"]) > 1_700_000_000, "an epoch second"
    assert world.raw("DELETE", "/cancel-all")[0] == 200 and world.post(price=0.45)[0] == 200


def test_slow_responses(world):
    world.fault("slow_responses", delay_s=0.3, jitter_s=0.0, paths="reads")
    begin = time.monotonic()
    assert world.ask("GET", "/ok") == (200, "OK") and time.monotonic() - begin >= 0.3


def test_cloudflare_queue_grows(world):
    fault = world.fault("cloudflare_queue", growth_s=1.0, max_s=0.3)
    plan = lambda at_ms: world.do(lambda x, now: world.faults.on_request("GET", "/ok", fault.started_ms + at_ms)).delay_before_s
    assert [round(plan(t), 2) for t in (0, 100, 200, 300, 9000)] == [0.0, 0.1, 0.2, 0.3, 0.3]
    world.age(fault, 10)
    begin = time.monotonic()
    assert world.raw("GET", "/ok")[0] == 200 and time.monotonic() - begin >= 0.3


def test_heartbeat_lost_and_the_switch_falls(world):
    first = world.ask("POST", "/v1/heartbeats", BEAT)[1]["heartbeat_id"]
    world.post(price=0.45)
    world.fault("heartbeat_lost")
    assert world.raw("POST", "/v1/heartbeats", {"heartbeat_id": first}) is None
    assert world.do(lambda x, now: x.heartbeats[accounts.PAPER_API_KEY][0]) == first, "the engine never saw it"
    world.do(lambda x, now: x.advance(now + 16_000))
    assert world.resting() == []


def test_html_errors(world):
    world.fault("html_errors", n=1)
    status, headers, body = world.raw("POST", "/order", world.sign(0.45))
    assert status == 502 and headers["Content-Type"].startswith("text/html") and b"502 Bad Gateway" in body and world.resting() == []
    world.fault("html_errors", n=1, executed=True, status=504, paths="orders")
    assert world.raw("POST", "/order", world.sign(0.45))[0] == 504 and world.resting() == [4500]


def test_truncated_json(world):
    world.fault("truncated_json", n=1, paths="orders", keep=0.5)
    status, headers, body = world.raw("POST", "/order", world.sign(0.45))
    assert status == 200 and world.resting() == [4500]
    with pytest.raises(json.JSONDecodeError):
        json.loads(body)


def test_geoblock(world):
    order_id = world.post(price=0.45)[1]["orderID"]
    world.fault("geoblock", country="DE")
    assert world.post(price=0.44) == (403, {"error": "Trading restricted in your region, please refer to available regions - "
                                                     "https://docs.polymarket.com/developers/CLOB/geoblock"})
    blocked = world.ask("GET", "/api/geoblock")[1]
    assert (blocked["blocked"], blocked["country"]) == (True, "DE")
    assert world.ask("DELETE", "/order", {"orderID": order_id})[1]["canceled"] == [order_id]
    world.fault("geoblock", cancels=True)
    assert world.raw("DELETE", "/cancel-all")[0] == 403


def test_unauthorized(world):
    user = world.stream("/ws/user")
    world.fault("unauthorized")
    refused = (401, {"error": "Unauthorized/Invalid api key"})
    assert world.post(price=0.45) == refused == world.ask("GET", "/data/orders") == world.ask("POST", "/v1/heartbeats", BEAT)
    assert world.ask("GET", "/ok")[0] == 200
    with pytest.raises(Exception, match="no close frame"):
        user.recv(2)
    with world.ws(2, "/ws/user") as ws:
        ws.send(json.dumps({"auth": {"apiKey": accounts.PAPER_API_KEY, "secret": accounts.PAPER_API_SECRET,
                                     "passphrase": accounts.PAPER_API_PASSPHRASE}}))
        with pytest.raises(Exception, match="auth failed"):
            ws.recv(2)
    world.heal()
    assert world.post(price=0.45)[0] == 200 and world.stream("/ws/user")


def test_empty_listing(world):
    world.post(price=0.45)
    world.post(price=0.52, size=10, post_only=False)
    world.fault("empty_listing", n=1)
    assert world.ask("GET", "/data/orders")[1] == {"data": [], "next_cursor": "LTE=", "limit": 500, "count": 0} and world.resting() == [4500]
    assert world.ask("GET", "/data/orders")[1]["count"] == 1 == world.ask("GET", "/data/trades")[1]["count"]
    world.fault("empty_listing", listing="trades")
    assert world.ask("GET", "/data/trades")[1]["data"] == [] and world.ask("GET", "/data/orders")[1]["count"] == 1


def test_ghost_book(world):
    world.fault("ghost_book")
    book = world.ask("GET", f"/book?token_id={UP_TOKEN}")[1]
    assert ([v["price"] for v in book["bids"]], [v["price"] for v in book["asks"]]) == (["0.01"], ["0.99"])
    text = json.dumps({**book, "hash": ""}, separators=(",", ":"))
    assert hashlib.sha1(text.encode()).hexdigest() == book["hash"], "its own checksum is right"
    many = world.ask("POST", "/books", [{"token_id": DOWN_TOKEN}])[1]
    assert many[0]["bids"][0]["price"] == "0.01"
    assert world.ask("GET", f"/price?token_id={UP_TOKEN}&side=BUY")[1] == {"price": "0.5"}
    world.heal()
    world.fault("ghost_book", markets="5m")
    assert world.ask("GET", f"/book?token_id={UP_TOKEN}")[1]["bids"][-1]["price"] == "0.5", "another market is meant"


def test_gamma_down(world):
    world.fault("gamma_down", how="503")
    assert world.raw("GET", f"/events/slug/{SLUG}", port=1)[0] == 503
    world.heal()
    world.fault("gamma_down", how="html")
    assert world.raw("GET", f"/events/slug/{SLUG}", port=1)[2].startswith(b"<html>")
    world.heal()
    world.fault("gamma_down", how="cut")
    assert world.raw("GET", f"/events?slug={SLUG}", port=1) is None
    assert world.ask("GET", "/ok")[0] == 200, "the CLOB is another service"
    world.heal()
    world.fault("gamma_down", how="hang", hang_s=30)
    with pytest.raises(TimeoutError):
        world.raw("GET", f"/events?slug={SLUG}", port=1, timeout=0.2)


def test_slug_missing(world):
    world.fault("slug_missing", markets="15m")
    assert world.ask("GET", f"/events/slug/{SLUG}", port=1) == (404, {"type": "not found error", "error": "slug not found"})
    assert world.ask("GET", f"/events?slug={SLUG}", port=1)[1] == [] == world.ask("GET", f"/markets?slug={SLUG}", port=1)[1]
    world.heal()
    world.fault("slug_missing", markets="current")
    assert world.ask("GET", f"/events/slug/{SLUG}", port=1)[0] == 200, "the window has not begun"


def test_closed_only(world):
    assert world.ask("GET", "/auth/ban-status/closed-only")[1] == {"closed_only": False}
    world.post(price=0.52, size=10, post_only=False)
    world.wait(lambda x: not any(x.account(accounts.PAPER_ADDRESS).unsettled.values()))
    world.fault("closed_only")
    assert world.post(price=0.45) == (400, {"error": f"'{accounts.PAPER_ADDRESS}' address in closed only mode"})
    assert world.post(price=0.60, size=5, side="SELL")[0] == 200
    assert world.ask("GET", "/auth/ban-status/closed-only")[1] == {"closed_only": True}
    world.heal()
    assert world.post(price=0.45)[0] == 200


def test_wrong_clock(world):
    now = world.ask("GET", "/time")[1]
    world.fault("wrong_clock", offset_s=45, tolerance_s=30)
    assert 40 <= world.ask("GET", "/time")[1] - now <= 50
    assert world.ask("GET", "/data/orders") == (401, {"error": "Unauthorized/Invalid api key"})
    world.heal()
    world.fault("wrong_clock", offset_s=-20, tolerance_s=30)
    assert world.ask("GET", "/time")[1] - now < -15 and world.ask("GET", "/data/orders")[0] == 200, "inside the tolerance"


def test_market_without_book(world):
    world.fault("market_without_book", markets="15m")
    assert world.ask("GET", f"/book?token_id={UP_TOKEN}") == (404, {"error": "No orderbook exists for the requested token id"})
    assert world.post(price=0.45) == (400, {"error": "the market is not yet ready to process new orders"})
    assert world.ask("GET", f"/events/slug/{SLUG}", port=1)[1]["markets"][0]["conditionId"] == CID, "Gamma knows it"
    with world.stream() as ws:
        assert json.loads(ws.recv(2)) == []
        world.level(SELL, 6000, 5_000_000)
        ws.send("PING")
        assert ws.recv(2) == "PONG"
        world.heal()
        world.level(SELL, 6000, 6_000_000)
        assert json.loads(ws.recv(2))["event_type"] == "price_change"
    assert world.ask("GET", f"/book?token_id={UP_TOKEN}")[0] == 200


def test_operators_routes_are_never_hurt(world):
    for name in ("disabled", "html_errors", "gamma_down", "unauthorized"):
        world.fault(name)
    world.fault("slow_responses", delay_s=30)
    assert world.ask("GET", "/sim/health")[0] == 200 and world.ask("GET", "/sim/clock")[0] == 200
