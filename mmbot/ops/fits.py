"""Fits as parameters: `reversion.beta=@FILE` becomes the coefficients of a fit and the id that says which fit they are.

Owns: the reading of such a file: JSON with "beta", one number per feature. Can go wrong: UserError naming the file.
"""

import hashlib
import json
from pathlib import Path

from mmbot.errors import UserError
from shm_layout.records import BETAS

KEY, ID_KEY = "reversion.beta", "reversion.fit_id"


def fit(path: Path) -> tuple[list[float], int]:
    """(beta, first 48 bits of the file's SHA-256) of a fit file. Errors: UserError."""
    try:
        raw = path.read_bytes()
        beta = json.loads(raw)["beta"]
    except OSError as e:
        raise UserError(f"{path}: {e.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: is no fit: it must be JSON with \"beta\", as `mmbot calibrate --fit` writes it") from None
    if not isinstance(beta, list) or len(beta) != BETAS or not all(isinstance(b, (int, float)) and not isinstance(b, bool) for b in beta):
        raise UserError(f"{path}: \"beta\" must be {BETAS} numbers: intercept, 60 s return, window return, EMA gap, rolling std")
    return [float(b) for b in beta], int.from_bytes(hashlib.sha256(raw).digest()[:6], "big")


def with_fits(assignments: list[tuple[str, object]]) -> list[tuple[str, object]]:
    """Assignments with each ``reversion.beta=@FILE`` (also of for_15m, for_5m) replaced by what the file says. Errors: UserError."""
    out = []
    for key, value in assignments:
        if isinstance(value, str) and value.startswith("@"):
            if key.split(".", 1)[-1] != KEY and key != KEY:
                raise UserError(f"{key}: only {KEY} can be read from a file")
            beta, fit_id = fit(Path(value[1:]))
            out += [(key, beta), (key.removesuffix(KEY) + ID_KEY, fit_id)]
        else:
            out.append((key, value))
    return out
