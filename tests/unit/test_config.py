"""Settings: every key validated, unknown ones named with the nearest, secrets never printed, paper endpoints derived from one port."""

import re
from pathlib import Path

import pytest

from mmbot import config
from mmbot.config_strategy import SHARED, known
from mmbot.core import decide, inputs
from mmbot.errors import UserError
from shm_layout import records


def write(tmp_path, text):
    path = tmp_path / "x.toml"
    path.write_text(text)
    return path


def test_endpoints_of_paper_follow_the_port_and_can_be_overridden(tmp_path):
    cfg = config.load(write(tmp_path, '[sim]\nbase_port = 9000\n[venue]\ngamma_url = "http://127.0.0.1:1"\n'))
    assert cfg.venue.clob_url == "http://127.0.0.1:9000"
    assert cfg.venue.gamma_url == "http://127.0.0.1:1"
    assert cfg.venue.rtds_url.endswith(":9003")


def test_live_has_no_endpoint_it_was_not_given(tmp_path):
    assert config.load(write(tmp_path, 'profile = "live"')).venue.clob_url == ""


@pytest.mark.parametrize("text,names", [
    ("[strategy]\nlevls = 3", ["unknown key 'strategy.levls'", "'strategy.levels'"]),
    ("[strategyy]\nlevels = 3", ["unknown key 'strategyy'", "'strategy'"]),
    ('[strategy]\nlevels = "many"', ["strategy.levels", "valid integer", "'many'"]),
    ("[strategy]\nlevels = 9", ["strategy.levels", "less than or equal to 4"]),
    ("sim = 3", ["sim", "valid dictionary"]),
    ("[sim]\nbase_port = \"x\"", ["sim.base_port", "valid integer"]),
    ("levels = = 3", ["x.toml"]),
])
def test_bad_keys_and_values_are_named(tmp_path, text, names):
    with pytest.raises(UserError) as e:
        config.load(write(tmp_path, text))
    for name in names:
        assert name in str(e.value)


def test_unknown_environment_variable_is_named(monkeypatch):
    monkeypatch.setenv("MMBOT_SIM__SPED", "2")
    with pytest.raises(UserError, match="MMBOT_SIM__SPED.*MMBOT_SIM__SPEED"):
        config.load()


def test_environment_beats_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("MMBOT_SIM__SPEED", "7")
    assert config.load(write(tmp_path, "[sim]\nspeed = 3\n")).sim.speed == 7
    monkeypatch.setenv("MMBOT_ACCOUNT__SIGNATURE_TYPE", "3")
    assert config.load().account.signature_type == 3
    monkeypatch.setenv("MMBOT_SIM__BASE_PORT", "9100")
    assert config.load(write(tmp_path, "[sim]\nbase_port = 9000\n")).venue.clob_url.endswith(":9100")


def test_missing_file_names_the_presets(tmp_path):
    with pytest.raises(UserError, match="does not exist.*paper"):
        config.load(tmp_path / "none.toml")


def test_secrets_do_not_print(tmp_path, monkeypatch):
    monkeypatch.setenv("MMBOT_ACCOUNT__PRIVATE_KEY", "0xdeadbeef")
    cfg = config.load(write(tmp_path, ""))
    assert "deadbeef" not in repr(cfg) and "deadbeef" not in cfg.model_dump_json()


def test_a_bad_secret_is_not_shown(tmp_path):
    with pytest.raises(UserError) as e:
        config.load(write(tmp_path, "[account]\nprivate_key = 12345\n"))
    assert "12345" not in str(e.value) and "account.private_key" in str(e.value)


def test_strategy_keys_are_the_fields_of_the_parameter_block():
    def compare(section, record):
        assert [n for n in section.model_fields if n not in ("for_15m", "for_5m")] == list(record.names)
        for name in record.names:
            if record[name].names:
                compare(section.model_fields[name].annotation, record[name])
    compare(config.Strategy, records.PARAMS)


def test_settings_are_frozen():
    with pytest.raises(ValueError):
        config.load().sim.speed = 3


@pytest.mark.parametrize("preset", sorted(p.stem for p in config.PRESETS.glob("*.toml")))
def test_every_preset_is_valid_explains_itself_and_holds_no_secret(preset):
    cfg, text = config.load(preset), (config.PRESETS / f"{preset}.toml").read_text()
    assert text.startswith("# ") and cfg.run.name == preset
    assert not re.search(r"(?i)(private_key|secret|passphrase)\s*=", text)
    if cfg.profile == "live":
        urls = [v for k, v in cfg.venue.model_dump().items() if k.endswith("_url") and v]
        assert urls and all(u.startswith(("https://", "wss://")) for u in urls), "live traffic is always encrypted"
        assert cfg.execution.max_loss_u6 > 0 and cfg.strategy.max_exposure_u6 <= 20_000_000


