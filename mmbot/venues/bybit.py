"""Bybit v5 spot: best bid and ask out of orderbook.50, public trades and the ticker of one symbol, to SPOT records.

Owns: the messages, the shapes, the order of book updates and the book. Writes: the record it is given. No sockets, no clock. Can go wrong: a
hole in the update ids (Lost: the book is empty until the snapshot of a new subscription), a restart of the venue's service (`u` is 1: that
frame is the whole book), old ticks (dropped and counted), a refused subscription or garbage (BadValue).
Source: Bybit v5 WebSocket, public spot.
"""

from collections.abc import Callable

import msgspec

from mmbot.venues.frames import UNREADABLE
from mmbot.venues.numbers import BadValue
from mmbot.venues.spot import OLD_NS, Ladder, positive, quantity
from shm_layout import records as r

SYMBOL = "BTCUSDT"
VENUE = "Bybit"
T_BOOK, T_TRADE, T_TICKER = f"orderbook.50.{SYMBOL}", f"publicTrade.{SYMBOL}", f"tickers.{SYMBOL}"
#: the venue refuses more topics than this in one message
MAX_ARGS = 10
PING_S = 20.0
PING = b'{"op":"ping"}'
_MS = 1_000_000


class Lost(Exception):
    """Book updates are missing; the book has to be subscribed anew."""


class _Frame(msgspec.Struct, gc=False):
    topic: str = ""
    type: str = ""
    ts: int = 0
    cts: int = 0
    cs: int = 0
    data: msgspec.Raw = msgspec.Raw(b"null")
    op: str = ""
    success: bool = True
    ret_msg: str = ""


class _Book(msgspec.Struct, gc=False):
    u: int
    seq: int
    b: list[tuple[str, str]] = []
    a: list[tuple[str, str]] = []


class _Trade(msgspec.Struct, gc=False):
    i: str
    T: int
    p: str
    v: str
    S: str
    seq: int = 0


class _Ticker(msgspec.Struct, gc=False):
    lastPrice: str
    volume24h: str = "0"


_FRAME, _BOOK = msgspec.json.Decoder(_Frame), msgspec.json.Decoder(_Book)
_TRADES, _TICKER = msgspec.json.Decoder(list[_Trade]), msgspec.json.Decoder(_Ticker)


def subscribe(*topics: str, op: str = "subscribe") -> list[bytes]:
    """Messages that subscribe to (or with ``op`` "unsubscribe" leave) topics."""
    return [msgspec.json.encode({"op": op, "args": topics[i:i + MAX_ARGS]}) for i in range(0, len(topics), MAX_ARGS)]


def again() -> list[bytes]:
    """Messages that bring a new snapshot of the book on a connection that stands."""
    return [*subscribe(T_BOOK, op="unsubscribe"), *subscribe(T_BOOK)]


class Stream:
    """One connection: the book, the newest trade. ``put()`` is called for each record filled."""

    def __init__(self, rec, put: Callable[[], None]):
        self._rec, self._put = rec, put
        self.bids, self.asks = Ladder(-1), Ladder(1)
        self.late = self.gaps = self.other = 0
        self.restart()

    def restart(self) -> None:
        """A new connection: ids are compared with nothing, the book is empty."""
        self._seq = 0
        self._forget()

    def _forget(self) -> None:
        self.bids.clear()
        self.asks.clear()
        self._u, self._top = 0, (0.0, 0.0, 0.0, 0.0)

    @property
    def ready(self) -> bool:
        """Is there a whole book?"""
        return self._u > 0

    def on_frame(self, data, t_recv_ns: int, wall_ns: int) -> None:
        """One message, received at ``t_recv_ns`` (mono) = ``wall_ns`` (wall). Errors: BadValue; Lost when book updates are missing."""
        try:
            frame = _FRAME.decode(data)
            if frame.topic == T_BOOK:
                self._book(frame, _BOOK.decode(frame.data), t_recv_ns, wall_ns)
            elif frame.topic == T_TRADE:
                self._trades(_TRADES.decode(frame.data), t_recv_ns, wall_ns)
            elif frame.topic == T_TICKER:
                self._ticker(frame, _TICKER.decode(frame.data), t_recv_ns, wall_ns)
            elif frame.op and not frame.success:
                raise BadValue(f"{VENUE} refuses {frame.op}: {frame.ret_msg[:100]}")
            elif not frame.op:
                self.other += 1
        except UNREADABLE as e:
            raise BadValue(f"a {VENUE} frame that cannot be read: {e}") from None

    def _book(self, frame: _Frame, m: _Book, t_recv_ns: int, wall_ns: int) -> None:
        if frame.type == "snapshot" or m.u == 1:        # 1: their service has started anew
            self._forget()
        elif not self._u:
            return                                      # waiting for the snapshot
        elif m.u <= self._u:
            self.late += 1
            return
        elif m.u != self._u + 1:
            missing = m.u - self._u - 1
            self.gaps += 1
            self._forget()
            raise Lost(f"{missing} book updates before number {m.u} are missing")
        self._u = m.u
        for side, levels in ((self.bids, m.b), (self.asks, m.a)):
            for px, qty in levels:
                side.set(positive(px, VENUE), quantity(qty, VENUE))
        top = (*self.bids.best(), *self.asks.best())
        if top == self._top or not top[0] or not top[2]:
            return
        t_exch_ns = (frame.cts or frame.ts) * _MS
        if t_exch_ns and wall_ns - t_exch_ns > OLD_NS:
            self.late += 1
            return
        self._top = top
        self._rec[0] = (r.SK_BBO, r.SV_BYBIT, t_exch_ns, t_recv_ns, 0, m.u, *top, 0.0, 0.0, 0, 0)
        self._put()

    def _trades(self, trades: list[_Trade], t_recv_ns: int, wall_ns: int) -> None:
        for t in trades:
            if t.seq < self._seq or wall_ns - t.T * _MS > OLD_NS:       # several trades may share a number
                self.late += 1
                continue
            self._seq = t.seq
            number = int(t.i) if t.i.isdecimal() and len(t.i) < 20 and int(t.i) < 1 << 63 else 0
            self._rec[0] = (r.SK_TRADE, r.SV_BYBIT, t.T * _MS, t_recv_ns, 0, number, 0.0, 0.0, 0.0, 0.0, positive(t.p, VENUE),
                            quantity(t.v, VENUE), r.BUY if t.S == "Buy" else r.SELL, 0)
            self._put()

    def _ticker(self, frame: _Frame, m: _Ticker, t_recv_ns: int, wall_ns: int) -> None:
        if wall_ns - frame.ts * _MS > OLD_NS:
            self.late += 1
            return
        self._rec[0] = (r.SK_TICKER, r.SV_BYBIT, frame.ts * _MS, t_recv_ns, 0, frame.cs, 0.0, 0.0, 0.0, 0.0, positive(m.lastPrice, VENUE),
                        quantity(m.volume24h, VENUE), 0, 0)
        self._put()
