"""Positions from own trade legs, merges and redemptions: each counts once, whatever the order, number and timing of the messages about it.

Owns: the ledger of legs, keyed (trade id, order id), that of the settler's operations, by number, and per window and token the shares in each state,
what they cost, what sales brought, and how much of it still hangs on trades that may fail.
Writes: the executor's order manager. Reads: the same, which publishes them in the account record. No I/O, no clock.

The rule that makes this safe: **a position is a function of the set of its legs, never of the order in which messages came.** Each leg keeps
the best evidence about itself (a maximum, so repeats and reordering change nothing), and a position is a sum over its legs. The cost of
shares held is the average price of everything bought in that window and token, so it does not depend on when a sale happened among the
buys, and a leg that fails is subtracted to the last unit even when its shares seemed sold meanwhile (the quantity is then negative until the
sale fails too, which is exactly what the venue's books will show).

A merge of n sets is a sale of n shares of both tokens for n dollars together, at average cost, from the moment it is confirmed; a redemption only moves
dollars, because a window's result is realised when its outcome is known. While an operation is under way it has happened or not: both are explained.

States of a leg: MATCHED (also RETRYING: being settled again) -> MINED -> CONFIRMED, or FAILED. A leg that was ever RETRYING counts as
matched, not as mined, until it is final. CONFIRMED is final: the chain has the shares. FAILED takes the leg back.
Can go wrong, and what happens then: FAILED overtakes MATCHED (the leg is void and never counted); CONFIRMED and FAILED are both said (the
chain wins, `conflicts` counts it once); two messages give different terms for one leg (those of the later state count, of two in the same
state the larger, `conflicts` counts it once); a leg of the other token of the window (a mint or merge match) is booked on the token of
the own order, because callers pass the own leg, never the taker's top-level fields.
Source: venue protocol, user channel and own fills of a maker.
"""

from shm_layout.records import (BUY, DOWN, NO_OUTCOME, SK_MERGE, SS_CONFIRMED, SS_FAILED, TS_CONFIRMED, TS_FAILED, TS_MATCHED, TS_MINED,
                                TS_RETRYING, UP)

ONE_U6 = 1_000_000
#: An order whose unfilled rest is at most this (0.01 share) is over: settlement rounds in 1e-6 and prices in cents.
DUST_U6 = 10_000
#: What `Positions.apply` did: nothing new, counted a leg, took one back, heard that one is final, corrected the terms of one.
NOTHING, BOOKED, REVERSED, FINAL, CORRECTED = 0, 1, 2, 3, 4
#: states of a leg
MATCHED, MINED, CONFIRMED, FAILED = range(4)
_RANK = {TS_MATCHED: 1, TS_MINED: 2, TS_RETRYING: 3, TS_FAILED: 4, TS_CONFIRMED: 5}
_STATE = {1: MATCHED, 2: MINED, 3: MATCHED, 4: FAILED, 5: CONFIRMED}


