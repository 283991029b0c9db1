"""The group seen through read-only maps of its memory: works while any process is stopped, hung or dead.

Owns: attachments (remade when the segments were wiped), the inference of states, the derivation of the group's wall clock.
Writes: nothing. Reads: every segment, /proc of the processes, the supervisor (for BACKOFF and FATAL only, bounded in time).
Can go wrong: a segment is missing (that part of the picture is empty) or belongs to another build (SegmentError).
"""

from collections import deque
from dataclasses import replace

import numpy as np
import psutil

from mmbot import config, topology
from mmbot.clock import WallClock, mono_ns
from mmbot.ops.instance import Instance
from mmbot.ops.picture import (ACCOUNT_STATES, E4, MARKET_STATES, U6, AccountView, FillView, Hop, Link, MarketView, Picture, ProcessView, QuoteView, SettlementView,
                               marked_pnl, slug, why_not_quoting)
from mmbot.ops.supervisord import Supervisor, SupervisorError
from mmbot.settlement.journal import PAUSE_FILE
from shm_layout import records as r
from shm_layout import vitals as vt
from shm_layout.ring import RingReader, backlog, head
from shm_layout.segment import Segment, Space
from shm_layout.seqlock import SeqlockReader

HUNG_NS = 1_000_000_000
BOOT_NS = 15_000_000_000        # a process in BOOT loads compiled code and may not beat for seconds
QUANTILES = (0.5, 0.9, 0.99, 0.999)
#: edges of the latency sparkline, ns: 1 us to 16 ms by doubling, with all beyond in the last cell
SHAPE_EDGES = tuple(1000 << i for i in range(14))
_SHAPE_CELL = np.searchsorted(SHAPE_EDGES, [vt.bucket_bounds(b)[0] for b in range(vt.BUCKETS)], side="right")
FILLS_KEPT = 8
SETTLEMENT_WORDS = {r.SK_MERGE: "merge of", r.SK_REDEEM: "redemption of"}


