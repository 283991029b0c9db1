"""How often a process has died: the memory that ends a crash loop.

Owns: <run dir>/deaths.<process>, one CLOCK_MONOTONIC stamp in ns a line, of each start that found its predecessor dead instead of ended in
order. Writes and reads: each process at its start (`mmbot.actor`). Removed by `mmbot up` and `mmbot restart`: a person has looked.
Can go wrong: a file that cannot be read or written counts as no deaths, because a full disk must not keep the executor from cancelling.
"""

from pathlib import Path

S = 1_000_000_000
STAYS_DOWN = 75             # exit code after which supervisord does not start the process again (exitcodes in supervisor.conf)
LAST_LIFE_S = 2.5           # longer than startsecs there: an exit before that is a failed start to supervisord, and it would try again


def _file(run_dir: Path, name: str) -> Path:
    return run_dir / f"deaths.{name}"


def count(run_dir: Path, name: str, now_ns: int, within_s: float, died: bool) -> int:
    """Deaths of a process within the last ``within_s`` seconds; ``died``: one more was found just now, and is remembered."""
    try:
        stamps = [int(line) for line in _file(run_dir, name).read_text().split()]
    except (OSError, ValueError):
        stamps = []
    recent = [ns for ns in stamps if now_ns - within_s * S <= ns <= now_ns] + [now_ns] * died
    if died:
        try:
            _file(run_dir, name).write_text("".join(f"{ns}\n" for ns in recent))
        except OSError:
            pass
    return len(recent)


def forget(run_dir: Path, name: str = "*") -> None:
    """Start counting afresh, for one process or for all."""
    for path in run_dir.glob(f"deaths.{name}"):
        path.unlink(missing_ok=True)
