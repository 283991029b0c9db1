"""Why there was (no) quote: the decision in force at a moment, in words.

Owns: the choice of the decision, and the words and units of what its record holds (records.TARGET with WHY inside). Derives nothing: every number shown was
written by the decision itself. Reads: any sequence of TARGET records in their order, live from the ring `decisions` or from a recording.
Can go wrong: the moment is older than the oldest record (said, with how far back they reach); a window that was never decided about.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from mmbot.clock import WallClock
from mmbot.errors import UserError
from mmbot.ops.picture import E4, U6, slug
from mmbot.params import version_name
from shm_layout import records as r

SOURCES = {r.SRC_TIMER: "timer", r.SRC_MARKET: "market channel", r.SRC_ORACLE: "oracle print", r.SRC_SPOT: "spot venue", r.SRC_MARKETS: "market table",
           r.SRC_ACCOUNT: "account", r.SRC_GUARD: "guardian", r.SRC_PARAMS: "new parameters", r.SRC_OWN: "own orders", r.SRC_PROGRAMME: "programme"}
VENUES = ("Binance", "Coinbase", "Bybit")
_NEVER = 0.999              # a stamp of 0 makes an age as long as the machine runs
_ACCOUNT = {r.AS_BOOT: "boot", r.AS_RECONCILING: "reconciling", r.AS_READY: "ready", r.AS_HALTED: "halted"}


def _ms(ns: float) -> str:
    return f"{ns / 1e6:.0f} ms" if ns < 10e9 else f"{ns / 1e9:.1f} s"


def _age(what: str):
    def words(t, x: float, limit: float) -> str:
        return f"{what} was never heard" if x >= _NEVER * t["t_decide_ns"] else f"{what} was heard {_ms(x)} ago, limit {_ms(limit)}"
    return words


def _oracle(t, x: float, limit: float) -> str:
    text = _age("the oracle")(t, x, limit)
    return text if x > limit else f"{text}, and the spot venues have moved since its last print"


def _not_open(t, x: float, limit: float) -> str:
    return f"it starts in {x:.1f} s, and is quoted from {limit:g} s before" if x > limit else "the venue does not list it as open, or it is resolved"


def _book(t, x: float, limit: float) -> str:
    return f"others' bid {_px(x * E4)}, ask {_px(limit * E4)}"


def _px(dollars: float) -> str:
    return f"{dollars:.4f}".rstrip("0").rstrip(".") if dollars else "none"


def _dollars(t, x: float, limit: float) -> str:
    return f"{x * U6:.2f} dollars could be lost with the quotes that are left; room {limit * U6:.2f}, cash {t['why']['cash_u6'] * U6:.2f}"


#: words for what a gate judged: (record, input, limit) -> text; a gate that is not here is shown with its two numbers
WORDS = {
    "no_market": lambda t, x, lim: "discovery lists no window there",
    "not_open": _not_open,
    "cutoff": lambda t, x, lim: f"{x:.1f} s are left, quotes end {lim:g} s before the end",
    "no_strike": lambda t, x, lim: f"no trusted opening print {-x:.1f} s after the start (time to wait for it: {lim:g} s)",
    "stale_market": _age("the market channel"),
    "stale_oracle": _oracle,
    "stale_spot": lambda t, x, lim: f"no spot venue was heard within {_ms(lim)}",
    "suspect_book": _book, "empty_book": _book, "frozen_market": _book,
    "account_not_ready": lambda t, x, lim: f"account is {_ACCOUNT.get(int(x), '?')}" + (", the user channel is not trusted" if int(x) == r.AS_READY else ""),
    "guard": lambda t, x, lim: "the guardian forbids it: " + (", ".join(r.guard_names(int(x))) or "it has not spoken yet"),
    "executor_halt": lambda t, x, lim: "the executor wants no orders: " + ", ".join(r.halt_names(int(x))),
    "exposure_cap": _dollars, "market_cap": _dollars,
    "side_cap": lambda t, x, lim: f"one side has cost {x * U6:.2f} dollars, at most {lim * U6:.2f}",
    "severe_skew": lambda t, x, lim: f"{x * U6:g} shares more of one outcome, severe from {lim * U6:g}",
    "size_below_min": lambda t, x, lim: f"size {x * U6:g}, the venue's minimum is {lim * U6:g} shares",
    "price_out_of_range": lambda t, x, lim: f"fair value {_px(x)} is too near the end of the range for a tick of {_px(lim)}",
    "pair_cap": lambda t, x, lim: f"a bid for each would cost {x:.4f} together, at most {lim:.4f}",
    "no_params": lambda t, x, lim: "the core has no parameters",
    "warming": lambda t, x, lim: f"the core runs for {_ms(x)}, it quotes after {_ms(lim)}",
    "spot_disagree": lambda t, x, lim: f"two spot venues' returns differ by {x * 1e4:.1f} bps, limit {lim * 1e4:.1f} bps: smaller size",
    "oracle_disagree": lambda t, x, lim: f"spot is {x * 1e4:.1f} bps from the oracle, limit {lim * 1e4:.1f} bps: a warning only",
    "latency": lambda t, x, lim: f"PINGs take {_ms(x)} on average, limit {_ms(lim)}",
    "action": lambda t, x, lim: f"the strategy takes (part of) its quotes away: {_name(r.ACTIONS, int(t['why']['action']))}; toxicity {x:.2f}, extreme from {lim:.2f}",
    "divergence": lambda t, x, lim: f"model and market are {x:.3f} apart, it is not believed from {lim:.3f}",
    "signal_flip": lambda t, x, lim: f"the signal turned to {x:+.3f}, entry from {lim:.3f}",
    "price_jump": lambda t, x, lim: f"micro-price {x:.2%} from the middle, limit {lim:.2%}",
    "vol_spike": lambda t, x, lim: f"volatility spike: {x:.2f} times its threshold",
    "toxic_flow": lambda t, x, lim: f"toxic flow {x:g}, limit {lim:g}",
    "gamma_danger": lambda t, x, lim: f"Up moves {x:.4f} dollars per basis point of Bitcoin, limit {lim:g}",
}


# ---- which decision

@dataclass(frozen=True)
class Found:
    """The decision in force. ``since_ns``: decided like this (quoted, or the same first gate) since; ``whole``: that beginning is among the records."""
    record: object
    since_ns: int
    whole: bool


def _kind(t) -> tuple:
    return int(t["market_id"]), int(t["why"]["gate"]) if not t["n_quotes"] else -1, bool(t["n_quotes"])


def in_force(records: Iterable, market_id: int, t_ns: int) -> Found | None:
    """The last decision about a window at or before monotonic ``t_ns``; None when there is none. ``records``: TARGET, oldest first."""
    last = since = None
    whole = False
    for t in records:
        if t["market_id"] != market_id or t["t_decide_ns"] > t_ns:
            continue
        if last is None or _kind(t) != _kind(last):
            since, whole = int(t["t_decide_ns"]), last is not None
        last = t
    return None if last is None else Found(last, since, whole)


_SLUG = re.compile(r"btc-updown-(15|5)m-(\d{9,11})$")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}(?:\.\d+)?))?\s*(z|utc)?$", re.I)
_AGO = re.compile(r"(\d+(?:\.\d+)?)(s|m)$")


def is_market(text: str) -> bool:
    """Whether an argument can only mean a window."""
    return text.lower() in ("15m", "5m") or bool(_SLUG.match(text))


def _clock_time(text: str, wall_s: float, zone: tzinfo | None, ahead_s: float) -> float | None:
    """Wall seconds of hh:mm[:ss][Z], the newest such moment not more than ``ahead_s`` after now; None if it is none."""
    m = _CLOCK.match(text.strip())
    if not m or int(m[1]) > 23 or int(m[2]) > 59 or float(m[3] or 0) >= 60:
        return None
    now = datetime.fromtimestamp(wall_s, UTC).astimezone(UTC if m[4] else zone)
    at = now.replace(hour=int(m[1]), minute=int(m[2]), second=0, microsecond=0) + timedelta(seconds=float(m[3] or 0))
    return (at - timedelta(days=1) if at.timestamp() > wall_s + ahead_s else at).timestamp()


def moment(text: str, wall_s: float, zone: tzinfo | None = None) -> float:
    """Wall seconds that a TIME means: now, hh:mm[:ss] (local, or UTC with Z behind it), 90s or 5m ago. Errors: UserError."""
    if text.lower() in ("", "now"):
        return wall_s
    if ago := _AGO.match(text):
        return wall_s - float(ago[1]) * (60 if ago[2] == "m" else 1)
    at = _clock_time(text, wall_s, zone, 1.0)
    if at is None:
        raise UserError(f"{text!r} is no time: hh:mm:ss (add Z for UTC), 90s ago as 90s, or now")
    return at


def window(text: str, at_s: float, zone: tzinfo | None = None) -> int:
    """Market id that a MARKET means at a moment: 15m or 5m (the one that runs then), a slug, or a time it runs at. Errors: UserError."""
    if m := _SLUG.match(text):
        return r.market_id(int(m[2]), int(m[1]) * 60)
    duration_s = 300 if text.lower() == "5m" else 900
    if text.lower() not in ("15m", "5m"):
        at = _clock_time(text, at_s, zone, 86_400.0)
        if at is None:
            raise UserError(f"{text!r} is no market: 15m, 5m, a slug as btc-updown-15m-1775028600, or a time at which a 15 minute window runs")
        at_s = at
    return r.market_id(int(at_s) // duration_s * duration_s, duration_s)


# ---- in words

def gate_words(t) -> str:
    """What the first gate judged."""
    why = t["why"]
    if why["gate"] < 0:
        return ""
    name, x, limit = r.GATES[int(why["gate"])], float(why["gate_input"]), float(why["gate_limit"])
    return WORDS[name](t, x, limit) if name in WORDS else f"{x:g}, limit {limit:g}"


def _quotes(t) -> list[dict]:
    return [{"token": ("Up", "Down")[int(q["token"])], "level": int(q["level"]), "side": ("buy", "sell")[int(q["side"])],
             "kind": ("post-only", "FAK", "FOK")[int(q["kind"])], "px": int(q["px_e4"]) * E4, "size": int(q["size_u6"]) * U6}
            for q in t["quote"][:int(t["n_quotes"])]]


def _name(names: tuple[str, ...], code: int) -> str:
    return names[code] if 0 <= code < len(names) else "none"


def document(found: Found, t_ns: int, clock: WallClock, reach_s: float) -> dict:
    """Everything the record says, as `mmbot why --json` prints it. Numbers of WHY keep their names."""
    t = found.record
    why = t["why"]
    first = _name(r.GATES, int(why["gate"])) if why["gate"] >= 0 else None
    numbers = {n: float(why[n]) if why.dtype[n].kind == "f" else int(why[n]) for n in why.dtype.names
               if n not in ("strategy", "pricer", "phase", "regime", "action", "leader", "gate", "gate_input", "gate_limit", "halts", "guard_reasons")}
    return {
        "market": slug(int(t["market_id"])), "market_id": int(t["market_id"]), "at": clock.at(t_ns) / 1e9, "quoted": bool(t["n_quotes"]),
        "decision": int(t["decision"]), "decided_at": clock.at(int(t["t_decide_ns"])) / 1e9, "age_s": round((t_ns - int(t["t_decide_ns"])) / 1e9, 3),
        "since": clock.at(found.since_ns) / 1e9, "since_s": round((t_ns - found.since_ns) / 1e9, 3), "since_is_known": found.whole,
        "params_version": version_name(t["params_version"]), "strategy": _name(r.STRATEGIES, int(why["strategy"])),
        "pricer": _name(r.PRICERS, int(why["pricer"])), "phase": _name(r.PHASES, int(why["phase"])), "regime": _name(r.REGIMES, int(why["regime"])),
        "action": _name(r.ACTIONS, int(why["action"])), "leader": _name(VENUES, int(why["leader"])),
        "cause": {"source": SOURCES.get(int(t["cause_src"]), "?"), "received_at": clock.at(int(t["t_recv_ns"])) / 1e9,
                  "to_decision_us": round((int(t["t_decide_ns"]) - int(t["t_recv_ns"])) / 1e3, 1)},
        "gate": None if first is None else {"name": first, "input": float(why["gate_input"]), "limit": float(why["gate_limit"]), "text": gate_words(t)},
        "other_gates": [g for g in r.gate_names(int(t["gates"])) if g != first],
        "halts": r.halt_names(int(why["halts"])), "guard_reasons": r.guard_names(int(why["guard_reasons"])),
        "numbers": numbers | {"fair": float(why["fair"]), "target_total": float(t["target_total"]), "sigma": float(t["sigma"]), "size_scale": float(t["size_scale"])},
        "quotes": _quotes(t), "reaches_back_s": round(reach_s, 1),
    }


def _clock_words(wall_s: float, zone: tzinfo | None) -> str:
    at = datetime.fromtimestamp(wall_s, UTC)
    local, utc = at.astimezone(zone).strftime("%H:%M:%S.%f")[:-3], at.strftime("%H:%M:%S.%f")[:-3]
    return utc + "Z" if local == utc else f"{local} ({utc}Z)"


def lines(d: dict, zone: tzinfo | None = None) -> list[str]:
    """A `document` in words."""
    n = d["numbers"]
    since = ("since " if d["since_is_known"] else "since before ") + f"{_clock_words(d['since'], zone)}, for {d['since_s']:.1f} s"
    out = [f"{d['market']} at {_clock_words(d['at'], zone)}: " + (f"quoted, {since}" if d["quoted"] else f"NOT QUOTED, {since}")]
    if d["gate"]:
        out.append(f"{'gate' if not d['quoted'] else 'smaller'}     {d['gate']['name']}: {d['gate']['text']}")
    elif not d["quoted"]:
        out.append(f"action   {d['action']}: the strategy asked for nothing")
    if d["other_gates"]:
        out.append("also     " + ", ".join(d["other_gates"]))
    if d["halts"]:
        out.append("executor " + ", ".join(d["halts"]))
    if d["guard_reasons"]:
        out.append("guardian " + ", ".join(d["guard_reasons"]))
    if d["quoted"]:
        out += _chain(d, n)
    elif n["mid"]:
        out.append(f"saw      mid {_px(n['mid'])}, model {n['p_model']:.4f}, fair {n['fair']:.4f}, {n['tau_s']:.1f} s left")
    out.append(f"cause    {d['cause']['source']}, received {_clock_words(d['cause']['received_at'], zone)}, decided {d['cause']['to_decision_us']:.0f} us later "
               f"(decision {d['decision']})")
    out.append(f"by       strategy {d['strategy']}, parameters {d['params_version']}")
    return out


def _chain(d: dict, n: dict) -> list[str]:
    """From the model to the prices, each part as the record holds it; parts that a strategy did not use are 0 and left out."""
    level = f"Bitcoin {math.exp(n['ln_level']):.2f}" + (f" against {math.exp(n['ln_strike']):.2f}" if n["ln_strike"] else ", strike not printed") if n["ln_level"] else ""
    out = [f"model    p {n['p_model']:.4f} ({d['pricer']}; {level}, {n['tau_s']:.1f} s left, variance {n['var_s']:.3g} per s; led by {d['leader']})",
           f"market   mid {_px(n['mid'])} (others' bid {_px(n['bid_e4'] * E4)}, ask {_px(n['ask_e4'] * E4)}, tick {_px(n['tick_e4'] * E4)})"
           + (f", micro {n['micro']:.4f}" if n["micro"] else ""),
           f"fair     {n['fair']:.4f}",
           f"skew     inventory {n['skew_inventory']:+.4f} ({n['imbalance_u6'] * U6:+g} shares Up)"
           + (f", momentum {n['skew_momentum']:+.4f} ({n['momentum']:+.2f})" if n["skew_momentum"] else ""),
           f"reserve  {n['reservation']:.4f}" + (f" (gamma {n['gamma']:.3g})" if n["gamma"] else "")]
    factors = [f"{name[2:]} {n[name]:g}" for name in ("f_time", "f_regime", "f_toxicity", "f_vol", "f_phase") if n[name]]
    out.append(f"spread   {n['spread']:.4f}" + (f" (factors: {', '.join(factors)})" if factors else "") + f"; phase {d['phase']}, regime {d['regime']}, "
               f"action {d['action']}, size x {n['size_scale']:g}")
    for q in d["quotes"]:
        kind = "" if q["kind"] == "post-only" else f" {q['kind']}"
        out.append(f"quote    {q['side']} {q['token']:4} level {q['level']}  {q['size']:g} @ {_px(q['px'])}{kind}")
    out.append(f"risk     {n['worst_u6'] * U6:.2f} dollars could be lost here, room {n['room_u6'] * U6:.2f}, cash {n['cash_u6'] * U6:.2f}")
    return out
