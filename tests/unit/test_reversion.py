"""The reversion strategy: entry and exit, legs, maker and taker prices, breakers (document 0)."""

import numpy as np
import pytest

from mmbot.quoting import reversion as rv
from mmbot.quoting.view import MEMORY
from mmbot.risk import gates
from shm_layout import records as r
from strategy_world import ROOMY, bids, draw, params_of, view_of

P = dict(strategy="reversion", **ROOMY)


def gap(x, **fields):
    """A view whose model is ``x`` away from the mid."""
    mid = 0.5e-4 * (fields.get("bid_e4", 4900) + fields.get("ask_e4", 5100))
    return view_of(**({"bid_e4": 4950, "ask_e4": 5050, "tick_e4": 10} | fields), p_model=mid + x)


def fresh_memory():
    return np.zeros(1, MEMORY)[0]


class TestThresholds:
    @pytest.mark.parametrize("spread, enter, exit_", [(0.002, 0.01, 0.005), (0.01, 0.02, 0.01), (0.005, 0.01, 0.005)])
    def test_of_document_0(self, spread, enter, exit_):
        assert rv.thresholds(spread, 0.01, 2.0, 0.005, 1.0) == pytest.approx((enter, exit_))

    @pytest.mark.parametrize("x, held, what", [
        (0.02, 0, rv.ENTER), (-0.02, 0, rv.ENTER), (0.019, 0, rv.FLAT), (0.004, 0, rv.FLAT),
        (0.02, 1, rv.ENTER), (0.015, 1, rv.FLAT), (0.009, 1, rv.EXIT), (-0.015, 1, rv.EXIT), (-0.03, 1, rv.EXIT), (0.009, -1, rv.EXIT), (-0.015, -1, rv.FLAT),
    ])
    def test_what_a_dislocation_asks_for(self, x, held, what):
        assert rv.wanted(x, 0.02, 0.01, held) == what


class TestLegs:
    @pytest.mark.parametrize("x, token", [(0.03, r.UP), (-0.03, r.DOWN)])
    def test_the_cheap_side_is_bought_and_nothing_else(self, x, token):
        draft, quotes = draw(gap(x), params_of(**P))
        assert [q[0] for q in quotes] == [token] and draft["gates"] == 0

    def test_a_leg_is_a_third_of_one_percent_of_the_bankroll(self):
        quotes = draw(gap(0.03), params_of(**P))[1]
        assert [q[5] for q in quotes] == [6_000_000], "1000 dollars, 1 %, 3 legs at 0.505: 6.6 shares"

    def test_at_most_three_legs_and_one_percent_of_the_bankroll_a_side(self):
        held, legs = 0, 0
        while quotes := draw(gap(0.03, qty_up_u6=held), params_of(**P))[1]:
            held, legs = held + quotes[0][5], legs + 1
            assert held * 1e-6 * 0.505 <= 10.0
        assert legs == 3

    def test_the_venues_minimum_counts_as_a_leg_when_the_cap_allows_it(self):
        poor = dict(bankroll_u6=300_000_000)
        held, legs = 0, 0
        while quotes := draw(gap(0.03, qty_up_u6=held, **poor), params_of(**P))[1]:
            held, legs = held + quotes[0][5], legs + 1
        assert (held, legs) == (5_000_000, 1), "5 shares cost 2.52 of 3 dollars"
        assert draw(gap(0.03, bankroll_u6=200_000_000), params_of(**P))[1] == []

    def test_no_fit_follows_the_model_and_a_fit_the_regression(self):
        assert rv.dislocation(gap(0.03), params_of(**P)) == pytest.approx(0.03)
        fitted = params_of(**P, reversion=dict(fit_id=7))
        view = gap(0.03, dislocation=-0.04, p_expected=0.46)
        assert rv.dislocation(view, fitted) == -0.04 and [q[0] for q in draw(view, fitted)[1]] == [r.DOWN]

    def test_the_way_out_buys_the_other_outcome(self):
        draft, quotes = draw(gap(0.004, qty_up_u6=12_000_000), params_of(**P))
        assert [(q[0], q[5]) for q in quotes] == [(r.DOWN, 12_000_000)]
        assert draw(gap(0.014, qty_up_u6=12_000_000), params_of(**P))[1] == [], "between exit and entry it waits"


