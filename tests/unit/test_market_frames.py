"""Market channel frames to records: every shape the venue sends, and everything it should never send."""

import gzip
import json
import os
import random
from pathlib import Path

import pytest

from mmbot.books import book as bk
from mmbot.venues.polymarket import market_channel as mc
from shm_layout import records as r

UP, DOWN = "1" * 76, "2" * 77
ID = 1795186800015


class Feed:
    """A channel with two followed markets that keeps what it publishes."""

    def __init__(self):
        self.records, self.bad = [], []
        self.channel = mc.MarketChannel(lambda m: self.records.append(m.rec.copy().view(r.MARKET)[0]), lambda c, t: self.bad.append((c, t)))
        self.channel.follow(3, ID, (UP, DOWN), 100, 1)
        self.channel.follow(0, ID + 900_000, ("3" * 76, "4" * 76), 100, 1)
        self.market = self.channel.markets[3]
        self.now = 1_000

    def send(self, frame, step_ns=1_000_000):
        self.now += step_ns
        data = frame if isinstance(frame, bytes) else json.dumps(frame, separators=(",", ":")).encode()
        self.channel.on_frame(memoryview(data), self.now)
        return self.records[-1] if self.records else None


@pytest.fixture
def feed():
    f = Feed()
    f.send([book(UP, 1000, {"0.50": "10", "0.51": "20.5"}, {"0.53": "7", "0.52": "30"}, tick_size="0.01", last_trade_price="0.510"),
            book(DOWN, 1000, {"0.47": "7", "0.48": "30"}, {"0.50": "10", "0.49": "20.5"}, tick_size="0.01", last_trade_price="0.510")])
    f.records.clear()
    return f


def book(token, t, bids, asks, **more):
    return {"event_type": "book", "market": "0xab", "asset_id": token, "timestamp": str(t), "hash": "ab" * 20,
            "bids": [{"price": p, "size": s} for p, s in bids.items()], "asks": [{"price": p, "size": s} for p, s in asks.items()], **more}


def change(t, *entries):
    return {"market": "0xab", "price_changes": [
        {"asset_id": a, "price": p, "size": s, "side": side, "hash": "cd" * 20, **({"best_bid": top[0], "best_ask": top[1]} if top else {})}
        for a, side, p, s, *top in entries], "timestamp": str(t), "event_type": "price_change"}


def trade(t, token, price, size, side):
    return {"event_type": "last_trade_price", "market": "0xab", "asset_id": token, "price": price, "size": size, "side": side,
            "fee_rate_bps": "0", "timestamp": str(t)}


def top(rec):
    return int(rec["bid_px_e4"][0]), int(rec["bid_size_u6"][0]), int(rec["ask_px_e4"][0]), int(rec["ask_size_u6"][0])


def test_following_a_market_says_at_once_that_its_book_is_not_known():
    f = Feed()
    assert [(int(x["kind"]), int(x["slot"]), bool(x["flags"] & r.MF_SUSPECT)) for x in f.records] == [(4 - 1, 3, True), (4 - 1, 0, True)]


def test_a_dump_becomes_a_record(feed):
    f = Feed()
    rec = f.send([book(UP, 1000, {"0.51": "20.5"}, {"0.52": "30"}, tick_size="0.01"), book(DOWN, 1000, {"0.48": "30"}, {"0.49": "20.5"})])
    assert top(rec) == (5100, 20_500_000, 5200, 30_000_000)
    assert (rec["kind"], rec["market_id"], rec["slot"], rec["tick_e4"], rec["flags"]) == (r.MK_BOOK, ID, 3, 100, 0)
    assert rec["t_exch_ns"] == 1000 * 10**6 and rec["t_recv_ns"] <= f.now and not f.bad


def test_a_change_of_both_tokens_is_one_record(feed):
    rec = feed.send(change(1001, (UP, "BUY", "0.51", "45.5", "0.51", "0.52"), (DOWN, "SELL", "0.49", "45.5", "0.48", "0.49")))
    assert top(rec) == (5100, 45_500_000, 5200, 30_000_000) and len(feed.records) == 1
    assert rec["flags"] == 0


