"""What the books prove on recorded frames, and what a frame costs.

    python -m bench.books [CAPTURE.jsonl.gz [SESSIONS.jsonl.gz]]

CAPTURE: raw market channel frames, a line {"payload": frame} each, in order of arrival (or $MARKET_CAPTURE). SESSIONS: raw lines {"source",
"payload": text} with REST books and first WebSocket books (or $MARKET_SESSIONS). Without a recording the proof is skipped and says so;
the speed is measured on frames made up here. Times of day are not used: frames are said to arrive when their newest stamp says.

Prints hashes verified of those stated, how the stated tops compare with ours, and the cost of a frame in CPU time, also as a multiple of a
fixed piece of work, because the machine may be busy.
"""

import gzip
import hashlib
import json
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from mmbot.books import book as bk
from mmbot.venues.polymarket import book_proof as bp
from mmbot.venues.polymarket import market_channel as mc
from shm_layout import records as r

MARKET_ID = 1795186800015
MS = 1_000_000


def frames_of(path: str) -> list[dict]:
    """The frames of a capture, in order of arrival."""
    with gzip.open(path, "rt") as lines:
        return [json.loads(line)["payload"] for line in lines]


def busiest_market(frames: list[dict]) -> tuple[str, tuple[str, str]]:
    """(condition, its two tokens) of the market most frames are about."""
    count = Counter(f["market"] for f in frames)
    condition = count.most_common(1)[0][0]
    tokens = dict.fromkeys(c["asset_id"] for f in frames if f["market"] == condition for c in f.get("price_changes", ()))
    return condition, tuple(tokens)


class Replay:
    """A channel that follows one market of a capture, with a clock made of the venue's stamps."""

    def __init__(self, condition: str, tokens: tuple[str, str], hold_ns: int = 250 * MS):
        self.published, self.flags, self.bad = 0, Counter(), []
        self.channel = mc.MarketChannel(self._publish, lambda code, text: self.bad.append((code, text)), hold_ns=hold_ns)
        self.channel.follow(3, MARKET_ID, tokens, 100, 0, condition)
        self.market = self.channel.markets[3]
        self.tokens, self.newest_ms = tokens, 0
        self.tops = Counter()
        self.wrong = self.odd_prints = 0

    def _publish(self, market: mc.Market) -> None:
        self.published += 1
        self.flags[market.cells[mc.FLAGS_WORD]] += 1

    def take(self, frame: dict) -> None:
        """One frame, and the proof's turn."""
        stamp = int(frame["timestamp"])
        in_order = stamp >= self.newest_ms
        self.newest_ms = max(self.newest_ms, stamp)
        now = self.newest_ms * MS
        self.channel.on_frame(memoryview(json.dumps(frame, separators=(",", ":")).encode()), now)
        if in_order and self.market.book[bk.H_SNAP] and self.market.book[bk.H_SNAP + 1]:
            self._compare(frame)
        self.market.proof.poll(now, 10_000)
        self.wrong += self.market.proof.wrong(now)
        self.odd_prints += self.channel.judged_prints(self.market, now)

    def finish(self) -> None:
        """Let everything have its turn."""
        self.market.proof.poll((self.newest_ms + 300) * MS, 10 ** 9)

    def _compare(self, frame: dict) -> None:
        for c in frame.get("price_changes", ()):
            if c["asset_id"] in self.tokens:
                ours = bk.top(self.market.book, self.tokens.index(c["asset_id"]))
                stated = round(float(c["best_bid"]) * 1e4), round(float(c["best_ask"]) * 1e4)
                self.tops["stated"] += 1
                self.tops["agree"] += ours == stated


def replay(path: str) -> Replay:
    """The busiest market of a capture, replayed."""
    frames = frames_of(path)
    condition, tokens = busiest_market(frames)
    run = Replay(condition, tokens)
    for frame in frames:
        if frame["market"] == condition:
            run.take(frame)
    run.finish()
    return run


