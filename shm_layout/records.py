"""What is in memory: every record that crosses a process border, as numpy dtypes.

Owns: field names, order, sizes and offsets; the constants that name codes inside records; LAYOUT_HASH.
Writes: nobody. This module is data. Reads: everybody.
Can go wrong: two builds that disagree. LAYOUT_HASH is part of every segment name, every segment header and the
compiled-code cache path, so they cannot meet.

Rules, asserted below at import: every field is a signed 64-bit integer or a 64-bit float (or a fixed array or record of
those), so every field is 8-aligned, no record has padding, and no word can tear.

Units are the last part of a name: ``_ns`` nanoseconds, ``_s`` seconds, ``_e4`` price in 1e-4, ``_u6`` shares or dollars in
1e-6 (as on chain), ``_e18`` 1e-18. A plain float64 price is dollars. Stamps ``t_*_ns`` are CLOCK_MONOTONIC, except
``t_exch_ns`` which is the venue's own wall clock.
"""

import hashlib

import numpy as np

ABI = 1
CACHE_LINE = 64
MARKET_SLOTS = 8          # 4 windows of 15 minutes (slots 0-3), 4 windows of 5 minutes (slots 4-7)
TOP_N = 5                 # levels per side in a market record
MAX_QUOTES = 8            # 2 outcomes x 4 ladder levels
MAX_OWN = 16              # prices of one window at which own orders may rest: each quote and what it replaces
BOUNDARIES = 16           # remembered TWAP prints at window boundaries, one per 300 s
ID_WORDS = 4              # a 256-bit id (token, condition, order digest): 4 x 64 bits, most significant first
UUID_WORDS = 2

# outcome / token index: the Up token is always 0, the Down token always 1
UP, DOWN, NO_OUTCOME = 0, 1, -1
# side of an order
BUY, SELL = 0, 1
# kind of a desired quote: rests and never takes; takes what it can now and is over (FAK); takes all of it now or nothing (FOK)
QK_POST_ONLY, QK_FAK, QK_FOK = 0, 1, 2

# md.market kinds
# (MK_VERIFIED: nothing changed, but other evidence than a frame shows that the book is still the venue's)
MK_BOOK, MK_TRADE, MK_SUSPECT, MK_RESOLVED, MK_VERIFIED = 1, 2, 3, 4, 5
# md.market flags (bits)
MF_SUSPECT, MF_CROSSED, MF_GENERATED, MF_FROZEN = 1, 2, 4, 8
# md.oracle kinds and sources
# (OK_RELAY: the relay's copy of the Binance price, a last resort; not a Chainlink print)
OK_SPOT, OK_TWAP60, OK_BOUNDARY, OK_RELAY = 1, 2, 3, 4
OS_RTDS, OS_POLYBOLT = 1, 2
# spot kinds and venues
SK_BBO, SK_TRADE, SK_TICKER = 1, 2, 3
SV_BINANCE, SV_COINBASE, SV_BYBIT = 1, 2, 3
# user kinds (UK_ACTIVITY: a fill of our wallet on the public activity stream, without order id; evidence, never booked)
UK_ORDER, UK_TRADE, UK_CONNECTED, UK_DISCONNECTED, UK_ACTIVITY = 1, 2, 3, 4, 5
# user order types (UK_ORDER)
UT_PLACEMENT, UT_UPDATE, UT_CANCELLATION = 1, 2, 3
# order status
ST_LIVE, ST_MATCHED, ST_DELAYED, ST_UNMATCHED, ST_CANCELED, ST_INVALID = 1, 2, 3, 4, 5, 6
# trade status
TS_MATCHED, TS_MINED, TS_CONFIRMED, TS_RETRYING, TS_FAILED = 11, 12, 13, 14, 15
# role in a trade
MAKER, TAKER = 0, 1
# market states
MS_EMPTY, MS_ANNOUNCED, MS_OPEN, MS_CLOSED, MS_RESOLVED = 0, 1, 2, 3, 4
# bits of a window's strike check: our print at its start (end) is the venue's, or is not
SC_START_OK, SC_START_BAD, SC_END_OK, SC_END_BAD = 1, 2, 4, 8
# account states
AS_BOOT, AS_RECONCILING, AS_READY, AS_HALTED = 0, 1, 2, 3
# order event kinds
# (OE_LATE: acknowledged after its deadline, cancelled at once; OE_REVERSED: a fill that failed at settlement; OE_REPOSTED: same bytes sent again)
OE_SENT, OE_LIVE, OE_REJECTED, OE_CANCEL_SENT, OE_CANCELED, OE_FILL, OE_UNKNOWN, OE_ADOPTED, OE_LATE, OE_REVERSED, OE_REPOSTED = range(1, 12)

