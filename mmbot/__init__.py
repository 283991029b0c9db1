"""What the bot thinks: pure logic, venue formats, the process harness and the command line.

Imports `shm_layout`, is imported by `procs`. Nothing in here starts by being imported.
"""

import shm_layout  # noqa: F401  first of all: it says where numba keeps compiled code
