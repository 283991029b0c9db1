"""The segments of an instance, checked one by one: header, slots, lock.

Owns: nothing. Reads: every segment of the run, of this build and of others. A broken segment is a row with a problem, not an error.
"""

from dataclasses import dataclass

from mmbot import config
from shm_layout.header import KINDS
from shm_layout.segment import SegmentError, Space, verify


@dataclass(frozen=True)
class Row:
    """One segment. ``holder`` is the pid that may write it, 0 if nobody runs; ``problem`` is empty when it is sound."""
    name: str
    kind: str = ""
    record: str = ""
    count: int = 0
    size: int = 0
    epoch: int = 0
    holder: int = 0
    problem: str = ""


def inspect(cfg: config.Settings) -> list[Row]:
    """Every segment of the instance, sound or not; empty when there is none."""
    space = Space(cfg.run.name)
    holders = space.holders()
    foreign = [Row(name, problem="belongs to another build; stop that and run `mmbot shm wipe`") for name in space.foreign()]
    return [_look(space, name, holders.get(name, 0)) for name in space.segments()] + foreign


def _look(space: Space, name: str, holder: int) -> Row:
    try:
        segment = space.attach(name)
    except SegmentError as e:
        return Row(name, holder=holder, problem=str(e))
    problems = verify(segment)
    row = Row(name, KINDS[segment.kind], f"{segment.record.itemsize} bytes", segment.count, segment.mem.nbytes, segment.epoch, holder,
              "; ".join(problems))
    segment.release()
    return row
