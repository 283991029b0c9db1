"""Faults of the streams: what a socket receives, and what it does not, while PING is still answered."""

import json
import time

import pytest
from exchange_world import CID, UP_TOKEN
from fault_world import USER, FaultWorld, alive, drain
from websockets.exceptions import ConnectionClosed

from shm_layout.records import BUY, SELL, UP

TWAP, SPOT, RELAY = "crypto_prices_twap_sixty", "crypto_prices_chainlink", "crypto_prices"
BOUNDARY_MS = 1_795_186_800_000


@pytest.fixture
def world():
    with FaultWorld() as w:
        yield w


def sizes(frames):
    """Sizes of price changes of the Up token at 0.40, in the order received."""
    return [c["size"] for f in frames if isinstance(f, dict) for c in f.get("price_changes", ()) if (c["asset_id"], c["price"]) == (UP_TOKEN, "0.4")]


def change(world, *shares):
    for size in shares:
        world.level(BUY, 4000, size * 1_000_000)


def prints(world, seconds=(1,), topics=(TWAP, SPOT, RELAY)):
    """Reference prices of some seconds become due."""
    frames = [json.dumps({"topic": t, "type": "update", "timestamp": BOUNDARY_MS + s * 1000 + 1300, "payload": {
        "symbol": "btcusdt" if t == RELAY else "btc/usd", "timestamp": BOUNDARY_MS + s * 1000, "value": 84608.5,
        "full_accuracy_value": "84608500000000000000000"}}, separators=(",", ":")).encode() for s in seconds for t in topics]
    world.do(lambda x, now: world.tape.rtds_due.extend(frames))


def rtds(world):
    ws = world.ws(3, "/")
    ws.send(json.dumps({"action": "subscribe", "subscriptions": [{"topic": t, "type": "update"} for t in (TWAP, SPOT, RELAY)]}))
    world.wait(lambda x: any(link.__dict__ for link in world.server.rtds.links))
    time.sleep(0.05)
    return ws


def polybolt(world):
    ws = world.ws(5, "/ws")
    ws.send(json.dumps({"op": "auth", "rid": "a", "auth": USER["auth"]}))
    subscriptions = [{"channel": "price.crypto.twap", "filter": {"symbol": "btcusd", "window_seconds": 60}},
                     {"channel": "price.crypto", "filter": {"symbol": "btcusd"}}]
    ws.send(json.dumps({"op": "subscribe", "rid": "s", "subscriptions": subscriptions}))
    answers = []
    while answers.count("subscribed") < 2:
        answers.append(json.loads(ws.recv(2)).get("op"))
    drain(ws, 0.05)
    return ws


def twaps(frames):
    return [f["payload"]["timestamp"] for f in frames if f.get("channel", f.get("topic")) in ("price.crypto.twap", TWAP)]


# ---- freezes ----

def test_freeze_market_all_is_silent_but_alive_even_after_a_reconnect(world):
    with world.stream() as ws:
        ws.recv(2)
        world.fault("freeze_market")
        change(world, 5, 6)
        assert alive(ws) and drain(ws) == []
        with world.stream() as late:
            assert alive(late) and drain(late) == []
        world.heal()
        change(world, 7)
        assert sizes(drain(ws)) == ["7"]


def test_freeze_of_existing_sockets_is_healed_by_a_reconnect(world):
    with world.stream() as ws:
        ws.recv(2)
        world.fault("freeze_market", links="existing")
        with world.stream() as late:
            late.recv(2)
            change(world, 5)
            assert sizes(drain(late)) == ["5"] and drain(ws) == []


def test_freeze_of_one_socket_leaves_its_sibling(world):
    with world.stream() as a, world.stream() as b:
        a.recv(2), b.recv(2)
        world.fault("freeze_market", links="one")
        change(world, 5, 6)
        assert sorted([sizes(drain(a)), sizes(drain(b))]) == [[], ["5", "6"]]


def test_freeze_of_one_token_leaves_the_other(world):
    with world.stream() as ws:
        ws.recv(2)
        world.fault("freeze_market", token="up")
        change(world, 5)
        entries = [c for f in drain(ws) for c in f["price_changes"]]
        assert entries and UP_TOKEN not in [c["asset_id"] for c in entries]


def test_freeze_of_another_market_changes_nothing(world):
    with world.stream() as ws:
        ws.recv(2)
        world.fault("freeze_market", markets="5m")
        change(world, 5)
        assert sizes(drain(ws)) == ["5"]


def test_freeze_user(world):
    with world.stream("/ws/user") as ws:
        world.fault("freeze_user")
        assert world.post(price=0.45)[0] == 200 and alive(ws) and drain(ws) == []
        world.heal()
        world.post(price=0.44)
        assert [e["price"] for e in drain(ws)] == ["0.44"]


def test_freeze_rtds_leaves_polybolt_and_the_other_way_round(world):
    with rtds(world) as old, polybolt(world) as new:
        world.fault("freeze_rtds")
        prints(world)
        assert drain(old, 0.3) == [] and twaps(drain(new, 0.3))
        world.heal()
        world.fault("freeze_polybolt")
        prints(world, (2,))
        assert twaps(drain(old, 0.3)) and not twaps(drain(new, 0.3))
        new.send('{"op":"ping"}')
        assert json.loads(new.recv(2))["op"] == "pong"


