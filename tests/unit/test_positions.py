"""Positions: a leg counts once, FAILED takes it back, whatever the order and number of messages."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmbot.execution.order import CANCELING, DONE, LIVE, PENDING, Order
from mmbot.inventory.exposure import of_orders, room_u6
from mmbot.inventory.positions import BOOKED, CONFIRMED, CORRECTED, FINAL, MATCHED, MINED, NOTHING, REVERSED, Positions
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
    assert pos.worst_u6(0, 3_000_000) == 8_000_000          # Down wins and an Up bid of 3 dollars filled too
    assert pos.worst_u6(4_000_000, 0) == 5_000_000          # a Down bid filled and Up wins: the trade fails, 4 are lost, less than 5
    assert pos.worst_u6(6_000_000, 0) == 6_000_000
    p.resolve(M, UP)
    assert pos.worst_u6(0, 0) == 5_000_000                  # a gain of 5 is in the result, and its trade may still fail
    p.apply("t1", "o1", M, UP, BUY, TS_CONFIRMED, 500_000, 10_000_000)
    assert pos.worst_u6(0, 0) == 0


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


# ---- states ----------------------------------------------------------------------------------------------------------


def test_each_share_is_in_exactly_one_state():
    p = Positions()
    for i, status in enumerate((TS_MATCHED, TS_MINED, TS_RETRYING, TS_CONFIRMED, TS_FAILED)):
        p.apply(f"t{i}", "o", M, UP, BUY, status, 500_000, FIVE * (i + 1))
    pos = p.position(M)
    assert [n[UP] for n in pos.net_u6] == [4 * FIVE, 2 * FIVE, 4 * FIVE], "a trade that is tried again is not mined"
    assert pos.qty_u6[UP] == sum(n[UP] for n in pos.net_u6) and pos.pending_u6[UP] == 6 * FIVE
    assert pos.failed_u6 == [5 * FIVE, 0] and p.reversed == 1


def test_retrying_after_mined_is_matched_again_until_it_is_final():
    p = Positions()
    for status in (TS_MINED, TS_RETRYING, TS_MINED):
        p.apply("t", "o", M, UP, BUY, status, 500_000, FIVE)
    assert p.position(M).net_u6[MATCHED] == [FIVE, 0] and p.position(M).net_u6[MINED] == [0, 0]
    assert p.apply("t", "o", M, UP, BUY, TS_CONFIRMED, 500_000, FIVE) == FINAL
    assert p.position(M).net_u6[CONFIRMED] == [FIVE, 0]


def test_terms_that_differ_are_said_once_and_the_later_state_counts():
    p = Positions()
    p.apply("t", "o", M, UP, BUY, TS_MATCHED, 500_000, 100_000_000)
    assert p.apply("t", "o", M, UP, BUY, TS_MINED, 500_000, 99_997_714) == CORRECTED
    assert p.apply("t", "o", M, UP, BUY, TS_MATCHED, 500_000, 100_000_000) == NOTHING
    assert p.position(M).qty_u6 == [99_997_714, 0] and p.position(M).cost_u6 == [49_998_857, 0] and p.conflicts == 1
    assert p.leg_u6("t", "o") == 99_997_714


def test_failed_takes_back_a_buy_whose_shares_were_sold():
    """The rule: as if the leg had never been. What is left says that more was sold than held, until the sale fails too."""
    p = Positions()
    p.apply("t1", "o1", M, UP, BUY, TS_MATCHED, 400_000, 10_000_000)
    p.apply("t2", "o2", M, UP, BUY, TS_CONFIRMED, 600_000, 2_000_001)
    p.apply("t3", "o3", M, UP, SELL, TS_MATCHED, 700_000, 8_000_000)
    p.apply("t1", "o1", M, UP, BUY, TS_FAILED, 400_000, 10_000_000)
    without = Positions()
    without.apply("t2", "o2", M, UP, BUY, TS_CONFIRMED, 600_000, 2_000_001)
    without.apply("t3", "o3", M, UP, SELL, TS_MATCHED, 700_000, 8_000_000)
    assert books(p) == books(without) | {"failed": [10_000_000, 0], "reversed": 1}
    assert p.position(M).qty_u6[UP] == 2_000_001 - 8_000_000 and p.position(M).cost_u6[UP] == 0
    p.apply("t3", "o3", M, UP, SELL, TS_FAILED, 700_000, 8_000_000)
    assert p.position(M).qty_u6 == [2_000_001, 0] and p.position(M).cost_u6 == [1_200_000, 0] and p.realized_u6 == 0


def test_pending_money_and_shares_span_what_the_venue_may_show():
    p = Positions()
    p.apply("t1", "o1", M, UP, BUY, TS_CONFIRMED, 400_000, 10_000_000)
    p.apply("t2", "o2", M, UP, BUY, TS_MATCHED, 500_000, 4_000_000)
    p.apply("t3", "o3", M, UP, SELL, TS_MINED, 600_000, 3_000_000, fee_u6=1_000)
    assert p.share_range_u6(M, UP) == (7_000_000, 14_000_000) and p.share_range_u6(M, DOWN) == (0, 0) == p.share_range_u6(M + 1, UP)
    assert p.pending_cash_u6() == (2_000_000, 1_799_000)
    assert p.unsettled(M) and not p.unsettled(M + 1)
    p.apply("t2", "o2", M, UP, BUY, TS_FAILED, 500_000, 4_000_000)
    p.apply("t3", "o3", M, UP, SELL, TS_CONFIRMED, 600_000, 3_000_000, fee_u6=1_000)
    assert p.share_range_u6(M, UP) == (7_000_000, 7_000_000) and p.pending_cash_u6() == (0, 0) and not p.unsettled(M)


def books(p: Positions) -> dict:
    """Everything a ledger says."""
    pos = p.position(M)
    return {"bought": pos.bought_u6, "paid": pos.paid_u6, "sold": pos.sold_u6, "got": pos.got_u6, "fees": pos.fees_u6, "net": pos.net_u6,
            "failed": pos.failed_u6, "reserve": pos.reserve_u6, "qty": pos.qty_u6, "cost": pos.cost_u6, "realized": pos.realized_u6,
            "worst": pos.worst_u6(), "legs": pos.fills, "fills": p.fills, "reversed": p.reversed, "conflicts": p.conflicts, "volume": p.volume_u6,
            "spent": p.spent_u6, "all_fees": p.fees_u6, "pending": p.pending_cash_u6(), "range": [p.share_range_u6(M, t) for t in (UP, DOWN)]}


LIVES = ([TS_MATCHED], [TS_MATCHED, TS_MINED], [TS_MATCHED, TS_RETRYING], [TS_MATCHED, TS_MINED, TS_CONFIRMED], [TS_MATCHED, TS_FAILED],
         [TS_MATCHED, TS_RETRYING, TS_MINED, TS_CONFIRMED], [TS_MATCHED, TS_RETRYING, TS_FAILED], [TS_MINED, TS_RETRYING, TS_MINED],
         [TS_MATCHED, TS_FAILED, TS_CONFIRMED])
HISTORY = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.sampled_from([UP, DOWN]), st.sampled_from([BUY, BUY, SELL]),
                             st.integers(1, 9_999), st.integers(1, 40_000_000), st.sampled_from(LIVES), st.integers(0, 30_000), st.booleans()),
                   max_size=8, unique_by=lambda leg: leg[:2])


def messages(history):
    """Canonical message list: each leg's life in order. A disputed leg has one message whose size has dust on it."""
    out = []
    for trade, order, token, side, px, size, life, fee, disputed in history:
        for i, status in enumerate(life):
            out.append((trade, order, M, token, side, status, px * 100, size + (disputed and i == 0), fee))
    return out


