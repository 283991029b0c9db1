"""What comes in: each record updates its part of STATE and says which windows it touches.

Owns: the rules of what is news, what is late and what is garbage. Called by `step` only. Can go wrong: a record may be missing, repeated or
absurd; then it changes nothing.
"""

import math

from numba import boolean, float64, int64, void

from mmbot.books import others
from mmbot.core.signals import on_grid, on_trade
from mmbot.core.state import (
    ACCOUNT_T, BOUNDARY_LATE_S, BOUNDARY_S, CAUSE_T, DISPUTED, FUTURE_MS, GUARD_T, MARKET_T, MARKETS_T, ORACLE_T, BLOCK_T, OWN_T, PARAMS_T, PROGRAMME_T, SLOT_MASK, SPOT_T,
    STAND_IN, STATE_T, TRUSTED,
)
from mmbot.signals import average, reference, volatility, witness
from shm_layout import records as r
from shm_layout.atomics import kernel


@kernel(int64(STATE_T, int64, int64))
def see_others(state, index, now_ns):
    """Work out the others' best prices of a slot. Returns its bit if they differ from before."""
    slot = state.slot[index]
    bid, ask = others.best(state.others[index], now_ns)
    if bid == slot.bid_px_e4 and ask == slot.ask_px_e4:
        return 0
    slot.bid_px_e4, slot.ask_px_e4 = bid, ask
    return 1 << index


@kernel(int64(STATE_T, OWN_T, int64))
def _on_own(state, own, now_ns):
    """Take what may rest of ours in a window. Returns the bit of its slot if that changes what the others' book looks like."""
    if own.slot < 0 or own.slot >= r.MARKET_SLOTS:
        return 0
    others.take_own(state.others[own.slot], own, now_ns)
    return see_others(state, own.slot, now_ns)


@kernel(int64(STATE_T, PROGRAMME_T))
def _on_programme(state, programme):
    """Keep a solution of the linear programme. Returns the bit of its slot, 0 when it is of nowhere or no finite number."""
    if programme.slot < 0 or programme.slot >= r.MARKET_SLOTS or not math.isfinite(programme.bid_offset + programme.ask_offset):
        return 0
    kept = state.programme[programme.slot]
    kept.market_id, kept.t_ns = programme.market_id, programme.t_ns
    kept.bid_offset, kept.ask_offset = programme.bid_offset, programme.ask_offset
    return 1 << programme.slot


@kernel(void(STATE_T, int64))
def review_others(state, now_ns):
    """Look again at books of which time has settled what is ours."""
    for index in range(r.MARKET_SLOTS):
        review_ns = state.others[index].review_ns
        if review_ns != 0 and now_ns >= review_ns:
            see_others(state, index, now_ns)


@kernel(int64(STATE_T, MARKET_T, MARKETS_T, int64))
def _on_market(state, m, markets, now_ns):
    """Take the top of a book. Returns the bit of its slot, 0 when the record is of no use."""
    if m.slot < 0 or m.slot >= r.MARKET_SLOTS or m.market_id <= 0:
        return 0
    slot = state.slot[m.slot]
    state.rtt_ns = m.rtt_ns
    if m.market_id < slot.market_id and m.market_id != markets.row[m.slot].market_id:
        return 0                    # a late word about a window this slot had before
    if m.market_id != slot.market_id:
        slot.market_id = m.market_id
        slot.resolved = 0
        slot.tick_e4 = slot.bid_px_e4 = slot.ask_px_e4 = slot.t_recv_ns = 0
        slot.worst_u6 = 0
    if m.kind == r.MK_RESOLVED:
        slot.resolved = 1
    slot.flags = m.flags | (r.MF_SUSPECT if m.kind == r.MK_SUSPECT else 0)
    others.take_book(state.others[m.slot], m)
    see_others(state, m.slot, now_ns)
    if m.tick_e4 > 0:
        slot.tick_e4 = m.tick_e4
    slot.t_recv_ns = m.t_recv_ns
    return 1 << m.slot


@kernel(boolean(STATE_T, int64, int64, float64, int64))
def _remember_boundary(state, t_obs_ms, t_recv_ns, px, trusted):
    """Keep a TWAP print as the strike of the windows that start at its boundary.

    An exact print replaces a stand-in, not the reverse; the trust in an exact print can only fall. Only a trusted one is quoted on.
    """
    t_s = t_obs_ms // 1000
    boundary = t_s - t_s % BOUNDARY_S
    if t_s - boundary > BOUNDARY_LATE_S or not reference.sane(px):
        return False
    exact = t_obs_ms == boundary * 1000
    trust = (TRUSTED if trusted != 0 else DISPUTED) if exact else STAND_IN
    at = boundary // BOUNDARY_S % r.BOUNDARIES
    if boundary < state.boundary_s[at]:
        return False
    if boundary == state.boundary_s[at] and state.boundary_trust[at] != STAND_IN:
        if trust != DISPUTED or state.boundary_trust[at] == DISPUTED:
            return False
        state.boundary_trust[at] = DISPUTED
        return True
    if boundary == state.boundary_s[at] and trust == STAND_IN:
        return False
    state.boundary_s[at] = boundary
    state.boundary_trust[at] = trust
    state.boundary_ln[at] = math.log(px)
    return True


