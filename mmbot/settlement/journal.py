"""The settler's journal: an operation is on file, signed, before it is sent, so a crash can always be asked about.

Owns: one append-only file, `journal/settlement.log` in the run directory, a JSON object a line: ["op", Op] for each step of an operation, ["window",
Held] for each window we held shares of. The last line about one of them is the truth. Writes: the settler, each line forced to disk (operations are
rare). Reads: the settler and the executor at their start; the executor rebuilds its positions from trades and from the merges on file here.
Can go wrong: the last line is torn (what it tells of was not sent: the write comes first); a damaged line (skipped, counted); no room (OSError: then
nothing is sent).
"""

import os
from pathlib import Path

import msgspec

from shm_layout.records import NO_OUTCOME, SS_CONFIRMED, SS_FAILED, SS_WANTED

FILE = Path("journal") / "settlement.log"
PAUSE_FILE = Path("pause_merges")       # in the run directory: while it is there nothing is merged
KEEP_OPS = 512                  # final operations that a compacted journal keeps
COMPACT_BYTES = 4 << 20
FINAL = (SS_FAILED, SS_CONFIRMED)


class Op(msgspec.Struct):
    """One operation. kind SK_*, state SS_*; sizes and dollars 1e-6. ``body``: what was signed, exactly as it is sent (again); ``nonce`` of the wallet and
    ``deadline_s`` of the signature (0: none); ``block``: the chain's newest when it was signed; ``relayer_id``, ``tx``: names, once known; ``doubt``: it
    was sent and nobody answered; ``paid_u6``: what came; ``reason`` one of SETTLEMENT_REASONS, ``text`` what the other side said."""
    number: int
    kind: int
    market_id: int
    up_u6: int
    down_u6: int
    payout_u6: int
    cost_u6: int
    outcome: int = NO_OUTCOME
    state: int = SS_WANTED
    nonce: int = 0
    deadline_s: int = 0
    block: int = 0
    body: str = ""
    relayer_id: str = ""
    tx: str = ""
    doubt: bool = False
    paid_u6: int = 0
    reason: str = ""
    text: str = ""
    t_ns: int = 0
    wall_ms: int = 0

    @property
    def final(self) -> bool:
        """Is its fate known?"""
        return self.state in FINAL


class Held(msgspec.Struct):
    """A window of which we held shares: enough to redeem it when the market table has forgotten it. ``qty_u6`` confirmed shares,
    ``cost_u6`` of all that is booked: as last seen."""
    market_id: int
    condition: str
    tokens: tuple[str, str]
    version: int
    neg_risk: bool
    outcome: int = NO_OUTCOME
    qty_u6: tuple[int, int] = (0, 0)
    cost_u6: tuple[int, int] = (0, 0)
    done: bool = False


def replay(path: Path) -> tuple[dict[int, Op], dict[int, Held], int]:
    """(operations by number, windows that are not done by market id, damaged lines). A missing file is an empty journal."""
    ops, windows, damaged = _read(path)
    return ops, {m: h for m, h in windows.items() if not h.done}, damaged


def taken_u6(path: Path, *kinds: int) -> tuple[dict[str, int], set[int]]:
    """(shares by token id that confirmed operations of these kinds have taken from the wallet, payouts of operations under way).

    For commands that know our trades only: what was settled is in none of them.
    """
    ops, windows, _ = _read(path)
    taken: dict[str, int] = {}
    for op in ops.values():
        if op.state == SS_CONFIRMED and op.kind in kinds and op.market_id in windows:
            for token, size_u6 in zip(windows[op.market_id].tokens, (op.up_u6, op.down_u6), strict=True):
                taken[token] = taken.get(token, 0) + size_u6
    return taken, {op.payout_u6 for op in ops.values() if not op.final}


def _read(path: Path) -> tuple[dict[int, Op], dict[int, Held], int]:
    ops: dict[int, Op] = {}
    windows: dict[int, Held] = {}
    damaged = 0
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return ops, windows, 0
    for line in data.split(b"\n")[:-1]:
        try:
            kind, about = msgspec.json.decode(line)
            if kind == "op":
                op = msgspec.convert(about, Op)
                ops[op.number] = op
            else:
                held = msgspec.convert(about, Held)
                windows[held.market_id] = held
        except (msgspec.MsgspecError, ValueError, TypeError):
            damaged += 1
    return ops, windows, damaged


class SettlementJournal:
    """The writer. ``ops``, ``windows``: what is on file."""

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.ops, self.windows, self.damaged = replay(path)
        if path.exists() and path.stat().st_size > COMPACT_BYTES:
            self._compact()
        self.fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = os.fstat(self.fd).st_size
        if size and os.pread(self.fd, 1, size - 1) != b"\n":
            os.write(self.fd, b"~\n")       # spoil a torn line: it could read as whole, and what it tells of was never sent

    @property
    def next_number(self) -> int:
        """Number of the next operation."""
        return max(self.ops, default=0) + 1

    def op(self, op: Op) -> None:
        """One step of an operation. Errors: OSError; then nothing may be sent."""
        self.ops[op.number] = op
        self._append("op", op)

    def window(self, held: Held) -> None:
        """A window, new or changed."""
        self.windows[held.market_id] = held
        if held.done:
            del self.windows[held.market_id]
        self._append("window", held)

    def _append(self, kind: str, about) -> None:
        line = msgspec.json.encode([kind, about]) + b"\n"
        if os.write(self.fd, line) != len(line):
            raise OSError(28, "only a part of a line was written", str(self.path))
        os.fdatasync(self.fd)

    def _compact(self) -> None:
        """Rewrite the file to what still matters, through a temporary file."""
        final = [op for op in self.ops.values() if op.final]
        gone = {op.number for op in final[:-KEEP_OPS]}
        self.ops = {n: op for n, op in self.ops.items() if n not in gone}
        fresh = self.path.with_suffix(".new")
        with open(fresh, "wb") as f:
            f.writelines(msgspec.json.encode(["op", op]) + b"\n" for op in self.ops.values())
            f.writelines(msgspec.json.encode(["window", held]) + b"\n" for held in self.windows.values())
            f.flush()
            os.fsync(f.fileno())
        os.replace(fresh, self.path)

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)
