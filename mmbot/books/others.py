"""The book of one window without our own orders: what everybody else bids and asks.

Owns: the OTHERS record (the newest top of book, and what of ours is in it). Written by `take_book` and `take_own`, read by `best` and
`sizes`; all are called by the core only. Everything is in Up terms: own Up bids and Down offers rest on the bid side, Down bids at p and Up
offers rest on the ask side, a Down price p standing at 1 - p.

Why: a fair value that is read off our own quotes refers to itself. In a wide book we are the best on both sides, the mid is our own,
and we would never move again.

Own orders and book come by different ways, so one is always older. The rule, per price: a change of our own size there counts as shown
in the book when the level has moved by that much since, or SETTLE_NS later; a part of the move is a part of the change. A book with
less at the price than we believe to be ours shows less of ours. A book received after an order was sent is believed to show it, and
one received after the word of its end not to: a core that was held up finds books that are newer than the word it reads next.
So an order just sent does not hide others it joins before the book shows it, and one just cancelled does not look like another
participant while it still stands there: both would make us quote, cancel and quote again.

What can go wrong, for SETTLE_NS at most, and always at a price where we have or had an order:
- others thinner than our order are hidden: they changed by just our size meanwhile, the venue shows an order later than that, or it
  showed a cancel before it answered it;
- our order looks like others: they left a level by our size at the moment we joined it; or, a few ms only, the core was held up, so that
  it reads frames of orders whose sending and end it learned in one word.
Others with more than our size at a price are seen through all of it. Beyond the visible TOP_N levels nothing is known: a side
of which all visible levels are ours counts as empty.
"""

import numpy as np
from numba import float64, from_dtype, int64, njit, types, void

from shm_layout import records as r

SETTLE_NS = 200_000_000     # a venue that has not shown a change after so long has shown it unseen, or never will
DUST_U6 = 10_000            # what is left of a level after taking ours out: less than 0.01 share is no level (see the venue's dust rule)
OWN_LEVELS = 2 * r.MAX_OWN  # those of now, and those whose end is not shown yet
_ONE_E4 = 10_000
_OURS = -1
_BID, _ASK = 0, 1

#: Our size at one price: as the executor says (own), as far as the book shows it (shown), the level's size when they began to differ.
OWN_LEVEL = np.dtype([("ask", "<i8"), ("px_e4", "<i8"), ("own_u6", "<i8"), ("next_u6", "<i8"), ("sent_ns", "<i8"), ("shown_u6", "<i8"), ("base_u6", "<i8"),
                      ("until_ns", "<i8")])
OTHERS = np.dtype([
    ("market_id", "<i8"), ("t_recv_ns", "<i8"), ("own_market_id", "<i8"), ("n_own", "<i8"), ("review_ns", "<i8"), ("n", "<i8", (2,)),
    ("px_e4", "<i8", (2, r.TOP_N)), ("size_u6", "<i8", (2, r.TOP_N)), ("rest_u6", "<i8", (2, r.TOP_N)), ("own", OWN_LEVEL, (OWN_LEVELS,)),
])
OTHERS_T, OWN_LEVEL_T, OWN_T, MARKET_T = (from_dtype(d) for d in (OTHERS, OWN_LEVEL, r.OWN, r.MARKET))


@njit(void(OTHERS_T, MARKET_T), cache=True)
def take_book(others, m):
    """Take over the levels of a market record (any kind: each carries the whole top)."""
    others.market_id = m.market_id
    others.t_recv_ns = m.t_recv_ns
    others.n[_BID] = min(max(m.n_bid, 0), r.TOP_N)
    others.n[_ASK] = min(max(m.n_ask, 0), r.TOP_N)
    for i in range(r.TOP_N):
        others.px_e4[_BID, i] = m.bid_px_e4[i]
        others.size_u6[_BID, i] = m.bid_size_u6[i]
        others.px_e4[_ASK, i] = m.ask_px_e4[i]
        others.size_u6[_ASK, i] = m.ask_size_u6[i]


@njit(int64(OTHERS_T, int64, int64), cache=True)
def _level_at(others, side, px_e4):
    """Index of the visible level at a price, -1 when there is none."""
    for i in range(others.n[side]):
        if others.px_e4[side, i] == px_e4:
            return i
    return -1


@njit(int64(OTHERS_T, int64, int64), cache=True)
def _own_at(others, ask, px_e4):
    """Index of our entry for a price, made if there is none; -1 when all are in use."""
    free = -1
    for i in range(others.n_own):
        level = others.own[i]
        if level.ask == ask and level.px_e4 == px_e4:
            return i
        if level.own_u6 == 0 and level.shown_u6 == 0 and level.next_u6 == 0:
            free = i
    if free < 0:
        if others.n_own == OWN_LEVELS:
            return -1
        free = others.n_own
        others.n_own += 1
    level = others.own[free]
    level.ask, level.px_e4 = ask, px_e4
    level.own_u6 = level.next_u6 = level.shown_u6 = level.base_u6 = level.until_ns = 0
    return free


