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

HISTORY = 48                # points of the PnL line
HISTORY_EVERY_S = 2.5
GAUGE_CELLS = 20
WIDE = 118                  # columns from which panels stand side by side


class Screen:
    """Turns pictures into pages; one per terminal."""

    def __init__(self, title: str, until: str):
        self.title, self.until = title, until
        self._pnl: deque[float] = deque(maxlen=HISTORY)
        self._next_point_s = 0.0

    def page(self, p: Picture, elapsed_s: float, width: int, height: int) -> RenderableType:
        """The page for a terminal of ``width`` by ``height`` cells, ``elapsed_s`` after the start."""
        if elapsed_s >= self._next_point_s:
            self._pnl.append(p.account.pnl)
            self._next_point_s = elapsed_s + HISTORY_EVERY_S
        shown = [m for m in p.markets if m.state in ("open", "announced")] or list(p.markets[-1:])
        windows = beside([window_panel(m, p) for m in shown[:2]], width >= WIDE)
        lower = beside([render.processes(p.processes, errors=False),
                        Group(render.latency(p.hops, p.shapes), render.links(p.links, wide=False))], width >= WIDE)
        return Group(self._head(p, elapsed_s, width), windows, self._account(p, width), lower, *self._trouble(p))

    def _head(self, p: Picture, elapsed_s: float, width: int) -> Table:
        line = Table.grid(expand=True)
        line.add_column()
        line.add_column(justify="right")
        when = "" if p.wall_s is None else datetime.fromtimestamp(p.wall_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC  ")
        right = Text.assemble((f"{self.title}  ", "dim"), (when, ""), ("up ", "dim"), render.clock_text(elapsed_s), (f"  {self.until}", "dim"))
        line.add_row(render.headline(p), right)
        return line

    def _account(self, p: Picture, width: int) -> Panel:
        a = p.account
        pairs = [("cash", render.money(a.cash)), ("at risk", render.money(a.exposure)), ("orders", str(a.orders)), ("cancels", str(a.cancels)),
                 ("fills", str(a.fills)), ("rejects", str(a.rejects)), ("live", str(a.live_orders))]
        text = Text.assemble(("PnL ", "dim"), render.pnl_text(a.pnl), (" at mid  ", "dim"))
        text.append(render.sparkline(tuple(self._pnl), from_zero=False), style="green" if a.pnl >= 0 else "red")
        facts = Text("   ").join(Text.assemble((f"{k} ", "dim"), (v, "bold" if k == "fills" else "")) for k, v in pairs)
        grid = Table.grid(expand=True)
        if width >= WIDE:
            grid.add_column()
            grid.add_column(justify="right")
            grid.add_row(facts, text)
        else:
            grid.add_row(facts)
            grid.add_row(text)
        return Panel(grid, title="account", title_align="left", border_style="dim", padding=(0, 1))

    def _trouble(self, p: Picture) -> list[Text]:
        """The newest complaint of each process that is not well, and of any that has one."""
        lines = []
        for x in p.processes:
            if x.state != "RUN" or x.last_error:
                lines.append(Text.assemble((f" {x.name} ", "bold"), (f"{x.state} ", render.STATE_STYLE.get(x.state, "")), (x.last_error or "", "yellow"),
                                           overflow="ellipsis", no_wrap=True))
        return lines[:4]


def beside(parts: list[RenderableType], wide: bool) -> RenderableType:
    """Parts next to each other when there is room, else below each other."""
    if not wide or len(parts) < 2:
        return Group(*parts)
    grid = Table.grid(expand=True, padding=(0, 1, 0, 0))
    for _ in parts:
        grid.add_column(ratio=1)
    grid.add_row(*parts)
    return grid


def gauge(q_up: float | None) -> Text:
    """The probability of Up as a bar of two colours."""
    if q_up is None:
        return Text("·" * GAUGE_CELLS, style="dim")
    up = round(q_up * GAUGE_CELLS)
    return Text.assemble(("█" * up, render.UP_STYLE), ("█" * (GAUGE_CELLS - up), render.DOWN_STYLE))


def window_panel(m: MarketView, p: Picture) -> Panel:
    """One window: the race between price and strike, the two outcomes with book, own bids and shares."""
    facts = Text.assemble(("fair Up ", "dim"), (str(render.price(m.q_up, 3)), "bold"), " ", gauge(m.q_up))
    if m.strike is not None and p.twap is not None:
        gap = p.twap - m.strike
        facts.append_text(Text.assemble(("   strike ", "dim"), f"{m.strike:,.1f}", ("  TWAP ", "dim"),
                                        (f"{gap:+,.1f}", render.UP_STYLE if gap >= 0 else render.DOWN_STYLE)))
    elif p.spot is not None:
        facts.append_text(Text.assemble(("   BTC ", "dim"), f"{p.spot:,.1f}"))
    rows = render.table(None, ("", "left"), ("bid", "right"), ("ask", "right"), ("our bids", "left"), ("shares", "right"), ("avg", "right"),
                        ("value", "right"), expand=True)
    for token, name, style in ((r.UP, "Up", render.UP_STYLE), (r.DOWN, "Down", render.DOWN_STYLE)):
        rows.add_row(Text(name, style=f"bold {style}"), *outcome_cells(m, token), style=None)
    note = Text.assemble(("live orders ", "dim"), str(m.live_orders))
    if m.target_total is not None and m.quotes:
        note.append_text(Text.assemble(("   pair at most ", "dim"), f"{m.target_total:.3f}"))
    if m.gates:
        note.append_text(Text.assemble(("   gates ", "dim"), (" ".join(m.gates), "yellow")))
    closing = m.tau_s is not None and m.tau_s <= 60
    return Panel(Group(facts, rows, note), title=Text.assemble((render.window_text(m), "bold"), "  ", render.when_text(m)), title_align="left",
                 border_style="yellow" if closing else "green" if m.quotes else "dim", padding=(0, 1))


def outcome_cells(m: MarketView, token: int) -> list[Text | str]:
    """Bid, ask, own bids, shares, average cost and value of one outcome (the Down book is the Up book seen from the other side)."""
    bid, ask = (m.up_bid, m.up_ask) if token == r.UP else (_other(m.up_ask), _other(m.up_bid))
    shares, cost, up = m.shares[token], m.cost[token], mark_up(m)
    own = render.quotes_text(m, token)
    value = None if up is None else shares * (up if token == r.UP else 1 - up)
    return [render.price(bid), render.price(ask), Text(own, style="bold") if own else render.NONE, f"{shares:,.1f}" if shares else render.NONE,
            render.price(cost / shares, 3) if shares else render.NONE, render.money(value) if shares and value is not None else render.NONE]


def _other(px: float | None) -> float | None:
    return None if px is None else 1 - px
