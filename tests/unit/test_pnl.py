"""The parts of the result: each alone in a small story, and their sum against cash and shares at mid, for any story."""

from hypothesis import given
from hypothesis import strategies as st

from mmbot.inventory.pnl import HORIZON_NS, ONE_U6, Attribution
from shm_layout.records import BUY, DOWN, SELL, UP

M, SHARES = 7, 10_000_000


def cents(split, mid_u6):
    """(spread, adverse, inventory, fees) in cents."""
    return tuple(round(x / 1e10) for x in (split.spread_e12, split.adverse_e12, split.inventory_e12(mid_u6), split.fees_u6 * ONE_U6))


def test_a_maker_fill_is_spread_then_adverse_then_inventory():
    a = Attribution()
    a.fill(M, ("t", "o"), UP, BUY, SHARES, 480_000, 0, 3_494, 500_000, 0)
    assert cents(a.by_market[M], 500_000) == (20, 0, 0, 0)
    assert not a.look(HORIZON_NS - 1, lambda m: 460_000) and a.due_ns == HORIZON_NS
    assert a.look(HORIZON_NS, lambda m: 460_000)
    assert cents(a.by_market[M], 450_000) == (20, -40, -10, 0)
    assert a.by_market[M].result_e12(450_000) == SHARES * (450_000 - 480_000)
    assert a.sums_u6() == (200_000, -400_000, 3_494)


def test_down_is_the_mirror_of_up_and_a_sale_of_a_buy():
    for token, side, px in ((DOWN, SELL, 520_000), (DOWN, BUY, 480_000), (UP, SELL, 520_000)):
        a = Attribution()
        a.fill(M, ("t", "o"), token, side, SHARES, px, 0, 0, 500_000, 0)
        a.look(HORIZON_NS, lambda m: 540_000)
        adverse = 40 if (token == DOWN) == (side == SELL) else -40
        assert cents(a.by_market[M], 540_000) == (20, adverse, 0, 0)


def test_a_taker_pays_spread_and_fee():
    a = Attribution()
    a.fill(M, ("t", "o"), UP, BUY, SHARES, 510_000, 174_930, 0, 500_000, 0)
    assert cents(a.by_market[M], 500_000) == (-10, 0, 0, 17)


def test_what_fails_is_gone_and_what_is_corrected_keeps_its_mid():
    a = Attribution()
    a.fill(M, ("t", "o"), UP, BUY, SHARES, 480_000, 0, 5, 500_000, 0)
    a.fill(M, ("t", "o"), UP, BUY, 2 * SHARES, 480_000, 0, 10, 600_000, 1)
    assert cents(a.by_market[M], 500_000) == (40, 0, 0, 0) and a.sums_u6()[2] == 10
    a.undo(M, ("t", "o"))
    a.undo(M, ("t", "o"))
    assert a.sums_u6() == (0, 0, 0) and a.by_market[M].result_e12(123) == 0
    assert not a.look(HORIZON_NS, lambda m: 1)


def test_a_fill_without_a_mid_is_all_inventory():
    a = Attribution()
    a.fill(M, ("t", "o"), DOWN, BUY, SHARES, 480_000, 0, 0, None, 0)
    assert cents(a.by_market[M], 0) == (0, 0, 520, 0) and a.due_ns > HORIZON_NS


def test_fills_of_late_orders_are_summed_apart():
    a = Attribution()
    a.fill(M, ("t", "o"), UP, BUY, SHARES, 480_000, 0, 0, 500_000, 0)
    a.fill(M, ("u", "p"), UP, BUY, SHARES, 480_000, 10_000, 0, 500_000, 0, late=True)
    assert a.late_u6() == 190_000
    a.look(HORIZON_NS, lambda m: 450_000)
    assert a.late_u6() == -310_000 == SHARES * (450_000 - 480_000) // ONE_U6 - 10_000
    a.forget(M)
    assert a.late_u6() == -310_000


def test_sums_outlive_their_window():
    a = Attribution()
    a.fill(M, ("t", "o"), UP, BUY, SHARES, 480_000, 0, 9, 500_000, 0)
    before = a.sums_u6()
    a.forget(M)
    assert a.sums_u6() == before and M not in a.by_market
    a.look(HORIZON_NS, lambda m: 1)
    assert a.sums_u6() == before


LEG = st.tuples(st.integers(0, 6), st.sampled_from([UP, DOWN]), st.sampled_from([BUY, SELL]), st.integers(1, 10**9), st.integers(1, 999_999),
                st.integers(0, 10**6), st.none() | st.integers(0, 10**6), st.integers(0, 3 * HORIZON_NS), st.booleans())


@given(st.lists(LEG, max_size=25), st.integers(0, 10**6), st.integers(0, 4 * HORIZON_NS), st.integers(0, 10**6))
def test_the_parts_sum_to_cash_and_shares_at_mid(legs, now_mid, looked_at, later_mid):
    a, counted = Attribution(), {}
    for key, token, side, size, px, fee, mid, now, fails in sorted(legs, key=lambda leg: leg[7]):
        if fails:
            a.undo(M, (key,))
            counted.pop(key, None)
        else:
            a.fill(M, (key,), token, side, size, px, fee, 0, mid, now)
            counted[key] = token, side, size, px, fee
    a.look(looked_at, lambda m: later_mid if later_mid % 7 else None)
    result = 0
    for token, side, size, px, fee in counted.values():
        worth = now_mid if token == UP else ONE_U6 - now_mid
        result += (size if side == BUY else -size) * (worth - px) - fee * ONE_U6
    found = a.by_market[M].result_e12(now_mid) if M in a.by_market else 0
    assert found == result
