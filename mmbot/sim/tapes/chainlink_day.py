"""Tape "chainlink-day": the recorded Chainlink BTC/USD prints of 2026-06-08 with that day's 5 minute windows. Not bundled: a directory.

Owns: reading the two parquet files of ``sim.tape_dir`` (needs pyarrow), and the book it generates around them. Read by
`mmbot.sim.tape`. RECORDED: every spot print with its stamps and delays, the windows, their token and condition ids, the winners.
DERIVED: TWAP-60. GENERATED: the books, around a model price, with spreads and sizes drawn from recorded distributions.

That day settled on the spot print, today's rule is TWAP-60, and the two disagree on about one window in eight. The winner here is
the recorded one; strike and final price are the tape's TWAP-60; the books follow TWAP-60 until a minute before the end and then
run over to the recorded outcome. So a strategy's settlement pnl on this tape has more noise than today's rule would give.
Can go wrong: files missing, truncated or of other columns, pyarrow absent (UserError); minutes without prints (recorded outages).
"""

from pathlib import Path

import numpy as np

from mmbot.errors import UserError
from mmbot.sim import oracle
from mmbot.sim.engine import MarketSpec
from mmbot.sim.tapes import quotes
from mmbot.sim.tapes.window import Window
from shm_layout.records import DOWN, UP, market_id

PRINTS = "chainlink_btcusd_1hz_2026-06-08.parquet"
MARKETS = "pm_btc5m_markets_outcomes_2026-06-08.parquet"
DURATION_S = 300
ORIGIN = {
    "Chainlink spot, winners, market ids": "recorded (2026-06-08)", "TWAP-60": "derived",
    "Binance": "derived from recorded Chainlink prints", "books and trades": "generated from recorded spreads and sizes",
}
SIGMA = 9e-5               # ln price per sqrt(s), 60 .. 300 s returns of that day
QUOTE_GAP_MS, BEFORE_GAP_MS = 330.0, 1_000.0
TRADE_SHARE = 0.25         # of the falls of the best size: turnover of the order recorded for that day's windows
BLEND_S = 60.0
COLUMNS = {
    PRINTS: ("feed_ts_ms", "full_accuracy_value", "server_ts_ms", "recv_ms"),
    MARKETS: ("slug", "start_sec", "end_sec", "up_token", "down_token", "winner", "condition_id", "min_size"),
}


