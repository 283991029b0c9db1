"""Faults inside the engine: settlement, cancels, money, ticks, books, seen by the account's owner and in the engine's truth."""

import time

import pytest
from exchange_world import CID, DOWN_TOKEN, UP_TOKEN, spec
from fault_world import FaultWorld, drain

from mmbot.clock import WallClock
from mmbot.config import Sim
from mmbot.sim import accounts
from mmbot.sim.engine import Exchange, Listener, NewOrder
from shm_layout.records import BUY, DOWN, SELL, UP

CASH = 1_000_000_000


@pytest.fixture
def world():
    with FaultWorld() as w:
        yield w


def statuses(events):
    """Statuses of the trade events, in order."""
    return [e["status"] for e in events if e["event_type"] == "trade"]


def settled(world, status):
    world.wait(lambda x: x.trades and all(t.status == status for t in x.trades.values()))


def test_ghost_fill_is_matched_and_rolled_back(world):
    with world.stream("/ws/user") as ws:
        world.fault("ghost_fill", n=1)
        world.post(price=0.51)
        world.take(SELL, 5100, 5)
        assert world.money() == (CASH - 2_550_000, {UP_TOKEN: 5_000_000})
        settled(world, "FAILED")
        assert world.money() == (CASH, {}) and statuses(drain(ws)) == ["MATCHED", "FAILED"]
        assert world.ask("GET", "/data/trades")[1]["data"][0]["status"] == "TRADE_STATUS_FAILED"
        world.post(price=0.51)
        world.take(SELL, 5100, 5)
        world.wait(lambda x: [t.status for t in x.trades.values()] == ["FAILED", "CONFIRMED"])
        assert world.money() == (CASH - 2_550_000, {UP_TOKEN: 5_000_000})


def test_ghost_fill_of_another_market_is_none(world):
    world.fault("ghost_fill", markets="5m")
    world.post(price=0.52, size=10, post_only=False)
    settled(world, "CONFIRMED")


@pytest.mark.parametrize(("then", "seen", "shares"), [
    ("MINED", ["MATCHED", "RETRYING", "RETRYING", "MINED", "CONFIRMED"], {UP_TOKEN: 5_000_000}),
    ("FAILED", ["MATCHED", "RETRYING", "RETRYING", "FAILED"], {})])
def test_retrying(world, then, seen, shares):
    with world.stream("/ws/user") as ws:
        world.fault("retrying", retry_s=0.1, times=2, then=then)
        world.post(price=0.51)
        world.take(SELL, 5100, 5)
        settled(world, "RETRYING")
        assert world.do(lambda x, now: x.account(accounts.PAPER_ADDRESS).sellable_u6(UP_TOKEN)) == 0, "not sellable while it is tried"
        settled(world, seen[-1])
        assert statuses(drain(ws)) == seen and world.money()[1] == shares
        assert not any(world.do(lambda x, now: list(x.account(accounts.PAPER_ADDRESS).unsettled.values())))


def test_fill_after_cancel(world):
    with world.stream("/ws/user") as ws:
        order_id = world.post(price=0.45, size=10)[1]["orderID"]
        world.fault("fill_after_cancel", late_s=1000, share=0.6)
        status, answer = world.ask("DELETE", "/order", {"orderID": order_id})
        assert answer == {"canceled": [order_id], "not_canceled": {}}
        assert world.money() == (CASH - 2_700_000, {UP_TOKEN: 6_000_000}), "the engine knows it at once"
        time.sleep(0.02)
        assert world.ask("GET", "/data/trades")[1]["data"] == [], "nobody else does"
        assert [(e["type"], e["size_matched"]) for e in drain(ws)] == [("PLACEMENT", "0"), ("CANCELLATION", "0")]
        for second in (1001, 1002, 1003):
            world.do(lambda x, now: x.advance(now + 1000 * second))
        events = drain(ws)
        assert statuses(events) == ["MATCHED", "MINED", "CONFIRMED"]
        update = next(e for e in events if e.get("type") == "UPDATE")
        assert (update["status"], update["size_matched"]) == ("CANCELED", "6")
        one = world.ask("GET", f"/data/order/{order_id}")[1]
        assert (one["status"], one["size_matched"]) == ("CANCELED", "6") and world.resting() == []
        book = world.ask("GET", f"/book?token_id={UP_TOKEN}")[1]
        assert "0.45" not in [v["price"] for v in book["bids"]]
        account = world.do(lambda x, now: x.account(accounts.PAPER_ADDRESS))
        assert not account.reserved_cash and not account.orders


