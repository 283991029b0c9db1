"""Reference prices of the simulated market: spot, Chainlink prints, TWAP-60, and the RTDS frames that carry them.

Owns: the spot path, the exact E18 prints, their delays. Written by the tape that owns it, read by the exchange's RTDS server, by
the tape's settlement and by the Binance feed. Nothing here reads a clock or a socket: times are arguments.

Rule of settlement: Up if TWAP60(end) >= TWAP60(start), a tie is Up, compared as integers of 1e-18 dollars. TWAP60(T) is the mean of
the spot prints stamped T-62 .. T-3 (a published fit of the real stream; the real weights are not published), rounded down.

Where a tape has no spot, spot is DERIVED from the recorded token price q: the price of "end >= start" under a driftless
lognormal spot is q = Phi(ln(S/S0) / (sigma * sqrt(tau'))), so S = S0 * exp(PhiInv(q) * sigma * sqrt(tau')), where tau' = tau - 40 s
is the time left after the averaging at the end (the mean of the last 60 s has the variance of tau - 60 + 60/3).
Can go wrong: a token price near 0 or 1 says only "at least this far", so there the path is a walk that respects the bound.
"""

import heapq
import math
from array import array
from statistics import NormalDist

import msgspec
import numpy as np

GRID_MS = 100
E18 = 10**18
SIGMA = 8e-5                    # ln price per sqrt(s): between the 1 s and the 60 s estimate of a recorded Chainlink day
TWAP_FROM_S, TWAP_TO_S = 62, 3  # TWAP60(T) averages the prints T-62 .. T-3
Q_MIN = 0.002
CENSORED = 0.02                 # a token price below this (or above 1 - this) is a bound, not a price
LEAD_MS = 300                   # spot moves this long before the token's book does
PULL_SHORT, PULL_BEYOND = 0.1, 0.002   # per grid step: how fast a censored path goes to its bound, and drifts back to it
REJOIN_S = 5.0                  # how fast it comes back when the token price says something again
RESIDUAL_S = 15.0               # how fast the gap between the two windows' derivations closes after a roll
MISSING_SHARE = 0.02            # of the relayed seconds, never at a window boundary

# observation -> server stamp: cumulative share, ms (quantiles of 78,515 recorded prints, bounded)
DELAY_SHARE = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
DELAY_MS = (750, 950, 1170, 1350, 1550, 1920, 2210, 2300)
CYCLE = 4096                    # length of the precomputed random sequences

_NORMAL = NormalDist()


def phi(x: float) -> float:
    """Standard normal distribution function."""
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


def phi_inv(q: np.ndarray) -> np.ndarray:
    """Inverse of `phi` of an array of probabilities in (0, 1)."""
    values, where = np.unique(q, return_inverse=True)
    return np.array([_NORMAL.inv_cdf(float(v)) for v in values])[where]


def horizon_s(tau_s):
    """Effective time left, s, for the mean of the last 60 s, ``tau_s`` seconds before the end; at least 30 s. Array or number."""
    return np.maximum(tau_s - 40.0, 30.0)


def decimal(value_e18: int) -> str:
    """An E18 integer as an exact decimal string of dollars, without trailing zeros."""
    text = f"{value_e18 // E18}.{value_e18 % E18:018d}".rstrip("0")
    return text + "0" if text.endswith(".") else text


def outcome_of(strike_e18: int, final_e18: int) -> str:
    """"Up" if final >= strike (a tie is Up), else "Down"; exact integers."""
    return "Up" if final_e18 >= strike_e18 else "Down"


