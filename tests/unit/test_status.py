"""Status, lag and latency from shared memory alone: shapes, inferred states, positions marked to mid, a stopped reader's lag."""

import dataclasses
import json
import os
import uuid
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from mmbot import config, topology
from mmbot.cli.render import hedges, split_line
from mmbot.clock import mono_ns
from mmbot.ops import group
from mmbot.ops.picture import AccountView, Link, MarketView, Picture, QuoteView, lag_json, latency_json, marked_pnl, slug, split_json, status_json, why_not_quoting
from mmbot.ops.tally import Tally
from mmbot.ops.view import View
from shm_layout import records as r
from shm_layout import vitals as vt
from shm_layout.ring import RingReader, RingWriter
from shm_layout.segment import Space
from shm_layout.seqlock import SeqlockWriter

MARKET_ID = r.market_id(1775028600, 900)
SLOT = r.slot_of(1775028600, 900)


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    monkeypatch.setenv("MMBOT_RUN__NAME", f"t{uuid.uuid4().hex[:8]}")
    monkeypatch.setenv("MMBOT_RUN__DIR", str(tmp_path))
    made = config.load("paper")
    yield made
    space = Space(made.run.name)
    for name in space.segments():       # this process still holds some locks, so wipe would refuse
        space.path(name).unlink()


@pytest.fixture
def space(cfg):
    made = Space(cfg.run.name)
    made.create_missing(topology.RINGS, topology.SEQLOCKS, [p.name for p in topology.PROCESSES])
    return made


def process(space, name, state=vt.RUN, beat_ns=None):
    """A process that lives inside this one: owns its vitals page."""
    segment = space.own(f"vitals.{name}")
    writer = vt.VitalsWriter(segment, name, 1)
    writer.set_state(state)
    writer.beat(mono_ns() if beat_ns is None else beat_ns)
    return writer


def write(space, name, index=0, **values):
    writer = SeqlockWriter(space.own(name))
    for key, value in values.items():
        writer.rec[0][key] = value
    writer.write(index)
    return writer


def one_market(space, rtt_ns=0):
    """A window with a book 0.60/0.62, a target with two quotes, and a position of 40 Up and 20 Down."""
    info = np.zeros(1, r.MARKET_INFO)[0]
    for key, value in {"market_id": MARKET_ID, "slot": SLOT, "start_s": 1775028600, "end_s": 1775029500, "duration_s": 900,
                       "state": r.MS_OPEN, "outcome": r.NO_OUTCOME}.items():
        info[key] = value
    rows = np.zeros(r.MARKET_SLOTS, r.MARKET_INFO)
    rows[SLOT] = info
    write(space, "markets", row=rows)
    now = mono_ns()
    write(space, "book", SLOT, market_id=MARKET_ID, t_exch_ns=1775028700 * 10**9, t_recv_ns=now, n_bid=1, n_ask=1, rtt_ns=rtt_ns,
          bid_px_e4=[6000, 0, 0, 0, 0], bid_size_u6=[10**7, 0, 0, 0, 0], ask_px_e4=[6200, 0, 0, 0, 0], ask_size_u6=[10**7, 0, 0, 0, 0])
    quotes = np.zeros(r.MAX_QUOTES, r.QUOTE)
    quotes["px_e4"][:2], quotes["size_u6"][:2], quotes["token"][:2] = (5900, 3800), (20_000_000, 20_000_000), (r.UP, r.DOWN)
    targets = write(space, "targets", SLOT, market_id=MARKET_ID, slot=SLOT, deadline_ns=now + 10**10, q_up=0.61, sigma=1e-4, n_quotes=2, quote=quotes)
    positions = np.zeros(r.MARKET_SLOTS, r.POSITION)
    for key, value in {"market_id": MARKET_ID, "qty_up_u6": 40_000_000, "qty_down_u6": 20_000_000, "cost_up_u6": 23_000_000,
                       "cost_down_u6": 7_700_000, "live_orders": 2}.items():
        positions[SLOT][key] = value
    write(space, "account", state=r.AS_READY, cash_u6=969_300_000, exposure_u6=30_700_000, fills=3, orders=9, position=positions)
    write(space, "guard", quoting_allowed=1)
    return targets


