"""What to merge and what to redeem, and why not. Pure: positions, balances and time are arguments.

Owns: the rules. Called by the settler. Nobody's state is changed.

Merging turns n Up and n Down shares of one window into n dollars, now and without risk; what was locked in a pair can be quoted again. Merged are
only shares whose trades are CONFIRMED (a trade that may still fail may take its shares away) and that the venue's balance shows, less what open
offers have promised. Redeeming turns the winning shares of a resolved window into dollars; losing shares are worth nothing, so a transaction for
them alone would only cost.
Can go wrong: a position that is behind the chain. So what is decided here is cut to the chain's own balances before it is signed (`cut`).
"""

from collections.abc import Sequence
from typing import NamedTuple

from shm_layout.records import DOWN, NO_OUTCOME, SK_MERGE, SK_REDEEM, UP

MINUTE_NS = 60_000_000_000
LONGEST_RETRY = 16              # a wait after failures grows up to this many times the first
#: why a window is left alone
PAUSED, SMALL, UNCONFIRMED, WAITS, NOTHING, UNKNOWN_BALANCE, NOT_READY = (
    "merges are paused", "fewer full sets than settlement.merge_min_sets", "trades are not confirmed yet", "waits after a failure", "nothing is held",
    "the venue's balance is not known", "the executor does not know its account")


class Holding(NamedTuple):
    """One window: what the executor's account says, what open offers have promised, and, once resolved, what the chain shows.

    Pairs are (Up, Down) in 1e-6 shares or dollars. ``sellable_u6``: the venue's balance, -1 when it was not asked. ``chain_u6``: the chain's balance of
    a resolved window, None when it was not asked. ``outcome``: winning token, NO_OUTCOME while open. ``retry_ns``: no operation before.
    """
    market_id: int
    outcome: int = NO_OUTCOME
    qty_u6: tuple[int, int] = (0, 0)
    cost_u6: tuple[int, int] = (0, 0)
    confirmed_u6: tuple[int, int] = (0, 0)
    sellable_u6: tuple[int, int] = (-1, -1)
    offered_u6: tuple[int, int] = (0, 0)
    chain_u6: tuple[int, int] | None = None
    retry_ns: int = 0


class Rules(NamedTuple):
    """merge_min_u6: full sets; ops_per_min and gap_ns bound how often; paused: merge nothing; ready: the executor knows its account."""
    merge_min_u6: int = 25_000_000
    ops_per_min: int = 6
    gap_ns: int = 5_000_000_000
    paused: bool = False
    ready: bool = True


class Want(NamedTuple):
    """One operation: shares that leave the wallet, dollars that must come, and their average cost."""
    kind: int
    market_id: int
    up_u6: int
    down_u6: int
    payout_u6: int
    cost_u6: int
    outcome: int = NO_OUTCOME


def sets_u6(h: Holding) -> int:
    """Full sets of a window that can be merged now."""
    return max(min(min(h.confirmed_u6[t], h.sellable_u6[t]) - h.offered_u6[t] for t in (UP, DOWN)), 0)


def due_ns(started_ns: Sequence[int], rules: Rules) -> int:
    """When the next operation may start at the earliest; ``started_ns``: starts of the last ones, oldest first."""
    due = started_ns[-1] + rules.gap_ns if started_ns else 0
    if len(started_ns) >= rules.ops_per_min:
        due = max(due, started_ns[-rules.ops_per_min] + MINUTE_NS)
    return due


def retry_ns(first_ns: int, failures: int) -> int:
    """How long a window waits after so many failures in a row."""
    return first_ns * min(1 << max(failures - 1, 0), LONGEST_RETRY) if failures else 0


def decide(holdings: Sequence[Holding], rules: Rules, now_ns: int) -> tuple[Want | None, dict[int, str]]:
    """(the operation that brings most dollars, why each other window is left alone)."""
    wants, why = [], {}
    for h in holdings:
        want, reason = _redeem(h, now_ns) if h.outcome != NO_OUTCOME else _merge(h, rules, now_ns)
        if want is not None:
            wants.append(want)
        else:
            why[h.market_id] = reason
    wants.sort(key=lambda w: (-w.payout_u6, w.market_id))
    return (wants[0] if wants else None), why


def _merge(h: Holding, rules: Rules, now_ns: int) -> tuple[Want | None, str]:
    if min(h.qty_u6) <= 0:
        return None, NOTHING
    if not rules.ready:
        return None, NOT_READY
    if min(h.sellable_u6) < 0:
        return None, UNKNOWN_BALANCE
    size = sets_u6(h)
    if size < rules.merge_min_u6:
        return None, UNCONFIRMED if min(h.qty_u6) >= rules.merge_min_u6 > min(h.confirmed_u6) else SMALL
    if rules.paused:
        return None, PAUSED
    if now_ns < h.retry_ns:
        return None, WAITS
    return Want(SK_MERGE, h.market_id, size, size, size, cost_of_u6(h, (size, size))), ""


def _redeem(h: Holding, now_ns: int) -> tuple[Want | None, str]:
    if h.chain_u6 is None:
        return None, UNKNOWN_BALANCE
    if h.chain_u6[h.outcome] <= 0:
        return None, NOTHING
    if now_ns < h.retry_ns:
        return None, WAITS
    up, down = h.chain_u6
    return Want(SK_REDEEM, h.market_id, up, down, h.chain_u6[h.outcome], sum(h.cost_u6), h.outcome), ""


def cost_of_u6(h: Holding, sizes_u6: tuple[int, int]) -> int:
    """Average cost of so many shares of what is held."""
    return sum(h.cost_u6[t] * min(sizes_u6[t], h.qty_u6[t]) // h.qty_u6[t] for t in (UP, DOWN) if h.qty_u6[t] > 0)


def cut(want: Want, h: Holding, chain_u6: tuple[int, int], rules: Rules) -> Want | None:
    """A merge with no more sets than the chain's balances cover; None when too few are left. A redemption takes what the chain shows as it is."""
    if want.kind == SK_REDEEM:
        left = h._replace(chain_u6=chain_u6, retry_ns=0)
        return _redeem(left, 0)[0]
    size = min(want.up_u6, *(chain_u6[t] - h.offered_u6[t] for t in (UP, DOWN)))
    if size < rules.merge_min_u6:
        return None
    return Want(SK_MERGE, want.market_id, size, size, size, cost_of_u6(h, (size, size)))
