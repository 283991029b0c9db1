"""One own order as the executor knows it, its states, and the two ways to write its id.

Owns: `Order`. Written by the order manager and its recovery, read by `reconcile` and the publisher. Pure.
Can go wrong: nothing here; an id that is not 0x and 64 hex digits raises ValueError or struct.error at its first use.

States: PENDING (sent, not confirmed) -> LIVE -> CANCELING -> DONE.
"""

import struct

from shm_layout.records import QK_POST_ONLY

PENDING, LIVE, CANCELING, DONE = 1, 2, 3, 4
LEVELS = 4
MAKER_KEYS = 4 * LEVELS
KEYS = MAKER_KEYS + 4
ONE_E4 = 10_000


def key_of(token: int, level: int, side: int, kind: int) -> int:
    """The place of a quote, 0 to KEYS - 1: one for each token, side and level that rests, one for each token and side that takes."""
    return (2 * side + token) * LEVELS + level if kind == QK_POST_ONLY else MAKER_KEYS + 2 * side + token


def id_text(words) -> str:
    """0x hex of a 256-bit id given as four signed words."""
    return "0x" + struct.pack(">4q", *words).hex()


def id_words_of(order_id: str) -> tuple:
    """Four signed words of a 0x hex id."""
    return struct.unpack(">4q", bytes.fromhex(order_id[2:]))


class Order:
    """One own order. ``order_id`` is the 0x hex digest. Sizes in 1e-6 shares, price in 1e-4.

    ``matched_u6`` is what the venue said was matched in total, ``booked_u6`` the sum of the trade legs that were seen; they meet in the end.
    ``deadline_ns``: past it the order must not rest any more if the venue first says so then (0: no deadline). ``doomed``: it must go, whatever
    is desired. ``shown``: the user channel has shown it. ``body``: the signed bytes, kept until the venue has answered.
    ``unknown`` is set while the outcome of the POST or the cancel is being found out; ``confirmed`` once the venue is known to have it.
    ``final``: for an order that is over, whether the venue has said how much was matched in all (the answer to a cancel does not).
    ``cause`` is (t_exch, t_recv, t_pub, t_poll, t_decide, t_wake, t_send) in ns.

    ``kind`` QK_*: an order that takes never rests and cannot be cancelled while the venue holds it back. One that buys is made out in dollars:
    ``budget_u6`` (0 for all others), of which ``spent_u6`` are known to be spent; ``px_e4`` is its worst price, ``size_u6`` the shares that it brings
    at that price: at a better one there are more. ``fee_e4``: most that a share of it may cost in fees.
    """

    __slots__ = ("order_id", "id_words", "market_id", "token", "level", "side", "key", "px_e4", "size_u6", "matched_u6", "booked_u6",
                 "state", "unknown", "pooled", "t_sent_ns", "t_live_ns", "t_done_ns", "t_cancel_ns", "params_version", "cause", "queries",
                 "t_query_ns", "confirmed", "final", "deadline_ns", "doomed", "shown", "body", "reposts", "t_unknown_ns", "kind", "budget_u6", "spent_u6",
                 "fee_e4")

    def __init__(self, order_id, id_words, market_id, token, level, side, px_e4, size_u6, state, t_sent_ns, kind=QK_POST_ONLY, budget_u6=0):
        self.order_id, self.id_words = order_id, id_words
        self.market_id, self.token, self.level, self.side = market_id, token, level, side
        self.kind, self.budget_u6, self.spent_u6, self.fee_e4 = kind, budget_u6, 0, 0
        self.key = key_of(token, level, side, kind)
        self.px_e4, self.size_u6 = px_e4, size_u6
        self.matched_u6 = self.booked_u6 = 0
        self.state = state
        self.unknown = False
        self.pooled = 0
        self.t_sent_ns = t_sent_ns
        self.t_live_ns = self.t_done_ns = self.t_cancel_ns = 0
        self.params_version = 0
        self.cause = None
        self.queries = 0
        self.t_query_ns = 0
        self.confirmed = self.shown = self.doomed = False
        self.deadline_ns = self.t_unknown_ns = self.reposts = 0
        self.body = b""
        self.final = True

    @property
    def open_u6(self) -> int:
        """Shares that may still be filled without our having seen the trade: the number that exposure counts."""
        if self.state == DONE and self.final:
            return max(self.matched_u6 - self.booked_u6, 0)
        return self.left_u6

    @property
    def left_u6(self) -> int:
        """Shares whose trades have not been seen; of a dollar-sized order at its worst price."""
        if self.budget_u6:
            return max(self.budget_u6 - self.spent_u6, 0) * ONE_E4 // self.px_e4
        return max(self.size_u6 - self.booked_u6, 0)

    @property
    def rest_u6(self) -> int:
        """Shares not matched yet as far as we know."""
        if self.budget_u6:
            return self.left_u6
        return self.size_u6 - (self.matched_u6 if self.matched_u6 > self.booked_u6 else self.booked_u6)
