"""`mmbot keys`: make, take in and look at the encrypted keystore of a trading key.

Owns: the conversation. The key itself is shown by no command; what is printed is its address and the wallets that belong to it.
Can go wrong: a name that is taken, two passphrases that differ, input that is no key (UserError, nothing is written).
"""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from mmbot.cli.options import ConfigOption, JsonOption, settings
from mmbot.errors import UserError

app = typer.Typer(no_args_is_help=True, help="The trading key: an encrypted keystore, and the addresses that belong to it.")
PathArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The keystore to write (mode 0600, never over an existing file).")]
MIN_PASSPHRASE = 10


def _new_passphrase() -> str:
    """A passphrase typed twice, or the one of the environment. Errors: UserError."""
    from mmbot.ops.account import ask_passphrase

    if given := os.environ.get("MMBOT_ACCOUNT__KEYSTORE_PASSPHRASE", ""):
        first = second = given
    else:
        first, second = ask_passphrase("passphrase of the new keystore"), ask_passphrase("the same again")
    if first != second:
        raise UserError("the two passphrases differ: nothing was written")
    if len(first) < MIN_PASSPHRASE:
        raise UserError(f"a passphrase has at least {MIN_PASSPHRASE} characters: nothing was written")
    return first


def _write(path: Path, key: bytes) -> None:
    from mmbot.execution import keyfiles
    from mmbot.execution.signing import Key

    if path.expanduser().exists():
        raise UserError(f"{path} exists already: nothing was written over it; choose another name")
    keyfiles.write_secret(path, keyfiles.seal(key, _new_passphrase()))
    print(f"{path}: keystore of {Key(key).address}; set account.keystore = {json.dumps(str(path.expanduser().absolute()))}")


@app.command()
def new(path: PathArgument) -> None:
    """Make a new key and write it into an encrypted keystore."""
    from mmbot.execution.signing import Key, SigningError

    while True:
        key = os.urandom(32)
        try:
            Key(key)
        except SigningError:            # one in 2^128 numbers is no key
            continue
        return _write(path, key)


@app.command("import")
def import_(path: PathArgument,
            key_file: Annotated[Path | None, typer.Option("--key-file", help="Take the key from this file (mode 0600) instead of the prompt.")] = None) -> None:
    """Put an existing key into an encrypted keystore. The key is read from a file or typed unseen, never given as an argument."""
    from mmbot.execution import keyfiles
    from mmbot.execution.credentials import key_bytes
    from mmbot.ops.account import ask_passphrase

    text = keyfiles.read_key(key_file) if key_file else ask_passphrase("private key (64 hex digits, not shown)")
    _write(path, key_bytes(text, "what was typed"))


@app.command("show-address")
def show_address(context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """The address of the configured key and the wallets that belong to it. A keystore that says its address needs no passphrase."""
    from mmbot.execution.credentials import checksummed, key_bytes
    from mmbot.execution.keyfiles import keystore_address
    from mmbot.execution.signing import Key
    from mmbot.ops.account import open_key
    from mmbot.ops.wallets import wallets_of

    account = settings(config, context).account
    only_keystore = account.keystore is not None and not account.private_key.get_secret_value() and account.key_file is None
    address = account.address or (keystore_address(account.keystore) if only_keystore else "")
    if not address:
        text = open_key(account)
        if not text:
            raise UserError("no key is configured: set MMBOT_ACCOUNT__PRIVATE_KEY, account.key_file or account.keystore")
        address = Key(key_bytes(text, "the private key")).address
    found = {"key": checksummed(address, "address"), **wallets_of(checksummed(address, "address"))}
    if as_json:
        print(json.dumps(found))
    else:
        for name, where in found.items():
            print(f"{name:<16} {where}")
