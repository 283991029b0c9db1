"""The book against a plain model: any order of arrival gives the same book, snapshots never undo newer changes, records tell the top."""

import itertools
import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmbot.books import book as bk
from shm_layout import records as r

UP, DOWN, BID, ASK = r.UP, r.DOWN, r.BUY, r.SELL


def change(*rows) -> np.ndarray:
    """Rows of (token, side, px_e4, size_u6[, venue bid, venue ask])."""
    return np.array([[*row, -1, -1, 0, 0, 0][:9] if len(row) == 4 else [*row, 0, 0, 0] for row in rows], np.int64).ravel()


def text(levels: dict[int, int]) -> np.ndarray:
    data = json.dumps([{"price": f"{p / 1e4:.4f}", "size": f"{s // 10**6}.{s % 10**6:06d}"} for p, s in sorted(levels.items())])
    return np.frombuffer(data.encode(), np.uint8)


def snapshot(mem, token, t_ms, bids, asks) -> int:
    scratch = np.zeros(2 * bk.POINTS, np.int64), np.zeros(2 * bk.POINTS, np.int64)
    return bk.apply_snapshot(mem, token, t_ms, text(bids), text(asks), *scratch)


def side_of(mem, token, side) -> dict[int, int]:
    px, size = np.zeros(bk.POINTS, np.int64), np.zeros(bk.POINTS, np.int64)
    n = bk.levels(mem, token, side, px, size)
    return dict(zip(px[:n].tolist(), size[:n].tolist(), strict=True))


def record() -> np.ndarray:
    return np.zeros(1, r.MARKET)


def fill(mem, rec, now_ns=1) -> int:
    return bk.fill_record(mem, now_ns, rec.view(np.int64))


@pytest.fixture
def mem():
    return bk.new_book()


class Model:
    """The rule in plain words: a point has the value of the newest thing said about it, a snapshot says something about every point."""

    def __init__(self):
        self.said = {(token, side): {} for token in (UP, DOWN) for side in (BID, ASK)}   # px -> (t, size)
        self.floor = {UP: 0, DOWN: 0}

    def change(self, token, side, px, size, t):
        self._say(token, side, px, size, t, own=True)
        self._say(1 - token, 1 - side, 10_000 - px, size, t, own=False)

    def _say(self, token, side, px, size, t, own):
        known = max(self.said[token, side].get(px, (0, 0))[0], self.floor[token])
        if t > known or (own and t == known):
            self.said[token, side][px] = (t, size)

    def snapshot(self, token, t, bids, asks):
        if t < self.floor[token]:
            return
        for side, levels in ((BID, bids), (ASK, asks)):
            said = self.said[token, side]
            for px in set(said) | set(levels):
                if said.get(px, (0, 0))[0] <= t:
                    said[px] = (said.get(px, (0, 0))[0], levels.get(px, 0))
        self.floor[token] = t

    def levels(self, token, side):
        return {px: size for px, (_, size) in self.said[token, side].items() if size}


ops = st.lists(st.one_of(
    st.tuples(st.just("c"), st.integers(0, 1), st.integers(0, 1), st.integers(1, 9999), st.sampled_from([0, 0, 5, 10**9, 7 * 10**6]),
              st.integers(1, 40)),
    st.tuples(st.just("s"), st.integers(0, 1), st.dictionaries(st.integers(1, 9999), st.sampled_from([1, 10**6, 3]), max_size=6),
              st.dictionaries(st.integers(1, 9999), st.sampled_from([1, 10**6, 3]), max_size=6), st.integers(1, 40))), max_size=60)


@given(ops)
@settings(max_examples=200, deadline=None)
def test_the_book_is_the_model(operations):
    mem, model = bk.new_book(), Model()
    for op in operations:
        if op[0] == "c":
            _, token, side, px, size, t = op
            bk.apply_changes(mem, change((token, side, px, size)), 1, t)
            model.change(token, side, px, size, t)
        else:
            _, token, bids, asks, t = op
            snapshot(mem, token, t, bids, asks)
            model.snapshot(token, t, bids, asks)
        for token, side in itertools.product((UP, DOWN), (BID, ASK)):
            assert side_of(mem, token, side) == model.levels(token, side)
        for token in (UP, DOWN):
            bids, asks = model.levels(token, BID), model.levels(token, ASK)
            assert bk.top(mem, token) == (max(bids, default=0), min(asks, default=10_000))


