"""The network between simulated processes and the exchange: HTTP connections, HTTP sessions and WebSockets without sockets.

Owns: who listens on which port, every connection, and the delay of every delivery (seeded; on one connection nothing overtakes).
A request is parsed by httptools and answered by the exchange's own `Service.respond`; a WebSocket's server end is the exchange's own link.
What can go wrong: nobody listens (ConnectionRefusedError); a process dies (its peers see the connection close a little later).
"""

import asyncio
from urllib.parse import parse_qsl, urlencode, urlsplit

import aiohttp
import httptools
import msgspec
import numpy as np
import picows
from multidict import CIMultiDict, MultiDict
from picows import WSMsgType
from yarl import URL

from tests.dst.loop import ProcessLoop, Scheduler

US = 1_000
MEDIAN_NS, SPREAD, LEAST_NS = 900 * US, 0.5, 100 * US
DRAWN = 4096                # delays that are drawn at once


class Flow:
    """One direction of one connection: delays are random, the order is kept."""
    __slots__ = ("network", "loop", "last_ns")

    def __init__(self, network: "Network", loop: ProcessLoop):
        self.network, self.loop, self.last_ns = network, loop, 0

    def deliver(self, callback, *args) -> None:
        """Call something at the other end after the way there."""
        network = self.network
        when = network.scheduler.now_ns + network.delay_ns()
        if when <= self.last_ns:
            when = self.last_ns + 1
        self.last_ns = when
        self.loop.call_ns(when, callback, args)


class Network:
    """All ports and connections."""

    def __init__(self, scheduler: Scheduler):
        self.scheduler = scheduler
        self._delays: list[int] = []
        self.http: dict[int, object] = {}             # port -> Service
        self.ws: dict[int, object] = {}               # port -> accept
        self.server_loop: ProcessLoop | None = None
        self.after_request = lambda: None
        self.on_sent = lambda loop, data: None                # bytes of a request as they leave their process
        self.on_answer = lambda method, path, answer: None
        self.requests = self.frames = 0

    def delay_ns(self) -> int:
        """One way."""
        if not self._delays:
            draw = np.random.default_rng(self.scheduler.rng.getrandbits(64)).lognormal(0.0, SPREAD, DRAWN)
            self._delays = (LEAST_NS + MEDIAN_NS * draw).astype(np.int64).tolist()
        return self._delays.pop()

    async def travel(self) -> None:
        """Wait as long as one way takes."""
        await asyncio.sleep(self.delay_ns() / 1e9)

    # -- connections for http1 --

    async def connect_tcp(self, loop: ProcessLoop, factory, host: str, port: int):
        """What `loop.create_connection` does."""
        await self.travel()
        if port not in self.http or self.server_loop is None:
            raise ConnectionRefusedError(111, f"nobody listens on {host}:{port}")
        await self.travel()
        protocol = factory()
        client, server = Tcp(self, loop), Tcp(self, self.server_loop)
        client.peer, server.peer = server, client
        client.protocol, server.protocol = protocol, HttpServer(self, self.http[port], server)
        loop.closers.append(client.vanish)
        protocol.connection_made(client)
        return client, protocol

    # -- WebSockets --

    async def dial(self, make_listener, url: str):
        """What `ws_client.dial` does."""
        loop = asyncio.get_running_loop()
        parts = urlsplit(url)
        await self.travel()
        accept = self.ws.get(parts.port)
        if accept is None or self.server_loop is None:
            raise ConnectionRefusedError(111, f"nobody listens on {parts.netloc}")
        link = accept(Upgrade(parts.path + (f"?{parts.query}" if parts.query else "")))
        if link is None:
            raise picows.WSError("404 Not Found")
        client, server = Ws(self, loop), Ws(self, self.server_loop)
        client.peer, server.peer = server, client
        server.listener, client.listener = link, make_listener()
        self.server_loop.call_soon(link.on_ws_connected, server)
        await self.travel()
        if client.is_disconnected:
            raise ConnectionResetError("closed during the handshake")
        loop.closers.append(client.vanish)
        client.listener.on_ws_connected(client)
        return client


