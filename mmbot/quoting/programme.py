"""The programme strategy: quotes at the offsets from fair that the linear programme found, or at the default spread while it has none.

Owns: what the core does with a solution; the programme itself is `mmbot.programme`, solved by a process of its own. Source: document 4
(`[strategy.programme]`). Can go wrong: no solution, or one older than valid_ns: both offsets are half the default spread.
"""

from numba import boolean, float64, njit, types, void

from mmbot.quoting import ladder
from mmbot.quoting.rounding import floor_price
from mmbot.quoting.view import DRAFT_T, MEMORY_T, PARAMS_T, VIEW_T
from shm_layout import records as r


@njit(boolean(VIEW_T, PARAMS_T), cache=True)
def solved(view, params):
    """Whether there is a solution young enough to quote by."""
    return view.programme_ns > 0 and view.now_ns - view.programme_ns <= params.programme.valid_ns


@njit(types.UniTuple(float64, 2)(VIEW_T, PARAMS_T), cache=True)
def offsets(view, params):
    """(bid under fair, ask over fair) in dollars of Up."""
    if solved(view, params):
        return view.programme_bid, view.programme_ask
    return 0.5 * params.programme.default_spread, 0.5 * params.programme.default_spread


@njit(void(VIEW_T, PARAMS_T, MEMORY_T, DRAFT_T), cache=True)
def quote(view, params, memory, draft):
    """Draw both ladders, and nothing that would carry the inventory beyond max_inventory."""
    under, over = offsets(view, params)
    why = draft.why
    why.spread, why.skew_inventory = under + over, 0.5 * (over - under)
    why.reservation = view.fair + why.skew_inventory
    ladder.fill(view, params, draft, r.UP, floor_price((view.fair - under) * 10_000, view.tick_e4))
    ladder.fill(view, params, draft, r.DOWN, floor_price((1.0 - view.fair - over) * 10_000, view.tick_e4))
    ladder.bound(view, draft, params.programme.max_inventory_u6)
