"""The tape: what happens on the simulated exchange besides its API users, window after window, deterministic from the seed.

Owns: which windows exist now, who plays them, when they close and resolve, and the reference feeds (RTDS, Binance). Driven by the
exchange server, which owns the sockets and calls, every few ms of real time and in this order:

    for spec in tape.markets(now_s): exchange.add_market(spec)
    tape.step(exchange, now_ms)
    for frame in tape.rtds(now_ms): ...
    for stream, frame in tape.binance(now_ms): ...

Times are the tape's wall clock (ms or s since 1970), arguments everywhere. ``origin`` says part by part what is recorded, generated
or derived. Rates of generated filler (ladder changes, Binance) are per second of real time, so a faster tape costs no more of it.
Can go wrong: a tape file missing or broken (UserError at load); the end of a tape that has one (``end_wall_ns``): then the market is
silent.
"""

import hashlib

import msgspec

from mmbot.config import Sim
from mmbot.errors import UserError
from mmbot.sim import oracle
from mmbot.sim.engine import MarketSpec
from mmbot.sim.participants import Flow, RecordedMarket
from mmbot.sim.spot import Binance
from mmbot.sim.tapes import btc15m, chainlink_day, probe
from mmbot.sim.tapes.window import Window
from shm_layout.records import DOWN, UP

TAPES = {"btc15m": btc15m.Source, "chainlink-day": chainlink_day.Source, "probe": probe.Source}
AHEAD = 2                  # listed windows after the current one
KEEP_S = 200               # spot history kept before the previous window


