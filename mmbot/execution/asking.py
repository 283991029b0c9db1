"""Questions to the venue by order id: what became of an order whose answer was lost, and how much of a cancelled one was matched.

Owns: `Asking`, the part of `recovery.Recovery` that settles single orders. Acts on the manager; reads through the injected client.
Can go wrong: the read fails (asked again later; an error is never an answer); the venue does not know the id although the POST may still be
under way (asked several times before it is believed); an order rests although its cancel was confirmed (cancelled again, and named).
"""

from mmbot.execution.order import CANCELING, DONE, LIVE, Order
from mmbot.execution.rest import OpenOrder, VenueError
from shm_layout.records import OE_ADOPTED

ABSENT_TRIES = 4
#: waits before the first, second, ... question about an unknown order; then the last one again
ASK_AGAIN_NS = (0, 100_000_000, 300_000_000, 1_000_000_000, 2_000_000_000)
STILL_LIVE_TRIES = 3            # an order that is listed live so often after its confirmed cancel does rest
_RESTING = ("LIVE", "DELAYED", "UNMATCHED")


def rests(row: OpenOrder) -> bool:
    """Whether an order, as the venue describes it, may still fill."""
    return row.status.upper().removeprefix("ORDER_STATUS_") in _RESTING


class Asking:
    """``self.m`` the order manager, ``self.reads`` the venue's reads."""

    async def resolve_unknown(self) -> None:
        """Ask about every order that is due: those of unknown fate, and those over without the venue's last word."""
        m = self.m
        for o in list(m.unknown.values()):
            if o.state != DONE and m.mono_ns() >= o.t_query_ns:
                await self._ask(o)
        for o in list(m.cut.values()):
            if m.mono_ns() >= o.t_query_ns:
                await self._ask_last_word(o)
        m.on_wake(rehearse=False)

    async def _row(self, o: Order) -> tuple[bool, OpenOrder | None]:
        """(was there an answer, the order as the venue knows it)."""
        try:
            return True, await self.reads.order(o.order_id)
        except VenueError as e:
            o.t_query_ns = self.m.mono_ns() + ASK_AGAIN_NS[3]
            self.m.report.error("ask_order", str(e))
            return False, None

    async def _ask(self, o: Order, start: bool = False) -> None:
        """One question by order id. ``start``: everything was just cancelled, so an unknown id is over now. Errors, at start: VenueError."""
        m = self.m
        asked_ns = m.mono_ns()
        if start:
            row = await self.reads.order(o.order_id)
        else:
            answered, row = await self._row(o)
            if not answered:
                return
        now = m.mono_ns()
        if o.state == DONE or (not start and not o.unknown):
            return                      # its end came by another way meanwhile
        if row is None:
            self._absent(o, start, now)
        elif rests(row):
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

    async def _ask_last_word(self, o: Order) -> None:
        """How much of a cancelled order was matched, now that the user channel has not said so in time."""
        m = self.m
        answered, row = await self._row(o)
        if not answered or o.final:
            return
        o.queries += 1
        o.t_query_ns = m.mono_ns() + ASK_AGAIN_NS[min(o.queries, len(ASK_AGAIN_NS) - 1)]
        if row is not None and not rests(row):
            m.last_word(o, row.matched_u6, m.mono_ns())
        elif row is None and o.queries >= ABSENT_TRIES:
            m.last_word(o, o.matched_u6, m.mono_ns())
        elif row is not None and o.queries >= STILL_LIVE_TRIES:
            self._difference("zombie_order", f"{o.order_id[:12]} rests although its cancel was confirmed: cancelling it")
            m.cut.pop(o.order_id, None)
            self._cancel_found(o, m.mono_ns())

    def _cancel_found(self, o: Order, now: int) -> None:
        """Take an order that rests at the venue, and that we do not want, into our books and cancel it."""
        m = self.m
        window = m.by_market.get(o.market_id)
        m.by_id[o.order_id] = o
        o.state, o.final = LIVE, True
        if window is not None:
            window.tail.pop(o.order_id, None)
            window.orders[o.order_id] = o
            window.own_due = True
        m.note(OE_ADOPTED, o)
        m.report.event("adopted")
        if not m.cancel(window, [o], now):
            o.state = CANCELING             # not sent: asked about by id, found live, and cancelled then
            m.mark_unknown(o, "cancel not sent")

    def _difference(self, code: str, text: str) -> None:
        self.m.report.event("reconcile_diffs")
        self.m.report.error(code, text)
