"""Rounding to the venue's grids: prices down to the tick, sizes down to the lot.

Owns: nothing. Used by every strategy. Bids only ever round down, so rounding never makes a quote dearer than was meant.
Source: venue protocol, tick sizes and rounding.
"""

import math

from numba import float64, int64, njit

ONE_E4 = 10_000             # one dollar
#: Sizes are whole shares: the venue would take hundredths, but a pre-signed order is only found again if sizes repeat.
LOT_U6 = 1_000_000
_FUZZ = 1e-9                # of a tick: 0.57 / 0.01 is 56.99999999999999


@njit(int64(float64, int64), cache=True)
def floor_price(px_e4, tick_e4):
    """The highest multiple of the tick not above ``px_e4`` (a float in 1e-4 dollars)."""
    return int64(math.floor(px_e4 / tick_e4 + _FUZZ)) * tick_e4


@njit(int64(int64, int64), cache=True)
def floor_tick(px_e4, tick_e4):
    """The highest multiple of the tick not above the integer ``px_e4``."""
    return px_e4 // tick_e4 * tick_e4


@njit(int64(float64), cache=True)
def floor_lot(size_u6):
    """``size_u6`` (a float in 1e-6 shares) rounded down to whole lots, never negative."""
    return max(int64(math.floor(size_u6 / LOT_U6 + _FUZZ)), 0) * LOT_U6


@njit(int64(int64, int64), cache=True)
def in_range(px_e4, tick_e4):
    """1 when a price may be quoted at all: from one tick to one dollar less a tick."""
    return 1 if tick_e4 <= px_e4 <= ONE_E4 - tick_e4 else 0
