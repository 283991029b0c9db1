"""The reversion strategy: take the side that a model of Bitcoin says is too cheap, in few small legs, and leave when the dislocation is gone.

Owns: the rules of entry, exit and the two breakers. Source: document 0 (`[strategy.reversion]`); dislocation = expected - market, both probabilities of Up.

* enter when |dislocation| >= max(enter_min, enter_spreads * spread), towards its sign; exit when what is left of it, on the side
  that is held, is below max(exit_min, exit_spreads * spread)
* at most max_legs legs a market, each bankroll_part / max_legs of the bankroll, or the venue's minimum when that is more and one side's cap allows it
* maker: one bid at min(best ask - tick, mid + max_pay_slippage), replaced at most every replace_ns. Taking: fill-and-kill at the best ask, if that is at most
  mid + max_pay_slippage (a sale at the best bid, if at least mid - max_pay_slippage)
* breakers: |dislocation| > divergence (the model is not believed), and a signal that turns against the side being worked (pause of flip_pause_ns)

A sell signal without Up shares buys Down, and an exit buys the other outcome, which pairs with the shares held; `route` may sell instead. Legs are read
off the holdings, so a restart in mid-window counts them right.
Can go wrong: no fit (fit_id 0): the expected price is the model's.
"""

from numba import float64, int64, njit, types, void

from mmbot.quoting.completion import STAND_NS
from mmbot.quoting.rounding import LOT_U6, ONE_E4, floor_lot, floor_price, floor_tick
from mmbot.quoting.view import DRAFT_T, MEMORY_T, PARAMS_T, VIEW_T
from mmbot.risk import gates
from shm_layout import records as r

FLAT, ENTER, EXIT = 0, 1, 2


@njit(types.UniTuple(float64, 2)(float64, float64, float64, float64, float64), cache=True)
def thresholds(spread, enter_min, enter_spreads, exit_min, exit_spreads):
    """(enter, exit): max(enter_min, enter_spreads * spread), max(exit_min, exit_spreads * spread)."""
    return max(enter_min, enter_spreads * spread), max(exit_min, exit_spreads * spread)


@njit(float64(float64, float64, float64), cache=True)
def buy_limit(best_ask, q, slip):
    """Most that a buy may pay: min(best ask, q + slip)."""
    return min(best_ask, q + slip)


@njit(float64(float64, float64, float64), cache=True)
def sell_limit(best_bid, q, slip):
    """Least that a sale may bring: max(best bid, q - slip)."""
    return max(best_bid, q - slip)


@njit(float64(VIEW_T, PARAMS_T), cache=True)
def dislocation(view, params):
    """Expected price of Up less the market's mid; the expected one is the fit's, or the model's while there is no fit."""
    if params.reversion.fit_id != 0:
        return view.dislocation
    return view.p_model - view.mid if view.p_model > 0.0 else 0.0


@njit(int64(float64, float64, float64, int64), cache=True)
def wanted(gap, enter, exit_, held_side):
    """ENTER, EXIT or FLAT (neither): what a dislocation ``gap`` asks for while holding ``held_side`` (-1, 0, 1)."""
    if held_side != 0 and gap * held_side < exit_:
        return EXIT
    return ENTER if abs(gap) >= enter else FLAT


