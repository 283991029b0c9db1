"""The order manager and the venue as a whole: modes, rate limits, breakers. Against the venue double."""

import json

import pytest
from order_world import MARKET, World

from mmbot.execution.gateway import Gateway
from mmbot.execution.http1 import HttpAnswer, NotSent
from mmbot.execution.order_journal import OrderJournal
from mmbot.risk import gates
from shm_layout import records as r

PAIR = ((0, 0, 5000, 20), (1, 0, 4900, 20))
MODE, HALT = r.VENUE_MODE, r.HALT_BIT
RESTART = (425, {}, {"error": "matching engine is restarting"})
POST_ONLY = (503, {"retry-after": "79"}, {"error": "post-only mode: only post-only orders and cancels are allowed", "code": "post_only_mode",
                                          "retry_after_seconds": 79})
CANCEL_ONLY = (503, {}, {"error": "Trading is currently cancel-only. New orders are not accepted, but cancels are allowed."})
DISABLED = (503, {}, {"error": "Trading is currently disabled. Check polymarket.com for updates"})
GEO = (403, {}, {"error": "Trading restricted in your region, please refer to available regions - https://docs.polymarket.com/x"})
CLOSED = (400, {}, {"error": "'0xab' address in closed only mode"})
UNAUTHORIZED = (401, {}, {"error": "Unauthorized/Invalid api key"})
LIMITED = (429, {"retry-after": "1"}, {"error": "Too Many Requests"})
HTML = (502, {"content-type": "text/html"}, "<html><title>502 Bad Gateway</title></html>")


class Refusing(World):
    """A world whose venue can refuse: ``refuse`` maps kind of request ("post", "cancel") to (status, headers, body)."""

    def __init__(self, tmp_path, **execution):
        super().__init__(tmp_path, **execution)
        self.refuse, self.told = {}, {}
        self.venue.answer = self.answer

    def answer(self, later=None, **_kw):
        for one in [later] if later else list(self.venue.waiting):
            self.venue.waiting.remove(one)
            kind = one.request[0]
            refusal = self.refuse.get(kind)
            if refusal is None:
                body = self.venue._carry_out(*one.request)
                one.settle(HttpAnswer(200, dict(self.told), json.dumps(body).encode(), self.now, self.now))
            else:
                status, headers, body = refusal
                data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                one.settle(HttpAnswer(status, headers, data, self.now, self.now))

    def live_for(self, seconds, *quotes, step_ms=20):
        """The core goes on wanting ``quotes``, the guardian allows, everything asked for is read."""
        quotes = quotes or PAIR
        for _ in range(int(seconds * 1000 / step_ms)):
            self.now += step_ms * 1_000_000
            self.guard()
            halted = bool(self.account()["halts"])
            self.target(*(() if halted else quotes), wake=False)
            self.wake()
            self.flush()
            if self.m.unknown or self.m.cut:
                self.run(self.recovery.resolve_unknown())
            if self.m.resync_reason or self.m.reread:
                self.run(self.recovery.compare())

    def mode(self):
        return r.VENUE_MODES[self.account()["venue_mode"]]

    def sent(self, kind):
        return [what for k, what in self.venue.log if k == kind]


@pytest.fixture
def w(tmp_path):
    return Refusing(tmp_path).ready()


def test_restart_pulls_everything_and_comes_back_post_only(w):
    w.live_for(0.5)
    assert len(w.venue.live()) == 2
    w.refuse = {"post": RESTART, "cancel": RESTART}
    w.live_for(0.5, (0, 0, 5100, 20), (1, 0, 4800, 20))
    assert w.mode() == "restarting" and w.account()["halts"] & HALT["venue_mode"]
    before = len(w.sent("cancel")), len(w.sent("post"))
    w.live_for(30)
    cancels = len(w.sent("cancel")) - before[0]
    assert len(w.sent("post")) == before[1], "no post while it restarts"
    assert 6 <= cancels <= 60, "cancels are tried again, with backoff"
    assert len(w.keys()) == len(w.venue.live()) > 0 and not w.m.unknown, "a refused cancel is no unknown outcome"
    reads = w.report.events.get("reconciles", 0)
    w.refuse = {}
    w.live_for(6)
    assert w.mode() == "post_only" and w.report.events.get("reconciles", 0) > reads, "the venue was read again before quoting"
    assert len(w.venue.live()) == 2 and w.agrees() and not w.account()["halts"]
    w.live_for(121, step_ms=200)
    assert w.mode() == "normal"


