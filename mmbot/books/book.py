"""The book of one market in fixed arrays: sizes per price point for both tokens, and the record made from it.

Owns: the layout of a book's memory (one int64 array), the rules by which changes and snapshots enter it, the top levels in Up terms.
Writes: its caller's arrays only. Reads: nothing else; time is an argument. Can go wrong: nothing is trusted to arrive in order, so

* every price point remembers when it was last set; an older change is dropped (frames are not in time order on the wire);
* a snapshot is "the state at t": points set later than t keep their value, so a late snapshot never undoes a newer change, and no
  replay buffer is needed because every change carries the new total, not a difference;
* a change of one token is also the mirror change of the other (a Down bid at p is an Up ask at 1-p), but a token's own word wins at
  equal times;
* the tops of the two tokens, and the top the venue states with each change, must agree with ours; a disagreement that lasts makes the
  book suspect. A suspect book is still published, with the flag up.

A window that rolls takes over the slot of an old one by `reset`: there is nothing to free. Source: venue protocol, market channel.
"""

import numpy as np
from numba import int64, njit
from numba.cpython.unsafe.numbers import leading_zeros, trailing_zeros

from mmbot.books.levels import BYTES, PX_END, parse_levels
from shm_layout import records as r

POINTS = PX_END + 1             # price points 0..10000 at 1e-4; 0 and 10000 are never occupied and stand for "no bid", "no ask"
_BITS = (POINTS + 63) // 64     # one bit per occupied point

# a book's memory: a header, then one block per (token, side): sizes, times, occupied bits
H_TICK, H_EPOCH, H_FAULT, H_DIFFERS_SINCE, H_LAST_TRADE_RAW, H_LAST_TRADE_UP = 0, 1, 2, 3, 4, 5
H_SNAP = 8                      # per token: venue time of the newest snapshot, ms; 0: none yet
H_BEST = 10                     # per (token, side): best price point; 0 no bid, PX_END no ask
H_COUNT = 14                    # per (token, side): occupied points
H_VENUE = 18                    # per token: bid and ask as the venue last stated them; -1: not stated
H_VENUE_T = 22                  # per token: venue time of that statement, ms
H_NEWEST = 25                   # newest venue time taken, ms
H_DROPPED = 24                  # changes dropped because something newer was known
H_HEARD = 26                    # per token: monotonic ns of the newest frame that named it
_HEAD = 32
_TIMES = POINTS
_OCC = 2 * POINTS
_BLOCK = 2 * POINTS + _BITS
WORDS = _HEAD + 4 * _BLOCK

#: why a book is suspect (bits of H_FAULT); a snapshot of the Up token clears them. FAULT_HASH: the venue's checksums do not fit what we
#: hold; FAULT_FROZEN: other evidence shows that the stream stands still while the market moves.
FAULT_NO_SNAPSHOT, FAULT_BAD_FRAME, FAULT_LINK, FAULT_TOP, FAULT_HASH, FAULT_FROZEN = 1, 2, 4, 8, 16, 32

#: how long two views of one top may differ before the book is called suspect, ns: real frames of the two tokens arrive within some ms
GRACE_NS = 100_000_000

#: columns of a change: token, side, px_e4, size_u6, the token's best bid and ask as the venue states them (-1: it does not), and the SHA-1
#: of the token's book after it (8, 8 and 4 bytes; all 0: it states none)
CHANGE_WORDS = 9

