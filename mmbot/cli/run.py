"""`mmbot run`: the group in the foreground. Up, a live screen (or a line every few seconds), down, a summary.

Owns: the foreground loop and its signals. Reads: pictures of the group. Can go wrong: the group does not come up (UserError); Ctrl-C, SIGTERM or a
closed terminal at any moment means an orderly stop; if this process is killed outright, supervisord is told by the kernel and stops the group.
"""

import json
import os
import signal
import sys
import time
from contextlib import contextmanager

from rich.console import Console
from rich.console import Group as Stack
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from mmbot import config, topology
from mmbot.cli import render
from mmbot.cli.screen import Screen
from mmbot.clock import mono_ns
from mmbot.ops.group import Group
from mmbot.ops.tally import Tally
from mmbot.ops.view import View

LOOK_S = 0.5
LINE_EVERY_S = 5.0
FOREVER_S = 1e9
NICE = 5


@contextmanager
def stops_by_signal():
    """Ctrl-C, SIGTERM and SIGHUP all become KeyboardInterrupt once; further ones are ignored while the group stops."""
    def stop(_number, _frame) -> None:
        for s in signals:
            signal.signal(s, signal.SIG_IGN)
        raise KeyboardInterrupt

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {s: signal.signal(s, stop) for s in signals}
    try:
        yield
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


def run(cfg: config.Settings, seconds: float | None, as_json: bool) -> None:
    """Run the group for ``seconds`` after it is up (None: until a signal) and report."""
    console = render.console(quiet=as_json)
    tally = Tally()

    def say(line: str) -> None:
        console.print(Text(line, style="dim"))

    with stops_by_signal():
        begin = mono_ns()
        group = Group(cfg, say)
        try:
            view = group.up(die_with_parent=True)
        except KeyboardInterrupt:
            say("interrupted during the start; everything is stopped")
            return
        try:
            _watch(cfg, view, tally, console, begin, seconds)
        except KeyboardInterrupt:
            say("stopping")
        finally:
            took_s = (mono_ns() - begin) / 1e9
            for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(s, signal.SIG_IGN)
            group.down()
    tally.finish(view.picture())
    if as_json:
        print(json.dumps(tally.document()))
    else:
        console.print(summary(cfg, tally, took_s, console.width >= 110))


def _watch(cfg: config.Settings, view: View, tally: Tally, console: Console, begin: int, seconds: float | None,
           since: str = "up") -> None:
    until = f"for {render.clock_text(seconds)}" if seconds else "Ctrl-C stops"
    screen = Screen(title(cfg), until, since)
    live = Live(console=console, screen=True, auto_refresh=False) if console.is_terminal and not console.quiet else None
    next_line_s, end = 0.0, mono_ns() + (seconds or FOREVER_S) * 1e9
    _stay_out_of_the_way(cfg)
    if live:
        live.start()
    try:
        while (left_s := (end - mono_ns()) / 1e9) > 0:
            elapsed_s = (mono_ns() - begin) / 1e9
            picture = view.picture()
            tally.add(picture, elapsed_s)
            if live:
                live.update(screen.page(picture, elapsed_s, console.width), refresh=True)
            elif elapsed_s >= next_line_s:
                console.print(render.status_line(picture, elapsed_s), soft_wrap=True, highlight=False, markup=False)
                sys.stdout.flush()
                next_line_s = elapsed_s + LINE_EVERY_S
            time.sleep(min(LOOK_S, left_s))
    finally:
        if live:
            live.stop()


def _stay_out_of_the_way(cfg: config.Settings) -> None:
    """Drawing must never take the core's CPU. Only now: processes derive their places from the CPUs that they inherit."""
    os.setpriority(os.PRIO_PROCESS, 0, NICE)
    if cfg.cpu.pin:
        os.sched_setaffinity(0, topology.placement(topology.BY_NAME["discovery"]).cpus)


def title(cfg: config.Settings) -> str:
    """What is traded against: the tape and its speed, or the venue; and that it is a dry run."""
    where = cfg.venue.clob_url if cfg.profile == "live" else f"tape {cfg.sim.tape}" + (f" ×{cfg.sim.speed:g}" if cfg.sim.speed != 1 else "")
    return where + (", dry run" if cfg.execution.dry_run else "")


def summary(cfg: config.Settings, tally: Tally, took_s: float, wide: bool) -> Stack:
    """The last word of a run: what was traded, what is held, how fast it was."""
    d, p = tally.document(), tally.last
    facts = Table.grid(padding=(0, 3, 0, 0))
    for _ in range(4):
        facts.add_column()
    first = "none" if tally.first_order_s is None else f"after {tally.first_order_s:.1f} s"
    cells = [("orders", str(d["orders"])), ("cancels", str(d["cancels"])), ("fills", str(d["fills"])), ("rejects", str(d["rejects"])),
             ("PnL at mid", render.pnl_text(d["pnl"])), ("cash", render.money(p.account.cash)), ("volume", render.money(p.account.volume)),
             ("first resting order", first), ("still live", str(p.account.live_orders)), ("halts", str(len(d["halts"]))),
             ("late orders", str(p.account.late)), ("their fills", render.pnl_text(p.account.late_result)),
             ("restarts", str(sum(x.restarts for x in p.processes))), ("ran", render.clock_text(took_s)),
             *((name, render.pnl_text(value)) for name, value in render.split(p.account)),
             ("merged", render.money(p.settlement.merged)), ("redeemed", render.money(p.settlement.redeemed))]
    for i in range(0, len(cells), 4):
        facts.add_row(*(Text.assemble((f"{k} ", "dim"), v) for k, v in cells[i:i + 4]))
    windows = render.table("windows", ("window", "left"), ("quoted", "left"), ("Up shares", "right", render.UP_STYLE), ("avg", "right"),
                           ("Down shares", "right", render.DOWN_STYLE), ("avg", "right"), ("mark Up", "right"), ("result", "left"))
    for w in tally.windows.values():
        quoted = " + ".join(n for n, q in zip(("Up", "Down"), w.quoted, strict=True) if q) or "–"
        average = [render.price(c / s, 3) if s else render.NONE for c, s in zip(w.cost, w.shares, strict=True)]
        windows.add_row(w.slug, quoted, f"{w.shares[0]:,.2f}", average[0], f"{w.shares[1]:,.2f}", average[1], render.price(w.mark_up, 3),
                        {0: "Up won", 1: "Down won"}.get(w.outcome, "open"))
    halts = [Text(f"halt after {h['at_s']:.1f} s: {h['reason']}", style="yellow") for h in d["halts"]]
    return Stack(Panel(facts, title=f"mmbot {cfg.run.name}: {title(cfg)}", title_align="left", border_style="dim", expand=False),
                 windows, *halts, render.latency(p.hops, p.shapes, words=wide), render.links(p.links, wide=False))


def top(cfg: config.Settings, seconds: float | None) -> None:
    """Watch a group that runs already: the live screen, read-only; Ctrl-C leaves the group alone."""
    view, begin = View(cfg), mono_ns()
    try:
        _watch(cfg, view, Tally(), render.console(), begin, seconds, since="watched")
    except KeyboardInterrupt:
        return
