"""What can be done about an unpaired position: hold it, sell it, or buy the missing half and merge; what each costs, and from which probability on it pays.

Owns: the comparison. Shown by `mmbot hedge`. Pure: position, book and fees are arguments; integers in 1e-6 dollars and shares, rounded against us.
All of it at the best price and without regard to how much stands there, so a large position comes out worse. In one merged book selling Up at the bid and buying
Down at one less the bid are the same trade: the two ways differ in what they cost besides.
Can go wrong: an empty side of the book (only holding is left). Source: documents 1 and 3, hedge analyser; venue protocol, fees.
"""

from typing import NamedTuple

from mmbot.quoting.fees import taker_fee_u6
from shm_layout.records import UP

ONE_U6 = 1_000_000


class Option(NamedTuple):
    """``cash_u6``: dollars that come in now (negative: go out), fee and costs included. ``worst_u6``, ``best_u6``: result of the unpaired shares, what they cost
    included, over both outcomes; ``expected_u6`` at the fair value. ``breakeven``: of holding, the probability from which it makes a profit; of the others, the one
    below which they are better than holding.
    """
    name: str
    cash_u6: int
    worst_u6: int
    best_u6: int
    expected_u6: int
    fee_u6: int
    breakeven: float


class Hedge(NamedTuple):
    """``token``: the heavy one; ``unpaired_u6`` shares of it, for ``cost_u6``; ``pairs_u6`` full sets that pay for sure. ``options``: the best expectation first."""
    token: int
    unpaired_u6: int
    cost_u6: int
    pairs_u6: int
    options: tuple[Option, ...]


def analyse(qty_u6: tuple[int, int], cost_u6: tuple[int, int], bid_u6: int, ask_u6: int, fair_up: float, rate_e6: int, exponent: int,
            merge_cost: float = 0.0, sell_cost: float = 0.0) -> Hedge | None:
    """Compare the options of a window's position; None when nothing is unpaired.

    ``qty_u6``, ``cost_u6``: (Up, Down); ``bid_u6``, ``ask_u6``: best prices of Up in 1e-6 dollars, 0 when empty; ``fair_up``: probability of Up, which may be nothing (NaN: the
    middle of the book, else a half); ``merge_cost``, ``sell_cost``: dollars a share beyond price and fee.
    """
    heavy = UP if qty_u6[0] >= qty_u6[1] else 1 - UP
    n, pairs = abs(qty_u6[0] - qty_u6[1]), min(qty_u6)
    if n == 0 or max(qty_u6) <= 0:
        return None
    paid = -(-cost_u6[heavy] * n // qty_u6[heavy])
    middle = (bid_u6 + ask_u6) / 2 / ONE_U6 if 0 < bid_u6 < ONE_U6 and 0 < ask_u6 < ONE_U6 else 0.5
    p_up = fair_up if 0.0 < fair_up < 1.0 else middle
    p = p_up if heavy == UP else 1.0 - p_up
    options = [Option("hold", 0, -paid, n - paid, round(n * p) - paid, 0, min(paid / n, 1.0))]
    sells_at = bid_u6 if heavy == UP else ONE_U6 - ask_u6 if ask_u6 > 0 else 0
    if 0 < sells_at < ONE_U6:
        fee = taker_fee_u6(n, sells_at, rate_e6, exponent)
        for name, besides in (("sell", sell_cost), ("buy the other and merge", merge_cost)):
            cost = fee + -(-n * round(besides * ONE_U6) // ONE_U6)
            value = n * sells_at // ONE_U6 - cost                   # what the unpaired shares turn into
            cash = value if name == "sell" else value - n
            options.append(Option(name, cash, value - paid, value - paid, value - paid, fee, max(value / n, 0.0)))
    return Hedge(heavy, n, paid, pairs, tuple(sorted(options, key=lambda o: -o.expected_u6)))
