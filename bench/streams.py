"""How soon a dead or wrong stream is noticed, and how often a quiet one is taken for dead. All in virtual time, from seeds.

    python -m bench.streams [INJECTIONS_PER_KIND [HOURS_OF_TAPE]]

Owns: `World`, a venue with one market, several links with latency, and POST /books, around the real decoder, proofs and watch. Nothing sleeps.
Prints per kind of fault the distribution of the time from the first thing that was wrong for us to its notice, and for the bundled recording
(whose quiet periods last many seconds) how many false alarms there were and how much of the time the book counted as fresh.
"""

import hashlib
import heapq
import json
import random
import sys
from collections import Counter, deque
from pathlib import Path

import numpy as np

from mmbot.books import book as bk
from mmbot.books.evidence import Limits
from mmbot.venues.polymarket import market_channel as mc
from mmbot.venues.polymarket.book_proof import number_text
from mmbot.venues.polymarket.book_watch import BookWatch
from shm_layout import records as r

MS, SECOND = 1_000_000, 1_000_000_000
MARKET_ID, SLOT = 1795186800015, 3
CONDITION, TOKENS = "0x" + "ab" * 32, ("1" * 77, "2" * 77)
T0_MS = 1_795_186_800_000
STEP_NS = 5 * MS
JUDGE_STEPS = 5
REJOIN_NS = 400 * MS            # handshake of a new link
STALE_NS = 750 * MS             # the core's own limit on the age of data


class Venue:
    """One market's book at the venue, in Up terms: levels, hashes by the recipe, frames, REST answers."""

    def __init__(self, rng: random.Random, depth: int = 12):
        self.rng = rng
        self.sides = ({5000 - 100 * i: 10_000_000 + rng.randrange(10**9) for i in range(depth)},
                      {5100 + 100 * i: 10_000_000 + rng.randrange(10**9) for i in range(depth)})
        self.changed_ms = T0_MS
        self._texts: dict[tuple[int, int], str] = {}
        self.history: deque = deque(maxlen=400)

    def _level(self, px: int, size: int) -> str:
        text = self._texts.get((px, size))
        if text is None:
            text = self._texts[px, size] = f'{{"price":"{number_text(px, 4)}","size":"{number_text(size, 6)}"}}'
        return text

    def lists(self, token: int) -> tuple[str, str]:
        """(bids, asks) of a token as JSON texts."""
        bids, asks = self.sides
        if token:
            bids, asks = {10_000 - p: s for p, s in asks.items()}, {10_000 - p: s for p, s in bids.items()}
        return (",".join(self._level(p, bids[p]) for p in sorted(bids)), ",".join(self._level(p, asks[p]) for p in sorted(asks, reverse=True)))

    def hash(self, token: int, t_ms: int) -> str:
        return hashlib.sha1(self._text(token, t_ms, "").encode()).hexdigest()

    def _text(self, token: int, t_ms: int, hash_: str) -> str:
        bids, asks = self.lists(token)
        return (f'{{"market":"{CONDITION}","asset_id":"{TOKENS[token]}","timestamp":"{t_ms}","hash":"{hash_}","bids":[{bids}],"asks":[{asks}],'
                f'"min_order_size":"5","tick_size":"0.01","neg_risk":false,"last_trade_price":""}}')

    def rest(self) -> bytes:
        """Answer of POST /books now."""
        return ("[" + ",".join(self._text(t, self.changed_ms, self.hash(t, self.changed_ms)) for t in (0, 1)) + "]").encode()

    def book(self, token: int, t_ms: int) -> bytes:
        bids, asks = self.lists(token)
        return (f'{{"event_type":"book","market":"{CONDITION}","asset_id":"{TOKENS[token]}","timestamp":"{t_ms}","hash":"{self.hash(token, t_ms)}",'
                f'"bids":[{bids}],"asks":[{asks}]}}').encode()

    def change(self, side: int, px: int, size: int, t_ms: int, tokens: tuple[int, ...] = (0, 1)) -> bytes:
        """Apply a new total and make its frame; ``tokens``: which entries it holds."""
        self.history.append((t_ms, dict(self.sides[0]), dict(self.sides[1])))
        if size:
            self.sides[side][px] = size
        else:
            self.sides[side].pop(px, None)
        self.changed_ms = t_ms
        bid, ask = max(self.sides[0], default=0), min(self.sides[1], default=10_000)
        entries = []
        for token in tokens:
            p, s = (10_000 - px, 1 - side) if token else (px, side)
            best = (10_000 - ask, 10_000 - bid) if token else (bid, ask)
            entries.append({"asset_id": TOKENS[token], "price": number_text(p, 4), "size": number_text(size, 6), "side": ("BUY", "SELL")[s],
                            "hash": self.hash(token, t_ms), "best_bid": number_text(best[0], 4), "best_ask": number_text(best[1], 4)})
        return json.dumps({"market": CONDITION, "price_changes": entries, "timestamp": str(t_ms), "event_type": "price_change"},
                          separators=(",", ":")).encode()

    def step(self, t_ms: int, tokens: tuple[int, ...] = (0, 1)) -> bytes:
        """A random change: mostly a new size, sometimes a level comes or goes."""
        rng, side = self.rng, self.rng.randrange(2)
        px = rng.choice(list(self.sides[side]))
        size = rng.randrange(1, 10**9) * 10
        top = max(self.sides[0]) if side == 0 else min(self.sides[1])
        if px == top and rng.random() < 0.2 and len(self.sides[side]) > 6:
            size = 0
        elif rng.random() < 0.1:
            px = top + (100 if side == 0 else -100)
            if px in self.sides[1 - side]:
                px = top
        return self.change(side, px, size, t_ms, tokens)


