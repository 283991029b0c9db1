"""The feed processes against a small venue in this process: real sockets, real shared memory, faults on demand."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from aiohttp import web
from picows import WSListener, WSMsgType, ws_create_server

from mmbot.venues.polymarket import prints, rtds
from shm_layout import records as r
from shm_layout import vitals as vt
from shm_layout.ring import RingReader
from shm_layout.segment import Space
from shm_layout.seqlock import SeqlockReader

ROOT = Path(__file__).resolve().parents[2]
UP, DOWN = "1" * 76, "2" * 77
KEY = "7d1c2f0e-5b1a-4c0e-9a5f-1f2e3d4c5b6a"
CONDITION = "0x" + "5a" * 32
DEADLINE_S = 30


class Client(WSListener):
    """One connection at the venue's side."""

    def __init__(self, venue, path):
        super().__init__()
        self.venue, self.path = venue, path

    def on_ws_connected(self, transport):
        self.transport = transport
        self.venue.clients.setdefault(self.path, []).append(self)

    def on_ws_disconnected(self, transport):
        self.venue.clients[self.path].remove(self)

    def on_ws_frame(self, transport, frame):
        text = frame.get_payload_as_bytes()
        if text == b"PING":
            transport.send(WSMsgType.TEXT, b"PONG")
        elif frame.msg_type == WSMsgType.TEXT:
            message = json.loads(text)
            self.venue.heard.append((self.path, message))
            if self.path == "/ws/market" and message.get("operation") != "unsubscribe":
                transport.send(WSMsgType.TEXT, json.dumps([self.venue.books[t] for t in message["assets_ids"] if t in self.venue.books]).encode())


class Venue(threading.Thread):
    """WebSocket server for all channels and an HTTP server for Gamma and the CLOB, on free ports of the loopback."""

    def __init__(self):
        super().__init__(daemon=True)
        self.clients, self.heard, self.books, self.events = {}, [], {}, {}
        self.ready = threading.Event()
        self.http_down = self.bookless = False
        self.start()
        assert self.ready.wait(10)

    def run(self):
        asyncio.run(self._serve())

    async def _serve(self):
        self.loop, self.end = asyncio.get_running_loop(), asyncio.Event()
        server = await ws_create_server(lambda req: Client(self, req.path.decode().split("?")[0]), "127.0.0.1", 0)
        self.ws_port = server.sockets[0].getsockname()[1]
        app = web.Application()
        app.router.add_get("/events/slug/{slug}", self._event)
        app.router.add_get("/clob-markets/{cid}", self._market_info)
        app.router.add_get("/book", self._book)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.http_port = site._server.sockets[0].getsockname()[1]
        self.ready.set()
        await self.end.wait()
        server.close()
        await runner.cleanup()

    async def _market_info(self, request):
        return web.json_response({"v": "v1", "itode": False, "ao": True})

    async def _book(self, request):
        if self.bookless:
            raise web.HTTPNotFound()
        return web.json_response({})

    async def _event(self, request):
        if self.http_down:
            raise web.HTTPServiceUnavailable()
        slug = request.match_info["slug"]
        if slug not in self.events:
            raise web.HTTPNotFound()
        return web.json_response(self.events[slug])

    def send(self, path, *messages):
        """Send each message (bytes, or an object to be written as JSON) to every client of a path."""
        for m in messages:
            data = m if isinstance(m, bytes) else json.dumps(m).encode()
            self.loop.call_soon_threadsafe(lambda d=data: [c.transport.send(WSMsgType.TEXT, d) for c in self.clients.get(path, [])])

    def drop(self, path):
        """Cut every connection of a path."""
        self.loop.call_soon_threadsafe(lambda: [c.transport.disconnect(False) for c in list(self.clients.get(path, []))])

    def stop(self):
        self.loop.call_soon_threadsafe(self.end.set)
        self.join(5)


def wait_for(what, message="nothing happened", deadline_s=DEADLINE_S):
    """Poll until ``what()`` is true; returns its value."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        if value := what():
            return value
        time.sleep(0.01)
    raise AssertionError(message)


def pdeathsig():
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Group:
    """Feed processes of one run, and what they wrote."""

    def __init__(self, tmp_path, venue):
        self.name = f"feeds{os.getpid()}"
        self.space, self.children = Space(self.name), {}
        ws = f"ws://127.0.0.1:{venue.ws_port}"
        http = f"http://127.0.0.1:{venue.http_port}"
        self.config = tmp_path / "c.toml"
        self.config.write_text(f"""profile = "paper"
