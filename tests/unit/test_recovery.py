"""Start, stop and the comparison with the venue: each difference is named, healed or stops quoting; no error and no empty list is believed."""

import asyncio
import os

import numpy as np
import pytest
from order_world import CONDITION, KEY, MARKET, MS, SLOT, TOKENS, World

from mmbot.execution.http1 import UnknownOutcome
from mmbot.execution.order import DONE, LIVE
from mmbot.execution.order_journal import OrderJournal, sent_line
from mmbot.execution.rest import MakerLeg, Trade, VenueError
from mmbot.execution.wire import ErrorCode
from mmbot.inventory.differences import LAG_NS, SUSPECT_NS, Differences, Plausible
from mmbot.inventory.funds import LONGEST_WAIT_NS, Funds
from mmbot.topology import SEQLOCKS
from procs.executor import _count_on
from shm_layout import records as r
from shm_layout.segment import Space
from shm_layout.seqlock import SeqlockWriter

TWENTY, FIVE = 20_000_000, 5_000_000
S = 1_000 * MS
UP_BID = (0, 0, 5000, 20)


@pytest.fixture
def w(tmp_path):
    return World(tmp_path).ready()


def bid(w, quote=UP_BID):
    w.target(quote)
    return [i for i in w.venue.live()][-1]


def filled(w, status=r.TS_MATCHED):
    """Twenty Up shares held, nothing rests."""
    order_id = bid(w)
    trade = w.venue.fill(order_id, TWENTY)
    if status != r.TS_MATCHED:
        w.say_trade(order_id, trade, TWENTY, status)
        w.venue.trades_[-1].status = "TRADE_STATUS_CONFIRMED"
    w.target()
    return order_id, trade


def compare(w, wait_ms=0):
    w.tick(wait_ms)
    w.guard()
    return w.run(w.recovery.compare())


def halted(w):
    w.tick(1)
    return bool(w.account()["halts"] & r.HALT_BIT["difference"])


class TestListings:
    def test_an_empty_listing_is_not_believed_while_our_orders_answer_by_id(self, w):
        order_id = bid(w)
        w.tick(350)
        w.venue.empty_listing = True
        for _ in range(3):
            assert compare(w, 20)
        o = w.m.by_id[order_id]
        assert o.state == LIVE and not o.unknown and w.keys() and w.agrees()
        assert "listing_wrong" in w.report.errors and "missing_order" not in w.report.errors
        assert w.position()["open_up_u6"] == TWENTY

    def test_an_order_that_is_gone_by_id_too_is_over(self, w):
        order_id = bid(w)
        w.tick(350)
        w.venue.orders[order_id].update(status="CANCELED", matched=FIVE)
        assert compare(w)
        assert w.m.by_id[order_id].state == DONE and "missing_order" in w.report.errors
        assert w.position()["open_up_u6"] == FIVE, "what the venue says was matched is waited for"

    def test_a_listing_of_trades_that_lacks_what_is_under_way_is_an_error(self, w):
        filled(w)
        assert compare(w)
        w.venue.empty_trades = True
        assert not compare(w) and any("missing from the listing" in t for t in w.report.texts)
        w.venue.empty_trades = False
        assert compare(w) and w.position()["qty_up_u6"] == TWENTY

    def test_errors_are_asked_again_ever_more_slowly(self, w):
        w.venue.broken_reads = True
        w.m.reread = "test"
        waits, last = [], w.now
        for _ in range(8):
            while not w.recovery.due(60):
                w.now += 10 * MS
            waits.append(w.now - last)
            last = w.now
            w.run(w.recovery.compare())
        assert waits[-1] > 6 * waits[1] and max(waits) <= 9 * S and w.report.errors.count("compare") == 8
        w.venue.broken_reads = False
        w.now += 10 * S
        assert w.recovery.due(60) and w.run(w.recovery.compare()) and not w.m.reread

    def test_strangers_are_left_alone_and_counted_when_told_to(self, tmp_path):
        w = World(tmp_path, adopt="keep").ready()
        w.venue.orders["0x" + "ab" * 32] = dict(token=1, side=r.BUY, size=TWENTY, matched=FIVE, status="LIVE", px=4000)
        assert compare(w, 100)
        w.tick(1)
        assert w.venue.live() and w.position()["open_down_u6"] == TWENTY - FIVE and w.position()["worst_u6"] == 6_000_000
        w.venue.orders["0x" + "ab" * 32]["status"] = "CANCELED"
        assert compare(w, 100)
        w.tick(1)
        assert w.position()["open_down_u6"] == 0 and "foreign_order" not in w.report.errors


