"""Desired quotes x own orders -> cancels and posts, for one window. Pure: no I/O, time is an argument.

Owns: every rule about when a quote may be replaced. Called by the order manager on each fresh
target and on each change of an own order. Can go wrong: nothing here raises on bad targets; a quote off the grid, too small or
priced outside (0, 1) is left out and counted in ``invalid``.

Rules
- One order per (token, level). A replacement is a cancel and a post together; while a cancel is not confirmed, both orders count for
  exposure and cash, and no third order is posted there.
- Toward safety nothing waits: a quote that vanished, or a live bid above the desired price, is cancelled at once, whatever the
  budget says (the venue lets cancels overdraw).
- Everything else is churn and waits: ``min_update_ns`` since the last change of that quote, ``reprice_ticks``, ``resize_ppm``, tokens
  in both buckets, and room for the new order; until then the old order stays.
- Own bids on the two tokens must sum to less than 1 over everything that may still rest at the venue, cancels under way included:
  an Up bid and a Down bid that sum to 1 or more would match each other (a mint against ourselves).
- No post may let the greatest possible loss exceed the limit, counting all that may still fill of the orders here and elsewhere (``risk_u6``).
  A replacement that has room only without the order it replaces waits until that one is known to be gone; the old one is cancelled first.
- An order whose fate is not known yet (PENDING, CANCELING) is left alone; its key is busy until the answer comes.
- A doomed order (acknowledged after its deadline) is cancelled whatever is desired.
- When a rate bucket runs low, load is shed: first nothing that is churn is made (`SHED_CHURN`), then no outer level is posted either
  (`SHED_LEVELS`); cancels toward safety and the innermost quotes go on.
- What is left of an order after a partial fill keeps resting, also below the market's minimum size, which only binds new orders. It counts
  for its quote: when its size is too far from the desired one it is replaced, by the churn rules, by one order of the whole desired size.
  A rest alone is never posted again: a desired quote below the minimum is invalid, and shares that cannot be quoted settle with the window.
- A tick that gets finer leaves what rests valid; new quotes must lie on the grid of now.
"""

from mmbot.execution.order import LEVELS, LIVE
from shm_layout.records import BUY

KEYS = 2 * LEVELS
ONE_E4 = 10_000
PPM = 1_000_000
NEVER_NS = (1 << 63) - 1
RETRY_NS = 25_000_000           # when tokens or cash were missing
SHED_CHURN, SHED_LEVELS = 1, 2


class Limits:
    """What `diff` has to respect in one window; the manager keeps one per window and updates it in place.

    last_ns[key]: last change of that quote. hold_ns[key]: no post before this (a fill that the core may not have seen yet, a leg
    in quarantine). orders, cancels: tokens. shed: 0, SHED_CHURN or SHED_LEVELS. cash_u6: dollars that this window's open bids may reserve together.
    risk_u6: dollars that open orders may lose together if Up, Down wins.
    """

    __slots__ = ("tick_e4", "min_size_u6", "min_update_ns", "reprice_ticks", "resize_ppm", "orders", "cancels", "cash_u6", "risk_u6", "shed",
                 "last_ns", "hold_ns")

    def __init__(self, tick_e4=100, min_size_u6=5_000_000, min_update_ns=250_000_000, reprice_ticks=1, resize_ppm=100_000,
                 orders=60, cancels=120, cash_u6=NEVER_NS):
        self.tick_e4, self.min_size_u6 = tick_e4, min_size_u6
        self.min_update_ns, self.reprice_ticks, self.resize_ppm = min_update_ns, reprice_ticks, resize_ppm
        self.orders, self.cancels, self.cash_u6 = orders, cancels, cash_u6
        self.risk_u6 = NEVER_NS, NEVER_NS
        self.shed = 0
        self.last_ns = [-NEVER_NS] * KEYS
        self.hold_ns = [-NEVER_NS] * KEYS


class Plan:
    """cancels: Orders to cancel, the first ``n_safe`` of them moves toward safety, the others only together with the posts.
    posts: desired quotes to post. urgent: some of the safe ones has no replacement here, so cancels go first; otherwise posts may (a
    replacement that is a write call earlier stands earlier in the queue, and old and new order are both counted anyway).

    deferred: changes wanted but not made now. again_ns: when a deferred one is due by time alone (NEVER_NS: an answer will bring it).
    invalid: quotes left out. mint: posts held back because they could match our own bid on the other token.
    """

    __slots__ = ("cancels", "n_safe", "posts", "urgent", "deferred", "again_ns", "invalid", "mint")

    def __init__(self):
        self.cancels = []
        self.posts = []
        self.urgent = False
        self.n_safe = 0
        self.deferred = self.invalid = self.mint = 0
        self.again_ns = NEVER_NS


