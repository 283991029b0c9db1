"""The windows the executor may trade in, as discovery lists them: one object per market, found by slot and by id.

Owns: `Window`, which holds a market's terms, its own orders and what is desired of it now. Written and read by the order manager only.
Can go wrong: a market of a protocol version nobody knows is kept but not traded; a slot that is overwritten takes its
window out of the table, and the window is forgotten once it has no order left.
"""

from mmbot.execution.reconcile import NEVER_NS, Limits
from mmbot.inventory.exposure import Tail
from shm_layout.records import DOWN, ID_WORDS, MARKET_INFO, MARKET_SLOTS, MARKETS, MS_EMPTY, MS_RESOLVED, NO_OUTCOME, UP, id_value

KNOWN_VERSIONS = (1, 2)
_AT = {name: MARKET_INFO.fields[name][1] // 8 for name in MARKET_INFO.names}
_ROW = MARKET_INFO.itemsize // 8
_ROWS = MARKETS.fields["row"][1] // 8


class Window:
    """One market. ``orders``: own orders that are not over; ``tail``: orders that are over but whose trades have not all been seen;
    ``external``: orders of the account that somebody else sent and that are left alone.

    ``desired``: quotes of the newest target ((token, level, side, px_e4, size_u6), ...), ``previous`` those of the one before.
    ``changed_ns``: when a decision last changed the quotes; ``decided_ns``: when one last said that they are (still) wanted.
    ``worst_u6``: what can be lost here in the worst case, as last published.
    ``own_due``: the set of orders that may rest may have changed since ``own_rows`` was published.
    ``fresh``: the newest target has not been acted on yet and its stamps are those of the decision that changed it.
    """

    __slots__ = ("market_id", "slot", "state", "outcome", "version", "neg_risk", "fee_rate_e6", "tokens", "limits", "orders", "tail",
                 "external", "desired", "previous", "deadline_ns", "changed_ns", "decided_ns", "params_version", "cause", "fresh", "dirty",
                 "was_live", "next_ns", "row", "own_due", "own_rows", "worst_u6")

    def __init__(self, market_id: int, slot: int, limits: Limits):
        self.market_id, self.slot, self.limits = market_id, slot, limits
        self.orders, self.tail, self.external = {}, Tail(), {}
        self.worst_u6 = 0
        self.desired = self.previous = ()
        self.deadline_ns = self.changed_ns = self.decided_ns = self.params_version = 0
        self.cause = (0, 0, 0, 0, 0)
        self.fresh = self.dirty = self.was_live = False
        self.next_ns = NEVER_NS
        self.row = self.own_rows = None
        self.own_due = True
        self.outcome = NO_OUTCOME

    def load(self, row: tuple) -> None:
        """Take over a row of the market table (MARKET_INFO as integers)."""
        self.row = row
        self.state = row[_AT["state"]]
        self.outcome = row[_AT["outcome"]] if self.state == MS_RESOLVED else NO_OUTCOME
        self.version, self.neg_risk = row[_AT["version"]], bool(row[_AT["neg_risk"]])
        self.fee_rate_e6 = row[_AT["fee_rate_e6"]]
        self.tokens = tuple(id_value(row[_AT[n]:_AT[n] + ID_WORDS]) for n in ("token_up", "token_down"))
        self.limits.tick_e4 = row[_AT["tick_e4"]] or self.limits.tick_e4
        self.limits.min_size_u6 = row[_AT["min_size_u6"]]
        self.dirty = True

    @property
    def tradable(self) -> bool:
        """Whether orders can be signed for this market."""
        return self.version in KNOWN_VERSIONS and self.tokens[UP] != 0 and self.tokens[DOWN] != 0

    def taker_fee_u6(self, px_u6: int, size_u6: int) -> int:
        """Fee of a taker fill, 1e-6 dollars, floored to 5 decimals. Source: venue protocol, current fee (exponent 1)."""
        return size_u6 * self.fee_rate_e6 * px_u6 * (1_000_000 - px_u6) // 10**18 // 10 * 10


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
