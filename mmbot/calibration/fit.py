"""Document 0's model, logit p = beta . (1, 60 s return, window return, EMA gap, rolling std), fitted to what the market quotes and to what settles.

Owns: the rows a fit is made of and the two fits. The features are the core's own compiled signals, fed by `replay`'s events.
Sources: document 0 (ridge, q within [0.001, 0.999], weights 1 / (spread^2 + eps), rows whose market and spot stamps are within 250 ms, pm_ts, spot_ts and dt
kept with each row). It regresses logit(q), so it learns what the market quotes; the second fit is a logistic regression of the outcome.
Can go wrong: too few windows: the scores are out of sample in time and say so. Coefficients belong to one length of window and one rule.
"""

import math
from dataclasses import dataclass

import numpy as np
from numba import from_dtype, int64, njit, types, void

from mmbot.calibration import judge, recordings, replay, rules, scores
from mmbot.config_strategy import Strategy
from mmbot.signals import anchors, dislocation, ema, path, reference, rolling
from shm_layout import records as r

FEATURES = ("1", "ret_anchor", "ret_window", "ema_gap", "std")
MOST_APART_MS = 250
SPREAD_EPS = 1e-4           # a spread of a cent halves the weight of none
RIDGE = 1e-3                # per row, on standardised features; the intercept is free
FEATURE = np.dtype([("known", "<i8"), ("x", "<f8", (len(FEATURES),))])
_STATE = np.dtype([("ref", reference.REF), ("path", path.PATH), ("ema", ema.EMA)])
_STATE_T, _FEATURE_T, _ASK_T, _EVENT_T, _PARAMS_T = (from_dtype(d) for d in (_STATE, FEATURE, replay.ASK, replay.EVENT, r.PARAMS))


@njit(void(_STATE_T, _PARAMS_T, int64), cache=True)
def _on_grid(state, params, wall_ms):
    """The level goes onto its grid before an input is taken, as in `core.signals`."""
    step = wall_ms // path.STEP_MS
    if state.ref.spot_ms == 0 or step <= state.path.step:
        return
    ln_level = reference.level_ln(state.ref, reference.lead(state.ref, wall_ms * 1_000_000, params.stale_spot_ns))
    before = state.path.step
    path.push(state.path, step, ln_level)
    ema.update(state.ema, (step - before) * path.STEP_MS * 1e-3, math.exp(ln_level), params.signals.ema_fast_s, params.signals.ema_slow_s)


@njit(void(types.Array(_STATE_T, 1, "C"), types.Array(_EVENT_T, 1, "C"), types.Array(_ASK_T, 1, "C"), types.Array(_FEATURE_T, 1, "C"), types.Array(_PARAMS_T, 1, "C")),
      cache=True)
def _loop(states, events, asks, out, params):
    state, p, at = states[0], params[0], 0
    for i in range(asks.size):
        wall_ms = asks[i].wall_ms
        while at < events.size and events[at].recv_ms <= wall_ms:
            event = events[at]
            _on_grid(state, p, event.recv_ms)
            if event.venue >= 0:
                reference.on_mid(state.ref, event.venue, event.recv_ms, event.recv_ms * 1_000_000, event.px, p.stale_spot_ns)
            else:
                reference.on_spot_print(state.ref, event.obs_ms, event.recv_ms * 1_000_000, event.px, p.model.print_lag_ms, p.model.half_life_basis_s)
            at += 1
        _on_grid(state, p, wall_ms)
        if state.ref.spot_ms == 0:
            continue
        ln_level = reference.level_ln(state.ref, reference.lead(state.ref, wall_ms * 1_000_000, p.stale_spot_ns))
        has_anchor, ret_anchor = anchors.since(state.path, ln_level, wall_ms, p.signals.anchor_s)
        has_window, ret_window = anchors.window(state.path, ln_level, asks[i].start_s, wall_ms >= asks[i].strike_from_ms, asks[i].strike_ln)
        has_std, std = rolling.std(state.path, p.signals.std_window_s)
        known = has_anchor != 0 and has_window != 0 and has_std != 0 and ema.known(state.ema, p.signals.ema_slow_s) != 0
        out[i].known = known and wall_ms >= asks[i].start_s * 1000
        out[i].x[0], out[i].x[1], out[i].x[2], out[i].x[3], out[i].x[4] = 1.0, ret_anchor, ret_window, ema.gap(state.ema), std


