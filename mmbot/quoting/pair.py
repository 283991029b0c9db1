"""The pair strategy: bid on Up and on Down so that one share of each costs at most `target_total`, and pays one dollar.

Owns: the arithmetic of the two first prices. State it needs between calls (the held price per side) is an argument.
Can go wrong: only one side fills; skew, the caps of `risk` and the cut-off are for that.

How a first price comes about: fair value less half the edge, shifted by the inventory skew, rounded down to the tick with
hysteresis (`hold_price`), both together capped by `cap_pair`; what rounding left of the pair's budget goes to one side
(`spend_slack`); and each is kept below the best ask of its own token (`post_only`).
"""

from numba import float64, int64, njit, types, void

from mmbot.quoting import ladder, skew
from mmbot.quoting.rounding import ONE_E4, floor_price, floor_tick
from mmbot.quoting.view import DRAFT_T, MEMORY_T, PARAMS_T, VIEW_T
from mmbot.risk import gates
from shm_layout import records as r

#: A price is raised only when the unrounded one is this part of a tick beyond the next tick ...
RAISE_MARGIN = 0.25
#: ... and lowered when the unrounded one is this part of a tick below it, or this part of the edge if that is less.
LOWER_MARGIN = 0.25
_EDGE_KEPT = 0.25
#: The slack of rounding is spent on a side when its price stays under fair by a quarter of its edge, and kept while not above fair.
SPEND_PART = 0.75
NOBODY, UP_SIDE, DOWN_SIDE = 0, 1, 2


@njit(float64(float64, float64, float64, float64, float64, float64), cache=True)
def target_total(base, low, high, widen_vol, widen_spread, widen_rest):
    """Most dollars for one Up and one Down: the base's edge (1 - base) times 1 + the sum of penalties, within [low, high].

    The penalties are pure numbers, weight times excess: of variance over its reference, of spread over a tick in cents, and of
    elapsed time and fast moves. A weight of 0.15 on an excess of 1 widens the edge by 15 %.
    """
    return min(max(1.0 - (1.0 - base) * (1.0 + widen_vol + widen_spread + widen_rest), low), high)


@njit(types.UniTuple(float64, 2)(float64, float64, float64), cache=True)
def raw_prices(fair_up, total, shift):
    """Unrounded first bids (Up, Down) in 1e-4 dollars: half the edge under fair on each side, leaned by ``shift``."""
    half_edge = 0.5 * (1.0 - total)
    return (fair_up - half_edge - shift) * ONE_E4, (1.0 - fair_up - half_edge + shift) * ONE_E4


@njit(int64(int64, float64, int64, float64), cache=True)
def hold_price(held_e4, raw_e4, tick_e4, total):
    """The tick to quote, given the one held (0: none), so that noise around a tick boundary does not move the quote.

    Down at once when keeping the held price would cost more than LOWER_MARGIN of a tick, or more than half of this side's edge,
    against the unrounded price. Up only when the unrounded price is clearly in the next tick's bucket.
    """
    floored = floor_price(raw_e4, tick_e4)
    if held_e4 == 0 or held_e4 % tick_e4 != 0:
        return floored
    if floored < held_e4:
        tolerance = min(LOWER_MARGIN * tick_e4, _EDGE_KEPT * (1.0 - total) * ONE_E4)
        return held_e4 if raw_e4 >= held_e4 - tolerance else floored
    return floored if raw_e4 >= held_e4 + (1.0 + RAISE_MARGIN) * tick_e4 else held_e4


