"""The price of Bitcoin right now, as the contract will see it: Chainlink's level, moved by what a spot venue did since.

Owns: the REF record (newest Chainlink spot and TWAP print; of each spot venue its newest mid, a short history of it, and its basis: how far
Chainlink's print stood from what the venue showed ``lag_ms`` before the print's stamp). Written by `on_spot_print`, `on_twap_print`, `on_mid` and
`on_life`; read by the core and `signals.witness`. The nowcast is a venue's mid plus its basis.
Why a lag: Chainlink's price follows the venues. On a recording of both (300 s, 2026-04-27) five-second returns of the print and of Binance's mid
agree best (correlation 0.80) when the mid is taken 1 s before the print's stamp; with the relay's 1.3 s the venue leads what we hear by 2.3 s.
Can go wrong: a spot venue stands a basis away from Chainlink's dollar price (Binance and Bybit are quoted in USDT). Each venue has its own,
so one can take over from another without a jump. A wild venue moves the level by at most MAX_LEAD. What a venue did across a silence may be in Chainlink's print already: it starts anew. A
Chainlink print that does not advance the observation stamp is no news and does not make the feed fresh.
"""

import math

import numpy as np
from numba import boolean, float64, from_dtype, int64, njit, void

VENUES = 3                  # records.SV_* less one; also the order in which they lead: Binance, Coinbase, Bybit
HISTORY_N = 64              # remembered mids of a venue
STEP_MS = 100               # one per this much wall time, its first: the history spans 6.4 s
MATCH_MS = 2_000            # a mid older than this at a time says nothing about that time
FAST_MS = 1_000             # horizon of the fast move
MAX_LEAD = 0.0075           # 75 bps: a return beyond this is not believed further

#: A spot venue. ``basis`` is Chainlink's ln price less its own, ``anchored`` whether the newest spot print told it; ``seen_ln`` its ln mid when the newest
#: print of either kind was observed.
VENUE = np.dtype([
    ("recv_ns", "<i8"), ("ln", "<f8"), ("anchored", "<i8"), ("basis", "<f8"), ("seen", "<i8"), ("seen_ln", "<f8"),
    ("history_ms", "<i8", (HISTORY_N,)), ("history_ln", "<f8", (HISTORY_N,)),
])
REF = np.dtype([
    ("spot_ms", "<i8"), ("spot_recv_ns", "<i8"), ("spot_ln", "<f8"),
    ("twap_ms", "<i8"), ("twap_recv_ns", "<i8"), ("twap_ln", "<f8"),
    ("fast", "<f8"), ("hole", "<i8"), ("apart", "<i8"), ("apart_by", "<f8"), ("venue", VENUE, (VENUES,)),
])
VENUE_T, REF_T = from_dtype(VENUE), from_dtype(REF)


@njit(boolean(float64), cache=True)
def sane(px):
    """Whether a price can be a price of Bitcoin: finite and positive."""
    return 0.0 < px < 1e12


