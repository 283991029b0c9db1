"""Make the bundled ``btc15m.npz`` from the published recording. Run by hand, needs pyarrow; nothing imports it at run time.

    python -m mmbot.sim.tapes.convert EVENTS.parquet MARKETS.csv OUT.npz

Input: event-driven top of book of both tokens of three BTC 15m windows (PyPI package polymarket-backtest 0.1.0, MIT) and the CSV
with their token ids. Output: integers only (see `merge`). Each row of the input holds both tokens, but only the token named by
``source_side`` is fresh, so the two are merged into one book in Up terms from the token with the newer venue stamp.
"""

import csv
import sys

import numpy as np

from mmbot.errors import UserError

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


def convert(events: str, markets: str, target: str) -> None:
    """Read the two source files, merge each window, write ``target``."""
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError("convert needs pyarrow: pip install pyarrow") from None
    table = pq.read_table(events)
    columns = {name: np.array(table.column(name).to_pylist()) for name in table.schema.names}
    starts, tokens, offsets, parts = [], [], [0], []
    with open(markets, newline="") as file:
        for row in csv.DictReader(file):
            mask = columns["market_slug"] == row["market_slug"]
            parts.append(merge({name: values[mask] for name, values in columns.items()}))
            starts.append(int(row["market_slug"].rsplit("-", 1)[1]))
            tokens.append([row["up_token_id"], row["down_token_id"]])
            offsets.append(offsets[-1] + len(parts[-1]))
    np.savez_compressed(target, format=np.int64(FORMAT), start_s=np.array(starts, np.int64), tokens=np.array(tokens),
                        offset=np.array(offsets, np.int64), rows=np.concatenate(parts))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python -m mmbot.sim.tapes.convert EVENTS.parquet MARKETS.csv OUT.npz")
    convert(*sys.argv[1:])
