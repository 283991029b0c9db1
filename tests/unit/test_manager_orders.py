"""The fate of single orders: deadlines, late answers, the same bytes twice, zombies, silence, ticks, self-trades. Against the venue double."""

import json
import random

import numpy as np
import pytest
from order_world import MARKET, MS, SLOT, START_S, World

from mmbot.execution.http1 import HttpAnswer, UnknownOutcome
from mmbot.execution.order import CANCELING, LIVE
from mmbot.execution.order_journal import replay
from shm_layout import records as r

TEN, TWENTY = 10_000_000, 20_000_000
UP, DOWN = (0, 0, 5000, 20), (1, 0, 4900, 20)


@pytest.fixture
def w(tmp_path):
    return World(tmp_path).ready()


def sent(world, kind):
    return [what for k, what in world.venue.log if k == kind]


def pass_time(w, ms, step=20, ttl_ms=500):
    """Time goes by: the guardian allows, the core keeps its word, what is unknown is asked about."""
    for _ in range(int(ms / step)):
        w.now += step * MS
        w.guard()
        if w.links.targets.cells[SLOT] is not None:
            w.refresh(ttl_ms)
        w.wake()
        if w.m.unknown or w.m.cut:
            w.run(w.recovery.resolve_unknown())
        if w.m.resync_reason or w.m.reread:
            w.run(w.recovery.compare())


def say_accepted(later, order_id, now, status="live"):
    later.settle(HttpAnswer(200, {}, json.dumps({"success": True, "errorMsg": "", "orderID": order_id, "status": status}).encode(), now - MS, now))


