"""Level lists as the venue writes them, ``[{"price":"0.51","size":"20.5"},...]``, straight from bytes to exact integers.

A book snapshot follows every trade and holds some two hundred levels; as Python objects they cost more than everything else the feed
does. Owns: the scanner and its limits. Pure: bytes in, integers out. Reads and writes nothing else.
Can go wrong: malformed text or a number that is not on the grid: a negative count says which, nothing is half believed.
"""

import numpy as np
from numba import int64, njit, types

#: bytes of a message; read-only, because a feed lends its receive buffer
BYTES = types.Array(types.uint8, 1, "C", readonly=True)

MALFORMED = -1          # not a list of objects with a price and a size
BAD_VALUE = -2          # a price off the 1e-4 grid or out of (0, 1), or a size that has no exact 1e-6 form
TOO_MANY = -3           # more levels than price points

PX_END = 10_000         # prices are 1..9999
SIZE_END_U6 = 10 ** 18  # a million million shares: more is garbage, and the sum of a book stays inside an int64

_QUOTE, _COMMA, _COLON, _DOT = 34, 44, 58, 46
_LBRACKET, _RBRACKET, _LBRACE, _RBRACE, _BACKSLASH = 91, 93, 123, 125, 92


@njit(int64(BYTES, int64, int64, int64), cache=True)
def scaled_span(buf, start, end, digits):
    """The decimal number ``buf[start:end]`` times 10**digits, exactly; -1 when it is no such number.

    Plain notation only (``12``, ``0.5``, ``.5``); zeros beyond ``digits`` are allowed, other digits there are not.
    """
    if end <= start or end - start > 40:
        return -1
    value, seen, after = 0, 0, -1
    for i in range(start, end):
        c = int64(buf[i])
        if c == _DOT:
            if after >= 0:
                return -1
            after = 0
            continue
        d = c - 48
        if d < 0 or d > 9:
            return -1
        seen += 1
        if after >= digits:
            if d:
                return -1
            continue
        if value >= 10 ** 17:
            return -1
        value = value * 10 + d
        if after >= 0:
            after += 1
    if seen == 0:
        return -1
    for _ in range(digits - max(after, 0)):
        if value >= 10 ** 17:
            return -1
        value *= 10
    return value


@njit(int64(BYTES, int64), cache=True)
def _skip_space(buf, i):
    while i < buf.size and (buf[i] == 32 or buf[i] == 10 or buf[i] == 13 or buf[i] == 9):
        i += 1
    return i


@njit(int64(BYTES, int64), cache=True)
def _string_end(buf, i):
    """Index of the closing quote of the string that starts after the quote at ``i``; -1: unterminated or escaped."""
    i += 1
    while i < buf.size:
        if buf[i] == _QUOTE:
            return i
        if buf[i] == _BACKSLASH:
            return -1
        i += 1
    return -1


@njit(int64(BYTES, int64, int64), cache=True)
def _key_kind(buf, start, end):
    """0 for the key ``price``, 1 for ``size``, -1 for any other."""
    if end - start == 5 and buf[start] == 112 and buf[start + 1] == 114 and buf[start + 2] == 105 and buf[start + 3] == 99 \
            and buf[start + 4] == 101:
        return 0
    if end - start == 4 and buf[start] == 115 and buf[start + 1] == 105 and buf[start + 2] == 122 and buf[start + 3] == 101:
        return 1
    return -1


@njit(int64(BYTES, int64, int64[::1]), cache=True)
def _level(buf, i, out):
    """One object that starts after its brace at ``i``: price and size into ``out``; the index after the closing brace, or negative."""
    out[0] = out[1] = -1
    while True:
        i = _skip_space(buf, i)
        if i >= buf.size or buf[i] != _QUOTE:
            return MALFORMED
        end = _string_end(buf, i)
        if end < 0:
            return MALFORMED
        kind = _key_kind(buf, i + 1, end)
        i = _skip_space(buf, end + 1)
        if i >= buf.size or buf[i] != _COLON:
            return MALFORMED
        i = _skip_space(buf, i + 1)
        if i >= buf.size:
            return MALFORMED
        if buf[i] == _QUOTE:
            start, end = i + 1, _string_end(buf, i)
            if end < 0:
                return MALFORMED
            i = end + 1
        else:
            start = i
            while i < buf.size and buf[i] != _COMMA and buf[i] != _RBRACE and buf[i] > 32:
                if buf[i] == _LBRACE or buf[i] == _LBRACKET:
                    return MALFORMED
                i += 1
            end = i
        if kind >= 0:
            out[kind] = scaled_span(buf, start, end, 4 if kind == 0 else 6)
            if out[kind] < 0:
                return BAD_VALUE
        i = _skip_space(buf, i)
        if i >= buf.size:
            return MALFORMED
        if buf[i] == _RBRACE:
            return i + 1
        if buf[i] != _COMMA:
            return MALFORMED
        i += 1


@njit(int64(BYTES, int64[::1], int64[::1]), cache=True)
def parse_levels(buf, px_e4, size_u6):
    """Read a level list into ``px_e4`` and ``size_u6`` in wire order.

    Returns how many, or MALFORMED, BAD_VALUE, TOO_MANY. Keys other than price and size are passed over. Source: venue protocol, book.
    """
    pair = np.empty(2, np.int64)
    n = 0
    i = _skip_space(buf, 0)
    if i >= buf.size or buf[i] != _LBRACKET:
        return MALFORMED
    i = _skip_space(buf, i + 1)
    if i < buf.size and buf[i] == _RBRACKET:
        return 0
    while i < buf.size:
        if buf[i] != _LBRACE:
            return MALFORMED
        i = _level(buf, i + 1, pair)
        if i < 0:
            return i
        if pair[0] <= 0 or pair[0] >= PX_END or pair[1] < 0 or pair[1] >= SIZE_END_U6:
            return BAD_VALUE
        if n == px_e4.size:
            return TOO_MANY
        px_e4[n], size_u6[n] = pair[0], pair[1]
        n += 1
        i = _skip_space(buf, i)
        if i >= buf.size:
            return MALFORMED
        if buf[i] == _RBRACKET:
            return n
        if buf[i] != _COMMA:
            return MALFORMED
        i = _skip_space(buf, i + 1)
    return MALFORMED