def diff(desired, orders, limits: Limits, now_ns: int) -> Plan:
    """The plan that brings ``orders`` (the not-DONE Orders of a window) to ``desired`` ((token, level, side, px_e4, size_u6), ...)."""
    plan = Plan()
    want = {}
    tick, least = limits.tick_e4, limits.min_size_u6
    for q in desired:
        px, key = q[3], q[0] * LEVELS + q[1]
        if 0 < px < ONE_E4 and not px % tick and q[4] >= least and 0 <= key < KEYS and 0 <= q[1] < LEVELS:
            want[key] = q
        else:
            plan.invalid += 1
    top = [0, 0]
    reserved, busy = 0, 0
    risk = [limits.risk_u6[0] * ONE_E4, limits.risk_u6[1] * ONE_E4]
    live = {}
    for o in orders:
        if o.side == BUY:
            cost = o.px_e4 * (o.size_u6 - o.booked_u6)
            reserved += cost
            risk[1 - o.token] -= cost
            if o.px_e4 > top[o.token]:
                top[o.token] = o.px_e4
        if o.state != LIVE:
            busy |= 1 << o.key
        elif o.doomed or o.key in live:
            plan.cancels.append(o)
            plan.urgent = True
            busy |= 1 << o.key
        else:
            live[o.key] = o
        if o.side != BUY:
            risk[o.token] -= (ONE_E4 - o.px_e4) * (o.size_u6 - o.booked_u6)
    room = limits.cash_u6 * ONE_E4 - reserved
    improve = _toward_safety(plan, live, want, limits, now_ns)
    plan.n_safe = len(plan.cancels)
    _posts(plan, want, improve, busy, top, room, risk, limits, now_ns)
    if plan.n_safe and not plan.urgent:
        replaced = {q[0] * LEVELS + q[1] for q in plan.posts}
        plan.urgent = not all(o.key in replaced for o in plan.cancels)
    return plan


def _toward_safety(plan: Plan, live: dict, want: dict, limits: Limits, now_ns: int) -> dict:
    """Cancels what must go now; drops satisfied quotes from ``want``; returns the live orders whose replacement may go ahead by churn rules."""
    improve = {}
    for key, o in live.items():
        q = want.get(key)
        if q is None or q[2] != o.side:
            plan.cancels.append(o)
            plan.urgent = True
            continue
        move = q[3] - o.px_e4 if o.side == BUY else o.px_e4 - q[3]
        if move < 0:
            plan.cancels.append(o)
            continue
        size = q[4]
        resize = o.size_u6 - (o.matched_u6 if o.matched_u6 > o.booked_u6 else o.booked_u6) - size
        if move < limits.reprice_ticks * limits.tick_e4 and (-resize if resize < 0 else resize) * PPM <= limits.resize_ppm * size:
            del want[key]
            continue
        due = limits.last_ns[key] + limits.min_update_ns
        if limits.shed and due <= now_ns:
            due = now_ns + RETRY_NS
        if due > now_ns:
            plan.deferred += 1
            if due < plan.again_ns:
                plan.again_ns = due
            del want[key]
            continue
        improve[key] = o
    return improve


def _posts(plan: Plan, want: dict, improve: dict, busy: int, top: list, room: int, risk: list, limits: Limits,
           now_ns: int) -> None:
    """Posts what may be posted now; an order in ``improve`` is cancelled only together with its replacement, or to make room for it."""
    orders = limits.orders
    cancels = limits.cancels - len(plan.cancels)
    hold = limits.hold_ns
    for key, q in want.items():
        if busy >> key & 1:
            plan.deferred += 1
            continue
        if hold[key] > now_ns:
            plan.deferred += 1
            if hold[key] < plan.again_ns:
                plan.again_ns = hold[key]
            continue
        token, px = q[0], q[3]
        old = improve.get(key)
        if orders <= 0 or (old is not None and cancels <= 0) or (limits.shed == SHED_LEVELS and q[1] > 0):
            plan.deferred += 1
            plan.again_ns = min(plan.again_ns, now_ns + RETRY_NS)
            continue
        if q[2] == BUY:
            if px + top[1 - token] >= ONE_E4:
                plan.deferred += 1
                plan.mint += 1
                continue
            cost = px * q[4]
            if cost > room:
                plan.deferred += 1
                plan.again_ns = min(plan.again_ns, now_ns + RETRY_NS)
                continue
            if cost > risk[1 - token]:
                plan.deferred += 1
                plan.again_ns = min(plan.again_ns, now_ns + RETRY_NS)
                if old is not None and cost <= risk[1 - token] + old.px_e4 * (old.size_u6 - old.booked_u6):
                    plan.cancels.append(old)
                    plan.urgent = True
                    cancels -= 1
                continue
            risk[1 - token] -= cost
            room -= cost
            if px > top[token]:
                top[token] = px
        if old is not None:
            plan.cancels.append(old)
            cancels -= 1
        plan.posts.append(q)
        orders -= 1
