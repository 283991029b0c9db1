"""Real processes on real memory: torn reads counted, and writers killed with SIGKILL at random instants.

Short here; MMBOT_STRESS=1 (`make stress`) makes it 1e9 reads and 500 kills; MMBOT_TORTURE_READS and MMBOT_TORTURE_KILLS set
either.
"""

import os
import random
import time

import numpy as np
import pytest
from children import answer, cpus, end, ring_spec, seqlock_spec, space, start
from proving import fill, poll_many, publish_many, read_many, torn, write_many

from shm_layout import header as h
from shm_layout import ring, seqlock
from shm_layout.atomics import load_word, store_word
from shm_layout.segment import alive, verify

STRESS = bool(os.environ.get("MMBOT_STRESS"))
READS = int(float(os.environ.get("MMBOT_TORTURE_READS", "1e9" if STRESS else "3e6")))
KILLS = int(float(os.environ.get("MMBOT_TORTURE_KILLS", "500" if STRESS else "20")))
DEADLINE_S = max(6.0, READS / 1e6)

pytestmark = [pytest.mark.skipif(len(cpus()) < 2, reason="needs two CPUs"), pytest.mark.timeout(120 + 2 * DEADLINE_S + 4 * KILLS)]


@pytest.fixture(autouse=True)
def pinned():
    """The reading side is this process, on the first CPU; writers get the last."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpus()[0]})
    yield
    os.sched_setaffinity(0, before)


LAST_CPU = cpus()[-1]
WIDE = 500                # words; copying such a record takes most of the writer's time, so most kills hit inside


@pytest.mark.parametrize("depth", [2, 256])
def test_no_torn_read_in_the_ring(depth):
    counts = np.zeros(4, np.int64)
    with space("tear", rings={"r": ring_spec(15, depth)}) as s:
        writer = start("write_one", s.run_name, "r", cpu=LAST_CPU)
        try:
            answer(writer)
            reader, stop = ring.RingReader(s.attach("r")), time.monotonic() + DEADLINE_S
            first = int(reader.link[ring.CURSOR])
            while counts[0] < READS / 2 and time.monotonic() < stop:
                poll_many(reader.mem, reader.link, reader.words, 100_000, counts)
            assert writer.poll() is None
        finally:
            end(writer)
        link = dict(zip(ring.LINK_FIELDS, reader.link.tolist(), strict=False))
        print(f"depth {depth}: {counts[0]} accepted, {counts[1]} torn, {link}")
        assert counts[0] > 1000 and counts[1] == 0
        assert link["consumed"] == counts[0] and link["consumed"] + link["lost"] == link["cursor"] - first


def test_no_torn_read_in_the_seqlock():
    counts = np.zeros(5, np.int64)
    with space("tear", seqlocks={"s": seqlock_spec(64)}) as s:
        writer = start("write_one", s.run_name, "s", cpu=LAST_CPU)
        try:
            answer(writer)
            reader, stop = seqlock.SeqlockReader(s.attach("s")), time.monotonic() + DEADLINE_S
            while counts[0] < READS / 2 and time.monotonic() < stop:
                read_many(reader.mem, reader.words, 100_000, counts)
            assert writer.poll() is None
        finally:
            end(writer)
        print(f"seqlock: {counts[0]} accepted, {counts[1]} torn, {counts[2]} went back, {counts[3]} busy")
        assert counts[0] > 1000 and counts[1] == counts[2] == 0


def test_the_torture_can_see_a_torn_record():
    words = np.zeros(15, np.int64)
    fill(words, 7, 1)
    assert torn(words, 7) == 0
    assert torn(words, 8) == 1
    words[14] ^= 1
    assert torn(words, 7) == 1


def contents(segment) -> dict[int, tuple]:
    """Every record a reader could get now, by number, also past HEAD."""
    newest, out, found = ring.head(segment.mem), np.zeros(segment.words, np.int64), {}
    for seq in range(max(0, newest + 2 - segment.count), newest + 2):
        if ring.poll(segment.mem, seq, out) == 1:
            assert not torn(out, seq), f"torn record {seq}"
            found[seq] = tuple(out.tolist())
    return found


def test_sigkill():
    rng, mid_slot, past_head = random.Random(1), 0, 0
    with space("kill", rings={"r": ring_spec(WIDE, 16)}, seqlocks={"s": seqlock_spec(WIDE)}) as s:
        r, q = s.attach("r"), s.attach("s")
        reader, counts, reads = ring.RingReader(r, from_head=False), np.zeros(4, np.int64), np.zeros(5, np.int64)
        out, coming = np.zeros(WIDE, np.int64), start("write_both", s.run_name, LAST_CPU)
        try:
            for epoch in range(1, KILLS + 1):
                writer, coming = coming, start("write_both", s.run_name, LAST_CPU)
                answer(writer)
                before, version = contents(r), seqlock.version(q.mem, 0)
                writer.stdin.write("go\n")
                writer.stdin.flush()
                assert answer(writer)["epoch"] == epoch
                stop = time.monotonic() + rng.uniform(0, 0.01)
                while time.monotonic() < stop:
                    poll_many(reader.mem, reader.link, reader.words, 1000, counts)
                    read_many(q.mem, out, 100, reads)
                end(writer)
                after = contents(r)
                assert all(after[seq] == before[seq] for seq in before.keys() & after.keys()), "a number was used twice"
                assert ring.head(r.mem) >= max(before, default=-1) and not alive(r)
                poll_many(reader.mem, reader.link, reader.words, 1000, counts)
                assert reader.link[ring.CURSOR] > ring.head(r.mem), "the reader stalled"
                got = seqlock.read(q.mem, 0, out)
                assert got > version and not torn(out, got), "a dead writer blocked a reader"
                assert verify(r) == [] and verify(q) == []
                slot = h.DATA + (ring.head(r.mem) + 1) % r.count * (h.lines(1 + r.words))
                mid_slot += load_word(r.mem, slot) == ring.head(r.mem)
                past_head += load_word(r.mem, slot) == ring.head(r.mem) + 1
        finally:
            end(coming)
        print(f"{KILLS} kills: {mid_slot} inside a slot, {past_head} between number and head; "
              f"{counts[0]} records and {reads[0]} values read, {counts[1] + reads[1]} torn")
        assert counts[1] == reads[1] == reads[2] == 0 and counts[0] > KILLS


def test_death_between_number_and_head():
    """The one kill a random instant almost never hits: the record is out, HEAD does not know it."""
    with space("edge", rings={"r": ring_spec(4, 8)}) as s:
        w = ring.RingWriter(s.own("r"))
        publish_many(w.mem, w.words, 1, 5)
        store_word(w.mem, h.W_HEAD, 3)
        before = contents(w.segment)
        w.segment.release()
        assert 4 in before
        w = ring.RingWriter(s.own("r"))
        assert ring.head(w.mem) == 4
        publish_many(w.mem, w.words, 2, 1)
        assert contents(w.segment)[4] == before[4] and contents(w.segment)[5][1] == 2
        w.segment.release()


def test_death_inside_a_slot():
    with space("edge", rings={"r": ring_spec(4, 4)}, seqlocks={"s": seqlock_spec(4)}) as s:
        w, q = ring.RingWriter(s.own("r")), seqlock.SeqlockWriter(s.own("s"))
        publish_many(w.mem, w.words, 1, 9)
        write_many(q.mem, q.words, 1, 3)
        late, waiting = ring.RingReader(s.attach("r"), from_head=False), ring.RingReader(s.attach("r"))
        late.link[ring.CURSOR] = 5
        slot = h.DATA + 9 % 4 * h.lines(5)
        store_word(w.mem, slot, 8)                           # publish of 9 got as far as its stamp and one word
        store_word(w.mem, slot + 1, -1)
        store_word(q.mem, h.DATA + h.LINE_WORDS, -1)         # write of 4 got as far as one word of cell 0
        w.segment.release()
        q.segment.release()
        assert not waiting.poll()
        assert late.poll() and late.link[ring.CURSOR] == 9 and late.link[ring.LAPPED_POLLING] == 1 and late.link[ring.LOST] == 3
        reader = seqlock.SeqlockReader(s.attach("s"))
        assert reader.read() == 3 and not torn(reader.words, 3)
        assert verify(s.attach("r")) == []
        w, q = ring.RingWriter(s.own("r")), seqlock.SeqlockWriter(s.own("s"))
        publish_many(w.mem, w.words, 2, 1)
        write_many(q.mem, q.words, 2, 1)
        assert waiting.poll() and not torn(waiting.words, 9) and waiting.words[1] == 2
        assert reader.read() == 4 and not torn(reader.words, 4)
        w.segment.release()
        q.segment.release()