class Position:
    """One window. Index 0 is Up, 1 is Down; all in 1e-6 shares or dollars.

    bought, sold: shares; paid, got: dollars for them (without fees). net[state]: shares by state of their trade, sales negative.
    failed: shares taken back. fills: legs that count. reserve[w]: how much worse than booked the result is if outcome w comes and exactly those trades fail that
    were welcome. sellable: what the venue's balance says can be sold, -1 when it was not asked. outcome: winning index once known.
    """

    __slots__ = ("market_id", "bought_u6", "paid_u6", "sold_u6", "got_u6", "fees_u6", "net_u6", "failed_u6", "fills", "reserve_u6", "sellable_u6", "outcome")

    def __init__(self, market_id: int):
        self.market_id = market_id
        self.bought_u6, self.paid_u6, self.sold_u6, self.got_u6 = [0, 0], [0, 0], [0, 0], [0, 0]
        self.net_u6 = [[0, 0], [0, 0], [0, 0]]
        self.failed_u6, self.reserve_u6, self.sellable_u6 = [0, 0], [0, 0], [-1, -1]
        self.fills = [0, 0]
        self.fees_u6 = 0
        self.outcome = NO_OUTCOME

    @property
    def qty_u6(self) -> list[int]:
        """Shares booked: matched + mined + confirmed."""
        return [self.bought_u6[UP] - self.sold_u6[UP], self.bought_u6[DOWN] - self.sold_u6[DOWN]]

    @property
    def pending_u6(self) -> list[int]:
        """Booked shares whose trades are not final: matched + mined (sales negative)."""
        matched, mined = self.net_u6[MATCHED], self.net_u6[MINED]
        return [matched[UP] + mined[UP], matched[DOWN] + mined[DOWN]]

    @property
    def cost_u6(self) -> list[int]:
        """Dollars paid for the shares held, at the average price of all that was bought."""
        return [self._cost(UP), self._cost(DOWN)]

    def _cost(self, token: int) -> int:
        bought, sold, paid = self.bought_u6[token], self.sold_u6[token], self.paid_u6[token]
        return paid - paid * sold // bought if sold < bought else 0

    @property
    def realized_u6(self) -> int:
        """Result so far: sales less the cost of what was sold, less fees and, once the outcome is known, the payout less the cost."""
        cost = self._cost(UP) + self._cost(DOWN)
        done = self.got_u6[UP] + self.got_u6[DOWN] - self.paid_u6[UP] - self.paid_u6[DOWN] + cost - self.fees_u6
        if self.outcome == NO_OUTCOME:
            return done
        return done + self.bought_u6[self.outcome] - self.sold_u6[self.outcome] - cost

    def worst_u6(self, if_up_u6: int = 0, if_down_u6: int = 0) -> int:
        """Most dollars (1e-6, at least 0) that can still be lost beyond `realized_u6`.

        Over both outcomes w, over every set of trades that are not final failing, and over every set of open orders filling:

            max over w of   cost held - shares of w  +  reserve[w]  +  if_w

        ``if_w`` is what open orders add to the loss if w comes (`exposure.of_orders`: what bids on the other token pay). reserve[w] sums over
        trades that are not final what their success would have brought under w: size - cash - fee for a buy of w, cash - fee for a sale of the
        other token, 0 where success only costs. Trades and orders are independent of each other, so the worst set is the sum of the worst of each.
        Once the outcome is known only that outcome is looked at, and shares and cost stand in the result already.
        """
        extra = if_up_u6, if_down_u6
        if self.outcome != NO_OUTCOME:
            return max(self.reserve_u6[self.outcome] + extra[self.outcome], 0)
        up, down = self.losses_u6()
        return max(up + if_up_u6, down + if_down_u6, 0)

    def losses_u6(self) -> tuple[int, int]:
        """Dollars (1e-6, negative: a gain) that what is held can lose if Up, Down wins and those trades fail that would be welcome."""
        paid = self._cost(UP) + self._cost(DOWN)
        return (paid - self.bought_u6[UP] + self.sold_u6[UP] + self.reserve_u6[UP],
                paid - self.bought_u6[DOWN] + self.sold_u6[DOWN] + self.reserve_u6[DOWN])


class _Leg:
    """One own part of a trade. ``rank`` of the highest state heard, ``terms`` (size_u6, px_u6, token, side, fee_u6) as said with that state."""

    __slots__ = ("market_id", "rank", "terms", "settled", "failed", "disputed")

    def __init__(self, market_id: int):
        self.market_id = market_id
        self.rank, self.terms = 0, (0, 0, 0, BUY, 0)
        self.settled = self.failed = self.disputed = False

    @property
    def state(self) -> int:
        return _STATE[self.rank]

    @property
    def counts(self) -> bool:
        return 0 < self.rank and self.rank != _RANK[TS_FAILED]

    @property
    def cash_u6(self) -> int:
        return self.terms[0] * self.terms[1] // ONE_U6

    def gain_u6(self, outcome: int) -> int:
        """What the trade brings if it succeeds and ``outcome`` comes."""
        size, _, token, side, fee = self.terms
        shares = size if token == outcome else 0
        return shares - self.cash_u6 - fee if side == BUY else self.cash_u6 - fee - shares


