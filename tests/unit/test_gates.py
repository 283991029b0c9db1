"""Each gate flipped alone: the same quoting world, one thing wrong, exactly one bit set and the quotes gone (or fewer)."""

import numpy as np
import pytest

from core_world import PX, SECOND, START_S, World, quoting
from mmbot.quoting import tiered
from mmbot.risk import exposure, gates
from shm_layout import records as r


def spoil(change, soft=False, **strategy):
    """Gates of a quoting world after ``change(world, slot)``; checks that it quoted before and that hard gates leave nothing."""
    world, slot = quoting(**strategy)
    assert world.gates(slot) == set() and len(world.quotes(slot)) == 4
    change(world, slot)
    if not soft:
        assert world.quotes(slot) == [] and world.target(slot)["gates"] & gates.HARD
    return world.gates(slot), world, slot


def row(world, slot):
    return world.markets["row"][0, slot]


def fresh(world, seconds):
    """Let time pass without any feed getting old."""
    for _ in range(int(seconds * 2)):
        world.wait(0.5)
        world.lead()
        world.print()
        world.book()


class TestHardGates:
    def test_no_market(self):
        def change(world, slot):
            row(world, slot)["market_id"] = 0
            world.step(r.SRC_MARKETS)
        assert spoil(change)[0] == {"no_market"}

    @pytest.mark.parametrize("field, value", [("accepting", 0), ("state", r.MS_CLOSED), ("state", r.MS_RESOLVED)])
    def test_not_open(self, field, value):
        def change(world, slot):
            row(world, slot)[field] = value
            world.step(r.SRC_MARKETS)
        assert spoil(change)[0] == {"not_open"}

    def test_not_open_when_the_feed_says_resolved(self):
        assert spoil(lambda w, s: w.book(kind=r.MK_RESOLVED))[0] == {"not_open"}

    def test_not_open_until_the_lead_before_the_start(self):
        world = World(offset_s=-61.0)
        slot = world.add_window(state=r.MS_ANNOUNCED)
        fresh(world, 0.5)
        assert world.gates(slot) == {"not_open"}
        fresh(world, 1.0)
        assert world.gates(slot) == set() and world.quotes(slot)

    def test_cutoff(self):
        world, slot = quoting(offset_s=838.0)
        fresh(world, 1.5)
        assert world.quotes(slot)
        fresh(world, 0.5)
        assert world.gates(slot) == {"cutoff"} and world.quotes(slot) == []

    def test_cutoff_comes_with_time_alone(self):
        world, slot = quoting(offset_s=839.9)
        world.wait(0.1)
        assert world.timer() & 1 << slot and world.gates(slot) == {"cutoff"}

    def test_no_strike(self):
        world = World(offset_s=300.0)
        slot = world.add_window()
        fresh(world, 0.5)
        assert world.gates(slot) == {"no_strike"} and not world.quotes(slot)
        world.strike()
        assert world.gates(slot) == set() and world.quotes(slot)

    def test_a_strike_of_another_boundary_does_not_count(self):
        world = World(offset_s=300.0)
        slot = world.add_window()
        fresh(world, 0.5)
        world.strike(start_s=START_S - 300 * r.BOUNDARIES)
        world.timer()
        assert world.gates(slot) == {"no_strike"}

    def test_stale_market(self):
        def change(world, slot):
            world.wait(0.751)
            world.lead()
            world.print()
        assert spoil(change)[0] == {"stale_market"}

    def test_stale_market_when_the_book_is_another_windows(self):
        world = World(offset_s=300.0)
        slot = world.add_window()
        world.strike()
        fresh(world, 0.5)
        world.book(start_s=START_S - 3600)
        assert world.gates(slot) == set(), "a late record of the slot's last window is ignored"
        world.book(start_s=START_S + 3600)
        assert world.gates(slot) == {"stale_market", "empty_book"}

    def test_stale_oracle(self):
        def change(world, slot):
            world.wait(5.001)
            world.lead()
            world.book()
        assert spoil(change)[0] == {"stale_oracle"}

    def test_stale_oracle_although_prints_arrive(self):
        def change(world, slot):
            world.wait(5.001)
            world.lead()
            world.print(obs_s=world.wall_ns / SECOND - 6)
            world.book()
        assert spoil(change)[0] == {"stale_oracle"}

    @pytest.mark.parametrize("spoiled", [dict(kind=r.MK_SUSPECT), dict(flags=r.MF_SUSPECT), dict(flags=r.MF_CROSSED),
                                         dict(bid_e4=5100, ask_e4=5100), dict(bid_e4=5200, ask_e4=5100)])
    def test_suspect_book(self, spoiled):
        assert spoil(lambda w, s: w.book(**spoiled))[0] == {"suspect_book"}

    @pytest.mark.parametrize("side", ["bid_e4", "ask_e4"])
    def test_empty_book(self, side):
        assert spoil(lambda w, s: w.book(**{side: 0}))[0] == {"empty_book"}

    @pytest.mark.parametrize("field, value", [("state", r.AS_RECONCILING), ("state", r.AS_HALTED), ("user_ok", 0), ("t_update_ns", 0)])
    def test_account_not_ready(self, field, value):
        def change(world, slot):
            world.account[field] = value
            world.step(r.SRC_ACCOUNT)
        assert spoil(change)[0] == {"account_not_ready"}

    @pytest.mark.parametrize("why", ["venue_mode", "difference", "error_rate", "loss", "unknown_order", "journal"])
    def test_executor_halt(self, why):
        def change(world, slot):
            world.account["halts"] = r.HALT_BIT[why]
            world.step(r.SRC_ACCOUNT)
        assert spoil(change)[0] == {"executor_halt"}

    @pytest.mark.parametrize("why", sorted(set(r.HALTS) - {"venue_mode", "difference", "error_rate", "loss", "unknown_order", "journal"}))
    def test_halts_that_other_gates_speak_for_are_not_an_executor_halt(self, why):
        world, slot = quoting()
        world.account["halts"] = r.HALT_BIT[why]
        world.step(r.SRC_ACCOUNT)
        assert world.gates(slot) == set() and world.quotes(slot)

    def test_frozen_market(self):
        assert spoil(lambda w, s: w.book(flags=r.MF_FROZEN))[0] == {"frozen_market"}
        assert spoil(lambda w, s: w.book(flags=r.MF_FROZEN | r.MF_SUSPECT))[0] == {"frozen_market", "suspect_book"}

    def test_frozen_market_opens_with_the_next_sound_record(self):
        world, slot = quoting()
        world.book(flags=r.MF_FROZEN | r.MF_SUSPECT)
        assert world.quotes(slot) == []
        world.book()
        assert world.gates(slot) == set() and world.quotes(slot)

    def test_a_verified_book_is_as_fresh_as_its_proof(self):
        world, slot = quoting()
        for _ in range(3):
            world.wait(0.5)
            world.lead()
            world.book(kind=r.MK_VERIFIED)
        assert world.gates(slot) == set() and world.quotes(slot)

    def test_price_jump_pauses_and_ends(self):
        """Ten times more behind the bid than behind the ask: the micro-price stands 0.8 % above the mid."""
        world, slot = quoting(signals={"jump_pause_ns": 5 * SECOND})
        world.levels([(5000, 1000)], [(5100, 100)])
        assert world.gates(slot) == {"price_jump"} and not world.quotes(slot)
        assert world.target(slot)["why"]["gate_input"] == pytest.approx(0.0045 * 1000 / 1100 / 0.505, rel=0.2)
        fresh(world, 4.5)
        assert world.gates(slot) == {"price_jump"} and not world.quotes(slot)
        fresh(world, 1.0)
        assert world.gates(slot) == set() and world.quotes(slot)

    def test_price_jump_is_off_without_a_pause(self):
        world, slot = quoting()
        world.levels([(5000, 1000)], [(5100, 100)])
        assert world.gates(slot) == set() and world.quotes(slot)

    def test_vol_spike_pauses_and_ends(self):
        world, slot = quoting(signals={"spike_pause_ns": 5 * SECOND, "spike_ratio": 100.0}, model_weight=0.0)
        fresh(world, 1.0)
        world.wait(0.5)
        world.lead(PX * 1.0021)
        world.print(PX * 1.0021), world.book()
        assert world.gates(slot) == {"vol_spike"} and not world.quotes(slot)
        assert world.target(slot)["why"]["gate_input"] == pytest.approx(1.05, rel=0.01) and world.target(slot)["why"]["gate_limit"] == 1
        for _ in range(9):
            world.wait(0.5)
            world.lead(PX * 1.0021), world.print(PX * 1.0021), world.book()
        assert world.gates(slot) == {"vol_spike"}
        for _ in range(3):
            world.wait(0.5)
            world.lead(PX * 1.0021), world.print(PX * 1.0021), world.book()
        assert world.gates(slot) == set() and world.quotes(slot)

    def test_vol_spike_by_the_ratio_of_volatilities(self):
        """Half a minute of 0.1 % back and forth after a calm start, no second of which moves by 1 %."""
        world, slot = quoting(signals={"spike_pause_ns": 5 * SECOND, "spike_move": 0.01}, model_weight=0.0)
        fresh(world, 10.0)
        assert world.gates(slot) == set()
        for k in range(6):
            for _ in range(10):
                world.wait(0.5)
                px = PX * (1 + 0.001 * (k % 2))
                world.lead(px), world.print(px), world.book()
        assert world.gates(slot) == {"vol_spike"} and world.target(slot)["why"]["gate_input"] > 1

    def test_gamma_danger(self):
        """At the money with 5 minutes left a basis point moves Up by nearly 3 cents."""
        world, slot = quoting(600.0, signals={"gamma_danger": 0.02})
        assert world.gates(slot) == {"gamma_danger"} and not world.quotes(slot)
        why = world.target(slot)["why"]
        assert why["gate_input"] == pytest.approx(0.029, rel=0.05) and why["gate_limit"] == 0.02
        assert why["gate_input"] == abs(world.state["seen"]["delta"][0]) * 1e-4
        world, slot = quoting(600.0, signals={"gamma_danger": 0.04})
        assert world.gates(slot) == set() and world.quotes(slot)

    @pytest.mark.parametrize("field", ["quoting_allowed", "t_update_ns"])
    def test_guard(self, field):
        def change(world, slot):
            world.guard[field] = 0
            world.step(r.SRC_GUARD)
        assert spoil(change)[0] == {"guard"}

    def test_no_params(self):
        def change(world, slot):
            world.params["version"] = 0
            world.timer()
        assert spoil(change)[0] == {"no_params"}

    def test_warming(self):
        world, slot = quoting(warmup_ns=300_000_000)
        assert world.gates(slot) == {"warming"} and not world.quotes(slot)
        world.wait(0.3)
        world.timer()
        assert world.gates(slot) == set() and world.quotes(slot)


    def test_latency_of_the_market_channel(self):
        world, slot = quoting(capital={"latency_kill_ns": 500_000_000, "latency_resume_ns": 200_000_000})

        def hear(ms):
            world.rtt_ns = int(ms * 1e6)
            world.book()
            return world.gates(slot), len(world.quotes(slot))

        assert hear(0) == hear(450) == (set(), 4), "degraded is only watched"
        assert hear(501) == ({"latency"}, 0)
        assert hear(300) == hear(0) == ({"latency"}, 0), "only below the lower limit it is over; no measurement proves nothing"
        assert hear(199) == (set(), 4)

    def test_latency_is_off_by_default(self):
        world, slot = quoting()
        world.rtt_ns = 2_000_000_000
        world.book()
        assert world.gates(slot) == set() and len(world.quotes(slot)) == 4

    def test_divergence(self):
        """A model that is far from the market is not believed; near it, it is followed."""
        world, slot = quoting(strategy="reversion", px=PX * 1.0005)
        assert world.gates(slot) == set() and [q[0] for q in world.quotes(slot)] == [r.UP]
        world.wait(0.1).lead(PX * 1.004)
        assert world.gates(slot) == {"divergence"} and world.quotes(slot) == []
        world.wait(0.1).lead(PX * 1.0005)
        assert world.gates(slot) == set() and world.quotes(slot)

    def test_signal_flip(self):
        """A signal that turns against the side being worked pauses for flip_pause_ns, then is followed."""
        world, slot = quoting(strategy="reversion", px=PX * 1.0005)
        world.wait(0.1).lead(PX * 0.9995)
        assert world.gates(slot) == {"signal_flip"} and world.quotes(slot) == []
        fresh_at(world, 4.5, PX * 0.9995)
        assert world.gates(slot) == {"signal_flip"}
        fresh_at(world, 1.0, PX * 0.9995)
        assert world.gates(slot) == set() and [q[0] for q in world.quotes(slot)] == [r.DOWN]


