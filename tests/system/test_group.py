"""The whole group as a user runs it: it quotes, every command answers, each process can be restarted or killed, nothing is lost.

MMBOT_KILL_ROUNDS rounds of `kill -9`, each process in turn (default 1); `make chaos` does 20.
"""

import json
import os
import signal
import sys
import time
import uuid
from pathlib import Path

import pytest

from mmbot import topology
from mmbot.clock import mono_ns

sys.path.insert(0, str(Path(__file__).parent))
from running import WORKERS, Running, free_ports, wait_for  # noqa: E402

ROUNDS = int(os.environ.get("MMBOT_KILL_ROUNDS", "1"))
EVERYBODY = [*WORKERS, "awake", "sim"]
pytestmark = pytest.mark.timeout(600 + 120 * ROUNDS)


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    running = Running(tmp_path_factory.mktemp("group"), f"s{uuid.uuid4().hex[:6]}", free_ports(), deadline_s=900 + 120 * ROUNDS)
    try:
        running.wait_up()
        running.wait_quoting()
        yield running
    finally:
        running.clean_up()


def test_status_lag_latency_have_their_shapes(group):
    status = group.json("status")
    assert status["quoting"] is True and status["halt_reason"] is None
    assert [p["name"] for p in status["processes"]] == [p.name for p in topology.processes("paper")]
    assert {p["state"] for p in status["processes"]} == {"RUN"}
    assert any(m["live_orders"] for m in status["markets"]) and status["account"]["cash"] > 0
    latency = {h["hop"]: h for h in group.json("latency")["hops"]}
    assert latency["recv_pub"]["count"] and latency["pub_poll"]["count"] and latency["poll_decide"]["count"]
    assert {(x["ring"], x["reader"]) for x in group.json("lag")["links"]} >= {("md.market", "core"), ("user", "executor")}


def test_memory_is_sound_and_bounded(group):
    assert group.mmbot("shm", "check").returncode == 0
    assert {p["name"]: p["rss_mb"] for p in group.json("status")["processes"] if p["rss_mb"] > 250} == {}


def test_second_instance_names_the_pid(group):
    done = group.mmbot("up", check=False)
    pid = (group.cfg.run.path / "mmbot.lock").read_text().strip()
    assert done.returncode == 2 and f"pid {pid} holds" in done.stderr and "Traceback" not in done.stderr
    assert group.mmbot("shm", "wipe", check=False).returncode == 2, "nobody wipes memory that is in use"


def test_everything_answers_while_core_is_stopped(group):
    pid = group.pid("core")
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_for(lambda: group.view.state("core") == "HUNG", 10, "a stopped core is hung")
        begin = time.monotonic()
        assert next(p for p in group.json("status")["processes"] if p["name"] == "core")["state"] == "HUNG"
        links = {(x["ring"], x["reader"]): x for x in group.json("lag")["links"]}
        assert links["md.market", "core"]["lag"] > 0 and links["md.market", "core"]["oldest_unread_age_ns"] > 0
        assert group.json("latency")["hops"]
        assert time.monotonic() - begin < 30
        wait_for(lambda: not group.books()["orders"], 10, "orders of a hung core stay at the exchange")
    finally:
        os.kill(pid, signal.SIGCONT)
    group.wait_quoting()


def test_cancel_all_from_outside(group):
    group.wait_quoting()
    done = json.loads(group.mmbot("cancel-all", "--json").stdout)
    assert done["left"] == [] and set(done["before"]) & set(done["cancelled"])
    group.wait_quoting()
    group.wait_agreement()


@pytest.mark.parametrize("name", WORKERS)
def test_restart_touches_nobody_else(group, name):
    before = group.epochs()
    answer = group.json("restart", name)
    assert answer["new_epoch"] == before[name] + 1 and answer["new_pid"] != answer["old_pid"]
    group.since_ns = mono_ns()
    group.wait_quoting()
    assert {n: e for n, e in group.epochs().items() if n != name} == {n: e for n, e in before.items() if n != name}
    group.wait_agreement()


def test_kill_9_of_each_process_in_turn(group):
    for turn in range(ROUNDS):
        for name in EVERYBODY:
            group.killed(name)
            group.wait_quoting(60)
            group.wait_agreement()
        print(f"round {turn + 1}: {len(EVERYBODY)} killed, {len(group.books()['fills'])} fills, every position and order agrees", flush=True)
    assert group.books()["fills"], "books without fills agree too easily"


def test_killed_exchange_comes_back_with_the_same_books(group):
    group.wait_agreement()
    fills = {(f["trade_id"], f["order_id"]) for f in group.books()["fills"]}
    group.killed("sim")
    group.wait_quoting(60)
    assert {(f["trade_id"], f["order_id"]) for f in group.books()["fills"]} >= fills
    group.wait_agreement()


def test_stop_leaves_no_order_and_reports(group):
    document = group.stop()
    assert set(document) == {"orders", "cancels", "fills", "rejects", "positions", "pnl", "windows", "halts", "latency", "lag"}
    assert document["orders"] > 0 and document["cancels"] > 0
    assert any(w["quoted_up"] and w["quoted_down"] for w in document["windows"])
    assert int(group.view.latest("account")["live_orders"]) == 0
    assert set(group.states().values()) <= {"HALT"}
