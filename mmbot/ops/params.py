"""Hot parameters: what is running, what changes, and the way of a new block into a group that trades.

Owns: <run dir>/params.jsonl, the audit trail: one line per block that was offered (when, who, version, each changed key old and new, and the whole table), on
disk before the block is in memory. Writes: segment `params_next`, holding its lock from reading the base until the core has taken the block, so of two
people at once the second is told to wait. Reads: `params`, what the core trades with.
Can go wrong: a value or combination that cannot be (named, nothing written, the old block stays); the group does not run; the core does not take the block
(said with its state: the block stays offered and is taken when the core runs again).
"""

import getpass
import json
import os
import time
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from mmbot import topology
from mmbot.clock import WallClock, mono_ns
from mmbot.config import Settings
from mmbot.config_strategy import WINDOWS, Strategy, explained
from mmbot.errors import UserError
from mmbot.ops.view import View
from mmbot.params import params_block, version_name
from shm_layout.segment import SegmentError, Space
from shm_layout.seqlock import SeqlockWriter

TAKEN_S = 2.0               # a running core looks every 10 ms
POLL_S = 0.0005


@dataclass(frozen=True)
class Offer:
    """What became of an offered block. ``took_ns``: from the start of writing until the core traded with it; None: it did not, ``why`` says why."""
    version: str
    before: str
    changed: dict[str, tuple]
    took_ns: int | None
    why: str = ""


# ---- the table

def flat(table: dict, prefix: str = "") -> dict[str, object]:
    """Dotted key -> value of a table and its tables."""
    out = {}
    for name, value in table.items():
        out |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: list(value) if isinstance(value, tuple) else value}
    return out


def differing(old: Strategy, new: Strategy) -> dict[str, tuple]:
    """Each key whose value differs: (old, new), None where it is not set."""
    a, b = flat(old.model_dump()), flat(new.model_dump())
    return {key: (a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)}


def parsed(text: str) -> tuple[str, object]:
    """(key, value) of KEY=VALUE, the value written as in TOML; a bare word is a string; nothing after = is None. Errors: UserError."""
    key, equals, value = text.partition("=")
    key, value = key.strip().removeprefix("strategy."), value.strip()
    if not equals or not key:
        raise UserError(f"{text!r} is not KEY=VALUE, as in tiered.base_spread=0.03")
    if not value:
        return key, None
    try:
        return key, tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        return key, value


def changed(base: Strategy, assignments: Iterable[tuple[str, object]]) -> Strategy:
    """``base`` with these keys set (None: removed from for_15m or for_5m), judged as a whole. Errors: UserError naming each key."""
    table = base.model_dump()
    for key, value in assignments:
        *path, name = key.split(".")
        at = table
        for step in path:
            at = at.setdefault(step, {})
            if not isinstance(at, dict):
                raise UserError(f"{key}: {step} is a value, not a table")
        if value is not None:
            at[name] = value
        elif path and path[0] in WINDOWS.values() and name in at:
            del at[name]
        else:
            raise UserError(f"{key}: no value given; only what stands in {' or '.join(WINDOWS.values())} can be removed")
    return judged(table)


def judged(table: dict) -> Strategy:
    """The table as parameters. Errors: UserError, one line per fault."""
    try:
        return Strategy.model_validate(table)
    except ValidationError as e:
        raise UserError("refused, nothing is changed:\n" + "\n".join(explained(e))) from None


# ---- the trail

class Trail:
    """The audit trail of one instance: appended to, never rewritten."""

    def __init__(self, run_dir: Path):
        self.path = run_dir / "params.jsonl"

    def entries(self) -> list[dict]:
        """All entries, oldest first. A line that a power cut left half written is passed over."""
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        out = []
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and {"version", "strategy", "when"} <= entry.keys():
                out.append(entry)
        return out

    def add(self, what: str, strategy: Strategy, before: Strategy | None = None) -> dict:
        """Append an entry and force it to disk. ``what``: start, set or rollback. Errors: UserError."""
        entry = {"when": datetime.fromtimestamp(WallClock().now_s(), UTC).isoformat(timespec="milliseconds"), "who": f"{getpass.getuser()}/{os.getpid()}",
                 "what": what, "version": version_of(strategy), "before": version_of(before) if before else None,
                 "changed": differing(before, strategy) if before else {}, "strategy": strategy.model_dump(mode="json")}
        line = json.dumps(entry).encode() + b"\n"
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                if (size := os.fstat(fd).st_size) and os.pread(fd, 1, size - 1) != b"\n":
                    line = b"\n" + line         # after a line that was never finished
                os.write(fd, line)
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as e:
            raise UserError(f"{self.path}: {e.strerror}; no parameter is changed without a trail") from None
        return entry

    def find(self, version: str) -> dict:
        """The newest entry whose version starts with ``version``. Errors: UserError naming the known ones."""
        entries = self.entries()
        fits = {e["version"] for e in entries if e["version"].startswith(version.lower())}
        if len(fits) != 1:
            known = ", ".join(dict.fromkeys(e["version"] for e in reversed(entries))) or "none"
            raise UserError(f"{'no' if not fits else 'more than one'} version starts with {version!r}; known, newest first: {known}")
        return next(e for e in reversed(entries) if e["version"] in fits)


