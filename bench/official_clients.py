"""The venue's three official Python clients, each reduced to the code that makes one signed order, its JSON and its L2 headers.

No client here touches the network: the pieces are called the way each client's own `create_order` and `post_orders` call them.
Used by bench/signing.py (speed) and by the parity tests (bytes). Needs the test dependencies.
"""

import json
import random
from dataclasses import dataclass
from decimal import Decimal
from types import SimpleNamespace

from eth_account import Account
from polymarket._internal.actions.orders import limit as u_limit
from polymarket._internal.actions.orders import market as u_market
from polymarket._internal.actions.orders import orders as u_orders
from polymarket._internal.actions.orders import post as u_post
from polymarket._internal.actions.orders import typed_data as u_typed
from polymarket._internal.hmac import build_hmac_signature as u_hmac
from polymarket.environments import PRODUCTION
from py_clob_client import clob_types as v1_types
from py_clob_client.headers.headers import create_level_2_headers as v1_headers
from py_clob_client.order_builder.builder import OrderBuilder as V1Builder
from py_clob_client.signer import Signer as V1Signer
from py_clob_client.utilities import order_to_json as v1_json
from py_clob_client_v2 import clob_types as v2_types
from py_clob_client_v2.headers.headers import create_level_2_headers as v2_headers
from py_clob_client_v2.order_builder.builder import OrderBuilder as V2Builder
from py_clob_client_v2.order_utils import SignatureTypeV2
from py_clob_client_v2.order_utils.model.order_data_v2 import order_to_json_v2
from py_clob_client_v2.signer import Signer as V2Signer

from mmbot.execution.amounts import TICKS, price_text
from mmbot.execution.credentials import checked

SIDES = ("BUY", "SELL")
WALLETS = ("EOA", "POLY_PROXY", "GNOSIS_SAFE", "DEPOSIT_WALLET")
WALLET = "0x1111111111111111111111111111111111111111"
SECRET = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


@dataclass
class Case:
    """One order to be made by everybody."""
    key: str
    signature_type: int
    funder: str
    version: int            # the market's protocol version: 1 or 2
    neg_risk: bool
    chain_id: int
    token_id: int
    side: int
    tick_e4: int
    px_e4: int
    size_u6: int
    post_only: bool

    def credentials(self):
        """mmbot's credentials of this case."""
        return checked(self.key, self.signature_type, "" if self.signature_type == 0 else self.funder,
                       "7d1c2f0e-5b1a-4c0e-9a5f-1f2e3d4c5b6a", SECRET, "9f0c2d")


