"""Two sources of the same prints: which counts, what a contradiction does, who is frozen."""

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mmbot.venues.polymarket import prints
from mmbot.venues.polymarket.prints import Merger, Print, Watch
from shm_layout import records as r

ROLL = 1795186800000
E18 = 10**18
S = 1_000_000_000
RECORDED = Path(os.environ.get("MMBOT_CAPTURES", "/nonexistent")) / "polymarket/chainlink_btcusd_1hz_2026-06-08.parquet"


def a_print(t_obs, value=84608 * E18 + 7, source=r.OS_RTDS, kind=r.OK_TWAP60):
    return Print(kind, t_obs, (t_obs + 1300) * 10**6, value, source)


@pytest.fixture
def state():
    return np.zeros(1, r.ORACLE_STATE)[0]


def held(state, t_obs=ROLL):
    b = state["boundary"][prints.boundary_index(t_obs)]
    return int(b["t_obs_ms"]), int(b["trusted"])


def test_the_first_arrival_counts_and_the_second_is_no_news(state):
    merger = Merger(state)
    assert merger.take(a_print(ROLL, source=r.OS_POLYBOLT), 5) == (True, True, "", prints.boundary_index(ROLL))
    assert merger.take(a_print(ROLL), 9) == (False, False, "", -1)
    assert (state["twap60"]["source"], state["twap60"]["t_recv_ns"]) == (r.OS_POLYBOLT, 5)
    assert held(state) == (ROLL, 1)


def test_one_digit_of_difference_takes_the_trust_for_good(state):
    merger = Merger(state)
    merger.take(a_print(ROLL), 5)
    taken = merger.take(a_print(ROLL, 84608 * E18 + 8, r.OS_POLYBOLT), 6)
    assert "RTDS said 84608000000000000000007 and PolyBolt says 84608000000000000000008" in taken.conflict
    assert taken.boundary == prints.boundary_index(ROLL) and held(state) == (ROLL, 0) and state["twap60"]["trusted"] == 0
    assert merger.take(a_print(ROLL), 7).boundary == -1 and held(state) == (ROLL, 0), "it does not come back"
    assert state["boundary"][taken.boundary]["px_frac_e18"] == 7, "the first arrival's value stands"


def test_a_contradiction_away_from_a_boundary_touches_no_strike(state):
    merger = Merger(state)
    merger.take(a_print(ROLL), 5)
    merger.take(a_print(ROLL + 1000), 5)
    taken = merger.take(a_print(ROLL + 1000, E18, r.OS_POLYBOLT), 6)
    assert taken.conflict and taken.boundary == -1 and held(state) == (ROLL, 1)


def test_a_strike_kept_over_a_restart_is_compared_too(state):
    Merger(state).take(a_print(ROLL), 5)
    again = Merger(state)
    assert again.take(a_print(ROLL, source=r.OS_POLYBOLT), 6).fresh is False
    assert again.take(a_print(ROLL, E18, r.OS_POLYBOLT), 7).conflict and held(state) == (ROLL, 0)


def test_a_snapshot_brings_back_the_boundary_that_was_missed(state):
    merger = Merger(state)
    merger.take(a_print(ROLL - 1000), 5)
    merger.take(a_print(ROLL + 2000), 5)
    assert held(state) == (ROLL + 2000, 0)
    taken = merger.take(a_print(ROLL, source=r.OS_POLYBOLT), 6)
    assert (taken.fresh, taken.newest) == (True, False) and held(state) == (ROLL, 1)
    assert state["twap60"]["t_obs_ms"] == ROLL + 2000


