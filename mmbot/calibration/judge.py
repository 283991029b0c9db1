"""The judgement: which pricer is right how often, by seconds to the close, under which rule.

Owns: cases (a set of windows, their outcomes, what each pricer said) and their tables of scores. Reads recordings, runs `replay`, scores with `scores`.
Can go wrong: a day with little movement judges little; intervals are given with every figure. Windows whose boundary prints are missing are left out and counted.
"""

from dataclasses import dataclass, field

import numpy as np

from mmbot.calibration import recordings, replay, rules, scores
from mmbot.config_strategy import Strategy, merged
from mmbot.params import params_block
from mmbot.signals import fair_value
from shm_layout import records as r

BUCKETS_S = (0, 10, 30, 60, 120, 300, 600, 900)       # seconds to the close
BLOCK_S = 1800                                        # bootstrap: windows of half an hour stay together
STEP_S = 4.0                                          # seconds between looks at a window
STRIKE_LATE_MS = 2_300                                # the boundary's print is here by then
TWAP, PLAIN, DOCUMENT, MARKET, BLEND = "twap", "spot", "document 1", "market mid", "blend"
DOCUMENT_VARIANCE = {"half_life_var_s": 30.0, "model": {"long_weight": 0.0}}       # as document 1 has it


@dataclass
class Case:
    """Rows of one judgement: parallel arrays. ``p`` by name of the forecaster; ``block`` for the bootstrap."""
    name: str
    duration_s: int
    tau_s: np.ndarray
    start_s: np.ndarray
    up: np.ndarray
    p: dict[str, np.ndarray]
    windows: int
    left_out: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def block(self) -> np.ndarray:
        return scores.blocks(self.start_s, BLOCK_S)

    def only(self, rows: np.ndarray, name: str = "") -> "Case":
        """The same for some rows."""
        return Case(name or self.name, self.duration_s, self.tau_s[rows], self.start_s[rows], self.up[rows],
                    {k: v[rows] for k, v in self.p.items()}, len(np.unique(self.start_s[rows])), self.left_out, self.notes)


@dataclass(frozen=True)
class Score:
    """One forecaster in one bucket."""
    bucket: str
    name: str
    rows: int
    brier: scores.Estimate
    log_loss: scores.Estimate
    sharpness: float
    intercept: scores.Estimate | None
    slope: scores.Estimate | None


@dataclass(frozen=True)
class Gain:
    """How much less log loss ``name`` has than ``over`` in a bucket: positive is better, with the interval of the paired difference."""
    bucket: str
    name: str
    over: str
    gain: scores.Estimate


def changed(strategy: Strategy, **over) -> Strategy:
    """``strategy`` with ``over`` in place of some of its values (tables as dicts); what differs by length of window is dropped."""
    return Strategy.model_validate(merged(strategy.model_dump(exclude={"for_15m", "for_5m"}), over))


def parameters(strategy: Strategy) -> np.ndarray:
    """PARAMS (1 element) of ``strategy``."""
    return np.ascontiguousarray(params_block(strategy, 1)["of"][0][:1])


