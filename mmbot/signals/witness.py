"""What the spot venues testify: that the oracle is silent while the world moves, and that they contradict each other or the oracle.

Owns: the verdicts ``hole``, ``apart`` and ``apart_by`` in the REF record, written by `look`; read by the core, which makes gates of them.
Can go wrong: one venue's wild print accuses an honest oracle. That takes a print that is overdue as well, and the next print clears it.
Calm and silence look the same to one observer: where nothing moves there is no evidence, and the age of the prints alone decides.
"""

from numba import boolean, float64, int64, njit

from mmbot.signals.reference import REF_T, VENUES, fresh, mid_at

SHORT_MS, LONG_MS = 1_000, 3_000        # venues are compared by their returns over both: the long one sees more, the short one sooner after a start


@njit(float64(REF_T, int64, int64), cache=True)
def moved(ref, now_ns, stale_ns):
    """Greatest |ln return| of a fresh venue since Chainlink's newest print was observed."""
    most = 0.0
    for i in range(VENUES):
        venue = ref.venue[i]
        if venue.seen != 0 and fresh(venue, now_ns, stale_ns):
            most = max(most, abs(venue.ln - venue.seen_ln))
    return most


@njit(float64(REF_T, int64, int64, int64, int64), cache=True)
def spread(ref, horizon_ms, wall_ms, now_ns, stale_ns):
    """Greatest difference between the ln returns of two fresh venues over ``horizon_ms``; 0 when fewer than two are known from then."""
    low, high = 1e9, -1e9
    for i in range(VENUES):
        venue = ref.venue[i]
        if fresh(venue, now_ns, stale_ns):
            at = mid_at(venue, wall_ms - horizon_ms)
            if at >= 0:
                ret = venue.ln - venue.history_ln[at]
                low, high = min(low, ret), max(high, ret)
    return max(high - low, 0.0)


@njit(boolean(REF_T, int64, int64, int64, int64, float64, float64), cache=True)
def look(ref, wall_ms, now_ns, stale_ns, overdue_ns, move, apart):
    """Hear all witnesses; True when a verdict changed.

    ``hole``: no print of either kind was received for ``overdue_ns`` although the world moved by more than ``move`` (ln). It stands until the
    next print: a price that comes back does not make the oracle speak. ``apart``: two venues' returns differ by more than that (ln), by ``apart_by``.
    """
    before = ref.hole + 2 * ref.apart
    overdue = now_ns - max(ref.spot_recv_ns, ref.twap_recv_ns) > overdue_ns
    if overdue and ref.hole == 0 and moved(ref, now_ns, stale_ns) > move:
        ref.hole = 1
    ref.apart_by = max(spread(ref, SHORT_MS, wall_ms, now_ns, stale_ns), spread(ref, LONG_MS, wall_ms, now_ns, stale_ns))
    ref.apart = ref.apart_by > apart
    return before != ref.hole + 2 * ref.apart
