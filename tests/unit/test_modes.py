"""The venue's modes: what each allows, how its end is recognised, how often it is tried."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmbot.execution.modes import (BANNED, CANCEL_ONLY, CLOSED_ONLY, DISABLED, GEOBLOCKED, NORMAL, POST_ONLY, RATE_LIMITED, RESTARTING, RULES, SLOW,
                                   UNAUTHORIZED, UNREACHABLE, VenueModes)
from mmbot.execution.wire import ErrorCode

MS = 1_000_000
S = 1000 * MS
NONE = ErrorCode.NONE


@pytest.fixture
def v():
    return VenueModes()


def probe_times(v, now, until, answer):
    """Times at which a probe is due between now and until, each answered by ``answer``; steps of 10 ms."""
    out = []
    while now < until:
        if now >= v.due_ns:
            v.tick(now)
        if v.probe_due(now) and v.may_cancel(now):
            v.probe_sent(now)
            out.append(now)
            v.cancel_answer(answer, 0.0, now)
        now += 10 * MS
    return out


def test_normal_allows_everything(v):
    assert v.mode == NORMAL and v.may_post(0) and v.may_cancel(0) and v.rests and not v.probe_due(0)


class TestRestart:
    def test_whole_episode(self, v):
        v.post_answer(ErrorCode.RESTARTING, 0.0, S)
        assert v.mode == RESTARTING and not v.may_post(S) and v.may_cancel(S) and not v.rests and v.probe_due(S)
        tries = probe_times(v, S, 60 * S, ErrorCode.RESTARTING)
        gaps = [b - a for a, b in zip(tries, tries[1:], strict=False)]
        assert v.mode == RESTARTING and max(gaps) <= 4100 * MS and gaps == sorted(gaps) and len(tries) >= 15
        now = 61 * S
        v.cancel_answer(NONE, 0.0, now)
        assert v.mode == POST_ONLY and v.until_ns == now + 120 * S and v.rereads == 1
        assert v.rests and v.may_post(now) and v.may_cancel(now), "quoting goes on, post-only"
        v.tick(v.due_ns)
        assert v.mode == NORMAL and v.until_ns == 0 and v.rereads == 1

    def test_a_refused_cancel_is_tried_again_soon(self, v):
        v.cancel_answer(ErrorCode.RESTARTING, 0.0, S)
        assert not v.may_cancel(S) and v.may_cancel(S + 100 * MS)
        for _ in range(10):
            v.cancel_answer(ErrorCode.RESTARTING, 0.0, S)
        assert S < v.cancel_again_ns <= 3 * S

    def test_the_venue_says_how_long_post_only_lasts(self, v):
        v.post_answer(ErrorCode.RESTARTING, 0.0, S)
        v.post_answer(ErrorCode.POST_ONLY_MODE, 79.0, 2 * S)
        assert v.mode == POST_ONLY and v.until_ns == 81 * S and v.rereads == 1
        assert not v.may_post(2 * S) and v.may_post(3 * S), "a post-only order was refused: not at once again"

    def test_posts_do_not_end_post_only(self, v):
        v.post_answer(ErrorCode.POST_ONLY_MODE, 79.0, S)
        v.post_answer(NONE, 0.0, 3 * S)
        assert v.mode == POST_ONLY and v.until_ns == 80 * S


class TestNoOrders:
    def test_cancel_only_ends_by_a_trial(self, v):
        v.post_answer(ErrorCode.CANCEL_ONLY, 0.0, S)
        assert v.mode == CANCEL_ONLY and not v.rests and v.may_cancel(S) and not v.probe_due(100 * S)
        v.cancel_answer(NONE, 0.0, S)
        assert v.mode == CANCEL_ONLY, "a cancel proves nothing here"
        waits = []
        now = S
        for _ in range(6):
            waits.append(v.due_ns - now)
            now = v.due_ns
            v.tick(now)
            assert v.rests and v.may_post(now) and v.mode == CANCEL_ONLY
            for _ in range(3):              # a burst of posts, all refused
                v.post_answer(ErrorCode.CANCEL_ONLY, 0.0, now)
            assert not v.rests
        assert waits == [2 * S, 4 * S, 8 * S, 15 * S, 15 * S, 15 * S]
        v.tick(v.due_ns)
        v.post_answer(NONE, 0.0, now)
        assert v.mode == NORMAL and v.rests

    def test_a_post_sent_before_is_no_trial(self, v):
        v.post_answer(ErrorCode.CANCEL_ONLY, 0.0, S)
        v.post_answer(NONE, 0.0, S)
        assert v.mode == CANCEL_ONLY

    def test_disabled_tests_with_cancels(self, v):
        v.cancel_answer(ErrorCode.DISABLED, 0.0, S)
        assert v.mode == DISABLED and not v.rests and not v.may_cancel(S)
        tries = probe_times(v, S, 31 * S, ErrorCode.DISABLED)
        assert 5 <= len(tries) <= 12
        v.cancel_answer(NONE, 0.0, 31 * S)
        assert v.mode == NORMAL and v.rereads == 1

    @pytest.mark.parametrize(("code", "mode", "first"), [(ErrorCode.GEOBLOCK, GEOBLOCKED, 600 * S), (ErrorCode.CLOSED_ONLY, CLOSED_ONLY, 300 * S)])
    def test_the_account_may_not_trade(self, v, code, mode, first):
        v.post_answer(code, 0.0, S)
        assert v.mode == mode and not v.rests and v.may_cancel(S) and not v.probe_due(10_000 * S)
        v.cancel_answer(NONE, 0.0, 2 * S)
        v.round_trip(5 * MS, 2 * S)
        assert v.mode == mode and v.due_ns == S + first, "nothing but a long wait and one trial leads out"

    def test_banned_stays(self, v):
        v.post_answer(ErrorCode.BANNED, 0.0, S)
        for code in (NONE, ErrorCode.RESTARTING, ErrorCode.RATE_LIMITED):
            v.post_answer(code, 0.0, 2 * S)
            v.cancel_answer(NONE, 0.0, 2 * S)
        assert v.mode == BANNED and not v.rests and v.may_cancel(2 * S)

    def test_unauthorized_ends_when_a_signed_request_is_answered(self, v):
        v.post_answer(ErrorCode.UNAUTHORIZED, 0.0, S)
        assert v.mode == UNAUTHORIZED and not v.rests
        assert probe_times(v, S, 20 * S, ErrorCode.UNAUTHORIZED)
        v.cancel_answer(NONE, 0.0, 20 * S)
        assert v.mode == NORMAL and v.rereads == 1


class TestRateLimited:
    def test_posts_wait_and_quotes_rest(self, v):
        v.post_answer(ErrorCode.RATE_LIMITED, 1.5, S)
        assert v.mode == RATE_LIMITED and v.rests and not v.may_post(2400 * MS) and v.may_post(2500 * MS) and v.may_cancel(S)
        v.tick(v.due_ns)
        assert v.mode == NORMAL

    def test_without_a_word_it_doubles(self, v):
        v.post_answer(ErrorCode.RATE_LIMITED, 0.0, S)
        first = v.until_ns - S
        v.post_answer(ErrorCode.RATE_LIMITED, 0.0, 2 * S)
        assert (first, v.until_ns - 2 * S) == (500 * MS, 1000 * MS)

    def test_a_cancel_limit_does_not_stop_posts(self, v):
        v.cancel_answer(ErrorCode.RATE_LIMITED, 0.4, S)
        assert v.mode == NORMAL and v.may_post(S) and not v.may_cancel(S + 399 * MS) and v.may_cancel(S + 400 * MS)

    def test_it_does_not_hide_a_graver_mode(self, v):
        v.post_answer(ErrorCode.DISABLED, 0.0, S)
        v.post_answer(ErrorCode.RATE_LIMITED, 1.0, S)
        assert v.mode == DISABLED


class TestNoAnswer:
    def test_one_lost_request_is_nothing_three_are(self, v):
        v.silent("timeout", S)
        v.silent("timeout", S)
        v.post_answer(ErrorCode.CROSSES_BOOK, 0.0, S)
        v.silent("timeout", S)
        v.silent("timeout", S)
        assert v.mode == NORMAL
        v.post_answer(ErrorCode.SERVER, 0.0, S, "HTTP 502: <html>")
        assert v.mode == UNREACHABLE and not v.rests and v.may_cancel(S) and v.why == "HTTP 502: <html>"
        assert probe_times(v, S, 10 * S, ErrorCode.SERVER)
        v.cancel_answer(NONE, 0.0, 11 * S)
        assert v.mode == NORMAL and v.rereads == 1

    def test_queueing_shows_as_slowness(self, v):
        now = S
        for _ in range(100):
            v.round_trip(150 * MS, now)
        assert v.mode == NORMAL
        n = 0
        while v.mode == NORMAL:
            v.round_trip(1200 * MS, now)
            n += 1
        assert v.mode == SLOW and not v.rests and 3 <= n <= 8 and v.may_cancel(now) and v.probe_due(now)
        v.cancel_answer(NONE, 0.0, now)
        assert v.mode == SLOW
        back = 0
        while v.mode == SLOW:
            v.round_trip(20 * MS, now)
            back += 1
            assert back < 50
        assert v.average_ns < 200 * MS and v.rereads == 0

    def test_between_the_two_bounds_nothing_changes(self, v):
        for _ in range(200):
            v.round_trip(400 * MS, S)
        assert v.mode == NORMAL
        for _ in range(20):
            v.round_trip(2000 * MS, S)
        for _ in range(200):
            v.round_trip(400 * MS, S)
        assert v.mode == SLOW


CODES = st.sampled_from([NONE, *ErrorCode])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["post", "cancel", "silent", "rtt", "tick"]), CODES, st.floats(-5, 1e6), st.integers(0, 3000)), max_size=60))
def test_whatever_the_venue_says_it_ends_in_normal_when_it_is_well_again(story):
    """Any story, then a healthy venue: every mode but banned is left within its longest wait, and where nothing may rest nothing may be posted."""
    v, now = VenueModes(), S
    for kind, code, wait, ms in story:
        now += ms * MS
        if kind == "post":
            v.post_answer(code, wait, now)
        elif kind == "cancel":
            v.cancel_answer(code, wait, now)
        elif kind == "silent":
            v.silent("x", now)
        elif kind == "rtt":
            v.round_trip(ms * MS, now)
        elif now >= v.due_ns:
            v.tick(now)
        assert v.rests or not v.may_post(now)
        assert RULES[v.mode].rest or not v.rests or RULES[v.mode].ends == "post"
        assert v.cancel_again_ns <= now + 10 * S, "a cancel never waits long"
        assert v.until_ns <= now + 600 * S
    if v.mode == BANNED:
        return
    until = now + 7300 * S
    while now < until and not (v.mode == NORMAL and v.may_post(now)):
        now += S
        if now >= v.due_ns:
            v.tick(now)
        if v.may_post(now):
            v.post_answer(NONE, 0.0, now)
        if v.probe_due(now) and v.may_cancel(now):
            v.probe_sent(now)
            for _ in range(4):
                v.round_trip(5 * MS, now)
            v.cancel_answer(NONE, 0.0, now)
    assert v.mode == NORMAL and v.may_post(now)
