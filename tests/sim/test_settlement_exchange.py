"""Merging and redeeming against the exchange, in every kind of wallet, with every fault, and with a settler that dies at every step."""

import asyncio

import numpy as np
import pytest
from exchange_world import CID, DOWN_TOKEN, spec
from fault_world import FaultWorld
from order_life import FakeRing, Life
from settling import MARKET, Shop, merged, redeemed

from mmbot.clock import mono_ns
from mmbot.execution.settlements import Settlements
from mmbot.settlement.publisher import Totals, fill, holdings
from mmbot.settlement.wallet import Wallet
from shm_layout import records as r


def start(cash_u6=1_000_000_000, **changes):
    return FaultWorld(spec(**changes), settle_ms=20.0, cash_u6=cash_u6)


def resolve(world, outcome):
    world.do(lambda x, now: x.resolve(CID, outcome, now))
    world.wait(lambda x: x.market(CID).paid)


@pytest.mark.parametrize("signature_type", [0, 1, 2, 3])
def test_full_sets_become_dollars_and_a_resolved_window_pays(tmp_path, signature_type):
    with start() as world:
        shop = Shop(world, tmp_path, signature_type)
        shop.give(40, 60)
        cash = shop.held()[1]
        assert asyncio.run(shop.live(merged))
        assert shop.held() == ([0, 20], cash + 40)
        resolve(world, r.DOWN)
        assert asyncio.run(shop.live(redeemed))
        assert shop.held() == ([0, 0], cash + 60)
        assert [state for number, _, state, _ in shop.told if number == 1][:4] == [r.SS_WANTED, r.SS_SUBMITTED, r.SS_SUBMITTED, r.SS_MINED]
        assert shop.report.events == ["merges", "redeems"] and not shop.report.codes
        assert world.ask("GET", "/sim/health")[1]["failures"] == 0


@pytest.mark.parametrize("signature_type", [0, 3])
def test_markets_of_the_second_protocol_go_through_the_router(tmp_path, signature_type):
    with start(version="v2") as world:
        shop = Shop(world, tmp_path, signature_type)
        shop.give(40, 60)
        cash = shop.held()[1]
        assert asyncio.run(shop.live(merged)) and shop.held() == ([0, 20], cash + 40)
        resolve(world, r.DOWN)
        assert asyncio.run(shop.live(redeemed)) and shop.held() == ([0, 0], cash + 60)


def test_what_offers_have_promised_is_left_alone(tmp_path):
    with start() as world:
        shop = Shop(world, tmp_path)
        shop.give(60, 60)
        assert world.post(price=0.9, size=20, side="SELL")[0] == 200
        assert asyncio.run(shop.live(merged))
        assert shop.held()[0] == [20, 20] and world.resting() == [9000], "the offer still has its shares"


def test_a_merge_that_takes_the_shares_of_an_offer_costs_the_offer(tmp_path):
    """What the exchange does to somebody who does not look."""
    with start() as world:
        shop = Shop(world, tmp_path, look=lambda: ([shop.truth()[0][0]._replace(offered_u6=(0, 0))], shop.truth()[1], True))
        shop.give(60, 60)
        assert world.post(price=0.9, size=20, side="SELL")[0] == 200
        assert asyncio.run(shop.live(merged)) and shop.held()[0] == [0, 0] and world.resting() == []


def test_no_more_than_the_chain_shows_and_nothing_below_the_least(tmp_path):
    """The executor's books are ahead of the chain: what is merged is what the chain has, or nothing."""
    with start() as world:
        shop = Shop(world, tmp_path)
        shop.look = lambda: ([shop.truth()[0][0]._replace(qty_u6=(90 << 20,) * 2, confirmed_u6=(90 << 20,) * 2, sellable_u6=(90 << 20,) * 2)],
                             shop.truth()[1], True)
        shop.give(20, 30)
        assert asyncio.run(shop.live(lambda s: "balance_short" in shop.report.codes)) and shop.held()[0] == [20, 30]
        shop.give(10, 0)
        assert asyncio.run(shop.live(merged)) and shop.held()[0] == [0, 0]


def test_paused_merges_do_not_keep_from_redeeming(tmp_path):
    with start() as world:
        shop = Shop(world, tmp_path)
        shop.paused = True
        shop.give(40, 60)
        assert asyncio.run(shop.live(lambda s: s.why.get(MARKET) == "merges are paused")) and shop.held()[0] == [40, 60]
        resolve(world, r.UP)
        assert asyncio.run(shop.live(redeemed)) and shop.held()[0] == [0, 0] and not shop.confirmed(r.SK_MERGE)


