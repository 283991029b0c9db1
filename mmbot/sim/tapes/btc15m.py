"""Tape "btc15m" (bundled): five recorded BTC 15 minute windows of 1 April 2026, replayed window after window without end.

Owns: the recorded rows (``btc15m.npz``), the schedule of run-windows, their token ids, the derived spot path and settlement.
Read by `mmbot.sim.tape`. Run-window 0 is the first window recorded from its start (1775028600), run-window -1 the one before it (its
last part is recorded). After the five in their order (run-windows -1 to 3) the three good recordings repeat, moved by multiples of
900 s, with generated ids, and with Up and Down exchanged in every other round, so that a long run has no drift.

What is what: best quotes RECORDED where the recording has rows; a BRIDGE (tick walk, thin two-sided book around 0.50) before them;
quotes around the MODEL price of a random spot path after them, so a window always converges; depth GENERATED; spot, TWAP-60 and
outcome DERIVED. Can go wrong: the file is missing, truncated or of another format (UserError).
"""

import hashlib
import zipfile
from pathlib import Path

import numpy as np

from mmbot.errors import UserError
from mmbot.sim import oracle
from mmbot.sim.engine import MarketSpec
from mmbot.sim.tapes import quotes
from mmbot.sim.tapes.convert import FORMAT
from mmbot.sim.tapes.window import Window, slug_of
from shm_layout.records import DOWN, UP, market_id

FILE = Path(__file__).with_name("btc15m.npz")
DURATION_S = 900
ORIGIN = {
    "best quotes": "recorded (polymarket-backtest 0.1.0, MIT), generated where the recording has gaps",
    "market ids": "recorded for the first pass, generated after it",
    "depth behind the best": "generated", "trades": "generated attribution of recorded falls of the best size",
    "spot, Chainlink, Binance": "derived from the recorded token price", "TWAP-60, outcome": "derived",
}
SPOT_START = 68_000.0      # dollars; the recording has no spot, so the level is a round number
HISTORY_S = 90             # flat spot before the first window, so that its starting TWAP exists
QUOTE_GAP_MS = 330.0       # one change of the best per this long, as recorded
BEFORE_GAP_MS = 1_000.0    # the same before the window starts
GOOD = (1, 2, 3)           # recordings worth repeating: they cover 614, 900 and 892 of their 900 s
FIRST_REPEAT = 4           # the first run-window that repeats one
TAIL_S = 5                 # a recording that ends this long before the window does gets a generated end


def load(path: Path = FILE) -> dict[str, np.ndarray]:
    """Arrays of the bundled file. Errors: UserError naming the file and the fix."""
    fix = "reinstall mmbot (the file is part of the package) or rebuild it with `python -m mmbot.sim.tapes.convert`"
    try:
        with np.load(path) as file:
            data = {name: file[name] for name in ("format", "start_s", "tokens", "offset", "rows")}
    except FileNotFoundError:
        raise UserError(f"tape file {path} is missing: {fix}") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zipfile.error) as e:
        raise UserError(f"tape file {path} cannot be read ({e}): {fix}") from None
    if int(data["format"]) != FORMAT or data["offset"][-1] != len(data["rows"]):
        raise UserError(f"tape file {path} has format {int(data['format'])} or length {len(data['rows'])} that this build does not know: {fix}")
    return data


