"""The judge of a run: sees every event of the exchange and every request, compares what the group believes with what is so, and names what is broken.

Owns: the invariants. `Observer.violations` is empty after a good run. Each limit is in seconds of virtual time and says how long the system may
need; what happens while a fault hides the truth from it is not held against it, what it does on data it must not trust always is.

  stale        a new quote was sent although the data behind it was older than the limits, suspect or frozen, or the top it believes in
               has not been the venue's for longer than the freeze detector may need
  exposure     an order was accepted with which the greatest possible loss exceeds the limit
  unknown      the fate of an order stayed unknown for too long
  orphan       an order rested that the executor does not know: every order is known from before its POST; only one that reached the venue
               long after it was sent may have been given up before
  late         an order that reached the venue long after its deadline was left to rest
  journal      the venue saw an order that was not on file before
  position     positions or cash differ from the venue's for too long;  conserved: money came into being or vanished at the venue
  self_trade   own bids for both tokens add up to a dollar or more
  dead_man     orders rested although the executor was dead, or although executor and guardian were
  forbidden    a new quote was sent although the guard forbade it, or again and again to a venue that refuses all
  rate         the venue refused an order for its rate while no fault was on
  crash        a process ended by an exception
"""

from collections import Counter, deque

import msgspec
import numpy as np

from mmbot.sim.engine import Listener
from shm_layout import records as r
from shm_layout.seqlock import SeqlockReader
from tests.dst.group import SimJournal
from tests.dst.truth import Truth

S, MS = 1_000_000_000, 1_000_000
TICK_S = 0.5
GRACE_S = 0.8               # polls are coarse here: what was published so long ago is known to everybody
VIEW_S = 4.0                # how long a wrong top of book may be believed: 2 s for the detector, the polls, a first quote on it
UNKNOWN_S, POSITION_S = 40.0, 30.0
PROMPT_S, ORPHAN_S, LATE_ORPHAN_S = 3.0, 0.6, 15.0
LATE_AFTER_S, LATE_S = 1.0, 4.0
CASH_LOW_S = 400.0          # a payout is believed late and bit by bit: money that is there and not counted on does no harm
DEAD_EXECUTOR_S, DEAD_BOTH_S = 6.0, 18.0
SETTLE_S = 60.0             # after the last fault and the last death: how long until everything must agree again
REFUSING, REFUSED_POSTS = ("cancel_only", "disabled", "geoblock", "unauthorized", "closed_only"), 6
EVENTS_KEPT = 40
SURPRISE_S = 30.0
EPS_U6 = 20_000


class Stop(Exception):
    """The run ends at its first violation."""


class Violation(msgspec.Struct):
    """One broken invariant."""
    name: str
    t_s: float
    text: str
    events: list[str]


