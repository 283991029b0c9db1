"""Clients that others wrote, unmodified, each through one full session: keys, market, orders, stream, fill, lists with cursors, cancels,
balance, heartbeats, and what the venue refuses. One and the same exchange must satisfy them all."""

import asyncio
import time

import pytest
from exchange_world import CID, DOWN_TOKEN, UP_TOKEN, World, spec
from polymarket import SecureClient
from polymarket.errors import OrderHeartbeatMismatchError, RateLimitError, RequestRejectedError
from polymarket.models.clob import PriceRequest
from polymarket.streams import MarketSpec, UserSpec
from py_clob_client_v2.client import ClobClient
from py_clob_client_v2.clob_types import (
    AssetType,
    BalanceAllowanceParams,
    BookParams,
    CreateOrderOptions,
    DropNotificationParams,
    MarketOrderArgsV2,
    OpenOrderParams,
    OrderArgsV2,
    OrderMarketCancelParams,
    OrderPayload,
    OrderScoringParams,
    OrdersScoringParams,
    OrderType,
    PostOrdersV2Args,
    PricesHistoryParams,
    TradeParams,
)
from py_clob_client_v2.exceptions import PolyApiException
from test_clients_exchange import POSITION_DOWN, POSITION_UP, environment, fill_book, unified

from mmbot.sim import accounts
from shm_layout.records import BUY, DOWN, SELL

pytestmark = pytest.mark.strangers
FRESH_KEY = "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a"
OPTIONS = CreateOrderOptions(tick_size="0.01", neg_risk=False)
CROSSES = "invalid post-only order: order crosses book"


@pytest.fixture
def world(monkeypatch):
    """A book 0.50 / 0.52, quick settlement, and lists of two rows a page, so that every list needs its cursors."""
    monkeypatch.setattr("mmbot.sim.paging.PAGE", 2)
    with World(settle_ms=20.0, rewards_per_day=25.0) as w:
        fill_book(w)
        yield w


def refused(call, *args, **kwargs) -> tuple[int, str]:
    """(status, text) of a call that the venue must refuse."""
    with pytest.raises((RequestRejectedError, PolyApiException)) as e:
        call(*args, **kwargs)
    error = e.value
    return (error.status, str(error)) if isinstance(error, RequestRejectedError) else (error.status_code, str(error.error_msg))


# ---- polymarket-client, synchronous ----

def test_polymarket_client_sync_session(world):
    limits = []
    client = SecureClient._create(private_key=FRESH_KEY, wallet="0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC", environment=environment(world),
                                  on_rate_limit_update=limits.append)
    with client:
        assert client.fetch_api_keys() == (client.credentials.key,) and client.get_closed_only_mode() is False
        _sync_reads(client)
        ids = _sync_orders(client)
        _sync_fill(client, world, ids)
        _sync_cancels(client, ids)
        _sync_account(client)
        assert {u.tier for u in limits} == {"Standard"} and min(u.remaining for u in limits) < 60 and not any(u.warning for u in limits)
        client.delete_api_key()
        assert refused(client.fetch_api_keys)[0] == 401


def _sync_reads(client):
    book, mirror = client.get_order_books(asset_ids=[UP_TOKEN, DOWN_TOKEN])
    assert (str(book.bids[-1].price), str(book.asks[-1].price), str(mirror.bids[-1].price)) == ("0.5", "0.52", "0.48")
    assert client.get_midpoint(asset_id=UP_TOKEN) == client.get_midpoints(asset_ids=[UP_TOKEN])[UP_TOKEN]
    prices = client.get_prices(requests=[PriceRequest(UP_TOKEN, "BUY"), PriceRequest(UP_TOKEN, "SELL")])[UP_TOKEN]
    assert (str(prices["BUY"]), str(prices["SELL"])) == ("0.5", "0.52") == tuple(
        str(client.get_price(asset_id=UP_TOKEN, side=s)) for s in ("BUY", "SELL"))
    assert str(client.get_spread(asset_id=UP_TOKEN)) == "0.02" == str(client.get_spreads(asset_ids=[UP_TOKEN])[UP_TOKEN])
    assert client.get_last_trade_price(asset_id=UP_TOKEN) is None
    reward, = client.list_current_rewards().iter_items()
    assert reward.condition_id == CID and reward.total_daily_rate == 25
    assert [m.question for m in client.list_market_rewards(condition_id=CID).iter_items()] == ["Bitcoin Up or Down"]
    assert [m.condition_id for m in client.list_reward_markets().iter_items()] == [CID]
    assert refused(client.get_order_book, asset_id="1234") == (404, refused(client.get_order_book, asset_id="1234")[1])
    assert "No orderbook exists" in refused(client.get_order_book, asset_id="1234")[1]


