"""The venue's per-signer limits: token buckets, the tier that sets their size, and who may spend what. Time is an argument.

Owns: how many orders and cancels may still be sent now. Writes and reads: the executor's order manager.
Orders and cancels have buckets of their own at the venue. A batch costs as many tokens as it has legs and is refused as a whole when
they are not there; a cancel list costs its length, cancelling everything 1 and the number cancelled. The tier is told by the answers'
headers; until then the standard one is assumed.

Cancel tokens have three owners: the guardian's share (``reserved``) is never touched by the executor, whatever it wants to cancel; above it,
cancels toward safety may take everything; cancels that only make room for a better quote leave ``churn`` more. A cancel for safety that finds
nothing above the guardian's share waits for the refill, 12.5 ms per token in the smallest tier.

Can go wrong: others spend from the same buckets (the guardian, a script with the same key): the venue's own count, when lower, replaces ours.
Source: venue protocol, rate limits.
"""

from typing import NamedTuple

NS = 1_000_000_000


class Tier(NamedTuple):
    """Tokens per second and burst, of orders and of cancels."""
    name: str
    orders_per_s: int
    orders_burst: int
    cancels_per_s: int
    cancels_burst: int


TIERS = (
    Tier("standard", 40, 60, 80, 120), Tier("copper", 60, 90, 120, 180), Tier("bronze", 80, 120, 160, 240), Tier("silver", 200, 300, 400, 600),
    Tier("gold", 400, 600, 800, 1200), Tier("platinum", 450, 675, 900, 1350), Tier("diamond", 525, 787, 1050, 1575),
    Tier("elite", 600, 900, 1200, 1800),
)
STANDARD = TIERS[0]
_INDEX = {tier.name: i for i, tier in enumerate(TIERS)}


class TokenBucket:
    """``per_s`` tokens per second up to ``burst``; starts full at the first ``now_ns`` it sees. ``reserve``: left to cancels for safety;
    ``reserved``: left to others."""

    __slots__ = ("per_ns", "burst", "reserve", "reserved", "_tokens", "_at_ns")

    def __init__(self, per_s: float, burst: int, reserve: int = 0, reserved: int = 0):
        self.per_ns = per_s / NS
        self.burst = float(burst)
        self.reserve, self.reserved = reserve, reserved
        self._tokens = float(burst)
        self._at_ns = -1

    def _refill(self, now_ns: int) -> float:
        if self._at_ns >= 0 and now_ns > self._at_ns:
            self._tokens = min(self.burst, self._tokens + (now_ns - self._at_ns) * self.per_ns)
        if now_ns > self._at_ns:
            self._at_ns = now_ns
        return self._tokens

    def available(self, now_ns: int) -> int:
        """Whole tokens above both reserves, never negative."""
        return max(int(self._refill(now_ns)) - self.reserve - self.reserved, 0)

    def for_safety(self, now_ns: int) -> int:
        """Whole tokens above what is left to others, never negative."""
        return max(int(self._refill(now_ns)) - self.reserved, 0)

    def wait_ns(self, n: int) -> int:
        """How long ``n`` tokens take to come back."""
        return int(n / self.per_ns)

    def spend(self, n: int, now_ns: int) -> None:
        """Take ``n`` tokens, even if that leaves less than nothing."""
        self._refill(now_ns)
        self._tokens -= n

    def drain(self, now_ns: int) -> None:
        """The venue said 429: what we believed to have is gone."""
        self._refill(now_ns)
        self._tokens = min(self._tokens, 0.0)

    def told(self, remaining: int, now_ns: int) -> None:
        """The venue counts so many tokens; a lower count than ours is believed (ours knows of requests that the venue has not seen yet)."""
        if 0 <= remaining < self._refill(now_ns):
            self._tokens = float(remaining)

    def resize(self, per_s: float, burst: int) -> None:
        """Another tier: what is spent stays spent."""
        self._tokens += burst - self.burst
        self.per_ns, self.burst = per_s / NS, float(burst)


class RateBudget:
    """Both buckets and the tier. ``caps``: the operator's (orders per second, burst, cancels per second, burst). Caps that are those of the
    standard tier are no wish of the operator: they grow with the tier. ``tier`` is an index into `TIERS`, -1 until the venue has named it."""

    __slots__ = ("orders", "cancels", "tier", "_caps", "_grows")

    def __init__(self, caps: tuple[float, int, float, int], reserved_cancels: int, churn_reserve: int):
        self._caps = caps
        self._grows = caps == STANDARD[1:]
        burst = caps[3]
        reserved = min(reserved_cancels, burst // 2)
        self.orders = TokenBucket(caps[0], caps[1])
        self.cancels = TokenBucket(caps[2], burst, min(churn_reserve, burst // 3), reserved)
        self.tier = -1

    def seen_tier(self, name: str) -> bool:
        """An answer named the tier; true when that is news."""
        index = _INDEX.get(name.strip().lower(), -1)
        if index < 0 or index == self.tier:
            return False
        self.tier = index
        sizes = TIERS[index][1:] if self._grows else [min(a, b) for a, b in zip(TIERS[index][1:], self._caps, strict=True)]
        self.orders.resize(*sizes[:2])
        self.cancels.resize(*sizes[2:])
        return True
