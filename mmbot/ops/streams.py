"""One look at a WebSocket stream from a command: connect, subscribe, wait for what proves that it works, leave.

Owns: one short-lived connection per `Stream`. Who calls: the doctor (do the streams answer?) and the live self-test (is our order shown?).
Can go wrong: no connection, a close, silence: a `StreamError` with one line of text.
"""

import asyncio
from collections.abc import Callable

import msgspec
import picows
from picows import WSAutoPingStrategy, WSListener, WSMsgType

from mmbot.execution.wire import USER_AGENT

TEXT = WSMsgType.TEXT


class StreamError(Exception):
    """The stream did not do what it should have."""


class _Ear(WSListener):
    def __init__(self, heard: asyncio.Queue):
        super().__init__()
        self.heard = heard

    def on_ws_frame(self, transport, frame) -> None:
        if frame.msg_type in (TEXT, WSMsgType.BINARY):
            self.heard.put_nowait(frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()
        elif frame.msg_type == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())

    def on_ws_disconnected(self, transport) -> None:
        self.heard.put_nowait(None)


class Stream:
    """``async with Stream(url, *first_messages)``; ``name`` is used in errors, never the messages (they may hold secrets)."""

    def __init__(self, name: str, url: str, *first: bytes, timeout_s: float = 5.0):
        self.name, self.url, self._first, self.timeout_s = name, url, first, timeout_s
        self._heard: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._transport = None

    async def __aenter__(self) -> "Stream":
        await self.open()
        return self

    async def __aexit__(self, *_exc) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect and send the first messages. Errors: StreamError."""
        try:
            async with asyncio.timeout(self.timeout_s):
                self._transport, _ = await picows.ws_connect(lambda: _Ear(self._heard), self.url, extra_headers={"User-Agent": USER_AGENT},
                                                             enable_auto_ping=False, auto_ping_strategy=WSAutoPingStrategy.PING_WHEN_IDLE)
        except (OSError, picows.WSError, TimeoutError) as e:
            raise StreamError(f"{self.name}: no connection to {self.url}: {str(e) or type(e).__name__}") from None
        for message in self._first:
            self.send(message)

    async def close(self) -> None:
        """Leave; a stream that never stood is left alone."""
        if self._transport is not None:
            self._transport.disconnect()
            self._transport = None

    def send(self, message: bytes) -> None:
        """Send one text frame."""
        self._transport.send(TEXT, message)

    async def until(self, found: Callable[[bytes], bool], what: str, timeout_s: float = 0.0) -> bytes:
        """The first frame for which ``found`` is true. Errors: StreamError that names ``what`` did not come."""
        try:
            async with asyncio.timeout(timeout_s or self.timeout_s):
                while True:
                    frame = await self._heard.get()
                    if frame is None:
                        self._heard.put_nowait(None)
                        raise StreamError(f"{self.name}: the venue closed the connection before {what} came")
                    if found(frame):
                        return frame
        except TimeoutError:
            raise StreamError(f"{self.name}: no {what} within {timeout_s or self.timeout_s:g} s") from None


def documents(frame: bytes) -> list[dict]:
    """The JSON objects in a frame: itself, those in an array, none in anything else."""
    try:
        found = msgspec.json.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []
    return [d for d in (found if isinstance(found, list) else [found]) if isinstance(d, dict)]