@njit(void(OTHERS_T, OWN_T, int64), cache=True)
def take_own(others, own, now_ns):
    """Take over what may rest of ours (an OWN record). The first word about a window is believed to be in its book already."""
    believed = own.market_id != others.own_market_id
    if believed:
        others.own_market_id = own.market_id
        others.n_own = 0
    believed |= own.market_id != others.market_id
    for i in range(others.n_own):
        others.own[i].next_u6 = 0
    for k in range(min(max(own.n, 0), r.MAX_OWN)):
        order = own.order[k]
        if order.size_u6 > 0 and 0 <= order.token <= 1 and 0 <= order.side <= 1:
            at = _own_at(others, order.token ^ order.side, order.px_e4 if order.token == r.UP else _ONE_E4 - order.px_e4)
            if at >= 0:
                others.own[at].next_u6 += order.size_u6
                others.own[at].sent_ns = order.t_sent_ns
    for i in range(others.n_own):
        level = others.own[i]
        if level.next_u6 == level.own_u6:
            continue
        if level.shown_u6 == level.own_u6:
            at = _level_at(others, level.ask, level.px_e4)
            level.base_u6 = others.size_u6[level.ask, at] if at >= 0 else 0
        changed_ns = level.sent_ns if level.next_u6 > level.own_u6 else own.t_update_ns
        level.own_u6 = level.next_u6
        level.until_ns = now_ns + SETTLE_NS
        if believed or others.t_recv_ns > changed_ns:
            level.shown_u6 = level.own_u6


@njit(int64(OWN_LEVEL_T, int64, int64), cache=True)
def _ours_in(level, size_u6, now_ns):
    """How much of a level of ``size_u6`` is ours."""
    ours = level.shown_u6
    change = level.own_u6 - level.shown_u6
    if change != 0:
        moved = size_u6 - level.base_u6
        part = min(max(moved, 0), change) if change > 0 else max(min(moved, 0), change)
        ours += part
        if abs(change - part) < DUST_U6 or now_ns >= level.until_ns:
            ours = level.shown_u6 = level.own_u6
    if ours > size_u6:
        ours = level.shown_u6 = level.base_u6 = size_u6
        level.until_ns = now_ns + SETTLE_NS
    return ours


@njit(int64(OTHERS_T, int64), cache=True)
def _first(others, side):
    for i in range(others.n[side]):
        if others.rest_u6[side, i] != _OURS:
            return others.px_e4[side, i]
    return 0


@njit(types.UniTuple(int64, 2)(OTHERS_T, int64), cache=True)
def best(others, now_ns):
    """(best bid, best ask) of the others, 1e-4, 0 for an empty side. ``review_ns`` then says when time alone may change it (0: never)."""
    for side in range(2):
        for i in range(r.TOP_N):
            others.rest_u6[side, i] = others.size_u6[side, i]
    others.review_ns = 0
    if others.own_market_id == others.market_id:
        for i in range(others.n_own):
            level = others.own[i]
            if level.own_u6 == 0 and level.shown_u6 == 0:
                continue
            at = _level_at(others, level.ask, level.px_e4)
            size_u6 = others.size_u6[level.ask, at] if at >= 0 else 0
            ours = _ours_in(level, size_u6, now_ns)
            if at >= 0 and ours > 0:
                others.rest_u6[level.ask, at] = size_u6 - ours if size_u6 - ours >= DUST_U6 else _OURS
            if level.own_u6 != level.shown_u6 and (others.review_ns == 0 or level.until_ns < others.review_ns):
                others.review_ns = level.until_ns
    return _first(others, _BID), _first(others, _ASK)


@njit(types.UniTuple(float64, 5)(OTHERS_T, int64, int64), cache=True)
def sizes(others, side, n):
    """What the others show on a side (0 bids, 1 asks), as `best` last found it.

    Returns (shares at their best price, shares in all visible levels, shares in their first ``n`` levels, mean price of those in dollars, price of the deepest
    level), 0 where there is none; all 0 when ``n`` is 0.
    """
    best_size = depth = first = worth = last = 0.0
    level = 0
    for i in range(others.n[side] if n > 0 else 0):
        if others.rest_u6[side, i] != _OURS:
            size, last = others.rest_u6[side, i] * 1e-6, others.px_e4[side, i] * 1e-4
            depth += size
            if level == 0:
                best_size = size
            if level < n:
                first += size
                worth += size * last
            level += 1
    return best_size, depth, first, worth / first if first > 0.0 else 0.0, last
