"""Frames of the exchange against recorded frames of the venue: the same keys, in the same order on the wire, with the same kinds of values.

The formats are written out here once. What the exchange sends is held against them always; the recordings too, when MMBOT_CAPTURES names the
folder that holds them (they are not part of the project). So a format can only change here if both sides agree.
"""

import gzip
import json
import os
import re
from pathlib import Path

import pytest
from exchange_world import CID, DOWN_TOKEN, START_S, UP_TOKEN, World, receive, spec
from test_channels_exchange import USER, buy

from mmbot import config
from mmbot.sim import tape
from shm_layout.records import BUY, SELL

FOLDER = Path(os.environ.get("MMBOT_CAPTURES") or "/nonexistent")
recorded = pytest.mark.skipif(not (FOLDER / "raw").is_dir(), reason="no recordings: set MMBOT_CAPTURES to the folder with raw and fixtures")

KINDS = (("hash32", r"0x[0-9a-f]{64}"), ("address", r"0x[0-9a-fA-F]{40}"), ("sha1", r"[0-9a-f]{40}"), ("ms", r"\d{13}"), ("s", r"\d{10}"),
         ("long", r"\d{20,}"), ("number", r"(0|[1-9]\d*)(\.\d{0,17}[1-9])?"), ("padded", r"\d+\.\d*0"),
         ("uuid", r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), ("time", r"\d{4}-\d\d-\d\d[T ].*"), ("", r""))


def kind(value) -> str:
    """What a scalar looks like."""
    if not isinstance(value, str):
        return {bool: "bool", int: "int", float: "float", type(None): "null"}[type(value)]
    return next((name or "empty" for name, pattern in KINDS if re.fullmatch(pattern, value)), "text")


def shape(value, path="") -> dict[str, set[str]]:
    """Path -> kinds of everything inside a JSON value."""
    out: dict[str, set[str]] = {}
    if isinstance(value, dict):
        for key, part in value.items():
            for inner, kinds in shape(part, f"{path}.{key}".lstrip(".")).items():
                out.setdefault(inner, set()).update(kinds)
    elif isinstance(value, list):
        for part in value:
            for inner, kinds in shape(part, f"{path}[]").items():
                out.setdefault(inner, set()).update(kinds)
    else:
        out[path] = {kind(value)}
    return out


def agree(event, name: str) -> None:
    """Every value of ``event`` has a kind that the format allows, and no required key is missing."""
    form, seen = FORMATS[name], shape(event)
    assert set(seen) <= set(form), f"{name}: unknown {sorted(set(seen) - set(form))}"
    missing = {p for p, kinds in form.items() if not kinds.endswith("?") and p not in seen and "[]" not in p}
    assert not missing, f"{name}: missing {sorted(missing)}"
    for path, kinds in seen.items():
        assert kinds <= set(form[path].split()), f"{name}: {path} is {kinds}, not {form[path]}"