@pytest.mark.parametrize("text,names", [
    ("target_total = 0.999", ["target_total (0.999)", "target_total_max (0.995)"]),
    ("target_total_min = 0.994", ["target_total_min", "target_total"]),
    ("refresh_ns = 500_000_000", ["refresh_ns", "target_ttl_ns"]),
    ("max_imbalance_u6 = 1", ["severe_imbalance_u6", "max_imbalance_u6"]),
    ("var_floor = 1e-7", ["var_floor", "var_ref"]),
    ("cutoff_s = 300", ["cutoff_s", "for_5m.cutoff_s"]),
    ("for_15m = {cutoff_s = 900}", ["cutoff_s", "900 s"]),
    ("tiered = {min_spread = 0.05}", ["tiered", "min_spread (0.05)", "base_spread (0.02)"]),
    ("tiered = {medium_toxicity = 0.7}", ["medium_toxicity", "widen_toxicity"]),
    ("tiered = {tier_spread = [0.02, 0.01, 0.03, 0.05]}", ["tier_spread", "ascend"]),
    ("tiered = {tier_size_u6 = [1, 2, 3, -4]}", ["tier_size_u6"]),
    ("reversion = {exit_min = 0.01}", ["exit_min", "enter_min"]),
    ("reversion = {enter_spreads = 1.0}", ["exit_spreads", "enter_spreads"]),
    ("programme = {max_spread = 0.02}", ["default_spread", "max_spread"]),
    ("programme = {fast_ns = 2_000_000_000}", ["fast_ns", "slow_ns"]),
    ("signals = {ema_fast_s = 60.0}", ["signals", "ema_fast_s (60)", "ema_slow_s (60)"]),
    ("signals = {mid_at = 0.8}", ["mid_at", "late_at"]),
    ("model = {half_life_short_s = 90_000.0}", ["half_life_short_s", "half_life_long_s"]),
    ("completion = {max_pay = 1.05}", ["max_pay", "max_pay_late"]),
    ("capital = {mm_part = 0.9}", ["mm_part + arb_part + reserve_part", "1.12"]),
    ("capital = {kelly_floor = 0.2}", ["kelly_floor (0.2)", "kelly_cap (0.15)"]),
    ("capital = {latency_kill_ns = 100_000_000}", ["latency_resume_ns", "latency_kill_ns"]),
    ("for_5m = {tiered = {min_spread = 0.05}}", ["for_5m.tiered", "min_spread"]),
])
def test_values_that_do_not_go_together_are_named(tmp_path, text, names):
    with pytest.raises(UserError) as e:
        config.load(write(tmp_path, f"[strategy]\n{text}\n"))
    for name in names:
        assert name in str(e.value)


@pytest.mark.parametrize("text,names", [
    ("levls = 3", ["unknown key 'for_5m.levls'", "'for_5m.levels'"]),
    ("levels = 9", ["for_5m.levels", "less than or equal to 4"]),
    ("tiered = {base_sprea = 0.01}", ["unknown key 'for_5m.tiered.base_sprea'", "'for_5m.tiered.base_spread'"]),
    ("for_15m = {levels = 1}", ["for_15m cannot stand inside"]),
    ("tiered = 3", ["for_5m.tiered"]),
])
def test_overrides_of_a_window_length_are_as_strict_as_the_table(tmp_path, text, names):
    with pytest.raises(UserError) as e:
        config.load(write(tmp_path, f"[strategy.for_5m]\n{text}\n"))
    for name in names:
        assert name in str(e.value)


@pytest.mark.parametrize("key", SHARED)
@pytest.mark.parametrize("windows", ["for_15m", "for_5m"])
def test_a_key_of_all_windows_cannot_differ(tmp_path, key, windows):
    table, _, name = key.rpartition(".")
    with pytest.raises(UserError, match=f"{windows}.{key} cannot differ"):
        config.load(write(tmp_path, f"[strategy.{windows}{'.' + table if table else ''}]\n{name} = 1\n"))


def test_every_parameter_that_the_core_uses_for_all_windows_is_shared():
    """The core reads block.of[0] where windows have something in common: what it reads there must be the same in both."""
    share = re.search(r"def share\(.*?(?=\n@kernel)", Path(decide.__file__).read_text(), re.S).group()
    used = set(re.findall(r"(?<!_)params\.([a-z0-9_]+(?:\.[a-z0-9_]+)?)", Path(inputs.__file__).read_text() + share))
    assert len(used) > 8 and used - set(SHARED) == set(), "name them in mmbot.config_strategy.SHARED"
    assert set(SHARED) <= set(known(config.Strategy))


def test_presets_of_the_documents():
    """The figures that document 2 gives for its two presets, and what document 3 says its three are for."""
    found = {k: config.load(f"avellaneda-{k}").strategy for k in ("conservative", "aggressive")}
    assert [(s.avellaneda.gamma, s.signals.toxic_fills, s.capital.latency_kill_ns, s.signals.jump_threshold) for s in found.values()] == [
        (0.30, 2, 300_000_000, 0.003), (0.15, 5, 800_000_000, 0.010)]
    tiered = {k: config.load(f"tiered-{k}").strategy for k in ("conservative", "aggressive", "scalping")}
    plain, (wide, tight, small) = config.Strategy().tiered, tiered.values()
    assert all(s.strategy == "tiered" for s in tiered.values())
    assert tight.tiered.base_spread < plain.base_spread < wide.tiered.base_spread
    assert wide.tiered.extreme_toxicity < plain.extreme_toxicity < tight.tiered.extreme_toxicity
    assert max(small.tiered.tier_size_u6) < min(plain.tier_size_u6)
    toxic = config.load("pair-toxic").strategy
    assert (toxic.target_total_min, toxic.target_total_max) == (0.98, 0.99)
