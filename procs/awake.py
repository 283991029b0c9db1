"""Process `awake`: keeps the shared CPU out of its sleep states, so that a doorbell finds it running. Wiring only.

Writes and reads nothing. Runs under SCHED_IDLE: the kernel gives it only what nobody else wants, and takes it back at once when somebody
does. A sleeping CPU costs a wake-up 50 to 150 us; this costs electricity. ``cpu.keep_awake = false`` puts it to sleep.
Can go wrong: SCHED_IDLE cannot be set; then it sleeps rather than slow the others down.
"""

import os
import time

from numba import int64, njit

from mmbot.actor import Actor, run_spin
from shm_layout.atomics import pause

PAUSES = 4000               # about 100 us of burst: signals and housekeeping are never far
ASLEEP_S = 0.05


@njit(int64(int64), cache=True)
def idle(n):
    """``n`` spin-wait hints; leaves the execution units to the sibling thread."""
    for _ in range(n):
        pause()
    return n


def build(actor: Actor):
    """(burst, housekeeping, close) for `run_spin`."""
    spin = actor.cfg.cpu.keep_awake and _idle_class()
    if actor.cfg.cpu.keep_awake and not spin:
        actor.warn("no_sched_idle", "SCHED_IDLE is not available: not keeping the CPU awake")

    def burst() -> int:
        if spin:
            idle(PAUSES)
        else:
            time.sleep(ASLEEP_S)
        return 0

    return burst, lambda now_ns: None, lambda: None


def _idle_class() -> bool:
    """Whether this process now runs under SCHED_IDLE."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError:
        return False
    return os.sched_getscheduler(0) == os.SCHED_IDLE


if __name__ == "__main__":
    run_spin("awake", build)
