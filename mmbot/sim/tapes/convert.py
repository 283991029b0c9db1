"""Make the bundled ``btc15m.npz`` from the published recording. Run by hand; at run time only FORMAT is read from here.

    pip download polymarket-backtest==0.1.0 --no-deps && unzip polymarket_backtest-0.1.0-py3-none-any.whl
    python -m mmbot.sim.tapes.convert polymarket_backtest/data/sample/btc_orderbook.csv OUT.npz

Input: event-driven top of book of both tokens of five BTC 15m windows (PyPI package polymarket-backtest 0.1.0, MIT). Output: integers
only (see `merge`). Each row of the input holds both tokens, but only one of them is fresh, so the two are merged into one book in
Up terms from the token with the newer venue stamp.
"""

import csv
import sys

import numpy as np

FORMAT = 1


def merge(rows: dict) -> np.ndarray:
    """Rows of one window, in file order, as int64 [n, 5]: venue ms since 1970, bid e4, bid size u6, ask e4, ask size u6.

    Up terms: a Down ask at p is an Up bid at 1-p. An empty side is price 0 (bid) or 10000 (ask) with size 0. Rows that repeat the
    book before them are dropped; stamps never go back.
    """
    up = rows["up_book_ts"] >= rows["down_book_ts"]
    t = np.where(up, rows["up_book_ts"], rows["down_book_ts"])
    bid = np.where(up, rows["up_bid"], 1 - rows["down_ask"])
    ask = np.where(up, rows["up_ask"], 1 - rows["down_bid"])
    bid_size = np.where(up, rows["up_bid_size"], rows["down_ask_size"])
    ask_size = np.where(up, rows["up_ask_size"], rows["down_bid_size"])
    out = np.stack([t, np.rint(bid * 1e4), np.rint(bid_size * 100) * 1e4,
                    np.rint(ask * 1e4), np.rint(ask_size * 100) * 1e4], axis=1).astype(np.int64)
    out[out[:, 2] <= 0, 1] = 0
    out[out[:, 4] <= 0, 3] = 10_000
    fresh = np.ones(len(out), bool)
    fresh[1:] = (out[1:, 1:] != out[:-1, 1:]).any(axis=1)
    return out[fresh]


FLOATS = tuple(f"{token}_{side}{size}" for token in ("up", "down") for side in ("bid", "ask") for size in ("", "_size"))


def convert(source: str, target: str) -> None:
    """Read the CSV, merge each window, write ``target``."""
    windows: dict[int, list[dict]] = {}
    with open(source, newline="") as file:
        for row in csv.DictReader(file):
            windows.setdefault(int(row["market_slug"].rsplit("-", 1)[1]), []).append(row)
    tokens, offsets, parts = [], [0], []
    for _, rows in sorted(windows.items()):
        columns = {name: np.array([float(row[name]) for row in rows]) for name in FLOATS}
        columns |= {name: np.array([int(row[name]) for row in rows]) for name in ("up_book_ts", "down_book_ts")}
        parts.append(merge(columns))
        tokens.append([rows[0]["up_token_id"], rows[0]["down_token_id"]])
        offsets.append(offsets[-1] + len(parts[-1]))
    np.savez_compressed(target, format=np.int64(FORMAT), start_s=np.array(sorted(windows), np.int64), tokens=np.array(tokens),
                        offset=np.array(offsets, np.int64), rows=np.concatenate(parts))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m mmbot.sim.tapes.convert btc_orderbook.csv OUT.npz")
    convert(*sys.argv[1:])
