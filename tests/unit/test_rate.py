"""Token buckets: burst, rate, reserve, overdraft; the time is passed in."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmbot.execution.rate import NS, STANDARD, TIERS, RateBudget, TokenBucket
from mmbot.ops.doctor import rate_finding
from shm_layout import records as r


def test_starts_full():
    b = TokenBucket(40, 60)
    assert b.available(0) == 60
    b.spend(60, 0)
    assert b.available(0) == 0


def test_refills_at_the_rate_and_not_beyond_the_burst():
    b = TokenBucket(40, 60)
    b.spend(60, 0)
    assert b.available(NS // 2) == 20
    assert b.available(100 * NS) == 60


def test_the_reserve_is_not_offered_but_can_be_spent():
    b = TokenBucket(80, 120, reserve=40)
    assert b.available(0) == 80
    b.spend(80, 0)
    assert b.available(0) == 0
    b.spend(40, 0)
    assert b.available(NS // 2) == 0
    assert b.available(NS) == 40


def test_overdraft_is_paid_back_first():
    b = TokenBucket(10, 10)
    b.spend(20, 0)
    assert b.available(NS) == 0
    assert b.available(int(1.5 * NS)) == 5


def test_drain_after_429():
    b = TokenBucket(10, 10)
    b.drain(0)
    assert b.available(0) == 0
    b.spend(5, 0)
    b.drain(0)
    assert b.available(NS) == 5, "draining forgives no debt"


def test_time_that_stands_still_or_goes_back_gives_nothing():
    b = TokenBucket(10, 10)
    b.spend(10, 5 * NS)
    assert b.available(4 * NS) == 0
    assert b.available(5 * NS) == 0


@given(st.lists(st.tuples(st.integers(0, 200_000_000), st.integers(1, 8)), max_size=60))
def test_who_spends_what_is_available_never_exceeds_burst_plus_rate(asks):
    b = TokenBucket(40, 60)
    now = spent = 0
    for step, n in asks:
        now += step
        if b.available(now) >= n:
            b.spend(n, now)
            spent += n
    assert spent <= 60 + 40 * now / NS + 1e-6


def test_three_owners_of_cancel_tokens():
    b = TokenBucket(80, 120, reserve=40, reserved=40)
    assert (b.available(0), b.for_safety(0)) == (40, 80)
    b.spend(60, 0)
    assert (b.available(0), b.for_safety(0)) == (0, 20)
    b.spend(20, 0)
    assert b.for_safety(0) == 0 and b.wait_ns(1) == 12_500_000 and b.for_safety(12_500_000) == 1


def test_the_venues_count_only_lowers_ours():
    b = TokenBucket(40, 60)
    b.told(-1, 0)
    b.told(100, 0)
    assert b.available(0) == 60
    b.told(7, 0)
    assert b.available(0) == 7


class TestBudget:
    def test_standard_until_a_tier_is_named(self):
        b = RateBudget(STANDARD[1:], 40, 40)
        assert (b.tier, b.orders.available(0), b.cancels.for_safety(0)) == (-1, 60, 80)
        b.orders.spend(60, 0)
        assert b.seen_tier("gold") and not b.seen_tier("Gold") and not b.seen_tier("unheard of")
        assert TIERS[b.tier].name == "gold" and b.orders.burst == 600 and b.orders.available(0) == 540, "what is spent stays spent"

    def test_a_cap_of_the_operator_is_kept(self):
        b = RateBudget((10, 20, 80, 120), 40, 40)
        assert b.seen_tier("elite") and b.orders.burst == 20 and b.cancels.burst == 120

    def test_a_small_bucket_is_shared(self):
        b = RateBudget((40, 60, 10, 12), 40, 40)
        assert b.cancels.for_safety(0) == 6 and b.cancels.available(0) == 2


def test_the_doctor_names_the_tier_that_the_venue_has_told():
    account = np.zeros((), r.ACCOUNT)
    account["tier"], account["order_tokens"], account["cancel_tokens"] = 0, 57, 119
    assert rate_finding(account).detail == f"{TIERS[0].name}, 57 order and 119 cancel tokens"
    account["tier"] = -1
    assert rate_finding(account).detail.startswith("not said yet")