@settings(max_examples=300, deadline=None)
@given(HISTORY, st.integers(0, 2**32))
def test_any_order_and_any_repeats_of_the_messages_end_in_the_same_books(history, seed):
    """Property, over histories with sales, fees, failures, retries, contradictions: the books are a function of the set of messages."""
    canonical, shuffled = Positions(), Positions()
    told = messages(history)
    for m in told:
        canonical.apply(*m)
    rng = random.Random(seed)
    repeated = [m for m in told for _ in range(rng.randint(1, 4))]
    rng.shuffle(repeated)
    for m in repeated:
        shuffled.apply(*m)
    assert books(shuffled) == books(canonical)


@settings(max_examples=150, deadline=None)
@given(HISTORY, st.integers(0, 2**32))
def test_failed_legs_leave_nothing_but_their_count(history, seed):
    """Property: books in which legs failed equal books that never saw them, also when their shares were sold in between."""
    legs = [leg for leg in history if not leg[8]]
    rng, real, clean = random.Random(seed), Positions(), Positions()
    doomed = {leg[:2] for leg in legs if rng.random() < 0.5}
    for leg in legs:
        real.apply(leg[0], leg[1], M, leg[2], leg[3], TS_MATCHED, leg[4] * 100, leg[5], leg[7])
        if leg[:2] not in doomed:
            clean.apply(leg[0], leg[1], M, leg[2], leg[3], TS_MATCHED, leg[4] * 100, leg[5], leg[7])
    for leg in rng.sample(legs, len(legs)):
        if leg[:2] in doomed:
            assert real.apply(leg[0], leg[1], M, leg[2], leg[3], TS_FAILED, leg[4] * 100, leg[5], leg[7]) == REVERSED
    ignored = ("failed", "reversed")
    assert {k: v for k, v in books(real).items() if k not in ignored} == {k: v for k, v in books(clean).items() if k not in ignored}
    assert real.reversed == len(doomed)


