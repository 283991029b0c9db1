"""The `mmbot` command line.

Owns: the names of commands and options, exit codes: 0 done, 1 something is not as it should be, 2 bad input (one clear line on
stderr), 3 nothing is running. Imports of compiled code are inside the commands, so that `mmbot --help` answers at once.
"""

import json
import sys
from typing import Annotated

import typer

from mmbot.cli import calibrate, config as settings_file, faults, keys, merges, params, quote, venue, why
from mmbot.cli.options import ConfigOption, DryRunOption, JsonOption, SpeedOption, StrategyOption, TapeOption, running_settings, settings
from mmbot.errors import UserError

NOT_RUNNING = 3
WIDE = 110               # columns from which tables show everything

app = typer.Typer(name="mmbot", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich",
                  help="A market maker for Polymarket's BTC up/down windows: processes over shared memory.")
shm = typer.Typer(no_args_is_help=True, help="The shared memory segments of an instance.")
simulator = typer.Typer(invoke_without_command=True)
app.add_typer(shm, name="shm")
app.add_typer(simulator, name="sim")
app.add_typer(settings_file.app, name="config")
app.add_typer(keys.app, name="keys")
app.add_typer(params.app, name="params")
app.add_typer(merges.app, name="merges")


@app.callback()
def common(context: typer.Context, config: ConfigOption = None) -> None:
    context.obj = config


def _console():
    from mmbot.cli.render import console

    return console()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _view_or_exit(config: str | None, context: typer.Context, as_json: bool):
    """A view of the instance and whether it runs; leaves with code 3 when it has left nothing to look at."""
    from mmbot.ops.group import is_up
    from mmbot.ops.view import View

    cfg = running_settings(config, context)
    view, up = View(cfg), is_up(cfg)
    if not view.exists():
        _say(f"mmbot {cfg.run.name} is not running (start it with `mmbot up` or `mmbot run`)")
        if as_json:
            print("{}")
        raise typer.Exit(NOT_RUNNING)
    if not up:
        _say(f"mmbot {cfg.run.name} is not running; these are the last figures it left")
    return view, up


# ---- the group

@app.command("run")
def run_command(context: typer.Context, config: ConfigOption = None,
        seconds: Annotated[float | None, typer.Option("--seconds", min=0.1, show_default=False, help="Stop by itself after so long.")] = None,
        as_json: JsonOption = False, speed: SpeedOption = None, tape: TapeOption = None, strategy: StrategyOption = None,
        dry_run: DryRunOption = False) -> None:
    """Run in the foreground: start, live screen, stop, summary."""
    from mmbot.ops.account import unlocked

    cfg = unlocked(settings(config, context, sim__speed=speed, sim__tape=tape, strategy__strategy=strategy, execution__dry_run=dry_run or None))
    from mmbot.cli import run as foreground

    foreground.run(cfg, seconds, as_json)


@app.command()
def up(context: typer.Context, config: ConfigOption = None, speed: SpeedOption = None, tape: TapeOption = None,
       strategy: StrategyOption = None, dry_run: DryRunOption = False) -> None:
    """Start the group in the background and wait until every process runs."""
    from mmbot.ops.account import unlocked

    cfg = unlocked(settings(config, context, sim__speed=speed, sim__tape=tape, strategy__strategy=strategy, execution__dry_run=dry_run or None))
    from mmbot.clock import mono_ns
    from mmbot.ops.group import Group

    begin = mono_ns()
    Group(cfg, _say).up()
    print(f"mmbot {cfg.run.name} is up after {(mono_ns() - begin) / 1e9:.1f} s; logs in {cfg.run.path / 'log'}"
          + ("; a dry run: no order is sent" if cfg.execution.dry_run else ""))


@app.command()
def down(context: typer.Context, config: ConfigOption = None) -> None:
    """Stop the group: orders first (cancelled and verified), the exchange last."""
    cfg = running_settings(config, context)
    from mmbot.ops.group import Group, is_up, leftovers

    if not is_up(cfg) and not leftovers(cfg):
        _say(f"mmbot {cfg.run.name} is not running")
        raise typer.Exit(NOT_RUNNING)
    Group(cfg, _say).down()
    print(f"mmbot {cfg.run.name} is down")