def test_orders_that_vanished_in_the_restart_are_found_missing(w):
    w.live_for(0.5)
    w.refuse = {"post": RESTART, "cancel": RESTART}
    w.live_for(1, (0, 0, 5100, 20), (1, 0, 4800, 20))
    for o in w.venue.orders.values():
        o["status"] = "CANCELED"
    w.refuse = {}
    w.live_for(8)
    assert w.agrees() and len(w.venue.live()) == 2


def test_post_only_mode_goes_on_quoting(w):
    w.live_for(0.3, (0, 0, 5000, 20))
    w.refuse = {"post": POST_ONLY}
    w.live_for(0.1)
    assert w.mode() == "post_only" and w.account()["venue_mode_until_ns"] > w.now + 70 * 10**9 and len(w.venue.live()) == 1
    w.refuse = {}
    w.live_for(1.5)
    assert w.mode() == "post_only" and len(w.venue.live()) == 2 and not w.account()["halts"]


def test_cancel_only_cancels_and_tries_one_batch_now_and_then(w):
    w.live_for(0.5)
    w.refuse = {"post": CANCEL_ONLY}
    w.live_for(0.3, (0, 0, 5000, 20), (1, 0, 4900, 20), (0, 1, 4900, 20))
    assert w.mode() == "cancel_only" and not w.venue.live()
    n = len(w.sent("post"))
    w.live_for(20)
    assert 2 <= len(w.sent("post")) - n <= 5 and not w.venue.live()
    w.refuse = {}
    w.live_for(16)
    assert w.mode() == "normal" and len(w.venue.live()) == 2


def test_disabled_keeps_trying_to_cancel(w):
    w.live_for(0.5)
    w.refuse = {"post": DISABLED, "cancel": DISABLED}
    w.live_for(10, (0, 0, 5000, 20))
    assert w.mode() == "disabled" and len(w.venue.live()) == 2 and not w.m.unknown
    assert 3 <= len(w.sent("cancel")) <= 20
    w.refuse = {"post": DISABLED}
    w.live_for(6)
    assert not w.venue.live()


@pytest.mark.parametrize(("refusal", "mode"), [(GEO, "geoblocked"), (CLOSED, "closed_only")])
def test_an_account_that_may_not_trade_halts_and_cancels(w, refusal, mode):
    w.live_for(0.5, (0, 0, 5000, 20))
    w.refuse = {"post": refusal}
    w.live_for(1)
    assert w.mode() == mode and w.account()["halts"] & HALT["venue_mode"] and not w.venue.live()
    n = len(w.venue.log)
    w.live_for(120, step_ms=100)
    assert len(w.sent("post")) <= 2 and len([k for k, _ in w.venue.log[n:] if k != "ping"]) == 0, "not tried again, nor in another way"


def test_unauthorized_stops_and_recovers(w):
    w.live_for(0.3)
    w.refuse = {"post": UNAUTHORIZED, "cancel": UNAUTHORIZED}
    w.live_for(5, (0, 0, 5200, 20))
    assert w.mode() == "unauthorized" and len(w.venue.live()) == 2
    w.refuse = {}
    w.live_for(31, step_ms=50)
    assert w.mode() == "normal" and len(w.venue.live()) == 2 and w.agrees()


def test_html_pages_are_no_answers(w):
    w.live_for(0.3)
    w.refuse = {"post": HTML, "cancel": HTML}
    w.live_for(3, (0, 0, 5100, 20), (1, 0, 4800, 20))
    assert w.mode() == "unreachable" and w.account()["halts"] & HALT["venue_mode"]
    w.refuse = {}
    w.live_for(8)
    assert w.mode() == "normal" and w.agrees() and len(w.venue.live()) == 2 and not w.m.unknown


def test_rate_limited_waits_as_told_and_cancels_meanwhile(w):
    w.live_for(0.3, (0, 0, 5000, 20))
    w.refuse = {"post": LIMITED}
    w.live_for(0.02)
    n = len(w.sent("post"))
    w.live_for(0.9, (0, 0, 4900, 20), (1, 0, 4900, 20))
    assert w.mode() == "rate_limited" and len(w.sent("post")) == n and not w.venue.live(), "a bid too dear goes all the same"
    assert not w.account()["halts"]
    w.refuse = {}
    w.live_for(1.5)
    assert w.mode() == "normal" and len(w.venue.live()) == 2


