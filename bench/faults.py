"""The fault table: each fault of the catalogue in deterministic simulation, many seeds each, beside the same runs without it.

Prints markdown. Per fault: what the operator sees (halts, gates and error codes that the twin does not show), the time from the fault to safe
for good (p50 and p99 over the seeds), the longest single stretch of danger (p99; a fault that lasts is met again and again), the loss against
the twin in dollars (mean and worst, at fair value), and whether every invariant held.

Safe, from the exchange's truth: no order of ours rests while anything we believe is wrong. In danger is a group with resting orders when
    an order rests that the executor does not know or whose fate is unknown to it, or nobody is there to know it,
    or its position differs from the venue's,
    or the top of book it believes in is not the venue's, or its newest frame or oracle print is older than the limits.
What lasts less than 0.2 s (a wrong top: 1 s) is not counted: so long the truth may take to arrive without any fault.
Usage: bench/faults.py [--seeds 20] [--only NAME ...] [--workers N]
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmbot.sim.faults.catalogue import CATALOGUE, SETTLEMENT_FAULTS  # noqa: E402
from shm_layout import records as r  # noqa: E402
from tests.dst.observer import Observer  # noqa: E402
from tests.dst.scenario import PARAMS  # noqa: E402
from tests.dst.simulation import START_S, Simulation  # noqa: E402

S = 1_000_000_000
LENGTH_S, ONSET_S, FAULT_S, LOOK_S = 170.0, 75.0, 15.0, 0.1
LEAST_S = {"wrong top": 1.0}
#: faults that concern the roll (at 45 s), the listing of a window, or slow watchers: (onset, duration)
TIMES = {
    "boundary_missing": (30.0, 30.0), "twap_late": (30.0, 30.0), "boundary_rejects": (35.0, 30.0), "oracle_hole": (75.0, 8.0),
    "slug_missing": (0.0, 60.0), "gamma_down": (0.0, 30.0), "market_without_book": (0.0, 60.0), "wrong_clock": (75.0, 40.0),
    "ghost_fill": (75.0, 25.0), "retrying": (75.0, 25.0), "heartbeat_lost": (75.0, 25.0), "restart_425": (75.0, None), "tick_change": (75.0, 15.0),
}
MORE = {"slug_missing": {"markets": "all"}, "market_without_book": {"markets": "all"}}


class Watch(Observer):
    """An observer that also notes when the group is in danger. ``onset_s``: from when on."""

    def __init__(self, onset_s: float):
        super().__init__(stop=False)
        self.onset_s = onset_s
        self.danger: list[tuple[float, float, str]] = []
        self._danger_since: float | None = None
        self._why = ""
        self.seen_gates: Counter = Counter()

    def begin(self, sim) -> None:
        super().begin(sim)
        sim.script.call_later(self.onset_s, self._look)

    def _look(self) -> None:
        sim = self.sim
        sim.script.call_later(LOOK_S, self._look)
        now_s, why = sim.now_s, self.wrong()
        if why:
            if self._danger_since is None:
                self._danger_since, self._why = now_s, why
        elif self._danger_since is not None:
            self._close(now_s)
        slot = r.slot_of(START_S, 900)
        if self.targets.read(slot) > 0:
            self.seen_gates.update(r.gate_names(int(self.targets.rec["gates"][0])))

    def _close(self, now_s: float) -> None:
        if now_s - self._danger_since >= LEAST_S.get(self._why, 0.2):
            self.danger.append((self._danger_since, now_s, self._why))
        self._danger_since = None

    def wrong(self) -> str:
        """What makes this moment dangerous, "" if nothing does."""
        live = self.truth.live()
        if not live:
            return ""
        self._read_words(self.scheduler.now_ns)
        known = self.known()
        if known is None:
            return "nobody knows the orders"
        if any(order_id not in known for order_id in live):
            return "unknown order"
        if any(known[order_id].unknown for order_id in live):
            return "fate unknown"
        if self.difference():
            return "position"
        return self._blind(live)

    def _blind(self, live: dict) -> str:
        now, strategy = self.scheduler.now_ns, self.sim.cfg.strategy
        for market in {o.market.condition_id: o.market for o in live.values()}.values():
            slot = r.slot_of(market.spec.start_s, market.spec.duration_s)
            if self.book.read(slot) <= 0 or self.book.rec["market_id"][0] != market.spec.market_id:
                return "no book"
            book = self.book.rec[0]
            if (int(book["bid_px_e4"][0]), int(book["ask_px_e4"][0])) != market.best():
                return "wrong top"
            if now - int(book["t_recv_ns"]) > strategy.stale_market_ns:
                return "old book"
        if self.oracle.read() > 0 and now - int(self.oracle.rec["spot"]["t_recv_ns"][0]) > strategy.stale_oracle_ns:
            return "old oracle"
        return ""

    def safe_s(self) -> float:
        """Seconds from the onset to the end of the last danger; 0 when there was none, inf when it had not ended."""
        if self._danger_since is not None and self.sim.now_s - self._danger_since >= LEAST_S.get(self._why, 0.2):
            return float("inf")
        return max((end for _, end, _ in self.danger), default=self.onset_s) - self.onset_s

    def longest_s(self) -> float:
        """The longest stretch of danger."""
        return max((end - begin for begin, end, _ in self.danger), default=0.0)


def run(job: tuple[str, int, float]) -> dict:
    """One run: fault name ("" for the twin), seed, onset of the danger watch."""
    name, seed, onset_s = job
    watch = Watch(onset_s)
    begin = time.process_time()
    with Simulation(seed, watch) as sim:
        if name:
            _, for_s = TIMES.get(name, (ONSET_S, FAULT_S))
            params = {k: v for k, v in (PARAMS.get(name, {}) | MORE.get(name, {})).items() if k in CATALOGUE[name].params}
            sim.script.call_later(onset_s, lambda: sim.exchange.fault(name, for_s, **params))
        sim.run(LENGTH_S)
        watch.settle()
        return {"name": name, "seed": seed, "safe_s": watch.safe_s(), "longest_s": watch.longest_s(), "why": Counter(w for *_, w in watch.danger),
                "pnl": (watch.truth.wealth_u6(watch.mids()) - watch.truth.start_cash_u6) / 1e6, "violations": [v.name for v in watch.violations],
                "halts": watch.halts_seen, "gates": watch.seen_gates, "reports": watch.reports, "fills": watch.counts["trade MATCHED"],
                "cpu_s": time.process_time() - begin}


def quantile(values: list[float], q: float) -> float:
    """The value at rank q, rounded up."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def sees(runs: list[dict], twins: dict[int, dict]) -> str:
    """Halts, gates and codes that at least a third of the runs show and their twins do not."""
    seen: Counter = Counter()
    for one in runs:
        twin = twins[one["seed"]]
        seen.update({f"halt {n}" for n in one["halts"] if n not in twin["halts"]})
        seen.update({f"gate {n}" for n in one["gates"] if n not in twin["gates"]})
        seen.update({n.replace(":", " ") for n in one["reports"] if n not in twin["reports"]})
    often = [name for name, count in seen.most_common() if count * 3 >= len(runs)]
    rank = sorted(often, key=lambda n: (not n.startswith("halt"), not n.startswith("gate"), -seen[n]))
    return ", ".join(rank[:6]) or "nothing unusual"


