"""Binance frames: shape, consecutive ids, rates, and that they lead Chainlink."""

import json

import numpy as np
import pytest

from mmbot.config import Sim
from mmbot.sim import oracle, tape
from mmbot.sim.spot import STREAM_AGG, STREAM_QUOTE, STREAM_TRADE, Binance

T0_MS = 1_775_028_600_000


def path_with_jump(at_s=30, seconds=60):
    path = oracle.SpotPath(T0_MS)
    path.extend(np.where(np.arange(seconds * 10) < at_s * 10, 68_000.0, 68_100.0))
    return path


def collect(speed=1.0, seconds=30):
    feed = Binance(path_with_jump(seconds=int(seconds * speed) + 10), 1, T0_MS, speed)
    frames = []
    for now_ms in range(T0_MS, T0_MS + int(seconds * 1000 * speed), int(5 * speed)):
        frames += [(now_ms, stream, json.loads(raw)) for stream, raw in feed.frames(now_ms)]
    return frames


def test_frames_have_the_documented_fields():
    frames = collect()
    quote = next(f for _, s, f in frames if s == STREAM_QUOTE)
    assert list(quote) == ["u", "s", "b", "B", "a", "A"] and quote["s"] == "BTCUSDT" and isinstance(quote["u"], int)
    assert float(quote["a"]) - float(quote["b"]) == pytest.approx(0.01) and len(quote["b"].split(".")[1]) == 8
    trade = next(f for _, s, f in frames if s == STREAM_TRADE)
    assert list(trade) == ["e", "E", "s", "t", "p", "q", "T", "m", "M"] and trade["e"] == "trade" and trade["M"] is True
    agg = next(f for _, s, f in frames if s == STREAM_AGG)
    assert list(agg) == ["e", "E", "s", "a", "p", "q", "f", "l", "T", "m", "M"] and isinstance(agg["m"], bool)


def test_ids_follow_each_other_and_aggregates_add_up():
    frames = collect()
    updates = [f["u"] for _, s, f in frames if s == STREAM_QUOTE]
    assert (np.diff(updates) > 0).all()
    trades = {f["t"]: f for _, s, f in frames if s == STREAM_TRADE}
    assert sorted(trades) == list(range(min(trades), max(trades) + 1))
    aggs = [f for _, s, f in frames if s == STREAM_AGG]
    assert (np.diff([f["a"] for f in aggs]) == 1).all()
    for agg in aggs:
        parts = [trades[t] for t in range(agg["f"], agg["l"] + 1)]
        assert round(sum(float(t["q"]) for t in parts), 8) == float(agg["q"]) and {t["p"] for t in parts} == {agg["p"]}
    assert {f["m"] for f in aggs} == {True, False}


@pytest.mark.parametrize("speed", [1.0, 10.0])
def test_rates_are_per_real_second(speed):
    frames = collect(speed)
    counts = [sum(s == stream for _, s, _ in frames) / 30 for stream in (STREAM_QUOTE, STREAM_AGG)]
    assert counts == [pytest.approx(50, rel=0.1), pytest.approx(10, rel=0.25)]


def test_a_pause_makes_no_burst():
    feed = Binance(path_with_jump(), 1, T0_MS, 1.0)
    feed.frames(T0_MS + 100)
    assert len(feed.frames(T0_MS + 40_000)) <= 5
    assert b'"b":"68100.00000000"' in feed.frames(T0_MS + 40_100)[-1][1] or b"68100.0" in feed.frames(T0_MS + 40_300)[-1][1]


def test_binance_leads_chainlink():
    """A jump of the spot shows on Binance at once and in the Chainlink print only after the relay's delay."""
    path = path_with_jump()
    feed = Binance(path, 1, T0_MS, 1.0)
    relay = oracle.References(oracle.DerivedPrints(path, 1), path, T0_MS)
    first = {}
    for now_ms in range(T0_MS, T0_MS + 40_000, 5):
        for stream, raw in feed.frames(now_ms):
            if stream == STREAM_QUOTE and float(json.loads(raw)["b"]) > 68_050:
                first.setdefault("binance", now_ms)
        for raw in relay.frames(now_ms):
            frame = json.loads(raw)
            if frame["topic"] == "crypto_prices_chainlink" and frame["payload"]["value"] > 68_050:
                first.setdefault("chainlink", now_ms)
    assert first["binance"] - T0_MS == pytest.approx(30_000, abs=100)
    assert 700 <= first["chainlink"] - first["binance"] <= 3_700


def test_tape_streams_agree_on_the_price():
    loaded = tape.load("btc15m", Sim())
    begin = loaded.start_wall_ns // 1_000_000
    bids, relayed = {}, {}
    for now_ms in range(begin, begin + 10_000, 5):
        for stream, raw in loaded.binance(now_ms):
            if stream == STREAM_QUOTE:
                bids[now_ms] = float(json.loads(raw)["b"])
        for raw in loaded.rtds(now_ms):
            frame = json.loads(raw)
            if frame["topic"] == "crypto_prices_chainlink":
                relayed[frame["payload"]["timestamp"]] = frame["payload"]["value"]
    shared = [(px, bids[min(bids, key=lambda t: abs(t - stamp))]) for stamp, px in relayed.items() if stamp > begin + 500]
    assert len(shared) >= 5 and all(abs(a - b) < 3.0 for a, b in shared)
