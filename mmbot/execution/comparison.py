"""The comparison with the venue's books: orders, trades, dollars and shares, every few seconds and at once after a loss of sight.

Owns: `Comparison`, the part of `recovery.Recovery` that finds differences, names them (what, ours, the venue's), heals what can be healed and
keeps the account's ``difference_since_ns``: a difference that nothing explains for longer than ``execution.difference_s`` stops quoting (the
halt bit ``difference``), until it is explained. Acts on the manager; reads through the injected client.

How each difference is healed. An order of ours that is not listed: asked by id, one word against the other (a listing may be empty wrongly).
A listed order that we do not know, or that was over: cancelled. A trade that we missed: booked. Matched shares without a trade: read again,
meanwhile counted as open. A balance outside of what pending and recent trades explain, and the settler's operations (under way: both ways): the venue is asked to renew its cache; then it stays a
difference. More cash than explained while everything else agrees is a credit (a payout, a rebate, a deposit) and accepted; any balance that
has been the same unexplained way for `EXTERNAL_NS` was moved by somebody else and is accepted too, loudly, because it is the truth by then.

Can go wrong: any read can fail, and a failure is never taken for an empty answer: the comparison is put off, the account stays as it was. A
listing of trades that lacks trades we know to be under way counts as a failure.
Balances are the venue's view. A read of the chain would add who holds the shares when the venue's own books are wrong, and would confirm a
settlement without the venue; its place is `_balances`, as one more interval check per token against the same `Plausible`.
"""

import msgspec

from mmbot.execution.asking import rests
from mmbot.execution.order import CANCELING, DONE, LIVE, Order, id_words_of
from mmbot.execution.rest import OpenOrder, Trade, VenueError
from mmbot.execution.windows import Window
from mmbot.execution.wire import ErrorCode
from mmbot.inventory.differences import SUSPECT_NS, TOLERANCE_U6, Differences, Plausible
from mmbot.inventory.positions import BOOKED, CONFIRMED, DUST_U6, MINED, REVERSED
from mmbot.venues.polymarket.user_channel import Lost
from shm_layout.records import BUY, DOWN, MARKET_INFO, NO_OUTCOME, SELL, TS_CONFIRMED, UP, id_value, window_of

DAY_PART_S = 6 * 3600           # how far back a full reading goes for trades of any market
OVERLAP_S = 60                  # how far back a comparison reads trades; trades that are not final yet are read however old they are
TRADES_AT_ONCE = 8
OVERDUE_S = 3                   # a leg that the user channel has not shown for so long was missed, not overtaken
LISTING_LAG_NS = 300_000_000    # an order that ended so shortly before a listing may still stand in it
TRADE_LAG_NS = 2_000_000_000    # matched shares wait so long for their trade before they are a difference
REREAD_NS = 250_000_000         # least time between two comparisons that something asked for
OPEN_NS = 1_000_000_000         # and while a difference is open
SHARES_NS = 500_000_000
EXTERNAL_NS = 60_000_000_000    # a balance unexplained for so long was moved by somebody else
_CONDITION = MARKET_INFO.fields["condition_id"][1] // 8
_CASH, _NAMES = ("cash",), ("Up", "Down")


def condition_of(window: Window) -> str:
    """The condition id of a window, 0x hex."""
    return f"0x{id_value(window.row[_CONDITION:_CONDITION + 4]):064x}"


def _dollars(value_u6: int) -> str:
    return f"{value_u6 / 1e6:.6f}"


