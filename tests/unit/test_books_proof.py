"""The proof of a book: the recipe of the hash, the order of stamps, what is decided by the hash, what is counted as undecided."""

import hashlib
import json
import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmbot.books import book as bk
from mmbot.books import events as ev
from mmbot.books import text
from mmbot.venues.polymarket import book_proof as bp
from mmbot.venues.polymarket import market_channel as mc
from shm_layout import records as r

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from bench import books as bench  # noqa: E402

ID, CONDITION, UP, DOWN = 1795186800015, "0x" + "ab" * 32, "1" * 76, "2" * 77
MS, HOLD_NS = 1_000_000, 250_000_000


def sha(token, t_ms, bids, asks, ltp="", tick="0.01", size="5", market=CONDITION):
    """The recipe in plain Python, from levels as texts in wire order."""
    book = {"market": market, "asset_id": token, "timestamp": str(t_ms), "hash": "", "bids": [{"price": p, "size": s} for p, s in bids],
            "asks": [{"price": p, "size": s} for p, s in asks], "min_order_size": size, "tick_size": tick, "neg_risk": False, "last_trade_price": ltp}
    return hashlib.sha1(json.dumps(book, separators=(",", ":")).encode()).hexdigest()


class Side(dict):
    """{price e4: size u6} as the venue writes it."""

    def asc(self):
        return [(bp.number_text(p, 4), bp.number_text(s, 6)) for p, s in sorted(self.items())]

    def desc(self):
        return list(reversed(self.asc()))


class Venue:
    """A market's book in Up terms that says what it does, with right hashes."""

    def __init__(self):
        self.bids, self.asks = Side({5100: 20_500_000, 5000: 10_000_000, 100: 100_000_000}), Side({5200: 30_000_000, 5300: 7_000_000, 9900: 10**8})
        self.ltp, self.tick = "", "0.01"

    def hash(self, token, t):
        if token == 0:
            return sha(UP, t, self.bids.asc(), self.asks.desc(), self.ltp, self.tick)
        flip = [Side({10_000 - p: s for p, s in side.items()}) for side in (self.asks, self.bids)]
        return sha(DOWN, t, flip[0].asc(), flip[1].desc(), self.ltp, self.tick)

    def books(self, t):
        out = []
        for token, text_ in ((0, UP), (1, DOWN)):
            bids, asks = (self.bids, self.asks) if token == 0 else (
                Side({10_000 - p: s for p, s in self.asks.items()}), Side({10_000 - p: s for p, s in self.bids.items()}))
            out.append({"event_type": "book", "market": CONDITION, "asset_id": text_, "timestamp": str(t), "hash": self.hash(token, t),
                        "bids": [{"price": p, "size": s} for p, s in bids.asc()], "asks": [{"price": p, "size": s} for p, s in asks.desc()]})
        return out

    def set(self, side, px, size):
        levels = self.bids if side == "BUY" else self.asks
        levels.pop(px, None)
        if size:
            levels[px] = size

    def frame(self, t, *changes):
        """One frame per change, applied one after the other, all with one stamp."""
        return [self._frame(t, [c]) for c in changes]

    def batch(self, t, *changes):
        """Several changes made as one step: one frame each, all with the hash after the last."""
        for c in changes:
            self.set(*c)
        return [self._frame(t, [c], apply=False) for c in changes]

    def _frame(self, t, changes, apply=True):
        entries = []
        for side, px, size in changes:
            if apply:
                self.set(side, px, size)
            other = "SELL" if side == "BUY" else "BUY"
            entries += [{"asset_id": UP, "price": bp.number_text(px, 4), "size": bp.number_text(size, 6), "side": side, "hash": self.hash(0, t)},
                        {"asset_id": DOWN, "price": bp.number_text(10_000 - px, 4), "size": bp.number_text(size, 6), "side": other,
                         "hash": self.hash(1, t)}]
        return {"market": CONDITION, "price_changes": entries, "timestamp": str(t), "event_type": "price_change"}

    def trade(self, t, price, token=UP, side="BUY"):
        return {"event_type": "last_trade_price", "market": CONDITION, "asset_id": token, "price": price, "size": "1", "side": side, "timestamp": str(t)}


class Feed:
    """A channel whose clock is the venue's stamp plus the delay a frame was given."""

    def __init__(self, condition=CONDITION):
        self.records, self.bad = [], []
        self.channel = mc.MarketChannel(lambda m: self.records.append(m.rec.copy().view(r.MARKET)[0]), lambda c, t: self.bad.append(c))
        self.channel.follow(3, ID, (UP, DOWN), 100, 1, condition)
        self.market, self.proof = self.channel.markets[3], self.channel.markets[3].proof
        self.now = 1

    def send(self, frame, now_ms):
        self.now = now_ms * MS
        self.channel.on_frame(memoryview(json.dumps(frame, separators=(",", ":")).encode()), self.now)

    def settle(self, ms=300):
        self.now += ms * MS
        self.proof.poll(self.now, 10_000)
        return self.proof.counts

    def level(self, px, token=r.UP, side=r.BUY):
        return bk.size_at(self.market.book, token, side, px)


