"""Inventory against the exchange over real sockets, fault by fault: after quiet our books equal the exchange's to the unit, and at no moment
does the exchange hold more shares for us than we count as held or possible."""

import asyncio
import random

import pytest
from exchange_world import DOWN_TOKEN, UP_TOKEN, spec
from fault_world import FaultWorld
from order_life import KEY, MARKET, SLOT, Life, act

from mmbot.clock import mono_ns
from shm_layout import records as r

FAST = {"request_timeout_s": 0.6, "order_deadline_ms": 400.0}
COMPARE_S = 0.25


def truth(world):
    """(shares by token, dollars) of the exchange's books."""
    def look(x, _now):
        account = x.account(KEY.address)
        return [account.shares.get(t, 0) for t in (UP_TOKEN, DOWN_TOKEN)], account.cash_u6
    return world.do(look)


class Story:
    """A life with its slow work, and a watch over what must always hold."""

    def __init__(self, world, life, seed=7):
        self.world, self.life, self.rng = world, life, random.Random(seed)
        self.lowest = [0, 0]            # least of (ours - theirs) seen, by token
        self.pending_seen = self.looks = 0

    async def comparing(self):
        while True:
            await asyncio.sleep(0.02)
            if self.life.recovery.due(COMPARE_S):
                await self.life.recovery.compare()

    async def watching(self):
        """Shares the exchange has booked for us are held, or counted as what may fill, at every moment."""
        while True:
            before, _ = await asyncio.to_thread(truth, self.world)
            ours = self.counted()
            after, _ = await asyncio.to_thread(truth, self.world)
            for token in (0, 1):
                self.lowest[token] = min(self.lowest[token], ours[token] - min(before[token], after[token]))
            self.looks += 1
            await asyncio.sleep(0.005)

    def counted(self):
        window = self.life.m.by_market[MARKET]
        qty = self.life.m.positions.position(MARKET).qty_u6
        self.pending_seen = max(self.pending_seen, *self.life.m.positions.position(MARKET).pending_u6)
        for group in (window.orders, window.tail):
            for o in group.values():
                qty[o.token] += o.open_u6
        return qty

    async def quiet(self, within_s=6.0):
        """Want nothing until every trade is final, nothing is open or unknown and no difference is left."""
        m, start = self.life.m, mono_ns()
        while (mono_ns() - start) / 1e9 < within_s:
            self.life.target()
            await asyncio.sleep(0.1)
            window = m.by_market[MARKET]
            if not (window.orders or window.tail or m.unknown or m.cut or m.positions.unsettled(MARKET) or self.life.recovery.differences.open):
                shares, _ = await asyncio.to_thread(truth, self.world)
                if shares == m.positions.position(MARKET).qty_u6 and m.user_ok:
                    return
        shares, cash = await asyncio.to_thread(truth, self.world)
        raise AssertionError(f"not quiet: ours {m.positions.position(MARKET).qty_u6} theirs {shares}, orders {len(window.orders)}, "
                             f"tail {len(window.tail)}, "
                             f"unknown {len(m.unknown)}, cut {len(m.cut)}, unsettled {m.positions.unsettled(MARKET)}, "
                             f"{self.life.recovery.differences.open}, {self.life.report.texts[-4:]}")


def run(tmp_path, *faults, seconds=0.9, check=lambda s, life: None, sim=(), told_true=True, **execution):
    """Act under the faults, heal, come to rest, compare to the unit. ``told_true``: the venue's last word about an order is true."""
    async def main(world):
        cash0 = truth(world)[1]
        life = Life(world, tmp_path, **FAST | execution)
        await life.start()
        s = Story(world, life)
        tasks = [asyncio.create_task(s.comparing()), asyncio.create_task(s.watching())]
        for name, params in faults:
            await asyncio.to_thread(world.fault, name, None, **params)
        await act(life, s.rng, seconds)
        life.target()
        await asyncio.sleep(0.3)
        await asyncio.to_thread(world.heal)
        await s.quiet()
        for task in tasks:
            task.cancel()
        assert await life.recovery.compare()
        await asyncio.sleep(0.1)
        assert not [t for t in tasks if t.done() and not t.cancelled() and t.exception()], "the slow work broke"
        shares, cash = await asyncio.to_thread(truth, world)
        p, a = life.m.positions.position(MARKET), life.links.account.cells[0].view(r.ACCOUNT)[0]
        row = a["position"][SLOT]
        assert p.qty_u6 == shares and cash0 - cash == sum(p.cost_u6) and life.m.cash_u6 == cash
        assert [int(row["qty_up_u6"]), int(row["qty_down_u6"])] == shares == [int(row["confirmed_up_u6"]), int(row["confirmed_down_u6"])]
        assert [int(row["sellable_up_u6"]), int(row["sellable_down_u6"])] == shares
        assert min(s.lowest) >= 0 or not told_true, f"uncounted shares: {s.lowest}"
        assert s.looks > 20 and life.m.positions.conflicts == 0
        check(s, life)
        await life.stop()
    with FaultWorld(spec(), **dict(sim)) as world:
        asyncio.run(asyncio.wait_for(main(world), 40))


