"""The operator's commands that speak to the venue themselves: doctor, livetest, cancel-all, flatten, reconcile.

Owns: what they print and their exit codes (0 all is well, 1 it is not, 2 bad input or the venue cannot be reached). None of them needs a
running group, and none trusts one. Can go wrong: see `mmbot.ops.doctor`, `livetest`, `flatten`, `compare`.
"""

import asyncio
import json
import sys
from typing import Annotated

import typer

from mmbot.cli.options import ConfigOption, JsonOption, running_settings
from mmbot.errors import UserError


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _settings(config: str | None, context: typer.Context):
    """Settings of the running group or the config, with an account that can read and cancel."""
    from mmbot.ops.account import able_to_ask

    return able_to_ask(running_settings(config, context))


def doctor(context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check machine, memory, ports, venue, account and streams; say what to do about what is wrong."""
    from mmbot.cli.render import console
    from mmbot.cli.render import findings as table
    from mmbot.ops.account import able_to_ask
    from mmbot.ops.doctor import examine
    from mmbot.ops.finding import Finding

    cfg, found = running_settings(config, context), []
    try:
        cfg = able_to_ask(cfg)
    except UserError as e:          # a broken key is a finding, and no reason not to look at the rest
        found.append(Finding("fail", "key", str(e), "mend that, then run `mmbot doctor` again"))
    found += examine(cfg)
    if as_json:
        print(json.dumps({"findings": [vars(f) for f in found]}))
    else:
        console().print(table(found))
    if any(f.level == "fail" for f in found):
        raise typer.Exit(1)


def _print_cancelled(done, url: str) -> None:
    for o in done.before:
        fate = "STILL LIVE: " + done.reasons.get(o.id, "no reason given") if o.id in done.left else "gone"
        print(f"{o.id}  {o.side} {o.original_size} @ {o.price} {o.outcome}  {fate}")
    print(f"{len(done.before)} orders rested, {len(done.cancelled)} cancelled, {len(done.left)} left; read back from {url}")
    if done.trouble:
        _say(f"not done: {done.trouble}; run it again")
    if done.new:
        _say(f"{len(done.new)} new orders appeared meanwhile: the bot is quoting; `mmbot down` stops it")


def cancel_all(context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Cancel every order of the account at the venue and verify it, whatever state the bot is in."""
    cfg = _settings(config, context)
    from mmbot.ops.flatten import cancel_everything

    done = cancel_everything(cfg)
    if as_json:
        print(json.dumps({"before": [o.id for o in done.before], "cancelled": done.cancelled, "left": done.left, "new": done.new,
                          "trouble": done.trouble}))
    else:
        _print_cancelled(done, cfg.venue.clob_url)
    if done.left or done.trouble:
        raise typer.Exit(1)


def flatten(context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Cancel every order, verify it, and say what shares remain. Nothing is bought or sold: remaining shares settle with their window."""
    cfg = _settings(config, context)
    from mmbot.ops.flatten import cancel_everything, holdings

    done = cancel_everything(cfg)
    held = holdings(cfg)
    if as_json:
        print(json.dumps({"before": [o.id for o in done.before], "cancelled": done.cancelled, "left": done.left, "new": done.new,
                          "trouble": done.trouble, "held": [{k: v for k, v in vars(h).items() if k != "trades"} for h in held]}))
    else:
        _print_cancelled(done, cfg.venue.clob_url)
        for h in held:
            pending = f", {h.pending_u6 / 1e6:g} of it not final" if h.pending_u6 else ""
            failed = f", {h.failed_u6 / 1e6:g} failed and were taken back" if h.failed_u6 else ""
            print(f"held: {h.shares_u6 / 1e6:g} {h.outcome} of {h.condition_id} for {h.cost_u6 / 1e6:,.2f} dollars{pending}{failed}; "
                  f"{max(h.sellable_u6, 0) / 1e6:g} can be sold")
        if not held:
            print("held: nothing")
    if done.left or done.trouble:
        raise typer.Exit(1)


def livetest(context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False,
             beside: Annotated[bool, typer.Option("--beside", help="Run although the group is up (its executor will report an order that is not its own).")] = False) -> None:
    """Place one order far from the market, see it on the user channel, read it, cancel it, see that it is gone."""
    from mmbot.ops.account import unlocked
    from mmbot.ops.group import is_up
    from mmbot.ops.livetest import LiveTest

    cfg = running_settings(config, context)
    if is_up(cfg) and not beside:
        raise UserError(f"{cfg.run.name} is running: its guardian owns the venue's heartbeat and its executor every order of the account; "
                        "stop it with `mmbot down`, or say --beside")

    def say(step) -> None:
        if not as_json:
            print(f"{'ok  ' if step.ok else 'FAIL'}  {step.name:<36} {step.ms:9.1f} ms  {step.detail}", flush=True)

    test = LiveTest(unlocked(cfg), say)
    passed = asyncio.run(test.run())
    if as_json:
        print(json.dumps({"passed": passed, "clean": test.clean, "steps": [vars(s) for s in test.steps]}))
    elif passed:
        print(f"the whole path of an order works: {sum(s.ms for s in test.steps) / 1e3:.2f} s")
    if not passed:
        raise typer.Exit(1)


def reconcile(context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Compare our books (orders, journal, positions, cash) with the venue's and print every difference."""
    cfg = _settings(config, context)
    from mmbot.ops.compare import reconcile as compare

    found, had_memory = compare(cfg)
    if as_json:
        print(json.dumps({"differences": [vars(d) for d in found], "memory": had_memory}))
    else:
        if not had_memory:
            _say(f"{cfg.run.name} has left no memory to compare with: only the order journal was compared")
        for d in found:
            print(f"{d.what}: ours {d.ours}, the venue's {d.theirs}")
        if not found:
            print("our books and the venue's agree")
    if found:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add these commands to the `mmbot` command."""
    app.command("doctor")(doctor)
    app.command("livetest")(livetest)
    app.command("cancel-all")(cancel_all)
    app.command("flatten")(flatten)
    app.command("reconcile")(reconcile)
