"""Quiet or dead: the rules one by one, then two hundred injected faults and the recorded quiet periods, all in virtual time."""

import sys
from pathlib import Path

import numpy as np
import pytest

from mmbot.books import book as bk
from mmbot.books import evidence as evd
from shm_layout import records as r

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from bench import streams  # noqa: E402

MS, SECOND = 1_000_000, 1_000_000_000
LIMITS = evd.Limits()


@pytest.fixture
def w():
    witness = evd.Witness()
    witness.start(100 * SECOND)
    return witness


def at(ms):
    return 100 * SECOND + int(ms * MS)


class TestVerdict:
    def test_silence_asks_and_convicts_nobody(self, w):
        assert evd.verdict(w, at(399), LIMITS, False) == evd.ALIVE and not evd.wants_answer(w, at(399), LIMITS, False)
        assert evd.verdict(w, at(400), LIMITS, False) == evd.ASKING and evd.wants_answer(w, at(400), LIMITS, False)
        assert evd.verdict(w, at(2000), LIMITS, False) == evd.UNPROVEN

    def test_the_same_book_is_quiet_from_the_moment_of_asking(self, w):
        evd.take_answer(w, at(400), at(480), evd.SAME)
        assert w.fresh_ns() == at(400) and evd.verdict(w, at(1199), LIMITS, False) == evd.QUIET
        assert evd.verdict(w, at(1200), LIMITS, False) == evd.ASKING, "a proof gets old"

    def test_a_newer_and_different_book_convicts_after_the_grace_and_not_before(self, w):
        evd.take_answer(w, at(400), at(480), evd.DIFFERENT)
        assert evd.verdict(w, at(729), LIMITS, True) == evd.CLAIMED
        assert evd.verdict(w, at(730), LIMITS, True) == evd.DEAD

    def test_a_claim_that_frames_explain_falls(self, w):
        evd.take_answer(w, at(400), at(480), evd.DIFFERENT)
        w.heard_ns = at(500)
        assert evd.verdict(w, at(740), LIMITS, False) == evd.ALIVE and not w.claim_ns

    def test_one_answer_never_beats_frames(self, w):
        evd.take_answer(w, at(400), at(480), evd.DIFFERENT)
        w.heard_ns = at(700)
        assert evd.verdict(w, at(800), LIMITS, True) == evd.CLAIMED
        evd.take_answer(w, at(800), at(850), evd.DIFFERENT)
        assert evd.verdict(w, at(860), LIMITS, True) == evd.WRONG

    @pytest.mark.parametrize("likeness", [evd.OLDER, evd.GHOST, evd.NOTHING])
    def test_what_is_no_evidence_changes_nothing(self, w, likeness):
        evd.take_answer(w, at(400), at(480), likeness)
        assert not w.proof_ns and not w.claim_ns and evd.verdict(w, at(1000), LIMITS, False) == evd.ASKING

    def test_questions_keep_their_distance(self, w):
        w.asked_ns = at(0)
        assert not evd.wants_answer(w, at(399), LIMITS, True) and evd.wants_answer(w, at(400), LIMITS, True)


class TestLinks:
    def test_a_link_is_behind_when_it_misses_frames_for_too_long(self):
        link = evd.LinkWitness()
        link.made(at(0))
        for ms in (5000, 5001, 5002):
            link.miss(at(ms))
        assert not evd.behind(link, at(5799), LIMITS) and evd.behind(link, at(5800), LIMITS)
        link.missed = 0
        assert not evd.behind(link, at(9000), LIMITS)

    def test_a_quiet_link_is_not_behind(self):
        link = evd.LinkWitness()
        link.made(at(0))
        assert not evd.behind(link, at(60_000), LIMITS)
        link.miss(at(60_000))
        assert not evd.behind(link, at(60_900), LIMITS), "one frame may be a copy that was mangled"

    def test_a_link_is_not_renewed_all_the_time(self):
        link = evd.LinkWitness()
        assert not evd.may_renew(link, at(0)), "there is none"
        link.made(at(0))
        assert not evd.may_renew(link, at(4999)) and evd.may_renew(link, at(5000))
        link.renewed_ns = at(5000)
        assert not evd.may_renew(link, at(9999))

    def test_a_token_that_is_not_named_while_its_sibling_is(self):
        assert evd.silent_token((at(0), at(900)), 0, at(900)) == 0 and evd.silent_token((at(900), at(0)), 0, at(1000)) == 1
        assert evd.silent_token((at(0), at(700)), 0, at(700)) == -1, "not long enough"
        assert evd.silent_token((at(0), at(900)), 0, at(2000)) == -1, "both are silent now"
        assert evd.silent_token((0, at(900)), at(500), at(900)) == -1, "subscribed just now"