def test_slow_answers_pull_everything(w):
    w.live_for(0.3)
    late = 0
    answer = w.answer

    def slowly(later=None, **kw):
        for one in [later] if later else list(w.venue.waiting):
            sent_ns = one.sent_ns if hasattr(one, "sent_ns") else w.now - late
            one_settle = one.settle
            one.settle = lambda a, s=one_settle, t=sent_ns: s(HttpAnswer(a.status, a.headers, a.body, t, w.now))
            answer(one)
    w.venue.answer = slowly
    late = 1_400_000_000
    for i in range(20):
        w.live_for(0.3, (0, 0, 5000 + 100 * (i % 2), 20), step_ms=100)
    assert w.mode() == "slow" and not w.venue.live()
    late = 5_000_000
    w.live_for(10, step_ms=50)
    assert w.mode() == "normal" and len(w.venue.live()) == 2


class TestRates:
    def test_the_tier_of_the_headers_sets_the_buckets(self, w):
        assert w.account()["tier"] == -1
        w.told = {"poly-ratelimit-tier": "Silver", "poly-ratelimit-remaining": "250"}
        w.live_for(0.2)
        assert w.account()["tier"] == 3 and w.m.order_tokens.burst == 300 and w.m.cancel_tokens.burst == 600

    def test_the_venues_count_is_believed_when_lower(self, w):
        w.told = {"poly-ratelimit-remaining": "3"}
        w.live_for(0.02)
        w.told = {}
        assert w.m.order_tokens.available(w.now) <= 4

    def test_an_operators_cap_stays(self, tmp_path):
        w = Refusing(tmp_path, orders_per_s=10, orders_burst=20).ready()
        w.told = {"poly-ratelimit-tier": "Elite"}
        w.live_for(0.2)
        assert w.m.order_tokens.burst == 20 and w.m.cancel_tokens.burst == 120

    def test_the_guardians_tokens_are_never_touched(self, w):
        """Whatever is quoted and cancelled, the venue's cancel bucket keeps the guardian's share."""
        left, at = 120.0, w.now
        cancel = w.venue.cancel

        def count(ids, timestamp_s):
            nonlocal left, at
            left = min(120.0, left + (w.now - at) * 80e-9) - len(ids)
            at = w.now
            assert left >= 40
            return cancel(ids, timestamp_s)
        w.venue.cancel = count
        for i in range(400):
            w.now += 5_000_000
            w.guard()
            quotes = [(t, lv, 4000 + 100 * (i % 5) - 100 * lv, 20) for t in (0, 1) for lv in range(4)]
            w.target(*(quotes if i % 2 else ()))
            w.m.order_tokens.resize(1e6, 10**6)
        assert len(w.sent("cancel")) > 20 and left < 60
        w.live_for(2)
        assert w.agrees()

    def test_cancelling_everything_costs_one_and_each(self, w):
        w.live_for(0.2)
        before = w.m.cancel_tokens.for_safety(w.now)
        w.m.cancel_all()
        assert before - w.m.cancel_tokens.for_safety(w.now) == 3

    def test_under_pressure_churn_goes_first_then_outer_levels(self, w):
        w.live_for(0.3, (0, 0, 5000, 20))
        w.m.order_tokens.spend(53, w.now)                       # 60 in the bucket
        n = len(w.sent("post"))
        w.now += 300_000_000
        w.m.order_tokens.spend(12, w.now)
        w.target((0, 0, 5100, 20))
        assert len(w.sent("post")) == n, "a better price can wait"
        w.m.order_tokens.spend(3, w.now)
        w.target((0, 0, 5100, 20), (1, 0, 4000, 20), (1, 1, 3900, 20))
        assert [len(p) for p in w.sent("post")[n:]] == [1], "a missing innermost quote cannot, an outer level can"
        w.live_for(3, (0, 0, 5100, 20), (1, 0, 4000, 20), (1, 1, 3900, 20))
        assert len(w.venue.live()) == 3


