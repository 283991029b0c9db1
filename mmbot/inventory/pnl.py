"""Where the result comes from: spread captured, adverse selection, inventory, fees; and what rebates may add to it.

Owns: `Split`, one window's sums, and `Attribution` over all of them. Fed by the order manager with each trade leg that counts, leaves or is corrected,
published in the account record, shown by `mmbot status` and `mmbot run`. Pure: time and mids are arguments. Everything is in Up terms: a share of Down is
worth 1 - mid, so a bought Down share is an exposure of -1.

    spread      (value of the token at the mid of the fill - price) * shares bought, the reverse of shares sold
    adverse     exposure * (mid `HORIZON_NS` after the fill - mid of the fill): below 0 when the market moves against our fills
    inventory   exposure * (mid now, or the outcome - that later mid)
    result      spread + adverse + inventory - fees, to the last unit what cash and shares at mid come to

Rebates are an estimate of what the venue will pay, the most that is possible, and no part of the result.
Can go wrong: a fill whose mid nobody knows (booked from a listing) has no spread: all of its result is inventory. Where no mid is known at the horizon, the
fill's own stands in. Sums are kept in 1e-12 dollars, so nothing is lost to rounding. Source: Glosten and Harris 1988, on the two parts of a spread.
"""

from collections import deque
from typing import NamedTuple

from shm_layout.records import BUY, UP

HORIZON_NS = 5_000_000_000
ONE_U6 = 1_000_000


class Fill(NamedTuple):
    """One leg. ``exposure_u6``: shares of Up that it is worth, negative for Down; ``mid_u6``, ``later_u6``: mids of Up in 1e-6 dollars.
    ``late``: of an order that reached the venue past its deadline."""
    exposure_u6: int
    spread_e12: int
    mid_u6: int
    later_u6: int
    fee_u6: int
    rebate_u6: int
    late: bool = False


class Split:
    """Sums of a window's fills."""

    __slots__ = ("exposure_u6", "spread_e12", "adverse_e12", "marked_e12", "fees_u6", "rebate_u6", "late_e12")

    def __init__(self):
        self.exposure_u6 = self.spread_e12 = self.adverse_e12 = self.marked_e12 = self.fees_u6 = self.rebate_u6 = self.late_e12 = 0

    def add(self, f: Fill, sign: int = 1) -> None:
        """Count a fill (1), or take it out again (-1)."""
        self.exposure_u6 += sign * f.exposure_u6
        self.spread_e12 += sign * f.spread_e12
        self.adverse_e12 += sign * f.exposure_u6 * (f.later_u6 - f.mid_u6)
        self.marked_e12 += sign * f.exposure_u6 * f.later_u6
        self.fees_u6 += sign * f.fee_u6
        self.rebate_u6 += sign * f.rebate_u6
        if f.late:
            self.late_e12 += sign * (f.spread_e12 + f.exposure_u6 * (f.later_u6 - f.mid_u6) - f.fee_u6 * ONE_U6)

    def inventory_e12(self, mid_u6: int) -> int:
        """What the exposure has gained since the fills' horizons, at this mid of Up (or outcome: 1e6 or 0)."""
        return self.exposure_u6 * mid_u6 - self.marked_e12

    def result_e12(self, mid_u6: int) -> int:
        """The window's result at this mid of Up."""
        return self.spread_e12 + self.adverse_e12 + self.inventory_e12(mid_u6) - self.fees_u6 * ONE_U6


class Attribution:
    """All windows. ``due_ns``: call `look` when it has come."""

    def __init__(self):
        self.by_market: dict[int, Split] = {}
        self.gone = Split()                     # sums of windows that were forgotten
        self._fills: dict[int, dict[tuple, Fill]] = {}
        self._waiting: deque[tuple[int, int, tuple]] = deque()      # (when due, market, key)

    @property
    def due_ns(self) -> int:
        """When the oldest fill reaches its horizon; far away without one."""
        return self._waiting[0][0] if self._waiting else 1 << 62

    def fill(self, market_id: int, key: tuple, token: int, side: int, size_u6: int, px_u6: int, fee_u6: int, rebate_u6: int, mid_u6: int | None,
             now_ns: int, late: bool = False) -> None:
        """A leg counts from now, or its terms were corrected: then the mid of its first booking stays. ``key`` names the leg within its window."""
        found = self._fills.setdefault(market_id, {})
        split = self.by_market.setdefault(market_id, Split())
        old = found.get(key)
        worth = px_u6 if token == UP else ONE_U6 - px_u6        # the mid of Up at which this price has no spread
        mid = later = worth if mid_u6 is None else mid_u6
        if old is not None:
            split.add(old, -1)
            mid, later = old.mid_u6, old.later_u6
        exposure = size_u6 if (token == UP) == (side == BUY) else -size_u6
        found[key] = f = Fill(exposure, exposure * (mid - worth), mid, later, fee_u6, rebate_u6, late)
        split.add(f)
        if old is None and mid_u6 is not None:
            self._waiting.append((now_ns + HORIZON_NS, market_id, key))

    def undo(self, market_id: int, key: tuple) -> None:
        """A leg failed: it counts no more."""
        f = self._fills.get(market_id, {}).pop(key, None)
        if f is not None:
            self.by_market[market_id].add(f, -1)

    def look(self, now_ns: int, mid_of) -> bool:
        """Mark the fills whose horizon has come; ``mid_of(market_id)`` is the mid of Up in 1e-6 dollars or None. True if any was marked."""
        marked = False
        while self._waiting and self._waiting[0][0] <= now_ns:
            _, market_id, key = self._waiting.popleft()
            f = self._fills.get(market_id, {}).get(key)
            mid_u6 = mid_of(market_id) if f is not None else None
            if mid_u6 is not None:
                split = self.by_market[market_id]
                split.add(f, -1)
                f = self._fills[market_id][key] = f._replace(later_u6=mid_u6)
                split.add(f)
                marked = True
        return marked

    def forget(self, market_id: int) -> None:
        """A window whose trades can no longer change: its sums stay."""
        self._fills.pop(market_id, None)
        split = self.by_market.pop(market_id, None)
        if split is not None:
            for name in Split.__slots__:
                setattr(self.gone, name, getattr(self.gone, name) + getattr(split, name))

    def sums_u6(self) -> tuple[int, int, int]:
        """(spread, adverse, rebate) over all windows, 1e-6 dollars."""
        splits = (*self.by_market.values(), self.gone)
        return (sum(s.spread_e12 for s in splits) // ONE_U6, sum(s.adverse_e12 for s in splits) // ONE_U6, sum(s.rebate_u6 for s in splits))

    def late_u6(self) -> int:
        """What the fills of late orders came to against the mid at their horizon, less their fees, 1e-6 dollars."""
        return (sum(s.late_e12 for s in self.by_market.values()) + self.gone.late_e12) // ONE_U6
