"""The price of Bitcoin right now, as the contract will see it: Chainlink's level, moved by what Binance did since.

Owns: the REF record (newest Chainlink spot and TWAP print, newest Binance mid and a short history of it).
Written by `on_spot_print`, `on_twap_print` and `on_lead`; read by the core.
Can go wrong: Binance is quoted in USDT and stands a basis away from Chainlink's dollar price. Only its *return* since the
Chainlink observation is used, so the basis cancels. A wild Binance print moves the level by at most MAX_LEAD. A Chainlink print
that does not advance the observation stamp is no news and does not make the feed fresh.
"""

import math

import numpy as np
from numba import boolean, float64, from_dtype, int64, njit

LEAD_N = 64                 # remembered Binance mids
LEAD_STEP_MS = 100          # one is kept per this much wall time: the history spans 6.4 s
LEAD_MATCH_MS = 2_000       # a mid older than this at the observation is not a match for it
FAST_MS = 1_000             # horizon of the fast move
MAX_LEAD = 0.0075           # 75 bps: beyond this the sources disagree and Binance is not believed further

REF = np.dtype([
    ("spot_ms", "<i8"), ("spot_recv_ns", "<i8"), ("spot_ln", "<f8"),
    ("twap_ms", "<i8"), ("twap_recv_ns", "<i8"), ("twap_ln", "<f8"),
    ("lead_recv_ns", "<i8"), ("lead_n", "<i8"), ("lead_ln", "<f8"), ("anchor_ln", "<f8"), ("anchored", "<i8"),
    ("fast", "<f8"), ("history_ms", "<i8", (LEAD_N,)), ("history_ln", "<f8", (LEAD_N,)),
])
REF_T = from_dtype(REF)


@njit(boolean(float64), cache=True)
def sane(px):
    """Whether a price can be a price of Bitcoin: finite and positive."""
    return 0.0 < px < 1e12


@njit(int64(REF_T, int64), cache=True)
def _newest_at(ref, t_ms):
    """Index into the history of the newest mid at or before wall ``t_ms``; -1 when there is none within LEAD_MATCH_MS."""
    oldest = max(ref.lead_n - LEAD_N, 0)
    k = ref.lead_n - 1
    while k >= oldest:
        at = k % LEAD_N
        if ref.history_ms[at] <= t_ms:
            return at if t_ms - ref.history_ms[at] <= LEAD_MATCH_MS else -1
        k -= 1
    return -1


@njit(boolean(REF_T, int64, int64, float64), cache=True)
def on_spot_print(ref, t_obs_ms, t_recv_ns, px):
    """Take a Chainlink spot print (dollars, observation wall ms, receipt ns). False when it is no news or no price."""
    if t_obs_ms <= ref.spot_ms or not sane(px):
        return False
    ref.spot_ms = t_obs_ms
    ref.spot_recv_ns = t_recv_ns
    ref.spot_ln = math.log(px)
    at = _newest_at(ref, t_obs_ms)
    ref.anchored = at >= 0
    if at >= 0:
        ref.anchor_ln = ref.history_ln[at]
    return True


@njit(boolean(REF_T, int64, int64, float64), cache=True)
def on_twap_print(ref, t_obs_ms, t_recv_ns, px):
    """Take a Chainlink TWAP-60 print. False when it is no news or no price."""
    if t_obs_ms <= ref.twap_ms or not sane(px):
        return False
    ref.twap_ms = t_obs_ms
    ref.twap_recv_ns = t_recv_ns
    ref.twap_ln = math.log(px)
    return True


@njit(boolean(REF_T, int64, int64, float64), cache=True)
def on_lead(ref, wall_ms, t_recv_ns, mid):
    """Take a Binance mid (dollars; wall ms of its arrival, since its best bid/ask stream carries no stamp). False when unchanged."""
    if not sane(mid):
        return False
    ref.lead_recv_ns = t_recv_ns
    ln_mid = math.log(mid)
    moved = ln_mid != ref.lead_ln or ref.lead_n == 0
    ref.lead_ln = ln_mid
    if ref.lead_n == 0 or wall_ms - ref.history_ms[(ref.lead_n - 1) % LEAD_N] >= LEAD_STEP_MS:
        at = ref.lead_n % LEAD_N
        ref.history_ms[at] = wall_ms
        ref.history_ln[at] = ln_mid
        ref.lead_n += 1
    return moved


@njit(float64(REF_T, int64), cache=True)
def fast_move(ref, wall_ms):
    """|ln return| of Binance over the last second, 0 without a mid from then."""
    at = _newest_at(ref, wall_ms - FAST_MS)
    return abs(ref.lead_ln - ref.history_ln[at]) if at >= 0 else 0.0


@njit(float64(REF_T, boolean), cache=True)
def level_ln(ref, lead_fresh):
    """ln of the reference price: Chainlink's newest print plus Binance's return since it was observed, if Binance is fresh."""
    if not lead_fresh or ref.anchored == 0:
        return ref.spot_ln
    return ref.spot_ln + min(max(ref.lead_ln - ref.anchor_ln, -MAX_LEAD), MAX_LEAD)