class TestBreakers:
    def test_too_many_refusals_stop_for_a_while(self, tmp_path):
        w = Refusing(tmp_path, error_min=6, error_pause_s=5).ready()
        w.refuse = {"post": (400, {}, {"error": "could not run the execution"})}
        w.live_for(12)
        assert "error_rate" in w.report.errors
        assert len(w.sent("post")) <= 6
        w.refuse = {}
        w.live_for(9)
        assert len(w.venue.live()) == 2 and not w.account()["halts"]

    def test_crossing_is_no_error(self, tmp_path):
        w = Refusing(tmp_path, error_min=6).ready()
        w.refuse = {"post": (400, {}, {"error": "invalid post-only order: order crosses book"})}
        w.live_for(5)
        assert "error_rate" not in w.report.errors and len(w.sent("post")) > 10

    @pytest.mark.parametrize("limit", [{"max_loss_u6": 5_000_000}, {"max_loss_share": 0.005}])
    def test_a_loss_stops(self, tmp_path, limit):
        w = Refusing(tmp_path, **limit).ready()
        w.m.tend()
        w.live_for(0.2, (0, 0, 5000, 20))
        w.venue.fill(next(iter(w.venue.live())), 20_000_000)
        w.m.tend()
        assert not w.m.loss.open and w.m.loss.bankroll_u6 == 1_000_000_000, "what was bought is held at its cost"
        w.markets(state=r.MS_RESOLVED, outcome=r.DOWN)
        w.tick()
        w.m.tend()
        w.live_for(0.2)
        assert w.account()["halts"] & HALT["loss"] and not w.venue.live() and "loss" in w.report.errors
        w.tick()
        again = World(tmp_path, journal=OrderJournal(w.journal.path, sync_thread=False), **limit).ready()
        again.m.tend()
        again.tick()
        assert again.account()["halts"] == HALT["loss"], "a restart does not wipe the slate clean"

    def test_an_order_unknown_for_too_long_stops(self, tmp_path):
        w = Refusing(tmp_path, unknown_s=4).ready()
        w.live_for(0.2)
        w.venue.broken_reads = True
        w.m.mark_unknown(next(iter(w.m.by_market[MARKET].orders.values())), "test")
        w.refuse = {"cancel": HTML}
        w.live_for(3)
        assert not w.account()["halts"] & HALT["unknown_order"]
        w.live_for(2)
        assert w.account()["halts"] & HALT["unknown_order"]
        w.venue.broken_reads, w.refuse = False, {}
        w.live_for(8)
        assert not w.account()["halts"] and len(w.venue.live()) == 2


class TestLostAnswers:
    """Answers to posts get lost: fewer and fewer orders are sent, so that fewer and fewer rest unknown; cancels do not wait."""

    @staticmethod
    def lose(w, seconds):
        """Posts are executed and never answered; returns (when each POST left, how many orders it held) in s and legs."""
        w.venue.auto, answer = False, type(w.venue).answer
        begin, out = w.now, []
        for i in range(int(seconds * 50)):
            w.now += 20_000_000
            w.guard()
            w.target((0, 0, 5000 + 100 * (i // 25 % 2), 20), (1, 0, 4700, 20), (0, 1, 4800, 20), wake=False)
            w.wake()
            for later in list(w.venue.waiting):
                if later.request[0] == "post":
                    out.append(((w.now - begin) / 1e9, len(later.request[1])))
                    answer(w.venue, later, lose=True)
                else:
                    answer(w.venue, later)
            w.run(w.recovery.resolve_unknown())
            w.wake()
        w.venue.auto = True
        return out

    def test_posts_wait_longer_and_longer_and_go_one_at_a_time(self, w):
        posts = self.lose(w, 20)
        times = [t for t, _ in posts]
        gaps = [b - a for a, b in zip(times, times[1:], strict=False)]
        assert len(posts) == 4 and all(w <= g < w + 0.6 for g, w in zip(gaps, (2, 4, 8), strict=True)) and [n for _, n in posts[1:]] == [1, 1, 1]
        assert w.report.events["post_pauses"] == 4 and any(t.startswith("answers_lost: 4 answers") for t in w.report.texts)

    def test_the_first_good_answer_ends_it(self, w):
        self.lose(w, 3)
        w.live_for(6, (0, 0, 5000, 20), (1, 0, 4700, 20), (0, 1, 4800, 20))
        assert w.m.post_pause.losses == 0 and len(w.venue.live()) == 3 and w.agrees()

    def test_cancels_go_on(self, w):
        self.lose(w, 1)
        assert w.venue.live()
        w.live_for(0.3, (1, 3, 100, 5))
        assert not w.venue.live() and w.m.post_pause.room(1, w.now) == 0


def test_a_dry_run_wants_quotes_and_sends_nothing(tmp_path):
    w = Refusing(tmp_path, dry_run=True, adopt="keep").ready()
    for _ in range(50):
        w.tick(20)
        w.guard()
        w.target(*PAIR)
    assert w.account()["halts"] == HALT["dry_run"] and w.account()["state"] == r.AS_READY
    assert not w.sent("post") and not w.sent("cancel") and not w.sent("cancel_all") and w.account()["orders"] == 0
    assert not HALT["dry_run"] & gates.HALTING, "the core goes on making quotes"


def test_the_last_door_is_shut_in_a_dry_run():
    gateway = Gateway(None, None, None, dry_run=True)
    with pytest.raises(NotSent, match="dry run"):
        gateway.post([b"{}"], 1)
