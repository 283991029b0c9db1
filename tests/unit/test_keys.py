"""Keys from files and keystores: only ours alone are read, nothing is written over, nothing shows a secret, and the venue's API credentials
are found without asking twice."""

import json
import os
import pickle
import stat
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from eth_account import Account as EthAccount
from typer.testing import CliRunner

from mmbot import config
from mmbot.cli.keys import app
from mmbot.errors import UserError
from mmbot.execution import keyfiles
from mmbot.execution.credentials import credentials
from mmbot.ops import account
from mmbot.ops.instance import Instance
from mmbot.ops.wallets import type_of, wallets_of

KEY = "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
ADDRESS = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
OTHER = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
API = {"api_key": "11111111-2222-3333-4444-555555555555", "api_secret": "c2VjcmV0c2VjcmV0", "api_passphrase": "aabbccddeeff"}
PASSPHRASE = "correct horse battery"
WORK = 1024


def private(path, text, mode=0o600):
    path.write_text(text)
    path.chmod(mode)
    return path


def settings(tmp_path, **values):
    return config.Settings(profile="live", run={"dir": tmp_path, "name": "t"}, venue={"clob_url": "http://127.0.0.1:1"}, account=values)


def never_asked(question):
    raise AssertionError(f"asked: {question}")


class TestKeyFile:
    @pytest.mark.parametrize("text", [KEY, f"0x{KEY}\n", f"  {KEY.upper()} \n"])
    def test_a_private_file_is_read(self, tmp_path, text):
        path = private(tmp_path / "key", text)
        assert credentials(settings(tmp_path, key_file=path, **API)).address == ADDRESS

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o622, 0o610])
    def test_a_file_that_others_can_touch_is_refused_with_the_command_that_mends_it(self, tmp_path, mode):
        path = private(tmp_path / "key", KEY, mode)
        with pytest.raises(UserError) as e:
            credentials(settings(tmp_path, key_file=path, **API))
        assert f"chmod 600 {path}" in str(e.value) and f"mode {mode:04o}" in str(e.value) and KEY not in str(e.value)

    def test_a_link_is_followed_and_the_real_file_judged(self, tmp_path):
        real = private(tmp_path / "real", KEY, 0o644)
        link = tmp_path / "link"
        link.symlink_to(real)
        with pytest.raises(UserError, match=f"that is {real}"):
            keyfiles.read_key(link)
        real.chmod(0o600)
        assert keyfiles.read_key(link) == KEY

    def test_a_directory_that_others_may_write_is_refused(self, tmp_path):
        place = tmp_path / "open"
        place.mkdir()
        path = private(place / "key", KEY)
        place.chmod(0o777)
        with pytest.raises(UserError, match="chmod go-w"):
            keyfiles.read_key(path)
        place.chmod(0o1777)
        assert keyfiles.read_key(path) == KEY, "in a sticky directory others cannot exchange it"

    @pytest.mark.parametrize("make, says", [
        (lambda p: None, "No such file"), (lambda p: p.mkdir(), "is not a file"), (lambda p: os.mkfifo(p, 0o600), "is not a file"),
        (lambda p: p.symlink_to(p), "Symlink loop|symbolic links"), (lambda p: private(p, "1234"), "does not hold a private key"),
        (lambda p: private(p, "zz" * 32), "does not hold a private key"), (lambda p: private(p, ""), "does not hold a private key")])
    def test_what_is_no_key_file_is_said(self, tmp_path, make, says):
        make(tmp_path / "key")
        with pytest.raises(UserError, match=says):
            keyfiles.read_key(tmp_path / "key")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
    def test_a_file_of_somebody_else_is_refused(self, tmp_path):
        path = private(tmp_path / "key", KEY)
        os.chown(path, 12345, -1)
        with pytest.raises(UserError, match="belongs to user 12345"):
            keyfiles.read_key(path)


class TestWriting:
    def test_whole_private_and_never_over_another(self, tmp_path):
        path = tmp_path / "s"
        before = os.umask(0)
        try:
            keyfiles.write_secret(path, b"one")
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 and path.read_bytes() == b"one"
        with pytest.raises(UserError, match="exists already"):
            keyfiles.write_secret(path, b"two")
        assert path.read_bytes() == b"one" and os.listdir(tmp_path) == ["s"]
        keyfiles.write_secret(path, b"three", replace=True)
        assert path.read_bytes() == b"three" and stat.S_IMODE(path.stat().st_mode) == 0o600 and os.listdir(tmp_path) == ["s"]

    def test_no_place(self, tmp_path):
        with pytest.raises(UserError, match="No such file"):
            keyfiles.write_secret(tmp_path / "none" / "s", b"x")


