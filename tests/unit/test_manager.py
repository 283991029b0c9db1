"""The order manager against a venue double: sending, answers, unknown outcomes, fills, start, stop. No sockets, no waiting."""

import json
import random

import pytest
from order_world import MARKET, SLOT, START_S, World

from mmbot.execution.http1 import HttpAnswer
from mmbot.execution.order import CANCELING, LIVE, PENDING, Order
from mmbot.execution.order_journal import JournalError, OrderJournal, replay
from shm_layout import records as r

PAIR = ((0, 0, 5000, 20), (1, 0, 4900, 20))
TWENTY = 20_000_000


@pytest.fixture
def w(tmp_path):
    world = World(tmp_path).ready()
    yield world


def sent(world, kind):
    return [what for k, what in world.venue.log if k == kind]


class TestSending:
    def test_a_target_becomes_one_batch_and_rests(self, w):
        w.target(*PAIR)
        assert len(sent(w, "post")) == 1 and len(w.venue.live()) == 2 and w.agrees()
        assert {o.state for group in w.keys().values() for o in group} == {LIVE}
        assert w.kinds().count(r.OE_SENT) == w.kinds().count(r.OE_LIVE) == 2
        a = w.account()
        assert a["live_orders"] == 2 and a["orders"] == 2 and a["reserved_u6"] == 19_800_000 and a["state"] == r.AS_READY and a["user_ok"] == 1
        assert (w.position()["open_up_u6"], w.position()["open_down_u6"]) == (TWENTY, TWENTY)

    def test_the_journal_knows_the_order_before_the_venue(self, w):
        seen = []
        original = w.venue.post

        def post(bodies, timestamp_s):
            seen.append(dict(replay(w.journal.path)[0]))
            return original(bodies, timestamp_s)
        w.venue.post = post
        w.target(*PAIR)
        assert set(seen[0]) == set(w.venue.live())
        w.target()
        assert not replay(w.journal.path)[0]

    def test_a_journal_that_cannot_be_written_stops_the_post(self, w):
        def full(_lines):
            raise JournalError("disk full")
        w.journal.append = full
        w.target(*PAIR)
        assert not sent(w, "post") and not w.m.journal_ok and "journal" in w.report.errors
        del w.journal.append
        w.m.tend()
        w.tick()
        assert len(w.venue.live()) == 2, "the file was rewritten and works again"

    def test_a_refresh_does_nothing(self, w):
        w.target(*PAIR)
        for _ in range(5):
            w.tick(100, wake=False)
            w.guard()
            w.refresh()
        assert len(w.venue.log) == 2        # cancel-all of the start, one batch

    def test_a_replacement_is_cancel_and_post_together(self, w):
        w.target((0, 0, 5000, 20))
        w.venue.auto = False
        w.tick(300, wake=False)
        w.target((0, 0, 4900, 20))
        assert [k for k, _ in w.venue.log[-2:]] == ["post", "cancel"]
        assert sorted(o.state for o in w.keys()[0, 0]) == [PENDING, CANCELING]
        assert w.position()["open_up_u6"] == 2 * TWENTY, "both count while the cancel is not confirmed"
        w.target((0, 0, 4800, 20))
        assert len(w.venue.waiting) == 2, "no third order behind an open cancel"
        w.venue.auto = True
        w.flush()
        assert w.agrees() and [o["px"] for o in w.venue.live().values()] == [4800]

    def test_upward_the_post_goes_first_and_a_lost_connection_keeps_the_old_order(self, w):
        w.target((0, 0, 5000, 20))
        w.tick(300, wake=False)
        w.venue.connected = False
        w.target((0, 0, 5100, 20))
        assert [o["px"] for o in w.venue.live().values()] == [5000]
        w.venue.connected = True
        w.tick(2)
        assert [k for k, _ in w.venue.log[-2:]] == ["post", "cancel"] and w.agrees()

    def test_a_bid_that_only_leaves_is_cancelled_before_others_are_posted(self, w):
        w.target((0, 0, 5000, 20))
        w.target((1, 0, 4900, 20))
        assert [k for k, _ in w.venue.log[-2:]] == ["cancel", "post"] and w.agrees()

    def test_a_too_dear_bid_leaves_even_when_its_replacement_cannot_be_sent(self, w):
        w.target((0, 0, 5000, 20))
        w.venue.busy = {"post"}
        w.target((0, 0, 4900, 20))
        assert not w.venue.live()
        w.venue.busy = set()
        w.tick(2)
        assert [o["px"] for o in w.venue.live().values()] == [4900]

    def test_without_a_connection_for_the_cancel_no_second_order_is_sent(self, w):
        w.target((0, 0, 5000, 20))
        w.venue.busy = {"cancel"}
        w.target((0, 0, 4900, 20))
        assert len(sent(w, "post")) == 1 and len(w.keys()[0, 0]) == 1
        w.venue.busy = set()
        w.tick(2)
        assert w.agrees() and [o["px"] for o in w.venue.live().values()] == [4900]

    def test_past_the_deadline_nothing_is_desired(self, w):
        w.target(*PAIR, ttl_ms=200)
        w.tick(100)
        assert len(w.venue.live()) == 2
        w.tick(101)
        assert not w.venue.live()
        w.guard()
        w.refresh()
        assert len(w.venue.live()) == 2, "a refreshed target lives again"

    @pytest.mark.parametrize(("reason", "halt"), [("guard", r.HALT_BIT["guard"]), ("silent", r.HALT_BIT["guard_silent"]), ("user", r.HALT_BIT["user_channel"])])
    def test_global_stops(self, w, reason, halt):
        w.target(*PAIR, ttl_ms=10_000)
        if reason == "guard":
            w.guard(allowed=0)
            w.wake()
        elif reason == "silent":
            w.tick(2001)
        else:
            w.disconnect()
            assert w.account()["user_ok"] == 0
        assert not w.venue.live() and w.m.halt == halt and w.account()["halts"] == halt

    def test_own_pair_is_never_crossed_while_prices_move(self, w):
        """Any walk of targets: at no moment do own orders of the two tokens that may rest sum to 1 or more."""
        rng, mid = random.Random(7), 5000
        w.venue.auto = False
        for _ in range(400):
            mid = min(max(mid + rng.choice((-200, -100, 0, 100, 200)), 1000), 9000)
            w.guard()
            w.target((0, 0, mid - 100, 20), (1, 0, 10_000 - mid - 100, 20), (0, 1, mid - 200, 20), (1, 1, 10_000 - mid - 200, 20))
            if rng.random() < 0.7:
                w.venue.answer()
            w.tick(rng.choice((1, 50, 300)))
            orders = [o for group in w.keys().values() for o in group]
            tops = [max((o.px_e4 for o in orders if o.token == t), default=0) for t in (0, 1)]
            assert sum(tops) < 10_000
            assert all(len(group) <= 2 and sum(o.state != CANCELING for o in group) <= 1 for group in w.keys().values())
        w.venue.auto = True
        w.flush()
        w.tick(1000)
        assert w.agrees()

    def test_an_unknown_protocol_version_is_left_alone(self, tmp_path):
        w = World(tmp_path)
        w.markets(version=3)
        w.guard()
        w.connect()
        w.run(w.recovery.start())
        w.target(*PAIR)
        assert not sent(w, "post") and "market_unknown" in w.report.errors

    def test_pooled_orders_are_used_once(self, w):
        w.target(*PAIR)
        w.m.want_signed()
        for _ in range(100):
            w.tick(5)
        assert len(w.pool) > 10
        w.guard()
        w.target((0, 0, 4900, 20), (1, 0, 4900, 20))
        assert w.pool.hits >= 1 and w.agrees()
        assert any(e["pooled"] for e in w.links.orders.published)


    def test_rehearsal_sends_and_keeps_nothing(self, w):
        w.target(*PAIR, ttl_ms=60_000)
        w.m.tend()
        before = len(w.venue.log), w.journal.size, dict(w.m.by_id), w.pool.misses, [list(w.m.by_market[MARKET].limits.last_ns)]
        for _ in range(20):
            w.guard()
            w.tick(5)
        assert w.venue.rehearsed >= 10
        assert before == (len(w.venue.log), w.journal.size, dict(w.m.by_id), w.pool.misses, [list(w.m.by_market[MARKET].limits.last_ns)])