# settlement kinds and states (a state only rises; failed and confirmed are final)
SK_MERGE, SK_REDEEM = 1, 2
SS_WANTED, SS_SUBMITTED, SS_MINED, SS_FAILED, SS_CONFIRMED = 1, 2, 3, 4, 5
# why an operation of the settler is in its state (SETTLEMENT.reason)
SETTLEMENT_REASONS = (
    "", "never_sent", "refused", "reverted", "expired", "nonce_taken", "paid_wrong", "paid_nothing", "elsewhere", "no_answer", "busy", "slow",
)
SETTLEMENT_REASON = {name: i for i, name in enumerate(SETTLEMENT_REASONS)}

# venue modes: what the venue as a whole lets us do now (ACCOUNT.venue_mode)
VENUE_MODES = (
    "normal", "restarting", "post_only", "cancel_only", "disabled", "geoblocked", "closed_only", "banned", "unauthorized", "rate_limited",
    "slow", "unreachable",
)
VENUE_MODE = {name: i for i, name in enumerate(VENUE_MODES)}
# why the executor wants no orders (bits of ACCOUNT.halts)
HALTS = (
    "starting", "user_channel", "guard", "guard_silent", "journal", "stopping", "venue_mode", "difference", "error_rate", "loss", "unknown_order",
    "dry_run",
)
HALT_BIT = {name: 1 << i for i, name in enumerate(HALTS)}

# where an input of the core's step came from
SRC_TIMER, SRC_MARKET, SRC_ORACLE, SRC_SPOT, SRC_MARKETS, SRC_ACCOUNT, SRC_GUARD, SRC_PARAMS, SRC_OWN, SRC_PROGRAMME = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9

# what a decision was made by and in which circumstances (PARAMS.strategy, PARAMS.model.pricer, WHY.*)
STRATEGIES = ("pair", "tiered", "avellaneda", "reversion", "programme")
PRICERS = ("twap", "spot", "binary")
BLENDS = ("linear", "logit")
REGIMES = ("unknown", "trending", "mean_reverting", "volatile")
PHASES = ("ahead", "open", "mid", "late", "final")
ACTIONS = ("both", "widen", "bid_only", "ask_only", "pull")

# what a solution of the linear programme is (PROGRAMME.status): none yet; fresh; the last good one, since the newest attempt failed
PROGRAMME_STATUSES = ("none", "solved", "failed", "bad_params")

# gate bitmap of a decision: a set bit says why (part of) the quotes of a market are absent (oracle_disagree only warns)
GATES = (
    "no_market", "not_open", "cutoff", "no_strike", "stale_market", "stale_oracle", "stale_spot", "suspect_book",
    "empty_book", "account_not_ready", "guard", "exposure_cap", "severe_skew", "size_below_min", "price_out_of_range",
    "pair_cap", "no_params", "warming", "executor_halt", "frozen_market", "spot_disagree", "oracle_disagree",
    "latency", "market_cap", "side_cap",
    "action", "divergence", "signal_flip",
    "price_jump", "vol_spike", "toxic_flow", "gamma_danger",
)
GATE = {name: 1 << i for i, name in enumerate(GATES)}

# guard reasons (bits): which process the guardian found unsound, or what the venue said
GUARD_REASONS = (
    "core", "executor", "feed_market", "feed_user", "feed_oracle", "discovery", "heartbeat_refused", "venue_unreachable",
    "geoblock", "operator", "start", "clock_skew", "closed_only",
)
GUARD_BIT = {name: 1 << i for i, name in enumerate(GUARD_REASONS)}

_I, _F = "<i8", "<f8"
_REGISTRY: dict[str, np.dtype] = {}


