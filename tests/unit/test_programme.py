"""The linear programme: against its closed form and against points nearby, its base spread and period, failures, and what the core makes of it (document 4)."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from core_world import SECOND, quoting
from mmbot import programme as lp
from mmbot.errors import UserError
from mmbot import config
from shm_layout import records as r
from strategy_world import ROOMY, params_of

P = lp.Problem(fair=0.5, tick=0.01, inventory=0.0, base=0.03, max_spread=0.10, alpha=1.0, beta=1.0)
OWN = params_of()["programme"]


class TestProgramme:
    @settings(max_examples=150, deadline=None)
    @given(q=st.floats(-1, 1), base=st.floats(0.01, 0.1), alpha=st.floats(0, 1.5), beta=st.sampled_from([0.05, 0.3, 0.49, 0.51, 1.0, 4.0]),
           fair=st.floats(0.3, 0.7))
    def test_it_is_its_closed_form_where_no_price_bound_binds(self, q, base, alpha, beta, fair):
        p = replace(P, inventory=q, base=base, alpha=alpha, beta=beta, fair=fair)
        found, form = lp.solve(p), lp.closed_form(p)
        assert found.bid_offset == pytest.approx(form.bid_offset, abs=1e-9) and found.ask_offset == pytest.approx(form.ask_offset, abs=1e-9)
        assert found.cost == pytest.approx(form.cost, abs=1e-9)

    @settings(max_examples=100, deadline=None)
    @given(fair=st.floats(0.012, 0.988), q=st.floats(-1, 1), base=st.floats(0.01, 0.1), beta=st.floats(0.05, 3), dx=st.floats(-0.05, 0.05),
           dy=st.floats(-0.05, 0.05))
    def test_no_feasible_point_nearby_is_cheaper_and_both_quotes_are_prices(self, fair, q, base, beta, dx, dy):
        p = replace(P, fair=fair, inventory=q, base=base, beta=beta)
        found = lp.solve(p)
        b, a = found.bid_offset, found.ask_offset
        assert p.tick - 1e-9 <= fair - b and fair + a <= 1 - p.tick + 1e-9 and base - 1e-9 <= a + b <= p.max_spread + 1e-9
        assert found.cost == pytest.approx(lp.cost_of(p, b, a), abs=1e-9)
        b, a = b + dx, a + dy
        assume(base <= a + b <= p.max_spread and -p.max_spread <= b <= fair - p.tick and -p.max_spread <= a <= 1 - p.tick - fair)
        assert lp.cost_of(p, b, a) >= found.cost - 1e-9

    def test_inventory_moves_the_centre_and_beta_says_how_far(self):
        assert lp.solve(replace(P, inventory=0.4)) == lp.Solution(pytest.approx(0.027), pytest.approx(0.003), pytest.approx(0.03))
        kept = lp.solve(replace(P, inventory=1.0))
        assert (kept.bid_offset, kept.ask_offset) == pytest.approx((0.03, 0.0)), "no quote crosses fair at beta 1"
        eager = lp.solve(replace(P, inventory=1.0, beta=0.2))
        assert (eager.bid_offset, eager.ask_offset) == pytest.approx((0.045, -0.015))

    @pytest.mark.parametrize("wrong", [dict(base=0.2), dict(fair=math.nan), dict(fair=0.5, tick=0.6), dict(base=math.inf)])
    def test_what_cannot_be_solved_says_so(self, wrong):
        with pytest.raises(lp.Unsolved):
            lp.solve(replace(P, **wrong))


class TestBaseSpread:
    def test_each_term(self):
        quiet = lp.base_spread(OWN, 0.0, 1e12, 1e12, 20.0)
        assert quiet == pytest.approx(0.01, abs=1e-9)
        assert lp.base_spread(OWN, 0.02, 1e12, 1e12, 20.0) == pytest.approx(0.01 + 0.25 * 0.02)
        assert lp.base_spread(OWN, 0.0, 20.0, 1e12, 20.0) == pytest.approx(0.01 + 0.02 * 0.5)
        assert lp.base_spread(OWN, 0.0, 1e12, 60.0, 20.0) == pytest.approx(0.01 + 0.02 * 0.25)

    def test_it_is_clamped_and_survives_an_empty_book(self):
        assert lp.base_spread(OWN, 9.0, 0.0, 0.0, 20.0) == pytest.approx(0.10)
        assert lp.base_spread(OWN, 0.0, 0.0, 0.0, 0.0) == pytest.approx(0.01)


class TestPeriod:
    @pytest.mark.parametrize("ema, ms", [(0.0, 1000), (0.5e-4, 1000), (1e-4, 1000), (2e-4, 500), (1e-2, 100)])
    def test_faster_when_volatile(self, ema, ms):
        assert lp.period_ns(OWN, ema, 1e-4) == ms * 1_000_000

    def test_parameters_are_validated_when_read_and_when_configured(self):
        for name, value in (("alpha", -1.0), ("beta", 0.0), ("gamma", math.nan), ("delta", 2.0), ("zeta", -0.1), ("min_spread", 0.2), ("fast_ns", 10**10)):
            own = params_of()["programme"].copy()
            own[name] = value
            with pytest.raises(lp.Unsolved, match=name):
                lp.validate(own)
        lp.validate(OWN)
        with pytest.raises(UserError, match=r"strategy.programme.beta"):
            config.load(strategy__programme={"beta": 0.0})
        with pytest.raises(UserError, match="fast_ns .* must be at most slow_ns"):
            config.load(strategy__programme={"fast_ns": 2 * 10**9})


class TestHypothetical:
    def test_quotes_for_inventories_that_nobody_holds(self):
        found = lp.for_inventories(P, [-2.0, -0.4, 0.0, 0.4])
        assert [round(s.ask_offset - s.bid_offset, 9) for s in found] == [0.03, 0.024, 0.0, -0.024]

    def test_an_inventory_evolves_without_a_trade(self):
        """Down a cent and a half more than half the spread: bought; up again: sold, and the round earned the spread."""
        path, result = lp.evolve(P, [0.50, 0.48, 0.53], lot=0.2)
        assert path == pytest.approx([0.0, 0.2, 0.0]) and result == pytest.approx(0.2 * ((0.48 + 0.015 - 0.2 * 0.03) - 0.485))
        assert np.abs(lp.evolve(P, np.linspace(0.5, 0.1, 40), lot=0.3)[0]).max() <= 1.0


class TestSolver:
    def inputs(self, **target):
        t, p, b = np.zeros(1, r.TARGET)[0], np.zeros(1, r.POSITION)[0], np.zeros(1, r.MARKET)[0]
        t["market_id"] = p["market_id"] = b["market_id"] = 77
        t["q_up"], t["sigma"], t["sigma_px"] = 0.5, 1e-4, 0.02
        b["tick_e4"], b["bid_size_u6"], b["ask_size_u6"] = 100, 100_000_000, 100_000_000
        for name, value in target.items():
            t[name] = value
        return t, p, b

    def test_a_solution_carries_what_made_it(self):
        solver, params = lp.Solver(), params_of(strategy="programme")
        t, p, b = self.inputs()
        p["qty_up_u6"] = 40_000_000
        kept, why = solver.turn(2, t, p, b, params, 99, 5 * SECOND)
        assert (why, kept["status"], kept["t_ns"], kept["params_version"], kept["slot"], kept["inventory"]) == ("", lp.SOLVED, 5 * SECOND, 99, 2, 0.4)
        assert kept["bid_offset"] + kept["ask_offset"] == pytest.approx(kept["base_spread"]) and kept["bid_offset"] > kept["ask_offset"]

    def test_it_is_due_again_after_its_period(self):
        solver, params = lp.Solver(), params_of(strategy="programme")
        assert solver.due(2, params, 1)
        solver.turn(2, *self.inputs(), params, 99, 5 * SECOND)
        assert not solver.due(2, params, 6 * SECOND - 1) and solver.due(2, params, 6 * SECOND)
        assert not solver.due(3, params_of(), 10**18), "no other strategy needs it"

    @pytest.mark.parametrize("spoil, status", [(dict(q_up=math.nan), lp.FAILED), (dict(market_id=77), lp.BAD_PARAMS)])
    def test_a_failure_keeps_the_last_good_one_and_its_age(self, spoil, status):
        solver, params = lp.Solver(), params_of(strategy="programme")
        good = solver.turn(2, *self.inputs(), params, 99, 5 * SECOND)[0].copy()
        if status == lp.BAD_PARAMS:
            params = params.copy()
            params["programme"]["beta"] = -1.0
        kept, why = solver.turn(2, *self.inputs(**spoil), params, 99, 7 * SECOND)
        assert why and kept["status"] == status and kept["failures"] == 1
        assert [kept[n] for n in ("bid_offset", "ask_offset", "t_ns")] == [good[n] for n in ("bid_offset", "ask_offset", "t_ns")]

    def test_another_window_starts_without_one(self):
        solver, params = lp.Solver(), params_of(strategy="programme")
        solver.turn(2, *self.inputs(), params, 99, 5 * SECOND)
        t, p, b = self.inputs(market_id=78)
        kept, why = solver.turn(2, t, p, b, params, 99, 7 * SECOND)
        assert "no book" in why and kept["t_ns"] == 0


class TestCore:
    def world(self):
        return quoting(strategy="programme", model_weight=0.0, bid_e4=4900, ask_e4=5100, tick_e4=10, **ROOMY)

    def tell(self, world, slot, bid, ask, t_ns=None):
        world.programme[0] = np.zeros((), r.PROGRAMME)
        world.programme["market_id"], world.programme["slot"] = world.markets["row"][0, slot]["market_id"], slot
        world.programme["t_ns"], world.programme["bid_offset"], world.programme["ask_offset"] = world.now_ns if t_ns is None else t_ns, bid, ask
        return world.step(r.SRC_PROGRAMME)

    def first(self, world, slot):
        return {t: px for t, lv, px, _ in world.quotes(slot) if lv == 0}

    def test_without_a_solution_the_default_spread_holds(self):
        world, slot = self.world()
        assert self.first(world, slot) == {r.UP: 4850, r.DOWN: 4850}

    def test_a_solution_moves_the_quotes_at_once_and_holds_until_it_is_too_old(self):
        world, slot = self.world()
        assert self.tell(world, slot, 0.02, 0.005) & 1 << slot
        assert self.first(world, slot) == {r.UP: 4800, r.DOWN: 4950}
        for _ in range(10):
            world.wait(0.5).lead(), world.print(), world.book(4900, 5100, tick_e4=10)
        assert self.first(world, slot) == {r.UP: 4800, r.DOWN: 4950}
        world.wait(0.01).timer()
        assert self.first(world, slot) == {r.UP: 4850, r.DOWN: 4850}

    @pytest.mark.parametrize("spoil", [dict(slot=-1), dict(slot=8), dict(bid_offset=math.nan), dict(ask_offset=math.inf), dict(market_id=5)])
    def test_a_record_of_nowhere_changes_nothing(self, spoil):
        world, slot = self.world()
        self.tell(world, slot, 0.02, 0.005)
        for name, value in spoil.items():
            world.programme[name] = value
        if "market_id" in spoil:
            world.programme["slot"] = slot
        world.step(r.SRC_PROGRAMME)
        expected = {r.UP: 4850, r.DOWN: 4850} if "market_id" in spoil else {r.UP: 4800, r.DOWN: 4950}
        assert self.first(world, slot) == expected

    def test_inventory_limit(self):
        world, slot = self.world()
        world.hold(slot, up=100, cost=50)
        assert set(self.first(world, slot)) == {r.DOWN}
