"""The order journal: an order's id is on file before its POST leaves, so a crash can always be asked about.

Owns: one append-only file, `journal/orders.log` in the run directory. Writes: the executor's order manager, one `os.write` per POST, before
the POST. Reads: the executor at its next start.

What it guarantees. Death of the process, by whatever signal at whatever moment: nothing that was appended is lost, because it is the kernel's;
so every order that can have left is on file. Power cut: a thread forces the file to the disk (`kick`, right after the bytes of the POST are out,
while the answer is awaited; writes that come meanwhile share the next turn), so what was written in the last few milliseconds can be missing.
That is no risk of money: a start cancels everything of the account, verifies it by listing, and books the venue's trades, journal or not.
Forcing before the POST would cost the send path a disk flush (milliseconds) and buy only a better explanation after a power cut.

Can go wrong: the last line is torn by a crash (it is ignored: its POST was never sent, because the write comes first); a line is
damaged (skipped and counted); the disk is full or fails (`JournalError`: the POST must not be sent); the file grows (rewritten with the open
orders only, through a temporary file and rename).

Lines, all ASCII, ended by one newline:
    S <order id, 64 hex> <market id> <token> <level> <side> <kind> <price 1e-4> <size 1e-6> <wall ms>    about to be sent
    D <order id> <reason>                                                                        over, for the stated reason (a word)
    L <wall ns>:<1e-6 dollars> ...                                                               how far the result stands below its bests
"""

import os
import re
import threading
from collections.abc import Iterable
from pathlib import Path

COMPACT_BYTES = 8 << 20
_SENT = re.compile(rb"S ([0-9a-f]{64}) (\d+) ([01]) ([0-3]) ([01]) ([0-2]) (\d+) (\d+) (\d+)")
_LOSS = re.compile(rb"L(?: \d+:\d+)*")
_DONE = re.compile(rb"D ([0-9a-f]{64}) (\S+)")


class JournalError(OSError):
    """The order journal cannot be written: no order may be sent."""


class Sent:
    """One order that was about to be sent when the journal ends, and of which no end is known."""

    __slots__ = ("order_id", "market_id", "token", "level", "side", "kind", "px_e4", "size_u6", "wall_ms")

    def __init__(self, order_id: str, market_id: int, token: int, level: int, side: int, kind: int, px_e4: int, size_u6: int, wall_ms: int):
        self.order_id, self.market_id, self.token, self.level = order_id, market_id, token, level
        self.side, self.kind, self.px_e4, self.size_u6, self.wall_ms = side, kind, px_e4, size_u6, wall_ms


def sent_line(digest_hex: str, market_id: int, token: int, level: int, side: int, kind: int, px_e4: int, size_u6: int, wall_ms: int) -> bytes:
    """The write-ahead line of one order; ``digest_hex`` with or without 0x; ``size_u6`` shares, of a taking BUY dollars."""
    return b"S %b %d %d %d %d %d %d %d %d\n" % (digest_hex[-64:].encode(), market_id, token, level, side, kind, px_e4, size_u6, wall_ms)


def sent_lines(market_id: int, wall_ms: int, orders: Iterable[tuple[str, tuple]]) -> bytes:
    """The write-ahead lines of a POST, as `sent_line` makes them: (0x hex digest, (token, level, side, kind, px_e4, size_u6)) of each order."""
    return "".join([f"S {digest_hex[2:]} {market_id} {token} {level} {side} {kind} {px_e4} {size_u6} {wall_ms}\n"
                    for digest_hex, (token, level, side, kind, px_e4, size_u6) in orders]).encode()


def done_line(digest_hex: str, reason: str) -> bytes:
    """The line that closes an order; ``reason`` is one word."""
    return b"D %b %b\n" % (digest_hex[-64:].encode(), reason.encode())


def loss_line(points: list[list[int]]) -> bytes:
    """The line that carries `breaker.LossStop.state` over to the next life."""
    return b"L" + b"".join([b" %d:%d" % (at, below) for at, below in points]) + b"\n"


