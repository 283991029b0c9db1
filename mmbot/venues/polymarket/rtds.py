"""RTDS, the venue's relay of prices: frames to prints.

Owns: the messages and shapes of the relay. Writes and reads nothing. No sockets, no clock. Can go wrong: a value without its exact text
(refused: a float decides no outcome), a TWAP of another length on the topic of ours.

Subscriptions carry no filter (filters have silenced a subscription before), so frames of other coins come too: they are not ours, but they show
that the connection lives. Source: venue protocol, RTDS.
"""

import msgspec

from mmbot.venues.frames import UNREADABLE
from mmbot.venues.numbers import BadValue, scaled
from mmbot.venues.polymarket.prints import E18, MAX_STAMP_MS, Print, value_e18
from shm_layout import records as r

TOPIC_TWAP, TOPIC_SPOT, TOPIC_RELAY = "crypto_prices_twap_sixty", "crypto_prices_chainlink", "crypto_prices"
_KINDS = {TOPIC_TWAP: (r.OK_TWAP60, "btc/usd"), TOPIC_SPOT: (r.OK_SPOT, "btc/usd"), TOPIC_RELAY: (r.OK_RELAY, "btcusdt")}

SUBSCRIBE = msgspec.json.encode({"action": "subscribe", "subscriptions": [
    {"topic": topic, "type": "update"} for topic in (TOPIC_TWAP, TOPIC_SPOT, TOPIC_RELAY)]})


class _Payload(msgspec.Struct, gc=False):
    symbol: str = ""
    timestamp: int = 0
    full_accuracy_value: str = ""
    window_s: int = 60


class _Frame(msgspec.Struct, gc=False):
    topic: str = ""
    type: str = ""
    timestamp: int = 0
    payload: _Payload | None = None


_DECODER = msgspec.json.Decoder(_Frame)


def decode(data) -> Print | None:
    """The print of one frame; None for other symbols, topics and snapshots. Errors: BadValue."""
    if not len(data):
        return None
    try:
        m = _DECODER.decode(data)
    except UNREADABLE as e:
        raise BadValue(f"an RTDS frame that cannot be read: {e}") from None
    kind, symbol = _KINDS.get(m.topic, (0, ""))
    p = m.payload
    if not kind or m.type != "update" or p is None or p.symbol.lower() != symbol:
        return None
    if kind == r.OK_TWAP60 and p.window_s != 60:
        raise BadValue(f"a TWAP over {p.window_s} s on the 60 s topic")
    if not 0 < p.timestamp < MAX_STAMP_MS or not 0 <= m.timestamp < MAX_STAMP_MS:
        raise BadValue(f"a print stamped {p.timestamp}, sent {m.timestamp}")
    text = p.full_accuracy_value
    value = scaled(text, 18) if kind == r.OK_RELAY else value_e18(text)       # the relay of Binance writes plain dollars, with or without a point
    if not E18 <= value < 10 ** 9 * E18:
        raise BadValue(f"a price of {text[:60]!r}")
    return Print(kind, p.timestamp, m.timestamp * 1_000_000, value, r.OS_RTDS)
