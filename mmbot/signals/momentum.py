"""Direction and size of the recent move, as a number in [-1, 1].

Owns: nothing, a pure function. Source: document 3, momentum skew by direction; here with size: the ln return over `momentum_s` in parts of `momentum_scale`.
Can go wrong: nothing is known right after a start; the core passes a return of 0 then.
"""

from numba import float64, njit


@njit(float64(float64, float64), cache=True)
def momentum(ret, scale):
    """``ret`` (ln) over ``scale``, clipped to [-1, 1]; positive when Bitcoin rises."""
    return min(max(ret / scale, -1.0), 1.0)