class World:
    """A venue, its links and REST, and the feed's brain, in virtual time. ``now_ns`` is monotonic; the venue's clock is T0_MS + now."""

    def __init__(self, seed: int, links: int = 2, limits: Limits | None = None, sides: tuple[dict, dict] | None = None):
        self.rng = random.Random(seed)
        self.venue = Venue(self.rng)
        if sides is not None:
            self.venue.sides = sides
        self.now_ns, self.steps = 100 * SECOND, 0
        self.counts: Counter = Counter()
        self.records: list[tuple[int, int, int]] = []
        self.channel = mc.MarketChannel(self._publish, lambda code, text: self.counts.update([f"bad {code}"]), links)
        self.watch = BookWatch(self.channel, limits or Limits(), 2000, lambda name, n: self.counts.update({name: n}))
        self._wire: list = []
        self._seq = 0
        self.frozen_links: set[int] = set()
        self.silent_token: int | None = None
        self.rest = "honest"            # honest, away, ghost, stale, old_lie, torn
        self.renewed: list[tuple[int, int, str]] = []
        self.lost_ns = 0                # when the first frame did not come that should have
        self.channel.follow(SLOT, MARKET_ID, TOKENS, 100, self.now_ns, CONDITION)
        self.market = self.channel.markets[SLOT]
        for link in range(links):
            self._join(link)
        self.next_change_ns, self.gap_s = self.now_ns, 0.02

    def _publish(self, market: mc.Market) -> None:
        self.records.append((self.now_ns, market.cells[mc.KIND_WORD], market.cells[mc.FLAGS_WORD]))

    def stamp(self) -> int:
        """The venue's clock, ms."""
        return T0_MS + self.now_ns // MS

    def _later(self, delay_ns: int, kind: str, *what) -> None:
        self._seq += 1
        heapq.heappush(self._wire, (self.now_ns + delay_ns, self._seq, kind, what))

    def _latency(self) -> int:
        return int((15 + self.rng.expovariate(1 / 6)) * MS)

    def _join(self, link: int) -> None:
        """A new socket: it is subscribed and gets the dump, and it works."""
        self.frozen_links.discard(link)
        self.channel.link_made(self.now_ns, link)
        for token in (0, 1):
            self._later(self._latency(), "frame", link, self.venue.book(token, self.venue.changed_ms))

    def send(self, frame: bytes) -> None:
        """A frame of the venue to every link that works."""
        for link in range(len(self.channel.links)):
            if link in self.frozen_links:
                if len(self.frozen_links) == len(self.channel.links):
                    self.lost_ns = self.lost_ns or self.now_ns + 15 * MS
            else:
                self._later(self._latency(), "frame", link, frame)

    def tick(self) -> None:
        """Five milliseconds."""
        self.now_ns += STEP_NS
        self.steps += 1
        while self.next_change_ns <= self.now_ns:
            self.next_change_ns += max(1, int(self.rng.expovariate(1 / self.gap_s) * SECOND))
            self.send(self.venue.step(self.stamp(), (0, 1) if self.silent_token is None else (1 - self.silent_token,)))
        while self._wire and self._wire[0][0] <= self.now_ns:
            _, _, kind, what = heapq.heappop(self._wire)
            getattr(self, "_do_" + kind)(*what)
        self.watch.prove(self.now_ns)
        if self.steps % JUDGE_STEPS == 0:
            for link, why in self.watch.judge((SLOT,), self.now_ns).items():
                self.renewed.append((self.now_ns, link, why))
                self._later(REJOIN_NS, "rejoin", link)
            asked = self.watch.questions((SLOT,), self.now_ns)
            if asked:
                self._later(int(self.rng.uniform(15, 60)) * MS, "rest", asked, self.now_ns)

    def _do_frame(self, link: int, frame: bytes) -> None:
        self.channel.on_frame(memoryview(frame), self.now_ns, link)

    def _do_rejoin(self, link: int) -> None:
        self._join(link)

    def _do_rest(self, asked: list, asked_ns: int) -> None:
        data = self.venue.rest()
        if self.rest == "away":
            data = None
        elif self.rest == "ghost":
            ghost = Venue(self.rng)
            ghost.sides, ghost.changed_ms = ({100: 10**9}, {9900: 10**9}), self.stamp()
            data = ghost.rest()
        elif self.rest == "stale" and self.venue.history:
            old = Venue(self.rng)
            t_ms, bids, asks = self.venue.history[max(0, len(self.venue.history) - 60)]
            old.sides, old.changed_ms = (bids, asks), t_ms - 1
            data = old.rest()
        elif self.rest == "old_lie":
            lie = Venue(self.rng)
            lie.sides, lie.changed_ms = ({**self.venue.sides[0], 50: 10**9}, self.venue.sides[1]), self.venue.changed_ms - 1
            data = lie.rest()
        elif self.rest == "torn":           # a level is missing, the hash is that of the whole
            lie = Venue(self.rng)
            lie.sides, lie.changed_ms = self.venue.sides, self.venue.changed_ms + 1
            data = lie.rest().replace(lie.lists(0)[0].split(",{")[0].encode() + b",", b"")
        self._later(int(self.rng.uniform(15, 60)) * MS, "answer", asked, asked_ns, data)

    def _do_answer(self, asked: list, asked_ns: int, data: bytes | None) -> None:
        self.watch.answer(asked, asked_ns, self.now_ns, data)

    def run(self, seconds: float, until=None) -> bool:
        """Let time pass; true when ``until()`` came true."""
        end = self.now_ns + int(seconds * SECOND)
        while self.now_ns < end:
            self.tick()
            if until is not None and until():
                return True
        return False

    # what we see

    @property
    def flags(self) -> int:
        """Flags of the newest record."""
        return int(self.market.cells[mc.FLAGS_WORD])

    def agrees(self) -> bool:
        """Our book is the venue's, level by level."""
        px, size = np.zeros(bk.POINTS, np.int64), np.zeros(bk.POINTS, np.int64)
        for side in (0, 1):
            n = bk.levels(self.market.book, 0, side, px, size)
            if dict(zip(px[:n].tolist(), size[:n].tolist(), strict=True)) != self.venue.sides[side]:
                return False
        return True

    # faults

    def freeze(self, *links: int) -> None:
        """Links fall silent; PING would still be answered."""
        self.frozen_links.update(links)
        self.lost_ns = 0

    def cancel_silently(self, n: int = 2) -> None:
        """Deep levels vanish at the venue and no frame says so."""
        for side in (0, 1):
            deep = sorted(self.venue.sides[side], reverse=side == 0)[4:]
            for px in self.rng.sample(deep, min(n, len(deep))):
                del self.venue.sides[side][px]
        self.lost_ns = self.now_ns

    def roll_back(self) -> None:
        """Both books come again with a new stamp and the contents of a while ago."""
        t_ms, bids, asks = self.venue.history[max(0, len(self.venue.history) - 40)]
        now = self.venue.sides
        self.venue.sides = (bids, asks)
        for token in (0, 1):
            self.send(self.venue.book(token, self.stamp()))
        self.venue.sides = now
        self.lost_ns = self.now_ns + 15 * MS


