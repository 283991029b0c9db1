"""Probability that a window resolves Up: that the 60 s average at its end is at least the 60 s average at its start.

Owns: the pricers by name (records.PRICERS) and the blend with the market, pure functions of numbers; `price` is what the core and the calibration
both call. Read by `core.view` and `mmbot.calibration`.
Sources: the venue's resolution rule (TWAP-60 print at both boundaries, a tie is Up) and the law of the time average of a Brownian motion: seen from
tau seconds before the end, the average over the last W seconds of x + sigma B has the variance sigma^2 (tau - 2W/3) while tau >= W, and
sigma^2 tau^3 / (3 W^2) once the averaging has begun. ``spot`` is document 1's q_up = Phi((ln(S_t/S_0) + mu tau) / sqrt(var tau)), ``binary`` document
3's cash-or-nothing option, N(d2) of Black and Scholes (1973) without interest.
Can go wrong: the volatility. And what is not published: the seconds that a TWAP print averages (``twap_lag_s`` says how long before its stamp they end)
and their weights (``twap_noise`` allows for it).
"""

import math

from numba import float64, from_dtype, int64, njit, types

from mmbot.signals import average
from mmbot.signals.average import AVG_T
from shm_layout import records as r

TWAP_S = 60.0
YEAR_S = 365.0 * 86_400.0   # Bitcoin trades all the time
SPOT, BINARY = r.PRICERS.index("spot"), r.PRICERS.index("binary")
_TINY = 1e-18               # variance below which the outcome is decided: 1e-9 in ln price
_SQRT_2PI = math.sqrt(2.0 * math.pi)
_P_LEAST = 0.001            # fair value stays within [_P_LEAST, 1 - _P_LEAST]
MODEL_T = from_dtype(r.MODEL_PARAMS)
_THREE, _FIVE = types.UniTuple(float64, 3), types.UniTuple(float64, 5)


@njit(types.UniTuple(float64, 2)(float64, int64), cache=True)
def student(t, dof):
    """(distribution function, density) of Student's t with an integer ``dof`` >= 1.

    Source: Abramowitz and Stegun 26.7.3 and 26.7.4, finite sums in powers of the cosine of atan(t / sqrt(dof)); the density's constant is a product
    of the same terms. Both are right to some 1e-15; far out the first can fall by a unit of the last place where it should stand still.
    """
    cos2 = dof / (dof + t * t)
    cos, sin = math.sqrt(cos2), t / math.sqrt(dof + t * t)
    term, total = 1.0, 0.0
    if dof % 2 == 0:
        for j in range(1, dof, 2):              # 1 + 1/2 cos^2 + (1 3)/(2 4) cos^4 + ... + cos^(dof - 2)
            total += term
            term *= j * cos2 / (j + 1)
        area = sin * total
        constant = 0.5 / math.sqrt(dof)
        for j in range(2, dof, 2):
            constant *= (j + 1) / j
    else:
        term = cos
        for j in range(2, dof, 2):              # cos + 2/3 cos^3 + (2 4)/(3 5) cos^5 + ... + cos^(dof - 2)
            total += term
            term *= j * cos2 / (j + 1)
        area = (math.atan2(t, math.sqrt(dof)) + sin * total) * 2.0 / math.pi
        constant = 1.0 / (math.pi * math.sqrt(dof))
        for j in range(1, dof, 2):
            constant *= (j + 1) / j
    return min(max(0.5 * (1.0 + area), 0.0), 1.0), constant * cos2 ** (0.5 * (dof + 1))


@njit(_THREE(float64, int64), cache=True)
def tail(z, dof):
    """(P(Z <= z), density, slope of the density) of Z with mean 0 and variance 1: normal for ``dof`` 0, else Student's t scaled to variance 1 (``dof`` > 2)."""
    if dof == 0:
        density = math.exp(-0.5 * z * z) / _SQRT_2PI
        return 0.5 * math.erfc(-z * math.sqrt(0.5)), density, -z * density
    scale = math.sqrt(dof / (dof - 2.0))
    t = z * scale
    below, density = student(t, dof)
    return below, scale * density, -scale * scale * density * (dof + 1) * t / (dof + t * t)


@njit(float64(float64, float64), cache=True)
def p_not_negative(mean, var):
    """P(X >= 0) for X normal with that mean and variance; without variance a tie counts as yes."""
    if var < _TINY:
        return 1.0 if mean >= 0.0 else 0.0
    return 0.5 * math.erfc(-mean / math.sqrt(2.0 * var))


