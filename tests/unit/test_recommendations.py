"""mm_quotes.json and mm_status.json: document 3's format, "no quotes" whenever nobody stands behind them, and files that are never half written."""

import asyncio
import json
from types import SimpleNamespace

import numpy as np
import pytest

from mmbot import config, recommendations
from mmbot.clock import mono_ns
from mmbot.errors import UserError
from mmbot.ops.instance import Instance
from mmbot.recommendations import no_quotes_document, quotes_document, quotes_file, running_window, status_document
from procs import settler
from procs.output import Output
from shm_layout import records as r

START_S, SECOND = 1_775_028_600, 1_000_000_000
WALL_S, NOW_NS = START_S + 358.0, 5_000 * SECOND
SLUG = f"btc-updown-15m-{START_S}"


def target(*quotes, start_s=START_S, duration_s=900, deadline_ns=NOW_NS + SECOND, gates=(), **why):
    """A TARGET with quotes (token, side, price in dollars, shares, level[, kind])."""
    t = np.zeros(1, r.TARGET)[0]
    t["market_id"], t["deadline_ns"], t["decision"], t["params_version"], t["sigma"] = r.market_id(start_s, duration_s), deadline_ns, 7, 0xABC, 1e-4
    t["gates"], t["n_quotes"] = sum(r.GATE[g] for g in gates), len(quotes)
    for name, value in ({"phase": r.PHASES.index("mid"), "regime": r.REGIMES.index("mean_reverting"), "fair": 0.44, "mid": 0.45} | why).items():
        t["why"][name] = value
    for q, (token, side, px, shares, level, *kind) in zip(t["quote"], quotes, strict=False):
        q["token"], q["side"], q["px_e4"], q["size_u6"], q["level"], q["kind"] = token, side, round(px * 1e4), round(shares * 1e6), level, kind[0] if kind else r.QK_POST_ONLY
    return t


BOTH = ((r.UP, r.BUY, 0.42, 50, 0), (r.UP, r.BUY, 0.41, 30, 1), (r.DOWN, r.BUY, 0.53, 50, 0))


class Desk:
    """Records as the group leaves them; everything is well until a test says otherwise."""

    def __init__(self):
        self.markets, self.account, self.guard = (np.zeros(1, dt)[0] for dt in (r.MARKETS, r.ACCOUNT, r.GUARD))
        self.account["t_update_ns"] = self.guard["t_update_ns"] = NOW_NS
        self.account["state"], self.account["cash_u6"], self.account["realized_u6"], self.account["orders"] = r.AS_READY, 970_500_000, 1_250_000, 12
        self.guard["quoting_allowed"] = 1

    def window(self, start_s=START_S, duration_s=900, state=r.MS_OPEN, outcome=r.NO_OUTCOME):
        row = self.markets["row"][r.slot_of(start_s, duration_s)]
        row["market_id"], row["slot"] = r.market_id(start_s, duration_s), r.slot_of(start_s, duration_s)
        row["start_s"], row["end_s"], row["duration_s"], row["state"], row["outcome"] = start_s, start_s + duration_s, duration_s, state, outcome
        return self

    def hold(self, up_u6, down_u6, cost_up_u6, cost_down_u6, start_s=START_S):
        p = self.account["position"][r.slot_of(start_s, 900)]
        p["market_id"], p["qty_up_u6"], p["qty_down_u6"], p["cost_up_u6"], p["cost_down_u6"] = r.market_id(start_s, 900), up_u6, down_u6, cost_up_u6, cost_down_u6
        return self

    def status(self, *targets, dry_run=False, now_ns=NOW_NS):
        return status_document(targets, self.markets, self.account, self.guard, 900, WALL_S, now_ns, dry_run)