@njit(int64(VENUE_T, int64), cache=True)
def mid_at(venue, t_ms):
    """Index into the history of the newest mid at or before wall ``t_ms``; -1 when there is none within MATCH_MS."""
    step = t_ms // STEP_MS
    for back in range(MATCH_MS // STEP_MS + 1):
        at = (step - back) % HISTORY_N
        if 0 <= t_ms - venue.history_ms[at] <= MATCH_MS:
            return at
    return -1


@njit(boolean(VENUE_T, int64, int64), cache=True)
def fresh(venue, now_ns, stale_ns):
    """Whether the venue was heard within the last ``stale_ns``."""
    return venue.recv_ns != 0 and now_ns - venue.recv_ns <= stale_ns


@njit(void(REF_T, int64), cache=True)
def _mark_seen(ref, t_obs_ms):
    """Remember where the venues stood when a print was observed. Any news ends a hole in the oracle."""
    ref.hole = 0
    if t_obs_ms < max(ref.spot_ms, ref.twap_ms):
        return
    for i in range(VENUES):
        venue = ref.venue[i]
        at = mid_at(venue, t_obs_ms)
        venue.seen = at >= 0
        if at >= 0:
            venue.seen_ln = venue.history_ln[at]


@njit(boolean(REF_T, int64, int64, float64, int64, float64), cache=True)
def on_spot_print(ref, t_obs_ms, t_recv_ns, px, lag_ms, half_life_s):
    """Take a Chainlink spot print (dollars, observation wall ms, receipt ns). False when it is no news or no price.

    ``lag_ms``: the print shows the spot venues of so long before its stamp. ``half_life_s`` of each venue's basis; 0: this print alone tells it.
    """
    if t_obs_ms <= ref.spot_ms or not sane(px):
        return False
    keep = 0.5 ** ((t_obs_ms - ref.spot_ms) * 1e-3 / half_life_s) if half_life_s > 0.0 else 0.0
    ref.spot_ms = t_obs_ms
    ref.spot_recv_ns = t_recv_ns
    ref.spot_ln = math.log(px)
    for i in range(VENUES):
        venue = ref.venue[i]
        at = mid_at(venue, t_obs_ms - lag_ms)
        if at < 0:                  # heard only since: what it showed at the stamp itself is next best
            at = mid_at(venue, t_obs_ms)
        if at >= 0:
            basis = ref.spot_ln - venue.history_ln[at]
            venue.basis = keep * venue.basis + (1.0 - keep) * basis if venue.anchored != 0 else basis
        venue.anchored = at >= 0
    _mark_seen(ref, t_obs_ms)
    return True


@njit(boolean(REF_T, int64, int64, float64), cache=True)
def on_twap_print(ref, t_obs_ms, t_recv_ns, px):
    """Take a Chainlink TWAP-60 print. False when it is no news or no price."""
    if t_obs_ms <= ref.twap_ms or not sane(px):
        return False
    ref.twap_ms = t_obs_ms
    ref.twap_recv_ns = t_recv_ns
    ref.twap_ln = math.log(px)
    _mark_seen(ref, t_obs_ms)
    return True


@njit(void(VENUE_T), cache=True)
def _forget(venue):
    """A venue starts anew: nothing is known from before."""
    venue.anchored = venue.seen = 0
    for i in range(HISTORY_N):
        venue.history_ms[i] = 0


@njit(boolean(REF_T, int64, int64, int64, float64, int64), cache=True)
def on_mid(ref, index, wall_ms, t_recv_ns, mid, stale_ns):
    """Take a mid of venue ``index`` (dollars; wall ms of its arrival, since not all venues stamp it). False when unchanged or no price.

    After more than ``stale_ns`` of silence the venue starts anew.
    """
    if not sane(mid):
        return False
    venue = ref.venue[index]
    ln_mid = math.log(mid)
    moved = ln_mid != venue.ln or venue.recv_ns == 0
    if not fresh(venue, t_recv_ns, stale_ns):
        _forget(venue)
    venue.recv_ns = max(venue.recv_ns, t_recv_ns)
    venue.ln = ln_mid
    at = wall_ms // STEP_MS % HISTORY_N
    if venue.history_ms[at] // STEP_MS != wall_ms // STEP_MS:
        venue.history_ms[at] = wall_ms
        venue.history_ln[at] = ln_mid
    return moved


@njit(void(REF_T, int64, int64, int64), cache=True)
def on_life(ref, index, t_recv_ns, stale_ns):
    """A venue that is heard shows by something else than a mid that its stream lives. After a silence only a mid does."""
    venue = ref.venue[index]
    if fresh(venue, t_recv_ns, stale_ns):
        venue.recv_ns = max(venue.recv_ns, t_recv_ns)


@njit(int64(REF_T), cache=True)
def newest(ref):
    """When a spot venue was last heard, 0: never."""
    heard = 0
    for i in range(VENUES):
        heard = max(heard, ref.venue[i].recv_ns)
    return heard


@njit(int64(REF_T, int64, int64), cache=True)
def lead(ref, now_ns, stale_ns):
    """Index of the venue that moves the level, -1: none is. The first fresh one known from Chainlink's observation, else the first fresh one."""
    first = -1
    for i in range(VENUES):
        if fresh(ref.venue[i], now_ns, stale_ns):
            if ref.venue[i].anchored != 0:
                return i
            if first < 0:
                first = i
    return first


@njit(float64(REF_T, int64, int64), cache=True)
def fast_move(ref, leader, wall_ms):
    """|ln return| of the leading venue (-1: none) over the last second, 0 without a mid from then."""
    if leader < 0:
        return 0.0
    venue = ref.venue[leader]
    at = mid_at(venue, wall_ms - FAST_MS)
    return abs(venue.ln - venue.history_ln[at]) if at >= 0 else 0.0


@njit(boolean(REF_T, int64), cache=True)
def led(ref, leader):
    """Whether the leading venue (-1: none) carries the level on from Chainlink's newest print."""
    return leader >= 0 and ref.venue[leader].anchored != 0


@njit(float64(REF_T, int64), cache=True)
def level_ln(ref, leader):
    """ln of the reference price: the leading venue's mid plus its basis, not further than MAX_LEAD from Chainlink's newest print; that print when not `led`."""
    if not led(ref, leader):
        return ref.spot_ln
    ahead = ref.venue[leader].ln + ref.venue[leader].basis - ref.spot_ln
    return ref.spot_ln + min(max(ahead, -MAX_LEAD), MAX_LEAD)
