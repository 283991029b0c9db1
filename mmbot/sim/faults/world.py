"""Faults inside the exchange: settlement, cancels, balances, books, listings, the venue's clock, sockets.

Owns: what running faults do to the engine and its neighbours when they start, while they run (`turn`) and when they stop; the scope of
faults that are limited to markets. It is the engine's `Hooks` while a fault needs it and is not asked otherwise. Who calls: the server's
drive loop (`turn`, `prints`, `halted`), `Faults` (`changed`), the engine.
What can go wrong: nothing by itself; an effect on a market that is gone is left out.

Fault durations are real time (monotonic ms); what the engine schedules is tape time, so it is multiplied by the clock's rate.
"""

import heapq
from collections import deque
from collections.abc import Callable

from mmbot.clock import mono_ns
from mmbot.sim.auth import MAX_SKEW_S, Keys
from mmbot.sim.engine import ONE_E4, Account, Exchange, Hooks, Market, Order, Trade
from mmbot.sim.faults.running import Fault, Faults
from mmbot.sim.rest import ClobRest
from shm_layout.records import BUY, DOWN, SELL, UP

RESCOPE_MS = 1000.0            # markets come and go, so a scope by name is looked up again this often
E_BOUNDARY = "could not run the execution"
#: faults that need the engine to ask
_ASKED = {"fill_after_cancel", "boundary_rejects", "heartbeat_mismatch", "balance_lag", "stale_reservation", "cross_match",
          "merge_reverted", "paid_nothing", "settlement_slow"}
_SETTLING = {"ghost_fill", "retrying"}
SLOW_LOOK_S = 0.1              # a transaction that is put off looks so often whether the fault is over
SCANNED_LEVELS = 8             # how deep a cross match looks for an order of an API participant