class Tape:
    """One loaded tape. Use `load`."""

    def __init__(self, name: str, source, settings: Sim):
        self.name, self.label, self.origin = name, source.label, source.origin
        self.duration_s, self.path = source.duration_s, source.path     # path: the spot price
        self.start_wall_ns = source.start_wall_ms * 1_000_000
        last = source.last_index
        self.end_wall_ns = None if last is None else (source.start_of(last) + source.duration_s) * 1_000_000_000
        self.probes = 0            # steps of the probe so far; grows just before the first frame of a step leaves
        self.probe_ms = 0          # when that was
        self._source = source
        self._version = settings.version
        self._last = last
        self._now_ms = source.start_wall_ms
        self._flow = Flow(settings.seed, settings.frames_per_s, settings.speed)
        self._windows: dict[int, Window] = {}
        self._players: dict[int, RecordedMarket] = {}
        self._open: list[int] = []
        self._results: dict[int, Window] = {}
        self._index_of: dict[str, int] = {}
        self._next_build = source.first_index
        self._listing: tuple[int, list[MarketSpec]] = (-(10**9), [])
        self._references = oracle.References(source.prints, source.path, source.start_wall_ms)
        self._binance = Binance(source.path, settings.seed, source.start_wall_ms, settings.speed)
        self._build(self.index_at(source.start_wall_ms / 1000) + AHEAD + 1)

    def index_at(self, now_s: float) -> int:
        """Number of the run-window that contains ``now_s``."""
        return int((now_s - self._source.start_of(0)) // self.duration_s)

    def markets(self, now_s: float) -> list[MarketSpec]:
        """Windows that must be listed at ``now_s``: previous, current, next and the one after it (as far as the tape has them)."""
        index = self.index_at(now_s)
        if index != self._listing[0]:
            self._build(index + AHEAD)
            self._listing = (index, [self._windows[i].spec for i in range(index - 1, index + AHEAD + 1) if i in self._windows])
        return self._listing[1]

    def step(self, exchange, now_ms: int) -> int:
        """Apply everything due by ``now_ms`` to the exchange; returns how many levels were set."""
        self._now_ms = now_ms
        index = self.index_at(now_ms / 1000)
        changes = 0
        for i in range(index, index + AHEAD + 1):
            player = self._players.get(i) or self._join(exchange, i)
            if player is not None:
                if self.name == "probe" and i == index and player.row_due(now_ms):
                    self.probes += 1
                    self.probe_ms = now_ms
                before = player.changes
                player.step(exchange, now_ms)
                changes += player.changes - before
        if self._open and self._open[0] < index:
            self._finish(exchange, index, now_ms)
        self._build(self.index_at(now_ms / 1000 + self.duration_s / 2) + AHEAD)
        return changes

    def rtds(self, now_ms: int) -> list[bytes]:
        """RTDS frames of all topics that arrive by ``now_ms`` and were not returned before."""
        return self._references.frames(now_ms)

    def binance(self, now_ms: int) -> list[tuple[str, bytes]]:
        """(stream, raw JSON) Binance frames due by ``now_ms`` and not returned before."""
        return self._binance.frames(now_ms)

    def resolution(self, spec: MarketSpec) -> tuple[int, str | None, str | None] | None:
        """(outcome UP/DOWN, price to beat, final price) once the window has resolved, else None. Prices: exact decimal text or None."""
        window = self._results.get(self._index_of.get(spec.condition_id))
        if window is None or self._now_ms < window.resolve_ms:
            return None
        strike, final = (None if v is None else oracle.decimal(v) for v in (window.strike_e18, window.final_e18))
        return window.outcome, strike, final

    def _build(self, until: int) -> None:
        """Make windows up to ``until``, and forget what nobody needs any more."""
        if self._last is not None:
            until = min(until, self._last)
        while self._next_build <= until:
            i = self._next_build
            window = self._source.build(i)
            if self._version == "v2" or (self._version == "alternate" and i % 2 == 0):
                window = Window(as_v2(window.spec), window.rows, window.outcome, window.strike_e18, window.final_e18, window.resolve_ms)
            self._windows[i] = self._results[i] = window
            self._index_of[window.spec.condition_id] = i
            self._next_build += 1
            oldest = i - AHEAD - 3
            if oldest in self._windows:
                del self._windows[oldest]
                self._results[oldest] = self._without_rows(self._results[oldest])
            if self._last is None:
                self._source.path.trim((self._source.start_of(oldest) - KEEP_S) * 1000)

    @staticmethod
    def _without_rows(window: Window) -> Window:
        return Window(window.spec, window.rows[:0], window.outcome, window.strike_e18, window.final_e18, window.resolve_ms)

    def _join(self, exchange, index: int) -> RecordedMarket | None:
        """The player of a window, once the exchange lists it."""
        window = self._windows.get(index)
        if window is None or exchange.market(window.spec.condition_id) is None:
            return None
        spec = window.spec
        player = RecordedMarket(spec.condition_id, window.rows, self._flow, index * 1009, (spec.start_s - self.duration_s) * 1000)
        self._players[index] = player
        self._open.append(index)
        return player

    def _finish(self, exchange, index: int, now_ms: int) -> None:
        """Close windows that are over and resolve those whose time has come."""
        for i in [i for i in self._open if i < index]:
            window = self._results[i]
            cid = window.spec.condition_id
            listed = exchange.market(cid) is not None      # after a very long pause the exchange may have dropped it
            if self._players.pop(i, None) is not None and listed:
                exchange.close_market(cid, now_ms)
            if now_ms >= window.resolve_ms:
                if listed:
                    exchange.resolve(cid, window.outcome, now_ms)
                self._open.remove(i)


def as_v2(spec: MarketSpec) -> MarketSpec:
    """The same window as a market of the newer protocol: its tokens are position ids (module 1, a market's number, the outcome)."""
    number = int(hashlib.sha256(spec.condition_id.encode()).hexdigest()[:32], 16) << 104
    up, down = (str(1 << 248 | number | outcome) for outcome in (UP, DOWN))
    return msgspec.structs.replace(spec, version="v2", condition_id=spec.condition_id[:-2] + "00", token_up=up, token_down=down)


def load(name: str, settings: Sim) -> Tape:
    """The tape called ``name`` (btc15m, chainlink-day, probe). Errors: UserError naming the tape or file and the fix."""
    source = TAPES.get(name)
    if source is None:
        raise UserError(f"unknown tape {name!r} (sim.tape): choose one of {', '.join(TAPES)}")
    return Tape(name, source(settings), settings)