class TestDeadline:
    def test_what_the_core_goes_on_wanting_may_be_posted_long_after_it_was_decided(self, w):
        """A target is written again only to live longer: its stamps stay those of the decision, and yet it says that all of it is still wanted."""
        w.target(UP)
        (order_id,) = w.venue.live()
        w.venue.fill(order_id, TWENTY)
        w.m.by_market[MARKET].limits.hold_ns[0] = w.now + 3000 * MS
        for _ in range(200):
            w.now += 20 * MS
            w.guard()
            rec = w.links.targets.cells[SLOT].copy().view(r.TARGET)
            rec["deadline_ns"] = w.now + 500 * MS
            w.links.targets.set(rec, SLOT)
            w.wake()
        (o,) = w.keys()[0, 0]
        assert len(w.venue.live()) == 1 and o.deadline_ns == o.t_sent_ns + 1500 * MS

    def test_every_order_carries_its_deadline(self, w):
        w.target(UP)
        event = next(e for e in w.links.orders.published if e["kind"] == r.OE_SENT)
        assert event["deadline_ns"] == event["t_decide_ns"] + 1500 * MS or event["deadline_ns"] == w.now + 1500 * MS

    def test_past_the_deadline_nothing_is_sent(self, tmp_path):
        w = World(tmp_path, order_deadline_ms=100).ready()
        w.target(UP, ttl_ms=60_000, wake=False)
        w.tick(101)
        assert not sent(w, "post") and w.report.events["targets_expired"]
        w.guard()
        w.refresh(60_000)
        w.tick(2)
        assert len(w.venue.live()) == 1, "the core has said again that it wants it"

    def test_an_answer_after_the_deadline_is_cancelled_at_once(self, w):
        w.venue.auto = w.venue.tell = False
        w.target(UP, ttl_ms=60_000)
        later = w.venue.waiting.pop()
        w.now += 1400 * MS
        w.guard()
        w.refresh(1)
        assert not sent(w, "cancel")
        w.venue._carry_out(*later.request)
        (order_id,) = w.venue.live()
        w.venue.auto = True
        w.now += 150 * MS
        say_accepted(later, order_id, w.now)
        w.flush()
        assert sent(w, "cancel") == [[order_id]] and not w.venue.live() and not w.keys()
        assert r.OE_LATE in w.kinds() and w.report.events["late_acks"] == 1

    def test_a_placement_after_the_deadline_is_cancelled_at_once(self, w):
        w.venue.auto = w.venue.tell = False
        w.target(UP, ttl_ms=60_000)
        later = w.venue.waiting.pop()
        w.now += 2000 * MS
        w.venue._carry_out(*later.request)
        (order_id,) = w.venue.live()
        w.venue.auto = True
        w.say_order(order_id, r.UT_PLACEMENT, r.ST_LIVE)
        assert not w.venue.live() and r.OE_LATE in w.kinds()
        w.guard()
        say_accepted(later, order_id, w.now)
        w.flush()
        pass_time(w, 1000)
        assert w.agrees() and not w.m.unknown

    def test_late_orders_are_counted_once_and_their_fills_apart(self, w):
        """The first sign of life of an order may be its trade: what it cost against the mid is told apart from what was bought in time."""
        w.target(UP, ttl_ms=60_000, mid=0.51)
        w.venue.fill(next(iter(w.venue.live())), TWENTY)
        assert (w.account()["late"], w.account()["late_u6"], w.account()["spread_u6"]) == (0, 0, 200_000)
        w.target(ttl_ms=60_000)
        w.tick(300)
        w.guard()
        w.venue.auto = w.venue.tell = False
        w.target((0, 0, 4900, 20), ttl_ms=60_000, mid=0.5)
        later = w.venue.waiting.pop()
        w.now += 2000 * MS
        w.guard()
        w.venue._carry_out(*later.request)
        (order_id,) = w.venue.live()
        w.target((0, 0, 4900, 20), ttl_ms=60_000, mid=0.46, wake=False)
        w.say_trade(order_id, w.venue.fill(order_id, TEN, tell=False), TEN)
        w.venue.auto = True
        say_accepted(later, order_id, w.now)
        w.flush()
        w.wake()
        a = w.account()
        assert (a["late"], a["late_u6"]) == (1, -300_000) and w.report.events["late_acks"] == 1 and not w.venue.live()

    def test_without_an_answer_it_is_cancelled_by_its_id_at_the_deadline(self, w):
        """The POST hangs: it may rest or not. Nobody waits for the timeout."""
        w.venue.auto = w.venue.tell = False
        w.target(UP, ttl_ms=60_000)
        later = w.venue.waiting.pop()
        (order_id, _), = later.request[1]
        w.venue._carry_out(*later.request)
        w.venue.auto = True
        w.now += 1490 * MS
        w.guard()
        w.refresh(60_000)
        assert not sent(w, "cancel")
        w.tick(20)
        assert sent(w, "cancel") == [[order_id]] and order_id not in w.venue.live()

    def test_a_timed_out_post_is_cancelled_by_its_id_at_once(self, tmp_path):
        """Also when its deadline is still to come; a cut connection alone is asked about first."""
        for waited_ms, cancels in ((600, 1), (5, 0)):
            w = World(tmp_path / str(cancels), request_timeout_s=0.5).ready()
            w.venue.auto = w.venue.tell = False
            w.target(UP, ttl_ms=60_000)
            later, sent_ns = w.venue.waiting.pop(), w.now
            w.venue._carry_out(*later.request)
            (order_id,) = w.venue.live()
            w.now += waited_ms * MS
            later.settle(UnknownOutcome("no answer", sent_ns))
            assert sent(w, "cancel") == [[order_id]] * cancels and order_id in w.m.unknown

    def test_a_post_that_arrives_after_its_cancel_is_cancelled_again(self, w):
        w.venue.auto = False
        w.target(UP, ttl_ms=60_000)
        later = w.venue.waiting.pop()
        w.venue.auto = True
        w.now += 1600 * MS
        w.guard()
        w.wake()
        assert len(sent(w, "cancel")) == 1 and not w.venue.orders
        w.venue._carry_out(*later.request)
        (order_id,) = w.venue.live()
        w.now += 50 * MS
        say_accepted(later, order_id, w.now)
        w.flush()
        assert not w.venue.live() and len(sent(w, "cancel")) == 2

    def test_given_up_as_absent_and_yet_it_appears(self, w):
        """The queue at the edge held the POST for ten seconds; it was asked about four times and given up."""
        w.venue.auto = False
        w.target(UP, ttl_ms=60_000)
        later = w.venue.waiting.pop()
        w.venue.auto = True
        w.target()
        pass_time(w, 8000, step=50)
        assert not w.keys() and not w.m.unknown
        w.venue._carry_out(*later.request)
        assert len(w.venue.live()) == 1
        w.tick(1)
        assert not w.venue.live() and "zombie_order" in w.report.errors and r.OE_LATE in w.kinds()
        w.tick(1)
        assert not w.keys() and not replay(w.journal.path)[0]

    def test_a_cancel_without_an_answer_is_repeated(self, w):
        w.target(UP)
        (order_id,) = w.venue.live()
        w.venue.auto = False
        w.target()
        w.venue.waiting.clear()                 # swallowed on the way
        w.venue.broken_reads = True
        w.tick(1600)
        w.tick(1000)
        assert [c for c in sent(w, "cancel") if c == [order_id]] == [[order_id]] * 3
        w.venue.auto = True
        w.flush()
        assert not w.venue.live() and not w.keys()