def own(w):
    """What the core is told may rest: {(token, px_e4): shares}, and how often it was told."""
    rec = w.links.own.cells[SLOT].view(r.OWN)[0]
    rows = rec["order"][:rec["n"]]
    assert rec["market_id"] == MARKET and rec["slot"] == SLOT and not rec["order"][rec["n"]:].view("<i8").any()
    assert all(row["side"] == r.BUY and row["t_sent_ns"] <= rec["t_update_ns"] for row in rows)
    return {(int(row["token"]), int(row["px_e4"])): int(row["size_u6"]) / 1e6 for row in rows}, w.links.own.versions[SLOT]


class TestWakes:
    def looks(self, w, monkeypatch):
        """Every time that the windows were looked at."""
        looks, work = [], w.m._work
        monkeypatch.setattr(w.m, "_work", lambda now: looks.append(now) or work(now))
        return looks

    def test_a_bell_for_nothing_costs_one_look_at_the_memory(self, w, monkeypatch):
        w.target(*PAIR, ttl_ms=60_000)
        w.tick(5)
        looks = self.looks(w, monkeypatch)
        for _ in range(30):
            w.tick(0.1)
        assert not looks
        w.tick(1)
        assert looks, "what time makes due is looked at every few ms"

    @pytest.mark.parametrize("news", ["guard", "markets", "connect"])
    def test_whatever_is_new_is_acted_on_at_once(self, w, monkeypatch, news):
        w.target(*PAIR, ttl_ms=60_000)
        w.tick(5)
        looks = self.looks(w, monkeypatch)
        getattr(w, news)()
        w.wake()
        assert looks

    def test_a_target_that_only_lives_longer_needs_no_look(self, w, monkeypatch):
        w.target(*PAIR, ttl_ms=10)
        w.tick(5)
        looks = self.looks(w, monkeypatch)
        w.refresh(ttl_ms=40)
        assert not looks
        w.tick(30)
        assert looks and len(w.venue.live()) == 2, "the old deadline has no meaning any more"
        w.tick(11)
        assert not w.venue.live()
        looks.clear()
        w.tick(0.1)
        w.guard()
        w.wake()
        w.refresh(ttl_ms=40)
        assert looks[-1] == w.now and w.m.by_market[MARKET].was_live, "one that had run out lives again at once"

    def test_a_deadline_that_passes_is_news(self, w):
        w.target(*PAIR, ttl_ms=10)
        w.tick(9)                       # the next look by time alone would be 4 ms later
        assert w.venue.live()
        w.tick(0.9)
        assert w.venue.live()
        w.tick(0.2)
        assert not w.venue.live()

    def test_a_target_that_came_before_its_market_is_read_again(self, tmp_path):
        world = World(tmp_path)
        world.target(*PAIR, ttl_ms=60_000)
        world.wake()
        world.ready()
        world.tick(1)
        assert len(world.venue.live()) == 2


