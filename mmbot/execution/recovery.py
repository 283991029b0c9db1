"""The slow half of order management: learning the truth from the venue at start, after a loss of sight, and every few seconds.

Owns: start-up (leftover orders, journal, trades, balance), the answers to unknown outcomes, the periodic comparison with the venue's
books, and the orderly end. Acts on the `manager` only; reads through a `rest.RestClient` (injected).
Can go wrong: any read can fail. A failure is never taken for an empty answer: start-up stays in RECONCILING and tries again for ever,
an unknown order stays unknown, a comparison is put off. Every difference found is named (an error code, an order event) and mended.
"""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from mmbot.execution.http1 import NotSent, UnknownOutcome
from mmbot.execution.manager import OrderManager
from mmbot.execution.order import CANCELING, DONE, LIVE, PENDING, Order, id_words_of
from mmbot.execution.rest import OpenOrder, Trade, VenueError
from mmbot.execution.wire import Outcome, parse_cancel
from mmbot.inventory.positions import BOOKED, REVERSED
from mmbot.venues.polymarket.user_channel import Lost, UserChannel
from shm_layout.records import AS_HALTED, AS_READY, AS_RECONCILING, BUY, OE_ADOPTED, SELL

DAY_PART_S = 6 * 3600           # how far back start-up reads trades
OVERLAP_S = 60                  # how far back a comparison reads trades; trades that are not final yet are read however old they are
TRADES_AT_ONCE = 8
OVERDUE_S = 3                   # a leg that the user channel has not shown for so long was missed, not overtaken
LISTING_LAG_NS = 300_000_000    # an order that ended so shortly before a listing may still stand in it
ABSENT_TRIES = 4
#: waits before the first, second, ... question about an unknown order; then the last one again
ASK_AGAIN_NS = (0, 100_000_000, 300_000_000, 1_000_000_000, 2_000_000_000)
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.1, 5.0
FLAT_TRIES = 40
TAIL_TRIES = 3


class NotFlat(Exception):
    """Orders are still listed although everything was cancelled."""


