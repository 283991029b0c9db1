"""Completion: buy the missing half of an unpaired position by taking, when that is cheaper than to go on holding it.

Owns: the decision whether, at which worst price and for how much. Called after the strategy has drawn; writes ``take_*`` of the draft and what was asked in
MEMORY. Off by default. Never while the venue takes post-only orders alone (``view.may_take``).
Two limits bind the price P of the missing token, its taker fee included: the pair's total, P + fee + what the unpaired shares cost on average, is at most
`most_for_pair`, which rises from max_pay to max_pay_late as the cut-off nears and as more is unpaired; and P + fee is at most what holding is expected to
cost, the missing token's fair value plus a price for risk, 1/2 * risk_aversion * shares * p (1 - p) a share (mean and variance of a payoff of 0 or 1).
A wish stands for `STAND_NS` or until the position changes, so that the executor sees it; then nothing is asked for ``pause_ns``.
Can go wrong: the book is gone when the order arrives (FAK and FOK leave nothing behind), our own bid on the other outcome would be the maker (`limits`
removes such bids). Source: document 1, taker completion; venue protocol, order types, fees.
"""

import math

from numba import float64, int64, njit, void

from mmbot.quoting.fees import fee_per_share
from mmbot.quoting.rounding import ONE_E4, floor_lot, floor_price, in_range
from mmbot.quoting.view import DRAFT_T, MEMORY_T, PARAMS_T, VIEW_T
from shm_layout import records as r

STAND_NS = 200_000_000
CENT_U6 = 10_000
#: the venue takes no marketable BUY of less
LEAST_CASH_U6 = 1_000_000


@njit(float64(float64, float64, float64, float64, float64, float64), cache=True)
def most_for_pair(max_pay, max_pay_late, left_s, from_s, unpaired, most_unpaired):
    """Most dollars for a pair: from ``max_pay`` (long before the cut-off, little unpaired) to ``max_pay_late`` (at the cut-off, or at the greatest imbalance)."""
    late = 1.0 - min(max(left_s / from_s, 0.0), 1.0) if from_s > 0.0 else 1.0
    full = min(max(unpaired / most_unpaired, 0.0), 1.0) if most_unpaired > 0.0 else 1.0
    return max_pay + (max_pay_late - max_pay) * (1.0 - (1.0 - late) * (1.0 - full))


@njit(float64(float64, float64, float64), cache=True)
def holding_cost(p_missing, shares, risk_aversion):
    """Dollars a share that an unpaired position is expected to cost: the missing token pays with ``p_missing``, and then the held one pays nothing."""
    return p_missing + 0.5 * risk_aversion * shares * p_missing * (1.0 - p_missing)


@njit(int64(float64, float64, float64, int64), cache=True)
def cap_e4(budget, rate, exponent, tick_e4):
    """The highest price on the grid (1e-4 dollars) that costs at most ``budget`` dollars with its fee; 0 when there is none."""
    if not 0.0 < budget or tick_e4 <= 0:
        return 0
    px = floor_price(min(budget, 1.0) * ONE_E4, tick_e4)
    px = min(px, ONE_E4 - tick_e4)
    while px > 0 and px * 1e-4 + fee_per_share(px * 1e-4, rate, exponent) > budget + 1e-12:
        px -= tick_e4
    return max(px, 0)


@njit(float64(VIEW_T, PARAMS_T, int64, float64, float64), cache=True)
def _budget(view, params, heavy, shares, left_s):
    """Dollars a share of the missing token, fee included, that completion may cost now; 0 or less: nothing."""
    p = params.completion
    qty, cost = (view.qty_up_u6, view.cost_up_u6) if heavy == r.UP else (view.qty_down_u6, view.cost_down_u6)
    if qty <= 0 or not 0.0 < view.fair < 1.0:
        return 0.0
    pair = most_for_pair(p.max_pay, p.max_pay_late, left_s, p.from_s, shares, params.max_imbalance_u6 * 1e-6)
    p_missing = 1.0 - view.fair if heavy == r.UP else view.fair
    budget = min(pair - cost / qty, holding_cost(p_missing, shares, p.risk_aversion))
    return budget if math.isfinite(budget) else 0.0


@njit(void(VIEW_T, PARAMS_T, MEMORY_T, DRAFT_T), cache=True)
def ask(view, params, memory, draft):
    """Ask for the taker that completes the position, if one is due and worth its price. Leaves a taker of the strategy alone."""
    p = params.completion
    held = abs(view.imbalance_u6)
    if p.enabled == 0 or view.may_take == 0 or draft.take_size_u6 > 0 or held < max(p.min_unpaired_u6, 1):
        return
    heavy = r.UP if view.imbalance_u6 > 0 else r.DOWN
    age_ns = view.now_ns - memory.took_ns
    if memory.took_ns == 0 or age_ns >= p.pause_ns:
        left_s = view.tau_s - params.cutoff_s
        if not 0.0 < left_s <= p.from_s:
            return
        best_e4 = view.ask_e4 if heavy == r.DOWN else ONE_E4 - view.bid_e4
        size_u6 = floor_lot(float(held))
        px_e4 = cap_e4(_budget(view, params, heavy, held * 1e-6, left_s), view.fee_rate, view.fee_exponent, view.tick_e4)
        cash_u6 = size_u6 * best_e4 // ONE_E4 // CENT_U6 * CENT_U6      # at the best price: at a worse one fewer shares, never more
        if view.bid_e4 <= 0 or view.ask_e4 <= 0 or px_e4 < best_e4 or in_range(px_e4, view.tick_e4) == 0 or cash_u6 < LEAST_CASH_U6:
            return
        memory.took_ns, memory.took_imbalance_u6, memory.took_px_e4, memory.took_size_u6 = view.now_ns, view.imbalance_u6, px_e4, cash_u6
    elif age_ns >= STAND_NS or memory.took_imbalance_u6 != view.imbalance_u6:
        return
    draft.take_token, draft.take_side, draft.take_kind = 1 - heavy, r.BUY, r.QK_FOK if p.all_or_nothing != 0 else r.QK_FAK
    draft.take_px_e4, draft.take_size_u6 = memory.took_px_e4, memory.took_size_u6
