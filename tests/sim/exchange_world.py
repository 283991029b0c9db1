"""A running exchange in a thread, with a tape that does only what a test says, and a signing client made of other people's code."""

import asyncio
import contextlib
import json
import random
import socket
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from websockets.sync.client import connect

from mmbot import config
from mmbot.sim import accounts
from mmbot.sim.auth import l2_signature
from mmbot.sim.engine import MarketSpec
from mmbot.sim.server import SimServer

CID = "0x" + "5a" * 32
UP_TOKEN, DOWN_TOKEN = str(7 << 200 | 11 << 60), str(9 << 200 | 13 << 60)
START_S = 1_795_186_800


def spec(**changes) -> MarketSpec:
    """A 15 minute window."""
    return MarketSpec(**{"market_id": START_S * 1000 + 15, "start_s": START_S, "end_s": START_S + 900, "duration_s": 900, "condition_id": CID,
                         "token_up": UP_TOKEN, "token_down": DOWN_TOKEN, "slug": f"btc-updown-15m-{START_S}", "gamma_id": "3391022"} | changes)


class Still:
    """A spot price that does not move."""

    @staticmethod
    def at(t_ms):
        return 84_600.0


class QuietTape:
    """Nothing happens but what the test does."""
    path = Still
    label, probes, end_wall_ns = "test", 0, None
    start_wall_ns = (START_S - 45) * 10**9

    def __init__(self, specs):
        self.specs, self.rtds_due, self.binance_due, self.verdict = specs, [], [], None

    def markets(self, now_s):
        return self.specs

    def step(self, exchange, now_ms):
        return 0

    def rtds(self, now_ms):
        due, self.rtds_due = self.rtds_due, []
        return due

    def binance(self, now_ms):
        due, self.binance_due = self.binance_due, []
        return due

    def resolution(self, spec):
        return self.verdict


def free_base_port() -> int:
    """A port with seven free neighbours."""
    first = random.randrange(21_000, 31_000, 8)       # test runs side by side look at different places
    for base in range(first, 60_000, 8):
        with contextlib.ExitStack() as held:
            try:
                for port in range(base, base + 8):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return base
    raise RuntimeError("no free ports")


class World:
    """An exchange on free ports; ``do`` runs a function inside its loop."""

    def __init__(self, *specs: MarketSpec, directory: Path | None = None, tape=None, **sim):
        self.base = free_base_port()
        overrides = {f"sim__{k}": v for k, v in {"taker_delay_ms": 0.0, "settle_ms": 50.0, **sim}.items()}
        self.settings = config.load(sim__base_port=self.base, **overrides)
        self.tape = tape or QuietTape(list(specs) or [spec()])
        self._directory, self._ready = directory, threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._life()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    async def _life(self):
        self.loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self.server = SimServer(self.settings, self.tape, self._directory)
        self.exchange = self.server.exchange
        await self.server.start()
        self._ready.set()
        await self._stop.wait()
        await self.server.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def do(self, work):
        """Result of ``work(exchange, now_ms)``, run in the exchange's loop."""
        async def inside():
            return work(self.exchange, self.exchange.clock.now_ns() // 1_000_000)
        return asyncio.run_coroutine_threadsafe(inside(), self.loop).result(10)

    def level(self, side, px_e4, size_u6, reason="cancel"):
        """A level of the recorded market."""
        self.do(lambda x, now: x.set_level(CID, side, px_e4, size_u6, now, reason))

    def wait(self, condition, seconds=5.0):
        """Poll until ``condition(exchange)`` holds."""
        until = time.monotonic() + seconds
        while not self.do(lambda x, _: condition(x)):
            assert time.monotonic() < until, "it never happened"
            time.sleep(0.01)

    # -- HTTP --

    def http(self, method, path, body=None, headers=None, port=0):
        """(status, decoded body, headers)."""
        data = body if isinstance(body, bytes | None) else json.dumps(body, separators=(",", ":")).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.base + port}{path}", data, {"User-Agent": "mmbot-tests"} | (headers or {}), method=method)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, json.loads(answer.read()), dict(answer.headers)
        except urllib.error.HTTPError as e:
            return e.code, json.loads(e.read()), dict(e.headers)

    def text(self, method, path, headers=None):
        """(status, text, headers) of an answer that need not be JSON."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.base}{path}", None, headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, answer.read().decode(), dict(answer.headers)
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode(), dict(e.headers)

    def l2(self, method, path, body=None, **wrong):
        """A private request of the paper account; ``wrong`` replaces headers."""
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
        now = str(int(time.time()))
        headers = {"POLY_ADDRESS": accounts.PAPER_ADDRESS, "POLY_TIMESTAMP": now, "POLY_API_KEY": accounts.PAPER_API_KEY,
                   "POLY_PASSPHRASE": accounts.PAPER_API_PASSPHRASE,
                   "POLY_SIGNATURE": l2_signature(accounts.PAPER_API_SECRET, now, method, path.split("?")[0], data)} | wrong
        return self.http(method, path, data or None, headers)

    # -- WebSocket --

    def ws(self, port, path):
        """A synchronous WebSocket client."""
        return connect(f"ws://127.0.0.1:{self.base + port}{path}")


def receive(ws, count=1, timeout=3.0):
    """``count`` JSON frames."""
    return [json.loads(ws.recv(timeout)) for _ in range(count)]


def silent(ws, seconds=0.15) -> bool:
    """Does nothing arrive?"""
    try:
        ws.recv(seconds)
    except TimeoutError:
        return True
    return False


def v2_client(world):
    """py-clob-client-v2 with the paper account, pointed at the exchange."""
    from py_clob_client_v2.client import ClobClient
    from py_clob_client_v2.clob_types import ApiCreds
    return ClobClient(f"http://127.0.0.1:{world.base}", 137, key=accounts.PAPER_KEY,
                      creds=ApiCreds(accounts.PAPER_API_KEY, accounts.PAPER_API_SECRET, accounts.PAPER_API_PASSPHRASE))
