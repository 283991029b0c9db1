"""The fault catalogue: every way the exchange can misbehave on demand, by name.

Owns: names, one-line descriptions, parameters with their defaults, and what each fault stands for. Read by `Faults` (which checks names
and parameters against it), the operator's routes and the command line. Effects stand in `requests` (HTTP), `frames` (WebSocket) and
`world` (engine, keys, listings); ``place`` says in which.

Parameters that several faults share:
  p        probability that one request, frame, order or trade is hit
  n        how many are hit at most, 0 for no limit
  paths    which requests: orders, cancels, trading (both), beats, reads (GET), private, clob, gamma, all
  links    which sockets of a channel: one (the oldest that gets a frame), existing (those open when the fault starts: a reconnect heals),
           all (also those that come later)
  markets  all, current, next (not begun yet), a word of the slug (5m, 15m, 1795186800), a slug, or how a condition id begins (0x5a..)
  channels one channel, several joined by "+", or all
Durations are seconds of real time at any speed of the tape, as the protocol's own timers are.
"""

import msgspec

CHANNELS = ("market", "user", "rtds", "polybolt", "binance", "coinbase", "bybit", "activity")

#: values a text parameter may have; a text parameter that is not here is free
CHOICES: dict[str, tuple[str, ...]] = {
    "paths": ("orders", "cancels", "trading", "beats", "reads", "private", "clob", "gamma", "all"),
    "links": ("one", "existing", "all"),
    "token": ("both", "up", "down"),
    "events": ("trade", "order", "all"),
    "listing": ("orders", "trades", "both"),
    "how": ("503", "html", "cut", "hang"),
    "drop": ("abort", "silent"),
    "prints": ("twap", "spot", "both"),
    "then": ("MINED", "FAILED"),
}


class FaultSpec(msgspec.Struct, frozen=True):
    """One entry. ``what`` it does to the world, what a client ``sees``, ``params`` with defaults, where it acts, what it ``stands_for``.

    ``for_s`` is how long it lasts when nobody says otherwise, None for until it is stopped.
    """
    name: str
    place: str
    what: str
    sees: str
    stands_for: str
    params: dict[str, float | int | str | bool] = {}
    for_s: float | None = None


_HTTP = [
    FaultSpec("post_answer_lost", "http", "orders are executed, their answer never leaves", "connection cut after hang_s, order lives",
              "timeout although matched", {"p": 1.0, "n": 0, "hang_s": 0.0}),
    FaultSpec("post_delayed", "http", "orders wait before the engine sees them, also when the client has given up", "late answer or none, "
              "the order rests at a stale price", "no time-to-book guarantee", {"p": 1.0, "n": 0, "delay_s": 3.0}),
    FaultSpec("cancel_lost", "http", "cancels are executed, their answer never leaves", "connection cut after hang_s, order gone",
              "unknown outcome of a cancel", {"p": 1.0, "n": 0, "hang_s": 0.0}),
    FaultSpec("batch_partly_refused", "http", "every second leg of a batch is refused inside HTTP 200", "errorMsg in the leg, orderID empty",
              "batch legs fail one by one", {"every": 2, "error": "not enough balance / allowance"}),
    FaultSpec("restart_425", "http", "the engine restarts: 425 on place and cancel, no matching; then only post-only orders",
              "425, sockets drop, then 503 post_only_mode with Retry-After", "weekly engine restart",
              {"down_s": 90.0, "post_only_s": 120.0, "drop_sockets": True, "keep_orders": True, "beats_refused": False}),
    FaultSpec("post_only", "http", "only post-only orders and cancels are accepted", "503 with code post_only_mode and Retry-After",
              "the two minutes after a restart", {"retry_after_s": 120.0}),
    FaultSpec("cancel_only", "http", "new orders are refused, cancels work", "503 cancel-only", "venue mode"),
    FaultSpec("disabled", "http", "orders and cancels are refused", "503 trading disabled", "venue mode"),
    FaultSpec("rate_limited", "http", "requests are refused for their rate", "429 with Retry-After and Poly-RateLimit headers",
              "token buckets", {"p": 1.0, "n": 0, "paths": "trading", "retry_after_s": 1.0}),
    FaultSpec("slow_responses", "http", "each request takes longer, half of it before and half after it is executed", "late answers",
              "slow venue", {"p": 1.0, "paths": "all", "delay_s": 0.8, "jitter_s": 0.4}),
    FaultSpec("cloudflare_queue", "http", "requests queue at the edge, and the queue grows", "latency grows second by second, no 429",
              "per-address limits delay instead of refusing", {"paths": "all", "growth_s": 0.25, "max_s": 8.0}),
    FaultSpec("heartbeat_lost", "http", "heartbeats never reach the engine", "no answer; all orders are cancelled after 10 to 15 s",
              "dead-man switch", {"p": 1.0, "n": 0, "hang_s": 0.0}),
    FaultSpec("html_errors", "http", "answers are replaced by an HTML error page of the edge", "HTML where JSON is expected",
              "edge errors are not JSON", {"p": 1.0, "n": 0, "paths": "all", "status": 502, "executed": False}),
    FaultSpec("truncated_json", "http", "answers end in the middle", "JSON that does not parse; the request was executed",
              "broken answers", {"p": 1.0, "n": 0, "paths": "all", "keep": 0.5}),
    FaultSpec("geoblock", "http", "the edge refuses every POST of an order for its region", "403 and blocked:true in /api/geoblock",
              "egress address in a restricted country", {"country": "US", "cancels": False}),
    FaultSpec("unauthorized", "http", "the API key is not known any more", "401 on private requests, user channel closes",
              "revoked key", {"p": 1.0, "n": 0}),
    FaultSpec("empty_listing", "http", "lists of own orders or trades are empty although there are some", "data [] with HTTP 200",
              "an empty answer is not the truth", {"p": 1.0, "n": 0, "listing": "orders"}),
    FaultSpec("ghost_book", "http", "REST books show 0.01 / 0.99 while prices and channel are right", "a stale but well-formed /book",
              "REST alone is not the truth", {"markets": "all"}),
    FaultSpec("gamma_down", "http", "market discovery does not answer", "503, HTML, cut or hanging connection", "Gamma outage",
              {"how": "503", "hang_s": 20.0}),
    FaultSpec("slug_missing", "http", "Gamma does not list windows that exist", "404 slug not found, absent from lists",
              "late or missing listing", {"markets": "next"}),
]

