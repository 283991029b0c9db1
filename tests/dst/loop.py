"""One virtual clock and one scheduler for many simulated processes, each with an asyncio loop of its own.

Owns: time (`Scheduler.now_ns`, which only moves when nothing can run, by 40 ns per reading of a clock and 1 us per turn of a process), the
order in which processes run (seeded), and what a process is to the others: running, stopped for a while (SIGSTOP), dead (SIGKILL).
A process runs until nothing of it is ready any more (or for ROUNDS callbacks); then any other ready process may run.
Nothing here keeps contexts (contextvars) apart: what runs must not use them.
What can go wrong: a callback that never ends hangs the run; a coroutine that waits for a thread or a socket waits for ever.
"""

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Callable

READ_NS, TURN_NS = 40, 1_000
ROUNDS = 64                 # callbacks of one process before another one may run
_push, _sleep, _tasks = heapq.heappush, asyncio.sleep, asyncio.tasks._current_tasks
_running: list = [None]     # the loop whose turn it is


def _running_loop():
    return _running[0]


def get_running_loop():
    """`asyncio.get_running_loop` while processes run."""
    if _running[0] is None:
        raise RuntimeError("no running event loop")
    return _running[0]


def _event_loop(*_, **__):
    return get_running_loop()


def current_task(loop=None):
    """`asyncio.current_task` while processes run."""
    return _tasks.get(loop or get_running_loop())


#: what asyncio's own, which ask the kernel for the number of the process each time, are replaced with while `Scheduler.run` runs
_INSTEAD = [(module, name, new) for name, new in (("get_running_loop", get_running_loop), ("_get_running_loop", _running_loop),
                                                  ("get_event_loop", _event_loop), ("_get_event_loop", _event_loop), ("current_task", current_task))
            for module in (asyncio, asyncio.events, asyncio.tasks) if hasattr(module, name)]


class Handle:
    """A callback that is due now or later."""
    __slots__ = ("loop", "callback", "args", "when_ns", "dead")

    def __init__(self, loop: "ProcessLoop", callback, args, when_ns: int):
        self.loop, self.callback, self.args, self.when_ns, self.dead = loop, callback, args, when_ns, False

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
        self._heap: list[tuple] = []
        self._runnable: list[ProcessLoop] = []
        self.halted = False

    def mono_ns(self) -> int:
        """The clock as the code under test reads it: no two readings are equal."""
        now = self.now_ns = self.now_ns + READ_NS
        return now

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
        heap, runnable, draw, pop, running = self._heap, self._runnable, self.rng.random, heapq.heappop, _running
        before = [(module, name, getattr(module, name)) for module, name, _ in _INSTEAD]
        try:
            for module, name, new in _INSTEAD:
                setattr(module, name, new)
            while not self.halted:
                if runnable:
                    if len(runnable) > 1:
                        i = int(draw() * len(runnable))
                        loop, runnable[i] = runnable[i], runnable[-1]
                        runnable.pop()
                    else:
                        loop = runnable.pop()
                    loop.queued = False
                    if not loop.dead and not loop.frozen:
                        self.now_ns += TURN_NS
                        running[0] = loop
                        loop.turn()
                    continue
                if not heap or heap[0][0] > until_ns:
                    self.now_ns = max(self.now_ns, until_ns)
                    return
                when_ns = heap[0][0]
                if when_ns > self.now_ns:
                    self.now_ns = when_ns
                else:
                    when_ns = self.now_ns
                while heap and heap[0][0] <= when_ns:
                    handle = pop(heap)[2]
                    loop = handle.loop
                    if not handle.dead and not loop.dead:
                        loop.queue.append(handle)
                        if not loop.queued and not loop.frozen:
                            loop.queued = True
                            runnable.append(loop)
        finally:
            running[0] = None
            for module, name, old in before:
                setattr(module, name, old)


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
        take, queue, left = self.queue.popleft, self.queue, ROUNDS
        while queue and left:
            left -= 1
            handle = take()
            if handle.dead:
                continue
            try:
                handle.callback(*handle.args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as e:
                self.call_exception_handler({"message": "a callback raised", "exception": e})
            if self.dead:
                return
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
        handle = Handle(self, callback, args, 0)
        if not self.dead:
            self.push(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay, callback, *args, context=None) -> Handle:
        return self.call_ns(self.scheduler.now_ns + max(int(delay * 1e9), 0), callback, args)

    def call_at(self, when, callback, *args, context=None) -> Handle:
        return self.call_ns(max(int(when * 1e9), self.scheduler.now_ns), callback, args)

    def call_ns(self, when_ns: int, callback, args=()) -> Handle:
        """`call_at` with a time in ns."""
        handle = Handle(self, callback, args, when_ns)
        if not self.dead:
            scheduler = self.scheduler
            _push(scheduler._heap, (when_ns, scheduler.rng.random(), handle))
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


class Nap:
    """What `sleep` waits for, made like a future that only its own task awaits: the timer wakes that task and nothing else."""
    __slots__ = ("loop", "delay_s", "handle", "wake", "over", "_asyncio_future_blocking")

    def __init__(self, loop: ProcessLoop, delay_s: float):
        self.loop, self.delay_s, self.over = loop, delay_s, False

    def __await__(self):
        self._asyncio_future_blocking = True
        yield self

    def get_loop(self) -> ProcessLoop:
        return self.loop

    def add_done_callback(self, wake, *, context=None) -> None:
        self.wake, self.handle = wake, self.loop.call_later(self.delay_s, wake, self)

    def cancel(self, msg=None) -> bool:
        if self.over:
            return False
        self.over = True
        self.handle.cancel()
        self.loop.call_soon(self.wake, self)
        return True

    def result(self) -> None:
        if self.over:
            raise asyncio.CancelledError
        self.over = True


async def sleep(delay: float, result=None):
    """`asyncio.sleep`, a callback and a future cheaper."""
    if delay <= 0:
        return await _sleep(0, result)
    await Nap(_running[0], delay)
    return result
