"""The others' book: our own orders never move the fair value, whatever comes first, the executor's word or the venue's frame."""

import random

import pytest

from core_world import World, quoting
from mmbot import core
from mmbot.books import others
from shm_layout import records as r

MS = 0.001
FLAT = dict(model_weight=0.0, k_time=0.0, k_vol=0.0, k_spread=0.0, k_fast=0.0)
WIDE = ([(4800, 250)], [(5200, 250)])
SETTLED = others.SETTLE_NS / 1e9 + MS


@pytest.fixture
def world():
    w, w.slot = quoting(**FLAT)
    w.wait(1 * MS)
    w.rest()
    w.levels(*WIDE)
    return w


def best(w):
    """Best bid and ask that the core prices from."""
    slot = w.state["slot"][0, w.slot]
    return int(slot["bid_px_e4"]), int(slot["ask_px_e4"])


def later(w, ms=1.0):
    w.wait(ms * MS)
    return w


def join(w, *orders, bids=WIDE[0], asks=WIDE[1]):
    """Orders are sent, then the venue shows them."""
    later(w).rest(*orders)
    later(w).levels(bids, asks)


class TestOwnLevels:
    def test_own_orders_alone_are_not_the_market(self, world):
        join(world, (r.UP, 4900, 20), (r.DOWN, 4900, 20), bids=[(4900, 20), (4800, 250)], asks=[(5100, 20), (5200, 250)])
        assert best(world) == (4800, 5200) and world.target(world.slot)["mid_up"] == pytest.approx(0.5)

    def test_without_the_executors_word_they_would_be(self, world):
        """What this file is about: the same book, nothing known of our own orders."""
        later(world).levels([(4900, 20), (4800, 250)], [(5100, 20), (5200, 250)])
        assert best(world) == (4900, 5100)

    @pytest.mark.parametrize("order, seen", [((r.UP, 4900, 20), (4800, 5100)), ((r.DOWN, 4900, 20), (4900, 5200)),
                                             ((r.UP, 5100, 20, r.SELL), (4900, 5200)), ((r.DOWN, 5100, 20, r.SELL), (4800, 5100))])
    def test_every_kind_of_order_rests_on_its_side(self, world, order, seen):
        join(world, order, bids=[(4900, 20), (4800, 250)], asks=[(5100, 20), (5200, 250)])
        assert best(world) == seen

    def test_others_at_our_price_keep_the_level(self, world):
        bids = [(4900, 20), (4800, 250)]
        join(world, (r.UP, 4900, 20), bids=bids)
        later(world).levels([(4900, 25), (4800, 250)], WIDE[1])
        assert best(world) == (4900, 5200)
        later(world).levels([(4900, 20.009), (4800, 250)], WIDE[1])
        assert best(world) == (4800, 5200), "dust is no level"

    def test_orders_at_one_price_add_up(self, world):
        bids = [(4900, 45), (4800, 250)]
        join(world, (r.UP, 4900, 20), (r.DOWN, 5100, 25, r.SELL), bids=bids)
        assert best(world) == (4800, 5200)

    def test_a_side_that_is_all_ours_is_empty(self, world):
        mine = [(4900 - 100 * i, 20) for i in range(r.TOP_N)]
        later(world).levels([(4300, 250)], WIDE[1])
        join(world, *[(r.UP, px, size) for px, size in mine], bids=[*mine, (4300, 250)])
        assert best(world)[0] == 0 and world.gates(world.slot) == {"empty_book"}

    def test_the_post_only_limit_is_the_others(self):
        w, w.slot = quoting(**FLAT, target_total=0.999, target_total_max=0.9995)
        later(w).rest((r.DOWN, 4900, 20))
        later(w).levels([(4900, 250)], [(5100, 20), (5300, 250)])
        assert best(w) == (4900, 5300) and w.target(w.slot)["mid_up"] == pytest.approx(0.51)
        assert max(px for t, _, px, _ in w.quotes(w.slot) if t == r.UP) >= 5000

    def test_another_windows_orders_do_not_count(self, world):
        later(world).levels([(4900, 20), (4800, 250)], WIDE[1])
        world.own["market_id"] += 3_600_000
        world.own["n"], world.own["order"][0, 0], world.own["t_update_ns"] = 1, (r.UP, r.BUY, 4900, 20_000_000, 1), 1
        later(world).step(r.SRC_OWN)
        assert best(world) == (4900, 5200)

    @pytest.mark.parametrize("fields", [dict(slot=-1), dict(slot=8), dict(n=-3), dict(n=0), dict(order=(7, 0, 4900, 20_000_000, 1)),
                                        dict(order=(0, -1, 4900, 20_000_000, 1)), dict(order=(0, 0, 4900, -5, 1))])
    def test_a_word_that_makes_no_sense_does_no_harm(self, world, fields):
        later(world).levels([(4900, 20), (4800, 250)], WIDE[1])
        world.own["n"], world.own["t_update_ns"] = 1, 1
        world.own["order"][0, 0] = (r.UP, r.BUY, 4900, 20_000_000, 1)
        for name, value in fields.items():
            world.own[name] = value
        later(world).step(r.SRC_OWN)
        assert best(world) == (4900, 5200)