def generated_id(*parts) -> int:
    """A deterministic 256-bit id that cannot be taken for a V2 position id (whose bits 40..103 are all zero)."""
    text = ":".join(str(p) for p in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big") | 1 << 64 | 1 << 254


class Source:
    """Schedule and content of the tape; see `mmbot.sim.tape.Tape` for how it is used."""

    duration_s = DURATION_S
    origin = ORIGIN
    label = "recorded best quotes of 2026-04-01, generated depth, derived spot and TWAP"
    last_index = None

    def __init__(self, settings):
        """``settings``: the [sim] section. Errors: UserError."""
        data = load()
        self.seed = settings.seed
        self._starts = data["start_s"].tolist()
        self._tokens = data["tokens"].tolist()
        self._rows = [data["rows"][a:b] for a, b in zip(data["offset"][:-1], data["offset"][1:])]
        self.first_s = self._starts[1]
        self.start_wall_ms = int((self.first_s - settings.start_before_roll_s) * 1000)
        self.first_index = -1
        begin_ms = (self.start_of(-1) - HISTORY_S) * 1000
        self.path = oracle.SpotPath(begin_ms)
        self.path.extend(np.full(HISTORY_S * 1000 // oracle.GRID_MS, SPOT_START))
        self.prints = oracle.DerivedPrints(self.path, self.seed)

    def start_of(self, index: int) -> int:
        """Start second of a run-window."""
        return self.first_s + index * DURATION_S

    def recording(self, index: int) -> int:
        """Which recorded window run-window ``index`` replays: all in their order once, then the good ones round and round."""
        return index + 1 if index < FIRST_REPEAT else GOOD[(index - FIRST_REPEAT) % len(GOOD)]

    def swapped(self, index: int) -> bool:
        """Whether run-window ``index`` replays its recording with Up and Down exchanged (first round: yes)."""
        return index >= FIRST_REPEAT and (index - FIRST_REPEAT) // len(GOOD) % 2 == 0

    def build(self, index: int) -> Window:
        """Run-window ``index``; must be called for consecutive indices, because its strike is the end of the one before."""
        start_s, which = self.start_of(index), self.recording(index)
        start_ms, end_ms = start_s * 1000, (start_s + DURATION_S) * 1000
        rng = np.random.default_rng([self.seed, 15, index + 1_000])
        known = quotes.recorded(self._rows[which], start_ms, self._starts[which] * 1000, self.swapped(index))
        known = known[known[:, quotes.T] < end_ms]
        before = self._before(known, start_ms, rng)
        strike_e18 = self.prints.twap_e18(start_s)
        rows = quotes.join([before, known], start_ms, rng)
        until_ms = end_ms
        if known[-1, quotes.T] < end_ms - TAIL_S * 1000:
            until_ms = int(known[-1, quotes.T] // oracle.GRID_MS + 1) * oracle.GRID_MS
        calm = self._spot(rows, start_ms, end_ms, until_ms, strike_e18 / oracle.E18, rng)
        self.path.extend(calm * np.exp(oracle.ripple(len(calm), rng)))
        if until_ms < end_ms:
            rows = quotes.join([rows, self._tail(calm, known[-1], until_ms, start_ms, end_ms, strike_e18 / oracle.E18, rng)], start_ms, rng)
        final_e18 = self.prints.twap_e18(start_s + DURATION_S)
        outcome = UP if oracle.outcome_of(strike_e18, final_e18) == "Up" else DOWN
        return Window(self._spec(index, which), rows, outcome, strike_e18, final_e18, end_ms + int(rng.integers(20_000, 60_000)))

    def _before(self, known: np.ndarray, start_ms: int, rng) -> np.ndarray:
        """Generated quotes from a window before the start up to the first recorded row."""
        first_ms, first_bid = int(known[0, quotes.T]), int(known[0, quotes.BID])
        hinge = min(start_ms, first_ms - 60_000)
        points = np.array([hinge, first_ms])
        target = np.array([4_900, first_bid])
        split = min(start_ms, first_ms)
        early = quotes.bridge(start_ms - DURATION_S * 1000, split, BEFORE_GAP_MS, target, points, rng, thin=0.3)
        late = quotes.bridge(split, first_ms, QUOTE_GAP_MS, target, points, rng) if first_ms > split else quotes.table(0)
        return np.concatenate([early, late])

    def _spot(self, rows, start_ms: int, end_ms: int, until_ms: int, strike: float, rng) -> np.ndarray:
        """Spot on the grid over the window, without ripple: derived from the quotes up to ``until_ms``, then a walk; continuous at the start."""
        x = oracle.derive_x(rows[:, quotes.T], quotes.mids(rows), start_ms, end_ms, until_ms, rng)
        n_tail = (end_ms - until_ms) // oracle.GRID_MS
        step = oracle.SIGMA * np.sqrt(oracle.GRID_MS / 1000)
        x = np.concatenate([x, x[-1] + np.cumsum(rng.normal(0.0, step, n_tail))])
        gap = np.log(self.path.last / strike) - x[0]
        x = x + gap * np.exp(-np.arange(len(x)) * oracle.GRID_MS / 1000 / oracle.RESIDUAL_S)
        return strike * np.exp(x)

    def _tail(self, spot, last: np.ndarray, until_ms: int, start_ms: int, end_ms: int, strike: float, rng) -> np.ndarray:
        """Generated quotes around the model price of ``spot`` from the last recorded row to the end."""
        first = (until_ms - start_ms) // oracle.GRID_MS
        q = oracle.fair_up(spot, strike, DURATION_S)[first:]
        t = quotes.times(until_ms, end_ms, QUOTE_GAP_MS, rng)
        at = np.clip((t - until_ms - oracle.LEAD_MS) // oracle.GRID_MS, 0, len(q) - 1)
        return quotes.around(t, q[at], int(last[quotes.TICK]), quotes.SPREAD_15M, rng)

    def _spec(self, index: int, which: int) -> MarketSpec:
        start_s = self.start_of(index)
        real = start_s == self._starts[which]
        up, down = self._tokens[which] if real else (str(generated_id(self.seed, start_s, side)) for side in ("up", "down"))
        return MarketSpec(
            market_id=market_id(start_s, DURATION_S), start_s=start_s, end_s=start_s + DURATION_S, duration_s=DURATION_S,
            condition_id=f"0x{generated_id(self.seed, start_s, 'condition'):064x}", token_up=up, token_down=down,
            slug=slug_of(start_s, DURATION_S), gamma_id=str(1_800_000 + (start_s - self._starts[0]) // DURATION_S),
            label="recorded" if real else "generated")
