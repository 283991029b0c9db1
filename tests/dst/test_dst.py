"""The whole system under a virtual clock: seeds survive, equal seeds give equal histories, and spoiled code is caught.

`make chaos` runs the same for a thousand hours; here are a few minutes of it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shm_layout.records import BUY
from tests.dst import mutants
from tests.dst.campaign import reproduce, tell
from tests.dst.scenario import run_seed

ROOT = Path(__file__).resolve().parents[2]
SHORT_S = 360.0
MUTANT_S, MUTANT_SEEDS = 240.0, (1, 2, 3)


def shown(result, hours: float, mutant: str = "") -> str:
    """Violations, for a failed assertion."""
    return "\n".join(tell(v, result.seed, hours, mutant) for v in result.violations[:1])


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", [101, 103])
def test_chaos_breaks_nothing(seed):
    result = run_seed(seed, SHORT_S)
    assert not result.violations, shown(result, SHORT_S / 3600)
    assert result.counts["PLACEMENT"] > 20 and result.counts["trade MATCHED"] > 0 and sum(result.faults.values()) >= 3


@pytest.mark.timeout(120)
def test_a_quiet_run_trades_and_nobody_complains():
    result = run_seed(7, 150.0, chaos=False)
    assert not result.violations, shown(result, 150 / 3600)
    assert result.counts["trade MATCHED"] >= 5 and set(result.halts) <= {"starting", "user_channel", "guard"}


#: completion that finds a reason to take in most minutes
COMPLETION = {"enabled": True, "from_s": 850.0, "max_pay": 1.05, "max_pay_late": 1.08, "risk_aversion": 0.05, "pause_ns": 1_000_000_000}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed, chaos", [(203, True), (205, True), (7, False)])
def test_completion_by_taking_breaks_nothing(seed, chaos):
    """Takers with their delay, their fees and their answers lost are held to the same invariants as quotes: exposure, positions, conservation."""
    kept = []
    result = run_seed(seed, SHORT_S, chaos=chaos, arrange=kept.append, strategy__completion=COMPLETION)
    assert not result.violations, shown(result, SHORT_S / 3600)
    venue = kept[0].observer.truth.engine
    taken = [t for t in venue.trades.values() if t.taker is not None]
    assert len(taken) >= 3 and venue.fees_u6 > 0, "nothing was taken: the test shows nothing"
    assert all(t.side == BUY and t.px_e4 <= t.taker.px_e4 for t in taken)


@pytest.mark.timeout(120)
def test_seed_and_commit_reproduce_bit_for_bit():
    """Two fresh interpreters with different hash seeds and memory layouts write the same history."""
    code = "from tests.dst.scenario import run_seed; print(run_seed(5, 150.0).digest)"
    env = [{**os.environ, "PYTHONHASHSEED": str(n)} for n in (1, 2)]
    runs = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=e, stdout=subprocess.PIPE, text=True) for e in env]
    first, second = (r.communicate(timeout=110)[0].split()[-1] for r in runs)
    assert len(first) == 64 and first == second
    assert run_seed(6, 60.0, chaos=False).digest != first


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", mutants.QUICK)
def test_a_spoiled_piece_of_code_is_caught(name):
    mutant = mutants.MUTANTS[name]
    for seed in MUTANT_SEEDS:
        result = run_seed(seed, MUTANT_S, chaos=False, mutant=mutant.spoil, arrange=mutant.arrange, **mutant.overrides)
        if result.violations:
            assert result.violations[0].name in mutant.breaks, shown(result, MUTANT_S / 3600, name)
            return
    raise AssertionError(f"{name}: not caught; {reproduce(MUTANT_SEEDS[-1], MUTANT_S / 3600, name)}")


def test_a_violation_names_what_is_needed_to_see_it_again():
    mutant = mutants.MUTANTS["no_write_ahead"]
    result = run_seed(3, 60.0, chaos=False, mutant=mutant.spoil)
    text = tell(result.violations[0], 3, 60 / 3600, "no_write_ahead")
    assert "seed 3 commit " in text and "journal: 0x" in text and "last events" in text
    assert "python -m tests.dst.campaign --seed 3 --hours 0.0166667 --mutant no_write_ahead --show" in text
