"""Time and names of the exchange: what is due when, and ids that never repeat.

Owns: the timer heap and the counter. Wall time in ms is an argument; there is no clock here. Protocol timers (taker delay, settlement,
heartbeat) are real durations, so they are multiplied by the clock's rate; expiries and windows are tape time.
What can go wrong: nothing; a timer whose object is gone looks first.
"""

import hashlib
import heapq
from collections.abc import Callable

from mmbot.clock import WallClock
from mmbot.config import Sim
from mmbot.sim.engine.listener import Hooks, Listener
from mmbot.sim.engine.terms import LAST_TRADE_LAG_MS


class Timers:
    """The lowest room: settings, listener, timers."""

    def __init__(self, clock: WallClock, seed: int, settings: Sim, listener: Listener | None = None):
        self.clock, self.settings = clock, settings
        self.listener = listener or Listener()
        self.hooks: Hooks | None = None               # set while a fault inside the engine runs
        self.delay_ms = settings.taker_delay_ms * clock.rate
        self.settle_ms = settings.settle_ms * clock.rate
        self.last_trade_lag_ms = LAST_TRADE_LAG_MS * clock.rate
        self._timers: list = []
        self._count = 0
        self._salt = f"{seed}:{clock.now_ns()}:"
        self._heartbeat_check_ms = 0.0

    def advance(self, now_ms: int) -> None:
        """Run everything due: delayed takers, prints, settlement, expiries, heartbeats."""
        timers = self._timers
        while timers and timers[0][0] <= now_ms:
            due_ms, _, call, args = heapq.heappop(timers)
            call(*args, now_ms)
        if now_ms >= self._heartbeat_check_ms:
            self._check_heartbeats(now_ms)

    def _check_heartbeats(self, now_ms: int) -> None:
        """Cancel the orders of those whose heartbeat stopped."""

    def _at(self, due_ms: float, call: Callable, *args) -> None:
        self._count += 1
        heapq.heappush(self._timers, (due_ms, self._count, call, args))

    def _name(self, kind: str) -> str:
        self._count += 1
        return hashlib.sha256(f"{self._salt}{kind}{self._count}".encode()).hexdigest()

    def new_uuid(self) -> str:
        """An id that was not there before."""
        h = self._name("trade")
        return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:32]}"
