"""Streams as the venue really sends them: late and out of order, filtered, frozen, cut; and every word of the user channel."""

import json
import time
from collections import Counter

import pytest
from exchange_world import CID, DOWN_TOKEN, UP_TOKEN, World, receive, silent, spec
from polymarket.models.clob.user_events import parse_user_event
from test_channels_exchange import SUBSCRIBE, USER, Mirror, buy, rtds

from mmbot.clock import mono_ns
from mmbot.sim import accounts
from mmbot.sim.links import Shuffle
from shm_layout.records import BUY, SELL


def collect(ws, seconds: float) -> list[dict]:
    """Every event of some seconds, arrays opened."""
    events, until = [], time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        try:
            message = json.loads(ws.recv(left))
        except TimeoutError:
            break
        events += message if isinstance(message, list) else [message]
    return events


# ---- disorder ----

def test_shuffled_frames_come_out_of_order_and_none_is_lost():
    with World(shuffle_ms=100.0) as world, world.ws(2, "/ws/market") as ws, world.ws(2, "/ws/market") as other:
        world.do(lambda x, now: [x.set_level(CID, SELL, 5200, 900_000_000, now), x.set_level(CID, BUY, 5000, 100_000_000, now)])
        for socket in (ws, other):
            socket.send(json.dumps(SUBSCRIBE))
        time.sleep(0.2)
        for i in range(60):
            world.do(lambda x, now, i=i: [x.set_level(CID, BUY, 4000 + 100 * (i % 9), (1 + i) * 10_000_000, now),
                                          x.take(CID, BUY, 5200, 1_000_000, now)])
            time.sleep(0.01)
        events, elsewhere = collect(ws, 0.6), collect(other, 0.6)
    kinds = Counter(e["event_type"] for e in events)
    assert kinds == Counter(e["event_type"] for e in elsewhere) and kinds["price_change"] == 120 and kinds["book"] == 122
    stamps = [int(e["timestamp"]) for e in events if e["event_type"] == "price_change"]
    late = sum(b < max(stamps[:i + 1]) for i, b in enumerate(stamps))
    assert 5 <= late <= 60, "some changes are overtaken, not all"
    newest, books_late = 0, 0
    for e in events:
        if e["event_type"] == "book":
            books_late += int(e["timestamp"]) < newest
        elif e["event_type"] == "price_change":
            newest = max(newest, int(e["timestamp"]))
    assert books_late >= 10, "books come behind newer changes"
    assert [e["timestamp"] for e in events] != [e["timestamp"] for e in elsewhere], "each socket has its own disorder"


def test_sorted_by_stamp_the_shuffled_frames_still_prove_the_book():
    with World(shuffle_ms=100.0) as world, world.ws(2, "/ws/market") as ws:
        ws.send(json.dumps(SUBSCRIBE))
        first = [e for e in collect(ws, 0.3) if e["event_type"] == "book"]
        for i in range(30):
            world.do(lambda x, now, i=i: x.set_level(CID, BUY, 4000 + 100 * (i % 7), (1 + i) * 10_000_000, now))
            time.sleep(0.003)
        changes = sorted((e for e in collect(ws, 0.4)), key=lambda e: int(e["timestamp"]))
    mirror = Mirror(next(b for b in first if b["asset_id"] == UP_TOKEN))
    for change in changes:
        part = next(c for c in change["price_changes"] if c["asset_id"] == UP_TOKEN)
        mirror.apply(part)
        assert mirror.hash(change["timestamp"]) == part["hash"]
    assert len(changes) == 30


