"""The other participants of one simulated window: the recorded best quotes, and generated orders behind them.

Owns: what the recorded market shows at each level of one condition. Written by `mmbot.sim.tape` (one instance per window); it acts on
the exchange through set_level, change_tick, close_market and resolve only, and never touches anybody else's orders.

Rules. A row of the timetable is the absolute best: first whatever of ours is better than the new best goes (as a trade or a cancel,
seeded), then both best levels are set, which also restores what others took. Behind the best stands a generated ladder; one of its
levels changes at a time, at a steady jittered rate, so the market emits as many frames as the real channel does. Changes left to do
after a move of the best (holes, far levels) come first in that flow, so the rate stays even.
Can go wrong: the caller pauses. Then the flow does not catch up (no burst) and only the newest of the missed rows is applied.
"""

from collections import deque

import numpy as np

from mmbot.sim.tapes import quotes
from shm_layout.records import BUY, SELL

DEPTH = 18                  # ladder levels per side behind the best
FAR_E4 = 2_200              # levels farther than this from the best are taken away
LATE_ROWS_MS = 5_000        # rows older than this are skipped when a newer one is due as well
CYCLE = 4096
ONE_E4 = 10_000


class Flow:
    """Random sequences of the generated ladder, drawn once and walked in a circle by every market (each from its own offset)."""

    def __init__(self, seed: int, frames_per_s: float, speed: float):
        """``frames_per_s`` per second of real time: at N times the speed a change comes N times rarer on the tape's clock."""
        rng = np.random.default_rng([seed, 0xF10])
        self.period_ms = 1000.0 * speed / frames_per_s if frames_per_s > 0 else float("inf")
        self.late_ms = 250.0 * speed
        self.gap_ms = ((0.5 + rng.random(CYCLE)) * self.period_ms).tolist() if frames_per_s > 0 else [self.period_ms] * CYCLE
        near = rng.random(CYCLE) < 0.10
        self.rank = np.where(near, rng.integers(1, 3, CYCLE), rng.integers(3, DEPTH + 1, CYCLE)).tolist()
        self.side = rng.integers(0, 2, CYCLE).tolist()
        shares = np.exp(rng.normal(np.log(280.0), 0.6, CYCLE))
        self.size_u6 = (np.rint(shares * 100).astype(np.int64) * 10_000).tolist()


