"""Timetables of the best quotes: recorded rows made ready, and generated rows for what was not recorded.

Owns: the row layout, the bridge (a mean-reverting tick walk between two known prices), quotes around a fair value, and the size and
spread tables. Written by the tapes at load, read by `mmbot.sim.participants`. Pure: randomness is a seeded generator argument.
Rows are int64 [n, 8], columns T .. TRADE below, sorted by T. Prices in Up terms; an empty side is price 0 (bid) or 10000 (ask).
"""

import numpy as np

T, TICK, BID, BID_SIZE, ASK, ASK_SIZE, RECORDED, TRADE = range(8)
COLUMNS = 8
TRADE_BID, TRADE_ASK = 1, 2         # bits of TRADE: a fall of that side's best counts as a trade, not as a cancel
SLACK = 0.6                         # generated quotes follow once the fair value is this many ticks outside them
TRADE_SHARE = 0.5                   # of the falls of the best size inside a window
TRADE_SHARE_BEFORE = 0.05           # the same before its start, when little is traded

COARSE_E4, FINE_E4 = 100, 10        # the two ticks of these markets
FINE_ABOVE_E4, FINE_BELOW_E4 = 9_600, 400

# share of the time the spread is 1, 2, 3 ... ticks: event-driven 15 m recording, and 3 s samples of 5 m windows of a busier regime
SPREAD_15M = (0.85, 0.10, 0.025, 0.015, 0.01)
SPREAD_5M = (0.43, 0.20, 0.12, 0.09, 0.06, 0.05, 0.05)
# sizes at the best, shares: quantiles 0, 5, 10, 25, 50, 75, 90, 95, 99 % of the 15 m recording, prices 0.05 .. 0.95 and beyond
SIZE_SHARE = (0.0, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99)
SIZE_INNER = (1.0, 8.0, 20.0, 60.0, 160.0, 480.0, 1050.0, 1350.0, 1750.0)
SIZE_OUTER = (2.5, 35.0, 70.0, 120.0, 650.0, 2500.0, 9500.0, 11000.0, 14000.0)


def draw_sizes(n: int, rng, px_e4: np.ndarray | int = 5_000) -> np.ndarray:
    """``n`` sizes at the best in u6 (whole 0.01 share), from the recorded quantiles for prices ``px_e4``."""
    u = rng.random(n) * 0.99
    px = np.broadcast_to(px_e4, n)
    inner = np.interp(u, SIZE_SHARE, SIZE_INNER)
    outer = np.interp(u, SIZE_SHARE, SIZE_OUTER)
    shares = np.where((px >= 500) & (px <= 9_500), inner, outer)
    return (np.rint(shares * 100) * 10_000).astype(np.int64)


def table(n: int) -> np.ndarray:
    """An empty timetable of ``n`` rows."""
    return np.zeros((n, COLUMNS), np.int64)


def mids(rows: np.ndarray) -> np.ndarray:
    """Mid of each row as a probability; an empty side counts as 0 or 1."""
    return (rows[:, BID] + rows[:, ASK]) / 20_000


def recorded(rows: np.ndarray, start_ms: int, recorded_start_ms: int, swapped: bool = False) -> np.ndarray:
    """Rows of a recorded window (columns ms, bid, size, ask, size) as a timetable, shifted to a window that starts at ``start_ms``.

    ``swapped``: with Up and Down exchanged. The tick is 0.01 until the first price off the 0.01 grid: the recording itself shows when the fine tick began.
    """
    if swapped:
        rows = np.stack([rows[:, 0], 10_000 - rows[:, 3], rows[:, 4], 10_000 - rows[:, 1], rows[:, 2]], axis=1)
    out = table(len(rows))
    out[:, T] = rows[:, 0] - recorded_start_ms + start_ms
    out[:, BID:ASK_SIZE + 1] = rows[:, 1:5]
    fine = ((rows[:, 1] % COARSE_E4 != 0) | (rows[:, 3] % COARSE_E4 != 0)).cumsum() > 0
    out[:, TICK] = np.where(fine, FINE_E4, COARSE_E4)
    out[:, RECORDED] = 1
    return out


def times(from_ms: int, to_ms: int, gap_ms: float, rng) -> np.ndarray:
    """Jittered stamps in [from_ms, to_ms), ``gap_ms`` apart on average."""
    n = max(int((to_ms - from_ms) / gap_ms), 1)
    t = from_ms + np.concatenate([[0.0], np.cumsum((0.5 + rng.random(n)) * gap_ms)])
    return t[t < to_ms].astype(np.int64)