def _sync_orders(client) -> list[str]:
    one = client.place_limit_order(asset_id=UP_TOKEN, price="0.45", size="60", side="BUY", post_only=True)
    batch = client.post_orders([client.create_limit_order(asset_id=t, price=p, size=s, side="BUY", post_only=True)
                                for t, p, s in ((UP_TOKEN, "0.41", "5"), (UP_TOKEN, "0.6", "5"), (DOWN_TOKEN, "0.42", "6"))])
    assert one.status == "live" and [leg.ok for leg in batch] == [True, False, True] and batch[1].message == CROSSES
    assert refused(client.place_limit_order, asset_id=UP_TOKEN, price="0.6", size="5", side="BUY", post_only=True) == (400, CROSSES)
    signed = client.create_limit_order(asset_id=UP_TOKEN, price="0.44", size="5", side="BUY", post_only=True)
    again = client.post_order(signed)
    assert refused(client.post_order, signed) == (400, f"order {again.order_id} is invalid. Duplicated.")
    small = refused(client.place_limit_order, asset_id=UP_TOKEN, price="0.44", size="4.99", side="BUY")
    assert small[0] == 400 and small[1].endswith("Size (4.99) lower than the minimum: 5")
    gtd = client.place_limit_order(asset_id=UP_TOKEN, price="0.43", size="5", side="BUY", expiration=int(time.time()) + 40 * 365 * 86_400)
    listed = list(client.list_open_orders().iter_items())
    assert [o.id for o in listed] == [one.order_id, batch[0].order_id, batch[2].order_id, again.order_id, gtd.order_id], "three pages of two"
    assert [o.id for o in client.list_open_orders(asset_id=DOWN_TOKEN).iter_items()] == [batch[2].order_id]
    assert listed[-1].order_type == "GTD" and str(client.get_order(order_id=one.order_id).original_size) == "60"
    scoring = client.get_orders_scoring(order_ids=[one.order_id])
    assert scoring == {one.order_id: client.get_order_scoring(order_id=one.order_id)}
    return [o.id for o in listed]


def _sync_fill(client, world, ids):
    world.do(lambda x, now: (setattr(x, "_takes", 1), x.set_level(CID, BUY, 5000, 0, now), x.take(CID, SELL, 4500, 60_000_000, now)))
    taken = client.place_market_order(asset_id=UP_TOKEN, side="BUY", amount="5.2", max_price="0.52", order_type="FOK")
    assert taken.status == "matched" and str(taken.taking_amount) == "10"
    assert len(client.wait_for_order_fill_settlement(taken, timeout_s=5)) == 1
    assert client.place_market_order(asset_id=UP_TOKEN, side="BUY", amount="1.04", max_price="0.52", order_type="FAK").ok
    world.wait(lambda x: all(t.status == "CONFIRMED" for t in x.trades.values()))
    trades = list(client.list_account_trades().iter_items())
    assert [t.trader_side for t in trades] == ["TAKER", "TAKER", "MAKER"], "newest first, two pages"
    mine, = trades[2].maker_orders
    assert mine.order_id == ids[0] and str(mine.price) == "0.45" and mine.side == "BUY" and str(mine.matched_amount) == "60"
    assert (trades[2].side, str(trades[2].price), trades[2].outcome) == ("BUY", "0.55", "Down"), "the taker bought the other token"
    assert [t.id for t in client.list_account_trades(id=trades[2].id).iter_items()] == [trades[2].id]
    missed = refused(client.place_market_order, asset_id=UP_TOKEN, side="BUY", amount="500", max_price="0.52", order_type="FOK")
    assert missed == (400, "order couldn't be fully filled. FOK orders are fully filled or killed.")
    poor = refused(client.place_limit_order, asset_id=UP_TOKEN, price="0.4", size="5000", side="BUY")
    assert poor[0] == 400 and poor[1].startswith("not enough balance / allowance: the balance is not enough -> balance: ")