class TestStates:
    def test_nothing_exists(self, cfg):
        view = View(cfg)
        assert not view.exists()
        assert {p.state for p in view.processes()} == {"DEAD"}
        assert view.links() == () and view.markets(None) == ()

    def test_run_boot_halt_hung_dead(self, cfg, space):
        old = mono_ns() - 5 * 10**9
        kept = [process(space, "core"), process(space, "executor", vt.BOOT, old), process(space, "guardian", vt.RUN, old)]
        gone, died = process(space, "sim", vt.HALT), process(space, "feed_user", vt.RUN)
        gone.segment.release()
        died.segment.release()
        states = {p.name: p.state for p in View(cfg).processes()}
        assert states["core"] == "RUN"
        assert states["executor"] == "BOOT", "loading code takes seconds without a heartbeat"
        assert states["guardian"] == "HUNG"
        assert states["sim"] == "HALT"
        assert states["feed_user"] == "DEAD"
        assert states["discovery"] == "DEAD"
        assert kept

    def test_identity_restarts_and_last_error(self, cfg, space):
        process(space, "core").segment.release()
        second = process(space, "core")
        second.error("old", "first trouble", 1)
        second.error("new", "second trouble", 2)
        row = next(p for p in View(cfg).processes() if p.name == "core")
        assert (row.pid, row.epoch, row.restarts, row.last_error) == (os.getpid(), 2, 1, "new: second trouble")
        assert row.rss_mb > 1

    def test_wiped_memory_is_noticed(self, cfg, space):
        writer = process(space, "core")
        view = View(cfg)
        assert view.state("core") == "RUN"
        writer.segment.release()
        space.wipe()
        assert view.state("core") == "DEAD" and not view.exists()
        space.create_missing(topology.RINGS, topology.SEQLOCKS, [p.name for p in topology.PROCESSES])
        again = process(space, "core")
        assert view.identity("core") == (os.getpid(), 1) and again


class TestLag:
    def test_lag_of_a_stopped_reader_is_computed_from_the_head(self, cfg, space):
        ring = RingWriter(space.own("md.market"))
        core, reader = process(space, "core"), RingReader(space.attach("md.market"))
        core.links([("md.market", reader.link)])
        ring.rec[0]["t_pub_ns"] = mono_ns() - 10**9
        for _ in range(5):
            ring.publish()
        link = next(x for x in View(cfg).links() if (x.ring, x.reader) == ("md.market", "core"))
        assert (link.head, link.cursor, link.lag, link.lag_max) == (4, 0, 5, 5)
        assert link.oldest_unread_age_ns >= 10**9

    def test_every_reader_of_the_topology_has_a_row(self, cfg, space):
        rows = {(x.ring, x.reader) for x in View(cfg).links()}
        assert rows == {(s, p.name) for p in topology.processes("paper") for s in p.reads if s in topology.RINGS}

    def test_json_shape(self, cfg, space):
        document = json.loads(json.dumps(lag_json(View(cfg).links())))
        assert list(document) == ["links"]
        assert set(document["links"][0]) == {"ring", "reader", "head", "cursor", "lag", "lag_max", "oldest_unread_age_ns", "lapped_polling",
                                             "lapped_reading", "lost"}


