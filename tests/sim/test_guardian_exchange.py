"""The guardian against the exchange: it beats while all is sound, and takes every order away within a second when something is not."""

import asyncio
import os
from types import SimpleNamespace

import pytest
from exchange_world import UP_TOKEN, World, spec

from mmbot import topology
from mmbot.clock import mono_ns
from mmbot.execution.http1 import UnknownOutcome
from mmbot.execution.watch import WATCHED
from mmbot.sim import accounts
from mmbot.sim.engine import NewOrder
from procs.guardian import Guardian
from shm_layout import vitals as vt
from shm_layout.records import BUY, GUARD_BIT
from shm_layout.segment import Space
from shm_layout.seqlock import SeqlockReader, SeqlockWriter


class Stage:
    """Vitals pages of the watched processes, beaten by the test, and a guardian that looks at them."""

    def __init__(self, world: World):
        self.world = world
        self.space = Space(f"t-guard-{os.getpid()}")
        self.space.create_missing(topology.RINGS, topology.SEQLOCKS, [p.name for p in topology.PROCESSES])
        self.pages = {n: vt.VitalsWriter(self.space.own(f"vitals.{n}"), n) for n in WATCHED}
        self.still = set()              # processes that have stopped beating
        self.bells, self.told = [], []
        tell = lambda code, text: self.told.append(code)  # noqa: E731
        own = vt.VitalsWriter(self.space.own("vitals.guardian"), "guardian")
        self.actor = SimpleNamespace(
            cfg=world.settings, clock=world.server.clock, vitals=own, warn=tell, error=tell, ring_bells=self.bells.append,
            log=SimpleNamespace(info=lambda *a: None), seqlock_writers={"guard": SeqlockWriter(self.space.own("guard"))},
            seqlock_readers={"account": SeqlockReader(self.space.attach("account"))},
            vitals_readers={n: vt.VitalsReader(self.space.attach(f"vitals.{n}")) for n in WATCHED})
        for page in self.pages.values():
            page.set_state(vt.RUN)

    async def __aenter__(self):
        self.g = g = Guardian(self.actor)
        await g.beats.start()
        await g.cancels.start()
        self.tasks = [asyncio.create_task(t) for t in (self._hearts(), g.check_for_ever(), g.beat_for_ever(), g.panic_for_ever())]
        return self

    async def __aexit__(self, *_):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.g.beats.close()
        await self.g.cancels.close()
        for segment in (*(p.segment for p in self.pages.values()), self.actor.vitals.segment, self.g.guard.segment):
            segment.release()
        self.space.wipe()

    async def _hearts(self):
        while True:
            for name, page in self.pages.items():
                if name not in self.still:
                    page.beat(mono_ns())
            await asyncio.sleep(0.02)

    async def until(self, condition, seconds=5.0):
        deadline = mono_ns() + int(seconds * 1e9)
        while not condition():
            assert mono_ns() < deadline, f"it never happened (told: {self.told})"
            await asyncio.sleep(0.01)

    def rest_an_order(self, n):
        return self.world.do(lambda x, now: x.submit(NewOrder(
            order_id=f"0x{n:064x}", address=accounts.PAPER_ADDRESS, owner=accounts.PAPER_API_KEY, token=UP_TOKEN, side=BUY, maker_u6=2_500_000,
            taker_u6=5_000_000, post_only=True), now))

    def resting(self):
        return self.world.do(lambda x, now: len(x.open_orders(accounts.PAPER_API_KEY)))


def play(story):
    with World(spec()) as world:
        async def inner():
            async with Stage(world) as stage:
                await asyncio.wait_for(story(stage), 30)
        asyncio.run(inner())


def test_allows_after_all_were_sound_and_beats():
    async def story(s):
        assert not s.g.watch.allowed
        await s.until(lambda: s.g.watch.allowed)
        await s.until(lambda: s.g.guard.rec["beat"][0] >= 2)
        assert s.g.guard.rec["quoting_allowed"][0] == 1 and s.g.guard.rec["last_beat_ns"][0] > 0 and "guard" in s.bells
    play(story)


@pytest.mark.parametrize("name", ["core", "executor", "feed_user"])
def test_a_silent_process_costs_all_orders_within_a_second(name):
    async def story(s):
        await s.until(lambda: s.g.watch.allowed)
        for n in range(1, 4):
            assert (await asyncio.to_thread(s.rest_an_order, n)).error == ""
        s.still.add(name)
        silent_ns = mono_ns()
        await s.until(lambda: s.g.panic.flat, 3.0)
        took_s = (s.g.panic.flat_ns - silent_ns) / 1e9
        assert await asyncio.to_thread(s.resting) == 0
        assert not s.g.watch.allowed and s.g.watch.reasons == GUARD_BIT[name] and s.g.guard.rec["panics"][0] == 1
        assert took_s > s.g.cfg.unsound_ms / 1000 - 0.05, "it acted before the limit"
        await asyncio.to_thread(s.rest_an_order, 9)          # a POST that was in the air lands late
        await s.until(lambda: s.world.do(lambda x, now: not x.open_orders(accounts.PAPER_API_KEY)), 4.0)
        s.still.clear()
        await s.until(lambda: s.g.watch.allowed)
        assert s.g.watch.reasons == 0
    play(story)


def test_a_dead_process_is_seen_at_once():
    async def story(s):
        await s.until(lambda: s.g.watch.allowed)
        s.pages.pop("core").segment.release()
        at = mono_ns()
        await s.until(lambda: not s.g.watch.allowed)
        assert s.g.watch.reasons == GUARD_BIT["core"]
        assert s.g.last_panic_ns >= at
    play(story)


def test_no_beat_while_something_is_unsound_and_the_chain_goes_on_after():
    async def story(s):
        await s.until(lambda: s.g.judge.accepted >= 1)
        s.still.add("feed_oracle")
        await s.until(lambda: not s.g.watch.allowed)
        await asyncio.sleep(0.1)
        before = s.g.judge.accepted
        await asyncio.sleep(1.5)
        assert s.g.judge.accepted == before
        s.g.judge.next_id = "not-the-one-the-venue-expects"
        s.still.clear()
        await s.until(lambda: s.g.judge.accepted > before)
        assert s.g.judge.refusals == 0
    play(story)


def test_an_unreachable_venue_is_a_reason():
    async def story(s):
        await s.until(lambda: s.g.watch.allowed)

        async def nothing(_data, _timeout=0.0):
            raise UnknownOutcome("silence", mono_ns())
        s.g.beats.request = nothing
        await s.until(lambda: s.g.watch.reasons & GUARD_BIT["venue_unreachable"], 8.0)
        assert not s.g.watch.allowed
        del s.g.beats.request
        await s.until(lambda: s.g.watch.allowed)
    play(story)
