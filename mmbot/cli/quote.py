"""`mmbot quote`: what the strategy would want for a state in files, without any process running.

Owns: the printed table; the work is `mmbot.library`. Exit codes: 1 when nothing is wanted (the gate says why), 2 for a state that cannot be.
"""

import json
from typing import Annotated

import typer

from mmbot.cli.options import ConfigOption, JsonOption, StrategyOption, settings

_DURATIONS = {"15m": 900, "5m": 300}
WindowOption = Annotated[str | None, typer.Option("--window", metavar="15m|5m", show_default=False,
                                                  help="Which window, if the files do not say (default: the one of 15 minutes that runs then).")]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("quote")(quote)


def quote(context: typer.Context,
          state: Annotated[str, typer.Option("--state", metavar="PATH", help="A directory with bybit.json, chainlink.json, call.json, put.json, or one file with all of them.")],
          config: ConfigOption = None, strategy: StrategyOption = None, window: WindowOption = None,
          why: Annotated[bool, typer.Option("--why", help="Show the chain from the fair value to each price.")] = False, as_json: JsonOption = False) -> None:
    """Print the quotes that a state in files leads to; nothing runs, nothing is sent."""
    from mmbot.clock import WallClock
    from mmbot.errors import UserError
    from mmbot.library.files import read_state
    from mmbot.library.quoter import Quoter

    if window is not None and window not in _DURATIONS:
        raise UserError(f"--window is {window!r}: 15m or 5m is needed")
    found = read_state(state, duration_s=_DURATIONS.get(window))
    quotes = Quoter(settings(config, context, strategy__strategy=strategy)).quote(found)
    age_s = WallClock().now_s() - found.now_s
    if as_json:
        print(json.dumps(quotes.document() | {"age_s": round(age_s, 3)}))
    else:
        document = quotes.document()
        print(f"{document['market']}, {document['time_to_expiry_seconds']:.1f} s left, phase {document['phase']}, regime {document['regime']}; "
              f"fair {quotes.fair:.4f}, mid {document['mid']:g}; the state is {age_s:.0f} s old")
        for q in quotes.quotes:
            print(f"{q.outcome:4} {'bid' if q.side == 'buy' else 'ask'} {q.size:g} @ {q.price:g}  layer {q.layer}{'' if q.kind == 'post_only' else f' {q.kind}'}")
        if why or not quotes.quotes:
            print("\n".join(quotes.why()))
    raise typer.Exit(0 if quotes.quotes else 1)
