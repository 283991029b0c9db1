"""The one run loop of every process: pin, lock, attach, recover, BOOT -> RUN -> HALT, work, housekeeping.

Owns: the order of start and stop, signals, doorbells, the process's vitals page and its log. A file in `procs/` is wiring only.
Writes: the segments its topology row names, and `vitals.<name>`. Reads: the segments the row names.
Can go wrong: bad config or a foreign segment (one line on stderr, exit 2); the lock is held by a live process (names its pid, exit 2);
the supervisor dies (this process gets SIGTERM and stops in order); this process dies again and again (from `run.restart_budget` on it refuses to
start and says so on its vitals page: the others see it down, which stops quoting where it must, and the supervisor gives up).

Start and crash recovery are the same path: attach, recover, read the present state, go on.
"""

import asyncio
import ctypes
import errno
import gc
import os
import random
import signal
import stat
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop
from loguru import logger

from mmbot import clock, config, deaths, topology
from mmbot.clock import mono_ns
from mmbot.errors import UserError
from shm_layout import vitals as vt
from shm_layout.ring import RingReader, RingWriter
from shm_layout.segment import SegmentError, Space
from shm_layout.seqlock import SeqlockReader, SeqlockWriter

HOUSEKEEPING_NS = 50_000_000
SPIN_HOUSEKEEPING_NS = 10_000_000
SAFETY_POLL_S = 0.005
LOG_EVERY_NS = 60_000_000_000
STALL_NS = 10_000_000
_PR_SET_PDEATHSIG = 1


class Doorbell:
    """The writing end of another process's FIFO. Ringing never blocks and never fails: the reader polls anyway."""

    RETRY_NS = 100_000_000

    def __init__(self, path: Path):
        self.path = path
        self._fd = -1
        self._retry_ns = 0

    def ring(self) -> None:
        if self._fd < 0 and not self._open():
            return
        try:
            os.write(self._fd, b"!")
        except BlockingIOError:
            pass                    # the FIFO is full: the reader has not even read the earlier rings
        except BrokenPipeError:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> bool:
        now = mono_ns()
        if now < self._retry_ns:
            return False
        try:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
            return True
        except OSError as e:        # no reader yet
            if e.errno not in (errno.ENXIO, errno.ENOENT):
                raise
            self._retry_ns = now + self.RETRY_NS
            return False


def _make_fifo(path: Path) -> int:
    """The reading end. Opened read-write, so the reader never sees end of file when a writer restarts."""
    try:
        os.mkfifo(path, 0o600)
    except FileExistsError:
        if not stat.S_ISFIFO(path.stat().st_mode):
            raise UserError(f"{path} is not a FIFO: remove it and start again") from None
    return os.open(path, os.O_RDWR | os.O_NONBLOCK)