def _leaf_ok(dt: np.dtype) -> bool:
    if dt.subdtype is not None:
        return _leaf_ok(dt.subdtype[0])
    if dt.fields:
        return all(_leaf_ok(f[0]) for f in dt.fields.values())
    return dt in (np.dtype(_I), np.dtype(_F))


def _record(name: str, fields: list, size: int) -> np.dtype:
    """Declare a record; ``size`` in bytes is written out by hand and asserted, so a change of layout is a visible change."""
    dt = np.dtype(fields)
    assert _leaf_ok(dt), f"{name}: only int64 and float64 fields"
    offset = 0
    for field in dt.names:
        sub, at = dt.fields[field][:2]
        assert at == offset, f"{name}.{field}: padding before it"
        assert at % 8 == 0, f"{name}.{field}: not 8-aligned"
        offset += sub.itemsize
    assert dt.itemsize == offset == size, f"{name}: {dt.itemsize} bytes, declared {size}"
    _REGISTRY[name] = dt
    return dt


#: One market record: the absolute top of the merged book of a condition, in Up terms (a Down bid at p is an Up ask at 1-p).
#: Best level first. Absolute, so a lapped reader resumes at the head and has lost nothing but time.
#: ``rtt_ns``: average round trip of the PINGs of the fastest socket of the channel, 0 while none was answered.
MARKET = _record("MARKET", [
    ("kind", _I), ("market_id", _I), ("slot", _I), ("token", _I),
    ("t_exch_ns", _I), ("t_recv_ns", _I), ("t_pub_ns", _I), ("tick_e4", _I),
    ("n_bid", _I), ("n_ask", _I), ("flags", _I), ("frame", _I),
    ("trade_px_e4", _I), ("trade_size_u6", _I), ("trade_side", _I), ("last_trade_px_e4", _I),
    ("bid_px_e4", _I, (TOP_N,)), ("bid_size_u6", _I, (TOP_N,)),
    ("ask_px_e4", _I, (TOP_N,)), ("ask_size_u6", _I, (TOP_N,)), ("rtt_ns", _I),
], 296)

#: One Chainlink print. ``px`` is for signals; the exact value is px_units + px_frac_e18 * 1e-18 (outcomes use only that).
ORACLE = _record("ORACLE", [
    ("kind", _I), ("source", _I), ("t_obs_ms", _I), ("t_exch_ns", _I), ("t_recv_ns", _I), ("t_pub_ns", _I),
    ("px", _F), ("px_units", _I), ("px_frac_e18", _I), ("trusted", _I),
], 80)

#: One print of a spot venue. BBO: bid, ask and quantities; TRADE: px, qty, side of the aggressor; TICKER: px last price, qty volume of 24 h.
SPOT = _record("SPOT", [
    ("kind", _I), ("venue", _I), ("t_exch_ns", _I), ("t_recv_ns", _I), ("t_pub_ns", _I), ("update_id", _I),
    ("bid", _F), ("bid_qty", _F), ("ask", _F), ("ask_qty", _F), ("px", _F), ("qty", _F), ("side", _I), ("flags", _I),
], 112)

#: One event of the user channel about one own order: an order event, or one own leg of a trade (maker or taker).
USER = _record("USER", [
    ("kind", _I), ("t_exch_ns", _I), ("t_recv_ns", _I), ("t_pub_ns", _I),
    ("market_id", _I), ("token", _I), ("side", _I), ("role", _I), ("type", _I), ("status", _I),
    ("px_u6", _I), ("size_u6", _I), ("matched_u6", _I), ("connection", _I),
    ("order_id", _I, (ID_WORDS,)), ("trade_id", _I, (UUID_WORDS,)), ("token_id", _I, (ID_WORDS,)), ("condition_id", _I, (ID_WORDS,)),
], 224)

#: What discovery knows about one window. ``strike_check``: bits SC_*, what the venue said after the end about our prints at its two ends.
MARKET_INFO = _record("MARKET_INFO", [
    ("market_id", _I), ("slot", _I), ("start_s", _I), ("end_s", _I), ("duration_s", _I), ("state", _I), ("accepting", _I),
    ("tick_e4", _I), ("min_size_u6", _I), ("fee_rate_e6", _I), ("fee_exponent", _I), ("version", _I), ("neg_risk", _I),
    ("taker_delayed", _I), ("outcome", _I), ("strike_check", _I), ("t_update_ns", _I),
    ("token_up", _I, (ID_WORDS,)), ("token_down", _I, (ID_WORDS,)), ("condition_id", _I, (ID_WORDS,)),
], 232)

