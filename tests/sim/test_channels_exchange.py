"""The exchange's WebSocket channels: subscriptions, frame order and shape, book hashes, own events only to their owner."""

import hashlib
import json
import socket

import pytest
from exchange_world import CID, DOWN_TOKEN, UP_TOKEN, World, receive, silent, spec
from polymarket.models.clob.market_events import parse_market_event
from polymarket.models.clob.user_events import parse_user_event
from websockets.exceptions import ConnectionClosed

from mmbot.sim import accounts
from mmbot.sim.engine import NewOrder
from shm_layout.records import BUY, SELL

SUBSCRIBE = {"type": "market", "assets_ids": [UP_TOKEN, DOWN_TOKEN], "custom_feature_enabled": True}
USER = {"type": "user", "auth": {"apiKey": accounts.PAPER_API_KEY, "secret": accounts.PAPER_API_SECRET,
                                 "passphrase": accounts.PAPER_API_PASSPHRASE}}
OTHER = "0x" + "b" * 40


@pytest.fixture
def world():
    with World() as w:
        w.level(BUY, 5000, 20_500_000)
        w.level(SELL, 5200, 30_000_000)
        yield w


def buy(oid, px_e4, shares, token=UP_TOKEN, owner=accounts.PAPER_API_KEY, address=accounts.PAPER_ADDRESS, **more):
    size = int(shares * 1e6)
    return NewOrder(order_id="0x" + f"{oid:064x}", address=address, owner=owner, token=token, side=BUY, maker_u6=size * px_e4 // 10_000,
                    taker_u6=size, **more)


class Mirror:
    """A book kept from frames alone, and its hash by the published formula."""

    def __init__(self, book):
        self.token, self.last, self.tick = book["asset_id"], book.get("last_trade_price", ""), book.get("tick_size", "0.01")
        self.sides = {"BUY": {v["price"]: v["size"] for v in book["bids"]}, "SELL": {v["price"]: v["size"] for v in book["asks"]}}

    def apply(self, change):
        levels = self.sides[change["side"]]
        if change["size"] == "0":
            del levels[change["price"]]
        else:
            levels[change["price"]] = change["size"]

    def hash(self, timestamp):
        def rows(side, reverse):
            ordered = sorted(self.sides[side].items(), key=lambda kv: float(kv[0]), reverse=reverse)
            return [{"price": p, "size": s} for p, s in ordered]
        body = {"market": CID, "asset_id": self.token, "timestamp": timestamp, "hash": "", "bids": rows("BUY", False),
                "asks": rows("SELL", True), "min_order_size": "5", "tick_size": self.tick, "neg_risk": False, "last_trade_price": self.last}
        return hashlib.sha1(json.dumps(body, separators=(",", ":")).encode()).hexdigest()


def test_initial_dump_is_an_array_of_books(world):
    with world.ws(2, "/ws/market") as ws:
        ws.send(json.dumps(SUBSCRIBE))
        books, = receive(ws)
        assert [b["asset_id"] for b in books] == [UP_TOKEN, DOWN_TOKEN]
        assert list(books[0]) == ["market", "asset_id", "timestamp", "hash", "bids", "asks", "tick_size", "event_type", "last_trade_price"]
        assert books[0]["bids"] == [{"price": "0.5", "size": "20.5"}] and books[1]["asks"] == [{"price": "0.5", "size": "20.5"}]
        for book in books:
            assert Mirror(book).hash(book["timestamp"]) == book["hash"]
            assert world.http("GET", f"/book?token_id={book['asset_id']}")[1]["hash"] == book["hash"]
            parse_market_event(book)
        ws.send("PING")
        assert ws.recv(2) == "PONG"


def test_price_change_has_two_mirrored_entries_with_valid_hashes(world):
    with world.ws(2, "/ws/market") as ws:
        ws.send(json.dumps(SUBSCRIBE))
        mirrors = {b["asset_id"]: Mirror(b) for b in receive(ws)[0]}
        for px, size in ((4900, 5_000_000), (5000, 45_500_000), (4900, 0), (5100, 7_250_000)):
            world.level(BUY, px, size)
            frame, = receive(ws)
            assert list(frame) == ["market", "price_changes", "timestamp", "event_type"] and frame["event_type"] == "price_change"
            up, down = frame["price_changes"]
            assert list(up) == ["asset_id", "price", "size", "side", "hash", "best_bid", "best_ask"]
            assert (up["side"], down["side"], up["size"]) == ("BUY", "SELL", down["size"])
            assert round(float(up["price"]) + float(down["price"]), 9) == 1
            for change in (up, down):
                mirrors[change["asset_id"]].apply(change)
                assert mirrors[change["asset_id"]].hash(frame["timestamp"]) == change["hash"]
            parse_market_event(frame)
        assert (up["best_bid"], up["best_ask"], down["best_bid"], down["best_ask"]) == ("0.51", "0.52", "0.48", "0.49")


