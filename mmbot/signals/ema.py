"""A fast and a slow average of the price, and the gap between them.

Owns: the EMA record (both averages in dollars). Written by `update` on the grid of `signals.path`, read by the core as ln fast - ln slow.
Source: document 0, x2 = EMA_fast - EMA_slow; in logs, so that it does not grow with the price. Weights by elapsed time, exp(-dt / time constant): samples
may come at any distance. Can go wrong: right after a start both are the first price, and the gap is 0 until they part.
"""

import math

import numpy as np
from numba import float64, from_dtype, int64, njit, void

MAX_GAP_S = 60.0            # after a longer silence both start anew

EMA = np.dtype([("begun", "<i8"), ("seen_s", "<f8"), ("fast", "<f8"), ("slow", "<f8")])
EMA_T = from_dtype(EMA)


@njit(void(EMA_T, float64, float64, float64, float64), cache=True)
def update(ema, dt_s, px, fast_s, slow_s):
    """Take the price (dollars) that held for the last ``dt_s`` seconds; ``fast_s`` and ``slow_s`` are time constants."""
    if ema.begun == 0 or dt_s > MAX_GAP_S or dt_s < 0.0:
        ema.begun, ema.seen_s, ema.fast, ema.slow = 1, 0.0, px, px
        return
    ema.seen_s += dt_s
    ema.fast = px + (ema.fast - px) * math.exp(-dt_s / fast_s)
    ema.slow = px + (ema.slow - px) * math.exp(-dt_s / slow_s)


@njit(float64(EMA_T), cache=True)
def gap(ema):
    """ln fast - ln slow, 0 before the first price."""
    return math.log(ema.fast / ema.slow) if ema.begun != 0 else 0.0


@njit(int64(EMA_T, float64), cache=True)
def known(ema, slow_s):
    """Whether the averages have seen at least a time constant of the slow one: before that the gap is the start's, not the market's."""
    return 1 if ema.begun != 0 and ema.seen_s >= slow_s else 0
