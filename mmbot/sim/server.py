"""The exchange as a process: binds the ports, owns the drive loop, keeps the tape's clock across restarts.

Owns: eight servers on 127.0.0.1 (CLOB REST, Gamma, CLOB WebSocket, RTDS, Binance, PolyBolt, Coinbase, Bybit on consecutive ports), the
order of work in one turn (list windows, step the tape, run the engine's timers, send prices), and `sim_clock.json` in the run directory.
Who calls: `procs/sim.py` (inside the group, and alone under `mmbot sim`), tests (`SimServer`).
What can go wrong: a port in use (UserError naming it and `sim.base_port`); an exception in a turn ends the process, visibly.
"""

import asyncio
import errno
import gc
import json
import os
from collections.abc import Callable
from pathlib import Path

from mmbot.clock import WallClock, mono_ns
from mmbot.config import Settings, paper_endpoints
from mmbot.errors import UserError
from mmbot.sim import accounts, activity, channels, links
from mmbot.sim.auth import Keys
from mmbot.sim.bybit import Bybit
from mmbot.sim.coinbase import Coinbase
from mmbot.sim.engine import Exchange
from mmbot.sim.faults import Faults, load_schedule, operator
from mmbot.sim.faults.world import World
from mmbot.sim.gamma import event_json
from mmbot.sim.gamma_rest import GammaRest
from mmbot.sim.http import Service, StampedServer
from mmbot.sim.ladder import Ladder
from mmbot.sim.ledger import Ledger
from mmbot.sim.polybolt import PolyBolt
from mmbot.sim.rest import ClobRest
from mmbot.sim.tape import Tape, load

TURN_S = 0.004
HOUSEKEEPING_TURNS = 250
COLLECT_TURNS = 7500
KEEP_WINDOWS_S = 3600          # a window stays listed this long after its end
LATE_MS = 1000                 # a window that is over for longer is closed here if the tape has not done it
BINANCE_PING_S = 20.0
CLOCK_FILE, LEDGER_FILE = "sim_clock.json", "sim_ledger.jsonl"


def _group() -> str:
    """Names the group this process was started in: boot, parent process and when that started."""
    parent = os.getppid()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    started = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]
    return f"{boot}:{parent}:{started}"


class ClockFile:
    """Remembers the tape's clock of a group, so that its restarted exchange continues it, and with it the accounts.

    A group that is started anew starts the tape anew, because its supervisor is another process.
    """

    def __init__(self, directory: Path, settings: Settings):
        self.path = directory / CLOCK_FILE
        self.identity = {"tape": settings.sim.tape, "rate": settings.sim.speed, "seed": settings.sim.seed,
                         "start_before_roll_s": settings.sim.start_before_roll_s, "group": _group()}

    def resume(self) -> WallClock | None:
        """The clock of the group, None when there is none to continue: first start, another group, tape or speed."""
        try:
            old = json.loads(self.path.read_text())
            kept = all(old[k] == v for k, v in self.identity.items())
            return WallClock(int(old["wall0_ns"]), int(old["mono0_ns"]), float(old["rate"])) if kept else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, clock: WallClock) -> None:
        """Remember the clock."""
        fresh = self.path.with_suffix(".tmp")
        fresh.write_text(json.dumps(self.identity | clock.as_dict()))
        fresh.replace(self.path)


def open_clock(directory: Path | None, settings: Settings, tape: Tape) -> tuple[WallClock, bool]:
    """(clock, continued): the clock of the run in ``directory`` when it can be continued, else one that starts with the tape."""
    clock = ClockFile(directory, settings).resume() if directory is not None else None
    if clock is not None and (tape.end_wall_ns is None or clock.now_ns() < tape.end_wall_ns):
        return clock, True
    return WallClock(tape.start_wall_ns, mono_ns(), settings.sim.speed), False