class TestLatency:
    def test_histograms_of_processes_add(self, cfg, space):
        core, executor = process(space, "core"), process(space, "executor")
        for _ in range(90):
            core.hop("recv_send", 10_000)
        for _ in range(10):
            executor.hop("recv_send", 1_000_000)
        hops, shapes = View(cfg).hops()
        whole = hops[-1]
        assert whole.hop == "recv_send" and whole.count == 100
        assert whole.p50_ns == pytest.approx(10_000, rel=1 / 32) and whole.p99_ns == pytest.approx(1_000_000, rel=1 / 32)
        assert whole.max_ns == 1_000_000 and sum(shapes["recv_send"]) == 100

    def test_json_shape_and_order(self, cfg, space):
        document = json.loads(json.dumps(latency_json(View(cfg).hops()[0])))
        assert [h["hop"] for h in document["hops"]] == ["recv_pub", "pub_poll", "poll_decide", "decide_wake", "wake_send", "send_ack", "recv_send"]
        assert set(document["hops"][0]) == {"hop", "count", "p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns"}


class TestStatus:
    def test_market_account_and_quoting(self, cfg, space):
        one_market(space)
        kept = [process(space, name) for name in ("core", "executor")]
        picture = View(cfg).picture()
        market = picture.markets[0]
        assert (market.slug, market.up_bid, market.up_ask, market.live_orders) == ("btc-updown-15m-1775028600", 0.60, 0.62, 2)
        assert market.tau_s == pytest.approx(800, abs=2)
        assert [(q.token, round(q.px, 4), q.size) for q in market.quotes] == [(0, 0.59, 20.0), (1, 0.38, 20.0)]
        assert picture.quoting and picture.halt_reason is None and kept
        assert picture.account.pnl == pytest.approx(40 * 0.61 + 20 * 0.39 - 30.7)

    def test_json_shape(self, cfg, space):
        one_market(space)
        document = json.loads(json.dumps(status_json(View(cfg).picture())))
        assert list(document) == ["profile", "dry_run", "quoting", "halt_reason", "processes", "markets", "account", "settlement", "market_rtt", "guard"]
        assert set(document["processes"][0]) == {"name", "state", "pid", "epoch", "cpu", "heartbeat_age_ms", "restarts", "busy_pct", "rss_mb",
                                                 "last_error", "stalls", "worst_stall_ms"}
        assert set(document["markets"][0]) == {"slug", "tau_s", "q_up", "up_bid", "up_ask", "live_orders", "frozen", "suspect", "gates", "reward_score"}
        assert set(document["account"]) == {"cash", "exposure", "fills", "pnl", "state", "live_orders", "unknown", "halts", "venue_mode",
                                            "venue_mode_left_s", "deaf", "difference_s", "reversed", "tier", "order_tokens", "cancel_tokens", "split", "scoring",
                                            "late", "late_result"}
        assert document["account"]["halts"] == [] and document["account"]["venue_mode"] == "normal" and document["guard"]["panics"] == 0
        assert document["quoting"] is False and document["halt_reason"] == "core is DEAD"

    def test_halts_mode_and_time_to_flat_are_read(self, cfg, space):
        now = mono_ns()
        kept = [write(space, "account", state=r.AS_READY, halts=r.HALT_BIT["venue_mode"] | r.HALT_BIT["difference"], reversed=2,
                      venue_mode=r.VENUE_MODE["post_only"], venue_mode_until_ns=now + 60_000_000_000, difference_since_ns=now - 3_000_000_000),
                write(space, "guard", panics=1, last_panic_ns=now, last_flat_ns=now + 35_000_000)]
        p = View(cfg).picture()
        a = p.account
        assert a.halts == ("venue_mode", "difference") and a.venue_mode == "post_only" and 55 < a.venue_mode_left_s <= 60
        assert 3 <= a.difference_s < 10 and a.reversed == 2 and p.last_flat_ms == 35.0 and kept

    def test_the_parts_of_the_result_sum_to_it(self, cfg, space):
        kept = [write(space, "account", state=r.AS_READY, realized_u6=3_000_000, spread_u6=5_000_000, adverse_u6=-1_250_000, fees_u6=500_000,
                      rebate_u6=70_000, scoring=-1)]
        a = View(cfg).picture().account
        parts = split_json(a)
        assert parts == {"spread": 5.0, "adverse": -1.25, "inventory": -0.25, "fees": 0.5, "rebate_most": 0.07} and kept
        assert parts["spread"] + parts["adverse"] + parts["inventory"] - parts["fees"] == pytest.approx(a.pnl) == 3.0
        text = split_line(a).plain
        assert all(word in text for word in ("spread", "adverse selection", "inventory", "fees", "rebates"))

    def test_round_trip_and_reward_score_are_shown(self, cfg, space):
        kept = one_market(space, rtt_ns=612_000_000)
        assert View(cfg).picture().markets[0].reward_score is None
        document = status_json(View(cfg).picture())
        assert document["market_rtt"] == {"ms": 612.0, "band": "critical"}
        on = cfg.model_copy(update={"strategy": config.Strategy(rewards={"enabled": True, "min_size_u6": 20_000_000, "max_spread": 0.04})})
        score = View(on).picture().markets[0].reward_score
        assert score == pytest.approx(5.0), "20 shares of each at 2 and at 1 cents of 4: the lesser of (1/2)^2 and (3/4)^2 of 20" and kept

    def test_hedges_of_unpaired_positions(self, cfg, space):
        kept = one_market(space)
        ((market, found),) = View(cfg).hedges()
        assert market.market_id == MARKET_ID and (found.token, found.unpaired_u6, found.pairs_u6) == (r.UP, 20_000_000, 20_000_000)
        assert {o.name for o in found.options} == {"hold", "sell", "buy the other and merge"} and kept
        text = Console(width=140, record=True, file=open(os.devnull, "w"))
        text.print(hedges([(market, found)]))
        assert "20.00 Up" in (shown := text.export_text()) and "breakeven" in shown

    def test_expired_target_is_no_quote(self, cfg, space):
        targets = one_market(space)
        kept = [process(space, name) for name in ("core", "executor")]
        targets.rec[0]["deadline_ns"] = mono_ns() - 1
        targets.write(SLOT)
        picture = View(cfg).picture()
        assert picture.markets[0].quotes == () and not picture.quoting and kept

    def test_slug(self):
        assert slug(r.market_id(1795186800, 300)) == "btc-updown-5m-1795186800"


