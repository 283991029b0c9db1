"""The running discovery against a Gamma and a CLOB that answer what the test says, in virtual time."""

import json

import aiohttp
import pytest
from feed_world import ROLL_S, FeedWorld

from mmbot.venues.polymarket import gamma, prints
from procs.discovery import Discovery
from shm_layout import records as r
from tests.dst.network import Answer, _Asking

UP, DOWN, CID = "1" * 70, "2" * 70, "0x" + "5a" * 32


def stamp(t):
    import datetime
    return datetime.datetime.fromtimestamp(t, datetime.timezone.utc).isoformat()


class Web:
    """Both hosts. ``down``: nobody answers; ``lost``: slugs that Gamma does not list; ``bookless``: the CLOB has no book."""

    def __init__(self, world):
        self.world, self.asked = world, []
        self.down, self.lost, self.bookless, self.meta, self.over, self.clob = False, set(), False, {}, {}, {}

    def get(self, url):
        return _Asking(self._get(url))

    async def _get(self, url):
        path = url.split("/", 3)[3]
        self.asked.append((self.world.now_s, path))
        if self.down:
            raise aiohttp.ClientConnectionError("refused")
        if path.startswith("events/slug/"):
            slug = path.rpartition("/")[2]
            return self._json(url, None if slug in self.lost else self._event(slug))
        if path.startswith("clob-markets/"):
            return self._json(url, {"c": CID, "t": [{"t": UP, "o": "Up"}, {"t": DOWN, "o": "Down"}], "mts": 0.01, "mos": 5,
                                    "fd": {"r": 0.07, "e": 1}, "ao": True, "itode": True, "v": "v1"} | self.clob)
        return self._json(url, None if self.bookless else {})

    def _json(self, url, body):
        return Answer(url, 404 if body is None else 200, {}, json.dumps(body).encode())

    def _event(self, slug):
        start, duration = int(slug.rpartition("-")[2]), 900 if "-15m-" in slug else 300
        market = {"slug": slug, "conditionId": CID, "outcomes": '["Up", "Down"]', "clobTokenIds": json.dumps([UP, DOWN]), "version": "v1",
                  "eventStartTime": stamp(start), "endDate": stamp(start + duration), "orderPriceMinTickSize": 0.01, "orderMinSize": 5,
                  "feeSchedule": {"rate": 0.07, "exponent": 1}, "acceptingOrders": True, "active": True, "closed": False}
        event = {"slug": slug, "markets": [market | self.over.get(start, {})]}
        return event | ({"eventMetadata": self.meta[start]} if start in self.meta else {})


@pytest.fixture
def world():
    with FeedWorld() as w:
        w.web = Web(w)
        yield w


def start(world):
    async def main(actor, _connect):
        await Discovery(actor, world.web).run()

    world.start(main, "discovery")


def row(world, start_s, duration=900):
    found = world.cell("markets")["row"][r.slot_of(start_s, duration)]
    return found if int(found["start_s"]) == start_s else None


def test_current_and_next_of_both_lengths_are_there_before_the_roll():
    with FeedWorld(markets__durations=["15m", "5m"]) as world:
        world.web = Web(world)
        start(world)
        world.run(5)
        for start_s, duration in ((ROLL_S - 900, 900), (ROLL_S, 900), (ROLL_S - 300, 300), (ROLL_S, 300)):
            found = row(world, start_s, duration)
            assert (int(found["state"]), int(found["taker_delayed"]), r.id_value(found["token_up"])) == (r.MS_OPEN, 1, int(UP))


def test_gamma_away_is_asked_less_often_and_the_table_stands(world):
    start(world)
    world.run(5)
    world.web.down = True
    world.run(40)
    times = [t for t, path in world.web.asked if path.endswith(str(ROLL_S)) and t > 6]
    assert len(times) <= 9 and max(b - a for a, b in zip(times, times[1:])) <= 8.5
    assert row(world, ROLL_S) is not None and world.told("gamma_failed") and world.events()["request_errors"] > 5
    world.web.down = False
    world.run(10)
    assert world.told("gamma_failed")[-1][0] < 50


