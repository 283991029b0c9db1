"""Process `guardian`: the dead-man switch and the panic cancel, on connections of its own.

Writes: `guard` (may we quote, and if not why). Reads: the vitals page of every process, `account` (what the venue told the executor).
It beats the venue's heartbeat only while core, executor and feeds are sound. When one is not, it takes the permission to quote away
(the executor then wants nothing), and cancels everything of the account itself, without the executor's help, until the venue lists no
order of ours. If this process dies too, nobody beats, and the venue cancels everything by itself 10 to 15 s after the last beat.
In a dry run there are no orders of ours: it judges, but neither beats (a chain that ends cancels for the whole account) nor cancels.
It also keeps out of markets where we may not trade: an address or account that the venue does not serve, clocks that differ.
Can go wrong: the venue cannot be reached (reason venue_unreachable; it keeps trying); another program beats for the same API key
(heartbeat_refused: the chain is left to it, and nothing is quoted while nobody can stop us).
"""

import asyncio
import contextlib
import os
from urllib.parse import urlsplit

import msgspec

from mmbot.actor import Actor, run_async
from mmbot.clock import mono_ns
from mmbot.errors import UserError
from mmbot.execution.credentials import credentials
from mmbot.execution.flat import Flat
from mmbot.execution.http1 import ConnectionPool, HttpAnswer, NotSent, UnknownOutcome
from mmbot.execution.l2 import L2Auth
from mmbot.execution.rest import ClosedOnly, Geoblock
from mmbot.execution.watch import RUN, WATCHED, BeatJudge, Seen, SkewJudge, Watch, clock_skew_s, decide
from mmbot.execution.wire import ErrorCode, Outcome, Requests, parse_heartbeat
from shm_layout.records import GUARD_BIT, VENUE_MODE, guard_names
from shm_layout.vitals import alive

TIMEOUT_S = 2.0
CONNECT_S = 0.5             # how long the first check waits for a connection
CANCEL_CONNECTIONS, BEAT_CONNECTIONS = 3, 2
BEAT_AGAIN_S = 0.25         # after a beat that got no answer
SKEW_EVERY_S, SKEW_WARN_S, SKEW_AGAIN_S = 15.0, 1.0, 0.3
PLACE_EVERY_S, PLACE_AGAIN_S = 30.0, 5.0
#: what the venue may have told the executor and the guardian asks again for itself, at once
_PLACE_MODES = (VENUE_MODE["geoblocked"], VENUE_MODE["closed_only"], VENUE_MODE["banned"])


class StopSigns:
    """Whether the kernel says that a signal has stopped a process ("T" in /proc/<pid>/stat): seen at once, not after a missed heartbeat."""

    def __init__(self):
        self._files: dict[int, int] = {}

    def stopped(self, pid: int) -> bool:
        """True for a stopped process; false for any other, and for none."""
        try:
            if pid not in self._files:
                self._files[pid] = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
            return os.pread(self._files[pid], 512, 0).rpartition(b")")[2][1:2] == b"T"
        except OSError:
            self._forget(pid)
            return False

    def _forget(self, pid: int) -> None:
        fd = self._files.pop(pid, -1)
        if fd >= 0:
            os.close(fd)


