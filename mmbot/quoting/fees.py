"""Taker fees: what a share costs besides its price, to the venue's last digit.

Owns: the one formula, fee = amount * rate * (p (1 - p)) ** exponent, and its rounding (5 decimals, down). Used by the core (completion), the executor (fees
of own taker legs), the exchange simulator and the hedge analysis; which rate and exponent hold is a market's own (MARKET_INFO), see also
`mmbot.venues.polymarket.fees`. Makers pay nothing.
Can go wrong: a price of 0 or 1, a rate of 0, no shares: no fee. Integers throughout; exact for exponents up to 2 (limbs in base 1e6, since the product of
size, rate and four prices has no room in 64 bits).
Source: venue protocol, current fee.
"""

from numba import float64, int64, njit

BASE = 1_000_000
#: fees are charged in 1e-5 dollars
GRAIN_U6 = 10


@njit(int64(int64, int64, int64, int64), cache=True)
def taker_fee_u6(amount_u6, px_u6, rate_e6, exponent):
    """Fee in 1e-6 dollars, a multiple of 10. ``amount_u6`` shares (of the January curve: dollars) up to 1e13, ``px_u6`` the trade's price in 1e-6 dollars."""
    if amount_u6 <= 0 or px_u6 <= 0 or px_u6 >= BASE or rate_e6 <= 0:
        return 0
    whole = amount_u6 * rate_e6
    f1 = f2 = f3 = f4 = 0
    for i in range(2 * exponent):
        m = px_u6 if i % 2 == 0 else BASE - px_u6
        t = f3 * m + f4 * m // BASE
        f4 = t % BASE
        t = f2 * m + t // BASE
        f3 = t % BASE
        t = f1 * m + t // BASE
        f2 = t % BASE
        t = whole % BASE * m + t // BASE
        f1 = t % BASE
        whole = whole // BASE * m + t // BASE
    return whole // (BASE * GRAIN_U6) * GRAIN_U6


@njit(float64(float64, float64, float64), cache=True)
def fee_per_share(px, rate, exponent):
    """Fee of one share at ``px`` dollars, in dollars, before rounding; 0 outside (0, 1)."""
    if not 0.0 < px < 1.0:
        return 0.0
    return rate * (px * (1.0 - px)) ** exponent
