"""A WebSocket client that stays connected. Not a process: the feed processes share it.

Owns: one link at a time, its reconnects (capped, jittered backoff), the text ping some venues want, and the watchdog on the age of data
(a venue may answer PING for minutes while its data stands still). Every frame is stamped before anything else is done with it.
A feed that must not lose anything when one link freezes runs two clients side by side with one decoder.
Writes: event counters of the process's vitals. Can go wrong: the venue is away (counted and logged once a minute, tried again for ever);
a link that is only suspected (with `Plan.overlap` its successor is up before it is dropped).
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import picows
from picows import WSListener, WSMsgType, WSTransport

from mmbot.clock import mono_ns
from mmbot.venues.round_trip import RoundTrip

#: frames beyond this are not even buffered: picows drops the connection and it is made anew
MAX_FRAME_BYTES = 16 << 20
_TICK_S = 0.1
_BACKOFF_S, _BACKOFF_CAP_S = 0.1, 5.0
#: a connection that lived this long was a good one: the next loss starts with a short pause again
_GOOD_NS = 5_000_000_000
_S = 1_000_000_000
_STALL_NS = 1_000_000_000
_RETRY_AFTER_CAP_S = 60.0
_HEADERS = {"User-Agent": "mmbot"}


@dataclass
class Plan:
    """What one feed wants from its connection.

    on_connect(now_ns) -> first messages; on_text(payload memoryview, t_recv_ns), valid during the call only; on_lost(now_ns) after a loss;
    on_tick(now_ns) ten times a second while connected; on_pong(now_ns) when PONG came, which says that all we sent before was read (a ping
    follows the first messages). ping_s 0: no text ping. data_timeout_s 0: no limit on the age of data; it counts
    while expects_data() is true. silence_timeout_s 0: no limit on the age of anything received, PONG included.
    `WsClient.round_trip` measures what answers the text ping.
    alert_s 0: nobody is told of silence; else an error is raised once per episode without data for so long, connected or not.
    life_s 0: no limit; else the link is replaced at that age, before the venue cuts it.
    overlap: a suspected or aged link is dropped when its successor is up (`on_connect` without `on_lost`), not before.
    close_pause_s: close code -> most seconds to stay away for after it (a random share of them).
    name: tells two links of one feed apart.
    """
    url: str
    on_connect: Callable[[int], list[bytes]]
    on_text: Callable[[memoryview, int], None]
    on_lost: Callable[[int], None] = lambda now_ns: None
    on_tick: Callable[[int], None] = lambda now_ns: None
    on_pong: Callable[[int], None] = lambda now_ns: None
    expects_data: Callable[[], bool] = lambda: True
    ping_s: float = 0.0
    data_timeout_s: float = 0.0
    silence_timeout_s: float = 0.0
    ping: bytes = b"PING"
    alert_s: float = 0.0
    life_s: float = 0.0
    overlap: bool = False
    close_pause_s: dict[int, float] = field(default_factory=dict)
    name: str = ""


class Listener(WSListener):
    """One link's callbacks. The first line of `on_ws_frame` is the receive stamp of everything that follows from the frame."""

    def __init__(self, client: "WsClient"):
        super().__init__()
        self.client = client
        self.transport: WSTransport | None = None
        self.closed = False
        self.parts: list[bytes] = []

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.client.adopt(self)

    def on_ws_frame(self, transport: WSTransport, frame) -> None:
        now = mono_ns()
        client = self.client
        if client.link is not self:     # its successor speaks now
            return
        client.heard_ns = now
        kind = frame.msg_type
        if kind == WSMsgType.TEXT and frame.fin:
            payload = frame.get_payload_as_memoryview()
            if len(payload) == 4 and payload == b"PONG":
                client.round_trip.answered(now)
                client.plan.on_pong(now)
                return
            client.on_payload(self, payload, now)
        elif kind in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION):
            self._part(frame, now)
        elif kind == WSMsgType.CLOSE:
            client.close_code = int(frame.get_close_code())
            transport.send_close(frame.get_close_code())
            transport.disconnect()

    def _part(self, frame, now: int) -> None:
        """A message in several frames, or a binary one: put together, then handled as text."""
        self.parts.append(frame.get_payload_as_bytes())
        if sum(map(len, self.parts)) > MAX_FRAME_BYTES:
            self.parts.clear()
            self.drop()
        elif frame.fin:
            whole = b"".join(self.parts)
            self.parts.clear()
            self.client.on_payload(self, memoryview(whole), now)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.closed = True
        self.client.lost(self)

    def drop(self) -> None:
        """Cut this link without ceremony."""
        if self.transport is not None:
            self.transport.disconnect(False)