def session_books(path: str) -> Counter:
    """Books of recorded sessions whose own hash verifies: REST books as they are, WebSocket books with "5" and false filled in."""
    scratch = bp.Scratch()
    out: Counter = Counter()
    with gzip.open(path, "rt") as lines:
        for line in lines:
            entry = json.loads(line)
            if entry["source"] != "polymarket_clob":
                continue
            payload = json.loads(entry["payload"])
            for b in payload if isinstance(payload, list) else [payload]:
                if "bids" in b and "last_trade_price" in b:
                    kind = "ws" if "event_type" in b else "rest"
                    out[kind] += 1
                    out[kind + "_ok"] += own_hash(b, scratch)
    return out


def own_hash(b: dict, scratch: bp.Scratch) -> bool:
    """Whether a complete book carries its right hash, by the project's own text and number forms."""
    proof = bp.BookProof(np.zeros(bp.ev.LOG_SIZE, np.int64), scratch, lambda token, t_ms: None, 0)
    proof.take(b["market"], (b["asset_id"], ""), 100, 5_000_000, False)
    mem = bk.new_book()
    sides = (np.frombuffer(json.dumps(b[side]).encode(), np.uint8) for side in ("bids", "asks"))
    bk.apply_snapshot(mem, 0, int(b["timestamp"]), *sides, scratch.px, scratch.size)
    tail = bp.tail_of(b.get("min_order_size", "5"), b["tick_size"], b.get("neg_risk", False), b["last_trade_price"])
    return proof.own_hash(mem, 0, int(b["timestamp"]), bp.words_of(b["hash"]), tail)


def level_text(levels: dict[int, int]) -> list[dict]:
    """Levels {price in 1e-4: whole shares} as the venue writes them."""
    return [{"price": bp.number_text(p, 4), "size": str(s)} for p, s in levels.items()]


class Maker:
    """Frames of one market with right hashes, for measuring: changes deep in a book of some hundred levels."""

    def __init__(self, condition: str = "0x" + "ab" * 32, tokens: tuple[str, str] = ("1" * 77, "2" * 77), levels: int = 40):
        self.condition, self.tokens = condition, tokens
        self.bids = {100 * i: 100 + i for i in range(50 - levels, 50)} if levels < 50 else {}
        self.asks = {100 * i: 100 + i for i in range(51, 51 + levels)}
        self.rng = random.Random(1)

    def side(self, token: int) -> tuple[list[dict], list[dict]]:
        """(bids ascending, asks descending) of a token."""
        bids, asks = self.bids, self.asks
        if token:
            bids, asks = {10_000 - p: s for p, s in asks.items()}, {10_000 - p: s for p, s in bids.items()}
        return level_text(dict(sorted(bids.items()))), level_text(dict(sorted(asks.items(), reverse=True)))

    def hash(self, token: int, t_ms: int) -> str:
        """SHA-1 of a token's book, computed from the recipe."""
        bids, asks = self.side(token)
        book = {"market": self.condition, "asset_id": self.tokens[token], "timestamp": str(t_ms), "hash": "", "bids": bids, "asks": asks,
                "min_order_size": "5", "tick_size": "0.01", "neg_risk": False, "last_trade_price": ""}
        return hashlib.sha1(json.dumps(book, separators=(",", ":")).encode()).hexdigest()

    def book(self, token: int, t_ms: int) -> bytes:
        """A book frame."""
        bids, asks = self.side(token)
        return json.dumps({"event_type": "book", "market": self.condition, "asset_id": self.tokens[token], "timestamp": str(t_ms),
                           "hash": self.hash(token, t_ms), "bids": bids, "asks": asks}, separators=(",", ":")).encode()

    def change(self, t_ms: int) -> bytes:
        """A price_change frame: a new total at a random bid."""
        px = self.rng.choice(list(self.bids))
        self.bids[px] = self.rng.randint(1, 9999)
        bid, ask = max(self.bids), min(self.asks)
        text = bp.number_text
        entries = [(0, px, "BUY", bid, ask), (1, 10_000 - px, "SELL", 10_000 - ask, 10_000 - bid)]
        return json.dumps({"market": self.condition, "price_changes": [
            {"asset_id": self.tokens[token], "price": text(p, 4), "size": str(self.bids[px]), "side": side, "hash": self.hash(token, t_ms),
             "best_bid": text(b, 4), "best_ask": text(a, 4)} for token, p, side, b, a in entries],
            "timestamp": str(t_ms), "event_type": "price_change"}, separators=(",", ":")).encode()