# ---- the worst case --------------------------------------------------------------------------------------------------


def pnl(legs, outcome):
    """Dollars (1e-6) of a set of legs (token, side, px_u6, size, fee) when ``outcome`` wins."""
    total = 0
    for token, side, px, size, fee in legs:
        cash, worth = px * size // 1_000_000, size if token == outcome else 0
        total += (worth - cash if side == BUY else cash - worth) - fee
    return total


CASES = st.lists(st.tuples(st.sampled_from([UP, DOWN]), st.sampled_from([BUY, BUY, SELL]), st.integers(1, 99).map(lambda c: c * 10_000),
                           st.integers(1, 30).map(lambda n: n * 1_000_000), st.sampled_from([0, 0, 10_000])), max_size=4)
STATES = ((LIVE, False), (PENDING, True), (CANCELING, False), (CANCELING, True), (DONE, False))


@settings(max_examples=200, deadline=None)
@given(CASES, CASES, CASES, st.integers(0, 2**32))
def test_the_worst_case_is_the_maximum_over_everything_that_may_happen(final, pending, open_, seed):
    """Brute force: every outcome, every set of trades that are not final failing, every set of orders filling, whatever their state."""
    p, rng, orders, tail = Positions(), random.Random(seed), {}, {}
    for i, (token, side, px, size, fee) in enumerate(final):
        p.apply(("final", i), "o", M, token, side, TS_CONFIRMED, px, size, fee)
    for i, (token, side, px, size, fee) in enumerate(pending):
        p.apply(("pending", i), "o", M, token, side, rng.choice((TS_MATCHED, TS_MINED, TS_RETRYING)), px, size, fee)
    for i, (token, side, px, size, _) in enumerate(open_):
        state, unknown = rng.choice(STATES)
        o = Order(f"0x{i}", (0,) * 4, M, token, 0, side, px // 100, size, state, 0)
        o.unknown, o.final = unknown, False         # over by a cancel's answer, how much was matched is not known
        (tail if state == DONE else orders)[o.order_id] = o
    free = [(*o[:4], 0) for o in open_]
    worst = max(-pnl([*final, *happened, *filled], outcome)
                for n in range(len(pending) + 1) for happened in itertools.combinations(pending, n)
                for k in range(len(free) + 1) for filled in itertools.combinations(free, k) for outcome in (UP, DOWN))
    pos = p.position(M)
    assert pos.worst_u6(*of_orders(orders, tail).if_u6) == max(worst + pos.realized_u6, 0)


def test_room_is_what_the_cap_leaves_and_hedges_keep_theirs():
    p = Positions()
    p.apply("t", "o", M, UP, BUY, TS_CONFIRMED, 600_000, 100_000_000)           # loses 60 if Down wins, gains 40 if Up wins
    pos = p.position(M)
    assert room_u6(100_000_000, 0, None, None) == (100_000_000, 100_000_000)
    assert room_u6(100_000_000, 30_000_000, pos, None) == (110_000_000, 10_000_000)
    assert room_u6(10_000_000, 30_000_000, pos, None) == (100_000_000, 0), "above the cap only what does not raise the greatest loss has room"
    left = Order("0x1", (0,) * 4, M, UP, 0, BUY, 5000, 10_000_000, DONE, 0)
    left.final = False
    assert room_u6(100_000_000, 30_000_000, pos, of_orders({"0x1": left})) == (110_000_000, 5_000_000)