@njit(_THREE(float64, float64, float64, float64, float64, float64, float64), cache=True)
def running(ln_level, ln_strike, known_s, ln_known, tau_s, var_s, drift_s):
    """(mean, variance, weight of the level) of the closing average less the known strike.

    ``known_s`` and ``ln_known``: how many seconds of the closing average are already printed, and their mean (`average.known_part`);
    ``tau_s`` to its end; ``var_s`` and ``drift_s`` per second of ln price.
    """
    w = TWAP_S
    if tau_s >= w:
        return ln_level - ln_strike + drift_s * (tau_s - 0.5 * w), var_s * (tau_s - w * 2.0 / 3.0), 1.0
    tau = max(tau_s, 0.0)
    known = min(known_s, w)
    mean = (known * ln_known + (w - known) * ln_level) / w - ln_strike + drift_s * tau * tau / (2.0 * w)
    return mean, var_s * tau * tau * tau / (3.0 * w * w), (w - known) / w


@njit(_THREE(float64, float64, float64, float64, float64, float64, float64), cache=True)
def ahead(ln_level, known_s, ln_known, ahead_s, duration_s, var_s, drift_s):
    """(mean, variance, weight of the level) of the closing less the opening average of ``duration_s`` later, the opening one ending in ``ahead_s``.

    ``known_s`` and ``ln_known``: the printed part of the opening average; ``ahead_s`` may be negative: all of it has been, but it is not
    printed. Opening and closing average share the path between them; with h seconds ahead, h < W, the variance of their difference is
    sigma^2 (h - h^2/W + h^3/(3 W^2) + D - 2W/3).
    """
    w = TWAP_S
    h = min(max(ahead_s, 0.0), w)
    tau = min(ahead_s, w) + duration_s
    known = min(known_s, w)
    opening = (known * ln_known + (w - known) * ln_level) / w + drift_s * h * h / (2.0 * w)
    closing = ln_level + drift_s * (tau - 0.5 * w)
    return closing - opening, var_s * (tau - h * h / w + h * h * h / (3.0 * w * w) - w * 2.0 / 3.0), known / w


@njit(float64(float64, float64, float64, float64, float64, float64, float64), cache=True)
def p_up_running(ln_level, ln_strike, known_s, ln_known, tau_s, var_s, drift_s):
    """Probability of Up in a running window with known strike, normal tails; arguments as in `running`."""
    mean, var, _ = running(ln_level, ln_strike, known_s, ln_known, tau_s, var_s, drift_s)
    return p_not_negative(mean, var)


@njit(float64(float64, float64, float64, float64, float64, float64, float64), cache=True)
def p_up_ahead(ln_level, known_s, ln_known, ahead_s, duration_s, var_s, drift_s):
    """Probability of Up while the strike is not printed, normal tails; arguments as in `ahead`."""
    mean, var, _ = ahead(ln_level, known_s, ln_known, ahead_s, duration_s, var_s, drift_s)
    return p_not_negative(mean, var)


@njit(_FIVE(float64, float64, float64, float64, float64, int64), cache=True)
def greeks(mean, var, path_var, weight, var_s, dof):
    """(p, delta, gamma, theta, vega): P(X >= 0) and its change per ln price, per ln price squared, per second that passes and per unit of volatility
    (square root of ``var_s``).

    X has that ``mean`` and ``var``, of which ``path_var`` is proportional to ``var_s`` (the rest is noise); ``weight`` is the change of the mean per ln
    price. As time passes the variance falls by ``var_s`` times the weight squared, whatever the phase of the averaging. Without variance all but p is 0.
    """
    if var < _TINY:
        return (1.0 if mean >= 0.0 else 0.0), 0.0, 0.0, 0.0, 0.0
    sd = math.sqrt(var)
    z = mean / sd
    p, density, slope = tail(z, dof)
    theta = density * z * var_s * weight * weight / (2.0 * var)
    vega = -density * z * path_var / (var * math.sqrt(var_s)) if var_s > 0.0 else 0.0
    return p, density * weight / sd, slope * weight * weight / var, theta, vega


