"""Cancel every order at the venue from outside the bot, see with our own eyes that they are gone, and say what is still held.

Owns: nothing; speaks to the venue on connections of its own and needs no process of the group: it works while all of them are wedged or dead.
Used by `mmbot cancel-all`, `mmbot flatten`, and by `mmbot down` when the executor could not do it.
Cancelling comes first and waits for no reading. The orders count as gone when a cancel-all was accepted and none is listed after it.
Can go wrong: the venue cannot be reached at all (UserError); it refuses, or orders stay (``trouble``, ``left``).
"""

import asyncio
from dataclasses import dataclass, field

from mmbot import clock, config
from mmbot.clock import mono_ns
from mmbot.errors import UserError
from mmbot.execution.credentials import credentials
from mmbot.execution.http1 import ConnectionPool, NotSent, UnknownOutcome
from mmbot.execution.l2 import L2Auth
from mmbot.execution.rest import OpenOrder, RestClient, Trade, VenueError
from mmbot.execution.wire import Outcome, Requests, parse_cancel
from mmbot.settlement.journal import FILE, taken_u6
from shm_layout import records as r

PATIENCE_S = 12.0           # how long to go on while the venue refuses, does not answer, or still lists orders
PAUSE_S = 0.3
CLOCK_S = 3.0
CONNECT_S = 5.0
LIST_S = 2.0                # the look beforehand must not keep the cancel waiting
HELD_S = 86_400             # positions come from the trades of so long ago: longer than any window lives


@dataclass(frozen=True)
class Flattened:
    """before: orders that rested when we looked; cancelled: ids the venue says it cancelled; left: ids still resting; new: ids that appeared
    meanwhile (somebody is quoting); reasons: id -> why not cancelled; trouble: why the account cannot be called flat, "" when it is."""
    before: list[OpenOrder]
    cancelled: list[str]
    left: list[str]
    new: list[str]
    reasons: dict[str, str]
    trouble: str = ""


@dataclass
class Held:
    """Shares of one token that the venue's trades say we hold. ``failed_u6`` of them were taken back at settlement and are not counted;
    ``sellable_u6`` is the balance that the venue shows (-1: not told)."""
    condition_id: str
    token: str
    outcome: str
    shares_u6: int = 0
    cost_u6: int = 0
    pending_u6: int = 0
    failed_u6: int = 0
    sellable_u6: int = -1
    trades: list[str] = field(default_factory=list)

    def take(self, size_u6: int) -> bool:
        """Take out shares that were merged or redeemed, at average cost; false when none are left."""
        left_u6 = self.shares_u6 - size_u6
        self.cost_u6 = self.cost_u6 * left_u6 // self.shares_u6 if self.shares_u6 else 0
        self.shares_u6 = left_u6
        return left_u6 != 0


def cancel_everything(cfg: config.Settings) -> Flattened:
    """Cancel all orders of the account and verify by reading the open orders. Errors: UserError when the venue cannot be reached."""
    account = credentials(cfg)
    wall = clock.sync(cfg.venue.clock_url, CLOCK_S)
    return asyncio.run(_cancel_everything(cfg, account, wall))


class _Attempt:
    """One call of `cancel_everything`: what has been learned so far."""

    def __init__(self, pool: ConnectionPool, requests: Requests, rest: RestClient, wall: clock.WallClock):
        self.pool, self.requests, self.rest, self.wall = pool, requests, rest, wall
        self.before: list[OpenOrder] | None = None
        self.cancelled: set[str] = set()
        self.reasons: dict[str, str] = {}
        self.listed: set[str] | None = None
        self.accepted = False

    async def look_before(self) -> None:
        try:
            async with asyncio.timeout(LIST_S):
                self.before = await self.rest.open_orders()
        except (VenueError, TimeoutError):
            self.before = None

    async def round(self) -> str:
        """Cancel once and list; returns what is still wrong, "" when nothing is."""
        trouble = await self._cancel()
        try:
            listed = {o.id for o in await self.rest.open_orders()}
        except VenueError as e:
            return trouble or f"the open orders cannot be read: {e}"
        seen = self.cancelled | {o.id for o in self.before or ()}
        if self.listed is None and self.before is None:
            seen |= listed                          # nobody could look before: what rests now is what must go
        self.listed = listed
        left = listed & seen
        return trouble or (f"{len(left)} orders still rest" if left else "")

    async def _cancel(self) -> str:
        try:
            answer = await self.pool.request(self.requests.cancel_all(int(self.wall.now_s())))
        except (NotSent, UnknownOutcome) as e:
            return str(e)
        result = parse_cancel(answer.status, answer.body)
        self.cancelled |= set(result.canceled)
        self.reasons |= result.not_canceled
        self.accepted = self.accepted or result.outcome == Outcome.ACCEPTED
        return "" if result.outcome == Outcome.ACCEPTED else f"the venue does not cancel: {result.error}"

    def result(self, trouble: str) -> Flattened:
        seen = self.cancelled | {o.id for o in self.before or ()}
        listed = self.listed if self.listed is not None else seen
        known = self.before is not None or self.listed is None
        left, new = (listed & seen, listed - seen) if known or not trouble else (listed, set())
        return Flattened(self.before or [], sorted(self.cancelled), sorted(left), sorted(new), self.reasons, trouble)


