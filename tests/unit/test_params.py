"""Hot parameters: judged as a whole, taken over at one instant, never two versions in a decision, on a trail, and back again."""

import json
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from mmbot.cli.main import app
from mmbot.clock import mono_ns
from mmbot.config import Strategy
from mmbot.errors import UserError
from mmbot.ops import fits
from mmbot.ops.params import Parameters, Trail, changed, differing, parsed, version_of
from mmbot.params import fault, params_block, version_name
from params_world import Desk, quote_sizes
from shm_layout import records as r
from shm_layout.segment import SegmentError
from shm_layout.seqlock import SeqlockReader, SeqlockWriter


@pytest.fixture
def desk(tmp_path):
    made = Desk(tmp_path)
    made.start()
    yield made
    made.clean_up()


def applied(desk):
    reader = SeqlockReader(desk.space.attach("params"))
    assert reader.read() > 0
    return reader.rec[0].copy()


class TestTable:
    @pytest.mark.parametrize("text, found", [
        ("levels=3", ("levels", 3)), ("strategy.levels = 3", ("levels", 3)), ("tiered.base_spread=0.03", ("tiered.base_spread", 0.03)),
        ("strategy=tiered", ("strategy", "tiered")), ("completion.enabled=true", ("completion.enabled", True)),
        ("tiered.tier_spread=[0.01, 0.02, 0.03, 0.04]", ("tiered.tier_spread", [0.01, 0.02, 0.03, 0.04])), ("for_5m.levels=", ("for_5m.levels", None)),
    ])
    def test_an_assignment_is_read_as_toml(self, text, found):
        assert parsed(text) == found

    @pytest.mark.parametrize("text, names", [
        ("levls=3", ["'levls'", "'levels'"]), ("tiered.base_sprea=0.03", ["tiered.base_sprea", "'tiered.base_spread'"]),
        ("tierd.base_spread=0.03", ["'tierd'", "'tiered'"]), ("levels=9", ["levels", "less than or equal to 4", "9"]), ("levels=", ["levels", "no value"]),
        ("levels.x=3", ["levels.x", "not a table"]), ("for_5m.levls=3", ["for_5m.levls", "for_5m.levels"]), ("tiered.min_spread=0.5", ["min_spread", "base_spread"]),
        ("for_15m.stale_oracle_ns=3", ["for_15m.stale_oracle_ns cannot differ"]), ("strategy=pears", ["strategy", "'pears'"]), ("capital.mm_part=1", ["mm_part"]),
    ])
    def test_what_cannot_be_is_named_and_refused(self, text, names):
        with pytest.raises(UserError) as e:
            changed(Strategy(), [parsed(text)])
        for name in names:
            assert name in str(e.value)

    def test_no_equals_sign(self):
        with pytest.raises(UserError, match="not KEY=VALUE"):
            parsed("levels")

    def test_changes_are_judged_together(self):
        new = changed(Strategy(), [("tiered.min_spread", 0.03), ("tiered.base_spread", 0.05)])
        assert differing(Strategy(), new) == {"tiered.base_spread": (0.02, 0.05), "tiered.min_spread": (0.01, 0.03)}

    def test_an_override_comes_and_goes(self):
        new = changed(Strategy(), [("for_5m.tiered.base_spread", 0.05)])
        assert (new.of(900).tiered.base_spread, new.of(300).tiered.base_spread) == (0.02, 0.05)
        assert changed(new, [("for_5m.tiered.base_spread", None)]).of(300).tiered.base_spread == 0.02

    def test_a_table_survives_the_trail(self):
        strategy = changed(Strategy(), [("for_5m.levels", 1), ("strategy", "tiered"), ("var_ref", 3.3e-8)])
        again = Strategy.model_validate(json.loads(json.dumps(strategy.model_dump(mode="json"))))
        assert version_of(again) == version_of(strategy) != version_of(Strategy())


