"""The venue's REST calls one by one: status, text, limits and envelopes of those that no client's session reaches."""

import json
import time

import pytest
from exchange_world import CID, DOWN_TOKEN, UP_TOKEN, World, v2_client
from py_clob_client_v2.client import ClobClient
from py_clob_client_v2.clob_types import CreateOrderOptions, OrderArgsV2
from py_clob_client_v2.order_utils.model.order_data_v2 import order_to_json_v2
from test_clients_exchange import fill_book
from test_rest_exchange import signed

from mmbot.sim import accounts
from mmbot.sim.limits import CANCELS, ORDERS, TIERS, Limits, Refused
from shm_layout.records import UP

ADDRESS = accounts.PAPER_ADDRESS


@pytest.fixture
def world():
    with World(cash_u6=100_000_000) as w:
        fill_book(w)
        yield w


def l1(world, nonce=0, key=accounts.PAPER_KEY, **wrong):
    """Headers of a wallet's own signature, made by somebody else's code."""
    from py_clob_client_v2.headers.headers import create_level_1_headers
    from py_clob_client_v2.signer import Signer
    return {k: str(v) for k, v in create_level_1_headers(Signer(key, 137), nonce).items()} | wrong


# ---- keys ----

def test_a_key_is_created_once_and_derived_ever_after(world):
    assert world.http("POST", "/auth/api-key", headers=l1(world))[:2] == (400, {"error": "Could not create api key"})
    assert world.http("GET", "/auth/derive-api-key", headers=l1(world))[1]["apiKey"] == accounts.PAPER_API_KEY
    assert world.http("GET", "/auth/derive-api-key", headers=l1(world, 7))[:2] == (400, {"error": "Could not derive api key!"})
    made = world.http("POST", "/auth/api-key", headers=l1(world, 7))[1]
    assert world.http("GET", "/auth/derive-api-key", headers=l1(world, 7))[1] == made != {}
    assert world.http("GET", "/auth/derive-api-key", headers=l1(world, POLY_NONCE="3"))[:2] == (401, {"error": "Invalid L1 Request headers"})
    assert sorted(world.l2("GET", "/auth/api-keys")[1]["apiKeys"]) == sorted([accounts.PAPER_API_KEY, made["apiKey"]])


def test_keys_of_other_kinds(world):
    key = world.l2("POST", "/auth/readonly-api-key")[1]["apiKey"]
    assert world.l2("DELETE", "/auth/readonly-api-key", {"key": "another"})[0] == 404
    assert world.l2("DELETE", "/auth/readonly-api-key", {"key": key})[1] is True and world.l2("GET", "/auth/readonly-api-keys")[1] == []
    first, second = (world.l2("POST", "/auth/builder-api-key")[1]["key"] for _ in range(2))
    assert world.l2("GET", "/auth/builder-api-key")[1] == [{"key": first}, {"key": second}] and first != second
    assert world.l2("DELETE", "/auth/builder-api-key")[1] == "OK" and world.l2("GET", "/auth/builder-api-key")[1] == []


# ---- who may trade ----

def test_closed_only_accounts_may_sell_and_banned_ones_nothing(world):
    assert world.l2("POST", "/order", signed(world, 0.52, 10, post_only=False))[1]["status"] == "matched"
    world.wait(lambda x: all(t.status == "CONFIRMED" for t in x.trades.values()))
    world.server.clob.accounts.closed_only.add(ADDRESS.lower())
    assert world.l2("GET", "/auth/ban-status/closed-only")[1] == {"closed_only": True}
    assert world.l2("POST", "/order", signed(world))[:2] == (400, {"error": f"'{ADDRESS}' address in closed only mode"})
    assert world.l2("POST", "/order", signed(world, 0.60, 10, side="SELL"))[1]["status"] == "live"
    world.server.clob.accounts.banned.add(ADDRESS.lower())
    assert world.l2("POST", "/order", signed(world, 0.60, 5, side="SELL"))[:2] == (400, {"error": f"'{ADDRESS}' address banned"})


def test_the_edge_refuses_a_bare_library(world):
    status, _, headers = world.text("GET", "/time", headers={"User-Agent": "Python-urllib/3.11"})
    assert status == 403 and headers["Content-Type"].startswith("text/html")
    assert world.text("GET", "/sim/clock", headers={"User-Agent": "Python-urllib/3.11"})[0] == 200, "the operator's routes are not the venue's"
    assert world.text("GET", "/time", headers={"User-Agent": "mmbot/0.1"})[0] == 200


