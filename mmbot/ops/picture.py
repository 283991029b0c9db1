"""One look at the group: what every screen, table and JSON document is made of.

Owns: the shapes `Picture` and its parts, and the arithmetic on them (mark, result, why nothing is quoted). Pure: records in, values out.
Writes: nobody. Reads: `mmbot.ops.view` fills it from shared memory; `mmbot.cli` shows it.
"""

from dataclasses import asdict, dataclass, field

from mmbot.venues.round_trip import band
from shm_layout import records as r

U6 = 1e-6
E4 = 1e-4
#: account.state and market.state in words
ACCOUNT_STATES = {r.AS_BOOT: "boot", r.AS_RECONCILING: "reconciling", r.AS_READY: "ready", r.AS_HALTED: "halted"}
MARKET_STATES = {r.MS_EMPTY: "empty", r.MS_ANNOUNCED: "announced", r.MS_OPEN: "open", r.MS_CLOSED: "closed", r.MS_RESOLVED: "resolved"}


@dataclass(frozen=True)
class ProcessView:
    """One process. state: BOOT, RUN, HALT (its own word), HUNG, DEAD (inferred), BACKOFF, EXITED, FATAL (the supervisor's word)."""
    name: str
    state: str
    pid: int
    epoch: int
    cpu: int
    heartbeat_age_ms: float | None
    restarts: int
    busy_pct: float
    rss_mb: float
    last_error: str | None
    error_age_s: float | None = None
    error_count: int = 0
    stalls: int = 0             # turns of its loop that were late, since it started ...
    worst_stall_ms: float = 0.0  # ... and by how much at worst


@dataclass(frozen=True)
class QuoteView:
    """One desired quote: outcome (0 Up, 1 Down), ladder level, price in dollars, shares."""
    token: int
    level: int
    px: float
    size: float


@dataclass(frozen=True)
class MarketView:
    """One window. Prices in dollars per share, sizes in shares; the book is the merged one in Up terms."""
    slug: str
    market_id: int
    state: str
    tau_s: float | None
    q_up: float | None
    up_bid: float | None
    up_ask: float | None
    up_bid_size: float = 0.0
    up_ask_size: float = 0.0
    strike: float | None = None
    quotes: tuple[QuoteView, ...] = ()
    gates: tuple[str, ...] = ()
    target_total: float | None = None
    live_orders: int = 0
    shares: tuple[float, float] = (0.0, 0.0)
    cost: tuple[float, float] = (0.0, 0.0)
    outcome: int = r.NO_OUTCOME
    duration_s: int = 900
    frozen: bool = False        # the feed has evidence that this book stands still while the market moves
    reward_score: float | None = None   # of the quotes wanted now, by the venue's formula for liquidity rewards; None where they are off
    suspect: bool = False       # the feed does not trust this book until it is read anew

    @property
    def mid_up(self) -> float | None:
        """Middle of the merged book, Up terms; None while a side is empty."""
        return None if self.up_bid is None or self.up_ask is None else (self.up_bid + self.up_ask) / 2


@dataclass(frozen=True)
class AccountView:
    """The account: dollars and counts since the executor's books began. ``pnl`` is marked to mid (`marked_pnl`).

    halts: why the executor wants no orders; venue_mode, venue_mode_left_s: what the venue lets us do, and how much longer if it said so;
    deaf: how often the user channel did not show what the venue had acknowledged; difference_s: for how long our books and the venue's
    differ without explanation; reversed: fills that failed at settlement; tokens: left for orders and cancels. pnl = spread + adverse + inventory
    - fees; rebate: the most that the venue may pay back on top; scoring: orders that earn liquidity rewards (-1: not asked);
    late: orders that reached the venue past their deadline, late_result: what their fills came to against the mid 5 s later, less fees.
    """
    state: str = "boot"
    cash: float = 0.0
    reserved: float = 0.0
    exposure: float = 0.0
    pnl: float = 0.0
    realized: float = 0.0
    orders: int = 0
    cancels: int = 0
    fills: int = 0
    rejects: int = 0
    unknown: int = 0
    live_orders: int = 0
    volume: float = 0.0
    fees: float = 0.0
    halts: tuple[str, ...] = ()
    venue_mode: str = "normal"
    venue_mode_left_s: float | None = None
    deaf: int = 0
    difference_s: float | None = None
    reversed: int = 0
    tier: int = -1
    order_tokens: int = 0
    cancel_tokens: int = 0
    spread: float = 0.0
    adverse: float = 0.0
    rebate: float = 0.0
    scoring: int = -1
    late: int = 0
    late_result: float = 0.0

    @property
    def inventory(self) -> float:
        """The part of the result that is neither spread nor adverse selection nor fees (`mmbot.inventory.pnl`)."""
        return self.pnl - self.spread - self.adverse + self.fees


