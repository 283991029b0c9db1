"""A core in real shared memory, as its process wires it, with this process as everybody else. For tests only."""

import threading
import uuid
from types import SimpleNamespace

import numpy as np
from loguru import logger

from core_world import START_S, quoting
from mmbot import config, topology
from mmbot.clock import mono_ns
from procs import core as process
from shm_layout import records as r
from shm_layout import vitals as vt
from shm_layout.ring import RingReader, RingWriter
from shm_layout.segment import Space
from shm_layout.seqlock import SeqlockReader, SeqlockWriter


class Desk:
    """Segments of a run of its own, written by this process (all but `params_next`), and a core that can be started again and again."""

    def __init__(self, tmp_path, **strategy):
        self.cfg = config.load("paper", run__name=f"t{uuid.uuid4().hex[:8]}", run__dir=str(tmp_path),
                               **{f"strategy__{k}": v for k, v in {"warmup_ns": 0, **strategy}.items()})
        self.cfg.run.path.mkdir(parents=True)
        self.space = Space(self.cfg.run.name)
        self.space.create_missing(topology.RINGS, topology.SEQLOCKS, [p.name for p in topology.PROCESSES])
        own = self.space.own
        self.writers = {n: RingWriter(own(n)) for n in topology.RINGS} | {n: SeqlockWriter(own(n)) for n in topology.SEQLOCKS if n not in topology.OPERATOR}
        self.vitals = vt.VitalsWriter(own("vitals.core"), "core")
        self.decisions = RingReader(self.space.attach("decisions"))
        self.said: list[str] = []
        self.world, self.slot = quoting()
        self.world.oracle["t_obs_ms"] = (START_S + 301) * 1000
        self._thread = None

    def start(self) -> None:
        """A new incarnation of the core."""
        row, attach = topology.BY_NAME["core"], self.space.attach
        actor = SimpleNamespace(
            cfg=self.cfg, seqlock_writers=self.writers, ring_writers=self.writers, vitals=self.vitals, log=logger,
            ring_readers={n: RingReader(attach(n)) for n in row.reads if n in topology.RINGS},
            seqlock_readers={n: SeqlockReader(attach(n)) for n in row.reads if n in topology.SEQLOCKS},
            place=SimpleNamespace(wait="backoff"), ring_bells=lambda segment: None, warn=lambda code, text: self.said.append(code),
            error=lambda code, text: self.said.append(code), clock=SimpleNamespace(simulated=False, now_ns=lambda: self.world.wall_ns))
        self.vitals.set_state(vt.RUN)
        self.burst, self.housekeeping, self.close = process.build(actor)

    def put(self, name, record, index=0) -> None:
        """Publish a record as its owner would, stamped now."""
        writer, now = self.writers[name], mono_ns()
        writer.rec[:] = record
        for stamp in ("t_recv_ns", "t_pub_ns", "t_update_ns"):
            if stamp in writer.rec.dtype.names:
                writer.rec[stamp] = now
        writer.publish() if isinstance(writer, RingWriter) else writer.write(index)

    def feed(self) -> None:
        """Everything the core needs to quote."""
        world, spot = self.world, self.world.oracle.copy()
        for name in ("markets", "account", "guard"):
            self.put(name, getattr(world, name))
        world.strike()
        self.put("md.oracle", world.oracle)
        world.oracle[:] = spot
        self.refresh()

    def refresh(self, tick=0) -> None:
        """Books and prices anew; ``tick`` moves the book."""
        world = self.world
        self.put("md.oracle", world.oracle)
        self.put("md.binance", world.spot)
        world.market["bid_px_e4"][0, 0], world.market["ask_px_e4"][0, 0] = 5000 + 100 * tick, 5100 + 100 * tick
        self.put("md.market", world.market)

    def turn(self, times=1) -> None:
        for _ in range(times):
            self.burst()
        now = mono_ns()
        self.vitals.beat(now)
        self.housekeeping(now)

    def target(self):
        reader = SeqlockReader(self.space.attach("targets"))
        assert reader.read(self.slot) > 0
        return reader.rec[0].copy()

    def taken(self) -> list[np.void]:
        """Decisions since the last call."""
        out = []
        while self.decisions.poll():
            out.append(self.decisions.rec[0].copy())
        return out

    def spinning(self):
        """A context in which the core turns in a thread of its own."""
        return _Spin(self)

    def clean_up(self) -> None:
        for writer in self.writers.values():
            writer.segment.release()
        self.vitals.segment.release()
        self.space.wipe()


class _Spin:
    def __init__(self, desk):
        self.desk, self.on = desk, True
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while self.on:
            self.desk.turn()

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.on = False
        self.thread.join()


def quote_sizes(target) -> list[tuple[int, int]]:
    """(level, size) of a target's quotes for Up."""
    return [(int(q["level"]), int(q["size_u6"])) for q in target["quote"][:int(target["n_quotes"])] if q["token"] == r.UP]