@pytest.mark.parametrize("px, buy, odd", [(5200, True, False), (5100, True, False), (5000, True, True), (5300, True, True),
                                          (5000, False, False), (5200, False, True), (4900, False, True), (5100, False, False)])
def test_prints_the_book_cannot_have_made(px, buy, odd):
    assert evd.impossible_trade(px, buy, low_bid_e4=5000, high_ask_e4=5200) == odd


class TestWorld:
    def test_a_lively_market_is_proved_and_asks_nobody(self):
        world = streams.World(1)
        world.run(5)
        assert world.agrees() or world.run(0.2, world.agrees)
        assert world.counts["checks_ok"] > 300 and not world.counts["checks_bad"] and world.counts["probes"] <= 2
        assert not world.flags and not world.renewed and world.channel.duplicates > 100

    def test_a_quiet_market_stays_fresh_by_proof(self):
        world = streams.World(2)
        world.run(1)
        world.next_change_ns = 1 << 62
        worst = 0
        for _ in range(6000):
            world.tick()
            worst = max(worst, world.now_ns - world.market.published_ns)
        kinds = {kind for _, kind, _ in world.records[-30:]}
        assert kinds == {r.MK_VERIFIED} and not world.flags and not world.renewed
        assert worst < streams.STALE_NS, "the age gate of the core never shuts"

    def test_a_frozen_stream_is_flagged_and_healed_by_new_links(self):
        world = streams.World(3)
        world.run(6)
        world.freeze(0, 1)
        assert world.run(3, lambda: world.flags & r.MF_FROZEN) and world.flags & r.MF_SUSPECT
        assert world.counts["freezes"] == 1 and {link for _, link, _ in world.renewed} == {0, 1}
        assert world.run(3, lambda: not world.flags) and world.run(1, world.agrees)

    def test_one_dead_link_costs_nothing(self):
        world = streams.World(4)
        world.run(6)
        world.records.clear()
        world.freeze(1)
        world.run(4)
        assert [link for _, link, _ in world.renewed] == [1] and world.counts["freezes"] == 0
        assert not any(flags & (r.MF_SUSPECT | r.MF_FROZEN) for _, _, flags in world.records)

    def test_a_link_whose_frames_are_late_is_believed_again_when_they_explain_it(self):
        world = streams.World(5)
        world.run(6)
        world._latency = lambda: 900 * MS
        assert world.run(5, lambda: world.flags & r.MF_FROZEN)
        assert world.run(5, lambda: not world.flags & r.MF_FROZEN)
        assert world.counts["false_alarms"] + len(world.renewed) > 0

    def test_a_ghost_from_rest_is_not_believed(self):
        world = streams.World(6)
        world.run(2)
        world.rest, world.next_change_ns = "ghost", 1 << 62
        world.run(1.9)
        assert not world.flags and world.agrees() and world.watch.likenesses.get(evd.GHOST)
        assert not any(kind == r.MK_VERIFIED for _, kind, _ in world.records), "but it proves nothing either: the age gate shuts"
        assert world.now_ns - world.market.published_ns > streams.STALE_NS

    def test_a_stale_rest_neither_proves_nor_convicts(self):
        world = streams.World(7)
        world.run(2)
        world.rest, world.next_change_ns = "stale", 1 << 62
        world.run(1.9)
        assert not world.flags and world.agrees() and set(world.watch.likenesses) <= {evd.OLDER, evd.SAME}
        assert not any(kind == r.MK_VERIFIED and t > world.now_ns - SECOND for t, kind, _ in world.records)

    @pytest.mark.parametrize("rest, likeness", [("old_lie", evd.OLDER), ("torn", evd.NOTHING)])
    def test_a_different_rest_book_that_is_older_or_torn_convicts_nobody(self, rest, likeness):
        world = streams.World(7)
        world.run(2)
        world.run(0.2)
        world.rest, world.next_change_ns = rest, 1 << 62
        world.run(1.9)
        assert not world.flags and not world.counts["freezes"] and world.agrees() and world.watch.likenesses.get(likeness, 0) >= 2

    def test_without_rest_silence_renews_the_links_and_proves_nothing(self):
        world = streams.World(8)
        world.run(6)
        world.rest, world.next_change_ns = "away", 1 << 62
        world.run(5)
        assert world.renewed and not world.counts["freezes"]

    def test_a_rest_that_lies_while_frames_flow_is_ignored(self):
        world = streams.World(9)
        world.run(2)
        world.rest = "ghost"
        world.market.odd_prints = 1         # something to ask about
        world.run(3)
        assert world.watch.likenesses.get(evd.GHOST) and not world.flags and (world.agrees() or world.run(0.2, world.agrees))

    def test_silent_cancels_are_read_again_from_rest(self):
        world = streams.World(10)
        world.run(3)
        world.cancel_silently(3)
        assert world.run(2, lambda: world.counts["rereads"]) and world.run(1, world.agrees)
        world.run(1)
        assert not world.flags and world.counts["checks_bad"]

    def test_two_impossible_prints_make_the_book_suspect(self):
        world = streams.World(11)
        world.run(3)
        for i in range(2):
            world.send(b'{"event_type":"last_trade_price","market":"0x","asset_id":"%b","price":"0.9%d","size":"5","side":"BUY","timestamp":"%d"}'
                       % (streams.TOKENS[0].encode(), i, world.stamp()))
        assert world.run(1, lambda: world.flags & r.MF_SUSPECT) and world.counts["suspects"] == 1
        assert world.run(2, lambda: not world.flags), "the next proof clears it"

    def test_a_tick_change_reads_the_books_again(self):
        world = streams.World(12)
        world.run(2)
        asked = world.counts["probes"]
        for token in streams.TOKENS:
            world.send(b'{"event_type":"tick_size_change","asset_id":"%b","old_tick_size":"0.01","new_tick_size":"0.001","timestamp":"%d"}'
                       % (token.encode(), world.stamp()))
        world.run(1)
        assert world.counts["probes"] > asked and world.market.epoch == world.market.book[bk.H_EPOCH] == 1
        world.send(b'{"event_type":"tick_size_change","asset_id":"%b","old_tick_size":"0.001","new_tick_size":"0.01","timestamp":"%d"}'
                   % (streams.TOKENS[0].encode(), world.stamp()))
        world.run(0.1)
        assert world.market.book[bk.H_TICK] == 10, "ticks never get coarser"


@pytest.mark.parametrize("kind", streams.KINDS)
def test_faults_are_noticed_within_two_seconds(kind):
    times = np.array([streams.inject(kind, seed)[0] for seed in range(40)])
    assert np.isfinite(times).all(), "each one is noticed"
    assert np.percentile(times, 99) <= 2.0


def test_recorded_quiet_periods_raise_no_alarm():
    gaps = 0
    for seed, rows in enumerate(streams.recorded_tops()):
        world, seconds, fresh, n = streams.replay_quiet(rows, seed, hours=0.06)
        gaps += n
        assert seconds > 100 and fresh > 0.995
        assert not world.counts["freezes"] and not world.counts["suspects"] and not world.renewed
    assert gaps >= 15, "periods of more than five seconds without a frame"
