"""Client of the group's supervisord: XML-RPC over its unix socket.

Owns: nothing; asks and commands. Every call is bounded in time, because the commands that use it must answer even when
supervisord itself is stopped. Can go wrong: no socket, nobody behind it, or a refusal (SupervisorError, one line).
"""

import http.client
import xmlrpc.client
from dataclasses import dataclass
from pathlib import Path

from supervisor.xmlrpc import Faults, SupervisorTransport, UnixStreamHTTPConnection

from mmbot.deaths import STAYS_DOWN
from mmbot.errors import UserError

TIMEOUT_S = 5.0
#: states from which supervisord will not send a process anywhere by itself, once the group is being stopped
AT_REST = ("STOPPED", "EXITED", "FATAL", "UNKNOWN")


class SupervisorError(UserError):
    """supervisord did not answer, or refused."""


@dataclass(frozen=True)
class Program:
    """What supervisord knows about one process. ``state`` is its name in capitals (RUNNING, BACKOFF, FATAL ...), ``exit_code`` that of its last life."""
    name: str
    state: str
    pid: int
    spawn_error: str
    exit_code: int

    @property
    def gone_or_failing(self) -> bool:
        """True when it stays down or does not manage to start; not in the moment between a death and the next start."""
        return self.state in ("BACKOFF", "FATAL") or self.state == "EXITED" and self.exit_code == STAYS_DOWN


class _Transport(SupervisorTransport):
    """The supervisor package's transport with a time limit on each connection."""

    def __init__(self, socket_path: Path, timeout_s: float):
        super().__init__(None, None, f"unix://{socket_path}")

        class Connection(UnixStreamHTTPConnection):
            def connect(self) -> None:
                super().connect()
                self.sock.settimeout(timeout_s)

        def connection() -> Connection:
            made = Connection("localhost")
            made.socketfile = str(socket_path)
            return made

        self._get_connection = connection


class Supervisor:
    """Calls on one supervisord. A call that cannot be answered raises SupervisorError."""

    def __init__(self, socket_path: Path, timeout_s: float = TIMEOUT_S):
        self._path, self._timeout_s = socket_path, timeout_s

    def _call(self, method: str, *args):
        # One connection per call: a connection left half-read by a time-out cannot be used again.
        transport = _Transport(self._path, self._timeout_s)
        proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        try:
            return getattr(proxy.supervisor, method)(*args)
        except (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError) as e:
            raise SupervisorError(f"supervisord does not answer at {self._path} ({e}): `mmbot doctor` looks closer") from None
        finally:
            transport.close()

    def programs(self) -> dict[str, Program]:
        """Every process of the group by name."""
        return {p["name"]: Program(p["name"], p["statename"], p["pid"], p["spawnerr"], p["exitstatus"]) for p in self._call("getAllProcessInfo")}

    def pid(self) -> int:
        """Process id of supervisord itself."""
        return self._call("getPID")

    def start(self, name: str) -> None:
        """Ask for a start and return at once; a process that is up already is left alone."""
        self._tolerant((Faults.ALREADY_STARTED,), "startProcess", name, False)

    def stop(self, name: str) -> None:
        """Ask for a stop (SIGTERM, later SIGKILL) and return at once; a process at rest is left alone."""
        self._tolerant((Faults.NOT_RUNNING,), "stopProcess", name, False)

    def kill(self, name: str) -> None:
        """SIGKILL now: for a process that cannot hear anything else."""
        self._tolerant((Faults.NOT_RUNNING,), "signalProcess", name, "KILL")

    def shutdown(self) -> None:
        """Ask supervisord to stop whatever still runs and go."""
        self._tolerant((Faults.SHUTDOWN_STATE,), "shutdown")

    def _tolerant(self, fine: tuple[int, ...], method: str, *args) -> None:
        try:
            self._call(method, *args)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode not in fine:
                raise SupervisorError(f"supervisord refuses {method} {' '.join(map(str, args))}: {fault.faultString}") from None


def is_failed_start(program: Program) -> bool:
    """True when a process died before it had run for startsecs, or gave up."""
    return program.state in ("BACKOFF", "FATAL")