class SimServer:
    """All servers of one exchange and its drive loop. ``directory``: where clock and ledger are kept, None for nowhere."""

    def __init__(self, settings: Settings, tape: Tape | None = None, directory: Path | None = None):
        schedule = load_schedule(settings.sim.faults) if settings.sim.faults is not None else []
        self.settings, self.tape = settings, tape or load(settings.sim.tape, settings.sim)
        self.clock, continued = open_clock(directory, settings, self.tape)
        self.keys = Keys(settings.venue.chain_id, self.clock, WallClock())
        self.hub = channels.Hub(self.keys, settings.sim.shuffle_ms, settings.sim.seed)
        self.hub.probes = lambda: self.tape.probes
        self.exchange = self.hub.exchange = Exchange(self.clock, settings.sim.seed, settings.sim, self.hub)
        self.exchange.account(accounts.PAPER_ADDRESS)
        self.clob = ClobRest(self.exchange, self.keys, self.hub.stamps, settings.venue.chain_id, self.tape.label)
        self.hub.notices = self.clob.accounts
        self.gamma = GammaRest(self.exchange, event_json, self.tape.resolution)
        self.rtds, self.binance, self.polybolt = channels.Rtds(), channels.Binance(), PolyBolt(self.keys)
        self.coinbase, self.bybit = Coinbase(self._ladder(1, -20.0, 100)), Bybit(self._ladder(2, 1.0, 10))
        self.hub.public = lambda trade: self.rtds.push(activity.frames(trade))
        self._inject()
        self.failed: asyncio.Future | None = None
        self._servers: list[asyncio.Server] = []
        self._listed: list = []
        self._turns = 0
        self._timer: asyncio.TimerHandle | None = None
        self.ledger = None
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
            ClockFile(directory, settings).write(self.clock)
            self.ledger = Ledger(directory / LEDGER_FILE, self.exchange, self.keys, self.clob.wallets, self.clob.funders, self.clob.chain,
                                 continued)
            self.ledger.recover(self.clock.now_ns() // 1_000_000)
            self.hub.ledger = self.clob.ledger = self.ledger
        self.faults.schedule(schedule, mono_ns() / 1e6)
        self._work()                # books are there before the first client is

    def _inject(self) -> None:
        """Give every part the faults; none of them runs yet."""
        self.faults = Faults(self.settings.sim.seed)
        self.world = World(self.faults, self.exchange, self.keys, self.clob)
        for part in (self.clob, self.gamma, self.hub, self.rtds, self.binance, self.polybolt, self.coinbase, self.bybit):
            part.faults = self.faults
        self.clob.routes |= operator.routes(self.faults)

    def _ladder(self, salt: int, basis_usd: float, ticks_per_usd: int) -> Ladder:
        """A spot venue's book around the tape's spot."""
        sim = self.settings.sim
        return Ladder(self.tape.path, 16 * sim.seed + salt, self.clock.now_ns() // 1_000_000, sim.speed, basis_usd, ticks_per_usd)

    async def start(self) -> None:
        """Bind the eight ports and start the drive loop. Errors: UserError naming the port."""
        port = self.settings.sim.base_port
        self.failed = asyncio.get_running_loop().create_future()
        await self._bind(port, lambda p: self._http(self.clob, p))
        await self._bind(port + 1, lambda p: self._http(self.gamma, p))
        await self._bind(port + 2, lambda p: links.serve(self.hub.accept, p))
        await self._bind(port + 3, lambda p: links.serve(self.rtds.accept, p))
        await self._bind(port + 4, lambda p: links.serve(self.binance.accept, p, BINANCE_PING_S))
        for i, service in enumerate((self.polybolt, self.coinbase, self.bybit)):
            await self._bind(port + 5 + i, lambda p, service=service: links.serve(service.accept, p))
        self._turn()

    async def _bind(self, port: int, make: Callable) -> None:
        try:
            self._servers.append(await make(port))
        except OSError as e:
            await self.close()
            why = "is in use" if e.errno == errno.EADDRINUSE else f"cannot be bound ({e.strerror})"
            raise UserError(f"port {port} of the exchange {why}: stop what listens there or choose another sim.base_port") from None

    @staticmethod
    async def _http(service: Service, port: int) -> asyncio.Server:
        server = StampedServer(service.handle, access_log=None, keepalive_timeout=3600.0)
        return await asyncio.get_running_loop().create_server(server, "127.0.0.1", port)

    def _turn(self) -> None:
        """One turn of the drive loop. What goes wrong in it ends `run`."""
        try:
            self._work()
        except Exception as e:
            self.failed.set_exception(e)
            return
        self._timer = asyncio.get_running_loop().call_later(TURN_S, self._turn)

    def _work(self) -> None:
        now_ns = self.clock.now_ns()
        now_ms, mono_ms = now_ns // 1_000_000, mono_ns() / 1e6
        self.world.turn(mono_ms)
        listed = self.tape.markets(now_ns / 1e9)
        if listed is not self._listed:
            self._listed = listed
            for spec in listed:
                self.exchange.add_market(spec, now_ms)
            for market in [m for m in self.exchange.markets.values() if m.spec.end_s + KEEP_WINDOWS_S < now_ns / 1e9]:
                self.exchange.remove_market(market.condition_id)
        if not self.world.halted:
            self.tape.step(self.exchange, now_ms)
        self.exchange.advance(now_ms)
        prints = self.world.prints(self.tape.rtds(now_ms), mono_ms)
        self.rtds.push(prints)
        self.polybolt.push(prints, now_ms)
        self.coinbase.push(now_ms)
        self.bybit.push(now_ms)
        self.binance.push(self.tape.binance(now_ms))
        if self._turns % HOUSEKEEPING_TURNS == 0:
            self._finish_markets(now_ms)
            self.clob.market_data.sample(now_ms)
        if self._turns % COLLECT_TURNS == COLLECT_TURNS - 1 and not gc.isenabled():
            gc.collect()            # request objects form cycles that live longer than a young collection sees
        self._turns += 1

    def _finish_markets(self, now_ms: int) -> None:
        """Close and resolve windows that ended while this process was not there (the tape does so for those it plays)."""
        for market in self.exchange.markets.values():
            if market.outcome < 0 and market.spec.end_s * 1000 < now_ms - LATE_MS:
                self.exchange.close_market(market.condition_id, now_ms)
                if (verdict := self.tape.resolution(market.spec)) is not None:
                    self.exchange.resolve(market.condition_id, verdict[0], now_ms)

    async def close(self) -> None:
        """Stop the loop and close all ports."""
        if self._timer is not None:
            self._timer.cancel()
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self.ledger is not None:
            self.hub.ledger = self.clob.ledger = None
            self.ledger.close()

    def describe(self) -> dict:
        """URLs, the funded test key and its API credentials: all a client needs."""
        urls = paper_endpoints(self.settings.sim.base_port)
        return {**urls, "ws_market_url": urls["ws_url"] + "/market", "ws_user_url": urls["ws_url"] + "/user",
                "tape": self.tape.label, "chain_id": self.settings.venue.chain_id, "address": accounts.PAPER_ADDRESS,
                "private_key": accounts.PAPER_KEY, "api_key": accounts.PAPER_API_KEY, "api_secret": accounts.PAPER_API_SECRET,
                "api_passphrase": accounts.PAPER_API_PASSPHRASE, "cash_u6": self.settings.sim.cash_u6}


async def run(settings: Settings, stopped: asyncio.Event, on_ready: Callable[[dict], None] | None = None,
              directory: Path | None = None) -> None:
    """Run the exchange until ``stopped`` is set. Errors: UserError (port, tape); whatever broke the drive loop."""
    server = SimServer(settings, directory=directory)
    await server.start()
    try:
        if on_ready is not None:
            on_ready(server.describe())
        waiting = asyncio.ensure_future(stopped.wait())
        await asyncio.wait({waiting, server.failed}, return_when=asyncio.FIRST_COMPLETED)
        if server.failed.done():
            server.failed.result()
    finally:
        await server.close()
