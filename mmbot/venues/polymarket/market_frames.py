"""What the market channel and POST /books say and are told: typed shapes of frames, their decoders, the subscribe messages.

Owns: field names and bounds. Pure data: no books, no sockets. Read by the market channel and the watch over its books. Can go wrong: a frame
that is none of these; the decoder's error (frames.UNREADABLE) goes to the caller. Level lists stay raw: `books.levels` reads them.

Source: venue protocol, market channel; REST market data.
"""

from collections.abc import Iterable
from typing import Annotated, Union

import msgspec

#: venue time in ms; the bound keeps nanoseconds inside an int64
Stamp = Annotated[int, msgspec.Meta(ge=0, le=4_000_000_000_000)]


class Change(msgspec.Struct, gc=False):
    """One level's new total, with the top of the token after it."""
    asset_id: str
    price: str
    size: str
    side: str
    best_bid: str = ""
    best_ask: str = ""
    hash: str = ""


class _Event(msgspec.Struct, gc=False, tag_field="event_type"):
    pass


class PriceChange(_Event, tag="price_change"):
    timestamp: Stamp
    price_changes: list[Change]


class Book(_Event, tag="book"):
    asset_id: str
    timestamp: Stamp
    bids: msgspec.Raw
    asks: msgspec.Raw
    hash: str = ""
    tick_size: str = ""
    last_trade_price: str = ""


class LastTrade(_Event, tag="last_trade_price"):
    asset_id: str
    timestamp: Stamp
    price: str
    size: str
    side: str


class TickSizeChange(_Event, tag="tick_size_change"):
    asset_id: str
    timestamp: Stamp
    new_tick_size: str


class MarketResolved(_Event, tag="market_resolved"):
    timestamp: Stamp
    winning_asset_id: str


class BestBidAsk(_Event, tag="best_bid_ask"):
    """The top of one token, with every book that follows a trade. An empty side is "", or 0 and 1."""
    asset_id: str
    timestamp: Stamp
    best_bid: str = ""
    best_ask: str = ""


class NewMarket(_Event, tag="new_market"):
    """Comes for every new market of the site; discovery finds ours."""


ANY = Union[PriceChange, Book, LastTrade, TickSizeChange, MarketResolved, BestBidAsk, NewMarket]
DECODER = msgspec.json.Decoder(Union[ANY, list[ANY]], strict=False)
ONE = msgspec.json.Decoder(ANY, strict=False)

KNOWN = {t.__struct_config__.tag for t in (PriceChange, Book, LastTrade, TickSizeChange, MarketResolved, BestBidAsk, NewMarket)}


class RestBook(msgspec.Struct, gc=False):
    """A book object of POST /books. ``timestamp`` is that of the book's last change."""
    asset_id: str
    timestamp: Stamp
    bids: msgspec.Raw
    asks: msgspec.Raw
    hash: str = ""
    min_order_size: str = ""
    tick_size: str = ""
    neg_risk: bool = False
    last_trade_price: str = ""


_BOOKS = msgspec.json.Decoder(list[RestBook], strict=False)


def books_query(tokens: Iterable[str]) -> bytes:
    """Body of POST /books."""
    return msgspec.json.encode([{"token_id": t} for t in tokens])


def read_books(data: bytes) -> list[RestBook]:
    """The answer of POST /books. Errors: those of frames.UNREADABLE."""
    return _BOOKS.decode(data)


def subscribe_first(tokens: Iterable[str]) -> bytes:
    """The first message on a new connection; the venue answers with one book per token."""
    return msgspec.json.encode({"type": "market", "assets_ids": list(tokens), "custom_feature_enabled": True})


def subscribe(tokens: Iterable[str]) -> bytes:
    """More tokens on the same connection; new ones get a book, known ones do not."""
    return msgspec.json.encode({"operation": "subscribe", "assets_ids": list(tokens), "custom_feature_enabled": True})


def unsubscribe(tokens: Iterable[str]) -> bytes:
    """Tokens no longer wanted. Never acknowledged; frames may still come."""
    return msgspec.json.encode({"operation": "unsubscribe", "assets_ids": list(tokens)})
