"""One HTTP port of the exchange: finding a route, running it, and what a running fault does to request and answer.

Owns: `Service`, from a request's parts to status, headers and bytes (`respond`: everything but the socket), and the aiohttp wrapper
around it (`handle`). Who calls: the server's ports, and a network without sockets. Routes are added by `mmbot.sim.rest`; they raise
`ApiError`, `AuthError` or `OrderError` for what the venue refuses.
What can go wrong: a defect in a route (answered with 500, counted in ``failures``, never the end of the exchange); a client that is
gone when its answer is ready (its request has had its effect all the same).
"""

import asyncio
from collections.abc import Callable, Mapping

import msgspec
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from mmbot.clock import mono_ns
from mmbot.sim.auth import AuthError
from mmbot.sim.faults import NO_FAULTS, Answer, Faults
from mmbot.sim.faults.requests import mangled
from mmbot.sim.orders import OrderError

JSON = {"Content-Type": "application/json"}


class ApiError(Exception):
    """A refusal: HTTP status, JSON body, extra headers."""

    def __init__(self, status: int, error: str | dict, headers: dict | None = None):
        super().__init__(error)
        self.status, self.headers = status, headers
        self.payload = {"error": error} if isinstance(error, str) else error


class StampedHandler(RequestHandler):
    """An HTTP connection that knows when its newest byte arrived (the handler itself starts later)."""
    __slots__ = ("last_byte_ns",)

    def data_received(self, data: bytes) -> None:
        self.last_byte_ns = mono_ns()
        super().data_received(data)


class StampedServer(web.Server):
    """aiohttp's low-level server with `StampedHandler` connections."""

    def __call__(self) -> RequestHandler:
        return StampedHandler(self, loop=self._loop, **self._kwargs)


class Request(msgspec.Struct):
    """What a route sees of a request."""
    method: str
    path: str
    tail: str                     # of a path that ends in an id
    query: Mapping
    headers: Mapping
    body: bytes
    t_ns: int

    def arg(self, name: str) -> str:
        """One query argument, "" when missing."""
        return self.query.get(name, "")

    def number(self, name: str, default: int) -> int:
        """One query argument as a number. Errors: ApiError."""
        text = self.arg(name)
        if text and not text.isdecimal():
            raise ApiError(400, f"invalid {name}")
        return int(text) if text else default

    def json(self, kind: type):
        """The body as JSON of a type. Errors: ApiError."""
        try:
            return msgspec.json.decode(self.body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise ApiError(400, "Invalid payload") from None


class Raw:
    """An answer that is JSON text already, with extra headers."""

    def __init__(self, text: bytes, headers: dict | None = None):
        self.text, self.headers = text, headers


class Service:
    """Routes of one port. ``routes``: (method, path) -> handler; a path ending in "/" takes an id behind it."""
    name = "clob"                 # how faults call this port

    def __init__(self):
        self.routes: dict[tuple[str, str], Callable] = {}
        self.faults: Faults = NO_FAULTS
        self.failures = 0
        self.last_failure = ""

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """The aiohttp side of `respond`; a request that gets no answer has its connection cut."""
        body = await request.read()
        answer = await self.respond(request.method, request.path, request.query, request.headers, body,
                                    getattr(request.protocol, "last_byte_ns", 0))
        if answer is None:
            request.protocol.force_close()
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)        # nobody is there to read it
        status, headers, data = answer
        return web.Response(body=data, status=status, headers=headers)

    async def respond(self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes,
                      t_ns: int) -> tuple[int, dict[str, str], bytes] | None:
        """(status, headers, body) of a request, or None when the connection is to be cut without an answer.

        ``query`` is a multidict (a name may occur several times), ``t_ns`` the monotonic stamp of the request's last byte (0: unknown).
        Running faults may delay, refuse, mangle or swallow it; waiting is asyncio.sleep.
        """
        faults = self.faults
        if not faults.http:
            return self.answer(method, path, query, headers, body, t_ns)
        plan = faults.on_request(method, path, mono_ns() / 1e6, body, self.name)
        if plan.delay_before_s:
            await asyncio.sleep(plan.delay_before_s)
        if plan.refuse is not None:
            answer = plan.refuse
        elif plan.run:
            faults.batch = plan.batch
            answer = Answer(*self.answer(method, path, query, headers, body, t_ns))
            faults.batch = None
        else:
            answer = Answer(504, {}, b"")
        for mangle in plan.mangle:
            answer = mangled(mangle, answer)
        if plan.delay_after_s:
            await asyncio.sleep(plan.delay_after_s)
        return None if plan.lose_answer else (answer.status, answer.headers, answer.body)

    def answer(self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes,
               t_ns: int) -> tuple[int, dict[str, str], bytes]:
        """Find the route, run it, turn what comes back into status, headers and bytes."""
        head, _, tail = path.rpartition("/")
        route = self.routes.get((method, path)) or (self.routes.get((method, head + "/")) if head and tail else None)
        status, extra = 200, None
        try:
            if route is None:
                raise ApiError(404, "not found")
            answer = route(Request(method, path, tail, query, headers, body, t_ns))
        except ApiError as e:
            status, answer, extra = e.status, e.payload, e.headers
        except AuthError as e:
            status, answer = 401, {"error": str(e)}
        except OrderError as e:
            status, answer = 400, {"error": str(e)}
        except Exception as e:                        # a defect here must look like the venue's, not end the exchange
            self.failures += 1
            self.last_failure = f"{method} {path}: {type(e).__name__}: {e}"
            status, answer = 500, {"error": "Internal server error"}
        if isinstance(answer, Raw):
            answer, extra = answer.text, answer.headers
        data = answer if isinstance(answer, bytes) else msgspec.json.encode(answer)
        return status, JSON | extra if extra else JSON, data
