"""An exchange that misbehaves on demand, as its clients see it: raw answers, sockets, and the engine's truth."""

import http.client
import json
import time

from exchange_world import CID, DOWN_TOKEN, UP_TOKEN, World, v2_client
from py_clob_client_v2.clob_types import CreateOrderOptions, OrderArgsV2
from py_clob_client_v2.order_utils.model.order_data_v2 import order_to_json_v2

from mmbot.clock import mono_ns
from mmbot.sim import accounts
from mmbot.sim.auth import l2_signature
from shm_layout.records import BUY, SELL

SUBSCRIBE = {"type": "market", "assets_ids": [UP_TOKEN, DOWN_TOKEN]}
USER = {"type": "user", "auth": {"apiKey": accounts.PAPER_API_KEY, "secret": accounts.PAPER_API_SECRET,
                                 "passphrase": accounts.PAPER_API_PASSPHRASE}}


class FaultWorld(World):
    """An exchange with a small book, and short ways to hurt it."""

    def __enter__(self):
        for side, px_e4, shares in ((BUY, 5000, 100), (BUY, 4900, 200), (BUY, 4800, 300), (SELL, 5200, 50), (SELL, 5300, 60), (SELL, 5400, 70)):
            self.level(side, px_e4, shares * 1_000_000)
        return self

    @property
    def faults(self):
        """The faults of the exchange."""
        return self.server.faults

    def fault(self, name, for_s=None, **params):
        """Start a fault; the running record."""
        return self.do(lambda x, now: self.faults._running[self.faults.start(name, mono_ns() / 1e6, for_s, **params)])

    def age(self, fault, seconds):
        """Let a fault be older than it is."""
        def shift(x, now):
            fault.started_ms -= seconds * 1000
            fault.until_ms -= seconds * 1000
            self.faults._sort()
        self.do(shift)

    def heal(self):
        """Stop everything."""
        self.do(lambda x, now: self.faults.stop("all", mono_ns() / 1e6))

    def sign(self, price=0.45, size=5, side="BUY", token=UP_TOKEN, post_only=True, order_type="GTC"):
        """A body of POST /order, signed by the official client."""
        order = v2_client(self).builder.build_order(OrderArgsV2(token_id=token, price=price, size=size, side=side),
                                                    options=CreateOrderOptions(tick_size="0.01", neg_risk=False), version=2)
        return order_to_json_v2(order, accounts.PAPER_API_KEY, order_type, post_only, False)

    def raw(self, method, path, body=None, port=0, timeout=5.0, private=True):
        """(status, headers, bytes) of a request as it is on the wire; None when the connection was cut without an answer."""
        data = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        stamp = str(int(time.time()))
        signature = l2_signature(accounts.PAPER_API_SECRET, stamp, method, path.split("?")[0], data)
        headers = {"User-Agent": "mmbot-tests"} | ({} if not private else {
            "POLY_ADDRESS": accounts.PAPER_ADDRESS, "POLY_TIMESTAMP": stamp, "POLY_API_KEY": accounts.PAPER_API_KEY,
            "POLY_PASSPHRASE": accounts.PAPER_API_PASSPHRASE, "POLY_SIGNATURE": signature})
        connection = http.client.HTTPConnection("127.0.0.1", self.base + port, timeout=timeout)
        try:
            connection.request(method, path, data or None, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()
        except TimeoutError:
            raise
        except (http.client.HTTPException, ConnectionError):
            return None
        finally:
            connection.close()

    def ask(self, method, path, body=None, **more):
        """(status, decoded body)."""
        status, _, data = self.raw(method, path, body, **more)
        return status, json.loads(data)

    def post(self, **order):
        """(status, body) of POST /order."""
        return self.ask("POST", "/order", self.sign(**order))

    def resting(self):
        """Prices of the paper account's open orders, from the engine itself."""
        return self.do(lambda x, now: [o.px_e4 for o in x.open_orders(accounts.PAPER_API_KEY)])

    def money(self):
        """(dollars, {token: shares}) of the paper account, from the engine itself."""
        def read(x, now):
            a = x.account(accounts.PAPER_ADDRESS)
            return a.cash_u6, {t: s for t, s in a.shares.items() if s}
        return self.do(read)

    def take(self, side, px_e4, shares):
        """A recorded taker in Up terms."""
        return self.do(lambda x, now: x.take(CID, side, px_e4, int(shares * 1e6), now))

    def stream(self, path="/ws/market", port=2):
        """A subscribed market or user socket, or a bare one of another port."""
        ws = self.ws(port, path)
        if port == 2:
            ws.send(json.dumps(SUBSCRIBE if path.endswith("market") else USER))
        if path.endswith("user"):
            self.wait(lambda x: any(self.server.hub.users.values()))
        return ws


def drain(ws, quiet_s=0.0):
    """Frames that were sent before now (the answer to PING comes behind them); with ``quiet_s`` until nothing comes for so long."""
    frames = []
    if not quiet_s:
        ws.send("PING")
    try:
        while (data := ws.recv(quiet_s or 5.0)) != "PONG":
            frames.append(json.loads(data))
    except TimeoutError:
        assert quiet_s, "PING was not answered"
    return frames


def alive(ws) -> bool:
    """Is PING answered?"""
    ws.send("PING")
    try:
        while ws.recv(1.0) != "PONG":
            continue
    except TimeoutError:
        return False
    return True
