"""A second witness of our fills: the public activity stream shows what the user channel may have lost.

Owns: `Witness`, amounts shown by the activity stream and amounts booked that have not met each other yet. Written and read by the order
manager. Pure: time is an argument. An activity record has no order or trade id, so it is never booked; it only raises the question.
Can go wrong: the stream shows a fill before or after the user channel (each waits for the other for a while); it loses records (booked
amounts that nobody claims are forgotten after KEEP_NS, silently: the stream is not the truth); it repeats one (the question is asked once
more than needed, and the answer is that nothing is missing).
"""

from collections import defaultdict, deque

WAIT_NS = 2_000_000_000         # a fill shown by the activity stream must be booked within this
KEEP_NS = 60_000_000_000        # how long either side waits for the other before it is forgotten
DUST_U6 = 10_000


class _Side:
    """What one (market, token, side) has open: [amount left, when, asked] of shown and of booked fills, oldest first."""

    __slots__ = ("shown", "booked")

    def __init__(self):
        self.shown, self.booked = deque(), deque()


class Witness:
    """``open``: how many shown fills wait for their booking."""

    def __init__(self):
        self._sides: defaultdict[tuple, _Side] = defaultdict(_Side)
        self.open = 0

    def shown(self, market_id: int, token: int, side: int, size_u6: int, now_ns: int) -> None:
        """The activity stream shows a fill of our wallet: shares in 1e-6."""
        both = self._sides[market_id, token, side]
        left = _meet(size_u6, both.booked)
        if left > DUST_U6:
            both.shown.append([left, now_ns, False])
            self.open += 1

    def booked(self, market_id: int, token: int, side: int, size_u6: int, now_ns: int) -> None:
        """A leg was booked: shares in 1e-6."""
        both = self._sides[market_id, token, side]
        before = len(both.shown)
        left = _meet(size_u6, both.shown)
        self.open -= before - len(both.shown)
        if left > DUST_U6:
            both.booked.append([left, now_ns, False])

    def unmet(self, now_ns: int) -> int:
        """Shares (1e-6) shown for longer than WAIT_NS without a booking and not asked about yet; they count as asked from now on."""
        missing = 0
        for key in list(self._sides):
            both = self._sides[key]
            for entries in (both.shown, both.booked):
                while entries and now_ns - entries[0][1] > KEEP_NS:
                    entries.popleft()
                    self.open -= entries is both.shown
            for entry in both.shown:
                if not entry[2] and now_ns - entry[1] > WAIT_NS:
                    entry[2] = True
                    missing += entry[0]
            if not both.shown and not both.booked:
                del self._sides[key]
        return missing


def _meet(size_u6: int, others: deque) -> int:
    """Set an amount off against the oldest of the other side; returns what is left of it."""
    while others and size_u6 > 0:
        part = min(size_u6, others[0][0])
        size_u6 -= part
        others[0][0] -= part
        if others[0][0] <= DUST_U6:
            others.popleft()
    return size_u6
