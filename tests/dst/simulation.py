"""One run: scheduler, network, exchange, group and observer put together, with every source of time and chance replaced.

Owns: the settings of a simulated group (polls and refreshes stretched where they do not matter), and what is replaced while a run lasts
(`Simulation.__enter__` to `__exit__`): clocks, random sources, sockets, the liveness probe. A run is a function of its seed and the code.
What can go wrong: a source of chance nobody replaced; the test of equal digests finds it.
"""

import asyncio
import contextlib
import gc
import hashlib
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path
from unittest import mock

import aiohttp
from loguru import logger

from mmbot import clock, config
from mmbot.clock import WallClock
from mmbot.execution import manager
from mmbot.sim import server, spot
from procs import core as core_process
from procs import discovery, executor, feed_market, guardian, ws_client
from tests.dst.exchange import Exchange
from tests.dst.group import NAMES, Group, SimCore, SimJournal
from tests.dst.loop import ProcessLoop, Scheduler, sleep
from tests.dst.network import Network, Session
from tests.dst.tape import SparseTape

START_S = 1_793_000_000 // 900 * 900
LEAD_S = 45
SETTINGS = {
    "execution__rehearse_hz": 0, "execution__reconcile_s": 10.0, "execution__connections": 4, "execution__min_update_interval_ms": 700.0,
    "execution__reprice_ticks": 2, "guardian__check_ms": 400.0, "guardian__unsound_ms": 1000.0, "guardian__beat_s": 2.5, "markets__poll_s": 10.0,
    "strategy__model_weight": 0.15, "strategy__target_ttl_ns": 2_000_000_000, "strategy__refresh_ns": 700_000_000,
    "strategy__stale_market_ns": 2_500_000_000, "strategy__stale_spot_ns": 3_000_000_000,
    "sim__base_port": 21_000, "sim__cash_u6": 20_000_000_000, "sim__auto_redeem": True,
}
#: polls that cost time and change nothing but how soon something is noticed
SLOWER = (
    (ws_client, "_TICK_S", 0.7), (discovery, "TICK_S", 2.0), (manager, "ACCOUNT_EVERY_NS", 500_000_000), (spot, "TRADES_PER_S", 2.0),
    (executor, "RESOLVE_S", 0.4), (executor, "WATCH_S", 0.4), (executor, "WANT_S", 1e6), (server, "COLLECT_TURNS", 1 << 60),
    (feed_market, "PROVE_S", 0.4), (feed_market, "JUDGE_S", 0.25),
)
S = 1_000_000_000
COLLECT_NS = 120 * S


def settings(directory: Path, **overrides) -> config.Settings:
    """Settings of a simulated group."""
    return config.load("paper", run__dir=directory, run__name="dst", venue__clock_url="", **{**SETTINGS, **overrides})