class TestOwn:
    def test_a_new_life_knows_of_nothing(self, tmp_path):
        w = World(tmp_path)
        w.links.own.rec["n"] = 3
        for slot in range(r.MARKET_SLOTS):
            w.links.own.write(slot)
        w.ready()
        assert all(cell.view(r.OWN)["n"] == 0 and cell.view(r.OWN)["slot"] == slot for slot, cell in enumerate(w.links.own.cells))
        assert own(w)[0] == {}

    def test_written_after_the_send_and_before_the_answer(self, w):
        order, told = [], []
        for name in ("post", "cancel"):
            original = getattr(w.venue, name)
            setattr(w.venue, name, lambda *a, name=name, original=original: (order.append(name), original(*a))[1])
        write = w.links.own.write
        w.links.own.write = lambda index: (order.append("own"), told.append(w.now), write(index))[2]
        w.venue.auto = False
        w.target(*PAIR)
        assert order == ["post", "own"] and own(w)[0] == {(0, 5000): 20, (1, 4900): 20} and len(w.venue.waiting) == 1
        w.flush()
        w.venue.answer()
        assert order == ["post", "own"], "an order that is confirmed rests as before"
        w.tick(300, wake=False)
        w.target((0, 0, 4900, 20), (1, 0, 4900, 20))
        assert order[2:] == ["post", "own", "cancel"] and own(w)[0] == {(0, 5000): 20, (0, 4900): 20, (1, 4900): 20}
        w.venue.answer()
        assert own(w)[0] == {(0, 4900): 20, (1, 4900): 20}

    def test_only_changes_are_written(self, w):
        w.target(*PAIR, ttl_ms=60_000)
        _, version = own(w)
        for _ in range(5):
            w.tick(100, wake=False)
            w.guard()
            w.refresh()
        assert own(w)[1] == version

    def test_after_a_fill_the_rest(self, w):
        w.target(*PAIR)
        up = next(i for i, o in w.venue.live().items() if o["token"] == 0)
        w.venue.fill(up, 5_000_000)
        assert own(w)[0] == {(0, 5000): 15, (1, 4900): 20}
        w.venue.fill(up, 15_000_000)
        assert own(w)[0] == {(1, 4900): 20}

    def test_a_refused_order_is_taken_back(self, w):
        w.venue.reject = ["", "invalid post-only order: order crosses book"]
        w.target(*PAIR)
        assert own(w)[0] == {(0, 5000): 20}

    def test_a_cancel_without_an_answer_still_rests(self, w):
        w.target((0, 0, 5000, 20))
        w.venue.auto = False
        w.target()
        w.venue.answer(effect=False, lose=True)
        assert len(w.m.unknown) == 1 and own(w)[0] == {(0, 5000): 20}
        w.venue.auto = True
        w.tick(1, wake=False)
        w.run(w.recovery.resolve_unknown())
        assert own(w)[0] == {}

    def test_orders_of_one_price_are_one_row(self, w):
        w.target((0, 0, 5000, 20), (0, 1, 5000, 15))
        assert own(w)[0] == {(0, 5000): 35}

    def test_more_prices_than_fit_keep_the_best(self, w):
        window = w.m.by_market[MARKET]
        for i in range(20):
            window.orders[str(i)] = Order(str(i), (0,) * 4, MARKET, i % 2, 0, r.BUY, 4000 + i, TWENTY, LIVE, 0)
        window.own_due = True
        w.tick(5)
        assert sorted(px for _, px in own(w)[0]) == list(range(4004, 4020))

    def test_an_order_that_is_found_counts_until_it_is_gone(self, w):
        w.venue.orders["0x" + "ab" * 32] = dict(token=0, side=0, px=4500, size=TWENTY, matched=0, status="LIVE")
        w.venue.auto = False
        w.run(w.recovery.compare())
        assert own(w)[0] == {(0, 4500): 20}
        w.venue.answer()
        assert own(w)[0] == {}

    def test_nothing_is_left_after_a_stop(self, w):
        w.target(*PAIR, ttl_ms=60_000)
        w.run(_in_loop(w.recovery.stop))
        assert own(w)[0] == {}

    def test_a_slot_belongs_to_its_newest_window(self, w):
        w.target(*PAIR, ttl_ms=60_000)
        w.venue.auto = False
        rec = w.links.markets.cells[0].copy().view(r.MARKETS)
        row = rec["row"][0][SLOT]
        row["market_id"], row["start_s"] = r.market_id(START_S + 3600, 900), START_S + 3600
        w.links.markets.set(rec)
        w.tick()
        cell = w.links.own.cells[SLOT].view(r.OWN)[0]
        assert cell["market_id"] == r.market_id(START_S + 3600, 900) and cell["n"] == 0
        w.venue.answer()
        assert w.links.own.cells[SLOT].view(r.OWN)[0]["market_id"] == r.market_id(START_S + 3600, 900)


