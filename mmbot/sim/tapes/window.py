"""One window of a tape, ready to play. Built by the tapes, read by `mmbot.sim.tape`."""

from dataclasses import dataclass

import numpy as np

from mmbot.sim.engine import MarketSpec


@dataclass(frozen=True)
class Window:
    """``rows``: see `quotes`. ``outcome``: UP, DOWN. Strike and final TWAP in E18 (None when the tape has none)."""
    spec: MarketSpec
    rows: np.ndarray
    outcome: int
    strike_e18: int | None
    final_e18: int | None
    resolve_ms: int


def slug_of(start_s: int, duration_s: int) -> str:
    """Slug of a window: the number in it is its start second."""
    return f"btc-updown-{duration_s // 60}m-{start_s}"
