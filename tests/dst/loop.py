"""One virtual clock and one scheduler for many simulated processes, each with an asyncio loop of its own.

Owns: time (`Scheduler.now_ns`, which only moves when nothing can run, by 40 ns per reading of a clock and 1 us per turn of a process), the
order in which processes run (seeded), and what a process is to the others: running, stopped for a while (SIGSTOP), dead (SIGKILL).
A process runs until nothing of it is ready any more (or for ROUNDS callbacks); then any other ready process may run.
What can go wrong: a callback that never ends hangs the run; a coroutine that waits for a thread or a socket waits for ever.
"""

import asyncio
import contextvars
import heapq
import random
from collections import deque
from collections.abc import Callable
from itertools import count

READ_NS, TURN_NS = 40, 1_000
ROUNDS = 64                 # callbacks of one process before another one may run
_set_running = asyncio._set_running_loop


class Handle:
    """A callback that is due now or later."""
    __slots__ = ("callback", "args", "context", "when_ns", "dead")

    def __init__(self, callback, args, context, when_ns: int):
        self.callback, self.args, self.context, self.when_ns, self.dead = callback, args, context, when_ns, False

    def cancel(self) -> None:
        self.dead, self.callback, self.args = True, None, ()

    def cancelled(self) -> bool:
        return self.dead

    def when(self) -> float:
        return self.when_ns / 1e9


class Scheduler:
    """Runs processes in virtual time. Everything random about it comes from ``seed``."""

    def __init__(self, seed: int, start_ns: int = 1_000_000_000_000):
        self.rng = random.Random(seed)
        self.now_ns = start_ns
        self.turns = 0
        self._heap: list[tuple] = []
        self._runnable: list[ProcessLoop] = []
        self._count = count()
        self.on_turn: Callable[[ProcessLoop], None] | None = None
        self.halted = False

    def mono_ns(self) -> int:
        """The clock as the code under test reads it: no two readings are equal."""
        self.now_ns += READ_NS
        return self.now_ns

    def at(self, when_ns: int, loop: "ProcessLoop", handle: Handle) -> None:
        """Make ``handle`` ready in ``loop`` at a time; among equal times the seed decides."""
        heapq.heappush(self._heap, (when_ns, self.rng.random(), next(self._count), loop, handle))

    def ready(self, loop: "ProcessLoop") -> None:
        """A loop has something to run."""
        if not loop.queued:
            loop.queued = True
            self._runnable.append(loop)

    def forget(self) -> None:
        """Drop everything that is still due."""
        self._heap.clear()
        self._runnable.clear()

    def run(self, until_ns: int) -> None:
        """Let everything happen that happens before ``until_ns``."""
        heap, runnable, rng = self._heap, self._runnable, self.rng
        while not self.halted:
            if runnable:
                i = int(rng.random() * len(runnable)) if len(runnable) > 1 else 0
                loop = runnable[i]
                runnable[i] = runnable[-1]
                runnable.pop()
                loop.queued = False
                if not loop.dead and not loop.frozen:
                    self.now_ns += TURN_NS
                    self.turns += 1
                    loop.turn()
                    if self.on_turn is not None:
                        self.on_turn(loop)
                continue
            if not heap or heap[0][0] > until_ns:
                self.now_ns = max(self.now_ns, until_ns)
                return
            when_ns = heap[0][0]
            if when_ns > self.now_ns:
                self.now_ns = when_ns
            while heap and heap[0][0] <= self.now_ns:
                _, _, _, loop, handle = heapq.heappop(heap)
                if not handle.dead and not loop.dead:
                    loop.push(handle)


class ProcessLoop(asyncio.AbstractEventLoop):
    """The event loop of one incarnation of one process."""

    def __init__(self, scheduler: Scheduler, name: str, network=None):
        self.scheduler, self.name, self.network = scheduler, name, network
        self.queue: deque[Handle] = deque()
        self.queued = self.dead = self.frozen = False
        self._handler = None
        self.on_error: Callable[[dict], None] = lambda context: None
        self.closers: list[Callable[[], None]] = []

    # -- what the scheduler does with it --

    def push(self, handle: Handle) -> None:
        """A callback is due."""
        self.queue.append(handle)
        if not self.queued and not self.frozen:
            self.scheduler.ready(self)

    def turn(self) -> None:
        """Everything that is ready, and what that makes ready at once, for at most ROUNDS callbacks."""
        queue, left = self.queue, ROUNDS
        _set_running(self)
        try:
            while queue and left:
                left -= 1
                handle = queue.popleft()
                if handle.dead:
                    continue
                try:
                    handle.context.run(handle.callback, *handle.args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as e:
                    self.call_exception_handler({"message": "a callback raised", "exception": e})
                if self.dead:
                    return
        finally:
            _set_running(None)
        if queue:
            self.scheduler.ready(self)

    def freeze(self) -> None:
        """SIGSTOP: nothing runs until `thaw`; what becomes due waits."""
        self.frozen = True

    def thaw(self) -> None:
        """SIGCONT: all that became due meanwhile runs."""
        self.frozen = False
        if self.queue:
            self.scheduler.ready(self)

    def kill(self) -> None:
        """SIGKILL: nothing of it ever runs again; the kernel closes what it had open."""
        self.dead = True
        self.queue.clear()
        for close in self.closers:
            close()

    # -- what asyncio asks of a loop --

    def time(self) -> float:
        return self.scheduler.now_ns / 1e9

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return self.dead

    def create_future(self) -> asyncio.Future:
        return asyncio.Future(loop=self)

    def create_task(self, coro, *, name=None, context=None) -> asyncio.Task:
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def call_soon(self, callback, *args, context=None) -> Handle:
        handle = Handle(callback, args, context or contextvars.copy_context(), self.scheduler.now_ns)
        if not self.dead:
            self.push(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay, callback, *args, context=None) -> Handle:
        return self.call_ns(self.scheduler.now_ns + max(int(delay * 1e9), 0), callback, args, context)

    def call_at(self, when, callback, *args, context=None) -> Handle:
        return self.call_ns(max(int(when * 1e9), self.scheduler.now_ns), callback, args, context)

    def call_ns(self, when_ns: int, callback, args=(), context=None) -> Handle:
        """`call_at` with a time in ns."""
        handle = Handle(callback, args, context or contextvars.copy_context(), when_ns)
        if not self.dead:
            self.scheduler.at(when_ns, self, handle)
        return handle

    def set_exception_handler(self, handler) -> None:
        self._handler = handler

    def default_exception_handler(self, context) -> None:
        self.on_error(context)

    def call_exception_handler(self, context) -> None:
        if self.dead:
            return
        if self._handler is not None:
            self._handler(self, context)
        else:
            self.default_exception_handler(context)

    async def create_connection(self, factory, host=None, port=None, **_):
        return await self.network.connect_tcp(self, factory, host, port)
