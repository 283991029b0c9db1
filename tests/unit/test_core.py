"""The core's step as a machine: pure, deterministic, without allocation; what it stamps, when it refreshes, how it starts again."""

import functools
import os
from types import SimpleNamespace

import numpy as np
import pytest
from numba import njit
from numba.core.runtime import _nrt_python, rtsys

from core_world import PX, SECOND, START_S, World, quoting
from mmbot import core, topology
from mmbot.clock import mono_ns
from mmbot.config import Strategy
from mmbot.params import CODES, params_block
from procs import core as process
from shm_layout import records as r
from shm_layout import vitals as vt
from shm_layout.ring import RingReader, RingWriter
from shm_layout.segment import Space
from shm_layout.seqlock import SeqlockReader, SeqlockWriter

DECISION, WRITE = 1 << core.DECISION_SHIFT, 1 << core.WRITE_SHIFT
OTHER_SOURCES = (r.SRC_TIMER, r.SRC_OWN, r.SRC_PROGRAMME, r.SRC_MARKETS, r.SRC_ACCOUNT, r.SRC_GUARD, r.SRC_PARAMS)


@njit
def many(n, state, src, market, oracle, spot, own, programme, markets, account, guard, params, now_ns, wall_ns):
    """Steps with a book that moves, time that passes and, with the account, a fill each."""
    for i in range(n):
        now_ns, wall_ns = now_ns + 1_000_000, wall_ns + 1_000_000
        market[0].bid_px_e4[0] = 4000 + 500 * (i & 1)
        market[0].t_recv_ns = spot[0].t_recv_ns = oracle[0].t_recv_ns = market[0].t_pub_ns = now_ns
        spot[0].bid = spot[0].ask = spot[0].ask + (1 if i & 1 else -1)
        oracle[0].t_obs_ms = wall_ns // 1_000_000
        if src == r.SRC_ACCOUNT:
            for slot in range(r.MARKET_SLOTS):
                account[0].position[slot].qty_up_u6 += 1_000
                account[0].position[slot].fills_up += 1
        core.step(state, src, market, oracle, spot, own, programme, markets, account, guard, params, now_ns, wall_ns)


@njit
def leaky(n):
    return sum([np.ones(4 + i).sum() for i in range(n)])


def story(seed=1, n=300):
    """Bytes of all targets after each of ``n`` random inputs."""
    rng = np.random.default_rng(seed)
    world = World(offset_s=-20.0)
    slots = [world.add_window(), world.add_window(START_S + 900)]
    out = []
    for _ in range(n):
        world.wait(float(rng.uniform(0.001, 0.3)))
        kind = rng.integers(6)
        if kind == 0:
            world.lead(PX * (1 + float(rng.normal(0, 3e-4))))
        elif kind == 1:
            world.print(PX * (1 + float(rng.normal(0, 3e-4))))
        elif kind == 2:
            world.print(PX, r.OK_TWAP60, obs_s=int(world.wall_ns / SECOND))
        elif kind == 3:
            world.timer()
        else:
            bid = int(rng.integers(20, 80))
            world.book(bid * 100, (bid + int(rng.integers(1, 4))) * 100, START_S)
        out.append(world.state["target"].tobytes())
    assert any(world.quotes(s) for s in slots) or world.target(slots[0])["decision"] > 0
    return out


