"""The market feed as a process against the exchange: proofs, quiet markets, dead sockets, a ghost from REST."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from exchange_world import CID, START_S, World

from shm_layout import records as r
from shm_layout import vitals as vt
from shm_layout.ring import RingReader
from shm_layout.segment import Space
from shm_layout.seqlock import SeqlockReader

ROOT = Path(__file__).resolve().parents[2]
SLOT = r.slot_of(START_S, 900)
DEADLINE_S = 20


def wait_for(what, message="nothing happened", deadline_s=DEADLINE_S):
    """Poll until ``what()`` is true; returns (its value, seconds waited)."""
    begin = time.monotonic()
    while time.monotonic() < begin + deadline_s:
        if value := what():
            return value, time.monotonic() - begin
        time.sleep(0.005)
    raise AssertionError(message)


class Group:
    """discovery and feed_market on an exchange."""

    def __init__(self, world: World, directory: Path):
        self.world, self.name = world, f"books{os.getpid()}"
        self.space, self.children = Space(self.name), {}
        self.env = {**os.environ, "MMBOT_RUN__NAME": self.name, "MMBOT_RUN__DIR": str(directory), "MMBOT_SIM__BASE_PORT": str(world.base),
                    "MMBOT_MARKETS__POLL_S": "0.2", "MMBOT_CPU__PIN": "false"}
        for name in ("discovery", "feed_market"):
            self.children[name] = subprocess.Popen([sys.executable, "-m", f"procs.{name}"], cwd=ROOT, env=self.env)
            wait_for(lambda n=name: self.vitals(n)["state"] == vt.RUN, f"{name} does not run")
        self.book, self.ring = SeqlockReader(self.space.attach("book")), RingReader(self.space.attach("md.market"), from_head=False)

    def vitals(self, name="feed_market"):
        assert self.children[name].poll() is None, f"{name} ended"
        try:
            return vt.VitalsReader(self.space.attach(f"vitals.{name}")).snapshot()
        except vt.SegmentError:
            return {"state": 0, "events": {}}

    def count(self, event):
        return self.vitals()["events"][event]

    def rec(self):
        return self.book.rec[0] if self.book.read(SLOT) > 0 else None

    def shows(self, **want):
        """A look at the newest record: bid, flags, kind."""
        def look():
            m = self.rec()
            return m is not None and all({"bid": m["bid_px_e4"][0], "flags": m["flags"], "kind": m["kind"]}[k] == v for k, v in want.items())
        return look

    def fault(self, name, **params):
        status, answer, _ = self.world.http("POST", "/sim/fault", {"name": name, "for_s": 60, "params": params})
        assert status == 200, answer

    def heal(self):
        self.world.http("DELETE", "/sim/fault", {"all": True})

    def stop(self):
        codes = []
        for child in self.children.values():
            child.send_signal(signal.SIGTERM)
            codes.append(child.wait(10))
        self.space.wipe()
        assert set(codes) == {0}


@pytest.fixture
def world():
    with World(frames_per_s=0) as w:
        for i in range(6):
            w.level(r.BUY, 5000 - 100 * i, 20_500_000 + i)
            w.level(r.SELL, 5200 + 100 * i, 30_000_000 + i)
        yield w


@pytest.fixture
def group(world, tmp_path):
    g = Group(world, tmp_path)
    yield g
    g.stop()


@pytest.mark.timeout(90)
def test_from_quiet_over_silent_cancels_to_frozen_and_back(world, group):
    wait_for(group.shows(bid=5000, flags=0), "no book")
    wait_for(lambda: group.count("probes") >= 3, "a silent market is asked about")
    wait_for(lambda: 0 < group.rec()["rtt_ns"] < 1_000_000_000, "records tell how long the channel's PINGs take")
    begin, worst = time.monotonic(), 0
    while time.monotonic() < begin + 1.5:
        worst = max(worst, time.monotonic_ns() - int(group.rec()["t_recv_ns"]))
        time.sleep(0.005)
    assert group.shows(flags=0, kind=r.MK_VERIFIED)() and worst < 3_000_000_000, "every question renews the age of the book"

    for i in range(5):
        world.level(r.BUY, 4000, 1_000_000 + i)
    world.level(r.BUY, 5100, 7_000_000)
    wait_for(group.shows(bid=5100, flags=0))
    wait_for(lambda: group.count("checks_ok") >= 12 and group.count("duplicates") >= 6, "hashes of both tokens are proved, links are twins")
    assert group.count("checks_bad") == group.count("freezes") == group.count("false_alarms") == 0

    world.do(lambda x, now_ms: x.vanish(CID, r.BUY, 4900, now_ms))
    world.level(r.BUY, 4000, 6_000_000)
    wait_for(lambda: group.count("checks_bad") + group.count("rereads") and 4900 not in group.rec()["bid_px_e4"], "a level vanished, nobody saw it")
    wait_for(group.shows(flags=0))

    group.fault("freeze_market", links="all")
    world.level(r.BUY, 5100, 0)
    _, seconds = wait_for(lambda: group.rec()["flags"] & r.MF_FROZEN, "nobody noticed that the sockets are dead")
    assert seconds < 5 and group.rec()["flags"] & r.MF_SUSPECT and group.count("freezes") == 1
    group.heal()
    wait_for(group.shows(bid=5000, flags=0), "the new sockets did not heal the book")


@pytest.mark.timeout(90)
def test_one_dead_socket_and_a_lying_rest(world, group):
    wait_for(group.shows(bid=5000, flags=0), "no book")
    wait_for(lambda: group.vitals()["events"]["subscribes"] >= 4, "two sockets")
    time.sleep(5.2)                         # a socket younger than that is left alone
    assert group.shows(bid=5000, flags=0)()
    while group.ring.poll():
        pass
    group.fault("freeze_market", links="one")
    before = group.count("reconnects")

    def stir():
        world.level(r.BUY, 4200, int(time.monotonic_ns() % 10**9) + 1)
        return group.count("reconnects") > before
    wait_for(stir, "the dead socket was not made anew")
    group.heal()
    group.fault("ghost_book")
    asked = group.count("probes")
    wait_for(lambda: group.count("probes") >= asked + 2)
    group.heal()
    wait_for(group.shows(bid=5000, flags=0))
    kinds = []
    while group.ring.poll():
        kinds.append(int(group.ring.rec[0]["kind"]))
        assert not group.ring.rec[0]["flags"], "quoting went on all the time"
    assert r.MK_BOOK in kinds and group.count("freezes") == 0
