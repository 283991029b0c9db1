"""Fills: what the user channel, trades and the activity stream say becomes positions; nothing counts twice, nothing falls between two chairs."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from order_world import MARKET, SLOT, World

from mmbot.execution.order import DONE
from mmbot.inventory.witness import KEEP_NS, WAIT_NS, Witness
from shm_layout import records as r

TWENTY, FIVE = 20_000_000, 5_000_000
UP_BID = (0, 0, 5000, 20)


@pytest.fixture
def w(tmp_path):
    return World(tmp_path).ready()


def bid(w, quote=UP_BID):
    """One resting bid; its id."""
    w.target(quote)
    (order_id,) = w.venue.live()
    return order_id


class TestCancelAndFill:
    """A cancel's answer says nothing about what was matched before it."""

    def test_the_rest_stays_open_until_the_venue_has_said_how_much_was_matched(self, w):
        order_id = bid(w)
        w.target()
        assert w.m.by_id[order_id].state == DONE and not w.keys(), "the cancel is confirmed, its place is free"
        assert w.position()["open_up_u6"] == TWENTY and w.position()["worst_u6"] == 10_000_000, "but the shares may be ours already"
        w.say_order(order_id, r.UT_CANCELLATION, r.ST_CANCELED)
        assert w.position()["open_up_u6"] == 0 and w.position()["worst_u6"] == 0 and not w.m.cut

    def test_a_fill_before_the_cancel_is_counted_at_every_moment(self, w):
        """Matched, cancel answered, CANCELLATION, trade: open + held never falls below what is truly ours."""
        order_id = bid(w)
        trade = w.venue.fill(order_id, FIVE, tell=False)
        seen = []

        def look():
            p = w.position()
            seen.append(int(p["open_up_u6"] + p["qty_up_u6"]))
        w.target()
        look()
        w.say_order(order_id, r.UT_CANCELLATION, r.ST_CANCELED)
        look()
        assert w.position()["open_up_u6"] == FIVE
        w.say_trade(order_id, trade, FIVE)
        look()
        assert seen == [TWENTY, FIVE, FIVE] and w.position()["open_up_u6"] == 0 and w.position()["qty_up_u6"] == FIVE

    def test_the_trade_before_the_last_word_leaves_the_rest_open(self, w):
        order_id = bid(w)
        trade = w.venue.fill(order_id, FIVE, tell=False)
        w.target()
        w.say_trade(order_id, trade, FIVE)
        assert w.position()["open_up_u6"] == TWENTY - FIVE and w.position()["qty_up_u6"] == FIVE
        w.say_order(order_id, r.UT_CANCELLATION, r.ST_CANCELED)
        assert w.position()["open_up_u6"] == 0

    def test_without_the_event_the_order_is_asked_by_id(self, w):
        order_id = bid(w)
        w.venue.fill(order_id, FIVE, tell=False)
        w.venue.orders[order_id]["status"] = "LIVE"
        w.target()
        w.run(w.recovery.resolve_unknown())
        assert order_id in w.m.cut, "not at once: the event is on its way"
        w.tick(400)
        w.run(w.recovery.resolve_unknown())
        assert not w.m.cut and w.position()["open_up_u6"] == FIVE, "five were matched, their trade is waited for"
        w.run(w.recovery.compare())
        assert w.position()["qty_up_u6"] == FIVE and w.position()["open_up_u6"] == 0

    def test_a_failed_question_is_no_answer(self, w):
        order_id = bid(w)
        w.target()
        w.venue.broken_reads = True
        w.tick(400)
        w.run(w.recovery.resolve_unknown())
        assert order_id in w.m.cut and w.position()["open_up_u6"] == TWENTY
        w.venue.broken_reads = False
        w.tick(1100)
        w.run(w.recovery.resolve_unknown())
        assert not w.m.cut and w.position()["open_up_u6"] == 0

    def test_an_order_that_rests_after_its_confirmed_cancel_is_cancelled_again(self, w):
        order_id = bid(w)
        w.target()
        w.venue.orders[order_id]["status"] = "LIVE"
        for _ in range(4):
            w.tick(1500)
            w.run(w.recovery.resolve_unknown())
        assert "zombie_order" in w.report.errors and w.venue.orders[order_id]["status"] == "CANCELED"

    def test_a_fill_long_after_the_cancel_counts(self, w):
        order_id = bid(w)
        w.target()
        w.say_order(order_id, r.UT_CANCELLATION, r.ST_CANCELED)
        w.tick(1000)
        trade = w.venue.fill(order_id, TWENTY, tell=False)
        w.say_trade(order_id, trade, TWENTY)
        assert w.position()["qty_up_u6"] == TWENTY and w.position()["open_up_u6"] == 0 and w.account()["fills"] == 1
        w.say_order(order_id, r.UT_UPDATE, r.ST_MATCHED)
        assert w.position()["open_up_u6"] == 0 and not w.m.reread


