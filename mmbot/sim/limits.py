"""Rate limits per signer: token buckets for orders and cancels, by tier.

Owns: the tiers' figures, one pair of buckets per address, the headers that tell a client how it stands. Who calls: the trading routes.
Time is CLOCK_MONOTONIC ns, an argument. What can go wrong: too little in a bucket, `Refused` with the seconds to wait.

A batch is all or nothing, and a refused one costs nothing. Up to tier Gold a cancel bucket may owe: one token must be there, the whole
cost is taken. Source: venue protocol, rate limits.
"""

#: tier -> (orders per s, burst, cancels per s, burst)
TIERS = {
    "Standard": (40, 60, 80, 120), "Copper": (60, 90, 120, 180), "Bronze": (80, 120, 160, 240), "Silver": (200, 300, 400, 600),
    "Gold": (400, 600, 800, 1200), "Platinum": (450, 675, 900, 1350), "Diamond": (525, 787, 1050, 1575), "Elite": (600, 900, 1200, 1800),
}
MAY_OWE = ("Standard", "Copper", "Bronze", "Silver", "Gold")
ORDERS, CANCELS = 0, 1


class Refused(Exception):
    """A bucket has too little; ``headers`` are those of the 429."""

    def __init__(self, headers: dict[str, str]):
        super().__init__("Too Many Requests")
        self.headers = headers


class Bucket:
    """Token bucket in real time."""

    def __init__(self, per_s: float, burst: int, may_owe: bool):
        self.per_s, self.burst, self.may_owe = per_s, burst, may_owe
        self.tokens, self._at_ns = float(burst), 0

    def take(self, cost: int, now_ns: int) -> bool:
        """All or nothing; a bucket that may owe only asks for one token to be there."""
        if self._at_ns:
            self.tokens = min(self.burst, self.tokens + (now_ns - self._at_ns) * 1e-9 * self.per_s)
        self._at_ns = now_ns
        if self.tokens < (1 if self.may_owe else cost):
            return False
        self.tokens -= cost
        return True

    def wait_s(self, cost: int) -> float:
        """Seconds until ``cost`` would be granted."""
        need = 1 if self.may_owe else min(cost, self.burst)
        return max(0.0, (need - self.tokens) / self.per_s)


class Limits:
    """Buckets of every signer; all start in one tier, ``promote`` moves one of them."""

    def __init__(self, tier: str = "Standard"):
        self._first = tier
        self._tiers: dict[str, str] = {}
        self._buckets: dict[str, tuple[Bucket, Bucket]] = {}

    def promote(self, address: str, tier: str) -> None:
        """A signer enters another tier, with full buckets."""
        self._tiers[address.lower()] = tier
        self._buckets.pop(address.lower(), None)

    def _pair(self, address: str) -> tuple[str, tuple[Bucket, Bucket]]:
        key = address.lower()
        tier = self._tiers.get(key, self._first)
        if key not in self._buckets:
            orders, orders_burst, cancels, cancels_burst = TIERS[tier]
            self._buckets[key] = (Bucket(orders, orders_burst, False), Bucket(cancels, cancels_burst, tier in MAY_OWE))
        return tier, self._buckets[key]

    def take(self, address: str, kind: int, cost: int, now_ns: int, now_s: float) -> dict[str, str]:
        """Take ``cost`` tokens of a signer's ORDERS or CANCELS. Returns the answer's headers (``now_s``: the venue's time). Errors: Refused."""
        tier, pair = self._pair(address)
        bucket = pair[kind]
        granted = bucket.take(cost, now_ns)
        wait_s = bucket.wait_s(cost)
        headers = {"Poly-RateLimit-Remaining": str(int(bucket.tokens)), "Poly-RateLimit-Tier": tier,
                   "Poly-RateLimit-Reset": str(int(now_s + wait_s))}
        if not granted:
            raise Refused(headers | {"Retry-After": str(max(1, -int(-wait_s // 1)))})
        return headers

    def charge(self, address: str, kind: int, cost: int) -> int:
        """Take tokens without asking (a sweep knows its cost only afterwards); returns what remains."""
        bucket = self._pair(address)[1][kind]
        bucket.tokens -= cost
        return int(bucket.tokens)