def market(**values) -> MarketView:
    base = dict(slug="btc-updown-15m-900", market_id=900015, state="open", tau_s=10.0, q_up=0.5, up_bid=0.4, up_ask=0.5)
    return MarketView(**base | values)


class TestArithmetic:
    def test_pnl_marks_open_windows_to_mid_and_leaves_resolved_ones_to_realized(self):
        open_one = market(shares=(10.0, 0.0), cost=(4.0, 0.0))
        resolved = market(shares=(10.0, 0.0), cost=(4.0, 0.0), outcome=r.UP)
        assert marked_pnl(6.0, (open_one, resolved)) == pytest.approx(6.0 + 10 * 0.45 - 4.0)

    def test_pnl_without_any_mark_counts_at_cost(self):
        assert marked_pnl(0.0, (market(shares=(10.0, 0.0), cost=(4.0, 0.0), up_bid=None, q_up=None),)) == 0.0

    @pytest.mark.parametrize("change, says", [
        ({"core_state": "HUNG"}, "core is HUNG"), ({"executor_state": "DEAD"}, "executor is DEAD"),
        ({"guard_allows": False, "guard_reasons": ("feed_user",)}, "guardian: feed_user"), ({"account_state": "reconciling"}, "account is reconciling"),
        ({"markets": (market(gates=("cutoff",)),)}, "no quotes wanted: cutoff"), ({"markets": ()}, "no quotes wanted: no window"),
        ({"halts": ("guard",)}, "no quotes wanted: no window"),
        ({"halts": ("dry_run",)}, "no quotes wanted: no window"),
        ({"halts": ("dry_run", "loss")}, "executor: loss"),
        ({"halts": ("dry_run",), "markets": (MarketView("s", MARKET_ID, "open", 1.0, None, None, None, quotes=(QuoteView(0, 0, 0.5, 5),)),)},
         "dry run: quotes are made, no order is sent"),
        ({"halts": ("venue_mode", "difference"), "venue_mode": "cancel_only"}, "executor: venue is cancel_only, difference"),
    ])
    def test_why_not_quoting(self, change, says):
        base = dict(account_state="ready", guard_allows=True, guard_reasons=(), core_state="RUN", executor_state="RUN", markets=())
        assert why_not_quoting(**base | change) == says


