"""Process `executor`: desired quotes x live orders -> posts and cancels. The only process that spends money. Wiring only.

Writes: `account`, `own`, `orders`, the order journal. Reads: `targets`, `markets`, `user`, `guard`, `params`, `settlement` and
the settler's journal. Woken by its doorbell, and every 5 ms anyway.
Can go wrong: see `mmbot.execution.manager` and `recovery`; the account state stays BOOT or RECONCILING, and nothing is quoted, until the
venue's orders and trades have been read.
"""

import asyncio

from mmbot.actor import Actor, run_async
from mmbot.clock import mono_ns
from mmbot.execution.credentials import credentials
from mmbot.execution.gateway import Gateway
from mmbot.execution.http1 import ConnectionPool
from mmbot.execution.l2 import L2Auth
from mmbot.execution.manager import Links, OrderManager
from mmbot.execution.order_journal import OrderJournal
from mmbot.execution.pool import SignedPool
from mmbot.execution.recovery import Recovery
from mmbot.execution.order import LIVE
from mmbot.execution.rest import RestClient, VenueError
from mmbot.execution.settlements import Settlements
from mmbot.execution.signing import OrderSigner, Salts
from mmbot.execution.wire import Requests
from mmbot.settlement.journal import FILE
from shm_layout.records import DURATIONS
from shm_layout.seqlock import read

RESOLVE_S, WATCH_S, WANT_S, TEND_S = 0.02, 0.02, 0.1, 1.0
SCORING_IDS = 100               # orders named in one question


class Report:
    """The manager's counters, hops and errors, on this process's vitals page."""

    def __init__(self, actor: Actor):
        self.event, self.hop, self.error = actor.vitals.event, actor.vitals.hop, actor.error


def build(actor: Actor, who) -> tuple[OrderManager, Gateway]:
    """The manager with its transport, pool and memory."""
    cfg = actor.cfg
    requests = Requests(cfg.venue.clob_url, L2Auth(who))
    posts = max(1, cfg.execution.connections // 2)
    pools = [ConnectionPool(cfg.venue.clob_url, n, cfg.execution.request_timeout_s, requests.get_public("/ok"), on_event=_counter(actor))
             for n in (posts, max(1, cfg.execution.connections - posts))]
    gateway = Gateway(requests, *pools, dry_run=cfg.execution.dry_run)
    pool = SignedPool(OrderSigner(who, cfg.venue.chain_id), Salts(), int(cfg.execution.pool_max_age_s * 1e9), cfg.execution.pool_radius_ticks)
    user = actor.ring_readers["user"]
    user.link[0] = max(int(user.link[0]) - 1, 0)     # the newest record says whether the user channel is up, and on which connection
    readers = actor.seqlock_readers
    links = Links(readers["targets"], readers["markets"], readers["guard"], user, actor.seqlock_writers["account"],
                  actor.seqlock_writers["own"], actor.ring_writers["orders"], params=readers["params"])
    journal = OrderJournal(cfg.run.path / "journal" / "orders.log")
    execution = cfg.execution.model_copy(update={"adopt": "keep"}) if cfg.execution.dry_run else cfg.execution      # a dry run leaves others' orders alone
    manager = OrderManager(execution, gateway, pool, journal, links, Report(actor), mono_ns, actor.clock.now_ns,
                           cfg.guardian.reserved_cancels)
    manager.max_exposure_u6 = max(cfg.strategy.max_exposure_u6, 1)      # until the core says what it trades with
    manager.read_params()
    manager.settlements = Settlements(manager, actor.ring_readers["settlement"], cfg.run.path / FILE)
    _count_on(manager, links.account)
    return manager, gateway


def _count_on(manager: OrderManager, account) -> None:
    """Go on counting where an earlier life of this process stopped: the account's memory outlives it."""
    if read(account.mem, 0, account.words) > 0:
        before = account.rec[0]
        manager.n_orders, manager.n_cancels, manager.n_rejects, manager.n_late = (int(before[n]) for n in ("orders", "cancels", "rejects", "late"))
        manager.user_deaf = int(before["user_deaf"])


def _counter(actor: Actor):
    names = {"connect": "reconnects", "connect_failed": "request_errors", "lost": "disconnects"}
    return lambda name: actor.vitals.event(names.get(name, "request_errors"))


async def _every(seconds: float, work) -> None:
    while True:
        await asyncio.sleep(seconds)
        work()


async def _resolve(manager: OrderManager, recovery: Recovery) -> None:
    """Ask about unknown orders, and about cancelled ones whose matched size is not known, while there are any."""
    while True:
        await asyncio.sleep(RESOLVE_S)
        if manager.unknown or manager.cut:
            await recovery.resolve_unknown()


async def _compare(manager: OrderManager, recovery: Recovery, every_s: float) -> None:
    """Compare with the venue now and then, and at once when sight was lost; read balances that a sale waits for."""
    while True:
        await asyncio.sleep(WATCH_S)
        if recovery.due(every_s):
            await recovery.compare()
        if manager.short:
            await recovery.read_sellable()


async def _ask_scoring(manager: OrderManager, reads: RestClient, every_s: float, warn) -> None:
    """Ask the venue now and then which of the orders that rest earn liquidity rewards."""
    while True:
        await asyncio.sleep(every_s)
        ids = [o.order_id for w in manager.by_market.values() for o in w.orders.values() if o.state == LIVE][:SCORING_IDS]
        try:
            manager.scoring = sum((await reads.scoring(ids)).values())
        except VenueError as e:
            manager.scoring = -1
            warn("scoring", f"which orders earn rewards is not known: {e}")


async def _serve(manager: OrderManager, recovery: Recovery, every_s: float) -> None:
    """Start up, then do the slow work for ever."""
    await recovery.start()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_resolve(manager, recovery))
        tasks.create_task(_compare(manager, recovery, every_s))
        tasks.create_task(_every(WANT_S, manager.want_signed))
        tasks.create_task(_every(TEND_S, manager.tend))


