"""What the strategy will see of one window: every signal read at this moment, into STATE.seen.

Owns: the filling of VIEW, part by part. Called by `decide` only. Can go wrong: what is not known yet, or a book with an empty side, is 0 with its flag 0.
"""

import math

from numba import int64, void

from mmbot.books import others
from mmbot.core.signals import look_at_signals
from mmbot.core.state import ACCOUNT_T, INFO_T, PARAMS_T, POSITION_T, SLOT_T, STATE_T, VIEW_T
from mmbot.risk import limits
from mmbot.signals import fair_value, liquidity, micro_price, reference
from shm_layout import records as r
from shm_layout.atomics import kernel

NORMAL = r.VENUE_MODE["normal"]


@kernel(int64(SLOT_T, INFO_T))
def _tick(slot, row):
    """The tick of a window: as the market channel last said, else as discovery knows it."""
    return slot.tick_e4 if slot.tick_e4 > 0 else row.tick_e4


@kernel(void(STATE_T, VIEW_T, INFO_T, int64, int64))
def _look_at_time(state, view, row, now_ns, wall_ns):
    """Time, phase inputs and ages."""
    view.now_ns, view.wall_s, view.duration_s = now_ns, wall_ns * 1e-9, float(row.duration_s)
    view.tau_s = row.end_s - view.wall_s
    view.elapsed = (view.wall_s - row.start_s) / row.duration_s
    view.running = view.wall_s >= row.start_s


@kernel(void(STATE_T, VIEW_T, INFO_T, PARAMS_T))
def _look_at_depth(state, view, row, params):
    """Sizes in the others' book, and what follows from them."""
    book, ours = state.others[row.slot], state.slot[row.slot].market_id == row.market_id
    n = params.signals.micro_levels if ours else 0
    view.bid_size, view.bid_depth, bid_n, bid_px, bid_last = others.sizes(book, r.BUY, n)
    view.ask_size, view.ask_depth, ask_n, ask_px, ask_last = others.sizes(book, r.SELL, n)
    view.micro = view.micro_n = view.liquidity = 0.0
    if view.mid > 0.0:
        view.micro = micro_price.micro(1e-4 * view.bid_e4, 1e-4 * view.ask_e4, view.bid_size, view.ask_size)
        view.micro_n = micro_price.micro(bid_px, ask_px, bid_n, ask_n) if bid_n > 0.0 and ask_n > 0.0 else view.micro
        view.liquidity = liquidity.liquidity(view.mid, view.bid_depth, view.ask_depth, bid_last, ask_last)


@kernel(void(STATE_T, VIEW_T, INFO_T, PARAMS_T))
def _look_at_book(state, view, row, params):
    """The others' best prices and sizes."""
    slot = state.slot[row.slot]
    view.tick_e4, view.bid_e4, view.ask_e4 = _tick(slot, row), slot.bid_px_e4, slot.ask_px_e4
    view.min_size_u6 = row.min_size_u6
    both = slot.bid_px_e4 > 0 and slot.ask_px_e4 > 0
    view.mid = 0.5e-4 * (slot.bid_px_e4 + slot.ask_px_e4) if both else 0.0
    view.spread = 1e-4 * (slot.ask_px_e4 - slot.bid_px_e4) if both else 0.0
    _look_at_depth(state, view, row, params)
    view.fee_rate, view.fee_exponent = row.fee_rate_e6 * 1e-6, float(row.fee_exponent)


@kernel(void(STATE_T, VIEW_T, INFO_T, PARAMS_T, int64))
def _look_at_bitcoin(state, view, row, params, strike_at):
    """Level, volatility and fair value; ``strike_at`` is the index of the strike among the boundaries, -1 when it is not printed yet."""
    shared, ref = state.shared, state.ref
    view.ln_level, view.var_s, view.drift_s, view.fast_move = shared.ln_level, shared.var_s, shared.drift_s, ref.fast
    view.sigma_short, view.sigma_long = shared.sigma_short, shared.sigma_long
    view.has_strike = strike_at >= 0
    view.ln_strike = state.boundary_ln[strike_at] if strike_at >= 0 else 0.0
    view.p_model = view.delta = view.gamma = view.theta = view.vega = 0.0
    view.fair = view.mid
    if ref.spot_ms != 0:
        fill_ln = ref.twap_ln if ref.twap_ms != 0 else shared.ln_level
        view.p_model, view.delta, view.gamma, view.theta, view.vega = fair_value.price(
            state.avg, params.model, shared.ln_level, ref.spot_ln, shared.age_s, shared.led, fill_ln, view.ln_strike, view.has_strike, row.start_s, row.end_s,
            view.wall_s, shared.var_s, shared.drift_s)
        view.fair = fair_value.blend(view.p_model, view.mid, params.model_weight, params.model.blend)
    view.sigma_px = abs(view.delta) * math.sqrt(shared.var_s)


