"""Market feed: the books of the current and next windows, from the venue's market channel.

Writes: the `md.market` ring (one record per frame that changed the top of a book, every trade, every proof that a silent book is still the
venue's) and the `book` seqlock (the newest record per slot). Reads: `markets`, to know which tokens to follow.
Several sockets carry the same stream into one decoder. Beside the hot path the books are proved by their checksums, and REST is asked when a
stream is silent or doubted (mmbot.venues.polymarket.book_watch). Can go wrong: see there; when a book stays suspect its tokens are subscribed
anew, which brings a snapshot, and a socket that is found dead is made anew while the other one goes on.
"""

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp

from mmbot.actor import Actor, run_async
from mmbot.books.evidence import QUIET, Limits, verdict
from mmbot.clock import mono_ns
from mmbot.venues.polymarket import market_channel as mc
from mmbot.venues.polymarket.book_watch import BookWatch
from procs.ws_client import Plan, WsClient
from shm_layout import records as r
from shm_layout.ring import publish
from shm_layout.seqlock import write
from shm_layout.vitals import hist_record, hop_base

PROVE_S = 0.005                 # a turn of the proofs
JUDGE_S = 0.025                 # a look at streams and books
ROWS_NS = 200_000_000           # how often the table of markets is looked at
SNAPSHOT_NS = 2_000_000_000     # ask again for the snapshot of a suspect book after this long
RESTART_ASKS = 3                # new connections, on which every book starts empty, after so many that did not help ...
RESTART_NS = 60_000_000_000     # ... but not more often than this: it costs the other books their state
REFUSED_NS = 2_000_000_000      # REST is left alone for so long after it refused or was away
DATA_TIMEOUT_S = 5.0
MAX_ANSWER_BYTES = 4 << 20
PING_S = 10.0
PING_FAST_S = 1.0               # ... when the core stops quoting on slow answers
_MS = 1_000_000
_FOLLOWED = (r.MS_ANNOUNCED, r.MS_OPEN, r.MS_CLOSED)


