"""Are the processes that quoting depends on sound, and may we therefore quote? Pure: what was seen and the time are arguments.

Owns: the rule of soundness (`decide`), the memory that turns it into a permission (`Watch`), and the judgement of the heartbeat
chain (`BeatJudge`) and of the clocks (`SkewJudge`). Used by the guardian. A process is unsound at once when it is dead, stopped by a
signal or not in state RUN, and when its last heartbeat is older than the limit (its loop is wedged, or the machine is). One unsound
process ends the permission at once; it comes back only after all have been sound for a while, so that a process that limps does not make
orders come and go. A source of which there are several (spot venues) is not watched here: that all of them are silent is seen by the age
of the data.
Source: venue protocol, heartbeat (dead-man switch), authentication.
"""

from collections import deque
from typing import NamedTuple

from shm_layout.records import GUARD_BIT

WATCHED = ("core", "executor", "feed_market", "feed_user", "feed_oracle")
RUN = 2                         # vitals state of a process that works
REFUSALS = 3                    # wrong heartbeat ids in a row: the venue does not take our chain
RIVAL_BREAKS, RIVAL_WINDOW_NS = 3, 30_000_000_000   # our living chain was broken so often in so long: somebody else beats for this key
RIVAL_HOLD_NS = 30_000_000_000  # then leave the chain to the other one for so long
RIVAL_CLEAN = 5                 # and believe that it is ours again after so many beats without a break
CHAIN_NS = 10_000_000_000       # without a beat for so long the venue has forgotten a chain by itself
UNREACHABLE_NS = 3_000_000_000  # no accepted heartbeat for so long while trying; the venue itself acts after 10 s


class Seen(NamedTuple):
    """One process as its vitals page shows it: lock held by a live process, state, last heartbeat (CLOCK_MONOTONIC ns); and whether the
    kernel says that a signal has stopped it."""
    alive: bool
    state: int
    heartbeat_ns: int
    stopped: bool = False


def decide(seen: dict[str, Seen], now_ns: int, unsound_ns: int) -> int:
    """Reason bits (records.GUARD_BIT) of the processes that are unsound; a process that is missing from ``seen`` is unsound."""
    bits = 0
    for name in WATCHED:
        s = seen.get(name)
        if s is None or not s.alive or s.stopped or s.state != RUN or now_ns - s.heartbeat_ns > unsound_ns:
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
    """What the answers to heartbeats say. ``next_id`` is the id to send next.

    A chain has one owner. Two of them correct each other for ever and each finds the venue content after one correction, so that a count
    of refusals in a row would never see it: here each correction of a chain that was alive counts.
    """

    __slots__ = ("next_id", "refusals", "trying_since_ns", "accepted_ns", "accepted", "rival", "_hold_until_ns", "_breaks", "_clean")

    def __init__(self):
        self.next_id = ""
        self.refusals = self.accepted = self._clean = 0
        self.trying_since_ns = self.accepted_ns = self._hold_until_ns = -1
        self.rival = False
        self._breaks: deque[int] = deque(maxlen=RIVAL_BREAKS)

    def trying(self, now_ns: int) -> None:
        """A heartbeat is about to be sent."""
        if self.trying_since_ns < 0:
            self.trying_since_ns = now_ns

    def ok(self, next_id: str, now_ns: int) -> None:
        """Accepted: the deadline has moved."""
        corrected = self.refusals > 0
        self.next_id, self.refusals, self.accepted_ns, self.trying_since_ns = next_id, 0, now_ns, -1
        self.accepted += 1
        self._clean = 0 if corrected else self._clean + 1
        if self._clean >= RIVAL_CLEAN:
            self.rival = False

    def wrong_id(self, expected: str, now_ns: int) -> bool:
        """The venue expects another id ("" starts a new chain); true when sending that one at once makes sense."""
        if self.refusals == 0 and self.next_id and 0 <= self.accepted_ns and now_ns - self.accepted_ns < CHAIN_NS:
            self._breaks.append(now_ns)
            if len(self._breaks) == RIVAL_BREAKS and now_ns - self._breaks[0] < RIVAL_WINDOW_NS:
                self.rival, self._hold_until_ns, self._clean = True, now_ns + RIVAL_HOLD_NS, 0
                self._breaks.clear()
        self.next_id = expected
        self.refusals += 1
        return self.refusals < REFUSALS and not self.holding(now_ns)

    def holding(self, now_ns: int) -> bool:
        """Whether to leave the chain alone because somebody else keeps it."""
        return now_ns < self._hold_until_ns

    def pause(self) -> None:
        """Heartbeats are held back on purpose: silence is not the venue's fault."""
        self.trying_since_ns = -1

    def bits(self, now_ns: int) -> int:
        """GUARD_BIT reasons: "heartbeat_refused", "venue_unreachable"."""
        bits = GUARD_BIT["heartbeat_refused"] if self.rival or self.refusals >= REFUSALS else 0
        if self.trying_since_ns >= 0 and now_ns - self.trying_since_ns > UNREACHABLE_NS:
            bits |= GUARD_BIT["venue_unreachable"]
        return bits


def clock_skew_s(venue_s: int, sent_s: float, answered_s: float) -> float:
    """Seconds by which the venue's clock is surely ahead of ours (negative: behind), 0 when both can agree.

    ``venue_s``: its clock in whole seconds, read at some moment between our ``sent_s`` and ``answered_s`` (wall clock): neither the rounding
    nor a slow answer counts as skew.
    """
    return max(venue_s - answered_s, 0.0) + min(venue_s + 1.0 - sent_s, 0.0)


class SkewJudge:
    """Whether the clocks are too far apart to sign requests: two measurements in a row say so, one takes it back."""

    __slots__ = ("limit_s", "skew_s", "bad", "_over")

    def __init__(self, limit_s: float):
        self.limit_s, self.skew_s = limit_s, 0.0
        self.bad = self._over = False

    def step(self, skew_s: float) -> bool:
        """Take in one measurement (`clock_skew_s`); true when a second one should follow at once."""
        over = abs(skew_s) > self.limit_s
        self.bad, again = over and (self._over or self.bad), over and not self._over
        self.skew_s, self._over = skew_s, over
        return again
