"""Killed at every line of the send path: the next life finds every order, leaves none, doubles none.

The process dies between two lines of the order path (an exception that nothing catches, thrown by a trace function: whatever was not yet handed to
the kernel is gone). What was on the wire arrives or not. Two stories: orders that rest, and sales and orders that take. `MMBOT_KILL_RUNS` runs so many
lives of each, over every line again and again with other luck, instead of a sample.
"""

import os
import random
import shutil
import sys
from pathlib import Path

import pytest
from order_world import MARKET, MS, SLOT, World
from test_takers import Taking, TakingVenue

import mmbot.execution
from mmbot.execution.order_journal import OrderJournal
from shm_layout import records as r
from shm_layout.records import BUY, DOWN, QK_FAK, QK_FOK, QK_POST_ONLY, SELL, UP

ROOM = str(Path(mmbot.execution.__file__).parent)
FILES = {f"{ROOM}/{name}.py" for name in ("manager", "sending", "answers", "fills", "overdue", "order_journal", "windows", "reconcile")}
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


def resting(w, rng):
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


WISHES = ((DOWN, 0, BUY, QK_FAK, 4900, 5), (UP, 0, SELL, QK_FOK, 4600, 3), (UP, 0, BUY, QK_FOK, 5300, 2), (UP, 0, SELL, QK_FAK, 4500, 2))


class Fates:
    """What becomes of takers, by luck."""

    def __init__(self, rng):
        self.rng = rng

    def pop(self, _at):
        return self.rng.choice((("matched", self.rng.randint(1, 3) * 1_000_000, 4700), ("delayed",), ("refused", "no orders found to match with FAK order.")))


def taking(w, rng):
    """Buy, offer what was bought, have it bought; take on both tokens and both sides with all kinds of ends, held back ones and lost answers too."""
    venue = w.venue
    venue.fates = Fates(rng)
    w.desire((UP, 0, BUY, QK_POST_ONLY, 5000, 20))
    bid = next(iter(venue.live()))
    trade = venue.fill(bid, TWENTY)
    w.say_trade(bid, trade, TWENTY, r.TS_MINED)
    w.now += 300 * MS
    offer = (UP, 0, SELL, QK_POST_ONLY, 5500, 10)
    w.desire(offer)
    w.run(w.recovery.read_sellable())
    w.wake()
    if live := list(venue.live()):
        venue.fill(live[0], 4_000_000)
    for i, wish in enumerate(WISHES):
        venue.auto = i % 2 == 0
        w.desire(offer, wish)
        while venue.waiting:
            venue.answer(venue.waiting[0], effect=rng.random() < 0.8, lose=rng.random() < 0.4)
        for order_id in [j for j, o in venue.orders.items() if o["status"] == "DELAYED" and rng.random() < 0.7]:
            venue.took(order_id, 1_000_000, 4700)
        venue.auto = True
        w.now += 400 * MS
        w.guard()
        w.desire(offer)
        w.run(w.recovery.resolve_unknown())
    w.m.compact_journal()
    w.now += 1600 * MS
    w.desire()


def over(venue, rng):
    """What was on the wire arrives or not, and what the venue held back comes to its end while nobody of ours lives."""
    for later in venue.waiting:
        if rng.random() < 0.5:
            venue._carry_out(*later.request)
    venue.waiting.clear()
    for order_id, o in venue.orders.items():
        if o["status"] == "DELAYED":
            if rng.random() < 0.5:
                venue.took(order_id, 1_000_000, 4700, tell=False)
            else:
                o["status"] = "CANCELED"


def shares_of(venue):
    """Up, Down shares that the venue's books have given us."""
    total = [0, 0]
    for o in venue.orders.values():
        total[o["token"]] += o["matched"] if o["side"] == BUY else -o["matched"]
    return tuple(total)


def life(tmp_path, n, seed, story):
    """One life, killed at line ``n``, and the next; returns how many lines the story has."""
    rng = random.Random(seed)
    w = (World(tmp_path) if story is resting else Taking(tmp_path, venue=TakingVenue())).ready()
    w.venue.tell = rng.random() < 0.8
    try:
        with Countdown(n) as count:
            story(w, rng)
    except Killed:
        pass
    os.close(w.journal.fd)
    venue = w.venue
    wish_ns = w.m.by_market[MARKET].changed_ns
    over(venue, rng)
    text = w.journal.path.read_text()
    assert all(i[2:] in text or n < 0 or w.m.by_id[i].state == 4 for i in venue.orders), "an order at the venue that no journal explains"
    venue.auto = venue.tell = True
    ours = {i for i, o in venue.live().items()}
    w2 = type(w)(tmp_path, journal=OrderJournal(tmp_path / "journal" / "orders.log", sync_thread=False), venue=venue)
    assert ours <= set(w2.journal.found), "an order that rests and that the next life does not know of"
    w2.ready()
    assert not venue.live() and not w2.m.unknown and not w2.keys(), "an orphan"
    assert (w2.position()["qty_up_u6"], w2.position()["qty_down_u6"]) == shares_of(venue)
    if story is taking:
        no_wish_is_granted_again(w2, venue, wish_ns)
    w2.now += 300 * MS
    w2.guard()
    w2.target((0, 0, 5000, 20), (1, 0, 4900, 20))
    assert len(venue.live()) == 2 and w2.agrees(), "not one order per quote"
    w2.journal.close()
    return count.lines


def no_wish_is_granted_again(w2, venue, wish_ns):
    """The core still wants what it wanted before the process died."""
    taken = len([1 for t in venue.types if t[0] != "GTC"])
    for wish in WISHES:
        w2.desire(wish, wake=False)
        rec = w2.links.targets.cells[SLOT].copy().view(r.TARGET)
        rec["changed_ns"] = rec["t_decide_ns"] = min(wish_ns, w2.m.sighted_ns)
        w2.links.targets.set(rec, SLOT)
        w2.wake()
    assert len([1 for t in venue.types if t[0] != "GTC"]) == taken, "a wish granted twice"


@pytest.mark.parametrize("story", [resting, taking])
def test_killed_between_any_two_lines(tmp_path, story):
    total = max(life(tmp_path / f"whole{seed}", -1, seed, story) for seed in range(3))
    assert total > 1000
    runs = int(os.environ.get("MMBOT_KILL_RUNS", "0"))
    points = [(k % total + 1, k) for k in range(runs)] if runs else [(n, n) for n in sorted(random.Random(20).sample(range(1, total + 1), SAMPLE))]
    for n, seed in points:
        try:
            life(tmp_path / str(seed), n, seed, story)
        except AssertionError as e:
            raise AssertionError(f"killed at line event {n}, seed {seed}: {e}") from e
        shutil.rmtree(tmp_path / str(seed))


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
