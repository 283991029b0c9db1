"""Spoiled pieces of code, each the enemy of an invariant, and the faults that bring its harm to light.

A mutant is a context manager around a run (it replaces a function by a worse one), and a round of faults that is repeated. The simulation must
catch every one of them within a few seeds; the code as it is must survive the same rounds.
"""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest import mock

from mmbot.execution.answers import Answers
from mmbot.execution.comparison import Comparison
from mmbot.execution.flat import Flat
from mmbot.execution.http1 import UnknownOutcome
from mmbot.execution.manager import OrderManager
from mmbot.execution.modes import VenueModes
from mmbot.inventory import positions
from mmbot.inventory.positions import Positions
from mmbot.sim.engine.settlement import Settlement
from mmbot.venues.polymarket import market_channel as mc
from procs import guardian
from procs.feed_market import MarketFeed
from shm_layout import records as r

EVERY_S = 20.0
_T_RECV = r.MARKET.fields["t_recv_ns"][1] // 8


@dataclass(frozen=True)
class Mutant:
    """``spoil()``: the context manager; ``round``: (fault or signal, seconds, parameters) one after the other; ``breaks``: what is found broken."""
    spoil: Callable
    breaks: tuple[str, ...]
    round: list = field(default_factory=list)
    overrides: dict = field(default_factory=dict)

    def arrange(self, sim) -> None:
        """Repeat the round."""
        def turn(i: int) -> None:
            name, for_s, params = self.round[i % len(self.round)]
            group = sim.group
            if name.startswith("SIG"):
                signal, process = name.split()
                group.stop(process, for_s) if signal == "SIGSTOP" else group.kill(process)
            else:
                sim.exchange.fault(name, for_s, **params)
            sim.script.call_later(EVERY_S, turn, i + 1)
        if self.round:
            sim.script.call_later(EVERY_S, turn, 0)


def replaced(owner, name: str, make: Callable) -> Callable:
    """A context manager that puts ``make(original)`` in the place of ``owner.name``."""
    @contextmanager
    def spoil():
        with mock.patch.object(owner, name, make(getattr(owner, name))):
            yield
    return spoil


def _both(*spoils: Callable) -> Callable:
    @contextmanager
    def spoil():
        if not spoils:
            yield
            return
        with spoils[0](), _both(*spoils[1:])():
            yield
    return spoil


def _timeout_is_refusal(original):
    def posted(self, window, orders, fresh, future):
        if isinstance(future.exception(), UnknownOutcome):
            for o in orders:
                self.finish(o, "refused", self.mono_ns())
            window.dirty = True
            self._answered()
            return
        original(self, window, orders, fresh, future)
    return posted


def _lost_cancel_is_done(original):
    def canceled(self, orders, future):
        if isinstance(future.exception(), UnknownOutcome):
            for o in orders:
                self.finish(o, "canceled", self.mono_ns())
            self._answered()
            return
        original(self, orders, future)
    return canceled


def _counted_twice(original):
    def apply(self, trade_id, order_id, *args, **more):
        original(self, ("again", trade_id), order_id, *args, **more)
        return original(self, trade_id, order_id, *args, **more)
    return apply


def _failed_ignored(original):
    def apply(self, trade_id, order_id, market_id, token, side, status, *args, **more):
        if status == r.TS_FAILED:
            return positions.NOTHING
        return original(self, trade_id, order_id, market_id, token, side, status, *args, **more)
    return apply


def _flags_dropped(original):
    def publish(self, market):
        flags, kind = int(market.cells[mc.FLAGS_WORD]), int(market.cells[mc.KIND_WORD])
        market.cells[mc.FLAGS_WORD] = flags & ~(r.MF_SUSPECT | r.MF_FROZEN)
        if kind == r.MK_SUSPECT:
            market.cells[mc.KIND_WORD] = r.MK_BOOK
        original(self, market)
        market.cells[mc.FLAGS_WORD], market.cells[mc.KIND_WORD] = flags, kind
    return publish


