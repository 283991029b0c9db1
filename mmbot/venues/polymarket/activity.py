"""The public activity stream: trades of everybody, of which those of our wallet are a second witness of our fills.

Owns: the message that subscribes and the shape of a trade. Writes and reads nothing: frames in, rows of USER words out. No sockets, no clock.
Can go wrong: the venue may disable the topic without notice (then nothing comes: it is evidence, never a source of fills), garbage (BadValue).
A row has no order id; its trade id stands for the transaction hash. Source: venue protocol, RTDS, topic activity.
"""

from collections.abc import Callable

import msgspec

from mmbot.venues.frames import UNREADABLE
from mmbot.venues.numbers import BadValue, ms_of, words_of_decimal, words_of_hex, words_of_trade
from mmbot.venues.polymarket.user_channel import FIELDS, WORDS
from shm_layout import records as r

TOPIC, TYPE = "activity", "trades"
SUBSCRIBE = msgspec.json.encode({"action": "subscribe", "subscriptions": [{"topic": TOPIC, "type": TYPE}]})
_SIDES = {"BUY": r.BUY, "SELL": r.SELL}


class _Trade(msgspec.Struct, gc=False):
    proxyWallet: str
    asset: str
    conditionId: str
    side: str
    price: float
    size: float
    timestamp: int = 0
    transactionHash: str = ""


class _Frame(msgspec.Struct, gc=False):
    topic: str = ""
    type: str = ""
    payload: msgspec.Raw = msgspec.Raw(b"null")


_FRAME, _TRADE = msgspec.json.Decoder(_Frame), msgspec.json.Decoder(_Trade)


class Activity:
    """Trades of one wallet out of the stream of all. ``market_of`` as in `UserChannel`."""

    def __init__(self, wallet: str, market_of: Callable[[str, str], tuple[int, int]]):
        self._wallet, self._needle, self._market_of = wallet.lower(), wallet.lower().encode(), market_of
        self.trades = 0                 # of anybody

    def on_frame(self, data, t_recv_ns: int) -> list[int]:
        """The USER words of a trade of our wallet, else []. Most frames are others', so the wallet is looked for before decoding."""
        raw = bytes(data)
        self.trades += b'"activity"' in raw
        if self._needle not in raw.lower():
            return []
        try:
            frame = _FRAME.decode(raw)
            if frame.topic != TOPIC or frame.type != TYPE:
                return []
            t = _TRADE.decode(frame.payload)
        except UNREADABLE as e:
            raise BadValue(f"an activity frame of our wallet that cannot be read: {e}") from None
        if t.proxyWallet.lower() != self._wallet:
            return []
        if t.side not in _SIDES or not 0 <= t.price <= 1 or not 0 < t.size < 1e12:
            raise BadValue(f"an activity trade of our wallet: side {t.side[:10]!r} price {t.price} size {t.size}")
        return self._row(t, t_recv_ns)

    def _row(self, t: _Trade, t_recv_ns: int) -> list[int]:
        row = [0] * WORDS
        market_id, token = self._market_of(t.conditionId, t.asset)
        size_u6 = round(t.size * 1e6)
        for name, value in (("kind", r.UK_ACTIVITY), ("t_exch_ns", ms_of(t.timestamp) * 1_000_000), ("t_recv_ns", t_recv_ns),
                            ("market_id", market_id), ("token", token), ("side", _SIDES[t.side]), ("px_u6", round(t.price * 1e6)),
                            ("size_u6", size_u6), ("matched_u6", size_u6)):
            row[FIELDS[name]] = value
        for name, words in (("token_id", words_of_decimal(t.asset)), ("condition_id", words_of_hex(t.conditionId)),
                            ("trade_id", words_of_trade(t.transactionHash))):
            row[FIELDS[name]:FIELDS[name] + len(words)] = words
        return row
