"""Recorded frames that nobody here made, through our own decoders: every frame is understood, and nothing in it gets lost on the way.

The recordings are not part of the project. MMBOT_CAPTURES names the folder that holds ``raw`` and ``fixtures``; without it these tests are
skipped. A frame is lossy when it is refused, when its event type is unknown, when a number comes out other than it was written, or when
it has a key that the decoder neither reads nor is known to do without.
"""

import gzip
import hashlib
import json
import os
import re
from collections import Counter
from decimal import Decimal
from pathlib import Path

import msgspec
import numpy as np
import pytest

from mmbot.execution import rest
from mmbot.venues import binance, coinbase
from mmbot.venues.numbers import BadValue, PriceTexts, scaled, size_u6
from mmbot.venues.polymarket import gamma, market_channel, market_frames, polybolt, rtds, user_channel
from shm_layout import records as r

FOLDER = Path(os.environ.get("MMBOT_CAPTURES") or "/nonexistent")
pytestmark = pytest.mark.skipif(not (FOLDER / "raw").is_dir(), reason="no recordings: set MMBOT_CAPTURES to the folder with raw and fixtures")

MARKET_WS = "raw/pm_btc5m_market_ws_20260421T215334Z.jsonl.gz"
SESSIONS = "raw/pm_15m_multivenue_sessions_202604.jsonl.gz"
GAMMA = "raw/pm_btc5m_gamma_markets_2026-06-08.jsonl.gz"
BINANCE = "raw/binance_spot_btcusdt_raw_20240808_11min.gz"
WALL_NS = 1_777_000_000 * 10**9

#: per event, what our decoder does without: names and texts for people, what follows from the token, what another frame says better
UNREAD = {
    "price_change": {"market"}, "book": {"market"}, "last_trade_price": {"market", "fee_rate_bps", "transaction_hash"},
    "tick_size_change": {"market", "old_tick_size"}, "best_bid_ask": {"market", "spread"},
    "market_resolved": {"market", "id", "assets_ids", "winning_outcome", "tags", "event_message", "question", "slug", "description", "outcomes"},
    "new_market": None,                               # discovery finds ours; comes for every market of the site
}


def lines(name: str):
    with gzip.open(FOLDER / name, "rt") as f:
        yield from f


def sessions(source: str) -> list[str]:
    """Payloads of one source of the multi-venue sessions, as they came over the wire."""
    return [row["payload"] for row in map(json.loads, lines(SESSIONS)) if row["source"] == source]


class Books:
    """The market channel following up to eight pairs of tokens, and what it complained about."""

    def __init__(self, pairs):
        self.complaints, self.records = [], Counter()
        self.channel = market_channel.MarketChannel(self._published, lambda code, text: self.complaints.append((code, text)))
        for slot, (up, down) in enumerate(pairs):
            self.channel.follow(slot, 1_795_186_800_000 + slot, (up, down), 100, 0)
        self.records.clear()

    def _published(self, market):
        self.records[int(market.rec[market_channel._KIND])] += 1


def lossless(event: dict, raw: bytes) -> str:
    """The event's type, after checking that the decoder's object says what the JSON says."""
    kind = event["event_type"]
    decoded = market_frames.ONE.decode(raw)
    read = {f.encode_name for f in msgspec.structs.fields(type(decoded))}
    if UNREAD[kind] is not None:
        assert set(event) - read - UNREAD[kind] - {"event_type"} == set(), f"{kind}: keys nobody reads"
    for name in read & set(event):
        value = getattr(decoded, name)
        if name == "timestamp":
            assert value == int(event[name])
        elif name in ("bids", "asks"):
            assert json.loads(bytes(value)) == event[name]
            for level in event[name]:
                assert scaled(level["price"], 4) == Decimal(level["price"]) * 10_000
                assert size_u6(level["size"]) == Decimal(level["size"]) * 1_000_000
        elif name == "price_changes":
            assert len(value) == len(event[name])
            for ours, theirs in zip(value, event[name], strict=True):
                known = {f.encode_name for f in msgspec.structs.fields(type(ours))}
                assert set(theirs) <= known and all(getattr(ours, k) == theirs[k] for k in known & set(theirs))
                assert size_u6(ours.size) == Decimal(theirs["size"]) * 1_000_000 and PriceTexts()[ours.price] == Decimal(theirs["price"]) * 10_000
        else:
            assert value == event[name], name
    return kind


def pairs_of(events) -> list[tuple[str, str]]:
    """Token pairs by market, at most eight, in order of appearance."""
    tokens: dict[str, dict[str, None]] = {}
    for e in events:
        for token in [c["asset_id"] for c in e.get("price_changes", ())] or [e.get("asset_id")]:
            if token and e.get("event_type") != "new_market":
                tokens.setdefault(e["market"], {})[token] = None
    return [tuple(t) for t in tokens.values() if len(t) == 2][:r.MARKET_SLOTS]


