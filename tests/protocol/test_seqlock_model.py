"""The seqlock's own source under the memory model: every schedule, every reordering C11 allows, a kill at every store.

Nothing torn may be accepted, versions never go back, a version never means two values, and after the writer's death a reader
still gets the last complete value at the first try. Each mutant must be caught; the classic odd/even seqlock is one of them: it
is never torn, and blocks its readers for ever when the writer dies inside.
"""

import itertools
import random

import pytest
from viewmachine import Choices, Eyes, Killed, Memory, Private, Program, ReaderThread, WriterThread, outcomes

from shm_layout import header as h
from shm_layout import seqlock

FUNCTIONS = ("write_at", "read_at")
WORDS, BASE, START = 2, h.DATA, 2
CELL = h.lines(WORDS)


def content(version, tag):
    return [(version, tag, word) for word in range(WORDS)]


class Case:
    """One entry at version 2; incarnation A writes, killed or not, then incarnation B."""

    def __init__(self, first, second, mutate=(), tries=2):
        self.first, self.second = first, second
        self.program = Program(seqlock, FUNCTIONS, mutate, TRIES=tries)

    def history(self, kill_at):
        """(memory after both incarnations, whether A was killed, version of the last value)."""
        start = {BASE: START}
        for cell, version in ((START & 1, START), (START - 1 & 1, START - 1)):
            start.update({BASE + h.LINE_WORDS + cell * CELL + i: word for i, word in enumerate(content(version, "0"))})
        memory = Memory({}, start)
        killed = not self.write(memory, "A", self.first, kill_at)
        if self.second:
            self.write(memory, "B", self.second, None)
        return memory, killed

    def write(self, memory, tag, values, kill_at):
        space = self.program.bind(WriterThread(memory, kill_at))
        try:
            for _ in range(values):
                number = memory.last(BASE) + 1
                assert space["write_at"](memory, BASE, Private(content(number, tag))) >= number
            return True
        except Killed:
            return False

    def read(self, memory):
        def call(thread, state):
            newest, accepted = state
            out = Private([None] * WORDS)
            version = self.program.bind(thread)["read_at"](memory, BASE, out)
            if version == seqlock.BUSY:
                return state
            assert version >= newest, f"version went back from {newest} to {version}"
            return version, accepted | {(version, tuple(out))}
        return call

    def check(self, accepted):
        for version, words in accepted:
            assert len({(v, tag) for v, tag, _ in words}) == 1, f"torn: version {version} is {words}"
            assert words[0][0] == version, f"version {version} gave value {words[0][0]}"
            assert [w for _, _, w in words] == list(range(WORDS)), f"torn: version {version} is {words}"
        assert len({v for v, _ in accepted}) == len(accepted), f"one version, two values: {accepted}"

    def read_when_quiet(self, memory):
        """What a reader that sees everything gets: (version, words)."""
        out = Private([None] * WORDS)
        version = self.program.bind(WriterThread(memory))["read_at"](memory, BASE, out)
        return version, tuple(out)

    def run(self, reads, sc=False):
        """All executions; returns how many. AssertionError at the first wrong one."""
        runs = 0
        for kill_at in itertools.count():
            memory, killed = self.history(kill_at)
            version, words = self.read_when_quiet(memory)
            assert version > 0, "stuck: the writer is gone and a reader finds the entry busy"
            self.check({(version, words)})
            states = {(Eyes((0,) * len(memory.place), (0,) * len(memory.place)), (0, frozenset()))}
            for _ in range(reads):
                states, n = outcomes(memory, states, self.read(memory), sc)
                runs += n
            for _, (_, accepted) in states:
                self.check(accepted)
            if not killed:
                return runs


