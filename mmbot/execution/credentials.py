"""Who trades: the account's key, addresses and API secrets, checked once at start.

Owns: `Credentials`, and the order in which the private key is looked for: account.private_key (in practice the environment), account.key_file,
account.keystore with its passphrase. Files are checked and read by `mmbot.execution.keyfiles`. Secrets never appear in a text form.
A process that only talks as the API key (guardian, user feed, `mmbot cancel-all`) does without the private key when account.address is given.
Paper with an empty [account] uses the exchange's funded test account; live with anything missing is a `UserError` that names what to set.
"""

import base64
import binascii

from mmbot.config import Account, Settings
from mmbot.errors import UserError
from mmbot.execution import keyfiles
from mmbot.execution.signing import DEPOSIT_WALLET, EOA, Key, SigningError, checksum_address

API_FIELDS = ("api_key", "api_secret", "api_passphrase")
WALLETS = {EOA: "the key itself", 1: "proxy wallet", 2: "safe", DEPOSIT_WALLET: "deposit wallet"}


def _variable(field: str) -> str:
    return f"MMBOT_ACCOUNT__{field.upper()}"


class Credentials:
    """Immutable by convention; ``address`` belongs to the private key and the API key, ``funder`` holds the money."""

    __slots__ = ("_private_key", "address", "funder", "signature_type", "api_key", "api_secret", "api_passphrase")

    def __init__(self, private_key: bytes, address: str, funder: str, signature_type: int, api_key: str, api_secret: str,
                 api_passphrase: str):
        self._private_key, self.address, self.funder, self.signature_type = private_key, address, funder, signature_type
        self.api_key, self.api_secret, self.api_passphrase = api_key, api_secret, api_passphrase

    @property
    def private_key(self) -> bytes:
        """The key, 32 bytes. Errors: UserError in a process that was given the address only."""
        if not self._private_key:
            raise UserError(f"the private key is not at hand here: {_how_to_give_a_key()}")
        return self._private_key

    def __repr__(self) -> str:
        return f"Credentials(address={self.address}, funder={self.funder}, signature_type={self.signature_type})"

    def __reduce__(self):
        raise TypeError("credentials are not to be copied into files or other processes")


def _how_to_give_a_key() -> str:
    return f"set {_variable('private_key')}, account.key_file, or account.keystore and {_variable('keystore_passphrase')}"


def private_key(account: Account) -> str:
    """The private key's text, "" when the account names none. Errors: UserError (a file that cannot be trusted or opened)."""
    if given := account.private_key.get_secret_value().strip():
        return given
    if account.key_file is not None:
        return keyfiles.read_key(account.key_file)
    if account.keystore is not None and (passphrase := account.keystore_passphrase.get_secret_value()):
        return keyfiles.open_keystore(account.keystore, passphrase)
    return ""


def credentials(cfg: Settings, need_api: bool = True) -> Credentials:
    """The account of a configuration.

    ``need_api=False`` asks for the private key only (to derive an API key). Errors: UserError.
    """
    account = cfg.account
    values = {name: getattr(account, name).get_secret_value().strip() for name in API_FIELDS}
    key, address = private_key(account), account.address.strip()
    if cfg.profile == "paper" and not (key or address or any(values.values())):
        key, values = _paper_account()
    missing = [_variable(name) for name in API_FIELDS if need_api and not values[name]]
    if not key and not (address and need_api):
        missing.insert(0, _variable("private_key"))
    if missing:
        how = f"; or {_how_to_give_a_key()}" if not key and not address else ""
        raise UserError(f"the {cfg.profile} profile needs an account: set {', '.join(missing)}{how}")
    return checked(key, account.signature_type, account.funder, *(values[name] if need_api else "" for name in API_FIELDS), address=address)


def _paper_account() -> tuple[str, dict[str, str]]:
    from mmbot.sim import accounts      # only paper mode loads the simulator
    return accounts.PAPER_KEY, {"api_key": accounts.PAPER_API_KEY, "api_secret": accounts.PAPER_API_SECRET,
                                "api_passphrase": accounts.PAPER_API_PASSPHRASE}


def key_bytes(text: str, where: str) -> bytes:
    """A private key from its hex text. Errors: UserError that names ``where`` it came from, never the value."""
    try:
        secret = bytes.fromhex(text.strip().removeprefix("0x"))
        Key(secret)
    except (ValueError, SigningError):
        raise UserError(f"{where} is not a private key: 64 hex digits, with or without 0x") from None
    return secret


def checked(private_key: str, signature_type: int, funder: str, api_key: str = "", api_secret: str = "",
            api_passphrase: str = "", address: str = "") -> Credentials:
    """Credentials from their texts; ``address`` alone does when nothing is to be signed. Errors: UserError that names the variable, never the value."""
    secret, own = b"", checksummed(address, "account.address") if address else ""
    if private_key:
        secret = key_bytes(private_key, _variable("private_key"))
        if own and own != Key(secret).address:
            raise UserError(f"account.address {own} is not the address of the private key, {Key(secret).address}: one of them is another account's")
        own = Key(secret).address
    try:
        base64.b64decode(api_secret + "=" * (-len(api_secret) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise UserError(f"{_variable('api_secret')} is not URL-safe base64, as the venue hands it out") from None
    for name, value in zip(API_FIELDS, (api_key, api_secret, api_passphrase), strict=True):
        if not value.isascii() or not value.isprintable() or '"' in value:
            raise UserError(f"{_variable(name)} holds characters that cannot stand in a header")
    return Credentials(secret, own, _funder(funder, signature_type, own), signature_type, api_key, api_secret, api_passphrase)


def checksummed(address: str, name: str) -> str:
    """An address in checksum form. Errors: UserError naming the setting."""
    digits = address.removeprefix("0x")
    try:
        checksum = checksum_address(bytes.fromhex(digits)) if len(digits) == 40 else ""
    except ValueError:
        checksum = ""
    if not checksum or (digits not in (digits.lower(), digits.upper()) and "0x" + digits != checksum):
        raise UserError(f"{name} {address!r} is not an address (0x and 40 hex digits, checksum case if mixed)")
    return checksum


def _funder(funder: str, signature_type: int, address: str) -> str:
    """The address that holds the money, in checksum form."""
    if not funder:
        if signature_type != EOA:
            raise UserError(f"account.signature_type {signature_type} needs account.funder ({_variable('funder')}): the address of the "
                            + ("deposit wallet" if signature_type == DEPOSIT_WALLET else "proxy wallet or safe"))
        return address
    checksum = checksummed(funder, "account.funder")
    if signature_type == EOA and checksum != address:
        raise UserError(f"account.funder {checksum} is not the key's own address {address}: signature_type 0 trades from the key itself")
    if signature_type != EOA and checksum == address:
        raise UserError(f"account.funder {checksum} is the key's own address, but signature_type {signature_type} trades from a "
                        f"{WALLETS[signature_type]}: give the wallet's address, or signature_type 0")
    return checksum
