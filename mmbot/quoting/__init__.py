"""Quoting: compiled, pure functions from a fair value to prices and sizes.

One file per strategy (`pair`), and what strategies share: rounding to tick and lot, inventory skew, the ladder. Prices are integers
in 1e-4 dollars, sizes in 1e-6 shares; only the price before rounding is a float.
"""

import shm_layout  # noqa: F401  before numba compiles anything: it names the cache of compiled code
