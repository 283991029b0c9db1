"""Signed orders: EIP-712 digest, secp256k1 signature and JSON body of one order, from byte strings laid out in advance.

Owns: the exchange domains (version "2" standard and neg-risk, "3" for position-id markets), the key, the random salts. An
`OrderTemplate` holds everything of an order that does not change between two quotes of one token; `build` fills in the rest.
Read by: the order manager, the pre-signed pool, the command line. One `Key` per thread (its buffers are shared between calls).
Can go wrong: a bad key or a market version nobody knows (`SigningError`), a price off the grid (`AmountError`).

The digest of the order is its id at the venue, for signature type 3 too, so an order can be cancelled before it is acknowledged.
Protocol: venue protocol, EIP-712 order and body of POST /order. Signatures are deterministic (RFC 6979) and low-s.
"""

import os
import random

import msgspec
from coincurve._libsecp256k1 import ffi, lib
from coincurve.context import GLOBAL_CONTEXT
from sha3 import keccak_256

from mmbot.execution.amounts import check_tick, market_amounts, order_amounts
from shm_layout.records import BUY, SELL

ORDER_TYPE = (b"Order(uint256 salt,address maker,address signer,uint256 tokenId,uint256 makerAmount,uint256 takerAmount,"
              b"uint8 side,uint8 signatureType,uint256 timestamp,bytes32 metadata,bytes32 builder)")
NESTED_TYPE = (b"TypedDataSign(Order contents,string name,string version,uint256 chainId,address verifyingContract,bytes32 salt)"
               + ORDER_TYPE)
DOMAIN_TYPE = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
#: (chain id, protocol version of the market, neg-risk) -> (domain version, verifying contract)
EXCHANGES = {
    (137, 1, False): ("2", "0xE111180000d2663C0091e4f400237545B87B996B"),
    (137, 1, True): ("2", "0xe2222d279d744050d28e00520010520000310F59"),
    (137, 2, False): ("3", "0xe3333700cA9d93003F00f0F71f8515005F6c00Aa"),
    (137, 2, True): ("3", "0xe3333700cA9d93003F00f0F71f8515005F6c00Aa"),
    (80002, 1, False): ("2", "0xE111180000d2663C0091e4f400237545B87B996B"),
    (80002, 1, True): ("2", "0xe2222d279d744050d28e00520010520000310F59"),
    (80002, 2, False): ("3", "0x9fE6e61422AdB6F610d8597F9684b16912D50C3D"),
    (80002, 2, True): ("3", "0x9fE6e61422AdB6F610d8597F9684b16912D50C3D"),
}
EOA, PROXY, SAFE, DEPOSIT_WALLET = 0, 1, 2, 3
RESTING = ("GTC", "GTD")
MARKETABLE = ("FAK", "FOK")
SALT_BITS = 53                      # the salt travels as a JSON number
ZERO32 = "0x" + "00" * 32
_VERSIONS = {1: 1, 2: 2, "v1": 1, "v2": 2}


class SigningError(ValueError):
    """A key, market version, chain or order type that cannot be signed for."""


def keccak(data: bytes) -> bytes:
    """Ethereum's keccak-256."""
    return keccak_256(data).digest()


def uint_word(value: int) -> bytes:
    """A uint256 as EIP-712 encodes it."""
    return value.to_bytes(32, "big")


def address_word(address: str) -> bytes:
    """An 0x address as EIP-712 encodes it."""
    return bytes(12) + bytes.fromhex(address[2:])


def checksum_address(raw: bytes) -> str:
    """EIP-55 text of the 20 bytes of an address."""
    text = raw.hex()
    mask = keccak(text.encode()).hex()
    return "0x" + "".join(c.upper() if int(m, 16) > 7 else c for c, m in zip(text, mask, strict=False))


def domain_separator(version: str, contract: str, chain_id: int) -> bytes:
    """EIP-712 domain separator of an exchange contract."""
    return keccak(keccak(DOMAIN_TYPE) + keccak(b"Polymarket CTF Exchange") + keccak(version.encode())
                  + uint_word(chain_id) + address_word(contract))


def exchange_of(version, neg_risk: bool, chain_id: int) -> tuple[str, str]:
    """(domain version, contract) that trades a market. ``version``: the market's protocol version, 1, 2, "v1" or "v2".

    Errors: SigningError for any other version (such a market must be left alone) or an unknown chain.
    """
    known = _VERSIONS.get(version)
    if known is None:
        raise SigningError(f"market protocol version {version!r} is unknown (v1 and v2 are known): not signing for this market")
    try:
        return EXCHANGES[chain_id, known, bool(neg_risk)]
    except KeyError:
        raise SigningError(f"chain id {chain_id} is unknown: venue.chain_id is 137 (Polygon) or 80002 (Amoy)") from None


