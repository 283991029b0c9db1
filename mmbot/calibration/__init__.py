"""Calibration: recorded data through the compiled pricers, judged by proper scores out of sample; and the fits that come of it.

Owns: `mmbot calibrate`. Writes a report (HTML) and a fit (JSON), reads recordings. Pure analysis, never imported by a running process; needs the
extra ``research`` (numpy, scipy, pyarrow, plotly). Can go wrong: a recording that is missing or of another shape (UserError that names it).
"""

import shm_layout  # noqa: F401  before numba compiles anything: it names the cache of compiled code