def test_a_trade_sends_level_books_tops_and_the_print_later(world):
    with world.ws(2, "/ws/market") as ws:
        ws.send(json.dumps(SUBSCRIBE))
        mirrors = {b["asset_id"]: Mirror(b) for b in receive(ws)[0]}
        world.do(lambda x, now: x.take(CID, BUY, 5200, 10_000_000, now))
        change, *after = receive(ws, 6)
        assert [f["event_type"] for f in (change, *after)] == ["price_change", "book", "best_bid_ask", "book", "best_bid_ask", "last_trade_price"]
        assert len({f["timestamp"] for f in (change, *after[:4])}) == 1
        trade = after[4]
        assert 20 <= int(trade["timestamp"]) - int(change["timestamp"]) < 200
        assert (trade["price"], trade["size"], trade["side"], trade["asset_id"]) == ("0.52", "10", "BUY", UP_TOKEN)
        for book in (after[0], after[2]):
            assert "tick_size" not in book
            assert Mirror({**book, "last_trade_price": ""}).hash(book["timestamp"]) == book["hash"], "the print is not out yet"
        for frame in (change, *after):
            parse_market_event(frame)
        world.level(BUY, 4000, 1_000_000)
        frame, = receive(ws)
        for mirror in mirrors.values():
            mirror.last = "0.520"
        for part in (*change["price_changes"], *frame["price_changes"]):
            mirrors[part["asset_id"]].apply(part)
        assert mirrors[DOWN_TOKEN].hash(frame["timestamp"]) == frame["price_changes"][1]["hash"], "one price for both tokens, three decimals"


def test_subscription_rules(world):
    with world.ws(2, "/ws/market") as ws:
        ws.send(json.dumps({"type": "market", "assets_ids": [UP_TOKEN], "initial_dump": False}))
        assert silent(ws), "no dump was asked for"
        world.do(lambda x, now: x.take(CID, BUY, 5200, 1_000_000, now))
        assert [f["event_type"] for f in receive(ws, 3)] == ["price_change", "book", "last_trade_price"], "one token, no custom features"
        ws.send(json.dumps({"operation": "subscribe", "assets_ids": [UP_TOKEN], "custom_feature_enabled": True}))
        assert silent(ws), "naming a token again gives no new snapshot"
        ws.send(json.dumps({"operation": "subscribe", "assets_ids": [DOWN_TOKEN]}))
        assert [b["asset_id"] for b in receive(ws)[0]] == [DOWN_TOKEN]
        world.do(lambda x, now: x.take(CID, BUY, 5200, 1_000_000, now))
        assert [f["event_type"] for f in receive(ws, 5)] == ["price_change", "book", "best_bid_ask", "book", "best_bid_ask"]
        receive(ws)
        ws.send(json.dumps({"operation": "unsubscribe", "assets_ids": [UP_TOKEN, DOWN_TOKEN]}))
        assert silent(ws)
        world.level(BUY, 4000, 1_000_000)
        assert silent(ws)


def test_an_unlisted_token_joins_when_its_market_is_listed(world):
    later = spec(condition_id="0x" + "6b" * 32, token_up="31", token_down="32", slug="btc-updown-15m-later", gamma_id="9")
    with world.ws(2, "/ws/market") as ws:
        ws.send(json.dumps({"type": "market", "assets_ids": ["31", "32"], "custom_feature_enabled": True}))
        assert receive(ws) == [[]]
        world.do(lambda x, now: x.add_market(later, now))
        listed, = receive(ws)
        assert listed["event_type"] == "new_market" and listed["slug"] == later.slug
        parse_market_event(listed)
        world.do(lambda x, now: x.set_level(later.condition_id, BUY, 5000, 10_000_000, now))
        assert receive(ws)[0]["market"] == later.condition_id