class Key:
    """A secp256k1 private key with its output buffers laid out in advance. Not for two threads at once."""

    __slots__ = ("_secret", "_ctx", "_sig", "_out", "_rid", "_view", "address")

    def __init__(self, secret: bytes):
        if len(secret) != 32 or not lib.secp256k1_ec_seckey_verify(GLOBAL_CONTEXT.ctx, secret):
            raise SigningError("the private key is not a valid secp256k1 key (32 bytes, not zero, below the group order)")
        self._secret, self._ctx = secret, GLOBAL_CONTEXT.ctx
        self._sig = ffi.new("secp256k1_ecdsa_recoverable_signature *")
        self._out = ffi.new("unsigned char[64]")
        self._rid = ffi.new("int *")
        self._view = ffi.buffer(self._out, 64)
        self.address = checksum_address(keccak(self._public_point())[12:])

    def __repr__(self) -> str:
        return f"Key({self.address})"

    def _public_point(self) -> bytes:
        point, out, size = ffi.new("secp256k1_pubkey *"), ffi.new("unsigned char[65]"), ffi.new("size_t *", 65)
        lib.secp256k1_ec_pubkey_create(self._ctx, point, self._secret)
        lib.secp256k1_ec_pubkey_serialize(self._ctx, out, size, point, lib.SECP256K1_EC_UNCOMPRESSED)
        return bytes(ffi.buffer(out, 65))[1:]

    def sign_hex(self, digest: bytes, _sign=lib.secp256k1_ecdsa_sign_recoverable,
                 _serialize=lib.secp256k1_ecdsa_recoverable_signature_serialize_compact, _null=ffi.NULL) -> str:
        """Signature of a 32-byte digest: 130 hex digits r, s, v with v 27 or 28, without 0x."""
        if not _sign(self._ctx, self._sig, digest, self._secret, _null, _null):
            raise SigningError("libsecp256k1 refused to sign")
        _serialize(self._ctx, self._out, self._rid, self._sig)
        return self._view[:].hex() + ("1c" if self._rid[0] else "1b")


class Salts:
    """Salts of 53 random bits, never zero: seeded once from the operating system, or from ``seed`` in a test."""

    __slots__ = ("_bits",)

    def __init__(self, seed: int | None = None):
        self._bits = random.Random(int.from_bytes(os.urandom(32)) if seed is None else seed).getrandbits

    def __call__(self) -> int:
        """The next salt, 1 to 2^53 - 1."""
        return self._bits(SALT_BITS) or 1


class SignedOrder(msgspec.Struct, gc=False):
    """One order ready to send. ``body`` is one element of a POST /orders array, or all of a POST /order.

    ``size_u6`` is the signed size (floored to two decimals); for a marketable BUY it is the dollars offered.
    ``signed_mono_ns`` is what the caller of `build` gave, for the age limit of pre-signed orders.
    """
    order_id: bytes
    order_id_hex: str
    body: bytes
    token_id: int
    side: int
    px_e4: int
    size_u6: int
    maker_u6: int
    taker_u6: int
    salt: int
    timestamp_ms: int
    signed_mono_ns: int = 0


