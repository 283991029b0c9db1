"""Probability that a window resolves Up: that the 60 s average at its end is at least the 60 s average at its start.

Owns: nothing, pure functions of numbers. Read by the core.
Source: the venue's resolution rule (TWAP-60 print at both boundaries, a tie is Up) and the law of the time average of a Brownian
motion: seen from tau seconds before the end, the average over the last W seconds of x + sigma B has the variance
sigma^2 (tau - 2W/3) while tau >= W, and sigma^2 tau^3 / (3 W^2) once the averaging has begun.
Can go wrong: the volatility. Everything else is arithmetic.
"""

import math

from numba import float64, njit

TWAP_S = 60.0
_TINY = 1e-18               # variance below which the outcome is decided: 1e-9 in ln price


@njit(float64(float64, float64), cache=True)
def p_not_negative(mean, var):
    """P(X >= 0) for X normal with that mean and variance; without variance a tie counts as yes."""
    if var < _TINY:
        return 1.0 if mean >= 0.0 else 0.0
    return 0.5 * math.erfc(-mean / math.sqrt(2.0 * var))


@njit(float64(float64, float64, float64, float64, float64, float64, float64), cache=True)
def p_up_running(ln_level, ln_strike, known_s, ln_known, tau_s, var_s, drift_s):
    """Probability of Up in a running window with known strike.

    ``known_s`` and ``ln_known``: how many seconds of the closing average are already printed, and their mean (`average.known_part`);
    ``tau_s`` to the end; ``var_s`` and ``drift_s`` per second of ln price.
    """
    w = TWAP_S
    if tau_s >= w:
        return p_not_negative(ln_level - ln_strike + drift_s * (tau_s - 0.5 * w), var_s * (tau_s - w * 2.0 / 3.0))
    tau = max(tau_s, 0.0)
    known = min(known_s, w)
    mean = (known * ln_known + (w - known) * ln_level) / w - ln_strike + drift_s * tau * tau / (2.0 * w)
    return p_not_negative(mean, var_s * tau * tau * tau / (3.0 * w * w))


@njit(float64(float64, float64, float64, float64, float64, float64, float64), cache=True)
def p_up_ahead(ln_level, known_s, ln_known, ahead_s, duration_s, var_s, drift_s):
    """Probability of Up while the strike is not printed: ``ahead_s`` before the start (0: just started), window of ``duration_s``.

    ``known_s`` and ``ln_known``: the printed part of the opening average. Opening and closing average share the path between
    them; with h seconds ahead, h < W, the variance of their difference is sigma^2 (h - h^2/W + h^3/(3 W^2) + D - 2W/3).
    """
    w = TWAP_S
    h = min(max(ahead_s, 0.0), w)
    known = min(known_s, w)
    opening = (known * ln_known + (w - known) * ln_level) / w + drift_s * h * h / (2.0 * w)
    closing = ln_level + drift_s * (h + duration_s - 0.5 * w)
    var = var_s * (h - h * h / w + h * h * h / (3.0 * w * w) + duration_s - w * 2.0 / 3.0)
    return p_not_negative(closing - opening, var)


@njit(float64(float64, float64, float64), cache=True)
def blend(p_model, mid, model_weight):
    """Fair value of Up: weighted mean of model and market mid, kept within [0.001, 0.999]."""
    return min(max(model_weight * p_model + (1.0 - model_weight) * mid, 0.001), 0.999)
