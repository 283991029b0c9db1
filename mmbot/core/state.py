"""STATE: everything the core remembers, and numba's types of the records it works on.

Owns: the layout. Written by `inputs` (what came in) and `decide` (what follows from it), read by both. Zeros at birth.
"""

import numpy as np
from numba import from_dtype, types

from mmbot.books import others
from mmbot.quoting.view import DRAFT, MEMORY, VIEW
from mmbot.signals import average, ema, fills, lead_lag, markout, micro_price, path, reference, spike, toxicity, volatility
from shm_layout import records as r

BOUNDARY_S = 300            # a TWAP print is remembered for each multiple of this
STAND_IN, DISPUTED, TRUSTED = 0, 1, 2      # a strike: the first print after a missing one, an exact one that somebody contradicts, an exact one
BOUNDARY_LATE_S = 30        # a first print after a boundary that was missed counts for it up to this late
FUTURE_MS = 5_000           # a print observed later than this from now is garbage, and would make all true ones look old

#: What `step` returns, per slot: quotes differ (ring the executor), decision differs (quotes or gates), target is to be written.
QUOTES_SHIFT, DECISION_SHIFT, WRITE_SHIFT = 0, 8, 16
SLOT_MASK = (1 << r.MARKET_SLOTS) - 1

#: What the core remembers of one window: the others' best prices, its possible loss.
SLOT = np.dtype([
    ("market_id", "<i8"), ("tick_e4", "<i8"), ("bid_px_e4", "<i8"), ("ask_px_e4", "<i8"), ("flags", "<i8"), ("resolved", "<i8"),
    ("t_recv_ns", "<i8"), ("worst_u6", "<i8"),
])
#: What the core remembers of one window's flow: trades of the market, own fills and what became of them, pauses.
WINDOW = np.dtype([
    ("market_id", "<i8"), ("vpin", toxicity.VPIN), ("toxic", toxicity.TOXIC), ("jump", micro_price.JUMP), ("spike", spike.SPIKE), ("markout", markout.MARKOUT),
    ("fills", fills.FILLS),
])
#: Where the input of this step came from, for the stamps of what it changes.
CAUSE = np.dtype([("src", "<i8"), ("t_exch_ns", "<i8"), ("t_recv_ns", "<i8"), ("t_pub_ns", "<i8")])
#: Numbers every window of one step shares.
SHARED = np.dtype([
    ("ln_level", "<f8"), ("led", "<i8"), ("age_s", "<f8"), ("var_s", "<f8"), ("drift_s", "<f8"), ("sigma_short", "<f8"), ("sigma_long", "<f8"),
    ("size_scale", "<f8"), ("leader", "<i8"), ("gates", "<i8"), ("off_oracle", "<f8"), ("account_state", "<i8"), ("halts", "<i8"), ("guard_reasons", "<i8"),
])
STATE = np.dtype([
    ("attached_ns", "<i8"), ("decisions", "<i8"), ("rtt_ns", "<i8"), ("slow", "<i8"), ("cause", CAUSE), ("shared", SHARED), ("seen", VIEW), ("draft", DRAFT),
    ("boundary_s", "<i8", (r.BOUNDARIES,)), ("boundary_trust", "<i8", (r.BOUNDARIES,)), ("boundary_ln", "<f8", (r.BOUNDARIES,)),
    ("vol", volatility.VOL), ("ref", reference.REF), ("avg", average.AVG), ("path", path.PATH), ("lead_lag", lead_lag.LEAD_LAG), ("variance_ratio", "<f8"),
    ("ema", ema.EMA), ("std_known", "<i8"), ("std", "<f8"), ("markout", markout.MARKOUT), ("window", WINDOW, (r.MARKET_SLOTS,)),
    ("slot", SLOT, (r.MARKET_SLOTS,)), ("memory", MEMORY, (r.MARKET_SLOTS,)), ("programme", r.PROGRAMME, (r.MARKET_SLOTS,)),
    ("others", others.OTHERS, (r.MARKET_SLOTS,)), ("target", r.TARGET, (r.MARKET_SLOTS,)),
])

(STATE_T, SLOT_T, CAUSE_T, VIEW_T, MEMORY_T, DRAFT_T, TARGET_T, MARKET_T, ORACLE_T, SPOT_T, MARKETS_T, INFO_T, ACCOUNT_T, POSITION_T, GUARD_T,
 BLOCK_T, PARAMS_T, OWN_T, PROGRAMME_T, WINDOW_T) = (from_dtype(d) for d in (
     STATE, SLOT, CAUSE, VIEW, MEMORY, DRAFT, r.TARGET, r.MARKET, r.ORACLE, r.SPOT, r.MARKETS, r.MARKET_INFO, r.ACCOUNT, r.POSITION, r.GUARD,
     r.PARAMS_BLOCK, r.PARAMS, r.OWN, r.PROGRAMME, WINDOW))


def array_of(record) -> types.Array:
    """numba's type of a 1-element structured array of ``record``."""
    return types.Array(record, 1, "C")