@pytest.fixture
def venue():
    return Venue()


@pytest.fixture
def feed(venue):
    f = Feed()
    f.send(venue.books(1000), 1010)
    assert f.settle()["verified"] == 2
    f.proof.counts.clear()
    return f


def test_published_vectors():
    wire = ('{"market":"0x74bcc52b900802871a7abf25da0cae16bf0811ae09031265a88e0cc3abdaf721","asset_id":"91348881789320432298294780669777877709298835'
            '272408462781006302171545019022093","timestamp":"1793000000123","hash":"f73ba1a04bc9e54b219f7a73bc9c7975b89806c5","bids":[{"price":"0.01",'
            '"size":"100"},{"price":"0.51","size":"20.5"}],"asks":[{"price":"0.99","size":"100"},{"price":"0.52","size":"30"}],"min_order_size":"5",'
            '"tick_size":"0.01","neg_risk":false,"last_trade_price":"0.510"}')
    assert bench.own_hash(json.loads(wire), bp.Scratch())
    for price in ("0.51", "0.5100", "0.511", "0.490"):
        assert not bench.own_hash(json.loads(wire) | {"last_trade_price": price}, bp.Scratch()), "three decimals, and the right price"


levels = st.dictionaries(st.integers(1, 9999), st.integers(1, 10**17), max_size=30)


@given(levels, levels)
@settings(max_examples=100, deadline=None)
def test_levels_are_written_as_the_venue_writes_them(bids, asks):
    mem, out = bk.new_book(), np.zeros(64 * text.LEVEL_BYTES, np.uint8)
    for side, found in ((0, bids), (1, asks)):
        for px, size in found.items():
            bk.put(mem, 0, side, px, size, 1)
    n = text.write_levels(mem, 0, out)
    want = json.dumps([[{"price": p, "size": s} for p, s in side] for side in (Side(bids).asc(), Side(asks).desc())], separators=(",", ":"))
    assert bytes(out[:n]).decode() == want[2:-2].replace('],[', '],"asks":[', 1)
    assert text.write_levels(mem, 0, out[:len(bids)]) == -1


def test_every_change_of_both_tokens_is_proved(venue, feed):
    for i in range(20):
        feed.send(*[(f, 1020 + i) for f in venue.frame(1015 + i, ("BUY", 4000 + 10 * i, 1_000_000 * (i + 1)))][0])
    assert feed.settle() == {"verified": 40}
    assert feed.proof.waiting() == 0 and not feed.proof.doubtful()


def test_frames_out_of_order_are_proved_in_the_order_of_their_stamps(venue, feed):
    rng, sent = random.Random(5), []
    for t in range(1100, 1300):
        px = rng.choice((5000, 4900, 4800, 5300, 5400))
        sent += [(t + rng.uniform(5, 95), f) for f in venue.frame(t, ("BUY" if px < 5150 else "SELL", px, rng.choice((0, 10**6, 2_500_000))))]
    for at, frame in sorted(sent, key=lambda x: x[0]):
        feed.send(frame, int(at))
        feed.proof.poll(feed.now, 10_000)
    counts = feed.settle()
    assert counts == {"verified": 400} and feed.channel.dropped() > 0


def test_steps_of_one_stamp_are_ordered_by_their_hashes_and_the_live_book_follows(venue, feed):
    first, second = venue.frame(1100, ("BUY", 5100, 7_000_000), ("BUY", 5100, 9_000_000))
    feed.send(second, 1110)
    feed.send(first, 1111)
    assert feed.settle() == {"verified": 4}
    assert feed.level(5100) == 7_000_000, "arrival decided, and each of the two hashes fits its own total"
    feed.send(venue.frame(1400, ("BUY", 5000, 1_000_000))[0], 1410)
    assert feed.settle() == {"verified": 6}
    assert feed.level(5100) == feed.level(4900, r.DOWN, r.SELL) == 9_000_000, "the next hash decides"
    assert feed.channel.repairs == 2 and feed.records[-1]["bid_size_u6"][0] == 9_000_000


