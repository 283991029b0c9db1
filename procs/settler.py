"""Process `settler`: merges full sets into dollars and redeems resolved windows, one operation at a time. Wiring only.

Writes: the `settlement` ring, the settlement journal. Reads: `markets`, `account`, `own`. Nobody waits for it: it can die and come back at any
moment, and finds out first what became of the operation it left under way. `pause_merges` in the run directory pauses merges while it is there.
Can go wrong: see `mmbot.settlement.settler`; settings under which nothing can be settled are said once a minute, and the process stays.
In a dry run it settles nothing.
"""

import asyncio

from mmbot.actor import Actor, run_async
from mmbot.clock import mono_ns
from mmbot.errors import UserError
from mmbot.execution.credentials import credentials
from mmbot.settlement.journal import FILE, PAUSE_FILE, Op, SettlementJournal
from mmbot.settlement.publisher import Totals, endpoints_missing, fill, fill_totals, holdings
from mmbot.settlement.settler import Settler
from mmbot.settlement.wallet import Wallet, WalletError
from shm_layout.records import AS_READY, MARKET_SLOTS

IDLE_S = 1.0
FRESH_NS = 5_000_000_000        # an account older than this is nobody's word


class Report:
    """Counters and complaints on this process's vitals page, results in its log."""

    def __init__(self, actor: Actor):
        self.event, self.error, self.info = actor.vitals.event, actor.error, actor.log.info


class Memory:
    """Positions as they are now."""

    def __init__(self, actor: Actor):
        self.markets, self.account, self.own = (actor.seqlock_readers[n] for n in ("markets", "account", "own"))

    def look(self) -> tuple[list, dict, bool]:
        """(holdings, facts of their windows, is the executor ready)."""
        if self.markets.read() <= 0 or self.account.read() <= 0:
            return [], {}, False
        owns = []
        for slot in range(MARKET_SLOTS):
            if self.own.read(slot) <= 0:
                self.own.words[:] = 0
            owns.append(self.own.rec[0].copy())
        account = self.account.rec[0]
        ready = int(account["state"]) == AS_READY and mono_ns() - int(account["t_update_ns"]) < FRESH_NS and not int(account["difference_since_ns"])
        return *holdings(self.markets.rec[0], account, owns), ready


def build(actor: Actor) -> tuple[Settler, Wallet, SettlementJournal]:
    """The settler with its wallet, journal and memory. Errors: UserError, OSError."""
    cfg = actor.cfg
    journal = SettlementJournal(cfg.run.path / FILE)
    wallet = Wallet(cfg, credentials(cfg, need_api=False))
    out, totals = actor.ring_writers["settlement"], Totals(journal.ops.values())

    def publish(op: Op) -> None:
        fill(out.rec, op, totals, mono_ns())
        out.publish()

    fill_totals(out.rec, totals, mono_ns())
    out.publish()
    flag = cfg.run.path / PAUSE_FILE
    return Settler(cfg.settlement, wallet, journal, Memory(actor).look, publish, Report(actor), mono_ns, actor.clock.now_ns, flag.exists), wallet, journal


async def _work(actor: Actor, settler: Settler) -> None:
    settler.resume()
    while True:
        try:
            await settler.turn()
        except (WalletError, UserError) as e:
            actor.error("settle", str(e))
        await asyncio.sleep(actor.cfg.settlement.poll_s)


async def _idle(actor: Actor, why: str) -> None:
    while True:
        if why:
            actor.error("settings", why)
        await asyncio.sleep(IDLE_S)


async def main(actor: Actor) -> None:
    """Settle until the actor stops."""
    cfg = actor.cfg
    off = cfg.execution.dry_run or not cfg.settlement.enabled       # a dry run touches nothing of the account
    if off or (missing := endpoints_missing(cfg)):
        await _until(actor, _idle(actor, "" if off else missing))
        return
    settler, wallet, journal = build(actor)
    try:
        await _until(actor, _work(actor, settler))
    finally:
        await wallet.close()
        journal.close()


async def _until(actor: Actor, work) -> None:
    """Run until the actor stops; what ends the work before ends the process."""
    ends = [asyncio.create_task(work), asyncio.create_task(actor.stopped.wait())]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for end in ends:
        end.cancel()
    for result in await asyncio.gather(*ends, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


if __name__ == "__main__":
    run_async("settler", main)