#: The market table: one row per slot (`slot_of`).
MARKETS = _record("MARKETS", [("version", _I), ("t_update_ns", _I), ("row", MARKET_INFO, (MARKET_SLOTS,))], 16 + 8 * 232)

#: The oracle's memory: newest spot and TWAP print, and the TWAP prints stamped exactly on a 300 s boundary.
ORACLE_STATE = _record("ORACLE_STATE", [("spot", ORACLE), ("twap60", ORACLE), ("boundary", ORACLE, (BOUNDARIES,))], 80 * 18)

#: One desired quote. ``px_e4`` is the price of a post-only quote and the worst price of a taking one; ``size_u6`` shares, of a taking BUY dollars.
QUOTE = _record("QUOTE", [("token", _I), ("level", _I), ("side", _I), ("kind", _I), ("px_e4", _I), ("size_u6", _I)], 48)

#: Why a decision is as it is: what it saw and each part of its prices, written by the branch that ran. Prices and spreads in dollars of Up.
#: ``gate`` is the first gate that closed (an index into GATES, -1: none), ``gate_input`` what it judged and ``gate_limit`` against what; ``halts`` (HALT_BIT)
#: and ``guard_reasons`` (GUARD_BIT) what executor and guardian had said by then.
WHY = _record("WHY", [
    ("strategy", _I), ("pricer", _I), ("phase", _I), ("regime", _I), ("action", _I), ("leader", _I),
    ("gate", _I), ("gate_input", _F), ("gate_limit", _F),
    ("tau_s", _F), ("ln_level", _F), ("ln_strike", _F), ("var_s", _F), ("p_model", _F), ("mid", _F), ("micro", _F), ("fair", _F),
    ("bid_e4", _I), ("ask_e4", _I), ("tick_e4", _I),
    ("reservation", _F), ("skew_inventory", _F), ("skew_momentum", _F), ("gamma", _F), ("spread", _F),
    ("f_time", _F), ("f_regime", _F), ("f_toxicity", _F), ("f_vol", _F), ("f_phase", _F),
    ("dislocation", _F), ("toxicity", _F), ("momentum", _F), ("imbalance_u6", _I), ("worst_u6", _I), ("room_u6", _I), ("cash_u6", _I),
    ("age_market_ns", _I), ("age_oracle_ns", _I), ("age_spot_ns", _I), ("halts", _I), ("guard_reasons", _I),
], 42 * 8)

#: Desired quotes of one market: the latest value is the whole truth; past ``deadline_ns`` it means "no quotes".
#: ``changed_ns`` is the t_decide_ns of the last decision whose quotes differ from the one before (a refresh keeps it).
TARGET = _record("TARGET", [
    ("market_id", _I), ("slot", _I), ("decision", _I), ("params_version", _I), ("gates", _I), ("cause_src", _I),
    ("t_exch_ns", _I), ("t_recv_ns", _I), ("t_pub_ns", _I), ("t_poll_ns", _I), ("t_decide_ns", _I),
    ("changed_ns", _I), ("deadline_ns", _I),
    ("q_up", _F), ("target_total", _F), ("sigma", _F), ("sigma_px", _F), ("mid_up", _F), ("size_scale", _F),
    ("why", WHY), ("n_quotes", _I), ("quote", QUOTE, (MAX_QUOTES,)),
], 20 * 8 + WHY.itemsize + 8 * QUOTE.itemsize)

