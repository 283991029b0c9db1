"""What follows: gates, view, quotes and limits of one window, compared with the target that stands.

Owns: the order of a decision. `share` works out what all windows of a step have in common, `decide` does one window. Called by `step` only.
"""

import math

from numba import boolean, int64, void

from mmbot.core.state import (
    ACCOUNT_T, BLOCK_T, BOUNDARY_S, DECISION_SHIFT, DRAFT_T, GUARD_T, INFO_T, MARKETS_T, MEMORY_T, PARAMS_T, QUOTES_SHIFT, STATE_T, TARGET_T, TRUSTED,
    VIEW_T, WRITE_SHIFT,
)
from mmbot.core.view import look, look_at_holdings, look_away
from mmbot.core.signals import attend
from mmbot.core.why import explain
from mmbot.quoting import avellaneda, completion, pair, programme, reversion, rewards, route, tiered
from mmbot.risk import gates, limits
from mmbot.signals import reference, volatility
from shm_layout import records as r
from shm_layout.atomics import kernel

PAIR, TIERED, AVELLANEDA, REVERSION, PROGRAMME = range(len(r.STRATEGIES))
assert r.STRATEGIES == ("pair", "tiered", "avellaneda", "reversion", "programme")


@kernel(void(STATE_T, ACCOUNT_T, GUARD_T, boolean, PARAMS_T, int64, int64))
def share(state, account, guard, have_params, params, now_ns, wall_ns):
    """Work out what all windows of this step have in common: level, variance, size scale, gates of the account and the feeds."""
    ref, shared = state.ref, state.shared
    leader = reference.lead(ref, now_ns, params.stale_spot_ns)
    shared.off_oracle = abs(ref.venue[leader].ln - ref.spot_ln) if leader >= 0 and ref.spot_ms != 0 else 0.0
    shared.account_state, shared.halts, shared.guard_reasons = account.state, account.halts, guard.reasons
    shared.ln_level = reference.level_ln(ref, leader)
    shared.led = reference.led(ref, leader)
    shared.age_s = wall_ns * 1e-9 - ref.spot_ms * 1e-3
    shared.var_s = volatility.variance(state.vol, params.var_ref, params.var_floor, params.model.long_weight)
    shared.sigma_short = volatility.sigma_short(state.vol, params.var_ref, params.var_floor)
    shared.sigma_long = volatility.sigma_long(state.vol, params.var_ref, params.var_floor)
    shared.drift_s = volatility.drift(state.vol, params.drift_clamp)
    shared.size_scale = params.stale_spot_scale if leader < 0 or ref.apart != 0 else 1.0
    shared.leader = leader
    state.slow = gates.too_slow(state.slow != 0, state.rtt_ns, params.capital.latency_kill_ns, params.capital.latency_resume_ns)
    shared.gates = (
        gates.bit(leader < 0, gates.STALE_SPOT)
        | gates.bit(ref.apart, gates.SPOT_DISAGREE)
        | gates.bit(shared.off_oracle > params.oracle_disagree, gates.ORACLE_DISAGREE)
        | gates.oracle_gate(now_ns, ref.spot_recv_ns, params.stale_oracle_ns, ref.hole != 0)
        | gates.account_gate(account.t_update_ns, account.state, account.user_ok)
        | gates.halt_gate(account.halts)
        | gates.guard_gate(guard.t_update_ns, guard.quoting_allowed)
        | gates.bit(not have_params, gates.NO_PARAMS)
        | gates.bit(state.slow, gates.LATENCY)
        | gates.bit(now_ns - state.attached_ns < params.warmup_ns, gates.WARMING))


@kernel(int64(STATE_T, INFO_T))
def find_strike(state, row):
    """Index of the window's strike among the remembered boundaries, -1 when it is not known."""
    at = row.start_s // BOUNDARY_S % r.BOUNDARIES
    return at if state.boundary_s[at] == row.start_s and row.start_s > 0 else -1