class BooksClient:
    """POST /books over one kept connection."""

    def __init__(self, url: str, timeout_s: float):
        self._url, self._timeout = url + "/books", aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, body: bytes) -> bytes:
        """The answer's body. Errors: OSError (aiohttp's too) and TimeoutError for anything but 200."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout, headers={"User-Agent": "mmbot", "Content-Type": "application/json"})
        async with self._session.post(self._url, data=body) as answer:
            if answer.status != 200:
                raise OSError(f"POST /books: HTTP {answer.status}")
            return await answer.content.read(MAX_ANSWER_BYTES)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


class MarketFeed:
    """The market channel on its sockets, with its records in shared memory.

    connect: replaces the socket (`WsClient`); ask(body) -> answer: replaces POST /books.
    """

    def __init__(self, actor: Actor, connect=None, ask: Callable[[bytes], Awaitable[bytes]] | None = None):
        self.actor, books = actor, actor.cfg.books
        self.channel = mc.MarketChannel(self.publish, actor.bad_input, books.links, int(books.hold_ms * _MS))
        self.limits = Limits(int(books.quiet_ms * _MS), int(books.ask_every_ms * _MS), int(books.grace_ms * _MS), int(books.behind_ms * _MS),
                             int(books.dead_ms * _MS))
        self.watch = BookWatch(self.channel, self.limits, books.hashes_per_s, actor.vitals.event)
        self.clients = [WsClient(actor, self._plan(n), connect) for n in range(books.links)]
        self._ask = ask or BooksClient(actor.cfg.venue.clob_url, books.rest_timeout_s)
        self._asking: asyncio.Task | None = None
        self._ask_after_ns = 0
        self._ring, self._book = actor.ring_writers["md.market"].mem, actor.seqlock_writers["book"].mem
        self._vitals, self._hop = actor.vitals.mem, hop_base("recv_pub")
        self._restart_ns = -RESTART_NS
        self._rtt_ns = 0
        self._rows_ns = self._seen_version = self._table = 0
        self._live: set[int] = set()
        self._seen = {"unknown": 0, "frames_late": 0, "duplicates": 0}

    def _plan(self, n: int) -> Plan:
        channel, watched = self.channel, self.actor.cfg.strategy.capital.latency_kill_ns > 0
        return Plan(self.actor.cfg.venue.ws_url + "/market", lambda now_ns: self.on_connect(now_ns, n),
                    lambda data, t_recv_ns: channel.on_frame(data, t_recv_ns, n), lambda now_ns: channel.link_lost(now_ns, n),
                    expects_data=self.expects_data, ping_s=PING_FAST_S if watched else PING_S, data_timeout_s=DATA_TIMEOUT_S, silence_timeout_s=30, overlap=True,
                    name="abcd"[n])

    def publish(self, market: mc.Market) -> None:
        """Stamp one record and put it where others see it."""
        now = mono_ns()
        market.cells[mc.T_PUB_WORD], market.cells[mc.RTT_WORD] = now, self._rtt_ns
        publish(self._ring, market.rec)
        self.actor.ring_bells("md.market")
        write(self._book, market.slot, market.rec)
        if market.cells[mc.KIND_WORD] != r.MK_VERIFIED:     # its time is that of a question, not of a frame
            hist_record(self._vitals, self._hop, now - market.published_ns)

    def expects_data(self) -> bool:
        """An open market is never silent for seconds, unless REST has just shown that nothing happened."""
        now = mono_ns()
        return any(verdict(self.channel.markets[slot].witness, now, self.limits, True) != QUIET for slot in self._live)

    def on_connect(self, now_ns: int, link: int) -> list[bytes]:
        """First messages of a new socket."""
        self.read_rows(now_ns)
        self.channel.link_made(now_ns, link)
        tokens = self.channel.tokens()
        self.actor.vitals.event("subscribes", len(tokens))
        return [mc.subscribe_first(tokens)]

    # loops

    async def run(self) -> None:
        """Everything, until the process stops."""
        try:
            await asyncio.gather(*(c.run() for c in self.clients), self._every(PROVE_S, self.watch.prove), self._every(JUDGE_S, self.look))
        finally:
            if self._asking is not None:
                self._asking.cancel()
            if isinstance(self._ask, BooksClient):
                await self._ask.close()

    async def _every(self, seconds: float, work: Callable[[int], None]) -> None:
        while not self.actor.stopping:
            work(mono_ns())
            await asyncio.sleep(seconds)

    def look(self, now_ns: int) -> None:
        """Follow the table, judge streams and books, ask REST, ask for snapshots."""
        self._rtt_ns = min((n for c in self.clients if c.connected and (n := c.round_trip.average_ns)), default=0)
        if now_ns - self._rows_ns >= ROWS_NS:
            self._rows_ns = now_ns
            self._follow(now_ns)
            self._ask_for_snapshots(now_ns)
            self._count()
        for link, why in self.watch.judge(self._live, now_ns).items():
            self.channel.doubt(link, now_ns)
            self.clients[link].restart(why)
        if (self._asking is None or self._asking.done()) and now_ns >= self._ask_after_ns:
            asked = self.watch.questions(self._live, now_ns)
            if asked:
                self._asking = asyncio.ensure_future(self._question(asked))

    async def _question(self, asked: list[mc.Market]) -> None:
        """Ask REST for the books of some markets; no answer is an answer too."""
        ids, asked_ns = [m.market_id for m in asked], mono_ns()
        self.actor.vitals.event("requests")
        try:
            data = await self._ask(mc.books_query(t for m in asked for t in m.tokens))
        except (OSError, asyncio.TimeoutError, aiohttp.ClientError) as e:
            data = None
            self._ask_after_ns = mono_ns() + REFUSED_NS
            self.actor.vitals.event("timeouts" if isinstance(e, asyncio.TimeoutError) else "request_errors")
            self.actor.warn("books_unanswered", str(e) or type(e).__name__)
        self.watch.answer([m for m, i in zip(asked, ids, strict=True) if m.market_id == i], asked_ns, mono_ns(), data)

    # markets

    def _send_all(self, message: bytes) -> None:
        for client in self.clients:
            client.send(message)

    def _follow(self, now_ns: int) -> None:
        new, gone = self.read_rows(now_ns)
        if gone:
            self._send_all(mc.unsubscribe(gone))
        if new:
            self._send_all(mc.subscribe(new))
            self.actor.vitals.event("subscribes", len(new))

    def _ask_for_snapshots(self, now_ns: int) -> None:
        """Subscribe suspect books anew; when that does not help, start from new connections."""
        late = [m for m in self.channel.stale_snapshots(now_ns, SNAPSHOT_NS) if m.slot in self._live]
        if late:
            tokens = [t for m in late for t in m.tokens]
            self.actor.vitals.event("suspects", len(late))
            self._send_all(mc.unsubscribe(tokens))
            self._send_all(mc.subscribe(tokens))
        if any(m.asks > RESTART_ASKS for m in late):
            self._restart(now_ns, "a book stays suspect")
        if self.channel.ahead(self.actor.clock.at(now_ns) // 1_000_000) is not None:
            self._restart(now_ns, "a book holds a stamp from the future")

    def _restart(self, now_ns: int, why: str) -> None:
        if now_ns - self._restart_ns >= RESTART_NS:
            self._restart_ns = now_ns
            self.channel.start_anew()
            for client in self.clients:
                client.restart(why)

    def read_rows(self, now_ns: int) -> tuple[list[str], list[str]]:
        """Follow the markets discovery names, leave those that are resolved. Returns (tokens to subscribe, tokens to unsubscribe)."""
        reader = self.actor.seqlock_readers["markets"]
        version = reader.version()
        if version == self._seen_version or reader.read() <= 0:
            return [], []
        self._seen_version = version
        if int(reader.rec[0]["version"]) == self._table:
            return [], []               # written again to say that discovery lives; the rows are the same
        self._table = int(reader.rec[0]["version"])
        new, gone = [], []
        for slot, row in enumerate(reader.rec[0]["row"]):
            state = int(row["state"])
            wanted = int(row["market_id"]) if state in _FOLLOWED else 0
            tokens = (str(r.id_value(row["token_up"])), str(r.id_value(row["token_down"])))
            add, drop = self.channel.follow(slot, wanted, tokens, int(row["tick_e4"]), now_ns, f"0x{r.id_value(row['condition_id']):064x}",
                                            int(row["min_size_u6"]), bool(row["neg_risk"]))
            new += add
            gone += drop
            (self._live.add if wanted and state != r.MS_CLOSED else self._live.discard)(slot)
        if new:
            self.actor.vitals.event("rolls")
        return new, gone

    def _count(self) -> None:
        totals = {"unknown": self.channel.unknown, "frames_late": self.channel.dropped(), "duplicates": self.channel.duplicates}
        for name, total in totals.items():
            if total != self._seen[name]:
                self.actor.vitals.event(name, total - self._seen[name])
                self._seen[name] = total


async def main(actor: Actor) -> None:
    await MarketFeed(actor).run()


if __name__ == "__main__":
    run_async("feed_market", main)