def fresh_at(world, seconds, px):
    """Let time pass with every feed alive and spot at ``px``."""
    for _ in range(int(seconds * 2)):
        world.wait(0.5).lead(px)
        world.print(px)
        world.book()


ROOMY = dict(max_exposure_u6=10**10, severe_imbalance_u6=10**9, max_imbalance_u6=10**9)


class TestSoftGates:
    def test_market_cap_holds_in_one_market(self):
        found, world, slot = spoil(lambda w, s: w.hold(s, up=10, cost=12.0), soft=True, capital={"max_market_exposure_u6": 20_000_000})
        assert found == {"market_cap"} and 0 < len(world.quotes(slot)) < 4
        assert world.target(slot)["why"]["worst_u6"] <= 20_000_000

    def test_side_cap_makes_a_side_smaller(self):
        def change(world, slot):
            world.account["cash_u6"] = 700_000_000
            world.step(r.SRC_ACCOUNT)
        found, world, slot = spoil(change, soft=True, capital={"side_part": 0.02})     # 20 dollars first, then 14
        assert found == {"side_cap"}
        for token in (r.UP, r.DOWN):
            bids = [(px, size) for t, _, px, size in world.quotes(slot) if t == token]
            assert len(bids) == 2 and sum(exposure.cost_of(px, size) for px, size in bids) <= 14_000_000

    def test_stale_spot_shrinks(self):
        def change(world, slot):
            world.wait(1.6)
            world.book()
        found, world, slot = spoil(change, soft=True)
        assert found == {"stale_spot"} and world.target(slot)["size_scale"] == 0.7
        assert [q[3] for q in world.quotes(slot)] == [14_000_000, 8_000_000] * 2

    def test_spot_disagree_shrinks(self):
        def change(world, slot):
            for px in (PX, PX, PX * 1.003):
                world.wait(0.6)
                world.lead()
                world.lead(px, venue=r.SV_COINBASE)
            world.print(), world.book()
        found, world, slot = spoil(change, soft=True)
        assert found == {"spot_disagree"} and world.target(slot)["size_scale"] == 0.7
        assert [q[3] for q in world.quotes(slot)] == [14_000_000, 8_000_000] * 2

    def test_oracle_disagree_only_warns(self):
        def change(world, slot):
            world.wait(0.1)
            world.print(PX * 0.992)
        found, world, slot = spoil(change, soft=True, model_weight=0.0)
        assert found == {"oracle_disagree"} and world.target(slot)["size_scale"] == 1.0 and len(world.quotes(slot)) == 4

    def test_toxic_flow_of_own_fills_explains(self):
        def change(world, slot):
            for _ in range(3):
                world.wait(0.1)
                world.fill(slot, r.UP, 5)
        found, world, slot = spoil(change, soft=True)
        assert found == {"toxic_flow"} and len(world.quotes(slot)) == 4
        assert (world.target(slot)["why"]["gate_input"], world.target(slot)["why"]["gate_limit"]) == (3, 3)

    def test_toxic_flow_of_one_sided_trades_explains(self):
        def change(world, slot):
            for _ in range(17):
                world.wait(0.01)
                world.trade(r.SELL, 200)
        found, world, slot = spoil(change, soft=True)
        assert found == {"toxic_flow"} and len(world.quotes(slot)) == 4
        assert (world.target(slot)["why"]["gate_input"], world.target(slot)["why"]["gate_limit"]) == (1.0, 0.8)

    def test_exposure_cap_drops_outer_levels_first(self):
        found, world, slot = spoil(lambda w, s: w.hold(s, up=100, cost=135.0), soft=True, max_imbalance_u6=10**9, severe_imbalance_u6=10**9)
        assert found == {"exposure_cap"}
        assert [(t, lv) for t, lv, _, _ in world.quotes(slot)] == [(r.UP, 0), (r.DOWN, 0), (r.DOWN, 1)]

    def test_exposure_elsewhere_counts(self):
        world, slot = quoting()
        other = world.add_window(START_S + 900)
        world.hold(other, up=1, cost=145.0)
        world.book()
        assert "exposure_cap" in world.gates(slot) and len(world.quotes(slot)) < 4

    def test_a_resolved_window_risks_nothing_any_more(self):
        world, slot = quoting()
        other = world.add_window(START_S - 900)
        world.hold(other, up=1, cost=145.0)
        row(world, other)["state"] = r.MS_RESOLVED
        world.step(r.SRC_MARKETS)
        world.book()
        assert world.gates(slot) == set()

    def test_light_side_is_quoted_above_the_cap(self):
        world, slot = quoting(max_imbalance_u6=10**9, severe_imbalance_u6=10**9)
        world.hold(slot, up=400, cost=200.0)
        assert {t for t, *_ in world.quotes(slot)} == {r.DOWN}

    def test_cash_caps(self):
        def change(world, slot):
            world.account["cash_u6"] = 12_000_000
            world.step(r.SRC_ACCOUNT)
        found, world, slot = spoil(change, soft=True)
        assert found == {"exposure_cap"} and sum(px * size for _, _, px, size in world.quotes(slot)) <= 12_000_000 * 10_000

    @pytest.mark.parametrize("up, down, heavy", [(70, 0, r.UP), (0, 70, r.DOWN)])
    def test_severe_skew_drops_the_first_level_of_the_heavy_side(self, up, down, heavy):
        found, world, slot = spoil(lambda w, s: w.hold(s, up, down), soft=True)
        assert found == {"severe_skew"}
        assert [lv for t, lv, _, _ in world.quotes(slot) if t == heavy] == [1]
        assert [lv for t, lv, _, _ in world.quotes(slot) if t != heavy] == [0, 1]

    @pytest.mark.parametrize("up, down, heavy", [(120, 0, r.UP), (0, 121, r.DOWN)])
    def test_beyond_the_greatest_imbalance_the_heavy_side_is_silent(self, up, down, heavy):
        found, world, slot = spoil(lambda w, s: w.hold(s, up, down), soft=True)
        assert found == {"severe_skew"} and {t for t, *_ in world.quotes(slot)} == {1 - heavy}

    def test_size_below_min(self):
        def change(world, slot):
            row(world, slot)["min_size_u6"] = 13_000_000
            world.step(r.SRC_MARKETS)
        found, world, slot = spoil(change, soft=True)
        assert found == {"size_below_min"} and [lv for _, lv, _, _ in world.quotes(slot)] == [0, 0]

    def test_price_out_of_range(self):
        found, world, slot = spoil(lambda w, s: w.book(100, 200), soft=True, model_weight=0.0)
        assert found == {"price_out_of_range"}
        assert [(t, lv) for t, lv, _, _ in world.quotes(slot)] == [(r.UP, 0), (r.DOWN, 0), (r.DOWN, 1)]
        assert all(100 <= px <= 9900 for _, _, px, _ in world.quotes(slot))

    def test_action(self):
        """The tiered strategy pulls in the final phase, which is its own decision and not the cut-off's."""
        world, slot = quoting(strategy="tiered", cutoff_s=0.0, **ROOMY)
        assert world.gates(slot) == set() and len(world.quotes(slot)) == 8
        world.state["seen"]["spike"] = 1
        params, view, draft = world.params["of"][0, 0], world.state["seen"][0], world.state["draft"][0]
        draft["gates"] = draft["size_u6"] = 0
        tiered.quote(view, params, world.state["memory"][0, slot], draft)
        assert draft["gates"] == gates.ACTION and not draft["size_u6"].any()

    def test_pair_cap(self):
        """Held prices that together cost too much once the edge widens: one side gives way, and says so."""
        world, slot = quoting(bid_e4=5000, ask_e4=5010, tick_e4=10, model_weight=0.0, k_time=0.0, target_total=0.9926)
        assert world.gates(slot) == set()
        world.state["memory"]["held_up_e4"][0, slot], world.state["memory"]["held_down_e4"][0, slot] = 4970, 4960
        world.timer()
        assert world.gates(slot) == {"pair_cap"}
        assert sum(px for _, lv, px, _ in world.quotes(slot) if lv == 0) == 9920


def test_every_gate_has_a_test():
    text = "".join(name for name in dir(TestHardGates) + dir(TestSoftGates) if name.startswith("test_"))
    assert not [name for name in r.GATES if name not in text]


def test_hard_and_soft_split_all_gates():
    assert gates.HARD & gates.SOFT == 0 and gates.HARD | gates.SOFT == (1 << len(r.GATES)) - 1
    assert set(r.gate_names(gates.SOFT)) == {"stale_spot", "spot_disagree", "oracle_disagree", "exposure_cap", "severe_skew", "size_below_min",
                                                   "price_out_of_range", "pair_cap", "market_cap", "side_cap", "action", "toxic_flow"}


def test_q_is_published_although_quoting_is_forbidden():
    world, slot = quoting(px=PX * 1.003)
    world.guard["quoting_allowed"] = 0
    world.step(r.SRC_GUARD)
    assert not world.quotes(slot) and world.target(slot)["q_up"] > 0.6 and world.target(slot)["mid_up"] == pytest.approx(0.505)


def test_ages_of_zero_mean_never():
    assert gates.too_old(5, 0, 10) and not gates.too_old(5, 1, 10) and gates.too_old(12, 1, 10)
    assert np.iinfo(np.int64).max > gates.HARD
