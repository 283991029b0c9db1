"""Gamma's event object: field types as the real API sends them, states, both protocol versions."""

import json

import pytest

from mmbot.sim import gamma
from mmbot.sim.engine import Market, MarketSpec
from shm_layout.records import BUY, DOWN, UP, market_id

START_S = 1_775_028_600


def spec(**changes):
    values = dict(market_id=market_id(START_S, 900), start_s=START_S, end_s=START_S + 900, duration_s=900, condition_id="0x" + "5a" * 32,
                  token_up="1" * 77, token_down="2" * 77, slug=f"btc-updown-15m-{START_S}", gamma_id="3391022")
    return MarketSpec(**{**values, **changes})


def state(**changes):
    return {"tick_e4": 100, "accepting": True, "closed": False, "outcome": -1, "closed_ms": 0, "resolved_ms": 0, "bid_e4": 5000,
            "ask_e4": 5100, "last_e4": 5000, "volume_u6": 12_500_000, **changes}


def test_state_is_what_the_exchange_gives():
    assert set(state()) == set(Market(spec()).state())


def test_open_window_has_the_documented_types():
    event = json.loads(json.dumps(gamma.event_json(spec(), state(), START_S + 10)))
    market = event["markets"][0]
    assert event["slug"] == market["slug"] == f"btc-updown-15m-{START_S}" and event["seriesSlug"] == "btc-up-or-down-15m"
    assert json.loads(market["outcomes"]) == ["Up", "Down"] and json.loads(market["clobTokenIds"]) == ["1" * 77, "2" * 77]
    assert market["outcomes"] == '["Up", "Down"]' and "positionIds" not in market
    assert json.loads(market["outcomePrices"]) == ["0.505", "0.495"] and market["umaResolutionStatuses"] == "[]"
    assert market["eventStartTime"] == event["startTime"] == "2026-04-01T07:30:00Z"
    assert market["endDate"] == event["endDate"] == "2026-04-01T07:45:00Z" and market["endDateIso"] == "2026-04-01"
    assert market["startDate"].startswith("2026-03-31T07:4") and "." in market["startDate"]
    assert (market["orderPriceMinTickSize"], market["orderMinSize"]) == (0.01, 5) and isinstance(market["orderMinSize"], int)
    assert market["feeSchedule"] == {"rate": 0.07, "exponent": 1, "takerOnly": True, "rebateRate": 0.2}
    assert (market["active"], market["closed"], market["acceptingOrders"], market["negRisk"]) == (True, False, True, False)
    assert market["cryptoMarketConfig"] == {"id": "btc-15m-twap-60", "asset": "btc", "duration": "15m", "twapEnabled": True,
                                            "twapLookbackSeconds": 60}
    assert market["resolutionSource"].endswith("btc-usd-twap-60s-streams") and market["version"] == "v1"
    assert isinstance(event["id"], str) and isinstance(market["id"], str) and len(market["questionID"]) == 66
    assert "eventMetadata" not in event and "closedTime" not in market


def test_v2_markets_carry_position_ids_as_a_real_array():
    market = gamma.event_json(spec(version="v2"), state(), START_S)["markets"][0]
    assert market["positionIds"] == ["1" * 77, "2" * 77] and "clobTokenIds" not in market and market["version"] == "v2"


@pytest.mark.parametrize("outcome, prices", [(UP, ["1", "0"]), (DOWN, ["0", "1"])])
def test_resolved_window(outcome, prices):
    end_s = START_S + 900
    resolved = state(accepting=False, closed=True, outcome=outcome, closed_ms=end_s * 1000, resolved_ms=(end_s + 21) * 1000, tick_e4=10)
    resolution = (outcome, "67677.777555378173333333", "67647.1")
    event = gamma.event_json(spec(), resolved, end_s + 30, resolution)
    market = event["markets"][0]
    assert json.loads(market["outcomePrices"]) == prices and market["orderPriceMinTickSize"] == 0.001
    assert market["closedTime"] == "2026-04-01 07:45:21+00" and market["umaResolutionStatus"] == "resolved"
    assert market["closed"] is True and market["acceptingOrders"] is False and market["automaticallyResolved"] is True
    assert "eventMetadata" not in event
    assert gamma.event_json(spec(), resolved, end_s + 70, resolution)["eventMetadata"] == {"priceToBeat": 67677.77755537817}
    assert gamma.event_json(spec(), resolved, end_s + 95, resolution)["eventMetadata"] == {"priceToBeat": 67677.77755537817, "finalPrice": 67647.1}
    assert "eventMetadata" not in gamma.event_json(spec(), resolved, end_s + 95, (outcome, None, None))


def test_closed_but_not_resolved_and_empty_sides():
    market = gamma.event_json(spec(), state(accepting=False, closed=True, bid_e4=0, ask_e4=0), START_S + 905)["markets"][0]
    assert (market["bestBid"], market["bestAsk"], market["spread"]) == (0.0, 1.0, 1.0)
    assert market["closed"] and "umaResolutionStatus" not in market


@pytest.mark.parametrize("start_s, text", [
    (1_775_028_600, "Bitcoin Up or Down - April 1, 3:30AM-3:45AM ET"),       # recorded title
    (1_780_876_500, "Bitcoin Up or Down - June 7, 7:55PM-8:00PM ET"),        # recorded title
    (1_795_186_800, "Bitcoin Up or Down - November 20, 10:00AM-10:15AM ET"),
    (1_793_512_800, "Bitcoin Up or Down - November 1, 1:00AM-1:15AM ET"),     # an hour after the clocks went back
    (1_772_953_200, "Bitcoin Up or Down - March 8, 3:00AM-3:15AM ET"),       # the hour they go forward
])
def test_titles_use_new_york_time(start_s, text):
    duration = 300 if start_s == 1_780_876_500 else 900
    assert gamma.question(spec(start_s=start_s, end_s=start_s + duration, duration_s=duration)) == text


def test_a_market_of_the_exchange_goes_straight_in():
    market = Market(spec())
    assert gamma.event_json(market.spec, market.state(), START_S)["markets"][0]["bestAsk"] == 1.0
    assert market.sides[BUY].best() == 0
