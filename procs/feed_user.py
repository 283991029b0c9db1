"""User feed: own orders and trades, from the venue's user channel, on two sockets so that one that freezes loses nothing.

Writes: the `user` ring, and rings its readers' bells. Reads: `markets`, to name the market of an event; `account`, whose ``user_deaf`` grows when
the executor finds that the channel has not shown what the venue acknowledged (both sockets are then made anew). Can go wrong: both
sockets are lost at once (UK_DISCONNECTED, then UK_CONNECTED with a new connection number: the account must be read again, as the channel has no
replay); an event that cannot be read may have been a fill, so it counts as a break of the connection too; one socket misses what the other
shows (it is frozen: made anew).

The public activity stream is followed beside it for trades of our wallet: evidence of fills, never fills. It may be disabled without notice;
that is said once.
"""

import asyncio
from collections import deque

from mmbot.actor import Actor, run_async
from mmbot.clock import mono_ns
from mmbot.execution.credentials import credentials
from mmbot.venues.numbers import BadValue
from mmbot.venues.polymarket import activity
from mmbot.venues.polymarket import user_channel as uc
from procs.ws_client import Plan, WsClient
from shm_layout import records as r

CONNECTED_NS = 2_000_000_000    # without a PONG the subscription is taken to stand after this long
SILENCE_S = 30.0            # PING is answered by PONG; orders may be silent for as long as they like
OWED_NS = 2_000_000_000     # what one socket showed the other must show within this
DEAF_NS = 60_000_000_000        # a link called deaf has so long to be replaced
FRAMES_KEPT = 4096
ACTIVITY_SILENT_NS = 120_000_000_000
ACTIVITY_TIMEOUT_S = 300.0


class Socket:
    """One of the two connections to the channel."""

    def __init__(self, feed: "UserFeed", index: int, connect):
        self.feed, self.index = feed, index
        self.up, self.since_ns, self.due_ns = False, 0, 0
        self.client = WsClient(feed.actor, Plan(
            feed.actor.cfg.venue.ws_url + "/user", self.on_connect, self.on_text, self.on_lost, self.on_tick, on_pong=self.on_pong,
            ping_s=10, silence_timeout_s=SILENCE_S, overlap=True, name="ab"[index]), connect)

    def on_connect(self, now_ns: int) -> list[bytes]:
        self.up, self.since_ns, self.due_ns = False, now_ns, now_ns + CONNECTED_NS
        self.feed.actor.vitals.event("subscribes")
        self.feed.link_made()
        return [self.feed.subscribe]

    def on_pong(self, now_ns: int) -> None:
        """The venue has read the subscription: from here on nothing is missed."""
        if not self.up:
            self.up, self.since_ns = True, now_ns
        self.feed.link_up(now_ns)

    def on_tick(self, now_ns: int) -> None:
        if not self.up and now_ns >= self.due_ns:
            self.on_pong(now_ns)
        self.feed.on_tick(now_ns)

    def on_lost(self, now_ns: int) -> None:
        self.up = False
        self.feed.link_lost(now_ns)

    def on_text(self, payload: memoryview, t_recv_ns: int) -> None:
        self.feed.on_text(self, payload, t_recv_ns)


class Copies:
    """Which frames each socket has shown. A frame is news when no other socket has shown it as often."""

    def __init__(self) -> None:
        self._shown: dict[bytes, list[int]] = {}
        self._owed: deque[tuple[int, bytes]] = deque()
        self.duplicates = 0

    def news(self, index: int, frame: bytes, now_ns: int) -> bool:
        """Count a frame of a socket; false when it repeats what the other one showed."""
        counts = self._shown.get(frame)
        if counts is None:
            counts = self._shown[frame] = [0, 0]
            if len(self._shown) > FRAMES_KEPT:
                del self._shown[next(iter(self._shown))]
        counts[index] += 1
        if counts[index] <= counts[1 - index]:
            self.duplicates += 1
            return False
        self._owed.append((now_ns, frame))
        return True

    def behind(self, now_ns: int) -> list[tuple[int, int]]:
        """(socket, since when) of sockets that did not show what the other one did, ``OWED_NS`` ago or longer."""
        out = []
        while self._owed and now_ns - self._owed[0][0] > OWED_NS:
            t_ns, frame = self._owed.popleft()
            counts = self._shown.get(frame)
            if counts is not None and counts[0] != counts[1]:
                out.append((int(counts[0] > counts[1]), t_ns))
        return out


