"""The order manager: what the core desires and what lives at the venue are brought together here, and only here.

Owns: every own order from before its POST to its end, the positions, the token buckets, and the executor's outputs (`account`, `own`,
`orders`). Reads: `targets`, `markets`, `guard`, `user`. Runs in the executor's event loop, single-threaded: `on_wake` for the doorbell,
callbacks for answers; slow reads live in `recovery`. No sockets and no clock of its own: transport, pool and clocks are injected.

Rooms: `sending` (write ahead, post, cancel), `answers` (what an answer means), `fills` (user records and trades), `overdue` (what time
alone makes due), `ahead` (what is done while nothing happens); they share this object's state. What the venue lets us do stands in `modes`, how much of it in `rate`, our own limits
to errors and losses in `breaker`.

The path from a bell to a POST: read the target, `diff`, take pre-signed orders, write ahead, one write. Everything else (order
events, own orders, account record, counters) waits until the bytes are out; `own` follows at once, ahead of the venue's book frame.

Order states: PENDING (sent, not confirmed) -> LIVE -> CANCELING -> DONE. A POST or cancel whose answer is lost or not understood keeps
its state and is marked unknown: its key is busy until the venue, asked by order id, has said what became of it; nothing is repeated blindly.

Hops. decide_wake (t_wake - the decision that changed the quotes), wake_send, recv_send and send_ack are recorded only for a POST that a
fresh decision caused directly: sent in the wake that first saw that decision, holding at least one quote that this decision changed, and
with the stamps of that very decision. Posts that waited (churn interval, rate budget, self-mint, an open answer, a re-quote after a fill) are
counted as ``throttled`` events instead, because their waiting is policy and not latency. One value per request, not per order.

Can go wrong: the journal cannot be written (no POST leaves; quoting stops until it can); no free connection (tried again 1 ms later);
the venue's user channel or the guardian falls silent, the venue as a whole refuses or slows down, a breaker opens (desired is empty for
all markets, and ``halts`` of the account says why; cancels go on).
"""

from collections import deque

from mmbot.config import Execution
from mmbot.execution.ahead import Ahead
from mmbot.execution.answers import Answers
from mmbot.execution.breaker import ErrorRate, LossStop, PostPause
from mmbot.execution.fills import Fills
from mmbot.execution.modes import VenueModes
from mmbot.execution.order import Order
from mmbot.execution.order_journal import COMPACT_BYTES, JournalError, OrderJournal, loss_line, sent_line
from mmbot.execution.overdue import Overdue
from mmbot.execution.publisher import account_row, event_row, own_row, own_rows
from mmbot.execution.rate import RateBudget
from mmbot.execution.reconcile import NEVER_NS, SHED_CHURN, SHED_LEVELS, Limits, diff
from mmbot.execution.sending import RETRY_NS, Sending
from mmbot.execution.windows import Window, market_of, quotes_of, rows_of
from mmbot.inventory.exposure import of_orders, room_u6
from mmbot.inventory.funds import Funds
from mmbot.inventory.pnl import Attribution
from mmbot.inventory.positions import Positions
from mmbot.inventory.witness import Witness
from shm_layout.records import AS_BOOT, AS_READY, DOWN, GUARD, HALT_BIT, MARKET_SLOTS, SELL, TARGET, UP, window_of
from shm_layout.watcher import Watcher

GUARD_SILENT_NS = 2_000_000_000
SETTLED_S = 3600                    # so long after its end a window's trades are taken to be settled
ACCOUNT_EVERY_NS = 50_000_000
CHURN_RESERVE = 40                  # cancel tokens that only moves toward safety may use, above those of the guardian
_MS = 1_000_000
_STARTING, _USER, _GUARD, _GUARD_SILENT, _JOURNAL, _STOPPING, _VENUE, _DIFFERENCE, _ERRORS, _LOSS, _UNKNOWN, _DRY = (HALT_BIT[n] for n in (
    "starting", "user_channel", "guard", "guard_silent", "journal", "stopping", "venue_mode", "difference", "error_rate", "loss", "unknown_order", "dry_run"))


def _at(record, name: str) -> int:
    return record.fields[name][1] // 8


