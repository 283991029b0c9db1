"""The micro-price, and the filter that pauses quoting when it leaves the mid.

Owns: the JUMP record of a window (until when it is paused, and by how much the prices differed). Written by `watch`, read by the core.
Source: document 2, (Q_bid p_ask + Q_ask p_bid) / (Q_bid + Q_ask): the price leans to the side with less behind it; and its filter: |micro - mid| / mid above
0.5 % pauses quoting for 5 s.
Can go wrong: in a thin book with a tick of a cent the two differ by more than that all the time, so the filter is off by default.
"""

import numpy as np
from numba import float64, from_dtype, int64, njit, void

JUMP = np.dtype([("until_ns", "<i8"), ("size", "<f8")])
JUMP_T = from_dtype(JUMP)


@njit(float64(float64, float64, float64, float64), cache=True)
def micro(bid, ask, bid_size, ask_size):
    """Micro-price in dollars, between bid and ask; the mid when no sizes are known. Of several levels: their mean prices and total sizes."""
    total = bid_size + ask_size
    return (bid_size * ask + ask_size * bid) / total if total > 0.0 else 0.5 * (bid + ask)


@njit(void(JUMP_T, float64, float64, float64, int64, int64), cache=True)
def watch(jump, micro_px, mid, threshold, pause_ns, now_ns):
    """Pause for ``pause_ns`` from now when |micro - mid| / mid exceeds ``threshold``; a pause of 0 switches the filter off."""
    if pause_ns <= 0:
        jump.until_ns = 0
        return
    size = abs(micro_px - mid) / mid if mid > 0.0 else 0.0
    if size > threshold:
        jump.until_ns, jump.size = now_ns + pause_ns, size
