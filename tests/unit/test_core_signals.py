"""Signals in the core: what a strategy sees of a small world, and what it does not see."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core_world import PX, SECOND, START_S, World, quoting
from mmbot.signals import lead_lag, markout
from shm_layout import records as r


#: Prints that show what the venues show at their stamp, and no regime by volatility: closed forms then hold.
PLAIN = {"model": {"print_lag_ms": 0}, "signals": {"volatile_ratio": 100.0}}


def run(world, seconds, px=PX, step_s=0.5, coinbase=False):
    """Let time pass with all feeds alive; ``px`` a price, or a function of the seconds gone by."""
    for k in range(round(seconds / step_s)):
        world.wait(step_s)
        now = px((k + 1) * step_s) if callable(px) else px
        world.lead(now)
        if coinbase:
            world.lead(now, venue=r.SV_COINBASE)
        world.print(now)
        world.timer()


class TestBook:
    def test_sizes_micro_prices_and_liquidity_are_the_others(self):
        """Bids 100 at .50 and 300 at .48, asks 50 at .52 and 150 at .54; of the first bid 60 are ours, the whole first ask is."""
        world, slot = quoting(signals={"micro_levels": 2})
        world.levels([(5000, 100), (4800, 300)], [(5200, 50), (5400, 150)])
        view = world.view(slot)
        assert (view["bid_size"], view["ask_size"], view["bid_depth"], view["ask_depth"]) == (100, 50, 400, 200)
        assert view["micro"] == pytest.approx((100 * 0.52 + 50 * 0.50) / 150)
        bid, ask = (100 * 0.50 + 300 * 0.48) / 400, (50 * 0.52 + 150 * 0.54) / 200
        assert view["micro_n"] == pytest.approx((400 * ask + 200 * bid) / 600)
        assert view["liquidity"] == pytest.approx(200 / 3)
        world.rest((r.UP, 5000, 60), (r.DOWN, 4800, 50))
        world.wait(0.3)
        world.levels([(5000, 100), (4800, 300)], [(5200, 50), (5400, 150)])
        view = world.view(slot)
        assert (view["bid_size"], view["ask_size"], view["bid_depth"], view["ask_depth"], view["ask_e4"]) == (40, 150, 340, 150, 5400)

    def test_an_empty_side_has_no_micro_price(self):
        world, slot = quoting()
        world.levels([], [(5200, 50)])
        view = world.view(slot)
        assert (view["mid"], view["micro"], view["micro_n"], view["liquidity"], view["bid_size"], view["ask_size"]) == (0, 0, 0, 0, 0, 50)

    def test_a_book_of_another_window_has_no_sizes(self):
        world, slot = quoting()
        world.markets["row"][0, slot]["market_id"] += 1
        world.step(r.SRC_MARKETS)
        view = world.state["seen"][0]
        assert view["bid_size"] == view["bid_depth"] == 0


class TestBitcoin:
    def test_features_of_a_steady_rise(self):
        """1 bp a second for 100 s: every feature has a closed form."""
        world, slot = quoting(300.0, **PLAIN)
        run(world, 100, lambda t: PX * math.exp(1e-4 * t), step_s=0.1)
        view = world.view(slot)
        assert view["ret_anchor"] == pytest.approx(60e-4, abs=1.1e-5) and view["ret_window"] == pytest.approx(100e-4, abs=1e-9)
        assert view["std"] == pytest.approx(0.0, abs=1e-9) and view["momentum"] == 1.0
        gap = 1e-4 * (60 * (1 - math.exp(-100 / 60)) - 10 * (1 - math.exp(-10)))         # of a line: rate times (slow lag - fast lag)
        assert view["ema_gap"] == pytest.approx(gap, rel=0.01)
        assert r.REGIMES[view["regime"]] == "trending" and world.state["variance_ratio"][0] == pytest.approx(10.0, rel=0.01)

    def test_back_and_forth_reverts_and_has_its_deviation(self):
        world, slot = quoting(300.0, **PLAIN)
        run(world, 100, lambda t: PX * (1 + 1e-4 * (int(t) % 2)))
        view = world.view(slot)
        assert r.REGIMES[view["regime"]] == "mean_reverting" and view["std"] == pytest.approx(1e-4, rel=0.02)
        assert abs(view["momentum"]) <= 0.2

    def test_nothing_is_known_after_a_start(self):
        view = quoting()[0].view(r.slot_of(START_S, 900))
        for name in ("ret_anchor", "ema_gap", "std", "momentum", "regime", "lead_ms", "lead_confidence", "p_expected", "dislocation"):
            assert view[name] == 0, name

    def test_the_window_return_is_against_the_strike(self):
        world, slot = quoting(px=PX * 1.001)
        assert world.view(slot)["ret_window"] == pytest.approx(math.log(1.001))

    def test_before_the_start_there_is_no_window_return(self):
        world = World(offset_s=-30.0)
        slot = world.add_window()
        run(world, 5)
        world.book()
        view = world.view(slot)
        assert view["ret_window"] == 0 and r.PHASES[view["phase"]] == "ahead"

    @pytest.mark.parametrize("offset, want", [(100, "open"), (300, "mid"), (700, "late"), (841, "final")])
    def test_phase(self, offset, want):
        world, slot = quoting(offset)
        assert r.PHASES[world.view(slot)["phase"]] == want

    def test_lead_lag_sees_which_source_moves_first(self):
        """Binance, Coinbase 300 ms later, Chainlink once a second with what Binance was 2 s ago."""
        world, slot = quoting(10.0)
        walk = PX * np.exp(np.random.default_rng(2).normal(0, 3e-5, 1600).cumsum())
        for k in range(40, 1600):
            world.wait(0.1)
            world.lead(walk[k])
            world.lead(walk[k - 3], venue=r.SV_COINBASE)
            if k % 10 == 0:
                world.print(walk[k - 20])
        view = world.view(slot)
        assert view["leader"] == 0 and 2000 <= view["lead_ms"] <= 3000 and view["lead_confidence"] > 0.6
        assert world.state["lead_lag"]["lead_ms"][0, 0, 1] == 300 and world.state["lead_lag"]["lead_ms"][0, 0, lead_lag.CHAINLINK] == view["lead_ms"]


class TestFairValue:
    def test_greeks_are_the_slopes_of_the_models_price(self):
        """Half a basis point up and down: the model's price moves by delta."""
        views = []
        for px in (PX * math.exp(-5e-5), PX, PX * math.exp(5e-5)):
            world, slot = quoting(500.0, px=px)
            view = world.view(slot)
            views.append((float(view["p_model"]), float(view["delta"]), float(view["gamma"]), float(view["sigma_px"])))
        assert views[1][1] == pytest.approx((views[2][0] - views[0][0]) / 1e-4, rel=0.01) and views[1][1] > 0
        assert views[0][2] > 0 > views[2][2] and views[1][3] == pytest.approx(views[1][1] * 1e-4)

    def test_dislocation_of_a_fitted_model(self):
        beta = (0.2, 100.0, -50.0, 300.0, 1000.0)
        world, slot = quoting(300.0, reversion={"beta": beta})
        assert world.view(slot)["p_expected"] == 0.0, "features are not known yet"
        run(world, 70, lambda t: PX * (1 + 1e-4 * (int(t) % 3)))
        world.book()
        view = world.view(slot)
        z = np.dot(beta, [1, view["ret_anchor"], view["ret_window"], view["ema_gap"], view["std"]])
        assert view["p_expected"] == pytest.approx(1 / (1 + math.exp(-z))) and view["dislocation"] == pytest.approx(view["p_expected"] - 0.505)
        assert world.target(slot)["why"]["dislocation"] == view["dislocation"] or not world.quotes(slot)

    def test_without_a_fit_nothing_is_expected(self):
        world, slot = quoting(300.0)
        run(world, 70)
        assert world.view(slot)["p_expected"] == world.view(slot)["dislocation"] == 0.0


