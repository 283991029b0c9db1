"""Cross-evidence in the core: an oracle that is silent while the world moves, venues that die, take over, come back or lie."""

import math

import numpy as np
import pytest

from core_world import PX, SECOND, START_S, World, quoting
from mmbot import core, topology
from mmbot.risk import gates
from mmbot.signals import reference, witness
from shm_layout import records as r

BINANCE, COINBASE, BYBIT = r.SV_BINANCE, r.SV_COINBASE, r.SV_BYBIT
ALL = (BINANCE, COINBASE, BYBIT)
#: what each venue's price is of Chainlink's
BASIS = {BINANCE: 1.0008, COINBASE: 0.9999, BYBIT: 1.0011}
STEP_S = 0.1
BPS = 1e-4


class Market:
    """A world played in steps of 0.1 s: who of the venues speaks, whether the oracle prints (1.3 s late), and where the price goes.

    ``path``: ln return from PX at a second since the start; ``level`` is what the core believes, as a ln return from PX.
    """

    def __init__(self, **strategy):
        self.world = World(300.0, **{"model": {"print_lag_ms": 0}, **strategy})       # this oracle shows what the venues show at its stamp
        self.slot = self.world.add_window()
        self.world.strike()
        self.path = lambda t: 0.0
        self.t, self.speaking, self.printing, self.twap, self.lies = 0.0, set(ALL), True, False, {}
        self.play(4.0)
        assert self.gates == set() and len(self.world.quotes(self.slot)) == 4

    def step(self):
        self.t += STEP_S
        world = self.world.wait(STEP_S)
        tenth = round(self.t * 10)
        for venue in sorted(self.speaking):
            world.lead(PX * BASIS[venue] * math.exp(self.path(self.t) + self.lies.get(venue, 0.0)), venue=venue)
        if self.printing and tenth % 10 == 3 and self.t > 2:
            obs = tenth // 10 - 1
            world.print(PX * math.exp(self.path(obs)), obs_s=START_S + 300 + obs)
        if self.twap and tenth % 10 == 3:
            world.print(PX, r.OK_TWAP60, obs_s=START_S + 300 + tenth // 10 - 1)
        world.book()
        world.timer()

    def play(self, seconds):
        for _ in range(round(seconds / STEP_S)):
            self.step()
        return self

    def until(self, gate, limit_s=20.0):
        """Seconds until a gate shuts; infinity if it does not within the limit."""
        begin = self.t
        while self.t - begin < limit_s:
            self.step()
            if gate in self.gates:
                return self.t - begin
        return math.inf

    @property
    def gates(self):
        return self.world.gates(self.slot)

    @property
    def level(self):
        return float(self.world.state["shared"]["ln_level"][0]) - math.log(PX)

    @property
    def age_s(self):
        """Seconds since the newest spot print was received."""
        return (self.world.now_ns - int(self.world.state["ref"]["spot_recv_ns"][0])) / SECOND

    def ramp(self, per_s):
        """From now on the price moves by this ln return a second."""
        begin, before = self.t, self.path
        self.path = lambda t: before(min(t, begin)) + per_s * max(t - begin, 0.0)


class TestOracle:
    """Spot against oracle."""

    @pytest.mark.parametrize("venue", ALL)
    @pytest.mark.parametrize("sign", [1, -1])
    def test_a_silent_oracle_in_a_moving_world_is_stale_at_once(self, venue, sign):
        market = Market()
        market.speaking = {venue}
        market.play(2.0)
        market.printing = False
        market.ramp(sign * 2 * BPS)
        market.until("stale_oracle")
        assert 2.5 < market.age_s <= 2.5 + STEP_S + 0.01
        assert market.world.quotes(market.slot) == []

    def test_in_a_quiet_world_the_old_limit_stands(self):
        market = Market()
        market.printing = False
        market.ramp(0.2 * BPS)
        market.until("stale_oracle")
        assert 5.0 < market.age_s <= 5.0 + STEP_S + 0.01

    def test_without_any_spot_venue_the_old_limit_stands(self):
        market = Market()
        market.printing, market.speaking = False, set()
        market.until("stale_oracle")
        assert 5.0 < market.age_s <= 5.0 + STEP_S + 0.01

    def test_the_move_counts_from_the_observation_of_the_print_that_is_missed(self):
        """What moved before the newest print's second is in it and is no evidence."""
        market = Market()
        market.ramp(3 * BPS)
        market.play(3.0)
        market.ramp(0.0)
        market.play(2.0)
        market.printing = False
        market.until("stale_oracle")
        assert 5.0 < market.age_s

    def test_what_moved_between_observation_and_receipt_is_evidence(self):
        market = Market()
        market.path = lambda t: 3 * BPS if t > 4.05 else 0.0        # the print of second 4 arrives at 5.3 and knows nothing of it
        market.play(1.3)
        market.printing = False
        market.until("stale_oracle")
        assert 2.5 < market.age_s <= 2.5 + STEP_S + 0.01

    def test_a_venue_that_died_is_no_witness(self):
        market = Market()
        market.path = lambda t: 3 * BPS if t > 4.35 else 0.0
        market.play(0.5)
        market.printing, market.speaking = False, set()
        market.until("stale_oracle")
        assert 5.0 < market.age_s <= 5.0 + STEP_S + 0.01

    def test_a_move_that_comes_later_than_the_limit_shuts_then(self):
        market = Market()
        market.play(0.3 - market.t % 1 if market.t % 1 < 0.3 else 0.0)
        market.printing = False
        while market.age_s < 3.5:
            market.step()
        assert market.gates == set()
        at = market.t
        market.path = lambda t: 3 * BPS if t > at else 0.0
        assert market.until("stale_oracle") <= STEP_S + 1e-9

    def test_time_alone_shuts_when_the_move_came_before_the_limit(self):
        market = Market()
        market.printing = False
        while market.age_s < 2.25:
            market.step()
        market.path = lambda t: 3 * BPS
        market.step()
        assert market.gates == set() and 2.3 < market.age_s < 2.5
        world = market.world.wait(0.15)
        assert world.timer() & core.SLOT_MASK and market.gates == {"stale_oracle"}
        assert world.target(market.slot)["cause_src"] == r.SRC_TIMER

    def test_a_price_that_comes_back_does_not_open_what_only_a_print_can(self):
        market = Market()
        market.printing = False
        market.ramp(2 * BPS)
        market.until("stale_oracle")
        market.path = lambda t: 0.0
        market.play(0.5)
        assert market.age_s < 5 and market.gates == {"stale_oracle"}
        market.printing = True
        market.play(1.0)
        assert market.gates == set() and market.world.quotes(market.slot)

    def test_twap_prints_show_that_the_oracle_lives_but_do_not_stand_for_spot(self):
        market = Market()
        market.twap = True
        market.play(2.0)
        market.printing = False
        market.ramp(1 * BPS)
        market.until("stale_oracle")
        assert 5.0 < market.age_s <= 5.0 + STEP_S + 0.01

    def test_steady_prints_in_a_violent_world_raise_no_false_alarm(self):
        market = Market(stale_spot_scale=1.0)
        market.path = lambda t: 0.003 * math.sin(t)
        for _ in range(600):
            market.step()
            assert "stale_oracle" not in market.gates

    def test_limits_are_parameters(self):
        market = Market(witness_oracle_ns=1_800_000_000, witness_move=0.001)
        market.printing = False
        market.ramp(12 * BPS)
        market.until("stale_oracle")
        assert 1.8 < market.age_s <= 1.8 + STEP_S + 0.01


class TestTakeOver:
    """Spot venues for each other."""

    def test_the_level_goes_on_from_coinbase_when_binance_dies(self):
        market = Market()
        market.ramp(0.5 * BPS)
        market.play(3.0)
        market.speaking = {COINBASE, BYBIT}
        levels = []
        for _ in range(100):
            market.step()
            levels.append(market.level - market.path(market.t))
            assert "stale_spot" not in market.gates and market.world.target(market.slot)["size_scale"] == 1.0
        silent = int(1.5 / STEP_S)
        assert max(np.abs(levels[silent:])) < 1e-9, "no basis, no jump: the level is the truth"
        assert max(np.abs(levels)) < 0.5 * BPS * 1.7, "until then it lags by what Binance did not say"

    def test_no_jump_at_the_switch_and_back_in_a_still_world(self):
        market = Market()
        for who in ({COINBASE}, set(ALL), {BYBIT}, {BINANCE}, {BYBIT}, {COINBASE}, {COINBASE, BINANCE}):
            market.speaking = who
            for _ in range(40):
                market.step()
                assert abs(market.level) < 1e-9, who
        assert market.gates == set()

    def test_binance_leads_again_once_chainlink_has_observed_what_it_missed(self):
        """What moved while it was silent is in the prints; its return across the silence must not come on top."""
        market = Market()
        market.speaking = {COINBASE}
        market.ramp(2 * BPS)
        market.play(1.9)
        market.ramp(0.0)
        market.speaking = {COINBASE, BINANCE}
        for _ in range(50):
            market.step()
            assert market.level == pytest.approx(market.path(market.t), abs=1e-9)
        assert reference.lead(market.world.state["ref"][0], market.world.now_ns, 1_500_000_000) == 0

    @pytest.mark.parametrize("tenth, silence_s", [(1, 1.9), (9, 1.6)])
    def test_a_venue_that_comes_back_alone_does_not_count_its_silence(self, tenth, silence_s):
        """Binance as the only venue falls silent and the price jumps; the print of that second has it, and comes after or before Binance does."""
        market = Market()
        market.speaking = {BINANCE}
        market.play(2.0)
        while round(market.t * 10) % 10 != tenth:
            market.step()
        begin = market.t
        market.path = lambda t: 10 * BPS if t > begin + 0.05 else 0.0
        market.speaking = set()
        market.play(silence_s)
        market.speaking = {BINANCE}
        levels = []
        for _ in range(40):
            market.step()
            levels.append(market.level)
        assert max(levels) <= 10 * BPS + 1e-9 and levels[-1] == pytest.approx(10 * BPS, abs=1e-9)

    def test_stale_spot_when_all_are_silent(self):
        market = Market()
        market.ramp(0.5 * BPS)
        market.speaking = {BYBIT}
        market.play(5.0)
        assert "stale_spot" not in market.gates
        market.speaking = set()
        assert 1.5 - 1e-6 <= market.until("stale_spot") <= 1.5 + STEP_S + 0.01
        assert market.world.target(market.slot)["size_scale"] == 0.7 and len(market.world.quotes(market.slot)) == 4
        assert market.level == pytest.approx(float(market.world.state["ref"]["spot_ln"][0]) - math.log(PX), abs=1e-12)

    @pytest.mark.parametrize("liar", [COINBASE, BYBIT])
    @pytest.mark.parametrize("lie", [0.01, -0.01, 3.0])
    def test_a_liar_does_not_move_the_level_while_binance_is_fresh(self, liar, lie):
        honest, market = Market(), Market()
        for m in (honest, market):
            m.ramp(0.7 * BPS)
        market.lies[liar] = lie
        for _ in range(60):
            honest.step(), market.step()
            assert market.level == honest.level

    def test_a_liar_in_the_lead_moves_little_and_not_for_long(self):
        market = Market()
        market.speaking = {COINBASE}
        market.play(3.0)
        market.lies[COINBASE] = 0.05
        market.step()
        assert market.level == pytest.approx(reference.MAX_LEAD, abs=1e-9)
        market.play(2.3)
        assert abs(market.level) < 1e-9

    def test_a_fast_move_is_seen_by_whoever_leads(self):
        market = Market()
        market.speaking = {BYBIT}
        market.play(3.0)
        market.ramp(12 * BPS)
        market.play(1.5)
        assert float(market.world.state["ref"]["fast"][0]) == pytest.approx(12 * BPS, rel=0.11)

    def test_after_a_silence_only_a_mid_shows_that_a_venue_lives(self):
        market = Market()
        market.speaking = set()
        market.until("stale_spot")
        market.play(0.5)
        market.world.lead(kind=r.SK_TRADE)
        market.step()
        assert "stale_spot" in market.gates
        market.speaking = {BINANCE}
        market.step()
        assert "stale_spot" not in market.gates

    @pytest.mark.parametrize("venue", [COINBASE, BYBIT])
    def test_trades_of_another_stream_do_not_keep_a_book_alive(self, venue):
        market = Market()
        market.speaking = {venue}
        market.play(3.0)
        market.speaking = set()
        for _ in range(16):
            market.world.lead(venue=venue, kind=r.SK_TRADE)
            market.step()
        assert "stale_spot" in market.gates


class TestDisagree:
    @pytest.mark.parametrize("lie", [0.0025, -0.0025])
    def test_venues_that_part_shrink_the_size_and_say_so(self, lie):
        market = Market()
        market.lies[COINBASE] = lie
        market.step()
        assert market.gates == {"spot_disagree"} and market.world.target(market.slot)["size_scale"] == 0.7
        assert [q[3] for q in market.world.quotes(market.slot)] == [14_000_000, 8_000_000] * 2
        market.play(3.2)
        assert market.gates == set(), "a difference that stays is a basis"

    def test_a_small_difference_and_a_common_move_say_nothing(self):
        market = Market()
        market.lies[BYBIT] = 0.0018
        market.path = lambda t: 0.004 if t > 5 else 0.0
        for _ in range(40):
            market.step()
            assert "spot_disagree" not in market.gates

    def test_the_return_over_one_second_is_enough_for_a_venue_that_has_just_come(self):
        market = Market()
        market.speaking = {BINANCE}
        market.play(4.0)
        market.speaking = {BINANCE, COINBASE}
        market.play(1.3)
        market.lies[COINBASE] = 0.003
        market.step()
        assert market.gates == {"spot_disagree"}

    def test_a_slow_divergence_is_seen_over_three_seconds(self):
        market = Market()
        for k in range(1, 25):
            market.lies[COINBASE] = 9 * BPS * STEP_S * k
            market.step()
        assert "spot_disagree" in market.gates

    def test_a_silent_venue_disagrees_with_nobody(self):
        market = Market()
        market.speaking = {BINANCE}
        market.play(2.0)
        market.path = lambda t: 0.005
        market.play(0.3)
        assert market.gates == set()

    def test_spot_far_from_chainlink_only_warns(self):
        """A basis of 80 bps at every venue: said, and nothing else changes."""
        market = Market()
        quotes = market.world.quotes(market.slot)
        for venue in ALL:
            market.lies[venue] = 0.0080 + 1e-4
        market.play(5.0)
        assert market.gates == {"oracle_disagree"} and market.world.target(market.slot)["size_scale"] == 1.0
        assert market.world.quotes(market.slot) == quotes and abs(market.level) < 1e-9
        assert gates.HARD & gates.ORACLE_DISAGREE == 0


class TestGarbage:
    @pytest.mark.parametrize("bid, ask", [
        (math.nan, PX), (PX, math.nan), (math.nan, math.nan), (0.0, PX), (0.0, 0.0), (-PX, PX), (-PX, -PX), (-PX, 3 * PX), (math.inf, math.inf),
        (PX, math.inf), (PX * 1.01, PX), (1e13, 1e13)])
    @pytest.mark.parametrize("venue", ALL)
    def test_no_price_is_no_news(self, venue, bid, ask):
        market = Market()
        s = market.world.spot
        market.speaking = {venue}
        market.play(0.2)
        before, level = market.world.state["ref"]["venue"].tobytes(), market.level
        s["bid"], s["ask"], s["t_recv_ns"] = bid, ask, market.world.now_ns
        assert market.world.step(r.SRC_SPOT) == 0
        assert market.world.state["ref"]["venue"].tobytes() == before and market.level == level

    @pytest.mark.parametrize("venue", [0, 4, -1, 2**40, -2**63])
    def test_an_unknown_venue_is_ignored(self, venue):
        world, slot = quoting()
        before = world.state["ref"].tobytes()
        world.lead(PX * 2, venue=venue)
        assert world.state["ref"].tobytes() == before

    def test_a_stamp_of_the_future_does_not_keep_a_venue_fresh(self):
        market = Market()
        market.speaking = set()
        s = market.world.spot
        s["t_recv_ns"], s["bid"], s["ask"] = market.world.now_ns + 3600 * SECOND, PX, PX + 0.01
        market.world.step(r.SRC_SPOT)
        assert market.until("stale_spot") <= 1.5 + STEP_S + 0.01


class TestCause:
    @pytest.mark.parametrize("venue", [COINBASE, BYBIT])
    def test_a_decision_by_the_venue_that_leads_carries_its_stamps(self, venue):
        market = Market(model_weight=1.0)
        market.speaking = {venue}
        market.play(3.0)
        world = market.world.wait(0.01)
        world.spot["t_exch_ns"] = 123_456
        assert world.lead(PX * BASIS[venue] * 1.004, venue=venue) & core.SLOT_MASK
        t, s = world.target(market.slot), world.spot[0]
        assert t["cause_src"] == r.SRC_SPOT and t["changed_ns"] == t["t_poll_ns"] == world.now_ns
        assert [int(t[n]) for n in ("t_exch_ns", "t_recv_ns", "t_pub_ns")] == [123_456, int(s["t_recv_ns"]), int(s["t_pub_ns"])]

    def test_a_verdict_is_a_decision_of_the_record_that_brought_it(self):
        market = Market()
        world = market.world.wait(0.01)
        world.lead(PX * 1.01, venue=COINBASE)
        assert world.gates(market.slot) == {"spot_disagree"} and world.target(market.slot)["t_recv_ns"] == world.spot["t_recv_ns"][0]

    def test_a_venue_that_does_not_lead_and_says_nothing_new_decides_nothing(self):
        market = Market()
        assert market.world.lead(PX * 1.0001, venue=COINBASE) == 0

    def test_the_executor_is_rung_early_by_every_spot_venue(self):
        for name in ("md.binance", "md.coinbase", "md.bybit"):
            assert name in topology.BY_NAME["core"].reads and topology.EARLY_BELLS[name] == ("executor",)


def test_the_same_inputs_give_the_same_bytes():
    def story(seed):
        rng, market, out = np.random.default_rng(seed), Market(), []
        for _ in range(150):
            market.speaking = {v for v in ALL if rng.random() < 0.6}
            market.printing = bool(rng.random() < 0.8)
            market.lies[int(rng.integers(1, 4))] = float(rng.normal(0, 1e-3))
            market.step()
            out.append(market.world.state.tobytes())
        return out
    first = story(1)
    assert first == story(1) and len(set(first)) == 150 and story(2) != first


def test_venues_are_numbered_as_the_records_say():
    assert [v - r.SV_BINANCE for v in ALL] == list(range(reference.VENUES))
    assert witness.LONG_MS + reference.MATCH_MS < reference.HISTORY_N * reference.STEP_MS, "a wrapped history cannot be mistaken for an old one"