def test_fill_after_cancel_of_all_of_it(world):
    world.post(price=0.45)
    fault = world.fault("fill_after_cancel", late_s=0.05)
    order_id, = world.ask("DELETE", "/cancel-all")[1]["canceled"]
    settled(world, "CONFIRMED")
    assert world.ask("GET", f"/data/order/{order_id}")[1]["status"] == "MATCHED" and world.money()[1] == {UP_TOKEN: 5_000_000}
    world.ask("DELETE", "/order", {"orderID": order_id})
    assert fault.hits == 1, "what is gone is not filled again"


def test_silent_deep_cancels(world):
    with world.stream() as ws:
        ws.recv(2)
        fault = world.fault("silent_deep_cancels", depth=1, levels=1, every_s=1000)
        world.wait(lambda x: fault.hits == 2)
        assert drain(ws) == [], "nobody is told"
        bids, asks = world.do(lambda x, now: (sorted(x.market(CID).bids), sorted(x.market(CID).asks)))
        assert len(bids) == 2 and len(asks) == 2 and bids[-1] == 5000 and asks[0] == 5200, "the best level stays"
        shown = world.ask("GET", f"/book?token_id={UP_TOKEN}")[1]
        assert len(shown["bids"]) == 2
        world.take(BUY, 5200, 1)
        book = next(f for f in drain(ws) if f["event_type"] == "book" and f["asset_id"] == UP_TOKEN)
        assert [v["price"] for v in book["bids"]] == [v["price"] for v in shown["bids"]], "the next book shows it"


def test_silent_cancels_leave_orders_of_participants(world):
    world.post(price=0.48)
    fault = world.fault("silent_deep_cancels", depth=0, levels=10, every_s=1000)
    world.wait(lambda x: fault.hits == 6)
    assert world.do(lambda x, now: {px: x.market(CID).level_u6(BUY, px) for px in x.market(CID).bids}) == {4800: 5_000_000}


def test_boundary_rejects(world):
    """The tape begins 45 s before the window does."""
    fault = world.fault("boundary_rejects", p=1.0, within_s=30)
    assert world.post(price=0.45)[0] == 200 and fault.hits == 0
    world.heal()
    world.fault("boundary_rejects", p=1.0, within_s=60)
    assert world.post(price=0.44) == (400, {"error": "could not run the execution"}) and world.resting() == [4500]
    legs = world.ask("POST", "/orders", [world.sign(0.43)])[1]
    assert legs[0]["errorMsg"] == "could not run the execution"


def test_heartbeat_mismatch_tells_the_expected_id(world):
    beat = lambda i: world.ask("POST", "/v1/heartbeats", {"heartbeat_id": i})
    first = beat("")[1]["heartbeat_id"]
    world.fault("heartbeat_mismatch")
    deadline = world.do(lambda x, now: x.heartbeats[accounts.PAPER_API_KEY][1])
    status, answer = beat(first)
    assert status == 400 and answer["error_msg"] == "Invalid Heartbeat ID" and answer["heartbeat_id"] not in ("", first)
    assert world.do(lambda x, now: x.heartbeats[accounts.PAPER_API_KEY][1]) == deadline, "it does not extend the deadline"
    assert beat(answer["heartbeat_id"])[0] == 200


def test_balance_lag_hides_new_shares_until_an_update(world):
    def balance(token=UP_TOKEN):
        kind = f"CONDITIONAL&token_id={token}" if token else "COLLATERAL"
        return int(world.ask("GET", f"/balance-allowance?asset_type={kind}&signature_type=0")[1]["balance"])
    world.fault("balance_lag", lag_s=30)
    world.post(price=0.52, size=10, post_only=False)
    settled(world, "CONFIRMED")
    assert world.money()[1] == {UP_TOKEN: 10_000_000} and balance() == 0 and balance("") == CASH
    status, answer = world.post(price=0.60, size=10, side="SELL")
    assert status == 400 and answer["error"].startswith("not enough balance / allowance: the balance is not enough -> balance: 0")
    world.raw("GET", f"/balance-allowance/update?asset_type=CONDITIONAL&token_id={UP_TOKEN}&signature_type=0")
    assert balance() == 10_000_000 and balance("") < CASH - 5_200_000 and world.post(price=0.60, size=10, side="SELL")[0] == 200


def test_balance_lag_ends_by_itself(world):
    world.fault("balance_lag", lag_s=0.2)
    world.post(price=0.52, size=10, post_only=False)
    settled(world, "CONFIRMED")
    time.sleep(0.25)
    assert world.post(price=0.60, size=10, side="SELL")[0] == 200