class TestSameBytes:
    def lost(self, w, effect):
        w.venue.auto = w.venue.tell = False
        w.target(UP, ttl_ms=60_000)
        w.venue.answer(effect=effect, lose=True)
        w.venue.auto = w.venue.tell = True

    def test_absent_and_wanted_the_same_bytes_go_again(self, w):
        self.lost(w, effect=False)
        w.run(w.recovery.resolve_unknown())
        posts = sent(w, "post")
        assert len(posts) == 2 and posts[0][0][0] == posts[1][0][0], "the same id, so the same salt"
        assert w.agrees() and len(w.venue.orders) == 1 and not w.m.unknown
        assert w.report.events["reposts"] == 1 and r.OE_REPOSTED in w.kinds()

    def test_duplicated_is_then_a_success(self, w):
        """The first copy was late: it arrives between the question and the second copy."""
        self.lost(w, effect=False)
        w.venue.auto = False
        first = sent(w, "post")[0]
        w.run(w.recovery.resolve_unknown())
        w.venue._carry_out("post", [(i, dict(o)) for i, o in first])
        w.venue.auto = True
        w.flush()
        assert w.m.n_rejects == 0 and r.OE_REJECTED not in w.kinds()
        w.run(w.recovery.resolve_unknown())
        assert w.agrees() and len(w.venue.live()) == 1 and w.keys()[0, 0][0].state == LIVE

    @pytest.mark.parametrize("why", ["moved", "halted", "old", "late"])
    def test_not_when_it_is_not_wanted_as_it_is(self, w, why):
        self.lost(w, effect=False)
        if why == "moved":
            w.target((0, 0, 4900, 20), ttl_ms=60_000)
        elif why == "halted":
            w.guard(allowed=0)
            w.wake()
        elif why == "old":
            w.now += 1600 * MS
        else:
            w.m.by_market[MARKET].deadline_ns = w.now - 1
        w.run(w.recovery.resolve_unknown())
        assert len(sent(w, "post")) == 1 and "reposts" not in w.report.events

    def test_never_more_than_one_order_for_one_quote(self, tmp_path):
        """Random losses, delays and arrivals: at no moment does the venue hold two orders of one quote that we do not both know."""
        rng = random.Random(11)
        w = World(tmp_path).ready()
        w.venue.auto = False
        w.target(UP)
        held = []
        for step in range(1500):
            w.now += rng.choice((1, 5, 20, 200)) * MS
            w.guard()
            if rng.random() < 0.2:
                w.target(*((0, 0, 100 * rng.randint(40, 48), 20), (1, 0, 100 * rng.randint(40, 48), 20)), ttl_ms=60_000)
            else:
                w.refresh(60_000)
            for later in list(w.venue.waiting):
                p = rng.random()
                if p < 0.6:
                    w.venue.answer(later)
                elif p < 0.75:
                    w.venue.answer(later, effect=rng.random() < 0.5, lose=True)
                elif p < 0.8:
                    w.venue.waiting.remove(later)
                    held.append(later)
            if held and rng.random() < 0.2:
                later = held.pop(0)
                w.venue.waiting.append(later)
                w.venue.answer(later, lose=rng.random() < 0.5)
            if step % 3 == 0 and w.m.unknown:
                w.run(w.recovery.resolve_unknown())
            if w.m.resync_reason or w.m.reread:
                w.run(w.recovery.compare())
            known = {o.order_id for x in w.m.by_market.values() for o in x.orders.values()}
            strange = set(w.venue.live()) - known - {i for x in held for i, _ in (x.request[1] if x.request[0] == "post" else ())}
            assert len(strange) <= 1, "one that was given up and has just arrived; it is cancelled at the next wake"
        w.venue.auto = True
        for later in held:
            w.venue.waiting.append(later)
        w.target()
        pass_time(w, 20_000, step=50)
        assert w.agrees() and not w.venue.live() and not w.m.unknown


