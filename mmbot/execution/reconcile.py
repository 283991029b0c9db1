"""Desired quotes x own orders -> cancels and posts, for one window. Pure: no I/O, time is an argument.

Owns: every rule about when a quote may be replaced. Called by the order manager on each fresh
target and on each change of an own order. Can go wrong: nothing here raises on bad targets; a quote off the grid, too small or
priced outside (0, 1) is left out and counted in ``invalid``.

Rules
- One order per (token, side, level). A replacement is a cancel and a post together; while a cancel is not confirmed, both orders count for
  exposure and cash, and no third order is posted there.
- Toward safety nothing waits: a quote that vanished, or a live bid above the desired price or offer below it, is cancelled at once, whatever
  the budget says (the venue lets cancels overdraw).
- Everything else is churn and waits: ``min_update_ns`` since the last change of that quote, ``reprice_ticks``, ``resize_ppm``, tokens
  in both buckets, and room for the new order; until then the old order stays.
- Own orders must not match each other. The two tokens are one book: in Up terms a bid for Down at p is an offer at 1 - p, an offer of Down a bid. No own
  bid there may reach an own offer, over everything that may still rest or match at the venue, cancels under way included (an Up bid and a Down bid
  that sum to 1 would mint, two offers that sum to 1 or less would merge, a bid and an offer of one token would trade).
- Shares are offered once, and only those that can be sold (``shares_u6``): open offers of every state take from them. What is wanted beyond is cut, the
  innermost level first served; a cut below the minimum is not posted. A replacement for which there are no shares beside the order it replaces waits
  until that one is gone; that one is cancelled first.
- An order that takes is sent when the manager lets it through (`Window.takes`), never beside another of its kind, never where ``take`` is false, and
  never cancelled: the venue may hold it back and then refuses the cancel. It counts with everything that it may still do, its fee included.
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

from mmbot.execution.amounts import LOT_U6
from mmbot.execution.order import KEYS, LEVELS, LIVE, MAKER_KEYS, ONE_E4, key_of
from shm_layout.records import BUY, QK_FAK, QK_FOK, QK_POST_ONLY, SELL, UP

PPM = 1_000_000
NEVER_NS = (1 << 63) - 1
RETRY_NS = 25_000_000           # when tokens, cash or shares were missing
LEAST_CASH_U6 = 1_000_000       # the venue takes no marketable BUY of less
SHED_CHURN, SHED_LEVELS = 1, 2


class Limits:
    """What `diff` has to respect in one window; the manager keeps one per window and updates it in place.

    last_ns[key]: last change of that quote. hold_ns[key]: no post before this (a fill that the core may not have seen yet, a leg
    in quarantine). orders, cancels: tokens. shed: 0, SHED_CHURN or SHED_LEVELS. cash_u6: dollars that this window's open bids may reserve together.
    risk_u6: dollars that open orders may lose together if Up, Down wins. shares_u6: Up, Down shares that open offers may offer together.
    take: whether orders may take now; fee_rate_e6: the rate of their fee.
    """

    __slots__ = ("tick_e4", "min_size_u6", "min_update_ns", "reprice_ticks", "resize_ppm", "orders", "cancels", "cash_u6", "risk_u6", "shares_u6",
                 "take", "fee_rate_e6", "shed", "last_ns", "hold_ns")

    def __init__(self, tick_e4=100, min_size_u6=5_000_000, min_update_ns=250_000_000, reprice_ticks=1, resize_ppm=100_000,
                 orders=60, cancels=120, cash_u6=NEVER_NS):
        self.tick_e4, self.min_size_u6 = tick_e4, min_size_u6
        self.min_update_ns, self.reprice_ticks, self.resize_ppm = min_update_ns, reprice_ticks, resize_ppm
        self.orders, self.cancels, self.cash_u6 = orders, cancels, cash_u6
        self.risk_u6, self.shares_u6 = (NEVER_NS, NEVER_NS), (0, 0)
        self.take, self.fee_rate_e6 = True, 0
        self.shed = 0
        self.last_ns = [-NEVER_NS] * KEYS
        self.hold_ns = [-NEVER_NS] * KEYS

    def fee_e4(self, side: int, px_e4: int) -> int:
        """Most that one share can cost in fees when it is taken at ``px_e4`` or better, 1e-4 dollars, rounded up. A dollar-sized BUY buys more shares
        at a better price, so its bound is in dollars: rate * px a share at ``px_e4``. Source: venue protocol, current fee (exponent 1 or more)."""
        if side == BUY:
            return -(-px_e4 * self.fee_rate_e6 // PPM)
        worst = max(px_e4, ONE_E4 // 2)
        return -(-worst * (ONE_E4 - worst) * self.fee_rate_e6 // (ONE_E4 * PPM))


class Plan:
    """cancels: Orders to cancel, the first ``n_safe`` of them moves toward safety, the others only together with the posts.
    posts: desired quotes to post. urgent: some of the safe ones has no replacement here, so cancels go first; otherwise posts may (a
    replacement that is a write call earlier stands earlier in the queue, and old and new order are both counted anyway).

    deferred: changes wanted but not made now. again_ns: when a deferred one is due by time alone (NEVER_NS: an answer will bring it).
    invalid: quotes left out. mint: posts held back because they could match an order of our own. short: more shares are to be sold than can be.
    """

    __slots__ = ("cancels", "n_safe", "posts", "urgent", "deferred", "again_ns", "invalid", "mint", "short")

    def __init__(self):
        self.cancels = []
        self.posts = []
        self.urgent = self.short = False
        self.n_safe = 0
        self.deferred = self.invalid = self.mint = 0
        self.again_ns = NEVER_NS

    def wait(self, until_ns: int) -> None:
        """A change is put off until then."""
        self.deferred += 1
        if until_ns < self.again_ns:
            self.again_ns = until_ns


MEETS_OWN, NO_ROOM, NO_ROOM_BESIDE_OLD, ADMITTED = range(4)


class _Room:
    """What is left for further orders after those that are open, and the best prices of ours, in Up terms: a bid there can lose its price a share if
    Down wins, an offer what is missing to one if Up wins. Money in 1e-10 dollars.
    ``cash``; ``if_up``, ``if_down``: what may still be lost if Up, Down wins; ``shares``: Up, Down; ``busy``: keys that no post may use."""

    __slots__ = ("bid", "ask", "cash", "if_up", "if_down", "shares", "busy")

    def __init__(self, limits: Limits):
        self.bid, self.ask = 0, ONE_E4 + 1
        self.cash = limits.cash_u6 * ONE_E4
        self.if_up, self.if_down = limits.risk_u6[0] * ONE_E4, limits.risk_u6[1] * ONE_E4
        self.shares = list(limits.shares_u6)
        self.busy = 0

    def open(self, plan: Plan, orders) -> dict:
        """Take all open orders out of the room. Returns those that may rest as they are, by key; doomed and surplus ones are cancelled."""
        live, busy, bid, ask, cash, if_up, if_down = {}, 0, 0, ONE_E4 + 1, self.cash, self.if_up, self.if_down
        for o in orders:
            px, key, left, buys = o.px_e4, o.key, o.left_u6 if o.budget_u6 else o.size_u6 - o.booked_u6, o.side == BUY
            up = px if o.token == UP else ONE_E4 - px
            if buys == (o.token == UP):
                cost = (up + o.fee_e4) * left
                if_down -= cost
                if up > bid:
                    bid = up
            else:
                cost = (ONE_E4 - up + o.fee_e4) * left
                if_up -= cost
                if up < ask:
                    ask = up
            if buys:
                cash -= cost
            else:
                self.shares[o.token] -= left
            if o.state != LIVE or o.kind:
                busy |= 1 << key
            elif o.doomed or key in live:
                plan.cancels.append(o)
                plan.urgent = True
                busy |= 1 << key
            else:
                live[key] = o
        self.busy, self.bid, self.ask, self.cash, self.if_up, self.if_down = busy, bid, ask, cash, if_up, if_down
        return live

    def admit(self, token: int, side: int, px: int, shares: int, fee: int, old) -> int:
        """Take one more order out of the room if it fits there: ADMITTED; else why not. ``fee``: most a share may cost; ``old``: the order it replaces."""
        up = px if token == UP else ONE_E4 - px
        bids = (side == BUY) == (token == UP)
        if up >= self.ask if bids else up <= self.bid:
            return MEETS_OWN
        loss = up if bids else ONE_E4 - up
        cost, risk = (loss + fee) * shares, self.if_down if bids else self.if_up
        if side == BUY:
            if cost > self.cash:
                return NO_ROOM
            fits = cost <= risk
        else:
            fits = cost <= risk and shares <= self.shares[token]
        if not fits:
            more = old.left_u6 if old is not None else 0
            beside = cost <= risk + (old.px_e4 if side == BUY else ONE_E4 - old.px_e4) * more if more else False
            return NO_ROOM_BESIDE_OLD if beside and (side == BUY or shares <= self.shares[token] + more) else NO_ROOM
        if side == BUY:
            self.cash -= cost
        else:
            self.shares[token] -= shares
        if bids:
            self.if_down -= cost
            self.bid = max(self.bid, up)
        else:
            self.if_up -= cost
            self.ask = min(self.ask, up)
        return ADMITTED


def diff(desired, orders, limits: Limits, now_ns: int) -> Plan:
    """The plan that brings ``orders`` (the not-DONE Orders of a window) to ``desired`` ((token, level, side, kind, px_e4, size_u6), ...)."""
    plan, room = Plan(), _Room(limits)
    want, sells = _wanted(plan, desired, limits)
    live = room.open(plan, orders)
    if sells:
        _cut_sells(plan, want, live, room, limits)
    improve = _toward_safety(plan, live, want, limits, now_ns)
    plan.n_safe = len(plan.cancels)
    _posts(plan, want, improve, room, limits, now_ns)
    if plan.n_safe and not plan.urgent:
        replaced = {key_of(q[0], q[1], q[2], q[3]) for q in plan.posts}
        plan.urgent = not all(o.key in replaced for o in plan.cancels)
    return plan


def _wanted(plan: Plan, desired, limits: Limits) -> tuple[dict, bool]:
    """Desired quotes by key, the invalid ones left out; and whether any of them sells."""
    want, sells, tick, min_size = {}, False, limits.tick_e4, limits.min_size_u6
    for q in desired:
        token, level, side, kind, px, size = q
        if kind == QK_POST_ONLY:
            fits, key = size >= min_size, (2 * side + token) * LEVELS + level
        else:
            fits = kind in (QK_FAK, QK_FOK) and size >= (LEAST_CASH_U6 if side == BUY else LOT_U6)
            key = key_of(token, level, side, kind)
        if fits and 0 < px < ONE_E4 and not px % tick and 0 <= level < LEVELS and 0 <= token <= 1 and 0 <= side <= 1:
            want[key] = q
            if side == SELL:
                sells = True
        else:
            plan.invalid += 1
    return want, sells


def _cut_sells(plan: Plan, want: dict, live: dict, room: _Room, limits: Limits) -> None:
    """Cut what is wanted to be sold to the shares that can be, counting those that a live order of the same quote offers already."""
    free = room.shares.copy()
    offers = sorted(key for key, q in want.items() if q[2] == SELL)
    for key in offers:
        if key in live:
            free[want[key][0]] += live[key].left_u6
    for key in offers:
        q = want[key]
        token, size = q[0], q[5]
        if size > free[token]:
            plan.short = True
            old, least = live.get(key), LOT_U6 if key >= MAKER_KEYS else limits.min_size_u6
            size = max(free[token] - free[token] % LOT_U6, 0)
            if size < least or q[3] == QK_FOK:
                if old is None or old.left_u6 > free[token]:
                    del want[key]
                    plan.wait(NEVER_NS)
                    continue
                size = old.left_u6              # what is left of it goes on resting
            want[key] = (*q[:5], size)
        free[token] -= size


def _toward_safety(plan: Plan, live: dict, want: dict, limits: Limits, now_ns: int) -> dict:
    """Cancels what must go now; drops satisfied quotes from ``want``; returns the live orders whose replacement may go ahead by churn rules."""
    improve = {}
    for key, o in live.items():
        q = want.get(key)
        if q is None:
            plan.cancels.append(o)
            plan.urgent = True
            continue
        move = q[4] - o.px_e4 if o.side == BUY else o.px_e4 - q[4]
        if move < 0:
            plan.cancels.append(o)
            continue
        size = q[5]
        resize = o.size_u6 - (o.matched_u6 if o.matched_u6 > o.booked_u6 else o.booked_u6) - size
        if move < limits.reprice_ticks * limits.tick_e4 and (-resize if resize < 0 else resize) * PPM <= limits.resize_ppm * size:
            del want[key]
            continue
        due = limits.last_ns[key] + limits.min_update_ns
        if limits.shed and due <= now_ns:
            due = now_ns + RETRY_NS
        if due > now_ns:
            plan.wait(due)
            del want[key]
            continue
        improve[key] = o
    return improve


def _posts(plan: Plan, want: dict, improve: dict, room: _Room, limits: Limits, now_ns: int) -> None:
    """Posts what may be posted now; an order in ``improve`` is cancelled only together with its replacement, or to make room for it."""
    orders = limits.orders
    cancels = limits.cancels - len(plan.cancels)
    hold = limits.hold_ns
    for key, q in want.items():
        token, level, side, kind, px, size = q
        if room.busy >> key & 1:
            plan.deferred += 1
            continue
        if hold[key] > now_ns:
            plan.wait(hold[key])
            continue
        old = improve.get(key)
        if orders <= 0 or (old is not None and cancels <= 0) or (limits.shed == SHED_LEVELS and level > 0):
            plan.wait(now_ns + RETRY_NS)
            continue
        if kind != QK_POST_ONLY:
            if not limits.take:
                plan.wait(now_ns + RETRY_NS)
                continue
            fee = limits.fee_e4(side, px)
            shares = size if side == SELL else -(-size * ONE_E4 // px)
        else:
            fee, shares = 0, size
            if side == SELL and size < limits.min_size_u6:
                plan.deferred += 1
                continue
        verdict = room.admit(token, side, px, shares, fee, old)
        if verdict != ADMITTED:
            if verdict == MEETS_OWN:
                plan.deferred += 1
                plan.mint += 1
                continue
            plan.wait(now_ns + RETRY_NS)
            if verdict == NO_ROOM_BESIDE_OLD:
                plan.cancels.append(old)
                plan.urgent = True
                cancels -= 1
            continue
        if old is not None:
            plan.cancels.append(old)
            cancels -= 1
        plan.posts.append(q)
        orders -= 1