class TestQuotes:
    def test_it_is_the_format_of_document_3(self):
        d = quotes_document(target(*BOTH), WALL_S, NOW_NS)
        assert (d["timestamp"], d["time_to_expiry_seconds"], d["phase"], d["regime"]) == (round(WALL_S * 1000), 542.0, "mid", "mean_reverting")
        assert d["quotes"] == {"CALL": [{"side": "bid", "price": 0.42, "size": 50.0, "layer": 0, "kind": "post_only"},
                                        {"side": "bid", "price": 0.41, "size": 30.0, "layer": 1, "kind": "post_only"}],
                               "PUT": [{"side": "bid", "price": 0.53, "size": 50.0, "layer": 0, "kind": "post_only"}]}
        assert (d["market"], d["fair"], d["mid"], d["gates"], d["decision"], d["params_version"]) == (SLUG, 0.44, 0.45, [], 7, "000000000abc")

    def test_a_sale_is_an_ask_and_a_taker_says_so(self):
        d = quotes_document(target((r.UP, r.SELL, 0.463, 12.5, 0), (r.DOWN, r.BUY, 0.6, 7, 0, r.QK_FAK)), WALL_S, NOW_NS)
        assert d["quotes"] == {"CALL": [{"side": "ask", "price": 0.463, "size": 12.5, "layer": 0, "kind": "post_only"}],
                               "PUT": [{"side": "bid", "price": 0.6, "size": 7.0, "layer": 0, "kind": "fak"}]}

    @pytest.mark.parametrize("after_s, after_ns, tau_s", [(0.0, SECOND + 1, 542.0), (542.0, 0, 0.0), (600.0, 0, 0.0)])
    def test_past_its_deadline_or_its_window_there_are_no_quotes(self, after_s, after_ns, tau_s):
        assert quotes_document(target(*BOTH), WALL_S, NOW_NS + SECOND)["quotes"]["PUT"], "the deadline itself still counts"
        d = quotes_document(target(*BOTH, gates=("warming",)), WALL_S + after_s, NOW_NS + after_ns)
        assert d["quotes"] == {"CALL": [], "PUT": []} and d["gates"] == ["warming", "expired"] and d["time_to_expiry_seconds"] == tau_s

    def test_what_is_not_known_is_null(self):
        d = quotes_document(target(fair=float("nan"), mid=0.0, gates=("empty_book",)), WALL_S, NOW_NS)
        assert d["fair"] is None and d["mid"] is None and d["gates"] == ["empty_book"]
        json.dumps(d, allow_nan=False)

    def test_the_same_keys_without_a_target(self):
        assert set(no_quotes_document(r.market_id(START_S, 900), WALL_S, "x")) == set(quotes_document(target(), WALL_S, NOW_NS))


class TestFile:
    def test_top_level_is_the_running_window_of_the_first_length(self):
        later, short, stale = (target(*BOTH, start_s=START_S + 900), target(*BOTH, start_s=START_S + 300, duration_s=300),
                               target(*BOTH, start_s=START_S + 1800, deadline_ns=NOW_NS - 1))
        d = quotes_file((later, target(*BOTH[:1]), short, stale), 900, WALL_S, NOW_NS)
        assert d["market"] == SLUG and len(d["quotes"]["CALL"]) == 1 and not d["quotes"]["PUT"]
        assert set(d["windows"]) == {SLUG, f"btc-updown-15m-{START_S + 900}", f"btc-updown-5m-{START_S + 300}"}, "every live target, and no other"
        assert "windows" not in d["windows"][SLUG] and len(d["windows"][f"btc-updown-5m-{START_S + 300}"]["quotes"]["CALL"]) == 2
        assert quotes_file((later, short), 300, WALL_S, NOW_NS)["market"] == f"btc-updown-5m-{START_S + 300}"

    def test_a_dead_core_leaves_no_quotes(self):
        d = quotes_file((target(*BOTH),), 900, WALL_S + 2, NOW_NS + 2 * SECOND)
        assert d["quotes"] == {"CALL": [], "PUT": []} and d["windows"] == {} and "expired" in d["gates"]
        assert d["timestamp"] == round((WALL_S + 2) * 1000), "the writer lives and says so"

    def test_only_last_rounds_targets(self):
        d = quotes_file((target(*BOTH, start_s=START_S - 900),), 900, WALL_S, NOW_NS)
        assert (d["market"], d["gates"], d["windows"], d["time_to_expiry_seconds"]) == (SLUG, ["no_target"], {}, 542.0)

    def test_running_window(self):
        assert running_window(900, START_S + 899.999) == r.market_id(START_S, 900) and running_window(900, START_S + 900) == r.market_id(START_S + 900, 900)