class TestKeystore:
    def test_made_here_opened_by_the_ethereum_tools_and_back(self, tmp_path):
        document = keyfiles.seal(bytes.fromhex(KEY), PASSPHRASE, WORK)
        assert EthAccount.decrypt(json.loads(document), PASSPHRASE).hex().removeprefix("0x") == KEY
        path = private(tmp_path / "k.json", json.dumps(EthAccount.encrypt("0x" + KEY, PASSPHRASE, kdf="scrypt", iterations=WORK)))
        assert keyfiles.open_keystore(path, PASSPHRASE) == KEY
        assert keyfiles.keystore_address(path).lower() == ADDRESS.lower()
        assert credentials(settings(tmp_path, keystore=path, keystore_passphrase=PASSPHRASE, **API)).address == ADDRESS

    def test_a_wrong_passphrase(self, tmp_path):
        path = private(tmp_path / "k", keyfiles.seal(bytes.fromhex(KEY), PASSPHRASE, WORK).decode())
        with pytest.raises(UserError, match="the passphrase is wrong"):
            keyfiles.open_keystore(path, "another passphrase")

    @pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"version": 3}', '{"version": 9, "crypto": {}}', "not json", '{"version":3,"crypto":[]}'])
    def test_what_is_no_keystore(self, tmp_path, text):
        path = private(tmp_path / "k", text)
        with pytest.raises(UserError, match="is not a keystore"):
            keyfiles.open_keystore(path, PASSPHRASE)

    def test_without_a_passphrase_the_missing_account_is_explained(self, tmp_path):
        path = private(tmp_path / "k", keyfiles.seal(bytes.fromhex(KEY), PASSPHRASE, WORK).decode())
        with pytest.raises(UserError, match="MMBOT_ACCOUNT__KEYSTORE_PASSPHRASE"):
            credentials(settings(tmp_path, keystore=path, **API))


class TestCredentials:
    def test_the_environment_beats_the_files(self, tmp_path):
        path = private(tmp_path / "key", KEY)
        key = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
        assert credentials(settings(tmp_path, private_key=key, key_file=path, **API)).address == OTHER

    def test_a_process_that_signs_nothing_needs_only_the_address(self, tmp_path):
        c = credentials(settings(tmp_path, address=ADDRESS.lower(), **API))
        assert c.address == c.funder == ADDRESS
        with pytest.raises(UserError, match="the private key is not at hand here"):
            c.private_key

    def test_address_and_key_of_two_accounts_are_a_mistake(self, tmp_path):
        with pytest.raises(UserError, match="not the address of the private key"):
            credentials(settings(tmp_path, private_key=KEY, address=OTHER, **API))

    def test_a_wallet_that_is_the_key_itself_is_a_mistake(self, tmp_path):
        with pytest.raises(UserError, match="give the wallet's address"):
            credentials(settings(tmp_path, private_key=KEY, signature_type=3, funder=ADDRESS, **API))

    def test_they_cannot_be_written_anywhere_by_accident(self, tmp_path):
        c = credentials(settings(tmp_path, private_key=KEY, **API))
        for text in (repr(c), str(c), f"{c}", f"{[c]}"):
            assert KEY not in text and all(v not in text for v in API.values())
        with pytest.raises(TypeError):
            pickle.dumps(c)

    def test_wallets_are_the_official_clients(self):
        found = wallets_of(ADDRESS)
        assert len(set(found.values())) == 4
        assert [type_of(ADDRESS, w) for w in (ADDRESS, found["proxy wallet"], found["safe"], found["deposit wallet"])] == [0, 1, 2, 3]
        assert type_of(ADDRESS, OTHER) is None


