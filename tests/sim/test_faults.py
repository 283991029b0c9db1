"""The fault catalogue as a whole: names, determinism, schedules, the operator's routes, the command line, and what it costs when nothing runs."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fault_world import FaultWorld

from mmbot import config
from mmbot.cli import main
from mmbot.clock import mono_ns
from mmbot.errors import UserError
from mmbot.sim.faults import CATALOGUE, Faults, load_schedule
from mmbot.sim.http import Raw, Service
from mmbot.sim.server import SimServer

HERE = Path(__file__).parent
NAMES = """freeze_market freeze_user freeze_rtds freeze_polybolt freeze_binance frames_late frames_reordered frames_duplicated frames_dropped
book_rollback silent_deep_cancels user_lost user_delayed user_replayed post_answer_lost post_delayed ghost_fill retrying fill_after_cancel
batch_partly_refused boundary_rejects restart_425 post_only cancel_only disabled rate_limited slow_responses cloudflare_queue
heartbeat_mismatch heartbeat_lost balance_lag stale_reservation tick_change oracle_hole twap_late boundary_missing gamma_down slug_missing
market_without_book wrong_clock disconnect_without_close html_errors truncated_json geoblock closed_only unauthorized duplicate_fill_events
cross_match cancel_lost empty_listing ghost_book""".split()


# ---- the catalogue ----

def test_every_agreed_name_is_there_and_described():
    assert not set(NAMES) - set(CATALOGUE)
    for spec in CATALOGUE.values():
        assert spec.what and spec.sees and spec.stands_for and spec.place in ("http", "frames", "world")


def test_every_fault_has_a_test_that_sees_its_effect():
    text = "".join(p.read_text() for p in HERE.glob("test_faults_*.py"))
    assert [name for name in CATALOGUE if f'"{name}"' not in text] == []


@pytest.mark.parametrize(("call", "says"), [
    (("freeze_markt",), "unknown fault 'freeze_markt': did you mean 'freeze_market'?"),
    (("qqqq",), "choose one of"),
    (("post_delayed", {"dely_s": 3}), "no parameter 'dely_s': did you mean 'delay_s'?"),
    (("disabled", {"p": 1}), "it has none"),
    (("post_delayed", {"delay_s": "soon"}), "delay_s must be a number, not 'soon'"),
    (("post_delayed", {"p": 1.5}), "p = 1.5 is out of range"),
    (("post_delayed", {"n": 1.5}), "n must be a whole number"),
    (("post_delayed", {"n": True}), "n must be a whole number"),
    (("post_delayed", {"delay_s": float("nan")}), "delay_s must be a number"),
    (("html_errors", {"executed": "perhaps"}), "executed must be true or false"),
    (("freeze_market", {"links": "al"}), "links = 'al' is not known: did you mean 'all'?"),
    (("frames_late", {"channels": "market+usr"}), "'usr' is not known: did you mean 'user'?"),
    (("frames_late", {"channels": 3}), "channels must be a text"),
    (("frames_late", {"now_ms": 3}), "no parameter 'now_ms'"),
])
def test_a_slip_names_the_nearest_valid_one(call, says):
    name, params = call[0], call[1] if len(call) > 1 else {}
    with pytest.raises(UserError) as e:
        Faults(1).start(name, 0, **params)
    assert says in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("for_s", [0, -1, "8", True, float("inf")])
def test_a_duration_is_a_positive_number(for_s):
    with pytest.raises(UserError, match="for_s must be"):
        Faults(1).start("disabled", 0, for_s)


# ---- life and determinism ----

def session(seed):
    """What a fixed series of requests and frames meets."""
    faults, seen = Faults(seed), []
    faults.start("post_answer_lost", 0, p=0.5)
    faults.start("frames_reordered", 0, p=0.5, channels="all")
    faults.start("slow_responses", 0, p=0.7)
    for i in range(40):
        plan = faults.on_request("POST", "/order", i, b"{}")
        seen += [plan.lose_answer, plan.delay_before_s, faults.on_frame("market", 1, b"{%d}" % i, i), faults.on_frame("user", 2, b"x", i)]
    return seen


def test_the_same_seed_and_calls_give_the_same_effects():
    assert session(7) == session(7) != session(8)


def test_a_fault_more_does_not_change_what_another_does():
    def dropped(extra):
        faults = Faults(3)
        faults.start("frames_dropped", 0, p=0.5)
        if extra:
            faults.start("frames_dropped", 0, p=0.5, channels="user")
        return [(faults.on_frame("market", 1, b"x", 1), faults.on_frame("user", 1, b"x", 1))[0] for _ in range(50)]
    assert dropped(False) == dropped(True)


def test_faults_end_on_time_and_are_logged():
    faults = Faults(1)
    first, second = faults.start("disabled", 1000, for_s=2), faults.start("disabled", 1500)
    assert faults.active("disabled").id == first and [f.id for f in faults.running()] == [first, second] and faults.next_ms() == 3000
    assert faults.on_request("POST", "/order", 2999).refuse.status == 503
    faults.tick(2999)
    assert faults.active("disabled").id == first
    faults.tick(3000)
    assert faults.active("disabled").id == second and faults.stop("disabled", 4000) == [second] and faults.stop("disabled", 4000) == []
    assert faults.on_request("POST", "/order", 4000).refuse is None and faults.active("disabled") is None
    assert [(t, name, event) for t, name, event, _ in faults.log()] == [
        (1000, "disabled", "start"), (1500, "disabled", "start"), (3000, "disabled", "stop"), (4000, "disabled", "stop")]


def test_a_fault_is_over_for_requests_and_frames_even_before_the_next_tick():
    faults = Faults(1)
    faults.start("disabled", 0, for_s=1)
    faults.start("freeze_market", 0, for_s=1)
    assert faults.on_request("POST", "/order", 1000).refuse is None and faults.on_frame("market", 1, b"x", 1000) == [(0.0, b"x")]


def test_stopping_an_unknown_name_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'disabled'"):
        Faults(1).stop("disable", 0)


def test_two_faults_on_one_request_add_up():
    faults = Faults(1)
    faults.start("post_delayed", 0, delay_s=1)
    faults.start("slow_responses", 0, delay_s=1, jitter_s=0)
    faults.start("truncated_json", 0)
    faults.start("post_answer_lost", 0, hang_s=2)
    plan = faults.on_request("POST", "/order", 1)
    assert (plan.delay_before_s, plan.delay_after_s, plan.lose_answer, plan.run, plan.mangle) == (1.5, 2.5, True, True, [("truncate", 0.5)])


def test_nothing_is_looked_at_while_nothing_runs():
    """The only cost without a fault: three empty containers."""
    with FaultWorld() as world:
        server, faults = world.server, world.faults
        assert (faults.http, faults.frames, faults.prints, server.exchange.hooks, server.world._busy) == ([], {}, [], None, [])
        for part in (server.clob, server.gamma, server.hub, server.rtds, server.binance, server.polybolt, server.coinbase, server.bybit):
            assert part.faults is faults
        touched = []
        faults.on_request = faults.on_frame = faults.on_print = lambda *a: touched.append(a)
        with world.stream() as ws:
            ws.recv(2)
            world.level(0, 4000, 5_000_000)
            ws.recv(2)
        assert world.post(price=0.45)[0] == 200 and touched == []
        hook = server.exchange.settle_hook
        for name in CATALOGUE:
            world.fault(name)
        world.heal()
        assert (faults.http, faults.frames, faults.prints, server.exchange.hooks, server.world._busy) == ([], {}, [], None, [])
        assert not server.world.halted and not server.keys.revoked and server.exchange.settle_hook is hook
        assert (server.keys.skew_s, server.clob.accounts.closed_only) == (0.0, set())
        assert not server.clob.market_data.bookless(world.exchange.markets["0x" + "5a" * 32])


# ---- schedules ----

GOOD = """
[[fault]]
at_s = 0.1
name = "disabled"
for_s = 0.3

