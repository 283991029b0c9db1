"""A WebSocket client that stays connected. Not a process: the feed processes share it.

Owns: one connection at a time, its reconnects (capped, jittered backoff), the text PING some venues want, and the watchdog on the age of data
(a venue may answer PING for minutes while its data stands still). Every frame is stamped before anything else is done with it.
Writes: event counters of the process's vitals. Can go wrong: the venue is away (counted and logged once a minute, tried again for ever).
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

import picows
from picows import WSListener, WSMsgType, WSTransport

from mmbot.clock import mono_ns

#: frames beyond this are not even buffered: picows drops the connection and it is made anew
MAX_FRAME_BYTES = 16 << 20
_TICK_S = 0.1
_BACKOFF_S, _BACKOFF_CAP_S = 0.1, 5.0
#: a connection that lived this long was a good one: the next loss starts with a short pause again
_GOOD_NS = 5_000_000_000
_S = 1_000_000_000
_STALL_NS = 1_000_000_000
_HEADERS = {"User-Agent": "mmbot"}


@dataclass
class Plan:
    """What one feed wants from its connection.

    on_connect(now_ns) -> first messages; on_text(payload memoryview, t_recv_ns), valid during the call only; on_lost(now_ns) after a loss;
    on_tick(now_ns) ten times a second while connected; on_pong(now_ns) when PONG came, which says that all we sent before was read (a PING
    follows the first messages). ping_s 0: no text PING. data_timeout_s 0: no limit on the age of data; it counts
    while expects_data() is true. silence_timeout_s 0: no limit on the age of anything received, PONG included.
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


class _Listener(WSListener):
    """One connection's callbacks. The first line of `on_ws_frame` is the receive stamp of everything that follows from the frame."""

    def __init__(self, client: "WsClient"):
        self.client = client
        self.closed = False
        self.parts: list[bytes] = []

    def on_ws_frame(self, transport: WSTransport, frame) -> None:
        now = mono_ns()
        client = self.client
        client.heard_ns = now
        kind = frame.msg_type
        if kind == WSMsgType.TEXT and frame.fin:
            payload = frame.get_payload_as_memoryview()
            if len(payload) == 4 and payload == b"PONG":
                client.plan.on_pong(now)
                return
            client.on_payload(transport, payload, now)
        elif kind in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION):
            self._part(transport, frame, now)
        elif kind == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()

    def _part(self, transport: WSTransport, frame, now: int) -> None:
        """A message in several frames, or a binary one: put together, then handled as text."""
        self.parts.append(frame.get_payload_as_bytes())
        if sum(map(len, self.parts)) > MAX_FRAME_BYTES:
            self.parts.clear()
            transport.disconnect(False)
        elif frame.fin:
            whole = b"".join(self.parts)
            self.parts.clear()
            self.client.on_payload(transport, memoryview(whole), now)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.closed = True
        self.client.lost(transport)


