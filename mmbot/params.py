"""The core's parameter block, made from the [strategy] table of the settings.

Owns: how PARAMS gets its values and its version. Written to the `params` segment by the core at start; the version travels with
every target and order, so each can be traced to the numbers that made it.
Can go wrong: a field of PARAMS without a key in [strategy] (a test compares the two).
"""

import hashlib

import numpy as np

from shm_layout import records as r

_STAMPS = ("version", "t_update_ns")
NAMES = tuple(n for n in r.PARAMS.names if n not in _STAMPS)


def params_record(strategy, now_ns: int) -> np.ndarray:
    """PARAMS (1 element) from an object with one attribute per field (`mmbot.config.Strategy`).

    ``version`` is the first 48 bits of the SHA-256 of all values in order: the same numbers have the same version anywhere.
    """
    out = np.zeros(1, r.PARAMS)
    for name in NAMES:
        out[name] = getattr(strategy, name)
    values = out[list(NAMES)][0].tolist()
    out["version"] = int.from_bytes(hashlib.sha256(repr(values).encode()).digest()[:6], "big")
    out["t_update_ns"] = now_ns
    return out
