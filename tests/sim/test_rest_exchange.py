"""The exchange's HTTP side over real sockets: identity, refusals, paging, limits, and its own hashing against published vectors."""

import asyncio

import msgspec
import pytest
from exchange_world import CID, DOWN_TOKEN, START_S, UP_TOKEN, World, spec, v2_client
from py_clob_client_v2.clob_types import CreateOrderOptions, OrderArgsV2
from py_clob_client_v2.order_utils.model.order_data_v2 import order_to_json_v2

from mmbot.errors import UserError
from mmbot.sim import accounts, auth, orders
from mmbot.sim.limits import ORDERS, Bucket
from mmbot.sim.server import SimServer
from shm_layout.records import BUY, SELL

VECTOR = {
    "salt": 123456789012345, "maker": accounts.PAPER_ADDRESS, "signer": accounts.PAPER_ADDRESS,
    "tokenId": "21742633143463906290569050155826241533067272736897614950488156847949938836455", "makerAmount": "2600000",
    "takerAmount": "5000000", "side": "BUY", "expiration": "0", "signatureType": 0, "timestamp": "1793000000123", "metadata": "0x" + "00" * 32,
    "builder": "0x" + "00" * 32, "signature": "",
}
SIGNED = [
    ({}, "3264e159346253e26a64e00b69032db0e7d32f94628de3e6eecb50304d7af3d2", "d747fe7dc831e468af542ea7ff50d43d1064b8ead50d8c9745977f562db5d92f",
     "b9310a31a6fa7dbc67557dbe8c1e2f44060de523464f7702e6030b60eefe0215001f776eff497417046769452b5ee085a620daaf47b1e07aa306927d268749361b"),
    ({"neg_risk": True}, "9b858f53327b0bd13af8ec14cfb35234fb9eb7b0504d1a4e61f433840d30e81a",
     "6309b85b7faa7e057a41aa33e3bde0f5b898ef9a76e97d26f2a7f306c9abc498",
     "58a4cdaf98799d15ed6fc4621def84a588fd5d5abb1d17bf38508ba1daf427ee0780a98bc335b46be98c05732827558d0f34d0e5d68e3067e5dad4e56436eaac1b"),
    ({"version": "v2"}, "466c63910185bbd55e8679264200c4e0abdcbb0c6264eb3d41d13326022e095b",
     "a95230326e8db73330811ead81fe158f086580430666dc0f666c81042d69486e",
     "a09432dc47a67d37853d66537ee7c8946ba96cfd24006d6a8c0a5590158220ef4b088ed104e49fc973e284c4df4105e9489a1bad4af917bf9ea02dc8b00a928b1c"),
]
WHO = auth.Credentials(accounts.PAPER_API_KEY, accounts.PAPER_API_SECRET, accounts.PAPER_API_PASSPHRASE, accounts.PAPER_ADDRESS)


def body(changes: dict, **outer) -> orders.Body:
    raw = {"order": VECTOR | changes, "owner": accounts.PAPER_API_KEY, "orderType": "GTC", "deferExec": False, "postOnly": True} | outer
    return orders.decode_one(msgspec.json.encode(raw))


# ---- hashing, against vectors published with the protocol ----

@pytest.mark.parametrize(("market", "separator", "order_id", "signature"), SIGNED)
def test_known_signatures_under_the_three_domains(market, separator, order_id, signature):
    domains = orders.Domains(137)
    assert domains.of(spec(**market)).hex() == separator
    assert orders.check(body({"signature": "0x" + signature}), WHO, spec(**market), domains, {}).order_id == "0x" + order_id


def test_a_signature_for_another_domain_is_a_version_mismatch():
    domains = orders.Domains(137)
    for market, *_ in SIGNED:
        for other, _, _, signature in SIGNED:
            if market != other:
                with pytest.raises(orders.OrderError, match="order_version_mismatch"):
                    orders.check(body({"signature": "0x" + signature}), WHO, spec(**market), domains, {})


def test_order_id_of_a_deposit_wallet_is_the_plain_digest():
    wallet = "0x" + "11" * 20
    b, domains = body({"maker": wallet, "signer": wallet, "signatureType": 3}), orders.Domains(137)
    digest = auth.keccak(b"\x19\x01" + domains.v2 + orders.struct_hash(b.order))
    assert digest.hex() == "a35bf312962278d344a35276872667ff2fe1621d6e4f746e592cec93afd70c6a"


