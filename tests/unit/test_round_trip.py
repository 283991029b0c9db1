"""Round trips of PINGs: the average, the time-out, the bands."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmbot.venues.round_trip import TIMEOUT_NS, RoundTrip, band

MS = 1_000_000


def measured(*ms):
    trip, now = RoundTrip(), 1000 * MS
    for value in ms:
        trip.sent(now)
        trip.answered(now + round(value * MS))
        now += 10_000 * MS
    return trip.average_ns / MS


def test_the_first_counts_whole_then_nine_parts_to_one():
    assert measured() == 0
    assert measured(100) == 100
    assert measured(100, 200) == pytest.approx(110)
    assert measured(100, 200, 600) == pytest.approx(159)


def test_from_calm_to_the_kill_limit_takes_seven_bad_answers():
    calm_then_bad = [20] + [1000] * 7
    assert measured(*calm_then_bad[:-1]) < 500 < measured(*calm_then_bad)


def test_no_answer_counts_as_two_seconds():
    trip = RoundTrip()
    trip.sent(MS)
    trip.look(1999 * MS)
    assert trip.average_ns == 0
    trip.look(2001 * MS)
    assert trip.average_ns == TIMEOUT_NS
    trip.answered(2500 * MS)
    assert trip.average_ns == TIMEOUT_NS, "its time was over"


def test_a_ping_that_waits_is_measured_from_its_own_start():
    trip = RoundTrip()
    trip.sent(MS)
    trip.sent(1001 * MS)
    trip.answered(1501 * MS)
    assert trip.average_ns == 1500 * MS


def test_a_new_link_starts_anew():
    trip = RoundTrip()
    trip.sent(MS)
    trip.answered(901 * MS)
    trip.sent(1000 * MS)
    trip.reset()
    trip.answered(1010 * MS)
    assert trip.average_ns == 0


@given(st.lists(st.floats(-10, 1e5), max_size=30))
def test_the_average_stays_within_its_bounds(values):
    assert 0 <= measured(*values) <= TIMEOUT_NS / MS


def test_bands():
    assert [band(ms * MS) for ms in (0, 49, 50, 199, 200, 499, 500, 2000)] == ["", "excellent", "good", "good", "degraded", "degraded", "critical", "critical"]
