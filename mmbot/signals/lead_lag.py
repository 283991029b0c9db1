"""Which price source leads, by how much, and how surely: Binance, Coinbase, Bybit and Chainlink as they arrive here.

Owns: the LEAD_LAG record. Written by `push` on a grid of 100 ms and `find` once a second, read by the core and by reports.
Source: cross-correlation of one-second log returns at lags of 0 to 5 s, each product an exponentially weighted mean, so the memory is fixed and the present counts.
A source's lead over another is the lag of the greatest correlation. Sources that move together at once have a lead of 0.
Can go wrong: a market at rest has nothing to correlate; less than MIN_CORR, or less than MIN_STEPS of history, is no knowledge and confidence is 0 then.
"""

import math

import numpy as np
from numba import float64, from_dtype, int64, njit, void

STEP_MS = 100
BACK = 10                   # returns over one second ...
LAGS = 51                   # ... at lags of 0 to 5 s
CELLS = 64
SOURCES = 4                 # venues as in signals.reference, then Chainlink's spot prints
CHAINLINK = 3
HALF_LIFE_S = 120.0
MIN_STEPS = 300
MAX_HOLE = 50               # steps without a push after which histories start anew
MIN_CORR = 0.3
_KEEP = 0.5 ** (STEP_MS * 1e-3 / HALF_LIFE_S)
_TINY = 1e-14               # variance of one-second returns below which a source does not move: 1e-7 squared

#: ``cross[i, j, lag]`` mean of i's return ``lag`` steps ago times j's return now; ``lead_ms[i, j]`` and ``corr[i, j]`` of each pair as last found.
LEAD_LAG = np.dtype([
    ("step", "<i8"), ("steps", "<i8"), ("leader", "<i8"), ("lead", "<f8"), ("confidence", "<f8"),
    ("since", "<i8", (SOURCES,)), ("var", "<f8", (SOURCES,)), ("ln", "<f8", (SOURCES, CELLS)), ("ret", "<f8", (SOURCES, 2 * CELLS)),
    ("cross", "<f8", (SOURCES, SOURCES, LAGS)), ("lead_ms", "<f8", (SOURCES, SOURCES)), ("corr", "<f8", (SOURCES, SOURCES)),
    ("now", "<f8", (SOURCES,)),
])
LEAD_LAG_T = from_dtype(LEAD_LAG)


@njit(void(LEAD_LAG_T, int64, int64, float64), cache=True)
def see(ll, source, known, ln_px):
    """Say what a source shows now (``known`` 0: it is silent). Heard by the next `push`."""
    if known == 0:
        ll.since[source] = 0
    elif ll.since[source] == 0:
        ll.since[source] = ll.step + 1
    ll.now[source] = ln_px


@njit(void(LEAD_LAG_T), cache=True)
def _one_step(ll):
    """Advance the grid by one step with what the sources show now."""
    ll.step += 1
    ll.steps += 1
    at = ll.step % CELLS
    begin = CELLS - 1 - at              # newest first: the return of ``lag`` steps ago stands at begin + lag
    for i in range(SOURCES):
        ret = 0.0
        if ll.since[i] != 0 and ll.step - ll.since[i] >= BACK:
            ret = ll.now[i] - ll.ln[i, (ll.step - BACK) % CELLS]
        ll.ln[i, at] = ll.now[i]
        ll.ret[i, begin] = ll.ret[i, begin + CELLS] = ret
        ll.var[i] = _KEEP * ll.var[i] + (1.0 - _KEEP) * ret * ret
    for i in range(SOURCES):
        for j in range(SOURCES):
            if i != j:
                weight = (1.0 - _KEEP) * ll.ret[j, begin]
                for lag in range(LAGS):
                    ll.cross[i, j, lag] = _KEEP * ll.cross[i, j, lag] + weight * ll.ret[i, begin + lag]


@njit(void(LEAD_LAG_T, int64), cache=True)
def push(ll, step):
    """Bring the grid to ``step`` (wall ms // STEP_MS): the sources showed what `see` said since the last push."""
    gap = step - ll.step
    if ll.step == 0 or gap > MAX_HOLE or gap < -MAX_HOLE:
        for i in range(SOURCES):
            ll.since[i] = step if ll.since[i] != 0 else 0
            for k in range(2 * CELLS):
                ll.ret[i, k] = 0.0
        ll.step = step - 1
    while ll.step < step:
        _one_step(ll)


@njit(void(LEAD_LAG_T, int64, int64), cache=True)
def _find_pair(ll, i, j):
    """Lag at which two sources agree best."""
    ll.lead_ms[i, j] = ll.lead_ms[j, i] = ll.corr[i, j] = ll.corr[j, i] = 0.0
    if ll.var[i] < _TINY or ll.var[j] < _TINY:
        return
    best, lead = 0.0, 0
    for lag in range(LAGS):
        if ll.cross[i, j, lag] > best:
            best, lead = ll.cross[i, j, lag], lag
        if ll.cross[j, i, lag] > best:
            best, lead = ll.cross[j, i, lag], -lag
    ll.lead_ms[i, j], ll.lead_ms[j, i] = float(lead * STEP_MS), float(-lead * STEP_MS)
    ll.corr[i, j] = ll.corr[j, i] = min(best / math.sqrt(ll.var[i] * ll.var[j]), 1.0)


@njit(void(LEAD_LAG_T), cache=True)
def find(ll):
    """Find the leader: the source with the greatest sum of leads over the others, each weighted by its correlation.

    ``lead`` ms is its lead over Chainlink's prints as they arrive or, where Chainlink leads or is not known, over the source it leads most;
    ``confidence`` is that pair's correlation, 0 when nothing is known.
    """
    ll.leader, ll.lead, ll.confidence = 0, 0.0, 0.0
    if ll.steps < MIN_STEPS:
        return
    for i in range(SOURCES):
        for j in range(i + 1, SOURCES):
            _find_pair(ll, i, j)
    top = -1e18
    for i in range(SOURCES):
        score, trusted = 0.0, 0
        for j in range(SOURCES):
            if ll.corr[i, j] >= MIN_CORR:
                score += ll.corr[i, j] * ll.lead_ms[i, j]
                trusted += 1
        if trusted > 0 and score > top:
            top, ll.leader = score, i
    i, over = ll.leader, -1
    for j in range(SOURCES):
        if ll.corr[i, j] >= MIN_CORR and (over < 0 or ll.lead_ms[i, j] > ll.lead_ms[i, over]):
            over = j
    if i != CHAINLINK and ll.corr[i, CHAINLINK] >= MIN_CORR:
        over = CHAINLINK
    if over >= 0:
        ll.lead, ll.confidence = ll.lead_ms[i, over], ll.corr[i, over]
