"""Calibration on days whose truth is known: scores, replay, fits, the page; and on the recorded day when its folder is given (MMBOT_CAPTURES)."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import optimize, stats
from typer.testing import CliRunner

from mmbot.calibration import fit, fitfile, judge, recordings, replay, rules, scores, study
from mmbot.cli.main import app
from mmbot.config_strategy import Strategy
from mmbot.errors import UserError
from mmbot.signals import average, fair_value

FOLDER = Path(os.environ.get("MMBOT_CAPTURES") or "/nonexistent")
recorded = pytest.mark.skipif(not (FOLDER / recordings.PRINTS).is_file(), reason="no recordings: set MMBOT_CAPTURES to the folder with polymarket/ and spot/")
T0 = 1_780_876_800
SIGMA = 9e-5


def generated_day(hours=8, seed=1, hole=()) -> recordings.Day:
    """Prints of a driftless Brownian path, a second apart, 1.3 s late."""
    n = hours * 3600
    second = np.array([s for s in range(n) if s not in hole])
    ln = math.log(63_000.0) + np.random.default_rng(seed).normal(0, SIGMA, n).cumsum()
    return recordings.Day.of((T0 + second) * 1000, (T0 + second) * 1000 + 1300, np.exp(ln[second]))


class TestScores:
    def test_known_answers(self):
        p, y = np.array([0.9, 0.2, 0.5]), np.array([True, False, True])
        assert scores.brier(p, y) == pytest.approx([0.01, 0.04, 0.25])
        assert scores.log_loss(p, y) == pytest.approx([-math.log(0.9), -math.log(0.8), math.log(2)])
        assert scores.log_loss(np.array([0.0]), np.array([True]))[0] == pytest.approx(-math.log(0.001)), "bounded as the core's fair value is"
        assert scores.sharpness(np.array([0.0, 1.0])) == pytest.approx(0.499)

    @pytest.mark.parametrize("scale, slope", [(1.0, 1.0), (2.0, 0.5), (0.5, 2.0)])
    def test_the_slope_tells_how_much_too_sure(self, scale, slope):
        rng = np.random.default_rng(7)
        z = rng.normal(0, 1.2, 30_000)
        y = rng.random(30_000) < 1 / (1 + np.exp(-z))
        intercept, found = scores.reliability(1 / (1 + np.exp(-scale * z)), y, np.arange(30_000) // 300)
        assert found.value == pytest.approx(slope, rel=0.06) and abs(intercept.value) < 0.06
        assert found.low < slope < found.high and found.high - found.low < 0.2 * slope

    def test_the_logistic_regression_is_the_optimisers(self):
        rng = np.random.default_rng(8)
        z, y = rng.normal(0, 1, 400), (rng.random(400) < 0.4).astype(float)
        ours = scores.logistic(z, y, np.ones((400, 1)))[:, 0]
        theirs = optimize.minimize(lambda b: np.sum(np.log1p(np.exp(b[0] + b[1] * z)) - y * (b[0] + b[1] * z)) + 5e-4 * (b[0] ** 2 + (b[1] - 1) ** 2), [0, 1], tol=1e-12).x
        assert ours == pytest.approx(theirs, abs=1e-5)

    def test_an_interval_covers_the_mean_as_often_as_it_says(self):
        covered = 0
        for seed in range(200):
            x = np.random.default_rng(seed).normal(0, 1, 60)
            e = scores.mean(np.repeat(x, 5), np.repeat(np.arange(60), 5))
            covered += e.low <= 0 <= e.high
        assert 180 <= covered <= 198

    def test_rows_of_one_window_are_one_piece_of_evidence(self):
        x = np.random.default_rng(3).normal(0, 1, 40)
        one, many = scores.mean(x, np.arange(40)), scores.mean(np.repeat(x, 50), np.repeat(np.arange(40), 50))
        assert many.high - many.low == pytest.approx(one.high - one.low, rel=1e-9)

    def test_a_diagram_of_a_calibrated_forecaster_is_the_diagonal(self):
        rng = np.random.default_rng(5)
        p = rng.random(50_000)
        for said, came, rows in scores.diagram(p, rng.random(50_000) < p, np.arange(50_000) // 50):
            assert came.low - 0.01 < said < came.high + 0.01 and rows > 4000


class TestReplay:
    def test_an_answer_is_the_compiled_pricers_own(self):
        day, strategy = generated_day(1), judge.changed(Strategy(), model={"tail_dof": 0, "twap_noise": 0.0})
        asks, _ = judge.ask(np.array([T0 + 900]), 900, np.array([20.0]), np.array([11.05]), np.array([11.05]))
        answer = replay.run(day.events, asks, judge.parameters(strategy))[0]
        now = T0 + 1800 - 20
        seen = day.ln[:now - 1 - T0]                    # prints stamped up to 1.3 s ago
        assert answer["ln_level"] == pytest.approx(seen[-1], abs=1e-12) and answer["age_s"] == pytest.approx(2.0)
        known = day.ln[1800 - 63 + 1:len(seen)]         # the seconds of the closing average that have arrived
        mean = (known.sum() + (60 - len(known)) * seen[-1]) / 60
        tau = 1800 - 3 - (len(seen) - 1)
        expected = fair_value.p_not_negative(mean - 11.05, answer["var_s"] * tau ** 3 / (3 * 3600))
        assert answer["p"][0] == pytest.approx(expected, abs=1e-9)

    def test_nothing_of_the_future_is_seen(self):
        day, later = generated_day(2, seed=1), generated_day(2, seed=2)
        at = 3600
        mixed = np.concatenate([day.events[:at], later.events[at:]])
        asks, _ = judge.ask(np.array([T0 + 1800, T0 + 2700]), 900, np.arange(5.0, 900.0, 50.0), np.full(2, 11.05), np.full(2, 11.05))
        early = asks["wall_ms"] < day.events["recv_ms"][at - 1]
        a, b = (replay.run(e, asks, judge.parameters(Strategy())) for e in (day.events, mixed))
        assert np.array_equal(a[early], b[early]) and early.sum() > 10 and not np.array_equal(a, b) or early.all()

    def test_same_bits_and_parameters_untouched(self):
        day, params = generated_day(1), judge.parameters(Strategy())
        asks, _ = judge.ask(np.array([T0 + 900]), 900, judge.taus(900, 10.0), np.array([11.05]), np.array([11.05]))
        before = params.tobytes()
        assert replay.run(day.events, asks, params).tobytes() == replay.run(day.events, asks, params).tobytes() and params.tobytes() == before

    def test_disorder_is_refused(self):
        day = generated_day(1)
        asks, _ = judge.ask(np.array([T0 + 900]), 900, np.array([5.0, 10.0]), np.array([11.0]), np.array([11.0]))
        with pytest.raises(ValueError, match="in order"):
            replay.run(day.events, asks[::-1], judge.parameters(Strategy()))

    def test_window_means_are_the_cores_average(self):
        day = generated_day(1)
        avg = np.zeros(1, average.AVG)
        for s in range(1000):
            average.push(avg[0], T0 + s, day.ln[s])
        assert day.mean(np.array([T0 + 990]), 60, 3, 0)[0][0] == pytest.approx(average.known_part(avg[0], T0 + 927, T0 + 987, 0.0)[1], abs=1e-10)


class TestJudge:
    def test_on_a_brownian_day_the_pricer_of_the_rule_is_calibrated_and_the_plain_formula_is_not(self):
        strategy = judge.changed(Strategy(), half_life_var_s=3600.0, model={"tail_dof": 0, "twap_noise": 0.0})
        case = judge.day_case(generated_day(24), strategy, 300, rules.TODAY, every_s=60)
        _, slope = scores.reliability(case.p["twap"], case.up, case.block)
        assert case.windows > 1300 and 0.85 < slope.value < 1.15 and slope.low < 1 < slope.high
        late = next(g for g in judge.gains(case, "twap", "spot") if g.bucket == "0-120 s").gain
        assert late.low > 0.02

    def test_each_rule_is_priced_best_by_its_own_pricer(self):
        day = generated_day(24, seed=4)
        for rule, best, other in ((rules.TODAY, "twap", "spot"), (rules.SPOT, "spot", "twap")):
            case = judge.day_case(day, Strategy(), 300, rule)
            late = case.only(case.tau_s <= 60)
            assert scores.log_loss(late.p[best], late.up).mean() < scores.log_loss(late.p[other], late.up).mean()

    def test_windows_with_holes_in_their_prints_are_left_out_and_counted(self):
        whole = judge.day_case(generated_day(4), Strategy(), 300, rules.TODAY)
        torn = judge.day_case(generated_day(4, hole=range(7170, 7185)), Strategy(), 300, rules.TODAY)
        assert (whole.windows - torn.windows, torn.left_out - whole.left_out) == (2, 2)

    def test_the_blend_is_the_cores(self):
        got = judge.blended(np.array([0.8, 0.3]), np.array([0.6, 0.4]), 0.3, "logit")
        assert got[0] == fair_value.blend(0.8, 0.6, 0.3, 1) and got[1] == fair_value.blend(0.3, 0.4, 0.3, 1)

    @pytest.mark.parametrize("day, duration, rule", [("2026-08-06", 900, rules.SPOT), ("2026-08-07", 900, rules.TODAY), ("2026-08-10", 300, rules.Rule("twap", 30, 3)),
                                                     ("2026-08-14", 300, rules.TODAY), ("2026-11-29", 300, rules.TODAY)])
    def test_the_rule_of_a_date(self, day, duration, rule):
        assert rules.settlement(rules._day(day), duration) == rule


class TestStudy:
    def test_volatility_of_a_brownian_day_is_the_same_at_each_horizon_and_of_a_smoothed_one_is_not(self):
        day = generated_day(24)
        found = study.sigmas(day)
        assert [s.sigma for s in found[:6]] == pytest.approx([SIGMA] * 6, rel=0.05)
        smooth = recordings.Day(day.events, day.t0_s, np.convolve(day.ln, np.ones(4) / 4, "valid"), day.printed[3:])
        assert study.sigmas(smooth)[0].ratio < 0.65

    def test_the_lag_of_a_venue_is_found(self):
        """A venue that is 1 s ahead of the print's stamp, and prints 1.3 s late."""
        rng = np.random.default_rng(2)
        path = math.log(63_000.0) + rng.normal(0, SIGMA / math.sqrt(10), 4000).cumsum()
        ms = T0 * 1000 + np.arange(4000) * 100
        venue = np.array([(m, m, 0, math.exp(x) * 1.0005) for m, x in zip(ms, path)], replay.EVENT)
        prints = np.array([(ms[i] + 1300, ms[i], replay.CHAINLINK, math.exp(path[i - 10])) for i in range(20, 4000, 10)], replay.EVENT)
        events = np.concatenate([venue, prints])
        found = study.leads(events[np.argsort(events["recv_ms"], kind="stable")], Strategy())
        one = {x.lag_ms: x.ratio for x in found if x.ahead_ms == 1000}
        assert min(one, key=one.get) == 1000 and one[1000] < 0.5 and one[0] > 1.2 * one[1000] < one[2000] / 1.2, one

    def test_tails_are_recognised(self):
        ret = stats.t.rvs(5, size=6000, random_state=1) * 1e-3
        found = {t.dof: t.loss for t in study.tails(ret, 86_400.0, 864_000.0, 0.0)}
        assert found[5] < found[0] and found[5] < found[30] and min(found, key=found.get) in (4, 5, 6, 8)


