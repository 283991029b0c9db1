"""Reference prices: exact TWAP, the tie, the derived spot, delays and RTDS frames."""

import json
from fractions import Fraction

import numpy as np
import pytest

from mmbot.config import Sim
from mmbot.sim import oracle
from mmbot.sim.tapes import btc15m, quotes

T0_S = 1_775_028_600


def path_of(prices, t0_s=T0_S):
    path = oracle.SpotPath(t0_s * 1000)
    path.extend(np.asarray(prices, float))
    return path


def test_twap_is_the_exact_mean_of_prints_62_to_3_seconds_before():
    rng = np.random.default_rng(3)
    prints = oracle.DerivedPrints(path_of(68_000 * np.exp(np.cumsum(rng.normal(0, 2e-5, 1_000)))), seed=1)
    t = T0_S + 90
    wanted = [prints.spot_e18(s) for s in range(t - 62, t - 2)]
    assert len(wanted) == 60 and all(isinstance(v, int) for v in wanted)
    mean = Fraction(sum(wanted), 60)
    assert 0 <= mean - prints.twap_e18(t) < 1
    assert prints.twap_e18(t) != prints.twap_e18(t + 1)
    assert prints.twap_e18(T0_S + 61) is None and prints.twap_e18(T0_S + 62) is not None


def test_tie_is_up_and_one_unit_of_the_18th_decimal_decides():
    value = 67_677_777_555_378_173_333_333
    assert oracle.outcome_of(value, value) == "Up"
    assert oracle.outcome_of(value, value - 1) == "Down"
    assert float(value) == float(value - 1), "doubles could not tell these two apart"


@pytest.mark.parametrize("value, text", [(68_000 * 10**18, "68000.0"), (63_220_313_069_070_865_358_333, "63220.313069070865358333"),
                                         (10**18 + 5, "1.000000000000000005")])
def test_decimal_text_is_exact(value, text):
    assert oracle.decimal(value) == text


def test_phi_inv_is_the_inverse():
    q = np.array([0.002, 0.25, 0.5, 0.5, 0.998])
    assert [oracle.phi(x) for x in oracle.phi_inv(q)] == pytest.approx(q.tolist(), abs=1e-12)


@pytest.mark.parametrize("tau_s", [500.0, 120.0, 40.0])
def test_fair_price_agrees_with_simulation(tau_s):
    """Monte Carlo of the settlement rule itself, 1 s steps, from one path that ends ``tau_s`` before the end."""
    rng = np.random.default_rng(11)
    total = 600.0
    n = int((total - tau_s) * 10)
    x = np.concatenate([[0.0], np.cumsum(rng.normal(0, oracle.SIGMA * 0.1**0.5, n))])
    spot = 68_000 * np.exp(x)
    strike = float(spot[-1]) * (1 + 2e-4)
    model = oracle.fair_up(spot, strike, total)[-1]
    ahead = np.cumsum(rng.normal(0, oracle.SIGMA, (20_000, int(tau_s))), axis=1)
    future = spot[-1] * np.exp(ahead)
    past = spot[::10][-max(int(62 - tau_s), 0):] if tau_s < 62 else np.array([])
    known = past.sum()
    inside = future[:, max(int(tau_s) - 62, 0):int(tau_s) - 2]
    mean = (known + inside.sum(axis=1)) / (len(past) + inside.shape[1])
    assert len(past) + inside.shape[1] == 60
    assert model == pytest.approx((mean >= strike).mean(), abs=0.035)


def test_fair_price_ends_at_the_outcome():
    spot = np.full(9_000, 68_000.0)
    assert oracle.fair_up(spot, 67_990.0, 900.0)[-1] > 0.999 and oracle.fair_up(spot, 68_010.0, 900.0)[-1] < 0.001
    assert oracle.fair_up(spot, 68_000.0, 900.0)[0] == pytest.approx(0.5)


