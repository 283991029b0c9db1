"""What a person sees of the settler and can say to it: the status line, `mmbot merges`, the doctor."""

import json
import sys

import numpy as np
import pytest

from mmbot import config
from mmbot.cli import main, render
from mmbot.execution.credentials import credentials
from mmbot.ops import compare, flatten
from mmbot.ops.doctor_venue import settlement_finding
from mmbot.ops.picture import SettlementView
from mmbot.ops.view import settlement_step
from mmbot.settlement.journal import FILE, PAUSE_FILE, Held, Op, SettlementJournal, taken_u6
from mmbot.settlement.publisher import Totals, fill, fill_totals
from shm_layout import records as r

U = 1_000_000
KEY = "0x" + "11" * 32


def op(number, state, **changes):
    return Op(**{"number": number, "kind": r.SK_MERGE, "market_id": 1775028600015, "up_u6": 40 * U, "down_u6": 40 * U, "payout_u6": 40 * U,
                 "cost_u6": 39 * U, "state": state, "wall_ms": 1_775_028_700_000, **changes})


def seen(*ops, first=True):
    """The view after a settler's start and these steps."""
    rec, totals, at = np.zeros(1, r.SETTLEMENT), Totals(), (SettlementView(), {})
    if first:
        fill_totals(rec, totals, 0)
        at = settlement_step(*at, rec[0])
    for o in ops:
        fill(rec, o, totals, 0)
        at = settlement_step(*at, rec[0])
    return at[0]


def test_nothing_settled_is_no_line():
    assert render.settlement(seen()) is None and render.settlement(SettlementView(paused=True)) is not None


def test_what_was_settled_what_is_under_way_and_what_failed():
    view = seen(op(1, r.SS_CONFIRMED), op(2, r.SS_FAILED, reason="reverted"), op(3, r.SS_SUBMITTED, kind=r.SK_REDEEM, outcome=r.UP, payout_u6=60 * U))
    assert (view.merges, view.merged, view.failed, view.under_way, view.last_failure) == (1, 40.0, 1, "redemption of 60.00", "merge of 40.00: reverted")
    line = render.settlement(view).plain
    assert "merged 40.00 (1)" in line and "redemption of 60.00 under way" in line and "1 failed, last merge of 40.00: reverted" in line
    after = seen(op(3, r.SS_SUBMITTED), op(3, r.SS_CONFIRMED))
    assert after.under_way == "" and after.merged == 40.0


@pytest.fixture
def mmbot(tmp_path, monkeypatch, capsys):
    def call(*args):
        for key, value in {"RUN__NAME": "mergescli", "RUN__DIR": str(tmp_path)}.items():
            monkeypatch.setenv(f"MMBOT_{key}", value)
        monkeypatch.setattr(sys, "argv", ["mmbot", *args])
        try:
            main.run()
            code = 0
        except SystemExit as e:
            code = e.code or 0
        return code, *capsys.readouterr()
    return call


def test_merges_are_paused_and_resumed(mmbot, tmp_path, monkeypatch):
    flag = tmp_path / "mergescli" / PAUSE_FILE
    assert mmbot("merges", "pause")[:2] == (0, "merges are paused\n") and flag.exists() and mmbot("merges", "pause")[0] == 0
    assert mmbot("merges", "resume")[:2] == (0, "merges go on\n") and not flag.exists() and mmbot("merges", "resume")[0] == 0
    monkeypatch.setenv("MMBOT_SETTLEMENT__PAUSE_MERGES", "true")
    assert "stay paused" in mmbot("merges", "resume")[1]


def test_operations_are_shown(mmbot, tmp_path):
    assert mmbot("merges", "show")[1] == "nothing was settled yet\n"
    journal = SettlementJournal(tmp_path / "mergescli" / FILE)
    for o in (op(1, r.SS_CONFIRMED, tx="0xab"), op(2, r.SS_FAILED, reason="reverted"), op(3, r.SS_SUBMITTED)):
        journal.op(o)
    journal.close()
    out = mmbot("merges", "show")[1]
    assert "+1.00" in out and "failed reverted" in out and "under way" in out and "15m 07:30–07:45" in out
    document = json.loads(mmbot("merges", "show", "--json", "--last", "2")[1])
    assert [o["number"] for o in document["operations"]] == [2, 3] and "body" not in document["operations"][0], "what was signed is nobody's business"


@pytest.mark.parametrize(("overrides", "level", "says"), [
    ({}, "ok", "its own transactions"), ({"settlement__enabled": False}, "warn", "switched off"), ({"venue__rpc_url": ""}, "fail", "venue.rpc_url"),
    ({"account__signature_type": 3, "account__funder": "0x" + "12" * 20}, "fail", "RELAYER_KEY"),
    ({"account__signature_type": 3, "account__funder": "0x" + "12" * 20, "account__relayer_key": "k"}, "ok", "the relayer"),
    ({"account__signature_type": 3, "account__funder": "0x" + "12" * 20, "account__builder_key": "k"}, "fail", "BUILDER"),
    ({"account__signature_type": 3, "account__funder": "0x" + "12" * 20, "account__relayer_key": "k", "venue__relayer_url": ""}, "fail", "venue.relayer_url")])
def test_the_doctor_says_whether_anything_can_be_settled(overrides, level, says):
    cfg = config.load("live", **{"account__private_key": KEY, "account__signature_type": 0, **overrides})
    found = settlement_finding(cfg, credentials(cfg, need_api=False))
    assert found.level == level and says in found.detail + found.fix


# ---- commands that know trades only ----

def test_shares_that_were_settled_are_in_no_trade(tmp_path):
    path = tmp_path / FILE
    journal = SettlementJournal(path)
    journal.window(Held(1775028600015, "0x5a", ("1", "2"), 1, False))
    for o in (op(1, r.SS_CONFIRMED), op(2, r.SS_CONFIRMED, up_u6=5, down_u6=5), op(3, r.SS_FAILED), op(4, r.SS_SUBMITTED, payout_u6=7),
              op(5, r.SS_CONFIRMED, kind=r.SK_REDEEM, up_u6=0, down_u6=9, outcome=r.DOWN), op(6, r.SS_CONFIRMED, market_id=99)):
        journal.op(o)
    journal.window(Held(1775028600015, "0x5a", ("1", "2"), 1, False, done=True))
    journal.close()
    assert taken_u6(path, r.SK_MERGE) == ({"1": 40 * U + 5, "2": 40 * U + 5}, {7})
    assert taken_u6(path, r.SK_MERGE, r.SK_REDEEM)[0] == {"1": 40 * U + 5, "2": 40 * U + 14} and taken_u6(tmp_path / "none") == ({}, set())
    h = flatten.Held("0x5a", "1", "Up", 50 * U, 25 * U)
    assert h.take(40 * U) and (h.shares_u6, h.cost_u6) == (10 * U, 5 * U) and not h.take(10 * U)


def test_reconcile_counts_merges_once():
    ours = compare.Ours(tokens={"1": ("w", "Up")}, shares={"1": 10 * U}, cash_u6=100, merged={"1": 30 * U}, coming={40})
    held = [flatten.Held("0x5a", "1", "Up", 40 * U)]
    assert compare.differences(ours, compare.Theirs([], held, 100)) == [] == compare.differences(ours, compare.Theirs([], held, 140))
    ours.merged = {}
    assert [d.what for d in compare.differences(ours, compare.Theirs([], held, 120))] == ["shares of w Up", "cash"]
