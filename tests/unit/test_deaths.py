"""The memory of deaths: what counts, for how long, and what happens when it cannot be kept."""

from mmbot import deaths
from mmbot.ops.supervisord import Program

S = deaths.S


def test_only_deaths_within_the_window_count(tmp_path):
    assert [deaths.count(tmp_path, "core", at * S, 10, True) for at in (0, 4, 8, 11, 30)] == [1, 2, 3, 3, 1]


def test_an_orderly_start_adds_nothing_and_each_process_has_its_own(tmp_path):
    deaths.count(tmp_path, "core", S, 10, True)
    assert deaths.count(tmp_path, "core", 2 * S, 10, False) == 1 and deaths.count(tmp_path, "executor", 2 * S, 10, False) == 0


def test_forget_one_or_all(tmp_path):
    for name in ("core", "executor", "sim"):
        deaths.count(tmp_path, name, S, 10, True)
    deaths.forget(tmp_path, "core")
    assert [deaths.count(tmp_path, n, S, 10, False) for n in ("core", "executor", "sim")] == [0, 1, 1]
    deaths.forget(tmp_path)
    assert [deaths.count(tmp_path, n, S, 10, False) for n in ("core", "executor", "sim")] == [0, 0, 0]


def test_stamps_of_before_a_reboot_and_garbage_do_not_count(tmp_path):
    deaths.count(tmp_path, "core", 10**18, 10, True)
    assert deaths.count(tmp_path, "core", S, 10, False) == 0
    (tmp_path / "deaths.core").write_text("x")
    assert deaths.count(tmp_path, "core", S, 10, True) == 1


def test_a_directory_that_cannot_be_written_keeps_nobody_from_starting(tmp_path):
    assert deaths.count(tmp_path / "missing", "core", S, 10, True) == 1


def test_a_death_between_two_lives_is_not_told_as_the_end():
    program = lambda state, code: Program("core", state, 0, "", code)
    assert not program("EXITED", -9).gone_or_failing and not program("EXITED", 0).gone_or_failing and not program("RUNNING", 0).gone_or_failing
    assert program("EXITED", deaths.STAYS_DOWN).gone_or_failing and program("BACKOFF", 1).gone_or_failing and program("FATAL", 1).gone_or_failing