class World(Hooks):
    """The effects of one exchange's faults on the exchange itself."""

    def __init__(self, faults: Faults, exchange: Exchange, keys: Keys, clob: ClobRest):
        self.faults, self.exchange, self.keys, self.clob = faults, exchange, keys, clob
        self.halted = False                           # the engine is down: nobody trades
        self._settle = exchange.settle_hook
        self._held: list[tuple[float, int, bytes]] = []
        self._count = 0
        self._busy: list[Fault] = []                  # faults that act or are looked after every turn
        faults.watch, faults.wall_s = self.changed, exchange.clock.now_s

    # ---- start, stop, turn ----

    def changed(self, fault: Fault, started: bool, now_ms: float) -> None:
        """A fault has started or stopped (monotonic ms)."""
        if started:
            self._scope(fault)
        effect = (_ON_START if started else _ON_STOP).get(fault.name)
        if effect is not None:
            effect(self, fault, now_ms)
        running = self.faults.running()
        names = {f.name for f in running}
        self.exchange.hooks = self if names & _ASKED else None
        if names & _SETTLING and self.exchange.settle_hook != self.settle:
            self._settle, self.exchange.settle_hook = self.exchange.settle_hook, self.settle
        elif not names & _SETTLING and self.exchange.settle_hook == self.settle:
            self.exchange.settle_hook = self._settle
        self._busy = [f for f in running if f.name in _REPEATED or f.params.get("markets", "all") != "all" or f.params.get("token", "both") != "both"]

    def turn(self, now_ms: float) -> None:
        """Start what is due, end what is over, and do what running faults repeat (monotonic ms)."""
        self.faults.tick(now_ms)
        for fault in self._busy:
            if now_ms >= fault.memo.get("scoped_ms", 0.0) + RESCOPE_MS:
                self._scope(fault)
                fault.memo["scoped_ms"] = now_ms
            effect = _REPEATED.get(fault.name)
            if effect is not None:
                effect(self, fault, now_ms)

    def next_ms(self) -> float:
        """When the next turn has something to do at the latest, monotonic ms."""
        due = [self.faults.next_ms(), *(f.memo["due_ms"] for f in self._busy if "due_ms" in f.memo)]
        due += [f.started_ms + f.down_s * 1000 for f in self._busy if f.name == "restart_425" and self.halted]
        return min(due + [self._held[0][0]] if self._held else due)

    def _wall_ms(self) -> int:
        return self.exchange.clock.now_ns() // 1_000_000

    def _later_ms(self, real_s: float) -> float:
        """A real duration on the tape's clock."""
        return real_s * 1000 * self.exchange.clock.rate

    # ---- scope ----

    def _scope(self, fault: Fault) -> None:
        wanted = fault.params.get("markets", "all")
        markets = self._markets(wanted)
        fault.cids = None if wanted == "all" else frozenset(m.condition_id for m in markets)
        fault.tokens = tuple(frozenset(m.tokens[outcome] for m in markets) for outcome in (UP, DOWN))

    def _markets(self, wanted: str) -> list[Market]:
        """Markets named by ``all``, ``current``, ``next`` (not begun yet) a word of the slug (``5m``), a slug, or how a condition id begins."""
        now_s = self._wall_ms() / 1000
        markets = list(self.exchange.markets.values())
        if wanted == "all":
            return markets
        if wanted == "current":
            return [m for m in markets if m.spec.start_s <= now_s < m.spec.end_s]
        if wanted == "next":
            return [m for m in markets if m.spec.start_s > now_s]
        return [m for m in markets if wanted in m.spec.slug.split("-") or wanted == m.spec.slug or
                (wanted.startswith("0x") and m.condition_id.startswith(wanted))]

    def _inside(self, fault: Fault) -> list[Market]:
        """Open markets inside a fault's scope."""
        return [m for m in self.exchange.markets.values() if not m.closed and fault.covers(m.condition_id)]

    # ---- reference prices ----

    def prints(self, frames: list[bytes], now_ms: float) -> list[bytes]:
        """Reference prices of the tape that are due, less what is lost and with what was held back (monotonic ms)."""
        if not self.faults.prints and not self._held:
            return frames
        out = []
        for frame in frames:
            found = self.faults.on_print(frame, now_ms)
            if found is not None and found[0] > 0:
                self._count += 1
                heapq.heappush(self._held, (now_ms + found[0] * 1000, self._count, found[1]))
            elif found is not None:
                out.append(found[1])
        while self._held and self._held[0][0] <= now_ms:
            out.append(heapq.heappop(self._held)[2])
        return out

    # ---- what the engine asks ----

    def settle(self, trade: Trade) -> str:
        """What becomes of a trade that is to be mined."""
        for fault in self.faults.running():
            if fault.name == "retrying" and fault.covers(trade.market.condition_id):
                left = fault.memo.get(trade.id)
                if left is None:
                    left = max(1, fault.times) if fault.strikes() else -1
                fault.memo[trade.id] = left - 1
                if left > 0:
                    self.exchange.retry_ms = self._later_ms(fault.retry_s)
                    return "RETRYING"
                if left == 0:
                    return fault.then
            if fault.name == "ghost_fill" and fault.covers(trade.market.condition_id) and fault.strikes():
                return "FAILED"
        return self._settle(trade)

    def refusal(self, order: Order, now_ms: int) -> str:
        fault = self.faults.active("boundary_rejects")
        if fault is None:
            return ""
        spec = order.market.spec
        near = min(abs(now_ms / 1000 - spec.start_s), abs(now_ms / 1000 - spec.end_s)) <= fault.within_s
        return E_BOUNDARY if near and fault.strikes() else ""

    def known_u6(self, account: Account, token: str, true_u6: int) -> int:
        """The value of ``lag_s`` ago. A token that was not there then counts as none."""
        fault = self.faults.active("balance_lag")
        if fault is None:
            return true_u6
        asked_ms = mono_ns() / 1e6 - fault.lag_s * 1000
        known = None
        for at_ms, value in fault.memo.get((account.address, token), ()):
            if known is None or at_ms <= asked_ms:
                known = value
        fault.hits += 1
        return known if known is not None else true_u6 if not token else 0

    def refreshed(self, account: Account) -> None:
        fault = self.faults.active("balance_lag")
        if fault is not None and fault.update_heals:
            for key in [k for k in fault.memo if k[0] == account.address]:
                del fault.memo[key]
            _record_balances(self, fault, 0.0)

    def stale_u6(self, account: Account, key: str) -> int:
        fault = self.faults.active("stale_reservation")
        return fault.memo.get((account.address, key), 0) if fault is not None else 0

    def matched(self, trade: Trade, now_ms: int) -> None:
        fault = self.faults.active("stale_reservation")
        if fault is None or not fault.covers(trade.market.condition_id):
            return
        parts = [(leg.account, leg.outcome, leg.side, leg.size_u6, leg.cash_u6) for leg in trade.legs if leg.order is not None]
        if trade.taker is not None:
            parts.append((trade.account, trade.outcome, trade.side, trade.size_u6, trade.cash_u6))
        for account, outcome, side, size_u6, cash_u6 in parts:
            key, amount = (trade.market.condition_id, cash_u6) if side == BUY else (trade.market.tokens[outcome], size_u6)
            fault.memo[account.address, key] = fault.memo.get((account.address, key), 0) + amount
            fault.hits += 1

    def before_cancel(self, order: Order, now_ms: int) -> None:
        fault = self.faults.active("fill_after_cancel")
        if fault is not None and fault.strikes():
            size_u6 = int(order.left_u6 * fault.share)
            if not self.exchange.fill_unheard(order, size_u6, self._later_ms(fault.late_s), now_ms):
                fault.hits -= 1

    def before_beat(self, owner: str, now_ms: int) -> None:
        fault, armed = self.faults.active("heartbeat_mismatch"), self.exchange.heartbeats.get(owner)
        if fault is not None and armed is not None and fault.strikes():
            armed[0] = self.exchange.new_uuid()

    def settling(self, now_ms: int) -> tuple[str, float]:
        slow = self.faults.active("settlement_slow")
        if slow is not None:
            left_s = slow.delay_s - slow.elapsed_s(mono_ns() / 1e6)
            if left_s > 0:
                slow.hits += 1
                return "", self._later_ms(min(left_s, SLOW_LOOK_S))
        for name, how in (("merge_reverted", "revert"), ("paid_nothing", "nothing")):
            fault = self.faults.active(name)
            if fault is not None and fault.strikes():
                return how, 0.0
        return "", 0.0

    def taken_outcome(self, market: Market, side: int) -> int:
        fault = self.faults.active("cross_match")
        book = market.sides[1 - side]
        for key in reversed(book.keys[-SCANNED_LEVELS:]) if fault is not None else ():
            for maker in book.levels[key * book.sign].queue:
                if maker.account is not self.exchange.recorded:
                    fault.hits += 1
                    return DOWN if maker.outcome == UP else UP
        return -1


