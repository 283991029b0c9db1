"""Token buckets for the venue's per-signer limits; time is an argument.

Owns: how many orders and cancels may still be sent now. Writes and reads: the executor's order manager.
Orders and cancels have buckets of their own at the venue. A batch costs as many tokens as it has legs and is refused as a whole when
they are not there, so a caller sends no more than `available` says. Cancels that protect money are always sent (`spend` may go below
zero, as the venue allows); cancels that only make room for a better quote leave ``reserve`` tokens untouched.
Source: venue protocol, rate limits.
"""

NS = 1_000_000_000


class TokenBucket:
    """``per_s`` tokens per second up to ``burst``; starts full at the first ``now_ns`` it sees."""

    __slots__ = ("per_ns", "burst", "reserve", "_tokens", "_at_ns")

    def __init__(self, per_s: float, burst: int, reserve: int = 0):
        self.per_ns = per_s / NS
        self.burst = float(burst)
        self.reserve = reserve
        self._tokens = float(burst)
        self._at_ns = -1

    def _refill(self, now_ns: int) -> float:
        if self._at_ns >= 0 and now_ns > self._at_ns:
            self._tokens = min(self.burst, self._tokens + (now_ns - self._at_ns) * self.per_ns)
        if now_ns > self._at_ns:
            self._at_ns = now_ns
        return self._tokens

    def available(self, now_ns: int) -> int:
        """Whole tokens above the reserve, never negative."""
        return max(int(self._refill(now_ns)) - self.reserve, 0)

    def spend(self, n: int, now_ns: int) -> None:
        """Take ``n`` tokens, even if that leaves less than nothing."""
        self._refill(now_ns)
        self._tokens -= n

    def drain(self, now_ns: int) -> None:
        """The venue said 429: what we believed to have is gone."""
        self._refill(now_ns)
        self._tokens = min(self._tokens, 0.0)
