"""Compile every kernel once, in one process, so that a start only loads machine code.

Owns: the marker that says this build is warm. Writes: the cache directory of exactly this build (shm_layout.CACHE_DIR).
Can go wrong: a kernel that does not compile is an error here instead of at a start.
"""

import importlib
import pkgutil
import subprocess
import sys

import mmbot
import shm_layout
from mmbot.clock import mono_ns
from mmbot.errors import UserError

#: packages and modules with compiled code; importing one compiles it, because every kernel has an explicit signature
COMPILED = ("shm_layout", "mmbot.clock", "mmbot.books", "mmbot.signals", "mmbot.quoting", "mmbot.risk", "mmbot.core")
MARKER = shm_layout.CACHE_DIR / "warm"


def modules() -> list[str]:
    """Dotted names of all modules with compiled code."""
    out = []
    for name in COMPILED:
        module = importlib.import_module(name)
        out.append(name)
        if hasattr(module, "__path__"):
            out += [f"{name}.{m.name}" for m in pkgutil.iter_modules(module.__path__)]
    return out


def warm() -> tuple[int, float]:
    """Compile or load everything; returns (modules, seconds)."""
    begin = mono_ns()
    names = modules()
    for name in names:
        importlib.import_module(name)
    MARKER.touch()
    return len(names), (mono_ns() - begin) / 1e9


def ensure(say) -> None:
    """Compile in a process of its own when this build has never been compiled. UserError when that fails."""
    if MARKER.exists():
        return
    say("first start of this build: compiling kernels, this takes a minute")
    done = subprocess.run([sys.executable, "-c", f"from {__name__} import warm; warm()"], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"the kernels do not compile with {mmbot.__name__} from {sys.prefix}: {done.stderr.strip().splitlines()[-1]}")
