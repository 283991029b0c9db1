"""The risk of a simulated inventory: what is measured on a path of results, and what a limit ends."""

import numpy as np
import pytest

from mmbot import programme as lp
from mmbot.inventory.simulated import DAY_S, LEAST_STEPS, Limits, measure
from test_programme import P

RNG = np.random.default_rng(5)


class TestMeasure:
    def test_a_path_by_hand(self):
        """Up 2, down 3, up 4: three changes with mean 1; the drop from 2 to -1 is the greatest."""
        found = measure([2.0, -1.0, 3.0], [1.0, -2.0, 0.5], step_s=1.0, capital=7.0)
        assert (found.total, found.max_drawdown, found.turnover, found.steps) == (3.0, 3.0, 0.5, 3)
        assert found.sharpe == pytest.approx(1.0 / np.std([2, -3, 4], ddof=1) * np.sqrt(DAY_S))

    def test_a_loss_from_the_start_is_a_drawdown(self):
        assert measure([-1.0, -2.5, -2.0], [0, 0, 0], 1.0, 1.0).max_drawdown == 2.5

    def test_sharpe_does_not_depend_on_how_often_it_is_looked_at(self):
        """Independent changes: looked at every tenth time it is the same ratio."""
        path = np.cumsum(RNG.normal(0.02, 1.0, 40_000))
        often, seldom = measure(path, np.zeros(path.size), 1.0, 1.0), measure(path[9::10], np.zeros(path.size // 10), 10.0, 1.0)
        assert seldom.sharpe == pytest.approx(often.sharpe, rel=0.1)

    @pytest.mark.parametrize("results", [[], [0.0, 0.0, 0.0], [5.0]])
    def test_without_any_change_of_pace_there_is_no_ratio(self, results):
        found = measure(results, np.zeros(len(results)), 1.0, 1.0)
        assert found.sharpe == 0.0 and found.max_drawdown == 0.0

    @pytest.mark.parametrize("args, says", [(([1.0], [], 1.0, 1.0), "one length"), (([1.0], [1.0], 0.0, 1.0), "step_s"), (([1.0], [1.0], 1.0, 0.0), "capital")])
    def test_what_cannot_be_measured_is_said(self, args, says):
        with pytest.raises(ValueError, match=says):
            measure(*args)


class TestLimits:
    def test_each_limit_is_named(self):
        found = measure(np.linspace(0, -1, LEAST_STEPS) + RNG.normal(0, 0.01, LEAST_STEPS), np.ones(LEAST_STEPS), 1.0, 1.0)
        broken = Limits(0.0, 0.5, 10.0).broken(found)
        assert [text.split()[0] for text in broken] == ["Sharpe", "drawdown", "turnover"] and "above 10" in broken[2]
        assert Limits().broken(found) == [] and Limits(-1e6, 2.0, 100.0).broken(found) == []

    def test_a_ratio_of_a_few_changes_is_not_judged(self):
        assert Limits(min_sharpe=1.0).broken(measure([-1.0, -3.0], [0, 0], 1.0, 1.0)) == []


class TestSimulatedInventory:
    FALL = np.concatenate([[0.5], np.linspace(0.45, 0.1, 8)])

    def test_a_drawdown_ends_quoting_and_what_is_held_stays(self):
        free = lp.evolve_within(P, self.FALL, 0.2, Limits(), 1.0)
        held = lp.evolve_within(P, self.FALL, 0.2, Limits(max_drawdown=0.04), 1.0)
        assert not free.broken and free.inventory.max() > held.inventory.max() > 0.0
        assert "drawdown" in held.broken[0] and len(held.broken) == 1
        at = np.argmax(np.maximum.accumulate(held.result) - held.result > 0.04)
        assert len(set(held.inventory[at:])) == 1 and not held.traded[at + 1:].any() and held.performance.max_drawdown < free.performance.max_drawdown

    def test_turnover_is_what_was_traded(self):
        zigzag = [0.5 + 0.05 * (-1) ** i for i in range(30)]
        free = lp.evolve_within(P, zigzag, 0.2, Limits(), 1.0, capital=2.0)
        held = lp.evolve_within(P, zigzag, 0.2, Limits(max_turnover=0.3), 1.0, capital=2.0)
        assert free.performance.turnover == pytest.approx(free.traded.sum() / 2.0) and free.performance.turnover > 0.5
        assert "turnover" in held.broken[0] and 0.3 < held.performance.turnover < 0.3 + 0.2 * 0.6 / 2.0

    def test_without_limits_it_is_what_it_was(self):
        inventory, result = lp.evolve(P, self.FALL, 0.2)
        path = lp.evolve_within(P, self.FALL, 0.2, Limits(max_drawdown=100.0), 1.0)
        assert (inventory == path.inventory).all() and result == path.result[-1] == pytest.approx(path.performance.total)
        assert lp.evolve(P, [], 0.2)[0].size == 0