LEVELS = {"bids[].price": "number", "bids[].size": "number", "asks[].price": "number", "asks[].size": "number"}
FORMATS = {
    "price_change": {"market": "hash32", "price_changes[].asset_id": "long", "price_changes[].price": "number", "price_changes[].size": "number",
                     "price_changes[].side": "text", "price_changes[].hash": "sha1", "price_changes[].best_bid": "number",
                     "price_changes[].best_ask": "number", "timestamp": "ms", "event_type": "text"},
    "book": {"market": "hash32", "asset_id": "long", **LEVELS, "hash": "sha1", "timestamp": "ms", "event_type": "text"},
    "book initial": {"market": "hash32", "asset_id": "long", "timestamp": "ms", "hash": "sha1", **LEVELS, "tick_size": "number",
                     "event_type": "text", "last_trade_price": "empty padded number"},
    "book rest": {"market": "hash32", "asset_id": "long", "timestamp": "ms", "hash": "sha1", **LEVELS, "min_order_size": "number",
                  "tick_size": "number", "neg_risk": "bool", "last_trade_price": "empty padded number"},
    "best_bid_ask": {"market": "hash32", "asset_id": "long", "best_bid": "number", "best_ask": "number", "spread": "number",
                     "timestamp": "ms", "event_type": "text"},
    "last_trade_price": {"market": "hash32", "asset_id": "long", "price": "number", "size": "number", "fee_rate_bps": "number padded",
                         "side": "text", "timestamp": "ms", "event_type": "text", "transaction_hash": "hash32"},
    "new_market": {"id": "number", "question": "text", "market": "hash32", "slug": "text", "description": "text empty", "assets_ids[]": "long",
                   "outcomes[]": "text", "event_message.id": "number", "event_message.ticker": "text", "event_message.slug": "text",
                   "event_message.title": "text", "event_message.description": "text empty", "timestamp": "ms", "event_type": "text",
                   "tags[]": "text", "condition_id": "hash32", "active": "bool", "clob_token_ids[]": "long", "sports_market_type": "empty text",
                   "line": "empty text number", "game_start_time": "empty time", "order_price_min_tick_size": "number",
                   "group_item_title": "empty text", "taker_base_fee": "number padded", "fees_enabled": "bool", "fee_schedule": "null ?",
                   "fee_schedule.exponent": "number ?",
                   "fee_schedule.rate": "number ?", "fee_schedule.taker_only": "bool ?", "fee_schedule.rebate_rate": "number ?"},
    "relay update": {"connection_id": "text", "payload.full_accuracy_value": "long", "payload.symbol": "text", "payload.timestamp": "int",
                     "payload.value": "float int", "timestamp": "int", "topic": "text", "type": "text"},
    "relay snapshot": {"payload.data[].timestamp": "int", "payload.data[].value": "float int", "payload.symbol": "text", "timestamp": "int",
                       "topic": "text", "type": "text"},
    "bookTicker": {"u": "int", "s": "text", "b": "padded", "B": "padded", "a": "padded", "A": "padded"},
    "binance trade": {"e": "text", "E": "int", "s": "text", "t": "int", "p": "padded", "q": "padded", "T": "int", "m": "bool", "M": "bool"},
    "order": {"asset_id": "long", "associate_trades": "null ?", "associate_trades[]": "uuid", "created_at": "s", "event_type": "text",
              "expiration": "number", "id": "hash32", "maker_address": "address", "market": "hash32", "order_owner": "uuid", "order_type": "text",
              "original_size": "number", "outcome": "text", "owner": "uuid", "price": "number", "side": "text", "size_matched": "number",
              "status": "text", "timestamp": "ms", "type": "text"},
    "trade": {"asset_id": "long", "bucket_index": "int", "event_type": "text", "fee_rate_bps": "number", "id": "uuid", "last_update": "s",
              "maker_address": "address", "maker_orders[].asset_id": "long", "maker_orders[].fee_rate_bps": "number",
              "maker_orders[].maker_address": "address", "maker_orders[].matched_amount": "number", "maker_orders[].order_id": "hash32",
              "maker_orders[].outcome": "text", "maker_orders[].outcome_index": "int ?", "maker_orders[].owner": "uuid",
              "maker_orders[].price": "number", "maker_orders[].side": "text ?", "market": "hash32", "match_time": "s", "outcome": "text",
              "owner": "uuid", "price": "number", "side": "text", "size": "number", "status": "text", "taker_order_id": "hash32",
              "timestamp": "ms s", "trade_owner": "uuid", "trader_side": "text", "transaction_hash": "hash32 empty", "type": "text"},
}
#: keys as they follow each other on the wire
ORDER = {name: list(dict.fromkeys(re.split(r"[.\[]", path)[0] for path in FORMATS[name]))
         for name in ("price_change", "book", "book initial", "book rest", "best_bid_ask", "last_trade_price", "new_market", "relay update",
                      "relay snapshot")}


def check(name: str, event: dict) -> None:
    agree(event, name)
    if name in ORDER:
        assert list(event) == ORDER[name]


# ---- what the exchange sends ----

def test_market_channel():
    with World() as world, world.ws(2, "/ws/market") as ws:
        world.do(lambda x, now: (x.set_level(CID, BUY, 5000, 100_500_000, now), x.set_level(CID, SELL, 5200, 50_000_000, now)))
        ws.send(json.dumps({"type": "market", "assets_ids": [UP_TOKEN, DOWN_TOKEN], "custom_feature_enabled": True}))
        for book in receive(ws)[0]:
            check("book initial", book)
        world.do(lambda x, now: x.submit(buy(1, 5200, 7), now))
        world.do(lambda x, now: x.add_market(spec(condition_id="0x" + "6b" * 32, token_up=str(10**40), token_down=str(10**41), slug="later"), now))
        seen = set()
        while seen != {"price_change", "book", "best_bid_ask", "last_trade_price", "new_market"}:
            text = ws.recv(3)
            event = json.loads(text)
            seen.add(event["event_type"])
            check(event["event_type"], event)
            assert '": ' not in text and (event["event_type"] == "book" or '", "' in text), "a space after a comma, none after a colon"
        check("book rest", world.http("GET", f"/book?token_id={UP_TOKEN}")[1])


