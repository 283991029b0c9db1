"""Discovery: which windows exist, from Gamma.

Writes: the `markets` seqlock, on change and at least every second. Reads: nothing but its own seqlock at start. Can go wrong: Gamma is
away, slow, or does not know a window yet (the last table stands, counted, logged once a minute); a market we must not trade (refused,
with the reason in the error slots).
"""

import asyncio

import aiohttp

from mmbot.actor import Actor, run_async
from mmbot.clock import mono_ns
from mmbot.venues.polymarket import gamma
from shm_layout import seqlock

TICK_S = 0.1
WRITE_NS = 1_000_000_000
TIMEOUT_S = 5.0
MAX_ANSWER_BYTES = 1 << 20
_HEADERS = {"User-Agent": "mmbot"}


class Discovery:
    """The table of windows, kept true by asking Gamma."""

    def __init__(self, actor: Actor, session: aiohttp.ClientSession):
        self.actor, self.session = actor, session
        self.table = gamma.Table([gamma.DURATIONS[d] for d in actor.cfg.markets.durations], actor.cfg.markets.lead_s)
        self._out = actor.seqlock_writers["markets"]
        self._asked_ns: dict[tuple[int, int], int] = {}
        self._absent: dict[tuple[int, int], int] = {}       # how often in a row Gamma did not know a window
        self._asking: set[tuple[int, int]] = set()
        self._tasks: set[asyncio.Task] = set()
        self._written_ns = 0
        if seqlock.read(self._out.mem, 0, self._out.words) > 0:
            self.table.recover(self._out.rec[0], actor.clock.now_s())
        else:
            self._out.words[:] = 0

    async def run(self) -> None:
        """Ask and write until the actor stops."""
        while not self.actor.stopping:
            now_ns, now_s = mono_ns(), self.actor.clock.now_s()
            for key in self.table.wanted(now_s):
                if key not in self._asking and now_ns - self._asked_ns.get(key, -1 << 62) >= self._pause_ns(key, now_s):
                    self._asked_ns[key] = now_ns
                    self._asking.add(key)
                    task = asyncio.create_task(self._ask(key))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
            self.write(now_ns, now_s)
            await asyncio.sleep(TICK_S)
        for task in self._tasks:
            task.cancel()

    def _pause_ns(self, key: tuple[int, int], now_s: float) -> float:
        """Time between two questions about a window; a past one that Gamma does not know is asked for less and less often."""
        absent = self._absent.get(key, 0) if key[0] + key[1] <= now_s else 0
        return self.actor.cfg.markets.poll_s * 2 ** min(absent, 6) * 1e9

    def write(self, now_ns: int, now_s: float) -> None:
        """Publish the table if a row changed, or if the last time was a second ago."""
        rec = self._out.rec[0]
        changed = self.table.fill(rec, now_s)
        if not changed and now_ns - self._written_ns < WRITE_NS:
            return
        if changed:
            rec["version"] += 1
            self.actor.vitals.event("records")
        self._written_ns = now_ns
        rec["t_update_ns"] = now_ns
        self._out.write()

    async def _ask(self, key: tuple[int, int]) -> None:
        try:
            data = await self._get(self.actor.cfg.venue.gamma_url + gamma.event_path(*key))
            window = self.table.merge(gamma.parse_event(data, *key))
            if not window.asked_venue and window.outcome < 0:
                await self._ask_venue(window)
            self.table.put(window, mono_ns())
            self._absent.pop(key, None)
        except gamma.BadMarket as e:
            self.actor.bad_input("market_refused", str(e))
        except (aiohttp.ClientError, TimeoutError, OSError) as e:
            self.actor.vitals.event("request_errors")
            if isinstance(e, aiohttp.ClientResponseError) and e.status == 404:
                self._absent[key] = self._absent.get(key, 0) + 1
                if sum(key) <= self.actor.clock.now_s():
                    return          # a window that is over and not listed: nothing can be traded or redeemed for lack of it here
            self.actor.warn("gamma_failed", f"{gamma.slug(*key)}: {str(e) or type(e).__name__}")
        finally:
            self._asking.discard(key)

    async def _ask_venue(self, window: gamma.Window) -> None:
        """The taker delay stands only in the CLOB's own market info; until it answers the delay is taken to be on."""
        try:
            data = await self._get(f"{self.actor.cfg.venue.clob_url}/clob-markets/{window.condition_id}")
        except (aiohttp.ClientError, TimeoutError, OSError) as e:
            self.actor.vitals.event("request_errors")
            self.actor.warn("market_info_failed", f"{gamma.slug(window.start_s, window.duration_s)}: {str(e) or type(e).__name__}")
            return
        window.taker_delayed, version = gamma.parse_clob_market(data)
        if version != window.version:
            raise gamma.BadMarket(f"{gamma.slug(window.start_s, window.duration_s)}: Gamma says protocol version {window.version}, "
                                  f"the CLOB says {version}")
        window.asked_venue = True

    async def _get(self, url: str) -> bytes:
        self.actor.vitals.event("requests")
        async with self.session.get(url) as answer:
            answer.raise_for_status()
            data = await answer.content.read(MAX_ANSWER_BYTES + 1)
            while not answer.content.at_eof() and len(data) <= MAX_ANSWER_BYTES:
                data += await answer.content.read(MAX_ANSWER_BYTES + 1)
        if len(data) > MAX_ANSWER_BYTES:
            raise gamma.BadMarket(f"an answer of more than {MAX_ANSWER_BYTES} bytes from {url}")
        return data


async def main(actor: Actor) -> None:
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout, headers=_HEADERS, auto_decompress=True) as session:
        await Discovery(actor, session).run()


if __name__ == "__main__":
    run_async("discovery", main)
