"""On the path of a group under test: SIGUSR2 wedges any of its processes, that is, its main thread does nothing for WEDGE_S seconds.

The process stays alive, scheduled and unstopped; only its loop does not turn. Nothing of the product knows about this.
"""

import os
import signal
import time


def wedge(_signal, _frame) -> None:
    until = time.monotonic() + float(os.environ.get("WEDGE_S", "1.5"))
    while time.monotonic() < until:
        time.sleep(0.01)


signal.signal(signal.SIGUSR2, wedge)