class Observer(Listener):
    """Give it to a `Simulation`. ``stop``: end the run at the first violation."""

    def __init__(self, stop: bool = True):
        self.stop = stop
        self.violations: list[Violation] = []
        self.journal: list[str] = []
        self.recent: deque[str] = deque(maxlen=EVENTS_KEPT)
        self.counts, self.reports, self.halts_seen = Counter(), Counter(), Counter()
        self.worst_u6 = 0
        self._since: dict = {}
        self._refused: deque[int] = deque()
        self._canceled: set[str] = set()
        self._after_cancel: deque[tuple[int, int]] = deque(maxlen=200)
        self._took_s: dict[str, float] = {}             # how long an order was under way
        self._tops: dict[str, dict[tuple[int, int], int]] = {}      # per market: (side, price) -> until when it was the venue's best
        self._top: dict[str, tuple[int, int]] = {}
        self._view: dict[int, tuple[int, int]] = {}                 # per slot: the top of book that we believe in
        self._agreed: dict[tuple[str, int], int] = {}               # per market and side: when it was last seen to be the venue's
        self._decode = msgspec.json.Decoder().decode
        self.now_s = 0.0

    def begin(self, sim) -> None:
        """The run is about to start."""
        self.sim, self.scheduler = sim, sim.scheduler
        self.truth = Truth(sim.exchange.exchange)
        attach = sim.group.memory.attach
        self.account, self.guard, self.oracle = (SeqlockReader(attach(n)) for n in ("account", "guard", "oracle"))
        self.book, self.targets = SeqlockReader(attach("book")), SeqlockReader(attach("targets"))
        self.limit_u6 = sim.cfg.strategy.max_exposure_u6
        self.calm_ns = self.scheduler.now_ns            # since when nothing is wrong from outside
        sim.network.on_sent, sim.network.on_answer = self.on_sent, self.on_answer
        sim.script.call_later(TICK_S, self._tick)

    # -- writing down --

    def say(self, text: str) -> None:
        """An event of the run's history."""
        line = f"{(self.scheduler.now_ns - self.sim.start_ns) / S:.6f} {text}"
        self.journal.append(line)
        self.recent.append(line)

    def broken(self, name: str, text: str) -> None:
        """An invariant does not hold."""
        self.say(f"BROKEN {name}: {text}")
        self.counts[f"broken {name}"] += 1
        if len(self.violations) < 20:
            self.violations.append(Violation(name, self.sim.now_s, text, list(self.recent)))
        if self.stop:
            self.scheduler.halted = True

    def on_report(self, process: str, code: str, text: str, level: str) -> None:
        """An actor warns or complains."""
        self.reports[f"{process}:{code}"] += 1
        self.say(f"{process} {level} {code}: {text}")

    def on_crash(self, process: str, text: str) -> None:
        """A process ended by an exception."""
        self.broken("crash", f"{process}: {text}")

    def on_life(self, process: str, what: str) -> None:
        """A process was started, killed, stopped or let go on."""
        self.say(f"{process} {what}")
        self.disturbed()

    def disturbed(self) -> None:
        """Something from outside went wrong or ended: agreement is asked for again after SETTLE_S."""
        self.calm_ns = self.scheduler.now_ns

    # -- the exchange --

    def on_order(self, order, kind, status, now_ms) -> None:
        self.counts[kind] += 1
        self.say(f"venue {kind} {order.id[:10]} {status} {'Up' if order.outcome == 0 else 'Down'} {order.px_e4} {order.left_u6}/{order.size_u6}")
        if kind == "CANCELLATION":
            self._canceled.add(order.id)
        if kind != "PLACEMENT":
            return
        sent_ns = SimJournal.written.get(order.id)
        self._took_s[order.id] = 0.0 if sent_ns is None else (self.scheduler.now_ns - sent_ns) / S
        if sent_ns is None:
            self.broken("journal", f"{order.id} reached the venue and is not in the journal")
        if (pair := self.truth.pair_price_e4(order.market)) >= 10_000:
            self.broken("self_trade", f"own bids of both tokens add up to {pair / 1e4}")
        worst = self.truth.worst_u6()
        self.worst_u6 = max(self.worst_u6, worst)
        if worst > self.limit_u6 + EPS_U6 + self._surprises_u6():
            self.broken("exposure", f"{worst / 1e6:.2f} dollars may be lost, the limit is {self.limit_u6 / 1e6:.2f}")

    def _surprises_u6(self) -> int:
        """Dollars of recent fills of orders that the venue had declared cancelled: nobody could have counted with them."""
        horizon = self.scheduler.now_ns - int(SURPRISE_S * S)
        return sum(cost for t_ns, cost in self._after_cancel if t_ns > horizon)

    def on_trade(self, trade, now_ms) -> None:
        self.counts[f"trade {trade.status}"] += 1
        if trade.status == "MATCHED":
            for leg in trade.legs:
                if leg.order is not None and leg.order.id in self._canceled:
                    self._after_cancel.append((self.scheduler.now_ns, leg.cash_u6))
        self.say(f"venue trade {trade.id[:8]} {trade.status} {[(g.order_id[:10], g.size_u6) for g in trade.legs if g.order is not None]}")

    # -- requests --

    def on_sent(self, loop, data: bytes) -> None:
        """Bytes leave a process."""
        if loop.name == "executor" and data.startswith(b"POST /order"):
            head, _, body = data.partition(b"\r\n\r\n")
            self._on_post(body)

    def on_answer(self, method: str, path: str, answer) -> None:
        """The exchange answered."""
        if answer is not None and answer[0] == 429 and not self.faulty():
            self.broken("rate", f"{method} {path} was refused for its rate")

    def faulty(self) -> bool:
        """Is a fault on?"""
        faults = getattr(self.sim.exchange, "faults", None)
        return bool(faults is not None and faults.running())

    def _on_post(self, body: bytes) -> None:
        self.counts["posts"] += 1
        now = self.scheduler.now_ns
        bodies = self._decode(body)
        bodies = bodies if isinstance(bodies, list) else [bodies]
        self._read_words(now)
        self.say(f"executor posts {[(b['order']['tokenId'][:6], b['order']['makerAmount'], b['order']['takerAmount']) for b in bodies]}")
        if self._age("guard", now) > GRACE_S:
            self.broken("forbidden", f"the guard has said no for {self._age('guard', now):.2f} s")
        self._count_refused(now)
        for token in dict.fromkeys(b["order"]["tokenId"] for b in bodies):
            market = self.sim.exchange.exchange.market_by_token(token)
            if market is not None:
                self._check_data(market, now)

    def _count_refused(self, now: int) -> None:
        """Posts while the venue as a whole refuses them: a probe now and then is all that may leave."""
        if not any(f.name in REFUSING and f.params.get("p", 1.0) >= 1.0 for f in self.sim.exchange.faults.running()):
            self._refused.clear()
            return
        self._refused.append(now)
        while self._refused[0] < now - 10 * S:
            self._refused.popleft()
        if len(self._refused) > REFUSED_POSTS:
            self.broken("forbidden", f"{len(self._refused)} posts in 10 s to a venue that refuses all of them")

    def _check_data(self, market, now: int) -> None:
        """Was the data behind a quote of this market fit to quote on?"""
        slot, strategy = r.slot_of(market.spec.start_s, market.spec.duration_s), self.sim.cfg.strategy
        if self.book.read(slot) <= 0 or self.book.rec["market_id"][0] != market.spec.market_id:
            self.broken("stale", f"a quote in {market.spec.slug} without any book of it")
            return
        book = self.book.rec[0]
        self._compare_book(market, slot, book, now)
        age_s = (now - int(book["t_recv_ns"])) / S
        if age_s > strategy.stale_market_ns / S + GRACE_S:
            self.broken("stale", f"a quote in {market.spec.slug} on a book of {age_s:.2f} s ago")
        if self._age(("flag", slot), now) > GRACE_S:
            self.broken("stale", f"a quote in {market.spec.slug} on a suspect or frozen book")
        if self._age(("view", slot, self._view[slot]), now) > GRACE_S and (wrong_s := self._wrong_s(market, self._view[slot], now)) > VIEW_S:
            self.broken("stale", f"a quote in {market.spec.slug} on a top of book that has not been the venue's for {wrong_s:.2f} s")
        if self.oracle.read() > 0:
            age_s = (now - int(self.oracle.rec["spot"]["t_recv_ns"][0])) / S
            if age_s > strategy.stale_oracle_ns / S + GRACE_S:
                self.broken("stale", f"a quote on an oracle print of {age_s:.2f} s ago")

    def on_level(self, market, side, px_e4, now_ms) -> None:
        cid, top = market.condition_id, market.best()
        before = self._top.get(cid, top)
        for i in (r.BUY, r.SELL):
            if top[i] != before[i]:
                self._tops.setdefault(cid, {})[i, before[i]] = self.scheduler.now_ns
        self._top[cid] = top

    def _wrong_s(self, market, top: tuple[int, int], now: int) -> float:
        """Seconds since the best bid or the best ask we believe in was the venue's last; if it never was, since that side was last seen to be right.

        Each side by itself, and asked only of a belief that has lasted: between the changes of one moment a book shows what never was.
        """
        seen, best, cid = self._tops.get(market.condition_id, {}), market.best(), market.condition_id
        return max(0.0 if top[i] == best[i] else (now - seen.get((i, top[i]), self._agreed.get((cid, i), 0))) / S for i in (r.BUY, r.SELL))

    # -- how long something has been so --

    def _note(self, key, so: bool, now: int) -> None:
        if not so:
            self._since.pop(key, None)
        else:
            self._since.setdefault(key, now)

    def _age(self, key, now: int) -> float:
        """Seconds since when it is so, 0 if it is not."""
        since = self._since.get(key)
        return 0.0 if since is None else (now - since) / S

    # -- twice a second --

    def _tick(self) -> None:
        self.sim.script.call_later(TICK_S, self._tick)
        now = self.scheduler.now_ns
        self._look_at_words(now)
        self._look_at_books(now)
        self._look_at_orders(now)
        self._look_at_positions(now)
        self._look_at_the_dead(now)
        if problem := self.truth.conserved():
            self.broken("conserved", problem)

    def _read_words(self, now: int) -> None:
        allowed = self.guard.read() > 0 and bool(self.guard.rec["quoting_allowed"][0])
        self._note("guard", not allowed, now)
        self._halts = int(self.account.rec["halts"][0]) if self.account.read() > 0 else 0
        self._note("halts", self._halts != 0, now)

    def _look_at_words(self, now: int) -> None:
        self._read_words(now)
        for name in r.halt_names(self._halts):
            self.halts_seen[name] += 1

    def _look_at_books(self, now: int) -> None:
        for market in self.sim.exchange.exchange.markets.values():
            slot = r.slot_of(market.spec.start_s, market.spec.duration_s)
            if market.closed or self.book.read(slot) <= 0 or self.book.rec["market_id"][0] != market.spec.market_id:
                continue
            self._compare_book(market, slot, self.book.rec[0], now)

    def _compare_book(self, market, slot: int, book, now: int) -> None:
        self._note(("flag", slot), bool(book["flags"] & (r.MF_SUSPECT | r.MF_FROZEN)), now)
        top = int(book["bid_px_e4"][0]), int(book["ask_px_e4"][0])
        if top != self._view.get(slot):
            self._note(("view", slot, self._view.get(slot)), False, now)
            self._view[slot] = top
        self._note(("view", slot, top), True, now)
        for i, px in enumerate(market.best()):
            if top[i] == px:
                self._agreed[market.condition_id, i] = now

    def calm(self, now: int) -> float:
        """Seconds since the last disturbance, 0 while one lasts."""
        if self.faulty():
            self.calm_ns = now
        return (now - self.calm_ns) / S

    def known(self) -> dict | None:
        """Own orders that the executor believes are not over, None while it does not run."""
        manager, group = self.sim.group.manager, self.sim.group
        inc = group.procs.get("executor")
        if manager is None or inc is None or inc.loop.frozen or int(self.account.rec["state"][0]) != r.AS_READY:
            return None
        return {order_id: o for w in manager.by_market.values() for order_id, o in w.orders.items()}

    def _look_at_orders(self, now: int) -> None:
        known, live = self.known(), self.truth.live()
        if known is None:
            for key in [k for k in self._since if isinstance(k, tuple) and k[0] in ("orphan", "unknown", "late")]:
                del self._since[key]
            return
        calm = self.calm(now)
        for key in [k for k in self._since if isinstance(k, tuple) and k[0] in ("orphan", "unknown", "late")]:
            if key[1] not in (known if key[0] == "unknown" else live):
                del self._since[key]
        for order_id in live:
            self._look_at_live(order_id, known, calm, now)
        for order_id, o in known.items():
            self._note(("unknown", order_id), o.unknown, now)
            if min(self._age(("unknown", order_id), now), calm) > UNKNOWN_S:
                self.broken("unknown", f"the fate of {order_id} has been unknown for {UNKNOWN_S:g} s")

    def _look_at_live(self, order_id: str, known: dict, calm: float, now: int) -> None:
        took_s = self._took_s.get(order_id, 0.0)
        self._note(("orphan", order_id), order_id not in known, now)
        age = self._age(("orphan", order_id), now)
        if age > ORPHAN_S if took_s < PROMPT_S else min(age, calm) > LATE_ORPHAN_S:
            self.broken("orphan", f"{order_id} rests at the venue and the executor does not know it")
        limit_s = self.sim.cfg.execution.order_deadline_ms / 1000 + LATE_AFTER_S
        self._note(("late", order_id), took_s > limit_s, now)
        if min(self._age(("late", order_id), now), calm) > LATE_S:
            self.broken("late", f"{order_id} reached the venue {took_s:.2f} s after it was sent and still rests")

    def difference(self) -> str:
        """How the account's books differ from the venue's, "" if they do not. Markets that are over are left out."""
        rec, out = self.account.rec[0], []
        truth, rows = self.truth.positions(), rec["position"]
        for market_id, *have in zip(*(rows[n].tolist() for n in ("market_id", "qty_up_u6", "qty_down_u6")), strict=True):
            want = truth.get(market_id)
            if want is not None and max(abs(have[0] - want[0]), abs(have[1] - want[1])) > 10_000:
                out.append(f"market {market_id}: we believe {tuple(have)}, the venue {want}")
        if int(rec["cash_u6"]) - self.truth.account.cash_u6 > EPS_U6:
            out.append(self._cash_text())
        return "; ".join(out)

    def _cash_text(self) -> str:
        return f"cash: we believe {int(self.account.rec['cash_u6'][0]) / 1e6:.6f}, the venue {self.truth.account.cash_u6 / 1e6:.6f}"

    def _look_at_positions(self, now: int) -> None:
        if self.known() is None:
            self._since.pop("difference", None)
            self._since.pop("cash_low", None)
            return
        text = self.difference()
        self._note("difference", bool(text), now)
        if min(self._age("difference", now), self.calm(now) - SETTLE_S + POSITION_S) > POSITION_S:
            self.broken("position", text)
        self._note("cash_low", self.truth.account.cash_u6 - int(self.account.rec["cash_u6"][0]) > EPS_U6, now)
        if min(self._age("cash_low", now), self.calm(now)) > CASH_LOW_S:
            self.broken("position", self._cash_text())

    def _dead_s(self, name: str, now: int) -> float:
        """Seconds since a process has been dead or stopped."""
        inc = self.sim.group.procs.get(name)
        gone = inc is None or inc.loop.frozen
        self._note(("dead", name), gone, now)
        return self._age(("dead", name), now)

    def _look_at_the_dead(self, now: int) -> None:
        executor, guardian = self._dead_s("executor", now), self._dead_s("guardian", now)
        live = len(self.truth.live())
        if live and min(executor, guardian) > DEAD_BOTH_S and not self.faulty():
            self.broken("dead_man", f"{live} orders rest, executor and guardian have been dead for {min(executor, guardian):.1f} s")
        elif live and executor > DEAD_EXECUTOR_S and guardian == 0 and self.calm(now) > DEAD_EXECUTOR_S - 1:
            self.broken("dead_man", f"{live} orders rest, the executor has been dead for {executor:.1f} s")

    # -- the end --

    def settle(self) -> None:
        """The run is over and was quiet at its end: everything must agree now."""
        self._look_at_words(self.scheduler.now_ns)
        if self.known() is None:
            self.broken("unknown", "the executor is not ready at the end of a quiet time")
            return
        if text := self.difference():
            self.broken("position", f"after a quiet time {text}")
        known, live = self.known(), self.truth.live()
        if strange := set(live) - set(known):
            self.broken("orphan", f"after a quiet time {len(strange)} orders rest that the executor does not know")

    def mids(self) -> dict[str, int]:
        """Fair Up price of every market now, 1e-4."""
        tape, now_ms = self.sim.tape, self.sim.exchange.clock.now_ns() // MS
        return {m.condition_id: int(np.clip(tape.fair_up(m.spec.start_s, now_ms) * 10_000, 0, 10_000))
                for m in self.sim.exchange.exchange.markets.values()}