def test_the_long_signature_of_a_deposit_wallet_is_checked_whole(world):
    """65 bytes over the nested order, then domain, order hash, type and its length: each part must be that of this order."""
    wallet = "0x" + "55" * 20
    plain = v2_client(world)
    client = ClobClient(plain.host, 137, key=accounts.PAPER_KEY, creds=plain.creds, signature_type=3, funder=wallet)

    def body(price=0.45):
        order = client.builder.build_order(OrderArgsV2(token_id=UP_TOKEN, price=price, size=7, side="BUY"),
                                           options=CreateOrderOptions(tick_size="0.01", neg_risk=False), version=2)
        return order_to_json_v2(order, accounts.PAPER_API_KEY, "GTC", True, False)

    good, other = body(), body(0.44)
    signature = good["order"]["signature"].removeprefix("0x")
    assert len(signature) == 634 and good["order"]["signer"].lower() == good["order"]["maker"].lower() == wallet
    cuts = {"short": signature[:130], "other domain": signature[:130] + "00" * 32 + signature[194:],
            "other order": signature[:194] + other["order"]["signature"].removeprefix("0x")[194:258] + signature[258:],
            "other length": signature[:-2] + "bb", "other key": "11" * 64 + signature[128:]}
    for what, wrong in cuts.items():
        answer = world.l2("POST", "/order", {**good, "order": good["order"] | {"signature": "0x" + wrong}})
        assert answer[:2] == (400, {"error": "the order signer address has to be the address of the API KEY"}), what
    stranger = world.l2("POST", "/order", {**good, "order": good["order"] | {"signer": ADDRESS}})
    assert stranger[0] == 400, "maker and signer are the wallet"
    assert world.l2("POST", "/order", good)[1]["status"] == "live"


# ---- limits ----

def test_sizes_of_lists(world):
    order = signed(world)
    assert world.l2("POST", "/orders", [order] * 16)[:2] == (400, {"error": "Too many orders in payload: 16, max allowed: 15"})
    ids = [f"0x{i:064x}" for i in range(1001)]
    assert world.l2("DELETE", "/orders", ids)[:2] == (400, {"error": "Too many orders in payload, max allowed: 1000"})
    assert world.l2("DELETE", "/orders", ["0x1"])[:2] == (400, {"error": "Invalid orderID"})
    assert world.http("POST", "/books", [{"token_id": UP_TOKEN}] * 501)[:2] == (400, {"error": "Payload exceeds the limit"})
    assert len(world.http("POST", "/books", [{"token_id": UP_TOKEN}, {"token_id": "12"}])[1]) == 1, "a token without a book is left out"
    assert world.http("POST", "/books", [{"token": 1}])[:2] == (400, {"error": "Invalid payload"})
    for path in ("/books", "/prices", "/midpoints", "/spreads", "/last-trades-prices"):
        assert world.http("GET", path)[:2] == (400, {"error": "Invalid payload"}), path


def test_costs_of_orders_and_cancels(world):
    def left(answer):
        return int(answer[2]["Poly-RateLimit-Remaining"])
    world.do(lambda x, now: world.server.clob.limits.promote(ADDRESS, "Standard"))
    assert left(world.l2("POST", "/order", signed(world))) in (59, 60), "one"
    world.do(lambda x, now: world.server.clob.limits.promote(ADDRESS, "Standard"))
    assert 50 <= left(world.l2("POST", "/orders", [signed(world, p) for p in (0.41, 0.42, 0.43, 0.44, 0.46)])) <= 56, "as many as the batch has"
    world.do(lambda x, now: world.server.clob.limits.charge(ADDRESS, ORDERS, 53))
    status, answer, headers = world.l2("POST", "/orders", [signed(world, 0.40)] * 15)
    assert status == 429 and answer == {"error": "Too Many Requests"} and int(headers["Retry-After"]) >= 1
    assert len(world.l2("GET", "/data/orders")[1]["data"]) == 6, "all or nothing"
    world.do(lambda x, now: world.server.clob.limits.promote(ADDRESS, "Standard"))
    done = world.l2("DELETE", "/cancel-all")
    assert len(done[1]["canceled"]) == 6 and 113 <= left(done) <= 116, "one, and one for each that was cancelled"
    assert left(world.l2("DELETE", "/orders", [f"0x{i:064x}" for i in range(200)])) < 0, "cancels may owe"
    assert world.l2("DELETE", "/cancel-all")[0] == 429


