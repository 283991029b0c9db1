"""Proper scores of probabilities, reliability, and how sure we are of them.

Owns: arithmetic only. Sources: Brier 1950; logarithmic score (Good 1952); reliability as the intercept a and slope b of the logistic regression of outcomes on
logit(p) (Cox 1958: 0 and 1 when calibrated; b < 1 is overconfident); block bootstrap (Kunsch 1989) with whole windows in blocks of time, because the
asks of one window share its outcome and neighbours share its volatility.
Can go wrong: few windows. The intervals say so.
"""

from dataclasses import dataclass

import numpy as np

P_LEAST = 0.001             # the core's own bounds of a fair value
REPLICATES = 1000
SLOPE_REPLICATES = 400
SEED = 20260608
LOGIT_STEP = 0.1


def clamp(p: np.ndarray) -> np.ndarray:
    """Probabilities within the core's bounds."""
    return np.clip(p, P_LEAST, 1.0 - P_LEAST)


def logit(p: np.ndarray) -> np.ndarray:
    p = clamp(p)
    return np.log(p / (1.0 - p))


def brier(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared error of each probability."""
    return (clamp(p) - y) ** 2


def log_loss(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """-ln of the probability given to what happened."""
    p = clamp(p)
    return -np.where(y, np.log(p), np.log1p(-p))


def sharpness(p: np.ndarray) -> float:
    """Standard deviation of the probabilities: 0 for a constant, 0.5 when always certain and half the time Up."""
    return float(np.std(clamp(p)))


def blocks(window_start_s: np.ndarray, block_s: int) -> np.ndarray:
    """Number of the block of time (0 ..) that each row's window starts in."""
    return np.unique(window_start_s // block_s, return_inverse=True)[1]


def counts(n_blocks: int, replicates: int) -> np.ndarray:
    """How often each block is drawn in each bootstrap replicate: (replicates, n_blocks)."""
    rng = np.random.default_rng(SEED)
    return rng.multinomial(n_blocks, np.full(n_blocks, 1.0 / n_blocks), size=replicates).astype(float)


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def mean(x: np.ndarray, block: np.ndarray) -> Estimate:
    """Mean of ``x`` by rows, with the block bootstrap's interval."""
    sums, sizes = np.bincount(block, x), np.bincount(block).astype(float)
    drawn = counts(len(sums), REPLICATES)
    low, high = np.percentile((drawn @ sums) / np.maximum(drawn @ sizes, 1e-300), (2.5, 97.5))
    return Estimate(float(np.mean(x)), float(low), float(high))


def logistic(z: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(intercept, slope) of P(y) = 1 / (1 + exp(-a - b z)) by Newton's method, for each column of ``weights`` (n, k) at once: (2, k).

    A little ridge on the distance from (0, 1) keeps separable samples finite.
    """
    a, b = np.zeros(weights.shape[1]), np.ones(weights.shape[1])
    ridge = 1e-3
    for _ in range(25):
        p = 1.0 / (1.0 + np.exp(-np.clip(a + np.outer(z, b), -30, 30)))
        w, e = weights * p * (1.0 - p), weights * (y[:, None] - p)
        g0, g1 = e.sum(0) - ridge * a, z @ e - ridge * (b - 1.0)
        h00, h01, h11 = w.sum(0) + ridge, z @ w, (z * z) @ w + ridge
        det = h00 * h11 - h01 * h01
        da, db = (h11 * g0 - h01 * g1) / det, (h00 * g1 - h01 * g0) / det
        a, b = a + np.clip(da, -1, 1), b + np.clip(db, -1, 1)
        if max(np.abs(da).max(), np.abs(db).max()) < 1e-8:
            break
    return np.vstack([a, b])


def reliability(p: np.ndarray, y: np.ndarray, block: np.ndarray) -> tuple[Estimate, Estimate]:
    """(intercept, slope) of outcomes on logit(p); perfect is 0 and 1. The replicates see logits rounded to LOGIT_STEP, counted per block."""
    z = logit(p)
    whole = logistic(z, y.astype(float), np.ones((len(z), 1)))[:, 0]
    cell, n = np.unique(np.column_stack([block, np.round(z / LOGIT_STEP), y]).astype(np.int64), axis=0, return_counts=True)
    drawn = counts(int(block.max()) + 1, SLOPE_REPLICATES).T[cell[:, 0]] * n[:, None]
    low, high = np.percentile(logistic(cell[:, 1] * LOGIT_STEP, cell[:, 2].astype(float), drawn), (2.5, 97.5), axis=1)
    return Estimate(float(whole[0]), float(low[0]), float(high[0])), Estimate(float(whole[1]), float(low[1]), float(high[1]))


def diagram(p: np.ndarray, y: np.ndarray, block: np.ndarray, bins: int = 10) -> list[tuple[float, Estimate, int]]:
    """(mean p, share that came Up, rows) of each equal bin of p that has rows."""
    out = []
    which = np.minimum((clamp(p) * bins).astype(int), bins - 1)
    for i in range(bins):
        here = which == i
        if here.sum():
            renumbered = np.unique(block[here], return_inverse=True)[1]
            out.append((float(clamp(p)[here].mean()), mean(y[here].astype(float), renumbered), int(here.sum())))
    return out