_W = {name: r.MARKET.fields[name][1] // 8 for name in r.MARKET.names}
RECORD_WORDS = r.MARKET.itemsize // 8
_TICK, _N_BID, _N_ASK, _FLAGS, _LAST = _W["tick_e4"], _W["n_bid"], _W["n_ask"], _W["flags"], _W["last_trade_px_e4"]
_LADDER, _LADDER_END = _W["bid_px_e4"], RECORD_WORDS
_PX = (_W["bid_px_e4"], _W["ask_px_e4"])
_SIZE = (_W["bid_size_u6"], _W["ask_size_u6"])
_TOP = r.TOP_N


def new_book() -> np.ndarray:
    """Memory of one empty book, int64[WORDS]."""
    mem = np.zeros(WORDS, np.int64)
    reset(mem, 0)
    return mem


@njit("void(int64[::1], int64)", cache=True)
def reset(mem, tick_e4):
    """Empty the book for another market: no levels, no times, suspect until the first snapshot."""
    dropped = mem[H_DROPPED]        # a counter of the feed, not of the market
    mem[:] = 0
    mem[H_DROPPED] = dropped
    mem[H_TICK] = tick_e4
    mem[H_FAULT] = FAULT_NO_SNAPSHOT
    for token in range(2):
        mem[H_BEST + 2 * token + 1] = PX_END
        mem[H_VENUE + 2 * token] = mem[H_VENUE + 2 * token + 1] = -1


@njit("int64(int64[::1], int64, int64)", cache=True)
def _at_or_below(mem, occ, i):
    """Highest occupied point <= i in the bits at ``occ``; 0 when there is none."""
    if i < 0:
        return 0
    word = i >> 6
    bits = mem[occ + word] & ((int64(2) << (i & 63)) - 1)
    while bits == 0:
        word -= 1
        if word < 0:
            return 0
        bits = mem[occ + word]
    return (word << 6) + 63 - int64(leading_zeros(bits))


@njit("int64(int64[::1], int64, int64)", cache=True)
def _at_or_above(mem, occ, i):
    """Lowest occupied point >= i in the bits at ``occ``; PX_END when there is none."""
    if i >= POINTS:
        return PX_END
    word = i >> 6
    bits = mem[occ + word] & ~((int64(1) << (i & 63)) - 1)
    while bits == 0:
        word += 1
        if word >= _BITS:
            return PX_END
        bits = mem[occ + word]
    return (word << 6) + int64(trailing_zeros(bits))


@njit("int64(int64[::1], int64, int64, int64)", cache=True)
def level_after(mem, token, side, i):
    """Lowest price with a level >= ``i``; PX_END when there is none."""
    return _at_or_above(mem, _HEAD + (2 * token + side) * _BLOCK + _OCC, i)


@njit("int64(int64[::1], int64, int64, int64)", cache=True)
def level_before(mem, token, side, i):
    """Highest price with a level <= ``i``; 0 when there is none."""
    return _at_or_below(mem, _HEAD + (2 * token + side) * _BLOCK + _OCC, i)


@njit("int64(int64[::1], int64, int64, int64)", cache=True)
def size_at(mem, token, side, px_e4):
    """Total at one price."""
    return mem[_HEAD + (2 * token + side) * _BLOCK + px_e4]


@njit("int64(int64[::1], int64, int64, int64)", cache=True)
def time_at(mem, token, side, px_e4):
    """Venue time at which one price was set by a change, ms; 0: never."""
    return mem[_HEAD + (2 * token + side) * _BLOCK + _TIMES + px_e4]


@njit("void(int64[::1], int64, int64, int64, int64)", cache=True)
def _set_level(mem, token, side, px_e4, size_u6):
    """Give one price point its new total and keep bits, count and best true."""
    base = _HEAD + (2 * token + side) * _BLOCK
    had = mem[base + px_e4]
    mem[base + px_e4] = size_u6
    if (had > 0) == (size_u6 > 0):
        return
    occ, best = base + _OCC, H_BEST + 2 * token + side
    mem[occ + (px_e4 >> 6)] ^= int64(1) << (px_e4 & 63)
    if size_u6 > 0:
        mem[H_COUNT + 2 * token + side] += 1
        if (side == 0 and px_e4 > mem[best]) or (side == 1 and px_e4 < mem[best]):
            mem[best] = px_e4
    else:
        mem[H_COUNT + 2 * token + side] -= 1
        if px_e4 == mem[best]:
            mem[best] = _at_or_below(mem, occ, px_e4) if side == 0 else _at_or_above(mem, occ, px_e4)


@njit("int64(int64[::1], int64, int64, int64, int64, int64, int64)", cache=True)
def set_at(mem, token, side, px_e4, size_u6, t_ms, own):
    """One change of one token's level at venue time ``t_ms``: 1 taken, 0 dropped as older than what is known.

    ``own`` 1: the token's own entry (wins at equal times); 0: the mirror of the other token's entry.
    """
    at = _HEAD + (2 * token + side) * _BLOCK + _TIMES + px_e4
    known = max(mem[at], mem[H_SNAP + token])
    if t_ms < known or (t_ms == known and own == 0):
        return 0
    mem[at] = t_ms
    _set_level(mem, token, side, px_e4, size_u6)
    return 1


@njit("void(int64[::1], int64, int64, int64, int64, int64)", cache=True)
def put(mem, token, side, px_e4, size_u6, t_ms):
    """One price point as it is told, whatever was known: for a caller that keeps the order itself."""
    mem[_HEAD + (2 * token + side) * _BLOCK + _TIMES + px_e4] = t_ms
    _set_level(mem, token, side, px_e4, size_u6)


@njit("int64(int64[::1], int64[::1], int64, int64)", cache=True)
def apply_changes(mem, changes, n, t_ms):
    """``n`` changes (rows of CHANGE_WORDS) stamped ``t_ms``. Returns how many were taken; the rest is counted as dropped."""
    taken = 0
    mem[H_NEWEST] = max(mem[H_NEWEST], t_ms)
    for k in range(n):
        c = CHANGE_WORDS * k
        token, side, px_e4, size_u6 = changes[c], changes[c + 1], changes[c + 2], changes[c + 3]
        if set_at(mem, token, side, px_e4, size_u6, t_ms, 1):
            taken += 1
        else:
            mem[H_DROPPED] += 1
        set_at(mem, 1 - token, 1 - side, PX_END - px_e4, size_u6, t_ms, 0)
        if changes[c + 4] >= 0 and changes[c + 5] >= 0 and t_ms >= mem[H_VENUE_T + token]:
            mem[H_VENUE_T + token] = t_ms
            mem[H_VENUE + 2 * token] = changes[c + 4]
            mem[H_VENUE + 2 * token + 1] = changes[c + 5]
    return taken


@njit("void(int64[::1], int64, int64, int64, int64[::1], int64[::1], int64)", cache=True)
def _merge_side(mem, token, side, t_ms, px_e4, size_u6, n):
    """Replace one side by the state at ``t_ms``, except points that were set later."""
    base = _HEAD + (2 * token + side) * _BLOCK
    for word in range(_BITS):
        bits = mem[base + _OCC + word]
        while bits != 0:
            px = (word << 6) + int64(trailing_zeros(bits))
            bits &= bits - 1
            if mem[base + _TIMES + px] <= t_ms:
                _set_level(mem, token, side, px, 0)
    for k in range(n):
        if mem[base + _TIMES + px_e4[k]] <= t_ms:
            _set_level(mem, token, side, px_e4[k], size_u6[k])


@njit(int64(int64[::1], int64, int64, BYTES, BYTES, int64[::1], int64[::1]), cache=True)
def apply_snapshot(mem, token, t_ms, bids, asks, px_e4, size_u6):
    """The full book of one token at ``t_ms``; ``bids`` and ``asks`` are the level lists as sent, ``px_e4``/``size_u6`` scratch of POINTS.

    Returns 1 taken, 0 ignored as older than a snapshot already taken, negative when a list cannot be read (`books.levels`); then the
    book is as it was. A snapshot of the Up token, the primary one, ends a suspicion.
    """
    n_bid = parse_levels(bids, px_e4, size_u6)
    if n_bid < 0:
        return n_bid
    n_ask = parse_levels(asks, px_e4[n_bid:], size_u6[n_bid:])
    if n_ask < 0:
        return n_ask
    if t_ms < mem[H_SNAP + token]:
        return 0
    _merge_side(mem, token, 0, t_ms, px_e4, size_u6, n_bid)
    _merge_side(mem, token, 1, t_ms, px_e4[n_bid:], size_u6[n_bid:], n_ask)
    mem[H_SNAP + token] = t_ms
    mem[H_NEWEST] = max(mem[H_NEWEST], t_ms)
    if token == 0:
        mem[H_FAULT] = 0
        mem[H_DIFFERS_SINCE] = 0
    return 1


@njit("int64(int64[::1])", cache=True)
def _tops_differ(mem):
    """1 when two views of one top disagree: Up against mirrored Down, or ours against what the venue stated last."""
    if mem[H_SNAP] and mem[H_SNAP + 1]:
        if mem[H_BEST] + mem[H_BEST + 3] != PX_END or mem[H_BEST + 1] + mem[H_BEST + 2] != PX_END:
            return 1
    if mem[H_SNAP] and mem[H_VENUE] >= 0 and mem[H_VENUE_T] >= mem[H_SNAP]:
        if mem[H_BEST] != mem[H_VENUE] or mem[H_BEST + 1] != mem[H_VENUE + 1]:
            return 1
    return 0


@njit("int64(int64[::1], int64)", cache=True)
def judge(mem, now_ns):
    """The flags of the book at monotonic time ``now_ns``; remembers since when tops differ and calls the book suspect after a grace."""
    if _tops_differ(mem):
        if mem[H_DIFFERS_SINCE] == 0:
            mem[H_DIFFERS_SINCE] = now_ns
        elif now_ns - mem[H_DIFFERS_SINCE] > GRACE_NS:
            mem[H_FAULT] |= FAULT_TOP
    else:
        mem[H_DIFFERS_SINCE] = 0
        mem[H_FAULT] &= ~FAULT_TOP
    flags = r.MF_SUSPECT if mem[H_FAULT] else 0
    if mem[H_FAULT] & FAULT_FROZEN:
        flags |= r.MF_FROZEN
    if mem[H_BEST] >= mem[H_BEST + 1]:
        flags |= r.MF_CROSSED
    return flags


@njit("int64(int64[::1], int64, int64[::1])", cache=True)
def fill_record(mem, now_ns, rec):
    """Write tick, flags and the best levels of both sides (Up terms, best first) into ``rec``, the words of a MARKET record.

    Returns 1 when any of them differs from what ``rec`` held. Unused levels are 0.
    """
    changed = 0
    flags, tick, last = judge(mem, now_ns), mem[H_TICK], mem[H_LAST_TRADE_UP]
    if rec[_FLAGS] != flags or rec[_TICK] != tick:
        changed = 1
    rec[_FLAGS], rec[_TICK], rec[_LAST] = flags, tick, last
    for side in range(2):
        base = _HEAD + side * _BLOCK
        n = min(mem[H_COUNT + side], _TOP)
        px = mem[H_BEST + side]
        for k in range(_TOP):
            at_px, at_size = _PX[side] + k, _SIZE[side] + k
            if k >= n:
                if rec[at_px]:
                    changed, rec[at_px], rec[at_size] = 1, 0, 0
                continue
            size = mem[base + px]
            if rec[at_px] != px or rec[at_size] != size:
                changed, rec[at_px], rec[at_size] = 1, px, size
            if k + 1 < n:
                px = _at_or_below(mem, base + _OCC, px - 1) if side == 0 else _at_or_above(mem, base + _OCC, px + 1)
    rec[_N_BID], rec[_N_ASK] = min(mem[H_COUNT], _TOP), min(mem[H_COUNT + 1], _TOP)
    return changed


@njit("int64(int64[::1], int64[::1], int64, int64, int64, int64[::1])", cache=True)
def on_changes(mem, changes, n, t_ms, now_ns, rec):
    """`apply_changes` and `fill_record` in one call: 1 when the record changed."""
    apply_changes(mem, changes, n, t_ms)
    for k in range(n):
        mem[H_HEARD + changes[CHANGE_WORDS * k]] = now_ns
    return fill_record(mem, now_ns, rec)


@njit("int64(int64[::1], int64)", cache=True)
def set_tick(mem, tick_e4):
    """A new tick: another epoch of the book. Ticks only get finer, so every level stays where it is; a coarser one is old news.

    Returns 1 when the tick changed, 0 when it is the same, -1 when it was coarser and is ignored.
    """
    if tick_e4 == mem[H_TICK]:
        return 0
    if 0 < mem[H_TICK] < tick_e4:
        return -1
    mem[H_TICK] = tick_e4
    mem[H_EPOCH] += 1
    return 1


@njit("void(int64[::1], int64, int64, int64, int64)", cache=True)
def set_venue_top(mem, token, bid_e4, ask_e4, t_ms):
    """The top of one token as the venue states it at ``t_ms``; an older statement changes nothing."""
    if t_ms >= mem[H_VENUE_T + token]:
        mem[H_VENUE_T + token] = t_ms
        mem[H_VENUE + 2 * token], mem[H_VENUE + 2 * token + 1] = bid_e4, ask_e4


@njit("void(int64[::1], int64, int64)", cache=True)
def set_trade(mem, token, px_e4):
    """The market's last trade: as sent (the book hash wants that) and in Up terms."""
    mem[H_LAST_TRADE_RAW] = px_e4
    mem[H_LAST_TRADE_UP] = px_e4 if token == 0 else PX_END - px_e4


@njit("void(int64[::1], int64)", cache=True)
def add_fault(mem, fault):
    """Call the book suspect for a reason, until the next snapshot of the Up token or `clear_faults`."""
    mem[H_FAULT] |= fault


@njit("int64(int64[::1], int64)", cache=True)
def clear_faults(mem, faults):
    """Take back reasons of which other evidence shows that they hold no more: 1 when one of them stood."""
    stood = 1 if mem[H_FAULT] & faults else 0
    mem[H_FAULT] &= ~faults
    return stood


@njit("int64(int64[::1], int64[::1], int64, int64, int64)", cache=True)
def differences(mem, other, token, t_ms, repair):
    """How many levels of one token differ from ``other``, its state at ``t_ms``; levels set later than that are passed over.

    ``repair`` 1: they become those of ``other``. -1 when a whole snapshot newer than ``t_ms`` has been taken, which nothing here can judge.
    """
    if mem[H_SNAP + token] > t_ms:
        return -1
    count = 0
    for side in range(2):
        base = _HEAD + (2 * token + side) * _BLOCK
        for word in range(_BITS):
            bits = mem[base + _OCC + word] | other[base + _OCC + word]
            while bits != 0:
                px = (word << 6) + int64(trailing_zeros(bits))
                bits &= bits - 1
                if mem[base + px] != other[base + px] and mem[base + _TIMES + px] <= t_ms:
                    count += 1
                    if repair:
                        mem[base + _TIMES + px] = t_ms
                        _set_level(mem, token, side, px, other[base + px])
    return count


@njit("int64(int64[::1], int64, int64, int64[::1], int64[::1])", cache=True)
def levels(mem, token, side, px_e4, size_u6):
    """Every level of one side of one token, prices ascending, into the two arrays (POINTS long); returns how many."""
    base = _HEAD + (2 * token + side) * _BLOCK
    n, total = 0, mem[H_COUNT + 2 * token + side]
    px = _at_or_above(mem, base + _OCC, 0)
    while n < total:
        px_e4[n], size_u6[n] = px, mem[base + px]
        n += 1
        px = _at_or_above(mem, base + _OCC, px + 1)
    return n


def top(mem: np.ndarray, token: int) -> tuple[int, int]:
    """(best bid, best ask) of one token in 1e-4; 0 and 10000 when a side is empty."""
    return int(mem[H_BEST + 2 * token]), int(mem[H_BEST + 2 * token + 1])
