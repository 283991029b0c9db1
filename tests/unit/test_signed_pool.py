"""Pre-signed orders: given out once, fresh only, dropped with tick and market, refilled nearest first."""

import json

import pytest

from mmbot.execution.credentials import checked
from mmbot.execution.l2 import L2Auth
from mmbot.execution.pool import SignedPool
from mmbot.execution.signing import OrderSigner, Salts
from mmbot.execution.wire import Requests
from shm_layout.records import BUY, SELL

KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
ACCOUNT = checked(KEY, 0, "", "7d1c2f0e-5b1a-4c0e-9a5f-1f2e3d4c5b6a", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "9f0c2d")
UP, DOWN, SIZE, S = 111, 222, 20_000_000, 1_000_000_000
T_MS = 1793000000123


@pytest.fixture
def pool():
    return SignedPool(OrderSigner(ACCOUNT), Salts(1), max_age_ns=20 * S, radius_ticks=2)


def fill(pool, now_ns=0):
    while pool.refill(now_ns, T_MS):
        pass


def test_prices_around_the_quote_at_every_size(pool):
    pool.want(UP, BUY, 100, [5200], [SIZE, 2 * SIZE])
    fill(pool)
    assert len(pool) == 10 == pool.signed
    for px_e4 in (5000, 5100, 5200, 5300, 5400):
        for size in (SIZE, 2 * SIZE):
            order = pool.take(UP, BUY, px_e4, size, S, 100)
            assert (order.px_e4, order.size_u6, order.token_id, order.side, order.timestamp_ms, order.signed_mono_ns) == (
                px_e4, size, UP, BUY, T_MS, 0)
            fields = json.loads(order.body)
            assert fields["postOnly"] is True and fields["order"]["tokenId"] == str(UP) and fields["orderType"] == "GTC"
    assert (pool.hits, pool.misses) == (10, 0)


def test_each_order_is_given_out_once(pool):
    pool.want(UP, BUY, 100, [5200], [SIZE])
    fill(pool)
    first = pool.take(UP, BUY, 5200, SIZE, 0, 100)
    assert first is not None and pool.take(UP, BUY, 5200, SIZE, 0, 100) is None
    fill(pool)
    second = pool.take(UP, BUY, 5200, SIZE, 0, 100)
    assert second.order_id != first.order_id and second.salt != first.salt
    assert (pool.hits, pool.misses) == (2, 1)


@pytest.mark.parametrize("token, side, px_e4, size", [(UP, BUY, 5500, SIZE), (UP, SELL, 5200, SIZE), (DOWN, BUY, 5200, SIZE), (UP, BUY, 5200, SIZE + 10_000)])
def test_what_was_not_wanted_is_a_miss(pool, token, side, px_e4, size):
    pool.want(UP, BUY, 100, [5200], [SIZE])
    fill(pool)
    assert pool.take(token, side, px_e4, size, 0, 100) is None
    assert pool.misses == 1


def test_sizes_are_signed_in_hundredths(pool):
    pool.want(UP, BUY, 100, [5200], [SIZE + 9_999])
    fill(pool)
    assert pool.take(UP, BUY, 5200, SIZE + 5_000, 0, 100).size_u6 == SIZE


def test_an_old_order_is_never_given_out(pool):
    pool.want(UP, BUY, 100, [5200], [SIZE])
    fill(pool, now_ns=0)
    assert pool.take(UP, BUY, 5200, SIZE, 20 * S, 100) is not None
    assert pool.take(UP, BUY, 5300, SIZE, 20 * S + 1, 100) is None
    assert (pool.hits, pool.misses, pool.expired) == (1, 1, 1)


def test_orders_are_signed_anew_before_they_are_too_old(pool):
    pool.want(UP, BUY, 100, [5200], [SIZE])
    fill(pool, now_ns=0)
    assert pool.refill(14 * S, T_MS) == 0
    fill(pool, now_ns=16 * S)
    assert len(pool) == 5 and pool.signed == 10 and pool.expired == 5
    assert pool.take(UP, BUY, 5200, SIZE, 30 * S, 100).signed_mono_ns == 16 * S