#: One market's inventory as the executor knows it. ``qty`` shares booked (MATCHED or better) = matched + mined + confirmed, each share in
#: exactly one of the three; ``failed`` shares taken back so far; ``sellable`` what the venue's balance says can be sold (-1: not asked);
#: ``pending`` booked shares that are not CONFIRMED (matched + mined), sales negative; ``open`` what may still fill by bids. ``reserve_up``,
#: ``reserve_down`` how much worse than booked the result is if Up, Down comes and those trades fail that were welcome. ``worst_u6``
#: dollars that can still be lost, the greatest over both outcomes, over every set of trades that are not final failing, and over every set of
#: orders filling that is not provably over (resting, under way, of unknown fate, cancel in flight). ``fills``: how many own legs of trades are booked.
POSITION = _record("POSITION", [
    ("market_id", _I), ("qty_up_u6", _I), ("qty_down_u6", _I), ("cost_up_u6", _I), ("cost_down_u6", _I),
    ("pending_up_u6", _I), ("pending_down_u6", _I), ("mined_up_u6", _I), ("mined_down_u6", _I),
    ("confirmed_up_u6", _I), ("confirmed_down_u6", _I), ("failed_up_u6", _I), ("failed_down_u6", _I),
    ("sellable_up_u6", _I), ("sellable_down_u6", _I), ("open_up_u6", _I), ("open_down_u6", _I),
    ("live_orders", _I), ("worst_u6", _I), ("realized_u6", _I), ("reserve_up_u6", _I), ("reserve_down_u6", _I), ("fills_up", _I), ("fills_down", _I),
], 192)

#: The account as the executor knows it. ``halts`` HALT_BIT bits, 0 when orders may be wanted; ``venue_mode`` VENUE_MODE code and until when
#: it was announced to last (0: unknown); ``tier`` index of the venue's rate tier (-1: not seen); ``user_deaf`` grows each time the venue
#: acknowledged what the user channel never showed (the feed then connects anew); ``difference_since_ns`` since when our books and the venue's
#: differ without an explanation (0: they agree); ``reversed`` fills that failed at settlement; ``spread``, ``adverse`` parts of the result and ``rebate``
#: the most that the venue may pay back on maker fills (`mmbot.inventory.pnl`); ``scoring`` own orders that earn liquidity rewards (-1: not asked);
#: ``late`` orders that reached the venue past their deadline, ``late_u6`` what their fills came to against the mid 5 s later, less fees.
ACCOUNT = _record("ACCOUNT", [
    ("t_update_ns", _I), ("state", _I), ("halts", _I), ("user_ok", _I), ("cash_u6", _I), ("reserved_u6", _I),
    ("exposure_u6", _I), ("realized_u6", _I), ("live_orders", _I), ("orders", _I), ("cancels", _I), ("fills", _I),
    ("rejects", _I), ("unknown", _I), ("volume_u6", _I), ("fees_u6", _I),
    ("venue_mode", _I), ("venue_mode_until_ns", _I), ("tier", _I), ("order_tokens", _I), ("cancel_tokens", _I),
    ("user_deaf", _I), ("difference_since_ns", _I), ("reversed", _I), ("spread_u6", _I), ("adverse_u6", _I), ("rebate_u6", _I),
    ("scoring", _I), ("late", _I), ("late_u6", _I), ("position", POSITION, (MARKET_SLOTS,)),
], 240 + 8 * 192)

#: Solution of the linear programme for one window: how far the bid lies under the fair value of Up and the ask over it (dollars of Up),
#: and the base spread it was solved with. ``t_ns`` is when it was solved last, kept when a later attempt fails; ``period_ns`` the time between attempts.
PROGRAMME = _record("PROGRAMME", [
    ("market_id", _I), ("slot", _I), ("t_ns", _I), ("status", _I), ("params_version", _I), ("period_ns", _I),
    ("bid_offset", _F), ("ask_offset", _F), ("base_spread", _F), ("inventory", _F), ("cost", _F), ("failures", _I),
], 12 * 8)

#: All own orders of one window at one price of one token and side. ``size_u6`` is what may still rest,
#: ``t_sent_ns`` when the newest of them was sent.
OWN_ORDER = _record("OWN_ORDER", [("token", _I), ("side", _I), ("px_e4", _I), ("size_u6", _I), ("t_sent_ns", _I)], 40)

#: Everything of ours that may rest in one window's book: orders under way and cancels not confirmed included. The rest of ``order`` is 0.
OWN = _record("OWN", [
    ("market_id", _I), ("slot", _I), ("n", _I), ("t_update_ns", _I), ("order", OWN_ORDER, (MAX_OWN,)),
], 32 + 16 * 40)

