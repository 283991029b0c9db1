"""Cancel every order at the venue from outside the bot, and see with our own eyes that they are gone.

Owns: nothing; speaks to the venue on a connection of its own and needs no process of the group. Used by `mmbot cancel-all` and by
`mmbot down` when the executor could not do it.
Can go wrong: the venue does not answer or refuses (UserError), or orders stay (they are returned as ``left``).
"""

import asyncio
from dataclasses import dataclass

from mmbot import clock, config
from mmbot.errors import UserError
from mmbot.execution.credentials import credentials
from mmbot.execution.http1 import ConnectionPool, NotSent, UnknownOutcome
from mmbot.execution.l2 import L2Auth
from mmbot.execution.rest import OpenOrder, RestClient, VenueError
from mmbot.execution.wire import Outcome, Requests, parse_cancel

ROUNDS = 5
PAUSE_S = 0.3
CLOCK_S = 3.0
CONNECT_S = 5.0


@dataclass(frozen=True)
class Flattened:
    """before: orders that rested when we looked; cancelled: ids the venue says it cancelled; left: of those seen, ids still resting;
    new: ids that appeared meanwhile (somebody is quoting); reasons: id -> why not cancelled."""
    before: list[OpenOrder]
    cancelled: list[str]
    left: list[str]
    new: list[str]
    reasons: dict[str, str]


def cancel_everything(cfg: config.Settings) -> Flattened:
    """Cancel all orders of the account and verify by reading the open orders. Errors: UserError when the venue cannot be asked."""
    account = credentials(cfg)
    wall = clock.sync(cfg.venue.clock_url, CLOCK_S)
    try:
        return asyncio.run(_cancel_everything(cfg, account, wall))
    except VenueError as e:
        raise UserError(f"the venue at {cfg.venue.clob_url} did not do it: {e}; the orders may still rest, run it again") from None


async def _cancel_everything(cfg: config.Settings, account, wall: clock.WallClock) -> Flattened:
    requests = Requests(cfg.venue.clob_url, L2Auth(account))
    pool = ConnectionPool(cfg.venue.clob_url, 1, timeout_s=cfg.execution.request_timeout_s)
    async with RestClient.of(cfg.venue, wall.now_s, account) as rest:
        before = await rest.open_orders()
        seen = {o.id for o in before}
        cancelled: set[str] = set()
        reasons: dict[str, str] = {}
        left, new, trouble = set(seen), set(), ""
        await pool.start(wait_s=CONNECT_S)
        try:
            for _ in range(ROUNDS):
                trouble = await _cancel_once(pool, requests.cancel_all(int(wall.now_s())), cancelled, reasons)
                open_now = {o.id for o in await rest.open_orders()}
                left, new = open_now & (seen | cancelled), open_now - seen - cancelled
                if not left and not trouble:
                    break
                await asyncio.sleep(PAUSE_S)
        finally:
            await pool.close()
    if trouble:
        raise UserError(f"the venue at {cfg.venue.clob_url} refuses to cancel: {trouble}; {len(left)} orders rest")
    return Flattened(before, sorted(cancelled), sorted(left), sorted(new), reasons)


async def _cancel_once(pool: ConnectionPool, request: bytes, cancelled: set[str], reasons: dict[str, str]) -> str:
    """Send one cancel-all; adds to ``cancelled`` and ``reasons``, returns what went wrong ("" if nothing)."""
    try:
        answer = await pool.request(request)
    except (NotSent, UnknownOutcome) as e:
        return str(e)
    result = parse_cancel(answer.status, answer.body)
    cancelled |= set(result.canceled)
    reasons |= result.not_canceled
    return "" if result.outcome == Outcome.ACCEPTED else result.error
