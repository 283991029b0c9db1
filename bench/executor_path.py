"""What the executor's way from a bell to an order costs: CPU time of its thread, warm and cold, beside a yardstick of the same run.

    python bench/executor_path.py [--quick] [--json]

The real manager, pool, journal, segments and warm connections, on the real event loop; the other end is a socket of this process that answers
what the venue would. All eight slots have a window, one is quoted with two levels on each token, and every round moves all four quotes by a tick.
Times are CLOCK_THREAD_CPUTIME_ID around the code alone (setting the stage is not counted), less the cost of that clock. "cold" is the same after
48 MB of other data and a little other code went through the caches, as after a quiet second on a busy machine; "rehearsed" is cold, but for one
rehearsal of the manager. The yardstick is `json.dumps` of a fixed object, warm: compare ratios to it between runs, not microseconds. Prints figures,
asserts nothing.
"""

import argparse
import asyncio
import json
import logging
import os
import socket
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import thread_time_ns

import numpy as np
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmbot import topology  # noqa: E402
from mmbot.clock import WallClock, mono_ns  # noqa: E402
from mmbot.config import Execution  # noqa: E402
from mmbot.execution import http1  # noqa: E402
from mmbot.execution.credentials import Credentials  # noqa: E402
from mmbot.execution.gateway import Gateway  # noqa: E402
from mmbot.execution.http1 import ConnectionPool  # noqa: E402
from mmbot.execution.l2 import L2Auth  # noqa: E402
from mmbot.execution.manager import Links, OrderManager  # noqa: E402
from mmbot.execution.order import PENDING  # noqa: E402
from mmbot.execution.order_journal import OrderJournal  # noqa: E402
from mmbot.execution.pool import SignedPool  # noqa: E402
from mmbot.execution.signing import OrderSigner, Salts  # noqa: E402
from mmbot.execution.wire import Requests  # noqa: E402
from mmbot.sim import accounts  # noqa: E402
from shm_layout import records as r  # noqa: E402
from shm_layout import vitals as vt  # noqa: E402
from shm_layout.ring import RingReader, RingWriter  # noqa: E402
from shm_layout.segment import Space  # noqa: E402
from shm_layout.seqlock import SeqlockReader, SeqlockWriter  # noqa: E402

S = 1_000_000_000
NAMES = ("idle wake", "wake, target unchanged", "target -> POST of 4 quotes", "target -> end of the wake", "answer to 4 posts")
YARDSTICK = {"orders": [{"id": "0x" + f"{i:064x}", "px": i / 7, "size": i * 1_000_000, "tags": ["a", "b", i]} for i in range(8)]}
USER_AT = {name: r.USER.fields[name][1] // 8 for name in r.USER.names}
WALK_U6, SIZE_U6 = 100, 20_000_000
IDLE_BATCH = 20
STATES = WARM, COLD, REHEARSED = "warm", "cold", "rehearsed"


class SendStamp:
    """Stands in for the clock that `http1` reads right after it has handed a request to the kernel: notes the CPU time of the first one."""

    def __init__(self):
        self.cpu_ns = 0
        http1.mono_ns = self

    def __call__(self) -> int:
        self.cpu_ns = self.cpu_ns or thread_time_ns()
        return mono_ns()


class Report:
    """Counters and hops go to a real vitals page; an error is a broken bench."""

    def __init__(self, page: vt.VitalsWriter):
        self.event, self.hop = page.event, page.hop

    def error(self, code: str, text: str) -> None:
        print(f"bench: {code}: {text}", file=sys.stderr)


class Venue:
    """The other end of the connections: reads requests, answers when told to."""

    def __init__(self):
        self.door = socket.create_server(("127.0.0.1", 0))
        self.door.setblocking(False)
        self.peers: list[socket.socket] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.door.getsockname()[1]}"

    async def accept(self, n: int) -> None:
        while len(self.peers) < n:
            peer, _ = await asyncio.get_running_loop().sock_accept(self.door)
            peer.setblocking(False)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.peers.append(peer)

    def requests(self) -> list[tuple[socket.socket, bytes]]:
        """What has arrived, whole (the bench sends nothing that does not fit into one segment of the loopback)."""
        found = []
        for peer in self.peers:
            try:
                if data := peer.recv(65536):
                    found.append((peer, data))
            except BlockingIOError:
                continue
        return found

    @staticmethod
    def answer(peer: socket.socket, body) -> None:
        data = json.dumps(body).encode()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data))


