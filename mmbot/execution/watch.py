"""Are the processes that quoting depends on sound, and may we therefore quote? Pure: what was seen and the time are arguments.

Owns: the rule of soundness (`decide`), the memory that turns it into a permission (`Watch`), and the judgement of the heartbeat
chain (`BeatJudge`). Used by the guardian. A process is unsound at once when it is dead or not in state RUN, and when its last
heartbeat is older than the limit. One unsound process ends the permission at once; it comes back only after all have been sound
for a while, so that a process that limps does not make orders come and go.
Source: venue protocol, heartbeat (dead-man switch).
"""

from typing import NamedTuple

from shm_layout.records import GUARD_BIT

WATCHED = ("core", "executor", "feed_market", "feed_user", "feed_oracle")
RUN = 2                         # vitals state of a process that works
REFUSALS = 3                    # wrong heartbeat ids in a row: somebody else beats for this API key
UNREACHABLE_NS = 3_000_000_000  # no accepted heartbeat for so long while trying; the venue itself acts after 10 s


class Seen(NamedTuple):
    """One process as its vitals page shows it: lock held by a live process, state, last heartbeat (CLOCK_MONOTONIC ns)."""
    alive: bool
    state: int
    heartbeat_ns: int


def decide(seen: dict[str, Seen], now_ns: int, unsound_ns: int) -> int:
    """Reason bits (records.GUARD_BIT) of the processes that are unsound; a process that is missing from ``seen`` is unsound."""
    bits = 0
    for name in WATCHED:
        s = seen.get(name)
        if s is None or not s.alive or s.state != RUN or now_ns - s.heartbeat_ns > unsound_ns:
            bits |= GUARD_BIT[name]
    return bits


class Watch:
    """Turns reasons into a permission. ``panic`` is true for the one step at which a permission ends.

    ``reasons`` keeps the bit "start" until everything was sound for the first time.
    """

    __slots__ = ("sound_for_ns", "allowed", "reasons", "panic", "panics", "started", "_since_ns")

    def __init__(self, sound_for_ns: int):
        self.sound_for_ns = sound_for_ns
        self.allowed = self.panic = self.started = False
        self.reasons = GUARD_BIT["start"]
        self.panics = 0
        self._since_ns = -1

    def step(self, bits: int, now_ns: int) -> bool:
        """Take in the reasons of this moment; returns whether permission or reasons changed."""
        before = self.allowed, self.reasons
        self.panic = False
        if bits:
            self.panic = self.allowed
            self.panics += self.panic
            self.allowed, self._since_ns = False, -1
        else:
            if self._since_ns < 0:
                self._since_ns = now_ns
            self.allowed = now_ns - self._since_ns >= self.sound_for_ns
            self.started = self.started or self.allowed
        self.reasons = bits | (0 if self.started else GUARD_BIT["start"])
        return before != (self.allowed, self.reasons)


class BeatJudge:
    """What the answers to heartbeats say. ``next_id`` is the id to send next."""

    __slots__ = ("next_id", "refusals", "trying_since_ns", "accepted_ns", "accepted")

    def __init__(self):
        self.next_id = ""
        self.refusals = self.accepted = 0
        self.trying_since_ns = self.accepted_ns = -1

    def trying(self, now_ns: int) -> None:
        """A heartbeat is about to be sent."""
        if self.trying_since_ns < 0:
            self.trying_since_ns = now_ns

    def ok(self, next_id: str, now_ns: int) -> None:
        """Accepted: the deadline has moved."""
        self.next_id, self.refusals, self.accepted_ns, self.trying_since_ns = next_id, 0, now_ns, -1
        self.accepted += 1

    def wrong_id(self, expected: str) -> bool:
        """The venue expects another id ("" starts a new chain); true when sending that one at once makes sense."""
        self.next_id = expected
        self.refusals += 1
        return self.refusals < REFUSALS

    def pause(self) -> None:
        """Heartbeats are held back on purpose: silence is not the venue's fault."""
        self.trying_since_ns = -1

    def bits(self, now_ns: int) -> int:
        """GUARD_BIT reasons: "heartbeat_refused", "venue_unreachable"."""
        bits = GUARD_BIT["heartbeat_refused"] if self.refusals >= REFUSALS else 0
        if self.trying_since_ns >= 0 and now_ns - self.trying_since_ns > UNREACHABLE_NS:
            bits |= GUARD_BIT["venue_unreachable"]
        return bits


def clock_skew_s(venue_s: int, wall_s: float) -> float:
    """Seconds by which the venue's clock is ahead of ours, beyond what its whole seconds can explain; 0 when they agree."""
    ahead = venue_s - wall_s        # -1 < ahead <= 0 when the clocks agree
    return ahead if ahead > 0 else min(ahead + 1.0, 0.0)
