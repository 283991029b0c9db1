"""Variance, drift and the reference level: what they converge to and what they refuse."""

import math

import numpy as np
import pytest

from core_world import PX, quoting
from mmbot.signals import reference, volatility
from shm_layout import records as r

LN0 = math.log(PX)


def run(lns, step_ms=1000, half_life=300.0, var_ref=1e-8):
    vol = np.zeros(1, volatility.VOL)
    for i, ln in enumerate(lns):
        volatility.update(vol[0], 1_000_000 + i * step_ms, ln, var_ref, half_life, half_life, half_life, half_life)
    return vol[0]


class TestVariance:
    def test_converges_to_the_variance_of_the_path(self):
        lns = LN0 + np.random.default_rng(1).normal(0, 2e-4, 8000).cumsum()
        assert run(lns, half_life=2000.0)["var_s"] == pytest.approx(volatility.HORIZON_SCALE * 4e-8, rel=0.15)

    def test_smoothed_prints_are_not_taken_for_calm(self):
        """Prints that lag like Chainlink's: one-second returns show under 60 % of the variance, ours over 75 %."""
        path = np.random.default_rng(2).normal(0, 2e-4, 20_001).cumsum()
        smooth = LN0 + (path[1:] + path[:-1]) / 2
        naive = np.diff(smooth).var()
        assert naive < 0.6 * 4e-8
        assert run(smooth, half_life=4000.0)["var_s"] > 0.75 * 4e-8

    def test_short_steps_are_skipped(self):
        assert run([LN0, LN0 + 0.1], step_ms=volatility.SAMPLE_MS - 1)["samples"] == 0
        assert run([LN0, LN0 + 0.1], step_ms=volatility.SAMPLE_MS)["samples"] == 1

    def test_a_hole_is_not_a_return(self):
        vol = run([LN0, LN0 + 0.1], step_ms=volatility.MAX_GAP_MS + 1)
        assert vol["samples"] == 0 and vol["var_s"] == 1e-8 and vol["last_ln"] == LN0 + 0.1

    def test_one_half_life_halves_the_old_estimate(self):
        assert run([LN0, LN0], step_ms=10_000, half_life=10.0)["var_s"] == pytest.approx(0.5e-8)

    def test_floor_and_cold_start(self):
        vol = np.zeros(1, volatility.VOL)[0]
        assert volatility.variance(vol, 1e-8, 2e-9, 0.0) == 1e-8
        vol["last_ms"], vol["var_s"] = 1, 1e-12
        assert volatility.variance(vol, 1e-8, 2e-9, 0.0) == 2e-9

    def test_the_baseline_is_the_mean_of_a_minutes_returns_until_it_is_old(self):
        path = LN0 + np.random.default_rng(3).normal(0, 1e-4, 20_001).cumsum()
        vol = run(path, half_life=86_400.0)
        taken = path[60::60]
        naive = (1e-8 * volatility.PRIOR_S + (np.diff(np.concatenate([path[:1], taken])) ** 2).sum()) / (volatility.PRIOR_S + 60 * len(taken))
        assert vol["long_var_s"] == pytest.approx(naive, rel=0.1)
        assert vol["long_var_s"] == pytest.approx(1e-8, rel=0.15)

    def test_a_burst_moves_the_short_one_and_hardly_the_baseline(self):
        quiet = LN0 + np.random.default_rng(4).normal(0, 1e-4, 20_000).cumsum()
        wild = quiet[-1] + np.random.default_rng(5).normal(0, 5e-4, 120).cumsum()
        vol = np.zeros(1, volatility.VOL)
        for i, ln in enumerate(np.concatenate([quiet, wild])):
            volatility.update(vol[0], 1_000_000 + i * 1000, ln, 1e-8, 300.0, 120.0, 60.0, 86_400.0)
        short, base = volatility.sigma_short(vol[0], 1e-8, 0.0), volatility.sigma_long(vol[0], 1e-8, 0.0)
        assert short > 2.5 * base and base < 1.6e-4

    def test_the_variance_that_prices_weighs_both(self):
        vol = np.zeros(1, volatility.VOL)[0]
        vol["last_ms"], vol["var_s"], vol["long_var_s"] = 1, 4e-8, 2e-8
        assert volatility.variance(vol, 1e-8, 0.0, 0.25) == pytest.approx(3.5e-8)
        assert volatility.variance(vol, 1e-8, 0.0, 0.0) == 4e-8 and volatility.variance(vol, 1e-8, 0.0, 1.0) == 2e-8

    def test_drift_is_clamped_both_ways(self):
        rising = run(LN0 + np.arange(100) * 1e-5)
        assert rising["drift_s"] > 1e-6
        assert volatility.drift(rising, 1e-7) == 1e-7 and volatility.drift(rising, 0.0) == 0.0
        assert volatility.drift(run(LN0 - np.arange(100) * 1e-5), 1e-7) == -1e-7


def mid(ref, wall_ms, t_recv_ns, px):
    """A mid of the first venue."""
    return reference.on_mid(ref, 0, wall_ms, t_recv_ns, px, 10**9)


