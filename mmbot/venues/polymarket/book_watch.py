"""The watch over the books: are they the venue's, and does their stream live?

Owns: whom to ask and when, what an answer means, what is done about it. Everything here runs beside the hot path. Reads: the channel's books,
proofs and witnesses. Writes: faults and proofs of books, through the channel. No sockets, no clock: the caller brings REST answers and time,
and renews the links that `judge` names. The rules of evidence are `books.evidence`, the checksums `book_proof`.

What heals a book that is called wrong: the next hash that verifies, the next whole book from a link, or a REST book that is witnessed: whose
hash the frames themselves stated. What heals a frozen one: the first book of the link that was made anew, or frames that explain after all
what REST knew earlier (then it was only late, and counts as a false alarm).
Can go wrong: REST is away: silence then stays unproven, the age of data shuts the gate, and the links are renewed.

Source: venue protocol, REST market data; market channel, known trouble.
"""

from collections.abc import Callable, Iterable

import numpy as np

from mmbot.books import book as bk
from mmbot.books import evidence as evd
from mmbot.venues.frames import UNREADABLE
from mmbot.venues.polymarket import book_proof as bp
from mmbot.venues.polymarket.market_channel import Market, MarketChannel
from mmbot.venues.polymarket.market_frames import RestBook, read_books

SLICE = 16                  # hashes of one turn: some 200 us
RESERVE_S = 0.25            # so much of a second's allowance may be saved up for a burst
GHOST_BID_E4, GHOST_ASK_E4 = 100, 9900
PRINTS = 2                  # prints in a row that the book cannot have made


