"""How fast is the core's step: nanoseconds per input, strategy by strategy, every signal on.

    python bench/core_step.py [--quick] [--json] [--seconds 15] [--inputs FILE]

Two tables of `mmbot.core.step`. In the first every input is news, with two windows quoted and own orders in their books: what a kind of input can cost. In
the second the inputs are those of a running group on the recorded tape (`core_tape`), in the mix in which its core got them; --quick leaves it out, --inputs
keeps them in FILE and takes them from there the next time.

Times come from CLOCK_MONOTONIC around each single step, less the median cost of the clock. The same inputs are played several times from the same state, so
each step does the same work each time: a cell is p50 / p99 over the inputs of each one's least time, which leaves out what else the machine did. The row
"as timed" is over all times of all rounds and leaves nothing out. Prints figures, asserts nothing but that the strategies quote.
"""

import argparse
import json
import tempfile
from pathlib import Path

import core_tape
import numpy as np
from core_tape import EVENT, Inputs
from numba import njit
from numba.core.runtime import _nrt_python, rtsys

from mmbot import core
from mmbot.clock import mono_ns_compiled
from mmbot.config import Strategy
from mmbot.params import params_block
from shm_layout import records as r

START_S = 1_775_028_600
SECOND = 1_000_000_000
GAP_NS = 2_000_000
PX = 84_000.0
PORT = 18_731
ROUNDS = 11
AIM_NS = {50: 2000, 99: 5000}
#: Everything that may be off is on, with limits that do not shut the gates for good: a pulled quote is cheap.
EVERYTHING = dict(
    warmup_ns=0, max_exposure_u6=10**9, completion=dict(enabled=True, from_s=700.0), rewards=dict(enabled=True), levels=4,
    capital=dict(bankroll_u6=10**10, side_part=1.0, max_market_exposure_u6=10**10, latency_kill_ns=10**9),
    signals=dict(micro_levels=r.TOP_N, jump_threshold=0.5, jump_pause_ns=10**9, spike_move=0.02, spike_ratio=50.0, spike_pause_ns=10**9, gamma_danger=0.5,
                 ema_fast_s=2.0, ema_slow_s=8.0, std_window_s=10.0, anchor_s=10.0, toxic_vpin=1.0, toxic_for_ns=0),
    reversion=dict(fit_id=1, beta=(0.3, 5.0, 500.0, 0.01, 10.0), divergence=0.9, flip_pause_ns=0))

_STEP = core.step


@njit
def play(events, market, oracle, spot, own, programme, markets, account, guard, cells, params, state, scratch, out):
    """Step through ``events``; the record of each is copied to its cell first, as the live loop does. out[i]: ns of step i. Returns how many changed quotes."""
    c_market, c_oracle, c_spot, c_own, c_programme, c_markets, c_account, c_guard = cells
    changed = 0
    for i in range(events.size):
        e = events[i]
        src, at = e.src, e.at
        if src == r.SRC_MARKET:
            c_market[0] = market[at]
        elif src == r.SRC_ORACLE:
            c_oracle[0] = oracle[at]
        elif src == r.SRC_SPOT:
            c_spot[0] = spot[at]
        elif src == r.SRC_OWN:
            c_own[0] = own[at]
        elif src == r.SRC_PROGRAMME:
            c_programme[0] = programme[at]
        elif src == r.SRC_MARKETS:
            c_markets[0] = markets[at]
        elif src == r.SRC_ACCOUNT:
            c_account[0] = account[at]
        elif src == r.SRC_GUARD:
            c_guard[0] = guard[at]
        before = mono_ns_compiled(scratch)
        bits = _STEP(state, src, c_market, c_oracle, c_spot, c_own, c_programme, c_markets, c_account, c_guard, params, e.now_ns, e.wall_ns)
        out[i] = mono_ns_compiled(scratch) - before
        changed += (bits & 0xFF) != 0
    return changed


@njit
def clock_cost(scratch, out):
    for i in range(out.size):
        before = mono_ns_compiled(scratch)
        out[i] = mono_ns_compiled(scratch) - before


