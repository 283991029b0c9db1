"""Faults of relayer and chain: what each does to the exchange, and what the settler makes of it."""

import asyncio

import pytest
from exchange_world import spec
from fault_world import FaultWorld
from settling import MARKET, Shop, merged

from shm_layout import records as r


@pytest.fixture
def world():
    with FaultWorld(spec(), settle_ms=20.0) as world:
        yield world


def shop_with(world, tmp_path, signature_type=3, **cfg):
    shop = Shop(world, tmp_path, signature_type, **cfg)
    shop.give(40, 60)
    return shop


def after(shop, world, condition, seconds=5.0):
    """Live until the condition holds with the fault on, heal, live until the merge is confirmed; (state, reason) of every step."""
    assert asyncio.run(shop.live(condition, seconds))
    world.heal()
    assert asyncio.run(shop.live(merged, seconds))
    assert shop.held()[0] == [0, 20] and len(shop.confirmed(r.SK_MERGE)) == 1
    return [step[2:] for step in shop.told]


@pytest.mark.parametrize("how", ["503", "html", "cut"])
@pytest.mark.parametrize("signature_type", [0, 3])
def test_relayer_down(world, tmp_path, how, signature_type):
    fault = world.fault("relayer_down", how=how)
    shop = shop_with(world, tmp_path, signature_type)
    steps = after(shop, world, lambda s: shop.report.codes.count("no_answer") > 2)
    assert fault.hits > 2 and not [s for s in steps if s[0] == r.SS_FAILED], "nothing was signed while nobody answered, so nothing failed"


@pytest.mark.parametrize("signature_type", [0, 3])
def test_relayer_down_after_the_submit(world, tmp_path, signature_type):
    """Nobody says what became of it: it stays under way, nothing else is begun, and in the end it is found."""
    shop = shop_with(world, tmp_path, signature_type)
    world.fault("settlement_slow", delay_s=0.3)
    assert asyncio.run(shop.live(lambda s: s.op is not None and (s.op.relayer_id or s.op.state == r.SS_SUBMITTED)))
    world.fault("relayer_down")
    after(shop, world, lambda s: shop.report.codes.count("no_answer") > 3)
    assert len(world.server.clob.chain.txs) == 1
    assert shop.submits == 1 or signature_type == 0, "only an account's own transaction, which its nonce lets through once, may be sent again"


def test_relayer_busy(world, tmp_path):
    fault = world.fault("relayer_busy")
    shop = shop_with(world, tmp_path)
    after(shop, world, lambda s: shop.report.codes.count("busy") > 3)
    assert fault.hits > 3 and len({step[0] for step in shop.told}) == 1, "the same operation all the time"


def test_relayer_busy_until_the_signature_is_too_old(world, tmp_path, monkeypatch):
    """After its deadline it cannot be used: given up, and done anew with a fresh one."""
    monkeypatch.setattr("mmbot.settlement.settler.EXPIRED_S", -10_000_000)
    world.fault("relayer_busy")
    shop = shop_with(world, tmp_path)
    steps = after(shop, world, lambda s: "expired" in shop.report.codes)
    assert (r.SS_FAILED, "expired") in steps and len(world.server.clob.chain.txs) == 1


@pytest.mark.parametrize("signature_type", [0, 1, 2, 3])
def test_submit_answer_lost(world, tmp_path, monkeypatch, signature_type):
    """Taken, and nobody said so: the same bytes go again, and the chain is asked whether they had gone through. Never a second merge."""
    monkeypatch.setattr("mmbot.settlement.settler.RESEND_NS", 50_000_000)
    fault = world.fault("submit_answer_lost")
    shop = shop_with(world, tmp_path, signature_type)
    after(shop, world, lambda s: fault.hits >= 1 and (s.op is None or s.op.doubt))
    assert len(world.server.clob.chain.txs) == 1 and shop.held()[0] == [0, 20]


@pytest.mark.parametrize("signature_type", [0, 3])
def test_merge_reverted(world, tmp_path, signature_type):
    fault = world.fault("merge_reverted", n=2)
    shop = shop_with(world, tmp_path, signature_type)
    after(shop, world, lambda s: shop.report.codes.count("reverted") == 2)
    assert fault.hits == 2 and {n for n, _, state, why in shop.told if (state, why) == (r.SS_FAILED, "reverted")} == {1, 2}
    assert shop.report.events == ["settlements_failed"] * 2 + ["merges"]


def test_paid_nothing(world, tmp_path):
    """Status 1 and not a cent: the status is not believed."""
    world.fault("paid_nothing", n=1)
    shop = shop_with(world, tmp_path)
    steps = after(shop, world, lambda s: "paid_nothing" in shop.report.codes)
    assert (r.SS_FAILED, "paid_nothing") in steps and "instead of 40" in "".join(shop.report.texts)


@pytest.mark.parametrize("signature_type", [0, 3])
def test_settlement_slow(world, tmp_path, signature_type):
    """It takes its time, it is said, and meanwhile nothing else is begun; a restart in between changes nothing."""
    fault = world.fault("settlement_slow", delay_s=30.0)
    shop = shop_with(world, tmp_path, signature_type, slow_s=0.1)
    assert asyncio.run(shop.live(lambda s: "slow" in shop.report.codes))
    after(shop, world, lambda s: shop.report.codes.count("slow") > 5)
    assert fault.hits > 0 and len(world.server.clob.chain.txs) == 1


def test_failures_in_a_row_wait_longer(world, tmp_path):
    world.fault("merge_reverted")
    shop = shop_with(world, tmp_path, retry_s=0.05)
    assert asyncio.run(shop.live(lambda s: shop.report.codes.count("reverted") == 3))
    assert shop.settler._retry_ns[MARKET] > 0 and shop.settler._failures[MARKET] == 3
