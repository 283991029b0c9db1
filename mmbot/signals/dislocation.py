"""What the market should quote given Bitcoin's features, less what it quotes.

Owns: nothing, pure functions. Source: document 0, logit p = beta . (1, x0, x1, x2, x3) with the 60 s return, the window's return, the EMA gap and the rolling
standard deviation; dislocation = p - mid, positive when Up is too cheap.
Can go wrong: coefficients that were fitted elsewhere. Without any (all 0) nothing is expected.
"""

import math

from numba import float64, njit

MAX_LOGIT = 30.0


@njit(float64(float64), cache=True)
def sigmoid(z):
    """1 / (1 + exp(-z)), within (0, 1) for any finite z."""
    z = min(max(z, -MAX_LOGIT), MAX_LOGIT)
    return 1.0 / (1.0 + math.exp(-z))


@njit(float64(float64, float64, float64, float64, float64, float64, float64, float64, float64), cache=True)
def expected(b0, b1, b2, b3, b4, ret_anchor, ret_window, ema_gap, std):
    """Expected price of Up in (0, 1): ``b0`` the intercept, ``b1`` to ``b4`` the features' coefficients; 0 when nothing was fitted (all 0)."""
    if b0 == 0.0 and b1 == 0.0 and b2 == 0.0 and b3 == 0.0 and b4 == 0.0:
        return 0.0
    return sigmoid(b0 + b1 * ret_anchor + b2 * ret_window + b3 * ema_gap + b4 * std)
