"""Pre-signed orders: the likely next quotes are signed while nothing happens, so that a reprice only has to be framed and sent.

Owns: the wanted set (prices around the current quotes, every size in use), the signed orders, each of which is given out once.
Called by: the order manager, on its own thread. Told the time; never reads a clock, never sends.
Can go wrong: nothing to give (None: sign on the spot). Orders too old, of a changed tick or of a market that is gone are dropped,
so a stale one cannot be sent. Venue protocol: salt and timestamp make every order single-use; flags and tick are part of it.
"""

from collections import deque
from collections.abc import Iterable

from mmbot.execution.amounts import LOT_U6, ONE_E4
from mmbot.execution.signing import OrderSigner, OrderTemplate, Salts, SignedOrder
from mmbot.execution.wire import Requests
from shm_layout.records import QK_FAK, QK_FOK

ORDER_TYPE_OF = {QK_FAK: "FAK", QK_FOK: "FOK"}
Key = tuple[int, int, int, int]          # token id, side, px_e4, size_u6


class SignedPool:
    """Signed orders by (token, side, price, size). ``max_age_ns``: how old the signed timestamp of an order may be when sent."""

    def __init__(self, signer: OrderSigner, salts: Salts, max_age_ns: int, radius_ticks: int):
        self.signer, self.salts, self.max_age_ns, self.radius_ticks = signer, salts, max_age_ns, radius_ticks
        self._refresh_age_ns = max_age_ns * 3 // 4          # signed anew before it is too old to be taken
        self._templates: dict[tuple[int, int], OrderTemplate] = {}
        self._terms: dict[tuple[int, int], tuple] = {}
        self._taking: dict[tuple[int, int, int], tuple[tuple, OrderTemplate]] = {}
        self._wanted: dict[tuple[int, int], dict[Key, None]] = {}
        self._ready: dict[Key, SignedOrder] = {}
        self._missing: deque[Key] = deque()
        self._by_age: deque[tuple[int, Key]] = deque()
        self.hits = self.misses = self.expired = self.signed = self.dropped = 0

    def __len__(self) -> int:
        return len(self._ready)

    def template(self, token_id: int, side: int, tick_e4: int, version=1, neg_risk: bool = False) -> OrderTemplate:
        """The post-only GTC template of one token and side. Another tick, version or exchange than before drops what was signed."""
        line, terms = (token_id, side), (tick_e4, version, neg_risk)
        if self._terms.get(line) != terms:
            self._drop_line(line)
            self._templates[line] = self.signer.template(token_id, side, tick_e4, version, neg_risk)
            self._terms[line] = terms
        return self._templates[line]

    def taking(self, token_id: int, side: int, kind: int, tick_e4: int, version=1, neg_risk: bool = False) -> OrderTemplate:
        """The template of orders that take: ``kind`` QK_FAK or QK_FOK. They are never signed ahead."""
        line, terms = (token_id, side, kind), (tick_e4, version, neg_risk)
        found = self._taking.get(line)
        if found is None or found[0] != terms:
            found = self._taking[line] = terms, self.signer.template(token_id, side, tick_e4, version, neg_risk, False, ORDER_TYPE_OF[kind])
        return found[1]

    def want(self, token_id: int, side: int, tick_e4: int, prices_e4: Iterable[int], sizes_u6: Iterable[int], version=1,
             neg_risk: bool = False) -> None:
        """Replace what is wanted of one token and side: every price within the radius of ``prices_e4``, at every size.

        Nearest prices first. Signed orders that are no longer wanted are dropped. Cheap when nothing changed.
        """
        self.template(token_id, side, tick_e4, version, neg_risk)
        sizes = [size - size % LOT_U6 for size in sizes_u6 if size >= LOT_U6]
        centres = list(dict.fromkeys(prices_e4))
        wanted: dict[Key, None] = {}
        for distance in range(self.radius_ticks + 1):
            for centre in centres:
                for px_e4 in (centre - distance * tick_e4, centre + distance * tick_e4):
                    if tick_e4 <= px_e4 <= ONE_E4 - tick_e4 and px_e4 % tick_e4 == 0:
                        for size in sizes:
                            wanted[token_id, side, px_e4, size] = None
        line = (token_id, side)
        before = self._wanted.get(line, {})
        if wanted.keys() == before.keys():
            return
        self._wanted[line] = wanted
        for key in before.keys() - wanted.keys():
            self.dropped += self._ready.pop(key, None) is not None
        self._missing.extend(key for key in wanted if key not in self._ready)

    def drop(self, token_id: int) -> None:
        """Forget a token: its market has rolled."""
        for line in [line for line in self._templates if line[0] == token_id]:
            self._drop_line(line)
            del self._templates[line], self._terms[line]
        for line in [line for line in self._taking if line[0] == token_id]:
            del self._taking[line]

    def _drop_line(self, line: tuple[int, int]) -> None:
        for key in self._wanted.pop(line, ()):
            self.dropped += self._ready.pop(key, None) is not None

    def take(self, token_id: int, side: int, px_e4: int, size_u6: int, now_ns: int, tick_e4: int) -> SignedOrder | None:
        """A fresh order for exactly this quote, never given out before; None if there is none. ``now_ns``: CLOCK_MONOTONIC.

        ``tick_e4`` is the market's tick now: an order signed under another one is not given out.
        """
        key = (token_id, side, px_e4, size_u6 - size_u6 % LOT_U6)
        order = self._ready.pop(key, None)
        if order is None:
            self.misses += 1
            return None
        self._missing.append(key)
        if now_ns - order.signed_mono_ns > self.max_age_ns or self._templates[token_id, side].tick_e4 != tick_e4:
            self.expired += 1
            self.misses += 1
            return None
        self.hits += 1
        return order

    def refill(self, now_ns: int, timestamp_ms: int, max_n: int = 4) -> int:
        """Sign up to ``max_n`` wanted orders (about 25 us each) and drop the old ones; how many were signed.

        ``now_ns``: CLOCK_MONOTONIC; ``timestamp_ms``: wall clock. Call when there is nothing better to do.
        """
        self._retire(now_ns)
        done = 0
        while done < max_n and self._missing:
            key = self._missing.popleft()
            token_id, side, px_e4, size_u6 = key
            if key in self._ready or key not in self._wanted.get((token_id, side), ()):
                continue
            self._ready[key] = self._templates[token_id, side].build(px_e4, size_u6, timestamp_ms, self.salts(), now_ns)
            self._by_age.append((now_ns, key))
            done += 1
        self.signed += done
        return done

    def _retire(self, now_ns: int) -> None:
        """Take out what will soon be too old, and queue it to be signed again."""
        horizon = now_ns - self._refresh_age_ns
        while self._by_age and self._by_age[0][0] < horizon:
            signed_ns, key = self._by_age.popleft()
            order = self._ready.get(key)
            if order is not None and order.signed_mono_ns == signed_ns:
                del self._ready[key]
                self.expired += 1
                self._missing.append(key)

    def rehearse(self, requests: Requests, now_ns: int, timestamp_ms: int) -> int:
        """Run the code of the send path and throw the result away, so that it is in the caches when it counts.

        Signs one order with a salt of its own and frames it as a batch; the bytes never leave this function. Returns their number.
        """
        line = next(iter(self._wanted), None)
        key = next(iter(self._wanted[line]), None) if line else None
        if key is None:
            return 0
        order = self._templates[line].build(key[2], key[3], timestamp_ms, self.salts(), now_ns)
        return len(requests.post_orders([order.body], timestamp_ms // 1000))
