"""The one frame that comes hundreds of times a second, a price change, from its bytes into the book in one compiled call.

After some idle milliseconds the caches are cold, and then what counts is how much code a frame touches: this path takes half the time of
decoding to objects. It reads exactly the shape the venue sends and declines everything else; the caller then takes the general path,
which also knows how to complain. Writes: the book, the record and the scratch it is given. Pure: no I/O, time is an argument.
Can go wrong: nothing by itself. A frame is either taken whole or not at all.

Source: venue protocol, market channel, price_change.
"""

import numpy as np
from numba import boolean, int64, njit, types, void

from mmbot.books.book import CHANGE_WORDS, on_changes
from mmbot.books.events import append_changes
from mmbot.books.levels import BYTES, PX_END, SIZE_END_U6, scaled_span
from shm_layout import records as r

NOT_MINE = -1
#: rows of the token table: two per slot, [length, text]
TOKEN_ROWS, TOKEN_BYTES = 2 * r.MARKET_SLOTS, 88
#: most changes of one frame; the words behind them hold the frame's venue time in ms
MAX_CHANGES = 64
T_MS = MAX_CHANGES * CHANGE_WORDS
SCRATCH_WORDS = T_MS + 1
STAMP_END_MS = 4_000_000_000_001

_TABLE = types.Array(types.uint8, 2, "C")
_QUOTE, _COMMA, _COLON, _LBRACKET, _RBRACKET, _LBRACE, _RBRACE = 34, 44, 58, 91, 93, 123, 125


