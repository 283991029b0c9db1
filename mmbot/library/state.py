"""One moment of one window as a person writes it down: dollars, shares and seconds. Checked at birth, then as the core's integers.

Owns: the shapes and their limits. Read by `quoter`. Can go wrong: a value that cannot be raises UserError naming the field.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mmbot.errors import UserError
from shm_layout import records as r

VENUES = {"binance": r.SV_BINANCE, "coinbase": r.SV_COINBASE, "bybit": r.SV_BYBIT}
OUTCOMES, SIDES = {"up": r.UP, "down": r.DOWN}, {"buy": r.BUY, "sell": r.SELL}
MOST_SHARES = 1e9

Level = tuple[float, float]


@dataclass(frozen=True)
class MarketState:
    """What is known at ``now_s`` (seconds since 1970) about the window that starts at ``start_s`` and lasts ``duration_s`` (900 or 300).

    strike       price at the start, dollars; None: not printed yet
    oracle       Chainlink prints [(time_s, price)], oldest first; the newest is the present
    spot         venue (binance, coinbase, bybit) -> mids [(time_s, price)], oldest first
    bids, asks   the book of Up, [(price, shares)] in any order; a bid for Down at p is an ask of Up at 1 - p. The five best count.
    book_s       when that book was true; None: now
    trades       trades of the market in Up terms, [(time_s, taker "buy" or "sell", price, shares)], oldest first
    own          what rests of ours in that book, [(outcome "up" or "down", "buy" or "sell", price, shares)]: taken out before the market is looked at
    up_shares, down_shares, up_cost, down_cost    what is held, and what it cost in dollars
    cash         dollars that can be spent
    tick, min_size, fee_rate, fee_exponent        of the market, as the venue states them
    """
    now_s: float
    start_s: int
    bids: Sequence[Level]
    asks: Sequence[Level]
    oracle: Sequence[tuple[float, float]]
    duration_s: int = 900
    strike: float | None = None
    spot: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    book_s: float | None = None
    trades: Sequence[tuple[float, str, float, float]] = ()
    own: Sequence[tuple[str, str, float, float]] = ()
    up_shares: float = 0.0
    down_shares: float = 0.0
    up_cost: float = 0.0
    down_cost: float = 0.0
    cash: float = 1000.0
    tick: float = 0.01
    min_size: float = 5.0
    fee_rate: float = 0.07
    fee_exponent: int = 1

    def __post_init__(self):
        if self.duration_s not in r.DURATIONS:
            raise UserError(f"duration_s is {self.duration_s!r}: a window lasts {' or '.join(map(str, r.DURATIONS))} seconds")
        if self.start_s != int(self.start_s) or self.start_s <= 0 or self.start_s % self.duration_s:
            raise UserError(f"start_s is {self.start_s!r}: windows of {self.duration_s} s start at multiples of {self.duration_s}, in seconds since 1970")
        for name in ("now_s", "book_s", "strike"):
            if getattr(self, name) is not None:
                positive(name, getattr(self, name))
        if self.book_s is not None and self.book_s > self.now_s:
            raise UserError(f"book_s {self.book_s:g} is later than now_s {self.now_s:g}")
        for name in ("up_shares", "down_shares", "up_cost", "down_cost", "cash", "min_size", "fee_rate"):
            amount(name, getattr(self, name))
        if self.tick not in (0.1, 0.01, 0.005, 0.0025, 0.001, 0.0001):
            raise UserError(f"tick is {self.tick!r}: the venue has 0.1, 0.01, 0.005, 0.0025, 0.001 and 0.0001")
        series("oracle", self.oracle, self.now_s)
        for venue, points in self.spot.items():
            if venue not in VENUES:
                raise UserError(f"spot venue {venue!r} is unknown: {', '.join(VENUES)}")
            series(f"spot {venue}", points, self.now_s)
        levels("bids", self.bids, -1)
        levels("asks", self.asks, 1)


def positive(name: str, value: float) -> float:
    """A finite number above 0, as float. Errors: UserError naming it."""
    try:
        if math.isfinite(value) and value > 0:
            return float(value)
    except TypeError:
        pass
    raise UserError(f"{name} is {value!r}: a number above 0 is needed")


def amount(name: str, value: float) -> int:
    """Shares or dollars as 1e-6, an integer. Errors: UserError naming it."""
    try:
        if math.isfinite(value) and 0 <= value <= MOST_SHARES:
            return round(value * 1e6)
    except TypeError:
        pass
    raise UserError(f"{name} is {value!r}: a number from 0 to {MOST_SHARES:g} is needed")


def px_e4(name: str, value: float) -> int:
    """A price of an outcome as 1e-4 dollars. Errors: UserError when it is no multiple of 0.0001 between 0 and 1."""
    px = round(positive(name, value) * 1e4)
    if not 0 < px < 10_000 or abs(px - value * 1e4) > 1e-6:
        raise UserError(f"{name} is {value!r}: prices are multiples of 0.0001 between 0 and 1")
    return px


def levels(name: str, found: Sequence[Level], direction: int) -> list[tuple[int, int]]:
    """The five best levels as [(px_e4, size_u6)], best first (``direction`` 1: lowest first); levels without shares are left out. Errors: UserError."""
    try:
        out = [(px_e4(f"{name} price", float(px)), amount(f"{name} size", float(size))) for px, size in found]
    except (TypeError, ValueError):
        raise UserError(f"{name} must be pairs of (price, shares)") from None
    out = sorted((level for level in out if level[1]), key=lambda level: level[0] * direction)
    if any(a[0] == b[0] for a, b in zip(out, out[1:], strict=False)):
        raise UserError(f"{name} hold a price twice")
    return out[:r.TOP_N]


def series(name: str, points: Sequence[tuple[float, float]], now_s: float) -> np.ndarray:
    """Points as an (n, 2) float array. Errors: UserError unless times do not fall, are not after ``now_s``, and prices are above 0."""
    try:
        array = np.asarray(points, float)
    except (TypeError, ValueError):
        array = np.zeros(1)
    if array.size == 0:
        return np.zeros((0, 2))
    if array.ndim != 2 or array.shape[1] != 2:
        raise UserError(f"{name} must be pairs of (time_s, price)")
    if not np.isfinite(array).all() or (array[:, 1] <= 0).any():
        raise UserError(f"{name} holds a price that is no number above 0, or a time that is none")
    if (np.diff(array[:, 0]) < 0).any():
        raise UserError(f"{name} must be in order of time")
    if array[-1, 0] > now_s:
        raise UserError(f"{name} ends at {array[-1, 0]:.3f}, later than now_s {now_s:.3f}")
    return array
