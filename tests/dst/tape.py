"""The market of a simulated run: sparse books around a random spot, takers that hit us, and the reference feeds; all from one seed.

Owns: the spot path, the windows and their outcomes, and what the recorded participant does. Driven like `mmbot.sim.tape.Tape`, with one more
question, `next_ms`: when something is due, so that nobody polls. Sparse: a book change every second or two, more around jumps.
Fills: noise takers hit the best quotes, and some moves of the fair value run over the quotes that are slow (adverse fills).
"""

import hashlib
import heapq
import math
import random

import numpy as np

from mmbot.sim import oracle, spot
from mmbot.sim.engine import MarketSpec
from shm_layout.records import BUY, SELL, market_id

ONE_E4, TICK_E4 = 10_000, 100
DURATION_S = 900
SIGMA = 7e-5                     # ln price per sqrt(s)
JUMP_EVERY_S, JUMP = 150.0, 4e-4
DEPTH = 3
RESOLVE_AFTER_MS = 20_000
CHANGE_S, TAKE_S, STIR_S = 10.0, 8.0, (0.8, 1.6)   # mean time between moves and between noise takers; bounds between changes behind the best
RUN_OVER = 0.2                    # share of the moves that take what stands in their way at once
KEEP_MS = 400_000


class SparseTape:
    """See the module's first lines. ``start_s``: wall seconds at which the run begins; ``version``: the protocol of its windows."""
    label, probes, end_wall_ns, duration_s, origin, name = "dst", 0, None, DURATION_S, {}, "dst"

    def __init__(self, seed: int, start_s: int, version: str = "v1", binance_per_s: float = 1.0):
        self.rng = random.Random(f"tape {seed}")
        self.np_rng = np.random.default_rng([seed, 0xD57])
        self.seed, self.start_ms, self.version = seed, start_s * 1000, version
        self.start_wall_ns = start_s * 1_000_000_000
        self.path = oracle.SpotPath(self.start_ms - 200_000)
        self._level = math.log(84_000.0)
        self.prints = oracle.DerivedPrints(self.path, seed)
        self._references = oracle.References(self.prints, self.path, self.start_ms)
        self._binance = spot.Binance(self.path, seed, self.start_ms, spot.QUOTES_PER_S / binance_per_s)
        self._specs: dict[int, MarketSpec] = {}
        self._verdicts: dict[str, tuple] = {}
        self._due: list[tuple] = []          # (ms, count, what, start_s)
        self._count = 0
        self._shown: dict[int, list[dict[int, int]]] = {}
        self._listing: tuple[int, list] = (-1, [])
        self._last = 0
        self._jumps: list[int] = []
        self._extend(self.start_ms + 60_000)

    # -- the spot --

    def _extend(self, until_ms: int) -> None:
        while self.path.end_ms < until_ms:
            n = 600
            steps = self.np_rng.normal(0.0, SIGMA * math.sqrt(oracle.GRID_MS / 1000), n)
            for i in np.nonzero(self.np_rng.random(n) < oracle.GRID_MS / 1000 / JUMP_EVERY_S)[0]:
                steps[i] += self.np_rng.choice([-1, 1]) * JUMP * self.np_rng.exponential(1.0)
                heapq.heappush(self._jumps, self.path.end_ms + int(i) * oracle.GRID_MS)
            levels = self._level + np.cumsum(steps) - 0.02 * np.cumsum(np.full(n, oracle.GRID_MS / 1e6)) * (self._level - math.log(84_000.0))
            self._level = float(levels[-1])
            self.path.extend(np.exp(levels))

    def fair_up(self, start_s: int, now_ms: int) -> float:
        """What the others believe: P(Up) of the window that starts at ``start_s``."""
        if now_ms < start_s * 1000:
            return 0.5
        strike = self.path.at(start_s * 1000)
        left_s = float(oracle.horizon_s(start_s + DURATION_S - now_ms / 1000))
        return oracle.phi(math.log(self.path.at(now_ms) / strike) / (SIGMA * 1.25 * math.sqrt(left_s)))

    # -- what the exchange asks --

    def markets(self, now_s: float) -> list[MarketSpec]:
        """The current window, the one before it and two after it."""
        index = int(now_s) // DURATION_S
        if index != self._listing[0]:
            self._listing = (index, [self._spec(i * DURATION_S) for i in range(index - 1, index + 3)])
        return self._listing[1]

    def _spec(self, start_s: int) -> MarketSpec:
        if start_s not in self._specs:
            token = lambda i: str(int.from_bytes(hashlib.sha256(f"{self.seed} {start_s} {i}".encode()).digest()) >> 2)
            self._specs[start_s] = MarketSpec(
                market_id=market_id(start_s, DURATION_S), start_s=start_s, end_s=start_s + DURATION_S, duration_s=DURATION_S,
                condition_id="0x" + hashlib.sha256(f"c {self.seed} {start_s}".encode()).hexdigest(), token_up=token(0), token_down=token(1),
                slug=f"btc-updown-15m-{start_s}", gamma_id=str(start_s), label="dst",
                version=self.version)
        return self._specs[start_s]

    def _push(self, ms: float, what: str, start_s: int) -> None:
        self._count += 1
        heapq.heappush(self._due, (int(ms), self._count, what, start_s))

    def next_ms(self) -> int:
        """When the next thing of the tape is due."""
        return min(self._due[0][0] if self._due else 1 << 60, int(self._binance._due_ms) + 1, self._next_print_ms())

    def _next_print_ms(self) -> int:
        heap = self._references._heap
        return min(heap[0][0] if heap else 1 << 60, self._references._next_s * 1000)

    def step(self, exchange, now_ms: int) -> int:
        """Everything due by ``now_ms``."""
        self._extend(now_ms + 60_000)
        for spec in self._listing[1]:
            if spec.start_s not in self._shown and exchange.market(spec.condition_id) is not None and spec.end_s * 1000 > now_ms:
                self._shown[spec.start_s] = [{}, {}]
                self._quote(exchange, spec.start_s, now_ms)
                self._push(now_ms + 500, "change", spec.start_s)
                self._push(now_ms + 900, "stir", spec.start_s)
                self._push(now_ms + 9000, "take", spec.start_s)
                self._push(spec.end_s * 1000, "close", spec.start_s)
        while self._jumps and self._jumps[0] <= now_ms:
            heapq.heappop(self._jumps)
            current = now_ms // 1000 // DURATION_S * DURATION_S
            for i in range(4):
                self._push(now_ms + 80 + i * 200, "burst", current)
        steps = 0
        while self._due and self._due[0][0] <= now_ms:
            due, _, what, start_s = heapq.heappop(self._due)
            getattr(self, f"_on_{what}")(exchange, start_s, now_ms)
            steps += 1
        return steps

    def _alive(self, exchange, start_s: int, now_ms: int) -> bool:
        market = exchange.market(self._spec(start_s).condition_id)
        return market is not None and market.accepting and now_ms < (start_s + DURATION_S) * 1000

    def _on_change(self, exchange, start_s: int, now_ms: int) -> None:
        if self._alive(exchange, start_s, now_ms):
            self._quote(exchange, start_s, now_ms)
            running = start_s * 1000 <= now_ms
            self._push(now_ms + self.rng.expovariate(1.0) * CHANGE_S * 1000 * (1 if running else 3) + 20, "change", start_s)

    def _on_stir(self, exchange, start_s: int, now_ms: int) -> None:
        """A level behind the best changes: a sign of life."""
        if self._alive(exchange, start_s, now_ms):
            shown, side = self._shown[start_s], self.rng.randrange(2)
            behind = sorted(shown[side])[:-1] if side == BUY else sorted(shown[side])[1:]
            if behind:
                px, size_u6 = self.rng.choice(behind), self.rng.randrange(20, 400) * 1_000_000
                self._set(exchange, self._spec(start_s).condition_id, shown, side, px, size_u6, now_ms)
            far = start_s * 1000 > now_ms + 90_000
            self._push(now_ms + self.rng.uniform(*STIR_S) * (20_000 if far else 1000), "stir", start_s)

    def _on_burst(self, exchange, start_s: int, now_ms: int) -> None:
        if self._alive(exchange, start_s, now_ms):
            self._quote(exchange, start_s, now_ms)

    def _on_take(self, exchange, start_s: int, now_ms: int) -> None:
        """A noise taker: up to 60 shares at the best or one tick behind it."""
        if not self._alive(exchange, start_s, now_ms):
            return
        spec, rng = self._spec(start_s), self.rng
        bid, ask = exchange.market(spec.condition_id).best()
        side, size_u6 = rng.randrange(2), rng.choice([1, 3, 5, 10, 20, 60]) * 1_000_000 + rng.randrange(100) * 10_000
        px = (ask if side == BUY else bid)
        if px:
            px += (TICK_E4 if side == BUY else -TICK_E4) * rng.randrange(2)
            exchange.take(spec.condition_id, side, min(max(px, TICK_E4), ONE_E4 - TICK_E4), size_u6, now_ms)
        running = start_s * 1000 <= now_ms
        self._push(now_ms + rng.expovariate(1.0) * TAKE_S * 1000 * (1 if running else 6) + 50, "take", start_s)

    def _quote(self, exchange, start_s: int, now_ms: int) -> None:
        """Move the recorded quotes to the fair value; whatever of ours is crossed on the way is taken."""
        cid, rng, shown = self._spec(start_s).condition_id, self.rng, self._shown[start_s]
        fair = self.fair_up(start_s, now_ms) * ONE_E4 + rng.gauss(0, 40)
        half = rng.choice([100, 150, 150, 200, 250])
        bid = min(max(int((fair - half) // TICK_E4) * TICK_E4, TICK_E4), ONE_E4 - 3 * TICK_E4)
        ask = max(min(-int(-(fair + half) // TICK_E4) * TICK_E4, ONE_E4 - TICK_E4), bid + TICK_E4)
        bid, ask = self._patient(exchange.market(cid), start_s, bid, ask, now_ms)
        for side, best, step in ((BUY, bid, -TICK_E4), (SELL, ask, TICK_E4)):
            for px in [p for p in shown[side] if (p > best if side == BUY else p < best)]:
                self._set(exchange, cid, shown, side, px, 0, now_ms, "trade" if rng.random() < 0.3 else "cancel")
        for side, best, step in ((BUY, bid, -TICK_E4), (SELL, ask, TICK_E4)):
            wanted = [best + i * step for i in range(DEPTH) if TICK_E4 <= best + i * step <= ONE_E4 - TICK_E4]
            for px in [p for p in shown[side] if p not in wanted]:
                self._set(exchange, cid, shown, side, px, 0, now_ms)
            for px in wanted:
                if px not in shown[side] or (px == best and rng.random() < 0.3):
                    self._set(exchange, cid, shown, side, px, rng.randrange(20, 400) * 1_000_000, now_ms)

    def _patient(self, market, start_s: int, bid: int, ask: int, now_ms: int) -> tuple[int, int]:
        """Mostly the others do not run over a quote that is in their way: they stop before it and come again a moment later."""
        others_bid, others_ask = market.best()
        if self.rng.random() < RUN_OVER:
            return bid, ask
        stopped_bid = min(bid, others_ask - TICK_E4) if others_ask else bid
        stopped_ask = max(ask, others_bid + TICK_E4) if others_bid else ask
        if (stopped_bid, stopped_ask) != (bid, ask):
            self._push(now_ms + 500, "burst", start_s)
        return max(stopped_bid, TICK_E4), min(max(stopped_ask, stopped_bid + TICK_E4), ONE_E4 - TICK_E4)

    @staticmethod
    def _set(exchange, cid: str, shown: list, side: int, px: int, size_u6: int, now_ms: int, reason: str = "cancel") -> None:
        if size_u6:
            shown[side][px] = size_u6
        else:
            shown[side].pop(px, None)
        exchange.set_level(cid, side, px, size_u6, now_ms, reason)

    def _on_close(self, exchange, start_s: int, now_ms: int) -> None:
        exchange.close_market(self._spec(start_s).condition_id, now_ms)
        self._shown.pop(start_s, None)
        self._push((start_s + DURATION_S) * 1000 + RESOLVE_AFTER_MS, "resolve", start_s)

    def _on_resolve(self, exchange, start_s: int, now_ms: int) -> None:
        spec = self._spec(start_s)
        strike, final = (oracle.first_at_or_after(self.prints, t) for t in (start_s, start_s + DURATION_S))
        outcome = 0 if strike is None or final is None or final >= strike else 1
        self._verdicts[spec.condition_id] = (outcome, *(None if v is None else oracle.decimal(v) for v in (strike, final)))
        if exchange.market(spec.condition_id) is not None:
            exchange.resolve(spec.condition_id, outcome, now_ms)
        self.path.trim(now_ms - 2 * DURATION_S * 1000 - KEEP_MS)

    def resolution(self, spec: MarketSpec):
        """(outcome, price to beat, final price) once resolved, else None."""
        return self._verdicts.get(spec.condition_id)

    def rtds(self, now_ms: int) -> list[bytes]:
        """RTDS frames that are due."""
        return self._references.frames(now_ms)

    def binance(self, now_ms: int) -> list[tuple[str, bytes]]:
        """Binance frames that are due."""
        return self._binance.frames(now_ms)
