"""Liquidity rewards: the venue's formula by hand, and a nudge that never costs more than risk allows."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core_world import quoting
from mmbot.config import Strategy
from mmbot.params import params_block
from mmbot.quoting import rewards
from mmbot.quoting.view import DRAFT, MAX_LEVELS, VIEW
from mmbot.risk import exposure, limits
from shm_layout import records as r

V, LEAST = 0.045, 50_000_000


class TestScore:
    def test_an_order_by_distance(self):
        assert rewards.order_score(0.0, V, 100.0, 50.0) == pytest.approx(100.0)
        assert rewards.order_score(0.015, V, 90.0, 50.0) == pytest.approx(40.0)        # (2/3)^2
        assert rewards.order_score(0.03, V, 90.0, 50.0) == pytest.approx(10.0)         # (1/3)^2
        assert rewards.order_score(0.045, V, 90.0, 50.0) == rewards.order_score(0.015, V, 49.9, 50.0) == 0.0

    def test_two_sides(self):
        assert rewards.both_sides(40.0, 10.0, 0.5, 3.0) == pytest.approx(40 / 3)
        assert rewards.both_sides(40.0, 20.0, 0.5, 3.0) == 20.0
        assert rewards.both_sides(40.0, 0.0, 0.5, 3.0) == pytest.approx(40 / 3)
        assert rewards.both_sides(40.0, 0.0, 0.05, 3.0) == rewards.both_sides(0.0, 40.0, 0.95, 3.0) == 0.0
        assert rewards.both_sides(40.0, 20.0, 0.95, 3.0) == 20.0

    def test_quotes_of_both_tokens_and_sides(self):
        bids = [(r.UP, r.BUY, 4850, 90_000_000), (r.DOWN, r.BUY, 4850, 90_000_000)]
        assert rewards.score(bids, 0.5, V, LEAST, 3.0) == pytest.approx(40.0)
        offer = [(r.UP, r.BUY, 4850, 90_000_000), (r.UP, r.SELL, 5150, 90_000_000)]
        assert rewards.score(offer, 0.5, V, LEAST, 3.0) == pytest.approx(40.0), "an offer of Up is a bid for Down"
        assert rewards.score(bids[:1], 0.5, V, LEAST, 3.0) == pytest.approx(40 / 3)
        assert rewards.score([], 0.5, V, LEAST, 3.0) == 0.0

    @given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(-10, 10_010), st.integers(-5, 10**9)), max_size=8),
           st.floats(allow_nan=True, allow_infinity=True))
    def test_the_score_is_a_number(self, quotes, mid):
        assert 0.0 <= rewards.score(quotes, mid, V, LEAST, 3.0) < 1e5


class TestSeek:
    RICH = dict(max_exposure_u6=10**9, rewards={"enabled": True, "min_size_u6": LEAST})

    def test_off_by_default(self):
        world, slot = quoting()
        assert [q[3] for q in world.quotes(slot)] == [20_000_000, 12_000_000] * 2

    def test_first_levels_grow_to_the_size_that_scores(self):
        world, slot = quoting(**self.RICH)
        assert [(lv, size) for _, lv, _, size in world.quotes(slot)] == [(0, LEAST), (1, 12_000_000)] * 2

    def test_nothing_grows_beyond_a_cap(self):
        small = {**self.RICH, "max_exposure_u6": 20_000_000}
        world, slot = quoting(**small)
        plain, at = quoting(max_exposure_u6=20_000_000)
        assert world.quotes(slot) == plain.quotes(at) and world.gates(slot) == plain.gates(at)

    def test_not_while_sizes_are_cut(self):
        world, slot = quoting(**self.RICH)
        world.wait(1.6)
        world.book()
        assert "stale_spot" in world.gates(slot) and max(q[3] for q in world.quotes(slot)) == 14_000_000

    def test_outer_levels_come_into_the_band_and_the_first_price_stays(self):
        wide = dict(level_step_ticks=8, **self.RICH)
        world, slot = quoting(**wide)
        plain, at = quoting(level_step_ticks=8)
        firsts = {(t, px) for t, lv, px, _ in plain.quotes(at) if lv == 0}
        assert {(t, px) for t, lv, px, _ in world.quotes(slot) if lv == 0} == firsts
        mid = {r.UP: 5050, r.DOWN: 4950}
        assert all(mid[t] - px < 450 for t, _, px, _ in world.quotes(slot))
        assert any(mid[t] - px >= 450 for t, _, px, _ in plain.quotes(at))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(data=st.data())
def test_what_grows_fits_all_caps(data):
    draw = data.draw
    params = params_block(Strategy(max_imbalance_u6=10**9, severe_imbalance_u6=10**9, rewards={"enabled": True}, capital={
        "side_part": draw(st.sampled_from([0.0, 0.02])), "max_market_exposure_u6": draw(st.sampled_from([0, 30_000_000]))}), 1)["of"][0]
    view, draft = np.zeros(1, VIEW), np.zeros(1, DRAFT)
    v, d = view[0], draft[0]
    bid = draw(st.integers(1, 97))
    v["tick_e4"], v["bid_e4"], v["ask_e4"], v["size_scale"] = 100, bid * 100, (bid + 2) * 100, draw(st.sampled_from([0.7, 1.0]))
    v["mid"] = v["fair"] = draw(st.sampled_from([(bid + 1) / 100, float("nan"), 0.0, 1.0]))
    up, down = draw(st.integers(0, 100)), draw(st.integers(0, 100))
    v["qty_up_u6"], v["qty_down_u6"], v["imbalance_u6"] = up * 10**6, down * 10**6, (up - down) * 10**6
    v["cost_u6"] = (up + down) * 500_000
    v["cash_u6"], v["room_u6"], v["bankroll_u6"] = draw(st.integers(0, 10**8)), draw(st.integers(0, 10**8)), 10**9
    for token in range(2):
        for level in range(MAX_LEVELS):
            d["px_e4"][token, level], d["size_u6"][token, level] = draw(st.integers(-2, 102)) * 100, draw(st.integers(0, 60)) * 10**6
    sizes = d["size_u6"].copy()
    rewards.seek(v, params[0], d)
    for token in range(2):
        assert (d["size_u6"][token, 1:] == sizes[token, 1:]).all()
    if (d["size_u6"] != sizes).any():
        pay = [sum(exposure.cost_of(int(px), int(s)) for px, s in zip(d["px_e4"][t], d["size_u6"][t]) if s > 0) for t in range(2)]
        shares = [int(d["size_u6"][t].sum()) for t in range(2)]
        assert sum(pay) <= v["cash_u6"] and limits.worst(v, shares[0], pay[0], shares[1], pay[1]) <= v["room_u6"]
        assert v["size_scale"] >= 1.0 and 0.0 < v["mid"] < 1.0