_T_MARKET, _T_PARAMS, _T_EXCH, _T_DECIDE = (_at(TARGET, n) for n in ("market_id", "params_version", "t_exch_ns", "t_decide_ns"))
_T_CHANGED, _T_DEADLINE = (_at(TARGET, n) for n in ("changed_ns", "deadline_ns"))
#: entries of `Links.watch`: the targets by slot, then these
_GUARD_AT, _MARKETS_AT, _USER_AT = range(MARKET_SLOTS, MARKET_SLOTS + 3)
_NEW_GUARD, _NEW_MARKETS, _NEW_USER, _NEW_TARGETS = 1 << _GUARD_AT, 1 << _MARKETS_AT, 1 << _USER_AT, (1 << MARKET_SLOTS) - 1
_SLOTS_OF = [tuple(slot for slot in range(MARKET_SLOTS) if bits >> slot & 1) for bits in range(1 << MARKET_SLOTS)]
_G_UPDATE, _G_ALLOWED = _at(GUARD, "t_update_ns"), _at(GUARD, "quoting_allowed")
assert TARGET.names[_T_EXCH:_T_DECIDE + 1] == ("t_exch_ns", "t_recv_ns", "t_pub_ns", "t_poll_ns", "t_decide_ns")


class Links:
    """The memory the manager reads and writes, each with the interface of its shm_layout class, and a ``watch`` over all that it reads."""

    __slots__ = ("targets", "markets", "guard", "user", "account", "own", "orders", "params", "watch")

    def __init__(self, targets, markets, guard, user, account, own, orders, watcher=Watcher, params=None):
        self.targets, self.markets, self.guard, self.user, self.params = targets, markets, guard, user, params
        self.account, self.own, self.orders = account, own, orders
        self.watch = watcher([(targets, slot) for slot in range(MARKET_SLOTS)] + [(guard, 0), (markets, 0)], [user])