class RecordedMarket:
    """Plays one window's timetable and ladder into an exchange."""

    def __init__(self, condition_id: str, rows: np.ndarray, flow: Flow, offset: int, active_ms: int):
        """``rows`` see `quotes`; the ladder moves from ``active_ms`` on (before it the first row stands still)."""
        self.condition_id = condition_id
        self.changes = 0           # levels set so far
        self._rows = rows.tolist()
        self._flow = flow
        self._at = offset % CYCLE
        self._next_row = 0
        self._due_ms = float(active_ms)
        self._levels: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self._best = [0, ONE_E4]
        self._tick = quotes.COARSE_E4
        self._todo: deque = deque()

    def row_due(self, now_ms: int) -> bool:
        """True if the next `step` will apply a row of an open book."""
        return 0 < self._next_row < len(self._rows) and self._rows[self._next_row][quotes.T] <= now_ms

    def step(self, exchange, now_ms: int) -> None:
        """Apply every row and every ladder change due by ``now_ms``."""
        rows, i = self._rows, self._next_row
        if i == 0:
            self._open(exchange, now_ms)
            i = self._next_row
        if i < len(rows) and rows[i][quotes.T] <= now_ms:
            while i + 1 < len(rows) and rows[i][quotes.T] < now_ms - LATE_ROWS_MS and rows[i + 1][quotes.T] <= now_ms:
                i += 1
            while i < len(rows) and rows[i][quotes.T] <= now_ms:
                self._apply(exchange, rows[i], now_ms)
                i += 1
            self._next_row = i
        if self._due_ms <= now_ms:
            self._behind(exchange, now_ms)

    def _open(self, exchange, now_ms: int) -> None:
        """The book as it stands when the market is listed: the newest row due (or the first one) and its whole ladder."""
        i = 0
        while i + 1 < len(self._rows) and self._rows[i + 1][quotes.T] <= now_ms:
            i += 1
        self._next_row = i + 1
        self._apply(exchange, self._rows[i], now_ms)
        while self._todo:
            self._change(exchange, now_ms)

    def _set(self, exchange, side: int, px: int, size_u6: int, now_ms: int, reason: str = "cancel") -> None:
        levels = self._levels[side]
        if size_u6:
            levels[px] = size_u6
        else:
            levels.pop(px, None)
        self.changes += 1
        exchange.set_level(self.condition_id, side, px, size_u6, now_ms, reason)

    def _apply(self, exchange, row: list, now_ms: int) -> None:
        """Make the best of both sides that of ``row``."""
        if row[quotes.TICK] < self._tick:
            self._tick = row[quotes.TICK]
            exchange.change_tick(self.condition_id, self._tick, now_ms)
        bid, ask, trade = row[quotes.BID], row[quotes.ASK], row[quotes.TRADE]
        reasons = ("trade" if trade & quotes.TRADE_BID else "cancel", "trade" if trade & quotes.TRADE_ASK else "cancel")
        moved = bid != self._best[BUY] or ask != self._best[SELL]
        if moved:
            for px in sorted([p for p in self._levels[BUY] if p > bid], reverse=True):
                self._set(exchange, BUY, px, 0, now_ms, reasons[BUY])
            for px in sorted([p for p in self._levels[SELL] if p < ask]):
                self._set(exchange, SELL, px, 0, now_ms, reasons[SELL])
        if bid:
            self._set(exchange, BUY, bid, row[quotes.BID_SIZE], now_ms, reasons[BUY])
        if ask < ONE_E4:
            self._set(exchange, SELL, ask, row[quotes.ASK_SIZE], now_ms, reasons[SELL])
        if moved:
            self._best = [bid, ask]
            self._plan()

    def _plan(self) -> None:
        """What the ladder has to do after a move: fill holes nearest first, then take away what is too far."""
        todo = self._todo
        todo.clear()
        bid, ask = self._best
        bids, asks = self._levels
        for rank in range(1, DEPTH + 1):
            step = rank * self._tick
            if bid - step > 0 and bid - step not in bids:
                todo.append((BUY, bid - step, True))
            if ask + step < ONE_E4 and ask + step not in asks:
                todo.append((SELL, ask + step, True))
        todo.extend((BUY, px, False) for px in bids if px < bid - FAR_E4)
        todo.extend((SELL, px, False) for px in asks if px > ask + FAR_E4)

    def _behind(self, exchange, now_ms: int) -> None:
        """Ladder changes due by ``now_ms``, one exchange call each."""
        flow = self._flow
        if self._due_ms < now_ms - flow.late_ms:
            self._due_ms = float(now_ms)
        while self._due_ms <= now_ms:
            self._change(exchange, now_ms)
            self._due_ms += flow.gap_ms[self._at]

    def _change(self, exchange, now_ms: int) -> None:
        """One change behind the best: the next planned one, else a random level gets another size."""
        flow = self._flow
        self._at = i = (self._at + 1) % CYCLE
        size = flow.size_u6[i]
        if self._todo:
            side, px, fill = self._todo.popleft()
            self._set(exchange, side, px, size if fill else 0, now_ms)
            return
        bid, ask = self._best
        side, step = flow.side[i], flow.rank[i] * self._tick
        for _ in range(2):
            px = bid - step if side == BUY else ask + step
            if 0 < px < ONE_E4 and 0 < self._best[side] < ONE_E4:
                if self._levels[side].get(px) == size:
                    size += 10_000
                self._set(exchange, side, px, size, now_ms)
                return
            side = 1 - side