def test_tick_change_and_resolution(world):
    with world.ws(2, "/ws/market") as ws:
        ws.send(json.dumps(SUBSCRIBE))
        receive(ws)
        world.do(lambda x, now: x.change_tick(CID, 10, now))
        frames = receive(ws, 2)
        assert [(f["asset_id"], f["old_tick_size"], f["new_tick_size"]) for f in frames] == [(UP_TOKEN, "0.01", "0.001"), (DOWN_TOKEN, "0.01", "0.001")]
        world.do(lambda x, now: x.resolve(CID, 1, now))
        resolved, = receive(ws)
        assert resolved["winning_asset_id"] == DOWN_TOKEN and resolved["winning_outcome"] == "Down"
        for frame in (*frames, resolved):
            parse_market_event(frame)


def test_garbage_from_a_client_is_answered_and_harmless(world):
    with world.ws(2, "/ws/market") as ws:
        for junk in ("{", "[1]", b"\xff\xfe"):
            ws.send(junk)
            assert ws.recv(2) in ("INVALID MESSAGE", b"INVALID MESSAGE")
        ws.send(json.dumps({"operation": "explode"}))
        assert ws.recv(2) == "INVALID OPERATION"
        ws.send(json.dumps({"type": "market", "assets_ids": [1, None, UP_TOKEN]}))
        assert [b["asset_id"] for b in receive(ws)[0]] == [UP_TOKEN]


