"""The exchange's PolyBolt, Coinbase, Bybit and activity services over real sockets, by a client that knows only the venues' protocols."""

import json

import pytest
from exchange_world import CID, UP_TOKEN, World, receive, v2_client

from mmbot.sim import accounts
from mmbot.sim.oracle import decimal
from shm_layout.records import UP


@pytest.fixture
def world():
    with World() as w:
        yield w


def say(ws, message):
    ws.send(json.dumps(message))


def a_print(topic, t, value, **more):
    return json.dumps({"topic": topic, "type": "update", "timestamp": t + 1300, "payload": {
        "symbol": "btc/usd", "timestamp": t, "value": 1.0, "full_accuracy_value": value, **more}}).encode()


def until(ws, channel):
    """The next frame of a channel (another coin goes on beside it)."""
    while True:
        frame = receive(ws)[0]
        if frame.get("channel") == channel and "payload" in frame and frame["payload"]["symbol"] == "btcusd":
            return frame


def test_polybolt_wants_credentials_and_numbers_each_channel(world):
    sub = {"op": "subscribe", "rid": "s", "subscriptions": [{"channel": "price.crypto.twap", "filter": {"symbol": "btcusd", "window_seconds": 60}},
                                                          {"channel": "price.crypto", "filter": {"symbol": "btc/usd"}}, {"channel": "x", "filter": {}}]}
    with world.ws(5, "/ws") as ws:
        say(ws, {"op": "ping", "rid": "p"})
        say(ws, sub)
        assert [(m["op"], m.get("code")) for m in receive(ws, 4)] == [
            ("pong", None), ("error", "auth_required"), ("error", "auth_required"), ("error", "bad_channel")]
        say(ws, {"op": "auth", "rid": "a", "auth": {"apiKey": accounts.PAPER_API_KEY, "secret": "wrong", "passphrase": "x"}})
        assert receive(ws)[0]["code"] == "auth_invalid"
        say(ws, {"op": "auth", "rid": "a", "auth": {"apiKey": accounts.PAPER_API_KEY, "secret": accounts.PAPER_API_SECRET,
                                                    "passphrase": accounts.PAPER_API_PASSPHRASE}})
        assert receive(ws)[0] == {"op": "authed", "rid": "a"}
        say(ws, sub)
        acknowledged, snapshot, refused, _ = receive(ws, 4)
        assert acknowledged == {"op": "subscribed", "rid": "s", "channel": "price.crypto.twap"} and refused["code"] == "bad_filter"
        assert (snapshot["seq"], snapshot["snapshot"], snapshot["payload"]["window_seconds"]) == (1, True, 60)
        value = 84608904251000012345678
        for i in range(2):
            world.tape.rtds_due = [a_print("crypto_prices_twap_sixty", 1795186800000 + 1000 * i, str(value + i), window_s=60)]
            frame = until(ws, "price.crypto.twap")
            assert (frame["seq"], frame["payload"]["full_accuracy_value"]) == (2 + i, decimal(value + i))


def test_coinbase_numbers_all_messages_of_a_connection(world):
    with world.ws(6, "/") as ws:
        say(ws, {"type": "subscribe", "product_ids": ["BTC-USD"], "channel": "level2"})
        say(ws, {"type": "subscribe", "channel": "heartbeats"})
        frames = receive(ws, 12)
        assert [m["sequence_num"] for m in frames] == list(range(12)) and {m["channel"] for m in frames} <= {"subscriptions", "l2_data", "heartbeats"}
        assert frames[1]["events"][0]["type"] == "snapshot"
        say(ws, {"type": "subscribe", "product_ids": ["BTC-USD"], "channel": "nothing"})
        while (m := receive(ws)[0]).get("type") != "error":
            pass
        assert "nothing" in m["message"]


def test_bybit_snapshot_then_consecutive_updates(world):
    with world.ws(7, "/v5/public/spot") as ws:
        say(ws, {"op": "subscribe", "args": [f"tickers.{i}" for i in range(11)]})
        assert receive(ws)[0]["success"] is False
        say(ws, {"req_id": "7", "op": "subscribe", "args": ["orderbook.50.BTCUSDT"]})
        acknowledged, snapshot, *deltas = receive(ws, 5)
        assert acknowledged["success"] and acknowledged["req_id"] == "7" and snapshot["type"] == "snapshot"
        assert [m["data"]["u"] for m in deltas] == [snapshot["data"]["u"] + 1 + i for i in range(3)]


def test_a_trade_is_shown_to_everybody_once_per_wallet(world):
    from py_clob_client_v2.clob_types import OrderArgs
    with world.ws(3, "/") as ws:
        say(ws, {"action": "subscribe", "subscriptions": [{"topic": "activity", "type": "trades"}]})
        world.level(1, 5200, 50_000_000)
        answer = v2_client(world).create_and_post_order(OrderArgs(token_id=UP_TOKEN, price=0.52, size=10, side="BUY"))
        assert answer["success"]
        shown = [m["payload"] for m in receive(ws, 1)]
        mine = [p for p in shown if p["proxyWallet"].lower() == accounts.PAPER_ADDRESS.lower()]
        assert [(p["side"], p["price"], p["size"], p["asset"], p["conditionId"], p["outcomeIndex"]) for p in mine] == [
            ("BUY", 0.52, 10.0, UP_TOKEN, CID, UP)]
