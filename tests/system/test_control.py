"""Start and stop of a group when things go wrong, with stand-ins for the processes: a process that fails at start, a supervisor that
is killed, a process that hangs, a port that is taken. The stand-ins use the real harness, so locks, vitals and signals are real.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from mmbot import config, topology
from mmbot.ops.group import is_up, leftovers
from mmbot.ops.instance import Instance
from mmbot.ops.view import View
from shm_layout.segment import Space

sys.path.insert(0, str(Path(__file__).parent))
from running import CONFIG, free_ports, wait_for  # noqa: E402

pytestmark = pytest.mark.timeout(300)
STAND_IN = '''"""A stand-in."""
import os

from mmbot.actor import run_async
from mmbot.errors import UserError


async def main(actor):
    if os.environ.get("STAND_IN_FAILS") == actor.name:
        raise UserError("this stand-in was told to fail")
    await actor.stopped.wait()

run_async("{name}", main)
'''
EXCHANGE = '''"""A stand-in that serves the clock and nothing else."""
import asyncio, json

from mmbot.actor import run_async


async def main(actor):
    async def answer(reader, writer):
        await reader.readuntil(b"\\r\\n\\r\\n")
        body = json.dumps(actor.clock.as_dict()).encode()
        writer.write(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
        await writer.drain()
        writer.close()
    await asyncio.start_server(answer, "127.0.0.1", actor.cfg.sim.base_port)
    await actor.stopped.wait()

run_async("sim", main)
'''


@pytest.fixture
def stage(tmp_path):
    """(config path, environment) of a group of stand-ins; whatever it left is killed and wiped."""
    procs = tmp_path / "procs"
    procs.mkdir()
    (procs / "__init__.py").touch()
    for row in topology.PROCESSES:
        (procs / f"{row.name}.py").write_text(EXCHANGE if row.name == "sim" else STAND_IN.replace("{name}", row.name))
    path = tmp_path / "c.toml"
    path.write_text(CONFIG.format(name=f"c{uuid.uuid4().hex[:6]}", dir=tmp_path, port=free_ports(), before_roll_s=45))
    yield path, os.environ | {"PYTHONPATH": str(tmp_path)}
    cfg = config.load(path)
    pids = {Instance(cfg).holder() or 0, *Space(cfg.run.name).holders().values()} - {0}
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not any(Space(cfg.run.name).holders().values()), 10, "processes stay behind")
    Space(cfg.run.name).wipe()


def mmbot(stage, *args: str, **env: str) -> subprocess.CompletedProcess:
    path, environment = stage
    return subprocess.run([sys.executable, "-m", "mmbot.cli.main", *args, "-c", str(path)], capture_output=True, text=True, timeout=120,
                          env=environment | env)


def test_a_process_that_fails_at_start_is_named_and_nothing_stays(stage):
    done = mmbot(stage, "up", STAND_IN_FAILS="guardian")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "guardian did not start" in done.stderr
    cfg = config.load(stage[0])
    assert not is_up(cfg) and leftovers(cfg) == {}


def test_a_taken_port_is_named_with_who_holds_it(stage):
    cfg = config.load(stage[0])
    with socket.socket() as s:
        s.bind(("127.0.0.1", cfg.sim.base_port + 2))
        s.listen()
        done = mmbot(stage, "up")
    assert done.returncode == 2 and f"port {cfg.sim.base_port + 2} is in use by pid {os.getpid()}" in done.stderr
    assert "sim.base_port" in done.stderr and not is_up(cfg)


def test_killed_supervisor_hung_process_and_orderly_stop(stage):
    assert mmbot(stage, "up").returncode == 0
    cfg = config.load(stage[0])
    view, first = View(cfg), Instance(cfg).holder()
    assert {view.state(p.name) for p in topology.processes("paper")} == {"RUN"}

    os.kill(first, signal.SIGKILL)
    wait_for(lambda: not is_up(cfg), 5, "the kernel drops the lock of a dead supervisor")
    wait_for(lambda: leftovers(cfg) == {}, 10, "processes outlive their supervisor")
    done = mmbot(stage, "status")
    assert done.returncode == 3 and "is not running" in done.stderr

    assert mmbot(stage, "up").returncode == 0, "a killed supervisor blocks nothing"
    assert Instance(cfg).holder() != first
    os.kill(view.identity("feed_user")[0], signal.SIGSTOP)
    wait_for(lambda: view.state("feed_user") == "HUNG", 5, "a stopped process is hung")
    done = mmbot(stage, "down")
    assert done.returncode == 0, done.stderr
    assert not is_up(cfg) and leftovers(cfg) == {}
    assert view.state("executor") == "HALT" and view.state("feed_user") == "DEAD"
    assert mmbot(stage, "down").returncode == 3


def test_a_crash_loop_ends_and_says_why(stage):
    """A process that dies again and again, each time after it had run well: it is started a few times, then it stays down until a person says so."""
    assert mmbot(stage, "up", MMBOT_RUN__RESTART_BUDGET="2").returncode == 0
    cfg = config.load(stage[0])
    view = View(cfg)
    others = {p.name: view.identity(p.name) for p in topology.processes("paper") if p.name != "feed_user"}
    for life in range(1, 4):
        wait_for(lambda: view.state("feed_user") == "RUN" and view.identity("feed_user")[1] == life, 15, f"life {life} does not begin")
        time.sleep(2.5)         # longer than startsecs: for supervisord this was a good start
        os.kill(view.identity("feed_user")[0], signal.SIGKILL)
    wait_for(lambda: next(p.state for p in view.processes() if p.name == "feed_user") in ("EXITED", "FATAL"), 60, "it is still being started")
    done = mmbot(stage, "status")
    assert done.returncode == 0 and "feed_user is not started any more: died 3 times in 10 min" in done.stdout and "mmbot restart feed_user" in done.stdout
    assert {name: view.identity(name) for name in others} == others
    assert mmbot(stage, "restart", "feed_user").returncode == 0
    assert view.state("feed_user") == "RUN"
    os.kill(view.identity("feed_user")[0], signal.SIGKILL)
    wait_for(lambda: view.state("feed_user") == "RUN", 15, "after a person has looked the count begins anew")
    assert mmbot(stage, "down").returncode == 0