def test_a_change_of_the_down_token_alone_moves_the_up_book(feed):
    assert top(feed.send(change(1001, (DOWN, "BUY", "0.485", "3.000001"))))[2:] == (5150, 3_000_001)


@pytest.fixture
def deep(feed):
    feed.send(change(1001, *[(UP, "BUY", f"0.4{i}", "5") for i in range(9)]))
    feed.records.clear()
    return feed


def test_a_change_below_the_fifth_level_is_silent(deep):
    deep.send(change(1002, (UP, "BUY", "0.05", "1", "0.51", "0.52")))
    assert deep.records == []
    deep.send(change(1003, (UP, "BUY", "0.05", "2", "0.51", "0.52")), mc.KEEPALIVE_NS)
    assert len(deep.records) == 1


def test_old_changes_are_dropped(feed):
    feed.send(change(1010, (UP, "BUY", "0.51", "278.17")))
    feed.send(change(1009, (UP, "BUY", "0.51", "254.17")))
    assert side(feed)[5100] == 278_170_000 and feed.channel.dropped() == 1


def side(feed, token=r.UP, s=r.BUY):
    import numpy as np
    px, size = np.zeros(bk.POINTS, np.int64), np.zeros(bk.POINTS, np.int64)
    n = bk.levels(feed.market.book, token, s, px, size)
    return dict(zip(px[:n].tolist(), size[:n].tolist(), strict=True))


def test_a_late_snapshot_does_not_roll_back(feed):
    feed.send(change(1050, (UP, "BUY", "0.515", "4")))
    rec = feed.send(book(UP, 1040, {"0.50": "10", "0.51": "20.5"}, {"0.52": "31"}))
    assert top(rec) == (5150, 4_000_000, 5200, 31_000_000)


def test_trades_come_in_up_terms_with_the_token_named(feed):
    rec = feed.send(trade(1020, UP, "0.52", "1.149423", "BUY"))
    assert (rec["kind"], rec["token"], rec["trade_px_e4"], rec["trade_size_u6"], rec["trade_side"]) == (r.MK_TRADE, r.UP, 5200, 1_149_423, r.BUY)
    rec = feed.send(trade(1021, DOWN, "0.48", "5", "BUY"))
    assert (rec["token"], rec["trade_px_e4"], rec["trade_side"], rec["last_trade_px_e4"]) == (r.DOWN, 5200, r.SELL, 5200)
    assert feed.market.book[bk.H_LAST_TRADE_RAW] == 4800, "the book hash wants the price as sent"
    rec = feed.send(change(1022, (UP, "BUY", "0.51", "1")))
    assert (rec["trade_px_e4"], rec["trade_size_u6"], rec["trade_side"], rec["last_trade_px_e4"]) == (0, 0, 0, 5200)


def test_a_tick_change_shows_in_the_record_once(feed):
    for token in (UP, DOWN):
        rec = feed.send({"event_type": "tick_size_change", "market": "0xab", "asset_id": token, "old_tick_size": "0.01",
                         "new_tick_size": "0.001", "timestamp": "1100"})
    assert rec["tick_e4"] == 10 and len(feed.records) == 1 and feed.market.book[bk.H_EPOCH] == 1


def test_a_resolution_names_the_winner(feed):
    rec = feed.send({"event_type": "market_resolved", "id": "1", "market": "0xab", "assets_ids": [UP, DOWN], "winning_asset_id": DOWN,
                     "winning_outcome": "Down", "timestamp": "9000"})
    assert (rec["kind"], rec["token"], rec["market_id"]) == (r.MK_RESOLVED, r.DOWN, ID)


def test_frames_that_say_nothing_for_us(feed):
    for frame in (b"[]", {"event_type": "best_bid_ask", "market": "0xab", "asset_id": UP, "best_bid": "", "best_ask": "0.5", "spread": "",
                          "timestamp": "1"}, {"event_type": "new_market", "id": "1", "market": "0xcd", "active": True}):
        feed.send(frame)
    assert feed.records == [] and feed.bad == []
    feed.send(change(1001, ("9" * 70, "BUY", "0.5", "1")))
    assert feed.channel.not_ours == 1 and feed.records == []