class Tcp:
    """One end of a byte stream, with the methods of an asyncio transport."""

    def __init__(self, network: Network, loop: ProcessLoop):
        self.network, self.loop = network, loop
        self.peer: Tcp | None = None
        self.protocol = None
        self.closed = False
        self._flow: Flow | None = None

    def _out(self) -> Flow:
        if self._flow is None:
            self._flow = Flow(self.network, self.peer.loop)
        return self._flow

    def write(self, data: bytes) -> None:
        if not self.closed:
            if self.loop is not self.network.server_loop:
                self.network.on_sent(self.loop, data)
            self._out().deliver(self.peer.arrived, bytes(data))

    def arrived(self, data: bytes) -> None:
        if not self.closed:
            self.protocol.data_received(data)

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name, default=None):
        return default

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high=None, low=None) -> None:
        pass

    def abort(self) -> None:
        """Close now: both ends learn of it, this one at its next turn."""
        if not self.closed:
            self.closed = True
            self._out().deliver(self.peer.hung_up)
            self.loop.call_soon(self.protocol.connection_lost, None)

    close = abort

    def hung_up(self) -> None:
        if not self.closed:
            self.closed = True
            self.protocol.connection_lost(None)

    def vanish(self) -> None:
        """The process at this end is dead."""
        if not self.closed:
            self.closed = True
            self._out().deliver(self.peer.hung_up)


class HttpServer:
    """The exchange's end of a connection: one request at a time through `Service.respond`."""

    def __init__(self, network: Network, service, transport: Tcp):
        self.network, self.service, self.transport = network, service, transport
        self._parser = httptools.HttpRequestParser(self)
        self._begin()

    def _begin(self) -> None:
        self._url, self._headers, self._body = b"", CIMultiDict(), []

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc) -> None:
        pass

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.add(name.decode("latin-1"), value.decode("latin-1"))

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        method, url, headers, body = self._parser.get_method().decode(), self._url.decode(), self._headers, b"".join(self._body)
        self._begin()
        self.transport.loop.create_task(self._answer(method, url, headers, body))

    async def _answer(self, method: str, url: str, headers, body: bytes) -> None:
        answer = await respond(self.network, self.service, method, url, headers, body)
        if answer is None:
            self.transport.abort()
            return
        status, extra, data = answer
        head = "".join(f"{k}: {v}\r\n" for k, v in extra.items() if k.lower() != "content-length")
        self.transport.write(f"HTTP/1.1 {status} X\r\n{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)


async def respond(network: Network, service, method: str, url: str, headers, body: bytes):
    """(status, headers, body) of the exchange, None when it cuts the connection."""
    network.requests += 1
    path, _, query = url.partition("?")
    try:
        answer = await service.respond(method, path, MultiDict(parse_qsl(query, keep_blank_values=True)), headers, body,
                                       network.scheduler.now_ns)
    finally:
        network.after_request()
    network.on_answer(method, path, answer)
    return answer


# -- HTTP sessions, for what uses aiohttp --

class Content:
    """The body of an answer as a stream."""

    def __init__(self, data: bytes):
        self._data = data

    async def read(self, n: int = -1) -> bytes:
        n = len(self._data) if n < 0 else n
        out, self._data = self._data[:n], self._data[n:]
        return out

    def at_eof(self) -> bool:
        return not self._data


class Answer:
    """What a request of a `Session` gives."""

    def __init__(self, url: str, status: int, headers: dict, body: bytes):
        self.url, self.status, self.headers, self.reason, self._body = url, status, CIMultiDict(headers), "X", body
        self.content = Content(body)

    @property
    def ok(self) -> bool:
        return self.status < 400

    async def read(self) -> bytes:
        return self._body

    async def text(self) -> str:
        return self._body.decode()

    def raise_for_status(self) -> None:
        if self.status >= 400:
            about = aiohttp.RequestInfo(URL(self.url), "GET", self.headers, URL(self.url))
            raise aiohttp.ClientResponseError(about, (), status=self.status, message="X", headers=self.headers)

    def release(self) -> None:
        pass


class _Asking:
    def __init__(self, coro):
        self._coro = coro

    def __await__(self):
        return self._coro.__await__()

    async def __aenter__(self) -> Answer:
        return await self._coro

    async def __aexit__(self, *_exc) -> None:
        pass


class Session:
    """Stands in for `aiohttp.ClientSession`."""
    network: Network = None             # set while a simulation runs

    def __init__(self, *, timeout=None, headers=None, **_):
        self._timeout_s = (timeout.total if timeout is not None else None) or 300.0
        self._headers = dict(headers or {})
        self.closed = False

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_exc) -> None:
        self.closed = True

    async def close(self) -> None:
        self.closed = True

    def get(self, url, **kwargs) -> _Asking:
        return self.request("GET", url, **kwargs)

    def post(self, url, **kwargs) -> _Asking:
        return self.request("POST", url, **kwargs)

    def request(self, method: str, url, *, params=None, headers=None, data=b"", json=None, timeout=None, **_) -> _Asking:
        if json is not None:
            data = msgspec.json.encode(json)
        if params:
            url = f"{url}?{urlencode(params)}"
        limit_s = self._timeout_s if timeout is None else timeout.total if hasattr(timeout, "total") else float(timeout)
        return _Asking(self._ask(method, str(url), {**self._headers, **(headers or {})}, data or b"", limit_s))

    async def _ask(self, method: str, url: str, headers: dict, body: bytes, limit_s: float) -> Answer:
        network, parts = self.network, urlsplit(url)
        async with asyncio.timeout(limit_s):
            await network.travel()
            service = network.http.get(parts.port)
            if service is None or network.server_loop is None:
                raise aiohttp.ClientConnectionError(f"nobody listens on {parts.netloc}")
            # in the exchange's loop: what it has begun goes on when the one who asked is gone
            done = asyncio.get_running_loop().create_future()
            way_back = Flow(network, done.get_loop())
            network.server_loop.create_task(_serve(network, service, method, parts, CIMultiDict(headers), bytes(body), done, way_back))
            answer = await done
        if answer is None:
            raise aiohttp.ServerDisconnectedError()
        return Answer(url, *answer)


