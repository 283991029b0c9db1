"""What own fills were worth a while later: the others' mid then against the price paid, from our side.

Owns: the MARKOUT record: of each horizon the next fill to judge, and sums. One per window and one over all. Written by `look`, read by the core.
Source: markout curves as used to judge adverse selection; positive when the mid is better than our price. Dollars a share, weighted by shares.
Can go wrong: a book without a mid at that time. It is looked for LATE_NS longer, then the fill is counted as lost for that horizon.
"""

import numpy as np
from numba import float64, from_dtype, int64, njit, void

from mmbot.signals import fills as own

SECOND_NS = 1_000_000_000
HORIZONS_NS = (1 * SECOND_NS, 5 * SECOND_NS, 30 * SECOND_NS, 60 * SECOND_NS, 300 * SECOND_NS)
HORIZONS = len(HORIZONS_NS)
FIVE_S = HORIZONS_NS.index(5 * SECOND_NS)
LATE_NS = SECOND_NS
_AT = np.array(HORIZONS_NS)

MARKOUT = np.dtype([("next", "<i8", (HORIZONS,)), ("lost", "<i8", (HORIZONS,)), ("fills", "<i8", (HORIZONS,)), ("shares", "<f8", (HORIZONS,)),
                    ("dollars", "<f8", (HORIZONS,))])
MARKOUT_T = from_dtype(MARKOUT)


@njit(void(MARKOUT_T), cache=True)
def forget(markout):
    """Start anew: no fill judged."""
    for h in range(HORIZONS):
        markout.next[h] = markout.lost[h] = markout.fills[h] = 0
        markout.shares[h] = markout.dollars[h] = 0.0


@njit(void(MARKOUT_T, int64, float64, float64), cache=True)
def _count(markout, h, shares, dollars):
    markout.fills[h] += 1
    markout.shares[h] += shares
    markout.dollars[h] += dollars


@njit(void(MARKOUT_T, MARKOUT_T, own.FILLS_T, float64, int64), cache=True)
def look(markout, overall, fills, mid, now_ns):
    """Judge the fills that have come of age; ``mid`` of the others now, 0 when there is none."""
    for h in range(HORIZONS):
        k = max(markout.next[h], fills.n - own.FILLS_N)
        markout.lost[h] += k - markout.next[h]
        while k < fills.n:
            fill = fills.of[k % own.FILLS_N]
            over_ns = now_ns - fill.t_ns - _AT[h]
            if over_ns < 0 or (mid <= 0.0 and over_ns <= LATE_NS):
                break
            if mid > 0.0 and over_ns <= LATE_NS:
                dollars = fill.side * (mid - fill.px) * fill.shares
                _count(markout, h, fill.shares, dollars)
                _count(overall, h, fill.shares, dollars)
            else:
                markout.lost[h] += 1
            k += 1
        markout.next[h] = k


@njit(float64(MARKOUT_T, int64), cache=True)
def mean(markout, h):
    """Mean markout of horizon ``h`` in dollars a share, 0 when no fill was judged."""
    return markout.dollars[h] / markout.shares[h] if markout.shares[h] > 0.0 else 0.0
