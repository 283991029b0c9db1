"""Litmus tests: the verdicts of the C11 model, tried on this machine with the primitives as compiled, on two CPUs.

    test        pattern                                                      verdict
    SB          store x; load y | store y; load x: both miss                 allowed with release/acquire: no sleep flag uses it
    SB fence    the same with fence_seq_cst between                          FORBIDDEN
    MP          store data, release flag | acquire flag, load data: old      FORBIDDEN
    MP fences   relaxed flag, release fence before | acquire fence after     FORBIDDEN
    CoRR        two loads of one word, the second older                      FORBIDDEN

And what the compiler made of it: the machine-independent code of each protocol function holds its fences and orders.
"""

import re

import numpy as np
import pytest
from children import answer, cpus, end, seqlock_spec, space, start
from numba import njit

from shm_layout import header as h
from shm_layout import ring, seqlock
from shm_layout.atomics import WORDS, load_acquire, store_release

ROUNDS = 60_000


@pytest.mark.skipif(len(cpus()) < 2, reason="needs two CPUs")
@pytest.mark.parametrize("which", ["SB", "SB fence", "MP", "MP fences", "CoRR"])
def test_verdict(which):
    forbidden = which != "SB"
    with space("litmus", seqlocks={"a": seqlock_spec(ROUNDS + 64), "b": seqlock_spec(ROUNDS + 64)}) as s:
        sides = [start("litmus", s.run_name, i, ROUNDS, which, cpu=cpus()[i]) for i in (0, 1)]
        try:
            for side in sides:
                answer(side)
            for side in sides:
                side.stdin.write("go\n")
                side.stdin.flush()
            bad = sum(answer(side)["bad"] for side in sides)
        finally:
            end(*sides)
        if which.startswith("SB"):
            a, b = (s.attach(x).mem[h.DATA + 33:h.DATA + 33 + ROUNDS] for x in "ab")
            bad = int(np.sum((a == 0) & (b == 0)))
        print(f"{which}: {bad} of {ROUNDS}, {'FORBIDDEN' if forbidden else 'allowed'}")
        assert not (forbidden and bad)


def llvm(function) -> list[str]:
    """Atomic instructions and fences of a freshly compiled function, in the order of the text, without the Python wrapper."""
    fresh = njit(function.nopython_signatures[0], _nrt=False)(function.py_func)
    text = fresh.inspect_llvm(fresh.signatures[0])
    body = text[text.index("define "):].split("\n}", 1)[0]
    found = re.findall(r"(load atomic|store atomic|fence) (?:i64.*? )?(monotonic|acquire|release|seq_cst)", body)
    return [f"{what.split()[0]} {order}" for what, order in found]


def test_the_writer_has_its_fence_and_releases():
    assert {"fence release", "store release", "store monotonic"} <= set(llvm(ring.publish))
    assert llvm(ring.publish).count("store release") == 2            # the number, the head
    assert llvm(ring.publish).count("fence release") == 1
    assert {"fence release", "store release", "store monotonic"} <= set(llvm(seqlock.write_at))
    assert llvm(seqlock.write_at).count("store release") == 1


@pytest.mark.parametrize("function", [ring._take, seqlock.read_at])
def test_the_reader_looks_acquires_and_looks_again(function):
    code = llvm(function)
    assert {"load acquire", "fence acquire", "load monotonic"} <= set(code)
    last_fence = len(code) - code[::-1].index("fence acquire") - 1
    assert "load monotonic" in code[last_fence:]                     # the second look
    assert not any(c.startswith("store release") for c in code)


def test_the_compiler_keeps_a_spin_and_both_stores():
    """What plain numba loses: a loop on a shared word, and two stores to the same word."""
    def spin(mem):
        while load_acquire(mem, 0) == 0:
            store_release(mem, 1, 1)
            store_release(mem, 1, 2)
        return load_acquire(mem, 0)

    def plain(mem):
        mem[1] = 1
        mem[1] = 2
        return mem[0]

    atomic = njit(WORDS.dtype(WORDS), _nrt=False)(spin)
    text = atomic.inspect_llvm(atomic.signatures[0])
    body = text[text.index("define "):].split("\n}", 1)[0]
    assert body.count("load atomic") >= 1 and body.count("store atomic") >= 2 and "br " in body
    merged = njit(WORDS.dtype(WORDS), _nrt=False)(plain)
    text = merged.inspect_llvm(merged.signatures[0])
    assert text[text.index("define "):].split("\n}", 1)[0].count("store i64 1") == 0      # the first store is gone
