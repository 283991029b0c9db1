"""THE table: which processes exist, what each writes and reads, where it runs and how it waits.

Owns: process names, segment names, ring depths, CPU placement. Everything else (segment sizes, pins, the monitor's rows,
the test of supervisor.conf) is computed from here. No I/O except reading the CPU set in `placement`.

A ring has exactly one writer; a seqlock segment has exactly one writer; a reader appears in ``reads`` or does not read.
"""

import os
from dataclasses import dataclass
from operator import attrgetter

from shm_layout import records as r


@dataclass(frozen=True)
class RingSpec:
    """A broadcast ring: ``record`` dtype, ``depth`` slots (a power of two)."""
    record: object
    depth: int


@dataclass(frozen=True)
class SeqlockSpec:
    """``count`` latest-value cells of ``record``."""
    record: object
    count: int = 1


RINGS = {
    "md.market": RingSpec(r.MARKET, 4096),
    "md.oracle": RingSpec(r.ORACLE, 1024),
    "md.binance": RingSpec(r.SPOT, 4096),
    "md.coinbase": RingSpec(r.SPOT, 4096),
    "md.bybit": RingSpec(r.SPOT, 4096),
    "user": RingSpec(r.USER, 1024),
    "decisions": RingSpec(r.TARGET, 32768),     # ten minutes and more of `mmbot why`
    "orders": RingSpec(r.ORDER_EVENT, 2048),
    "settlement": RingSpec(r.SETTLEMENT, 256),
}
SEQLOCKS = {
    "markets": SeqlockSpec(r.MARKETS),
    "book": SeqlockSpec(r.MARKET, r.MARKET_SLOTS),
    "oracle": SeqlockSpec(r.ORACLE_STATE),
    "targets": SeqlockSpec(r.TARGET, r.MARKET_SLOTS),
    "account": SeqlockSpec(r.ACCOUNT),
    "own": SeqlockSpec(r.OWN, r.MARKET_SLOTS),
    "guard": SeqlockSpec(r.GUARD),
    "params": SeqlockSpec(r.PARAMS_BLOCK),
    "params_next": SeqlockSpec(r.PARAMS_BLOCK),
    "programme": SeqlockSpec(r.PROGRAMME, r.MARKET_SLOTS),
}
#: segments that no process of the group writes but a person's command (`mmbot params set`), which holds the writer's lock while it does
OPERATOR = {"params_next": "mmbot params"}


@dataclass(frozen=True)
class Process:
    """One row.

    wait: "spin" (owns a CPU), "epoll" (sleeps in its event loop), "doorbell" (epoll, plus a FIFO others ring).
    cpu: "hot" (a CPU of its own when there are two or more), "shared", "idle" (shared, SCHED_IDLE).
    reads_vitals: reads the vitals pages of all other processes. switch: the dotted key of the settings without which it does not run, "" when it always does.
    strategy: the strategy that needs it, "" when all do. by_default: does it run with the default settings?
    """
    name: str
    writes: tuple[str, ...]
    reads: tuple[str, ...]
    cpu: str = "shared"
    wait: str = "epoll"
    nice: int = 0
    profiles: tuple[str, ...] = ("paper", "live")
    priority: int = 100
    reads_vitals: bool = False
    switch: str = ""
    strategy: str = ""
    by_default: bool = True
    note: str = ""

    @property
    def optional(self) -> bool:
        """Can a profile or a switch leave this process out?"""
        return bool(self.switch or self.strategy) or len(self.profiles) < 2


