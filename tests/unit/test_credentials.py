"""Accounts: paper's test account, what live needs, and refusals that never show a secret."""

import pytest

from mmbot import config
from mmbot.errors import UserError
from mmbot.execution.credentials import credentials
from mmbot.sim import accounts

KEY = accounts.PAPER_KEY
ADDRESS = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
WALLET = "0x1111111111111111111111111111111111111111"
FULL = {"private_key": KEY, "api_key": "k", "api_secret": "c2VjcmV0", "api_passphrase": "p"}


def settings(profile="live", **account):
    return config.Settings(profile=profile, account=account)


def test_paper_with_an_empty_account_is_the_test_account():
    c = credentials(settings("paper"))
    assert (c.address, c.funder, c.signature_type) == (ADDRESS, ADDRESS, 0)
    assert (c.api_key, c.api_secret, c.api_passphrase) == (accounts.PAPER_API_KEY, accounts.PAPER_API_SECRET, accounts.PAPER_API_PASSPHRASE)


def test_paper_with_an_account_uses_it():
    other = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
    c = credentials(settings("paper", **{**FULL, "private_key": other}))
    assert (c.address, c.api_key) == ("0x70997970C51812dc3A010C7d01b50e0d17dc79C8", "k")


def test_live_names_every_missing_variable():
    with pytest.raises(UserError) as e:
        credentials(settings())
    for name in ("PRIVATE_KEY", "API_KEY", "API_SECRET", "API_PASSPHRASE"):
        assert f"MMBOT_ACCOUNT__{name}" in str(e.value)


def test_live_and_half_filled_paper_name_only_what_is_missing():
    for profile in ("live", "paper"):
        with pytest.raises(UserError) as e:
            credentials(settings(profile, private_key=KEY, api_key="k"))
        assert "MMBOT_ACCOUNT__API_SECRET, MMBOT_ACCOUNT__API_PASSPHRASE" in str(e.value)
        assert "MMBOT_ACCOUNT__PRIVATE_KEY" not in str(e.value)


def test_the_private_key_alone_is_enough_to_derive_a_key():
    assert credentials(settings(private_key=KEY[2:]), need_api=False).address == ADDRESS


@pytest.mark.parametrize("account, text", [
    ({**FULL, "private_key": "0x1234"}, "MMBOT_ACCOUNT__PRIVATE_KEY is not a private key"),
    ({**FULL, "private_key": "zz" * 32}, "MMBOT_ACCOUNT__PRIVATE_KEY is not a private key"),
    ({**FULL, "private_key": "00" * 32}, "MMBOT_ACCOUNT__PRIVATE_KEY is not a private key"),
    ({**FULL, "api_secret": "not base64!"}, "MMBOT_ACCOUNT__API_SECRET is not URL-safe base64"),
    ({**FULL, "api_passphrase": "a\r\nPOLY_ADDRESS: x"}, "MMBOT_ACCOUNT__API_PASSPHRASE holds characters"),
    ({**FULL, "api_key": 'a"b'}, "MMBOT_ACCOUNT__API_KEY holds characters"),
    ({**FULL, "signature_type": 3}, "needs account.funder (MMBOT_ACCOUNT__FUNDER): the address of the deposit wallet"),
    ({**FULL, "signature_type": 1}, "the address of the proxy wallet or safe"),
    ({**FULL, "signature_type": 3, "funder": "0x12"}, "is not an address"),
    ({**FULL, "signature_type": 3, "funder": "0x" + "g" * 40}, "is not an address"),
    ({**FULL, "signature_type": 3, "funder": ADDRESS.replace("39F", "39f")}, "is not an address"),
    ({**FULL, "funder": WALLET}, "is not the key's own address"),
])
def test_refusals_name_the_setting_and_hide_the_value(account, text):
    with pytest.raises(UserError) as e:
        credentials(settings(**account))
    assert text in str(e.value)
    for secret in (account["private_key"], account["api_secret"], account["api_passphrase"]):
        assert secret not in str(e.value) or len(secret) < 3


@pytest.mark.parametrize("funder", [ADDRESS, ADDRESS.lower(), "0x" + ADDRESS[2:].upper(), ADDRESS[2:]])
def test_funder_is_put_into_checksum_form(funder):
    assert credentials(settings(**FULL, funder=funder)).funder == ADDRESS


def test_deposit_wallet():
    c = credentials(settings(**FULL, signature_type=3, funder=WALLET))
    assert (c.address, c.funder, c.signature_type) == (ADDRESS, WALLET, 3)
    assert all(secret not in repr(c) for secret in (KEY[2:], "c2VjcmV0"))
