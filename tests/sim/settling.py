"""A settler against the exchange over real sockets: its wallet is the official client, its positions are the exchange's own or an executor's."""

import asyncio
from pathlib import Path

from exchange_world import CID, DOWN_TOKEN, START_S, UP_TOKEN
from pydantic import SecretStr

from mmbot import config
from mmbot.clock import mono_ns
from mmbot.config import Settlement
from mmbot.execution.credentials import credentials
from mmbot.inventory.settlement import Holding
from mmbot.ops.wallets import wallets_of
from mmbot.settlement.journal import Held, SettlementJournal
from mmbot.settlement.settler import Settler
from mmbot.settlement.wallet import Wallet
from mmbot.sim import accounts
from shm_layout import records as r

MARKET = START_S * 1000 + 15
TURN_S = 0.01
QUICK = Settlement(gap_s=0.0, ops_per_min=60, retry_s=0.05, slow_s=5.0, confirmations=0)


class Killed(BaseException):
    """The process dies here."""


class Report:
    """Counts events, keeps complaints and results."""

    def __init__(self):
        self.events, self.codes, self.texts, self.results = [], [], [], []

    def event(self, name):
        self.events.append(name)

    def error(self, code, text):
        self.codes.append(code)
        self.texts.append(f"{code}: {text}")

    def info(self, text):
        self.results.append(text)


def settings(world, signature_type=0):
    """The exchange's settings, trading from the key itself or from the wallet of a signature type."""
    cfg = world.settings
    if signature_type:
        name = ("", "proxy wallet", "safe", "deposit wallet")[signature_type]
        update = {"private_key": SecretStr(accounts.PAPER_KEY), "signature_type": signature_type, "funder": wallets_of(accounts.PAPER_ADDRESS)[name]}
        cfg = cfg.model_copy(update={"account": config.Account(**update)})
    return cfg.model_copy(update={"settlement": QUICK})


class Shop:
    """One wallet that holds shares in the exchange, and lives of a settler for it. ``die_at``: number of the step (journal write or submit) at which the
    process dies, and whether before or after it."""

    def __init__(self, world, directory: Path, signature_type=0, look=None, **cfg):
        self.world, self.path = world, directory / "settlement.log"
        self.cfg = settings(world, signature_type)
        self.settlement = QUICK.model_copy(update=cfg)
        self.cfg = self.cfg.model_copy(update={"settlement": self.settlement})
        self.who = credentials(self.cfg, need_api=False)
        self.report, self.told, self.look = Report(), [], look or self.truth
        self.paused = False
        self.die_at, self.steps = None, 0
        self.submits = 0

    def give(self, up, down, cash=0):
        """Shares out of nowhere (the recorded market has as many fewer)."""
        def work(x, now):
            account = x.account(self.who.funder)
            for token, shares in ((UP_TOKEN, up), (DOWN_TOKEN, down)):
                account.shares[token] = account.shares.get(token, 0) + int(shares * 1e6)
                x.recorded.shares[token] = x.recorded.shares.get(token, 0) - int(shares * 1e6)
        self.world.do(work)

    def held(self):
        """([Up, Down] shares, dollars) in the exchange's books."""
        def work(x, now):
            a = x.account(self.who.funder)
            return [a.shares.get(t, 0) / 1e6 for t in (UP_TOKEN, DOWN_TOKEN)], a.cash_u6 / 1e6
        return self.world.do(work)

    def truth(self):
        """What an executor would say: everything is confirmed and seen by the venue; the price was half a dollar."""
        def work(x, now):
            a, market = x.account(self.who.funder), x.market(CID)
            sizes = tuple(x.settled_u6(a, t) for t in (UP_TOKEN, DOWN_TOKEN))
            offered = tuple(a.reserved_shares.get(t, 0) for t in (UP_TOKEN, DOWN_TOKEN))
            return sizes, offered, market.outcome, market.spec.version, CID[:-2] if market.spec.version == "v2" else CID
        sizes, offered, outcome, version, condition = self.world.do(work)
        costs = tuple(n // 2 for n in sizes)
        h = Holding(MARKET, outcome, sizes, costs, sizes, sizes, offered)
        return [h], {MARKET: Held(MARKET, condition, (UP_TOKEN, DOWN_TOKEN), 2 if version == "v2" else 1, False, outcome, sizes, costs)}, True

    def _step(self, after):
        self.steps += not after
        if self.die_at == (self.steps, after):
            raise Killed

    def _journal(self):
        shop = self

        class Journal(SettlementJournal):
            def op(self, op):
                shop._step(False)
                super().op(op)
                shop._step(True)
        return Journal(self.path)

    def _wallet(self):
        shop = self

        class Purse(Wallet):
            async def submit(self, op):
                shop._step(False)
                shop.submits += 1
                answer = await super().submit(op)
                shop._step(True)
                return answer
        return Purse(self.cfg, self.who)

    async def live(self, until=lambda settler: False, seconds=5.0):
        """One life: turns until ``until`` holds; True, or False when it was killed."""
        journal, wallet = self._journal(), self._wallet()
        self.settler = Settler(self.settlement, wallet, journal, self.look, lambda op: self.told.append((op.number, op.kind, op.state, op.reason)),
                               self.report, mono_ns, self.world.server.clock.now_ns, lambda: self.paused)
        end = mono_ns() + int(seconds * 1e9)
        try:
            self.settler.resume()
            while not until(self.settler):
                await self.settler.turn()
                await asyncio.sleep(TURN_S)
                assert mono_ns() < end, f"it never happened: {self.report.texts[-5:]} {self.settler.op}"
            return True
        except Killed:
            self.die_at = None
            return False
        finally:
            await wallet.close()
            journal.close()

    def confirmed(self, kind):
        """Numbers of the confirmed operations of a kind."""
        return {number for number, k, state, _ in self.told if k == kind and state == r.SS_CONFIRMED}


def merged(settler):
    """Is a merge confirmed?"""
    return any(op.kind == r.SK_MERGE and op.state == r.SS_CONFIRMED for op in settler.journal.ops.values())


def redeemed(settler):
    """Is a redemption confirmed?"""
    return any(op.kind == r.SK_REDEEM and op.state == r.SS_CONFIRMED for op in settler.journal.ops.values())