def test_tiers():
    s = 10**9
    for tier, (orders, orders_burst, cancels, cancels_burst) in TIERS.items():
        limits = Limits(tier)
        assert limits.take("0xA", ORDERS, orders_burst, s, 0)["Poly-RateLimit-Tier"] == tier
        with pytest.raises(Refused):
            limits.take("0xa", ORDERS, 1, s, 0)
        assert limits.take("0xa", ORDERS, orders, 2 * s, 0)["Poly-RateLimit-Remaining"] == "0", "a second brings the rate"
        owing = tier in ("Standard", "Copper", "Bronze", "Silver", "Gold")
        if owing:
            assert int(limits.take("0xa", CANCELS, cancels_burst + 50, s, 0)["Poly-RateLimit-Remaining"]) == -50
        else:
            with pytest.raises(Refused):
                limits.take("0xa", CANCELS, cancels_burst + 50, s, 0)
        assert limits.take("0xb", ORDERS, 1, s, 0), "each signer has its own"


# ---- what is asked and answered ----

def test_cursors_end(world):
    for path in ("/data/orders", "/data/trades", "/data/pre-migration-orders", "/builder/trades", "/rewards/user"):
        more = "&date=2026-11-20" if "rewards" in path else ""
        empty = world.l2("GET", f"{path}?next_cursor=MA=={more}")[1]
        assert empty == {"data": [], "next_cursor": "LTE=", "limit": empty["limit"], "count": 0}, path
        assert world.l2("GET", f"{path}?next_cursor=LTE={more}")[:2] == (400, {"error": "next item should be greater than or equal to 0"}), path
        assert world.l2("GET", f"{path}?next_cursor=!!{more}")[:2] == (400, {"error": "invalid next_cursor"})


def test_best_bid_is_the_buy_price(world):
    assert world.http("GET", f"/price?token_id={UP_TOKEN}&side=BUY")[1] == {"price": "0.5"}
    assert world.http("GET", f"/price?token_id={UP_TOKEN}&side=SELL")[1] == {"price": "0.52"}
    assert world.http("GET", f"/price?token_id={UP_TOKEN}&side=HOLD")[:2] == (400, {"error": "Invalid side"})
    assert world.http("POST", "/prices", [{"token_id": UP_TOKEN}])[1] == {UP_TOKEN: {"SELL": "0.52"}}, "no side prices SELL only"
    assert world.http("GET", "/book?token_id=12")[:2] == (404, {"error": "No orderbook exists for the requested token id"})
    assert world.http("GET", "/midpoint?token_id=x")[:2] == (400, {"error": "Invalid token id"})
    assert world.http("GET", f"/midpoint?token_id={UP_TOKEN}")[1] == {"mid": "0.51"}
    tick = world.http("GET", f"/tick-size?token_id={UP_TOKEN}")[1]
    assert tick == {"minimum_tick_size": 0.01} and isinstance(tick["minimum_tick_size"], float)


def test_market_objects(world):
    assert set(world.http("GET", f"/clob-markets/{CID}")[1]) == {"c", "t", "mts", "mos", "fd", "mbf", "tbf", "r", "ao", "aot", "itode", "v"}
    assert world.http("GET", "/clob-markets/0x00")[:2] == world.http("GET", "/markets/0x00")[:2] == (404, {"error": "market not found"})
    assert world.http("GET", f"/markets-by-token/{DOWN_TOKEN}")[1] == {"condition_id": CID, "primary_token_id": UP_TOKEN, "secondary_token_id": DOWN_TOKEN}
    world.do(lambda x, now: x.close_market(CID, now))
    assert "ao" not in world.http("GET", f"/clob-markets/{CID}")[1], "absent means false"
    long = world.http("GET", f"/markets/{CID}")[1]
    assert (long["accepting_orders"], long["closed"], long["minimum_order_size"]) == (False, True, 5.0)


