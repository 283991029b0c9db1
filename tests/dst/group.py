"""The processes of a simulated group: the real code of each, its actor over private memory, and the supervisor that starts it again.

Owns: incarnations (start, SIGKILL, SIGSTOP, restart), bells, the core's turns. A kill drops the loop with all its callbacks and closes its
connections and files; shared memory and the run directory stay, as they do for real.
What can go wrong: a process ends by an exception (told to the observer, started again like any other).
"""

import asyncio
import importlib
import os
import traceback

from loguru import logger

from mmbot import topology
from mmbot.actor import Actor
from mmbot.clock import WallClock
from mmbot.core import WORK, Core
from mmbot.execution.order_journal import OrderJournal
from shm_layout import vitals as vt
from shm_layout.ring import RingReader, RingWriter
from shm_layout.seqlock import SeqlockReader
from tests.dst.loop import ProcessLoop, Scheduler
from tests.dst.memory import PIDS, Memory, TellingWriter

NAMES = ("discovery", "feed_market", "feed_user", "feed_oracle", "feed_binance", "core", "executor", "guardian")
BEAT_S, EXECUTOR_POLL_S, CORE_POLL_S = 0.25, 0.25, 0.2
RESTART_S = (0.3, 1.5)
_CLOCK_WORD = WORK.fields["scratch"][1] // 8 + 2
_US = 1_000


class SimActor(Actor):
    """An actor whose memory and clock are the simulation's; everything else is `Actor`."""

    def __init__(self, group: "Group", name: str):
        self.group, self.name, self.cfg, self.row = group, name, group.cfg, topology.BY_NAME[name]
        self.place = topology.Placement(frozenset([0]), self.row.wait, "simulated")
        self.stopping, self.stopped, self.on_bell = False, asyncio.Event(), None
        self._logged: dict[str, int] = {}
        self.run_dir, self.log = self.cfg.run.path, logger
        memory = group.memory
        self.vitals_segment = memory.own(f"vitals.{name}")
        self.vitals = vt.VitalsWriter(self.vitals_segment, name)
        row, tell = self.row, group.kick_core
        self.ring_writers = {s: RingWriter(memory.own(s)) for s in row.writes if s in topology.RINGS}
        self.seqlock_writers = {s: TellingWriter(memory.own(s), tell) for s in row.writes if s in topology.SEQLOCKS}
        self.ring_readers = {s: RingReader(memory.attach(s)) for s in row.reads if s in topology.RINGS}
        self.seqlock_readers = {s: SeqlockReader(memory.attach(s)) for s in row.reads if s in topology.SEQLOCKS}
        self.vitals_readers = {p.name: vt.VitalsReader(memory.attach(f"vitals.{p.name}"))
                               for p in topology.PROCESSES if row.reads_vitals and p.name != name}
        self.clock = WallClock(group.wall.wall0_ns, group.wall.mono0_ns, 1.0)
        self.vitals.beat(group.scheduler.mono_ns())

    def ring_bells(self, segment: str) -> None:
        for name in topology.BELLS.get(segment, ()):
            self.group.ring(name)
        if segment.startswith("md."):
            self.group.kick_core()

    def _report(self, code: str, text: str, level: str) -> None:
        self.group.on_report(self.name, code, text, level)
        super()._report(code, text, level)


class SimCore(Core):
    """The core with the scheduler's time in its scratch words."""
    scheduler: Scheduler = None

    def __init__(self, params):
        super().__init__(params)
        self._cells = memoryview(self.words)

    def spin(self) -> int:
        self._cells[_CLOCK_WORD] = self.scheduler.mono_ns()
        return super().spin()


class SimJournal(OrderJournal):
    """The order journal, without its thread; ``written``: every id that was ever on file, and since when (ns)."""
    written: dict[str, int] = {}

    def __init__(self, path):
        super().__init__(path, sync_thread=False)
        asyncio.get_running_loop().closers.append(self._drop)

    def append(self, lines: bytes) -> None:
        super().append(lines)
        now = asyncio.get_running_loop().scheduler.now_ns
        for line in lines.split(b"\n"):
            if line[:2] == b"S ":
                self.written.setdefault("0x" + line[2:66].decode(), now)

    def _drop(self) -> None:
        for fd in (self.fd, self._scratch):
            if fd >= 0:
                os.close(fd)
        self.fd = self._scratch = -1


class Incarnation:
    """One life of one process."""

    def __init__(self, name: str, loop: ProcessLoop):
        self.name, self.loop = name, loop
        self.actor: SimActor | None = None
        self.task: asyncio.Task | None = None
        self.bell = self.kicked = False
        self.turn = None


