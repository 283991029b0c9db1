"""The matching core: match kinds, priority, fees, money, delay, refusals, timers."""

import random

import pytest

from mmbot.clock import WallClock
from mmbot.config import Sim
from mmbot.sim import engine as e
from shm_layout.records import BUY, DOWN, SELL, UP

CID, UP_TOKEN, DOWN_TOKEN = "0x" + "c" * 64, "111", "222"
ANN, BOB = "0x" + "a" * 40, "0x" + "b" * 40


class Recorder(e.Listener):
    """Keeps everything the engine says."""

    def __init__(self):
        self.levels, self.books, self.prints, self.orders, self.trades = [], [], [], [], []

    def on_level(self, market, side, px_e4, now_ms):
        self.levels.append((side, px_e4, market.level_u6(side, px_e4)))

    def on_book(self, market, now_ms):
        self.books.append(now_ms)

    def on_last_trade(self, market, outcome, side, px_e4, size_u6, tx, now_ms):
        self.prints.append((outcome, side, px_e4, size_u6))

    def on_order(self, order, kind, status, now_ms):
        self.orders.append((order.id, kind, status, order.matched_u6))

    def on_trade(self, trade, now_ms):
        self.trades.append((trade.id, trade.status))


def spec(**changes) -> e.MarketSpec:
    return e.MarketSpec(**{"market_id": 900015, "start_s": 900, "end_s": 1800, "duration_s": 900, "condition_id": CID, "token_up": UP_TOKEN,
                           "token_down": DOWN_TOKEN, "slug": "btc-updown-15m-900"} | changes)


def exchange(delay_ms: float = 0.0, auto_redeem: bool = True, **changes) -> e.Exchange:
    x = e.Exchange(WallClock(0, 0), 1, Sim(taker_delay_ms=delay_ms, auto_redeem=auto_redeem), Recorder())
    x.add_market(spec(**changes))
    return x


def order(oid: str, token: str, side: int, px_e4: int, shares: float, address: str = ANN, **more) -> e.NewOrder:
    size = round(shares * 1e6)
    cash = size * px_e4 // 10_000
    maker, taker = (cash, size) if side == BUY else (size, cash)
    return e.NewOrder(order_id=oid, address=address, owner=f"key-{address[-1]}", token=token, side=side, maker_u6=maker, taker_u6=taker, **more)


def give(x: e.Exchange, address: str, token: str, shares: float) -> None:
    """Shares out of nothing, with the other side booked on the recorded market so that totals stay equal."""
    size = round(shares * 1e6)
    for account, sign in ((x.account(address), 1), (x.recorded, -1)):
        account.shares[token] = account.shares.get(token, 0) + sign * size


# ---- match kinds ----

def test_complementary_buyer_gets_the_makers_price():
    x = exchange()
    give(x, BOB, UP_TOKEN, 10)
    assert x.submit(order("0x1", UP_TOKEN, SELL, 5200, 10, BOB), 0).status == "live"
    r = x.submit(order("0x2", UP_TOKEN, BUY, 5500, 10), 0)
    assert (r.status, r.making_u6, r.taking_u6) == ("matched", 5_200_000, 10_000_000)
    fee = 174_720                                            # 10 * 0.07 * 0.52 * 0.48
    assert x.account(ANN).cash_u6 == 1_000_000_000 - 5_200_000 - fee
    assert x.account(BOB).cash_u6 == 1_000_000_000 + 5_200_000
    assert x.account(ANN).shares[UP_TOKEN] == 10_000_000 and not x.account(BOB).shares[UP_TOKEN]


def test_mint_two_buyers_share_one_dollar():
    x = exchange()
    x.submit(order("0x1", UP_TOKEN, BUY, 5200, 10, BOB), 0)
    r = x.submit(order("0x2", DOWN_TOKEN, BUY, 5000, 10), 0)
    assert (r.making_u6, r.taking_u6) == (4_800_000, 10_000_000)
    assert x.account(BOB).cash_u6 == 1_000_000_000 - 5_200_000
    assert x.account(BOB).shares[UP_TOKEN] == x.account(ANN).shares[DOWN_TOKEN] == 10_000_000
    trade = x.trades[r.trade_ids[0]]
    assert (trade.outcome, trade.side, trade.px_e4) == (DOWN, BUY, 4800)
    assert (trade.legs[0].outcome, trade.legs[0].side, trade.legs[0].px_e4) == (UP, BUY, 5200)


