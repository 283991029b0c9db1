"""Discovery: which windows exist, from Gamma, checked against the CLOB's own word.

Writes: the `markets` seqlock, on change and at least every second. Reads: its own seqlock at start; `md.market`, for ticks and resolutions
that the market channel shows before Gamma does; `oracle`, to compare our strikes with what the venue says after the end. Can go wrong:
Gamma is away, slow, or does not know a window yet (the last table stands, asked less and less often, counted, logged once a minute); a market
that Gamma lists before the CLOB has its book (not open until it has); a market we must not trade (refused, with the reason in the error slots).
"""

import asyncio
from decimal import Decimal

import aiohttp

from mmbot.actor import Actor, run_async
from mmbot.clock import mono_ns
from mmbot.venues.polymarket import gamma
from mmbot.venues.polymarket.prints import E18, boundary_index
from shm_layout import records as r
from shm_layout import seqlock

TICK_S = 0.1
WRITE_NS = 1_000_000_000
TIMEOUT_S = 5.0
MAX_ANSWER_BYTES = 1 << 20
RECORDS_PER_TICK = 1024
#: longest pause between questions about a window that may be traded, and between those about one that is only checked
BACKOFF_CAP_S, CHECK_PAUSE_S = 8.0, 10.0
_HEADERS = {"User-Agent": "mmbot"}
_FAILURES = (aiohttp.ClientError, TimeoutError, OSError)


class Discovery:
    """The table of windows, kept true by asking Gamma."""

    def __init__(self, actor: Actor, session: aiohttp.ClientSession):
        self.actor, self.session = actor, session
        self.table = gamma.Table([gamma.DURATIONS[d] for d in actor.cfg.markets.durations], actor.cfg.markets.lead_s)
        self._out = actor.seqlock_writers["markets"]
        self._market, self._oracle = actor.ring_readers["md.market"], actor.seqlock_readers["oracle"]
        self._asked_ns: dict[tuple[int, int], int] = {}
        self._failed: dict[tuple[int, int], int] = {}       # how often in a row asking about a window failed
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
                if key not in self._asking and now_ns - self._asked_ns.get(key, -1 << 62) >= self._pause_s(key, now_s) * 1e9:
                    self._asked_ns[key] = now_ns
                    self._asking.add(key)
                    task = asyncio.create_task(self._ask(key))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
            self._heed_channel()
            self.write(now_ns, now_s)
            await asyncio.sleep(TICK_S)
        for task in self._tasks:
            task.cancel()

    def _pause_s(self, key: tuple[int, int], now_s: float) -> float:
        """Time between two questions about a window: longer after each failure, and when only its check is left."""
        poll_s, failed = self.actor.cfg.markets.poll_s, self._failed.get(key, 0)
        if sum(key) <= now_s:
            known = self.table.windows.get(r.market_id(*key))
            if known is not None and known.outcome != r.NO_OUTCOME:
                return max(poll_s, CHECK_PAUSE_S)
            return poll_s * 2 ** min(failed, 6)
        return min(poll_s * 2 ** min(failed, 6), max(poll_s, BACKOFF_CAP_S))

    def _heed_channel(self) -> None:
        """Resolutions and finer ticks that the market channel has shown."""
        rec = self._market.rec
        for _ in range(RECORDS_PER_TICK):
            if not self._market.poll():
                return
            m = rec[0]
            market_id = int(m["market_id"])
            self.table.finer(market_id, int(m["tick_e4"]))
            if m["kind"] == r.MK_RESOLVED and not self.table.resolved(market_id, int(m["token"])):
                self.actor.error("outcome_differs", f"market {market_id}: the market channel names another winner than Gamma")

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

    # -- asking --

    async def _ask(self, key: tuple[int, int]) -> None:
        try:
            data = await self._get(self.actor.cfg.venue.gamma_url + gamma.event_path(*key))
            window = gamma.parse_event(data, *key)
            said = window.outcome
            window = self.table.merge(window)
            if window.outcome < 0:
                await self._ask_venue(window)
            known = self.table.windows.get(r.market_id(*key))
            if known is not None and said >= 0 and known.outcome not in (r.NO_OUTCOME, said):
                self.actor.error("outcome_differs", f"{gamma.slug(*key)}: Gamma names another winner than the market channel did")
            self.table.put(self.table.merge(window), mono_ns())
            self._check_strike(window)
            self._failed.pop(key, None)
        except gamma.BadMarket as e:
            self.actor.bad_input("market_refused", str(e))
        except _FAILURES as e:
            self._failed[key] = self._failed.get(key, 0) + 1
            self.actor.vitals.event("request_errors")
            absent = isinstance(e, aiohttp.ClientResponseError) and e.status == 404
            if absent and sum(key) <= self.actor.clock.now_s():
                return              # a window that is over and not listed: nothing can be traded or redeemed for lack of it here
            what = "Gamma does not list it" if absent else f"Gamma: {str(e) or type(e).__name__}"
            self.actor.warn("gamma_failed", f"{gamma.slug(*key)}: {what}")
        finally:
            self._asking.discard(key)

    async def _ask_venue(self, window: gamma.Window) -> None:
        """The taker delay stands only in the CLOB's own market info; until it answers the delay is taken to be on.

        A market that Gamma lists before the CLOB knows it, or before it has a book, accepts no orders yet.
        """
        if window.asked_venue:
            return
        name, clob = gamma.slug(window.start_s, window.duration_s), self.actor.cfg.venue.clob_url
        try:
            info = gamma.parse_clob_market(await self._get(f"{clob}/clob-markets/{window.condition_id}"))
            differences = gamma.agree(window, info)
            await self._get(f"{clob}/book?token_id={window.token_up}")
        except _FAILURES as e:
            self.actor.vitals.event("request_errors")
            if isinstance(e, aiohttp.ClientResponseError) and e.status == 404:
                window.accepting = 0
                self.actor.warn("market_without_book", f"{name}: listed by Gamma, without a book at the CLOB: not open yet")
            else:
                self.actor.warn("market_info_failed", f"{name}: {str(e) or type(e).__name__}")
            return
        for text in differences:
            self.actor.warn("market_differs", text)
        window.asked_venue = bool(info.accepting)

    def _check_strike(self, window: gamma.Window) -> None:
        """The venue's price to beat and final price, once it tells them, against the prints we recorded."""
        if window.price_to_beat is None and window.final_price is None or self._oracle.read() <= 0:
            return
        for text in gamma.check_strike(window, self._print_at):
            self.actor.error("strike_differs", text)

    def _print_at(self, t_s: int) -> Decimal | None:
        held = self._oracle.rec[0]["boundary"][boundary_index(t_s * 1000)]
        if int(held["t_obs_ms"]) != t_s * 1000:
            return None
        return Decimal(int(held["px_units"])) + Decimal(int(held["px_frac_e18"])) / E18

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
