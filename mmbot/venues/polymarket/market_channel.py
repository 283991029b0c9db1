"""The market channel: frames to books, and books to MARKET records.

Owns: the messages of the channel (subscribe, unsubscribe), the typed shapes of its frames, which token belongs to which market, and
one book per market slot. Writes: its own books and one record per market, handed to the caller's ``publish``. No sockets, no clock.
Can go wrong, and does: frames out of time order (the book sorts that out), frames that cannot be decoded (counted; every book is suspect,
as nobody knows what was in them), values that cannot be (counted; that market's book is suspect), tokens that are not ours (counted).

Records are in Up terms: a trade of Down at p with taker side BUY is a trade at 1-p with side SELL; ``token`` keeps the token that was named.
Source: venue protocol, market channel.
"""

from collections.abc import Callable, Iterable
from typing import Annotated, Union

import msgspec
import numpy as np

from mmbot.books import book as bk
from mmbot.books import price_change as pc
from mmbot.venues.frames import UNREADABLE, event_name, parts
from mmbot.venues.numbers import BadValue, PriceTexts, size_u6
from shm_layout import records as r

KEEPALIVE_NS = 100_000_000      # while frames arrive, a record at least this often: its age is the age of the data
MAX_FRAME_BYTES = 1 << 20       # a full dump of two tokens is some ten kilobytes
AHEAD_MS = 60_000               # a stamp this far ahead of the clock is wrong
FAST_BYTES = 1 << 16            # a price change longer than this takes the general path

