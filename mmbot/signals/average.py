"""The part of a 60 s average that is already known: running sums of Chainlink's one-per-second prints.

Owns: the AVG record, a ring of cumulative sums of ln price indexed by second. Written by `push`, read by `known_part`.
Can go wrong: a hole in the feed (interpolated up to MAX_HOLE_S, longer ones forget what came before) and a start inside the
averaging window (the caller gets the covered part and fills the rest with the newest TWAP print).

The average of logs stands for the log of the average: over 60 s they differ by less than 1e-7, far below a tick of a window.
"""

import numpy as np
from numba import float64, from_dtype, int64, njit, types, void

SECONDS = 128               # remembered seconds: a 60 s average and some lateness
MAX_HOLE_S = 20

AVG = np.dtype([("first_s", "<i8"), ("last_s", "<i8"), ("last_ln", "<f8"), ("total", "<f8", (SECONDS,))])
AVG_T = from_dtype(AVG)


@njit(void(AVG_T, int64, float64), cache=True)
def push(avg, t_s, ln_px):
    """Take the print observed at second ``t_s``; seconds without a print are filled by a straight line."""
    if avg.last_s == 0 or t_s - avg.last_s > MAX_HOLE_S:
        avg.first_s = t_s
        avg.last_s = t_s
        avg.last_ln = ln_px
        avg.total[t_s % SECONDS] = 0.0
        return
    if t_s <= avg.last_s:
        return
    slope = (ln_px - avg.last_ln) / (t_s - avg.last_s)
    for s in range(avg.last_s + 1, t_s + 1):
        avg.total[s % SECONDS] = avg.total[(s - 1) % SECONDS] + avg.last_ln + slope * (s - avg.last_s)
    avg.last_s = t_s
    avg.last_ln = ln_px
    avg.first_s = max(avg.first_s, t_s - SECONDS + 1)


@njit(types.UniTuple(float64, 2)(AVG_T, int64, int64, float64), cache=True)
def known_part(avg, from_s, to_s, fill_ln):
    """(seconds known, mean ln over them) of the average over the seconds ``from_s`` + 1 to ``to_s``.

    Seconds before the first remembered print count as known with value ``fill_ln``. (0, 0) when nothing is known yet.
    """
    upto = min(to_s, avg.last_s)
    if avg.last_s == 0 or upto <= from_s:
        return 0.0, 0.0
    begin = min(max(from_s, avg.first_s), upto)
    seen = avg.total[upto % SECONDS] - avg.total[begin % SECONDS]
    seconds = float(upto - from_s)
    return seconds, (seen + (begin - from_s) * fill_ln) / seconds
