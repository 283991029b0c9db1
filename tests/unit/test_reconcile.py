"""Desired x live -> plan: safety at once, churn waits, one order per level, never a mint against ourselves."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmbot.execution.order import CANCELING, DONE, LEVELS, LIVE, PENDING, Order
from mmbot.execution.reconcile import KEYS, NEVER_NS, ONE_E4, SHED_CHURN, SHED_LEVELS, Limits, diff
from shm_layout.records import BUY, DOWN, QK_POST_ONLY, UP

MS = 1_000_000
TWENTY = 20_000_000
NOW = 10_000 * MS
_ids = iter(range(1, 1 << 40))


def order(token=UP, level=0, px=5000, size=TWENTY, state=LIVE, matched=0):
    n = next(_ids)
    o = Order(f"0x{n:064x}", (0, 0, 0, n), 1, token, level, BUY, px, size, state, 0)
    o.matched_u6 = o.booked_u6 = matched
    return o


def quote(token=UP, level=0, px=5000, size=TWENTY):
    return token, level, BUY, QK_POST_ONLY, px, size


def test_first_quotes_are_posted_at_once():
    plan = diff([quote(), quote(DOWN, 0, 4900)], [], Limits(), NOW)
    assert plan.posts == [quote(), quote(DOWN, 0, 4900)] and not plan.cancels and plan.again_ns == NEVER_NS


def test_a_satisfied_quote_is_left_alone():
    plan = diff([quote()], [order()], Limits(), NOW)
    assert not plan.posts and not plan.cancels and not plan.deferred


def test_a_vanished_quote_is_cancelled_whatever_the_churn_and_the_budget_say():
    lim = Limits(orders=0, cancels=0)
    lim.last_ns = [NOW] * KEYS
    o = order()
    plan = diff([], [o], lim, NOW)
    assert plan.cancels == [o] and plan.urgent


def test_a_too_aggressive_bid_is_cancelled_and_replaced_at_once():
    lim = Limits(cancels=0)
    lim.last_ns = [NOW] * KEYS
    o = order(px=5100)
    plan = diff([quote(px=5000)], [o], lim, NOW)
    assert plan.cancels == [o] and plan.posts == [quote(px=5000)] and plan.n_safe == 1 and not plan.urgent


def test_a_too_aggressive_bid_is_cancelled_even_when_its_replacement_must_wait():
    o = order(px=5100)
    plan = diff([quote(px=5000)], [o], Limits(orders=0), NOW)
    assert plan.cancels == [o] and not plan.posts and plan.deferred == 1 and plan.urgent


def test_a_better_price_waits_for_the_interval_and_then_goes():
    lim = Limits()
    lim.last_ns[0] = NOW - 100 * MS
    o = order(px=5000)
    plan = diff([quote(px=5100)], [o], lim, NOW)
    assert not plan.cancels and not plan.posts and plan.deferred == 1 and plan.again_ns == NOW + 150 * MS
    plan = diff([quote(px=5100)], [o], lim, plan.again_ns)
    assert plan.cancels == [o] and plan.posts == [quote(px=5100)] and not plan.urgent


def test_reprice_ticks():
    lim = Limits(tick_e4=10, reprice_ticks=3)
    o = order(px=5000)
    assert not diff([quote(px=5020)], [o], lim, NOW).posts
    assert diff([quote(px=5030)], [o], lim, NOW).posts
    assert diff([quote(px=4990)], [o], lim, NOW).posts, "toward safety no tick is too small"


@pytest.mark.parametrize(("size", "moves"), [(TWENTY, False), (19_000_000, False), (21_500_000, False), (16_000_000, True), (30_000_000, True)])
def test_resize_fraction(size, moves):
    plan = diff([quote(size=size)], [order()], Limits(), NOW)
    assert bool(plan.posts) == bool(plan.cancels) == moves


def test_a_partial_fill_counts_in_the_size_comparison():
    assert not diff([quote(size=8_000_000)], [order(matched=12_000_000)], Limits(), NOW).posts
    assert diff([quote(size=TWENTY)], [order(matched=12_000_000)], Limits(), NOW).posts


def test_no_replacement_without_both_tokens():
    o = order(px=5000)
    for lim in (Limits(orders=0), Limits(cancels=0)):
        plan = diff([quote(px=5100)], [o], lim, NOW)
        assert not plan.cancels and not plan.posts and plan.deferred == 1 and plan.again_ns < NEVER_NS


def test_posts_stop_at_the_budget():
    plan = diff([quote(level=i, px=5000 - 100 * i) for i in range(4)], [], Limits(orders=3), NOW)
    assert len(plan.posts) == 3 and plan.deferred == 1


def test_hold_delays_a_post_but_no_cancel():
    lim = Limits()
    lim.hold_ns[0] = NOW + 50 * MS
    o = order(px=5100)
    plan = diff([quote(px=5000)], [o], lim, NOW)
    assert plan.cancels == [o] and not plan.posts and plan.again_ns == NOW + 50 * MS


@pytest.mark.parametrize("state", [PENDING, CANCELING])
def test_a_key_with_an_open_question_is_busy(state):
    plan = diff([quote(px=4900)], [order(px=5000, state=state)], Limits(), NOW)
    assert not plan.cancels and not plan.posts and plan.deferred == 1


def test_a_doomed_order_goes_whatever_is_desired():
    o = order()
    o.doomed = True
    plan = diff([quote()], [o], Limits(orders=0, cancels=0), NOW)
    assert plan.cancels == [o] and plan.urgent and plan.n_safe == 1 and not plan.posts


@pytest.mark.parametrize("shed", [SHED_CHURN, SHED_LEVELS])
def test_load_is_shed_from_the_outside(shed):
    lim = Limits()
    lim.shed = shed
    better, dear = order(UP, px=5000), order(DOWN, px=4900)
    plan = diff([quote(UP, 0, 5100), quote(DOWN, 0, 4800), quote(DOWN, 1, 4700)], [better, dear], lim, NOW)
    assert plan.cancels == [dear], "toward safety nothing is shed, churn is"
    assert [q[1] for q in plan.posts] == ([0, 1] if shed == SHED_CHURN else [0])
    assert NOW < plan.again_ns < NEVER_NS


def test_two_live_orders_at_one_level_lose_the_second():
    a, b = order(), order()
    plan = diff([quote()], [a, b], Limits(), NOW)
    assert plan.cancels == [b]


class TestSelfMint:
    def test_desired_pair_that_sums_to_one_is_cut(self):
        plan = diff([quote(UP, 0, 5200), quote(DOWN, 0, 4800)], [], Limits(), NOW)
        assert plan.posts == [quote(UP, 0, 5200)] and plan.mint == 1

    def test_a_raise_waits_until_the_other_bid_is_gone(self):
        up, down = order(UP, px=5000), order(DOWN, px=4900)
        plan = diff([quote(UP, 0, 5100), quote(DOWN, 0, 4800)], [up, down], Limits(), NOW)
        assert plan.cancels == [down] and plan.posts == [quote(DOWN, 0, 4800)] and plan.mint == 1
        down.state = DONE
        low = order(DOWN, px=4800)
        plan = diff([quote(UP, 0, 5100), quote(DOWN, 0, 4800)], [up, low], Limits(), NOW)
        assert plan.cancels == [up] and plan.posts == [quote(UP, 0, 5100)]

    @pytest.mark.parametrize("state", [PENDING, LIVE, CANCELING])
    def test_every_order_that_may_rest_counts(self, state):
        plan = diff([quote(UP, 0, 5100)], [order(DOWN, 1, 4900, state=state)], Limits(), NOW)
        assert not plan.posts and plan.mint == 1

    def test_any_level_against_any_level(self):
        plan = diff([quote(UP, 3, 5100)], [order(DOWN, 1, 4899, state=CANCELING)], Limits(tick_e4=1), NOW)
        assert plan.posts


def test_bad_quotes_are_left_out_and_counted():
    bad = [quote(px=0), quote(level=1, px=10_000), quote(level=2, px=5050), quote(level=3, size=4_000_000)]
    plan = diff([*bad, quote(DOWN)], [], Limits(), NOW)
    assert plan.invalid == 4 and plan.posts == [quote(DOWN)]


def test_cash_counts_old_and_new_order_together():
    lim = Limits(cash_u6=15_000_000)
    o = order(px=5000)                                      # reserves 10 dollars
    assert not diff([quote(px=5100)], [o], lim, NOW).posts  # 10 + 10.2 > 15: the old order stays
    assert not diff([quote(px=5100)], [o], lim, NOW).cancels
    lim.cash_u6 = 21_000_000
    assert diff([quote(px=5100)], [o], lim, NOW).posts


PX = st.integers(1, 99).map(lambda p: p * 100)
QUOTES = st.dictionaries(st.tuples(st.integers(0, 1), st.integers(0, LEVELS - 1)), st.tuples(PX, st.integers(5, 60)), max_size=KEYS).map(
    lambda d: [(t, lv, BUY, QK_POST_ONLY, px, s * 1_000_000) for (t, lv), (px, s) in d.items()])
ORDERS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, LEVELS - 1), PX, st.integers(5, 60), st.sampled_from([PENDING, LIVE, CANCELING])), max_size=12).map(
    lambda rows: [order(t, lv, px, s * 1_000_000, state) for t, lv, px, s, state in rows])


@settings(max_examples=300, deadline=None)
@given(QUOTES, ORDERS, st.integers(0, 8), st.integers(0, 8), st.lists(st.integers(-500, 500), min_size=KEYS, max_size=KEYS))
def test_properties_of_every_plan(desired, orders, n_orders, n_cancels, ages):
    lim = Limits(orders=n_orders, cancels=n_cancels, cash_u6=200_000_000)
    lim.last_ns = [NOW + a * MS for a in ages]
    lim.hold_ns = [NOW + a * MS for a in reversed(ages)]
    plan = diff(desired, orders, lim, NOW)
    want = {q[0] * LEVELS + q[1]: q for q in desired}
    assert len(plan.posts) <= n_orders
    assert all(o.state == LIVE for o in plan.cancels) and len(set(plan.cancels)) == len(plan.cancels)
    for o in orders:            # safety
        q = want.get(o.key)
        if o.state == LIVE and (q is None or q[4] < o.px_e4):
            assert o in plan.cancels
    kept = [o for o in orders if o not in plan.cancels and o.state in (LIVE, PENDING)]
    for q in plan.posts:        # one order per key that is not on its way out; no third one behind an open cancel
        key = q[0] * LEVELS + q[1]
        assert q == want[key] and lim.hold_ns[key] <= NOW
        assert not [o for o in kept if o.key == key] and not [o for o in orders if o.key == key and o.state != LIVE]
    for token in (UP, DOWN):    # no mint against ourselves, cancels under way included
        for q in plan.posts:
            if q[0] == token:
                others = [o.px_e4 for o in orders if o.token != token] + [p[4] for p in plan.posts if p[0] != token]
                assert all(q[4] + px < ONE_E4 for px in others)
    reserved = sum(o.px_e4 * o.size_u6 for o in orders) + sum(q[4] * q[5] for q in plan.posts)
    assert not plan.posts or reserved <= 200_000_000 * ONE_E4
    posted = {q[0] * LEVELS + q[1] for q in plan.posts}
    assert plan.urgent or all(o.key in posted for o in plan.cancels)
    assert all(o.key in posted for o in plan.cancels[plan.n_safe:])
    churn = [o for o in plan.cancels if want.get(o.key) and want[o.key][4] >= o.px_e4 and sum(x.key == o.key for x in orders) == 1]
    assert len(churn) <= max(n_cancels, 0) and all(any(q[0] * LEVELS + q[1] == o.key for q in plan.posts) for o in churn)


@settings(max_examples=150, deadline=None)
@given(st.lists(QUOTES, min_size=1, max_size=6), st.integers(1, 60))
def test_a_venue_that_always_agrees_converges_on_the_target(targets, steps_each):
    """Each plan is carried out in full; after the last target stands still, orders equal it (its mint-free part) and stay equal."""
    lim, live, now = Limits(), [], NOW
    for desired in targets:
        for _ in range(steps_each % 4 + 1):
            now += 40 * MS
            live = carry_out(diff(desired, live, lim, now), live, lim, now)
    desired = [q for q in targets[-1] if q[0] == UP or q[4] + max((p[4] for p in targets[-1] if p[0] == UP), default=0) < ONE_E4]
    for _ in range(40):
        now += 40 * MS
        live = carry_out(diff(desired, live, lim, now), live, lim, now)
    have = {(o.token, o.level): o for o in live}
    assert set(have) == {(q[0], q[1]) for q in desired} and len(have) == len(live)
    for q in desired:
        o = have[q[0], q[1]]
        assert o.px_e4 == q[4] and abs(o.size_u6 - q[5]) * 10 <= q[5]
    last = diff(desired, live, lim, now + 1000 * MS)
    assert not last.posts and not last.cancels


def carry_out(plan, live, lim, now):
    for o in plan.cancels:
        o.state = DONE
    for q in plan.posts:
        live.append(order(q[0], q[1], q[4], q[5]))
        lim.last_ns[q[0] * LEVELS + q[1]] = now
    return [o for o in live if o.state != DONE]