def test_merge_two_sellers_share_one_dollar():
    x = exchange()
    give(x, ANN, DOWN_TOKEN, 10)
    give(x, BOB, UP_TOKEN, 10)
    x.submit(order("0x1", UP_TOKEN, SELL, 5200, 10, BOB), 0)
    r = x.submit(order("0x2", DOWN_TOKEN, SELL, 4700, 10), 0)
    assert (r.making_u6, r.taking_u6) == (10_000_000, 4_800_000)
    assert x.account(BOB).cash_u6 == 1_000_000_000 + 5_200_000
    assert x.account(ANN).cash_u6 == 1_000_000_000 + 4_800_000 - e.fee_u6(spec(), 10_000_000, 4800)


def test_one_book_in_up_terms():
    x = exchange()
    x.submit(order("0x1", DOWN_TOKEN, BUY, 4700, 10), 0)
    assert x.market(CID).best(UP) == (0, 5300) and x.market(CID).best(DOWN) == (4700, 0)


# ---- priority ----

def test_price_then_time():
    x = exchange()
    x.set_level(CID, BUY, 5100, 20_000_000, 0)
    x.submit(order("0x1", UP_TOKEN, BUY, 5200, 5), 0)
    x.set_level(CID, BUY, 5200, 30_000_000, 0)
    x.submit(order("0x2", UP_TOKEN, BUY, 5200, 5), 0)
    x.take(CID, SELL, 5100, 20_000_000, 1)
    first, second = x.orders["0x1"], x.orders["0x2"]
    assert first.matched_u6 == 5_000_000 and second.matched_u6 == 0
    assert x.market(CID).recorded_u6(BUY, 5200) == 15_000_000 and x.market(CID).level_u6(BUY, 5100) == 20_000_000
    x.take(CID, SELL, 5100, 25_000_000, 2)
    assert second.matched_u6 == 5_000_000 and x.market(CID).recorded_u6(BUY, 5100) == 15_000_000


def test_recorded_cancel_leaves_own_orders_and_takes_the_youngest_shares():
    x = exchange()
    x.set_level(CID, BUY, 5000, 10_000_000, 0)
    x.submit(order("0x1", UP_TOKEN, BUY, 5000, 5), 0)
    x.set_level(CID, BUY, 5000, 40_000_000, 0)
    x.set_level(CID, BUY, 5000, 12_000_000, 0)
    queue = x.market(CID).bids[5000]
    assert [o.left_u6 for o in queue] == [10_000_000, 5_000_000, 2_000_000] and queue[1].id == "0x1"
    x.set_level(CID, BUY, 5000, 0, 0)
    assert x.market(CID).level_u6(BUY, 5000) == 5_000_000
    assert x.orders["0x1"].matched_u6 == 0


def test_recorded_trade_fills_the_head_of_the_queue_and_ends_at_the_recorded_size():
    x = exchange()
    x.submit(order("0x1", UP_TOKEN, BUY, 5000, 5), 0)
    x.set_level(CID, BUY, 5000, 40_000_000, 0)
    x.set_level(CID, BUY, 5000, 30_000_000, 0, reason="trade")
    assert x.orders["0x1"].status == "MATCHED"
    assert x.market(CID).recorded_u6(BUY, 5000) == 30_000_000 == x.market(CID).level_u6(BUY, 5000)


def test_recorded_increase_that_crosses_takes_first():
    x = exchange()
    x.submit(order("0x1", UP_TOKEN, BUY, 5000, 5), 0)
    x.set_level(CID, SELL, 5000, 20_000_000, 0)
    assert x.orders["0x1"].status == "MATCHED" and x.market(CID).best() == (0, 5000)
    assert x.market(CID).level_u6(SELL, 5000) == 15_000_000