def version_of(strategy: Strategy) -> str:
    """The version that these parameters have as a block."""
    return version_name(params_block(strategy, 0)["version"][0])


# ---- the running group

class Parameters:
    """Parameters of the instance that ``cfg`` describes (the settings of the running group, `mmbot.ops.instance.adopt`)."""

    def __init__(self, cfg: Settings):
        self.cfg, self.view, self.trail = cfg, View(cfg), Trail(cfg.run.path)

    def running(self) -> str:
        """Version that the core trades with, "" before it has said so."""
        block = self.view.latest("params")
        return version_name(block["version"]) if block is not None else ""

    def changes(self) -> int:
        """How often the running block was replaced since the group started."""
        block = self.view.latest("params")
        return int(block["changes"]) if block is not None else 0

    def newest(self) -> str:
        """Version that was accepted last: the offered one, else the one that runs."""
        block = self.view.latest("params_next")
        return version_name(block["version"]) if block is not None else self.running()

    def table(self, version: str) -> Strategy:
        """The table of a version, from the trail or the settings the group started with. Errors: UserError."""
        if version in ("", version_of(self.cfg.strategy)):
            return self.cfg.strategy
        entry = next((e for e in reversed(self.trail.entries()) if e["version"] == version), None)
        if entry is None:
            raise UserError(f"version {version} runs, but {self.trail.path} does not know it: restart the group to trade with its config file again")
        return judged(entry["strategy"])

    def _must_run(self) -> None:
        if not self.view.exists() or not any(self.view.identity(p.name)[0] for p in self.view.rows):
            raise UserError(f"{self.cfg.run.name} is not running: edit its config file, or start it with `mmbot up`")

    def set(self, assignments: Iterable[tuple[str, object]], wait_s: float | None = None) -> Offer:
        """Change keys of the newest parameters. Errors: UserError (busy, refused, not running); nothing is written then."""
        assignments = list(assignments)
        return self._offer("set", lambda base: changed(base, assignments), wait_s)

    def rollback(self, version: str | None = None, wait_s: float | None = None) -> Offer:
        """Offer an earlier version again: the one before the newest, unless ``version`` (or its first digits) names one. Errors: UserError."""
        return self._offer("rollback", lambda base: judged(self._earlier(version, version_of(base))["strategy"]), wait_s)

    def _earlier(self, version: str | None, newest: str) -> dict:
        if version:
            return self.trail.find(version)
        entries = self.trail.entries()
        at = next((i for i in reversed(range(len(entries))) if entries[i]["version"] == newest), len(entries))
        if at < len(entries) and entries[at]["before"]:
            return self.trail.find(entries[at]["before"])
        raise UserError(f"{newest} is the oldest version that {self.trail.path} knows: there is nothing to go back to")

    def _offer(self, what: str, make, wait_s: float | None) -> Offer:
        self._must_run()
        try:
            segment = Space(self.cfg.run.name).own("params_next")
        except SegmentError as e:
            if "is owned by" not in str(e):
                raise
            raise UserError(f"busy: another command is changing the parameters of {self.cfg.run.name} ({str(e).split(':', 1)[1].split(';')[0].strip()}); "
                            "try again in a moment") from None
        try:
            base = self.table(self.newest())
            new = make(base)
            if not any(e["version"] == version_of(base) for e in self.trail.entries()):
                self.trail.add("start", base)
            difference = differing(base, new)
            if difference or version_of(new) != self.running():
                self.trail.add(what, new, base)
                return self._write(SeqlockWriter(segment), new, base, difference, TAKEN_S if wait_s is None else wait_s)
            return Offer(version_of(new), version_of(base), {}, 0)
        finally:
            segment.release()

    def _write(self, writer: SeqlockWriter, new: Strategy, base: Strategy, difference: dict, wait_s: float) -> Offer:
        version, begin = version_of(new), mono_ns()
        writer.rec[:] = params_block(new, begin)
        writer.write()
        while mono_ns() - begin < wait_s * 1e9:
            block = self.view.latest("params")
            if block is not None and version_name(block["version"]) == version:
                return Offer(version, version_of(base), difference, max(int(block["t_update_ns"]) - begin, 0))
            time.sleep(POLL_S)
        state = self.view.state(topology.writer_of("params"))
        why = (f"core is {state}: it takes them when it runs again" if state != "RUN" else
               f"core did not take them within {wait_s:g} s; `mmbot status` shows its last error")
        return Offer(version, version_of(base), difference, None, why)