def bridge(from_ms: int, to_ms: int, gap_ms: float, target_e4: np.ndarray | float, target_t: np.ndarray | None, rng,
           thin: float = 1.0) -> np.ndarray:
    """A two-sided book that walks around a target bid price: mean-reverting steps of ticks on the 0.01 grid.

    ``target_e4`` at stamps ``target_t`` (None: constant), linear between. ``thin`` scales the sizes. Bid within 0.01 .. 0.97.
    """
    t = times(from_ms, to_ms, gap_ms, rng)
    out = table(len(t))
    target = np.full(len(t), float(target_e4)) if target_t is None else np.interp(t, target_t, target_e4)
    walk, steps = 0.0, rng.normal(0.0, 0.25, len(t)).tolist()
    wander = []
    for step in steps:
        walk = 0.95 * walk + step
        wander.append(walk)
    out[:, T], out[:, TICK] = t, COARSE_E4
    out[:, BID] = np.clip(np.rint(target / 100 + wander), 1, 97) * 100
    spread = rng.choice(len(SPREAD_15M), len(t), p=SPREAD_15M) + 1
    out[:, ASK] = np.minimum(out[:, BID] + np.minimum(spread, 2) * 100, 9_900)
    out[:, BID_SIZE] = np.maximum(draw_sizes(len(t), rng, out[:, BID]) * thin // 10_000 * 10_000, 1_000_000)
    out[:, ASK_SIZE] = np.maximum(draw_sizes(len(t), rng, out[:, ASK]) * thin // 10_000 * 10_000, 1_000_000)
    return settle_sizes(out, rng)


def around(t: np.ndarray, q: np.ndarray, tick_e4: int, spread_share: tuple, rng) -> np.ndarray:
    """Quotes around a fair value ``q`` at stamps ``t``. The tick turns 0.001 for good once the best leaves 0.04 .. 0.96.

    The fair value sits inside the spread with some slack, so quotes do not flicker; a side without a price on the grid is empty.
    """
    n = len(t)
    out = table(n)
    extra = rng.choice(len(spread_share), n, p=np.array(spread_share) / sum(spread_share))
    drawn_at = np.maximum.accumulate(np.where(rng.random(n) < 0.1, np.arange(n), 0))     # a spread lasts about ten rows
    extra, below = extra[drawn_at].tolist(), (rng.random(n) < 0.5)[drawn_at].tolist()
    bids, asks, ticks = [], [], []
    base = None
    for i, fair in enumerate((q * 10_000).tolist()):
        if tick_e4 == COARSE_E4 and (fair > FINE_ABOVE_E4 or fair < FINE_BELOW_E4):
            tick_e4, base = FINE_E4, None
        if base is None or not base - SLACK * tick_e4 <= fair <= base + (1 + SLACK) * tick_e4:
            base = min(int(fair / tick_e4), 10_000 // tick_e4 - 1) * tick_e4
        wide = extra[i] * tick_e4
        bids.append(max(base - wide * below[i], 0))
        asks.append(min(base + tick_e4 + wide * (not below[i]), 10_000))
        ticks.append(tick_e4)
    out[:, T], out[:, TICK], out[:, BID], out[:, ASK] = t, ticks, bids, asks
    out[:, BID_SIZE] = np.where(out[:, BID] > 0, draw_sizes(n, rng, out[:, BID]), 0)
    out[:, ASK_SIZE] = np.where(out[:, ASK] < 10_000, draw_sizes(n, rng, out[:, ASK]), 0)
    return settle_sizes(out, rng)


def settle_sizes(rows: np.ndarray, rng) -> np.ndarray:
    """Make drawn sizes behave like recorded ones (in place): where the price stays, the size stays (half the rows), changes a little,
    or (rarely) is drawn anew; a new best starts smaller, and before the price gets worse the level runs low."""
    n = len(rows)
    for price, size, worse in ((BID, BID_SIZE, -1), (ASK, ASK_SIZE, 1)):
        luck, change = rng.random(n).tolist(), np.exp(rng.normal(0.0, 0.1, n)).tolist()
        px, drawn = rows[:, price].tolist(), rows[:, size].tolist()
        for i in range(1, n):
            if px[i] != px[i - 1]:
                drawn[i] = max(drawn[i] * 3 // 100_000, 100) * 10_000
            elif luck[i] < 0.95:
                drawn[i] = drawn[i - 1] if luck[i] < 0.5 else max(int(drawn[i - 1] * change[i]) // 10_000, 100) * 10_000
        rows[:, size] = drawn
        low = np.flatnonzero(np.sign(np.diff(rows[:, price])) == worse)
        few = rng.integers(200, 4_000, len(low)) * 10_000
        rows[low, size] = np.minimum(rows[low, size], few)
    return rows


def join(parts: list[np.ndarray], start_ms: int, rng, trade_share: float = TRADE_SHARE) -> np.ndarray:
    """Timetables one after the other, sorted by time, TRADE bits drawn (few before ``start_ms``)."""
    out = np.concatenate([p for p in parts if len(p)])
    out = out[np.argsort(out[:, T], kind="stable")]
    draw = rng.random((2, len(out))) < np.where(out[:, T] < start_ms, TRADE_SHARE_BEFORE, trade_share)
    out[:, TRADE] = draw[0] * TRADE_BID + draw[1] * TRADE_ASK
    return out