class TestMaker:
    def test_it_bids_a_tick_under_the_ask_and_within_the_slippage(self):
        assert bids(draw(gap(0.03), params_of(**P))[0], r.UP)[0][0] == 5040
        assert bids(draw(gap(0.09, bid_e4=4700, ask_e4=5300), params_of(**P, reversion=dict(enter_spreads=1.0, exit_spreads=0.5)))[0], r.UP)[0][0] == 5100, "mid + 1 cent"

    def test_a_price_is_kept_for_a_second(self):
        memory, params = fresh_memory(), params_of(**P)
        first = bids(draw(gap(0.03), params, memory)[0], r.UP)
        later = dict(bid_e4=4960, ask_e4=5060)
        assert bids(draw(gap(0.04, **later, now_ns=10**12 + 10**9 - 1), params, memory)[0], r.UP) == first
        assert bids(draw(gap(0.04, **later, now_ns=10**12 + 10**9), params, memory)[0], r.UP)[0][0] == 5050

    def test_but_not_across_the_ask(self):
        memory, params = fresh_memory(), params_of(**P)
        draw(gap(0.03), params, memory)
        assert bids(draw(gap(0.03, bid_e4=4930, ask_e4=5030, now_ns=10**12 + 10**8), params, memory)[0], r.UP)[0][0] == 5020


class TestTaking:
    TAKE = dict(taking=True)

    def taken(self, view, memory=None, **own):
        d, _ = draw(view, params_of(**P, reversion=self.TAKE | own), memory)
        return tuple(int(d[f"take_{f}"]) for f in ("token", "side", "kind", "px_e4", "size_u6")) if d["take_size_u6"] else None

    def test_limits_of_document_0(self):
        assert rv.buy_limit(0.52, 0.50, 0.01) == 0.51 and rv.buy_limit(0.505, 0.50, 0.01) == 0.505
        assert rv.sell_limit(0.48, 0.50, 0.01) == 0.49 and rv.sell_limit(0.495, 0.50, 0.01) == 0.495

    def test_it_buys_at_the_best_ask_for_dollars(self):
        assert self.taken(gap(0.03)) == (r.UP, r.BUY, r.QK_FAK, 5050, 6 * 505_000)
        assert self.taken(gap(-0.03)) == (r.DOWN, r.BUY, r.QK_FAK, 5050, 6 * 505_000)

    def test_not_beyond_the_slippage(self):
        assert self.taken(gap(0.09, bid_e4=4700, ask_e4=5300), enter_spreads=1.0, exit_spreads=0.5) is None

    def test_one_try_a_second(self):
        memory = fresh_memory()
        first = self.taken(gap(0.03), memory)
        assert self.taken(gap(0.04, bid_e4=4955, now_ns=10**12 + 10**8), memory) == first, "it stands until the executor has seen it"
        assert self.taken(gap(0.04, qty_up_u6=6_000_000, now_ns=10**12 + 10**8), memory) is None, "but not once it was filled"
        assert self.taken(gap(0.03, now_ns=10**12 + 10**9 - 1), memory) is None
        assert self.taken(gap(0.03, now_ns=10**12 + 10**9), memory)

    def test_not_while_the_venue_takes_post_only_orders_alone(self):
        assert self.taken(gap(0.03, may_take=0)) is None

    def test_the_way_out_sells_what_may_be_sold(self):
        held = dict(qty_up_u6=12_000_000)
        assert self.taken(gap(0.001, **held, sellable_up_u6=12_000_000)) == (r.UP, r.SELL, r.QK_FAK, 4950, 12_000_000)
        assert self.taken(gap(0.001, **held)) == (r.DOWN, r.BUY, r.QK_FAK, 5050, 12 * 505_000), "without shares to sell it buys the other outcome"


class TestBreakers:
    def test_divergence_stops_everything(self):
        draft, quotes = draw(gap(0.16, qty_up_u6=12_000_000), params_of(**P))
        assert quotes == [] and draft["gates"] == gates.DIVERGENCE
        assert draw(gap(0.149), params_of(**P))[1]

    def test_a_flip_pauses_and_is_followed_afterwards(self):
        memory, params = fresh_memory(), params_of(**P)
        assert draw(gap(0.03), params, memory)[1]
        for now_s in (0.1, 4.9):
            draft, quotes = draw(gap(-0.03, now_ns=10**12 + int(now_s * 1e9)), params, memory)
            assert quotes == [] and draft["gates"] == gates.SIGNAL_FLIP
        draft, quotes = draw(gap(-0.03, now_ns=10**12 + 5_200_000_000), params, memory)
        assert [q[0] for q in quotes] == [r.DOWN] and draft["gates"] == 0

    def test_a_signal_that_fades_and_comes_back_the_other_way_is_no_flip(self):
        memory, params = fresh_memory(), params_of(**P)
        draw(gap(0.03), params, memory), draw(gap(0.0), params, memory)
        assert draw(gap(-0.03), params, memory)[0]["gates"] == 0
