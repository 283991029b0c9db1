"""The order manager over real sockets against the exchange: random quoting, takers, kills; its books equal the exchange's to the unit."""

import asyncio
import contextlib
import random

import pytest
from exchange_world import World, spec
from order_life import Life, act, ours

from procs.executor import _ask_scoring
from shm_layout.records import BUY, SELL


@pytest.mark.parametrize("seed", [1, 2])
def test_books_agree_after_quoting_takers_and_kills(tmp_path, seed):
    """Five lives, each killed at a random moment under load, the last stopped in order: no order is left, and no unit is missing."""
    rng = random.Random(seed)

    async def story(world):
        cash0 = ours(world)[2]
        for _ in range(5):
            life = Life(world, tmp_path)
            await life.start()
            assert (await asyncio.to_thread(ours, world))[0] == 0, "start-up leaves no order of an earlier life"
            await act(life, rng, rng.uniform(0.1, 0.5))
            await life.kill()
        life = Life(world, tmp_path)
        await life.start()
        await act(life, rng, 0.8)
        orders_before = life.m.n_orders
        assert await life.stop()
        n_open, shares, cash = await asyncio.to_thread(ours, world)
        assert n_open == 0 and orders_before > 0
        qty, cost = life.position()
        assert shares == qty and cash0 - cash == cost
        assert sum(shares) > 0, "nothing was ever filled: the test shows nothing"
        assert life.m.positions.conflicts == 0
        strange = set(life.report.errors) - {"not_canceled", "refused_not_enough_balance"}
        assert not {e for e in strange if e in ("foreign_order", "missing_order", "missed_fill", "unbooked_fill", "order_id", "signing")}

    with World(spec()) as world:
        asyncio.run(asyncio.wait_for(story(world), 60))


def test_one_life_has_no_surprises(tmp_path):
    """Without kills nothing has to be mended: no unknown order, no difference, every fill by the user channel."""
    async def story(world):
        life = Life(world, tmp_path)
        await life.start()
        await act(life, random.Random(5), 1.5)
        assert await life.recovery.compare()
        assert life.report.events.get("reconcile_diffs", 0) == 0
        assert life.m.positions.fills > 0 and life.report.events["orders"] > 10
        life.target()
        await asyncio.sleep(0.2)
        assert (await asyncio.to_thread(ours, world))[0] == 0
        with contextlib.suppress(KeyError):
            assert life.report.events["unknown"] <= life.report.events["cancels"] // 4
        await life.stop()

    with World(spec()) as world:
        asyncio.run(asyncio.wait_for(story(world), 60))


def test_the_venue_says_which_orders_earn_rewards(tmp_path):
    """A bid near the middle and one far from it, both old enough: one of two scores; the executor's own question sees the same."""
    async def story(world):
        life = Life(world, tmp_path)
        await life.start()
        life.target((0, 0, 4900, 60), (0, 1, 4000, 60))
        while len(await asyncio.to_thread(lambda: world.do(lambda x, now: [setattr(o, "created_ms", now - 10_000) for o in x.orders.values()]))) < 2:
            await asyncio.sleep(0.01)
        ids = {o.px_e4: o.order_id for o in life.m.by_id.values()}
        assert await life.reads.scoring(list(ids.values())) == {ids[4900]: True, ids[4000]: False}
        assert await life.reads.scoring([]) == {}
        asking = asyncio.create_task(_ask_scoring(life.m, life.reads, 0.02, life.report.error))
        while life.m.scoring < 1:
            life.target((0, 0, 4900, 60), (0, 1, 4000, 60))
            await asyncio.sleep(0.02)
        asking.cancel()
        assert life.m.scoring == 1
        await life.stop()

    with World(spec(), rewards_per_day=50.0) as world:
        world.level(BUY, 5000, 100_000_000)
        world.level(SELL, 5200, 50_000_000)
        asyncio.run(asyncio.wait_for(story(world), 30))
