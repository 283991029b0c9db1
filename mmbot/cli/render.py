"""How figures look: rich tables and lines made from a `Picture`. Pure: values in, renderables out; no terminal, no memory, no clock.

Owns: colours, units and column order, the same in `mmbot status`, `lag`, `latency`, `top`, the live screen and the summary.
"""

from datetime import UTC, datetime

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmbot.ops.picture import AccountView, FillView, Hop, Link, MarketView, Picture, ProcessView, SettlementView
from mmbot.venues.round_trip import band
from shm_layout.records import BUY, SK_MERGE, SS_CONFIRMED, SS_FAILED, window_of

STATE_STYLE = {"RUN": "green", "BOOT": "yellow", "HALT": "dim", "HUNG": "bold yellow", "DEAD": "bold red", "BACKOFF": "bold red",
               "FATAL": "bold white on red"}
HOP_TEXT = {
    "recv_pub": "frame readable → in the ring", "pub_poll": "in the ring → seen by core", "poll_decide": "seen → quotes decided",
    "decide_wake": "decided → executor awake", "wake_send": "awake → last byte sent", "send_ack": "sent → venue's answer",
    "recv_send": "frame readable → last byte sent",
}
BARS = " ▁▂▃▄▅▆▇█"
UP_STYLE, DOWN_STYLE = "cyan", "magenta"
PIPE_WIDTH = 150
PROSE = ("gates", "last error")
NONE = Text("–", style="dim")


def ns_text(ns: float) -> str:
    """A duration with three digits and its unit: 870 ns, 12.3 µs, 1.24 ms, 2.10 s."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size * 0.9995:
            value = ns / size
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"
    return f"{ns:.0f} ns"


def clock_text(seconds: float | None) -> str:
    """A countdown: 3:21, 1:02:03; with a minus after the end."""
    if seconds is None:
        return "–"
    sign, s = ("-" if seconds < 0 else ""), int(abs(seconds))
    h, m = divmod(s // 60, 60)
    return f"{sign}{h}:{m:02}:{s % 60:02}" if h else f"{sign}{m}:{s % 60:02}"


def console(**options) -> Console:
    """A console for tables: the terminal's width, or wide enough for every column when the output goes to a file or a pipe."""
    made = Console(**options)
    return made if made.is_terminal else Console(width=PIPE_WIDTH, **options)


def money(dollars: float, signed: bool = False) -> str:
    """Dollars with cents."""
    return f"{dollars:+,.2f}" if signed else f"{dollars:,.2f}"


def pnl_text(dollars: float) -> Text:
    """A result, green or red."""
    return Text(money(dollars, True), style="green" if dollars > 0.004 else "red" if dollars < -0.004 else "")