class Actor:
    """What a process has: its settings, clock, log, vitals and exactly the rings and seqlocks of its topology row."""

    def __init__(self, name: str, cfg: config.Settings):
        self.name, self.cfg, self.row = name, cfg, topology.BY_NAME[name]
        self.place = topology.placement(self.row)
        self.stopping = False
        self.stopped: asyncio.Event | None = None
        self.on_bell: Callable[[], None] | None = None
        self._logged: dict[str, int] = {}
        self._cpu_ns = self._busy_since_ns = 0
        self._place_process()
        self.run_dir = cfg.run.path
        (self.run_dir / "log").mkdir(parents=True, exist_ok=True, mode=0o700)
        self._open_log()
        self._open_memory()
        self.clock = clock.WallClock() if name == "sim" else clock.sync(cfg.venue.clock_url)
        self._bells = {segment: [Doorbell(self.run_dir / f"bell.{p}") for p in readers]
                       for segment, readers in (topology.BELLS | topology.EARLY_BELLS).items() if segment in self.row.writes}
        self.log.info("start: cpus {} wait {} ({}), epoch {}", sorted(self.place.cpus), self.place.wait, self.place.why,
                      self.vitals_segment.epoch)

    def _place_process(self) -> None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if self.cfg.cpu.pin:
            os.sched_setaffinity(0, self.place.cpus)
        if self.row.cpu == "idle":
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        elif self.row.nice:
            try:
                os.setpriority(os.PRIO_PROCESS, 0, self.row.nice)
            except PermissionError:     # a negative nice needs CAP_SYS_NICE; without it the order of wake-ups is the kernel's
                pass

    def _open_log(self) -> None:
        logger.remove()
        logger.add(sys.stderr, level="WARNING", format="{time:HH:mm:ss.SSS} {level} {message}", backtrace=False, diagnose=False)
        logger.add(self.run_dir / "log" / f"{self.name}.jsonl", level=self.cfg.log.level, serialize=True, rotation="10 MB",
                   retention=5, backtrace=False, diagnose=False)
        self.log = logger.bind(process=self.name)

    def _open_memory(self) -> None:
        row, space = self.row, Space(self.cfg.run.name)
        self.space = space
        space.create_missing(topology.RINGS, topology.SEQLOCKS, [p.name for p in topology.PROCESSES])
        self.vitals_segment = space.own(f"vitals.{self.name}")
        self._predecessor = vt.VitalsReader(self.vitals_segment).state()
        self.vitals = vt.VitalsWriter(self.vitals_segment, self.name, min(self.place.cpus))
        self.vitals.set_state(vt.BOOT)
        self.vitals.beat(mono_ns())
        self.ring_writers = {s: RingWriter(space.own(s)) for s in row.writes if s in topology.RINGS}
        self.seqlock_writers = {s: SeqlockWriter(space.own(s)) for s in row.writes if s in topology.SEQLOCKS}
        self.ring_readers = {s: RingReader(space.attach(s)) for s in row.reads if s in topology.RINGS}
        self.seqlock_readers = {s: SeqlockReader(space.attach(s)) for s in row.reads if s in topology.SEQLOCKS}
        self.vitals_readers = {p.name: vt.VitalsReader(space.attach(f"vitals.{p.name}"))
                               for p in topology.PROCESSES if row.reads_vitals and p.name != self.name}

    def ring_bells(self, segment: str) -> None:
        """Wake every process that waits for ``segment`` or for what it causes; call after publishing it."""
        for bell in self._bells.get(segment, ()):
            bell.ring()

    def bad_input(self, code: str, text: str) -> None:
        """Count a message we could not use; log it at most once a minute per code."""
        self.vitals.event("frames_bad")
        self._report(code, text, "WARNING")

    def warn(self, code: str, text: str) -> None:
        """Something a person should know; logged at most once a minute per code, kept in vitals."""
        self._report(code, text, "WARNING")

    def error(self, code: str, text: str) -> None:
        """Something that stops part of the work; logged at most once a minute per code, kept in vitals."""
        self._report(code, text, "ERROR")

    def _report(self, code: str, text: str, level: str) -> None:
        now = mono_ns()
        self.vitals.error(code, text, now)
        if now - self._logged.get(code, -LOG_EVERY_NS) >= LOG_EVERY_NS:
            self._logged[code] = now
            self.log.log(level, "{}: {}", code, text)

    def housekeeping(self, now_ns: int, busy_pct: float | None = None) -> None:
        """Beat the heart and publish what this process knows of itself."""
        self.vitals.beat(now_ns)
        for reader in self.ring_readers.values():
            reader.observe(now_ns)
        self.vitals.links([(ring, reader.link) for ring, reader in self.ring_readers.items()])
        if busy_pct is None:
            if now_ns - self._busy_since_ns < 1_000_000_000:
                return
            cpu = clock.cpu_ns()
            busy_pct = 100 * (cpu - self._cpu_ns) / (now_ns - self._busy_since_ns)
            self._cpu_ns, self._busy_since_ns = cpu, now_ns
        self.vitals.busy(busy_pct)

    def refuse_crash_loop(self) -> None:
        """Leave with `deaths.STAYS_DOWN` when this process has died too often lately: it stays down until a person has looked."""
        run = self.cfg.run
        died = deaths.count(self.run_dir, self.name, mono_ns(), run.restart_window_s, self._predecessor in (vt.BOOT, vt.RUN))
        if 0 < run.restart_budget < died:
            self.vitals.set_state(vt.HALT)
            self.error("crash_loop", f"died {died} times in {run.restart_window_s / 60:g} min, stays down: see log/{self.name}.log, "
                                     f"then `mmbot restart {self.name}`")
            time.sleep(deaths.LAST_LIFE_S)
            sys.exit(deaths.STAYS_DOWN)

    def halt(self) -> None:
        """Last words: a HALT state that others can tell from a crash."""
        self.vitals.set_state(vt.HALT)
        self.vitals.beat(mono_ns())
        self.log.info("stop")