def test_stale_reservation_refuses_what_the_money_covers(world):
    world.fault("stale_reservation")
    world.post(price=0.51, size=1000)
    world.take(SELL, 5100, 1000)
    settled(world, "CONFIRMED")
    assert world.money()[0] == CASH - 510_000_000
    status, answer = world.post(price=0.45, size=100)
    assert status == 400 and "sum of matched orders: 510000000" in answer["error"], "490 dollars are there, 510 are thought to be taken"
    assert world.post(price=0.60, size=1000, side="SELL")[0] == 200
    world.heal()
    assert world.post(price=0.45, size=100)[0] == 200


def test_tick_change(world):
    with world.stream() as ws:
        ws.recv(2)
        world.fault("tick_change", markets="15m")
        frames = drain(ws)
        assert [(f["event_type"], f["old_tick_size"], f["new_tick_size"]) for f in frames] == [("tick_size_change", "0.01", "0.001")] * 2
        assert world.ask("GET", f"/tick-size?token_id={UP_TOKEN}")[1] == {"minimum_tick_size": 0.001}
        world.fault("tick_change", markets="15m", tick=0.01)
        assert drain(ws) == [], "ticks never get coarser"


def test_tick_change_of_a_window_that_does_not_run_yet(world):
    world.fault("tick_change")
    assert world.ask("GET", f"/tick-size?token_id={UP_TOKEN}")[1] == {"minimum_tick_size": 0.01}


@pytest.mark.parametrize(("token", "price", "side", "taken"), [(UP_TOKEN, 0.51, "BUY", (SELL, 5100)), (DOWN_TOKEN, 0.49, "BUY", (BUY, 5100))])
def test_cross_match_comes_on_the_other_token(world, token, price, side, taken):
    with world.stream("/ws/user") as ws:
        world.fault("cross_match")
        for _ in range(2):
            world.post(price=price, token=token, side=side)
            world.take(*taken, 5)
        trades = [e for e in drain(ws) if e["event_type"] == "trade" and e["status"] == "MATCHED"]
        assert len(trades) == 2
        for trade in trades:
            leg, = trade["maker_orders"]
            assert trade["asset_id"] != token == leg["asset_id"] and trade["side"] == leg["side"] == "BUY"
            assert float(trade["price"]) + float(leg["price"]) == 1


# ---- what the engine promises whatever happens ----

def conserved(x: Exchange) -> int:
    """Dollars of everybody, with complete pairs of shares at one dollar each."""
    total = 0
    everyone = [*x.accounts.values(), x.recorded]
    for market in x.markets.values():
        up, down = (sum(a.shares.get(market.tokens[o], 0) for a in everyone) for o in (UP, DOWN))
        assert up == down, "shares come in pairs"
        total += up
    return total + sum(a.cash_u6 for a in everyone)


def test_a_trade_that_fails_after_the_payout_leaves_no_money_behind():
    x = Exchange(WallClock(0, 0), 1, Sim(taker_delay_ms=0.0, settle_ms=100.0, auto_redeem=True), Listener())
    x.add_market(spec())
    x.set_level(CID, SELL, 5200, 50_000_000, 0)
    answers = iter(["RETRYING", "FAILED"])
    x.settle_hook, x.retry_ms = lambda trade: next(answers), 100_000.0
    x.account("0xA")
    before = conserved(x)
    x.submit(NewOrder(order_id="0x1", address="0xA", owner="k", token=UP_TOKEN, side=BUY, maker_u6=5_200_000, taker_u6=10_000_000), 0)
    x.advance(150)
    x.resolve(CID, UP, 200)
    x.advance(1000)
    assert x.account("0xA").cash_u6 > CASH
    x.advance(200_000)
    assert x.account("0xA").cash_u6 == CASH and not any(x.account("0xA").shares.values()) and conserved(x) == before


def test_money_is_conserved_while_everything_goes_wrong(world):
    before = world.do(lambda x, now: conserved(x))
    world.fault("ghost_fill", p=0.4)
    world.fault("retrying", p=0.5, retry_s=0.02)
    world.fault("fill_after_cancel", p=0.5, share=0.5, late_s=0.02)
    world.fault("cross_match")
    for i in range(12):
        order = world.sign(0.51, size=7)
        world.ask("POST", "/order", order)
        world.take(SELL, 5100, 3 + i % 5)
        world.ask("DELETE", "/cancel-all")
    world.wait(lambda x: x.trades and all(t.status in ("CONFIRMED", "FAILED") for t in x.trades.values()))
    fates = world.do(lambda x, now: {t.status for t in x.trades.values()})
    fees = world.do(lambda x, now: sum(t.fee_u6 for t in x.trades.values() if t.status != "FAILED"))
    assert fates == {"CONFIRMED", "FAILED"} and world.do(lambda x, now: conserved(x)) == before - fees
