"""What explaining each decision costs: ns per decision of `explain`, against the whole step that makes it.

    python bench/why_cost.py [--rounds 400000]
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from numba import njit

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "unit"))
from core_world import quoting  # noqa: E402

from mmbot import core  # noqa: E402
from mmbot.clock import mono_ns  # noqa: E402
from mmbot.core.why import explain  # noqa: E402
from shm_layout import records as r  # noqa: E402


@njit
def explaining(n, target, state, params, now_ns):
    for i in range(n):
        state[0].draft.gates = i & 1        # quoted and gated in turn
        explain(target[0].why, state[0], params[0].of[0], now_ns)


@njit
def deciding(n, state, market, oracle, spot, own, programme, markets, account, guard, params, now_ns, wall_ns):
    for i in range(n):
        market[0].bid_px_e4[0] = 4000 + 500 * (i & 1)
        core.step(state, r.SRC_MARKET, market, oracle, spot, own, programme, markets, account, guard, params, now_ns, wall_ns)


def per_call_ns(call, n: int, repeats: int = 9) -> float:
    """Median over ``repeats`` of the time of one of ``n`` calls."""
    call(100)
    times = []
    for _ in range(repeats):
        begin = mono_ns()
        call(n)
        times.append((mono_ns() - begin) / n)
    return float(np.median(times))


def main() -> None:
    rounds = argparse.ArgumentParser(description=__doc__)
    rounds.add_argument("--rounds", type=int, default=400_000)
    n = rounds.parse_args().rounds
    world, slot = quoting()
    w, target = world, np.zeros(1, r.TARGET)
    decisions = int(w.state["decisions"][0])
    whole = per_call_ns(lambda k: deciding(k, w.state, w.market, w.oracle, w.spot, w.own, w.programme, w.markets, w.account, w.guard, w.params, w.now_ns, w.wall_ns), n // 4)
    made = int(w.state["decisions"][0]) - decisions
    explained = per_call_ns(lambda k: explaining(k, target, w.state, w.params, w.now_ns), n)
    print(f"explain: {explained:.1f} ns a decision; the step that decides: {whole:.0f} ns ({made / (9 * (n // 4)):.0%} of them decided); "
          f"record {r.WHY.itemsize} of {r.TARGET.itemsize} bytes")


if __name__ == "__main__":
    main()
