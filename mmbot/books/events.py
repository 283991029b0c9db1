"""The log of a market's changes between the hot path, which appends, and the proof of the book, which reads a little later.

Owns: the layout of the log (one int64 array per market: a count, then rows in a ring). Written by `append_changes`, read by whoever holds
the array, in the same thread. Pure. Can go wrong: a reader that falls behind by more than LOG_ROWS changes has lost some; `LOG_ROWS` and the
count say so.
"""

from numba import int64, njit, void

from mmbot.books.book import CHANGE_WORDS

LOG_ROWS = 4096         # a second of the busiest market known, both tokens
#: columns of a row: venue time, monotonic time of receipt, then token, side, price, size and the three words of the hash
LOG_WORDS = 9
LOG_SIZE = 1 + LOG_ROWS * LOG_WORDS


@njit(void(int64[::1], int64[::1], int64, int64, int64), cache=True)
def append_changes(log, changes, n, t_ms, now_ns):
    """Append ``n`` changes (rows of CHANGE_WORDS) of venue time ``t_ms``, received at ``now_ns``. ``log``: int64[LOG_SIZE]."""
    for k in range(n):
        c = CHANGE_WORDS * k
        at = 1 + (log[0] & (LOG_ROWS - 1)) * LOG_WORDS
        log[at], log[at + 1] = t_ms, now_ns
        for i in range(4):
            log[at + 2 + i] = changes[c + i]
        for i in range(3):
            log[at + 6 + i] = changes[c + 6 + i]
        log[0] += 1