@kernel(void(STATE_T, VIEW_T, INFO_T))
def _look_at_programme(state, view, row):
    """What the linear programme last said about this window."""
    solved = state.programme[row.slot]
    ours = solved.market_id == row.market_id
    view.programme_bid, view.programme_ask = (solved.bid_offset, solved.ask_offset) if ours else (0.0, 0.0)
    view.programme_ns = solved.t_ns if ours else 0


@kernel(void(STATE_T, VIEW_T, POSITION_T, int64))
def look_at_holdings(state, view, position, market_id):
    """What the account holds of this window (nothing when the slot's position is another window's)."""
    ours = position.market_id == market_id
    view.qty_up_u6 = position.qty_up_u6 if ours else 0
    view.qty_down_u6 = position.qty_down_u6 if ours else 0
    view.imbalance_u6 = view.qty_up_u6 - view.qty_down_u6
    view.cost_up_u6 = position.cost_up_u6 if ours else 0
    view.cost_down_u6 = position.cost_down_u6 if ours else 0
    view.cost_u6 = view.cost_up_u6 + view.cost_down_u6
    view.sellable_up_u6 = max(position.sellable_up_u6, 0) if ours else 0
    view.sellable_down_u6 = max(position.sellable_down_u6, 0) if ours else 0
    view.reserve_up_u6 = position.reserve_up_u6 if ours else 0
    view.reserve_down_u6 = position.reserve_down_u6 if ours else 0


@kernel(void(VIEW_T))
def look_away(view):
    """No window: nothing is seen."""
    view.tau_s = view.ln_level = view.ln_strike = view.var_s = view.p_model = view.mid = view.micro = view.fair = 0.0
    view.dislocation = view.toxicity = view.momentum = 0.0
    view.bid_e4 = view.ask_e4 = view.tick_e4 = view.phase = view.regime = view.imbalance_u6 = view.room_u6 = view.cash_u6 = 0
    view.age_market_ns = view.age_oracle_ns = view.age_spot_ns = 0


@kernel(int64(STATE_T, int64))
def _worst_elsewhere(state, index):
    """Possible loss of all other windows, 1e-6 dollars."""
    total = 0
    for i in range(r.MARKET_SLOTS):
        if i != index:
            total += state.slot[i].worst_u6
    return total


@kernel(int64(PARAMS_T, ACCOUNT_T))
def _bankroll(params, account):
    """The bankroll of the parameters, else cash and all positions at cost; 1e-6 dollars."""
    if params.capital.bankroll_u6 > 0:
        return params.capital.bankroll_u6
    total = max(account.cash_u6, 0)
    for i in range(r.MARKET_SLOTS):
        total += account.position[i].cost_up_u6 + account.position[i].cost_down_u6
    return total


@kernel(void(STATE_T, INFO_T, PARAMS_T, ACCOUNT_T, int64, int64, int64))
def look(state, row, params, account, strike_at, now_ns, wall_ns):
    """Fill STATE.seen for the window of ``row``; its holdings are there already (`look_at_holdings`)."""
    view = state.seen
    _look_at_time(state, view, row, now_ns, wall_ns)
    _look_at_book(state, view, row, params)
    _look_at_bitcoin(state, view, row, params, strike_at)
    view.cash_u6, view.may_take = account.cash_u6, account.venue_mode == NORMAL
    view.room_u6 = params.max_exposure_u6 - _worst_elsewhere(state, row.slot)
    view.bankroll_u6 = _bankroll(params, account)
    view.base_size_u6 = params.base_size_u6 if view.running != 0 else params.next_size_u6
    if params.capital.sizing != 0:
        view.base_size_u6 = limits.base_size_u6(view, params)
    view.size_scale = state.shared.size_scale
    _look_at_programme(state, view, row)
    view.age_market_ns = now_ns - state.slot[row.slot].t_recv_ns
    view.age_oracle_ns = now_ns - state.ref.spot_recv_ns
    view.rtt_ns = state.rtt_ns
    view.age_spot_ns = now_ns - reference.newest(state.ref)
    look_at_signals(state, view, row, params, strike_at, wall_ns)
