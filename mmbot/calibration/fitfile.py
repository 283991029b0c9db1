"""The file of a fit: coefficients that say what they are of, with an identity that no change survives.

Owns: the JSON format. Written by `mmbot calibrate --fit`, read by whoever loads coefficients into [strategy.reversion]. No numpy needed.
Format: ``{"format": 1, "fits": {NAME: {"target", "duration_s", "beta", "features", "signals", "ridge", "rows", "windows", "from_s", "to_s", "fit_id"}}}``.
``fit_id`` is the first 48 bits of the SHA-256 of all other values of the fit as sorted, compact JSON.
Can go wrong: a file that was edited by hand (UserError): its numbers would be traded under another fit's name.
"""

import hashlib
import json
from pathlib import Path

from mmbot.errors import UserError

FORMAT = 1
BETAS = 5


def identity(fit: dict) -> int:
    """First 48 bits of the SHA-256 of a fit without its ``fit_id``."""
    text = json.dumps({k: v for k, v in fit.items() if k != "fit_id"}, sort_keys=True, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def dump(fits: dict[str, dict]) -> str:
    """Text of a file of ``fits`` by name; each gets its identity."""
    return json.dumps({"format": FORMAT, "fits": {name: {**fit, "fit_id": identity(fit)} for name, fit in fits.items()}}, indent=1) + "\n"


def read(path: Path, name: str) -> tuple[tuple[float, ...], int]:
    """(beta, fit_id) of the fit ``name``, as [strategy.reversion] takes them. Errors: UserError naming file and fix."""
    again = "make it anew with `mmbot calibrate --fit`"
    try:
        data = json.loads(Path(path).read_text())
    except OSError as e:
        raise UserError(f"fit {path} cannot be read: {e.strerror or e}") from None
    except ValueError:
        raise UserError(f"fit {path} is no JSON: {again}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT or not isinstance(data.get("fits"), dict):
        raise UserError(f"fit {path} is not of format {FORMAT}: {again}")
    fit = data["fits"].get(name)
    if not isinstance(fit, dict):
        raise UserError(f"fit {path} has no fit {name!r}; it has {', '.join(sorted(data['fits'])) or 'none'}")
    if fit.get("fit_id") != identity(fit):
        raise UserError(f"fit {path}: {name} was changed since it was made (fit_id {fit.get('fit_id')}, its values say {identity(fit)}): {again}")
    beta = fit.get("beta")
    if not isinstance(beta, list) or len(beta) != BETAS or not all(isinstance(b, (int, float)) for b in beta):
        raise UserError(f"fit {path}: {name} has no {BETAS} coefficients: {again}")
    return tuple(float(b) for b in beta), fit["fit_id"]
