"""Capital: the published split and sizes to the cent, Kelly against its definition, and no number that is not one."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmbot.risk import capital

ANY = st.floats(allow_nan=True, allow_infinity=True)


def test_the_published_split():
    balance = 72_920_000
    parts = [capital.part_u6(balance, p) for p in (0.78, 0.20, 0.02)]
    assert parts == [56_880_000, 14_580_000, 1_460_000] and sum(parts) == balance


def test_the_published_sizes():
    each = capital.per_market_u6(56_880_000, 5)
    assert each == 11_380_000
    assert capital.shares_for(each, 0.50) == pytest.approx(22.76) and capital.shares_for(each, 0.05) == pytest.approx(227.6)


def test_kelly_known_answers():
    assert capital.kelly(0.6, 0.5) == pytest.approx(0.2)            # even odds: p - q
    assert capital.kelly(0.5, 0.5) == pytest.approx(0.0, abs=1e-12)
    assert capital.kelly(0.4, 0.5) == pytest.approx(-0.2)
    assert [capital.kelly_part(p, 0.5, 0.05, 0.15) for p in (0.4, 0.501, 0.55, 0.9)] == pytest.approx([0.0, 0.05, 0.1, 0.15])


@given(st.floats(0.001, 0.999), st.floats(0.001, 0.999))
def test_kelly_is_the_edge_over_what_can_be_won(p, px):
    assert capital.kelly(p, px) == pytest.approx((p - px) / (1 - px), abs=1e-9)


@given(ANY, ANY)
def test_kelly_part_stays_in_its_bounds(p, px):
    f = capital.kelly_part(p, px, 0.05, 0.15)
    assert f == 0.0 or 0.05 <= f <= 0.15


@given(st.integers(0, 10**15), ANY)
def test_shares_and_parts_are_numbers(dollars, x):
    assert math.isfinite(capital.shares_for(dollars, x)) and capital.shares_for(dollars, x) >= 0.0
    assert capital.part_u6(dollars, x) >= 0


@given(st.integers(0, 10**13), st.integers(-3, 50))
def test_markets_together_use_no_more_than_a_cent_each_beyond_the_capital(dollars, markets):
    each = capital.per_market_u6(dollars, markets)
    assert each >= 0 and each * max(markets, 0) <= dollars + max(markets, 0) * capital.CENT_U6 // 2 + 1