class View:
    """Looks at one instance. Cheap to make; attaches lazily."""

    def __init__(self, cfg: config.Settings):
        self.cfg = cfg
        self.rows = topology.processes(cfg.profile, cfg)
        self._instance = Instance(cfg)
        self._supervisor = Supervisor(self._instance.socket_path, timeout_s=0.5)
        self._space = Space(cfg.run.name)
        self._segments: dict[str, Segment] = {}
        self._readers: dict[str, SeqlockReader | vt.VitalsReader | RingReader] = {}
        self._fills: deque[FillView] = deque(maxlen=FILLS_KEPT)
        self._settlement: tuple[SettlementView, dict[int, str]] = SettlementView(), {}

    # ---- attaching

    def segment(self, name: str) -> Segment | None:
        """The segment, attached read-only; None when it does not exist. SegmentError when it is of another build or damaged."""
        found = self._segments.get(name)
        if found is not None and not found.replaced():
            return found
        self._readers.pop(name, None)
        if found is not None:
            self._segments.pop(name).release()
        if not self._space.path(name).exists() and not self._space.foreign():
            return None
        self._segments[name] = self._space.attach(name)
        return self._segments[name]

    def exists(self) -> bool:
        """True when the instance has left any memory to look at."""
        return self.segment("markets") is not None

    def latest(self, name: str, index: int = 0) -> np.void | None:
        """Private copy of a latest value; None while it was never written (or the writer is faster than we can copy)."""
        if self.segment(name) is None:
            return None
        reader = self._readers.get(name)
        if reader is None:
            reader = self._readers[name] = SeqlockReader(self._segments[name])
        return reader.rec[0].copy() if reader.read(index) > 0 else None

    def vitals(self, process: str) -> dict | None:
        """Snapshot of a process's vitals page; None before its first start."""
        name = f"vitals.{process}"
        if self.segment(name) is None:
            return None
        reader = self._readers.get(name)
        if reader is None:
            reader = self._readers[name] = vt.VitalsReader(self._segments[name])
        return reader.snapshot() if self._segments[name].epoch else None

    # ---- processes

    def identity(self, process: str) -> tuple[int, int]:
        """(pid, epoch) of a process's last incarnation; (0, 0) before the first."""
        segment = self.segment(f"vitals.{process}")
        return (0, 0) if segment is None else (segment.identity[0], segment.epoch)

    def state(self, process: str) -> str:
        """BOOT, RUN, HALT, HUNG or DEAD, from memory and lock alone."""
        snapshot = self.vitals(process)
        return "DEAD" if snapshot is None else self._state(process, snapshot)

    def _state(self, process: str, snapshot: dict) -> str:
        if not vt.alive(self._segments[f"vitals.{process}"]):
            return "HALT" if snapshot["state"] == vt.HALT else "DEAD"
        patience_ns = BOOT_NS if snapshot["state"] == vt.BOOT else HUNG_NS
        if mono_ns() - snapshot["heartbeat_ns"] > patience_ns:
            return "HUNG"
        return snapshot["state_name"]

    def _supervised(self) -> dict[str, str]:
        """What supervisord says about processes that do not live; nothing when it cannot be asked."""
        pid = self._instance.holder()
        if not pid or not _running(pid):
            return {}
        try:
            return {p.name: p.state for p in self._supervisor.programs().values() if p.gone_or_failing}
        except SupervisorError:
            return {}

    def processes(self) -> tuple[ProcessView, ...]:
        """One row per process of the profile, in start order."""
        snapshots = {row.name: self.vitals(row.name) for row in self.rows}
        states = {name: "DEAD" if s is None else self._state(name, s) for name, s in snapshots.items()}
        supervised = self._supervised() if any(s in ("DEAD", "HALT") for s in states.values()) else {}
        out = []
        for row in self.rows:
            s, state = snapshots[row.name], states[row.name]
            live = state not in ("DEAD", "HALT")
            if s is None:
                out.append(ProcessView(row.name, supervised.get(row.name, state), 0, 0, -1, None, 0, 0.0, 0.0, None))
                continue
            age_ms = (mono_ns() - s["heartbeat_ns"]) / 1e6 if s["heartbeat_ns"] else None
            errors = s["errors"]
            out.append(ProcessView(
                row.name, state if live else supervised.get(row.name, state), s["pid"], s["epoch"], s["cpu"],
                None if age_ms is None else round(max(age_ms, 0.0), 1), max(s["epoch"] - 1, 0), s["busy_pct"] if state == "RUN" else 0.0,
                _rss_mb(s["pid"]) if live else 0.0, f"{errors[0]['code']}: {errors[0]['text']}" if errors else None,
                (mono_ns() - errors[0]["last_ns"]) / 1e9 if errors else None, errors[0]["count"] if errors else 0,
                s["stalls"], round(s["cycle_max_ns"] / 1e6, 1)))
        return tuple(out)

    # ---- rings and hops

    def links(self) -> tuple[Link, ...]:
        """One row per ring and reader of the topology; what the reader counted itself, and its lag as of now."""
        out = []
        for row in self.rows:
            snapshot = self.vitals(row.name)
            rows = {link["ring"]: link for link in snapshot["links"]} if snapshot else {}
            for ring in (s for s in row.reads if s in topology.RINGS):
                segment, link = self.segment(ring), rows.get(ring)
                if segment is None:
                    continue
                if link is None:
                    newest = head(segment.mem)
                    out.append(Link(ring, row.name, newest, newest + 1, 0, 0, 0, 0, 0, 0))
                    continue
                newest, lag, age_ns = backlog(segment, link["cursor"], mono_ns())
                out.append(Link(ring, row.name, newest, link["cursor"], lag, max(link["lag_max"], lag), age_ns, link["lapped_polling"],
                                link["lapped_reading"], link["lost"]))
        return tuple(out)

    def _histograms(self) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        snapshots = [s for s in (self.vitals(row.name) for row in self.rows) if s]
        return ({hop: vt.merge(s["hops"][hop] for s in snapshots) for hop in vt.HOPS},
                {hop: max((s["hop_max_ns"][hop] for s in snapshots), default=0) for hop in vt.HOPS})

    def hops(self) -> tuple[tuple[Hop, ...], dict[str, tuple[int, ...]]]:
        """(One row per hop over all processes, the shape of each distribution for a sparkline)."""
        counts, maxima = self._histograms()
        hops = tuple(Hop(hop, int(c.sum()), *vt.percentiles(c, QUANTILES), maxima[hop]) for hop, c in counts.items())
        shapes = {hop: tuple(np.bincount(_SHAPE_CELL, weights=c, minlength=len(SHAPE_EDGES) + 1).astype(int).tolist())
                  for hop, c in counts.items()}
        return hops, shapes

    # ---- trading

    def wall_s(self) -> float | None:
        """The group's wall clock, s since 1970.

        Paper: the tape's clock, told by the newest book record (venue's stamp and our arrival stamp), so that it needs no answer from
        anybody. None before the first record.
        """
        clock = self.clock()
        return None if clock is None else clock.now_s()

    def clock(self) -> WallClock | None:
        """The group's wall clock; see `wall_s`."""
        if self.cfg.profile == "live":
            return WallClock()
        books = [b for i in range(r.MARKET_SLOTS) if (b := self.latest("book", i)) is not None and b["t_exch_ns"] > 0]
        if not books:
            return None
        newest = max(books, key=lambda b: b["t_recv_ns"])
        return WallClock(int(newest["t_exch_ns"]), int(newest["t_recv_ns"]), self.cfg.sim.speed)

    def decisions(self) -> np.ndarray:
        """The decisions that the ring still holds, oldest first (TARGET records)."""
        out = []
        if self.segment("decisions") is not None:
            reader = RingReader(self._segments["decisions"], from_head=False)
            while reader.poll():
                out.append(reader.rec[0].copy())
        return np.array(out, r.TARGET) if out else np.zeros(0, r.TARGET)

    def markets(self, wall_s: float | None) -> tuple[MarketView, ...]:
        """One row per window that discovery knows, ordered by end."""
        table, account, oracle = self.latest("markets"), self.latest("account"), self.latest("oracle")
        if table is None:
            return ()
        out = [self._market(row, account, oracle, wall_s) for row in table["row"] if row["state"] != r.MS_EMPTY]
        return tuple(sorted(out, key=lambda m: (m.market_id // 1000 + m.duration_s, m.duration_s)))

    def _market(self, row: np.void, account: np.void | None, oracle: np.void | None, wall_s: float | None) -> MarketView:
        market_id, slot = int(row["market_id"]), int(row["slot"])
        book, target = self.latest("book", slot), self.latest("targets", slot)
        book = book if book is not None and book["market_id"] == market_id else None
        target = target if target is not None and target["market_id"] == market_id else None
        fresh = target is not None and target["deadline_ns"] > mono_ns()
        position = account["position"][slot] if account is not None and account["position"][slot]["market_id"] == market_id else None
        bid, ask = _top(book, "bid"), _top(book, "ask")
        quotes = target["quote"][:target["n_quotes"]] if fresh else ()
        return MarketView(
            slug=slug(market_id), market_id=market_id, state=MARKET_STATES[int(row["state"])],
            tau_s=None if wall_s is None else round(int(row["end_s"]) - wall_s, 3),
            q_up=float(target["q_up"]) if target is not None and np.isfinite(target["q_up"]) and target["sigma"] > 0 else None,
            up_bid=bid[0], up_ask=ask[0], up_bid_size=bid[1], up_ask_size=ask[1], strike=_strike(oracle, int(row["start_s"])),
            quotes=tuple(QuoteView(int(q["token"]), int(q["level"]), int(q["px_e4"]) * E4, int(q["size_u6"]) * U6)
                         for q in quotes),
            reward_score=self._reward_score(quotes, bid[0], ask[0], int(row["duration_s"])),
            gates=tuple(r.gate_names(int(target["gates"]))) if target is not None else (),
            target_total=float(target["target_total"]) if target is not None else None,
            live_orders=int(position["live_orders"]) if position is not None else 0,
            shares=_pair(position, "qty"), cost=_pair(position, "cost"), outcome=int(row["outcome"]), duration_s=int(row["duration_s"]),
            frozen=book is not None and bool(book["flags"] & r.MF_FROZEN), suspect=book is not None and bool(book["flags"] & r.MF_SUSPECT))

    def _reward_score(self, quotes, bid: float | None, ask: float | None, duration_s: int) -> float | None:
        """Score of the wanted quotes by the formula of liquidity rewards; None where they are off or the book has no middle."""
        p = self.cfg.strategy.of(duration_s).rewards
        if not p.enabled or bid is None or ask is None:
            return None
        from mmbot.quoting.rewards import score

        return round(score([tuple(int(q[n]) for n in ("token", "side", "px_e4", "size_u6")) for q in quotes if q["kind"] == r.QK_POST_ONLY],
                           (bid + ask) / 2, p.max_spread, p.min_size_u6, p.one_sided), 3)

    def account(self, markets: tuple[MarketView, ...]) -> AccountView:
        """The account as the executor last published it, with the result marked to mid."""
        a = self.latest("account")
        if a is None:
            return AccountView()
        dollars = {k: int(a[f"{k}_u6"]) * U6 for k in ("cash", "reserved", "exposure", "realized", "volume", "fees", "spread", "adverse", "rebate")}
        dollars["late_result"] = int(a["late_u6"]) * U6
        counts = {k: int(a[k]) for k in ("orders", "cancels", "fills", "rejects", "unknown", "live_orders", "scoring", "late")}
        now, until, since = mono_ns(), int(a["venue_mode_until_ns"]), int(a["difference_since_ns"])
        mode = int(a["venue_mode"])
        return AccountView(
            state=ACCOUNT_STATES.get(int(a["state"]), "?"), pnl=marked_pnl(dollars["realized"], markets), **dollars, **counts,
            halts=tuple(r.halt_names(int(a["halts"]))), venue_mode=r.VENUE_MODES[mode] if 0 <= mode < len(r.VENUE_MODES) else "?",
            venue_mode_left_s=round((until - now) / 1e9, 1) if until > now and mode else None, deaf=int(a["user_deaf"]),
            difference_s=round((now - since) / 1e9, 1) if since else None,
            **{k: int(a[k]) for k in ("reversed", "tier", "order_tokens", "cancel_tokens")})

    def _rtt_ms(self) -> float | None:
        """Average round trip of the market channel's PINGs, from the newest record of any window."""
        books = [b for i in range(r.MARKET_SLOTS) if (b := self.latest("book", i)) is not None]
        newest = max(books, key=lambda b: b["t_pub_ns"], default=None)
        return round(int(newest["rtt_ns"]) / 1e6, 1) if newest is not None and newest["rtt_ns"] > 0 else None

    def hedges(self) -> list:
        """[(MarketView, Hedge)] of the windows that hold more of one side than of the other and are not over."""
        from mmbot.inventory.hedge import analyse

        table, out = self.latest("markets"), []
        rows = {int(row["market_id"]): row for row in table["row"]} if table is not None else {}
        for m in self.markets(self.wall_s()):
            row, costs = rows[m.market_id], self.cfg.strategy.of(m.duration_s).capital
            if m.outcome != r.NO_OUTCOME:
                continue
            qty, cost = (tuple(round(x / U6) for x in pair) for pair in (m.shares, m.cost))
            bid, ask = (round(px / U6) if px is not None else 0 for px in (m.up_bid, m.up_ask))
            found = analyse(qty, cost, bid, ask, m.q_up if m.q_up is not None else float("nan"), int(row["fee_rate_e6"]), int(row["fee_exponent"]),
                            costs.merge_cost, costs.sell_cost)
            if found is not None:
                out.append((m, found))
        return out

    def fills(self) -> tuple[FillView, ...]:
        """The newest own fills, oldest first, from the ring of order events."""
        if self.segment("orders") is None:
            return ()
        reader = self._readers.get("orders")
        if reader is None:
            reader = self._readers["orders"] = RingReader(self._segments["orders"], from_head=False)
        while reader.poll():
            e = reader.rec[0]
            if e["kind"] == r.OE_FILL:
                self._fills.append(FillView(int(e["t_ns"]), int(e["market_id"]), int(e["token"]), int(e["side"]), int(e["px_e4"]) * E4,
                                            int(e["filled_u6"]) * U6))
        return tuple(self._fills)

    def settlement(self) -> SettlementView:
        """What the settler has told last."""
        paused = self.cfg.settlement.pause_merges or (self.cfg.run.path / PAUSE_FILE).exists()
        if self.segment("settlement") is None:
            return SettlementView(paused=paused)
        reader = self._readers.get("settlement")
        if reader is None:
            reader = self._readers["settlement"] = RingReader(self._segments["settlement"], from_head=False)
            self._settlement = SettlementView(), {}
        view, open_ = self._settlement
        while reader.poll():
            view, open_ = settlement_step(view, open_, reader.rec[0])
        self._settlement = view, open_
        return replace(view, paused=paused)

    def picture(self) -> Picture:
        """Everything at once."""
        wall_s = self.wall_s()
        processes, markets = self.processes(), self.markets(wall_s)
        account, guard, oracle = self.account(markets), self.latest("guard"), self.latest("oracle")
        states = {p.name: p.state for p in processes}
        allows = guard is not None and bool(guard["quoting_allowed"])
        reasons = tuple(r.guard_names(int(guard["reasons"]))) if guard is not None else ()
        why = why_not_quoting(account.state, allows, reasons, states["core"], states["executor"], markets,
                               (*account.halts, *(("dry_run",) if self.cfg.execution.dry_run else ())), account.venue_mode)
        hops, shapes = self.hops()
        return Picture(profile=self.cfg.profile, name=self.cfg.run.name, quoting=why is None, halt_reason=why, processes=processes,
                       markets=markets, account=account, hops=hops, links=self.links(), wall_s=wall_s, spot=_print(oracle, "spot"),
                       twap=_print(oracle, "twap60"), panics=int(guard["panics"]) if guard is not None else 0, shapes=shapes,
                       settlement=self.settlement(), fills=self.fills(), now_ns=mono_ns(), last_flat_ms=_flat_ms(guard), rtt_ms=self._rtt_ms(),
                       dry_run=self.cfg.execution.dry_run)


def settlement_step(view: SettlementView, open_: dict[int, str], e: np.void) -> tuple[SettlementView, dict[int, str]]:
    """(what is shown, operations under way by number) after one more SETTLEMENT record. A record that tells no operation begins anew: it is the
    first word of a settler that has just started."""
    number, state = int(e["number"]), int(e["state"])
    word = f"{SETTLEMENT_WORDS.get(int(e['kind']), '?')} {int(e['payout_u6']) * U6:,.2f}"
    open_ = {} if not number else {n: w for n, w in open_.items() if n != number}
    if number and state not in (r.SS_FAILED, r.SS_CONFIRMED):
        open_[number] = word
    failure = view.last_failure
    if state == r.SS_FAILED:
        failure = f"{word}: {r.SETTLEMENT_REASONS[int(e['reason'])]}"
    totals = {n: int(e[n]) for n in ("merges", "redeems", "failed")}
    return SettlementView(**totals, merged=int(e["merged_u6"]) * U6, redeemed=int(e["redeemed_u6"]) * U6, under_way=next(iter(open_.values()), ""),
                          last_failure=failure if totals["failed"] else ""), open_


def _running(pid: int) -> bool:
    """False for a process that is stopped (SIGSTOP) or gone: it would not answer."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _flat_ms(guard: np.void | None) -> float | None:
    """From the guardian's last panic until the venue listed no order of ours; None before the first, or while it lasts."""
    if guard is None or not guard["last_panic_ns"] or guard["last_flat_ns"] < guard["last_panic_ns"]:
        return None
    return round(int(guard["last_flat_ns"] - guard["last_panic_ns"]) / 1e6, 1)


def _rss_mb(pid: int) -> float:
    try:
        return round(psutil.Process(pid).memory_info().rss / 1e6, 1)
    except psutil.Error:
        return 0.0


def _top(book: np.void | None, side: str) -> tuple[float | None, float]:
    """(price, size) of the best level of a side in Up terms; (None, 0) when it is empty."""
    if book is None or book[f"n_{side}"] < 1:
        return None, 0.0
    return round(int(book[f"{side}_px_e4"][0]) * E4, 4), int(book[f"{side}_size_u6"][0]) * U6


def _pair(position: np.void | None, what: str) -> tuple[float, float]:
    if position is None:
        return 0.0, 0.0
    return int(position[f"{what}_up_u6"]) * U6, int(position[f"{what}_down_u6"]) * U6


def _strike(oracle: np.void | None, start_s: int) -> float | None:
    """The TWAP print stamped exactly on the start of a window: what the end has to reach."""
    if oracle is None:
        return None
    found = [b for b in oracle["boundary"] if b["t_obs_ms"] == start_s * 1000]
    return float(found[0]["px"]) if found else None


def _print(oracle: np.void | None, which: str) -> float | None:
    return float(oracle[which]["px"]) if oracle is not None and oracle[which]["px"] > 0 else None

