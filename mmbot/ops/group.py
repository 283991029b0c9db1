"""Starting, stopping and mending the group of processes.

Owns: the order of start (lock, memory, supervisord, wait until all run) and of stop (executor first, the exchange last).
Writes: fresh segments before anything runs, the run directory. Reads: vitals, the supervisor.
Can go wrong, each with one clear line: a second instance, processes left over from a killed supervisord, a port in use, a process that
does not come up (its last log lines are shown and everything is stopped again).
"""

import ctypes
import difflib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

import mmbot
from mmbot import config, deaths, topology
from mmbot.clock import mono_ns
from mmbot.errors import UserError
from mmbot.ops import warm
from mmbot.ops.account import able_to_ask
from mmbot.ops.flatten import cancel_everything
from mmbot.ops.instance import Instance, write_pid
from mmbot.ops.supervisord import AT_REST, Program, Supervisor, SupervisorError, is_failed_start
from mmbot.ops.view import View
from shm_layout.segment import SegmentError, Space

START_S = 60.0          # from supervisord's first answer until every process runs
SUPERVISOR_S = 10.0
LEFTOVERS_S = 5.0
STEADY_NS = 1_000_000_000  # all in RUN for so long counts as started
STOP_S = 15.0           # more than the longest stopwaitsecs of supervisor.conf
POLL_S = 0.05
TAIL_LINES = 6
PAPER_PORTS = 8
_PR_SET_PDEATHSIG = 1

Say = Callable[[str], None]


@dataclass(frozen=True)
class Restarted:
    """What `restart` saw: identity before and after, and the time from the request until RUN, s."""
    name: str
    old_pid: int
    new_pid: int
    old_epoch: int
    new_epoch: int
    seconds: float


def conf_path() -> Path:
    """supervisor.conf, which lies next to the package in the source tree."""
    path = Path(mmbot.__file__).resolve().parents[1] / "supervisor.conf"
    if not path.exists():
        raise UserError(f"{path} is missing: mmbot runs from its source tree, installed with `pip install -e .`")
    return path


def nearest(name: str, names: list[str]) -> list[str]:
    """``names`` with the most similar to ``name`` first."""
    return sorted(names, key=lambda n: -difflib.SequenceMatcher(None, name, n).ratio())


def port_holders(ports: list[int]) -> dict[int, str]:
    """Ports of this machine that are listened on, each with who does it in words."""
    taken = {}
    for c in psutil.net_connections("tcp"):
        if c.status == psutil.CONN_LISTEN and c.laddr.port in ports:
            taken[c.laddr.port] = f"pid {c.pid} ({_command(c.pid)})" if c.pid else "another user's process"
    return taken


def paper_ports(cfg: config.Settings) -> list[int]:
    """The exchange simulator's listening ports."""
    return list(range(cfg.sim.base_port, cfg.sim.base_port + PAPER_PORTS))


def check_ports(cfg: config.Settings) -> None:
    """UserError when a port the exchange simulator needs is taken."""
    taken = port_holders(paper_ports(cfg)) if cfg.profile == "paper" else {}
    for port, who in sorted(taken.items()):
        raise UserError(f"port {port} is in use by {who}: stop that, or choose another sim.base_port "
                        f"(the exchange needs {PAPER_PORTS} ports from there)")


def _command(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())[:60] or "?"
    except psutil.Error:
        return "?"


class _Deaths:
    """Counts failed starts. One is forgiven: on a slow machine a process may wait in vain for the exchange and find it the next time."""

    FORGIVEN = 1

    def __init__(self, names: list[str]):
        self._times, self._down = dict.fromkeys(names, 0), set()

    def gave_up(self, programs: dict[str, Program], view: View) -> str | None:
        """Name of a process that will not start; call it often, each failed start lasts at least a second."""
        for name in self._times:
            failed = is_failed_start(programs[name])
            self._times[name] += failed and name not in self._down
            (self._down.add if failed else self._down.discard)(name)
            if programs[name].state == "FATAL" or max(self._times[name], view.identity(name)[1] - 1) > self.FORGIVEN:
                return name
        return None

NEVER_RAN, UNREADABLE = "NEVER_RAN", "UNREADABLE"      # beside the states of mmbot.ops.view