#: One step in the life of an own order, with the stamps of what caused it.
ORDER_EVENT = _record("ORDER_EVENT", [
    ("kind", _I), ("t_ns", _I), ("market_id", _I), ("token", _I), ("side", _I), ("level", _I), ("px_e4", _I), ("size_u6", _I),
    ("filled_u6", _I), ("status", _I), ("reason", _I), ("http_status", _I), ("pooled", _I), ("params_version", _I), ("deadline_ns", _I),
    ("t_exch_ns", _I), ("t_recv_ns", _I), ("t_pub_ns", _I), ("t_poll_ns", _I), ("t_decide_ns", _I), ("t_wake_ns", _I),
    ("t_send_ns", _I), ("t_ack_ns", _I),
    ("order_id", _I, (ID_WORDS,)), ("trade_id", _I, (UUID_WORDS,)),
], 232)

#: One step in the life of an operation of the settler: ``number`` names it for ever. ``amount_u6``: sets to merge, or winning shares to redeem;
#: ``up_u6``, ``down_u6`` shares that leave the wallet by it; ``payout_u6`` dollars that must come for them, and when confirmed have come (0 with
#: reason "elsewhere": somebody else has redeemed). ``pnl_u6``: payout less the average cost of these shares, ``outcome`` of a redeemed window.
#: ``tx``: transaction hash once known, ``relayer``: id the relayer gave. ``merged_u6`` .. ``failed``: totals since the journal began.
SETTLEMENT = _record("SETTLEMENT", [
    ("kind", _I), ("state", _I), ("number", _I), ("market_id", _I), ("amount_u6", _I), ("up_u6", _I), ("down_u6", _I), ("payout_u6", _I),
    ("pnl_u6", _I), ("outcome", _I), ("reason", _I), ("t_ns", _I), ("wall_ms", _I), ("merged_u6", _I), ("redeemed_u6", _I), ("merges", _I),
    ("redeems", _I), ("failed", _I), ("tx", _I, (ID_WORDS,)), ("relayer", _I, (UUID_WORDS,)),
], 192)

#: The guardian's word: may we quote, and if not why.
GUARD = _record("GUARD", [
    ("t_update_ns", _I), ("quoting_allowed", _I), ("reasons", _I), ("beat", _I), ("last_beat_ns", _I), ("panics", _I),
    ("last_panic_ns", _I), ("last_flat_ns", _I),
], 64)

#: Fair value and volatility ([strategy.model]). ``pricer`` indexes PRICERS, ``blend`` BLENDS. Times in seconds, variances per second of ln price.
MODEL_PARAMS = _record("MODEL_PARAMS", [
    ("pricer", _I), ("blend", _I), ("half_life_short_s", _F), ("half_life_long_s", _F), ("long_weight", _F), ("tail_dof", _I), ("implied_vol", _F),
    ("twap_lag_s", _I), ("twap_noise", _F), ("oracle_noise_s", _F), ("print_lag_ms", _I), ("half_life_basis_s", _F),
], 12 * 8)

#: Signals that every strategy may look at ([strategy.signals]).
SIGNAL_PARAMS = _record("SIGNAL_PARAMS", [
    ("ema_fast_s", _F), ("ema_slow_s", _F), ("std_window_s", _F), ("anchor_s", _F), ("micro_levels", _I),
    ("jump_threshold", _F), ("jump_pause_ns", _I), ("spike_move", _F), ("spike_ratio", _F), ("spike_pause_ns", _I),
    ("trend_ratio", _F), ("revert_ratio", _F), ("volatile_ratio", _F),
    ("vpin_bucket_u6", _I), ("vpin_buckets", _I), ("toxic_vpin", _F), ("toxic_fills", _I), ("toxic_window_ns", _I), ("toxic_for_ns", _I),
    ("mid_at", _F), ("late_at", _F), ("final_s", _F), ("gamma_danger", _F), ("momentum_s", _F), ("momentum_scale", _F),
], 25 * 8)