def _boot(name: str) -> Actor:
    return Actor(name, config.load())


def _guarded(name: str, work: Callable[[Actor], None]) -> None:
    """Run ``work`` with one clear line for a user's mistake and a logged traceback for ours."""
    try:
        actor = _boot(name)
    except (UserError, SegmentError) as e:
        print(f"mmbot {name}: {e}", file=sys.stderr, flush=True)
        sys.exit(2)
    try:
        actor.refuse_crash_loop()
        work(actor)
    except (UserError, SegmentError) as e:
        actor.error("fatal", str(e))
        sys.exit(2)
    except Exception:
        actor.vitals.error("crash", repr(sys.exc_info()[1])[:120], mono_ns())
        actor.log.exception("crash")
        raise
    actor.halt()


def run_async(name: str, main: Callable[[Actor], Awaitable[None]]) -> None:
    """Run an event-loop process until SIGTERM or SIGINT, or until ``main`` returns."""
    _guarded(name, lambda actor: uvloop.run(_async_life(actor, main)))


async def _async_life(actor: Actor, main: Callable[[Actor], Awaitable[None]]) -> None:
    loop = asyncio.get_running_loop()
    actor.stopped = asyncio.Event()

    def stop() -> None:
        actor.stopping = True
        actor.stopped.set()

    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, stop)
    if actor.row.wait == "doorbell":
        _listen(actor, loop)
    _housekeep(actor, loop, mono_ns())
    actor.vitals.set_state(vt.RUN)
    gc.collect()
    gc.freeze()
    gc.disable()
    await main(actor)


def _listen(actor: Actor, loop: asyncio.AbstractEventLoop) -> None:
    """Call ``actor.on_bell`` when somebody rang, and every few ms anyway, so a lost ring costs 5 ms and no more."""
    fd = _make_fifo(actor.run_dir / f"bell.{actor.name}")

    def rung() -> None:
        try:
            os.read(fd, 4096)
        except BlockingIOError:
            return
        if actor.on_bell is not None:
            actor.on_bell()

    def poll() -> None:
        loop.call_later(SAFETY_POLL_S, poll)
        if actor.on_bell is not None:
            actor.on_bell()

    loop.add_reader(fd, rung)
    loop.call_later(SAFETY_POLL_S, poll)


def _housekeep(actor: Actor, loop: asyncio.AbstractEventLoop, planned_ns: int, turn: int = 0) -> None:
    now = mono_ns()
    late = now - planned_ns
    if late > STALL_NS:
        actor.vitals.cycle(late)
    actor.housekeeping(now)
    if turn % 20 == 19:
        gc.collect(0)       # frozen objects are not visited, so this looks at the last second's garbage only
    delay = HOUSEKEEPING_NS * random.uniform(0.8, 1.2)      # jitter: no two processes in step
    loop.call_later(delay / 1e9, _housekeep, actor, loop, now + int(delay), turn + 1)


def run_spin(name: str, build: Callable[[Actor], tuple[Callable[[], int], Callable[[int], None], Callable[[], None]]]) -> None:
    """Run a process that owns its CPU.

    ``build(actor)`` returns (burst, housekeeping, close): burst() works for at most about 200 us and returns how many inputs it
    handled; housekeeping(now_ns) runs each 10 ms; close() once at the end.
    """
    _guarded(name, lambda actor: _spin_life(actor, build))


def _spin_life(actor: Actor, build) -> None:
    def stop(_signum, _frame) -> None:
        actor.stopping = True

    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, stop)
    burst, housekeeping, close = build(actor)
    actor.vitals.set_state(vt.RUN)
    gc.collect()
    gc.freeze()
    gc.disable()
    next_ns = mono_ns()
    bursts = worked = 0
    while not actor.stopping:
        if burst():
            worked += 1
        bursts += 1
        now = mono_ns()
        if now >= next_ns:
            if now - next_ns > STALL_NS:
                actor.vitals.cycle(now - next_ns)
            actor.housekeeping(now, 100 * worked / bursts)
            housekeeping(now)
            bursts = worked = 0
            next_ns = now + SPIN_HOUSEKEEPING_NS
    close()
