"""Own fills of a window, read off the account: what changed in its position, at what price.

Owns: the FILLS record, a ring of the newest fills in Up terms, and the position they were read from. Written by `take`, read by `toxicity` and `markout`.
Can go wrong: an account that is read anew after a start tells of shares, not of fills: the first position seen is where counting begins (`begin`). Shares taken back
because a trade failed, sets merged and terms corrected are no fills. How many there were is what the account counts: those of one token that arrive in one account
have their average price and equal parts; a trade of that token that fails in the same account hides them. Fees of a taker are part of its price.
"""

import numpy as np
from numba import float64, from_dtype, int64, njit, void

from shm_layout import records as r

FILLS_N = 256

#: ``side`` +1: we are longer Up by it (bought Up or sold Down), -1: shorter. ``px`` dollars of Up, ``shares`` greater than 0.
FILL = np.dtype([("t_ns", "<i8"), ("side", "<i8"), ("token", "<i8"), ("px", "<f8"), ("shares", "<f8")])
FILLS = np.dtype([
    ("n", "<i8"), ("qty_u6", "<i8", (2,)), ("cost_u6", "<i8", (2,)), ("failed_u6", "<i8", (2,)), ("legs", "<i8", (2,)), ("realized_u6", "<i8"),
    ("of", FILL, (FILLS_N,)),
])
FILL_T, FILLS_T, POSITION_T = from_dtype(FILL), from_dtype(FILLS), from_dtype(r.POSITION)


@njit(void(FILLS_T, POSITION_T, int64), cache=True)
def _keep(fills, position, ours):
    """Remember the position (nothing held unless ``ours``)."""
    fills.qty_u6[r.UP], fills.qty_u6[r.DOWN] = (position.qty_up_u6, position.qty_down_u6) if ours else (0, 0)
    fills.cost_u6[r.UP], fills.cost_u6[r.DOWN] = (position.cost_up_u6, position.cost_down_u6) if ours else (0, 0)
    fills.failed_u6[r.UP], fills.failed_u6[r.DOWN] = (position.failed_up_u6, position.failed_down_u6) if ours else (0, 0)
    fills.legs[r.UP], fills.legs[r.DOWN] = (position.fills_up, position.fills_down) if ours else (0, 0)
    fills.realized_u6 = position.realized_u6 if ours else 0


@njit(void(FILLS_T, POSITION_T, int64), cache=True)
def begin(fills, position, ours):
    """Start a window: no fills yet, and what is held now (if the position is ``ours``) was no fill."""
    fills.n = 0
    _keep(fills, position, ours)


@njit(void(FILLS_T, int64, int64, float64, int64), cache=True)
def push(fills, token, qty_u6, px, t_ns):
    """Write down a fill of ``qty_u6`` shares of a token (sold: negative) at ``px`` dollars of that token."""
    fill = fills.of[fills.n % FILLS_N]
    fill.t_ns, fill.token = t_ns, token
    fill.side = 1 if (qty_u6 > 0) == (token == r.UP) else -1
    px = min(max(px, 0.0), 1.0)
    fill.px = px if token == r.UP else 1.0 - px
    fill.shares = abs(qty_u6) * 1e-6
    fills.n += 1


@njit(void(FILLS_T, int64, int64, float64, int64, int64), cache=True)
def _push_all(fills, token, qty_u6, px, legs, t_ns):
    """Write down ``qty_u6`` shares of a token as so many fills at the same price; none (0 or less): the shares moved without a trade."""
    legs = min(legs, FILLS_N)
    for i in range(legs):
        push(fills, token, qty_u6 * (i + 1) // legs - qty_u6 * i // legs, px, t_ns)


@njit(void(FILLS_T, POSITION_T, int64), cache=True)
def _compare(fills, position, t_ns):
    """Write down the fills between the position remembered and this one."""
    up, down = position.qty_up_u6 - fills.qty_u6[r.UP], position.qty_down_u6 - fills.qty_u6[r.DOWN]
    spent_up, spent_down = position.cost_up_u6 - fills.cost_u6[r.UP], position.cost_down_u6 - fills.cost_u6[r.DOWN]
    legs_up, legs_down = position.fills_up - fills.legs[r.UP], position.fills_down - fills.legs[r.DOWN]
    if up < 0 and down < 0:                 # a merge takes as many of both
        merged = min(-up, -down)
        up, down = up + merged, down + merged
    if position.failed_up_u6 != fills.failed_u6[r.UP]:
        up = 0
    if position.failed_down_u6 != fills.failed_u6[r.DOWN]:
        down = 0
    if up != 0 and down != 0:               # both at once: what each cost; of a sale only the average cost is known
        _push_all(fills, r.UP, up, spent_up / up, legs_up, t_ns)
        _push_all(fills, r.DOWN, down, spent_down / down, legs_down, t_ns)
    elif up != 0 or down != 0:              # cost less result is what was paid, however cost is averaged
        token, qty, legs = (r.UP, up, legs_up) if up != 0 else (r.DOWN, down, legs_down)
        _push_all(fills, token, qty, (spent_up + spent_down - position.realized_u6 + fills.realized_u6) / qty, legs, t_ns)


@njit(int64(FILLS_T, POSITION_T, int64), cache=True)
def take(fills, position, t_ns):
    """Take the window's position as the account has it now. Returns how many fills that shows."""
    if (position.qty_up_u6 == fills.qty_u6[r.UP] and position.qty_down_u6 == fills.qty_u6[r.DOWN] and position.failed_up_u6 == fills.failed_u6[r.UP]
            and position.failed_down_u6 == fills.failed_u6[r.DOWN]):
        return 0
    before = fills.n
    _compare(fills, position, t_ns)
    _keep(fills, position, 1)
    return fills.n - before
