"""RTDS, the venue's relay of Chainlink prices: frames to ORACLE fields, and the memory of prints at window boundaries.

Owns: the messages and shapes of the relay; which print stands for a window boundary. Writes: the ORACLE_STATE record it is given. No
sockets, no clock. Can go wrong: a missing second at a boundary (the first print after it stands in, not trusted), prints out of order
(the newest observation wins), a value without its exact text (refused: a float decides no outcome).

Markets are settled by the TWAP-60 print stamped exactly at a window's start and end. Source: venue protocol, RTDS and resolution rule.
"""

from typing import NamedTuple

import msgspec

from mmbot.venues.frames import UNREADABLE
from mmbot.venues.numbers import BadValue, scaled
from shm_layout import records as r

TOPIC_TWAP, TOPIC_SPOT, TOPIC_RELAY = "crypto_prices_twap_sixty", "crypto_prices_chainlink", "crypto_prices"
SYMBOL = "btc/usd"
BOUNDARY_MS = 300_000
#: a print later than this after a boundary says too little about it to stand in for it
STAND_IN_MS = 15_000
_E18 = 10 ** 18
_KINDS = {TOPIC_TWAP: r.OK_TWAP60, TOPIC_SPOT: r.OK_SPOT}

SUBSCRIBE = msgspec.json.encode({"action": "subscribe", "subscriptions": [
    {"topic": topic, "type": "update"} for topic in (TOPIC_TWAP, TOPIC_SPOT, TOPIC_RELAY)]})


class _Payload(msgspec.Struct, gc=False):
    symbol: str = ""
    timestamp: int = 0
    full_accuracy_value: str = ""
    window_s: int = 60


class _Frame(msgspec.Struct, gc=False):
    topic: str = ""
    type: str = ""
    timestamp: int = 0
    payload: _Payload | None = None


_DECODER = msgspec.json.Decoder(_Frame)


class Print(NamedTuple):
    """One Chainlink print: OK_* kind, observation time (ms), the relay's time (ns), and the exact value in 1e-18 dollars."""
    kind: int
    t_obs_ms: int
    t_exch_ns: int
    value_e18: int


def value_e18(text: str) -> int:
    """The exact value in 1e-18 dollars: RTDS sends that integer as text; a decimal point means plain dollars. Errors: BadValue."""
    value = scaled(text, 18 if "." in text else 0)
    if not _E18 <= value < 10 ** 9 * _E18:
        raise BadValue(f"a price of {text[:60]!r} (1e-18 dollars)")
    return value


def decode(data) -> Print | None:
    """The BTC/USD print of one frame; None for other symbols, topics and snapshots. Errors: BadValue."""
    if not len(data):
        return None
    try:
        m = _DECODER.decode(data)
    except UNREADABLE as e:
        raise BadValue(f"an RTDS frame that cannot be read: {e}") from None
    kind, p = _KINDS.get(m.topic), m.payload
    if kind is None or m.type != "update" or p is None or p.symbol.lower() != SYMBOL:
        return None
    if kind == r.OK_TWAP60 and p.window_s != 60:
        raise BadValue(f"a TWAP over {p.window_s} s on the 60 s topic")
    if not 0 < p.timestamp < 4_000_000_000_000 or not 0 <= m.timestamp < 4_000_000_000_000:
        raise BadValue(f"a print stamped {p.timestamp}, sent {m.timestamp}")
    return Print(kind, p.timestamp, m.timestamp * 1_000_000, value_e18(p.full_accuracy_value))


def fill(row, p: Print, t_recv_ns: int, trusted: int = 1, kind: int = 0) -> None:
    """Write a print into one ORACLE record (``t_pub_ns`` is the publisher's)."""
    units, frac = divmod(p.value_e18, _E18)
    row["kind"], row["source"], row["t_obs_ms"], row["t_exch_ns"] = kind or p.kind, r.OS_RTDS, p.t_obs_ms, p.t_exch_ns
    row["t_recv_ns"], row["px"], row["px_units"], row["px_frac_e18"], row["trusted"] = t_recv_ns, p.value_e18 / _E18, units, frac, trusted


def boundary_index(t_obs_ms: int) -> int:
    """Place in ORACLE_STATE.boundary of the 300 s boundary at or before an observation."""
    return t_obs_ms // BOUNDARY_MS % r.BOUNDARIES


def note(state, p: Print, t_recv_ns: int) -> int:
    """Enter a print into an ORACLE_STATE record: newest spot and TWAP, and the print of a boundary.

    Returns the place of the boundary that got a (better) print, -1 if none did. An exact print beats a stand-in, an earlier stand-in
    beats a later one; a boundary's place is taken over by a later boundary and never given back.
    """
    newest = state["spot"] if p.kind == r.OK_SPOT else state["twap60"]
    if p.t_obs_ms >= newest["t_obs_ms"]:
        fill(newest, p, t_recv_ns)
    past_ms = p.t_obs_ms % BOUNDARY_MS
    if p.kind != r.OK_TWAP60 or past_ms > STAND_IN_MS:
        return -1
    index = boundary_index(p.t_obs_ms)
    held = state["boundary"][index]
    held_ms = int(held["t_obs_ms"])
    same = held_ms // BOUNDARY_MS == p.t_obs_ms // BOUNDARY_MS
    if held_ms and (held_ms // BOUNDARY_MS > p.t_obs_ms // BOUNDARY_MS or (same and held_ms <= p.t_obs_ms)):
        return -1
    fill(held, p, t_recv_ns, int(past_ms == 0), r.OK_BOUNDARY)
    return index


def forget_future(state, now_ms: int) -> None:
    """Drop what is stamped later than now: it comes from another run of the simulated clock."""
    for row in (state["spot"], state["twap60"], *state["boundary"]):
        if row["t_obs_ms"] > now_ms + 5_000:
            for name in row.dtype.names:
                row[name] = 0