class UserFeed:
    """The user channel on two connections and the activity stream, with their records in shared memory."""

    def __init__(self, actor: Actor, connect=None):
        self.actor = actor
        who = credentials(actor.cfg)
        self.subscribe = uc.subscribe(who.api_key, who.api_secret, who.api_passphrase)
        self.channel = uc.UserChannel(who.api_key, who.funder, self.market_of)
        self.sockets = [Socket(self, index, connect) for index in (0, 1)]
        self.copies = Copies()
        self.activity = activity.Activity(who.funder, self.market_of)
        self._activity_client = WsClient(actor, Plan(
            actor.cfg.venue.rtds_url, self.on_activity_connect, self.on_activity, on_tick=self.on_activity_tick, ping_s=5,
            data_timeout_s=ACTIVITY_TIMEOUT_S, name="activity"), connect)
        self._activity_since_ns, self._activity_said = 0, False
        self._out = actor.ring_writers["user"]
        self._connection = mono_ns()        # grows over restarts of this process too
        self._told = False                  # UK_CONNECTED of this connection number is out
        self._anew = True                   # the next link starts a new connection number
        self._deaf = -1
        self._seen_version = self._table = 0
        self._seen = {"unknown": 0, "duplicates": 0}
        self._markets: dict[int, tuple[int, int, int]] = {}

    async def run(self) -> None:
        """All links, until the actor stops."""
        clients = [s.client for s in self.sockets]
        if self.actor.cfg.venue.rtds_url:
            clients.append(self._activity_client)
        await asyncio.gather(*(client.run() for client in clients))

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

    # -- the two sockets --

    def link_made(self) -> None:
        """A socket connected: when none stood before, something may have been missed."""
        if self._anew:
            self._anew = False
            self._break()

    def _break(self) -> None:
        """Something may have been missed: a new connection number, announced by UK_CONNECTED as soon as a subscription stands."""
        self._connection += 1
        self._told = False

    def link_up(self, now_ns: int) -> None:
        """A subscription stands."""
        if not self._told:
            self._told = True
            self._say(r.UK_CONNECTED, now_ns)

    def link_lost(self, now_ns: int) -> None:
        """A socket is gone; while the other one stands nothing is missed."""
        if not any(s.up for s in self.sockets):
            self._anew = True
            self._say(r.UK_DISCONNECTED, now_ns)

    def on_text(self, socket: Socket, payload: memoryview, t_recv_ns: int) -> None:
        if not self.copies.news(socket.index, bytes(payload), t_recv_ns):
            return
        try:
            rows = self.channel.on_frame(payload, t_recv_ns)
        except uc.Lost as e:
            rows = e.rows
            self.actor.bad_input("user_frame", str(e))
            if self._told:                  # what we could not read may have been a fill
                self._break()
        for words in rows:
            self._publish(words)
        if rows:
            self.actor.vitals.event("records", len(rows))
            self.actor.ring_bells("user")

    def on_tick(self, now_ns: int) -> None:
        for index, since_ns in self.copies.behind(now_ns):
            socket = self.sockets[index]
            if socket.up and socket.since_ns < since_ns:
                self.actor.vitals.event("freezes")
                socket.since_ns = now_ns
                socket.client.restart("it misses what the other socket shows")
        self._heed_deafness(now_ns)
        if not self._told and any(s.up for s in self.sockets):
            self.link_up(now_ns)
        for name, total in (("unknown", self.channel.unknown), ("duplicates", self.copies.duplicates)):
            if total != self._seen[name]:
                self.actor.vitals.event(name, total - self._seen[name])
                self._seen[name] = total

    def _heed_deafness(self, now_ns: int) -> None:
        """The executor says that the channel is deaf: new sockets, and what was missed is read again."""
        reader = self.actor.seqlock_readers["account"]
        if reader.read() <= 0:
            return
        deaf = int(reader.rec[0]["user_deaf"])
        if deaf > self._deaf >= 0:
            self._anew = True
            self.actor.vitals.event("deaf")
            for socket in self.sockets:
                socket.up, socket.due_ns = False, now_ns + DEAF_NS      # the old link's word counts no more
                socket.client.restart("the executor misses what the venue acknowledged")
        self._deaf = deaf

    # -- the activity stream --

    def on_activity_connect(self, now_ns: int) -> list[bytes]:
        self._activity_since_ns = now_ns
        return [activity.SUBSCRIBE]

    def on_activity(self, payload: memoryview, t_recv_ns: int) -> None:
        try:
            words = self.activity.on_frame(payload, t_recv_ns)
        except BadValue as e:
            self.actor.bad_input("activity_frame", str(e))
            return
        if words:
            self._publish(words)
            self.actor.vitals.event("records")
            self.actor.ring_bells("user")

    def on_activity_tick(self, now_ns: int) -> None:
        if not self._activity_said and not self.activity.trades and now_ns - self._activity_since_ns > ACTIVITY_SILENT_NS:
            self._activity_said = True
            self.actor.warn("activity_silent", "the public activity stream shows no trades: going on without a second witness of fills")


async def main(actor: Actor, connect=None) -> None:
    await UserFeed(actor, connect).run()


if __name__ == "__main__":
    run_async("feed_user", main)
