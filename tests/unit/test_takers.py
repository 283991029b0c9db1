"""Quotes that sell and quotes that take: what is sent, how often, and what its fate does to books and limits. Against the venue double."""

import json
import uuid

import numpy as np
import pytest
from order_world import KEY, MARKET, MS, SLOT, START_S, TOKENS, VenueDouble, World

from mmbot.execution.order import CANCELING, DONE, KEYS, LIVE, MAKER_KEYS, PENDING, Order, key_of
from mmbot.execution.order_journal import OrderJournal
from mmbot.execution.reconcile import Limits, diff
from mmbot.execution.rest import MakerLeg, OpenOrder, Trade
from mmbot.inventory.exposure import of_orders
from mmbot.quoting.fees import taker_fee_u6
from mmbot.venues.numbers import words_of_hex, words_of_trade
from shm_layout import records as r
from shm_layout.records import BUY, DOWN, QK_FAK, QK_FOK, QK_POST_ONLY, SELL, UP

ONE = 1_000_000
TEN, TWENTY = 10 * ONE, 20 * ONE
FAK_TEXT = "no orders found to match with FAK order. FAK orders are partially filled or killed if no match is found."
_ids = iter(range(1, 1 << 40))


class TakingVenue(VenueDouble):
    """A double that knows sales and takers. ``fates``: of the next takers, ("matched", shares, px_e4), ("delayed",) or ("refused", text)."""

    def __init__(self):
        super().__init__(None)
        self.fates, self.types = [], []

    def _take(self, body):
        whole = json.loads(body)
        o = whole["order"]
        side = ("BUY", "SELL").index(o["side"])
        maker, taker = int(o["makerAmount"]), int(o["takerAmount"])
        digest, _ = self.signer.template(int(o["tokenId"]), side, 1).sign(maker, taker, int(o["timestamp"]), o["salt"])
        cash, shares = (maker, taker) if side == BUY else (taker, maker)
        self.types.append((whole["orderType"], whole["postOnly"], maker, taker))
        return "0x" + digest.hex(), dict(token=TOKENS.index(int(o["tokenId"])), side=side, size=shares, matched=0, status="LIVE", px=cash * 10_000 // shares,
                                         takes=whole["orderType"] in ("FAK", "FOK"))

    def _accept(self, order_id, o):
        if not o.get("takes") or order_id in self.orders or self.reject:
            return super()._accept(order_id, o)
        fate = self.fates.pop(0)
        if fate[0] == "refused":
            return {"success": True, "errorMsg": fate[1], "orderID": "", "status": ""}
        self.orders[order_id] = o
        if fate[0] == "delayed":
            o["status"] = "DELAYED"
            self.world.say_order(order_id, r.UT_PLACEMENT, r.ST_DELAYED, wake=False)
            return {"success": True, "errorMsg": "", "orderID": order_id, "status": "delayed", "makingAmount": "", "takingAmount": ""}
        _, shares, px = fate
        self.took(order_id, shares, px, wake=False)
        cash = shares * px // 10_000
        making, taking = (cash, shares) if o["side"] == BUY else (shares, cash)
        return {"success": True, "errorMsg": "", "orderID": order_id, "status": "matched", "makingAmount": str(making / 1e6), "takingAmount": str(taking / 1e6)}

    def took(self, order_id, shares, px, wake=True, tell=True):
        """A taker of ours has matched so much at this price, and is over."""
        o, w = self.orders[order_id], self.world
        o["matched"], o["status"] = o["matched"] + shares, "MATCHED"
        self._moved(o, shares, px, taker_fee_u6(shares, px * 100, 70_000, 1))
        trade_id = str(uuid.uuid4())
        self.trades_.append(Trade(trade_id, order_id, "0x" + "00" * 32, str(TOKENS[o["token"]]), ("BUY", "SELL")[o["side"]], str(shares / 1e6), str(px / 10_000),
                                  "TRADE_STATUS_MATCHED", str(START_S), owner=KEY.api_key, trader_side="TAKER"))
        if tell:
            w._say(kind=r.UK_TRADE, market_id=MARKET, token=o["token"], side=o["side"], role=r.TAKER, status=r.TS_MATCHED, px_u6=px * 100, size_u6=shares,
                   order_id=words_of_hex(order_id), trade_id=words_of_trade(trade_id))
            w.say_order(order_id, r.UT_UPDATE, r.ST_MATCHED, wake=wake)

    def _moved(self, o, shares, px, fee):
        sign = 1 if o["side"] == BUY else -1
        self.cash_u6 -= sign * (shares * px // 10_000) + fee
        self.shares[o["token"]] += sign * shares

    def fill(self, order_id, size_u6, tell=True, trade_id=None, other_token=False):
        """Somebody takes an order of ours that rests; the double of before knows bids only."""
        o = self.orders[order_id]
        if o["side"] == BUY:
            return super().fill(order_id, size_u6, tell, trade_id, other_token)
        o["matched"] += size_u6
        o["status"] = "MATCHED" if o["matched"] >= o["size"] else o["status"]
        self._moved(o, size_u6, o["px"], 0)
        trade_id = trade_id or str(uuid.uuid4())
        leg = MakerLeg(order_id, KEY.api_key, KEY.funder, str(size_u6 / 1e6), str(o["px"] / 10_000), str(TOKENS[o["token"]]), "", "SELL")
        self.trades_.append(Trade(trade_id, "0x" + "51" * 32, "0x" + "00" * 32, str(TOKENS[o["token"]]), "BUY", str(size_u6 / 1e6), str(o["px"] / 10_000),
                                  "TRADE_STATUS_MATCHED", str(START_S), owner="someone", trader_side="MAKER", maker_orders=[leg]))
        if tell:
            self.world.say_trade(order_id, trade_id, size_u6)
            self.world.say_order(order_id, r.UT_UPDATE, r.ST_MATCHED if o["status"] == "MATCHED" else r.ST_LIVE)
        return trade_id

    def row(self, order_id):
        o = self.orders[order_id]
        return OpenOrder(order_id, o["status"], "0x" + "00" * 32, str(TOKENS[o["token"]]), ("BUY", "SELL")[o["side"]], str(o["px"] / 10_000),
                         str(o["size"] / 1e6), str(o["matched"] / 1e6))


class Taking(World):
    def desire(self, *quotes, ttl_ms=60_000, wake=True):
        """Publish desired quotes (token, level, side, kind, px_e4, size in shares or dollars)."""
        self.now += 10 * MS
        rec = np.zeros(1, r.TARGET)
        rec["market_id"], rec["slot"], rec["n_quotes"], rec["t_decide_ns"], rec["changed_ns"] = MARKET, SLOT, len(quotes), self.now, self.now
        rec["deadline_ns"] = self.now + ttl_ms * MS
        for i, (*head, size) in enumerate(quotes):
            rec["quote"][0][i] = (*head, round(size * ONE))
        self.links.targets.set(rec, SLOT)
        self.guard()
        if wake:
            self.wake()
            self.wake()         # what the user channel has said meanwhile

    def holds(self, up=0, down=0):
        """So many shares are ours, settled, and the venue's balance says so."""
        for token, shares in ((UP, up), (DOWN, down)):
            if shares:
                self.m.positions.apply(("start", token), token, MARKET, token, BUY, r.TS_CONFIRMED, 400_000, round(shares * ONE))
                self.m.positions.position(MARKET).sellable_u6[token] = round(shares * ONE)
        return self

    def posts(self):
        return [what for kind, what in self.venue.log if kind == "post"]


@pytest.fixture
def w(tmp_path):
    return Taking(tmp_path, venue=TakingVenue()).ready()


def pause(w, ms=20):
    """Time goes by, and the core says once more what it has decided long ago."""
    w.now += ms * MS
    w.guard()
    rec = w.links.targets.cells[SLOT].copy().view(r.TARGET)
    rec["deadline_ns"] += ms * MS
    w.links.targets.set(rec, SLOT)
    w.wake()


BUY_UP = (UP, 0, BUY, QK_FAK, 5200, 10)


def order(token=UP, level=0, px=5000, size=TWENTY, state=LIVE, side=BUY, kind=QK_POST_ONLY, budget=0):
    n = next(_ids)
    return Order(f"0x{n:064x}", (0, 0, 0, n), 1, token, level, side, px, size, state, 0, kind, budget)


def limits(shares=(0, 0), **kw):
    lim = Limits(**kw)
    lim.shares_u6, lim.fee_rate_e6 = shares, 70_000
    return lim


class TestPlaces:
    def test_every_quote_has_a_place_of_its_own(self):
        makers = {key_of(t, lv, s, QK_POST_ONLY) for t in (0, 1) for lv in range(4) for s in (BUY, SELL)}
        takers = {key_of(t, 0, s, QK_FAK) for t in (0, 1) for s in (BUY, SELL)}
        assert makers == set(range(MAKER_KEYS)) and takers == set(range(MAKER_KEYS, KEYS))
        assert key_of(1, 3, SELL, QK_FAK) == key_of(1, 0, SELL, QK_FOK)


class TestSells:
    def test_only_what_can_be_sold_is_offered(self):
        plan = diff([(UP, 0, SELL, 0, 5500, TWENTY)], [], limits((12_345_678, 0)), 0)
        assert plan.posts == [(UP, 0, SELL, 0, 5500, 12_340_000)] and plan.short

    def test_the_innermost_level_is_served_first_and_what_is_left_below_the_minimum_is_not_posted(self):
        plan = diff([(UP, 1, SELL, 0, 5600, TEN), (UP, 0, SELL, 0, 5500, TEN)], [], limits((14 * ONE, 0)), 0)
        assert plan.posts == [(UP, 0, SELL, 0, 5500, TEN)] and plan.deferred == 1

    def test_open_offers_of_every_state_take_from_the_shares(self):
        for state in (PENDING, CANCELING):
            plan = diff([(UP, 0, SELL, 0, 5500, TEN)], [order(side=SELL, level=1, px=5600, size=TEN, state=state)], limits((15 * ONE, 0)), 0)
            assert plan.posts == [(UP, 0, SELL, 0, 5500, 5 * ONE)]

    def test_an_offer_that_rests_is_satisfied_by_its_own_shares(self):
        o = order(side=SELL, px=5500, size=TEN)
        plan = diff([(UP, 0, SELL, 0, 5500, TEN)], [o], limits((TEN, 0)), 0)
        assert not plan.posts and not plan.cancels

    def test_a_cheaper_offer_waits_until_the_old_one_is_gone(self):
        o = order(side=SELL, px=5500, size=TEN)
        lim = limits((TEN, 0))
        plan = diff([(UP, 0, SELL, 0, 5400, TEN)], [o], lim, 0)
        assert plan.cancels == [o] and not plan.posts and plan.urgent
        lim.shares_u6 = (TWENTY, 0)
        plan = diff([(UP, 0, SELL, 0, 5400, TEN)], [o], lim, 0)
        assert plan.cancels == [o] and plan.posts == [(UP, 0, SELL, 0, 5400, TEN)]

    def test_an_offer_below_the_desired_price_goes_at_once(self):
        lim = limits((TEN, 0), cancels=0)
        lim.last_ns = [0] * KEYS
        o = order(side=SELL, px=5300, size=TEN)
        plan = diff([(UP, 0, SELL, 0, 5400, TEN)], [o], lim, 0)
        assert plan.cancels == [o] and plan.n_safe == 1 and not plan.posts, "the shares are its own until it is gone"

    def test_the_rest_of_a_partly_filled_offer_goes_on_resting(self):
        o = order(side=SELL, px=5500, size=TEN)
        o.matched_u6 = o.booked_u6 = 7 * ONE
        plan = diff([(UP, 0, SELL, 0, 5500, TEN)], [o], limits((3 * ONE, 0)), 0)
        assert not plan.cancels and not plan.posts

    def test_more_is_offered_than_there_is(self):
        o = order(side=SELL, px=5500, size=TEN)
        assert diff([(UP, 0, SELL, 0, 5500, TEN)], [o], limits((4 * ONE, 0)), 0).cancels == [o]

    @pytest.mark.parametrize(("ours", "quote"), [
        (order(UP, px=5000), (UP, 0, SELL, 0, 5000, TEN)), (order(UP, px=5000, side=SELL), (UP, 0, BUY, 0, 5000, TEN)),
        (order(UP, px=5000), (DOWN, 0, BUY, 0, 5000, TEN)), (order(UP, px=5000, side=SELL), (DOWN, 1, SELL, 0, 5000, TEN)),
        (order(DOWN, px=4800, side=SELL), (UP, 0, SELL, 0, 5200, TEN)), (order(UP, px=5000, state=CANCELING), (UP, 0, SELL, QK_FAK, 4900, TEN)),
        (order(UP, px=5100, side=SELL), (UP, 0, BUY, QK_FOK, 5200, TEN)), (order(DOWN, px=4900), (UP, 0, BUY, QK_FAK, 5200, TEN)),
    ])
    def test_no_order_of_ours_can_meet_another(self, ours, quote):
        same = (ours.token, ours.level, ours.side, 0, ours.px_e4, ours.size_u6)
        lim = limits((100 * ONE, 100 * ONE))
        plan = diff([same, quote], [ours], lim, 0)
        assert not plan.posts and plan.mint == 1
        apart = (*quote[:4], quote[4] + (-1000 if quote[2] == BUY else 1000), quote[5])
        assert diff([same, apart], [ours], lim, 0).posts == [apart]

    def test_posted_filled_and_realised(self, w):
        w.holds(up=20)
        w.desire((UP, 0, SELL, 0, 5500, 10))
        (order_id,) = w.venue.live()
        assert w.venue.types[-1] == ("GTC", True, TEN, 5_500_000)
        assert w.links.own.cells[SLOT].view(r.OWN)[0]["order"][0]["side"] == SELL
        w.say_trade(order_id, str(uuid.uuid4()), TEN)
        pause(w, 300)
        p = w.position()
        assert p["qty_up_u6"] == TEN and p["cost_up_u6"] == 4 * ONE and p["realized_u6"] == 1_500_000 and p["sellable_up_u6"] == TEN
        w.desire((UP, 0, SELL, 0, 5500, 20))
        assert w.keys()[UP, 0][0].size_u6 == TEN, "what is left, no more"

    def test_shares_of_an_unsettled_trade_wait_and_a_refusal_is_not_hammered(self, w):
        w.holds(up=20)
        text = f"not enough balance / allowance: the balance is not enough -> balance: {6 * ONE}, sum of matched orders: 0, order amount (inc. fees): {TWENTY}"
        w.venue.reject = [text] * 2
        w.desire((UP, 0, SELL, 0, 5500, 20))
        assert not w.venue.live() and any("the venue sees 6 shares, we 20: at most 6 shares to sell of Up" in t for t in w.report.texts)
        for _ in range(120):
            pause(w)
        assert [o["size"] for o in w.venue.live().values()] == [6 * ONE] and len(w.posts()) == 3, "all again after a second, then what the venue named"

    def test_without_shares_nothing_is_sold_and_a_settled_balance_is_asked_for(self, w):
        w.m.positions.apply("t", "o", MARKET, UP, BUY, r.TS_MATCHED, 400_000, TEN)
        w.venue.shares[UP] = TEN
        w.desire((UP, 0, SELL, 0, 5500, 10))
        w.run(w.recovery.read_sellable())
        assert not w.posts() and not w.venue.renewals, "not settled: there is nothing to ask for"
        w.m.positions.apply("t", "o", MARKET, UP, BUY, r.TS_MINED, 400_000, TEN)
        w.desire((UP, 0, SELL, 0, 5600, 10))
        w.run(w.recovery.read_sellable())
        w.flush()
        assert w.venue.renewals == 1 and len(w.venue.live()) == 1


class TestTakes:
    def test_matched_at_a_better_price(self, w):
        """Ten dollars at 0.52 or better are made out exactly; at 0.50 they bring 20 shares; the fee goes on top."""
        w.venue.fates = [("matched", TWENTY, 5000)]
        cash = w.m.cash_u6
        w.desire(BUY_UP)
        assert w.venue.types == [("FAK", False, TEN, 19_230_700)]
        p = w.position()
        fee = 350_000
        assert (p["qty_up_u6"], p["cost_up_u6"], w.account()["fees_u6"]) == (TWENTY, TEN, fee) and w.m.cash_u6 == cash - TEN - fee
        assert not w.keys() and not w.m.unknown and p["open_up_u6"] == 0 and "overfill" not in w.report.errors

    def test_a_wish_is_granted_once(self, w):
        w.venue.fates = [("matched", TEN, 5200)] * 3
        w.desire(BUY_UP)
        for i in range(50):
            pause(w)
            w.desire(BUY_UP, (DOWN, 0, BUY, 0, 4000 + 100 * (i % 2), 10))       # other quotes come and go: the wish is still the same
        assert len([t for t in w.venue.types if t[0] == "FAK"]) == 1
        w.desire()
        w.desire(BUY_UP)
        assert len([t for t in w.venue.types if t[0] == "FAK"]) == 2, "wished anew after the outcome was known"

    def test_not_again_before_the_trades_of_the_last_one_are_known(self, w):
        w.venue.fates = [("delayed",), ("matched", TEN, 5200)]
        w.desire(BUY_UP)
        (order_id,) = w.venue.orders
        w.desire()
        w.desire(BUY_UP)
        assert len(w.posts()) == 1, "the first one is still held back"
        w.venue.took(order_id, TEN, 5200, tell=False)
        w.venue.auto, w.venue.empty_trades = True, True
        w.say_order(order_id, r.UT_UPDATE, r.ST_MATCHED)
        w.run(w.recovery.resolve_unknown())
        assert not w.m.unknown and w.position()["open_up_u6"] == TEN, "matched, and the trade has not come"
        w.desire()
        w.desire(BUY_UP)
        assert len(w.posts()) == 1
        w.venue.empty_trades = False
        w.m.reread = "test"
        w._say(kind=r.UK_TRADE, market_id=MARKET, token=UP, side=BUY, role=r.TAKER, status=r.TS_MATCHED, px_u6=520_000, size_u6=TEN,
               order_id=words_of_hex(order_id), trade_id=words_of_trade(str(uuid.uuid4())))
        w.wake()
        w.desire(BUY_UP)
        assert len(w.posts()) == 1, "wished before everything was known"
        w.desire()
        w.desire(BUY_UP)
        assert len(w.posts()) == 2

    def test_killed_is_no_failure_and_not_repeated(self, w):
        w.venue.fates = [("refused", FAK_TEXT)] * 2
        w.desire((UP, 0, BUY, QK_FOK, 5200, 10))
        for _ in range(200):
            pause(w)
        assert len(w.posts()) == 1 and not w.keys() and not w.m.errors._failed and w.report.errors == []
        w.desire()
        w.desire((UP, 0, BUY, QK_FOK, 5200, 10))
        assert len(w.posts()) == 2

    def test_held_back_it_counts_with_its_fee_and_is_not_cancelled(self, w):
        w.venue.fates = [("delayed",)]
        w.desire(BUY_UP)
        (o,) = w.m.by_market[MARKET].orders.values()
        worst = w.position()["worst_u6"]
        assert (o.state, o.budget_u6, o.fee_e4) == (LIVE, TEN, 364) and TEN + 700_000 - 10 <= worst <= TEN + 700_000 + 10
        assert not w.links.own.cells[SLOT].view(r.OWN)[0]["n"], "it does not rest"
        w.desire((UP, 0, SELL, 0, 5200, 10), (DOWN, 0, BUY, 0, 4800, 10))
        w.desire()
        pause(w, 300)
        assert not [1 for kind, _ in w.venue.log if kind == "cancel"] and not w.venue.live(), "neither cancelled nor met by an order of ours"
        w.venue.took(o.order_id, 12 * ONE, 5000)
        w.venue.took(o.order_id, 4 * ONE, 5100)
        assert o.state == LIVE or w.m.unknown
        w.run(w.recovery.resolve_unknown())
        assert o.state == DONE and w.position()["qty_up_u6"] == 16 * ONE and w.position()["cost_up_u6"] == 8_040_000 and w.position()["open_up_u6"] == 0

    def test_no_word_of_its_end_it_is_asked_about_and_past_its_deadline_cancelled(self, w):
        w.venue.fates, w.venue.tell = [("delayed",)], False
        w.desire(BUY_UP)
        (o,) = w.m.by_market[MARKET].orders.values()
        w.links.user.queue.clear()
        for _ in range(70):
            pause(w)
            w.run(w.recovery.resolve_unknown())
        assert o.state != DONE and w.position()["open_up_u6"] > 0, "the venue still says delayed"
        w.venue.orders[o.order_id]["status"] = "LIVE"       # it rests after all
        for _ in range(120):
            pause(w)
            w.run(w.recovery.resolve_unknown())
        assert w.venue.orders[o.order_id]["status"] == "CANCELED" and o.state == DONE and w.position()["open_up_u6"] == 0

    def test_answer_lost_found_by_its_digest(self, w):
        w.venue.auto, w.venue.fates = False, [("matched", 15 * ONE, 5200)]
        w.desire(BUY_UP)
        (later,) = w.venue.waiting
        w.venue.answer(later, lose=True)
        (o,) = w.m.by_market[MARKET].orders.values()
        w.desire()
        w.desire(BUY_UP)
        assert len(w.posts()) == 1 and o.unknown and w.position()["open_up_u6"] + w.position()["qty_up_u6"] > 15 * ONE
        w.venue.auto = True
        w.run(w.recovery.resolve_unknown())
        w.wake()
        assert o.state == DONE and w.position()["qty_up_u6"] == 15 * ONE and w.position()["open_up_u6"] == 0 and "reposts" not in w.report.events

    def test_lost_before_it_arrived_it_is_never_sent_again(self, w):
        w.venue.auto = False
        w.desire(BUY_UP)
        (later,) = w.venue.waiting
        w.venue.answer(later, effect=False)
        for _ in range(300):
            pause(w)
            w.run(w.recovery.resolve_unknown())
        assert len(w.posts()) == 1 and not w.keys() and not w.m.unknown

    def test_sold_by_taking(self, w):
        w.holds(down=12.345)
        w.venue.fates = [("matched", 12_340_000, 4700)]
        w.desire((DOWN, 0, SELL, QK_FAK, 4500, 50))
        assert w.venue.types == [("FAK", False, 12_340_000, 5_553_000)]
        p = w.position()
        assert p["qty_down_u6"] == 5_000 and w.account()["fees_u6"] == int(12.34 * 0.07 * 0.47 * 0.53 * 1e5) * 10
        assert p["realized_u6"] == 12_340_000 * 47 // 100 - (12_345_000 * 40 // 100 - p["cost_down_u6"]) - w.account()["fees_u6"]

    def test_all_or_nothing_is_never_cut(self, w):
        w.holds(up=8)
        w.desire((UP, 0, SELL, QK_FOK, 4500, 10))
        assert not w.posts()

    @pytest.mark.parametrize("quote", [(UP, 0, BUY, QK_FAK, 5200, 0.99), (UP, 0, BUY, 3, 5200, 10), (UP, 0, BUY, QK_FAK, 5250, 10), (UP, 0, SELL, QK_FAK, 5200, 0.009)])
    def test_what_the_venue_would_not_take_is_left_out(self, w, quote):
        w.holds(up=10)
        w.desire(quote)
        assert not w.posts() and "bad_target" in w.report.errors

    def test_never_where_only_post_only_orders_are_taken(self, w):
        w.m.venue._enter(r.VENUE_MODE["post_only"], 10.0, w.now, "test")
        w.desire(BUY_UP, (DOWN, 0, BUY, 0, 4000, 10))
        assert [t[0] for t in w.venue.types] == ["GTC"]

    def test_never_while_answers_get_lost(self, w):
        w.m.post_pause.lost(w.now, w.now)
        w.tick(3000)
        w.desire(BUY_UP)
        assert not w.posts()

    def test_a_wish_of_before_we_knew_everything_is_not_granted(self, w):
        w.desire(BUY_UP, wake=False)
        w.disconnect()
        w.connect()
        w.run(w.recovery.compare())
        w.now += 50 * MS
        w.guard()
        w.refresh(60_000)
        assert w.m.user_ok and not w.posts()
        w.venue.fates = [("matched", TEN, 5200)]
        w.desire()
        w.desire(BUY_UP)
        assert len(w.posts()) == 1

    def test_money_and_cap_hold_it_back(self, w):
        w.m.cash_u6 = 10_600_000
        w.desire(BUY_UP)
        assert not w.posts(), "its fee would not be covered"
        w.m.cash_u6, w.m.max_exposure_u6 = 100 * ONE, 10_600_000
        w.desire((UP, 0, BUY, QK_FAK, 5100, 10))
        assert not w.posts()
        w.m.max_exposure_u6, w.venue.fates = 10_800_000, [("matched", TEN, 5200)]
        w.desire((UP, 0, BUY, QK_FAK, 5200, 10))
        assert len(w.posts()) == 1

    def test_the_journal_explains_it_to_the_next_life(self, tmp_path, w):
        w.venue.fates = [("delayed",)]
        w.desire(BUY_UP)
        (order_id,) = w.venue.orders
        w.journal.close()
        w.venue.took(order_id, 19 * ONE, 5200, tell=False)
        again = Taking(tmp_path, journal=OrderJournal(w.journal.path, sync_thread=False), venue=w.venue)
        found = again.journal.found[order_id]
        assert (found.kind, found.side, found.px_e4, found.size_u6) == (QK_FAK, BUY, 5200, TEN)
        again.ready()
        assert again.position()["qty_up_u6"] == 19 * ONE and not again.keys() and again.m.by_id[order_id].budget_u6 == TEN


def test_exposure_of_open_takers():
    o = order(px=5200, size=19_230_700, kind=QK_FAK, budget=TEN)
    o.fee_e4 = limits().fee_e4(BUY, 5200)
    up, down = of_orders({"1": o}).if_u6
    assert up == 0 and TEN + 690_000 <= down <= TEN + 710_000
    o.booked_u6, o.spent_u6 = 12 * ONE, 6 * ONE
    assert of_orders({"1": o}).if_u6[1] == pytest.approx(4.28 * ONE, abs=20)
    sale = order(px=3000, size=TEN, side=SELL, kind=QK_FAK)
    sale.fee_e4 = limits().fee_e4(SELL, 3000)
    assert sale.fee_e4 == 175 and of_orders({"1": sale}).if_u6 == (7_175_000, 0)


def test_the_bound_of_the_fee_holds_at_every_better_price():
    lim = limits()
    for cap in range(100, 10_000, 300):
        for px in range(100, 10_000, 100):
            if px <= cap:
                shares = TEN * 10_000 // px
                assert taker_fee_u6(shares, px * 100, 70_000, 1) <= lim.fee_e4(BUY, cap) * (TEN * 10_000 // cap) // 10_000 + 10
            if px >= cap:
                assert taker_fee_u6(TEN, px * 100, 70_000, 1) <= lim.fee_e4(SELL, cap) * TEN // 10_000