class TestHops:
    def test_only_posts_that_a_fresh_decision_caused_are_measured(self, w):
        w.target(*PAIR)
        assert sorted(n for n, _ in w.report.hops) == ["decide_wake", "recv_send", "send_ack", "wake_send"]
        w.target((0, 0, 5000, 20), (1, 0, 4900, 30))    # resize inside the churn interval: deferred
        w.tick(260)
        assert len(sent(w, "post")) == 2 and len(w.report.hops) == 4
        assert w.report.events["throttled"] >= 1

    def test_stamps_of_a_refresh_are_not_used(self, w):
        w.target(*PAIR, wake=False)
        w.tick(1, wake=False)
        w.refresh()
        assert len(w.venue.live()) == 2 and not w.report.hops

    def test_a_requote_after_the_guard_allowed_again_is_not_measured(self, w):
        w.guard(allowed=0)
        w.target(*PAIR, ttl_ms=5000)
        w.tick(10)
        w.guard()
        w.tick(1)
        assert len(w.venue.live()) == 2 and not w.report.hops


class TestRefusals:
    def test_legs_of_a_batch_are_judged_one_by_one(self, w):
        w.venue.reject = ["", "invalid post-only order: order crosses book"]
        w.target(*PAIR)
        assert len(w.venue.live()) == 1 and w.agrees() and w.m.n_rejects == 1
        assert r.OE_REJECTED in w.kinds() and not [e for e in w.report.errors if e.startswith("refused")]
        w.tick(10)
        assert len(sent(w, "post")) == 1, "the leg is in quarantine"
        w.tick(50)
        assert len(w.venue.live()) == 2

    def test_rate_limit_pauses_posts_but_not_cancels(self, w):
        w.target((0, 0, 5000, 20))
        w.venue.reject = ["Too Many Requests"]
        w.target((0, 0, 5000, 20), (1, 0, 4900, 20), ttl_ms=5000)
        n = len(sent(w, "post"))
        w.target((0, 0, 4900, 20), (1, 0, 4900, 20), ttl_ms=5000)
        assert len(sent(w, "post")) == n and not w.venue.live()
        w.tick(600)
        assert len(w.venue.live()) == 2

    def test_whole_batch_refused(self, w):
        w.venue.auto = False
        w.target(*PAIR)
        later = w.venue.waiting.pop()
        body = b'{"error":"matching engine is restarting"}'
        later.settle(HttpAnswer(425, {}, body, w.now, w.now))
        assert not w.keys() and w.m.n_rejects == 2 and w.m.venue.mode == r.VENUE_MODE["restarting"]


