"""A venue and shared memory made of plain objects, for tests of the order manager without sockets, clocks or sleeping.

The venue answers when the test says so, loses answers when told to, and keeps its own books to compare with.
"""

import json
import uuid

import numpy as np

from mmbot.config import Execution
from mmbot.execution.credentials import Credentials
from mmbot.execution.http1 import HttpAnswer, NotSent, UnknownOutcome
from mmbot.execution.l2 import L2Auth
from mmbot.execution.manager import Links, OrderManager
from mmbot.execution.order import DONE
from mmbot.execution.order_journal import OrderJournal
from mmbot.execution.pool import SignedPool
from mmbot.execution.recovery import Recovery
from mmbot.execution.rest import Balance, MakerLeg, OpenOrder, Trade, VenueError
from mmbot.execution.signing import OrderSigner, Salts
from mmbot.execution.wire import ErrorCode, Requests
from mmbot.sim import accounts
from mmbot.venues.numbers import words_of_hex, words_of_trade
from shm_layout import records as r

MS = 1_000_000
START_S = 1775028600
MARKET = r.market_id(START_S, 900)
SLOT = r.slot_of(START_S, 900)
TOKENS = (91348881789320432298294780669777877709298835272408462781006302171545019022093,
          76637414987541412792657625593640422126746126761209842477962445193875163086403)
CONDITION = "0x74bcc52b900802871a7abf25da0cae16bf0811ae09031265a88e0cc3abdaf721"
KEY = Credentials(bytes.fromhex(accounts.PAPER_KEY[2:]), "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
                  "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266", 0, accounts.PAPER_API_KEY, accounts.PAPER_API_SECRET,
                  accounts.PAPER_API_PASSPHRASE)