def _sync_cancels(client, ids):
    left = [o.id for o in client.list_open_orders().iter_items()]
    assert left == ids[1:], "the filled one is gone"
    assert client.cancel_order(order_id=left[0]).canceled == (left[0],)
    both = client.cancel_orders(order_ids=[left[0], left[2]])
    assert both.canceled == (left[2],) and dict(both.not_canceled) == {left[0]: "already canceled or matched"}
    assert client.cancel_market_orders(asset_id=DOWN_TOKEN).canceled == (left[1],)
    assert client.cancel_all().canceled == (left[3],) and list(client.list_open_orders().iter_items()) == []


def _sync_account(client):
    assert client.get_balance_allowance(asset_type="CONDITIONAL", asset_id=UP_TOKEN).balance == 72_000_000
    assert client.get_balance_allowance(asset_type="COLLATERAL").balance < 1_000_000_000 - 32_000_000
    notices = client.get_notifications()
    assert sorted({int(n.type) for n in notices}) == [1, 2]
    client.drop_notifications(ids=[n.id for n in notices])
    assert client.get_notifications() == ()
    day = time.strftime("%Y-%m-%d", time.gmtime(1_795_186_755))
    rebate, = client.get_current_rebates(date=day, maker_address=client.signer)
    assert rebate.condition_id == CID and str(rebate.rebated_fees_usdc) == "0.2079", "a fifth of 60 * 0.07 * 0.45 * 0.55"
    assert client.get_current_rebates(date="2026-01-01", maker_address=client.signer) == (), "null"
    first = client.send_order_heartbeat()
    second = client.send_order_heartbeat(heartbeat_id=first.heartbeat_id)
    with pytest.raises(OrderHeartbeatMismatchError) as e:
        client.send_order_heartbeat(heartbeat_id=first.heartbeat_id)
    assert e.value.heartbeat_id == second.heartbeat_id
    assert client.send_order_heartbeat(heartbeat_id=e.value.heartbeat_id).heartbeat_id not in (first.heartbeat_id, second.heartbeat_id)
    assert list(client.list_user_earnings_for_day(date=day).iter_items()) == [] and client.get_reward_percentages() == {}
    assert client.get_total_earnings_for_user_for_day(date=day) == ()
    builder = client.create_builder_api_key()
    assert [k.key for k in client.fetch_builder_api_keys()] == [builder.key]


# ---- polymarket-client, asynchronous, with its streams ----

class Drain:
    """Collects what a stream brings, until told to stop."""

    def __init__(self, handle):
        self.events, self.handle = [], handle
        self.task = asyncio.create_task(self._run())

    async def _run(self):
        async for event in self.handle:
            self.events.append(event)

    async def until(self, wanted):
        """Wait for an event."""
        for _ in range(500):
            if (found := next((e for e in self.events if wanted(e)), None)) is not None:
                return found
            await asyncio.sleep(0.01)
        raise AssertionError([getattr(e, "type", e) for e in self.events])