KINDS = ("both_frozen", "one_frozen", "token_silent", "rolled_back", "silent_cancels")


def inject(kind: str, seed: int) -> tuple[float, World]:
    """One fault in a market of random pace. Returns (s from the first wrong thing to its notice, inf if none in 8 s; the world).

    Noticed: a stream that is dead is flagged frozen (one dead link: made anew); a book that is wrong is flagged suspect, or right again.
    """
    world = World(seed)
    rng = world.rng
    world.gap_s = 10 ** rng.uniform(-2, -0.5)           # 100 to 3 frames a second
    world.run(3.0 + rng.random())
    begin = world.now_ns
    if kind == "both_frozen":
        world.freeze(0, 1)
        seen = world.run(8, lambda: world.flags & r.MF_FROZEN)
    elif kind == "one_frozen":
        world.channel.links[0].made_ns = world.channel.links[1].made_ns = world.now_ns - 60 * SECOND
        world.freeze(rng.randrange(2))
        seen = world.run(8, lambda: world.renewed)
        world.lost_ns = begin
    elif kind == "token_silent":
        world.channel.links[0].made_ns = world.channel.links[1].made_ns = world.now_ns - 60 * SECOND
        world.silent_token = rng.randrange(2)
        world.lost_ns = begin
        seen = world.run(8, lambda: world.renewed)
    else:
        (world.roll_back if kind == "rolled_back" else world.cancel_silently)()
        rereads = world.counts["rereads"]
        world.run(0.06)
        seen = world.run(8, lambda: world.flags & (r.MF_SUSPECT | r.MF_FROZEN) or world.counts["rereads"] > rereads or world.agrees())
    return ((world.now_ns - (world.lost_ns or begin)) / SECOND if seen else float("inf")), world


