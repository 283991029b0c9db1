"""Runs the project's own ring and seqlock source on a model of C11 memory, over every execution the model allows.

The functions are not re-written for the model: their source is taken from shm_layout, optionally mutated by a text replacement
that must match exactly once, and executed with the atomics replaced by hooks. So what is proven is the code that runs.

Memory model: the view machine for relaxed, acquire and release accesses and fences (operational C11 without load buffering: a
load never returns a value stored later in time; Kang and others, "A promising semantics for relaxed-memory concurrency", 2017,
without promises). Every location keeps all its values in order; a thread has a view, the oldest value of each location it may
still see; a load may return any value from there on. Release stores and release fences attach views to values, acquire loads
and acquire fences take them over. ``sc=True`` is sequential consistency instead: one clock.

Why no scheduler: a writer never reads what a reader writes, so its run does not depend on the schedule. It is run first, once
for each point at which it can be killed, and the readers then choose among the values of the whole history: every schedule and
every reordering is one such choice. A new writer begins with the view of everything (it got the lock from the kernel, which
orders memory). Limits: small sizes here, larger ones at random; what silicon really does is for the litmus and torture tests.
"""

import inspect
import random
import textwrap
from dataclasses import dataclass

ATOMICS = ("load_acquire", "load_relaxed", "store_release", "store_relaxed", "fence_acquire", "fence_release", "pause")


class Killed(Exception):
    """The writer was killed before this operation."""


class Private(list):
    """Private memory of one thread: numpy-like enough for the code under test."""
    size = property(len)


class Memory:
    """Shared words: ``plain`` are header constants read without atomics, ``start`` the initial values of all others."""

    def __init__(self, plain: dict, start: dict):
        self.plain = plain
        self.place = {loc: i for i, loc in enumerate(start)}
        bottom = (0,) * len(start)
        self.log = {loc: [(value, bottom, 0)] for loc, value in start.items()}       # (value, view, time) oldest first
        self.time = 0

    def __getitem__(self, word):
        return self.plain[word]

    def newest(self) -> tuple:
        return tuple(len(self.log[loc]) - 1 for loc in self.place)

    def last(self, loc):
        return self.log[loc][-1][0]


def join(a: tuple, b: tuple) -> tuple:
    return tuple(map(max, a, b))


class WriterThread:
    """Single writer: it sees all its own stores. Raises Killed before store number ``kill_at`` (counted over its life)."""

    def __init__(self, memory: Memory, kill_at: int | None = None):
        self.memory, self.left = memory, kill_at
        self.cur = self.rel = memory.newest()

    def load_relaxed(self, where, i):
        return where[i] if isinstance(where, Private) else where.last(i)

    load_acquire = load_relaxed

    def _store(self, memory, loc, value, release):
        if self.left is not None:
            if self.left == 0:
                raise Killed
            self.left -= 1
        at, ts = memory.place[loc], len(memory.log[loc])
        self.cur = self.cur[:at] + (ts,) + self.cur[at + 1:]
        attached = self.cur if release else self.rel[:at] + (ts,) + self.rel[at + 1:]
        memory.time += 1
        memory.log[loc].append((value, attached, memory.time))

    def store_relaxed(self, memory, loc, value):
        if isinstance(memory, Private):
            memory[loc] = value
        else:
            self._store(memory, loc, value, False)

    def store_release(self, memory, loc, value):
        self._store(memory, loc, value, True)

    def fence_release(self):
        self.rel = self.cur

    def fence_acquire(self):
        pass

    def pause(self):
        pass


class Choices:
    """Enumerates all sequences of choices, like an odometer; or draws them at random from a seed."""

    def __init__(self, rng: random.Random | None = None):
        self.digits, self.at, self.rng, self.fresh = [], 0, rng, True

    def next_run(self) -> bool:
        self.at = 0
        if self.fresh:
            self.fresh = False
            return True
        while self.digits:
            value, most = self.digits[-1]
            if value < most:
                self.digits[-1] = (value + 1, most)
                return True
            self.digits.pop()
        return False

    def choose(self, n: int) -> int:
        if self.rng:
            return self.rng.randrange(n)
        if n == 1:
            return 0
        if self.at == len(self.digits):
            self.digits.append((0, n - 1))
        self.at += 1
        return self.digits[self.at - 1][0]


@dataclass(frozen=True)
class Eyes:
    """What a reading thread may still see: its views (C11) and its clock (sequential consistency)."""
    cur: tuple
    acq: tuple
    clock: int = 0


class ReaderThread:
    """Reads with every freedom the model gives; never stores to shared memory."""

    def __init__(self, eyes: Eyes, choices: Choices, sc: bool):
        self.eyes, self.choices, self.sc = eyes, choices, sc

    def _load(self, memory, loc, acquire):
        log, at, eyes = memory.log[loc], memory.place[loc], self.eyes
        oldest = eyes.cur[at]
        if self.sc:
            oldest = max(i for i, (_, _, time) in enumerate(log) if time <= eyes.clock)
        ts = oldest + self.choices.choose(len(log) - oldest)
        value, view, time = log[ts]
        seen = eyes.cur[:at] + (max(ts, eyes.cur[at]),) + eyes.cur[at + 1:]
        acq = join(join(eyes.acq, seen), view)
        self.eyes = Eyes(join(seen, view) if acquire else seen, acq, max(eyes.clock, time))
        return value

    def load_acquire(self, memory, loc):
        return self._load(memory, loc, True)

    def load_relaxed(self, where, i):
        return where[i] if isinstance(where, Private) else self._load(where, i, False)

    def store_relaxed(self, where, i, value):
        assert isinstance(where, Private), "a reader must not store to shared memory"
        where[i] = value

    def store_release(self, where, i, value):
        raise AssertionError("a reader must not store to shared memory")

    def fence_acquire(self):
        self.eyes = Eyes(self.eyes.acq, self.eyes.acq, self.eyes.clock)

    def fence_release(self):
        pass

    def pause(self):
        pass


class Program:
    """The functions ``names`` of a shm_layout module. mutate: (old text, new text) pairs, each found exactly once."""

    def __init__(self, module, names, mutate=(), **constants):
        source = "\n".join(self._source(getattr(module, name)) for name in names)
        for old, new in mutate:
            assert source.count(old) == 1, f"mutant does not apply: {old!r} is there {source.count(old)} times"
            source = source.replace(old, new)
        self.space = {k: v for k, v in vars(module).items() if isinstance(v, int)} | constants
        exec(compile(source, f"<{module.__name__} under the model>", "exec"), self.space)

    @staticmethod
    def _source(function) -> str:
        lines = textwrap.dedent(inspect.getsource(function.py_func)).splitlines()
        start = next(i for i, line in enumerate(lines) if line.startswith("def "))
        return "\n".join(lines[start:]) + "\n"

    def bind(self, thread) -> dict:
        """The functions by name, with ``thread`` in place of the atomics until the next bind."""
        for name in ATOMICS:
            self.space[name] = getattr(thread, name)
        return self.space


def outcomes(memory: Memory, start: set, call, sc: bool) -> tuple[set, int]:
    """Every result of one reader call from every start state: ({(Eyes, state)}, executions).

    call(thread, state) -> state, run once for each sequence of choices.
    """
    ends, runs = set(), 0
    for eyes, state in start:
        choices = Choices()
        while choices.next_run():
            thread = ReaderThread(eyes, choices, sc)
            ends.add((call(thread, state), thread.eyes))
            runs += 1
    return {(eyes, state) for state, eyes in ends}, runs