#: The tiered strategy ([strategy.tiered]). Spreads in dollars, sizes in 1e-6 shares.
TIERS = 4
assert (len(REGIMES), len(PHASES)) == (4, 5)
TIERED_PARAMS = _record("TIERED_PARAMS", [
    ("base_spread", _F), ("min_spread", _F), ("max_spread", _F), ("inventory_skew", _F), ("momentum_skew", _F),
    ("max_position_u6", _I), ("max_imbalance_u6", _I), ("tier_size_u6", _I, (TIERS,)), ("tier_spread", _F, (TIERS,)),
    ("widen_toxicity", _F), ("medium_toxicity", _F), ("extreme_toxicity", _F), ("widen_factor", _F), ("one_sided_momentum", _F),
    ("time_cap", _F), ("regime_factor", _F, (4,)), ("toxicity_weight", _F), ("vol_cap", _F), ("phase_factor", _F, (5,)),
], 32 * 8)

#: The avellaneda strategy ([strategy.avellaneda]). ``form`` 0 target spread, 1 the optimal spread of 2008, 2 the GLFT bounds.
AVELLANEDA_PARAMS = _record("AVELLANEDA_PARAMS", [
    ("form", _I), ("gamma", _F), ("gamma_cap", _F), ("vol_ratio_ref", _F), ("toxic_factor", _F), ("target_spread", _F), ("k", _F), ("a", _F),
    ("unit_u6", _I), ("max_inventory_u6", _I),
], 10 * 8)

#: The reversion strategy ([strategy.reversion]). ``beta``: intercept, 60 s return, window return, EMA gap, rolling std; ``fit_id`` first 48 bits of the fit's hash.
BETAS = 5
REVERSION_PARAMS = _record("REVERSION_PARAMS", [
    ("enter_min", _F), ("enter_spreads", _F), ("exit_min", _F), ("exit_spreads", _F), ("max_legs", _I), ("bankroll_part", _F), ("taking", _I),
    ("max_pay_slippage", _F), ("replace_ns", _I), ("divergence", _F), ("flip_pause_ns", _I), ("fit_id", _I), ("beta", _F, (BETAS,)),
], 17 * 8)

#: The programme strategy ([strategy.programme]): weights of the linear programme, its frequency and what holds without a solution.
PROGRAMME_PARAMS = _record("PROGRAMME_PARAMS", [
    ("alpha", _F), ("beta", _F), ("gamma", _F), ("delta", _F), ("zeta", _F), ("max_inventory_u6", _I), ("default_spread", _F), ("min_spread", _F),
    ("max_spread", _F), ("slow_ns", _I), ("fast_ns", _I), ("valid_ns", _I),
], 12 * 8)

#: Completion of an unpaired position by taking ([strategy.completion]).
COMPLETION_PARAMS = _record("COMPLETION_PARAMS", [
    ("enabled", _I), ("min_unpaired_u6", _I), ("from_s", _F), ("max_pay", _F), ("max_pay_late", _F), ("risk_aversion", _F), ("all_or_nothing", _I),
    ("pause_ns", _I),
], 8 * 8)

#: Capital and breakers ([strategy.capital]). ``bankroll_u6`` 0: the account's cash and positions at cost.
CAPITAL_PARAMS = _record("CAPITAL_PARAMS", [
    ("bankroll_u6", _I), ("mm_part", _F), ("arb_part", _F), ("reserve_part", _F), ("markets", _I), ("kelly_floor", _F), ("kelly_cap", _F),
    ("side_part", _F), ("max_market_exposure_u6", _I), ("sizing", _I), ("merge_cost", _F), ("sell_cost", _F), ("latency_kill_ns", _I),
    ("latency_resume_ns", _I),
], 14 * 8)

#: Liquidity rewards ([strategy.rewards]): what an order must be to score.
REWARD_PARAMS = _record("REWARD_PARAMS", [("enabled", _I), ("min_size_u6", _I), ("max_spread", _F), ("one_sided", _F)], 4 * 8)

