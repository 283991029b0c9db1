"""The tiered strategy: its flow, its named factors, its tiers, skews and caps (document 3)."""

import math

import pytest

from mmbot.quoting import tiered
from mmbot.risk import gates
from shm_layout import records as r
from strategy_world import ROOMY, bids, draw, params_of, view_of

P = dict(strategy="tiered", **ROOMY)
FACTORS = ("f_time", "f_regime", "f_toxicity", "f_vol", "f_phase")
VOLATILE, FINAL = r.REGIMES.index("volatile"), r.PHASES.index("final")


def name_of(**fields):
    signals = {"gamma_danger": fields.pop("gamma_danger", 0.0)}
    return r.ACTIONS[tiered.action(view_of(**fields), params_of(**P, signals=signals))]


class TestAction:
    @pytest.mark.parametrize("fields, action", [
        ({}, "both"),
        (dict(spike=1), "pull"), (dict(phase=FINAL), "pull"), (dict(toxicity=0.9), "pull"), (dict(toxicity=0.85), "pull"),
        (dict(delta=30.0, gamma_danger=0.002), "pull"), (dict(delta=10.0, gamma_danger=0.002), "both"), (dict(delta=1e6), "both"),
        (dict(regime=VOLATILE), "widen"), (dict(toxicity=0.7), "widen"), (dict(toxicity=0.7, momentum=1.0), "widen"),
        (dict(toxicity=0.5, momentum=0.8), "bid_only"), (dict(toxicity=0.5, momentum=-0.8), "ask_only"),
        (dict(toxicity=0.5, momentum=0.3), "both"), (dict(toxicity=0.2, momentum=1.0), "both"), (dict(toxicity=0.5), "both"),
    ])
    def test_the_flow_of_document_3(self, fields, action):
        assert name_of(**fields) == action

    def test_pull_draws_nothing_and_says_so(self):
        draft, quotes = draw(view_of(spike=1), params_of(**P))
        assert quotes == [] and draft["gates"] == gates.ACTION and r.ACTIONS[draft["why"]["action"]] == "pull"

    @pytest.mark.parametrize("momentum, token", [(1.0, r.UP), (-1.0, r.DOWN)])
    def test_one_side_is_the_one_that_momentum_does_not_pick_off(self, momentum, token):
        draft, quotes = draw(view_of(toxicity=0.5, momentum=momentum), params_of(**P))
        assert {q[0] for q in quotes} == {token} and draft["gates"] == gates.ACTION

    def test_both_sides_have_no_gate(self):
        draft, quotes = draw(view_of(), params_of(**P))
        assert draft["gates"] == 0 and len(quotes) == 8


class TestSpread:
    def spread(self, view=None, **tiered_):
        draft, _ = draw(view_of() if view is None else view, params_of(**P, tiered=tiered_))
        return draft["why"]

    def test_it_is_the_product_of_its_named_factors(self):
        why = self.spread(view_of(tau_s=300.0, toxicity=0.3, sigma_short=1.2e-4, regime=1))
        product = 0.02 * math.prod(float(why[f]) for f in FACTORS)
        assert why["spread"] == pytest.approx(product) and 0.01 < product < 0.10
        assert [float(why[f]) for f in FACTORS] == pytest.approx([math.sqrt(3), 1.25, 1.3, 1.2, 1.0])

    def test_widen_multiplies_once_more(self):
        quiet, wide = self.spread(view_of(regime=VOLATILE), widen_factor=1.0), self.spread(view_of(regime=VOLATILE))
        assert wide["spread"] == pytest.approx(1.5 * quiet["spread"]) and r.ACTIONS[wide["action"]] == "widen"

    def test_it_is_clamped(self):
        assert self.spread(view_of(toxicity=0.8, tau_s=5.0, sigma_short=1.0))["spread"] == 0.10
        assert self.spread(base_spread=0.01, phase_factor=(0.5,) * 5, time_cap=1.0)["spread"] == 0.01

    def test_what_is_not_known_changes_nothing(self):
        assert tiered.vol_factor(1e-4, 0.0, 2.0) == 1.0 and tiered.vol_factor(0.0, 1e-4, 2.0) == 1.0

    def test_time_left_widens_as_the_root_and_never_narrows(self):
        assert tiered.time_factor(900.0, 900.0, 9.0) == 1.0 and tiered.time_factor(960.0, 900.0, 9.0) == 1.0
        assert tiered.time_factor(225.0, 900.0, 9.0) == pytest.approx(2.0) and tiered.time_factor(0.0, 900.0, 9.0) == 9.0


class TestTiers:
    #: every factor 1, so that the spread is the base spread
    QUIET = dict(time_cap=1.0, phase_factor=(1.0,) * 5)

    def test_sizes_and_distances_are_those_of_document_3(self):
        view = view_of(tick_e4=10)
        draft, _ = draw(view, params_of(**P, tiered=self.QUIET | dict(max_imbalance_u6=10**10, max_position_u6=10**10)))
        for token in (r.UP, r.DOWN):
            assert bids(draft, token) == [(4900, 50_000_000), (4800, 100_000_000), (4700, 200_000_000), (4500, 500_000_000)]

    def test_a_wider_spread_moves_every_tier_in_proportion(self):
        draft, _ = draw(view_of(tick_e4=10), params_of(**P, tiered=self.QUIET | dict(base_spread=0.04)))
        assert [px for px, _ in bids(draft, r.UP)] == [4800, 4600, 4400, 4000]

    def test_position_and_imbalance_cap_the_sizes(self):
        draft, _ = draw(view_of(qty_up_u6=400_000_000), params_of(**P, tiered=self.QUIET))
        assert sum(s for _, s in bids(draft, r.UP)) == 100_000_000, "the imbalance may grow to 500"
        assert sum(s for _, s in bids(draft, r.DOWN)) == 850_000_000
        draft, _ = draw(view_of(qty_up_u6=980_000_000, qty_down_u6=980_000_000), params_of(**P, tiered=self.QUIET))
        assert [sum(s for _, s in bids(draft, t)) for t in (r.UP, r.DOWN)] == [20_000_000, 20_000_000], "no position beyond 1000"

    def test_inventory_and_momentum_lean_the_centre(self):
        why = draw(view_of(qty_up_u6=20_000_000), params_of(**P))[0]["why"]
        assert why["skew_inventory"] == pytest.approx(-0.020) and why["reservation"] == pytest.approx(0.48)
        why = draw(view_of(momentum=-0.6), params_of(**P))[0]["why"]
        assert why["skew_momentum"] == pytest.approx(-0.003) and why["reservation"] == pytest.approx(0.497)
        why = draw(view_of(qty_down_u6=400_000_000, momentum=9.0), params_of(**P))[0]["why"]
        assert why["skew_inventory"] == pytest.approx(0.05) and why["skew_momentum"] == pytest.approx(0.005), "both are limited"