def bucket_names(tau_s: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """(name, rows) of each bucket of time to the close that has rows, nearest the close first."""
    out = []
    for low, high in zip(BUCKETS_S, BUCKETS_S[1:]):
        rows = (tau_s > low) & (tau_s <= high)
        if rows.any():
            out.append((f"{low}-{high} s", rows))
    return out


def ask(start_s, duration_s: int, tau_s, strike_ln, tick_ln) -> tuple[np.ndarray, np.ndarray]:
    """(ASKs of every window at every ``tau_s`` before its end in order of time, index of each one's window)."""
    which = np.repeat(np.arange(len(start_s)), len(tau_s))
    out = np.zeros(len(which), replay.ASK)
    out["start_s"] = np.asarray(start_s)[which]
    out["end_s"] = out["start_s"] + duration_s
    out["wall_ms"] = out["end_s"] * 1000 - np.tile(np.round(np.asarray(tau_s) * 1000).astype(np.int64), len(start_s))
    out["strike_from_ms"] = out["start_s"] * 1000 + STRIKE_LATE_MS
    out["strike_ln"], out["tick_ln"] = np.asarray(strike_ln)[which], np.asarray(tick_ln)[which]
    order = np.argsort(out["wall_ms"], kind="stable")
    return out[order], which[order]


def taus(duration_s: int, step_s: float) -> np.ndarray:
    """Seconds to the close at which a window is looked at: every ``step_s``, the last time 2 s before it."""
    return np.arange(2.0, duration_s, step_s)


def forecasts(events: np.ndarray, asks: np.ndarray, strategy: Strategy) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(probability by forecaster, ANSWERs): the pricers with ``strategy``, and document 1 as it stands (its half-life, the spot print for a strike)."""
    answers = replay.run(events, asks, parameters(strategy))
    as_written = replay.run(events, asks, parameters(changed(strategy, **DOCUMENT_VARIANCE)))
    p = {name: answers["p"][:, i] for i, name in enumerate(r.PRICERS)}
    p[DOCUMENT] = as_written["p_tick"]
    return p, answers


def day_case(day: recordings.Day, strategy: Strategy, duration_s: int, rule: rules.Rule, step_s: float = STEP_S, every_s: int | None = None,
             won: dict[int, bool] | None = None) -> Case:
    """The windows of a recorded day under ``rule``: outcomes by its prints, or by ``won`` (start second -> Up) where given.

    ``every_s``: a window starts at each multiple of this (default: the venue's grid). The strike is the rule's own, also for the plain formulas.
    """
    every_s = every_s or duration_s
    first = -(-(day.t0_s + rule.lookback_s + rule.lag_s + 1) // every_s) * every_s
    start = np.arange(first, day.t0_s + len(day.ln) - duration_s, every_s)
    (strike, ok0), (final, ok1), (tick, _) = rule.value(day, start), rule.value(day, start + duration_s), day.tick(start)
    ok = ok0 & ok1
    up = final >= strike
    notes = []
    if won is not None:
        known = np.array([int(s) in won for s in start])
        ok &= known
        real = np.array([won.get(int(s), False) for s in start])
        notes.append(f"outcomes are the venue's; ours by the prints agree on {int((real == up)[ok].sum())} of {int(ok.sum())}")
        up = real
    asks, which = ask(start[ok], duration_s, taus(duration_s, step_s), strike[ok], tick[ok])
    p, answers = forecasts(day.events, asks, changed(strategy, model={"twap_lag_s": rule.lag_s}) if rule.kind == "twap" else strategy)
    known = answers["known"] > 0
    case = Case(f"{duration_s // 60} min windows, {rule.name}" + (f", one every {every_s} s" if every_s != duration_s else ""), duration_s, (asks["end_s"] - asks["wall_ms"] * 1e-3), asks["start_s"], up[ok][which], p,
                int(ok.sum()), int(len(start) - ok.sum()), notes)
    return case.only(known)


def table(case: Case, with_reliability: bool = True) -> list[Score]:
    """Scores of every forecaster, overall and by bucket."""
    out = []
    for bucket, rows in [("all", np.ones(len(case.up), bool)), *bucket_names(case.tau_s)]:
        part = case.only(rows)
        y, block = part.up, part.block
        for name, p in part.p.items():
            fit = scores.reliability(p, y, block) if with_reliability and bucket == "all" else (None, None)
            out.append(Score(bucket, name, len(y), scores.mean(scores.brier(p, y), block), scores.mean(scores.log_loss(p, y), block), scores.sharpness(p), *fit))
    return out


def gains(case: Case, name: str, over: str) -> list[Gain]:
    """Paired gain in log loss of one forecaster over another, overall, by bucket and in the last two minutes."""
    out = []
    for bucket, rows in [("all", np.ones(len(case.up), bool)), ("0-120 s", case.tau_s <= 120.0), *bucket_names(case.tau_s)]:
        part = case.only(rows)
        loss = scores.log_loss(part.p[over], part.up) - scores.log_loss(part.p[name], part.up)
        out.append(Gain(bucket, name, over, scores.mean(loss, part.block)))
    return out


def other_case(root, day: recordings.Day, strategy: Strategy) -> Case:
    """Kalshi's 15 minute windows of that day: real outcomes by a 60 s mean of another index, and its mid at each full minute."""
    windows, quotes = recordings.other_windows(root), recordings.other_book(root)
    rule = rules.Rule("twap", 60, 0)
    rows = [(windows[t][0] - 900, float(m) * 60.0, b, a, windows[t][1]) for t, m, b, a in
            zip(quotes["ticker"], quotes["min_left"], quotes["bid"], quotes["ask"]) if t in windows and m > 0.0 and 0.0 < b < a < 1.0]
    rows = np.array(sorted(rows, key=lambda x: x[0] + 900 - x[1]))
    start = rows[:, 0].astype(np.int64)
    (strike, ok0), (_, ok1), (tick, _) = rule.value(day, start), rule.value(day, start + 900), day.tick(start)
    ok = ok0 & ok1
    rows, start = rows[ok], start[ok]
    asks = np.zeros(len(start), replay.ASK)
    asks["start_s"], asks["end_s"], asks["strike_from_ms"] = start, start + 900, start * 1000 + STRIKE_LATE_MS
    asks["wall_ms"] = np.round((start + 900 - rows[:, 1]) * 1000)
    asks["strike_ln"], asks["tick_ln"] = strike[ok], tick[ok]
    p, _ = forecasts(day.events, asks, changed(strategy, model={"twap_lag_s": 0}))
    p[MARKET] = 0.5 * (rows[:, 2] + rows[:, 3])
    return Case("15 min windows of Kalshi, mean of 60 s", 900, rows[:, 1], start, rows[:, 4] > 0, p, len(np.unique(start)))


def book_case(root, strategy: Strategy) -> Case:
    """Polymarket's 5 minute windows of an evening with their book and Binance's price every 3 s; settled on the spot print."""
    t = recordings.book(root)
    day = recordings.Day.of(np.round(t["t_s"] * 1000).astype(np.int64), np.round(t["t_s"] * 1000).astype(np.int64), t["btc"])
    asks = np.zeros(len(t["t_s"]), replay.ASK)
    asks["start_s"], asks["end_s"], asks["strike_from_ms"] = t["start_s"], t["end_s"], t["start_s"] * 1000
    asks["wall_ms"] = np.round(t["t_s"] * 1000)
    asks["strike_ln"] = asks["tick_ln"] = np.log(t["strike"])
    p, answers = forecasts(day.events, asks, strategy)
    p[MARKET] = 0.5 * (t["bid"] + t["ask"])
    del p[TWAP]                                         # another rule decides these
    rows = (answers["known"] > 0) & (t["end_s"] > t["t_s"])
    return Case("5 min windows with their book, spot print", 300, t["end_s"] - t["t_s"], t["start_s"], t["up"], p, len(np.unique(t["start_s"]))).only(rows)


@dataclass(frozen=True)
class Mix:
    """A blend of a pricer with the market: chosen on the first half of the windows, judged on the second against the mid."""
    case: str
    form: str
    weight: float
    chosen: bool
    train_loss: float
    test_loss: float
    gain: scores.Estimate


def blended(p: np.ndarray, mid: np.ndarray, weight: float, form: str) -> np.ndarray:
    """The core's own blend, row by row."""
    by_logit = r.BLENDS.index(form)
    return np.array([fair_value.blend(a, b, weight, by_logit) for a, b in zip(p, mid)])


def mixes(case: Case, pricer: str, weights=(0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)) -> list[Mix]:
    """Every weight in both forms, and which one the first half of the windows chooses in each."""
    split = np.median(np.unique(case.start_s))
    train, test = case.start_s <= split, case.start_s > split
    block = scores.blocks(case.start_s[test], case.duration_s)
    mid_loss = scores.log_loss(case.p[MARKET], case.up)
    out = []
    for form in r.BLENDS:
        losses = {w: scores.log_loss(blended(case.p[pricer], case.p[MARKET], w, form), case.up) for w in weights}
        best = min(weights, key=lambda w: losses[w][train].mean())
        out += [Mix(case.name, form, w, w == best, float(losses[w][train].mean()), float(losses[w][test].mean()),
                    scores.mean((mid_loss - losses[w])[test], block)) for w in weights]
    return out


@dataclass(frozen=True)
class Take:
    """Taking when a forecaster's edge exceeds the fee: dollars a share after fees, by the fee schedule of that name. Not a backtest: no delay, no size."""
    forecaster: str
    schedule: str
    rows: int
    windows: int
    pnl: scores.Estimate


def takes(root, case: Case, forecasters: dict[str, np.ndarray], schedules) -> list[Take]:
    """Buy Up at the ask, or Down at 1 - bid, wherever the forecast says it pays after the taker's fee; ``case`` as `book_case` gives it."""
    t = recordings.book(root)
    rows = t["end_s"] > t["t_s"]
    bid, ask_px = t["bid"][rows][-len(case.up):], t["ask"][rows][-len(case.up):]
    block, out = scores.blocks(case.start_s, case.duration_s), []
    for schedule in schedules:
        rate, exponent = schedule.rate_e6 * 1e-6, float(schedule.exponent)

        def fee(px: np.ndarray, on_cash=schedule.on_cash, rate=rate, exponent=exponent) -> np.ndarray:
            return rate * (px * (1.0 - px)) ** exponent * (px if on_cash else 1.0)
        for name, p in forecasters.items():
            up, down = p - ask_px > fee(ask_px), bid - p > fee(1.0 - bid)
            pnl = np.where(up, case.up - ask_px - fee(ask_px), np.where(down, bid - case.up - fee(1.0 - bid), 0.0))
            taken = up | down
            if taken.any():
                renumbered = np.unique(block[taken], return_inverse=True)[1]
                out.append(Take(name, schedule.name, int(taken.sum()), len(np.unique(case.start_s[taken])), scores.mean(pnl[taken], renumbered)))
    return out