@kernel(boolean(STATE_T, ORACLE_T, PARAMS_T, int64))
def _on_oracle(state, o, params, wall_ns):
    """Take a Chainlink print. False when it changes nothing."""
    if o.t_obs_ms > wall_ns // 1_000_000 + FUTURE_MS:
        return False
    if o.kind == r.OK_BOUNDARY:
        return _remember_boundary(state, o.t_obs_ms, o.t_recv_ns, o.px, o.trusted)
    if o.kind == r.OK_TWAP60:
        if not reference.on_twap_print(state.ref, o.t_obs_ms, o.t_recv_ns, o.px):
            return False
        if o.t_obs_ms % (BOUNDARY_S * 1000) == 0:
            _remember_boundary(state, o.t_obs_ms, o.t_recv_ns, o.px, o.trusted)
        return True
    if o.kind != r.OK_SPOT or not reference.on_spot_print(state.ref, o.t_obs_ms, o.t_recv_ns, o.px, params.model.print_lag_ms,
                                                                  params.model.half_life_basis_s):
        return False
    average.push(state.avg, o.t_obs_ms // 1000, state.ref.spot_ln)
    volatility.update(state.vol, o.t_obs_ms, state.ref.spot_ln, params.var_ref, params.half_life_var_s, params.half_life_drift_s,
                      params.model.half_life_short_s, params.model.half_life_long_s)
    return True


@kernel(boolean(STATE_T, SPOT_T, PARAMS_T, int64, int64))
def _on_spot(state, s, params, now_ns, wall_ns):
    """Take a spot record: a best bid/ask of the venue that leads moves the level. True when it moved.

    A trade of Binance shows that its feed lives, since both come in one stream; other venues' trades have streams of their own.
    """
    index = s.venue - r.SV_BINANCE
    if index < 0 or index >= reference.VENUES:
        return False
    t_recv_ns = min(s.t_recv_ns, now_ns)
    if s.kind == r.SK_BBO and 0.0 < s.bid <= s.ask:
        moved = reference.on_mid(state.ref, index, wall_ns // 1_000_000, t_recv_ns, 0.5 * (s.bid + s.ask), params.stale_spot_ns)
        return moved and index == reference.lead(state.ref, now_ns, params.stale_spot_ns)
    if s.kind == r.SK_TRADE and s.venue == r.SV_BINANCE:
        reference.on_life(state.ref, index, t_recv_ns, params.stale_spot_ns)
    return False


@kernel(boolean(STATE_T, PARAMS_T, int64, int64))
def _look(state, params, now_ns, wall_ns):
    """Renew what changes with time alone: the fast move and the verdicts of the spot venues. True when a verdict changed."""
    wall_ms = wall_ns // 1_000_000
    state.ref.fast = reference.fast_move(state.ref, reference.lead(state.ref, now_ns, params.stale_spot_ns), wall_ms)
    return witness.look(state.ref, wall_ms, now_ns, params.stale_spot_ns, params.witness_oracle_ns, params.witness_move, params.spot_disagree)


@kernel(void(CAUSE_T, int64, int64, int64, int64))
def _set_cause(cause, src, t_exch_ns, t_recv_ns, t_pub_ns):
    cause.src = src
    cause.t_exch_ns = t_exch_ns
    cause.t_recv_ns = t_recv_ns
    cause.t_pub_ns = t_pub_ns


@kernel(int64(STATE_T, int64, MARKET_T, ORACLE_T, SPOT_T, OWN_T, PROGRAMME_T, MARKETS_T, ACCOUNT_T, GUARD_T, BLOCK_T, int64, int64))
def take(state, src, market, oracle, spot, own, programme, markets, account, guard, block, now_ns, wall_ns):
    """Let one input into the state. Returns the bits of the slots it touches."""
    params = block.of[0]            # what is shared by all windows is the same in both (see config_strategy)
    cause = state.cause
    on_grid(state, params, now_ns, wall_ns)
    _set_cause(cause, src, 0, now_ns, now_ns)       # a timer's cause is now; so is a change of parameters
    if src == r.SRC_MARKET:
        _set_cause(cause, src, market.t_exch_ns, market.t_recv_ns, market.t_pub_ns)
        touched = _on_market(state, market, markets, now_ns)
        if touched != 0 and market.kind == r.MK_TRADE:
            on_trade(state, market, block)
        return touched
    if src == r.SRC_ORACLE:
        _set_cause(cause, src, oracle.t_exch_ns, oracle.t_recv_ns, oracle.t_pub_ns)
        return SLOT_MASK if _on_oracle(state, oracle, params, wall_ns) else 0
    if src == r.SRC_SPOT:
        _set_cause(cause, src, spot.t_exch_ns, spot.t_recv_ns, spot.t_pub_ns)
        moved = _on_spot(state, spot, params, now_ns, wall_ns)
        heard = _look(state, params, now_ns, wall_ns)
        return SLOT_MASK if moved or heard else 0
    if src == r.SRC_OWN:
        _set_cause(cause, src, 0, own.t_update_ns, own.t_update_ns)
        return _on_own(state, own, now_ns)
    if src == r.SRC_PROGRAMME:
        _set_cause(cause, src, 0, programme.t_ns, programme.t_ns)
        return _on_programme(state, programme)
    if src == r.SRC_MARKETS:
        _set_cause(cause, src, 0, markets.t_update_ns, markets.t_update_ns)
    elif src == r.SRC_ACCOUNT:
        _set_cause(cause, src, 0, account.t_update_ns, account.t_update_ns)
    elif src == r.SRC_GUARD:
        _set_cause(cause, src, 0, guard.t_update_ns, guard.t_update_ns)
    else:
        _look(state, params, now_ns, wall_ns)
        review_others(state, now_ns)
    return SLOT_MASK