@app.command()
def restart(context: typer.Context, name: Annotated[str, typer.Argument(metavar="NAME", help="A process, as `mmbot status` names it.")],
            config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Restart one process while the others go on."""
    cfg = running_settings(config, context)
    from mmbot.ops.group import Group

    done = Group(cfg, _say).restart(name)
    if as_json:
        print(json.dumps(vars(done)))
    else:
        print(f"{done.name}: pid {done.old_pid} → {done.new_pid}, epoch {done.old_epoch} → {done.new_epoch}, in RUN after {done.seconds:.2f} s")


# ---- looking

@app.command()
def status(context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Processes, windows and account, now."""
    view, running = _view_or_exit(config, context, as_json)
    from mmbot.cli import render
    from mmbot.ops.picture import status_json

    picture = view.picture()
    if as_json:
        print(json.dumps(status_json(picture)))
    else:
        console = _console()
        wide = console.width >= WIDE
        for part in (render.headline(picture), render.processes(picture.processes, errors=wide), render.markets(picture.markets, wide),
                     render.account(picture.account), render.split_line(picture.account), render.settlement(picture.settlement),
                     *render.warnings(picture)):
            if part is not None:
                console.print(part)
    if not running:
        raise typer.Exit(NOT_RUNNING)


@app.command()
def top(context: typer.Context, config: ConfigOption = None,
        seconds: Annotated[float | None, typer.Option("--seconds", min=0.1, show_default=False, help="Leave after so long.")] = None) -> None:
    """The live screen of a group that is up; leaving it does not stop the group."""
    view, _ = _view_or_exit(config, context, False)
    from mmbot.cli import run as foreground

    foreground.top(view.cfg, seconds)


@app.command()
def lag(context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """How far each reader is behind each ring."""
    view, _ = _view_or_exit(config, context, as_json)
    from mmbot.cli import render
    from mmbot.ops.picture import lag_json

    links = view.links()
    if as_json:
        print(json.dumps(lag_json(links)))
    else:
        console = _console()
        console.print(render.links(links, wide=console.width >= WIDE))


@app.command()
def latency(context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Where the time goes between a frame and the order it causes."""
    view, _ = _view_or_exit(config, context, as_json)
    from mmbot.cli import render
    from mmbot.ops.picture import latency_json

    hops, shapes = view.hops()
    if as_json:
        print(json.dumps(latency_json(hops)))
    else:
        console = _console()
        console.print(render.latency(hops, shapes, words=console.width >= WIDE))


@app.command()
def hedge(context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """What can be done about each unpaired position: hold, sell, or buy the other side and merge."""
    view, _ = _view_or_exit(config, context, as_json)
    from mmbot.cli import render

    found = view.hedges()
    if as_json:
        print(json.dumps({"hedges": [{"slug": m.slug, **h._asdict(), "options": [o._asdict() for o in h.options]} for m, h in found]}))
    else:
        _console().print(render.hedges(found) if found else "nothing is unpaired")


venue.register(app)
calibrate.register(app)
why.register(app)
quote.register(app)


# ---- tools

@simulator.callback()
def sim(context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False, speed: SpeedOption = None,
        tape: TapeOption = None) -> None:
    """Start the exchange alone, for any Polymarket client to be pointed at; Ctrl-C stops it."""
    if context.invoked_subcommand is not None:
        context.obj = config or context.obj
        return
    cfg = settings(config, context, sim__speed=speed, sim__tape=tape)
    from mmbot.cli import exchange

    exchange.run(cfg, as_json)


faults.register(simulator)


@app.command()
def warm() -> None:
    """Compile all kernels now, so that the next start takes a second."""
    from mmbot.ops import warm as kernels

    count, seconds = kernels.warm()
    print(f"{count} modules compiled or loaded in {seconds:.1f} s into {kernels.MARKER.parent}")


@shm.command()
def wipe(context: typer.Context, config: ConfigOption = None) -> None:
    """Remove all segments of the instance, of this build and of others. Refused while a process holds one."""
    cfg = settings(config, context)
    from shm_layout.segment import Space

    removed = Space(cfg.run.name).wipe()
    print(f"removed {len(removed)} segments of {cfg.run.name}")


@shm.command()
def check(context: typer.Context, config: ConfigOption = None) -> None:
    """Check every header, slot and lock of the instance's segments."""
    cfg = running_settings(config, context)
    from mmbot.cli.render import segments
    from mmbot.ops.memory import inspect

    rows = inspect(cfg)
    if not rows:
        _say(f"mmbot {cfg.run.name} has no segments")
        raise typer.Exit(NOT_RUNNING)
    _console().print(segments(rows))
    if any(row.problem for row in rows):
        raise typer.Exit(1)


def _mistakes() -> tuple[type[Exception], ...]:
    """Exceptions whose text is meant for a person. Memory errors exist only once a command has loaded that module."""
    segment = sys.modules.get("shm_layout.segment")
    return (UserError, segment.SegmentError) if segment else (UserError,)


def run() -> None:
    """Entry point: a person's mistake is one clear message on stderr and exit code 2, never a traceback."""
    try:
        app()
    except _mistakes() as e:
        print(f"mmbot: {e}", file=sys.stderr)
        sys.exit(UserError.exit_code)


if __name__ == "__main__":
    run()
