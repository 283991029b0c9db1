"""Market feed: the books of the current and next windows, from the venue's market channel.

Writes: the `md.market` ring (one record per frame that changed the top of a book, every trade) and the `book` seqlock (the newest record
per slot). Reads: `markets`, to know which tokens to follow. Can go wrong: see mmbot.venues.polymarket.market_channel; when a book stays
suspect its tokens are subscribed anew, which brings a snapshot, and when the data stops the connection is made anew.
"""

from mmbot.actor import Actor, run_async
from mmbot.clock import mono_ns
from mmbot.venues.polymarket import market_channel as mc
from procs.ws_client import Plan, WsClient
from shm_layout import records as r
from shm_layout.ring import publish
from shm_layout.seqlock import write
from shm_layout.vitals import hist_record, hop_base

ROWS_NS = 200_000_000           # how often the table of markets is looked at
SNAPSHOT_NS = 2_000_000_000     # ask again for the snapshot of a suspect book after this long
RESTART_ASKS = 3                # a new connection, on which every book starts empty, after so many that did not help ...
RESTART_NS = 60_000_000_000     # ... but not more often than this: it costs the other books their state
DATA_TIMEOUT_S = 5.0
_FOLLOWED = (r.MS_ANNOUNCED, r.MS_OPEN, r.MS_CLOSED)


class MarketFeed:
    """The market channel on a connection, with its records in shared memory."""

    def __init__(self, actor: Actor):
        self.actor = actor
        self.channel = mc.MarketChannel(self.publish, actor.bad_input)
        self.client = WsClient(actor, Plan(
            actor.cfg.venue.ws_url + "/market", self.on_connect, self.channel.on_frame, self.on_lost, self.on_tick,
            expects_data=self.expects_data, ping_s=10, data_timeout_s=DATA_TIMEOUT_S, silence_timeout_s=30))
        self._ring, self._book = actor.ring_writers["md.market"].mem, actor.seqlock_writers["book"].mem
        self._vitals, self._hop = actor.vitals.mem, hop_base("recv_pub")
        self._restart_ns = -RESTART_NS
        self._rows_ns = self._seen_version = self._table = 0
        self._live: set[int] = set()
        self._seen = {"unknown": 0, "frames_late": 0}

    def publish(self, market: mc.Market) -> None:
        """Stamp one record and put it where others see it."""
        now = mono_ns()
        market.cells[mc.T_PUB_WORD] = now
        publish(self._ring, market.rec)
        self.actor.ring_bells("md.market")
        write(self._book, market.slot, market.rec)
        hist_record(self._vitals, self._hop, now - market.published_ns)

    def expects_data(self) -> bool:
        """An open market is never silent for seconds; a closed one may be."""
        return bool(self._live)

    def on_connect(self, now_ns: int) -> list[bytes]:
        self.read_rows(now_ns)
        self.channel.link_made(now_ns)
        tokens = self.channel.tokens()
        self.actor.vitals.event("subscribes", len(tokens))
        return [mc.subscribe_first(tokens)]

    def on_lost(self, now_ns: int) -> None:
        self.channel.link_lost(now_ns)

    def on_tick(self, now_ns: int) -> None:
        if now_ns - self._rows_ns >= ROWS_NS:
            self._rows_ns = now_ns
            new, gone = self.read_rows(now_ns)
            if gone:
                self.client.send(mc.unsubscribe(gone))
            if new:
                self.client.send(mc.subscribe(new))
                self.actor.vitals.event("subscribes", len(new))
        late = [m for m in self.channel.stale_snapshots(now_ns, SNAPSHOT_NS) if m.slot in self._live]
        if late:
            tokens = [t for m in late for t in m.tokens]
            self.actor.vitals.event("suspects", len(late))
            self.client.send(mc.unsubscribe(tokens))
            self.client.send(mc.subscribe(tokens))
        if any(m.asks > RESTART_ASKS for m in late):
            self._restart(now_ns, "a book stays suspect")
        if self.channel.ahead(self.actor.clock.at(now_ns) // 1_000_000) is not None:
            self._restart(now_ns, "a book holds a stamp from the future")
        self._count()

    def _restart(self, now_ns: int, why: str) -> None:
        if now_ns - self._restart_ns >= RESTART_NS:
            self._restart_ns = now_ns
            self.client.restart(why)

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
            add, drop = self.channel.follow(slot, wanted, tokens, int(row["tick_e4"]), now_ns)
            new += add
            gone += drop
            (self._live.add if wanted and state != r.MS_CLOSED else self._live.discard)(slot)
        if new:
            self.actor.vitals.event("rolls")
        return new, gone

    def _count(self) -> None:
        totals = {"unknown": self.channel.unknown, "frames_late": self.channel.dropped()}
        for name, total in totals.items():
            if total != self._seen[name]:
                self.actor.vitals.event(name, total - self._seen[name])
                self._seen[name] = total


async def main(actor: Actor) -> None:
    await MarketFeed(actor).client.run()


if __name__ == "__main__":
    run_async("feed_market", main)