def yardstick_us() -> float:
    """CPU time of a fixed piece of work, us: SHA-1 of a megabyte, divided by ten."""
    block = bytes(1 << 20)
    best = min(_cpu(lambda: hashlib.sha1(block).digest()) for _ in range(5))
    return best / 10


def _cpu(work) -> float:
    begin = time.process_time_ns()
    work()
    return (time.process_time_ns() - begin) / 1000


def speed(n: int = 4000) -> dict[str, float]:
    """Cost of a frame: parse, apply and publish into real shared records; then the proof of its hashes; 2,000 a second as a load."""
    maker, rec = Maker(), np.zeros(1, r.MARKET).view(np.int64)

    def publish(market: mc.Market) -> None:
        rec[:] = market.rec
    channel = mc.MarketChannel(publish, lambda code, text: None)
    channel.follow(3, MARKET_ID, maker.tokens, 100, 0, maker.condition)
    for token in (0, 1):
        channel.on_frame(maker.book(token, 1000), 1)
    changes = [maker.change(1001 + i) for i in range(n)]
    books = [maker.book(i & 1, 1001 + n + i) for i in range(200)]
    out, proof, proving = {}, channel.markets[3].proof, 0.0
    for name, frames in (("price_change", changes), ("book", books)):
        views, spent = [memoryview(f) for f in frames], []
        for i, view in enumerate(views):
            begin = time.perf_counter_ns()
            channel.on_frame(view, (1001 + i) * 500_000)
            spent.append(time.perf_counter_ns() - begin)
            if i % 8 == 7:
                proving += _cpu(lambda now=(1001 + i) * 500_000: proof.poll(now, 10_000))
        out[f"{name}_p50_us"], out[f"{name}_p99_us"] = (float(np.percentile(spent, q)) / 1000 for q in (50, 99))
        out[f"{name}_bytes"] = float(np.mean([len(f) for f in frames]))
    out["hashes"], out["hash_us"] = proof.used, proving / max(1, proof.used)
    out["yardstick_us"] = yardstick_us()
    out["load_at_2000_frames_per_s"] = 2000 * (out["price_change_p50_us"] + 2 * out["hash_us"]) / 1e6
    return out


def main() -> None:
    """Print everything."""
    capture = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("MARKET_CAPTURE", "")
    sessions = sys.argv[2] if len(sys.argv) > 2 else os.environ.get("MARKET_SESSIONS", "")
    if capture and Path(capture).exists():
        run = replay(capture)
        c = run.market.proof.counts
        print(f"hashes: {c['verified']} verified, {c['mismatched']} mismatched, of these {c['books']} and {c['books_bad']} books; not decidable: "
              + ", ".join(f"{c[k]} {k}" for k in ("no_hash", "no_snapshot", "late", "old", "behind", "lost")))
        print(f"prices searched: {c['searches']}; books that differed from what the changes had made: {c['silent']}; repairs {run.channel.repairs}")
        print(f"tops: {run.tops['agree']} of {run.tops['stated']} agree ({run.tops['agree'] / max(1, run.tops['stated']):.4%})")
        print(f"records {run.published}, with flags {dict(run.flags)}; moments called wrong {run.wrong}; odd prints {run.odd_prints}; "
              f"complaints {len(run.bad)}")
    else:
        print("no capture given (first argument or MARKET_CAPTURE): hashes and tops are not proved")
    if sessions and Path(sessions).exists():
        s = session_books(sessions)
        print(f"recorded sessions: REST {s['rest_ok']}/{s['rest']}, WebSocket {s['ws_ok']}/{s['ws']}")
    for name, value in speed().items():
        print(f"{name:28} {value:10.2f}")


if __name__ == "__main__":
    main()
