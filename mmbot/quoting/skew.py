"""Inventory skew: lean the pair of bids against what is already held.

Owns: nothing. Source: the reservation price of inventory models (Ho and Stoll 1981; Avellaneda and Stoikov 2008), with a linear,
capped shift. Holding more Up than Down lowers the Up bid and raises the Down bid by the same amount, so their sum does not move.
"""

from numba import float64, int64, njit

NONE, DROP_FIRST, DROP_ALL = 0, 1, 2


@njit(float64(int64, float64, float64), cache=True)
def price_shift(imbalance_u6, skew_per_share, skew_max):
    """Dollars by which the fair value of Up is lowered; ``imbalance_u6`` is Up minus Down shares."""
    return min(max(imbalance_u6 * 1e-6 * skew_per_share, -skew_max), skew_max)


@njit(int64(int64, int64, int64), cache=True)
def severity(imbalance_u6, severe_u6, max_u6):
    """What the heavy side may still quote: NONE lost, its first level dropped, or all of it."""
    held = abs(imbalance_u6)
    if held >= max_u6 and held > 0:
        return DROP_ALL
    return DROP_FIRST if held >= severe_u6 and held > 0 else NONE
