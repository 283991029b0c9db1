"""The real exchange without sockets: its engine, services, hub and feeds, driven by what is due next instead of a turn each few ms.

Owns: the drive (`Exchange.poke`), and what the run is told of its truth (`Exchange.listener` is wrapped by `Tee`). What can go wrong: an
exception in a turn ends the run, visibly.
"""

from mmbot.clock import WallClock, mono_ns
from mmbot.sim import server
from mmbot.sim.engine import Listener
from tests.dst.loop import ProcessLoop

LEAST_MS, BUSY_MS, MOST_MS = 1, 100, 500
ONE_MS = 1_000_000


class Tee(Listener):
    """Passes what the engine says to the hub, and first to an observer with any of the same methods."""

    def __init__(self, hub, observer):
        self.hub = hub
        for name in [n for n in dir(Listener) if n.startswith("on_")]:
            first, then = getattr(observer, name, None), getattr(hub, name)
            setattr(self, name, then if first is None else self._both(first, then))

    @staticmethod
    def _both(first, then):
        def call(*args):
            first(*args)
            then(*args)
        return call


class OrderedSet(dict):
    """A set that is walked in the order of insertion: the same in every run."""

    def add(self, item) -> None:
        self[item] = None

    def discard(self, item) -> None:
        self.pop(item, None)


class Exchange(server.SimServer):
    """`SimServer` whose ports are those of a `Network`."""

    def __init__(self, settings, tape, clock: WallClock, network, observer):
        open_clock, server.open_clock = server.open_clock, lambda *_: (clock, False)
        try:
            super().__init__(settings, tape, None)
        finally:
            server.open_clock = open_clock
        self.network = network
        self._handle = None
        self._handle_ns = 0
        self.exchange.listener = Tee(self.hub, observer)
        self.observer = observer

    def listen(self, loop: ProcessLoop) -> None:
        """Take the ports and start the drive."""
        base, network = self.settings.sim.base_port, self.network
        network.server_loop = self.loop = loop
        network.http = {base: self.clob, base + 1: self.gamma}
        network.ws = {base + 2: self.hub.accept}
        for i, name in enumerate(("rtds", "binance", "polybolt", "coinbase", "bybit")):
            channel = getattr(self, name, None)
            if channel is not None:
                network.ws[base + 3 + i] = channel.accept
                if isinstance(getattr(channel, "links", None), set):
                    channel.links = OrderedSet()
        network.after_request = self.poke
        self.turn()

    def turn(self) -> None:
        """Everything that is due now."""
        self._handle = None
        self.faults.tick(mono_ns() / 1e6)
        self._work()
        self.poke()

    def due_ms(self, now_ms: int) -> int:
        """When the next turn is needed."""
        timers = self.exchange._timers
        most_ms = BUSY_MS if self.faults.running() else MOST_MS
        due = min(self.tape.next_ms(), timers[0][0] if timers else 1 << 60, now_ms + most_ms)
        return max(int(due), now_ms + LEAST_MS)

    def poke(self) -> None:
        """Something may have become due earlier than was planned."""
        wall_ns = self.clock.now_ns()
        due_ms = self.due_ms(wall_ns // ONE_MS)
        when_ns = self.loop.scheduler.now_ns + due_ms * ONE_MS - wall_ns + ONE_MS // 2
        if self._handle is not None:
            if self._handle_ns <= when_ns:
                return
            self._handle.cancel()
        self._handle_ns = when_ns
        self._handle = self.loop.call_ns(when_ns, self.turn)

    def fault(self, name: str, for_s: float | None = None, **params) -> int:
        """Start a fault of the catalogue; returns its id."""
        self.observer.say(f"fault {name} {for_s} {params}")
        self.observer.disturbed()
        id_ = self.faults.start(name, mono_ns() / 1e6, for_s, **params)
        self.poke()
        return id_
