"""Quotes without processes: the same as the core's, from arrays and from files, and a clear word about what cannot be."""

import json
import subprocess
import sys

import pytest
from core_world import PX, START_S, quoting
from typer.testing import CliRunner

import mmbot
from mmbot import MarketState, Quoter, read_state
from mmbot.cli.main import app
from mmbot.errors import UserError
from shm_layout import records as r

NOW_S = START_S + 300
MS = NOW_S * 1000


def state(**fields) -> MarketState:
    known = {"now_s": NOW_S, "start_s": START_S, "bids": [(0.50, 100)], "asks": [(0.51, 100)], "oracle": [(NOW_S, PX)], "spot": {"binance": [(NOW_S, PX)]}, "strike": PX}
    return MarketState(**(known | fields))


class TestQuoter:
    @pytest.mark.parametrize("strategy", r.STRATEGIES)
    def test_it_is_the_core_that_trades(self, strategy):
        world, slot = quoting(strategy=strategy)
        mine = [(("up", "down").index(q.outcome), q.layer, round(q.price * 1e4), round(q.size * 1e6)) for q in Quoter(strategy).quote(state()).quotes]
        if strategy == "programme":     # which in the world of the core has nobody who solves it
            assert mine and mine != world.quotes(slot)
        else:
            assert mine == world.quotes(slot) and (mine or strategy == "reversion")

    def test_single_values_of_a_strategy_can_be_replaced(self):
        near, far = (Quoter("tiered", levels=1, tiered={"base_spread": spread}).quote(state()) for spread in (0.02, 0.08))
        assert max(q.price for q in far.of("up")) < max(q.price for q in near.of("up"))

    def test_presets_and_names_that_are_none(self):
        assert Quoter("tiered-aggressive").strategy.strategy == "tiered"
        with pytest.raises(UserError, match="'pear' is no strategy .pair, tiered"):
            Quoter("pear")
        with pytest.raises(UserError, match="base_spreed.*nearest.*base_spread"):
            Quoter("tiered", tiered={"base_spreed": 0.1})
        with pytest.raises(UserError, match="cutoff_s"):
            Quoter("pair", cutoff_s=-1)

    def test_what_was_before_is_remembered(self):
        calm = [(NOW_S - 300 + i, PX) for i in range(301)]
        wild = [(t, PX * (1 + 0.0005 * (i % 2))) for i, (t, _) in enumerate(calm)]
        sigma = lambda points: float(Quoter().quote(state(oracle=points)).target["sigma"])
        assert sigma(wild) > 2 * sigma(calm)
        quoter = Quoter()
        for i in range(1, 301):
            quotes = quoter.quote(state(now_s=wild[i][0], oracle=wild[:i + 1], spot={"binance": wild[:i + 1]}))
        assert float(quotes.target["sigma"]) == pytest.approx(float(Quoter().quote(state(oracle=wild, spot={"binance": wild})).target["sigma"]), rel=1e-9)

    def test_it_goes_forward_only(self):
        quoter = Quoter()
        quoter.quote(state())
        with pytest.raises(UserError, match="before the last"):
            quoter.quote(state(now_s=NOW_S - 1, oracle=[(NOW_S - 1, PX)], spot={}))

    def test_shares_lean_the_quotes_and_are_no_fill(self):
        flat, long = Quoter().quote(state()), Quoter().quote(state(up_shares=100, up_cost=50))
        assert sum(q.size for q in long.of("up")) < sum(q.size for q in flat.of("up")) and "toxic_flow" not in long.gates
        assert int(long.target["why"]["imbalance_u6"]) == 100_000_000

    def test_own_orders_are_not_the_market(self):
        alone = Quoter().quote(state(bids=[(0.40, 50)], asks=[(0.60, 50)]))
        joined = Quoter().quote(state(bids=[(0.49, 20), (0.40, 50)], asks=[(0.60, 50)], own=[("up", "buy", 0.49, 20)]))
        assert float(joined.target["why"]["mid"]) == float(alone.target["why"]["mid"]) == 0.5

    @pytest.mark.parametrize(("fields", "gate"), [
        ({"oracle": [(NOW_S - 60, PX)]}, "stale_oracle"), ({"book_s": NOW_S - 10}, "stale_market"), ({"bids": []}, "empty_book"),
        ({"bids": [(0.55, 10)]}, "suspect_book"), ({"strike": None}, "no_strike"), ({"now_s": START_S + 880, "oracle": [(START_S + 880, PX)]}, "cutoff")])
    def test_nothing_is_wanted_on_what_cannot_be_trusted(self, fields, gate):
        quotes = Quoter().quote(state(**fields))
        assert not quotes.quotes and gate in quotes.gates and any("gate" in line for line in quotes.why())

    @pytest.mark.parametrize(("fields", "text"), [
        ({"start_s": START_S + 1}, "start_s"), ({"duration_s": 60}, "duration_s"), ({"bids": [(1.2, 5)]}, "bids price is 1.2"), ({"asks": [(0.505001, 5)]}, "asks price"),
        ({"bids": [(0.5, -1)]}, "bids size is -1"), ({"bids": [0.5]}, "pairs"), ({"bids": [(0.5, 1), (0.5, 2)]}, "twice"), ({"oracle": [(NOW_S, float("nan"))]}, "oracle"),
        ({"oracle": [(NOW_S + 5, PX)]}, "later than now_s"), ({"oracle": [(NOW_S, PX), (NOW_S - 1, PX)]}, "order of time"), ({"spot": {"kraken": []}}, "kraken"),
        ({"strike": 0.0}, "strike"), ({"cash": float("inf")}, "cash"), ({"tick": 0.02}, "tick"), ({"up_shares": "x"}, "up_shares"), ({"book_s": NOW_S + 1}, "book_s")])
    def test_a_value_that_cannot_be_is_named(self, fields, text):
        with pytest.raises(UserError, match=text):
            state(**fields)

    def test_words_that_are_none_are_named(self):
        with pytest.raises(UserError, match="own side is 'bid': buy or sell"):
            Quoter().quote(state(own=[("up", "bid", 0.4, 5)]))
        with pytest.raises(UserError, match="trades side"):
            Quoter().quote(state(trades=[(NOW_S, "hit", 0.5, 5)]))


