"""User feed: own orders and trades, from the venue's user channel.

Writes: the `user` ring, and rings its readers' bells. Reads: `markets`, to name the market of an event. Can go wrong: the connection is lost
(UK_DISCONNECTED, then UK_CONNECTED with a new connection number: the account must be read again, as the channel has no replay); an event
that cannot be read may have been a fill, so it counts as a break of the connection too.
"""

from mmbot.actor import Actor, run_async
from mmbot.clock import mono_ns
from mmbot.execution.credentials import credentials
from mmbot.venues.polymarket import user_channel as uc
from procs.ws_client import Plan, WsClient
from shm_layout import records as r

CONNECTED_NS = 2_000_000_000    # without a PONG the subscription is taken to stand after this long
SILENCE_S = 30.0            # PING is answered by PONG; orders may be silent for as long as they like


class UserFeed:
    """The user channel on a connection, with its records in shared memory."""

    def __init__(self, actor: Actor):
        self.actor = actor
        who = credentials(actor.cfg)
        self._subscribe = uc.subscribe(who.api_key, who.api_secret, who.api_passphrase)
        self.channel = uc.UserChannel(who.api_key, who.funder, self.market_of)
        self.client = WsClient(actor, Plan(actor.cfg.venue.ws_url + "/user", self.on_connect, self.on_text, self.on_lost, self.on_tick,
                                           on_pong=self.on_pong, ping_s=10, silence_timeout_s=SILENCE_S))
        self._out = actor.ring_writers["user"]
        self._connection = mono_ns()        # grows over restarts of this process too
        self._up, self._due_ns = False, 0
        self._seen_version = self._table = self._unknown = 0
        self._markets: dict[int, tuple[int, int, int]] = {}

    def market_of(self, condition_id: str, asset_id: str) -> tuple[int, int]:
        """(market_id, token) from discovery's table; (0, -1) when it does not know the condition."""
        self._read_rows()
        try:
            market_id, up, down = self._markets[int(condition_id, 16)]
            asset = int(asset_id)
        except (KeyError, ValueError):
            return 0, r.NO_OUTCOME
        return market_id, r.UP if asset == up else r.DOWN if asset == down else r.NO_OUTCOME

    def _read_rows(self) -> None:
        reader = self.actor.seqlock_readers["markets"]
        version = reader.version()
        if version == self._seen_version or reader.read() <= 0:
            return
        self._seen_version = version
        if int(reader.rec[0]["version"]) != self._table:
            self._table = int(reader.rec[0]["version"])
            for row in reader.rec[0]["row"]:
                if row["market_id"]:
                    self._markets[r.id_value(row["condition_id"])] = (
                        int(row["market_id"]), r.id_value(row["token_up"]), r.id_value(row["token_down"]))

    def _publish(self, words: list[int]) -> None:
        out = self._out.words
        out[:] = words
        out[uc.FIELDS["connection"]] = self._connection
        out[uc.FIELDS["t_pub_ns"]] = mono_ns()
        self._out.publish()

    def _say(self, kind: int, now_ns: int) -> None:
        words = [0] * uc.WORDS
        words[uc.FIELDS["kind"]], words[uc.FIELDS["t_recv_ns"]], words[uc.FIELDS["token"]] = kind, now_ns, r.NO_OUTCOME
        self._publish(words)
        self.actor.ring_bells("user")

    def on_connect(self, now_ns: int) -> list[bytes]:
        self._break(now_ns + CONNECTED_NS)
        self.actor.vitals.event("subscribes")
        return [self._subscribe]

    def _break(self, due_ns: int) -> None:
        """Something may have been missed: a new connection number, announced by UK_CONNECTED at ``due_ns`` or at the next PONG."""
        self._connection += 1
        self._up, self._due_ns = False, due_ns

    def on_pong(self, now_ns: int) -> None:
        """The venue has read the subscription: from here on nothing is missed."""
        if not self._up:
            self._up = True
            self._say(r.UK_CONNECTED, now_ns)

    def on_tick(self, now_ns: int) -> None:
        if not self._up and now_ns >= self._due_ns:
            self.on_pong(now_ns)
        if self.channel.unknown != self._unknown:
            self.actor.vitals.event("unknown", self.channel.unknown - self._unknown)
            self._unknown = self.channel.unknown

    def on_lost(self, now_ns: int) -> None:
        self._up = False
        self._say(r.UK_DISCONNECTED, now_ns)

    def on_text(self, payload: memoryview, t_recv_ns: int) -> None:
        try:
            rows = self.channel.on_frame(payload, t_recv_ns)
        except uc.Lost as e:
            rows = e.rows
            self.actor.bad_input("user_frame", str(e))
            if self._up:                    # what we could not read may have been a fill
                self._break(t_recv_ns)
        for words in rows:
            self._publish(words)
        if rows:
            self.actor.vitals.event("records", len(rows))
            self.actor.ring_bells("user")


async def main(actor: Actor) -> None:
    await UserFeed(actor).client.run()


if __name__ == "__main__":
    run_async("feed_user", main)
