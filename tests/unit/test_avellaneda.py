"""The avellaneda strategy against the papers' own formulas and figures, and document 2's table."""

import math

import numpy as np
import pytest

from mmbot.quoting import avellaneda as av
from shm_layout import records as r
from strategy_world import ROOMY, bids, draw, params_of, view_of

P = dict(strategy="avellaneda", **ROOMY)
#: the example of the paper of 2013: tick = 1, sigma in ticks per root second
GLFT = dict(gamma=0.01, sigma=0.3, k=0.3, a=0.9)


class TestPaperOf2008:
    """s = 100, T = 1, sigma = 2, k = 1.5."""

    def test_reservation_price(self):
        assert av.reservation(100.0, 1.0, 0.1, 2.0, 1.0) == pytest.approx(99.6)
        assert av.reservation(100.0, -3.0, 0.1, 2.0, 0.5) == pytest.approx(100.6)
        assert av.reservation(100.0, 5.0, 0.1, 2.0, 0.0) == 100.0

    @pytest.mark.parametrize("gamma, average", [(0.1, 1.49), (0.01, 1.35)])
    def test_average_spreads_of_its_tables(self, gamma, average):
        spreads = [av.optimal_spread(gamma, 2.0, t, 1.5) for t in np.linspace(0, 1, 201)]
        assert np.mean(spreads) == pytest.approx(average, abs=0.005)

    def test_without_risk_aversion_it_is_two_over_k(self):
        assert av.optimal_spread(1e-9, 2.0, 1.0, 1.5) == pytest.approx(2 / 1.5, rel=1e-6)


def exact_glft(gamma, sigma, k, a, most):
    """(bid offsets for q < most, ask offsets for q > -most) of the stationary problem: the eigenvector of section 4 of the paper of 2013."""
    q = np.arange(-most, most + 1)
    eta = a * (1 + gamma / k) ** -(1 + k / gamma)
    m = np.diag(0.5 * k * gamma * sigma**2 * q**2) - eta * (np.eye(q.size, k=1) + np.eye(q.size, k=-1))
    f = np.abs(np.linalg.eigh(m)[1][:, 0])
    base = math.log1p(gamma / k) / gamma
    return np.log(f[:-1] / f[1:]) / k + base, np.log(f[1:] / f[:-1]) / k + base


class TestPaperOf2013:
    def test_the_formula_as_printed(self):
        g = GLFT
        lean = math.sqrt(g["sigma"] ** 2 * g["gamma"] / (2 * g["k"] * g["a"]) * (1 + g["gamma"] / g["k"]) ** (1 + g["k"] / g["gamma"]))
        for q in (-5, 0, 5):
            bid, ask = av.glft_offsets(q, g["gamma"], g["sigma"], g["k"], g["a"], 1.0)
            assert bid == pytest.approx(math.log(1 + g["gamma"] / g["k"]) / g["gamma"] + (2 * q + 1) / 2 * lean)
            assert ask == pytest.approx(math.log(1 + g["gamma"] / g["k"]) / g["gamma"] - (2 * q - 1) / 2 * lean)

    def test_it_is_near_the_exact_solution(self):
        """The closed form is an approximation; with the paper's parameters it is within 5 % of the exact offsets for small inventories."""
        most = 30
        exact_bid, exact_ask = exact_glft(**GLFT, most=most)
        for q in range(-5, 6):
            bid, ask = av.glft_offsets(q, GLFT["gamma"], GLFT["sigma"], GLFT["k"], GLFT["a"], 1.0)
            assert bid == pytest.approx(exact_bid[q + most], rel=0.05) and ask == pytest.approx(exact_ask[q + most - 1], rel=0.05)

    def test_units_of_inventory_do_not_matter(self):
        """Counting in tenths of a share: q and the lot grow tenfold, gamma shrinks tenfold, the offsets stay."""
        one = av.glft_offsets(3.0, 0.2, 0.02, 100.0, 0.5, 1.0)
        assert av.glft_offsets(30.0, 0.02, 0.02, 100.0, 0.5, 10.0) == pytest.approx(one)