def test_any_order_of_arrival_gives_the_same_book():
    """Frames of 60 ms shuffled, a late snapshot among them: the end is that of the ordered stream."""
    rng = random.Random(7)
    start = {5100 - 100 * i: 10**6 for i in range(10)}, {5200 + 100 * i: 10**6 for i in range(10)}
    truth = Model()
    truth.snapshot(UP, 1000, *start)
    events, states = [], {}
    for t in range(1001, 1061):
        side = rng.choice((BID, ASK))
        px = rng.choice(range(4000, 5200, 100)) if side == BID else rng.choice(range(5200, 6400, 100))
        row = (UP, side, px, rng.choice((0, 2 * 10**6, 5 * 10**6)), t)
        truth.change(*row)
        events.append(("c", *row))
        states[t] = (truth.levels(UP, BID), truth.levels(UP, ASK))
    events.append(("s", UP, 1030, *states[1030]))
    for seed in range(30):
        random.Random(seed).shuffle(events)
        mem = bk.new_book()
        snapshot(mem, UP, 1000, *start)
        for e in events:
            if e[0] == "c":
                bk.apply_changes(mem, change(e[1:5]), 1, e[5])
            else:
                snapshot(mem, e[1], e[2], e[3], e[4])
        assert (side_of(mem, UP, BID), side_of(mem, UP, ASK)) == states[1060]


def test_a_late_snapshot_does_not_roll_back(mem):
    snapshot(mem, UP, 100, {5100: 10}, {5200: 10})
    bk.apply_changes(mem, change((UP, BID, 5150, 7), (UP, BID, 5100, 0)), 2, 140)
    assert snapshot(mem, UP, 120, {5100: 10, 5000: 3}, {5200: 11}) == 1
    assert side_of(mem, UP, BID) == {5150: 7, 5000: 3} and side_of(mem, UP, ASK) == {5200: 11}
    assert snapshot(mem, UP, 110, {1000: 1}, {}) == 0


def test_a_snapshot_repairs_a_silent_removal(mem):
    snapshot(mem, UP, 100, {5100: 10, 4000: 9}, {5200: 10})
    snapshot(mem, UP, 200, {5100: 10}, {5200: 10})
    assert side_of(mem, UP, BID) == {5100: 10}
    assert bk.apply_changes(mem, change((UP, BID, 4000, 9)), 1, 150) == 0, "a change older than the snapshot"
    assert mem[bk.H_DROPPED] == 1


def test_a_down_change_is_an_up_change(mem):
    bk.apply_changes(mem, change((DOWN, BID, 4900, 5)), 1, 10)
    assert side_of(mem, UP, ASK) == {5100: 5} and side_of(mem, DOWN, BID) == {4900: 5}


def test_a_tokens_own_word_wins_at_equal_times(mem):
    bk.apply_changes(mem, change((UP, ASK, 5100, 6), (DOWN, BID, 4900, 5)), 2, 10)
    assert side_of(mem, UP, ASK) == {5100: 6} and side_of(mem, DOWN, BID) == {4900: 5}


def test_a_bad_snapshot_changes_nothing(mem):
    snapshot(mem, UP, 100, {5100: 10}, {5200: 10})
    scratch = np.zeros(2 * bk.POINTS, np.int64), np.zeros(2 * bk.POINTS, np.int64)
    bad = np.frombuffer(b'[{"price":"0.5","size":"x"}]', np.uint8)
    before = mem.copy()
    assert bk.apply_snapshot(mem, UP, 200, text({5000: 1}), bad, *scratch) < 0
    assert (mem == before).all()


def test_the_record_holds_the_best_levels_in_up_terms(mem):
    snapshot(mem, UP, 100, {p: p for p in range(100, 5200, 100)}, {p: p for p in range(5200, 10_000, 100)})
    snapshot(mem, DOWN, 100, {p: 10_000 - p for p in range(100, 4900, 100)}, {p: 10_000 - p for p in range(4900, 10_000, 100)})
    rec = record()
    assert fill(mem, rec) == 1
    m = rec[0]
    assert m["bid_px_e4"].tolist() == [5100, 5000, 4900, 4800, 4700] and m["ask_px_e4"].tolist() == [5200, 5300, 5400, 5500, 5600]
    assert m["bid_size_u6"].tolist() == m["bid_px_e4"].tolist() and m["ask_size_u6"].tolist() == m["ask_px_e4"].tolist()
    assert (m["n_bid"], m["n_ask"], m["flags"]) == (5, 5, 0)
    assert fill(mem, rec) == 0, "nothing changed"
    bk.apply_changes(mem, change((UP, BID, 4000, 1)), 1, 101)
    assert fill(mem, rec) == 0, "below the top"
    bk.apply_changes(mem, change((UP, BID, 5100, 0)), 1, 102)
    assert fill(mem, rec) == 1 and rec[0]["bid_px_e4"].tolist() == [5000, 4900, 4800, 4700, 4600]


def test_neighbouring_points_are_not_skipped(mem):
    snapshot(mem, UP, 100, {p: 1 for p in range(5090, 5101)}, {p: 1 for p in range(5110, 5121)})
    rec = record()
    fill(mem, rec)
    assert rec[0]["bid_px_e4"].tolist() == [5100, 5099, 5098, 5097, 5096] and rec[0]["ask_px_e4"].tolist() == [5110, 5111, 5112, 5113, 5114]