@pytest.mark.parametrize("field", ["salt", "tokenId", "makerAmount", "takerAmount", "timestamp"])
def test_any_signed_field_changed_is_refused(field):
    good = SIGNED[0][3]
    changed = {field: VECTOR[field] + 1 if field == "salt" else str(int(VECTOR[field]) + 1), "signature": "0x" + good}
    with pytest.raises(orders.OrderError, match="the order signer address has to be"):
        orders.check(body(changed), WHO, spec(), orders.Domains(137), {})


def test_expiration_is_not_signed():
    changed = {"expiration": "1793009999", "signature": "0x" + SIGNED[0][3]}
    assert orders.check(body(changed, orderType="GTD"), WHO, spec(), orders.Domains(137), {}).expiration_s == 1793009999


@pytest.mark.parametrize(("address", "timestamp", "nonce", "chain_id", "signature"), [
    (accounts.PAPER_ADDRESS, "1793000000", 0, 137,
     "716192a957593ecc3dfc7c1fb9af5a9b176724e0180782830360072755d91d5b1c7cf683f5c0665c17fc9ea805d260d661e1f5d2a553f9409806683e8abcaeec1c"),
    (accounts.PAPER_ADDRESS, "10000000", 23, 80002,
     "f62319a987514da40e57e2f4d7529f7bac38f0355bd88bb5adbb3768d80de6c1682518e0af677d5260366425f4361e7b70c25ae232aff0ab2331e2b164a1aedc1b")])
def test_l1_vectors(address, timestamp, nonce, chain_id, signature):
    assert auth.recover(auth.l1_digest(address, timestamp, nonce, chain_id), bytes.fromhex(signature)) == address


@pytest.mark.parametrize(("secret", "timestamp", "method", "path", "data", "expected"), [
    ("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "1793000000", "GET", "/data/orders", b"", "uCeD2OswbCleoOPXZhUAuB0EfukoMNy7-Ahxwe0O0zA="),
    ("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "1793000000", "DELETE", "/order", b'{"orderID":"0xabc"}',
     "C9kzCHx2NUGbb844GtFFxb0qCGqh_9Qg3-q9xd4B0gQ="),
    ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "1000000", "test-sign", "/orders", b'{"hash": "0x123"}',
     "ZwAdJKvoYRlEKDkNMwd5BuwNNtg93kNaR_oU2HrfVvc=")])
def test_l2_vectors(secret, timestamp, method, path, data, expected):
    assert auth.l2_signature(secret, timestamp, method, path, data) == expected


# ---- over sockets ----

@pytest.fixture
def world():
    with World() as w:
        w.level(BUY, 5000, 100_000_000)
        w.level(BUY, 4900, 200_000_000)
        w.level(SELL, 5200, 50_000_000)
        yield w


def signed(world, price=0.45, size=5, side="BUY", token=UP_TOKEN, post_only=True, order_type="GTC"):
    """A body of POST /order made and signed by the official V2 client."""
    order = v2_client(world).builder.build_order(OrderArgsV2(token_id=token, price=price, size=size, side=side),
                                       options=CreateOrderOptions(tick_size="0.01", neg_risk=False), version=2)
    return order_to_json_v2(order, accounts.PAPER_API_KEY, order_type, post_only, False)


def test_public_reads(world):
    book = world.http("GET", f"/book?token_id={UP_TOKEN}")[1]
    assert list(book) == ["market", "asset_id", "timestamp", "hash", "bids", "asks", "min_order_size", "tick_size", "neg_risk", "last_trade_price"]
    assert book["bids"] == [{"price": "0.49", "size": "200"}, {"price": "0.5", "size": "100"}] and book["asks"] == [{"price": "0.52", "size": "50"}]
    down = world.http("POST", "/books", [{"token_id": DOWN_TOKEN}])[1][0]
    assert down["asks"] == [{"price": "0.51", "size": "200"}, {"price": "0.5", "size": "100"}] and down["bids"] == [{"price": "0.48", "size": "50"}]
    get = lambda path: world.http("GET", path)[1]
    assert get("/ok") == "OK" and get("/version") == {"version": 2} and abs(get("/time") - (START_S - 45)) < 10
    assert get(f"/price?token_id={UP_TOKEN}&side=BUY") == {"price": "0.5"} and get(f"/price?token_id={UP_TOKEN}&side=SELL") == {"price": "0.52"}
    assert get(f"/midpoint?token_id={DOWN_TOKEN}") == {"mid": "0.49"} and get(f"/spread?token_id={UP_TOKEN}") == {"spread": "0.02"}
    assert world.http("POST", "/prices", [{"token_id": UP_TOKEN}])[1] == {UP_TOKEN: {"SELL": "0.52"}}
    assert get(f"/tick-size?token_id={UP_TOKEN}") == {"minimum_tick_size": 0.01} and get(f"/neg-risk?token_id={UP_TOKEN}") == {"neg_risk": False}
    assert get(f"/fee-rate?token_id={UP_TOKEN}") == {"base_fee": 1000}
    assert get(f"/last-trade-price?token_id={UP_TOKEN}") == {"price": "0", "side": ""}
    assert get(f"/markets-by-token/{DOWN_TOKEN}")["condition_id"] == CID
    compact = get(f"/clob-markets/{CID}")
    assert compact["itode"] is True and "nr" not in compact and compact["fd"] == {"r": 0.07, "e": 1, "to": True}
    assert get(f"/markets/{CID}")["tokens"][1]["token_id"] == DOWN_TOKEN
    assert get("/api/geoblock")["blocked"] is False
    assert get("/sim/clock")["rate"] == 1.0 and get("/sim/health")["ok"]


