"""Life of a shared memory segment: made whole or not at all, one writer enforced by the kernel, readers map it read-only.

Owns: names under /dev/shm, creation, checks on attach, the writer's lock and identity, removal. Written by the owner of each
segment; the creator writes the header once. Layout of the header: `header`.

    /dev/shm/mmbot.<run name>.<first 8 digits of the layout hash>.<segment>        for example mmbot.paper.b4783fa3.md.market

  create   a private temporary file is allocated to its full size (so a full /dev/shm is an error here and not a SIGBUS later),
           formatted, its READY word stored last, and then linked to its name: nobody ever sees half a segment. Of two creators
           one wins and the other finds it made.
  attach   checks every header word and says which one is off. The mapping is PROT_READ: a stray write is a numpy error, an
           error while compiling, or a SIGSEGV of the offender, never a change of somebody else's memory.
  own      flock(LOCK_EX) on the segment, held until the process dies (the kernel drops it even after SIGKILL); recover; then
           identity: pid, its start time from /proc (a pid alone can be reused) and an epoch that counts owners.
  wipe     the only way a segment goes. Refused while any lock is held. Nothing is unlinked while the group runs.

Can go wrong: SegmentError, whose text names the segment, what is wrong, and the command that mends it. A mapping lives as long
as its process: numpy views of it are everywhere, so it is never unmapped.
"""

import errno
import fcntl
import mmap
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import posix_ipc

from shm_layout import header as h
from shm_layout import records, ring, seqlock
from shm_layout.atomics import load_word, store_word

DIRECTORY = Path("/dev/shm")
WIPE = "mmbot shm wipe"
_LOCK_TRIES, _LOCK_PAUSE_S = 20, 0.005       # a liveness probe may hold the lock for microseconds
_MAX_BYTES = 1 << 32


class SegmentError(Exception):
    """A segment cannot be used. ``str(e)`` names the segment, what is wrong, and the command that mends it."""


