"""Round trips of a socket's PINGs: average, time-out, and the bands in which the operator sees them. Pure: time is an argument.

Owns: `RoundTrip`. Fed by the WebSocket client; the average of the market channel travels with each market record (MARKET.rtt_ns), and the core stops quoting
on it (gate ``latency``). Can go wrong: a PONG that never comes counts as one of `TIMEOUT_NS`, and once more with each further PING; a PONG nobody waits for
is ignored. The average belongs to one link and starts anew with the next. Source: document 2, latency kill switch.
"""

TIMEOUT_NS = 2_000_000_000
KEEP = 0.9                      # of the average, with each new measurement
#: upper edges of the bands
BANDS = ((50_000_000, "excellent"), (200_000_000, "good"), (500_000_000, "degraded"))


class RoundTrip:
    """``average_ns``: moving average of the round trips, 0 before the first."""

    __slots__ = ("average_ns", "_sent_ns")

    def __init__(self):
        self.average_ns = 0
        self._sent_ns = 0

    def reset(self) -> None:
        """Another link: nothing is known of it."""
        self.average_ns = self._sent_ns = 0

    def sent(self, now_ns: int) -> None:
        """A PING has left; one that was not answered by now keeps its own time."""
        if not self._sent_ns:
            self._sent_ns = now_ns

    def answered(self, now_ns: int) -> None:
        """A PONG has come."""
        if self._sent_ns:
            self._add(now_ns - self._sent_ns)
            self._sent_ns = 0

    def look(self, now_ns: int) -> None:
        """Time passes: a PING without an answer is over."""
        if self._sent_ns and now_ns - self._sent_ns >= TIMEOUT_NS:
            self._add(TIMEOUT_NS)
            self._sent_ns = 0

    def _add(self, ns: int) -> None:
        ns = min(max(ns, 1), TIMEOUT_NS)
        self.average_ns = round(KEEP * self.average_ns + (1 - KEEP) * ns) if self.average_ns else ns


def band(rtt_ns: int) -> str:
    """excellent, good, degraded or critical; "" when it is not known."""
    return next((name for edge, name in BANDS if rtt_ns < edge), "critical") if rtt_ns > 0 else ""