class TestStatus:
    @pytest.mark.parametrize(("status", "then"), [("delayed", "LIVE"), ("unmatched", "LIVE"), ("unmatched", "CANCELED"), ("matched", "MATCHED")])
    def test_other_answers_than_live_are_asked_about(self, w, status, then):
        w.venue.auto = False
        w.target(UP, ttl_ms=60_000)
        later = w.venue.waiting.pop()
        w.venue._carry_out(*later.request)
        (order_id,) = w.venue.live()
        w.venue.orders[order_id]["status"] = then
        if then == "MATCHED":
            w.venue.fill(order_id, TWENTY)
        w.venue.auto = True
        say_accepted(later, order_id, w.now, status)
        w.run(w.recovery.resolve_unknown())
        assert not w.m.unknown
        if then == "LIVE":
            assert w.keys()[0, 0][0].state == LIVE
        elif then == "MATCHED":
            assert w.position()["qty_up_u6"] == TWENTY

    def test_a_partly_refused_batch_holds_only_that_leg(self, w):
        w.venue.reject = ["", "could not insert order"]
        w.target(UP, (1, 0, 4900, 20), ttl_ms=60_000)
        assert {o["token"] for o in w.venue.live().values()} == {0}
        n = len(sent(w, "post"))
        w.tick(300)
        w.guard()
        w.target((0, 0, 5100, 20), (1, 0, 4800, 20), ttl_ms=60_000)
        assert [o["token"] for _, o in sent(w, "post")[n]] == [0], "the other leg goes on, this one waits"
        pass_time(w, 2000)
        assert {o["token"] for o in w.venue.live().values()} == {0, 1}


class TestMirror:
    def test_a_listing_that_lags_does_not_make_a_second_order(self, w):
        """Acknowledged and shown a moment ago, and the venue's reads do not know it yet."""
        w.target(UP, ttl_ms=60_000)
        (order_id,) = w.venue.live()
        w.now += 400 * MS
        hidden = w.venue.orders.pop(order_id)
        w.guard()
        w.refresh(60_000)
        w.run(w.recovery.compare())
        assert order_id in w.m.unknown
        w.venue.auto = False
        for _ in range(20):
            w.now += 300 * MS
            w.guard()
            w.refresh(60_000)
            w.run(w.recovery.resolve_unknown())
        assert len(sent(w, "post")) == 1, "no second order of this quote"
        w.venue.orders[order_id] = hidden
        w.venue.auto = True
        w.flush()
        pass_time(w, 3000)
        assert w.agrees() and not w.m.unknown and len(w.venue.live()) == 1


class TestDeafness:
    def test_an_acknowledged_order_that_is_not_shown(self, w):
        w.venue.tell = False
        w.target(UP, ttl_ms=60_000)
        assert len(w.venue.live()) == 1
        w.tick(990)
        assert w.m.user_ok
        w.tick(20)
        assert not w.m.user_ok and w.account()["user_deaf"] == 1 and w.report.events["deaf"] == 1 and not w.venue.live()
        w.run(w.recovery.compare())
        assert w.m.user_ok

    def test_a_channel_found_deaf_is_tried_ever_later_until_it_shows_an_order(self, w):
        w.venue.tell = False
        for hold_s in (5, 10, 20, 40, 60, 60):
            w.target(UP, ttl_ms=1_000_000)
            pass_time(w, 1020)
            pass_time(w, hold_s * 1000 - 400)
            assert w.m.user_ok and w.m.halt == r.HALT_BIT["user_channel"] and not w.venue.live(), "read anew, and yet nobody knows that it hears"
            pass_time(w, 400)
            assert w.venue.live()
        w.venue.tell = True
        pass_time(w, 62_000)
        assert w.venue.live() and not w.m.halt
        w.venue.tell = False
        w.target((0, 0, 4500, 20), ttl_ms=1_000_000)
        pass_time(w, 6200)
        assert w.venue.live(), "it had been heard meanwhile: the first wait is short again"

    def test_replaced_before_it_could_be_shown(self, w):
        w.venue.tell = False
        for i in range(6):
            w.guard()
            w.target((0, 0, 4000 + 100 * i, 20))
            w.now += 260 * MS
        w.tick(0.1)
        assert w.m.user_deaf == 1, "orders that lived shorter than the patience count, too"

    def test_a_channel_that_shows_is_not_deaf(self, w):
        w.target(UP, (1, 0, 4900, 20), ttl_ms=60_000)
        pass_time(w, 5000)
        assert w.m.user_deaf == 0


