"""What the bot thinks: pure logic, venue formats, the process harness and the command line.

Imports `shm_layout`, is imported by `procs`. Nothing in here starts by being imported. For notebooks: Quoter, MarketState, Quotes, read_state (`mmbot.library`), loaded when
they are asked for.
"""

import shm_layout  # noqa: F401  first of all: it says where numba keeps compiled code

__all__ = ["MarketState", "Quoter", "Quotes", "read_state"]
_HOME = {"MarketState": "state", "Quoter": "quoter", "Quotes": "quoter", "read_state": "files"}


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'mmbot' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"mmbot.library.{_HOME[name]}"), name)
