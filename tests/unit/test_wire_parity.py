"""Our order bytes against the official clients: byte for byte with one, equal in meaning with the other."""

import json
import os
import random
import sys
from pathlib import Path

import pytest

from mmbot.execution.signing import OrderSigner

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
from official_clients import ClientUnified, ClientV2, random_case  # noqa: E402

ORDERS = int(os.environ.get("MMBOT_PARITY_ORDERS", "300"))


def ours(case, salt, timestamp_ms):
    template = OrderSigner(case.credentials(), case.chain_id).template(case.token_id, case.side, case.tick_e4, case.version,
                                                                       case.neg_risk, case.post_only)
    return template, template.build(case.px_e4, case.size_u6, timestamp_ms, salt)


@pytest.mark.parametrize("chain_id", [137, 80002])
def test_bytes_equal_those_of_the_v2_client(chain_id):
    rng, short = random.Random(chain_id), 0
    for _ in range(ORDERS if chain_id == 137 else ORDERS // 6):
        case = random_case(rng, chain_id)
        client = ClientV2(case)
        official = client.order(case)
        template, order = ours(case, int(official.salt), int(official.timestamp))
        amounts = int(official.makerAmount), int(official.takerAmount)
        if amounts != (order.maker_u6, order.taker_u6):     # the client's float arithmetic lost a hundredth of a share
            short += 1
            assert abs(max(amounts) - max(order.maker_u6, order.taker_u6)) <= 10_000
            order = template.build_amounts(*amounts, case.px_e4, case.size_u6, int(official.timestamp), int(official.salt))
        assert order.body.decode() == client.body(official, case)
    assert short < ORDERS / 5


def test_meaning_equals_that_of_the_unified_client():
    rng = random.Random(2)
    for _ in range(ORDERS):
        case = random_case(rng)
        official = ClientUnified(case).order(case)
        _, order = ours(case, official.salt, official.timestamp)
        theirs = official_payload(official)
        if not case.post_only:
            theirs["postOnly"] = False          # that client leaves the key out when it is false
        assert json.loads(order.body) == theirs


def official_payload(official):
    from polymarket._internal.actions.orders.post import build_post_orders_request
    return build_post_orders_request([official], owner_api_key="7d1c2f0e-5b1a-4c0e-9a5f-1f2e3d4c5b6a")[1][0]


def test_a_changed_amount_is_not_equal():
    """The comparison can fail: one unit more in an amount changes signature and body."""
    case = random_case(random.Random(3))
    official = ClientV2(case).order(case)
    template, _ = ours(case, 1, 1)
    mutant = template.build_amounts(int(official.makerAmount) + 1, int(official.takerAmount), case.px_e4, case.size_u6,
                                    int(official.timestamp), int(official.salt))
    body = json.loads(mutant.body)["order"]
    assert body["signature"] != official.signature
    assert body["makerAmount"] != official.makerAmount
