"""The official clients as oracles: unmodified, pointed at the exchange, they derive keys, read, trade, stream and cancel."""

import asyncio
import dataclasses

import pytest
from exchange_world import CID, DOWN_TOKEN, START_S, UP_TOKEN, World, spec, v2_client
from polymarket import AsyncSecureClient
from polymarket._internal.environment import PRODUCTION_CONFIG, create_environment
from polymarket._internal.wallet import derive_beacon_deposit_wallet_address
from polymarket.models.clob.api_key import ApiKeyCreds
from polymarket.streams import MarketSpec, UserSpec
from py_clob_client_v2.client import ClobClient
from py_clob_client_v2.clob_types import (
    AssetType,
    BalanceAllowanceParams,
    CreateOrderOptions,
    MarketOrderArgsV2,
    OrderArgsV2,
    OrderPayload,
    OrderType,
)

from mmbot.sim import accounts
from mmbot.sim.auth import Keys
from shm_layout.records import BUY, SELL

FRESH_KEY = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
POSITION_UP, POSITION_DOWN = (str(1 << 248 | 0x1234 << 104 | i) for i in (0, 1))
OPTIONS = CreateOrderOptions(tick_size="0.01", neg_risk=False)


def fill_book(world, cid=CID):
    world.do(lambda x, now: (x.set_level(cid, BUY, 5000, 100_000_000, now), x.set_level(cid, SELL, 5200, 50_000_000, now)))


@pytest.fixture
def world():
    with World() as w:
        fill_book(w)
        yield w


# ---- py-clob-client-v2 ----

def test_v2_derives_the_same_key_twice(world):
    client = ClobClient(f"http://127.0.0.1:{world.base}", 137, key=FRESH_KEY)
    first = client.create_or_derive_api_key()
    assert first == client.derive_api_key() and first.api_key != accounts.PAPER_API_KEY
    client.set_api_creds(first)
    assert client.get_api_keys() == {"apiKeys": [first.api_key]} and client.get_closed_only_mode() == {"closed_only": False}
    balance = client.get_balance_allowance(BalanceAllowanceParams(asset_type=AssetType.COLLATERAL))
    assert balance["balance"] == "1000000000" and len(balance["allowances"]) == 3


def test_v2_life_of_an_order(world):
    client = v2_client(world)
    assert client.get_ok() == "OK" and client.get_version() == 2
    book = client.get_order_book(UP_TOKEN)
    parsed = book if isinstance(book, dict) else dataclasses.asdict(book)
    assert parsed["bids"][-1]["price"] == "0.5"
    order = client.create_order(OrderArgsV2(token_id=UP_TOKEN, price=0.45, size=7, side="BUY"), OPTIONS)
    answer = client.post_order(order, OrderType.GTC, post_only=True)
    assert answer["success"] and answer["status"] == "live"
    listed = client.get_open_orders()
    assert [o["id"] for o in listed] == [answer["orderID"]] and listed[0]["original_size"] == "7"
    assert client.get_order(answer["orderID"])["price"] == "0.45"
    assert client.cancel_order(OrderPayload(orderID=answer["orderID"])) == {"canceled": [answer["orderID"]], "not_canceled": {}}
    assert client.get_open_orders() == []
    assert client.post_heartbeat("")["heartbeat_id"]


def test_v2_market_order_and_trades(world):
    client = v2_client(world)
    order = client.create_market_order(MarketOrderArgsV2(token_id=UP_TOKEN, amount=5.2, side="BUY", price=0.52, order_type=OrderType.FOK), OPTIONS)
    answer = client.post_order(order, OrderType.FOK)
    assert answer["status"] == "matched" and answer["takingAmount"] == "10" and answer["transactionsHashes"]
    trade, = client.get_trades()
    assert trade["size"] == "10" and trade["id"] in answer["tradeIDs"]


def test_v2_book_hash_agrees(world):
    client = v2_client(world)
    raw = client.get_order_book(DOWN_TOKEN)
    from py_clob_client_v2.utilities import generate_orderbook_summary_hash, parse_raw_orderbook_summary
    summary = parse_raw_orderbook_summary(raw) if isinstance(raw, dict) else raw
    served = summary.hash
    assert generate_orderbook_summary_hash(summary) == served


@pytest.mark.parametrize(("kind", "funder"), [(1, "0x" + "33" * 20), (2, "0x" + "44" * 20), (3, "0x" + "55" * 20)])
def test_v2_signature_types(world, kind, funder):
    client = v2_client(world)
    client = ClobClient(client.host, 137, key=accounts.PAPER_KEY, creds=client.creds, signature_type=kind, funder=funder)
    order = client.create_order(OrderArgsV2(token_id=UP_TOKEN, price=0.45, size=7, side="BUY"), OPTIONS)
    answer = client.post_order(order, OrderType.GTC, post_only=True)
    assert answer["status"] == "live"
    assert client.get_open_orders()[0]["maker_address"].lower() == funder
    truth = world.http("GET", "/sim/books")[1]["accounts"]
    assert {a.lower() for a in truth} == {accounts.PAPER_ADDRESS.lower(), funder}


