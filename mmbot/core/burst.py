"""The live source of the step: spin over rings and seqlocks, hand each record to it, publish what changed.
"""

import numpy as np
from numba import from_dtype, int64, types, void

from mmbot.clock import mono_ns_compiled
from mmbot.core.decide import PROGRAMME
from mmbot.core.kernel import step, step_records
from mmbot.core.state import DECISION_SHIFT, QUOTES_SHIFT, SLOT_MASK, STATE, WRITE_SHIFT
from shm_layout import records as r
from shm_layout.atomics import VIEW, WORDS, kernel, pause
from shm_layout.ring import LOST, poll_link, publish
from shm_layout.seqlock import read, version, write
from shm_layout.vitals import hist_record, hop_base


#: Everything a running core owns, in one block: the present inputs, the state, the clock and the burst's own numbers.
WORK = np.dtype([
    ("market", r.MARKET), ("oracle", r.ORACLE), ("spot", r.SPOT), ("own", r.OWN), ("programme", r.PROGRAMME), ("markets", r.MARKETS), ("account", r.ACCOUNT), ("guard", r.GUARD),
    ("params", r.PARAMS_BLOCK), ("state", STATE), ("scratch", "<i8", (3,)),
    ("wall0_ns", "<i8"), ("mono0_ns", "<i8"), ("rate", "<f8"), ("budget_ns", "<i8"), ("next_timer_ns", "<i8"), ("pending", "<i8"),
    ("handled", "<i8"), ("markets_version", "<i8"), ("account_version", "<i8"), ("guard_version", "<i8"), ("own_version", "<i8", (r.MARKET_SLOTS,)), ("programme_version", "<i8", (r.MARKET_SLOTS,)),
    ("spare", "<i8", (max(d.itemsize for d in (r.MARKETS, r.ACCOUNT, r.GUARD, r.OWN, r.PROGRAMME)) // 8,)),
])
WORK_T = from_dtype(WORK)
TIMER_NS = 5_000_000        # gates that shut by themselves (age, cut-off) are looked at this often
BUDGET_NS = 200_000
LOOK_EVERY = 16             # polls between looks at clock and seqlocks
RING_BELL = 1               # bit of what `burst` returns: quotes changed, wake the executor
_TOOK = 2
_PUB_POLL, _POLL_DECIDE = hop_base("pub_poll"), hop_base("poll_decide")


def _span(name: str) -> tuple[int, int]:
    """First word and end of a field of WORK."""
    dtype, offset = WORK.fields[name][:2]
    return offset // 8, (offset + dtype.itemsize) // 8
(_MARKET_0, _MARKET_1), (_ORACLE_0, _ORACLE_1), (_SPOT_0, _SPOT_1), (_MARKETS_0, _MARKETS_1), (_ACCOUNT_0, _ACCOUNT_1), \
    (_GUARD_0, _GUARD_1), (_OWN_0, _OWN_1), (_PROGRAMME_0, _PROGRAMME_1), (_SCRATCH_0, _SCRATCH_1), (_SPARE_0, _) = (
        _span(n) for n in ("market", "oracle", "spot", "markets", "account", "guard", "own", "programme", "scratch", "spare"))
_TARGET_0 = _span("state")[0] + STATE.fields["target"][1] // 8
_TARGET_WORDS = r.TARGET.itemsize // 8
_ALL_WRITE = SLOT_MASK << WRITE_SHIFT


@kernel(int64(WORDS))
def _now(words):
    return mono_ns_compiled(words[_SCRATCH_0:_SCRATCH_1])


@kernel(void(WORK_T, WORDS, int64, int64, WORDS, WORDS))
def _send(w, words, bits, t_decide_ns, targets, decisions):
    """Publish the slots of ``bits`` (as `step` returns them): targets first, then the decisions that differ."""
    for slot in range(r.MARKET_SLOTS):
        if bits >> (slot + WRITE_SHIFT) & 1:
            target = w.state.target[slot]
            if bits >> (slot + DECISION_SHIFT) & 1:
                target.t_decide_ns = t_decide_ns
                if bits >> (slot + QUOTES_SHIFT) & 1:
                    target.changed_ns = t_decide_ns
            at = _TARGET_0 + slot * _TARGET_WORDS
            write(targets, slot, words[at:at + _TARGET_WORDS])
    for slot in range(r.MARKET_SLOTS):
        if bits >> (slot + DECISION_SHIFT) & 1:
            at = _TARGET_0 + slot * _TARGET_WORDS
            publish(decisions, words[at:at + _TARGET_WORDS])


@kernel(int64(WORK_T, WORDS, int64, int64, int64, WORDS, WORDS, WORDS))
def _handle(w, words, src, t_pub_ns, now_ns, targets, decisions, vitals):
    """One input through `step` and out. ``t_pub_ns`` > 0: a ring record, whose hops are counted. Returns 1 if quotes changed."""
    wall_ns = w.wall0_ns + int64((now_ns - w.mono0_ns) * w.rate)
    bits = step_records(w.state, src, w.market, w.oracle, w.spot, w.own, w.programme, w.markets, w.account, w.guard, w.params, now_ns, wall_ns)
    if bits == 0 and t_pub_ns <= 0:
        return 0
    decided_ns = _now(words)
    if bits:
        _send(w, words, bits, decided_ns, targets, decisions)
    if t_pub_ns > 0:
        hist_record(vitals, _PUB_POLL, now_ns - t_pub_ns)
        hist_record(vitals, _POLL_DECIDE, decided_ns - now_ns)
    w.handled += 1
    return 1 if bits & SLOT_MASK else 0


@kernel(int64(WORDS, VIEW, int64, int64, int64, int64))
def _renew(words, mem, index, known, begin, end):
    """Copy the latest value of a seqlock entry to ``words[begin:end]`` if its version is not ``known``. Returns the version now there."""
    if version(mem, index) == known:
        return known
    got = read(mem, index, words[_SPARE_0:_SPARE_0 + end - begin])
    if got <= 0:                    # the writer was faster all the time: keep the old value, look again soon
        return known
    for i in range(end - begin):
        words[begin + i] = words[_SPARE_0 + i]
    return got


@kernel(int64(WORK_T, WORDS, VIEW, int64, WORDS, WORDS, WORDS))
def _look_at_own(w, words, own, now_ns, targets, decisions, vitals):
    """Take in what changed of our own orders, window by window. Returns 1 if quotes changed."""
    rang = 0
    for slot in range(r.MARKET_SLOTS):
        seen = _renew(words, own, slot, w.own_version[slot], _OWN_0, _OWN_1)
        if seen != w.own_version[slot]:
            w.own_version[slot] = seen
            rang |= _handle(w, words, r.SRC_OWN, 0, now_ns, targets, decisions, vitals)
    return rang


@kernel(int64(WORK_T, WORDS, VIEW, int64, WORDS, WORDS, WORDS))
def _look_at_programme(w, words, programme, now_ns, targets, decisions, vitals):
    """Take in new solutions of the linear programme, if a strategy asks for them. Returns 1 if quotes changed."""
    rang = 0
    if w.params.of[0].strategy != PROGRAMME and w.params.of[1].strategy != PROGRAMME:
        return rang
    for slot in range(r.MARKET_SLOTS):
        seen = _renew(words, programme, slot, w.programme_version[slot], _PROGRAMME_0, _PROGRAMME_1)
        if seen != w.programme_version[slot]:
            w.programme_version[slot] = seen
            rang |= _handle(w, words, r.SRC_PROGRAMME, 0, now_ns, targets, decisions, vitals)
    return rang


@kernel(int64(WORK_T, WORDS, VIEW, VIEW, VIEW, VIEW, VIEW, int64, WORDS, WORDS, WORDS))
def _look_around(w, words, own, programme, markets, account, guard, now_ns, targets, decisions, vitals):
    """Take in the seqlocks that have a new version, and let time pass. Returns 1 if quotes changed."""
    rang = _look_at_own(w, words, own, now_ns, targets, decisions, vitals)
    rang |= _look_at_programme(w, words, programme, now_ns, targets, decisions, vitals)
    seen = _renew(words, guard, 0, w.guard_version, _GUARD_0, _GUARD_1)
    if seen != w.guard_version:
        w.guard_version = seen
        rang |= _handle(w, words, r.SRC_GUARD, 0, now_ns, targets, decisions, vitals)
    seen = _renew(words, account, 0, w.account_version, _ACCOUNT_0, _ACCOUNT_1)
    if seen != w.account_version:
        w.account_version = seen
        rang |= _handle(w, words, r.SRC_ACCOUNT, 0, now_ns, targets, decisions, vitals)
    seen = _renew(words, markets, 0, w.markets_version, _MARKETS_0, _MARKETS_1)
    if seen != w.markets_version:
        w.markets_version = seen
        rang |= _handle(w, words, r.SRC_MARKETS, 0, now_ns, targets, decisions, vitals)
    if now_ns >= w.next_timer_ns:
        w.next_timer_ns = now_ns + TIMER_NS
        rang |= _handle(w, words, r.SRC_TIMER, 0, now_ns, targets, decisions, vitals)
    return rang


@kernel(int64(WORK_T, WORDS, VIEW, WORDS, WORDS, WORDS, WORDS))
def _poll_spot(w, words, ring, link, targets, decisions, vitals):
    """Take one record of a spot venue. Returns 0 when there is none, else _TOOK, with RING_BELL if quotes changed."""
    if poll_link(ring, link, words[_SPOT_0:_SPOT_1]) == 0:
        return 0
    return _TOOK | _handle(w, words, r.SRC_SPOT, w.spot.t_pub_ns, _now(words), targets, decisions, vitals)


@kernel(int64(types.Array(WORK_T, 1, "C"), WORDS, VIEW, VIEW, VIEW, VIEW, VIEW, WORDS, WORDS, WORDS, WORDS, WORDS, VIEW, VIEW, VIEW, VIEW, VIEW,
              WORDS, WORDS, WORDS))
def burst(work, words, md_market, md_oracle, md_binance, md_coinbase, md_bybit, market_link, oracle_link, binance_link, coinbase_link, bybit_link,
          own, programme, markets, account, guard, targets, decisions, vitals):
    """Spin over all inputs until quotes changed or the budget is used up. See `Core.bind` for the arguments.

    Returns 2 * inputs handled + RING_BELL if quotes changed. A changed quote is published before this returns; returning at once lets
    the caller ring the executor's bell.
    """
    w = work[0]
    w.handled = rang = polls = 0
    now = _now(words)
    end = now + w.budget_ns
    if w.pending:
        _send(w, words, w.pending, now, targets, decisions)
        rang, w.pending = 1, 0
    while rang == 0:
        got = 0
        if poll_link(md_market, market_link, words[_MARKET_0:_MARKET_1]):
            got, now = _TOOK, _now(words)
            rang |= _handle(w, words, r.SRC_MARKET, w.market.t_pub_ns, now, targets, decisions, vitals)
        got |= _poll_spot(w, words, md_binance, binance_link, targets, decisions, vitals)
        if poll_link(md_oracle, oracle_link, words[_ORACLE_0:_ORACLE_1]):
            got, now = got | _TOOK, _now(words)
            rang |= _handle(w, words, r.SRC_ORACLE, w.oracle.t_pub_ns, now, targets, decisions, vitals)
        got |= _poll_spot(w, words, md_coinbase, coinbase_link, targets, decisions, vitals)
        got |= _poll_spot(w, words, md_bybit, bybit_link, targets, decisions, vitals)
        rang |= got & RING_BELL
        if polls % LOOK_EVERY == 0:
            now = _now(words)
            rang |= _look_around(w, words, own, programme, markets, account, guard, now, targets, decisions, vitals)
        polls += 1
        if now >= end:
            break
        if got == 0:
            pause()
    return 2 * w.handled + rang


class Core:
    """A running core: its memory, and the way from shared memory through it. Build once; `spin` creates no objects.

    ``params``: PARAMS_BLOCK, 1 element. Not thread-safe; one per process.
    """

    def __init__(self, params):
        self.work = np.zeros(1, WORK)
        self.words = self.work.view(np.int64)
        self.work["params"] = params
        self.state = self.work["state"]
        self.work["rate"], self.work["budget_ns"] = 1.0, BUDGET_NS
        self._inputs = tuple(self.work[n] for n in ("market", "oracle", "spot", "own", "programme", "markets", "account", "guard", "params"))
        self._lost = 0

    def set_clock(self, wall0_ns: int, mono0_ns: int, rate: float, budget_ns: int = BUDGET_NS) -> None:
        """Wall time is ``wall0_ns + (mono - mono0_ns) * rate``; a burst lasts at most about ``budget_ns``."""
        self.work["wall0_ns"], self.work["mono0_ns"], self.work["rate"] = wall0_ns, mono0_ns, rate
        self.work["budget_ns"] = budget_ns

    def bind(self, rings: dict, seqlocks: dict, targets, decisions, vitals) -> None:
        """Connect to shared memory: RingReaders by name, SeqlockReaders by name, and the three writers."""
        self._rings, self._seqlocks = rings, seqlocks
        feeds = [rings[n] for n in ("md.market", "md.oracle", "md.binance", "md.coinbase", "md.bybit")]
        self._args = (self.work, self.words, *(f.mem for f in feeds), *(f.link for f in feeds),
                      *(seqlocks[n].mem for n in ("own", "programme", "markets", "account", "guard")), targets.mem, decisions.mem, vitals.mem)
        self._targets = targets

    def take(self, src: int, now_ns: int) -> int:
        """Run `step` on the inputs as they are now; what changed is published by the next `spin`. Returns the step's bits."""
        wall_ns = int(self.work["wall0_ns"][0]) + int((now_ns - int(self.work["mono0_ns"][0])) * float(self.work["rate"][0]))
        bits = step(self.state, src, *self._inputs, now_ns, wall_ns)
        self.work["pending"] |= bits
        return bits

    def change(self, params, now_ns: int) -> None:
        """Trade with another block (PARAMS_BLOCK, 1 element) from here on. Call between two bursts: every decision is then made by one version or the other,
        never by both, and every window is decided again at once."""
        self.work["params"] = params
        self.take(r.SRC_PARAMS, now_ns)

    def attach(self, now_ns: int) -> None:
        """Take in the present as the other processes keep it: market table, account, guard, oracle memory, own
        orders, books.

        State, not history: this is all a restarted core needs to quote again in mid-window. Also run after a lapped ring. All targets
        are written anew, so none of an earlier life stays.
        """
        for name in ("markets", "account", "guard"):
            if self._seqlocks[name].read() > 0:
                self.work[name] = self._seqlocks[name].rec
        self.take(r.SRC_MARKETS, now_ns)
        oracle = self._seqlocks["oracle"]
        if oracle.read() > 0:
            memory = oracle.rec[0]
            for record in (*memory["boundary"], memory["twap60"], memory["spot"]):
                if record["t_obs_ms"] > 0:
                    self.work["oracle"] = record
                    self.take(r.SRC_ORACLE, now_ns)
        for name, field, src in (("own", "own", r.SRC_OWN), ("programme", "programme", r.SRC_PROGRAMME), ("book", "market", r.SRC_MARKET)):
            reader = self._seqlocks[name]
            for slot in range(r.MARKET_SLOTS):
                if reader.read(slot) > 0:
                    self.work[field] = reader.rec
                    self.take(src, now_ns)
        self.work["pending"] |= _ALL_WRITE

    def spin(self) -> int:
        """One burst; see `burst` for what it returns."""
        return burst(*self._args)

    def housekeeping(self, now_ns: int) -> bool:
        """Attach again when a ring was lapped since the last call: a lost record may have been a strike. True if it was."""
        lost = sum(int(reader.link[LOST]) for reader in self._rings.values())
        if lost == self._lost:
            return False
        self._lost = lost
        self.attach(now_ns)
        return True

    def retire(self, now_ns: int) -> None:
        """Leave no quotes behind: every target emptied and past its deadline. For an orderly stop."""
        for slot in range(r.MARKET_SLOTS):
            target = self.state["target"][0, slot]
            target["n_quotes"] = 0
            target["quote"] = np.zeros(r.MAX_QUOTES, r.QUOTE)
            target["deadline_ns"] = target["changed_ns"] = now_ns
            self._targets.rec[0] = target
            self._targets.write(slot)
