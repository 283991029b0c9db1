"""What the spot venues share: a ladder of levels, number and time texts, the rule of old ticks, and the way of a SPOT record into its ring.

Owns: `Ladder` (absolute levels, best first on demand), `Publisher` (stamps, publishes, moves a stream's counters into the vitals page).
Writes: the ring it is given. No sockets; the clock is the actor's. Can go wrong: numbers that are none (BadValue); ticks from the past
(dropped and counted by the stream).
"""

import heapq
import math
from datetime import datetime, timezone

from mmbot.clock import mono_ns
from mmbot.venues.numbers import BadValue

#: a tick older than this by its own exchange's clock says nothing about now
OLD_NS = 3_000_000_000
_SLACK = 1024
_COUNTERS = {"late": "frames_late", "gaps": "gaps", "other": "unknown"}


def positive(text: str, venue: str) -> float:
    """A finite positive number. Errors: BadValue."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise BadValue(f"{venue}: {text[:40]!r} is no positive number")
    return value


def quantity(text: str, venue: str) -> float:
    """A finite quantity, zero allowed. Errors: BadValue."""
    return 0.0 if text.strip("0.") == "" and text else positive(text, venue)


class IsoTimes:
    """ISO times with up to nine decimals and a Z, in ns since 1970; the whole second is remembered, as it repeats."""

    def __init__(self) -> None:
        self._text, self._ns = "", 0

    def ns(self, text: str) -> int:
        """Errors: BadValue."""
        whole, fraction = text[:19], text[19:].removesuffix("Z").removeprefix(".")
        if whole != self._text:
            try:
                self._ns = int(datetime.fromisoformat(whole).replace(tzinfo=timezone.utc).timestamp()) * 1_000_000_000
            except ValueError:
                raise BadValue(f"{text[:40]!r} is no time") from None
            self._text = whole
        if len(fraction) > 9 or not (fraction.isdecimal() or fraction == "") or not text.endswith("Z"):
            raise BadValue(f"{text[:40]!r} is no time")
        return self._ns + int(fraction.ljust(9, "0"))


class Ladder:
    """One side of a book: absolute quantity per price. ``sign`` -1 for bids (highest is best), +1 for asks.

    The best is found by a heap of prices from which those that are gone are dropped when they come up.
    """

    def __init__(self, sign: int):
        self._sign = sign
        self._levels: dict[float, float] = {}
        self._heap: list[float] = []

    def __len__(self) -> int:
        return len(self._levels)

    def clear(self) -> None:
        """Forget all levels."""
        self._levels.clear()
        self._heap.clear()

    def set(self, px: float, qty: float) -> None:
        """The quantity at a price is now ``qty``; 0 removes the level."""
        if qty == 0.0:
            self._levels.pop(px, None)
            return
        if px not in self._levels:
            heapq.heappush(self._heap, px * self._sign)
            if len(self._heap) > 2 * len(self._levels) + _SLACK:
                self._heap = [p * self._sign for p in (*self._levels, px)]
                heapq.heapify(self._heap)
        self._levels[px] = qty

    def best(self) -> tuple[float, float]:
        """(price, quantity) of the best level, (0, 0) when there is none."""
        heap, levels = self._heap, self._levels
        while heap:
            px = heap[0] * self._sign
            if px in levels:
                return px, levels[px]
            heapq.heappop(heap)
        return 0.0, 0.0


class Publisher:
    """The ring of one spot feed. A stream fills ``ring.rec`` and calls `put`."""

    def __init__(self, actor, segment: str):
        self._actor, self._segment = actor, segment
        self.ring = actor.ring_writers[segment]
        self.rec = self.ring.rec
        self._cells = memoryview(self.ring.words)
        self._t_pub = self.rec.dtype.fields["t_pub_ns"][1] // 8
        self._seen: dict[tuple[int, str], int] = {}
        self._records = 0

    def put(self) -> None:
        """Stamp the record and put it where others see it."""
        self._cells[self._t_pub] = mono_ns()
        self.ring.publish()
        self._actor.ring_bells(self._segment)
        self._records += 1

    def count(self, stream) -> None:
        """Move what was counted since the last call into the vitals page."""
        if self._records:
            self._actor.vitals.event("records", self._records)
            self._records = 0
        for attribute, event in _COUNTERS.items():
            total, key = getattr(stream, attribute), (id(stream), attribute)
            if total != self._seen.get(key, 0):
                self._actor.vitals.event(event, total - self._seen.get(key, 0))
                self._seen[key] = total
