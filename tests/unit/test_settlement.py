"""What is merged and redeemed, when, and why not; receipts; the settlement journal."""

import numpy as np
import pytest

from mmbot.inventory import settlement as s
from mmbot.inventory.settlement import Holding, Rules, Want, cut, decide, due_ns, retry_ns, sets_u6
from mmbot.settlement import effects
from mmbot.settlement.journal import Held, Op, SettlementJournal, replay
from mmbot.settlement.publisher import Totals, condition_text, fill, offered_u6
from shm_layout import records as r

U = 1_000_000
RULES = Rules(merge_min_u6=25 * U)
SECOND = 1_000_000_000


def holding(up=40, down=60, **changes):
    """Everything confirmed, seen by the venue, bought at half a dollar."""
    sizes = (up * U, down * U)
    return Holding(**{"market_id": 1, "qty_u6": sizes, "cost_u6": (up * U // 2, down * U // 2), "confirmed_u6": sizes, "sellable_u6": sizes, **changes})


def reason(h, rules=RULES, now=0):
    want, why = decide([h], rules, now)
    assert want is None
    return why[h.market_id]


# ---- merging ----

def test_full_sets_are_merged_at_their_average_cost():
    want, why = decide([holding(40, 60)], RULES, 0)
    assert want == Want(r.SK_MERGE, 1, 40 * U, 40 * U, 40 * U, 40 * U) and not why


@pytest.mark.parametrize(("changes", "sets"), [
    ({"confirmed_u6": (30 * U, 60 * U)}, 30), ({"sellable_u6": (40 * U, 26 * U)}, 26), ({"offered_u6": (10 * U, 0)}, 30),
    ({"offered_u6": (0, 30 * U)}, 30), ({"confirmed_u6": (35 * U, 60 * U), "sellable_u6": (40 * U, 60 * U), "offered_u6": (5 * U, 0)}, 30)])
def test_no_more_than_is_confirmed_and_seen_and_not_promised(changes, sets):
    h = holding(**changes)
    assert sets_u6(h) == sets * U and decide([h], RULES, 0)[0].up_u6 == sets * U


@pytest.mark.parametrize(("h", "why"), [
    (holding(24, 60), s.SMALL), (holding(0, 60), s.NOTHING), (holding(-3, 60), s.NOTHING),
    (holding(confirmed_u6=(24 * U, 60 * U)), s.UNCONFIRMED), (holding(sellable_u6=(-1, 60 * U)), s.UNKNOWN_BALANCE),
    (holding(offered_u6=(20 * U, 0)), s.SMALL), (holding(retry_ns=5), s.WAITS), (holding(sellable_u6=(0, 0)), s.SMALL)])
def test_a_window_that_is_left_alone_says_why(h, why):
    assert reason(h) == why


def test_merges_pause_and_wait_for_the_executor():
    assert reason(holding(), RULES._replace(paused=True)) == s.PAUSED and reason(holding(), RULES._replace(ready=False)) == s.NOT_READY


def test_a_wait_after_a_failure_ends():
    assert reason(holding(retry_ns=100), now=99) == s.WAITS and decide([holding(retry_ns=100)], RULES, 100)[0]


def test_what_brings_most_comes_first():
    many = [holding(30, 30), holding(50, 50, market_id=2), Holding(3, r.UP, chain_u6=(40 * U, 0))]
    assert [decide(many[i:], RULES, 0)[0].market_id for i in (0, 2)] == [2, 3]


def test_a_merge_is_cut_to_the_chain_or_dropped():
    want, h = decide([holding(40, 60)], RULES, 0)[0], holding(40, 60, offered_u6=(0, 5 * U))
    assert cut(want, h, (30 * U, 60 * U), RULES).up_u6 == 30 * U
    assert cut(want, h, (40 * U, 31 * U), RULES) == Want(r.SK_MERGE, 1, 26 * U, 26 * U, 26 * U, 26 * U), "less what an offer has promised"
    assert cut(want, h, (24 * U, 60 * U), RULES) is None


# ---- redeeming ----

def test_a_resolved_window_pays_its_winning_shares():
    h = Holding(1, r.DOWN, (40 * U, 60 * U), (20 * U, 30 * U), chain_u6=(40 * U, 61 * U))
    assert decide([h], RULES._replace(paused=True, ready=False), 0)[0] == Want(r.SK_REDEEM, 1, 40 * U, 61 * U, 61 * U, 50 * U, r.DOWN)
    assert cut(decide([h], RULES, 0)[0], h, (40 * U, 0), RULES) is None, "gone meanwhile"


def test_any_balance_is_redeemed_and_losing_shares_are_not():
    assert decide([Holding(1, r.UP, chain_u6=(1, 0))], RULES, 0)[0].payout_u6 == 1
    assert reason(Holding(1, r.UP, chain_u6=(0, 50 * U))) == s.NOTHING and reason(Holding(1, r.UP)) == s.UNKNOWN_BALANCE


# ---- how often ----

def test_not_more_often_than_allowed():
    assert due_ns([], RULES) == 0
    assert due_ns([10 * SECOND], RULES) == 15 * SECOND
    six = [i * 6 * SECOND for i in range(6)]
    assert due_ns(six, RULES) == 60 * SECOND and due_ns(six[1:], RULES) == 35 * SECOND


def test_waits_double_and_end_growing():
    assert [retry_ns(30, n) for n in (0, 1, 2, 3, 5, 50)] == [0, 30, 60, 120, 480, 480]


# ---- receipts ----

WALLET, CASH, CTF = "0x" + "a1" * 20, "0x" + "c0" * 20, "0x" + "4d" * 20
TOKENS = (111, 222)


def log(address, *topics, data=()):
    return {"address": address.upper().replace("X", "x"), "topics": list(topics), "data": "0x" + "".join(f"{n:064x}" for n in data)}


def receipt(*logs, status="0x1"):
    return {"status": status, "logs": list(logs)}


ME, OTHER = effects.topic_of(WALLET), effects.topic_of("0x" + "ee" * 20)
PAID = log(CASH, effects.TRANSFER, OTHER, ME, data=(40 * U,))
BATCH = log(CTF, effects.BATCH, OTHER, ME, OTHER, data=(64, 160, 2, *TOKENS, 2, 40 * U, 40 * U))


def effect(*logs, **more):
    return effects.effect_of(receipt(*logs, **more), WALLET, CASH, CTF, TOKENS)


def test_a_receipt_says_what_came_and_went():
    assert effect(BATCH, PAID) == effects.Effect(True, 40 * U, (-40 * U, -40 * U))
    singles = [log(CTF, effects.SINGLE, OTHER, ME, OTHER, data=(t, 40 * U)) for t in TOKENS]
    assert effect(*singles, PAID) == effect(BATCH, PAID)
    foreign = log("0x" + "99" * 20, effects.TRANSFER, OTHER, ME, data=(5 * U,)), log(CTF, effects.SINGLE, OTHER, ME, OTHER, data=(333, U))
    assert effect(BATCH, PAID, *foreign) == effect(BATCH, PAID), "other contracts and other tokens do not count"
    assert effect(PAID, log(CASH, effects.TRANSFER, ME, OTHER, data=(U,))).cash_u6 == 39 * U


@pytest.mark.parametrize("bad", [{}, {"status": "0x1"}, {"status": "0x1", "logs": [{}]},
                                 {"status": "0x1", "logs": [{"topics": [effects.TRANSFER, ME], "address": CASH, "data": "0x"}]}])
def test_a_receipt_that_cannot_be_read_is_no_payout(bad):
    with pytest.raises(ValueError, match="cannot be read"):
        effects.effect_of(bad, WALLET, CASH, CTF, TOKENS)


@pytest.mark.parametrize(("found", "kind", "says"), [
    (effects.Effect(True, 40 * U, (-40 * U, -40 * U)), r.SK_MERGE, ""), (effects.Effect(False, 40 * U, (0, 0)), r.SK_MERGE, "reverted"),
    (effects.Effect(True, 0, (0, 0)), r.SK_MERGE, "paid_nothing"), (effects.Effect(True, 40 * U - 1, (-40 * U, -40 * U)), r.SK_MERGE, "paid_wrong"),
    (effects.Effect(True, 40 * U, (-40 * U, 0)), r.SK_MERGE, "paid_wrong"), (effects.Effect(True, 0, (-40 * U, -40 * U)), r.SK_REDEEM, "paid_nothing"),
    (effects.Effect(True, 40 * U, (-40 * U, -7 * U)), r.SK_REDEEM, ""), (effects.Effect(True, 45 * U, (-45 * U, -7 * U)), r.SK_REDEEM, ""),
    (effects.Effect(True, 39 * U, (-39 * U, -40 * U)), r.SK_REDEEM, "paid_wrong"), (effects.Effect(True, 41 * U, (-40 * U, 0)), r.SK_REDEEM, "paid_wrong")])
def test_only_the_exact_payout_is_right(found, kind, says):
    assert effects.judge(found, kind, r.UP, 40 * U, 40 * U, 40 * U)[0] == says


# ---- the journal ----

def op(number=1, **changes):
    return Op(**{"number": number, "kind": r.SK_MERGE, "market_id": 7, "up_u6": 40 * U, "down_u6": 40 * U, "payout_u6": 40 * U, "cost_u6": 39 * U, **changes})


def test_the_last_line_about_an_operation_is_the_truth(tmp_path):
    path = tmp_path / "journal" / "settlement.log"
    j = SettlementJournal(path)
    assert j.next_number == 1
    for state in (r.SS_WANTED, r.SS_SUBMITTED):
        j.op(op(state=state, body="0xabc"))
    j.window(Held(7, "0x5a", ("1", "2"), 1, False))
    j.window(Held(8, "0x5b", ("3", "4"), 1, False))
    j.window(Held(8, "0x5b", ("3", "4"), 1, False, done=True))
    j.close()
    ops, windows, damaged = replay(path)
    assert ops == {1: op(state=r.SS_SUBMITTED, body="0xabc")} and set(windows) == {7} and not damaged
    assert SettlementJournal(path).next_number == 2 and path.stat().st_mode & 0o777 == 0o600


def test_torn_and_damaged_lines_are_skipped(tmp_path):
    path = tmp_path / "settlement.log"
    j = SettlementJournal(path)
    j.op(op(state=r.SS_WANTED))
    j.close()
    whole = path.read_bytes()
    for cut_at in range(1, len(whole)):
        path.write_bytes(whole[:cut_at])
        again = SettlementJournal(path)
        assert again.ops == {} and again.next_number == 1
        again.op(op(2, state=r.SS_CONFIRMED))
        again.close()
        assert set(replay(path)[0]) == {2}, "what is written after a torn line is whole"
    path.write_bytes(b"nonsense\n" + whole + b'["op",{"number":"x"}]\n[]\n')
    assert replay(path) == ({1: op()}, {}, 3)
    assert replay(tmp_path / "none") == ({}, {}, 0)


def test_a_long_journal_keeps_what_is_open(tmp_path, monkeypatch):
    path = tmp_path / "settlement.log"
    j = SettlementJournal(path)
    j.op(op(1, state=r.SS_SUBMITTED))
    for n in range(2, 40):
        j.op(op(n, state=r.SS_CONFIRMED))
    j.window(Held(7, "0x5a", ("1", "2"), 1, False))
    j.close()
    monkeypatch.setattr("mmbot.settlement.journal.COMPACT_BYTES", 10)
    monkeypatch.setattr("mmbot.settlement.journal.KEEP_OPS", 5)
    j = SettlementJournal(path)
    assert set(j.ops) == {1, 35, 36, 37, 38, 39} and set(j.windows) == {7} and j.next_number == 40
    j.close()
    assert replay(path)[0].keys() == j.ops.keys() and not list(tmp_path.glob("*.new"))


def test_a_full_disk_is_an_error_before_anything_is_sent(tmp_path, monkeypatch):
    j = SettlementJournal(tmp_path / "settlement.log")
    monkeypatch.setattr("os.write", lambda fd, data: len(data) - 1)
    with pytest.raises(OSError, match="only a part"):
        j.op(op())


# ---- memory ----

def test_records_and_totals():
    rec, totals = np.zeros(1, r.SETTLEMENT), Totals()
    done = op(state=r.SS_CONFIRMED, tx="0x" + "12" * 32, relayer_id="00000000-0000-0000-0000-0000000000ff")
    for o in (op(state=r.SS_SUBMITTED), done, done, op(2, kind=r.SK_REDEEM, outcome=r.DOWN, up_u6=1, down_u6=9, payout_u6=9, cost_u6=4, state=r.SS_CONFIRMED),
              op(3, state=r.SS_FAILED, reason="reverted"), op(4, state=r.SS_FAILED, reason="never_sent")):
        fill(rec, o, totals, 5)
    row = rec[0]
    assert (row["merges"], row["redeems"], row["failed"], row["merged_u6"], row["redeemed_u6"]) == (1, 1, 1, 40 * U, 9)
    assert row["reason"] == r.SETTLEMENT_REASON["never_sent"] and row["pnl_u6"] == 0
    fill(rec, done, totals, 5)
    assert row["pnl_u6"] == U and r.id_value(row["tx"]) == int("12" * 32, 16) and r.id_value(row["relayer"]) == 255
    fill(rec, op(state=r.SS_CONFIRMED, reason="elsewhere"), totals, 5)
    assert row["payout_u6"] == 0 and row["pnl_u6"] == U


def test_offers_in_memory_are_counted_by_token():
    own = np.zeros(1, r.OWN)
    own["market_id"], own["n"] = 7, 3
    for i, (token, side, size) in enumerate(((r.UP, r.SELL, 5), (r.DOWN, r.SELL, 7), (r.DOWN, r.BUY, 9))):
        own["order"][0][i] = (token, side, 5000, size, 0)
    own["order"][0][3] = (r.UP, r.SELL, 5000, 100, 0)
    assert offered_u6(own[0], 7) == (5, 7) and offered_u6(own[0], 8) == (0, 0)


def test_condition_ids_have_the_length_their_contract_takes():
    assert len(condition_text(5, 1)) == 66 and len(condition_text(0x01 << 240, 2)) == 64 and len(condition_text(0x01 << 248, 2)) == 66