_FRAMES = [
    *[FaultSpec(f"freeze_{channel}", "frames", f"the {what} sends nothing, but answers PING", "silence on an open, live socket",
                "silent freeze", {"links": "all"} | more)
      for channel, what, more in (
          ("market", "market channel", {"markets": "all", "token": "both"}), ("user", "user channel", {}),
          ("rtds", "RTDS relay", {}), ("polybolt", "PolyBolt stream", {}), ("binance", "Binance stream", {}),
          ("coinbase", "Coinbase stream", {}), ("bybit", "Bybit stream", {}))],
    FaultSpec("frames_late", "frames", "every frame is late, in order", "data age grows", "slow relay",
              {"channels": "market", "links": "all", "delay_s": 0.5, "jitter_s": 0.0}),
    FaultSpec("frames_reordered", "frames", "a share of the frames is held back, so that later ones overtake", "older stamps after newer",
              "wire order is not time order", {"channels": "market", "links": "all", "p": 0.25, "spread_s": 0.1}),
    FaultSpec("frames_duplicated", "frames", "a share of the frames comes twice", "the same bytes again", "duplicates",
              {"channels": "market", "links": "all", "p": 0.3, "again_s": 0.05}),
    FaultSpec("frames_dropped", "frames", "a share of the frames never comes", "gaps", "lost frames",
              {"channels": "market", "links": "all", "p": 0.1}),
    FaultSpec("book_rollback", "frames", "book snapshots are late, behind newer changes", "a snapshot older than what is known",
              "late snapshots roll the book back", {"links": "all", "delay_s": 0.2, "markets": "all"}),
    FaultSpec("resolution_lost", "frames", "market_resolved is never sent", "no word of the outcome on the stream, Gamma has it",
              "market_resolved sometimes never arrives", {"links": "all", "channels": "market"}),
    FaultSpec("user_lost", "frames", "events of the user channel never come and are not repeated", "fills or orders are not told",
              "no trade events", {"links": "all", "p": 1.0, "events": "trade"}),
    FaultSpec("user_delayed", "frames", "events of the user channel are late", "fills are told long after", "late fills",
              {"links": "all", "delay_s": 5.0, "jitter_s": 0.0, "events": "all"}),
    FaultSpec("user_replayed", "frames", "events of the user channel come again later", "old states after new ones", "replay",
              {"links": "all", "after_s": 2.0, "times": 1, "events": "all"}),
    FaultSpec("duplicate_fill_events", "frames", "every trade event comes 2 to 4 times", "the same fill again", "duplicate fills",
              {"links": "all", "least": 2, "most": 4, "spread_s": 0.2}),
    FaultSpec("oracle_hole", "frames", "Chainlink prints are missing while other feeds go on", "a hole in the seconds, no replay",
              "8 s hole", {"prints": "both"}, 8.0),
    FaultSpec("twap_late", "frames", "TWAP prints are late", "the strike print comes late", "1.4 s TWAP lag", {"late_s": 1.4}),
    FaultSpec("boundary_missing", "frames", "prints stamped on a window boundary never come", "no exact strike print",
              "missing boundary print", {"prints": "both", "every": 300}),
]

