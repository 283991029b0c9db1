"""`mmbot params`: look at the numbers a running group trades with, change them, take a change back.

Owns: nothing; the work is `mmbot.ops.params`. Exit codes: 1 when the core has not taken what was offered.
"""

import json
from typing import Annotated

import typer

from mmbot.cli.options import ConfigOption, JsonOption, running_settings
from mmbot.errors import UserError

app = typer.Typer(no_args_is_help=True, help="The numbers a running group trades with: show, set, diff, rollback, history.")


def _parameters(config: str | None, context: typer.Context):
    from mmbot.ops.params import Parameters

    return Parameters(running_settings(config, context))


def _word(value: object) -> str:
    return "-" if value is None else json.dumps(value) if not isinstance(value, str) else value


def _print_changes(changes: dict) -> None:
    width = max(map(len, changes), default=0)
    for key, (old, new) in changes.items():
        print(f"  {key:{width}}  {_word(old)} → {_word(new)}")


@app.command()
def show(context: typer.Context, match: Annotated[str, typer.Argument(metavar="[PART]", help="Only keys that contain this.")] = "",
         config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Every parameter as it is now, with what differs for windows of 15 and of 5 minutes."""
    from mmbot.config_strategy import WINDOWS, Strategy
    from mmbot.ops.params import flat, version_of

    p = _parameters(config, context)
    running = p.running()
    strategy = p.table(running)
    version = running or version_of(strategy)
    base = {k: v for k, v in flat(strategy.model_dump()).items() if k.split(".")[0] not in WINDOWS.values()}
    each = {d: flat(strategy.of(d).model_dump()) for d in WINDOWS}
    if as_json:
        print(json.dumps({"version": version, "running": bool(running), "changes": p.changes(), "strategy": strategy.model_dump(mode="json"),
                          "windows": {f"{d // 60}m": {k: v for k, v in each[d].items() if k in base} for d in WINDOWS}}))
        return
    defaults = flat(Strategy().model_dump())
    print(f"version {version}" + (f", {p.changes()} changes since the start" if running else f" ({p.cfg.run.name} is not running: as in its config)"))
    shown = {k: v for k, v in base.items() if match in k}
    if not shown:
        raise UserError(f"no parameter contains {match!r}")
    width = max(map(len, shown))
    for key, value in shown.items():
        own = [f"{d // 60}m {_word(each[d][key])}" for d in WINDOWS if each[d][key] != value]
        print(f"{'*' if value != defaults[key] else ' '} {key:{width}}  {_word(value)}" + (f"   ({', '.join(own)})" if own else ""))
    print("* differs from its default")


def _tell(offer, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**vars(offer), "took_ms": None if offer.took_ns is None else offer.took_ns / 1e6}))
    elif not offer.changed and offer.took_ns == 0:
        print(f"version {offer.version} runs already: nothing to change")
    else:
        _print_changes(offer.changed)
        print(f"version {offer.before} → {offer.version}" + (f", in use after {offer.took_ns / 1e6:.1f} ms" if offer.took_ns is not None else ""))
        if offer.why:
            print(offer.why)
    if offer.took_ns is None:
        raise typer.Exit(1)


@app.command("set")
def set_(context: typer.Context, changes: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="As in the [strategy] table: tiered.base_spread=0.03, "
         "for_5m.levels=1; an empty value takes an override of for_5m or for_15m away; reversion.beta=@FILE takes a fit.")],
         config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Change parameters of the running group. All at once, judged as a whole: on an error nothing changes."""
    from mmbot.ops.fits import with_fits
    from mmbot.ops.params import parsed

    _tell(_parameters(config, context).set(with_fits([parsed(text) for text in changes])), as_json)


@app.command()
def rollback(context: typer.Context, version: Annotated[str | None, typer.Argument(metavar="[VERSION]", show_default=False,
             help="A version of `mmbot params history`, or its first digits (default: the one before the newest).")] = None,
             config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Trade with an earlier version again."""
    _tell(_parameters(config, context).rollback(version), as_json)


@app.command()
def diff(context: typer.Context, version: Annotated[str | None, typer.Argument(metavar="[VERSION]", show_default=False,
         help="What to compare with (default: what the group started with).")] = None,
         config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """What differs between the parameters now and those the group started with, or an earlier version."""
    from mmbot.ops.params import differing, version_of

    p = _parameters(config, context)
    then = p.table(p.trail.find(version)["version"]) if version else p.cfg.strategy
    now = p.table(p.newest())
    changes = differing(then, now)
    if as_json:
        print(json.dumps({"from": version_of(then), "to": version_of(now), "changed": changes}))
        return
    print(f"version {version_of(then)} → {version_of(now)}: " + (f"{len(changes)} keys differ" if changes else "no difference"))
    _print_changes(changes)


@app.command()
def history(context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Every block that was offered: when, by whom, what changed."""
    p = _parameters(config, context)
    entries = p.trail.entries()
    if as_json:
        print(json.dumps({"running": p.running(), "entries": entries}))
        return
    for e in entries:
        mark = "←" if e["version"] == p.running() and e is next(x for x in reversed(entries) if x["version"] == e["version"]) else ""
        print(f"{e['when']}  {e['version']}  {e['what']:8}  {e['who']}  {mark}")
        _print_changes(e["changed"])
    if not entries:
        print(f"nothing was changed yet: {p.trail.path} does not exist")