def count_text(n: int) -> str:
    """A count in at most five characters: 123, 45.6k, 7.8M, 1.2G."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= size * (10 if unit == "k" else 1):
            return f"{n / size:.1f}{unit}"
    return str(n)


def sparkline(values: list[float] | tuple, from_zero: bool = True) -> str:
    """Values as a line of bars; the largest fills its cell, and anything above nothing shows."""
    low, high = (0 if from_zero else min(values, default=0)), max(values, default=0)
    if high <= low:
        return " " * len(values) if from_zero else BARS[1] * len(values)
    top = len(BARS) - 1
    cells = ((v - low) / (high - low) for v in values)
    return "".join(BARS[0] if from_zero and x <= 0 else BARS[max(1, round(x * top))] for x in cells)


def table(title: str | None, *columns: tuple, compact: bool = False) -> Table:
    """A table in the house look; ``compact`` is without lines and margins, for the panels of the screen.

    A column is (header, justify) or (header, justify, style). When the room is short, columns named in PROSE fold and all others stay whole.
    """
    t = Table(title=None if compact else title, title_justify="left", title_style="bold", box=None if compact else box.SIMPLE_HEAD,
              header_style="dim", pad_edge=False, border_style="dim", expand=compact, padding=(0, 1, 0, 0) if compact else (0, 1))
    for header, justify, *style in columns:
        t.add_column(header, justify=justify, style=style[0] if style else None, no_wrap=header not in PROSE)
    return t


def processes(rows: tuple[ProcessView, ...], errors: bool = True, compact: bool = False) -> Table:
    """The processes: state, identity, load, and the last thing each complained about."""
    t = table("processes", ("name", "left"), ("state", "left"), ("pid", "right", "dim"), ("cpu", "right"), ("beat", "right"),
              ("busy", "right"), ("rss", "right"), ("restarts", "right"), *([] if compact else [("stalls", "right"), ("worst", "right")]),
              *([("last error", "left", "dim")] if errors else []), compact=compact)
    for p in rows:
        beat = NONE if p.heartbeat_age_ms is None else Text(ns_text(p.heartbeat_age_ms * 1e6),
                                                            style="red" if p.heartbeat_age_ms > 1000 else "dim")
        t.add_row(p.name, Text(p.state, style=STATE_STYLE.get(p.state, "")), str(p.pid or "–"), str(p.cpu) if p.cpu >= 0 else "–", beat,
                  f"{p.busy_pct:.0f}%", f"{p.rss_mb:.0f}M", Text(str(p.restarts), style="yellow" if p.restarts else "dim"),
                  *([] if compact else [_alarm(p.stalls, 100), ns_text(p.worst_stall_ms * 1e6) if p.stalls else NONE]),
                  *([error_text(p)] if errors else []))
    return t


def warnings(p: Picture) -> list[Text]:
    """What a person should know beyond the first line: processes that stay down, the venue's mode, halts, differences, deafness,
    reversed fills, books not to be trusted.

    Nothing at all while all is well.
    """
    a, out = p.account, []
    for x in p.processes:
        if x.state in ("EXITED", "FATAL"):
            why = x.last_error.removeprefix("crash_loop: ") if x.last_error else f"see log/{x.name}.log, then `mmbot restart {x.name}`"
            out.append(("down", f"{x.name} is not started any more: {why}"))
    if a.venue_mode != "normal":
        left = "" if a.venue_mode_left_s is None else f" for {clock_text(a.venue_mode_left_s)}"
        out.append((f"venue {a.venue_mode}", f"the venue is in this mode{left}"))
    if own := [h for h in a.halts if h not in ("guard", "starting", "venue_mode", "dry_run")]:
        out.append(("halted", f"the executor wants no orders: {', '.join(own)}"))
    if a.difference_s is not None:
        out.append(("difference", f"our books and the venue's differ for {clock_text(a.difference_s)}: `mmbot reconcile` names it"))
    if a.unknown:
        out.append(("unknown", f"the fate of {a.unknown} orders is not known yet"))
    if a.late:
        out.append(("late", f"{a.late} of {a.orders} orders ({100 * a.late / max(a.orders, 1):.2g}%) reached the venue past their deadline; their fills came to "
                            f"{a.late_result:+.2f} dollars"))
    if a.deaf:
        out.append(("deaf", f"the user channel did not show {a.deaf} times what the venue had acknowledged"))
    if a.reversed:
        out.append(("reversed", f"{a.reversed} fills failed at settlement and were taken back"))
    if p.rtt_ms is not None and (slow := band(int(p.rtt_ms * 1e6))) in ("degraded", "critical"):
        out.append((f"latency {slow}", f"PINGs of the market channel take {p.rtt_ms:.0f} ms on average"))
    for m in p.markets:
        if m.frozen or m.suspect:
            out.append(("frozen" if m.frozen else "suspect", f"the book of {window_text(m)} " + ("stands still while the market moves" if m.frozen
                                                                                                    else "is not trusted until it is read anew")))
    return [Text.assemble((f" {name} ", "bold yellow"), (text, "yellow"), overflow="ellipsis", no_wrap=True) for name, text in out]


def error_text(p: ProcessView) -> str:
    """The newest complaint of a process, how long ago, and how often it was made."""
    if p.last_error is None or p.error_age_s is None:
        return p.last_error or ""
    return f"{clock_text(p.error_age_s)} ago" + (f" (×{p.error_count})" if p.error_count > 1 else "") + f"  {p.last_error}"


def latency(hops: tuple[Hop, ...], shapes: dict[str, tuple[int, ...]], words: bool = False, compact: bool = False) -> Table:
    """One row per hop; the last is the whole path. ``words`` spells out what each hop measures."""
    t = table("latency", ("hop", "left"), *([("from → to", "left", "dim")] if words else []), ("count", "right", "dim"),
              ("p50", "right", "bold"), *([] if compact else [("p90", "right")]), ("p99", "right"),
              *([] if compact else [("p99.9", "right")]), ("max", "right", "dim"), ("1µs ···· 16ms", "left", "cyan"), compact=compact)
    for h in hops:
        figures = (h.p50_ns, h.p99_ns, h.max_ns) if compact else (h.p50_ns, h.p90_ns, h.p99_ns, h.p999_ns, h.max_ns)
        t.add_row(h.hop, *([HOP_TEXT[h.hop]] if words else []), count_text(h.count), *(ns_text(v) if h.count else NONE for v in figures),
                  sparkline(shapes.get(h.hop, ())), style="bold" if h.hop == "recv_send" else None)
    return t


def links(rows: tuple[Link, ...], wide: bool = True, compact: bool = False) -> Table:
    """One row per ring and reader. ``wide`` adds the positions and splits the laps in two."""
    t = table("rings", ("ring → reader", "left"), *([("head", "right", "dim"), ("cursor", "right", "dim")] if wide else []), ("lag", "right", "bold"),
              ("max", "right"), ("oldest unread", "right"), *([("lapped polling", "right"), ("reading", "right")] if wide else [("lapped", "right")]),
              ("lost", "right"), compact=compact)
    for link in rows:
        lapped = [link.lapped_polling, link.lapped_reading] if wide else [link.lapped_polling + link.lapped_reading]
        age = ns_text(link.oldest_unread_age_ns) if link.lag else NONE
        t.add_row(f"{link.ring} → {link.reader}", *([str(link.head), str(link.cursor)] if wide else []), _alarm(link.lag, 64),
                  _alarm(link.lag_max, 1024), age, *(_alarm(n, 1) for n in lapped), _alarm(link.lost, 1))
    return t


def fills(rows: tuple[FillView, ...], now_ns: int) -> Table:
    """The newest own fills, newest first."""
    t = table(None, ("ago", "right", "dim"), ("window", "left"), ("", "left"), ("shares", "right"), ("price", "right"), ("dollars", "right"), compact=True)
    for f in reversed(rows):
        name, style = (("Up", UP_STYLE), ("Down", DOWN_STYLE))[f.token]
        t.add_row(clock_text((now_ns - f.t_ns) / 1e9), window_name(*window_of(f.market_id)), Text(f"{'bought' if f.side == BUY else 'sold'} {name}", style=style),
                  f"{f.size:,.2f}", price(f.px), money(f.px * f.size))
    return t


def _alarm(n: int, limit: int) -> Text:
    return Text(count_text(n), style="yellow" if n >= limit else "dim" if n == 0 else "")


def window_name(start_s: int, duration_s: int) -> str:
    """A window as a person names it: 15m 08:15–08:30."""
    begin, end = (datetime.fromtimestamp(t, UTC).strftime("%H:%M") for t in (start_s, start_s + duration_s))
    return f"{duration_s // 60}m {begin}–{end}"


def window_text(m: MarketView) -> str:
    """`window_name` of a market."""
    return window_name(*window_of(m.market_id))


def when_text(m: MarketView) -> str:
    """What the window waits for: it opens or closes in ..., or what became of it."""
    if m.tau_s is None or m.state in ("closed", "resolved"):
        return m.state if m.outcome < 0 else f"resolved {'Up' if m.outcome == 0 else 'Down'}"
    return f"closes in {clock_text(m.tau_s)}" if m.tau_s <= m.duration_s else f"opens in {clock_text(m.tau_s - m.duration_s)}"


def markets(rows: tuple[MarketView, ...], wide: bool = True) -> Table:
    """The windows in short, for `mmbot status`. ``wide`` adds the own bids and the gates."""
    t = table("windows", ("window", "left"), ("when", "left"), ("fair Up", "right", "bold"), ("Up bid", "right"), ("ask", "right"),
              *([("our bids Up", "left", UP_STYLE), ("our bids Down", "left", DOWN_STYLE)] if wide else []), ("live", "right"),
              ("shares Up / Down", "right"), *([("gates", "left", "dim")] if wide else []))
    for m in rows:
        own, gates = ([quotes_text(m, 0), quotes_text(m, 1)], [", ".join(m.gates)]) if wide else ([], [])
        t.add_row(window_text(m), when_text(m), price(m.q_up, 3), price(m.up_bid), price(m.up_ask), *own, str(m.live_orders),
                  f"{m.shares[0]:g} / {m.shares[1]:g}", *gates)
    return t


def price(px: float | None, digits: int = 2) -> Text | str:
    """A price per share; three digits when the tick is a tenth of a cent."""
    if px is None:
        return NONE
    return f"{px:.{max(digits, 3 if round(px * 1000) % 10 else 2)}f}"


def quotes_text(m: MarketView, token: int) -> str:
    """Own desired bids on one outcome, best first: 0.59×20 0.58×12."""
    own = sorted((q for q in m.quotes if q.token == token), key=lambda q: -q.px)
    return " ".join(f"{price(q.px)}×{q.size:g}" for q in own)


def account(a: AccountView) -> Table:
    """The account in one line of figures."""
    t = table("account", *((h, "right") for h in ("cash", "exposure", "PnL (mid)", "orders", "cancels", "fills", "rejects", "live", "volume")))
    t.add_row(money(a.cash), money(a.exposure), pnl_text(a.pnl), *(str(n) for n in (a.orders, a.cancels, a.fills)),
              Text(str(a.rejects), style="yellow" if a.rejects else ""), str(a.live_orders), money(a.volume))
    return t


def hedges(found) -> Table:
    """One block per unpaired position, the option of the best expectation first (`mmbot.inventory.hedge`)."""
    t = table("unpaired", ("window", "left"), ("held", "left"), ("option", "left", "bold"), ("cash now", "right"), ("worst", "right"), ("best", "right"),
              ("expected", "right"), ("fee", "right", "dim"), ("breakeven", "right"))
    for m, h in found:
        for i, o in enumerate(h.options):
            held = f"{h.unpaired_u6 / 1e6:,.2f} {('Up', 'Down')[h.token]} for {money(h.cost_u6 / 1e6)}"
            t.add_row(*(("", "") if i else (window_text(m), held)), o.name, pnl_text(o.cash_u6 / 1e6), pnl_text(o.worst_u6 / 1e6), pnl_text(o.best_u6 / 1e6),
                      pnl_text(o.expected_u6 / 1e6), money(o.fee_u6 / 1e6), f"{o.breakeven:.3f}")
    return t


def split(a: AccountView) -> list[tuple[str, float]]:
    """Where the result comes from, in words: the first four sum to it."""
    return [("spread", a.spread), ("adverse selection", a.adverse), ("inventory", a.inventory), ("fees", -a.fees), ("rebates, at most", a.rebate)]


def split_line(a: AccountView) -> Text:
    """The parts of the result in one line, and how many orders earn liquidity rewards where the venue is asked."""
    line = Text.assemble(*(part for name, value in split(a) for part in ((f"{name} ", "dim"), pnl_text(value), "  ")))
    return line.append(f"{a.scoring} of {a.live_orders} orders score") if a.scoring >= 0 else line


def settlement(v: SettlementView) -> Text | None:
    """What the settler has done, in one line; None when there is nothing to tell."""
    if v.quiet:
        return None
    line = Text.assemble(("settled  ", "bold"), ("merged ", "dim"), f"{money(v.merged)} ", (f"({v.merges})  ", "dim"), ("redeemed ", "dim"),
                         f"{money(v.redeemed)} ", (f"({v.redeems})", "dim"), overflow="ellipsis", no_wrap=True)
    for text, style in ((f"{v.under_way} under way" if v.under_way else "", "cyan"), ("merges are paused" if v.paused else "", "yellow"),
                        (f"{v.failed} failed, last {v.last_failure}" if v.last_failure else "", "yellow")):
        if text:
            line.append(f"  {text}", style=style)
    return line


def settlements(rows) -> Table:
    """Operations of the settler (`mmbot.settlement.journal.Op`)."""
    t = table("settled", ("no.", "right", "dim"), ("when", "left", "dim"), ("window", "left"), ("what", "left"), ("Up", "right", UP_STYLE),
              ("Down", "right", DOWN_STYLE), ("dollars", "right", "bold"), ("result", "right"), ("state", "left"))
    for o in rows:
        when = datetime.fromtimestamp(o.wall_ms / 1000, UTC).strftime("%m-%d %H:%M:%S")
        done = o.state == SS_CONFIRMED
        state = Text("done" if done else "failed" if o.state == SS_FAILED else "under way", style="green" if done else "yellow")
        t.add_row(str(o.number), when, window_name(*window_of(o.market_id)), "merge" if o.kind == SK_MERGE else "redeem", f"{o.up_u6 / 1e6:,.2f}",
                  f"{o.down_u6 / 1e6:,.2f}", money(o.payout_u6 / 1e6), pnl_text((o.payout_u6 - o.cost_u6) / 1e6) if done else NONE,
                  Text.assemble(state, (f" {o.reason}" if o.reason else "", "dim")))
    return t


def headline(p: Picture) -> Text:
    """The first line: which instance, whether it quotes or only makes quotes (a dry run), and if not why."""
    badge = (Text(" DRY RUN ", style="bold black on yellow") if p.dry_run else Text(" QUOTING ", style="bold black on green") if p.quoting
             else Text(" NOT QUOTING ", style="bold white on red"))
    line = Text.assemble(("mmbot ", "bold"), (f"{p.name}", "bold cyan"), ("  " if p.name == p.profile else f" ({p.profile})  "), badge)
    if p.halt_reason:
        line.append(f"  {p.halt_reason.removeprefix('dry run: ')}", style="yellow")
    return line


def status_line(p: Picture, elapsed_s: float) -> str:
    """The line that `mmbot run` prints every few seconds when nobody watches a screen."""
    a = p.account
    whole = next((h for h in p.hops if h.hop == "recv_send" and h.count), None)
    running = sum(x.state == "RUN" for x in p.processes)
    windows = " | ".join(f"{window_text(m)} {when_text(m)} fair {price(m.q_up, 3)} book {price(m.up_bid)}/{price(m.up_ask)} "
                         f"bids {len([q for q in m.quotes if q.token == 0])}+{len([q for q in m.quotes if q.token == 1])}"
                         for m in p.markets if m.state in ("open", "announced"))
    tail = f"recv_send p50 {ns_text(whole.p50_ns)} p99 {ns_text(whole.p99_ns)}" if whole else "recv_send –"
    word = "quoting" if p.quoting else f"{'DRY RUN' if p.dry_run else 'NOT QUOTING'} ({(p.halt_reason or '?').removeprefix('dry run: ')})"
    return (f"{clock_text(elapsed_s):>6}  {word}  "
            f"{running}/{len(p.processes)} up  orders {a.orders} cancels {a.cancels} fills {a.fills} rejects {a.rejects} live {a.live_orders}  "
            f"pnl {money(a.pnl, True)}  {tail}  {windows}")


def segments(rows) -> Table:
    """The segments of an instance (`mmbot.ops.memory.Row`)."""
    t = table("segments", ("segment", "left"), ("kind", "left", "dim"), ("record", "left", "dim"), ("count", "right"), ("size", "right"),
              ("epoch", "right"), ("writer", "left"), ("", "left"))
    for row in rows:
        t.add_row(row.name, row.kind, row.record, str(row.count or ""), f"{row.size / 1024:,.0f}K", str(row.epoch),
                  f"pid {row.holder}" if row.holder else NONE, Text(row.problem, style="bold red") if row.problem else Text("ok", style="green"))
    return t


def findings(rows) -> Table:
    """What the doctor found (`mmbot.ops.doctor.Finding`), with the fix under what needs one."""
    t = Table.grid(padding=(0, 2, 0, 0))
    t.add_column()
    t.add_column(style="bold", no_wrap=True)
    t.add_column()
    marks = {"ok": Text("ok", style="green"), "warn": Text("warn", style="yellow"), "fail": Text("FAIL", style="bold red")}
    for f in rows:
        t.add_row(marks[f.level], f.what, Text.assemble(f.detail, (f"\n→ {f.fix}", "yellow") if f.fix else ""))
    return t