class TestFit:
    X = np.column_stack([np.ones(300), np.random.default_rng(1).normal(0, [1e-4, 3e-4, 1e-5, 1e-6], (300, 4)) + [0, 1e-4, 0, 5e-5]])
    Y = X @ [0.2, 500.0, 1200.0, -300.0, 4000.0] + np.random.default_rng(2).normal(0, 0.3, 300)
    W = np.random.default_rng(3).random(300) + 0.1

    def test_the_normal_equations_are_numpys_least_squares(self):
        root = np.sqrt(self.W)
        theirs = np.linalg.lstsq(self.X * root[:, None], self.Y * root, rcond=None)[0]
        assert fit.least_squares(self.X, self.Y, self.W, 0.0) == pytest.approx(theirs, rel=1e-6)

    def test_with_one_feature_they_are_sqls(self):
        duckdb = pytest.importorskip("duckdb")
        x, y = self.X[:, 2], self.Y
        pairs = pa.table({"x": x, "y": y})      # noqa: F841  read by the query
        theirs = duckdb.sql("SELECT regr_intercept(y, x), regr_slope(y, x) FROM pairs").fetchall()[0]
        assert fit.least_squares(self.X[:, [0, 2]], y, np.ones(300), 0.0) == pytest.approx(theirs, rel=1e-8)

    def test_ridge_shrinks_slopes_and_not_the_level(self):
        free, shrunk = (fit.least_squares(self.X, self.Y, self.W, ridge) for ridge in (0.0, 1e6))
        assert np.abs(shrunk[1:]).max() < 1e-3 * np.abs(free[1:]).min()
        assert (self.X @ shrunk).mean() == pytest.approx(np.average(self.Y, weights=self.W), abs=1e-3)

    def test_the_logistic_fit_is_the_optimisers(self):
        up = (np.random.default_rng(4).random(300) < 1 / (1 + np.exp(-self.Y))).astype(float)
        z = (self.X - self.X.mean(0)) / np.where(self.X.std(0) > 0, self.X.std(0), 1)
        z[:, 0] = 1.0
        theirs = optimize.minimize(lambda b: np.sum(np.log1p(np.exp(z @ b)) - up * (z @ b)), np.zeros(5), tol=1e-10).x
        ours = fit.logistic(self.X, up, np.ones(300), 0.0)
        assert self.X @ ours == pytest.approx(z @ theirs, abs=2e-3)

    def test_market_and_spot_are_joined_within_250_ms(self):
        rows, at, dt = fit.align(np.array([1000, 2000, 3000, 9000]), np.array([900, 1760, 2251, 3250]))
        assert rows.tolist() == [0, 1, 2] and at.tolist() == [0, 1, 3] and dt.tolist() == [100, 240, -250]

    def test_clamp_and_weights(self):
        assert scores.logit(np.array([0.0, 1.0])) == pytest.approx([-math.log(999), math.log(999)])
        w = fit.market_weights(np.array([0.0, 0.01, 0.1]))
        assert w[0] / w[1] == pytest.approx(2.0) and w[0] / w[2] == pytest.approx(101.0)

    def test_features_are_those_of_the_path(self):
        day = generated_day(1)
        asks, _ = judge.ask(np.array([T0 + 900]), 900, np.array([400.0]), np.array([day.ln[900]]), np.array([day.ln[900]]))
        row = fit.features(day.events, asks, judge.parameters(Strategy()))[0]
        at = 1400 - 2                                   # the newest print that has arrived
        assert row["known"] and row["x"][0] == 1.0
        assert row["x"][1] == pytest.approx(day.ln[at] - day.ln[at - 60], abs=1e-12) and row["x"][2] == pytest.approx(day.ln[at] - day.ln[900], abs=1e-12)
        assert row["x"][4] == pytest.approx(SIGMA, rel=0.3) and abs(row["x"][3]) < 20 * SIGMA

    def test_a_file_of_fits_keeps_its_identity(self, tmp_path):
        made = fit.described(fit.day_rows(generated_day(3), Strategy(), 300, rules.TODAY), np.arange(5.0), "outcome", 300, Strategy())
        path = tmp_path / "fit.json"
        path.write_text(fitfile.dump({"outcome_5m": made}))
        beta, fit_id = fitfile.read(path, "outcome_5m")
        assert beta == (0.0, 1.0, 2.0, 3.0, 4.0) and 0 < fit_id < 1 << 48
        assert Strategy(reversion={"beta": beta, "fit_id": fit_id}).reversion.fit_id == fit_id
        data = json.loads(path.read_text())
        data["fits"]["outcome_5m"]["beta"][1] = 1.5
        for text, what in ((json.dumps(data), "was changed"), ("{", "no JSON"), ('{"format": 9}', "format 1")):
            path.write_text(text)
            with pytest.raises(UserError, match=what):
                fitfile.read(path, "outcome_5m")
        path.write_text(fitfile.dump({"outcome_5m": made}))
        with pytest.raises(UserError, match="it has outcome_5m"):
            fitfile.read(path, "market_5m")
        with pytest.raises(UserError, match="cannot be read"):
            fitfile.read(tmp_path / "none.json", "market_5m")


