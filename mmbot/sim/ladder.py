"""A spot venue's order book around the simulated spot path, and trades at its best: what Coinbase's and Bybit's servers show.

Owns: levels, sizes and timing (GENERATED, deterministic from the seed) around the spot path (the tape's). No sockets, no clock: time is an
argument. Can go wrong: nothing; after a pause it goes on from now.
"""

import random

LEVELS = 8
CHANGES_PER_S, TRADES_PER_S = 8.0, 2.0


class Ladder:
    """Levels {price in ticks: size in 1e-8} per side (0 bids, 1 asks), moved to the spot path change by change."""

    def __init__(self, path, seed: int, start_ms: int, speed: float, basis_usd: float, ticks_per_usd: int):
        """``path``: `oracle.SpotPath`. Rates are per second of real time."""
        self._path, self._random = path, random.Random(seed)
        self._basis, self.ticks_per_usd = basis_usd, ticks_per_usd
        self._period_ms = 1000.0 * speed / CHANGES_PER_S
        self._due_ms = float(start_ms)
        self.levels: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self._move(start_ms)

    def _size(self) -> int:
        return 1_000 + int(self._random.expovariate(1 / 3e7))

    def _move(self, t_ms: float) -> list[tuple[int, int, int]]:
        """Bring the levels to the price of ``t_ms``; (side, price, new size) of each that changed."""
        bid = int((self._path.at(t_ms) + self._basis) * self.ticks_per_usd)
        wanted = (range(bid, bid - LEVELS, -1), range(bid + 1, bid + 1 + LEVELS))
        changes = []
        for side, prices in enumerate(wanted):
            book = self.levels[side]
            changes += [(side, px, 0) for px in book if px not in prices]
            changes += [(side, px, self._size()) for px in prices if px not in book]
            changes.append((side, prices[int(self._random.random() ** 2 * LEVELS)], self._size()))
        for side, px, size in changes:
            if size:
                self.levels[side][px] = size
            else:
                self.levels[side].pop(px)
        return changes

    def due(self, now_ms: int) -> list[tuple[int, list[tuple[int, int, int]], tuple[int, int, int] | None]]:
        """(time ms, level changes, trade or None) of everything due by ``now_ms``; a trade is (aggressor 0 buy or 1 sell, price, size)."""
        out = []
        if self._due_ms < now_ms - 10 * self._period_ms:
            self._due_ms = float(now_ms)
        while self._due_ms <= now_ms:
            changes = self._move(self._due_ms)
            trade = None
            if self._random.random() < TRADES_PER_S / CHANGES_PER_S:
                side = int(self._random.random() < 0.5)
                trade = side, self.best(1 - side), self._size()
            out.append((int(self._due_ms), changes, trade))
            self._due_ms += self._period_ms * (0.5 + self._random.random())
        return out

    def best(self, side: int) -> int:
        """Best price of a side, ticks."""
        return max(self.levels[0]) if side == 0 else min(self.levels[1])

    def px(self, ticks: int) -> str:
        """A price as decimal text."""
        return f"{ticks / self.ticks_per_usd:.{len(str(self.ticks_per_usd)) - 1}f}"

    @staticmethod
    def qty(size: int) -> str:
        """A size as decimal text."""
        return f"{size / 1e8:.8f}"