# ---- fees ----

@pytest.mark.parametrize(("px_e4", "fee"), [
    (100, 0.07), (500, 0.33), (1000, 0.63), (1500, 0.89), (2000, 1.12), (2500, 1.31), (3000, 1.47), (3500, 1.59), (4000, 1.68), (4500, 1.73),
    (5000, 1.75), (9500, 0.33)])
def test_fee_table_per_100_shares(px_e4, fee):
    assert round(e.fee_u6(spec(), 100_000_000, px_e4) / 1e6, 2) == fee


def test_fee_is_cut_to_five_decimals():
    assert e.fee_u6(spec(), 10_000, 5000) == 170              # 0.000175
    assert e.fee_u6(spec(), 400, 5000) == 0                   # 0.000007


def test_makers_pay_nothing_and_books_balance():
    x = exchange()
    rng, n = random.Random(7), 0
    give(x, ANN, UP_TOKEN, 300)
    give(x, BOB, DOWN_TOKEN, 300)
    for now in range(400):
        n += 1
        kind = rng.choice(["GTC", "GTC", "FAK"])
        token, side = rng.choice([UP_TOKEN, DOWN_TOKEN]), rng.choice([BUY, SELL])
        px = rng.randrange(4700, 5301, 100)
        new = order(f"0x{n}", token, side, px, rng.randrange(5, 40), rng.choice([ANN, BOB]), order_type=kind)
        if kind == "FAK" and side == BUY:
            new.maker_u6 = new.maker_u6 // 10_000 * 10_000
            new.taker_u6 = new.maker_u6 * 10_000 // px // 100 * 100
        x.submit(new, now)
        x.set_level(CID, rng.choice([BUY, SELL]), rng.randrange(4600, 5400, 100), rng.randrange(0, 50_000_000), now,
                    rng.choice(["cancel", "trade"]))
        x.advance(now)
        bid, ask = x.market(CID).best()
        assert not bid or not ask or bid < ask, "a crossed book"
        for side_book in x.market(CID).sides:
            for level in side_book.levels.values():
                assert level.total == sum(o.left_u6 for o in level.queue) > 0
                assert level.recorded == sum(o.left_u6 for o in level.queue if o.account is x.recorded)
    accounts = [*x.accounts.values(), x.recorded]
    fees = sum(t.fee_u6 for t in x.trades.values())
    up, down = (sum(a.shares.get(t, 0) for a in accounts) for t in (UP_TOKEN, DOWN_TOKEN))
    assert up == down, "pairs are minted and merged together"
    assert sum(a.cash_u6 for a in accounts) + fees + up == 2_000_000_000, "a pair is a dollar"
    assert len(x.trades) > 50 and fees > 0
    for account in x.accounts.values():
        assert account.cash_u6 >= max([0, *account.reserved_cash.values()])
        assert all(v >= 0 for v in account.shares.values())
        assert sum(account.reserved_cash.values()) == sum(o.reserved_u6 for o in account.orders.values() if o.side == BUY)


# ---- refusals ----

def refused(x, new, now_ms=0):
    r = x.submit(new, now_ms)
    assert r.error and not r.status
    return r.error


def test_refusals_have_the_venues_texts():
    x = exchange()
    x.set_level(CID, SELL, 5200, 10_000_000, 0)
    assert refused(x, order("0x1", UP_TOKEN, BUY, 5200, 5, post_only=True)) == "invalid post-only order: order crosses book"
    assert refused(x, order("0x1", UP_TOKEN, BUY, 5150, 5)) == "order 0x1 is invalid. Price (0.515) breaks minimum tick size rule: 0.01"
    assert refused(x, order("0x1", UP_TOKEN, BUY, 5000, 4.99)) == "order 0x1 is invalid. Size (4.99) lower than the minimum: 5"
    assert refused(x, order("0x1", UP_TOKEN, BUY, 5200, 1.5, order_type="FAK")).startswith("invalid amount for a marketable BUY order ($0.78)")
    assert refused(x, order("0x1", UP_TOKEN, SELL, 5300, 5)).startswith("not enough balance / allowance: the balance is not enough -> balance: 0,")
    assert "does not exist" in refused(x, order("0x1", "333", BUY, 5000, 5))
    assert refused(x, order("0x1", UP_TOKEN, BUY, 5000, 5, order_type="GTD", expiration_s=60)) == "invalid expiration"
    assert refused(x, order("0x1", UP_TOKEN, BUY, 5000, 5, order_type="IOC")) == "Invalid order payload"
    assert x.submit(order("0x1", UP_TOKEN, BUY, 5000, 5), 0).status == "live"
    assert refused(x, order("0x1", UP_TOKEN, BUY, 5000, 5)) == "order 0x1 is invalid. Duplicated."


