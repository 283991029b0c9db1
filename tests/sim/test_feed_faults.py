"""The running feeds against the exchange's servers, in virtual time: freezes, holes, gaps, contradictions, lost links."""

import json

import pytest
from feed_world import BEGIN_S, ROLL_S, FeedWorld

from mmbot.venues.polymarket import prints
from procs import feed_binance, feed_bybit, feed_coinbase, feed_oracle, feed_user
from shm_layout import records as r


@pytest.fixture
def world():
    with FeedWorld() as w:
        yield w


@pytest.fixture
def oracle(world):
    world.start(feed_oracle.main, "feed_oracle")
    world.run(15)
    assert world.events()["reconnects"] == 0
    return world


def shown(world, kind=r.OK_TWAP60):
    """Seconds of the prints in the ring."""
    return [int(x["t_obs_ms"]) // 1000 for x in world.records("md.oracle") if x["kind"] == kind]


def strike(world):
    b = world.cell("oracle")["boundary"][prints.boundary_index(ROLL_S * 1000)]
    return int(b["t_obs_ms"]) // 1000 - ROLL_S, int(b["trusted"])


def test_two_healthy_sources_show_every_print_once_and_accuse_nobody(oracle):
    oracle.run(120)
    seen = shown(oracle)
    assert seen == sorted(set(seen)) and len(seen) > 120
    assert {int(x["source"]) for x in oracle.records("md.oracle") if x["kind"] == r.OK_TWAP60} == {r.OS_RTDS, r.OS_POLYBOLT}
    assert {int(x["source"]) for x in oracle.records("md.oracle") if x["kind"] == r.OK_RELAY} == {r.OS_RTDS}
    e = oracle.events()
    assert (e["freezes"], e["false_alarms"], e["reconnects"], e["frames_bad"]) == (0, 0, 0, 0) and e["duplicates"] > 150
    assert strike(oracle) == (0, 1)


@pytest.mark.parametrize("name, silent, other", [("freeze_rtds", "RTDS", "polybolt"), ("freeze_polybolt", "PolyBolt", "rtds")])
def test_a_frozen_source_is_found_within_two_seconds_and_the_other_is_left_alone(oracle, name, silent, other):
    link = next(iter(getattr(oracle, other).links))
    for _ in range(6):
        begin, before = oracle.now_s, len(oracle.told("restart_connection"))
        oracle.fault(name, 4.0)
        oracle.run(10.37)
        found = oracle.told("restart_connection")[before:]
        assert found and f"({silent}): frozen: silent" in found[0][1] and found[0][0] - begin < 2.0
    e = oracle.events()
    assert e["freezes"] >= 6 and e["false_alarms"] == 0
    assert next(iter(getattr(oracle, other).links)) is link and len(getattr(oracle, other).links) == 1
    seen = shown(oracle)
    assert max(b - a for a, b in zip(seen, seen[1:])) <= 2, "the other source carried on"


def test_when_both_are_silent_nobody_is_accused_and_both_are_made_anew(oracle):
    begin = oracle.now_s
    oracle.fault("freeze_rtds", 12.0)
    oracle.fault("freeze_polybolt", 12.0)
    oracle.run(5.5)
    assert oracle.events()["freezes"] == 0
    assert {text.split("(")[1].split(")")[0] for _, text in oracle.told("silent")} == {"RTDS", "PolyBolt"}
    newest = oracle.cell("oracle")["twap60"]["t_recv_ns"]
    assert oracle.scheduler.now_ns - newest > 4_000_000_000, "the age says it"
    oracle.run(15)
    assert oracle.events()["reconnects"] >= 2 and oracle.events()["freezes"] <= 1
    hole = [s for s in range(int(BEGIN_S + begin) - 5, int(BEGIN_S + begin) + 15) if s not in shown(oracle)]
    assert len(hole) <= 4, "PolyBolt's snapshot brought the prints of the silence, all but the newest of a second or two"


def test_a_hole_of_the_oracle_itself_is_counted_and_accuses_nobody(oracle):
    gaps = oracle.events()["gaps"]
    oracle.fault("oracle_hole", 8.0)
    oracle.run(20)
    e = oracle.events()
    assert (e["freezes"], e["reconnects"]) == (0, 0) and 14 <= e["gaps"] - gaps <= 20, "eight seconds of two kinds"


def test_a_late_average_is_still_the_strike(oracle):
    oracle.fault("twap_late", 60.0, late_s=1.4)
    oracle.run(60)
    assert strike(oracle) == (0, 1) and oracle.events()["freezes"] == 0


def test_a_missing_boundary_print_is_stood_in_for_without_trust(oracle):
    oracle.fault("boundary_missing", 60.0)
    oracle.run(60)
    after, trusted = strike(oracle)
    assert 1 <= after <= 3 and trusted == 0


def test_a_boundary_that_nobody_shows_is_said(oracle):
    oracle.run(20)
    oracle.fault("oracle_hole", 22.0)
    oracle.run(60)
    assert [str(ROLL_S) in text for _, text in oracle.told("boundary_missing")] == [True]


def test_two_sources_that_differ_in_the_last_digit_leave_a_strike_without_trust(oracle):
    def forge(frame):
        message = json.loads(frame)
        if message["topic"] == "crypto_prices_twap_sixty" and message["payload"]["timestamp"] == ROLL_S * 1000:
            value = message["payload"]["full_accuracy_value"]
            message["payload"]["full_accuracy_value"] = value[:-1] + str((int(value[-1]) + 1) % 10)
        return json.dumps(message).encode()

    oracle.change = forge
    oracle.run(60)
    assert strike(oracle) == (0, 0) and len(oracle.told("sources_disagree")) == 1
    last = [x for x in oracle.records("md.oracle") if x["kind"] == r.OK_BOUNDARY][-1]
    assert (last["t_obs_ms"], last["trusted"]) == (ROLL_S * 1000, 0)


def test_the_venues_own_word_takes_the_trust_from_a_strike(oracle):
    oracle.run(40)
    assert strike(oracle) == (0, 1)
    row = oracle.cell("markets")["row"].copy()
    row[0]["start_s"], row[0]["strike_check"] = ROLL_S, r.SC_START_BAD
    oracle.publish("markets", row=row, version=1)
    oracle.run(2)
    assert strike(oracle) == (0, 0) and len(oracle.told("strike_differs")) == 1


def test_a_jump_in_polybolts_numbers_is_healed_by_a_new_link_and_its_snapshot(oracle):
    before = oracle.events()["gaps"]
    oracle.fault("freeze_rtds", 30.0)
    oracle.fault("frames_dropped", 1.2, channels="polybolt", p=1.0)
    oracle.run(12)
    assert oracle.events()["gaps"] > before and any("frames are missing" in text for _, text in oracle.told("restart_connection"))
    oracle.run(3)
    newest = max(shown(oracle))
    twap = oracle.cell("oracle")["twap60"]
    assert newest == int(twap["t_obs_ms"]) // 1000 and newest > BEGIN_S + oracle.now_s - 4


def test_a_lost_link_comes_back_within_a_second(oracle):
    for link in list(oracle.rtds.links):
        link.transport.disconnect(False)
    oracle.run(1.0)
    assert len(oracle.rtds.links) == 1 and oracle.events()["reconnects"] == 1 and oracle.events()["disconnects"] == 1


@pytest.mark.parametrize("main, name, ring", [(feed_coinbase.main, "feed_coinbase", "md.coinbase"), (feed_bybit.main, "feed_bybit", "md.bybit")])
def test_a_spot_book_heals_after_lost_frames_and_never_shows_a_crossed_top(world, main, name, ring):
    world.start(main, name)
    world.run(10)
    assert world.events()["gaps"] == 0 and world.events()["frames_bad"] == 0
    world.fault("frames_dropped", 1.0, channels=name.removeprefix("feed_"), p=1.0)
    world.run(10)
    e = world.events()
    assert e["gaps"] >= 1 and e["reconnects"] == 0 and e["subscribes"] >= 2, "healed on the link that stands"
    rows = world.records(ring)
    tops = [x for x in rows if x["kind"] == r.SK_BBO]
    assert all(0 < x["bid"] < x["ask"] for x in tops) and {int(x["kind"]) for x in rows} >= {r.SK_BBO, r.SK_TRADE}
    assert tops[-1]["t_recv_ns"] > world.scheduler.now_ns - 2_000_000_000
    service = getattr(world, name.removeprefix("feed_"))
    ladder = service._ladder
    assert (tops[-1]["bid"], tops[-1]["ask"]) == (float(ladder.px(ladder.best(0))), float(ladder.px(ladder.best(1))))


def test_a_link_that_binance_is_about_to_close_is_replaced_before_it_goes(world):
    world.start(feed_binance.main, "feed_binance")
    world.run(5)
    for link in list(world.binance.links):
        link.put(b'{"e":"serverShutdown","E":1795186800121}')
    world.run(2)
    e = world.events()
    assert (e["reconnects"], e["disconnects"], len(world.binance.links)) == (1, 0, 1)
    stamps = [int(x["t_recv_ns"]) for x in world.records("md.binance")]
    assert max(b - a for a, b in zip(stamps, stamps[1:])) < 200_000_000, "no hole"


def test_silence_of_a_spot_feed_is_an_error_once_per_episode(world):
    world.start(feed_bybit.main, "feed_bybit")
    world.run(5)
    for _ in range(2):
        world.fault("frames_dropped", 9.0, channels="bybit", p=1.0)
        world.run(20)
    assert len(world.told("silent")) == 2


@pytest.fixture
def user(world):
    world.start(feed_user.main, "feed_user")
    world.run(5)
    assert len(world.user.links) == 2
    return world


def an_order(i=0, **over):
    return {"event_type": "order", "type": "PLACEMENT", "id": f"0x{i:064x}", "owner": "k", "market": "0x" + "5a" * 32, "asset_id": "1" * 70, "side": "BUY",
            "price": "0.52", "original_size": "5", "size_matched": "0", "status": "LIVE", "timestamp": "1793000000210", **over}


def kinds(world):
    return [int(x["kind"]) for x in world.records("user")]


def test_two_sockets_show_an_event_once(user):
    user.user.say(an_order())
    user.run(1)
    assert kinds(user) == [r.UK_CONNECTED, r.UK_ORDER] and user.events()["duplicates"] == 1
    user.user.say(an_order())
    user.run(1)
    assert kinds(user).count(r.UK_ORDER) == 2, "said twice by the venue, shown twice"


def test_one_frozen_socket_loses_nothing_and_is_made_anew(user):
    user.user.links[0].deaf = True
    for i in range(3):
        user.user.say(an_order(i))
        user.run(0.2)
    assert kinds(user) == [r.UK_CONNECTED] + 3 * [r.UK_ORDER]
    user.run(4)
    e = user.events()
    assert e["freezes"] == 1 and user.user.made == 3 and len(user.user.links) == 2
    assert kinds(user) == [r.UK_CONNECTED] + 3 * [r.UK_ORDER], "nothing was missed, so nothing has to be read again"
    user.user.say(an_order(9))
    user.run(1)
    assert kinds(user).count(r.UK_ORDER) == 4


def test_one_lost_socket_is_no_break_and_two_are(user):
    user.user.links[0].transport.disconnect(False)
    user.run(3)
    assert kinds(user) == [r.UK_CONNECTED] and len(user.user.links) == 2
    for link in list(user.user.links):
        link.transport.disconnect(False)
    user.run(5)
    assert kinds(user) == [r.UK_CONNECTED, r.UK_DISCONNECTED, r.UK_CONNECTED]
    numbers = [int(x["connection"]) for x in user.records("user")]
    assert numbers[2] > numbers[0]


def test_a_channel_the_executor_calls_deaf_is_made_anew_and_announced(user):
    user.publish("account", user_deaf=0)
    user.run(1)
    user.publish("account", user_deaf=1)
    user.run(3)
    assert user.user.made == 4 and len(user.user.links) == 2 and user.events()["deaf"] == 1
    rows = user.records("user")
    assert [int(x["kind"]) for x in rows] == [r.UK_CONNECTED, r.UK_CONNECTED] and rows[1]["connection"] > rows[0]["connection"]


def test_a_fill_of_our_wallet_on_the_public_stream_is_evidence(user):
    from mmbot.sim import accounts
    trade = {"topic": "activity", "type": "trades", "timestamp": 1, "payload": {
        "proxyWallet": accounts.PAPER_ADDRESS, "asset": "1" * 70, "conditionId": "0x" + "5a" * 32, "side": "SELL", "price": 0.52, "size": 12.5,
        "timestamp": 1793000004, "transactionHash": "0x" + "3d" * 32}}
    other = {**trade, "payload": {**trade["payload"], "proxyWallet": "0x" + "22" * 20}}
    user.rtds.push([json.dumps(other).encode(), json.dumps(trade).encode()])
    user.run(1)
    row = user.records("user")[-1]
    assert (row["kind"], row["side"], row["px_u6"], row["size_u6"], row["token"]) == (r.UK_ACTIVITY, r.SELL, 520_000, 12_500_000, r.NO_OUTCOME)
    assert kinds(user) == [r.UK_CONNECTED, r.UK_ACTIVITY] and not row["order_id"].any() and row["trade_id"].any()


def test_a_public_stream_that_was_switched_off_is_said_once(user):
    user.run(700)
    assert len(user.told("activity_silent")) == 1 and kinds(user) == [r.UK_CONNECTED]