async def _async_session(world):
    async with await unified(world, known=False) as client:
        market = Drain(await client.subscribe(MarketSpec(token_ids=[UP_TOKEN, DOWN_TOKEN], custom_feature_enabled=True)))
        user = Drain(await client.subscribe(UserSpec()))
        await market.until(lambda e: e.type == "book")
        await asyncio.sleep(0.1)                       # the user channel says nothing when it is subscribed
        placed = await client.place_limit_order(asset_id=UP_TOKEN, price="0.51", size="10", side="BUY", post_only=True)
        legs = await client.post_orders([await client.create_limit_order(asset_id=UP_TOKEN, price=p, size="5", side="BUY", post_only=True)
                                         for p in ("0.4", "0.41", "0.7")])
        await user.until(lambda e: e.type == "order" and e.payload.id == legs[1].order_id and e.payload.order_event_type == "PLACEMENT")
        await market.until(lambda e: e.type == "price_change" and any(str(c.price) == "0.51" for c in e.payload.price_changes))
        world.do(lambda x, now: (setattr(x, "_takes", 0), x.take(CID, SELL, 5100, 4_000_000, now), x.take(CID, SELL, 5100, 6_000_000, now)))
        await user.until(lambda e: e.type == "trade" and e.payload.status == "CONFIRMED")
        await market.until(lambda e: e.type == "last_trade_price")
        world.do(lambda x, now: x.change_tick(CID, 10, now))
        await market.until(lambda e: e.type == "tick_size_change")
        fine = await client.place_limit_order(asset_id=UP_TOKEN, price="0.405", size="5", side="BUY", post_only=True)
        cancelled = await client.cancel_all()
        await user.until(lambda e: e.type == "order" and e.payload.id == fine.order_id and e.payload.order_event_type == "CANCELLATION")
        beat = await client.send_order_heartbeat()
        chained = await client.send_order_heartbeat(heartbeat_id=beat.heartbeat_id)
        trades = [t async for t in client.list_account_trades().iter_items()]
        world.do(lambda x, now: x.resolve(CID, DOWN, now))
        await market.until(lambda e: e.type == "market_resolved")
        world.do(lambda x, now: x.add_market(spec(condition_id="0x" + "6b" * 32, token_up="31", token_down="32", slug="btc-updown-15m-9"), now))
        await market.until(lambda e: e.type == "new_market")
        world.wait(lambda x: any(n["type"] == 4 for n in world.server.clob.accounts._notices[accounts.PAPER_API_KEY]))
        notices = await client.get_notifications()
        for drain in (market, user):
            await drain.handle.close()
            await drain.task
        return placed, legs, fine, cancelled, chained, trades, notices, market.events, user.events


def test_polymarket_client_async_session_with_streams(world):
    placed, legs, fine, cancelled, chained, trades, notices, market, user = asyncio.run(_async_session(world))
    assert [leg.ok for leg in legs] == [True, True, False] and fine.status == "live" and chained.heartbeat_id
    assert set(cancelled.canceled) == {legs[0].order_id, legs[1].order_id, fine.order_id}
    assert {e.type for e in market} == {"book", "price_change", "best_bid_ask", "last_trade_price", "tick_size_change", "market_resolved",
                                        "new_market"}
    changes = [e.payload for e in user if e.type == "order" and e.payload.id == placed.order_id]
    assert [(c.order_event_type, str(c.size_matched)) for c in changes] == [("PLACEMENT", "0"), ("UPDATE", "4"), ("UPDATE", "10")]
    assert sorted(e.payload.status for e in user if e.type == "trade") == ["CONFIRMED"] * 2 + ["MATCHED"] * 2 + ["MINED"] * 2
    assert [t.maker_orders[0].order_id for t in trades] == [placed.order_id] * 2 and {t.status for t in trades} == {"CONFIRMED"}
    assert [int(n.type) for n in notices][0] == 4 and notices[0].payload.tokens[DOWN].winner


