"""Coinbase Advanced Trade: best bid and ask out of level2, and market trades of one product, to SPOT records.

Owns: the messages, the shapes, the order of a connection's messages (`sequence_num` counts all of them, whatever the channel: a jump is lost
data) and the book. Writes: the record it is given. No sockets, no clock. Can go wrong: a jump (Lost: the book is empty until the snapshot of
a new subscription), old ticks (dropped and counted), garbage (BadValue).

Book and trades come on two connections, each with the heartbeats that keep it open: neither waits for the other, and a jump costs only one.
The side of a trade is the maker's, so the aggressor's is the other. Source: Coinbase Advanced Trade WebSocket channels.
"""

from collections.abc import Callable

import msgspec

from mmbot.venues.frames import UNREADABLE
from mmbot.venues.numbers import BadValue
from mmbot.venues.spot import OLD_NS, IsoTimes, Ladder, positive, quantity
from shm_layout import records as r

PRODUCT = "BTC-USD"
BOOK, TRADES = "level2", "market_trades"
VENUE = "Coinbase"
_NO_TRADE = (0.0, 0.0, 0)


class Lost(Exception):
    """Messages of the connection are missing; the channel has to be subscribed anew."""


class _Level(msgspec.Struct, gc=False):
    side: str
    price_level: str
    new_quantity: str
    event_time: str = ""


class _Trade(msgspec.Struct, gc=False):
    trade_id: str
    price: str
    size: str
    side: str
    time: str
    product_id: str = PRODUCT


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    product_id: str = ""
    updates: list[_Level] = []
    trades: list[_Trade] = []


class _Frame(msgspec.Struct, gc=False):
    channel: str = ""
    sequence_num: int = -1
    timestamp: str = ""
    type: str = ""
    message: str = ""
    events: msgspec.Raw = msgspec.Raw(b"[]")


_FRAME = msgspec.json.Decoder(_Frame)
_EVENTS = msgspec.json.Decoder(list[_Event])


def subscribe(channel: str) -> list[bytes]:
    """First messages of a connection: the channel, then the heartbeats (one channel per message)."""
    return [_say("subscribe", channel, product_ids=[PRODUCT]), _say("subscribe", "heartbeats")]


def again(channel: str) -> list[bytes]:
    """Messages that bring a new snapshot on a connection that stands."""
    return [_say("unsubscribe", channel, product_ids=[PRODUCT]), _say("subscribe", channel, product_ids=[PRODUCT])]


def _say(verb: str, channel: str, **more) -> bytes:
    return msgspec.json.encode({"type": verb, **more, "channel": channel})


class Stream:
    """One connection: its sequence, and the book or the trades it carries. ``put()`` is called for each record filled."""

    def __init__(self, rec, put: Callable[[], None]):
        self._rec, self._put = rec, put
        self.bids, self.asks = Ladder(-1), Ladder(1)
        self.late = self.gaps = self.other = 0
        self._times = IsoTimes()
        self.restart()

    def restart(self) -> None:
        """A new connection: its sequence starts anywhere, its book empty."""
        self._sequence = -1
        self._trade = 0
        self._forget()

    def _forget(self) -> None:
        self.bids.clear()
        self.asks.clear()
        self.ready, self._top = False, (0.0, 0.0, 0.0, 0.0)

    def on_frame(self, data, t_recv_ns: int, wall_ns: int) -> None:
        """One message, received at ``t_recv_ns`` (mono) = ``wall_ns`` (wall). Errors: BadValue; Lost when messages before this one are missing."""
        try:
            frame = _FRAME.decode(data)
            jump = self._order(frame)
            if jump < 0:
                return
            if jump:
                self._forget()
            if frame.channel == "l2_data":
                self._levels(_EVENTS.decode(frame.events), frame.sequence_num, t_recv_ns, wall_ns)
            elif frame.channel == "market_trades":
                self._trades(_EVENTS.decode(frame.events), t_recv_ns, wall_ns)
            elif frame.type == "error":
                raise BadValue(f"{VENUE} says: {frame.message[:100]}")
            elif frame.channel not in ("heartbeats", "subscriptions", "ticker"):
                self.other += 1
        except UNREADABLE as e:
            raise BadValue(f"a {VENUE} frame that cannot be read: {e}") from None
        if jump:
            self.gaps += 1
            raise Lost(f"{jump} messages before number {frame.sequence_num} are missing")

    def _order(self, frame: _Frame) -> int:
        """How many messages are missing before this one; -1 when it is an old one."""
        if frame.sequence_num < 0:
            return 0
        last = self._sequence
        if last >= 0 and frame.sequence_num <= last:
            self.late += 1
            return -1
        self._sequence = frame.sequence_num
        return frame.sequence_num - last - 1 if last >= 0 else 0

    def _levels(self, events: list[_Event], sequence: int, t_recv_ns: int, wall_ns: int) -> None:
        newest = ""
        for event in events:
            if event.product_id not in (PRODUCT, ""):
                continue
            if event.type == "snapshot":
                self._forget()
                self.ready = True
            if not self.ready:
                continue
            for level in event.updates:
                side = self.bids if level.side == "bid" else self.asks
                side.set(positive(level.price_level, VENUE), quantity(level.new_quantity, VENUE))
                newest = level.event_time if level.event_time > newest else newest
        top = (*self.bids.best(), *self.asks.best())
        if not self.ready or top == self._top or not top[0] or not top[2]:
            return
        t_exch_ns = self._times.ns(newest) if newest else 0
        if t_exch_ns and wall_ns - t_exch_ns > OLD_NS:
            self.late += 1              # the book has it; whoever looks for a price of now must not
            return
        self._top = top
        self._rec[0] = (r.SK_BBO, r.SV_COINBASE, t_exch_ns, t_recv_ns, 0, sequence, *top, *_NO_TRADE, 0)
        self._put()

    def _trades(self, events: list[_Event], t_recv_ns: int, wall_ns: int) -> None:
        for event in events:
            if event.type == "snapshot":        # what traded before we came
                self._trade = max((int(t.trade_id) for t in event.trades if t.trade_id.isdecimal()), default=self._trade)
                continue
            for t in reversed(event.trades):    # newest first on the wire
                if t.product_id != PRODUCT or not t.trade_id.isdecimal():
                    continue
                t_exch_ns, number = self._times.ns(t.time), int(t.trade_id)
                if number <= self._trade or wall_ns - t_exch_ns > OLD_NS:
                    self.late += 1
                    continue
                self._trade = number
                self._rec[0] = (r.SK_TRADE, r.SV_COINBASE, t_exch_ns, t_recv_ns, 0, number, 0.0, 0.0, 0.0, 0.0, positive(t.price, VENUE),
                                quantity(t.size, VENUE), r.BUY if t.side == "SELL" else r.SELL, 0)
                self._put()