class TestStates:
    def test_the_account_shows_every_state_and_the_way_back(self, w):
        cash = int(w.account()["cash_u6"])
        order_id = bid(w)
        trade = w.venue.fill(order_id, TWENTY)
        p = w.position()
        assert (p["qty_up_u6"], p["pending_up_u6"], p["mined_up_u6"], p["confirmed_up_u6"]) == (TWENTY, TWENTY, 0, 0)
        assert (p["fills_up"], p["fills_down"]) == (1, 0)
        assert p["reserve_up_u6"] == 10_000_000 and p["reserve_down_u6"] == 0 and w.account()["cash_u6"] == cash - 10_000_000
        w.say_trade(order_id, trade, TWENTY, r.TS_MINED)
        assert (w.position()["pending_up_u6"], w.position()["mined_up_u6"]) == (TWENTY, TWENTY)
        w.say_trade(order_id, trade, TWENTY, r.TS_FAILED)
        p, a = w.position(), w.account()
        assert (p["qty_up_u6"], p["cost_up_u6"], p["pending_up_u6"], p["failed_up_u6"], p["worst_u6"]) == (0, 0, 0, TWENTY, 0)
        assert a["cash_u6"] == cash and a["reversed"] == 1 and a["fills"] == p["fills_up"] == p["fills_down"] == 0 and a["realized_u6"] == 0
        assert r.OE_REVERSED in w.kinds() and w.report.events["reversals"] == 1 and "fill_failed" in w.report.errors

    def test_confirmed_is_final_and_a_contradiction_is_said(self, w):
        order_id = bid(w)
        trade = w.venue.fill(order_id, TWENTY)
        w.say_trade(order_id, trade, TWENTY, r.TS_CONFIRMED)
        w.say_trade(order_id, trade, TWENTY, r.TS_FAILED)
        assert w.position()["confirmed_up_u6"] == TWENTY and w.position()["reserve_up_u6"] == 0
        assert w.report.errors.count("trade_conflict") == 1
        w.say_trade(order_id, trade, TWENTY, r.TS_FAILED)
        assert w.report.errors.count("trade_conflict") == 1

    def test_failed_before_matched_uses_the_order_up_and_is_not_waited_for(self, w):
        order_id = bid(w)
        trade = w.venue.fill(order_id, TWENTY, tell=False)
        w.say_order(order_id, r.UT_UPDATE, r.ST_MATCHED)
        w.say_trade(order_id, trade, TWENTY, r.TS_FAILED)
        w.say_trade(order_id, trade, TWENTY, r.TS_MATCHED)
        assert w.position()["qty_up_u6"] == 0 and w.position()["open_up_u6"] == 0 and w.position()["failed_up_u6"] == TWENTY

    def test_dust_of_settlement_ends_an_order(self, w):
        order_id = bid(w)
        trade = w.venue.fill(order_id, TWENTY - 2_286, tell=False)
        w.say_trade(order_id, trade, TWENTY - 2_286)
        assert w.m.by_id[order_id].state == DONE and w.position()["open_up_u6"] == 0 and w.position()["qty_up_u6"] == TWENTY - 2_286

    def test_an_overfill_is_booked_and_named_and_stops_nothing(self, w):
        order_id = bid(w)
        w.say_trade(order_id, "00000000-0000-4000-8000-000000000001", TWENTY + 12_345)
        assert w.position()["qty_up_u6"] == TWENTY + 12_345 and "overfill" in w.report.errors
        w.tick(300)
        w.target((0, 0, 4900, 20))
        assert len(w.venue.live()) == 2, "the venue double knows of no fill; what matters is that quoting goes on"

    def test_one_taker_of_the_other_token_fills_two_of_our_orders(self, w):
        """A mint: the taker buys Down, our Up bids are filled, each booked as itself, whatever the top-level fields say."""
        w.target(UP_BID, (0, 1, 4900, 20))
        one, two = w.venue.live()
        trade = w.venue.fill(one, TWENTY, tell=False, other_token=True)
        w.venue.fill(two, FIVE, tell=False, trade_id=trade, other_token=True)
        w.venue.trades_[-2].maker_orders += w.venue.trades_.pop().maker_orders
        w.run(w.recovery.compare())
        assert w.position()["qty_up_u6"] == TWENTY + FIVE and w.position()["qty_down_u6"] == 0
        assert w.position()["cost_up_u6"] == 10_000_000 + 2_450_000

    def test_a_replayed_channel_changes_nothing(self, w):
        order_id = bid(w)
        trade = w.venue.fill(order_id, FIVE)
        w.say_trade(order_id, trade, FIVE, r.TS_CONFIRMED)
        before = w.position().copy(), len(w.venue.log), w.account()["fills"]
        w.connection += 1
        for matched, type_ in ((0, r.UT_PLACEMENT), (FIVE, r.UT_UPDATE)):
            w.say_order(order_id, type_, r.ST_LIVE, matched=matched)
        for status in (r.TS_MATCHED, r.TS_MINED, r.TS_RETRYING, r.TS_CONFIRMED):
            w.say_trade(order_id, trade, FIVE, status)
        assert (w.position()["qty_up_u6"], w.position()["confirmed_up_u6"], w.account()["fills"]) == (FIVE, FIVE, before[2])
        assert w.position()["open_up_u6"] == TWENTY - FIVE

    def test_a_trade_of_a_retired_window_is_history(self, w):
        order_id = bid(w)
        trade = w.venue.fill(order_id, TWENTY)
        w.m.positions.retire(MARKET)
        del w.m.by_market[MARKET]
        w.m.reread = ""
        w.say_trade(order_id, trade, TWENTY, r.TS_CONFIRMED)
        assert not w.m.reread and MARKET not in w.m.positions.by_market and w.report.events.get("frames_bad", 0) == 0

    def test_a_window_that_left_the_table_is_kept_while_its_trades_may_fail(self, w):
        order_id = bid(w)
        trade = w.venue.fill(order_id, TWENTY)
        rec = w.links.markets.cells[0].copy().view(r.MARKETS)
        row = rec["row"][0][SLOT]
        row["start_s"] += 3600
        row["market_id"] = r.market_id(int(row["start_s"]), 900)
        w.links.markets.set(rec)
        w.tick(300)
        w.m.tend()
        assert MARKET in w.m.positions.by_market and w.account()["fills"] == 1
        w.say_trade(order_id, trade, TWENTY, r.TS_FAILED)
        w.m.tend()
        assert MARKET in w.m.positions.retired and w.account()["fills"] == 0 and w.account()["reversed"] == 1 and w.account()["realized_u6"] == 0

    def test_what_was_sold_or_taken_back_is_not_sellable_any_more(self, w):
        order_id = bid(w)
        trade = w.venue.fill(order_id, TWENTY)
        assert w.position()["sellable_up_u6"] == -1, "never assumed from what is held"
        w.run(w.recovery.compare())
        assert w.position()["sellable_up_u6"] == TWENTY
        w.say_trade(order_id, trade, TWENTY, r.TS_FAILED)
        assert w.position()["sellable_up_u6"] == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 8_000_000), st.booleans()), min_size=1, max_size=4), st.integers(0, 2**32))