@dataclass(frozen=True)
class Form:
    """What a segment must look like: everything block 0 of the header says."""
    kind: int
    record: np.dtype
    count: int
    stride: int          # bytes
    size: int            # bytes
    name: str            # of the record type

    @classmethod
    def ring(cls, record: np.dtype, depth: int) -> "Form":
        """Form of a ring of ``depth`` slots. Errors: ValueError if depth is not a power of two, at least 2."""
        if depth < 2 or depth & (depth - 1):
            raise ValueError(f"ring depth {depth}: must be a power of two, at least 2")
        stride = h.lines(1 + record.itemsize // 8) * 8
        return cls(h.RING, record, depth, stride, h.DATA * 8 + depth * stride, record_name(record))

    @classmethod
    def seqlock(cls, record: np.dtype, count: int) -> "Form":
        """Form of ``count`` latest values. Errors: ValueError if count < 1."""
        if count < 1:
            raise ValueError(f"seqlock count {count}: must be at least 1")
        stride = seqlock.entry_words(record.itemsize // 8) * 8
        return cls(h.SEQLOCK, record, count, stride, h.DATA * 8 + count * stride, record_name(record))

    @classmethod
    def page(cls, words: int, name: str) -> "Form":
        """Form of one page of ``words`` words whose layout is called ``name``: the vitals of a process."""
        record = words_dtype(words)
        return cls(h.VITALS, record, 1, record.itemsize, h.DATA * 8 + record.itemsize, name)


def words_dtype(words: int) -> np.dtype:
    """A record about which nothing is known but its size in words."""
    return np.dtype([("word", "<i8", (words,))])


def record_name(record: np.dtype) -> str:
    """The name of a dtype of `records`, or "" for any other."""
    return next((name for name, dt in records._REGISTRY.items() if dt == record), "")


def start_time(pid: int) -> int:
    """Start time of a process in clock ticks since boot (/proc/<pid>/stat field 22), 0 if there is no such process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def lock_holder(fd: int) -> int:
    """Pid of the process that holds a flock on the file of ``fd`` according to the kernel, 0 if none is listed."""
    st = os.fstat(fd)
    wanted = f"{os.major(st.st_dev):02x}:{os.minor(st.st_dev):02x}:{st.st_ino}"
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if "->" not in words and len(words) > 5 and words[1] == "FLOCK" and words[5] == wanted and words[3] == "WRITE":
            return int(words[4])
    return 0


class Segment:
    """One mapped segment.

    name: short name; path; kind, record (numpy dtype), count, words (of a record); mem: int64 view of the whole segment,
    read-only unless owned; fd: holds the lock of an owner; inode: what `replaced` compares.
    """

    def __init__(self, name: str, path: Path, fd: int, memory: mmap.mmap, record: np.dtype, writable: bool):
        self.name, self.path, self.fd, self.writable = name, path, fd, writable
        self._memory = memory               # kept for life
        self.mem = np.frombuffer(memory, np.int64)
        self.kind, self.count = int(self.mem[h.W_KIND]), int(self.mem[h.W_COUNT])
        self.record, self.words = record, record.itemsize // 8
        self.inode = os.fstat(fd).st_ino

    def expect(self, kind: int, writable: bool = False) -> None:
        """Errors: SegmentError if this is not a segment of ``kind``, or not owned though it has to be."""
        if self.kind != kind:
            raise SegmentError(f"{self.path}: is a {h.KINDS[self.kind]}, not a {h.KINDS[kind]}; "
                               "use the reader and writer of its kind")
        if writable and not self.writable:
            raise SegmentError(f"{self.path}: is attached read-only; only its owner writes (Space.own)")

    @property
    def epoch(self) -> int:
        """How many owners this segment has had."""
        return load_word(self.mem, h.W_EPOCH)

    @property
    def identity(self) -> tuple[int, int, int]:
        """(pid, start time, epoch) of the last owner; pid 0 if there was none."""
        while True:
            pid = load_word(self.mem, h.W_PID)
            start, epoch = load_word(self.mem, h.W_START), load_word(self.mem, h.W_EPOCH)
            if load_word(self.mem, h.W_PID) == pid:
                return pid, start, epoch

    def replaced(self) -> bool:
        """True if the name now means another file, or none: somebody wiped the segments while this process lived."""
        try:
            return os.stat(self.path).st_ino != self.inode
        except FileNotFoundError:
            return True

    def release(self) -> None:
        """Give up the lock and close the descriptor. The mapping stays: views of it may live on.

        Unlocking is explicit because the mapping holds a duplicate of the descriptor, and with it the lock.
        """
        if self.fd >= 0:
            fcntl.flock(self.fd, fcntl.LOCK_UN)
            os.close(self.fd)
            self.fd = -1


def alive(segment: Segment) -> bool:
    """True if the owner of ``segment`` lives: /proc knows its pid with the same start time, and its lock is held.

    The lock alone decides between dead and alive; it is probed only when the identity fits, so that a probe cannot get into the
    way of a starting owner. Hung is another matter: lock held, heartbeat old.
    """
    pid, start, _ = segment.identity
    if not pid or start_time(pid) != start:
        return False
    if segment.writable:                     # asked by the owner: a probe on its own descriptor would give its lock away
        return segment.fd >= 0
    return not _lock(segment.fd, fcntl.LOCK_SH, keep=False)


def _lock(fd: int, how: int, keep: bool) -> bool:
    """Try a flock; true if it was free."""
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    if not keep:
        fcntl.flock(fd, fcntl.LOCK_UN)
    return True


class Space:
    """All segments of one instance: everything under /dev/shm/mmbot.<run name>.

    run_name: [a-z0-9_-]{1,24} (no dot: names are told apart by it). layout_hash: 64 hex digits, this build's unless given.
    Errors: SegmentError (run name).
    """

    def __init__(self, run_name: str, layout_hash: str = records.LAYOUT_HASH):
        if not re.fullmatch(r"[a-z0-9_-]{1,24}", run_name):
            raise SegmentError(f"run name {run_name!r}: must be 1 to 24 of a-z 0-9 _ - ; set run.name")
        self.run_name, self.layout_hash = run_name, layout_hash
        self.prefix = f"mmbot.{run_name}.{layout_hash[:8]}."
        self.forms: dict[str, Form] = {}

    # -- making --------------------------------------------------------------------------------------------------

    def create_missing(self, rings: dict, seqlocks: dict, vitals: list[str]) -> list[str]:
        """Make the segments that are not there and check those that are. Idempotent, safe against others doing the same.

        rings: name -> spec with .record, .depth; seqlocks: name -> spec with .record, .count; vitals: process names.
        Returns the names that were made. Errors: SegmentError (another layout is there; a segment that does not fit; no room).
        """
        self.forms.update({name: Form.ring(s.record, s.depth) for name, s in rings.items()})
        self.forms.update({name: Form.seqlock(s.record, s.count) for name, s in seqlocks.items()})
        self.forms.update({f"vitals.{name}": _page_form() for name in vitals})
        self._refuse_foreign()
        self._sweep()
        made = [name for name, form in self.forms.items() if not self.path(name).exists() and self._create(name, form)]
        for name in self.forms.keys() - set(made):
            self.attach(name).release()
        return made

    def _create(self, name: str, form: Form) -> bool:
        """Make one segment; false if somebody else was faster."""
        temporary = f"{self.prefix}{name}~{os.getpid()}-{start_time(os.getpid())}"
        shm = posix_ipc.SharedMemory("/" + temporary, posix_ipc.O_CREX, mode=0o600)
        try:
            os.posix_fallocate(shm.fd, 0, form.size)
            _format(np.frombuffer(mmap.mmap(shm.fd, form.size), np.int64), form, self.layout_hash)
            os.link(DIRECTORY / temporary, self.path(name))
            return True
        except FileExistsError:
            return False
        except FileNotFoundError:
            raise SegmentError(f"{self.path(name)}: was wiped while it was being made; start again") from None
        except OSError as e:
            if e.errno != errno.ENOSPC:
                raise
            fs = os.statvfs(DIRECTORY)
            raise SegmentError(f"{self.path(name)}: needs {form.size} bytes and {DIRECTORY} has {fs.f_bavail * fs.f_frsize} "
                               f"free; remove what is not needed (`{WIPE}`) or enlarge it") from None
        finally:
            shm.close_fd()
            (DIRECTORY / temporary).unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove temporary files of creators that died."""
        for path in DIRECTORY.glob(f"{self.prefix}*~*"):
            pid, _, start = path.name.rpartition("~")[2].partition("-")
            if not (pid.isdigit() and start.isdigit() and start_time(int(pid)) == int(start)):
                path.unlink(missing_ok=True)

    # -- finding -------------------------------------------------------------------------------------------------

    def path(self, segment: str) -> Path:
        """File of a segment."""
        return DIRECTORY / (self.prefix + segment)

    def segments(self) -> list[str]:
        """Short names of the segments of this run and layout that exist."""
        return sorted(p.name.removeprefix(self.prefix) for p in DIRECTORY.glob(self.prefix + "*") if "~" not in p.name)

    def foreign(self) -> list[str]:
        """File names of the segments of this run that belong to another layout."""
        ours = f"mmbot.{self.run_name}."
        return sorted(p.name for p in DIRECTORY.glob(ours + "*")
                      if "~" not in p.name and not p.name.startswith(self.prefix) and p.name.removeprefix(ours).count("."))

    def _refuse_foreign(self) -> None:
        if others := self.foreign():
            theirs = others[0].split(".")[2]
            raise SegmentError(f"{DIRECTORY / others[0]}: belongs to a build with layout {theirs}, this build has layout "
                               f"{self.layout_hash[:8]}; stop the other build and run `{WIPE}`")

    def _map(self, name: str, writable: bool) -> tuple[int, mmap.mmap]:
        """(descriptor, mapping) of a segment that is long enough to have a header and as long as it says."""
        path = self.path(name)
        try:
            fd = posix_ipc.SharedMemory("/" + path.name, 0, read_only=not writable).fd
        except posix_ipc.ExistentialError:
            self._refuse_foreign()
            raise SegmentError(f"{path}: does not exist; start the group with `mmbot up`") from None
        except posix_ipc.PermissionsError:
            raise SegmentError(f"{path}: belongs to another user; run as that user, or give this run another run.name") from None
        size = os.fstat(fd).st_size
        if size < h.DATA * 8 or size > _MAX_BYTES or size % 8:
            os.close(fd)
            raise SegmentError(f"{path}: truncated or not a segment, {size} bytes (a header alone has {h.DATA * 8}); "
                               f"run `{WIPE}`")
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        return fd, mmap.mmap(fd, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, prot=protection)

    def _open(self, name: str, writable: bool) -> Segment:
        fd, memory = self._map(name, writable)
        try:
            record = self._check(name, np.frombuffer(memory, np.int64))
        except SegmentError:
            os.close(fd)
            raise
        return Segment(name, self.path(name), fd, memory, record, writable)

    def _check(self, name: str, mem: np.ndarray) -> np.dtype:
        """Compare every word of block 0 with what it must be; returns the record's dtype. Errors: SegmentError."""
        form = self.forms.get(name) or (_page_form() if name.startswith("vitals.") else None)
        said = h.words_text(mem[h.W_NAME:h.W_NAME + h.NAME_WORDS])
        kind, record_bytes, count, stride, size = mem[h.W_KIND:h.W_SIZE + 1].tolist()
        layout = mem[h.W_LAYOUT:h.W_LAYOUT + h.LAYOUT_WORDS].tobytes().hex()
        unknown = words_dtype(min(max(record_bytes // 8, 1), mem.size))
        want = form or Form(kind, records._REGISTRY.get(said, unknown), count, stride, size, said)
        problems = (
            (load_word(mem, h.W_READY) != 1, "was never finished (ready word is not 1)"),
            (mem[h.W_MAGIC] != h.MAGIC, f"is not an mmbot segment (magic {int(mem[h.W_MAGIC]):#x})"),
            (mem[h.W_ABI] != h.ABI, f"has ABI {mem[h.W_ABI]}, this build has {h.ABI}"),
            (layout != self.layout_hash, f"has layout {layout[:8]} inside, this build has layout {self.layout_hash[:8]}"),
            (kind not in h.KINDS, f"is of unknown kind {kind}"),
            (size != mem.size * 8, f"is truncated or grown: {mem.size * 8} bytes, its header says {size}"),
            (kind != want.kind, f"is a {h.KINDS.get(kind)}, this build wants a {h.KINDS.get(want.kind)}"),
            (said != want.name, f"holds records {said!r}, this build wants {want.name!r}"),
            (record_bytes != want.record.itemsize,
             f"has records of {record_bytes} bytes, this build has {want.record.itemsize}"),
            (count != want.count, f"has {count} slots or entries, this build wants {want.count}"),
            (stride != want.stride, f"has a stride of {stride} bytes, this build wants {want.stride}"),
            (count < 1 or stride < record_bytes or h.DATA * 8 + count * stride != size,
             f"is damaged: {count} entries of {stride} bytes do not fill {size} bytes"),
            (kind == h.RING and count & (count - 1), f"is damaged: {count} slots are no power of two"),
        )
        for wrong, text in problems:
            if wrong:
                raise SegmentError(f"{self.path(name)}: {text}; stop the group and run `{WIPE}`")
        return want.record

    def attach(self, segment: str) -> Segment:
        """Map a segment read-only. Errors: SegmentError, one text per header word that is off."""
        return self._open(segment, writable=False)

    # -- owning --------------------------------------------------------------------------------------------------

    def own(self, segment: str) -> Segment:
        """Become the writer of a segment: lock it for life, recover, publish the new identity. Errors: SegmentError.

        A second writer gets an error that names the pid that holds the lock.
        """
        holder = 0
        for _ in range(_LOCK_TRIES):
            seg = self._open(segment, writable=True)
            if not _lock(seg.fd, fcntl.LOCK_EX, keep=True):
                holder = lock_holder(seg.fd) or seg.identity[0]
                seg.release()
                time.sleep(_LOCK_PAUSE_S)
                continue
            if seg.replaced():               # wiped between our open and our lock
                seg.release()
                continue
            if seg.kind == h.RING:
                ring.recover(seg.mem)
            _identify(seg)
            return seg
        raise SegmentError(f"{self.path(segment)}: is owned by pid {holder}; only one process may write it "
                           f"(is a second instance of run {self.run_name!r} running? `mmbot down` stops it)")

    def holders(self) -> dict[str, int]:
        """Who holds the lock of each segment of this run and layout: segment -> pid, 0 if it is free."""
        return {name: self._holder(self.path(name)) for name in self.segments()}

    def _holder(self, path: Path) -> int:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            if _lock(fd, fcntl.LOCK_SH, keep=False):
                return 0
            pid_word = os.pread(fd, 8, h.W_PID * 8)
            return lock_holder(fd) or int.from_bytes(pid_word, "little")
        finally:
            os.close(fd)

    def wipe(self) -> list[str]:
        """Remove every segment of this run, of any layout; returns the file names.

        All locks are taken first, or nothing is removed.
        Errors: SegmentError naming the pids that hold a lock.
        """
        paths = sorted(p for p in DIRECTORY.glob(f"mmbot.{self.run_name}.*") if p.is_file())
        fds, held = [], {}
        try:
            for path in paths:
                fds.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                if "~" not in path.name and not _lock(fds[-1], fcntl.LOCK_EX, keep=True):
                    held[path.name] = self._holder(path)
            if held:
                pids = ", ".join(str(p) for p in sorted(set(held.values())))
                raise SegmentError(f"{DIRECTORY}/mmbot.{self.run_name}.*: {len(held)} segments are in use by pid {pids}; "
                                   "stop the group first with `mmbot down`")
            for path in paths:
                path.unlink(missing_ok=True)
        finally:
            for fd in fds:
                os.close(fd)
        return [path.name for path in paths]


def _page_form() -> Form:
    from shm_layout.vitals import page_form              # vitals builds on this module
    return page_form()


def _format(mem: np.ndarray, form: Form, layout_hash: str) -> None:
    """Write the header and the first stamps of a segment nobody can see yet; READY last. Also touches every page."""
    mem[:] = 0
    mem[h.W_MAGIC], mem[h.W_ABI] = h.MAGIC, h.ABI
    mem[h.W_LAYOUT:h.W_LAYOUT + h.LAYOUT_WORDS] = h.hash_words(layout_hash)
    mem[h.W_KIND], mem[h.W_RECORD_BYTES], mem[h.W_COUNT] = form.kind, form.record.itemsize, form.count
    mem[h.W_STRIDE], mem[h.W_SIZE] = form.stride, form.size
    mem[h.W_NAME:h.W_NAME + h.NAME_WORDS] = h.text_words(form.name, h.NAME_WORDS)
    if form.kind == h.RING:
        mem[h.W_HEAD] = -1
        mem[h.DATA::form.stride // 8] = np.arange(form.count) - form.count
    store_word(mem, h.W_READY, 1)


def _identify(seg: Segment) -> None:
    """Publish the owner's identity; PID is 0 while the three words disagree."""
    store_word(seg.mem, h.W_PID, 0)
    store_word(seg.mem, h.W_START, start_time(os.getpid()))
    store_word(seg.mem, h.W_EPOCH, seg.epoch + 1)
    store_word(seg.mem, h.W_PID, os.getpid())


def verify(segment: Segment) -> list[str]:
    """Self-check of a segment, running or not: what is structurally wrong with its slots, one line each; empty means sound.

    The header has been checked by attach. Ring: every stamp fits its slot and lies within one depth of the head, and at most one
    slot is being written. Seqlock: no version is negative.
    """
    if segment.kind == h.SEQLOCK:
        versions = [seqlock.version(segment.mem, i) for i in range(segment.count)]
        return [f"{segment.path}: entry {i} has version {v}" for i, v in enumerate(versions) if v < 0]
    if segment.kind != h.RING:
        return []
    depth, stamps = segment.count, np.zeros(segment.count, np.int64)
    before = ring.head(segment.mem)
    ring.load_stamps(segment.mem, stamps)
    after = ring.head(segment.mem)
    if before < -1:
        return [f"{segment.path}: head is {before}"]
    out, in_progress = [], 0
    for i, stamp in enumerate(stamps.tolist()):
        writing = (stamp + 1) % depth == i
        in_progress += writing
        number = stamp + writing             # of the record in the slot, or on its way into it
        if number % depth != i:
            out.append(f"{segment.path}: slot {i} carries number {stamp}, which belongs to slot {stamp % depth}")
        elif not (before + 1 if writing else before + 1 - depth) <= number <= after + 1:
            out.append(f"{segment.path}: slot {i} carries number {stamp}, head is {before}")
    if before == after and in_progress > 1:
        out.append(f"{segment.path}: {in_progress} slots are being written, at most one can be")
    return out
