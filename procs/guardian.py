"""Process `guardian`: the dead-man switch and the panic cancel, on connections of its own.

Writes: `guard` (may we quote, and if not why). Reads: the vitals page of every process, `account`.
It beats the venue's heartbeat only while core, executor and feeds are sound. When one is not, it takes the permission to quote away
(the executor then wants nothing), and cancels everything of the account itself, without the executor's help, until the venue lists no
order of ours. If this process dies too, nobody beats, and the venue cancels everything by itself 10 to 15 s after the last beat.
Can go wrong: the venue cannot be reached (reason venue_unreachable; it keeps trying); another program beats for the same API key
(heartbeat_refused); the clocks differ (a warning: requests are signed with the time).
"""

import asyncio
import contextlib
from urllib.parse import urlsplit

import msgspec

from mmbot.actor import Actor, run_async
from mmbot.clock import mono_ns
from mmbot.errors import UserError
from mmbot.execution.credentials import credentials
from mmbot.execution.http1 import ConnectionPool, HttpAnswer, NotSent, UnknownOutcome
from mmbot.execution.l2 import L2Auth
from mmbot.execution.rest import Geoblock, Page
from mmbot.execution.watch import WATCHED, BeatJudge, Seen, Watch, clock_skew_s, decide
from mmbot.execution.wire import LAST_CURSOR, ErrorCode, Outcome, Requests, parse_cancel, parse_heartbeat
from shm_layout.records import GUARD_BIT, guard_names
from shm_layout.vitals import alive

TIMEOUT_S = 2.0
CONNECT_S = 0.5             # how long the first check waits for a connection
AGAIN_S = 0.05              # between two panic cancels
STILL_FLAT_S = 1.0          # while unsound, look again so often
SKEW_EVERY_S, SKEW_WARN_S = 60.0, 1.0
GEOBLOCK_EVERY_S = 300.0