@dataclass(frozen=True)
class SettlementView:
    """What the settler has done since its journal began: operations and dollars. ``under_way``, ``last_failure``: in words, "" when there is none."""
    merges: int = 0
    merged: float = 0.0
    redeems: int = 0
    redeemed: float = 0.0
    failed: int = 0
    under_way: str = ""
    last_failure: str = ""
    paused: bool = False

    @property
    def quiet(self) -> bool:
        """Has nothing happened that is worth a line?"""
        return self == SettlementView()


@dataclass(frozen=True)
class FillView:
    """One own fill: monotonic stamp, window, outcome, side, price in dollars, shares."""
    t_ns: int
    market_id: int
    token: int
    side: int
    px: float
    size: float


@dataclass(frozen=True)
class Hop:
    """Latency of one hop: quantiles in ns, and the counts per bucket that a sparkline is drawn from."""
    hop: str
    count: int
    p50_ns: int
    p90_ns: int
    p99_ns: int
    p999_ns: int
    max_ns: int


@dataclass(frozen=True)
class Link:
    """One ring as one reader sees it, computed from the ring's head now, so it is right when the reader is stopped."""
    ring: str
    reader: str
    head: int
    cursor: int
    lag: int
    lag_max: int
    oldest_unread_age_ns: int
    lapped_polling: int
    lapped_reading: int
    lost: int


@dataclass(frozen=True)
class Picture:
    """Everything one screen shows."""
    profile: str
    name: str
    quoting: bool
    halt_reason: str | None
    processes: tuple[ProcessView, ...]
    markets: tuple[MarketView, ...]
    account: AccountView
    hops: tuple[Hop, ...] = ()
    links: tuple[Link, ...] = ()
    wall_s: float | None = None
    spot: float | None = None
    twap: float | None = None
    panics: int = 0
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    fills: tuple[FillView, ...] = ()
    now_ns: int = 0
    rtt_ms: float | None = None         # average round trip of the market channel's PINGs, None: not known
    last_flat_ms: float | None = None   # from the guardian's last panic until the venue listed nothing
    settlement: SettlementView = SettlementView()
    dry_run: bool = False               # quotes are made, no order is sent


def slug(market_id: int) -> str:
    """The venue's name of a window, from its number."""
    start_s, duration_s = r.window_of(market_id)
    return f"btc-updown-{duration_s // 60}m-{start_s}"


def mark_up(market: MarketView) -> float | None:
    """Value of one Up share, dollars: the outcome once known, else the middle of the book, else the model's probability."""
    if market.outcome != r.NO_OUTCOME:
        return 1.0 if market.outcome == r.UP else 0.0
    return market.mid_up if market.mid_up is not None else market.q_up


def marked_pnl(realized: float, markets: tuple[MarketView, ...]) -> float:
    """Result in dollars: what is realised, plus what the shares of open windows are worth at `mark_up` less what they cost.

    A window without any mark counts at cost. This equals cash plus shares at mid minus the starting cash, and stays right when
    winnings of a resolved window are not paid out yet.
    """
    total = realized
    for m in markets:
        up = mark_up(m)
        if m.outcome == r.NO_OUTCOME and up is not None:
            total += m.shares[r.UP] * up + m.shares[r.DOWN] * (1 - up) - sum(m.cost)
    return total