def test_an_unknown_event_is_counted_and_harms_nothing(feed):
    feed.send([{"event_type": "fireworks", "market": "0xab"}, change(1001, (UP, "BUY", "0.51", "1"))])
    assert feed.channel.unknown == 1 and feed.bad[0][0] == "event_unknown"
    assert not feed.records[-1]["flags"] and top(feed.records[-1])[1] == 1_000_000, "the rest of the frame counts"


GARBAGE = [b"", b"hello", b"{", b"[{]", b"\xff\xfe\x00", b"null", b"3", b'"x"', b'{"event_type":7}', b'{"event_type":"book"}',
           b'[{"event_type":"price_change","timestamp":"x","price_changes":[]}]', b'{"event_type":"price_change","timestamp":"1"}',
           b'{"event_type":"price_change","timestamp":"99999999999999999","price_changes":[]}',
           b'{"event_type":"price_change","timestamp":"1","price_changes":[{"asset_id":7}]}', b"[" * 2000]


@pytest.mark.parametrize("frame", GARBAGE)
def test_garbage_makes_every_book_suspect_until_its_next_snapshot(feed, frame):
    feed.send(frame)
    assert feed.bad and {int(x["slot"]) for x in feed.records if x["kind"] == r.MK_SUSPECT and x["flags"] & r.MF_SUSPECT} == {0, 3}
    rec = feed.send(change(1001, (UP, "BUY", "0.51", "3")))
    assert rec["flags"] & r.MF_SUSPECT and top(rec)[1] == 3_000_000, "still published, flagged"
    assert not feed.send(book(UP, 1002, {"0.51": "3"}, {"0.52": "30"}))["flags"]


def test_an_oversize_frame_is_not_even_decoded(feed):
    feed.send(json.dumps([book(UP, 1001, {"0.40": "1"}, {})]).encode() + b" " * mc.MAX_FRAME_BYTES)
    assert feed.bad[0][0] == "frame_oversize" and 4000 not in side(feed) and feed.records[-1]["flags"] & r.MF_SUSPECT


BAD_VALUES = [change(1001, (UP, "BUY", "0.00005", "1")), change(1001, (UP, "BUY", "1", "1")), change(1001, (UP, "HOLD", "0.5", "1")),
              change(1001, (UP, "BUY", "0.5", "-1")), change(1001, (UP, "BUY", "0.5", "1e5")), change(1001, (UP, "BUY", "0.5", "0.0000001")),
              trade(1001, UP, "x", "1", "BUY"), trade(1001, UP, "0.5", "1", "x"), book(UP, 1001, {"0.5": "x"}, {}), book(UP, 1001, {"2": "1"}, {}),
              book(UP, 1001, {}, {}, tick_size="0.7"), book(UP, 1001, {}, {}, last_trade_price="x"),
              {"event_type": "tick_size_change", "asset_id": UP, "timestamp": "1", "new_tick_size": "0.3"}]


@pytest.mark.parametrize("frame", BAD_VALUES, ids=range(len(BAD_VALUES)))
def test_an_impossible_value_makes_that_market_suspect_and_no_other(feed, frame):
    feed.market.book[bk.H_LAST_TRADE_RAW] = 0
    feed.send(frame)
    assert len(feed.bad) == 1
    assert {int(x["slot"]) for x in feed.records} == {3} and feed.records[-1]["flags"] & r.MF_SUSPECT


def test_the_good_entries_of_a_frame_with_a_bad_one_count(feed):
    feed.send(change(1001, (UP, "BUY", "0.505", "4"), (UP, "BUY", "0.5x", "4")))
    assert side(feed)[5050] == 4_000_000 and feed.records[-1]["flags"] & r.MF_SUSPECT