class TestPure:
    def test_the_same_inputs_give_the_same_bytes(self):
        first, again = story(), story()
        assert first == again and len(set(first)) > 50 and story(2) != first

    @pytest.mark.parametrize("strategy", r.STRATEGIES)
    def test_a_step_allocates_nothing(self, strategy):
        world, slot = quoting(strategy=strategy, completion={"enabled": True, "from_s": 800.0}, rewards={"enabled": True}, capital={"sizing": "capital"})
        _nrt_python.memsys_enable_stats()
        leaky(1)
        before = rtsys.get_allocation_stats()
        leaky(100)
        assert rtsys.get_allocation_stats().alloc - before.alloc > 100, "the counter counts"

        def allocations(n, src):
            before = rtsys.get_allocation_stats()
            many(n, world.state, src, world.market, world.oracle, world.spot, world.own, world.programme, world.markets, world.account, world.guard,
                 world.params, world.now_ns, world.wall_ns)
            after = rtsys.get_allocation_stats()
            return after.alloc - before.alloc, after.mi_alloc - before.mi_alloc

        world.account["position"][0, slot]["market_id"] = r.market_id(START_S, 900)
        for src, venue in ((r.SRC_MARKET, 1), (r.SRC_ORACLE, 1), (r.SRC_SPOT, 1), (r.SRC_SPOT, 2), (r.SRC_SPOT, 3), *((src, 1) for src in OTHER_SOURCES)):
            world.spot["venue"] = venue
            allocations(1, src)
            assert allocations(2000, src) == allocations(1, src)
        world.market["kind"], world.market["trade_size_u6"] = r.MK_TRADE, 1_000_000
        assert allocations(2000, r.SRC_MARKET) == allocations(1, r.SRC_MARKET)
        assert int(world.state["decisions"][0]) > 1500
        assert int(world.state["window"][0, slot]["fills"]["n"]) > 2000, "own fills were taken"

    @pytest.mark.parametrize("strategy", r.STRATEGIES)
    def test_a_step_takes_microseconds(self, strategy):
        """The least of some rounds, since others use the CPU too; `bench/core_step.py` has the figures. Interpreted it would take a hundred times as long."""
        w, _ = quoting(strategy=strategy)
        args = (w.state, r.SRC_MARKET, w.market, w.oracle, w.spot, w.own, w.programme, w.markets, w.account, w.guard, w.params, w.now_ns, w.wall_ns)
        many(1, *args)
        took = []
        for _ in range(20):
            begin = mono_ns()
            many(500, *args)
            took.append((mono_ns() - begin) / 500)
        assert min(took) < 20_000, took

    def test_inputs_are_not_written(self):
        world, slot = quoting()
        inputs = (world.market, world.oracle, world.spot, world.own, world.programme, world.markets, world.account, world.guard, world.params)
        before = [a.tobytes() for a in inputs]
        for src in range(10):
            world.step(src)
        assert [a.tobytes() for a in inputs] == before

    @pytest.mark.parametrize("fields", [dict(slot=-1), dict(slot=8), dict(slot=2**40), dict(market_id=0), dict(market_id=-5)])
    def test_a_record_of_nowhere_is_ignored(self, fields):
        world, slot = quoting()
        before = world.state.tobytes()[core.STATE.fields["slot"][1]:]
        for name, value in fields.items():
            world.market[name] = value
        assert world.step(r.SRC_MARKET) == 0
        assert world.state.tobytes()[core.STATE.fields["slot"][1]:] == before


class TestTargets:
    def test_a_change_carries_the_stamps_of_its_cause(self):
        world, slot = quoting()
        world.wait(0.01)
        bits = world.book(4000, 4100)
        t, m = world.target(slot), world.market[0]
        assert bits == (1 | DECISION | WRITE) << slot
        assert [int(t[n]) for n in ("t_exch_ns", "t_recv_ns", "t_pub_ns")] == [int(m[n]) for n in ("t_exch_ns", "t_recv_ns", "t_pub_ns")]
        assert t["cause_src"] == r.SRC_MARKET and t["changed_ns"] == t["t_decide_ns"] == t["t_poll_ns"] == world.now_ns
        assert t["params_version"] == world.params["version"][0] > 0 and t["market_id"] == world.market["market_id"][0]
        assert t["deadline_ns"] == world.now_ns + world.params["of"]["target_ttl_ns"][0, 0]

    @pytest.mark.parametrize("src, act", [
        (r.SRC_SPOT, lambda w: w.lead(PX * 1.004)),
        (r.SRC_ORACLE, lambda w: w.print(PX * 1.004)),
        (r.SRC_GUARD, lambda w: (w.guard["quoting_allowed"].__setitem__(0, 0), w.step(r.SRC_GUARD))),
        (r.SRC_TIMER, lambda w: (w.wait(1), w.timer())),
    ])
    def test_every_source_is_named(self, src, act):
        world, slot = quoting(model_weight=1.0)
        world.wait(1)
        world.book()
        act(world)
        assert world.target(slot)["cause_src"] == src and world.target(slot)["changed_ns"] == world.now_ns

    def test_a_refresh_renews_the_deadline_and_nothing_else_of_the_decision(self):
        world, slot = quoting()
        kept = {n: int(world.target(slot)[n]) for n in ("decision", "changed_ns", "t_recv_ns", "t_decide_ns", "cause_src")}
        world.wait(0.05)
        assert world.timer() == 0, "not due yet"
        world.wait(0.05)
        assert world.timer() == WRITE << slot
        assert {n: int(world.target(slot)[n]) for n in kept} == kept
        assert world.target(slot)["deadline_ns"] == world.now_ns + 500_000_000

    def test_a_gate_that_changes_no_quotes_is_a_decision_without_a_bell(self):
        world, slot = quoting()
        world.guard["quoting_allowed"] = 0
        assert world.step(r.SRC_GUARD) & 0xFF
        world.wait(0.1)
        world.account["user_ok"] = 0
        bits = world.step(r.SRC_ACCOUNT)
        assert bits == (DECISION | WRITE) << slot and world.target(slot)["changed_ns"] < world.now_ns

    def test_unused_quotes_are_zero(self):
        world, slot = quoting()
        world.hold(slot, up=150)
        t = world.target(slot)
        assert t["n_quotes"] == 2 and not t["quote"][2:].view(np.int64).any()

    def test_windows_do_not_touch_each_other(self):
        world, slot = quoting(offset_s=880.0, cutoff_s=0.0)
        other = world.add_window(START_S + 900)
        world.book(3000, 3100, START_S + 900)
        before = world.target(slot).tobytes()
        assert world.book(6000, 6100, START_S + 900) & 0xFF == 1 << other
        assert world.target(slot).tobytes() == before