def test_a_client_that_stops_reading_is_cut_off(world, monkeypatch):
    monkeypatch.setattr("mmbot.sim.links.MAX_BUFFERED", 50_000)
    request = json.dumps({"type": "market", "assets_ids": [UP_TOKEN]}).encode()
    with socket.create_connection(("127.0.0.1", world.base + 2)) as deaf:
        deaf.send(b"GET /ws/market HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                  b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
        assert b"101" in deaf.recv(500)
        deaf.send(bytes([0x81, 0x80 | len(request)]) + bytes(4) + request)
        world.wait(lambda x: x.listener.links)
        for _ in range(20):
            world.do(lambda x, now: [x.set_level(CID, BUY, 4000 + 100 * (i % 9), 10_000_000 + i * 10_000, now) for i in range(2000)])
        world.wait(lambda x: not x.listener.links)


def test_user_channel_life_of_a_maker_order(world):
    with world.ws(2, "/ws/user") as ws, world.ws(2, "/ws/user") as elsewhere:
        ws.send(json.dumps(USER))
        elsewhere.send(json.dumps(USER | {"markets": ["0x" + "00" * 32]}))
        assert silent(ws), "no ack and no snapshot"
        world.do(lambda x, now: x.submit(buy(1, 5100, 10, post_only=True), now))
        placed, = receive(ws)
        assert list(placed)[:3] == ["event_type", "type", "id"] and (placed["type"], placed["status"], placed["size_matched"]) == ("PLACEMENT", "LIVE", "0")
        world.do(lambda x, now: (setattr(x, "_takes", 0), x.take(CID, SELL, 5100, 4_000_000, now)))
        trade, update = receive(ws, 2)
        assert (trade["status"], trade["trader_side"], trade["transaction_hash"]) == ("MATCHED", "MAKER", "")
        leg, = trade["maker_orders"]
        assert (leg["owner"], leg["matched_amount"], leg["price"], leg["side"], leg["outcome"]) == (accounts.PAPER_API_KEY, "4", "0.51", "BUY", "Up")
        assert (update["type"], update["status"], update["size_matched"], update["associate_trades"]) == ("UPDATE", "LIVE", "4", [trade["id"]])
        world.do(lambda x, now: x.take(CID, SELL, 5100, 6_000_000, now))
        second, full = receive(ws, 2)
        assert (second["outcome"], second["side"], second["price"]) == ("Down", "BUY", "0.49"), "the other token's buyer: a MINT"
        assert full["status"] == "MATCHED" and full["size_matched"] == "10"
        later = receive(ws, 4)
        assert sorted(f["status"] for f in later) == ["CONFIRMED", "CONFIRMED", "MINED", "MINED"] and all(f["transaction_hash"] for f in later)
        assert silent(elsewhere, 0.05), "another market's filter"
        for frame in (placed, trade, update, second, full, *later):
            parse_user_event(frame)


def test_user_channel_taker_and_cancel(world):
    with world.ws(2, "/ws/user") as ws:
        ws.send(json.dumps(USER))
        assert silent(ws, 0.05)
        world.do(lambda x, now: x.submit(buy(1, 5200, 10), now))
        trade, update = receive(ws, 2)
        assert trade["trader_side"] == "TAKER" and (update["type"], update["status"]) == ("UPDATE", "MATCHED")
        world.do(lambda x, now: x.submit(buy(2, 4000, 10), now))
        world.do(lambda x, now: x.cancel_all(accounts.PAPER_API_KEY, now))
        frames = [f for f in receive(ws, 4) if f["event_type"] == "order"]
        assert [f["type"] for f in frames] == ["PLACEMENT", "CANCELLATION"][:len(frames)]


def test_user_events_go_to_their_owner_only(world):
    with world.ws(2, "/ws/user") as ws:
        ws.send(json.dumps(USER))
        assert silent(ws, 0.05)
        world.do(lambda x, now: x.submit(buy(1, 5100, 10, owner="other-key", address=OTHER), now))
        world.do(lambda x, now: x.take(CID, SELL, 5100, 4_000_000, now))
        assert silent(ws)


def test_wrong_credentials_close_the_user_socket(world):
    with world.ws(2, "/ws/user") as ws:
        ws.send(json.dumps({"type": "user", "auth": USER["auth"] | {"secret": "x"}}))
        with pytest.raises(ConnectionClosed):
            ws.recv(2)


def test_unknown_path_is_refused(world):
    with pytest.raises(Exception, match="404"), world.ws(2, "/ws/nothing"):
        pass


def rtds(topic, symbol, at_ms, **more):
    return json.dumps({"topic": topic, "type": "update", "timestamp": at_ms + 1300,
                       "payload": {"symbol": symbol, "timestamp": at_ms, "value": 84608.9, "full_accuracy_value": "84608900000000000000000", **more}},
                      separators=(",", ":")).encode()


def test_rtds_topics_filters_and_snapshot(world):
    twap = rtds("crypto_prices_twap_sixty", "btc/usd", 1000, window_s=60)
    spot = rtds("crypto_prices_chainlink", "btc/usd", 1000)
    with world.ws(3, "/") as ws:
        ws.send(json.dumps({"action": "subscribe", "subscriptions": [{"topic": "crypto_prices_twap_sixty", "type": "update"}]}))
        ws.send("PING")
        assert silent(ws, 0.1), "no PONG here"
        world.tape.rtds_due = [spot, twap]
        came = json.loads(ws.recv(2))
        assert came.pop("connection_id") and came == json.loads(twap) and silent(ws, 0.05)
        ws.send(json.dumps({"action": "subscribe", "subscriptions": [
            {"topic": "crypto_prices_chainlink", "type": "update", "filters": "{\"symbol\":\"btc/usd\"}"}]}))
        first, = receive(ws)
        assert first["type"] == "subscribe" and first["payload"]["data"] == [{"timestamp": 1000, "value": 84608.9}]
        ws.send(json.dumps({"action": "subscribe", "subscriptions": [{"topic": "crypto_prices", "type": "update", "filters": "btcusdt,ethusdt"}]}))
        assert "does not match regex" in receive(ws)[0]["message"]


def test_binance_raw_and_wrapped(world):
    quote = b'{"u":1,"s":"BTCUSDT","b":"1.0","B":"1","a":"1.1","A":"1"}'
    with world.ws(4, "/ws/btcusdt@bookTicker") as raw, world.ws(4, "/stream?streams=btcusdt@bookTicker/btcusdt@trade") as wrapped:
        raw.send(json.dumps({"method": "SUBSCRIBE", "params": ["btcusdt@aggTrade"], "id": 1}))
        assert receive(raw) == [{"result": None, "id": 1}]
        wrapped.send(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": 2}))
        assert receive(wrapped)[0]["result"] == ["btcusdt@bookTicker", "btcusdt@trade"]
        world.tape.binance_due = [("btcusdt@bookTicker", quote), ("btcusdt@aggTrade", b'{"e":"aggTrade"}')]
        assert raw.recv(2) == quote.decode() and receive(raw) == [{"e": "aggTrade"}]
        assert receive(wrapped) == [{"stream": "btcusdt@bookTicker", "data": json.loads(quote)}] and silent(wrapped, 0.05)


def test_frames_and_probes_are_stamped(world):
    with world.ws(2, "/ws/market") as ws:
        ws.send(json.dumps(SUBSCRIBE))
        receive(ws)
        world.level(BUY, 4900, 1_000_000)
        world.do(lambda x, now: (setattr(world.tape, "probes", 1), x.set_level(CID, BUY, 4800, 1_000_000, now)))
        world.level(BUY, 4700, 1_000_000)
        receive(ws, 3)
        assert [s["probe"] for s in world.http("GET", "/sim/stamps?since=0")[1]["frames"]] == [False, True, False]
