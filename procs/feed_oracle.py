"""Oracle feed: Chainlink BTC/USD spot and TWAP-60, which settles the markets, from two independent sources (RTDS and PolyBolt).

Writes: the `md.oracle` ring (every print once, the print of each 300 s boundary, the relay's copy of Binance) and the `oracle` seqlock (newest
prints and the boundaries). A print that contradicts an earlier one is published too, with ``trusted`` 0; a boundary's that loses its trust again. Reads: its own seqlock at start, so that a restart
within a window keeps the strike; `markets`, for what the venue says about our strikes afterwards. Can go wrong: a source stalls while
connected (the other one shows it: that link is made anew beside the old one), both stall (the age of data connects both anew; the core stops
quoting by the age of the prints), the sources disagree or a boundary's own second is missing (no trust, said).
"""

import asyncio
import random

from mmbot.actor import Actor, run_async
from mmbot.clock import mono_ns
from mmbot.errors import UserError
from mmbot.execution.credentials import credentials
from mmbot.venues.numbers import BadValue
from mmbot.venues.polymarket import polybolt, prints, rtds
from procs.ws_client import Plan, WsClient
from shm_layout import records as r
from shm_layout import seqlock

DATA_TIMEOUT_S = 5.0            # prints come each second; holes of some seconds are usual, then a new connection does no harm
USUAL_DELAY_NS = 3_000_000_000  # from a print's own second until a source sends it; nearly all are faster
ROWS_NS = 1_000_000_000
RESTART_NS = 5_000_000_000      # a link is not made anew for missing frames more often than this


