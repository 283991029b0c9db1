"""The core's parameter block, made from the [strategy] table of the settings.

Owns: how PARAMS_BLOCK gets its values and its version, and whether an offered block may be traded with. Written to the `params` segment by the core; the
version travels with every target and order, so each can be traced to the numbers that made it. A new block is offered in `params_next`
(`mmbot.ops.params`); the core takes it over between two bursts and says so in `params`.
Can go wrong: a field of PARAMS without a key in [strategy] (a test compares the two); a block that is not what its version says (refused).
"""

import hashlib

import numpy as np

from shm_layout import records as r

#: keys that are words in the config and codes in the block, by (table, key)
CODES = {("", "strategy"): r.STRATEGIES, ("model", "pricer"): r.PRICERS, ("model", "blend"): r.BLENDS, ("avellaneda", "form"): ("target", "optimal", "glft"),
         ("capital", "sizing"): ("fixed", "capital")}


def fill(record, section, table: str = "") -> None:
    """Write the values of a settings section into the record of the same field names, nested ones too."""
    for name in record.dtype.names:
        value = getattr(section, name)
        if record.dtype[name].names:
            fill(record[name], value, name)
        else:
            record[name] = CODES[table, name].index(value) if (table, name) in CODES else value


def checksum(block) -> int:
    """Version of a block: first 48 bits of the SHA-256 of all values. The same numbers have the same version anywhere."""
    return int.from_bytes(hashlib.sha256(block["of"][0].tobytes()).digest()[:6], "big")


def params_block(strategy, now_ns: int) -> np.ndarray:
    """PARAMS_BLOCK (1 element) from the [strategy] settings (`mmbot.config.Strategy`)."""
    out = np.zeros(1, r.PARAMS_BLOCK)
    for i, duration_s in enumerate(r.DURATIONS):
        fill(out["of"][0, i], strategy.of(duration_s))
    out["version"] = checksum(out)
    out["t_update_ns"] = now_ns
    return out


def version_name(version: int) -> str:
    """How a version is written for people: 12 hex digits."""
    return f"{int(version):012x}"


def fault(block) -> str:
    """Why an offered block (PARAMS_BLOCK, 1 element) cannot be traded with, "" when it can. Values were judged by who made it; this is the last look."""
    if block["version"][0] == 0 or block["version"][0] != checksum(block):
        return f"its values are not those of version {version_name(block['version'][0])}"
    of = block["of"][0]
    for table, names in CODES.items():
        codes = of[table[1]] if not table[0] else of[table[0]][table[1]]
        if (codes < 0).any() or (codes >= len(names)).any():
            return f"it names no known {table[1]}"
    return ""
