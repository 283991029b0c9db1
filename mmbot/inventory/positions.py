"""Positions from own trade legs: each leg counts once, whatever the order, number and timing of the messages about it.

Owns: the ledger of legs, keyed (trade id, order id), and the quantity, cost, unconfirmed part and realised result per window.
Writes: the executor's order manager. Reads: the same, which publishes them in the account record. No I/O, no clock.
Can go wrong, and what happens then: the venue repeats a leg two to four times (MATCHED, MINED, CONFIRMED, RETRYING): only the
first changes a quantity. It takes a matched trade back (FAILED): the leg is reversed to the last unit. FAILED overtakes
MATCHED: the leg is remembered as void and never booked. Two final words disagree: CONFIRMED wins (the chain has the
shares) and `conflicts` counts it. A leg of another token of the same window (a mint or merge match) is booked on the token of
the own order, because callers pass the own leg, never the taker's top-level fields.
Source: venue protocol, user channel and own fills of a maker.
"""

from shm_layout.records import BUY, NO_OUTCOME, TS_CONFIRMED, TS_FAILED

ONE_U6 = 1_000_000
#: An order whose unfilled rest is at most this (0.01 share) is over: settlement rounds in 1e-6 and prices in cents.
DUST_U6 = 10_000
#: What `Positions.apply` did.
NOTHING, BOOKED, REVERSED, FINAL = 0, 1, 2, 3


class Position:
    """One window. Index 0 is Up, 1 is Down.

    qty_u6 shares booked (MATCHED or better), cost_u6 dollars paid for them, pending_u6 the booked shares that are not CONFIRMED yet,
    sold_u6 the result of sales, outcome the winning index once known (NO_OUTCOME before).
    """

    __slots__ = ("market_id", "qty_u6", "cost_u6", "pending_u6", "sold_u6", "fees_u6", "outcome")

    def __init__(self, market_id: int):
        self.market_id = market_id
        self.qty_u6 = [0, 0]
        self.cost_u6 = [0, 0]
        self.pending_u6 = [0, 0]
        self.sold_u6 = 0
        self.fees_u6 = 0
        self.outcome = NO_OUTCOME

    @property
    def realized_u6(self) -> int:
        """Result so far in 1e-6 dollars: sales less their cost and fees and, once the outcome is known, the payout less the cost."""
        done = self.sold_u6 - self.fees_u6
        if self.outcome == NO_OUTCOME:
            return done
        return done + self.qty_u6[self.outcome] - self.cost_u6[0] - self.cost_u6[1]

    def worst_u6(self, open_cost_up_u6: int, open_cost_down_u6: int) -> int:
        """Most dollars (1e-6) this window can lose at settlement if the open bids fill in the least welcome way.

        If Up wins, every open Down bid is taken to fill and no Up bid is (and the reverse); 0 once the outcome is known.
        """
        if self.outcome != NO_OUTCOME:
            return 0
        paid = self.cost_u6[0] + self.cost_u6[1]
        return max(paid + open_cost_down_u6 - self.qty_u6[0], paid + open_cost_up_u6 - self.qty_u6[1], 0)


class _Leg:
    __slots__ = ("market_id", "token", "status", "booked", "qty_u6", "cost_u6", "sold_u6", "fee_u6", "pending")

    def __init__(self, market_id: int, token: int):
        self.market_id, self.token = market_id, token
        self.status = 0
        self.booked = self.pending = False
        self.qty_u6 = self.cost_u6 = self.sold_u6 = self.fee_u6 = 0


