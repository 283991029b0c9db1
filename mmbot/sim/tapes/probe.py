"""Tape "probe": a calm market whose best ask steps at a steady pace, for measuring latency. Everything is GENERATED.

Owns: a flat book 0.48/0.52 on every window, and the steps of the current one: each ``probe_period_ms`` the best ask moves two ticks
down, next time up again, so the mid moves by one tick and a bot that follows the book must requote. A step is one change of one level,
as at the venue, so a bot is timed from one frame. The book is wide enough that the recorded market never trades with a bot that keeps
a tick away from the other side. Spot is flat with a small ripple. Read by `mmbot.sim.tape`.
"""

import numpy as np

from mmbot.sim import oracle
from mmbot.sim.engine import MarketSpec
from mmbot.sim.tapes import quotes
from mmbot.sim.tapes.btc15m import DURATION_S, HISTORY_S, SPOT_START, generated_id
from mmbot.sim.tapes.window import Window, slug_of
from shm_layout.records import DOWN, UP, market_id

FIRST_S = 1_775_028_600     # the same grid as the recorded tape
BID_E4, ASK_E4 = 4_800, 5_200
STEP_E4 = 200
SIZE_U6 = 250_000_000
PROBE_AFTER_S = 5           # no steps in the first and last seconds of a window
ORIGIN = {"everything": "generated: a calm book whose best ask steps by two ticks"}


class Source:
    """Schedule and content of the tape; see `mmbot.sim.tape.Tape` for how it is used."""

    duration_s = DURATION_S
    origin = ORIGIN
    label = "generated: calm book whose best ask steps by two ticks"
    last_index = None
    first_index = -1

    def __init__(self, settings):
        """``settings``: the [sim] section (``probe_period_ms`` is real time; at N times the speed the steps are N times rarer)."""
        self.seed = settings.seed
        self._period_ms = settings.probe_period_ms * settings.speed
        self.start_wall_ms = int((FIRST_S - settings.start_before_roll_s) * 1000)
        self.path = oracle.SpotPath((self.start_of(-1) - HISTORY_S) * 1000)
        self.path.extend(np.full(HISTORY_S * 1000 // oracle.GRID_MS, SPOT_START))
        self.prints = oracle.DerivedPrints(self.path, self.seed)

    def start_of(self, index: int) -> int:
        """Start second of a run-window."""
        return FIRST_S + index * DURATION_S

    def build(self, index: int) -> Window:
        """Run-window ``index``; consecutive indices only."""
        start_s = self.start_of(index)
        start_ms, end_ms = start_s * 1000, (start_s + DURATION_S) * 1000
        rng = np.random.default_rng([self.seed, 99, index + 1_000])
        steps = np.arange(start_ms + PROBE_AFTER_S * 1000, end_ms - PROBE_AFTER_S * 1000, self._period_ms).astype(np.int64)
        rows = quotes.table(1 + len(steps))
        rows[0, quotes.T], rows[1:, quotes.T] = start_ms - DURATION_S * 1000, steps
        shift = np.concatenate([[0], (np.arange(len(steps)) + 1) % 2]) * STEP_E4
        rows[:, quotes.TICK] = quotes.COARSE_E4
        rows[:, quotes.BID], rows[:, quotes.ASK] = BID_E4, ASK_E4 - shift
        rows[:, quotes.BID_SIZE] = rows[:, quotes.ASK_SIZE] = SIZE_U6
        strike_e18 = self.prints.twap_e18(start_s)
        n = DURATION_S * 1000 // oracle.GRID_MS
        self.path.extend(SPOT_START * np.exp(oracle.ripple(n, rng)))
        final_e18 = self.prints.twap_e18(start_s + DURATION_S)
        outcome = UP if oracle.outcome_of(strike_e18, final_e18) == "Up" else DOWN
        ids = [generated_id(self.seed, "probe", start_s, part) for part in ("condition", "up", "down")]
        spec = MarketSpec(market_id=market_id(start_s, DURATION_S), start_s=start_s, end_s=start_s + DURATION_S, duration_s=DURATION_S,
                          condition_id=f"0x{ids[0]:064x}", token_up=str(ids[1]), token_down=str(ids[2]),
                          slug=slug_of(start_s, DURATION_S), gamma_id=str(1_900_000 + index), label="generated")
        return Window(spec, rows, outcome, strike_e18, final_e18, end_ms + int(rng.integers(20_000, 60_000)))
