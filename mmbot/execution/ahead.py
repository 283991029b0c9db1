"""What is done while nothing happens, so that the first order of a window, of a tick size or after a quiet second costs no more than any other.

Owns: `Ahead`, the part of the order manager that signs ahead and rehearses. State is the manager's.

A window that is quoted has its next orders signed: prices around its quotes, at their sizes. One that is listed and was never quoted has its templates
made (domain, addresses) and orders around the middle signed, at the sizes that were last in use, because that is where a window starts. A tick that
changes drops what was signed on the old grid. A rehearsal walks the path from a bell to the write with throw-away orders, also before the first target.
Can go wrong: nothing that matters; what is not ready is signed on the spot.
"""

from mmbot.execution.reconcile import NEVER_NS, ONE_E4, diff
from mmbot.execution.windows import Window, quotes_of
from shm_layout.records import BUY, QK_POST_ONLY

SIZES_KEPT = 8                      # sizes of desired quotes that are remembered for the next window
_MS = 1_000_000


class Ahead:
    """Signing ahead and rehearsing for `mmbot.execution.manager.OrderManager`."""

    def _idle(self, now: int) -> None:
        """Nothing to do: sign ahead, or run the send path for nothing so that it stays in the caches."""
        if now < self._rehearsal_ns:
            return
        self._rehearsal_ns = now + self._rehearse_every_ns
        wall_ms = self.wall_ns() // _MS
        if self.pool.refill(now, wall_ms, 2):
            return
        if self._dry is not None:
            self._rehearse(*self._dry, now, wall_ms)
            self.report.event("rehearsals")

    def _rehearse(self, window: Window, signed: list[tuple], now: int, wall_ms: int) -> None:
        """Walk the path from a bell to the write with throw-away orders: same code, same kinds of data, nothing sent or kept."""
        targets, tick = self.links.targets, window.limits.tick_e4
        targets.read(window.slot)
        lower = [(*q[:4], q[4] - tick, q[5]) for q in quotes_of(targets.words.tolist()) or [q for q, _, _ in signed]]
        diff(lower, window.orders.values(), self._limits(window, now), now)
        self.pool.take(0, BUY, 0, 0, now, tick)
        self.pool.misses -= 1
        if not self.gateway.can_post:       # asked as before a POST; the answer matters only then
            return
        self.journal.rehearse(self._ahead(window, signed, wall_ms))
        self.gateway.rehearse([s.body for _, s, _ in signed], [s.order_id_hex for _, s, _ in signed], wall_ms // 1000)

    def _prepare_rehearsal(self) -> None:
        """Throw-away signed orders of a window that is quoted now, or of any one."""
        if self._rehearsal_ns == NEVER_NS:
            return
        now, wall_ms = self.mono_ns(), self.wall_ns() // _MS
        for window in sorted([w for w in self.windows if w is not None], key=lambda w: not w.desired):
            if window.tradable and not window.over:
                limits, pool, out = window.limits, self.pool, []
                for token in (0, 1):
                    template = pool.template(window.tokens[token], BUY, limits.tick_e4, window.version, window.neg_risk)
                    size_u6 = max(limits.min_size_u6, 5_000_000)
                    out.append(((token, 0, BUY, QK_POST_ONLY, limits.tick_e4, size_u6), template.build(limits.tick_e4, size_u6, wall_ms, pool.salts(), now), 1))
                self._dry = window, out
                return
        self._dry = None

    def want_signed(self) -> None:
        """Tell the pool which orders are likely next. Call a few times a second."""
        for window in self.windows:
            if window is None or not window.tradable or window.over:
                continue
            if window.desired:
                window.was_wanted = True
                self._want_near(window)
            elif not window.was_wanted:
                self._want_first(window)

    def _want_near(self, window: Window) -> None:
        """Prices around the quotes of a window, at their sizes."""
        lines = {}
        for q in window.desired:
            if q[3] == QK_POST_ONLY:
                prices, sizes = lines.setdefault((q[0], q[2]), ([], {}))
                prices.append(q[4])
                sizes[q[5]] = None
                self._sizes.pop(q[5], None)
                self._sizes[q[5]] = None
        while len(self._sizes) > SIZES_KEPT:
            del self._sizes[next(iter(self._sizes))]
        for (token, side), (prices, sizes) in lines.items():
            self.pool.want(window.tokens[token], side, window.limits.tick_e4, prices, sizes, window.version, window.neg_risk)

    def _want_first(self, window: Window) -> None:
        """Bids around the middle of a window that nobody has wanted anything of yet."""
        for token in window.tokens:
            self.pool.want(token, BUY, window.limits.tick_e4, [ONE_E4 // 2], self._sizes or (window.limits.min_size_u6,), window.version, window.neg_risk)
