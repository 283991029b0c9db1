"""A real group for the system tests: `mmbot run` as a child that dies with the tests, and what the tests ask of it.

Truth is the exchange's own books (`/sim/books`); the bot's word is its shared memory, read through `mmbot.ops.view`.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from mmbot import config, topology
from mmbot.ops.view import View
from mmbot.sim.accounts import PAPER_ADDRESS
from shm_layout import records as r
from shm_layout.segment import Space

ROOT = Path(__file__).parents[2]
#: everything that trades; awake only keeps a CPU warm
WORKERS = [p.name for p in topology.processes("paper") if p.name not in ("sim", "awake")]
START_S, DEADLINE_S = 90, 900

CONFIG = """
profile = "paper"
[run]
name = "{name}"
dir = "{dir}"
[sim]
base_port = {port}
start_before_roll_s = {before_roll_s}
[strategy]
stale_market_ns = 5_000_000_000
stale_spot_ns = 20_000_000_000
max_exposure_u6 = 100_000_000_000
max_imbalance_u6 = 100_000_000_000
severe_imbalance_u6 = 100_000_000_000
[guardian]
unsound_ms = 1500
"""


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def wait_for(what, timeout_s: float, why: str):
    """The first true answer of ``what()``; fails with ``why`` (called if callable) at the deadline."""
    end = time.monotonic() + timeout_s
    while True:
        if found := what():
            return found
        assert time.monotonic() < end, why() if callable(why) else why
        time.sleep(0.1)


class Running:
    """One group in the foreground of a child process."""

    def __init__(self, directory: Path, name: str, port: int, before_roll_s: float = 45.0, extra_path: str = ""):
        self.config = directory / "group.toml"
        self.config.write_text(CONFIG.format(name=name, dir=directory, port=port, before_roll_s=before_roll_s))
        self.env = os.environ | ({"PYTHONPATH": extra_path} if extra_path else {})
        self.cfg = config.load(self.config)
        self.view = View(self.cfg)
        self.child = subprocess.Popen([sys.executable, "-m", "mmbot.cli.main", "run", "--json", "--seconds", str(DEADLINE_S), "-c", str(self.config)],
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.env, preexec_fn=die_with_parent)

    def mmbot(self, *args: str, check: bool = True) -> subprocess.CompletedProcess:
        """Another terminal."""
        done = subprocess.run([sys.executable, "-m", "mmbot.cli.main", *args, "-c", str(self.config)], capture_output=True, text=True, timeout=90,
                              env=self.env)
        assert not check or done.returncode == 0, f"mmbot {' '.join(args)} -> {done.returncode}: {done.stderr or done.stdout}"
        return done

    def json(self, *args: str) -> dict:
        return json.loads(self.mmbot(*args, "--json").stdout)

    def wait_up(self) -> None:
        def up() -> bool:
            assert self.child.poll() is None, self.child.communicate()[1]
            return all(self.view.state(p.name) == "RUN" for p in topology.processes("paper"))
        wait_for(up, START_S, lambda: f"not up: {self.states()}")

    def states(self) -> dict[str, str]:
        return {p.name: p.state for p in self.view.processes()}

    def epochs(self) -> dict[str, int]:
        return {p.name: p.epoch for p in self.view.processes()}

    def pid(self, name: str) -> int:
        return self.view.identity(name)[0]

    def quoting(self) -> bool:
        """Orders rest at the exchange and the bot says that it quotes."""
        return self.view.picture().quoting and bool(self.books()["orders"])

    def wait_quoting(self, timeout_s: float = 40.0) -> None:
        wait_for(self.quoting, timeout_s, lambda: f"not quoting: {self.view.picture().halt_reason}, {self.states()}")

    def books(self) -> dict:
        """The exchange's account of the bot."""
        with urllib.request.urlopen(f"{self.cfg.venue.clob_url}/sim/books", timeout=5) as answer:
            everything = json.load(answer)
        accounts = {address.lower(): a for address, a in everything["accounts"].items()}
        return accounts.get(PAPER_ADDRESS.lower(), {"shares": {}, "fills": [], "orders": [], "cash_u6": 0})

    def positions(self) -> dict[str, int]:
        """token id -> shares (1e-6) as the executor's record says, windows with shares only."""
        account, markets = self.view.latest("account"), self.view.latest("markets")
        found = {}
        for slot in range(r.MARKET_SLOTS):
            p, row = account["position"][slot], markets["row"][slot]
            if p["market_id"] and p["market_id"] == row["market_id"]:
                found |= {str(r.id_value(row["token_up"])): int(p["qty_up_u6"]), str(r.id_value(row["token_down"])): int(p["qty_down_u6"])}
        return {token: size for token, size in found.items() if size}

    def disagreement(self) -> str:
        """How the executor's books differ from the exchange's, "" when they are equal to the last unit."""
        truth, ours = self.books(), self.positions()
        bought: dict[str, int] = {}
        for fill in truth["fills"]:
            if fill["status"] != "FAILED":
                bought[fill["token"]] = bought.get(fill["token"], 0) + (fill["size_u6"] if fill["side"] == "BUY" else -fill["size_u6"])
        theirs = {token: size for token, size in bought.items() if size}
        if ours != theirs:
            return f"positions {ours}, the exchange says {theirs}"
        fills, live = int(self.view.latest("account")["fills"]), int(self.view.latest("account")["live_orders"])
        legs = sum(f["status"] != "FAILED" for f in truth["fills"])
        if fills != legs:
            return f"{fills} fills, the exchange says {legs}"
        return "" if live == len(truth["orders"]) else f"{live} live orders, the exchange says {len(truth['orders'])}"

    def wait_agreement(self, timeout_s: float = 30.0) -> None:
        """Orders and fills are in flight all the time, so equality is waited for; a lost or doubled fill never becomes equal."""
        last = []

        def agree() -> bool:
            last[:] = [self.disagreement()]
            return last == [""]
        wait_for(agree, timeout_s, lambda: last[0])

    def stop(self) -> dict:
        """Ctrl-C; returns the JSON document of the run."""
        self.child.send_signal(signal.SIGINT)
        out, err = self.child.communicate(timeout=60)
        assert self.child.returncode == 0, err
        return json.loads(out)

    def clean_up(self) -> None:
        """Whatever happened, nothing stays behind."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(60)
            except subprocess.TimeoutExpired:
                self.child.kill()
        for pid in set(Space(self.cfg.run.name).holders().values()) - {0}:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not any(Space(self.cfg.run.name).holders().values()), 10, "processes stay behind")
        Space(self.cfg.run.name).wipe()


def free_ports() -> int:
    """A base port with five free ones from it on."""
    from mmbot.ops.group import port_holders
    for base in range(24700 + os.getpid() % 500 * 10, 65000, 10):
        if not port_holders(list(range(base, base + 5))):
            return base
    raise AssertionError("no free ports")