def read(directory: Path, name: str) -> dict[str, list]:
    """Columns of one file of the tape. Errors: UserError naming the file and the fix."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError("tape chainlink-day needs pyarrow: pip install pyarrow (or choose sim.tape = \"btc15m\")") from None
    path = directory / name
    if not path.is_file():
        raise UserError(f"tape file {path} is missing: point sim.tape_dir at a directory that holds {PRINTS} and {MARKETS}")
    try:
        table = pq.read_table(path, columns=list(COLUMNS[name]))
        data = {column: table.column(column).to_pylist() for column in COLUMNS[name]}
    except (OSError, KeyError, ValueError, pa.ArrowException) as e:
        raise UserError(f"tape file {path} cannot be read ({str(e).splitlines()[0]}): it is truncated or not this recording; copy it again") from None
    if not table.num_rows:
        raise UserError(f"tape file {path} has no rows: copy it again")
    return data


class Source:
    """Schedule and content of the tape; see `mmbot.sim.tape.Tape` for how it is used."""

    duration_s = DURATION_S
    origin = ORIGIN
    label = "recorded Chainlink day 2026-06-08, generated books"

    def __init__(self, settings):
        """``settings``: the [sim] section; ``tape_dir`` holds the two files. Errors: UserError."""
        if settings.tape_dir is None:
            raise UserError(f"tape chainlink-day needs sim.tape_dir (or MMBOT_SIM__TAPE_DIR): a directory that holds {PRINTS} and {MARKETS}")
        directory = Path(settings.tape_dir).expanduser()
        prints, markets = read(directory, PRINTS), read(directory, MARKETS)
        self.seed = settings.seed
        seconds = [ms // 1000 for ms in prints["feed_ts_ms"]]
        values = [int(v) for v in prints["full_accuracy_value"]]
        stamps = zip(prints["server_ts_ms"], prints["recv_ms"])
        self.prints = oracle.RecordedPrints(dict(zip(seconds, values)), dict(zip(seconds, stamps)))
        grid = np.arange(seconds[0] * 1000, seconds[-1] * 1000, oracle.GRID_MS)
        self.path = oracle.SpotPath(int(grid[0]))
        self.path.extend(np.interp(grid, np.array(seconds) * 1000, [v / oracle.E18 for v in values]))
        order = np.argsort(markets["start_sec"]).tolist()
        self._markets = [{k: v[i] for k, v in markets.items()} for i in order
                         if seconds[0] <= markets["start_sec"][i] and markets["end_sec"][i] <= seconds[-1]]
        if len(self._markets) < 3 or any(m["end_sec"] != n["start_sec"] for m, n in zip(self._markets, self._markets[1:])):
            raise UserError(f"tape file {directory / MARKETS} does not cover the day of {PRINTS} window by window: copy both again")
        self.first_s = self._markets[1]["start_sec"]
        self.first_index, self.last_index = -1, len(self._markets) - 2
        self.start_wall_ms = int(max(self.first_s - settings.start_before_roll_s, self._markets[0]["start_sec"]) * 1000)

    def start_of(self, index: int) -> int:
        """Start second of a run-window (the windows of the day follow each other without gaps)."""
        return self.first_s + index * DURATION_S

    def build(self, index: int) -> Window:
        """Window ``index`` of the day, -1 being the first."""
        market = self._markets[index + 1]
        start_s, end_s = market["start_sec"], market["end_sec"]
        start_ms, end_ms = start_s * 1000, end_s * 1000
        rng = np.random.default_rng([self.seed, 5, index + 1_000])
        strike_e18 = oracle.first_at_or_after(self.prints, start_s)
        final_e18 = oracle.first_at_or_after(self.prints, end_s)
        outcome = UP if market["winner"] == "UP" else DOWN
        q = self._fair(start_ms, end_ms, strike_e18)
        before = quotes.bridge(start_ms - DURATION_S * 1000, start_ms, BEFORE_GAP_MS, 4_950, None, rng, thin=0.3)
        t = quotes.times(start_ms, end_ms, QUOTE_GAP_MS, rng)
        at = np.clip((t - start_ms - oracle.LEAD_MS) // oracle.GRID_MS, 0, len(q) - 1)
        rows = quotes.join([before, quotes.around(t, q[at], quotes.COARSE_E4, quotes.SPREAD_5M, rng)], start_ms, rng, TRADE_SHARE)
        spec = MarketSpec(market_id=market_id(start_s, DURATION_S), start_s=start_s, end_s=end_s, duration_s=DURATION_S,
                          condition_id=market["condition_id"], token_up=market["up_token"], token_down=market["down_token"],
                          slug=market["slug"], gamma_id=str(2_400_000 + index), min_size_u6=int(market["min_size"]) * 1_000_000,
                          label="recorded ids and winner, generated book")
        return Window(spec, rows, outcome, strike_e18, final_e18, end_ms + int(15_000 + min(rng.exponential(12_000), 45_000)))

    def _fair(self, start_ms: int, end_ms: int, strike_e18: int | None) -> np.ndarray:
        """Model price on the grid: TWAP-60 against its strike, running over to spot against spot (what settled) in the last minute."""
        spot = self.path.window(start_ms, end_ms)
        strike = strike_e18 / oracle.E18 if strike_e18 is not None else float(spot[0])
        tau = (end_ms - start_ms) / 1000 - np.arange(len(spot)) * oracle.GRID_MS / 1000
        z_twap = oracle.phi_inv(np.clip(oracle.fair_up(spot, strike, DURATION_S, SIGMA), 1e-6, 1 - 1e-6))
        z_spot = np.log(spot / spot[0]) / (SIGMA * np.sqrt(np.maximum(tau, 0.5)))
        weight = np.clip((BLEND_S - tau) / BLEND_S, 0.0, 1.0)
        z = z_twap * (1 - weight) + np.clip(z_spot, -6, 6) * weight
        return np.array([oracle.phi(v) for v in z.tolist()])
