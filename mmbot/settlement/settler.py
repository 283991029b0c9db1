"""The life of an operation: decided, signed and on file, sent, mined, judged. One at a time.

Owns: `Settler`. Reads positions and windows through an injected function, acts through a `wallet.Wallet`, remembers in a `journal.SettlementJournal`,
tells through injected functions. No sockets and no clock of its own.

    WANTED (signed, on file) -> SUBMITTED (on file, then sent) -> MINED -> CONFIRMED (the receipt shows the payout)
                 |                      |                                 |
                 +------ FAILED --------+---------------------------------+

What makes it safe: the signed bytes are on file before they are sent, and only they are ever sent again. They bear the wallet's nonce, so they can
happen at most once. Where nobody answers, the same bytes go again: they are taken, or the answer is that their nonce is used up, and then the
chain's log says whether it was by them. An operation whose fate is not known keeps every other one waiting, over restarts too. What was signed and not
yet sent when the process died is dropped.
No status is believed: an operation is confirmed when the logs of its transaction show our shares going and the dollars coming, to the last unit.

Can go wrong: nothing answers (tried again each turn, named); the relayer is busy (the same); the transaction reverts or pays something else (FAILED,
named; the executor's comparison then finds what is missing); the operator of the venue redeems before us (recorded as done, "elsewhere").
"""

from collections.abc import Callable, Sequence

from mmbot.config import Settlement
from mmbot.inventory import settlement as rules
from mmbot.inventory.settlement import Holding, Rules, Want
from mmbot.settlement.effects import effect_of, judge
from mmbot.settlement.journal import Held, Op, SettlementJournal
from mmbot.settlement.wallet import Busy, NoAnswer, Refused, Signed, Spent, WalletError
from shm_layout.records import NO_OUTCOME, SK_MERGE, SK_REDEEM, SS_CONFIRMED, SS_FAILED, SS_MINED, SS_SUBMITTED, SS_WANTED, window_of

LOOK_AGAIN_NS = 30_000_000_000      # how often the chain is asked again for a window that holds nothing any more
ZEROS = 2                           # so often must the chain show nothing before it is believed
FORGET_S = 3600                     # so long after its end a window is taken to hold nothing new
SEARCHES = 10                       # turns in which the chain's log is searched for an operation whose nonce is used up
RESEND_NS = 15_000_000_000          # an EOA transaction that is not mined is sent again, in case the node has dropped it
EXPIRED_S = 60                      # so long after its deadline the chain cannot take a signature any more
KINDS = {SK_MERGE: "merge", SK_REDEEM: "redeem"}


def _dollars(value_u6: int) -> str:
    return f"{value_u6 / 1e6:.6f}".rstrip("0").rstrip(".")