def test_polymarket_client_in_a_market_of_the_new_protocol(monkeypatch):
    cid = "0x" + "7c" * 32
    with World(spec(condition_id=cid, token_up=POSITION_UP, token_down=POSITION_DOWN, version="v2"), settle_ms=20.0) as world:
        fill_book(world, cid)

        async def life():
            async with await unified(world) as client:
                placed = await client.place_limit_order(asset_id=POSITION_UP, price="0.45", size="7", side="BUY", post_only=True)
                taken = await client.place_market_order(asset_id=POSITION_UP, side="BUY", amount="5.2", max_price="0.52", order_type="FOK")
                await asyncio.sleep(0.3)
                return placed, taken, await client.get_balance_allowance(asset_type="CONDITIONAL-V2", asset_id=POSITION_UP)
        placed, taken, balance = asyncio.run(life())
        assert placed.status == "live" and taken.status == "matched" and balance.balance == 10_000_000
        assert world.l2("GET", f"/balance-allowance?asset_type=CONDITIONAL&token_id={POSITION_UP}")[0] == 400, "that token is of the other kind"


def test_polymarket_client_sees_the_venues_limits(world):
    """A burst is refused with 429 and the seconds to wait; the client says so, and may go on after them."""
    async def life():
        async with await unified(world) as client:
            order = await client.create_limit_order(asset_id=UP_TOKEN, price="0.45", size="7", side="BUY", post_only=True)
            world.do(lambda x, now: world.server.clob.limits.charge(accounts.PAPER_ADDRESS, 0, 100))
            with pytest.raises(RateLimitError):
                await client.post_order(order)
            world.do(lambda x, now: world.server.clob.limits.promote(accounts.PAPER_ADDRESS, "Gold"))
            return await client.post_order(order)
    assert asyncio.run(life()).status == "live"


# ---- py-clob-client-v2 ----

def test_clob_client_v2_session(world):
    bare = ClobClient(f"http://127.0.0.1:{world.base}", 137, key=FRESH_KEY)
    client = ClobClient(bare.host, 137, key=FRESH_KEY, creds=bare.create_or_derive_api_key())
    assert client.derive_api_key() == client.creds and client.get_closed_only_mode() == {"closed_only": False}
    key = client.create_readonly_api_key()["apiKey"]
    assert client.get_readonly_api_keys() == [key] and client.delete_readonly_api_key(key) and client.get_readonly_api_keys() == []
    _v2_reads(client)
    ids = _v2_orders(client)
    _v2_fill(client, world, ids)
    _v2_cancels(client, ids)
    _v2_account(client)
    assert client.delete_api_key() == "OK" and refused(client.get_open_orders) == (401, "{'error': 'Unauthorized/Invalid api key'}")


def _v2_reads(client):
    assert client.get_ok() == "OK" and client.get_version() == 2 and abs(client.get_server_time() - 1_795_186_755) < 60
    params = [BookParams(token_id=UP_TOKEN, side="BUY"), BookParams(token_id=DOWN_TOKEN, side="SELL")]
    assert len(client.get_order_books(params)) == 2 and client.get_midpoint(UP_TOKEN) == {"mid": "0.51"}
    assert client.get_midpoints(params) == {UP_TOKEN: "0.51", DOWN_TOKEN: "0.49"}
    assert client.get_prices(params) == {UP_TOKEN: {"BUY": "0.5"}, DOWN_TOKEN: {"SELL": "0.5"}}
    assert client.get_price(UP_TOKEN, "SELL") == {"price": "0.52"} and client.get_spreads(params) == {UP_TOKEN: "0.02", DOWN_TOKEN: "0.02"}
    assert client.get_last_trades_prices(params)[0] == {"token_id": UP_TOKEN, "price": "0", "side": ""}
    assert client.get_tick_size(UP_TOKEN) == "0.01" and client.get_neg_risk(UP_TOKEN) is False
    info = client.get_clob_market_info(CID)
    assert (info["mos"], info["mts"], info["v"], info["itode"], info["fd"]) == (5.0, 0.01, "v1", True, {"r": 0.07, "e": 1, "to": True})
    assert client.get_market(CID)["minimum_order_size"] == 5 and client.get_markets()["data"][0]["condition_id"] == CID
    assert set(client.get_simplified_markets()["data"][0]) == {"condition_id", "rewards", "tokens", "active", "closed", "archived",
                                                               "accepting_orders"}
    history = client.get_prices_history(PricesHistoryParams(market=UP_TOKEN, interval="1h"))["history"]
    assert history[-1]["p"] == 0.51 and history[-1]["t"] > 1_795_000_000


