"""The guardian's judgement: every reason can shut the gate alone, and it opens only after all was sound for a while."""

import pytest

from mmbot.execution.watch import (REFUSALS, RIVAL_CLEAN, RIVAL_HOLD_NS, RIVAL_WINDOW_NS, RUN, UNREACHABLE_NS, WATCHED, BeatJudge, Seen, SkewJudge,
                                    Watch, clock_skew_s, decide)
from shm_layout import vitals
from shm_layout.records import GUARD_BIT

MS = 1_000_000
NOW = 10_000 * MS
LIMIT = 400 * MS


def sound(now=NOW):
    return {name: Seen(True, RUN, now - 50 * MS) for name in WATCHED}


def test_run_is_the_state_of_the_vitals_page():
    assert RUN == vitals.RUN


def test_all_sound():
    assert decide(sound(), NOW, LIMIT) == 0


@pytest.mark.parametrize("name", WATCHED)
@pytest.mark.parametrize("seen", [Seen(False, RUN, NOW), Seen(True, vitals.BOOT, NOW), Seen(True, vitals.HALT, NOW), Seen(True, 0, 0),
                                  Seen(True, RUN, NOW - LIMIT - 1), Seen(True, RUN, NOW, stopped=True), None])
def test_each_process_alone_is_a_reason(name, seen):
    view = sound()
    if seen is None:
        del view[name]
    else:
        view[name] = seen
    assert decide(view, NOW, LIMIT) == GUARD_BIT[name]


def test_the_limit_itself_is_still_sound():
    view = sound() | {"core": Seen(True, RUN, NOW - LIMIT)}
    assert decide(view, NOW, LIMIT) == 0


def test_several_reasons_are_all_named():
    view = sound() | {"core": Seen(False, RUN, NOW), "feed_user": Seen(True, RUN, 0)}
    assert decide(view, NOW, LIMIT) == GUARD_BIT["core"] | GUARD_BIT["feed_user"]


class TestWatch:
    def test_start_until_all_were_sound_for_a_while(self):
        w = Watch(500 * MS)
        assert not w.allowed and w.reasons == GUARD_BIT["start"]
        w.step(GUARD_BIT["core"], 0)
        assert w.reasons == GUARD_BIT["start"] | GUARD_BIT["core"] and not w.panic
        w.step(0, 100 * MS)
        assert not w.allowed and w.reasons == GUARD_BIT["start"]
        assert w.step(0, 600 * MS) and w.allowed and w.reasons == 0

    def test_one_bad_moment_ends_it_and_panics_once(self):
        w = opened()
        assert w.step(GUARD_BIT["core"], 1000 * MS) and w.panic and not w.allowed and w.panics == 1
        assert not w.step(GUARD_BIT["core"], 1025 * MS) and not w.panic
        assert w.step(GUARD_BIT["core"] | GUARD_BIT["executor"], 1050 * MS) and not w.panic and w.panics == 1

    def test_it_comes_back_only_after_being_sound_without_a_break(self):
        w = opened()
        w.step(GUARD_BIT["core"], 1000 * MS)
        w.step(0, 1100 * MS)
        w.step(0, 1500 * MS)
        w.step(GUARD_BIT["core"], 1590 * MS)
        w.step(0, 1610 * MS)
        assert not w.allowed
        w.step(0, 2000 * MS)
        assert not w.allowed
        w.step(0, 2110 * MS)
        assert w.allowed and w.panics == 1

    def test_no_wait_when_none_is_configured(self):
        w = Watch(0)
        w.step(0, 0)
        assert w.allowed


def opened():
    w = Watch(500 * MS)
    w.step(0, 0)
    w.step(0, 500 * MS)
    assert w.allowed and w.panics == 0
    return w