[[fault]]
at_s = 0
name = "frames_late"
delay_s = 1
links = "one"
"""


def test_a_schedule_is_read_and_played(tmp_path):
    path = tmp_path / "faults.toml"
    path.write_text(GOOD)
    assert load_schedule(path) == [(0.1, "disabled", 0.3, {}), (0, "frames_late", None, {"delay_s": 1.0, "links": "one"})]
    with FaultWorld(faults=path) as world:
        begin = world.faults.log()[0][0]
        world.wait(lambda x: len(world.faults.log()) == 3)
        log = [(round((t - begin) / 1000, 2), name, event) for t, name, event, _ in world.faults.log()]
        assert log == [(0.0, "frames_late", "start"), (0.1, "disabled", "start"), (0.4, "disabled", "stop")]
        assert world.post(price=0.45)[0] == 200


@pytest.mark.parametrize(("text", "says"), [
    ("[[fault]]\nname = 'disable'", "entry 1: unknown fault 'disable': did you mean 'disabled'?"),
    ("[[fault]]\nname = 'disabled'\n[[fault]]\nname='post_delayed'\ndelay=3",
     "entry 2: fault post_delayed has no parameter 'delay': did you mean 'delay_s'?"),
    ("[[fault]]\nname = 'disabled'\nat = 3", "no parameter 'at': did you mean 'at_s'?"),
    ("[[fault]]\nat_s = 3", "entry 1: name is missing"),
    ("[[fault]]\nname = 'disabled'\nat_s = -1", "at_s must be seconds"),
    ("[[fault]]\nname = 'disabled'\nfor_s = 'x'", "for_s must be"),
    ("[[faults]]\nname = 'disabled'", "faults is not expected"),
    ("fault = 3", "it holds [[fault]] tables"),
    ("[[fault", "is not TOML"),
])
def test_a_bad_schedule_is_one_clear_error(tmp_path, text, says):
    path = tmp_path / "faults.toml"
    path.write_text(text)
    with pytest.raises(UserError) as e:
        SimServer(config.load(sim__faults=str(path)))
    assert says in str(e.value) and str(path) in str(e.value)


def test_a_missing_schedule_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.toml cannot be read \(No such file or directory\)"):
        load_schedule(tmp_path / "nowhere.toml")


# ---- the operator ----

def test_operator_routes():
    with FaultWorld() as world:
        status, answer = world.ask("POST", "/sim/fault", {"name": "disabled", "for_s": 30})
        assert status == 200 and world.post(price=0.45)[0] == 503
        assert answer["for_s"] == 30
        status, other = world.ask("POST", "/sim/fault", {"name": "frames_late", "params": {"links": "one"}, "delay_s": 2})
        about = world.ask("GET", "/sim/faults")[1]
        assert {spec["name"] for spec in about["catalogue"]} == set(CATALOGUE)
        assert [(f["id"], f["name"]) for f in about["running"]] == [(answer["id"], "disabled"), (other["id"], "frames_late")]
        assert about["running"][0]["hits"] == 1 and about["running"][1]["params"]["delay_s"] == 2.0 and about["log"][1]["params"]["links"] == "one"
        assert 25_000 < about["running"][0]["until_ms"] - about["now_ms"] <= 30_000
        assert world.ask("DELETE", "/sim/fault", {"id": answer["id"]})[1] == {"stopped": [answer["id"]]} and world.post(price=0.45)[0] == 200
        assert world.ask("DELETE", "/sim/fault", {"name": "disabled"})[1] == {"stopped": []}
        assert world.ask("DELETE", "/sim/fault", {"all": True})[1] == {"stopped": [other["id"]]}
        for method, body in (("POST", {"name": "disable"}), ("POST", {"name": "disabled", "x": 1}), ("POST", {"name": "disabled", "for_s": 0}),
                             ("POST", {}), ("POST", {"name": "disabled", "params": 3}), ("POST", [1]), ("DELETE", {}), ("DELETE", {"name": "x"})):
            status, answer = world.ask(method, "/sim/fault", body)
            assert status == 400 and answer["error"], (method, body)
        assert world.ask("GET", "/sim/health")[1]["failures"] == 0


@pytest.fixture
def mmbot(tmp_path, monkeypatch, capsys):
    """The command line in this process: (exit code, stdout, stderr)."""
    def call(*args, base=1999):
        for key, value in {"RUN__NAME": "faultcli", "RUN__DIR": str(tmp_path), "SIM__BASE_PORT": str(base)}.items():
            monkeypatch.setenv(f"MMBOT_{key}", value)
        monkeypatch.setattr(sys, "argv", ["mmbot", *args])
        try:
            main.run()
            code = 0
        except SystemExit as e:
            code = e.code or 0
        return code, *capsys.readouterr()
    return call


def test_the_command_line_starts_lists_and_stops(mmbot):
    with FaultWorld() as world:
        code, out, err = mmbot("sim", "fault", "post_delayed", "--for", "30", "--set", "delay_s=0.5", "--set", "n=1", base=world.base)
        assert code == 0 and out.startswith("post_delayed is on for 30 s"), err
        assert world.faults.active("post_delayed").params == {"p": 1.0, "n": 1, "delay_s": 0.5}
        code, out, _ = mmbot("sim", "faults", base=world.base)
        assert code == 0 and re.search(r"on (2\d|30) s left, hit 0x", out) and all(name in out for name in NAMES)
        assert mmbot("sim", "fault", "restart_425", base=world.base)[1].startswith("restart_425 is on for 210 s")
        assert mmbot("sim", "fault", "disabled", base=world.base)[1].startswith("disabled is on until `mmbot sim fault --stop disabled`")
        code, out, err = mmbot("sim", "fault", "--stop", "post_delay", base=world.base)
        assert code == 2 and err.startswith("mmbot: unknown fault 'post_delay': did you mean 'post_delayed'?") and world.faults.running()
        code, out, _ = mmbot("sim", "fault", "--stop", "all", "--json", base=world.base)
        assert code == 0 and json.loads(out) == {"stopped": [1, 2, 3]} and not world.faults.running()


def test_the_list_is_there_without_an_exchange(mmbot):
    code, out, _ = mmbot("sim", "faults", "--json")
    about = json.loads(out)
    assert code == 0 and about["running"] is None and {spec["name"] for spec in about["catalogue"]} == set(CATALOGUE)


@pytest.mark.parametrize(("args", "says"), [
    (["freeze_markt"], "did you mean 'freeze_market'?"), (["post_delayed", "--set", "delay=1"], "did you mean 'delay_s'?"),
    (["post_delayed", "--set", "delay_s"], "parameter=value"), ([], "say which fault"),
    (["disabled"], "no exchange answers at http://127.0.0.1:1999")])
def test_command_line_slips_are_one_line_and_exit_code_2(args, says, mmbot):
    code, out, err = mmbot("sim", "fault", *args)
    assert code == 2 and says in err and len(err.strip().splitlines()) == 1 and not out


def test_the_command_itself_shows_no_traceback():
    done = subprocess.run([sys.executable, "-m", "mmbot.cli.main", "sim", "fault", "geoblok"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr == "mmbot: unknown fault 'geoblok': did you mean 'geoblock'? (`mmbot sim faults` lists all)\n"


# ---- without sockets ----

def test_a_service_answers_without_a_socket_and_says_when_it_would_cut():
    async def ask(service):
        return await service.respond("GET", "/here/7", {"q": "x"}, {}, b"", 0)
    service = Service()
    service.routes["GET", "/here/"] = lambda r: Raw(b'{"id":%s,"q":"%s"}' % (r.tail.encode(), r.arg("q").encode()), {"X-More": "1"})
    assert asyncio.run(ask(service)) == (200, {"Content-Type": "application/json", "X-More": "1"}, b'{"id":7,"q":"x"}')
    assert asyncio.run(service.respond("GET", "/nowhere", {}, {}, b"", 0)) == (404, {"Content-Type": "application/json"}, b'{"error":"not found"}')
    service.name, service.faults = "gamma", Faults(1)
    service.faults.start("gamma_down", mono_ns() / 1e6, how="cut")
    assert asyncio.run(ask(service)) is None
    service.routes["GET", "/here/"] = lambda r: 1 // 0
    service.faults = Faults(1)
    assert asyncio.run(ask(service))[0] == 500 and service.failures == 1 and "ZeroDivisionError" in service.last_failure
