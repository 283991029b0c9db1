"""PolyBolt, the venue's price service: frames to prints, with a sequence number per connection and channel that shows every loss.

Owns: the messages and shapes of the service, the order of a connection's conversation (authenticate, then subscribe), its sequence numbers.
Writes and reads nothing. No sockets, no clock. Can go wrong: frames are missing (`gaps` grows; a new connection brings the last two
minutes again), the service refuses (`Refused` names its code), a value that was carried forward (no observation: counted, not used), a source
other than Chainlink, garbage (BadValue).
Source: venue protocol, PolyBolt.
"""

from typing import NamedTuple

import msgspec

from mmbot.venues.frames import UNREADABLE
from mmbot.venues.numbers import BadValue
from mmbot.venues.polymarket.prints import MAX_STAMP_MS, Print, value_e18
from shm_layout import records as r

CH_SPOT, CH_TWAP = "price.crypto", "price.crypto.twap"
SYMBOL = "btcusd"
#: another coin's price, once a second: it shows that the connection lives when ours has a hole
PULSE = "ethusd"
WINDOW_S = 60
PING = b'{"op":"ping"}'
PING_S = 30.0
#: close codes: credentials refused, slow, draining, policy
CLOSE_PAUSE_S = {4001: 60.0, 4002: 2.0, 4003: 10.0, 4008: 60.0}
_KINDS = {CH_SPOT: r.OK_SPOT, CH_TWAP: r.OK_TWAP60}

SUBSCRIBE = msgspec.json.encode({"op": "subscribe", "rid": "prints", "subscriptions": [
    {"channel": CH_TWAP, "filter": {"symbol": SYMBOL, "window_seconds": WINDOW_S}},
    {"channel": CH_SPOT, "filter": {"symbol": SYMBOL}},
    {"channel": CH_SPOT, "filter": {"symbol": PULSE}}]})


class Refused(Exception):
    """The service said no; the text names its code."""


class Heard(NamedTuple):
    """What a frame held: prints (oldest first), messages to send in answer, and whether it was data at all (no pong, no acknowledgement)."""
    prints: list[Print]
    replies: list[bytes]
    data: bool


class _Point(msgspec.Struct, gc=False):
    timestamp: int = 0
    full_accuracy_value: str = ""


class _Payload(msgspec.Struct, gc=False):
    symbol: str = ""
    timestamp: int = 0
    full_accuracy_value: str = ""
    window_seconds: int = 0
    source: str = "chainlink"
    is_carried_forward: bool = False
    data: list[_Point] = []


class _Frame(msgspec.Struct, gc=False):
    op: str = ""
    code: str = ""
    channel: str = ""
    seq: int = 0
    ts: int = 0
    dropped: int = 0
    snapshot: bool = False
    payload: msgspec.Raw = msgspec.Raw(b"{}")


_FRAME, _PAYLOAD = msgspec.json.Decoder(_Frame), msgspec.json.Decoder(_Payload)


def authenticate(api_key: str, secret: str, passphrase: str) -> bytes:
    """The first message on a new connection. Secret: never logged."""
    return msgspec.json.encode({"op": "auth", "rid": "auth", "auth": {"apiKey": api_key, "secret": secret, "passphrase": passphrase}})


class Session:
    """One connection's conversation."""

    def __init__(self) -> None:
        self.gaps = self.duplicates = self.carried = self.other = 0
        self._seq: dict[str, int] = {}

    def restart(self) -> None:
        """A new connection: its numbers start anew."""
        self._seq.clear()

    def on_frame(self, data) -> Heard:
        """Errors: BadValue, Refused."""
        try:
            m = _FRAME.decode(data)
            if m.op:
                return self._word(m)
            if not self._in_order(m):
                return Heard([], [], True)
            if m.channel not in _KINDS:
                self.other += 1
                return Heard([], [], True)
            return Heard(self._prints(m, _PAYLOAD.decode(m.payload)), [], True)
        except UNREADABLE as e:
            raise BadValue(f"a PolyBolt frame that cannot be read: {e}") from None

    def _word(self, m: _Frame) -> Heard:
        if m.op == "error":
            raise Refused(f"{m.code[:40]}{f' on {m.channel[:40]}' if m.channel else ''}")
        if m.op not in ("authed", "subscribed", "unsubscribed", "pong"):
            self.other += 1
        return Heard([], [SUBSCRIBE] if m.op == "authed" else [], False)

    def _in_order(self, m: _Frame) -> bool:
        """Count what is missing before a frame; false for one that was here before."""
        last = self._seq.get(m.channel, 0)
        if m.seq <= last:
            self.duplicates += 1
            return False
        self.gaps += m.seq - last - 1 + m.dropped
        self._seq[m.channel] = m.seq
        return True

    def _prints(self, m: _Frame, p: _Payload) -> list[Print]:
        if p.symbol != SYMBOL:
            return []
        if m.channel == CH_TWAP and p.window_seconds != WINDOW_S:       # another average is another price
            self.other += 1
            return []
        if p.source != "chainlink":
            raise BadValue(f"a price from {p.source[:20]!r}, not from Chainlink")
        if p.is_carried_forward:
            self.carried += 1
            return []
        points = p.data if m.snapshot else [_Point(p.timestamp, p.full_accuracy_value)]
        return [self._print(m, point) for point in points]

    @staticmethod
    def _print(m: _Frame, point: _Point) -> Print:
        if not 0 < point.timestamp < MAX_STAMP_MS or not 0 <= m.ts < MAX_STAMP_MS:
            raise BadValue(f"a print stamped {point.timestamp}, sent {m.ts}")
        return Print(_KINDS[m.channel], point.timestamp, m.ts * 1_000_000, value_e18(point.full_accuracy_value), r.OS_POLYBOLT)