class Player:
    """A core of one strategy that plays inputs: `run` once to get somewhere, `measure` to time what follows."""

    def __init__(self, name: str, **more):
        self.params = params_block(Strategy(strategy=name, **EVERYTHING, **more), 1)
        self.state = np.zeros(1, core.STATE)
        self.cells = tuple(np.zeros(1, d) for d in core_tape.RECORDS.values())
        self.scratch = np.zeros(2, np.int64)
        self.allocations = self.steps = 0

    def run(self, events, records, out=None) -> int:
        """Play them; returns how many steps changed quotes."""
        out = np.zeros(events.size, np.int64) if out is None else out
        stats = [rtsys.get_allocation_stats().alloc]
        for part in (events[:0], events):       # a call itself allocates for its arguments
            changed = play(part, *records.values(), self.cells, self.params, self.state, self.scratch, out)
            stats.append(rtsys.get_allocation_stats().alloc)
        self.allocations += stats[2] - 2 * stats[1] + stats[0]
        self.steps += events.size
        return changed

    def measure(self, events, records, rounds: int) -> tuple[np.ndarray, int]:
        """ns[round, input] from the state as it is, which is kept; and how many steps changed quotes."""
        times = np.zeros((rounds, events.size), np.int64)
        state, cells = self.state.copy(), [c.copy() for c in self.cells]
        for out in times:
            self.state[:] = state
            for cell, kept in zip(self.cells, cells, strict=True):
                cell[:] = kept
            changed = self.run(events, records, out)
        self.state[:] = state
        return times, changed

    def quotes(self) -> int:
        """Quotes standing in all targets."""
        return int(self.state["target"]["n_quotes"].sum())


# the first table: every input is news