def test_steps_of_one_stamp_that_came_in_the_wrong_order_are_all_proved(venue, feed):
    sent = venue.frame(1100, ("BUY", 5100, 7_000_000), ("SELL", 5300, 0), ("BUY", 4000, 2_000_000), ("BUY", 5000, 0))
    for frame in reversed(sent):
        feed.send(frame, 1110)
    assert feed.settle() == {"verified": 8} and feed.channel.repairs == 0


def test_changes_with_one_stamp_and_one_hash_are_one_step(venue, feed):
    for frame in venue.batch(1100, ("BUY", 5000, 1_000_000), ("SELL", 5300, 2_000_000), ("BUY", 4900, 3_000_000)):
        feed.send(frame, 1110)
    assert feed.settle() == {"verified": 6}


@pytest.mark.parametrize("inside", ["0.520", "0.480"])
def test_the_last_trade_price_is_in_force_before_its_print_and_may_be_the_complement(venue, feed, inside):
    venue.ltp = inside
    for frame in venue.frame(1100, ("SELL", 5200, 10_000_000)):
        feed.send(frame, 1110)
    feed.send(venue.trade(1120, "0.52"), 1190)
    assert feed.settle() == {"verified": 2}, "both forms were at hand, nothing had to be searched"


def test_a_last_trade_price_nobody_named_is_found(venue, feed):
    venue.ltp = "0.137"
    feed.send(venue.frame(1100, ("BUY", 5000, 1_000_000))[0], 1110)
    feed.send(venue.frame(1101, ("BUY", 5000, 2_000_000))[0], 1111)
    assert feed.settle() == {"verified": 4, "searches": 1}


def test_hashes_around_a_tick_change_are_of_either_tick(venue, feed):
    venue.tick = "0.001"
    feed.send(venue.frame(1100, ("BUY", 5000, 1_000_000))[0], 1110)
    feed.send({"event_type": "tick_size_change", "asset_id": UP, "timestamp": "1100", "new_tick_size": "0.001"}, 1111)
    venue.tick = "0.01"
    feed.send(venue.frame(1101, ("BUY", 5000, 2_000_000))[0], 1112)
    assert feed.settle()["verified"] == 4


def silent_cancel(venue, feed):
    del venue.bids[100]
    for i in range(4):
        feed.send(venue.frame(1100 + 100 * i, ("BUY", 5000, 1_000_000 + i))[0], 1110 + 100 * i)


def test_a_level_that_vanished_unsaid_is_seen_and_lasts_until_a_book_comes(venue, feed):
    silent_cancel(venue, feed)
    assert feed.settle()["mismatched"] == 8 and feed.proof.doubtful() and feed.proof.wrong(feed.now)
    assert feed.level(100)
    feed.send(venue.books(1500), 1700)
    feed.send(venue.frame(1501, ("BUY", 5000, 3_000_000))[0], 1701)
    counts = feed.settle()
    assert counts["silent"] == 2 and counts["verified"] == 4 and not feed.proof.doubtful() and not feed.level(100)


def test_one_mismatch_is_no_verdict(venue, feed):
    frame = venue.frame(1100, ("BUY", 5000, 1_000_000))[0]
    for entry in frame["price_changes"]:
        entry["hash"] = "12" * 20
    feed.send(frame, 1110)
    assert feed.settle()["mismatched"] == 2 and feed.proof.doubtful()
    assert not feed.proof.wrong(feed.now + 10 ** 10)
    feed.send(venue.frame(2100, ("BUY", 5000, 2_000_000))[0], 2110)
    feed.settle()
    assert not feed.proof.doubtful()


def test_a_recipe_nobody_knows_condemns_no_book(venue):
    feed = Feed(condition="0x" + "cd" * 32)
    feed.send(venue.books(1000), 1010)
    silent_cancel(venue, feed)
    counts = feed.settle()
    assert counts["mismatched"] == 10 and not counts["verified"]
    assert not feed.proof.sound and not feed.proof.wrong(feed.now) and not feed.proof.doubtful()


def test_what_cannot_be_decided_is_counted_and_never_as_verified(venue):
    feed = Feed()
    feed.send(venue.frame(990, ("BUY", 5000, 1_000_000))[0], 1000)
    assert feed.settle() == {"no_snapshot": 2}
    feed.send(venue.books(1000), 1400)
    feed.send(venue.frame(1000, ("BUY", 5000, 1_000_000))[0], 1401)     # taken before the book of its stamp
    feed.settle()
    feed.send(venue.frame(995, ("BUY", 5000, 1_000_000))[0], 1800)
    feed.settle()
    frame = venue.frame(1900, ("BUY", 5000, 5_000_000))[0]
    late = venue.frame(1901, ("BUY", 4900, 5_000_000))[0]
    feed.send(venue.frame(1902, ("BUY", 4800, 5_000_000))[0], 1910)
    feed.settle()
    feed.send(late, 2300)
    for entry in frame["price_changes"]:
        del entry["hash"]
    feed.settle()
    feed.send({**frame, "timestamp": "2400"}, 2400)
    feed.settle()
    feed.send(venue.frame(3000, ("BUY", 4700, 5_000_000))[0], 3000)
    counts = feed.settle(2000)
    assert {k: counts[k] for k in ("no_snapshot", "old", "late", "no_hash", "behind")} == {"no_snapshot": 4, "old": 2, "late": 2, "no_hash": 2, "behind": 2}
    assert counts["verified"] == 2, "the two books"
    assert counts["mismatched"] == 2, "1902 before 1900 and 1901 had come"