def trades_happened(s, life):
    assert life.m.positions.fills > 5 and s.pending_seen > 0


def test_without_a_fault_there_is_no_difference(tmp_path):
    def check(s, life):
        trades_happened(s, life)
        assert life.report.events.get("reconcile_diffs", 0) == 0, life.report.texts
    run(tmp_path, check=check)


def test_ghost_fills_are_taken_back_to_the_unit(tmp_path):
    def check(s, life):
        assert life.m.positions.reversed > 2 and life.report.events["reversals"] > 2
    run(tmp_path, ("ghost_fill", {"p": 0.5}), check=check)


@pytest.mark.parametrize("then", ["MINED", "FAILED"])
def test_settlement_that_is_tried_again(tmp_path, then):
    def check(s, life):
        assert s.pending_seen > 0 and (life.m.positions.reversed > 0) == (then == "FAILED")
    run(tmp_path, ("retrying", {"p": 0.6, "retry_s": 0.2, "then": then}), check=check)


def test_fills_after_the_cancel_was_confirmed(tmp_path):
    """The venue says that nothing more was matched, and then a trade comes: it counts, whatever was said before."""
    def check(s, life):
        trades_happened(s, life)
    run(tmp_path, ("fill_after_cancel", {"p": 0.5, "share": 0.4, "late_s": 0.25}), check=check, told_true=False)


def test_the_same_fill_again_and_the_whole_channel_again(tmp_path):
    run(tmp_path, ("duplicate_fill_events", {}), ("user_replayed", {"after_s": 0.2}), check=trades_happened)


def test_fills_on_the_other_token(tmp_path):
    run(tmp_path, ("cross_match", {}), check=trades_happened)


@pytest.mark.parametrize("events", ["trade", "all"])
def test_a_channel_that_loses_events(tmp_path, events):
    """Trades that nobody tells are read; order events that nobody tells show the channel to be deaf."""
    def check(s, life):
        if events == "all":
            assert life.m.user_deaf > 0, "and a deaf channel is not quoted on for a while: fills are few"
        else:
            trades_happened(s, life)
    run(tmp_path, ("user_lost", {"events": events, "p": 0.7}), check=check, deaf_ms=300.0)


def test_events_that_come_late(tmp_path):
    run(tmp_path, ("user_delayed", {"delay_s": 0.4, "jitter_s": 0.3}), check=trades_happened)


def test_balances_that_lag_are_explained(tmp_path):
    def check(s, life):
        trades_happened(s, life)
        assert not life.m.difference_since_ns
    run(tmp_path, ("balance_lag", {"lag_s": 3.0, "update_heals": False}), check=check)


def test_a_listing_that_is_empty_is_not_believed(tmp_path):
    def check(s, life):
        trades_happened(s, life)
        assert "foreign_order" not in life.report.errors and life.report.events.get("unknown", 0) < 20
    run(tmp_path, ("empty_listing", {"listing": "both"}), check=check)


def test_reservations_that_never_decrement(tmp_path):
    """The venue keeps reserving what was matched long ago; orders it refuses are explained, and not tried again and again."""
    def check(s, life):
        refused = [t for t in life.report.texts if t.startswith("refused_not_enough_balance")]
        assert refused and all("at most" in t for t in refused) and any("no order of ours explains" in t for t in refused)
        assert life.m.n_rejects < 30
    run(tmp_path, ("stale_reservation", {}), seconds=1.5, check=check, sim={"cash_u6": 80_000_000})


def test_all_of_it_at_once(tmp_path):
    run(tmp_path, ("ghost_fill", {"p": 0.3}), ("retrying", {"p": 0.3, "retry_s": 0.1}), ("duplicate_fill_events", {}), ("cross_match", {}),
        ("fill_after_cancel", {"p": 0.3, "share": 0.5, "late_s": 0.2}), ("user_lost", {"p": 0.2}), ("cancel_lost", {"p": 0.2}),
        ("post_answer_lost", {"p": 0.2}), seconds=1.8, check=trades_happened, told_true=False,
        lost_pause_s=0.05, lost_pause_max_s=0.2)
