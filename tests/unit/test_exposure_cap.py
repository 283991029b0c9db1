"""The core's cap counts trades that may still fail: what they would bring makes no room until they are final."""

import pytest
from core_world import quoting

from shm_layout import records as r


def room_after(reserve_up, reserve_down, **strategy):
    """Quotes of a window that holds 100 of each, bought for 98 dollars, when so much of it hangs on trades that may fail."""
    world, slot = quoting(**strategy)
    position = world.account["position"][0, slot]
    position["reserve_up_u6"], position["reserve_down_u6"] = reserve_up * 1_000_000, reserve_down * 1_000_000
    world.hold(slot, up=100, down=100, cost=98.0)
    world.book()
    return world.gates(slot), world.quotes(slot)


def test_pairs_that_are_final_leave_the_cap_free():
    gates, quotes = room_after(0, 0, max_exposure_u6=40_000_000)
    assert "exposure_cap" not in gates and len(quotes) == 4


@pytest.mark.parametrize("reserve, closed", [((55, 0), {r.DOWN}), ((0, 55), {r.UP}), ((55, 55), {r.UP, r.DOWN})])
def test_what_may_fail_takes_the_room_of_the_bids_that_would_add_to_it(reserve, closed):
    """If Up wins and the Up trades fail, 98 dollars bought 45 Up shares: 53 are lost, more than the cap; only bids on Up, which pay then, remain."""
    gates, quotes = room_after(*reserve, max_exposure_u6=50_000_000)
    assert "exposure_cap" in gates and {r.UP, r.DOWN} - {token for token, *_ in quotes} == closed


def test_another_windows_position_is_not_taken_for_ours():
    world, slot = quoting(max_exposure_u6=40_000_000)
    position = world.account["position"][0, slot]
    position["market_id"], position["reserve_up_u6"], position["reserve_down_u6"] = 1, 10**9, 10**9
    world.step(r.SRC_ACCOUNT)
    world.book()
    assert len(world.quotes(slot)) == 4