class TestBlock:
    def test_a_block_that_is_not_its_version_is_refused(self):
        block = params_block(Strategy(), 1)
        assert not fault(block)
        block["of"]["levels"][0, 1] = 3
        assert version_name(block["version"][0]) in fault(block)
        assert fault(np.zeros(1, r.PARAMS_BLOCK))

    def test_a_code_of_nothing_is_refused(self):
        from mmbot.params import checksum
        block = params_block(Strategy(), 1)
        block["of"]["strategy"] = len(r.STRATEGIES)
        block["version"] = checksum(block)
        assert "strategy" in fault(block)


class TestHot:
    def test_a_set_is_in_use_at_once_and_on_the_trail(self, desk):
        desk.feed()
        desk.turn(8)
        assert quote_sizes(desk.target()) == [(0, 20_000_000), (1, 12_000_000)]
        p = Parameters(desk.cfg)
        with desk.spinning():
            offer = p.set([("levels", 1), ("base_size_u6", 40_000_000)])
        desk.turn(2)
        assert offer.took_ns is not None and offer.took_ns < 2e9 and offer.changed == {"levels": (2, 1), "base_size_u6": (20_000_000, 40_000_000)}
        target = desk.target()
        assert quote_sizes(target) == [(0, 40_000_000)] and version_name(target["params_version"]) == offer.version == p.running()
        assert target["cause_src"] == r.SRC_PARAMS and applied(desk)["changes"] == p.changes() == 1
        start, entry = p.trail.entries()
        assert start["what"] == "start" and start["version"] == offer.before and entry["version"] == offer.version
        assert entry["changed"] == {"levels": [2, 1], "base_size_u6": [20_000_000, 40_000_000]}
        assert entry["strategy"]["levels"] == 1 and "/" in entry["who"] and entry["when"].startswith("20")
        assert p.trail.path.stat().st_mode & 0o777 == 0o600

    def test_the_trail_is_on_disk_before_the_block_is_in_memory(self, desk, monkeypatch):
        p = Parameters(desk.cfg)
        known = []
        monkeypatch.setattr(SeqlockWriter, "write", lambda self, index=0: known.append([e["what"] for e in p.trail.entries()]) or 1)
        assert p.set([("levels", 1)], wait_s=0.01).took_ns is None
        assert known == [["start", "set"]]

    def test_a_refused_change_leaves_everything_as_it_was(self, desk):
        p = Parameters(desk.cfg)
        before = p.running()
        with pytest.raises(UserError, match="refused, nothing is changed"):
            p.set([("levels", 3), ("tiered.min_spread", 0.5)])
        desk.turn()
        assert p.running() == p.newest() == before and not p.trail.entries()

    def test_a_second_hand_is_told_to_wait(self, desk):
        segment = desk.space.own("params_next")
        try:
            with pytest.raises(UserError, match="busy: another command"):
                Parameters(desk.cfg).set([("levels", 1)])
        finally:
            segment.release()
        with pytest.raises(SegmentError):
            desk.space.own("params")

    def test_a_rollback_is_one_word(self, desk):
        p = Parameters(desk.cfg)
        with desk.spinning():
            first = p.running()
            bad = p.set([("levels", 4)]).version
            back = p.rollback()
            assert (back.version, back.before, p.running()) == (first, bad, first) and back.took_ns is not None
            assert p.rollback(bad[:6]).version == bad == p.running()
        assert [e["what"] for e in p.trail.entries()] == ["start", "set", "rollback", "rollback"]

    @pytest.mark.parametrize("version, says", [("ffff", "no version starts with 'ffff'"), (None, "oldest version")])
    def test_a_rollback_to_nowhere_names_what_there_is(self, desk, version, says):
        with pytest.raises(UserError, match=says):
            Parameters(desk.cfg).rollback(version)

    def test_setting_what_is_set_changes_nothing(self, desk):
        p = Parameters(desk.cfg)
        assert p.set([("levels", 2)]).took_ns == 0
        assert [e["what"] for e in p.trail.entries()] == ["start"]

    def test_a_core_that_does_not_run_is_named_and_takes_the_block_when_it_starts_again(self, desk):
        p = Parameters(desk.cfg)
        desk.vitals.segment.release()
        offer = p.set([("levels", 3)], wait_s=0.05)
        assert offer.took_ns is None and "core is DEAD" in offer.why and p.running() == offer.before
        assert p.set([("base_size_u6", 30_000_000)], wait_s=0.05).changed == {"base_size_u6": (20_000_000, 30_000_000)}, "built on what was accepted"
        desk.start()
        assert applied(desk)["of"]["levels"].tolist() == [3, 3] and applied(desk)["of"]["base_size_u6"][0] == 30_000_000
        assert applied(desk)["changes"] == 1 and p.running() == p.newest()

    def test_a_core_restarted_in_mid_session_does_not_go_back_to_the_file(self, desk):
        p = Parameters(desk.cfg)
        with desk.spinning():
            version = p.set([("levels", 3)]).version
        desk.start()
        assert p.running() == version and applied(desk)["changes"] == 1

    def test_a_spoilt_block_is_refused_and_the_old_one_kept(self, desk):
        writer = SeqlockWriter(desk.space.own("params_next"))
        writer.rec[:] = params_block(Strategy(levels=3), 1)
        writer.rec["of"]["levels"] = 4
        writer.write()
        before = applied(desk)["version"]
        desk.turn()
        assert desk.said == ["params_refused"] and applied(desk)["version"] == before
        desk.start()
        assert applied(desk)["version"] == before
        writer.segment.release()

    def test_a_group_that_is_not_there(self, tmp_path):
        made = Desk(tmp_path)
        made.clean_up()
        with pytest.raises(UserError, match="is not running"):
            Parameters(made.cfg).set([("levels", 1)])

    def test_a_half_written_line_is_passed_over(self, tmp_path):
        trail = Trail(tmp_path)
        trail.add("start", Strategy())
        with open(trail.path, "ab") as f:
            f.write(b'{"when": "20')
        trail.add("set", Strategy(levels=1), Strategy())
        assert [e["what"] for e in trail.entries()] == ["start", "set"]