def test_public_errors(world):
    assert world.http("GET", "/book?token_id=5")[:2] == (404, {"error": "No orderbook exists for the requested token id"})
    assert world.http("GET", "/book?token_id=x")[:2] == (400, {"error": "Invalid token id"})
    assert world.http("GET", "/books")[:2] == (400, {"error": "Invalid payload"})
    assert world.http("GET", "/markets/0x12")[:2] == (404, {"error": "market not found"})
    assert world.http("POST", "/books", b"garbage")[0] == 400
    assert world.http("GET", "/no-such-thing")[0] == 404


def test_wrong_identity_is_refused(world):
    refused = (401, {"error": "Unauthorized/Invalid api key"})
    assert world.http("GET", "/data/orders")[:2] == refused
    for header in ("POLY_ADDRESS", "POLY_SIGNATURE", "POLY_API_KEY", "POLY_PASSPHRASE"):
        assert world.l2("GET", "/data/orders", **{header: "0x" + "1" * 40})[:2] == refused
    assert world.l2("GET", "/data/orders", POLY_TIMESTAMP="1")[:2] == refused
    assert world.l2("GET", "/data/orders")[0] == 200
    assert world.http("POST", "/auth/api-key", b"", {"POLY_ADDRESS": accounts.PAPER_ADDRESS})[:2] == (401, {"error": "Invalid L1 Request headers"})


def test_place_read_cancel(world):
    order = signed(world)
    status, answer, headers = world.l2("POST", "/order", order)
    assert status == 200 and answer == {"success": True, "errorMsg": "", "orderID": answer["orderID"], "status": "live", "makingAmount": "",
                                        "takingAmount": ""}
    assert headers["Poly-RateLimit-Remaining"] == "59" and headers["Poly-RateLimit-Tier"] == "Standard"
    listed = world.l2("GET", "/data/orders")[1]
    assert listed["next_cursor"] == "LTE=" and listed["count"] == 1
    one = world.l2("GET", f"/data/order/{answer['orderID']}")[1]
    assert one == listed["data"][0] and (one["status"], one["price"], one["original_size"]) == ("LIVE", "0.45", "5")
    assert world.l2("POST", "/order", order)[:2] == (400, {"error": f"order {answer['orderID']} is invalid. Duplicated."})
    assert world.l2("GET", f"/order-scoring?order_id={answer['orderID']}")[1] == {"scoring": False}, "the market has no reward budget"
    unknown = "0x" + "12" * 32
    done = world.l2("DELETE", "/orders", [answer["orderID"], unknown])[1]
    assert done == {"canceled": [answer["orderID"]], "not_canceled": {unknown: "already canceled or matched"}}
    assert world.l2("DELETE", "/order", {"orderID": "0xabc"})[:2] == (400, {"error": "Invalid orderID"})
    assert world.l2("GET", f"/data/order/{unknown}")[1] is None