[run]
name = "{self.name}"
dir = "{tmp_path}"
[venue]
clob_url = "{http}"
gamma_url = "{http}"
ws_url = "{ws}/ws"
rtds_url = "{ws}/rtds"
polybolt_url = "{ws}/polybolt"
coinbase_ws_url = "{ws}/coinbase"
bybit_ws_url = "{ws}/bybit"
binance_ws_url = "{ws}"
clock_url = ""
[account]
private_key = "{'1' * 64}"
api_key = "{KEY}"
api_secret = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"
api_passphrase = "pass"
[markets]
poll_s = 0.2
lead_s = 5
""")

    def start(self, name):
        env = {**os.environ, "MMBOT_CONFIG": str(self.config)}
        self.children[name] = subprocess.Popen([sys.executable, "-m", f"procs.{name}"], cwd=ROOT, env=env, preexec_fn=pdeathsig)
        wait_for(lambda: self.vitals(name)["state"] == vt.RUN, f"{name} does not run")

    def vitals(self, name):
        assert self.children[name].poll() is None, f"{name} ended"
        try:
            return vt.VitalsReader(self.space.attach(f"vitals.{name}")).snapshot()
        except vt.SegmentError:
            return {"state": 0}

    def ring(self, name):
        return RingReader(self.space.attach(name), from_head=False)

    def latest(self, name):
        return SeqlockReader(self.space.attach(name))

    def kill(self, name, sig=signal.SIGKILL):
        child = self.children.pop(name)
        child.send_signal(sig)
        return child.wait(10)

    def stop(self):
        codes = {name: self.kill(name, signal.SIGTERM) for name in list(self.children)}
        self.space.wipe()
        return codes


@pytest.fixture
def venue():
    v = Venue()
    yield v
    v.stop()


@pytest.fixture
def group(tmp_path, venue):
    g = Group(tmp_path, venue)
    yield g
    assert set(g.stop().values()) <= {0}


def iso(t):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(t))


def event(start, duration=900, **over):
    slug = f"btc-updown-{duration // 60}m-{start}"
    return {"slug": slug, "markets": [{
        "slug": slug, "conditionId": CONDITION, "outcomes": '["Up", "Down"]', "clobTokenIds": json.dumps([UP, DOWN]), "version": "v1",
        "outcomePrices": '["0.5", "0.5"]', "eventStartTime": iso(start), "endDate": iso(start + duration), "orderPriceMinTickSize": 0.01,
        "orderMinSize": 5, "feeSchedule": {"rate": 0.07, "exponent": 1}, "acceptingOrders": True, "active": True, "closed": False, **over}]}


def book(token, t, bids, asks):
    return {"event_type": "book", "market": CONDITION, "asset_id": token, "timestamp": str(t), "hash": "",
            "bids": [{"price": p, "size": s} for p, s in bids], "asks": [{"price": p, "size": s} for p, s in asks], "tick_size": "0.01"}


def change(t, token, side, price, size):
    return {"event_type": "price_change", "market": CONDITION, "timestamp": str(t),
            "price_changes": [{"asset_id": token, "price": price, "size": size, "side": side, "hash": ""}]}


def with_market(venue):
    """Put the current window on the venue; returns its start. Waits out the last seconds of a window, so that none rolls within a test."""
    if (left := 900 - time.time() % 900) < 45:
        time.sleep(left + 0.5)
    start = int(time.time()) // 900 * 900
    venue.events[f"btc-updown-15m-{start}"] = event(start)
    venue.books = {UP: book(UP, 1000, [("0.50", "10"), ("0.51", "20.5")], [("0.53", "7"), ("0.52", "30")]),
                   DOWN: book(DOWN, 1000, [("0.47", "7"), ("0.48", "30")], [("0.50", "10"), ("0.49", "20.5")])}
    return start


@pytest.mark.timeout(180)
def test_from_gamma_to_books_and_through_faults(venue, group):
    start = with_market(venue)
    group.start("discovery")
    markets = group.latest("markets")
    row = wait_for(lambda: markets.read() > 0 and markets.rec[0]["row"][r.slot_of(start, 900)]["market_id"]) and markets.rec[0]["row"][r.slot_of(start, 900)]
    assert (row["market_id"], row["state"], row["taker_delayed"], r.id_value(row["token_up"])) == (r.market_id(start, 900), r.MS_OPEN, 0, int(UP))

    group.start("feed_market")
    latest, ring, slot = group.latest("book"), group.ring("md.market"), r.slot_of(start, 900)

    def shows(**want):
        def look():
            if latest.read(slot) <= 0:
                return False
            m = latest.rec[0]
            have = {"bid": m["bid_px_e4"][0], "size": m["bid_size_u6"][0], "suspect": bool(m["flags"] & r.MF_SUSPECT), "kind": m["kind"]}
            return all(have[k] == v for k, v in want.items())
        return look

    wait_for(shows(bid=5100, size=20_500_000, suspect=False), "no book")
    venue.send("/ws/market", change(1001, UP, "BUY", "0.515", "3.000001"))
    wait_for(shows(bid=5150, size=3_000_001))

    venue.books[UP]["timestamp"] = venue.books[DOWN]["timestamp"] = "1002"
    venue.send("/ws/market", b"garbage {{{")
    wait_for(shows(suspect=True))
    venue.send("/ws/market", change(1003, UP, "BUY", "0.50", "11"))
    wait_for(lambda: ("/ws/market", {"operation": "unsubscribe", "assets_ids": [UP, DOWN]}) in venue.heard, "no snapshot was asked for")
    wait_for(shows(suspect=False, bid=5100), "the new snapshot did not repair the book")

    before = len(venue.heard)
    venue.drop("/ws/market")
    wait_for(shows(kind=r.MK_SUSPECT, suspect=True))
    wait_for(shows(suspect=False, bid=5100), "did not come back")
    assert ("/ws/market", {"type": "market", "assets_ids": [UP, DOWN], "custom_feature_enabled": True}) in venue.heard[before:]

    venue.send("/ws/market", b"[]", {"event_type": "fireworks"}, b"x" * (2 << 20))
    wait_for(lambda: group.vitals("feed_market")["events"]["frames_bad"] >= 3)
    assert {e["code"] for e in group.vitals("feed_market")["errors"]} >= {"frame_garbage", "frame_oversize", "event_unknown"}
    kinds = []
    while ring.poll():
        kinds.append(int(ring.rec[0]["kind"]))
        assert ring.rec[0]["t_recv_ns"] <= ring.rec[0]["t_pub_ns"]
    assert r.MK_BOOK in kinds and r.MK_SUSPECT in kinds
    assert group.vitals("feed_market")["hops"]["recv_pub"].sum() == len(kinds)

    venue.http_down = True
    wait_for(lambda: group.vitals("discovery")["events"]["request_errors"] > 3)
    version = markets.version()
    wait_for(lambda: markets.version() > version, "the table stands, and its stamp moves")
    assert markets.read() > 0 and markets.rec[0]["row"][slot]["market_id"] == r.market_id(start, 900)
    venue.events[f"btc-updown-15m-{start}"] = event(start, closed=True, acceptingOrders=False, outcomePrices='["0", "1"]')
    venue.http_down = False
    wait_for(lambda: markets.read() > 0 and markets.rec[0]["row"][slot]["state"] == r.MS_RESOLVED)
    assert markets.rec[0]["row"][slot]["outcome"] == r.DOWN
    wait_for(lambda: venue.heard[-1] == ("/ws/market", {"operation": "unsubscribe", "assets_ids": [UP, DOWN]}), "resolved, yet followed")


@pytest.mark.timeout(120)
def test_a_market_of_an_unknown_version_is_refused(venue, group):
    start = with_market(venue)
    venue.events[f"btc-updown-15m-{start}"] = event(start, version="v9")
    group.start("discovery")
    error = wait_for(lambda: [e for e in group.vitals("discovery")["errors"] if e["code"] == "market_refused"])[0]
    assert "'v9'" in error["text"]
    markets = group.latest("markets")
    assert wait_for(lambda: markets.read() > 0) and not markets.rec[0]["row"]["market_id"].any()


def order(status="LIVE"):
    return {"event_type": "order", "type": "PLACEMENT", "id": "0x" + "d7" * 32, "owner": KEY, "market": CONDITION, "asset_id": UP, "side": "BUY",
            "price": "0.52", "original_size": "5", "size_matched": "0", "status": status, "timestamp": "1793000000210"}


@pytest.mark.timeout(120)
def test_own_orders_and_every_break_of_the_channel(venue, group):
    group.start("feed_user")
    ring, seen = group.ring("user"), []

    def got(kind, n=1):
        def look():
            while ring.poll():
                seen.append(ring.rec[0].copy())
            return sum(x["kind"] == kind for x in seen) >= n
        return look

    wait_for(got(r.UK_CONNECTED))
    assert venue.heard[0] == ("/ws/user", {"type": "user", "auth": {"apiKey": KEY, "secret": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "passphrase": "pass"}})
    venue.send("/ws/user", order())
    wait_for(got(r.UK_ORDER))
    assert (seen[-1]["px_u6"], seen[-1]["market_id"], seen[-1]["connection"]) == (520_000, 0, seen[0]["connection"])
    venue.send("/ws/user", b"not a user event")
    wait_for(got(r.UK_CONNECTED, 2), "what could not be read may have been a fill")
    venue.drop("/ws/user")
    wait_for(got(r.UK_DISCONNECTED))
    wait_for(got(r.UK_CONNECTED, 3))
    numbers = [int(x["connection"]) for x in seen if x["kind"] == r.UK_CONNECTED]
    assert numbers == sorted(set(numbers))
    group.kill("feed_user")
    group.start("feed_user")
    wait_for(got(r.UK_CONNECTED, 4))
    assert int(seen[-1]["connection"]) > numbers[-1], "the number grows over restarts"


def oracle_print(t_obs_ms, value):
    return {"topic": rtds.TOPIC_TWAP, "type": "update", "timestamp": t_obs_ms + 1300,
            "payload": {"symbol": "btc/usd", "timestamp": t_obs_ms, "value": 1.0, "full_accuracy_value": value, "window_s": 60}}


@pytest.mark.timeout(120)
def test_a_strike_survives_the_death_of_its_feed_and_silence_is_a_fault(venue, group):
    group.start("feed_oracle")
    wait_for(lambda: venue.clients.get("/rtds"))
    boundary = int(time.time()) // 300 * 300_000
    venue.send("/rtds", b"", b"rubbish", oracle_print(boundary, "84608904251000012345678"), oracle_print(boundary + 1000, "84609000000000000000001"))
    state = group.latest("oracle")
    wait_for(lambda: state.read() > 0 and state.rec[0]["twap60"]["t_obs_ms"] == boundary + 1000)
    group.kill("feed_oracle")
    group.start("feed_oracle")
    wait_for(lambda: venue.clients.get("/rtds"))
    venue.send("/rtds", oracle_print(boundary + 2000, "84609000000000000000002"))
    wait_for(lambda: state.read() > 0 and state.rec[0]["twap60"]["t_obs_ms"] == boundary + 2000)
    held = state.rec[0]["boundary"][prints.boundary_index(boundary)]
    assert (held["t_obs_ms"], held["px_units"], held["px_frac_e18"], held["trusted"]) == (boundary, 84608, 904251000012345678, 1)
    ring, kinds = group.ring("md.oracle"), []
    while ring.poll():
        kinds.append(int(ring.rec[0]["kind"]))
    assert kinds == [r.OK_TWAP60, r.OK_BOUNDARY, r.OK_TWAP60, r.OK_TWAP60]
    wait_for(lambda: group.vitals("feed_oracle")["events"]["reconnects"] >= 1, "five seconds without data and nothing done")
    wait_for(lambda: any(e["code"] == "stale_connection" for e in group.vitals("feed_oracle")["errors"]))


@pytest.mark.timeout(120)
def test_binance_records(venue, group):
    group.start("feed_binance")
    wait_for(lambda: venue.clients.get("/stream"))
    ticker = {"stream": "btcusdt@bookTicker", "data": {"u": 77, "s": "BTCUSDT", "b": "84655.1", "B": "1.2", "a": "84655.11", "A": "0.8"}}
    venue.send("/stream", ticker, b"{", ticker, {**ticker, "data": {**ticker["data"], "u": 78}})
    ring, ids = group.ring("md.binance"), []

    def two():
        while ring.poll():
            ids.append(int(ring.rec[0]["update_id"]))
        return len(ids) == 2
    wait_for(two)
    assert ids == [77, 78] and ring.rec[0]["bid"] == 84655.1 and ring.rec[0]["t_pub_ns"] >= ring.rec[0]["t_recv_ns"] > 0
    assert wait_for(lambda: group.vitals("feed_binance")["events"]["frames_late"]) == 1