class SpotPath:
    """Spot price on a 100 ms grid, growing at the end and trimmed at the start; between grid points linear."""

    def __init__(self, t0_ms: int):
        self.t0_ms = t0_ms
        self._px = array("d")

    @property
    def end_ms(self) -> int:
        """Wall ms of the grid point after the last one."""
        return self.t0_ms + len(self._px) * GRID_MS

    @property
    def last(self) -> float:
        """Last price on the grid."""
        return self._px[-1]

    def extend(self, prices: np.ndarray) -> None:
        """Append grid points (float64 dollars)."""
        self._px.frombytes(np.ascontiguousarray(prices, np.float64).tobytes())

    def at(self, t_ms: float) -> float:
        """Price at ``t_ms``; the nearest end of the path outside it."""
        x = (t_ms - self.t0_ms) / GRID_MS
        i = int(x)
        if x <= 0:
            return self._px[0]
        if i >= len(self._px) - 1:
            return self._px[-1]
        a = self._px[i]
        return a + (self._px[i + 1] - a) * (x - i)

    def window(self, from_ms: int, to_ms: int) -> np.ndarray:
        """Grid points in [from_ms, to_ms) as a copy."""
        i, j = ((t - self.t0_ms) // GRID_MS for t in (from_ms, to_ms))
        return np.array(self._px[max(i, 0):j])

    def trim(self, before_ms: int) -> None:
        """Forget what is older than ``before_ms``."""
        n = (before_ms - self.t0_ms) // GRID_MS
        if n > 0:
            del self._px[:n]
            self.t0_ms += n * GRID_MS


def derive_x(t_ms: np.ndarray, mid: np.ndarray, start_ms: int, end_ms: int, until_ms: int, rng) -> np.ndarray:
    """ln(S/S0) on the grid from ``start_ms`` up to ``until_ms``, from token mids ``mid`` in [0, 1] valid from stamps ``t_ms`` on.

    Smoothed over about a second and ahead of the book by LEAD_MS. While the token price is below CENSORED or above 1 - CENSORED
    the path is a walk kept beyond the bound the price implies.
    """
    grid = np.arange(start_ms, until_ms, GRID_MS)
    q = mid[np.clip(np.searchsorted(t_ms, grid + LEAD_MS, "right") - 1, 0, len(mid) - 1)]
    scale = SIGMA * np.sqrt(horizon_s((end_ms - grid) / 1000))
    x = phi_inv(np.clip(q, Q_MIN, 1 - Q_MIN)) * scale
    kernel = np.exp(-0.5 * (np.arange(-20, 21) / 7.0) ** 2)
    x = np.convolve(np.pad(x, 20, mode="edge"), kernel / kernel.sum(), mode="valid")
    bound = np.sign(q - 0.5) * abs(_NORMAL.inv_cdf(CENSORED)) * scale
    censored = ((q < CENSORED) | (q > 1 - CENSORED)).tolist()
    if not any(censored):
        return x
    return _walk_beyond(x.tolist(), bound.tolist(), censored, rng)


def _walk_beyond(x: list, bound: list, censored: list, rng) -> np.ndarray:
    """Replace the censored points by a walk beyond their bound; leave and enter it without a jump."""
    step = rng.normal(0.0, SIGMA * math.sqrt(GRID_MS / 1000), len(x)).tolist()
    decay = math.exp(-GRID_MS / 1000 / REJOIN_S)
    last, carry = x[0], 0.0
    for i, hidden in enumerate(censored):
        if not hidden:
            carry *= decay
            last = x[i] + carry
        else:
            short = (bound[i] - last) * (1 if bound[i] > 0 else -1) > 0
            pull = PULL_SHORT if short else PULL_BEYOND
            last += pull * (bound[i] - last) + step[i]
            carry = last - x[i]
        x[i] = last
    return np.array(x)


def ripple(n: int, rng) -> np.ndarray:
    """Small mean-reverting noise of ln price (0.15 bp, 2 s), ``n`` grid points, starting and ending near 0."""
    noise = rng.normal(0.0, 1.0, n + 60)
    kernel = np.exp(-np.arange(60) / 20.0)
    out = np.convolve(noise, kernel / np.sqrt((kernel**2).sum()), mode="valid")[:n] * 1.5e-5
    ramp = np.minimum(1.0, np.minimum(np.arange(n), np.arange(n)[::-1]) / 20.0)
    return out * ramp


def fair_up(spot: np.ndarray, strike: float, start_tau_s: float, sigma: float = SIGMA) -> np.ndarray:
    """Probability of Up along a grid path: P(mean of spot over end-62..end-3 s >= strike), given the path so far.

    ``spot``: grid prices from ``start_tau_s`` seconds before the end on. Before the averaging starts only the spot matters; inside
    it the mean is part known, part forecast (flat), with the variance of the mean of a walk over what is left.
    """
    tau = start_tau_s - np.arange(len(spot)) * GRID_MS / 1000
    span = TWAP_FROM_S - TWAP_TO_S + 1.0
    left = np.clip(tau - TWAP_TO_S, 0.0, span)
    inside = left < span
    weight = np.where(inside, 1.0, 0.0)
    known = np.cumsum(spot * weight) / np.maximum(np.cumsum(weight), 1.0)
    mean = np.where(inside, known * (span - left) / span + spot * left / span, spot)
    var = np.where(inside, left**3 / (3 * span**2), np.maximum(tau - TWAP_FROM_S, 0) + span / 3)
    z = np.log(mean / strike) / (sigma * np.sqrt(np.maximum(var, 1e-3)))
    return np.array([phi(v) for v in z.tolist()])


class DerivedPrints:
    """Chainlink prints of a derived spot path: one per whole second, exact E18 integers, relayed with recorded-like delays."""

    def __init__(self, path: SpotPath, seed: int):
        self.path = path
        self._spot: dict[int, int] = {}
        rng = np.random.default_rng([seed, 0x0AC1E])
        draw = rng.random((2, CYCLE))
        delay = np.interp(draw, DELAY_SHARE, DELAY_MS)
        self._delay = delay.astype(int).tolist()
        self._hop = rng.integers(200, 350, CYCLE).tolist()
        self._missing = (rng.random(CYCLE) < MISSING_SHARE).tolist()

    def spot_e18(self, t_s: int) -> int | None:
        """Spot print stamped ``t_s``, or None outside the path built so far."""
        value = self._spot.get(t_s)
        if value is None:
            if not self.path.t0_ms <= t_s * 1000 < self.path.end_ms:
                return None
            value = self._spot[t_s] = round(self.path.at(t_s * 1000) * 1e10) * 10**8
            if len(self._spot) > 4 * CYCLE:
                for old in sorted(self._spot)[:2 * CYCLE]:
                    del self._spot[old]
        return value

    def twap_e18(self, t_s: int) -> int | None:
        """TWAP-60 print stamped ``t_s``, or None if a spot print it needs is not there."""
        total = 0
        for s in range(t_s - TWAP_FROM_S, t_s - TWAP_TO_S + 1):
            value = self.spot_e18(s)
            if value is None:
                return None
            total += value
        return total // (TWAP_FROM_S - TWAP_TO_S + 1)

    def relay(self, t_s: int, twap: bool) -> tuple[int, int] | None:
        """(server stamp ms, arrival ms) of the print of second ``t_s``, or None if the relay lost it."""
        i = t_s % CYCLE
        if self._missing[i] and 3 < t_s % 300 < 297:
            return None
        server = t_s * 1000 + self._delay[twap][i]
        return server, server + self._hop[i]


class RecordedPrints:
    """Recorded Chainlink prints with their recorded stamps; TWAP-60 is derived from those present."""

    MIN_PRINTS = 30

    def __init__(self, values_e18: dict[int, int], stamps_ms: dict[int, tuple[int, int]]):
        self._spot = values_e18
        self._stamps = stamps_ms

    def spot_e18(self, t_s: int) -> int | None:
        """Recorded spot print stamped ``t_s``, or None if it was not recorded."""
        return self._spot.get(t_s)

    def twap_e18(self, t_s: int) -> int | None:
        """Mean of the recorded prints T-62 .. T-3, or None if fewer than half of them exist."""
        seen = [v for s in range(t_s - TWAP_FROM_S, t_s - TWAP_TO_S + 1) if (v := self._spot.get(s)) is not None]
        return sum(seen) // len(seen) if len(seen) >= self.MIN_PRINTS else None

    def relay(self, t_s: int, twap: bool) -> tuple[int, int] | None:
        """Recorded (server stamp ms, arrival ms); a TWAP print travels with the spot print of its second."""
        return self._stamps.get(t_s)


def first_at_or_after(prints, t_s: int, limit_s: int = 60) -> int | None:
    """TWAP-60 print stamped ``t_s``, else the first one after it within ``limit_s``: what settles a window."""
    for s in range(t_s, t_s + limit_s):
        if (prints.relay(s, True) is not None) and (value := prints.twap_e18(s)) is not None:
            return value
    return None


class References:
    """RTDS frames in order of arrival: topics crypto_prices_chainlink, crypto_prices_twap_sixty, crypto_prices (Binance relay)."""

    RELAY_MS = 420
    LATE_S = 30        # after a longer pause (or a restart) the seconds in between are not sent

    def __init__(self, prints, path: SpotPath, start_ms: int):
        self.prints = prints
        self._path = path
        self._next_s = start_ms // 1000 - 3
        self._start_ms = start_ms
        self._heap: list = []
        self._last = [0, 0, 0]

    def frames(self, now_ms: int) -> list[bytes]:
        """Frames that have arrived by ``now_ms`` and were not returned before."""
        if self._next_s < now_ms // 1000 - self.LATE_S:
            self._next_s = now_ms // 1000 - 3
            self._heap.clear()
        while self._next_s * 1000 <= now_ms:
            self._schedule(self._next_s)
            self._next_s += 1
        out = []
        while self._heap and self._heap[0][0] <= now_ms:
            due, topic, t_s, server = heapq.heappop(self._heap)
            frame = self._frame(topic, t_s, server)
            if frame is not None and due >= self._start_ms:
                out.append(frame)
        return out

    def _schedule(self, t_s: int) -> None:
        stamps = [self.prints.relay(t_s, False), self.prints.relay(t_s, True),
                  (t_s * 1000 + self.RELAY_MS, t_s * 1000 + self.RELAY_MS + 250)]
        for topic, stamp in enumerate(stamps):
            if stamp is not None:  # one topic never overtakes itself
                self._last[topic] = due = max(stamp[1], self._last[topic] + 1)
                heapq.heappush(self._heap, (due, topic, t_s, stamp[0]))

    def _frame(self, topic: int, t_s: int, server_ms: int) -> bytes | None:
        if topic == 2:
            px = round(self._path.at(t_s * 1000), 2)
            payload = {"full_accuracy_value": f"{px:.8f}", "symbol": "btcusdt", "timestamp": t_s * 1000, "value": px}
        else:
            value = self.prints.twap_e18(t_s) if topic else self.prints.spot_e18(t_s)
            if value is None:
                return None
            payload = {"full_accuracy_value": str(value), "symbol": "btc/usd", "timestamp": t_s * 1000, "value": value / E18}
            if topic:
                payload["window_s"] = 60
        name = ("crypto_prices_chainlink", "crypto_prices_twap_sixty", "crypto_prices")[topic]
        return msgspec.json.encode({"payload": payload, "timestamp": server_ms, "topic": name, "type": "update"})
