"""Completion by taking: known answers of its parts, when it asks and when it does not, and that it never pays more than it may."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core_world import quoting
from mmbot.params import params_block
from mmbot.config import Strategy
from mmbot.quoting import completion
from mmbot.quoting.fees import fee_per_share
from mmbot.quoting.view import DRAFT, MEMORY, VIEW
from shm_layout import records as r

FEES = {"fee_rate_e6": 70_000, "fee_exponent": 1}
ON = {"enabled": True, "from_s": 180.0, "max_pay": 1.0, "max_pay_late": 1.02, "risk_aversion": 0.01}


def world_of(offset_s=800.0, up=100, cost=40.0, completion=None, max_imbalance_u6=10**9, **strategy):
    """A world 40 s before the cut-off that holds ``up`` unpaired shares at 0.40, Up at 0.50 bid, 0.51 asked."""
    world, slot = quoting(offset_s, model_weight=0.0, max_imbalance_u6=max_imbalance_u6, severe_imbalance_u6=10**9, max_exposure_u6=10**9,
                          completion={**ON, **(completion or {})}, **strategy)
    row = world.markets["row"][0, slot]
    for name, value in FEES.items():
        row[name] = value
    world.hold(slot, up=up, cost=cost)
    return world, slot


def takers(world, slot):
    """[(token, side, kind, px_e4, size_u6)] of the quotes that take."""
    t = world.target(slot)
    return [tuple(int(q[n]) for n in ("token", "side", "kind", "px_e4", "size_u6")) for q in t["quote"][:int(t["n_quotes"])] if q["kind"] != r.QK_POST_ONLY]


class TestParts:
    def test_most_for_a_pair_rises_with_time_and_with_size(self):
        f = completion.most_for_pair
        assert f(1.0, 1.02, 180.0, 180.0, 0.0, 100.0) == pytest.approx(1.0)
        assert f(1.0, 1.02, 90.0, 180.0, 0.0, 100.0) == pytest.approx(1.01)
        assert f(1.0, 1.02, 180.0, 180.0, 50.0, 100.0) == pytest.approx(1.01)
        assert f(1.0, 1.02, 90.0, 180.0, 50.0, 100.0) == pytest.approx(1.015)
        assert f(1.0, 1.02, 0.0, 180.0, 0.0, 100.0) == f(1.0, 1.02, 180.0, 180.0, 100.0, 100.0) == pytest.approx(1.02)

    @given(st.floats(0, 500), st.floats(0, 500), st.floats(0, 200), st.floats(0, 200), st.floats(0, 300), st.floats(0, 300))
    def test_most_for_a_pair_is_monotone_and_bounded(self, left, from_s, a, b, most, later):
        f = completion.most_for_pair
        low, high = min(a, b), max(a, b)
        assert 1.0 - 1e-12 <= f(1.0, 1.02, left, from_s, low, most) <= f(1.0, 1.02, left, from_s, high, most) + 1e-12 <= 1.02 + 1e-11
        assert f(1.0, 1.02, left + later, from_s, low, most) <= f(1.0, 1.02, left, from_s, low, most) + 1e-12

    def test_holding_cost(self):
        assert completion.holding_cost(0.5, 100.0, 0.002) == pytest.approx(0.525)
        assert completion.holding_cost(0.5, 100.0, 0.0) == 0.5

    @given(st.floats(-1, 2, allow_nan=False) | st.just(math.nan), st.sampled_from([100, 50, 25, 10, 1]), st.sampled_from([0.0, 0.07, 0.25]))
    def test_the_cap_is_the_highest_price_within_the_budget(self, budget, tick, rate):
        px = completion.cap_e4(budget, rate, 1.0, tick)
        assert px % tick == 0 and 0 <= px <= 10_000 - tick
        if px:
            assert px / 1e4 + fee_per_share(px / 1e4, rate, 1.0) <= budget + 1e-9
        up = px + tick
        if math.isfinite(budget) and 0 < budget and up <= 10_000 - tick:
            assert up / 1e4 + fee_per_share(up / 1e4, rate, 1.0) > budget - 1e-9


class TestWhenItAsks:
    def test_it_takes_the_missing_side_for_what_it_costs_at_the_best(self):
        world, slot = world_of()
        (token, side, kind, px, cash), = takers(world, slot)
        assert (token, side, kind) == (r.DOWN, r.BUY, r.QK_FAK) and px >= 5000 and cash == 100 * 5000 * 100
        assert not [q for q in world.quotes(slot) if q[0] == r.UP and q[2] >= 10_000 - px], "no own bid that it would meet"

    def test_fok_when_a_part_is_of_no_use(self):
        world, slot = world_of(completion={"all_or_nothing": True})
        assert takers(world, slot)[0][2] == r.QK_FOK

    def test_off_by_default(self):
        assert not Strategy().completion.enabled
        world, slot = world_of(completion={"enabled": False})
        assert takers(world, slot) == []

    @pytest.mark.parametrize("mode", [m for m in r.VENUE_MODES if m != "normal"])
    def test_never_unless_the_venue_is_normal(self, mode):
        world, slot = world_of(up=0, cost=0)
        world.account["venue_mode"] = r.VENUE_MODE[mode]
        world.hold(slot, up=100, cost=40.0)
        assert takers(world, slot) == [] and world.quotes(slot)

    def test_not_before_its_time_and_not_for_little(self):
        assert takers(*world_of(offset_s=600.0)) == []
        assert takers(*world_of(up=4, cost=1.6)) == []

    def test_not_dearer_than_a_pair_may_be(self):
        world, slot = world_of(cost=51.0, completion={"max_pay": 1.0, "max_pay_late": 1.0})     # 0.51 + 0.50 + fee
        assert takers(world, slot) == []
        assert takers(*world_of(cost=47.0, completion={"max_pay": 1.0, "max_pay_late": 1.0}))

    def test_not_when_holding_is_cheaper(self):
        assert takers(*world_of(completion={"risk_aversion": 0.0})) == [], "0.50 and its fee for a token worth 0.495"

    def test_a_lone_attempt_stands_and_then_there_is_a_pause(self):
        world, slot = world_of()
        first = takers(world, slot)
        asked = []
        for _ in range(30):
            world.wait(0.1).lead()
            world.print(), world.book()
            asked.append(takers(world, slot) == first)
        assert asked[0] and not any(asked[1:19]) and any(asked[19:22])

    def test_a_change_of_position_ends_the_wish(self):
        world, slot = world_of()
        assert takers(world, slot)
        world.wait(0.01)
        world.hold(slot, up=100, down=60, cost=70.0)
        assert takers(world, slot) == []

    def test_nothing_past_the_cut_off(self):
        world, slot = world_of(offset_s=839.9)
        assert takers(world, slot)
        world.wait(0.2)
        world.timer()
        assert takers(world, slot) == [] and world.quotes(slot) == []

    def test_what_money_does_not_allow_is_not_asked(self):
        world, slot = world_of(up=0, cost=0)
        world.account["cash_u6"] = 45_000_000
        world.hold(slot, up=100, cost=40.0)
        assert takers(world, slot) == [] and "exposure_cap" in world.gates(slot)


def draw_of(view_fields, **strategy):
    """One call of `ask` on a view made by hand."""
    view, memory, draft = (np.zeros(1, d) for d in (VIEW, MEMORY, DRAFT))
    for name, value in view_fields.items():
        view[name] = value
    params = params_block(Strategy(completion=ON, **strategy), 1)["of"][0]
    completion.ask(view[0], params[0], memory[0], draft[0])
    return draft[0]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(fair=st.floats(allow_nan=True, allow_infinity=True) | st.floats(0, 1), bid=st.integers(0, 99), width=st.integers(0, 10), up=st.integers(0, 300),
       down=st.integers(0, 300), cost_up=st.integers(0, 300), cost_down=st.integers(0, 300), tau=st.floats(0, 900), tick=st.sampled_from([100, 10]))
def test_it_never_pays_more_than_it_may(fair, bid, width, up, down, cost_up, cost_down, tau, tick):
    d = draw_of(dict(fair=fair, bid_e4=bid * 100, ask_e4=(bid + width) * 100, tick_e4=tick, qty_up_u6=up * 10**6, qty_down_u6=down * 10**6,
                     imbalance_u6=(up - down) * 10**6, cost_up_u6=cost_up * 10**6, cost_down_u6=cost_down * 10**6, tau_s=tau, may_take=1,
                     fee_rate=0.07, fee_exponent=1.0, now_ns=10**12))
    if d["take_size_u6"] == 0:
        return
    px, token = int(d["take_px_e4"]), int(d["take_token"])
    best = (bid + width) * 100 if token == r.UP else 10_000 - bid * 100
    missing = up - down if token == r.DOWN else down - up
    held, cost = (up, cost_up) if token == r.DOWN else (down, cost_down)
    assert missing >= 5 and best <= px <= 10_000 - tick and px % tick == 0
    assert px / 1e4 + fee_per_share(px / 1e4, 0.07, 1.0) + cost / held <= 1.02 + 1e-9
    assert int(d["take_size_u6"]) <= missing * best * 100 and d["take_size_u6"] % 10_000 == 0