def test_reservations_are_per_market():
    x = exchange()
    other = spec(condition_id="0x" + "d" * 64, token_up="333", token_down="444", slug="other")
    x.add_market(other)
    assert x.submit(order("0x1", UP_TOKEN, BUY, 5000, 1900), 0).status == "live"
    assert "not enough balance" in refused(x, order("0x2", DOWN_TOKEN, BUY, 4000, 200))
    assert x.submit(order("0x3", "333", BUY, 5000, 1900), 0).status == "live"
    x.take(CID, SELL, 5000, 1_900_000_000, 1)                # 950 of 1000 dollars are gone
    assert x.orders["0x3"].status == "CANCELED_NOT_ENOUGH_BALANCE"


def test_unsettled_shares_cannot_be_sold_until_mined():
    x = exchange()
    x.submit(order("0x1", UP_TOKEN, BUY, 5000, 10), 0)
    x.take(CID, SELL, 5000, 10_000_000, 0)
    assert "not enough balance" in refused(x, order("0x2", UP_TOKEN, SELL, 6000, 10))
    x.advance(2000)
    assert x.submit(order("0x2", UP_TOKEN, SELL, 6000, 10), 2000).status == "live"
    assert [s for _, s in x.listener.trades] == ["MATCHED", "MINED"]
    x.advance(4000)
    assert [s for _, s in x.listener.trades] == ["MATCHED", "MINED", "CONFIRMED"]


def test_failed_settlement_rolls_back():
    x = exchange()
    x.settle_hook = lambda trade: "FAILED"
    x.submit(order("0x1", UP_TOKEN, BUY, 5000, 10), 0)
    x.take(CID, SELL, 5000, 10_000_000, 0)
    x.advance(2000)
    assert x.account(ANN).cash_u6 == 1_000_000_000 and not x.account(ANN).shares[UP_TOKEN]
    assert x.listener.trades[-1][1] == "FAILED"


# ---- order types ----

def test_fok_all_or_nothing():
    x = exchange()
    x.set_level(CID, SELL, 5000, 10_000_000, 0)
    assert refused(x, order("0x1", UP_TOKEN, BUY, 5000, 12, order_type="FOK")) == e.E_FOK
    assert x.listener.orders[-1][:3] == ("0x1", "CANCELLATION", f"CANCELED_{e.E_FOK}")
    assert x.submit(order("0x2", UP_TOKEN, BUY, 5000, 10, order_type="FOK"), 0).status == "matched"
    assert x.orders["0x2"].status == "MATCHED"


def test_fak_takes_what_is_there():
    x = exchange()
    assert refused(x, order("0x1", UP_TOKEN, BUY, 5000, 12, order_type="FAK")) == e.E_FAK
    x.set_level(CID, SELL, 5000, 10_000_000, 0)
    r = x.submit(order("0x2", UP_TOKEN, BUY, 5000, 12, order_type="FAK"), 0)
    assert (r.status, r.taking_u6) == ("matched", 10_000_000)
    assert x.orders["0x2"].status == "CANCELED" and x.market(CID).best() == (0, 0)