def write_day(root: Path, day: recordings.Day) -> None:
    """A folder as `mmbot calibrate` wants it, from a generated day."""
    (root / "polymarket").mkdir(parents=True)
    e = day.events
    pq.write_table(pa.table({"feed_ts_ms": e["obs_ms"], "recv_ms": e["recv_ms"], "value": e["px"]}), root / recordings.PRINTS)
    start = np.arange(T0 + 300, T0 + len(day.ln) - 300, 300)
    up = day.tick(start + 300)[0] >= day.tick(start)[0]
    pq.write_table(pa.table({"start_sec": start, "winner": np.where(up, "UP", "DOWN")}), root / recordings.WINDOWS)


class TestCommand:
    def run(self, *args):
        return CliRunner().invoke(app, ["calibrate", *map(str, args)])

    def test_a_report_and_a_fit_of_a_generated_day(self, tmp_path):
        write_day(tmp_path / "data", generated_day(6))
        done = self.run("--data", tmp_path / "data", "--out", tmp_path / "r.html", "--fit", tmp_path / "f.json")
        assert done.exit_code == 0, done.output
        text = (tmp_path / "r.html").read_text()
        assert text.count("<h2>") >= 8 and "Not there, so not judged" in text and "<script src=" not in text and "NaN<" not in text
        assert fitfile.read(tmp_path / "f.json", "outcome_15m")[1] > 0
        rows = pq.read_table(tmp_path / "f.rows.parquet")
        assert {"pm_ts_ms", "spot_ts_ms", "dt_ms", "ret_window"} <= set(rows.column_names) and rows.num_rows > 1000
        assert not list(tmp_path.glob(".*.part"))

    def test_what_is_missing_is_named(self, tmp_path, monkeypatch):
        monkeypatch.delenv(recordings.VARIABLE, raising=False)
        for args, what in (((), "set MMBOT_DATA"), (("--data", tmp_path / "no"), "does not exist"), (("--data", tmp_path), recordings.PRINTS),
                           (("--data", tmp_path, "--out", tmp_path / "no" / "r.html"), "make it first")):
            done = self.run(*args)
            assert isinstance(done.exception, UserError) and what in str(done.exception), args
        assert not (tmp_path / "calibration.html").exists()

    def test_a_torn_recording_is_named(self, tmp_path):
        write_day(tmp_path, generated_day(1))
        whole = (tmp_path / recordings.PRINTS).read_bytes()
        (tmp_path / recordings.PRINTS).write_bytes(whole[:len(whole) // 2])
        done = self.run("--data", tmp_path, "--out", tmp_path / "r.html")
        assert isinstance(done.exception, UserError) and "chainlink" in str(done.exception) and not (tmp_path / "r.html").exists()


@pytest.fixture(scope="module")
def day():
    return recordings.chainlink_day(FOLDER)


@recorded
class TestRecorded:
    """The defaults on the real day, 2026-06-08."""

    def test_the_venues_winners_are_those_of_the_prints(self, day):
        case = judge.day_case(day, Strategy(), 300, rules.SPOT, won=recordings.winners(FOLDER))
        assert case.notes == ["outcomes are the venue's; ours by the prints agree on 278 of 278"]

    @pytest.mark.parametrize("duration_s", [300, 900])
    def test_what_settles_is_priced_better_than_by_the_plain_formulas(self, day, duration_s):
        case = judge.day_case(day, Strategy(), duration_s, rules.TODAY, step_s=duration_s / 60, every_s=60)
        for over in ("spot", "document 1"):
            for g in judge.gains(case, "twap", over):
                assert g.gain.value > -1e-3, (over, g)
                assert g.bucket != "0-120 s" or g.gain.low > 0, (over, g)
        _, slope = scores.reliability(case.p["twap"], case.up, case.block)
        assert 0.9 <= slope.value <= 1.1 and slope.low < 1 < slope.high

    def test_the_nowcast_beats_the_newest_print(self):
        found = study.leads(recordings.feeds(FOLDER), Strategy(), (Strategy().model.print_lag_ms,))
        assert [x.ratio < 0.9 for x in found] == [True] * len(found) and next(x.ratio for x in found if x.ahead_ms == 1000) < 0.72

    def test_short_returns_understate_volatility(self, day):
        by = {s.horizon_s: s.ratio for s in study.sigmas(day)}
        assert by[1] < 0.75 and 0.9 < by[10] < 1.1
