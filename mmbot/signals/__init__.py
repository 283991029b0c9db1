"""Signals: compiled, pure functions from prices to volatility, a reference level, averages and a fair value.

One file per signal. Each owns a small numpy record of state and functions that update it and read it. No clock, no I/O, no
allocation: time and records are arguments. Written and read only by the core's `step`, which holds the state.
"""

import shm_layout  # noqa: F401  before numba compiles anything: it names the cache of compiled code