#: Two sets of parameters that draw different quotes. No print of the oracle comes in anew, and a busy machine may need longer than one is believed.
BASE = dict(warmup_ns=0, stale_spot_scale=1, stale_oracle_ns=10**13, witness_oracle_ns=10**13)
KINDS = (BASE | dict(levels=2, base_size_u6=20_000_000), BASE | dict(levels=1, base_size_u6=40_000_000))
WRITER = f"""
import sys, time
from mmbot.config import Strategy
from mmbot.params import params_block
from shm_layout.segment import Space
from shm_layout.seqlock import SeqlockWriter
writer = SeqlockWriter(Space(sys.argv[1]).own("params_next"))
blocks = [params_block(Strategy(**kw), 0) for kw in {KINDS}]
print("ready", flush=True)
i = 0
while True:
    time.sleep(0.01)
    i += 1
    writer.rec[:] = blocks[i % 2]
    writer.write()
"""
ENOUGH_TURNS, ENOUGH_QUOTED, PATIENCE_NS = 30, 300, 60_000_000_000


def test_no_decision_mixes_two_versions_while_another_process_changes_them_every_10_ms(desk):
    sizes = ([(0, 20_000_000), (1, 12_000_000)], [(0, 40_000_000)])
    kinds = {int(params_block(Strategy(**kw), 0)["version"][0]): size for kw, size in zip(KINDS, sizes, strict=True)}
    desk.feed()
    desk.turn(8)
    end = mono_ns() + PATIENCE_NS
    decisions, tick, turns, quoted = [], 0, 0, 0
    child = subprocess.Popen([sys.executable, "-c", WRITER, desk.cfg.run.name], stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"ready\n"
        while version_name(applied(desk)["version"]) == version_of(desk.cfg.strategy) and mono_ns() < end:
            desk.turn()
        desk.taken()
        while (turns < ENOUGH_TURNS or quoted < ENOUGH_QUOTED) and mono_ns() < end:       # how many a second depends on who else needs the CPU
            tick += 1
            desk.refresh(tick % 7 - 3)
            desk.turn(2)
            for d in desk.taken():
                turns += bool(decisions) and d["params_version"] != decisions[-1]["params_version"]
                quoted += d["n_quotes"] > 0
                decisions.append(d)
        assert child.poll() is None, "the other process ended"
    finally:
        child.kill()
        child.wait()
    for d in decisions:
        if d["n_quotes"]:
            assert quote_sizes(d) == kinds[int(d["params_version"])]
    assert turns >= ENOUGH_TURNS and quoted >= ENOUGH_QUOTED, (int(turns), int(quoted), r.gate_names(int(decisions[-1]["gates"])))
    assert {int(d["params_version"]) for d in decisions} == set(kinds)
    assert applied(desk)["changes"] > turns


class TestCommands:
    def run(self, desk, *args):
        path = desk.cfg.run.path / "config.toml"
        path.write_text(f'[run]\nname = "{desk.cfg.run.name}"\ndir = "{desk.cfg.run.dir}"\n[strategy]\nwarmup_ns = 0\n')
        done = CliRunner().invoke(app, ["params", *args, "-c", str(path)], catch_exceptions=False)
        return done.exit_code, done.stdout

    def test_show_set_diff_history_rollback(self, desk):
        with desk.spinning():
            code, out = self.run(desk, "set", "for_5m.levels=1", "tiered.base_spread=0.03")
            assert code == 0 and "in use after" in out and "tiered.base_spread  0.02 → 0.03" in out
            version = Parameters(desk.cfg).running()
            code, out = self.run(desk, "show", "tiered.base")
            assert code == 0 and version in out and "* tiered.base_spread  0.03" in out and "1 changes" in out
            assert "5m 1" in self.run(desk, "show", "levels")[1]
            shown = json.loads(self.run(desk, "show", "--json")[1])
            assert shown["version"] == version and shown["windows"]["5m"]["levels"] == 1 and shown["windows"]["15m"]["levels"] == 2
            assert json.loads(self.run(desk, "diff", "--json")[1])["changed"] == {"for_5m.levels": [None, 1], "tiered.base_spread": [0.02, 0.03]}
            code, out = self.run(desk, "rollback", "--json")
            assert code == 0 and json.loads(out)["before"] == version
            code, out = self.run(desk, "history")
            assert code == 0 and [line.split()[2] for line in out.splitlines() if line[:2] == "20"] == ["start", "set", "rollback"]

    def test_a_core_that_does_not_answer_is_exit_code_1(self, desk, monkeypatch):
        monkeypatch.setattr("mmbot.ops.params.TAKEN_S", 0.05)
        desk.vitals.segment.release()
        code, out = self.run(desk, "set", "levels=1")
        assert code == 1 and "core is DEAD" in out


class TestFits:
    def test_a_fit_becomes_beta_and_its_id(self, tmp_path):
        path = tmp_path / "fit.json"
        path.write_text(json.dumps({"beta": [0.1, 1, -2, 3, 4], "n": 5}))
        new = changed(Strategy(), fits.with_fits([parsed(f"reversion.beta=@{path}"), parsed("levels=3")]))
        assert new.reversion.beta == (0.1, 1, -2, 3, 4) and 0 < new.reversion.fit_id < 1 << 48 and new.levels == 3

    @pytest.mark.parametrize("text, says", [("{}", "is no fit"), ("[1", "is no fit"), ('{"beta": [1, 2]}', "must be 5 numbers"), (None, "No such file")])
    def test_what_is_no_fit_is_named(self, tmp_path, text, says):
        path = tmp_path / "fit.json"
        if text is not None:
            path.write_text(text)
        with pytest.raises(UserError, match=says):
            fits.with_fits([("reversion.beta", f"@{path}")])

    def test_only_beta_comes_from_a_file(self):
        with pytest.raises(UserError, match="only reversion.beta"):
            fits.with_fits([("levels", "@x")])
