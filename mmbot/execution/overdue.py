"""What must happen because time has passed: orders past their deadline, silence about an order, modes that end, breakers that close.

Owns: `Overdue`, the part of the order manager that looks at the clock, every few milliseconds at most (`WATCH_NS`). State is the manager's.

The rules, all of them toward safety:
- An order without an answer past its deadline is cancelled by its id at once, whether the venue has it or not (a cancel of an unknown id
  does nothing), and then asked about.
- An order whose fate is unknown and past its deadline, or whose cancel is not answered, is cancelled by its id every `CANCEL_AGAIN_NS` until
  its fate is known: that a cancel leaves depends on no read.
- An order that takes may be held back by the venue for a moment. When nothing is heard of its end it is asked about, and past its deadline it is
  cancelled by its id like one of unknown fate: it never rests.
- An acknowledged order that the user channel has not shown within ``deaf_ms`` proves the channel deaf: no quotes until everything was read
  again, and the feed is told to connect anew (``user_deaf``). A new connection may be as deaf, so quoting also waits, twice as long each
  time, until an order is shown in time.
- An order unknown for longer than ``unknown_s`` stops quoting.
- When the venue refused as a whole, one cancel at a time tests whether it does still.

Can go wrong: the loop is late, and all of this with it; the guardian sees that.
"""

from mmbot.execution.http1 import NotSent, UnknownOutcome
from mmbot.execution.order import LIVE, PENDING, Order
from mmbot.execution.order_journal import loss_line
from shm_layout.records import AS_READY, QK_POST_ONLY, VENUE_MODES

WATCH_NS = 4_000_000
DEAF_HOLD_S, DEAF_HOLD_MAX_S = 5.0, 60.0
CANCEL_AGAIN_NS = 1_000_000_000
HELD_NS = 1_000_000_000         # an order that the venue holds back is asked about when nothing has been heard of it for so long
PING_NS = 1_000_000_000
NO_ORDER = "0x" + "0" * 64          # an id nobody has: cancelling it does nothing and is answered


