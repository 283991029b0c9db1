"""The windows the executor may trade in, as discovery lists them: one object per market, found by slot and by id.

Owns: `Window`, which holds a market's terms, its own orders and what is desired of it now. Written and read by the order manager only.
Can go wrong: a market of a protocol version nobody knows is kept but not traded; a slot that is overwritten takes its
window out of the table, and the window is forgotten once it has no order left.
"""

from mmbot.execution.order import DONE, Order, key_of
from mmbot.execution.reconcile import NEVER_NS, Limits
from mmbot.inventory.exposure import Tail
from mmbot.inventory.positions import DUST_U6
from mmbot.quoting.fees import taker_fee_u6
from shm_layout.records import (DOWN, ID_WORDS, MARKET_INFO, MARKET_SLOTS, MARKETS, MAX_QUOTES, MS_CLOSED, MS_EMPTY, MS_RESOLVED, NO_OUTCOME,
                                QK_POST_ONLY, QUOTE, SELL, TARGET, UP, id_value)

KNOWN_VERSIONS = (1, 2)
SEEN_NS = 5_000_000             # the core decides on what was published so long before its decision
_AT = {name: MARKET_INFO.fields[name][1] // 8 for name in MARKET_INFO.names}
_ROW = MARKET_INFO.itemsize // 8
_ROWS = MARKETS.fields["row"][1] // 8
_N_QUOTES, _QUOTES, _QUOTE_WORDS = TARGET.fields["n_quotes"][1] // 8, TARGET.fields["quote"][1] // 8, QUOTE.itemsize // 8
assert QUOTE.names == ("token", "level", "side", "kind", "px_e4", "size_u6")


class Window:
    """One market. ``orders``: own orders that are not over; ``tail``: orders that are over but whose trades have not all been seen;
    ``external``: orders of the account that somebody else sent and that are left alone.

    ``desired``: quotes of the newest target ((token, level, side, kind, px_e4, size_u6), ...), ``previous`` those of the one before.
    ``changed_ns``: when a decision last changed the quotes; ``decided_ns``: when one last said that they are (still) wanted.
    ``worst_u6``: what can be lost here in the worst case, as last published.
    ``own_due``: the set of orders that may rest may have changed since ``own_rows`` was published.
    ``wishes``: since when each quote that takes is wanted without a break; ``takers``: the newest order that takes, by key; ``sells``: some quote sells.
    ``was_wanted``: some quote was, at some time.
    ``fresh``: the newest target has not been acted on yet and its stamps are those of the decision that changed it.
    """

    __slots__ = ("market_id", "slot", "state", "outcome", "version", "neg_risk", "fee_rate_e6", "fee_exponent", "tokens", "limits", "orders", "tail",
                 "external", "desired", "previous", "deadline_ns", "changed_ns", "decided_ns", "params_version", "cause", "fresh", "dirty",
                 "was_live", "was_wanted", "next_ns", "row", "own_due", "own_rows", "worst_u6",
                 "wishes", "sells", "takers", "_free_ns")

    def __init__(self, market_id: int, slot: int, limits: Limits):
        self.market_id, self.slot, self.limits = market_id, slot, limits
        self.orders, self.tail, self.external = {}, Tail(), {}
        self.worst_u6 = 0
        self.wishes, self.takers, self._free_ns = {}, {}, {}
        self.sells = False
        self.desired = self.previous = ()
        self.deadline_ns = self.changed_ns = self.decided_ns = self.params_version = 0
        self.cause = (0, 0, 0, 0, 0)
        self.fresh = self.dirty = self.was_live = self.was_wanted = False
        self.next_ns = NEVER_NS
        self.row = self.own_rows = None
        self.own_due = True
        self.outcome = NO_OUTCOME

    def want(self, quotes: tuple, changed_ns: int) -> None:
        """Take over the quotes of a decision that changed them."""
        self.previous, self.desired, self.changed_ns = self.desired, quotes, changed_ns
        self.sells = any([q[2] == SELL for q in quotes])
        if self.wishes or any([q[3] != QK_POST_ONLY for q in quotes]):
            self.wishes = {q: self.wishes.get(q, changed_ns) for q in quotes if q[3] != QK_POST_ONLY}

    def wanted_now(self, now: int, not_before_ns: int) -> tuple:
        """The desired quotes without those that take and may not be sent (again).

        A quote that takes is a wish, not a state: it is sent once. It may be sent when it was first wanted after everything about the order before it
        of the same token and side was known (its end, and the trades of all that it matched) and published, and after ``not_before_ns``; a wish that
        goes on unchanged is the same wish. Without this the core would buy again what it has not seen yet that it has.
        """
        if not self.wishes:
            return self.desired
        return tuple([q for q in self.desired if q[3] == QK_POST_ONLY or self._is_new(q, now, not_before_ns)])

    def _is_new(self, q: tuple, now: int, not_before_ns: int) -> bool:
        key = key_of(*q[:4])
        if (o := self.takers.get(key)) is not None:
            if o.state != DONE or not o.final or o.open_u6 > DUST_U6:
                return False
            if key not in self._free_ns:
                self._free_ns[key] = now
        return self.wishes[q] > max(self._free_ns.get(key, 0), not_before_ns) + SEEN_NS

    def took(self, o: Order) -> None:
        """An order that takes has been sent."""
        self.takers[o.key] = o
        self._free_ns.pop(o.key, None)

    def load(self, row: tuple) -> None:
        """Take over a row of the market table (MARKET_INFO as integers)."""
        self.row = row
        self.state = row[_AT["state"]]
        self.outcome = row[_AT["outcome"]] if self.state == MS_RESOLVED else NO_OUTCOME
        self.version, self.neg_risk = row[_AT["version"]], bool(row[_AT["neg_risk"]])
        self.limits.fee_rate_e6 = row[_AT["fee_rate_e6"]]
        self.fee_rate_e6, self.fee_exponent = row[_AT["fee_rate_e6"]], row[_AT["fee_exponent"]]
        self.tokens = tuple(id_value(row[_AT[n]:_AT[n] + ID_WORDS]) for n in ("token_up", "token_down"))
        self.limits.tick_e4 = row[_AT["tick_e4"]] or self.limits.tick_e4
        self.limits.min_size_u6 = row[_AT["min_size_u6"]]
        self.dirty = True

    @property
    def over(self) -> bool:
        """Whether the market has ended: nothing may rest in it any more, whatever is desired."""
        return self.state in (MS_CLOSED, MS_RESOLVED)

    @property
    def tradable(self) -> bool:
        """Whether orders can be signed for this market."""
        return self.version in KNOWN_VERSIONS and self.tokens[UP] != 0 and self.tokens[DOWN] != 0

    def taker_fee_u6(self, px_u6: int, size_u6: int) -> int:
        """Fee of a taker fill, 1e-6 dollars."""
        return taker_fee_u6(size_u6, px_u6, self.fee_rate_e6, self.fee_exponent)


def quotes_of(target: list[int]) -> tuple:
    """Desired quotes of a TARGET given as integers: ((token, level, side, kind, px_e4, size_u6), ...)."""
    end = _QUOTES + _QUOTE_WORDS * min(max(target[_N_QUOTES], 0), MAX_QUOTES)
    return tuple([tuple(target[i:i + _QUOTE_WORDS]) for i in range(_QUOTES, end, _QUOTE_WORDS)])


def rows_of(words: list[int]) -> list[tuple]:
    """The MARKET_SLOTS rows of a MARKETS record given as integers, without the update stamp (so equal rows compare equal)."""
    stamp = _AT["t_update_ns"]
    rows = []
    for slot in range(MARKET_SLOTS):
        at = _ROWS + slot * _ROW
        row = words[at:at + _ROW]
        row[stamp] = 0
        rows.append(tuple(row))
    return rows


def market_of(row: tuple) -> int:
    """Market id of a row; 0 for an empty one."""
    return row[_AT["market_id"]] if row[_AT["state"]] != MS_EMPTY else 0
