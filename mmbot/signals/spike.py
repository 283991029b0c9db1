"""Volatility spikes: quotes are pulled for a while when Bitcoin moves too fast, or is far more volatile than usual.

Owns: the SPIKE record of a window. Written by `watch`, read by the core.
Source: document 3, whose "0.2 % move" and "> 2x normal" are two tests with thresholds of their own; either one pulls, for 5 s there.
Can go wrong: without a baseline the second test is silent.
"""

import numpy as np
from numba import float64, from_dtype, int64, njit, void

SPIKE = np.dtype([("until_ns", "<i8"), ("size", "<f8")])
SPIKE_T = from_dtype(SPIKE)


@njit(float64(float64, float64, float64, float64, float64), cache=True)
def size(move, sigma_short, sigma_long, move_limit, ratio_limit):
    """The greater of |ln return| and of short over long volatility, each in parts of its limit: above 1 is a spike."""
    ratio = sigma_short / sigma_long if sigma_long > 0.0 else 0.0
    return max(move / move_limit, ratio / ratio_limit)


@njit(void(SPIKE_T, float64, int64, int64), cache=True)
def watch(spike, found, pause_ns, now_ns):
    """Pull quotes for ``pause_ns`` from now when the `size` ``found`` is above 1; a pause of 0 switches it off."""
    if pause_ns <= 0:
        spike.until_ns = 0
    elif found > 1.0:
        spike.until_ns, spike.size = now_ns + pause_ns, found
