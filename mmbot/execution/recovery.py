"""The slow half of order management: learning the truth from the venue at start, after a loss of sight, and every few seconds.

Owns: start-up (orders left or found, journal, trades, balances) and the orderly end. Its rooms: `asking` (single orders of unknown fate),
`comparison` (our books against the venue's). Acts on the `manager` only; reads through a `rest.RestClient` (injected).

At start, with ``execution.adopt`` = "cancel", every order of the account is cancelled and their absence verified, whoever sent them. With
"keep" only the orders of our own journal are; those of others are left alone and counted. Positions are rebuilt from all trades of every
listed window, whoever's orders they were, and shares that no trade explains are taken in from the balances.
Can go wrong: any read can fail. A failure is never taken for an empty answer: start-up stays in RECONCILING and tries again for ever. An
empty listing proves nothing before a cancel of everything was accepted, and orders that we know of are asked by id all the same.
"""

import asyncio
from collections.abc import Awaitable, Callable

from mmbot.execution.asking import Asking, rests
from mmbot.execution.comparison import DAY_PART_S, OVERLAP_S, Comparison
from mmbot.execution.http1 import NotSent, UnknownOutcome
from mmbot.execution.manager import OrderManager
from mmbot.execution.order import DONE, ONE_E4, PENDING, Order, id_words_of
from mmbot.execution.rest import VenueError
from mmbot.execution.wire import Outcome, parse_cancel
from mmbot.venues.polymarket.user_channel import UserChannel
from shm_layout.records import AS_HALTED, AS_READY, AS_RECONCILING, BUY, OE_ADOPTED, QK_POST_ONLY

BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.1, 5.0
FLAT_TRIES = 40


class NotFlat(Exception):
    """Orders still rest although they were cancelled."""