class Positions:
    """The ledger. `by_market` maps market id -> Position.

    fills: legs that count now; volume, fees: dollars of those; spent: dollars that left the account by them; reversed: legs that failed;
    conflicts: legs about which the venue contradicted itself.
    """

    def __init__(self):
        self.by_market: dict[int, Position] = {}
        self._legs: dict[tuple, _Leg] = {}
        self._pending: set[_Leg] = set()        # those that count and are not final
        self.fills = self.reversed = self.conflicts = 0
        self.volume_u6 = self.fees_u6 = self.spent_u6 = 0
        self._settled: dict[int, int] = {}      # operations of the settler: the highest state heard
        self._settling: dict[int, tuple[int, int, int, int]] = {}       # those under way: kind, market id, sets, payout
        self.retired_realized_u6 = 0
        self.retired: set[int] = set()

    def position(self, market_id: int) -> Position:
        """The position of a window, created empty when it is new."""
        found = self.by_market.get(market_id)
        if found is None:
            found = self.by_market[market_id] = Position(market_id)
        return found

    def apply(self, trade_id, order_id, market_id: int, token: int, side: int, status: int, px_u6: int, size_u6: int,
              fee_u6: int = 0) -> int:
        """One message about one own leg; returns NOTHING, BOOKED, REVERSED, FINAL or CORRECTED.

        ``trade_id`` and ``order_id`` are any hashable ids; ``token`` and ``side`` are those of the own order; ``status`` is a
        TS_* code; ``px_u6`` dollars per share in 1e-6; ``size_u6`` shares in 1e-6; ``fee_u6`` dollars, charged on the own leg (0 as maker).
        """
        leg = self._legs.get((trade_id, order_id))
        if leg is None:
            leg = self._legs[trade_id, order_id] = _Leg(market_id)
        rank, terms = _RANK[status], (size_u6, px_u6, token, side, fee_u6)
        differs = leg.rank != 0 and terms != leg.terms
        better = (rank, terms) > (leg.rank, leg.terms)
        if rank <= leg.rank and not differs and not (status == TS_FAILED and not leg.failed):
            return NOTHING
        counted, final = leg.counts, leg.rank == _RANK[TS_CONFIRMED]
        self._move(leg, -1)
        if better:
            leg.terms = terms
        self._contradictions(leg, differs, status)
        leg.rank = max(leg.rank, rank)
        self._move(leg, 1)
        if leg.counts != counted:
            return BOOKED if leg.counts else REVERSED if counted else NOTHING
        if leg.counts and differs and better:
            return CORRECTED
        return FINAL if not final and leg.rank == _RANK[TS_CONFIRMED] else NOTHING

    def _contradictions(self, leg: _Leg, differs: bool, status: int) -> None:
        both = leg.settled and leg.failed
        leg.settled |= status == TS_CONFIRMED
        leg.failed |= status == TS_FAILED
        self.conflicts += (differs and not leg.disputed) + (leg.settled and leg.failed and not both)
        leg.disputed |= differs

    def _move(self, leg: _Leg, sign: int) -> None:
        """Add (1) or take out (-1) everything a leg contributes in its present state."""
        if leg.rank == 0:
            return
        (self._pending.add if sign > 0 and leg.counts and leg.state != CONFIRMED else self._pending.discard)(leg)
        p = self.position(leg.market_id)
        size, _, token, side, fee = leg.terms
        if not leg.counts:
            p.failed_u6[token] += sign * size
            self.reversed += sign
            return
        cash = leg.cash_u6
        shares, money = (p.bought_u6, p.paid_u6) if side == BUY else (p.sold_u6, p.got_u6)
        shares[token] += sign * size
        money[token] += sign * cash
        p.net_u6[leg.state][token] += sign * (size if side == BUY else -size)
        p.fills[token] += sign
        p.fees_u6 += sign * fee
        if leg.state != CONFIRMED:
            for outcome in (UP, DOWN):
                p.reserve_u6[outcome] += sign * max(leg.gain_u6(outcome), 0)
        self.fees_u6 += sign * fee
        self.fills += sign
        self.volume_u6 += sign * cash
        self.spent_u6 += sign * (cash + fee if side == BUY else fee - cash)

    def settle(self, number: int, kind: int, state: int, market_id: int, sets_u6: int, payout_u6: int) -> int:
        """One message about an operation of the settler (SK_*, SS_*); returns NOTHING, BOOKED, FINAL (failed) or CORRECTED (it is under way).

        ``sets_u6``: shares of each token that a merge takes; ``payout_u6``: dollars it brings. The highest state heard counts.
        """
        if state <= self._settled.get(number, 0):
            return NOTHING
        self._settled[number] = state
        self._settling.pop(number, None)
        if kind == SK_MERGE and market_id in self.retired:
            return NOTHING
        if state == SS_FAILED:
            return FINAL
        if state != SS_CONFIRMED:
            self._settling[number] = kind, market_id, sets_u6, payout_u6
            return CORRECTED
        self.spent_u6 -= payout_u6
        if kind == SK_MERGE:
            p, half = self.position(market_id), payout_u6 // 2
            for token, cash in ((UP, half), (DOWN, payout_u6 - half)):
                p.sold_u6[token] += sets_u6
                p.got_u6[token] += cash
                p.net_u6[CONFIRMED][token] -= sets_u6
        return BOOKED

    def leg_u6(self, trade_id, order_id) -> int:
        """Shares of a leg as we know it, whether it counts or failed (either way the order was used up by it); 0 for an unknown one."""
        leg = self._legs.get((trade_id, order_id))
        return leg.terms[0] if leg is not None else 0

    def unsettled(self, market_id: int) -> bool:
        """Does any leg or operation of this window wait for its final word?"""
        return any(leg.market_id == market_id for leg in self._pending) or any(op[1] == market_id for op in self._settling.values())

    def pending_cash_u6(self) -> tuple[int, int]:
        """(dollars by which the venue's cash may honestly stand above ours, dollars below) over all windows: what legs that count and are not final
        took, or brought; what operations under way may have brought already counts above."""
        out, into = sum(op[3] for op in self._settling.values()), 0
        for leg in self._pending:
            cash, fee = leg.cash_u6, leg.terms[4]
            if leg.terms[3] == BUY:
                out += cash + fee
            else:
                into += cash - fee
        return out, into

    def share_range_u6(self, market_id: int, token: int) -> tuple[int, int]:
        """(fewest, most) shares of a token that the venue may honestly show while trades that are not final settle one by one, and merges are
        under way."""
        p = self.by_market.get(market_id)
        low = high = p.net_u6[CONFIRMED][token] if p else 0
        low -= self.merging_u6(market_id)
        for leg in self._pending:
            if leg.market_id == market_id and leg.terms[2] == token:
                if leg.terms[3] == BUY:
                    high += leg.terms[0]
                else:
                    low -= leg.terms[0]
        return low, high

    def merging_u6(self, market_id: int) -> int:
        """Shares of each token that merges under way may have taken, or will."""
        return sum(sets for kind, market, sets, _ in self._settling.values() if kind == SK_MERGE and market == market_id)

    def resolve(self, market_id: int, outcome: int) -> bool:
        """The window's outcome is known (UP or DOWN); True when that is news. From here on its result is realised."""
        p = self.by_market.get(market_id)
        if p is None or p.outcome == outcome or outcome == NO_OUTCOME:
            return False
        p.outcome = outcome
        return True

    def retire(self, market_id: int) -> None:
        """Forget a window and its legs; its realised result stays in the totals, and its number in ``retired``.

        Only for windows whose trades can no longer change: a message after this would be taken for a new leg, so callers drop
        messages about windows in ``retired``.
        """
        p = self.by_market.pop(market_id, None)
        self.retired.add(market_id)
        if p is None:
            return
        self.retired_realized_u6 += p.realized_u6
        for key in [k for k, leg in self._legs.items() if leg.market_id == market_id]:
            self._pending.discard(self._legs.pop(key))

    @property
    def realized_u6(self) -> int:
        """Realised result of all windows ever held, 1e-6 dollars."""
        return self.retired_realized_u6 + sum(p.realized_u6 for p in self.by_market.values())

    @property
    def held_u6(self) -> int:
        """Dollars of what is held in windows whose outcome is not known, at cost. (Whether a payout is in the cash already nobody says.)"""
        return sum(sum(p.cost_u6) for p in self.by_market.values() if p.outcome == NO_OUTCOME)
