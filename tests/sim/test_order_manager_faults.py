"""The order manager over real sockets against an exchange that misbehaves: after every fault its books equal the exchange's to the unit.

One life goes through one fault after another under load (a moving target, takers on both tokens). While a fault runs, what the venue's mode
forbids must not happen; when it is over, the life must come back by itself: four quotes rest, nothing is unknown, no order is a stranger.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from exchange_world import spec
from fault_world import FaultWorld
from order_life import KEY, Life, act, ours

from mmbot.clock import mono_ns
from shm_layout import records as r

FAST = {"request_timeout_s": 0.6, "order_deadline_ms": 400.0, "unknown_s": 5.0, "error_pause_s": 0.5}
QUOTES = [(t, lv, 4700 - 100 * lv, 10) for t in (0, 1) for lv in (0, 1)]


class Story:
    """A life, and what must hold about it after every fault."""

    def __init__(self, world, life, seed):
        self.world, self.life, self.rng, self.modes = world, life, random.Random(seed), set()

    async def fault(self, name, seconds, expect_mode="", **params):
        """Act under a fault, then come back; returns seconds from its end to the first whole set of quotes."""
        self.modes.clear()
        watch = asyncio.create_task(self._watch())
        await asyncio.to_thread(self.world.fault, name, None, **params)
        await act(self.life, self.rng, seconds)
        await asyncio.to_thread(self.world.heal)
        took = await self.recovered(name)
        watch.cancel()
        if expect_mode:
            assert expect_mode in self.modes, f"{name}: only {self.modes}"
        return took

    async def _watch(self):
        while True:
            self.modes.add(r.VENUE_MODES[self.life.m.venue.mode])
            await asyncio.sleep(0.01)

    async def recovered(self, name, within_s=8.0):
        """Wait until all is as it should be."""
        start = mono_ns()
        while (mono_ns() - start) / 1e9 < within_s:
            self.life.target(*QUOTES)
            await asyncio.sleep(0.05)
            m = self.life.m
            known = {o.order_id for w in m.by_market.values() for o in w.orders.values()}
            listed = await asyncio.to_thread(self.world.do, lambda x, now: {o.id.lower() for o in x.open_orders(KEY.api_key)})
            if len(listed) == 4 and listed == known and not m.unknown and not m.halt:
                return (mono_ns() - start) / 1e9
        m = self.life.m
        raise AssertionError(f"{name}: not back within {within_s} s: halts {m.halt}, mode {r.VENUE_MODES[m.venue.mode]} ({m.venue.why}), unknown "
                             f"{len(m.unknown)}, known {len(known)}, listed {len(listed)}, {m.resync_reason!r}, {self.life.report.texts[-5:]}")

    async def books_agree(self, cash0):
        """The last word: stop, and compare to the unit."""
        life = self.life
        await asyncio.sleep(0.3)
        assert await life.stop()
        n_open, shares, cash = await asyncio.to_thread(ours, self.world)
        qty, cost = life.position()
        assert n_open == 0 and shares == qty and cash0 - cash == cost and sum(shares) > 0
        assert life.m.positions.conflicts == 0


def run(tmp_path, story, **execution):
    async def main(world):
        cash0 = ours(world)[2]
        life = Life(world, tmp_path, **FAST | execution)
        await life.start()
        s = Story(world, life, 7)
        await s.recovered("start")
        await story(s, life)
        await s.books_agree(cash0)
    with FaultWorld(spec()) as world:
        asyncio.run(asyncio.wait_for(main(world), 90))


def test_lost_late_and_doubled_requests(tmp_path):
    """Answers that never come, requests that arrive after we gave up, cancels without an answer, legs refused, pages instead of answers."""
    async def story(s, life):
        await s.fault("post_answer_lost", 0.6, p=0.7)
        await s.fault("cancel_lost", 0.5, p=0.7)
        await s.fault("post_delayed", 0.8, p=0.6, delay_s=1.0)
        late = life.report.events.get("late_acks", 0)
        await s.fault("batch_partly_refused", 0.4)
        await s.fault("truncated_json", 0.4, p=0.7, paths="trading")
        await s.fault("html_errors", 0.5, paths="trading")
        assert late > 0, "no order ever came late: the test shows nothing"
        assert life.report.events["unknown"] > 5
    run(tmp_path, story)


def test_modes_of_the_venue(tmp_path):
    """Restart, post-only, cancel-only, disabled, rate limits: what is forbidden is not done, and every mode is left by itself."""
    async def story(s, life):
        await s.fault("restart_425", 1.4, "restarting", down_s=0.8, post_only_s=0.5)
        assert "post_only" in s.modes
        await s.fault("post_only", 0.4)
        n = life.m.n_orders
        await s.fault("disabled", 0.6, "disabled")
        assert life.m.n_orders > n
        await s.fault("rate_limited", 0.5, "rate_limited", retry_after_s=0.3)
        await s.fault("cancel_only", 0.5, "cancel_only")
        await s.fault("unauthorized", 0.4, "unauthorized")
    run(tmp_path, story)


def test_a_queue_at_the_edge_is_seen_as_slowness(tmp_path):
    async def story(s, life):
        await s.fault("slow_responses", 0.9, "slow", delay_s=0.3, jitter_s=0.1, paths="trading")
    run(tmp_path, story, slow_ms=100.0, fast_ms=90.0, request_timeout_s=2.0)


def test_a_blocked_region_halts_and_cancels(tmp_path):
    """No post goes out any more, by no other way, and nothing rests."""
    async def story(s, life):
        await act(life, s.rng, 0.5)
        await asyncio.to_thread(s.world.fault, "geoblock")
        await act(life, s.rng, 0.4)
        posts = life.m.n_orders
        await act(life, s.rng, 0.5)
        assert r.VENUE_MODES[life.m.venue.mode] == "geoblocked" and life.m.n_orders == posts
        assert (await asyncio.to_thread(ours, s.world))[0] == 0
        await asyncio.to_thread(s.world.heal)
    run(tmp_path, story)


CHILD = """
import asyncio, os, random, signal, sys, types
from pathlib import Path
sys.path[:0] = [{sim!r}, {unit!r}]
from order_life import Life, act, FILES
from mmbot import config
class World:
    settings = config.load(sim__base_port={base})
    server = types.SimpleNamespace(clock=__import__("mmbot.clock", fromlist=["WallClock"]).WallClock())
    @staticmethod
    def do(work): pass
