"""Who is asking: the venue's L1 and L2 authentication, from the other side of the wire.

Owns: the registry of API keys (deterministic per address and nonce, so a restarted exchange knows old keys again once they derive) and
the address behind a signature. Its hashing is its own, shared with nothing that signs: it is the bot's counterparty check.
Read by the REST side and the user channel. What can go wrong: a bad header or signature, an `AuthError` with the venue's text.

Source: venue protocol, authentication.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping

import msgspec
from coincurve import PublicKey
from sha3 import keccak_256

from mmbot.clock import WallClock
from mmbot.sim.accounts import PAPER_ADDRESS, PAPER_API_KEY, PAPER_API_PASSPHRASE, PAPER_API_SECRET

E_KEY = "Unauthorized/Invalid api key"
E_L1 = "Invalid L1 Request headers"
ATTESTATION = "This message attests that I control the given wallet"
MAX_SKEW_S = 300              # the venue's own limit is not documented


class AuthError(Exception):
    """HTTP 401 with the venue's text."""


class Credentials(msgspec.Struct, frozen=True):
    """One API key and the (EOA) address it belongs to."""
    api_key: str
    secret: str
    passphrase: str
    address: str


def keccak(data: bytes) -> bytes:
    """Keccak-256."""
    return keccak_256(data).digest()


def word(value: int) -> bytes:
    """A uint256."""
    return value.to_bytes(32, "big")


def address_word(address: str) -> bytes:
    """An address as a 32-byte word. Errors: ValueError."""
    raw = bytes.fromhex(address.removeprefix("0x"))
    if len(raw) != 20:
        raise ValueError("an address has 20 bytes")
    return bytes(12) + raw


def checksum_address(raw: bytes) -> str:
    """EIP-55 text of 20 bytes."""
    text = raw.hex()
    marks = keccak(text.encode()).hex()
    return "0x" + "".join(c.upper() if int(m, 16) >= 8 else c for c, m in zip(text, marks))


def recover(digest: bytes, signature: bytes) -> str:
    """Checksummed address that signed a 32-byte digest with r||s||v (65 bytes, v 27/28 or 0/1). Errors: ValueError."""
    if len(signature) != 65 or signature[64] not in (0, 1, 27, 28):
        raise ValueError("a signature is r, s and v in 65 bytes")
    try:
        key = PublicKey.from_signature_and_message(signature[:64] + bytes([signature[64] % 27]), digest, hasher=None)
    except Exception as e:                     # coincurve raises a bare Exception for a point that does not exist
        raise ValueError(f"no key signed this: {e}") from None
    return checksum_address(keccak(key.format(compressed=False)[1:])[12:])


_CLOB_AUTH = keccak(b"ClobAuth(address address,string timestamp,uint256 nonce,string message)")
_CLOB_DOMAIN = keccak(b"EIP712Domain(string name,string version,uint256 chainId)") + keccak(b"ClobAuthDomain") + keccak(b"1")
_ATTESTATION = keccak(ATTESTATION.encode())


def l1_digest(address: str, timestamp: str, nonce: int, chain_id: int) -> bytes:
    """EIP-712 digest of an L1 attestation."""
    body = keccak(_CLOB_AUTH + address_word(address) + keccak(timestamp.encode()) + word(nonce) + _ATTESTATION)
    return keccak(b"\x19\x01" + keccak(_CLOB_DOMAIN + word(chain_id)) + body)


def l2_signature(secret: str, timestamp: str, method: str, path: str, body: bytes) -> str:
    """HMAC of a request: urlsafe base64, path without query, the exact body bytes."""
    message = (timestamp + method + path).encode() + body
    return base64.urlsafe_b64encode(hmac.digest(base64.urlsafe_b64decode(secret), message, "sha256")).decode()


def _derived(name: str, address: str) -> Credentials:
    """Credentials that follow from a name alone."""
    h = hashlib.sha256(name.encode()).digest()
    x = h.hex()
    secret = base64.urlsafe_b64encode(hashlib.sha256(h).digest()).decode()
    return Credentials(f"{x[:8]}-{x[8:12]}-4{x[13:16]}-a{x[17:20]}-{x[20:32]}", secret, x[32:], address)


