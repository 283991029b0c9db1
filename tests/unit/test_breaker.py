"""Circuit breakers: when they open, when they close, what a restart keeps."""

from hypothesis import given
from hypothesis import strategies as st

from mmbot.execution.breaker import DAY_NS, S, ErrorRate, LossStop, PostPause


class TestErrorRate:
    def test_opens_at_the_share_and_not_before_enough_was_seen(self):
        b = ErrorRate(60, 0.5, 20, 30)
        assert not any(b.add(True, S) for _ in range(19)) and not b.open(S)
        assert b.add(True, S) and b.open(S) and b.open(31 * S - 1) and not b.open(31 * S)

    def test_a_smaller_share_is_no_reason(self):
        b = ErrorRate(60, 0.5, 20, 30)
        assert not any(b.add(i % 3 == 0, S) for i in range(1000))

    def test_only_the_window_counts(self):
        b = ErrorRate(60, 0.5, 20, 30)
        assert not any(b.add(True, i * 4 * S) for i in range(1000)), "16 in a minute are too few to judge"

    def test_it_starts_afresh(self):
        b = ErrorRate(60, 0.5, 20, 30)
        for _ in range(20):
            b.add(True, S)
        assert not any(b.add(True, 32 * S) for _ in range(19)) and b.add(True, 32 * S)


class TestPostPause:
    def test_it_doubles_up_to_the_longest_and_ends_with_an_answer(self):
        pause, now, waits = PostPause(2, 10), 0, []
        for _ in range(5):
            now += 1
            assert pause.lost(now, now)
            waits.append(pause.wait_ns // S)
            assert pause.room(9, now) == pause.room(9, pause.until_ns - 1) == 0 and pause.room(9, pause.until_ns) == 1
            now = pause.until_ns
        assert waits == [2, 4, 8, 10, 10]
        pause.answered(now + 1)
        assert pause.room(9, now + 1) == 9 and pause.lost(now + 2, now + 2) and pause.wait_ns == 2 * S

    def test_what_was_under_way_together_is_one_loss(self):
        pause = PostPause(2, 10)
        assert pause.lost(S, 2 * S) and not pause.lost(S + 1, 3 * S) and not pause.lost(2 * S, 4 * S) and pause.lost(2 * S + 1, 5 * S)

    def test_a_late_answer_to_what_was_counted_as_lost_ends_nothing(self):
        pause = PostPause(2, 10)
        pause.lost(S, 2 * S)
        pause.answered(S)
        assert pause.room(9, 3 * S) == 0

    def test_a_trial_is_alone(self):
        pause = PostPause(2, 10)
        pause.lost(S, 2 * S)
        pause.sent(4 * S)
        assert pause.room(9, 4 * S) == 0 and pause.room(9, 6 * S) == 1


class TestLossStop:
    def test_opens_at_the_drop_from_the_best(self):
        stop = LossStop(10)
        assert not stop.update(0, 1) and not stop.update(100, 2) and not stop.update(91, 3)
        assert stop.update(90, 4) and stop.drop_u6 == 10
        assert not stop.update(95, 5)

    def test_opens_at_the_share_of_what_the_account_was_worth_at_its_best(self):
        stop = LossStop(0, 0.1)
        assert not stop.update(0, 1, 80) and not stop.update(20, 2, 100) and not stop.update(11, 3, 91)
        assert stop.update(10, 4, 90) and stop.bankroll_u6 == 100
        assert not stop.update(10, 5, 91), "more money was paid in"

    def test_either_limit_is_enough(self):
        stop = LossStop(5, 0.1)
        stop.update(0, 1, 1000)
        assert stop.update(-5, 2, 995)

    def test_zero_means_no_limit(self):
        stop = LossStop(0)
        assert not stop.update(0, 1) and not stop.update(-(10 ** 12), 2)

    def test_the_best_is_of_the_last_day(self):
        stop = LossStop(10)
        stop.update(100, 0)
        assert stop.update(50, 1)
        assert stop.update(50, DAY_NS - 1) and not stop.update(50, DAY_NS)

    def test_a_restart_keeps_the_drop(self):
        first = LossStop(10)
        first.update(100, 1)
        first.update(93, 2)
        second = LossStop(10)
        second.carry(first.state(), 3)
        assert not second.update(0, 3) and second.drop_u6 == 7
        assert second.update(-3, 4)
        third = LossStop(10)
        third.carry(second.state(), DAY_NS + 2)
        assert not third.update(0, DAY_NS + 2), "a day later it is forgotten"

    @given(st.lists(st.tuples(st.integers(0, DAY_NS // 3), st.integers(-100, 100)), min_size=1, max_size=60))
    def test_equals_the_definition(self, steps):
        stop, now, seen = LossStop(50), 0, []
        for dt, result in steps:
            now += dt
            seen.append((now, result))
            best = max(r for at, r in seen if at > now - DAY_NS)
            assert stop.update(result, now) == (best - result >= 50)
            assert stop.drop_u6 == best - result