# ---- effects: (world, fault, monotonic ms) ----

def _drop_sockets(world: World, channels: tuple[str, ...]) -> None:
    for channel in channels:
        for _, link in sorted(world.faults.links.get(channel, {}).items()):
            link.abort()


def _restart(world: World, fault: Fault, now_ms: float) -> None:
    world.halted = True
    if fault.drop_sockets:
        _drop_sockets(world, ("market", "user"))
    if not fault.keep_orders:
        for account in list(world.exchange.accounts.values()):
            for order in list(account.orders.values()):
                world.exchange.cancel(order.id, world._wall_ms())


def _halt(world: World, fault: Fault, now_ms: float) -> None:
    world.halted = any(f.name == "restart_425" and f.elapsed_s(now_ms) < f.down_s for f in world.faults.running())


def _revoke(world: World, fault: Fault, now_ms: float) -> None:
    world.keys.revoked = True
    _drop_sockets(world, ("user",))


def _allow(world: World, fault: Fault, now_ms: float) -> None:
    world.keys.revoked = world.faults.active("unauthorized") is not None


def _close_only(world: World, fault: Fault, now_ms: float) -> None:
    world.clob.accounts.closed_only.add("*")


def _open_again(world: World, fault: Fault, now_ms: float) -> None:
    if world.faults.active("closed_only") is None:
        world.clob.accounts.closed_only.discard("*")