#: Parameters of all windows of one length; field names are the keys of the [strategy] table of the config. ``strategy`` indexes STRATEGIES.
PARAMS = _record("PARAMS", [
    ("strategy", _I),
    ("target_total", _F), ("target_total_min", _F), ("target_total_max", _F),
    ("levels", _I), ("level_step_ticks", _I), ("base_size_u6", _I), ("next_size_u6", _I), ("size_decay", _F),
    ("model_weight", _F), ("skew_per_share", _F), ("skew_max", _F), ("severe_imbalance_u6", _I), ("max_imbalance_u6", _I),
    ("max_exposure_u6", _I), ("cutoff_s", _F), ("next_lead_s", _F),
    ("stale_market_ns", _I), ("stale_oracle_ns", _I), ("stale_spot_ns", _I), ("stale_spot_scale", _F),
    ("half_life_var_s", _F), ("half_life_drift_s", _F), ("drift_clamp", _F), ("var_ref", _F), ("var_floor", _F),
    ("k_vol", _F), ("k_spread", _F), ("k_time", _F), ("k_fast", _F), ("fast_move", _F),
    ("target_ttl_ns", _I), ("refresh_ns", _I), ("warmup_ns", _I),
    ("witness_oracle_ns", _I), ("witness_move", _F), ("spot_disagree", _F), ("oracle_disagree", _F),
    ("model", MODEL_PARAMS), ("signals", SIGNAL_PARAMS), ("tiered", TIERED_PARAMS), ("avellaneda", AVELLANEDA_PARAMS),
    ("reversion", REVERSION_PARAMS), ("programme", PROGRAMME_PARAMS), ("completion", COMPLETION_PARAMS), ("capital", CAPITAL_PARAMS),
    ("rewards", REWARD_PARAMS),
], 38 * 8 + sum(d.itemsize for d in (MODEL_PARAMS, SIGNAL_PARAMS, TIERED_PARAMS, AVELLANEDA_PARAMS, REVERSION_PARAMS, PROGRAMME_PARAMS, COMPLETION_PARAMS,
                                     CAPITAL_PARAMS, REWARD_PARAMS)))

#: All hot parameters as one versioned block: windows of 15 minutes, of 5. ``version`` is a checksum of every value.
DURATIONS = (900, 300)
PARAMS_BLOCK = _record("PARAMS_BLOCK", [
    ("version", _I), ("t_update_ns", _I), ("changes", _I), ("of", PARAMS, (len(DURATIONS),)),
], 3 * 8 + 2 * PARAMS.itemsize)

LAYOUT_HASH = hashlib.sha256(
    repr((ABI, MARKET_SLOTS, TOP_N, MAX_QUOTES, MAX_OWN, BOUNDARIES, GATES, GUARD_REASONS, VENUE_MODES, HALTS, STRATEGIES, PRICERS, BLENDS, REGIMES, PHASES, ACTIONS,
          PROGRAMME_STATUSES, SETTLEMENT_REASONS,
          sorted((k, v) for k, v in globals().items() if k.isupper() and isinstance(v, int)),
          [(name, dt.descr, dt.itemsize) for name, dt in _REGISTRY.items()])).encode()
).hexdigest()


def market_id(start_s: int, duration_s: int) -> int:
    """Readable number of a window: start second, then its length in minutes (1775028600015 is the 15 minute window)."""
    return start_s * 1000 + duration_s // 60


def window_of(market_id_: int) -> tuple[int, int]:
    """(start_s, duration_s) of a market id."""
    return market_id_ // 1000, market_id_ % 1000 * 60


def slot_of(start_s: int, duration_s: int) -> int:
    """Fixed place of a window in every per-market array: a roll frees the oldest by construction."""
    return start_s // duration_s % 4 + (0 if duration_s == 900 else 4)


def id_words(value: int, words: int = ID_WORDS) -> list[int]:
    """A non-negative integer of words*64 bits as signed 64-bit words, most significant first."""
    out = [(value >> (64 * i)) & 0xFFFFFFFFFFFFFFFF for i in range(words - 1, -1, -1)]
    return [w - (1 << 64) if w >> 63 else w for w in out]


def id_value(words) -> int:
    """The integer whose `id_words` these are."""
    value = 0
    for w in words:
        value = value << 64 | int(w) & 0xFFFFFFFFFFFFFFFF
    return value


def gate_names(bits: int) -> list[str]:
    """Names of the set bits of a gate bitmap."""
    return [name for name, bit in GATE.items() if bits & bit]


def halt_names(bits: int) -> list[str]:
    """Names of the set bits of the executor's halts."""
    return [name for name, bit in HALT_BIT.items() if bits & bit]


def guard_names(bits: int) -> list[str]:
    """Names of the set bits of the guard's reasons."""
    return [name for name, bit in GUARD_BIT.items() if bits & bit]