class Recovery(Asking, Comparison):
    """``reads``: open_orders, trades, order, balance, renew_balance of a `rest.RestClient`. ``sleep``: asyncio.sleep, unless a test says otherwise."""

    def __init__(self, manager: OrderManager, reads, api_key: str, funder: str, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep):
        self.m, self.reads, self.sleep = manager, reads, sleep
        self.channel = UserChannel(api_key, funder, self._market_of)
        self._begin()

    def _market_of(self, condition_id: str, token: str) -> tuple[int, int]:
        value = int(token) if token.isdecimal() else -1
        for window in self.m.by_market.values():
            if value in window.tokens:
                return window.market_id, window.tokens.index(value)
        return 0, -1

    def _wall_s(self) -> int:
        return self.m.wall_ns() // 1_000_000_000

    # ---- start -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """From nothing to READY: markets known, no order of ours at the venue, positions from its trades. Tries until it succeeds."""
        m, backoff = self.m, BACKOFF_FIRST_S
        m.state = AS_RECONCILING
        m.publish_nothing_own()
        while not m.stopping:
            m.publish_account(m.mono_ns())
            try:
                await self._start_once()
                return
            except (VenueError, NotFlat) as e:
                m.report.error("start", str(e))
            await self.sleep(backoff)
            backoff = min(backoff * 2, BACKOFF_MAX_S)

    async def _start_once(self) -> None:
        m = self.m
        await self._markets_known()
        self._remember_sent()
        listed = await self.reads.open_orders()
        for row in listed:
            if m.cfg.adopt == "cancel" or row.id.lower() in m.by_id:
                m.report.event("adopted")
                m.note(OE_ADOPTED, m.by_id.get(row.id.lower()) or self._order_of(row))
        if m.cfg.adopt == "cancel":
            await self._flat()
        else:
            await self._ours_gone()
        for order_id in list(m.journal.found):
            await self._ask(m.by_id[order_id], start=True)
        if left := [o for o in map(m.by_id.get, m.journal.found) if o.state != DONE]:
            raise NotFlat(f"{len(left)} orders of the journal still rest when asked by id although they were cancelled")
        losses = m.losses
        await self._trades(DAY_PART_S)
        if m.settlements is not None:
            m.settlements.load()        # merges are no trades: without them their shares would be missing, and their dollars a mystery
        await self._anchor()
        m.compact_journal()
        m.reread = ""
        self._last_ns = m.mono_ns()
        m.state = AS_READY
        m.synced(losses)
        m.on_wake(rehearse=False)

    def _remember_sent(self) -> None:
        """Orders of the journal whose end is not on file: known from here on, so that their trades are recognised as ours."""
        m = self.m
        for sent in m.journal.found.values():
            if sent.order_id in m.by_id:
                continue
            budget_u6 = sent.size_u6 if sent.kind != QK_POST_ONLY and sent.side == BUY else 0
            o = Order(sent.order_id, id_words_of(sent.order_id), sent.market_id, sent.token, sent.level, sent.side, sent.px_e4,
                      budget_u6 * ONE_E4 // sent.px_e4 or sent.size_u6, PENDING, 0, sent.kind, budget_u6)
            o.unknown = True
            m.by_id[sent.order_id] = o
            if window := m.by_market.get(sent.market_id):
                window.orders[o.order_id] = o
                window.own_due = True
        if m.journal.damaged:
            m.report.error("journal_damaged", f"{m.journal.damaged} damaged lines in the order journal were skipped")

    async def _markets_known(self) -> None:
        m, waited = self.m, 0.0
        while not m.stopping:
            m.read_markets()
            if m.by_market:
                return
            await self.sleep(0.02)
            waited += 0.02
            if waited >= 5.0:
                m.report.error("no_markets", "discovery has listed no market yet: not starting to trade")
                waited = 0.0

    async def _flat(self, tries: int = FLAT_TRIES) -> None:
        """Cancel everything of the account and verify that nothing is listed any more. Errors: VenueError, NotFlat."""
        why = "orders are still listed"
        for _ in range(tries):
            accepted = await self._cancelled(self.m.cancel_all)
            if not await self.reads.open_orders() and accepted:
                return
            why = "orders are still listed" if accepted else "the venue accepts no cancel"
            await self.sleep(0.05)
        raise NotFlat(f"{why} after {tries} times cancelling everything")

    async def _ours_gone(self) -> None:
        """Cancel the orders of our journal by id; other orders of the account are not ours to cancel. Errors: NotFlat."""
        ids = list(self.m.journal.found)
        if ids and not await self._cancelled(lambda: self.m.gateway.cancel(ids, self._wall_s())):
            raise NotFlat("the venue accepts no cancel")

    async def _cancelled(self, send) -> bool:
        """Send one cancel and judge its answer."""
        try:
            answer = await send()
        except (NotSent, UnknownOutcome) as e:
            self.m.report.error("cancel_all", str(e))
            return False
        done = parse_cancel(answer.status, answer.body)
        if done.outcome is not Outcome.ACCEPTED:
            self.m.report.error("cancel_all", done.error)
        return done.outcome is Outcome.ACCEPTED

    # ---- end -------------------------------------------------------------------------------------------------------

    async def stop(self, within_s: float = 2.0) -> bool:
        """Want nothing, cancel everything, verify; true if the venue has no order of ours. The journal is closed by the caller."""
        m = self.m
        m.stopping = True
        flat = False
        try:
            async with asyncio.timeout(within_s):
                while not flat:
                    try:
                        await (self._flat() if m.cfg.adopt == "cancel" else self._own_flat())
                        flat = not self._in_the_air() and await self._all_over()
                    except (VenueError, NotFlat) as e:
                        m.report.error("stop", str(e))
                    if not flat:
                        await self.sleep(0.05)
                await self._last_trades()
        except TimeoutError:
            m.report.error("stop", f"could not verify within {within_s:g} s that no order is left: the venue's dead-man switch cancels in 10 to 15 s")
        m.state = AS_HALTED
        m.on_wake(rehearse=False)
        m.publish_account(m.mono_ns())
        return flat

    def _in_the_air(self) -> bool:
        return any(o.state == PENDING and not o.unknown for w in self.m.by_market.values() for o in w.orders.values())

    async def _own_flat(self) -> None:
        """Cancel what is left of our own orders by id. Errors: NotFlat."""
        ids = [i for w in self.m.by_market.values() for i in w.orders]
        if ids and not await self._cancelled(lambda: self.m.gateway.cancel(ids, self._wall_s())):
            raise NotFlat("the venue accepts no cancel")

    async def _all_over(self) -> bool:
        """Nothing is listed; learn by id how each of our orders ended. False when one rests all the same. Errors: VenueError."""
        m, over = self.m, True
        for window in m.by_market.values():
            for o in list(window.orders.values()):
                row = await self.reads.order(o.order_id)
                if row is not None and rests(row):
                    over = False
                elif o.state != DONE:
                    m.answer_over(o, row.matched_u6 if row is not None else o.matched_u6, "stopped", m.mono_ns())
        return over

    async def _last_trades(self) -> None:
        try:
            await self._trades(OVERLAP_S)
        except VenueError as e:
            self.m.report.error("stop", str(e))
