"""Has anything changed? One call looks at many seqlock entries and rings, so that a reader woken for nothing goes back to sleep at once.

Owns: `Watcher`, private to one reader. It only looks: no record is copied, and nothing that it says needs to be of one moment. Who is told that
an entry has changed reads it by the entry's own protocol (`seqlock.read`, `ring.poll_link`), which alone decides what was read.

A row per entry: | address of the published word | address of the word that was seen | how far ahead the second one is |
  - seqlock entry: its version, and the version its reader has taken in (`Watcher.seen`)
  - ring: the number of the newest record, and the cursor of its reader, which is one ahead when all was read

The published word is loaded with acquire order, as everywhere; a change that is missed by a moment is found by the next look.
Can go wrong: a writer that died between the last two stores of a publish leaves a record that its ring's HEAD does not count: it is found
when the writer's successor makes HEAD true (`ring.recover`). Addresses are of mappings that live as long as the arrays kept in ``_alive``.
"""

import numpy as np
from numba import int64

from shm_layout.atomics import WORDS, kernel, load_acquire_at
from shm_layout.header import DATA, W_COUNT, W_HEAD, W_STRIDE
from shm_layout.ring import CURSOR

MOST = 63           # entries whose bits fit into one word


@kernel(int64(WORDS))
def changed(rows):
    """Bit i is set when the word of row i is not the one that was seen."""
    bits = 0
    for i in range(rows.size // 3):
        if load_acquire_at(rows[3 * i]) + rows[3 * i + 2] != load_acquire_at(rows[3 * i + 1]):
            bits |= 1 << i
    return bits


class Watcher:
    """``seqlocks``: (SeqlockReader, index of the entry) each; ``rings``: RingReaders. Entries are numbered in this order, rings last.

    seen: int64, the version of each seqlock entry that was taken in; its reader keeps it up to date (0 at first: never written).
    Errors: ValueError (more than `MOST` entries), IndexError (no such entry).
    """

    def __init__(self, seqlocks, rings=()):
        if len(seqlocks) + len(rings) > MOST:
            raise ValueError(f"{len(seqlocks) + len(rings)} entries to watch, {MOST} at most")
        self.seen = np.zeros(len(seqlocks), np.int64)
        self._alive = [self.seen]
        rows = []
        for i, (reader, index) in enumerate(seqlocks):
            if not 0 <= index < reader.mem[W_COUNT]:
                raise IndexError("no such entry in this seqlock segment")
            rows += [self._address(reader.mem, DATA + index * (int(reader.mem[W_STRIDE]) >> 3)), self._address(self.seen, i), 0]
        for reader in rings:
            rows += [self._address(reader.mem, W_HEAD), self._address(reader.link, CURSOR), 1]
        self._rows = np.array(rows, np.int64)

    def _address(self, words: np.ndarray, index: int) -> int:
        self._alive.append(words)
        return words.ctypes.data + 8 * index

    def changed(self) -> int:
        """Bit i is set when entry i has changed since it was seen; 0: nothing new."""
        return changed(self._rows)