def test_fuzzed_frames_kill_nothing(feed):
    rng = random.Random(11)
    frames = [json.dumps(f, separators=(",", ":")).encode() for f in (
        change(1001, (UP, "BUY", "0.51", "45.5", "0.51", "0.52"), (DOWN, "SELL", "0.49", "45.5", "0.48", "0.49")), trade(1002, UP, "0.52", "1", "BUY"),
        [book(UP, 1003, {"0.5": "1"}, {"0.6": "2"}), book(DOWN, 1003, {"0.4": "2"}, {"0.5": "1"})],
        {"event_type": "tick_size_change", "asset_id": UP, "timestamp": "1", "new_tick_size": "0.001"},
        {"event_type": "market_resolved", "winning_asset_id": UP, "timestamp": "1"})]
    for _ in range(3000):
        raw = bytearray(rng.choice(frames))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(raw) + 1)
            raw[at:at + rng.randint(0, 3)] = bytes(rng.choice(b'"{}[],:.0159-eE\\xnt\x00\xff') for _ in range(rng.randint(0, 3)))
        feed.send(bytes(raw))
    assert feed.bad and feed.records
    rec = feed.send([book(UP, 3_999_999_999_999, {"0.51": "1"}, {"0.52": "1"}), book(DOWN, 3_999_999_999_999, {"0.48": "1"}, {"0.49": "1"})])
    assert rec is not None


def test_a_roll_frees_the_slot_and_names_the_tokens(feed):
    new, gone = feed.channel.follow(3, ID + 3_600_000, ("5" * 76, "6" * 76), 100, feed.now)
    assert (new, sorted(gone)) == (["5" * 76, "6" * 76], sorted([UP, DOWN]))
    rec = feed.records[-1]
    assert rec["market_id"] == ID + 3_600_000 and rec["flags"] & r.MF_SUSPECT and rec["n_bid"] == 0
    feed.send(change(1001, (UP, "BUY", "0.51", "1")))
    assert feed.channel.not_ours == 1
    assert feed.channel.follow(3, ID + 3_600_000, ("5" * 76, "6" * 76), 100, feed.now) == ([], [])
    assert feed.channel.follow(3, 0, ("0", "0"), 0, feed.now)[1] == ["5" * 76, "6" * 76]


def test_other_tokens_for_the_same_window_replace_the_old_ones(feed):
    new, gone = feed.channel.follow(3, ID, ("7" * 76, "8" * 76), 100, feed.now)
    assert (new, sorted(gone)) == (["7" * 76, "8" * 76], sorted([UP, DOWN]))


def test_discoverys_tick_only_makes_it_finer(feed):
    feed.channel.follow(3, ID, (UP, DOWN), 10, feed.now)
    feed.channel.follow(3, ID, (UP, DOWN), 100, feed.now)
    assert feed.market.book[bk.H_TICK] == 10


def test_a_lost_link_is_said_at_once_and_a_new_one_starts_empty(feed):
    feed.channel.link_lost(feed.now)
    assert feed.records[-1]["flags"] & r.MF_SUSPECT and top(next(x for x in feed.records if x["slot"] == 3))[0] == 5100
    feed.channel.link_made(feed.now)
    rec = feed.send(book(UP, 900, {"0.30": "1"}, {"0.40": "1"}))
    assert top(rec)[0] == 3000 and not rec["flags"], "an older venue time is fine on a new connection"


def test_a_book_without_its_snapshot_is_asked_for_again(feed):
    assert [m.slot for m in feed.channel.stale_snapshots(feed.now + 10**9, 10**9)] == [0], "slot 3 has had its snapshot"
    assert feed.channel.stale_snapshots(feed.now + 10**9 + 1, 10**9) == []
    assert [m.slot for m in feed.channel.stale_snapshots(feed.now + 2 * 10**9, 10**9)] == [0]


def test_asks_that_do_not_help_are_counted(feed):
    feed.send(b"garbage")
    for i in range(1, 4):
        feed.channel.stale_snapshots(feed.now + i * 10**10, 10**9)
        assert feed.market.asks == i
    feed.send(book(UP, 1005, {"0.51": "3"}, {"0.52": "30"}))
    feed.channel.stale_snapshots(feed.now + 10**11, 10**9)
    assert feed.market.asks == 0