@njit(int64(VIEW_T, PARAMS_T, int64, float64), cache=True)
def leg_u6(view, params, token, px):
    """Size of the next leg of ``token`` at ``px`` dollars, 0 when legs or money of that side are used up; 1e-6 shares, whole lots."""
    own = params.reversion
    bankroll = 1e-6 * (view.bankroll_u6 if view.bankroll_u6 > 0 else view.cash_u6 + view.cost_u6)
    side_cap = own.bankroll_part * bankroll
    held_u6 = max(view.imbalance_u6 if token == r.UP else -view.imbalance_u6, 0)
    if px <= 0.0:
        return 0
    lot_u6 = max(floor_lot(side_cap / own.max_legs / px * 1e6), -(-view.min_size_u6 // LOT_U6) * LOT_U6)
    if lot_u6 <= 0:
        return 0
    legs = -(-held_u6 // lot_u6)
    affordable = (held_u6 + lot_u6) * 1e-6 * px <= side_cap + 1e-9
    return lot_u6 if legs < own.max_legs and affordable else 0


@njit(types.UniTuple(int64, 2)(VIEW_T, int64), cache=True)
def book_of(view, token):
    """(best bid, best ask) of ``token`` in 1e-4 dollars of that token."""
    if token == r.UP:
        return view.bid_e4, view.ask_e4
    return ONE_E4 - view.ask_e4, ONE_E4 - view.bid_e4


@njit(int64(VIEW_T, PARAMS_T, int64), cache=True)
def maker_px_e4(view, params, token):
    """Price of a resting buy of ``token``: as near to what a taker may pay as post-only allows."""
    bid_e4, ask_e4 = book_of(view, token)
    most = buy_limit(ask_e4 * 1e-4, 0.5e-4 * (bid_e4 + ask_e4), params.reversion.max_pay_slippage)
    return min(floor_price(most * ONE_E4, view.tick_e4), floor_tick(ask_e4 - view.tick_e4, view.tick_e4))


@njit(void(VIEW_T, PARAMS_T, MEMORY_T, DRAFT_T, int64, int64), cache=True)
def _rest(view, params, memory, draft, token, size_u6):
    """Bid for ``token``, at the price held since less than replace_ns ago if there is one on the grid and under the ask."""
    held_e4 = memory.held_up_e4 if token == r.UP else memory.held_down_e4
    px_e4 = maker_px_e4(view, params, token)
    ask_e4 = book_of(view, token)[1]
    young = view.now_ns - memory.since_ns < params.reversion.replace_ns
    if held_e4 > 0 and young and held_e4 % view.tick_e4 == 0 and held_e4 < ask_e4:
        px_e4 = held_e4
    else:
        memory.since_ns = view.now_ns
    memory.held_up_e4 = px_e4 if token == r.UP else 0
    memory.held_down_e4 = px_e4 if token == r.DOWN else 0
    draft.px_e4[token, 0], draft.size_u6[token, 0] = px_e4, floor_lot(size_u6 * view.size_scale)


@njit(void(VIEW_T, PARAMS_T, MEMORY_T, DRAFT_T, int64, int64, int64), cache=True)
def _take(view, params, memory, draft, token, side, size_u6):
    """Take ``size_u6`` shares of ``token`` now, within max_pay_slippage of the mid; at most one try every replace_ns.

    The wish stands for STAND_NS or until the position changes, so that the executor sees it.
    """
    own, what = params.reversion, 2 * token + side
    bid_e4, ask_e4 = book_of(view, token)
    q = 0.5e-4 * (bid_e4 + ask_e4)
    shares_u6 = floor_lot(size_u6 * view.size_scale)
    age_ns = view.now_ns - memory.took_ns
    if memory.took_ns != 0 and age_ns < STAND_NS and memory.took_imbalance_u6 == view.imbalance_u6 and memory.took_what == what:
        draft.take_token, draft.take_side, draft.take_kind = token, side, r.QK_FAK
        draft.take_px_e4, draft.take_size_u6 = memory.took_px_e4, memory.took_size_u6
        return
    if view.may_take == 0 or (memory.took_ns != 0 and age_ns < own.replace_ns) or shares_u6 < max(view.min_size_u6, 1):
        return
    if side == r.BUY:
        px_e4 = floor_price(buy_limit(ask_e4 * 1e-4, q, own.max_pay_slippage) * ONE_E4, view.tick_e4)
        if px_e4 < ask_e4 or px_e4 >= ONE_E4:
            return
        size = shares_u6 // ONE_E4 * px_e4          # dollars
    else:
        px_e4 = -floor_price(-sell_limit(bid_e4 * 1e-4, q, own.max_pay_slippage) * ONE_E4, view.tick_e4)
        if px_e4 > bid_e4 or px_e4 <= 0:
            return
        size = shares_u6
    memory.took_ns, memory.took_imbalance_u6, memory.took_px_e4 = view.now_ns, view.imbalance_u6, px_e4
    memory.took_size_u6, memory.took_what = size, what
    draft.take_token, draft.take_side, draft.take_kind, draft.take_px_e4, draft.take_size_u6 = token, side, r.QK_FAK, px_e4, size


@njit(int64(VIEW_T, PARAMS_T, MEMORY_T, DRAFT_T, float64, float64), cache=True)
def _breakers(view, params, memory, draft, gap, enter):
    """1 when nothing may be quoted: the model is too far from the market, or its signal has turned."""
    own = params.reversion
    if abs(gap) > own.divergence:
        draft.gates |= gates.DIVERGENCE
    elif abs(gap) >= enter:
        side = 1 if gap > 0.0 else -1
        if memory.side == -side:
            memory.paused_until_ns = view.now_ns + own.flip_pause_ns
        memory.side = side
    if view.now_ns < memory.paused_until_ns:
        draft.gates |= gates.SIGNAL_FLIP
    return 1 if draft.gates & (gates.DIVERGENCE | gates.SIGNAL_FLIP) else 0


@njit(void(VIEW_T, PARAMS_T, MEMORY_T, DRAFT_T), cache=True)
def quote(view, params, memory, draft):
    """Draw one order: a leg into the cheap side, or the way out of the position; or none."""
    own = params.reversion
    gap = dislocation(view, params)
    enter, exit_ = thresholds(view.spread, own.enter_min, own.enter_spreads, own.exit_min, own.exit_spreads)
    held_side = 1 if view.imbalance_u6 > 0 else -1 if view.imbalance_u6 < 0 else 0
    draft.why.reservation, draft.why.spread = view.mid + gap, enter
    if _breakers(view, params, memory, draft, gap, enter):
        return
    what = wanted(gap, enter, exit_, held_side)
    if what == FLAT:
        if held_side == 0:
            memory.side = 0
        return
    if what == ENTER:
        token = r.UP if gap > 0.0 else r.DOWN
        size_u6 = leg_u6(view, params, token, book_of(view, token)[1] * 1e-4)
    else:
        token, size_u6, memory.side = (r.DOWN if held_side > 0 else r.UP), abs(view.imbalance_u6), 0
    if size_u6 <= 0:
        return
    if own.taking == 0:
        _rest(view, params, memory, draft, token, size_u6)
        return
    sellable_u6 = view.sellable_up_u6 if held_side > 0 else view.sellable_down_u6
    if what == EXIT and sellable_u6 >= size_u6:
        _take(view, params, memory, draft, 1 - token, r.SELL, size_u6)
    else:
        _take(view, params, memory, draft, token, r.BUY, size_u6)
