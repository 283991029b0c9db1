"""Orders that are over but wait for the venue's last word: their sums stay right, they cost an answer nothing, and they do not stay for ever."""

import random

import pytest
from order_world import MARKET, World

from mmbot.execution.order import DONE, Order
from mmbot.inventory.exposure import Tail, of_orders
from shm_layout import records as r

MANY = 500
TWENTY = 20_000_000


def order(i, side=r.BUY, final=True, token=0):
    return Order(f"0x{i:064x}", (0, 0, 0, i), MARKET, token, 0, side, 3000 + i, TWENTY, DONE, 0)


@pytest.fixture
def w(tmp_path):
    yield World(tmp_path, min_update_interval_ms=0, orders_per_s=1e6, orders_burst=10**6, cancels_per_s=1e6, cancels_burst=10**6).ready()


def test_the_sums_are_those_of_the_orders_whatever_happened_to_them():
    rng, tail, plain = random.Random(5), Tail(), {}
    orders = [order(i, rng.choice((r.BUY, r.SELL)), token=i % 2) for i in range(40)]
    for _ in range(3000):
        o = rng.choice(orders)
        o.booked_u6, o.matched_u6, o.final = rng.randrange(TWENTY), rng.randrange(TWENTY), rng.random() < 0.5
        if rng.random() < 0.6:
            tail[o.order_id] = plain[o.order_id] = o
        else:
            o.final = not o.final           # what was counted is what is taken out, not what would be counted now
            assert tail.pop(o.order_id) is plain.pop(o.order_id, None)
        for kept in plain.values():
            tail[kept.order_id] = kept
        assert list(tail) == list(plain) and of_orders(tail=tail) == of_orders(plain)
        assert of_orders({"x": orders[0]}, tail=tail) == of_orders({"x": orders[0]}, plain)


def cut_many(w, n):
    """Quotes come and go, the venue confirms the cancels, and the user channel says nothing about how much was matched."""
    for i in range(n):
        w.tick(1, wake=False)
        w.guard()
        w.target((0, 0, 4000 + 100 * (i % 3), 20))
        w.target()
    window = w.m.by_market[MARKET]
    assert len(window.tail) == len(w.m.cut) == n and not window.orders
    return window


def test_a_long_tail_makes_no_answer_and_no_account_longer(w, monkeypatch):
    """Counted in looks at orders, for the same round of a target and its answers."""
    looks = []
    real = Order.open_u6.fget
    monkeypatch.setattr(Order, "open_u6", property(lambda o: looks.append(o) or real(o)))

    def looks_of_a_round():
        w.tick(60, wake=False)
        w.guard()
        looks.clear()
        w.target((0, 0, 4500, 20), (1, 0, 4500, 20))
        w.target()
        return len(looks)
    looks_of_a_round()
    few = looks_of_a_round()
    cut_many_before = len(w.m.cut)
    for i in range(MANY):
        o = order(i)
        o.final = False
        w.m.by_market[MARKET].tail[o.order_id] = w.m.cut[o.order_id] = w.m.by_id[o.order_id] = o
    assert len(w.m.cut) == MANY + cut_many_before
    assert 0 < looks_of_a_round() <= few + 4
    assert w.position()["open_up_u6"] >= MANY * TWENTY, "and yet every one of them counts"


def test_the_last_words_empty_it(w):
    """Nobody says on the user channel how the cancelled orders ended: each is asked by its id, once, and the tail is gone."""
    window = cut_many(w, MANY)
    assert w.position()["open_up_u6"] == MANY * TWENTY
    asked = []
    ask = w.venue.order

    async def order_(order_id):
        asked.append(order_id)
        return await ask(order_id)
    w.venue.order = order_
    w.tick(400, wake=False)
    w.guard()
    w.run(w.recovery.resolve_unknown())
    assert not window.tail and not w.m.cut and len(asked) == len(set(asked)) == MANY
    w.tick()
    assert w.position()["open_up_u6"] == 0


def test_matched_shares_without_a_trade_are_given_up_in_the_end(w):
    """The venue says that cancelled orders were matched, and neither a trade nor the shares come: named as a difference, then given up."""
    window = cut_many(w, 20)
    for o in w.venue.orders.values():
        o["matched"] = TWENTY // 2
    w.tick(400, wake=False)
    w.run(w.recovery.resolve_unknown())
    assert len(window.tail) == 20 and not w.m.cut
    for _ in range(60):
        w.tick(5000, wake=False)
        w.guard()
        w.run(w.recovery.compare())
    assert not window.tail and "unbooked_gone" in w.report.errors
