"""How long each feed takes from a frame to its record: parse and publish, microseconds, per venue.

Owns: the measurement. Frames are the exchange simulator's, collected first; the real decoders and the real ring publish them. Prints one line per
kind of frame: p50, p99. Can go wrong: nothing; a busy machine shows in p99.
"""

import time
from types import SimpleNamespace

import msgspec
import numpy as np

from mmbot import topology
from mmbot.sim.bybit import Bybit
from mmbot.sim.coinbase import Coinbase, iso
from mmbot.sim.ladder import Ladder
from mmbot.sim.oracle import DerivedPrints, References, SpotPath, decimal
from mmbot.sim.spot import Binance
from mmbot.venues import binance, bybit, coinbase
from mmbot.venues.polymarket import activity, polybolt, prints, rtds
from mmbot.venues.spot import Publisher
from shm_layout import records as r
from shm_layout.ring import RingWriter
from shm_layout.segment import Space

START_MS = 1_795_186_800_000
SECONDS = 300


class Sink:
    """Takes a simulated server's frames."""

    def __init__(self, *wanted):
        self.frames, self.wanted, self.topics = [], set(wanted), {}
        self._count = 0

    def send(self, data):
        self.frames.append(data)

    def frame(self, name, t_ms, events):
        self.frames.append(msgspec.json.encode({"channel": name, "client_id": "", "timestamp": iso(t_ms), "sequence_num": self._count, "events": events}))
        self._count += 1


def collect() -> dict[str, list[bytes]]:
    """Some minutes of frames per venue."""
    path = SpotPath(START_MS - 100_000)
    path.extend(84_600 * np.exp(np.cumsum(np.random.default_rng(1).normal(0, 2e-5, SECONDS * 20))))
    refs, spot = References(DerivedPrints(path, 1), path, START_MS), Binance(path, 1, START_MS, 1.0)
    cb, bb = Coinbase(Ladder(path, 1, START_MS, 1.0, 0.0, 100)), Bybit(Ladder(path, 2, START_MS, 1.0, 0.0, 10))
    books, trades, bybits = Sink("level2"), Sink("market_trades"), Sink(bybit.T_BOOK, bybit.T_TRADE, bybit.T_TICKER)
    books.frame(*cb.snapshot("level2"))
    bybits.send(bb.book(START_MS, "snapshot", [(s, px, q) for s in (0, 1) for px, q in bb.levels(s)]))
    cb.links.update((books, trades))
    bb.links.add(bybits)
    out = {"RTDS print": [], "Binance": []}
    for t_ms in range(START_MS, START_MS + SECONDS * 1000, 20):
        out["RTDS print"] += [f for f in refs.frames(t_ms) if b"btc/usd" in f]
        out["Binance"] += [b'{"stream":"%s","data":%s}' % (n.encode(), f) for n, f in spot.frames(t_ms) if not n.endswith("@trade")]
        cb.push(t_ms)
        bb.push(t_ms)
    out |= {"Coinbase level2": books.frames[1:], "Coinbase trades": trades.frames, "Bybit": bybits.frames[1:]}
    out["_coinbase snapshot"], out["_bybit snapshot"] = books.frames[:1], bybits.frames[:1]
    return out


def polybolt_frames(frames: list[bytes]) -> list[bytes]:
    """The same prints as PolyBolt sends them."""
    out, seq = [], {}
    for data in frames:
        m = msgspec.json.decode(data)
        channel = polybolt.CH_TWAP if "twap" in m["topic"] else polybolt.CH_SPOT
        seq[channel] = seq.get(channel, 0) + 1
        p = m["payload"]
        out.append(msgspec.json.encode({"v": 1, "channel": channel, "seq": seq[channel], "ts": m["timestamp"], "payload": {
            "symbol": "btcusd", "value": p["value"], "full_accuracy_value": decimal(int(p["full_accuracy_value"])), "timestamp": p["timestamp"],
            "window_seconds": 60, "source": "chainlink"}}))
    return out


def measure(name: str, frames: list[bytes], work) -> None:
    """Time ``work(frame)`` for each frame and print the quantiles."""
    stamps = np.empty(len(frames))
    for i, frame in enumerate(frames):
        begin = time.perf_counter_ns()
        work(frame)
        stamps[i] = time.perf_counter_ns() - begin
    p50, p99 = np.percentile(stamps, [50, 99]) / 1000
    print(f"{name:16s} {len(frames):6d} frames  {np.mean([len(f) for f in frames]):6.0f} bytes   p50 {p50:6.1f} us   p99 {p99:6.1f} us")


def main() -> None:
    """Measure all venues."""
    space = Space(f"benchfeeds{time.time_ns() % 100_000}")
    space.create_missing(topology.RINGS, topology.SEQLOCKS, [])
    segments = {s: space.own(s) for s in ("md.oracle", "md.binance", "md.coinbase", "md.bybit")}
    rings = {name: RingWriter(segment) for name, segment in segments.items()}
    actor = SimpleNamespace(ring_writers=rings, ring_bells=lambda segment: None)
    frames = collect()
    try:
        _oracle(frames, rings["md.oracle"])
        out = Publisher(actor, "md.binance")
        stream = binance.Stream(out.rec)
        measure("Binance", frames["Binance"], lambda f: stream.on_frame(memoryview(f), 1, START_MS * 10**6) and out.put())
        for name, venue, ring in (("Coinbase level2", coinbase, "md.coinbase"), ("Coinbase trades", coinbase, "md.coinbase"), ("Bybit", bybit, "md.bybit")):
            out = Publisher(actor, ring)
            s = venue.Stream(out.rec, out.put)
            for f in frames[f"_{name.split()[0].lower()} snapshot"]:
                s.on_frame(f, 1, START_MS * 10**6)
            if "trades" in name:
                s.restart()
            measure(name, frames[name], lambda f, s=s: s.on_frame(memoryview(f), 1, START_MS * 10**6))
        other = activity.Activity("0x" + "ab" * 20, lambda c, a: (0, -1))
        text = b'{"topic":"activity","type":"trades","payload":{"proxyWallet":"0x' + b"cd" * 20 + b'","asset":"' + b"1" * 77 + b'"' + b" " * 400 + b"}}"
        measure("activity, others", [text] * 2000, lambda f: other.on_frame(memoryview(f), 1))
    finally:
        for segment in segments.values():
            segment.release()
        space.wipe()


def _oracle(frames, ring) -> None:
    state = np.zeros(1, r.ORACLE_STATE)[0]
    merger, session = prints.Merger(state), polybolt.Session()

    def publish(p):
        taken = merger.take(p, 1)
        if taken.newest:
            prints.fill(ring.rec[0], p, 1)
            ring.publish()

    measure("RTDS print", frames["RTDS print"], lambda f: publish(rtds.decode(memoryview(f))))
    merger = prints.Merger(state)

    def from_polybolt(f):
        for p in session.on_frame(memoryview(f)).prints:
            publish(p)

    measure("PolyBolt print", polybolt_frames(frames["RTDS print"]), from_polybolt)


if __name__ == "__main__":
    main()
