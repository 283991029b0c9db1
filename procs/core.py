"""The core process: spins over the feeds' records and publishes desired quotes. Wiring only; the work is `mmbot.core`.

Writes: segments targets, decisions, params. Reads: md.market, md.oracle, md.binance, md.coinbase, md.bybit, markets, book, oracle,
account, own, guard.
Can go wrong: it is stopped or killed. Targets then pass their deadline and the executor cancels; on start it reads the present.
"""

import time

from mmbot.actor import Actor, run_spin
from mmbot.clock import mono_ns
from mmbot.core import BUDGET_NS, RING_BELL, Core
from mmbot.params import params_record
from mmbot.risk import gates

#: With one CPU nothing may spin: look once, then sleep this long.
BACKOFF_S = 0.0005
#: The wall clock of a live system is steered; the burst's copy of it is renewed this often.
CLOCK_EVERY_NS = 1_000_000_000
#: Gates that an operator should hear of, since they say that a source of prices is wrong.
CONTRADICTIONS = (
    (gates.SPOT_DISAGREE, "spot_disagree", "the spot venues moved apart; quotes are smaller"),
    (gates.ORACLE_DISAGREE, "oracle_disagree", "the leading spot venue is far from Chainlink's price"),
)


def build(actor: Actor):
    """Returns (burst, housekeeping, close) for `mmbot.actor.run_spin`."""
    params = actor.seqlock_writers["params"]
    params.rec[:] = params_record(actor.cfg.strategy, mono_ns())
    params.write()
    core = Core(params.rec)
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
