"""Cancel everything of the account and see that it is gone: the panic of the guardian.

Owns: the rule of when the account counts as flat, and the pace of the tries. Works on connections of its own that nobody else uses.
Who calls: the guardian (again and again while quoting is not allowed). Reads and writes: nothing but the venue.
Can go wrong: no answer (asked again on another connection before the first one has timed out), a refusal (tried again, soon at first), an
empty list of open orders although the cancel was never accepted (not believed: flat needs both, the accepted cancel and then the empty list).
Source: venue protocol, place and cancel; own orders; rate limits (a cancel-all costs one token and one for each order).
"""

import asyncio
from collections.abc import Callable

import msgspec

from mmbot.clock import mono_ns
from mmbot.execution.http1 import ConnectionPool, HttpAnswer, NotSent, UnknownOutcome
from mmbot.execution.rest import Page
from mmbot.execution.wire import LAST_CURSOR, ErrorCode, Outcome, Requests, parse_cancel, rate_limit

HEDGE_S, HEDGES = 0.15, 3   # without an answer for so long, the same request goes out on another connection as well, so often ...
AGAIN_S = 1.0               # ... and then more slowly
GIVE_UP_S, PATIENCE_S = 2.0, 8.0
FIRST_PAUSE_S, LAST_PAUSE_S = 0.02, 0.5     # between two rounds that failed
LOOKS_S = (0.05, 0.1, 0.2, 0.4)             # after the first flat round, look again so soon: a POST may still be in the air
STILL_FLAT_S = 1.0                          # and then so often
DISTRUST_LOOKS = 5                          # each so many looks cancel again, whatever the list says


class Flat:
    """One panic after another. ``now_s``: wall clock for signing; ``event(name, n)`` counts; ``warn(code, text)`` tells.

    flat_ns: since when the venue lists nothing after an accepted cancel-all, CLOCK_MONOTONIC; cancelled: orders cancelled in this panic;
    tokens: cancel tokens left as the venue last said (-1: not said).
    """

    def __init__(self, pool: ConnectionPool, requests: Requests, now_s: Callable[[], int], event: Callable[..., None],
                 warn: Callable[[str, str], None]):
        self._pool, self._requests, self._now_s, self._event, self._warn = pool, requests, now_s, event, warn
        self.flat_ns = self._number = 0
        self.tokens = -1
        self.begin()

    def begin(self) -> None:
        """A new panic: what was cancelled and seen before it says nothing now, and neither do answers that are still on their way."""
        self._number += 1
        self.flat = self._accepted = False
        self.cancelled = self._failures = self._looks = 0
        self._wait_s = 0.0

    @property
    def pause_s(self) -> float:
        """How long to wait before the next round."""
        if not self.flat:
            return max(min(FIRST_PAUSE_S * 2 ** min(self._failures, 10), LAST_PAUSE_S), self._wait_s)
        return LOOKS_S[self._looks - 1] if self._looks <= len(LOOKS_S) else STILL_FLAT_S

    async def round(self) -> bool:
        """Cancel all, then list; true when the account is flat. A round that only looks leaves the cancel out."""
        number = self._number
        if not self.flat or self._looks % DISTRUST_LOOKS == DISTRUST_LOOKS - 1:
            await self._cancel()
        nothing_listed, was_flat = await self._nothing_listed(), self.flat
        if number != self._number:
            self._accepted = False
            return False
        self.flat = self._accepted and nothing_listed
        if self.flat:
            self.flat_ns = self.flat_ns if was_flat else mono_ns()
            self._looks, self._failures = self._looks + 1, 0
        else:
            self._looks, self._failures = 0, self._failures + 1
        return self.flat

    async def _cancel(self) -> None:
        answer = await self._ask(lambda: self._requests.cancel_all(self._now_s()))
        if answer is None:
            return
        done, limit = parse_cancel(answer.status, answer.body), rate_limit(answer.headers)
        self.tokens = limit.remaining if limit.remaining >= 0 else self.tokens
        self._event("cancels", len(done.canceled))
        self.cancelled += len(done.canceled)
        self._accepted = self._accepted or done.outcome is Outcome.ACCEPTED
        self._wait_s = min(max(limit.retry_after_s, 0.0), STILL_FLAT_S) if done.code is ErrorCode.RATE_LIMITED else 0.0
        if done.outcome is not Outcome.ACCEPTED:
            self._warn("cancel_all", done.error)

    async def _nothing_listed(self) -> bool:
        listing = await self._ask(lambda: self._requests.get("/data/orders", self._now_s()))
        if listing is None or listing.status != 200:
            return False
        try:
            page = msgspec.json.decode(listing.body, type=Page)
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            self._warn("listing", f"the list of open orders cannot be read: {e}")
            return False
        return not page.data and page.next_cursor in ("", LAST_CURSOR)

    async def _ask(self, make: Callable[[], bytes]) -> HttpAnswer | None:
        """The first answer to a request that may run more than once: it is sent again and again on other connections until one comes.

        One of the sendings waits long, for a venue that is only slow; the others give up soon, for connections that lead nowhere. None when
        there is no answer at all. ``make`` signs each sending anew.
        """
        end, sent, trouble = mono_ns() + int(PATIENCE_S * 1e9), 0, ""
        waiting: set[asyncio.Future] = set()
        while (left_s := (end - mono_ns()) / 1e9) > 0:
            try:
                waiting.add(self._pool.send_now(make(), left_s if sent == 1 else GIVE_UP_S))
                self._event("requests")
                sent += 1
            except NotSent as e:
                trouble = str(e)
            pause_s = min(HEDGE_S if sent < HEDGES else AGAIN_S, left_s)
            if not waiting:
                await asyncio.sleep(min(FIRST_PAUSE_S, left_s))     # a lost connection is made anew meanwhile
                continue
            done, waiting = await asyncio.wait(waiting, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                error = future.exception()
                if error is None:
                    for other in waiting | done:
                        other.add_done_callback(_swallow)
                    return future.result()
                if not isinstance(error, UnknownOutcome):
                    raise error
                trouble = str(error)
        for other in waiting:
            other.add_done_callback(_swallow)
        self._event("request_errors")
        self._warn("venue", trouble)
        return None


def _swallow(future: asyncio.Future) -> None:
    if not future.cancelled():
        future.exception()