class Recovery:
    """``reads``: open_orders, trades, order, balance of a `rest.RestClient`. ``sleep`` is asyncio.sleep unless a test says otherwise."""

    def __init__(self, manager: OrderManager, reads, api_key: str, funder: str, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep):
        self.m, self.reads, self.sleep = manager, reads, sleep
        self.channel = UserChannel(api_key, funder, self._market_of)
        self._tail_asked: dict[str, int] = {}
        self._read: dict[str, str] = {}         # status of each trade at the last reading
        self._unsettled: dict[str, int] = {}    # trades that were not final then, and when they matched (s)

    def _market_of(self, condition_id: str, token: str) -> tuple[int, int]:
        value = int(token) if token.isdecimal() else -1
        for window in self.m.by_market.values():
            if value in window.tokens:
                return window.market_id, window.tokens.index(value)
        return 0, -1

    def _wall_s(self) -> int:
        return self.m.wall_ns() // 1_000_000_000

    # ---- start and end ---------------------------------------------------------------------------------------------

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
        for sent in list(m.journal.found.values()):     # so that their trades are recognised as ours
            if sent.order_id not in m.by_id:
                window = m.by_market.get(sent.market_id)
                m.by_id[sent.order_id] = o = Order(sent.order_id, id_words_of(sent.order_id), sent.market_id, sent.token, sent.level, sent.side, sent.px_e4, sent.size_u6, PENDING, 0)
                o.unknown = True
                if window:
                    window.orders[o.order_id] = o
                    window.own_due = True
        if m.journal.damaged:
            m.report.error("journal_damaged", f"{m.journal.damaged} damaged lines in the order journal were skipped")
        for row in await self.reads.open_orders():
            m.report.event("adopted")
            o = m.by_id.get(row.id.lower()) or self._order_of(row)
            m.note(OE_ADOPTED, o)
        await self._flat()
        for order_id in list(m.journal.found):
            await self._ask(m.by_id[order_id], start=True)
        losses = m.losses
        await self._trades(DAY_PART_S)
        m.cash_u6 = (await self.reads.balance()).balance_u6
        m.compact_journal()
        m.reread = ""
        m.state = AS_READY
        m.synced(losses)
        m.on_wake(rehearse=False)

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
        m = self.m
        for _ in range(tries):
            try:
                answer = await m.cancel_all()
                done = parse_cancel(answer.status, answer.body)
                if done.outcome is not Outcome.ACCEPTED:
                    m.report.error("cancel_all", done.error)
            except (NotSent, UnknownOutcome) as e:
                m.report.error("cancel_all", str(e))
            if not await self.reads.open_orders():
                return
            await self.sleep(0.05)
        raise NotFlat(f"orders are still listed after {tries} times cancelling everything")

    async def stop(self, within_s: float = 2.0) -> bool:
        """Want nothing, cancel everything, verify; true if the venue lists no order of ours. The journal is closed by the caller."""
        m = self.m
        m.stopping = True
        flat = False
        try:
            async with asyncio.timeout(within_s):
                while not flat:
                    try:
                        await self._flat()
                        flat = not any(o.state == PENDING and not o.unknown for w in m.by_market.values() for o in w.orders.values())
                    except (VenueError, NotFlat) as e:
                        m.report.error("stop", str(e))
                    if not flat:
                        await self.sleep(0.05)
                await self._close_all()
        except TimeoutError:
            m.report.error("stop", f"could not verify within {within_s:g} s that no order is left: the venue's dead-man switch cancels in 10 to 15 s")
        m.state = AS_HALTED
        m.on_wake(rehearse=False)
        m.publish_account(m.mono_ns())
        return flat

    async def _close_all(self) -> None:
        """The venue is flat: learn how each of our orders ended, then read the trades once more."""
        m = self.m
        for window in m.by_market.values():
            for o in list(window.orders.values()):
                if o.confirmed:
                    m.answer_over(o, o.matched_u6, "stopped", m.mono_ns())
                else:
                    await self._ask(o, start=True)
        try:
            await self._trades(OVERLAP_S)
        except VenueError as e:
            m.report.error("stop", str(e))

    # ---- unknown outcomes ------------------------------------------------------------------------------------------

    async def resolve_unknown(self) -> None:
        """Ask about every unknown order that is due."""
        m = self.m
        for o in list(m.unknown.values()):
            if o.state != DONE and m.mono_ns() >= o.t_query_ns:
                await self._ask(o)
        m.on_wake(rehearse=False)

    async def _ask(self, o: Order, start: bool = False) -> None:
        """One question by order id. ``start``: everything was just cancelled, so an unknown id is over now."""
        m = self.m
        asked_ns = m.mono_ns()
        try:
            row = await self.reads.order(o.order_id)
        except VenueError as e:
            if start:
                raise
            o.t_query_ns = m.mono_ns() + ASK_AGAIN_NS[3]
            m.report.error("ask_order", str(e))
            return
        now = m.mono_ns()
        if o.state == DONE or (not start and not o.unknown):
            return                      # its end came by another way meanwhile
        if row is None:
            self._absent(o, start, now)
        elif row.status.upper().removeprefix("ORDER_STATUS_") in ("LIVE", "DELAYED", "UNMATCHED"):
            if o.t_cancel_ns < asked_ns:
                m.answer_live(o, row.matched_u6, now)
        else:
            m.answer_over(o, row.matched_u6, row.status.lower() or "over", now)

    def _absent(self, o: Order, start: bool, now: int) -> None:
        """The venue does not know the id. The POST may still be under way, so it is asked again before it is believed."""
        o.queries += 1
        o.t_query_ns = now + ASK_AGAIN_NS[min(o.queries, len(ASK_AGAIN_NS) - 1)]
        if not start and self.m.absent(o, now):
            return
        if start or o.queries >= ABSENT_TRIES:
            self.m.answer_over(o, o.matched_u6, "absent", now)

    # ---- comparison with the venue ---------------------------------------------------------------------------------

    async def compare(self) -> bool:
        """Read orders, trades and balance, mend every difference, and clear the way to quote again; false if a read failed."""
        m = self.m
        losses, resync, full = m.losses, m.resync_reason, bool(m.resync_reason or m.reread)
        m.reread = ""
        t0, fills = m.mono_ns(), m.positions.fills
        try:
            rows = await self.reads.open_orders()
            missed = await self._trades(DAY_PART_S if full else OVERLAP_S)
            balance = await self.reads.balance()
        except VenueError as e:
            m.report.error("compare", str(e))
            m.reread = m.reread or "the last comparison failed"
            return False
        self._compare_orders({row.id.lower(): row for row in rows}, t0)
        if m.positions.fills == fills:      # else the balance may be of before or after the fill
            m.cash_u6 = balance.balance_u6
        if missed and not resync:
            self._difference("missed_fill", f"{missed} trade legs were found by reading that the user channel had not shown")
        self._wait_for_tails()
        m.report.event("reconciles")
        m.synced(losses)
        m.on_wake(rehearse=False)
        return True

    def _difference(self, code: str, text: str) -> None:
        self.m.report.event("reconcile_diffs")
        self.m.report.error(code, text)

    def _compare_orders(self, listed: dict[str, OpenOrder], t0: int) -> None:
        m, now = self.m, self.m.mono_ns()
        for order_id, row in listed.items():
            o = m.by_id.get(order_id)
            if o is None:
                o = self._order_of(row)
                self._difference("foreign_order", f"{order_id[:12]} {row.side} {row.original_size} at {row.price} is not ours: cancelling it")
                self._cancel_found(o, now)
            elif o.state == DONE:
                if o.t_done_ns < t0 - LISTING_LAG_NS:
                    self._difference("zombie_order", f"{order_id[:12]} rests although it was over for us: cancelling it")
                    o.state = LIVE
                    self._cancel_found(o, now)
            elif o.unknown:
                if o.t_cancel_ns < t0:
                    m.answer_live(o, row.matched_u6, now)
            else:
                m.confirm(o, now)
                m.matched(o, row.matched_u6, now)
        for window in m.by_market.values():
            for o in list(window.orders.values()):
                if o.state == LIVE and o.t_live_ns < t0 - LISTING_LAG_NS and o.order_id not in listed:
                    self._difference("missing_order", f"{o.order_id[:12]} is not listed although it should rest: asking")
                    m.mark_unknown(o, "not listed")

    def _order_of(self, row: OpenOrder) -> Order:
        """An order we have no memory of, as the venue describes it."""
        market_id, token = self._market_of(row.market, row.asset_id)
        window = self.m.by_market.get(market_id)
        try:
            px_e4, size_u6, matched_u6 = row.px_e4, row.size_u6, row.matched_u6
        except ValueError:
            px_e4 = size_u6 = matched_u6 = 0
        o = Order(row.id.lower(), id_words_of(row.id), market_id, max(token, 0), 0,
                  BUY if row.side.upper() == "BUY" else SELL, px_e4, size_u6, LIVE, 0)
        o.matched_u6, o.confirmed = matched_u6, True
        return o

    def _cancel_found(self, o: Order, now: int) -> None:
        m = self.m
        window = m.by_market.get(o.market_id)
        m.by_id[o.order_id] = o
        if window is not None:
            window.orders[o.order_id] = o
            window.own_due = True
        m.note(OE_ADOPTED, o)
        m.report.event("adopted")
        if not m.cancel(window, [o], now):
            o.state = CANCELING             # not sent: asked about by id, found live, and cancelled then
            m.mark_unknown(o, "cancel not sent")

    async def _trades(self, back_s: int) -> int:
        """Read own trades of the last ``back_s`` seconds, and as far back as one is not final, and book what is new.

        Returns how many legs were new and long overdue. A trade is looked at again only when its status has changed.
        """
        overdue, now_s = 0, self._wall_s()
        since_s = min([now_s - back_s, *self._unsettled.values()])
        trades = await self.reads.trades(after=max(since_s, 0))
        before, self._read = self._read, {}
        again, self.m.rebook = self.m.rebook, False
        for i, trade in enumerate(trades):
            matched_s = int(trade.match_time) if str(trade.match_time).isdecimal() else now_s
            self._read[trade.id] = trade.state
            if trade.state in ("CONFIRMED", "FAILED"):
                self._unsettled.pop(trade.id, None)
            else:
                self._unsettled[trade.id] = max(matched_s - 1, now_s - DAY_PART_S)
            if before.get(trade.id) == trade.state and not again:
                continue
            new = self._book(trade)
            if new and now_s - matched_s >= OVERDUE_S:
                overdue += new
            if i % TRADES_AT_ONCE == TRADES_AT_ONCE - 1:
                await self.sleep(0)         # let the doorbell in
        return overdue

    def _book(self, trade: Trade) -> int:
        m, new = self.m, 0
        frame = msgspec.json.encode([{**msgspec.to_builtins(trade), "event_type": "trade"}])
        try:
            rows = self.channel.on_frame(frame, 0)
        except Lost as e:
            m.report.error("bad_trade", str(e))
            rows = e.rows
        for row in rows:
            if m.knows_market(row):
                new += m.book(row, m.mono_ns()) in (BOOKED, REVERSED)
        return new

    def _wait_for_tails(self) -> None:
        """Matched shares whose trades do not come: after some full reads the venue's trades are believed, and the gap is named."""
        asked, self._tail_asked = self._tail_asked, {}
        for window in self.m.by_market.values():
            for o in list(window.tail.values()):
                self._tail_asked[o.order_id] = n = asked.get(o.order_id, 0) + 1
                self.m.reread = "matched shares without a trade"
                if n > TAIL_TRIES:
                    self._difference("unbooked_fill", f"{o.order_id[:12]}: {o.open_u6 / 1e6:g} matched shares never came with a trade")
                    window.tail.pop(o.order_id)
