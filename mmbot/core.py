"""The core: records in, desired quotes out, in one compiled function without I/O, clock or allocation.

Owns: STATE (everything the core remembers) and TARGET per slot. `step` runs the same live, in replay and in a backtest: only the
source of records and the sink of targets differ. `burst` is the live source: it spins over the rings and seqlocks of shared
memory, hands each record to `step` and publishes what changed.
Writes: segments `targets` and `decisions`, through the burst. Reads: rings md.market, md.oracle, md.binance, md.coinbase, md.bybit; seqlocks
markets, account, own, guard, and book and oracle when it attaches.
Can go wrong: any input can be missing, late, repeated or absurd; each such case ends in a gate (`risk.gates`), never in an
exception. The core may be killed at any instant: a target past its deadline means "no quotes" to the executor, and `attach` rebuilds
the state from what the others keep in memory.

How one step goes: the input updates its part of STATE; then for each window it touches, `_decide` asks the gates, prices the
window, builds the ladder and compares it with the target that stands. Mid, spread and the post-only limit are those of the others'
book: our own orders are taken out first (`books.others`), or the fair value would refer to our own quotes.
"""

import math

import numpy as np
from numba import boolean, float64, from_dtype, int64, types, void

from mmbot.books import others
from mmbot.clock import mono_ns_compiled
from mmbot.quoting import ladder, pair, skew
from mmbot.quoting.rounding import ONE_E4, in_range
from mmbot.risk import exposure, gates
from mmbot.signals import average, fair_value, reference, volatility, witness
from shm_layout import records as r
from shm_layout.atomics import VIEW, WORDS, kernel, pause
from shm_layout.ring import LOST, poll_link, publish
from shm_layout.seqlock import read, version, write
from shm_layout.vitals import hist_record, hop_base

BOUNDARY_S = 300            # a TWAP print is remembered for each multiple of this
STAND_IN, DISPUTED, TRUSTED = 0, 1, 2      # a strike: the first print after a missing one, an exact one that somebody contradicts, an exact one
BOUNDARY_LATE_S = 30        # a first print after a boundary that was missed counts for it up to this late
FUTURE_MS = 5_000           # a print observed later than this from now is garbage, and would make all true ones look old
MAX_LEVELS = r.MAX_QUOTES // 2

#: What `step` returns, per slot: quotes differ (ring the executor), decision differs (quotes or gates), target is to be written.
QUOTES_SHIFT, DECISION_SHIFT, WRITE_SHIFT = 0, 8, 16
SLOT_MASK = (1 << r.MARKET_SLOTS) - 1

#: What the core remembers of one window: the others' best prices, the prices it holds against noise, its possible loss.
SLOT = np.dtype([
    ("market_id", "<i8"), ("tick_e4", "<i8"), ("bid_px_e4", "<i8"), ("ask_px_e4", "<i8"), ("flags", "<i8"), ("resolved", "<i8"),
    ("t_recv_ns", "<i8"), ("held_up_e4", "<i8"), ("held_down_e4", "<i8"), ("slack_on", "<i8"), ("worst_u6", "<i8"),
])
#: Where the input of this step came from, for the stamps of what it changes.
CAUSE = np.dtype([("src", "<i8"), ("t_exch_ns", "<i8"), ("t_recv_ns", "<i8"), ("t_pub_ns", "<i8")])
#: Numbers every window of one step shares.
SHARED = np.dtype([("ln_level", "<f8"), ("var_s", "<f8"), ("drift_s", "<f8"), ("size_scale", "<f8"), ("gates", "<i8")])
#: The quotes under construction, [token][level], a size of 0 is no quote; and what is held of their window.
DRAFT = np.dtype([
    ("px_e4", "<i8", (2, MAX_LEVELS)), ("size_u6", "<i8", (2, MAX_LEVELS)), ("gates", "<i8"),
    ("qty_up_u6", "<i8"), ("qty_down_u6", "<i8"), ("cost_u6", "<i8"), ("reserve_up_u6", "<i8"), ("reserve_down_u6", "<i8"),
])
STATE = np.dtype([
    ("attached_ns", "<i8"), ("decisions", "<i8"), ("cause", CAUSE), ("shared", SHARED), ("draft", DRAFT),
    ("boundary_s", "<i8", (r.BOUNDARIES,)), ("boundary_trust", "<i8", (r.BOUNDARIES,)), ("boundary_ln", "<f8", (r.BOUNDARIES,)),
    ("vol", volatility.VOL), ("ref", reference.REF), ("avg", average.AVG),
    ("slot", SLOT, (r.MARKET_SLOTS,)), ("others", others.OTHERS, (r.MARKET_SLOTS,)), ("target", r.TARGET, (r.MARKET_SLOTS,)),
])