def test_derived_spot_explains_the_recorded_price_and_is_continuous():
    source = btc15m.Source(Sim())
    windows = [source.build(i) for i in range(-1, 4)]
    whole = source.path.window(0, 10**15)
    assert np.abs(np.diff(np.log(whole))).max() < 5e-4, "no jump, not even at a roll"
    window = windows[1]
    start = window.spec.start_s * 1000
    spot = source.path.window(start, start + 900_000)
    model = oracle.fair_up(spot, window.strike_e18 / oracle.E18, 900.0)
    known = window.rows[(window.rows[:, quotes.RECORDED] == 1) & (window.rows[:, quotes.T] > start + 45_000)]
    at = (known[:, quotes.T] - start) // oracle.GRID_MS
    gap = np.abs(model[at] - quotes.mids(known))
    assert np.median(gap) < 0.015 and np.quantile(gap, 0.95) < 0.06
    returns = np.log(spot[600:] / spot[:-600]) / 60**0.5
    assert 3e-5 < returns.std() < 2e-4


def test_boundary_prints_exist_and_delays_are_bounded():
    source = btc15m.Source(Sim())
    for index in range(-1, 5):
        source.build(index)
    delays, lost = [], 0
    for t in range(T0_S - 900, T0_S + 3_600):
        for twap in (False, True):
            stamps = source.prints.relay(t, twap)
            if stamps is None:
                lost += 1
                assert 3 < t % 300 < 297
                continue
            delays.append(stamps[0] - t * 1000)
            assert 200 <= stamps[1] - stamps[0] <= 350
        if t % 900 == 0:
            assert source.prints.relay(t, True) and source.prints.twap_e18(t)
            assert oracle.first_at_or_after(source.prints, t) == source.prints.twap_e18(t)
    assert 750 <= min(delays) and max(delays) <= 2_300
    assert np.median(delays) == pytest.approx(1_350, abs=50) and np.quantile(delays, 0.95) == pytest.approx(1_920, abs=80)
    assert 0.005 < lost / (2 * 4_500) < 0.04


def test_rtds_frames_have_the_venues_shape_and_order():
    source = btc15m.Source(Sim())
    for index in range(-1, 2):
        source.build(index)
    feed = oracle.References(source.prints, source.path, T0_S * 1000)
    seen = {}
    for now_ms in range(T0_S * 1000, (T0_S + 120) * 1000, 50):
        for raw in feed.frames(now_ms):
            frame = json.loads(raw)
            assert set(frame) == {"topic", "type", "timestamp", "payload"} and frame["type"] == "update"
            payload = frame["payload"]
            assert payload["timestamp"] % 1000 == 0 and payload["timestamp"] < frame["timestamp"] <= now_ms
            seen.setdefault(frame["topic"], []).append((payload["timestamp"], frame, now_ms))
    assert set(seen) == {"crypto_prices_chainlink", "crypto_prices_twap_sixty", "crypto_prices"}
    for topic, frames in seen.items():
        stamps = [t for t, _, _ in frames]
        assert stamps == sorted(set(stamps)) and len(stamps) > 105
        payload = frames[50][1]["payload"]
        if topic == "crypto_prices":
            assert payload["symbol"] == "btcusdt" and payload["full_accuracy_value"] == f"{payload['value']:.8f}"
        else:
            exact = int(payload["full_accuracy_value"])
            assert payload["symbol"] == "btc/usd" and payload["value"] == exact / 10**18 and exact > 10**22
            assert payload.get("window_s") == (60 if topic.endswith("sixty") else None)
    boundary = [f for t, f, _ in seen["crypto_prices_twap_sixty"] if t == T0_S * 1000]
    assert len(boundary) == 1
    assert int(boundary[0]["payload"]["full_accuracy_value"]) == source.prints.twap_e18(T0_S)


def test_recorded_prints_keep_their_holes():
    values = {s: 10**18 * s for s in range(T0_S, T0_S + 200) if s not in range(T0_S + 20, T0_S + 60)}
    prints = oracle.RecordedPrints(values, {s: (s * 1000 + 900, s * 1000 + 1_100) for s in values})
    assert prints.twap_e18(T0_S + 62) is None, "20 of 60 prints are not enough"
    assert prints.twap_e18(T0_S + 100) == sum(values[s] for s in range(T0_S + 60, T0_S + 98)) // 38
    assert oracle.first_at_or_after(prints, T0_S + 62) == prints.twap_e18(T0_S + 92)
