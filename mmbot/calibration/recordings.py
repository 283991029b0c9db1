"""Recordings on disk, as arrays: what the judges read.

Owns: names, columns and quirks of each recording. Reads a folder of parquet files; nothing is bundled and nothing is fetched.
Can go wrong: a folder or file that is missing or of other columns (UserError naming file and fix); holes in the prints, which are counted, not hidden.
"""

import datetime
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmbot.calibration.replay import CHAINLINK, EVENT
from mmbot.errors import UserError

VARIABLE = "MMBOT_DATA"
PRINTS = "polymarket/chainlink_btcusd_1hz_2026-06-08.parquet"
WINDOWS = "polymarket/pm_btc5m_markets_outcomes_2026-06-08.parquet"
BOOK = "polymarket/pm_btc5m_tob_3s_with_btc_20260225.parquet"
BOOK_DAY = datetime.date(2026, 2, 25)
HISTORY = "polymarket/pm_btc5m_outcomes_20251218_20260316.parquet"
FEEDS = "spot/feed_latency_chainlink_rtds_vs_binance_20260427.parquet"
OTHER_WINDOWS = "kalshi/kx15m_windows_index_open_close_202605_07.parquet"
OTHER_BOOK = "kalshi/kx15m_minute_bbo_202606_07.parquet"
OTHER_LATE_S = 300          # that recording's stamp of a close is five minutes after the window's end


def folder(path: Path | None) -> Path:
    """The folder of recordings: ``path``, else $MMBOT_DATA. Errors: UserError."""
    found = path or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    needed = f"a folder that holds at least {PRINTS} and {WINDOWS}"
    if found is None:
        raise UserError(f"calibration needs recordings and none are bundled: give --data DIR or set {VARIABLE} to {needed}")
    if not found.is_dir():
        raise UserError(f"the folder of recordings {found} does not exist: give --data or {VARIABLE} {needed}")
    return found