@kernel(int64(STATE_T, INFO_T, PARAMS_T, int64, int64, int64))
def _gates_of(state, row, params, strike_at, now_ns, wall_ns):
    """Every gate of a window that can be known before its quotes are built."""
    slot = state.slot[row.slot]
    book_ours = slot.market_id == row.market_id
    found = state.shared.gates
    found |= gates.phase_gates(row.state, row.accepting, slot.resolved if book_ours else 0, row.start_s, row.end_s,
                               int64(params.next_lead_s * 1e9), int64(params.cutoff_s * 1e9), wall_ns)
    found |= gates.strike_gate(row.start_s, wall_ns, strike_at >= 0 and state.boundary_trust[strike_at] == TRUSTED)
    if not book_ours:
        return found | gates.STALE_MARKET | gates.EMPTY_BOOK
    return found | gates.book_gates(slot.bid_px_e4, slot.ask_px_e4, slot.flags, slot.t_recv_ns, now_ns - params.stale_market_ns)


@kernel(int64(VIEW_T, PARAMS_T))
def _gates_seen(view, params):
    """Gates of what the signals say."""
    signals = params.signals
    return (gates.bit(view.jump, gates.PRICE_JUMP) | gates.bit(view.spike, gates.VOL_SPIKE)
            | gates.bit(view.toxic != 0 or view.toxicity > signals.toxic_vpin, gates.TOXIC_FLOW)
            | gates.danger_gate(view.delta, signals.gamma_danger))


@kernel(void(VIEW_T, PARAMS_T, MEMORY_T, DRAFT_T))
def draw(view, params, memory, draft):
    """Let the strategy of the parameters draw its quotes."""
    if params.strategy == PAIR:
        pair.quote(view, params, memory, draft)
    elif params.strategy == TIERED:
        tiered.quote(view, params, memory, draft)
    elif params.strategy == AVELLANEDA:
        avellaneda.quote(view, params, memory, draft)
    elif params.strategy == REVERSION:
        reversion.quote(view, params, memory, draft)
    elif params.strategy == PROGRAMME:
        programme.quote(view, params, memory, draft)


@kernel(void(DRAFT_T))
def _clear(draft):
    """Start a draft: no quotes, and no reasons."""
    for token in range(2):
        for level in range(draft.px_e4.shape[1]):
            draft.px_e4[token, level] = draft.size_u6[token, level] = 0
    draft.take_size_u6 = draft.gates = draft.worst_u6 = 0
    why = draft.why
    why.reservation = why.skew_inventory = why.skew_momentum = why.gamma = why.spread = 0.0
    why.f_time = why.f_regime = why.f_toxicity = why.f_vol = why.f_phase = 0.0
    why.action = 0


@kernel(void(MEMORY_T))
def _forget(memory):
    """A strategy starts anew in this window, except that a taker just asked for stays asked for, and a pause lasts as long as it was meant to."""
    memory.held_up_e4 = memory.held_down_e4 = memory.slack_on = memory.side = memory.since_ns = 0


@kernel(boolean(DRAFT_T, TARGET_T, int64))
def _same_quotes(draft, target, n):
    """Whether the target already shows exactly the ``n`` quotes just written."""
    if n != target.n_quotes:
        return False
    for i in range(n):
        a, b = target.quote[i], draft.quote[i]
        if a.token != b.token or a.level != b.level or a.side != b.side or a.kind != b.kind or a.px_e4 != b.px_e4 or a.size_u6 != b.size_u6:
            return False
    return True


@kernel(void(DRAFT_T, TARGET_T, int64))
def _copy_quotes(draft, target, n):
    """The ``n`` quotes just written into the target, the rest zero."""
    target.n_quotes = n
    for i in range(r.MAX_QUOTES):
        a, b = target.quote[i], draft.quote[i]
        if i < n:
            a.token, a.level, a.side, a.kind, a.px_e4, a.size_u6 = b.token, b.level, b.side, b.kind, b.px_e4, b.size_u6
        else:
            a.token = a.level = a.side = a.kind = a.px_e4 = a.size_u6 = 0