class TestTiming:
    """The executor's word and the book are never of the same moment."""

    def test_an_order_just_sent_does_not_hide_thinner_others(self, world):
        thin = [(4900, 10), (4800, 250)]
        later(world).levels(thin, WIDE[1])
        assert later(world).rest((r.UP, 4900, 20)) == 0 and best(world) == (4900, 5200)
        later(world).levels(thin, [(5200, 240)])
        assert best(world) == (4900, 5200), "a frame from before our order arrived"
        later(world).levels([(4900, 30), (4800, 250)], WIDE[1])
        assert best(world) == (4900, 5200)
        later(world).levels([(4900, 20), (4800, 250)], WIDE[1])
        assert best(world) == (4800, 5200), "they left, we are alone"

    @pytest.mark.parametrize("frame_first", [True, False])
    def test_a_cancel_answered_before_or_after_it_is_shown(self, world, frame_first):
        join(world, (r.UP, 4900, 20), bids=[(4900, 20), (4800, 250)])
        acts = [lambda: later(world).levels(*WIDE), lambda: later(world).rest()]
        for act in acts if frame_first else acts[::-1]:
            act()
            assert best(world) == (4800, 5200)
        later(world).levels([(4900, 10), (4800, 250)], WIDE[1])
        assert best(world) == (4900, 5200), "whoever comes there now is not us"

    @pytest.mark.parametrize("frame_first", [True, False])
    def test_a_fill_told_before_or_after_it_is_shown(self, world, frame_first):
        join(world, (r.UP, 4900, 20), bids=[(4900, 20), (4800, 250)])
        acts = [lambda: later(world).levels([(4900, 15), (4800, 250)], WIDE[1]), lambda: later(world).rest((r.UP, 4900, 15))]
        for act in acts if frame_first else acts[::-1]:
            act()
            assert best(world) == (4800, 5200)

    def test_an_order_refused_was_never_there(self, world):
        thin = [(4900, 10), (4800, 250)]
        later(world).levels(thin, WIDE[1])
        for orders in ([(r.UP, 4900, 20)], []):
            later(world).rest(*orders)
            later(world).levels(thin, WIDE[1])
            assert best(world) == (4900, 5200)

    def test_a_replacement_at_the_same_price(self, world):
        for own, shown in ((20, 20), (50, 20), (50, 50), (30, 50), (30, 30)):
            later(world).rest((r.UP, 4900, own))
            assert best(world) == (4800, 5200)
            later(world).levels([(4900, shown), (4800, 250)], WIDE[1])
            assert best(world) == (4800, 5200)

    def test_a_book_received_after_the_send_shows_the_order(self, world):
        """The core was held up: it read the frame first, and the word it reads then is already about a later event."""
        later(world).levels([(4900, 20), (4800, 250)], WIDE[1])
        sent_ns = world.now_ns - 1000
        world.own["t_update_ns"], world.own["n"] = later(world).now_ns, 1
        world.own["order"][0, 0] = (r.UP, r.BUY, 4900, 20_000_000, sent_ns)
        world.step(r.SRC_OWN)
        assert best(world) == (4800, 5200)

    def test_time_settles_what_no_frame_shows(self, world):
        """They left by our size when we joined: for a while our order looks like theirs, then the timer ends it."""
        later(world).levels([(4900, 20), (4800, 250)], WIDE[1])
        later(world).rest((r.UP, 4900, 20))
        later(world).levels([(4900, 20), (4800, 250)], WIDE[1])
        assert best(world) == (4900, 5200)
        world.wait(SETTLED)
        world.timer()
        assert best(world) == (4800, 5200)

    def test_time_ends_the_hiding_of_others_too(self, world):
        """A cancel shown first, with thinner others behind it."""
        join(world, (r.UP, 4900, 20), bids=[(4900, 30), (4800, 250)])
        later(world).levels([(4900, 10), (4800, 250)], WIDE[1])
        later(world).rest()
        assert best(world) == (4800, 5200)
        world.wait(SETTLED)
        world.timer()
        assert best(world) == (4900, 5200)

    def test_entries_are_used_again(self, world):
        for i in range(200):
            px = 4900 - 100 * (i % 7) - i % 100
            join(world, (r.UP, px, 20), (r.DOWN, px, 20), bids=[(px, 20), (1000, 250)], asks=[(10_000 - px, 20), (9000, 250)])
            assert best(world) == (1000, 9000)
        assert int(world.state["others"][0, world.slot]["n_own"]) <= 6