def features(events: np.ndarray, asks: np.ndarray, params: np.ndarray) -> np.ndarray:
    """FEATUREs at ``asks`` (ASK, in order of time) from ``events`` (EVENT, in order of receipt)."""
    out = np.zeros(len(asks), FEATURE)
    _loop(np.zeros(1, _STATE), np.ascontiguousarray(events), np.ascontiguousarray(asks), out, params)
    return out


def align(pm_ms: np.ndarray, spot_ms: np.ndarray, most_ms: int = MOST_APART_MS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows of ``pm_ms`` that have a spot stamp within ``most_ms``, index of the nearest one, dt_ms = pm - spot); ``spot_ms`` in order."""
    after = np.clip(np.searchsorted(spot_ms, pm_ms), 0, len(spot_ms) - 1)
    before = np.maximum(after - 1, 0)
    nearest = np.where(np.abs(spot_ms[before] - pm_ms) <= np.abs(spot_ms[after] - pm_ms), before, after)
    dt = pm_ms - spot_ms[nearest]
    rows = np.flatnonzero(np.abs(dt) <= most_ms)
    return rows, nearest[rows], dt[rows]


@dataclass(frozen=True)
class Rows:
    """What a fit is made of, parallel arrays: features ``x`` (n, 5), the market's ``q`` and ``spread`` (NaN without a market), the outcome, stamps."""
    x: np.ndarray
    q: np.ndarray
    spread: np.ndarray
    up: np.ndarray
    start_s: np.ndarray
    pm_ts_ms: np.ndarray
    spot_ts_ms: np.ndarray
    dt_ms: np.ndarray

    def only(self, rows: np.ndarray) -> "Rows":
        return Rows(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def least_squares(x: np.ndarray, y: np.ndarray, weights: np.ndarray, ridge: float = RIDGE) -> np.ndarray:
    """beta of the weighted ridge regression of ``y`` (n,) on ``x`` (n, d), first column 1, by the normal equations.

    The ridge weighs ``ridge`` times the sum of weights on each coefficient of a standardised feature, so units do not matter.
    """
    mean, scale = _scales(x, weights)
    z = (x - mean) / scale
    penalty = ridge * weights.sum() * np.eye(x.shape[1])
    penalty[0, 0] = 0.0
    return _unscaled(np.linalg.solve(z.T @ (weights[:, None] * z) + penalty, z.T @ (weights * y)), mean, scale)


def logistic(x: np.ndarray, up: np.ndarray, weights: np.ndarray, ridge: float = RIDGE) -> np.ndarray:
    """beta of the weighted ridge logistic regression of ``up`` on ``x``, by Newton's method; ridge as in `least_squares`."""
    mean, scale = _scales(x, weights)
    z = (x - mean) / scale
    penalty = ridge * weights.sum() * np.eye(x.shape[1])
    penalty[0, 0] = 0.0
    beta = np.zeros(x.shape[1])
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-np.clip(z @ beta, -30, 30)))
        step = np.linalg.solve(z.T @ ((weights * p * (1 - p))[:, None] * z) + penalty + 1e-12 * np.eye(len(beta)), z.T @ (weights * (up - p)) - penalty @ beta)
        beta = beta + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-10:
            break
    return _unscaled(beta, mean, scale)


def _scales(x, weights):
    mean = np.average(x, axis=0, weights=weights)
    scale = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weights))
    mean[0], scale[0] = 0.0, 1.0
    return mean, np.where(scale > 0, scale, 1.0)


def _unscaled(beta, mean, scale):
    beta = beta / scale
    beta[0] -= (beta[1:] * mean[1:]).sum()
    return beta


def market_weights(spread: np.ndarray) -> np.ndarray:
    """1 / (spread^2 + eps), scaled to a mean of 1."""
    w = 1.0 / (spread * spread + SPREAD_EPS)
    return w / w.mean()


def to_market(rows: Rows) -> np.ndarray:
    """beta of logit(q), clamped, on the features, weighted by the spread."""
    return least_squares(rows.x, scores.logit(rows.q), market_weights(rows.spread))


