"""The risk of a simulated inventory: Sharpe ratio, maximum drawdown and turnover of a run in which nothing was traded, and limits on them.

Owns: `Performance`, `measure`, `Limits`. Called by `mmbot.programme.evolve_within`, and by whoever has a path of results. Pure.
Sharpe ratio: mean over standard deviation of the changes of the result, times the root of how many steps a day has (no riskless rate: the money is
idle for minutes). Drawdown: from the best result so far, the start included. Turnover: dollars traded in units of the capital.
Can go wrong: a result that never moves has no Sharpe ratio: it is 0. Of fewer than `LEAST_STEPS` changes none is judged: a ratio of so few says nothing.
"""

from dataclasses import dataclass

import numpy as np

LEAST_STEPS = 20
DAY_S = 86_400.0


@dataclass(frozen=True)
class Performance:
    """``total`` and ``max_drawdown`` in dollars, ``sharpe`` of a day, ``turnover`` in units of the capital, ``steps`` changes of the result."""
    total: float
    sharpe: float
    max_drawdown: float
    turnover: float
    steps: int


def measure(results, traded, step_s: float, capital: float) -> Performance:
    """Performance of a path. ``results``: dollars after each step, starting from 0; ``traded``: dollars traded at each step; ``step_s`` seconds
    between them; ``capital`` dollars. Errors: ValueError for lengths that differ, a step or a capital that is not positive."""
    results, traded = np.asarray(results, float), np.asarray(traded, float)
    if results.shape != traded.shape or results.ndim != 1:
        raise ValueError(f"results {results.shape} and traded {traded.shape} must be two lists of one length")
    if step_s <= 0 or capital <= 0:
        raise ValueError(f"step_s ({step_s:g}) and capital ({capital:g}) must be positive")
    if not results.size:
        return Performance(0.0, 0.0, 0.0, 0.0, 0)
    path = np.concatenate([[0.0], results])
    changes = np.diff(path)
    spread = float(changes.std(ddof=1)) if changes.size > 1 else 0.0
    sharpe = float(changes.mean()) / spread * np.sqrt(DAY_S / step_s) if spread > 1e-12 else 0.0
    return Performance(float(results[-1]), float(sharpe), float((np.maximum.accumulate(path) - path).max()), float(np.abs(traded).sum()) / capital, changes.size)


@dataclass(frozen=True)
class Limits:
    """What a simulated run must keep: Sharpe ratio of a day at least, drawdown (dollars) and turnover (units of the capital) at most. None: not asked."""
    min_sharpe: float | None = None
    max_drawdown: float | None = None
    max_turnover: float | None = None

    def broken(self, found: Performance) -> list[str]:
        """Each limit that is broken, in words; [] when all are kept."""
        out = []
        if self.min_sharpe is not None and found.steps >= LEAST_STEPS and found.sharpe < self.min_sharpe:
            out.append(f"Sharpe ratio {found.sharpe:.2f} below {self.min_sharpe:g}")
        if self.max_drawdown is not None and found.max_drawdown > self.max_drawdown:
            out.append(f"drawdown {found.max_drawdown:.4f} above {self.max_drawdown:g}")
        if self.max_turnover is not None and found.turnover > self.max_turnover:
            out.append(f"turnover {found.turnover:.2f} above {self.max_turnover:g}")
        return out