class TestTick:
    def test_it_gets_finer_in_mid_window(self, w):
        w.target(UP, ttl_ms=60_000)
        (order_id,) = w.venue.live()
        w.m.want_signed()
        for _ in range(60):
            w.now += 5 * MS
            w.guard()
            w.refresh(60_000)
        assert len(w.pool) > 0
        w.markets(tick_e4=10)
        w.wake()
        assert order_id in w.venue.live() and w.keys()[0, 0][0].state == LIVE, "what rests stays valid"
        w.tick(300)
        w.guard()
        w.target((0, 0, 5010, 20), ttl_ms=60_000)
        assert [o["px"] for o in w.venue.live().values()] == [5010] and w.agrees()
        assert "bad_target" not in w.report.errors and "signing" not in w.report.errors
        before = w.pool.hits
        for _ in range(60):
            w.now += 5 * MS
            w.guard()
            w.refresh(60_000)
        w.m.want_signed()
        for _ in range(60):
            w.now += 5 * MS
            w.guard()
            w.refresh(60_000)
        w.tick(300)
        w.guard()
        w.target((0, 0, 5020, 20), ttl_ms=60_000)
        assert w.pool.hits > before, "signed ahead on the new grid"


class TestSelfTrade:
    @pytest.mark.parametrize("fate", ["pending", "lost", "canceling"])
    def test_an_order_of_unknown_fate_still_blocks_the_other_token(self, w, fate):
        w.venue.auto = w.venue.tell = False
        w.target((0, 0, 5500, 20), ttl_ms=60_000)
        if fate == "lost":
            w.venue.answer(effect=True, lose=True)
        elif fate == "canceling":
            w.venue.answer()
            w.target(ttl_ms=60_000)
            assert w.keys()[0, 0][0].state == CANCELING
        w.target((0, 0, 5000, 20), (1, 0, 4600, 20), ttl_ms=60_000)
        assert not [o for post in sent(w, "post")[1:] for _, o in post if o["token"] == 1], "0.55 + 0.46 would mint against ourselves"
        w.venue.auto = w.venue.tell = True
        w.flush()
        pass_time(w, 9000)          # a channel that showed nothing counts as deaf for a while
        assert len(w.venue.live()) == 2 and w.agrees()


class TestRemainder:
    def test_a_rest_below_the_minimum_goes_on_resting_and_is_merged(self, w):
        w.target(UP, ttl_ms=60_000)
        (order_id,) = w.venue.live()
        w.venue.fill(order_id, 17_000_000)
        assert w.keys()[0, 0][0].rest_u6 == 3_000_000 and order_id in w.venue.live()
        pass_time(w, 300)
        assert [(o["px"], o["size"] - o["matched"]) for o in w.venue.live().values()] == [(5000, TWENTY)], "replaced by the whole desired size"
        assert all(o["size"] >= 5_000_000 for o in w.venue.orders.values())

    def test_a_desired_rest_is_not_posted(self, w):
        w.target((0, 0, 5000, 3))
        assert not sent(w, "post") and "bad_target" in w.report.errors

    def test_dust_ends_an_order(self, w):
        w.target(UP, ttl_ms=60_000)
        (order_id,) = w.venue.live()
        w.venue.fill(order_id, TWENTY - 10_000)
        assert not [o for g in w.keys().values() for o in g if o.order_id == order_id]