def test_a_slug_that_is_missing_is_said_and_found_when_it_comes(world):
    world.web.lost = {gamma.slug(ROLL_S, 900)}
    start(world)
    world.run(10)
    assert row(world, ROLL_S) is None and "Gamma does not list it" in world.told("gamma_failed")[-1][1]
    world.web.lost = set()
    world.run(10)
    assert int(row(world, ROLL_S)["state"]) == r.MS_OPEN


def test_a_market_without_a_book_is_not_open_until_it_has_one(world):
    world.web.bookless = True
    start(world)
    world.run(6)
    assert int(row(world, ROLL_S)["state"]) == r.MS_ANNOUNCED and world.told("market_without_book")
    world.web.bookless = False
    world.run(4)
    assert int(row(world, ROLL_S)["state"]) == r.MS_OPEN


def test_a_market_that_gamma_and_the_clob_describe_differently(world):
    world.web.clob = {"mts": 0.001}
    start(world)
    world.run(3)
    assert int(row(world, ROLL_S)["tick_e4"]) == 10 and "tick_e4 is 100 by Gamma and 10 by the CLOB" in world.told("market_differs")[0][1]
    world.run(10)
    assert int(row(world, ROLL_S)["tick_e4"]) == 10, "Gamma's older answer brings no coarser tick back"


def test_another_version_at_the_clob_is_refused(world):
    world.web.clob = {"v": "v2"}
    start(world)
    world.run(3)
    assert row(world, ROLL_S) is None and "the CLOB says 2" in world.told("market_refused")[0][1]


def test_the_market_channel_resolves_and_refines_before_gamma_does(world):
    start(world)
    world.run(3)
    from shm_layout.ring import RingWriter
    ring = RingWriter(world.memory.own("md.market"))
    ring.rec[0]["market_id"], ring.rec[0]["kind"], ring.rec[0]["tick_e4"] = r.market_id(ROLL_S - 900, 900), r.MK_BOOK, 10
    ring.publish()
    world.run(1)
    assert int(row(world, ROLL_S - 900)["tick_e4"]) == 10
    ring.rec[0]["kind"], ring.rec[0]["token"] = r.MK_RESOLVED, r.DOWN
    ring.publish()
    world.run(1)
    found = row(world, ROLL_S - 900)
    assert (int(found["state"]), int(found["outcome"])) == (r.MS_RESOLVED, r.DOWN)
    world.web.over[ROLL_S - 900] = {"closed": True, "acceptingOrders": False, "outcomePrices": '["1", "0"]'}
    world.run(120)
    assert world.told("outcome_differs")


@pytest.mark.parametrize("price, bit", [(84608.904251, r.SC_START_OK), (84609.1, r.SC_START_BAD)])
def test_the_venues_price_to_beat_is_compared_with_our_print(world, price, bit):
    state = world.cell("oracle")["boundary"].copy()
    t_ms = (ROLL_S - 900) * 1000
    prints.fill(state[prints.boundary_index(t_ms)], prints.Print(r.OK_TWAP60, t_ms, 0, 84608_904251000012345678), 5, 1, r.OK_BOUNDARY)
    world.publish("oracle", boundary=state)
    world.web.over[ROLL_S - 900] = {"closed": True, "acceptingOrders": False, "outcomePrices": '["1", "0"]'}
    start(world)
    world.run(45)
    assert int(row(world, ROLL_S - 900)["strike_check"]) == 0
    world.web.meta[ROLL_S - 900] = {"priceToBeat": price}
    world.run(30)
    assert int(row(world, ROLL_S - 900)["strike_check"]) == bit
    assert len(world.told("strike_differs")) == (bit == r.SC_START_BAD)