@pytest.mark.parametrize("kind", [0, 3])
def test_v2_protocol_v2_markets_use_domain_3(kind):
    cid = "0x" + "7c" * 32
    with World(spec(condition_id=cid, token_up=POSITION_UP, token_down=POSITION_DOWN, version="v2")) as world:
        fill_book(world, cid)
        client = v2_client(world)
        if kind:
            client = ClobClient(client.host, 137, key=accounts.PAPER_KEY, creds=client.creds, signature_type=kind, funder="0x" + "55" * 20)
        args = OrderArgsV2(token_id=None, position_id=POSITION_UP, price=0.45, size=7, side="BUY")
        assert client.post_order(client.create_order(args, OPTIONS), OrderType.GTC, post_only=True)["status"] == "live"


# ---- polymarket-client ----

def environment(world):
    http, ws = f"http://127.0.0.1:{world.base}", f"ws://127.0.0.1:{world.base + 2}/ws"
    return create_environment(name="paper", config=dataclasses.replace(
        PRODUCTION_CONFIG, clob_url=http, gamma_url=f"http://127.0.0.1:{world.base + 1}", clob_market_ws_url=ws + "/market",
        clob_user_ws_url=ws + "/user", rtds_ws_url=f"ws://127.0.0.1:{world.base + 3}", relayer_url=http, data_url=http, rpc_url=http))


async def unified(world, wallet=accounts.PAPER_ADDRESS, known=True):
    creds = ApiKeyCreds(apiKey=accounts.PAPER_API_KEY, secret=accounts.PAPER_API_SECRET, passphrase=accounts.PAPER_API_PASSPHRASE) if known else None
    return await AsyncSecureClient._create(private_key=accounts.PAPER_KEY, wallet=wallet, environment=environment(world), credentials=creds,
                                           validate_credentials=False)


def test_unified_derives_the_paper_key(world):
    async def life():
        async with await unified(world, known=False) as client:
            return await client.fetch_api_keys()
    assert asyncio.run(life()) == (accounts.PAPER_API_KEY,)
    assert Keys(137).create(accounts.PAPER_ADDRESS, 0).api_key == accounts.PAPER_API_KEY


@pytest.mark.parametrize("deposit_wallet", [False, True])
def test_unified_life_of_an_order(world, deposit_wallet):
    wallet = derive_beacon_deposit_wallet_address(accounts.PAPER_ADDRESS, PRODUCTION_CONFIG.wallet_derivation) if deposit_wallet else \
        accounts.PAPER_ADDRESS

    async def life():
        async with await unified(world, wallet) as client:
            book = await client.get_order_book(asset_id=UP_TOKEN)
            assert str(book.bids[-1].price) == "0.5"
            placed = await client.place_limit_order(asset_id=UP_TOKEN, price="0.45", size="7", side="BUY", post_only=True)
            listed = [o async for o in client.list_open_orders().iter_items()]
            cancelled = await client.cancel_order(order_id=placed.order_id)
            balance = await client.get_balance_allowance(asset_type="COLLATERAL")
            return placed, listed, cancelled, balance, [o async for o in client.list_open_orders().iter_items()]

    placed, listed, cancelled, balance, after = asyncio.run(life())
    assert placed.status == "live" and [o.id for o in listed] == [placed.order_id] and after == []
    assert str(listed[0].price) == "0.45" and placed.order_id in cancelled.canceled and balance.balance == 1_000_000_000


def test_unified_finds_the_market(world):
    async def life():
        async with await unified(world) as client:
            return await client.get_event(slug=f"btc-updown-15m-{START_S}")
    event = asyncio.run(life())
    assert event.slug == f"btc-updown-15m-{START_S}" and event.markets[0].condition_id == CID


def test_unified_streams_market_and_user(world):
    async def life():
        async with await unified(world) as client:
            market = await client.subscribe(MarketSpec(token_ids=[UP_TOKEN, DOWN_TOKEN], custom_feature_enabled=True))
            user = await client.subscribe(UserSpec())
            await asyncio.sleep(0.1)
            await client.place_limit_order(asset_id=UP_TOKEN, price="0.51", size="10", side="BUY", post_only=True)
            world.do(lambda x, now: x.take(CID, SELL, 5100, 10_000_000, now))
            seen = {"market": [], "user": []}

            async def drain(name, handle, count):
                async for event in handle:
                    seen[name].append(event)
                    if len(seen[name]) == count:
                        return

            await asyncio.wait_for(asyncio.gather(drain("market", market, 9), drain("user", user, 5)), 10)
            return seen

    seen = asyncio.run(life())
    assert [e.type for e in seen["market"]] == ["book", "book", "price_change", "price_change", "book", "best_bid_ask", "book", "best_bid_ask",
                                                "last_trade_price"]
    assert [(e.type, str(e.payload.status)) for e in seen["user"]][:3] == [("order", "LIVE"), ("trade", "MATCHED"), ("order", "MATCHED")]
    assert [str(e.payload.status) for e in seen["user"][3:]] == ["MINED", "CONFIRMED"]
