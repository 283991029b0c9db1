"""A token's levels as the venue writes them, byte for byte: what the book hash is computed over.

Owns: the number forms (shortest decimal, no trailing zeros) and the order (bids ascending, asks descending: best last). Pure: a book's
memory in, bytes out. Can go wrong: another number form at the venue; then no hash of any book verifies, which the proof reports.

Source: venue protocol, REST market data, book hash.
"""

import numpy as np
from numba import int64, njit, types

from mmbot.books.book import H_COUNT, level_after, level_before, size_at
from mmbot.books.levels import PX_END

_OUT = types.Array(types.uint8, 1, "C")
_DOT = 46
LEVEL_BYTES = 64        # {"price":"0.0001","size":"123456789012.123456"}, with room
_P, _S, _E, _ASKS = (np.frombuffer(t, np.uint8) for t in (b'{"price":"0.', b'","size":"', b'"}', b'],"asks":['))


@njit(int64(_OUT, int64, types.Array(types.uint8, 1, "C", readonly=True)), cache=True)
def _copy(out, at, text):
    for i in range(text.size):
        out[at + i] = text[i]
    return at + text.size


@njit(int64(_OUT, int64, int64, int64), cache=True)
def _fraction(out, at, value, digits):
    """``value`` of ``digits`` digits without its trailing zeros."""
    while digits > 0 and value % 10 == 0:
        value //= 10
        digits -= 1
    for i in range(digits - 1, -1, -1):
        out[at + i] = 48 + value % 10
        value //= 10
    return at + digits


@njit(int64(_OUT, int64, int64), cache=True)
def _whole(out, at, value):
    n, rest = 1, value // 10
    while rest:
        n += 1
        rest //= 10
    for i in range(n - 1, -1, -1):
        out[at + i] = 48 + value % 10
        value //= 10
    return at + n


@njit(int64(_OUT, int64, int64, int64), cache=True)
def _level(out, at, px_e4, size_u6):
    at = _copy(out, at, _P)
    at = _fraction(out, at, px_e4, 4)
    at = _copy(out, at, _S)
    at = _whole(out, at, size_u6 // 1_000_000)
    if size_u6 % 1_000_000:
        out[at] = _DOT
        at = _fraction(out, at + 1, size_u6 % 1_000_000, 6)
    return _copy(out, at, _E)


@njit(int64(int64[::1], int64, _OUT), cache=True)
def write_levels(mem, token, out):
    """Levels of one token as ``{bid},{bid}],"asks":[{ask},{ask}``: what stands between the bids' and the asks' outer brackets.

    Returns how many bytes of ``out`` were used, or -1 when it is too small (LEVEL_BYTES per level are enough).
    """
    if (mem[H_COUNT + 2 * token] + mem[H_COUNT + 2 * token + 1] + 1) * LEVEL_BYTES > out.size:
        return -1
    at, px = 0, -1
    for k in range(mem[H_COUNT + 2 * token]):
        px = level_after(mem, token, 0, px + 1)
        if k:
            out[at] = 44
            at += 1
        at = _level(out, at, px, size_at(mem, token, 0, px))
    at, px = _copy(out, at, _ASKS), PX_END
    for k in range(mem[H_COUNT + 2 * token + 1]):
        px = level_before(mem, token, 1, px - 1)
        if k:
            out[at] = 44
            at += 1
        at = _level(out, at, px, size_at(mem, token, 1, px))
    return at
