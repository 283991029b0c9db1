"""Variance and drift of the log price, as exponentially weighted averages of returns of one suitable length.

Owns: the VOL record. Written by `update` with each Chainlink spot print, read by the core.
Source: EWMA variance as in RiskMetrics, with weights by elapsed time instead of by sample count.
Can go wrong: the estimate of a calm minute is too low for the next quarter of an hour, hence the floor; a hole in the feed, hence
MAX_GAP_MS.

Why not 1 s returns: Chainlink's one-second returns are positively autocorrelated (the stream is smoothed), so variance per second
grows with the length of the return. On 84,558 prints of 2026-06-08: 4.4e-9 at 1 s, 7.6e-9 at 5 s, 8.8e-9 at 10 s, 9.4e-9 at 30 s,
8.2e-9 at 900 s. Returns of at least 5 s keep enough samples for a 30 s half-life, and HORIZON_SCALE brings them to the horizon of
a window.
"""

import numpy as np
from numba import float64, from_dtype, int64, njit, void

SAMPLE_MS = 5_000           # shortest return that is used
MAX_GAP_MS = 60_000         # a longer return says little about the present: start again from here
HORIZON_SCALE = 1.1         # variance at 15 minutes over variance at 5 s, per second

VOL = np.dtype([("last_ms", "<i8"), ("samples", "<i8"), ("last_ln", "<f8"), ("var_s", "<f8"), ("drift_s", "<f8")])
VOL_T = from_dtype(VOL)


@njit(float64(float64, float64), cache=True)
def decay(dt_s, half_life_s):
    """Weight left of an old estimate after ``dt_s`` seconds: 0.5 ** (dt / half-life)."""
    return 0.5 ** (dt_s / half_life_s)


@njit(void(VOL_T, int64, float64, float64, float64, float64), cache=True)
def update(vol, t_ms, ln_px, var_ref, half_life_var_s, half_life_drift_s):
    """Take a print (observation stamp in ms, ln of the price) into ``vol``; prints closer than SAMPLE_MS to the last are skipped.

    The estimate starts at ``var_ref`` (variance per second), so a cold start quotes with a sensible width.
    """
    gap_ms = t_ms - vol.last_ms
    if vol.last_ms == 0 or gap_ms > MAX_GAP_MS:
        if vol.last_ms == 0:
            vol.var_s = var_ref
        vol.last_ms = t_ms
        vol.last_ln = ln_px
        return
    if gap_ms < SAMPLE_MS:
        return
    dt_s = gap_ms * 1e-3
    ret = ln_px - vol.last_ln
    keep = decay(dt_s, half_life_var_s)
    vol.var_s = keep * vol.var_s + (1.0 - keep) * HORIZON_SCALE * ret * ret / dt_s
    keep = decay(dt_s, half_life_drift_s)
    vol.drift_s = keep * vol.drift_s + (1.0 - keep) * ret / dt_s
    vol.last_ms = t_ms
    vol.last_ln = ln_px
    vol.samples += 1


@njit(float64(VOL_T, float64, float64), cache=True)
def variance(vol, var_ref, var_floor):
    """Variance of ln price per second, at least ``var_floor``; ``var_ref`` before the first print."""
    if vol.last_ms == 0:
        return max(var_ref, var_floor)
    return max(vol.var_s, var_floor)


@njit(float64(VOL_T, float64), cache=True)
def drift(vol, clamp):
    """Drift of ln price per second, within +-``clamp``."""
    return min(max(vol.drift_s, -clamp), clamp)
