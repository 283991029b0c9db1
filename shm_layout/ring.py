"""Broadcast ring: one writer, any number of readers, nobody waits for anybody.

Owns: the publish and poll protocol. Written by the owner of the segment (one process, kept single by its lock), read by
everybody else through a read-only mapping. A slow reader is lapped: it loses records, knows how many, and goes on at the newest
one; the writer never notices. Records are absolute, so a lapped reader has lost nothing but history.

    word 64 + (seq & (depth-1)) * STRIDE/8       depth is a power of two, at least 2; STRIDE a multiple of 64 bytes
    +-------+----------------------------+-----------+
    | stamp | record, RECORD_BYTES / 8   | padding   |
    +-------+----------------------------+-----------+
    stamp = seq      slot holds record number seq (0, 1, 2, ... for ever)
    stamp = seq - 1  record seq is being written here: "not yet" to who waits for seq, "lapped" to who wanted an older one
    stamp = i-depth  slot i of a fresh ring

Who pairs with whom (C11):
  - writer `store_release(stamp, seq)` with reader `load_acquire(stamp)`: who sees seq sees the whole record.
  - writer `fence_release` after the in-progress stamp with reader `fence_acquire` before its second look: who copied even one
    word of the next record sees a stamp that is no longer seq, and throws the copy away. (The fence must follow the stamp; a
    release *store* of the stamp would not keep the payload behind it.)
  - writer `store_release(HEAD)` with reader `load_acquire(HEAD)`: where to resume. The in-progress stamp is relaxed, so a lapped
    reader may see it before the head that was stored earlier; hence it resumes at max(head, stamp seen): both are published.

Death of the writer: before the stamp says seq nothing has happened and readers wait; once it does the record is out, even if
HEAD does not say so yet. `recover` looks past HEAD, so that no number is ever given to two records.

The protocol is checked schedule by schedule in tests/protocol/test_ring_model.py, which repeats `publish`, `_take` and `recover`
step by step: change them together.
"""

import numpy as np
from numba import int64, types, void

from shm_layout.atomics import (VIEW, WORDS, fence_acquire, fence_release, kernel, load_acquire, load_relaxed, load_word,
                                store_relaxed, store_release)
from shm_layout.header import DATA, RING, W_COUNT, W_HEAD, W_RECORD_BYTES, W_STRIDE

# words of a reader's link row: private memory of the reader, published by its vitals page
CURSOR, CONSUMED, LAPPED_POLLING, LAPPED_READING, LOST, LAG, LAG_MAX, OLDEST_UNREAD_AGE_NS, RUN = range(9)
LINK_WORDS = 16
LINK_FIELDS = ("cursor", "consumed", "lapped_polling", "lapped_reading", "lost", "lag", "lag_max", "oldest_unread_age_ns")
#: the stamp of a record that says when it was put into its ring, first match
STAMP_FIELDS = ("t_ns", "t_decide_ns", "t_pub_ns")

_GOT, _NOT_YET, _POLLING, _READING = 1, 0, -1, -2
_LAG_EVERY = 64           # look at HEAD once in so many records: it is the writer's hottest line
_LAPS_IN_A_POLL = 4


@kernel(int64(WORDS, WORDS))
def publish(mem, payload):
    """Append one record; only the owner of the segment may call this.

    mem: the segment; payload: int64[RECORD_BYTES/8], private memory. Returns the number of the record. Never blocks.
    Errors: ValueError if the payload is not one record long.
    """
    if payload.size * 8 != mem[W_RECORD_BYTES]:
        raise ValueError("payload is not one record of this ring")
    seq = load_relaxed(mem, W_HEAD) + 1
    slot = DATA + (seq & (mem[W_COUNT] - 1)) * (mem[W_STRIDE] >> 3)
    store_relaxed(mem, slot, seq - 1)
    fence_release()
    for i in range(payload.size):
        store_relaxed(mem, slot + 1 + i, load_relaxed(payload, i))
    store_release(mem, slot, seq)
    store_release(mem, W_HEAD, seq)
    return seq


@kernel(types.UniTuple(int64, 2)(VIEW, int64, WORDS))
def _take(mem, cursor, out):
    """(status, where to resume): copy record ``cursor`` to ``out`` if it is there."""
    if out.size * 8 != mem[W_RECORD_BYTES]:
        raise ValueError("out is not one record of this ring")
    slot = DATA + (cursor & (mem[W_COUNT] - 1)) * (mem[W_STRIDE] >> 3)
    stamp = load_acquire(mem, slot)
    if stamp < cursor:
        return _NOT_YET, cursor
    if stamp > cursor:
        return _POLLING, max(load_acquire(mem, W_HEAD), stamp)
    for i in range(out.size):
        store_relaxed(out, i, load_relaxed(mem, slot + 1 + i))
    fence_acquire()
    again = load_relaxed(mem, slot)
    if again != stamp:
        return _READING, max(load_acquire(mem, W_HEAD), again)
    return _GOT, cursor + 1


@kernel(int64(VIEW, int64, WORDS))
def poll(mem, cursor, out):
    """Read record number ``cursor`` into ``out`` (int64[RECORD_BYTES/8], private memory).

    Returns 1 and the record is in out; 0 not yet written; -n lapped: n records are lost and ``cursor + n`` is the newest one.
    ``out`` is rubbish unless 1 was returned. Errors: ValueError if out is not one record long.
    """
    status, resume = _take(mem, cursor, out)
    return cursor - resume if status < 0 else status