class Simulation:
    """``with Simulation(seed, observer) as sim: sim.run(seconds)``. ``observer``: see `tests.dst.observer.Observer`."""

    def __init__(self, seed: int, observer, **overrides):
        self.seed, self.observer = seed, observer
        self.directory = Path(tempfile.mkdtemp(prefix="mmbot-dst-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
        self.scheduler = Scheduler(seed)
        self.start_ns = self.scheduler.now_ns
        self.rng = random.Random(f"faults {seed}")
        self.network = Network(self.scheduler)
        self.wall = WallClock((START_S - LEAD_S) * S, self.start_ns, 1.0)
        self.cfg = settings(self.directory, **overrides)
        self.cfg.run.path.mkdir(parents=True, exist_ok=True)
        self._stack = contextlib.ExitStack()

    def _wall_ns(self) -> int:
        return self.wall.wall0_ns + self.scheduler.now_ns - self.wall.mono0_ns

    def __enter__(self) -> "Simulation":
        enter, seed = self._stack.enter_context, self.seed
        bits = random.Random(f"system {seed}")
        enter(mock.patch.object(os, "urandom", lambda n: bits.randbytes(n)))
        enter(mock.patch.object(random, "_urandom", lambda n: bits.randbytes(n)))
        enter(mock.patch.object(random, "Random", _seeded(bits)))
        enter(mock.patch.object(asyncio, "sleep", sleep))
        enter(mock.patch.object(aiohttp, "ClientSession", Session))
        enter(mock.patch.object(Session, "network", self.network))
        enter(mock.patch.object(ws_client, "dial", self.network.dial))
        enter(mock.patch.object(core_process, "Core", SimCore))
        enter(mock.patch.object(core_process, "BUDGET_NS", 0))
        enter(mock.patch.object(SimCore, "scheduler", self.scheduler))
        enter(mock.patch.object(executor, "OrderJournal", SimJournal))
        enter(mock.patch.object(executor, "build", self._build))
        for module, name, value in SLOWER:
            if hasattr(module, name):       # a poll that went away needs no stretching
                enter(mock.patch.object(module, name, value))
        enter(mock.patch.object(sys, "unraisablehook", _unraisable))
        logger.remove()
        self._stack.callback(gc.enable)
        gc.disable()
        state = random.getstate()
        random.seed(seed)
        self._stack.callback(random.setstate, state)
        self._stack.callback(clock.replace)
        clock.replace(self.scheduler.mono_ns, self._wall_ns)
        SimJournal.written = {}
        self.tape = SparseTape(seed, START_S - LEAD_S, "v2" if seed % 3 == 0 else "v1")
        self.exchange = Exchange(self.cfg, self.tape, self.wall, self.network, self.observer)
        self.group = Group(self.scheduler, self.network, self.cfg, self.wall, self.observer)
        enter(mock.patch.object(guardian, "alive", self.group.memory.alive))
        enter(mock.patch.object(guardian.StopSigns, "stopped", lambda signs, pid: self.group.stopped(pid)))
        self.sim_loop = ProcessLoop(self.scheduler, "sim", self.network)
        self.sim_loop.on_error = self._exchange_error
        self.script = ProcessLoop(self.scheduler, "script", self.network)
        self.observer.begin(self)
        self.sim_loop.call_soon(self.exchange.listen, self.sim_loop)
        for i, name in enumerate(NAMES):
            self.script.call_later(0.01 + 0.05 * i, self.group.start, name)
        return self

    _real_build = staticmethod(executor.build)

    def _build(self, actor, who):
        manager, gateway = self._real_build(actor, who)
        self.group.manager = manager
        return manager, gateway

    def _exchange_error(self, context: dict) -> None:
        error = context.get("exception")
        if error is not None:
            self.scheduler.halted = True
            raise error

    def __exit__(self, *_exc) -> None:
        for inc in list(self.group.procs.values()):
            self.group.supervised = False
            self.group._gone(inc, "over")
        self.sim_loop.kill()
        for tasks in [*(t for _, t in self.group.buried), asyncio.all_tasks(self.sim_loop)]:
            for task in tasks:
                task._log_destroy_pending = False
                with contextlib.suppress(RuntimeError):     # one that wants to go on after its end
                    task.get_coro().close()
        self.group.buried.clear()
        self.scheduler.forget()
        gc.collect()
        self._stack.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def now_s(self) -> float:
        """Seconds since the begin of the run."""
        return (self.scheduler.now_ns - self.start_ns) / S

    def run(self, seconds: float) -> None:
        """Let so much virtual time pass."""
        end_ns = self.scheduler.now_ns + int(seconds * S)
        while self.scheduler.now_ns < end_ns and not self.scheduler.halted:
            self.scheduler.run(min(end_ns, self.scheduler.now_ns + COLLECT_NS))
            gc.collect(1)

    def digest(self) -> str:
        """A hash of everything the observer wrote down."""
        return hashlib.sha256("\n".join(self.observer.journal).encode()).hexdigest()


def _unraisable(info) -> None:
    """Coroutines of killed processes are cut off in the middle and say so; everything else is told."""
    if "GeneratorExit" not in str(info.exc_value):
        sys.__unraisablehook__(info)


def _seeded(bits: random.Random):
    class Random(random.Random):
        """`random.Random` whose unseeded instances take their seed from the run."""

        def __init__(self, x=None):
            super().__init__(bits.getrandbits(64) if x is None else x)

    return Random