def test_the_age_list_does_not_kill_a_younger_order(pool):
    pool.want(UP, BUY, 100, [5200], [SIZE])
    fill(pool, now_ns=0)
    pool.take(UP, BUY, 5200, SIZE, 0, 100)
    fill(pool, now_ns=10 * S)           # the same key, younger
    fill(pool, now_ns=16 * S)           # the first entry of this key comes of age
    assert pool.take(UP, BUY, 5200, SIZE, 29 * S, 100).signed_mono_ns == 10 * S


def test_another_tick_drops_what_was_signed(pool):
    pool.want(UP, BUY, 100, [5200], [SIZE])
    fill(pool)
    pool.want(UP, BUY, 10, [5200], [SIZE])
    assert len(pool) == 0 and pool.dropped == 5
    fill(pool)
    assert pool.take(UP, BUY, 5210, SIZE, 0, 10) is not None


def test_an_order_signed_under_another_tick_is_not_given_out(pool):
    pool.want(UP, BUY, 100, [5200], [SIZE])
    fill(pool)
    assert pool.take(UP, BUY, 5200, SIZE, 0, 10) is None
    assert pool.hits == 0


def test_another_exchange_drops_what_was_signed(pool):
    pool.want(UP, BUY, 100, [5200], [SIZE])
    fill(pool)
    pool.want(UP, BUY, 100, [5200], [SIZE], version=2)
    assert len(pool) == 0


def test_a_rolled_market_is_forgotten(pool):
    for token in (UP, DOWN):
        pool.want(token, BUY, 100, [5200], [SIZE])
    fill(pool)
    pool.drop(UP)
    assert pool.take(UP, BUY, 5200, SIZE, 0, 100) is None
    assert pool.take(DOWN, BUY, 5200, SIZE, 0, 100) is not None
    pool.drop(DOWN)
    fill(pool)
    assert len(pool) == 0, "nothing of a forgotten market is signed again"


def test_moving_quotes_keep_what_still_fits(pool):
    pool.want(UP, BUY, 100, [5200], [SIZE])
    fill(pool)
    pool.want(UP, BUY, 100, [5300], [SIZE])
    assert len(pool) == 4 and pool.dropped == 1
    assert pool.refill(0, T_MS, 10) == 1
    assert pool.take(UP, BUY, 5500, SIZE, 0, 100) is not None and pool.take(UP, BUY, 5000, SIZE, 0, 100) is None


def test_the_nearest_prices_come_first_and_refill_keeps_to_its_measure(pool):
    pool.want(UP, BUY, 100, [5200, 5100], [SIZE])
    assert pool.refill(0, T_MS, 2) == 2
    assert pool.take(UP, BUY, 5200, SIZE, 0, 100) and pool.take(UP, BUY, 5100, SIZE, 0, 100)


def test_only_prices_of_the_grid(pool):
    pool.want(UP, BUY, 100, [100, 9900, 5250], [SIZE, 0, 9_999])
    fill(pool)
    assert len(pool) == 6
    for px_e4 in (100, 200, 300, 9700, 9800, 9900):
        assert pool.take(UP, BUY, px_e4, SIZE, 0, 100)


def test_wanting_the_same_again_changes_nothing(pool):
    pool.want(UP, BUY, 100, [5200], [SIZE])
    fill(pool)
    for _ in range(5):
        pool.want(UP, BUY, 100, [5200], [SIZE])
    assert pool.refill(0, T_MS) == 0 and len(pool) == 5


def test_rehearsal_uses_up_nothing(pool):
    requests = Requests("http://127.0.0.1:1", L2Auth(ACCOUNT))
    assert pool.rehearse(requests, 0, T_MS) == 0, "nothing wanted, nothing to rehearse"
    pool.want(UP, BUY, 100, [5200], [SIZE])
    fill(pool)
    assert pool.rehearse(requests, 0, T_MS) > 800
    assert len(pool) == 5 and (pool.hits, pool.misses, pool.signed) == (0, 0, 5)


def test_a_pooled_order_is_the_order_signed_on_the_spot(pool):
    pool.want(UP, BUY, 100, [5200], [SIZE])
    fill(pool)
    order = pool.take(UP, BUY, 5200, SIZE, 0, 100)
    fresh = OrderSigner(ACCOUNT).template(UP, BUY, 100).build(5200, SIZE, order.timestamp_ms, order.salt)
    assert (order.body, order.order_id) == (fresh.body, fresh.order_id)
