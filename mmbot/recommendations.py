"""What is wanted, in the format of document 3: `mm_quotes.json` for programs that place the orders themselves, `mm_status.json` for those that watch.

Owns: the shape and the units of both documents (dollars and shares as JSON numbers, prices exact to 1e-4, sizes to 1e-6), and their atomic write. Read by whoever
asked for them: the process `output`, `mmbot quote`, a notebook. CALL is Up and PUT is Down.
Can go wrong: a target past its deadline, or of a window that is over, means "no quotes" and is written as such, with its gates.
"""

import json
import os
from pathlib import Path

from mmbot.params import version_name
from mmbot.venues.polymarket import gamma
from shm_layout import records as r

QUOTES_FILE, STATUS_FILE = "mm_quotes.json", "mm_status.json"
_TOKEN, _SIDE, _KIND = {r.UP: "CALL", r.DOWN: "PUT"}, {r.BUY: "bid", r.SELL: "ask"}, {r.QK_POST_ONLY: "post_only", r.QK_FAK: "fak", r.QK_FOK: "fok"}


def quote_document(quote) -> dict:
    """One QUOTE as {side, price, size, layer, kind}."""
    return {"side": _SIDE[int(quote["side"])], "price": int(quote["px_e4"]) / 1e4, "size": int(quote["size_u6"]) / 1e6, "layer": int(quote["level"]),
            "kind": _KIND[int(quote["kind"])]}


def quotes_document(target, wall_s: float, now_ns: int) -> dict:
    """One window's TARGET as document 3 writes it, with what it leaves out: the market, why there is no quote, what the fair value is.

    ``wall_s``: the group's wall clock; ``now_ns``: monotonic, against the target's deadline.
    """
    start_s, duration_s = r.window_of(int(target["market_id"]))
    why, tau_s = target["why"], start_s + duration_s - wall_s
    expired = now_ns > int(target["deadline_ns"]) or tau_s <= 0
    quotes = () if expired else target["quote"][:int(target["n_quotes"])]
    sides = {name: [quote_document(q) for q in quotes if int(q["token"]) == token] for token, name in _TOKEN.items()}
    return {"timestamp": round(wall_s * 1000), "time_to_expiry_seconds": round(max(tau_s, 0.0), 3), "phase": r.PHASES[int(why["phase"])],
            "regime": r.REGIMES[int(why["regime"])], "quotes": sides,
            "market": gamma.slug(start_s, duration_s), "strategy": r.STRATEGIES[int(why["strategy"])], "action": r.ACTIONS[int(why["action"])],
            "fair": float(why["fair"]), "mid": float(why["mid"]), "gates": r.gate_names(int(target["gates"])) + (["expired"] if expired else []),
            "decision": int(target["decision"]), "params_version": version_name(int(target["params_version"]))}


def write(path: Path, document: dict) -> None:
    """Write a document so that a reader sees the old one or the new one, never half of either. Errors: OSError naming the path."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(document) + "\n")
    os.replace(part, path)
