"""The guardian against the exchange: it beats while all is sound, and takes every order away within a second when something is not."""

import asyncio
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from exchange_world import UP_TOKEN, World, spec

from mmbot import topology
from mmbot.clock import mono_ns
from mmbot.execution.http1 import UnknownOutcome
from mmbot.execution.watch import WATCHED
from mmbot.execution.wire import ErrorCode, parse_heartbeat
from mmbot.sim import accounts
from mmbot.sim.engine import NewOrder
from procs.guardian import Guardian, StopSigns
from shm_layout import vitals as vt
from shm_layout.records import BUY, GUARD_BIT, VENUE_MODE
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
        await g.reads.start()
        self.tasks = [asyncio.create_task(t) for t in (self._hearts(), g.check_for_ever(), g.beat_for_ever(), g.panic_for_ever(),
                                                       g.skew_for_ever(), g.place_for_ever())]
        return self

    async def __aexit__(self, *_):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for pool in (self.g.beats, self.g.cancels, self.g.reads):
            await pool.close()
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

    async def fault(self, name, **params):
        status, answer, _ = await asyncio.to_thread(self.world.http, "POST", "/sim/fault", {"name": name, "params": params},
                                                    {"Content-Type": "application/json"})
        assert status == 200, answer

    async def heal(self):
        await asyncio.to_thread(self.world.http, "DELETE", "/sim/fault", {"all": True}, {"Content-Type": "application/json"})


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


def test_a_panic_right_after_another_does_not_wait_for_it():
    async def story(s):
        for n in (1, 2, 3):
            await s.until(lambda: s.g.watch.allowed)
            assert (await asyncio.to_thread(s.rest_an_order, n)).error == ""
            await asyncio.sleep(0.05 * n)               # the pause between two looks of the panic before is not over
            s.g.actor.vitals_readers["core"].state, kept = lambda: vt.BOOT, s.g.actor.vitals_readers["core"].state
            await s.until(lambda: not s.g.watch.allowed, 0.5)
            await s.until(lambda: not s.world.do(lambda x, now: x.open_orders(accounts.PAPER_API_KEY)), 0.4)
            await s.until(lambda: s.g.panic.flat and s.g.panic.flat_ns > s.g.last_panic_ns, 0.4)
            await asyncio.sleep(0.6)
            s.g.actor.vitals_readers["core"].state = kept
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


# ---- a venue that misbehaves while everything is to be cancelled


async def panicked(s, n=1):
    """Orders rest, then the core falls silent."""
    for i in range(1, n + 1):
        assert (await asyncio.to_thread(s.rest_an_order, i)).error == ""
    s.still.add("core")
    await s.until(lambda: not s.g.watch.allowed)


@pytest.mark.parametrize(("name", "params", "within_s"), [
    ("slow_responses", {"paths": "cancels", "delay_s": 3.0, "jitter_s": 0.0}, 2.5),     # half of it before it is executed
    ("rate_limited", {"paths": "cancels", "n": 3, "retry_after_s": 0.2}, 4.5), ("html_errors", {"paths": "cancels", "n": 2}, 2.0),
    ("truncated_json", {"paths": "private", "n": 3}, 2.0), ("cancel_lost", {"n": 2}, 2.0), ("cancel_lost", {"n": 1, "hang_s": 5.0}, 1.0)])
def test_it_gets_flat_all_the_same(name, params, within_s):
    async def story(s):
        await s.until(lambda: s.g.watch.allowed)
        await s.fault(name, **params)
        await panicked(s)
        await s.until(lambda: s.world.do(lambda x, now: not x.open_orders(accounts.PAPER_API_KEY)), within_s)
        await s.until(lambda: s.g.panic.flat, 6.0)
    play(story)


def test_an_empty_list_is_not_believed_while_no_cancel_was_accepted():
    async def story(s):
        await s.until(lambda: s.g.watch.allowed)
        await s.fault("disabled")
        await s.fault("empty_listing")
        await panicked(s)
        await asyncio.sleep(0.6)
        assert not s.g.panic.flat and await asyncio.to_thread(s.resting) == 1
        await s.heal()
        await s.until(lambda: s.g.panic.flat, 3.0)
        assert await asyncio.to_thread(s.resting) == 0
    play(story)


