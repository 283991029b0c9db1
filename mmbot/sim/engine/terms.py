"""Numbers, names and texts of the exchange, and how amounts become text.

Owns: constants and pure functions; everything else in this package reads them. Prices are *_e4, shares and dollars *_u6, all integers.
What can go wrong: nothing. Source: venue protocol, matching core, fees, errors.
"""

ONE_E4 = 10_000
DUST_U6 = 9_999               # an order with no more than this left (under 0.01 share) counts as filled
LAST_TRADE_LAG_MS = 20        # the last_trade_price frame comes this much after the match
HEARTBEAT_MS, HEARTBEAT_CHECK_MS = 10_000, 5_000
GTD_THRESHOLD_S = 60          # a GTD order dies this much before its stated expiration
KEEP_CLOSED, KEEP_TRADES = 10_000, 10_000
OUTCOMES = ("Up", "Down")
SIDES = ("BUY", "SELL")
RECORDED_OWNER = "0d0d0d0d-0000-4000-8000-000000000001"
RECORDED_ADDRESS = "0x2222222222222222222222222222222222222222"

E_CROSSES = "invalid post-only order: order crosses book"
E_FOK = "order couldn't be fully filled. FOK orders are fully filled or killed."
E_FAK = "no orders found to match with FAK order. FAK orders are partially filled or killed if no match is found."
E_GONE = "already canceled or matched"
E_DELAYED = "order can't be canceled: it is delayed and pending a match"

#: decimals allowed in the share amount of a FAK/FOK BUY, by tick
AMOUNT_DECIMALS = {1000: 3, 100: 4, 50: 5, 25: 6, 10: 5, 1: 6}


def px_text(px_e4: int) -> str:
    """0.52 for 5200: shortest decimal text of a price."""
    return PX_TEXT[px_e4]


def u6_text(value_u6: int) -> str:
    """20.5 for 20500000: shortest decimal text of shares or dollars."""
    whole, rest = divmod(value_u6, 1_000_000)
    return f"{whole}.{rest:06d}".rstrip("0") if rest else str(whole)


PX_TEXT = [u6_text(px * 100) for px in range(ONE_E4 + 1)]
