"""Order signatures: published vectors of every exchange domain, the nested signature of deposit wallets, keys, salts, refusals."""

import json
import random

import pytest
from coincurve import PublicKey

from mmbot.execution.amounts import AmountError
from mmbot.execution.credentials import checked
from mmbot.execution.signing import (
    EXCHANGES,
    NESTED_TYPE,
    ORDER_TYPE,
    Key,
    OrderSigner,
    Salts,
    SigningError,
    checksum_address,
    keccak,
)
from shm_layout.records import BUY, SELL

KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
ADDRESS = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
WALLET = "0x1111111111111111111111111111111111111111"
TOKEN = 21742633143463906290569050155826241533067272736897614950488156847949938836455
OWNER = "11111111-2222-3333-4444-555555555555"
SALT, TIMESTAMP_MS = 123456789012345, 1793000000123


def signer(signature_type=0, funder="", chain_id=137):
    return OrderSigner(checked(KEY, signature_type, funder, OWNER, "AAEC", "9f0c2d"), chain_id)


def signature_of(order):
    return json.loads(order.body)["order"]["signature"]


@pytest.mark.parametrize("version, neg_risk, separator, order_id, signature", [
    (1, False, "3264e159346253e26a64e00b69032db0e7d32f94628de3e6eecb50304d7af3d2",
     "0xd747fe7dc831e468af542ea7ff50d43d1064b8ead50d8c9745977f562db5d92f",
     "0xb9310a31a6fa7dbc67557dbe8c1e2f44060de523464f7702e6030b60eefe0215001f776eff497417046769452b5ee085a620daaf47b1e07aa306927d268749361b"),
    ("v1", True, "9b858f53327b0bd13af8ec14cfb35234fb9eb7b0504d1a4e61f433840d30e81a",
     "0x6309b85b7faa7e057a41aa33e3bde0f5b898ef9a76e97d26f2a7f306c9abc498",
     "0x58a4cdaf98799d15ed6fc4621def84a588fd5d5abb1d17bf38508ba1daf427ee0780a98bc335b46be98c05732827558d0f34d0e5d68e3067e5dad4e56436eaac1b"),
    (2, False, "466c63910185bbd55e8679264200c4e0abdcbb0c6264eb3d41d13326022e095b",
     "0xa95230326e8db73330811ead81fe158f086580430666dc0f666c81042d69486e",
     "0xa09432dc47a67d37853d66537ee7c8946ba96cfd24006d6a8c0a5590158220ef4b088ed104e49fc973e284c4df4105e9489a1bad4af917bf9ea02dc8b00a928b1c"),
])
def test_vectors_of_the_three_domains(version, neg_risk, separator, order_id, signature):
    template = signer().template(TOKEN, BUY, 100, version, neg_risk)
    order = template.build(5200, 5_000_000, TIMESTAMP_MS, SALT, mono_ns=77)
    assert template.separator.hex() == separator
    assert order.order_id_hex == order_id == "0x" + order.order_id.hex()
    assert signature_of(order) == signature
    assert (order.maker_u6, order.taker_u6, order.px_e4, order.size_u6, order.signed_mono_ns) == (2600000, 5000000, 5200, 5000000, 77)


def test_the_body_is_the_published_example():
    order = signer().template(TOKEN, BUY, 100).build(5200, 5_000_000, TIMESTAMP_MS, SALT)
    zero = "0x" + "0" * 64
    assert order.body.decode() == (
        f'{{"order":{{"salt":123456789012345,"maker":"{ADDRESS}","signer":"{ADDRESS}","tokenId":"{TOKEN}","makerAmount":"2600000",'
        f'"takerAmount":"5000000","side":"BUY","expiration":"0","signatureType":0,"timestamp":"1793000000123","metadata":"{zero}",'
        f'"builder":"{zero}","signature":"{signature_of(order)}"}},"owner":"{OWNER}","orderType":"GTC","deferExec":false,"postOnly":true}}')


def test_deposit_wallet_vector():
    order = signer(3, WALLET).template(TOKEN, BUY, 100).build(5200, 5_000_000, TIMESTAMP_MS, SALT)
    signature, fields = signature_of(order), json.loads(order.body)["order"]
    assert order.order_id_hex == "0xa35bf312962278d344a35276872667ff2fe1621d6e4f746e592cec93afd70c6a"
    assert signature.startswith("0xb33fae82fa74b4d49abd513cf05ce5d436f5de01b9ee7698ae0870ff46a91719")
    assert signature.endswith("6275696c6465722900ba")
    assert len(signature) == 636
    assert fields["maker"] == fields["signer"] == WALLET


def test_type_strings_hash_to_the_published_type_hashes():
    assert keccak(ORDER_TYPE).hex() == "bb86318a2138f5fa8ae32fbe8e659f8fcf13cc6ae4014a707893055433818589"
    assert keccak(NESTED_TYPE).hex() == "6ba028565cb324c2aa02bb714b9816d0bddd557a2f33bb36cf13272a4256bd42"


@pytest.mark.parametrize("signature_type", [1, 2])
def test_proxy_and_safe_sign_with_the_key_for_the_wallet(signature_type):
    order = signer(signature_type, WALLET).template(TOKEN, SELL, 10).build(5210, 7_770_000, TIMESTAMP_MS, SALT)
    fields = json.loads(order.body)["order"]
    assert (fields["maker"], fields["signer"], fields["signatureType"], fields["side"]) == (WALLET, ADDRESS, signature_type, "SELL")
    assert len(fields["signature"]) == 132