def files(path, **parts):
    """The files of document 3; a part that is None is left out."""
    known = {
        "bybit": {"price": PX + 10, "timestamp": MS - 50}, "chainlink": {"price": PX, "timestamp": MS - 900, "strike": PX - 10},
        "call": {"timestamp": str(MS), "bids": [{"price": "0.01", "size": "5"}, {"price": "0.52", "size": "120"}],
                 "asks": [{"price": "0.99", "size": "5"}, {"price": "0.54", "size": "80"}], "tick_size": "0.01", "min_order_size": "5"},
        "put": {"timestamp": MS, "bids": [[0.46, 80]], "asks": [[0.48, 120]]}}
    for name, part in (known | parts).items():
        if part is not None:
            (path / f"{name}.json").write_text(part if isinstance(part, str) else json.dumps(part))
    return path


class TestFiles:
    def test_each_book_says_it_all(self, tmp_path):
        both, call, put = (read_state(files(tmp_path / name, **{p: None for p in gone})) for name, gone in (
            ((tmp_path / "both").mkdir() or "both", ()), ((tmp_path / "call").mkdir() or "call", ("put",)), ((tmp_path / "put").mkdir() or "put", ("call",))))
        assert Quoter().quote(both).quotes == Quoter().quote(call).quotes and Quoter().quote(both).fair == Quoter().quote(put).fair
        assert (both.now_s, both.start_s, both.strike, both.tick) == (NOW_S, START_S, PX - 10, 0.01)

    def test_one_file_holds_the_same(self, tmp_path):
        apart = read_state(files(tmp_path))
        whole = tmp_path / "state.json"
        whole.write_text(json.dumps({p.stem: json.loads(p.read_text()) for p in tmp_path.glob("*.json")}))
        assert read_state(whole) == apart

    def test_best_prices_alone_are_a_book(self, tmp_path):
        found = read_state(files(tmp_path, call={"best_bid": 0.52, "best_ask": "0.54", "bid_size": 7}, put=None))
        assert (list(found.bids), list(found.asks)) == ([(0.52, 7.0)], [(0.54, 100.0)])

    def test_the_window_says_who_we_are(self, tmp_path):
        window = {"slug": f"btc-updown-5m-{START_S}", "strike": PX, "cash": 50, "up_shares": 12, "own": [{"outcome": "up", "side": "buy", "price": 0.5, "size": 5}]}
        found = read_state(files(tmp_path, window=window))
        assert (found.duration_s, found.start_s, found.cash, found.up_shares, found.strike) == (300, START_S, 50, 12, PX)
        assert found.own == [("up", "buy", 0.5, 5.0)]

    @pytest.mark.parametrize(("parts", "text"), [
        ({"chainlink": None}, "chainlink is missing"), ({"call": None, "put": None}, "call and put are missing"), ({"bybit": "{"}, "bybit.json"), ({"bybit": "[]"}, "object"),
        ({"bybit": {"price": 1}}, "bybit.timestamp is missing"), ({"bybit": {"price": "x", "timestamp": MS}}, "bybit.price is 'x'"),
        ({"bybit": {"price": 1, "timestamp": NOW_S}}, "milliseconds"), ({"bybit": {}}, "bybit has no price"), ({"bybit": {"price": True, "timestamp": MS}}, "bybit.price"),
        ({"call": {"bids": [{"px": 1}]}}, "call.bids"), ({"call": {"bids": [[2, 1]], "asks": []}}, "call.bids price is 2"),
        ({"window": {"slug": "btc-updown-1h-1"}}, "window.slug"), ({"window": {"duration_s": 60}}, "duration_s"), ({"window": {"own": [1]}}, "window.own"),
        ({"window": {"cash": "much"}}, "window.cash"), ({"bybit": {"history": [[MS]]}}, "bybit.history")])
    def test_what_cannot_be_is_named(self, tmp_path, parts, text):
        with pytest.raises(UserError, match=text):
            read_state(files(tmp_path, **parts))

    def test_paths_that_hold_nothing(self, tmp_path):
        with pytest.raises(UserError, match="holds none of"):
            read_state(tmp_path)
        with pytest.raises(UserError, match="No such file"):
            read_state(tmp_path / "gone.json")
        (tmp_path / "odd.json").write_text('{"okx": {}}')
        with pytest.raises(UserError, match="unknown part 'okx'"):
            read_state(tmp_path / "odd.json")


class TestCommand:
    def test_it_prints_quotes_and_their_reasons(self, tmp_path):
        files(tmp_path)
        shown = CliRunner().invoke(app, ["quote", "--state", str(tmp_path), "--why"])
        assert shown.exit_code == 0 and "up   bid 20 @ 0.52" in shown.output and "fair     " in shown.output
        found = json.loads(CliRunner().invoke(app, ["quote", "--state", str(tmp_path), "--json"]).output)
        assert {q["side"] for q in found["quotes"]["CALL"]} == {"bid"} and found["quotes"]["PUT"] and found["time_to_expiry_seconds"] == 600.0

    def test_it_says_why_nothing_is_wanted(self, tmp_path):
        shown = CliRunner().invoke(app, ["quote", "--state", str(files(tmp_path, chainlink={"price": PX, "timestamp": MS - 60_000, "strike": PX}))])
        assert shown.exit_code == 1 and "stale_oracle" in shown.output and "the oracle was heard 60.0 s ago" in shown.output


def test_the_package_loads_nothing_until_it_is_asked():
    code = "import sys, mmbot; assert not [m for m in sys.modules if m.startswith(('numba', 'mmbot.'))], sys.modules; mmbot.Quoter"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        mmbot.Nothing  # noqa: B018
