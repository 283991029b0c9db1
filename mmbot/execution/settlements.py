"""What the settler does to our positions: its operations taken into the executor's books.

Owns: `Settlements`. Reads: the `settlement` ring as the settler tells each step, and its journal at start or after a lap. Writes: the manager's positions
and cash. Every operation counts once by its number, so hearing of one twice, late, or first from the journal and then from the ring changes nothing.
The journal is written before anything is sent: an operation that the venue's balances can show is known here when they are compared.
Can go wrong: the settler dies between its journal and the ring (it tells everything again when it comes back; meanwhile the operation was under way
for us, and both states of the balances are explained); an operation of a window that we do not know (history).
"""

from pathlib import Path

from mmbot.inventory.positions import BOOKED, NOTHING
from mmbot.settlement.journal import replay
from shm_layout.records import SETTLEMENT, SK_MERGE, SK_REDEEM

_KIND, _STATE, _NUMBER, _MARKET, _SETS, _PAYOUT = (SETTLEMENT.fields[n][1] // 8 for n in ("kind", "state", "number", "market_id", "up_u6", "payout_u6"))
BURST = 256


class Settlements:
    """``manager``: an OrderManager. ``ring``: a reader of `settlement`. ``path``: the settler's journal."""

    def __init__(self, manager, ring, path: Path):
        self.m, self.ring, self.path = manager, ring, path
        self._laps = 0

    def load(self) -> None:
        """Take over everything on file. Call when the market table is known and before balances are compared for the first time."""
        for op in replay(self.path)[0].values():
            self._apply(op.number, op.kind, op.state, op.market_id, op.up_u6, 0 if op.reason == "elsewhere" else op.payout_u6)

    def poll(self) -> None:
        """Take over what the settler has told since the last time."""
        ring = self.ring
        for _ in range(BURST):
            if not ring.poll():
                break
            t = ring.words.tolist()
            self._apply(t[_NUMBER], t[_KIND], t[_STATE], t[_MARKET], t[_SETS], t[_PAYOUT])
        laps = int(ring.link[2] + ring.link[3])
        if laps != self._laps:
            self._laps = laps
            self.load()

    def _apply(self, number: int, kind: int, state: int, market_id: int, sets_u6: int, payout_u6: int) -> None:
        m, books = self.m, self.m.positions
        if kind not in (SK_MERGE, SK_REDEEM) or (kind == SK_MERGE and market_id not in m.by_market):
            return
        spent_u6, merging_u6 = books.spent_u6, books.merging_u6(market_id)
        done = books.settle(number, kind, state, market_id, sets_u6, payout_u6)
        if done == NOTHING:
            return
        m.cash_u6 -= books.spent_u6 - spent_u6
        taken_u6 = books.merging_u6(market_id) - merging_u6
        if kind == SK_MERGE and done == BOOKED:
            taken_u6 += sets_u6
        m.settled(market_id, max(taken_u6, 0), done == BOOKED)

