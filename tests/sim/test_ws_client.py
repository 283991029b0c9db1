"""The WebSocket client in virtual time: backoff, jitter, silence, replacement, what the venue asks for when it refuses."""

import random
from types import SimpleNamespace

import picows
import pytest
from feed_world import FeedWorld, Plain

from procs.ws_client import Plan, WsClient
from tests.dst.network import Frame

URL = "ws://127.0.0.1:7"


class Script:
    """A venue that connects or refuses by a test's word, and remembers when it was asked."""

    def __init__(self, world):
        self.world, self.plain, self.asked, self.refuse = world, Plain(), [], None
        world.network.ws[7] = self.plain.accept

    async def dial(self, make_listener, url):
        self.asked.append(self.world.now_s)
        if self.refuse is not None:
            raise self.refuse
        return await self.world.network.dial(make_listener, url)


@pytest.fixture
def world():
    with FeedWorld() as w:
        yield w


def client(world, script, **plan):
    """Run a client by a plan; returns it in a list once it lives, and what it heard."""
    got = SimpleNamespace(texts=[], pongs=[], lost=0, made=0, client=None)

    def connected(now):
        got.made += 1
        return []

    def lost(now):
        got.lost += 1

    async def main(actor, _connect):
        got.client = WsClient(actor, Plan(URL, connected, lambda data, now: got.texts.append(bytes(data)), lost, on_pong=got.pongs.append, **plan),
                              script.dial, random.Random(5))
        await got.client.run()

    world.start(main, "feed_binance")
    return got


def test_a_venue_that_is_away_is_asked_less_and_less_often_with_jitter(world):
    script = Script(world)
    script.refuse = OSError(111, "refused")
    client(world, script)
    world.run(60)
    pauses = [b - a for a, b in zip(script.asked, script.asked[1:])]
    assert pauses[0] < 0.25 and max(pauses) < 5.2 and len(script.asked) > 12
    assert all(2.4 < p for p in pauses[8:]), "half the cap at least"
    assert len({round(p, 2) for p in pauses[8:]}) > 3, "never the same pause"
    script.refuse = None
    world.run(12)
    for link in list(script.plain.links):
        link.transport.disconnect(False)
    world.run(0.5)
    assert script.plain.made == 2, "after a good connection the pause is short again"


def test_what_the_venue_asks_for_is_heeded(world):
    script = Script(world)
    script.refuse = picows.WSError("429 Too Many Requests")
    script.refuse.response = SimpleNamespace(headers={"Retry-After": "20"})
    client(world, script)
    world.run(19)
    assert len(script.asked) == 1
    script.refuse = None
    world.run(2)
    assert len(script.plain.links) == 1


def test_a_close_code_can_mean_to_stay_away(world):
    script = Script(world)
    got = client(world, script, close_pause_s={4003: 10.0})
    world.run(1)
    script.plain.links[0].transport.send_close(4003, b"draining")
    world.run(0.5)
    assert got.lost == 1 and len(script.asked) == 1
    world.run(10.5)
    assert len(script.plain.links) == 1 and got.made == 2


def test_pong_is_not_data(world):
    script = Script(world)
    got = client(world, script, ping_s=1.0, data_timeout_s=5.0)
    world.run(4)
    assert len(got.pongs) >= 4 and got.texts == []
    world.run(3)
    assert script.plain.made == 2 and world.told("stale_connection")


def test_a_half_open_link_is_found_by_its_silence(world):
    script = Script(world)
    got = client(world, script, ping_s=1.0, silence_timeout_s=3.0)
    world.run(10)
    assert script.plain.made == 1
    script.plain.links[0].deaf = True
    world.run(5)
    assert script.plain.made == 2 and got.lost == 1


def test_with_overlap_the_new_link_is_up_before_the_old_one_goes(world):
    script = Script(world)
    got = client(world, script, overlap=True)
    world.run(1)
    old = script.plain.links[0]
    got.client.restart("a test")
    got.client.restart("a test, again")
    world.run(1)
    assert (script.plain.made, got.made, got.lost) == (2, 2, 0) and script.plain.links == [link for link in script.plain.links if link is not old]
    assert len(world.told("restart_connection")) == 1
    script.plain.say({"x": 1})
    world.run(0.1)
    assert got.texts == [b'{"x": 1}']


def test_what_an_old_link_still_has_to_say_is_not_heard(world):
    script = Script(world)
    got = client(world, script, overlap=True)
    world.run(1)
    old = got.client.link
    got.client.restart("a test")
    world.run(1)
    assert got.client.link is not old
    for link, heard in ((old, 0), (got.client.link, 1)):
        link.on_ws_frame(link.transport, Frame(picows.WSMsgType.TEXT, b"{}"))
        assert len(got.texts) == heard


def test_an_old_link_that_cannot_be_replaced_is_given_up(world):
    script = Script(world)
    got = client(world, script, overlap=True)
    world.run(1)
    script.refuse = OSError(111, "refused")
    got.client.restart("a test")
    world.run(1)
    assert got.lost == 1 and not script.plain.links
    script.refuse = None
    world.run(5)
    assert len(script.plain.links) == 1


def test_an_aged_link_is_replaced_in_time(world):
    script = Script(world)
    got = client(world, script, life_s=100.0, overlap=True)
    world.run(99)
    assert script.plain.made == 1
    world.run(2)
    assert (script.plain.made, got.lost, len(script.plain.links)) == (2, 0, 1)


def test_silence_is_told_once_per_episode_connected_or_not(world):
    script = Script(world)
    client(world, script, alert_s=5.0)
    world.run(12)
    assert len(world.told("silent")) == 1
    script.plain.say({"x": 1})
    world.run(1)
    script.refuse = OSError(111, "refused")
    script.plain.links[0].transport.disconnect(False)
    world.run(12)
    assert len(world.told("silent")) == 2


def test_a_fault_of_ours_on_one_frame_costs_the_link_not_the_feed(world):
    script = Script(world)

    async def main(actor, _connect):
        await WsClient(actor, Plan(URL, lambda now: [], lambda data, now: 1 / 0), script.dial).run()

    world.start(main, "feed_binance")
    world.run(1)
    script.plain.say({"x": 1})
    world.run(1)
    assert script.plain.made == 2 and "ZeroDivisionError" in world.told("frame_crash")[0][1]


def test_round_trips_of_pings_are_measured_and_a_deaf_link_counts_as_slow(world):
    script = Script(world)
    got = client(world, script, ping_s=1.0)
    world.run(5)
    average = got.client.round_trip.average_ns
    assert 0 < average < 50_000_000
    script.plain.links[0].deaf = True
    world.run(4)
    assert got.client.round_trip.average_ns > average + 100_000_000