class OracleFeed:
    """Both sources on a link each, with their prints in shared memory."""

    def __init__(self, actor: Actor, connect=None, rng: random.Random | None = None):
        self.actor = actor
        self._ring, self._state = actor.ring_writers["md.oracle"], actor.seqlock_writers["oracle"]
        self.recover()
        self.merger, self.watch = prints.Merger(self._state.rec[0]), prints.Watch()
        self.session = polybolt.Session()
        self._seen = {"missing": 0, "gaps": 0, "false": 0, "duplicates": 0, "other": 0}
        self._duplicates = 0
        self._rows_ns = self._rows_version = self._restart_ns = 0
        self._distrusted: set[int] = set()
        self.rtds = WsClient(actor, self._plan(r.OS_RTDS, actor.cfg.venue.rtds_url, self.on_rtds, lambda now_ns: [rtds.SUBSCRIBE],
                                               ping_s=5.0), connect, rng)
        self.clients = {r.OS_RTDS: self.rtds}
        if auth := self._polybolt_auth():
            self.clients[r.OS_POLYBOLT] = WsClient(actor, self._plan(
                r.OS_POLYBOLT, actor.cfg.venue.polybolt_url, self.on_polybolt, lambda now_ns: [auth], ping_s=polybolt.PING_S,
                ping=polybolt.PING, close_pause_s=polybolt.CLOSE_PAUSE_S), connect, rng)

    def _polybolt_auth(self) -> bytes:
        """The first message to PolyBolt; empty when it is not used."""
        if not self.actor.cfg.venue.polybolt_url:
            self.actor.log.info("venue.polybolt_url is not set: RTDS is the only source")
            return b""
        try:
            who = credentials(self.actor.cfg)
        except UserError as e:
            self.actor.warn("polybolt_unused", f"PolyBolt wants API credentials, RTDS is the only source: {e}")
            return b""
        return polybolt.authenticate(who.api_key, who.api_secret, who.api_passphrase)

    def _plan(self, source: int, url: str, on_text, first, **more) -> Plan:
        def on_connect(now_ns: int) -> list[bytes]:
            self.watch.connected(source, now_ns)
            if source == r.OS_POLYBOLT:
                self.session.restart()
            self.actor.vitals.event("subscribes")
            return first(now_ns)

        return Plan(url, on_connect, on_text, on_lost=lambda now_ns: self.watch.lost(source),
                    on_tick=lambda now_ns: self.on_tick(source, now_ns), data_timeout_s=DATA_TIMEOUT_S, alert_s=DATA_TIMEOUT_S,
                    overlap=True, name=prints.SOURCES[source], **more)

    async def run(self) -> None:
        """Both links, until the actor stops."""
        await asyncio.gather(*(client.run() for client in self.clients.values()))

    def recover(self) -> None:
        """Take over what an earlier incarnation knew."""
        state = self._state
        if seqlock.read(state.mem, 0, state.words) <= 0:
            state.words[:] = 0
        prints.forget_future(state.rec[0], self.actor.clock.now_ns() // 1_000_000)
        state.write()

    # -- frames --

    def on_rtds(self, payload: memoryview, t_recv_ns: int) -> None:
        if len(payload):
            self.watch.heard(r.OS_RTDS, t_recv_ns)
        try:
            p = rtds.decode(payload)
        except BadValue as e:
            self.actor.bad_input("oracle_frame", str(e))
            return
        if p is None:
            return
        if p.kind == r.OK_RELAY:
            prints.fill(self._ring.rec[0], p, t_recv_ns)
            self._publish()
        else:
            self.take(p, t_recv_ns)

    def on_polybolt(self, payload: memoryview, t_recv_ns: int) -> None:
        try:
            heard = self.session.on_frame(payload)
        except BadValue as e:
            self.actor.bad_input("polybolt_frame", str(e))
            return
        except polybolt.Refused as e:
            self.actor.error("polybolt_refused", f"PolyBolt answers {e}")
            return
        if heard.data:
            self.watch.heard(r.OS_POLYBOLT, t_recv_ns)
        for message in heard.replies:
            self.clients[r.OS_POLYBOLT].send(message)
        for p in heard.prints:
            self.take(p, t_recv_ns)

    def take(self, p: prints.Print, t_recv_ns: int) -> None:
        """One print of either source: out with it if it is news, with no trust if it contradicts."""
        self.watch.seen(p, t_recv_ns)
        state = self._state.rec[0]
        if (late_ns := p.t_exch_ns - p.t_obs_ms * 1_000_000 - USUAL_DELAY_NS) > 0:      # an old one, out of a snapshot: it is as old as it says
            t_recv_ns -= int(self.actor.clock.mono_delay_s(late_ns / 1e9) * 1e9)
        taken = self.merger.take(p, t_recv_ns)
        if taken.conflict:
            self.actor.error("sources_disagree", taken.conflict)
        elif not taken.fresh:
            self._duplicates += 1
            return
        if taken.newest or taken.conflict:
            prints.fill(self._ring.rec[0], p, t_recv_ns, int(not taken.conflict))
            self._publish()
        self._state.write()
        if taken.boundary >= 0:
            self._publish_boundary(state["boundary"][taken.boundary])

    def _publish_boundary(self, row) -> None:
        self._ring.rec[0] = row
        self._publish()
        self.actor.log.info("boundary {} print {}.{:018d} of {} trusted {}", int(row["t_obs_ms"]) // prints.BOUNDARY_MS * 300,
                            int(row["px_units"]), int(row["px_frac_e18"]), int(row["t_obs_ms"]), int(row["trusted"]))

    def _publish(self) -> None:
        self._ring.rec[0]["t_pub_ns"] = mono_ns()
        self._ring.publish()
        self.actor.ring_bells("md.oracle")
        self.actor.vitals.event("records")

    # -- ten times a second --

    def on_tick(self, source: int, now_ns: int) -> None:
        if why := self.watch.frozen(source, now_ns):
            self.actor.vitals.event("freezes")
            self.clients[source].restart(f"frozen: {why}")
        if boundary_s := self.merger.missing_boundary():
            self.actor.error("boundary_missing", f"no TWAP-60 print for the boundary {boundary_s}: its window has no strike")
        if now_ns - self._rows_ns >= ROWS_NS:
            self._rows_ns = now_ns
            self._read_checks()
        self._count(now_ns)

    def _read_checks(self) -> None:
        """What the venue says about our prints after the end of a window: a difference takes the trust from the print."""
        reader = self.actor.seqlock_readers["markets"]
        version = reader.version()
        if version == self._rows_version or reader.read() <= 0:
            return
        self._rows_version = version
        for row in reader.rec[0]["row"]:
            for bit, t_s in ((r.SC_START_BAD, int(row["start_s"])), (r.SC_END_BAD, int(row["end_s"]))):
                if int(row["strike_check"]) & bit and t_s not in self._distrusted:
                    self._distrusted.add(t_s)
                    self.actor.error("strike_differs", f"the venue has another TWAP-60 for {t_s} than we recorded: not trusted")
                    if (index := self.merger.distrust_boundary(t_s)) >= 0:
                        self._state.write()
                        self._publish_boundary(self._state.rec[0]["boundary"][index])

    def _count(self, now_ns: int) -> None:
        """Move the totals into the vitals page; frames that PolyBolt never delivered are fetched by a new link, which starts with a snapshot."""
        if self.session.gaps != self._seen["gaps"] and now_ns - self._restart_ns >= RESTART_NS:
            self._restart_ns = now_ns
            self.clients[r.OS_POLYBOLT].restart(f"{self.session.gaps - self._seen['gaps']} frames are missing")
        for key, event, total in (
                ("missing", "gaps", self.merger.missing), ("gaps", "gaps", self.session.gaps), ("other", "unknown", self.session.other),
                ("false", "false_alarms", self.watch.false_alarms), ("duplicates", "duplicates", self._duplicates + self.session.duplicates)):
            if total != self._seen[key]:
                self.actor.vitals.event(event, total - self._seen[key])
                self._seen[key] = total


async def main(actor: Actor, connect=None) -> None:
    await OracleFeed(actor, connect).run()


if __name__ == "__main__":
    run_async("feed_oracle", main)
