"""Our books against the venue's: orders, journal, positions and cash, each difference by name.

Owns: what counts as a difference. Reads: the executor's published account and own orders (also of a group that is down, as long as its memory
is there), the journals of orders and settlements, the venue's lists. Writes nothing and mends nothing: the executor mends its own books, a person looks at the rest.
Who calls: `mmbot reconcile`. Both sides move while a group trades, so a difference counts only when it stands in every one of several readings.
Can go wrong: the venue cannot be read (UserError).
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from mmbot import clock, config
from mmbot.errors import UserError
from mmbot.execution.credentials import credentials
from mmbot.execution.order_journal import replay
from mmbot.execution.rest import OpenOrder, RestClient, VenueError
from mmbot.ops.flatten import HELD_S, Held, held
from mmbot.ops.picture import slug
from mmbot.ops.view import View
from mmbot.settlement.journal import FILE, taken_u6
from shm_layout import records as r

READINGS, PAUSE_S, CLOCK_S = 3, 2.5, 3.0
ASKED = 40                  # orders of the journal that are asked about one by one
SIDES = ("BUY", "SELL")
OVER = ("CANCELED", "CANCELLED", "INVALID", "MATCHED")


@dataclass(frozen=True)
class Difference:
    """One disagreement: what it is about, what we say, what the venue says."""
    what: str
    ours: str
    theirs: str


@dataclass
class Ours:
    """What memory and journal say. ``tokens``: token id -> (window's name, outcome); ``shares``, ``failed``: per token, 1e-6; ``rest``: what may rest
    of ours, (token, side, price 1e-4) -> shares 1e-6; None where there is nothing to compare with. ``merged``: shares per token that merges have taken, which is in no trade;
    ``coming``: dollars of settlements under way, which the venue may show already."""
    tokens: dict[str, tuple[str, str]] = field(default_factory=dict)
    shares: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    rest: dict[tuple[str, str, int], int] | None = None
    live_orders: int | None = None
    cash_u6: int | None = None
    journal: set[str] = field(default_factory=set)
    merged: dict[str, int] = field(default_factory=dict)
    coming: set[int] = field(default_factory=set)


@dataclass
class Theirs:
    """What the venue says. ``asked``: order id of our journal -> its status there ("" when it does not know it)."""
    orders: list[OpenOrder]
    held: list[Held]
    cash_u6: int
    asked: dict[str, str] = field(default_factory=dict)


def differences(ours: Ours, theirs: Theirs) -> list[Difference]:
    """Every disagreement of one reading. Pure."""
    return [*_order_differences(ours, theirs), *_journal_differences(ours, theirs), *_share_differences(ours, theirs), *_cash_difference(ours, theirs)]


def _order_differences(ours: Ours, theirs: Theirs) -> list[Difference]:
    out = []
    if ours.live_orders is not None and ours.live_orders != len(theirs.orders):
        out.append(Difference("open orders", str(ours.live_orders), str(len(theirs.orders))))
    if ours.rest is None:
        return out
    resting: Counter = Counter()
    for o in theirs.orders:
        resting[o.asset_id, o.side.upper(), o.px_e4] += o.size_u6 - o.matched_u6
    for (token, side, px_e4), size_u6 in resting.items():
        known_u6 = ours.rest.get((token, side, px_e4), 0)
        if size_u6 > known_u6:
            where = " ".join(ours.tokens.get(token, (f"token {token[:12]}…", "")))
            out.append(Difference(f"{side} at {px_e4 / 10_000:g} of {where}", f"{known_u6 / 1e6:g} shares may rest", f"{size_u6 / 1e6:g} shares rest"))
    return out


def _journal_differences(ours: Ours, theirs: Theirs) -> list[Difference]:
    out = [Difference(f"order {o.id}", "not in the journal", f"{o.side} {o.original_size} at {o.price} rests")
           for o in theirs.orders if o.id.lower() not in ours.journal]
    for order_id, status in theirs.asked.items():
        if not status or status.startswith(OVER):
            out.append(Difference(f"order {order_id}", "open in the journal", status.lower() or "not known"))
    return out


def _share_differences(ours: Ours, theirs: Theirs) -> list[Difference]:
    out, found = [], {h.token: h for h in theirs.held}
    for token, shares_u6 in ours.shares.items():
        where, h = " ".join(ours.tokens[token]), found.get(token)
        theirs_u6, failed_u6 = (h.shares_u6 - ours.merged.get(token, 0), h.failed_u6) if h else (0, 0)
        if shares_u6 != theirs_u6:
            out.append(Difference(f"shares of {where}", f"{shares_u6 / 1e6:g}", f"{theirs_u6 / 1e6:g}"))
        if h and ours.failed.get(token, 0) != failed_u6:
            out.append(Difference(f"failed shares of {where}", f"{ours.failed.get(token, 0) / 1e6:g}", f"{failed_u6 / 1e6:g}"))
    return out


def _cash_difference(ours: Ours, theirs: Theirs) -> list[Difference]:
    if ours.cash_u6 is None or theirs.cash_u6 - ours.cash_u6 in {0} | ours.coming:
        return []
    return [Difference("cash", f"{ours.cash_u6 / 1e6:,.6f} dollars", f"{theirs.cash_u6 / 1e6:,.6f} dollars")]


def read_ours(cfg: config.Settings, view: View) -> Ours:
    """Our side, from memory and journal."""
    out = Ours(journal=set(replay(cfg.run.path / "journal" / "orders.log")[0]))
    out.merged, out.coming = taken_u6(cfg.run.path / FILE, r.SK_MERGE)
    account, markets = view.latest("account"), view.latest("markets")
    if account is None or markets is None:
        return out
    out.live_orders, out.cash_u6, out.rest = int(account["live_orders"]), int(account["cash_u6"]), {}
    for slot in range(r.MARKET_SLOTS):
        row, position, own = markets["row"][slot], account["position"][slot], view.latest("own", slot)
        if not row["market_id"]:
            continue
        ids = [str(r.id_value(row[f"token_{name}"])) for name in ("up", "down")]
        held_here = position["market_id"] == row["market_id"]
        for token, name in zip(ids, ("up", "down"), strict=True):
            out.tokens[token] = (slug(int(row["market_id"])), name.capitalize())
            out.shares[token] = int(position[f"qty_{name}_u6"]) if held_here else 0
            out.failed[token] = int(position[f"failed_{name}_u6"]) if held_here else 0
        if own is not None and own["market_id"] == row["market_id"]:
            for o in own["order"][:int(own["n"])]:
                out.rest[ids[int(o["token"])], SIDES[int(o["side"])], int(o["px_e4"])] = int(o["size_u6"])
    return out


async def read_theirs(rest: RestClient, account, wall: clock.WallClock, journal: set[str]) -> Theirs:
    """The venue's side. Errors: VenueError."""
    orders = await rest.open_orders()
    trades = await rest.trades(after=int(wall.now_s()) - HELD_S)
    balance = await rest.balance()
    listed, asked = {o.id.lower() for o in orders}, {}
    for order_id in sorted(journal - listed)[:ASKED]:
        found = await rest.order(order_id)
        asked[order_id] = "" if found is None else found.status.upper().removeprefix("ORDER_STATUS_")
    return Theirs(orders, held(trades, account.api_key, account.address, account.funder), balance.balance_u6, asked)


def reconcile(cfg: config.Settings) -> tuple[list[Difference], bool]:
    """(differences that stood in every reading, whether there was memory to compare with). Errors: UserError when the venue cannot be read."""
    account, view = credentials(cfg), View(cfg)
    wall = clock.sync(cfg.venue.clock_url, CLOCK_S)

    async def ask() -> tuple[list[Difference], bool]:
        standing: dict[str, Difference] = {}
        async with RestClient.of(cfg.venue, wall.now_s, account) as rest:
            for reading in range(READINGS):
                ours = read_ours(cfg, view)
                theirs = await read_theirs(rest, account, wall, ours.journal)
                found = {d.what: d for d in differences(ours, theirs)}
                standing = {what: d for what, d in found.items() if reading == 0 or what in standing}
                if not standing:
                    break
                if reading < READINGS - 1:
                    await asyncio.sleep(PAUSE_S)
        return list(standing.values()), ours.live_orders is not None

    try:
        return asyncio.run(ask())
    except VenueError as e:
        raise UserError(f"the venue at {cfg.venue.clob_url} could not be read: {e}") from None
