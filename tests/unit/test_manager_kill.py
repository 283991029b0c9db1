"""Killed at every line of the send path: the next life finds every order, leaves none, doubles none.

The process dies between two lines of the order path (an exception that nothing catches, thrown by a trace function: whatever was not yet handed to
the kernel is gone). What was on the wire arrives or not. `MMBOT_KILL_ROUNDS` runs every line instead of a sample.
"""

import os
import random
import sys
from pathlib import Path

import pytest
from order_world import MARKET, MS, World

import mmbot.execution
from mmbot.execution.order_journal import OrderJournal
from shm_layout import records as r

ROOM = str(Path(mmbot.execution.__file__).parent)
FILES = {f"{ROOM}/{name}.py" for name in ("manager", "sending", "answers", "fills", "overdue", "order_journal")}
SAMPLE = 90
TWENTY = 20_000_000


class Killed(BaseException):
    """The process is gone."""


class Countdown:
    """Raises `Killed` at the n-th line executed in the order path; with n < 0 it only counts."""

    def __init__(self, n):
        self.n, self.lines = n, 0

    def __call__(self, frame, event, arg):
        if frame.f_code.co_filename not in FILES:
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.n:
                raise Killed
        return self

    def __enter__(self):
        sys.settrace(self)
        return self

    def __exit__(self, *_):
        sys.settrace(None)


def story(w, rng):
    """Post a pair, move it, lose an answer, fill, cancel, acknowledge late, compact."""
    w.target((0, 0, 5000, 20), (1, 0, 4900, 20), ttl_ms=60_000)
    w.now += 300 * MS
    w.guard()
    w.target((0, 0, 5100, 20), (1, 0, 4800, 20), ttl_ms=60_000)
    live = list(w.venue.live())
    w.venue.fill(live[0], 7_000_000)
    w.venue.auto = False
    w.now += 300 * MS
    w.guard()
    w.target((0, 0, 5000, 20), (1, 0, 4800, 20), (0, 1, 4700, 10), ttl_ms=60_000)
    while w.venue.waiting:
        w.venue.answer(w.venue.waiting[0], effect=rng.random() < 0.7, lose=rng.random() < 0.4)
    w.m.compact_journal()
    w.now += 1600 * MS
    w.guard()
    w.venue.auto = True
    w.refresh(60_000)
    w.flush()
    w.target(ttl_ms=60_000)


def life(tmp_path, n, seed):
    """One life, killed at line ``n``, and the next; returns how many lines the story has."""
    rng = random.Random(seed)
    w = World(tmp_path).ready()
    w.venue.tell = rng.random() < 0.8
    try:
        with Countdown(n) as count:
            story(w, rng)
    except Killed:
        pass
    os.close(w.journal.fd)
    venue = w.venue
    for later in venue.waiting:
        if rng.random() < 0.5:
            venue._carry_out(*later.request)    # on the wire when the process died
    venue.waiting.clear()
    text = w.journal.path.read_text()
    assert all(i[2:] in text or n < 0 or w.m.by_id[i].state == 4 for i in venue.orders), "an order at the venue that no journal explains"
    venue.auto = venue.tell = True
    ours = {i for i, o in venue.live().items()}
    w2 = World(tmp_path, journal=OrderJournal(tmp_path / "journal" / "orders.log", sync_thread=False), venue=venue)
    assert ours <= set(w2.journal.found), "an order that rests and that the next life does not know of"
    w2.ready()
    assert not venue.live() and not w2.m.unknown and not w2.keys(), "an orphan"
    filled = sum(o["matched"] for o in venue.orders.values() if o["token"] == 0), sum(o["matched"] for o in venue.orders.values() if o["token"] == 1)
    assert (w2.position()["qty_up_u6"], w2.position()["qty_down_u6"]) == filled
    w2.now += 300 * MS
    w2.guard()
    w2.target((0, 0, 5000, 20), (1, 0, 4900, 20))
    assert len(venue.live()) == 2 and w2.agrees(), "not one order per quote"
    w2.journal.close()
    return count.lines


def test_killed_between_any_two_lines(tmp_path):
    total = life(tmp_path / "whole", -1, 0)
    assert total > 1000
    every = int(os.environ.get("MMBOT_KILL_ROUNDS", "0")) > 0
    points = range(1, total + 1) if every else sorted(random.Random(20).sample(range(1, total + 1), SAMPLE))
    for n in points:
        try:
            life(tmp_path / str(n), n, n)
        except AssertionError as e:
            raise AssertionError(f"killed at line event {n}, seed {n}: {e}") from e


@pytest.mark.parametrize("where", ["append", "post"])
def test_killed_around_the_write(tmp_path, where):
    """The two moments that matter most: before the journal's write nothing has left; after it everything that left is on file."""
    w = World(tmp_path).ready()
    original = w.journal.append if where == "append" else w.venue.post

    def dies(*args):
        if where == "post":
            original(*args)
        raise Killed
    if where == "append":
        w.journal.append = dies
    else:
        w.venue.post = dies
    with pytest.raises(Killed):
        w.target((0, 0, 5000, 20))
    assert len([k for k, _ in w.venue.log if k == "post"]) == (where == "post")
    for later in w.venue.waiting:
        w.venue._carry_out(*later.request)
    w.venue.waiting.clear()
    w2 = World(tmp_path, journal=OrderJournal(tmp_path / "journal" / "orders.log", sync_thread=False), venue=w.venue)
    assert set(w2.journal.found) == set(w.venue.live())
    w2.ready()
    assert not w.venue.live() and MARKET in w2.m.by_market and r.AS_READY == w2.m.state
