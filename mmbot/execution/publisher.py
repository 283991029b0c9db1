"""What the executor tells the others: account, own resting orders and order events, packed as rows of integers.

Owns: the order of the words (taken from the dtypes, asserted at import). Written by the order manager into the seqlocks `account` and
`own` and the ring `orders`; read by the core, the guardian, the monitor. Packing whole rows is several times cheaper than setting fields.
"""

from mmbot.execution.order import Order
from mmbot.execution.reconcile import ONE_E4
from mmbot.execution.windows import Window
from mmbot.inventory.exposure import of_orders
from mmbot.inventory.positions import CONFIRMED, MINED, Positions
from shm_layout.records import ACCOUNT, BUY, MARKET_SLOTS, MAX_OWN, ORDER_EVENT, OWN, OWN_ORDER, POSITION, QK_POST_ONLY

NO_CAUSE = (0, 0, 0, 0, 0, 0, 0)
_NO_SHARES = (*(0,) * 12, -1, -1)
_NOTHING = (*_NO_SHARES, *(0,) * 9)
_EMPTY = (0,) * (POSITION.itemsize // 8)
_LIVE = POSITION.names.index("live_orders")
_OWN_WORDS = OWN_ORDER.itemsize // 8
_NO_ORDERS = (0,) * (OWN.fields["order"][0].itemsize // 8)

assert ACCOUNT.names == ("t_update_ns", "state", "halts", "user_ok", "cash_u6", "reserved_u6", "exposure_u6", "realized_u6", "live_orders",
                         "orders", "cancels", "fills", "rejects", "unknown", "volume_u6", "fees_u6", "venue_mode", "venue_mode_until_ns", "tier",
                         "order_tokens", "cancel_tokens", "user_deaf", "difference_since_ns", "reversed", "spread_u6", "adverse_u6", "rebate_u6", "scoring",
                         "late", "late_u6", "position")
assert POSITION.names == ("market_id", "qty_up_u6", "qty_down_u6", "cost_up_u6", "cost_down_u6", "pending_up_u6", "pending_down_u6",
                          "mined_up_u6", "mined_down_u6", "confirmed_up_u6", "confirmed_down_u6", "failed_up_u6", "failed_down_u6",
                          "sellable_up_u6", "sellable_down_u6", "open_up_u6", "open_down_u6", "live_orders", "worst_u6", "realized_u6",
                          "reserve_up_u6", "reserve_down_u6", "fills_up", "fills_down")
assert OWN.names == ("market_id", "slot", "n", "t_update_ns", "order") and OWN_ORDER.names == ("token", "side", "px_e4", "size_u6", "t_sent_ns")
assert ORDER_EVENT.names == ("kind", "t_ns", "market_id", "token", "side", "level", "px_e4", "size_u6", "filled_u6", "status", "reason",
                             "http_status", "pooled", "params_version", "deadline_ns", "t_exch_ns", "t_recv_ns", "t_pub_ns", "t_poll_ns", "t_decide_ns",
                             "t_wake_ns", "t_send_ns", "t_ack_ns", "order_id", "trade_id")


def position_row(window: Window, positions: Positions) -> tuple[tuple, int]:
    """(POSITION as integers, dollars 1e-6 that its open bids reserve); what each field counts stands with the record and in `positions`."""
    p = positions.by_market.get(window.market_id)
    if p is None and not (window.orders or window.tail or window.external):
        return (window.market_id, *_NOTHING), 0
    orders = of_orders(window.orders, window.external, tail=window.tail)
    if p is None:
        return (window.market_id, *_NO_SHARES, *orders.buy_u6, len(window.orders), max(orders.if_u6), 0, 0, 0, 0, 0), orders.reserved_u6
    return (window.market_id, *p.qty_u6, *p.cost_u6, *p.pending_u6, *p.net_u6[MINED], *p.net_u6[CONFIRMED], *p.failed_u6, *p.sellable_u6,
            *orders.buy_u6, len(window.orders), p.worst_u6(*orders.if_u6), p.realized_u6, *p.reserve_u6, *p.fills), orders.reserved_u6


def account_row(head: tuple, cash_u6: int, tail: tuple, venue: tuple, windows: list[Window | None], positions: Positions) -> list[int]:
    """ACCOUNT as integers. head: (t_update_ns, state, halts, user_ok); tail: (orders, cancels, rejects, unknown);
    venue: (venue_mode, venue_mode_until_ns, tier, order_tokens, cancel_tokens, user_deaf, difference_since_ns, reversed, spread_u6,
    adverse_u6, rebate_u6, scoring, late, late_u6)."""
    rows, reserved, exposure, live = [], 0, 0, 0
    for window in windows:
        if window is None:
            rows.extend(_EMPTY)
            continue
        row, cost = position_row(window, positions)
        rows.extend(row)
        reserved += cost
        live += row[_LIVE]
        window.worst_u6 = row[_LIVE + 1]
        exposure += window.worst_u6
    orders, cancels, rejects, unknown = tail
    assert len(windows) == MARKET_SLOTS
    return [*head, cash_u6, reserved, exposure, positions.realized_u6, live, orders, cancels, positions.fills, rejects, unknown,
            positions.volume_u6, positions.fees_u6, *venue, *rows]


def own_rows(window: Window) -> tuple:
    """What may rest of ours in a window: rows (token, side, px_e4, size_u6, t_sent_ns) one after the other, one per price.

    Orders of every state that is not over count with what is left of them; those that take never rest. The best-priced MAX_OWN rows when there are more.
    """
    sizes = {}
    for o in window.orders.values():
        if o.kind == QK_POST_ONLY and (rest := o.rest_u6) > 0:
            at = o.token, o.side, o.px_e4
            size, sent_ns = sizes.get(at, (0, 0))
            sizes[at] = size + rest, max(sent_ns, o.t_sent_ns)
    if len(sizes) > MAX_OWN:
        ranked = sorted(sizes, key=lambda at: -at[2] if at[1] == BUY else at[2] - ONE_E4)
        sizes = {at: sizes[at] for at in ranked[:MAX_OWN]}
    return tuple([n for at, size in sizes.items() for n in (*at, *size)])


def own_row(market_id: int, slot: int, t_update_ns: int, rows: tuple) -> tuple:
    """OWN as integers, of `own_rows`."""
    return (market_id, slot, len(rows) // _OWN_WORDS, t_update_ns, *rows, *_NO_ORDERS[len(rows):])


def event_row(kind: int, t_ns: int, order: Order, status: int = 0, reason: int = 0, http_status: int = 0, filled_u6: int = 0,
              t_ack_ns: int = 0, trade_id: tuple = (0, 0), px_e4: int = 0) -> tuple:
    """ORDER_EVENT as integers. For a fill, ``filled_u6`` and ``px_e4`` are those of the trade leg."""
    return (kind, t_ns, order.market_id, order.token, order.side, order.level, px_e4 or order.px_e4, order.size_u6, filled_u6, status, reason,
            http_status, order.pooled, order.params_version, order.deadline_ns, *(order.cause or NO_CAUSE), t_ack_ns, *order.id_words, *trade_id)
