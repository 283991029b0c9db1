"""The ladder: levels below the first price, each some ticks deeper and smaller.

Owns: nothing. Shared by strategies. Prices and sizes of level l: first - l * step ticks; base * decay ** l, in whole lots.
"""

from numba import float64, int64, njit

from mmbot.quoting.rounding import floor_lot


@njit(int64(int64, int64, int64, int64), cache=True)
def level_price(first_e4, level, step_ticks, tick_e4):
    """Price of ``level`` (0 is the first) in 1e-4 dollars; may fall out of range."""
    return first_e4 - level * step_ticks * tick_e4


@njit(int64(int64, int64, float64, float64), cache=True)
def level_size(base_u6, level, decay, scale):
    """Size of ``level`` in whole lots."""
    return floor_lot(base_u6 * decay ** level * scale)