def test_somebody_else_redeems_first(tmp_path, monkeypatch):
    """The venue's operator turns shares into dollars by itself, when it was allowed to: that is done, and nothing is sent."""
    monkeypatch.setattr("mmbot.settlement.settler.LOOK_AGAIN_NS", 50_000_000)
    with start() as world:
        shop = Shop(world, tmp_path)
        shop.give(40, 10)
        assert asyncio.run(shop.live(lambda s: MARKET in s.journal.windows))
        cash = shop.held()[1]
        before = shop.truth()
        resolve(world, r.UP)
        world.do(lambda x, now: x.redeem(x.account(shop.who.funder), x.market(CID), (40_000_000, 10_000_000)))
        shop.look = lambda: ([before[0][0]._replace(outcome=r.UP)], {MARKET: type(before[1][MARKET])(**{
            **{f: getattr(before[1][MARKET], f) for f in before[1][MARKET].__struct_fields__}, "outcome": r.UP})}, True)
        assert asyncio.run(shop.live(redeemed))
        assert shop.submits == 0 and shop.told[-1][2:] == (r.SS_CONFIRMED, "elsewhere") and shop.held()[1] == cash + 40


def test_the_conditional_tokens_own_redeem_pays_nothing_and_says_so_to_nobody(tmp_path, monkeypatch):
    """The trap: the same call at the wrong contract succeeds. The settler's judge sees it."""
    with start() as world:
        shop = Shop(world, tmp_path)
        shop.give(0, 60)
        asyncio.run(shop.live(lambda s: MARKET in s.journal.windows))
        resolve(world, r.DOWN)
        with monkeypatch.context() as m:
            m.setattr(Wallet, "operator", lambda self, held: self._ctx.environment_config.conditional_tokens)
            assert asyncio.run(shop.live(lambda s: "paid_nothing" in shop.report.codes))
        assert shop.held()[0] == [0, 60] and not shop.confirmed(r.SK_REDEEM)
        assert asyncio.run(shop.live(redeemed)) and shop.held()[0] == [0, 0]


# ---- a settler that dies ----

STEPS = [(n, after) for n in range(1, 7) for after in (False, True)]


@pytest.mark.parametrize("signature_type", [0, 3])
@pytest.mark.parametrize("die_at", STEPS, ids=lambda s: f"{'after' if s[1] else 'before'}-{s[0]}")
def test_it_dies_at_any_step_and_nothing_happens_twice_or_never(tmp_path, monkeypatch, die_at, signature_type):
    """Steps of one operation: wanted, submitted, (the submit itself), taken, mined, confirmed."""
    monkeypatch.setattr("mmbot.settlement.settler.RESEND_NS", 100_000_000)
    with start() as world:
        shop = Shop(world, tmp_path, signature_type)
        shop.give(40, 60)
        cash = shop.held()[1]
        shop.die_at = die_at
        died = not asyncio.run(shop.live(merged))
        assert died
        shop.steps = 0
        assert asyncio.run(shop.live(merged))
        assert shop.held() == ([0, 20], cash + 40), "merged exactly once"
        assert len(shop.confirmed(r.SK_MERGE)) == 1
        states = {}
        for number, _, state, _ in shop.told:
            states[number] = max(state, states.get(number, 0))
        assert set(states.values()) <= {r.SS_CONFIRMED, r.SS_FAILED}, "no operation is left without its end"
        assert len(world.server.clob.chain.txs) == 1


# ---- with an executor ----

async def _trade(life, world, shares=30):
    """Buy pairs: bids on both tokens, and takers for both."""
    for side, levels in ((r.BUY, (5000, 4900, 4800)), (r.SELL, (5200, 5300, 5400))):
        for px in levels:
            await asyncio.to_thread(world.level, side, px, 0)
    life.target((0, 0, 4800, shares), (1, 0, 4900, shares))
    await until(lambda: len(world.resting()) == 2)
    for side, px in ((r.SELL, 4800), (r.BUY, 5100)):
        await asyncio.to_thread(world.take, side, px, shares)
    life.target()


async def until(condition, seconds=8.0):
    end = mono_ns() + int(seconds * 1e9)
    while not await asyncio.to_thread(condition):
        assert mono_ns() < end, "it never happened"
        await asyncio.sleep(0.02)


class Pair:
    """An executor's life and a settler that reads what it publishes; they share a directory and a ring."""

    def __init__(self, world, tmp_path):
        self.world, self.life = world, Life(world, tmp_path)
        self.ring, self.totals = FakeRing(r.SETTLEMENT), Totals()
        self.shop = Shop(world, tmp_path / "journal", look=self.memory)
        self.life.m.settlements = Settlements(self.life.m, self.ring, self.shop.path)
        self.differed = 0

    def memory(self):
        links = self.life.links
        empty = np.zeros(r.MARKET_SLOTS, r.OWN)
        owns = [links.own.cells[i].view(r.OWN)[0] if links.own.cells[i] is not None else empty[i] for i in range(r.MARKET_SLOTS)]
        found, facts = holdings(links.markets.cells[0].view(r.MARKETS)[0], links.account.cells[0].view(r.ACCOUNT)[0], owns)
        return found, facts, self.life.m.state == r.AS_READY

    def tell(self, op):
        """What the settler publishes reaches the executor."""
        rec = np.zeros(1, r.SETTLEMENT)
        fill(rec, op, self.totals, mono_ns())
        self.ring.queue.append(rec.view(np.int64).reshape(-1).copy())

    async def comparing(self):
        while True:
            await asyncio.sleep(0.02)
            if self.life.recovery.due(0.2):
                await self.life.recovery.compare()
            self.differed += bool(self.life.recovery.differences.since_ns)

    def same(self):
        """Do our books equal the exchange's?"""
        shares, cash = self.shop.held()
        p = self.life.m.positions.position(MARKET)
        return [n / 1e6 for n in p.qty_u6] == shares and self.life.m.cash_u6 / 1e6 == cash


