"""The compiled ends of bench/ipc.py: ping, echo, stream with credits, run free and check.

A module of its own, always imported as bench.ipc_kernels: numba's cache remembers under which name code was compiled.
"""

from numba import int64, void

from mmbot.clock import mono_ns_compiled
from shm_layout import header as h
from shm_layout import ring, seqlock
from shm_layout.atomics import VIEW, WORDS, kernel, load_relaxed, pause

DEPTH = 1024
CREDIT = 128                             # the ring's reader reports its place once in so many records


@kernel(void(WORDS, VIEW, WORDS, int64))
def ring_echo(mine, other, words, rounds):
    for i in range(rounds):
        while ring.poll(other, i, words) != 1:
            pause()
        ring.publish(mine, words)


@kernel(void(WORDS, VIEW, WORDS, WORDS, WORDS))
def ring_ping(mine, other, words, stamps, scratch):
    """stamps[i]: when round i began; the last one is the end. scratch: two words for the clock."""
    for i in range(stamps.size - 1):
        stamps[i] = mono_ns_compiled(scratch)
        ring.publish(mine, words)
        while ring.poll(other, i, words) != 1:
            pause()
    stamps[stamps.size - 1] = mono_ns_compiled(scratch)


@kernel(void(WORDS, VIEW, WORDS, int64))
def seqlock_echo(mine, other, words, rounds):
    for i in range(rounds):
        while seqlock.version(other, 0) <= i:
            pause()
        seqlock.read(other, 0, words)
        seqlock.write(mine, 0, words)


@kernel(void(WORDS, VIEW, WORDS, WORDS, WORDS))
def seqlock_ping(mine, other, words, stamps, scratch):
    for i in range(stamps.size - 1):
        stamps[i] = mono_ns_compiled(scratch)
        seqlock.write(mine, 0, words)
        while seqlock.version(other, 0) <= i:
            pause()
        seqlock.read(other, 0, words)
    stamps[stamps.size - 1] = mono_ns_compiled(scratch)


@kernel(void(WORDS, VIEW, WORDS, WORDS, int64))
def ring_produce(mine, credits, credit, words, n):
    """Publish n records, never more than a ring ahead of the credits; ``credit`` is one private word, 0 at first."""
    for i in range(n):
        if i % CREDIT == 0:
            while i - credit[0] > DEPTH - 2 * CREDIT:
                seqlock.read(credits, 0, credit)
                pause()
        words[0] = i
        ring.publish(mine, words)


@kernel(int64(WORDS, WORDS, VIEW, WORDS, WORDS, int64))
def ring_consume(credits, credit, other, link, words, n):
    """Read n records; returns the sum of their first words."""
    total = 0
    for i in range(n):
        while ring.poll_link(other, link, words) != 1:
            pause()
        total += words[0]
        if i % CREDIT == CREDIT - 1:
            credit[0] = i + 1
            seqlock.write(credits, 0, credit)
    return total


@kernel(void(WORDS, int64))
def prove(words, number):
    """Make every word follow from ``number``."""
    for i in range(words.size):
        words[i] = number * 0x9E3779B97F4A7C1 + i


@kernel(int64(WORDS, int64))
def is_torn(words, number):
    for i in range(words.size):
        if words[i] != number * 0x9E3779B97F4A7C1 + i:
            return 1
    return 0


@kernel(void(WORDS, WORDS, int64))
def ring_run_free(mine, words, n):
    for _ in range(n):
        prove(words, load_relaxed(mine, h.W_HEAD) + 1)
        ring.publish(mine, words)


@kernel(void(WORDS, WORDS, int64))
def seqlock_run_free(mine, words, n):
    for _ in range(n):
        prove(words, load_relaxed(mine, h.DATA) + 1)
        seqlock.write(mine, 0, words)


@kernel(void(VIEW, WORDS, WORDS, int64, WORDS))
def ring_check(other, link, words, tries, counts):
    for _ in range(tries):
        if ring.poll_link(other, link, words) == 1:
            counts[0] += 1
            counts[1] += is_torn(words, link[ring.CURSOR] - 1)


@kernel(void(VIEW, WORDS, int64, WORDS))
def seqlock_check(other, words, tries, counts):
    for _ in range(tries):
        version = seqlock.read(other, 0, words)
        if version > 0:
            counts[0] += 1
            counts[1] += is_torn(words, version)
