"""`mmbot sim fault` and `mmbot sim faults`: make the running exchange misbehave, and see what it can do.

Owns: two commands under `mmbot sim`, what they send to the exchange of paper mode, and the table of the catalogue. Names and parameters are
checked here as well, so that a slip is answered without an exchange. Can go wrong: a wrong name or parameter (UserError with the nearest
valid one), no exchange to talk to, a live profile.
"""

import json
import urllib.error
import urllib.request
from typing import Annotated

import typer

from mmbot.cli.options import ConfigOption, JsonOption, running_settings
from mmbot.errors import UserError

TIMEOUT_S = 3.0

NameArgument = Annotated[str | None, typer.Argument(metavar="NAME", show_default=False, help="A fault, as `mmbot sim faults` names it.")]
ForOption = Annotated[float | None, typer.Option("--for", metavar="S", show_default=False, help="End by itself after so many seconds.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="K=V", show_default=False, help="A parameter; may be repeated.")]
StopOption = Annotated[str | None, typer.Option("--stop", metavar="NAME|all", show_default=False, help="Stop this fault, or all.")]


def register(group: typer.Typer) -> None:
    """Add the commands to `mmbot sim`."""
    group.command("fault")(fault)
    group.command("faults")(faults)


def fault(context: typer.Context, name: NameArgument = None, for_s: ForOption = None, given: SetOption = None, stop: StopOption = None,
          config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Start or stop a fault in the exchange that runs."""
    from mmbot.sim.faults.running import spec_of, value_of

    if (name is None) == (stop is None):
        raise UserError("say which fault: `mmbot sim fault NAME` starts one, `mmbot sim fault --stop NAME|all` stops it")
    if stop is not None:
        if stop != "all":
            spec_of(stop)
        answer = call(_url(config, context), "DELETE", "/sim/fault", {"all": True} if stop == "all" else {"name": stop})
        text = f"{len(answer['stopped'])} stopped" if answer["stopped"] else f"{'no fault' if stop == 'all' else stop} was running"
    else:
        spec = spec_of(name)
        params = {key: value_of(spec, key, value) for key, value in map(pair, given or [])}
        answer = call(_url(config, context), "POST", "/sim/fault", {"name": name, "for_s": for_s, "params": params})
        text = f"{name} is on" + (f" for {answer['for_s']:g} s" if answer["for_s"] else f" until `mmbot sim fault --stop {name}`") + f": {spec.what}"
    print(json.dumps(answer) if as_json else text)


def faults(context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List every fault with its parameters, and say which of them are on."""
    from mmbot.sim.faults.catalogue import CATALOGUE

    try:
        about = call(_url(config, context), "GET", "/sim/faults")
    except UserError:                       # the list is worth showing without an exchange
        about = None
    if as_json:
        import msgspec

        print(json.dumps(about or {"catalogue": [msgspec.to_builtins(spec) for spec in CATALOGUE.values()], "running": None, "log": None}))
        return
    from mmbot.cli.render import console

    console().print(table(CATALOGUE, about))


def pair(text: str) -> tuple[str, str]:
    """(key, value) of ``k=v``. Errors: UserError."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UserError(f"--set {text}: write it as parameter=value")
    return key.strip(), value.strip()


def _url(config: str | None, context: typer.Context) -> str:
    cfg = running_settings(config, context)
    if cfg.profile != "paper":
        raise UserError("faults belong to the exchange of the paper profile: the venue has enough of its own")
    return cfg.venue.clob_url


def call(url: str, method: str, path: str, body: dict | None = None) -> dict:
    """The exchange's answer. Errors: UserError with its own words, or when nothing answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json", "User-Agent": "mmbot"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as e:
        raise UserError(_reason(e) or f"what answers at {url} is not the exchange of this build (HTTP {e.code}): restart it") from None
    except (urllib.error.URLError, OSError, ValueError) as e:
        raise UserError(f"no exchange answers at {url} ({getattr(e, 'reason', e)}): start it with `mmbot sim`, `mmbot up` or `mmbot run`") from None


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"]) if error.code == 400 else ""
    except (ValueError, KeyError, TypeError):
        return ""


def table(catalogue: dict, about: dict | None):
    """The catalogue as a table; what is on is marked with its time left."""
    from rich.table import Table

    on: dict[str, str] = {}
    for row in about["running"] if about else []:
        left = "" if row["until_ms"] is None else f" {max(0.0, (row['until_ms'] - about['now_ms']) / 1000):.0f} s left"
        on[row["name"]] = f"on{left}, hit {row['hits']}x"
    title = "faults of the exchange" if about else "faults of the exchange (none answers)"
    rows = Table("fault", "what it does", "what a client sees", "parameters", title=title, title_justify="left", pad_edge=False)
    for name, spec in catalogue.items():
        params = ", ".join(f"{k}={json.dumps(v) if not isinstance(v, str) else v}" for k, v in spec.params.items())
        params += f"{', ' if params else ''}for {spec.for_s:g} s" if spec.for_s else ""
        rows.add_row(f"[bold red]{name}[/]\n[red]{on[name]}[/]" if name in on else f"[bold]{name}[/]", spec.what, spec.sees, params)
    return rows
