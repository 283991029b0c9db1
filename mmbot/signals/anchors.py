"""Log returns since an anchor: a fixed time ago, and since the window began.

Owns: nothing, pure functions of the path. Read by the core.
Source: document 0, x0 = ln(S_t / S_{t-60 s}) and x1 = ln(S_t / S_0). Both are pure numbers (ln price).
Can go wrong: right after a start the past is not known; then there is no return, and its flag says so.
"""

from numba import boolean, float64, int64, njit, types

from mmbot.signals import path as grid


@njit(types.Tuple((int64, float64))(grid.PATH_T, float64, int64, float64), cache=True)
def since(path, ln_level, wall_ms, back_s):
    """(1, ln return over the last ``back_s`` seconds), (0, 0) when the level of then is not remembered."""
    known, ln_then = grid.at(path, (wall_ms - int64(back_s * 1e3)) // grid.STEP_MS)
    return (1, ln_level - ln_then) if known else (0, 0.0)


@njit(types.Tuple((int64, float64))(grid.PATH_T, float64, int64, boolean, float64), cache=True)
def window(path, ln_level, start_s, has_strike, ln_strike):
    """(1, ln return since the window began): against its strike, or as long as that is not printed against the level at its start."""
    if has_strike:
        return 1, ln_level - ln_strike
    known, ln_then = grid.at(path, start_s * grid.STEPS_S)
    return (1, ln_level - ln_then) if known else (0, 0.0)
