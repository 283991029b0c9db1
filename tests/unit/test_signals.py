"""Every signal by itself: published numbers, closed forms, and bounds that hold for anything."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmbot.inventory.positions import Position
from mmbot.signals import (
    anchors, dislocation, ema, fills, lead_lag, liquidity, markout, micro_price, momentum, path, phase, regime, rolling, spike, toxicity,
)
from shm_layout import records as r

SECOND = 1_000_000_000
RNG = np.random.default_rng(5)
LN0 = math.log(84_000.0)


def one(dtype):
    return np.zeros(1, dtype)[0]


def walked(lns, first=1000):
    """A path with one push a step."""
    p = one(path.PATH)
    for i, ln in enumerate(lns):
        path.push(p, first + i, ln)
    return p


class TestPath:
    def test_a_cell_holds_what_held_at_its_time(self):
        p = walked([1.0, 2.0])
        path.push(p, 1004, 3.0)
        assert [path.at(p, s) for s in (999, 1000, 1001, 1002, 1004, 1005)] == [(0, 0.0), (1, 1.0), (1, 2.0), (1, 3.0), (1, 3.0), (0, 0.0)]

    def test_memory_is_a_ring(self):
        p = walked(np.arange(path.CELLS + 10.0))
        assert path.at(p, 1009)[0] == 0 and path.at(p, 1010) == (1, 10.0)

    @pytest.mark.parametrize("step", [1001 + path.MAX_HOLE + 1, 1001 - path.MAX_HOLE - 1])
    def test_a_hole_or_a_clock_set_back_starts_anew(self, step):
        p = walked([1.0, 2.0])
        path.push(p, step, 3.0)
        assert path.at(p, 1001)[0] == 0 and path.at(p, step) == (1, 3.0)

    def test_a_late_step_changes_nothing(self):
        p = walked([1.0, 2.0, 3.0])
        path.push(p, 1001, 9.0)
        assert path.at(p, 1001) == (1, 2.0) and path.at(p, 1002) == (1, 3.0)


class TestAnchors:
    def test_return_over_a_minute(self):
        p = walked(LN0 + 1e-6 * np.arange(700))
        known, ret = anchors.since(p, LN0 + 0.002, 1_690 * 100, 60.0)
        assert known and ret == pytest.approx(0.002 - 90e-6, abs=1e-15)

    def test_the_past_before_the_start_is_not_known(self):
        assert anchors.since(walked([LN0] * 100), LN0, 1_099 * 100, 60.0) == (0, 0.0)

    def test_window_against_its_strike_or_its_start(self):
        p = walked(LN0 + 1e-6 * np.arange(100))
        assert anchors.window(p, LN0 + 0.003, 102, True, LN0 + 0.001) == (1, pytest.approx(0.002))
        assert anchors.window(p, LN0 + 0.003, 102, False, 0.0) == (1, pytest.approx(0.003 - 20e-6))
        assert anchors.window(p, LN0, 99, False, 0.0) == (0, 0.0)


class TestEma:
    def test_step_response(self):
        """A step of the price: after t the slow average has gone 1 - exp(-t / time constant) of the way."""
        e = one(ema.EMA)
        ema.update(e, 0.0, 100.0, 10.0, 60.0)
        ema.update(e, 30.0, 110.0, 10.0, 60.0)
        assert e["fast"] == pytest.approx(100 + 10 * (1 - math.exp(-3))) and e["slow"] == pytest.approx(100 + 10 * (1 - math.exp(-0.5)))
        assert ema.gap(e) == pytest.approx(math.log(e["fast"] / e["slow"])) and ema.gap(e) > 0

    def test_by_elapsed_time_not_by_samples(self):
        a, b = one(ema.EMA), one(ema.EMA)
        for e in (a, b):
            ema.update(e, 0.0, 100.0, 10.0, 60.0)
        ema.update(a, 7.0, 103.0, 10.0, 60.0)
        for _ in range(70):
            ema.update(b, 0.1, 103.0, 10.0, 60.0)
        assert a["fast"] == pytest.approx(b["fast"], rel=1e-12) and a["slow"] == pytest.approx(b["slow"], rel=1e-12)

    def test_known_after_a_time_constant_and_anew_after_a_silence(self):
        e = one(ema.EMA)
        assert ema.gap(e) == 0.0
        for _ in range(5):
            ema.update(e, 15.0, 100.0, 10.0, 60.0)
        assert ema.known(e, 60.0)
        ema.update(e, ema.MAX_GAP_S + 1, 200.0, 10.0, 60.0)
        assert ema.gap(e) == 0.0 and not ema.known(e, 60.0)


class TestRolling:
    def test_is_numpys_of_one_second_returns(self):
        lns = LN0 + RNG.normal(0, 1e-4, 1001).cumsum()
        p = walked(lns)
        want = np.diff(lns[-601::10]).std(ddof=1)
        assert rolling.std(p, 60.0) == (1, pytest.approx(want, rel=1e-9))

    def test_nothing_before_the_window_is_full(self):
        assert rolling.std(walked([LN0] * 600), 60.0) == (0, 0.0) and rolling.std(walked([LN0] * 601), 60.0) == (1, 0.0)
        assert rolling.std(one(path.PATH), 60.0) == (0, 0.0)


class TestMomentum:
    @pytest.mark.parametrize("ret, want", [(0.0, 0.0), (0.00025, 0.5), (-0.0001, -0.2), (0.01, 1.0), (-0.01, -1.0)])
    def test_scaled_and_clipped(self, ret, want):
        assert momentum.momentum(ret, 0.0005) == pytest.approx(want)


class TestRegime:
    def ratio(self, returns):
        return regime.variance_ratio(walked(np.repeat(LN0 + np.cumsum(returns), 10)))

    def test_known_variance_ratios(self):
        assert self.ratio(np.full(320, 1e-4)) == pytest.approx(10.0)                             # a straight line: 10 s returns are 10 times 1 s returns
        assert self.ratio(np.resize([1e-4, -1e-4], 320)) == pytest.approx(0.0, abs=1e-9)         # back and forth: even returns are 0
        assert self.ratio(np.resize([1e-4] * 10 + [-1e-4] * 10, 321)) > 3.0

    def test_a_random_walk_is_about_one(self):
        ratios = [self.ratio(RNG.normal(0, 1e-4, 310)) for _ in range(60)]
        assert np.mean(ratios) == pytest.approx(1.0, abs=0.1) and np.std(ratios) < 0.35

    def test_first_order_autocorrelation(self):
        """AR(1) with rho: VR(q) tends to 1 + 2 sum (1 - k/q) rho^k (Lo and MacKinlay)."""
        rho, ratios = 0.4, []
        want = 1 + 2 * sum((1 - k / 10) * rho ** k for k in range(1, 10))
        for _ in range(40):
            x, noise = np.zeros(320), RNG.normal(0, 1e-4, 320)
            for i in range(1, 320):
                x[i] = rho * x[i - 1] + noise[i]
            ratios.append(self.ratio(x))
        assert np.mean(ratios) == pytest.approx(want, rel=0.12)

    def test_too_short_or_still_is_not_known(self):
        assert self.ratio(np.full(59, 1e-4)) == 0.0 and self.ratio(np.zeros(320)) == 0.0

    @pytest.mark.parametrize("ratio, short, long, want", [
        (1.0, 0, 0, "unknown"), (1.6, 0, 0, "trending"), (0.5, 0, 0, "mean_reverting"), (0.0, 0, 0, "unknown"), (1.6, 2.1e-4, 1e-4, "volatile"),
        (1.0, 1.9e-4, 1e-4, "unknown")])
    def test_judgement(self, ratio, short, long, want):
        assert r.REGIMES[regime.judge(ratio, short, long, 1.5, 0.67, 2.0)] == want


class TestPhase:
    @pytest.mark.parametrize("elapsed, tau, want", [
        (-0.01, 909, "ahead"), (0.0, 900, "open"), (0.199, 721, "open"), (0.2, 720, "mid"), (0.749, 226, "mid"), (0.75, 225, "late"), (0.93, 61, "late"),
        (0.9334, 60, "final"), (1.1, -90, "final")])
    def test_where_a_window_is(self, elapsed, tau, want):
        assert r.PHASES[phase.phase(elapsed, tau, 0.2, 0.75, 60.0)] == want


class TestMicroPrice:
    @pytest.mark.parametrize("bid_size, ask_size, want", [(100, 100, 0.5100), (1000, 100, 0.5182)])
    def test_the_published_example(self, bid_size, ask_size, want):
        assert round(micro_price.micro(0.50, 0.52, bid_size, ask_size), 4) == want

    def test_without_sizes_it_is_the_mid(self):
        assert micro_price.micro(0.50, 0.52, 0, 0) == 0.51

    @given(bid=st.integers(1, 9998), width=st.integers(1, 9998), a_u6=st.integers(0, 10**15), b_u6=st.integers(0, 10**15))
    def test_between_bid_and_ask(self, bid, width, a_u6, b_u6):
        bid, ask = bid * 1e-4, min(bid + width, 9999) * 1e-4
        assert bid - 1e-12 <= micro_price.micro(bid, ask, a_u6 * 1e-6, b_u6 * 1e-6) <= ask + 1e-12

    def test_the_filter_pauses_from_the_last_divergence(self):
        j = one(micro_price.JUMP)
        for t, micro, until in ((0, 0.5128, 5), (2, 0.5126, 7), (3, 0.5101, 7)):         # 0.55 %, 0.51 %, 0.02 % of 0.51
            micro_price.watch(j, micro, 0.51, 0.005, 5, t)
            assert j["until_ns"] == until
        assert j["size"] == pytest.approx(0.0026 / 0.51)
        micro_price.watch(j, 0.9, 0.51, 0.005, 0, 4)
        assert j["until_ns"] == 0, "a pause of 0 switches it off"


class TestSpike:
    @pytest.mark.parametrize("move, short, long, spikes", [
        (0.0021, 0, 0, True), (0.0019, 0, 0, False), (0, 2.1e-4, 1e-4, True), (0, 1.9e-4, 1e-4, False), (0, 1.0, 0.0, False)])
    def test_two_tests_each_with_its_threshold(self, move, short, long, spikes):
        s = one(spike.SPIKE)
        spike.watch(s, spike.size(move, short, long, 0.002, 2.0), 5 * SECOND, 100)
        assert (s["until_ns"] == 100 + 5 * SECOND) == spikes

    def test_a_pause_of_zero_switches_it_off(self):
        s = one(spike.SPIKE)
        spike.watch(s, 2.0, 5, 1)
        spike.watch(s, 2.0, 0, 2)
        assert s["until_ns"] == 0


class TestVpin:
    def run(self, trades, bucket=100, buckets=4):
        v = one(toxicity.VPIN)
        for i, (side, size) in enumerate(trades):
            toxicity.trade(v, side, size, i + 1, bucket, buckets)
        return v

    def test_known_buckets(self):
        """Four buckets of 100: 100:0, 50:50, 20:80, 75:25 are off by 100, 0, 60, 50: 210 of 400."""
        v = self.run([(r.BUY, 100), (r.BUY, 50), (r.SELL, 50), (r.SELL, 80), (r.BUY, 20), (r.BUY, 75), (r.SELL, 25)])
        assert toxicity.toxicity(v) == pytest.approx(210 / 400)
        for i, side in enumerate((r.BUY, r.SELL)):
            toxicity.trade(v, side, 50, 100 + i, 100, 4)
        assert toxicity.toxicity(v) == pytest.approx(110 / 400), "the oldest bucket goes"

    def test_nothing_before_all_buckets_were_filled(self):
        assert toxicity.toxicity(self.run([(r.BUY, 399)])) == 0.0 and toxicity.toxicity(self.run([(r.BUY, 400)])) == 1.0

    def test_the_same_record_twice_counts_once(self):
        v = self.run([(r.BUY, 50)])
        toxicity.trade(v, r.BUY, 50, 1, 100, 4)
        assert v["bought_u6"] == 50 and v["done"] == 0

    def test_other_buckets_start_anew(self):
        v = self.run([(r.BUY, 400)])
        toxicity.trade(v, r.BUY, 10, 99, 200, 4)
        assert toxicity.toxicity(v) == 0.0 and v["bought_u6"] == 10

    @settings(deadline=None, max_examples=60)
    @given(trades=st.lists(st.tuples(st.sampled_from([r.BUY, r.SELL]), st.integers(1, 10**12)), max_size=60), bucket=st.integers(1, 10**9),
           buckets=st.integers(2, 64))
    def test_bounded_and_exact_whatever_trades(self, trades, bucket, buckets):
        v = self.run(trades, bucket, buckets)
        assert 0.0 <= toxicity.toxicity(v) <= 1.0
        assert v["total_u6"] == v["off_u6"][:min(int(v["done"]), buckets)].sum() and 0 <= v["bought_u6"] + v["sold_u6"] < max(bucket, 1)


def filled(*entries):
    """A ring of fills: (t in s, side, price, shares)."""
    f = one(fills.FILLS)
    for t, side, px, shares in entries:
        fills.push(f, r.UP, side * round(shares * 1e6), px, round(t * SECOND))
    return f


class TestToxicFills:
    def judge(self, *entries, run=3):
        x = one(toxicity.TOXIC)
        toxicity.on_fills(x, filled(*[(t, side, 0.5, 10) for t, side in entries]), run, 10 * SECOND, 300 * SECOND)
        return x["until_ns"] / SECOND

    def test_three_in_a_row_within_ten_seconds(self):
        assert self.judge((0, 1), (2, 1), (4, 1)) == 304
        assert self.judge((0, -1), (2, -1), (10, -1)) == 310

    @pytest.mark.parametrize("entries", [[(0, 1), (2, 1)], [(0, 1), (2, -1), (4, 1)], [(0, 1), (5, 1), (10.1, 1)], []])
    def test_too_few_mixed_or_slow(self, entries):
        assert self.judge(*entries) == 0

    def test_a_new_trigger_moves_the_deadline_only(self):
        assert self.judge((0, 1), (2, 1), (4, 1), (6, 1)) == 306

    def test_judged_one_by_one_or_together_is_the_same(self):
        sides = RNG.choice([-1, 1], 400, p=[0.3, 0.7])
        times = np.cumsum(RNG.exponential(3.0, 400))
        x, f = one(toxicity.TOXIC), one(fills.FILLS)
        for t, side in zip(times, sides, strict=True):
            fills.push(f, r.UP, int(side) * 10_000_000, 0.5, int(t * SECOND))
            toxicity.on_fills(x, f, 3, 10 * SECOND, 300 * SECOND)
        want = max(times[i] for i in range(2, 400) if len(set(sides[i - 2:i + 1])) == 1 and times[i] - times[i - 2] <= 10)
        assert x["until_ns"] == pytest.approx((want + 300) * SECOND, abs=2) and x["judged"] == 400


class TestFills:
    def position(self, up=0, down=0, cost_up=0, cost_down=0, realized=0, failed_up=0, fills=(0, 0)):
        p = one(r.POSITION)
        p["qty_up_u6"], p["qty_down_u6"], p["cost_up_u6"], p["cost_down_u6"] = up, down, cost_up, cost_down
        p["realized_u6"], p["failed_up_u6"], (p["fills_up"], p["fills_down"]) = realized, failed_up, fills
        return p

    def read(self, *positions):
        f = one(fills.FILLS)
        fills.begin(f, positions[0], 1)
        for i, p in enumerate(positions[1:]):
            fills.take(f, p, i + 1)
        return [(int(x["side"]), int(x["token"]), round(float(x["px"]), 6), float(x["shares"])) for x in f["of"][:int(f["n"])]]

    def test_each_kind_in_up_terms(self):
        M = 1_000_000
        assert self.read(self.position(), self.position(up=10 * M, cost_up=4 * M, fills=(1, 0))) == [(1, r.UP, 0.4, 10)]
        assert self.read(self.position(), self.position(down=10 * M, cost_down=4 * M, fills=(0, 1))) == [(-1, r.DOWN, 0.6, 10)]
        assert self.read(self.position(10 * M, cost_up=4 * M), self.position(5 * M, cost_up=2 * M, realized=M, fills=(1, 0))) == [(-1, r.UP, 0.6, 5)]
        assert self.read(self.position(down=10 * M, cost_down=4 * M), self.position(down=5 * M, cost_down=2 * M, realized=M, fills=(0, 1))) == [(1, r.DOWN, 0.4, 5)]
        both = self.read(self.position(), self.position(10 * M, 20 * M, 4 * M, 10 * M, fills=(1, 1)))
        assert both == [(1, r.UP, 0.4, 10), (-1, r.DOWN, 0.5, 20)]

    def test_a_buy_after_a_sale_has_its_own_price_although_cost_is_averaged(self):
        """Bought 10 at 0.40, sold 5 at 0.60, bought 10 at 0.50: 15 left at the average of 0.45."""
        p, steps = Position(1), []
        for n, (bought, paid, sold, got) in enumerate(((10, 4, 0, 0), (10, 4, 5, 3), (20, 9, 5, 3)), 1):
            p.bought_u6[0], p.paid_u6[0], p.sold_u6[0], p.got_u6[0] = (v * 1_000_000 for v in (bought, paid, sold, got))
            steps.append(self.position(up=p.qty_u6[0], cost_up=p.cost_u6[0], realized=p.realized_u6, fills=(n, 0)))
        assert self.read(self.position(), *steps) == [(1, r.UP, 0.4, 10), (-1, r.UP, 0.6, 5), (1, r.UP, 0.5, 10)]

    def test_fills_of_one_account_are_as_many_as_it_counts(self):
        M = 1_000_000
        start = self.position(10 * M, cost_up=4 * M, fills=(1, 0))
        assert self.read(start, self.position(40 * M, cost_up=19 * M, fills=(4, 0))) == [(1, r.UP, 0.5, 10)] * 3
        assert self.read(start, self.position(20 * M, 9 * M, 8 * M, 3 * M, fills=(3, 3))) == [(1, r.UP, 0.4, 5)] * 2 + [(-1, r.DOWN, round(2 / 3, 6), 3)] * 3
        sold = self.read(self.position(30 * M, cost_up=12 * M, fills=(1, 0)), self.position(20 * M, cost_up=8 * M, realized=M, fills=(3, 0)))
        assert sold == [(-1, r.UP, 0.5, 5)] * 2
        odd = self.read(self.position(), self.position(up=10, cost_up=5, fills=(3, 0)))
        assert sum(x[3] for x in odd) == pytest.approx(10e-6) and len(odd) == 3, "no share is lost"
        assert len(self.read(self.position(), self.position(up=10 * M, cost_up=5 * M, fills=(5000, 0)))) == fills.FILLS_N

    def test_a_correction_of_terms_is_no_fill(self):
        assert self.read(self.position(10_000_000, cost_up=4_000_000, fills=(2, 0)), self.position(9_000_000, cost_up=3_600_000, fills=(2, 0))) == []

    def test_merges_failed_trades_and_news_of_nothing_are_no_fills(self):
        M = 1_000_000
        held = self.position(10 * M, 10 * M, 4 * M, 5 * M)
        assert self.read(held, self.position(3 * M, 3 * M, 1 * M, 2 * M, realized=1)) == []
        assert self.read(held, self.position(5 * M, 10 * M, 2 * M, 5 * M, failed_up=5 * M, fills=(-1, 0))) == []
        assert self.read(held, held) == []

    def test_what_is_held_at_the_start_was_no_fill(self):
        assert self.read(self.position(10_000_000, cost_up=4_000_000)) == []


class TestMarkout:
    def test_a_fill_against_the_mid_at_each_horizon(self):
        f, m, overall = filled((0, 1, 0.50, 10), (0, -1, 0.60, 30)), one(markout.MARKOUT), one(markout.MARKOUT)
        for t, mid in ((0.5, 0.9), (1.0, 0.52), (3.0, 0.9), (5.0, 0.58), (30.0, 0.50), (60.0, 0.40), (299, 0.9), (300, 0.7)):
            markout.look(m, overall, f, mid, round(t * SECOND))
        want = [(10 * (mid - 0.5) + 30 * (0.6 - mid)) / 40 for mid in (0.52, 0.58, 0.50, 0.40, 0.7)]
        assert [markout.mean(m, h) for h in range(markout.HORIZONS)] == pytest.approx(want)
        assert list(m["fills"]) == [2] * 5 and list(m["lost"]) == [0] * 5 and (overall["dollars"] == m["dollars"]).all()

    def test_without_a_mid_it_waits_a_second_then_gives_up(self):
        f, m, overall = filled((0, 1, 0.50, 10), (1, 1, 0.50, 10)), one(markout.MARKOUT), one(markout.MARKOUT)
        markout.look(m, overall, f, 0.0, round(1.5 * SECOND))
        markout.look(m, overall, f, 0.6, 2 * SECOND)
        assert m["fills"][0] == 2 and m["lost"][0] == 0
        markout.look(m, overall, f, 0.0, round(5.5 * SECOND))
        markout.look(m, overall, f, 0.6, round(6.5 * SECOND))
        assert m["fills"][1] == 1 and m["lost"][1] == 1 and markout.mean(m, 1) == pytest.approx(0.1)

    def test_a_ring_that_overflows_loses_the_oldest(self):
        f, m, overall = filled(*[(0, 1, 0.5, 1)] * (fills.FILLS_N + 7)), one(markout.MARKOUT), one(markout.MARKOUT)
        markout.look(m, overall, f, 0.6, SECOND)
        assert m["lost"][0] == 7 and m["fills"][0] == fills.FILLS_N

    def test_nothing_judged_is_zero(self):
        assert markout.mean(one(markout.MARKOUT), 0) == 0.0


class TestLiquidity:
    def test_the_thinner_side_counts(self):
        """Bids: 300 shares down to 2 cents below mid, 150 a cent; asks: 100 up to 4 cents above, 25 a cent."""
        assert liquidity.liquidity(0.50, 300.0, 100.0, 0.48, 0.54) == pytest.approx(25.0)
        assert liquidity.liquidity(0.50, 0.0, 100.0, 0.48, 0.54) == liquidity.liquidity(0.5, 1.0, 1.0, 0.5, 0.5) == 0.0


class TestDislocation:
    def test_logit_linear(self):
        z = 0.1 + 800 * 0.001 - 200 * 0.002 + 1000 * 0.0001 - 500 * 0.0002
        assert dislocation.expected(0.1, 800.0, -200.0, 1000.0, -500.0, 0.001, 0.002, 0.0001, 0.0002) == pytest.approx(1 / (1 + math.exp(-z)))

    def test_without_coefficients_nothing_is_expected(self):
        assert dislocation.expected(0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0) == 0.0

    @given(z=st.floats(-1e300, 1e300))
    def test_a_probability_whatever_the_logit(self, z):
        assert 0.0 < dislocation.sigmoid(z) < 1.0


def lead_world(delays_ms, steps=1500, noise=0.0, seed=3, silent=()):
    """Sources that show one random walk, each so much later than the first; Chainlink once a second only. Returns LEAD_LAG after `find`."""
    rng = np.random.default_rng(seed)
    walk = LN0 + rng.normal(0, 3e-5, steps + 100).cumsum()
    ll = one(lead_lag.LEAD_LAG)
    for k in range(60, steps):
        for source, delay in delays_ms.items():
            at = k - delay // 100
            if source == lead_lag.CHAINLINK:
                at = k - k % 10 - delay // 100
            lead_lag.see(ll, source, source not in silent, walk[at] + noise * rng.normal())
        lead_lag.push(ll, 10_000 + k)
    lead_lag.find(ll)
    return ll


class TestLeadLag:
    def test_known_delays_come_out(self):
        ll = lead_world({0: 0, 1: 300, 2: 800, 3: 2000})
        assert ll["leader"] == 0 and ll["lead_ms"][0, 1] == 300 and ll["lead_ms"][1, 2] == 500 and ll["lead_ms"][2, 0] == -800
        assert 2000 <= ll["lead"] <= 3000 and ll["confidence"] > 0.6

    def test_another_venue_may_lead(self):
        ll = lead_world({0: 400, 1: 0, 3: 2000}, noise=1e-6)
        assert ll["leader"] == 1 and ll["lead_ms"][1, 0] == 400

    def test_chainlink_may_lead(self):
        ll = lead_world({0: 1500, 1: 1500, 3: 0})
        assert ll["leader"] == lead_lag.CHAINLINK and 500 <= ll["lead"] <= 1500 and ll["confidence"] > 0.6

    def test_what_is_silent_or_unrelated_or_young_is_no_knowledge(self):
        assert lead_world({0: 0, 3: 2000}, silent=(0,))["confidence"] == 0.0
        assert lead_world({0: 0, 3: 2000}, steps=300)["confidence"] == 0.0
        assert lead_world({0: 0, 1: 300}, noise=3e-3)["confidence"] == 0.0
        assert lead_world({})["confidence"] == 0.0

    def test_a_venue_that_comes_back_brings_no_jump(self):
        ll = one(lead_lag.LEAD_LAG)
        for k in range(400):
            lead_lag.see(ll, 0, not 100 <= k < 200, LN0 if k < 100 else LN0 + 0.1)
            lead_lag.push(ll, 1000 + k)
        assert ll["var"][0] == 0.0

    @pytest.mark.parametrize("jump", [lead_lag.MAX_HOLE + 1, -lead_lag.MAX_HOLE - 1, 10**9])
    def test_a_hole_is_not_walked_through(self, jump):
        ll = lead_world({0: 0, 3: 2000})
        lead_lag.see(ll, 0, 1, LN0 + 1.0)
        lead_lag.push(ll, int(ll["step"]) + jump)
        lead_lag.find(ll)
        assert np.isfinite(ll["cross"]).all() and (abs(ll["corr"]) <= 1).all() and ll["var"][0] < 1e-7

    @pytest.mark.skipif(not (Path(os.environ.get("MMBOT_CAPTURES") or "/nonexistent") / "spot").is_dir(), reason="no recordings: set MMBOT_CAPTURES")
    @pytest.mark.parametrize("asset", ["BTC", "ETH"])
    def test_binance_leads_relayed_chainlink_on_a_recording(self, asset):
        """Five minutes of one machine hearing Binance itself and Chainlink through the relay."""
        import pyarrow.parquet as pq
        table = pq.read_table(Path(os.environ["MMBOT_CAPTURES"]) / "spot" / "feed_latency_chainlink_rtds_vs_binance_20260427.parquet")
        source = {"binance_direct": 0, "chainlink_rtds": lead_lag.CHAINLINK}
        rows = sorted((row["recv_ts_ms"], source[row["source"]], math.log(row["price"])) for row in table.to_pylist()
                      if row["asset"] == asset and row["source"] in source)
        ll, at, leads = one(lead_lag.LEAD_LAG), 0, []
        for step in range(rows[0][0] // 100 + 1, rows[-1][0] // 100):
            while rows[at][0] < step * 100:
                lead_lag.see(ll, rows[at][1], 1, rows[at][2])
                at += 1
            lead_lag.push(ll, step)
            if step % 10 == 0:
                lead_lag.find(ll)
                if ll["steps"] > 600:
                    leads.append((int(ll["leader"]), float(ll["lead"]), float(ll["confidence"])))
        assert {leader for leader, _, c in leads if c > 0} == {0}
        assert np.mean([2000 <= lead <= 3500 for _, lead, _ in leads]) > 0.95 and np.median([c for *_, c in leads]) > 0.5
