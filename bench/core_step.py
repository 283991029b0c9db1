"""How fast is the core's step: nanoseconds per input with the pair strategy, measured input by input.

    python bench/core_step.py [--quick] [--json]

Each row is one kind of input to `mmbot.core.step` with two windows quoted and own orders in their books. Times come from CLOCK_MONOTONIC around each single step, less
the cost of the clock itself. Prints figures, asserts nothing.
"""

import argparse
import json

import numpy as np
from numba import njit

from mmbot import core
from mmbot.clock import mono_ns_compiled
from mmbot.config import Strategy
from mmbot.params import params_block
from shm_layout import records as r

START_S = 1_775_028_600
SECOND = 1_000_000_000
PX = 84_000.0

_STEP = core.step


@njit
def run(n, src, mids, levels, state, market, oracle, spot, own, programme, markets, account, guard, params, now_ns, wall_ns, scratch, out):
    """``n`` inputs of one kind, each with new content, 2 ms of virtual time apart. out[i]: ns of step i. Returns how many changed quotes."""
    changed = 0
    for i in range(n):
        now_ns += 2_000_000
        wall_ns += 2_000_000
        market[0].t_recv_ns = now_ns
        spot[0].t_recv_ns = now_ns
        for k in range(r.TOP_N):
            market[0].bid_px_e4[k] = mids[i] - 100 * k
            market[0].ask_px_e4[k] = mids[i] + 100 + 100 * k
        own[0].t_update_ns = now_ns
        own[0].order[0].size_u6 = 20_000_000 + (i & 1) * 5_000_000
        own[0].order[0].t_sent_ns = now_ns
        spot[0].bid = levels[i]
        spot[0].ask = levels[i] + 0.01
        if src == 2:
            oracle[0].t_obs_ms = wall_ns // 1_000_000
            oracle[0].t_recv_ns = now_ns
            oracle[0].px = levels[i]
        before = mono_ns_compiled(scratch)
        bits = _STEP(state, src, market, oracle, spot, own, programme, markets, account, guard, params, now_ns, wall_ns)
        out[i] = mono_ns_compiled(scratch) - before
        changed += (bits & 0xFF) != 0
    return changed


@njit
def clock_cost(scratch, out):
    for i in range(out.size):
        before = mono_ns_compiled(scratch)
        out[i] = mono_ns_compiled(scratch) - before