_WORLD = [
    FaultSpec("silent_deep_cancels", "world", "deep levels vanish without a price_change", "hashes stop matching until the next book frame",
              "silent cancels", {"markets": "all", "every_s": 0.5, "levels": 2, "depth": 4}),
    FaultSpec("ghost_fill", "world", "trades fail at settlement: shares and cash roll back", "MATCHED, then FAILED", "ghost fills",
              {"p": 1.0, "n": 0, "markets": "all"}),
    FaultSpec("retrying", "world", "settlement is tried again before it succeeds", "MATCHED, RETRYING, then MINED or FAILED", "late settlement",
              {"p": 1.0, "n": 0, "markets": "all", "retry_s": 2.0, "times": 1, "then": "MINED"}),
    FaultSpec("fill_after_cancel", "world", "an order that is being cancelled was matched just before", "cancel confirmed, then a fill",
              "fill during cancel", {"p": 1.0, "n": 0, "share": 1.0, "late_s": 1.0}),
    FaultSpec("boundary_rejects", "world", "orders near a window's start or end are refused", "400 could not run the execution",
              "60 % rejects at the boundary", {"p": 0.6, "within_s": 30.0}),
    FaultSpec("closed_only", "world", "the account may only close positions", "400 address in closed only mode; SELL orders pass",
              "account restriction"),
    FaultSpec("market_without_book", "world", "a listed market has no book yet", "404 on /book, 400 not yet ready, no snapshot",
              "Gamma knows it before the CLOB", {"markets": "next"}),
    FaultSpec("heartbeat_mismatch", "world", "the expected heartbeat id changes behind the client's back", "400 Invalid Heartbeat ID",
              "two writers on one key", {"p": 1.0, "n": 1}),
    FaultSpec("balance_lag", "world", "balances are those of some seconds ago, for answers and for order checks",
              "not enough balance right after a fill", "balance cache", {"lag_s": 10.0, "update_heals": True}),
    FaultSpec("stale_reservation", "world", "matched amounts stay in the sum of matched orders", "orders refused although funds are there",
              "reservation never decrements", {"markets": "all"}),
    FaultSpec("tick_change", "world", "the tick gets finer in mid-window", "tick_size_change for both tokens", "stale tick",
              {"markets": "current", "tick": 0.001}),
    FaultSpec("cross_match", "world", "takers deal in the token complementary to our orders", "our leg only in maker_orders, other asset id",
              "NO/YES cross match"),
    FaultSpec("wrong_clock", "world", "the venue's clock is off, for /time and for the check of signed requests",
              "/time off, 401 when the skew exceeds the tolerance", "clock skew", {"offset_s": 45.0, "tolerance_s": 30.0}),
    FaultSpec("disconnect_without_close", "world", "sockets are cut without a close frame, or stay open without a byte",
              "reset, or silence without PONG", "half-open connections",
              {"channels": "all", "links": "existing", "drop": "abort", "every_s": 0.0}),
]

_SETTLEMENT = [
    FaultSpec("relayer_down", "http", "relayer and chain node do not answer", "503, HTML, cut or hanging connection", "relayer or node outage",
              {"how": "503", "hang_s": 20.0}),
    FaultSpec("relayer_busy", "http", "the relayer takes no action of the wallet", "400 wallet busy", "one action per wallet", {"p": 1.0, "n": 0}),
    FaultSpec("submit_answer_lost", "http", "transactions are taken, the answer never leaves", "connection cut after hang_s, the transaction is mined",
              "unknown outcome of a submit", {"p": 1.0, "n": 0, "hang_s": 0.0}),
    FaultSpec("merge_reverted", "world", "transactions that merge or redeem revert", "STATE_FAILED, or a receipt with status 0", "reverts on chain",
              {"p": 1.0, "n": 0}),
    FaultSpec("paid_nothing", "world", "transactions succeed without moving anything", "status 1, no payout", "redeeming at the wrong contract",
              {"p": 1.0, "n": 0}),
    FaultSpec("settlement_slow", "world", "transactions wait long before they are mined", "STATE_NEW for long, no receipt", "congested chain",
              {"delay_s": 20.0}),
]

CATALOGUE: dict[str, FaultSpec] = {spec.name: spec for spec in (*_HTTP, *_FRAMES, *_WORLD, *_SETTLEMENT)}
#: those that only a settler meets
SETTLEMENT_FAULTS = frozenset(spec.name for spec in _SETTLEMENT)