def world(player: Player) -> tuple[Inputs, dict, int, int]:
    """The current and the next window quoted, all gates open, nothing ever stale: (what was given so far, records to go on from, now, wall)."""
    out, now, wall = Inputs(), 1000 * SECOND, (START_S + 60) * SECOND
    rec = {src: np.zeros(1, dtype) for src, dtype in core_tape.RECORDS.items()}
    market, oracle, spot, own, programme, markets, account, guard = rec.values()
    account["t_update_ns"], account["state"], account["user_ok"], account["cash_u6"] = 1, r.AS_READY, 1, 10**9
    guard["t_update_ns"], guard["quoting_allowed"] = 1, 1
    spot["kind"], spot["venue"], spot["bid"], spot["ask"], spot["t_recv_ns"] = r.SK_BBO, r.SV_BINANCE, PX, PX + 0.01, now
    for start in (START_S + 900, START_S):
        slot = r.slot_of(start, 900)
        row = markets["row"][0, slot]
        row["market_id"], row["slot"], row["start_s"], row["end_s"] = r.market_id(start, 900), slot, start, start + 900
        row["duration_s"], row["state"], row["accepting"], row["tick_e4"], row["min_size_u6"] = 900, r.MS_OPEN, 1, 100, 5_000_000
    for src in (r.SRC_ACCOUNT, r.SRC_GUARD, r.SRC_MARKETS, r.SRC_SPOT):
        out.add(src, now, wall, rec[src])
    for s in range(61):
        kind, at_s = (r.OK_BOUNDARY, START_S) if s == 0 else (r.OK_SPOT, START_S + s)
        oracle["kind"], oracle["t_obs_ms"], oracle["t_recv_ns"], oracle["px"], oracle["trusted"] = kind, at_s * 1000, now, PX * (1 + 1e-5 * (s % 3)), 1
        out.add(r.SRC_ORACLE, now - (60 - s) * SECOND, wall - (60 - s) * SECOND, oracle)
    for start in (START_S + 900, START_S):
        slot = r.slot_of(start, 900)
        market["kind"], market["market_id"], market["slot"], market["tick_e4"] = r.MK_BOOK, r.market_id(start, 900), slot, 100
        market["n_bid"] = market["n_ask"] = r.TOP_N
        market["bid_px_e4"], market["ask_px_e4"] = 5000 - 100 * np.arange(r.TOP_N), 5100 + 100 * np.arange(r.TOP_N)
        market["bid_size_u6"] = market["ask_size_u6"] = 250_000_000
        market["t_recv_ns"], market["trade_size_u6"], market["trade_px_e4"] = now, 30_000_000, 5000
        own["market_id"], own["slot"], own["n"], own["t_update_ns"] = r.market_id(start, 900), slot, 4, now - 1
        for k in range(4):
            own["order"][0, k] = (k % 2, r.BUY, 4900 - 100 * (k // 2), 20_000_000, now - 1)
        programme["market_id"], programme["slot"], programme["t_ns"], programme["bid_offset"], programme["ask_offset"] = r.market_id(start, 900), slot, now, 0.015, 0.015
        for src in (r.SRC_OWN, r.SRC_MARKET, r.SRC_PROGRAMME):
            out.add(src, now, wall, rec[src])
    account["position"]["market_id"][0, slot] = r.market_id(START_S, 900)
    player.run(*out.done())
    return out, rec, now, wall


def _market(rec, i, now, wall):
    rec["t_recv_ns"], rec["t_pub_ns"], rec["kind"] = now, now, r.MK_BOOK


def _top_moves(rec, i, now, wall):
    _market(rec, i, now, wall)
    bid = 5000 + (abs(i % 16 - 8) - 4) * 100
    rec["bid_px_e4"], rec["ask_px_e4"] = bid - 100 * np.arange(r.TOP_N), bid + 100 + 100 * np.arange(r.TOP_N)


def _trade(rec, i, now, wall):
    _market(rec, i, now, wall)
    rec["kind"], rec["trade_side"] = r.MK_TRADE, i & 1


def _walk(i):
    return PX * (1 + 1e-5 * ((i * 7919) % 11 - 5))


def _print(rec, i, now, wall):
    rec["kind"], rec["t_obs_ms"], rec["t_recv_ns"], rec["px"] = r.OK_SPOT, wall // 1_000_000, now, _walk(i)


def _bbo(rec, i, now, wall):
    rec["bid"], rec["ask"], rec["t_recv_ns"] = _walk(i), _walk(i) + 0.01, now


def _own(rec, i, now, wall):
    rec["t_update_ns"], rec["order"]["t_sent_ns"], rec["order"]["size_u6"][0, 0] = now, now, 20_000_000 + (i & 1) * 5_000_000


def _fill(rec, i, now, wall):
    rec["t_update_ns"] = now
    position, token = rec["position"][0, r.slot_of(START_S, 900)], ("up", "down")[i & 1]
    position[f"qty_{token}_u6"] += 1_000
    position[f"cost_{token}_u6"] += 490
    position[f"fills_{token}"] += 1


def _guard(rec, i, now, wall):
    rec["t_update_ns"] = now


def _solution(rec, i, now, wall):
    rec["t_ns"], rec["bid_offset"] = now, 0.01 + 0.01 * (i & 1)


NEWS = (("book, top unchanged", r.SRC_MARKET, _market), ("book, top moves", r.SRC_MARKET, _top_moves), ("trade", r.SRC_MARKET, _trade),
        ("Chainlink print", r.SRC_ORACLE, _print), ("spot best bid/ask", r.SRC_SPOT, _bbo), ("own orders change", r.SRC_OWN, _own),
        ("account, a fill", r.SRC_ACCOUNT, _fill), ("guard", r.SRC_GUARD, _guard), ("solution of the programme", r.SRC_PROGRAMME, _solution),
        ("timer, all windows", r.SRC_TIMER, None))


def news(src: int, change, rec, now: int, wall: int, n: int) -> tuple[np.ndarray, dict]:
    """``n`` inputs of one kind, GAP_NS apart, each changed by ``change``."""
    out = Inputs()
    for i in range(n):
        now, wall = now + GAP_NS, wall + GAP_NS
        if change:
            change(rec[src], i, now, wall)
        out.add(src, now, wall, rec[src] if change else None)
    return out.done()


def table_of_news(n: int, clock_ns: float) -> tuple[list[dict], list[Player]]:
    """Rows of the first table."""
    rows, players = [], []
    never = dict(stale_oracle_ns=10**15, witness_oracle_ns=10**15, stale_market_ns=10**15, stale_spot_ns=10**15, cutoff_s=0, next_lead_s=10_000)
    for name, src, change in NEWS:
        row = {"input": name, "steps": n}
        for strategy in r.STRATEGIES:
            player = Player(strategy, **never)
            _, rec, now, wall = world(player)
            assert player.quotes() > 0, f"{strategy} does not quote"
            times, row.setdefault("changed", {})[strategy] = player.measure(*news(src, change, rec, now, wall, n), ROUNDS)
            row[strategy] = quantiles(times.min(0), clock_ns)
            players.append(player)
        rows.append(row)
    return rows, players


# the second table: the inputs of a running group

MARKET_KINDS = {r.MK_BOOK: "book", r.MK_TRADE: "trade", r.MK_VERIFIED: "book verified", r.MK_SUSPECT: "book suspect", r.MK_RESOLVED: "window resolved"}
SPOT_VENUES = {r.SV_BINANCE: "Binance", r.SV_COINBASE: "Coinbase", r.SV_BYBIT: "Bybit"}
OTHER = {r.SRC_OWN: "own orders", r.SRC_PROGRAMME: "solution of the programme", r.SRC_MARKETS: "table of markets", r.SRC_ACCOUNT: "account", r.SRC_GUARD: "guard",
         r.SRC_TIMER: "timer"}


def name_of(event, records) -> str:
    """Row of the second table that an input belongs to."""
    src, at = int(event["src"]), int(event["at"])
    if src == r.SRC_MARKET:
        return MARKET_KINDS.get(int(records[src]["kind"][at]), "market, other")
    if src == r.SRC_ORACLE:
        return "Chainlink TWAP" if records[src]["kind"][at] == r.OK_TWAP60 else "Chainlink print"
    if src == r.SRC_SPOT:
        what = {r.SK_BBO: "best bid/ask", r.SK_TRADE: "trade"}.get(int(records[src]["kind"][at]), "ticker")
        return f"{SPOT_VENUES[int(records[src]['venue'][at])]} {what}"
    return OTHER[src]


def with_solutions(events, records) -> tuple[np.ndarray, dict]:
    """The same inputs, and once a second a solution of the linear programme for each window that has a book."""
    ids, rows, more, last = {}, [], [], 0
    for e in events:
        if e["src"] == r.SRC_MARKET:
            m = records[r.SRC_MARKET][e["at"]]
            ids[int(m["slot"])] = int(m["market_id"])
        if e["now_ns"] - last >= SECOND:
            last = int(e["now_ns"])
            for slot, market_id in ids.items():
                rec = np.zeros(1, r.PROGRAMME)
                rec["market_id"], rec["slot"], rec["t_ns"], rec["bid_offset"], rec["ask_offset"] = market_id, slot, last, 0.015, 0.015
                more.append((r.SRC_PROGRAMME, len(rows), last, int(e["wall_ns"]), 0))
                rows.append(rec)
    both = np.concatenate([events, np.array(more, EVENT)])
    return both[np.argsort(both["now_ns"], kind="stable")], {**records, r.SRC_PROGRAMME: np.concatenate(rows)}


def table_of_tape(events, records, clock_ns: float, part: float = 0.5) -> tuple[list[dict], list[Player]]:
    """Rows of the second table. The first ``part`` of the time is played untimed, so that every signal is known."""
    rows, players = {}, []
    for strategy in r.STRATEGIES:
        inputs, recs = with_solutions(events, records) if strategy == "programme" else (events, records)
        player, cut = Player(strategy, stale_market_ns=5 * SECOND), int(inputs.size * part)
        player.run(inputs[:cut], recs)
        rest = inputs[cut:]
        times, changed = player.measure(rest, recs, ROUNDS)
        least, names = times.min(0), np.array([name_of(e, recs) for e in rest])
        groups = {n: names == n for n in sorted(set(names), key=lambda n: -np.sum(names == n))}
        groups |= {"ALL": np.full(rest.size, True), "ALL but timers": names != OTHER[r.SRC_TIMER]}
        for name, which in groups.items():
            row = rows.setdefault(name, {"input": name, "steps": int(which.sum())})
            row[strategy] = quantiles(least[which], clock_ns)
        rows.setdefault("ALL, as timed", {"input": "ALL, as timed", "steps": int(times.size)})[strategy] = quantiles(times, clock_ns)
        rows["ALL"].setdefault("changed", {})[strategy] = changed
        players.append(player)
    last = ("ALL", "ALL but timers", "ALL, as timed")
    return [row for name, row in rows.items() if name not in last] + [rows[name] for name in last], players


def quantiles(times, clock_ns: float) -> dict:
    """{"p50_ns", "p99_ns"} less the cost of the clock."""
    return {f"p{q}_ns": round(max(float(np.percentile(times, q)) - clock_ns, 0.0)) for q in AIM_NS}


def show(title: str, rows: list[dict]) -> None:
    print(f"\n{title}\n{'input':26}{'n':>8}" + "".join(f"{s:>15}" for s in r.STRATEGIES))
    for row in rows:
        cells = [f"{row[s]['p50_ns']:,} / {row[s]['p99_ns']:,}" if s in row else "-" for s in r.STRATEGIES]
        print(f"{row['input']:26}{row['steps']:8,}" + "".join(f"{c:>15}" for c in cells))
        if row["input"] == "ALL":
            print(f"{'  of them changed quotes':26}{'':8}" + "".join(f"{row['changed'][s]:>15,}" for s in r.STRATEGIES))


def verdict(row: dict) -> str:
    """Whether a row meets the aim, strategy by strategy."""
    missed = [f"{s} p{q} {row[s][f'p{q}_ns']:,}" for s in r.STRATEGIES if s in row for q, aim in AIM_NS.items() if row[s][f"p{q}_ns"] > aim]
    return f"{row['input']}: aim p50 {AIM_NS[50]:,} ns, p99 {AIM_NS[99]:,} ns " + (f"missed by {', '.join(missed)}" if missed else "met by every strategy")


def inputs_of(opt) -> tuple[np.ndarray, dict]:
    """Recorded inputs: of the file that is there, else of a group of our own."""
    if opt.inputs and opt.inputs.exists():
        return core_tape.load(opt.inputs)
    with tempfile.TemporaryDirectory(prefix="mmb") as directory:
        found = core_tape.record(opt.seconds, Path(directory), PORT)
    if opt.inputs:
        core_tape.save(opt.inputs, *found)
    return found


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--quick", action="store_true", help="the first table alone, with fewer steps")
    ask.add_argument("--json", action="store_true", help="the same as data")
    ask.add_argument("--seconds", type=float, default=15.0, help="of the running group")
    ask.add_argument("--inputs", type=Path, help="file to keep the recorded inputs in")
    opt = ask.parse_args()
    _nrt_python.memsys_enable_stats()
    out = np.zeros(20_000, np.int64)
    clock_cost(np.zeros(2, np.int64), out)
    clock_ns = float(np.median(out))
    rows, players = table_of_news(500 if opt.quick else 2000, clock_ns)
    tape = []
    if not opt.quick:
        tape, more = table_of_tape(*inputs_of(opt), clock_ns)
        players += more
    steps, allocations = sum(p.steps for p in players), sum(p.allocations for p in players)
    if opt.json:
        print(json.dumps({"bench": "core_step", "clock_ns": clock_ns, "rounds": ROUNDS, "news": rows, "tape": tape, "steps": steps, "allocations": allocations,
                          "aim_ns": AIM_NS}))
        return
    show(f"every input is news, two windows quoted: ns p50 / p99 of the least of {ROUNDS} rounds", rows)
    if tape:
        show(f"inputs of a running group in their mix: ns p50 / p99 of the least of {ROUNDS} rounds", tape)
    print(f"\nallocations in {steps:,} steps: {allocations}; a look at the clock ({clock_ns:.0f} ns) is taken off")
    for row in tape[-3:]:
        print(verdict(row))


if __name__ == "__main__":
    main()