def report(name: str, counts) -> None:
    print(f"\n{name}: " + ", ".join(f"{k} {v}" for k, v in sorted(counts.items(), key=str)))


def test_market_channel_capture(capsys):
    frames = [json.loads(line)["payload"] for line in lines(MARKET_WS)]
    seen, books = Counter(), Books(pairs_of(frames))
    for event in frames:
        raw = json.dumps(event, separators=(",", ":")).encode()
        seen[lossless(event, raw)] += 1
        books.channel.on_frame(raw, WALL_NS)
    assert seen == {"price_change": 5185, "book": 144, "best_bid_ask": 144, "last_trade_price": 71}
    assert books.complaints == [] and books.channel.unknown == 0 and books.channel.not_ours == 0
    assert books.records[r.MK_TRADE] == 71, "every print becomes a record"
    with capsys.disabled():
        report("market channel, 5m", seen)


def test_market_channel_sessions_as_they_came(capsys):
    """Wire text with its own spacing: arrays of books, single frames, listings of the whole site; REST books beside them."""
    seen, rest_books, ws_books, complaints = Counter(), 0, 0, []
    for text in sessions("polymarket_clob"):
        message = json.loads(text)
        events = message if isinstance(message, list) else [message]
        if events and "event_type" not in events[0]:
            rest_books += sum(verified(e) for e in events)
            for e, ours in zip(events, market_frames.read_books(json.dumps(events).encode()), strict=True):
                assert all(getattr(ours, k) == e[k] for k in ("asset_id", "hash", "min_order_size", "tick_size", "neg_risk", "last_trade_price"))
                assert json.loads(bytes(ours.bids)) == e["bids"] and json.loads(bytes(ours.asks)) == e["asks"]
                assert set(e) - {"market"} == set(ours.__struct_fields__)
            seen["book over REST"] += len(events)
            continue
        books = Books(pairs_of(events))
        books.channel.on_frame(text.strip().encode(), WALL_NS)
        complaints += books.complaints
        for event in events:
            seen[lossless(event, json.dumps(event).encode())] += 1
            ws_books += verified(event | {"min_order_size": "5", "neg_risk": False}) if event["event_type"] == "book" else 0
    assert seen == {"book over REST": 552, "book": 318, "price_change": 85, "new_market": 48} and complaints == []
    assert (rest_books, ws_books) == (552, 318), "book hashes"
    with capsys.disabled():
        report("market channel, 15m sessions", seen | {"hashes verified": rest_books + ws_books})


def verified(book: dict) -> bool:
    """Does the book's hash hold, computed from what was sent?"""
    keys = ("market", "asset_id", "timestamp", "hash", "bids", "asks", "min_order_size", "tick_size", "neg_risk", "last_trade_price")
    text = json.dumps({k: "" if k == "hash" else book[k] for k in keys}, separators=(",", ":"))
    return hashlib.sha1(text.encode()).hexdigest() == book["hash"]


def test_chainlink_relay(capsys):
    seen = Counter()
    for text in sessions("polymarket_rtds_chainlink"):
        message, got = json.loads(text), rtds.decode(text.encode())
        payload = message["payload"]
        if message["type"] != "update":
            assert got is None and message["topic"] == "crypto_prices" and payload["symbol"] and payload["data"]
            seen["snapshot"] += 1
        elif payload["symbol"] != "btc/usd":
            assert got is None
            seen["other coin"] += 1
        else:
            assert got[:4] == (r.OK_SPOT, payload["timestamp"], message["timestamp"] * 1_000_000, int(payload["full_accuracy_value"]))
            seen["print"] += 1
    assert seen["snapshot"] == 120 and seen["print"] + seen["other coin"] == 918 and seen["print"] > 200
    with capsys.disabled():
        report("chainlink relay", seen)


def numbers_of(record, *names) -> list:
    return [float(record[0][n]) for n in names]


def test_binance(capsys):
    seen, rec = Counter(), np.zeros(1, r.SPOT)
    stream = binance.Stream(rec)
    texts = [line.split(" ", 1)[1] for line in lines(BINANCE)] + sessions("binance")
    for text in texts:
        message = json.loads(text)
        if "stream" not in message:
            seen["depth over REST"] += 1
            continue
        kind, m = message["stream"].partition("@")[2], message["data"]
        late = stream.late
        filled = stream.on_frame(text.strip().encode(), WALL_NS)
        if kind == "bookTicker" and m["s"] == "BTCUSDT":
            assert filled or stream.late == late + 1
            if filled:
                assert numbers_of(rec, "bid", "bid_qty", "ask", "ask_qty") == [float(m[k]) for k in ("b", "B", "a", "A")]
                assert rec[0]["update_id"] == m["u"]
        else:
            assert not filled, "not subscribed"
        seen[kind] += 1
    assert seen["bookTicker"] == 73_174 and stream.late == 0 and stream.other == sum(seen.values()) - seen["bookTicker"] - seen["depth over REST"]
    with capsys.disabled():
        report("binance", seen)