def test_prices_history(world):
    now = world.http("GET", "/time")[1]
    for i, bid in enumerate((4000, 4400, 5000)):
        world.do(lambda x, ms, bid=bid, i=i: (x.set_level(CID, 0, 5000, 0, ms), x.set_level(CID, 0, bid, 10_000_000, ms),
                                             world.server.clob.market_data.sample((now - 300 + 60 * i) * 1000)))
    rows = world.http("GET", f"/prices-history?market={UP_TOKEN}&interval=1h&fidelity=1")[1]["history"]
    down = world.http("GET", f"/prices-history?market={DOWN_TOKEN}&interval=1h&fidelity=1")[1]["history"]
    assert [r["p"] for r in rows][:3] == [0.46, 0.48, 0.51] and rows[-1]["t"] - now <= 2 and [r["t"] for r in rows] == sorted(r["t"] for r in rows)
    assert [round(r["p"] + d["p"], 9) for r, d in zip(rows, down, strict=True)] == [1.0] * len(rows)
    between = world.http("GET", f"/prices-history?market={UP_TOKEN}&startTs={now - 301}&endTs={now - 239}")[1]["history"]
    assert [r["p"] for r in between][:2] == [0.46, 0.48]
    assert world.http("GET", f"/prices-history?market={UP_TOKEN}")[0] == world.http("GET", f"/prices-history?market={UP_TOKEN}&interval=2h")[0] == 400


def test_balances(world):
    assert world.l2("GET", "/balance-allowance?asset_type=GOLD")[:2] == (400, {"error": "Invalid asset type"})
    assert world.l2("GET", f"/balance-allowance?asset_type=CONDITIONAL-V2&token_id={UP_TOKEN}")[0] == 400, "a token of the older kind"
    assert world.l2("GET", f"/balance-allowance?asset_type=CONDITIONAL&token_id={UP_TOKEN}")[1]["balance"] == "0"
    assert world.l2("GET", "/balance-allowance/update?asset_type=COLLATERAL")[:2] == (200, "")
    answer = world.l2("GET", "/balance-allowance?asset_type=COLLATERAL&signature_type=3")[1]
    assert answer["balance"] == "100000000" and set(answer["allowances"].values()) == {str(2**256 - 1)}


def test_heartbeat_routes_disturb_each_other(world):
    first = world.l2("POST", "/v1/heartbeats", {"heartbeat_id": ""})[1]["heartbeat_id"]
    assert world.l2("POST", "/heartbeats")[1] == {"status": "ok"}
    status, answer, _ = world.l2("POST", "/v1/heartbeats", {"heartbeat_id": first})
    assert (status, answer) == (400, {"error_msg": "Invalid Heartbeat ID", "heartbeat_id": ""})
    again = world.l2("POST", "/v1/heartbeats", {"heartbeat_id": ""})[1]["heartbeat_id"]
    assert again and world.l2("POST", "/v1/heartbeats", {"heartbeat_id": first})[1]["heartbeat_id"] == again


def test_a_batch_is_judged_leg_by_leg(world):
    poor = signed(world, 0.45, 400)
    answer = world.l2("POST", "/orders", [signed(world, 0.40), poor, signed(world, 0.41), {**signed(world, 0.42), "owner": "someone"}])
    legs = answer[1]
    assert answer[0] == 200 and [bool(leg["orderID"]) for leg in legs] == [True, False, True, False] and {leg["success"] for leg in legs} == {True}
    assert legs[1]["errorMsg"].startswith("not enough balance / allowance: the balance is not enough -> balance: 100000000, sum of matched orders: ")
    assert legs[3]["errorMsg"] == "the order owner has to be the owner of the API KEY"


def test_wrong_expiration_and_types(world):
    order = signed(world)
    soon = json.loads(json.dumps(order))
    soon["orderType"], soon["order"]["expiration"] = "GTD", str(world.http("GET", "/time")[1] + 59)
    assert world.l2("POST", "/order", soon)[:2] == (400, {"error": "invalid expiration"})
    soon["order"]["expiration"] = str(world.http("GET", "/time")[1] + 120)
    assert world.l2("POST", "/order", soon)[1]["status"] == "live", "the expiration is not signed"
    order = signed(world, 0.44)
    assert world.l2("POST", "/order", {**order, "order": order["order"] | {"expiration": "99"}})[:2] == (400, {"error": "invalid expiration"})
    assert world.l2("POST", "/order", {**order, "orderType": "IOC"})[:2] == (400, {"error": "Invalid order payload"})
    assert world.l2("POST", "/order", {**order, "orderType": "FOK", "postOnly": True})[:2] == (400, {"error": "Invalid order payload"})
    assert world.l2("POST", "/order", b"{")[:2] == (400, {"error": "Invalid order payload"})


