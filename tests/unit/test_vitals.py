"""The vitals page: histogram arithmetic, counters, link rows, error slots, restart."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm_layout import ring, vitals
from shm_layout.segment import Space, words_dtype
from shm_layout.vitals import BUCKETS, HOPS, VitalsReader, VitalsWriter, bucket_bounds, bucket_of, merge, percentiles


@pytest.fixture
def space():
    s = Space(f"t-vitals-{os.getpid()}")
    s.wipe()
    s.create_missing({"r": SimpleNamespace(record=words_dtype(4), depth=8)}, {}, ["core"])
    yield s
    s.wipe()


@pytest.fixture
def writer(space):
    w = VitalsWriter(space.own("vitals.core"), "core", 1)
    yield w
    w.segment.release()


def snapshot(space):
    return VitalsReader(space.attach("vitals.core")).snapshot()


def histogram(values):
    counts = np.zeros(BUCKETS, np.int64)
    for v in values:
        counts[bucket_of(v)] += 1
    return counts


@given(st.integers(0, 2**40 - 1))
def test_a_value_lies_in_its_bucket_which_is_narrow(value):
    low, high = bucket_bounds(bucket_of(value))
    assert low <= value <= high
    assert (high - low) * 32 <= max(low, 31)


def test_buckets_tile_the_range_without_gap():
    bounds = [bucket_bounds(b) for b in range(BUCKETS)]
    assert bounds[0] == (0, 0) and bounds[-1][1] == 2**40 - 1
    assert all(a[1] + 1 == b[0] for a, b in zip(bounds, bounds[1:], strict=False))


def test_values_off_the_scale_are_kept_at_its_ends():
    assert bucket_of(-5) == 0
    assert bucket_of(2**40) == bucket_of(2**62) == BUCKETS - 1


@given(st.lists(st.integers(0, 2**35), min_size=1, max_size=200), st.floats(0, 1))
def test_percentiles_are_within_a_thirtysecond(values, q):
    exact = sorted(values)[max(1, -int(-q * len(values) // 1)) - 1]
    assert abs(percentiles(histogram(values), [q])[0] - exact) <= exact / 32


def test_empty_histogram():
    assert percentiles(np.zeros(BUCKETS, np.int64), [0, 0.5, 1]) == [0, 0, 0]
    assert merge([]).sum() == 0


def test_histograms_add():
    a, b = [10, 1000, 5], [7, 10**6]
    assert (merge([histogram(a), histogram(b)]) == histogram(a + b)).all()


def test_everything_written_is_read(space, writer):
    writer.set_state(vitals.RUN)
    writer.beat(123)
    writer.busy(12.34)
    writer.switches(9)
    writer.event("orders")
    writer.event("orders", 4)
    writer.hop("recv_send", 50_000)
    vitals.hist_record(writer.mem, vitals.hop_base("recv_send"), 70_000)
    writer.cycle(10)
    writer.cycle(2_000_000)
    s = snapshot(space)
    assert (s["name"], s["pid"], s["epoch"], s["cpu"]) == ("core", os.getpid(), 1, 1)
    assert (s["state"], s["state_name"], s["heartbeat_ns"], s["busy_pct"]) == (vitals.RUN, "RUN", 123, 12.34)
    assert s["events"]["orders"] == 5 and sum(s["events"].values()) == 5
    assert s["hops"]["recv_send"].sum() == 2 and s["hop_max_ns"]["recv_send"] == 70_000
    assert s["hop_sum_ns"]["recv_send"] == 120_000 and set(s["hops"]) == set(HOPS)
    assert (s["cycles"], s["cycle_max_ns"], s["stalls"], s["involuntary_switches"]) == (2, 2_000_000, 1, 9)
    reader = VitalsReader(space.attach("vitals.core"))
    assert reader.heartbeat_ns() == 123 and reader.state() == vitals.RUN and vitals.alive(reader.segment)


def test_link_rows(space, writer):
    w, r = ring.RingWriter(space.own("r")), ring.RingReader(space.attach("r"))
    for _ in range(3):
        w.publish()
    assert r.poll()
    r.observe(1)
    writer.links([("md.market", r.link)])
    [row] = snapshot(space)["links"]
    assert row == {"ring": "md.market", "cursor": 1, "consumed": 1, "lapped_polling": 0, "lapped_reading": 0, "lost": 0,
                   "lag": 2, "lag_max": 2, "oldest_unread_age_ns": 0}
    writer.links([])
    assert snapshot(space)["links"] == []
    with pytest.raises(ValueError, match="13 links"):
        writer.links([("x", r.link)] * 13)
    w.segment.release()


def test_errors_are_distinct_counted_and_newest_first(space, writer):
    for i in range(10):
        writer.error("bad frame", f"text {i}", 100 + i)
    writer.error("other", "ü" * 100, 50)
    first, second = snapshot(space)["errors"]
    assert first == {"code": "bad frame", "count": 10, "first_ns": 100, "last_ns": 109, "text": "text 9"}
    assert second["text"] == "ü" * 60


def test_the_oldest_error_makes_room(space, writer):
    for i in range(9):
        writer.error(f"code {i}", "", i + 1)
    assert [e["code"] for e in snapshot(space)["errors"]] == [f"code {i}" for i in range(8, 0, -1)]


def test_a_code_longer_than_its_slot_is_still_one_code(space, writer):
    for _ in range(2):
        writer.error("x" * 40, "", 1)
    assert [e["count"] for e in snapshot(space)["errors"]] == [2]


def test_a_restart_keeps_the_errors_and_clears_the_rest(space, writer):
    writer.error("crash", "the reason", 5)
    writer.event("orders")
    writer.hop("recv_send", 5)
    writer.set_state(vitals.RUN)
    writer.segment.release()
    again = VitalsWriter(space.own("vitals.core"), "core")
    s = snapshot(space)
    assert s["epoch"] == 2 and s["state"] == vitals.BOOT and s["events"]["orders"] == 0 and s["hops"]["recv_send"].sum() == 0
    again.error("crash", "again", 9)
    assert [(e["code"], e["count"], e["first_ns"]) for e in snapshot(space)["errors"]] == [("crash", 2, 5)]
    again.segment.release()


def test_unknown_names_are_errors(writer):
    for call in (lambda: writer.event("oders"), lambda: writer.hop("recv", 1), lambda: vitals.hop_base("x"),
                 lambda: vitals.event_word("x")):
        with pytest.raises(KeyError):
            call()


def test_the_page_is_read_only_for_others(space, writer):
    reader = VitalsReader(space.attach("vitals.core"))
    with pytest.raises(ValueError, match="read-only"):
        reader.mem[64] = 1
    with pytest.raises(TypeError):
        vitals.hist_record(reader.mem, vitals.hop_base("recv_send"), 5)
