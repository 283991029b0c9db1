"""Fees: both published tables to the last digit printed, the venue's rounding, and no number that is not one."""

from datetime import date
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmbot.quoting.fees import fee_per_share, taker_fee_u6
from mmbot.venues.polymarket.fees import BY_NAME, SCHEDULES, payable_u6, rebate_u6, schedule_on

#: fee of 100 shares by price, as published
CURRENT = {0.01: 0.07, 0.05: 0.33, 0.10: 0.63, 0.15: 0.89, 0.20: 1.12, 0.25: 1.31, 0.30: 1.47, 0.35: 1.59, 0.40: 1.68, 0.45: 1.73, 0.50: 1.75,
           0.55: 1.73, 0.60: 1.68, 0.65: 1.59, 0.70: 1.47, 0.75: 1.31, 0.80: 1.12, 0.85: 0.89, 0.90: 0.63, 0.95: 0.33, 0.99: 0.07}
JANUARY = {0.10: 0.02, 0.30: 0.33, 0.50: 0.78, 0.70: 0.77, 0.90: 0.18}
#: fee of 100 dollars by price on the January curve, as published for the client that computes it
JANUARY_CASH = {0.50: 1.5625, 0.30: 1.1025, 0.10: 0.2025, 0.05: 0.05640625, 0.01: 0.00245025}


@pytest.mark.parametrize("px, fee", CURRENT.items())
def test_the_current_table(px, fee):
    assert round(BY_NAME["current"].fee_u6(100_000_000, round(px * 1e6)) / 1e6, 2) == pytest.approx(fee, abs=1e-9)
    assert 100 * fee_per_share(px, 0.07, 1.0) == pytest.approx(fee, abs=0.005 + 1e-9)


@pytest.mark.parametrize("px, fee", JANUARY.items())
def test_the_january_table(px, fee):
    assert round(BY_NAME["january"].fee_u6(100_000_000, round(px * 1e6)) / 1e6, 2) == pytest.approx(fee)


@pytest.mark.parametrize("px, fee", JANUARY_CASH.items())
def test_the_january_curve_is_on_dollars(px, fee):
    assert taker_fee_u6(100_000_000, round(px * 1e6), 250_000, 2) == int(fee * 1e5 + 1e-9) * 10


def test_at_half_a_share_of_the_cash():
    assert BY_NAME["january"].fee_u6(2_000_000, 500_000) == 15_620, "1.5625 % of a dollar, 5 decimals, down"
    assert BY_NAME["current"].fee_u6(2_000_000, 500_000) == 35_000, "3.5 %"


def test_schedules_by_date():
    assert [schedule_on(d).name for d in (date(2025, 12, 31), date(2026, 1, 6), date(2026, 3, 29), date(2026, 3, 30), date(2026, 11, 1))] == [
        "none", "january", "january", "march", "current"]
    assert list(SCHEDULES) == sorted(SCHEDULES, key=lambda s: s.since) and len(BY_NAME) == len(SCHEDULES)
    assert BY_NAME["none"].fee_u6(100_000_000, 500_000) == 0


def test_smallest_charge():
    assert taker_fee_u6(400, 500_000, 70_000, 1) == 0            # 0.000007
    assert taker_fee_u6(10_000, 500_000, 70_000, 1) == 170       # 0.000175


@given(st.integers(0, 10**13), st.integers(1, 999_999), st.integers(0, 250_000), st.integers(0, 2))
def test_equals_exact_arithmetic(size, px, rate, exponent):
    p = Fraction(px, 10**6)
    exact = Fraction(size, 1) * Fraction(rate, 10**6) * (p * (1 - p)) ** exponent
    assert taker_fee_u6(size, px, rate, exponent) == int(exact // 10 * 10)


@given(st.integers(1, 10**12), st.integers(1, 999_999))
def test_symmetric_in_the_price(size, px):
    assert taker_fee_u6(size, px, 70_000, 1) == taker_fee_u6(size, 1_000_000 - px, 70_000, 1)


@pytest.mark.parametrize("size, px, rate", [(0, 500_000, 70_000), (-5, 500_000, 70_000), (10**6, 0, 70_000), (10**6, 10**6, 70_000),
                                            (10**6, -1, 70_000), (10**6, 2 * 10**6, 70_000), (10**6, 500_000, 0)])
def test_nothing_to_charge(size, px, rate):
    assert taker_fee_u6(size, px, rate, 1) == 0


@pytest.mark.parametrize("px", [0.0, 1.0, -0.1, 1.1, float("nan"), float("inf")])
def test_fee_per_share_of_no_price(px):
    assert fee_per_share(px, 0.07, 1.0) == 0.0


def test_rebates():
    assert rebate_u6(1_000_000, 500_000, 70_000, 1) == 3_500, "0.35 cent a share at a half"
    assert payable_u6(999_999) == 0 and payable_u6(1_000_000) == 1_000_000
