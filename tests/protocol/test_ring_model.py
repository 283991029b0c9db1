"""The ring's own source under the memory model: every schedule, every reordering C11 allows, the writer killed at every store.

A writer incarnation publishes, is killed before its k-th store (every k), its successor recovers and publishes on. A reader
that starts in the past polls through `poll_link`. Nothing torn may be accepted, no number may mean two records, nobody may
stall. Each mutant breaks one line of the protocol and must be caught.
"""

import itertools
import random

import pytest
from viewmachine import Choices, Eyes, Killed, Memory, Private, Program, ReaderThread, WriterThread, outcomes

from shm_layout import header as h
from shm_layout import ring

FUNCTIONS = ("publish", "_take", "poll_link", "recover")
WORDS = 2


def content(seq, tag):
    return [(seq, tag, word) for word in range(WORDS)]


class Case:
    """A ring of ``depth`` slots, full of records published long ago; incarnation A, killed or not, then incarnation B."""

    def __init__(self, depth, first, second, mutate=()):
        self.depth, self.first, self.second = depth, first, second
        self.program = Program(ring, FUNCTIONS, mutate)

    def slot(self, seq):
        return h.DATA + seq % self.depth * (1 + WORDS)

    def history(self, kill_at):
        """(memory after both incarnations, whether A was killed, number of the last record B published)."""
        start = {h.W_HEAD: self.depth - 1}
        for seq in range(self.depth):
            start[self.slot(seq)] = seq
            start.update({self.slot(seq) + 1 + i: word for i, word in enumerate(content(seq, "0"))})
        memory = Memory({h.W_COUNT: self.depth, h.W_STRIDE: 8 * (1 + WORDS), h.W_RECORD_BYTES: 8 * WORDS}, start)
        killed = not self.write(memory, "A", self.first, kill_at)
        last = self.write(memory, "B", self.second, None)
        return memory, killed, last

    def write(self, memory, tag, records, kill_at):
        """Head after ``records`` records; None if the writer was killed."""
        space = self.program.bind(WriterThread(memory, kill_at))
        try:
            newest = space["recover"](memory)
            for _ in range(records):
                newest = space["publish"](memory, Private(content(newest + 1, tag)))
            return newest
        except Killed:
            return None

    def poll(self, memory):
        def call(thread, state):
            link, accepted = state
            link, out = Private(link), Private([None] * WORDS)
            before = link[ring.CURSOR]
            got = self.program.bind(thread)["poll_link"](memory, link, out)
            assert link[ring.CURSOR] >= before + got, "the cursor went back"
            assert link[ring.LOST] >= link[ring.LAPPED_POLLING] + link[ring.LAPPED_READING], "a lap that lost nothing"
            assert link[ring.CONSUMED] + link[ring.LOST] == link[ring.CURSOR], "records unaccounted for"
            link[ring.LAG_MAX] = 0           # a statistic, not part of the state
            return tuple(link), accepted | {(link[ring.CURSOR] - 1, tuple(out))} if got else accepted
        return call

    def check(self, memory, accepted):
        """What must hold for a reader that accepted these records, once everything is quiet."""
        for seq, words in accepted:
            assert len({(s, tag) for s, tag, _ in words}) == 1 and words[0][0] == seq, f"torn: record {seq} is {words}"
            assert [w for _, _, w in words] == list(range(WORDS)), f"torn: record {seq} is {words}"
            slot = self.slot(seq)
            if memory.last(slot) == seq:
                assert list(words) == [memory.last(slot + 1 + i) for i in range(WORDS)], f"record {seq} has two contents"

    def run(self, polls, sc=False):
        """All executions; returns how many. AssertionError at the first wrong one."""
        runs = 0
        for kill_at in itertools.count():
            memory, killed, last = self.history(kill_at)
            present = [memory.last(self.slot(seq)) for seq in range(last - self.depth + 1, last + 1)]
            assert memory.last(h.W_HEAD) == last and present == list(range(last - self.depth + 1, last + 1)), \
                f"stall: HEAD is {memory.last(h.W_HEAD)}, a reader finds {present}"
            states = {(Eyes((0,) * len(memory.place), (0,) * len(memory.place)), ((0,) * ring.LINK_WORDS, frozenset()))}
            for _ in range(polls):
                states, n = outcomes(memory, states, self.poll(memory), sc)
                runs += n
            for _, (_, accepted) in states:
                self.check(memory, accepted)
            if not killed:
                return runs


