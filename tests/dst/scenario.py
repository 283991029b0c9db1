"""What happens to a run besides its market: faults of the venue, deaths and stalls of our processes, all drawn from the seed.

Owns: `run_seed`, one judged run from one number. A run is: start, chaos, and a quiet end after which everything must agree.
"""

import gc
import time
from collections import Counter
from contextlib import nullcontext

import msgspec

from mmbot.sim.faults.catalogue import CATALOGUE, SETTLEMENT_FAULTS
from tests.dst.observer import Observer, Violation
from tests.dst.simulation import Simulation

QUIET_S = 75.0
FIRST_S = 20.0
PAUSE_S = (20.0, 90.0)
#: faults whose own numbers are too long or too rare for a run of minutes
PARAMS = {
    "restart_425": {"down_s": 12.0, "post_only_s": 15.0}, "post_only": {"retry_after_s": 5.0}, "post_delayed": {"delay_s": 4.0},
    "gamma_down": {"hang_s": 6.0}, "boundary_missing": {"every": 300}, "heartbeat_mismatch": {"n": 2},
}
LONG = {"gamma_down", "slug_missing", "oracle_hole", "balance_lag", "stale_reservation", "heartbeat_lost", "wrong_clock", "twap_late",
        "boundary_missing", "ghost_fill", "retrying", "fill_after_cancel", "cross_match", "duplicate_fill_events", "user_replayed"}
PARTIAL = {"p": (0.2, 1.0), "links": ("one", "existing", "all")}
KILLABLE = ("executor", "guardian", "core", "feed_market", "feed_user", "feed_oracle", "feed_binance", "discovery")


class Result(msgspec.Struct):
    """What came of one seed."""
    seed: int
    hours: float
    cpu_s: float
    digest: str
    violations: list[Violation]
    counts: dict[str, int]
    faults: dict[str, int]
    reports: dict[str, int]
    halts: dict[str, int]
    pnl: float
    worst: float
    history: list[str] = []


class Chaos:
    """Draws one disturbance after the other until it is told to stop."""

    def __init__(self, sim: Simulation, until_s: float):
        self.sim, self.rng, self.until_s = sim, sim.rng, until_s
        self.done: Counter = Counter()
        sim.script.call_later(FIRST_S, self._next)

    def _next(self) -> None:
        if self.sim.now_s >= self.until_s:
            return
        draw = self.rng.random()
        if draw < 0.62:
            self._fault()
        elif draw < 0.74:
            self._kill()
        elif draw < 0.86:
            self._stop()
        elif draw < 0.90:
            self._all_dead()
        elif draw < 0.94:
            self._term()
        else:
            self._stalls()
        self.sim.script.call_later(self.rng.uniform(*PAUSE_S), self._next)

    def _count(self, name: str) -> None:
        self.done[name] += 1

    def _fault(self) -> None:
        rng = self.rng
        name = rng.choice(sorted(CATALOGUE.keys() - SETTLEMENT_FAULTS))
        spec = CATALOGUE[name]
        params = {k: v for k, v in PARAMS.get(name, {}).items() if k in spec.params}
        if "p" in spec.params and rng.random() < 0.5:
            params["p"] = round(rng.uniform(*PARTIAL["p"]), 2)
        if "links" in spec.params:
            params["links"] = rng.choice(PARTIAL["links"])
        for_s = rng.uniform(10.0, 60.0) if name in LONG else rng.uniform(1.0, 20.0)
        if name == "restart_425":
            for_s = None
        self._count(name)
        self.sim.exchange.fault(name, for_s, **params)

    def _kill(self) -> None:
        name = self.rng.choice(KILLABLE)
        self._count(f"SIGKILL {name}")
        self.sim.group.kill(name)

    def _stop(self) -> None:
        name = self.rng.choice(KILLABLE)
        self._count(f"SIGSTOP {name}")
        self.sim.group.stop(name, self.rng.choice([0.3, 1.0, 3.0, 8.0]))

    def _term(self) -> None:
        name = self.rng.choice(KILLABLE)
        self._count(f"SIGTERM {name}")
        self.sim.group.term(name)

    def _all_dead(self) -> None:
        """Executor and guardian at once, and nobody starts them again for a while: only the venue's dead-man switch is left."""
        group = self.sim.group
        self._count("SIGKILL executor and guardian")
        group.supervised = False
        group.kill("executor")
        group.kill("guardian")
        self.sim.script.call_later(self.rng.uniform(5.0, 30.0), self._resurrect)

    def _resurrect(self) -> None:
        group = self.sim.group
        group.supervised = True
        for name in KILLABLE:
            group.start(name)

    def _stalls(self) -> None:
        """Many short stops: a busy machine."""
        self._count("stalls")
        for _ in range(20):
            self.sim.script.call_later(self.rng.uniform(0, 10.0), self.sim.group.stop, self.rng.choice(KILLABLE), self.rng.uniform(0.005, 0.15))


def run_seed(seed: int, seconds: float, chaos: bool = True, mutant=None, stop: bool = True, arrange=None, history: bool = False,
             **overrides) -> Result:
    """One judged run of ``seconds`` of virtual time (and a quiet end). ``mutant``: a context manager that spoils the code.

    ``arrange(sim)``: called after the start, to put things into the script.
    """
    observer = Observer(stop)
    begin = time.process_time()
    with mutant() if mutant is not None else nullcontext(), Simulation(seed, observer, **overrides) as sim:
        havoc = Chaos(sim, seconds - QUIET_S) if chaos else None
        if arrange is not None:
            arrange(sim)
        sim.run(seconds)
        if not sim.scheduler.halted:
            observer.settle()
        pnl = (observer.truth.wealth_u6(observer.mids()) - observer.truth.start_cash_u6) / 1e6
        result = Result(seed, sim.now_s / 3600, 0.0, sim.digest(), observer.violations, dict(observer.counts),
                        dict(havoc.done) if havoc else {}, dict(observer.reports), dict(observer.halts_seen), pnl, observer.worst_u6 / 1e6,
                        observer.journal if history else [])
    gc.collect()
    result.cpu_s = time.process_time() - begin
    return result