PROCESSES = (
    Process("sim", (), (), nice=5, profiles=("paper",), priority=10,
            note="the exchange of paper mode, on loopback sockets"),
    Process("discovery", ("markets",), ("md.market", "oracle"), priority=20,
            note="current and next windows from Gamma"),
    Process("feed_market", ("md.market", "book"), ("markets",), priority=30,
            note="market channel: books and trades"),
    Process("feed_user", ("user",), ("markets", "account"), priority=30,
            note="user channel: own orders and trades"),
    Process("feed_oracle", ("md.oracle", "oracle"), ("markets",), priority=30,
            note="Chainlink spot and TWAP-60, from two sources"),
    Process("feed_binance", ("md.binance",), (), priority=30,
            note="Binance best bid/ask and trades"),
    Process("feed_coinbase", ("md.coinbase",), (), priority=30, switch="feeds.coinbase",
            note="Coinbase best bid/ask and trades"),
    Process("feed_bybit", ("md.bybit",), (), priority=30, switch="feeds.bybit",
            note="Bybit best bid/ask and trades"),
    Process("core", ("targets", "decisions", "params"),
            ("md.market", "md.oracle", "md.binance", "md.coinbase", "md.bybit", "markets", "book", "oracle", "account", "own", "guard", "params_next",
             "programme"), cpu="hot", wait="spin", nice=-10, priority=40, note="records in, desired quotes out"),
    Process("programme", ("programme",), ("targets", "book", "account", "params"), nice=5, priority=45, strategy="programme", by_default=False,
            note="solves the linear programme of the strategy of that name"),
    Process("executor", ("account", "own", "orders"), ("targets", "markets", "user", "guard", "params", "settlement"),
            wait="doorbell", nice=-5, priority=50,
            note="desired quotes x live orders; the only one that spends money"),
    Process("guardian", ("guard",), ("account", "markets"), wait="epoll", nice=-5, priority=60, reads_vitals=True,
            note="heartbeat chain and panic cancel"),
    Process("settler", ("settlement",), ("markets", "account", "own"), wait="epoll", nice=10, priority=70,
            note="merges full sets, redeems after resolution"),
    Process("output", (), ("targets", "markets", "account", "guard"), nice=10, priority=80, switch="output.dir", by_default=False,
            note="mm_quotes.json and mm_status.json for other programs"),
    Process("awake", (), (), cpu="idle", wait="spin", priority=90,
            note="keeps the shared CPU out of its sleep states (SCHED_IDLE)"),
)
BY_NAME = {p.name: p for p in PROCESSES}
#: who rings whose bell after publishing what
BELLS = {"targets": ("executor",), "user": ("executor",), "guard": ("executor",)}
#: rung by the feeds of the core, after publishing: the core decides within a microsecond while waking a process takes twenty and more, so
#: the executor is already on its way, and finds the answer, when the core's own ring comes
EARLY_BELLS = {n: ("executor",) for n in ("md.market", "md.oracle", "md.binance", "md.coinbase", "md.bybit")}


def writer_of(segment: str) -> str:
    """Name of the one process (or command) that writes ``segment``; vitals pages belong to their process."""
    if segment.startswith("vitals."):
        return segment.removeprefix("vitals.")
    return OPERATOR.get(segment) or next(p.name for p in PROCESSES if segment in p.writes)


def processes(profile: str, cfg: object = None) -> tuple[Process, ...]:
    """Rows that run in ``profile``, in start order. ``cfg``: the settings, whose switched-off processes and unused strategies are left out;
    without them, the rows that run by default."""
    def wanted(p: Process) -> bool:
        if cfg is None:
            return p.by_default
        if p.strategy:
            return p.strategy in {cfg.strategy.of(d).strategy for d in r.DURATIONS}
        return not p.switch or bool(attrgetter(p.switch)(cfg))
    rows = (p for p in PROCESSES if profile in p.profiles and wanted(p))
    return tuple(sorted(rows, key=lambda p: p.priority))


@dataclass(frozen=True)
class Placement:
    """Where one process runs: its CPUs, the wait strategy it really uses, and why."""
    cpus: frozenset[int]
    wait: str
    why: str


def placement(process: Process, available: frozenset[int] | None = None) -> Placement:
    """CPU set of a process, from the CPUs this session may use (``os.sched_getaffinity`` unless given).

    1 CPU: nothing spins. 2 or 3: the hot process has the last CPU alone, all others share the rest. 4 and more: feed_market and
    the executor get one each as well.
    """
    cpus = sorted(available if available is not None else os.sched_getaffinity(0))
    if len(cpus) == 1:
        wait = "backoff" if process.wait == "spin" else process.wait
        return Placement(frozenset(cpus), wait, "one CPU: nothing spins")
    if process.cpu == "hot":
        return Placement(frozenset(cpus[-1:]), process.wait, f"{len(cpus)} CPUs: the last one alone, spinning")
    own = {"executor": -2, "feed_market": -3}
    if len(cpus) >= 4:
        if process.name in own:
            return Placement(frozenset([cpus[own[process.name]]]), process.wait, f"{len(cpus)} CPUs: one of its own")
        return Placement(frozenset(cpus[:-3]), process.wait, f"{len(cpus)} CPUs: shares the first {len(cpus) - 3}")
    return Placement(frozenset(cpus[:-1]), process.wait, f"{len(cpus)} CPUs: shares all but the hot one")
