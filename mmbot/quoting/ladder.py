"""The ladder: levels below the first price, each some ticks deeper and smaller.

Owns: nothing. Shared by strategies. Prices and sizes of level l: first - l * step ticks; base * decay ** l, in whole lots.
"""

from numba import float64, int64, njit, void

from mmbot.quoting.rounding import floor_lot, floor_price
from mmbot.quoting.view import DRAFT_T, MAX_LEVELS, PARAMS_T, VIEW_T


@njit(int64(int64, int64, int64, int64), cache=True)
def level_price(first_e4, level, step_ticks, tick_e4):
    """Price of ``level`` (0 is the first) in 1e-4 dollars; may fall out of range."""
    return first_e4 - level * step_ticks * tick_e4


@njit(int64(int64, int64, float64, float64), cache=True)
def level_size(base_u6, level, decay, scale):
    """Size of ``level`` in whole lots."""
    return floor_lot(base_u6 * decay ** level * scale)


@njit(void(VIEW_T, PARAMS_T, DRAFT_T, int64, int64), cache=True)
def fill(view, params, draft, token, first_e4):
    """Draw the parameters' ladder of one side into the draft: ``levels`` levels from ``first_e4`` down, sizes from the view's base size."""
    for level in range(min(params.levels, MAX_LEVELS)):
        draft.px_e4[token, level] = level_price(first_e4, level, params.level_step_ticks, view.tick_e4)
        draft.size_u6[token, level] = level_size(view.base_size_u6, level, params.size_decay, view.size_scale)


@njit(void(VIEW_T, DRAFT_T, int64, int64, float64, float64), cache=True)
def place(view, draft, token, level, px, shares):
    """Ask for one level: buy ``shares`` of ``token`` at ``px`` dollars of that token at most, price and size rounded down. No shares: no level."""
    if shares <= 0.0:
        return
    draft.px_e4[token, level] = floor_price(px * 10_000, view.tick_e4)
    draft.size_u6[token, level] = floor_lot(shares * 1e6 * view.size_scale)


@njit(void(VIEW_T, DRAFT_T, int64), cache=True)
def bound(view, draft, most_u6):
    """Cut sizes, outer levels first, so that no side's fills alone bring the imbalance beyond ``most_u6`` shares."""
    for token in range(2):
        left_u6 = most_u6 - (view.imbalance_u6 if token == 0 else -view.imbalance_u6)
        for level in range(MAX_LEVELS):
            size_u6 = min(draft.size_u6[token, level], floor_lot(float(max(left_u6, 0))))
            draft.size_u6[token, level] = size_u6
            left_u6 -= size_u6
