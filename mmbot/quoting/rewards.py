"""Liquidity rewards: what resting quotes score, and a nudge toward scoring more where risk has room for it.

Owns: the venue's formula and `seek`, which may make a first level as large as orders must be to score and bring outer levels into the paid band. Off by default.
It never touches the first level's price, and makes nothing larger unless the whole draft still fits all caps; `risk.limits` judges afterwards all the same.
Read by the core, and by `mmbot status` for the score of what is quoted. Can go wrong: a market without a budget pays nothing for all this (the
executor asks the venue which orders score, ACCOUNT.scoring). Source: venue protocol, liquidity rewards; document 1, rewards.
"""

import math

from numba import float64, int64, njit, types, void

from mmbot.quoting.rounding import ONE_E4
from mmbot.quoting.view import DRAFT_T, MAX_LEVELS, PARAMS_T, VIEW_T
from mmbot.risk import exposure, limits
from shm_layout import records as r

#: between these middles quotes on one side alone still score, divided by ``one_sided``
LOW, HIGH = 0.10, 0.90


@njit(float64(float64, float64, float64, float64), cache=True)
def order_score(distance, max_spread, shares, min_shares):
    """((v - s) / v)^2 * shares of an order at distance s from the middle, v the greatest that is paid; 0 beyond it or below ``min_shares``."""
    if not (0.0 <= distance < max_spread and shares >= min_shares and shares > 0.0):
        return 0.0
    return ((max_spread - distance) / max_spread) ** 2 * shares


@njit(float64(float64, float64, float64, float64), cache=True)
def both_sides(q_up, q_down, mid, one_sided):
    """What the scores of bids for Up and bids for Down count together; ``mid`` of Up."""
    least = min(q_up, q_down)
    if LOW <= mid <= HIGH and one_sided > 0.0:
        return max(least, max(q_up, q_down) / one_sided)
    return least


@njit(types.UniTuple(float64, 2)(float64, int64, int64, float64, int64, int64, float64, float64), cache=True)
def add_quote(mid, token, side, q_up, px_e4, size_u6, max_spread, min_shares):
    """(score for the bid side of Up, for its ask side) of one resting quote: a bid for Down and an offer of Up stand on the ask side. ``q_up`` is added to the first."""
    px_up = px_e4 * 1e-4 if token == r.UP else 1.0 - px_e4 * 1e-4
    score = order_score(abs(px_up - mid) if math.isfinite(mid) else -1.0, max_spread, size_u6 * 1e-6, min_shares)
    return (q_up + score, 0.0) if (token == r.UP) == (side == r.BUY) else (q_up, score)


def score(quotes, mid: float, max_spread: float, min_size_u6: int, one_sided: float) -> float:
    """Score of resting quotes [(token, side, px_e4, size_u6)] at a middle of Up. Comparable only with other makers' scores of the same sample."""
    q_up = q_down = 0.0
    for token, side, px_e4, size_u6 in quotes:
        q_up, more = add_quote(mid, token, side, q_up, px_e4, size_u6, max_spread, min_size_u6 * 1e-6)
        q_down += more
    return both_sides(q_up, q_down, mid, one_sided)


@njit(int64(VIEW_T, PARAMS_T, DRAFT_T), cache=True)
def _fits(view, params, draft):
    """1 when the whole draft is within cash and every cap on what may be lost."""
    shares_up = shares_down = pay_up = pay_down = 0
    for level in range(MAX_LEVELS):
        if draft.size_u6[r.UP, level] > 0:
            shares_up, pay_up = shares_up + draft.size_u6[r.UP, level], pay_up + exposure.cost_of(draft.px_e4[r.UP, level], draft.size_u6[r.UP, level])
        if draft.size_u6[r.DOWN, level] > 0:
            shares_down, pay_down = shares_down + draft.size_u6[r.DOWN, level], pay_down + exposure.cost_of(draft.px_e4[r.DOWN, level], draft.size_u6[r.DOWN, level])
    most, would = params.capital.max_market_exposure_u6, limits.worst(view, shares_up, pay_up, shares_down, pay_down)
    sides = (limits.side_room(view, params, r.UP, draft.px_e4[r.UP, 0]) >= pay_up and limits.side_room(view, params, r.DOWN, draft.px_e4[r.DOWN, 0]) >= pay_down)
    return 1 if would <= view.room_u6 and (most <= 0 or would <= most) and pay_up + pay_down <= view.cash_u6 and sides else 0


@njit(void(VIEW_T, PARAMS_T, DRAFT_T), cache=True)
def seek(view, params, draft):
    """Make the draft score more: outer levels into the band, then each first level as large as it must be, where that fits."""
    p = params.rewards
    if p.enabled == 0 or not 0.0 < view.mid < 1.0 or view.tick_e4 <= 0:
        return
    for token in range(2):
        mid_e4 = (view.mid if token == r.UP else 1.0 - view.mid) * ONE_E4
        edge_e4 = int64(math.floor((mid_e4 - p.max_spread * ONE_E4) / view.tick_e4 + 1e-9) + 1) * view.tick_e4      # strictly inside the band
        for level in range(1, MAX_LEVELS):
            before_e4 = draft.px_e4[token, level - 1] - view.tick_e4
            if draft.size_u6[token, level] > 0 and draft.px_e4[token, level] < edge_e4 <= before_e4:
                draft.px_e4[token, level] = edge_e4
        size, px = draft.size_u6[token, 0], draft.px_e4[token, 0]
        if 0 < size < p.min_size_u6 and view.size_scale >= 1.0 and edge_e4 <= px:
            draft.size_u6[token, 0] = p.min_size_u6
            if _fits(view, params, draft) == 0:
                draft.size_u6[token, 0] = size
