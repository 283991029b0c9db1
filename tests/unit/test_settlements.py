"""Merges and redemptions in the executor's books: positions, cash, the comparison with the venue, and a restart."""

import random

import pytest
from order_world import MARKET, SLOT, FakeRing, World

from mmbot.execution.settlements import Settlements
from mmbot.inventory.positions import BOOKED, CONFIRMED, CORRECTED, FINAL, NOTHING, Positions
from mmbot.settlement.journal import FILE, Op, SettlementJournal
from mmbot.settlement.publisher import Totals, fill
from shm_layout import records as r

U = 1_000_000


def bought(up=40, down=60, px=480_000):
    """Positions with confirmed shares of both tokens."""
    books = Positions()
    for token, shares in ((r.UP, up), (r.DOWN, down)):
        books.apply(("t", token), "o", 7, token, r.BUY, r.TS_CONFIRMED, px, shares * U)
    return books


def merge(books, state, number=1, sets=30):
    return books.settle(number, r.SK_MERGE, state, 7, sets * U, sets * U)


# ---- positions ----

def test_a_merge_takes_sets_at_average_cost_and_realises_the_rest():
    books = bought()
    spent, worst = books.spent_u6, books.position(7).worst_u6()
    assert merge(books, r.SS_CONFIRMED) == BOOKED
    p = books.position(7)
    assert p.qty_u6 == [10 * U, 30 * U] == p.net_u6[CONFIRMED] and p.cost_u6 == [10 * 480_000, 30 * 480_000]
    assert p.realized_u6 == 30 * U - 60 * 480_000 == books.realized_u6 and books.spent_u6 == spent - 30 * U
    assert p.worst_u6() - p.realized_u6 == worst and books.fills == 2 and books.volume_u6 == 100 * 480_000, "a merge is no trade"


def test_it_counts_once_whatever_order_its_steps_come_in():
    def state(books):
        p = books.position(7)
        return p.qty_u6, p.cost_u6, p.realized_u6, books.spent_u6, books.pending_cash_u6(), books.share_range_u6(7, 0)
    want = None
    for seed in range(40):
        rng, books = random.Random(seed), bought()
        steps = [(n, s) for n in (1, 2) for s in (r.SS_WANTED, r.SS_SUBMITTED, r.SS_MINED, r.SS_CONFIRMED) for _ in range(rng.randint(1, 3))]
        rng.shuffle(steps)
        for number, step in steps:
            merge(books, step, number, 15)
        want = want or state(books)
        assert state(books) == want
    assert want[0] == [10 * U, 30 * U]


def test_under_way_both_are_explained_and_failed_is_nothing():
    books = bought()
    assert merge(books, r.SS_SUBMITTED) == CORRECTED and merge(books, r.SS_WANTED) == NOTHING
    assert books.position(7).qty_u6 == [40 * U, 60 * U] and books.unsettled(7)
    assert books.share_range_u6(7, r.UP) == (10 * U, 40 * U) and books.share_range_u6(8, r.UP) == (0, 0) and books.pending_cash_u6() == (30 * U, 0)
    assert merge(books, r.SS_FAILED) == FINAL and not books.unsettled(7)
    assert books.share_range_u6(7, r.UP) == (40 * U, 40 * U) and books.pending_cash_u6() == (0, 0)
    assert merge(books, r.SS_CONFIRMED) == BOOKED, "the chain has the last word"


def test_odd_amounts_do_not_lose_a_millionth():
    books = bought()
    spent = books.spent_u6
    books.settle(1, r.SK_MERGE, r.SS_CONFIRMED, 7, 30 * U + 1, 30 * U + 1)
    assert books.spent_u6 == spent - 30 * U - 1 and sum(books.position(7).got_u6) == 30 * U + 1


def test_a_redemption_moves_dollars_and_no_result():
    books = bought()
    books.resolve(7, r.DOWN)
    before, spent = books.realized_u6, books.spent_u6
    books.settle(1, r.SK_REDEEM, r.SS_SUBMITTED, 7, 40 * U, 60 * U)
    assert books.pending_cash_u6() == (60 * U, 0) and books.share_range_u6(7, r.UP) == (40 * U, 40 * U)
    books.settle(1, r.SK_REDEEM, r.SS_CONFIRMED, 7, 40 * U, 60 * U)
    assert books.realized_u6 == before == 60 * U - 48 * U and books.spent_u6 == spent - 60 * U


def test_a_merge_of_a_window_that_was_retired_is_history():
    books = bought()
    books.retire(7)
    assert merge(books, r.SS_CONFIRMED) == NOTHING and 7 not in books.by_market


# ---- the executor ----