@njit(_FIVE(MODEL_T, float64, float64, int64, float64, float64, float64, float64), cache=True)
def price_plainly(model, ln_level, ln_strike, has_strike, tau_s, duration_s, var_s, drift_s):
    """`greeks` by the documents' formulas: the spot price at the end against the strike. Without a strike the window is a coin toss tilted by the drift."""
    tau = max(tau_s, 0.0) if has_strike else duration_s
    mean = ln_level - ln_strike if has_strike else 0.0
    if model.pricer == BINARY:
        var_s = model.implied_vol * model.implied_vol / YEAR_S
        drift_s = -0.5 * var_s
    var = var_s * tau
    return greeks(mean + drift_s * tau, var, var, 1.0 if has_strike else 0.0, var_s, 0)


@njit(types.UniTuple(float64, 2)(AVG_T, int64, float64, float64, float64, float64), cache=True)
def known_until(avg, end_s, now_s, fill_ln, ln_print, ln_level):
    """(seconds known, mean ln) at ``now_s`` of the 60 s average that ends at ``end_s``.

    Printed seconds by `average.known_part` (``fill_ln`` as there). Seconds since the newest print are no longer of the future when a spot venue
    carries the level: they count as known too, half way between the print and the level.
    """
    w = int64(TWAP_S)
    known, ln_known = average.known_part(avg, end_s - w, end_s, fill_ln)
    past = min(max(now_s - (end_s - w), 0.0), TWAP_S)
    if known <= 0.0 or past <= known:
        return known, ln_known
    return past, (known * ln_known + (past - known) * 0.5 * (ln_print + ln_level)) / past


@njit(_FIVE(AVG_T, MODEL_T, float64, float64, float64, int64, float64, float64, int64, int64, int64, float64, float64, float64), cache=True)
def price(avg, model, ln_level, ln_print, age_s, led, fill_ln, ln_strike, has_strike, start_s, end_s, wall_s, var_s, drift_s):
    """(p, delta, gamma, theta, vega) of Up, see `greeks`, in one pass, by the pricer that ``model`` names.

    ``ln_level``: ln of Bitcoin now as the oracle will see it. ``led``: it is ``ln_print`` (newest print, observed ``age_s`` ago) carried on by a spot
    venue, and ``oracle_noise_s`` says how badly; otherwise the level is the print and the time since has to be priced like the time to come.
    ``fill_ln``: stands for prints never seen. The window runs from wall ``start_s`` to ``end_s``; its strike, if printed, is ``ln_strike``.
    """
    if model.pricer == SPOT or model.pricer == BINARY:
        return price_plainly(model, ln_level, ln_strike, has_strike, end_s - wall_s, float(end_s - start_s), var_s, drift_s)
    age_s = max(age_s, 0.0)
    now_s = wall_s if led else wall_s - age_s
    noise = model.oracle_noise_s * model.oracle_noise_s * age_s if led else 0.0
    lag = int64(model.twap_lag_s)
    left_s = end_s - lag - now_s
    known_s, ln_known = 0.0, 0.0
    if has_strike:
        if left_s < TWAP_S:
            known_s, ln_known = known_until(avg, end_s - lag, now_s, fill_ln, ln_print, ln_level)
        mean, path_var, weight = running(ln_level, ln_strike, known_s, ln_known, left_s, var_s, drift_s)
    else:
        ahead_s = start_s - lag - now_s
        if ahead_s < TWAP_S:
            known_s, ln_known = known_until(avg, start_s - lag, now_s, fill_ln, ln_print, ln_level)
        mean, path_var, weight = ahead(ln_level, known_s, ln_known, ahead_s, float(end_s - start_s), var_s, drift_s)
    print_var = model.twap_noise * model.twap_noise * (1.0 if has_strike else 2.0)
    return greeks(mean, path_var + noise * weight * weight + print_var, path_var, weight, var_s, model.tail_dof)


@njit(float64(float64, float64, float64, int64), cache=True)
def blend(p_model, mid, model_weight, by_logit):
    """Fair value of Up: weighted mean of model and market mid, or of their logits, kept within [0.001, 0.999]. Without a market (``mid`` 0) the model's."""
    if mid <= 0.0:
        return min(max(p_model, _P_LEAST), 1.0 - _P_LEAST)
    if by_logit == 0:
        return min(max(model_weight * p_model + (1.0 - model_weight) * mid, _P_LEAST), 1.0 - _P_LEAST)
    p, q = min(max(p_model, _P_LEAST), 1.0 - _P_LEAST), min(max(mid, _P_LEAST), 1.0 - _P_LEAST)
    z = model_weight * math.log(p / (1.0 - p)) + (1.0 - model_weight) * math.log(q / (1.0 - q))
    return min(max(1.0 / (1.0 + math.exp(-z)), _P_LEAST), 1.0 - _P_LEAST)
