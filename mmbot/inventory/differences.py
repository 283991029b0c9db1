"""Differences between our books and the venue's: which there are, since when, and whether something explains them.

Owns: `Differences`, the list of what is open, and `Plausible`, which knows what a balance may honestly show. Written and read by the
comparison of the order manager. Pure: time is an argument.

A balance is not a difference because it differs. The venue moves money and shares when a trade is mined and shows them from a cache, so a
balance may be any value between "none" and "all" of the trades that are not final, of now or of a short while ago. Only outside of that is a
difference. It is first `suspected` (a fill may have reached the balance before it reached us), and named when it is still there a moment later.
Can go wrong: a cache that lags longer than LAG_NS is named as a difference, and the venue is asked to renew it; when it does, the difference
closes. A true difference smaller than what is pending hides until the pending trades are final.
"""

from collections import deque
from typing import NamedTuple

LAG_NS = 15_000_000_000         # how long a balance may show the past
SUSPECT_NS = 1_000_000_000      # how long a difference is only suspected
TOLERANCE_U6 = 10_000           # a cent, a hundredth of a share: settlement rounds in 1e-6


class Difference(NamedTuple):
    """``what`` differs (a word and what it is about), our value and the venue's as texts, first seen, and whether it was named yet."""
    what: tuple
    ours: str
    venues: str
    since_ns: int
    named: bool

    @property
    def text(self) -> str:
        """One line for the operator."""
        return f"{' '.join(str(w) for w in self.what)}: ours {self.ours}, the venue's {self.venues}"


class Differences:
    """``open``: by what they are about. A pass over the venue's books tells all it found; what it did not find any more is explained."""

    def __init__(self):
        self.open: dict[tuple, Difference] = {}

    def update(self, found: dict[tuple, tuple[str, str]], now_ns: int, sure: frozenset[str] = frozenset()) -> list[Difference]:
        """Take the findings of one complete pass, (ours, venue's) by what they are about; returns those to be named now.

        ``sure``: first words of ``what`` that need no second sight.
        """
        before, self.open, named = self.open, {}, []
        for what, (ours, venues) in found.items():
            old = before.get(what)
            since_ns = old.since_ns if old else now_ns
            ripe = what[0] in sure or now_ns - since_ns >= SUSPECT_NS
            d = self.open[what] = Difference(what, ours, venues, since_ns, ripe)
            if ripe and not (old and old.named):
                named.append(d)
        return named

    @property
    def since_ns(self) -> int:
        """Since when the oldest named difference is open, 0 when none is."""
        return min((d.since_ns for d in self.open.values() if d.named), default=0)


class Plausible:
    """What one balance may show: the union of the intervals [low, high] of the last LAG_NS, in 1e-6."""

    __slots__ = ("_past",)

    def __init__(self):
        self._past: deque[tuple[int, int, int]] = deque()

    def add(self, low_u6: int, high_u6: int, now_ns: int) -> None:
        """The interval of this moment: low with every trade that is not final booked as it lowers the balance, high as it raises it."""
        past = self._past
        past.append((now_ns, low_u6, high_u6))
        while past[0][0] < now_ns - LAG_NS:
            past.popleft()

    def excess_u6(self, value_u6: int) -> int:
        """How far a balance lies above (positive) or below (negative) everything that can be explained; 0 when it can."""
        low, high = min(p[1] for p in self._past), max(p[2] for p in self._past)
        if value_u6 > high + TOLERANCE_U6:
            return value_u6 - high
        return value_u6 - low if value_u6 < low - TOLERANCE_U6 else 0

    def exact(self, value_u6: int) -> bool:
        """Whether this moment alone explains a balance, without the past."""
        _, low, high = self._past[-1]
        return low - TOLERANCE_U6 <= value_u6 <= high + TOLERANCE_U6

    def shift(self, by_u6: int) -> None:
        """What was unexplained is accepted: it was true all the time."""
        self._past = deque((t, low + by_u6, high + by_u6) for t, low, high in self._past)