class Stage:
    """The executor's memory with its writers, and the manager."""

    def __init__(self, space: Space, folder: Path, venue: Venue):
        space.create_missing(topology.RINGS, topology.SEQLOCKS, ["executor"])
        self.segments = []
        own, attach = (lambda name: self._keep(space.own(name))), (lambda name: self._keep(space.attach(name)))
        self.targets, self.markets, self.guard = (SeqlockWriter(own(n)) for n in ("targets", "markets", "guard"))
        self.user = RingWriter(own("user"))
        links = Links(SeqlockReader(attach("targets")), SeqlockReader(attach("markets")), SeqlockReader(attach("guard")), RingReader(attach("user")),
                      SeqlockWriter(own("account")), SeqlockWriter(own("own")), RingWriter(own("orders")))
        who = Credentials(bytes.fromhex(accounts.PAPER_KEY[2:]), accounts.PAPER_ADDRESS, accounts.PAPER_ADDRESS, 0, accounts.PAPER_API_KEY,
                          accounts.PAPER_API_SECRET, accounts.PAPER_API_PASSPHRASE)
        cfg = Execution(min_update_interval_ms=0, orders_per_s=1e6, orders_burst=10**6, cancels_per_s=1e6, cancels_burst=10**6, rehearse_hz=0)
        requests = Requests(venue.url, L2Auth(who))
        self.sent = SendStamp()
        self.gateway = Gateway(requests, *(ConnectionPool(venue.url, 2) for _ in range(2)))
        self.pool = SignedPool(OrderSigner(who), Salts(), 20 * S, 3)
        self.journal = OrderJournal(folder / "orders.log", sync_thread=False)
        self.clock = WallClock()
        self.m = OrderManager(cfg, self.gateway, self.pool, self.journal, links, Report(vt.VitalsWriter(own("vitals.executor"), "executor")), mono_ns,
                              self.clock.now_ns)
        start_s = self.clock.now_ns() // S // 900 * 900
        self.market_id, self.slot = r.market_id(start_s, 900), r.slot_of(start_s, 900)
        self._open(start_s)

    def _keep(self, segment):
        self.segments.append(segment)
        return segment

    def _open(self, start_s: int) -> None:
        """Everything that lets the manager quote."""
        for start, duration in [(start_s + k * d, d) for d in (900, 300) for k in range(4)]:
            slot = r.slot_of(start, duration)
            row = self.markets.rec["row"][0, slot]
            for name, value in dict(market_id=r.market_id(start, duration), slot=slot, start_s=start, end_s=start + duration, duration_s=duration,
                                    state=r.MS_OPEN, accepting=1, tick_e4=100, min_size_u6=5_000_000, version=1, outcome=r.NO_OUTCOME).items():
                row[name] = value
            row["token_up"], row["token_down"] = r.id_words((1 << 255) + 2 * slot), r.id_words((1 << 255) + 2 * slot + 1)
        self.markets.write()
        self.say(kind=r.UK_CONNECTED)
        self.m.state, self.m.cash_u6, self.m.max_exposure_u6 = r.AS_READY, 10**12, 10**12
        self.watch()
        self.m.on_wake()
        self.m.synced(self.m.losses)

    def watch(self) -> None:
        """The guardian's word, anew."""
        self.guard.rec["quoting_allowed"], self.guard.rec["t_update_ns"] = 1, mono_ns()
        self.guard.write()

    def say(self, **fields) -> None:
        """One record of the user channel."""
        words = self.user.words
        words[:] = 0
        for name, value in fields.items():
            words[USER_AT[name]:USER_AT[name] + np.size(value)] = value
        self.user.publish()

    def target(self, px_e4: int | None = None) -> None:
        """Two levels on each token around a price; without one the last target again, decided anew."""
        rec, now = self.targets.rec[0], mono_ns()
        rec["t_decide_ns"], rec["deadline_ns"] = now, now + 10 * S
        if px_e4 is not None:
            rec["market_id"], rec["slot"], rec["n_quotes"], rec["changed_ns"], rec["t_recv_ns"] = self.market_id, self.slot, 4, now, now - 30_000
            for i in range(4):
                rec["quote"][i] = (i % 2, i // 2, r.BUY, r.QK_POST_ONLY, px_e4 - 100 * (i // 2), SIZE_U6)
        self.targets.write(self.slot)

    def tell(self, order, type_: int, status: int) -> None:
        self.say(kind=r.UK_ORDER, market_id=self.market_id, token=order.token, side=r.BUY, type=type_, status=status, order_id=order.id_words)


class Cost:
    """Samples of one row in each state of the caches, ns less the cost of the clock."""

    def __init__(self, clock_ns: int):
        self.samples, self.clock_ns = {state: [] for state in STATES}, clock_ns

    def add(self, ns: int, state: str, times: int = 1) -> None:
        self.samples[state].append(max(ns - self.clock_ns, 0) / times)


def clock_cost() -> int:
    """What two readings of the clock cost by themselves."""
    return int(median([-thread_time_ns() + thread_time_ns() for _ in range(10_000)]))


class Run:
    """Rounds of: idle wakes, an unchanged target, a changed one, its answers, and the yardstick."""

    def __init__(self, stage: Stage, venue: Venue):
        self.stage, self.venue, self.m = stage, venue, stage.m
        clock_ns = clock_cost()
        self.costs = {name: Cost(clock_ns) for name in (*NAMES, "yardstick")}
        self._other = np.ones(6 << 20)
        self._state = WARM

    def _chill(self) -> None:
        if self._state == WARM:
            return
        self._other += 1.0
        logging.Formatter().format(logging.makeLogRecord({"msg": "other %s", "args": (json.loads(json.dumps(YARDSTICK)),)}))
        if self._state == REHEARSED:
            self.m._rehearsal_ns = 0            # one is due, however the manager counts
            self.m._idle(mono_ns())

    def _timed(self, name: str, work) -> int:
        self._chill()
        self.stage.sent.cpu_ns = 0
        start = thread_time_ns()
        work()
        self.costs[name].add(thread_time_ns() - start, self._state)
        return start

    async def _answer(self, peer, body, orders: list, name: str = "") -> None:
        """Send an answer; count what the loop and the manager do until it is taken in."""
        self.venue.answer(peer, body)
        states = [o.state for o in orders]
        self._chill()
        start = thread_time_ns()
        while [o.state for o in orders] == states:
            await asyncio.sleep(0)
        if name:
            self.costs[name].add(thread_time_ns() - start, self._state)

    async def round(self, i: int, state: str) -> None:
        m, stage, self._state = self.m, self.stage, state
        self._timed("yardstick", lambda: json.dumps(YARDSTICK))
        m.want_signed()
        while self.pool_short():
            stage.pool.refill(mono_ns(), stage.clock.now_ns() // 1_000_000, 8)
        if i % 200 == 0:
            stage.watch()
            m.tend()
        m.on_wake()
        if state == WARM:
            start = thread_time_ns()
            for _ in range(IDLE_BATCH):
                m.on_wake()
            self.costs["idle wake"].add(thread_time_ns() - start, state, IDLE_BATCH)
        else:
            self._timed("idle wake", m.on_wake)
        stage.target()
        self._timed("wake, target unchanged", m.on_wake)
        old = list(m.by_market[stage.market_id].orders.values())
        stage.target(4500 + WALK_U6 * (i % 2))
        start = self._timed("target -> end of the wake", m.on_wake)
        self.costs["target -> POST of 4 quotes"].add(stage.sent.cpu_ns - start, state)
        await self._settle(old)

    def pool_short(self) -> bool:
        return bool(self.stage.pool._missing)

    async def _settle(self, old: list) -> None:
        """The venue answers the POST and the cancel and shows both on the user channel."""
        m, stage = self.m, self.stage
        new = [o for o in m.by_market[stage.market_id].orders.values() if o.state == PENDING]
        assert len(new) == 4, f"{len(new)} posts instead of 4"
        for peer, data in self.venue.requests():
            if data.startswith(b"POST"):
                for o in new:
                    stage.tell(o, r.UT_PLACEMENT, r.ST_LIVE)
                legs = [{"success": True, "errorMsg": "", "orderID": o.order_id, "status": "live", "makingAmount": "", "takingAmount": ""}
                        for o in new]
                await self._answer(peer, legs, new, "answer to 4 posts")
            elif data.startswith(b"GET"):
                self.venue.answer(peer, "OK")
            else:
                await self._answer(peer, {"canceled": [o.order_id for o in old], "not_canceled": {}}, old)
                for o in old:
                    stage.tell(o, r.UT_CANCELLATION, r.ST_CANCELED)
        m.on_wake()


async def measure(rounds: int, cold_rounds: int) -> list[dict]:
    with tempfile.TemporaryDirectory(prefix="mmb") as folder:
        space, venue = Space(f"bench-{os.getpid()}"), Venue()
        try:
            stage = Stage(space, Path(folder), venue)
            await stage.gateway.start()
            await stage.gateway.open_dry_line()
            await venue.accept(4)
            await asyncio.sleep(0.05)
            run = Run(stage, venue)
            for i in range(200):
                await run.round(i, WARM)
            for cost in run.costs.values():
                cost.samples[WARM].clear()
            every = max(rounds // cold_rounds, 3)
            for i in range(rounds):
                await run.round(i, {every - 2: COLD, every - 1: REHEARSED}.get(i % every, WARM))
            await stage.gateway.close()
            stage.journal.close()
        finally:
            for path in (space.path(name) for name in space.segments()):
                path.unlink()
    unit = median(run.costs["yardstick"].samples[WARM])
    rows = []
    for name, cost in run.costs.items():
        row = {"row": name, "rounds": len(cost.samples[WARM]), "min_ns": round(min(cost.samples[WARM]))}
        for state in STATES:
            p50 = median(cost.samples[state])
            row |= {f"{state}_p50_ns": round(p50), f"{state}_yardsticks": p50 / unit}
        rows.append(row)
    return rows


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--quick", action="store_true", help="fewer rounds")
    ask.add_argument("--json", action="store_true", help="the same as data")
    opt = ask.parse_args()
    rows = uvloop.run(measure(*((1000, 100) if opt.quick else (6000, 400))))
    if opt.json:
        print(json.dumps({"bench": "executor_path", "rows": rows}))
        return
    print(f"{'CPU time, us (in yardsticks)':30}{'rounds':>8}{'warm min':>10}" + "".join(f"{state + ' p50':>20}" for state in STATES))
    for row in rows:
        print(f"{row['row']:30}{row['rounds']:8,}{row['min_ns'] / 1e3:10.2f}"
              + "".join(f"{row[f'{state}_p50_ns'] / 1e3:11.2f} ({row[f'{state}_yardsticks']:6.3f})" for state in STATES))


if __name__ == "__main__":
    main()