_W = {name: r.MARKET.fields[name][1] // 8 for name in r.MARKET.names}
_KIND, _TOKEN, _T_EXCH, _T_RECV, _FRAME = _W["kind"], _W["token"], _W["t_exch_ns"], _W["t_recv_ns"], _W["frame"]
_TRADE_PX, _TRADE_SIZE, _TRADE_SIDE = _W["trade_px_e4"], _W["trade_size_u6"], _W["trade_side"]
T_PUB_WORD = _W["t_pub_ns"]
_TICKS = (1, 10, 25, 50, 100, 1000)
_SIDES = {"BUY": r.BUY, "SELL": r.SELL}


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
    """Says what price_change says; not used."""


class NewMarket(_Event, tag="new_market"):
    """Comes for every new market of the site; discovery finds ours."""


_ANY = Union[PriceChange, Book, LastTrade, TickSizeChange, MarketResolved, BestBidAsk, NewMarket]
_DECODER = msgspec.json.Decoder(Union[_ANY, list[_ANY]], strict=False)
_ONE = msgspec.json.Decoder(_ANY, strict=False)


_KNOWN = {t.__struct_config__.tag for t in (PriceChange, Book, LastTrade, TickSizeChange, MarketResolved, BestBidAsk, NewMarket)}


def subscribe_first(tokens: Iterable[str]) -> bytes:
    """The first message on a new connection; the venue answers with one book per token."""
    return msgspec.json.encode({"type": "market", "assets_ids": list(tokens), "custom_feature_enabled": True})


def subscribe(tokens: Iterable[str]) -> bytes:
    """More tokens on the same connection; new ones get a book, known ones do not."""
    return msgspec.json.encode({"operation": "subscribe", "assets_ids": list(tokens), "custom_feature_enabled": True})


def unsubscribe(tokens: Iterable[str]) -> bytes:
    """Tokens no longer wanted. Never acknowledged; frames may still come."""
    return msgspec.json.encode({"operation": "unsubscribe", "assets_ids": list(tokens)})


class Market:
    """One market slot: who it is, its book, and the words of its newest record."""

    __slots__ = ("slot", "market_id", "tokens", "book", "rec", "cells", "published_ns", "asked_ns", "asks")

    def __init__(self, slot: int, book: np.ndarray, rec: np.ndarray):
        self.slot, self.market_id, self.tokens = slot, 0, ("", "")
        self.book, self.rec = book, rec
        bk.reset(book, 0)
        self.cells = memoryview(self.rec)
        self.published_ns = self.asked_ns = self.asks = 0

    def take(self, market_id: int, tokens: tuple[str, str], tick_e4: int) -> None:
        """Become another market: everything of the old one is gone."""
        self.market_id, self.tokens = market_id, tokens
        bk.reset(self.book, tick_e4)
        self.rec[:] = 0
        self.cells[_W["market_id"]], self.cells[_W["slot"]] = market_id, self.slot
        self.published_ns = self.asked_ns = self.asks = 0

    @property
    def suspect(self) -> bool:
        """The newest record says the book cannot be trusted."""
        return bool(self.cells[_W["flags"]] & r.MF_SUSPECT)


class MarketChannel:
    """All books of the feed.

    publish(market): called for each record to go out, with its words in ``market.rec`` complete but for t_pub_ns.
    bad_input(code, text): called for each message or value that could not be used.
    """

    def __init__(self, publish: Callable[[Market], None], bad_input: Callable[[str, str], None]):
        self._publish, self._bad_input = publish, bad_input
        self._books = np.zeros((r.MARKET_SLOTS, bk.WORDS), np.int64)
        self._records = np.zeros((r.MARKET_SLOTS, bk.RECORD_WORDS), np.int64)
        self.markets = [Market(slot, self._books[slot], self._records[slot]) for slot in range(r.MARKET_SLOTS)]
        self._table = pc.token_table()
        self._frame = np.zeros(FAST_BYTES, np.uint8)
        self._frame_cells = memoryview(self._frame)
        self._tokens: dict[str, tuple[Market, int]] = {}
        self._px = PriceTexts()
        self._changes = np.zeros(pc.SCRATCH_WORDS, np.int64)
        self._cells = memoryview(self._changes)
        self._level_px, self._level_size = np.zeros(2 * bk.POINTS, np.int64), np.zeros(2 * bk.POINTS, np.int64)
        self._handlers = {PriceChange: self._on_price_change, Book: self._on_book, LastTrade: self._on_trade,
                          TickSizeChange: self._on_tick, MarketResolved: self._on_resolved}
        self.frames = self.not_ours = self.unknown = 0

    def dropped(self) -> int:
        """Changes dropped so far because something newer was known."""
        return sum(int(m.book[bk.H_DROPPED]) for m in self.markets)

    # which markets

    def tokens(self) -> list[str]:
        """Every token that should be subscribed now."""
        return list(self._tokens)

    def follow(self, slot: int, market_id: int, tokens: tuple[str, str], tick_e4: int, now_ns: int) -> tuple[list[str], list[str]]:
        """Give ``slot`` to a market (market_id 0: to nobody). Returns (tokens to subscribe, tokens to unsubscribe)."""
        market = self.markets[slot]
        if market.market_id == market_id and (market.tokens == tokens or not market_id):
            if market_id and 0 < tick_e4 < market.book[bk.H_TICK]:
                bk.set_tick(market.book, tick_e4)
            return [], []
        gone = [t for t in market.tokens if self._tokens.pop(t, None)]
        market.take(market_id, tokens if market_id else ("", ""), tick_e4)
        for token, text in enumerate(market.tokens):
            pc.set_token(self._table, slot, token, text)
        if not market_id:
            return [], gone
        for token, text in enumerate(tokens):
            self._tokens[text] = (market, token)
        market.asked_ns = now_ns
        self._emit(market, r.MK_SUSPECT, 0, now_ns)
        return list(tokens), gone

    def link_made(self, now_ns: int) -> None:
        """A new connection: every book starts empty and waits for its snapshot."""
        for market in self.markets:
            if market.market_id:
                bk.reset(market.book, market.book[bk.H_TICK])
                market.asked_ns, market.asks = now_ns, 0

    def link_lost(self, now_ns: int) -> None:
        """No connection: whatever we know may be wrong by now."""
        self.mistrust(bk.FAULT_LINK, now_ns)

    def mistrust(self, fault: int, now_ns: int, only: Market | None = None) -> None:
        """Call a book, or all books, suspect until the next snapshot, and say so at once."""
        for market in self.markets if only is None else (only,):
            if market.market_id:
                bk.add_fault(market.book, fault)
                self._emit(market, r.MK_SUSPECT, market.cells[_T_EXCH], now_ns)

    def stale_snapshots(self, now_ns: int, after_ns: int) -> list[Market]:
        """Markets whose book has been waiting for a snapshot for ``after_ns``; the caller asks for one, the waiting starts anew.

        ``market.asks`` counts how often in a row.
        """
        late = []
        for market in self.markets:
            if not market.suspect:
                market.asks = 0
            elif market.market_id and now_ns - market.asked_ns >= after_ns:
                market.asked_ns, market.asks = now_ns, market.asks + 1
                late.append(market)
        return late

    def ahead(self, wall_ms: int) -> Market | None:
        """A market whose book took a stamp from a time that has not come yet, which would shut out everything until then; only a new
        connection, on which every book starts empty, heals it."""
        return next((m for m in self.markets if m.market_id and m.book[bk.H_NEWEST] > wall_ms + AHEAD_MS), None)

    # frames

    def on_frame(self, data, t_recv_ns: int) -> None:
        """One text frame: an object, an array of objects, or an empty array. ``data``: bytes-like, used during the call only."""
        self.frames += 1
        n = len(data)
        if n <= FAST_BYTES:
            self._frame_cells[:n] = data
            hit = pc.on_price_change(self._frame, n, self._table, self._books, self._records, self._changes, t_recv_ns)
            if hit >= 0:
                market = self.markets[hit & 15]
                if hit & 16 or t_recv_ns - market.published_ns >= KEEPALIVE_NS:
                    self._send(market, r.MK_BOOK, (hit >> 5) - 1, self._cells[pc.T_MS] * 1_000_000, t_recv_ns)
                return
        elif n > MAX_FRAME_BYTES:
            self._unreadable("frame_oversize", f"a market frame of {n} bytes", t_recv_ns)
            return
        self._on_any(data, t_recv_ns)

    def _on_any(self, data, t_recv_ns: int) -> None:
        """The general path: every frame that is not a plain price change of one market."""
        try:
            message = _DECODER.decode(data)
        except UNREADABLE as e:
            self._in_parts(data, str(e), t_recv_ns)
            return
        if type(message) is list:
            for event in message:
                self._handle(event, t_recv_ns)
        else:
            self._handle(message, t_recv_ns)

    def _handle(self, event, t_recv_ns: int) -> None:
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event, t_recv_ns)

    def _in_parts(self, data, error: str, t_recv_ns: int) -> None:
        """The slow path: use what can be used of a frame that did not decode as a whole, and tell an unknown event from garbage."""
        try:
            events = parts(data)
        except UNREADABLE:
            self._unreadable("frame_garbage", f"a market frame that is no JSON: {error}", t_recv_ns)
            return
        for part in events:
            try:
                self._handle(_ONE.decode(part), t_recv_ns)
            except UNREADABLE as e:
                self._odd_part(part, str(e), t_recv_ns)

    def _odd_part(self, part, error: str, t_recv_ns: int) -> None:
        name = event_name(part)
        if name and name not in _KNOWN:
            self.unknown += 1
            self._bad_input("event_unknown", f"market channel: unknown event type {name[:40]!r}")
        else:
            self._unreadable("frame_garbage", f"a market event that cannot be read: {error}", t_recv_ns)

    def _unreadable(self, code: str, text: str, t_recv_ns: int) -> None:
        self._bad_input(code, text)
        self.mistrust(bk.FAULT_BAD_FRAME, t_recv_ns)

    def _refuse(self, market: Market, code: str, error: object, t_recv_ns: int) -> None:
        self._bad_input(code, f"market {market.market_id}: {error}")
        self.mistrust(bk.FAULT_BAD_FRAME, t_recv_ns, market)

    def _on_price_change(self, m: PriceChange, t_recv_ns: int) -> None:
        px_of, cells, market, n, size_text, size = self._px, self._cells, None, 0, None, 0
        for c in m.price_changes:
            hit = self._tokens.get(c.asset_id)
            if hit is None:
                self.not_ours += 1
                continue
            if hit[0] is not market or n == pc.MAX_CHANGES:
                if n:
                    self._apply(market, n, m.timestamp, t_recv_ns)
                market, n = hit[0], 0
            try:
                px = px_of[c.price]
                if c.size != size_text:         # the two tokens' entries carry the same size
                    size_text, size = c.size, size_u6(c.size)
                if not 0 < px < 10_000:
                    raise BadValue(f"a level at price {c.price}")
                at = n * 6
                cells[at], cells[at + 1], cells[at + 2], cells[at + 3] = hit[1], _SIDES[c.side], px, size
                cells[at + 4] = px_of[c.best_bid] if c.best_bid else -1
                cells[at + 5] = px_of[c.best_ask] if c.best_ask else -1
            except (BadValue, KeyError) as e:
                self._refuse(market, "change_refused", e, t_recv_ns)
                continue
            n += 1
        if n:
            self._apply(market, n, m.timestamp, t_recv_ns)

    def _apply(self, market: Market, n: int, t_ms: int, t_recv_ns: int) -> None:
        changed = bk.on_changes(market.book, self._changes, n, t_ms, t_recv_ns, market.rec)
        if changed or t_recv_ns - market.published_ns >= KEEPALIVE_NS:
            self._send(market, r.MK_BOOK, r.NO_OUTCOME if n > 1 else self._cells[0], t_ms * 1_000_000, t_recv_ns)

    def _on_book(self, m: Book, t_recv_ns: int) -> None:
        hit = self._tokens.get(m.asset_id)
        if hit is None:
            self.not_ours += 1
            return
        market, token = hit
        taken = bk.apply_snapshot(market.book, token, m.timestamp, np.frombuffer(m.bids, np.uint8), np.frombuffer(m.asks, np.uint8),
                                  self._level_px, self._level_size)
        try:
            if taken < 0:
                raise BadValue(("a book that is no list of levels", "a book with an impossible price or size",
                                "a book with too many levels")[-taken - 1])
            if m.tick_size:
                bk.set_tick(market.book, self._tick(m.tick_size))
            if m.last_trade_price and not market.book[bk.H_LAST_TRADE_RAW]:
                market.book[bk.H_LAST_TRADE_RAW] = self._px[m.last_trade_price]
        except BadValue as e:
            self._refuse(market, "book_refused", e, t_recv_ns)
            return
        if bk.fill_record(market.book, t_recv_ns, market.rec) or t_recv_ns - market.published_ns >= KEEPALIVE_NS:
            self._send(market, r.MK_BOOK, token, m.timestamp * 1_000_000, t_recv_ns)

    def _on_trade(self, m: LastTrade, t_recv_ns: int) -> None:
        hit = self._tokens.get(m.asset_id)
        if hit is None:
            self.not_ours += 1
            return
        market, token = hit
        try:
            px, size, side = self._px[m.price], size_u6(m.size), _SIDES[m.side]
        except (BadValue, KeyError) as e:
            self._refuse(market, "trade_refused", e, t_recv_ns)
            return
        bk.set_trade(market.book, token, px)
        bk.fill_record(market.book, t_recv_ns, market.rec)
        cells = market.cells
        cells[_TRADE_PX] = px if token == r.UP else 10_000 - px
        cells[_TRADE_SIZE], cells[_TRADE_SIDE] = size, side if token == r.UP else 1 - side
        self._send(market, r.MK_TRADE, token, m.timestamp * 1_000_000, t_recv_ns)
        cells[_TRADE_PX] = cells[_TRADE_SIZE] = cells[_TRADE_SIDE] = 0

    def _on_tick(self, m: TickSizeChange, t_recv_ns: int) -> None:
        hit = self._tokens.get(m.asset_id)
        if hit is None:
            self.not_ours += 1
            return
        market, token = hit
        try:
            bk.set_tick(market.book, self._tick(m.new_tick_size))
        except BadValue as e:
            self._refuse(market, "tick_refused", e, t_recv_ns)
            return
        if bk.fill_record(market.book, t_recv_ns, market.rec):
            self._send(market, r.MK_BOOK, token, m.timestamp * 1_000_000, t_recv_ns)

    def _on_resolved(self, m: MarketResolved, t_recv_ns: int) -> None:
        hit = self._tokens.get(m.winning_asset_id)
        if hit is None:
            self.not_ours += 1
            return
        self._emit(hit[0], r.MK_RESOLVED, m.timestamp * 1_000_000, t_recv_ns, hit[1])

    def _tick(self, text: str) -> int:
        tick = self._px[text]
        if tick not in _TICKS:
            raise BadValue(f"tick size {text[:20]!r}")
        return tick

    # records

    def _emit(self, market: Market, kind: int, t_exch_ns: int, t_recv_ns: int, token: int = r.NO_OUTCOME) -> None:
        bk.fill_record(market.book, t_recv_ns, market.rec)
        self._send(market, kind, token, t_exch_ns, t_recv_ns)

    def _send(self, market: Market, kind: int, token: int, t_exch_ns: int, t_recv_ns: int) -> None:
        cells = market.cells
        cells[_KIND], cells[_TOKEN], cells[_T_EXCH], cells[_T_RECV], cells[_FRAME] = kind, token, t_exch_ns, t_recv_ns, self.frames
        market.published_ns = t_recv_ns
        self._publish(market)
