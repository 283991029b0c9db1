"""Warm connections against a small scripted server: answers in every shape, lost answers, reconnection, stamps."""

import asyncio
import select
import socket
import ssl
import subprocess

import pytest
import uvloop

from mmbot.clock import mono_ns
from mmbot.errors import UserError
from mmbot.execution import http1
from mmbot.execution.http1 import ConnectionPool, DryLine, HttpConnection, NotSent, UnknownOutcome

REQUEST = b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[]"
PROBE = b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]"


class Server:
    """Answers each request with the next script entry: bytes or pieces (with pauses), None = silence, "drop" = close."""

    def __init__(self, *script):
        self.script, self.requests, self.connections, self.writers = list(script), [], 0, []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, **self.options())
        self.port = self.server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def options(self):
        return {}

    async def __aexit__(self, *_):
        self.server.close()
        for w in self.writers:
            w.transport.abort()

    async def serve(self, reader, writer):
        self.connections += 1
        self.writers.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((int(h.split(b":")[1]) for h in head.split(b"\r\n") if h.lower().startswith(b"content-length")), 0)
                self.requests.append(head + await reader.readexactly(length))
                step = self.script.pop(0) if self.script else OK
                if step == "drop":
                    writer.close()
                    return
                for piece in ([] if step is None else [step] if isinstance(step, bytes) else step):
                    if isinstance(piece, bytes):
                        writer.write(piece)
                    elif piece == "close":
                        writer.close()
                        return
                    else:
                        await asyncio.sleep(piece)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


def run(coroutine):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(asyncio.wait_for(coroutine, 20))


def exchange(*script, n=1, requests=1, timeout_s=1.0):
    """Results of ``requests`` requests one after another, exceptions included, and the server."""
    async def main():
        async with Server(*script) as server:
            pool = ConnectionPool(server.url, n, timeout_s)
            await pool.start(1, 5)
            results = []
            for _ in range(requests):
                while not pool.free:
                    await asyncio.sleep(0.01)
                results += await asyncio.gather(pool.request(REQUEST), return_exceptions=True)
            await pool.close()
            return results, server
    return run(main())


