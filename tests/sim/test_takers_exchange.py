"""Orders that take and orders that sell, over real sockets against the exchange: after each story the executor's books equal the exchange's to the unit."""

import asyncio

import pytest
from exchange_world import CID, UP_TOKEN, spec
from fault_world import FaultWorld
from order_life import KEY, MARKET, Life, ours

from mmbot.clock import mono_ns
from shm_layout.records import BUY, DOWN, QK_FAK, QK_FOK, QK_POST_ONLY, SELL, UP, VENUE_MODES

ONE = 1_000_000
FAST = {"request_timeout_s": 0.6, "order_deadline_ms": 400.0}


class Story:
    def __init__(self, world, life):
        self.world, self.life, self.m = world, life, life.m

    async def until(self, condition, seconds=4.0, quotes=None, why="it never happened"):
        """Wait; with ``quotes`` the core goes on wanting them."""
        end = mono_ns() + int(seconds * 1e9)
        while not condition():
            assert mono_ns() < end, (why, self.life.report.texts[-5:], [(o.state, o.unknown, o.kind) for o in self.orders()])
            await asyncio.sleep(0.02)

    async def wish(self, *quotes, seconds=0.15):
        """The core wants quotes for a moment; what takes is wished anew each time."""
        self.life.desire()
        await asyncio.sleep(0.01)
        self.life.desire(*quotes)
        await asyncio.sleep(seconds)

    def orders(self):
        return [o for w in self.m.by_market.values() for o in w.orders.values()]

    def qty(self):
        return self.m.positions.position(MARKET).qty_u6

    def quiet(self):
        return not self.m.unknown and not [o for o in self.orders() if o.kind != QK_POST_ONLY]

    async def hold(self, shares):
        """Buy so many Up by taking and wait until they can be sold."""
        await self.wish((UP, 0, BUY, QK_FOK, 5400, 0.54 * shares))
        await self.until(lambda: self.qty()[UP] >= shares * ONE and not self.m.positions.unsettled(MARKET))
        self.life.desire()

    async def do(self, work):
        return await asyncio.to_thread(self.world.do, work)

    async def agree(self, cash0):
        """Stop, and compare with the exchange's books."""
        await asyncio.sleep(0.3)
        assert await self.life.stop()
        n_open, shares, cash = await asyncio.to_thread(ours, self.world)
        position = self.m.positions.position(MARKET)
        assert n_open == 0 and shares == position.qty_u6
        assert abs(cash0 - cash - self.m.positions.spent_u6) <= self.m.positions.fills, "a mint rounds against the taker, by one unit a trade"
        assert self.m.positions.conflicts == 0 and "overfill" not in self.life.report.errors


def run(tmp_path, story, sim=(), **execution):
    async def main(world):
        cash0 = ours(world)[2]
        life = Life(world, tmp_path, **FAST | execution)
        await life.start()
        s = Story(world, life)
        await s.until(lambda: life.m.user_ok)
        await asyncio.sleep(0.02)
        await story(s)
        await s.agree(cash0)
    with FaultWorld(spec(), **dict(sim)) as world:
        asyncio.run(asyncio.wait_for(main(world), 60))


@pytest.mark.parametrize("delay_ms", [0.0, 150.0])
def test_partly_filled_and_the_rest_is_killed(tmp_path, delay_ms):
    """50 shares stand at 0.52: of 40 dollars 26 are spent. Two levels give two trades, each with its own fee."""
    async def story(s):
        await s.wish((UP, 0, BUY, QK_FAK, 5200, 40), seconds=0.4)
        await s.until(s.quiet)
        assert s.qty() == [50 * ONE, 0] and s.m.positions.position(MARKET).cost_u6[UP] == 26 * ONE and s.m.positions.fees_u6 == 873_600
        await s.wish((UP, 0, BUY, QK_FAK, 5400, 69.6), seconds=0.4)
        await s.until(s.quiet)
        assert s.qty()[UP] == 180 * ONE and s.m.positions.fills == 3 and s.m.positions.fees_u6 == 873_600 + 1_046_220 + 1_217_160
    run(tmp_path, story, {"taker_delay_ms": delay_ms})