class Comparison:
    """``self.m`` the order manager, ``self.reads`` the venue's reads, ``self.channel`` decodes trades."""

    def _begin(self) -> None:
        self.differences = Differences()
        self._read: dict[str, str] = {}         # status of each trade at the last reading
        self._unsettled: dict[str, int] = {}    # trades that were not final then, and when they matched (s)
        self._whole: set[int] = set()           # windows all of whose trades have been read
        self._base_u6: int | None = None        # dollars of the account less what the legs spent
        self._plausible: dict[tuple, Plausible] = {}
        self._accepted = self._failures = 0
        self._slack_u6 = 0                      # dollars of trades that were not final at start: the balance may show them or not
        self._last_ns = self._credit_ns = 0
        self._shares_ns: dict[int, int] = {}    # not before this are the shares of a window read again only to sell them

    # ---- when ------------------------------------------------------------------------------------------------------

    def due(self, every_s: float) -> bool:
        """Is it time for a comparison: sight was lost, something asked for it, or ``every_s`` have passed."""
        m, now = self.m, self.m.mono_ns()
        if m.settlements is not None:
            m.settlements.poll()
        m.heed_witness(now)
        wait_ns = OPEN_NS if self.differences.open else int(every_s * 1e9)
        if (m.resync_reason and m.user_up) or m.reread:
            wait_ns = min(REREAD_NS << min(self._failures, 5), wait_ns)
        return now - self._last_ns >= wait_ns

    async def compare(self) -> bool:
        """Read orders, trades and balances, mend every difference, and clear the way to quote again; false if a read failed."""
        m = self.m
        losses, resync, full = m.losses, m.resync_reason, bool(m.resync_reason or m.reread)
        m.reread = ""
        t0, found = m.mono_ns(), {}
        self._last_ns = t0
        self._plausible_now()
        try:
            rows = await self.reads.open_orders()
            missed = await self._trades(DAY_PART_S if full else OVERLAP_S)
            await self._compare_orders({row.id.lower(): row for row in rows}, t0)
            await self._balances(found)
        except VenueError as e:
            m.report.error("compare", str(e))
            m.reread = m.reread or "the last comparison failed"
            self._failures += 1
            return False
        self._failures = 0
        if missed and not resync:
            self._difference("missed_fill", f"{missed} trade legs were found by reading that the user channel had not shown")
        self._tails(found)
        self._conclude(found)
        m.report.event("reconciles")
        m.synced(losses)
        m.on_wake(rehearse=False)
        return True

    def _conclude(self, found: dict) -> None:
        """Name what is new, and tell the account since when something is unexplained."""
        m, now = self.m, self.m.mono_ns()
        for d in self.differences.update(found, now, frozenset(("unbooked_fill",))):
            self._difference(d.what[0], d.text)
        if m.difference_since_ns != self.differences.since_ns:
            m.difference_since_ns = self.differences.since_ns
            m.publish_account(now)

    # ---- orders ----------------------------------------------------------------------------------------------------

    async def _compare_orders(self, listed: dict[str, OpenOrder], t0: int) -> None:
        m, now = self.m, self.m.mono_ns()
        for window in m.by_market.values():
            window.external.clear()
        for order_id, row in listed.items():
            o = m.by_id.get(order_id)
            if o is None:
                self._stranger(self._order_of(row), row, now)
            elif o.state == DONE:
                if o.t_done_ns < t0 - LISTING_LAG_NS and o.order_id not in m.cut:
                    self._difference("zombie_order", f"{order_id[:12]} rests although it was over for us: cancelling it")
                    self._cancel_found(o, now)
            elif o.unknown:
                if o.t_cancel_ns < t0:
                    m.answer_live(o, row.matched_u6, now)
            else:
                m.confirm(o, now)
                m.matched(o, row.matched_u6, now)
        for window in list(m.by_market.values()):
            for o in list(window.orders.values()):
                if o.state == LIVE and o.t_live_ns < t0 - LISTING_LAG_NS and o.order_id not in listed:
                    await self._not_listed(o)

    async def _not_listed(self, o: Order) -> None:
        """An order of ours that should rest is not in the listing: its id is asked before either is believed. Errors: VenueError."""
        m = self.m
        row = await self.reads.order(o.order_id)
        if o.state != LIVE:
            return                      # its end came by another way meanwhile
        now = m.mono_ns()
        if row is not None and rests(row):
            m.matched(o, row.matched_u6, now)
            self._difference("listing_wrong", f"{o.order_id[:12]} is not listed, but rests when asked by its id: the listing is wrong")
            return
        self._difference("missing_order", f"{o.order_id[:12]} is not listed although it should rest: the venue says "
                                          f"{row.status.lower() if row is not None else 'it does not know it'}")
        if row is not None:
            m.answer_over(o, row.matched_u6, row.status.lower() or "over", now)
        else:
            o.state = CANCELING         # nothing is posted beside it until the venue has said so more than once
            m.mark_unknown(o, "not listed and not known by its id")

    def _order_of(self, row: OpenOrder) -> Order:
        """An order we have no memory of, as the venue describes it."""
        market_id, token = self._market_of(row.market, row.asset_id)
        try:
            px_e4, size_u6, matched_u6 = row.px_e4, row.size_u6, row.matched_u6
        except ValueError:
            px_e4 = size_u6 = matched_u6 = 0
        o = Order(row.id.lower(), id_words_of(row.id), market_id, max(token, 0), 0,
                  BUY if row.side.upper() == "BUY" else SELL, px_e4, size_u6, LIVE, 0)
        o.matched_u6 = o.booked_u6 = matched_u6
        o.confirmed = True
        return o

    def _stranger(self, o: Order, row: OpenOrder, now: int) -> None:
        """An order that we did not send: cancelled, or left alone and counted in the exposure of its window."""
        if self.m.cfg.adopt == "keep":
            if window := self.m.by_market.get(o.market_id):
                window.external[o.order_id] = o
            return
        self._difference("foreign_order", f"{o.order_id[:12]} {row.side} {row.original_size} at {row.price} is not ours: cancelling it")
        self._cancel_found(o, now)

    def _tails(self, found: dict) -> None:
        """Matched shares whose trades do not come are a difference: they count as open until the trade is read."""
        m, now = self.m, self.m.mono_ns()
        for window in m.by_market.values():
            for o in list(window.tail.values()):
                if o.open_u6 <= DUST_U6:
                    window.tail.pop(o.order_id)
                elif o.final:
                    self._tail(window, o, found, now)

    def _tail(self, window: Window, o: Order, found: dict, now: int) -> None:
        what = ("unbooked_fill", o.order_id[:12])
        since = self.differences.open.get(what)
        if now - o.t_done_ns <= TRADE_LAG_NS:
            self.m.reread = self.m.reread or "matched shares without a trade"
        elif since is not None and now - since.since_ns >= EXTERNAL_NS:     # the balances have the last word
            window.tail.pop(o.order_id)
            self._difference("unbooked_gone", f"{o.order_id[:12]}: {o.open_u6 / 1e6:g} matched shares never came with a trade: given up")
        else:
            found[what] = (f"{o.booked_u6 / 1e6:g} shares in trades", f"{o.matched_u6 / 1e6:g} matched")

    # ---- trades ----------------------------------------------------------------------------------------------------

    async def _trades(self, back_s: int) -> int:
        """Read own trades of the last ``back_s`` seconds, as far back as one is not final, and all of a window that is new; book what is new.

        Returns how many legs were new and long overdue. A trade is looked at again only when its status has changed. Errors: VenueError.
        """
        m, overdue, now_s = self.m, 0, self._wall_s()
        since_s = min([now_s - back_s, *self._unsettled.values()])
        trades = {t.id: t for t in await self.reads.trades(after=max(since_s, 0))}
        if lost := [i for i in self._unsettled if i not in trades]:
            raise VenueError("/data/trades", ErrorCode.NOT_UNDERSTOOD, f"{len(lost)} trades under way are missing from the listing", 200)
        new_windows = [w for w in m.windows if w is not None and w.market_id not in self._whole]
        for window in new_windows:
            trades |= {t.id: t for t in await self.reads.trades(market=condition_of(window))}
        before, self._read = self._read, {}
        again, m.rebook = m.rebook, False
        for i, trade in enumerate(trades.values()):
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
        self._whole = {w.market_id for w in new_windows} | (self._whole & m.by_market.keys())
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

    # ---- balances --------------------------------------------------------------------------------------------------

    def _held(self) -> list[Window]:
        """Windows whose shares are compared: something was traded there, or may have been, and they are not paid out."""
        by_market = self.m.positions.by_market
        return [w for w in self.m.by_market.values() if w.outcome == NO_OUTCOME and (w.market_id in by_market or w.tail)]

    def _plausible_now(self) -> None:
        """Remember what each balance may show at this moment."""
        m, now = self.m, self.m.mono_ns()
        if self._base_u6 is None:
            return
        if m.settlements is not None:
            m.settlements.poll()
        out, into = m.positions.pending_cash_u6()
        expected = self._base_u6 - m.positions.spent_u6
        self._plausible.setdefault(_CASH, Plausible()).add(expected - into - self._slack_u6, expected + out, now)
        held = self._held()
        for window in held:
            for token in (UP, DOWN):
                low, high = m.positions.share_range_u6(window.market_id, token)
                key = window.market_id, token
                if key not in self._plausible:          # a moment ago there was nothing, and a cache may still say so
                    self._plausible[key] = Plausible()
                    low, high = min(low, 0), max(high, 0)
                self._plausible[key].add(low, high, now)
        known = {w.market_id for w in held}
        for key in [k for k in self._plausible if k != _CASH and k[0] not in known]:
            del self._plausible[key]

    async def _balances(self, found: dict) -> None:
        """Compare dollars and shares with what explains them. Errors: VenueError, for the dollars only."""
        m = self.m
        exact = await self._shares(found)
        balance = (await self.reads.balance()).balance_u6
        self._plausible_now()
        cash = self._plausible[_CASH]
        excess = cash.excess_u6(balance)
        if excess and await self._renewed("COLLATERAL"):
            balance = (await self.reads.balance()).balance_u6
            excess = cash.excess_u6(balance)
        expected = self._base_u6 - m.positions.spent_u6
        since = self.differences.open.get(_CASH)
        credit = excess > 0 and not found
        self._credit_ns = (self._credit_ns or m.mono_ns()) if credit else 0
        if credit and exact and m.mono_ns() - self._credit_ns >= OPEN_NS or excess and since and m.mono_ns() - since.since_ns >= EXTERNAL_NS:
            m.report.error("cash_moved", f"{_dollars(excess)} dollars came or went by no trade of ours: accepted")
            self._rebase(excess)
        elif excess and not credit:
            found[_CASH] = _dollars(expected), _dollars(balance)
        elif not any(m.positions.pending_cash_u6()) and -TOLERANCE_U6 - self._slack_u6 <= balance - expected <= TOLERANCE_U6:
            self._rebase(balance - expected)        # what rounding left, and trades of before the start
            self._slack_u6 = 0
        # a balance below what we expect may know a fill that is still on its way to us: only one that stays below takes room
        lower = since is not None and m.mono_ns() - since.since_ns >= SUSPECT_NS
        m.cash_u6 = self._base_u6 - m.positions.spent_u6 + (min(excess, 0) if lower and _CASH in found else 0)

    async def _anchor(self) -> None:
        """At start: take the shares that no trade explains into the books, and the account's dollars as they are. Errors: VenueError."""
        m = self.m
        self._base_u6 = 0
        for window in [w for w in m.windows if w is not None and w.outcome == NO_OUTCOME and w.tradable]:
            for token in (UP, DOWN):
                await self._adopt_shares(window, token)
        balance = (await self.reads.balance()).balance_u6
        self._base_u6 = balance + m.positions.spent_u6
        self._slack_u6 = m.positions.pending_cash_u6()[0]
        m.cash_u6 = balance
        self._plausible.clear()
        self._plausible_now()

    async def _adopt_shares(self, window: Window, token: int) -> None:
        asset, token_id = "CONDITIONAL-V2" if window.version == 2 else "CONDITIONAL", str(window.tokens[token])
        plausible = Plausible()
        plausible.add(*self.m.positions.share_range_u6(window.market_id, token), self.m.mono_ns())
        balance = (await self.reads.balance(asset, token_id)).balance_u6
        if plausible.excess_u6(balance) and await self._renewed(asset, token_id):
            balance = (await self.reads.balance(asset, token_id)).balance_u6
        if excess := plausible.excess_u6(balance):
            self._accept_shares(window, token, excess)
        self._sellable(window, token, balance)

    def _rebase(self, by_u6: int) -> None:
        self._base_u6 += by_u6
        self._plausible[_CASH].shift(by_u6)

    async def _renewed(self, asset: str, token: str = "") -> bool:
        """Ask the venue to renew its cache of a balance; false when it cannot be asked."""
        try:
            await self.reads.renew_balance(asset, token)
        except VenueError as e:
            self.m.report.error("balance", str(e))
            return False
        return True

    async def _shares(self, found: dict) -> bool:
        """Compare the balances of both tokens of every window with a position; false when one could not be read, or is explained only by how
        things were a while ago."""
        exact = True
        for window in self._held():
            for token in (UP, DOWN):
                try:
                    exact &= await self._token(window, token, found)
                except VenueError as e:
                    self.m.report.error("balance", str(e))
                    self._sellable(window, token, -1)
                    exact = False
        return exact

    async def _token(self, window: Window, token: int, found: dict) -> bool:
        asset, token_id = "CONDITIONAL-V2" if window.version == 2 else "CONDITIONAL", str(window.tokens[token])
        balance = (await self.reads.balance(asset, token_id)).balance_u6
        self._plausible_now()
        plausible = self._plausible.get((window.market_id, token))
        if plausible is None:
            return True                     # paid out or retired meanwhile
        excess = plausible.excess_u6(balance)
        if excess and await self._renewed(asset, token_id):
            balance = (await self.reads.balance(asset, token_id)).balance_u6
            excess = plausible.excess_u6(balance)
        self._sellable(window, token, balance)
        if balance == 0 and self._wall_s() >= sum(window_of(window.market_id)):         # paid out
            return True
        if not excess:
            return plausible.exact(balance)
        what = ("shares", window.market_id, _NAMES[token])
        since = self.differences.open.get(what)
        if since is not None and self.m.mono_ns() - since.since_ns >= EXTERNAL_NS:
            self._accept_shares(window, token, excess)
            plausible.shift(excess)
            return True
        found[what] = _dollars(self.m.positions.position(window.market_id).qty_u6[token]), _dollars(balance)
        return False

    async def read_sellable(self) -> None:
        """Read the share balances of windows in which more is to be sold than the balances allowed, as last read: shares that were bought can be sold
        once their trade is on the chain, and the venue's cache has to be told. A failed read leaves what was known."""
        m = self.m
        for window in [w for w in m.by_market.values() if w.market_id in m.short]:
            m.short.discard(window.market_id)
            position, now = m.positions.by_market.get(window.market_id), m.mono_ns()
            if position is None or now < self._shares_ns.get(window.market_id, 0):
                continue
            for token in (UP, DOWN):
                settled_u6 = position.net_u6[MINED][token] + position.net_u6[CONFIRMED][token]
                if settled_u6 > max(position.sellable_u6[token], 0):
                    self._shares_ns[window.market_id] = now + SHARES_NS
                    await self._read_token(window, token)
            window.dirty = True
        m.on_wake(rehearse=False)

    async def _read_token(self, window: Window, token: int) -> None:
        asset, token_id = "CONDITIONAL-V2" if window.version == 2 else "CONDITIONAL", str(window.tokens[token])
        if not await self._renewed(asset, token_id):
            return
        try:
            self._sellable(window, token, (await self.reads.balance(asset, token_id)).balance_u6)
        except VenueError as e:
            self.m.report.error("balance", str(e))

    def _sellable(self, window: Window, token: int, balance_u6: int) -> None:
        if p := self.m.positions.by_market.get(window.market_id):
            p.sellable_u6[token] = max(balance_u6 - self.m.positions.merging_u6(window.market_id), 0) if balance_u6 > 0 else balance_u6

    def _accept_shares(self, window: Window, token: int, excess_u6: int) -> None:
        """Shares came or went by no trade of ours. They are booked at the price that makes limits safe: what came at a dollar, what went at
        nothing, as a trade of its own; the dollars of the account do not move by it."""
        m = self.m
        side, px_u6 = (BUY, 1_000_000) if excess_u6 > 0 else (SELL, 0)
        spent_u6 = m.positions.spent_u6
        self._accepted += 1
        m.positions.apply(("moved", self._accepted), token, window.market_id, token, side, TS_CONFIRMED, px_u6, abs(excess_u6))
        self._base_u6 += m.positions.spent_u6 - spent_u6
        m.report.event("adopted")
        m.report.error("shares_moved", f"{_dollars(excess_u6)} {_NAMES[token]} shares in {window.market_id} came or went by no trade of ours: "
                                       "taken into the books")