def test_user_channel():
    with World(settle_ms=10.0) as world, world.ws(2, "/ws/user") as ws:
        world.level(SELL, 5200, 50_000_000)
        ws.send(json.dumps(USER))
        ws.send("PING")
        assert ws.recv(2) == "PONG"
        world.do(lambda x, now: (x.submit(buy(1, 5100, 10, post_only=True), now), x.take(CID, SELL, 5100, 4_000_000, now),
                                 x.cancel(buy(1, 5100, 10).order_id, now)))
        for event in receive(ws, 6):
            check(event["event_type"], event)


def test_relay_and_binance():
    played = tape.load("btc15m", config.load(sim__frames_per_s=10).sim)
    now_ms = played.start_wall_ns // 1_000_000 + 20_000
    with World(tape=played) as world, world.ws(3, "/") as ws:
        ws.send(json.dumps({"action": "subscribe", "subscriptions": [{"topic": "crypto_prices_chainlink", "type": "update"}]}))
        check("relay update", receive(ws, timeout=10)[0])
        with world.ws(3, "/") as filtered:
            filtered.send(json.dumps({"action": "subscribe", "subscriptions": [
                {"topic": "crypto_prices_chainlink", "type": "*", "filters": '{"symbol":"btc/usd"}'}]}))
            snapshot = receive(filtered, timeout=5)[0]
            check("relay snapshot", snapshot)
            assert (snapshot["topic"], snapshot["type"]) == ("crypto_prices", "subscribe"), "whatever topic was asked for"
    names = {"bookTicker": "bookTicker", "trade": "binance trade"}
    frames = [(stream.partition("@")[2], json.loads(data)) for ms in range(0, 2000, 10) for stream, data in played.binance(now_ms + ms)]
    assert {stream for stream, _ in frames} >= set(names)
    for stream, event in frames:
        if stream in names:
            check(names[stream], event)


#: fields of a market that came with the newer protocol and with settlement by averages, after the recording
NEWER = {"version": "text", "cryptoMarketConfig.id": "text", "cryptoMarketConfig.asset": "text", "cryptoMarketConfig.duration": "text",
         "cryptoMarketConfig.twapEnabled": "bool", "cryptoMarketConfig.twapLookbackSeconds": "int", "feeSchedule.rate": "float",
         "feeSchedule.exponent": "int", "feeSchedule.takerOnly": "bool", "feeSchedule.rebateRate": "float", "makerRebatesFeeShareBps": "int"}


def gamma_market() -> dict[str, set[str]]:
    with World() as world:
        return shape(world.http("GET", f"/events/slug/btc-updown-15m-{START_S}", port=1)[1]["markets"][0])


# ---- what was recorded ----

def lines(name: str):
    with gzip.open(FOLDER / "raw" / name, "rt") as f:
        yield from map(json.loads, f)


@recorded
def test_recorded_market_channel():
    checked = 0
    for row in lines("pm_btc5m_market_ws_20260421T215334Z.jsonl.gz"):
        event = row["payload"]
        check("book initial" if "tick_size" in event else event["event_type"], event)
        checked += 1
    assert checked == 5544


@recorded
def test_recorded_sessions():
    checked = 0
    for row in lines("pm_15m_multivenue_sessions_202604.jsonl.gz"):
        if row["source"] not in ("polymarket_clob", "polymarket_rtds_chainlink", "binance"):
            continue
        message = json.loads(row["payload"])
        for event in message if isinstance(message, list) else [message]:
            if row["source"] == "binance":
                name, event = "binance trade", event["data"]
            elif row["source"] == "polymarket_rtds_chainlink":
                name = "relay update" if event["type"] == "update" else "relay snapshot"
            else:
                name = event.get("event_type", "book rest")
                name = "book initial" if name == "book" else name
            check(name, event)
            checked += 1
    assert checked == 552 + 318 + 85 + 48 + 918 + 120 + 399


@recorded
def test_recorded_user_events():
    checked = 0
    for path in sorted((FOLDER / "fixtures/nautilus_py/ws_messages").glob("*.json")):
        event = json.loads(path.read_text())
        if isinstance(event, dict) and event.get("event_type") in ("order", "trade"):
            check(event["event_type"], event)
            checked += 1
    assert checked == 6


@recorded
def test_recorded_markets_of_the_list():
    """Every field of our market object exists in the real ones (or came later), with the same kind of value."""
    real: dict[str, set[str]] = {}
    for row in lines("pm_btc5m_gamma_markets_2026-06-08.jsonl.gz"):
        for path, kinds in shape(row["raw"]).items():
            real.setdefault(path, set()).update(kinds)
    number = {"int", "float"}
    for path, kinds in gamma_market().items():
        allowed = real.get(path, set()) | set(NEWER.get(path, "").split())
        if allowed & number:
            allowed |= number
        if allowed & {"number", "padded"}:
            allowed |= {"number", "padded", "text"}
        assert kinds <= allowed, f"{path} is {kinds}, recorded {allowed}"