def test_a_stamp_from_the_future_is_noticed_and_a_new_connection_heals_it(feed):
    assert feed.channel.ahead(1000) is None
    feed.send(change(3_999_999_999_999, (UP, "BUY", "0.515", "1", "0.515", "0.52")))
    assert feed.channel.ahead(1_000_000) is feed.market
    feed.channel.link_made(feed.now)
    assert feed.channel.ahead(1_000_000) is None


def test_messages_are_spelt_as_the_venue_wants_them():
    assert json.loads(mc.subscribe_first(["1"])) == {"type": "market", "assets_ids": ["1"], "custom_feature_enabled": True}
    assert json.loads(mc.subscribe(["1"])) == {"operation": "subscribe", "assets_ids": ["1"], "custom_feature_enabled": True}
    assert json.loads(mc.unsubscribe(["1"])) == {"operation": "unsubscribe", "assets_ids": ["1"]}


CAPTURE = os.environ.get("MARKET_CAPTURE", "")


@pytest.mark.skipif(not CAPTURE, reason="MARKET_CAPTURE names no recording of raw market frames (jsonl.gz with a payload per line)")
def test_a_real_recording_agrees_with_the_tops_the_venue_states():
    frames = [json.loads(line)["payload"] for line in gzip.open(Path(CAPTURE), "rt")]
    per_market = {}
    for f in frames:
        for c in f.get("price_changes", ()):
            per_market.setdefault(f["market"], []).append(c["asset_id"])
    tokens = max((tuple(dict.fromkeys(t)) for t in per_market.values()), key=lambda t: sum(len(per_market[m]) for m in per_market if t[0] in per_market[m]))
    f = Feed()
    f.channel.follow(3, ID, tokens, 100, 1)
    agree = total = newest = 0
    for frame in frames:
        f.send(frame)
        t = int(frame["timestamp"])
        if t >= newest and f.market.book[bk.H_SNAP] and f.market.book[bk.H_SNAP + 1]:
            for c in frame.get("price_changes", ()):
                if c["asset_id"] in tokens:
                    total += 1
                    agree += bk.top(f.market.book, tokens.index(c["asset_id"])) == (round(float(c["best_bid"]) * 1e4), round(float(c["best_ask"]) * 1e4))
        newest = max(newest, t)
    assert total > 1000 and agree >= 0.999 * total and not f.bad


class GeneralFeed(Feed):
    """The same feed with the compiled fast path taken out."""

    def __init__(self):
        super().__init__()
        channel = self.channel

        def general(data, t_recv_ns):
            channel.frames += 1
            channel._on_any(data, t_recv_ns)
        channel.on_frame = general


ODD = {"token": ("3" * 76, "9" * 76, ""), "price": ("0.00005", "1", "0", "x", "5e-1", ""),
       "size": ("1.0000001", "-1", "", "1" * 30, "1" + "0" * 12),
       "side": ("HOLD", "buy", ""), "top": (("0", "1"), ("0.5", "2"), ("x", "0.5"), ("", "0.5"))}
PLAIN = {"token": (UP, DOWN), "price": ("0.5", "0.51", ".52", "0.4999", "0.530", "0.07", "0.93"), "size": ("0", "5", "1.000001", "12.50", "7"),
         "side": ("BUY", "SELL"), "top": ((), ("0.51", "0.52"), ("0.510", "0.52"))}


def random_change(rng):
    def pick(what):
        return rng.choice((ODD if rng.random() < 0.03 else PLAIN)[what])
    entries = []
    for _ in range(rng.choice((1, 2, 2, 2, 3, 70))):
        top = pick("top")
        entries.append((pick("token"), pick("side"), pick("price"), pick("size"), *([top] if top else [])))
    return {**change(1000 + rng.randrange(50)), "price_changes": [
        {"asset_id": a, "price": p, "size": s, "side": side, **({"best_bid": top[0][0], "best_ask": top[0][1]} if top else {})}
        for a, side, p, s, *top in entries]}