class Settler:
    """``look``: () -> (holdings of the listed windows, their `Held` facts, is the executor ready). ``publish``: told each step of an operation. ``report``:
    event(name), error(code, text), info(text). ``paused``: () -> bool, asked each turn. Call `resume` once, then `turn` each poll_s."""

    def __init__(self, cfg: Settlement, wallet, journal: SettlementJournal, look: Callable, publish: Callable, report, mono_ns, wall_ns,
                 paused: Callable[[], bool] = lambda: False):
        self.cfg, self.wallet, self.journal, self.look, self.publish, self.report = cfg, wallet, journal, look, publish, report
        self.mono_ns, self.wall_ns, self.paused = mono_ns, wall_ns, paused
        self.op: Op | None = None
        self.why: dict[int, str] = {}               # why each window was left alone at the last turn
        self._started: list[int] = []
        self._failures: dict[int, int] = {}
        self._retry_ns: dict[int, int] = {}
        self._looked_ns: dict[int, int] = {}
        self._chain: dict[int, tuple[int, int]] = {}
        self._zeros: dict[int, int] = {}
        self._sent_ns = self._begun_ns = 0
        self._searches = 0

    # ---- start ---------------------------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Take up what an earlier life left, and tell again what is on file: a reader may have missed the last steps. Errors: OSError."""
        now = self._begun_ns = self.mono_ns()
        if self.journal.damaged:
            self.report.error("journal_damaged", f"{self.journal.damaged} damaged lines in the settlement journal were skipped")
        for op in sorted(self.journal.ops.values(), key=lambda o: o.number):
            if op.final:
                self.publish(op)
            elif op.state == SS_WANTED:
                self._finish(op, SS_FAILED, "never_sent", "signed and not sent when the settler stopped", quiet=True)
            else:
                op.doubt, self.op = True, op
                self.publish(op)
        self._started = [now for op in self.journal.ops.values() if self.wall_ns() // 1_000_000 - op.wall_ms < 60_000]

    # ---- one turn --------------------------------------------------------------------------------------------------------

    async def turn(self) -> None:
        """Advance the operation under way, or find the next one. Errors: OSError (the journal), UserError (settings)."""
        try:
            if self.op is not None:
                await self.wallet.open()
                await self._advance(self.op)
            else:
                await self._next()
        except NoAnswer as e:
            self.report.error("no_answer", str(e))

    async def _next(self) -> None:
        holdings, facts, ready = self.look()
        self._remember(holdings, facts)
        now = self.mono_ns()
        limits = Rules(int(self.cfg.merge_min_sets * 1e6), self.cfg.ops_per_min, int(self.cfg.gap_s * 1e9), self.cfg.pause_merges or self.paused(), ready)
        seen = [h._replace(retry_ns=self._retry_ns.get(h.market_id, 0)) for h in holdings if h.outcome == NO_OUTCOME]
        seen += await self._resolved(now)
        want, self.why = rules.decide(seen, limits, now)
        if want is None or now < rules.due_ns(self._started, limits):
            return
        await self._begin(want, next(h for h in seen if h.market_id == want.market_id), limits, now)

    def _remember(self, holdings: Sequence[Holding], facts: dict[int, Held]) -> None:
        """Windows in which we hold something go on file, and again when their outcome is known: they may leave the market table before they paid."""
        for h in holdings:
            old, held = self.journal.windows.get(h.market_id), facts[h.market_id]
            if old is None and (any(h.qty_u6) or any(h.confirmed_u6)) and not self._over(h.market_id):
                self.journal.window(held)
            elif old is not None and h.outcome != NO_OUTCOME and old != held:
                self.journal.window(held)

    def _over(self, market_id: int) -> bool:
        return self.wall_ns() // 1_000_000_000 > sum(window_of(market_id)) + FORGET_S

    async def _resolved(self, now: int) -> list[Holding]:
        """Resolved windows on file, with what the chain shows of them; a window that holds nothing for long enough is done."""
        out = []
        for held in list(self.journal.windows.values()):
            if held.outcome == NO_OUTCOME:
                if self._over(held.market_id):
                    self.report.error("never_resolved", f"window {held.market_id} left the market table without an outcome: redeem its shares by hand")
                continue
            if now - self._looked_ns.get(held.market_id, -LOOK_AGAIN_NS) >= LOOK_AGAIN_NS:
                await self.wallet.open()
                self._looked_ns[held.market_id] = now
                self._chain[held.market_id] = await self.wallet.balances_u6(held)
                self._nothing_left(held)
            if held.market_id in self.journal.windows:
                out.append(Holding(held.market_id, held.outcome, held.qty_u6, held.cost_u6, chain_u6=self._chain.get(held.market_id),
                                   retry_ns=self._retry_ns.get(held.market_id, 0)))
        return out

    def _nothing_left(self, held: Held) -> None:
        """The chain shows none of the winning shares: redeemed by us, or by somebody else, or there were none."""
        zeros = self._zeros[held.market_id] = 0 if self._chain[held.market_id][held.outcome] else self._zeros.get(held.market_id, 0) + 1
        if zeros < ZEROS:
            return
        done = any(op.market_id == held.market_id and op.kind == SK_REDEEM and op.state == SS_CONFIRMED for op in self.journal.ops.values())
        if not done and held.qty_u6[held.outcome]:
            op = self._op(Want(SK_REDEEM, held.market_id, *held.qty_u6, held.qty_u6[held.outcome], sum(held.cost_u6), held.outcome))
            self._finish(op, SS_CONFIRMED, "elsewhere", "the chain shows no shares any more: somebody else has redeemed them")
        if self._over(held.market_id):
            self.journal.window(Held(held.market_id, held.condition, held.tokens, held.version, held.neg_risk, held.outcome, done=True))

    # ---- beginning -------------------------------------------------------------------------------------------------------

    def _op(self, want: Want) -> Op:
        return Op(self.journal.next_number, want.kind, want.market_id, want.up_u6, want.down_u6, want.payout_u6, want.cost_u6, want.outcome,
                  t_ns=self.mono_ns(), wall_ms=self.wall_ns() // 1_000_000)

    async def _begin(self, want: Want, h: Holding, limits: Rules, now: int) -> None:
        """Look at the chain, sign, put on file, send."""
        await self.wallet.open()
        held = self.journal.windows.get(want.market_id)
        if held is None:
            return
        cut = rules.cut(want, h, await self.wallet.balances_u6(held), limits)
        if cut is None:
            self._wait(want.market_id, "balance_short", f"{KINDS[want.kind]} of {_dollars(want.up_u6)} sets in {want.market_id}: the chain shows fewer")
            return
        if not await self.wallet.approved(held):
            self._wait(want.market_id, "not_approved", f"the wallet has not allowed {self.wallet.operator(held)} to move its shares: set the trading approvals "
                                                       "(the official client's setup_trading_approvals)")
            return
        op = self._op(cut)
        try:
            signed: Signed = await self.wallet.sign(held, op)
        except Refused as e:
            self._wait(want.market_id, "refused", f"{KINDS[want.kind]} in {want.market_id} would not go through: {e}")
            return
        op.body, op.nonce, op.deadline_s, op.block, op.tx = signed
        self._started = [*self._started, now][-60:]
        self._searches = 0
        self._begun_ns = self.mono_ns()
        self.op = op
        self._step(op, SS_WANTED)
        self._step(op, SS_SUBMITTED)
        await self._send(op)

    def _wait(self, market_id: int, code: str, text: str) -> None:
        """Not now; longer each time."""
        n = self._failures[market_id] = self._failures.get(market_id, 0) + 1
        self._retry_ns[market_id] = self.mono_ns() + rules.retry_ns(int(self.cfg.retry_s * 1e9), n)
        self.report.error(code, text)

    def _step(self, op: Op, state: int) -> None:
        """Write the step down, then tell it. Errors: OSError; then it has not been made."""
        op.state, op.t_ns = state, self.mono_ns()
        self.journal.op(op)
        self.publish(op)

    # ---- under way -------------------------------------------------------------------------------------------------------

    async def _advance(self, op: Op) -> None:
        if self.mono_ns() - self._begun_ns > self.cfg.slow_s * 1e9:
            self.report.error("slow", f"{self._name(op)} is under way for more than {self.cfg.slow_s:g} s: nothing else is settled meanwhile")
        if op.relayer_id or op.tx:
            await self._follow(op)
        else:
            await self._send(op)

    async def _send(self, op: Op) -> None:
        """Send what was signed, or the same bytes again."""
        self._sent_ns = self.mono_ns()
        try:
            relayer_id, tx = await self.wallet.submit(op)
        except Spent as e:
            await self._search(op, str(e))
        except Refused as e:
            if op.doubt:            # the first time may have been taken: only the chain knows
                await self._search(op, str(e))
            else:
                self._finish(op, SS_FAILED, "refused", str(e))
        except Busy as e:
            op.reason = "busy"
            self.report.error("busy", f"{self._name(op)}: {e}")
            await self._expire(op)
        except NoAnswer as e:
            self.report.error("no_answer", f"{self._name(op)}: {e}")
            if not op.doubt:
                op.doubt, op.reason = True, "no_answer"
                self._step(op, op.state)
            await self._expire(op)
        else:
            op.relayer_id, op.tx, op.doubt, op.reason = relayer_id, tx or op.tx, False, ""
            self._step(op, op.state)

    async def _expire(self, op: Op) -> None:
        """A signature with a deadline is worth nothing after it, unless it was used before."""
        if op.deadline_s and await self.wallet.now_s() > op.deadline_s + EXPIRED_S:
            if await self.wallet.nonce() > op.nonce:
                await self._search(op, "its nonce is used up")
            else:
                self._finish(op, SS_FAILED, "expired", "the deadline of its signature has passed and it was not used")

    async def _follow(self, op: Op) -> None:
        """Ask what became of it."""
        seen = await self.wallet.look(op)
        op.tx = seen.tx or op.tx
        if seen.state == "failed":
            self._finish(op, SS_FAILED, "reverted", seen.text or "the relayer says that it failed")
        elif seen.state == "unknown":
            op.doubt, op.relayer_id = True, ""
            self._step(op, op.state)
            await self._send(op)
        elif seen.state == "waits":
            if not op.relayer_id and self.mono_ns() - self._sent_ns > RESEND_NS:
                await self._send(op)
        else:
            if op.state != SS_MINED:
                self._step(op, SS_MINED)
            if seen.state == "final":
                await self._judge(op)

    async def _judge(self, op: Op) -> None:
        """Compare what the transaction did with what it was to do."""
        receipt = await self.wallet.receipt(op.tx)
        if receipt is None:
            raise NoAnswer(f"{self._name(op)}: the node does not know transaction {op.tx[:12]} yet")
        wrong, paid = judge(self._effect(op, receipt), op.kind, op.outcome, op.up_u6, op.down_u6, op.payout_u6)
        op.paid_u6 = paid
        if wrong:
            self._finish(op, SS_FAILED, wrong, f"transaction {op.tx[:12]} paid {_dollars(paid)} dollars instead of {_dollars(op.payout_u6)}")
        else:
            op.payout_u6 = paid
            self._finish(op, SS_CONFIRMED)

    def _effect(self, op: Op, receipt: dict):
        held = self.journal.windows.get(op.market_id)
        if held is None:
            raise WalletError(f"{self._name(op)}: its window is not on file")
        try:
            return effect_of(receipt, self.wallet.funder, self.wallet.collateral, self.wallet.tokens_at(held), [int(t) for t in held.tokens])
        except ValueError as e:
            raise NoAnswer(str(e)) from None

    async def _search(self, op: Op, why: str) -> None:
        """Its nonce is used up: look for a transaction that did exactly this since it was signed."""
        taken = {o.tx for o in self.journal.ops.values() if o is not op and o.tx}
        for tx in await self.wallet.payments(op.block):
            if tx in taken:
                continue
            receipt = await self.wallet.receipt(tx)
            if receipt is not None and not judge(self._effect(op, receipt), op.kind, op.outcome, op.up_u6, op.down_u6, op.payout_u6)[0]:
                op.tx, op.doubt = tx, False
                self._step(op, SS_MINED)
                await self._judge(op)
                return
        self._searches += 1
        if self._searches >= SEARCHES:
            self._finish(op, SS_FAILED, "nonce_taken", f"another transaction of the wallet came first ({why})")

    def _name(self, op: Op) -> str:
        return f"{KINDS[op.kind]} {op.number} of {_dollars(op.payout_u6)} dollars in {op.market_id}"

    def _finish(self, op: Op, state: int, reason: str = "", text: str = "", quiet: bool = False) -> None:
        """The fate is known."""
        op.reason, op.text = reason, text
        self._step(op, state)
        if self.op is op:
            self.op = None
        self._looked_ns.pop(op.market_id, None)
        self._chain.pop(op.market_id, None)
        if state == SS_CONFIRMED:
            self._failures.pop(op.market_id, None)
            self._retry_ns.pop(op.market_id, None)
            self.report.event("merges" if op.kind == SK_MERGE else "redeems")
            result = op.payout_u6 - op.cost_u6
            self.report.info(f"{self._name(op)}: {'done elsewhere' if reason else 'paid'}, result {result / 1e6:+.6f}")
        else:
            self.report.event("settlements_failed")
            if not quiet:
                self._wait(op.market_id, reason, f"{self._name(op)} failed: {text}")