def test_down_cancels_nothing_for_the_executor_of_a_dry_run(cfg, monkeypatch):
    asked = []
    monkeypatch.setattr(group, "able_to_ask", lambda cfg: cfg)
    monkeypatch.setattr(group, "cancel_everything", lambda cfg: asked.append(cfg) or SimpleNamespace(cancelled=[], left=[], trouble=""))
    monkeypatch.setenv("MMBOT_EXECUTION__DRY_RUN", "true")
    group.Group(config.load("paper"))._cancel_from_here()
    assert asked == [], "orders at the venue are another program's"
    group.Group(cfg)._cancel_from_here()
    assert asked == [cfg]


def picture(quoting=True, halt_reason=None, panics=0, markets=(), **account) -> Picture:
    return Picture("paper", "paper", quoting, halt_reason, (), markets, AccountView(**account), panics=panics)


class TestTally:
    def test_counters_of_a_restarted_executor_add_up(self):
        t = Tally()
        for orders in (3, 10, 0, 4):
            t.add(picture(orders=orders, fills=7), 1.0)
        assert t.document()["orders"] == 14 and t.document()["fills"] == 7

    def test_halts_are_counted_once_and_gates_are_none(self):
        t = Tally()
        t.add(picture(False, "core is BOOT"), 0.5)
        t.add(picture(), 1.0)
        t.add(picture(False, "no quotes wanted: cutoff"), 2.0)
        t.add(picture(False, "core is DEAD"), 3.0)
        t.add(picture(False, "guardian: core", panics=1), 3.5)
        t.add(picture(panics=1), 4.0)
        t.add(picture(panics=2), 5.0)
        assert [h["reason"] for h in t.document()["halts"]] == ["core is DEAD", "guardian: panic, over before it was seen"]

    def test_windows_remember_what_was_quoted(self):
        t = Tally()
        t.add(picture(markets=(market(quotes=(QuoteView(0, 0, 0.4, 5),)),)), 1.0)
        t.add(picture(markets=(market(shares=(2.0, 0.0), cost=(0.8, 0.0)),)), 2.0)
        document = t.document()
        assert document["windows"] == [{"slug": "btc-updown-15m-900", "quoted_up": True, "quoted_down": False}]
        assert document["positions"][0]["up"] == 2.0
        assert set(document) == {"orders", "cancels", "fills", "rejects", "late", "late_result", "positions", "pnl", "split", "settlement", "windows", "halts",
                                 "latency", "lag"}

    def test_the_stopped_group_is_no_halt_and_its_lag_does_not_count(self):
        t = Tally()
        alive = dataclasses.replace(picture(orders=5, fills=1), links=(Link("user", "executor", 3, 4, 0, 0, 0, 0, 0, 0),))
        t.add(alive, 1.0)
        t.finish(dataclasses.replace(picture(False, "core is HALT", orders=6, fills=2), links=(Link("user", "executor", 9, 4, 6, 6, 10**9, 0, 0, 0),)))
        document = t.document()
        assert (document["orders"], document["fills"], document["halts"]) == (6, 2, [])
        assert document["lag"]["links"][0]["lag"] == 0


def test_a_group_of_another_build_can_be_stopped(cfg):
    """Its memory cannot be read, so its executor's goodbye cannot be seen; that must not keep anybody from stopping it."""
    other = Space(cfg.run.name, "f" * 64)
    other.create_missing({}, {}, ["executor"])
    try:
        assert group._state(View(cfg), "executor") == group.UNREADABLE
    finally:
        other.wipe()
    assert group._state(View(cfg), "executor") == group.NEVER_RAN
