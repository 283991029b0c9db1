"""The command line: exit codes, one clear line for bad input, options, and what the tables and the screen look like."""

import dataclasses
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from rich.console import Console

from mmbot import config, topology
from mmbot.cli import render
from mmbot.cli.run import title
from mmbot.cli.screen import Screen
from mmbot.errors import UserError
from mmbot.ops.group import nearest, port_holders
from mmbot.ops.instance import SOCKET_PATH_MAX, Instance, adopt
from mmbot.ops.picture import AccountView, FillView, Hop, Link, MarketView, Picture, ProcessView, QuoteView, status_json
from shm_layout.vitals import HOPS

ROOT = Path(__file__).parents[2]


def mmbot(*args: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "mmbot.cli.main", *args], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "MMBOT_RUN__NAME": f"t{uuid.uuid4().hex[:8]}", **env}, stdin=subprocess.DEVNULL)


class TestCommands:
    def test_help_names_every_command(self):
        done = mmbot("--help")
        assert done.returncode == 0
        for name in ("run", "up", "down", "status", "restart", "top", "lag", "latency", "cancel-all", "doctor", "sim", "shm", "warm", "livetest", "flatten",
                     "reconcile", "keys", "config"):
            assert f" {name} " in done.stdout

    @pytest.mark.parametrize("command", ["status", "lag", "latency", "down"])
    def test_nothing_running(self, command, tmp_path):
        done = mmbot(command, MMBOT_RUN__DIR=str(tmp_path))
        assert done.returncode == 3
        assert "is not running" in done.stderr and "Traceback" not in done.stderr

    @pytest.mark.parametrize("args, env, says", [
        (("status", "-c", "papr"), {}, "config file papr does not exist (presets: "),
        (("status",), {"MMBOT_STRATEGY__TARGET_TOTL": "1"}, "MMBOT_STRATEGY__TARGET_TOTAL"),
        (("run", "--speed", "1000"), {}, "sim.speed"),
        (("run", "--strategy", "tierd"), {}, "'pair', 'tiered', 'avellaneda', 'reversion' or 'programme' (got 'tierd')"),
        (("restart", "kore"), {}, "there is no process 'kore'; there are: core, "),
        (("restart", "core"), {}, "is not running: start it with `mmbot up`"),
        (("sim", "-c", "{live}"), {}, "belongs to the paper profile"),
        (("config", "check", "tierd"), {}, "config file tierd does not exist (presets: "),
        (("config", "check", "{live}"), {"MMBOT_SIM__SPEED": "0"}, "sim.speed"),
    ])
    def test_bad_input_is_one_clear_message(self, args, env, says, tmp_path):
        live = tmp_path / "live.toml"
        live.write_text('profile = "live"\n')
        done = mmbot(*(a.format(live=live) for a in args), **env, MMBOT_RUN__DIR=str(tmp_path))
        assert done.returncode == 2
        assert says in done.stderr and "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1

    def test_unknown_key_in_a_file(self, tmp_path):
        path = tmp_path / "x.toml"
        path.write_text("[strategy]\nlevls = 2\n")
        done = mmbot("status", "--config", str(path))
        assert done.returncode == 2 and "'strategy.levls'" in done.stderr and "'strategy.levels'" in done.stderr

    def test_config_check_says_what_would_run(self, tmp_path):
        path = tmp_path / "x.toml"
        path.write_text('[markets]\ndurations = ["15m", "5m"]\n[strategy]\nstrategy = "tiered"\n[strategy.for_5m]\nstrategy = "pair"\n')
        done = mmbot("config", "check", str(path))
        assert (done.returncode, done.stdout, done.stderr) == (0, "ok: profile paper, markets 15m, 5m, strategy tiered for 15m, pair for 5m\n", "")
        assert mmbot("config", "check", "live", MMBOT_EXECUTION__DRY_RUN="true").stdout.endswith("strategy pair for 15m, dry run\n")

    def test_config_check_names_everything_that_is_wrong(self, tmp_path):
        path = tmp_path / "x.toml"
        path.write_text("[output]\ninterval_ms = 0\ndirr = 'x'\n[markets]\ndurations = []\n")
        done = mmbot("config", "check", str(path))
        assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
        assert all(says in done.stderr for says in ("output.interval_ms", "'output.dirr'; the nearest valid key is 'output.dir'", "markets.durations"))

    def test_config_keys_lists_them(self):
        assert {"profile", "output.dir", "execution.dry_run", "strategy.for_5m.tiered.base_spread"} <= set(mmbot("config", "keys").stdout.split())

    def test_config_may_stand_before_the_command(self, tmp_path):
        done = mmbot("--config", str(tmp_path / "none.toml"), "status")
        assert done.returncode == 2 and "none.toml does not exist" in done.stderr

    def test_status_json_when_nothing_runs(self, tmp_path):
        done = mmbot("status", "--json", MMBOT_RUN__DIR=str(tmp_path))
        assert json.loads(done.stdout) == {} and done.returncode == 3

    def test_shm_wipe_of_nothing(self):
        done = mmbot("shm", "wipe")
        assert done.returncode == 0 and "removed 0 segments" in done.stdout