class TestUnknownOutcome:
    @pytest.mark.parametrize("effect", [True, False])
    def test_a_lost_answer_is_asked_about_and_never_repeated(self, w, effect):
        w.venue.auto = w.venue.tell = False
        w.target(*PAIR, ttl_ms=60_000)
        w.venue.answer(effect=effect, lose=True)
        assert len(w.m.unknown) == 2 and w.account()["unknown"] == 2
        w.venue.auto = True
        w.target((0, 0, 4900, 20), (1, 0, 4800, 20), ttl_ms=60_000)
        assert len(sent(w, "post")) == 1, "its place is busy until the venue has said what became of it"
        w.venue.broken_reads = True
        w.run(w.recovery.resolve_unknown())
        assert len(w.m.unknown) == 2, "an error is not an answer"
        w.venue.broken_reads, w.venue.tell = False, True
        for _ in range(10):
            w.tick(1000)
            w.guard()
            w.refresh(60_000)
            w.run(w.recovery.resolve_unknown())
            if w.m.resync_reason:           # with effect, the channel never showed it
                w.run(w.recovery.compare())
        assert not w.m.unknown and w.agrees()
        assert sorted(o["px"] for o in w.venue.live().values()) == [4800, 4900]
        assert len(w.venue.orders) == 2 or effect, "no order was sent twice with another salt"

    def test_duplicated_is_a_success(self, w):
        w.venue.auto = False
        w.target((0, 0, 5000, 20))
        later = w.venue.waiting.pop()
        w.venue._carry_out(*later.request)
        later.settle(HttpAnswer(400, {}, b'{"error":"order 0xab is invalid. Duplicated."}', w.now, w.now))
        w.run(w.recovery.resolve_unknown())
        assert w.agrees() and len(w.venue.live()) == 1 and w.m.n_rejects == 0

    def test_a_lost_cancel_answer(self, w):
        for effect in (True, False):
            w.guard()
            w.target((0, 0, 5000, 20))
            w.venue.auto = False
            w.target()
            w.venue.answer(effect=effect, lose=True)
            assert len(w.m.unknown) == 1
            w.venue.auto = True
            w.tick(1, wake=False)
            w.run(w.recovery.resolve_unknown())
            assert not w.m.unknown and not w.venue.live() and not w.keys()

    def test_cancel_says_already_matched(self, w):
        w.target((0, 0, 5000, 20))
        (order_id,) = w.venue.live()
        w.venue.fill(order_id, TWENTY, tell=False)
        w.target()
        assert len(w.m.unknown) == 1
        w.run(w.recovery.resolve_unknown())
        assert not w.keys() and w.position()["open_up_u6"] == TWENTY, "matched shares count until their trade is seen"
        w.run(w.recovery.compare())
        assert w.position()["qty_up_u6"] == TWENTY and w.position()["open_up_u6"] == 0

    def test_a_zombie_that_appears_after_it_was_given_up_is_cancelled(self, w):
        w.venue.auto = False
        w.target((0, 0, 5000, 20))
        request = w.venue.waiting[0].request
        w.venue.answer(effect=False)
        w.target()
        for _ in range(10):
            w.tick(1000)
            w.run(w.recovery.resolve_unknown())
        assert not w.m.unknown
        w.venue._carry_out(*request)
        w.venue.auto = True
        w.tick(1000)
        w.run(w.recovery.compare())
        assert "zombie_order" in w.report.errors and not w.venue.live() and w.agrees()


