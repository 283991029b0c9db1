"""The proof of a book: every SHA-1 the venue states is recomputed, a quarter of a second late, in the order of the venue's own stamps.

Owns, per market: the shadow (the book as of the last stamp proved or passed, levels in stamp order), the events that wait for their turn,
and the counts. Writes: its own arrays. Reads: the market's event log (`books.events`). No sockets, no clock; runs after publishing, in
slices the caller chooses.

What the recorded stream of the venue shows, and what follows:
* a hash is the checksum of the token's whole book after the change, at the change's stamp. Wire order is not stamp order, so events wait
  HOLD (given) and are taken by stamp;
* changes with one stamp *and* one hash are one step: the hash holds after all of them. Steps with one stamp and several hashes stand in no
  order; the hash chooses it. Two totals of one level at one stamp both fit whichever came last: there the next hash chooses. What was proved
  is then true for the live book too, where arrival decided;
* last_trade_price inside the hash is the market's, already that of a match whose print comes 20 ms later, and either p or 1-p of what the
  print says. When no price known verifies, all possible ones are tried: there are 999, and a checksum is not matched by chance.

What cannot be decided is counted by reason, never as verified: no hash stated, no snapshot yet, late (its stamp has been passed), old
(before the snapshot), behind (the budget did not suffice), lost (the log was overrun).
Can go wrong: the recipe of the hash changes at the venue. Then nothing verifies from the first book on; `sound` says so, and a market of
which no hash ever verified is not called wrong because of its hashes.

Source: venue protocol, REST market data, book hash; market channel, what recorded frames show.
"""

import hashlib
import heapq
from collections import Counter, deque
from collections.abc import Callable
from struct import unpack

import numpy as np

from mmbot.books import book as bk
from mmbot.books import events as ev
from mmbot.books.text import LEVEL_BYTES, write_levels

BEHIND_NS = 500_000_000     # an event that waits for longer than this beyond its hold is taken without its hash
SEARCH_NS = 50_000_000      # all possible last trade prices are tried no more often than this: it takes about a millisecond
TAILS = 12                  # last trade prices kept at hand
RIVALS = 8                  # totals of one level at one stamp that are tried
STATED = 1024               # hashes remembered per token, as witnesses for a REST book
PERSIST_NS = 500_000_000    # mismatches in a row for so long, and ...
PERSIST_COUNT = 3           # ... so many of them, mean that the book is wrong and not the order of its frames
_NO_HASH = (0, 0, 0)
_CHANGE, _BOOK = 0, 1
_MILLS = [b"%d.%03d" % divmod(m, 1000) for m in range(1, 1000)]
#: every last trade price there is, in the order in which they are tried: none, whole cents, the rest
_PRICES = (b"", *_MILLS[9::10], *(m for i, m in enumerate(_MILLS, 1) if i % 10))


def hash_words(digest: bytes) -> tuple[int, int, int]:
    """A SHA-1 digest as the three words of the event log."""
    return unpack(">qqI", digest)


def words_of(text: str) -> tuple[int, int, int]:
    """The same of 40 hexadecimal digits; zeros for anything else."""
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        return _NO_HASH
    return hash_words(digest) if len(digest) == 20 else _NO_HASH


def number_text(scaled: int, digits: int) -> str:
    """An integer of 10**-digits as the venue writes it: 100 with 4 digits is 0.01."""
    whole, rest = divmod(scaled, 10 ** digits)
    return f"{whole}.{rest:0{digits}d}".rstrip("0").rstrip(".")


class Scratch:
    """Memory all proofs of a process share: they run one after the other."""

    def __init__(self):
        self.out = np.zeros(2 * bk.POINTS * LEVEL_BYTES, np.uint8)
        self.view = memoryview(self.out)
        self.frame = bk.new_book()
        self.px, self.size = np.zeros(2 * bk.POINTS, np.int64), np.zeros(2 * bk.POINTS, np.int64)