def world():
    """Arguments of a step with the current and the next window quoted (all gates open, nothing ever stale)."""
    never = dict(stale_oracle_ns=10**15, witness_oracle_ns=10**15, stale_market_ns=10**15)
    params = params_block(Strategy(warmup_ns=0, cutoff_s=0, next_lead_s=10_000, **never), 1)
    state = np.zeros(1, core.STATE)
    market, oracle, spot = np.zeros(1, r.MARKET), np.zeros(1, r.ORACLE), np.zeros(1, r.SPOT)
    own, programme, markets, account, guard = np.zeros(1, r.OWN), np.zeros(1, r.PROGRAMME), np.zeros(1, r.MARKETS), np.zeros(1, r.ACCOUNT), np.zeros(1, r.GUARD)
    account["t_update_ns"], account["state"], account["user_ok"], account["cash_u6"] = 1, r.AS_READY, 1, 10**9
    guard["t_update_ns"], guard["quoting_allowed"] = 1, 1
    now, wall = 1000 * SECOND, (START_S + 10) * SECOND
    args = (state, market, oracle, spot, own, programme, markets, account, guard, params)

    def step(src):
        core.step(state, src, *args[1:], now, wall)

    spot["kind"], spot["venue"], spot["bid"], spot["ask"], spot["t_recv_ns"] = r.SK_BBO, r.SV_BINANCE, PX, PX + 0.01, now
    step(r.SRC_SPOT)
    for kind, obs_s in ((r.OK_BOUNDARY, START_S), (r.OK_SPOT, START_S + 10)):
        oracle["kind"], oracle["t_obs_ms"], oracle["t_recv_ns"], oracle["px"], oracle["trusted"] = kind, obs_s * 1000, now, PX, 1
        step(r.SRC_ORACLE)
    for start in (START_S + 900, START_S):
        slot = r.slot_of(start, 900)
        row = markets["row"][0, slot]
        row["market_id"], row["slot"], row["start_s"], row["end_s"] = r.market_id(start, 900), slot, start, start + 900
        row["duration_s"], row["state"], row["accepting"], row["tick_e4"], row["min_size_u6"] = 900, r.MS_OPEN, 1, 100, 5_000_000
        market["kind"], market["market_id"], market["slot"], market["tick_e4"] = r.MK_BOOK, row["market_id"], slot, 100
        market["n_bid"] = market["n_ask"] = r.TOP_N
        market["bid_px_e4"], market["ask_px_e4"] = 5000 - 100 * np.arange(r.TOP_N), 5100 + 100 * np.arange(r.TOP_N)
        market["bid_size_u6"] = market["ask_size_u6"] = 250_000_000
        market["t_recv_ns"] = now
        own["market_id"], own["slot"], own["n"], own["t_update_ns"] = row["market_id"], slot, 4, now - 1
        for k in range(4):
            own["order"][0, k] = (k % 2, r.BUY, 4900 - 100 * (k // 2), 20_000_000, now - 1)
        step(r.SRC_OWN)
        step(r.SRC_MARKET)
    assert all(state["target"]["n_quotes"][0, r.slot_of(s, 900)] == 4 for s in (START_S, START_S + 900))
    return args, now, wall


def measure(n: int) -> list[dict]:
    rng = np.random.default_rng(7)
    scratch, out = np.zeros(2, np.int64), np.zeros(n, np.int64)
    clock_cost(scratch, out)
    clock_ns = float(np.median(out))
    walk = np.cumsum(rng.choice([-1, 1], n))
    moving = 5000 + (np.abs(walk % 80 - 40) - 20) * 100
    still = np.full(n, 5000)
    prices = PX * np.exp(np.cumsum(rng.normal(0, 1e-6, n)))
    rows = []
    for name, src, mids in (("book, top unchanged", r.SRC_MARKET, still), ("book, top moves", r.SRC_MARKET, moving),
                            ("Chainlink print", r.SRC_ORACLE, still), ("Binance best bid/ask", r.SRC_SPOT, still),
                            ("own orders change", r.SRC_OWN, still), ("timer, all windows", r.SRC_TIMER, still)):
        (state, *inputs), now, wall = world()
        run(min(n, 1000), src, mids, prices, state, *inputs, now, wall, scratch, out)
        (state, *inputs), now, wall = world()
        changed = run(n, src, mids, prices, state, *inputs, now, wall, scratch, out)
        p50, p90, p99 = (max(float(q) - clock_ns, 0.0) for q in np.percentile(out, [50, 90, 99]))
        rows.append({"input": name, "steps": n, "changed_quotes": int(changed), "p50_ns": round(p50), "p90_ns": round(p90),
                     "p99_ns": round(p99)})
    return rows


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--quick", action="store_true", help="fewer steps")
    ask.add_argument("--json", action="store_true", help="the same as data")
    opt = ask.parse_args()
    rows = measure(20_000 if opt.quick else 300_000)
    worst = max(row["p50_ns"] for row in rows)
    if opt.json:
        print(json.dumps({"bench": "core_step", "rows": rows, "worst_p50_ns": worst, "aim_p50_ns": 1000}))
        return
    print(f"{'input':24}{'steps':>9}{'changed':>9}{'p50 ns':>9}{'p90 ns':>9}{'p99 ns':>9}")
    for row in rows:
        print(f"{row['input']:24}{row['steps']:9,}{row['changed_quotes']:9,}{row['p50_ns']:9,}{row['p90_ns']:9,}{row['p99_ns']:9,}")
    print(f"worst p50 {worst} ns; aim 1000 ns: {'met, ' + format(1000 / max(worst, 1), '.1f') + ' times faster' if worst <= 1000 else 'missed'}")


if __name__ == "__main__":
    main()