def _v2_orders(client) -> list[str]:
    def limit(price, size, token=UP_TOKEN):
        return client.create_order(OrderArgsV2(token_id=token, price=price, size=size, side="BUY"), OPTIONS)
    one = limit(0.45, 7)
    ids = [client.post_order(one, OrderType.GTC, post_only=True)["orderID"]]
    assert refused(client.post_order, one, OrderType.GTC, post_only=True) == (400, str({"error": f"order {ids[0]} is invalid. Duplicated."}))
    legs = client.post_orders([PostOrdersV2Args(order=limit(p, s, t), orderType=OrderType.GTC) for p, s, t in (
        (0.41, 5, UP_TOKEN), (0.60, 5, UP_TOKEN), (0.42, 6, DOWN_TOKEN), (0.51, 10, UP_TOKEN))], post_only=True)
    assert [leg["errorMsg"] for leg in legs] == ["", CROSSES, "", ""] and legs[1]["orderID"] == "" and legs[1]["success"] is True
    ids += [leg["orderID"] for leg in legs if leg["orderID"]]
    assert refused(client.post_order, limit(0.60, 5), OrderType.GTC, post_only=True) == (400, str({"error": CROSSES}))
    assert "lower than the minimum: 5" in refused(client.post_order, limit(0.45, 4), OrderType.GTC)[1]
    client._ClobClient__tick_sizes = {UP_TOKEN: "0.001"}
    fine, neg_risk = CreateOrderOptions(tick_size="0.001", neg_risk=False), CreateOrderOptions(tick_size="0.01", neg_risk=True)
    stale = client.create_order(OrderArgsV2(token_id=UP_TOKEN, price=0.455, size=7, side="BUY"), fine)
    assert "Price (0.455) breaks minimum tick size rule: 0.01" in refused(client.post_order, stale, OrderType.GTC)[1]
    foreign = client.create_order(OrderArgsV2(token_id=UP_TOKEN, price=0.44, size=7, side="BUY"), neg_risk)
    assert refused(client.post_order, foreign, OrderType.GTC) == (400, str({"error": "order_version_mismatch"}))
    assert [o["id"] for o in client.get_open_orders()] == ids
    assert [o["id"] for o in client.get_open_orders(OpenOrderParams(asset_id=DOWN_TOKEN))] == [ids[2]]
    assert client.is_order_scoring(OrderScoringParams(orderId=ids[0])) == {"scoring": False}, "under 50 shares"
    assert client.are_orders_scoring(OrdersScoringParams(orderIds=ids[:2])) == dict.fromkeys(ids[:2], False)
    return ids


def _v2_fill(client, world, ids):
    world.do(lambda x, now: (setattr(x, "_takes", 1), x.take(CID, SELL, 5100, 10_000_000, now)))
    for _ in range(2):
        args = MarketOrderArgsV2(token_id=UP_TOKEN, amount=5.2, side="BUY", price=0.52, order_type=OrderType.FOK)
        order = client.create_market_order(args, OPTIONS)
        assert client.post_order(order, OrderType.FOK)["transactionsHashes"]
    world.wait(lambda x: all(t.status == "CONFIRMED" for t in x.trades.values()))
    trades = client.get_trades()
    assert [t["trader_side"] for t in trades] == ["TAKER", "TAKER", "MAKER"] and trades[2]["maker_orders"][0]["order_id"] == ids[3]
    assert [t["id"] for t in client.get_trades(TradeParams(id=trades[2]["id"]))] == [trades[2]["id"]]
    sold = client.create_market_order(MarketOrderArgsV2(token_id=UP_TOKEN, amount=4, side="SELL", price=0.50, order_type=OrderType.FAK), OPTIONS)
    assert client.post_order(sold, OrderType.FAK)["takingAmount"] == "2"
    nothing = client.create_market_order(MarketOrderArgsV2(token_id=UP_TOKEN, amount=4, side="SELL", price=0.90, order_type=OrderType.FAK), OPTIONS)
    assert "no orders found to match with FAK order" in refused(client.post_order, nothing, OrderType.FAK)[1]
    penny = client.create_market_order(MarketOrderArgsV2(token_id=UP_TOKEN, amount=0.52, side="BUY", price=0.52, order_type=OrderType.FAK), OPTIONS)
    assert "invalid amount for a marketable BUY order ($0.52), min size: $1" in refused(client.post_order, penny, OrderType.FAK)[1]


