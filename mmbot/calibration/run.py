"""The whole calibration of one set of parameters: every judgement that the recordings at hand allow, as one value.

Owns: which judgements are made and in which order. Called by `mmbot calibrate`; `report` turns the result into a page.
Can go wrong: without the recorded day there is nothing to judge (UserError); other recordings that are absent are named in ``absent``.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from mmbot.calibration import fit, judge, recordings, rules, scores, study
from mmbot.config_strategy import Strategy
from mmbot.venues.polymarket import fees

MIX_WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)


@dataclass
class Verdict:
    """A case with its tables."""
    case: judge.Case
    scores: list[judge.Score]
    gains: list[judge.Gain]


@dataclass
class Result:
    """Everything the report shows."""
    strategy: Strategy
    recordings: dict[str, str]
    verdicts: list[Verdict] = field(default_factory=list)
    mixes: list[judge.Mix] = field(default_factory=list)
    takes: list[judge.Take] = field(default_factory=list)
    fits: dict[str, dict] = field(default_factory=dict)
    rows: dict[str, fit.Rows] = field(default_factory=dict)
    fit_scores: list[fit.FitScore] = field(default_factory=list)
    sigmas: list[study.Sigma] = field(default_factory=list)
    leads: list[study.Lead] = field(default_factory=list)
    tails: list[study.Tail] = field(default_factory=list)
    choices: list[study.Choice] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)


def verdict(case: judge.Case, name: str = judge.TWAP, over=(judge.PLAIN, judge.DOCUMENT)) -> Verdict:
    """Score a case; gains of ``name`` over the others."""
    return Verdict(case, judge.table(case), [g for o in over if o in case.p for g in judge.gains(case, name, o)])


def _add_fit(case: judge.Case, day: recordings.Day, strategy: Strategy, rule: rules.Rule) -> judge.Case:
    """The second half of a day, with the fit that the first half makes beside the pricers; rows at which its features are known."""
    rows = fit.day_rows(day, strategy, case.duration_s, rule, step_s=judge.STEP_S)
    split = day.t0_s + len(day.ln) // 2
    beta = fit.to_outcome(rows.only(rows.start_s + case.duration_s <= split))
    said = dict(zip(zip(rows.start_s.tolist(), (rows.start_s + case.duration_s - rows.pm_ts_ms / 1000).round(3).tolist()), fit.predict(beta, rows.x)))
    keys = list(zip(case.start_s.tolist(), case.tau_s.round(3).tolist()))
    here = [i for i, k in enumerate(keys) if k in said and k[0] > split]
    out = case.only(here, f"{case.name}, second half of the day")
    out.p["logit fit"] = scores.clamp([said[keys[i]] for i in here])
    return out


def _judge_day(result: Result, day: recordings.Day, won: dict[int, bool], say) -> None:
    strategy, now = result.strategy, rules.SETTLEMENT[-1]
    for duration_s, rule in ((300, now[2]), (900, now[1])):
        say(f"{duration_s // 60} min windows of the day under today's rule")
        case = judge.day_case(day, strategy, duration_s, rule)
        result.verdicts.append(verdict(case))
        result.verdicts.append(verdict(judge.day_case(day, strategy, duration_s, rule, step_s=duration_s / 60.0, every_s=60)))
        result.verdicts.append(verdict(_add_fit(case, day, strategy, rule), over=(judge.PLAIN, judge.DOCUMENT, "logit fit")))
        rows = fit.day_rows(day, strategy, duration_s, rule)
        name = f"outcome_{duration_s // 60}m"
        result.rows[name] = rows
        result.fits[name] = fit.described(rows, fit.to_outcome(rows), "outcome", duration_s, strategy)
        result.fit_scores += fit.judged(rows, f"{duration_s // 60} min, {rule.name}", {"fit to outcome": fit.to_outcome}, duration_s)
    say("5 min windows of the day as they were settled")
    result.verdicts.append(verdict(judge.day_case(day, strategy, 300, rules.settlement(day.t0_s, 300), won=won), judge.PLAIN, (judge.TWAP, judge.DOCUMENT)))


def _judge_markets(result: Result, root: Path, day: recordings.Day, say) -> None:
    strategy = result.strategy
    if recordings.has(root, recordings.OTHER_WINDOWS, recordings.OTHER_BOOK):
        say("Kalshi's windows of the day, with their market")
        case = judge.other_case(root, day, strategy)
        case.p[judge.BLEND] = judge.blended(case.p[judge.TWAP], case.p[judge.MARKET], strategy.model_weight, strategy.model.blend)
        result.verdicts.append(verdict(case, judge.BLEND, (judge.MARKET, judge.TWAP)))
        result.mixes += judge.mixes(case, judge.TWAP, MIX_WEIGHTS)
    if recordings.has(root, recordings.BOOK):
        say("5 min windows with their book")
        case = judge.book_case(root, strategy)
        case.p[judge.BLEND] = judge.blended(case.p[judge.PLAIN], case.p[judge.MARKET], strategy.model_weight, strategy.model.blend)
        result.verdicts.append(verdict(case, judge.BLEND, (judge.MARKET, judge.PLAIN)))
        result.mixes += judge.mixes(case, judge.PLAIN, MIX_WEIGHTS)
        of_then = fees.schedule_on(recordings.BOOK_DAY)
        result.takes += judge.takes(root, case, {n: case.p[n] for n in (judge.PLAIN, judge.BLEND)}, dict.fromkeys((of_then, fees.BY_NAME["current"])))
        rows = fit.book_rows(root, strategy)
        result.rows["market_5m"] = rows
        result.fits["market_5m"] = fit.described(rows, fit.to_market(rows), "market", 300, strategy)
        result.fit_scores += fit.judged(rows, case.name, {"fit to market": fit.to_market, "fit to outcome": fit.to_outcome}, 300)


def calibrate(root: Path, strategy: Strategy, say=lambda line: None) -> Result:
    """Every judgement of ``strategy`` that the recordings under ``root`` allow. ``say`` hears what is being done. Errors: UserError."""
    day, won = recordings.chainlink_day(root), recordings.winners(root)
    names = (recordings.PRINTS, recordings.WINDOWS, recordings.BOOK, recordings.OTHER_WINDOWS, recordings.OTHER_BOOK, recordings.FEEDS, recordings.HISTORY)
    result = Result(strategy, {n: hashlib.sha256((root / n).read_bytes()).hexdigest() for n in names if recordings.has(root, n)},
                    absent=[n for n in names if not recordings.has(root, n)])
    _judge_day(result, day, won, say)
    _judge_markets(result, root, day, say)
    say("volatility, tails, lead and choice")
    result.sigmas = study.sigmas(day)
    result.choices = study.choices(day, strategy)
    if recordings.has(root, recordings.FEEDS):
        result.leads = study.leads(recordings.feeds(root), strategy)
    if recordings.has(root, recordings.HISTORY):
        _, ret = recordings.history(root)
        result.tails = study.tails(ret, max(strategy.half_life_var_s, 600.0), strategy.model.half_life_long_s, strategy.model.long_weight)
    return result
