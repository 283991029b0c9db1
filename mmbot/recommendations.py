"""What is wanted, in the format of document 3: `mm_quotes.json` for programs that place the orders themselves, `mm_status.json` for those that watch.

Owns: the shape and the units of both documents (dollars and shares as JSON numbers, prices exact to 1e-4, sizes to 1e-6; what is not known is null), and
their atomic write. Pure but for `prepare` and `write`. Used by the process `output` and by `mmbot.library`. CALL is Up and PUT is Down.

`timestamp` is the group's wall clock when the document was made, ms since 1970: the system's clock when live, the tape's in paper mode. The process `output`
makes it anew each `output.interval_ms`, also when nothing is quoted. So a file whose timestamp stands still (or whose modification time is old) has lost its writer, and a
reader must take it for "no quotes".
Can go wrong: a target past its deadline, or of a window that is over, means "no quotes" and is written as such, with its gates.
"""

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path

from mmbot.errors import UserError
from mmbot.ops.picture import ACCOUNT_STATES, MARKET_STATES, U6, MarketView, QuoteView, marked_pnl, why_not_quoting
from mmbot.params import version_name
from mmbot.venues.polymarket import gamma
from shm_layout import records as r

QUOTES_FILE, STATUS_FILE = "mm_quotes.json", "mm_status.json"
#: executor and guardian say something many times a second; a word older than this is nobody's
SILENT_NS = 1_000_000_000
_TOKEN, _SIDE, _KIND = {r.UP: "CALL", r.DOWN: "PUT"}, {r.BUY: "bid", r.SELL: "ask"}, {r.QK_POST_ONLY: "post_only", r.QK_FAK: "fak", r.QK_FOK: "fok"}


def quote_document(quote) -> dict:
    """One QUOTE as {side, price, size, layer, kind}."""
    return {"side": _SIDE[int(quote["side"])], "price": int(quote["px_e4"]) / 1e4, "size": int(quote["size_u6"]) / 1e6, "layer": int(quote["level"]),
            "kind": _KIND[int(quote["kind"])]}


def is_live(target, wall_s: float, now_ns: int) -> bool:
    """Is a TARGET what the core wants now: before its deadline, of a window that is not over?"""
    return now_ns <= int(target["deadline_ns"]) and wall_s < sum(r.window_of(int(target["market_id"])))


def quotes_document(target, wall_s: float, now_ns: int) -> dict:
    """One window's TARGET as document 3 writes it, with what it leaves out: the market, why there is no quote, what the fair value is.

    ``wall_s``: the group's wall clock; ``now_ns``: monotonic, against the target's deadline.
    """
    start_s, duration_s = r.window_of(int(target["market_id"]))
    why, live = target["why"], is_live(target, wall_s, now_ns)
    quotes = target["quote"][:int(target["n_quotes"])] if live else ()
    sides = {name: [quote_document(q) for q in quotes if int(q["token"]) == token] for token, name in _TOKEN.items()}
    return {"timestamp": round(wall_s * 1000), "time_to_expiry_seconds": _tau_s(start_s + duration_s, wall_s), "phase": r.PHASES[int(why["phase"])],
            "regime": r.REGIMES[int(why["regime"])], "quotes": sides,
            "market": gamma.slug(start_s, duration_s), "strategy": r.STRATEGIES[int(why["strategy"])], "action": r.ACTIONS[int(why["action"])],
            "fair": _price(why["fair"]), "mid": _price(why["mid"]), "gates": r.gate_names(int(target["gates"])) + ([] if live else ["expired"]),
            "decision": int(target["decision"]), "params_version": version_name(int(target["params_version"]))}


def no_quotes_document(market_id: int, wall_s: float, reason: str) -> dict:
    """A window about which nothing is known but that there are no quotes: the keys of `quotes_document`, ``reason`` in place of the gates."""
    start_s, duration_s = r.window_of(market_id)
    return {"timestamp": round(wall_s * 1000), "time_to_expiry_seconds": _tau_s(start_s + duration_s, wall_s), "phase": None, "regime": None,
            "quotes": {name: [] for name in _TOKEN.values()}, "market": gamma.slug(start_s, duration_s), "strategy": None, "action": None, "fair": None,
            "mid": None, "gates": [reason], "decision": None, "params_version": None}


