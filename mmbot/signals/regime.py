"""Is the market trending, mean-reverting or volatile?

Owns: the variance ratio (computed by the core once a second from the path) and its judgement. Read into VIEW, codes of records.REGIMES.
Source: Lo and MacKinlay 1988, the variance of LONG_S returns over LONG_S times the variance of one-second returns, overlapping, without taking out a mean: a
steady drift is a trend too. 1 for a random walk; over SPAN_S its standard error is about 0.2.
Can go wrong: Chainlink alone is smoothed, and its short returns look like a trend; with a spot venue fresh the level moves by that.
"""

from numba import float64, int64, njit

from mmbot.signals import path as grid
from shm_layout import records as r

LONG_S = 10
SPAN_S, MIN_SPAN_S = 300, 60
UNKNOWN, TRENDING, MEAN_REVERTING, VOLATILE = (r.REGIMES.index(name) for name in ("unknown", "trending", "mean_reverting", "volatile"))


@njit(float64(grid.PATH_T), cache=True)
def variance_ratio(path):
    """Variance of LONG_S returns over LONG_S times that of one-second returns; 0 when the path is too short or did not move."""
    span = min((path.step - path.first) // grid.STEPS_S, SPAN_S)
    if path.step == 0 or span < MIN_SPAN_S:
        return 0.0
    short = long = 0.0
    for i in range(span):
        at = path.step - i * grid.STEPS_S
        ln = path.ln[at % grid.CELLS]
        ret = ln - path.ln[(at - grid.STEPS_S) % grid.CELLS]
        short += ret * ret
        if i <= span - LONG_S:
            ret = ln - path.ln[(at - LONG_S * grid.STEPS_S) % grid.CELLS]
            long += ret * ret
    if short <= 0.0:
        return 0.0
    return long / (span - LONG_S + 1) / (LONG_S * short / span)


@njit(int64(float64, float64, float64, float64, float64, float64), cache=True)
def judge(ratio, sigma_short, sigma_long, trend_ratio, revert_ratio, volatile_ratio):
    """Code of the regime from the variance ratio (0: not known) and the volatilities (0: not known). Volatile goes first."""
    if sigma_long > 0.0 and sigma_short > volatile_ratio * sigma_long:
        return VOLATILE
    if ratio > trend_ratio:
        return TRENDING
    if 0.0 < ratio < revert_ratio:
        return MEAN_REVERTING
    return UNKNOWN