@njit(types.UniTuple(int64, 3)(int64, int64, float64, float64, int64, float64), cache=True)
def cap_pair(up_e4, down_e4, raw_up_e4, raw_down_e4, tick_e4, total):
    """(Up, Down, lowered?) with the sum at most ``total``, in whole ticks; the side further above its unrounded price gives way."""
    excess = up_e4 + down_e4 - int64(total * ONE_E4 + 1e-6)
    if excess <= 0:
        return up_e4, down_e4, 0
    cut = -(-excess // tick_e4) * tick_e4
    if up_e4 - raw_up_e4 >= down_e4 - raw_down_e4:
        return up_e4 - cut, down_e4, 1
    return up_e4, down_e4 - cut, 1


@njit(types.UniTuple(int64, 3)(int64, int64, float64, float64, int64, float64, int64), cache=True)
def spend_slack(up_e4, down_e4, raw_up_e4, raw_down_e4, tick_e4, total, spent_on):
    """(Up, Down, side): one tick more for the side nearer to its next tick, if the pair still costs at most ``total``.

    Rounding both sides down leaves up to two ticks of the budget unused: with a tick of a cent most pairs would be bid a whole cent
    too low. The raised side never bids above fair. ``spent_on`` is the side raised last time (NOBODY, UP_SIDE, DOWN_SIDE): it keeps its
    tick until that would be above fair, so that two equal sides do not take turns.
    """
    if up_e4 + down_e4 + tick_e4 > int64(total * ONE_E4 + 1e-6):
        return up_e4, down_e4, NOBODY
    half_edge_e4 = 0.5 * (1.0 - total) * ONE_E4
    over_up, over_down = up_e4 + tick_e4 - raw_up_e4, down_e4 + tick_e4 - raw_down_e4
    side = UP_SIDE if over_up <= over_down else DOWN_SIDE
    if (spent_on == UP_SIDE and over_up <= half_edge_e4) or (spent_on == DOWN_SIDE and over_down <= half_edge_e4):
        side = spent_on
    elif min(over_up, over_down) > SPEND_PART * half_edge_e4:
        return up_e4, down_e4, NOBODY
    if side == UP_SIDE:
        return up_e4 + tick_e4, down_e4, side
    return up_e4, down_e4 + tick_e4, side


@njit(int64(int64, int64, int64), cache=True)
def post_only(px_e4, best_ask_e4, tick_e4):
    """``px_e4`` kept at least a tick under the best ask of its own token, on the grid."""
    return min(px_e4, floor_tick(best_ask_e4 - tick_e4, tick_e4))


@njit(float64(VIEW_T, PARAMS_T), cache=True)
def pair_total(view, params):
    """Most dollars for a pair now; penalties for variance, spread, elapsed time and a fast move (see `target_total`)."""
    vol = params.k_vol * max(view.var_s / params.var_ref - 1.0, 0.0)
    spread = params.k_spread * max((view.ask_e4 - view.bid_e4 - view.tick_e4) * 0.01, 0.0)
    time = params.k_time * min(max(view.elapsed, 0.0), 1.0)
    move = view.fast_move / params.fast_move
    fast = params.k_fast * move if move >= 1.0 else 0.0
    return target_total(params.target_total, params.target_total_min, params.target_total_max, vol, spread, time + fast)


@njit(void(VIEW_T, PARAMS_T, MEMORY_T, DRAFT_T), cache=True)
def quote(view, params, memory, draft):
    """Draw the pair's two ladders: fair less half the edge and the skew, held against noise, capped, post-only."""
    total = pair_total(view, params)
    shift = skew.price_shift(view.imbalance_u6, params.skew_per_share, params.skew_max)
    raw_up, raw_down = raw_prices(view.fair, total, shift)
    tick_e4 = view.tick_e4
    up = hold_price(memory.held_up_e4, raw_up, tick_e4, total)
    down = hold_price(memory.held_down_e4, raw_down, tick_e4, total)
    up, down, lowered = cap_pair(up, down, raw_up, raw_down, tick_e4, total)
    memory.held_up_e4, memory.held_down_e4 = up, down
    up, down, memory.slack_on = spend_slack(up, down, raw_up, raw_down, tick_e4, total, memory.slack_on)
    if lowered:
        draft.gates |= gates.PAIR_CAP
    why = draft.why
    why.skew_inventory, why.reservation, why.spread = -shift, view.fair - shift, 1.0 - total
    ladder.fill(view, params, draft, r.UP, post_only(up, view.ask_e4, tick_e4))
    ladder.fill(view, params, draft, r.DOWN, post_only(down, ONE_E4 - view.bid_e4, tick_e4))
