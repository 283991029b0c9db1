"""The programme process: solves the linear programme of each window and publishes the offsets. Wiring only; the work is `mmbot.programme`.

Writes: segment programme. Reads: targets, book, account, params. Runs only when a strategy asks for it.
Can go wrong: it stops or finds no solution. The core then quotes by the last good one for valid_ns, and by the default spread after that.
"""

import asyncio

from mmbot.actor import Actor, run_async
from mmbot.clock import mono_ns
from mmbot.programme import Solver
from shm_layout import records as r

POLL_S = 0.02


def look(actor: Actor, solver: Solver, now_ns: int) -> None:
    """Solve what is due."""
    seen, out = actor.seqlock_readers, actor.seqlock_writers["programme"]
    if seen["params"].read() <= 0 or seen["account"].read() <= 0:
        return
    block, account = seen["params"].rec[0], seen["account"].rec[0]
    for slot in range(r.MARKET_SLOTS):
        params = block["of"][1 if slot >= r.MARKET_SLOTS // 2 else 0]
        if not solver.due(slot, params, now_ns) or seen["targets"].read(slot) <= 0 or seen["book"].read(slot) <= 0:
            continue
        target = seen["targets"].rec[0]
        if target["market_id"] <= 0 or target["deadline_ns"] < now_ns or target["q_up"] <= 0:
            continue
        solution, why = solver.turn(slot, target, account["position"][slot], seen["book"].rec[0], params, int(block["version"]), now_ns)
        out.rec[0] = solution
        out.write(slot)
        if why:
            actor.warn("unsolved", f"window {int(target['market_id'])}: {why}")


async def main(actor: Actor) -> None:
    solver = Solver()
    while not actor.stopping:
        look(actor, solver, mono_ns())
        await asyncio.sleep(POLL_S)


if __name__ == "__main__":
    run_async("programme", main)
