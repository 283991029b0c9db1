"""The core process: spins over the feeds' records and publishes desired quotes. Wiring only; the work is `mmbot.core`.

Writes: segments targets, decisions, params. Reads: md.market, md.oracle, md.binance, md.coinbase, md.bybit, markets, book, oracle,
account, own, guard, params_next, programme.
Can go wrong: it is stopped or killed. Targets then pass their deadline and the executor cancels; on start it reads the present, and goes on with the
newest parameters that were offered, not with those of the file. A block that is not what its version says is refused, and the old one kept.
"""

import time

from mmbot.actor import Actor, run_spin
from mmbot.clock import mono_ns
from mmbot.core import BUDGET_NS, RING_BELL, Core
from mmbot.params import fault, params_block, version_name
from mmbot.risk import gates
from shm_layout.seqlock import read

#: With one CPU nothing may spin: look once, then sleep this long.
BACKOFF_S = 0.0005
#: The wall clock of a live system is steered; the burst's copy of it is renewed this often.
CLOCK_EVERY_NS = 1_000_000_000
#: Gates that an operator should hear of, since they say that a source of prices is wrong.
CONTRADICTIONS = (
    (gates.SPOT_DISAGREE, "spot_disagree", "the spot venues moved apart; quotes are smaller"),
    (gates.ORACLE_DISAGREE, "oracle_disagree", "the leading spot venue is far from Chainlink's price"),
)


class Parameters:
    """The block the core trades with, and the one that is offered to it."""

    def __init__(self, actor: Actor):
        self.actor, self.offered, self.applied = actor, actor.seqlock_readers["params_next"], actor.seqlock_writers["params"]
        self._seen = 0
        before = self.applied.rec
        known = read(self.applied.mem, 0, self.applied.words) > 0
        version, changes = (int(before["version"][0]), int(before["changes"][0])) if known else (0, 0)
        block = self.take_offer()
        block = params_block(actor.cfg.strategy, mono_ns()) if block is None else block
        self._publish(block, changes + (1 if known and version != block["version"][0] else 0), mono_ns())

    def take_offer(self):
        """The offered block if it is new and sound, else None."""
        if self.offered.version() == self._seen:
            return None
        got = self.offered.read()
        if got <= 0:
            return None
        self._seen = got
        if why := fault(self.offered.rec):
            self.actor.error("params_refused", f"an offered parameter block is refused: {why}")
            return None
        return self.offered.rec

    def look(self, core: Core, now_ns: int) -> None:
        """Take over what is offered. `params` is written before the targets that it makes, so who reads a target finds its parameters."""
        block = self.take_offer()
        if block is not None and block["version"][0] != self.applied.rec["version"][0]:
            core.change(block, now_ns)
            self._publish(block, int(self.applied.rec["changes"][0]) + 1, now_ns)
            self.actor.log.info("parameters {} apply", version_name(block["version"][0]))

    def _publish(self, block, changes: int, now_ns: int) -> None:
        rec = self.applied.rec
        rec[:] = block
        rec["t_update_ns"], rec["changes"] = now_ns, changes
        self.applied.write()


def build(actor: Actor):
    """Returns (burst, housekeeping, close) for `mmbot.actor.run_spin`."""
    params = Parameters(actor)
    core = Core(params.applied.rec)
    core.bind(actor.ring_readers, actor.seqlock_readers, actor.seqlock_writers["targets"], actor.ring_writers["decisions"],
              actor.vitals)
    spins = actor.place.wait == "spin"
    next_clock_ns = 0

    def set_clock(now_ns: int) -> None:
        nonlocal next_clock_ns
        next_clock_ns = now_ns + CLOCK_EVERY_NS
        wall = actor.clock
        if wall.simulated:
            core.set_clock(wall.wall0_ns, wall.mono0_ns, wall.rate, BUDGET_NS if spins else 0)
        else:
            core.set_clock(wall.now_ns(), now_ns, 1.0, BUDGET_NS if spins else 0)

    def burst() -> int:
        done = core.spin()
        if done & RING_BELL:
            actor.ring_bells("targets")
        elif not spins and done == 0:
            time.sleep(BACKOFF_S)
        return done >> 1

    def housekeeping(now_ns: int) -> None:
        if now_ns >= next_clock_ns:
            set_clock(now_ns)
            for gate, code, text in CONTRADICTIONS:
                if int(core.state["shared"]["gates"][0]) & gate:
                    actor.warn(code, text)
        params.look(core, now_ns)
        if core.housekeeping(now_ns):
            actor.warn("lapped", "a feed's ring was lapped; the present was read again")

    def close() -> None:
        core.retire(mono_ns())
        actor.ring_bells("targets")

    set_clock(mono_ns())
    core.attach(mono_ns())
    return burst, housekeeping, close


if __name__ == "__main__":
    run_spin("core", build)