def test_a_shuffle_is_bounded_and_repeats_itself():
    book, change = b'{"market":"0x","bids":[],"asks":[]}', b'{"price_changes":[]}'
    for data, most in ((book, 0.035), (change, 0.1)):
        one, two = ([s.delay_s(data) for _ in range(4000)] for s in (Shuffle(100.0, 7), Shuffle(100.0, 7)))
        assert one == two and 0 <= min(one) and max(one) <= most
    shuffle = Shuffle(100.0, 11)
    late = [sum(shuffle.delay_s(data) > 0 for _ in range(4000)) / 4000 for data in (book, change)]
    assert 0.4 < late[0] < 0.5 and 0.18 < late[1] < 0.26, "the recorded shares: 39 % of books, 23 % of frames"
    shaped = Counter(part for _ in range(3000) for part in shuffle.shape(change))
    assert shaped[b"[]"] >= 1 and shaped[b"[" + change + b"]"] >= 5 and shaped[change] > 2900


def test_without_a_shuffle_frames_leave_at_once_and_in_order():
    with World() as world, world.ws(2, "/ws/market") as ws:
        ws.send(json.dumps(SUBSCRIBE))
        receive(ws)
        for i in range(200):
            world.do(lambda x, now, i=i: x.set_level(CID, BUY, 4000 + 100 * (i % 7), (1 + i) * 10_000_000, now))
        stamps = [int(e["timestamp"]) for e in receive(ws, 200)]
        assert stamps == sorted(stamps)


# ---- faults at the sockets ----

def start(world, name, **params):
    world.do(lambda x, now: world.server.hub.faults.start(name, mono_ns() / 1e6, **params))


def test_a_frozen_channel_answers_ping_and_says_nothing():
    with World() as world, world.ws(2, "/ws/market") as ws, world.ws(2, "/ws/user") as user:
        ws.send(json.dumps(SUBSCRIBE))
        user.send(json.dumps(USER))
        receive(ws)
        start(world, "freeze_market", for_s=0.5)
        world.level(BUY, 4000, 10_000_000)
        assert silent(ws)
        ws.send("PING")
        assert ws.recv(1) == "PONG", "it looks alive"
        world.do(lambda x, now: x.submit(buy(1, 4100, 10), now))
        assert receive(user)[0]["type"] == "PLACEMENT", "the other channel goes on"
        time.sleep(0.4)
        world.level(BUY, 4200, 10_000_000)
        assert receive(ws)[0]["price_changes"][0]["price"] == "0.42", "and it thaws"


def test_one_of_two_sockets_freezes():
    with World() as world, world.ws(2, "/ws/market") as first, world.ws(2, "/ws/market") as second:
        for ws in (first, second):
            ws.send(json.dumps(SUBSCRIBE))
            receive(ws)
        start(world, "freeze_market", for_s=5, links="one")
        world.level(BUY, 4000, 10_000_000)
        assert sorted([silent(first), silent(second)]) == [False, True]


def test_sockets_are_cut_without_a_close_or_left_without_a_byte():
    with World() as world, world.ws(2, "/ws/market") as ws, world.ws(2, "/ws/user") as user:
        ws.send(json.dumps(SUBSCRIBE))
        receive(ws)
        user.send(json.dumps(USER))
        assert silent(user, 0.05)
        start(world, "disconnect_without_close", for_s=1, channels="market", drop="silent")
        ws.send("PING")
        assert silent(ws), "not even PONG"
        start(world, "disconnect_without_close", for_s=1, channels="user", drop="abort")
        with pytest.raises(Exception) as e:
            user.recv(2)
        assert "close" in type(e.value).__name__.lower() and getattr(e.value, "rcvd", None) is None, "no close frame came"


# ---- relay ----

