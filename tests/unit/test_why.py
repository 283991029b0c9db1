"""Why there is (no) quote: the record names the gate that closed with what it saw, or each part of the price; the words come from it alone."""

import json
import math
import re
from datetime import UTC, timedelta, timezone

import numpy as np
import pytest
from core_world import PX, SECOND, START_S, World, quoting
from typer.testing import CliRunner

from mmbot.cli.main import app
from mmbot.clock import WallClock
from mmbot.errors import UserError
from mmbot.ops import why
from mmbot.params import version_name
from params_world import Desk
from shm_layout import records as r

MARKET = r.market_id(START_S, 900)


def told(world, slot):
    """(document, text) of the decision that stands."""
    t = world.target(slot).copy()
    found = why.in_force([t], int(t["market_id"]), world.now_ns)
    d = why.document(found, world.now_ns, WallClock(world.wall_ns, world.now_ns), 1.0)
    return d, "\n".join(why.lines(d, UTC))


def test_a_quote_is_explained_from_the_model_to_the_price():
    world, slot = quoting(model_weight=0.5)
    world.lead(PX * 1.0005)
    world.hold(slot, up=50, cost=25.0)
    d, text = told(world, slot)
    t, w = world.target(slot), world.target(slot)["why"]
    assert d["quoted"] and d["gate"] is None and d["strategy"] == "pair" and d["pricer"] == "twap" and d["leader"] == "Binance"
    n = d["numbers"]
    assert n["p_model"] > 0.55 and n["mid"] == pytest.approx(0.505) and n["mid"] < n["fair"] < n["p_model"] and n["skew_inventory"] < 0
    assert n["reservation"] == pytest.approx(n["fair"] + n["skew_inventory"]) and n["spread"] == pytest.approx(1 - t["target_total"])
    assert math.exp(n["ln_strike"]) == pytest.approx(PX)
    assert [(q["token"], q["level"], q["px"]) for q in d["quotes"]] == [(("Up", "Down")[q[0]], q[1], q[2] * 1e-4) for q in world.quotes(slot)]
    for part in (f"p {w['p_model']:.4f}", f"fair     {w['fair']:.4f}", f"inventory {w['skew_inventory']:+.4f} (+50 shares", f"reserve  {w['reservation']:.4f}",
                 f"spread   {w['spread']:.4f}", "quote    buy Up", "level 1", "room", version_name(world.params["version"][0]), "account, received"):
        assert part in text, (part, text)
    assert "NOT QUOTED" not in text


def shut(world, slot, act):
    act(world, slot)
    return told(world, slot)


def _account(world, **values):
    for name, value in values.items():
        world.account[name] = value
    world.step(r.SRC_ACCOUNT)


def _guard(world, reasons):
    world.guard["quoting_allowed"], world.guard["reasons"] = 0, reasons
    world.step(r.SRC_GUARD)


def _row(world, slot, **values):
    for name, value in values.items():
        world.markets["row"][0, slot][name] = value
    world.step(r.SRC_MARKETS)


