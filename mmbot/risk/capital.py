"""Capital: how a bankroll is divided, and how many shares a part of it buys.

Owns: the arithmetic. Read by the core (`core.view` for the base size, `risk.limits` for what one side of one market may cost). Compiled, pure.
Can go wrong: no bankroll, no market, a price or probability outside (0, 1): the answer is 0, never NaN.
Source: document 2 (allocation, shares = capital / (markets * price), Kelly fraction at 5 to 15 %), document 0 (1 to 2 % of the bankroll per side).
Kelly, "A New Interpretation of Information Rate", 1956.
"""

import math

from numba import float64, int64, njit

CENT_U6 = 10_000
#: more dollars (1e-6) than anybody has: no cap
NO_CAP = 1 << 60
LEAST_PX = 1e-4            # the finest tick of the venue


@njit(int64(float64), cache=True)
def to_cent(dollars_u6):
    """1e-6 dollars to the nearest cent, halves up; 0 for what is no positive number."""
    if not 0.0 < dollars_u6 < NO_CAP:
        return 0
    return int64(math.floor(dollars_u6 / CENT_U6 + 0.5 + 1e-9)) * CENT_U6


@njit(int64(int64, float64), cache=True)
def part_u6(bankroll_u6, part):
    """Part (0 to 1) of a bankroll, to the cent."""
    return to_cent(bankroll_u6 * part)


@njit(int64(int64, int64), cache=True)
def per_market_u6(capital_u6, markets):
    """What each of ``markets`` may use of the capital, to the cent."""
    return to_cent(capital_u6 / markets) if markets > 0 else 0


@njit(float64(int64, float64), cache=True)
def shares_for(dollars_u6, px):
    """Shares that so many dollars (1e-6) buy at ``px`` dollars a share; 0 when the price is below the venue's finest tick or not below 1."""
    return dollars_u6 * 1e-6 / px if LEAST_PX <= px < 1.0 else 0.0


@njit(float64(float64, float64), cache=True)
def kelly(p, px):
    """Kelly's part of the bankroll for a share that costs ``px`` and pays 1 with probability ``p``: (b p - q) / b at odds b = (1 - px) / px.

    Negative when the price is above the probability. 0 when either is no number in (0, 1).
    """
    if not (0.0 < p < 1.0 and 0.0 < px < 1.0):
        return 0.0
    b = (1.0 - px) / px
    return (b * p - (1.0 - p)) / b


@njit(float64(float64, float64, float64, float64), cache=True)
def kelly_part(p, px, low, high):
    """Kelly's part held within [low, high]; 0 when there is no edge."""
    f = kelly(p, px)
    return min(max(f, low), high) if f > 0.0 else 0.0
