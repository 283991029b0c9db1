"""Order bodies as they arrive: decoding, the EIP-712 digest (which is the order id), and who signed.

Owns: the exchange's own implementation of order hashing for domain versions "2" (standard and neg-risk) and "3", signature types 0 to
2 (65 bytes) and 3 (a deposit wallet's 317-byte nested signature). Shared with nothing that signs.
What can go wrong: a malformed body, a foreign domain, a wrong signer: `OrderError` with the venue's text.

Source: venue protocol, EIP-712 order, body of POST /order.
"""

import msgspec

from mmbot.sim.auth import Credentials, address_word, keccak, recover, word
from mmbot.sim.engine import MarketSpec, NewOrder
from shm_layout.records import BUY, SELL

E_PAYLOAD = "Invalid order payload"
E_VERSION = "order_version_mismatch"
E_OWNER = "the order owner has to be the owner of the API KEY"
E_SIGNER = "the order signer address has to be the address of the API KEY"
E_MAKER = "maker address not allowed, please use the deposit wallet flow"
MAX_BATCH = 15

ORDER_TYPE = (b"Order(uint256 salt,address maker,address signer,uint256 tokenId,uint256 makerAmount,uint256 takerAmount,uint8 side,"
              b"uint8 signatureType,uint256 timestamp,bytes32 metadata,bytes32 builder)")
_ORDER_HASH = keccak(ORDER_TYPE)
_NESTED_HASH = keccak(b"TypedDataSign(Order contents,string name,string version,uint256 chainId,address verifyingContract,bytes32 salt)"
                      + ORDER_TYPE)
