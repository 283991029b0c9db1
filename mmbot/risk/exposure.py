"""Exposure: the most that can be lost on a window, held shares and desired quotes together.

Owns: the arithmetic. Read by the core, which keeps the result per slot. In 1e-6 dollars and shares, integers throughout.
A full set (one Up, one Down) always pays one dollar, so shares held are worth at least min(up, down). The loss is convex in what is
bought, so over all ways in which quotes may fill it is greatest when each side fills fully or not at all.

Live orders are not looked at: they follow the desired quotes, and a cap that shrinks as orders come to life would chase itself.
"""

from numba import int64, njit


@njit(int64(int64, int64, int64, int64, int64, int64, int64), cache=True)
def worst_loss(cost_u6, up_u6, down_u6, buy_up_u6, pay_up_u6, buy_down_u6, pay_down_u6):
    """Greatest loss in 1e-6 dollars (at least 0): ``cost`` paid for ``up`` and ``down`` shares, and quotes to buy more."""
    worst = cost_u6 - min(up_u6, down_u6)
    worst = max(worst, cost_u6 + pay_up_u6 - min(up_u6 + buy_up_u6, down_u6))
    worst = max(worst, cost_u6 + pay_down_u6 - min(up_u6, down_u6 + buy_down_u6))
    worst = max(worst, cost_u6 + pay_up_u6 + pay_down_u6 - min(up_u6 + buy_up_u6, down_u6 + buy_down_u6))
    return max(worst, 0)


@njit(int64(int64, int64), cache=True)
def cost_of(px_e4, size_u6):
    """1e-6 dollars to buy ``size_u6`` at ``px_e4``, rounded up."""
    return -(-px_e4 * size_u6 // 10_000)
