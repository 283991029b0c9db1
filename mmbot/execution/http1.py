"""Warm HTTP/1.1 connections: one write of prepared bytes out, one parsed answer in, one request in flight per connection.

Owns: the TCP (or TLS) connections to one host, their reconnection and keep-alive; and a dry line to rehearse on. `send_now` reaches the socket
before it returns: no task switch, no lock, no queue between a decision and its bytes.
Can go wrong: no free connection (`NotSent`: nothing left, send elsewhere or later); the connection breaks, stays silent or answers
with garbage after the request was written (`UnknownOutcome`: it may have had its effect; never repeated here).
Stamps: t_send_ns right after the write returns, t_ack_ns when the answer is complete, both CLOCK_MONOTONIC.
"""

import asyncio
import random
import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

import httptools
import msgspec

from mmbot.clock import mono_ns
from mmbot.errors import UserError

MAX_BODY = 16 << 20
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.05, 5.0
CONNECT_TIMEOUT_S = 5.0
CONNECT_POLL_S = 0.002
_SETTLED_NS = 1_000_000_000         # a connection that lived this long resets the backoff


class NotSent(Exception):
    """No byte of the request was written."""


class UnknownOutcome(Exception):
    """The request was written and no complete answer came: it may or may not have had its effect."""

    def __init__(self, reason: str, t_send_ns: int):
        super().__init__(reason)
        self.t_send_ns = t_send_ns


class HttpAnswer(msgspec.Struct):
    """A complete answer. Header names are lower case; of a repeated header the last one counts."""
    status: int
    headers: dict[str, str]
    body: bytes
    t_send_ns: int
    t_ack_ns: int


class HttpConnection(asyncio.Protocol):
    """One TCP connection. ``on_idle(conn)`` when it is free again after an answer, ``on_lost(conn, reason)`` once when it is gone."""

    def __init__(self, on_idle: Callable[["HttpConnection"], None], on_lost: Callable[["HttpConnection", str], None]):
        self._on_idle, self._on_lost = on_idle, on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._future: asyncio.Future | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._chunks: list[bytes] = []
        self._size = 0
        self._headers_done = self._stray = False
        self._reason = ""
        self.t_send_ns = 0
        self.t_used_ns = self.t_made_ns = mono_ns()
        self.answers = 0

    @property
    def idle(self) -> bool:
        """Whether the connection stands and no request is in flight."""
        return self._future is None and self._transport is not None and not self._transport.is_closing()

    @property
    def ready(self) -> bool:
        """Whether `send_now` would write, and the bytes would leave at once: a connection that still holds unsent bytes is late."""
        transport = self._transport
        return self._future is None and transport is not None and not transport.is_closing() and not transport.get_write_buffer_size()

    def send_now(self, data: bytes, timeout_s: float) -> asyncio.Future:
        """Write a whole request now; the future gives its `HttpAnswer`, or `UnknownOutcome`. Errors: NotSent."""
        if not self.ready:
            raise NotSent("the connection is busy or closed")
        return self.write(data, timeout_s)

    def write(self, data: bytes, timeout_s: float) -> asyncio.Future:
        """`send_now` for a caller that has just found the connection `ready`."""
        self._transport.write(data)
        self.t_send_ns = mono_ns()
        self._future = self._loop.create_future()
        self._timer = self._loop.call_later(timeout_s, self._late, timeout_s)
        return self._future

    def close(self, reason: str = "closed by us") -> None:
        """Drop the connection; a request in flight ends as `UnknownOutcome`."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.abort()

    def _late(self, timeout_s: float) -> None:
        self.close(f"no answer within {timeout_s:g} s")

    def connection_made(self, transport: asyncio.Transport) -> None:
        """asyncio: the connection stands."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes came in. Anything that is not the one answer to the one request closes the connection."""
        if self._future is None:
            self.close("bytes without a request")
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as e:
            self.close(f"the answer is not HTTP: {e}")
            return
        if self._stray:
            self.close("more than one answer to one request")

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is gone; an answer without a length ends here."""
        self._transport = None
        reason = self._reason or (str(exc) if exc else "closed by the other side")
        if self._future is not None and exc is None and not self._reason and self._ends_at_eof():
            self._finish()
        if self._future is not None:
            future, self._future = self._future, None
            self._timer.cancel()
            if not future.done():
                future.set_exception(UnknownOutcome(f"request sent, no complete answer: {reason}", self.t_send_ns))
        self._on_lost(self, reason)

    def _ends_at_eof(self) -> bool:
        return self._headers_done and "content-length" not in self._headers and "transfer-encoding" not in self._headers

    def on_message_begin(self) -> None:
        """Parser: a status line begins."""
        self._stray = self._stray or self._future is None
        self._headers, self._chunks, self._size, self._headers_done = {}, [], 0, False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Parser: one header."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Parser: the head is whole."""
        self._headers_done = True

    def on_body(self, body: bytes) -> None:
        """Parser: a piece of the body."""
        self._size += len(body)
        if self._size > MAX_BODY:
            self.close(f"the answer is longer than {MAX_BODY} bytes")
            return
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        """Parser: the answer is whole. An interim answer (1xx) is not the answer."""
        if self._future is None or self._reason or 100 <= self._parser.get_status_code() < 200:
            return
        self._finish()
        if self._transport is not None and not self._parser.should_keep_alive():
            self.close("the other side does not keep the connection")
        elif self._transport is not None:
            self._on_idle(self)

    def _finish(self) -> None:
        t_ack_ns = mono_ns()
        future, self._future = self._future, None
        self._timer.cancel()
        self.answers += 1
        self.t_used_ns = t_ack_ns
        if not future.done():
            future.set_result(HttpAnswer(self._parser.get_status_code(), self._headers, b"".join(self._chunks), self.t_send_ns, t_ack_ns))


