"""Time to flat: from the moment a process fails until the exchange lists no order of ours.

A whole group quotes on paper. In each round one process is stopped (SIGSTOP), killed (SIGKILL) or wedged (its loop does not turn while the
process lives on), at a random moment while orders rest. The exchange's own list of our open orders is polled every few ms; the time is that
from the signal to the end of the last poll that still saw an order. Afterwards the process is let go (or restarted by the supervisor) and the
group must quote again.

Everything runs on one machine: the exchange's answers, the polls and all processes share its CPUs, so the times are upper bounds.
"""

import argparse
import http.client
import json
import os
import random
import signal
import sys
import tempfile
import time
import uuid
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "system"))
from running import Running, free_ports  # noqa: E402

from mmbot.execution.credentials import credentials  # noqa: E402
from mmbot.execution.l2 import L2Auth  # noqa: E402

TARGETS = ("core", "executor", "feed_market", "feed_user", "feed_oracle")
FAULTS = {"stop": signal.SIGSTOP, "kill": signal.SIGKILL, "wedge": signal.SIGUSR2}
HOLD_S = 1.4            # a stopped or wedged process stays so for this long
POLL_S = 0.004
QUIET_S = 0.3           # the list must stay empty for so long


class Orders:
    """Our open orders as the exchange lists them."""

    def __init__(self, cfg):
        self.auth = L2Auth(credentials(cfg))
        self.connection = http.client.HTTPConnection("127.0.0.1", cfg.sim.base_port, timeout=5)

    def count(self) -> int:
        """How many rest now."""
        self.connection.request("GET", "/data/orders", headers=self.auth.header_dict("GET", "/data/orders", b"", int(time.time())))
        return len(json.loads(self.connection.getresponse().read())["data"])


def one_round(group: Running, orders: Orders, name: str, fault: str) -> float:
    """Seconds from the signal until nothing is listed for good."""
    while not orders.count():
        time.sleep(0.01)
    pid = group.pid(name)
    begin = last_seen = time.monotonic()
    os.kill(pid, FAULTS[fault])
    try:
        while time.monotonic() < begin + HOLD_S and time.monotonic() - last_seen < max(QUIET_S, 0.7 if fault == "wedge" else 0):
            if orders.count():
                last_seen = time.monotonic()
            time.sleep(POLL_S)
        time.sleep(max(0.0, begin + HOLD_S - time.monotonic()) if fault == "wedge" else 0)
    finally:
        if fault == "stop":
            os.kill(pid, signal.SIGCONT)
    return last_seen - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10, help="rounds of each fault on each process")
    parser.add_argument("--only", default="", help="comma-separated processes")
    parser.add_argument("--faults", default="stop,kill,wedge")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    names, faults = args.only.split(",") if args.only else list(TARGETS), args.faults.split(",")
    os.environ |= {"PYTHONPATH": str(ROOT / "tests" / "system" / "wedge"), "WEDGE_S": str(HOLD_S), "MMBOT_GUARDIAN__UNSOUND_MS": "400"}
    plan = [(n, f) for n in names for f in faults] * args.rounds
    rng = random.Random(args.seed)
    rng.shuffle(plan)
    taken: dict[tuple[str, str], list[float]] = {(n, f): [] for n in names for f in faults}
    with tempfile.TemporaryDirectory() as directory:
        group = Running(Path(directory), f"flat{uuid.uuid4().hex[:6]}", free_ports(), deadline_s=120 + 8 * len(plan))
        try:
            group.wait_up()
            group.wait_quoting()
            orders = Orders(group.cfg)
            for name, fault in plan:
                group.wait_quoting()
                time.sleep(rng.uniform(0.05, 0.4))
                taken[name, fault].append(one_round(group, orders, name, fault))
        finally:
            group.clean_up()
    report(taken, args.json)


def report(taken: dict[tuple[str, str], list[float]], as_json: bool) -> None:
    """The table, or the same as JSON."""
    rows = [(f"{fault} {name}", sorted(times)) for (name, fault), times in taken.items() if times]
    rows.append(("all", sorted(t for times in taken.values() for t in times)))
    out = [{"what": what, "n": len(t), "p50_ms": quantile(t, 0.5), "p99_ms": quantile(t, 0.99), "max_ms": quantile(t, 1.0)} for what, t in rows]
    if as_json:
        print(json.dumps(out))
        return
    table = Table("fault", "n", "p50 ms", "p99 ms", "max ms", title="from the fault to no order of ours at the exchange")
    for row in out:
        table.add_row(*(str(v) for v in row.values()))
    Console().print(table)


def quantile(times: list[float], q: float) -> int:
    """The smallest time with a share of ``q`` at or below it, ms."""
    return round(1000 * times[min(len(times) - 1, max(0, -int(-q * len(times) // 1) - 1))])


if __name__ == "__main__":
    main()
