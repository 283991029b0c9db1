"""PolyBolt's conversation: authenticate, subscribe, numbered frames to prints."""

import json

import pytest

from mmbot.venues.numbers import BadValue
from mmbot.venues.polymarket import polybolt
from shm_layout import records as r

T = 1795186800000


@pytest.fixture
def session():
    return polybolt.Session()


def frame(seq, channel=polybolt.CH_TWAP, value="84608.904251000012345678", t=T, **over):
    payload = {"symbol": "btcusd", "value": 1.0, "full_accuracy_value": value, "timestamp": t, "source": "chainlink",
               **({"window_seconds": 60} if channel == polybolt.CH_TWAP else {})}
    return json.dumps({"v": 1, "channel": channel, "seq": seq, "ts": t + 900, "payload": payload | over}).encode()


def test_authenticate_then_subscribe(session):
    assert json.loads(polybolt.authenticate("k", "s", "p")) == {"op": "auth", "rid": "auth", "auth": {"apiKey": "k", "secret": "s", "passphrase": "p"}}
    heard = session.on_frame(b'{"op":"authed","rid":"auth"}')
    assert heard.replies == [polybolt.SUBSCRIBE] and not heard.data
    subs = json.loads(polybolt.SUBSCRIBE)["subscriptions"]
    assert subs[0] == {"channel": "price.crypto.twap", "filter": {"symbol": "btcusd", "window_seconds": 60}}
    for word in (b'{"op":"subscribed","channel":"price.crypto","rid":"prints"}', b'{"op":"pong"}'):
        assert session.on_frame(word) == ([], [], False)


@pytest.mark.parametrize("code", ["auth_invalid", "bad_filter", "rate_limited"])
def test_a_refusal_names_its_code(session, code):
    with pytest.raises(polybolt.Refused, match=code):
        session.on_frame(json.dumps({"op": "error", "code": code, "channel": "price.crypto", "rid": "prints"}).encode())


def test_a_print_is_exact(session):
    assert session.on_frame(frame(1)).prints == [(r.OK_TWAP60, T, (T + 900) * 10**6, 84608904251000012345678, r.OS_POLYBOLT)]
    assert session.on_frame(frame(1, polybolt.CH_SPOT, "84611.37")).prints[0][3] == 84611370000000000000000


def test_numbers_count_per_channel_and_every_hole_shows(session):
    for seq in (1, 2, 4):
        session.on_frame(frame(seq))
    assert session.gaps == 1
    session.on_frame(frame(1, polybolt.CH_SPOT))
    assert session.gaps == 1
    assert session.on_frame(frame(4)).prints == [] and session.duplicates == 1
    session.on_frame(json.dumps({**json.loads(frame(5)), "dropped": 3}).encode())
    assert session.gaps == 4, "the service says itself what it dropped"
    session.restart()
    session.on_frame(frame(1))
    assert session.gaps == 4


def test_other_coins_count_in_the_numbers_and_are_no_prints(session):
    heard = session.on_frame(frame(1, polybolt.CH_SPOT, "3000.0", symbol="ethusd"))
    assert heard.prints == [] and heard.data
    session.on_frame(frame(2, polybolt.CH_SPOT))
    assert session.gaps == 0


def test_a_snapshot_is_its_points(session):
    points = [{"timestamp": T - 1000, "value": 1.0, "full_accuracy_value": "84607.1"}, {"timestamp": T, "value": 1.0, "full_accuracy_value": "84608.5"}]
    data = json.dumps({"v": 1, "channel": polybolt.CH_TWAP, "seq": 1, "ts": T, "snapshot": True,
                       "payload": {"symbol": "btcusd", "source": "chainlink", "window_seconds": 60, "data": points}}).encode()
    assert [(p.t_obs_ms, p.value_e18) for p in session.on_frame(data).prints] == [(T - 1000, 84607_100000000000000000), (T, 84608_500000000000000000)]


def test_what_is_no_observation_of_chainlinks_is_not_used(session):
    assert session.on_frame(frame(1, polybolt.CH_SPOT, is_carried_forward=True)).prints == [] and session.carried == 1
    assert session.on_frame(frame(1, window_seconds=30)).prints == [] and session.other == 1
    with pytest.raises(BadValue, match="pyth"):
        session.on_frame(frame(2, polybolt.CH_SPOT, source="pyth"))
    assert session.on_frame(b'{"v":1,"channel":"price.polymarket","seq":1,"ts":5,"snapshot":true,"payload":[]}').prints == []


@pytest.mark.parametrize("data", [b"", b"x", b"[]", b"[" * 3000, b"\xff", frame(1, value=""), frame(1, value="8.4e4"), frame(1, value="-1"), frame(1, t=-5),
                                  frame(1, value="84608.1234567890123456789"), b'{"channel":"price.crypto","seq":1,"payload":[]}'])
def test_garbage(session, data):
    with pytest.raises(BadValue):
        session.on_frame(data)
