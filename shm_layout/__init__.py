"""What is in memory: the records, the segments that hold them, and the only code that orders memory.

Owns: `records` (dtypes), `header` and `segment` (life of a shared memory segment), `atomics`, `ring`, `seqlock`, `vitals`; and
the place where compiled code is cached. Knows nothing about trading and imports nothing from mmbot.

Import this package before numba: on import it points NUMBA_CACHE_DIR at a directory whose name holds LAYOUT_HASH and a hash
of every compiled source. numba itself does not notice when a constant imported from another file changes, so machine code of
another layout must live under another name. $MMBOT_CACHE moves the cache (default ~/.cache/mmbot).
Can go wrong: no home, or a cache directory that cannot be written; then a private directory under the system's temporary
directory is used, and only start-up time is lost.
"""

import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from shm_layout.records import LAYOUT_HASH

#: caches of this many builds are kept; older ones go when a new one is made
CACHES_KEPT = 8
_SOURCES = ("shm_layout/*.py", "mmbot/books/*.py", "mmbot/signals/*.py", "mmbot/quoting/*.py", "mmbot/risk/*.py",
            "mmbot/core/*.py", "mmbot/clock.py")


def sources_hash(root: Path) -> str:
    """First 8 hex digits of the hash of every compiled source under ``root``, the directory that holds the packages."""
    h = hashlib.sha256()
    for pattern in _SOURCES:
        for path in sorted(root.glob(pattern)):
            h.update(path.name.encode() + b"\0" + path.read_bytes())
    return h.hexdigest()[:8]


def _usable(path: Path) -> bool:
    """Make ``path``; true if it is a directory of this user in which files can be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        return path.stat().st_uid == os.geteuid() and os.access(path, os.W_OK | os.X_OK)
    except OSError:
        return False


def _prune(caches: Path, keep: Path) -> None:
    others = sorted((p for p in caches.iterdir() if p.is_dir() and p != keep), key=lambda p: p.stat().st_mtime)
    for old in others[:max(0, len(others) - CACHES_KEPT + 1)]:
        shutil.rmtree(old, ignore_errors=True)


def cache_dir() -> Path:
    """Directory for compiled code of exactly this build; made if missing. Falls back to the temporary directory."""
    root = Path(__file__).resolve().parent.parent
    build = f"{LAYOUT_HASH[:8]}-{sources_hash(root)}"
    wanted = Path(os.environ.get("MMBOT_CACHE") or os.path.expanduser("~/.cache/mmbot")) / "numba"
    private = Path(tempfile.gettempdir()) / f"mmbot-{os.geteuid()}" / "numba"
    for caches in (wanted, private):
        new = not (caches / build).exists()
        if _usable(caches / build):
            if new:
                _prune(caches, caches / build)
            return caches / build
    return Path(tempfile.mkdtemp(prefix="mmbot-numba-"))


def _point_numba_at(path: Path) -> None:
    os.environ["NUMBA_CACHE_DIR"] = str(path)
    if "numba" in sys.modules:          # too late for the environment: numba read it when it was imported
        sys.modules["numba"].config.CACHE_DIR = str(path)


CACHE_DIR = cache_dir()
_point_numba_at(CACHE_DIR)