class Venue(BaseHTTPRequestHandler):
    """Knows one wallet; hands out its API credentials and counts."""
    asked: list[str] = []

    def do_GET(self):
        self.asked.append(self.path)
        body = json.dumps({"apiKey": API["api_key"], "secret": API["api_secret"], "passphrase": API["api_passphrase"]}).encode()
        self.send_response(200 if self.headers["POLY_ADDRESS"] == ADDRESS else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def venue():
    Venue.asked.clear()
    with HTTPServer(("127.0.0.1", 0), Venue) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class TestAccountOfACommand:
    def test_api_credentials_are_derived_once_and_kept_privately(self, tmp_path, venue):
        cfg = settings(tmp_path, key_file=private(tmp_path / "key", KEY)).model_copy(update={"venue": config.Venue(clob_url=venue)})
        first = account.unlocked(cfg, never_asked)
        kept = cfg.run.path / "api_credentials.json"
        assert Venue.asked == ["/auth/derive-api-key"] and stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert credentials(first).api_secret == API["api_secret"] and first.account.address == ADDRESS
        assert KEY not in kept.read_text()
        assert account.unlocked(cfg, never_asked).account == first.account and len(Venue.asked) == 1
        elsewhere = cfg.model_copy(update={"venue": config.Venue(clob_url=venue + "/other")})
        assert keyfiles.read_api(elsewhere.run.path, elsewhere.venue.clob_url) is None
        kept.chmod(0o644)
        with pytest.raises(UserError, match="chmod 600"):
            account.unlocked(cfg, never_asked)

    def test_a_refused_wallet_is_said_without_the_key(self, tmp_path, venue):
        cfg = settings(tmp_path, private_key="ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")
        with pytest.raises(UserError, match="could not be derived") as e:
            account.unlocked(cfg.model_copy(update={"venue": config.Venue(clob_url=venue)}), never_asked)
        assert "ac0974" not in str(e.value)

    def test_a_keystore_asks_for_its_passphrase_once(self, tmp_path):
        path = private(tmp_path / "k", keyfiles.seal(bytes.fromhex(KEY), PASSPHRASE, WORK).decode())
        asked = []
        cfg = account.unlocked(settings(tmp_path, keystore=path, **API), lambda q: asked.append(q) or PASSPHRASE)
        assert len(asked) == 1 and credentials(cfg).private_key.hex() == KEY
        assert cfg.account.keystore_passphrase.get_secret_value() == ""

    def test_cancelling_needs_no_passphrase_where_the_address_is_known(self, tmp_path):
        path = private(tmp_path / "k", keyfiles.seal(bytes.fromhex(KEY), PASSPHRASE, WORK).decode())
        cfg = settings(tmp_path, keystore=path, **API)
        assert credentials(account.able_to_ask(cfg, never_asked)).address == ADDRESS
        cfg.run.path.mkdir()
        keyfiles.write_api(cfg.run.path, cfg.venue.clob_url, ADDRESS, API)
        assert credentials(account.able_to_ask(settings(tmp_path, keystore=path), never_asked)).api_key == API["api_key"]

    def test_without_a_terminal_nobody_is_asked(self, monkeypatch):
        monkeypatch.setattr(sys, "stdin", open(os.devnull))
        with pytest.raises(UserError, match="MMBOT_ACCOUNT__KEYSTORE_PASSPHRASE"):
            account.ask_passphrase("passphrase")

    def test_not_even_a_passphrase_of_the_configuration_reaches_the_group(self, tmp_path):
        env = Instance(settings(tmp_path, private_key=KEY, keystore_passphrase=PASSPHRASE, **API)).environment("python")
        assert PASSPHRASE not in env.values() and env["MMBOT_ACCOUNT__API_SECRET"] == API["api_secret"]

    def test_the_group_gets_the_opened_account_and_no_way_to_the_keystore(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MMBOT_ACCOUNT__KEYSTORE_PASSPHRASE", PASSPHRASE)
        path = private(tmp_path / "k", keyfiles.seal(bytes.fromhex(KEY), PASSPHRASE, WORK).decode())
        cfg = account.unlocked(settings(tmp_path, keystore=path, keystore_passphrase=PASSPHRASE, **API), never_asked)
        instance = Instance(cfg)
        instance.prepare()
        instance.save_config()
        env, saved = instance.environment("python"), instance.config_path.read_text()
        assert env["MMBOT_ACCOUNT__PRIVATE_KEY"] == KEY and PASSPHRASE not in env.values()
        assert ADDRESS in saved and str(path) not in saved and KEY not in saved and API["api_secret"] not in saved


class TestCommand:
    @staticmethod
    def keys(monkeypatch, *args, **env):
        """(output, error) of `mmbot keys ...` in this process."""
        for name in [k for k in os.environ if k.startswith("MMBOT_ACCOUNT")]:
            monkeypatch.delenv(name)
        done = CliRunner().invoke(app, list(args), env=env)
        return done.output, str(done.exception or "")

    def test_import_and_show_address(self, tmp_path, monkeypatch):
        key_file, store = private(tmp_path / "key", KEY), tmp_path / "store.json"
        out, error = self.keys(monkeypatch, "import", str(store), "--key-file", str(key_file), MMBOT_ACCOUNT__KEYSTORE_PASSPHRASE=PASSPHRASE)
        assert not error and ADDRESS in out and KEY not in out and stat.S_IMODE(store.stat().st_mode) == 0o600
        out, error = self.keys(monkeypatch, "show-address", "--json", MMBOT_ACCOUNT__KEYSTORE=str(store))
        assert json.loads(out)["key"] == ADDRESS and not error
        assert "exists already" in self.keys(monkeypatch, "new", str(store), MMBOT_ACCOUNT__KEYSTORE_PASSPHRASE=PASSPHRASE)[1]

    def test_new_makes_a_key_nobody_has_seen(self, tmp_path, monkeypatch):
        store = tmp_path / "new.json"
        out, error = self.keys(monkeypatch, "new", str(store), MMBOT_ACCOUNT__KEYSTORE_PASSPHRASE=PASSPHRASE)
        key = keyfiles.open_keystore(store, PASSPHRASE)
        assert not error and len(key) == 64 and key not in out and PASSPHRASE not in store.read_text()

    @pytest.mark.parametrize("env, says", [({"MMBOT_ACCOUNT__KEYSTORE_PASSPHRASE": "short"}, "at least 10"), ({}, "no terminal")])
    def test_a_bad_or_missing_passphrase_writes_nothing(self, tmp_path, monkeypatch, env, says):
        assert says in self.keys(monkeypatch, "new", str(tmp_path / "n.json"), **env)[1]
        assert os.listdir(tmp_path) == []