class TestFills:
    def test_fill_by_the_user_channel(self, w):
        w.target(*PAIR)
        up, down = (next(i for i, o in w.venue.live().items() if o["token"] == t) for t in (0, 1))
        w.venue.fill(up, 5_000_000)
        assert w.position()["qty_up_u6"] == 5_000_000 and w.position()["cost_up_u6"] == 2_500_000 and w.position()["pending_up_u6"] == 5_000_000
        assert w.position()["open_up_u6"] == 15_000_000 and w.account()["fills"] == 1 and w.account()["cash_u6"] == 997_500_000
        w.venue.fill(down, TWENTY, other_token=True)
        assert w.position()["qty_down_u6"] == TWENTY and (1, 0) not in {k for k, g in w.keys().items() if g}
        assert w.kinds().count(r.OE_FILL) == 2

    def test_a_full_fill_is_not_topped_up_before_the_core_can_know(self, w):
        w.target((0, 0, 5000, 20), ttl_ms=5000)
        (order_id,) = w.venue.live()
        w.venue.fill(order_id, TWENTY)
        w.tick(100)
        assert not w.venue.live()
        w.tick(200)
        assert len(w.venue.live()) == 1

    def test_dust_ends_an_order(self, w):
        w.target((0, 0, 5000, 20))
        (order_id,) = w.venue.live()
        w.venue.fill(order_id, TWENTY - 2_286)
        assert not w.keys()

    def test_trade_before_placement_before_answer(self, w):
        """The channel overtakes the HTTP answer in every way."""
        w.venue.auto = False
        w.target((0, 0, 5000, 20))
        w.venue._carry_out(*w.venue.waiting[0].request)
        (order_id,) = w.venue.live()
        w.venue.fill(order_id, 5_000_000)
        w.say_order(order_id, r.UT_PLACEMENT, r.ST_LIVE)
        assert w.keys()[0, 0][0].state == LIVE
        w.venue.waiting[0].settle(HttpAnswer(
            200, {}, json.dumps({"success": True, "errorMsg": "", "orderID": order_id, "status": "live"}).encode(), w.now, w.now))
        assert w.agrees() and w.position()["qty_up_u6"] == 5_000_000

    def test_cancelled_then_its_trade_arrives(self, w):
        w.target((0, 0, 5000, 20))
        (order_id,) = w.venue.live()
        trade = w.venue.fill(order_id, 5_000_000, tell=False)
        w.target()
        w.say_order(order_id, r.UT_CANCELLATION, r.ST_CANCELED)
        assert not w.keys() and w.position()["open_up_u6"] == 5_000_000
        w.say_trade(order_id, trade, 5_000_000)
        assert not w.keys() and w.position()["qty_up_u6"] == 5_000_000 and w.position()["open_up_u6"] == 0

    def test_failed_settlement_takes_everything_back(self, w):
        w.target((0, 0, 5000, 20))
        (order_id,) = w.venue.live()
        trade = w.venue.fill(order_id, 5_000_000)
        for _ in range(2):
            w.say_trade(order_id, trade, 5_000_000, r.TS_FAILED)
        assert w.position()["qty_up_u6"] == 0 and w.account()["cash_u6"] == 1_000_000_000 and w.account()["fills"] == 0
        assert "fill_failed" in w.report.errors

    def test_partly_matched_and_not_live_is_asked_about(self, w):
        w.target((0, 0, 5000, 20))
        (order_id,) = w.venue.live()
        w.venue.fill(order_id, 5_000_000, tell=False)
        w.venue.orders[order_id]["status"] = "CANCELED"
        w.say_order(order_id, r.UT_UPDATE, r.ST_MATCHED)
        assert order_id in w.m.unknown
        w.run(w.recovery.resolve_unknown())
        assert not w.keys()

    def test_resolution_realises(self, w):
        w.target(*PAIR)
        for order_id in list(w.venue.live()):
            w.venue.fill(order_id, TWENTY)
        w.markets(state=r.MS_RESOLVED, outcome=r.UP)
        w.tick()
        assert w.account()["realized_u6"] == TWENTY - 10_000_000 - 9_800_000
        assert w.position()["worst_u6"] == TWENTY - 10_000_000, "the winning trade is not final: it may still fail"

    def test_a_trade_that_comes_after_the_outcome_is_realised_too(self, w):
        w.target((0, 0, 5000, 20))
        (order_id,) = w.venue.live()
        w.markets(state=r.MS_RESOLVED, outcome=r.UP)
        w.tick()
        w.venue.fill(order_id, TWENTY)
        assert w.account()["realized_u6"] == 10_000_000

    def test_unbooked_match_is_read_and_finally_named(self, w):
        w.target((0, 0, 5000, 20))
        (order_id,) = w.venue.live()
        w.venue.fill(order_id, TWENTY, tell=False)
        w.venue.trades_.clear()
        w.say_order(order_id, r.UT_UPDATE, r.ST_MATCHED)
        assert w.position()["open_up_u6"] == TWENTY
        for _ in range(4):
            w.tick(1000)
            w.run(w.recovery.compare())
        assert "unbooked_fill" in w.report.errors and w.account()["difference_since_ns"] > 0
        assert w.position()["open_up_u6"] == TWENTY and w.position()["worst_u6"] == 10_000_000, "the shares can be anywhere: they count"
        w.guard()
        w.tick(10_000)
        assert w.account()["halts"] & r.HALT_BIT["difference"]
        for _ in range(2):
            w.tick(60_000)
            w.run(w.recovery.compare())
        assert w.position()["open_up_u6"] == 0 and w.position()["qty_up_u6"] == TWENTY, "in the end the balance has the last word"