def test_pairs_pile_up_and_come_back_as_dollars(tmp_path):
    """Trade, merge, trade, merge; at the end positions and cash are the exchange's, and nothing was ever called a difference."""
    async def main(world):
        pair = Pair(world, tmp_path)
        await pair.life.start()
        cash = pair.shop.held()[1]
        pair.shop.told = Tee(pair)
        task = asyncio.create_task(pair.comparing())
        for n in (1, 2):
            await _trade(pair.life, world)
            await pair.shop.live(lambda s, n=n: sum(o.state == r.SS_CONFIRMED for o in s.journal.ops.values()) == n, 10.0)
            await until(pair.same)
            assert pair.shop.held()[0] == [0, 0]
        assert pair.shop.held()[1] == cash + 2 * 30 * 0.03, "each pair was bought for 97 cents"
        assert int(pair.life.links.account.cells[0].view(r.ACCOUNT)["realized_u6"][0]) == 1_800_000
        await asyncio.sleep(0.5)
        assert not pair.differed and not {"cash_moved", "shares_moved"} & set(pair.life.report.errors), pair.life.report.texts
        task.cancel()
        await pair.life.stop()
    with start(cash_u6=1_000_000_000) as world:
        asyncio.run(asyncio.wait_for(main(world), 40))


class Tee(list):
    """A list of told steps that tells the executor too."""

    def __init__(self, pair):
        super().__init__()
        self.pair = pair

    def append(self, step):
        super().append(step)
        self.pair.tell(self.pair.shop.settler.journal.ops[step[0]])


def test_an_executor_restarts_after_a_merge_and_counts_it_once(tmp_path):
    async def main(world):
        pair = Pair(world, tmp_path)
        await pair.life.start()
        await _trade(pair.life, world)
        task = asyncio.create_task(pair.comparing())
        await pair.shop.live(merged, 10.0)
        task.cancel()
        await pair.life.kill()
        again = Pair(world, tmp_path)
        await again.life.start()
        assert again.same() and again.life.m.positions.position(MARKET).qty_u6 == [0, 0]
        assert await again.life.recovery.compare() and not again.life.recovery.differences.open
        assert not {"cash_moved", "shares_moved"} & set(again.life.report.errors)
        await again.life.stop()
    with start() as world:
        asyncio.run(asyncio.wait_for(main(world), 40))


# ---- the exchange itself ----

def test_an_exchange_that_restarts_remembers_what_was_mined(tmp_path):
    (tmp_path / "sim").mkdir()
    with FaultWorld(spec(), directory=tmp_path / "sim", settle_ms=20.0) as world:
        shop = Shop(world, tmp_path)
        assert world.post(price=0.51, size=30, post_only=False)[0] == 200 and world.post(price=0.51, size=30, token=DOWN_TOKEN, post_only=False)[0] == 200
        world.wait(lambda x: all(t.status == "CONFIRMED" for t in x.trades.values()))
        assert asyncio.run(shop.live(merged))
        before, nonce = shop.held(), world.server.clob.chain.nonces
    with FaultWorld(spec(), directory=tmp_path / "sim", settle_ms=20.0) as world:
        shop.world = world
        assert shop.held() == before and world.server.clob.chain.nonces == nonce and len(world.server.clob.chain.txs) == 1


def test_money_is_conserved(tmp_path):
    def money(x):
        accounts = [*x.accounts.values(), x.recorded]
        market = x.market(CID)
        up, down = (sum(a.shares.get(t, 0) for a in accounts) for t in market.tokens)
        return sum(a.cash_u6 for a in accounts) + up, up - down
    with start() as world:
        shop = Shop(world, tmp_path)
        world.post(price=0.53, size=60, post_only=False)
        world.post(price=0.51, size=40, token=DOWN_TOKEN, post_only=False)
        world.wait(lambda x: all(t.status == "CONFIRMED" for t in x.trades.values()))
        before = world.do(lambda x, now: money(x))
        assert before[1] == 0 and asyncio.run(shop.live(merged)) and world.do(lambda x, now: money(x)) == before
        resolve(world, r.UP)
        asyncio.run(shop.live(redeemed))
        assert shop.held()[0] == [0, 0] and world.do(lambda x, now: sum(a.cash_u6 for a in [*x.accounts.values(), x.recorded])) == before[0]