def test_any_mix_of_streams_ends_in_the_same_account(tmp_path_factory, fills, seed):
    """Property: channel and REST tell the same fills, repeated and out of order, before and after the cancel; the account ends the same."""
    def life(order, repeats):
        w = World(tmp_path_factory.mktemp("fills")).ready()
        w.target((0, 0, 5000, 40))
        (order_id,) = w.venue.live()
        told = []
        for i, (_, size, failed) in enumerate(fills):
            trade = f"00000000-0000-4000-8000-{i:012d}"
            w.venue.fill(order_id, size, tell=False, trade_id=trade)
            w.venue.trades_[-1].status = "TRADE_STATUS_FAILED" if failed else "TRADE_STATUS_CONFIRMED"
            life_ = (r.TS_MATCHED, r.TS_MINED, r.TS_FAILED if failed else r.TS_CONFIRMED)
            told += [(trade, size, status) for status in life_] * repeats
        matched = w.venue.orders[order_id]["matched"]
        told += ["rest", "cancel"]
        order.shuffle(told)
        for what in told:
            if what == "rest":
                w.run(w.recovery.compare())
            elif what == "cancel":
                w.target()
                w.say_order(order_id, r.UT_CANCELLATION, r.ST_CANCELED, matched=matched)
            else:
                w.say_trade(order_id, what[0], what[1], what[2])
        for _ in range(2):
            w.tick(100)
            w.run(w.recovery.compare())
        p, a = w.position(), w.account()
        w.journal.close()
        return [int(p[n]) for n in p.dtype.names], int(a["fills"]), int(a["cash_u6"]), int(a["reversed"])

    class Straight:
        @staticmethod
        def shuffle(_):
            pass
    assert life(random.Random(seed), random.Random(seed).randint(1, 3)) == life(Straight, 1)


