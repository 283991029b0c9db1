"""Processes of the protocol tests: each role is one function, run by `start` in a Python of its own.

Every child dies with its parent (PR_SET_PDEATHSIG) and at a deadline, is pinned to one CPU, and prints one JSON line.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
from types import SimpleNamespace

from proving import coherence, message_passing, publish_many, store_buffering, write_many

from shm_layout import ring, seqlock
from shm_layout.segment import Space, words_dtype

DEADLINE_S = 100


def cpus() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def ring_spec(words: int, depth: int):
    return SimpleNamespace(record=words_dtype(words), depth=depth)


def seqlock_spec(words: int, count: int = 1):
    return SimpleNamespace(record=words_dtype(words), count=count)


def start(role: str, *args, cpu: int | None = None) -> subprocess.Popen:
    """Run ``role`` in a new process."""
    words = [sys.executable, __file__, role, str(-1 if cpu is None else cpu), *map(str, args)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def answer(child: subprocess.Popen, timeout_s: float = DEADLINE_S) -> dict:
    """The next JSON line of a child."""
    waiting = select.poll()         # not select(): it refuses descriptors beyond 1023
    waiting.register(child.stdout, select.POLLIN)
    ready = waiting.poll(timeout_s * 1000)
    line = child.stdout.readline() if ready else ""
    assert line, f"child said nothing (exit status {child.poll()})"
    return json.loads(line)


def end(*children: subprocess.Popen) -> None:
    """Kill and reap; closes the pipes."""
    for child in children:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


@contextlib.contextmanager
def space(name: str, **specs):
    """A fresh Space for one test: rings={}, seqlocks={}, vitals=[]; wiped afterwards."""
    s = Space(f"t-{name}-{os.getpid()}"[:24])
    s.wipe()
    s.create_missing(specs.get("rings", {}), specs.get("seqlocks", {}), specs.get("vitals", []))
    try:
        yield s
    finally:
        s.wipe()


# -- roles -------------------------------------------------------------------------------------------------------------


def write_both(run: str, cpu: str) -> None:
    """When told: own ring "r" and seqlock "s" of ``run``, say the epoch, and write both on ``cpu`` until killed."""
    say(ready=True)
    sys.stdin.readline()
    os.sched_setaffinity(0, {int(cpu)})
    s = Space(run)
    w, q = ring.RingWriter(s.own("r")), seqlock.SeqlockWriter(s.own("s"))
    epoch = w.segment.epoch
    publish_many(w.mem, w.words, epoch, 1)
    write_many(q.mem, q.words, epoch, 1)
    say(epoch=epoch, head=ring.head(w.mem))
    while True:
        publish_many(w.mem, w.words, epoch, 2000)
        write_many(q.mem, q.words, epoch, 2000)


def write_one(run: str, what: str) -> None:
    """Own ring "r" or seqlock "s" and write it as fast as possible until killed."""
    s = Space(run)
    w, many = (ring.RingWriter(s.own("r")), publish_many) if what == "r" else (seqlock.SeqlockWriter(s.own("s")), write_many)
    many(w.mem, w.words, w.segment.epoch, 1)
    say(epoch=w.segment.epoch)
    while True:
        many(w.mem, w.words, w.segment.epoch, 100_000)


def litmus(run: str, side: str, rounds: str, which: str) -> None:
    """One side of a litmus test; the two sides own "a" and "b"."""
    s, me, n = Space(run), int(side), int(rounds)
    mine, other = s.own("ab"[me]).mem, s.attach("ab"[1 - me]).mem
    say(ready=True)
    sys.stdin.readline()
    if which.startswith("SB"):
        store_buffering(mine, other, n, which == "SB fence")
        say(bad=0)
    elif which.startswith("MP"):
        say(bad=message_passing(mine, other, n, me, which == "MP fences"))
    else:
        say(bad=coherence(mine, other, n, me))


def say(**what) -> None:
    print(json.dumps(what), flush=True)


def main(role: str, cpu: str, *args: str) -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)           # PR_SET_PDEATHSIG
    signal.alarm(DEADLINE_S)
    if int(cpu) >= 0:
        os.sched_setaffinity(0, {int(cpu)})
    ROLES[role](*args)


ROLES = {f.__name__: f for f in (write_both, write_one, litmus)}

if __name__ == "__main__":
    main(*sys.argv[1:])