@pytest.mark.parametrize("chain_id", [137, 80002])
@pytest.mark.parametrize("neg_risk", [False, True])
@pytest.mark.parametrize("version", [1, 2])
def test_the_signature_recovers_to_the_key_for_every_exchange(chain_id, neg_risk, version):
    template = signer(chain_id=chain_id).template(TOKEN, BUY, 1, version, neg_risk)
    order = template.build(1234, 12_340_000, TIMESTAMP_MS, SALT)
    raw = bytes.fromhex(signature_of(order)[2:])
    point = PublicKey.from_signature_and_message(raw[:64] + bytes([raw[64] - 27]), order.order_id, hasher=None).format(compressed=False)
    assert checksum_address(keccak(point[1:])[12:]) == ADDRESS
    assert int.from_bytes(raw[32:64]) <= 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0, "low s"


def test_every_exchange_has_its_own_digest():
    ids = {signer(chain_id=c).template(TOKEN, BUY, 1, v, n).build(1234, 12_340_000, 1, 1).order_id for c, v, n in EXCHANGES}
    assert len(ids) == 6, "neg-risk makes no difference for position-id markets, everything else does"


@pytest.mark.parametrize("field, change", [
    ("price", dict(px_e4=5300)), ("size", dict(size_u6=6_000_000)), ("timestamp", dict(timestamp_ms=TIMESTAMP_MS + 1)),
    ("salt", dict(salt=SALT + 1))])
def test_each_signed_field_changes_the_id(field, change):
    template = signer().template(TOKEN, BUY, 100)
    base = dict(px_e4=5200, size_u6=5_000_000, timestamp_ms=TIMESTAMP_MS, salt=SALT)
    assert template.build(**base).order_id != template.build(**{**base, **change}).order_id, field


def test_unsigned_fields_do_not_change_the_id():
    args = (5200, 5_000_000, TIMESTAMP_MS, SALT)
    plain = signer().template(TOKEN, BUY, 100).build(*args)
    dated = signer().template(TOKEN, BUY, 100, post_only=False, order_type="GTD").build(*args, expiration_s=1793001000)
    assert plain.order_id == dated.order_id
    assert (json.loads(dated.body)["order"]["expiration"], json.loads(dated.body)["orderType"], json.loads(dated.body)["postOnly"]) == (
        "1793001000", "GTD", False)


def test_market_orders():
    template = signer().template(TOKEN, BUY, 10, post_only=False, order_type="FAK")
    order = template.build_market(9610, 4_990_000, TIMESTAMP_MS, SALT)
    fields = json.loads(order.body)
    assert (fields["order"]["makerAmount"], fields["order"]["takerAmount"], fields["orderType"]) == ("4990000", "5192500", "FAK")


def test_size_is_reported_as_signed():
    assert signer().template(TOKEN, BUY, 100).build(5200, 5_019_999, 1, 1).size_u6 == 5_010_000
    assert signer().template(TOKEN, SELL, 100).build(5200, 5_019_999, 1, 1).size_u6 == 5_010_000


@pytest.mark.parametrize("call, text", [
    (lambda: signer().template(TOKEN, BUY, 100, version="v3"), "market protocol version 'v3' is unknown"),
    (lambda: signer().template(TOKEN, BUY, 100, version=0), "market protocol version 0 is unknown"),
    (lambda: signer(chain_id=1).template(TOKEN, BUY, 100), "chain id 1 is unknown"),
    (lambda: signer().template(TOKEN, 2, 100), "side 2"),
    (lambda: signer().template(TOKEN, BUY, 100, order_type="IOC"), "order type 'IOC'"),
    (lambda: signer().template(TOKEN, BUY, 100, order_type="FOK"), "cannot be post-only"),
    (lambda: signer().template(1 << 256, BUY, 100), "not a 256-bit number"),
    (lambda: signer().template(-1, BUY, 100), "not a 256-bit number"),
    (lambda: signer().template(TOKEN, BUY, 100).build(5200, 5_000_000, 1, 1, expiration_s=9), "does not go with a GTC order"),
    (lambda: signer().template(TOKEN, BUY, 100, order_type="GTD").build(5200, 5_000_000, 1, 1), "does not go with a GTD order"),
    (lambda: Key(bytes(32)), "not a valid secp256k1 key"),
    (lambda: Key(b"\xff" * 32), "not a valid secp256k1 key"),
    (lambda: Key(b"\x01" * 31), "not a valid secp256k1 key"),
])
def test_refusals(call, text):
    with pytest.raises(SigningError) as e:
        call()
    assert text in str(e.value)


def test_unknown_tick_is_refused_when_the_template_is_made():
    with pytest.raises(AmountError):
        signer().template(TOKEN, BUY, 7)


def test_secrets_do_not_print():
    assert KEY[2:10] not in repr(signer().key) + repr(checked(KEY, 0, "", OWNER, "c2VjcmV0", "pass-phrase"))
    assert "c2VjcmV0" not in repr(checked(KEY, 0, "", OWNER, "c2VjcmV0", "pass-phrase"))


def test_salts_fit_a_json_number_and_differ():
    salts = Salts()
    drawn = [salts() for _ in range(2000)]
    assert len(set(drawn)) == 2000
    assert all(0 < s < 2**53 for s in drawn)
    assert max(drawn) > 2**52
    assert [Salts(5)() for _ in range(3)] == [Salts(5)()] * 3
    assert Salts()() != Salts()()


def test_salt_is_never_zero():
    salts = Salts(1)
    salts._bits = lambda n: 0
    assert salts() == 1


def test_a_key_gives_the_same_signature_whatever_it_signed_before():
    rng, key = random.Random(1), Key(bytes.fromhex(KEY[2:]))
    digests = [rng.randbytes(32) for _ in range(50)]
    first = [key.sign_hex(d) for d in digests]
    assert [key.sign_hex(d) for d in reversed(digests)] == first[::-1]
    assert {s[-2:] for s in first} == {"1b", "1c"}
