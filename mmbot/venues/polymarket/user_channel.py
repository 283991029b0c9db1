"""The user channel: own orders and trades, one USER record per order event and per own leg of a trade.

Owns: the messages and shapes of the channel, and the rule which legs of a trade are ours. Writes and reads nothing: frames in, rows of
record words out. Can go wrong: an event that cannot be read may have been a fill, so the caller is told (`Lost`) and must have the account
read again; an unknown event type is counted; a market that discovery does not know gets market_id 0 and token -1.

A maker's fill stands only in ``maker_orders``: the top-level side, size and price are the taker's, possibly of the other token.
Source: venue protocol, user channel and own fill of a maker.
"""

from collections.abc import Callable
from typing import Union

import msgspec

from mmbot.venues.frames import UNREADABLE, event_name, parts
from mmbot.venues.numbers import BadValue, ms_of, scaled, size_u6, words_of_decimal, words_of_hex, words_of_trade
from shm_layout import records as r

FIELDS = {name: r.USER.fields[name][1] // 8 for name in r.USER.names}
WORDS = r.USER.itemsize // 8
_SIDES = {"BUY": r.BUY, "SELL": r.SELL}
_TYPES = {"PLACEMENT": r.UT_PLACEMENT, "UPDATE": r.UT_UPDATE, "CANCELLATION": r.UT_CANCELLATION}
_ORDER_STATUS = {"LIVE": r.ST_LIVE, "MATCHED": r.ST_MATCHED, "DELAYED": r.ST_DELAYED, "UNMATCHED": r.ST_UNMATCHED,
                 "INVALID": r.ST_INVALID}
_TRADE_STATUS = {"MATCHED": r.TS_MATCHED, "MATCHED_NOT_BROADCASTED": r.TS_MATCHED, "MINED": r.TS_MINED, "CONFIRMED": r.TS_CONFIRMED,
                 "RETRYING": r.TS_RETRYING, "FAILED": r.TS_FAILED}


class Lost(Exception):
    """An event of ours could not be read; the text says why. What was readable is in ``rows``."""

    def __init__(self, text: str, rows: list):
        super().__init__(text)
        self.rows = rows


class _Event(msgspec.Struct, gc=False, tag_field="event_type"):
    pass


class OrderEvent(_Event, tag="order"):
    id: str
    type: str
    market: str
    asset_id: str
    side: str
    price: str
    original_size: str
    size_matched: str | None = None
    status: str | None = None
    timestamp: int | str | None = None


class MakerOrder(msgspec.Struct, gc=False):
    order_id: str
    matched_amount: str
    price: str
    asset_id: str
    owner: str | None = None
    maker_address: str | None = None
    side: str | None = None


class TradeEvent(_Event, tag="trade"):
    id: str
    market: str
    asset_id: str
    side: str
    size: str
    price: str
    status: str
    taker_order_id: str | None = None
    owner: str | None = None
    trade_owner: str | None = None
    maker_address: str | None = None
    trader_side: str | None = None
    maker_orders: list[MakerOrder] | None = None
    timestamp: int | str | None = None


_ANY = Union[OrderEvent, TradeEvent]
_ONE = msgspec.json.Decoder(_ANY)


def subscribe(api_key: str, secret: str, passphrase: str) -> bytes:
    """The first message on a new connection: everything of the account. Secret: never logged."""
    return msgspec.json.encode({"type": "user", "auth": {"apiKey": api_key, "secret": secret, "passphrase": passphrase}})


def status_of_order(event_type: str, status: str | None) -> int:
    """ST_* of an order event; texts like ``CANCELED_MARKET_RESOLVED`` count as canceled, as does a CANCELLATION with any other text."""
    text = (status or "").upper()
    if text.startswith("CANCELED") or text.startswith("CANCELLED"):
        return r.ST_CANCELED
    if text in _ORDER_STATUS:
        return _ORDER_STATUS[text]
    return r.ST_CANCELED if event_type == "CANCELLATION" else r.ST_LIVE


def _stamp_ns(value: int | str | None) -> int:
    """Venue time in ns; 0 when the text is not a number of seconds or milliseconds."""
    try:
        stamp = ms_of(int(value or 0))
    except ValueError:
        return 0
    return stamp * 1_000_000 if 0 <= stamp < 9_000_000_000_000 else 0


class UserChannel:
    """Frames of one account.

    api_key, funder: who we are (a leg is ours when its owner is our key or its maker_address our funder). market_of(condition_id hex,
    token decimal) -> (market_id, token index) or (0, -1).
    """

    def __init__(self, api_key: str, funder: str, market_of: Callable[[str, str], tuple[int, int]]):
        self._key, self._funder, self._market_of = api_key.lower(), funder.lower(), market_of
        self.unknown = 0

    def on_frame(self, data, t_recv_ns: int) -> list[list[int]]:
        """Rows of USER words (t_pub_ns and connection are the caller's) of one text frame: an object, an array, or ``[]``.

        Errors: Lost, after which the account must be read again.
        """
        rows: list[list[int]] = []
        wrong = ""
        try:
            events = parts(data)
        except UNREADABLE as e:
            raise Lost(f"a user frame that is no JSON: {e}", rows) from None
        for part in events:
            try:
                event = _ONE.decode(part)
                rows += self._order(event, t_recv_ns) if type(event) is OrderEvent else self._trade(event, t_recv_ns)
            except (*UNREADABLE, BadValue) as e:
                wrong = self._why(part, e) or wrong
        if wrong:
            raise Lost(wrong, rows)
        return rows

    def _why(self, part, error: Exception) -> str:
        """What was wrong with an event; empty when it is merely of a type we do not know."""
        name = event_name(part)
        if name in ("", "order", "trade"):
            return f"a user {name} event that cannot be read: {error}"
        self.unknown += 1
        return ""

    def _row(self, condition: str, asset_id: str, t_recv_ns: int, **fields: int) -> list[int]:
        row = [0] * WORDS
        market_id, token = self._market_of(condition, asset_id)
        row[FIELDS["market_id"]], row[FIELDS["token"]], row[FIELDS["t_recv_ns"]] = market_id, token, t_recv_ns
        for name, value in fields.items():
            row[FIELDS[name]] = value
        at = FIELDS["token_id"]
        row[at:at + r.ID_WORDS] = words_of_decimal(asset_id)
        at = FIELDS["condition_id"]
        row[at:at + r.ID_WORDS] = words_of_hex(condition)
        return row

    def _order(self, m: OrderEvent, t_recv_ns: int) -> list[list[int]]:
        if m.type not in _TYPES or m.side not in _SIDES:
            raise BadValue(f"order type {m.type[:20]!r} side {m.side[:10]!r}")
        row = self._row(m.market, m.asset_id, t_recv_ns, kind=r.UK_ORDER, t_exch_ns=_stamp_ns(m.timestamp), side=_SIDES[m.side],
                        role=r.MAKER, type=_TYPES[m.type], status=status_of_order(m.type, m.status), px_u6=scaled(m.price, 6),
                        size_u6=size_u6(m.original_size), matched_u6=size_u6(m.size_matched or "0"))
        at = FIELDS["order_id"]
        row[at:at + r.ID_WORDS] = words_of_hex(m.id)
        return [row]

    def _mine(self, owner: str | None, address: str | None) -> bool:
        return (owner or "").lower() == self._key or (bool(self._funder) and (address or "").lower() == self._funder)

    def _trade(self, m: TradeEvent, t_recv_ns: int) -> list[list[int]]:
        status = _TRADE_STATUS.get(m.status.upper().removeprefix("TRADE_STATUS_"))
        if status is None or m.side not in _SIDES:
            raise BadValue(f"trade status {m.status[:30]!r} side {m.side[:10]!r}")
        common = {"kind": r.UK_TRADE, "t_exch_ns": _stamp_ns(m.timestamp), "status": status}
        rows = []
        if self._is_taker(m):
            rows.append(self._leg(m, common, t_recv_ns, m.asset_id, m.taker_order_id or "", r.TAKER, _SIDES[m.side], m.price, m.size))
        for leg in m.maker_orders or ():
            if self._mine(leg.owner, leg.maker_address):
                rows.append(self._leg(m, common, t_recv_ns, leg.asset_id, leg.order_id, r.MAKER, self._maker_side(m, leg), leg.price,
                                      leg.matched_amount))
        return rows

    def _is_taker(self, m: TradeEvent) -> bool:
        if self._key in ((m.trade_owner or "").lower(), (m.owner or "").lower()):
            return True
        return m.trader_side == "TAKER" and self._mine(None, m.maker_address)

    @staticmethod
    def _maker_side(m: TradeEvent, leg: MakerOrder) -> int:
        """The leg's own side; when an old payload lacks it: opposite to the taker on the same token, the same on the other token."""
        if leg.side in _SIDES:
            return _SIDES[leg.side]
        taker = _SIDES[m.side]
        return 1 - taker if leg.asset_id == m.asset_id else taker

    def _leg(self, m: TradeEvent, common: dict[str, int], t_recv_ns: int, asset_id: str, order_id: str, role: int, side: int,
             price: str, size: str) -> list[int]:
        shares = size_u6(size)
        row = self._row(m.market, asset_id, t_recv_ns, **common, role=role, side=side, px_u6=scaled(price, 6), size_u6=shares,
                        matched_u6=shares)
        at = FIELDS["order_id"]
        row[at:at + r.ID_WORDS] = words_of_hex(order_id)
        at = FIELDS["trade_id"]
        row[at:at + r.UUID_WORDS] = words_of_trade(m.id)
        return row
