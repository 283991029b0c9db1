"""Why the venue says "not enough balance", and how much may therefore be bid for in a market until that has changed.

Owns: `Funds`, the ceilings that refusals left behind. Written and read by the order manager. Pure: time is an argument.

The venue reserves per market, keeps the reservation of trades that failed or settled for a while ("sum of matched orders"), and judges by a
cached balance. So a refusal is no reason to try again at once: what the venue says is free, less what rests of ours, is all that is bid for in
that market, and the ceiling is lifted after a wait that doubles with each further refusal. Orders that fit under it are posted, others wait.
Can go wrong: a text without numbers (nothing more is bid for in that market until the wait is over).
Source: venue protocol, errors; balance rules.
"""

import re
from typing import NamedTuple

FIRST_WAIT_NS, LONGEST_WAIT_NS = 1_000_000_000, 30_000_000_000
FORGET_NS = 60_000_000_000      # a refusal this long after the last one starts the doubling anew
_NUMBERS = re.compile(r"balance:\s*(\d+),\s*sum of matched orders:\s*(\d+),\s*order amount[^:]*:\s*(\d+)")


class Ceiling(NamedTuple):
    """``room_u6``: dollars that own open bids of a market may take together until ``until_ns``; ``wait_ns`` how long that was."""
    room_u6: int
    until_ns: int
    wait_ns: int


class Funds:
    """Ceilings: dollars by market id, shares by (market id, token)."""

    def __init__(self):
        self._ceilings: dict[int, Ceiling] = {}

    def refused(self, key, text: str, reserved_u6: int, cash_u6: int, now_ns: int, unit: str = "dollars of bids") -> str:
        """An order was refused for its money or shares (``key``: market id, or (market id, token)). ``reserved_u6``: what our open orders take there, the
        refused one not counted; ``cash_u6``: what we believe to have. Returns the explanation."""
        old = self._ceilings.get(key)
        wait_ns = FIRST_WAIT_NS
        if old is not None and now_ns - old.until_ns < FORGET_NS:
            wait_ns = old.wait_ns if now_ns < old.until_ns else min(2 * old.wait_ns, LONGEST_WAIT_NS)
        noun, found = unit.split()[0], _NUMBERS.search(text)
        if found is None:
            room, why = reserved_u6, "the venue gives no numbers"
        else:
            balance, matched, _ = (int(n) for n in found.groups())
            stale = max(matched - reserved_u6, 0)
            room = max(balance - stale, 0)
            why = (f"a reservation of {stale / 1e6:g} {noun} that no order of ours explains" if stale
                   else f"the venue sees {balance / 1e6:g} {noun}, we {cash_u6 / 1e6:g}" if balance < cash_u6 else "more was asked for than there is")
        until_ns = old.until_ns if old is not None and now_ns < old.until_ns else now_ns + wait_ns
        self._ceilings[key] = Ceiling(room, until_ns, wait_ns)
        return f"{why}: at most {room / 1e6:g} {unit} in {key[0] if isinstance(key, tuple) else key} for {wait_ns / 1e9:g} s"

    def room_u6(self, key, cash_u6: int, now_ns: int) -> int:
        """Dollars that own open bids of a market, or shares that own open offers of a token, may take together now."""
        ceiling = self._ceilings.get(key)
        if ceiling is None or now_ns >= ceiling.until_ns:
            return cash_u6
        return min(ceiling.room_u6, cash_u6)