class TestCash:
    def test_what_is_pending_explains_either_balance(self, w):
        order_id, trade = filled(w)
        for cash in (990_000_000, 1_000_000_000):           # after and before the venue moved the money
            w.venue.cash_u6 = cash
            for _ in range(15):
                assert compare(w, 1000)
        assert not w.recovery.differences.open and w.report.events.get("reconcile_diffs", 0) == 0
        assert w.account()["cash_u6"] == 990_000_000, "whatever the venue's cache says, the money is spent"

    def test_a_cache_may_lag_and_the_venue_is_asked_to_renew_it(self, w):
        filled(w)
        assert compare(w, 100)
        w.venue.cash_u6 = 1_000_000_000
        order_id = next(iter(w.venue.orders))
        w.say_trade(order_id, w.venue.trades_[0].id, TWENTY, r.TS_CONFIRMED)
        w.venue.trades_[0].status = "TRADE_STATUS_CONFIRMED"
        for _ in range(12):
            assert compare(w, 1000)
        assert not w.recovery.differences.open and not w.venue.renewals, "twelve seconds old is a cache"
        renewed = w.venue.renew_balance

        async def renew(asset="COLLATERAL", token=""):
            await renewed(asset, token)
            w.venue.cash_u6 = 990_000_000
        w.venue.renew_balance = renew
        assert compare(w, 5000)
        assert w.venue.renewals == 1 and not w.recovery.differences.open

    def test_cash_that_is_missing_is_named_then_stops_quoting_then_is_explained(self, w):
        filled(w, r.TS_CONFIRMED)
        assert compare(w, LAG_NS // MS)
        w.venue.cash_u6 -= 30_000_000
        assert compare(w, 100) and not w.account()["difference_since_ns"], "only suspected: a fill may be on its way to us"
        since = w.now
        assert compare(w, 1100) and compare(w, LAG_NS // MS)
        assert any(t.startswith("cash: cash: ours 990.000000, the venue's 960.000000") for t in w.report.texts)
        assert w.account()["difference_since_ns"] > since - 2 * S and halted(w) and w.account()["cash_u6"] == 960_000_000
        w.target(UP_BID)
        assert not w.venue.live(), "nothing is quoted"
        w.venue.cash_u6 += 30_000_000
        assert compare(w, 100) and not halted(w) and w.account()["difference_since_ns"] == 0
        w.target(UP_BID)
        assert w.venue.live()

    def test_a_difference_that_nobody_explains_is_the_truth_in_the_end(self, w):
        filled(w, r.TS_CONFIRMED)
        assert compare(w, LAG_NS // MS)
        w.venue.cash_u6 -= 30_000_000
        for _ in range(80):
            assert compare(w, 1000)
        assert "cash_moved" in w.report.errors and not halted(w) and w.account()["cash_u6"] == 960_000_000

    def test_a_credit_is_accepted_when_all_else_agrees(self, w):
        filled(w, r.TS_CONFIRMED)
        assert compare(w, LAG_NS // MS)
        w.venue.cash_u6 += 7_000_000
        assert compare(w, 100) and compare(w, 1100) and compare(w, 100)
        assert w.account()["cash_u6"] == 997_000_000 and not w.account()["difference_since_ns"] and "cash" not in w.report.errors

    def test_a_credit_with_shares_missing_is_a_difference(self, w):
        """The venue took a trade back and nobody told us: money is back, shares are gone."""
        filled(w, r.TS_CONFIRMED)
        assert compare(w, LAG_NS // MS + 1000)
        w.venue.cash_u6, w.venue.shares = 1_000_000_000, [0, 0]
        for _ in range(int(LAG_NS / S) + 4):
            assert compare(w, 1000)
        assert {d[0] for d in w.recovery.differences.open} == {"cash", "shares"} and w.position()["sellable_up_u6"] == 0

    def test_rounding_is_no_difference_and_does_not_add_up(self, w):
        filled(w, r.TS_CONFIRMED)
        w.venue.cash_u6 -= 9_000
        assert compare(w, LAG_NS // MS)
        w.venue.cash_u6 -= 9_000
        assert compare(w, LAG_NS // MS) and compare(w, 2000)
        assert not w.recovery.differences.open and w.account()["cash_u6"] == 990_000_000 - 18_000


class TestShares:
    def test_shares_settle_late_and_either_balance_is_explained(self, w):
        filled(w)
        for shares in (0, TWENTY):
            w.venue.shares[0] = shares
            assert compare(w, 2000)
            assert w.position()["sellable_up_u6"] == shares, "sellable is the venue's word, not what is held"
        assert not w.recovery.differences.open

    def test_shares_nobody_told_us_of_stop_quoting(self, w):
        filled(w, r.TS_CONFIRMED)
        assert compare(w, 100)
        w.venue.shares[1] = FIVE
        for _ in range(13):
            assert compare(w, 1000)
        assert any(f"shares {MARKET} Down: ours 0.000000, the venue's 5.000000" in t for t in w.report.texts) and halted(w)
        for _ in range(60):
            assert compare(w, 1000)
        assert not halted(w) and w.position()["qty_down_u6"] == FIVE
        assert w.position()["cost_down_u6"] == FIVE, "booked as if they had cost a dollar each"
        assert w.account()["cash_u6"] == w.venue.cash_u6

    def test_a_window_that_is_paid_out_is_no_difference(self, w):
        filled(w, r.TS_CONFIRMED)
        assert compare(w, LAG_NS // MS)
        w.wall0 += 900 * S
        w.venue.shares = [0, 0]
        for _ in range(4):
            assert compare(w, LAG_NS // MS)
        assert not w.recovery.differences.open

    def test_a_balance_that_cannot_be_read_is_said_and_nothing_is_sellable(self, w):
        filled(w)
        assert compare(w) and w.position()["sellable_up_u6"] == TWENTY
        balance = w.venue.balance

        async def refuse(asset="COLLATERAL", token=""):
            if token:
                raise VenueError("/balance-allowance", ErrorCode.INVALID, "Invalid token id", 400)
            return await balance(asset)
        w.venue.balance = refuse
        assert compare(w) and "balance" in w.report.errors
        w.tick(60)
        assert w.position()["sellable_up_u6"] == -1


class TestStart:
    def journal(self, tmp_path, *ids):
        j = OrderJournal(tmp_path / "journal" / "orders.log", sync_thread=False)
        j.append(b"".join(sent_line(i, MARKET, 0, 0, r.BUY, r.QK_POST_ONLY, 5000, TWENTY, 1) for i in ids))
        j.close()

    def start(self, tmp_path, prepare, **execution):
        w = World(tmp_path, **execution)
        prepare(w)
        w.markets()
        w.guard()
        w.connect()
        w.run(w.recovery.start())
        return w

    def test_positions_come_from_all_trades_of_every_listed_window_however_old(self, tmp_path):
        def prepare(w):
            async def trades(after=0, market=""):
                leg = MakerLeg("0x" + "ab" * 32, KEY.api_key, KEY.funder, "20", "0.5", str(TOKENS[0]), "", "BUY")
                old = Trade("00000000-0000-4000-8000-000000000009", "0x" + "51" * 32, CONDITION, str(TOKENS[0]), "SELL", "20", "0.5",
                            "TRADE_STATUS_CONFIRMED", "1774900000", owner="x", trader_side="MAKER", maker_orders=[leg])
                return [old] if market == CONDITION else []
            w.venue.trades, w.venue.shares = trades, [TWENTY, 0]
        w = self.start(tmp_path, prepare)
        assert w.position()["qty_up_u6"] == TWENTY and w.position()["confirmed_up_u6"] == TWENTY and w.account()["fills"] == 1

    def test_shares_that_no_trade_explains_are_taken_in(self, tmp_path):
        w = self.start(tmp_path, lambda w: setattr(w.venue, "shares", [0, FIVE]))
        assert w.position()["qty_down_u6"] == FIVE and w.position()["worst_u6"] == FIVE and w.position()["sellable_down_u6"] == FIVE
        assert w.account()["cash_u6"] == 1_000_000_000 and "shares_moved" in w.report.errors
        assert compare(w, 5000) and not w.recovery.differences.open

    def test_an_empty_listing_does_not_hide_an_order_of_the_journal(self, tmp_path):
        order_id = "0x" + "cd" * 32
        self.journal(tmp_path, order_id)
        tries = []

        def prepare(w):
            w.venue.orders[order_id] = dict(token=0, side=r.BUY, size=TWENTY, matched=0, status="LIVE", px=5000)
            w.venue.empty_listing = True
            carry_out = w.venue._carry_out

            def forgetful(kind, what):
                tries.append(kind)
                return {"canceled": [], "not_canceled": {}} if len(tries) == 1 else carry_out(kind, what)
            w.venue._carry_out = forgetful
        w = self.start(tmp_path, prepare)
        assert len(tries) > 1 and w.venue.orders[order_id]["status"] == "CANCELED" and any("still rest" in t for t in w.report.texts)

    def test_a_venue_that_accepts_no_cancel_is_not_flat(self, tmp_path):
        """An empty list right after a refused cancel-all proves nothing: orders may be on their way, or the list wrong."""
        w = World(tmp_path)
        refusals = [1] * 3
        cancel_all = w.m.cancel_all

        def later():
            if refusals:
                refusals.pop()
                raise UnknownOutcome("no answer", w.now)
            return cancel_all()
        w.m.cancel_all = later
        w.markets()
        w.guard()
        w.connect()
        w.run(w.recovery.start())
        assert not refusals and w.report.errors.count("cancel_all") == 3 and w.m.state == r.AS_READY

    def test_keep_cancels_ours_and_leaves_the_others(self, tmp_path):
        ours, theirs = "0x" + "cd" * 32, "0x" + "ab" * 32
        self.journal(tmp_path, ours)

        def prepare(w):
            for i, token in ((ours, 0), (theirs, 1)):
                w.venue.orders[i] = dict(token=token, side=r.BUY, size=TWENTY, matched=0, status="LIVE", px=4000)
            cancel = w.venue.cancel

            def answered(ids, timestamp_s):
                later = cancel(ids, timestamp_s)
                w.venue.answer(later)
                return later
            w.venue.cancel = answered
        w = self.start(tmp_path, prepare, adopt="keep")
        assert set(w.venue.live()) == {theirs} and w.m.state == r.AS_READY
        assert compare(w, 1000)
        w.tick(1)
        assert w.position()["open_down_u6"] == TWENTY and set(w.venue.live()) == {theirs}

    def test_trades_that_settle_over_the_start_are_no_difference(self, tmp_path):
        """The balance read at start may be of before or after the trades that were not final then."""
        first = World(tmp_path).ready()
        order_id, trade = filled(first)
        first.journal.close()
        w = self.start(tmp_path, lambda w: w.venue.__dict__.update(trades_=first.venue.trades_, shares=[0, 0], cash_u6=1_000_000_000))
        assert w.position()["pending_up_u6"] == TWENTY
        w.venue.trades_[0].status = "TRADE_STATUS_CONFIRMED"
        w.venue.cash_u6, w.venue.shares = 990_000_000, [TWENTY, 0]
        for _ in range(20):
            assert compare(w, 1000)
        assert not w.recovery.differences.open and w.account()["cash_u6"] == 990_000_000 and w.position()["confirmed_up_u6"] == TWENTY


class TestStop:
    def test_an_order_that_the_listing_hides_keeps_us_from_saying_flat(self, w):
        order_id = bid(w)
        w.venue.empty_listing = True
        tries, carry_out = [], w.venue._carry_out

        def forgetful(kind, what):
            tries.append(kind)
            return {"canceled": [], "not_canceled": {}} if len(tries) <= 3 else carry_out(kind, what)
        w.venue._carry_out = forgetful
        assert asyncio.run(w.recovery.stop())
        assert len(tries) >= 4 and w.venue.orders[order_id]["status"] == "CANCELED"


class TestRefusals:
    TEXT = "not enough balance / allowance: the balance is not enough -> balance: {}, sum of matched orders: {}, order amount (inc. fees): {}"

    def test_a_stale_reservation_is_explained_and_not_hammered(self, w):
        w.venue.reject = [self.TEXT.format(1_000_000_000, 995_000_000, 10_000_000)] * 100
        posts = lambda: len([1 for kind, _ in w.venue.log if kind == "post"])      # noqa: E731
        w.target(UP_BID)
        assert posts() == 1 and any("a reservation of 995 dollars that no order of ours explains" in t for t in w.report.texts)
        for _ in range(400):
            w.refresh()
            w.guard()
            w.tick(50)
        assert posts() <= 6, "twenty seconds of wanting: the wait doubles"
        w.venue.reject.clear()
        for _ in range(700):
            w.refresh()
            w.guard()
            w.tick(50)
        assert w.venue.live()

    def test_what_fits_under_the_ceiling_is_posted(self, w):
        w.venue.reject = [self.TEXT.format(1_000_000_000, 993_000_000, 10_000_000)]
        w.target(UP_BID)
        assert not w.venue.live()
        w.now += 2 * S
        w.m.funds.refused(MARKET, self.TEXT.format(1_000_000_000, 993_000_000, 10_000_000), 0, 1_000_000_000, w.now)
        w.guard()
        w.target((0, 0, 5000, 10))
        assert len(w.venue.live()) == 1, "five dollars fit into the seven that are free"

    def test_explanations(self):
        f = Funds()
        assert "no numbers" in f.refused(1, "not enough balance / allowance", 3_000_000, 10, 0) and f.room_u6(1, 10_000_000, 5) == 3_000_000
        assert "the venue sees 5 dollars, we 9" in f.refused(2, self.TEXT.format(5_000_000, 1, 2), 1, 9_000_000, 0)
        assert f.room_u6(2, 9_000_000, 5) == 5_000_000 and f.room_u6(2, 9_000_000, 2 * S) == 9_000_000 == f.room_u6(3, 9_000_000, 0)
        assert "more was asked for" in f.refused(4, self.TEXT.format(9_000_000, 8_000_000, 2), 8_000_000, 9_000_000, 0)
        now, waits = 0, []
        for _ in range(8):
            f.refused(1, "", 0, 0, now)
            now = f._ceilings[1].until_ns
            waits.append(f._ceilings[1].wait_ns)
        assert waits == sorted(waits) and waits[-1] == LONGEST_WAIT_NS


class TestDifferences:
    def test_suspected_then_named_once_then_closed(self):
        d = Differences()
        found = {("cash",): ("1", "2")}
        assert d.update(found, 0) == [] and d.since_ns == 0
        (named,) = d.update(found, SUSPECT_NS)
        assert named.text == "cash: ours 1, the venue's 2" and d.since_ns == 0 == named.since_ns
        assert d.update(found, 2 * SUSPECT_NS) == [] and d.open[("cash",)].named
        assert d.update({}, 3 * SUSPECT_NS) == [] and not d.open and d.since_ns == 0
        assert len(d.update({("unbooked_fill", "x"): ("1", "2")}, 5, frozenset(("unbooked_fill",)))) == 1 and d.since_ns == 5

    def test_a_balance_may_be_of_any_moment_of_a_short_past(self):
        p = Plausible()
        p.add(100_000_000, 110_000_000, 0)
        p.add(200_000_000, 200_000_000, S)
        assert [p.excess_u6(v * 1_000_000) for v in (90, 100, 150, 200, 201)] == [-10_000_000, 0, 0, 0, 1_000_000]
        p.add(200_000_000, 200_000_000, LAG_NS + 1)
        assert p.excess_u6(150_000_000) == -50_000_000 and p.excess_u6(200_009_000) == 0
        p.shift(-50_000_000)
        assert p.excess_u6(150_000_000) == 0


class TestTheCap:
    def test_no_post_raises_the_greatest_loss_above_the_cap(self, w):
        w.m.max_exposure_u6 = 15_000_000
        w.target(UP_BID)
        w.tick(300)
        w.guard()
        w.target((0, 0, 5100, 20))
        assert w.position()["worst_u6"] <= 15_000_000
        for _ in range(30):
            w.tick(30)
            w.guard()
            w.refresh()
            assert w.position()["worst_u6"] <= 15_000_000, "old and new order never count for more than the cap"
            for i in list(w.m.cut):
                w.say_order(i, r.UT_CANCELLATION, r.ST_CANCELED)
        assert {o["px"] for o in w.venue.live().values()} == {5100}, "and the better price comes once the old order is known to be gone"

    def test_an_order_whose_cancel_is_in_flight_takes_its_room(self, w):
        w.m.max_exposure_u6 = 15_000_000
        order_id = bid(w)
        w.venue.auto = False
        other = (0, 1, 4900, 20)
        w.target(other)
        w.tick(30)
        assert [kind for kind, _ in w.venue.log[-1:]] == ["cancel"] and len(w.keys()) == 1, "the other level waits: both could fill"
        w.venue.answer()
        w.tick(1)
        assert len(w.venue.log) == 3 and w.position()["worst_u6"] == 10_000_000, "the answer does not say how much was matched before it"
        w.say_order(order_id, r.UT_CANCELLATION, r.ST_CANCELED)
        w.tick(30)
        w.venue.answer()
        assert {o["px"] for o in w.venue.live().values()} == {4900}

    def test_pending_gains_make_no_room(self, w):
        """Ten shares of each, bought for 9.7 dollars: booked they cannot lose; while they can fail either side may be lost."""
        w.target((0, 0, 5000, 10), (1, 0, 4700, 10))
        ids = list(w.venue.live())
        trades = [w.venue.fill(i, 10_000_000) for i in ids]
        w.target()
        assert w.position()["worst_u6"] == 5_000_000
        w.m.max_exposure_u6 = 7_000_000
        w.tick(300)
        w.guard()
        w.target((1, 0, 4700, 10))
        assert not w.venue.live()
        for i, trade in zip(ids, trades, strict=True):
            w.say_trade(i, trade, 10_000_000, r.TS_CONFIRMED)
        assert w.position()["worst_u6"] == 0
        w.tick(300)
        w.guard()
        w.refresh()
        assert len(w.venue.live()) == 1

    def test_other_windows_take_from_the_same_cap(self, w):
        w.m.max_exposure_u6 = 15_000_000
        other = w.m._new_window(r.market_id(1775028600, 300), r.slot_of(1775028600, 300))
        other.worst_u6 = 6_000_000
        w.target(UP_BID)
        assert not w.venue.live()
        other.worst_u6 = 0
        w.tick(30)
        w.refresh()
        assert len(w.venue.live()) == 1


def test_position_rows_are_whole(w):
    """Every field of the record comes from somewhere: no field is left at a constant over a life with everything in it."""
    filled(w)
    w.target((1, 0, 4000, 20))
    compare(w, 500)
    p = w.position()
    assert int(p["qty_up_u6"]) == int(p["pending_up_u6"] + p["confirmed_up_u6"])
    assert np.count_nonzero(w.account()["position"]["market_id"]) == 1 and int(w.account()["position"]["market_id"][SLOT]) == MARKET


def test_a_restarted_process_counts_on_from_its_own_memory():
    class Counts:
        n_orders = n_cancels = n_rejects = user_deaf = 0

    space = Space(f"t{os.getpid()}count")
    space.create_missing({}, {"account": SEQLOCKS["account"]}, [])
    try:
        first, manager = SeqlockWriter(space.own("account")), Counts()
        _count_on(manager, first)
        assert manager.n_orders == 0
        first.rec["orders"], first.rec["cancels"], first.rec["rejects"], first.rec["user_deaf"] = 7, 6, 5, 4
        first.write()
        first.segment.release()
        second = SeqlockWriter(space.own("account"))
        _count_on(manager, second)
        second.segment.release()
        assert (manager.n_orders, manager.n_cancels, manager.n_rejects, manager.user_deaf) == (7, 6, 5, 4)
    finally:
        space.wipe()
