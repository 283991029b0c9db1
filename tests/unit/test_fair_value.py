"""The fair value against simulation, and against what must hold exactly: monotone, continuous, tie is Up."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mmbot.config import Strategy
from mmbot.params import params_block
from mmbot.signals import average
from mmbot.signals.fair_value import TWAP_S, YEAR_S, ahead, blend, greeks, p_not_negative, p_up_ahead, p_up_running, price, running, student, tail
from shm_layout import records as r

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
    assert blend(0.8, 0.4, 0.25, 0) == pytest.approx(0.5)
    assert blend(1.0, 0.9999, 1.0, 0) == 0.999 and blend(0.0, 0.001, 0.5, 0) == 0.001
    assert blend(0.8, 0.0, 0.25, 0) == 0.8, "no market: the model alone"


def test_blend_by_logits():
    logit = 0.25 * math.log(4) + 0.75 * math.log(0.4 / 0.6)
    assert blend(0.8, 0.4, 0.25, 1) == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-15)
    assert blend(0.37, 0.37, 0.6, 1) == pytest.approx(0.37, abs=1e-15)
    assert blend(1.0, 1.0, 0.5, 1) == pytest.approx(0.999, abs=1e-12) and blend(0.0, 0.9, 0.0, 1) == pytest.approx(0.9)


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
        assert average.known_part(self.fill([*range(50), *range(55, 100)]), 1020, 1080, 0.0)[1] == pytest.approx(LN0 + 50.5e-6, abs=1e-10)

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


class TestTails:
    @pytest.mark.parametrize("dof", range(1, 31))
    def test_student_is_scipys(self, dof):
        for t in (-60.0, -9.0, -2.5, -1.0, -0.1, 0.0, 0.3, 1.0, 1.96, 4.0, 30.0):
            below, density = student(t, dof)
            assert below == pytest.approx(stats.t.cdf(t, dof), abs=4e-15) and density == pytest.approx(stats.t.pdf(t, dof), rel=1e-12)

    @pytest.mark.parametrize("dof, t, above", [(1, 12.706, 0.025), (4, 2.776, 0.025), (5, 4.032, 0.005), (10, 1.812, 0.05), (30, 2.457, 0.01)])
    def test_student_is_that_of_the_tables(self, dof, t, above):
        assert 1 - student(t, dof)[0] == pytest.approx(above, rel=1e-3)

    @pytest.mark.parametrize("dof", [0, 3, 4, 6, 11, 30])
    def test_mean_0_variance_1_and_the_slope_is_that_of_the_density(self, dof):
        z = np.linspace(-2000, 2000, 4_000_001) if dof in (3, 4) else np.linspace(-60, 60, 240_001)
        density = stats.norm.pdf(z) if dof == 0 else stats.t.pdf(z * math.sqrt(dof / (dof - 2)), dof) * math.sqrt(dof / (dof - 2))
        assert np.trapezoid(z * z * density, z) == pytest.approx(1.0, abs=2e-3)
        for x in (-2.0, -0.4, 0.0, 1.3):
            below, at, slope = tail(x, dof)
            assert at == pytest.approx(np.interp(x, z, density), rel=1e-5)
            assert slope == pytest.approx((tail(x + 1e-5, dof)[1] - tail(x - 1e-5, dof)[1]) / 2e-5, abs=1e-8)
            assert at == pytest.approx((tail(x + 1e-5, dof)[0] - tail(x - 1e-5, dof)[0]) / 2e-5, rel=1e-7)

    def test_fat_tails_doubt_what_is_nearly_certain(self):
        assert tail(3.0, 0)[0] > tail(3.0, 6)[0] > tail(3.0, 3)[0] and tail(0.5, 6)[0] > tail(0.5, 0)[0]


class TestGreeks:
    STRIKE = LN0 - 0.0002

    def p_at(self, level, var_s=VAR, tau=300.0, known=0.0, dof=6):
        mean, var, weight = running(level, self.STRIKE, known, LN0 + 1e-4, tau, var_s, 0.0)
        return greeks(mean, var, var, weight, var_s, dof)

    @pytest.mark.parametrize("tau, known", [(300.0, 0.0), (40.0, 20.0)])
    @pytest.mark.parametrize("dof", [0, 6])
    def test_each_is_the_change_of_the_price(self, tau, known, dof):
        p, delta, gamma, theta, vega = self.p_at(LN0, tau=tau, known=known, dof=dof)
        h = 1e-7
        up, down = self.p_at(LN0 + h, tau=tau, known=known, dof=dof), self.p_at(LN0 - h, tau=tau, known=known, dof=dof)
        assert delta == pytest.approx((up[0] - down[0]) / (2 * h), rel=1e-4)
        assert gamma == pytest.approx((up[1] - down[1]) / (2 * h), rel=1e-4)
        sigma, h = math.sqrt(VAR), 1e-8
        assert vega == pytest.approx((self.p_at(LN0, (sigma + h) ** 2, tau, known, dof)[0] - self.p_at(LN0, (sigma - h) ** 2, tau, known, dof)[0]) / (2 * h), rel=1e-5)

    def test_theta_is_the_change_with_time_while_the_level_stands_where_the_average_does(self):
        """Before the averaging: only the horizon shrinks."""
        p = [self.p_at(LN0, tau=300.0 - t)[0] for t in (-0.01, 0.01)]
        assert self.p_at(LN0)[3] == pytest.approx((p[1] - p[0]) / 0.02, rel=1e-6)

    @pytest.mark.parametrize("ahead_s", [-1.0, 0.0, 20.0, 60.0, 200.0])
    def test_the_variance_falls_by_the_weight_squared(self, ahead_s):
        known = max(60.0 - max(ahead_s, 0.0), 0.0)
        var = [ahead(LN0, known, LN0, ahead_s + h, 900.0, VAR, 0.0)[1] for h in (-1e-3, 1e-3)]
        weight = ahead(LN0, known, LN0, ahead_s, 900.0, VAR, 0.0)[2]
        assert (var[1] - var[0]) / 2e-3 == pytest.approx(VAR * weight * weight, abs=VAR * 0.02) or ahead_s in (60.0,)


def model(**values):
    return params_block(Strategy(model=values), 1)["of"][0, 0]["model"]


def priced(m, level=LN0, tau=300.0, strike=LN0, has_strike=1, age=0.0, led=0, seconds=(), start_s=1_000_200, duration=900, drift=0.0):
    """`price` with ``seconds`` before the end (start) printed at LN0."""
    avg = np.zeros(1, average.AVG)
    end_s = start_s + duration
    for s in seconds:
        average.push(avg[0], s, LN0)
    return price(avg[0], m, level, LN0, age, led, LN0, strike, has_strike, start_s, end_s, end_s - tau, VAR, drift)


class TestPricers:
    def test_spot_is_document_1(self):
        p = priced(model(pricer="spot"), LN0 + 0.0007, 240.0, drift=1e-7)[0]
        assert p == pytest.approx(NormalDist().cdf((0.0007 + 1e-7 * 240) / math.sqrt(VAR * 240)), abs=1e-10)

    def test_binary_is_n_of_d2(self):
        """Hull's cash-or-nothing call without interest: S 100.07, K 100, sigma 0.6 a year, 5 minutes."""
        t, sigma = 300.0 / YEAR_S, 0.6
        d2 = (math.log(100.07 / 100) - 0.5 * sigma ** 2 * t) / (sigma * math.sqrt(t))
        assert priced(model(pricer="binary", implied_vol=sigma), LN0 + math.log(100.07 / 100))[0] == pytest.approx(NormalDist().cdf(d2), abs=1e-10)

    @pytest.mark.parametrize("pricer", ["spot", "binary"])
    def test_the_plain_formulas_know_no_strike_before_it_is_there(self, pricer):
        p, delta, *_ = priced(model(pricer=pricer), LN0 + 0.01, 890.0, has_strike=0)
        assert p == pytest.approx(0.5, abs=1e-3) and delta == 0.0

    def test_twap_counts_the_seconds_from_where_the_average_ends(self):
        m = model(twap_lag_s=3, tail_dof=0, twap_noise=0.0)
        assert priced(m, LN0 + 0.0004, 300.0)[0] == p_up_running(LN0 + 0.0004, LN0, 0.0, 0.0, 297.0, VAR, 0.0)

    def test_the_age_of_the_print_is_priced(self):
        """Not carried by a spot venue, a print of 5 s ago leaves 5 s more to come; carried, it leaves what oracle_noise_s says."""
        m = model(twap_lag_s=0, tail_dof=0, twap_noise=0.0, oracle_noise_s=2e-5)
        assert priced(m, LN0 + 0.0004, age=5.0)[0] == p_up_running(LN0 + 0.0004, LN0, 0.0, 0.0, 305.0, VAR, 0.0)
        carried = priced(m, LN0 + 0.0004, age=5.0, led=1)[0]
        assert carried == pytest.approx(p_not_negative(0.0004, VAR * 260.0 + 4e-10 * 5.0), abs=1e-10)
        assert priced(m, LN0 + 0.0004, age=0.0)[0] > carried > priced(m, LN0 + 0.0004, age=5.0)[0]

    def test_the_doubt_about_the_strike_is_priced_until_it_is_printed(self):
        """Just started, all seconds of the opening average printed: same mean, but the print may differ by twap_noise."""
        m, seconds = model(twap_lag_s=3, tail_dof=0, twap_noise=1e-4), range(1_000_100, 1_000_202)
        asked = dict(level=LN0 + 0.0005, tau=899.0, seconds=seconds)
        known, unknown = priced(m, **asked)[0], priced(m, **asked, has_strike=0)[0]
        base = VAR * (896.0 - 40.0)
        assert known == pytest.approx(p_not_negative(0.0005, base + 1e-8), abs=1e-10)
        assert unknown == pytest.approx(p_not_negative(0.0005, base + 2e-8), abs=1e-10)

    def test_a_late_print_in_the_last_minute_is_filled_from_the_level(self):
        """Carried level: the seconds since the newest print are past, not to come; half way between print and level."""
        m = model(twap_lag_s=0, tail_dof=0, twap_noise=0.0, oracle_noise_s=0.0)
        end = 1_000_200 + 900
        p = priced(m, LN0 + 0.0002, 20.0, strike=LN0 + 0.00005, age=2.0, led=1, seconds=range(end - 100, end - 21))[0]
        mean = (38 * 0.0 + 2 * 0.0001 + 20 * 0.0002) / 60 - 0.00005
        assert p == pytest.approx(p_not_negative(mean, VAR * 20.0 ** 3 / (3 * 3600)), abs=1e-10)

    def test_same_bits(self):
        asked = dict(level=LN0 + 0.0003, tau=33.0, age=1.4, led=1, seconds=range(1_001_000, 1_001_065))
        assert len({priced(model(), **asked) for _ in range(5)}) == 1

    @given(st.sampled_from(r.PRICERS), st.floats(-0.05, 0.05), st.floats(-0.05, 0.05), st.floats(-10, 2000), st.booleans(), st.booleans(), st.floats(-1, 400),
           st.sampled_from([0, 3, 6, 30]), st.integers(0, 70))
    @settings(max_examples=1000)
    def test_always_a_probability_and_monotone(self, pricer, a, b, tau, has_strike, led, age, dof, printed):
        end = 1_000_200 + 900
        asked = dict(tau=tau, has_strike=int(has_strike), led=int(led), age=age, seconds=range(end - 63, end - 63 + printed))
        m = model(pricer=pricer, tail_dof=dof)
        low, high = (priced(m, LN0 + x, **asked) for x in sorted((a, b)))
        assert all(map(math.isfinite, (*low, *high))) and 0 <= low[0] <= 1 and 0 <= high[0] <= 1 and low[0] <= high[0] + 1e-9 and low[1] >= 0

    @pytest.mark.parametrize("dof", [0, 6])
    def test_nothing_jumps_at_the_phases(self, dof):
        """At the start of the closing average, and when the strike is printed as expected."""
        m = model(tail_dof=dof, twap_noise=0.0)
        end = 1_000_200 + 900
        p = [priced(m, LN0 + 0.0003, tau, seconds=range(end - 200, end - 63))[0] for tau in (63.0 + 1e-6, 63.0 - 1e-6)]
        assert p[0] == pytest.approx(p[1], abs=1e-6)
        seconds = range(1_000_100, 1_000_199)
        p = [priced(m, LN0 + 0.0003, 898.0, has_strike=h, seconds=seconds)[0] for h in (0, 1)]
        assert p[0] == pytest.approx(p[1], abs=1e-9)


def test_degrees_of_freedom_without_variance_are_refused():
    with pytest.raises(ValueError, match="tail_dof"):
        Strategy(model={"tail_dof": 2})
