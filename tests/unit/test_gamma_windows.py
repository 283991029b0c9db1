"""Gamma's answers to windows, the reasons to refuse one, and the table of windows."""

import json
from decimal import Decimal

import numpy as np
import pytest

from mmbot.venues.polymarket import gamma
from shm_layout import records as r

START = 1795186800      # 2026-11-20 15:00:00 UTC
UP, DOWN = "1" * 77, "2" * 77


def answer(start=START, duration=900, **over):
    iso = lambda t: np.datetime64(t, "s").item().isoformat() + "Z"
    market = {
        "id": "3391022", "conditionId": "0x5A5a" + "0" * 59 + "1", "slug": gamma.slug(start, duration), "outcomes": '["Up", "Down"]',
        "clobTokenIds": json.dumps([UP, DOWN]), "outcomePrices": '["0.505", "0.495"]', "eventStartTime": iso(start), "endDate": iso(start + duration),
        "startDate": "2026-11-19T15:05:10.11Z", "orderPriceMinTickSize": 0.01, "orderMinSize": 5, "negRisk": False, "feesEnabled": True,
        "feeSchedule": {"rate": 0.07, "exponent": 1, "takerOnly": True, "rebateRate": 0.2}, "acceptingOrders": True, "active": True,
        "closed": False, "version": "v1", "cryptoMarketConfig": {"id": "btc-15m-twap-60", "twapEnabled": True, "twapLookbackSeconds": 60}, **over}
    return json.dumps({"id": "771002", "slug": market["slug"], "startTime": market["eventStartTime"],
                       "markets": [{k: v for k, v in market.items() if v is not ...}]}).encode()


def parse(**over):
    return gamma.parse_event(answer(**over), START, 900)


def test_an_open_window():
    w = parse()
    assert w == gamma.Window(START, 900, "0x5a5a" + "0" * 59 + "1", UP, DOWN, 100, 5_000_000, 70_000, 1, 1, 0, 1, 0, r.NO_OUTCOME)
    assert gamma.event_path(START, 900) == f"/events/slug/btc-updown-15m-{START}" and gamma.slug(START, 300) == f"btc-updown-5m-{START}"


def test_tokens_are_matched_by_label():
    w = parse(outcomes='["Down", "Up"]')
    assert (w.token_up, w.token_down) == (DOWN, UP)
    assert parse(outcomes='["Down", "Up"]', closed=True, outcomePrices='["1", "0"]').outcome == r.DOWN


def test_version_two_uses_position_ids_even_when_the_others_are_there():
    w = parse(version="v2", positionIds=["3", "4"])
    assert (w.version, w.token_up, w.token_down) == (2, "3", "4")


@pytest.mark.parametrize("over", [
    {"version": "v3"}, {"version": "v2"}, {"outcomes": '["Yes", "No"]'}, {"outcomes": "Up"}, {"clobTokenIds": "[]"}, {"clobTokenIds": ...},
    {"clobTokenIds": '["1", "1"]'}, {"clobTokenIds": '["1", "x"]'}, {"conditionId": "0xzz"}, {"endDate": "2026-11-20T15:05:00Z"},
    {"eventStartTime": "2026-11-20T15:00:00"}, {"eventStartTime": "soon"}, {"orderPriceMinTickSize": 0}, {"orderPriceMinTickSize": 0.00001},
    {"orderMinSize": -1}, {"cryptoMarketConfig": {"twapEnabled": False}}, {"cryptoMarketConfig": {"twapLookbackSeconds": 30}},
    {"outcomePrices": '["a", "b"]', "closed": True}, {"slug": "btc-updown-15m-1"}, {"acceptingOrders": "yes"}])
def test_markets_that_must_not_be_traded(over):
    with pytest.raises(gamma.BadMarket, match="btc-updown-15m-1795186800"):
        parse(**over)


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b'{"markets":[]}', b"<html>", b"\xff", b"[" * 3000])
def test_answers_that_are_none(data):
    with pytest.raises(gamma.BadMarket):
        gamma.parse_event(data, START, 900)


@pytest.mark.parametrize("stamp", ["2026-11-20T15:15:00Z", "2026-11-20T15:15:00.000Z", "2026-11-20 15:15:00+00", "2026-11-20T16:15:00+01:00"])
def test_the_venues_ways_to_write_a_time(stamp):
    assert parse(endDate=stamp).end_s == START + 900


@pytest.mark.parametrize("exponent", [-1, 5, 10**9])
def test_a_fee_curve_that_cannot_be(exponent):
    with pytest.raises(gamma.BadMarket, match="fee exponent"):
        parse(feeSchedule={"rate": 0.07, "exponent": exponent})