def _v2_cancels(client, ids):
    assert client.cancel_order(OrderPayload(orderID=ids[0])) == {"canceled": [ids[0]], "not_canceled": {}}
    assert client.cancel_orders([ids[0], ids[1]]) == {"canceled": [ids[1]], "not_canceled": {ids[0]: "already canceled or matched"}}
    assert client.cancel_market_orders(OrderMarketCancelParams(asset_id=DOWN_TOKEN))["canceled"] == [ids[2]]
    assert client.cancel_all() == {"canceled": [], "not_canceled": {}} and client.get_open_orders() == []


def _v2_account(client):
    balance = client.get_balance_allowance(BalanceAllowanceParams(asset_type=AssetType.CONDITIONAL, token_id=UP_TOKEN))
    assert balance["balance"] == "26000000" and len(balance["allowances"]) == 3
    client.update_balance_allowance(BalanceAllowanceParams(asset_type=AssetType.COLLATERAL))
    notices = client.get_notifications()
    assert {n["type"] for n in notices} == {1, 2}
    client.drop_notifications(DropNotificationParams(ids=[str(n["id"]) for n in notices]))
    assert client.get_notifications() == []
    first = client.post_heartbeat("")["heartbeat_id"]
    assert client.post_heartbeat(first)["heartbeat_id"] not in ("", first)
    assert refused(client.post_heartbeat, "stale")[0] == 400
    assert client.get_reward_percentages() == {} and client.get_current_rewards()[0]["condition_id"] == CID
    assert client.get_earnings_for_user_for_day("2026-11-20") == [] and client.get_pre_migration_orders() == []


# ---- finding the market ----

def test_polymarket_client_finds_windows():
    specs = [spec(condition_id="0x" + f"{i:064x}", token_up=str(100 + 2 * i), token_down=str(101 + 2 * i), gamma_id=str(3_391_022 + i),
                  slug=f"btc-updown-15m-{1_795_186_800 + 900 * i}", start_s=1_795_186_800 + 900 * i, end_s=1_795_187_700 + 900 * i)
             for i in range(5)]
    with World(*specs) as world:
        world.do(lambda x, now: x.close_market(specs[0].condition_id, now))

        async def life():
            async with await unified(world) as client:
                events = [e.slug async for e in client.list_events(tag_slug="up-or-down", closed=False, order="endDate", ascending=False,
                                                                   page_size=2).iter_items()]
                markets = [m async for m in client.list_markets(closed=False, page_size=3).iter_items()]
                return events, markets, await client.get_market(slug=specs[2].slug), await client.get_market(id=specs[2].gamma_id), \
                    await client.get_event(slug=specs[3].slug)
        events, markets, by_slug, by_id, event = asyncio.run(life())
    assert events == [s.slug for s in reversed(specs[1:])], "three pages, newest first, without the finished one"
    assert [m.condition_id for m in markets] == [s.condition_id for s in specs[1:]]
    assert by_slug.condition_id == by_id.condition_id == specs[2].condition_id and event.markets[0].condition_id == specs[3].condition_id