def _always_fresh(original):
    def publish(self, market):
        market.cells[_T_RECV] = self.actor.group.scheduler.now_ns
        original(self, market)
    return publish


def _proved_by_nothing(original):
    def look(self, now_ns):
        original(self, now_ns)
        for slot in self._live:
            if self.channel.markets[slot].cells[mc.KIND_WORD]:
                self.publish(self.channel.markets[slot])
    return look


def _no_write_ahead(original):
    return staticmethod(lambda window, signed, wall_ms: b"")


def _nothing_pending(original):
    def move(self, leg, sign):
        original(self, leg, sign)
        self.position(leg.market_id).reserve_u6 = [0, 0]
    return move


def _mode_forgotten(original):
    return lambda self, *_answer: None


async def _flat_round(self):
    self.flat = True
    return True


async def _not_listed(self, o):
    self.m.answer_over(o, o.matched_u6, "absent", self.m.mono_ns())


def _never_late(original):
    def late(self, o, now):
        self._settled(o)
    return late


def _never_unsound(original):
    return lambda seen, now_ns, unsound_ns: 0


def _rolled_back_once(original):
    def roll_back(self, trade):
        original(self, trade)
        trade.account.cash_u6 += 1_000
    return roll_back


MUTANTS: dict[str, Mutant] = {
    "timeout_is_refusal": Mutant(replaced(Answers, "_posted", _timeout_is_refusal), ("orphan", "exposure", "position"),
                                 [("freeze_user", 18.0, {}), ("post_answer_lost", 6.0, {})]),
    "lost_cancel_is_done": Mutant(replaced(Answers, "_canceled", _lost_cancel_is_done), ("orphan",),
                                  [("slow_responses", 15.0, {"paths": "cancels", "delay_s": 12.0})]),
    "fill_counted_twice": Mutant(replaced(Positions, "apply", _counted_twice), ("position",)),
    "failed_ignored": Mutant(replaced(Positions, "apply", _failed_ignored), ("position",), [("ghost_fill", 15.0, {}), ("retrying", 1.0, {})]),
    "no_write_ahead": Mutant(replaced(OrderManager, "_ahead", _no_write_ahead), ("journal",)),
    "empty_listing_believed": Mutant(replaced(Comparison, "_not_listed", lambda _: _not_listed), ("orphan",), [("empty_listing", 15.0, {})]),
    "guardian_never_cancels": Mutant(replaced(Flat, "round", lambda _: _flat_round), ("dead_man",), [("SIGSTOP executor", 9.0, {})]),
    "guardian_sees_nothing": Mutant(replaced(guardian, "decide", _never_unsound), ("dead_man",), [("SIGSTOP executor", 12.0, {})]),
    "late_orders_kept": Mutant(replaced(Answers, "_late", _never_late), ("late",), [("post_delayed", 8.0, {"delay_s": 2.8})]),
    "frozen_book_believed": Mutant(_both(replaced(MarketFeed, "publish", _flags_dropped), replaced(MarketFeed, "publish", _always_fresh),
                                         replaced(MarketFeed, "look", _proved_by_nothing)), ("stale",), [("freeze_market", 15.0, {})]),
    "pending_not_counted": Mutant(replaced(Positions, "_move", _nothing_pending), ("exposure",), [("retrying", 18.0, {"retry_s": 8.0})],
                                  {"strategy__max_exposure_u6": 40_000_000, "sim__settle_ms": 8000.0}),
    "venue_mode_forgotten": Mutant(replaced(VenueModes, "post_answer", _mode_forgotten), ("forbidden",), [("cancel_only", 18.0, {})]),
    "roll_back_makes_money": Mutant(replaced(Settlement, "_roll_back", _rolled_back_once), ("conserved",), [("ghost_fill", 15.0, {})]),
}
QUICK = ("timeout_is_refusal", "fill_counted_twice", "failed_ignored", "no_write_ahead", "guardian_never_cancels")
