"""RTDS frames to oracle prints, exactly, and which print stands for a window boundary."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmbot.venues.numbers import BadValue
from mmbot.venues.polymarket import prints, rtds
from shm_layout import records as r

ROLL = 1795186800000
assert ROLL % prints.BOUNDARY_MS == 0


def frame(topic=rtds.TOPIC_TWAP, t_obs=ROLL, value="84608904251000012345678", **payload):
    return json.dumps({"topic": topic, "type": "update", "timestamp": t_obs + 1302, "payload": {
        "symbol": "btc/usd", "timestamp": t_obs, "value": 84608.9, "full_accuracy_value": value, "window_s": 60, **payload}}).encode()


@pytest.fixture
def state():
    return np.zeros(1, r.ORACLE_STATE)[0]


def show(state, t_obs, value="84608904251000012345678", topic=rtds.TOPIC_TWAP):
    return prints.note(state, rtds.decode(frame(topic, t_obs, value)), 5)


def test_a_twap_print_is_exact():
    p = rtds.decode(frame())
    assert p == (r.OK_TWAP60, ROLL, (ROLL + 1302) * 10**6, 84608904251000012345678, r.OS_RTDS)
    row = np.zeros(1, r.ORACLE)[0]
    prints.fill(row, p, 9)
    assert (row["px_units"], row["px_frac_e18"], row["trusted"], row["t_recv_ns"]) == (84608, 904251000012345678, 1, 9)
    assert row["px"] == pytest.approx(84608.904251)


@given(st.integers(10**18, 10**24))
def test_no_digit_is_lost(value):
    row = np.zeros(1, r.ORACLE)[0]
    prints.fill(row, rtds.decode(frame(value=str(value))), 1)
    assert int(row["px_units"]) * 10**18 + int(row["px_frac_e18"]) == value


def test_a_decimal_text_is_plain_dollars():
    assert prints.value_e18("84608.904251000012345678") == 84608904251000012345678


def test_spot_and_what_is_not_for_us():
    assert rtds.decode(frame(rtds.TOPIC_SPOT)).kind == r.OK_SPOT
    assert rtds.decode(frame(symbol="eth/usd")) is None
    assert rtds.decode(frame(rtds.TOPIC_RELAY, symbol="btcusdt", full_accuracy_value="84655.12")) == (
        r.OK_RELAY, ROLL, (ROLL + 1302) * 10**6, 84655_120000000000000000, r.OS_RTDS)
    assert rtds.decode(b'{"topic":"crypto_prices","type":"subscribe","timestamp":1,"payload":{"symbol":"btc/usd","data":[]}}') is None
    assert rtds.decode(b"") is None and rtds.decode(b'{"connection_id":"x"}') is None


@pytest.mark.parametrize("data", [b"nope", b"[]", b"{", b"[" * 3000, b"\xff", frame(value=""), frame(value="8.4e22"), frame(value="-1"), frame(value="0"),
                                  frame(value="9" * 40), frame(window_s=30), frame(t_obs=-5000), frame(t_obs=10**15)])
def test_garbage_is_refused(data):
    with pytest.raises(BadValue):
        rtds.decode(data)


def test_the_exact_second_is_trusted(state):
    index = show(state, ROLL)
    assert index == ROLL // 300_000 % r.BOUNDARIES
    b = state["boundary"][index]
    assert (b["t_obs_ms"], b["trusted"], b["kind"]) == (ROLL, 1, r.OK_BOUNDARY)


def test_a_missing_second_is_stood_in_for_by_the_first_after(state):
    assert show(state, ROLL - 1000) == -1
    index = show(state, ROLL + 2000, "84000000000000000000001")
    assert (state["boundary"][index]["t_obs_ms"], state["boundary"][index]["trusted"]) == (ROLL + 2000, 0)
    assert show(state, ROLL + 3000) == -1
    assert show(state, ROLL + 1000) == index, "an earlier stand-in, out of order"
    assert show(state, ROLL) == index and state["boundary"][index]["trusted"] == 1, "the exact one came late"
    assert show(state, ROLL + 1000) == -1


def test_a_print_long_after_a_boundary_is_no_stand_in(state):
    assert show(state, ROLL + prints.STAND_IN_MS + 1000) == -1


def test_spot_is_never_a_boundary_print(state):
    assert show(state, ROLL, topic=rtds.TOPIC_SPOT) == -1 and not state["boundary"].view(np.int64).any()


def test_sixteen_boundaries_then_the_oldest_place_is_taken(state):
    for i in range(17):
        assert show(state, ROLL + i * 300_000) == (ROLL // 300_000 + i) % 16
    index = prints.boundary_index(ROLL)
    assert state["boundary"][index]["t_obs_ms"] == ROLL + 16 * 300_000
    assert show(state, ROLL) == -1, "the old one does not come back"


def test_the_newest_observation_wins(state):
    show(state, ROLL + 5000, "84000000000000000000001")
    show(state, ROLL + 4000, "85000000000000000000001")
    assert state["twap60"]["px_units"] == 84000
    show(state, ROLL + 4000, topic=rtds.TOPIC_SPOT)
    assert state["spot"]["t_obs_ms"] == ROLL + 4000 and state["twap60"]["t_obs_ms"] == ROLL + 5000


def test_another_runs_future_is_forgotten(state):
    show(state, ROLL)
    show(state, ROLL + 300_000)
    prints.forget_future(state, ROLL + 10_000)
    kept = {int(b["t_obs_ms"]) for b in state["boundary"]} - {0}
    assert kept == {ROLL} and state["twap60"]["t_obs_ms"] == 0


def test_all_three_topics_without_filters():
    subs = json.loads(rtds.SUBSCRIBE)["subscriptions"]
    assert [s["topic"] for s in subs] == ["crypto_prices_twap_sixty", "crypto_prices_chainlink", "crypto_prices"] and not any("filters" in s for s in subs)
