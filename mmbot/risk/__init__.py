"""Risk: the last word on every quote, small on purpose.

`gates` says why there may be no quote, `exposure` how much may still be bought. Compiled and pure, like `signals` and `quoting`.
"""

import shm_layout  # noqa: F401  before numba compiles anything: it names the cache of compiled code
