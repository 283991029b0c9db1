"""Tick to order, seen from the venue: frame out of the exchange -> last byte of the POST in.

The exchange simulator replays its probe tape: every few hundred ms the best ask moves by one frame, so that any bot that follows the
book must quote anew. The simulator stamps each such frame as it leaves and each POST as its last byte arrives; both
stamps come from one clock in one process. mmbot's whole group runs against it first, then `reference_bot.py` with the official V2
client as `pip install` leaves it (pure Python ECDSA) and with coincurve installed. One machine, one run, ratios from that run.

Read it with care on two CPUs: mmbot's core owns one, so the exchange shares the other with feed and executor, and its own waiting for
that CPU (to send, and to read the POST) is in mmbot's figure; the reference bot leaves the exchange a CPU of its own. `recv_send` of
the same run, printed below the table, is the way through mmbot alone.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
BASE_PORT = 18701
NATIVE = {"ECC_BACKEND_CLASS": "eth_keys.backends.NativeECCBackend"}

CONFIG = """
profile = "paper"
[run]
name = "bench"
dir = "{dir}"
[sim]
base_port = {port}
tape = "probe"
start_before_roll_s = 6
probe_period_ms = {period_ms}
[strategy]
model_weight = 0.0
[execution]
min_update_interval_ms = 0
"""


def get(path: str) -> dict:
    with urllib.request.urlopen(f"http://127.0.0.1:{BASE_PORT}{path}", timeout=5) as answer:
        return json.load(answer)


def wait_for_roll() -> None:
    """Until a window has begun whose first TWAP print could be seen: without its strike nobody should quote it."""
    while True:
        with contextlib.suppress(OSError):
            if get("/time") % 900 < 800:
                return
        time.sleep(0.2)


def collect(seconds: float) -> tuple[list[int], list[int]]:
    """(probe frame stamps, POST stamps) of the next ``seconds``, ns, polled so that the exchange's bounded list never overflows."""
    frames: list[int] = []
    posts: list[int] = []
    since = get("/sim/stamps?since=0")["next"]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.5)
        answer = get(f"/sim/stamps?since={since}")
        since = answer["next"]
        frames += [s["t_ns"] for s in answer["frames"] if s["probe"]]
        posts += [s["t_ns"] for s in answer["posts"]]
    return frames, posts


def latencies_ns(frames: list[int], posts: list[int], horizon_ns: int) -> list[int]:
    """Per probe frame the first POST within ``horizon_ns`` after it. Frames nobody answered are left out and counted by the caller."""
    out, j = [], 0
    for i, frame in enumerate(frames):
        until = min(frames[i + 1] if i + 1 < len(frames) else frame + horizon_ns, frame + horizon_ns)
        while j < len(posts) and posts[j] < frame:
            j += 1
        if j < len(posts) and posts[j] < until:
            out.append(posts[j] - frame)
    return out


def percentiles(values: list[int]) -> dict:
    v = sorted(values)
    pick = {q: v[min(len(v) - 1, int(len(v) * q))] for q in (0.5, 0.9, 0.99)} if v else dict.fromkeys((0.5, 0.9, 0.99), 0)
    return {"count": len(v), "p50_us": pick[0.5] / 1e3, "p90_us": pick[0.9] / 1e3, "p99_us": pick[0.99] / 1e3}


def mmbot(*args: str, config: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "mmbot.cli.main", *args, "--config", str(config)], cwd=ROOT, check=True,
                          capture_output=True, text=True)


def measure_ours(config: Path, seconds: float, period_ms: float) -> dict:
    mmbot("up", config=config)
    try:
        wait_for_roll()
        time.sleep(5)
        frames, posts = collect(seconds)
        hops = json.loads(mmbot("latency", "--json", config=config).stdout)["hops"]
    finally:
        mmbot("down", config=config)
    row = percentiles(latencies_ns(frames, posts, int(period_ms * 1e6)))
    return {"bot": "mmbot", **row, "probes": len(frames), "hops": hops}


@contextlib.contextmanager
def exchange(config: Path):
    """The simulator alone; yields what it prints about itself."""
    sim = subprocess.Popen([sys.executable, "-m", "mmbot.cli.main", "sim", "--json", "--config", str(config)], cwd=ROOT,
                           stdout=subprocess.PIPE, text=True)
    try:
        yield json.loads(sim.stdout.readline())
    finally:
        sim.send_signal(signal.SIGINT)
        sim.wait(10)


def measure_reference(config: Path, seconds: float, period_ms: float, name: str, extra_env: dict) -> dict:
    with exchange(config) as about:
        wait_for_roll()
        bot = subprocess.Popen([sys.executable, str(ROOT / "bench" / "reference_bot.py"), "--base-port", str(BASE_PORT), "--key",
                                about["private_key"], "--seconds", str(seconds + 3)], env={**os.environ, **extra_env},
                               stdout=subprocess.DEVNULL)
        try:
            time.sleep(3)
            frames, posts = collect(seconds)
        finally:
            bot.terminate()
            bot.wait(10)
    row = percentiles(latencies_ns(frames, posts, int(period_ms * 1e6)))
    return {"bot": name, **row, "probes": len(frames)}


def show(rows: list[dict], base: dict) -> None:
    table = Table(title="Frame out of the exchange -> last byte of the POST in (loopback, no TLS)")
    for column in ("bot", "answered", "p50 us", "p90 us", "p99 us", "p50 ratio"):
        table.add_column(column, justify="left" if column == "bot" else "right")
    for r in rows:
        ratio = r["p50_us"] / base["p50_us"] if base["p50_us"] else 0
        table.add_row(r["bot"], f"{r['count']}/{r['probes']}", f"{r['p50_us']:.0f}", f"{r['p90_us']:.0f}", f"{r['p99_us']:.0f}",
                      f"{ratio:.1f}x")
    Console().print(table)
    own = next(h for h in base["hops"] if h["hop"] == "recv_send")
    Console().print(f"mmbot's own recv_send in this run: p50 {own['p50_ns'] / 1e3:.0f} us, p99 {own['p99_ns'] / 1e3:.0f} us ({own['count']} orders)")


def main(argv: list[str] | None = None) -> None:
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--json", action="store_true")
    args.add_argument("--quick", action="store_true", help="a few seconds per bot")
    args.add_argument("--seconds", type=float, default=45)
    args.add_argument("--period-ms", type=float, default=300)
    a = args.parse_args(argv)
    seconds = 6 if a.quick else a.seconds
    with tempfile.TemporaryDirectory(prefix="mmb") as tmp:
        config = Path(tmp) / "bench.toml"
        config.write_text(CONFIG.format(dir=tmp, port=BASE_PORT, period_ms=a.period_ms))
        rows = [measure_ours(config, seconds, a.period_ms),
                measure_reference(config, seconds, a.period_ms, "reference bot, default install", NATIVE),
                measure_reference(config, seconds, a.period_ms, "reference bot, with coincurve", {})]
    for r in rows:
        r["ratio_p50"] = r["p50_us"] / rows[0]["p50_us"] if rows[0]["p50_us"] else None
    if a.json:
        print(json.dumps({"tick_to_order": rows}))
    else:
        show(rows, rows[0])


if __name__ == "__main__":
    main()