class DryLine:
    """A connection of this process to itself, over the loopback: what is written to it goes nowhere. Rehearsals write to it, so that the way
    through the event loop and the kernel is in the caches when a request takes it. Nothing depends on it; TLS is not part of it."""

    def __init__(self):
        self._ends: list[asyncio.Transport] = []

    async def open(self) -> None:
        """Connect. Errors: OSError, TimeoutError."""
        loop = asyncio.get_running_loop()
        accepted = loop.create_future()
        server = await loop.create_server(lambda: _Drain(accepted), "127.0.0.1", 0)
        try:
            near, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
            self._ends = [near, await asyncio.wait_for(accepted, CONNECT_TIMEOUT_S)]
        finally:
            server.close()

    def write(self, size: int) -> None:
        """Write so many zero bytes, unless the last ones are still on their way. (No request: that would hold credentials.)"""
        if self._ends and not self._ends[0].is_closing() and not self._ends[0].get_write_buffer_size():
            self._ends[0].write(bytes(size))

    def close(self) -> None:
        """Disconnect."""
        for transport in self._ends:
            transport.abort()


class _Drain(asyncio.Protocol):
    """The far end of a dry line; bytes that come are dropped, as `asyncio.Protocol` does."""

    def __init__(self, accepted: asyncio.Future):
        self._accepted = accepted

    def connection_made(self, transport: asyncio.Transport) -> None:
        """asyncio: the connection stands."""
        if self._accepted.done():
            transport.abort()
        else:
            self._accepted.set_result(transport)


def _swallow(future: asyncio.Future) -> None:
    if not future.cancelled():
        future.exception()