def test_relay_filters():
    """A symbol as JSON text narrows; a list of names is refused; an array is taken and then nothing comes; the last word of a topic holds."""
    with World() as world, world.ws(3, "/") as ws:
        def subscribe(topic, kind="update", **more):
            ws.send(json.dumps({"action": "subscribe", "subscriptions": [{"topic": topic, "type": kind, **more}]}))
        subscribe("crypto_prices", filters='{"symbol":"btcusdt"}')
        assert silent(ws, 0.05)
        world.tape.rtds_due = [rtds("crypto_prices", "ethusdt", 1000), rtds("crypto_prices", "btcusdt", 1000)]
        assert receive(ws)[0]["payload"]["symbol"] == "btcusdt" and silent(ws, 0.05)
        subscribe("crypto_prices", filters='{"symbol":"ethusdt"}')
        assert receive(ws)[0]["type"] == "subscribe", "a snapshot"
        world.tape.rtds_due = [rtds("crypto_prices", "btcusdt", 2000), rtds("crypto_prices", "ethusdt", 2000)]
        assert receive(ws)[0]["payload"]["symbol"] == "ethusdt" and silent(ws, 0.05), "two filters on one topic: one is alive"
        for filters in (["btcusdt"], '["btcusdt"]'):
            subscribe("crypto_prices", filters=filters)
            world.tape.rtds_due = [rtds("crypto_prices", "btcusdt", 3000)]
            assert silent(ws, 0.1)
        for filters in ("btcusdt", '"btcusdt"', "{}"):
            subscribe("crypto_prices", filters=filters)
            assert receive(ws)[0]["message"] == "invalid Subscription.Filters: value does not match regex"
        subscribe("crypto_prices_twap_sixty", filters='{"symbol":"btc/usd"}')
        assert silent(ws, 0.05), "averages have no snapshot"
        ws.send(json.dumps({"action": "unsubscribe", "subscriptions": [{"topic": "crypto_prices_twap_sixty", "type": "update"}]}))
        world.tape.rtds_due = [rtds("crypto_prices_twap_sixty", "btc/usd", 4000, window_s=60)]
        assert silent(ws, 0.1)


def test_public_activity_by_event():
    later = spec(condition_id="0x" + "6b" * 32, token_up="31", token_down="32", slug="btc-updown-15m-later")
    with World(later, spec(), settle_ms=5.0) as world, world.ws(3, "/") as ws:
        def subscribe(kind):
            ws.send(json.dumps({"action": "subscribe", "subscriptions": [
                {"topic": "activity", "type": kind, "filters": '{"event_slug":"btc-updown-15m-later"}'}]}))
            assert silent(ws, 0.05)
        subscribe("orders_matched")
        world.do(lambda x, now: (x.set_level(later.condition_id, SELL, 5200, 50_000_000, now), x.submit(buy(9, 5200, 5, token="31"), now)))
        world.wait(lambda x: any(t.status == "CONFIRMED" for t in x.trades.values()))
        assert silent(ws, 0.05), "another type of the topic"
        subscribe("trades")
        for cid, token, n in ((CID, UP_TOKEN, 1), (later.condition_id, "31", 2)):
            world.do(lambda x, now, cid=cid, token=token, n=n: (x.set_level(cid, SELL, 5200, 50_000_000, now),
                                                                 x.submit(buy(n, 5200, 10, token=token), now)))
        trade, = receive(ws)
        assert (trade["topic"], trade["type"], trade["payload"]["slug"], trade["payload"]["size"]) == ("activity", "trades", later.slug, 10)
        assert trade["payload"]["proxyWallet"] == accounts.PAPER_ADDRESS


# ---- user channel ----

def user_events(ws, count):
    events = receive(ws, count)
    for event in events:
        parse_user_event(event)
    return [(e.get("type"), e["status"], e.get("size_matched")) for e in events]


