"""What the parameters rest on: volatility by horizon, tails, the lead of a spot venue, and a choice made on the first half and judged on the second.

Owns: the tables of the report that are not judgements of pricers. Can go wrong: five minutes of simultaneous feeds are little; the table says how many rows.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

from mmbot.calibration import judge, recordings, replay, rules, scores
from mmbot.config_strategy import Strategy

HORIZONS_S = (1, 2, 5, 10, 30, 60, 300, 900)
TAILS = (0, 3, 4, 5, 6, 8, 12, 30)
AHEAD_MS = (0, 1000, 2000, 3000, 5000)
LAGS_MS = (0, 500, 1000, 1500, 2000)
_LOOK_MS = 250
_WARM_MS = 15_000


@dataclass(frozen=True)
class Sigma:
    """Volatility per square root of a second from returns of ``horizon_s``, and its ratio to that of the longest horizon."""
    horizon_s: int
    sigma: float
    ratio: float
    returns: int


@dataclass(frozen=True)
class Lead:
    """Error of the nowcast as a predictor of the print of ``ahead_ms`` from now, over that of the newest print (below 1 is better)."""
    lag_ms: int
    ahead_ms: int
    ratio: float
    rmse_bps: float
    rows: int


@dataclass(frozen=True)
class Tail:
    """Mean negative log likelihood of the next 5 minute return under Student's t around the variance known before it."""
    dof: int
    loss: float


@dataclass(frozen=True)
class Choice:
    """A setting of the volatility, its log loss in the first and second half of the day, windows of both lengths together."""
    half_life_var_s: float
    long_weight: float
    tail_dof: int
    train: float
    test: float
    default: bool


def sigmas(day: recordings.Day) -> list[Sigma]:
    """Volatility by return horizon, overlapping, over seconds that were printed at both ends."""
    out = []
    for h in HORIZONS_S:
        both = (day.printed[h:] > 0) & (day.printed[:-h] > 0)
        ret = (day.ln[h:] - day.ln[:-h])[both]
        out.append((h, float(np.sqrt(np.mean(ret * ret) / h)), int(both.sum())))
    return [Sigma(h, s, s / out[-1][1], n) for h, s, n in out]


def leads(events: np.ndarray, strategy: Strategy, lags_ms=LAGS_MS) -> list[Lead]:
    """The nowcast against the newest print, every 250 ms, for each assumed lag of the print behind the venue."""
    prints = events[events["venue"] == replay.CHAINLINK]
    ln, obs, recv = np.log(prints["px"]), prints["obs_ms"], prints["recv_ms"]
    wall = np.arange(events["recv_ms"][0] + _WARM_MS, obs.max() - max(AHEAD_MS), _LOOK_MS)
    asks = np.zeros(len(wall), replay.ASK)
    asks["wall_ms"], asks["start_s"], asks["end_s"] = wall, wall // 1000, wall // 1000 + 900
    newest = ln[np.searchsorted(recv, wall, "right") - 1]
    out = []
    for lag in lags_ms:
        level = replay.run(events, asks, judge.parameters(judge.changed(strategy, model={"print_lag_ms": lag})))["ln_level"]
        for ahead in AHEAD_MS:
            truth = ln[np.searchsorted(obs, wall + ahead)]
            error, plain = np.sqrt(np.mean((level - truth) ** 2)), np.sqrt(np.mean((newest - truth) ** 2))
            out.append(Lead(lag, ahead, float(error / plain), float(error * 1e4), len(wall)))
    return out


def tails(ret: np.ndarray, half_life_s: float, long_half_life_s: float, long_weight: float) -> list[Tail]:
    """Which tails 5 minute returns have around an EWMA variance as ours, judged on the second half of ``ret``."""
    from scipy import stats

    def before(half_life: float) -> np.ndarray:
        keep, var, out = 0.5 ** (300.0 / half_life), np.var(ret[:288]), np.empty(len(ret))
        for i, x in enumerate(ret):
            out[i] = var
            var = keep * var + (1.0 - keep) * x * x
        return out
    sd = np.sqrt((1.0 - long_weight) * before(half_life_s) + long_weight * before(long_half_life_s))
    half = len(ret) // 2
    z, ln_sd = (ret / sd)[half:], np.log(sd)[half:]
    out = []
    for dof in TAILS:
        scale = 1.0 if dof == 0 else np.sqrt(dof / (dof - 2.0))
        density = stats.norm.logpdf(z) if dof == 0 else stats.t.logpdf(z * scale, dof) + np.log(scale)
        out.append(Tail(dof, float(np.mean(ln_sd - density))))
    return out


def choices(day: recordings.Day, strategy: Strategy, half_lives=(30.0, 120.0, 300.0, 900.0), weights=(0.0, 0.25, 0.5), dofs=(0, 6)) -> list[Choice]:
    """Settings of the volatility by log loss under today's rule; a window starts every minute, so that a day says more. Best of the first half first."""
    split = day.t0_s + len(day.ln) // 2
    out = []
    default = (strategy.half_life_var_s, strategy.model.long_weight, strategy.model.tail_dof)
    for setting in product(half_lives, weights, dofs):
        half_life, weight, dof = setting
        tried = judge.changed(strategy, half_life_var_s=half_life, model={"long_weight": weight, "tail_dof": dof})
        train, test = [], []
        for duration_s in (300, 900):
            case = judge.day_case(day, tried, duration_s, rules.TODAY, step_s=duration_s / 15.0, every_s=60)
            loss, early = scores.log_loss(case.p[judge.TWAP], case.up), case.start_s + duration_s <= split
            train.append(loss[early].mean())
            test.append(loss[case.start_s > split].mean())
        out.append(Choice(half_life, weight, dof, float(np.mean(train)), float(np.mean(test)), setting == default))
    return sorted(out, key=lambda c: c.train)
