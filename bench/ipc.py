"""From one process to another: the ring and the seqlock against multiprocessing.Queue, Pipe and ZeroMQ ipc, in one run.

Two processes, each pinned to a CPU of its own. Latency is a ping-pong, one way = half of a round trip, so one clock is enough.
Messages are 128 bytes. Ring and seqlock spin (compiled, and once more driven from Python); the others block in their own
receive, as one uses them. Throughput is one way and nothing is lost: the ring's writer waits for credits here, which it never
does in the bot. Every record of the torn-read runs proves itself word by word while the writer runs free.

Usage: python bench/ipc.py [--quick] [--json]     or python -m bench.ipc. Exit code 1 if a torn read was seen.
"""

import argparse
import ctypes
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import zmq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import ipc_kernels as compiled  # noqa: E402
from bench.ipc_kernels import DEPTH  # noqa: E402
from shm_layout import ring, seqlock  # noqa: E402
from shm_layout.segment import Space, words_dtype  # noqa: E402

MESSAGE_BYTES = 128
WORDS_128 = MESSAGE_BYTES // 8
DEADLINE_S = 300
TARGETS = {"one_way_p50_ns": 100, "messages_per_s": 20_000_000, "publish_from_python_ns": 500}


# -- the other process ---------------------------------------------------------------------------------------------


