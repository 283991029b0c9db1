"""Rounds of chaos on a real group: a random process stopped or killed while a random fault of the exchange runs, all from one seed.

After each round the faults end, the group must quote again, and positions, fills and live orders must equal the exchange's books. A lost or
doubled fill never becomes equal, nor does an orphaned order.
"""

import os
import random
import signal
import time
from collections import Counter

from running import Running, wait_for

from mmbot.clock import mono_ns

#: what runs beside a kill or a stop: name -> parameters. All end by themselves; each leaves the venue's truth readable afterwards.
FAULTS: dict[str, dict] = {
    "frames_late": {"delay_s": 0.4}, "frames_reordered": {}, "frames_duplicated": {"channels": "market+user"}, "frames_dropped": {"p": 0.05},
    "book_rollback": {}, "silent_deep_cancels": {}, "user_delayed": {"delay_s": 1.5}, "user_replayed": {}, "user_lost": {},
    "duplicate_fill_events": {}, "post_answer_lost": {"p": 0.3}, "post_delayed": {"p": 0.3, "delay_s": 1.0}, "cancel_lost": {"p": 0.5},
    "ghost_fill": {"p": 0.5}, "retrying": {"p": 0.5}, "fill_after_cancel": {"p": 0.3}, "batch_partly_refused": {}, "boundary_rejects": {},
    "rate_limited": {"p": 0.3, "retry_after_s": 0.3}, "slow_responses": {"delay_s": 0.3, "jitter_s": 0.2}, "html_errors": {"p": 0.2},
    "truncated_json": {"p": 0.2}, "empty_listing": {"p": 0.5}, "heartbeat_mismatch": {}, "balance_lag": {"lag_s": 2.0}, "freeze_market": {"links": "one"},
    "freeze_user": {}, "freeze_rtds": {}, "freeze_polybolt": {}, "freeze_binance": {}, "disconnect_without_close": {}, "cross_match": {},
    "restart_425": {"down_s": 0.8, "post_only_s": 1.0},
}
STOPPED_S = (0.2, 5.0)
FAULT_S = (0.5, 3.0)
AGAIN_S = 60.0
WATCHED = ("core", "executor", "feed_market", "feed_user", "feed_oracle")


class Chaos:
    """``rounds``: what was done, in words; ``flat_ms``: from the signal until the venue listed no order of ours, where the guardian acted."""

    def __init__(self, group: Running, seed: int, names: list[str]):
        self.group, self.seed, self.names = group, seed, names
        self.rng = random.Random(seed)
        self.rounds: list[str] = []
        self.flat_ms: list[float] = []
        self.counts: Counter = Counter()

    def round(self) -> None:
        """One round, and the check after it."""
        rng, group = self.rng, self.group
        name, kill = rng.choice(self.names), rng.random() < 0.5
        fault, for_s, pause_s = rng.choice(sorted(FAULTS)), rng.uniform(*FAULT_S), rng.uniform(0.0, 0.8)
        stop_s = rng.uniform(*STOPPED_S)
        what = f"seed {self.seed} round {len(self.rounds) + 1}: {fault} for {for_s:.1f} s, {name} " + ("killed" if kill else f"stopped for {stop_s:.1f} s")
        self.counts.update([fault, "kill" if kill else "stop"])
        try:
            group.wait_quoting(AGAIN_S)
            group.fault(fault, for_s, **FAULTS[fault])
            time.sleep(pause_s)
            begin = mono_ns()
            self._disturb(name, kill, stop_s)
            group.since_ns = mono_ns()
            if name != "sim" or not kill:       # a restarted exchange has forgotten its faults
                group.heal()
            group.wait_quoting(AGAIN_S)
            group.wait_agreement(AGAIN_S)
        except (AssertionError, OSError) as e:
            raise AssertionError(f"{what}: {e}") from e
        flat_ms = self._time_to_flat(begin) if name in WATCHED else None
        if flat_ms is not None:
            self.flat_ms.append(flat_ms)
        self.rounds.append(f"{what}; " + (f"flat after {flat_ms:.0f} ms; " if flat_ms is not None else "")
                           + f"{len(group.books()['fills'])} fills, all agrees {(mono_ns() - begin) / 1e9:.1f} s after it")

    def _disturb(self, name: str, kill: bool, stop_s: float) -> None:
        pid, group = self.group.pid(name), self.group
        if kill:
            before = group.epochs()[name]
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: group.epochs()[name] > before and group.view.state(name) == "RUN", AGAIN_S, lambda: f"{name} stays down: {group.states()}")
            return
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(stop_s)
        finally:
            os.kill(pid, signal.SIGCONT)

    def _time_to_flat(self, begin_ns: int) -> float | None:
        guard = self.group.view.latest("guard")
        panic_ns, flat_ns = int(guard["last_panic_ns"]), int(guard["last_flat_ns"])
        return (flat_ns - begin_ns) / 1e6 if begin_ns < panic_ns <= flat_ns else None

    def summary(self) -> str:
        """Seed, counts and times in one paragraph."""
        times = sorted(self.flat_ms)
        shown = f"last seen flat after {times[len(times) // 2]:.0f} ms p50, {times[-1]:.0f} ms max of {len(times)}" if times else "nothing to flatten"
        return (f"seed {self.seed}: {len(self.rounds)} rounds, {self.counts['kill']} kills, {self.counts['stop']} stops, {len(self.counts) - 2} kinds of "
                f"faults, {len(self.group.books()['fills'])} fills; 0 lost, 0 doubled, 0 orphans; {shown}")