def test_a_market_without_a_book(world):
    world.server.clob.market_data.bookless = lambda market: True
    assert world.http("GET", f"/book?token_id={UP_TOKEN}")[0] == world.http("GET", f"/clob-markets/{CID}")[0] == 404
    assert world.l2("POST", "/order", signed(world))[:2] == (400, {"error": "the market is not yet ready to process new orders"})
    assert world.http("GET", f"/events/slug/{world.tape.specs[0].slug}", port=1)[0] == 200, "the list knows it"


def test_notices_of_failed_fills_and_of_the_end(world):
    world.do(lambda x, now: setattr(x, "settle_hook", lambda trade: "FAILED"))
    world.l2("POST", "/order", signed(world, 0.52, 10, post_only=False))
    world.wait(lambda x: any(t.status == "FAILED" for t in x.trades.values()))
    assert [n["type"] for n in world.l2("GET", "/notifications")[1]] == [8, 2]
    world.do(lambda x, now: (setattr(x, "settle_hook", lambda trade: "MINED"), x.account(ADDRESS).shares.__setitem__(UP_TOKEN, 10_000_000)))
    world.do(lambda x, now: x.resolve(CID, UP, now))
    notice = world.l2("GET", "/notifications")[1][0]
    assert notice["type"] == 4 and [t["winner"] for t in notice["payload"]["tokens"]] == [True, False]
    assert world.l2("DELETE", f"/notifications?ids={notice['id']}")[1] == "OK" and len(world.l2("GET", "/notifications")[1]) == 2


def test_rewards_need_a_budget():
    with World(rewards_per_day=100.0) as w:
        fill_book(w)
        world_order = w.l2("POST", "/order", signed(w, 0.49, 60))[1]["orderID"]
        far = w.l2("POST", "/order", signed(w, 0.40, 60))[1]["orderID"]
        assert w.l2("GET", f"/order-scoring?order_id={world_order}")[1] == {"scoring": False}, "too young"
        w.do(lambda x, now: [setattr(o, "created_ms", now - 10_000) for o in x.orders.values()])
        assert w.l2("POST", "/orders-scoring", [world_order, far, "0x00"])[1] == {world_order: True, far: False, "0x00": False}
        config, = w.http("GET", f"/rewards/markets/{CID}")[1]["data"][0]["rewards_config"]
        assert config["rate_per_day"] == 100.0
        gamma = w.http("GET", f"/events/slug/{w.tape.specs[0].slug}", port=1)[1]["markets"][0]
        assert gamma["clobRewards"][0]["rewardsDailyRate"] == 100.0
    with World() as w:
        assert w.http("GET", "/rewards/markets/current")[1]["data"] == []
        day = time.strftime("%Y-%m-%d")
        assert w.http("GET", f"/rebates/current?date={day}&maker_address={ADDRESS}")[:2] == (200, None)
        assert w.http("GET", f"/rebates/current?date=today&maker_address={ADDRESS}")[0] == 400


def test_lists_of_windows(world):
    slug = world.tape.specs[0].slug
    def get(path):
        return world.http("GET", path, port=1)
    assert get("/markets/keyset?limit=1")[1]["markets"][0]["slug"] == slug and "next_cursor" not in get("/markets/keyset")[1]
    assert get(f"/events?slug={slug}&version=v2")[1] == [] and get(f"/events?slug={slug}&version=v1")[1][0]["slug"] == slug
    assert get(f"/markets?condition_ids={CID}")[1][0]["slug"] == get(f"/markets?clob_token_ids={DOWN_TOKEN}")[1][0]["slug"] == slug
    assert get("/markets?condition_ids=0x00")[1] == [] == get("/events?tag_slug=politics")[1]
    assert get("/events?offset=2001")[0] == get("/events?order=nonsense")[0] == get("/events/keyset?after_cursor=!")[0] == 422
    assert get("/events/slug/nothing")[:2] == (404, {"type": "not found error", "error": "slug not found"}) and get("/markets/77")[0] == 404
