"""The venue's fee schedules for crypto markets by name and date, and what makers get back of the fees.

Owns: the table of schedules and the arithmetic of rebates. A live market's own rate and exponent come with it (`fd`, `feeSchedule`, kept in
MARKET_INFO); the table is for tapes of other days and for tests. Pure. Can go wrong: a date before there were fees (schedule "none").
Source: venue protocol, fees: history, current fee, maker rebates.
"""

from datetime import date
from typing import NamedTuple

from mmbot.quoting.fees import taker_fee_u6

#: part of the taker fees of a crypto market that its makers get back, in 1e-6
REBATE_PART_E6 = 200_000
#: a day's rebates below this are not paid
MIN_PAYOUT_U6 = 1_000_000
_ONE_U6 = 1_000_000


class Schedule(NamedTuple):
    """``since``: first day. ``on_cash``: the formula's amount is the dollars of the trade (shares * price), not its shares."""
    name: str
    since: date
    rate_e6: int
    exponent: int
    on_cash: bool = False

    def fee_u6(self, size_u6: int, px_u6: int) -> int:
        """Taker fee in 1e-6 dollars of ``size_u6`` shares at ``px_u6``."""
        amount = size_u6 * px_u6 // _ONE_U6 if self.on_cash else size_u6
        return taker_fee_u6(amount, px_u6, self.rate_e6, self.exponent)


SCHEDULES = (
    Schedule("none", date(1970, 1, 1), 0, 1),
    Schedule("january", date(2026, 1, 6), 250_000, 2, on_cash=True),
    Schedule("march", date(2026, 3, 30), 72_000, 1),
    Schedule("current", date(2026, 3, 31), 70_000, 1),
)
BY_NAME = {s.name: s for s in SCHEDULES}


def schedule_on(day: date) -> Schedule:
    """The schedule in force on a day (UTC)."""
    return next(s for s in reversed(SCHEDULES) if s.since <= day)


def rebate_u6(size_u6: int, px_u6: int, rate_e6: int, exponent: int) -> int:
    """Most that a maker fill can bring back, 1e-6 dollars: REBATE_PART of the fee that its taker paid.

    The pool of a market is that part of all its taker fees, divided by the makers' sums of the same formula. Each trade adds the same to both sums, so the
    share is what is computed here, unless takers paid less (their own rebate programme).
    """
    return taker_fee_u6(size_u6, px_u6, rate_e6, exponent) * REBATE_PART_E6 // _ONE_U6


def payable_u6(day_u6: int) -> int:
    """What to expect of a day's rebates: all of them, or nothing below the smallest payout."""
    return day_u6 if day_u6 >= MIN_PAYOUT_U6 else 0
