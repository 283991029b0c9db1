"""Feed processes and the exchange's servers of their venues in one thread and in virtual time: real code on both sides, no sockets, no waiting."""

import asyncio
import contextlib
import json
from types import SimpleNamespace
from unittest import mock

import numpy as np

from mmbot import clock, config
from mmbot.clock import WallClock
from mmbot.sim import accounts, channels
from mmbot.sim.auth import Keys
from mmbot.sim.bybit import Bybit
from mmbot.sim.coinbase import Coinbase
from mmbot.sim.faults import Faults
from mmbot.sim.ladder import Ladder
from mmbot.sim.links import Link
from mmbot.sim.oracle import GRID_MS, DerivedPrints, References, SpotPath
from mmbot.sim.polybolt import PolyBolt
from mmbot.sim.spot import Binance
from shm_layout.ring import RingReader
from shm_layout.seqlock import SeqlockReader, SeqlockWriter
from tests.dst.group import SimActor
from tests.dst.loop import ProcessLoop, Scheduler
from tests.dst.memory import Memory
from tests.dst.network import Network

S = 1_000_000_000
ROLL_S = 1_795_186_800          # a boundary of all windows
BEGIN_S = ROLL_S - 40
STEP_S = 0.05


class Plain:
    """A server that says what the test says. ``links``: who listens; ``heard``: what they said."""

    def __init__(self):
        self.links, self.heard, self.made = [], [], 0

    def accept(self, _request):
        plain = self

        class PlainLink(Link):
            def on_ws_connected(self, transport):
                super().on_ws_connected(transport)
                plain.links.append(self)
                plain.made += 1

            def message(self, message):
                plain.heard.append(message)

            def gone(self):
                plain.links.remove(self)

        return PlainLink()

    def say(self, message, *which):
        """Send to the links with these places, or to all."""
        for i, link in enumerate(list(self.links)):
            if not which or i in which:
                link.put(json.dumps(message).encode())


class FeedWorld:
    """``with FeedWorld() as w: w.start(main, "feed_oracle"); w.run(30)``."""

    def __init__(self, seed=1, **overrides):
        self.scheduler = Scheduler(seed)
        self.begin_ns = self.scheduler.now_ns
        self.network, self.memory = Network(self.scheduler), Memory()
        self.wall = WallClock(BEGIN_S * S, self.begin_ns, 1.0)
        self.cfg = config.load("paper", **{"run__name": "feeds", "venue__clock_url": "", **overrides})
        self.said, self.crashes = [], []
        self.faults = Faults(seed)
        self.change = lambda frame: frame       # what a test does to a print on its way to PolyBolt
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        clock.replace(self.scheduler.mono_ns, lambda: self.wall.at(self.scheduler.now_ns))
        self._stack.callback(clock.replace)
        path = SpotPath((BEGIN_S - 200) * 1000)
        path.extend(84_600 * np.exp(np.cumsum(np.random.default_rng(7).normal(0, 7e-5 * (GRID_MS / 1000) ** 0.5, 20_000))))
        keys = Keys(137, self.wall, self.wall)
        self.references = References(DerivedPrints(path, 7), path, BEGIN_S * 1000)
        self.spot = Binance(path, 7, BEGIN_S * 1000, 1.0)
        self.rtds, self.binance, self.polybolt = channels.Rtds(), channels.Binance(), PolyBolt(keys, self.faults)
        self.coinbase = Coinbase(Ladder(path, 1, BEGIN_S * 1000, 1.0, 0.0, 100), self.faults)
        self.bybit = Bybit(Ladder(path, 2, BEGIN_S * 1000, 1.0, 0.0, 10), self.faults)
        self.rtds.faults = self.binance.faults = self.faults
        self.user = Plain()
        self.venue = self.network.server_loop = ProcessLoop(self.scheduler, "venue", self.network)
        self.venue.on_error = lambda context: self.crashes.append(context)
        base = self.cfg.sim.base_port
        services = (self.user, self.rtds, self.binance, self.polybolt, self.coinbase, self.bybit)
        self.network.ws = {base + 2 + i: service.accept for i, service in enumerate(services)}
        self.venue.call_soon(self._drive)
        self.group = SimpleNamespace(cfg=self.cfg, memory=self.memory, scheduler=self.scheduler, wall=self.wall, kick_core=lambda *_: None,
                                     ring=lambda name: None, on_report=lambda who, code, text, *_: self.said.append((self.now_s, code, text)))
        return self

    def __exit__(self, *_):
        self._stack.close()
        assert not self.crashes, self.crashes

    @property
    def now_s(self):
        """Virtual seconds since the begin."""
        return (self.scheduler.now_ns - self.begin_ns) / S

    def _drive(self):
        now_ms, mono_ms = self.wall.at(self.scheduler.now_ns) // 1_000_000, self.scheduler.now_ns / 1e6
        for frame in self.references.frames(now_ms):
            print_ = self.faults.on_print(frame, mono_ms)
            if print_ is not None:
                self.venue.call_later(print_[0], self._print, print_[1])
        self.polybolt.push([], now_ms)
        self.binance.push(self.spot.frames(now_ms))
        self.coinbase.push(now_ms)
        self.bybit.push(now_ms)
        self.venue.call_later(STEP_S, self._drive)

    def _print(self, frame):
        self.rtds.push([frame])
        self.polybolt.push([self.change(frame)], self.wall.at(self.scheduler.now_ns) // 1_000_000)

    def start(self, main, name):
        """Start a process's main coroutine."""
        loop = ProcessLoop(self.scheduler, name, self.network)
        loop.on_error = lambda context: self.crashes.append(context)

        async def life():
            self.actor = SimActor(self.group, name)
            await main(self.actor, self.network.dial)

        def ended(task):
            if task.exception() is not None:
                self.crashes.append(task.exception())

        loop.call_soon(lambda: asyncio.ensure_future(loop.create_task(life())).add_done_callback(ended))
        return loop

    def run(self, seconds):
        """Let so much virtual time pass."""
        self.scheduler.run(self.scheduler.now_ns + int(seconds * S))

    def fault(self, name, for_s, **params):
        """Start a fault of the catalogue now."""
        self.faults.start(name, self.scheduler.now_ns / 1e6, for_s, **params)

    def events(self):
        """The process's counters."""
        from shm_layout.vitals import VitalsReader
        return VitalsReader(self.memory.attach(f"vitals.{self.actor.name}")).snapshot()["events"]

    def records(self, ring):
        """All records of a ring, oldest first."""
        reader, out = RingReader(self.memory.attach(ring), from_head=False), []
        while reader.poll():
            out.append(reader.rec[0].copy())
        return out

    def cell(self, name):
        """The newest value of a seqlock."""
        reader = SeqlockReader(self.memory.attach(name))
        reader.read()
        return reader.rec[0]

    def publish(self, name, **fields):
        """Be the writer of a seqlock."""
        writer = SeqlockWriter(self.memory.own(name))
        for field, value in fields.items():
            writer.rec[0][field] = value
        writer.write()

    def told(self, code):
        """When and how something was reported."""
        return [(t, text) for t, c, text in self.said if c == code]


__all__ = ["BEGIN_S", "ROLL_S", "S", "FeedWorld", "accounts", "mock"]
