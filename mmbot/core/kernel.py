"""The step: one record in, targets brought up to date. The same function live, in replay and in a backtest."""

from numba import int64

from mmbot.core.decide import decide, share
from mmbot.core.inputs import take
from mmbot.core.state import (
    ACCOUNT_T, BLOCK_T, GUARD_T, MARKET_T, MARKETS_T, ORACLE_T, OWN_T, PROGRAMME_T, SPOT_T, STATE_T, array_of,
)
from shm_layout import records as r
from shm_layout.atomics import kernel


@kernel(int64(STATE_T, int64, MARKET_T, ORACLE_T, SPOT_T, OWN_T, PROGRAMME_T, MARKETS_T, ACCOUNT_T, GUARD_T, BLOCK_T, int64, int64))
def step_records(state, src, market, oracle, spot, own, programme, markets, account, guard, params, now_ns, wall_ns):
    if state.attached_ns == 0:
        state.attached_ns = now_ns
    touched = take(state, src, market, oracle, spot, own, programme, markets, account, guard, params, now_ns, wall_ns)
    if touched == 0:
        return 0
    share(state, account, guard, params.version != 0, params.of[0], now_ns, wall_ns)
    changed = 0
    for index in range(r.MARKET_SLOTS):
        if touched >> index & 1:
            changed |= decide(state, index, markets, account, params, now_ns, wall_ns)
    return changed


_STEP_ARGS = (array_of(STATE_T), int64, array_of(MARKET_T), array_of(ORACLE_T), array_of(SPOT_T), array_of(OWN_T), array_of(PROGRAMME_T), array_of(MARKETS_T),
              array_of(ACCOUNT_T), array_of(GUARD_T), array_of(BLOCK_T), int64, int64)


@kernel(int64(*_STEP_ARGS))
def step(state, src, market, oracle, spot, own, programme, markets, account, guard, params, now_ns, wall_ns):
    """One input in, targets brought up to date. Returns bits: see QUOTES_SHIFT, DECISION_SHIFT, WRITE_SHIFT (0: nothing to do).

    All arrays have one element: ``state`` of STATE (zeros at birth, then only this function's); ``market``, ``oracle``, ``spot``,
    ``own``, ``programme`` the record of this input if ``src`` (records.SRC_*) names it; ``markets``, ``account``, ``guard``, ``params`` always as they are now.
    ``now_ns`` is monotonic (ages, deadlines, stamps of the decision), ``wall_ns`` the group's wall clock (where in the window). The
    same calls give the same bytes. The result is in ``state["target"][0, slot]``.
    """
    return step_records(state[0], src, market[0], oracle[0], spot[0], own[0], programme[0], markets[0], account[0], guard[0], params[0], now_ns, wall_ns)