MUTANTS = {
    "no in-progress stamp": [("    store_relaxed(mem, slot, seq - 1)\n", "")],
    "no second look": [("if again != stamp:", "if False:")],
    "recover trusts head": [("for _ in range(mem[W_COUNT]):", "for _ in range(0):")],
    "no release fence": [("    fence_release()\n", "")],
    "release fence before the stamp": [("    store_relaxed(mem, slot, seq - 1)\n    fence_release()\n",
                                        "    fence_release()\n    store_relaxed(mem, slot, seq - 1)\n")],
    "release store of the stamp instead of a fence": [("    store_relaxed(mem, slot, seq - 1)\n    fence_release()\n",
                                                       "    store_release(mem, slot, seq - 1)\n")],
    "no acquire fence": [("    fence_acquire()\n", "")],
    "number stored relaxed": [("    store_release(mem, slot, seq)\n", "    store_relaxed(mem, slot, seq)\n")],
    "number loaded relaxed": [("    stamp = load_acquire(mem, slot)\n", "    stamp = load_relaxed(mem, slot)\n")],
    "number before the data": [("    store_relaxed(mem, slot, seq - 1)\n", "    store_relaxed(mem, slot, seq)\n")],
    "head before the number": [("    store_release(mem, slot, seq)\n    store_release(mem, W_HEAD, seq)\n",
                                "    store_release(mem, W_HEAD, seq)\n    store_release(mem, slot, seq)\n")],
    "a lapped reader trusts head alone": [("return _POLLING, max(load_acquire(mem, W_HEAD), stamp)",
                                           "return _POLLING, load_acquire(mem, W_HEAD)")],
}
#: mutants that need a reordering: sequential consistency cannot tell them from the protocol
REORDERINGS = {"no release fence", "release fence before the stamp", "release store of the stamp instead of a fence",
               "no acquire fence", "number stored relaxed", "number loaded relaxed", "a lapped reader trusts head alone"}


def test_every_execution_is_sound():
    runs = Case(2, 2, 2).run(polls=3)
    print(f"ring, C11: {runs} executions, nothing torn, reused or stalled")
    assert runs > 100_000


def test_every_schedule_is_sound_under_sequential_consistency():
    runs = Case(2, 2, 2).run(polls=3, sc=True)
    print(f"ring, sequential consistency: {runs} schedules")
    assert runs > 10_000


def test_large_cases_at_random():
    rng, case = random.Random(20260920), Case(4, 12, 6)
    stores = 12 * (4 + WORDS) + 1
    for _ in range(600):
        memory, _, _ = case.history(rng.randrange(stores))
        eyes, state = Eyes((0,) * len(memory.place), (0,) * len(memory.place)), ((0,) * ring.LINK_WORDS, frozenset())
        for _ in range(20):
            thread = ReaderThread(eyes, Choices(rng), sc=False)
            state = case.poll(memory)(thread, state)
            eyes = thread.eyes
        case.check(memory, state[1])


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(name):
    with pytest.raises(AssertionError) as caught:
        Case(2, 2, 1, MUTANTS[name]).run(polls=2)
    assert "does not apply" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(REORDERINGS))
def test_reordering_mutants_need_the_memory_model(name):
    Case(2, 2, 1, MUTANTS[name]).run(polls=2, sc=True)


def test_sequential_consistency_is_part_of_c11():
    case = Case(2, 1, 1)
    for kill_at in range(4):
        memory, _, _ = case.history(kill_at)
        start = {(Eyes((0,) * len(memory.place), (0,) * len(memory.place)), ((0,) * ring.LINK_WORDS, frozenset()))}
        strong, weak = ({state for _, state in outcomes(memory, start, case.poll(memory), sc)[0]} for sc in (True, False))
        assert strong <= weak