def test_batch_legs_fail_inside_200(world):
    legs = world.l2("POST", "/orders", [signed(world, 0.45), signed(world, 0.52), signed(world, 0.45, token="5")])[1]
    assert legs[0]["status"] == "live"
    assert legs[1] == {"success": True, "errorMsg": "invalid post-only order: order crosses book", "orderID": "", "status": "", "makingAmount": "",
                       "takingAmount": ""}
    assert "does not exist" in legs[2]["errorMsg"]
    many = [signed(world)] * 16
    assert world.l2("POST", "/orders", many)[:2] == (400, {"error": "Too many orders in payload: 16, max allowed: 15"})
    assert world.l2("POST", "/orders", b"[]")[0] == 400 and world.l2("POST", "/order", b"{")[:2] == (400, {"error": "Invalid order payload"})
    stamps = world.http("GET", "/sim/stamps?since=0")[1]
    assert [p["orders"] for p in stamps["posts"]] == [3] and world.http("GET", f"/sim/stamps?since={stamps['next']}")[1]["posts"] == []


def test_foreign_owner_and_maker(world):
    order = signed(world)
    assert world.l2("POST", "/order", order | {"owner": "someone"})[1]["error"] == "the order owner has to be the owner of the API KEY"
    order["order"]["maker"] = "0x" + "22" * 20
    assert "signer" in world.l2("POST", "/order", order)[1]["error"]


def test_match_trades_and_truth(world):
    world.do(lambda x, now: setattr(x, "settle_ms", 1e9))
    answer = world.l2("POST", "/order", signed(world, 0.52, 10, post_only=False))[1]
    assert answer["status"] == "matched" and (answer["makingAmount"], answer["takingAmount"]) == ("5.2", "10") and len(answer["tradeIDs"]) == 1
    trade = world.l2("GET", f"/data/trades?id={answer['tradeIDs'][0]}")[1]["data"][0]
    assert (trade["trader_side"], trade["status"], trade["transaction_hash"], trade["size"]) == ("TAKER", "TRADE_STATUS_MATCHED", "", "10")
    assert len(trade["maker_orders"]) == 1 and trade["taker_order_id"] == answer["orderID"]
    assert world.l2("GET", "/data/trades?after=4000000000")[1]["data"] == [] == world.l2("GET", "/data/trades?market=0x1")[1]["data"]
    truth = world.http("GET", "/sim/books")[1]["accounts"][accounts.PAPER_ADDRESS]
    assert truth["shares"] == {UP_TOKEN: 10_000_000} == truth["unsettled"]
    assert truth["cash_u6"] == 1_000_000_000 - 5_200_000 - 174_720 and truth["fills"][0]["fee_u6"] == 174_720
    assert world.l2("GET", f"/balance-allowance?asset_type=CONDITIONAL&token_id={UP_TOKEN}&signature_type=0")[1]["balance"] == "0"
    assert world.l2("GET", "/balance-allowance?asset_type=COLLATERAL&signature_type=0")[1]["balance"] == str(truth["cash_u6"])


def test_cursors(world, monkeypatch):
    monkeypatch.setattr("mmbot.sim.paging.PAGE", 2)
    for price in (0.40, 0.41, 0.42):
        world.l2("POST", "/order", signed(world, price))
    first = world.l2("GET", "/data/orders?next_cursor=MA==")[1]
    second = world.l2("GET", f"/data/orders?next_cursor={first['next_cursor']}")[1]
    assert [o["price"] for o in first["data"] + second["data"]] == ["0.4", "0.41", "0.42"] and second["next_cursor"] == "LTE="
    assert world.l2("GET", "/data/orders?next_cursor=LTE=")[:2] == (400, {"error": "next item should be greater than or equal to 0"})


def test_cancel_all_and_by_market(world):
    for price, token in ((0.40, UP_TOKEN), (0.41, UP_TOKEN), (0.42, DOWN_TOKEN)):
        world.l2("POST", "/order", signed(world, price, token=token))
    assert len(world.l2("DELETE", "/cancel-market-orders", {"asset_id": DOWN_TOKEN})[1]["canceled"]) == 1
    assert world.l2("DELETE", "/cancel-market-orders", {"market": "0x1"})[1]["canceled"] == []
    status, answer, headers = world.l2("DELETE", "/cancel-all")
    assert len(answer["canceled"]) == 2 and world.l2("GET", "/data/orders")[1]["data"] == []
    assert int(headers["Poly-RateLimit-Remaining"]) > 100


def test_heartbeat_over_http(world):
    first = world.l2("POST", "/v1/heartbeats", {"heartbeat_id": ""})[1]["heartbeat_id"]
    status, answer, _ = world.l2("POST", "/v1/heartbeats", {"heartbeat_id": "stale"})
    assert (status, answer) == (400, {"error_msg": "Invalid Heartbeat ID", "heartbeat_id": first})
    assert world.l2("POST", "/v1/heartbeats", {"heartbeat_id": first})[1]["heartbeat_id"] not in ("", first)