class Keys:
    """All API keys of the exchange. A timestamp must be near one of ``clocks``: the tape's, or the host's that other clients use."""

    def __init__(self, chain_id: int, *clocks: WallClock):
        self.chain_id, self.clocks = chain_id, clocks
        self.skew_s, self.tolerance_s = 0.0, MAX_SKEW_S                # how far the venue's clock is off, and what it forgives
        self.revoked = False                          # no key opens the user channel
        self._by_key: dict[str, Credentials] = {}
        self._by_owner: dict[tuple[str, int], Credentials] = {}
        self._extra: dict[str, list[dict]] = {}       # "readonly <address>" and "builder <address>" -> keys beside the trading ones
        self._count = 0
        self._add(Credentials(PAPER_API_KEY, PAPER_API_SECRET, PAPER_API_PASSPHRASE, PAPER_ADDRESS), 0)

    def _add(self, c: Credentials, nonce: int) -> Credentials:
        self._by_key[c.api_key] = self._by_owner[c.address.lower(), nonce] = c
        return c

    def exists(self, address: str, nonce: int) -> bool:
        """Was the key of (address, nonce) created before?"""
        return (address.lower(), nonce) in self._by_owner

    def of(self, address: str) -> list[str]:
        """API keys of an address."""
        return [c.api_key for (owner, _), c in self._by_owner.items() if owner == address.lower()]

    def remove(self, api_key: str) -> None:
        """Forget a key."""
        gone = self._by_key.pop(api_key, None)
        self._by_owner = {k: c for k, c in self._by_owner.items() if c is not gone}

    def create(self, address: str, nonce: int) -> Credentials:
        """The key of (address, nonce): always the same one, made on first use."""
        known = self._by_owner.get((address.lower(), nonce))
        if known is not None:
            return known
        return self._add(_derived(f"api key {address.lower()} {nonce}", address), nonce)

    def _more(self, kind: str, who: Credentials) -> list[dict]:
        return self._extra.setdefault(f"{kind} {who.address.lower()}", [])

    def _one_more(self, kind: str, who: Credentials) -> dict:
        keys = self._more(kind, who)
        self._count += 1
        made = _derived(f"{kind} key {who.address.lower()} {self._count}", who.address)
        keys.append({"key": made.api_key, "secret": made.secret, "passphrase": made.passphrase})
        return keys[-1]

    def create_readonly(self, who: Credentials) -> str:
        """One more key that may only read."""
        return self._one_more("readonly", who)["key"]

    def readonly(self, who: Credentials) -> list[str]:
        """Keys of an address that may only read."""
        return [k["key"] for k in self._more("readonly", who)]

    def drop_readonly(self, who: Credentials, key: str) -> bool:
        """Forget a read-only key; False when the address has no such key."""
        keys = self._more("readonly", who)
        kept = [k for k in keys if k["key"] != key]
        gone = len(kept) < len(keys)
        keys[:] = kept
        return gone

    def create_builder(self, who: Credentials) -> dict:
        """One more key for builder attribution, with its secret (shown this once)."""
        return self._one_more("builder", who)

    def builders(self, who: Credentials) -> list[dict]:
        """Builder keys of an address."""
        return [{"key": k["key"]} for k in self._more("builder", who)]

    def drop_builders(self, who: Credentials) -> None:
        """Revoke the builder keys of an address."""
        self._more("builder", who).clear()

    def _fresh(self, timestamp: str) -> bool:
        return any(abs(int(timestamp) - self.skew_s - clock.now_s()) <= self.tolerance_s for clock in self.clocks)

    def l1(self, headers: Mapping[str, str]) -> tuple[str, int]:
        """(address, nonce) of a valid L1 request. Errors: AuthError."""
        try:
            address, timestamp = headers["POLY_ADDRESS"], headers["POLY_TIMESTAMP"]
            nonce = int(headers.get("POLY_NONCE") or 0)
            digest = l1_digest(address, timestamp, nonce, self.chain_id)
            signer = recover(digest, bytes.fromhex(headers["POLY_SIGNATURE"].removeprefix("0x")))
            fresh = self._fresh(timestamp)
        except (KeyError, ValueError, OverflowError):
            raise AuthError(E_L1) from None
        if signer.lower() != address.lower() or not fresh:
            raise AuthError(E_L1)
        return signer, nonce

    def l2(self, headers: Mapping[str, str], method: str, path: str, body: bytes) -> Credentials:
        """Who sent a request with valid L2 headers. Errors: AuthError."""
        found = self._by_key.get(headers.get("POLY_API_KEY", ""))
        if found is None or not hmac.compare_digest(found.passphrase, headers.get("POLY_PASSPHRASE", "")):
            raise AuthError(E_KEY)
        timestamp = headers.get("POLY_TIMESTAMP", "")
        try:
            fresh = self._fresh(timestamp)
        except ValueError:
            fresh = False
        good = l2_signature(found.secret, timestamp, method, path, body)
        if (not fresh or not hmac.compare_digest(good, headers.get("POLY_SIGNATURE", ""))
                or headers.get("POLY_ADDRESS", "").lower() != found.address.lower()):
            raise AuthError(E_KEY)
        return found

    def user(self, api_key: str, secret: str, passphrase: str) -> Credentials | None:
        """Credentials given inside a user-channel subscription, None when they are wrong."""
        found = self._by_key.get(api_key)
        if found is None or self.revoked or found.secret != secret or found.passphrase != passphrase:
            return None
        return found
