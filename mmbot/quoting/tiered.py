"""The tiered strategy: four layers around a skewed fair value, a spread made of named factors, and an action that widens, drops a side or pulls.

Owns: the choice of the action and the arithmetic of spread and tiers. Source: document 3 (`[strategy.tiered]`). Can go wrong: a factor's input is not known
(0): the factor is then 1, and the spread is never outside [min_spread, max_spread].

Action, the first that applies:

* PULL: volatility spike, final phase, extreme toxicity, or Up's price moves more per basis point of Bitcoin than gamma_danger
* WIDEN: volatile regime or high toxicity; the spread is multiplied by widen_factor
* BID_ONLY (price rises), ASK_ONLY (price falls): momentum with medium toxicity
* BOTH

Spread (full, of the first tier) = base x time x regime x toxicity x vol x phase. Tier l lies ``spread / 2 * tier_spread[l] / tier_spread[0]`` from the
skewed fair value, so with the base spread of 0.02 and quiet factors the distances are the tier spreads themselves.
"""

import math

from numba import float64, int64, njit, types, void

from mmbot.quoting import ladder, skew
from mmbot.quoting.view import DRAFT_T, MEMORY_T, PARAMS_T, VIEW_T
from mmbot.risk import gates
from shm_layout import records as r

BOTH, WIDEN, BID_ONLY, ASK_ONLY, PULL = (r.ACTIONS.index(n) for n in ("both", "widen", "bid_only", "ask_only", "pull"))
_FINAL, _VOLATILE = r.PHASES.index("final"), r.REGIMES.index("volatile")
_BP = 1e-4


@njit(int64(VIEW_T, PARAMS_T), cache=True)
def action(view, params):
    """What document 3's flow says to do now: one of records.ACTIONS."""
    own, danger = params.tiered, params.signals.gamma_danger
    sharp = danger > 0.0 and abs(view.delta) * _BP > danger
    if view.spike != 0 or view.phase == _FINAL or view.toxicity >= own.extreme_toxicity or sharp:
        return PULL
    if view.regime == _VOLATILE or view.toxicity >= own.widen_toxicity:
        return WIDEN
    if view.toxicity >= own.medium_toxicity and abs(view.momentum) >= own.one_sided_momentum and view.momentum != 0.0:
        return BID_ONLY if view.momentum > 0.0 else ASK_ONLY
    return BOTH


@njit(float64(float64, float64, float64), cache=True)
def time_factor(tau_s, duration_s, cap):
    """The delta of a binary grows with the inverse square root of the time left: sqrt(window length / time left), within [1, cap]."""
    if tau_s <= 0.0:
        return cap
    return min(max(math.sqrt(max(duration_s, 0.0) / tau_s), 1.0), cap)


@njit(float64(float64, float64, float64), cache=True)
def vol_factor(sigma, sigma_base, cap):
    """Short volatility over the baseline, within [1, cap]; 1 while there is no baseline."""
    return min(max(sigma / sigma_base, 1.0), cap) if sigma_base > 0.0 else 1.0


@njit(types.UniTuple(float64, 5)(VIEW_T, PARAMS_T), cache=True)
def factors(view, params):
    """(time, regime, toxicity, vol, phase): what the base spread is multiplied by."""
    own = params.tiered
    return (time_factor(view.tau_s, view.duration_s, own.time_cap), own.regime_factor[view.regime],
            1.0 + own.toxicity_weight * min(max(view.toxicity, 0.0), 1.0), vol_factor(view.sigma_short, view.sigma_long, own.vol_cap),
            own.phase_factor[view.phase])


@njit(float64(float64, float64, float64), cache=True)
def clamp(x, low, high):
    """``x`` within [low, high]."""
    return min(max(x, low), high)


@njit(void(VIEW_T, PARAMS_T, DRAFT_T, int64, float64, float64), cache=True)
def _tiers(view, params, draft, token, centre, spread):
    """Draw one side: buys of ``token`` below ``centre`` (a price of that token), as far as position and imbalance may go."""
    own = params.tiered
    held_u6 = view.qty_up_u6 if token == r.UP else view.qty_down_u6
    ahead_u6 = view.imbalance_u6 if token == r.UP else -view.imbalance_u6
    left_u6 = min(own.max_position_u6 - held_u6, own.max_imbalance_u6 - ahead_u6)
    for tier in range(r.TIERS):
        size_u6 = min(own.tier_size_u6[tier], left_u6)
        if size_u6 <= 0:
            return
        left_u6 -= size_u6
        ladder.place(view, draft, token, tier, centre - 0.5 * spread * own.tier_spread[tier] / own.tier_spread[0], size_u6 * 1e-6)


@njit(void(VIEW_T, PARAMS_T, MEMORY_T, DRAFT_T), cache=True)
def quote(view, params, memory, draft):
    """Draw the tiers of both sides, of one, or of none."""
    own, why = params.tiered, draft.why
    f_time, f_regime, f_toxicity, f_vol, f_phase = factors(view, params)
    what = action(view, params)
    spread = own.base_spread * f_time * f_regime * f_toxicity * f_vol * f_phase * (own.widen_factor if what == WIDEN else 1.0)
    spread = clamp(spread, own.min_spread, own.max_spread)
    against = -skew.price_shift(view.imbalance_u6, own.inventory_skew, params.skew_max)
    along = own.momentum_skew * clamp(view.momentum, -1.0, 1.0)
    centre = view.fair + against + along
    why.action, why.spread, why.reservation, why.skew_inventory, why.skew_momentum = what, spread, centre, against, along
    why.f_time, why.f_regime, why.f_toxicity, why.f_vol, why.f_phase = f_time, f_regime, f_toxicity, f_vol, f_phase
    if what == PULL or what == BID_ONLY or what == ASK_ONLY:
        draft.gates |= gates.ACTION
    if what != PULL and what != ASK_ONLY:
        _tiers(view, params, draft, r.UP, centre, spread)
    if what != PULL and what != BID_ONLY:
        _tiers(view, params, draft, r.DOWN, 1.0 - centre, spread)
