"""Gates: each a bit of `records.GATE` that says why quotes of a market are absent.

Owns: the decision of each gate from plain numbers. Read by the core. Hard gates remove all quotes of a market; soft ones explain why a
level is missing or smaller, ORACLE_DISAGREE alone only warns.
ACTION, DIVERGENCE and SIGNAL_FLIP are set by the strategy itself while it draws.
Can go wrong: a gate that cannot shut. Each has a test that flips it alone.
"""

from numba import boolean, float64, int64, njit

from shm_layout import records as r

NO_MARKET = r.GATE["no_market"]
NOT_OPEN = r.GATE["not_open"]
CUTOFF = r.GATE["cutoff"]
NO_STRIKE = r.GATE["no_strike"]
STALE_MARKET = r.GATE["stale_market"]
STALE_ORACLE = r.GATE["stale_oracle"]
STALE_SPOT = r.GATE["stale_spot"]
SUSPECT_BOOK = r.GATE["suspect_book"]
EMPTY_BOOK = r.GATE["empty_book"]
ACCOUNT_NOT_READY = r.GATE["account_not_ready"]
GUARD = r.GATE["guard"]
EXPOSURE_CAP = r.GATE["exposure_cap"]
SEVERE_SKEW = r.GATE["severe_skew"]
SIZE_BELOW_MIN = r.GATE["size_below_min"]
PRICE_OUT_OF_RANGE = r.GATE["price_out_of_range"]
PAIR_CAP = r.GATE["pair_cap"]
NO_PARAMS = r.GATE["no_params"]
WARMING = r.GATE["warming"]
EXECUTOR_HALT = r.GATE["executor_halt"]
FROZEN_MARKET = r.GATE["frozen_market"]
SPOT_DISAGREE = r.GATE["spot_disagree"]
ORACLE_DISAGREE = r.GATE["oracle_disagree"]
LATENCY = r.GATE["latency"]
MARKET_CAP = r.GATE["market_cap"]
SIDE_CAP = r.GATE["side_cap"]
ACTION = r.GATE["action"]
DIVERGENCE = r.GATE["divergence"]
SIGNAL_FLIP = r.GATE["signal_flip"]
PRICE_JUMP = r.GATE["price_jump"]
VOL_SPIKE = r.GATE["vol_spike"]
TOXIC_FLOW = r.GATE["toxic_flow"]
GAMMA_DANGER = r.GATE["gamma_danger"]

SOFT = (STALE_SPOT | SPOT_DISAGREE | ORACLE_DISAGREE | EXPOSURE_CAP | SEVERE_SKEW | SIZE_BELOW_MIN | PRICE_OUT_OF_RANGE | PAIR_CAP | MARKET_CAP | SIDE_CAP
        | ACTION | TOXIC_FLOW)
HARD = (1 << len(r.GATES)) - 1 & ~SOFT

#: A window whose opening print is not here yet is priced from the running average for this long: prints arrive 1 to 2.3 s late.
STRIKE_GRACE_NS = 5_000_000_000
SECOND_NS = 1_000_000_000
BASIS_POINT = 1e-4

#: Reasons of the executor to want no orders that are none of the account's own gate (not ready, user channel, guard), HALT_BIT bits.
HALTING = 0
for _name in ("venue_mode", "difference", "error_rate", "loss", "unknown_order", "journal"):
    HALTING |= r.HALT_BIT[_name]


@njit(int64(int64, int64), cache=True)
def bit(shut, gate):
    """``gate`` when ``shut`` is true, else 0."""
    return gate if shut else 0


@njit(int64(int64, int64, int64), cache=True)
def too_old(now_ns, t_ns, limit_ns):
    """1 when a stamp is missing or older than the limit. A stamp of 0 means never."""
    return 1 if t_ns == 0 or now_ns - t_ns > limit_ns else 0


@njit(int64(int64, int64, int64, boolean), cache=True)
def oracle_gate(now_ns, spot_recv_ns, stale_ns, hole):
    """Shut when the newest spot print is older than ``stale_ns``, or younger but in a ``hole`` that the spot venues testify."""
    return bit(too_old(now_ns, spot_recv_ns, stale_ns) or hole, STALE_ORACLE)


@njit(int64(int64, int64, int64, int64, int64, int64, int64, int64), cache=True)
def phase_gates(state, accepting, resolved, start_s, end_s, lead_ns, cutoff_ns, wall_ns):
    """Gates of where a window is in its life: not open (or too early, or over), past the cut-off. Wall ns, boundaries in s."""
    open_ = (state == r.MS_OPEN or state == r.MS_ANNOUNCED) and accepting != 0 and resolved == 0
    early = wall_ns < start_s * SECOND_NS - lead_ns
    return bit(not open_ or early, NOT_OPEN) | bit(wall_ns >= end_s * SECOND_NS - cutoff_ns, CUTOFF)


@njit(int64(int64, int64, boolean), cache=True)
def strike_gate(start_s, wall_ns, known):
    """Shut when a window has been running for longer than STRIKE_GRACE_NS and its opening print is not known for sure."""
    return bit(not known and wall_ns > start_s * SECOND_NS + STRIKE_GRACE_NS, NO_STRIKE)


@njit(int64(int64, int64, int64, int64, int64), cache=True)
def book_gates(bid_e4, ask_e4, flags, t_recv_ns, oldest_ns):
    """Gates of a book: prices of 0 mean an empty side; ``flags`` MF_*; ``oldest_ns`` is the oldest receipt that counts as fresh."""
    empty = bid_e4 <= 0 or ask_e4 <= 0
    crossed = not empty and bid_e4 >= ask_e4
    stale = t_recv_ns == 0 or t_recv_ns < oldest_ns
    suspect = crossed or flags & (r.MF_SUSPECT | r.MF_CROSSED) != 0
    return (bit(stale, STALE_MARKET) | bit(suspect, SUSPECT_BOOK) | bit(empty, EMPTY_BOOK)
            | bit(flags & r.MF_FROZEN != 0, FROZEN_MARKET))


@njit(int64(int64, int64, int64), cache=True)
def account_gate(t_update_ns, state, user_ok):
    """Shut unless the executor has reconciled the account and hears the user channel."""
    return bit(t_update_ns == 0 or state != r.AS_READY or user_ok == 0, ACCOUNT_NOT_READY)


@njit(int64(int64), cache=True)
def halt_gate(halts):
    """Shut while the executor wants no orders for a reason of its own: ``halts`` is ACCOUNT.halts, of which HALTING counts."""
    return bit(halts & HALTING != 0, EXECUTOR_HALT)


@njit(boolean(boolean, int64, int64, int64), cache=True)
def too_slow(was_slow, rtt_ns, kill_ns, resume_ns):
    """Whether PINGs take too long: above ``kill_ns`` (0: never), then until they are below ``resume_ns``. An average of 0 is not known: nothing changes."""
    if kill_ns <= 0:
        return False
    return rtt_ns > kill_ns or (was_slow and not 0 < rtt_ns < resume_ns)


@njit(int64(int64, int64), cache=True)
def guard_gate(t_update_ns, quoting_allowed):
    """Shut unless the guardian has spoken and allows quoting."""
    return bit(t_update_ns == 0 or quoting_allowed == 0, GUARD)


@njit(int64(float64, float64), cache=True)
def danger_gate(delta, most):
    """Shut when a basis point of Bitcoin moves the price of Up by more than ``most`` dollars (0: off); ``delta`` is per 1 of ln price."""
    return bit(most > 0.0 and abs(delta) * BASIS_POINT > most, GAMMA_DANGER)