def test_rate_limit_refuses_with_retry_after(world):
    world.do(lambda x, now: world.server.clob._limit(WHO, ORDERS, 55))
    order = signed(world)
    status, answer, headers = world.l2("POST", "/orders", [order] * 15)
    assert status == 429 and answer == {"error": "Too Many Requests"} and int(headers["Retry-After"]) >= 1
    assert world.l2("POST", "/order", order)[0] == 200, "all or nothing: the refused batch cost nothing"


def test_buckets():
    orders_, cancels = Bucket(40, 60, False), Bucket(80, 120, True)
    assert orders_.take(60, 1) and not orders_.take(1, 1) and orders_.take(1, 1 + 25_000_000)
    assert cancels.take(119, 1) and cancels.take(100, 1) and cancels.tokens < 0 and not cancels.take(1, 1)


def test_gamma_routes(world):
    slug = f"btc-updown-15m-{START_S}"
    event = world.http("GET", f"/events/slug/{slug}", port=1)[1]
    assert event["slug"] == slug and event["markets"][0]["conditionId"] == CID
    assert world.http("GET", f"/events?slug={slug}", port=1)[1][0]["id"] == event["id"]
    assert world.http("GET", f"/markets?slug={slug}", port=1)[1][0]["slug"] == slug
    assert world.http("GET", "/events/slug/none", port=1)[0] == 404 and world.http("GET", "/events?slug=none", port=1)[1] == []
    listed = world.http("GET", "/events?tag_slug=up-or-down&closed=false&end_date_min=2026-11-20T15:00:00Z&limit=100", port=1)[1]
    assert [e["slug"] for e in listed] == [slug]
    world.do(lambda x, now: x.close_market(CID, now))
    assert world.http("GET", f"/markets?slug={slug}", port=1)[1] == [] != world.http("GET", f"/events?slug={slug}", port=1)[1]


def test_a_port_in_use_is_named(world):
    async def start():
        await SimServer(world.settings, world.tape).start()
    with pytest.raises(UserError, match=f"port {world.base} of the exchange is in use.*sim.base_port"):
        asyncio.run(start())


def test_a_restarted_exchange_continues_clock_money_and_trades(tmp_path):
    with World(directory=tmp_path, auto_redeem=True) as w:
        w.level(SELL, 5200, 50_000_000)
        bought = w.l2("POST", "/order", signed(w, 0.52, 10, post_only=False))[1]
        w.l2("POST", "/order", signed(w, 0.40))
        before, clock = w.http("GET", "/sim/books")[1], w.http("GET", "/sim/clock")[1]
        trades = w.l2("GET", "/data/trades")[1]["data"]
    with World(directory=tmp_path, auto_redeem=True) as w:
        after = w.http("GET", "/sim/books")[1]
        old, new = (b["accounts"][accounts.PAPER_ADDRESS] for b in (before, after))
        assert w.http("GET", "/sim/clock")[1] == clock
        assert new["orders"] == [] and [f["trade_id"] for f in new["fills"]] == bought["tradeIDs"]
        assert (new["cash_u6"], new["shares"]) == (old["cash_u6"], old["shares"])
        again = w.l2("GET", "/data/trades")[1]["data"]
        assert [{k: v for k, v in t.items() if k not in ("status", "transaction_hash", "last_update")} for t in again] == [
            {k: v for k, v in t.items() if k not in ("status", "transaction_hash", "last_update")} for t in trades]
        w.wait(lambda x: all(t.status == "CONFIRMED" for t in x.trades.values()))
        w.tape.verdict = (0, None, None)
        w.do(lambda x, now: x.resolve(CID, 0, now))
        w.wait(lambda x: x.account(accounts.PAPER_ADDRESS).redeemed)
        rich = w.http("GET", "/sim/books")[1]["accounts"][accounts.PAPER_ADDRESS]["cash_u6"]
    with World(directory=tmp_path, auto_redeem=True) as w:
        mine = w.http("GET", "/sim/books")[1]["accounts"][accounts.PAPER_ADDRESS]
        assert mine["cash_u6"] == rich == old["cash_u6"] + 10_000_000 and mine["redeemed"] == {UP_TOKEN: 10_000_000} and mine["shares"] == {}
    with World(directory=tmp_path, auto_redeem=True, speed=2.0) as w:
        assert w.http("GET", "/sim/books")[1]["accounts"][accounts.PAPER_ADDRESS]["fills"] == [], "another speed is another run"