class Venue:
    """A manager with shares of both tokens, the venue's balances, and a settler that is a file and a ring."""

    def __init__(self, tmp_path, shares=30):
        self.path, self.w = tmp_path / FILE, World(tmp_path)
        self.ring, self.totals = FakeRing(r.SETTLEMENT), Totals()
        self.w.m.settlements = Settlements(self.w.m, self.ring, self.path)
        self.w.ready()
        self.w.target((0, 0, 4500, shares), (1, 0, 4700, shares))
        for order_id in list(self.w.venue.live()):
            trade = self.w.venue.fill(order_id, shares * U)
            self.w.say_trade(order_id, trade, shares * U, r.TS_CONFIRMED)
            self.w.venue.trades_[-1].status = "TRADE_STATUS_CONFIRMED"
        self.w.target()
        self.compare()

    def op(self, state, sets=30, file=True, ring=True, **changes):
        op = Op(1, r.SK_MERGE, MARKET, sets * U, sets * U, sets * U, 0, state=state, **changes)
        if file:
            journal = SettlementJournal(self.path)
            journal.op(op)
            journal.close()
        if ring:
            rec = self.ring.rec.copy()
            fill(rec, op, self.totals, self.w.now)
            self.ring.queue.append(rec.view("<i8").reshape(-1).copy())

    def mined(self, sets=30):
        """The chain has it, and the venue's balances show it."""
        self.w.venue.cash_u6 += sets * U
        self.w.venue.shares = [n - sets * U for n in self.w.venue.shares]

    def compare(self, seconds=2.0):
        self.w.tick(seconds * 1000)
        assert self.w.run(self.w.recovery.compare())

    def qty(self):
        return [n // U for n in self.w.m.positions.position(MARKET).qty_u6]

    def differs(self):
        return bool(self.w.recovery.differences.open or self.w.m.difference_since_ns or {"cash_moved", "shares_moved"} & set(self.w.report.errors))


@pytest.mark.parametrize("balances_first", [False, True])
def test_a_merge_under_way_is_no_difference_before_and_after(tmp_path, balances_first):
    v = Venue(tmp_path)
    cash = v.w.m.cash_u6
    v.op(r.SS_SUBMITTED)
    for _ in range(20):
        v.compare()
    assert v.qty() == [30, 30] and not v.differs()
    v.mined()
    if balances_first:
        for _ in range(20):
            v.compare()
        assert v.qty() == [30, 30] and not v.differs(), "the venue's balances know it before we do"
    v.op(r.SS_CONFIRMED)
    for _ in range(20):
        v.compare()
    assert v.qty() == [0, 0] and not v.differs() and v.w.m.cash_u6 == cash + 30 * U == v.w.venue.cash_u6
    assert int(v.w.position()["confirmed_up_u6"]) == 0 and int(v.w.account()["realized_u6"]) == 30 * (U - 920_000)


def test_a_merge_that_nobody_told_us_of_is_a_difference(tmp_path):
    v = Venue(tmp_path)
    v.mined()
    for _ in range(12):
        v.compare()
    assert v.differs()


def test_a_merge_that_failed_leaves_everything_as_it_was(tmp_path):
    v = Venue(tmp_path)
    cash = v.w.m.cash_u6
    v.op(r.SS_SUBMITTED)
    v.compare()
    v.op(r.SS_FAILED, reason="reverted")
    for _ in range(12):
        v.compare()
    assert v.qty() == [30, 30] and not v.differs() and v.w.m.cash_u6 == cash


@pytest.mark.parametrize("state", [r.SS_SUBMITTED, r.SS_MINED, r.SS_CONFIRMED])
@pytest.mark.parametrize("happened", [False, True])
def test_an_executor_that_starts_again_knows_merges_from_the_journal(tmp_path, state, happened):
    """Trades alone would have 30 of each; the journal says that they are merged, or that it is under way. Nothing is adopted as moved, nothing twice."""
    v = Venue(tmp_path)
    v.op(state, ring=False)
    if happened or state == r.SS_CONFIRMED:
        v.mined()
    again = World(tmp_path, venue=v.w.venue)
    again.now = v.w.now
    ring = FakeRing(r.SETTLEMENT)
    again.m.settlements = Settlements(again.m, ring, v.path)
    again.ready()
    v.w, v.ring = again, ring
    assert v.qty() == ([0, 0] if state == r.SS_CONFIRMED else [30, 30]) and not v.differs()
    if state != r.SS_CONFIRMED and not happened:
        v.mined()
    v.op(r.SS_CONFIRMED)
    v.op(r.SS_CONFIRMED)
    for _ in range(20):
        v.compare()
    assert v.qty() == [0, 0] and not v.differs() and v.w.m.cash_u6 == v.w.venue.cash_u6


def test_a_reader_that_was_lapped_reads_the_file(tmp_path):
    v = Venue(tmp_path)
    v.op(r.SS_CONFIRMED, ring=False)
    v.mined()
    v.ring.link[2] += 1
    v.compare()
    assert v.qty() == [0, 0] and not v.differs()


def test_a_merge_makes_what_was_read_of_the_balance_old(tmp_path):
    v = Venue(tmp_path)
    assert int(v.w.position()["sellable_up_u6"]) == 30 * U
    v.op(r.SS_CONFIRMED, sets=20)
    v.w.m.settlements.poll()
    v.w.tick(100)
    assert [int(v.w.position()[f"{n}_u6"]) for n in ("sellable_up", "qty_down")] == [10 * U, 10 * U] and SLOT >= 0


def test_totals_without_an_operation_change_nothing(tmp_path):
    v = Venue(tmp_path)
    v.ring.queue.append(v.ring.rec.view("<i8").reshape(-1).copy() * 0)
    v.compare()
    assert v.qty() == [30, 30] and not v.differs()


def test_sets_that_are_being_merged_cannot_be_offered(tmp_path):
    v = Venue(tmp_path)
    sellable = lambda: [int(v.w.position()[f"sellable_{n}_u6"]) // U for n in ("up", "down")]     # noqa: E731
    for state in (r.SS_WANTED, r.SS_SUBMITTED, r.SS_SUBMITTED):
        v.op(state, sets=20)
        v.w.m.settlements.poll()
        v.w.tick(100)
        assert sellable() == [10, 10]
    v.compare()
    assert sellable() == [10, 10], "the balance still shows them"
    v.op(r.SS_FAILED, sets=20, reason="reverted")
    v.compare()
    assert sellable() == [30, 30]