def test_the_venues_word_takes_the_trust(state):
    merger = Merger(state)
    merger.take(a_print(ROLL), 5)
    assert merger.distrust_boundary(ROLL // 1000) == prints.boundary_index(ROLL) and held(state) == (ROLL, 0)
    assert merger.distrust_boundary(ROLL // 1000) == -1 and merger.distrust_boundary(ROLL // 1000 + 300) == -1


def test_missing_seconds_are_counted_when_no_source_will_bring_them(state):
    merger = Merger(state)
    for s in (0, 1, 2, 5, 6, 7, 8):
        merger.take(a_print(ROLL + s * 1000), 5)
    assert merger.missing == 1, "second 4 may still come"
    merger.take(a_print(ROLL + 4000, source=r.OS_POLYBOLT), 5)
    for s in range(9, 20):
        merger.take(a_print(ROLL + s * 1000), 5)
    assert merger.missing == 1


def test_a_boundary_without_any_print_is_said_once(state):
    merger = Merger(state)
    merger.take(a_print(ROLL - 5000), 5)
    merger.take(a_print(ROLL + 15_000), 5)
    assert merger.missing_boundary() == 0, "a stand-in came within its time"
    merger.take(a_print(ROLL + 299_000), 5)
    merger.take(a_print(ROLL + 315_000 + 1000), 5)
    assert merger.missing_boundary() == ROLL // 1000 + 300 and merger.missing_boundary() == 0
    late = Merger(np.zeros(1, r.ORACLE_STATE)[0])
    late.take(a_print(ROLL + 100_000), 5)
    assert late.missing_boundary() == 0, "before we listened nothing is missing"


def running_watch(now):
    watch = Watch()
    for source in prints.SOURCES:
        watch.connected(source, now)
    return watch


def test_one_source_falls_silent_and_the_other_convicts_it_within_two_seconds():
    t0 = 100 * S
    watch = running_watch(t0)
    frozen_at, found = t0 + 10 * S, 0
    for tick in range(0, 200):
        now = t0 + tick * S // 10
        for source in prints.SOURCES:
            if tick % 10 == 3 + source and not (source == r.OS_RTDS and now >= frozen_at):
                watch.heard(source, now)
                watch.seen(a_print(ROLL + tick // 10 * 1000, source=source), now)
        assert not watch.frozen(r.OS_POLYBOLT, now)
        if watch.frozen(r.OS_RTDS, now) and not found:
            found = now
    assert found and found - frozen_at < 2 * S


def test_a_slower_source_is_given_its_delay_before_it_is_convicted():
    watch = running_watch(S)
    for source in prints.SOURCES:
        watch.heard(source, 2 * S)
        watch.seen(a_print(ROLL, source=source), 2 * S)
    arrives = 2 * S + prints.SILENT_NS + S // 5
    watch.heard(r.OS_POLYBOLT, arrives)
    watch.seen(a_print(ROLL + 1000, source=r.OS_POLYBOLT), arrives)
    assert not watch.frozen(r.OS_RTDS, arrives + S // 5), "the other had it just now"
    assert watch.frozen(r.OS_RTDS, arrives + prints.SLOWER_NS + 1)


def test_both_silent_convicts_nobody():
    watch = running_watch(0)
    for source in prints.SOURCES:
        watch.heard(source, S)
        watch.seen(a_print(ROLL, source=source), S)
    assert not any(watch.frozen(source, now * S) for source in prints.SOURCES for now in range(1, 20))


def test_one_kind_that_stands_still_on_a_talking_socket_is_frozen_too():
    watch = running_watch(S)
    for s in range(10):
        now = (2 + s) * S
        watch.heard(r.OS_RTDS, now)
        watch.heard(r.OS_POLYBOLT, now)
        watch.seen(a_print(ROLL + s * 1000, source=r.OS_POLYBOLT), now)
        watch.seen(a_print(ROLL + s * 1000, source=r.OS_RTDS, kind=r.OK_SPOT), now)
        watch.seen(a_print(ROLL + min(s, 2) * 1000, source=r.OS_RTDS), now)
    assert watch.frozen(r.OS_RTDS, 12 * S) == "its TWAP-60 is 7 prints behind PolyBolt"


def test_a_source_that_speaks_after_its_conviction_was_not_frozen():
    watch = running_watch(S)
    watch.heard(r.OS_POLYBOLT, 3 * S)
    watch.seen(a_print(ROLL, source=r.OS_POLYBOLT), 2 * S)
    assert watch.frozen(r.OS_RTDS, 3 * S) and watch.false_alarms == 0
    watch.heard(r.OS_RTDS, 3 * S + 1)
    assert watch.false_alarms == 1
    watch.connected(r.OS_RTDS, 4 * S)
    watch.heard(r.OS_RTDS, 5 * S)
    assert watch.false_alarms == 1


def test_a_new_link_is_not_behind_for_what_it_cannot_know():
    watch = Watch()
    watch.connected(r.OS_RTDS, S)
    watch.connected(r.OS_POLYBOLT, S)
    watch.heard(r.OS_POLYBOLT, S + 1)
    watch.seen(a_print(ROLL, source=r.OS_POLYBOLT), S + 1)
    assert not watch.frozen(r.OS_RTDS, S + S // 2)


def alarms_over(rows, own_holes):
    """(time of observation, why) of every alarm against the recorded source; the other one is complete, or has the same holes."""
    watch, out = running_watch(rows[0][1]), []
    events = [(recv, r.OS_RTDS, obs) for obs, recv in rows]
    if own_holes:
        events += [((s + 1) * S - S // 7, r.OS_POLYBOLT, s * 1000) for s in range(rows[0][0] // 1000, rows[-1][0] // 1000)]
        events += [(s * S + 2 * S // 3, 0, 0) for s in range(rows[0][0] // 1000, rows[-1][0] // 1000)]       # the relay of Binance goes on
    else:
        events += [(recv - 90_000_000, r.OS_POLYBOLT, obs) for obs, recv in rows]
    tick = rows[0][1]
    for now, source, obs in sorted(events):
        while tick < now:
            if why := watch.frozen(r.OS_RTDS, tick):
                out.append((tick, why))
                watch.connected(r.OS_RTDS, tick + S // 2)
            tick += S // 10
        watch.heard(source or r.OS_RTDS, now)
        if source:
            watch.seen(a_print(obs, source=source, kind=r.OK_SPOT), now)
    return out


@pytest.mark.skipif(not RECORDED.exists(), reason="needs the folder of recordings (MMBOT_CAPTURES)")
@pytest.mark.parametrize("own_holes", [False, True])
def test_a_recorded_day_raises_no_false_alarm(own_holes):
    table = pq.read_table(RECORDED, columns=["feed_ts_ms", "recv_ms"]).to_pydict()
    rows = sorted({(int(o), int(v) * 1_000_000) for o, v in zip(table["feed_ts_ms"], table["recv_ms"])}, key=lambda row: row[1])
    found = alarms_over(rows, own_holes)
    if not own_holes:
        assert found == [], "a hole of both sources accuses nobody"
        return
    arrivals, late = np.array([v for _, v in rows]), np.array([v - o * 1_000_000 for o, v in rows])
    unexplained = 0
    for t, _why in found:
        at = min(int(np.searchsorted(arrivals, t)), len(rows) - 1)      # the print after the alarm: it ends a hole, or drains one
        unexplained += max(arrivals[at] - arrivals[at - 1], late[at - 8:at + 1].max()) < (prints.LAG_PRINTS - 0.5) * S
    holes = np.flatnonzero(np.diff(arrivals) > (prints.LAG_PRINTS + 3) * S)
    accused = {int(np.searchsorted(arrivals, t)) - 1 for t, _why in found}
    assert unexplained == 0 and found, "each alarm lies in a recorded hole, or in its backlog"
    assert set(holes.tolist()) <= accused, "and no hole goes unseen"
