"""The live screen: one page that shows the whole bot, drawn twice a second.

Owns: the arrangement, and the short history that the PnL line is drawn from. Reads a `Picture`; touches nothing else. What does not fit
the terminal is left out from the bottom up: windows and account first, then processes and latency, then rings.
"""

from collections import deque
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from mmbot.cli import render
from mmbot.ops.picture import MarketView, Picture, mark_up
from shm_layout import records as r

HISTORY = 60                # points of the PnL line
FILLS = 3
HISTORY_EVERY_S = 2.5
TROUBLE_S, TROUBLE_LINES = 15.0, 5
GAUGE_CELLS = 16
WIDE = 120                  # columns from which panels stand side by side


class Screen:
    """Turns pictures into pages; one per terminal."""

    def __init__(self, title: str, until: str, since: str = "up"):
        self.title, self.until, self.since = title, until, since
        self._pnl: deque[float] = deque(maxlen=HISTORY)
        self._next_point_s = 0.0

    def page(self, p: Picture, elapsed_s: float, width: int) -> RenderableType:
        """The page for a terminal ``width`` cells wide, ``elapsed_s`` after the start."""
        if elapsed_s >= self._next_point_s:
            self._pnl.append(p.account.pnl)
            self._next_point_s = elapsed_s + HISTORY_EVERY_S
        wide = width >= WIDE
        shown = [m for m in p.markets if m.state in ("open", "announced")] or list(p.markets[-1:])
        windows = [window_panel(m, p) for m in shown[:2]] or [boxed("windows", Text("waiting for discovery", style="dim"))]
        processes = boxed("processes", render.processes(p.processes, errors=False, compact=True))
        latency = boxed("latency", render.latency(p.hops, p.shapes, compact=True))
        fills = boxed("last fills", render.fills(p.fills[-FILLS:], p.now_ns), height=FILLS + 3)
        left = len(p.processes) + 3 + FILLS + 3         # lines of the left column; the right one ends with it
        rings = boxed("rings", render.links(p.links, wide=False, compact=True), height=max(left - len(p.hops) - 3, 7) if wide else None)
        lower = beside([Group(processes, fills), Group(latency, rings)], True) if wide else Group(latency, processes, rings)
        return Group(self._head(p, elapsed_s), beside(windows, wide), self._account(p, width), lower, *self._trouble(p))

    def _head(self, p: Picture, elapsed_s: float) -> Table:
        line = Table.grid(expand=True)
        line.add_column()
        line.add_column(justify="right")
        when = "" if p.wall_s is None else datetime.fromtimestamp(p.wall_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC  ")
        right = Text.assemble((f"{self.title}  ", "dim"), (when, ""), (f"{self.since} ", "dim"), render.clock_text(elapsed_s), (f"  {self.until}", "dim"))
        line.add_row(render.headline(p), right)
        return line

    def _account(self, p: Picture, width: int) -> Panel:
        a = p.account
        pairs = [("cash", render.money(a.cash)), ("at risk", render.money(a.exposure)), ("live", str(a.live_orders)), ("orders", str(a.orders)),
                 ("cancels", str(a.cancels)), ("rejects", str(a.rejects)), ("fills", str(a.fills))]
        facts = Text("  ").join(Text.assemble((f"{k} ", "dim"), (v, "bold" if k in ("cash", "fills") else "")) for k, v in pairs)
        result = Text.assemble(("PnL at mid ", "dim"), render.pnl_text(a.pnl), " ")
        room = width - facts.cell_len - result.cell_len - 6 if width >= WIDE else width - result.cell_len - 6
        result.append(render.sparkline(tuple(self._pnl)[-max(room, 1):], from_zero=False), style="green" if a.pnl >= 0 else "red")
        top = beside([facts, result], True, "right") if width >= WIDE else Group(facts, result)
        settled = render.settlement(p.settlement)
        return boxed("account", Group(top, settled) if settled is not None else top)

    def _trouble(self, p: Picture) -> list[Text]:
        """Processes that are not well, and complaints that are not old."""
        lines = render.warnings(p)
        for x in p.processes:
            fresh = x.last_error is not None and (x.error_age_s is None or x.error_age_s < TROUBLE_S)
            if x.state != "RUN" or fresh:
                lines.append(Text.assemble((f" {x.name} ", "bold"), (f"{x.state} ", render.STATE_STYLE.get(x.state, "")),
                                           (render.error_text(x) if fresh else "", "yellow"), overflow="ellipsis", no_wrap=True))
        return lines[:TROUBLE_LINES]


def boxed(title: str | Text, inside: RenderableType, style: str = "bright_black", height: int | None = None) -> Panel:
    """A panel in the house look."""
    return Panel(inside, title=title, title_align="left", border_style=style, padding=(0, 1), height=height)


def beside(parts: list[RenderableType], wide: bool, last: str = "left") -> RenderableType:
    """Parts next to each other when there is room, else below each other; ``last`` aligns the last one."""
    if not wide or len(parts) < 2:
        return Group(*parts)
    grid = Table.grid(expand=True)
    for part in parts:
        grid.add_column(ratio=None if last == "right" else 1, justify="left" if part is not parts[-1] else last)
    grid.add_row(*parts)
    return grid


def gauge(q_up: float | None) -> Text:
    """The probability of Up as a bar of two colours."""
    if q_up is None:
        return Text("·" * GAUGE_CELLS, style="dim")
    up = round(q_up * GAUGE_CELLS)
    return Text.assemble(("█" * up, render.UP_STYLE), ("█" * (GAUGE_CELLS - up), render.DOWN_STYLE))


def window_panel(m: MarketView, p: Picture) -> Panel:
    """One window: the race between price and strike, then the two outcomes with book, own bids and shares."""
    fair = Text.assemble(("fair Up ", "dim"), (str(render.price(m.q_up, 3)), "bold"), " ", gauge(m.q_up))
    race = Text()
    if m.strike is not None and p.twap is not None:
        gap = p.twap - m.strike
        race = Text.assemble(("strike ", "dim"), f"{m.strike:,.1f} ", (f"{gap:+,.1f}", render.UP_STYLE if gap >= 0 else render.DOWN_STYLE))
    elif p.spot is not None:
        race = Text.assemble(("BTC ", "dim"), f"{p.spot:,.1f}")
    rows = render.table(None, ("", "left"), ("bid", "right"), ("ask", "right"), (" our bids", "left"), ("shares", "right"), ("avg", "right"),
                        ("value", "right"), compact=True)
    for token, name, style in ((r.UP, "Up", render.UP_STYLE), (r.DOWN, "Down", render.DOWN_STYLE)):
        rows.add_row(Text(name, style=f"bold {style}"), *outcome_cells(m, token))
    note = Text.assemble(("live orders ", "dim"), str(m.live_orders), no_wrap=True, overflow="ellipsis")
    if m.target_total is not None and m.quotes:
        note.append_text(Text.assemble(("  pair at most ", "dim"), f"{m.target_total:.3f}"))
    if m.gates:
        note.append_text(Text.assemble(("  gates ", "dim"), (" ".join(m.gates), "yellow")))
    closing = m.tau_s is not None and m.tau_s <= 60
    title = Text.assemble((render.window_text(m), "bold"), ("  " + render.when_text(m), "yellow" if closing else ""))
    return boxed(title, Group(beside([fair, race], True, "right"), rows, note), "yellow" if closing else "green" if m.quotes else "bright_black")


def outcome_cells(m: MarketView, token: int) -> list[Text | str]:
    """Bid, ask, own bids, shares, average cost and value of one outcome (the Down book is the Up book seen from the other side)."""
    bid, ask = (m.up_bid, m.up_ask) if token == r.UP else (_other(m.up_ask), _other(m.up_bid))
    shares, cost, up = m.shares[token], m.cost[token], mark_up(m)
    own = render.quotes_text(m, token)
    value = None if up is None else shares * (up if token == r.UP else 1 - up)
    return [render.price(bid), render.price(ask), Text(" " + own, style="bold") if own else render.NONE, f"{shares:,.1f}" if shares else render.NONE,
            render.price(cost / shares, 3) if shares else render.NONE, render.money(value) if shares and value is not None else render.NONE]


def _other(px: float | None) -> float | None:
    return None if px is None else 1 - px
