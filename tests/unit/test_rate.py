"""Token buckets: burst, rate, reserve, overdraft; the time is passed in."""

from hypothesis import given
from hypothesis import strategies as st

from mmbot.execution.rate import NS, TokenBucket


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