@pytest.mark.parametrize("gate, act, text", [
    ("stale_market", lambda w, s: (w.wait(1.2), w.lead(), w.print(), w.timer()), r"the market channel was heard 1200 ms ago, limit 750 ms"),
    ("stale_oracle", lambda w, s: (w.wait(6), w.lead(), w.book(), w.timer()), r"the oracle was heard 6000 ms ago, limit 5000 ms"),
    ("cutoff", lambda w, s: (w.wait(550), w.lead(), w.print(), w.book()), r"50.0 s are left, quotes end 60 s before the end"),
    ("account_not_ready", lambda w, s: _account(w, state=r.AS_RECONCILING), r"account is reconciling"),
    ("account_not_ready", lambda w, s: _account(w, user_ok=0, halts=r.HALT_BIT["user_channel"]), r"the user channel is not trusted\nexecutor user_channel"),
    ("executor_halt", lambda w, s: _account(w, halts=r.HALT_BIT["loss"] | r.HALT_BIT["error_rate"]), r"the executor wants no orders: error_rate, loss"),
    ("guard", lambda w, s: _guard(w, r.GUARD_BIT["core"] | r.GUARD_BIT["geoblock"]), r"the guardian forbids it: core, geoblock"),
    ("guard", lambda w, s: _guard(w, 0), r"it has not spoken yet"),
    ("empty_book", lambda w, s: w.book(bid_e4=0), r"others' bid none, ask 0.51"),
    ("suspect_book", lambda w, s: w.book(bid_e4=5300, ask_e4=5200), r"others' bid 0.53, ask 0.52"),
    ("frozen_market", lambda w, s: w.book(flags=r.MF_FROZEN), r"others' bid 0.5, ask 0.51"),
    ("no_strike", lambda w, s: w.strike(trusted=0), r"no trusted opening print 300.0 s after the start .*5 s"),
    ("not_open", lambda w, s: _row(w, s, accepting=0), r"does not list it as open"),
    ("no_market", lambda w, s: _row(w, s, market_id=0), r"discovery lists no window"),
    ("exposure_cap", lambda w, s: _account(w, cash_u6=0), r"0.00 dollars could be lost.*room 150.00, cash 0.00"),
    ("severe_skew", lambda w, s: w.hold(s, up=60, down=200, cost=20.0), r"140 shares more of one outcome, severe from 60"),
])
def test_a_closed_gate_is_named_with_its_input_and_limit(gate, act, text):
    world, slot = quoting()
    d, said = shut(world, slot, act)
    if d["quoted"] and gate not in ("severe_skew",):
        raise AssertionError(said)
    assert d["gate"]["name"] == gate, said
    assert re.search(text, said, re.S), said
    assert d["params_version"] == version_name(world.params["version"][0])


def test_a_window_ahead_says_when_it_will_be_quoted():
    world = World(offset_s=-100.0)
    slot = world.add_window()
    world.lead(), world.print(), world.book()
    d, text = told(world, slot)
    assert d["gate"]["name"] == "not_open" and "it starts in 100.0 s, and is quoted from 60 s before" in text


def test_warming_and_a_missing_spot():
    world = World(warmup_ns=3 * SECOND)
    slot = world.add_window()
    world.strike(), world.print(), world.book()
    world.wait(1), world.print(), world.book()
    d, text = told(world, slot)
    assert d["gate"]["name"] == "warming" and "the core runs for 1000 ms, it quotes after 3000 ms" in text and d["other_gates"] == ["stale_spot"]


def test_contradictions_between_prices_are_in_basis_points():
    world, slot = quoting()
    world.lead(PX * 1.01)
    d, text = told(world, slot)
    assert d["quoted"] and d["gate"]["name"] == "oracle_disagree" and "spot is 99.5 bps from the oracle, limit 75.0 bps" in text
    world, slot = quoting()
    world.lead(PX, venue=r.SV_COINBASE)
    world.wait(1.1)
    world.lead(PX), world.lead(PX * 1.004, venue=r.SV_COINBASE)
    world.print(), world.book()
    d, text = told(world, slot)
    assert d["gate"]["name"] == "spot_disagree" and "differ by 39.9 bps, limit 20.0 bps" in text


def test_a_closed_gate_carries_nothing_of_another_windows_quotes():
    world, slot = quoting(offset_s=880.0, cutoff_s=0.0)
    other = world.add_window(START_S + 900)
    world.book(3000, 3100, START_S + 900)
    assert world.target(other)["why"]["reservation"] > 0
    world.guard["quoting_allowed"] = 0
    world.step(r.SRC_GUARD)
    assert world.target(slot)["why"]["reservation"] == 0 == world.target(other)["why"]["reservation"]
    world.guard["quoting_allowed"] = 1
    world.step(r.SRC_GUARD)
    world.book(0, 3100, START_S + 900)
    assert world.target(other)["why"]["reservation"] == 0 and world.target(slot)["why"]["reservation"] > 0


def test_every_gate_has_words():
    t = np.zeros(1, r.TARGET)[0]
    for i, name in enumerate(r.GATES):
        t["why"]["gate"], t["why"]["gate_input"], t["why"]["gate_limit"] = i, 1.0, 2.0
        assert name in why.WORDS and why.gate_words(t)