def running_window(duration_s: int, wall_s: float) -> int:
    """market_id of the window of that length that is open now."""
    return r.market_id(int(wall_s) // duration_s * duration_s, duration_s)


def quotes_file(targets: Iterable, duration_s: int, wall_s: float, now_ns: int, reason: str = "no_target") -> dict:
    """`mm_quotes.json`: the document of the running window of ``duration_s``, and under "windows" (by the venue's name) those of every window that has a
    live target. ``targets``: TARGET records; where none is of the running window, ``reason`` says why there are no quotes."""
    running = running_window(duration_s, wall_s)
    documents = {int(t["market_id"]): (quotes_document(t, wall_s, now_ns), is_live(t, wall_s, now_ns)) for t in targets if t["market_id"] > 0}
    now, _ = documents.get(running, (no_quotes_document(running, wall_s, reason), False))
    return {**now, "windows": {d["market"]: d for d, live in documents.values() if live}}


def status_document(targets: Iterable, markets, account, guard, duration_s: int, wall_s: float, now_ns: int, dry_run: bool) -> dict:
    """`mm_status.json`: what is quoted and if not why, what is held, what came of it.

    ``targets``: TARGET records; ``markets``, ``account``, ``guard``: MARKETS, ACCOUNT, GUARD, or None while never written. The top level speaks of the running
    window of ``duration_s``; "windows" of all that discovery knows, ordered by their end. "quoting" says whether orders may be out, "why_not" why they are
    not; "quotes" how many are wanted, in a dry run too. Positions are marked to the last middle that the core saw.
    """
    by_market = {int(t["market_id"]): t for t in targets if t["market_id"] > 0}
    rows = sorted((row for row in markets["row"] if row["state"] != r.MS_EMPTY), key=lambda row: (row["end_s"], row["duration_s"])) if markets is not None else []
    positions = {int(p["market_id"]): p for p in account["position"] if p["market_id"] > 0} if account is not None else {}
    windows, views = [], []
    for row in rows:
        market_id = int(row["market_id"])
        windows.append(_window(row, by_market.get(market_id), positions.get(market_id), wall_s, now_ns))
        views.append(_view(windows[-1], market_id))
    core = "RUN" if not rows or any(is_live(t, wall_s, now_ns) for t in by_market.values()) else "silent"
    reasons = _guard_reasons(guard, now_ns)
    executor = "RUN" if account is not None and now_ns - int(account["t_update_ns"]) <= SILENT_NS else "silent"
    halts = tuple(r.halt_names(int(account["halts"]))) if account is not None else ()
    why = why_not_quoting(_account_state(account), guard is not None and bool(guard["quoting_allowed"]) and not reasons, reasons, core, executor,
                          tuple(views), (*halts, *(("dry_run",) if dry_run else ())), _venue_mode(account))
    now = gamma.slug(*r.window_of(running_window(duration_s, wall_s)))
    here = next((w for w in windows if w["market"] == now), {})
    return {"timestamp": round(wall_s * 1000), "market": now, "time_to_expiry_seconds": _tau_s(sum(r.window_of(running_window(duration_s, wall_s))), wall_s),
            **{k: here.get(k) for k in ("phase", "regime", "strategy", "fair", "mid", "sigma_per_sqrt_s")},
            "dry_run": dry_run, "quoting": why is None, "why_not": why, "quotes": sum(w["quotes"] for w in windows), "gates": here.get("gates", []),
            "halts": list(halts), "guard_reasons": list(reasons), "account_state": _account_state(account), "venue_mode": _venue_mode(account),
            **_money(account, tuple(views)), "decisions": max((int(t["decision"]) for t in by_market.values()), default=0), "params_version": here.get("params_version"),
            "windows": windows}


def _window(row, target, position, wall_s: float, now_ns: int) -> dict:
    """One window of `status_document`. ``row``: MARKET_INFO; TARGET and POSITION, or None where there is none."""
    market_id = int(row["market_id"])
    d = quotes_document(target, wall_s, now_ns) if target is not None else no_quotes_document(market_id, wall_s, "no_target")
    held = {k: int(position[f"{k}_u6"]) * U6 if position is not None else 0.0 for k in ("qty_up", "qty_down", "cost_up", "cost_down", "worst")}
    return {"market": d["market"], "state": MARKET_STATES[int(row["state"])],
            **{k: d[k] for k in ("time_to_expiry_seconds", "phase", "regime", "strategy", "action")}, "quotes": sum(map(len, d["quotes"].values())),
            **{k: d[k] for k in ("gates", "fair", "mid")}, "sigma_per_sqrt_s": float(target["sigma"]) if target is not None else None,
            "shares_up": held["qty_up"], "shares_down": held["qty_down"], "cost_up_usd": held["cost_up"], "cost_down_usd": held["cost_down"],
            "worst_loss_usd": held["worst"], "live_orders": int(position["live_orders"]) if position is not None else 0,
            "outcome": {r.UP: "CALL", r.DOWN: "PUT"}.get(int(row["outcome"])), "params_version": d["params_version"]}


def _view(w: dict, market_id: int) -> MarketView:
    """A window of `status_document` as the arithmetic of `mmbot.ops.picture` wants it: its mark is the core's last middle, else its fair value."""
    outcome = {"CALL": r.UP, "PUT": r.DOWN}.get(w["outcome"], r.NO_OUTCOME)
    return MarketView(w["market"], market_id, w["state"], w["time_to_expiry_seconds"], w["mid"] if w["mid"] is not None else w["fair"], None, None,
                      quotes=(QuoteView(0, 0, 0.0, 0.0),) * w["quotes"], gates=tuple(w["gates"]), shares=(w["shares_up"], w["shares_down"]),
                      cost=(w["cost_up_usd"], w["cost_down_usd"]), outcome=outcome)


def _money(account, views: tuple[MarketView, ...]) -> dict:
    """Dollars and counts of the account; all null while the executor has said nothing."""
    counts, dollars = ("live_orders", "orders", "cancels", "fills", "rejects"), ("cash", "exposure", "realized", "volume", "fees")
    if account is None:
        return dict.fromkeys([*(f"{k}_usd" for k in (*dollars, "marked_pnl")), *counts])
    money = {f"{k}_usd": round(int(account[f"{k}_u6"]) * U6, 6) for k in dollars}
    return {**money, "marked_pnl_usd": round(marked_pnl(money["realized_usd"], views), 6), **{k: int(account[k]) for k in counts}}


def _account_state(account) -> str:
    return ACCOUNT_STATES.get(int(account["state"]), "?") if account is not None else "boot"


def _venue_mode(account) -> str:
    mode = int(account["venue_mode"]) if account is not None else 0
    return r.VENUE_MODES[mode] if 0 <= mode < len(r.VENUE_MODES) else "?"


def _guard_reasons(guard, now_ns: int) -> tuple[str, ...]:
    """Why the guardian allows no quotes; ("silent",) when it has not spoken lately."""
    if guard is None or now_ns - int(guard["t_update_ns"]) > SILENT_NS:
        return ("silent",)
    return tuple(r.guard_names(int(guard["reasons"])))


def _tau_s(end_s: int, wall_s: float) -> float:
    return round(max(end_s - wall_s, 0.0), 3)


def _price(px) -> float | None:
    """Dollars to 1e-6; None for what is not known (an empty book has no middle, and says 0)."""
    return round(float(px), 6) if math.isfinite(px) and px > 0 else None


def prepare(directory: Path) -> None:
    """Make the directory of the files. Errors: UserError when it cannot be made or written to."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(0, "cannot be written to")
    except OSError as e:
        raise UserError(f"output.dir {directory}: {e.strerror}; set it to a directory that can be made and written to") from None


def write(path: Path, document: dict) -> None:
    """Write a document so that a reader sees the old one or the new one, never half of either. Errors: OSError naming the path."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(document, allow_nan=False) + "\n")
    os.replace(part, path)