def test_dollar_sized_buy_gets_more_shares_at_a_better_price():
    x = exchange()
    x.set_level(CID, SELL, 4000, 100_000_000, 0)
    r = x.submit(e.NewOrder(order_id="0x1", address=ANN, owner="k", token=UP_TOKEN, side=BUY, maker_u6=5_000_000, taker_u6=10_000_000,
                            order_type="FAK"), 0)
    assert (r.making_u6, r.taking_u6) == (5_000_000, 12_500_000)
    assert x.orders["0x1"].original_u6 == 5_000_000 and x.orders["0x1"].status == "MATCHED"


def test_limit_buy_pays_less_at_a_better_price_and_rests_the_remainder():
    x = exchange()
    x.set_level(CID, SELL, 4000, 4_000_000, 0)
    r = x.submit(order("0x1", UP_TOKEN, BUY, 5000, 10), 0)
    assert (r.making_u6, r.taking_u6) == (1_600_000, 4_000_000)
    assert x.market(CID).best() == (5000, 0) and x.account(ANN).reserved_cash[CID] == 3_000_000


def test_gtd_dies_a_minute_before_its_time():
    x = exchange()
    x.submit(order("0x1", UP_TOKEN, BUY, 5000, 5, order_type="GTD", expiration_s=100), 0)
    x.advance(39_999)
    assert x.orders["0x1"].open
    x.advance(40_000)
    assert x.orders["0x1"].status == "CANCELED_EXPIRED_ORDER"


# ---- taker delay ----

def test_marketable_orders_are_held_and_cannot_be_cancelled():
    x = exchange(delay_ms=150)
    x.set_level(CID, SELL, 5000, 10_000_000, 0)
    assert x.submit(order("0x1", UP_TOKEN, BUY, 5000, 5), 0).status == "delayed"
    assert x.cancel("0x1", 100) == e.E_DELAYED
    x.advance(149)
    assert not x.listener.trades
    x.advance(150)
    assert x.orders["0x1"].status == "MATCHED" and x.listener.trades
    assert [o[1:3] for o in x.listener.orders] == [("PLACEMENT", "DELAYED"), ("UPDATE", "MATCHED")]


def test_a_held_order_is_judged_against_the_book_at_its_release():
    x = exchange(delay_ms=150)
    x.set_level(CID, SELL, 5000, 10_000_000, 0)
    for i, kind in enumerate(("GTC", "FAK", "FOK")):
        assert x.submit(order(f"0x{i}", UP_TOKEN, BUY, 5000, 5, order_type=kind), 0).status == "delayed"
    x.set_level(CID, SELL, 5000, 0, 50)
    x.advance(150)
    assert x.orders["0x0"].status == "LIVE" and x.market(CID).best() == (5000, 0)
    assert x.orders["0x1"].status == f"CANCELED_{e.E_FAK}" and x.orders["0x2"].status == f"CANCELED_{e.E_FOK}"
    assert ("0x0", "UPDATE", "UNMATCHED", 0) in x.listener.orders
    assert x.cancel("0x0", 200) == "" and not x.account(ANN).reserved_cash


def test_resting_orders_and_markets_without_the_flag_are_not_delayed():
    x = exchange(delay_ms=150)
    assert x.submit(order("0x1", UP_TOKEN, BUY, 5000, 5), 0).status == "live"
    y = exchange(delay_ms=150, taker_delayed=False)
    y.set_level(CID, SELL, 5000, 10_000_000, 0)
    assert y.submit(order("0x1", UP_TOKEN, BUY, 5000, 5), 0).status == "matched"


def test_a_held_order_dies_with_its_market():
    x = exchange(delay_ms=150)
    x.set_level(CID, SELL, 5000, 10_000_000, 0)
    x.submit(order("0x1", UP_TOKEN, BUY, 5000, 5), 0)
    x.close_market(CID, 100)
    x.advance(200)
    assert x.orders["0x1"].status == "CANCELED_MARKET_RESOLVED" and not x.listener.trades


# ---- heartbeats, closing, resolution ----

