"""User channel frames to USER rows: order events, and exactly our own legs of a trade."""

import json
import random

import pytest

from mmbot.venues.polymarket import user_channel as uc
from shm_layout import records as r

KEY = "7d1c2f0e-5b1a-4c0e-9a5f-1f2e3d4c5b6a"
OTHER = "0d0d0d0d-0000-4000-8000-000000000001"
FUNDER = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
STRANGER = "0x2222222222222222222222222222222222222222"
CONDITION = "0x" + "74" * 32
UP, DOWN = "9" * 76, "7" * 77
ID = 1795186800015
TRADE_ID = "b3f6f8b2-6c57-4a44-9a3c-0f8c1f5b7d10"


def market_of(condition, asset):
    return (ID, (UP, DOWN).index(asset)) if condition == CONDITION and asset in (UP, DOWN) else (0, r.NO_OUTCOME)


@pytest.fixture
def channel():
    return uc.UserChannel(KEY, FUNDER, market_of)


def send(channel, *events, array=None):
    body = list(events) if array or len(events) > 1 else events[0]
    return [dict(row) for row in map(as_dict, channel.on_frame(json.dumps(body).encode(), 77))]


def as_dict(words):
    out = {}
    for name, at in uc.FIELDS.items():
        n = r.USER.fields[name][0].itemsize // 8
        out[name] = words[at] if n == 1 else r.id_value(words[at:at + n])
    return out


def order(**over):
    return {"event_type": "order", "type": "PLACEMENT", "id": "0xd7" + "47" * 31, "owner": KEY, "order_owner": KEY, "market": CONDITION,
            "asset_id": UP, "side": "BUY", "price": "0.52", "original_size": "5", "size_matched": "0", "outcome": "Up", "order_type": "GTC",
            "status": "LIVE", "associate_trades": None, "created_at": "1793000000", "expiration": "0", "maker_address": FUNDER,
            "timestamp": "1793000000210", **over}


def leg(**over):
    return {"order_id": "0x" + "ab" * 32, "owner": KEY, "maker_address": FUNDER, "matched_amount": "5", "price": "0.52", "fee_rate_bps": "0",
            "asset_id": UP, "side": "BUY", "outcome": "Up", "outcome_index": 0, **over}


def trade(*legs, **over):
    return {"event_type": "trade", "type": "TRADE", "id": TRADE_ID, "taker_order_id": "0x" + "51" * 32, "market": CONDITION, "asset_id": DOWN,
            "side": "BUY", "size": "12", "price": "0.48", "fee_rate_bps": "0", "status": "MATCHED", "match_time": "1793000004",
            "last_update": "1793000004", "outcome": "Down", "owner": OTHER, "trade_owner": OTHER, "maker_address": STRANGER,
            "transaction_hash": "", "bucket_index": 0, "trader_side": "MAKER", "maker_orders": list(legs), "timestamp": "1793000004005", **over}


def test_an_order_event(channel):
    (row,) = send(channel, order())
    assert row == {
        "kind": r.UK_ORDER, "t_exch_ns": 1793000000210 * 10**6, "t_recv_ns": 77, "t_pub_ns": 0, "market_id": ID, "token": r.UP, "side": r.BUY,
        "role": r.MAKER, "type": r.UT_PLACEMENT, "status": r.ST_LIVE, "px_u6": 520_000, "size_u6": 5_000_000, "matched_u6": 0,
        "connection": 0, "order_id": int("d7" + "47" * 31, 16), "trade_id": 0, "token_id": int(UP), "condition_id": int(CONDITION, 16)}


@pytest.mark.parametrize("kind, status, expected", [
    ("PLACEMENT", "LIVE", r.ST_LIVE), ("UPDATE", "MATCHED", r.ST_MATCHED), ("PLACEMENT", "DELAYED", r.ST_DELAYED),
    ("UPDATE", "UNMATCHED", r.ST_UNMATCHED), ("CANCELLATION", "CANCELED", r.ST_CANCELED),
    ("CANCELLATION", "CANCELED_MARKET_RESOLVED", r.ST_CANCELED), ("CANCELLATION", "CANCELED_order couldn't be fully filled.", r.ST_CANCELED),
    ("CANCELLATION", None, r.ST_CANCELED), ("PLACEMENT", "INVALID", r.ST_INVALID), ("UPDATE", "something new", r.ST_LIVE)])
def test_order_status(channel, kind, status, expected):
    (row,) = send(channel, order(type=kind, status=status))
    assert row["status"] == expected


def test_a_taker_of_the_other_token_fills_our_bid(channel):
    """Taker buys Down at 0.48: our Up bid at 0.52. The top-level side, size and price are not ours."""
    (row,) = send(channel, trade(leg()))
    assert (row["kind"], row["role"], row["token"], row["side"], row["px_u6"], row["size_u6"], row["status"]) == (
        r.UK_TRADE, r.MAKER, r.UP, r.BUY, 520_000, 5_000_000, r.TS_MATCHED)
    assert row["order_id"] == int("ab" * 32, 16) and row["trade_id"] == int(TRADE_ID.replace("-", ""), 16)