class TestWhichDecision:
    def records(self, *rows):
        out = np.zeros(len(rows), r.TARGET)
        for t, (at, market_id, gate, n) in zip(out, rows, strict=True):
            t["t_decide_ns"], t["market_id"], t["why"]["gate"], t["n_quotes"] = at, market_id, gate, n
        return out

    def test_the_last_one_before_the_moment_and_since_when_it_is_so(self):
        records = self.records((10, 1, -1, 4), (20, 1, 4, 0), (25, 2, 5, 0), (30, 1, 4, 0), (40, 1, 5, 0), (50, 1, -1, 4), (60, 1, -1, 2))
        assert why.in_force(records, 1, 5) is None and why.in_force(records, 3, 99) is None
        found = {t: why.in_force(records, 1, t) for t in (15, 35, 45, 99)}
        assert [(int(f.record["t_decide_ns"]), f.since_ns, f.whole) for f in found.values()] == [(10, 10, False), (30, 20, True), (40, 40, True), (60, 50, True)]

    @pytest.mark.parametrize("text, seconds", [("now", 0), ("90s", -90), ("5m", -300), ("12:00:00Z", -930.5), ("12:15:30.5Z", 0), ("14:15", -30.5), ("14:15:20", -10.5),
                                               ("14:16:00", 29.5 - 86400), ("23:59:59utc", 42268.5 - 86400)])
    def test_times(self, text, seconds):
        now = 1_775_045_730.5           # 2026-04-01 12:15:30.5 UTC
        assert why.moment(text, now, timezone(timedelta(hours=2))) == pytest.approx(now + seconds)

    @pytest.mark.parametrize("text", ["25:00", "12:61", "yesterday", "12", "-5s"])
    def test_what_is_no_time(self, text):
        with pytest.raises(UserError, match="is no time"):
            why.moment(text, 1e9, UTC)

    @pytest.mark.parametrize("text, market_id", [("15m", r.market_id(1_775_045_700, 900)), ("5m", r.market_id(1_775_045_700, 300)),
                                                 ("btc-updown-5m-1775028600", r.market_id(1775028600, 300)), ("12:29Z", r.market_id(1_775_045_700, 900)),
                                                 ("11:59:59Z", r.market_id(1_775_043_900, 900))])
    def test_markets(self, text, market_id):
        assert why.window(text, 1_775_045_730.5, UTC) == market_id

    def test_what_is_no_market(self):
        with pytest.raises(UserError, match="is no market"):
            why.window("eth", 1e9)
        assert why.is_market("5m") and not why.is_market("12:00:00")


def test_the_command_on_a_living_core(tmp_path):
    desk = Desk(tmp_path)
    try:
        world = desk.world
        shift = world.wall_ns - WallClock().now_ns()
        desk.start()
        path = desk.cfg.run.path / "config.toml"
        path.write_text(f'[run]\nname = "{desk.cfg.run.name}"\ndir = "{desk.cfg.run.dir}"\n')

        def run(*args):
            done = CliRunner().invoke(app, ["why", *args, "-c", str(path)], catch_exceptions=False)
            return done.exit_code, done.output
        assert run()[0] == 3
        desk.feed()
        world.market["t_exch_ns"] = WallClock().now_ns() + shift      # the group's clock is told by the newest book
        desk.put("book", world.market, desk.slot)
        desk.turn(8)
        code, out = run()
        assert code == 0 and ": quoted, since" in out and "quote    buy Up" in out and "ran out" not in out, out
        world.guard["quoting_allowed"], world.guard["reasons"] = 0, r.GUARD_BIT["operator"]
        desk.put("guard", world.guard)
        desk.turn(40)
        code, out = run("now", "15m", "--json")
        document = json.loads(out)
        assert code == 0 and document["gate"]["name"] == "guard" and document["guard_reasons"] == ["operator"] and not document["quoted"]
        assert document["since_is_known"] and document["reaches_back_s"] > 0 and document["cause"]["source"] == "guardian"
        assert run("5m")[0] == 1 and "no decision about btc-updown-5m" in run("5m")[1]
        assert run("10m")[0] == 1
    finally:
        desk.clean_up()
