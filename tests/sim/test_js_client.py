"""The official JavaScript client from npm, unmodified, through one full session against the running exchange.

Skipped with the reason when node or the package is missing (`make strangers` installs it).
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from exchange_world import CID, DOWN_TOKEN, UP_TOKEN, World

from shm_layout.records import BUY, SELL

HERE = Path(__file__).resolve().parents[1] / "js"
RIVAL_KEY = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
FRESH_KEY = "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a"
NODE = shutil.which("node")
INSTALLED = (HERE / "node_modules/@polymarket/clob-client-v2").is_dir()
pytestmark = [pytest.mark.strangers, pytest.mark.skipif(NODE is None, reason="node is not installed"),
              pytest.mark.skipif(not INSTALLED, reason="the JavaScript client is not installed: run `make strangers`")]


@pytest.fixture(scope="module")
def steps():
    """What the session printed, by step."""
    with World(settle_ms=20.0) as world:
        world.do(lambda x, now: (x.set_level(CID, BUY, 5000, 100_000_000, now), x.set_level(CID, SELL, 5200, 50_000_000, now)))
        at = {"clob": f"http://127.0.0.1:{world.base}", "ws": f"ws://127.0.0.1:{world.base + 2}/ws", "key": FRESH_KEY, "rival": RIVAL_KEY,
              "up": UP_TOKEN, "down": DOWN_TOKEN, "condition": CID}
        done = subprocess.run([NODE, HERE / "session.mjs", json.dumps(at)], capture_output=True, text=True, timeout=60, cwd=HERE)
        failures = world.server.clob.last_failure
    assert done.returncode == 0, done.stderr + done.stdout + failures
    assert not failures
    print(done.stdout)
    return {line["step"]: line for line in map(json.loads, done.stdout.splitlines())}


def test_keys(steps):
    assert steps["keys"]["same"] and steps["keys"]["again"] is None, "created once, derived ever after"
    more = steps["more keys"]
    assert (more["listed"], more["readonly"], more["dropped"], more["left"], more["closedOnly"]) == (1, True, True, [], {"closed_only": False})
    assert steps["keys gone"]["dropped"] == "OK" and steps["keys gone"]["after"]


def test_market_data(steps):
    m = steps["market"]
    assert (m["ok"], m["version"], m["tick"], m["negRisk"], m["info"], m["bestBid"]) == ("OK", 2, "0.01", False, 2, "0.5")
    assert m["ownHash"] == m["hash"], "its hash of our book"
    assert (m["mid"], m["buy"], m["sell"], m["spread"]) == ({"mid": "0.51"}, {"price": "0.5"}, {"price": "0.52"}, {"spread": "0.02"})
    assert m["books"] == 2 and m["long"] == 0.01 and m["history"] >= 1 and m["none"] == "No orderbook exists for the requested token id"


def test_orders_and_what_is_refused(steps):
    placed = steps["placed"]
    assert placed["one"]["success"] and placed["one"]["status"] == "live"
    legs = placed["batch"]
    assert [leg["status"] for leg in legs] == ["live", "", "live", "live"]
    assert legs[1] | {"success": True} == {"success": True, "errorMsg": "invalid post-only order: order crosses book", "orderID": "", "status": "",
                                           "makingAmount": "", "takingAmount": ""}
    refused = {name: (answer["status"], answer["error"]) for name, answer in steps["refused"].items() if name != "step"}
    assert refused["duplicate"] == (400, f"order {placed['one']['orderID']} is invalid. Duplicated.")
    assert refused["crosses"] == (400, "invalid post-only order: order crosses book")
    assert "Size (4) lower than the minimum: 5" in refused["small"][1] and "breaks minimum tick size rule: 0.01" in refused["tick"][1]
    assert refused["version"] == (400, "order_version_mismatch")


def test_fill_orders_cancels(steps):
    filled = steps["filled"]
    assert filled["bought"]["status"] == "matched" and filled["bought"]["takingAmount"] == "10" and filled["bought"]["transactionsHashes"]
    trade, = filled["trades"]
    assert trade["trader_side"] == "MAKER" and trade["outcome"] == "Down" and trade["maker_orders"][0]["order_id"] == filled["maker"]
    assert trade["maker_orders"][0]["outcome"] == "Up" and filled["page"]["trades"][0]["id"] == trade["id"]
    assert [price for _, price, _ in steps["orders"]["listed"]] == ["0.45", "0.41", "0.43", "0.42"] and steps["orders"]["one"]["price"] == "0.45"
    c, one = steps["cancels"], steps["placed"]["one"]["orderID"]
    assert c["one"]["canceled"] == [one] and c["again"]["not_canceled"] == {one: "already canceled or matched"}
    assert len(c["list"]["canceled"]) == len(c["market"]["canceled"]) == len(c["all"]["canceled"]) == 1 and c["left"] == 0


def test_account_and_frames(steps):
    a = steps["account"]
    assert a["cash"]["balance"] == str(1_000_000_000 - 5_100_000) and a["shares"]["balance"] == "10000000" and len(a["cash"]["allowances"]) == 3
    assert a["chained"] and (a["stale"]["status"], a["stale"]["error"]["heartbeat_id"]) == (400, a["expected"])
    assert sorted(a["notices"]) == [1, 1, 1, 1, 2] and a["scoring"] == {"scoring": False} and a["percentages"] == {} and a["rewards"] == []
    frames = steps["frames"]
    assert frames["market"] == ["PONG", "best_bid_ask", "book", "last_trade_price", "price_change"] and frames["notices"] == 0
    assert [f for f in frames["user"] if f in ("MATCHED", "MINED", "CONFIRMED")] == ["MATCHED", "MINED", "CONFIRMED"]
    assert frames["user"].count("PLACEMENT") == 5 and frames["user"].count("CANCELLATION") == 4