@kernel(int64(STATE_T, int64, PARAMS_T, int64, int64, int64, int64))
def _commit(state, params_version, params, index, market_id, n, now_ns):
    """Compare the quotes written with the target of the slot and bring the target up to date. Returns the slot's bits of `step`."""
    target, draft, cause = state.target[index], state.draft, state.cause
    changed = not _same_quotes(draft, target, n)
    moved = target.market_id != market_id
    decided = changed or moved or target.gates != draft.gates or target.params_version != params_version
    due = target.deadline_ns - params.target_ttl_ns + params.refresh_ns <= now_ns
    if not decided and not due:
        return 0
    target.deadline_ns = now_ns + params.target_ttl_ns
    if not decided:
        return 1 << (index + WRITE_SHIFT)
    state.decisions += 1
    target.market_id, target.slot, target.decision = market_id, index, state.decisions
    target.params_version, target.gates, target.cause_src = params_version, draft.gates, cause.src
    target.t_exch_ns, target.t_recv_ns, target.t_pub_ns = cause.t_exch_ns, cause.t_recv_ns, cause.t_pub_ns
    target.t_poll_ns = target.t_decide_ns = now_ns
    explain(target.why, state, params, now_ns)
    bits = 1 << (index + WRITE_SHIFT) | 1 << (index + DECISION_SHIFT)
    if changed:
        target.changed_ns = now_ns
        _copy_quotes(draft, target, n)
        bits |= 1 << (index + QUOTES_SHIFT)
    return bits


@kernel(int64(STATE_T, int64, INFO_T, PARAMS_T))
def _quote(state, index, row, params):
    """Quote the window seen, if its gates are open. Returns how many quotes were written."""
    slot, view, draft, target, memory = state.slot[index], state.seen, state.draft, state.target[index], state.memory[index]
    if draft.gates & (gates.EMPTY_BOOK | gates.SUSPECT_BOOK) == 0:
        target.q_up, target.mid_up, target.sigma_px = view.fair, view.mid, view.sigma_px
        target.target_total = pair.pair_total(view, params)
    if draft.gates & gates.HARD:
        _forget(memory)
        settled = row.state == r.MS_RESOLVED or (slot.resolved != 0 and slot.market_id == row.market_id)
        slot.worst_u6 = 0 if settled else limits.worst(view, 0, 0, 0, 0)
        return 0
    draw(view, params, memory, draft)
    rewards.seek(view, params, draft)
    completion.ask(view, params, memory, draft)
    limits.apply(view, params, draft)
    slot.worst_u6 = draft.worst_u6
    return route.write(view, params, draft)


@kernel(int64(STATE_T, int64, MARKETS_T, ACCOUNT_T, BLOCK_T, int64, int64))
def decide(state, index, markets, account, block, now_ns, wall_ns):
    """Work out the target of one slot and commit it."""
    row, slot, target, draft = markets.row[index], state.slot[index], state.target[index], state.draft
    params = block.of[1 if row.duration_s == 300 else 0]
    _clear(draft)
    if row.market_id <= 0 or row.slot != index or row.end_s <= row.start_s:
        if target.market_id == 0:
            return 0
        draft.gates = gates.NO_MARKET
        slot.worst_u6 = 0
        look_away(state.seen)
        return _commit(state, block.version, params, index, target.market_id, 0, now_ns)
    look_at_holdings(state, state.seen, account.position[index], row.market_id)
    strike_at = find_strike(state, row)
    look(state, row, params, account, strike_at, now_ns, wall_ns)
    draft.gates = _gates_of(state, row, params, strike_at, now_ns, wall_ns)
    attend(state, state.seen, row, params, account.position[index], draft.gates & (gates.EMPTY_BOOK | gates.SUSPECT_BOOK) == 0, now_ns)
    draft.gates |= _gates_seen(state.seen, params)
    target.sigma, target.size_scale = math.sqrt(state.shared.var_s), state.shared.size_scale
    n = _quote(state, index, row, params)
    return _commit(state, block.version, params, index, row.market_id, n, now_ns)