FILL = """    for i in range(payload.size):
        store_relaxed(mem, cell + i, load_relaxed(payload, i))
"""
DONE = "    store_release(mem, base, version)\n"
MUTANTS = {
    "version before the data": [(FILL + DONE, DONE + FILL)],
    "no release fence": [("    fence_release()\n", "")],
    "release fence after the data": [("    fence_release()\n" + FILL, FILL + "    fence_release()\n")],
    "no acquire fence": [("        fence_acquire()\n", "")],
    "no second look": [("        if load_relaxed(mem, base) == version:\n", "        if True:\n")],
    "version stored relaxed": [(DONE, "    store_relaxed(mem, base, version)\n")],
    "version loaded relaxed": [("        version = load_acquire(mem, base)\n", "        version = load_relaxed(mem, base)\n")],
    "one cell only": [("    cell = base + LINE_WORDS + (version & 1) * ((payload.size",
                       "    cell = base + LINE_WORDS + 0 * ((payload.size"),
                      ("        cell = base + LINE_WORDS + (version & 1) * size\n", "        cell = base + LINE_WORDS\n")],
    "writes the cell that is being read": [("load_relaxed(mem, base) + 1\n    cell = base + LINE_WORDS + (version & 1)",
                                            "load_relaxed(mem, base) + 1\n    cell = base + LINE_WORDS + (version + 1 & 1)"),
                                           ("        cell = base + LINE_WORDS + (version & 1) * size\n",
                                            "        cell = base + LINE_WORDS + (version + 1 & 1) * size\n"),
                                           (FILL, DONE + FILL)],
}
REORDERINGS = {"no release fence", "release fence after the data", "no acquire fence", "version stored relaxed",
               "version loaded relaxed"}

CLASSIC = [
    ("    version = load_relaxed(mem, base) + 1\n", "    version = load_relaxed(mem, base) // 2 * 2 + 2\n"),
    ("    cell = base + LINE_WORDS + (version & 1) * ((payload.size", "    cell = base + LINE_WORDS + 0 * ((payload.size"),
    ("    fence_release()\n", "    store_relaxed(mem, base, version - 1)\n    fence_release()\n"),
    ("        if version == 0:\n            return NEVER_WRITTEN\n", "        if version & 1:\n            continue\n"),
    ("        cell = base + LINE_WORDS + (version & 1) * size\n", "        cell = base + LINE_WORDS\n"),
]


def test_every_execution_is_sound():
    runs = Case(4, 2).run(reads=3)
    print(f"seqlock, C11: {runs} executions, nothing torn, reused or stuck")
    assert runs > 10_000


def test_every_schedule_is_sound_under_sequential_consistency():
    runs = Case(3, 2).run(reads=3, sc=True)
    print(f"seqlock, sequential consistency: {runs} schedules")
    assert runs > 10_000


def test_a_dead_writer_leaves_the_last_value():
    case = Case(3, 0)
    for kill_at in range(3 * (WORDS + 1)):
        memory, killed = case.history(kill_at)
        version, words = case.read_when_quiet(memory)
        assert killed and version == START + kill_at // (WORDS + 1) and words[0][0] == version


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(name):
    with pytest.raises(AssertionError) as caught:
        Case(3, 1, MUTANTS[name]).run(reads=2)
    assert "does not apply" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(REORDERINGS))
def test_reordering_mutants_need_the_memory_model(name):
    Case(3, 1, MUTANTS[name]).run(reads=2, sc=True)


def test_classic_seqlock_is_stuck_when_its_writer_dies():
    with pytest.raises(AssertionError, match="stuck"):
        Case(2, 0, CLASSIC).run(reads=1)


def test_large_cases_at_random():
    rng, case = random.Random(20260920), Case(10, 6, tries=3)
    for _ in range(600):
        memory, _ = case.history(rng.randrange(10 * (WORDS + 1)))
        eyes, state = Eyes((0,) * len(memory.place), (0,) * len(memory.place)), (0, frozenset())
        for _ in range(15):
            thread = ReaderThread(eyes, Choices(rng), sc=False)
            state = case.read(memory)(thread, state)
            eyes = thread.eyes
        case.check(state[1])
