"""Variance and drift of the log price: exponentially weighted averages of returns of suitable lengths.

Owns: the VOL record: ``var_s`` and ``drift_s`` (document 1), ``short_var_s`` and the baseline ``long_var_s`` (document 2: 1 minute against 24 hours).
Written by `update` with each Chainlink spot print, read by the core.
Source: EWMA variance as in RiskMetrics, with weights by elapsed time instead of by sample count.
Can go wrong: the estimate of a calm minute is too low for the next quarter of an hour, hence the baseline and the floor; a hole in the feed, hence
MAX_GAP_MS; a baseline that has seen only minutes, hence its prior.

Why not 1 s returns: Chainlink's one-second returns are positively autocorrelated (the stream is smoothed), so variance per second
grows with the length of the return. On 84,558 prints of 2026-06-08: 4.4e-9 at 1 s, 7.6e-9 at 5 s, 8.8e-9 at 10 s, 9.4e-9 at 30 s,
8.2e-9 at 900 s. Returns of at least 5 s keep enough samples for a 30 s half-life, and HORIZON_SCALE brings them to the horizon of
a window. The baseline takes returns of a minute, which need no such scale.
"""

import math

import numpy as np
from numba import float64, from_dtype, int64, njit, void

SAMPLE_MS = 5_000           # shortest return that is used
MAX_GAP_MS = 60_000         # a longer return says little about the present: start again from here
HORIZON_SCALE = 1.1         # variance at 15 minutes over variance at 5 s, per second
LONG_SAMPLE_MS = 60_000     # shortest return of the baseline
LONG_MAX_GAP_MS = 600_000
PRIOR_S = 600.0             # the baseline starts as if it had seen var_ref for so long

VOL = np.dtype([
    ("last_ms", "<i8"), ("samples", "<i8"), ("last_ln", "<f8"), ("var_s", "<f8"), ("drift_s", "<f8"), ("short_var_s", "<f8"),
    ("long_ms", "<i8"), ("long_ln", "<f8"), ("long_seen_s", "<f8"), ("long_var_s", "<f8"),
])
VOL_T = from_dtype(VOL)


@njit(float64(float64, float64), cache=True)
def decay(dt_s, half_life_s):
    """Weight left of an old estimate after ``dt_s`` seconds: 0.5 ** (dt / half-life)."""
    return 0.5 ** (dt_s / half_life_s)


@njit(void(VOL_T, int64, float64, float64), cache=True)
def _update_long(vol, t_ms, ln_px, half_life_s):
    """Take a print into the baseline: the mean of squared returns so far while it is young, exponentially weighted once it is old."""
    gap_ms = t_ms - vol.long_ms
    if gap_ms < LONG_SAMPLE_MS:
        return
    if gap_ms <= LONG_MAX_GAP_MS:
        dt_s = gap_ms * 1e-3
        ret = ln_px - vol.long_ln
        old = vol.long_seen_s * decay(dt_s, half_life_s)
        vol.long_seen_s = old + dt_s
        vol.long_var_s = (old * vol.long_var_s + ret * ret) / vol.long_seen_s
    vol.long_ms = t_ms
    vol.long_ln = ln_px


@njit(void(VOL_T, int64, float64, float64, float64, float64, float64, float64), cache=True)
def update(vol, t_ms, ln_px, var_ref, half_life_var_s, half_life_drift_s, half_life_short_s, half_life_long_s):
    """Take a print (observation stamp in ms, ln of the price) into ``vol``; prints closer than SAMPLE_MS to the last are skipped.

    The estimates start at ``var_ref`` (variance per second), so a cold start quotes with a sensible width.
    """
    gap_ms = t_ms - vol.last_ms
    if vol.last_ms == 0 or gap_ms > MAX_GAP_MS:
        if vol.last_ms == 0:
            vol.var_s = vol.short_var_s = vol.long_var_s = var_ref
            vol.long_seen_s, vol.long_ms, vol.long_ln = PRIOR_S, t_ms, ln_px
        vol.last_ms = t_ms
        vol.last_ln = ln_px
        return
    if gap_ms < SAMPLE_MS:
        return
    dt_s = gap_ms * 1e-3
    ret = ln_px - vol.last_ln
    per_s = HORIZON_SCALE * ret * ret / dt_s
    keep = decay(dt_s, half_life_var_s)
    vol.var_s = keep * vol.var_s + (1.0 - keep) * per_s
    keep = decay(dt_s, half_life_short_s)
    vol.short_var_s = keep * vol.short_var_s + (1.0 - keep) * per_s
    keep = decay(dt_s, half_life_drift_s)
    vol.drift_s = keep * vol.drift_s + (1.0 - keep) * ret / dt_s
    vol.last_ms = t_ms
    vol.last_ln = ln_px
    vol.samples += 1
    _update_long(vol, t_ms, ln_px, half_life_long_s)


@njit(float64(VOL_T, float64, float64, float64), cache=True)
def variance(vol, var_ref, var_floor, long_weight):
    """The variance of ln price per second that prices: ``var_s`` and the baseline by ``long_weight``, at least ``var_floor``; ``var_ref`` before the
    first print."""
    if vol.last_ms == 0:
        return max(var_ref, var_floor)
    return max((1.0 - long_weight) * vol.var_s + long_weight * vol.long_var_s, var_floor)


@njit(float64(VOL_T, float64, float64), cache=True)
def sigma_short(vol, var_ref, var_floor):
    """Short volatility per square root of a second, not below the floor's."""
    return math.sqrt(max(vol.short_var_s if vol.last_ms != 0 else var_ref, var_floor))


@njit(float64(VOL_T, float64, float64), cache=True)
def sigma_long(vol, var_ref, var_floor):
    """Baseline volatility per square root of a second, not below the floor's."""
    return math.sqrt(max(vol.long_var_s if vol.last_ms != 0 else var_ref, var_floor))


@njit(float64(VOL_T, float64), cache=True)
def drift(vol, clamp):
    """Drift of ln price per second, within +-``clamp``."""
    return min(max(vol.drift_s, -clamp), clamp)