class Guardian:
    """Judges the others, beats, panics."""

    def __init__(self, actor: Actor):
        cfg = actor.cfg
        self.actor, self.cfg, self.dry_run = actor, cfg.guardian, cfg.execution.dry_run
        self.auth = L2Auth(credentials(cfg))
        self.requests = Requests(cfg.venue.clob_url, self.auth)
        probe = self.requests.get_public("/ok")
        self.beats = ConnectionPool(cfg.venue.clob_url, BEAT_CONNECTIONS, TIMEOUT_S, probe)
        self.cancels = ConnectionPool(cfg.venue.clob_url, CANCEL_CONNECTIONS, TIMEOUT_S, probe)
        self.reads = ConnectionPool(cfg.venue.clob_url, 1, TIMEOUT_S, probe)
        self.panic = Flat(self.cancels, self.requests, self._now_s, actor.vitals.event, actor.warn)
        self.watch = Watch(int(self.cfg.sound_for_ms * 1e6))
        self.judge = BeatJudge()
        self.skew = SkewJudge(self.cfg.max_clock_skew_s * actor.clock.rate)
        self.guard = actor.seqlock_writers["guard"]
        self.signs = StopSigns()
        self.process_bits = GUARD_BIT["start"]
        self.geoblocked = self.closed_only = False
        self.ask_place = asyncio.Event()
        self.armed = False              # the executor has run: from here on there may be orders of ours
        self.last_panic_ns = 0
        self.panicking, self.alarm = asyncio.Event(), asyncio.Event()
        self.reading = asyncio.Lock()       # the slow questions share one connection, one after the other

    def _see(self, name: str) -> Seen:
        page = self.actor.vitals_readers[name]
        lives = alive(page.segment)
        return Seen(lives, page.state(), page.heartbeat_ns(), lives and self.signs.stopped(page.segment.identity[0]))

    def _venue_bits(self, now: int) -> int:
        """Reasons that are not a process."""
        return (self.judge.bits(now) | (GUARD_BIT["geoblock"] if self.geoblocked else 0) | (GUARD_BIT["closed_only"] if self.closed_only else 0)
                | (GUARD_BIT["clock_skew"] if self.skew.bad else 0))

    def look(self) -> None:
        """One check: read the vitals pages, judge, write the guard; on a change ring the executor's bell."""
        actor, watch = self.actor, self.watch
        seen = {name: self._see(name) for name in WATCHED}
        now = mono_ns()
        self.process_bits = decide(seen, now, int(self.cfg.unsound_ms * 1e6))
        self.armed = (self.armed or seen["executor"].state == RUN) and not self.dry_run
        changed = watch.step(self.process_bits | self._venue_bits(now), now)
        if watch.panic and not self.dry_run:
            self.last_panic_ns = now
            actor.vitals.event("panics")
            self.panic.begin()
            self.alarm.set()
        self.write(now)
        if watch.allowed:
            self.panicking.clear()
        elif self.armed and (watch.started or self.process_bits):
            self.panicking.set()
        if changed:
            actor.ring_bells("guard")
            self._tell()

    def _tell(self) -> None:
        actor, watch = self.actor, self.watch
        names = ", ".join(guard_names(watch.reasons))
        if watch.panic:
            actor.error("panic", f"not sound: {names}; " + ("a dry run: nothing to cancel" if self.dry_run else "cancelling everything"))
        elif watch.allowed:
            actor.vitals.event("allows")
        actor.log.info("quoting {}: {}", "allowed" if watch.allowed else "stopped", names or "all sound")

    def write(self, now: int) -> None:
        """Publish the guard record."""
        rec, watch = self.guard.rec, self.watch
        rec["t_update_ns"], rec["quoting_allowed"], rec["reasons"] = now, watch.allowed, watch.reasons
        rec["beat"], rec["last_beat_ns"] = self.judge.accepted, max(self.judge.accepted_ns, 0)
        rec["panics"], rec["last_panic_ns"], rec["last_flat_ns"] = watch.panics, self.last_panic_ns, self.panic.flat_ns
        self.guard.write()

    async def check_for_ever(self) -> None:
        """`look` each check_ms."""
        while True:
            self.look()
            if self._told_by_venue():
                self.ask_place.set()
            await asyncio.sleep(self.cfg.check_ms / 1000)

    def _told_by_venue(self) -> bool:
        """Whether the venue has told the executor that this place or account may not trade, and we do not know it yet."""
        account = self.actor.seqlock_readers["account"]
        if self.geoblocked or self.closed_only or account.read() <= 0:
            return False
        return int(account.rec[0]["venue_mode"]) in _PLACE_MODES

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
            answered = True
            if self.dry_run or self.process_bits or self.judge.holding(mono_ns()):
                self.judge.pause()
            else:
                while await self.beat():
                    pass
                answered = self.judge.trying_since_ns < 0
            await asyncio.sleep(self.cfg.beat_s if answered else min(BEAT_AGAIN_S, self.cfg.beat_s))

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
            again = judge.wrong_id(result.heartbeat_id, answer.t_ack_ns)
            if judge.rival:
                self.actor.error("heartbeat_rival", "another program beats for this API key: stop it, or give this bot a key of its own")
            return again
        self.actor.warn("heartbeat", result.error)
        return False

    # ---- panic -----------------------------------------------------------------------------------------------------

    async def panic_for_ever(self) -> None:
        """While quoting is not allowed: cancel everything and look, until nothing is listed; then look again now and then."""
        panic = self.panic
        while True:
            await self.panicking.wait()
            self.alarm.clear()
            was_flat = panic.flat
            if await panic.round() and not was_flat:
                since_ms = (panic.flat_ns - self.last_panic_ns) / 1e6 if self.last_panic_ns else 0
                self.actor.log.info("flat {:.0f} ms after the panic: {} cancelled by us, {} cancel tokens left", since_ms, panic.cancelled,
                                    panic.tokens if panic.tokens >= 0 else "unknown")
            with contextlib.suppress(TimeoutError):         # a new panic does not wait for the pause of the one before
                await asyncio.wait_for(self.alarm.wait(), panic.pause_s)

    # ---- the venue's clock, geography and lists --------------------------------------------------------------------

    async def skew_for_ever(self) -> None:
        """Compare the clocks at start and then a few times a minute: requests are signed with the time."""
        while True:
            async with self.reading:
                answer = await self._ask(self.reads, self.requests.get_public("/time"))
            again = answer is None
            if answer is not None and answer.status == 200 and answer.body.strip().isdigit():
                clock = self.actor.clock
                skew = clock_skew_s(int(answer.body), clock.at(answer.t_send_ns) / 1e9, clock.at(answer.t_ack_ns) / 1e9) \
                    if clock.simulated else clock_skew_s(int(answer.body), clock.now_s() - (answer.t_ack_ns - answer.t_send_ns) / 1e9, clock.now_s())
                again = self.skew.step(skew)
                if abs(skew) > SKEW_WARN_S * clock.rate:
                    self.actor.warn("clock_skew", f"the venue's clock is {skew:+.1f} s off ours: check the time service")
            await asyncio.sleep(SKEW_AGAIN_S if again or self.skew.bad else SKEW_EVERY_S)

    async def place_for_ever(self) -> None:
        """Ask now and then, and at once when the executor was told so, whether this address and this account may trade.

        No answer changes nothing. What the venue forbids is never bypassed: nothing is quoted, everything is cancelled.
        """
        url = urlsplit(self.actor.cfg.venue.geoblock_url)
        base = f"{url.scheme}://{url.netloc}" if url.netloc else ""
        pool = ConnectionPool(base, 1, TIMEOUT_S) if base else None
        try:
            if pool is not None:
                await connected(pool)
            while True:
                known = await self._ask_closed_only()
                if pool is not None:
                    known = await self._ask_geoblock(pool, Requests(base, self.auth).get_public(url.path or "/")) and known
                self.ask_place.clear()
                if self.geoblocked or self.closed_only or self._told_by_venue() or not known:
                    await asyncio.sleep(PLACE_AGAIN_S)
                else:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self.ask_place.wait(), PLACE_EVERY_S)
        finally:
            if pool is not None:
                await pool.close()

    async def _ask_geoblock(self, pool: ConnectionPool, request: bytes) -> bool:
        place = await self._read(pool, request, Geoblock)
        if place is not None:
            self.geoblocked = place.blocked
            if place.blocked:
                self.actor.error("geoblock", f"the venue does not accept orders from here ({place.country} {place.region})")
        return place is not None

    async def _ask_closed_only(self) -> bool:
        async with self.reading:
            found = await self._read(self.reads, self.requests.get("/auth/ban-status/closed-only", self._now_s()), ClosedOnly)
        if found is not None:
            self.closed_only = found.closed_only
            if found.closed_only:
                self.actor.error("closed_only", "the venue lets this account only close positions")
        return found is not None

    async def _read(self, pool: ConnectionPool, request: bytes, shape: type):
        """An answer of that shape, or None."""
        answer = await self._ask(pool, request)
        if answer is None or answer.status != 200:
            return None
        try:
            return msgspec.json.decode(answer.body, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            self.actor.warn("place", f"{shape.__name__}: the answer cannot be read: {e}")
            return None


async def connected(pool: ConnectionPool) -> None:
    """Open a pool and wait a moment for it. Without the venue the guardian judges all the same, and says so by itself."""
    with contextlib.suppress(UserError):
        await pool.start(1, CONNECT_S)


async def main(actor: Actor) -> None:
    """Judge, beat and panic until told to stop; the last word is that nobody may quote."""
    guardian = Guardian(actor)
    guardian.write(mono_ns())
    actor.ring_bells("guard")
    await asyncio.gather(*(connected(pool) for pool in (guardian.beats, guardian.cancels, guardian.reads)))
    tasks = [asyncio.create_task(t) for t in (guardian.check_for_ever(), guardian.beat_for_ever(), guardian.panic_for_ever(),
                                              guardian.skew_for_ever(), guardian.place_for_ever())]
    stopped = asyncio.create_task(actor.stopped.wait())
    await asyncio.wait([stopped, *tasks[:3]], return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    guardian.watch.allowed, guardian.watch.reasons = False, GUARD_BIT["start"]
    guardian.write(mono_ns())
    actor.ring_bells("guard")
    for pool in (guardian.beats, guardian.cancels, guardian.reads):
        await pool.close()
    for result in results:
        if isinstance(result, Exception):
            raise result


if __name__ == "__main__":
    run_async("guardian", main)