(STATE_T, SLOT_T, CAUSE_T, DRAFT_T, TARGET_T, MARKET_T, ORACLE_T, SPOT_T, MARKETS_T, INFO_T, ACCOUNT_T, POSITION_T, GUARD_T,
 PARAMS_T, OWN_T) = (from_dtype(d) for d in (
     STATE, SLOT, CAUSE, DRAFT, r.TARGET, r.MARKET, r.ORACLE, r.SPOT, r.MARKETS, r.MARKET_INFO, r.ACCOUNT, r.POSITION, r.GUARD, r.PARAMS, r.OWN))


def array_of(record) -> types.Array:
    """numba's type of a 1-element structured array of ``record``."""
    return types.Array(record, 1, "C")


@kernel(int64(STATE_T, int64, int64))
def _see_others(state, index, now_ns):
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
    return _see_others(state, own.slot, now_ns)


@kernel(void(STATE_T, int64))
def _review_others(state, now_ns):
    """Look again at books of which time has settled what is ours."""
    for index in range(r.MARKET_SLOTS):
        review_ns = state.others[index].review_ns
        if review_ns != 0 and now_ns >= review_ns:
            _see_others(state, index, now_ns)


@kernel(int64(STATE_T, MARKET_T, MARKETS_T, int64))
def _on_market(state, m, markets, now_ns):
    """Take the top of a book. Returns the bit of its slot, 0 when the record is of no use."""
    if m.slot < 0 or m.slot >= r.MARKET_SLOTS or m.market_id <= 0:
        return 0
    slot = state.slot[m.slot]
    if m.market_id < slot.market_id and m.market_id != markets.row[m.slot].market_id:
        return 0                    # a late word about a window this slot had before
    if m.market_id != slot.market_id:
        slot.market_id = m.market_id
        slot.resolved = 0
        slot.tick_e4 = slot.bid_px_e4 = slot.ask_px_e4 = slot.t_recv_ns = 0
        slot.held_up_e4 = slot.held_down_e4 = slot.slack_on = slot.worst_u6 = 0
    if m.kind == r.MK_RESOLVED:
        slot.resolved = 1
    slot.flags = m.flags | (r.MF_SUSPECT if m.kind == r.MK_SUSPECT else 0)
    others.take_book(state.others[m.slot], m)
    _see_others(state, m.slot, now_ns)
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
    if o.kind != r.OK_SPOT or not reference.on_spot_print(state.ref, o.t_obs_ms, o.t_recv_ns, o.px):
        return False
    average.push(state.avg, o.t_obs_ms // 1000, state.ref.spot_ln)
    volatility.update(state.vol, o.t_obs_ms, state.ref.spot_ln, params.var_ref, params.half_life_var_s, params.half_life_drift_s)
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


@kernel(void(STATE_T, ACCOUNT_T, GUARD_T, PARAMS_T, int64, int64))
def _share(state, account, guard, params, now_ns, wall_ns):
    """Work out what all windows of this step have in common: level, variance, size scale, gates of the account and the feeds."""
    ref, shared = state.ref, state.shared
    leader = reference.lead(ref, now_ns, params.stale_spot_ns)
    off_oracle = leader >= 0 and ref.spot_ms != 0 and abs(ref.venue[leader].ln - ref.spot_ln) > params.oracle_disagree
    shared.ln_level = reference.level_ln(ref, leader)
    shared.var_s = volatility.variance(state.vol, params.var_ref, params.var_floor)
    shared.drift_s = volatility.drift(state.vol, params.drift_clamp)
    shared.size_scale = params.stale_spot_scale if leader < 0 or ref.apart != 0 else 1.0
    shared.gates = (
        gates.bit(leader < 0, gates.STALE_SPOT)
        | gates.bit(ref.apart, gates.SPOT_DISAGREE)
        | gates.bit(off_oracle, gates.ORACLE_DISAGREE)
        | gates.oracle_gate(now_ns, ref.spot_recv_ns, params.stale_oracle_ns, ref.hole != 0)
        | gates.account_gate(account.t_update_ns, account.state, account.user_ok)
        | gates.halt_gate(account.halts)
        | gates.guard_gate(guard.t_update_ns, guard.quoting_allowed)
        | gates.bit(params.version == 0, gates.NO_PARAMS)
        | gates.bit(now_ns - state.attached_ns < params.warmup_ns, gates.WARMING))


@kernel(float64(STATE_T, INFO_T, int64, float64))
def _p_model(state, row, strike_at, wall_s):
    """Model probability of Up; ``strike_at`` is the index of the strike among the boundaries, -1 when it is not printed yet."""
    shared = state.shared
    fill_ln = state.ref.twap_ln if state.ref.twap_ms != 0 else shared.ln_level
    w = int64(fair_value.TWAP_S)
    if strike_at < 0:
        ahead_s = row.start_s - wall_s
        known_s, ln_known = 0.0, 0.0
        if ahead_s < fair_value.TWAP_S:
            known_s, ln_known = average.known_part(state.avg, row.start_s - w, row.start_s, fill_ln)
        return fair_value.p_up_ahead(shared.ln_level, known_s, ln_known, ahead_s, float(row.duration_s), shared.var_s, shared.drift_s)
    tau_s = row.end_s - wall_s
    known_s, ln_known = 0.0, 0.0
    if tau_s < fair_value.TWAP_S:
        known_s, ln_known = average.known_part(state.avg, row.end_s - w, row.end_s, fill_ln)
    return fair_value.p_up_running(shared.ln_level, state.boundary_ln[strike_at], known_s, ln_known, tau_s, shared.var_s, shared.drift_s)


@kernel(float64(STATE_T, INFO_T, PARAMS_T, int64, int64, int64))
def _target_total(state, row, params, spread_e4, tick_e4, wall_ns):
    """Most dollars for a pair now; penalties for variance, spread, elapsed time and a fast move (see `pair.target_total`)."""
    vol = params.k_vol * max(state.shared.var_s / params.var_ref - 1.0, 0.0)
    spread = params.k_spread * max((spread_e4 - tick_e4) * 0.01, 0.0)
    elapsed = (wall_ns * 1e-9 - row.start_s) / row.duration_s
    time = params.k_time * min(max(elapsed, 0.0), 1.0)
    move = state.ref.fast / params.fast_move
    fast = params.k_fast * move if move >= 1.0 else 0.0
    return pair.target_total(params.target_total, params.target_total_min, params.target_total_max, vol, spread, time + fast)


@kernel(int64(SLOT_T, INFO_T))
def _tick(slot, row):
    """The tick of a window: as the market channel last said, else as discovery knows it."""
    return slot.tick_e4 if slot.tick_e4 > 0 else row.tick_e4


@kernel(void(STATE_T, SLOT_T, PARAMS_T, int64, int64, float64, float64))
def _first_prices(state, slot, params, tick_e4, imbalance_u6, fair_up, total):
    """First price of each side into the draft: fair less half the edge and the skew, held against noise, capped, post-only."""
    draft = state.draft
    shift = skew.price_shift(imbalance_u6, params.skew_per_share, params.skew_max)
    raw_up, raw_down = pair.raw_prices(fair_up, total, shift)
    up = pair.hold_price(slot.held_up_e4, raw_up, tick_e4, total)
    down = pair.hold_price(slot.held_down_e4, raw_down, tick_e4, total)
    up, down, lowered = pair.cap_pair(up, down, raw_up, raw_down, tick_e4, total)
    slot.held_up_e4, slot.held_down_e4 = up, down
    up, down, slot.slack_on = pair.spend_slack(up, down, raw_up, raw_down, tick_e4, total, slot.slack_on)
    draft.gates |= gates.bit(lowered, gates.PAIR_CAP)
    draft.px_e4[r.UP, 0] = pair.post_only(up, slot.ask_px_e4, tick_e4)
    draft.px_e4[r.DOWN, 0] = pair.post_only(down, ONE_E4 - slot.bid_px_e4, tick_e4)


@kernel(int64(STATE_T, int64))
def _worst_elsewhere(state, index):
    """Possible loss of all other windows, 1e-6 dollars."""
    total = 0
    for i in range(r.MARKET_SLOTS):
        if i != index:
            total += state.slot[i].worst_u6
    return total


@kernel(int64(DRAFT_T, int64, int64, int64, int64, int64, int64))
def _level_gates(draft, tick_e4, min_size_u6, heavy, severity, token, level):
    """Gates that forbid one quote of the draft by itself, whatever the others are."""
    barred = severity == skew.DROP_ALL or (severity == skew.DROP_FIRST and level == 0)
    return (gates.bit(barred and token == heavy, gates.SEVERE_SKEW)
            | gates.bit(in_range(draft.px_e4[token, level], tick_e4) == 0, gates.PRICE_OUT_OF_RANGE)
            | gates.bit(draft.size_u6[token, level] < max(min_size_u6, 1), gates.SIZE_BELOW_MIN))


@kernel(int64(DRAFT_T, int64, int64, int64, int64))
def _worst(draft, buy_up_u6, pay_up_u6, buy_down_u6, pay_down_u6):
    """Possible loss of the draft's window with what it holds, trades that may still fail left out where they would help, and the quotes given."""
    return exposure.worst_loss(draft.cost_u6, draft.qty_up_u6 - draft.reserve_up_u6, draft.qty_down_u6 - draft.reserve_down_u6,
                               buy_up_u6, pay_up_u6, buy_down_u6, pay_down_u6)


@kernel(void(STATE_T, SLOT_T, INFO_T, PARAMS_T, int64, int64, int64))
def _fill_ladder(state, slot, row, params, base_u6, imbalance_u6, cash_u6):
    """Levels of both sides into the draft: outer levels last and the light side first, as long as risk and cash allow."""
    draft = state.draft
    tick_e4 = _tick(slot, row)
    heavy = r.UP if imbalance_u6 > 0 else r.DOWN
    severity = skew.severity(imbalance_u6, params.severe_imbalance_u6, params.max_imbalance_u6)
    room = params.max_exposure_u6 - _worst_elsewhere(state, row.slot)
    slot.worst_u6 = _worst(draft, 0, 0, 0, 0)
    buy_up = buy_down = pay_up = pay_down = 0
    for level in range(min(params.levels, MAX_LEVELS)):
        size = ladder.level_size(base_u6, level, params.size_decay, state.shared.size_scale)
        for turn in range(2):
            token = 1 - heavy if turn == 0 else heavy
            px = ladder.level_price(draft.px_e4[token, 0], level, params.level_step_ticks, tick_e4)
            draft.px_e4[token, level], draft.size_u6[token, level] = px, size
            stop = _level_gates(draft, tick_e4, row.min_size_u6, heavy, severity, token, level)
            pay = exposure.cost_of(px, size)
            up, down = (size, 0) if token == r.UP else (0, size)
            pay_u, pay_d = (pay, 0) if token == r.UP else (0, pay)
            worst = _worst(draft, buy_up + up, pay_up + pay_u, buy_down + down, pay_down + pay_d)
            too_much = worst > room and worst > slot.worst_u6       # what adds no risk is welcome even above the cap
            stop |= gates.bit(too_much or pay_up + pay_down + pay > cash_u6, gates.EXPOSURE_CAP)
            if stop:
                draft.gates |= stop
                draft.size_u6[token, level] = 0
            else:
                buy_up, buy_down, pay_up, pay_down = buy_up + up, buy_down + down, pay_up + pay_u, pay_down + pay_d
                slot.worst_u6 = worst


@kernel(boolean(TARGET_T, DRAFT_T))
def _same_quotes(target, draft):
    """Whether the target already shows exactly the draft."""
    n = 0
    for token in range(2):
        for level in range(MAX_LEVELS):
            if draft.size_u6[token, level] > 0:
                q = target.quote[n]
                if n >= target.n_quotes or q.token != token or q.level != level:
                    return False
                if q.px_e4 != draft.px_e4[token, level] or q.size_u6 != draft.size_u6[token, level]:
                    return False
                n += 1
    return n == target.n_quotes


@kernel(void(TARGET_T, DRAFT_T))
def _copy_quotes(target, draft):
    """Write the draft into the target: Up by level, then Down by level, the rest zero."""
    n = 0
    for token in range(2):
        for level in range(MAX_LEVELS):
            if draft.size_u6[token, level] > 0:
                q = target.quote[n]
                q.token, q.level, q.side = token, level, r.BUY
                q.px_e4, q.size_u6 = draft.px_e4[token, level], draft.size_u6[token, level]
                n += 1
    target.n_quotes = n
    for i in range(n, r.MAX_QUOTES):
        q = target.quote[i]
        q.token = q.level = q.side = q.px_e4 = q.size_u6 = 0


@kernel(int64(STATE_T, PARAMS_T, int64, int64, int64))
def _commit(state, params, index, market_id, now_ns):
    """Compare the draft with the target of the slot and bring the target up to date. Returns the slot's bits of `step`."""
    target, draft, cause = state.target[index], state.draft, state.cause
    changed = not _same_quotes(target, draft)
    moved = target.market_id != market_id
    decided = changed or moved or target.gates != draft.gates or target.params_version != params.version
    due = target.deadline_ns - params.target_ttl_ns + params.refresh_ns <= now_ns
    if not decided and not due:
        return 0
    target.deadline_ns = now_ns + params.target_ttl_ns
    if not decided:
        return 1 << (index + WRITE_SHIFT)
    state.decisions += 1
    target.market_id, target.slot, target.decision = market_id, index, state.decisions
    target.params_version, target.gates, target.cause_src = params.version, draft.gates, cause.src
    target.t_exch_ns, target.t_recv_ns, target.t_pub_ns = cause.t_exch_ns, cause.t_recv_ns, cause.t_pub_ns
    target.t_poll_ns = target.t_decide_ns = now_ns
    bits = 1 << (index + WRITE_SHIFT) | 1 << (index + DECISION_SHIFT)
    if changed:
        target.changed_ns = now_ns
        _copy_quotes(target, draft)
        bits |= 1 << (index + QUOTES_SHIFT)
    return bits


@kernel(int64(STATE_T, INFO_T))
def _strike_at(state, row):
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


@kernel(void(STATE_T, int64, INFO_T, PARAMS_T, int64, int64, int64))
def _quote(state, index, row, params, strike_at, cash_u6, wall_ns):
    """Price one window whose book is usable and, if its gates are open, draw its ladder."""
    slot, target, draft = state.slot[index], state.target[index], state.draft
    mid = 0.5e-4 * (slot.bid_px_e4 + slot.ask_px_e4)
    fair_up = mid
    if state.ref.spot_ms != 0:
        fair_up = fair_value.blend(_p_model(state, row, strike_at, wall_ns * 1e-9), mid, params.model_weight)
    tick_e4 = _tick(slot, row)
    total = _target_total(state, row, params, slot.ask_px_e4 - slot.bid_px_e4, tick_e4, wall_ns)
    target.q_up, target.mid_up, target.target_total = fair_up, mid, total
    if draft.gates & gates.HARD:
        return
    imbalance_u6 = draft.qty_up_u6 - draft.qty_down_u6
    running = wall_ns >= row.start_s * gates.SECOND_NS
    _first_prices(state, slot, params, tick_e4, imbalance_u6, fair_up, total)
    _fill_ladder(state, slot, row, params, params.base_size_u6 if running else params.next_size_u6, imbalance_u6, cash_u6)


@kernel(void(DRAFT_T, POSITION_T, int64))
def _clear_draft(draft, position, market_id):
    """Start a draft: no quotes, and what the account holds of this window (nothing when the slot's position is another window's)."""
    for token in range(2):
        for level in range(MAX_LEVELS):
            draft.size_u6[token, level] = 0
    ours = position.market_id == market_id
    draft.qty_up_u6 = position.qty_up_u6 if ours else 0
    draft.qty_down_u6 = position.qty_down_u6 if ours else 0
    draft.cost_u6 = position.cost_up_u6 + position.cost_down_u6 if ours else 0
    draft.reserve_up_u6 = position.reserve_up_u6 if ours else 0
    draft.reserve_down_u6 = position.reserve_down_u6 if ours else 0


@kernel(int64(STATE_T, int64, MARKETS_T, ACCOUNT_T, PARAMS_T, int64, int64))
def _decide(state, index, markets, account, params, now_ns, wall_ns):
    """Work out the target of one slot and commit it."""
    row, slot, target, draft = markets.row[index], state.slot[index], state.target[index], state.draft
    _clear_draft(draft, account.position[index], row.market_id)
    if row.market_id <= 0 or row.slot != index or row.end_s <= row.start_s:
        if target.market_id == 0:
            return 0
        draft.gates = gates.NO_MARKET
        slot.worst_u6 = 0
        return _commit(state, params, index, target.market_id, now_ns)
    strike_at = _strike_at(state, row)
    draft.gates = _gates_of(state, row, params, strike_at, now_ns, wall_ns)
    target.sigma, target.size_scale = math.sqrt(state.shared.var_s), state.shared.size_scale
    if draft.gates & gates.HARD:
        slot.held_up_e4 = slot.held_down_e4 = slot.slack_on = 0
        settled = row.state == r.MS_RESOLVED or (slot.resolved != 0 and slot.market_id == row.market_id)
        slot.worst_u6 = 0 if settled else _worst(draft, 0, 0, 0, 0)
    if draft.gates & (gates.EMPTY_BOOK | gates.SUSPECT_BOOK) == 0:
        _quote(state, index, row, params, strike_at, account.cash_u6, wall_ns)
    return _commit(state, params, index, row.market_id, now_ns)


@kernel(int64(STATE_T, int64, MARKET_T, ORACLE_T, SPOT_T, OWN_T, MARKETS_T, ACCOUNT_T, GUARD_T, PARAMS_T, int64, int64))
def _take(state, src, market, oracle, spot, own, markets, account, guard, params, now_ns, wall_ns):
    """Let one input into the state. Returns the bits of the slots it touches."""
    cause = state.cause
    _set_cause(cause, src, 0, now_ns, now_ns)       # a timer's cause is now; so is a change of parameters
    if src == r.SRC_MARKET:
        _set_cause(cause, src, market.t_exch_ns, market.t_recv_ns, market.t_pub_ns)
        return _on_market(state, market, markets, now_ns)
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
    if src == r.SRC_MARKETS:
        _set_cause(cause, src, 0, markets.t_update_ns, markets.t_update_ns)
    elif src == r.SRC_ACCOUNT:
        _set_cause(cause, src, 0, account.t_update_ns, account.t_update_ns)
    elif src == r.SRC_GUARD:
        _set_cause(cause, src, 0, guard.t_update_ns, guard.t_update_ns)
    else:
        _look(state, params, now_ns, wall_ns)
        _review_others(state, now_ns)
    return SLOT_MASK


@kernel(int64(STATE_T, int64, MARKET_T, ORACLE_T, SPOT_T, OWN_T, MARKETS_T, ACCOUNT_T, GUARD_T, PARAMS_T, int64, int64))
def _step(state, src, market, oracle, spot, own, markets, account, guard, params, now_ns, wall_ns):
    if state.attached_ns == 0:
        state.attached_ns = now_ns
    touched = _take(state, src, market, oracle, spot, own, markets, account, guard, params, now_ns, wall_ns)
    if touched == 0:
        return 0
    _share(state, account, guard, params, now_ns, wall_ns)
    changed = 0
    for index in range(r.MARKET_SLOTS):
        if touched >> index & 1:
            changed |= _decide(state, index, markets, account, params, now_ns, wall_ns)
    return changed


_STEP_ARGS = (array_of(STATE_T), int64, array_of(MARKET_T), array_of(ORACLE_T), array_of(SPOT_T), array_of(OWN_T), array_of(MARKETS_T),
              array_of(ACCOUNT_T), array_of(GUARD_T), array_of(PARAMS_T), int64, int64)


@kernel(int64(*_STEP_ARGS))
def step(state, src, market, oracle, spot, own, markets, account, guard, params, now_ns, wall_ns):
    """One input in, targets brought up to date. Returns bits: see QUOTES_SHIFT, DECISION_SHIFT, WRITE_SHIFT (0: nothing to do).

    All arrays have one element: ``state`` of STATE (zeros at birth, then only this function's); ``market``, ``oracle``, ``spot``,
    ``own`` the record of this input if ``src`` (records.SRC_*) names it; ``markets``, ``account``, ``guard``, ``params`` always as they are now.
    ``now_ns`` is monotonic (ages, deadlines, stamps of the decision), ``wall_ns`` the group's wall clock (where in the window). The
    same calls give the same bytes. The result is in ``state["target"][0, slot]``.
    """
    return _step(state[0], src, market[0], oracle[0], spot[0], own[0], markets[0], account[0], guard[0], params[0], now_ns, wall_ns)


#: Everything a running core owns, in one block: the present inputs, the state, the clock and the burst's own numbers.
WORK = np.dtype([
    ("market", r.MARKET), ("oracle", r.ORACLE), ("spot", r.SPOT), ("own", r.OWN), ("markets", r.MARKETS), ("account", r.ACCOUNT), ("guard", r.GUARD),
    ("params", r.PARAMS), ("state", STATE), ("scratch", "<i8", (3,)),
    ("wall0_ns", "<i8"), ("mono0_ns", "<i8"), ("rate", "<f8"), ("budget_ns", "<i8"), ("next_timer_ns", "<i8"), ("pending", "<i8"),
    ("handled", "<i8"), ("markets_version", "<i8"), ("account_version", "<i8"), ("guard_version", "<i8"), ("own_version", "<i8", (r.MARKET_SLOTS,)),
    ("spare", "<i8", (max(d.itemsize for d in (r.MARKETS, r.ACCOUNT, r.GUARD, r.OWN)) // 8,)),
])
WORK_T = from_dtype(WORK)
TIMER_NS = 5_000_000        # gates that shut by themselves (age, cut-off) are looked at this often
BUDGET_NS = 200_000
LOOK_EVERY = 16             # polls between looks at clock and seqlocks
RING_BELL = 1               # bit of what `burst` returns: quotes changed, wake the executor
_TOOK = 2
_PUB_POLL, _POLL_DECIDE = hop_base("pub_poll"), hop_base("poll_decide")


def _span(name: str) -> tuple[int, int]:
    """First word and end of a field of WORK."""
    dtype, offset = WORK.fields[name][:2]
    return offset // 8, (offset + dtype.itemsize) // 8


(_MARKET_0, _MARKET_1), (_ORACLE_0, _ORACLE_1), (_SPOT_0, _SPOT_1), (_MARKETS_0, _MARKETS_1), (_ACCOUNT_0, _ACCOUNT_1), \
    (_GUARD_0, _GUARD_1), (_OWN_0, _OWN_1), (_SCRATCH_0, _SCRATCH_1), (_SPARE_0, _) = (
        _span(n) for n in ("market", "oracle", "spot", "markets", "account", "guard", "own", "scratch", "spare"))
_TARGET_0 = _span("state")[0] + STATE.fields["target"][1] // 8
_TARGET_WORDS = r.TARGET.itemsize // 8
_ALL_WRITE = SLOT_MASK << WRITE_SHIFT


@kernel(int64(WORDS))
def _now(words):
    return mono_ns_compiled(words[_SCRATCH_0:_SCRATCH_1])


@kernel(void(WORK_T, WORDS, int64, int64, WORDS, WORDS))
def _send(w, words, bits, t_decide_ns, targets, decisions):
    """Publish the slots of ``bits`` (as `step` returns them): targets first, then the decisions that differ."""
    for slot in range(r.MARKET_SLOTS):
        if bits >> (slot + WRITE_SHIFT) & 1:
            target = w.state.target[slot]
            if bits >> (slot + DECISION_SHIFT) & 1:
                target.t_decide_ns = t_decide_ns
                if bits >> (slot + QUOTES_SHIFT) & 1:
                    target.changed_ns = t_decide_ns
            at = _TARGET_0 + slot * _TARGET_WORDS
            write(targets, slot, words[at:at + _TARGET_WORDS])
    for slot in range(r.MARKET_SLOTS):
        if bits >> (slot + DECISION_SHIFT) & 1:
            at = _TARGET_0 + slot * _TARGET_WORDS
            publish(decisions, words[at:at + _TARGET_WORDS])


@kernel(int64(WORK_T, WORDS, int64, int64, int64, WORDS, WORDS, WORDS))
def _handle(w, words, src, t_pub_ns, now_ns, targets, decisions, vitals):
    """One input through `step` and out. ``t_pub_ns`` > 0: a ring record, whose hops are counted. Returns 1 if quotes changed."""
    wall_ns = w.wall0_ns + int64((now_ns - w.mono0_ns) * w.rate)
    bits = _step(w.state, src, w.market, w.oracle, w.spot, w.own, w.markets, w.account, w.guard, w.params, now_ns, wall_ns)
    if bits == 0 and t_pub_ns <= 0:
        return 0
    decided_ns = _now(words)
    if bits:
        _send(w, words, bits, decided_ns, targets, decisions)
    if t_pub_ns > 0:
        hist_record(vitals, _PUB_POLL, now_ns - t_pub_ns)
        hist_record(vitals, _POLL_DECIDE, decided_ns - now_ns)
    w.handled += 1
    return 1 if bits & SLOT_MASK else 0


@kernel(int64(WORDS, VIEW, int64, int64, int64, int64))
def _renew(words, mem, index, known, begin, end):
    """Copy the latest value of a seqlock entry to ``words[begin:end]`` if its version is not ``known``. Returns the version now there."""
    if version(mem, index) == known:
        return known
    got = read(mem, index, words[_SPARE_0:_SPARE_0 + end - begin])
    if got <= 0:                    # the writer was faster all the time: keep the old value, look again soon
        return known
    for i in range(end - begin):
        words[begin + i] = words[_SPARE_0 + i]
    return got


@kernel(int64(WORK_T, WORDS, VIEW, int64, WORDS, WORDS, WORDS))
def _look_at_own(w, words, own, now_ns, targets, decisions, vitals):
    """Take in what changed of our own orders, window by window. Returns 1 if quotes changed."""
    rang = 0
    for slot in range(r.MARKET_SLOTS):
        seen = _renew(words, own, slot, w.own_version[slot], _OWN_0, _OWN_1)
        if seen != w.own_version[slot]:
            w.own_version[slot] = seen
            rang |= _handle(w, words, r.SRC_OWN, 0, now_ns, targets, decisions, vitals)
    return rang


@kernel(int64(WORK_T, WORDS, VIEW, VIEW, VIEW, VIEW, int64, WORDS, WORDS, WORDS))
def _look_around(w, words, own, markets, account, guard, now_ns, targets, decisions, vitals):
    """Take in the seqlocks that have a new version, and let time pass. Returns 1 if quotes changed."""
    rang = _look_at_own(w, words, own, now_ns, targets, decisions, vitals)
    seen = _renew(words, guard, 0, w.guard_version, _GUARD_0, _GUARD_1)
    if seen != w.guard_version:
        w.guard_version = seen
        rang |= _handle(w, words, r.SRC_GUARD, 0, now_ns, targets, decisions, vitals)
    seen = _renew(words, account, 0, w.account_version, _ACCOUNT_0, _ACCOUNT_1)
    if seen != w.account_version:
        w.account_version = seen
        rang |= _handle(w, words, r.SRC_ACCOUNT, 0, now_ns, targets, decisions, vitals)
    seen = _renew(words, markets, 0, w.markets_version, _MARKETS_0, _MARKETS_1)
    if seen != w.markets_version:
        w.markets_version = seen
        rang |= _handle(w, words, r.SRC_MARKETS, 0, now_ns, targets, decisions, vitals)
    if now_ns >= w.next_timer_ns:
        w.next_timer_ns = now_ns + TIMER_NS
        rang |= _handle(w, words, r.SRC_TIMER, 0, now_ns, targets, decisions, vitals)
    return rang


@kernel(int64(WORK_T, WORDS, VIEW, WORDS, WORDS, WORDS, WORDS))
def _poll_spot(w, words, ring, link, targets, decisions, vitals):
    """Take one record of a spot venue. Returns 0 when there is none, else _TOOK, with RING_BELL if quotes changed."""
    if poll_link(ring, link, words[_SPOT_0:_SPOT_1]) == 0:
        return 0
    return _TOOK | _handle(w, words, r.SRC_SPOT, w.spot.t_pub_ns, _now(words), targets, decisions, vitals)


@kernel(int64(types.Array(WORK_T, 1, "C"), WORDS, VIEW, VIEW, VIEW, VIEW, VIEW, WORDS, WORDS, WORDS, WORDS, WORDS, VIEW, VIEW, VIEW, VIEW,
              WORDS, WORDS, WORDS))
def burst(work, words, md_market, md_oracle, md_binance, md_coinbase, md_bybit, market_link, oracle_link, binance_link, coinbase_link, bybit_link,
          own, markets, account, guard, targets, decisions, vitals):
    """Spin over all inputs until quotes changed or the budget is used up. See `Core.bind` for the arguments.

    Returns 2 * inputs handled + RING_BELL if quotes changed. A changed quote is published before this returns; returning at once lets
    the caller ring the executor's bell.
    """
    w = work[0]
    w.handled = rang = polls = 0
    now = _now(words)
    end = now + w.budget_ns
    if w.pending:
        _send(w, words, w.pending, now, targets, decisions)
        rang, w.pending = 1, 0
    while rang == 0:
        got = 0
        if poll_link(md_market, market_link, words[_MARKET_0:_MARKET_1]):
            got, now = _TOOK, _now(words)
            rang |= _handle(w, words, r.SRC_MARKET, w.market.t_pub_ns, now, targets, decisions, vitals)
        got |= _poll_spot(w, words, md_binance, binance_link, targets, decisions, vitals)
        if poll_link(md_oracle, oracle_link, words[_ORACLE_0:_ORACLE_1]):
            got, now = got | _TOOK, _now(words)
            rang |= _handle(w, words, r.SRC_ORACLE, w.oracle.t_pub_ns, now, targets, decisions, vitals)
        got |= _poll_spot(w, words, md_coinbase, coinbase_link, targets, decisions, vitals)
        got |= _poll_spot(w, words, md_bybit, bybit_link, targets, decisions, vitals)
        rang |= got & RING_BELL
        if polls % LOOK_EVERY == 0:
            now = _now(words)
            rang |= _look_around(w, words, own, markets, account, guard, now, targets, decisions, vitals)
        polls += 1
        if now >= end:
            break
        if got == 0:
            pause()
    return 2 * w.handled + rang


class Core:
    """A running core: its memory, and the way from shared memory through it. Build once; `spin` creates no objects.

    ``params``: PARAMS, 1 element. Not thread-safe; one per process.
    """

    def __init__(self, params):
        self.work = np.zeros(1, WORK)
        self.words = self.work.view(np.int64)
        self.work["params"] = params
        self.state = self.work["state"]
        self.work["rate"], self.work["budget_ns"] = 1.0, BUDGET_NS
        self._inputs = tuple(self.work[n] for n in ("market", "oracle", "spot", "own", "markets", "account", "guard", "params"))
        self._lost = 0

    def set_clock(self, wall0_ns: int, mono0_ns: int, rate: float, budget_ns: int = BUDGET_NS) -> None:
        """Wall time is ``wall0_ns + (mono - mono0_ns) * rate``; a burst lasts at most about ``budget_ns``."""
        self.work["wall0_ns"], self.work["mono0_ns"], self.work["rate"] = wall0_ns, mono0_ns, rate
        self.work["budget_ns"] = budget_ns

    def bind(self, rings: dict, seqlocks: dict, targets, decisions, vitals) -> None:
        """Connect to shared memory: RingReaders by name, SeqlockReaders by name, and the three writers."""
        self._rings, self._seqlocks = rings, seqlocks
        feeds = [rings[n] for n in ("md.market", "md.oracle", "md.binance", "md.coinbase", "md.bybit")]
        self._args = (self.work, self.words, *(f.mem for f in feeds), *(f.link for f in feeds),
                      *(seqlocks[n].mem for n in ("own", "markets", "account", "guard")), targets.mem, decisions.mem, vitals.mem)
        self._targets = targets

    def take(self, src: int, now_ns: int) -> int:
        """Run `step` on the inputs as they are now; what changed is published by the next `spin`. Returns the step's bits."""
        wall_ns = int(self.work["wall0_ns"][0]) + int((now_ns - int(self.work["mono0_ns"][0])) * float(self.work["rate"][0]))
        bits = step(self.state, src, *self._inputs, now_ns, wall_ns)
        self.work["pending"] |= bits
        return bits

    def attach(self, now_ns: int) -> None:
        """Take in the present as the other processes keep it: market table, account, guard, oracle memory, own
        orders, books.

        State, not history: this is all a restarted core needs to quote again in mid-window. Also run after a lapped ring. All targets
        are written anew, so none of an earlier life stays.
        """
        for name in ("markets", "account", "guard"):
            if self._seqlocks[name].read() > 0:
                self.work[name] = self._seqlocks[name].rec
        self.take(r.SRC_MARKETS, now_ns)
        oracle = self._seqlocks["oracle"]
        if oracle.read() > 0:
            memory = oracle.rec[0]
            for record in (*memory["boundary"], memory["twap60"], memory["spot"]):
                if record["t_obs_ms"] > 0:
                    self.work["oracle"] = record
                    self.take(r.SRC_ORACLE, now_ns)
        for name, field, src in (("own", "own", r.SRC_OWN), ("book", "market", r.SRC_MARKET)):
            reader = self._seqlocks[name]
            for slot in range(r.MARKET_SLOTS):
                if reader.read(slot) > 0:
                    self.work[field] = reader.rec
                    self.take(src, now_ns)
        self.work["pending"] |= _ALL_WRITE

    def spin(self) -> int:
        """One burst; see `burst` for what it returns."""
        return burst(*self._args)

    def housekeeping(self, now_ns: int) -> bool:
        """Attach again when a ring was lapped since the last call: a lost record may have been a strike. True if it was."""
        lost = sum(int(reader.link[LOST]) for reader in self._rings.values())
        if lost == self._lost:
            return False
        self._lost = lost
        self.attach(now_ns)
        return True

    def retire(self, now_ns: int) -> None:
        """Leave no quotes behind: every target emptied and past its deadline. For an orderly stop."""
        for slot in range(r.MARKET_SLOTS):
            target = self.state["target"][0, slot]
            target["n_quotes"] = 0
            target["quote"] = np.zeros(r.MAX_QUOTES, r.QUOTE)
            target["deadline_ns"] = target["changed_ns"] = now_ns
            self._targets.rec[0] = target
            self._targets.write(slot)
