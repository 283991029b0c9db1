"""Token buckets: all or nothing, reserve, overdraft, refill by the time that is passed in."""

from hypothesis import given
from hypothesis import strategies as st

from mmbot.execution.rate import NS, TokenBucket


def test_starts_full_and_takes_all_or_nothing():
    b = TokenBucket(40, 60)
    assert b.available(0) == 60
    assert b.take(59, 0)
    assert not b.take(2, 0)
    assert b.take(1, 0)
    assert b.available(0) == 0


def test_refills_at_the_rate_and_not_beyond_the_burst():
    b = TokenBucket(40, 60)
    b.spend(60, 0)
    assert b.available(NS // 2) == 20
    assert b.available(100 * NS) == 60


def test_reserve_is_for_spend_only():
    b = TokenBucket(80, 120, reserve=40)
    assert b.available(0) == 80
    assert not b.take(81, 0)
    assert b.take(80, 0)
    b.spend(50, 0)
    assert b.available(0) == 0
    assert not b.take(1, 0)


def test_overdraft_is_paid_back_first():
    b = TokenBucket(10, 10)
    b.spend(20, 0)
    assert b.available(NS) == 0
    assert b.available(int(1.5 * NS)) == 5


def test_drain_after_429():
    b = TokenBucket(10, 10)
    b.drain(0)
    assert b.available(0) == 0
    assert b.ready_ns(5, 0) >= NS // 2
    assert b.available(b.ready_ns(5, 0)) >= 5


def test_time_that_stands_still_or_goes_back_gives_nothing():
    b = TokenBucket(10, 10)
    b.spend(10, 5 * NS)
    assert b.available(4 * NS) == 0
    assert b.available(5 * NS) == 0


@given(st.lists(st.tuples(st.integers(0, 200_000_000), st.integers(1, 8)), max_size=60))
def test_never_more_than_burst_plus_rate(asks):
    b = TokenBucket(40, 60)
    now = taken = 0
    for step, n in asks:
        now += step
        if b.take(n, now):
            taken += n
    assert taken <= 60 + 40 * now / NS + 1e-6