def test_the_fast_path_and_the_general_one_say_the_same():
    """Plain, odd, damaged and re-spaced price changes through both: the same records, the same complaints."""
    fast, general = Feed(), GeneralFeed()
    rng = random.Random(5)
    taken = 0
    for i in range(4000):
        frame = random_change(rng)
        raw = json.dumps(frame, separators=rng.choice(((",", ":"), (", ", ": "), (" ,\n", " :\t")))).encode()
        if rng.random() < 0.3:
            damaged = bytearray(raw)
            at = rng.randrange(len(damaged))
            damaged[at:at + rng.randint(0, 2)] = bytes(rng.choice(b'"{}[],:.0159-eE\\ x\x00\xff') for _ in range(rng.randint(0, 2)))
            raw = bytes(damaged)
        before = fast.channel._on_any.__func__
        calls = []
        fast.channel._on_any = lambda d, t, c=calls, f=before: (c.append(1), f(fast.channel, d, t))
        fast.send(raw)
        general.send(raw)
        del fast.channel._on_any
        taken += not calls
        assert fast.bad == general.bad, raw
        assert len(fast.records) == len(general.records) and all(a == b for a, b in zip(fast.records[-4:], general.records[-4:])), raw
        if i % 50 == 0:     # snapshots clear the suspicion, so that both kinds of books are seen
            dump = [book(UP, 1000, {"0.50": "10"}, {"0.52": "30"}), book(DOWN, 1000, {"0.48": "30"}, {"0.50": "10"})]
            fast.send(dump)
            general.send(dump)
    assert (fast.channel._books == general.channel._books).all()
    assert 500 < taken < 3500, "both paths were taken"


@pytest.mark.parametrize("inside", [b"\x00", b"\n"])
def test_text_that_is_no_text_is_not_taken_by_the_fast_path_either(feed, inside):
    raw = json.dumps(change(1001, (UP, "BUY", "0.51", "3"))).encode().replace(b"cdcd", b"cd" + inside + b"cd", 1)
    feed.send(raw)
    assert feed.bad and side(feed)[5100] == 20_500_000


def test_real_shapes_take_the_fast_path(feed):
    feed.channel._on_any = None
    feed.send(change(1001, (UP, "BUY", "0.51", "45.5", "0.51", "0.52"), (DOWN, "SELL", "0.49", "45.5", "0.48", "0.49")))
    assert feed.records[-1]["bid_size_u6"][0] == 45_500_000


class Twins(Feed):
    """Two links into one decoder."""

    def __init__(self):
        self.records, self.bad, self.now = [], [], 1_000
        self.channel = mc.MarketChannel(lambda m: self.records.append(m.rec.copy().view(r.MARKET)[0]), lambda c, t: self.bad.append((c, t)), links=2)
        self.channel.follow(3, ID, (UP, DOWN), 100, 1)
        self.market = self.channel.markets[3]
        for link in (0, 1):
            self.channel.link_made(self.now, link)

    def say(self, link, frame, step_ns=1_000_000):
        self.now += step_ns
        self.channel.on_frame(memoryview(json.dumps(frame, separators=(",", ":")).encode()), self.now, link)


DUMP = [book(UP, 1000, {"0.51": "20.5"}, {"0.52": "30"}), book(DOWN, 1000, {"0.48": "30"}, {"0.49": "20.5"})]


@pytest.fixture
def twins():
    f = Twins()
    for link in (0, 1):
        f.say(link, DUMP)
    f.records.clear()
    return f


