"""The exchange's PolyBolt server: the same prints as RTDS, by its own protocol and with its own delay.

Owns: sockets and subscriptions, the sequence per connection and channel, two minutes of history for snapshots, and another coin's price that
goes on when the oracle has a hole. Fed with the frames RTDS is fed with. Can go wrong: a client without credentials or with a wrong
filter (answered by an error, as the service does).

Source: venue protocol, PolyBolt.
"""

import asyncio
from collections import deque

import msgspec
from picows import WSUpgradeRequest

from mmbot.sim.auth import Keys
from mmbot.sim.faults import NO_FAULTS, Faults
from mmbot.sim.links import ServedLink
from mmbot.sim.oracle import decimal

SPOT, TWAP = "price.crypto", "price.crypto.twap"
_CHANNELS = {"crypto_prices_chainlink": SPOT, "crypto_prices_twap_sixty": TWAP}
SYMBOLS = ("btcusd", "ethusd")
HISTORY = 120
PULSE_PX = 3000.0
#: this much after RTDS's own delay, s, by the last digit of the second: sometimes the one is first, sometimes the other
HOP_S = (0.0, 0.02, 0.15, 0.05, 0.0, 0.1, 0.03, 0.2, 0.0, 0.08)
MAX_SUBSCRIPTIONS = 64

_decode, _encode = msgspec.json.Decoder(dict).decode, msgspec.json.encode


class PolyBoltLink(ServedLink):
    """A client: authenticates, subscribes, gets numbered frames."""
    channel = "polybolt"
    pong = None

    def __init__(self, server: "PolyBolt"):
        super().__init__(server)
        self.authed = False
        self.wanted: set[tuple[str, str]] = set()
        self._seq: dict[str, int] = {}

    def message(self, message: dict) -> None:
        op, rid = message.get("op"), message.get("rid")
        if op == "ping":
            self._answer("pong", rid)
        elif op == "auth":
            auth = message.get("auth")
            parts = [auth.get(k) for k in ("apiKey", "secret", "passphrase")] if isinstance(auth, dict) else [None]
            self.authed = all(isinstance(p, str) for p in parts) and self.server.keys.user(*parts) is not None
            self._answer("authed" if self.authed else "error", rid, **({} if self.authed else {"code": "auth_invalid"}))
        elif op in ("subscribe", "unsubscribe") and isinstance(message.get("subscriptions"), list):
            for sub in message["subscriptions"]:
                self._change(op, sub if isinstance(sub, dict) else {}, rid)
        else:
            self._answer("error", rid, code="bad_op")

    def _answer(self, op: str, rid, **more) -> None:
        self.put(_encode({"op": op, **({"rid": rid} if isinstance(rid, str) else {}), **more}))

    def _change(self, op: str, sub: dict, rid) -> None:
        channel, wanted = sub.get("channel"), sub.get("filter")
        wanted = wanted if isinstance(wanted, dict) else {}
        key = (channel, wanted.get("symbol"))
        code = ""
        if channel not in (SPOT, TWAP):
            code = "bad_channel"
        elif not self.authed:
            code = "auth_required"
        elif key[1] not in SYMBOLS or (channel == TWAP and wanted.get("window_seconds") != 60):
            code = "bad_filter"
        elif op == "subscribe" and len(self.wanted) >= MAX_SUBSCRIPTIONS:
            code = "sub_limit"
        if code:
            self._answer("error", rid, code=code, channel=channel)
            return
        fresh = key not in self.wanted
        (self.wanted.add if op == "subscribe" else self.wanted.discard)(key)
        self._answer(op + "d", rid, channel=channel)
        if op == "subscribe" and fresh:
            self.take(*key, *self.server.snapshot(*key))

    def take(self, channel: str, symbol: str, t_ms: int, payload: dict, snapshot: bool = False) -> None:
        """Send a frame with the next number, if it was asked for. A frame that a fault drops keeps its number."""
        if (channel, symbol) not in self.wanted:
            return
        number = self._seq[channel] = self._seq.get(channel, 0) + 1
        head = {"v": 1, "channel": channel, "seq": number, "ts": t_ms}
        self.send(_encode({**head, **({"snapshot": True} if snapshot else {}), "payload": payload}))


class PolyBolt:
    """The service."""

    def __init__(self, keys: Keys, faults: Faults = NO_FAULTS):
        self.keys, self.faults = keys, faults
        self.links: set[PolyBoltLink] = set()
        self._history: dict[tuple[str, str], deque] = {}
        self._pulse_s = 0
        self._now_ms = 0

    def accept(self, request: WSUpgradeRequest) -> PolyBoltLink | None:
        """/ws"""
        return PolyBoltLink(self) if request.path.split(b"?")[0] == b"/ws" else None

    def push(self, frames: list[bytes], now_ms: int) -> None:
        """RTDS frames that are due (those of Chainlink are taken), and the other coin's price of each new second."""
        self._now_ms = now_ms
        for data in frames:
            frame = _decode(data)
            channel = _CHANNELS.get(frame["topic"])
            if channel is None or frame["type"] != "update" or frame["payload"]["symbol"] != "btc/usd":
                continue
            t_obs_ms = frame["payload"]["timestamp"]
            point = {"full_accuracy_value": decimal(int(frame["payload"]["full_accuracy_value"])), "timestamp": t_obs_ms,
                     "value": frame["payload"]["value"]}
            self._after(HOP_S[t_obs_ms // 1000 % 10], channel, SYMBOLS[0], frame["timestamp"], point)
        if now_ms // 1000 != self._pulse_s:
            self._pulse_s = now_ms // 1000
            value = PULSE_PX + self._pulse_s % 7 / 100
            self._send(SPOT, SYMBOLS[1], now_ms, {"full_accuracy_value": f"{value}", "timestamp": self._pulse_s * 1000 - 1000, "value": value})

    def _after(self, wait_s: float, *frame) -> None:
        if wait_s and self.links:
            asyncio.get_running_loop().call_later(wait_s, self._send, *frame)
        else:
            self._send(*frame)

    def _send(self, channel: str, symbol: str, t_ms: int, point: dict) -> None:
        self._history.setdefault((channel, symbol), deque(maxlen=HISTORY)).append(point)
        payload = {**point, "symbol": symbol, "source": "chainlink", **({"window_seconds": 60} if channel == TWAP else {})}
        for link in list(self.links):
            link.take(channel, symbol, t_ms, payload)

    def snapshot(self, channel: str, symbol: str) -> tuple[int, dict, bool]:
        """(time, payload, True) of the first frame of a subscription: the last two minutes."""
        payload = {"symbol": symbol, "source": "chainlink", "data": list(self._history.get((channel, symbol), ()))}
        return self._now_ms, payload | ({"window_seconds": 60} if channel == TWAP else {}), True
