"""The avellaneda strategy: a reservation price that leans against inventory, and one of three spreads around it.

Owns: the formulas and their units. Sources: Avellaneda and Stoikov, "High-frequency trading in a limit order book" (2008); Gueant, Lehalle and
Fernandez-Tapia, "Dealing with the inventory risk" (2013), with the order size of Gueant, "Optimal market making" (2017); document 2
(`[strategy.avellaneda]`).

Units. q: imbalance (Up minus Down) in units of ``unit_u6`` shares. sigma: dollars of Up per square root of a second (VIEW.sigma_px). T: seconds to the end of
the window. gamma: per dollar and unit. k: per dollar. a: fills per second. So gamma q sigma^2 T and every spread are dollars of Up.

* reservation r = micro - gamma_dyn q sigma^2 T; sigma^2 T is at most m (1 - m), the variance of a bet worth m, which the local sigma overstates near the end
* gamma_dyn = gamma (1 + (short / baseline volatility) / vol_ratio_ref), at most gamma_cap times gamma; as document 2 has it, normal volatility already doubles
  gamma. toxic_factor multiplies it while own fills are toxic; that is a state with a deadline, so overlapping triggers never multiply twice
* form "target": the spread is target_spread. "optimal": gamma sigma^2 T + (2 / gamma) ln(1 + gamma / k). "glft": the bounds of the stationary problem,
  which lean by themselves: around micro, not around r
* from max_inventory on, the heavy side is not quoted (the inventory limit Q of 2013)

Can go wrong: sigma or the micro-price is not known yet (0): no lean, and the mid stands in for the micro-price.
"""

import math

from numba import float64, njit, types, void

from mmbot.quoting import ladder
from mmbot.quoting.rounding import floor_price
from mmbot.quoting.view import DRAFT_T, MEMORY_T, PARAMS_T, VIEW_T
from shm_layout import records as r

TARGET, OPTIMAL, GLFT = 0, 1, 2


@njit(float64(float64, float64, float64, float64, float64), cache=True)
def reservation(s, q, gamma, sigma, t_s):
    """r = s - q gamma sigma^2 T (2008, equation 8)."""
    return s - q * gamma * sigma * sigma * t_s


@njit(float64(float64, float64, float64, float64), cache=True)
def optimal_spread(gamma, sigma, t_s, k):
    """Bid-ask spread gamma sigma^2 T + (2 / gamma) ln(1 + gamma / k) (2008, equation 12)."""
    return gamma * sigma * sigma * t_s + 2.0 / gamma * math.log1p(gamma / k)


@njit(types.UniTuple(float64, 2)(float64, float64, float64, float64, float64, float64), cache=True)
def glft_offsets(q, gamma, sigma, k, a, lot):
    """(bid under s, ask over s), the closed-form approximation of the optimal quotes far from the end.

    ln(1 + gamma d / k) / (gamma d) + (d / 2 +- q) sqrt(gamma sigma^2 / (2 k a d) (1 + gamma d / k) ^ (1 + k / (gamma d))), with d = ``lot``, the size of an
    order in units of q; with d = 1 it is section 4 of the paper of 2013.
    """
    x = gamma * lot
    base = math.log1p(x / k) / x
    lean = math.sqrt(gamma * sigma * sigma / (2.0 * k * a * lot) * math.exp((1.0 + k / x) * math.log1p(x / k)))
    return base + (0.5 * lot + q) * lean, base + (0.5 * lot - q) * lean


@njit(float64(float64, float64, float64, float64, float64), cache=True)
def dynamic_gamma(gamma, sigma, sigma_base, ratio_ref, cap):
    """gamma (1 + ratio / ratio_ref), at most cap gamma; gamma itself while a volatility is not known (document 2)."""
    if sigma <= 0.0 or sigma_base <= 0.0:
        return gamma
    return min(gamma * (1.0 + sigma / sigma_base / ratio_ref), cap * gamma)


@njit(float64(VIEW_T, PARAMS_T), cache=True)
def gamma_now(view, params):
    """Risk aversion of this moment."""
    own = params.avellaneda
    gamma = dynamic_gamma(own.gamma, view.sigma_short, view.sigma_long, own.vol_ratio_ref, own.gamma_cap)
    return gamma * own.toxic_factor if view.toxic != 0 else gamma


@njit(types.UniTuple(float64, 4)(VIEW_T, PARAMS_T), cache=True)
def prices(view, params):
    """(bid, ask, reservation, gamma) in dollars of Up, unrounded."""
    own = params.avellaneda
    s = view.micro if view.micro > 0.0 else view.mid
    gamma, q, t_s = gamma_now(view, params), view.imbalance_u6 / own.unit_u6, max(view.tau_s, 0.0)
    var = min(view.sigma_px * view.sigma_px * t_s, max(s * (1.0 - s), 0.0))
    held = reservation(s, q, gamma, math.sqrt(var), 1.0)
    if own.form == GLFT:
        sigma = math.sqrt(var / t_s) if t_s > 0.0 else 0.0
        lot = max(view.base_size_u6, 1) / own.unit_u6
        under, over = glft_offsets(q, gamma, sigma, own.k, own.a, lot)
        return s - under, s + over, s + 0.5 * (over - under), gamma
    spread = own.target_spread
    if own.form == OPTIMAL:
        spread = optimal_spread(gamma, math.sqrt(var), 1.0, own.k)
    return held - 0.5 * spread, held + 0.5 * spread, held, gamma


@njit(void(VIEW_T, PARAMS_T, MEMORY_T, DRAFT_T), cache=True)
def quote(view, params, memory, draft):
    """Draw both ladders around the reservation price."""
    bid, ask, held, gamma = prices(view, params)
    s = view.micro if view.micro > 0.0 else view.mid
    why = draft.why
    why.reservation, why.skew_inventory, why.gamma, why.spread = held, held - s, gamma, ask - bid
    ladder.fill(view, params, draft, r.UP, floor_price(bid * 10_000, view.tick_e4))
    ladder.fill(view, params, draft, r.DOWN, floor_price((1.0 - ask) * 10_000, view.tick_e4))
    ladder.bound(view, draft, params.avellaneda.max_inventory_u6)