def test_an_emptied_side_leaves_no_stale_levels(mem):
    snapshot(mem, UP, 100, {5100: 10, 5000: 10}, {5200: 10})
    rec = record()
    fill(mem, rec)
    bk.apply_changes(mem, change((UP, BID, 5100, 0), (UP, BID, 5000, 0)), 2, 101)
    assert fill(mem, rec) == 1
    assert rec[0]["n_bid"] == 0 and not rec[0]["bid_px_e4"].any() and not rec[0]["bid_size_u6"].any()
    assert bk.top(mem, UP) == (0, 5200)


@pytest.mark.parametrize("px", [1, 63, 64, 65, 127, 128, 9983, 9984, 9999])
def test_word_borders_of_the_occupied_bits(mem, px):
    bk.apply_changes(mem, change((UP, BID, px, 5), (UP, ASK, px, 6)), 2, 10)
    assert bk.top(mem, UP) == (px, px)
    assert side_of(mem, UP, BID) == {px: 5}
    bk.apply_changes(mem, change((UP, BID, px, 0), (UP, ASK, px, 0)), 2, 11)
    assert bk.top(mem, UP) == (0, 10_000)


def test_suspect_until_the_first_snapshot_and_after_a_fault(mem):
    rec = record()
    fill(mem, rec)
    assert rec[0]["flags"] & r.MF_SUSPECT
    snapshot(mem, UP, 100, {5100: 10}, {5200: 10})
    fill(mem, rec)
    assert not rec[0]["flags"]
    bk.add_fault(mem, bk.FAULT_BAD_FRAME)
    bk.apply_changes(mem, change((UP, BID, 5000, 5)), 1, 101)
    assert fill(mem, rec) == 1 and rec[0]["flags"] & r.MF_SUSPECT
    snapshot(mem, DOWN, 101, {4800: 10}, {4900: 10})
    fill(mem, rec)
    assert rec[0]["flags"] & r.MF_SUSPECT, "the Down token is not the primary one"
    snapshot(mem, UP, 102, {5100: 10, 5000: 5}, {5200: 10})
    fill(mem, rec)
    assert not rec[0]["flags"]


def test_crossed_books_say_so(mem):
    snapshot(mem, UP, 100, {5200: 10}, {5200: 10})
    rec = record()
    fill(mem, rec)
    assert rec[0]["flags"] & r.MF_CROSSED


def test_tops_that_disagree_for_long_are_suspect(mem):
    snapshot(mem, UP, 100, {5100: 10}, {5200: 10})
    snapshot(mem, DOWN, 100, {4800: 10}, {4950: 10})
    rec = record()
    fill(mem, rec, 1_000)
    assert not rec[0]["flags"], "a moment is normal"
    fill(mem, rec, 1_000 + bk.GRACE_NS + 1)
    assert rec[0]["flags"] & r.MF_SUSPECT
    bk.apply_changes(mem, change((DOWN, ASK, 4950, 0), (DOWN, ASK, 4900, 10)), 2, 101)
    fill(mem, rec, 1_000 + bk.GRACE_NS + 2)
    assert not rec[0]["flags"], "they agree again"


def test_the_top_the_venue_states_is_checked(mem):
    snapshot(mem, UP, 100, {5100: 10, 5000: 10}, {5200: 10})
    rec = record()
    bk.apply_changes(mem, change((UP, BID, 4000, 5, 5000, 5200)), 1, 101)
    fill(mem, rec, 1)
    fill(mem, rec, 2 + bk.GRACE_NS)
    assert rec[0]["flags"] & r.MF_SUSPECT, "we still show 0.51, the venue does not"
    bk.apply_changes(mem, change((UP, BID, 4000, 6, 5100, 5200)), 1, 99)
    assert mem[bk.H_VENUE] == 5000, "an older statement changes nothing"


def test_reset_frees_the_slot(mem):
    snapshot(mem, UP, 100, {5100: 10}, {5200: 10})
    bk.set_trade(mem, UP, 5100)
    bk.reset(mem, 10)
    fresh = bk.new_book()
    bk.reset(fresh, 10)
    assert (mem == fresh).all()


def test_trades_keep_the_text_price_and_the_up_price(mem):
    bk.set_trade(mem, DOWN, 4800)
    assert (mem[bk.H_LAST_TRADE_RAW], mem[bk.H_LAST_TRADE_UP]) == (4800, 5200)


def test_a_new_tick_is_a_new_epoch_and_keeps_the_levels(mem):
    bk.reset(mem, 100)
    snapshot(mem, UP, 100, {9600: 10}, {9700: 10})
    bk.set_tick(mem, 10)
    bk.set_tick(mem, 10)
    rec = record()
    fill(mem, rec)
    assert (mem[bk.H_EPOCH], rec[0]["tick_e4"], rec[0]["n_bid"]) == (1, 10, 1)
