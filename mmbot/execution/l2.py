"""Authentication: HMAC headers of every private request (L2), and the wallet signature that makes or finds an API key (L1).

Owns: the SHA-256 states of the secret, computed once. Pure: the caller gives the timestamp.
Can go wrong: a secret that is not base64 (checked in `credentials`). Protocol: venue protocol, authentication.
"""

import base64
import binascii
import hashlib

from mmbot.execution.signing import Key, address_word, keccak, uint_word

_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_CLOB_AUTH = keccak(b"ClobAuth(address address,string timestamp,uint256 nonce,string message)")
_CLOB_DOMAIN = keccak(b"EIP712Domain(string name,string version,uint256 chainId)")
_CLOB_MESSAGE = keccak(b"This message attests that I control the given wallet")
_BLOCK = 64


class L2Auth:
    """Signs requests of one API key."""

    __slots__ = ("_inner", "_outer", "_fixed", "address", "api_key", "_passphrase")

    def __init__(self, credentials):
        key = base64.urlsafe_b64decode(credentials.api_secret + "=" * (-len(credentials.api_secret) % 4))
        key = hashlib.sha256(key).digest() if len(key) > _BLOCK else key
        key = key.ljust(_BLOCK, b"\0")
        self._inner = hashlib.sha256(bytes(b ^ 0x36 for b in key))
        self._outer = hashlib.sha256(bytes(b ^ 0x5C for b in key))
        self.address, self.api_key, self._passphrase = credentials.address, credentials.api_key, credentials.api_passphrase
        self._fixed = (f"POLY_ADDRESS: {self.address}\r\nPOLY_API_KEY: {self.api_key}\r\n"
                       f"POLY_PASSPHRASE: {self._passphrase}\r\n").encode()

    def signature(self, method_path: bytes, body: bytes, timestamp_s: int) -> bytes:
        """URL-safe base64 HMAC of timestamp, method, path (without query) and the exact body bytes."""
        inner = self._inner.copy()
        inner.update(b"%d%b%b" % (timestamp_s, method_path, body))
        outer = self._outer.copy()
        outer.update(inner.digest())
        return binascii.b2a_base64(outer.digest(), newline=False).translate(_URL_SAFE)

    def headers_for(self, method: str, path: str, body: bytes, timestamp_s: int) -> bytes:
        """The five header lines of a request, each with its line end, as bytes ready to write."""
        return self.header_lines(f"{method}{path}".encode(), body, timestamp_s)

    def header_lines(self, method_path: bytes, body: bytes, timestamp_s: int) -> bytes:
        """`headers_for` with method and path already joined: b"POST/orders"."""
        return b"%bPOLY_TIMESTAMP: %d\r\nPOLY_SIGNATURE: %b\r\n" % (
            self._fixed, timestamp_s, self.signature(method_path, body, timestamp_s))

    def header_dict(self, method: str, path: str, body: bytes, timestamp_s: int) -> dict[str, str]:
        """The same headers for a client that takes a mapping."""
        return {"POLY_ADDRESS": self.address, "POLY_API_KEY": self.api_key, "POLY_PASSPHRASE": self._passphrase,
                "POLY_TIMESTAMP": str(timestamp_s),
                "POLY_SIGNATURE": self.signature(f"{method}{path}".encode(), body, timestamp_s).decode()}


def l1_headers(key: Key, timestamp_s: int, nonce: int = 0, chain_id: int = 137) -> dict[str, str]:
    """Headers of POST /auth/api-key and GET /auth/derive-api-key: an EIP-712 ClobAuth signature by the wallet's key."""
    domain = keccak(_CLOB_DOMAIN + keccak(b"ClobAuthDomain") + keccak(b"1") + uint_word(chain_id))
    contents = keccak(_CLOB_AUTH + address_word(key.address) + keccak(str(timestamp_s).encode()) + uint_word(nonce) + _CLOB_MESSAGE)
    return {"POLY_ADDRESS": key.address, "POLY_SIGNATURE": "0x" + key.sign_hex(keccak(b"\x19\x01" + domain + contents)),
            "POLY_TIMESTAMP": str(timestamp_s), "POLY_NONCE": str(nonce)}