class BookProof:
    """The proof of one market slot's book.

    on_proved(token, t_ms): the shadow is, at this moment and for this token, the venue's book at ``t_ms``. hold_ns: how long an event waits
    for those that were stamped before it. ``log``: the slot's event log.
    """

    def __init__(self, log: np.ndarray, scratch: Scratch, on_proved: Callable[[int, int], None], hold_ns: int):
        self._log, self._scratch, self._on_proved, self._hold_ns = log, scratch, on_proved, hold_ns
        self._rows = log[1:].reshape(ev.LOG_ROWS, ev.LOG_WORDS)
        self.shadow = bk.new_book()
        self.counts: Counter[str] = Counter()
        self.take("", ("", ""), 0, 0, False)

    def take(self, condition: str, tokens: tuple[str, str], tick_e4: int, min_size_u6: int, neg_risk: bool) -> None:
        """Become another market's proof. ``condition``: 0x and 64 digits. The counts go on."""
        self._heads = [f'{{"market":"{condition}","asset_id":"{t}","timestamp":"'.encode() for t in tokens]
        self._fixed = f'],"min_order_size":"{number_text(min_size_u6, 6)}","tick_size":"'.encode()
        self._end = f'","neg_risk":{"true" if neg_risk else "false"},"last_trade_price":"'.encode()
        self._ticks = [number_text(tick_e4, 4).encode()]
        self.sound = False
        self.restart()

    def restart(self) -> None:
        """Forget the book: a new connection brings a new one."""
        bk.reset(self.shadow, 0)
        self._read, self._seq, self._ready_ms, self._clock_ms = int(self._log[0]), 0, 0, 0
        self._pending: list = []
        self._arrivals: deque = deque()
        self._prices: list[bytes] = [b""]
        self._stated: tuple[dict, dict] = ({}, {})
        self._either: tuple[list, list] = ([], [])      # per token: (side, px, another total it may have, stamp)
        self._searched_ns = 0
        self.used = 0
        self.proved_ns = [0, 0]         # receipt of the newest event proved, per token
        self.bad = [0, 0]               # mismatches since the last proof, per token
        self.bad_since_ns = [0, 0]

    # what comes in

    def price(self, text: str) -> None:
        """A last trade price as a frame says it, of either token."""
        try:
            mills = round(float(text) * 1000)
        except ValueError:
            return
        if 0 < mills < 1000:
            for m in (1000 - mills, mills):
                self._first_price(_MILLS[m - 1])

    def tick(self, tick_e4: int) -> None:
        """A new tick; hashes of the moments around it may still be of the old one."""
        text = number_text(tick_e4, 4).encode()
        if self._ticks[0] != text:
            self._ticks = [text, self._ticks[0]]

    def book(self, token: int, t_ms: int, t_recv_ns: int, bids: bytes, asks: bytes, hash_text: str) -> None:
        """A whole book of one token, its level lists as sent."""
        self._push(t_ms, t_recv_ns, _BOOK, token, (bids, asks, words_of(hash_text)))

    def _push(self, t_ms: int, t_recv_ns: int, kind: int, token: int, rest: tuple) -> None:
        self._seq += 1
        heapq.heappush(self._pending, (t_ms, self._seq, t_recv_ns, kind, token, rest))
        self._arrivals.append((t_recv_ns, t_ms))

    def _collect(self) -> None:
        """Fetch the changes that were logged since the last look."""
        head = int(self._log[0])
        lost = head - self._read - ev.LOG_ROWS
        if lost > 0:
            self.counts["lost"] += lost
            self._read += lost
        while self._read < head:
            at = self._read % ev.LOG_ROWS
            n = min(head - self._read, ev.LOG_ROWS - at)
            for t_ms, t_recv_ns, token, side, px, size, h0, h1, h2 in self._rows[at:at + n].tolist():
                words = (h0, h1, h2)
                self._push(t_ms, t_recv_ns, _CHANGE, token, (side, px, size, words))
                if words != _NO_HASH:
                    self._state(token, words, t_ms)
            self._read += n

    def _state(self, token: int, words: tuple, t_ms: int) -> None:
        stated = self._stated[token]
        stated[words] = t_ms
        if len(stated) > STATED:
            del stated[next(iter(stated))]

    # what is made of it

    def poll(self, now_ns: int, allowance: int) -> int:
        """Take the events whose turn has come, computing about ``allowance`` hashes at most. Returns how many were computed."""
        self._collect()
        before, arrivals = self.used, self._arrivals
        while arrivals and now_ns - arrivals[0][0] >= self._hold_ns:
            self._ready_ms = max(self._ready_ms, arrivals.popleft()[1])
        pending = self._pending
        while pending and pending[0][0] <= self._ready_ms and self.used - before < allowance:
            t_ms, group = pending[0][0], []
            while pending and pending[0][0] == t_ms:
                group.append(heapq.heappop(pending))
            self._group(t_ms, group, now_ns)
        return self.used - before

    def waiting(self) -> int:
        """Events that have not had their turn."""
        return len(self._pending) + int(self._log[0]) - self._read

    def wrong(self, now_ns: int) -> bool:
        """The stated hashes do not fit the book, again and again."""
        return self.sound and any(self.bad[t] >= PERSIST_COUNT and now_ns - self.bad_since_ns[t] >= PERSIST_NS for t in (0, 1))

    def doubtful(self) -> bool:
        """The newest hash of one of the tokens did not fit: reason to look elsewhere."""
        return self.sound and any(self.bad)

    def _group(self, t_ms: int, group: list, now_ns: int) -> None:
        """Everything that carries one stamp: changes first, books after them."""
        late = t_ms < self._clock_ms
        self._clock_ms = max(self._clock_ms, t_ms)
        by_token: tuple[list, list] = ([], [])
        for _, _, t_recv_ns, kind, token, rest in group:
            if kind == _CHANGE:
                by_token[token].append((*rest, t_recv_ns))
        for token, changes in enumerate(by_token):
            if changes:
                self._changes(token, t_ms, changes, late, now_ns)
            else:
                for side, px, size, _, _ in by_token[1 - token]:
                    bk.set_at(self.shadow, token, 1 - side, bk.PX_END - px, size, t_ms, 0)
        for _, _, t_recv_ns, kind, token, rest in group:
            if kind == _BOOK:
                self._book(token, t_ms, t_recv_ns, late, *rest)

    def _changes(self, token: int, t_ms: int, changes: list, late: bool, now_ns: int) -> None:
        snap, why = int(self.shadow[bk.H_SNAP + token]), ""
        if late or not snap or t_ms <= snap:
            why = "no_snapshot" if not snap else "old" if t_ms <= snap else "late"
        elif now_ns - changes[0][-1] > self._hold_ns + BEHIND_NS:
            why = "behind"
        steps: dict = {}
        for n, change in enumerate(changes):
            steps.setdefault(n if change[3] == _NO_HASH else change[3], []).append(change)
        if why:
            for step in steps.values():
                for side, px, size, _, _ in step:
                    bk.set_at(self.shadow, token, side, px, size, t_ms, 1)
            self.counts[why] += len(changes)
            return
        self._note_rivals(token, t_ms, changes)
        proved = False
        while steps:
            key = self._next_step(token, t_ms, steps)
            proved = key is not None
            step = steps.pop(key if proved else next(iter(steps)))
            if not proved:
                self._apply(token, t_ms, step)
                proved = self._unmatched(token, t_ms, step, now_ns)
            if proved:
                self._proved(token, len(step), step[-1][-1])
        if proved:
            self._either[token][:] = [rival for rival in self._either[token] if rival[3] == t_ms]
            self._on_proved(token, t_ms)

    def _note_rivals(self, token: int, t_ms: int, changes: list) -> None:
        """Levels that were given two totals at one stamp: the one that comes last is not known before the next hash."""
        totals: dict = {}
        for side, px, size, _, _ in changes if len(changes) > 1 else ():
            totals.setdefault((side, px), set()).add(size)
        for (side, px), sizes in totals.items():
            if len(sizes) > 1:
                self._either[token].extend((side, px, size, t_ms) for size in sorted(sizes))

    def _other_rival(self, token: int, t_ms: int, want: tuple) -> bool:
        """Whether the hash fits once a level has the other total that was stated at its stamp; the shadow then has it."""
        shadow = self.shadow
        for side, px, size, stamp in self._either[token][:RIVALS]:
            had = bk.size_at(shadow, token, side, px)
            if had == size or bk.time_at(shadow, token, side, px) != stamp or stamp == t_ms:
                continue
            bk.put(shadow, token, side, px, size, stamp)
            if self._fits(self._sum(shadow, token, t_ms), want):
                return True
            bk.put(shadow, token, side, px, had, stamp)
        return False

    def _next_step(self, token: int, t_ms: int, steps: dict):
        """The first step whose hash fits when it is taken next, applied; None when there is none."""
        for key, step in steps.items():
            if step[0][3] == _NO_HASH:
                continue
            undo = self._apply(token, t_ms, step)
            if self._fits(self._sum(self.shadow, token, t_ms), step[0][3]):
                return key
            for side, px, size, t in reversed(undo):
                bk.put(self.shadow, token, side, px, size, t)
        return None

    def _apply(self, token: int, t_ms: int, step: list) -> list:
        """Take a step into the shadow. Returns what undoes it."""
        shadow, undo = self.shadow, []
        for side, px, size, _, _ in step:
            undo.append((side, px, bk.size_at(shadow, token, side, px), bk.time_at(shadow, token, side, px)))
            bk.put(shadow, token, side, px, size, t_ms)
        return undo

    def _unmatched(self, token: int, t_ms: int, step: list, now_ns: int) -> bool:
        """A step that no known last trade price explains, already applied: try them all, else count it. True if it was explained."""
        want = step[0][3]
        if want == _NO_HASH:
            self.counts["no_hash"] += len(step)
            return False
        if self._other_rival(token, t_ms, want):
            return True
        if now_ns - self._searched_ns >= SEARCH_NS or not self.bad[token]:
            self._searched_ns = now_ns
            if self._search(self._sum(self.shadow, token, t_ms), want):
                return True
        self._mismatch(token, len(step), step[-1][-1])
        return False

    def _proved(self, token: int, n: int, t_recv_ns: int) -> None:
        self.counts["verified"] += n
        self.sound = True
        self.proved_ns[token] = max(self.proved_ns[token], t_recv_ns)
        self.bad[token] = 0

    def _mismatch(self, token: int, n: int, t_recv_ns: int) -> None:
        self.counts["mismatched"] += n
        if not self.bad[token]:
            self.bad_since_ns[token] = t_recv_ns
        self.bad[token] += n

    def _book(self, token: int, t_ms: int, t_recv_ns: int, late: bool, bids: bytes, asks: bytes, want: tuple) -> None:
        s = self._scratch
        frame = s.frame
        bk.reset(frame, 0)
        levels = np.frombuffer(bids, np.uint8), np.frombuffer(asks, np.uint8)
        if bk.apply_snapshot(frame, token, t_ms, *levels, s.px, s.size) < 0:
            return
        if want == _NO_HASH:
            self.counts["no_hash"] += 1
            proved = False
        else:
            base = self._sum(frame, token, t_ms)
            proved = self._fits(base, want) or self._search(base, want)
            if proved:
                self._proved(token, 1, t_recv_ns)
                self.counts["books"] += 1
            else:
                self._mismatch(token, 1, t_recv_ns)
                self.counts["books_bad"] += 1
        if self.shadow[bk.H_SNAP + token] and bk.differences(self.shadow, frame, token, t_ms, 0) > 0:
            self.counts["silent"] += 1
        if bk.apply_snapshot(self.shadow, token, t_ms, *levels, s.px, s.size) == 1 and proved and not late:
            self._on_proved(token, t_ms)

    # hashes

    def _sum(self, mem: np.ndarray, token: int, t_ms: int):
        """SHA-1 of a book up to the end of its levels."""
        self.used += 1
        n = write_levels(mem, token, self._scratch.out)
        base = hashlib.sha1(b'%b%d","hash":"","bids":[' % (self._heads[token], t_ms))
        base.update(self._scratch.view[:n])
        return base

    def _fits(self, base, want: tuple) -> bool:
        """Whether a last trade price at hand completes ``base`` to the hash wanted; that one comes first from then on."""
        for tick in self._ticks:
            tail = self._fixed + tick + self._end
            for i, price in enumerate(self._prices):
                done = base.copy()
                done.update(b'%b%b"}' % (tail, price))
                if hash_words(done.digest()) == want:
                    if i:
                        self._first_price(price)
                    return True
        return False

    def _search(self, base, want: tuple) -> bool:
        """The same with every price there is."""
        self.counts["searches"] += 1
        for tick in self._ticks:
            start = base.copy()
            start.update(self._fixed + tick + self._end)
            for price in _PRICES:
                done = start.copy()
                done.update(price + b'"}')
                if hash_words(done.digest()) == want:
                    self._first_price(price)
                    return True
        return False

    def _first_price(self, price: bytes) -> None:
        if price in self._prices:
            self._prices.remove(price)
        self._prices.insert(0, price)
        del self._prices[TAILS:]

    # a REST book as evidence

    def witnessed(self, mem: np.ndarray, token: int, t_ms: int) -> bool:
        """Whether frames stated the hash of this book of a token at ``t_ms``: then it is the frames' own book, whoever brought it."""
        self._collect()
        return any(t == t_ms and self._fits(self._sum(mem, token, t_ms), words) for words, t in self._stated[token].items() if t == t_ms)

    def own_hash(self, mem: np.ndarray, token: int, t_ms: int, want: tuple, tail: bytes) -> bool:
        """Whether a book carries its own right hash; ``tail``: everything behind its asks, as `tail_of` makes it."""
        done = self._sum(mem, token, t_ms)
        done.update(tail)
        return hash_words(done.digest()) == want


def tail_of(min_order_size: str, tick_size: str, neg_risk: bool, last_trade_price: str) -> bytes:
    """What follows the asks in the text that is hashed."""
    return (f'],"min_order_size":"{min_order_size}","tick_size":"{tick_size}","neg_risk":{"true" if neg_risk else "false"},'
            f'"last_trade_price":"{last_trade_price}"}}').encode()