class TestFlow:
    def test_vpin_of_the_windows_trades(self):
        world, slot = quoting(signals={"vpin_bucket_u6": 100_000_000, "vpin_buckets": 4})
        for side, shares in ((r.BUY, 100), (r.BUY, 50), (r.SELL, 50), (r.SELL, 80), (r.BUY, 20), (r.BUY, 75), (r.SELL, 25)):
            world.wait(0.01)
            world.trade(side, shares)
        assert world.view(slot)["toxicity"] == pytest.approx(210 / 400) and world.gates(slot) == set()

    def test_own_fills_on_one_side_are_toxic_for_a_while(self):
        world, slot = quoting(100.0)
        for _ in range(3):
            world.wait(1)
            world.fill(slot, r.DOWN, 5, 0.5)
        assert world.view(slot)["toxic"] == 1 and world.state["window"]["fills"]["n"][0, slot] == 3
        run(world, 299, step_s=0.5)
        assert world.view(slot)["toxic"] == 1
        run(world, 2)
        assert world.view(slot)["toxic"] == 0

    def test_fills_that_arrive_in_one_account_are_a_run_too(self):
        for fills, toxic in ((2, 0), (3, 1)):
            world, slot = quoting(100.0)
            world.fill(slot, r.DOWN, 15, 0.5, fills)
            assert (world.view(slot)["toxic"], world.state["window"]["fills"]["n"][0, slot]) == (toxic, fills)

    def test_fills_on_both_sides_are_not(self):
        world, slot = quoting()
        for token in (r.UP, r.DOWN, r.UP, r.UP):
            world.wait(1)
            world.fill(slot, token, 5)
        assert world.view(slot)["toxic"] == 0

    def test_what_an_account_holds_when_the_core_starts_is_no_fill(self):
        world, slot = quoting()
        world.fill(slot, r.UP, 50)
        again = World(320.0)
        again.add_window()
        again.account[:] = world.account
        again.step(r.SRC_MARKETS)
        assert again.state["window"]["fills"]["n"][0, slot] == 0
        again.fill(slot, r.UP, 50)
        assert again.state["window"]["fills"]["n"][0, slot] == 1

    def test_a_new_window_in_the_place_starts_anew(self):
        world, slot = quoting(100.0)
        for _ in range(3):
            world.wait(1)
            world.fill(slot, r.UP, 5)
            world.trade(r.BUY, 300)
        world.add_window(START_S + 3600)
        world.step(r.SRC_MARKETS)
        window = world.state["window"][0, slot]
        assert window["fills"]["n"] == window["vpin"]["done"] == window["toxic"]["until_ns"] == 0 and world.state["seen"]["toxic"] == 0

    def test_markout_after_five_seconds_in_dollars_a_share(self):
        world, slot = quoting(100.0)
        world.fill(slot, r.UP, 10, 0.50)
        world.fill(slot, r.DOWN, 30, 0.48)
        for _ in range(11):
            world.wait(0.5)
            world.lead(), world.print()
            world.book(5200, 5300)
        view = world.view(slot)
        want = (10 * (0.525 - 0.50) + 30 * (0.52 - 0.525)) / 40         # Down bought at 0.48 is Up sold at 0.52
        assert view["markout"] == pytest.approx(want)
        assert world.state["markout"]["fills"][0, markout.FIVE_S] == 2

    def test_a_doubted_book_is_no_mid_for_a_markout(self):
        world, slot = quoting(100.0)
        world.fill(slot, r.UP, 10, 0.50)
        for _ in range(14):
            world.wait(0.5)
            world.book(5200, 5300, flags=r.MF_SUSPECT)
        assert world.state["window"]["markout"]["lost"][0, slot, markout.FIVE_S] == 1 and world.view(slot)["markout"] == 0