def test_a_list_that_hides_a_late_order_does_not_keep_it_alive():
    async def story(s):
        await s.until(lambda: s.g.watch.allowed)
        await panicked(s)
        await s.until(lambda: s.g.panic.flat)
        await s.fault("empty_listing")
        await asyncio.to_thread(s.rest_an_order, 9)
        await s.until(lambda: s.world.do(lambda x, now: not x.open_orders(accounts.PAPER_API_KEY)), 8.0)
    play(story)


def test_orders_of_an_earlier_life_are_cancelled_by_a_guardian_that_starts_beside_a_dead_executor():
    async def story(s):
        assert (await asyncio.to_thread(s.rest_an_order, 1)).error == ""
        await s.until(lambda: s.g.panic.flat, 3.0)
        assert await asyncio.to_thread(s.resting) == 0 and not s.g.watch.started

    with World(spec()) as world:
        async def inner():
            stage = Stage(world)
            stage.still.add("executor")             # it has run (state RUN) and does not any more
            async with stage:
                await asyncio.wait_for(story(stage), 30)
        asyncio.run(inner())


# ---- reasons that are not a process


def test_two_owners_of_one_heartbeat_chain():
    async def story(s):
        await s.until(lambda: s.g.judge.accepted >= 1)
        mine = s.g.requests
        other_id = ""
        for _ in range(40):                         # another program beats for the same key, correcting its id as we do
            answer = await s.g.reads.request(mine.heartbeat(other_id, s.g._now_s()))
            reply = parse_heartbeat(answer.status, answer.body)
            other_id = reply.heartbeat_id
            await asyncio.sleep(0.0 if reply.code is ErrorCode.HEARTBEAT_ID else 0.7)
            if s.g.judge.rival:
                break
        await s.until(lambda: s.g.watch.reasons & GUARD_BIT["heartbeat_refused"], 1.0)
        assert not s.g.watch.allowed and "heartbeat_rival" in s.told
        before = s.g.judge.accepted
        await asyncio.sleep(1.5)
        assert s.g.judge.accepted == before, "it does not fight for the chain"
    play(story)


@pytest.mark.parametrize(("name", "params", "reason"), [
    ("wrong_clock", {"offset_s": 40.0, "tolerance_s": 300.0}, "clock_skew"), ("geoblock", {}, "geoblock"), ("closed_only", {}, "closed_only")])
def test_what_the_venue_says_about_us_stops_quoting(name, params, reason, monkeypatch):
    for setting in ("SKEW_EVERY_S", "PLACE_EVERY_S", "PLACE_AGAIN_S", "SKEW_AGAIN_S"):
        monkeypatch.setattr(f"procs.guardian.{setting}", 0.1)

    async def story(s):
        await s.until(lambda: s.g.watch.allowed)
        assert (await asyncio.to_thread(s.rest_an_order, 1)).error == ""
        await s.fault(name, **params)
        await s.until(lambda: s.g.watch.reasons == GUARD_BIT[reason])
        await s.until(lambda: s.g.panic.flat)
        assert await asyncio.to_thread(s.resting) == 0
        await s.heal()
        await s.until(lambda: s.g.watch.allowed, 4.0)
    play(story)


def test_what_the_executor_was_told_is_asked_at_once():
    async def story(s):
        await s.until(lambda: s.g.watch.allowed)
        await s.fault("geoblock")
        account = SeqlockWriter(s.space.own("account"))
        account.rec["venue_mode"] = VENUE_MODE["geoblocked"]
        account.write()
        await s.until(lambda: s.g.watch.reasons == GUARD_BIT["geoblock"], 2.0)
        account.segment.release()
    play(story)


def test_a_stopped_process_is_seen_by_the_kernels_word():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    signs = StopSigns()
    try:
        assert not signs.stopped(child.pid)
        os.kill(child.pid, signal.SIGSTOP)
        os.waitpid(child.pid, os.WUNTRACED)
        assert signs.stopped(child.pid)
        os.kill(child.pid, signal.SIGCONT)
        os.waitpid(child.pid, os.WCONTINUED)
        assert not signs.stopped(child.pid)
    finally:
        child.kill()
        child.wait()
    assert not signs.stopped(child.pid), "a process that is gone is not stopped"
