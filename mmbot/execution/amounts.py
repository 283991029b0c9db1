"""Exact order amounts: the two integers of 1e-6 that an order signs, for every tick size the venue knows.

Owns: the rounding rules of limit and market orders (venue protocol, tick sizes and rounding). Integers only, so a size is never
a hundredth of a share short. Pure: no state, no clock.
Can go wrong: a tick the venue does not have, a price off the grid or outside [tick, 1 - tick], a size below one hundredth:
`AmountError` (a ValueError) whose text names the number and the rule.
"""

from shm_layout.records import BUY, SELL

ONE_E4 = 10_000
LOT_U6 = 10_000                     # sizes, and the dollars of a market buy, have two decimals
#: tick_e4 -> unit of a computed amount in 1e-6: an amount has two decimals more than the tick's prices
TICKS = {
    1000: 1000,                     # 0.1:    price 1 decimal,  amounts 3
    100: 100,                       # 0.01:   price 2 decimals, amounts 4
    50: 10,                         # 0.005:  price 3 decimals, amounts 5
    25: 1,                          # 0.0025: price 4 decimals, amounts 6
    10: 10,                         # 0.001:  price 3 decimals, amounts 5
    1: 1,                           # 0.0001: price 4 decimals, amounts 6
}


class AmountError(ValueError):
    """A price, size, side or tick that no order can carry."""


def price_text(px_e4: int) -> str:
    """A price in 1e-4 as the shortest decimal text: 5200 -> "0.52"."""
    return f"{px_e4 // ONE_E4}.{px_e4 % ONE_E4:04d}".rstrip("0").rstrip(".")


def check_tick(tick_e4: int) -> None:
    """AmountError unless the venue has this tick size."""
    if tick_e4 not in TICKS:
        raise AmountError(f"tick size {price_text(tick_e4)} is unknown; the venue has {', '.join(map(price_text, TICKS))}")


def check_price(px_e4: int, tick_e4: int) -> None:
    """AmountError unless the price is a whole number of ticks within [tick, 1 - tick]."""
    check_tick(tick_e4)
    if not tick_e4 <= px_e4 <= ONE_E4 - tick_e4:
        raise AmountError(f"price {px_e4 / ONE_E4:g} is outside [{price_text(tick_e4)}, {price_text(ONE_E4 - tick_e4)}], "
                          f"the range of tick size {price_text(tick_e4)}")
    if px_e4 % tick_e4:
        raise AmountError(f"price {price_text(px_e4)} is not a multiple of the tick size {price_text(tick_e4)}")


def order_amounts(side: int, px_e4: int, size_u6: int, tick_e4: int) -> tuple[int, int]:
    """(maker_u6, taker_u6) of a limit order: BUY gives dollars and takes shares, SELL the other way round.

    ``size_u6`` shares are floored to two decimals. price x shares then has no more decimals than the venue allows for that
    tick, so nothing else is rounded. Errors: AmountError.
    """
    check_price(px_e4, tick_e4)
    lots = size_u6 // LOT_U6
    if lots <= 0:
        raise AmountError(f"size {size_u6 / 1e6:g} is less than one hundredth of a share")
    if side == BUY:
        return px_e4 * lots, lots * LOT_U6
    if side == SELL:
        return lots * LOT_U6, px_e4 * lots
    raise AmountError(f"side {side!r} is neither BUY ({BUY}) nor SELL ({SELL})")


def market_amounts(side: int, px_e4: int, amount_u6: int, tick_e4: int) -> tuple[int, int]:
    """(maker_u6, taker_u6) of a FAK or FOK order whose worst price is ``px_e4``.

    ``amount_u6``: dollars for a BUY, shares for a SELL, floored to two decimals. A BUY's shares are floored to what the tick
    allows, so the implied price never falls under ``px_e4``. (The venue's clients first round up at four more decimals. That
    changes nothing: what is cut off is a fraction with a denominator below 10,000.) The price must be on the grid: flooring it,
    as those clients do, would sell lower than asked. Errors: AmountError.
    """
    check_price(px_e4, tick_e4)
    amount_unit = TICKS[tick_e4]
    lots = amount_u6 // LOT_U6
    if lots <= 0:
        raise AmountError(f"amount {amount_u6 / 1e6:g} is less than one hundredth")
    if side == SELL:
        return lots * LOT_U6, px_e4 * lots
    if side != BUY:
        raise AmountError(f"side {side!r} is neither BUY ({BUY}) nor SELL ({SELL})")
    cash_u6 = lots * LOT_U6
    return cash_u6, cash_u6 * ONE_E4 // (px_e4 * amount_unit) * amount_unit