def row(name: str, runs: list[dict], twins: dict[int, dict]) -> str:
    """One line of the table."""
    safe = [one["safe_s"] for one in runs]
    loss = [twins[one["seed"]]["pnl"] - one["pnl"] for one in runs]
    broken = Counter(v for one in runs for v in set(one["violations"]))
    show = lambda s: "not within the run" if s == float("inf") else f"{s:.1f}"
    why = Counter()
    for one in runs:
        why.update(one["why"])
    dangers = ", ".join(n for n, _ in why.most_common(2)) or "none"
    return (f"| {name} | {sees(runs, twins)} | {dangers} | {show(quantile(safe, 0.5))} | {show(quantile(safe, 0.99))} | "
            f"{show(quantile([one['longest_s'] for one in runs], 0.99))} | {sum(loss) / len(loss):+.2f} | {max(loss):+.2f} | "
            + ("yes" if not broken else "NO: " + ", ".join(f"{n} {c}" for n, c in broken.items())) + " |")


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--seeds", type=int, default=20)
    ask.add_argument("--only", nargs="*", default=[], help="names of faults")
    ask.add_argument("--workers", type=int, default=os.cpu_count())
    opt = ask.parse_args()
    names, seeds = opt.only or [n for n in CATALOGUE if n not in SETTLEMENT_FAULTS], range(1, opt.seeds + 1)
    jobs = [("", seed, ONSET_S) for seed in seeds] + [(n, seed, TIMES.get(n, (ONSET_S, 0))[0]) for n in names for seed in seeds]
    begin, runs, everything, twins = time.monotonic(), [], [], {}
    print("| fault | the operator sees | in danger by | to safe p50 s | p99 s | longest p99 s | loss, mean $ | worst $ | invariants held |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    with multiprocessing.get_context("spawn").Pool(opt.workers, maxtasksperchild=100) as pool:
        for one in pool.imap(run, jobs):
            runs.append(one)
            everything.append(one)
            if len(runs) == opt.seeds:          # the runs come in order: all of one fault, the twins first
                if not twins:
                    twins = {twin["seed"]: twin for twin in runs}
                else:
                    print(row(one["name"], runs, twins), flush=True)
                runs = []
    quiet = [t["safe_s"] for t in twins.values()]
    print(f"\n{len(names)} faults, {opt.seeds} seeds each, {LENGTH_S:g} s of virtual time a run; without a fault: last danger p50 "
          f"{quantile(quiet, 0.5):.1f} s, worst {max(quiet):.1f} s, {sum(len(t['violations']) for t in twins.values())} violations, "
          f"{sum(t['fills'] for t in twins.values()) / len(twins):.0f} fills a run. CPU {sum(o['cpu_s'] for o in everything):.0f} s, "
          f"wall {time.monotonic() - begin:.0f} s.")
    return 1 if any(one["violations"] for one in everything) else 0


if __name__ == "__main__":
    sys.exit(main())