class TestDynamicGamma:
    @pytest.mark.parametrize("sigma, gamma", [(0.03, 0.32), (0.05, 0.40), (0.10, 0.60), (0.20, 0.60)])
    def test_table_of_document_2(self, sigma, gamma):
        assert av.dynamic_gamma(0.2, sigma, 0.05, 1.0, 3.0) == pytest.approx(gamma)

    def test_unknown_volatility_leaves_gamma(self):
        assert av.dynamic_gamma(0.2, 0.0, 0.05, 1.0, 3.0) == av.dynamic_gamma(0.2, 0.05, 0.0, 1.0, 3.0) == 0.2

    def test_toxic_fills_multiply_once_however_often_they_are_seen(self):
        params = params_of(**P)
        for toxic in (1, 2, 5):
            assert av.gamma_now(view_of(toxic=toxic), params) == pytest.approx(0.4 * 1.5)
        assert av.gamma_now(view_of(), params) == pytest.approx(0.4)

    def test_the_reference_ratio_is_a_parameter(self):
        assert av.dynamic_gamma(0.2, 0.05, 0.05, 4.0, 3.0) == pytest.approx(0.25)


class TestQuotes:
    def why(self, view, **own):
        return draw(view, params_of(**P, avellaneda=own))[0]["why"]

    def test_units(self):
        """50 shares are half a unit of 100; sigma 0.02 over 100 s: variance 0.04; gamma 0.4: the reservation is 0.8 cents below micro."""
        why = self.why(view_of(qty_up_u6=50_000_000, sigma_px=0.02, tau_s=100.0))
        assert why["gamma"] == pytest.approx(0.4) and why["reservation"] == pytest.approx(0.5 - 0.4 * 0.5 * 0.04) and why["spread"] == pytest.approx(0.015)

    def test_variance_is_never_more_than_a_bets(self):
        why = self.why(view_of(qty_up_u6=50_000_000, sigma_px=5.0))
        assert why["reservation"] == pytest.approx(0.5 - 0.4 * 0.5 * 0.25)

    def test_the_micro_price_is_the_centre_and_the_mid_stands_in(self):
        assert self.why(view_of(micro=0.507))["reservation"] == pytest.approx(0.507)
        assert self.why(view_of(micro=0.0))["reservation"] == pytest.approx(0.5)

    def test_forms(self):
        view = view_of(sigma_px=0.02, tau_s=100.0)
        assert self.why(view, form="optimal")["spread"] == pytest.approx(0.4 * 0.04 + 2 / 0.4 * math.log(1.004))
        under, over = av.glft_offsets(0.0, 0.4, 0.02, 100.0, 0.5, 0.2)
        assert self.why(view, form="glft")["spread"] == pytest.approx(under + over)
        lean = self.why(view_of(sigma_px=0.02, tau_s=100.0, qty_up_u6=50_000_000), form="glft")
        assert lean["reservation"] < 0.5 and lean["spread"] == pytest.approx(under + over), "glft leans without changing its spread"

    @pytest.mark.parametrize("form", ["target", "optimal", "glft"])
    def test_the_heavy_side_is_silent_from_the_inventory_limit_on(self, form):
        params = params_of(**P, avellaneda=dict(form=form))
        full = draw(view_of(qty_up_u6=100_000_000), params)[0]
        assert bids(full, r.UP) == [] and bids(full, r.DOWN)
        near = draw(view_of(qty_up_u6=90_000_000), params)[0]
        assert sum(s for _, s in bids(near, r.UP)) == 10_000_000

    def test_an_ended_window_has_no_lean(self):
        assert self.why(view_of(qty_up_u6=50_000_000, tau_s=-1.0))["reservation"] == pytest.approx(0.5)