def test_exact_numbers():
    w = parse(orderPriceMinTickSize=0.001, orderMinSize=7.5, feeSchedule={"rate": 0.0725, "exponent": 2})
    assert (w.tick_e4, w.min_size_u6, w.fee_rate_e6, w.fee_exponent) == (10, 7_500_000, 72_500, 2)
    assert parse(feesEnabled=False).fee_rate_e6 == 0


def test_outcomes_only_when_closed_and_exactly_one_and_zero():
    assert parse(outcomePrices='["1", "0"]').outcome == r.NO_OUTCOME
    assert parse(closed=True, outcomePrices='["0.999", "0.001"]').outcome == r.NO_OUTCOME
    assert parse(closed=True, outcomePrices='["0", "1"]').outcome == r.DOWN


def test_states_over_a_life():
    w = parse()
    assert w.state(START - 10) == r.MS_OPEN, "orders are accepted before the start"
    assert w.state(START + 899) == r.MS_OPEN and w.state(START + 900) == r.MS_CLOSED
    assert parse(acceptingOrders=False).state(START - 10) == r.MS_ANNOUNCED
    assert parse(active=False).state(START - 10) == r.MS_ANNOUNCED
    assert parse(closed=True).state(START + 10) == r.MS_CLOSED
    assert parse(closed=True, outcomePrices='["1", "0"]').state(START + 1000) == r.MS_RESOLVED


def test_clob_market_info():
    assert gamma.parse_clob_market(b'{"c":"0x1","itode":true,"v":"v1"}') == (1, 1, 0, 0, 0, 0, 1, "", "")
    full = json.dumps({"t": [{"t": DOWN, "o": "Down"}, {"t": UP, "o": "Up"}], "mts": 0.001, "mos": 5, "fd": {"r": 0.07, "e": 1}, "ao": True, "v": "v2"})
    assert gamma.parse_clob_market(full.encode()) == (0, 2, 1, 10, 5_000_000, 70_000, 1, UP, DOWN)
    for bad in (b"x", b'{"v":"v9"}', b'{"t":[{"t":"1","o":"Yes"},{"t":"2","o":"No"}]}', b'{"mts":-1}'):
        with pytest.raises(gamma.BadMarket):
            gamma.parse_clob_market(bad)


def clob(**over):
    return gamma.ClobMarket(**{"taker_delayed": 1, "version": 1, "accepting": 1, "tick_e4": 100, "min_size_u6": 5_000_000, "fee_rate_e6": 70_000,
                               "fee_exponent": 1, "token_up": UP, "token_down": DOWN} | over)


def test_where_gamma_and_the_clob_differ_the_safer_counts_and_it_is_said():
    w = parse()
    assert gamma.agree(w, clob()) == [] and w.taker_delayed == 1
    said = gamma.agree(w, clob(tick_e4=10, min_size_u6=15_000_000, fee_rate_e6=60_000, accepting=0, taker_delayed=0))
    assert (w.tick_e4, w.min_size_u6, w.fee_rate_e6, w.accepting, w.taker_delayed) == (10, 15_000_000, 70_000, 0, 0) and len(said) == 3
    assert gamma.agree(parse(), clob(tick_e4=0, min_size_u6=0, fee_rate_e6=0)) == []


@pytest.mark.parametrize("over", [{"version": 2}, {"token_up": DOWN, "token_down": UP}])
def test_two_different_markets_are_refused(over):
    with pytest.raises(gamma.BadMarket, match="the CLOB"):
        gamma.agree(parse(), clob(**over))


@pytest.mark.parametrize("text", ["2026-11-20T15:00:00Z", "2026-11-20T15:00:00.000123Z", "2026-11-20 15:00:00+00", "2026-11-20T15:00:00+00:00"])
def test_four_ways_to_write_a_time(text):
    assert parse(eventStartTime=text).start_s == START


def with_word(**metadata):
    event = json.loads(answer(closed=True, outcomePrices='["1", "0"]')) | {"eventMetadata": metadata}
    return gamma.parse_event(json.dumps(event).encode(), START, 900)


def test_the_venues_word_on_both_ends():
    ours = {START: Decimal("84608.904251000012345678"), START + 900: Decimal("84700.5")}
    w = with_word(priceToBeat=84608.904251, finalPrice=84700.5)
    assert gamma.check_strike(w, ours.get) == [] and w.strike_check == r.SC_START_OK | r.SC_END_OK
    w = with_word(priceToBeat=84608.99)
    assert "is 84608.99, ours is 84608.904251000012345678" in gamma.check_strike(w, ours.get)[0]
    assert w.strike_check == r.SC_START_BAD and gamma.check_strike(w, ours.get) == [], "said once"
    w = with_word(priceToBeat=84608.904251)
    assert gamma.check_strike(w, {}.get) == [] and w.strike_check == 0, "no print of our own, no verdict"