count = 0
def trace(frame, event, arg):
    global count
    if frame.f_code.co_filename not in FILES: return None
    if event == "line":
        count += 1
        if count == {kill_at}: os.kill(os.getpid(), signal.SIGKILL)
    return trace
async def main():
    life = Life(World, Path({directory!r}))
    await life.start()
    sys.settrace(trace)
    await act(life, random.Random({kill_at}), 20, takers=False)
asyncio.run(main())
"""


def test_sigkill_of_a_process_at_any_line(tmp_path):
    """Real processes, real sockets: each dies by SIGKILL at some line of the order path; the next one finds what it left."""
    here = Path(__file__).parent

    async def story(s, life):
        await life.kill()
        for kill_at in (700, 9001):
            code = CHILD.format(sim=str(here), unit=str(here.parent / "unit"), base=s.world.base, kill_at=kill_at, directory=str(tmp_path))
            child = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], cwd=here.parents[1], capture_output=True, text=True,
                                            timeout=60, env=os.environ | {"PYTHONPATH": str(here.parents[1])})
            assert child.returncode == -signal.SIGKILL, child.stderr
            explained = (tmp_path / "orders.log").read_text()
            left = await asyncio.to_thread(s.world.do, lambda x, now: [o.id for o in x.open_orders(KEY.api_key)])
            assert all(i[2:] in explained for i in left), "an order that no journal explains"
        s.life = fresh = Life(s.world, tmp_path, **FAST)
        await fresh.start()
        assert (await asyncio.to_thread(ours, s.world))[0] == 0
        await act(fresh, s.rng, 0.4)
        await s.recovered("kills")
    run(tmp_path, story)
