"""The whole group as a user runs it: it quotes, every command answers, each process can be restarted or killed, nothing is lost, no secret shows.

It trades an account with fresh secrets; at the end everything it left behind is searched for them.
MMBOT_KILL_ROUNDS rounds of a random process stopped or killed while random faults of the exchange run (default 3; `make chaos` does 200), from the
seed MMBOT_KILL_SEED.
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
from chaos import Chaos  # noqa: E402
from running import ROOT, WORKERS, Purse, Running, free_ports, wait_for  # noqa: E402
from searching import environment, found, places  # noqa: E402

ROUNDS = int(os.environ.get("MMBOT_KILL_ROUNDS", "3"))
SEED = int(os.environ.get("MMBOT_KILL_SEED", "1"))
EVERYBODY = [*WORKERS, "sim"]       # awake belongs to the idle class: how soon it is back says nothing on a busy machine
STATEFUL = ("core", "feed_market", "feed_user", "executor", "settler", "guardian")      # what a short run kills in turn; `make chaos` kills all
WEDGE = Path(__file__).parent / "wedge"
pytestmark = pytest.mark.timeout(600 + 60 * ROUNDS)


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    running = Running(tmp_path_factory.mktemp("group"), f"s{uuid.uuid4().hex[:6]}", free_ports(), deadline_s=900 + 60 * ROUNDS, purse=Purse(),
                      env={"PYTHONPATH": f"{WEDGE}{os.pathsep}{ROOT}"})
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
    assert {p["state"] for p in status["processes"] if p["name"] != "awake"} == {"RUN"}, "all but the one that only gets what others leave"
    assert any(m["live_orders"] for m in status["markets"]) and status["account"]["cash"] > 0
    latency = {h["hop"]: h for h in group.json("latency")["hops"]}
    assert latency["recv_pub"]["count"] and latency["pub_poll"]["count"] and latency["poll_decide"]["count"]
    assert {(x["ring"], x["reader"]) for x in group.json("lag")["links"]} >= {("md.market", "core"), ("user", "executor")}


def test_memory_is_sound_and_bounded(group):
    assert group.mmbot("shm", "check").returncode == 0
    most_mb = {"core": 330}         # the kernels of every signal and strategy, and half an hour of decisions in its ring
    assert {p["name"]: p["rss_mb"] for p in group.json("status")["processes"] if p["rss_mb"] > most_mb.get(p["name"], 250)} == {}


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


@pytest.mark.parametrize("name", ["core", "executor", "feed_market", "feed_user", "feed_oracle"])
def test_a_wedged_loop_costs_the_orders(group, name):
    group.wait_quoting()
    panics = group.json("status")["guard"]["panics"]
    os.kill(group.pid(name), signal.SIGUSR2)
    wait_for(lambda: int(group.view.latest("guard")["panics"]) > panics, 5, "the guardian does not see a loop that stands still")
    wait_for(lambda: not group.books()["orders"], 2, "orders of a wedged process stay at the exchange")
    group.wait_quoting()


def test_processes_that_are_not_vital_cost_nothing(group):
    group.wait_quoting()
    before = group.json("status")["guard"]["panics"]
    for name in ("feed_coinbase", "feed_bybit"):
        os.kill(group.pid(name), signal.SIGSTOP)
    try:
        time.sleep(2.0)
        group.wait_quoting()
        guard = group.view.latest("guard")
        assert int(guard["panics"]) == before or not int(guard["reasons"]), "their silence was held against somebody"
    finally:
        for name in ("feed_coinbase", "feed_bybit"):
            os.kill(group.pid(name), signal.SIGCONT)


def test_kill_9_of_each_process_in_turn(group):
    for name in EVERYBODY if ROUNDS > 3 else STATEFUL:
        group.killed(name)
        group.wait_quoting(60)
        group.wait_agreement()
    assert group.books()["fills"], "books without fills agree too easily"


def test_kills_and_stops_at_random_under_faults(group):
    chaos = Chaos(group, SEED, EVERYBODY)
    for _ in range(ROUNDS):
        chaos.round()
        print(chaos.rounds[-1], flush=True)
    print(chaos.summary(), flush=True)


def test_killed_exchange_comes_back_with_the_same_books(group):
    group.wait_agreement()
    fills = {(f["trade_id"], f["order_id"]) for f in group.books()["fills"]}
    group.killed("sim")
    group.wait_quoting(60)
    assert {(f["trade_id"], f["order_id"]) for f in group.books()["fills"]} >= fills
    group.wait_agreement()


def test_reconcile_of_a_group_at_work(group):
    group.wait_quoting()
    done = group.mmbot("reconcile", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_crash_and_everything_else_shows_no_secret(group):
    """A crash in the process that has the secrets, with them in sight of the traceback; then every place is searched for them."""
    group.wait_quoting()
    for name, ways in (("executor", [signal.SIGUSR1]), ("guardian", [signal.SIGUSR1, signal.SIGABRT]), ("feed_user", [signal.SIGUSR1, signal.SIGABRT])):
        before, pid = group.epochs()[name], group.pid(name)
        for way in ways:            # an event loop reports the exception and goes on; the executor's does not trust its books after one
            os.kill(pid, way)
            time.sleep(0.3)
        wait_for(lambda n=name, b=before: group.epochs()[n] > b and group.view.state(n) == "RUN", 60, f"{name} does not come back from a crash")
    group.since_ns = mono_ns()
    group.wait_quoting(60)
    for args in (("doctor",), ("doctor", "--json"), ("status",), ("status", "--json"), ("flatten",)):
        group.mmbot(*args, check=False)
    pids = {name: group.pid(name) for name in EVERYBODY}
    everything = list(places(group.cfg.run.path, group.cfg.run.name, group.said, [*pids.values(), group.child.pid]))
    assert any(b"a crash on purpose, 3 secrets in sight" in content for _, content in everything), "no crash was logged"
    assert len(everything) > 40 and sum(len(content) for _, content in everything) > 1_000_000
    assert found(group.purse.secrets, iter(everything)) == []
    assert found(group.purse.secrets, iter([("planted", f"key {group.purse.key}".encode())])) == ["private key in planted"], "the search finds nothing"
    for name, pid in pids.items():
        has_key = bool(environment(pid).get("MMBOT_ACCOUNT__PRIVATE_KEY"))
        assert has_key == (name in ("executor", "settler")), f"{name} {'has' if has_key else 'lacks'} the private key"


def test_stop_leaves_no_order_and_reports(group):
    document = group.stop()
    assert set(document) == {"orders", "cancels", "fills", "rejects", "late", "late_result", "positions", "pnl", "split", "settlement", "windows", "halts",
                             "latency", "lag"}
    assert document["orders"] > 0 and document["cancels"] > 0
    assert any(w["quoted_up"] and w["quoted_down"] for w in document["windows"])
    assert int(group.view.latest("account")["live_orders"]) == 0
    assert set(group.states().values()) <= {"HALT"}
