"""Recorded prints through the core's own signals and pricers: what each would have said at a moment, from what had arrived by then.

Owns: ASK and ANSWER, the compiled loop `run`. Reads nothing but its arguments. Nothing of the pricing is written here again: `average`, `reference`,
`volatility` and `fair_value` are the code that trades.
Can go wrong: asks that are not in order of time (ValueError); a recording of the future of its own asks, which `run` prevents by receipt stamps.
"""

import numpy as np
from numba import float64, from_dtype, int64, njit, types, void

from mmbot.signals import average, fair_value, reference, volatility
from shm_layout import records as r

#: One question: a window at wall ``wall_ms``. ``strike_ln`` is what settles against, known from ``strike_from_ms`` on; ``tick_ln`` the spot print at the
#: start, which document 1 takes for the strike.
ASK = np.dtype([("wall_ms", "<i8"), ("start_s", "<i8"), ("end_s", "<i8"), ("strike_from_ms", "<i8"), ("strike_ln", "<f8"), ("tick_ln", "<f8")])
#: What was seen and said: probability of Up by each of records.PRICERS, and by document 1 with its own strike.
ANSWER = np.dtype([
    ("known", "<i8"), ("ln_level", "<f8"), ("age_s", "<f8"), ("led", "<i8"), ("var_s", "<f8"), ("short_var_s", "<f8"), ("long_var_s", "<f8"),
    ("p", "<f8", (len(r.PRICERS),)), ("p_tick", "<f8"),
])
#: Prints of the oracle and mids of a spot venue, in order of receipt.
EVENT = np.dtype([("recv_ms", "<i8"), ("obs_ms", "<i8"), ("venue", "<i8"), ("px", "<f8")])
CHAINLINK = -1              # EVENT.venue of the oracle; else an index into REF.venue
_STATE = np.dtype([("ref", reference.REF), ("vol", volatility.VOL), ("avg", average.AVG)])
_STATE_T, _ASK_T, _ANSWER_T, _EVENT_T, _PARAMS_T = (from_dtype(d) for d in (_STATE, ASK, ANSWER, EVENT, r.PARAMS))


@njit(void(_STATE_T, _EVENT_T, _PARAMS_T), cache=True)
def _take(state, event, params):
    """One event into the signals, as `core.inputs` does it."""
    recv_ns = event.recv_ms * 1_000_000
    if event.venue >= 0:
        reference.on_mid(state.ref, event.venue, event.recv_ms, recv_ns, event.px, params.stale_spot_ns)
        return
    if reference.on_spot_print(state.ref, event.obs_ms, recv_ns, event.px, params.model.print_lag_ms, params.model.half_life_basis_s):
        average.push(state.avg, event.obs_ms // 1000, state.ref.spot_ln)
        volatility.update(state.vol, event.obs_ms, state.ref.spot_ln, params.var_ref, params.half_life_var_s, params.half_life_drift_s,
                          params.model.half_life_short_s, params.model.half_life_long_s)


@njit(float64(_STATE_T, _ASK_T, _ANSWER_T, _PARAMS_T, float64, int64), cache=True)
def _price(state, ask, out, params, strike_ln, has_strike):
    """Probability of Up by the pricer that ``params`` names."""
    p, _, _, _, _ = fair_value.price(state.avg, params.model, out.ln_level, state.ref.spot_ln, out.age_s, out.led, out.ln_level, strike_ln, has_strike,
                                     ask.start_s, ask.end_s, ask.wall_ms * 1e-3, out.var_s, volatility.drift(state.vol, params.drift_clamp))
    return p


@njit(void(_STATE_T, _ASK_T, _ANSWER_T, _PARAMS_T), cache=True)
def _answer(state, ask, out, params):
    """Everything about one ask."""
    ref = state.ref
    out.known = ref.spot_ms != 0
    if ref.spot_ms == 0:
        return
    leader = reference.lead(ref, ask.wall_ms * 1_000_000, params.stale_spot_ns)
    out.ln_level, out.led = reference.level_ln(ref, leader), reference.led(ref, leader)
    out.age_s = (ask.wall_ms - ref.spot_ms) * 1e-3
    out.var_s = volatility.variance(state.vol, params.var_ref, params.var_floor, params.model.long_weight)
    out.short_var_s, out.long_var_s = state.vol.short_var_s, state.vol.long_var_s
    has_strike = int64(ask.wall_ms >= ask.strike_from_ms)
    for pricer in range(len(r.PRICERS)):
        params.model.pricer = pricer
        out.p[pricer] = _price(state, ask, out, params, ask.strike_ln, has_strike)
    params.model.pricer = fair_value.SPOT
    out.p_tick = _price(state, ask, out, params, ask.tick_ln, has_strike)


@njit(void(types.Array(_STATE_T, 1, "C"), types.Array(_EVENT_T, 1, "C"), types.Array(_ASK_T, 1, "C"), types.Array(_ANSWER_T, 1, "C"), types.Array(_PARAMS_T, 1, "C")),
      cache=True)
def _loop(state, events, asks, answers, params):
    at = 0
    for i in range(asks.size):
        while at < events.size and events[at].recv_ms <= asks[i].wall_ms:
            _take(state[0], events[at], params[0])
            at += 1
        _answer(state[0], asks[i], answers[i], params[0])


def run(events: np.ndarray, asks: np.ndarray, params: np.ndarray) -> np.ndarray:
    """ANSWERs to ``asks`` (ASK, in order of wall time) from ``events`` (EVENT, in order of receipt) with ``params`` (PARAMS, 1 element, not changed).

    Errors: ValueError when either is out of order.
    """
    if np.any(np.diff(asks["wall_ms"]) < 0) or np.any(np.diff(events["recv_ms"]) < 0):
        raise ValueError("asks and events must be in order of time")
    answers = np.zeros(len(asks), ANSWER)
    _loop(np.zeros(1, _STATE), np.ascontiguousarray(events), np.ascontiguousarray(asks), answers, params.copy())
    return answers