def test_killed_when_it_cannot_be_filled_whole(tmp_path):
    async def story(s):
        await s.wish((UP, 0, BUY, QK_FOK, 5200, 40), (DOWN, 0, BUY, QK_FAK, 4500, 10))
        assert s.quiet() and s.qty() == [0, 0] and s.life.report.events["takes"] == 2 and s.life.report.errors == []
        assert len(s.m.errors._posts) == 2 and s.m.errors._failed == 0
    run(tmp_path, story)


def test_filled_whole_at_better_prices(tmp_path):
    async def story(s):
        await s.wish((DOWN, 0, BUY, QK_FOK, 5300, 106))
        await s.until(s.quiet)
        paid = s.m.positions.position(MARKET).cost_u6[DOWN]
        assert 106 * ONE - 10_000 <= paid <= 106 * ONE and s.qty()[DOWN] > 106 * ONE * 10_000 // 5300, "a dollar-sized order buys more at better prices"
    run(tmp_path, story)


def test_held_back_and_then_matched(tmp_path):
    async def story(s):
        s.life.desire((UP, 0, BUY, QK_FAK, 5200, 10))
        await s.until(lambda: any(o.t_live_ns for o in s.orders()), 1.0)
        (o,) = s.orders()
        assert s.qty() == [0, 0] and not s.m.unknown, "accepted, not matched yet"
        s.life.desire((UP, 0, SELL, QK_POST_ONLY, 5100, 5), (DOWN, 1, BUY, QK_POST_ONLY, 4800, 5))     # both would meet it
        await asyncio.sleep(0.06)
        assert len(s.orders()) == 1 and s.m.n_cancels == 0
        await s.until(s.quiet)
        assert s.qty()[UP] > 19 * ONE and s.m.by_id[o.order_id].budget_u6 == 10 * ONE
    run(tmp_path, story, {"taker_delay_ms": 150.0})


def test_held_back_and_nothing_is_left(tmp_path):
    """The makers go while it is held back: a FAK ends with nothing, and the next wish is free."""
    async def story(s):
        s.life.desire((UP, 0, BUY, QK_FAK, 5200, 10))
        await s.until(lambda: any(o.t_live_ns for o in s.orders()), 1.0)
        await s.do(lambda x, now: x.set_level(CID, SELL, 5200, 0, now))
        await s.until(s.quiet)
        assert s.qty() == [0, 0]
        await s.wish((UP, 0, BUY, QK_FAK, 5300, 10.6), seconds=0.4)
        await s.until(s.quiet)
        assert s.qty()[UP] == 20 * ONE
    run(tmp_path, story, {"taker_delay_ms": 150.0})


def test_an_offer_rests_and_is_bought(tmp_path):
    async def story(s):
        await s.hold(20)
        quote = UP, 0, SELL, QK_POST_ONLY, 5500, 20
        s.life.desire(quote)
        await s.until(lambda: [o.state for o in s.orders()] == [2], 3.0)
        await s.do(lambda x, now: x.take(CID, BUY, 5500, 500 * ONE, now))
        await s.until(lambda: s.qty()[UP] < 15 * ONE)
        assert s.m.positions.position(MARKET).realized_u6 != 0
    run(tmp_path, story)