@pytest.mark.parametrize(("fault", "port", "path", "say"), [
    ("freeze_binance", 4, "/ws/btcusdt@bookTicker", None),
    ("freeze_coinbase", 6, "/", '{"type":"subscribe","channel":"heartbeats"}'),
    ("freeze_bybit", 7, "/v5/public/spot", '{"op":"subscribe","args":["tickers.BTCUSDT"]}')])
def test_freeze_of_a_spot_stream(world, fault, port, path, say):
    channel = fault.removeprefix("freeze_")
    with world.ws(port, path) as ws:
        if say:
            ws.send(say)
        world.wait(lambda x: world.faults.links[channel])
        drain(ws, 0.1)
        link, = world.do(lambda x, now: list(world.faults.links[channel].values()))
        world.do(lambda x, now: link.send(b'{"n":1}'))
        world.fault(fault)
        world.do(lambda x, now: link.send(b'{"n":2}'))
        world.heal()
        world.do(lambda x, now: link.send(b'{"n":3}'))
        got = []
        while 3 not in got:
            got.append(json.loads(ws.recv(3)).get("n"))
        assert [n for n in got if n] == [1, 3]
        ws.ping().wait(1)


# ---- late, shuffled, doubled, lost ----

def test_frames_late_keep_their_order(world):
    with world.stream() as ws:
        ws.recv(2)
        world.fault("frames_late", delay_s=0.3)
        begin = time.monotonic()
        change(world, *range(5, 25))
        frames = [json.loads(ws.recv(2)) for _ in range(20)]
        assert time.monotonic() - begin >= 0.3 and sizes(frames) == [str(n) for n in range(5, 25)]


def test_frames_reordered_lose_nothing_but_their_order(world):
    with world.stream() as ws:
        ws.recv(2)
        world.fault("frames_reordered", spread_s=0.1)
        change(world, *range(5, 65))
        got = sizes(drain(ws, 0.3))
        assert sorted(map(int, got)) == list(range(5, 65)) and got != [str(n) for n in range(5, 65)]


def test_frames_duplicated(world):
    with world.stream() as ws:
        ws.recv(2)
        fault = world.fault("frames_duplicated", p=0.5)
        change(world, *range(5, 45))
        got = sizes(drain(ws, 0.2))
        assert len(got) == 40 + fault.hits and 8 < fault.hits < 32 and len(set(got)) == 40


def test_frames_dropped(world):
    with world.stream() as ws:
        ws.recv(2)
        fault = world.fault("frames_dropped", p=0.5)
        change(world, *range(5, 45))
        assert len(sizes(drain(ws))) == 40 - fault.hits and 8 < fault.hits < 32


def test_frames_of_other_channels_are_left_alone(world):
    with world.stream() as market, world.stream("/ws/user") as user:
        market.recv(2)
        world.fault("frames_dropped", p=1.0, channels="user+rtds")
        change(world, 5)
        world.post(price=0.45)
        assert sizes(drain(market)) == ["5"] and drain(user) == []


def test_book_rollback_brings_a_snapshot_behind_newer_changes(world):
    with world.stream() as ws:
        ws.recv(2)
        world.fault("book_rollback", delay_s=0.2)
        world.take(BUY, 5200, 10)
        time.sleep(0.05)
        change(world, 5)
        frames = drain(ws, 0.4)
        kinds = [f["event_type"] for f in frames]
        newest = max(i for i, k in enumerate(kinds) if k == "price_change")
        late = [f for f in frames[newest:] if f["event_type"] == "book"]
        assert len(late) == 2 and sizes(frames) == ["5"]
        assert all(int(b["timestamp"]) < int(frames[newest]["timestamp"]) for b in late)
        assert "0.4" not in [v["price"] for v in late[0]["bids"]], "applied as it is, it undoes the newer change"


# ---- the user channel ----

def filled(world):
    """One order that rests and is filled."""
    world.post(price=0.51)
    world.take(SELL, 5100, 5)
    world.wait(lambda x: x.trades and all(t.status == "CONFIRMED" for t in x.trades.values()))


def test_user_lost_takes_trades_and_leaves_orders(world):
    with world.stream("/ws/user") as ws:
        fault = world.fault("user_lost")
        filled(world)
        assert {e["event_type"] for e in drain(ws)} == {"order"} and fault.hits == 3
        world.heal()
        world.fault("user_lost", events="all")
        filled(world)
        assert drain(ws) == [] and world.ask("GET", "/data/trades")[1]["count"] == 2, "REST knows"


def test_user_delayed(world):
    with world.stream("/ws/user") as ws:
        world.fault("user_delayed", delay_s=0.3, events="trade")
        world.post(price=0.51)
        begin = time.monotonic()
        world.take(SELL, 5100, 5)
        events = [json.loads(ws.recv(2)) for _ in range(3)]
        assert [e["event_type"] for e in events] == ["order", "order", "trade"] and events[2]["status"] == "MATCHED"
        assert time.monotonic() - begin >= 0.3