async def _cancel_everything(cfg: config.Settings, account, wall: clock.WallClock) -> Flattened:
    requests = Requests(cfg.venue.clob_url, L2Auth(account))
    pool = ConnectionPool(cfg.venue.clob_url, 2, timeout_s=cfg.execution.request_timeout_s)
    end = mono_ns() + int(PATIENCE_S * 1e9)
    async with RestClient.of(cfg.venue, wall.now_s, account) as rest:
        attempt = _Attempt(pool, requests, rest, wall)
        try:
            await asyncio.gather(pool.start(wait_s=CONNECT_S), attempt.look_before())
            while (trouble := await attempt.round()) and mono_ns() < end:
                await asyncio.sleep(PAUSE_S)
        finally:
            await pool.close()
    if trouble and attempt.listed is None and not attempt.accepted:
        raise UserError(f"the venue at {cfg.venue.clob_url} did not cancel: {trouble}; the orders may still rest, run it again")
    return attempt.result(trouble)


def holdings(cfg: config.Settings) -> list[Held]:
    """What the venue's trades of the last day say we hold, less what the settlement journal says was merged and redeemed, and what the venue lets us
    sell of it. Errors: UserError."""
    account = credentials(cfg)
    settled, _ = taken_u6(cfg.run.path / FILE, r.SK_MERGE, r.SK_REDEEM)
    wall = clock.sync(cfg.venue.clock_url, CLOCK_S)

    async def ask() -> list[Held]:
        async with RestClient.of(cfg.venue, wall.now_s, account) as rest:
            found = held(await rest.trades(after=int(wall.now_s()) - HELD_S), account.api_key, account.address, account.funder)
            found = [h for h in found if h.take(settled.get(h.token, 0))]
            for h in found:
                h.sellable_u6 = (await rest.token_balance(h.token)).balance_u6
            return found

    try:
        return asyncio.run(ask())
    except VenueError as e:
        raise UserError(f"the positions could not be read: {e}") from None


def held(trades: list[Trade], api_key: str, *addresses: str) -> list[Held]:
    """Own shares per token out of a list of trades, tokens without any left out. Pure."""
    out: dict[str, Held] = {}
    mine = {a.lower() for a in addresses}
    for t in trades:
        legs = [(m.asset_id, m.outcome, m.side, m.matched_u6, m.px_e4) for m in t.maker_orders
                if m.owner == api_key or (not m.owner and m.maker_address.lower() in mine)]
        if t.owner == api_key and t.trader_side.upper() != "MAKER":
            legs.append((t.asset_id, t.outcome, t.side, t.size_u6, t.px_e4))
        for token, outcome, side, size_u6, px_e4 in legs:
            h = out.setdefault(token, Held(t.market, token, outcome))
            h.trades.append(t.id)
            if t.state == "FAILED":
                h.failed_u6 += size_u6
                continue
            sign = 1 if side.upper() == "BUY" else -1
            h.shares_u6 += sign * size_u6
            h.cost_u6 += sign * size_u6 * px_e4 // 10_000
            h.pending_u6 += size_u6 if t.state != "CONFIRMED" else 0
    return [h for h in out.values() if h.shares_u6]
