"""`mmbot merges`: pause the settler's merges, let them go on, and say what it has done.

Owns: the pause file in the run directory, which the settler looks at each turn; so a pause holds over restarts, and works while nothing runs.
Can go wrong: a run directory that cannot be written (UserError).
"""

import json
from typing import Annotated

import typer

from mmbot.cli.options import ConfigOption, JsonOption, running_settings
from mmbot.errors import UserError

app = typer.Typer(no_args_is_help=True, help="Merging full sets into dollars: pause it, resume it, see it.")


def _path(context: typer.Context, config: str | None):
    from mmbot.settlement.journal import PAUSE_FILE

    return running_settings(config, context).run.path / PAUSE_FILE


@app.command()
def pause(context: typer.Context, config: ConfigOption = None) -> None:
    """Begin no merge until `mmbot merges resume`; redemptions go on, and what is under way is finished."""
    path = _path(context, config)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
    except OSError as e:
        raise UserError(f"{path}: {e.strerror}") from None
    print("merges are paused")


@app.command()
def resume(context: typer.Context, config: ConfigOption = None) -> None:
    """Merge again."""
    path = _path(context, config)
    try:
        path.unlink(missing_ok=True)
    except OSError as e:
        raise UserError(f"{path}: {e.strerror}") from None
    fixed = running_settings(config, context).settlement.pause_merges
    print("merges stay paused: settlement.pause_merges is true in the config" if fixed else "merges go on")


@app.command()
def show(context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False,
         last: Annotated[int, typer.Option("--last", min=1, help="How many operations.")] = 20) -> None:
    """The last operations on file, newest last: what was settled, for how much, and what failed."""
    from mmbot.cli.render import console, settlements
    from mmbot.settlement.journal import FILE, replay

    ops, _, damaged = replay(running_settings(config, context).run.path / FILE)
    rows = [ops[n] for n in sorted(ops)][-last:]
    if as_json:
        print(json.dumps({"operations": [{k: getattr(o, k) for k in ("number", "kind", "market_id", "up_u6", "down_u6", "payout_u6", "cost_u6", "outcome",
                                                                     "state", "tx", "relayer_id", "reason", "text", "wall_ms")} for o in rows],
                          "damaged_lines": damaged}))
        return
    console().print(settlements(rows) if rows else "nothing was settled yet")