class TestStatus:
    def test_a_group_at_work(self):
        desk = Desk().window().window(START_S + 900, state=r.MS_ANNOUNCED).hold(40_000_000, 20_000_000, 18_000_000, 9_000_000)
        d = desk.status(target(*BOTH, strategy=r.STRATEGIES.index("tiered")), target(start_s=START_S + 900, gates=("not_open",)))
        assert (d["quoting"], d["why_not"], d["quotes"], d["gates"], d["halts"], d["guard_reasons"]) == (True, None, 3, [], [], [])
        assert (d["market"], d["phase"], d["regime"], d["strategy"], d["fair"], d["sigma_per_sqrt_s"]) == (SLUG, "mid", "mean_reverting", "tiered", 0.44, 1e-4)
        assert (d["cash_usd"], d["realized_usd"], d["orders"], d["decisions"], d["params_version"]) == (970.5, 1.25, 12, 7, "000000000abc")
        assert d["marked_pnl_usd"] == pytest.approx(1.25 + 40 * 0.45 + 20 * 0.55 - 27)
        now, later = d["windows"]
        assert (now["shares_up"], now["shares_down"], now["cost_up_usd"], now["cost_down_usd"]) == (40.0, 20.0, 18.0, 9.0)
        assert (later["market"], later["state"], later["quotes"], later["gates"]) == (f"btc-updown-15m-{START_S + 900}", "announced", 0, ["not_open"])
        json.dumps(d, allow_nan=False)

    def test_a_resolved_window_is_marked_by_its_outcome_only(self):
        d = Desk().window(START_S - 900, state=r.MS_RESOLVED, outcome=r.UP).hold(40_000_000, 0, 18_000_000, 0, START_S - 900).status()
        assert d["windows"][0]["outcome"] == "CALL" and d["marked_pnl_usd"] == 1.25, "what it paid is realised already"

    @pytest.mark.parametrize("change, why", [
        (lambda d: d.guard.__setitem__("t_update_ns", NOW_NS - 2 * SECOND), "guardian: silent"),
        (lambda d: (d.guard.__setitem__("quoting_allowed", 0), d.guard.__setitem__("reasons", r.GUARD_BIT["core"])), "guardian: core"),
        (lambda d: d.account.__setitem__("state", r.AS_RECONCILING), "account is reconciling"),
        (lambda d: d.account.__setitem__("halts", r.HALT_BIT["loss"]), "executor: loss"),
        (lambda d: d.account.__setitem__("t_update_ns", NOW_NS - 2 * SECOND), "executor is silent"),
    ])
    def test_why_nothing_is_quoted(self, change, why):
        desk = Desk().window()
        change(desk)
        d = desk.status(target(*BOTH))
        assert d["quoting"] is False and d["why_not"] == why

    def test_a_silent_core(self):
        d = Desk().window().status(target(*BOTH, deadline_ns=NOW_NS - 1))
        assert (d["quoting"], d["why_not"], d["quotes"], d["gates"]) == (False, "core is silent", 0, ["expired"])

    def test_a_dry_run_quotes_and_sends_nothing(self):
        desk = Desk().window()
        desk.account["halts"] = r.HALT_BIT["dry_run"]
        d = desk.status(target(*BOTH), dry_run=True)
        assert (d["dry_run"], d["quoting"], d["why_not"], d["quotes"]) == (True, False, "dry run: quotes are made, no order is sent", 3)
        assert desk.status(target(gates=("cutoff",)), dry_run=True)["why_not"] == "no quotes wanted: cutoff"

    def test_before_anything_was_written(self):
        d = status_document((), None, None, None, 900, WALL_S, NOW_NS, False)
        assert (d["quoting"], d["cash_usd"], d["orders"], d["windows"], d["decisions"], d["account_state"]) == (False, None, None, [], 0, "boot")
        assert set(d) == set(Desk().window().status(target(*BOTH)))


