"""The fair value against simulation, and against what must hold exactly: monotone, continuous, tie is Up."""

import math

import numpy as np
import pytest

from mmbot.signals import average
from mmbot.signals.fair_value import TWAP_S, blend, p_not_negative, p_up_ahead, p_up_running

VAR = 1e-8
PATHS = 40_000
LN0 = math.log(84_000.0)


def closing_averages(seconds, rng, steps_per_s=2):
    """Paths of ln price from 0: (value at each step, step length in s)."""
    dt = 1 / steps_per_s
    return rng.normal(0, math.sqrt(VAR * dt), (PATHS, seconds * steps_per_s)).cumsum(axis=1), dt


@pytest.mark.parametrize("tau, moneyness", [(400, 0.0), (400, 0.001), (90, -0.0005), (61, 0.0004)])
def test_running_window_matches_simulation(tau, moneyness):
    path, dt = closing_averages(tau, np.random.default_rng(tau))
    closing = path[:, -int(TWAP_S / dt):].mean(axis=1)
    simulated = (closing + moneyness >= 0).mean()
    assert p_up_running(LN0 + moneyness, LN0, 0.0, 0.0, float(tau), VAR, 0.0) == pytest.approx(simulated, abs=0.01)


@pytest.mark.parametrize("tau, known, moneyness", [(30, 0.0002, -0.0001), (10, -0.0002, 0.0003), (45, 0.0, 0.0001)])
def test_inside_the_closing_average_matches_simulation(tau, known, moneyness):
    path, dt = closing_averages(tau, np.random.default_rng(tau))
    rest = moneyness + path.mean(axis=1)
    simulated = (((TWAP_S - tau) * known + tau * rest) / TWAP_S >= 0).mean()
    model = p_up_running(LN0 + moneyness, LN0, TWAP_S - tau, LN0 + known, float(tau), VAR, 0.0)
    assert model == pytest.approx(simulated, abs=0.01)


@pytest.mark.parametrize("ahead, known", [(40, 0.0006), (10, -0.0008), (60, 0.0), (1, 0.0005)])
def test_before_the_start_opening_and_closing_average_share_a_path(ahead, known):
    duration = 60
    path, dt = closing_averages(ahead + duration, np.random.default_rng(ahead))
    n = int(ahead / dt)
    opening = ((TWAP_S - ahead) * known + ahead * path[:, :n].mean(axis=1)) / TWAP_S
    closing = path[:, -int(TWAP_S / dt):].mean(axis=1)
    model = p_up_ahead(LN0, TWAP_S - ahead, LN0 + known, float(ahead), float(duration), VAR, 0.0)
    assert model == pytest.approx((closing >= opening).mean(), abs=0.01)


def test_a_plain_normal_on_the_spot_price_would_be_wrong():
    """The simulation tells the two models apart: without the averaging the variance is 18 % too large at 400 s, 4x at 20 s."""
    averaged = p_up_running(LN0 + 0.0002, LN0, 40.0, LN0 + 0.0002, 20.0, VAR, 0.0)
    assert averaged - p_not_negative(0.0002, VAR * 20) > 0.1


def test_far_ahead_is_a_coin_toss_and_drift_tilts_it():
    assert p_up_ahead(LN0, 0.0, 0.0, 600.0, 900.0, VAR, 0.0) == 0.5
    assert p_up_ahead(LN0, 0.0, 0.0, 600.0, 900.0, VAR, 1e-6) > 0.5


def test_probability_rises_with_the_level_and_falls_with_the_strike():
    levels = [p_up_running(LN0 + d, LN0, 0.0, 0.0, 300.0, VAR, 0.0) for d in np.linspace(-0.004, 0.004, 81)]
    assert all(a < b for a, b in zip(levels, levels[1:])) and 0 < levels[0] and levels[-1] < 1
    assert levels[0] == pytest.approx(1 - levels[-1])
    assert p_up_running(LN0, LN0 + 0.001, 0.0, 0.0, 300.0, VAR, 0.0) < 0.5