def activity(w, size_u6, token=0, side=r.BUY):
    w._say(kind=r.UK_ACTIVITY, market_id=MARKET, token=token, side=side, size_u6=size_u6, px_u6=500_000, connection=77)
    w.wake()


class TestWitness:
    def test_a_fill_that_only_the_activity_stream_shows_has_the_trades_read(self, w):
        order_id = bid(w)
        w.venue.fill(order_id, TWENTY, tell=False)
        activity(w, TWENTY)
        assert w.m.user_ok and w.position()["qty_up_u6"] == 0, "evidence is not booked, and says nothing about the user channel"
        w.tick(2100)
        w.m.heed_witness(w.now)
        assert "unseen_fill" in w.report.errors and w.report.events["rereads"] == 1 and w.m.reread
        assert w.recovery.due(1e9)
        w.run(w.recovery.compare())
        assert w.position()["qty_up_u6"] == TWENTY
        w.tick(5000)
        w.m.heed_witness(w.now)
        assert w.report.events["rereads"] == 1

    @pytest.mark.parametrize("first", ["trade", "activity"])
    def test_a_fill_that_both_show_raises_no_question(self, w, first):
        order_id = bid(w)
        if first == "activity":
            activity(w, TWENTY)
        w.venue.fill(order_id, TWENTY)
        if first == "trade":
            activity(w, TWENTY)
        w.tick(3000)
        w.m.heed_witness(w.now)
        assert w.report.events.get("rereads", 0) == 0

    def test_amounts_meet_piece_by_piece(self):
        s = Witness()
        s.booked(MARKET, 0, r.BUY, 7_000_000, 0)
        s.shown(MARKET, 0, r.BUY, 10_000_000, 1)
        s.shown(MARKET, 1, r.BUY, 4_000_000, 1)
        assert s.open == 2 and s.unmet(WAIT_NS) == 0
        s.booked(MARKET, 0, r.BUY, 3_000_000, 2)
        assert s.open == 1 and s.unmet(WAIT_NS + 2) == 4_000_000 and s.unmet(WAIT_NS + 3) == 0
        assert s.unmet(KEEP_NS + 10) == 0 and s.open == 0 and not s._sides


class TestWhereTheResultComesFrom:
    def test_a_maker_fill_is_split_and_marked_after_five_seconds(self, w):
        w.target(UP_BID, mid=0.52)
        (order_id,) = w.venue.live()
        trade = w.venue.fill(order_id, TWENTY, tell=False)
        w.say_trade(order_id, trade, TWENTY)
        a = w.account()
        assert (a["spread_u6"], a["adverse_u6"], a["fees_u6"]) == (400_000, 0, 0)
        assert a["rebate_u6"] == 70_000, "a fifth of 20 shares * 0.07 / 4"
        w.now += 5_000_000_000
        w.target(mid=0.49)
        w.wake()
        a = w.account()
        assert (a["spread_u6"], a["adverse_u6"]) == (400_000, -600_000)

    def test_a_fill_that_fails_leaves_nothing_behind(self, w):
        w.target(UP_BID, mid=0.52)
        (order_id,) = w.venue.live()
        trade = w.venue.fill(order_id, TWENTY, tell=False)
        w.say_trade(order_id, trade, TWENTY)
        w.say_trade(order_id, trade, TWENTY, status=r.TS_FAILED)
        a = w.account()
        assert (a["spread_u6"], a["adverse_u6"], a["rebate_u6"]) == (0, 0, 0)

    def test_a_mid_that_nobody_renews_is_none(self, w):
        w.target(UP_BID, mid=0.52)
        assert w.m.mid_u6(MARKET) == 520_000 and w.m.mid_u6(MARKET + 1) is None
        w.now += 1_000_000_000
        assert w.m.mid_u6(MARKET) is None
