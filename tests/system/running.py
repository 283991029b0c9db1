"""A real group for the system tests: `mmbot run` as a child that dies with the tests, and what the tests ask of it.

Truth is the exchange's own books (`/sim/books`); the bot's word is its shared memory, read through `mmbot.ops.view`.
"""

import asyncio
import ctypes
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from mmbot import config, topology
from mmbot.clock import mono_ns
from mmbot.execution.rest import RestClient, VenueError
from mmbot.execution.signing import Key
from mmbot.ops.view import View
from mmbot.sim.accounts import PAPER_ADDRESS
from mmbot.sim.auth import Keys
from shm_layout import records as r
from shm_layout.segment import Space

ROOT = Path(__file__).parents[2]
#: everything that trades; awake only keeps a CPU warm
WORKERS = [p.name for p in topology.processes("paper") if p.name not in ("sim", "awake")]
START_S = 90

CONFIG = """
profile = "paper"
[run]
name = "{name}"
dir = "{dir}"
restart_budget = 0
[sim]
base_port = {port}
start_before_roll_s = {before_roll_s}
cash_u6 = 1_000_000_000_000
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


class Purse:
    """An account nobody else has: a fresh key, and the API credentials that the exchange will give it. ``env`` hands it to a group."""

    def __init__(self):
        self.key = secrets.token_hex(32)
        self.address = Key(bytes.fromhex(self.key)).address
        made = Keys(137).create(self.address, 0)
        self.secrets = {"private key": self.key, "API secret": made.secret, "API passphrase": made.passphrase}
        self.account = {"private_key": self.key, "api_key": made.api_key, "api_secret": made.secret, "api_passphrase": made.passphrase}
        self.env = {f"MMBOT_ACCOUNT__{name.upper()}": value for name, value in self.account.items()}

    def register(self, cfg) -> bool:
        """Ask the exchange for the credentials once, so that it knows them; false while it does not answer."""
        async def ask():
            async with RestClient.of(cfg.venue, time.time) as rest:
                return await rest.derive_api_key(Key(bytes.fromhex(self.key)), cfg.venue.chain_id)
        try:
            return asyncio.run(ask()).secret == self.account["api_secret"]
        except VenueError:
            return False


class Running:
    """One group in the foreground of a child process; with a `Purse` it trades that account, else the exchange's test account."""

    def __init__(self, directory: Path, name: str, port: int, before_roll_s: float = 45.0, deadline_s: float = 900, purse: Purse | None = None,
                 env: dict[str, str] | None = None, args: tuple[str, ...] = ()):
        self.config = directory / "group.toml"
        self.config.write_text(CONFIG.format(name=name, dir=directory, port=port, before_roll_s=before_roll_s))
        self.cfg = config.load(self.config)
        self.view = View(self.cfg)
        self.since_ns = 0           # memory outlives its writers: what they said before this does not count
        self.purse, self.address = purse, (purse.address if purse else PAPER_ADDRESS).lower()
        self.env = os.environ | (purse.env if purse else {}) | (env or {})
        self.said: list[str] = []   # everything that any command printed
        self.child = subprocess.Popen([sys.executable, "-m", "mmbot.cli.main", "run", "--json", "--seconds", str(deadline_s), "-c", str(self.config), *args],
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=die_with_parent, env=self.env)

    def mmbot(self, *args: str, check: bool = True) -> subprocess.CompletedProcess:
        """Another terminal."""
        done = subprocess.run([sys.executable, "-m", "mmbot.cli.main", *args, "-c", str(self.config)], capture_output=True, text=True, timeout=90,
                              env=self.env)
        self.said += [done.stdout, done.stderr]
        assert not check or done.returncode == 0, f"mmbot {' '.join(args)} -> {done.returncode}: {done.stderr or done.stdout}"
        return done

    def json(self, *args: str) -> dict:
        return json.loads(self.mmbot(*args, "--json").stdout)

    def wait_up(self) -> None:
        known = [self.purse is None]

        def up() -> bool:
            if not known[0] and self.view.state("sim") == "RUN":
                known[0] = self.purse.register(self.cfg)
            assert self.child.poll() is None, self.child.communicate()[1]
            return all(self.view.state(p.name) == "RUN" for p in topology.processes("paper") if p.cpu != "idle")
        wait_for(up, START_S, lambda: f"not up: {self.states()}")

    def states(self) -> dict[str, str]:
        return {p.name: p.state for p in self.view.processes()}

    def epochs(self) -> dict[str, int]:
        return {p.name: p.epoch for p in self.view.processes()}

    def pid(self, name: str) -> int:
        return self.view.identity(name)[0]

    def quoting(self) -> bool:
        """Orders rest at the exchange, and executor and core have said since the last disturbance that all is well."""
        targets = [t for slot in range(r.MARKET_SLOTS) if (t := self.view.latest("targets", slot)) is not None]
        account = self.view.latest("account")
        heard = account is not None and account["t_update_ns"] > self.since_ns and any(t["t_decide_ns"] > self.since_ns for t in targets)
        try:
            return bool(heard and self.view.picture().quoting and self.books()["orders"])
        except OSError:         # the exchange itself is away
            return False

    def wait_quoting(self, timeout_s: float = 40.0) -> None:
        wait_for(self.quoting, timeout_s, lambda: f"not quoting: {self.view.picture().halt_reason}, {self.states()}")

    def books(self) -> dict:
        """The exchange's account of the bot."""
        with urllib.request.urlopen(f"{self.cfg.venue.clob_url}/sim/books", timeout=5) as answer:
            everything = json.load(answer)
        accounts = {address.lower(): a for address, a in everything["accounts"].items()}
        return accounts.get(self.address, {"shares": {}, "fills": [], "merged": {}, "orders": [], "cash_u6": 0})

    def positions(self) -> dict[str, int]:
        """token id -> shares (1e-6) as the executor's record says, for every window in the market table."""
        account, markets = self.view.latest("account"), self.view.latest("markets")
        found = {}
        for slot in range(r.MARKET_SLOTS):
            p, row = account["position"][slot], markets["row"][slot]
            if row["market_id"]:
                up, down = (int(p["qty_up_u6"]), int(p["qty_down_u6"])) if p["market_id"] == row["market_id"] else (0, 0)
                found |= {str(r.id_value(row["token_up"])): up, str(r.id_value(row["token_down"])): down}
        return found

    def disagreement(self) -> str:
        """How the executor's books differ from the exchange's, "" when they are equal to the last unit."""
        try:
            truth, ours = self.books(), self.positions()
        except OSError as e:
            return f"the exchange does not answer: {e}"
        theirs = dict.fromkeys(ours, 0)
        legs = [f for f in truth["fills"] if f["status"] != "FAILED"]
        for fill in legs:
            if fill["token"] in theirs:      # windows that left the table are over and forgotten
                theirs[fill["token"]] += fill["size_u6"] if fill["side"] == "BUY" else -fill["size_u6"]
        for token in theirs:
            theirs[token] -= truth["merged"].get(token, 0)
        if ours != theirs:
            return f"positions {ours}, the exchange says {theirs}"
        account = self.view.latest("account")
        if all(f["token"] in theirs for f in legs) and account["fills"] != len(legs):
            return f"{account['fills']} fills, the exchange says {len(legs)}"
        if account["live_orders"] != len(truth["orders"]):
            return f"{account['live_orders']} live orders, the exchange says {len(truth['orders'])}"
        return ""

    def fault(self, name: str, for_s: float, **params) -> None:
        """Start a fault of the exchange."""
        self._operate("POST", {"name": name, "for_s": for_s, "params": params})

    def heal(self) -> None:
        """Stop every fault of the exchange."""
        self._operate("DELETE", {"all": True})

    def _operate(self, method: str, body: dict) -> None:
        request = urllib.request.Request(f"{self.cfg.venue.clob_url}/sim/fault", json.dumps(body).encode(), {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=5) as answer:
            answer.read()

    def killed(self, name: str) -> None:
        """SIGKILL a process and wait until its successor runs and nobody else was touched."""
        before = self.epochs()
        os.kill(self.pid(name), signal.SIGKILL)
        wait_for(lambda: self.epochs()[name] == before[name] + 1 and self.view.state(name) == "RUN", 60, lambda: f"{name} stays down: {self.states()}")
        self.since_ns = mono_ns()
        assert {n: e for n, e in self.epochs().items() if n != name} == {n: e for n, e in before.items() if n != name}

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
        self.said += [out, err]
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
    """A base port with eight free ones from it on."""
    from mmbot.ops.group import port_holders
    for base in range(24700 + os.getpid() % 500 * 10, 65000, 10):
        if not port_holders(list(range(base, base + 8))):
            return base
    raise AssertionError("no free ports")
