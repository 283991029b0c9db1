"""When each signal is renewed, and how it gets into the view.

Owns: the order of these updates. Level and venues go onto their grids before an input is taken (`on_grid`), trades with their record (`on_trade`), what is judged per
window with each look at it (`look_at_signals`, `attend`). Called by `inputs`, `view` and `decide` only. The signals themselves are in `mmbot.signals`.
"""

import math

from numba import boolean, int64, void

from mmbot.core.state import BLOCK_T, INFO_T, MARKET_T, PARAMS_T, POSITION_T, STATE_T, VIEW_T, WINDOW_T
from mmbot.signals import (
    anchors, dislocation, ema, fills, lead_lag, markout, micro_price, momentum, path, phase, reference, regime, rolling, spike, toxicity,
)
from shm_layout.atomics import kernel


@kernel(void(STATE_T, PARAMS_T, int64, int64))
def _show_sources(state, params, step, now_ns):
    """Give the lead-lag grid what each price source shows."""
    ref = state.ref
    for i in range(reference.VENUES):
        venue = ref.venue[i]
        lead_lag.see(state.lead_lag, i, reference.fresh(venue, now_ns, params.stale_spot_ns), venue.ln)
    fresh = ref.spot_ms != 0 and now_ns - ref.spot_recv_ns <= params.stale_oracle_ns
    lead_lag.see(state.lead_lag, lead_lag.CHAINLINK, fresh, ref.spot_ln)
    lead_lag.push(state.lead_lag, step)


@kernel(void(STATE_T, PARAMS_T, int64, int64))
def on_grid(state, params, now_ns, wall_ns):
    """Put the level and the venues onto their grids when a step of 100 ms has begun: as they are before this input, since that held until now."""
    step = wall_ns // (path.STEP_MS * 1_000_000)
    if 0 <= state.path.step - step <= path.MAX_HOLE or state.ref.spot_ms == 0:
        return
    leader = reference.lead(state.ref, now_ns, params.stale_spot_ns)
    before, ln_level = state.path.step, reference.level_ln(state.ref, leader)
    path.push(state.path, step, ln_level)
    _show_sources(state, params, step, now_ns)
    ema.update(state.ema, (step - before) * path.STEP_MS * 1e-3, math.exp(ln_level), params.signals.ema_fast_s, params.signals.ema_slow_s)
    if step // path.STEPS_S != before // path.STEPS_S:
        state.std_known, state.std = rolling.std(state.path, params.signals.std_window_s)
        state.variance_ratio = regime.variance_ratio(state.path)
        lead_lag.find(state.lead_lag)


@kernel(void(STATE_T, MARKET_T, BLOCK_T))
def on_trade(state, m, block):
    """Take a trade of the market into the window's volume buckets."""
    window = state.window[m.slot]
    if window.market_id == m.market_id:
        signals = block.of[1 if m.market_id % 1000 == 5 else 0].signals
        toxicity.trade(window.vpin, m.trade_side, m.trade_size_u6, m.t_pub_ns, signals.vpin_bucket_u6, signals.vpin_buckets)


@kernel(void(STATE_T, VIEW_T, INFO_T, PARAMS_T, int64, int64))
def look_at_signals(state, view, row, params, strike_at, wall_ns):
    """Read every signal of Bitcoin's path into the view; its times, book and level are there already."""
    signals, wall_ms = params.signals, wall_ns // 1_000_000
    ln_level, ll = state.shared.ln_level, state.lead_lag
    view.phase = phase.phase(view.elapsed, view.tau_s, signals.mid_at, signals.late_at, signals.final_s)
    has_anchor, view.ret_anchor = anchors.since(state.path, ln_level, wall_ms, signals.anchor_s)
    has_window, view.ret_window = 0, 0.0
    if view.running:
        has_window, view.ret_window = anchors.window(state.path, ln_level, row.start_s, strike_at >= 0, view.ln_strike)
    _, move = anchors.since(state.path, ln_level, wall_ms, signals.momentum_s)
    view.momentum = momentum.momentum(move, signals.momentum_scale)
    view.ema_gap, view.std = ema.gap(state.ema), state.std
    view.regime = regime.judge(state.variance_ratio, view.sigma_short, view.sigma_long, signals.trend_ratio, signals.revert_ratio, signals.volatile_ratio)
    view.leader, view.lead_ms, view.lead_confidence = ll.leader, ll.lead, ll.confidence
    known = has_anchor != 0 and has_window != 0 and state.std_known != 0 and ema.known(state.ema, signals.ema_slow_s) != 0
    view.p_expected = dislocation.expected(params.reversion.beta[0], params.reversion.beta[1], params.reversion.beta[2], params.reversion.beta[3],
                                           params.reversion.beta[4], view.ret_anchor, view.ret_window, view.ema_gap, view.std) if known else 0.0
    view.dislocation = view.p_expected - view.mid if view.p_expected > 0.0 and view.mid > 0.0 else 0.0


@kernel(void(WINDOW_T, POSITION_T, int64))
def _begin(window, position, market_id):
    """A new window takes this place: nothing is known of its flow."""
    window.market_id = market_id
    toxicity.forget(window.vpin)
    fills.begin(window.fills, position, position.market_id == market_id)
    markout.forget(window.markout)
    window.toxic.until_ns = window.toxic.run = window.toxic.judged = 0
    window.jump.until_ns = window.spike.until_ns = 0
    window.jump.size = window.spike.size = 0.0


@kernel(void(STATE_T, VIEW_T, INFO_T, PARAMS_T, POSITION_T, boolean, int64))
def attend(state, view, row, params, position, sound, now_ns):
    """Judge what is judged per window: own fills, their markouts, runs, pauses. ``sound``: the book is this window's, and no one doubts it."""
    window, signals = state.window[row.slot], params.signals
    if window.market_id != row.market_id:
        _begin(window, position, row.market_id)
    if position.market_id == row.market_id and fills.take(window.fills, position, now_ns) > 0:
        toxicity.on_fills(window.toxic, window.fills, signals.toxic_fills, signals.toxic_window_ns, signals.toxic_for_ns)
    mid = view.mid if sound else 0.0
    if window.markout.next[markout.HORIZONS - 1] < window.fills.n:
        markout.look(window.markout, state.markout, window.fills, mid, now_ns)
    micro_price.watch(window.jump, view.micro, mid, signals.jump_threshold, signals.jump_pause_ns, now_ns)
    found = spike.size(view.fast_move, view.sigma_short, view.sigma_long, signals.spike_move, signals.spike_ratio)
    spike.watch(window.spike, found, signals.spike_pause_ns, now_ns)
    view.jump, view.jump_size = now_ns < window.jump.until_ns, window.jump.size
    view.spike, view.spike_size = now_ns < window.spike.until_ns, window.spike.size
    view.toxic, view.toxic_run = now_ns < window.toxic.until_ns, window.toxic.run
    view.toxicity = toxicity.toxicity(window.vpin)
    view.markout = markout.mean(window.markout, markout.FIVE_S)