class BookWatch:
    """channel: whose books. count(event, n): an event counter. hashes_per_s: allowance of the proofs."""

    def __init__(self, channel: MarketChannel, limits: evd.Limits, hashes_per_s: int, count: Callable[[str, int], None]):
        self.channel, self.limits, self._count = channel, limits, count
        self._per_s, self._allowance, self._turn_ns, self._first = hashes_per_s, 0.0, 0, 0
        self._seen = {"checks_ok": 0, "checks_bad": 0}
        self.likenesses: dict[str, int] = {}

    # proofs

    def prove(self, now_ns: int) -> None:
        """One turn of the proofs, a slice of the allowance. Call it every few ms."""
        if not self._per_s:
            return
        passed_s = min(1.0, (now_ns - self._turn_ns) / 1e9)
        self._turn_ns = now_ns
        self._allowance = min(self._per_s * RESERVE_S, self._allowance + self._per_s * passed_s)
        left = min(SLICE, int(self._allowance))
        markets = self.channel.markets
        self._first = (self._first + 1) % len(markets)
        for i in range(len(markets)):
            market = markets[(self._first + i) % len(markets)]
            if left <= 0:
                return
            if market.market_id:
                used = market.proof.poll(now_ns, left)
                left -= used
                self._allowance -= used

    def checks(self) -> dict[str, int]:
        """Hashes by result so far, over all markets."""
        out: dict[str, int] = {}
        for market in self.channel.markets:
            for name, n in market.proof.counts.items():
                out[name] = out.get(name, 0) + n
        return out

    # questions

    def questions(self, live: Iterable[int], now_ns: int) -> list[Market]:
        """Markets about which REST is to be asked now; they count as asked."""
        out = []
        for slot in live:
            market = self.channel.markets[slot]
            if market.market_id and evd.wants_answer(market.witness, now_ns, self.limits, self._doubted(market)):
                market.witness.asked_ns = now_ns
                out.append(market)
        return out

    def _doubted(self, market: Market) -> bool:
        """Something besides silence speaks against this book."""
        return market.proof.doubtful() or market.odd_prints > 0 or market.epoch != market.book[bk.H_EPOCH] or market.suspect

    def answer(self, asked: list[Market], asked_ns: int, now_ns: int, data: bytes | None) -> None:
        """The answer to a question about ``asked``; None: there was none."""
        self._count("probes", 1)
        books: dict[str, RestBook] = {}
        if data is not None:
            try:
                books = {b.asset_id: b for b in read_books(data)}
            except UNREADABLE:
                self._count("request_errors", 1)
        for market in asked:
            pair = [books[t] for t in market.tokens if t in books]
            if market.market_id:
                self._take(market, pair, asked_ns, now_ns)

    def _take(self, market: Market, pair: list[RestBook], asked_ns: int, now_ns: int) -> None:
        w, likeness = market.witness, self._likeness(market, pair, now_ns)
        self.likenesses[likeness] = self.likenesses.get(likeness, 0) + 1
        evd.take_answer(w, asked_ns, now_ns, likeness)
        if likeness in (evd.SAME, evd.OLDER) and self._doubted(market):
            market.odd_prints = 0
            market.epoch = int(market.book[bk.H_EPOCH])
            if market.proof.doubtful() and self._witnessed(market, pair):
                self._read_again(market, pair, now_ns)
        if likeness == evd.SAME:
            market.claim = ()
            for token, book in enumerate(pair):
                self.channel.forget_top(market, token, book.timestamp)
            if now_ns - w.heard_ns >= self.limits.quiet_ns and not w.frozen:
                self.channel.verified(market, asked_ns)
        elif likeness == evd.DIFFERENT:
            market.claim = tuple(pair)
            if self._doubted(market) and self._witnessed(market, pair):
                self._read_again(market, pair, now_ns)

    def _read_again(self, market: Market, pair: list[RestBook], now_ns: int) -> None:
        """Take REST's books as snapshots of their stamps."""
        self._count("rereads", 1)
        for token, book in enumerate(pair):
            self.channel.take_book(market, token, book, now_ns)
        market.claim, market.witness.claim_ns, market.odd_prints = (), 0, 0
        market.epoch = int(market.book[bk.H_EPOCH])

    def _load(self, token: int, book: RestBook) -> np.ndarray | None:
        """A REST book in the scratch memory, None when it is no list of levels."""
        s = self.channel.scratch
        bk.reset(s.frame, 0)
        sides = np.frombuffer(book.bids, np.uint8), np.frombuffer(book.asks, np.uint8)
        return s.frame if bk.apply_snapshot(s.frame, token, book.timestamp, *sides, s.px, s.size) == 1 else None

    def _likeness(self, market: Market, pair: list[RestBook], now_ns: int) -> str:
        """What REST's two books are to ours. While frames flow REST is a little behind, and what differs must differ in levels that no
        later frame has touched; to a silent stream an older book says nothing."""
        if len(pair) != 2:
            return evd.NOTHING
        result, silent = evd.SAME, now_ns - market.witness.heard_ns >= self.limits.quiet_ns
        for token, book in enumerate(pair):
            frame = self._load(token, book)
            tail = bp.tail_of(book.min_order_size, book.tick_size, book.neg_risk, book.last_trade_price)
            if frame is None or not market.proof.own_hash(frame, token, book.timestamp, bp.words_of(book.hash), tail):
                return evd.NOTHING
            bid, ask = bk.top(frame, token)
            if bid <= GHOST_BID_E4 and ask >= GHOST_ASK_E4 and bk.top(market.book, token) != (bid, ask):
                return evd.GHOST
            older = book.timestamp < market.book[bk.H_NEWEST]
            differ = bk.differences(market.book, frame, token, book.timestamp, 0)
            if differ < 0 or (older and silent):
                return evd.OLDER
            if differ > 0:
                result = evd.DIFFERENT
            elif older and result == evd.SAME:
                result = evd.OLDER
        return result

    def _witnessed(self, market: Market, pair: list[RestBook]) -> bool:
        """Frames stated the hash of one of these books: it is no invention of REST."""
        for token, book in enumerate(pair):
            frame = self._load(token, book)
            if frame is not None and market.proof.witnessed(frame, token, book.timestamp):
                return True
        return False

    def _stands(self, market: Market) -> bool:
        """Whether what REST claimed still differs from our book, and no checksum of later frames has proved ours."""
        if not market.claim or min(market.proof.proved_ns) > market.witness.claim_ns:
            return False
        for token, book in enumerate(market.claim):
            frame = self._load(token, book)
            if frame is not None and bk.differences(market.book, frame, token, book.timestamp, 0) > 0:
                return True
        return False

    # judgement

    def judge(self, live: Iterable[int], now_ns: int) -> dict[int, str]:
        """Look at every market and link. Returns link -> why it is to be made anew; those count as being renewed."""
        renew: dict[int, str] = {}
        for slot in live:
            market = self.channel.markets[slot]
            if market.market_id:
                self._judge_stream(market, now_ns, renew)
                self._judge_book(market, now_ns)
                self._judge_tokens(market, now_ns, renew)
        links = self.channel.links
        for n, link in enumerate(links):
            if evd.behind(link, now_ns, self.limits):
                renew.setdefault(n, "it misses what another link brings")
        renew = {n: why for n, why in renew.items() if evd.may_renew(links[n], now_ns)}
        for n in renew:
            links[n].renewed_ns = now_ns
        self._publish_counts()
        return renew

    def _judge_stream(self, market: Market, now_ns: int, renew: dict[int, str]) -> None:
        w, links = market.witness, range(len(self.channel.links))
        claim = w.claim_ns
        found = evd.verdict(w, now_ns, self.limits, bool(claim) and self._stands(market))
        if w.frozen and not market.book[bk.H_FAULT] & bk.FAULT_FROZEN:
            w.frozen = False                        # a whole book came
        if found == evd.DEAD:
            if not w.frozen:
                w.frozen = True
                self._count("freezes", 1)
                self.channel.mistrust(bk.FAULT_FROZEN, now_ns, market)
            renew.update({n: "the market moves and no frame comes" for n in links})
        elif w.frozen and claim and not w.claim_ns:
            w.frozen = False                        # frames came that explain what REST knew: late, not dead
            self._count("false_alarms", 1)
            self.channel.trust(market, bk.FAULT_FROZEN, now_ns)
        elif found == evd.WRONG and not market.book[bk.H_FAULT] & bk.FAULT_HASH:
            self._doubt(market, now_ns)
            if not market.proof.sound:
                self._read_again(market, list(market.claim), now_ns)
        elif found == evd.UNPROVEN:
            oldest = min(links, key=lambda n: max(self.channel.links[n].renewed_ns, self.channel.links[n].made_ns))
            renew.setdefault(oldest, "silence that nothing explains")

    def _doubt(self, market: Market, now_ns: int) -> None:
        self._count("suspects", 1)
        self.channel.mistrust(bk.FAULT_HASH, now_ns, market)

    def _judge_book(self, market: Market, now_ns: int) -> None:
        """Hashes that do not fit, and prints the book cannot have made."""
        odd = self.channel.judged_prints(market, now_ns)
        market.odd_prints += odd
        if market.book[bk.H_FAULT] & bk.FAULT_HASH:
            return
        if market.proof.wrong(now_ns) or market.odd_prints >= PRINTS:
            self._doubt(market, now_ns)

    def _judge_tokens(self, market: Market, now_ns: int, renew: dict[int, str]) -> None:
        """One token is named no more: its subscription is lost. The sibling's frames keep the book right meanwhile."""
        heard = int(market.book[bk.H_HEARD]), int(market.book[bk.H_HEARD + 1])
        if max(heard) and evd.silent_token(heard, market.asked_ns, now_ns) >= 0:
            free = [n for n, link in enumerate(self.channel.links) if evd.may_renew(link, now_ns)]
            if free:
                self._count("freezes", 1)
                renew.setdefault(free[0], "one token is named no more")

    def _publish_counts(self) -> None:
        found = self.checks()
        for name, total in (("checks_ok", found.get("verified", 0)), ("checks_bad", found.get("mismatched", 0))):
            if total != self._seen[name]:
                self._count(name, total - self._seen[name])
                self._seen[name] = total
