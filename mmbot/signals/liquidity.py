"""How much can be traded before the price moves.

Owns: nothing, a pure function. Source: document 4, liquidity as "the ease with which an asset can be bought or sold without significant movement in the price";
as a number: shares in the visible levels of a side per cent between mid and its deepest level, of the two sides the thinner.
Can go wrong: only the visible levels count, so deep books are understated. Depth is computed from them when it is asked for, never stored.
"""

from numba import float64, njit


@njit(float64(float64, float64, float64, float64, float64), cache=True)
def liquidity(mid, bid_depth, ask_depth, bid_last, ask_last):
    """Shares per cent of price: depths in shares, prices of the deepest visible levels in dollars; 0 when a side is empty."""
    if bid_depth <= 0.0 or ask_depth <= 0.0 or ask_last <= mid or bid_last >= mid:
        return 0.0
    return 0.01 * min(bid_depth / (mid - bid_last), ask_depth / (ask_last - mid))