def table(root: Path, name: str, columns: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Columns of one recording. Errors: UserError naming the file and the fix."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = root / name
    if not path.is_file():
        raise UserError(f"recording {path} is missing: put it there, or give --data another folder")
    try:
        read = pq.read_table(path, columns=list(columns))
        out = {}
        for column in columns:
            values = read.column(column)
            if pa.types.is_dictionary(values.type):
                values = values.cast(values.type.value_type)
            out[column] = np.array(values.to_pylist(), dtype=object) if pa.types.is_large_string(values.type) or pa.types.is_string(values.type) else values.to_numpy()
    except (OSError, KeyError, ValueError, pa.ArrowException) as e:
        raise UserError(f"recording {path} cannot be read ({str(e).splitlines()[0]}): it is truncated or not this recording; copy it again") from None
    if not read.num_rows:
        raise UserError(f"recording {path} has no rows: copy it again")
    return out


def has(root: Path, *names: str) -> bool:
    """Whether all of these recordings are there."""
    return all((root / name).is_file() for name in names)


@dataclass(frozen=True)
class Day:
    """A day of Chainlink prints: as they arrived (``events``), and on a grid of seconds from ``t0_s`` (``ln`` interpolated, ``printed`` where real)."""
    events: np.ndarray
    t0_s: int
    ln: np.ndarray
    printed: np.ndarray

    @classmethod
    def of(cls, obs_ms, recv_ms, px) -> "Day":
        """From parallel arrays of observation stamps, receipts (wall ms) and dollars."""
        events = np.zeros(len(px), EVENT)
        events["recv_ms"], events["obs_ms"], events["venue"], events["px"] = recv_ms, obs_ms, CHAINLINK, px
        order = np.argsort(events["obs_ms"], kind="stable")
        second = events["obs_ms"][order] // 1000
        grid = np.arange(second[0], second[-1] + 1)
        printed = np.zeros(len(grid), np.int64)
        printed[second - second[0]] = 1
        ln = np.interp(grid, second, np.log(events["px"][order]))
        return cls(events[np.argsort(events["recv_ms"], kind="stable")], int(second[0]), ln, printed)

    def tick(self, t_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(ln spot print of seconds ``t_s``, whether it was printed); outside the day not printed."""
        at = np.asarray(t_s) - self.t0_s
        inside = (at >= 0) & (at < len(self.ln))
        at = np.where(inside, at, 0)
        return self.ln[at], inside & (self.printed[at] > 0)

    def mean(self, t_s: np.ndarray, lookback_s: int, lag_s: int, most_missing: int) -> tuple[np.ndarray, np.ndarray]:
        """(mean ln of the ``lookback_s`` prints up to ``t_s - lag_s``, whether at most ``most_missing`` of them are missing)."""
        end = np.asarray(t_s) - self.t0_s - lag_s + 1
        inside = (end - lookback_s >= 0) & (end <= len(self.ln))
        end = np.where(inside, end, lookback_s)
        total, count = (np.concatenate([[0.0], np.cumsum(x)]) for x in (self.ln, self.printed))
        return (total[end] - total[end - lookback_s]) / lookback_s, inside & (count[end] - count[end - lookback_s] >= lookback_s - most_missing)


def chainlink_day(root: Path) -> Day:
    """The recorded day of 1 Hz prints."""
    t = table(root, PRINTS, ("feed_ts_ms", "recv_ms", "value"))
    return Day.of(t["feed_ts_ms"], t["recv_ms"], t["value"])


def winners(root: Path) -> dict[int, bool]:
    """Start second of each real 5 minute window of that day -> Up won."""
    t = table(root, WINDOWS, ("start_sec", "winner"))
    return {int(s): w == "UP" for s, w in zip(t["start_sec"], t["winner"]) if w in ("UP", "DOWN")}


def other_windows(root: Path) -> dict[str, tuple[int, bool]]:
    """Kalshi's 15 minute windows of Bitcoin: ticker -> (end second, Up won)."""
    t = table(root, OTHER_WINDOWS, ("ticker", "coin", "close", "result"))
    out = {}
    for ticker, coin, close, result in zip(t["ticker"], t["coin"], t["close"], t["result"]):
        if coin == "BTC" and result in ("yes", "no"):
            out[ticker] = int(datetime.datetime.fromisoformat(close).timestamp()) - OTHER_LATE_S, result == "yes"
    return out


def other_book(root: Path) -> dict[str, np.ndarray]:
    """Kalshi's best bid and ask at the end of each minute, of Bitcoin: ticker, min_left, bid, ask."""
    t = table(root, OTHER_BOOK, ("ticker", "coin", "min_left", "bid_close", "ask_close"))
    ours = t["coin"] == "BTC"
    return {"ticker": t["ticker"][ours], "min_left": t["min_left"][ours].astype(float), "bid": t["bid_close"][ours].astype(float), "ask": t["ask_close"][ours].astype(float)}


def book(root: Path) -> dict[str, np.ndarray]:
    """Polymarket's 5 minute windows of an evening with Bitcoin's price on the same clock; windows seen from their start on whose winner is known.

    Arrays by row: t_s, start_s, end_s, bid, ask (of Up, dollars), btc, strike, up.
    """
    t = table(root, BOOK, ("timestamp", "slug", "start_time", "end_time", "up_best_bid", "up_best_ask", "btc_price", "btc_open", "winner"))
    ok = np.array([w in ("up", "down") for w in t["winner"]]) & (t["up_best_bid"] > 0) & (t["up_best_ask"] < 1) & (t["up_best_ask"] > t["up_best_bid"])
    order = np.flatnonzero(ok)[np.argsort(t["timestamp"][ok], kind="stable")]
    return {"t_s": t["timestamp"][order], "start_s": t["start_time"][order].astype(np.int64), "end_s": t["end_time"][order].astype(np.int64),
            "bid": t["up_best_bid"][order], "ask": t["up_best_ask"][order], "btc": t["btc_price"][order], "strike": t["btc_open"][order],
            "up": np.array([w == "up" for w in t["winner"][order]])}


def history(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """(start second, ln return) of 5 minute windows over months, by Binance's open and close, in order."""
    t = table(root, HISTORY, ("timestamp", "btc_open", "btc_close"))
    ret = np.log(t["btc_close"] / t["btc_open"])
    ok = np.isfinite(ret)
    order = np.argsort(t["timestamp"][ok], kind="stable")
    return t["timestamp"][ok][order], ret[ok][order]


def feeds(root: Path, asset: str = "BTC") -> np.ndarray:
    """EVENTs of Chainlink's relay (venue CHAINLINK) and of Binance direct (venue 0), in order of receipt on one clock."""
    t = table(root, FEEDS, ("source", "asset", "price", "msg_ts_ms", "recv_ts_ms"))
    ours = (t["asset"] == asset) & ((t["source"] == "chainlink_rtds") | (t["source"] == "binance_direct"))
    out = np.zeros(int(ours.sum()), EVENT)
    out["recv_ms"], out["obs_ms"], out["px"] = t["recv_ts_ms"][ours], t["msg_ts_ms"][ours], t["price"][ours]
    out["venue"] = np.where(t["source"][ours] == "chainlink_rtds", CHAINLINK, 0)
    return out[np.argsort(out["recv_ms"], kind="stable")]