def to_outcome(rows: Rows) -> np.ndarray:
    """beta of the outcome on the features; each row of a window counts alike."""
    return logistic(rows.x, rows.up.astype(float), np.ones(len(rows.up)))


def predict(beta: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The core's own `dislocation.expected`, row by row."""
    return np.array([dislocation.expected(*beta, *row[1:]) for row in x])


def day_rows(day: recordings.Day, strategy: Strategy, duration_s: int, rule: rules.Rule, step_s: float = 5.0) -> Rows:
    """Rows without a market: a recorded day's windows under ``rule``."""
    first = -(-(day.t0_s + 120) // duration_s) * duration_s
    start = np.arange(first, day.t0_s + len(day.ln) - duration_s, duration_s)
    (strike, ok0), (final, ok1), (tick, _) = rule.value(day, start), rule.value(day, start + duration_s), day.tick(start)
    ok = ok0 & ok1
    asks, which = judge.ask(start[ok], duration_s, judge.taus(duration_s, step_s), strike[ok], tick[ok])
    got = features(day.events, asks, judge.parameters(strategy))
    rows = np.flatnonzero(got["known"])
    recv, nan = day.events["recv_ms"], np.full(len(rows), np.nan)
    wall = asks["wall_ms"][rows]
    spot = day.events["obs_ms"][np.searchsorted(recv, wall, "right") - 1]
    return Rows(got["x"][rows], nan, nan, (final >= strike)[ok][which][rows], asks["start_s"][rows], wall, spot, wall - spot)


def book_rows(root, strategy: Strategy) -> Rows:
    """Rows with a market: Polymarket's 5 minute windows of an evening, Bitcoin on the same clock."""
    t = recordings.book(root)
    pm = np.round(t["t_s"] * 1000).astype(np.int64)
    day = recordings.Day.of(pm, pm, t["btc"])
    rows, spot, dt = align(pm, day.events["recv_ms"])
    asks = np.zeros(len(rows), replay.ASK)
    asks["wall_ms"], asks["start_s"], asks["end_s"] = pm[rows], t["start_s"][rows], t["end_s"][rows]
    asks["strike_from_ms"], asks["strike_ln"] = asks["start_s"] * 1000, np.log(t["strike"][rows])
    got = features(day.events, asks, judge.parameters(strategy))
    known = got["known"] > 0
    rows = rows[known]
    return Rows(got["x"][known], 0.5 * (t["bid"] + t["ask"])[rows], (t["ask"] - t["bid"])[rows], t["up"][rows], t["start_s"][rows], pm[rows],
                day.events["recv_ms"][spot[known]], dt[known])


def described(rows: Rows, beta: np.ndarray, target: str, duration_s: int, strategy: Strategy) -> dict:
    """A fit as `fitfile` stores it."""
    s = strategy.signals
    return {"target": target, "duration_s": duration_s, "beta": [float(b) for b in beta], "features": list(FEATURES),
            "signals": {"anchor_s": s.anchor_s, "ema_fast_s": s.ema_fast_s, "ema_slow_s": s.ema_slow_s, "std_window_s": s.std_window_s},
            "ridge": RIDGE, "rows": len(rows.up), "windows": len(np.unique(rows.start_s)), "from_s": int(rows.start_s.min()), "to_s": int(rows.start_s.max())}


@dataclass(frozen=True)
class FitScore:
    """A fit made on the first half of the windows, judged on the second."""
    name: str
    forecaster: str
    rows: int
    windows: int
    brier: scores.Estimate
    log_loss: scores.Estimate


def judged(rows: Rows, name: str, fits: dict, duration_s: int) -> list[FitScore]:
    """Out-of-sample scores of each fit (name -> function of Rows to beta), and of the market where there is one."""
    split = np.median(np.unique(rows.start_s))
    train, test = rows.only(rows.start_s <= split), rows.only(rows.start_s > split)
    block = scores.blocks(test.start_s, judge.BLOCK_S)
    said = {forecaster: predict(make(train), test.x) for forecaster, make in fits.items()}
    if not np.isnan(test.q).any():
        said[judge.MARKET] = test.q
    return [FitScore(name, forecaster, len(test.up), len(np.unique(test.start_s)), scores.mean(scores.brier(p, test.up), block),
                     scores.mean(scores.log_loss(p, test.up), block)) for forecaster, p in said.items()]