def random_case(rng: random.Random, chain_id: int = 137) -> Case:
    """A random order over all signature types, exchanges, ticks and flags."""
    version = rng.choice((1, 1, 2))
    token_id = rng.getrandbits(256)
    if version == 2:        # a position id: one of three modules on top, 64 reserved zero bits, the outcome in the last byte
        token_id = rng.choice((1, 2, 3)) << 248 | rng.getrandbits(144) << 104 | rng.getrandbits(32) << 8 | rng.getrandbits(1)
    signature_type = rng.randrange(4)
    key = f"{rng.randrange(1, 1 << 255):064x}"
    address = Account.from_key(key).address
    funder = address if signature_type == 0 else Account.from_key(f"{rng.randrange(1, 1 << 255):064x}").address
    tick_e4 = rng.choice(tuple(TICKS))
    return Case(key, signature_type, funder, version, version == 1 and rng.random() < 0.4, chain_id, token_id, rng.randrange(2), tick_e4,
                rng.randrange(1, 10_000 // tick_e4) * tick_e4, rng.randrange(1, 100_000) * 10_000, rng.random() < 0.5)


def _creds(types):
    return types.ApiCreds(api_key="7d1c2f0e-5b1a-4c0e-9a5f-1f2e3d4c5b6a", api_secret=SECRET, api_passphrase="9f0c2d")


class ClientV2:
    """py-clob-client-v2."""
    name = "py-clob-client-v2 1.2.1"

    def __init__(self, case: Case):
        self.signer = V2Signer("0x" + case.key.removeprefix("0x"), case.chain_id)
        self.builder = V2Builder(self.signer, SignatureTypeV2(case.signature_type), case.funder)
        self.creds = _creds(v2_types)

    def order(self, case: Case):
        """The signed order object."""
        token = {"token_id": None, "position_id": str(case.token_id)} if case.version == 2 else {"token_id": str(case.token_id)}
        args = v2_types.OrderArgsV2(price=case.px_e4 / 1e4, size=case.size_u6 / 1e6, side=SIDES[case.side], **token)
        options = v2_types.CreateOrderOptions(tick_size=price_text(case.tick_e4), neg_risk=case.neg_risk)
        return self.builder.build_order(args, options, version=2)

    def body(self, order, case: Case) -> str:
        """The order's element of a POST /orders array."""
        return json.dumps(order_to_json_v2(order, self.creds.api_key, "GTC", case.post_only), separators=(",", ":"), ensure_ascii=False)

    def full(self, case: Case):
        """Build, sign, serialise, authenticate: all that stands between a decision and the HTTP library."""
        body = f"[{self.body(self.order(case), case)}]"
        request = v2_types.RequestArgs(method="POST", request_path="/orders", body=body, serialized_body=body)
        return body, v2_headers(self.signer, self.creds, request)


class ClientV1:
    """py-clob-client. Its orders are no longer accepted; it is what most published bots use."""
    name = "py-clob-client 0.34.6"

    def __init__(self, case: Case):
        self.signer = V1Signer("0x" + case.key.removeprefix("0x"), case.chain_id)
        self.builder = V1Builder(self.signer, case.signature_type, case.funder)
        self.creds = _creds(v1_types)

    def full(self, case: Case):
        """As ClientV2.full."""
        args = v1_types.OrderArgs(token_id=str(case.token_id), price=case.px_e4 / 1e4, size=case.size_u6 / 1e6, side=SIDES[case.side])
        order = self.builder.create_order(args, v1_types.CreateOrderOptions(tick_size=price_text(case.tick_e4), neg_risk=False))
        body = json.dumps([v1_json(order, self.creds.api_key, "GTC", case.post_only)], separators=(",", ":"), ensure_ascii=False)
        request = v1_types.RequestArgs(method="POST", request_path="/orders", body=body, serialized_body=body)
        return body, v1_headers(self.signer, self.creds, request)


class ClientUnified:
    """polymarket-client (Polygon only)."""
    name = "polymarket-client 0.14.0"

    def __init__(self, case: Case):
        self.account = Account.from_key(case.key)
        self.wallet_type = WALLETS[case.signature_type]
        self.ctx = SimpleNamespace(environment_config=PRODUCTION._config, wallet=case.funder, signer=self.account)

    def order(self, case: Case):
        """The signed order object."""
        tick = Decimal(case.tick_e4) / 10_000
        params = u_limit.validate_limit_order_params(asset_id=str(case.token_id), price=Decimal(case.px_e4) / 10_000,
                                                     size=Decimal(case.size_u6) / 1_000_000, side=SIDES[case.side],
                                                     post_only=case.post_only)
        price = u_limit.validate_price_on_tick_grid(params.price, tick, "price")
        draft = u_limit._build_limit_order_draft(self.ctx, params, price=price,
                                                 metadata=SimpleNamespace(tick_size=tick, neg_risk=case.neg_risk))
        unsigned = u_orders.create_unsigned_order(draft, wallet=self.ctx.wallet, wallet_type=self.wallet_type)
        signed = self.account.sign_typed_data(full_message=u_typed.build_order_typed_data(unsigned))
        raw = signed.signature.hex()
        signature = u_typed.build_order_signature(unsigned, raw if raw.startswith("0x") else "0x" + raw)
        return u_orders.create_signed_order(unsigned, signature, post_only=case.post_only)

    def full(self, case: Case):
        """As ClientV2.full."""
        _, payload = u_post.build_post_orders_request([self.order(case)], owner_api_key="7d1c2f0e-5b1a-4c0e-9a5f-1f2e3d4c5b6a")
        body = json.dumps(payload, separators=(",", ":"))
        return body, u_hmac(secret=SECRET, timestamp=1793000000, method="POST", path="/orders", body=body)


def unified_limit_amounts(side: int, px_e4: int, size_u6: int, tick_e4: int) -> tuple[int, int]:
    """polymarket-client's Decimal arithmetic for a limit order."""
    return u_limit._compute_limit_order_amounts(price=Decimal(px_e4) / 10_000, size=Decimal(size_u6) / 1_000_000, side=SIDES[side],
                                                tick_size=Decimal(tick_e4) / 10_000)


def unified_market_amounts(side: int, px_e4: int, amount_u6: int, tick_e4: int) -> tuple[int, int]:
    """polymarket-client's Decimal arithmetic for a market order."""
    return u_market._compute_market_order_amounts(amount=Decimal(amount_u6) / 1_000_000, price=Decimal(px_e4) / 10_000, side=SIDES[side],
                                                  tick_size=Decimal(tick_e4) / 10_000)


def v2_amounts(side: int, px_e4: int, size_u6: int, tick_e4: int, market: bool = False) -> tuple[int, int]:
    """py-clob-client-v2's float arithmetic."""
    from py_clob_client_v2.order_builder.builder import ROUNDING_CONFIG
    builder = V2Builder(None, funder=WALLET)
    compute = builder.get_market_order_amounts if market else builder.get_order_amounts
    return compute(SIDES[side], size_u6 / 1e6, px_e4 / 1e4, ROUNDING_CONFIG[price_text(tick_e4)])[1:]