class Group:
    """All processes but the exchange. ``observer``: on_report, on_crash, on_life(name, what)."""

    def __init__(self, scheduler: Scheduler, network, cfg, wall: WallClock, observer):
        self.scheduler, self.network, self.cfg, self.wall, self.observer = scheduler, network, cfg, wall, observer
        self.memory = Memory()
        self.on_report = observer.on_report
        self.procs: dict[str, Incarnation] = {}
        self.buried: list = []
        self.supervised = True
        self.manager = None
        self.supervisor = ProcessLoop(scheduler, "supervisor")
        self._beat()

    # -- lives --

    def start(self, name: str) -> None:
        """A new incarnation."""
        if name in self.procs:
            return
        loop = ProcessLoop(self.scheduler, name, self.network)
        inc = self.procs[name] = Incarnation(name, loop)
        loop.on_error = lambda context: self._callback_error(inc, context)
        loop.call_soon(self._boot, inc)

    def _boot(self, inc: Incarnation) -> None:
        actor = inc.actor = SimActor(self, inc.name)
        self.memory.living.add(inc.name)
        self.observer.on_life(inc.name, "start")
        module = importlib.import_module(f"procs.{inc.name}")
        actor.vitals.set_state(vt.RUN)
        if inc.name == "core":
            inc.turn, inc.housekeeping, _ = module.build(actor)
            self._poll_core(inc)
            return
        if actor.row.wait == "doorbell":
            self._poll(inc)
        inc.task = inc.loop.create_task(module.main(actor))
        inc.task.add_done_callback(lambda task: self._ended(inc, task))

    def _beat(self) -> None:
        """The heartbeats of all that run: one timer instead of one for each process."""
        now = self.scheduler.mono_ns()
        for inc in self.procs.values():
            if inc.actor is not None and not inc.loop.frozen:
                inc.actor.vitals.beat(now)
        self.supervisor.call_later(BEAT_S, self._beat)

    def _ended(self, inc: Incarnation, task: asyncio.Task) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.observer.on_crash(inc.name, "".join(traceback.format_exception(error)))
        self._gone(inc, "end")

    def _callback_error(self, inc: Incarnation, context: dict) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) or error is None:
            return
        self.observer.on_crash(inc.name, context.get("message", "") + "\n" + "".join(traceback.format_exception(error)))

    def _gone(self, inc: Incarnation, how: str) -> None:
        if self.procs.get(inc.name) is not inc:
            return
        self.buried.append((inc, asyncio.all_tasks(inc.loop)))
        inc.loop.kill()
        del self.procs[inc.name]
        self.memory.living.discard(inc.name)
        self.observer.on_life(inc.name, how)
        if self.supervised:
            self.supervisor.call_later(self.scheduler.rng.uniform(*RESTART_S), self.start, inc.name)

    def kill(self, name: str) -> None:
        """SIGKILL."""
        if name in self.procs:
            self._gone(self.procs[name], "kill")

    def stop(self, name: str, for_s: float) -> None:
        """SIGSTOP, and SIGCONT after ``for_s``."""
        inc = self.procs.get(name)
        if inc is not None and not inc.loop.frozen:
            inc.loop.freeze()
            self.observer.on_life(name, "stop")
            self.supervisor.call_later(for_s, self._cont, inc)

    def _cont(self, inc: Incarnation) -> None:
        if not inc.loop.dead:
            inc.loop.thaw()
            self.observer.on_life(inc.name, "cont")

    def stopped(self, pid: int) -> bool:
        """Whether the process with this number (of its vitals page) is stopped."""
        return any(inc.loop.frozen for name, inc in self.procs.items() if PIDS[name] == pid)

    def term(self, name: str) -> None:
        """SIGTERM: an orderly stop."""
        inc = self.procs.get(name)
        if inc is not None and inc.actor is not None:
            if inc.task is None:
                self.kill(name)
                return
            inc.actor.stopping = True
            inc.loop.call_soon(inc.actor.stopped.set)

    # -- bells and the core's turns --

    def ring(self, name: str) -> None:
        """The bell of a process; it hears it a little later."""
        inc = self.procs.get(name)
        if inc is not None and not inc.bell:
            inc.bell = True
            inc.loop.call_ns(self.scheduler.now_ns + int(self.scheduler.rng.uniform(20, 200)) * _US, self._hear, (inc,))

    def _hear(self, inc: Incarnation) -> None:
        inc.bell = False
        if inc.actor is not None and inc.actor.on_bell is not None:
            inc.actor.on_bell()

    def _poll(self, inc: Incarnation) -> None:
        if inc.actor.on_bell is not None:
            inc.actor.on_bell()
        inc.loop.call_later(EXECUTOR_POLL_S, self._poll, inc)

    def kick_core(self) -> None:
        """Something was published: the spinning core sees it at once."""
        inc = self.procs.get("core")
        if inc is not None and inc.turn is not None and not inc.kicked:
            inc.kicked = True
            inc.loop.call_ns(self.scheduler.now_ns + int(self.scheduler.rng.uniform(1, 20)) * _US, self._turn_core, (inc,))

    def _turn_core(self, inc: Incarnation) -> None:
        inc.kicked = False
        for _ in range(64):
            if not inc.turn():
                break

    def _poll_core(self, inc: Incarnation) -> None:
        inc.housekeeping(self.scheduler.mono_ns())
        self._turn_core(inc)
        inc.loop.call_later(CORE_POLL_S, self._poll_core, inc)