async def _open_dry_line(gateway: Gateway, actor: Actor) -> None:
    try:
        await gateway.open_dry_line()
    except (OSError, TimeoutError) as e:
        actor.warn("dry_line", f"rehearsals do not go through the kernel: {e}")


def _crash_watch() -> asyncio.Future:
    """A future that gets the first exception of a callback (a wake, an answer): after it our books cannot be trusted, so we start anew."""
    loop = asyncio.get_running_loop()
    crashed = loop.create_future()

    def handler(running_loop, context) -> None:
        error = context.get("exception")
        if error is None or isinstance(error, OSError):
            running_loop.default_exception_handler(context)
        elif not crashed.done():
            crashed.set_exception(error)

    loop.set_exception_handler(handler)
    return crashed


async def main(actor: Actor) -> None:
    """Start up, serve the doorbell, stop in order."""
    cfg, who = actor.cfg, credentials(actor.cfg)
    manager, gateway = build(actor, who)
    manager.publish_account(mono_ns())
    actor.on_bell = manager.on_wake
    async with RestClient.of(cfg.venue, actor.clock.now_s, who, cfg.execution.request_timeout_s) as reads:
        recovery = Recovery(manager, reads, who.api_key, who.funder)
        await gateway.start()
        if cfg.execution.rehearse_hz > 0:
            await _open_dry_line(gateway, actor)
        ends = [asyncio.create_task(actor.stopped.wait()), asyncio.create_task(_serve(manager, recovery, cfg.execution.reconcile_s)),
                _crash_watch()]
        if any(cfg.strategy.of(d).rewards.enabled for d in DURATIONS):
            ends.append(asyncio.create_task(_ask_scoring(manager, reads, cfg.execution.scoring_s, actor.warn)))
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        actor.on_bell = None
        for end in ends:
            end.cancel()
        results = await asyncio.gather(*ends, return_exceptions=True)
        try:
            await recovery.stop()
        finally:
            manager.journal.close()
            await gateway.close()
        for result in results:
            if isinstance(result, Exception):
                raise result


if __name__ == "__main__":
    run_async("executor", main)
