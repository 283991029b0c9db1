"""Latest value: two cells and one counter per entry. A reader never waits for a writer, alive or dead.

Owns: the write and read protocol of latest values. Written by the owner of the segment, read by everybody else. Unlike the
classic odd/even seqlock the writer fills the cell nobody should be reading and then bumps the counter; a writer killed half-way
leaves the last good value readable for ever, and its successor simply fills the same cell again.

    word 64 + index * STRIDE/8
    +---------+--------+---------------------+---------------------+
    | version | 7 pad  | cell 0: even values | cell 1: odd values  |     cells padded to whole cache lines
    +---------+--------+---------------------+---------------------+
    version = v: value number v is complete and lies in cell v & 1; 0: never written

Who pairs with whom (C11). A reader that saw version v copies cell v & 1; that cell is next touched by write v+2.
  - writer `store_release(version, v)` with reader `load_acquire(version)`: who sees v sees all of value v.
  - the writer's `fence_release` stands at the start of a write: after the version store of the *previous* write, before the
    first word of the fill. If a reader's copy holds any word of value v+2, the fence of write v+2 synchronises with the
    reader's `fence_acquire`; the store of version v+1 comes before that fence, so the reader's second look sees at least v+1,
    not v, and the copy is thrown away. Without the fence the fill of v+2 could become visible before version v+1, and a torn
    copy would pass.
  - the write of value v+1 touches the other cell and disturbs nobody.
So a reader has one whole write period to copy. Only a writer faster than the reader's copy makes it try again; tries are
bounded, and "busy" is an answer.

The protocol is checked schedule by schedule in tests/protocol/test_seqlock_model.py, which repeats `write_at` and `read_at`
step by step: change them together.
"""

import numpy as np
from numba import int64

from shm_layout.atomics import (VIEW, WORDS, fence_acquire, fence_release, kernel, load_acquire, load_relaxed, pause,
                                store_relaxed, store_release)
from shm_layout.header import DATA, LINE_WORDS, SEQLOCK, W_COUNT, W_RECORD_BYTES, W_STRIDE, lines

#: a read gives up after so many copies that a faster writer spoiled
TRIES = 1000
BUSY, NEVER_WRITTEN = -1, 0


def entry_words(record_words: int) -> int:
    """Words of one entry: a line for the version, two cells of whole lines."""
    return LINE_WORDS + 2 * lines(record_words)


@kernel(int64(WORDS, int64, WORDS))
def write_at(mem, base, payload):
    """Write the entry that begins at word ``base``; the caller is its only writer. Returns the new version."""
    version = load_relaxed(mem, base) + 1
    cell = base + LINE_WORDS + (version & 1) * ((payload.size + LINE_WORDS - 1) // LINE_WORDS * LINE_WORDS)
    fence_release()
    for i in range(payload.size):
        store_relaxed(mem, cell + i, load_relaxed(payload, i))
    store_release(mem, base, version)
    return version


@kernel(int64(VIEW, int64, WORDS))
def read_at(mem, base, out):
    """Read the entry that begins at word ``base``. Returns its version, 0 (never written) or -1 (busy)."""
    size = (out.size + LINE_WORDS - 1) // LINE_WORDS * LINE_WORDS
    for _ in range(TRIES):
        version = load_acquire(mem, base)
        if version == 0:
            return NEVER_WRITTEN
        cell = base + LINE_WORDS + (version & 1) * size
        for i in range(out.size):
            store_relaxed(out, i, load_relaxed(mem, cell + i))
        fence_acquire()
        if load_relaxed(mem, base) == version:
            return version
        pause()
    return BUSY


@kernel(int64(VIEW, int64, int64))
def _base(mem, index, payload_words):
    if index < 0 or index >= mem[W_COUNT]:
        raise IndexError("no such entry in this seqlock segment")
    if payload_words * 8 != mem[W_RECORD_BYTES]:
        raise ValueError("payload is not one record of this seqlock segment")
    return DATA + index * (mem[W_STRIDE] >> 3)


@kernel(int64(WORDS, int64, WORDS))
def write(mem, index, payload):
    """Set entry ``index`` to ``payload`` (int64[RECORD_BYTES/8], private memory); only the owner may.

    Returns the new version. Errors: IndexError, ValueError (payload not one record long).
    """
    return write_at(mem, _base(mem, index, payload.size), payload)


@kernel(int64(VIEW, int64, WORDS))
def read(mem, index, out):
    """Copy entry ``index`` to ``out`` (int64[RECORD_BYTES/8], private memory).

    Returns its version (1, 2, ...); 0 if it was never written (out untouched); -1 if the writer was faster TRIES times (out is
    rubbish). Errors: IndexError, ValueError (out not one record long).
    """
    return read_at(mem, _base(mem, index, out.size), out)


@kernel(int64(VIEW, int64))
def version(mem, index):
    """Version of entry ``index`` without reading it: cheap look for "has it changed". Errors: IndexError."""
    return load_acquire(mem, _base(mem, index, mem[W_RECORD_BYTES] >> 3))


class SeqlockWriter:
    """The writing end. Fill ``rec`` (a structured array of one record, private memory), then `write`."""

    def __init__(self, segment):
        segment.expect(SEQLOCK, writable=True)
        self.segment, self.mem = segment, segment.mem
        self.rec = np.zeros(1, segment.record)
        self.words = self.rec.view(np.int64)

    def write(self, index: int = 0) -> int:
        """Set entry ``index`` to ``rec``; returns its new version."""
        return write(self.mem, index, self.words)


class SeqlockReader:
    """A reading end. After `read` returned a positive version the value is in ``rec``."""

    def __init__(self, segment):
        segment.expect(SEQLOCK)
        self.segment, self.mem = segment, segment.mem
        self.rec = np.zeros(1, segment.record)
        self.words = self.rec.view(np.int64)

    def read(self, index: int = 0) -> int:
        """Version now in ``rec``; 0 never written (``rec`` untouched); -1 busy (``rec`` is rubbish: try again later)."""
        return read(self.mem, index, self.words)

    def version(self, index: int = 0) -> int:
        """Version of entry ``index`` without reading it."""
        return version(self.mem, index)
