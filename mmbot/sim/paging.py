"""Cursors of the CLOB's lists: one page of rows in the venue's envelope.

Owns: the cursor's form (base64 of a row number; ``MA==`` is the first, ``LTE=`` says there is no more and may never be sent). Pure.
What can go wrong: a cursor that is the end or none, `ApiError` 400. Source: venue protocol, own orders and trades.
"""

import base64
import binascii
from collections.abc import Callable

from mmbot.sim.http import ApiError

PAGE = 500
FIRST_CURSOR, END_CURSOR = "MA==", "LTE="
E_END = "next item should be greater than or equal to 0"


def page(rows: list, cursor: str, shape: Callable, size: int = 0) -> dict:
    """One page of rows, each through ``shape``; ``size`` 0 is the venue's own page. Errors: ApiError."""
    size = size or PAGE
    try:
        start = int(base64.b64decode(cursor or FIRST_CURSOR, validate=True))
    except (ValueError, binascii.Error):
        raise ApiError(400, "invalid next_cursor") from None
    if start < 0:
        raise ApiError(400, E_END)
    chosen = rows[start:start + size]
    more = start + size < len(rows)
    following = base64.b64encode(str(start + size).encode()).decode() if more else END_CURSOR
    return {"data": [shape(row) for row in chosen], "next_cursor": following, "limit": size, "count": len(chosen)}