@kernel(int64(VIEW, WORDS, WORDS))
def poll_link(mem, link, out):
    """Read the next record of a reader whose place and counters are ``link`` (int64[LINK_WORDS], private memory).

    Returns 1 with the record in ``out``, or 0 when there is none. A lap is counted (while polling or while reading, and how many
    records were lost), the cursor goes to the newest record, and the read is tried again. lag_max is what was found waiting: the
    length of a run of records without an empty poll, and beyond 64 the distance to the head, looked at each 64 records.
    Errors: ValueError if link or out has the wrong length.
    """
    if link.size < LINK_WORDS:
        raise ValueError("link needs LINK_WORDS words")
    for _ in range(_LAPS_IN_A_POLL):
        status, resume = _take(mem, link[CURSOR], out)
        if status == _NOT_YET:
            link[RUN] = 0
            return 0
        if status == _GOT:
            link[CURSOR] = resume
            link[CONSUMED] += 1
            link[RUN] += 1
            waiting = link[RUN]
            if waiting >= _LAG_EVERY:
                waiting = load_acquire(mem, W_HEAD) + 1 - resume if waiting % _LAG_EVERY == 0 else 0
            link[LAG_MAX] = max(link[LAG_MAX], waiting)
            return 1
        lost = resume - link[CURSOR]
        link[LAPPED_POLLING if status == _POLLING else LAPPED_READING] += 1
        link[LOST] += lost
        link[LAG_MAX] = max(link[LAG_MAX], lost)
        link[CURSOR] = resume
        link[RUN] = 0
    return 0


@kernel(int64(VIEW))
def head(mem):
    """Number of the newest record, -1 if there is none yet."""
    return load_acquire(mem, W_HEAD)


@kernel(int64(WORDS))
def recover(mem):
    """Make HEAD true after the death of a writer; called by the new owner before it publishes. Returns HEAD.

    A writer that died between its last two stores has published a record that HEAD does not count.
    """
    seq = load_acquire(mem, W_HEAD)
    for _ in range(mem[W_COUNT]):
        if load_acquire(mem, DATA + ((seq + 1) & (mem[W_COUNT] - 1)) * (mem[W_STRIDE] >> 3)) != seq + 1:
            break
        seq += 1
    store_release(mem, W_HEAD, seq)
    return seq


@kernel(void(VIEW, WORDS))
def load_stamps(mem, out):
    """All stamps of the ring into ``out`` (int64[depth]), for `segment.verify`."""
    for i in range(out.size):
        out[i] = load_acquire(mem, DATA + i * (mem[W_STRIDE] >> 3))


def _stamp_word(record: np.dtype) -> int:
    """Word offset of the publish stamp inside ``record``, -1 if it has none."""
    field = next((f for f in STAMP_FIELDS if f in (record.names or ())), None)
    return record.fields[field][1] // 8 if field else -1


def backlog(segment, cursor: int, now_ns: int) -> tuple[int, int, int]:
    """(head, lag in records, age of the oldest unread record in ns) of a reader at ``cursor``; works on a hung system.

    The age is 0 when nothing is unread or the record has no stamp; for a lapped reader it is that of the oldest record still
    there.
    """
    newest = head(segment.mem)
    lag = max(0, newest + 1 - cursor)
    word = _stamp_word(segment.record)
    if lag == 0 or word < 0:
        return newest, lag, 0
    out = np.zeros(segment.words, np.int64)
    oldest = max(cursor, newest + 2 - segment.count)
    if poll(segment.mem, oldest, out) != 1:
        return newest, lag, 0
    return newest, lag, max(0, now_ns - int(out[word]))


class RingWriter:
    """The publishing end. Fill ``rec`` (a structured array of one record, private memory), then `publish`.

    words: the same memory as int64; mem: the segment, for compiled callers of `ring.publish`.
    """

    def __init__(self, segment):
        segment.expect(RING, writable=True)
        self.segment, self.mem = segment, segment.mem
        self.rec = np.zeros(1, segment.record)
        self.words = self.rec.view(np.int64)

    def publish(self) -> int:
        """Append ``rec``; returns its number."""
        return publish(self.mem, self.words)


class RingReader:
    """A reading end with its own place. After `poll` returned true the record is in ``rec``.

    from_head: start with the next record to be published; else with the oldest one that is still there.
    link: int64[LINK_WORDS], see CURSOR ... RUN; compiled callers pass ``mem, link, words`` to `poll_link`.
    """

    def __init__(self, segment, from_head: bool = True):
        segment.expect(RING)
        self.segment, self.mem = segment, segment.mem
        self.rec = np.zeros(1, segment.record)
        self.words = self.rec.view(np.int64)
        self.link = np.zeros(LINK_WORDS, np.int64)
        newest = load_word(self.mem, W_HEAD)
        self.link[CURSOR] = newest + 1 if from_head else max(0, newest + 2 - segment.count)

    def poll(self) -> bool:
        """True if the next record is now in ``rec``; false if there is none. A lap is counted in ``link`` and jumped over."""
        return poll_link(self.mem, self.link, self.words) == 1

    def observe(self, now_ns: int) -> None:
        """Housekeeping: bring lag, lag_max and oldest_unread_age_ns of ``link`` up to date (``now_ns``: CLOCK_MONOTONIC)."""
        _, lag, age_ns = backlog(self.segment, int(self.link[CURSOR]), now_ns)
        self.link[LAG] = lag
        self.link[LAG_MAX] = max(int(self.link[LAG_MAX]), lag)
        self.link[OLDEST_UNREAD_AGE_NS] = age_ns