class TestAges:
    def test_every_input_has_its_age(self):
        world, slot = quoting()
        world.wait(0.2)
        world.timer()
        world.wait(0.3)
        world.lead(venue=r.SV_COINBASE)
        view = world.view(slot)
        assert view["age_oracle_ns"] == SECOND // 2 + 4000 and view["age_spot_ns"] == 3000
        assert view["age_market_ns"] == SECOND // 2 + 5000


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**9))
def test_every_number_seen_is_finite_and_bounded_and_the_same_twice(seed):
    """Random inputs of all kinds, some absurd: VIEW has no NaN, keeps its bounds, and two cores see the same bits."""
    rng = np.random.default_rng(seed)
    plan = [(int(rng.integers(0, 8)), rng.random(4)) for _ in range(250)]
    states = []
    for _ in range(2):
        world, slot = quoting(float(plan[0][1][0] * 900), reversion={"beta": (1.0, 100.0, -100.0, 50.0, 10.0)},
                              signals={"vpin_bucket_u6": 10_000_000, "vpin_buckets": 4})
        for kind, u in plan:
            act(world, slot, kind, u)
            check(world.state["seen"][0])
        states.append(world.state.tobytes())
    assert states[0] == states[1]


def act(world, slot, kind, u):
    if kind == 0:
        world.wait(float(10 ** (3 * u[0] - 2)))
        world.timer()
    elif kind == 1:
        world.wait(0.1)
        world.lead(PX * (0.5 + u[0]) if u[1] < 0.1 else PX * (1 + 0.001 * (u[0] - 0.5)), venue=1 + int(3 * u[2]))
    elif kind == 2:
        world.wait(1)
        world.print(PX * (1 + 0.01 * (u[0] - 0.5)))
    elif kind == 3:
        bid = 1 + int(9990 * u[0])
        world.book(bid if u[1] < 0.9 else 0, min(bid + 1 + int(300 * u[2]), 9999))
    elif kind == 4:
        world.wait(0.001)
        world.trade(int(u[0] < 0.5), 1 + 100 * u[1])
    elif kind == 5:
        world.fill(slot, int(u[0] < 0.5), 1 + round(50 * u[1]), u[2])
    elif kind == 6:
        world.levels([(5000 - 100 * k, 1 + 1000 * u[k]) for k in range(4)], [(5100 + 100 * k, 1 + 10 * u[k]) for k in range(4)])
    else:
        world.rest((r.UP, 5000, 1 + 50 * u[0]), (r.DOWN, 4900, 1 + 50 * u[1]))


def check(view):
    for name in view.dtype.names:
        assert np.isfinite(view[name]), name
    assert -1 <= view["momentum"] <= 1 and 0 <= view["toxicity"] <= 1 and 0 <= view["p_expected"] < 1 and abs(view["dislocation"]) < 1
    assert 0 <= view["lead_confidence"] <= 1 and abs(view["lead_ms"]) <= 5000 and 0 <= view["leader"] < lead_lag.SOURCES
    assert view["bid_e4"] * 1e-4 - 1e-9 <= view["micro"] <= view["ask_e4"] * 1e-4 + 1e-9 or view["mid"] == 0 or view["bid_e4"] > view["ask_e4"]
    assert min(view["bid_size"], view["ask_size"], view["liquidity"], view["std"], view["sigma_px"]) >= 0
    assert abs(view["markout"]) <= 1 and 0 <= view["phase"] < len(r.PHASES) and 0 <= view["regime"] < len(r.REGIMES)