def test_every_status_of_an_order():
    with World(taker_delay_ms=60.0, cash_u6=20_000_000) as world, world.ws(2, "/ws/user") as ws:
        ws.send(json.dumps(USER))
        assert silent(ws, 0.05)
        world.level(SELL, 5200, 50_000_000)
        assert world.do(lambda x, now: x.submit(buy(1, 5200, 5), now)).status == "delayed"
        assert user_events(ws, 1) == [("PLACEMENT", "DELAYED", "0")]
        assert world.do(lambda x, now: x.cancel(buy(1, 5200, 5).order_id, now)).startswith("order can't be canceled")
        assert sorted(user_events(ws, 2)) == [("TRADE", "MATCHED", None), ("UPDATE", "MATCHED", "5")]
        assert [s for _, s, _ in user_events(ws, 2)] == ["MINED", "CONFIRMED"]
        world.do(lambda x, now: x.submit(buy(2, 5200, 5), now))
        world.level(SELL, 5200, 0)
        assert user_events(ws, 2) == [("PLACEMENT", "DELAYED", "0"), ("UPDATE", "UNMATCHED", "0")], "the book went away while it was held"
        world.do(lambda x, now: x.cancel(buy(2, 5200, 5).order_id, now))
        assert user_events(ws, 1) == [("CANCELLATION", "CANCELED", "0")]
        world.do(lambda x, now: x.submit(buy(3, 5000, 5, order_type="GTD", expiration_s=now // 1000 + 61), now))
        assert user_events(ws, 2) == [("PLACEMENT", "LIVE", "0"), ("CANCELLATION", "CANCELED_EXPIRED_ORDER", "0")]
        world.do(lambda x, now: (x.submit(buy(4, 5000, 30), now), x.account(accounts.PAPER_ADDRESS).__setattr__("cash_u6", 1_000_000),
                                 x._revalidate(x.account(accounts.PAPER_ADDRESS), None, now)))
        assert user_events(ws, 2) == [("PLACEMENT", "LIVE", "0"), ("CANCELLATION", "CANCELED_NOT_ENOUGH_BALANCE", "0")]
        world.do(lambda x, now: (x.account(accounts.PAPER_ADDRESS).__setattr__("cash_u6", 20_000_000), x.submit(buy(5, 5000, 5), now),
                                 x.close_market(CID, now)))
        assert user_events(ws, 2) == [("PLACEMENT", "LIVE", "0"), ("CANCELLATION", "CANCELED_MARKET_RESOLVED", "0")]


def test_an_order_that_finds_nothing_and_a_trade_that_fails():
    with World(settle_ms=5.0) as world, world.ws(2, "/ws/user") as ws:
        ws.send(json.dumps(USER))
        assert silent(ws, 0.05)
        world.do(lambda x, now: x.submit(buy(1, 5200, 5, order_type="FOK"), now))
        kind, status, _ = user_events(ws, 1)[0]
        assert kind == "CANCELLATION" and status == "CANCELED_order couldn't be fully filled. FOK orders are fully filled or killed."
        world.level(SELL, 5200, 50_000_000)
        world.do(lambda x, now: (setattr(x, "settle_hook", lambda trade: "FAILED"), x.submit(buy(2, 5200, 5), now)))
        assert [s for _, s, _ in user_events(ws, 3)] == ["MATCHED", "MATCHED", "FAILED"]
        assert world.do(lambda x, _: x.account(accounts.PAPER_ADDRESS).shares.get(UP_TOKEN, 0)) == 0


def test_markets_of_the_user_channel_come_and_go():
    with World() as world, world.ws(2, "/ws/user") as ws:
        ws.send(json.dumps(USER | {"markets": ["0x" + "00" * 32]}))
        assert silent(ws, 0.05)
        world.do(lambda x, now: x.submit(buy(1, 4000, 5), now))
        assert silent(ws, 0.1)
        ws.send(json.dumps({"operation": "subscribe", "markets": [CID]}))
        assert silent(ws, 0.05)
        world.do(lambda x, now: x.submit(buy(2, 4000, 5, token=DOWN_TOKEN), now))
        assert receive(ws)[0]["outcome"] == "Down"
        ws.send(json.dumps({"operation": "unsubscribe", "markets": [CID]}))
        assert silent(ws, 0.05)
        world.do(lambda x, now: x.submit(buy(3, 4000, 5), now))
        assert silent(ws, 0.1)
