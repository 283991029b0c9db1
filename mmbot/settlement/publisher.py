"""What the settler reads from memory and what it writes: windows and positions as holdings, operations as SETTLEMENT records.

Owns: the translation and the totals. Who calls: the settler's process. Can go wrong: memory that was never written reads as nothing held.
"""

from collections.abc import Iterable

from mmbot.inventory.settlement import Holding
from mmbot.settlement.journal import Held, Op
from shm_layout import records as r



def condition_text(value: int, version: int) -> str:
    """A condition id as the contracts take it: 32 bytes, but 31 for the protocol's second version."""
    return f"0x{value:062x}" if version == 2 and value < 1 << 248 else f"0x{value:064x}"


def _pair(position, what: str) -> tuple[int, int]:
    return int(position[f"{what}_up_u6"]), int(position[f"{what}_down_u6"])


def offered_u6(own, market_id: int) -> tuple[int, int]:
    """Shares that own open offers of a window have promised; ``own``: its OWN record."""
    out = [0, 0]
    if int(own["market_id"]) == market_id:
        for o in own["order"][:int(own["n"])]:
            if int(o["side"]) == r.SELL:
                out[int(o["token"])] += int(o["size_u6"])
    return out[0], out[1]


def holdings(markets, account, owns) -> tuple[list[Holding], dict[int, Held]]:
    """(what is held in each listed window, its facts for the journal). ``markets``, ``account``: records; ``owns``: OWN record of each slot."""
    found, facts = [], {}
    for slot, row in enumerate(markets["row"]):
        market_id, state = int(row["market_id"]), int(row["state"])
        position = account["position"][slot]
        if state == r.MS_EMPTY or int(row["version"]) not in (1, 2) or int(position["market_id"]) != market_id:
            continue
        outcome = int(row["outcome"]) if state == r.MS_RESOLVED else r.NO_OUTCOME
        h = Holding(market_id, outcome, _pair(position, "qty"), _pair(position, "cost"), _pair(position, "confirmed"), _pair(position, "sellable"),
                    offered_u6(owns[slot], market_id))
        tokens = str(r.id_value(row["token_up"])), str(r.id_value(row["token_down"]))
        found.append(h)
        facts[market_id] = Held(market_id, condition_text(r.id_value(row["condition_id"]), int(row["version"])), tokens, int(row["version"]),
                                bool(row["neg_risk"]), outcome, h.confirmed_u6, h.cost_u6)
    return found, facts


def _uuid_words(text: str) -> list[int]:
    digits = text.replace("-", "")
    try:
        return r.id_words(int(digits, 16) & (1 << 128) - 1, r.UUID_WORDS) if digits else [0, 0]
    except ValueError:
        return [0, 0]


class Totals:
    """Sums over operations; each counts once, when its fate is known."""

    def __init__(self, ops: Iterable[Op] = ()):
        self.merged_u6 = self.redeemed_u6 = self.merges = self.redeems = self.failed = 0
        self._counted: set[int] = set()
        for op in ops:
            self.add(op)

    def add(self, op: Op) -> None:
        """Count an operation if it is over."""
        if not op.final or op.number in self._counted:
            return
        self._counted.add(op.number)
        if op.state == r.SS_FAILED:
            self.failed += op.reason != "never_sent"
        elif op.kind == r.SK_MERGE:
            self.merges += 1
            self.merged_u6 += op.payout_u6
        else:
            self.redeems += 1
            self.redeemed_u6 += op.payout_u6


def fill(rec, op: Op, totals: Totals, now_ns: int) -> None:
    """Write an operation into a SETTLEMENT record (a structured array of one)."""
    totals.add(op)
    amount = op.up_u6 if op.kind == r.SK_MERGE else (op.up_u6, op.down_u6)[op.outcome]
    done = op.state == r.SS_CONFIRMED
    values = dict(kind=op.kind, state=op.state, number=op.number, market_id=op.market_id, amount_u6=amount, up_u6=op.up_u6, down_u6=op.down_u6,
                  payout_u6=0 if op.reason == "elsewhere" else op.payout_u6, pnl_u6=op.payout_u6 - op.cost_u6 if done else 0, outcome=op.outcome,
                  reason=r.SETTLEMENT_REASON.get(op.reason, 0), t_ns=now_ns, wall_ms=op.wall_ms, merged_u6=totals.merged_u6,
                  redeemed_u6=totals.redeemed_u6, merges=totals.merges, redeems=totals.redeems, failed=totals.failed,
                  tx=r.id_words(int(op.tx, 16) if op.tx else 0), relayer=_uuid_words(op.relayer_id))
    for name, value in values.items():
        rec[name][0] = value


def fill_totals(rec, totals: Totals, now_ns: int) -> None:
    """A record that tells no operation, only the totals of what is on file."""
    rec[0] = 0
    for name in ("merged_u6", "redeemed_u6", "merges", "redeems", "failed"):
        rec[name][0] = getattr(totals, name)
    rec["t_ns"][0] = now_ns


def endpoints_missing(cfg) -> str:
    """"" when the settings say how the chain is reached, else what is missing."""
    return "" if cfg.venue.rpc_url else "venue.rpc_url is not set: without a chain node nothing is merged or redeemed"


__all__ = ["Totals", "condition_text", "endpoints_missing", "fill", "fill_totals", "holdings", "offered_u6"]