def why_not_quoting(account_state: str, guard_allows: bool, guard_reasons: tuple[str, ...], core_state: str, executor_state: str,
                    markets: tuple[MarketView, ...], halts: tuple[str, ...] = (), venue_mode: str = "normal") -> str | None:
    """None when quotes are out; otherwise the first reason in the order in which a person would look.

    ``halts`` of the executor that only repeat what was looked at before (guard, start) are not named again; a dry run is the last reason,
    named when everything else would let quotes out.
    """
    if core_state != "RUN":
        return f"core is {core_state}"
    if executor_state != "RUN":
        return f"executor is {executor_state}"
    if not guard_allows:
        return "guardian: " + (", ".join(guard_reasons) or "not yet allowed")
    if account_state != "ready":
        return f"account is {account_state}"
    if own := [h for h in halts if h not in ("guard", "starting", "dry_run")]:
        return "executor: " + ", ".join(f"venue is {venue_mode}" if h == "venue_mode" else h for h in own)
    if any(m.quotes for m in markets):
        return "dry run: quotes are made, no order is sent" if "dry_run" in halts else None
    gates = sorted({g for m in markets if m.state in ("open", "announced") for g in m.gates})
    return "no quotes wanted: " + (", ".join(gates) or "no window")


def split_json(a: AccountView) -> dict:
    """Where the result comes from, in dollars: spread + adverse + inventory - fees is the result; rebate_most may come on top."""
    return {"spread": round(a.spread, 6), "adverse": round(a.adverse, 6), "inventory": round(a.inventory, 6), "fees": round(a.fees, 6),
            "rebate_most": round(a.rebate, 6)}


def status_json(picture: Picture) -> dict:
    """The document of `mmbot status --json`."""
    a = picture.account
    return {
        "profile": picture.profile, "dry_run": picture.dry_run, "quoting": picture.quoting, "halt_reason": picture.halt_reason,
        "processes": [{k: getattr(p, k) for k in ("name", "state", "pid", "epoch", "cpu", "heartbeat_age_ms", "restarts", "busy_pct",
                                                  "rss_mb", "last_error", "stalls", "worst_stall_ms")} for p in picture.processes],
        "markets": [{k: getattr(m, k) for k in ("slug", "tau_s", "q_up", "up_bid", "up_ask", "live_orders", "frozen", "suspect", "gates",
                                                  "reward_score")}
                    for m in picture.markets],
        "account": {"cash": round(a.cash, 6), "exposure": round(a.exposure, 6), "fills": a.fills, "pnl": round(a.pnl, 6), "state": a.state,
                    "live_orders": a.live_orders, "unknown": a.unknown, "halts": a.halts, "venue_mode": a.venue_mode,
                    "venue_mode_left_s": a.venue_mode_left_s, "deaf": a.deaf, "difference_s": a.difference_s, "reversed": a.reversed,
                    "tier": a.tier, "order_tokens": a.order_tokens, "cancel_tokens": a.cancel_tokens, "split": split_json(a),
                    "scoring": a.scoring if a.scoring >= 0 else None, "late": a.late, "late_result": round(a.late_result, 6)},
        "settlement": asdict(picture.settlement),
        "market_rtt": {"ms": picture.rtt_ms, "band": band(int((picture.rtt_ms or 0) * 1e6)) or None}, "guard": {"panics": picture.panics, "last_flat_ms": picture.last_flat_ms},
    }


def latency_json(hops: tuple[Hop, ...]) -> dict:
    """The document of `mmbot latency --json`."""
    return {"hops": [vars(h) for h in hops]}


def lag_json(links: tuple[Link, ...]) -> dict:
    """The document of `mmbot lag --json`."""
    return {"links": [vars(link) for link in links]}