def _text(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


_EVENT_TYPE, _PRICE_CHANGE, _PRICE_CHANGES, _TIMESTAMP = map(_text, ("event_type", "price_change", "price_changes", "timestamp"))
_ASSET, _PRICE, _SIZE, _SIDE, _BID, _ASK, _HASH = map(_text, ("asset_id", "price", "size", "side", "best_bid", "best_ask", "hash"))
_BUY, _SELL = _text("BUY"), _text("SELL")


def token_table() -> np.ndarray:
    """An empty token table, uint8[TOKEN_ROWS, TOKEN_BYTES]."""
    return np.zeros((TOKEN_ROWS, TOKEN_BYTES), np.uint8)


def set_token(table: np.ndarray, slot: int, token: int, text: str) -> None:
    """Name the token of a slot; an empty text names none, as does one too long to be a token."""
    row, data = table[2 * slot + token], text.encode()
    row[:] = 0
    if len(data) < TOKEN_BYTES:
        row[0] = len(data)
        row[1:1 + len(data)] = np.frombuffer(data, np.uint8)


@njit(boolean(BYTES, int64, int64, BYTES), cache=True)
def _is(buf, start, end, text):
    """buf[start:end] is ``text``."""
    if end - start != text.size:
        return False
    for i in range(text.size):
        if buf[start + i] != text[i]:
            return False
    return True


@njit(int64(BYTES, int64, int64, _TABLE), cache=True)
def _find(buf, start, end, table):
    """Row of the token buf[start:end], or NOT_MINE."""
    n = end - start
    if n <= 0 or n >= TOKEN_BYTES:
        return NOT_MINE
    for row in range(TOKEN_ROWS):
        if table[row, 0] != n:
            continue
        i = n               # ids of one venue differ at the end sooner than at the start
        while i > 0 and table[row, i] == buf[start + i - 1]:
            i -= 1
        if i == 0:
            return row
    return NOT_MINE


@njit(int64(BYTES, int64, int64), cache=True)
def _space(buf, n, i):
    while i < n and (buf[i] == 32 or buf[i] == 10 or buf[i] == 13 or buf[i] == 9):
        i += 1
    return i


@njit(int64(BYTES, int64, int64), cache=True)
def _string(buf, n, i):
    """Index of the closing quote of a plain string (printable ASCII, no escapes) whose opening quote should be at ``i``; or NOT_MINE."""
    if i >= n or buf[i] != _QUOTE:
        return NOT_MINE
    i += 1
    while i < n and buf[i] != _QUOTE:
        if buf[i] < 32 or buf[i] > 126 or buf[i] == 92:
            return NOT_MINE
        i += 1
    return i if i < n else NOT_MINE


@njit(types.UniTuple(int64, 3)(BYTES, int64, int64), cache=True)
def _key(buf, n, i):
    """(start, end, index of the value) of the key at ``i``; the last is NOT_MINE when there is none."""
    i = _space(buf, n, i)
    end = _string(buf, n, i)
    if end < 0:
        return i, i, NOT_MINE
    at = _space(buf, n, end + 1)
    if at >= n or buf[at] != _COLON:
        return i, i, NOT_MINE
    return i + 1, end, _space(buf, n, at + 1)


@njit(int64(BYTES, int64, int64), cache=True)
def _side(buf, start, end):
    if _is(buf, start, end, _BUY):
        return r.BUY
    return r.SELL if _is(buf, start, end, _SELL) else NOT_MINE


@njit(int64(BYTES, int64, int64), cache=True)
def _price_or_none(buf, start, end):
    """A stated best price 0..PX_END, -1 for an empty text, -2 for one that is no price."""
    if start == end:
        return -1
    px = scaled_span(buf, start, end, 4)
    return px if 0 <= px <= PX_END else -2


@njit(int64(BYTES, int64, int64), cache=True)
def _hex(buf, start, end):
    """Value of up to 16 hexadecimal digits, as a signed word; 0 when one of them is none."""
    value = int64(0)
    for i in range(start, end):
        c = int64(buf[i])
        if 48 <= c <= 57:
            d = c - 48
        elif 97 <= c <= 102:
            d = c - 87
        elif 65 <= c <= 70:
            d = c - 55
        else:
            return 0
        value = (value << 4) | d
    return value


@njit(void(BYTES, int64, int64, int64[::1], int64), cache=True)
def put_hash(buf, start, end, out, at):
    """The SHA-1 in buf[start:end], 40 hexadecimal digits, into three words of ``out``; zeros for anything else."""
    if end - start == 40:
        out[at], out[at + 1], out[at + 2] = _hex(buf, start, start + 16), _hex(buf, start + 16, start + 32), _hex(buf, start + 32, end)
    else:
        out[at] = out[at + 1] = out[at + 2] = 0


@njit(int64(BYTES, int64, int64, _TABLE, int64[::1], int64), cache=True)
def _change(buf, n, i, table, rows, at):
    """One change after its brace at ``i`` into rows[at:]: token row, side, px, size, best bid and ask, hash. Index after it, or NOT_MINE."""
    row, side, px, size, bid, ask = -1, -1, -1, -1, -1, -1
    rows[at + 6] = rows[at + 7] = rows[at + 8] = 0
    while True:
        start, end, i = _key(buf, n, i)
        if i < 0:
            return NOT_MINE
        close = _string(buf, n, i)
        if close < 0:
            return NOT_MINE
        value = i + 1
        if _is(buf, start, end, _ASSET):
            row = _find(buf, value, close, table)
        elif _is(buf, start, end, _PRICE):
            px = scaled_span(buf, value, close, 4)
        elif _is(buf, start, end, _SIZE):
            size = scaled_span(buf, value, close, 6)
        elif _is(buf, start, end, _SIDE):
            side = _side(buf, value, close)
        elif _is(buf, start, end, _BID):
            bid = _price_or_none(buf, value, close)
        elif _is(buf, start, end, _ASK):
            ask = _price_or_none(buf, value, close)
        elif _is(buf, start, end, _HASH):
            put_hash(buf, value, close, rows, at + 6)
        i = _space(buf, n, close + 1)
        if i >= n or (buf[i] != _COMMA and buf[i] != _RBRACE):
            return NOT_MINE
        i += 1
        if buf[i - 1] == _RBRACE:
            break
    if row < 0 or side < 0 or px <= 0 or px >= PX_END or size < 0 or size >= SIZE_END_U6 or bid < -1 or ask < -1:
        return NOT_MINE
    rows[at], rows[at + 1], rows[at + 2], rows[at + 3], rows[at + 4], rows[at + 5] = row, side, px, size, bid, ask
    return i


@njit(types.UniTuple(int64, 2)(BYTES, int64, int64, _TABLE, int64[::1]), cache=True)
def _changes(buf, n, i, table, rows):
    """(index after it, how many) of the array of changes at ``i``; the index is NOT_MINE when it is no such array."""
    count = 0
    if i >= n or buf[i] != _LBRACKET:
        return NOT_MINE, 0
    while True:
        i = _space(buf, n, i + 1)
        if i >= n or buf[i] != _LBRACE or count == MAX_CHANGES:
            return NOT_MINE, 0
        i = _change(buf, n, i + 1, table, rows, count * CHANGE_WORDS)
        if i < 0:
            return NOT_MINE, 0
        count += 1
        i = _space(buf, n, i)
        if i >= n or (buf[i] != _COMMA and buf[i] != _RBRACKET):
            return NOT_MINE, 0
        if buf[i] == _RBRACKET:
            return i + 1, count


@njit(int64(BYTES, int64, _TABLE, int64[::1]), cache=True)
def read_frame(buf, n, table, rows):
    """The changes of a frame buf[:n] into ``rows`` (first word: row of the token table), its time into rows[T_MS]; how many, or NOT_MINE."""
    i = _space(buf, n, 0)
    if i >= n or buf[i] != _LBRACE:
        return NOT_MINE
    i += 1
    named, count, t_ms = False, 0, -1
    while True:
        start, end, i = _key(buf, n, i)
        if i < 0:
            return NOT_MINE
        if _is(buf, start, end, _PRICE_CHANGES):
            i, count = _changes(buf, n, i, table, rows)
            if i < 0:
                return NOT_MINE
        else:
            close = _string(buf, n, i)
            if close < 0:
                return NOT_MINE
            if _is(buf, start, end, _EVENT_TYPE):
                named = _is(buf, i + 1, close, _PRICE_CHANGE)
            elif _is(buf, start, end, _TIMESTAMP):
                t_ms = scaled_span(buf, i + 1, close, 0) if buf[i + 1] != 48 else NOT_MINE   # a leading zero is no JSON integer
            i = close + 1
        i = _space(buf, n, i)
        if i >= n or (buf[i] != _COMMA and buf[i] != _RBRACE):
            return NOT_MINE
        i += 1
        if buf[i - 1] == _RBRACE:
            break
    if _space(buf, n, i) != n or not named or count == 0 or t_ms < 0 or t_ms >= STAMP_END_MS:
        return NOT_MINE
    rows[T_MS] = t_ms
    return count


@njit(int64(BYTES, int64, _TABLE, int64[:, ::1], int64[:, ::1], int64[:, ::1], int64[::1], int64), cache=True)
def on_price_change(buf, n, table, books, records, logs, rows, now_ns):
    """Take the frame buf[:n] into the book, the record and the event log of its market.

    books, records, logs: one row per slot. rows: int64[SCRATCH_WORDS]. Returns NOT_MINE and has changed nothing but ``rows``, or
    slot | 16 if the record changed | (token + 1) << 5, where the token is NO_OUTCOME when the frame named more than one change.
    """
    count = read_frame(buf, n, table, rows)
    if count < 0:
        return NOT_MINE
    slot = rows[0] >> 1
    for k in range(count):
        row = rows[k * CHANGE_WORDS]
        if row >> 1 != slot:
            return NOT_MINE
        rows[k * CHANGE_WORDS] = row & 1
    changed = on_changes(books[slot], rows, count, rows[T_MS], now_ns, records[slot])
    append_changes(logs[slot], rows, count, rows[T_MS], now_ns)
    token = rows[0] if count == 1 else r.NO_OUTCOME
    return slot | changed << 4 | (token + 1) << 5