class TestTwoLinks:
    def test_the_first_arrival_counts_and_the_second_shows_that_its_link_lives(self, twins):
        frame = change(1001, (UP, "BUY", "0.51", "45.5"))
        twins.say(1, frame)
        assert len(twins.records) == 1 and twins.channel.links[0].missed == 1
        twins.say(0, frame)
        assert len(twins.records) == 1 and twins.channel.duplicates == 2 and twins.channel.links[0].missed == 0
        assert twins.market.witness.heard_ns == twins.now

    def test_a_late_copy_does_not_undo_a_newer_change_of_the_same_stamp(self, twins):
        a, b = change(1001, (UP, "BUY", "0.51", "1")), change(1001, (UP, "BUY", "0.51", "2"))
        for link in (0, 1):
            for frame in (a, b):
                twins.say(link, frame)
        assert side(twins)[5100] == 2_000_000

    def test_a_slower_links_copy_of_a_book_does_not_undo_changes_of_the_same_stamp(self, twins):
        """A sweep: change, books and further changes share a millisecond, and one link is through with it before the other begins."""
        sweep = [change(1001, (UP, "BUY", "0.51", "0")), book(UP, 1001, {"0.50": "12", "0.49": "5"}, {"0.52": "30"}),
                 change(1001, (UP, "BUY", "0.50", "0"))]
        for link in (1, 0):
            for frame in sweep:
                twins.say(link, frame)
        assert side(twins) == {4900: 5_000_000}

    def test_what_one_link_says_twice_is_heard_twice(self, twins):
        a, b = change(1001, (UP, "BUY", "0.51", "1")), change(1001, (UP, "BUY", "0.51", "2"))
        for frame in (a, b, a):
            twins.say(0, frame)
        assert side(twins)[5100] == 1_000_000
        for frame in (a, b, a):
            twins.say(1, frame)
        assert side(twins)[5100] == 1_000_000 and twins.channel.duplicates == 1 + 3

    def test_a_trade_is_one_record(self, twins):
        for link in (0, 1):
            twins.say(link, trade(1020, UP, "0.52", "1", "BUY"))
        assert [int(x["kind"]) for x in twins.records] == [r.MK_TRADE]

    def test_one_link_less_is_no_reason_to_mistrust_and_a_new_one_keeps_the_book(self, twins):
        twins.channel.link_lost(twins.now, 0)
        twins.say(1, change(1001, (UP, "BUY", "0.515", "3")))
        twins.channel.link_made(twins.now, 0)
        assert top(twins.records[-1])[0] == 5150 and not any(x["flags"] for x in twins.records)
        twins.say(0, DUMP)
        assert top(twins.records[-1])[0] == 5150, "the dump is older than the change"

    def test_no_link_at_all_is(self, twins):
        for link in (0, 1):
            twins.channel.link_lost(twins.now, link)
        assert twins.records[-1]["flags"] & r.MF_SUSPECT
        twins.channel.link_made(twins.now, 1)
        twins.say(1, DUMP)
        assert not twins.records[-1]["flags"] and top(twins.records[-1])[0] == 5100

    def test_a_snapshot_that_was_seen_before_still_answers(self, twins):
        """A dump asked for again is byte for byte the old one when nothing happened."""
        twins.channel.mistrust(bk.FAULT_HASH, twins.now)
        twins.channel.link_lost(twins.now, 1)
        twins.channel.link_made(twins.now, 1)
        twins.say(1, DUMP)
        assert not twins.records[-1]["flags"]

    def test_a_change_does_not_revive_a_book_that_no_link_has_carried_without_a_break(self, twins):
        for link in (0, 1):
            twins.channel.doubt(link, twins.now)
            twins.channel.link_made(twins.now, link)
        assert twins.records[-1]["flags"] & r.MF_SUSPECT
        twins.say(0, change(1001, (UP, "BUY", "0.515", "3")))
        assert top(twins.records[-1])[0] == 5150 and twins.records[-1]["flags"] & r.MF_SUSPECT, "what changed meanwhile is not known"
        twins.say(1, [book(UP, 1002, {"0.51": "20.5", "0.515": "3"}, {"0.52": "30"}), DUMP[1]])
        assert not twins.records[-1]["flags"]

    def test_an_accused_link_costs_no_book_that_the_other_one_carries(self, twins):
        twins.channel.doubt(0, twins.now)
        twins.channel.link_made(twins.now, 0)
        twins.say(0, change(1001, (UP, "BUY", "0.515", "3")))
        assert not any(x["flags"] for x in twins.records)
        twins.say(0, DUMP)                  # heard before, and yet it shows that this link has the whole book
        twins.channel.doubt(1, twins.now)
        assert not any(x["flags"] for x in twins.records)

    def test_useless_books_start_anew_though_a_link_lives(self, twins):
        twins.say(0, change(3_999_999_999_999, (UP, "BUY", "0.515", "1")))
        twins.channel.start_anew()
        twins.channel.link_made(twins.now, 1)
        assert twins.channel.ahead(1_000_000) is None and not side(twins)

    def test_counts_of_a_frame_are_bounded(self, twins):
        frame = change(1001, (UP, "BUY", "0.51", "1"))
        for _ in range(5000):
            twins.say(0, frame)
        twins.say(1, frame)
        assert twins.channel.duplicates == 2 and not twins.bad