class Positions:
    """The ledger. `by_market` maps market id -> Position."""

    def __init__(self):
        self.by_market: dict[int, Position] = {}
        self._legs: dict[tuple, _Leg] = {}
        self.fills = 0
        self.volume_u6 = 0
        self.fees_u6 = 0
        self.retired_realized_u6 = 0
        self.conflicts = 0

    def position(self, market_id: int) -> Position:
        """The position of a window, created empty when it is new."""
        found = self.by_market.get(market_id)
        if found is None:
            found = self.by_market[market_id] = Position(market_id)
        return found

    def apply(self, trade_id, order_id, market_id: int, token: int, side: int, status: int, px_u6: int, size_u6: int,
              fee_u6: int = 0) -> int:
        """One message about one own leg; returns NOTHING, BOOKED, REVERSED or FINAL.

        ``trade_id`` and ``order_id`` are any hashable ids; ``token`` and ``side`` are those of the own order; ``status`` is a
        TS_* code; ``px_u6`` dollars per share in 1e-6; ``size_u6`` shares in 1e-6; ``fee_u6`` dollars, charged on the own leg (0 as maker).
        """
        leg = self._legs.get((trade_id, order_id))
        if leg is None:
            leg = self._legs[trade_id, order_id] = _Leg(market_id, token)
        elif leg.booked and abs(leg.qty_u6) != size_u6:
            self.conflicts += 1
        if status == TS_FAILED:
            return self._fail(leg)
        if leg.status == TS_FAILED and status != TS_CONFIRMED:
            return NOTHING
        result = NOTHING
        if leg.status == TS_FAILED:
            self.conflicts += 1
        if not leg.booked:
            self._book(leg, side, px_u6, size_u6, fee_u6)
            result = BOOKED
        if leg.status == TS_CONFIRMED:
            return result
        leg.status = status
        if status == TS_CONFIRMED:
            self._settle_pending(leg)
            return result or FINAL
        return result

    def _book(self, leg: _Leg, side: int, px_u6: int, size_u6: int, fee_u6: int) -> None:
        p = self.position(leg.market_id)
        cash = px_u6 * size_u6 // ONE_U6
        if side == BUY:
            leg.qty_u6, leg.cost_u6, leg.sold_u6 = size_u6, cash, 0
        else:
            held = p.qty_u6[leg.token]
            cost = p.cost_u6[leg.token] if held <= size_u6 else p.cost_u6[leg.token] * size_u6 // held
            leg.qty_u6, leg.cost_u6, leg.sold_u6 = -size_u6, -cost, cash - cost
        leg.fee_u6 = fee_u6
        leg.booked = leg.pending = True
        self._move(p, leg, 1)
        p.pending_u6[leg.token] += size_u6

    def _move(self, p: Position, leg: _Leg, sign: int) -> None:
        p.qty_u6[leg.token] += sign * leg.qty_u6
        p.cost_u6[leg.token] += sign * leg.cost_u6
        p.sold_u6 += sign * leg.sold_u6
        p.fees_u6 += sign * leg.fee_u6
        self.fees_u6 += sign * leg.fee_u6
        self.fills += sign
        self.volume_u6 += sign * abs(leg.cost_u6 + leg.sold_u6 if leg.qty_u6 >= 0 else leg.sold_u6 - leg.cost_u6)

    def _settle_pending(self, leg: _Leg) -> None:
        if leg.pending:
            leg.pending = False
            self.position(leg.market_id).pending_u6[leg.token] -= abs(leg.qty_u6)

    def _fail(self, leg: _Leg) -> int:
        if leg.status == TS_CONFIRMED:
            self.conflicts += 1
            return NOTHING
        leg.status = TS_FAILED
        if not leg.booked:
            return NOTHING
        self._settle_pending(leg)
        self._move(self.position(leg.market_id), leg, -1)
        leg.booked = False
        return REVERSED

    def resolve(self, market_id: int, outcome: int) -> bool:
        """The window's outcome is known (UP or DOWN); True when that is news. From here on its result is realised."""
        p = self.by_market.get(market_id)
        if p is None or p.outcome == outcome or outcome == NO_OUTCOME:
            return False
        p.outcome = outcome
        return True

    def retire(self, market_id: int) -> None:
        """Forget a window and its legs; its realised result stays in the totals.

        Only for windows whose trades can no longer arrive: a message after this would be taken for a new leg, so callers drop
        messages about windows that they no longer know.
        """
        p = self.by_market.pop(market_id, None)
        if p is None:
            return
        self.retired_realized_u6 += p.realized_u6
        for key in [k for k, leg in self._legs.items() if leg.market_id == market_id]:
            del self._legs[key]

    @property
    def realized_u6(self) -> int:
        """Realised result of all windows ever held, 1e-6 dollars."""
        return self.retired_realized_u6 + sum(p.realized_u6 for p in self.by_market.values())