def test_user_replayed_repeats_old_states_after_new_ones(world):
    with world.stream("/ws/user") as ws:
        world.fault("user_replayed", after_s=0.3, times=2)
        filled(world)
        statuses = [e["status"] for e in drain(ws, 0.5) if e["event_type"] == "trade"]
        assert statuses == ["MATCHED", "MINED", "CONFIRMED"] * 3


def test_duplicate_fill_events_come_two_to_four_times(world):
    with world.stream("/ws/user") as ws:
        world.fault("duplicate_fill_events", spread_s=0.02)
        filled(world)
        events = drain(ws, 0.3)
        counts = {s: sum(e["event_type"] == "trade" and e["status"] == s for e in events) for s in ("MATCHED", "MINED", "CONFIRMED")}
        assert all(2 <= n <= 4 for n in counts.values()) and sum(e["event_type"] == "order" for e in events) == 2
        assert world.ask("GET", "/data/trades")[1]["count"] == 1


# ---- the oracle ----

def test_oracle_hole_takes_chainlink_and_leaves_the_relay(world):
    with rtds(world) as old, polybolt(world) as new:
        prints(world, (1,))
        assert len(drain(old, 0.3)) == 3
        before = [f["seq"] for f in drain(new, 0.3) if f["channel"] == "price.crypto.twap"]
        world.fault("oracle_hole")
        assert world.faults.active("oracle_hole").until_ms - world.faults.active("oracle_hole").started_ms == 8000
        prints(world, (2, 3))
        assert {f["topic"] for f in drain(old, 0.3)} == {RELAY} and not twaps(drain(new, 0.3))
        world.heal()
        prints(world, (4,))
        assert twaps(drain(old, 0.3)) == [BOUNDARY_MS + 4000]
        after = [f["seq"] for f in drain(new, 0.3) if f.get("channel") == "price.crypto.twap"]
        assert after[0] == before[-1] + 1, "nothing was sent that could be missed"


def test_twap_late(world):
    with rtds(world) as ws:
        fault = world.fault("twap_late", late_s=0.5)
        begin = time.monotonic()
        prints(world)
        first = [json.loads(ws.recv(2)) for _ in range(2)]
        assert {f["topic"] for f in first} == {SPOT, RELAY}
        late = json.loads(ws.recv(2))
        assert late["topic"] == TWAP and time.monotonic() - begin >= 0.5
        assert late["timestamp"] == BOUNDARY_MS + 1000 + 1300 + 500 and fault.hits == 1


def test_boundary_missing(world):
    with rtds(world) as old, polybolt(world) as new:
        world.fault("boundary_missing", prints="twap")
        prints(world, (-1, 0, 1))
        frames = drain(old, 0.3)
        assert [t - BOUNDARY_MS for t in twaps(frames)] == [-1000, 1000] and sum(f["topic"] == SPOT for f in frames) == 3
        assert sorted(t - BOUNDARY_MS for t in twaps(drain(new, 0.4))) == [-1000, 1000]


# ---- sockets ----

def test_disconnect_without_close(world):
    with world.stream() as market, world.stream("/ws/user") as user:
        market.recv(2)
        world.fault("disconnect_without_close", channels="market")
        with pytest.raises(ConnectionClosed, match="no close frame"):
            market.recv(2)
        assert alive(user)
        with world.stream() as again:
            again.recv(2)
            change(world, 5)
            assert sizes(drain(again)) == ["5"], "existing sockets only"


def test_disconnect_again_and_again(world):
    world.fault("disconnect_without_close", channels="market", links="all")
    for _ in range(2):
        with world.ws(2, "/ws/market") as ws, pytest.raises(ConnectionClosed, match="no close frame"):
            ws.recv(2)


def test_a_half_open_socket_does_not_even_answer_ping(world):
    with world.stream() as ws:
        ws.recv(2)
        world.fault("disconnect_without_close", drop="silent")
        change(world, 5)
        assert not alive(ws)


def test_the_server_survives_frames_due_after_the_socket_is_gone(world):
    with world.stream() as ws:
        ws.recv(2)
        world.fault("frames_late", delay_s=0.2)
        change(world, 5)
    time.sleep(0.3)
    assert world.ask("GET", "/sim/health")[1]["ok"] and not world.do(lambda x, now: world.server.failed.done())


def test_resolution_lost_leaves_the_outcome_to_gamma(world):
    with world.stream() as ws:
        ws.recv(2)
        ws.send(json.dumps({"operation": "subscribe", "assets_ids": [UP_TOKEN], "custom_feature_enabled": True}))
        assert alive(ws)
        world.fault("resolution_lost")
        world.do(lambda x, now: x.resolve(CID, UP, now))
        assert alive(ws) and not [f for f in drain(ws) if isinstance(f, dict) and f.get("event_type") == "market_resolved"]
    market = world.http("GET", f"/events/slug/{world.tape.specs[0].slug}", port=1)[1]["markets"][0]
    assert json.loads(market["outcomePrices"]) == ["1", "0"]
