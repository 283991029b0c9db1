"""Chainlink prints from two sources made one: which arrives first, whether both say the same, who has stopped, which settles a window.

Owns: the merge of the prints by observation time, the prints of the 300 s boundaries with their trust, and the evidence that one source is
frozen. Writes: the ORACLE_STATE record it is given. No sockets; time is an argument. Can go wrong: the sources disagree (the print is not
trusted, for good), a second is missing from both (counted), a boundary's own second is missing (the first print after it stands in, not
trusted), a source falls silent while the other speaks (frozen), both fall silent (nobody can tell why: the age of the data shuts the gates).

Markets are settled by the TWAP-60 print stamped exactly at a window's start and end. Source: venue protocol, RTDS, PolyBolt, resolution rule.
"""

from collections import deque
from typing import NamedTuple

from mmbot.venues.numbers import BadValue, scaled
from shm_layout import records as r

BOUNDARY_MS = 300_000
#: a print later than this after a boundary says too little about it to stand in for it
STAND_IN_MS = 15_000
E18 = 10 ** 18
SECOND_MS = 1_000
#: a second that no source has shown when the newest is so much later is missing
MISSING_MS = 5_000
#: prints kept per kind for comparison: both sources show a print within seconds, a snapshot goes back two minutes
KEPT = 400
MAX_STAMP_MS = 4_000_000_000_000

#: a source of which nothing at all came for so long, while the other showed a newer print this long ago, is frozen ...
SILENT_NS, SLOWER_NS = 1_600_000_000, 500_000_000
#: ... and so is one that owes so many prints of a kind for as many seconds, although it speaks
LAG_PRINTS = 4
#: one connection is given so long before it is suspected again, longer each time
GRACE_NS, MAX_PAUSE_NS = 5_000_000_000, 60_000_000_000
_OTHER = {r.OS_RTDS: r.OS_POLYBOLT, r.OS_POLYBOLT: r.OS_RTDS}
SOURCES = {r.OS_RTDS: "RTDS", r.OS_POLYBOLT: "PolyBolt"}
KINDS = {r.OK_SPOT: "spot", r.OK_TWAP60: "TWAP-60"}


class Print(NamedTuple):
    """One print: OK_* kind, observation time (ms), the source's own time (ns), the exact value in 1e-18 dollars, and OS_* source."""
    kind: int
    t_obs_ms: int
    t_exch_ns: int
    value_e18: int
    source: int = r.OS_RTDS


class Taken(NamedTuple):
    """What became of a print: is it news, does it contradict the other source, and the boundary's place it changed (-1: none)."""
    fresh: bool
    newest: bool
    conflict: str
    boundary: int


def value_e18(text: str) -> int:
    """The exact value in 1e-18 dollars: an integer as text is just that, a decimal point means plain dollars. Errors: BadValue."""
    value = scaled(text, 18 if "." in text else 0)
    if not E18 <= value < 10 ** 9 * E18:
        raise BadValue(f"a price of {text[:60]!r} (1e-18 dollars)")
    return value


def fill(row, p: Print, t_recv_ns: int, trusted: int = 1, kind: int = 0) -> None:
    """Write a print into one ORACLE record (``t_pub_ns`` is the publisher's)."""
    units, frac = divmod(p.value_e18, E18)
    row["kind"], row["source"], row["t_obs_ms"], row["t_exch_ns"] = kind or p.kind, p.source, p.t_obs_ms, p.t_exch_ns
    row["t_recv_ns"], row["px"], row["px_units"], row["px_frac_e18"], row["trusted"] = t_recv_ns, p.value_e18 / E18, units, frac, trusted


def boundary_index(t_obs_ms: int) -> int:
    """Place in ORACLE_STATE.boundary of the 300 s boundary at or before an observation."""
    return t_obs_ms // BOUNDARY_MS % r.BOUNDARIES


