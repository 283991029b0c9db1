"""Order amounts: known vectors, both official clients over a grid of all ticks, and what must be refused."""

import random
import sys
from pathlib import Path

import pytest

from mmbot.execution.amounts import TICKS, AmountError, market_amounts, order_amounts, price_text
from shm_layout.records import BUY, SELL

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
from official_clients import unified_limit_amounts, unified_market_amounts, v2_amounts  # noqa: E402


@pytest.mark.parametrize("side, px_e4, size_u6, tick_e4, expected", [
    (BUY, 5200, 5_000_000, 100, (2600000, 5000000)),
    (SELL, 5200, 5_000_000, 100, (5000000, 2600000)),
    (BUY, 5700, 13_337_000, 100, (7598100, 13330000)),
    (BUY, 9610, 7_770_000, 10, (7466970, 7770000)),
    (BUY, 375, 12_340_000, 25, (462750, 12340000)),
    (BUY, 1234, 12_340_000, 1, (1522756, 12340000)),
])
def test_limit_vectors(side, px_e4, size_u6, tick_e4, expected):
    assert order_amounts(side, px_e4, size_u6, tick_e4) == expected


@pytest.mark.parametrize("px_e4, amount_u6, tick_e4, expected", [
    (9610, 4_990_000, 10, (4990000, 5192500)),
    (300, 10_000_000, 100, (10000000, 333333300)),
])
def test_market_buy_vectors(px_e4, amount_u6, tick_e4, expected):
    assert market_amounts(BUY, px_e4, amount_u6, tick_e4) == expected


@pytest.mark.parametrize("tick_e4, px_e4", [(1, 9999), (1, 9998), (1, 7001), (25, 9975), (10, 9990), (50, 9950), (100, 9900), (100, 300)])
def test_rounding_up_first_as_the_clients_do_changes_nothing(tick_e4, px_e4):
    """The worst fractions are those of the largest denominators: a whole period of amounts at the highest prices."""
    for amount_u6 in [*range(10_000, 4_000_000, 10_000), *range(97_000_000, 101_000_000, 10_000)]:
        assert market_amounts(BUY, px_e4, amount_u6, tick_e4) == unified_market_amounts(BUY, px_e4, amount_u6, tick_e4)


@pytest.mark.parametrize("size_u6", [5_100_000, 5_020_000, 8_200_000])
def test_sizes_that_float_clients_cut_short_are_whole(size_u6):
    assert order_amounts(BUY, 5000, size_u6, 100)[1] == size_u6
    assert v2_amounts(BUY, 5000, size_u6, 100)[1] == size_u6 - 10_000, "the float client has been mended: compare with it everywhere"


@pytest.mark.parametrize("tick_e4", TICKS)
def test_limit_amounts_equal_the_decimal_client(tick_e4):
    rng = random.Random(tick_e4)
    for _ in range(400):
        px_e4, size_u6, side = rng.randrange(1, 10_000 // tick_e4) * tick_e4, rng.randrange(10_000, 2_000_000_000), rng.randrange(2)
        assert order_amounts(side, px_e4, size_u6, tick_e4) == unified_limit_amounts(side, px_e4, size_u6, tick_e4)


@pytest.mark.parametrize("tick_e4", TICKS)
def test_market_amounts_equal_the_decimal_client(tick_e4):
    rng = random.Random(tick_e4 + 1)
    for _ in range(400):
        px_e4, amount_u6, side = rng.randrange(1, 10_000 // tick_e4) * tick_e4, rng.randrange(10_000, 2_000_000_000), rng.randrange(2)
        assert market_amounts(side, px_e4, amount_u6, tick_e4) == unified_market_amounts(side, px_e4, amount_u6, tick_e4)


@pytest.mark.parametrize("tick_e4", TICKS)
def test_limit_amounts_equal_the_float_client_where_it_is_right(tick_e4):
    rng, wrong, n = random.Random(tick_e4 + 2), 0, 500
    for _ in range(n):
        px_e4, size_u6, side = rng.randrange(1, 10_000 // tick_e4) * tick_e4, rng.randrange(500, 200_000) * 10_000, rng.randrange(2)
        mine, theirs = order_amounts(side, px_e4, size_u6, tick_e4), v2_amounts(side, px_e4, size_u6, tick_e4)
        if mine != theirs:
            wrong += 1
            shares = size_u6 - 10_000
            assert theirs == order_amounts(side, px_e4, shares, tick_e4), "it is wrong by exactly one hundredth of a share"
    assert wrong < n * 0.12


@pytest.mark.parametrize("tick_e4", TICKS)
def test_a_market_buy_never_offers_less_than_the_price(tick_e4):
    rng = random.Random(tick_e4 + 3)
    for _ in range(300):
        px_e4 = rng.randrange(1, 10_000 // tick_e4) * tick_e4
        cash_u6, shares_u6 = market_amounts(BUY, px_e4, rng.randrange(100, 100_000) * 10_000, tick_e4)
        assert cash_u6 * 10_000 >= px_e4 * shares_u6


@pytest.mark.parametrize("call, text", [
    (lambda: order_amounts(BUY, 5200, 5_000_000, 7), "tick size 0.0007 is unknown"),
    (lambda: order_amounts(BUY, 5230, 5_000_000, 50), "price 0.523 is not a multiple of the tick size 0.005"),
    (lambda: order_amounts(BUY, 5210, 5_000_000, 25), "not a multiple of the tick size 0.0025"),
    (lambda: order_amounts(BUY, 50, 5_000_000, 100), "outside [0.01, 0.99]"),
    (lambda: order_amounts(BUY, 9950, 5_000_000, 100), "outside [0.01, 0.99]"),
    (lambda: order_amounts(BUY, 10_000, 5_000_000, 1), "outside [0.0001, 0.9999]"),
    (lambda: order_amounts(BUY, 5200, 9_999, 100), "less than one hundredth of a share"),
    (lambda: order_amounts(BUY, 5200, -5_000_000, 100), "less than one hundredth of a share"),
    (lambda: order_amounts(2, 5200, 5_000_000, 100), "neither BUY (0) nor SELL (1)"),
    (lambda: market_amounts(2, 5200, 5_000_000, 100), "neither BUY (0) nor SELL (1)"),
    (lambda: market_amounts(BUY, 5200, 0, 100), "less than one hundredth"),
    (lambda: market_amounts(BUY, 40, 5_000_000, 100), "outside [0.01, 0.99]"),
    (lambda: market_amounts(BUY, 5230, 5_000_000, 50), "not a multiple"),
    (lambda: market_amounts(SELL, 5299, 5_000_000, 100), "not a multiple of the tick size 0.01"),
])
def test_refusals_name_the_number_and_the_rule(call, text):
    with pytest.raises(AmountError) as e:
        call()
    assert text in str(e.value)


def test_price_text():
    assert [price_text(p) for p in (5200, 1, 10_000, 0, 25, 9999)] == ["0.52", "0.0001", "1", "0", "0.0025", "0.9999"]
