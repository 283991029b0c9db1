"""From a price and a size to the bytes of POST /orders: mmbot against the venue's three official Python clients.

Each client is measured as `pip install` leaves it (elliptic curve in pure Python) and with coincurve installed, which eth_keys then
picks by itself; the two modes run in processes of their own. In each, mmbot and the clients take turns, so a ratio compares two
numbers of one run. The work is the same for all: amounts, EIP-712, signature, JSON body, HMAC headers; no network.
Equality is checked on random orders over all signature types, exchanges and ticks: bytes with py-clob-client-v2, meaning with
polymarket-client. Where py-clob-client-v2's float arithmetic loses a hundredth of a share, its amounts are signed by both.

Usage: python bench/signing.py [--quick] [--json] [--orders N]. Exit code 1 if any order differs.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import replace

MODES = {"default": "eth_keys.backends.NativeECCBackend", "coincurve": "eth_keys.backends.CoinCurveECCBackend"}
KEY = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
ADDRESS = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
TOKEN = 21742633143463906290569050155826241533067272736897614950488156847949938836455
TURNS = " in turn with them"
NOW_NS, NOW_MS = 10**12, 1_793_000_000_123


def percentiles(samples_ns: list[int]) -> dict[str, float]:
    """p50 and p99 in microseconds."""
    ordered = sorted(samples_ns)
    return {"p50_us": ordered[len(ordered) // 2] / 1e3, "p99_us": ordered[min(len(ordered) * 99 // 100, len(ordered) - 1)] / 1e3,
            "n": len(ordered)}


def take_turns(calls: dict, rounds: int) -> dict[str, dict]:
    """Each call once per round, in turn; percentiles per call. The first tenth warms up."""
    samples = {name: [] for name in calls}
    for i in range(rounds + rounds // 10):
        for name, call in calls.items():
            start = time.perf_counter_ns()
            call()
            took = time.perf_counter_ns() - start
            if i >= rounds // 10:
                samples[name].append(took)
    return {name: percentiles(s) for name, s in samples.items()}


def our_calls(case, label: str) -> dict:
    """mmbot's ways from a quote to bytes: signed on the spot, its parts, and taken from the pool."""
    from mmbot.execution.l2 import L2Auth
    from mmbot.execution.pool import SignedPool
    from mmbot.execution.signing import OrderSigner, Salts
    from mmbot.execution.wire import Requests
    account, salts, clock = case.credentials(), Salts(), [NOW_MS]
    signer, requests = OrderSigner(account, case.chain_id), Requests("https://clob.polymarket.com", L2Auth(account))
    template = signer.template(case.token_id, case.side, case.tick_e4, case.version, case.neg_risk, case.post_only)
    pool = SignedPool(signer, salts, 20 * 10**9, 0)
    pool.want(case.token_id, case.side, case.tick_e4, [case.px_e4], [case.size_u6])
    body = template.build(case.px_e4, case.size_u6, NOW_MS, salts()).body

    def sign():
        clock[0] += 1
        return template.build(case.px_e4, case.size_u6, clock[0], salts())

    def full():
        return requests.post_orders([sign().body], clock[0] // 1000)

    def pooled():
        order = pool.take(case.token_id, case.side, case.px_e4, case.size_u6, NOW_NS, case.tick_e4)
        return requests.post_orders([order.body], clock[0] // 1000)

    def refill():
        pool.refill(NOW_NS, NOW_MS)
    refill()
    return {f"mmbot {label}": full, f"mmbot {label}: build and sign only": sign,
            f"mmbot {label}: HMAC and request only": lambda: requests.post_orders([body], NOW_MS // 1000),
            f"mmbot {label}: from the pool": pooled, f"(refill {label})": refill}


def measure(rounds_client: int, rounds_ours: int) -> dict[str, dict]:
    """All paths in this process's mode."""
    from official_clients import WALLET, Case, ClientUnified, ClientV1, ClientV2
    eoa = Case(KEY, 0, ADDRESS, 1, False, 137, TOKEN, 0, 100, 5200, 20_000_000, True)
    wallet = replace(eoa, signature_type=3, funder=WALLET)
    found = {}
    for label, case, clients in (("EOA", eoa, (ClientV1, ClientV2, ClientUnified)), ("deposit wallet", wallet, (ClientV2, ClientUnified))):
        ours = our_calls(case, label)
        calls = {f"{c.name} {label}": lambda client=c(case), case=case: client.full(case) for c in clients}
        turns = take_turns({f"mmbot {label}": ours[f"mmbot {label}"], **calls}, rounds_client)
        found.update({name + TURNS if name.startswith("mmbot") else name: row for name, row in turns.items()})
        found.update(take_turns(ours, rounds_ours))
    return {name: row for name, row in found.items() if not name.startswith("(")}


def compare(orders: int, seed: int) -> dict[str, int]:
    """Random orders made by everybody: how many were equal, and how often the float client's amount was short."""
    from official_clients import ClientUnified, ClientV2, random_case
    from polymarket._internal.actions.orders.post import build_post_orders_request

    from mmbot.execution.signing import OrderSigner
    rng = random.Random(seed)
    counts = dict.fromkeys(("orders", "bytes_equal_v2", "meaning_equal_unified", "v2_amount_short"), 0)
    for _ in range(orders):
        case = random_case(rng)
        counts["orders"] += 1
        template = OrderSigner(case.credentials(), case.chain_id).template(case.token_id, case.side, case.tick_e4, case.version,
                                                                           case.neg_risk, case.post_only)
        client = ClientV2(case)
        theirs = client.order(case)
        ours = template.build(case.px_e4, case.size_u6, int(theirs.timestamp), int(theirs.salt))
        if (int(theirs.makerAmount), int(theirs.takerAmount)) != (ours.maker_u6, ours.taker_u6):
            counts["v2_amount_short"] += 1
            ours = template.build_amounts(int(theirs.makerAmount), int(theirs.takerAmount), case.px_e4, case.size_u6,
                                          int(theirs.timestamp), int(theirs.salt))
        counts["bytes_equal_v2"] += ours.body.decode() == client.body(theirs, case)
        theirs = ClientUnified(case).order(case)
        ours = template.build(case.px_e4, case.size_u6, theirs.timestamp, theirs.salt)
        _, (payload,) = build_post_orders_request([theirs], owner_api_key=case.credentials().api_key)
        counts["meaning_equal_unified"] += json.loads(ours.body) == {"postOnly": False, **payload}
    return counts


def child(mode: str, args) -> dict:
    """Run one mode in a process of its own."""
    env = {**os.environ, "ECC_BACKEND_CLASS": MODES[mode]}
    command = [sys.executable, __file__, "--child", mode, "--orders", str(args.orders), *(["--quick"] if args.quick else [])]
    return json.loads(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)


def run_child(mode: str, args) -> dict:
    """What a child measures: its mode's table and its share of the comparison (pure Python is slow: one order in fifty)."""
    from eth_keys.backends import get_backend_class
    assert f"{get_backend_class().__name__}" == MODES[mode].rpartition(".")[2]
    slow = mode == "default"
    rounds = (30 if slow else 200) if args.quick else (300 if slow else 3000)
    return {"paths": measure(rounds, 300 if args.quick else 5000), "equality": compare(max(args.orders // (50 if slow else 1), 4), 7 + slow)}


def report(results: dict) -> str:
    """The table a person reads."""
    lines = [f"{'from price and size to request bytes':<46}{'p50 us':>10}{'p99 us':>10}{'mmbot x':>9}"]
    for mode, result in results["modes"].items():
        lines.append(f"-- official clients: {'as installed (pure Python curve)' if mode == 'default' else 'with coincurve installed'}")
        for name, row in result["paths"].items():
            if mode != "coincurve" and name.startswith("mmbot") and not name.endswith(TURNS):
                continue        # alone, mmbot does not depend on the clients' mode: once is enough
            ratio = f"{row['ratio']:>9.1f}" if "ratio" in row else ""
            lines.append(f"{name:<46}{row['p50_us']:>10.1f}{row['p99_us']:>10.1f}{ratio}")
        e = result["equality"]
        lines.append(f"   {e['orders']} random orders: {e['bytes_equal_v2']} byte-identical to py-clob-client-v2, "
                     f"{e['meaning_equal_unified']} equal to polymarket-client; the float client was short on {e['v2_amount_short']}")
    lines.append("mmbot x: a client's p50 over mmbot's p50 when both take turns, so that mmbot too finds the caches as the others left them")
    return "\n".join(lines)


def main() -> int:
    """Parse arguments, run both modes, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds, 200 random orders")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--orders", type=int, default=0, help="random orders compared (default 10000, quick 200)")
    parser.add_argument("--child", choices=MODES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.orders = args.orders or (200 if args.quick else 10_000)
    if args.child:
        print(json.dumps(run_child(args.child, args)))
        return 0
    results = {"modes": {mode: child(mode, args) for mode in MODES}}
    for result in results["modes"].values():
        for name, row in result["paths"].items():
            if not name.startswith("mmbot"):
                label = "deposit wallet" if name.endswith("deposit wallet") else "EOA"
                row["ratio"] = row["p50_us"] / result["paths"][f"mmbot {label}{TURNS}"]["p50_us"]
    equal = all(e["bytes_equal_v2"] == e["meaning_equal_unified"] == e["orders"]
                for e in (r["equality"] for r in results["modes"].values()))
    results["equal"] = equal
    print(json.dumps(results, indent=1) if args.json else report(results))
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
