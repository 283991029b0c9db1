"""Settings: every key validated, unknown ones named with the nearest, secrets never printed, paper endpoints derived from one port."""

import re

import pytest

from mmbot import config
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
    assert list(config.Strategy.model_fields) == list(records.PARAMS.names[2:])


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
