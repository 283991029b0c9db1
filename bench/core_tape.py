"""The inputs of a running core, written down: everything its step was given during some seconds of `mmbot run` on the recorded tape.

Owns: EVENT, `Inputs`, `record`. Starts a paper group of its own, reads the same rings and seqlocks as its core does, and stops it again. Orders, fills and
the account are those of the group's own strategy. Timers are those of a spinning core: one each TIMER_NS.
Can go wrong: two changes of a seqlock within a poll (1 ms) are one input here, where a spinning core would have seen both.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from mmbot import clock, config, topology
from mmbot.core.burst import TIMER_NS
from shm_layout import records as r
from shm_layout.ring import RingReader
from shm_layout.segment import SegmentError, Space
from shm_layout.seqlock import SeqlockReader

ROOT = Path(__file__).resolve().parents[1]
EVENT = np.dtype([("src", "<i8"), ("at", "<i8"), ("now_ns", "<i8"), ("wall_ns", "<i8"), ("kind", "<i8")])
#: The record of each source, in the order in which `mmbot.core.step` takes them.
RECORDS = {
    r.SRC_MARKET: r.MARKET, r.SRC_ORACLE: r.ORACLE, r.SRC_SPOT: r.SPOT, r.SRC_OWN: r.OWN, r.SRC_PROGRAMME: r.PROGRAMME, r.SRC_MARKETS: r.MARKETS,
    r.SRC_ACCOUNT: r.ACCOUNT, r.SRC_GUARD: r.GUARD,
}
RINGS = {"md.market": r.SRC_MARKET, "md.oracle": r.SRC_ORACLE, "md.binance": r.SRC_SPOT, "md.coinbase": r.SRC_SPOT, "md.bybit": r.SRC_SPOT}
SEQLOCKS = {"own": r.SRC_OWN, "account": r.SRC_ACCOUNT, "guard": r.SRC_GUARD, "markets": r.SRC_MARKETS}
START_TIMEOUT_S = 40.0

CONFIG = """
profile = "paper"
[run]
name = "benchcore"
dir = "{dir}"
[sim]
base_port = {port}
start_before_roll_s = 6
"""


class Inputs:
    """Inputs in the order in which they came: ``add`` each, then ``done`` -> (EVENT array, {source: array of records})."""

    def __init__(self):
        self.events: list[tuple] = []
        self.records: dict[int, list] = {src: [] for src in RECORDS}

    def add(self, src: int, now_ns: int, wall_ns: int, record=None, kind: int = 0) -> None:
        """One input; ``record`` (1 element) is copied. ``kind`` names a row of the caller's table."""
        at = 0
        if record is not None:
            at = len(self.records[src])
            self.records[src].append(record.copy())
        self.events.append((src, at, now_ns, wall_ns, kind))

    def done(self) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        """Sorted by time; a source without a record has one of zeros."""
        events = np.array(self.events, EVENT)
        return events[np.argsort(events["now_ns"], kind="stable")], {src: np.concatenate(rows) if rows else np.zeros(1, RECORDS[src]) for src, rows in self.records.items()}


class Listener:
    """Reads what the core reads."""

    def __init__(self, space: Space, wall: clock.WallClock):
        self.wall, self.out = wall, Inputs()
        self.rings = [(src, RingReader(space.attach(name))) for name, src in RINGS.items()]
        self.cells = [(src, SeqlockReader(space.attach(name)), i) for name, src in SEQLOCKS.items() for i in range(topology.SEQLOCKS[name].count)]
        self.seen = [0] * len(self.cells)
        self.memory, self.books = SeqlockReader(space.attach("oracle")), SeqlockReader(space.attach("book"))

    def add(self, src: int, now_ns: int, record) -> None:
        self.out.add(src, now_ns, self.wall.at(now_ns), record)

    def present(self) -> None:
        """The present, as a core that starts takes it in."""
        now = clock.mono_ns()
        self.poll()
        if self.memory.read() > 0:
            memory = self.memory.rec[0]
            for record in (*memory["boundary"], memory["twap60"], memory["spot"]):
                if record["t_obs_ms"] > 0:
                    self.add(r.SRC_ORACLE, now, record.reshape(1))
        for slot in range(r.MARKET_SLOTS):
            if self.books.read(slot) > 0:
                self.add(r.SRC_MARKET, now, self.books.rec)

    def poll(self) -> None:
        """Whatever is new: a ring's record counts from when it was published, a seqlock's value from now."""
        for src, ring in self.rings:
            while ring.poll():
                self.add(src, int(ring.rec["t_pub_ns"][0]) + 1000, ring.rec)
        now = clock.mono_ns()
        for i, (src, cell, index) in enumerate(self.cells):
            if cell.version(index) != self.seen[i] and (got := cell.read(index)) > 0:
                self.seen[i] = got
                self.add(src, now, cell.rec)

    def timers(self) -> None:
        """The core's own timer between the first and the last input."""
        times = [e[2] for e in self.out.events]
        for now in range(min(times), max(times), TIMER_NS):
            self.out.add(r.SRC_TIMER, now, self.wall.at(now))


def mmbot(*args: str, path: Path) -> None:
    """Run a command of the group. Errors: SystemExit with what it said."""
    done = subprocess.run([sys.executable, "-m", "mmbot.cli.main", *args, "--config", str(path)], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    if done.returncode:
        raise SystemExit(f"mmbot {args[0]}: {done.stderr.strip() or done.stdout.strip()}")


def wait_for_quotes(space: Space) -> None:
    """Until the group shows an order, so that the inputs hold own orders and fills. Errors: TimeoutError."""
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end:
        with contextlib.suppress(SegmentError):
            account = SeqlockReader(space.attach("account"))
            if account.read() > 0 and account.rec["live_orders"][0] > 0:
                return
        time.sleep(0.2)
    raise TimeoutError(f"the group shows no order within {START_TIMEOUT_S:.0f} s")


def record(seconds: float, directory: Path, port: int) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Start a group, listen for ``seconds`` from its first order on, stop it. Returns (events, records by source)."""
    path = directory / "bench.toml"
    path.write_text(CONFIG.format(dir=directory, port=port))
    cfg = config.load(path)
    try:
        mmbot("up", path=path)
        space = Space(cfg.run.name)
        wait_for_quotes(space)
        listener = Listener(space, clock.sync(cfg.venue.clock_url))
        listener.present()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            listener.poll()
            time.sleep(0.001)
        listener.timers()
        return listener.out.done()
    finally:
        mmbot("down", path=path)


def save(path: Path, events: np.ndarray, records: dict[int, np.ndarray]) -> None:
    """Keep inputs in a file, for another look at the same ones."""
    np.savez_compressed(path, events=events, layout=np.array(json.dumps(r.LAYOUT_HASH)), **{f"src{src}": rows for src, rows in records.items()})


def load(path: Path) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """What `save` kept. Errors: ValueError when it was kept by another layout."""
    with np.load(path) as kept:
        if json.loads(str(kept["layout"])) != r.LAYOUT_HASH:
            raise ValueError(f"{path} holds records of another layout: record again (leave out --inputs)")
        return kept["events"], {src: kept[f"src{src}"] for src in RECORDS}
