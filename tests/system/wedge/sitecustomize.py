"""On the path of a group under test: signals that make any of its processes misbehave. Nothing of the product knows about this.

SIGUSR2 wedges a process: its main thread does nothing for WEDGE_S seconds (well beyond the limit that the test groups give the guardian), while
the process lives on, scheduled and unstopped.
SIGUSR1 crashes it: an exception out of nowhere, from a frame whose local variables hold the account's secrets.
"""

import os
import signal
import time


def wedge(_signal, _frame) -> None:
    until = time.monotonic() + float(os.environ.get("WEDGE_S", "3.0"))
    while time.monotonic() < until:
        time.sleep(0.01)


def crash(_signal, _frame) -> None:
    key, secret, account = (os.environ.get(f"MMBOT_ACCOUNT__{n}") for n in ("PRIVATE_KEY", "API_SECRET", "API_PASSPHRASE"))
    raise RuntimeError(f"a crash on purpose, {sum(map(bool, (key, secret, account)))} secrets in sight")


signal.signal(signal.SIGUSR2, wedge)
signal.signal(signal.SIGUSR1, crash)
