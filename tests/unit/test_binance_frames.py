"""Binance streams to SPOT records."""

import json

import numpy as np
import pytest

from mmbot.venues import binance
from mmbot.venues.numbers import BadValue
from shm_layout import records as r


@pytest.fixture
def rec():
    return np.zeros(1, r.SPOT)


@pytest.fixture
def stream(rec):
    return binance.Stream(rec)


def ticker(u, b="84655.10000000", a="84655.11000000"):
    return json.dumps({"stream": "btcusdt@bookTicker", "data": {"u": u, "s": "BTCUSDT", "b": b, "B": "1.2", "a": a, "A": "0.8"}}).encode()


def agg(i, m=False, p="84655.11", q="0.01"):
    return json.dumps({"stream": "btcusdt@aggTrade", "data": {"e": "aggTrade", "E": 1795186800121, "s": "BTCUSDT", "a": i, "p": p, "q": q, "f": 1,
                                                             "l": 3, "T": 1795186800120, "m": m, "M": True}}).encode()


def test_a_ticker(stream, rec):
    assert stream.on_frame(ticker(77), 5)
    x = rec[0]
    assert (x["kind"], x["venue"], x["bid"], x["bid_qty"], x["ask"], x["ask_qty"], x["update_id"], x["t_recv_ns"], x["t_exch_ns"]) == (
        r.SK_BBO, r.SV_BINANCE, 84655.10, 1.2, 84655.11, 0.8, 77, 5, 0)


def test_updates_come_in_order_of_their_id(stream):
    assert stream.on_frame(ticker(77), 1) and not stream.on_frame(ticker(76), 2) and not stream.on_frame(ticker(77), 2)
    assert stream.late == 2
    stream.restart()
    assert stream.on_frame(ticker(5), 3)


def test_trades_and_their_aggressor(stream, rec):
    assert stream.on_frame(agg(10, m=True), 5)
    x = rec[0]
    assert (x["kind"], x["px"], x["qty"], x["side"], x["t_exch_ns"], x["bid"]) == (r.SK_TRADE, 84655.11, 0.01, r.SELL, 1795186800120 * 10**6, 0.0)
    assert stream.on_frame(agg(11), 5) and rec[0]["side"] == r.BUY and stream.gaps == 0
    assert stream.on_frame(agg(14), 5) and stream.gaps == 1


def test_other_messages_are_counted(stream):
    assert not stream.on_frame(b'{"result":null,"id":1}', 1) and not stream.on_frame(b'{"stream":"btcusdt@depth","data":{}}', 1)
    assert stream.other == 2


@pytest.mark.parametrize("data", [b"", b"x", b"[]", b"[" * 3000, b'{"stream":"btcusdt@bookTicker","data":{}}', b'{"stream":"btcusdt@aggTrade"}', ticker(1, b="nan"),
                                  ticker(1, a="-1"), ticker(1, b="0"), ticker(1, b="x"), ticker(2**63), agg(1, p="inf"), agg(1, q="x"), agg(2**70)])
def test_garbage_is_refused(stream, data):
    with pytest.raises(BadValue):
        stream.on_frame(data, 1)


def test_a_zero_quantity_is_a_quantity(stream, rec):
    assert stream.on_frame(agg(1, q="0.00000000"), 1) and rec[0]["qty"] == 0.0


def test_an_old_trade_is_dropped_and_counted(stream, rec):
    at = 1795186800120 * 1_000_000
    assert stream.on_frame(agg(1), 5, at + 2_999_000_000) and not stream.on_frame(agg(2), 5, at + 3_001_000_000)
    assert (stream.late, stream.gaps) == (1, 0) and stream.on_frame(agg(3), 5, at) and stream.gaps == 0, "it was seen, if not used"


def test_the_venue_announces_its_maintenance(stream):
    assert not stream.on_frame(b'{"e":"serverShutdown","E":1795186800121}', 5) and stream.closing
    stream.restart()
    assert not stream.closing
