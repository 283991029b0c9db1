"""Who trades: the account's key, addresses and API secrets, checked once at start.

Owns: `Credentials`. Secrets never appear in its text form. Paper with an empty [account] uses the exchange's funded test
account; live with anything missing is a `UserError` that names the environment variables to set.
"""

import base64
import binascii

from mmbot.config import Settings
from mmbot.errors import UserError
from mmbot.execution.signing import DEPOSIT_WALLET, EOA, Key, SigningError, checksum_address

_API_FIELDS = ("api_key", "api_secret", "api_passphrase")


def _variable(field: str) -> str:
    return f"MMBOT_ACCOUNT__{field.upper()}"


class Credentials:
    """Immutable by convention; ``address`` belongs to the private key and the API key, ``funder`` holds the money."""

    __slots__ = ("private_key", "address", "funder", "signature_type", "api_key", "api_secret", "api_passphrase")

    def __init__(self, private_key: bytes, address: str, funder: str, signature_type: int, api_key: str, api_secret: str,
                 api_passphrase: str):
        self.private_key, self.address, self.funder, self.signature_type = private_key, address, funder, signature_type
        self.api_key, self.api_secret, self.api_passphrase = api_key, api_secret, api_passphrase

    def __repr__(self) -> str:
        return f"Credentials(address={self.address}, funder={self.funder}, signature_type={self.signature_type})"


def credentials(cfg: Settings, need_api: bool = True) -> Credentials:
    """The account of a configuration.

    ``need_api=False`` asks for the private key only (to derive an API key). Errors: UserError.
    """
    account = cfg.account
    values = {name: getattr(account, name).get_secret_value().strip() for name in ("private_key", *_API_FIELDS)}
    if cfg.profile == "paper" and not any(values.values()):
        values = _paper_account()
    needed = ("private_key", *_API_FIELDS) if need_api else ("private_key",)
    if missing := [_variable(name) for name in needed if not values[name]]:
        raise UserError(f"the {cfg.profile} profile needs an account: set {', '.join(missing)}")
    return checked(values["private_key"], account.signature_type, account.funder,
                   *(values[name] if need_api else "" for name in _API_FIELDS))


def _paper_account() -> dict[str, str]:
    from mmbot.sim import accounts      # only paper mode loads the simulator
    return {"private_key": accounts.PAPER_KEY, "api_key": accounts.PAPER_API_KEY, "api_secret": accounts.PAPER_API_SECRET,
            "api_passphrase": accounts.PAPER_API_PASSPHRASE}


def checked(private_key: str, signature_type: int, funder: str, api_key: str = "", api_secret: str = "",
            api_passphrase: str = "") -> Credentials:
    """Credentials from their texts. Errors: UserError that names the variable, never the value."""
    try:
        secret = bytes.fromhex(private_key.removeprefix("0x"))
        address = Key(secret).address
    except (ValueError, SigningError):
        raise UserError(f"{_variable('private_key')} is not a private key: 64 hex digits, with or without 0x") from None
    try:
        base64.b64decode(api_secret + "=" * (-len(api_secret) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise UserError(f"{_variable('api_secret')} is not URL-safe base64, as the venue hands it out") from None
    for name, value in zip(_API_FIELDS, (api_key, api_secret, api_passphrase), strict=True):
        if not value.isascii() or not value.isprintable() or '"' in value:
            raise UserError(f"{_variable(name)} holds characters that cannot stand in a header")
    return Credentials(secret, address, _funder(funder, signature_type, address), signature_type, api_key, api_secret, api_passphrase)


def _funder(funder: str, signature_type: int, address: str) -> str:
    """The address that holds the money, in checksum form."""
    if not funder:
        if signature_type != EOA:
            raise UserError(f"account.signature_type {signature_type} needs account.funder ({_variable('funder')}): the address of the "
                            + ("deposit wallet" if signature_type == DEPOSIT_WALLET else "proxy wallet or safe"))
        return address
    digits = funder.removeprefix("0x")
    try:
        checksum = checksum_address(bytes.fromhex(digits)) if len(digits) == 40 else ""
    except ValueError:
        checksum = ""
    if not checksum or (digits not in (digits.lower(), digits.upper()) and "0x" + digits != checksum):
        raise UserError(f"account.funder {funder!r} is not an address (0x and 40 hex digits, checksum case if mixed)")
    if signature_type == EOA and checksum != address:
        raise UserError(f"account.funder {checksum} is not the key's own address {address}: signature_type 0 trades from the key itself")
    return checksum
