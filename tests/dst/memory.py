"""Shared memory of a simulated group: real segments' layout, real rings, seqlocks and vitals, over private arrays.

Owns: one array per segment, and who lives. The kernels that work on them are the ones of the real system. What can go wrong: nothing;
the rules of ownership (locks) are not simulated, the topology decides who gets a writer.
"""

from pathlib import Path

import numpy as np

from mmbot import topology
from shm_layout import header as h
from shm_layout import ring, segment
from shm_layout.seqlock import SeqlockWriter
from shm_layout.vitals import page_form

PIDS = {p.name: 100 + i for i, p in enumerate(topology.PROCESSES)}


class Mapped(segment.Segment):
    """A segment over an array."""

    def __init__(self, name: str, mem: np.ndarray, record, writable: bool):
        self.name, self.path, self.fd, self.inode, self.writable = name, Path(name), -1, 0, writable
        self.mem = mem
        self.kind, self.count = int(mem[h.W_KIND]), int(mem[h.W_COUNT])
        self.record, self.words = record, record.itemsize // 8

    def replaced(self) -> bool:
        return False

    def release(self) -> None:
        pass


class Memory:
    """All segments of a group. ``living``: names of the processes that run."""

    def __init__(self):
        forms = {name: segment.Form.ring(s.record, s.depth) for name, s in topology.RINGS.items()}
        forms |= {name: segment.Form.seqlock(s.record, s.count) for name, s in topology.SEQLOCKS.items()}
        forms |= {f"vitals.{p.name}": page_form() for p in topology.PROCESSES}
        self.forms, self.arrays, self.living = forms, {}, set()
        for name, form in forms.items():
            mem = self.arrays[name] = np.zeros(form.size // 8, np.int64)
            segment._format(mem, form, "0" * 64)

    def own(self, name: str) -> Mapped:
        """The writer's view; counts owners."""
        seg = Mapped(name, self.arrays[name], self.forms[name].record, True)
        if seg.kind == h.RING:
            ring.recover(seg.mem)
        seg.mem[h.W_EPOCH] += 1
        seg.mem[h.W_PID] = PIDS.get(name.removeprefix("vitals."), 1)
        return seg

    def attach(self, name: str) -> Mapped:
        """A reader's view: read-only."""
        mem = self.arrays[name].view()
        mem.flags.writeable = False
        return Mapped(name, mem, self.forms[name].record, False)

    def alive(self, seg: Mapped) -> bool:
        """Stands in for `shm_layout.vitals.alive`."""
        return seg.name.removeprefix("vitals.") in self.living


class TellingWriter(SeqlockWriter):
    """A seqlock writer that also calls somebody (who would have polled)."""

    def __init__(self, seg: Mapped, tell):
        super().__init__(seg)
        self._tell = tell

    def write(self, index: int = 0) -> int:
        version = super().write(index)
        self._tell()
        return version
