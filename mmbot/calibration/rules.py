"""What decided a window, and what a taker paid, by date.

Owns: the settlement rules in order of time. Fees are `venues.polymarket.fees`. Sources: the venue's change log (venue notes 5.3): spot until 2026-08-06;
since 2026-08-07 a TWAP, of 60 s for windows of 15 minutes, of 30 s for those of 5 until 2026-08-14.
Can go wrong: which seconds a TWAP print averages is not published; two third parties fit the prints of T-62 to T-3, hence LAG_S.
"""

import datetime
from dataclasses import dataclass

import numpy as np

from mmbot.calibration.recordings import Day

LAG_S = 3
MOST_MISSING = 5            # seconds of an average that may be interpolated


@dataclass(frozen=True)
class Rule:
    """Up wins if the value at the end is at least the value at the start: a print (``spot``), or the mean of the ``lookback_s`` up to ``lag_s`` before."""
    kind: str
    lookback_s: int = 0
    lag_s: int = 0

    @property
    def name(self) -> str:
        return "spot print" if self.kind == "spot" else f"mean of {self.lookback_s} s"

    def value(self, day: Day, t_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(ln value at seconds ``t_s``, whether the prints it needs are there)."""
        if self.kind == "spot":
            return day.tick(t_s)
        return day.mean(t_s, self.lookback_s, self.lag_s, MOST_MISSING)


SPOT = Rule("spot")
TODAY = Rule("twap", 60, LAG_S)


def _day(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp())


#: (from second, rule of 15 minutes, rule of 5 minutes), in order
SETTLEMENT = (
    (0, SPOT, SPOT),
    (_day("2026-08-07"), TODAY, Rule("twap", 30, LAG_S)),
    (_day("2026-08-14"), TODAY, TODAY),
)


def settlement(start_s: int, duration_s: int) -> Rule:
    """The rule that decides the window which starts at ``start_s``."""
    found = SETTLEMENT[0]
    for row in SETTLEMENT:
        if start_s >= row[0]:
            found = row
    return found[1] if duration_s == 900 else found[2]