@pytest.mark.parametrize("moneyness", [-0.001, 0.0, 0.0007])
def test_nothing_jumps_when_the_averaging_begins(moneyness):
    before = p_up_running(LN0 + moneyness, LN0, 0.0, 0.0, TWAP_S, VAR, 0.0)
    after = p_up_running(LN0 + moneyness, LN0, 0.0, 0.0, TWAP_S - 1e-6, VAR, 0.0)
    assert before == pytest.approx(after, abs=1e-6)
    ahead = p_up_ahead(LN0, 0.0, 0.0, TWAP_S, 900.0, VAR, 1e-7)
    assert ahead == pytest.approx(p_up_ahead(LN0, 0.0, 0.0, TWAP_S + 1, 900.0, VAR, 1e-7), abs=1e-9)


@pytest.mark.parametrize("closing, up", [(0.0, 1.0), (1e-9, 1.0), (-1e-6, 0.0)])
def test_at_the_end_the_average_decides_and_a_tie_is_up(closing, up):
    assert p_up_running(LN0 - 0.01, LN0, TWAP_S, LN0 + closing, 0.0, VAR, 0.0) == up


def test_as_the_end_nears_a_lead_becomes_certain():
    p = [p_up_running(LN0, LN0, TWAP_S - tau, LN0 + 0.0001, tau, VAR, 0.0) for tau in (50.0, 30.0, 10.0, 1.0)]
    assert all(a < b for a, b in zip(p, p[1:])) and p[-1] > 0.9999


def test_blend_weighs_and_stays_inside():
    assert blend(0.8, 0.4, 0.25) == pytest.approx(0.5)
    assert blend(1.0, 0.9999, 1.0) == 0.999 and blend(0.0, 0.0, 0.5) == 0.001


class TestKnownPart:
    def fill(self, seconds, start=1000):
        avg = np.zeros(1, average.AVG)
        for s in seconds:
            average.push(avg[0], start + s, LN0 + s * 1e-6)
        return avg[0]

    def test_mean_of_what_was_printed(self):
        avg = self.fill(range(100))
        assert average.known_part(avg, 1040, 1100, 0.0) == (59.0, pytest.approx(LN0 + 70e-6, abs=1e-12))
        assert average.known_part(avg, 1020, 1080, 0.0) == (60.0, pytest.approx(LN0 + 50.5e-6, abs=1e-12))

    def test_missing_seconds_are_interpolated(self):
        assert average.known_part(self.fill([*range(50), *range(55, 100)]), 1020, 1080, 0.0)[1] == pytest.approx(LN0 + 50.5e-6, abs=1e-12)

    def test_a_late_start_is_filled_with_the_twap(self):
        seconds, mean = average.known_part(self.fill(range(30)), 980, 1040, LN0 + 1.0)
        assert seconds == 49.0
        assert mean == pytest.approx(LN0 + (20 * 1.0 + sum(s * 1e-6 for s in range(1, 30))) / 49, abs=1e-9)

    def test_nothing_known(self):
        assert average.known_part(self.fill([]), 0, 60, 0.0) == (0.0, 0.0)
        assert average.known_part(self.fill(range(10)), 1009, 1069, 0.0) == (0.0, 0.0)

    def test_a_long_hole_forgets_and_old_prints_are_ignored(self):
        avg = self.fill([*range(10), 100, 50])
        assert int(avg["first_s"]) == int(avg["last_s"]) == 1100

    def test_a_long_run_keeps_only_what_the_ring_holds(self):
        avg = self.fill(range(1000))
        assert int(avg["first_s"]) == 1999 - average.SECONDS + 1
        assert average.known_part(avg, 1930, 1990, 0.0)[1] == pytest.approx(LN0 + 960.5e-6, abs=1e-9)
