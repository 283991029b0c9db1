"""The only place where a clock is read.

Owns: the monotonic clock (all latency stamps, all ages) and the wall clock of the group. In paper mode the wall clock is the
tape's: one offset and one rate, taken from the exchange at start (`sync`), so the 900 s grid stays true at any speed.
A deterministic simulation replaces both clocks of its process (`replace`) and sets the time compiled code sees (`mono_ns_compiled`).
Can go wrong: the exchange is not up yet (UserError after ``timeout_s``); a host whose clock source is not the TSC (doctor says so).
"""

import ctypes
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import numpy as np
from numba import njit, types

from mmbot.errors import UserError

_timespec = np.zeros(2, np.int64)
_clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.int64))
ctypes.CDLL(None, mode=ctypes.RTLD_GLOBAL)

_SYSTEM = (time.monotonic_ns, time.time_ns)
_mono, _wall = _SYSTEM
cpu_ns = time.process_time_ns


def mono_ns() -> int:
    """CLOCK_MONOTONIC, ns. The call through `_mono` costs about 10 ns more than the system's function itself."""
    return _mono()


def replace(mono: Callable[[], int] | None = None, wall: Callable[[], int] | None = None) -> None:
    """Run this process on other clocks (ns, each); without arguments on the system's again. For simulations only."""
    global _mono, _wall
    _mono, _wall = mono or _SYSTEM[0], wall or _SYSTEM[1]


@njit("int64(int64[::1])", cache=True)
def mono_ns_compiled(scratch):
    """CLOCK_MONOTONIC in ns from compiled code; ``scratch`` is two int64 of private memory.

    A third word, if there is one and it is not 0, is the time instead: so a simulation sets the clock of the code it drives.
    """
    if scratch.size > 2 and scratch[2] != 0:
        return scratch[2]
    _clock_gettime(1, scratch.ctypes.data)
    return scratch[0] * 1_000_000_000 + scratch[1]


class WallClock:
    """wall_ns = wall0_ns + (mono - mono0_ns) * rate. Live: the system's own clock, rate 1."""

    def __init__(self, wall0_ns: int | None = None, mono0_ns: int | None = None, rate: float = 1.0):
        self.mono0_ns = mono_ns() if mono0_ns is None else mono0_ns
        self.wall0_ns = _wall() if wall0_ns is None else wall0_ns
        self.rate = rate
        self.simulated = wall0_ns is not None

    def now_ns(self) -> int:
        """Wall time now, ns since 1970."""
        return _wall() if not self.simulated else self.at(_mono())

    def now_s(self) -> float:
        """Wall time now, s since 1970."""
        return self.now_ns() / 1e9

    def at(self, mono: int) -> int:
        """Wall time of a monotonic stamp, ns."""
        return self.wall0_ns + int((mono - self.mono0_ns) * self.rate)

    def mono_delay_s(self, wall_delay_s: float) -> float:
        """How long a wall-clock delay lasts on the monotonic clock, s (what to give to a sleep)."""
        return wall_delay_s / self.rate

    def as_dict(self) -> dict:
        """The three numbers that define the clock, as the exchange serves them."""
        return {"wall0_ns": self.wall0_ns, "mono0_ns": self.mono0_ns, "rate": self.rate}


def sync(clock_url: str, timeout_s: float = 20.0) -> WallClock:
    """The group's wall clock: the exchange's when ``clock_url`` is set (paper), else the system's (live).

    Waits up to ``timeout_s`` for the exchange to answer. Errors: UserError.
    """
    if not clock_url:
        return WallClock()
    deadline, last = mono_ns() + int(timeout_s * 1e9), ""
    while mono_ns() < deadline:
        try:
            with urllib.request.urlopen(clock_url, timeout=2) as answer:
                d = json.load(answer)
            return WallClock(int(d["wall0_ns"]), int(d["mono0_ns"]), float(d["rate"]))
        except (urllib.error.URLError, OSError, ValueError, KeyError) as e:
            last = str(e)
            time.sleep(0.05)
    raise UserError(f"the exchange's clock at {clock_url} did not answer in {timeout_s:g} s ({last}): "
                    "is the process `sim` running, and is venue.clock_url right?")