class Group:
    """The processes of one instance. ``say`` gets one line per step, for a person to read."""

    def __init__(self, cfg: config.Settings, say: Say = lambda line: None):
        self.cfg, self.say = cfg, say
        self.instance = Instance(cfg)
        self.supervisor = Supervisor(self.instance.socket_path)
        rows = topology.processes(cfg.profile, cfg)
        self.names = [p.name for p in rows]
        self.awaited = [p.name for p in rows if p.cpu != "idle"]     # on a busy machine an idle-class process may take minutes to start
        self._since: dict[str, int] = {}

    # ---- start

    def up(self, die_with_parent: bool = False) -> View:
        """Start everything and wait until every process is in RUN; returns a view of the memory.

        ``die_with_parent``: supervisord gets SIGTERM when this process dies, however it dies.
        Errors: UserError naming the cause; nothing is left running then.
        """
        self.instance.prepare()
        lock = self.instance.lock()
        try:
            warm.ensure(self.say)
            self._refuse_leftovers()
            check_ports(self.cfg)
            space = Space(self.cfg.run.name)
            space.wipe()
            space.create_missing(topology.RINGS, topology.SEQLOCKS, [p.name for p in topology.PROCESSES])
            self.instance.forget_paper()
            deaths.forget(self.instance.dir)
            self.instance.save_config()
            self._since = self.instance.log_sizes()
            child = self._spawn_supervisord(lock, die_with_parent)
        finally:
            os.close(lock)
        try:
            self._wait_supervisord(child)
            return self._wait_run()
        except BaseException:
            self.say("stopping what was started")
            self._stop_supervisord(child.pid)
            child.wait()
            raise

    def _refuse_leftovers(self) -> None:
        deadline = mono_ns() + int(LEFTOVERS_S * 1e9)
        while (held := leftovers(self.cfg)) and mono_ns() < deadline:
            time.sleep(POLL_S)      # the kernel has told them that their supervisor died; they are on their way out
        if held:
            names = ", ".join(f"{name} (pid {pid})" for name, pid in held.items())
            raise UserError(f"processes of an earlier {self.cfg.run.name} still run without a supervisor: {names}; "
                            "stop them with `mmbot down`")

    def _spawn_supervisord(self, lock: int, die_with_parent: bool) -> subprocess.Popen:
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(conf_path())]
        with open(self.instance.log_dir / "supervisord.log", "ab") as log:
            child = subprocess.Popen(command, env=self.instance.environment(sys.executable), stdin=subprocess.DEVNULL, stdout=log,
                                     stderr=log, start_new_session=True, pass_fds=(lock,), preexec_fn=before_supervisord(die_with_parent))
        write_pid(lock, child.pid)
        self.say(f"supervisord has pid {child.pid}")
        return child

    def _wait_supervisord(self, child: subprocess.Popen) -> None:
        deadline = mono_ns() + int(SUPERVISOR_S * 1e9)
        while mono_ns() < deadline:
            if child.poll() is not None:
                break
            try:
                self.supervisor.pid()
                return
            except SupervisorError:
                time.sleep(POLL_S)
        tail = "\n".join(self.instance.log_tail("supervisord", TAIL_LINES, self._since))
        raise UserError(f"supervisord did not start (exit code {child.poll()}); its log says:\n{tail}")

    def _wait_run(self) -> View:
        view = View(self.cfg)
        begin, shown, steady_since, deaths = mono_ns(), set(), 0, _Deaths(self.names)
        while mono_ns() - begin < START_S * 1e9:
            states = {name: view.state(name) for name in self.names}
            for name in (n for n in self.names if states[n] == "RUN" and n not in shown):
                shown.add(name)
                self.say(f"{name} runs after {(mono_ns() - begin) / 1e9:.1f} s")
            late = next((n for n in self.awaited if states[n] != "RUN"), None)
            if late:
                steady_since = 0
            elif not steady_since:
                steady_since = mono_ns()
            elif mono_ns() - steady_since > STEADY_NS:
                return view
            if dead := deaths.gave_up(self.supervisor.programs(), view):
                raise UserError(self._failure(dead, "did not start"))
            time.sleep(POLL_S)
        raise UserError(self._failure(late or self.names[-1], f"is not in RUN {START_S:g} s after the start"))

    def _failure(self, name: str, what: str) -> str:
        tail = self.instance.log_tail(name, TAIL_LINES, self._since)
        return "\n".join([f"{name} {what}; {self.instance.log_dir / name}.log says:", *(f"  {line}" for line in tail or ["(nothing)"])])

    # ---- stop

    def down(self) -> None:
        """Stop everything in order: executor (it cancels all and verifies), the others, the exchange last.

        UserError when nothing runs. When the executor cannot cancel for itself, it is done from here.
        """
        pid = self.instance.holder()
        if pid is None:
            held = leftovers(self.cfg)
            if not held:
                raise UserError(f"{self.cfg.run.name} is not running")
            self._stop_leftovers({n: pid for n, pid in held.items() if n != "sim"})
            if "executor" in held and _state(View(self.cfg), "executor") != "HALT":
                self._cancel_from_here()
            self._stop_leftovers(leftovers(self.cfg))
            return
        try:
            self._stop_programs()
        except SupervisorError as e:
            self.say(f"{e}: stopping it by signal")
        self._stop_supervisord(pid)
        self._stop_leftovers(leftovers(self.cfg))

    def _stop_programs(self) -> None:
        view = View(self.cfg)
        last = [n for n in self.names if n == "sim"]
        for names in (["executor"], [n for n in self.names if n not in ("executor", "sim")], last):
            for name in names:
                self.supervisor.stop(name)
                if _state(view, name) == "HUNG":
                    self.supervisor.kill(name)
            self._wait_rest(names)
            if names:
                self.say(f"stopped {', '.join(names)}")
            if "executor" in names and _state(view, "executor") not in ("HALT", NEVER_RAN):
                self._cancel_from_here()

    def _cancel_from_here(self) -> None:
        """The executor could not say goodbye, so its orders may rest: cancel them over a connection of our own. In a dry run none of them is ours."""
        if self.cfg.execution.dry_run:
            return
        try:
            done = cancel_everything(able_to_ask(self.cfg))
        except UserError as e:
            self.say(f"the executor did not end in order and its orders could not be cancelled from here: {e}")
            return
        self.say(f"the executor did not end in order: {len(done.cancelled)} orders cancelled from here, {len(done.left)} left"
                 + (f" ({done.trouble})" if done.trouble else ""))

    def _wait_rest(self, names: list[str]) -> None:
        deadline = mono_ns() + int(STOP_S * 1e9)
        while mono_ns() < deadline:
            programs = self.supervisor.programs()
            if all(programs[n].state in AT_REST for n in names if n in programs):
                return
            time.sleep(POLL_S)
        raise SupervisorError(f"{', '.join(names)} did not stop within {STOP_S:g} s")

    def _stop_supervisord(self, pid: int) -> None:
        """SIGTERM to supervisord (it stops what runs, last started first), SIGKILL when that takes too long."""
        for sig, patience_s in ((signal.SIGTERM, 2 * STOP_S), (signal.SIGKILL, 2.0)):
            try:
                os.kill(pid, sig)
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                return
            deadline = mono_ns() + int(patience_s * 1e9)
            while mono_ns() < deadline:
                if self.instance.holder() is None:
                    return
                time.sleep(POLL_S)

    def _stop_leftovers(self, held: dict[str, int]) -> None:
        """Processes that outlived their supervisor: SIGTERM, and SIGKILL to those that do not listen."""
        for sig, patience_s in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, 2.0)):
            for name, pid in held.items():
                self.say(f"stopping {name}, left over with pid {pid}, by {sig.name}")
                try:
                    os.kill(pid, sig)
                except ProcessLookupError:
                    continue
            deadline = mono_ns() + int(patience_s * 1e9)
            while held and mono_ns() < deadline:
                held = leftovers(self.cfg)
                time.sleep(POLL_S)
            if not held:
                return

    # ---- mend

    def restart(self, name: str) -> Restarted:
        """Stop and start one process and wait until it is in RUN again; nobody else is touched.

        UserError: a wrong name (the valid ones are named, nearest first), no group, or a process that does not come back.
        """
        if name not in self.names:
            raise UserError(f"there is no process {name!r}; there are: {', '.join(nearest(name, self.names))}")
        if self.instance.holder() is None:
            raise UserError(f"{self.cfg.run.name} is not running: start it with `mmbot up`")
        view = View(self.cfg)
        before = view.identity(name)
        self._since = self.instance.log_sizes()
        begin = mono_ns()
        self.supervisor.stop(name)
        if view.state(name) == "HUNG":
            self.supervisor.kill(name)
        self._wait_rest([name])
        deaths.forget(self.instance.dir, name)
        self.supervisor.start(name)
        while mono_ns() - begin < (STOP_S + START_S) * 1e9:
            after = view.identity(name)
            if after[1] > before[1] and view.state(name) == "RUN":
                return Restarted(name, before[0], after[0], before[1], after[1], (mono_ns() - begin) / 1e9)
            if is_failed_start(self.supervisor.programs()[name]):
                raise UserError(self._failure(name, "did not start again"))
            time.sleep(POLL_S)
        raise UserError(self._failure(name, "did not come back"))


def before_supervisord(die_with_parent: bool) -> Callable[[], None]:
    """For Popen's preexec_fn: no core files, which would hold keys; with ``die_with_parent`` the child gets SIGTERM from the kernel when this
    process ends, however it ends."""
    libc = ctypes.CDLL(None)        # loaded here: the child may only make the calls

    def prepare() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if die_with_parent:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return prepare


def is_up(cfg: config.Settings) -> bool:
    """True while the group's supervisord (or an `mmbot up` on its way) holds the instance."""
    return Instance(cfg).holder() is not None


def leftovers(cfg: config.Settings) -> dict[str, int]:
    """Processes (name -> pid) that hold segments of the instance right now."""
    return {segment.removeprefix("vitals."): pid for segment, pid in Space(cfg.run.name).holders().items()
            if segment.startswith("vitals.") and pid}


def _state(view: View, name: str) -> str:
    """State of a process as far as its memory tells: a group of another build must be stoppable too."""
    try:
        return view.state(name) if view.identity(name)[0] else NEVER_RAN
    except SegmentError:
        return UNREADABLE