def test_the_stated_top_of_best_bid_ask_is_checked_too(feed):
    feed.send({"event_type": "best_bid_ask", "market": "0xab", "asset_id": UP, "best_bid": "0.5", "best_ask": "0.52", "spread": "0.02", "timestamp": "1001"})
    feed.send(change(1001, (UP, "BUY", "0.3", "1")), bk.GRACE_NS + 2)
    assert feed.records[-1]["flags"] & r.MF_SUSPECT
    feed.send({"event_type": "best_bid_ask", "market": "0xab", "asset_id": UP, "best_bid": "0.51", "best_ask": "0.52", "spread": "0.01", "timestamp": "1002"})
    assert not feed.records[-1]["flags"]
    feed.send({"event_type": "best_bid_ask", "market": "0xab", "asset_id": UP, "best_bid": "x", "best_ask": "", "spread": "", "timestamp": "1003"})
    assert feed.bad[0][0] == "top_refused"


def test_depth_and_mid_of_the_whole_book_are_ours_without_an_aggregate(feed):
    """What an aggregated book would say: every level of both tokens with its size, and the middle; changes keep it true."""
    feed.send(change(1001, (UP, "BUY", "0.515", "4"), (DOWN, "BUY", "0.46", "9")))
    top = feed.records[-1]
    sides = [[(int(px), int(size)) for px, size in zip(top[f"{s}_px_e4"][:top[f"n_{s}"]], top[f"{s}_size_u6"], strict=False)] for s in ("bid", "ask")]
    assert sides == [[(5150, 4_000_000), (5100, 20_500_000), (5000, 10_000_000)], [(5200, 30_000_000), (5300, 7_000_000), (5400, 9_000_000)]]
    assert (top["bid_px_e4"][0] + top["ask_px_e4"][0]) / 2 == 5175


def test_a_coarser_tick_is_old_news(feed):
    for tick in ("0.001", "0.01"):
        feed.send({"event_type": "tick_size_change", "market": "0xab", "asset_id": UP, "old_tick_size": "", "new_tick_size": tick, "timestamp": "1100"})
    assert feed.market.book[bk.H_TICK] == 10 and feed.market.book[bk.H_EPOCH] == 1


def test_a_verified_book_is_published_with_the_time_of_its_proof(feed):
    feed.channel.verified(feed.market, feed.now + 5)
    rec = feed.records[-1]
    assert (rec["kind"], rec["t_recv_ns"], rec["bid_px_e4"][0]) == (r.MK_VERIFIED, feed.now + 5, 5100)
    feed.channel.verified(feed.market, feed.now)
    assert len(feed.records) == 1, "time does not go back"


def test_both_paths_keep_the_hash_of_a_change(feed):
    fast = change(1001, (UP, "BUY", "0.51", "1"))
    feed.send(fast)
    feed.send([change(1002, (UP, "BUY", "0.51", "2"))])
    rows = feed.market.log[1:1 + 2 * 9].reshape(2, 9)
    assert rows[0, 0] == 1001 and rows[1, 0] == 1002 and (rows[0, 6:] == rows[1, 6:]).all() and rows[0, 6] != 0