def _hide_books(world: World, fault: Fault, now_ms: float) -> None:
    def bookless(market: Market) -> bool:
        return any(f.name == "market_without_book" and f.covers(market.condition_id) for f in world.faults.running())
    world.clob.market_data.bookless = bookless


def _shift_clock(world: World, fault: Fault, now_ms: float) -> None:
    wrong = world.faults.active("wrong_clock")
    world.keys.skew_s, world.keys.tolerance_s = (wrong.offset_s, wrong.tolerance_s) if wrong is not None else (0.0, MAX_SKEW_S)


def _finer_tick(world: World, fault: Fault, now_ms: float) -> None:
    tick_e4 = round(fault.tick * ONE_E4)
    for market in world._inside(fault):
        if 0 < tick_e4 < market.tick_e4:
            fault.hits += 1
            world.exchange.change_tick(market.condition_id, tick_e4, world._wall_ms())


def _due(fault: Fault, now_ms: float, every_s: float) -> bool:
    """Is a repeated effect due? Once each ``every_s``."""
    if now_ms < fault.memo.get("due_ms", 0.0):
        return False
    fault.memo["due_ms"] = now_ms + every_s * 1000
    return True


def _vanish(world: World, fault: Fault, now_ms: float) -> None:
    if not _due(fault, now_ms, fault.every_s):
        return
    for market in world._inside(fault):
        for side in (BUY, SELL):
            book = market.sides[side]
            deep = [key * book.sign for key in book.keys[:max(0, len(book.keys) - fault.depth)]]
            deep = [px for px in deep if book.levels[px].recorded]
            for px in fault.rng.sample(deep, min(fault.levels, len(deep))):
                fault.hits += 1
                world.exchange.vanish(market.condition_id, side, px, world._wall_ms())


def _record_balances(world: World, fault: Fault, now_ms: float) -> None:
    """Remember what changed, and no more of the past than is asked for."""
    for account in world.exchange.accounts.values():
        owned = {token: size - account.unsettled.get(token, 0) for token, size in account.shares.items()}
        for token, value in ("", account.cash_u6), *owned.items():
            seen = fault.memo.setdefault((account.address, token), deque())
            if not seen or seen[-1][1] != value:
                seen.append((now_ms, value))
            while len(seen) > 1 and seen[1][0] < now_ms - fault.lag_s * 1000:
                seen.popleft()


def _disconnect(world: World, fault: Fault, now_ms: float) -> None:
    repeated = fault.every_s > 0 or fault.links == "all"
    if fault.memo.get("done") and not (repeated and _due(fault, now_ms, fault.every_s)):
        return
    fault.memo["done"] = True
    channels = list(world.faults.links) if "all" in fault.channels else fault.channels.split("+")
    for channel in channels:
        for number, link in sorted(world.faults.links.get(channel, {}).items()):
            if fault.covers_link(channel, number) and not link.deaf:
                fault.hits += 1
                if fault.drop == "silent":
                    link.deaf = True
                else:
                    link.abort()


_ON_START: dict[str, Callable] = {
    "restart_425": _restart, "unauthorized": _revoke, "closed_only": _close_only, "market_without_book": _hide_books,
    "wrong_clock": _shift_clock, "tick_change": _finer_tick, "balance_lag": _record_balances, "disconnect_without_close": _disconnect,
}
_ON_STOP: dict[str, Callable] = {
    "restart_425": _halt, "unauthorized": _allow, "closed_only": _open_again, "wrong_clock": _shift_clock,
}
_REPEATED: dict[str, Callable] = {
    "restart_425": _halt, "silent_deep_cancels": _vanish, "balance_lag": _record_balances, "disconnect_without_close": _disconnect,
}
