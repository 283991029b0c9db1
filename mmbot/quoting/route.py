"""From wanted buys to quotes: each buy of one outcome is either bid for, or, with shares of the other outcome in hand, a sale of those.

Owns: the choice. Buying Down at p and merging it with a held Up share brings 1 - p dollars for the Up share, as selling it at 1 - p does; they differ in what they cost
besides (a merge's work and the cash it ties up, a refusal while shares have not settled). Both rest in the same book at the same price.
Can go wrong: shares that are counted twice; every share is offered once at most.
"""

from numba import boolean, float64, int64, njit

from mmbot.quoting.rounding import ONE_E4
from mmbot.quoting.view import DRAFT_T, MAX_LEVELS, PARAMS_T, VIEW_T
from shm_layout import records as r


@njit(boolean(float64, float64), cache=True)
def sale_is_cheaper(merge_cost, sell_cost):
    """Whether a held share is better sold than matched with a bought one and merged; costs in dollars a share beyond the price."""
    return sell_cost < merge_cost


@njit(int64(VIEW_T, PARAMS_T, DRAFT_T, int64, int64, int64), cache=True)
def side_of(view, params, draft, token, level, left_u6):
    """SELL when the buy of ``token`` at ``level`` shall be a sale of the other outcome, of which ``left_u6`` shares are not offered yet, else BUY."""
    fits = left_u6 >= draft.size_u6[token, level] and draft.size_u6[token, level] >= max(view.min_size_u6, 1)
    return r.SELL if fits and sale_is_cheaper(params.capital.merge_cost, params.capital.sell_cost) else r.BUY


@njit(int64(VIEW_T, PARAMS_T, DRAFT_T), cache=True)
def write(view, params, draft):
    """Write the draft's wishes as its ``quote`` records: takers first, then the buys of Up by level, then those of Down. Returns how many."""
    n = 0
    if draft.take_size_u6 > 0:
        q = draft.quote[0]
        q.token, q.level, q.side, q.kind, q.px_e4, q.size_u6 = draft.take_token, 0, draft.take_side, draft.take_kind, draft.take_px_e4, draft.take_size_u6
        n = 1
    for token in range(2):
        left_u6 = view.sellable_down_u6 if token == r.UP else view.sellable_up_u6
        for level in range(MAX_LEVELS):
            size_u6 = draft.size_u6[token, level]
            if size_u6 > 0 and n < r.MAX_QUOTES:
                q = draft.quote[n]
                q.level, q.kind, q.size_u6 = level, r.QK_POST_ONLY, size_u6
                q.side = side_of(view, params, draft, token, level, left_u6)
                if q.side == r.SELL:
                    left_u6 -= size_u6
                    q.token, q.px_e4 = 1 - token, ONE_E4 - draft.px_e4[token, level]
                else:
                    q.token, q.px_e4 = token, draft.px_e4[token, level]
                n += 1
    return n
