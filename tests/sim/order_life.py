"""One life of an executor against the exchange, over real sockets: what the tests of the order manager have in common."""

import asyncio
import random
import sys
from pathlib import Path

import numpy as np
from exchange_world import CID, DOWN_TOKEN, START_S, UP_TOKEN, World
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
from order_world import KEY, MS, FakeRing, FakeSeqlock, FakeWatcher, Report  # noqa: E402

from mmbot.clock import WallClock, mono_ns  # noqa: E402
from mmbot.config import Execution  # noqa: E402
from mmbot.execution import manager  # noqa: E402
from mmbot.execution.gateway import Gateway  # noqa: E402
from mmbot.execution.http1 import ConnectionPool  # noqa: E402
from mmbot.execution.l2 import L2Auth  # noqa: E402
from mmbot.execution.manager import Links, OrderManager  # noqa: E402
from mmbot.execution.order_journal import OrderJournal  # noqa: E402
from mmbot.execution.pool import SignedPool  # noqa: E402
from mmbot.execution.recovery import Recovery  # noqa: E402
from mmbot.execution.rest import RestClient  # noqa: E402
from mmbot.execution.signing import OrderSigner, Salts  # noqa: E402
from mmbot.execution.wire import Requests  # noqa: E402
from mmbot.venues.polymarket import user_channel as uc  # noqa: E402
from shm_layout import records as r  # noqa: E402

MARKET = START_S * 1000 + 15
SLOT = r.slot_of(START_S, 900)
ROOM = Path(manager.__file__).parent
FILES = {str(ROOM / f"{name}.py") for name in ("manager", "sending", "answers", "fills", "overdue", "order_journal")}


