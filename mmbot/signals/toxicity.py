"""Is the flow informed? Imbalance of the market's trades in buckets of volume, and runs of own fills on one side.

Owns: VPIN (a window's volume buckets) and TOXIC (until when its own fills count as toxic). Written by `trade` and `on_fills`, read by the core.
Source: Easley, Lopez de Prado and O'Hara 2012: mean of |bought - sold| over the last n buckets of equal volume, as part of the bucket; trades are signed by
their taker, so nothing has to be classified. Runs: document 2, three consecutive fills on one side within 10 s count for 5 minutes; a new trigger moves
the deadline and changes nothing else.
Can go wrong: own fills are in the market's trades too. Until all buckets were filled once there is no VPIN: a few buckets always look one-sided.
"""

import numpy as np
from numba import float64, from_dtype, int64, njit, void

from mmbot.signals import fills as own
from shm_layout import records as r

BUCKETS = 64

#: Completed buckets, the one being filled, and the newest trade that was taken in. Shares in 1e-6.
VPIN = np.dtype([
    ("done", "<i8"), ("size_u6", "<i8"), ("buckets", "<i8"), ("bought_u6", "<i8"), ("sold_u6", "<i8"), ("total_u6", "<i8"), ("t_pub_ns", "<i8"),
    ("off_u6", "<i8", (BUCKETS,)),
])
TOXIC = np.dtype([("until_ns", "<i8"), ("run", "<i8"), ("judged", "<i8")])
VPIN_T, TOXIC_T = from_dtype(VPIN), from_dtype(TOXIC)


@njit(void(VPIN_T), cache=True)
def _fill_bucket(vpin):
    """The bucket is full: its imbalance takes the place of the oldest one's."""
    at = vpin.done % vpin.buckets
    off = abs(vpin.bought_u6 - vpin.sold_u6)
    vpin.total_u6 += off - (vpin.off_u6[at] if vpin.done >= vpin.buckets else 0)
    vpin.off_u6[at] = off
    vpin.done += 1
    vpin.bought_u6 = vpin.sold_u6 = 0


@njit(void(VPIN_T), cache=True)
def forget(vpin):
    """Start anew: no bucket, no trade."""
    vpin.done = vpin.bought_u6 = vpin.sold_u6 = vpin.total_u6 = vpin.size_u6 = vpin.buckets = vpin.t_pub_ns = 0


@njit(void(VPIN_T, int64, int64, int64, int64, int64), cache=True)
def trade(vpin, side, size_u6, t_pub_ns, bucket_u6, buckets):
    """Take a trade of ``size_u6`` shares, ``side`` of its taker in Up terms. A trade wider than a bucket fills several. The same record twice counts once."""
    if size_u6 <= 0 or t_pub_ns <= vpin.t_pub_ns:
        return
    if vpin.size_u6 != bucket_u6 or vpin.buckets != buckets:
        forget(vpin)
        vpin.size_u6, vpin.buckets = bucket_u6, min(max(buckets, 1), BUCKETS)
    vpin.t_pub_ns = t_pub_ns
    left = min(size_u6, bucket_u6 * (vpin.buckets + 1))         # more than all buckets can say nothing more
    while left > 0:
        part = min(left, bucket_u6 - vpin.bought_u6 - vpin.sold_u6)
        if side == r.BUY:
            vpin.bought_u6 += part
        else:
            vpin.sold_u6 += part
        left -= part
        if vpin.bought_u6 + vpin.sold_u6 >= bucket_u6:
            _fill_bucket(vpin)


@njit(float64(VPIN_T), cache=True)
def toxicity(vpin):
    """VPIN in [0, 1], 0 until all buckets were filled once."""
    if vpin.buckets == 0 or vpin.done < vpin.buckets:
        return 0.0
    return vpin.total_u6 / (float(vpin.size_u6) * vpin.buckets)


@njit(void(TOXIC_T, own.FILLS_T, int64, int64, int64), cache=True)
def on_fills(toxic, fills, run, window_ns, for_ns):
    """Judge fills not judged yet: the newest ``run`` on one side within ``window_ns`` count as toxic until ``for_ns`` after the last of them."""
    run = min(run, own.FILLS_N)
    begin = max(toxic.judged, fills.n - own.FILLS_N)
    for k in range(begin, fills.n):
        last = fills.of[k % own.FILLS_N]
        same = 0
        for back in range(min(run, k + 1, k + 1 - (fills.n - own.FILLS_N) if fills.n > own.FILLS_N else k + 1)):
            fill = fills.of[(k - back) % own.FILLS_N]
            if fill.side != last.side or last.t_ns - fill.t_ns > window_ns:
                break
            same += 1
        if same >= run:
            toxic.until_ns, toxic.run = last.t_ns + for_ns, same
    toxic.judged = fills.n