class TestInstance:
    @pytest.fixture
    def cfg(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MMBOT_RUN__DIR", str(tmp_path))
        return config.load("paper")

    def test_second_instance_names_the_pid(self, cfg):
        first, second = Instance(cfg), Instance(cfg)
        first.prepare()
        lock = first.lock()
        assert second.holder() == os.getpid()
        with pytest.raises(UserError, match=f"pid {os.getpid()} holds .*mmbot.lock"):
            second.lock()
        os.close(lock)
        assert second.holder() is None
        os.close(second.lock())

    def test_lock_lives_as_long_as_an_heir_of_its_descriptor(self, cfg):
        instance = Instance(cfg)
        instance.prepare()
        lock = instance.lock()
        heir = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,))
        os.close(lock)
        assert instance.holder() is not None
        heir.communicate(b"\n", timeout=20)
        assert instance.holder() is None

    def test_too_long_run_directory(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MMBOT_RUN__DIR", str(tmp_path / ("x" * SOCKET_PATH_MAX)))
        with pytest.raises(UserError, match="too long.*run.dir"):
            Instance(config.load("paper")).prepare()

    def test_saved_config_is_the_effective_one_without_secrets(self, cfg, monkeypatch):
        monkeypatch.setenv("MMBOT_SIM__SPEED", "7.5")
        monkeypatch.setenv("MMBOT_ACCOUNT__PRIVATE_KEY", "ab" * 32)
        cfg = config.load("paper")
        instance = Instance(cfg)
        instance.prepare()
        instance.save_config()
        assert "abab" not in instance.config_path.read_text()
        assert instance.environment("python")["MMBOT_ACCOUNT__PRIVATE_KEY"] == "ab" * 32
        assert instance.config_path.stat().st_mode & 0o077 == 0
        monkeypatch.delenv("MMBOT_SIM__SPEED")
        again = config.load(instance.config_path)
        assert again.sim == cfg.sim and again.strategy == cfg.strategy and again.run.path == cfg.run.path

    def test_other_terminals_adopt_the_running_config(self, cfg, monkeypatch):
        monkeypatch.setenv("MMBOT_SIM__SPEED", "3")
        instance = Instance(config.load("paper"))
        instance.prepare()
        instance.save_config()
        monkeypatch.delenv("MMBOT_SIM__SPEED")
        assert adopt(cfg).sim.speed == 1.0, "nothing runs: the file's own settings count"
        lock = instance.lock()
        assert adopt(cfg).sim.speed == 3.0
        os.close(lock)


def test_nearest_names_first():
    names = [p.name for p in topology.PROCESSES]
    assert nearest("feed_markt", names)[0] == "feed_market" and nearest("gardian", names)[0] == "guardian"


def test_port_holder_is_named():
    import socket
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        assert f"pid {os.getpid()}" in port_holders([port])[port]
        assert port_holders([port + 1 if port < 65000 else port - 1]).get(port) is None


class TestTexts:
    @pytest.mark.parametrize("ns, text", [(0, "0 ns"), (999, "999 ns"), (999.7, "1.00 µs"), (12_345, "12.3 µs"), (1_240_000, "1.24 ms"), (9.996e6, "10.0 ms"),
                                          (99.96e6, "100 ms"), (2.1e9, "2.10 s"), (75e9, "75.0 s")])
    def test_durations(self, ns, text):
        assert render.ns_text(ns) == text

    @pytest.mark.parametrize("s, text", [(201.4, "3:21"), (0, "0:00"), (3723, "1:02:03"), (-5, "-0:05"), (None, "–")])
    def test_countdowns(self, s, text):
        assert render.clock_text(s) == text

    @pytest.mark.parametrize("px, text", [(0.62, "0.62"), (0.38, "0.38"), (0.615, "0.615"), (1 - 0.62, "0.38"), (0.001, "0.001")])
    def test_prices_show_their_tick(self, px, text):
        assert render.price(px) == text

    def test_sparkline(self):
        assert render.sparkline((0, 1, 8)) == " ▁█"
        assert render.sparkline((5.0, 5.0), from_zero=False) == "▁▁"
        assert render.sparkline((), from_zero=False) == ""


def picture(**changes) -> Picture:
    processes = tuple(ProcessView(p.name, "RUN", 4100, 1, 0, 12.0, 0, 3.0, 120.0, None) for p in topology.processes("paper"))
    quotes = tuple(QuoteView(t, n, 0.4 + t / 10, 20) for t in (0, 1) for n in (0, 1))
    now = MarketView("btc-updown-15m-1775028600", 1775028600015, "open", 45.0, 0.612, 0.60, 0.62, strike=68100.0, quotes=quotes, target_total=0.99,
                     live_orders=4, shares=(40.0, 20.0), cost=(23.2, 7.7))
    later = dataclasses.replace(now, slug="btc-updown-15m-1775029500", market_id=1775029500015, state="announced", tau_s=945.0, quotes=(),
                                gates=("no_strike", "warming"), shares=(0.0, 0.0), cost=(0.0, 0.0), q_up=None, up_bid=None, strike=None)
    hops = tuple(Hop(h, 10, 1000, 2000, 3000, 4000, 5000) for h in HOPS)
    made = Picture("paper", "paper", True, None, processes, (now, later), AccountView("ready", 970.0, fills=5, pnl=1.25), hops,
                   (Link("md.market", "core", 5, 6, 0, 2, 0, 0, 0, 0),), 1775029455.0, 68123.0, 68110.0, 0, {h: (0, 3, 7) for h in HOPS},
                   (FillView(10**9, 1775028600015, 1, 0, 0.39, 15.0),), 20 * 10**9)
    return dataclasses.replace(made, **changes)


def drawn(what, width: int) -> str:
    console = Console(width=width, height=60, record=True, file=open(os.devnull, "w"))
    console.print(what)
    return console.export_text()


class TestScreen:
    @pytest.mark.parametrize("width", [80, 120, 160])
    def test_page_shows_everything_and_fits(self, width):
        text = drawn(Screen("tape btc15m", "Ctrl-C stops").page(picture(), 100.0, width), width)
        assert max(map(len, text.splitlines())) <= width
        for word in ("QUOTING", "closes in 0:45", "opens in 0:45", "strike 68,100.0", "gates no_strike warming", "feed_market", "recv_send",
                     "md.market → core", "+1.25", "0.40×20"):
            assert word in text, word

    def test_page_of_a_sick_group(self):
        p = picture(quoting=False, halt_reason="core is HUNG")
        sick = tuple(dataclasses.replace(x, state="HUNG", last_error="stall: 3 s") if x.name == "core" else x for x in p.processes)
        text = drawn(Screen("t", "u").page(dataclasses.replace(p, processes=sick), 1.0, 130), 130)
        assert "NOT QUOTING" in text and "core is HUNG" in text and "stall: 3 s" in text

    def test_a_dry_run_is_said_everywhere(self):
        why = "dry run: quotes are made, no order is sent"
        p = picture(quoting=False, halt_reason=why, dry_run=True)
        p = dataclasses.replace(p, account=dataclasses.replace(p.account, halts=("dry_run",)))
        assert "DRY RUN   quotes are made, no order is sent" in drawn(Screen("t", "u").page(p, 1.0, 130), 130)
        assert "DRY RUN (quotes are made, no order is sent)  " in render.status_line(p, 65.0)
        assert render.warnings(p) == [] and status_json(p)["dry_run"] is True
        assert title(config.load("paper", execution__dry_run=True)).endswith(", dry run") and "dry" not in title(config.load("paper"))
        assert "DRY RUN" not in drawn(Screen("t", "u").page(picture(), 1.0, 130), 130)

    def test_a_healthy_picture_warns_of_nothing(self):
        assert render.warnings(picture()) == []

    @pytest.mark.parametrize("change, says", [
        ({"venue_mode": "post_only", "venue_mode_left_s": 79.0, "halts": ("venue_mode",)}, "venue post_only the venue is in this mode for 1:19"),
        ({"halts": ("difference", "guard")}, "halted the executor wants no orders: difference"),
        ({"difference_s": 12.0}, "differ for 0:12"), ({"deaf": 2}, "did not show 2 times"), ({"reversed": 3}, "3 fills failed at settlement"),
        ({"unknown": 1}, "the fate of 1 orders"),
        ({"late": 3, "orders": 1234, "late_result": -0.12}, "3 of 1234 orders (0.24%) reached the venue past their deadline; their fills came to -0.12 dollars")])
    def test_what_is_wrong_with_the_account_is_said(self, change, says):
        p = picture()
        sick = dataclasses.replace(p, account=dataclasses.replace(p.account, **change))
        assert any(says in line.plain for line in render.warnings(sick)) and says in drawn(Screen("t", "u").page(sick, 1.0, 130), 130)

    @pytest.mark.parametrize("state", ["EXITED", "FATAL"])
    def test_a_process_that_stays_down_is_said_with_what_to_do(self, state):
        p = picture()
        sick = dataclasses.replace(p, processes=tuple(dataclasses.replace(x, state=state, last_error=None) if x.name == "core" else x for x in p.processes))
        (line,) = render.warnings(sick)
        assert "core is not started any more" in line.plain and "mmbot restart core" in line.plain

    def test_a_frozen_book_is_said(self):
        p = picture()
        sick = dataclasses.replace(p, markets=(dataclasses.replace(p.markets[0], frozen=True, suspect=True), p.markets[1]))
        (line,) = render.warnings(sick)
        assert "frozen" in line.plain and "stands still" in line.plain

    @pytest.mark.parametrize("ms, says", [(None, ""), (40.0, ""), (150.0, ""), (320.0, "latency degraded"), (900.0, "latency critical")])
    def test_slow_answers_of_the_market_channel_are_said(self, ms, says):
        lines = [line.plain.strip() for line in render.warnings(dataclasses.replace(picture(), rtt_ms=ms))]
        assert len(lines) == bool(says) and all(line.startswith(says) and "PINGs" in line for line in lines)

    def test_stalls_of_a_loop_are_shown(self):
        limping = tuple(dataclasses.replace(x, stalls=7, worst_stall_ms=123.0) for x in picture().processes)
        assert "123 ms" in drawn(render.processes(limping, errors=True), 150)

    def test_page_before_anything_is_known(self):
        empty = picture(markets=(), hops=(), links=(), fills=(), shapes={}, wall_s=None, spot=None, twap=None)
        assert "waiting for discovery" in drawn(Screen("t", "u").page(empty, 0.0, 130), 130)

    def test_line_without_a_terminal(self):
        line = render.status_line(picture(), 65.0)
        assert "\n" not in line and f"1:05  quoting  {len(picture().processes)}/{len(picture().processes)} up" in line and "fills 5" in line and "bids 2+2" in line

    def test_tables(self):
        p = picture()
        assert "frame readable → last byte sent" in drawn(render.latency(p.hops, p.shapes, words=True), 150)
        assert "lapped polling" in drawn(render.links(p.links), 150)
        assert "0.40×20" in drawn(render.markets(p.markets), 150)