def test_only_our_legs_count_and_all_of_them(channel):
    rows = send(channel, trade(leg(), leg(owner=OTHER, maker_address=STRANGER), leg(order_id="0x01", asset_id=DOWN, side="SELL", price="0.48")))
    assert [(x["order_id"], x["token"], x["side"]) for x in rows] == [(int("ab" * 32, 16), r.UP, r.BUY), (1, r.DOWN, r.SELL)]


def test_a_leg_is_ours_by_address_in_any_case(channel):
    assert len(send(channel, trade(leg(owner=None, maker_address=FUNDER.upper().replace("0X", "0x"))))) == 1
    assert send(channel, trade(leg(owner=OTHER, maker_address=STRANGER))) == []


def test_a_leg_without_a_side(channel):
    same = send(channel, trade(leg(side=None, asset_id=DOWN)))
    other = send(channel, trade(leg(side=None, asset_id=UP)))
    assert (same[0]["side"], other[0]["side"]) == (r.SELL, r.BUY)


def test_our_own_taking(channel):
    (row,) = send(channel, trade(leg(owner=OTHER, maker_address=STRANGER), owner=KEY, trade_owner=KEY, trader_side="TAKER"))
    assert (row["role"], row["token"], row["side"], row["px_u6"], row["size_u6"], row["order_id"]) == (
        r.TAKER, r.DOWN, r.BUY, 480_000, 12_000_000, int("51" * 32, 16))


def test_trading_with_ourselves_gives_both_legs(channel):
    assert [x["role"] for x in send(channel, trade(leg(), owner=KEY, trade_owner=KEY, trader_side="TAKER"))] == [r.TAKER, r.MAKER]


@pytest.mark.parametrize("text, status", [("MATCHED", r.TS_MATCHED), ("MINED", r.TS_MINED), ("CONFIRMED", r.TS_CONFIRMED),
                                          ("RETRYING", r.TS_RETRYING), ("FAILED", r.TS_FAILED), ("TRADE_STATUS_CONFIRMED", r.TS_CONFIRMED),
                                          ("MATCHED_NOT_BROADCASTED", r.TS_MATCHED)])
def test_trade_status(channel, text, status):
    assert send(channel, trade(leg(), status=text))[0]["status"] == status


def test_a_market_we_do_not_know(channel):
    (row,) = send(channel, order(market="0x" + "11" * 32))
    assert (row["market_id"], row["token"], row["condition_id"]) == (0, r.NO_OUTCOME, int("11" * 32, 16))


def test_odd_texts(channel):
    assert send(channel, order(size_matched=""))[0]["matched_u6"] == 0
    assert send(channel, order(timestamp="1793000000"))[0]["t_exch_ns"] == 1793000000 * 10**9
    assert send(channel, order(timestamp="2024-01-01T00:00:00Z"))[0]["t_exch_ns"] == 0
    assert send(channel, trade(leg(matched_amount="0.000001", price="0.0375")))[0]["px_u6"] == 37_500
    assert channel.on_frame(b"[]", 1) == []
    assert len(send(channel, order(), trade(leg()))) == 2


def test_an_unknown_event_is_counted(channel):
    assert len(send(channel, {"event_type": "party"}, order())) == 1
    assert channel.unknown == 1


@pytest.mark.parametrize("frame", [b"", b"{", b"nope", b"\xff", b"[" * 3000, b'{"event_type":"order"}', b"[3]", b"null",
                                   json.dumps(order(price="0.5x")).encode(), json.dumps(order(side="HOLD")).encode(),
                                   json.dumps(order(id="zz")).encode(), json.dumps(trade(leg(matched_amount="1e3"))).encode(),
                                   json.dumps(trade(leg(), status="DREAMT")).encode(), json.dumps(trade(leg(order_id=""))).encode()])
def test_what_cannot_be_read_may_have_been_a_fill(channel, frame):
    with pytest.raises(uc.Lost):
        channel.on_frame(frame, 1)


def test_the_readable_events_of_a_bad_frame_are_kept(channel):
    with pytest.raises(uc.Lost) as e:
        channel.on_frame(json.dumps([order(), order(price="x"), trade(leg())]).encode(), 1)
    assert len(e.value.rows) == 2


def test_fuzz(channel):
    rng = random.Random(3)
    good = [json.dumps(order()).encode(), json.dumps([trade(leg(), leg(side=None))]).encode()]
    for _ in range(2000):
        raw = bytearray(rng.choice(good))
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(raw) + 1)
            raw[at:at + rng.randint(0, 3)] = bytes(rng.choice(b'"{}[],:.0159-eE\\xnt\x00\xff') for _ in range(rng.randint(0, 3)))
        try:
            for row in channel.on_frame(bytes(raw), 1):
                assert len(row) == uc.WORDS and all(-2**63 <= w < 2**63 for w in row)
        except uc.Lost:
            pass


def test_subscribing_to_everything_of_the_account():
    assert json.loads(uc.subscribe("k", "s", "p")) == {"type": "user", "auth": {"apiKey": "k", "secret": "s", "passphrase": "p"}}
