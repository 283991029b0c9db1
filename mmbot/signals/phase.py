"""Where in its life a window is: ahead of its start, open, mid, late or final.

Owns: nothing, a pure function. Source: document 3, phases of the period, final being the last 60 s. Codes of records.PHASES.
"""

from numba import float64, int64, njit

from shm_layout import records as r

AHEAD, OPEN, MID, LATE, FINAL = (r.PHASES.index(name) for name in ("ahead", "open", "mid", "late", "final"))


@njit(int64(float64, float64, float64, float64, float64), cache=True)
def phase(elapsed, tau_s, mid_at, late_at, final_s):
    """Code of the phase: ``elapsed`` part of the window (negative before it starts), ``tau_s`` seconds to its end."""
    if elapsed < 0.0:
        return AHEAD
    if tau_s <= final_s:
        return FINAL
    if elapsed >= late_at:
        return LATE
    return MID if elapsed >= mid_at else OPEN
