"""Looks for secrets wherever a group leaves anything: files, shared memory, what it printed, what the kernel shows of its processes."""

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote


def spellings(text: str) -> set[bytes]:
    """Every way in which a secret might be written down."""
    raw = {text.encode(), text.upper().encode(), text.lower().encode()}
    stripped = text.removeprefix("0x")
    try:
        raw.add(bytes.fromhex(stripped))
    except ValueError:
        pass
    try:
        raw.add(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError:
        pass
    out = set()
    for r in raw:
        out |= {r, r[::-1], r.hex().encode(), r.hex().upper().encode(), quote(r, safe="").encode(), repr(r).encode()[2:-1]}
        for shift in range(3):          # base64 looks different at each offset; the ends depend on the neighbours and are left out
            for encoded in (base64.b64encode(bytes(shift) + r), base64.urlsafe_b64encode(bytes(shift) + r)):
                out.add(encoded[(shift * 4 + 2) // 3 + (shift > 0):-4])
    return {s for s in out if len(s) >= 12}


def places(run_dir: Path, run_name: str, said: list[str], pids: list[int]) -> Iterator[tuple[str, bytes]]:
    """(name, content) of everything that is to be searched."""
    for path in sorted(run_dir.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(run_dir)), path.read_bytes()
    for path in sorted(Path("/dev/shm").glob(f"mmbot.{run_name}.*")):
        yield path.name, path.read_bytes()
    yield "output of commands", "\n".join(said).encode()
    for pid in pids:
        yield f"command line of {pid}", Path(f"/proc/{pid}/cmdline").read_bytes()


def found(secrets: dict[str, str], where: Iterator[tuple[str, bytes]]) -> list[str]:
    """Which secret stands where."""
    wanted = {name: spellings(text) for name, text in secrets.items()}
    return [f"{name} in {place}" for place, content in where for name, ways in wanted.items() if any(w in content for w in ways)]


def environment(pid: int) -> dict[str, str]:
    """What a process was given; checks on the way that nobody but its user can read it."""
    path = Path(f"/proc/{pid}/environ")
    assert os.stat(path).st_mode & 0o077 == 0
    return dict(item.split("=", 1) for item in path.read_bytes().decode().split("\0") if "=" in item)