class OrderManager(Sending, Answers, Fills, Overdue, Ahead):
    """``gateway``: post, cancel, ping, can_post, can_cancel, t_send_ns. ``pool``: a SignedPool. ``report``: event(name, n=1), hop(name, ns),
    error(code, text). ``reserved_cancels``: cancel tokens that are the guardian's.

    ``mono_ns`` and ``wall_ns`` are clock functions. Call `on_wake` on every doorbell and every few ms; see `recovery` for start and stop.
    """

    def __init__(self, cfg: Execution, gateway, pool, journal: OrderJournal, links: Links, report, mono_ns, wall_ns,
                 reserved_cancels: int = 40):
        self.cfg, self.gateway, self.pool, self.journal, self.links, self.report = cfg, gateway, pool, journal, links, report
        self.mono_ns, self.wall_ns = mono_ns, wall_ns
        self.positions = Positions()
        self.venue = VenueModes(cfg.slow_ms, cfg.fast_ms)
        self.budget = RateBudget((cfg.orders_per_s, cfg.orders_burst, cfg.cancels_per_s, cfg.cancels_burst), reserved_cancels, CHURN_RESERVE)
        self.order_tokens, self.cancel_tokens = self.budget.orders, self.budget.cancels
        self.errors = ErrorRate(cfg.error_window_s, cfg.error_rate, cfg.error_min, cfg.error_pause_s)
        self.post_pause = PostPause(cfg.lost_pause_s, cfg.lost_pause_max_s)
        self.loss = LossStop(cfg.max_loss_u6, cfg.max_loss_share)
        self.loss.carry(journal.found_loss, wall_ns())
        self.state, self.stopping = AS_BOOT, False
        self.user_up = self.user_ok = False
        self.connection = -1
        self.losses = 0
        self.resync_reason = "start"    # why the venue must be read again before quoting, "" if it need not
        self.reread = ""                # why the venue should be read again soon
        self.rebook = False             # trades that were read before must be looked at again
        self.guard_allowed, self.guard_ns = False, 0
        self.cash_u6 = 0
        self.unknown_too_long = False
        self.user_deaf = 0              # times that the user channel did not show what the venue had acknowledged
        self._deaf_hold_s, self._deaf_until_ns = 0.0, 0
        self.difference_since_ns = 0    # since when our books and the venue's differ without an explanation, 0: they agree
        self.windows: list[Window | None] = [None] * MARKET_SLOTS
        self.by_market: dict[int, Window] = {}
        self.by_id: dict[str, Order] = {}
        self.unknown: dict[str, Order] = {}
        self.cut: dict[str, Order] = {}     # cancelled, and how much of them was matched is not known for certain
        self.witness = Witness()
        self.split = Attribution()          # where the result comes from
        self.scoring = -1                   # own orders that earn liquidity rewards, -1: not asked
        self.funds = Funds()
        self.short: set[int] = set()        # windows in which more is to be sold than the balances allow, as last read
        self.sighted_ns = NEVER_NS          # since when everything about us is known: no wish to take of before is acted on
        self.settlements = None             # `settlements.Settlements`, where there is a settler
        self.max_exposure_u6 = 0            # most dollars that may be lost over all windows in the worst case, 0: no limit here
        self.params_version = 0             # of the parameters it was read from
        self.n_orders = self.n_cancels = self.n_rejects = 0
        self.n_late = 0                     # orders that reached the venue past their deadline
        self.halt = _STARTING           # HALT_BITs: why no order may be wanted
        self._deadline_ns, self._deaf_ns, self._unknown_ns = int(cfg.order_deadline_ms * _MS), int(cfg.deaf_ms * _MS), int(cfg.unknown_s * 1e9)
        self._timeout_ns = int(cfg.request_timeout_s * 1e9)
        self._difference_ns = int(cfg.difference_s * 1e9)
        self._scarce = 1 - cfg.shed_at  # load is shed when less than this share of the order tokens is left
        self._unshown: dict[str, Order] = {}
        self._seen_mode = self._seen_rereads = 0
        self._watch_ns = self._heard_ns = 0
        self._archive: deque[Order] = deque()
        self._changed, self._seen = links.watch.changed, links.watch.seen
        self._due_ns = 0                # when time alone makes a look at the windows due
        self._laps = 0
        self._events: list[tuple] = []
        self._lines: list[bytes] = []
        self._account_ns = 0
        self._account_dirty = True
        self._rehearse_every_ns = int(0.9e9 / cfg.rehearse_hz) if cfg.rehearse_hz > 0 else NEVER_NS
        self._rehearsal_ns = 0 if cfg.rehearse_hz > 0 else NEVER_NS     # when the next one is due
        self._t_wake_ns = 0
        self._dry: tuple | None = None
        self._sizes: dict[int, None] = {}       # of quotes that were wanted lately, the newest last
        self._counted = (0, 0, 0, 0)
        self.journal_ok = True

    # ---- waking up -------------------------------------------------------------------------------------------------

    def on_wake(self, rehearse: bool = True) -> None:
        """Act on what has changed; when nothing has, keep the send path warm. Most bells find nothing new, or a target that only lives longer:
        they cost one look, or one read.

        With ``rehearse`` false everything is looked at, changed or not: for callers that changed the manager's own state.
        """
        now = self._t_wake_ns = self.mono_ns()
        news = self._changed()
        if news:
            self._take_in(news, now)
        if rehearse and now < self._due_ns and not self._account_dirty:
            self._idle(now)
            return
        worked = self._work(now)
        if now >= self._watch_ns:           # after the sends: what time alone makes due is not a matter of microseconds
            self._watch(now)
            worked = self._work(now) or worked
        if not self._finish_turn() and not worked and rehearse:
            self._idle(now)

    def _take_in(self, news: int, now: int) -> None:
        """Read what has changed; what has to be acted on makes a look at the windows due."""
        for slot in _SLOTS_OF[news & _NEW_TARGETS]:
            self._read_target(slot, now)
        if news > _NEW_TARGETS:
            self._due_ns = 0
        if news & _NEW_GUARD:
            self._read_guard()
        if news & _NEW_MARKETS:
            self.read_markets()             # targets that came before their market are news at the next wake
        if news & _NEW_USER and self.links.user.poll():
            self._read_user(now)

    def _read_target(self, slot: int, now: int) -> None:
        reader = self.links.targets
        version = reader.read(slot)
        self._seen[slot] = version
        if version <= 0:
            self.report.event("seqlock_busy", -version)
            return
        t = reader.words.tolist()
        if t[_T_PARAMS] != self.params_version:
            self.read_params()
        window = self.windows[slot]
        if window is None or window.market_id != t[_T_MARKET]:      # of another window, before or after this one: `read_markets` looks again
            return
        if t[_T_DECIDE] > window.decided_ns:
            window.decided_ns = t[_T_DECIDE]
        elif t[_T_DEADLINE] > window.deadline_ns:       # it lives longer: the core has said once more that it wants this
            window.decided_ns = now
        window.deadline_ns = t[_T_DEADLINE]
        if t[_T_CHANGED] == window.changed_ns:
            if not window.was_live:
                self._due_ns = 0
            return
        self._due_ns = 0
        window.want(quotes_of(t), t[_T_CHANGED])
        window.params_version = t[_T_PARAMS]
        window.cause = tuple(t[_T_EXCH:_T_DECIDE + 1])
        window.fresh = t[_T_CHANGED] == t[_T_DECIDE]
        window.dirty = True
        if now > window.deadline_ns:
            self.report.event("targets_expired")

    def read_params(self) -> None:
        """Limit what can be lost by the parameters that the core trades with: its limit and ours are one number."""
        params = self.links.params
        if params is None or params.read() <= 0:
            return
        self.params_version = int(params.rec["version"][0])
        limit_u6 = max(int(params.rec["of"]["max_exposure_u6"][0, 0]), 1)      # 0 in the parameters is nothing at all
        if limit_u6 != self.max_exposure_u6:
            self.max_exposure_u6, self._due_ns = limit_u6, 0
            for window in self.by_market.values():
                window.dirty = True

    def mid_u6(self, market_id: int) -> int | None:
        """Middle of the others' book of a window as the core last saw it, Up, in 1e-6 dollars; None when that is old or nothing."""
        window, targets = self.by_market.get(market_id), self.links.targets
        if window is None or self.windows[window.slot] is not window or targets.read(window.slot) <= 0:
            return None
        t = targets.rec[0]
        if int(t["market_id"]) != market_id or int(t["deadline_ns"]) < self.mono_ns() or not 0.0 < t["mid_up"] < 1.0:
            return None
        return round(float(t["mid_up"]) * 1e6)

    def _read_guard(self) -> None:
        guard = self.links.guard
        version = guard.read()
        if version > 0:
            self._seen[_GUARD_AT] = version
            words = guard.words
            self.guard_allowed, self.guard_ns = bool(words.item(_G_ALLOWED)), words.item(_G_UPDATE)

    def read_markets(self) -> None:
        """Take over the market table; a window whose slot was given away is kept until its last order is over."""
        markets = self.links.markets
        version = markets.read()
        if version <= 0:
            return
        self._seen[_MARKETS_AT] = version
        for slot, row in enumerate(rows_of(markets.words.tolist())):
            market_id, window = market_of(row), self.windows[slot]
            if market_id == 0 or (window is not None and (window.row == row or market_id < window.market_id)):
                continue                    # nothing new; or an older window than the slot's own, which could only be left half way through
            if window is None or window.market_id != market_id:
                if window is not None:
                    self._leave(window)
                window = self.windows[slot] = self.by_market.get(market_id) or self._new_window(market_id, slot)
                window.own_due, window.own_rows = True, None
                self._seen[slot] = -1       # a target for it may have been there before the market table
            tick_e4 = window.limits.tick_e4
            window.load(row)
            if window.limits.tick_e4 != tick_e4 or not window.was_wanted:
                self.want_signed()      # what was signed on an old grid is dropped; what is likely next is signed while nothing happens
            if not window.tradable:
                self.report.error("market_unknown", f"market {market_id}: protocol version {window.version} is unknown, not quoting it")
            if self.positions.resolve(market_id, window.outcome):
                self._account_dirty = True

    def settled(self, market_id: int, merged_u6: int, booked: bool) -> None:
        """An operation of the settler has changed what is explained, has promised ``merged_u6`` more full sets of a window, or was booked."""
        self._account_dirty = True
        window, position = self.by_market.get(market_id), self.positions.by_market.get(market_id)
        if window is not None and position is not None:
            if booked:
                window.dirty = True
                self._due_ns = 0
            position.sellable_u6 = [max(n - merged_u6, 0) if n > 0 else n for n in position.sellable_u6]

    def _new_window(self, market_id: int, slot: int) -> Window:
        cfg = self.cfg
        limits = Limits(min_update_ns=int(cfg.min_update_interval_ms * _MS), reprice_ticks=cfg.reprice_ticks,
                        resize_ppm=int(cfg.resize_fraction * 1_000_000))
        window = self.by_market[market_id] = Window(market_id, slot, limits)
        self.reread = "new market"          # trades in it may have been dropped while it was unknown
        self.rebook = True
        return window

    def _leave(self, window: Window) -> None:
        """A slot goes to the next window: the old one is four windows past, nothing of it should be left."""
        window.want((), window.changed_ns)
        window.dirty = True
        for token in window.tokens:
            self.pool.drop(token)
        self._forget(window)
        self._account_dirty = True

    def _forget(self, window: Window) -> None:
        """Drop a window that left the table, unless it has orders, or trades that may still fail: those are waited for, for an hour."""
        end_s = sum(window_of(window.market_id))
        waits = window.tail or self.positions.unsettled(window.market_id)
        if not window.orders and (not waits or self.wall_ns() > (end_s + SETTLED_S) * 1_000_000_000):
            self.positions.retire(window.market_id)
            self.split.forget(window.market_id)
            self.by_market.pop(window.market_id, None)

    def may_quote(self, now: int) -> bool:
        """Whether any order is wanted at all now; `halt` says why not."""
        halt = _DRY if self.cfg.dry_run else 0
        if self.stopping:
            halt |= _STOPPING
        if self.state != AS_READY:
            halt |= _STARTING
        if not self.user_ok or now < self._deaf_until_ns:
            halt |= _USER
        if not self.guard_allowed:
            halt |= _GUARD
        elif now - self.guard_ns > GUARD_SILENT_NS:
            halt |= _GUARD_SILENT
        if not self.journal_ok:
            halt |= _JOURNAL
        if not self.venue.rests:
            halt |= _VENUE
        if self.difference_since_ns and now - self.difference_since_ns > self._difference_ns:
            halt |= _DIFFERENCE
        if self.errors.open(now):
            halt |= _ERRORS
        if self.loss.open:
            halt |= _LOSS
        if self.unknown_too_long:
            halt |= _UNKNOWN
        if halt and not self.halt:
            self.report.event("halts")
        self.halt = halt
        return not halt

    def _work(self, now: int) -> bool:
        """Reconcile every window that needs it; true if any did."""
        before = self.halt
        quoting = self.may_quote(now)
        if self.halt != before:
            self._account_dirty = True
        worked, due_ns = False, self._watch_ns
        for window in self.by_market.values():
            live = quoting and now <= window.deadline_ns and not window.over
            if window.dirty or live != window.was_live or now >= window.next_ns:
                self._reconcile(window, live, now)
                worked = True
            if window.next_ns < due_ns:
                due_ns = window.next_ns
            if live and window.deadline_ns < due_ns:
                due_ns = window.deadline_ns + 1
        self._due_ns = due_ns
        return worked

    def _risk_room(self, window: Window) -> tuple[int, int]:
        """Dollars that this window's open orders may lose together if Up, Down wins."""
        if self.max_exposure_u6 <= 0:
            return NEVER_NS, NEVER_NS
        elsewhere = sum([w.worst_u6 for w in self.by_market.values()]) - window.worst_u6
        over = of_orders(window.external, tail=window.tail) if window.tail or window.external else None
        return room_u6(self.max_exposure_u6, elsewhere, self.positions.by_market.get(window.market_id), over)

    def _limits(self, window: Window, now: int) -> Limits:
        """The window's limits as of now."""
        limits = window.limits
        tokens, scarce = self.order_tokens.available(now), self.order_tokens.burst * self._scarce
        limits.orders = self.post_pause.room(tokens, now) if self.venue.may_post(now) else 0
        limits.cancels = self.cancel_tokens.available(now)
        limits.shed = 0 if tokens > scarce else SHED_CHURN if 2 * tokens > scarce else SHED_LEVELS
        limits.risk_u6 = self._risk_room(window)
        limits.cash_u6 = self.funds.room_u6(window.market_id, self.cash_u6, now)
        limits.take = self.venue.takes and not self.post_pause.losses
        limits.shares_u6 = self._shares_room(window, now) if window.sells else (0, 0)
        return limits

    def _shares_room(self, window: Window, now: int) -> tuple[int, int]:
        """Shares of Up, Down that open offers of a window may offer together: what the venue's balance says and our books hold, less what orders
        that are over may have sold and what others offer."""
        position = self.positions.by_market.get(window.market_id)
        if position is None:
            return 0, 0
        room = [self.funds.room_u6((window.market_id, t), max(min(position.sellable_u6[t], position.qty_u6[t]), 0), now) for t in (UP, DOWN)]
        for group in (window.tail, window.external):
            for o in group.values():
                if o.side == SELL:
                    room[o.token] -= o.open_u6
        return room[UP], room[DOWN]

    def _reconcile(self, window: Window, live: bool, now: int) -> None:
        window.was_live, window.dirty = live, False
        fresh, window.fresh = window.fresh, False
        wanted = window.wanted_now(now, self.sighted_ns) if live and window.tradable else ()
        plan = diff(wanted, window.orders.values(), self._limits(window, now), now)
        window.next_ns = plan.again_ns
        cancels = plan.cancels
        if plan.urgent:
            if self.cancel(window, cancels, now) and plan.posts:
                self._post(window, plan.posts, fresh, now)
        elif not cancels:
            if plan.posts:
                self._post(window, plan.posts, fresh, now)
        elif self.gateway.can_cancel and self._post(window, plan.posts, fresh, now):
            self.cancel(window, cancels, now)
        elif plan.n_safe:       # without its post a replacement is still a bid that must go
            self.cancel(window, cancels[:plan.n_safe], now)
        else:
            window.next_ns = min(window.next_ns, now + RETRY_NS)
        if plan.deferred:
            self.report.event("throttled", plan.deferred)
        if plan.short:
            self.short.add(window.market_id)
        if plan.invalid:
            self.report.error("bad_target", f"market {window.market_id}: {plan.invalid} desired quotes off the grid, too small or out of range")

    # ---- after the sends -------------------------------------------------------------------------------------------

    def _finish_turn(self) -> bool:
        """Publish what happened; true if there was anything."""
        now = self.mono_ns()
        busy = bool(self._events or self._lines)
        for window in self.by_market.values():
            if window.own_due:
                self._publish_own(window)
        if self._events:
            self._account_dirty = True
            events, self._events = self._events, []
            out = self.links.orders
            for e in events:
                out.words[:] = event_row(*e)
                out.publish()
        if self._account_dirty or now - self._account_ns >= ACCOUNT_EVERY_NS:
            self.publish_account(now)
        if self._lines:
            lines, self._lines = self._lines, []
            try:
                self.journal.append(b"".join(lines))
            except JournalError as e:
                self._lines = lines
                self.journal_ok = False
                self.report.error("journal", str(e))
        self.journal.kick()
        return busy

    def _publish_own(self, window: Window) -> None:
        """Tell the core what may rest in a window's book, if that changed. A window without a slot has no reader."""
        window.own_due = False
        rows = own_rows(window)
        if rows == window.own_rows or self.windows[window.slot] is not window:
            return
        window.own_rows = rows
        out = self.links.own
        out.words[:] = own_row(window.market_id, window.slot, self.mono_ns(), rows)
        out.write(window.slot)

    def publish_nothing_own(self) -> None:
        """Write empty own orders for every slot: what an earlier life said is no longer true."""
        out, now = self.links.own, self.mono_ns()
        for slot, window in enumerate(self.windows):
            out.words[:] = own_row(0 if window is None else window.market_id, slot, now, ())
            out.write(slot)

    def publish_account(self, now: int) -> None:
        """Write the account record."""
        self._account_dirty, self._account_ns = False, now
        out = self.links.account
        out.words[:] = account_row((now, self.state, self.halt, int(self.user_ok)), self.cash_u6,
                                   (self.n_orders, self.n_cancels, self.n_rejects, len(self.unknown)),
                                   (self.venue.mode, self.venue.until_ns, self.budget.tier, self.order_tokens.available(now),
                                    self.cancel_tokens.available(now), self.user_deaf, self.difference_since_ns, self.positions.reversed,
                                    *self.split.sums_u6(), self.scoring, self.n_late, self.split.late_u6()),
                                   self.windows, self.positions)
        out.write()

    def compact_journal(self) -> None:
        """Rewrite the journal to the orders that are not over; a journal that failed may work again after it."""
        wall_ms = self.wall_ns() // _MS
        try:
            lines = [sent_line(o.order_id, o.market_id, o.token, o.level, o.side, o.kind, o.px_e4, o.budget_u6 or o.size_u6, wall_ms)
                     for w in self.by_market.values() for o in w.orders.values()]
            self.journal.compact([loss_line(self.loss.state()), *lines])
            self._lines = []
            self.journal_ok = self._account_dirty = True
        except OSError as e:
            self.report.error("journal", str(e))

    def tend(self) -> None:
        """House-keeping once a second: windows that left the table and have no order left are dropped, the journal is looked after."""
        if not self.journal_ok or self.journal.size > COMPACT_BYTES:
            self.compact_journal()
        self._look_at_result()
        self.ping()
        self._prepare_rehearsal()
        pool = self.pool
        counts = (pool.signed, pool.hits, pool.misses, self.journal.writes)
        for name, count, before in zip(("signed", "pool_hits", "pool_misses", "journal_writes"), counts, self._counted, strict=True):
            self.report.event(name, count - before)
        self._counted = counts
        listed = {w.market_id for w in self.windows if w is not None}
        for window in [w for m, w in self.by_market.items() if m not in listed]:
            self._forget(window)
