"""What a strategy sees, remembers and draws: three records, the same for every strategy.

Owns: VIEW (one window at one moment: time, the others' book, Bitcoin, fair value, flow, holdings), MEMORY (what a strategy keeps per window between
calls, zeros at the start of a window and while a hard gate is shut) and DRAFT (the quotes it wants). VIEW is filled by `mmbot.core.view`; MEMORY
belongs to the strategy that runs; DRAFT is written by the strategy, cut down by `risk.limits` and turned into orders by `quoting.route`.

Everything is in Up terms: prices of Up in dollars, a Down bid at p being an Up offer at 1 - p. A strategy has one signature,
``quote(view, params, memory, draft)``, and only ever asks to *buy* Up or Down; whether an ask becomes a sale or a bid on the other outcome
is decided by `route`. Numbers are finite; what is not known is 0 with its flag 0, never NaN.
"""

import numpy as np
from numba import from_dtype

from shm_layout import records as r

MAX_LEVELS = r.MAX_QUOTES // 2

VIEW = np.dtype([
    # time: seconds to the end; elapsed part of the window (0 before it starts); phase indexes records.PHASES
    ("now_ns", "<i8"), ("wall_s", "<f8"), ("tau_s", "<f8"), ("elapsed", "<f8"), ("duration_s", "<f8"), ("running", "<i8"), ("phase", "<i8"),
    # the others' book: best prices (0 when empty), shares at the best and in all visible levels, micro-prices of 1 and of micro_levels levels
    ("tick_e4", "<i8"), ("bid_e4", "<i8"), ("ask_e4", "<i8"), ("bid_size", "<f8"), ("ask_size", "<f8"), ("bid_depth", "<f8"), ("ask_depth", "<f8"),
    ("mid", "<f8"), ("spread", "<f8"), ("micro", "<f8"), ("micro_n", "<f8"), ("liquidity", "<f8"), ("min_size_u6", "<i8"),
    # Bitcoin: ln of level now and of the strike; variance and drift per second of ln price; short and baseline volatility per square root of a second
    ("ln_level", "<f8"), ("ln_strike", "<f8"), ("has_strike", "<i8"), ("var_s", "<f8"), ("drift_s", "<f8"), ("sigma_short", "<f8"), ("sigma_long", "<f8"),
    ("fast_move", "<f8"), ("ret_anchor", "<f8"), ("ret_window", "<f8"), ("ema_gap", "<f8"), ("std", "<f8"), ("momentum", "<f8"), ("regime", "<i8"),
    ("leader", "<i8"), ("lead_ms", "<f8"), ("lead_confidence", "<f8"),
    # fair value of Up: model, blend with the market; change of it per ln price, per ln price squared, per second, per sigma; dollars per square root of a second
    ("p_model", "<f8"), ("fair", "<f8"), ("delta", "<f8"), ("gamma", "<f8"), ("theta", "<f8"), ("vega", "<f8"), ("sigma_px", "<f8"),
    # flow: VPIN in 0..1, 1 while own fills count as toxic (a run of toxic_run on one side), mean markout of own fills after 5 s (dollars a share); pauses: 1 while one
    # lasts, and what began it (|micro - mid| / mid; parts of the threshold); expected price of Up (0: not known) and dislocation against the mid
    ("toxicity", "<f8"), ("toxic", "<i8"), ("markout", "<f8"), ("toxic_run", "<i8"), ("jump", "<i8"), ("jump_size", "<f8"),
    ("spike", "<i8"), ("spike_size", "<f8"), ("p_expected", "<f8"), ("dislocation", "<f8"),
    # what we hold: shares, cost, what may be sold, trades that may still fail; money and room for loss left by the other windows; size to quote
    ("qty_up_u6", "<i8"), ("qty_down_u6", "<i8"), ("imbalance_u6", "<i8"), ("cost_u6", "<i8"), ("sellable_up_u6", "<i8"), ("sellable_down_u6", "<i8"),
    ("reserve_up_u6", "<i8"), ("reserve_down_u6", "<i8"), ("cash_u6", "<i8"), ("room_u6", "<i8"), ("bankroll_u6", "<i8"),
    ("base_size_u6", "<i8"), ("size_scale", "<f8"),
    # fees of this market: fee = shares * rate * (p (1 - p)) ** exponent, takers only
    ("fee_rate", "<f8"), ("fee_exponent", "<f8"),
    # cost of what is held by side, whether the venue takes orders that take; average round trip of the market channel's PINGs (0: not known)
    ("cost_up_u6", "<i8"), ("cost_down_u6", "<i8"), ("may_take", "<i8"), ("rtt_ns", "<i8"),
    # solution of the linear programme: how far under and over fair the bid and the ask lie, when it was solved (0: there is none)
    ("programme_bid", "<f8"), ("programme_ask", "<f8"), ("programme_ns", "<i8"),
    # ages of the inputs
    ("age_market_ns", "<i8"), ("age_oracle_ns", "<i8"), ("age_spot_ns", "<i8"),
])

MEMORY = np.dtype([
    ("held_up_e4", "<i8"), ("held_down_e4", "<i8"), ("slack_on", "<i8"),        # pair: prices held against noise
    ("side", "<i8"), ("since_ns", "<i8"), ("paused_until_ns", "<i8"),           # reversion: sign of the signal it follows, age of its price, pause after a flip
    ("took_ns", "<i8"),                                                          # completion and takers: when the last one was asked for ...
    ("took_imbalance_u6", "<i8"), ("took_px_e4", "<i8"), ("took_size_u6", "<i8"), ("took_what", "<i8"),    # ... holding what, and what was asked
])

#: Buys wanted, [token][level], a size of 0 is none; one order to take (``take_size_u6`` 0: none); why, for the record; and the quotes that `route` makes of it.
DRAFT = np.dtype([
    ("px_e4", "<i8", (2, MAX_LEVELS)), ("size_u6", "<i8", (2, MAX_LEVELS)),
    ("take_token", "<i8"), ("take_side", "<i8"), ("take_kind", "<i8"), ("take_px_e4", "<i8"), ("take_size_u6", "<i8"),
    ("gates", "<i8"), ("worst_u6", "<i8"), ("why", r.WHY), ("quote", r.QUOTE, (r.MAX_QUOTES,)),
])
VIEW_T, MEMORY_T, DRAFT_T, PARAMS_T, WHY_T = (from_dtype(d) for d in (VIEW, MEMORY, DRAFT, r.PARAMS, r.WHY))