def test_heartbeat_chain_and_expiry():
    x = exchange()
    x.submit(order("0x1", UP_TOKEN, BUY, 5000, 5), 0)
    x.submit(order("0x2", UP_TOKEN, BUY, 5000, 5, BOB), 0)
    x.advance(60_000)
    assert x.orders["0x1"].open, "not armed: nothing expires"
    ok, first = x.heartbeat("key-a", "", 60_000)
    assert ok and first
    assert x.heartbeat("key-a", "wrong", 61_000) == (False, first)
    assert x.heartbeat("key-a", "", 61_000) == (False, first)
    ok, second = x.heartbeat("key-a", first, 65_000)
    assert ok and second != first
    for now in range(65_000, 75_000, 100):
        x.advance(now)
    assert x.orders["0x1"].open
    x.advance(80_000)
    assert x.orders["0x1"].status == "CANCELED" and x.orders["0x2"].open
    assert x.heartbeat("key-a", second, 81_000) == (False, ""), "after expiry a chain starts anew"


def test_close_and_resolution_pay_the_winner_once_trades_are_settled():
    x = exchange()
    x.submit(order("0x1", UP_TOKEN, BUY, 5000, 10), 0)
    x.submit(order("0x2", DOWN_TOKEN, BUY, 3000, 10), 0)
    x.take(CID, SELL, 5000, 10_000_000, 0)
    x.close_market(CID, 10)
    assert x.orders["0x2"].status == "CANCELED_MARKET_RESOLVED"
    assert "does not exist" in refused(x, order("0x3", UP_TOKEN, BUY, 5000, 10), 20)
    x.resolve(CID, UP, 30)
    x.advance(5_000)
    assert x.account(ANN).cash_u6 == 1_000_000_000 - 5_000_000 + 10_000_000
    assert x.account(ANN).redeemed == {UP_TOKEN: 10_000_000} and not x.account(ANN).shares.get(UP_TOKEN)


def test_tick_change_keeps_orders_and_allows_finer_prices():
    x = exchange()
    x.submit(order("0x1", UP_TOKEN, BUY, 5000, 10), 0)
    x.change_tick(CID, 10, 1)
    assert x.submit(order("0x2", UP_TOKEN, BUY, 5010, 10), 1).status == "live"
    assert x.orders["0x1"].open


# ---- what listeners see ----

def test_a_match_says_level_then_book_then_print_20_ms_later():
    x = exchange()
    x.set_level(CID, BUY, 5000, 10_000_000, 0)
    x.set_level(CID, BUY, 4900, 10_000_000, 0)
    x.listener.levels.clear()
    x.take(CID, SELL, 4900, 15_000_000, 5)
    assert x.listener.levels == [(BUY, 5000, 0), (BUY, 4900, 5_000_000)] and x.listener.books == [5]
    x.advance(24)
    assert not x.listener.prints and x.market(CID).last_px_e4 == 0
    x.advance(25)
    assert [p[2] for p in x.listener.prints] == [5000, 4900] and x.market(CID).last_px_e4 == 4900


def test_taker_delay_and_timers_are_real_time_at_any_speed():
    x = e.Exchange(WallClock(0, 0, 10.0), 1, Sim(taker_delay_ms=150), Recorder())
    x.add_market(spec())
    x.set_level(CID, SELL, 5000, 10_000_000, 0)
    x.submit(order("0x1", UP_TOKEN, BUY, 5000, 5), 0)
    x.advance(1499)
    assert x.orders["0x1"].status == "DELAYED"
    x.advance(1500)
    assert x.orders["0x1"].status == "MATCHED"


def test_the_level_cost_of_a_match_is_paid_to_the_contracts_rule():
    """floor(making * taker / maker): a seller of 3.333333 shares at 0.333 meets a buyer whose dollars are whole units."""
    x = exchange(tick_e4=10)
    x.submit(order("0x1", UP_TOKEN, BUY, 3330, 100), 0)
    x.take(CID, SELL, 3330, 3_333_333, 1)
    leg = next(iter(x.trades.values())).legs[0]
    assert leg.cash_u6 == 3_333_333 * 3330 // 10_000 and leg.size_u6 == leg.cash_u6 * 10_000 // 3330
    assert 0 <= 3_333_333 - leg.size_u6 <= 3
