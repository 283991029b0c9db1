"""The tapes against the exchange: recorded quotes carry through, pace, rolls, ticks, fills, determinism, bad files."""

import json
import sys
from collections import Counter

import numpy as np
import pytest

from mmbot.clock import WallClock
from mmbot.config import Sim
from mmbot.errors import UserError
from mmbot.sim import oracle, tape
from mmbot.sim.engine import Exchange, Listener, NewOrder
from mmbot.sim.tapes import btc15m, chainlink_day, quotes
from mmbot.sim.tapes.convert import merge
from shm_layout.records import BUY, DOWN, SELL, UP, market_id

STEP_MS = 5
ROLL_S = 1_775_028_600


class Recorder:
    """A stand-in for the exchange that only writes down what the tape asks for."""

    def __init__(self):
        self.specs, self.calls = {}, []

    def add_market(self, spec):
        self.specs[spec.condition_id] = spec

    def market(self, condition_id):
        return self.specs.get(condition_id)

    def set_level(self, condition_id, side, px_e4, size_u6, now_ms, reason="cancel"):
        self.calls.append(("set", now_ms, condition_id, side, px_e4, size_u6, reason))

    def change_tick(self, condition_id, tick_e4, now_ms):
        self.calls.append(("tick", now_ms, condition_id, tick_e4))

    def close_market(self, condition_id, now_ms):
        self.calls.append(("close", now_ms, condition_id))

    def resolve(self, condition_id, outcome, now_ms):
        self.calls.append(("resolve", now_ms, condition_id, outcome))


class Frames(Listener):
    """Counts level changes per market and second."""

    def __init__(self):
        self.stamps = {}

    def on_level(self, market, side, px_e4, now_ms):
        self.stamps.setdefault(market.spec.slug, []).append(now_ms)


def exchange_for(loaded, settings, listener=None):
    return Exchange(WallClock(loaded.start_wall_ns, 0, settings.speed), 1, settings, listener)


def play(loaded, exchange, from_ms, to_ms, step_ms=STEP_MS, each=None):
    for now_ms in range(from_ms, to_ms, step_ms):
        for spec in loaded.markets(now_ms / 1000):
            exchange.add_market(spec)
        loaded.step(exchange, now_ms)
        if each is not None:
            each(now_ms)


def start_ms(loaded):
    return loaded.start_wall_ns // 1_000_000