async def dial(make_listener: Callable[[], Listener], url: str) -> WSTransport:
    """Connect by picows. Errors: OSError, picows.WSError, TimeoutError."""
    transport, _ = await picows.ws_connect(make_listener, url, websocket_handshake_timeout=5, max_frame_size=MAX_FRAME_BYTES,
                                           extra_headers=_HEADERS)
    return transport


class WsClient:
    """Keeps one link by its `Plan` until the process stops: ``await WsClient(actor, plan).run()``.

    connect(make_listener, url) -> transport: replaces the socket; a transport has ``send(kind, data)``, ``disconnect(graceful)`` and
    ``is_disconnected``, and calls the listener's ``on_ws_connected``, ``on_ws_frame`` and ``on_ws_disconnected`` as picows does. It raises
    OSError when there is no venue. rng: where the jitter comes from.
    """

    def __init__(self, actor, plan: Plan, connect: Callable[..., Awaitable] | None = None, rng: random.Random | None = None):
        self.actor, self.plan = actor, plan
        self._dial, self._rng = connect or dial, rng or random.Random()
        self.link: Listener | None = None
        self.heard_ns = self.data_ns = 0
        self.frames = self.bytes = self.connections = 0
        self.close_code = 0
        self.round_trip = RoundTrip()
        self._made_ns = self._fed_ns = 0
        self._alarmed = False
        self._suspicion = ""
        self._retry_after_s = 0.0
        self._who = f"{plan.url} ({plan.name})" if plan.name else plan.url

    @property
    def connected(self) -> bool:
        """Is a link up?"""
        return self.link is not None

    def send(self, message: bytes) -> bool:
        """Send one text message; false when there is no connection (the next `on_connect` says everything anew)."""
        link = self.link
        if link is None or link.transport.is_disconnected:
            return False
        link.transport.send(WSMsgType.TEXT, message)
        return True

    def _ping(self, now: int) -> None:
        if self.send(self.plan.ping):
            self.round_trip.sent(now)

    def restart(self, why: str) -> None:
        """Give this connection up and make a new one; with `Plan.overlap` the new one first."""
        if self._suspicion:
            return
        self.actor.warn("restart_connection", f"{self._who}: {why}: connecting anew")
        if self.plan.overlap:
            self._suspicion = why
        elif self.link is not None:
            self.link.drop()

    def adopt(self, link: Listener) -> None:
        """A handshake is done: this link is the one from here on, and its predecessor ends."""
        old, self.link = self.link, link
        now = mono_ns()
        self.heard_ns = self.data_ns = self._made_ns = now
        self.connections += 1
        self._suspicion, self._retry_after_s, self.close_code = "", 0.0, 0
        try:
            for message in self.plan.on_connect(now):
                self.send(message)
        except Exception as e:
            self._crashed(link, e)
        self.round_trip.reset()
        if self.plan.ping_s:
            self._ping(now)
        if old is not None:
            old.drop()
        self.actor.log.info("connected to {}", self._who)

    def on_payload(self, link: Listener, payload: memoryview, now: int) -> None:
        """One message of the link; a fault of ours on one frame must not end the feed: it is said, and the link made anew."""
        self.data_ns = now
        self.frames += 1
        self.bytes += len(payload)
        try:
            self.plan.on_text(payload, now)
        except Exception as e:
            self._crashed(link, e)

    def _crashed(self, link: Listener, error: Exception) -> None:
        self.actor.error("frame_crash", f"{type(error).__name__}: {error}")
        link.drop()

    async def run(self) -> None:
        """Connect, subscribe, watch; again after every loss, until the actor stops."""
        failures = 0
        self._fed_ns = mono_ns()
        while not self.actor.stopping:
            begin = mono_ns()
            if failures or self.connections:
                self.actor.vitals.event("reconnects")
            link = await self._open()
            while link is not None:
                link = await self._watch(link)
            if mono_ns() - begin >= _GOOD_NS:
                failures = 0
            await self._sleep(self._pause_s(failures))
            failures += 1

    def _pause_s(self, failures: int) -> float:
        """How long to stay away: longer after each failure, never in step with others, and as long as the venue asks for."""
        pause = min(_BACKOFF_CAP_S, _BACKOFF_S * 2 ** min(failures, 10)) * self._rng.uniform(0.5, 1.0)
        asked = self._rng.uniform(0.0, self.plan.close_pause_s.get(self.close_code, 0.0))
        return max(pause, asked, self._retry_after_s)

    async def _open(self) -> Listener | None:
        """A new link that is up, or None."""
        link = Listener(self)
        try:
            link.transport = await self._dial(lambda: link, self.plan.url)
        except (OSError, picows.WSError, asyncio.TimeoutError) as e:
            self._retry_after_s = _retry_after_s(e)
            self.actor.warn("connect_failed", f"{self._who}: {str(e) or type(e).__name__}")
            return None
        if self.link is not link and not link.closed:       # a transport that does not announce itself
            self.adopt(link)
        return link

    async def _watch(self, link: Listener) -> Listener | None:
        """Stay with a link until it closes, falls silent or is replaced, or the process stops. Returns its successor, if one is up."""
        ping_ns = ticked_ns = mono_ns()
        successor: asyncio.Task | None = None
        while not link.closed and not self.actor.stopping and not (successor and successor.done()):
            now = mono_ns()
            if now - ticked_ns > _STALL_NS:     # we did not run for a while: what the venue sent meanwhile has not been read yet
                self.heard_ns = self.data_ns = now
            ticked_ns = now
            if self.plan.ping_s and now - ping_ns >= self.plan.ping_s * _S:
                ping_ns = now
                self._ping(now)
            self.round_trip.look(now)
            self.plan.on_tick(now)
            self._count()
            self._alarm(now)
            if successor is None and (why := self._stale(now)):
                if not self.plan.overlap:
                    break
                self.actor.log.info("{}: {}: a new link first", self._who, why)
                self.actor.vitals.event("reconnects")
                successor = asyncio.ensure_future(self._open())
            await asyncio.sleep(_TICK_S)
        if successor is not None and self.actor.stopping:
            successor.cancel()
        elif successor is not None and (fresh := await successor) is not None:
            return fresh
        link.drop()
        while not link.closed:
            await asyncio.sleep(0.001)
        return None

    def _stale(self, now: int) -> str:
        plan, why = self.plan, ""
        if not plan.expects_data():
            self.data_ns = now
        if plan.data_timeout_s and now - self.data_ns > plan.data_timeout_s * _S:
            why = f"no data for {plan.data_timeout_s:g} s"
        elif plan.silence_timeout_s and now - self.heard_ns > plan.silence_timeout_s * _S:
            why = f"no sign of life for {plan.silence_timeout_s:g} s"
        if why:
            self.actor.warn("stale_connection", f"{self._who}: {why}: connecting anew")
        elif plan.life_s and now - self._made_ns > plan.life_s * _S:
            why = f"{plan.life_s:g} s old"
        return why or self._suspicion

    def lost(self, link: Listener) -> None:
        """A link is gone; said at once, not at the next tick."""
        if link is not self.link:
            return
        self.link = None
        self._count()
        if not self.actor.stopping:
            self.actor.vitals.event("disconnects")
            self.actor.warn("disconnected", f"{self._who}: connection lost" + (f" (close code {self.close_code})" if self.close_code else ""))
        self.plan.on_lost(mono_ns())

    def _count(self) -> None:
        """Move what was counted since the last tick into the vitals page: one addition ten times a second instead of one per frame."""
        if self.frames:
            self.actor.vitals.event("frames", self.frames)
            self.actor.vitals.event("bytes", self.bytes)
            self.frames = self.bytes = 0
            self._fed_ns, self._alarmed = max(self._fed_ns, self.data_ns), False

    def _alarm(self, now: int) -> None:
        """Tell of an episode of silence, once."""
        if not self.plan.alert_s or self._alarmed:
            return
        if not self.plan.expects_data():
            self._fed_ns = now
        if now - self._fed_ns > self.plan.alert_s * _S:
            self._alarmed = True
            self.actor.error("silent", f"{self._who}: no data for {self.plan.alert_s:g} s")

    async def _sleep(self, seconds: float) -> None:
        """Sleep, or less if the process is to stop."""
        end = mono_ns() + int(seconds * _S)
        while not self.actor.stopping and (left_ns := end - mono_ns()) > 0:
            self._alarm(mono_ns())
            await asyncio.sleep(min(_TICK_S, left_ns / _S))


def _retry_after_s(error: Exception) -> float:
    """Seconds the venue asked us to stay away for, 0 if it did not."""
    response = getattr(error, "response", None)
    text = response.headers.get("Retry-After", "") if response is not None else ""
    return min(float(text), _RETRY_AFTER_CAP_S) if text.isdecimal() else 0.0
