"""The account made ready for a command or a group: the keystore opened, the API credentials found, derived or taken from the cache.

Owns: which secrets a command asks for. Who calls: the command line, before anything starts. Writes: the cache of derived API credentials in the
run directory (mode 0600). Reads: files of the account, the terminal (a passphrase), the venue (only to derive API credentials).

How secrets reach the processes of a group: this module opens them once, `Instance.environment` puts them into the environment of supervisord
(readable by its own user only, like all of /proc/<pid>/environ), and supervisor.conf takes out of each process what that process does not
need: the private key stays with executor and settler. They are in no file, no argument list and no shared memory, and nobody is asked twice.
Can go wrong: UserError with the setting to change.
"""

import asyncio
import getpass
import sys

from pydantic import SecretStr

from mmbot import clock
from mmbot.config import Account, Settings
from mmbot.errors import UserError
from mmbot.execution import keyfiles
from mmbot.execution.credentials import API_FIELDS, checksummed, key_bytes, private_key
from mmbot.execution.rest import RestClient, VenueError
from mmbot.execution.signing import Key

CLOCK_S = 5.0


def ask_passphrase(question: str) -> str:
    """A passphrase from the terminal, not echoed. Errors: UserError without a terminal."""
    if not sys.stdin.isatty():
        raise UserError(f"{question}: there is no terminal to ask on; set MMBOT_ACCOUNT__KEYSTORE_PASSPHRASE")
    return getpass.getpass(f"{question}: ")


def _with(cfg: Settings, **values: str) -> Settings:
    update = {k: v if k == "address" else SecretStr(v) for k, v in values.items()}
    return cfg.model_copy(update={"account": cfg.account.model_copy(update=update)})


def _is_test_account(cfg: Settings) -> bool:
    a = cfg.account
    named = (a.key_file, a.keystore, a.address, a.private_key.get_secret_value(), *(getattr(a, n).get_secret_value() for n in API_FIELDS))
    return cfg.profile == "paper" and not any(named)


def _api(cfg: Settings) -> dict[str, str]:
    return {n: v for n in API_FIELDS if (v := getattr(cfg.account, n).get_secret_value().strip())}


def open_key(account: Account, ask=ask_passphrase) -> str:
    """The private key's text, asking for the keystore's passphrase if need be; "" when the account names no key. Errors: UserError."""
    found = private_key(account)
    if not found and account.keystore is not None:
        keyfiles.keystore_address(account.keystore)         # a file that cannot be used is said before anybody types a passphrase
        found = keyfiles.open_keystore(account.keystore, ask(f"passphrase of {account.keystore}"))
    return found


def unlocked(cfg: Settings, ask=ask_passphrase) -> Settings:
    """Settings whose account holds key, address and API credentials, ready to be handed to a group. Errors: UserError."""
    if _is_test_account(cfg):
        return cfg
    text = open_key(cfg.account, ask)
    if not text:
        return cfg                                          # `credentials` says what is missing
    key = Key(key_bytes(text, "the private key"))
    api = _api(cfg)
    if not api and cfg.profile == "live":
        kept = keyfiles.read_api(cfg.run.path, cfg.venue.clob_url)
        api = _words(kept) if kept and kept["address"] == key.address else derive(cfg, key)
    return _with(cfg, private_key=text, address=key.address, keystore_passphrase="", **api)


def able_to_ask(cfg: Settings, ask=ask_passphrase) -> Settings:
    """Settings whose account can read and cancel: the API credentials and the address; the key is opened only when there is no other way.

    So `mmbot cancel-all` needs no passphrase where the group has run before. Errors: UserError.
    """
    if _is_test_account(cfg):
        return cfg
    api, address = _api(cfg), cfg.account.address
    kept = keyfiles.read_api(cfg.run.path, cfg.venue.clob_url)
    if not api and kept and address in ("", kept["address"]):
        api, address = _words(kept), kept["address"]
    if len(api) == len(API_FIELDS) and not private_key(cfg.account):
        if not address and cfg.account.keystore is not None:
            address = keyfiles.keystore_address(cfg.account.keystore)
        if address:
            return _with(cfg, address=checksummed(address, "account.address"), **api)
    return unlocked(_with(cfg, **api), ask)


def _words(kept: dict[str, str]) -> dict[str, str]:
    return {n: kept[n] for n in API_FIELDS}


def derive(cfg: Settings, key: Key) -> dict[str, str]:
    """API credentials of a wallet from the venue (the same each time), kept in the run directory. Errors: UserError."""
    async def ask():
        wall = clock.sync(cfg.venue.clock_url, CLOCK_S)
        async with RestClient.of(cfg.venue, wall.now_s) as rest:
            return await rest.derive_api_key(key, cfg.venue.chain_id)

    try:
        found = asyncio.run(ask())
    except VenueError as e:
        raise UserError(f"the API credentials of {key.address} could not be derived: {e}; set MMBOT_ACCOUNT__API_KEY, _API_SECRET and _API_PASSPHRASE, "
                        "or try again") from None
    api = {"api_key": found.apiKey, "api_secret": found.secret, "api_passphrase": found.passphrase}
    cfg.run.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    keyfiles.write_api(cfg.run.path, cfg.venue.clob_url, key.address, api)
    return api