class Venue:
    """Others' levels and our orders at a venue; frames and answers come when, and in the order, the test says."""

    def __init__(self, world, tell=True):
        self.w, self.tell = world, tell
        self.bids, self.asks = {4800: 250, 4700: 100, 4600: 100}, {5200: 250, 5300: 100, 5400: 100}
        self.known, self.arrived = {}, {}         # (token, px) -> shares: as the executor counts, as the venue has

    def frame(self):
        bids, asks = dict(self.bids), dict(self.asks)
        for (token, px), shares in self.arrived.items():
            side, at = (bids, px) if token == r.UP else (asks, 10_000 - px)
            side[at] = side.get(at, 0) + shares
        return later(self.w, 0.2).levels(sorted(bids.items(), reverse=True), sorted(asks.items()))

    def say(self):
        return later(self.w, 0.2).rest(*((t, px, n) for (t, px), n in self.known.items())) if self.tell else 0

    def follow(self, rng):
        """Make our orders equal to the quotes, as the executor does. Returns how often the quotes changed on the way."""
        wanted = {}
        for token, _, px, size in self.w.quotes(self.w.slot):
            wanted[token, px] = wanted.get((token, px), 0) + size / 1e6
        changes = 0
        for key, n in wanted.items():
            self.known[key] = max(n, self.known.get(key, 0))
        changes += bool(self.say() & 0xFF)          # sent
        changes += bool(self.frame() & 0xFF)        # a frame that was on its way
        self.arrived = dict(self.known)
        changes += bool(self.frame() & 0xFF)        # the new orders stand beside the old
        self.arrived = dict(wanted)
        acts = [self.frame, self._answered]
        self._wanted = wanted
        for act in rng.sample(acts, 2):
            changes += bool(act() & 0xFF)
        return changes

    def _answered(self):
        self.known = dict(self._wanted)
        return self.say()

    def shift(self, ticks):
        self.bids = {px + 100 * ticks: n for px, n in self.bids.items()}
        self.asks = {px + 100 * ticks: n for px, n in self.asks.items()}
        return self.frame()


def venue(tell=True):
    w, w.slot = quoting(**FLAT)
    later(w).rest()
    v = Venue(w, tell)
    v.frame()
    return w, v


class TestClosedLoop:
    def test_quotes_follow_the_others_one_change_a_step(self):
        w, v = venue()
        rng = random.Random(3)
        assert v.follow(rng) == 0 and best(w) == (4800, 5200)
        assert {(t, px) for t, lv, px, _ in w.quotes(w.slot) if lv == 0} == {(r.UP, 4900), (r.DOWN, 4900)}, "inside the others' spread"
        for i in range(60):
            ticks = 1 if i % 2 == 0 else -1
            before = w.quotes(w.slot)
            assert v.shift(ticks) & 0xFF, "the others moved"
            assert w.quotes(w.slot) == [(t, lv, px + (100 if t == r.UP else -100) * ticks, n) for t, lv, px, n in before]
            assert v.follow(rng) == 0, "our own orders coming and going change nothing"
            w.lead(), w.print()

    @pytest.mark.parametrize("shares", [1, 12, 20, 35])
    def test_thin_others_are_joined_without_flapping(self, shares):
        w, v = venue()
        rng = random.Random(5)
        v.bids, v.asks = {4900: shares, 4800: 250}, {5000: shares, 5100: 250}
        v.frame()
        assert v.follow(rng) == 0 and best(w) == (4900, 5000)
        for _ in range(5):
            assert not v.frame() & 0xFF and best(w) == (4900, 5000)

    def test_a_core_that_is_not_told_gets_stuck(self):
        """The mutant: the same loop without the executor's word goes after its own quotes."""
        w, v = venue(tell=False)
        rng = random.Random(3)
        v.follow(rng)
        assert best(w) != (4800, 5200)
        followed = 0
        for i in range(10):
            v.shift(1 if i % 2 == 0 else -1)
            v.follow(rng)
            followed += w.target(w.slot)["mid_up"] == pytest.approx(0.51 if i % 2 == 0 else 0.50)
        assert followed < 10

    def test_a_restarted_core_is_told_again(self):
        w, v = venue()
        v.follow(random.Random(1))
        again = World(**FLAT)
        again.slot, again.now_ns = w.slot, w.now_ns
        again.add_window()
        again.own[:] = w.own
        again.step(r.SRC_OWN)
        again.market[:] = w.market
        again.step(r.SRC_MARKET)
        assert best(again) == best(w) == (4800, 5200)


def test_state_is_numbers_only():
    assert core.STATE.fields["others"][0].base == others.OTHERS