class Overdue:
    """Time-driven rules for `mmbot.execution.manager.OrderManager`."""

    def _watch(self, now: int) -> None:
        """Look at everything that time alone can make due."""
        self._watch_ns = now + WATCH_NS
        if now >= self.venue.due_ns:
            self.venue.tick(now)
        self._heed_venue(now)
        if now >= self.split.due_ns and self.split.look(now, self.mid_u6):
            self._account_dirty = True
        self._cancel_overdue(now)
        self._ask_held(now)
        self._listen(now)
        if self.unknown:
            oldest = min(o.t_unknown_ns for o in self.unknown.values())
            self.unknown_too_long = now - oldest > self._unknown_ns
        else:
            self.unknown_too_long = False
        if self.venue.probe_due(now) and self.venue.may_cancel(now) and self.cancel_tokens.for_safety(now):
            self._probe(now)

    def _heed_venue(self, now: int) -> None:
        """Tell a change of the venue's mode, and have the venue read again when an outage is over."""
        venue = self.venue
        if venue.mode != self._seen_mode:
            self._seen_mode = venue.mode
            self._account_dirty = True
            name = VENUE_MODES[venue.mode]
            self.report.error(f"venue_{name}", f"the venue's mode is {name}: {venue.why}")
        if venue.rereads != self._seen_rereads:
            self._seen_rereads = venue.rereads
            self._lost_sight("the venue answers again after an outage")
            self.report.event("rereads")

    def _cancel_overdue(self, now: int) -> None:
        """Cancel by id what must not rest any more, although nobody has said that it does."""
        if self.state != AS_READY:          # start-up cancels everything itself
            return
        horizon = now - CANCEL_AGAIN_NS
        for window in self.by_market.values():
            due = [o for o in window.orders.values()
                   if (o.unknown or o.state != LIVE or o.kind != QK_POST_ONLY) and now > o.deadline_ns and o.t_cancel_ns <= horizon]
            for o in due:
                if o.state == PENDING and not o.unknown:
                    self._post_lost(o.t_sent_ns, now)
            if not due or not self.cancel(window, due, now):
                continue
            for o in due:
                self.mark_unknown(o, "no answer in time")

    def _ask_held(self, now: int) -> None:
        """Have the venue asked about orders that take, were accepted, and of whose end nothing has been heard."""
        for window in self.by_market.values():
            for o in window.takers.values():
                if o.state == LIVE and not o.unknown and now >= max(o.t_query_ns, o.t_live_ns + HELD_NS):
                    self.mark_unknown(o, "no word of how it ended")

    def _listen(self, now: int) -> None:
        """Is there an acknowledged order that the user channel should have shown by now?"""
        waiting = self._unshown
        if not waiting:
            return
        if not self.user_ok:            # what was missed is known to be missed
            waiting.clear()
            return
        o = next(iter(waiting.values()))
        if now - o.t_live_ns <= self._deaf_ns:
            return
        waiting.clear()
        self.user_deaf += 1
        self._deaf_hold_s = min(max(2 * self._deaf_hold_s, DEAF_HOLD_S), DEAF_HOLD_MAX_S)
        self._deaf_until_ns = now + int(self._deaf_hold_s * 1e9)
        self.report.event("deaf")
        self.report.error("user_deaf", f"{o.order_id[:12]} was acknowledged and never shown on the user channel: reading everything again, "
                                       f"no quotes for {self._deaf_hold_s:g} s")
        self._lost_sight("user channel deaf")

    def _look_at_result(self) -> None:
        """Has the result fallen too far from its best of the last day?"""
        if self.state != AS_READY:          # the trades of before have not all been read
            return
        was_open, before = self.loss.open, self.loss.drop_u6
        if self.loss.update(self.positions.realized_u6, self.wall_ns(), self.cash_u6 + self.positions.held_u6) and not was_open:
            self._account_dirty = True
            self.report.error("loss", f"the result fell by {self.loss.drop_u6 / 1e6:.2f} of {self.loss.bankroll_u6 / 1e6:.2f} dollars from its best of the last 24 h: "
                                      "no quotes")
        if self.loss.drop_u6 != before:
            self._lines.append(loss_line(self.loss.state()))

    def shown(self, o: Order) -> None:
        """The user channel has shown this order; a channel that does so in time is not deaf any more."""
        if self._deaf_hold_s and not o.shown and self._t_wake_ns >= self._deaf_until_ns and (
                not o.t_live_ns or self._t_wake_ns - o.t_live_ns <= self._deaf_ns):
            self._deaf_hold_s = 0.0
        o.shown = True
        self._unshown.pop(o.order_id, None)

    # ---- probes ----------------------------------------------------------------------------------------------------

    def _probe(self, now: int) -> None:
        """Cancel an order that is over, or none at all, to see whether the venue answers."""
        order_id = self._archive[-1].order_id if self._archive else NO_ORDER
        try:
            future = self.gateway.cancel([order_id], self.wall_ns() // 1_000_000_000)
        except NotSent as e:
            self.venue.probe_sent(now)
            self.venue.silent(str(e), now)
            return
        self.venue.probe_sent(now)
        self.cancel_tokens.spend(1, now)
        self.report.event("probes")
        future.add_done_callback(self._probed)

    def _probed(self, future) -> None:
        try:
            answer = future.result()
        except UnknownOutcome as e:
            self._unheard(e)
        else:
            self._heard_cancel(answer)
        self._answered()

    def ping(self) -> None:
        """Measure a round trip when nothing else does. Call about once a second."""
        now = self.mono_ns()
        if now - self._heard_ns < PING_NS or not self.gateway.can_cancel:
            return
        try:
            self.gateway.ping().add_done_callback(self._pinged)
        except NotSent:
            return

    def _pinged(self, future) -> None:
        try:
            answer = future.result()
        except UnknownOutcome as e:
            self._unheard(e)
            return
        self._heard_ns = answer.t_ack_ns
        self.venue.round_trip(answer.t_ack_ns - answer.t_send_ns, answer.t_ack_ns)