def test_the_bundled_recording_is_what_the_readme_says():
    data = btc15m.load()
    rows, offset = data["rows"], data["offset"]
    assert rows.dtype == np.int64 and np.diff(offset).tolist() == [274, 1798, 1697, 2325, 780]
    assert data["start_s"].tolist() == [ROLL_S + 900 * k for k in range(-1, 4)]
    spans = [((rows[a, 0], rows[b - 1, 0]) - data["start_s"][i] * 1000) // 1000 for i, (a, b) in enumerate(zip(offset[:-1], offset[1:]))]
    assert [tuple(s.tolist()) for s in spans] == [(436, 883), (7, 621), (-273, 900), (8, 900), (15, 191)]
    assert (rows[:, 1] < rows[:, 3]).all() and (rows[:, [2, 4]] % 10_000 == 0).all()
    assert ((rows[:, 1] > 0) == (rows[:, 2] > 0)).all() and ((rows[:, 3] < 10_000) == (rows[:, 4] > 0)).all()
    assert all(len(t) > 70 for pair in data["tokens"].tolist() for t in pair)


def test_merge_takes_the_fresher_token_and_drops_repeats():
    rows = {"up_book_ts": [100, 100, 105, 105], "down_book_ts": [90, 100, 100, 110],
            "up_bid": [0.50, 0.50, 0.51, 0.51], "up_bid_size": [10.0, 10, 12, 12], "up_ask": [0.52, 0.52, 0.52, 0.52], "up_ask_size": [5.0, 5, 5, 5],
            "down_bid": [0.40, 0.48, 0.48, 0.47], "down_bid_size": [1.0, 5, 5, 7.25], "down_ask": [0.60, 0.50, 0.50, 1.0], "down_ask_size": [1.0, 10, 10, 0]}
    out = merge({k: np.array(v) for k, v in rows.items()})
    assert out.tolist() == [[100, 5000, 10_000_000, 5200, 5_000_000], [105, 5100, 12_000_000, 5200, 5_000_000],
                            [110, 0, 0, 5300, 7_250_000]]


def test_recorded_quotes_carry_through_on_time():
    """At the stamp of every recorded row (one step later) the exchange's best is that row, sizes included."""
    settings = Sim()
    loaded = tape.load("btc15m", settings)
    exchange = exchange_for(loaded, settings)
    data = btc15m.load()
    rows = data["rows"][data["offset"][1]:data["offset"][2]]
    spec = next(s for s in loaded.markets(ROLL_S) if s.start_s == ROLL_S)
    assert (spec.token_up, spec.token_down) == tuple(data["tokens"][1].tolist()) and spec.label == "recorded"
    begin = ROLL_S * 1000 + 20_000
    seen = []

    def compare(now_ms):
        i = np.searchsorted(rows[:, 0], now_ms, "right") - 1
        market = exchange.market(spec.condition_id)
        bid, ask = market.best()
        got = [bid, market.level_u6(BUY, bid), ask, market.level_u6(SELL, ask)]
        assert got == rows[i, 1:].tolist(), (now_ms, i)
        seen.append(i)

    play(loaded, exchange, begin, begin + 60_000, each=compare)
    assert len(set(seen)) > 100


def test_pace_of_a_market_is_even_and_as_configured():
    settings = Sim(frames_per_s=150)
    loaded = tape.load("btc15m", settings)
    frames = Frames()
    exchange = exchange_for(loaded, settings, frames)
    begin = start_ms(loaded)
    play(loaded, exchange, begin, begin + 20_000)
    now, following = (f"btc-updown-15m-{s}" for s in (ROLL_S - 900, ROLL_S))
    for slug in (now, following):
        stamps = np.array(frames.stamps[slug])
        stamps = stamps[stamps > begin]      # without the opening of the book
        assert 0.9 * 150 < len(stamps) / 20 < 1.25 * 150
        assert np.diff(stamps).max() <= 4 * 1000 / 150
    listed = frames.stamps[f"btc-updown-15m-{ROLL_S + 900}"]
    assert set(listed) == {begin}, "the window after the next one stands still"


def test_filler_costs_the_same_real_time_at_any_speed():
    counts = {}
    for speed in (1.0, 10.0):
        settings = Sim(speed=speed)
        loaded = tape.load("probe", settings)
        recorder = Recorder()
        begin = start_ms(loaded)
        step = int(STEP_MS * speed)
        play(loaded, recorder, begin, begin + int(10_000 * speed), step)
        counts[speed] = len(recorder.calls)
    assert 0.9 < counts[10.0] / counts[1.0] < 1.1


def test_books_are_two_sided_before_the_roll_and_never_crossed():
    settings = Sim()
    loaded = tape.load("btc15m", settings)
    exchange = exchange_for(loaded, settings)
    begin = start_ms(loaded)
    current, following, later = loaded.markets(begin / 1000)[:3]

    def check(now_ms):
        for market in exchange.markets.values():
            bid, ask = market.best()
            assert not (bid and ask) or bid < ask
        if now_ms < ROLL_S * 1000:
            bid, ask = exchange.market(following.condition_id).best()
            assert 4_300 <= bid < ask <= 5_600 and ask - bid <= 200
            depth = [len(side.keys) for side in exchange.market(following.condition_id).sides]
            assert min(depth) >= 15

    play(loaded, exchange, begin, begin + 60_000, each=check)
    assert (current.start_s, following.start_s, later.start_s) == (ROLL_S - 900, ROLL_S, ROLL_S + 900)


def test_windows_close_at_the_end_and_resolve_by_exact_comparison():
    settings = Sim(start_before_roll_s=10)
    loaded = tape.load("btc15m", settings)
    recorder = Recorder()
    begin = start_ms(loaded)
    first = loaded.markets(begin / 1000)[0]
    play(loaded, recorder, begin, begin + 15_000)
    assert loaded.resolution(first) is None
    play(loaded, recorder, begin + 15_000, begin + 80_000, 50)
    close = next(c for c in recorder.calls if c[0] == "close")
    resolve = next(c for c in recorder.calls if c[0] == "resolve")
    assert close[1:] == (ROLL_S * 1000, first.condition_id)
    assert 20_000 <= resolve[1] - ROLL_S * 1000 <= 60_050
    outcome, strike, final = loaded.resolution(first)
    assert outcome == resolve[3] == DOWN and float(final) < float(strike)
    assert not [c for c in recorder.calls if c[0] == "set" and c[2] == first.condition_id and c[1] >= ROLL_S * 1000]


def test_tick_turns_fine_with_the_recording_and_never_back():
    settings = Sim()
    source = btc15m.Source(settings)
    for index in range(-1, 10):
        rows = source.build(index).rows
        ticks = rows[:, quotes.TICK]
        assert set(np.diff(ticks).tolist()) <= {0, -90}
        coarse = rows[ticks == 100]
        assert (coarse[:, [quotes.BID, quotes.ASK]] % 100 == 0).all() and (rows[:, [quotes.BID, quotes.ASK]] % 10 == 0).all()
        assert (np.diff(rows[:, quotes.T]) >= 0).all() and (rows[:, quotes.BID] < rows[:, quotes.ASK]).all()
        start = source.start_of(index) * 1000
        if source.recording(index) == 2:
            assert (rows[np.argmax(ticks == 10), quotes.T] - start) // 1000 == 663
        last = rows[-1]
        assert last[quotes.T] > start + 870_000, "the last rows reach the end"
        mid = quotes.mids(rows[-1:])[0]
        assert mid > 0.95 or mid < 0.05 or source.recording(index) in (1, 4), "the recorded windows end decided"


def test_generated_ends_converge_to_the_outcome():
    decided = Counter()
    for seed in range(14):
        source = btc15m.Source(Sim(seed=seed))
        source.build(-1)
        window = source.build(0)
        assert window.rows[-1, quotes.RECORDED] == 0
        mid = quotes.mids(window.rows[-1:])[0]
        assert (mid > 0.5) == (window.outcome == UP)
        decided[window.outcome] += 1
    assert decided[UP] and decided[DOWN], decided


def test_ids_are_the_recorded_ones_first_and_then_unique_and_not_v2():
    source = btc15m.Source(Sim())
    specs = [source.build(i).spec for i in range(-1, 12)]
    tokens = [t for s in specs for t in (s.token_up, s.token_down)]
    assert len(set(tokens)) == len(tokens) and len({s.condition_id for s in specs}) == len(specs)
    assert all((int(t) >> 40) & (2**64 - 1) for t in tokens), "a V1 id whose bits 40..103 are zero would be taken for a V2 id"
    assert [s.label for s in specs[:6]] == ["recorded"] * 5 + ["generated"]
    for s in specs:
        assert s.start_s % 900 == 0 and s.slug == f"btc-updown-15m-{s.start_s}" and s.market_id == market_id(s.start_s, 900)
        assert len(s.condition_id) == 66 and int(s.condition_id, 16) < 2**256


def test_a_long_run_lists_builds_and_forgets():
    settings = Sim()
    loaded = tape.load("btc15m", settings)
    recorder = Recorder()
    begin = start_ms(loaded)
    play(loaded, recorder, begin, begin + 12 * 900_000, 2_000)
    kinds = Counter(c[0] for c in recorder.calls)
    assert kinds["close"] == kinds["resolve"] == 12
    assert len(loaded._windows) <= 8 and len(loaded._players) <= 3
    assert len(loaded._source.path.window(0, 10**15)) < 10 * 9_000
    assert [s.start_s for s in loaded.markets(begin / 1000 + 12 * 900)] == [ROLL_S + 900 * k for k in (10, 11, 12, 13)]


def test_same_seed_same_market_other_seed_other_market():
    logs = []
    for seed in (1, 1, 2):
        settings = Sim(seed=seed)
        loaded = tape.load("btc15m", settings)
        recorder = Recorder()
        begin = start_ms(loaded)
        play(loaded, recorder, begin, begin + 5_000)
        frames = [f for t in range(begin, begin + 5_000, STEP_MS) for f in (*loaded.rtds(t), *loaded.binance(t))]
        logs.append((recorder.calls, frames))
    assert logs[0] == logs[1] and logs[0][0] != logs[2][0] and logs[0][1] != logs[2][1]


def test_a_pause_makes_no_burst_and_ends_at_the_newest_row():
    settings = Sim()
    loaded = tape.load("btc15m", settings)
    exchange = exchange_for(loaded, settings)
    begin = ROLL_S * 1000 + 100_000
    play(loaded, exchange, begin, begin + 1_000)
    frames = exchange.listener = Frames()
    later = begin + 61_000
    loaded.step(exchange, later)
    data = btc15m.load()
    rows = data["rows"][data["offset"][1]:data["offset"][2]]
    spec = next(s for s in loaded.markets(later / 1000) if s.start_s == ROLL_S)
    row = rows[np.searchsorted(rows[:, 0], later, "right") - 1]
    assert exchange.market(spec.condition_id).best() == (row[1], row[3])
    assert len(frames.stamps[spec.slug]) < 200, "61 s at 200 frames/s would be 12,200"


def test_a_tape_joined_late_is_the_same_tape():
    """An exchange that restarts half an hour into a run finds the same windows, books and prices, without a flood of old frames."""
    settings = Sim()
    whole, late = tape.load("btc15m", settings), tape.load("btc15m", settings)
    begin = start_ms(whole)
    at = begin + 45 * 60_000
    books = []
    for loaded, since in ((whole, begin), (late, at)):
        exchange = exchange_for(loaded, settings)
        frames = []
        play(loaded, exchange, since, at + 20_000, 20, lambda now: frames.append((now, loaded.rtds(now), loaded.binance(now))))
        assert max(len(r) + len(b) for _, r, b in frames) < 40
        specs = loaded.markets(at / 1000)
        tops = [exchange.market(s.condition_id).best() for s in specs if s.end_s * 1000 > at]
        prints = [f for now, rtds, _ in frames for f in rtds if now > at + 10_000]
        books.append((specs, tops, prints))
    assert books[0] == books[1]


def test_a_market_the_exchange_has_dropped_does_no_harm():
    loaded = tape.load("btc15m", Sim())
    recorder = Recorder()
    begin = start_ms(loaded)
    play(loaded, recorder, begin, begin + 1_000)
    recorder.specs.clear()
    loaded.step(recorder, begin + 5 * 900_000)
    assert not [c for c in recorder.calls if c[0] in ("close", "resolve")]


def test_half_of_the_falls_of_the_best_are_trades_on_both_sides():
    """Levels that shrink or go at the best: trade or cancel by a fair seeded coin; few trades before the start; none behind the best."""
    loaded = tape.load("btc15m", Sim())
    recorder = Recorder()
    begin = ROLL_S * 1000
    play(loaded, recorder, begin, begin + 600_000, 50)
    spec, following = loaded.markets(begin / 1000)[1:3]
    counts, levels, before = Counter(), {}, 0
    for call in recorder.calls:
        if call[0] != "set":
            continue
        _, _, cid, side, px, size, reason = call
        have = levels.get((cid, side, px), 0)
        prices = [p for (c, s, p), held in levels.items() if c == cid and s == side and held]
        best = max(prices, default=0) if side == BUY else min(prices, default=10_000)
        if cid == spec.condition_id and size < have:
            assert px == best or reason == "cancel"
            if px == best:
                counts[side, reason] += 1
        before += cid == following.condition_id and reason == "trade" and size < have
        levels[cid, side, px] = size
    for side in (BUY, SELL):
        falls = counts[side, "trade"] + counts[side, "cancel"]
        assert falls > 400 and 0.42 < counts[side, "trade"] / falls < 0.58
    assert before < 60


def rest(exchange, spec, outcome, px_e4, shares, now_ms, number):
    token = (spec.token_up, spec.token_down)[outcome]
    order = NewOrder(order_id=f"0x{number:064x}", address="0x1111111111111111111111111111111111111111", owner="me", token=token,
                     side=BUY, maker_u6=shares * px_e4 * 100, taker_u6=shares * 1_000_000, post_only=True)
    result = exchange.submit(order, now_ms)
    assert not result.error, result.error
    return exchange.orders[order.order_id]


def test_resting_orders_on_both_outcomes_fill_from_the_recorded_market():
    """A falling recorded bid trades into a resting Up bid, a rising one into a resting Down bid, at the maker's price."""
    settings = Sim(cash_u6=10_000_000_000)
    loaded = tape.load("btc15m", settings)
    exchange = exchange_for(loaded, settings)
    begin = ROLL_S * 1000 + 15_000
    play(loaded, exchange, begin, begin + 100)
    spec = next(s for s in loaded.markets(begin / 1000) if s.start_s == ROLL_S)
    bid, ask = exchange.market(spec.condition_id).best()
    orders = [rest(exchange, spec, UP, bid, 20, begin + 100, 1), rest(exchange, spec, DOWN, 10_000 - ask, 20, begin + 100, 2)]
    play(loaded, exchange, begin + 105, begin + 300_000)
    exchange.advance(begin + 300_000)
    assert [o.matched_u6 for o in orders] == [20_000_000, 20_000_000]
    account = exchange.account("0x1111111111111111111111111111111111111111")
    assert settings.cash_u6 - account.cash_u6 == 20 * 100 * (bid + 10_000 - ask)


def test_the_queue_ahead_is_served_first():
    """An order behind a recorded size does not fill from a trade smaller than that size."""
    settings = Sim()
    loaded = tape.load("probe", settings)
    exchange = exchange_for(loaded, settings)
    begin = start_ms(loaded)
    play(loaded, exchange, begin, begin + 50)
    spec = loaded.markets(begin / 1000)[1]
    bid, _ = exchange.market(spec.condition_id).best()
    ahead = exchange.market(spec.condition_id).recorded_u6(BUY, bid)
    order = rest(exchange, spec, UP, bid, 20, begin + 50, 1)
    exchange.set_level(spec.condition_id, BUY, bid, ahead - 50_000_000, begin + 55, "trade")
    assert order.matched_u6 == 0
    exchange.set_level(spec.condition_id, BUY, bid, 0, begin + 60, "trade")
    assert order.matched_u6 == 0, "exactly what stood ahead has traded"


def test_probe_steps_the_best_ask_and_counts():
    settings = Sim(tape="probe", probe_period_ms=250, start_before_roll_s=100)
    loaded = tape.load("probe", settings)
    exchange = exchange_for(loaded, settings)
    begin = start_ms(loaded)
    spec = loaded.markets(begin / 1000)[0]
    tops, marks = [], []

    def look(now_ms):
        tops.append(exchange.market(spec.condition_id).best())
        if not marks or marks[-1][0] != loaded.probes:
            marks.append((loaded.probes, loaded.probe_ms))

    play(loaded, exchange, begin, begin + 10_000, each=look)
    assert set(tops) == {(4_800, 5_200), (4_800, 5_000)}
    changes = sum(a != b for a, b in zip(tops, tops[1:]))
    assert loaded.probes == marks[-1][0] and abs(changes - loaded.probes) <= 1 and 38 <= loaded.probes <= 41
    gaps = np.diff([ms for count, ms in marks if count])
    assert np.abs(gaps - 250).max() <= STEP_MS
    # a bot at the best or inside never meets the recorded market
    assert max(bid for bid, _ in tops) < min(ask for _, ask in tops)


# ---- bad input ----

def test_unknown_tape_is_named():
    with pytest.raises(UserError, match="btc15n.*btc15m, chainlink-day, probe"):
        tape.load("btc15n", Sim())


@pytest.mark.parametrize("damage", ["missing", "truncated", "other"])
def test_a_damaged_bundled_file_is_named(tmp_path, damage):
    path = tmp_path / "btc15m.npz"
    if damage == "truncated":
        path.write_bytes(btc15m.FILE.read_bytes()[:20_000])
    elif damage == "other":
        np.savez(path, x=np.zeros(3))
    with pytest.raises(UserError, match=r"btc15m\.npz.*reinstall mmbot"):
        btc15m.load(path)


def test_chainlink_day_names_what_is_missing(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="sim.tape_dir"):
        tape.load("chainlink-day", Sim())
    with pytest.raises(UserError, match=r"chainlink_btcusd_1hz_2026-06-08\.parquet is missing"):
        tape.load("chainlink-day", Sim(tape_dir=tmp_path))
    (tmp_path / chainlink_day.PRINTS).write_bytes(b"PAR1 and then nothing")
    with pytest.raises(UserError, match="truncated or not this recording"):
        tape.load("chainlink-day", Sim(tape_dir=tmp_path))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match="pip install pyarrow"):
        tape.load("chainlink-day", Sim(tape_dir=tmp_path))