def test_coinbase_exchange_feed_is_another_protocol(capsys):
    """The sessions recorded Coinbase's Exchange feed; we follow Advanced Trade. Nothing of the one may pass for the other."""
    filled, seen = [], Counter()
    stream = coinbase.Stream(np.zeros(1, r.SPOT), lambda: filled.append(1))
    for text in sessions("coinbase"):
        stream.on_frame(text.encode(), WALL_NS, WALL_NS)
        seen[json.loads(text)["type"]] += 1
    assert not filled and stream.other == sum(seen.values()) == 405 and stream.gaps == stream.late == 0
    with capsys.disabled():
        report("coinbase exchange feed", seen)


def test_gamma_markets(capsys):
    seen = Counter()
    for line in lines(GAMMA):
        row = json.loads(line)
        window = gamma.parse_event(json.dumps({"slug": row["slug"], "markets": [row["raw"]]}).encode(), row["start_sec"], row["interval_sec"])
        labels = json.loads(row["raw"]["outcomes"])
        tokens = dict(zip(labels, json.loads(row["raw"]["clobTokenIds"]), strict=True))
        assert (window.condition_id, window.token_up, window.token_down) == (row["condition_id"], tokens["Up"], tokens["Down"])
        assert window.tick_e4 == Decimal(str(row["raw"]["orderPriceMinTickSize"])) * 10_000 and window.min_size_u6 == 5_000_000
        assert (window.fee_rate_e6, window.fee_exponent, window.version, window.neg_risk) == (70_000, 1, 1, 0)
        winner = labels[[Decimal(p) for p in row["outcome_prices"]].index(1)] if row["resolved"] else None
        assert window.outcome == {"Up": r.UP, "Down": r.DOWN, None: r.NO_OUTCOME}[winner]
        seen[f"tick {window.tick_e4}"] += 1
    assert sum(seen.values()) == 292
    with capsys.disabled():
        report("gamma", seen)


# ---- fixtures of another project's tests ----

def fixture(name: str):
    return json.loads((FOLDER / "fixtures" / name).read_text())


def impossible(event: dict) -> bool:
    """Made by hand, with ids that no venue can send (too long, no hex, a trade that is no UUID)."""
    ids = [event["id"] if event["event_type"] == "order" else event["taker_order_id"], event["market"]]
    ids += [m["order_id"] for m in event.get("maker_orders") or ()]
    trade = event["event_type"] == "trade" and not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", event["id"])
    return trade or any(not re.fullmatch(r"0x[0-9a-f]{1,64}", i) for i in ids)


def user_events() -> list[tuple[str, dict]]:
    found = []
    for path in sorted((FOLDER / "fixtures").glob("nautilus_*/**/*.json")):
        message = json.loads(path.read_text())
        for event in message if isinstance(message, list) else [message]:
            if isinstance(event, dict) and event.get("event_type") in ("order", "trade"):
                found.append((path.relative_to(FOLDER / "fixtures").as_posix().replace("nautilus_py/ws_messages/", "nautilus_py/"), event))
    return found


def test_user_channel_fixtures(capsys):
    seen = Counter()
    for name, event in user_events():
        makers = event.get("maker_orders") or []
        owner = next((m["owner"] for m in makers), "") if event.get("trader_side") == "MAKER" else event["owner"]
        channel = user_channel.UserChannel(owner, "", lambda condition, token: (0, -1))
        if impossible(event):
            with pytest.raises(user_channel.Lost):
                channel.on_frame(json.dumps(event).encode(), WALL_NS)
            seen["impossible, reported"] += 1
            continue
        rows = channel.on_frame(json.dumps(event).encode(), WALL_NS)
        legs = [m for m in makers if m["owner"] == owner] if event["event_type"] == "trade" else []
        taker = event["event_type"] == "trade" and event["owner"] == owner
        assert len(rows) == len(legs) + taker if event["event_type"] == "trade" else len(rows) == 1, name
        sizes = [event["size"]] * taker + [m["matched_amount"] for m in legs] if event["event_type"] == "trade" else [event["original_size"]]
        assert [row[user_channel.FIELDS["size_u6"]] for row in rows] == [Decimal(s) * 1_000_000 for s in sizes], name
        prices = [event["price"]] * (taker or event["event_type"] == "order") + [m["price"] for m in legs]
        assert [row[user_channel.FIELDS["px_u6"]] for row in rows] == [Decimal(px) * 1_000_000 for px in prices], name
        seen[f"{event['event_type']} {event.get('status')}"] += 1
    assert sum(seen.values()) >= 8
    with capsys.disabled():
        report("user channel fixtures", seen)