_DOMAIN_HASH = keccak(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
_TRAILER = ORDER_TYPE + len(ORDER_TYPE).to_bytes(2, "big")
EXCHANGE_V2 = "0xE111180000d2663C0091e4f400237545B87B996B"
EXCHANGE_V2_NEG_RISK = "0xe2222d279d744050d28e00520010520000310F59"
EXCHANGE_V3 = "0xe3333700cA9d93003F00f0F71f8515005F6c00Aa"


class OrderError(Exception):
    """HTTP 400 with the venue's text."""


class SignedFields(msgspec.Struct, rename="camel"):
    """The inner object of a POST body."""
    salt: int
    maker: str
    signer: str
    token_id: str
    maker_amount: str
    taker_amount: str
    side: str
    expiration: str
    signature_type: int
    timestamp: str
    metadata: str
    builder: str
    signature: str


class Body(msgspec.Struct, rename="camel"):
    """One object of POST /order or of the array of POST /orders."""
    order: SignedFields
    owner: str
    order_type: str
    defer_exec: bool = False
    post_only: bool = False


_one = msgspec.json.Decoder(Body)
_many = msgspec.json.Decoder(list[Body])


def decode_one(body: bytes) -> Body:
    """Body of POST /order. Errors: OrderError."""
    try:
        return _one.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise OrderError(E_PAYLOAD) from None


def decode_many(body: bytes) -> list[Body]:
    """Body of POST /orders, 1 to 15 objects. Errors: OrderError."""
    try:
        orders = _many.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise OrderError(E_PAYLOAD) from None
    if not orders:
        raise OrderError(E_PAYLOAD)
    if len(orders) > MAX_BATCH:
        raise OrderError(f"Too many orders in payload: {len(orders)}, max allowed: {MAX_BATCH}")
    return orders


def domain_separator(version: str, contract: str, chain_id: int) -> bytes:
    """Domain separator of an exchange contract."""
    return keccak(_DOMAIN_HASH + keccak(b"Polymarket CTF Exchange") + keccak(version.encode()) + word(chain_id) + address_word(contract))


def struct_hash(o: SignedFields) -> bytes:
    """Hash of the signed fields. Errors: ValueError, OverflowError."""
    return keccak(b"".join((
        _ORDER_HASH, word(o.salt), address_word(o.maker), address_word(o.signer), word(int(o.token_id)), word(int(o.maker_amount)),
        word(int(o.taker_amount)), word(("BUY", "SELL").index(o.side)), word(o.signature_type), word(int(o.timestamp)),
        _bytes32(o.metadata), _bytes32(o.builder))))


def _bytes32(text: str) -> bytes:
    raw = bytes.fromhex(text.removeprefix("0x"))
    if len(raw) != 32:
        raise ValueError("not 32 bytes")
    return raw


class Domains:
    """The three domain separators of a chain, and what a signature under one of them means."""

    def __init__(self, chain_id: int):
        self.chain_id = chain_id
        self.v2 = domain_separator("2", EXCHANGE_V2, chain_id)
        self.v2_neg_risk = domain_separator("2", EXCHANGE_V2_NEG_RISK, chain_id)
        self.v3 = domain_separator("3", EXCHANGE_V3, chain_id)

    def of(self, spec: MarketSpec) -> bytes:
        """The domain a market's orders must be signed under."""
        if spec.version == "v2":
            return self.v3
        return self.v2_neg_risk if spec.neg_risk else self.v2

    def nested_digest(self, domain: bytes, contents: bytes, wallet: str) -> bytes:
        """What the owner of a deposit wallet signs: the order nested into the wallet's own domain."""
        return keccak(b"\x19\x01" + domain + keccak(b"".join((
            _NESTED_HASH, contents, keccak(b"DepositWallet"), keccak(b"1"), word(self.chain_id), address_word(wallet), bytes(32)))))

    def signer(self, o: SignedFields, domain: bytes, contents: bytes, digest: bytes) -> str:
        """Address whose key signed the order under ``domain``. Errors: ValueError (also for a foreign trailer)."""
        signature = bytes.fromhex(o.signature.removeprefix("0x"))
        if o.signature_type != 3:
            return recover(digest, signature)
        if signature[65:] != domain + contents + _TRAILER:
            raise ValueError("trailer of another order or domain")
        return recover(self.nested_digest(domain, contents, o.signer), signature[:65])


def check(body: Body, who: Credentials, spec: MarketSpec, domains: Domains, wallets: dict[str, str]) -> NewOrder:
    """A body whose identity holds, as an order for the engine.

    ``wallets``: funder address -> EOA it belongs to, filled on first use (on chain a wallet's address follows from its owner's).
    Errors: OrderError with the venue's text.
    """
    o = body.order
    if body.owner != who.api_key:
        raise OrderError(E_OWNER)
    try:
        contents, domain = struct_hash(o), domains.of(spec)
        digest = keccak(b"\x19\x01" + domain + contents)
        maker_u6, taker_u6, expiration_s = int(o.maker_amount), int(o.taker_amount), int(o.expiration)
    except (ValueError, OverflowError):
        raise OrderError(E_PAYLOAD) from None
    if o.signature_type not in (0, 1, 2, 3) or not 0 <= o.salt < 1 << 53:
        raise OrderError(E_PAYLOAD)
    try:
        signer = domains.signer(o, domain, contents, digest)
    except ValueError:
        raise OrderError(E_VERSION if _signed_elsewhere(o, domains, domain, contents, who) else E_SIGNER) from None
    if signer != who.address:
        raise OrderError(E_VERSION if _signed_elsewhere(o, domains, domain, contents, who) else E_SIGNER)
    named = o.maker if o.signature_type == 3 else who.address
    if o.signer.lower() != named.lower():
        raise OrderError(E_SIGNER)
    if o.signature_type == 0 and o.maker.lower() != who.address.lower():
        raise OrderError(E_MAKER)
    if wallets.setdefault(o.maker.lower(), who.address) != who.address:
        raise OrderError(E_MAKER)
    return NewOrder(order_id="0x" + digest.hex(), address=o.maker, owner=body.owner, token=o.token_id, side=BUY if o.side == "BUY" else SELL,
                    maker_u6=maker_u6, taker_u6=taker_u6, order_type=body.order_type, post_only=body.post_only, expiration_s=expiration_s)


def _signed_elsewhere(o: SignedFields, domains: Domains, domain: bytes, contents: bytes, who: Credentials) -> bool:
    """Is this a good signature under another of the venue's domains?"""
    for other in (domains.v2, domains.v2_neg_risk, domains.v3):
        if other != domain:
            try:
                if domains.signer(o, other, contents, keccak(b"\x19\x01" + other + contents)) == who.address:
                    return True
            except ValueError:
                continue
    return False
