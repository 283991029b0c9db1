"""Faults of the oracle: reference prices that are lost or late before any stream relays them.

Owns: effects on RTDS frames as the tape hands them out, (seconds from now, frame) or None for lost. Both relays (RTDS and PolyBolt) carry
what is left, so PolyBolt's sequence numbers show no gap, as when the prices were never made. Pure.
"""

import msgspec

TWAP, SPOT = b'"topic":"crypto_prices_twap', b'"topic":"crypto_prices_chainlink"'


class _Payload(msgspec.Struct):
    timestamp: int


class _Print(msgspec.Struct):
    payload: _Payload


_stamp = msgspec.json.Decoder(_Print).decode
_whole = msgspec.json.Decoder(dict).decode


def _meant(fault, frame: bytes) -> bool:
    kinds = fault.params.get("prints", "both")
    return (kinds != "spot" and TWAP in frame) or (kinds != "twap" and SPOT in frame)


def _hole(fault, frame: bytes):
    if _meant(fault, frame):
        fault.hits += 1
        return None
    return 0.0, frame


def _late(fault, frame: bytes):
    """The stream stamps what it sends when it sends it."""
    if TWAP not in frame:
        return 0.0, frame
    fault.hits += 1
    message = _whole(frame)
    message["timestamp"] += round(fault.late_s * 1000)
    return fault.late_s, msgspec.json.encode(message)


def _boundary(fault, frame: bytes):
    if _meant(fault, frame) and _stamp(frame).payload.timestamp % (fault.every * 1000) == 0:
        fault.hits += 1
        return None
    return 0.0, frame


EFFECTS = {"oracle_hole": _hole, "twap_late": _late, "boundary_missing": _boundary}
