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

# venue modes: what the venue as a whole lets us do now (ACCOUNT.venue_mode)
VENUE_MODES = (
    "normal", "restarting", "post_only", "cancel_only", "disabled", "geoblocked", "closed_only", "banned", "unauthorized", "rate_limited",
    "slow", "unreachable",
)
VENUE_MODE = {name: i for i, name in enumerate(VENUE_MODES)}
# why the executor wants no orders (bits of ACCOUNT.halts)
HALTS = (
    "starting", "user_channel", "guard", "guard_silent", "journal", "stopping", "venue_mode", "difference", "error_rate", "loss", "unknown_order",
)
HALT_BIT = {name: 1 << i for i, name in enumerate(HALTS)}

# where an input of the core's step came from
SRC_TIMER, SRC_MARKET, SRC_ORACLE, SRC_SPOT, SRC_MARKETS, SRC_ACCOUNT, SRC_GUARD, SRC_PARAMS, SRC_OWN = 0, 1, 2, 3, 4, 5, 6, 7, 8

# gate bitmap of a decision: a set bit says why (part of) the quotes of a market are absent (oracle_disagree only warns)
GATES = (
    "no_market", "not_open", "cutoff", "no_strike", "stale_market", "stale_oracle", "stale_spot", "suspect_book",
    "empty_book", "account_not_ready", "guard", "exposure_cap", "severe_skew", "size_below_min", "price_out_of_range",
    "pair_cap", "no_params", "warming", "executor_halt", "frozen_market", "spot_disagree", "oracle_disagree",
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
MARKET = _record("MARKET", [
    ("kind", _I), ("market_id", _I), ("slot", _I), ("token", _I),
    ("t_exch_ns", _I), ("t_recv_ns", _I), ("t_pub_ns", _I), ("tick_e4", _I),
    ("n_bid", _I), ("n_ask", _I), ("flags", _I), ("frame", _I),
    ("trade_px_e4", _I), ("trade_size_u6", _I), ("trade_side", _I), ("last_trade_px_e4", _I),
    ("bid_px_e4", _I, (TOP_N,)), ("bid_size_u6", _I, (TOP_N,)),
    ("ask_px_e4", _I, (TOP_N,)), ("ask_size_u6", _I, (TOP_N,)),
], 288)

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

#: One desired quote.
QUOTE = _record("QUOTE", [("token", _I), ("level", _I), ("side", _I), ("px_e4", _I), ("size_u6", _I)], 40)

#: Desired quotes of one market: the latest value is the whole truth; past ``deadline_ns`` it means "no quotes".
#: ``changed_ns`` is the t_decide_ns of the last decision whose quotes differ from the one before (a refresh keeps it).
TARGET = _record("TARGET", [
    ("market_id", _I), ("slot", _I), ("decision", _I), ("params_version", _I), ("gates", _I), ("cause_src", _I),
    ("t_exch_ns", _I), ("t_recv_ns", _I), ("t_pub_ns", _I), ("t_poll_ns", _I), ("t_decide_ns", _I),
    ("changed_ns", _I), ("deadline_ns", _I),
    ("q_up", _F), ("target_total", _F), ("sigma", _F), ("mid_up", _F), ("size_scale", _F),
    ("n_quotes", _I), ("quote", QUOTE, (MAX_QUOTES,)),
], 19 * 8 + 8 * 40)

#: One market's inventory as the executor knows it. ``qty`` shares booked (MATCHED or better) = matched + mined + confirmed, each share in
#: exactly one of the three; ``failed`` shares taken back so far; ``sellable`` what the venue's balance says can be sold (-1: not asked);
#: ``pending`` booked shares that are not CONFIRMED (matched + mined), sales negative; ``open`` what may still fill by bids. ``reserve_up``,
#: ``reserve_down`` how much worse than booked the result is if Up, Down comes and those trades fail that were welcome. ``worst_u6``
#: dollars that can still be lost, the greatest over both outcomes, over every set of trades that are not final failing, and over every set of
#: orders filling that is not provably over (resting, under way, of unknown fate, cancel in flight).
POSITION = _record("POSITION", [
    ("market_id", _I), ("qty_up_u6", _I), ("qty_down_u6", _I), ("cost_up_u6", _I), ("cost_down_u6", _I),
    ("pending_up_u6", _I), ("pending_down_u6", _I), ("mined_up_u6", _I), ("mined_down_u6", _I),
    ("confirmed_up_u6", _I), ("confirmed_down_u6", _I), ("failed_up_u6", _I), ("failed_down_u6", _I),
    ("sellable_up_u6", _I), ("sellable_down_u6", _I), ("open_up_u6", _I), ("open_down_u6", _I),
    ("live_orders", _I), ("worst_u6", _I), ("realized_u6", _I), ("reserve_up_u6", _I), ("reserve_down_u6", _I),
], 176)

#: The account as the executor knows it. ``halts`` HALT_BIT bits, 0 when orders may be wanted; ``venue_mode`` VENUE_MODE code and until when
#: it was announced to last (0: unknown); ``tier`` index of the venue's rate tier (-1: not seen); ``user_deaf`` grows each time the venue
#: acknowledged what the user channel never showed (the feed then connects anew); ``difference_since_ns`` since when our books and the venue's
#: differ without an explanation (0: they agree); ``reversed`` fills that failed at settlement.
ACCOUNT = _record("ACCOUNT", [
    ("t_update_ns", _I), ("state", _I), ("halts", _I), ("user_ok", _I), ("cash_u6", _I), ("reserved_u6", _I),
    ("exposure_u6", _I), ("realized_u6", _I), ("live_orders", _I), ("orders", _I), ("cancels", _I), ("fills", _I),
    ("rejects", _I), ("unknown", _I), ("volume_u6", _I), ("fees_u6", _I),
    ("venue_mode", _I), ("venue_mode_until_ns", _I), ("tier", _I), ("order_tokens", _I), ("cancel_tokens", _I),
    ("user_deaf", _I), ("difference_since_ns", _I), ("reversed", _I),
    ("position", POSITION, (MARKET_SLOTS,)),
], 192 + 8 * 176)

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

#: The guardian's word: may we quote, and if not why.
GUARD = _record("GUARD", [
    ("t_update_ns", _I), ("quoting_allowed", _I), ("reasons", _I), ("beat", _I), ("last_beat_ns", _I), ("panics", _I),
    ("last_panic_ns", _I), ("last_flat_ns", _I),
], 64)

#: Strategy parameters as one versioned block; field names are the keys of the [strategy] table of the config.
PARAMS = _record("PARAMS", [
    ("version", _I), ("t_update_ns", _I),
    ("target_total", _F), ("target_total_min", _F), ("target_total_max", _F),
    ("levels", _I), ("level_step_ticks", _I), ("base_size_u6", _I), ("next_size_u6", _I), ("size_decay", _F),
    ("model_weight", _F), ("skew_per_share", _F), ("skew_max", _F), ("severe_imbalance_u6", _I), ("max_imbalance_u6", _I),
    ("max_exposure_u6", _I), ("cutoff_s", _F), ("next_lead_s", _F),
    ("stale_market_ns", _I), ("stale_oracle_ns", _I), ("stale_spot_ns", _I), ("stale_spot_scale", _F),
    ("half_life_var_s", _F), ("half_life_drift_s", _F), ("drift_clamp", _F), ("var_ref", _F), ("var_floor", _F),
    ("k_vol", _F), ("k_spread", _F), ("k_time", _F), ("k_fast", _F), ("fast_move", _F),
    ("target_ttl_ns", _I), ("refresh_ns", _I), ("warmup_ns", _I),
    ("witness_oracle_ns", _I), ("witness_move", _F), ("spot_disagree", _F), ("oracle_disagree", _F),
], 39 * 8)

LAYOUT_HASH = hashlib.sha256(
    repr((ABI, MARKET_SLOTS, TOP_N, MAX_QUOTES, MAX_OWN, BOUNDARIES, GATES, GUARD_REASONS, VENUE_MODES, HALTS,
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