def test_a_log_that_was_overrun_says_how_much_was_lost(venue, feed):
    frame = venue.frame(1100, ("BUY", 5000, 1_000_000))[0]
    data = memoryview(json.dumps(frame).encode())
    for i in range(ev.LOG_ROWS // 2 + 10):
        feed.channel.on_frame(data, feed.now + i)
    assert feed.settle()["lost"] == 20


def test_the_allowance_bounds_a_turn(venue, feed):
    for i in range(50):
        feed.send(venue.frame(1100 + i, ("BUY", 5000, 1_000_000 + i))[0], 1110 + i)
    feed.now += HOLD_NS
    used = feed.proof.poll(feed.now, 10)
    assert 10 <= used <= 12 and feed.proof.counts["verified"] == used and feed.proof.waiting() == 100 - used


def test_a_proof_ends_the_suspicion_of_a_lost_frame_only_past_it(venue, feed):
    feed.send(venue.frame(1100, ("BUY", 5000, 1_000_000))[0], 1110)
    feed.channel.on_frame(memoryview(b"garbage"), feed.now)
    assert feed.market.suspect
    feed.send(venue.frame(1150, ("BUY", 5000, 2_000_000))[0], 1160)
    feed.settle()
    assert feed.market.suspect, "the garbage may have been a change of up to 100 ms later"
    feed.send(venue.frame(1600, ("BUY", 5000, 3_000_000))[0], 1610)
    feed.settle()
    assert not feed.market.suspect


def test_two_tops_stated_at_one_stamp_do_not_keep_a_proved_book_suspect(venue, feed):
    frame = venue.frame(1100, ("BUY", 4900, 1_000_000))[0]
    frame["price_changes"][0] |= {"best_bid": "0.5", "best_ask": "0.52"}
    feed.send(frame, 1110)
    feed.channel.mistrust(0, feed.now + bk.GRACE_NS + 1)
    assert feed.market.suspect, "0.5 was the venue's best bid, it says"
    feed.settle()
    assert not feed.market.suspect, "but its checksum says 0.51"


def test_rest_books_are_witnessed_by_the_hashes_frames_stated(venue, feed):
    feed.send(venue.frame(1100, ("BUY", 5000, 1_000_000))[0], 1110)
    scratch = feed.channel.scratch
    bk.reset(scratch.frame, 0)
    for side, found in ((0, venue.bids), (1, venue.asks)):
        for px, size in found.items():
            bk.put(scratch.frame, 0, side, px, size, 1100)
    assert feed.proof.witnessed(scratch.frame, 0, 1100) and not feed.proof.witnessed(scratch.frame, 0, 1101)
    bk.put(scratch.frame, 0, 0, 5000, 1, 1100)
    assert not feed.proof.witnessed(scratch.frame, 0, 1100)


CAPTURE, SESSIONS = os.environ.get("MARKET_CAPTURE", ""), os.environ.get("MARKET_SESSIONS", "")


@pytest.mark.skipif(not CAPTURE, reason="MARKET_CAPTURE names no recording of raw market frames (jsonl.gz with a payload per line)")
def test_a_real_recording_verifies():
    run = bench.replay(CAPTURE)
    counts = run.market.proof.counts
    changes = counts["verified"] - counts["books"]
    assert changes >= 10_250 and counts["mismatched"] <= 100, "99 % of the change hashes of both tokens"
    assert counts["books"] >= 140 and counts["books_bad"] == 0 and counts["silent"] == 0
    assert run.tops["agree"] >= 0.9996 * run.tops["stated"] and run.tops["stated"] > 5000
    assert run.wrong == run.odd_prints == 0 and not run.bad


@pytest.mark.skipif(not SESSIONS, reason="MARKET_SESSIONS names no recording of sessions (jsonl.gz with source and payload per line)")
def test_recorded_rest_books_verify():
    assert bench.session_books(SESSIONS) == {"rest": 552, "rest_ok": 552, "ws": 318, "ws_ok": 318}