def test_shares_that_have_not_settled_are_refused_and_sold_later(tmp_path):
    """Bought and not on the chain yet: the venue refuses; it is tried again with a wait that doubles, and sold once settled."""
    async def story(s):
        await s.wish((UP, 0, BUY, QK_FOK, 5400, 10.8), seconds=0.3)
        await s.until(lambda: s.qty()[UP] >= 20 * ONE)
        s.m.positions.position(MARKET).sellable_u6[UP] = 20 * ONE      # a cache that says more than is true
        quote = UP, 0, SELL, QK_POST_ONLY, 5600, 20
        s.life.desire(quote)
        await s.until(lambda: "refused_not_enough_balance" in s.life.report.errors, 2.0)
        rejected = s.life.report.events["rejects"]
        for _ in range(40):
            s.life.desire(quote)
            await asyncio.sleep(0.1)
            if any(o.side == SELL and o.state == 2 for o in s.orders()):
                break
        assert any(o.side == SELL and o.state == 2 for o in s.orders()), s.life.report.texts[-3:]
        assert s.life.report.events["rejects"] - rejected <= 3
    run(tmp_path, story, {"settle_ms": 1500.0})


def test_refused_where_only_post_only_orders_are_taken(tmp_path):
    async def story(s):
        await asyncio.to_thread(s.world.fault, "post_only", None, retry_after_s=3.0)
        await s.wish((UP, 0, BUY, QK_FAK, 5200, 10))
        assert s.quiet() and s.qty() == [0, 0] and VENUE_MODES[s.m.venue.mode] == "post_only"
        sent = s.life.report.events["takes"]
        await asyncio.sleep(1.0)
        await s.wish((UP, 0, BUY, QK_FAK, 5200, 10), (UP, 0, BUY, QK_POST_ONLY, 5000, 10))
        assert s.life.report.events["takes"] == sent and len(s.orders()) == 1, "what rests is posted, what takes is not even sent"
        await asyncio.to_thread(s.world.heal)
        await s.until(lambda: VENUE_MODES[s.m.venue.mode] == "normal")
        await s.wish((UP, 0, BUY, QK_FAK, 5200, 10))
        await s.until(s.quiet)
        assert s.qty()[UP] > 19 * ONE
    run(tmp_path, story)


@pytest.mark.parametrize("delay_ms", [0.0, 150.0])
def test_an_answer_is_lost_and_the_fate_found_by_the_digest(tmp_path, delay_ms):
    async def story(s):
        await asyncio.to_thread(s.world.fault, "post_answer_lost", None)
        await s.wish((UP, 0, BUY, QK_FAK, 5200, 10), seconds=0.4)
        await asyncio.to_thread(s.world.heal)
        await s.until(s.quiet)
        assert s.qty()[UP] > 19 * ONE and s.life.report.events["takes"] == 1 and "reposts" not in s.life.report.events
    run(tmp_path, story, {"taker_delay_ms": delay_ms})


def test_sold_by_taking_with_its_fee(tmp_path):
    async def story(s):
        await s.hold(20)
        fees, held = s.m.positions.fees_u6, s.qty()[UP]
        for _ in range(10):
            await s.wish((UP, 0, SELL, QK_FAK, 4900, 15))
            if s.m.positions.position(MARKET).sold_u6[UP]:
                break
        await s.until(s.quiet)
        assert s.qty()[UP] == held - 15 * ONE and s.m.positions.fees_u6 - fees == 262_500
    run(tmp_path, story)


def test_killed_while_the_venue_holds_it_back(tmp_path):
    """The process dies between answer and match: the next life finds the order in its journal, waits for its end and books what it did."""
    async def main(world):
        cash0 = ours(world)[2]
        life = Life(world, tmp_path, **FAST)
        await life.start()
        await asyncio.sleep(0.05)
        life.desire((UP, 0, BUY, QK_FAK, 5200, 10))
        await Story(world, life).until(lambda: any(o.t_live_ns for w in life.m.by_market.values() for o in w.orders.values()), 1.0)
        await life.kill()
        again = Life(world, tmp_path, **FAST)
        await again.start()
        s = Story(world, again)
        (found,) = again.m.journal.found.values()
        assert found.kind == QK_FAK and found.size_u6 == 10 * ONE
        await s.until(lambda: s.qty()[UP] > 19 * ONE)
        await s.agree(cash0)
    with FaultWorld(spec(), taker_delay_ms=400.0) as world:
        asyncio.run(asyncio.wait_for(main(world), 60))
    assert KEY.address and UP_TOKEN
