"""The last cut: no draft, however absurd, leaves more than the caps allow, and capital sizes a market as published."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core_world import quoting
from mmbot.config import Strategy
from mmbot.params import params_block
from mmbot.quoting.view import DRAFT, MAX_LEVELS, VIEW
from mmbot.risk import exposure, limits
from shm_layout import records as r


def side_cost(quotes, token):
    return sum(exposure.cost_of(px, size) for t, _, px, size in quotes if t == token)


class TestCapitalSizing:
    def test_one_level_is_what_the_market_s_capital_buys(self):
        """56.88 of 72.92 dollars make markets, 11.38 in each of 5: 22.76 shares at 0.50, in whole shares 22."""
        world, slot = quoting(bid_e4=5000, ask_e4=5100, levels=1, model_weight=0.0,
                              capital={"sizing": "capital", "bankroll_u6": 72_920_000, "kelly_floor": 0.15, "kelly_cap": 0.15})
        kelly = 0.15 * 56.88                      # 8.53 dollars
        quotes = world.quotes(slot)
        assert {t for t, *_ in quotes} == {r.UP, r.DOWN}
        for token, _, px, size in quotes:
            assert size == int(min(11.38, kelly) / (px / 1e4)) * 1_000_000

    def test_kelly_off_leaves_the_published_sizes(self):
        world, slot = quoting(bid_e4=5000, ask_e4=5100, levels=1, model_weight=0.0,
                              capital={"sizing": "capital", "bankroll_u6": 72_920_000, "kelly_floor": 1.0, "kelly_cap": 1.0})
        sizes = {t: (px, size) for t, _, px, size in world.quotes(slot)}
        assert sizes[r.DOWN] == (4900, 22_000_000) and sizes[r.UP] == (5000, 22_000_000)

    def test_a_cheap_outcome_gets_more_shares_for_the_same_dollars(self):
        world, slot = quoting(bid_e4=500, ask_e4=600, levels=1, model_weight=0.0,
                              capital={"sizing": "capital", "bankroll_u6": 72_920_000, "kelly_floor": 1.0, "kelly_cap": 1.0})
        sizes = {t: (px, size) for t, _, px, size in world.quotes(slot)}
        assert sizes[r.UP] == (500, 206_000_000), "11.38 dollars at the middle of 0.055"
        px, size = sizes[r.DOWN]
        assert size == int(11.38 / (px / 1e4)) * 1_000_000

    def test_the_whole_ladder_costs_the_capital(self):
        world, slot = quoting(levels=3, model_weight=0.0, capital={"sizing": "capital", "bankroll_u6": 1_000_000_000, "kelly_floor": 1.0, "kelly_cap": 1.0})
        for token in (r.UP, r.DOWN):
            assert 100.0 <= side_cost(world.quotes(slot), token) / 1e6 <= 156.0

    def test_without_a_bankroll_cash_and_positions_count(self):
        world, slot = quoting(capital={"side_part": 0.01})
        world.account["cash_u6"] = 900_000_000
        world.hold(slot, up=100, down=100, cost=100.0)        # hold puts the whole cost on one side
        assert world.state["seen"]["bankroll_u6"][0] == 1_000_000_000

    @pytest.mark.parametrize("bankroll", [0, 1])
    def test_no_bankroll_no_quotes(self, bankroll):
        world, slot = quoting(capital={"sizing": "capital", "bankroll_u6": bankroll})
        world.account["cash_u6"] = 0
        world.step(r.SRC_ACCOUNT)
        assert world.quotes(slot) == []


FINITE = dict(allow_nan=False, allow_infinity=False)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(data=st.data())
def test_caps_hold_for_any_draft(data):
    draw = data.draw
    params = params_block(Strategy(max_imbalance_u6=10**9, severe_imbalance_u6=10**9, capital={
        "side_part": draw(st.sampled_from([0.0, 0.01, 0.02])), "sizing": draw(st.sampled_from(["fixed", "capital"])),
        "max_market_exposure_u6": draw(st.sampled_from([0, 10_000_000, 50_000_000]))}), 1)["of"][0]
    view, draft = np.zeros(1, VIEW), np.zeros(1, DRAFT)
    v, d = view[0], draft[0]
    bid = draw(st.integers(1, 97))
    v["tick_e4"], v["bid_e4"], v["ask_e4"] = 100, bid * 100, (bid + draw(st.integers(1, 3))) * 100
    v["mid"] = v["fair"] = 0.5e-4 * (v["bid_e4"] + v["ask_e4"])
    v["fair"] = draw(st.sampled_from([float(v["fair"]), 0.0, 1.0, 0.3, float("nan")]))
    up, down = draw(st.integers(0, 200)), draw(st.integers(0, 200))
    v["qty_up_u6"], v["qty_down_u6"], v["imbalance_u6"] = up * 10**6, down * 10**6, (up - down) * 10**6
    v["cost_up_u6"], v["cost_down_u6"] = draw(st.integers(0, up * 10**6)), draw(st.integers(0, down * 10**6))
    v["cost_u6"] = v["cost_up_u6"] + v["cost_down_u6"]
    v["cash_u6"], v["room_u6"], v["min_size_u6"] = draw(st.integers(0, 10**9)), draw(st.integers(0, 2 * 10**8)), 5_000_000
    v["bankroll_u6"] = draw(st.sampled_from([0, 10**8, 10**9]))
    v["fee_rate"], v["fee_exponent"] = 0.07, 1.0
    for token in range(2):
        for level in range(MAX_LEVELS):
            d["px_e4"][token, level] = draw(st.integers(-100, 10_100))
            d["size_u6"][token, level] = draw(st.integers(0, 300)) * 10**6
    if draw(st.booleans()):
        d["take_token"], d["take_side"], d["take_kind"] = draw(st.integers(0, 1)), r.BUY, r.QK_FAK
        d["take_px_e4"], d["take_size_u6"] = draw(st.integers(-50, 10_100)), draw(st.integers(1, 200)) * 10**6
    before = limits.worst(v, 0, 0, 0, 0)
    limits.apply(v, params[0], d)
    check(v, params[0], d, before)


def check(v, params, d, before):
    c, costs, shares = params["capital"], [0, 0], [0, 0]
    for token in range(2):
        for level in range(MAX_LEVELS):
            px, size = int(d["px_e4"][token, level]), int(d["size_u6"][token, level])
            if size:
                assert 100 <= px <= 9900 and px % 100 == 0 and size >= 5_000_000
                costs[token] += exposure.cost_of(px, size)
                shares[token] += size
    take, token = int(d["take_size_u6"]), int(d["take_token"])
    for side, held in ((r.UP, "cost_up_u6"), (r.DOWN, "cost_down_u6")):
        missing = max(-int(v["imbalance_u6"]) if side == r.UP else int(v["imbalance_u6"]), 0)
        if c["side_part"] > 0 and costs[side]:
            assert costs[side] <= max(int(v["bankroll_u6"] * c["side_part"]) - int(v[held]), missing) + 1
    if take:
        assert 100 <= d["take_px_e4"] <= 9900
        costs[token] += take
        shares[token] += take * 10_000 // int(d["take_px_e4"])
        other = [int(d["px_e4"][1 - token, i]) for i in range(MAX_LEVELS) if d["size_u6"][1 - token, i] > 0]
        assert all(px + int(d["take_px_e4"]) < 10_000 for px in other), "a taker must not meet an own bid"
    assert sum(costs) <= v["cash_u6"]
    worst = limits.worst(v, shares[0], costs[0], shares[1], costs[1])
    fees = take // 20 + 2
    assert worst <= max(int(v["room_u6"]), before) + fees
    if c["max_market_exposure_u6"]:
        assert worst <= max(int(c["max_market_exposure_u6"]), before) + fees