def test_the_settler_of_a_dry_run_settles_nothing(tmp_path, monkeypatch):
    built = []
    monkeypatch.setattr(settler, "build", lambda actor: built.append(actor) or 1 / 0)

    async def life(dry_run):
        cfg = config.load("paper", run__dir=str(tmp_path), execution__dry_run=dry_run)
        actor = SimpleNamespace(cfg=cfg, stopped=asyncio.Event(), error=lambda *words: built.append(words))
        actor.stopped.set()
        await settler.main(actor)
    asyncio.run(life(True))
    assert built == []
    with pytest.raises(ZeroDivisionError):
        asyncio.run(life(False))
    assert len(built) == 1


class Reader:
    """A seqlock reader of records that are there already."""

    def __init__(self, *records):
        self.records, self.rec = records, [None]

    def read(self, index=0):
        found = self.records[index] if index < len(self.records) else None
        self.rec[0] = found
        return 0 if found is None else 2


class TestProcess:
    @pytest.fixture
    def actor(self, tmp_path):
        desk, told = Desk().window(), []
        fresh = target(*BOTH, start_s=START_S, deadline_ns=mono_ns() + 60 * SECOND)
        desk.account["t_update_ns"] = desk.guard["t_update_ns"] = mono_ns()
        readers = {"targets": Reader(None, fresh), "markets": Reader(desk.markets), "account": Reader(desk.account), "guard": Reader(desk.guard)}
        return SimpleNamespace(cfg=config.load("paper", output__dir=str(tmp_path / "a" / "b")), seqlock_readers=readers, told=told,
                               clock=SimpleNamespace(now_s=lambda: WALL_S), error=lambda *words: told.append(words))

    def files(self, actor):
        return [json.loads((actor.cfg.output.path / name).read_text()) for name in ("mm_quotes.json", "mm_status.json")]

    def test_both_files_and_the_last_version_without_quotes(self, actor):
        output = Output(actor)
        output.write()
        quotes, status = self.files(actor)
        assert len(quotes["quotes"]["CALL"]) == 2 and SLUG in quotes["windows"] and status["quoting"] is True and status["dry_run"] is False
        output.write(stopped=True)
        quotes, status = self.files(actor)
        assert quotes["quotes"] == {"CALL": [], "PUT": []} and quotes["windows"] == {} and quotes["gates"] == ["stopped"]
        assert (status["quoting"], status["why_not"], status["quotes"]) == (False, "output is stopped", 0)
        assert sorted(p.name for p in actor.cfg.output.path.iterdir()) == ["mm_quotes.json", "mm_status.json"], "nothing else is left lying there"

    def test_a_file_that_cannot_be_written_is_said_and_the_work_goes_on(self, actor):
        output = Output(actor)
        (actor.cfg.output.path / ".mm_quotes.json.part").mkdir()
        output.write()
        assert [code for code, _ in actor.told] == ["unwritten"] and "mm_quotes.json" in actor.told[0][1]
        (actor.cfg.output.path / ".mm_quotes.json.part").rmdir()
        output.write()
        assert len(actor.told) == 1 and self.files(actor)[0]["market"] == SLUG

    def test_a_directory_that_cannot_be_made_is_one_clear_error_before_the_start(self, tmp_path):
        (tmp_path / "file").write_text("")
        cfg = config.load("paper", run__dir=str(tmp_path), output__dir=str(tmp_path / "file"))
        with pytest.raises(UserError, match="output.dir .*file: .*set it to a directory"):
            Instance(cfg).prepare()

    def test_a_reader_never_sees_half_a_document(self, tmp_path, monkeypatch):
        path = tmp_path / "x.json"
        recommendations.write(path, {"n": 1})

        def power_cut(*_args):
            raise OSError("cut")
        monkeypatch.setattr(recommendations.os, "replace", power_cut)
        with pytest.raises(OSError):
            recommendations.write(path, {"n": 2})
        assert json.loads(path.read_text()) == {"n": 1}