def recorded_tops() -> list[list[tuple[int, int, int, int, int]]]:
    """The bundled recording, window by window: (ms, bid, its size, ask, its size)."""
    path = Path(mc.__file__).parents[2] / "sim" / "tapes" / "btc15m.npz"
    with np.load(path) as d:
        rows, offset = d["rows"], d["offset"]
    return [rows[a:b].tolist() for a, b in zip(offset, offset[1:], strict=False)]


def replay_quiet(rows: list[tuple[int, int, int, int, int]], seed: int, hours: float = 1e9) -> tuple[World, float, float, int]:
    """A recorded window as the venue's book: only what was recorded happens, and between the rows nothing does.

    Returns (world, seconds run, share of the time our book counted as fresh, gaps longer than 5 s).
    """
    world = World(seed, sides=({rows[0][1]: rows[0][2]}, {rows[0][3]: rows[0][4]}))
    world.next_change_ns = 1 << 62
    world.run(0.5)
    start_ns, fresh, ticks = world.now_ns, 0, 0
    rows = [row for row in rows if (row[0] - rows[0][0]) / 3.6e6 <= hours]
    gaps = sum(b[0] - a[0] > 5000 for a, b in zip(rows, rows[1:], strict=False))
    for t_ms, bid, bid_size, ask, ask_size in rows[1:]:
        at = start_ns + (t_ms - rows[0][0]) * MS
        while world.now_ns < at:
            world.tick()
            ticks += 1
            fresh += world.now_ns - world.market.published_ns <= STALE_NS and not world.flags
        for side, px, size in ((0, bid, bid_size), (1, ask, ask_size)):
            there = 0 < px < 10_000 and size > 0
            for old in [p for p in world.venue.sides[side] if p != px or not there]:
                world.send(world.venue.change(side, old, 0, world.stamp()))
            if there:
                if world.venue.sides[side].get(px) != size:
                    world.send(world.venue.change(side, px, size, world.stamp()))
        world.tick()                    # the next row has a stamp of its own
    return world, (world.now_ns - start_ns) / SECOND, fresh / max(1, ticks), gaps


def main() -> None:
    """Print both tables."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    hours = float(sys.argv[2]) if len(sys.argv) > 2 else 1e9
    print(f"{'fault':16} {'n':>4} {'p50 s':>7} {'p90 s':>7} {'p99 s':>7} {'max s':>7}  missed")
    for kind in KINDS:
        times = np.array([inject(kind, seed)[0] for seed in range(n)])
        hit = times[np.isfinite(times)]
        q = np.percentile(hit, (50, 90, 99, 100)) if len(hit) else [np.nan] * 4
        print(f"{kind:16} {n:4} {q[0]:7.3f} {q[1]:7.3f} {q[2]:7.3f} {q[3]:7.3f}  {n - len(hit)}")
    total: Counter = Counter()
    for seed, rows in enumerate(recorded_tops()):
        world, seconds, fresh, gaps = replay_quiet(rows, seed, hours)
        total.update({"seconds": seconds, "fresh": fresh * seconds, "gaps": gaps, "freezes": world.counts["freezes"], "probes": world.counts["probes"],
                      "suspects": world.counts["suspects"], "renewed": len(world.renewed)})
    print(f"recording: {total['seconds'] / 3600:.2f} h, {total['gaps']} gaps over 5 s, {total['probes']} questions, {total['freezes']} false freezes, "
          f"{total['suspects']} false suspicions, {total['renewed']} links renewed, book fresh {total['fresh'] / total['seconds']:.3%} of the time")


if __name__ == "__main__":
    main()
