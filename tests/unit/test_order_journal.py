"""The order journal: written before the send, replayed after a crash, torn and damaged lines tolerated."""

import os
import time

import pytest

from mmbot.execution.order_journal import JournalError, OrderJournal, done_line, loss_line, replay, sent_line, sent_lines

A, B, C = ("%064x" % n for n in (0xA, 0xB, 0xC))


def line(digest, **kw):
    args = dict(market_id=1775028600015, token=1, level=2, side=0, kind=1, px_e4=4800, size_u6=20_000_000, wall_ms=1775028601000) | kw
    return sent_line(digest, **args)


def test_what_was_sent_and_not_closed_is_found_again(tmp_path):
    path = tmp_path / "journal" / "orders.log"
    j = OrderJournal(path, sync_thread=False)
    j.append(line(A) + line(B))
    j.append(done_line("0x" + A, "canceled"))
    j.close()
    j = OrderJournal(path, sync_thread=False)
    assert list(j.found) == ["0x" + B] and j.damaged == 0
    s = j.found["0x" + B]
    assert (s.market_id, s.token, s.level, s.side, s.kind, s.px_e4, s.size_u6, s.wall_ms) == (1775028600015, 1, 2, 0, 1, 4800, 20_000_000, 1775028601000)
    j.close()


@pytest.mark.parametrize("cut", range(1, len(line(B)) + 1))
def test_a_torn_last_line_is_no_order_and_spoils_nothing(tmp_path, cut):
    """Cut the second line anywhere: without its newline its POST was never sent; the next start writes on cleanly."""
    path = tmp_path / "orders.log"
    path.write_bytes((line(A) + line(B))[:-cut])
    j = OrderJournal(path, sync_thread=False)
    assert set(j.found) == {"0x" + A}
    j.append(line(C))
    j.close()
    found, damaged, _ = replay(path)
    assert set(found) == {"0x" + A, "0x" + C}
    assert damaged == (cut < len(line(B)))


def test_damage_in_the_middle_is_counted_and_skipped(tmp_path):
    path = tmp_path / "orders.log"
    path.write_bytes(line(A) + b"\x00\xffgarbage\n" + b"S zz 1 2\n" + line(B))
    found, damaged, _ = replay(path)
    assert set(found) == {"0x" + A, "0x" + B} and damaged == 2


def test_missing_file_is_an_empty_journal(tmp_path):
    assert replay(tmp_path / "none") == ({}, 0, [])


def test_compaction_keeps_open_orders_and_the_writer_goes_on(tmp_path):
    path = tmp_path / "orders.log"
    j = OrderJournal(path)
    for _ in range(100):
        j.append(line(A) + done_line(A, "canceled"))
    big = j.size
    j.compact([line(B)])
    assert j.size < big
    j.append(line(C))
    j.sync()
    j.close()
    assert set(replay(path)[0]) == {"0x" + B, "0x" + C}
    assert oct(path.stat().st_mode)[-3:] in ("600", "644")


def test_a_full_disk_is_an_error_before_the_post():
    full = "/dev/full"
    if not os.path.exists(full):
        pytest.skip("no /dev/full here")
    j = OrderJournal.__new__(OrderJournal)
    j.path, j.size, j.writes, j._dirty, j._broken = full, 0, 0, False, ""
    j.fd = os.open(full, os.O_WRONLY)
    with pytest.raises(JournalError, match="order journal"):
        j.append(line(A))
    os.close(j.fd)


def test_the_thread_syncs_when_kicked(tmp_path):
    j = OrderJournal(tmp_path / "orders.log")
    j.append(line(A))
    time.sleep(0.02)
    assert j.syncs == 0, "not before the bytes of the POST are out"
    j.kick()
    for _ in range(500):
        if j.syncs:
            break
        time.sleep(0.01)
    assert j.syncs == 1 and not j._dirty
    j.kick()
    time.sleep(0.02)
    assert j.syncs == 1, "nothing new, nothing to do"
    j.close()


def test_a_disk_that_fails_to_sync_stops_the_next_post(tmp_path, monkeypatch):
    def failing(_fd):
        raise OSError(5, "Input/output error")
    j = OrderJournal(tmp_path / "orders.log", sync_thread=False)
    j.append(line(A))
    monkeypatch.setattr(os, "fdatasync", failing)
    j.sync()
    with pytest.raises(JournalError, match="Input/output error"):
        j.append(line(B))
    monkeypatch.undo()
    j.compact([line(A)])
    j.append(line(B))
    j.close()
    assert set(replay(tmp_path / "orders.log")[0]) == {"0x" + A, "0x" + B}


def test_the_lines_of_a_post_are_those_of_its_orders():
    orders = [("0x" + A, (0, 1, 0, 0, 4900, 20_000_000)), ("0x" + B, (1, 3, 1, 2, 1, 5_000_000))]
    assert sent_lines(900, 1_775_028_600_123, orders) == b"".join(sent_line(i, 900, *q, 1_775_028_600_123) for i, q in orders)


def test_losses_are_carried_over(tmp_path):
    path = tmp_path / "orders.log"
    j = OrderJournal(path, sync_thread=False)
    j.append(loss_line([[5, 7]]) + line(A) + loss_line([[10**18, 123], [10**18 + 5, 3]]))
    j.close()
    j = OrderJournal(path, sync_thread=False)
    assert j.found_loss == [[10**18, 123], [10**18 + 5, 3]] and set(j.found) == {"0x" + A} and j.damaged == 0
    j.compact([loss_line([]), line(A)])
    j.close()
    assert replay(path)[2] == []
