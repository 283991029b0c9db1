"""`mmbot config`: judge settings without starting anything.

Owns: nothing; the work is `mmbot.config`. Can go wrong: settings that are not valid (UserError, a line for each thing that is wrong). What needs the
venue, the account or this machine is for `mmbot doctor`.
"""

from typing import Annotated

import typer

from mmbot.cli.options import settings
from mmbot.config import known_keys

app = typer.Typer(no_args_is_help=True, help="Settings: check a file, list the keys.")


@app.command()
def check(context: typer.Context, file: Annotated[str | None, typer.Argument(metavar="[FILE|PRESET]", show_default=False,
          help="TOML file or preset (default: $MMBOT_CONFIG, else paper).")] = None) -> None:
    """Judge a config file as `mmbot run` would, MMBOT_ environment variables included."""
    from mmbot.venues.polymarket.gamma import DURATIONS

    cfg = settings(file, context)
    strategies = ", ".join(f"{cfg.strategy.of(DURATIONS[d]).strategy} for {d}" for d in cfg.markets.durations)
    print(f"ok: profile {cfg.profile}, markets {', '.join(cfg.markets.durations)}, strategy {strategies}" + (", dry run" if cfg.execution.dry_run else ""))


@app.command()
def keys() -> None:
    """Every key that a config file may hold."""
    print("\n".join(known_keys()))
