"""The market channel: frames to books, and books to MARKET records.

Owns: which token belongs to which market, one book and one event log per market slot, which of several links brought a frame first.
Writes: its own books and one record per market, handed to the caller's ``publish``. No sockets, no clock.
Can go wrong, and does: frames out of time order (the book sorts that out), frames that cannot be decoded (counted; every book is suspect,
as nobody knows what was in them), values that cannot be (counted; that market's book is suspect), tokens that are not ours (counted).
Whether a book that looks well *is* the venue's is not decided here but by the watch over the books (`book_watch`).

Several links may carry the same stream: the first arrival of a frame counts, the others only show that their link lives.
Records are in Up terms: a trade of Down at p with taker side BUY is a trade at 1-p with side SELL; ``token`` keeps the token that was named.
Source: venue protocol, market channel.
"""

from collections.abc import Callable

import numpy as np

from mmbot.books import book as bk
from mmbot.books import events as ev
from mmbot.books import price_change as pc
from mmbot.books.evidence import LinkWitness, Witness, impossible_trade
from mmbot.venues.frames import UNREADABLE, event_name, parts
from mmbot.venues.numbers import BadValue, PriceTexts, size_u6
from mmbot.venues.polymarket.book_proof import BookProof, Scratch, words_of
from mmbot.venues.polymarket.first_arrival import GENERAL, FirstArrival
from mmbot.venues.polymarket.market_frames import (DECODER, KNOWN, ONE, BestBidAsk, Book, LastTrade, MarketResolved, PriceChange,
                                                   TickSizeChange, books_query, read_books, subscribe, subscribe_first, unsubscribe)
from shm_layout import records as r

__all__ = ["Market", "MarketChannel", "subscribe", "subscribe_first", "unsubscribe", "books_query", "read_books"]

KEEPALIVE_NS = 100_000_000      # while frames arrive, a record at least this often: its age is the age of the data
MAX_FRAME_BYTES = 1 << 20       # a full dump of two tokens is some ten kilobytes
AHEAD_MS = 60_000               # a stamp this far ahead of the clock is wrong
FAST_BYTES = 1 << 16            # a price change longer than this takes the general path
REORDER_MS = 100                # frames overtake each other by less than this
RANGE_NS = 500_000_000          # a print is held against the tops of about this long around it