class WsClient:
    """Keeps one connection by its `Plan` until the process stops: ``await WsClient(actor, plan).run()``."""

    def __init__(self, actor, plan: Plan):
        self.actor, self.plan = actor, plan
        self.transport: WSTransport | None = None
        self.heard_ns = self.data_ns = 0
        self.frames = self.bytes = self.connections = 0

    def send(self, message: bytes) -> bool:
        """Send one text message; false when there is no connection (the next `on_connect` says everything anew)."""
        transport = self.transport
        if transport is None or transport.is_disconnected:
            return False
        transport.send(WSMsgType.TEXT, message)
        return True

    def restart(self, why: str) -> None:
        """Give this connection up and make a new one."""
        self.actor.warn("restart_connection", f"{self.plan.url}: {why}: connecting anew")
        if self.transport is not None:
            self.transport.disconnect(False)

    def on_payload(self, transport: WSTransport, payload: memoryview, now: int) -> None:
        self.data_ns = now
        self.frames += 1
        self.bytes += len(payload)
        try:
            self.plan.on_text(payload, now)
        except Exception as e:      # a fault of ours on one frame must not end the feed: say it, and start from a fresh connection
            self.actor.error("frame_crash", f"{type(e).__name__}: {e}")
            transport.disconnect(False)

    async def run(self) -> None:
        """Connect, subscribe, watch; again after every loss, until the actor stops."""
        failures = 0
        while not self.actor.stopping:
            begin = mono_ns()
            if failures or self.connections:
                self.actor.vitals.event("reconnects")
            listener = await self._connect()
            if listener is not None:
                self.connections += 1
                await self._watch(listener)
            if mono_ns() - begin >= _GOOD_NS:
                failures = 0
            pause = min(_BACKOFF_CAP_S, _BACKOFF_S * 2 ** min(failures, 10)) * random.uniform(0.5, 1.0)
            failures += 1
            await self._sleep(pause)

    async def _connect(self) -> _Listener | None:
        try:
            self.transport, listener = await picows.ws_connect(
                lambda: _Listener(self), self.plan.url, websocket_handshake_timeout=5, max_frame_size=MAX_FRAME_BYTES,
                extra_headers=_HEADERS)
        except (OSError, picows.WSError, asyncio.TimeoutError) as e:
            self.actor.warn("connect_failed", f"{self.plan.url}: {str(e) or type(e).__name__}")
            return None
        now = mono_ns()
        self.heard_ns = self.data_ns = now
        for message in self.plan.on_connect(now):
            self.send(message)
        if self.plan.ping_s:
            self.send(b"PING")
        self.actor.log.info("connected to {}", self.plan.url)
        return listener

    async def _watch(self, listener: _Listener) -> None:
        """Stay with a connection until it closes, goes silent, or the process stops."""
        plan = self.plan
        ping_ns = ticked_ns = mono_ns()
        while not listener.closed and not self.actor.stopping:
            now = mono_ns()
            if now - ticked_ns > _STALL_NS:     # we did not run for a while: what the venue sent meanwhile has not been read yet
                self.heard_ns = self.data_ns = now
            ticked_ns = now
            if plan.ping_s and now - ping_ns >= plan.ping_s * _S:
                ping_ns = now
                self.send(b"PING")
            plan.on_tick(now)
            self._count()
            if why := self._stale(now):
                self.actor.warn("stale_connection", f"{plan.url}: {why}: connecting anew")
                break
            await asyncio.sleep(_TICK_S)
        if self.transport is not None:
            self.transport.disconnect(False)
        while not listener.closed:
            await asyncio.sleep(0)
        if self.transport is not None:      # it closed before the handshake's answer reached us
            self.lost(self.transport)

    def _stale(self, now: int) -> str:
        plan = self.plan
        if not plan.expects_data():
            self.data_ns = now
        if plan.data_timeout_s and now - self.data_ns > plan.data_timeout_s * _S:
            return f"no data for {plan.data_timeout_s:g} s"
        if plan.silence_timeout_s and now - self.heard_ns > plan.silence_timeout_s * _S:
            return f"no sign of life for {plan.silence_timeout_s:g} s"
        return ""

    def lost(self, transport: WSTransport) -> None:
        """The connection is gone; said at once, not at the next tick."""
        if transport is not self.transport:
            return
        self.transport = None
        self._count()
        if not self.actor.stopping:
            self.actor.vitals.event("disconnects")
            self.actor.warn("disconnected", f"{self.plan.url}: connection lost")
        self.plan.on_lost(mono_ns())

    def _count(self) -> None:
        """Move what was counted since the last tick into the vitals page: one addition ten times a second instead of one per frame."""
        if self.frames:
            self.actor.vitals.event("frames", self.frames)
            self.actor.vitals.event("bytes", self.bytes)
            self.frames = self.bytes = 0

    async def _sleep(self, seconds: float) -> None:
        """Sleep, or less if the process is to stop."""
        end = mono_ns() + int(seconds * _S)
        while not self.actor.stopping and (left_ns := end - mono_ns()) > 0:
            await asyncio.sleep(min(_TICK_S, left_ns / _S))