class Guardian:
    """Judges the others, beats, panics."""

    def __init__(self, actor: Actor):
        cfg = actor.cfg
        self.actor, self.cfg = actor, cfg.guardian
        self.auth = L2Auth(credentials(cfg))
        self.requests = Requests(cfg.venue.clob_url, self.auth)
        self.beats = ConnectionPool(cfg.venue.clob_url, 1, TIMEOUT_S)
        self.cancels = ConnectionPool(cfg.venue.clob_url, 2, TIMEOUT_S, self.requests.get_public("/ok"))
        self.watch = Watch(int(self.cfg.sound_for_ms * 1e6))
        self.judge = BeatJudge()
        self.guard = actor.seqlock_writers["guard"]
        self.process_bits = GUARD_BIT["start"]
        self.geoblocked = False
        self.armed = False              # the executor was seen in RUN: from here on there may be orders of ours
        self.flat = False
        self.last_panic_ns = self.last_flat_ns = 0
        self.panicking = asyncio.Event()

    def look(self) -> None:
        """One check: read the vitals pages, judge, write the guard; on a change ring the executor's bell."""
        now, actor = mono_ns(), self.actor
        seen = {name: Seen(alive(actor.vitals_readers[name].segment), actor.vitals_readers[name].state(),
                           actor.vitals_readers[name].heartbeat_ns()) for name in WATCHED}
        now = max(now, mono_ns())
        self.process_bits = decide(seen, now, int(self.cfg.unsound_ms * 1e6))
        self.armed = self.armed or not self.process_bits & GUARD_BIT["executor"]
        watch = self.watch
        changed = watch.step(self.process_bits | self.judge.bits(now) | (GUARD_BIT["geoblock"] if self.geoblocked else 0), now)
        if watch.panic:
            self.last_panic_ns = now
            actor.vitals.event("panics")
        self.write(now)
        if changed:
            actor.ring_bells("guard")
            names = ", ".join(guard_names(watch.reasons))
            if watch.panic:
                actor.error("panic", f"not sound: {names}; cancelling everything")
            elif watch.allowed:
                actor.vitals.event("allows")
            actor.log.info("quoting {}: {}", "allowed" if watch.allowed else "stopped", names or "all sound")
        if watch.allowed:
            self.flat = False
            self.panicking.clear()
        elif watch.started and self.armed:
            self.panicking.set()

    def write(self, now: int) -> None:
        """Publish the guard record."""
        rec, watch = self.guard.rec, self.watch
        rec["t_update_ns"], rec["quoting_allowed"], rec["reasons"] = now, watch.allowed, watch.reasons
        rec["beat"], rec["last_beat_ns"] = self.judge.accepted, max(self.judge.accepted_ns, 0)
        rec["panics"], rec["last_panic_ns"], rec["last_flat_ns"] = watch.panics, self.last_panic_ns, self.last_flat_ns
        self.guard.write()

    async def check_for_ever(self) -> None:
        """`look` each check_ms."""
        while True:
            self.look()
            await asyncio.sleep(self.cfg.check_ms / 1000)

    def _now_s(self) -> int:
        return int(self.actor.clock.now_s())

    async def _ask(self, pool: ConnectionPool, data: bytes) -> HttpAnswer | None:
        """An answer, or None when there is none."""
        self.actor.vitals.event("requests")
        try:
            return await pool.request(data)
        except (NotSent, UnknownOutcome) as e:
            self.actor.vitals.event("request_errors")
            self.actor.warn("venue", str(e))
            return None

    # ---- the heartbeat chain ---------------------------------------------------------------------------------------

    async def beat_for_ever(self) -> None:
        """One beat each beat_s while all processes are sound; strictly one at a time."""
        while True:
            if self.process_bits:
                self.judge.pause()
            else:
                while await self.beat():
                    pass
            await asyncio.sleep(self.cfg.beat_s)

    async def beat(self) -> bool:
        """Send one heartbeat; true when the venue named another id and it should be sent at once."""
        judge = self.judge
        judge.trying(mono_ns())
        answer = await self._ask(self.beats, self.requests.heartbeat(judge.next_id, self._now_s()))
        if answer is None:
            self.actor.vitals.event("beats_failed")
            return False
        result = parse_heartbeat(answer.status, answer.body)
        if result.outcome is Outcome.ACCEPTED:
            judge.ok(result.heartbeat_id, answer.t_ack_ns)
            self.actor.vitals.event("beats")
            return False
        self.actor.vitals.event("beats_failed")
        if result.code is ErrorCode.HEARTBEAT_ID:
            return judge.wrong_id(result.heartbeat_id)
        self.actor.warn("heartbeat", result.error)
        return False

    # ---- panic -----------------------------------------------------------------------------------------------------

    async def panic_for_ever(self) -> None:
        """While quoting is not allowed: cancel everything and look, until nothing is listed; then look again each second."""
        while True:
            await self.panicking.wait()
            self.flat = await self.make_flat()
            await asyncio.sleep(STILL_FLAT_S if self.flat else AGAIN_S)

    async def make_flat(self) -> bool:
        """One round of cancel-all and listing; true when the venue lists no open order of ours."""
        if not self.flat:
            answer = await self._ask(self.cancels, self.requests.cancel_all(self._now_s()))
            if answer is not None:
                done = parse_cancel(answer.status, answer.body)
                self.actor.vitals.event("cancels", len(done.canceled))
                if done.outcome is not Outcome.ACCEPTED:
                    self.actor.warn("cancel_all", done.error)
        listing = await self._ask(self.cancels, self.requests.get("/data/orders", self._now_s()))
        if listing is None or listing.status != 200:
            return False
        try:
            page = msgspec.json.decode(listing.body, type=Page)
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            self.actor.warn("listing", f"the list of open orders cannot be read: {e}")
            return False
        if page.data or page.next_cursor not in ("", LAST_CURSOR):
            return False
        self.last_flat_ns = mono_ns()
        return True

    # ---- the venue's clock and geography ---------------------------------------------------------------------------

    async def skew_for_ever(self) -> None:
        """Compare the clocks at start and each minute: requests are signed with the time."""
        while True:
            answer = await self._ask(self.cancels, self.requests.get_public("/time"))
            if answer is not None and answer.status == 200 and answer.body.strip().isdigit():
                skew = clock_skew_s(int(answer.body), self.actor.clock.at(answer.t_ack_ns) / 1e9 if self.actor.clock.simulated
                                    else self.actor.clock.now_s())
                if abs(skew) > SKEW_WARN_S * self.actor.clock.rate:
                    self.actor.warn("clock_skew", f"the venue's clock is {skew:+.1f} s off ours: check the time service")
            await asyncio.sleep(SKEW_EVERY_S if answer is not None else 1.0)

    async def geoblock_for_ever(self) -> None:
        """Ask now and then whether this address may trade; no answer changes nothing."""
        url = self.actor.cfg.venue.geoblock_url
        if not url:
            return
        parts = urlsplit(url)
        base = f"{parts.scheme}://{parts.netloc}"
        pool, requests = ConnectionPool(base, 1, TIMEOUT_S), Requests(base, self.auth)
        await pool.start()
        try:
            while True:
                await asyncio.sleep(0.2)
                answer = await self._ask(pool, requests.get_public(parts.path or "/")) if pool.free else None
                if answer is None or answer.status != 200:
                    await asyncio.sleep(5.0)
                    continue
                try:
                    place = msgspec.json.decode(answer.body, type=Geoblock)
                    self.geoblocked = place.blocked
                    if place.blocked:
                        self.actor.error("geoblock", f"the venue does not accept orders from here ({place.country} {place.region})")
                except (msgspec.DecodeError, UnicodeDecodeError) as e:
                    self.actor.warn("geoblock", f"the answer cannot be read: {e}")
                await asyncio.sleep(GEOBLOCK_EVERY_S)
        finally:
            await pool.close()


async def main(actor: Actor) -> None:
    """Judge, beat and panic until told to stop; the last word is that nobody may quote."""
    guardian = Guardian(actor)
    guardian.write(mono_ns())
    actor.ring_bells("guard")
    await guardian.beats.start()
    with contextlib.suppress(UserError):        # without the venue it judges all the same, and says so by itself
        await guardian.cancels.start(1, CONNECT_S)
    tasks = [asyncio.create_task(t) for t in (guardian.check_for_ever(), guardian.beat_for_ever(), guardian.panic_for_ever(),
                                              guardian.skew_for_ever(), guardian.geoblock_for_ever())]
    stopped = asyncio.create_task(actor.stopped.wait())
    await asyncio.wait([stopped, *tasks[:3]], return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    guardian.watch.allowed, guardian.watch.reasons = False, GUARD_BIT["start"]
    guardian.write(mono_ns())
    actor.ring_bells("guard")
    await guardian.beats.close()
    await guardian.cancels.close()
    for result in results:
        if isinstance(result, Exception):
            raise result


if __name__ == "__main__":
    run_async("guardian", main)