class TestRoll:
    def play(self, world, seconds, starts):
        for _ in range(int(seconds * 4)):
            world.wait(0.25)
            world.lead()
            if world.wall_ns % SECOND < SECOND // 4:
                world.print()
                world.print(PX, r.OK_TWAP60, obs_s=world.wall_ns // SECOND - 1)
            for start in starts:
                world.book(start_s=start)
            world.timer()
            yield world.wall_ns / SECOND - START_S

    def test_quotes_go_on_across_the_roll_and_the_print_arrives_late(self):
        world = World(offset_s=-70.0)
        slot = world.add_window()
        for at in self.play(world, 80, [START_S]):
            assert bool(world.quotes(slot)) == (at >= -60), (at, world.gates(slot))
        assert core.find_strike(world.state[0], world.markets["row"][0, slot]) >= 0
        assert int(world.state["boundary_s"].max()) == START_S

    def test_a_missing_opening_print_stops_the_window_after_a_grace(self):
        world = World(offset_s=-10.0)
        slot = world.add_window()
        for _ in range(60):
            world.wait(0.25)
            world.lead(), world.print(), world.book()
            at = world.wall_ns / SECOND - START_S
            assert bool(world.quotes(slot)) == (at <= 5), at

    def test_two_windows_at_the_roll_then_the_old_one_falls_silent(self):
        world = World(offset_s=834.75)
        old, new = world.add_window(), world.add_window(START_S + 900)
        world.strike()
        for at in self.play(world, 20, [START_S, START_S + 900]):
            assert bool(world.quotes(old)) == (at < 840) and bool(world.quotes(new)) == (at >= 840)

    def test_a_slot_is_taken_over_by_a_later_window(self):
        world, slot = quoting()
        world.hold(slot, up=70)
        world.wait(3600 - 330)
        assert world.add_window(START_S + 3600) == slot
        world.step(r.SRC_MARKETS)
        assert world.target(slot)["market_id"] == r.market_id(START_S + 3600, 900) and not world.quotes(slot)
        world.lead(), world.print(), world.book(start_s=START_S + 3600)
        assert world.gates(slot) == set() and len(world.quotes(slot)) == 4, "the old window's shares do not count"

    def test_an_exact_boundary_print_beats_a_stand_in_and_not_the_reverse(self):
        world = World()
        world.strike(PX + 7, trusted=0, late_s=2)
        at = START_S // 300 % r.BOUNDARIES
        assert np.exp(world.state["boundary_ln"][0, at]) == pytest.approx(PX + 7)
        world.strike(PX)
        world.strike(PX + 9, trusted=0, late_s=3)
        world.strike(PX + 1)
        assert np.exp(world.state["boundary_ln"][0, at]) == pytest.approx(PX)
        world.strike(PX, start_s=START_S - 300 * r.BOUNDARIES)
        assert world.state["boundary_s"][0, at] == START_S

    def test_a_disputed_strike_is_not_quoted_on_and_trust_never_comes_back(self):
        world, slot = quoting()
        assert world.quotes(slot)
        world.strike(PX, trusted=0)
        assert world.gates(slot) == {"no_strike"} and not world.quotes(slot)
        world.strike(PX)
        world.timer()
        assert world.gates(slot) == {"no_strike"}

    def test_a_stand_in_for_the_missing_print_is_not_quoted_on(self):
        world = World(offset_s=300.0)
        slot = world.add_window()
        world.strike(PX, trusted=0, late_s=2)
        world.lead(), world.print(), world.book(), world.timer()
        assert world.gates(slot) == {"no_strike"}


class TestParams:
    def test_every_field_has_a_key_and_the_same_values_the_same_version(self):
        strategy = Strategy()
        a, b = params_block(strategy, 1), params_block(strategy, 2)
        assert a["version"] == b["version"] and 0 < a["version"][0] < 1 << 48
        compared = []

        def compare(record, section, table=""):
            for name in record.dtype.names:
                value = getattr(section, name)
                if record.dtype[name].names:
                    compare(record[name], value, name)
                elif (table, name) not in CODES:
                    assert np.array_equal(record[name], np.asarray(value)), name
                    compared.append(name)
        compare(a["of"][0, 0], strategy)
        assert len(compared) > 100
        assert params_block(Strategy(levels=3), 1)["version"] != a["version"]

    def test_windows_of_one_length_may_differ(self):
        strategy = Strategy(levels=3, for_5m={"levels": 1, "tiered": {"base_spread": 0.03}})
        block = params_block(strategy, 1)["of"][0]
        assert list(block["levels"]) == [3, 1] and list(block["tiered"]["base_spread"]) == [0.02, 0.03]
        assert block["cutoff_s"][0] == block["cutoff_s"][1]


@pytest.fixture
def group():
    """Real shared memory with this process as every writer, and a core bound to it."""
    space = Space(f"t{os.getpid()}core")
    space.create_missing(topology.RINGS, topology.SEQLOCKS, ["core"])
    row = topology.BY_NAME["core"]
    writers = {n: RingWriter(space.own(n)) for n in topology.RINGS} | {n: SeqlockWriter(space.own(n)) for n in topology.SEQLOCKS}
    vitals = vt.VitalsWriter(space.own("vitals.core"), "core")

    def start(world):
        c = core.Core(world.params)
        rings = {n: RingReader(space.attach(n)) for n in row.reads if n in topology.RINGS}
        seqlocks = {n: SeqlockReader(space.attach(n)) for n in row.reads if n in topology.SEQLOCKS}
        c.bind(rings, seqlocks, writers["targets"], writers["decisions"], vitals)
        c.set_clock(world.wall_ns, mono_ns(), 1.0)
        return c
    start.vitals = vitals
    yield space, writers, start
    for writer in writers.values():
        writer.segment.release()
    vitals.segment.release()
    space.wipe()


def put(writer, record, index=None):
    """Publish a world's record as its owner would, stamped now."""
    writer.rec[:] = record
    now = mono_ns()
    for name in ("t_recv_ns", "t_pub_ns", "t_update_ns"):
        if name in writer.rec.dtype.names:
            writer.rec[name] = now
    return writer.publish() if isinstance(writer, RingWriter) else writer.write(index or 0)


@functools.cache
def targets_of(space):
    return SeqlockReader(space.attach("targets"))


def read_target(space, slot):
    reader = targets_of(space)
    return reader.rec[0] if reader.read(slot) > 0 else None


class TestBurst:
    def feed(self, writers, world):
        """Everything a core needs to quote, through rings and seqlocks."""
        for name, record in (("markets", world.markets), ("account", world.account), ("guard", world.guard)):
            put(writers[name], record)
        put(writers["md.oracle"], world.oracle)
        put(writers["md.binance"], world.spot)
        put(writers["md.market"], world.market)

    def world(self):
        world, slot = quoting()
        world.oracle["t_obs_ms"] = (START_S + 301) * 1000
        return world, slot

    def strike(self, writers, world, name="md.oracle"):
        spot = world.oracle.copy()
        world.strike()
        put(writers[name], world.oracle)
        world.oracle[:] = spot

    def test_records_in_targets_out(self, group):
        space, writers, start = group
        world, slot = self.world()
        c = start(world)
        decisions = RingReader(space.attach("decisions"))
        self.strike(writers, world)
        self.feed(writers, world)
        rang = [c.spin() for _ in range(4)]
        assert any(b & core.RING_BELL for b in rang) and sum(b >> 1 for b in rang) >= 4
        target = read_target(space, slot)
        assert r.gate_names(int(target["gates"])) == [] and target["n_quotes"] == 4
        assert target["t_pub_ns"] <= target["t_poll_ns"] <= target["t_decide_ns"] <= mono_ns()
        seen = []
        while decisions.poll():
            seen.append(decisions.rec.copy())
        assert seen and seen[-1]["n_quotes"][0] == 4 and seen[-1]["decision"][0] == target["decision"]
        hops = vt.VitalsReader(space.attach("vitals.core")).snapshot()["hops"]
        assert set(k for k, v in hops.items() if np.sum(v["counts"] if isinstance(v, dict) else v)) == {"pub_poll", "poll_decide"}

    @pytest.mark.parametrize("name, venue", [("md.coinbase", r.SV_COINBASE), ("md.bybit", r.SV_BYBIT)])
    def test_the_other_spot_venues_rings_are_read_and_can_ring(self, group, name, venue):
        space, writers, start = group
        world, slot = self.world()
        c = start(world)
        self.strike(writers, world)
        for segment, record in (("markets", world.markets), ("account", world.account), ("guard", world.guard), ("md.market", world.market)):
            put(writers[segment], record)
        world.spot["venue"] = venue
        put(writers[name], world.spot)
        c.spin()
        put(writers["md.oracle"], world.oracle)
        assert any(c.spin() & core.RING_BELL for _ in range(4))
        assert r.gate_names(int(read_target(space, slot)["gates"])) == [] and read_target(space, slot)["n_quotes"] == 4
        world.spot["bid"], world.spot["ask"] = PX * 1.002, PX * 1.002 + 0.01
        put(writers[name], world.spot)
        assert c.spin() & core.RING_BELL
        target, record = read_target(space, slot), writers[name].rec[0]
        assert target["cause_src"] == r.SRC_SPOT
        assert (target["t_recv_ns"], target["t_pub_ns"]) == (record["t_recv_ns"], record["t_pub_ns"])

    def test_the_process_tells_the_operator_of_sources_that_contradict_each_other(self, group):
        space, writers, start = group
        world, slot = self.world()
        c, said = start(world), []
        actor = SimpleNamespace(
            cfg=SimpleNamespace(strategy=Strategy()), seqlock_writers=writers, ring_writers=writers, ring_readers=c._rings, seqlock_readers=c._seqlocks,
            vitals=start.vitals, place=SimpleNamespace(wait="spin"), clock=SimpleNamespace(simulated=False, now_ns=lambda: world.wall_ns),
            warn=lambda code, text: said.append(code), ring_bells=lambda segment: None)
        burst, housekeeping, close = process.build(actor)
        later_ns = mono_ns()
        put(writers["md.oracle"], world.oracle)
        for px, expected in ((1.0, []), (1.01, ["oracle_disagree"])):
            world.spot["bid"], world.spot["ask"] = PX * px, PX * px + 0.01
            put(writers["md.binance"], world.spot)
            for _ in range(3):
                burst()
            later_ns += 10 * SECOND
            housekeeping(later_ns)
            assert said == expected

    def test_a_restarted_core_quotes_from_what_the_others_remember(self, group):
        space, writers, start = group
        world, slot = self.world()
        for name, record in (("markets", world.markets), ("account", world.account), ("guard", world.guard)):
            put(writers[name], record)
        put(writers["book"], world.market, slot)
        memory = writers["oracle"].rec
        spot = world.oracle.copy()
        spot["t_recv_ns"] = mono_ns()
        memory["spot"] = spot
        world.strike()
        memory["boundary"][0, START_S // 300 % r.BOUNDARIES] = world.oracle
        writers["oracle"].write()
        c = start(world)
        c.attach(mono_ns())
        assert c.spin() & core.RING_BELL
        target = read_target(space, slot)
        assert r.gate_names(int(target["gates"])) == ["stale_spot"] and target["n_quotes"] == 4

    def test_a_dead_predecessors_targets_are_replaced(self, group):
        space, writers, start = group
        world, slot = self.world()
        for s in range(r.MARKET_SLOTS):
            writers["targets"].rec["market_id"], writers["targets"].rec["n_quotes"] = 99, 4
            writers["targets"].write(s)
        c = start(world)
        c.attach(mono_ns())
        c.spin()
        assert all(read_target(space, s)["n_quotes"] == 0 for s in range(r.MARKET_SLOTS))

    def test_the_guard_takes_quotes_away_without_a_record(self, group):
        space, writers, start = group
        world, slot = self.world()
        c = start(world)
        self.strike(writers, world)
        self.feed(writers, world)
        for _ in range(4):
            c.spin()
        assert read_target(space, slot)["n_quotes"] == 4
        world.guard["quoting_allowed"] = 0
        put(writers["guard"], world.guard)
        assert c.spin() & core.RING_BELL
        assert read_target(space, slot)["n_quotes"] == 0

    def test_own_orders_leave_the_book_when_they_are_told(self, group):
        """Both ways: by a new version while it spins, and at once when a core starts into it."""
        space, writers, start = group
        world, slot = self.world()
        c = start(world)
        self.strike(writers, world)
        world.levels([(4900, 20), (4800, 250)], [(5100, 20), (5200, 250)])
        world.rest((r.UP, 4900, 20), (r.DOWN, 4900, 20))
        self.feed(writers, world)
        for _ in range(4):
            c.spin()
        best = [(int(s["bid_px_e4"]), int(s["ask_px_e4"])) for s in c.state["slot"][0, slot:slot + 1]]
        put(writers["own"], world.own, slot)
        put(writers["md.market"], world.market)
        for _ in range(4):
            c.spin()
        best += [(int(s["bid_px_e4"]), int(s["ask_px_e4"])) for s in c.state["slot"][0, slot:slot + 1]]
        put(writers["book"], world.market, slot)
        again = start(world)
        again.attach(mono_ns())
        best += [(int(s["bid_px_e4"]), int(s["ask_px_e4"])) for s in again.state["slot"][0, slot:slot + 1]]
        assert best == [(4900, 5100), (4800, 5200), (4800, 5200)]

    def test_time_alone_makes_a_book_stale_and_keeps_targets_fresh(self, group):
        space, writers, start = group
        world, slot = self.world()
        world.params["of"]["stale_market_ns"], world.params["of"]["refresh_ns"] = 300_000_000, 10_000_000
        c = start(world)
        self.strike(writers, world)
        self.feed(writers, world)
        for _ in range(4):
            c.spin()
        first = int(read_target(space, slot)["deadline_ns"])
        end = mono_ns() + 5 * SECOND
        while read_target(space, slot)["n_quotes"] and mono_ns() < end:
            refreshed = int(read_target(space, slot)["deadline_ns"])
            c.spin()
        assert "stale_market" in r.gate_names(int(read_target(space, slot)["gates"])) and refreshed > first

    def test_a_lapped_core_reads_the_present_again(self, group):
        space, writers, start = group
        world, slot = self.world()
        c = start(world)
        for name, record in (("markets", world.markets), ("account", world.account), ("guard", world.guard)):
            put(writers[name], record)
        self.strike(writers, world)
        for _ in range(topology.RINGS["md.oracle"].depth + 10):
            put(writers["md.oracle"], world.oracle)
        world.strike()
        writers["oracle"].rec["boundary"][0, START_S // 300 % r.BOUNDARIES] = world.oracle
        writers["oracle"].write()
        c.spin()
        assert core.find_strike(c.state[0], world.markets["row"][0, slot]) < 0, "the record was lost"
        assert c.housekeeping(mono_ns()) and not c.housekeeping(mono_ns())
        assert core.find_strike(c.state[0], world.markets["row"][0, slot]) >= 0

    def test_an_orderly_stop_leaves_no_quotes(self, group):
        space, writers, start = group
        world, slot = self.world()
        c = start(world)
        self.strike(writers, world)
        self.feed(writers, world)
        for _ in range(4):
            c.spin()
        c.retire(mono_ns())
        target = read_target(space, slot)
        assert target["n_quotes"] == 0 and target["deadline_ns"] <= mono_ns() and target["market_id"] == r.market_id(START_S, 900)

    def test_wall_time_runs_at_the_tapes_rate(self, group):
        space, writers, start = group
        world, slot = self.world()
        c = start(world)
        t0 = mono_ns()
        c.set_clock(START_S * SECOND, t0, 100.0)
        for name, record in (("markets", world.markets), ("account", world.account), ("guard", world.guard)):
            put(writers[name], record)
        world.markets["row"][0, slot]["end_s"] = START_S + 120
        put(writers["markets"], world.markets)
        end = t0 + 20 * SECOND
        while not (read_target(space, slot) is not None and "cutoff" in r.gate_names(int(read_target(space, slot)["gates"]))):
            c.spin()
            assert mono_ns() < end
        assert mono_ns() - t0 >= 0.6 * SECOND
