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

import numpy as np
from numba import int64, void

from shm_layout import header as h
from shm_layout import ring, seqlock
from shm_layout.atomics import (VIEW, WORDS, fence_acquire, fence_release, fence_seq_cst, kernel, load_acquire, load_relaxed,
                                pause, store_relaxed, store_release)
from shm_layout.segment import Space, words_dtype

DEADLINE_S = 100
STEP = 0x9E3779B97F4A7C15 - (1 << 64)        # odd: every record differs from every other in every word


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
    ready, _, _ = select.select([child.stdout], [], [], timeout_s)
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


# -- records that prove themselves: word 0 = number, word 1 = epoch of the writer, the others follow from both ------


@kernel(void(WORDS, int64, int64))
def fill(words, number, epoch):
    words[0], words[1] = number, epoch
    for i in range(2, words.size):
        words[i] = (number * 31 + epoch) * STEP + i


@kernel(int64(WORDS, int64))
def torn(words, number):
    """1 if ``words`` is not exactly what `fill` made for ``number``."""
    if words[0] != number:
        return 1
    for i in range(2, words.size):
        if words[i] != (number * 31 + words[1]) * STEP + i:
            return 1
    return 0


@kernel(void(WORDS, WORDS, int64, int64))
def publish_many(mem, words, epoch, n):
    for _ in range(n):
        fill(words, load_relaxed(mem, h.W_HEAD) + 1, epoch)
        ring.publish(mem, words)


@kernel(void(WORDS, WORDS, int64, int64))
def write_many(mem, words, epoch, n):
    for _ in range(n):
        fill(words, load_relaxed(mem, h.DATA) + 1, epoch)
        seqlock.write(mem, 0, words)


@kernel(void(VIEW, WORDS, WORDS, int64, WORDS))
def poll_many(mem, link, words, tries, counts):
    """counts: accepted, torn, wrong order."""
    for _ in range(tries):
        if ring.poll_link(mem, link, words) == 1:
            counts[0] += 1
            counts[1] += torn(words, link[ring.CURSOR] - 1)


@kernel(void(VIEW, WORDS, int64, WORDS))
def read_many(mem, words, tries, counts):
    """counts: accepted, torn, went back, busy, last version."""
    for _ in range(tries):
        version = seqlock.read(mem, 0, words)
        if version > 0:
            counts[0] += 1
            counts[1] += torn(words, version)
            counts[2] += version < counts[4]
            counts[4] = version
        else:
            counts[3] += version == seqlock.BUSY


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


def hold(run: str, segment: str) -> None:
    """Own a segment until told to go."""
    s = Space(run)
    seg = s.own(segment)
    say(epoch=seg.epoch, pid=os.getpid())
    sys.stdin.readline()


def create(run: str) -> None:
    """Create one ring as soon as told, say what was made."""
    say(ready=True)
    sys.stdin.readline()
    say(made=Space(run).create_missing({"r": ring_spec(4, 8)}, {}, []))


def stray_write(run: str) -> None:
    """Write through a read-only mapping, the way a wild pointer would: compiled for writable memory."""
    mem = Space(run).attach("r").mem
    address = mem.ctypes.data
    say(ready=True)
    ctypes.memset(address + h.DATA * 8, 0xFF, 8)
    say(survived=True)


@kernel(void(WORDS, VIEW, int64, int64))
def store_buffering(mine, other, rounds, fence):
    """SB: both store, then both load; word r of the results is 1 if the other's store of round r was seen."""
    x, done, result = h.DATA, h.DATA + 16, h.DATA + 32
    for r in range(1, rounds + 1):
        while load_acquire(other, done) < r - 1:
            pause()
        store_release(mine, x, r)
        if fence:
            fence_seq_cst()
        store_relaxed(mine, result + r, 1 if load_acquire(other, x) >= r else 0)
        store_release(mine, done, r)


@kernel(int64(WORDS, VIEW, int64, int64, int64))
def message_passing(mine, other, rounds, side, fences):
    """MP: side 0 stores data, then flag; side 1 loads flag, then data, and counts data older than the flag."""
    data, flag, bad = h.DATA, h.DATA + 16, 0
    for r in range(1, rounds + 1):
        if side == 0:
            store_relaxed(mine, data, r)
            if fences:
                fence_release()
                store_relaxed(mine, flag, r)
            else:
                store_release(mine, flag, r)
        elif fences:
            seen = load_relaxed(other, flag)
            fence_acquire()
            bad += load_relaxed(other, data) < seen
        else:
            seen = load_acquire(other, flag)
            bad += load_relaxed(other, data) < seen
    return bad


@kernel(int64(WORDS, VIEW, int64, int64))
def coherence(mine, other, rounds, side):
    """CoRR: side 0 counts up; side 1 counts how often of two loads the second is older."""
    bad = 0
    for r in range(1, rounds + 1):
        if side == 0:
            store_relaxed(mine, h.DATA, r)
        else:
            first = load_relaxed(other, h.DATA)
            bad += load_relaxed(other, h.DATA) < first
    return bad


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
    np.seterr(over="ignore")
    ROLES[role](*args)


ROLES = {f.__name__: f for f in (write_both, write_one, hold, create, stray_write, litmus)}

if __name__ == "__main__":
    main(*sys.argv[1:])