class TestLossOfSight:
    def test_reconnect_reads_what_was_missed_before_quoting_again(self, w):
        w.target(*PAIR, ttl_ms=60_000)
        up = next(i for i, o in w.venue.live().items() if o["token"] == 0)
        w.disconnect()
        assert not w.venue.live()
        w.venue.orders[up]["status"] = "LIVE"
        w.venue.fill(up, TWENTY, tell=False)
        w.connect()
        assert not w.m.user_ok and len(sent(w, "post")) == 1
        w.venue.broken_reads = True
        assert not w.run(w.recovery.compare())
        assert not w.m.user_ok
        w.venue.broken_reads = False
        w.run(w.recovery.compare())
        assert w.m.user_ok and w.position()["qty_up_u6"] == TWENTY and "missed_fill" not in w.report.errors
        w.guard()
        w.tick(300)
        assert len(w.venue.live()) == 2

    def test_a_lap_is_a_loss_of_sight(self, w):
        w.target(*PAIR, ttl_ms=60_000)
        w.links.user.link[2] += 1
        w.say_order(next(iter(w.venue.live())), r.UT_PLACEMENT, r.ST_LIVE)
        assert not w.m.user_ok
        w.tick(0.1)
        assert not w.venue.live()

    def test_sight_lost_again_while_reading_does_not_count_as_seen(self, w):
        w.disconnect()
        w.connect()
        trades = w.venue.trades

        async def and_lose(after=0):
            w.disconnect()
            w.connect()
            return await trades(after)
        w.venue.trades = and_lose
        w.run(w.recovery.compare())
        assert not w.m.user_ok
        w.venue.trades = trades
        w.run(w.recovery.compare())
        assert w.m.user_ok


class TestComparison:
    def test_all_well_changes_nothing(self, w):
        w.target(*PAIR, ttl_ms=60_000)
        n = len(w.venue.log)
        w.tick(1000)
        assert w.run(w.recovery.compare()) and len(w.venue.log) == n and "reconcile_diffs" not in w.report.events

    def test_a_missing_order_is_found_out(self, w):
        w.target(*PAIR, ttl_ms=60_000)
        gone = next(iter(w.venue.live()))
        w.venue.orders[gone]["status"] = "CANCELED"
        w.tick(1000)
        w.run(w.recovery.compare())
        assert "missing_order" in w.report.errors
        w.run(w.recovery.resolve_unknown())
        w.tick(300)
        assert w.agrees() and len(w.venue.live()) == 2

    def test_a_foreign_order_is_cancelled_and_named(self, w):
        w.venue.orders["0x" + "ab" * 32] = dict(token=0, side=0, px=4500, size=TWENTY, matched=0, status="LIVE")
        w.run(w.recovery.compare())
        assert "foreign_order" in w.report.errors and not w.venue.live() and r.OE_ADOPTED in w.kinds()

    def test_a_missed_fill_is_booked_and_named(self, w):
        w.target((0, 0, 5000, 20), ttl_ms=60_000)
        w.venue.fill(next(iter(w.venue.live())), 5_000_000, tell=False)
        w.tick(1000)
        w.run(w.recovery.compare())
        assert "missed_fill" in w.report.errors, w.report.texts
        assert w.position()["qty_up_u6"] == 5_000_000

    def test_an_error_is_not_an_empty_venue(self, w):
        w.target(*PAIR, ttl_ms=60_000)
        w.venue.broken_reads = True
        w.tick(1000)
        assert not w.run(w.recovery.compare())
        assert len(w.keys()) == 2 and not w.m.unknown