def note(state, p: Print, t_recv_ns: int, trusted: int = 1) -> int:
    """Enter a print into an ORACLE_STATE record: newest spot and TWAP, and the print of a boundary.

    Returns the place of the boundary that got a (better) print, -1 if none did. An exact print beats a stand-in, an earlier stand-in
    beats a later one; a boundary's place is taken over by a later boundary and never given back.
    """
    newest = state["spot"] if p.kind == r.OK_SPOT else state["twap60"]
    if p.t_obs_ms >= newest["t_obs_ms"]:
        fill(newest, p, t_recv_ns, trusted)
    past_ms = p.t_obs_ms % BOUNDARY_MS
    if p.kind != r.OK_TWAP60 or past_ms > STAND_IN_MS:
        return -1
    index = boundary_index(p.t_obs_ms)
    held = state["boundary"][index]
    held_ms = int(held["t_obs_ms"])
    same = held_ms // BOUNDARY_MS == p.t_obs_ms // BOUNDARY_MS
    if held_ms and (held_ms // BOUNDARY_MS > p.t_obs_ms // BOUNDARY_MS or (same and held_ms <= p.t_obs_ms)):
        return -1
    fill(held, p, t_recv_ns, int(past_ms == 0 and trusted), r.OK_BOUNDARY)
    return index


def forget_future(state, now_ms: int) -> None:
    """Drop what is stamped later than now: it comes from another run of the simulated clock."""
    for row in (state["spot"], state["twap60"], *state["boundary"]):
        if row["t_obs_ms"] > now_ms + 5_000:
            for name in row.dtype.names:
                row[name] = 0


class Merger:
    """Prints of both sources by (kind, observation time): the first arrival counts, the second is compared digit by digit."""

    def __init__(self, state):
        self._state = state
        self.missing = 0                # seconds that no source has shown
        self._seen: dict[int, dict[int, tuple[int, int]]] = {kind: {} for kind in KINDS}
        self._newest = dict.fromkeys(KINDS, 0)
        self._checked = dict.fromkeys(KINDS, 0)
        self._said_ms = 0
        for row in state["boundary"]:   # a print that was kept over a restart is compared too
            if row["t_obs_ms"]:
                value = int(row["px_units"]) * E18 + int(row["px_frac_e18"])
                self._seen[r.OK_TWAP60][int(row["t_obs_ms"])] = (value, int(row["source"]))

    def take(self, p: Print, t_recv_ns: int) -> Taken:
        """Enter a print; see `Taken`."""
        seen = self._seen[p.kind]
        first = seen.get(p.t_obs_ms)
        if first is not None:
            if first[0] == p.value_e18:
                return Taken(False, False, "", -1)
            return Taken(False, False, self._conflict(p, *first), self._distrust(p.kind, p.t_obs_ms))
        seen[p.t_obs_ms] = (p.value_e18, p.source)
        while len(seen) > KEPT:
            del seen[min(seen)]
        newest = p.t_obs_ms > self._newest[p.kind]
        if p.kind == r.OK_TWAP60 and not self._newest[p.kind]:
            self._said_ms = p.t_obs_ms // BOUNDARY_MS * BOUNDARY_MS      # what was before us is not missing
        if newest:
            self._newest[p.kind] = p.t_obs_ms
            self._count_missing(p.kind)
        return Taken(True, newest, "", note(self._state, p, t_recv_ns))

    @staticmethod
    def _conflict(p: Print, value: int, source: int) -> str:
        what = f"{KINDS[p.kind]} of {p.t_obs_ms}: {SOURCES.get(source, '?')} said {value} and {SOURCES[p.source]} says {p.value_e18} (1e-18 dollars)"
        return what if source != p.source else f"{what}: one source, two values"

    def _distrust(self, kind: int, t_obs_ms: int) -> int:
        """Take the trust from a print wherever it stands; returns the place of its boundary, -1 if it is none."""
        newest = self._state["spot"] if kind == r.OK_SPOT else self._state["twap60"]
        if newest["t_obs_ms"] == t_obs_ms:
            newest["trusted"] = 0
        index = boundary_index(t_obs_ms)
        held = self._state["boundary"][index]
        if kind != r.OK_TWAP60 or held["t_obs_ms"] != t_obs_ms or not held["trusted"]:
            return -1
        held["trusted"] = 0
        return index

    def distrust_boundary(self, t_s: int) -> int:
        """The venue's own word differs from our print at ``t_s``: returns the place of the boundary that lost its trust, -1 if none did."""
        return self._distrust(r.OK_TWAP60, t_s * 1000)

    def _count_missing(self, kind: int) -> None:
        until, at = self._newest[kind] - MISSING_MS, self._checked[kind]
        if not at or until - at > KEPT * SECOND_MS:         # the first, or after so long that nothing can be said
            self._checked[kind] = self._newest[kind] // SECOND_MS * SECOND_MS
            return
        while at + SECOND_MS <= until:
            at += SECOND_MS
            self.missing += at not in self._seen[kind]
        self._checked[kind] = at

    def missing_boundary(self) -> int:
        """Second of a boundary that has passed and got no print at all, said once; 0 when there is none."""
        newest = self._newest[r.OK_TWAP60]
        at = newest // BOUNDARY_MS * BOUNDARY_MS
        if at <= self._said_ms or newest - at <= STAND_IN_MS:
            return 0
        self._said_ms = at
        held = int(self._state["boundary"][boundary_index(at)]["t_obs_ms"])
        return 0 if held // BOUNDARY_MS == at // BOUNDARY_MS else at // 1000


class Watch:
    """Who of the two sources is frozen, by the evidence of the other."""

    def __init__(self) -> None:
        self._heard = dict.fromkeys(SOURCES, 0)
        self._newest = {(s, k): 0 for s in SOURCES for k in KINDS}
        #: what a source has still to show: (observation, when the other one showed it), oldest first
        self._owed: dict[tuple[int, int], deque[tuple[int, int]]] = {(s, k): deque(maxlen=KEPT) for s in SOURCES for k in KINDS}
        self._quiet_until = dict.fromkeys(SOURCES, 0)
        self._pause_ns = dict.fromkeys(SOURCES, GRACE_NS)
        self._accused = dict.fromkeys(SOURCES, False)
        self.false_alarms = 0

    def connected(self, source: int, now_ns: int) -> None:
        """A new link of a source: it owes nothing of what the other showed before."""
        self._heard[source] = now_ns
        self._accused[source] = False
        for kind in KINDS:
            self._owed[source, kind].clear()

    def lost(self, source: int) -> None:
        """No link: no verdict."""
        self._heard[source] = 0

    def heard(self, source: int, now_ns: int) -> None:
        """Data of any kind came from a source. If its silence was just held against it, that was wrong."""
        if self._accused[source]:
            self._accused[source] = False
            self.false_alarms += 1
        self._heard[source] = now_ns

    def seen(self, p: Print, now_ns: int) -> None:
        """A print came: what it covers is owed no more, and the other source owes it if it has not shown it."""
        key, other = (p.source, p.kind), (_OTHER[p.source], p.kind)
        if p.t_obs_ms <= self._newest[key]:
            return
        self._newest[key] = p.t_obs_ms
        self._pause_ns[p.source] = GRACE_NS
        owed = self._owed[key]
        while owed and owed[0][0] <= p.t_obs_ms:
            owed.popleft()
        if p.t_obs_ms > self._newest[other]:
            self._owed[other].append((p.t_obs_ms, now_ns))

    def frozen(self, source: int, now_ns: int) -> str:
        """Why a source must be frozen, "" when nothing says so. Said again after a pause that doubles while the source shows nothing."""
        other, heard = _OTHER[source], self._heard[source]
        if not heard or now_ns < self._quiet_until[source] or now_ns - self._heard[other] > SILENT_NS:
            return ""
        oldest = min((owed[0][1] for kind in KINDS if (owed := self._owed[source, kind])), default=now_ns)
        kind = max(KINDS, key=lambda k: len(self._owed[source, k]))
        owes = len(self._owed[source, kind])
        why = ""
        if now_ns - heard > SILENT_NS and now_ns - oldest > SLOWER_NS:
            why = f"silent for {(now_ns - heard) / 1e9:.1f} s while {SOURCES[other]} prints"
            self._accused[source] = True
        elif owes >= LAG_PRINTS and now_ns - self._owed[source, kind][0][1] > LAG_PRINTS * SECOND_MS * 1_000_000:
            why = f"its {KINDS[kind]} is {owes} prints behind {SOURCES[other]}"
        if why:
            self._quiet_until[source] = now_ns + self._pause_ns[source]
            self._pause_ns[source] = min(2 * self._pause_ns[source], MAX_PAUSE_NS)
        return why