class TestReference:
    """Chainlink's level moved by Binance's return."""

    def ref(self):
        return np.zeros(1, reference.REF)[0]

    def test_binance_moves_the_level_by_its_return_and_its_basis_cancels(self):
        ref = self.ref()
        mid(ref, 9_900, 1, PX * 1.002)
        assert reference.on_spot_print(ref, 10_000, 1, PX, 0, 0.0)
        mid(ref, 11_000, 1, PX * 1.002 * 1.0005)
        assert reference.level_ln(ref, 0) == pytest.approx(LN0 + math.log(1.0005), abs=1e-12)
        assert reference.level_ln(ref, -1) == pytest.approx(LN0, abs=1e-12)

    def test_only_the_return_since_the_observation_counts(self):
        """The print arrives 1.3 s late; what Binance did before its stamp is in it already."""
        ref = self.ref()
        for ms, px in ((9_000, PX), (9_950, PX * 1.001), (10_600, PX * 1.002), (11_300, PX * 1.003)):
            mid(ref, ms, 1, px)
        reference.on_spot_print(ref, 10_000, 1, PX * 1.001, 0, 0.0)
        assert reference.level_ln(ref, 0) == pytest.approx(math.log(PX * 1.003), abs=1e-12)

    def test_a_print_shows_the_venue_of_a_while_before_its_stamp(self):
        ref = self.ref()
        for ms, px in ((8_900, PX), (9_950, PX * 1.001), (11_300, PX * 1.003)):
            mid(ref, ms, 1, px)
        reference.on_spot_print(ref, 10_000, 1, PX * 0.999, 1_000, 0.0)
        assert reference.level_ln(ref, 0) == pytest.approx(math.log(PX * 1.003 * 0.999), abs=1e-12)

    def test_the_basis_is_an_average_of_half_life(self):
        ref = self.ref()
        mid(ref, 10_000, 1, PX)
        reference.on_spot_print(ref, 10_000, 1, PX * 1.001, 0, 2.0)
        mid(ref, 12_000, 1, PX)
        reference.on_spot_print(ref, 12_000, 1, PX * 1.003, 0, 2.0)
        assert reference.level_ln(ref, 0) == pytest.approx(LN0 + 0.5 * (math.log(1.001) + math.log(1.003)), abs=1e-12)

    def test_without_a_mid_from_then_chainlink_stands_alone(self):
        ref = self.ref()
        mid(ref, 5_000, 1, PX * 0.99)
        reference.on_spot_print(ref, 10_000, 1, PX, 0, 0.0)
        mid(ref, 10_100, 1, PX * 1.01)
        assert reference.level_ln(ref, 0) == pytest.approx(LN0, abs=1e-12)

    def test_a_wild_binance_moves_little(self):
        ref = self.ref()
        mid(ref, 10_000, 1, PX)
        reference.on_spot_print(ref, 10_000, 1, PX, 0, 0.0)
        mid(ref, 10_100, 1, PX * 5)
        assert reference.level_ln(ref, 0) == pytest.approx(LN0 + reference.MAX_LEAD, abs=1e-12)

    @pytest.mark.parametrize("px", [0.0, -1.0, math.nan, math.inf])
    def test_no_price_is_no_news(self, px):
        ref = self.ref()
        assert not reference.on_spot_print(ref, 10_000, 7, px, 0, 0.0) and int(ref["spot_recv_ns"]) == 0
        assert not reference.on_twap_print(ref, 10_000, 7, px)
        assert not mid(ref, 10_000, 7, px) and int(ref["venue"]["recv_ns"][0]) == 0

    def test_an_old_print_does_not_make_the_feed_fresh(self):
        ref = self.ref()
        reference.on_spot_print(ref, 10_000, 1, PX, 0, 0.0)
        assert not reference.on_spot_print(ref, 10_000, 2, PX, 0, 0.0) and not reference.on_spot_print(ref, 9_000, 3, PX, 0, 0.0)
        assert int(ref["spot_recv_ns"]) == 1

    def test_fast_move_looks_back_one_second(self):
        ref = self.ref()
        mid(ref, 10_000, 1, PX)
        mid(ref, 11_050, 1, PX * 1.001)
        assert reference.fast_move(ref, 0, 11_050) == pytest.approx(math.log(1.001))
        assert reference.fast_move(ref, 0, 12_100) == 0.0

    def test_history_wraps(self):
        ref = self.ref()
        for i in range(1000):
            mid(ref, 10_000 + i * 100, 1, PX + i)
        assert reference.fast_move(ref, 0, 10_000 + 99_900) == pytest.approx(math.log((PX + 999) / (PX + 989)))


def test_a_print_from_the_future_cannot_silence_the_feed():
    world, slot = quoting()
    assert world.print(PX * 2, obs_s=world.wall_ns / 1e9 + 3600) == 0
    world.wait(1)
    world.lead()
    assert world.print(PX) and world.state["ref"]["spot_ms"][0] == world.wall_ns // 1_000_000


def test_spot_trades_show_life_but_move_nothing():
    world, slot = quoting()
    world.wait(1.4)
    level = float(world.state["ref"]["venue"]["ln"][0, 0])
    world.lead(PX * 3, kind=r.SK_TRADE)
    world.wait(0.2)
    world.timer()
    assert float(world.state["ref"]["venue"]["ln"][0, 0]) == level and "stale_spot" not in world.gates(slot)
