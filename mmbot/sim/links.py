"""One client of a WebSocket port: keepalive, decoding, sending, and what a fault or a shuffle does to frames on their way out.

Owns: the socket's transport, the number of the link among its channel's, frames that are still held back. Who subclasses: `channels` and
the other feeds. What can go wrong: a client that stops reading (cut when too much is buffered), garbage from a client (answered, ignored),
frames due after the link is gone (dropped).

`Shuffle` makes a channel as untidy as the recorded one: most frames leave at once, a share is late, books more often than changes, so that
stamps arrive out of order; now and then a frame is wrapped into an array, or an empty array is sent. Source: venue protocol, WebSocket
channels and what the recorded frames show.
"""

import asyncio
import heapq
import random

import msgspec
from picows import WSAutoPingStrategy, WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

from mmbot.clock import mono_ns
from mmbot.sim.faults import NO_FAULTS, Faults

TEXT = WSMsgType.TEXT
MAX_BUFFERED = 16_000_000      # bytes waiting for a client that does not read
CHECK_EVERY = 64               # sends between two looks at the buffer
MAX_CLIENT_FRAME = 1_000_000
#: shares of the recorded channel: late books, other late frames, frames in an array, empty arrays
LATE_BOOKS, LATE_OTHERS, WRAPPED, EMPTY = 0.45, 0.22, 0.01, 0.002

_decode = msgspec.json.Decoder(dict).decode


class Shuffle:
    """How late each frame of one link leaves; deterministic from its seed."""

    def __init__(self, shuffle_ms: float, seed: int):
        self._max_s, self._random = shuffle_ms / 1000, random.Random(seed)

    def delay_s(self, data: bytes) -> float:
        """Seconds that this frame is held back, 0 for most."""
        draw = self._random.random
        if b'"bids":' in data:                        # 1 to 35 of 100 ms on the recorded channel
            return self._max_s * (0.01 + 0.34 * draw()) if draw() < LATE_BOOKS else 0.0
        return min(self._max_s, self._random.expovariate(1 / (0.1 * self._max_s))) if draw() < LATE_OTHERS else 0.0

    def shape(self, data: bytes) -> list[bytes]:
        """The frame as it is sent: nearly always itself."""
        x = self._random.random()
        if x < EMPTY:
            return [b"[]", data]
        return [b"[" + data + b"]"] if x < WRAPPED and data[:1] == b"{" else [data]


class Link(WSListener):
    """One client. Answers PING, decodes JSON objects, cuts a link whose reader has stopped."""
    channel = "market"             # how faults call it
    pong: bytes | None = b"PONG"
    shuffle: Shuffle | None = None
    deaf = False                   # sends nothing any more, not even PONG, and stays open

    def __init__(self, faults: Faults = NO_FAULTS):
        super().__init__()
        self.transport: WSTransport | None = None
        self.faults, self.number = faults, faults.join(self.channel)
        self._sent, self._cut = 0, False
        self._held: list[tuple[float, int, bytes]] = []
        self._count = 0

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.faults.opened(self.channel, self.number, self)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._cut = True
        self.faults.closed(self.channel, self.number)
        self.gone()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        elif frame.msg_type in (TEXT, WSMsgType.BINARY):
            payload = frame.get_payload_as_bytes()
            if payload.upper() == b"PING":
                if self.pong is not None:
                    self.put(self.pong)
                return
            try:
                message = _decode(payload)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                self.put(b"INVALID MESSAGE")
                return
            self.message(message)

    def send(self, data: bytes) -> None:
        """Send a data frame, as the running faults and the shuffle have it."""
        shuffle, faulty = self.shuffle, self.channel in self.faults.frames
        if shuffle is None and not faulty:
            self.put(data)
            return
        for part in shuffle.shape(data) if shuffle is not None else (data,):
            held_s = shuffle.delay_s(part) if shuffle is not None else 0.0
            outs = self.faults.on_frame(self.channel, self.number, part, mono_ns() / 1e6) if faulty else ((0.0, part),)
            for wait_s, out in outs:
                if wait_s + held_s > 0:
                    self._hold(wait_s + held_s, out)
                else:
                    self.put(out)

    def _hold(self, wait_s: float, data: bytes) -> None:
        """Send later; frames that are due at the same moment keep their order."""
        loop = asyncio.get_running_loop()
        self._count += 1
        heapq.heappush(self._held, (loop.time() + wait_s, self._count, data))
        loop.call_later(wait_s, self._let_go)

    def _let_go(self) -> None:
        self.put(heapq.heappop(self._held)[2])

    def put(self, data: bytes) -> None:
        """A text frame into the socket, now; a reader that has stopped is cut off."""
        if self._cut or self.deaf or self.transport.underlying_transport.is_closing():
            return
        self.transport.send(TEXT, data)
        self._sent += 1
        if self._sent % CHECK_EVERY == 0 and self.transport.underlying_transport.get_write_buffer_size() > MAX_BUFFERED:
            self._cut = True
            self.transport.disconnect(False)

    def abort(self) -> None:
        """Cut the connection without a close frame."""
        self.transport.underlying_transport.abort()

    def message(self, message: dict) -> None:
        """A JSON object from the client."""

    def gone(self) -> None:
        """The link is down."""


class ServedLink(Link):
    """A client of a ``server`` that keeps its clients in ``links`` and pushes to them."""

    def __init__(self, server):
        super().__init__(server.faults)
        self.server = server

    def on_ws_connected(self, transport: WSTransport) -> None:
        super().on_ws_connected(transport)
        self.server.links.add(self)

    def gone(self) -> None:
        self.server.links.discard(self)


def strings(value) -> list[str]:
    """A list of strings from untrusted JSON; everything else is left out."""
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []


async def serve(factory, port: int, ping_s: float | None = None) -> asyncio.Server:
    """One WebSocket server on 127.0.0.1; ``ping_s``: protocol pings of the server. Errors: OSError."""
    pings = {"enable_auto_ping": True, "auto_ping_idle_timeout": ping_s, "auto_ping_reply_timeout": ping_s,
             "auto_ping_strategy": WSAutoPingStrategy.PING_PERIODICALLY} if ping_s else {}
    return await ws_create_server(factory, "127.0.0.1", port, max_frame_size=MAX_CLIENT_FRAME, **pings)
