"""Binance spot: best bid and ask, and aggregate trades of one symbol, to SPOT record words.

Owns: the stream names, the shapes, the order of updates (bookTicker has no time, only an update id). Writes and reads nothing else. No
sockets, no clock. Can go wrong: late updates and old trades (dropped and counted), holes in the trade ids (counted), a venue that is about
to close the connection (`closing`), garbage (BadValue).

The main hosts refuse addresses in the United States (HTTP 451); wss://data-stream.binance.vision carries the same market data.
Source: Binance spot WebSocket streams.
"""

from typing import Annotated

import msgspec

from mmbot.venues.frames import UNREADABLE
from mmbot.venues.numbers import BadValue
from mmbot.venues.spot import OLD_NS, positive, quantity
from shm_layout import records as r

SYMBOL = "btcusdt"
PATH = f"/stream?streams={SYMBOL}@bookTicker/{SYMBOL}@aggTrade"
VENUE = "Binance"
#: the venue cuts a connection after 24 hours
LIFE_S = 23.5 * 3600


_Id = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class _Ticker(msgspec.Struct, gc=False):
    u: _Id
    b: str
    B: str
    a: str
    A: str


class _Trade(msgspec.Struct, gc=False):
    a: _Id
    p: str
    q: str
    T: int
    m: bool


class _Wrapped(msgspec.Struct, gc=False):
    stream: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")


_WRAPPED = msgspec.json.Decoder(_Wrapped)
_TICKER = msgspec.json.Decoder(_Ticker)
_TRADE = msgspec.json.Decoder(_Trade)


class Stream:
    """One connection's state: the newest update and trade id. `on_frame` fills a SPOT record."""

    def __init__(self, rec):
        self._rec = rec                     # a SPOT array of one element
        self.late = self.gaps = self.other = 0
        self.restart()

    def restart(self) -> None:
        """A new connection: ids are compared with nothing."""
        self._update = self._trade = 0
        self.closing = False                # the venue has announced its maintenance

    def on_frame(self, data, t_recv_ns: int, wall_ns: int = 0) -> bool:
        """True if the record was filled (``t_pub_ns`` is the publisher's) and should go out. Errors: BadValue.

        wall_ns: wall time of the receipt, by which old trades are told; 0: nothing is old.
        """
        try:
            frame = _WRAPPED.decode(data)
            if frame.stream.endswith("@bookTicker"):
                return self._ticker(_TICKER.decode(frame.data), t_recv_ns)
            if frame.stream.endswith("@aggTrade"):
                return self._on_trade(_TRADE.decode(frame.data), t_recv_ns, wall_ns)
        except UNREADABLE as e:
            raise BadValue(f"a Binance frame that cannot be read: {e}") from None
        self.other += 1
        self.closing |= b'"serverShutdown"' in bytes(data)
        return False

    def _ticker(self, m: _Ticker, t_recv_ns: int) -> bool:
        if m.u <= self._update:
            self.late += 1
            return False
        bid, ask, bid_qty, ask_qty = positive(m.b, VENUE), positive(m.a, VENUE), quantity(m.B, VENUE), quantity(m.A, VENUE)
        self._update = m.u
        self._put(r.SK_BBO, 0, t_recv_ns, m.u, bid, bid_qty, ask, ask_qty, 0.0, 0.0, 0)
        return True

    def _on_trade(self, m: _Trade, t_recv_ns: int, wall_ns: int) -> bool:
        if m.a <= self._trade:
            self.late += 1
            return False
        px, qty = positive(m.p, VENUE), quantity(m.q, VENUE)
        if self._trade and m.a != self._trade + 1:
            self.gaps += 1
        self._trade = m.a
        t_exch_ns = m.T * 1_000_000 if 0 < m.T < 4_000_000_000_000 else 0
        if wall_ns and t_exch_ns and wall_ns - t_exch_ns > OLD_NS:
            self.late += 1
            return False
        self._put(r.SK_TRADE, t_exch_ns, t_recv_ns, m.a, 0.0, 0.0, 0.0, 0.0, px, qty,
                  r.SELL if m.m else r.BUY)
        return True

    def _put(self, kind, t_exch_ns, t_recv_ns, update_id, bid, bid_qty, ask, ask_qty, px, qty, side) -> None:
        self._rec[0] = (kind, r.SV_BINANCE, t_exch_ns, t_recv_ns, 0, update_id, bid, bid_qty, ask, ask_qty, px, qty, side, 0)
