"""Secrets in files: who may read them, how they are read and how they are written.

Owns: the rule that a file with a secret belongs to us, can be read by nobody else and cannot be exchanged by others (its directory is not
theirs to write); the encrypted keystore (Web3 Secret Storage, version 3, scrypt), made and opened by eth-keyfile; the cache of API credentials
that were derived from the key. Every file is written to a new name with mode 0600 and moved into place, so there is never half a file and
never one that others could read.
Who calls: `credentials` (reading), `mmbot keys` and `mmbot up` (writing). Can go wrong: everything about a file is a UserError with the fix;
a wrong passphrase; no error text ever shows what a file holds.
"""

import json
import os
import stat
import uuid
from pathlib import Path

from mmbot.errors import UserError

MAX_BYTES = 65_536
SCRYPT_WORK = 262_144           # N of scrypt: about a second and 256 MB for each guess


def read_secret(path: Path, what: str) -> bytes:
    """Content of a file that only we can read. Links are followed first, so that it is the real file that is judged.

    Errors: UserError naming the file, what is wrong and the command that mends it.
    """
    try:
        real = path.expanduser().resolve(strict=True)
        fd = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, RuntimeError) as e:
        raise UserError(f"{what} {path}: {getattr(e, 'strerror', None) or e}") from None
    try:
        info = os.fstat(fd)
        shown = str(path) if real == path.expanduser().absolute() else f"{path} (that is {real})"
        if not stat.S_ISREG(info.st_mode):
            raise UserError(f"{what} {shown} is not a file")
        _check(info, what, shown, real)
        return os.read(fd, MAX_BYTES)
    finally:
        os.close(fd)


def _check(info: os.stat_result, what: str, shown: str, real: Path) -> None:
    if info.st_uid != os.geteuid():
        raise UserError(f"{what} {shown} belongs to user {info.st_uid}, not to us ({os.geteuid()}): `chown {os.geteuid()} {real}`")
    if info.st_mode & 0o077:
        raise UserError(f"{what} {shown} can be read by others (mode {stat.S_IMODE(info.st_mode):04o}): `chmod 600 {real}`; "
                        "if it was so for long, take another key")
    above = real.parent.stat()
    if above.st_mode & 0o022 and not above.st_mode & stat.S_ISVTX:
        raise UserError(f"{what} {shown} can be exchanged by others, who may write its directory: `chmod go-w {real.parent}`")
    if above.st_uid not in (os.geteuid(), 0):
        raise UserError(f"{what} {shown} lies in a directory of user {above.st_uid}: move it to one of yours")


def write_secret(path: Path, data: bytes, replace: bool = False) -> None:
    """Write a file that only we can read, whole or not at all. Errors: UserError (it is there already and ``replace`` is false, no place)."""
    path = path.expanduser()
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            if replace:
                os.replace(fresh, path)
            else:
                os.link(fresh, path)        # unlike a rename this fails when the name is taken
        finally:
            fresh.unlink(missing_ok=True)
    except FileExistsError:
        raise UserError(f"{path} exists already: nothing was written over it; choose another name") from None
    except OSError as e:
        raise UserError(f"{path}: {e.strerror}") from None


def read_key(path: Path) -> str:
    """The private key in a key file, as text that `credentials` checks. Errors: UserError."""
    text = read_secret(path, "account.key_file").decode("ascii", "replace").strip()
    if len(text.removeprefix("0x")) != 64 or not set(text.removeprefix("0x").lower()) <= set("0123456789abcdef"):
        raise UserError(f"account.key_file {path} does not hold a private key: one line of 64 hex digits, with or without 0x")
    return text


def seal(key: bytes, passphrase: str, work: int = SCRYPT_WORK) -> bytes:
    """A keystore document of a private key. ``work``: N of scrypt, a power of two."""
    from eth_keyfile import create_keyfile_json     # loads slowly, and only those who have a keystore need it

    document = create_keyfile_json(key, passphrase.encode(), kdf="scrypt", iterations=work)
    return json.dumps(document, indent=1).encode() + b"\n"


def open_keystore(path: Path, passphrase: str) -> str:
    """The private key in a keystore, as hex text. Errors: UserError."""
    from eth_keyfile import decode_keyfile_json

    raw = read_secret(path, "account.keystore")
    try:
        document = json.loads(raw)
        return bytes(decode_keyfile_json(document, passphrase.encode())).hex()
    except ValueError as e:             # a broken document, or a MAC that does not fit the passphrase
        if "MAC" in str(e):
            raise UserError(f"account.keystore {path}: the passphrase is wrong") from None
        raise UserError(f"account.keystore {path} is not a keystore (Web3 Secret Storage, version 3)") from None
    except (KeyError, TypeError, RuntimeError, AttributeError):     # a RuntimeError: a kind of keystore that the library does not know
        raise UserError(f"account.keystore {path} is not a keystore (Web3 Secret Storage, version 3)") from None


def keystore_address(path: Path) -> str:
    """The address a keystore says it is for, "" when it does not say. Needs no passphrase. Errors: UserError."""
    try:
        found = json.loads(read_secret(path, "account.keystore")).get("address", "")
    except (ValueError, AttributeError):
        raise UserError(f"account.keystore {path} is not a keystore (Web3 Secret Storage, version 3)") from None
    return f"0x{found.removeprefix('0x')}" if isinstance(found, str) and found else ""


API_CACHE = "api_credentials.json"


def write_api(directory: Path, venue_url: str, address: str, api: dict[str, str]) -> None:
    """Keep derived API credentials in the run directory. Errors: UserError."""
    write_secret(directory / API_CACHE, json.dumps({"venue": venue_url, "address": address, **api}).encode(), replace=True)


def read_api(directory: Path, venue_url: str) -> dict[str, str] | None:
    """Derived API credentials (address, api_key, api_secret, api_passphrase) kept for this venue; None when there are none that fit.

    Errors: UserError when the file can be read by others.
    """
    path = directory / API_CACHE
    if not path.exists():
        return None
    try:
        found = json.loads(read_secret(path, "cached API credentials"))
        fits = found["venue"] == venue_url and all(isinstance(found[k], str) and found[k] for k in _API_WORDS)
        return {k: found[k] for k in _API_WORDS} if fits else None
    except (ValueError, KeyError, TypeError):
        return None


_API_WORDS = ("address", "api_key", "api_secret", "api_passphrase")
