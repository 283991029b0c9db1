"""The pair strategy: what must hold for any book, parameters and inventory, and what each of its parts does."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core_world import PX, World, quoting
from mmbot.quoting import ladder, pair, rounding, skew
from mmbot.risk import exposure
from shm_layout import records as r

FLAT = dict(model_weight=0.0, k_time=0.0, k_vol=0.0, k_spread=0.0, k_fast=0.0)


def check_quotes(world, slot):
    """Everything a published target promises, from the outside."""
    t, p = world.target(slot), world.params["of"][0, 0]
    row, book = world.markets["row"][0, slot], world.state["slot"][0, slot]
    tick = int(book["tick_e4"])
    quotes = world.quotes(slot)
    first = {token: max(px for tk, _, px, _ in quotes if tk == token) for token, *_ in quotes}
    cap = math.floor(float(t["target_total"]) * 10_000 + 1e-6)
    assert p["target_total_min"] - 1e-12 <= t["target_total"] <= p["target_total_max"] + 1e-12
    if len(first) == 2:
        assert sum(first.values()) <= cap
    asks = {r.UP: int(book["ask_px_e4"]), r.DOWN: 10_000 - int(book["bid_px_e4"])}
    assert len({(token, level) for token, level, _, _ in quotes}) == len(quotes) <= 2 * int(p["levels"])
    for token, level, px, size in quotes:
        assert px % tick == 0 and tick <= px <= 10_000 - tick
        assert px <= asks[token] - tick, "a bid must not cross"
        assert size >= row["min_size_u6"] and size % rounding.LOT_U6 == 0 and size <= max(p["base_size_u6"], p["next_size_u6"])
    paid = sum(exposure.cost_of(px, size) for _, _, px, size in quotes)
    assert paid <= world.account["cash_u6"][0]
    return quotes


def test_promises_hold_for_any_book_parameters_and_inventory():
    seen = []
    any_world(seen)
    assert sum(seen) > 300, "the search found worlds that quote"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(data=st.data())
def any_world(seen, data):
    draw = data.draw
    tick = draw(st.sampled_from([100, 50, 25, 10, 1]))
    most = draw(st.floats(0.9, 0.9999))
    world = World(offset_s=draw(st.floats(-59, 839)), levels=draw(st.integers(1, 4)), level_step_ticks=draw(st.integers(1, 10)),
                  size_decay=draw(st.floats(0.05, 1)), model_weight=draw(st.floats(0, 1)), skew_per_share=draw(st.floats(0, 0.1)),
                  skew_max=draw(st.floats(0, 0.5)), target_total=draw(st.floats(0.9, most)), target_total_min=draw(st.floats(0.6, 0.9)),
                  target_total_max=most, max_exposure_u6=draw(st.sampled_from([0, 30_000_000, 150_000_000, 10**9])))
    slot = world.add_window(tick_e4=tick)
    world.strike(PX * draw(st.floats(0.99, 1.01)))
    world.account["cash_u6"] = draw(st.sampled_from([0, 8_000_000, 20_000_000, 10**9]))
    for _ in range(6):
        world.wait(draw(st.sampled_from([0.01, 0.2])))
        world.lead(PX * draw(st.floats(0.998, 1.002)))
        world.print(PX * draw(st.floats(0.998, 1.002)))
        world.hold(slot, draw(st.integers(0, 200)), draw(st.integers(0, 200)), draw(st.floats(0, 100)))
        bid = draw(st.integers(1, 10_000 // tick - 2))
        ask = draw(st.integers(bid + 1, 10_000 // tick - 1))
        world.book(bid * tick, ask * tick, tick_e4=tick)
        seen.append(len(check_quotes(world, slot)))


@settings(max_examples=100, deadline=None)
@given(cost=st.integers(0, 10**9), up=st.integers(0, 10**9), down=st.integers(0, 10**9),
       fills=st.lists(st.tuples(st.booleans(), st.integers(1, 9_999), st.integers(1, 10**8), st.floats(0, 1)), max_size=6))
def test_no_way_of_filling_loses_more_than_the_worst_loss(cost, up, down, fills):
    buy, pay = [0, 0], [0, 0]
    got, paid = [up, down], cost
    for is_down, px, size, part in sorted(fills, key=lambda f: -f[1]):
        buy[is_down] += size
        pay[is_down] += exposure.cost_of(px, size)
    filled = {False: True, True: True}
    for is_down, px, size, part in sorted(fills, key=lambda f: -f[1]):      # dearer bids fill first; one may fill in part
        if filled[is_down]:
            take = int(size * part) if part < 0.7 else size
            filled[is_down] = take == size
            got[is_down] += take
            paid += exposure.cost_of(px, take)
    worst = exposure.worst_loss(cost, up, down, buy[0], pay[0], buy[1], pay[1])
    assert paid - min(got) <= worst + len(fills)


class TestFirstPrices:
    def test_a_fair_market_is_joined_on_both_sides(self):
        world, slot = quoting(300.0, 5000, 5100, **FLAT)
        assert [(t, px) for t, lv, px, _ in world.quotes(slot) if lv == 0] == [(r.UP, 5000), (r.DOWN, 4900)]

    def test_model_moves_the_pair(self):
        high, slot = quoting(px=PX * 1.002, model_weight=1.0)
        low, _ = quoting(px=PX * 0.998, model_weight=1.0)
        up = {w: max(px for t, _, px, _ in w.quotes(slot) if t == r.UP) for w in (high, low)}
        assert up[low] < 4000 and up[high] == 5000, "post-only keeps the high one a tick under the ask"

    def test_holding_up_lowers_up_and_raises_down(self):
        world, slot = quoting(bid_e4=4900, ask_e4=5200, tick_e4=10, **FLAT)
        before = {t: px for t, lv, px, _ in world.quotes(slot) if lv == 0}
        world.hold(slot, up=50)
        after = {t: px for t, lv, px, _ in world.quotes(slot) if lv == 0}
        assert after[r.UP] == before[r.UP] - 100 and after[r.DOWN] == before[r.DOWN] + 100

    def test_next_window_is_quoted_small(self):
        world = World(offset_s=-30.0)
        slot = world.add_window()
        world.lead()
        world.print()
        world.book()
        assert {q[3] for q in world.quotes(slot)} == {10_000_000, 6_000_000}
        world.wait(30)
        world.lead()
        world.print()
        world.book()
        assert {q[3] for q in world.quotes(slot)} == {20_000_000, 12_000_000}


class TestHysteresis:
    def flips(self, noise_ticks, n=400):
        """How often quotes change while the unrounded price trembles around a tick boundary."""
        rng, held, flips = np.random.default_rng(3), 0, -1
        for x in rng.uniform(-noise_ticks, noise_ticks, n):
            px = pair.hold_price(held, 5000 + x * 100, 100, 0.992)
            flips += px != held
            held = px
        return flips

    def test_noise_around_a_boundary_does_not_move_the_quote(self):
        assert self.flips(0.15) <= 1
        assert self.flips(1.5) > 50, "real moves do"

    def test_dear_quotes_go_down_at_once(self):
        assert pair.hold_price(5000, 4979, 100, 0.992) == 4900, "more than half of this side's edge of 40 is gone"
        assert pair.hold_price(5000, 4981, 100, 0.992) == 5000
        assert pair.hold_price(5000, 4999, 100, 0.9999) == 4900, "a thin edge tolerates next to nothing"

    def test_up_only_when_clearly_in_the_next_bucket(self):
        assert pair.hold_price(5000, 5110, 100, 0.992) == 5000
        assert pair.hold_price(5000, 5126, 100, 0.992) == 5100
        assert pair.hold_price(5000, 5301, 100, 0.992) == 5300

    def test_a_finer_tick_keeps_a_price_on_its_grid_and_a_coarser_one_does_not(self):
        assert pair.hold_price(5000, 5001, 10, 0.992) == 5000
        assert pair.hold_price(5010, 5005, 100, 0.992) == 5000

    def test_nothing_held(self):
        assert pair.hold_price(0, 5099, 100, 0.992) == 5000

    def test_quotes_stand_still_while_the_market_trembles(self):
        world, slot = quoting(bid_e4=5000, ask_e4=5020, tick_e4=10, model_weight=1.0)
        changes = 0
        for i in range(200):
            world.wait(0.01)
            world.lead(PX * (1 + 1e-7 * (i % 2)))
            changes += world.book(5000, 5020, tick_e4=10) & 0xFF != 0
        assert changes == 0


class TestPairBudget:
    def test_cap_takes_from_the_side_further_above_its_price(self):
        assert pair.cap_pair(5000, 4960, 4995.0, 4930.0, 10, 0.992) == (5000, 4920, 1)
        assert pair.cap_pair(5000, 4960, 4950.0, 4958.0, 10, 0.992) == (4960, 4960, 1)
        assert pair.cap_pair(5000, 4920, 4950.0, 4958.0, 10, 0.992) == (5000, 4920, 0)

    def test_cap_is_exact_in_integers(self):
        """0.57 + 0.42 = 0.99 in integers, whatever 0.99 is in binary."""
        assert pair.cap_pair(5700, 4200, 5700.0, 4200.0, 100, 0.99) == (5700, 4200, 0)
        assert pair.cap_pair(5700, 4300, 5700.0, 4200.0, 100, 0.99) == (5700, 4200, 1)

    def test_slack_is_spent_on_the_nearer_side_but_not_above_fair(self):
        assert pair.spend_slack(4900, 4900, 4995.0, 4925.0, 100, 0.992, pair.NOBODY) == (5000, 4900, pair.UP_SIDE)
        assert pair.spend_slack(4900, 4900, 4960.0, 4960.0, 100, 0.992, pair.NOBODY) == (4900, 4900, pair.NOBODY)
        assert pair.spend_slack(5000, 4900, 5000.0, 4920.0, 100, 0.992, pair.UP_SIDE) == (5000, 4900, pair.NOBODY)

    def test_slack_stays_where_it_was_spent(self):
        assert pair.spend_slack(4900, 4900, 4975.0, 4985.0, 100, 0.992, pair.UP_SIDE) == (5000, 4900, pair.UP_SIDE)
        assert pair.spend_slack(4900, 4900, 4955.0, 4985.0, 100, 0.992, pair.UP_SIDE) == (4900, 5000, pair.DOWN_SIDE)

    def test_penalties_widen_within_bounds(self):
        assert pair.target_total(0.992, 0.98, 0.995, 0.0, 0.0, 0.0) == pytest.approx(0.992)
        assert pair.target_total(0.992, 0.98, 0.995, 0.15, 0.1, 0.0) == pytest.approx(0.99)
        assert pair.target_total(0.992, 0.98, 0.995, 9.0, 0.0, 0.0) == 0.98
        assert pair.target_total(0.999, 0.98, 0.995, 0.0, 0.0, 0.0) == 0.995

    @pytest.mark.parametrize("name, change", [
        ("k_vol", lambda w: w.state["vol"]["var_s"].__setitem__(0, 4e-8)),
        ("k_spread", lambda w: w.book(4800, 5300)),
        ("k_time", lambda w: w.markets["row"]["start_s"].__isub__(400)),
        ("k_fast", lambda w: (w.wait(1.05), w.lead(PX * 1.002), w.print(), w.book())),
    ])
    def test_each_penalty_widens_alone(self, name, change):
        world, slot = quoting(100.0, **{**FLAT, name: 0.3})
        base = float(world.target(slot)["target_total"])
        change(world)
        world.wait(0.1)
        world.book(*((4800, 5300) if name == "k_spread" else (5000, 5100)))
        assert float(world.target(slot)["target_total"]) < base - 1e-4


class TestRounding:
    @pytest.mark.parametrize("px", range(1, 100))
    def test_prices_on_the_grid_stay(self, px):
        assert rounding.floor_price(px / 100 * 10_000, 100) == px * 100

    def test_down_never_up(self):
        assert rounding.floor_price(5099.99, 100) == 5000 and rounding.floor_price(-1.0, 100) == -100
        assert rounding.floor_tick(5099, 25) == 5075
        assert rounding.floor_lot(13.999e6) == 13_000_000 and rounding.floor_lot(12e6) == 12_000_000 and rounding.floor_lot(-5.0) == 0

    def test_range(self):
        assert [rounding.in_range(px, 100) for px in (0, 100, 9900, 9950)] == [0, 1, 1, 0]

    def test_ladder(self):
        assert [ladder.level_price(5000, lv, 2, 100) for lv in range(3)] == [5000, 4800, 4600]
        assert [ladder.level_size(20_000_000, lv, 0.6, 1.0) for lv in range(3)] == [20_000_000, 12_000_000, 7_000_000]

    def test_skew(self):
        assert skew.price_shift(50_000_000, 0.0002, 0.05) == pytest.approx(0.01)
        assert skew.price_shift(-10**9, 0.0002, 0.05) == -0.05
        assert [skew.severity(x, 60, 120) for x in (0, 59, 60, -119, -120)] == [0, 0, 1, 1, 2]
