"""The executor's limit is the one the core trades with: it follows the applied block, by the version that targets carry."""

import pytest
from order_world import SLOT, FakeSeqlock, World

from mmbot.config import Strategy
from mmbot.params import params_block
from shm_layout import records as r

UP_BID = (0, 0, 5000, 20)


@pytest.fixture
def w(tmp_path):
    world = World(tmp_path).ready()
    world.m.links.params = FakeSeqlock(r.PARAMS_BLOCK)
    return world


def apply(w, dollars):
    """The core takes over a block and writes a target with its version."""
    block = params_block(Strategy(max_exposure_u6=dollars * 1_000_000), 1)
    w.m.links.params.set(block)
    w.tick(300)
    w.guard()
    w.target(UP_BID, wake=False)
    rec = w.links.targets.cells[SLOT].copy().view(r.TARGET)
    rec["params_version"] = block["version"]
    w.links.targets.set(rec, SLOT)
    w.wake()


def test_a_lower_limit_binds_with_the_first_target_of_its_version(w):
    apply(w, 4)
    assert w.m.max_exposure_u6 == 4_000_000 and not w.venue.live()
    apply(w, 150)
    assert w.m.max_exposure_u6 == 150_000_000 and len(w.venue.live()) == 1


def test_a_limit_of_nothing_is_no_freedom(w):
    apply(w, 0)
    assert not w.venue.live()


def test_without_a_block_the_limit_stays(w):
    w.m.max_exposure_u6 = 15_000_000
    w.m.read_params()
    assert w.m.max_exposure_u6 == 15_000_000