_W = {name: r.MARKET.fields[name][1] // 8 for name in r.MARKET.names}
_KIND, _TOKEN, _T_EXCH, _T_RECV, _FRAME = _W["kind"], _W["token"], _W["t_exch_ns"], _W["t_recv_ns"], _W["frame"]
_TRADE_PX, _TRADE_SIZE, _TRADE_SIDE = _W["trade_px_e4"], _W["trade_size_u6"], _W["trade_side"]
T_PUB_WORD, KIND_WORD, FLAGS_WORD, RTT_WORD = _W["t_pub_ns"], _KIND, _W["flags"], _W["rtt_ns"]
_TICKS = (1, 10, 25, 50, 100, 1000)
_SIDES = {"BUY": r.BUY, "SELL": r.SELL}


class TopRange:
    """The lowest best bid and the highest best ask of the last half to one second, in two buckets. Prices 1e-4, Up terms."""
    __slots__ = ("_since_ns", "_low", "_high", "_low_before", "_high_before")

    def __init__(self):
        self.clear()

    def clear(self) -> None:
        """Know nothing."""
        self._since_ns, self._low, self._high, self._low_before, self._high_before = 0, bk.PX_END, 0, bk.PX_END, 0

    def add(self, bid_e4: int, ask_e4: int, now_ns: int) -> None:
        """The top as it is from now on."""
        if now_ns - self._since_ns >= RANGE_NS:
            self._low_before, self._high_before = self._low, self._high
            self._since_ns, self._low, self._high = now_ns, bid_e4, ask_e4
        else:
            if bid_e4 < self._low:
                self._low = bid_e4
            if ask_e4 > self._high:
                self._high = ask_e4

    def low_high(self) -> tuple[int, int]:
        """(lowest best bid, highest best ask)."""
        return min(self._low, self._low_before), max(self._high, self._high_before)


class Market:
    """One market slot: who it is, its book, its log and proof, and the words of its newest record."""

    __slots__ = ("slot", "market_id", "tokens", "book", "rec", "cells", "log", "proof", "witness", "range", "prints", "published_ns", "asked_ns",
                 "asks", "settled_ms", "odd_prints", "epoch", "claim")

    def __init__(self, slot: int, book: np.ndarray, rec: np.ndarray, log: np.ndarray):
        self.slot, self.market_id, self.tokens = slot, 0, ("", "")
        self.book, self.rec, self.log = book, rec, log
        self.proof: BookProof | None = None
        self.witness, self.range = Witness(), TopRange()
        self.prints: list[tuple[int, int, bool]] = []
        bk.reset(book, 0)
        self.cells = memoryview(self.rec)
        self.published_ns = self.asked_ns = self.asks = self.settled_ms = self.odd_prints = self.epoch = 0
        self.claim: tuple = ()

    def take(self, market_id: int, tokens: tuple[str, str], tick_e4: int, now_ns: int) -> None:
        """Become another market: everything of the old one is gone."""
        self.market_id, self.tokens = market_id, tokens
        self.rec[:] = 0
        self.cells[_W["market_id"]], self.cells[_W["slot"]] = market_id, self.slot
        self.published_ns = self.asked_ns = 0
        self.empty(tick_e4, now_ns)

    def empty(self, tick_e4: int, now_ns: int) -> None:
        """Start with an empty book, as on a new stream."""
        bk.reset(self.book, tick_e4)
        self.proof.restart()
        self.witness.start(now_ns)
        self.range.clear()
        self.prints.clear()
        self.asks = self.settled_ms = self.odd_prints = 0
        self.claim = ()

    @property
    def suspect(self) -> bool:
        """The newest record says the book cannot be trusted."""
        return bool(self.cells[FLAGS_WORD] & r.MF_SUSPECT)


class MarketChannel:
    """All books of the feed.

    publish(market): called for each record to go out, with its words in ``market.rec`` complete but for t_pub_ns.
    bad_input(code, text): called for each message or value that could not be used. links: how many sockets carry the stream.
    hold_ns: how long an event waits for those stamped before it when books are proved.
    """

    def __init__(self, publish: Callable[[Market], None], bad_input: Callable[[str, str], None], links: int = 1, hold_ns: int = 250_000_000):
        self._publish, self._bad_input = publish, bad_input
        self._books = np.zeros((r.MARKET_SLOTS, bk.WORDS), np.int64)
        self._records = np.zeros((r.MARKET_SLOTS, bk.RECORD_WORDS), np.int64)
        self._logs = np.zeros((r.MARKET_SLOTS, ev.LOG_SIZE), np.int64)
        self.markets = [Market(slot, self._books[slot], self._records[slot], self._logs[slot]) for slot in range(r.MARKET_SLOTS)]
        self.scratch = Scratch()
        for market in self.markets:
            market.proof = BookProof(market.log, self.scratch, lambda token, t_ms, m=market: self._on_proved(m, token, t_ms), hold_ns)
        self.links = [LinkWitness() for _ in range(links)]
        self._arrivals = FirstArrival(links)
        self._touched = GENERAL
        self._table = pc.token_table()
        self._frame = np.zeros(FAST_BYTES, np.uint8)
        self._frame_cells = memoryview(self._frame)
        self._tokens: dict[str, tuple[Market, int]] = {}
        self._px = PriceTexts()
        self._changes = np.zeros(pc.SCRATCH_WORDS, np.int64)
        self._cells = memoryview(self._changes)
        self._level_px, self._level_size = np.zeros(2 * bk.POINTS, np.int64), np.zeros(2 * bk.POINTS, np.int64)
        self._handlers = {PriceChange: self._on_price_change, Book: self._on_book, LastTrade: self._on_trade, BestBidAsk: self._on_top,
                          TickSizeChange: self._on_tick, MarketResolved: self._on_resolved}
        self._fresh_wanted = False
        self._now_ns = self._link = 0
        self.frames = self.not_ours = self.unknown = self.duplicates = self.repairs = 0

    def dropped(self) -> int:
        """Changes dropped so far because something newer was known."""
        return sum(int(m.book[bk.H_DROPPED]) for m in self.markets)

    # which markets

    def tokens(self) -> list[str]:
        """Every token that should be subscribed now."""
        return list(self._tokens)

    def follow(self, slot: int, market_id: int, tokens: tuple[str, str], tick_e4: int, now_ns: int, condition: str = "",
               min_size_u6: int = 5_000_000, neg_risk: bool = False) -> tuple[list[str], list[str]]:
        """Give ``slot`` to a market (market_id 0: to nobody). Returns (tokens to subscribe, tokens to unsubscribe).

        ``condition``, ``min_size_u6``, ``neg_risk``: what the book hash wants to know of the market; the condition as 0x and 64 digits.
        """
        market = self.markets[slot]
        if market.market_id == market_id and (market.tokens == tokens or not market_id):
            if market_id and 0 < tick_e4 < market.book[bk.H_TICK]:
                self._set_tick(market, tick_e4)
            return [], []
        gone = [t for t in market.tokens if self._tokens.pop(t, None)]
        for link in self.links:
            link.whole &= ~(1 << slot)
        market.proof.take(condition, tokens, tick_e4, min_size_u6, neg_risk)
        market.take(market_id, tokens if market_id else ("", ""), tick_e4, now_ns)
        for token, text in enumerate(market.tokens):
            pc.set_token(self._table, slot, token, text)
        if not market_id:
            return [], gone
        for token, text in enumerate(tokens):
            self._tokens[text] = (market, token)
        market.asked_ns = now_ns
        self._emit(market, r.MK_SUSPECT, 0, now_ns)
        return list(tokens), gone

    def start_anew(self) -> None:
        """Let every book start empty on the next new link: what a book holds has become useless."""
        self._fresh_wanted = True

    def link_made(self, now_ns: int, link: int = 0) -> None:
        """A new link. Without another one alive every book starts empty and waits for its snapshot; else the snapshots are merged."""
        alone = not any(w.made_ns for w in self.links)
        self.links[link].made(now_ns)
        self._arrivals.forget(link)
        if not alone and not self._fresh_wanted:
            self._mistrust_unheld(now_ns)
            return
        self._fresh_wanted = False
        for market in self.markets:
            if market.market_id:
                market.empty(market.book[bk.H_TICK], now_ns)
                market.asked_ns = now_ns

    def link_lost(self, now_ns: int, link: int = 0) -> None:
        """A link is gone. Without another one whatever we know may be wrong by now."""
        self.links[link].made_ns = 0
        self._mistrust_unheld(now_ns)

    def doubt(self, link: int, now_ns: int) -> None:
        """A link is accused of having missed frames: what it brings from here on is not all there is."""
        self.links[link].whole = 0
        self._mistrust_unheld(now_ns)

    def _mistrust_unheld(self, now_ns: int) -> None:
        """A book that no link has carried without a break may lack changes: it is suspect until it comes as a whole or is proved."""
        held = 0
        for link in self.links:
            if link.made_ns:
                held |= link.whole
        for market in self.markets:
            if not held >> market.slot & 1 and not market.book[bk.H_FAULT] & (bk.FAULT_LINK | bk.FAULT_NO_SNAPSHOT):
                self.mistrust(bk.FAULT_LINK, now_ns, market)

    def mistrust(self, fault: int, now_ns: int, only: Market | None = None) -> None:
        """Call a book, or all books, suspect until the next snapshot or proof, and say so at once."""
        for market in self.markets if only is None else (only,):
            if market.market_id:
                bk.add_fault(market.book, fault)
                market.settled_ms = int(market.book[bk.H_NEWEST]) + REORDER_MS
                self._emit(market, r.MK_SUSPECT, market.cells[_T_EXCH], now_ns)

    def trust(self, market: Market, faults: int, now_ns: int) -> None:
        """Take faults back that other evidence has cleared."""
        if bk.clear_faults(market.book, faults) and bk.fill_record(market.book, now_ns, market.rec):
            self._send(market, r.MK_BOOK, r.NO_OUTCOME, market.cells[_T_EXCH], now_ns)

    def verified(self, market: Market, t_ns: int) -> None:
        """Say that the book was the venue's at ``t_ns`` although no frame came; the age of the data counts from there."""
        if t_ns > market.published_ns:
            self._emit(market, r.MK_VERIFIED, market.cells[_T_EXCH], t_ns)

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

    def on_frame(self, data, t_recv_ns: int, link: int = 0) -> None:
        """One text frame: an object, an array of objects, or an empty array. ``data``: bytes-like, used during the call only."""
        self.frames += 1
        self._now_ns, self._link = t_recv_ns, link
        if len(self.links) > 1 and self._heard_before(data, t_recv_ns, link):
            return
        n = len(data)
        if n <= FAST_BYTES:
            self._frame_cells[:n] = data
            hit = pc.on_price_change(self._frame, n, self._table, self._books, self._records, self._logs, self._changes, t_recv_ns)
            if hit >= 0:
                market = self.markets[hit & 15]
                market.witness.heard_ns = t_recv_ns
                if hit & 16 or t_recv_ns - market.published_ns >= KEEPALIVE_NS:
                    self._send(market, r.MK_BOOK, (hit >> 5) - 1, self._cells[pc.T_MS] * 1_000_000, t_recv_ns)
                if len(self.links) > 1:
                    self._arrivals.name(market.slot)
                return
        elif n > MAX_FRAME_BYTES:
            self._unreadable("frame_oversize", f"a market frame of {n} bytes", t_recv_ns)
            return
        self._on_any(data, t_recv_ns)

    def _heard_before(self, data, t_recv_ns: int, link: int) -> bool:
        """Note that a link lives. True for a frame that another link has brought already.

        Books in it count all the same where one is waited for, as a dump that was asked for may be byte for byte the old one. Elsewhere they
        must not: the faster link may have gone on within the same millisecond, and its changes would not come again.
        """
        witness = self.links[link]
        witness.missed = 0
        slot = self._arrivals.seen(bytes(data), link)
        if slot < 0:
            for other in self.links:
                if other is not witness:
                    other.miss(t_recv_ns)
            return False
        self.duplicates += 1
        if slot != GENERAL:
            self.markets[slot].witness.heard_ns = t_recv_ns
        elif any(market.market_id and (market.suspect or not witness.whole >> market.slot & 1) for market in self.markets):
            self._on_any(data, t_recv_ns, awaited_only=True)
        return True

    def _on_any(self, data, t_recv_ns: int, awaited_only: bool = False) -> None:
        """The general path: every frame that is not a plain price change of one market. ``awaited_only``: books of suspect markets only."""
        try:
            message = DECODER.decode(data)
        except UNREADABLE as e:
            if not awaited_only:
                self._in_parts(data, str(e), t_recv_ns)
            return
        for event in message if type(message) is list else (message,):
            if not awaited_only or (type(event) is Book and self._awaited(event.asset_id)):
                self._handle(event, t_recv_ns)

    def _awaited(self, token: str) -> bool:
        """Whether a whole book that was heard before is to be taken all the same; the link has it in any case."""
        hit = self._tokens.get(token)
        if hit is None:
            return False
        self._hold(*hit)
        return hit[0].suspect

    def _hold(self, market: Market, token: int) -> None:
        """The link of this frame has brought a whole book; the Up token's counts, as it is the one that ends a suspicion."""
        if token == r.UP:
            self.links[self._link].whole |= 1 << market.slot

    def _handle(self, event, t_recv_ns: int) -> None:
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event, t_recv_ns)

    def _owner(self, token: str, t_recv_ns: int) -> tuple[Market | None, int]:
        """(market, token index) of a token text, (None, 0) when it is not ours. A frame about a market shows that its stream lives."""
        hit = self._tokens.get(token)
        if hit is None:
            self.not_ours += 1
            return None, 0
        hit[0].witness.heard_ns = t_recv_ns
        return hit

    def _in_parts(self, data, error: str, t_recv_ns: int) -> None:
        """The slow path: use what can be used of a frame that did not decode as a whole, and tell an unknown event from garbage."""
        try:
            events = parts(data)
        except UNREADABLE:
            self._unreadable("frame_garbage", f"a market frame that is no JSON: {error}", t_recv_ns)
            return
        for part in events:
            try:
                self._handle(ONE.decode(part), t_recv_ns)
            except UNREADABLE as e:
                self._odd_part(part, str(e), t_recv_ns)

    def _odd_part(self, part, error: str, t_recv_ns: int) -> None:
        name = event_name(part)
        if name and name not in KNOWN:
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
            owner, token = self._owner(c.asset_id, t_recv_ns)
            if owner is None:
                continue
            if owner is not market or n == pc.MAX_CHANGES:
                if n:
                    self._apply(market, n, m.timestamp, t_recv_ns)
                market, n = owner, 0
            try:
                px = px_of[c.price]
                if c.size != size_text:         # the two tokens' entries carry the same size
                    size_text, size = c.size, size_u6(c.size)
                if not 0 < px < 10_000:
                    raise BadValue(f"a level at price {c.price}")
                at = n * bk.CHANGE_WORDS
                cells[at], cells[at + 1], cells[at + 2], cells[at + 3] = token, _SIDES[c.side], px, size
                cells[at + 4] = px_of[c.best_bid] if c.best_bid else -1
                cells[at + 5] = px_of[c.best_ask] if c.best_ask else -1
                cells[at + 6], cells[at + 7], cells[at + 8] = words_of(c.hash)
            except (BadValue, KeyError) as e:
                self._refuse(market, "change_refused", e, t_recv_ns)
                continue
            n += 1
        if n:
            self._apply(market, n, m.timestamp, t_recv_ns)

    def _apply(self, market: Market, n: int, t_ms: int, t_recv_ns: int) -> None:
        changed = bk.on_changes(market.book, self._changes, n, t_ms, t_recv_ns, market.rec)
        ev.append_changes(market.log, self._changes, n, t_ms, t_recv_ns)
        if changed or t_recv_ns - market.published_ns >= KEEPALIVE_NS:
            self._send(market, r.MK_BOOK, r.NO_OUTCOME if n > 1 else self._cells[0], t_ms * 1_000_000, t_recv_ns)

    def _on_book(self, m: Book, t_recv_ns: int) -> None:
        market, token = self._owner(m.asset_id, t_recv_ns)
        if market is not None:
            self._hold(market, token)
            self.take_book(market, token, m, t_recv_ns)

    def take_book(self, market: Market, token: int, m, t_recv_ns: int) -> None:
        """A whole book of one token, from a frame or from REST: state as of its stamp."""
        taken = bk.apply_snapshot(market.book, token, m.timestamp, np.frombuffer(m.bids, np.uint8), np.frombuffer(m.asks, np.uint8),
                                  self._level_px, self._level_size)
        try:
            if taken < 0:
                raise BadValue(("a book that is no list of levels", "a book with an impossible price or size",
                                "a book with too many levels")[-taken - 1])
            if m.tick_size:
                self._set_tick(market, self._tick(m.tick_size))
            if m.last_trade_price:
                if not market.book[bk.H_LAST_TRADE_RAW]:
                    market.book[bk.H_LAST_TRADE_RAW] = self._px[m.last_trade_price]
                market.proof.price(m.last_trade_price)
        except BadValue as e:
            self._refuse(market, "book_refused", e, t_recv_ns)
            return
        if bk.fill_record(market.book, t_recv_ns, market.rec) or t_recv_ns - market.published_ns >= KEEPALIVE_NS:
            self._send(market, r.MK_BOOK, token, m.timestamp * 1_000_000, t_recv_ns)
        market.proof.book(token, m.timestamp, t_recv_ns, bytes(m.bids), bytes(m.asks), m.hash)

    def _on_trade(self, m: LastTrade, t_recv_ns: int) -> None:
        market, token = self._owner(m.asset_id, t_recv_ns)
        if market is None:
            return
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
        market.prints.append((t_recv_ns, cells[_TRADE_PX], cells[_TRADE_SIDE] == r.BUY))
        self._send(market, r.MK_TRADE, token, m.timestamp * 1_000_000, t_recv_ns)
        cells[_TRADE_PX] = cells[_TRADE_SIZE] = cells[_TRADE_SIDE] = 0
        market.proof.price(m.price)

    def _on_top(self, m: BestBidAsk, t_recv_ns: int) -> None:
        market, token = self._owner(m.asset_id, t_recv_ns)
        if market is None:
            return
        try:
            bid, ask = self._px[m.best_bid] if m.best_bid else 0, self._px[m.best_ask] if m.best_ask else bk.PX_END
        except BadValue as e:
            self._refuse(market, "top_refused", e, t_recv_ns)
            return
        bk.set_venue_top(market.book, token, bid, ask, m.timestamp)
        if bk.fill_record(market.book, t_recv_ns, market.rec):
            self._send(market, r.MK_BOOK, token, m.timestamp * 1_000_000, t_recv_ns)

    def _on_tick(self, m: TickSizeChange, t_recv_ns: int) -> None:
        market, token = self._owner(m.asset_id, t_recv_ns)
        if market is None:
            return
        try:
            self._set_tick(market, self._tick(m.new_tick_size))
        except BadValue as e:
            self._refuse(market, "tick_refused", e, t_recv_ns)
            return
        if bk.fill_record(market.book, t_recv_ns, market.rec):
            self._send(market, r.MK_BOOK, token, m.timestamp * 1_000_000, t_recv_ns)

    def _set_tick(self, market: Market, tick_e4: int) -> None:
        if bk.set_tick(market.book, tick_e4) > 0:
            market.proof.tick(tick_e4)

    def _on_resolved(self, m: MarketResolved, t_recv_ns: int) -> None:
        market, token = self._owner(m.winning_asset_id, t_recv_ns)
        if market is not None:
            self._emit(market, r.MK_RESOLVED, m.timestamp * 1_000_000, t_recv_ns, token)

    def _tick(self, text: str) -> int:
        tick = self._px[text]
        if tick not in _TICKS:
            raise BadValue(f"tick size {text[:20]!r}")
        return tick

    # proofs

    def _on_proved(self, market: Market, token: int, t_ms: int) -> None:
        """The shadow is the venue's book at ``t_ms``: make the live book agree wherever nothing newer was said, and believe it again."""
        changed = bk.differences(market.book, market.proof.shadow, token, t_ms, 1)
        if changed > 0:
            self.repairs += changed
        self.forget_top(market, token, t_ms)
        faults = bk.FAULT_HASH | (bk.FAULT_BAD_FRAME | bk.FAULT_LINK if t_ms > market.settled_ms else 0)
        if bk.clear_faults(market.book, faults) or changed > 0 or market.suspect:
            if bk.fill_record(market.book, self._now_ns, market.rec):
                self._send(market, r.MK_BOOK, token, market.cells[_T_EXCH], self._now_ns)

    def forget_top(self, market: Market, token: int, t_ms: int) -> None:
        """A whole book is proved as of ``t_ms``: the top the venue stated up to then says no more. (Of two statements with one stamp the last
        to arrive may be the one that was made first.)"""
        bk.set_venue_top(market.book, token, -1, -1, t_ms)

    def judged_prints(self, market: Market, now_ns: int) -> int:
        """Trades that the book cannot have made, of those old enough to judge; 0 when all fit."""
        odd, prints = 0, market.prints
        low, high = market.range.low_high()
        while prints and now_ns - prints[0][0] >= RANGE_NS // 2:
            _, px, buy = prints.pop(0)
            odd += impossible_trade(px, buy, low, high)
        return odd

    # records

    def _emit(self, market: Market, kind: int, t_exch_ns: int, t_recv_ns: int, token: int = r.NO_OUTCOME) -> None:
        bk.fill_record(market.book, t_recv_ns, market.rec)
        self._send(market, kind, token, t_exch_ns, t_recv_ns)

    def _send(self, market: Market, kind: int, token: int, t_exch_ns: int, t_recv_ns: int) -> None:
        cells = market.cells
        cells[_KIND], cells[_TOKEN], cells[_T_EXCH], cells[_T_RECV], cells[_FRAME] = kind, token, t_exch_ns, t_recv_ns, self.frames
        market.published_ns = t_recv_ns
        self._publish(market)
        book = market.book
        market.range.add(book.item(bk.H_BEST), book.item(bk.H_BEST + 1), t_recv_ns)