class TestHeartbeatChain:
    def test_a_chain(self):
        j = BeatJudge()
        j.trying(0)
        j.ok("id-1", 5)
        assert j.next_id == "id-1" and j.accepted == 1 and j.bits(NOW * 100) == 0

    def test_a_wrong_id_is_corrected_a_few_times_and_then_a_reason(self):
        j = BeatJudge()
        for i in range(REFUSALS - 1):
            assert j.wrong_id(f"expected-{i}", 0) and j.bits(0) == 0
        assert j.next_id == f"expected-{REFUSALS - 2}"
        assert not j.wrong_id("x", 0) and j.bits(0) == GUARD_BIT["heartbeat_refused"]
        j.ok("y", 1)
        assert j.bits(1) == 0

    def test_an_expired_chain_starts_anew(self):
        j = BeatJudge()
        j.ok("old", 0)
        assert j.wrong_id("", 0) and j.next_id == ""

    def test_no_accepted_beat_for_long_is_unreachable(self):
        j = BeatJudge()
        j.trying(0)
        j.trying(UNREACHABLE_NS)
        assert j.bits(UNREACHABLE_NS) == 0
        assert j.bits(UNREACHABLE_NS + 1) == GUARD_BIT["venue_unreachable"]
        j.ok("a", UNREACHABLE_NS + 2)
        assert j.bits(UNREACHABLE_NS + 2) == 0

    def test_held_back_beats_are_not_the_venues_fault(self):
        j = BeatJudge()
        j.trying(0)
        j.pause()
        assert j.bits(UNREACHABLE_NS * 5) == 0


    def test_two_owners_of_one_chain_are_seen_although_each_correction_works(self):
        j, now = BeatJudge(), 0
        for turn in range(3):
            j.ok(f"ours-{turn}", now)
            now += 1_000 * MS
            assert j.bits(now) == 0
            again = j.wrong_id("theirs", now)
        assert not again and j.rival and j.bits(now) == GUARD_BIT["heartbeat_refused"]
        assert j.holding(now) and not j.holding(now + RIVAL_HOLD_NS), "the chain is left to the other one for a while"

    def test_one_broken_chain_is_no_rival(self):
        j = BeatJudge()
        for turn in range(10):
            j.ok("a", turn * RIVAL_WINDOW_NS)
            assert j.wrong_id("b", turn * RIVAL_WINDOW_NS + MS)
        assert not j.rival and j.bits(0) == 0

    def test_a_chain_that_had_expired_is_nobodys_fault(self):
        j = BeatJudge()
        for turn in range(5):
            j.ok("a", turn * 11_000 * MS)
            j.wrong_id("", turn * 11_000 * MS + 10_500 * MS)
        assert not j.rival

    def test_a_rival_is_forgotten_after_clean_beats(self):
        j = BeatJudge()
        for turn in range(3):
            j.ok("a", turn)
            j.wrong_id("b", turn)
        j.ok("c", RIVAL_HOLD_NS)                    # the one that had to be corrected
        for beat in range(RIVAL_CLEAN):
            assert j.bits(RIVAL_HOLD_NS) == GUARD_BIT["heartbeat_refused"], beat
            j.ok("d", RIVAL_HOLD_NS)
        assert j.bits(RIVAL_HOLD_NS) == 0


@pytest.mark.parametrize(("venue", "sent", "answered", "skew"), [
    (100, 100.4, 100.5, 0), (100, 100.99, 100.99, 0), (103, 100.3, 100.5, 2.5), (100, 103.5, 103.6, -2.5), (100, 100.0, 100.0, 0),
    (103, 100.5, 103.1, 0), (100, 100.2, 109.0, 0)])
def test_clock_skew_beyond_the_whole_seconds(venue, sent, answered, skew):
    assert clock_skew_s(venue, sent, answered) == pytest.approx(skew)


def test_skew_counts_when_measured_twice_and_ends_at_once():
    j = SkewJudge(5.0)
    assert not j.step(4.9) and not j.bad
    assert j.step(-40.0) and not j.bad, "one strange answer is none"
    assert not j.step(-40.0) and j.bad
    j.step(-40.0)
    assert j.bad
    j.step(0.0)
    assert not j.bad
    assert j.step(6.0) and not j.bad
