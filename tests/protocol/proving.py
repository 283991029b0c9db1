"""Compiled parts of the protocol tests: records that prove themselves, and the two sides of each litmus test.

A module of its own, always imported as ``proving``: numba's cache remembers under which name code was compiled.
"""

from numba import int64, void

from shm_layout import header as h
from shm_layout import ring, seqlock
from shm_layout.atomics import (VIEW, WORDS, fence_acquire, fence_release, fence_seq_cst, kernel, load_acquire, load_relaxed,
                                pause, store_relaxed, store_release)

STEP = 0x9E3779B97F4A7C15 - (1 << 64)        # odd: every record differs from every other in every word


# -- records that prove themselves: word 0 = number, word 1 = epoch of the writer, the others follow from both ------


@kernel(void(WORDS, int64, int64))
def fill(words, number, epoch):
    words[0], words[1] = number, epoch
    for i in range(2, words.size):
        words[i] = (number * 31 + epoch) * STEP + i


@kernel(int64(WORDS, int64))
def torn(words, number):
    """1 if ``words`` is not exactly what `fill` made for ``number``."""
    if words[0] != number:
        return 1
    for i in range(2, words.size):
        if words[i] != (number * 31 + words[1]) * STEP + i:
            return 1
    return 0


@kernel(void(WORDS, WORDS, int64, int64))
def publish_many(mem, words, epoch, n):
    for _ in range(n):
        fill(words, load_relaxed(mem, h.W_HEAD) + 1, epoch)
        ring.publish(mem, words)


@kernel(void(WORDS, WORDS, int64, int64))
def write_many(mem, words, epoch, n):
    for _ in range(n):
        fill(words, load_relaxed(mem, h.DATA) + 1, epoch)
        seqlock.write(mem, 0, words)


@kernel(void(VIEW, WORDS, WORDS, int64, WORDS))
def poll_many(mem, link, words, tries, counts):
    """counts: accepted, torn, wrong order."""
    for _ in range(tries):
        if ring.poll_link(mem, link, words) == 1:
            counts[0] += 1
            counts[1] += torn(words, link[ring.CURSOR] - 1)


@kernel(void(VIEW, WORDS, int64, WORDS))
def read_many(mem, words, tries, counts):
    """counts: accepted, torn, went back, busy, last version."""
    for _ in range(tries):
        version = seqlock.read(mem, 0, words)
        if version > 0:
            counts[0] += 1
            counts[1] += torn(words, version)
            counts[2] += version < counts[4]
            counts[4] = version
        else:
            counts[3] += version == seqlock.BUSY


# -- litmus --------------------------------------------------------------------------------------------------


@kernel(void(WORDS, VIEW, int64, int64))
def store_buffering(mine, other, rounds, fence):
    """SB: both store, then both load; word r of the results is 1 if the other's store of round r was seen."""
    x, done, result = h.DATA, h.DATA + 16, h.DATA + 32
    for r in range(1, rounds + 1):
        while load_acquire(other, done) < r - 1:
            pause()
        store_release(mine, x, r)
        if fence:
            fence_seq_cst()
        store_relaxed(mine, result + r, 1 if load_acquire(other, x) >= r else 0)
        store_release(mine, done, r)


@kernel(int64(WORDS, VIEW, int64, int64, int64))
def message_passing(mine, other, rounds, side, fences):
    """MP: side 0 stores data, then flag; side 1 loads flag, then data, and counts data older than the flag."""
    data, flag, bad = h.DATA, h.DATA + 16, 0
    for r in range(1, rounds + 1):
        if side == 0:
            store_relaxed(mine, data, r)
            if fences:
                fence_release()
                store_relaxed(mine, flag, r)
            else:
                store_release(mine, flag, r)
        elif fences:
            seen = load_relaxed(other, flag)
            fence_acquire()
            bad += load_relaxed(other, data) < seen
        else:
            seen = load_acquire(other, flag)
            bad += load_relaxed(other, data) < seen
    return bad


@kernel(int64(WORDS, VIEW, int64, int64))
def coherence(mine, other, rounds, side):
    """CoRR: side 0 counts up; side 1 counts how often of two loads the second is older."""
    bad = 0
    for r in range(1, rounds + 1):
        if side == 0:
            store_relaxed(mine, h.DATA, r)
        else:
            first = load_relaxed(other, h.DATA)
            bad += load_relaxed(other, h.DATA) < first
    return bad
