"""What own orders may still do to a window: shares, dollars reserved, and what they add to the greatest loss under each outcome.

Owns: arithmetic. Called by the publisher, for the account record, and by the order manager before it posts. Pure: orders are given.
Every order that is not provably over counts with all that is left of it: resting, under way, of unknown fate, its cancel in flight, and
over but with matched shares whose trades have not been seen. Numbers are 1e-6 shares and dollars, rounded against us.

One cap covers all windows: those of all lengths have the same underlying, so what can be lost in them adds up: no outcome of one pays for another.
"""

from typing import NamedTuple

from mmbot.execution.order import ONE_E4, Order
from mmbot.inventory.positions import Position
from shm_layout.records import BUY, DOWN, UP


class Open(NamedTuple):
    """What may still fill. ``buy_u6``: shares bid for, by token; ``reserved_u6``: dollars these bids take; ``if_u6``: dollars that the least
    welcome set of fills adds to the loss if Up, Down wins."""
    buy_u6: tuple[int, int]
    reserved_u6: int
    if_u6: tuple[int, int]


class Tail(dict):
    """Orders that are over but not accounted for, by id, and the sums of what they may still do, kept as orders come, change and go.

    There can be hundreds when the venue is slow to say how they ended, and every answer asks for the sums. So an order is put in anew
    (`tail[id] = order`) whenever its `open_u6` may have changed; it leaves by `pop`. No other way of changing the dict keeps the sums.
    """

    __slots__ = ("shares", "paid_e10", "given_e10", "_left")

    def __init__(self):
        super().__init__()
        self.shares, self.paid_e10, self.given_e10 = [0, 0], [0, 0], [0, 0]
        self._left: dict[str, int] = {}

    def __setitem__(self, order_id: str, o: Order) -> None:
        left = o.open_u6
        _count(o, left - self._left.get(order_id, 0), self.shares, self.paid_e10, self.given_e10)
        self._left[order_id] = left
        super().__setitem__(order_id, o)

    def pop(self, order_id: str, default=None) -> Order | None:
        """Take an order out."""
        o = super().pop(order_id, default)
        if left := self._left.pop(order_id, 0):
            _count(o, -left, self.shares, self.paid_e10, self.given_e10)
        return o


def _count(o: Order, left: int, shares: list[int], paid_e10: list[int], given_e10: list[int]) -> None:
    """A bid at p loses p a share if the other token wins, an offer at p loses 1 - p a share if its own token wins; what a share may cost in fees besides."""
    if o.side == BUY:
        shares[o.token] += left
        paid_e10[o.token] += left * (o.px_e4 + o.fee_e4)
    else:
        given_e10[o.token] += left * (ONE_E4 - o.px_e4 + o.fee_e4)


def of_orders(*groups: dict[str, Order], tail: Tail | None = None) -> Open:
    """Sum over orders, and over those of a tail."""
    if tail:
        shares, paid_e10, given_e10 = tail.shares.copy(), tail.paid_e10.copy(), tail.given_e10.copy()
    else:
        shares, paid_e10, given_e10 = [0, 0], [0, 0], [0, 0]
    for group in groups:
        for o in group.values():
            _count(o, o.open_u6, shares, paid_e10, given_e10)
    up, down = (-(-e // ONE_E4) for e in paid_e10)
    if_up, if_down = (-(-(paid_e10[1 - w] + given_e10[w]) // ONE_E4) for w in (UP, DOWN))
    return Open((shares[UP], shares[DOWN]), up + down, (if_up, if_down))


def room_u6(cap_u6: int, elsewhere_u6: int, position: Position | None, over: Open | None) -> tuple[int, int]:
    """Dollars (1e-6) that open orders of a window may lose together if Up, Down wins, so that no more than the cap can be lost in all windows.

    ``elsewhere_u6``: what all other windows can lose in the worst case; ``over``: orders of this window that are over but not accounted for, and
    those of others. Where more than the cap can be lost already, only orders that do not raise the greatest loss have room.
    """
    up, down = position.losses_u6() if position is not None else (0, 0)
    if over is not None:
        up, down = up + over.if_u6[UP], down + over.if_u6[DOWN]
    allowed = max(cap_u6 - elsewhere_u6, up, down)
    return allowed - up, allowed - down
