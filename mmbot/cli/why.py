"""`mmbot why`: why there was (no) quote at a moment, from the record of the decision that was in force.

Owns: nothing; the words are `mmbot.ops.why`. Exit codes: 3 when nothing has run, 1 when no record reaches back to that moment.
"""

import json
import sys
from typing import Annotated

import typer

from mmbot.cli.options import ConfigOption, JsonOption, running_settings

NOT_RUNNING = 3


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("why")(why)


def why(context: typer.Context,
        time: Annotated[str, typer.Argument(metavar="[TIME]", help="hh:mm:ss (with Z: UTC), 90s or 5m ago, now.", show_default=False)] = "now",
        market: Annotated[str, typer.Argument(metavar="[MARKET]", help="15m, 5m, a slug, or a time at which it runs.", show_default=False)] = "15m",
        config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Why there was, or was not, a quote: the first gate that closed with what it saw, or each part of the price."""
    from mmbot.clock import mono_ns
    from mmbot.ops import why as words
    from mmbot.ops.picture import slug
    from mmbot.ops.view import View

    if words.is_market(time):
        time, market = "now", time
    view = View(running_settings(config, context))
    clock = view.clock() if view.exists() else None
    if clock is None:
        print(f"mmbot {view.cfg.run.name} has left no records (start it with `mmbot up` or `mmbot run`)", file=sys.stderr)
        raise typer.Exit(NOT_RUNNING)
    now_s, now_ns = clock.now_s(), mono_ns()
    at_s = words.moment(time, now_s)
    t_ns = now_ns - int((now_s - at_s) / clock.rate * 1e9)
    market_id = words.window(market, at_s)
    records = view.decisions()
    reach_s = (now_ns - int(records[0]["t_decide_ns"])) / 1e9 if len(records) else 0.0
    found = words.in_force(records, market_id, t_ns)
    if found is None:
        print(f"no decision about {slug(market_id)} at or before that moment: the {len(records)} records reach {reach_s:.0f} s back", file=sys.stderr)
        raise typer.Exit(1)
    document = words.document(found, t_ns, clock, reach_s)
    if (silent_s := _silent_s(view, market_id, t_ns)) > 0:
        document["expired_s"] = round(silent_s, 3)
    if as_json:
        print(json.dumps(document))
        return
    print("\n".join(words.lines(document)))
    if "expired_s" in document:
        print(f"but      it was not renewed and ran out {silent_s:.1f} s before that: no quotes are wanted since")


def _silent_s(view, market_id: int, t_ns: int) -> float:
    """How long before a moment the target that still stands had run out, s; negative while it had not."""
    from shm_layout import records as r

    start_s, duration_s = r.window_of(market_id)
    target = view.latest("targets", r.slot_of(start_s, duration_s))
    return (t_ns - int(target["deadline_ns"])) / 1e9 if target is not None and target["market_id"] == market_id else -1.0
