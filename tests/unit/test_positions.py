"""Positions: a leg counts once, FAILED takes it back, whatever the order and number of messages."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmbot.inventory.positions import BOOKED, FINAL, NOTHING, REVERSED, Positions
from shm_layout.records import BUY, DOWN, SELL, TS_CONFIRMED, TS_FAILED, TS_MATCHED, TS_MINED, TS_RETRYING, UP

M = 1775028600015
FIVE = 5_000_000


def test_four_repeats_count_once():
    p = Positions()
    results = [p.apply("t1", "o1", M, UP, BUY, s, 520_000, FIVE) for s in (TS_MATCHED, TS_MATCHED, TS_MINED, TS_CONFIRMED)]
    assert results == [BOOKED, NOTHING, NOTHING, FINAL]
    pos = p.position(M)
    assert pos.qty_u6 == [FIVE, 0] and pos.cost_u6 == [2_600_000, 0] and pos.pending_u6 == [0, 0]
    assert p.fills == 1 and p.volume_u6 == 2_600_000


def test_pending_until_confirmed():
    p = Positions()
    p.apply("t1", "o1", M, DOWN, BUY, TS_MATCHED, 480_000, FIVE)
    assert p.position(M).pending_u6 == [0, FIVE]
    p.apply("t1", "o1", M, DOWN, BUY, TS_MINED, 480_000, FIVE)
    assert p.position(M).pending_u6 == [0, FIVE]
    p.apply("t1", "o1", M, DOWN, BUY, TS_CONFIRMED, 480_000, FIVE)
    assert p.position(M).pending_u6 == [0, 0]


def test_failed_reverses_to_the_last_unit():
    p = Positions()
    p.apply("t0", "o0", M, UP, BUY, TS_CONFIRMED, 333_300, 7_770_001)
    before = (list(p.position(M).qty_u6), list(p.position(M).cost_u6), p.fills, p.volume_u6)
    p.apply("t1", "o1", M, UP, BUY, TS_MATCHED, 517_700, 5_120_003)
    assert p.apply("t1", "o1", M, UP, BUY, TS_RETRYING, 517_700, 5_120_003) == NOTHING
    assert p.apply("t1", "o1", M, UP, BUY, TS_FAILED, 517_700, 5_120_003) == REVERSED
    assert p.apply("t1", "o1", M, UP, BUY, TS_FAILED, 517_700, 5_120_003) == NOTHING
    assert (p.position(M).qty_u6, p.position(M).cost_u6, p.fills, p.volume_u6) == before
    assert p.position(M).pending_u6 == [0, 0]


def test_failed_before_matched_never_books():
    p = Positions()
    assert p.apply("t1", "o1", M, UP, BUY, TS_FAILED, 520_000, FIVE) == NOTHING
    assert p.apply("t1", "o1", M, UP, BUY, TS_MATCHED, 520_000, FIVE) == NOTHING
    assert p.fills == 0


def test_same_trade_fills_several_own_orders():
    p = Positions()
    for order in ("o1", "o2", "o3"):
        assert p.apply("t1", order, M, UP, BUY, TS_MATCHED, 500_000, FIVE) == BOOKED
    assert p.position(M).qty_u6 == [3 * FIVE, 0]


def test_both_sides_of_one_trade_may_be_ours_on_two_tokens():
    p = Positions()
    p.apply("t1", "o1", M, UP, BUY, TS_MATCHED, 520_000, FIVE)
    p.apply("t1", "o2", M, DOWN, BUY, TS_MATCHED, 470_000, FIVE)
    assert p.position(M).qty_u6 == [FIVE, FIVE]
    assert p.position(M).cost_u6 == [2_600_000, 2_350_000]


def test_final_words_that_disagree_are_counted_and_the_chain_wins():
    p = Positions()
    p.apply("t1", "o1", M, UP, BUY, TS_CONFIRMED, 520_000, FIVE)
    assert p.apply("t1", "o1", M, UP, BUY, TS_FAILED, 520_000, FIVE) == NOTHING
    assert p.conflicts == 1 and p.position(M).qty_u6 == [FIVE, 0]
    p.apply("t2", "o2", M, UP, BUY, TS_FAILED, 520_000, FIVE)
    assert p.apply("t2", "o2", M, UP, BUY, TS_CONFIRMED, 520_000, FIVE) == BOOKED
    assert p.conflicts == 2 and p.position(M).qty_u6 == [2 * FIVE, 0] and p.position(M).pending_u6 == [0, 0]


def test_sell_takes_average_cost_and_realises():
    p = Positions()
    p.apply("t1", "o1", M, UP, BUY, TS_CONFIRMED, 400_000, 10_000_000)
    p.apply("t2", "o2", M, UP, SELL, TS_MATCHED, 600_000, 4_000_000, fee_u6=10_000)
    pos = p.position(M)
    assert pos.qty_u6 == [6_000_000, 0] and pos.cost_u6 == [2_400_000, 0]
    assert pos.realized_u6 == 2_400_000 - 1_600_000 - 10_000
    assert p.volume_u6 == 4_000_000 + 2_400_000
    p.apply("t2", "o2", M, UP, SELL, TS_FAILED, 600_000, 4_000_000)
    assert pos.qty_u6 == [10_000_000, 0] and pos.cost_u6 == [4_000_000, 0] and pos.realized_u6 == 0 and p.volume_u6 == 4_000_000


def test_outcome_realises_and_retiring_keeps_the_total():
    p = Positions()
    p.apply("t1", "o1", M, UP, BUY, TS_CONFIRMED, 520_000, FIVE)
    p.apply("t2", "o2", M, DOWN, BUY, TS_CONFIRMED, 470_000, FIVE)
    assert p.realized_u6 == 0
    assert p.resolve(M, DOWN)
    assert not p.resolve(M, DOWN)
    assert p.realized_u6 == FIVE - 2_600_000 - 2_350_000 == 50_000
    p.retire(M)
    assert p.realized_u6 == 50_000 and not p.by_market and not p._legs


def test_failure_after_the_outcome_still_corrects_the_result():
    p = Positions()
    p.apply("t1", "o1", M, UP, BUY, TS_MATCHED, 520_000, FIVE)
    p.resolve(M, UP)
    assert p.realized_u6 == 2_400_000
    p.apply("t1", "o1", M, UP, BUY, TS_FAILED, 520_000, FIVE)
    assert p.realized_u6 == 0


def test_worst_case_takes_the_less_welcome_fills():
    p = Positions()
    p.apply("t1", "o1", M, UP, BUY, TS_MATCHED, 500_000, 10_000_000)
    pos = p.position(M)
    assert pos.worst_u6(0, 0) == 5_000_000
    assert pos.worst_u6(3_000_000, 0) == 8_000_000          # Down wins and the Up bid filled too
    assert pos.worst_u6(0, 4_000_000) == 5_000_000          # Down filled: if Down wins that helps, if Up wins 10 shares pay
    p.resolve(M, UP)
    assert pos.worst_u6(3_000_000, 4_000_000) == 0


LEG = st.tuples(st.integers(0, 3), st.integers(0, 2), st.sampled_from([UP, DOWN]), st.integers(1, 9_999), st.integers(1, 40_000_000),
                st.booleans())


@settings(max_examples=150, deadline=None)
@given(st.lists(LEG, max_size=10, unique_by=lambda leg: leg[:2]), st.integers(0, 2**32), st.integers(1, 4))
def test_any_shuffle_with_any_repeats_gives_the_same_books(legs, seed, copies):
    """Property: quantities, cost and pending depend on the set of legs and their final words only."""
    rng = random.Random(seed)
    messages, qty, cost = [], [0, 0], [0, 0]
    for trade, order, token, px, size, failed in legs:
        life = [TS_MATCHED, TS_RETRYING, TS_MINED, TS_FAILED if failed else TS_CONFIRMED]
        messages += [(trade, order, M, token, BUY, s, px * 100, size) for s in life for _ in range(rng.randint(1, copies))]
        if not failed:
            qty[token] += size
            cost[token] += px * 100 * size // 1_000_000
    rng.shuffle(messages)
    p = Positions()
    for m in messages:
        p.apply(*m)
    pos = p.position(M)
    assert (pos.qty_u6, pos.cost_u6, pos.pending_u6) == (qty, cost, [0, 0])
    assert p.fills == sum(not leg[5] for leg in legs) and p.conflicts == 0


@pytest.mark.parametrize("status", [TS_MINED, TS_RETRYING, TS_CONFIRMED])
def test_a_leg_first_seen_late_still_counts(status):
    p = Positions()
    assert p.apply("t", "o", M, UP, BUY, status, 500_000, FIVE) == BOOKED
    assert p.apply("t", "o", M, UP, BUY, TS_MATCHED, 500_000, FIVE) == NOTHING
    assert p.position(M).qty_u6 == [FIVE, 0]