class ConnectionPool:
    """``n`` connections to the host of ``url``, kept open, probed when idle, reopened with capped jittered backoff.

    ``timeout_s``: longest wait for an answer. ``probe``: bytes of a harmless GET, sent on connections idle for ``keepalive_s``.
    ``on_event(name)``: called with "connect", "connect_failed", "lost" (for counters). ``ssl_context``: default for https.
    """

    def __init__(self, url: str, n: int, timeout_s: float = 3.0, probe: bytes = b"", keepalive_s: float = 15.0,
                 on_event: Callable[[str], None] = lambda name: None, ssl_context: ssl.SSLContext | None = None):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"{url!r} is not a base URL like https://host or http://host:port")
        self.host, self.port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        self._ssl = (ssl_context or ssl.create_default_context()) if parts.scheme == "https" else None
        self.n, self.timeout_s, self._probe, self._keepalive_s, self._on_event = n, timeout_s, probe, keepalive_s, on_event
        self._idle: list[HttpConnection] = []
        self._open: set[HttpConnection] = set()
        self._lost: dict[HttpConnection, asyncio.Event] = {}
        self._tasks: list[asyncio.Task] = []
        self._jitter = random.Random()
        self.t_send_ns = 0
        self.last_error = ""

    @property
    def free(self) -> int:
        """Connections that can take a request now."""
        return sum(c.ready for c in self._idle)

    @property
    def can_send(self) -> bool:
        """Whether any connection can take a request now: `free` > 0, looking no further than the first."""
        for conn in reversed(self._idle):
            if conn.ready:
                return True
        return False

    async def start(self, ready: int = 1, wait_s: float = 0.0) -> None:
        """Open the connections in the background; with ``wait_s`` wait for ``ready`` of them. Errors: UserError if they do not come."""
        self._tasks = [asyncio.create_task(self._keep_one()) for _ in range(self.n)]
        if self._probe:
            self._tasks.append(asyncio.create_task(self._probe_idle()))
        if wait_s > 0:
            try:
                async with asyncio.timeout(wait_s):
                    while self.free < ready:
                        await asyncio.sleep(CONNECT_POLL_S)
            except TimeoutError:
                raise UserError(f"no connection to {self.host}:{self.port} within {wait_s:g} s: {self.last_error or 'no answer'}") from None

    async def close(self) -> None:
        """Drop everything; requests in flight end as `UnknownOutcome`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        gone = [self._lost[conn] for conn in self._open]
        for conn in list(self._open):
            conn.close()
        await asyncio.gather(*(event.wait() for event in gone))

    def send_now(self, data: bytes, timeout_s: float = 0.0) -> asyncio.Future:
        """Write a request on a free connection now; see `HttpConnection.send_now`. `t_send_ns` holds the stamp. Errors: NotSent."""
        for at in range(len(self._idle) - 1, -1, -1):       # the one used last first: its path is the warmest
            conn = self._idle[at]
            if conn.ready:
                del self._idle[at]
                future = conn.write(data, timeout_s or self.timeout_s)
                self.t_send_ns = conn.t_send_ns
                return future
        raise NotSent(f"no free connection to {self.host}:{self.port} ({len(self._open)} of {self.n} open, all busy)")

    async def request(self, data: bytes, timeout_s: float = 0.0) -> HttpAnswer:
        """`send_now` and wait, for callers that are in no hurry. Errors: NotSent, UnknownOutcome."""
        return await self.send_now(data, timeout_s)

    def _became_idle(self, conn: HttpConnection) -> None:
        self._open.add(conn)
        self._idle.append(conn)

    def _was_lost(self, conn: HttpConnection, reason: str) -> None:
        self._open.discard(conn)
        if conn in self._idle:
            self._idle.remove(conn)
        self.last_error = reason
        self._on_event("lost")
        if event := self._lost.pop(conn, None):
            event.set()

    def _new(self) -> HttpConnection:
        conn = HttpConnection(self._became_idle, self._was_lost)
        self._lost[conn] = asyncio.Event()
        return conn

    async def _keep_one(self) -> None:
        """Keep one connection open for ever."""
        loop, failures = asyncio.get_running_loop(), 0
        while True:
            conn = self._new()
            lost = self._lost[conn]
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await loop.create_connection(lambda c=conn: c, self.host, self.port, ssl=self._ssl)
            except (OSError, TimeoutError) as e:
                self._lost.pop(conn, None)
                self.last_error = str(e) or f"no connection within {CONNECT_TIMEOUT_S:g} s"
                self._on_event("connect_failed")
                failures += 1
            else:
                self._on_event("connect")
                if conn.idle:           # only now: a cancelled create_connection closes its transport without telling the protocol
                    self._became_idle(conn)
                await lost.wait()
                settled = conn.answers > 0 or mono_ns() - conn.t_made_ns > _SETTLED_NS
                failures = 0 if settled else failures + 1
            if failures:
                backoff_s = min(BACKOFF_FIRST_S * 2 ** min(failures - 1, 20), BACKOFF_MAX_S)
                await asyncio.sleep(backoff_s * (0.5 + self._jitter.random() / 2))

    async def _probe_idle(self) -> None:
        """Send the probe on connections nobody has used for a while: a dead one is found before an order needs it."""
        while True:
            await asyncio.sleep(self._keepalive_s / 4)
            horizon = mono_ns() - int(self._keepalive_s * 1e9)
            stale = [c for c in self._idle if c.ready and c.t_used_ns < horizon]
            spare = 1 if self.n == 1 else max(self.free - 1, 0)     # an order must find a free one
            for conn in stale[:spare]:
                self._idle.remove(conn)
                conn.send_now(self._probe, self.timeout_s).add_done_callback(_swallow)