#: frames of 2023 and before the present schema (a change outside price_changes), or without the type that says what they are
OLD_SHAPE = {"nautilus_py/price_change.json", "nautilus_rs/ws_quotes.json", "nautilus_rs/ws_book_snapshot.json",
             "nautilus_rs/ws_last_trade.json", "nautilus_rs/ws_tick_size_change.json"}


def test_market_channel_fixtures(capsys):
    seen, old = Counter(), []
    for path in sorted((FOLDER / "fixtures").glob("nautilus_*/**/*.json")):
        name = path.relative_to(FOLDER / "fixtures").as_posix().replace("nautilus_py/ws_messages/", "nautilus_py/")
        message = json.loads(path.read_text())
        for event in message if isinstance(message, list) else [message]:
            if name in OLD_SHAPE:
                books = Books([])
                books.channel.on_frame(json.dumps(event).encode(), WALL_NS)
                old.append(name)
                assert [code for code, _ in books.complaints] == ["frame_garbage"], f"{name} must be complained about, not passed over"
            elif isinstance(event, dict) and event.get("event_type") in UNREAD:
                seen[lossless(event, json.dumps(event).encode())] += 1
    assert set(old) == OLD_SHAPE and set(seen) == set(UNREAD)
    with capsys.disabled():
        report("market channel fixtures", seen | {"old shapes refused": len(old)})


def test_relay_fixtures():
    for name in ("rtds_crypto_prices_subscribe", "rtds_equity_prices_subscribe", "rtds_equity_prices_update"):
        assert rtds.decode(json.dumps(fixture(f"nautilus_rs/{name}.json")).encode()) is None, "a snapshot, or another topic"
    relayed = fixture("nautilus_rs/rtds_crypto_prices_update.json")
    got = rtds.decode(json.dumps(relayed).encode())
    assert got.t_obs_ms == relayed["payload"]["timestamp"] and got.value_e18 == Decimal(relayed["payload"]["full_accuracy_value"]) * 10**18


def test_polybolt_staging_session():
    """The frames of a recorded staging session in their order: replies, snapshots, one that was cut out of the numbers."""
    session, seen = polybolt.Session(), Counter()
    for frame in fixture("ts_sdk_polybolt/staging_trimmed.json"):
        text = json.dumps(frame).encode()
        if frame.get("op") == "error":
            with pytest.raises(polybolt.Refused, match=frame["code"]):
                session.on_frame(text)
            seen["error"] += 1
            continue
        heard = session.on_frame(text)
        payload = frame.get("payload")
        ours = isinstance(payload, dict) and payload["symbol"] == "btcusd" and frame["channel"] in ("price.crypto", "price.crypto.twap")
        points = (payload["data"] if frame.get("snapshot") else [payload]) if ours else []
        if ours and payload.get("window_seconds", 60) != 60:
            points = []
        assert heard.data == ("op" not in frame)
        assert [(p.t_obs_ms, p.value_e18) for p in heard.prints] == [(p["timestamp"], Decimal(p["full_accuracy_value"]) * 10**18) for p in points]
        seen[frame.get("op") or frame["channel"]] += 1
    assert seen["price.crypto"] >= 2 and seen["subscribed"] == 3 and session.duplicates == 0


def test_rest_fixtures():
    """Lists of own orders and trades, cancels and balances, as the REST client's shapes."""
    page = msgspec.json.Decoder(rest.Page).decode((FOLDER / "fixtures/nautilus_rs/http_open_orders_page.json").read_bytes())
    raw = fixture("nautilus_rs/http_open_orders_page.json")["data"]
    orders = [msgspec.json.decode(row, type=rest.OpenOrder) for row in page.data]
    assert [(o.id, o.px_e4, o.size_u6, o.matched_u6) for o in orders] == [
        (o["id"], Decimal(o["price"]) * 10_000, Decimal(o["original_size"]) * 1_000_000, Decimal(o["size_matched"]) * 1_000_000) for o in raw]
    for name in ("http_balance_allowance_collateral", "http_balance_allowance_no_allowance"):
        text = fixture(f"nautilus_rs/{name}.json")["balance"]
        balance = msgspec.json.decode((FOLDER / f"fixtures/nautilus_rs/{name}.json").read_bytes(), type=rest.Balance)
        if "." in text:                               # dollars where base units are due: made by hand
            with pytest.raises((BadValue, ValueError)):
                assert balance.balance_u6
        else:
            assert balance.balance_u6 == int(text)