class TestStart:
    def test_leftover_orders_trades_and_journal(self, tmp_path):
        """Killed with orders resting, one fill unseen and one POST in the air: the next life finds all of it."""
        w = World(tmp_path).ready()
        w.target(*PAIR, ttl_ms=60_000)
        w.venue.auto = False
        w.target((0, 0, 5000, 20), (1, 0, 4900, 20), (0, 1, 4900, 20), ttl_ms=60_000)
        w.venue._carry_out(*w.venue.waiting[-1].request)            # arrived, but its answer finds nobody
        up = next(i for i, o in w.venue.live().items() if o["px"] == 5000)
        w.venue.fill(up, 7_000_000, tell=False)
        assert len(w.venue.live()) == 3
        venue = w.venue
        venue.auto = True
        w2 = World(tmp_path, journal=OrderJournal(tmp_path / "journal" / "orders.log", sync_thread=False), venue=venue)
        assert len(w2.journal.found) == 3
        w2.ready()
        assert not venue.live() and not w2.m.unknown and not w2.keys()
        assert w2.position()["qty_up_u6"] == 7_000_000 and w2.position()["open_up_u6"] == 0
        assert w2.kinds().count(r.OE_ADOPTED) == 3 and not replay(w2.journal.path)[0]
        w2.tick(300)
        w2.target(*PAIR)
        assert len(venue.live()) == 2 and w2.agrees()

    def test_start_tries_until_the_venue_answers(self, tmp_path):
        w = World(tmp_path)
        w.markets()
        w.guard()
        w.connect()
        w.venue.orders["0x" + "cd" * 32] = dict(token=1, side=0, px=4500, size=TWENTY, matched=0, status="LIVE")
        w.venue.broken_reads, tries = True, []

        async def sleep(seconds):
            assert w.m.state == r.AS_RECONCILING
            tries.append(seconds)
            w.venue.broken_reads = len(tries) < 5
        w.recovery.sleep = sleep
        w.target(*PAIR)
        assert not sent(w, "post")
        w.run(w.recovery.start())
        assert w.m.state == r.AS_READY and len(tries) == 5 and tries[0] < tries[-1]
        assert "0x" + "cd" * 32 not in w.venue.live()

    def test_start_waits_for_the_market_table(self, tmp_path):
        w, waits = World(tmp_path), []

        async def sleep(seconds):
            waits.append(seconds)
            if len(waits) == 300:
                w.markets()
        w.recovery.sleep = sleep
        w.run(w.recovery.start())
        assert w.m.state == r.AS_READY and "no_markets" in w.report.errors

    def test_trades_of_a_market_that_discovery_lists_later(self, w):
        """A trade that could not be placed when it was read is placed once its market is known."""
        w.target((0, 0, 5000, 20))
        w.venue.fill(next(iter(w.venue.live())), TWENTY, tell=False)
        w.m.by_market.clear()
        w.m.by_id.clear()
        w.m.windows[SLOT] = None
        assert w.run(w.recovery.compare())
        assert not w.m.positions.by_market
        w.markets()
        w.tick()
        assert w.m.reread
        w.run(w.recovery.compare())
        assert w.position()["qty_up_u6"] == TWENTY

    def test_not_connected_means_no_quotes(self, tmp_path):
        w = World(tmp_path)
        w.markets()
        w.guard()
        w.run(w.recovery.start())
        w.target(*PAIR)
        assert not sent(w, "post") and w.account()["user_ok"] == 0


class TestStop:
    def test_stop_cancels_and_verifies(self, w):
        w.target(*PAIR, ttl_ms=60_000)
        w.run(_in_loop(w.recovery.stop))
        assert not w.venue.live() and not w.keys() and w.account()["state"] == r.AS_HALTED
        w.target(*PAIR)
        assert not w.venue.live() and not replay(w.journal.path)[0]

    def test_stop_with_a_post_in_the_air(self, w):
        w.venue.auto = False
        w.target(*PAIR, ttl_ms=60_000)
        waiting = list(w.venue.waiting)

        async def sleep(_s):
            for later in waiting:
                if later in w.venue.waiting:
                    w.venue.answer(later)
        w.recovery.sleep = sleep
        w.venue.auto = True
        assert w.run(_in_loop(w.recovery.stop))
        assert not w.venue.live()


def _in_loop(stop):
    """`stop` needs a running loop for its deadline."""
    import asyncio

    async def inner():
        return asyncio.run(stop())
    return inner()


def test_windows_roll_without_growing(tmp_path):
    """A slot that goes to the next window forgets the old one once it has no order."""
    w = World(tmp_path).ready()
    w.target(*PAIR)
    for order_id in list(w.venue.live()):
        w.say_trade(order_id, w.venue.fill(order_id, TWENTY), TWENTY, r.TS_CONFIRMED)
    rec = w.links.markets.cells[0].copy().view(r.MARKETS)
    for n in range(1, 4):
        row = rec["row"][0][SLOT]
        row["market_id"], row["start_s"] = r.market_id(START_S + 3600 * n, 900), START_S + 3600 * n
        w.links.markets.set(rec)
        w.tick(300)
        w.m.tend()
    assert len(w.m.by_market) == 1 and MARKET not in w.m.by_market and w.account()["fills"] == 2


def test_a_slot_never_goes_back_to_an_older_window(tmp_path):
    """A table that shows an older window for a moment must not make history of the one that trades: its fills would be booked nowhere."""
    w = World(tmp_path).ready()
    now = w.links.markets.cells[0].copy().view(r.MARKETS)
    rec = now.copy()
    row = rec["row"][0][SLOT]
    row["market_id"], row["start_s"] = r.market_id(START_S - 3600, 900), START_S - 3600
    for table in (rec, now):
        w.links.markets.set(table)
        w.tick(300)
        w.m.tend()
    assert MARKET in w.m.by_market and MARKET not in w.m.positions.retired
    w.target(*PAIR)
    for order_id in list(w.venue.live()):
        w.say_trade(order_id, w.venue.fill(order_id, TWENTY), TWENTY, r.TS_CONFIRMED)
    assert w.account()["fills"] == 2
