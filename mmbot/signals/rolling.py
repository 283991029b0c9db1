"""Standard deviation of the last N seconds' log returns of one second.

Owns: nothing; the returns are read off the path, so nothing can drift and the memory is fixed. Computed by the core once a second.
Source: document 0, x3, a rolling standard deviation of ln(S_i / S_{i-1}) (the sample's, with n - 1). Unit: ln price per return of one second.
Can go wrong: one-second returns of Chainlink alone are smoothed and understate volatility; `signals.volatility` prices with longer ones.
"""

import math

from numba import float64, int64, njit, types

from mmbot.signals import path as grid

MIN_RETURNS = 10


@njit(types.Tuple((int64, float64))(grid.PATH_T, float64), cache=True)
def std(path, window_s):
    """(1, standard deviation), (0, 0) while the path is younger than the window or than MIN_RETURNS."""
    n = int64(window_s)
    if n < MIN_RETURNS or path.step == 0 or path.step - path.first < n * grid.STEPS_S:
        return 0, 0.0
    total = squares = 0.0
    for i in range(n):
        at = path.step - i * grid.STEPS_S
        ret = path.ln[at % grid.CELLS] - path.ln[(at - grid.STEPS_S) % grid.CELLS]
        total += ret
        squares += ret * ret
    return 1, math.sqrt(max(squares - total * total / n, 0.0) / (n - 1))