class TestEnd:
    """The market table says that a market has ended: nothing may rest there any more, whatever is still desired."""

    @pytest.mark.parametrize("state", [r.MS_CLOSED, r.MS_RESOLVED])
    def test_what_rests_is_cancelled_and_nothing_is_posted_again(self, w, state):
        w.target(UP, DOWN, ttl_ms=60_000)
        assert len(w.venue.live()) == 2
        w.markets(state=state)
        w.wake()
        assert not w.venue.live() and w.agrees()
        posts = len(sent(w, "post"))
        pass_time(w, 3000, ttl_ms=60_000)
        w.target((0, 0, 5100, 20), ttl_ms=60_000)
        assert len(sent(w, "post")) == posts and not w.venue.live()

    def test_what_was_on_its_way_is_cancelled_when_it_arrives(self, w):
        w.venue.auto = False
        w.target(UP, ttl_ms=60_000)
        w.markets(state=r.MS_CLOSED)
        w.wake()
        w.venue.auto = True
        w.flush()
        pass_time(w, 500, ttl_ms=60_000)
        assert not w.venue.live() and w.agrees() and not w.keys()


class TestWarm:
    """The first order of a start, of a window and of a tick size finds everything ready."""

    NEXT, NEXT_SLOT = r.market_id(START_S + 900, 900), r.slot_of(START_S + 900, 900)

    def next_window(self, w, tick_e4=100):
        """A second window is listed, nothing is desired of it yet."""
        rec = w.links.markets.cells[0].copy().view(r.MARKETS)
        rec["row"][0][self.NEXT_SLOT] = rec["row"][0][SLOT]
        row = rec["row"][0][self.NEXT_SLOT]
        row["market_id"], row["slot"], row["start_s"], row["end_s"], row["tick_e4"] = self.NEXT, self.NEXT_SLOT, START_S + 900, START_S + 1800, tick_e4
        row["token_up"], row["token_down"] = r.id_words(7), r.id_words(8)
        w.links.markets.set(rec)
        w.wake()

    def want(self, w, px_e4, size_u6):
        rec = np.zeros(1, r.TARGET)
        rec["market_id"], rec["slot"], rec["n_quotes"], rec["t_decide_ns"], rec["changed_ns"] = self.NEXT, self.NEXT_SLOT, 1, w.now, w.now
        rec["deadline_ns"] = w.now + 500 * MS
        rec["quote"][0][0] = (0, 0, r.BUY, r.QK_POST_ONLY, px_e4, size_u6)
        w.links.targets.set(rec, self.NEXT_SLOT)
        w.venue._take = lambda body: ("0x" + "ab" * 32, {})     # the double knows the tokens of one window only
        w.m.on_wake()

    def test_the_first_order_of_a_window_is_signed_already(self, w, monkeypatch):
        w.target(UP, (0, 1, 4900, 12), ttl_ms=60_000)
        w.m.want_signed()
        self.next_window(w)
        pass_time(w, 400, step=5, ttl_ms=60_000)
        monkeypatch.setattr(w.pool, "signer", None)        # a template made now would be one made late
        w.venue.auto, hits, misses = False, w.pool.hits, w.pool.misses
        self.want(w, 4800, 12_000_000)
        assert len(w.venue.waiting) == 1 and (w.pool.hits, w.pool.misses) == (hits + 1, misses)

    def test_and_of_a_tick_size(self, w, monkeypatch):
        w.target(UP, ttl_ms=60_000)
        self.next_window(w)
        pass_time(w, 200, step=5, ttl_ms=60_000)
        self.next_window(w, tick_e4=10)
        pass_time(w, 200, step=5, ttl_ms=60_000)
        w.m.want_signed()
        monkeypatch.setattr(w.pool, "signer", None)
        w.venue.auto, hits, misses = False, w.pool.hits, w.pool.misses
        self.want(w, 4990, TWENTY)
        assert len(w.venue.waiting) == 1 and (w.pool.hits, w.pool.misses) == (hits + 1, misses)

    def test_before_the_first_target_the_path_is_rehearsed_and_the_templates_are_there(self, w, monkeypatch):
        w.m.tend()
        pass_time(w, 1000, step=5)
        assert w.venue.rehearsed >= 10 and len(w.pool) >= 14 and not sent(w, "post")
        monkeypatch.setattr(w.pool, "signer", None)
        w.target(UP)
        assert len(w.venue.live()) == 1