def replay(path: Path) -> tuple[dict[str, Sent], int, list[list[int]]]:
    """(orders whose end is not on file, by 0x id; count of damaged lines; the newest loss line). A missing file is an empty journal."""
    open_: dict[str, Sent] = {}
    damaged, points = 0, []
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return open_, damaged, points
    lines = data.split(b"\n")
    lines.pop()                     # after the last newline: nothing, or the torn line of a POST that was never sent
    for line in lines:
        if not line:
            continue
        if m := _SENT.fullmatch(line):
            order_id = "0x" + m[1].decode()
            open_[order_id] = Sent(order_id, *(int(v) for v in m.groups()[1:]))
        elif m := _DONE.fullmatch(line):
            open_.pop("0x" + m[1].decode(), None)
        elif _LOSS.fullmatch(line):
            points = [[int(n) for n in pair.split(b":")] for pair in line.split()[1:]]
        else:
            damaged += 1
    return open_, damaged, points


class OrderJournal:
    """The writer. `sync_thread=False` leaves syncing to explicit `sync` calls (tests)."""

    def __init__(self, path: Path, sync_thread: bool = True):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.found, self.damaged, self.found_loss = replay(path)
        self.fd = self._scratch = self._bell = -1
        self.size = self.writes = self.syncs = 0
        self._dirty = self._closing = False
        self._broken = ""
        self._open()
        self._thread = None
        if sync_thread:
            self._bell = os.eventfd(0, os.EFD_CLOEXEC)
            self._thread = threading.Thread(target=self._sync_loop, name="journal-sync", daemon=True)
            self._thread.start()

    def _open(self) -> None:
        self.fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self.fd).st_size
        if self.size and os.pread(self.fd, 1, self.size - 1) != b"\n":
            self.append(b"~\n")     # spoil a torn line (it could read as whole) and start the next one clean

    def append(self, lines: bytes) -> None:
        """Hand whole lines to the kernel. Errors: JournalError; then nothing that depends on the lines may happen."""
        if self._broken:
            raise JournalError(f"order journal {self.path}: {self._broken}")
        try:
            written = os.write(self.fd, lines)
        except OSError as e:
            raise JournalError(f"order journal {self.path}: {e.strerror}") from e
        self.size += written
        self.writes += 1
        self._dirty = True
        if written != len(lines):
            raise JournalError(f"order journal {self.path}: only {written} of {len(lines)} bytes written (disk full?)")

    def rehearse(self, lines: bytes) -> None:
        """Write lines over and over to the start of a scratch file, so that the kernel's write path is warm when it counts."""
        try:
            if self._scratch < 0:
                self._scratch = os.open(self.path.with_suffix(".scratch"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.pwrite(self._scratch, lines, 0)
        except OSError:
            return                  # nothing depends on it; `append` will say that the disk is full

    def kick(self) -> None:
        """Have what was appended forced to the disk, by the thread. Takes a microsecond; call when the bytes of the POST are out."""
        if self._dirty and self._thread:
            os.eventfd_write(self._bell, 1)

    def sync(self) -> None:
        """Force what was appended to the disk."""
        if not self._dirty or self.fd < 0:
            return
        self._dirty = False
        try:
            os.fdatasync(self.fd)
            self.syncs += 1
        except OSError as e:                # what the disk has is unknown from here on; the next `append` says so
            self._broken = e.strerror

    def _sync_loop(self) -> None:
        while not self._closing:
            os.eventfd_read(self._bell)
            self.sync()

    def compact(self, open_lines: list[bytes]) -> None:
        """Rewrite the file to ``open_lines`` (`sent_line` of each order that is not over, a `loss_line`). Errors: OSError."""
        fresh = self.path.with_suffix(".new")
        with open(fresh, "wb") as f:
            f.writelines(open_lines)
            f.flush()
            os.fsync(f.fileno())
        os.replace(fresh, self.path)
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        # The descriptor keeps its number, so that the syncing thread never meets a closed one.
        fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        os.dup2(fd, self.fd, inheritable=False)
        os.close(fd)
        self.size = os.fstat(self.fd).st_size
        self._broken = ""

    def close(self) -> None:
        """Stop the syncing thread, sync, close."""
        self._closing = True
        if self._thread:
            os.eventfd_write(self._bell, 1)
            self._thread.join()
        self.sync()
        for fd in (self.fd, self._scratch, self._bell):
            if fd >= 0:
                os.close(fd)
        self._thread = None
        self.fd = self._scratch = self._bell = -1