class Life:
    """One life of an executor: built, started, then stopped in order or killed."""

    connections = 0

    def __init__(self, world: World, directory: Path, **execution):
        self.world, self.clock = world, world.server.clock
        assert isinstance(self.clock, WallClock)
        cfg = Execution(**{"min_update_interval_ms": 20, **execution})
        requests = Requests(world.settings.venue.clob_url, L2Auth(KEY))
        self.gateway = Gateway(requests, *(ConnectionPool(world.settings.venue.clob_url, 2, cfg.request_timeout_s) for _ in range(2)))
        self.links = Links(FakeSeqlock(r.TARGET, r.MARKET_SLOTS), FakeSeqlock(r.MARKETS), FakeSeqlock(r.GUARD), FakeRing(r.USER),
                           FakeSeqlock(r.ACCOUNT), FakeSeqlock(r.OWN, r.MARKET_SLOTS), FakeRing(r.ORDER_EVENT), FakeWatcher)
        self.report = Report()
        self.m = OrderManager(cfg, self.gateway, SignedPool(OrderSigner(KEY), Salts(), 20_000 * MS, 2), OrderJournal(directory / "orders.log"),
                              self.links, self.report, mono_ns, self.clock.now_ns)
        self.channel = uc.UserChannel(KEY.api_key, KEY.funder, lambda cid, token: (MARKET, (UP_TOKEN, DOWN_TOKEN).index(token)))
        self.tasks = []

    async def start(self):
        rec = np.zeros(1, r.MARKETS)
        row = rec["row"][0][SLOT]
        for name, value in dict(market_id=MARKET, slot=SLOT, start_s=START_S, end_s=START_S + 900, state=r.MS_OPEN, accepting=1, tick_e4=100,
                                min_size_u6=5_000_000, fee_rate_e6=70_000, fee_exponent=1, version=1, outcome=-1).items():
            row[name] = value
        row["token_up"], row["token_down"] = r.id_words(int(UP_TOKEN)), r.id_words(int(DOWN_TOKEN))
        row["condition_id"] = r.id_words(int(CID, 16))
        self.links.markets.set(rec)
        await self.gateway.start(5.0)
        self.reads = RestClient(self.world.settings.venue.clob_url, self.clock.now_s, L2Auth(KEY))
        await self.reads.__aenter__()
        self.recovery = Recovery(self.m, self.reads, KEY.api_key, KEY.funder)
        connected = asyncio.Event()
        self.tasks = [asyncio.create_task(t) for t in (self._listen(connected), self._bell(), self._slow())]
        await connected.wait()
        await self.recovery.start()

    async def _listen(self, connected):
        while True:
            try:
                await self._one_connection(connected)
            except (OSError, WebSocketException):
                pass
            self._push([0] * uc.WORDS, r.UK_DISCONNECTED)
            await asyncio.sleep(0.05)

    async def _one_connection(self, connected):
        async with connect(self.world.settings.venue.ws_url + "/user") as ws:
            await ws.send(uc.subscribe(KEY.api_key, KEY.api_secret, KEY.api_passphrase).decode())
            await ws.send("PING")
            while await ws.recv() != "PONG":
                await asyncio.sleep(0)
            Life.connections += 1
            self._push([0] * uc.WORDS, r.UK_CONNECTED)
            connected.set()
            deaf = self.m.user_deaf
            async for text in ws:
                if text != "PONG":
                    for row in self.channel.on_frame(text.encode(), mono_ns()):
                        self._push(row)
                if self.m.user_deaf != deaf:
                    return

    def _push(self, row, kind=0):
        row = np.array(row, np.int64)
        row[uc.FIELDS["kind"]] = kind or row[uc.FIELDS["kind"]]
        row[uc.FIELDS["connection"]] = Life.connections
        self.links.user.queue.append(row)
        self.m.on_wake()

    async def _bell(self):
        while True:
            guard = np.zeros(1, r.GUARD)
            guard["quoting_allowed"], guard["t_update_ns"] = 1, mono_ns()
            self.links.guard.set(guard)
            self.m.on_wake()
            await asyncio.sleep(0.004)

    async def _slow(self):
        while True:
            await asyncio.sleep(0.02)
            self.m.want_signed()
            if self.m.unknown or self.m.cut:
                await self.recovery.resolve_unknown()
            if self.m.state != r.AS_READY:
                continue
            if (self.m.resync_reason and self.m.user_up) or self.m.reread:
                await self.recovery.compare()
            if self.m.short:
                await self.recovery.read_sellable()

    def target(self, *quotes):
        """Bids that rest: (token, level, px_e4, shares)."""
        self.desire(*((token, level, r.BUY, r.QK_POST_ONLY, px, shares) for token, level, px, shares in quotes))

    def desire(self, *quotes):
        """Quotes of any kind: (token, level, side, kind, px_e4, size in shares or dollars)."""
        rec = np.zeros(1, r.TARGET)
        now = mono_ns()
        rec["market_id"], rec["slot"], rec["n_quotes"] = MARKET, SLOT, len(quotes)
        rec["t_decide_ns"] = rec["changed_ns"] = rec["t_recv_ns"] = now
        rec["deadline_ns"] = now + 1000 * MS
        for i, (*head, size) in enumerate(quotes):
            rec["quote"][0][i] = (*head, round(size * 1_000_000))
        self.links.targets.set(rec, SLOT)
        self.m.on_wake()

    async def _end(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def stop(self):
        flat = await self.recovery.stop()
        await self._end()
        await self._close()
        return flat

    async def kill(self):
        """As by SIGKILL: nothing more is sent, read or written down; what is in the air stays in the air."""
        self.m.on_wake = self.m._answered = lambda *a, **k: None
        self.gateway.post = self.gateway.cancel = None
        await self._end()
        await self._close()

    async def _close(self):
        await self.gateway.close()
        await self.reads.__aexit__()
        self.m.journal.close()

    def position(self):
        p = self.m.positions.position(MARKET)
        return p.qty_u6, sum(p.cost_u6)


def ours(world):
    """(open orders, [Up, Down] shares, cash) in the exchange's books."""
    def look(x, _now):
        account = x.account(KEY.address)
        return len(account.orders), [account.shares.get(t, 0) for t in (UP_TOKEN, DOWN_TOKEN)], account.cash_u6
    return world.do(look)


async def act(life: Life, rng: random.Random, seconds: float, takers: bool = True):
    """Move the target about and let takers hit both tokens' bids."""
    loop, mid, until = asyncio.get_running_loop(), 5000, mono_ns() + int(seconds * 1e9)
    while mono_ns() < until:
        mid = min(max(mid + rng.choice((-100, 0, 0, 100)), 4000), 6000)
        life.target(*((t, lv, (mid if t == 0 else 10_000 - mid) - 100 * (1 + lv), rng.choice((10, 20))) for t in (0, 1) for lv in (0, 1)))
        await asyncio.sleep(rng.uniform(0, 0.03))
        if takers and rng.random() < 0.5:
            side, px = rng.choice(((r.SELL, 3500), (r.BUY, 6500)))
            size = rng.randint(1, 3_000) * 10_000
            await loop.run_in_executor(None, life.world.do, lambda x, now, s=side, p=px, z=size: x.take(CID, s, p, z, now))