class OrderTemplate:
    """All that is constant of one (token, side, tick, exchange, flags): `build` signs a price and a size."""

    __slots__ = ("token_id", "side", "tick_e4", "order_type", "post_only", "_key", "_nested", "_domain", "_identity", "_kind", "_tail",
                 "_nested_post", "_trailer", "_text", "separator")

    def __init__(self, signer: "OrderSigner", token_id: int, side: int, tick_e4: int, version=1, neg_risk: bool = False,
                 post_only: bool = True, order_type: str = "GTC"):
        check_tick(tick_e4)
        if side not in (BUY, SELL):
            raise SigningError(f"side {side!r} is neither BUY ({BUY}) nor SELL ({SELL})")
        if order_type not in RESTING + MARKETABLE:
            raise SigningError(f"order type {order_type!r} is none of {', '.join(RESTING + MARKETABLE)}")
        if post_only and order_type in MARKETABLE:
            raise SigningError(f"a {order_type} order cannot be post-only")
        if not 0 <= token_id < 1 << 256:
            raise SigningError(f"token id {token_id} is not a 256-bit number")
        self.token_id, self.side, self.tick_e4, self.order_type, self.post_only = token_id, side, tick_e4, order_type, post_only
        kind = signer.signature_type
        self._key, self._nested = signer.key, kind == DEPOSIT_WALLET
        self.separator = signer.separator(version, neg_risk)
        self._domain = b"\x19\x01" + self.separator
        self._identity = address_word(signer.maker) + address_word(signer.signer) + uint_word(token_id)
        self._kind = uint_word(side) + uint_word(kind)
        self._tail = bytes(64)                                  # metadata and builder code: both zero
        self._nested_post = (keccak(b"DepositWallet") + keccak(b"1") + uint_word(signer.chain_id)
                             + address_word(signer.signer) + bytes(32))
        self._trailer = (ORDER_TYPE + len(ORDER_TYPE).to_bytes(2, "big")).hex()
        # The order of the keys and the absence of blanks are those of the venue's own client.
        self._text = (
            f'{{"order":{{"salt":%d,"maker":"{signer.maker}","signer":"{signer.signer}","tokenId":"{token_id}",'
            f'"makerAmount":"%d","takerAmount":"%d","side":"{("BUY", "SELL")[side]}","expiration":"%d","signatureType":{kind},'
            f'"timestamp":"%d","metadata":"{ZERO32}","builder":"{ZERO32}","signature":"0x%s"}},'
            f'"owner":"{signer.owner}","orderType":"{order_type}","deferExec":false,"postOnly":{"true" if post_only else "false"}}}')

    def sign(self, maker_u6: int, taker_u6: int, timestamp_ms: int, salt: int, _typehash=keccak(ORDER_TYPE),
             _nested_typehash=keccak(NESTED_TYPE), _keccak=keccak_256) -> tuple[bytes, str]:
        """(order id, signature hex without 0x): 130 digits, or 634 for signature type 3 (ERC-7739 wrapping)."""
        contents = _keccak(b"".join((
            _typehash, salt.to_bytes(32, "big"), self._identity, maker_u6.to_bytes(32, "big"), taker_u6.to_bytes(32, "big"),
            self._kind, timestamp_ms.to_bytes(32, "big"), self._tail))).digest()
        order_id = _keccak(self._domain + contents).digest()
        if not self._nested:
            return order_id, self._key.sign_hex(order_id)
        wrapped = _keccak(_nested_typehash + contents + self._nested_post).digest()
        signature = self._key.sign_hex(_keccak(self._domain + wrapped).digest())
        return order_id, signature + self.separator.hex() + contents.hex() + self._trailer

    def build_amounts(self, maker_u6: int, taker_u6: int, px_e4: int, size_u6: int, timestamp_ms: int, salt: int,
                      mono_ns: int = 0, expiration_s: int = 0) -> SignedOrder:
        """A signed order over amounts the caller computed; `build` and `build_market` are the checked ways in.

        ``timestamp_ms``: wall clock, signed. ``expiration_s``: wall clock seconds of a GTD order (travels unsigned), else 0.
        """
        order_id, signature = self.sign(maker_u6, taker_u6, timestamp_ms, salt)
        body = (self._text % (salt, maker_u6, taker_u6, expiration_s, timestamp_ms, signature)).encode()
        return SignedOrder(order_id, "0x" + order_id.hex(), body, self.token_id, self.side, px_e4, size_u6, maker_u6, taker_u6,
                           salt, timestamp_ms, mono_ns)

    def build(self, px_e4: int, size_u6: int, timestamp_ms: int, salt: int, mono_ns: int = 0, expiration_s: int = 0) -> SignedOrder:
        """A signed limit order of ``size_u6`` shares at ``px_e4``. Errors: AmountError; SigningError for an expiration without GTD."""
        if (expiration_s != 0) != (self.order_type == "GTD"):
            raise SigningError(f"expiration {expiration_s} does not go with a {self.order_type} order (a GTD order needs one, others have none)")
        maker_u6, taker_u6 = order_amounts(self.side, px_e4, size_u6, self.tick_e4)
        return self.build_amounts(maker_u6, taker_u6, px_e4, maker_u6 if self.side else taker_u6, timestamp_ms, salt, mono_ns,
                                  expiration_s)

    def build_market(self, px_e4: int, amount_u6: int, timestamp_ms: int, salt: int, mono_ns: int = 0) -> SignedOrder:
        """A signed FAK or FOK order: BUY for ``amount_u6`` dollars, SELL of ``amount_u6`` shares, at ``px_e4`` or better."""
        maker_u6, taker_u6 = market_amounts(self.side, px_e4, amount_u6, self.tick_e4)
        return self.build_amounts(maker_u6, taker_u6, px_e4, maker_u6, timestamp_ms, salt, mono_ns)


class OrderSigner:
    """One account on one chain: makes templates. ``maker`` holds the money, ``signer`` signs (the wallet itself for type 3)."""

    def __init__(self, credentials, chain_id: int = 137):
        self.key = Key(credentials.private_key)
        self.address = self.key.address
        self.chain_id = chain_id
        self.signature_type = credentials.signature_type
        self.maker = credentials.funder
        self.signer = credentials.funder if credentials.signature_type == DEPOSIT_WALLET else self.address
        self.owner = credentials.api_key
        self._separators: dict[tuple[str, str], bytes] = {}

    def separator(self, version, neg_risk: bool) -> bytes:
        """Domain separator of the exchange that trades markets of this version. Errors: SigningError."""
        exchange = exchange_of(version, neg_risk, self.chain_id)
        if exchange not in self._separators:
            self._separators[exchange] = domain_separator(*exchange, self.chain_id)
        return self._separators[exchange]

    def template(self, token_id: int, side: int, tick_e4: int, version=1, neg_risk: bool = False, post_only: bool = True,
                 order_type: str = "GTC") -> OrderTemplate:
        """Template of one token and side. ``token_id``: CTF token id, or position id of a v2 market. ``version``: the
        market's protocol version (1, 2, "v1", "v2"). Errors: SigningError, AmountError (unknown tick)."""
        return OrderTemplate(self, token_id, side, tick_e4, version, neg_risk, post_only, order_type)
