"""Circuit breakers of the executor: too many posts fail, their answers get lost, or too much money is lost. Pure: time is an argument.

Owns: `ErrorRate`, `PostPause` and `LossStop`. Fed and read by the order manager, which shows the first and the last as the halt bits ``error_rate`` and ``loss``.
Can go wrong: a breaker that is too nervous stops quoting for a while and says so; one that has seen too little stays closed (``least``).
Both look back over a window that moves on, so neither remembers a bad start for ever, and a good start earns no right to lose it all.
"""

from collections import deque

S = 1_000_000_000
DAY_NS = 24 * 3600 * S


class ErrorRate:
    """Open while, of at least ``least`` posts within ``window_s``, the share ``rate`` or more failed; then for ``pause_s``, starting afresh."""

    __slots__ = ("window_ns", "rate", "least", "pause_ns", "until_ns", "_posts", "_failed")

    def __init__(self, window_s: float, rate: float, least: int, pause_s: float):
        self.window_ns, self.pause_ns = int(window_s * S), int(pause_s * S)
        self.rate, self.least = rate, least
        self.until_ns = 0
        self._posts: deque[tuple[int, bool]] = deque()
        self._failed = 0

    def add(self, failed: bool, now: int) -> bool:
        """One post (leg) has ended; true when this opens the breaker."""
        self._posts.append((now, failed))
        self._failed += failed
        self._forget(now)
        if len(self._posts) < self.least or self._failed < self.rate * len(self._posts):
            return False
        self._posts.clear()
        self._failed = 0
        self.until_ns = now + self.pause_ns
        return True

    def open(self, now: int) -> bool:
        """Whether nothing may be quoted now."""
        return now < self.until_ns

    def _forget(self, now: int) -> None:
        horizon = now - self.window_ns
        while self._posts[0][0] < horizon:
            self._failed -= self._posts.popleft()[1]


class PostPause:
    """Posts wait while their answers get lost: each one sent then would rest for as long as its deadline with nobody knowing whether it does.

    The pause after the first loss is ``first_s``; it doubles with each further one up to ``most_s`` and ends with the first good answer. Until
    then one order at a time is sent, as a trial. Requests that were under way together are one loss.
    """

    __slots__ = ("first_ns", "most_ns", "losses", "wait_ns", "until_ns", "_counted_ns")

    def __init__(self, first_s: float, most_s: float):
        self.first_ns, self.most_ns = int(first_s * S), int(max(first_s, most_s) * S)
        self.losses = self.wait_ns = self.until_ns = 0
        self._counted_ns = -1

    def lost(self, sent_ns: int, now: int) -> bool:
        """No usable answer came to a POST sent at ``sent_ns``; true when that is a loss of its own and starts a pause."""
        if sent_ns <= self._counted_ns:
            return False
        self._counted_ns = now
        self.losses += 1
        self.wait_ns = min(2 * self.wait_ns or self.first_ns, self.most_ns)
        self.until_ns = now + self.wait_ns
        return True

    def answered(self, sent_ns: int) -> None:
        """The matching engine has answered a POST sent at ``sent_ns``; what was counted as lost and answers late proves nothing."""
        if sent_ns > self._counted_ns:
            self.losses = self.wait_ns = self.until_ns = 0

    def sent(self, now: int) -> None:
        """A POST has left; as a trial it is alone until its answer has come, or has had the time to."""
        if self.losses:
            self.until_ns = now + self.wait_ns

    def room(self, orders: int, now: int) -> int:
        """How many of ``orders`` may be posted now."""
        if not self.losses:
            return orders
        return min(orders, 1) if now >= self.until_ns else 0


class LossStop:
    """Open while the result (1e-6 dollars, any origin) is ``max_loss_u6``, or ``max_share`` of the bankroll of that time, or more below its best
    of the last 24 h; 0: that limit never.

    A life starts with the result it found. What the one before had lost is handed over by `state` and `carry`, so that a restart does not
    wipe the slate clean.
    """

    __slots__ = ("max_loss_u6", "max_share", "drop_u6", "bankroll_u6", "_best", "_started")

    def __init__(self, max_loss_u6: int, max_share: float = 0.0):
        self.max_loss_u6, self.max_share = max_loss_u6, max_share
        self.bankroll_u6 = 0
        self.drop_u6 = 0
        self._best: deque[list[int]] = deque()     # [time, result], falling results: the first is the best that still counts
        self._started = False

    def carry(self, points: list[list[int]], now: int) -> None:
        """Take over ``points`` ([time, how far the last result stood below that best]) of an earlier life; call before the first `update`."""
        self._best = deque([min(at, now), below] for at, below in points if at > now - DAY_NS and below > 0)

    def state(self) -> list[list[int]]:
        """What the next life needs to know: [time, dollars 1e-6 from that best down to the newest result]."""
        if not self._started:
            return [list(p) for p in self._best]
        last = self._best[-1][1]
        return [[at, best - last] for at, best in self._best if best > last]

    def update(self, result_u6: int, now: int, bankroll_u6: int = 0) -> bool:
        """The result and the bankroll (cash, and what is held, at cost) are this now; true while the loss stop is open."""
        best = self._best
        if not self._started:           # carried points are distances above the first result of this life
            self._started = True
            for point in best:
                point[1] += result_u6
        while best and best[0][0] <= now - DAY_NS:
            best.popleft()
        while best and best[-1][1] <= result_u6:
            best.pop()
        best.append([now, result_u6])
        self.drop_u6 = best[0][1] - result_u6
        self.bankroll_u6 = max(bankroll_u6, 0) + self.drop_u6
        return self.open

    @property
    def open(self) -> bool:
        """Whether nothing may be quoted."""
        return 0 < self.max_loss_u6 <= self.drop_u6 or 0 < self.max_share * self.bankroll_u6 <= self.drop_u6
