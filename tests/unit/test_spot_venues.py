"""Coinbase and Bybit frames to SPOT records, and what the spot venues share."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmbot.venues import bybit, coinbase
from mmbot.venues.numbers import BadValue
from mmbot.venues.spot import IsoTimes, Ladder
from shm_layout import records as r

T = "2026-11-20T15:00:00."
WALL = 1795186800_300_000_000
assert WALL == IsoTimes().ns(T + "3Z")


class Rows(list):
    """What a stream published."""

    def __init__(self, make):
        super().__init__()
        self.rec = np.zeros(1, r.SPOT)
        self.stream = make(self.rec, lambda: self.append(self.rec[0].copy()))

    def take(self, message, wall=WALL):
        """Feed one message; the records it made."""
        before = len(self)
        self.stream.on_frame(json.dumps(message).encode() if not isinstance(message, bytes) else message, 5, wall)
        return self[before:]


@pytest.fixture
def cb():
    return Rows(coinbase.Stream)


@pytest.fixture
def bb():
    return Rows(bybit.Stream)


def l2(number, kind, *updates):
    return {"channel": "l2_data", "client_id": "", "timestamp": T + "12Z", "sequence_num": number, "events": [{
        "type": kind, "product_id": "BTC-USD", "updates": [{"side": s, "event_time": T + "100123456Z", "price_level": p, "new_quantity": q} for s, p, q in updates]}]}


def snapshot(number=0):
    return l2(number, "snapshot", ("bid", "84610.10", "0.4"), ("bid", "84610.00", "2"), ("offer", "84610.11", "1.1"), ("offer", "84610.50", "3"))


def beat(number):
    return {"channel": "heartbeats", "client_id": "", "timestamp": T + "2Z", "sequence_num": number, "events": [{"current_time": "x", "heartbeat_counter": 101}]}


def test_coinbase_best_bid_and_ask(cb):
    assert not cb.take({"channel": "subscriptions", "sequence_num": 0, "events": [{"subscriptions": {"level2": ["BTC-USD"]}}]})
    row = cb.take(snapshot(1))[0]
    assert (row["kind"], row["venue"], row["bid"], row["bid_qty"], row["ask"], row["ask_qty"], row["update_id"], row["t_exch_ns"], row["t_recv_ns"]) == (
        r.SK_BBO, r.SV_COINBASE, 84610.10, 0.4, 84610.11, 1.1, 1, 1795186800_100_123_456, 5)
    assert not cb.take(l2(2, "update", ("bid", "84609.00", "9"))), "behind the best nothing is news"
    row = cb.take(l2(3, "update", ("offer", "84610.11", "0.00000000")))[0]
    assert (row["ask"], row["ask_qty"]) == (84610.50, 3.0)
    assert cb.take(l2(4, "update", ("bid", "84610.10", "0"), ("bid", "84610.20", "1")))[0]["bid"] == 84610.20


def test_coinbase_numbers_count_every_message_of_the_connection(cb):
    cb.take(snapshot(0))
    cb.take(beat(1))
    assert not cb.take(snapshot(1)) and cb.stream.late == 1
    with pytest.raises(coinbase.Lost, match="2 messages before number 4"):
        cb.take(l2(4, "update", ("bid", "84610.20", "1")))
    assert cb.stream.gaps == 1 and not cb.stream.ready
    assert not cb.take(l2(5, "update", ("bid", "84610.20", "1"))), "the book is empty until its snapshot"
    assert cb.take(snapshot(6)) and cb.stream.ready
    with pytest.raises(coinbase.Lost):
        cb.take(beat(8))


def test_coinbase_trades_have_the_makers_side(cb):
    def trades(number, *rows, kind="update"):
        return {"channel": "market_trades", "sequence_num": number, "events": [{"type": kind, "trades": [
            {"trade_id": i, "product_id": "BTC-USD", "price": "84610.11", "size": "0.02", "side": s, "time": t} for i, s, t in rows]}]}

    assert not cb.take(trades(0, ("911", "SELL", T + "1Z"), kind="snapshot")), "what traded before us"
    rows = cb.take(trades(1, ("913", "BUY", T + "21Z"), ("912", "SELL", T + "2Z"), ("911", "SELL", T + "1Z")))
    assert [(int(x["update_id"]), int(x["side"])) for x in rows] == [(912, r.BUY), (913, r.SELL)] and cb.stream.late == 1
    assert rows[0]["px"] == 84610.11 and rows[0]["qty"] == 0.02
    assert not cb.take(trades(2, ("914", "SELL", T + "2Z")), WALL + 3_000_000_000) and cb.stream.late == 2, "too old"


def test_a_coinbase_top_that_is_old_is_kept_back_but_not_forgotten(cb):
    assert not cb.take(snapshot(0), WALL + 4_000_000_000) and cb.stream.late == 1
    assert cb.take(l2(1, "update", ("bid", "84600.00", "9")))[0]["bid"] == 84610.10


@pytest.mark.parametrize("data", [b"x", b"[]", b"[" * 3000, b'{"channel":"l2_data","sequence_num":"a"}', b'{"type":"error","message":"no"}',
                                  json.dumps(l2(0, "snapshot", ("bid", "nan", "1"))).encode(), json.dumps(l2(0, "snapshot", ("bid", "-1", "1"))).encode(),
                                  json.dumps(l2(0, "snapshot", ("bid", "1", "x"))).encode()])
def test_coinbase_garbage(cb, data):
    with pytest.raises(BadValue):
        cb.take(data)


def test_coinbase_messages():
    assert [json.loads(m) for m in coinbase.subscribe("level2")] == [
        {"type": "subscribe", "product_ids": ["BTC-USD"], "channel": "level2"}, {"type": "subscribe", "channel": "heartbeats"}]
    assert [json.loads(m)["type"] for m in coinbase.again("level2")] == ["unsubscribe", "subscribe"]


def book(u, kind="delta", b=(), a=(), seq=1):
    return {"topic": bybit.T_BOOK, "ts": WALL // 10**6, "type": kind, "data": {"s": "BTCUSDT", "b": b, "a": a, "u": u, "seq": seq}, "cts": WALL // 10**6 - 3}


def whole(u=9001):
    return book(u, "snapshot", [["84654.9", "0.3"], ["84654.0", "1"]], [["84655.0", "0.5"], ["84655.5", "2"]])


def test_bybit_best_bid_and_ask(bb):
    row = bb.take(whole())[0]
    assert (row["kind"], row["venue"], row["bid"], row["bid_qty"], row["ask"], row["ask_qty"], row["update_id"], row["t_exch_ns"]) == (
        r.SK_BBO, r.SV_BYBIT, 84654.9, 0.3, 84655.0, 0.5, 9001, WALL - 3_000_000)
    assert bb.take(book(9002, b=[["84654.9", "0"]]))[0]["bid"] == 84654.0
    assert not bb.take(book(9002, b=[["84654.9", "7"]])) and bb.stream.late == 1
    assert not bb.take(book(9003, b=[["84000", "1"]]))


def test_a_hole_in_bybits_updates_empties_the_book(bb):
    bb.take(whole())
    with pytest.raises(bybit.Lost, match="1 book updates before number 9003"):
        bb.take(book(9003, b=[["84654.9", "0"]]))
    assert not bb.stream.ready and not bb.take(book(9004, b=[["84654.9", "1"]])) and bb.stream.gaps == 1
    assert bb.take(whole(9010))


def test_bybits_service_starts_anew_with_update_one(bb):
    bb.take(whole())
    row = bb.take(book(1, "delta", [["80000", "1"]], [["80001", "1"]]))[0]
    assert (row["bid"], row["ask"]) == (80000.0, 80001.0)
    assert bb.take(book(2, b=[["80000.5", "1"]]))[0]["bid"] == 80000.5


def test_bybit_trades_and_ticker(bb):
    def trade(i, seq, side="Buy", at=WALL // 10**6):
        return {"i": i, "T": at, "p": "84655.0", "v": "0.002", "S": side, "s": "BTCUSDT", "BT": False, "RPI": False, "seq": seq}

    def frame(*rows):
        return {"topic": bybit.T_TRADE, "ts": 1, "type": "snapshot", "data": rows}

    rows = bb.take(frame(trade("2290000000123456789", 5), trade("2290000000123456790", 5, "Sell")))
    assert [(int(x["update_id"]), int(x["side"])) for x in rows] == [(2290000000123456789, r.BUY), (2290000000123456790, r.SELL)]
    assert not bb.take(frame(trade("3", 4))) and not bb.take(frame(trade("4", 6, at=WALL // 10**6 - 3001))) and bb.stream.late == 2
    assert bb.take(frame(trade("not-a-number", 7)))[0]["update_id"] == 0
    row = bb.take({"topic": bybit.T_TICKER, "ts": WALL // 10**6, "type": "snapshot", "cs": 8, "data": {"symbol": "BTCUSDT", "lastPrice": "84655.0", "volume24h": "8123.1"}})[0]
    assert (row["kind"], row["px"], row["qty"]) == (r.SK_TICKER, 84655.0, 8123.1)


def test_bybit_words(bb):
    assert not bb.take({"success": True, "ret_msg": "pong", "conn_id": "c", "op": "ping"}) and bb.stream.other == 0
    with pytest.raises(BadValue, match="refuses subscribe: args size >10"):
        bb.take({"success": False, "ret_msg": "args size >10", "op": "subscribe"})
    bb.take({"topic": "kline.1.BTCUSDT", "data": []})
    assert bb.stream.other == 1


@pytest.mark.parametrize("data", [b"x", b"[]", b"[" * 3000, json.dumps(book(1, "snapshot", [["84654.9"]])).encode(),
                                  json.dumps(book(1, "snapshot", [["inf", "1"]])).encode(), json.dumps(book("a")).encode()])
def test_bybit_garbage(bb, data):
    with pytest.raises(BadValue):
        bb.take(data)


def test_bybit_takes_ten_topics_at_most():
    messages = [json.loads(m) for m in bybit.subscribe(*[f"t{i}" for i in range(23)])]
    assert [len(m["args"]) for m in messages] == [10, 10, 3] and {m["op"] for m in messages} == {"subscribe"}
    assert [json.loads(m)["op"] for m in bybit.again()] == ["unsubscribe", "subscribe"]


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 3)), max_size=400), st.sampled_from([-1, 1]))
def test_the_best_of_a_ladder_is_what_a_search_finds(steps, sign):
    ladder, levels = Ladder(sign), {}
    for px, qty in steps:
        ladder.set(float(px), float(qty))
        levels[px] = qty
        if not qty:
            del levels[px]
        best = (min(levels) if sign > 0 else max(levels)) if levels else 0
        assert ladder.best() == (best, levels.get(best, 0))


@pytest.mark.parametrize("text, ns", [("2026-11-20T15:00:00Z", 0), (T + "1Z", 100_000_000), (T + "123456789Z", 123_456_789)])
def test_times(text, ns):
    times = IsoTimes()
    assert times.ns(text) == times.ns(text) == 1795186800_000_000_000 + ns


@pytest.mark.parametrize("text", ["", "soon", "2026-11-20T15:00:00", T + "1234567890Z", T + "xZ", "2026-13-20T15:00:00Z"])
def test_no_times(text):
    with pytest.raises(BadValue):
        IsoTimes().ns(text)
