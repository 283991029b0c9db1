"""Why a decision is as it is, written by the decision itself: what it saw, each part of its prices, and the first gate that closed.

Owns: the filling of records.WHY. Called by `decide` when a decision is recorded. Read by `mmbot why`, which derives nothing.
"""

from numba import float64, int64, types, void

from mmbot.core.state import DRAFT_T, PARAMS_T, STATE_T, VIEW_T
from mmbot.quoting import reversion
from mmbot.quoting.view import WHY_T
from mmbot.risk import gates
from shm_layout import records as r
from shm_layout.atomics import kernel

_N = len(r.GATES)


@kernel(int64(int64))
def first_gate(bits):
    """Index of the first hard gate that is shut, else of the first soft one, -1: none."""
    shut = bits & gates.HARD
    if shut == 0:
        shut = bits
    for i in range(_N):
        if shut >> i & 1:
            return i
    return -1


@kernel(types.UniTuple(float64, 2)(int64, VIEW_T, PARAMS_T, DRAFT_T))
def judged(gate, view, params, draft):
    """(input, limit) of the gate of that bit: what it looked at and against what, in the unit of the parameter it is compared with."""
    if gate == gates.CUTOFF:
        return view.tau_s, params.cutoff_s
    if gate == gates.STALE_MARKET:
        return float(view.age_market_ns), float(params.stale_market_ns)
    if gate == gates.STALE_ORACLE:      # younger than that: the spot venues testify that the oracle owes prints
        return float(view.age_oracle_ns), float(params.stale_oracle_ns if view.age_oracle_ns > params.stale_oracle_ns else params.witness_oracle_ns)
    if gate == gates.STALE_SPOT:
        return float(view.age_spot_ns), float(params.stale_spot_ns)
    if gate == gates.NOT_OPEN:
        return -view.elapsed * view.duration_s, params.next_lead_s
    if gate == gates.PRICE_OUT_OF_RANGE:
        return view.fair, 1e-4 * view.tick_e4
    if gate == gates.EMPTY_BOOK or gate == gates.SUSPECT_BOOK or gate == gates.FROZEN_MARKET:
        return float(view.bid_e4), float(view.ask_e4)
    if gate == gates.EXPOSURE_CAP:
        return float(draft.worst_u6), float(view.room_u6)
    if gate == gates.SEVERE_SKEW:
        return float(abs(view.imbalance_u6)), float(params.severe_imbalance_u6)
    if gate == gates.SIZE_BELOW_MIN:
        return float(view.base_size_u6), float(view.min_size_u6)
    if gate == gates.PAIR_CAP:
        return 1.0 - draft.why.spread, params.target_total_max
    if gate == gates.LATENCY:
        return float(view.rtt_ns), float(params.capital.latency_kill_ns)
    if gate == gates.MARKET_CAP:
        return float(draft.worst_u6), float(params.capital.max_market_exposure_u6)
    if gate == gates.SIDE_CAP:
        return float(max(view.cost_up_u6, view.cost_down_u6)), view.bankroll_u6 * params.capital.side_part
    if gate == gates.ACTION:
        return view.toxicity, params.tiered.extreme_toxicity
    if gate == gates.DIVERGENCE:
        return abs(reversion.dislocation(view, params)), params.reversion.divergence
    if gate == gates.SIGNAL_FLIP:
        return reversion.dislocation(view, params), draft.why.spread
    if gate == gates.NO_STRIKE:
        return -view.elapsed * view.duration_s, gates.STRIKE_GRACE_NS * 1e-9
    if gate == gates.PRICE_JUMP:
        return view.jump_size, params.signals.jump_threshold
    if gate == gates.VOL_SPIKE:
        return view.spike_size, 1.0
    if gate == gates.TOXIC_FLOW:
        return (float(view.toxic_run), float(params.signals.toxic_fills)) if view.toxic else (view.toxicity, params.signals.toxic_vpin)
    if gate == gates.GAMMA_DANGER:
        return abs(view.delta) * gates.BASIS_POINT, params.signals.gamma_danger
    return 0.0, 0.0


@kernel(types.UniTuple(float64, 2)(int64, STATE_T, PARAMS_T, int64))
def judged_for_all(gate, state, params, now_ns):
    """`judged` of a gate that is the same for all windows: words of the account and the guardian, contradictions between prices, the start."""
    shared = state.shared
    if gate == gates.ACCOUNT_NOT_READY:
        return float(shared.account_state), float(r.AS_READY)
    if gate == gates.EXECUTOR_HALT:
        return float(shared.halts & gates.HALTING), 0.0
    if gate == gates.GUARD:
        return float(shared.guard_reasons), 0.0
    if gate == gates.SPOT_DISAGREE:
        return state.ref.apart_by, params.spot_disagree
    if gate == gates.ORACLE_DISAGREE:
        return shared.off_oracle, params.oracle_disagree
    return float(now_ns - state.attached_ns), float(params.warmup_ns)


_FOR_ALL = gates.ACCOUNT_NOT_READY | gates.EXECUTOR_HALT | gates.GUARD | gates.SPOT_DISAGREE | gates.ORACLE_DISAGREE | gates.WARMING


@kernel(void(WHY_T, STATE_T, PARAMS_T, int64))
def explain(why, state, params, now_ns):
    """Fill ``why`` from what the decision used."""
    view, draft, shared = state.seen, state.draft, state.shared
    drawn = draft.why
    why.strategy, why.pricer, why.phase, why.regime, why.action, why.leader = (
        params.strategy, params.model.pricer, view.phase, view.regime, drawn.action, shared.leader)
    why.gate = first_gate(draft.gates)
    why.gate_input = why.gate_limit = 0.0
    if why.gate >= 0:
        gate = 1 << why.gate
        why.gate_input, why.gate_limit = judged_for_all(gate, state, params, now_ns) if gate & _FOR_ALL else judged(gate, view, params, draft)
    why.halts, why.guard_reasons = shared.halts, shared.guard_reasons
    why.tau_s, why.ln_level, why.ln_strike, why.var_s = view.tau_s, view.ln_level, view.ln_strike, view.var_s
    why.p_model, why.mid, why.micro, why.fair = view.p_model, view.mid, view.micro, view.fair
    why.bid_e4, why.ask_e4, why.tick_e4 = view.bid_e4, view.ask_e4, view.tick_e4
    why.reservation, why.skew_inventory, why.skew_momentum = drawn.reservation, drawn.skew_inventory, drawn.skew_momentum
    why.gamma, why.spread, why.f_time, why.f_regime = drawn.gamma, drawn.spread, drawn.f_time, drawn.f_regime
    why.f_toxicity, why.f_vol, why.f_phase = drawn.f_toxicity, drawn.f_vol, drawn.f_phase
    why.dislocation, why.toxicity, why.momentum = view.dislocation, view.toxicity, view.momentum
    why.imbalance_u6, why.worst_u6, why.room_u6, why.cash_u6 = view.imbalance_u6, draft.worst_u6, view.room_u6, view.cash_u6
    why.age_market_ns, why.age_oracle_ns, why.age_spot_ns = view.age_market_ns, view.age_oracle_ns, view.age_spot_ns