class TestAnswers:
    @pytest.mark.parametrize("script, status, body", [
        (OK, 200, b"[]"),
        ([OK[:10], 0.01, OK[10:40], 0.01, OK[40:-1], 0.01, OK[-1:]], 200, b"[]"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n", 0.01, b"2\r\n2]\r\n0\r\n\r\n"], 200, b"[1,2]"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n<html></html>", 502, b"<html></html>"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, b"[]"),
        ([b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[3]", "close"], 200, b"[3]"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\n[4]", 200, b"[4]"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n[5]", 200, b"[5]"),
        (b"HTTP/1.1 425 \r\nContent-Length: 0\r\n\r\n", 425, b""),
    ])
    def test_shapes(self, script, status, body):
        (first, second), server = exchange(script, requests=2)
        assert (first.status, first.body) == (status, body)
        assert (second.status, second.body) == (200, b"[]"), "the next request is served, on this connection or a new one"
        assert server.requests == [REQUEST, REQUEST]

    def test_headers_are_lower_case(self):
        (answer,), _ = exchange(b"HTTP/1.1 429 x\r\nRetry-After: 3\r\nPoly-RateLimit-Remaining: 0\r\nContent-Length: 0\r\n\r\n")
        assert answer.headers["retry-after"] == "3" and answer.headers["poly-ratelimit-remaining"] == "0"

    def test_large_answer(self):
        body = b"x" * 1_000_000
        (answer,), _ = exchange(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        assert answer.body == body

    def test_stamps(self):
        before = mono_ns()
        (answer,), _ = exchange([0.05, OK])
        assert before < answer.t_send_ns < answer.t_ack_ns < mono_ns()
        assert answer.t_ack_ns - answer.t_send_ns > 40_000_000

    def test_one_connection_serves_many(self):
        results, server = exchange(requests=20)
        assert {r.status for r in results} == {200} and server.connections == 1


class TestUnknownOutcome:
    @pytest.mark.parametrize("script, text", [
        ("drop", "closed by the other side"),
        ([OK[:-1], "close"], "closed by the other side"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n", "close"], "closed by the other side"),
        ([b"HTTP/1.1 200 OK\r\nContent-", "close"], "closed by the other side"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP"),
        (None, "no answer within 0.2 s"),
        ([OK[:-1], 5], "no answer within 0.2 s"),
    ])
    def test_a_lost_answer_is_an_error_and_is_not_repeated(self, script, text):
        (first, second), server = exchange(script, requests=2, timeout_s=0.2)
        assert isinstance(first, UnknownOutcome) and text in str(first)
        assert 0 < first.t_send_ns < mono_ns()
        assert second.status == 200
        assert len(server.requests) == 2 and server.connections == 2

    def test_a_late_answer_is_not_taken_for_the_next_ones(self):
        late = [0.4, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate"]
        (first, second), _ = exchange(late, OK, requests=2, timeout_s=0.2)
        assert isinstance(first, UnknownOutcome) and second.body == b"[]"

    def test_two_answers_to_one_request_close_the_connection(self):
        results, server = exchange(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmore", requests=2)
        assert [r.body for r in results] == [b"[]", b"[]"] and server.connections == 2

    def test_close_ends_requests_in_flight(self):
        async def main():
            async with Server(None) as server:
                pool = ConnectionPool(server.url, 2)
                await pool.start(2, 5)
                future = pool.send_now(REQUEST)
                await asyncio.sleep(0.05)
                await pool.close()
                with pytest.raises(UnknownOutcome, match="closed by us"):
                    await future
        run(main())


class TestSending:
    def test_bytes_are_out_before_send_now_returns(self):
        async def main():
            with socket.create_server(("127.0.0.1", 0)) as listener:
                pool = ConnectionPool(f"http://127.0.0.1:{listener.getsockname()[1]}", 1)
                await pool.start(1, 5)
                peer, _ = listener.accept()
                with peer:
                    pool.send_now(REQUEST)                      # no await between here ...
                    assert select.select([peer], [], [], 1)[0]
                    assert peer.recv(4096) == REQUEST           # ... and here
                    assert pool.t_send_ns <= mono_ns()
                    await pool.close()
        run(main())

    def test_each_connection_carries_one_request(self):
        async def main():
            async with Server([0.1, OK], [0.1, OK]) as server:
                pool = ConnectionPool(server.url, 2)
                await pool.start(2, 5)
                futures = [pool.send_now(REQUEST), pool.send_now(REQUEST)]
                assert pool.free == 0
                with pytest.raises(NotSent, match="all busy"):
                    pool.send_now(REQUEST)
                assert [a.status for a in await asyncio.gather(*futures)] == [200, 200]
                assert pool.free == 2 and len(server.requests) == 2
                await pool.close()
        run(main())

    def test_not_sent_when_nobody_listens(self):
        async def main():
            with socket.create_server(("127.0.0.1", 0)) as listener:
                port = listener.getsockname()[1]
            events = []
            pool = ConnectionPool(f"http://127.0.0.1:{port}", 1, on_event=events.append)
            with pytest.raises(UserError, match=f"no connection to 127.0.0.1:{port}"):
                await pool.start(1, 0.3)
            with pytest.raises(NotSent):
                pool.send_now(REQUEST)
            assert 1 < events.count("connect_failed") < 10, "retries back off"
            await pool.close()
        run(main())

    def test_a_cancelled_wait_does_not_disturb_the_connection(self):
        async def main():
            async with Server([0.1, OK], OK) as server:
                pool = ConnectionPool(server.url, 1)
                await pool.start(1, 5)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(pool.send_now(REQUEST), 0.02)
                with pytest.raises(NotSent):
                    pool.send_now(REQUEST)
                await asyncio.sleep(0.2)
                assert (await pool.request(REQUEST)).status == 200
                assert server.connections == 1
                await pool.close()
        run(main())

    def test_a_lone_connection_refuses_before_it_is_made(self):
        async def main():
            conn = HttpConnection(lambda c: None, lambda c, r: None)
            with pytest.raises(NotSent):
                conn.send_now(REQUEST, 1.0)
        run(main())


class TestKeeping:
    def test_reconnects_when_the_server_hangs_up(self):
        async def main():
            async with Server() as server:
                events = []
                pool = ConnectionPool(server.url, 1, on_event=events.append)
                await pool.start(1, 5)
                await pool.request(REQUEST)
                server.writers[0].close()
                while server.connections < 2 or not pool.free:
                    await asyncio.sleep(0.01)
                assert (await pool.request(REQUEST)).status == 200
                assert events == ["connect", "lost", "connect"]
                assert len(pool._idle) == len(pool._open) == len(pool._lost) == 1
                await pool.close()
        run(main())

    def test_an_answer_in_time_ends_the_deadline(self):
        async def main():
            async with Server() as server:
                pool = ConnectionPool(server.url, 1, timeout_s=0.15)
                await pool.start(1, 5)
                answer = await pool.request(REQUEST)
                assert pool._idle[0].t_used_ns == answer.t_ack_ns
                await asyncio.sleep(0.3)
                assert (await pool.request(REQUEST)).status == 200
                assert server.connections == 1
                await pool.close()
        run(main())

    def test_unasked_bytes_close_the_connection(self):
        async def main():
            async with Server() as server:
                pool = ConnectionPool(server.url, 1)
                await pool.start(1, 5)
                server.writers[0].write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
                while server.connections < 2 or not pool.free:
                    await asyncio.sleep(0.01)
                assert (await pool.request(REQUEST)).status == 200
                await pool.close()
        run(main())

    def test_idle_connections_are_probed_and_a_dead_one_is_replaced(self):
        async def main():
            async with Server(OK, None) as server:          # the first probe is answered, the second is not
                pool = ConnectionPool(server.url, 1, timeout_s=0.2, probe=PROBE, keepalive_s=0.1)
                await pool.start(1, 5)
                while server.connections < 2 or not pool.free:
                    await asyncio.sleep(0.01)
                assert server.requests[:2] == [PROBE, PROBE]
                await pool.close()
        run(main())

    def test_probes_leave_a_connection_free(self):
        async def main():
            async with Server(*[[0.1, OK]] * 50) as server:
                pool = ConnectionPool(server.url, 2, probe=PROBE, keepalive_s=0.05)
                await pool.start(2, 5)
                for _ in range(30):
                    await asyncio.sleep(0.01)
                    assert pool.free >= 1
                assert server.requests.count(PROBE) >= 2
                await pool.close()
        run(main())

    def test_a_server_that_always_hangs_up_is_not_hammered(self):
        async def main():
            async def hang_up(_reader, writer):
                nonlocal count
                count += 1
                writer.close()
            count = 0
            server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
            pool = ConnectionPool(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", 1)
            await pool.start()
            await asyncio.sleep(1.0)
            await pool.close()
            server.close()
            assert 1 < count < 12
        run(main())


class TestTls:
    @pytest.fixture
    def certificate(self, tmp_path):
        made = subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost",
             "-addext", "subjectAltName=DNS:localhost", "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"], capture_output=True)
        assert made.returncode == 0, made.stderr
        return tmp_path / "cert.pem", tmp_path / "key.pem"

    def test_https(self, certificate):
        async def main():
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)

            class TlsServer(Server):
                def options(self):
                    return {"ssl": context}
            async with TlsServer() as server:
                url = f"https://localhost:{server.port}"
                pool = ConnectionPool(url, 2, ssl_context=ssl.create_default_context(cafile=certificate[0]))
                await pool.start(2, 5)
                answers = [await pool.request(REQUEST) for _ in range(5)]
                assert {a.body for a in answers} == {b"[]"}
                await pool.close()
                stranger = ConnectionPool(url, 1)           # trusts only the system's authorities
                with pytest.raises(UserError, match="certificate verify failed"):
                    await stranger.start(1, 1.0)
                await stranger.close()
        run(main())


def test_a_connection_with_unsent_bytes_is_late_and_not_used():
    class Clogged:
        unsent = 10

        def is_closing(self):
            return False

        def get_write_buffer_size(self):
            return self.unsent

    async def main():
        conn = HttpConnection(lambda c: None, lambda c, r: None)
        transport = Clogged()
        conn.connection_made(transport)
        assert conn.idle and not conn.ready
        with pytest.raises(NotSent):
            conn.send_now(b"GET / HTTP/1.1\r\n\r\n", 1.0)
        transport.unsent = 0
        assert conn.ready
    asyncio.run(main())


def test_the_pool_tells_whether_anything_can_be_sent():
    async def main():
        async with Server(None, None) as server:
            pool = ConnectionPool(server.url, 2, 1.0)
            assert not pool.can_send
            await pool.start(2, 5)
            for _ in range(2):
                assert pool.can_send
                pool.send_now(REQUEST).add_done_callback(lambda f: f.exception())
            assert not pool.can_send and pool.free == 0
            await pool.close()
    run(main())


def test_a_dry_line_carries_bytes_to_nobody(monkeypatch):
    arrived = []
    monkeypatch.setattr(http1._Drain, "data_received", lambda self, data: arrived.append(data))

    async def main():
        line = DryLine()
        line.write(100)                     # not open: nothing happens
        await line.open()
        for _ in range(50):
            line.write(3500)
            await asyncio.sleep(0.001)
        before = sum(map(len, arrived))
        line.close()
        line.close()
        await asyncio.sleep(0.01)
        line.write(100)
        await asyncio.sleep(0.01)
        assert before == sum(map(len, arrived))
    run(main())
    assert sum(map(len, arrived)) == 50 * 3500 and not any(map(any, arrived)), "zeros only: no credentials, no orders"


def test_a_dry_line_has_one_far_end_and_no_open_door(monkeypatch):
    async def main():
        loop, doors = asyncio.get_running_loop(), []
        make = loop.create_server

        class Loop:
            create_future, create_connection = loop.create_future, loop.create_connection

            async def create_server(self, *args):
                doors.append(await make(*args))
                return doors[0]
        monkeypatch.setattr(http1.asyncio, "get_running_loop", Loop)
        line = DryLine()
        try:
            await line.open()
        finally:
            monkeypatch.undo()
        assert not doors[0].is_serving()
        line.close()
    run(main())


@pytest.mark.parametrize("url", ["127.0.0.1", "ws://127.0.0.1:1", "", "http://"])
def test_bad_urls(url):
    with pytest.raises(UserError, match="is not a base URL"):
        ConnectionPool(url, 1)