# ---- the Chainlink day, on a small recording made here ----

DAY_S = 1_780_876_800
WINNERS = ("UP", "DOWN", "UP", "DOWN")


@pytest.fixture
def day(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq
    rng = np.random.default_rng(7)
    seconds = [s for s in range(DAY_S, DAY_S + 1_301) if not DAY_S + 700 <= s < DAY_S + 760]      # an outage
    px = 63_000 * np.exp(np.cumsum(rng.normal(0, 7e-5, len(seconds))))
    values = [int(p * 1e12) * 10**6 for p in px]
    pq.write_table(pa.table({
        "feed_ts_ms": [s * 1000 for s in seconds], "value": [v / 1e18 for v in values],
        "full_accuracy_value": [str(v) for v in values], "server_ts_ms": [s * 1000 + 1_100 for s in seconds],
        "recv_ms": [s * 1000 + 1_376 for s in seconds]}), tmp_path / chainlink_day.PRINTS)
    starts = [DAY_S + 300 * k for k in range(-1, 6)]
    pq.write_table(pa.table({
        "slug": [f"btc-updown-5m-{s}" for s in starts], "start_sec": starts, "end_sec": [s + 300 for s in starts],
        "up_token": [str(10**70 + s) for s in starts], "down_token": [str(2 * 10**70 + s) for s in starts],
        "winner": ["UP", *WINNERS, "UP", "UP"], "condition_id": [f"0x{s:064x}" for s in starts], "min_size": [5] * len(starts),
    }), tmp_path / chainlink_day.MARKETS)
    return tmp_path, dict(zip(seconds, values))


def test_chainlink_day_replays_prints_windows_and_winners(day):
    directory, values = day
    settings = Sim(tape="chainlink-day", tape_dir=directory, start_before_roll_s=20)
    loaded = tape.load("chainlink-day", settings)
    begin = start_ms(loaded)
    assert begin == (DAY_S + 300 - 20) * 1000
    assert loaded.end_wall_ns == (DAY_S + 1_200) * 10**9
    recorder = Recorder()
    frames = []
    play(loaded, recorder, begin, (DAY_S + 1_300) * 1000, 50, lambda now: frames.extend(loaded.rtds(now)))
    resolved = {recorder.specs[c[2]].start_s: c[3] for c in recorder.calls if c[0] == "resolve"}
    assert resolved == {DAY_S + 300 * k: UP if w == "UP" else DOWN for k, w in enumerate(WINNERS)}
    spec = recorder.specs[f"0x{DAY_S + 300:064x}"]
    assert (spec.token_up, spec.duration_s, spec.slug) == (str(10**70 + DAY_S + 300), 300, f"btc-updown-5m-{DAY_S + 300}")
    window = [values[s] for s in range(DAY_S + 300 - 62, DAY_S + 300 - 2)]
    assert loaded.resolution(spec)[1] == oracle.decimal(sum(window) // 60)
    chainlink = [f for f in frames if b'"crypto_prices_chainlink"' in f]
    assert str(values[DAY_S + 400]).encode() in b"".join(chainlink)
    stamps = {json.loads(f)["payload"]["timestamp"] // 1000 for f in chainlink}
    assert not stamps & set(range(DAY_S + 700, DAY_S + 760)) and DAY_S + 760 in stamps


def test_chainlink_day_books_run_over_to_the_recorded_winner(day):
    directory, values = day
    source = chainlink_day.Source(Sim(tape_dir=directory))
    agree = 0
    for index in range(source.first_index, source.last_index + 1):
        window = source.build(index)
        start, end = window.spec.start_s, window.spec.end_s
        settled_up = values[end] >= values[start]
        mid = quotes.mids(window.rows[-1:])[0]
        agree += (mid > 0.5) == settled_up
        assert (window.rows[:, quotes.BID] < window.rows[:, quotes.ASK]).all() and not window.rows[:, quotes.RECORDED].any()
    assert agree == len(WINNERS)


def test_windows_of_both_protocols_follow_each_other():
    """A roll from the older protocol to the newer one: other tokens, named as the official client expects position ids to be."""
    from polymarket._internal.protocol import decode_v2_outcome_position_id, is_v2_position_id
    for version, expected in (("v1", {"v1"}), ("v2", {"v2"}), ("alternate", {"v1", "v2"})):
        played = tape.load("btc15m", Sim(version=version, frames_per_s=1))
        specs = played.markets(played.start_wall_ns / 1e9)
        assert {s.version for s in specs} == expected
        for spec in specs:
            assert [is_v2_position_id(t) for t in (spec.token_up, spec.token_down)] == [spec.version == "v2"] * 2
            if spec.version == "v2":
                up, down = (decode_v2_outcome_position_id(t) for t in (spec.token_up, spec.token_down))
                assert (up.outcome_index, down.outcome_index) == (0, 1)
    again = tape.load("btc15m", Sim(version="alternate", frames_per_s=1)).markets(played.start_wall_ns / 1e9)
    assert again == specs, "the same tokens every time"
