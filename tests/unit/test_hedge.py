"""Hedge analysis: the options of a position by hand, and what must hold for any position and book."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmbot.inventory.hedge import analyse
from shm_layout.records import DOWN, UP

SHARES = 1_000_000


def by_name(h):
    return {o.name: o for o in h.options}


def test_a_losing_up_position():
    """100 Up at 0.60, now 0.40 bid and 0.42 asked, fair 0.41; fee 100 * 0.07 * 0.24 = 1.68."""
    h = analyse((120 * SHARES, 20 * SHARES), (72_000_000, 8_000_000), 400_000, 420_000, 0.41, 70_000, 1, merge_cost=0.0005, sell_cost=0.001)
    assert (h.token, h.unpaired_u6, h.cost_u6, h.pairs_u6) == (UP, 100 * SHARES, 60_000_000, 20 * SHARES)
    o = by_name(h)
    assert o["hold"][1:6] == (0, -60_000_000, 40_000_000, -19_000_000, 0) and o["hold"].breakeven == pytest.approx(0.6)
    sell, merge = o["sell"], o["buy the other and merge"]
    assert sell.fee_u6 == merge.fee_u6 == 1_680_000
    assert sell.cash_u6 == 40_000_000 - 1_680_000 - 100_000 and sell.worst_u6 == sell.best_u6 == sell.cash_u6 - 60_000_000
    assert merge.cash_u6 == -60_000_000 - 1_680_000 - 50_000 and merge.worst_u6 == -60_000_000 + 40_000_000 - 1_730_000
    assert sell.breakeven == pytest.approx(0.3822) and merge.breakeven == pytest.approx(0.3827)
    assert [x.name for x in h.options] == ["hold", "buy the other and merge", "sell"], "worth 0.41, brings 0.383"


def test_when_the_model_gives_it_up_selling_is_best():
    h = analyse((100 * SHARES, 0), (60_000_000, 0), 400_000, 420_000, 0.30, 70_000, 1)
    assert [x.name for x in h.options][-1] == "hold" and by_name(h)["sell"].expected_u6 > by_name(h)["hold"].expected_u6


def test_down_is_the_mirror_of_up():
    up = analyse((100 * SHARES, 0), (60_000_000, 0), 400_000, 420_000, 0.41, 70_000, 1)
    down = analyse((0, 100 * SHARES), (0, 60_000_000), 580_000, 600_000, 0.59, 70_000, 1)
    assert down.token == DOWN and [o[:6] for o in up.options] == [o[:6] for o in down.options]


@pytest.mark.parametrize("qty", [(0, 0), (5 * SHARES, 5 * SHARES)])
def test_nothing_unpaired(qty):
    assert analyse(qty, (0, 0), 400_000, 420_000, 0.5, 70_000, 1) is None


@pytest.mark.parametrize("bid, ask", [(0, 420_000), (0, 0)])
def test_without_a_bid_only_holding_is_left(bid, ask):
    h = analyse((100 * SHARES, 0), (60_000_000, 0), bid, ask, 0.5, 70_000, 1)
    assert [o.name for o in h.options] == ["hold"]


@given(st.integers(0, 10**10), st.integers(0, 10**10), st.integers(0, 10**10), st.integers(0, 10**10), st.integers(0, 10**6), st.integers(0, 10**6),
       st.floats(allow_nan=True, allow_infinity=True))
def test_any_position_any_book(up, down, cost_up, cost_down, bid, ask, fair):
    h = analyse((up, down), (cost_up, cost_down), bid, ask, fair, 70_000, 1)
    if h is None:
        assert up == down
        return
    assert h.unpaired_u6 == abs(up - down) and h.options == tuple(sorted(h.options, key=lambda o: -o.expected_u6))
    for o in h.options:
        assert all(math.isfinite(x) for x in o[1:]) and 0.0 <= o.breakeven <= 1.0 and o.worst_u6 <= o.expected_u6 <= o.best_u6 and o.fee_u6 >= 0
    hold = by_name(h)["hold"]
    assert hold.worst_u6 == -h.cost_u6 and hold.best_u6 - hold.worst_u6 == h.unpaired_u6