USER_AT = {n: r.USER.fields[n][1] // 8 for n in r.USER.names}


class FakeSeqlock:
    """A seqlock segment of one process; ``set(record, index)`` is the writer."""

    def __init__(self, dtype, count=1):
        self.rec = np.zeros(1, dtype)
        self.words = self.rec.view(np.int64)
        self.cells = [None] * count
        self.versions = [0] * count

    def set(self, rec, index=0):
        self.cells[index] = rec.view(np.int64).reshape(-1).copy()
        self.versions[index] += 1

    def version(self, index=0):
        return self.versions[index]

    def read(self, index=0):
        if self.cells[index] is not None:
            self.words[:] = self.cells[index]
        return self.versions[index]

    def write(self, index=0):
        self.set(self.rec, index)
        return self.versions[index]


class FakeWatcher:
    """Stands in for `shm_layout.watcher.Watcher`."""

    def __init__(self, seqlocks, rings):
        self.seqlocks, self.rings = seqlocks, rings
        self.seen = [0] * len(seqlocks)

    def changed(self):
        bits = [lock.version(index) != seen for (lock, index), seen in zip(self.seqlocks, self.seen, strict=True)]
        return sum(bit << i for i, bit in enumerate(bits + [bool(ring.queue) for ring in self.rings]))


class FakeRing:
    """A ring that never laps unless told so."""

    def __init__(self, dtype):
        self.rec = np.zeros(1, dtype)
        self.words = self.rec.view(np.int64)
        self.link = np.zeros(16, np.int64)
        self.queue, self.published = [], []

    def poll(self):
        if not self.queue:
            return False
        self.words[:] = self.queue.pop(0)
        return True

    def publish(self):
        self.published.append(self.rec.copy()[0])


class Later:
    """An answer on its way: a future without a loop."""

    def __init__(self, request):
        self.request, self.callbacks, self.outcome = request, [], None

    def add_done_callback(self, fn):
        self.callbacks.append(fn)

    def settle(self, outcome):
        self.outcome = outcome
        for fn in self.callbacks:
            fn(self)

    def result(self):
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def __await__(self):
        return self.result()
        yield


class VenueDouble:
    """Gateway and reads in one. ``auto``: answer at once. ``busy``: kinds of request that find no connection.
    ``tell``: the user channel shows each order that is placed. ``orders``: id -> dict(status, px, size, matched, token, side)."""

    def __init__(self, world):
        self.world = world
        self.orders, self.trades_, self.waiting, self.log = {}, [], [], []
        self.auto, self.connected, self.broken_reads = True, True, False
        self.reject, self.busy, self.rehearsed, self.tell = [], set(), 0, True
        self.cash_u6, self.t_send_ns = 1_000_000_000, 0
        self.shares, self.renewals, self.empty_listing, self.empty_trades = [0, 0], 0, False, False
        self.signer = OrderSigner(KEY)
        self.requests = Requests("http://127.0.0.1:1", L2Auth(KEY))

    # gateway
    @property
    def can_post(self):
        return self.connected and "post" not in self.busy

    @property
    def can_cancel(self):
        return self.connected and "cancel" not in self.busy

    def post(self, bodies, timestamp_s):
        return self._request("post", [self._take(b) for b in bodies])

    def rehearse(self, bodies, order_ids, timestamp_s):
        self.rehearsed = self.rehearsed + 1

    def cancel(self, order_ids, timestamp_s):
        return self._request("cancel", list(order_ids))

    def ping(self):
        return self._request("ping", None)

    def cancel_all(self, timestamp_s):
        later = self._request("cancel_all", None)
        self.answer(later)
        return later

    def _take(self, body):
        o = json.loads(body)["order"]
        side = ("BUY", "SELL").index(o["side"])
        digest, _ = self.signer.template(int(o["tokenId"]), side, 1).sign(int(o["makerAmount"]), int(o["takerAmount"]), int(o["timestamp"]), o["salt"])
        return "0x" + digest.hex(), dict(token=TOKENS.index(int(o["tokenId"])), side=side, size=int(o["takerAmount"]), matched=0, status="LIVE",
                                         px=int(o["makerAmount"]) * 10_000 // int(o["takerAmount"]))

    def _request(self, kind, what):
        if not self.connected or kind in self.busy:
            raise NotSent("no free connection")
        self.t_send_ns = self.world.now
        self.log.append((kind, what))
        later = Later((kind, what))
        self.waiting.append(later)
        return later

    def answer(self, later=None, effect=True, lose=False):
        """Carry out (unless ``effect`` is False) and answer (unless ``lose``) one request, or all that wait."""
        for one in [later] if later else list(self.waiting):
            self.waiting.remove(one)
            body = self._carry_out(*one.request) if effect else []
            if lose or not effect:
                one.settle(UnknownOutcome("no answer", self.world.now))
            else:
                one.settle(HttpAnswer(200, {}, json.dumps(body).encode(), self.world.now, self.world.now))

    def _carry_out(self, kind, what):
        if kind == "ping":
            return "OK"
        if kind == "post":
            legs = [self._accept(i, o) for i, o in what]
            return legs[0] if len(legs) == 1 else legs
        ids = [i for i, o in self.orders.items() if o["status"] == "LIVE"] if what is None else what
        canceled, kept = [], {}
        for i in ids:
            if self.orders.get(i, {}).get("status") == "LIVE":
                self.orders[i]["status"] = "CANCELED"
                canceled.append(i)
            else:
                kept[i] = "already canceled or matched"
        return {"canceled": canceled, "not_canceled": kept}

    def _accept(self, order_id, o):
        text = self.reject.pop(0) if self.reject else ""
        if text:
            return {"success": True, "errorMsg": text, "orderID": "", "status": ""}
        if order_id in self.orders:
            return {"success": True, "errorMsg": f"order {order_id} is invalid. Duplicated.", "orderID": "", "status": ""}
        self.orders[order_id] = o
        if self.tell:
            self.world.say_order(order_id, r.UT_PLACEMENT, r.ST_LIVE, wake=False)
        return {"success": True, "errorMsg": "", "orderID": order_id, "status": "live", "makingAmount": "", "takingAmount": ""}

    # reads
    def _check(self):
        if self.broken_reads:
            raise VenueError("read", ErrorCode.SERVER, "broken")

    def row(self, order_id):
        o = self.orders[order_id]
        return OpenOrder(order_id, o["status"], CONDITION, str(TOKENS[o["token"]]), ("BUY", "SELL")[o["side"]], str(o["px"] / 10_000),
                         str(o["size"] / 1e6), str(o["matched"] / 1e6))

    async def open_orders(self):
        self._check()
        return [] if self.empty_listing else [self.row(i) for i, o in self.orders.items() if o["status"] == "LIVE"]

    async def order(self, order_id):
        self._check()
        return self.row(order_id) if order_id in self.orders else None

    async def trades(self, after=0, market=""):
        self._check()
        return [] if self.empty_trades else list(self.trades_)

    async def balance(self, asset="COLLATERAL", token=""):
        self._check()
        return Balance(str(self.cash_u6 if asset == "COLLATERAL" else self.shares[TOKENS.index(int(token))]))

    async def renew_balance(self, asset="COLLATERAL", token=""):
        self._check()
        self.renewals += 1

    # the venue's side of life
    def live(self):
        return {i: o for i, o in self.orders.items() if o["status"] == "LIVE"}

    def fill(self, order_id, size_u6, tell=True, trade_id=None, other_token=False):
        """A taker hits an order; by a MINT (``other_token``) the taker trades the complementary token. Returns the trade id."""
        o = self.orders[order_id]
        o["matched"] += size_u6
        self.cash_u6 -= o["px"] * size_u6 // 10_000
        self.shares[o["token"]] += size_u6
        if o["matched"] >= o["size"]:
            o["status"] = "MATCHED"
        trade_id = trade_id or str(uuid.uuid4())
        leg = MakerLeg(order_id, KEY.api_key, KEY.funder, str(size_u6 / 1e6), str(o["px"] / 10_000), str(TOKENS[o["token"]]), "", "BUY")
        taker = 1 - o["token"] if other_token else o["token"]
        self.trades_.append(Trade(trade_id, "0x" + "51" * 32, CONDITION, str(TOKENS[taker]), "BUY" if other_token else "SELL", str(size_u6 / 1e6),
                                  str(o["px"] / 10_000), "TRADE_STATUS_MATCHED", str(START_S), owner="someone", trader_side="MAKER",
                                  maker_orders=[leg]))
        if tell:
            self.world.say_trade(order_id, trade_id, size_u6)
            self.world.say_order(order_id, r.UT_UPDATE, r.ST_MATCHED if o["status"] == "MATCHED" else r.ST_LIVE)
        return trade_id


class Report:
    """Counts events, keeps errors and hops."""

    def __init__(self):
        self.events, self.errors, self.hops, self.texts = {}, [], [], []

    def event(self, name, n=1):
        self.events[name] = self.events.get(name, 0) + n

    def hop(self, name, value):
        self.hops.append((name, value))

    def error(self, code, text):
        self.errors.append(code)
        self.texts.append(f"{code}: {text}")


class World:
    """A manager with everything around it. Time stands still unless `tick` moves it."""

    def __init__(self, tmp_path, journal=None, venue=None, **execution):
        self.now = 1_000_000 * MS
        self.wall0 = (START_S + 100) * 1_000_000_000 - self.now
        self.links = Links(FakeSeqlock(r.TARGET, r.MARKET_SLOTS), FakeSeqlock(r.MARKETS), FakeSeqlock(r.GUARD), FakeRing(r.USER),
                           FakeSeqlock(r.ACCOUNT), FakeSeqlock(r.OWN, r.MARKET_SLOTS), FakeRing(r.ORDER_EVENT), FakeWatcher)
        self.venue = venue or VenueDouble(self)
        self.venue.world = self
        self.report = Report()
        self.cfg = Execution(**execution)
        self.journal = journal or OrderJournal(tmp_path / "journal" / "orders.log", sync_thread=False)
        self.pool = SignedPool(self.venue.signer, Salts(), 20_000 * MS, 3)
        self.m = OrderManager(self.cfg, self.venue, self.pool, self.journal, self.links, self.report, lambda: self.now, lambda: self.wall0 + self.now)
        self.recovery = Recovery(self.m, self.venue, KEY.api_key, KEY.funder, self.sleep)
        self.connection = 0

    async def sleep(self, seconds):
        self.tick(seconds * 1000, wake=False)

    def run(self, coroutine):
        """Drive a coroutine that never really waits."""
        try:
            coroutine.send(None)
        except StopIteration as done:
            self.flush()
            return done.value
        raise AssertionError("it waits for something")

    def wake(self):
        """Ring the bell; then the venue answers, if it answers by itself."""
        self.m.on_wake()
        self.flush()

    def flush(self):
        while self.venue.auto and self.venue.waiting:
            self.venue.answer()

    def tick(self, ms=1.0, wake=True):
        self.now += int(ms * MS)
        if wake:
            self.wake()

    def markets(self, tick_e4=100, state=r.MS_OPEN, outcome=r.NO_OUTCOME, version=1):
        rec = np.zeros(1, r.MARKETS)
        row = rec["row"][0][SLOT]
        for name, value in dict(market_id=MARKET, slot=SLOT, start_s=START_S, end_s=START_S + 900, duration_s=900, state=state, accepting=1,
                                tick_e4=tick_e4, min_size_u6=5_000_000, fee_rate_e6=70_000, fee_exponent=1, version=version, outcome=outcome).items():
            row[name] = value
        row["token_up"], row["token_down"] = r.id_words(TOKENS[0]), r.id_words(TOKENS[1])
        row["condition_id"] = r.id_words(int(CONDITION, 16))
        self.links.markets.set(rec)

    def guard(self, allowed=1, age_ms=0):
        rec = np.zeros(1, r.GUARD)
        rec["quoting_allowed"], rec["t_update_ns"] = allowed, self.now - age_ms * MS
        self.links.guard.set(rec)

    def target(self, *quotes, ttl_ms=500, t_recv_ago_us=30, wake=True, mid=0.0):
        """Publish desired quotes (token, level, px_e4, size in shares) and ring the bell."""
        self.now += 1000
        rec = np.zeros(1, r.TARGET)
        rec["market_id"], rec["slot"], rec["n_quotes"] = MARKET, SLOT, len(quotes)
        rec["t_decide_ns"] = rec["changed_ns"] = self.now
        rec["t_recv_ns"] = self.now - t_recv_ago_us * 1000
        rec["deadline_ns"], rec["mid_up"] = self.now + ttl_ms * MS, mid
        for i, (token, level, px, shares) in enumerate(quotes):
            rec["quote"][0][i] = (token, level, r.BUY, r.QK_POST_ONLY, px, shares * 1_000_000)
        self.links.targets.set(rec, SLOT)
        if wake:
            self.wake()

    def refresh(self, ttl_ms=500):
        """The core repeats the target with a later deadline."""
        rec = self.links.targets.cells[SLOT].copy().view(r.TARGET)
        rec["deadline_ns"], rec["t_decide_ns"] = self.now + ttl_ms * MS, self.now
        self.links.targets.set(rec, SLOT)
        self.wake()

    def _say(self, **fields):
        row = np.zeros(r.USER.itemsize // 8, np.int64)
        for name, value in fields.items():
            at = USER_AT[name]
            row[at:at + np.size(value)] = value
        row[USER_AT["connection"]] = fields.get("connection", self.connection)
        self.links.user.queue.append(row)

    def connect(self):
        self.connection += 1
        self._say(kind=r.UK_CONNECTED)
        self.wake()

    def disconnect(self):
        self._say(kind=r.UK_DISCONNECTED)
        self.wake()

    def say_order(self, order_id, type_, status, matched=None, wake=True):
        o = self.venue.orders[order_id]
        self._say(kind=r.UK_ORDER, market_id=MARKET, token=o["token"], side=o["side"], type=type_, status=status, px_u6=o["px"] * 100,
                  size_u6=o["size"], matched_u6=o["matched"] if matched is None else matched, order_id=words_of_hex(order_id))
        if wake:
            self.wake()

    def say_trade(self, order_id, trade_id, size_u6, status=r.TS_MATCHED, wake=True):
        o = self.venue.orders[order_id]
        self._say(kind=r.UK_TRADE, market_id=MARKET, token=o["token"], side=o["side"], role=r.MAKER, status=status, px_u6=o["px"] * 100, size_u6=size_u6,
                  order_id=words_of_hex(order_id), trade_id=words_of_trade(trade_id))
        if wake:
            self.wake()

    def ready(self):
        """Started up, connected, allowed to quote."""
        self.markets()
        self.guard()
        self.connect()
        self.run(self.recovery.start())
        assert self.m.user_ok
        return self

    def account(self):
        return self.links.account.cells[0].view(r.ACCOUNT)[0]

    def position(self):
        return self.account()["position"][SLOT]

    def keys(self):
        """(token, level) -> orders of ours that are not over."""
        out = {}
        for o in self.m.by_market[MARKET].orders.values():
            out.setdefault((o.token, o.level), []).append(o)
        return out

    def agrees(self):
        """Our live orders are exactly the venue's."""
        return {o.order_id for w in self.m.by_market.values() for o in w.orders.values() if o.state != DONE} == set(self.venue.live())

    def kinds(self):
        return [int(e["kind"]) for e in self.links.orders.published]