def window(start, duration=900, **over):
    return gamma.parse_event(answer(start, duration, **over), start, duration)


@pytest.fixture
def table():
    return gamma.Table([900], 60)


@pytest.fixture
def rec():
    return np.zeros(1, r.MARKETS)[0]


def test_which_windows_are_asked_for(table):
    assert table.wanted(START + 10) == [(START, 900), (START - 900, 900)]
    assert table.wanted(START + 840) == [(START, 900), (START + 900, 900), (START - 900, 900)]
    table.put(window(START - 900, closed=True, outcomePrices='["1","0"]'), 1)
    assert table.wanted(START + 10) == [(START, 900), (START - 900, 900)], "a resolved window until its final price is known ..."
    assert table.wanted(START + gamma.CHECK_S) == [(START, 900)], "... or nobody expects it any more"
    table.put(window(START - 1800), 1)
    assert table.wanted(START + gamma.CHECK_S) == [(START, 900), (START - 1800, 900)], "a past window until it is resolved"
    assert (START - 1800, 900) not in table.wanted(START - 900 + gamma.GIVE_UP_S)


def test_what_the_market_channel_shows_before_gamma(table):
    table.put(window(START), 1)
    key = r.market_id(START, 900)
    table.finer(key, 10)
    table.finer(key, 100)
    assert table.windows[key].tick_e4 == 10 and table.merge(window(START)).tick_e4 == 10, "a stale answer brings no coarser tick back"
    assert table.resolved(key, r.DOWN) and table.windows[key].outcome == r.DOWN
    assert not table.resolved(key, r.UP) and table.windows[key].outcome == r.DOWN
    assert table.merge(window(START)).outcome == r.DOWN


def test_two_durations_have_their_own_slots(rec):
    table = gamma.Table([900, 300], 60)
    table.put(window(START), 1)
    table.put(window(START, 300), 1)
    assert table.fill(rec, START)
    assert {int(x["market_id"]) for x in rec["row"]} - {0} == {START * 1000 + 15, START * 1000 + 5}


def test_a_row(table, rec):
    table.put(window(START), 123)
    assert table.fill(rec, START + 1) and not table.fill(rec, START + 2), "only its age changed"
    row = rec["row"][r.slot_of(START, 900)]
    assert (row["market_id"], row["start_s"], row["end_s"], row["state"], row["accepting"], row["t_update_ns"], row["outcome"]) == (
        r.market_id(START, 900), START, START + 900, r.MS_OPEN, 1, 123, r.NO_OUTCOME)
    assert r.id_value(row["token_up"]) == int(UP) and r.id_value(row["condition_id"]) == int("5a5a" + "0" * 59 + "1", 16)
    assert table.fill(rec, START + 900) and (row["state"], row["accepting"]) == (r.MS_CLOSED, 0)


def test_a_newer_window_takes_the_slot(table, rec):
    table.put(window(START), 1)
    table.put(window(START + 3600), 2)
    table.fill(rec, START + 3600)
    assert rec["row"][r.slot_of(START, 900)]["start_s"] == START + 3600 and len(table.windows) == 1


def test_a_late_answer_about_an_older_window_does_not_take_the_slot_back(table, rec):
    table.put(window(START + 3600), 1)
    table.put(window(START), 2)
    table.fill(rec, START + 3600)
    assert rec["row"][r.slot_of(START, 900)]["start_s"] == START + 3600 and list(table.windows) == [r.market_id(START + 3600, 900)]
    assert (START, 900) not in table.wanted(START + 3610), "and it is not asked for again"


def test_ticks_never_get_coarser_and_outcomes_stay(table):
    table.put(table.merge(window(START, orderPriceMinTickSize=0.001, closed=True, outcomePrices='["1","0"]')), 1)
    again = table.merge(window(START))
    assert (again.tick_e4, again.outcome) == (10, r.UP)
    other = table.merge(window(START, conditionId="0x77"))
    assert (other.tick_e4, other.outcome) == (100, r.NO_OUTCOME), "another market of the same name"


def test_a_restart_keeps_what_the_clock_allows(table, rec):
    for start in (START - 900, START, START + 900):
        table.put(window(start, acceptingOrders=False, version="v2", positionIds=["3", "4"]), 5)
    table.fill(rec, START)
    fresh = gamma.Table([900], 60)
    fresh.recover(rec, START + 10)
    assert fresh.windows.keys() == table.windows.keys()
    copy = np.zeros(1, r.MARKETS)[0]
    fresh.fill(copy, START)
    assert copy["row"].tobytes() == rec["row"].tobytes()
    for now in (START - 5000, START + 50_000):
        early = gamma.Table([900], 60)
        early.recover(rec, now)
        assert not early.windows
