"""Options shared by the commands, and how a command gets its settings.

Owns: the spelling of options and the order of precedence: command line, environment, file, defaults. Can go wrong: UserError only.
"""

import os
from typing import Annotated

import typer

from mmbot import config

ConfigOption = Annotated[str | None, typer.Option("--config", "-c", metavar="PATH|PRESET", show_default=False,
                                                  help="Config file, or the name of a preset (default: $MMBOT_CONFIG, else paper).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
SpeedOption = Annotated[float | None, typer.Option("--speed", metavar="N", show_default=False,
                                                   help="Paper: replay the tape N times faster (sim.speed).")]
TapeOption = Annotated[str | None, typer.Option("--tape", metavar="NAME", show_default=False,
                                                help="Paper: which recording the exchange replays (sim.tape).")]

StrategyOption = Annotated[str | None, typer.Option("--strategy", metavar="NAME", show_default=False,
                                                    help="Which strategy draws the quotes (strategy.strategy).")]

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Recommendations only: make quotes, send no order (execution.dry_run).")]


def settings(path: str | None, context: typer.Context | None = None, **overrides: object) -> config.Settings:
    """Settings for a command. ``overrides`` (``sim__speed=2``; None means not given) beat environment and file."""
    for key, value in overrides.items():
        if value is not None:
            os.environ[f"MMBOT_{key.upper()}"] = str(value)      # the environment beats the file, and the group inherits it
    return config.load(path or (context.obj if context else None))


def running_settings(path: str | None, context: typer.Context) -> config.Settings:
    """Settings of the running group if there is one, else those of the config."""
    from mmbot.ops.instance import adopt      # heavy: compiled code

    return adopt(settings(path, context))
