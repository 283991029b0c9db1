"""The level of Bitcoin on a grid of 100 ms: what it was some time ago, for every signal that looks back.

Owns: the PATH record, a ring of ln prices. Written by `push`, called by the core before it takes an input, so that each cell holds the newest level known
at its time. Read by the other signals.
Can go wrong: a hole longer than MAX_HOLE, or a wall clock set back that far, starts the path anew; what is not remembered is said so, never guessed.
"""

import numpy as np
from numba import float64, from_dtype, int64, njit, types, void

STEP_MS = 100
STEPS_S = 1000 // STEP_MS
CELLS = 4096                # 409 s
MAX_HOLE = 600              # steps: a level unheard for a minute is no path

PATH = np.dtype([("step", "<i8"), ("first", "<i8"), ("ln", "<f8", (CELLS,))])
PATH_T = from_dtype(PATH)


@njit(void(PATH_T, int64, float64), cache=True)
def push(path, step, ln_level):
    """Say that the level has been ``ln_level`` since the last push, up to grid step ``step`` (wall ms // STEP_MS)."""
    gap = step - path.step
    if path.step == 0 or gap > MAX_HOLE or gap < -MAX_HOLE:
        path.first, path.step = step, step - 1
    for s in range(path.step + 1, step + 1):
        path.ln[s % CELLS] = ln_level
    path.step = max(path.step, step)
    path.first = max(path.first, path.step - CELLS + 1)


@njit(types.Tuple((int64, float64))(PATH_T, int64), cache=True)
def at(path, step):
    """(1, ln level at a grid step), (0, 0) when it is not remembered."""
    if path.step == 0 or step < path.first or step > path.step:
        return 0, 0.0
    return 1, path.ln[step % CELLS]