async def _serve(network, service, method, parts, headers, body, done, way_back) -> None:
    url = parts.path + (f"?{parts.query}" if parts.query else "")
    answer = await respond(network, service, method, url, headers, body)
    way_back.deliver(_settle, done, answer)


def _settle(future, value) -> None:
    if not future.done():
        future.set_result(value)


# -- WebSockets --

class Upgrade:
    """The handshake request as a server sees it."""

    def __init__(self, path: str):
        self.path, self.method, self.headers = path.encode(), b"GET", CIMultiDict()


class Frame:
    """One frame, with the methods of picows' frames that are used."""
    __slots__ = ("msg_type", "payload", "fin", "code")

    def __init__(self, msg_type, payload: bytes, code=None):
        self.msg_type, self.payload, self.fin, self.code = msg_type, payload, True, code

    def get_payload_as_bytes(self) -> bytes:
        return self.payload

    def get_payload_as_memoryview(self) -> memoryview:
        return memoryview(self.payload)

    def get_close_code(self):
        return self.code

    def get_close_message(self):
        return self.payload


class Ws:
    """One end of a WebSocket."""

    def __init__(self, network: Network, loop: ProcessLoop):
        self.network, self.loop = network, loop
        self.peer: Ws | None = None
        self.listener = None
        self.is_disconnected = False
        self._flow: Flow | None = None
        self.underlying_transport = self
        self.request = self.response = None

    def is_closing(self) -> bool:
        return self.is_disconnected

    def get_write_buffer_size(self) -> int:
        return 0

    def _out(self) -> Flow:
        if self._flow is None:
            self._flow = Flow(self.network, self.peer.loop)
        return self._flow

    def send(self, kind, data, *_args, **_kwargs) -> None:
        if not self.is_disconnected:
            self.network.frames += 1
            self._out().deliver(self.peer.arrived, Frame(kind, data.encode() if isinstance(data, str) else bytes(data)))

    def send_ping(self, data=b"") -> None:
        pass

    def send_close(self, code=None, message=b"") -> None:
        if not self.is_disconnected:
            self._out().deliver(self.peer.arrived, Frame(WSMsgType.CLOSE, bytes(message or b""), code))

    def arrived(self, frame: Frame) -> None:
        if not self.is_disconnected:
            self.listener.on_ws_frame(self, frame)

    def disconnect(self, graceful: bool = True) -> None:
        """Close this end; the other one learns of it."""
        if not self.is_disconnected:
            self.is_disconnected = True
            self._out().deliver(self.peer.hung_up)
            self.loop.call_soon(self.listener.on_ws_disconnected, self)

    def abort(self) -> None:
        """Reset: no close frame, the other end finds out."""
        self.disconnect(False)

    def hung_up(self) -> None:
        if not self.is_disconnected:
            self.is_disconnected = True
            self.listener.on_ws_disconnected(self)

    def vanish(self) -> None:
        """The process at this end is dead."""
        if not self.is_disconnected:
            self.is_disconnected = True
            self._out().deliver(self.peer.hung_up)
