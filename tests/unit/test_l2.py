"""Request authentication: published vectors, and the official clients on random requests."""

import random
import string

import pytest
from py_clob_client_v2.signer import Signer
from py_clob_client_v2.signing.eip712 import sign_clob_auth_message
from py_clob_client_v2.signing.hmac import build_hmac_signature

from mmbot.execution.credentials import checked
from mmbot.execution.l2 import L2Auth, l1_headers
from mmbot.execution.signing import Key

KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
SECRET = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
ADDRESS = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"


def auth(secret=SECRET):
    return L2Auth(checked(KEY, 0, "", "7d1c2f0e-5b1a-4c0e-9a5f-1f2e3d4c5b6a", secret, "9f0c2d"))


@pytest.mark.parametrize("method, path, body, expected", [
    ("GET", "/data/orders", b"", b"uCeD2OswbCleoOPXZhUAuB0EfukoMNy7-Ahxwe0O0zA="),
    ("DELETE", "/order", b'{"orderID":"0xabc"}', b"C9kzCHx2NUGbb844GtFFxb0qCGqh_9Qg3-q9xd4B0gQ="),
])
def test_l2_vectors(method, path, body, expected):
    lines = auth().headers_for(method, path, body, 1793000000)
    assert lines == (b"POLY_ADDRESS: %b\r\nPOLY_API_KEY: 7d1c2f0e-5b1a-4c0e-9a5f-1f2e3d4c5b6a\r\nPOLY_PASSPHRASE: 9f0c2d\r\n"
                     b"POLY_TIMESTAMP: 1793000000\r\nPOLY_SIGNATURE: %b\r\n" % (ADDRESS.encode(), expected))
    as_dict = auth().header_dict(method, path, body, 1793000000)
    assert "".join(f"{k}: {v}\r\n" for k, v in as_dict.items()).encode() == lines


@pytest.mark.parametrize("secret", [SECRET, "QUJD", "A" * 88, "A" * 172, SECRET.rstrip("=")], ids=len)
def test_l2_equals_the_official_client(secret):
    rng, mine = random.Random(len(secret)), auth(secret)
    padded = secret + "=" * (-len(secret) % 4)
    for _ in range(50):
        body = "".join(rng.choices(string.ascii_letters + string.digits + '{}":,', k=rng.randrange(2000)))
        t = rng.randrange(1_600_000_000, 2_000_000_000)
        assert mine.signature(b"POST/orders", body.encode(), t).decode() == build_hmac_signature(padded, t, "POST", "/orders", body)


def test_l2_state_is_not_used_up():
    a = auth()
    assert a.signature(b"GET/x", b"", 1) == a.signature(b"GET/x", b"", 1) != a.signature(b"GET/x", b"", 2)


def test_l1_vector():
    headers = l1_headers(Key(bytes.fromhex(KEY[2:])), 1793000000)
    assert headers == {
        "POLY_ADDRESS": ADDRESS, "POLY_TIMESTAMP": "1793000000", "POLY_NONCE": "0",
        "POLY_SIGNATURE": "0x716192a957593ecc3dfc7c1fb9af5a9b176724e0180782830360072755d91d5b"
                          "1c7cf683f5c0665c17fc9ea805d260d661e1f5d2a553f9409806683e8abcaeec1c"}


@pytest.mark.parametrize("chain_id, nonce, t", [(137, 0, 1), (137, 7, 1793000001), (80002, 3, 1793000002)])
def test_l1_equals_the_official_client(chain_id, nonce, t):
    theirs = sign_clob_auth_message(Signer(KEY, chain_id), t, nonce)
    assert l1_headers(Key(bytes.fromhex(KEY[2:])), t, nonce, chain_id)["POLY_SIGNATURE"] == theirs
