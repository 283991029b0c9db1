"""Faults of the streams: what a socket is sent instead of a frame.

Owns: effects (fault, channel, frame) -> [(seconds from now, bytes), ...]. PONG, and what a client's own mistakes are answered, does not
pass through here: a frozen stream still looks alive. Pure; randomness is the fault's own.
"""

import msgspec

from mmbot.sim.faults.catalogue import CATALOGUE, CHANNELS

BOOK, TRADE, ORDER = b'"event_type":"book"', b'"event_type":"trade"', b'"event_type":"order"'
RESOLVED = b'"event_type":"market_resolved"'
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.encode

_FROZEN = {f"freeze_{channel}": channel for channel in CHANNELS if f"freeze_{channel}" in CATALOGUE}


def channels_of(fault) -> tuple[str, ...]:
    """Channels that a fault touches."""
    if fault.name in _FROZEN:
        return (_FROZEN[fault.name],)
    if "channels" in fault.params:
        return CHANNELS if "all" in fault.channels else tuple(dict.fromkeys(fault.channels.split("+")))
    return ("market",) if fault.name in ("book_rollback", "market_without_book") else ("user",)


def _freeze(fault, channel: str, data: bytes):
    if channel == "market" and (fault.cids is not None or fault.token != "both"):
        data = _without(data, lambda event: _frozen(fault, event))
        return [(0.0, data)] if data else []
    fault.hits += 1
    return []


def _frozen(fault, event: dict) -> dict | None:
    """What is left of a market event when some of it is frozen."""
    if not fault.covers(event.get("market", "")):
        return event
    if fault.token == "both":
        fault.hits += 1
        return None
    tokens = fault.tokens[0 if fault.token == "up" else 1]
    if "price_changes" in event:
        event["price_changes"] = [c for c in event["price_changes"] if c["asset_id"] not in tokens]
        fault.hits += 1
        return event if event["price_changes"] else None
    if event.get("asset_id") in tokens:
        fault.hits += 1
        return None
    return event


def _without(data: bytes, left) -> bytes:
    """A frame with ``left(event)`` instead of each event; b"" when nothing is left of an object, ``[]`` for an array."""
    message = _decode(data)
    if isinstance(message, list):
        return _encode([kept for event in message if (kept := left(event)) is not None])
    kept = left(message)
    return _encode(kept) if kept is not None else b""


def _late(fault, channel: str, data: bytes):
    fault.hits += 1
    wait_s = fault.delay_s + fault.jitter_s * fault.rng.random() if fault.jitter_s else fault.delay_s
    return [(wait_s, data)]


def _reordered(fault, channel: str, data: bytes):
    return [(fault.spread_s * fault.rng.random(), data)] if fault.strikes() else [(0.0, data)]


def _duplicated(fault, channel: str, data: bytes):
    return [(0.0, data), (fault.again_s, data)] if fault.strikes() else [(0.0, data)]


def _dropped(fault, channel: str, data: bytes):
    return [] if fault.strikes() else [(0.0, data)]


def _rollback(fault, channel: str, data: bytes):
    if not data.startswith(b"[") and BOOK in data and (fault.cids is None or any(cid.encode() in data for cid in fault.cids)):
        fault.hits += 1
        return [(fault.delay_s, data)]
    return [(0.0, data)]


def _unresolved(fault, channel: str, data: bytes):
    if RESOLVED not in data:
        return [(0.0, data)]
    fault.hits += 1
    return []


def _meant(fault, data: bytes) -> bool:
    kinds = fault.params.get("events", "all")
    return (kinds != "order" and TRADE in data) or (kinds != "trade" and ORDER in data)


def _user_lost(fault, channel: str, data: bytes):
    return [] if _meant(fault, data) and fault.strikes() else [(0.0, data)]


def _user_delayed(fault, channel: str, data: bytes):
    return _late(fault, channel, data) if _meant(fault, data) else [(0.0, data)]


def _replayed(fault, channel: str, data: bytes):
    if not _meant(fault, data):
        return [(0.0, data)]
    fault.hits += 1
    return [(fault.after_s * i, data) for i in range(fault.times + 1)]


def _repeated_fills(fault, channel: str, data: bytes):
    if TRADE not in data:
        return [(0.0, data)]
    fault.hits += 1
    extra = fault.rng.randint(fault.least, max(fault.least, fault.most)) - 1
    return [(0.0, data), *((fault.spread_s * fault.rng.random(), data) for _ in range(extra))]


def _bookless(fault, channel: str, data: bytes):
    data = _without(data, lambda event: None if _hidden(fault, event) else event)
    return [(0.0, data)] if data else []


def _hidden(fault, event: dict) -> bool:
    return event.get("event_type") != "new_market" and fault.covers(event.get("market", ""))


EFFECTS = {
    **dict.fromkeys(_FROZEN, _freeze), "frames_late": _late, "frames_reordered": _reordered, "frames_duplicated": _duplicated,
    "frames_dropped": _dropped, "book_rollback": _rollback, "user_lost": _user_lost, "user_delayed": _user_delayed,
    "user_replayed": _replayed, "resolution_lost": _unresolved, "duplicate_fill_events": _repeated_fills, "market_without_book": _bookless,
}
