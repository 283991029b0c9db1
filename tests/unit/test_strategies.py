"""What every strategy promises, whatever it sees: the same properties for all of them, after risk and route as in the core."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core_world import PX, quoting
from mmbot import programme as lp
from mmbot.quoting import rounding
from mmbot.quoting.view import MEMORY
from mmbot.risk import exposure, gates
from shm_layout import records as r
from strategy_world import ROOMY, bids, draw, params_of, view_of

#: every strategy, and each form of the one that has several
KINDS = {name: dict(strategy=name) for name in r.STRATEGIES if name != "avellaneda"}
KINDS |= {f"avellaneda-{form}": dict(strategy="avellaneda", avellaneda={"form": form}) for form in ("target", "optimal", "glft")}
KINDS["reversion"] = dict(strategy="reversion", reversion={"divergence": 0.9})
KINDS["reversion-taking"] = dict(strategy="reversion", reversion={"divergence": 0.9, "taking": True, "max_pay_slippage": 0.03})
QUIET = dict(k_vol=0.0, k_spread=0.0, k_time=0.0, k_fast=0.0)

unit = st.floats(0, 1)
shares = st.sampled_from([0, 1, 3_999_999, 20_000_000, 60_000_000, 480_000_000, 2_000_000_000])


@st.composite
def views(draw_):
    """A view without NaN, ordinary or extreme: past the end, no volatility or far too much, probabilities of 0 and 1, any book that is not empty or crossed."""
    tick = draw_(st.sampled_from([100, 10, 1]))
    bid = draw_(st.integers(1, 10_000 // tick - 2))
    ask = draw_(st.integers(bid + 1, min(bid + 400, 10_000 // tick - 1)))
    mid = 0.5e-4 * tick * (bid + ask)
    p = draw_(st.one_of(unit, st.sampled_from([0.0, 1.0, mid])))
    up, down = draw_(shares), draw_(shares)
    sigma = st.sampled_from([0.0, 1e-9, 1e-4, 3e-4, 1.0])
    return view_of(
        bid * tick, ask * tick, tick, tau_s=draw_(st.sampled_from([-5.0, 0.0, 1e-9, 1.0, 60.0, 450.0, 960.0])), elapsed=draw_(st.floats(-0.1, 1.1)),
        phase=draw_(st.integers(0, 4)), regime=draw_(st.integers(0, 3)), p_model=p, fair=draw_(st.sampled_from([p, mid, 0.3 * p + 0.7 * mid])),
        micro=draw_(st.sampled_from([0.0, mid, 1e-4 * tick * bid])), delta=draw_(st.sampled_from([0.0, 40.0, 1e6])), dislocation=p - mid, p_expected=p,
        sigma_short=draw_(sigma), sigma_long=draw_(sigma), sigma_px=draw_(st.sampled_from([0.0, 1e-6, 0.02, 50.0])), var_s=draw_(sigma) ** 2,
        momentum=draw_(st.floats(-1, 1)), toxicity=draw_(unit), toxic=draw_(st.integers(0, 1)), spike=draw_(st.integers(0, 1)), fast_move=draw_(st.floats(0, 0.01)),
        qty_up_u6=up, qty_down_u6=down, cost_u6=int(draw_(unit) * (up + down)), cost_up_u6=int(0.5 * up), cost_down_u6=int(0.5 * down),
        sellable_up_u6=draw_(st.sampled_from([0, up])), sellable_down_u6=draw_(st.sampled_from([0, down])), may_take=draw_(st.integers(0, 1)),
        cash_u6=draw_(st.sampled_from([0, 8_000_000, 10**9, 10**12])), room_u6=draw_(st.sampled_from([0, 30_000_000, 10**9, 10**12])),
        bankroll_u6=draw_(st.sampled_from([0, 10**8, 10**10])), base_size_u6=draw_(st.sampled_from([0, 5_000_000, 20_000_000, 100_000_000])),
        size_scale=draw_(st.sampled_from([0.0, 0.7, 1.0])), min_size_u6=draw_(st.sampled_from([5_000_000, 15_000_000])), fee_rate=0.07, fee_exponent=1.0,
        programme_bid=draw_(st.floats(-0.1, 0.2)), programme_ask=draw_(st.floats(-0.1, 0.2)), programme_ns=draw_(st.sampled_from([0, 1, 10**12])))


def check(view, params, draft, quotes, name):
    """The promises of one draft."""
    tick = int(view["tick_e4"])
    first = {}
    for token, _, side, kind, px, size in quotes:
        assert px % tick == 0 and tick <= px <= rounding.ONE_E4 - tick, "on the grid and inside a dollar"
        if kind == r.QK_POST_ONLY:
            assert size % rounding.LOT_U6 == 0 and size >= view["min_size_u6"], "whole lots, at least the venue's minimum"
        if side == r.BUY:
            first[token] = max(first.get(token, 0), px)
    if len(first) == 2:
        assert sum(first.values()) < rounding.ONE_E4, "own bids never match each other"
        if name == "pair":
            assert sum(first.values()) <= math.floor(params["target_total_max"] * rounding.ONE_E4 + 1e-6)
    for field in r.WHY.names:
        assert math.isfinite(draft["why"][field]), field
    paid = sum(exposure.cost_of(px, size) for token in (0, 1) for px, size in bids(draft, token))
    assert paid <= view["cash_u6"]
    alone = exposure.worst_loss(*(int(view[n]) for n in ("cost_u6", "qty_up_u6", "qty_down_u6")), 0, 0, 0, 0)
    assert draft["worst_u6"] <= max(alone, view["room_u6"])
    check_own_caps(view, params, draft, name)


def check_own_caps(view, params, draft, name):
    """The caps that a strategy has of its own: buys of a side together never carry the inventory beyond them."""
    for token, sign in ((r.UP, 1), (r.DOWN, -1)):
        wanted, ahead = sum(s for _, s in bids(draft, token)), sign * int(view["imbalance_u6"])
        held = int(view["qty_up_u6" if token == r.UP else "qty_down_u6"])
        if wanted == 0:
            continue
        if name == "tiered":
            assert ahead + wanted <= params["tiered"]["max_imbalance_u6"] and held + wanted <= params["tiered"]["max_position_u6"]
        elif name.startswith("avellaneda"):
            assert ahead + wanted <= params["avellaneda"]["max_inventory_u6"]
        elif name == "programme":
            assert ahead + wanted <= params["programme"]["max_inventory_u6"]
        elif name.startswith("reversion") and ahead >= 0:
            bankroll = int(view["bankroll_u6"]) or int(view["cash_u6"]) + int(view["cost_u6"])
            px = max(px for px, _ in bids(draft, token))
            assert (ahead + wanted) * px <= params["reversion"]["bankroll_part"] * bankroll * rounding.ONE_E4 + rounding.ONE_E4


@pytest.mark.parametrize("name", KINDS)
def test_promises_hold_for_whatever_is_seen(name):
    params, quoted = params_of(**KINDS[name], warmup_ns=0), []

    @settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(view=views(), again=views())
    def whatever(view, again):
        memory = np.zeros(1, MEMORY)[0]
        for seen in (view, again):              # the second one with what the first left in memory
            draft, quotes = draw(seen, params, memory)
            check(seen, params, draft, quotes, name)
            quoted.append(len(quotes) > 0)
    whatever()
    assert sum(quoted) >= 15, "the search found views that are quoted"


@pytest.mark.parametrize("name", [n for n in KINDS if not n.startswith(("reversion", "programme"))])
def test_more_up_never_raises_the_up_bid_nor_lowers_the_down_bid(name):
    params = params_of(**(KINDS[name] | ROOMY | QUIET))

    @settings(max_examples=80, deadline=None)
    @given(low=st.integers(-90, 90), more=st.integers(0, 90), tick=st.sampled_from([100, 10, 1]), momentum=st.floats(-1, 1))
    def leaning(low, more, tick, momentum):
        def first(imbalance):
            held = max(imbalance, 0) * 10**6, max(-imbalance, 0) * 10**6
            draft, _ = draw(view_of(4000, 6000, tick, momentum=momentum, qty_up_u6=held[0], qty_down_u6=held[1]), params)
            return [max((px for px, _ in bids(draft, token)), default=0) for token in (r.UP, r.DOWN)]
        few, many = first(low), first(min(low + more, 90))
        assert many[r.UP] <= few[r.UP] or few[r.UP] == 0
        assert many[r.DOWN] >= few[r.DOWN] or many[r.DOWN] == 0
    leaning()


def test_the_programme_leans_monotonically():
    problem = lp.Problem(fair=0.5, tick=0.01, inventory=0.0, base=0.03, max_spread=0.10, alpha=1.0, beta=1.0)
    found = lp.for_inventories(problem, np.linspace(-1, 1, 21))
    assert all(b.bid_offset >= a.bid_offset - 1e-9 and b.ask_offset <= a.ask_offset + 1e-9 for a, b in zip(found, found[1:], strict=False))
    assert found[0].bid_offset < found[-1].bid_offset


SHUT = {
    "guard": lambda w, slot: (w.guard.__setitem__("quoting_allowed", 0), w.step(r.SRC_GUARD)),
    "account_not_ready": lambda w, slot: (w.account.__setitem__("user_ok", 0), w.step(r.SRC_ACCOUNT)),
    "stale_market": lambda w, slot: (w.wait(0.8).lead(), w.print()),
    "suspect_book": lambda w, slot: w.book(5200, 5100),
    "empty_book": lambda w, slot: w.book(0, 5100),
    "not_open": lambda w, slot: w.book(kind=r.MK_RESOLVED),
}


@pytest.mark.parametrize("name", r.STRATEGIES)
@pytest.mark.parametrize("gate", SHUT)
def test_nothing_is_quoted_while_a_hard_gate_is_shut(name, gate):
    world, slot = quoting(strategy=name, px=PX * 1.0005)
    assert world.quotes(slot), "it quotes before"
    SHUT[gate](world, slot)
    assert gate in world.gates(slot) and r.GATE[gate] & gates.HARD and world.quotes(slot) == []