def settle(cpu: int) -> None:
    """A child: dies with its parent and at a deadline, on its own CPU."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    signal.alarm(DEADLINE_S)
    os.sched_setaffinity(0, {cpu})


def peer(role: str, run: str, n: int) -> None:
    """The far end of a ring or seqlock run; says "ready" when attached."""
    s = Space(run)
    if role == "ring echo":
        w, r = ring.RingWriter(s.own("b")), ring.RingReader(s.attach("a"))
        print("ready", flush=True)
        compiled.ring_echo(w.mem, r.mem, r.words, n)
    elif role == "ring echo from Python":
        w, r = ring.RingWriter(s.own("b")), ring.RingReader(s.attach("a"))
        print("ready", flush=True)
        for _ in range(n):
            while not r.poll():
                pass
            w.publish()
    elif role == "seqlock echo":
        w, r = seqlock.SeqlockWriter(s.own("d")), seqlock.SeqlockReader(s.attach("c"))
        print("ready", flush=True)
        compiled.seqlock_echo(w.mem, r.mem, r.words, n)
    elif role == "ring produce":
        w, credits = ring.RingWriter(s.own("a")), s.attach("credits")
        print("ready", flush=True)
        compiled.ring_produce(w.mem, credits.mem, np.zeros(1, np.int64), w.words, n)
    else:
        w, go = (ring.RingWriter(s.own("a")), compiled.ring_run_free) if role == "ring free" else (
            seqlock.SeqlockWriter(s.own("c")), compiled.seqlock_run_free)
        go(w.mem, w.words, 1)
        print("ready", flush=True)
        while True:
            go(w.mem, w.words, 100_000)


class Peer:
    """The other process of a ring or seqlock run, with a space of its own."""

    def __init__(self, role: str, n: int, cpus, record_bytes: int = MESSAGE_BYTES):
        self.space, self.role, self.n, self.cpu = Space(f"bench-{os.getpid()}"), role, n, cpus[1]
        spec = SimpleNamespace(record=words_dtype(record_bytes // 8), depth=DEPTH, count=1)
        credits = SimpleNamespace(record=words_dtype(1), count=1)
        self.space.wipe()
        self.space.create_missing({"a": spec, "b": spec}, {"c": spec, "d": spec, "credits": credits}, [])
        self.owned = []

    def own(self, name: str):
        self.owned.append(self.space.own(name))
        return self.owned[-1]

    def __enter__(self):
        words = [sys.executable, __file__, "--peer", self.role, self.space.run_name, str(self.n), str(self.cpu)]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the other process of {self.role!r} did not start")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        for segment in self.owned:
            segment.release()
        self.space.wipe()


# -- measurements --------------------------------------------------------------------------------------------------


def one_way(stamps) -> dict:
    """p50, p99 of half a round trip, ns; the first tenth warms up."""
    halves = np.diff(np.asarray(stamps, np.int64))[len(stamps) // 10:] / 2
    return {"p50_ns": round(float(np.percentile(halves, 50)), 1), "p99_ns": round(float(np.percentile(halves, 99)), 1)}


def ring_latency(rounds: int, cpus, record_bytes: int = MESSAGE_BYTES) -> dict:
    with Peer("ring echo", rounds, cpus, record_bytes) as p:
        w, r = ring.RingWriter(p.own("a")), ring.RingReader(p.space.attach("b"))
        stamps = np.zeros(rounds + 1, np.int64)
        compiled.ring_ping(w.mem, r.mem, w.words, stamps, np.zeros(2, np.int64))
    return one_way(stamps)


def python_ring_latency(rounds: int, cpus) -> dict:
    with Peer("ring echo from Python", rounds, cpus) as p:
        w, r = ring.RingWriter(p.own("a")), ring.RingReader(p.space.attach("b"))
        stamps = []
        for _ in range(rounds):
            stamps.append(time.monotonic_ns())
            w.publish()
            while not r.poll():
                pass
        stamps.append(time.monotonic_ns())
    return one_way(stamps)


def seqlock_latency(rounds: int, cpus) -> dict:
    with Peer("seqlock echo", rounds, cpus) as p:
        w, r = seqlock.SeqlockWriter(p.own("c")), seqlock.SeqlockReader(p.space.attach("d"))
        stamps = np.zeros(rounds + 1, np.int64)
        compiled.seqlock_ping(w.mem, r.mem, w.words, stamps, np.zeros(2, np.int64))
    return one_way(stamps)


def ring_throughput(n: int, cpus, record_bytes: int = MESSAGE_BYTES) -> int:
    """Messages per second, all of them received; the best of three runs."""
    return round(max(ring_stream(n, cpus, record_bytes) for _ in range(3)))


def ring_stream(n: int, cpus, record_bytes: int) -> float:
    """Messages per second of one run."""
    with Peer("ring produce", n, cpus, record_bytes) as p:
        credits, r = p.own("credits"), ring.RingReader(p.space.attach("a"), from_head=False)
        r.link[ring.CURSOR] = 0
        start = time.perf_counter()
        total = compiled.ring_consume(credits.mem, np.zeros(1, np.int64), r.mem, r.link, r.words, n)
        took = time.perf_counter() - start
    if total != n * (n - 1) // 2 or r.link[ring.LOST]:
        raise RuntimeError("the throughput run lost records")
    return n / took


def torn_reads(what: str, n: int, cpus) -> dict:
    """Reads against a free-running writer: how many were accepted, how many of those were torn, and how fast."""
    counts = np.zeros(2, np.int64)
    with Peer(f"{what} free", 0, cpus) as p:
        start = time.perf_counter()
        if what == "ring":
            r = ring.RingReader(p.space.attach("a"))
            while counts[0] < n and time.perf_counter() - start < DEADLINE_S / 3:
                compiled.ring_check(r.mem, r.link, r.words, 200_000, counts)
        else:
            r = seqlock.SeqlockReader(p.space.attach("c"))
            while counts[0] < n and time.perf_counter() - start < DEADLINE_S / 3:
                compiled.seqlock_check(r.mem, r.words, 200_000, counts)
        took = time.perf_counter() - start
    return {"reads": int(counts[0]), "torn": int(counts[1]), "reads_per_s": round(counts[0] / took)}


def python_costs(n: int) -> dict:
    """ns per call from Python, no other process."""
    space = Space(f"bench-{os.getpid()}")
    space.wipe()
    spec = SimpleNamespace(record=words_dtype(WORDS_128), depth=DEPTH, count=1)
    space.create_missing({"a": spec}, {"c": spec}, [])
    w, q = ring.RingWriter(space.own("a")), seqlock.SeqlockWriter(space.own("c"))
    r, s = ring.RingReader(space.attach("a")), seqlock.SeqlockReader(space.attach("c"))
    out = {}
    for name, call in (("publish", w.publish), ("poll", r.poll), ("write", q.write), ("read", s.read)):
        best = []
        for _ in range(5):
            start = time.perf_counter_ns()
            for _ in range(n):
                call()
            best.append((time.perf_counter_ns() - start) / n)
        out[f"{name}_from_python_ns"] = round(min(best), 1)
    for segment in (w.segment, q.segment):
        segment.release()
    space.wipe()
    return out


# -- the alternatives: one end object with send(bytes) and recv() -> bytes ------------------------------------


class QueueEnd:
    def __init__(self, send, recv):
        self.send, self.recv = send.put, recv.get


class PipeEnd:
    def __init__(self, connection):
        self.send, self.recv = connection.send_bytes, connection.recv_bytes


class ZmqEnd:
    def __init__(self, address: str, bind: bool):
        self.socket = zmq.Context.instance().socket(zmq.PAIR)
        self.socket.set_hwm(0)
        (self.socket.bind if bind else self.socket.connect)(address)
        self.send, self.recv = self.socket.send, self.socket.recv


def far_end(make, args, cpu: int, rounds: int, n: int) -> None:
    """Child: echo ``rounds`` messages, then take n and answer once."""
    settle(cpu)
    end = make(*args)
    end.send(b"ready")
    for _ in range(rounds):
        end.send(end.recv())
    for _ in range(n):
        end.recv()
    end.send(b"done")
    time.sleep(5)                        # the parent ends this process


def alternative(make, near, far, cpus, rounds: int, n: int) -> dict:
    """Latency and throughput of one alternative; near and far are the arguments of ``make`` on each side."""
    child = multiprocessing.get_context("spawn").Process(target=far_end, args=(make, far, cpus[1], rounds, n), daemon=True)
    child.start()
    try:
        end, message, stamps = make(*near), bytes(MESSAGE_BYTES), []
        end.recv()
        for _ in range(rounds):
            stamps.append(time.monotonic_ns())
            end.send(message)
            end.recv()
        stamps.append(time.monotonic_ns())
        start = time.perf_counter()
        for _ in range(n):
            end.send(message)
        end.recv()
        return one_way(stamps) | {"messages_per_s": round(n / (time.perf_counter() - start))}
    finally:
        child.kill()
        child.join()


def alternatives(cpus, rounds: int, n: int) -> dict:
    context = multiprocessing.get_context("spawn")
    there, back = context.Queue(), context.Queue()
    out = {"multiprocessing.Queue": alternative(QueueEnd, (there, back), (back, there), cpus, rounds, n)}
    near, far = context.Pipe()
    out["multiprocessing.Pipe"] = alternative(PipeEnd, (near,), (far,), cpus, rounds, n)
    with tempfile.TemporaryDirectory() as directory:
        address = f"ipc://{directory}/bench"
        out["ZeroMQ ipc"] = alternative(ZmqEnd, (address, True), (address, False), cpus, rounds, n)
    return out


def measure(quick: bool, cpus) -> dict:
    """Everything, once, on two CPUs."""
    scale = 1 if quick else 10
    rows = {
        "ring": ring_latency(30_000 * scale, cpus) | {"messages_per_s": ring_throughput(2_000_000 * scale, cpus)},
        "ring, 120 byte record in a 128 byte slot": ring_latency(30_000 * scale, cpus, 120)
        | {"messages_per_s": ring_throughput(2_000_000 * scale, cpus, 120)},
        "ring, driven from Python": python_ring_latency(5_000 * scale, cpus),
        "seqlock": seqlock_latency(30_000 * scale, cpus),
    }
    rows |= alternatives(cpus, 1_000 * scale, 5_000 * scale)
    ours = rows["ring"]
    for name, row in rows.items():
        row["latency_ratio"] = round(row["p50_ns"] / ours["p50_ns"], 1)
        if "messages_per_s" in row:
            row["throughput_ratio"] = round(ours["messages_per_s"] / row["messages_per_s"], 1)
    torn = {what: torn_reads(what, 1_000_000 * scale, cpus) for what in ("ring", "seqlock")}
    return {"message_bytes": MESSAGE_BYTES, "cpus": list(cpus), "rows": rows, "torn": torn,
            "python": python_costs(20_000 * scale), "targets": TARGETS}


def table(result: dict) -> str:
    """The result for people."""
    lines = [f"one process to another, {MESSAGE_BYTES} byte messages, CPUs {result['cpus'][0]} and {result['cpus'][1]}", "",
             f"{'':42}{'one way p50':>14}{'p99':>13}{'messages/s':>14}{'slower by':>11}{'fewer by':>10}"]
    for name, row in result["rows"].items():
        rate = f"{row['messages_per_s']:,}" if "messages_per_s" in row else "-"
        fewer = f"{row['throughput_ratio']:g} x" if "throughput_ratio" in row else "-"
        lines.append(f"{name:42}{row['p50_ns']:>11,.0f} ns{row['p99_ns']:>10,.0f} ns{rate:>14}{row['latency_ratio']:>9g} x"
                     f"{fewer:>10}")
    lines += ["", "from Python, ns a call: " + ", ".join(f"{k.split('_')[0]} {v:g}" for k, v in result["python"].items())]
    lines += [f"{what}: {t['torn']} torn in {t['reads']:,} reads against a free-running writer ({t['reads_per_s']:,}/s)"
              for what, t in result["torn"].items()]
    ring_row = result["rows"]["ring"]
    lines += ["", f"aims: one way p50 <= {TARGETS['one_way_p50_ns']} ns (is {ring_row['p50_ns']:g}), "
              f">= {TARGETS['messages_per_s'] / 1e6:g} M messages/s (is {ring_row['messages_per_s'] / 1e6:.1f} M), "
              f"publish from Python <= {TARGETS['publish_from_python_ns']} ns (is {result['python']['publish_from_python_ns']:g})"]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; exit code 1 if a torn read was seen, 2 if it cannot run here."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["--peer"]:
        _, role, run, n, cpu = argv
        settle(int(cpu))
        peer(role, run, int(n))
        return 0
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds instead of half a minute")
    parser.add_argument("--json", action="store_true", help="the result as one JSON document")
    args = parser.parse_args(argv)
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        print("bench/ipc.py needs two CPUs: two spinning ends on one CPU measure the scheduler", file=sys.stderr)
        return 2
    os.sched_setaffinity(0, {available[0]})
    result = measure(args.quick, (available[0], available[-1]))
    os.sched_setaffinity(0, available)
    print(json.dumps(result) if args.json else table(result))
    return 1 if any(t["torn"] for t in result["torn"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
