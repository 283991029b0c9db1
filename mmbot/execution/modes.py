"""What the venue as a whole lets us do now: a state machine over its answers. Pure: time is an argument.

Owns: `VenueModes`. Fed by the order manager with every answer, lost answer and round trip; read by it before it posts or cancels, and
published as ``venue_mode`` and ``venue_mode_until_ns`` of the account record.
Can go wrong: the venue says something we do not know (no change of mode: the order's own refusal stands), or contradicts itself (the newest
answer counts). A mode whose end nobody announces is left by proof only, and the proof costs one harmless request at a time.

A mode says four things (`RULES`): may anything be posted, may anything rest (if not, the account's halt bit ``venue_mode`` is set and every
order is cancelled), how cancels are retried, and what proves its end:

    restarting     425. Posts wait, cancels are retried with backoff. Proof: a cancel is answered. Then `post_only` for 120 s, and everything is
                   read again, because nobody says whether orders survive a restart.
    post_only      503 with its code, or assumed after a restart. We only post post-only orders, so quoting goes on. Ends by time.
    cancel_only    503 by text. Nothing rests. Proof: a trial, that is real quotes let through for one request; refused, the wait doubles.
    disabled       503 by text. Nothing is accepted, not even cancels. Proof: a cancel is answered.
    geoblocked     403 by text. Halt and cancel; no other way is tried. The guardian reads the venue's own geoblock page; a trial after a
                   long wait, on the same road, ends it.
    closed_only    400 by text: the account may only close positions. Like geoblocked.
    banned         400 by text. No end but a new start by the operator.
    unauthorized   401. Proof: a cancel is answered (it is authenticated like everything else).
    rate_limited   429. Posts wait as long as told; what rests may rest. Ends by time.
    slow           Answers take longer and longer: how queueing at the edge shows. Nothing rests. Proof: the average is low again.
    unreachable    Several requests in a row lost, or answered by an error page. Nothing rests. Proof: a cancel is answered.

A cancel that proves something is a real one when there is something to cancel, else one for an id that does not exist.
Source: venue protocol, errors; restarts; rate limits.
"""

from typing import NamedTuple

from mmbot.execution.wire import ErrorCode
from shm_layout.records import VENUE_MODE, VENUE_MODES

MS = 1_000_000
S = 1_000 * MS
NEVER_NS = (1 << 63) - 1
NORMAL, RESTARTING, POST_ONLY, CANCEL_ONLY, DISABLED, GEOBLOCKED, CLOSED_ONLY, BANNED, UNAUTHORIZED, RATE_LIMITED, SLOW, UNREACHABLE = (
    VENUE_MODE[n] for n in VENUE_MODES)
POST_ONLY_AFTER_RESTART_NS = 120 * S
LOST_IN_A_ROW = 3                   # requests without a usable answer that make the venue unreachable
LONGEST_WAIT_S = 600.0              # a longer Retry-After is not believed
KEEP_AVERAGE = 0.9


class Rule(NamedTuple):
    """``rest``: orders may rest. ``ends``: "time", "cancel", "post", "average" or "operator". Waits in ns: the first, and the longest, of
    the doubling schedule on which the proof is tried; ``cancel_ns`` the same pair for cancels that were refused."""
    rest: bool
    ends: str
    wait_ns: tuple[int, int] = (0, 0)
    cancel_ns: tuple[int, int] = (100 * MS, 2 * S)


RULES = {
    NORMAL: Rule(True, "time"),
    RESTARTING: Rule(False, "cancel", (250 * MS, 4 * S), (100 * MS, 2 * S)),
    POST_ONLY: Rule(True, "time"),
    CANCEL_ONLY: Rule(False, "post", (2 * S, 15 * S)),
    DISABLED: Rule(False, "cancel", (500 * MS, 5 * S), (250 * MS, 5 * S)),
    GEOBLOCKED: Rule(False, "post", (600 * S, 3600 * S), (500 * MS, 10 * S)),
    CLOSED_ONLY: Rule(False, "post", (300 * S, 3600 * S)),
    BANNED: Rule(False, "operator"),
    UNAUTHORIZED: Rule(False, "cancel", (1 * S, 30 * S), (250 * MS, 5 * S)),
    RATE_LIMITED: Rule(True, "time", (500 * MS, 5 * S), (250 * MS, 2 * S)),
    SLOW: Rule(False, "average", (250 * MS, 250 * MS)),
    UNREACHABLE: Rule(False, "cancel", (250 * MS, 4 * S), (100 * MS, 2 * S)),
}
#: the mode that a refusal means
MODE_OF = {ErrorCode.RESTARTING: RESTARTING, ErrorCode.POST_ONLY_MODE: POST_ONLY, ErrorCode.CANCEL_ONLY: CANCEL_ONLY,
           ErrorCode.DISABLED: DISABLED, ErrorCode.GEOBLOCK: GEOBLOCKED, ErrorCode.CLOSED_ONLY: CLOSED_ONLY, ErrorCode.BANNED: BANNED,
           ErrorCode.UNAUTHORIZED: UNAUTHORIZED, ErrorCode.RATE_LIMITED: RATE_LIMITED}
#: answers that are no word of the matching engine: an error page, a broken body, an edge that refuses
LOST = frozenset({ErrorCode.SERVER, ErrorCode.NOT_UNDERSTOOD, ErrorCode.FORBIDDEN})


class _Backoff:
    """Doubling waits between a first and a longest one."""

    __slots__ = ("first_ns", "most_ns", "next_ns", "again_ns")

    def __init__(self, waits: tuple[int, int]):
        self.set(waits)

    def set(self, waits: tuple[int, int]) -> None:
        self.first_ns, self.most_ns = waits
        self.next_ns, self.again_ns = self.first_ns, 0

    def failed(self, now: int) -> None:
        self.again_ns = now + self.next_ns
        self.next_ns = min(self.next_ns * 2, self.most_ns)


class VenueModes:
    """``mode`` is a VENUE_MODE code, ``until_ns`` until when it was announced to last (0: nobody said).

    ``rests``: may orders rest (and quotes be wanted) now. ``due_ns``: call `tick` when it has come. ``rereads`` grows at the end of each
    episode after which the venue must be read again. ``average_ns`` is the moving average of the round trip.
    """

    __slots__ = ("mode", "until_ns", "rests", "due_ns", "rereads", "why", "average_ns", "slow_ns", "fast_ns",
                 "_proof", "_cancels", "_post_ns", "_lost", "_trial")

    def __init__(self, slow_ms: float = 500.0, fast_ms: float = 200.0):
        self.mode, self.until_ns, self.rests, self.why = NORMAL, 0, True, ""
        self.due_ns = NEVER_NS
        self.rereads = 0
        self.average_ns = 0.0
        self.slow_ns, self.fast_ns = slow_ms * MS, fast_ms * MS
        self._proof, self._cancels = _Backoff((0, 0)), _Backoff(RULES[NORMAL].cancel_ns)
        self._post_ns = 0               # no post before
        self._lost = 0
        self._trial = False

    # ---- what may be done ------------------------------------------------------------------------------------------

    def may_post(self, now: int) -> bool:
        """Whether a post-only order may be posted now."""
        return self.rests and now >= self._post_ns

    @property
    def takes(self) -> bool:
        """Whether an order that takes may be posted when a post-only one may."""
        return self.mode in (NORMAL, RATE_LIMITED)

    def may_cancel(self, now: int) -> bool:
        """Whether a cancel should be tried now; false only between two tries that were refused as a whole."""
        return now >= self._cancels.again_ns

    @property
    def cancel_again_ns(self) -> int:
        """When cancels may be tried again."""
        return self._cancels.again_ns

    @property
    def post_again_ns(self) -> int:
        """When posts may be tried again, as far as time alone decides."""
        return self._post_ns

    def probe_due(self, now: int) -> bool:
        """Whether a cancel should be sent now only to see whether it is answered."""
        return RULES[self.mode].ends in ("cancel", "average") and now >= self._proof.again_ns

    def probe_sent(self, now: int) -> None:
        """A cancel is under way that will prove something; the next one waits its turn."""
        self._proof.failed(now)

    # ---- what the venue says ---------------------------------------------------------------------------------------

    def post_answer(self, code: ErrorCode, wait_s: float, now: int, text: str = "") -> None:
        """A POST was answered: `ErrorCode.NONE` or the reason of a refusal. ``wait_s``: what the venue told us to wait, 0 or less if nothing."""
        if code in LOST:
            self.silent(text or code.name, now)
        elif (mode := MODE_OF.get(code)) is not None:
            self._enter(mode, wait_s, now, text)
            if mode == RATE_LIMITED:
                self._post_ns = max(self._post_ns, self.until_ns if self.mode == RATE_LIMITED else 0)
            elif mode == POST_ONLY:                     # even a post-only order was refused: not at once again
                self._post_ns = now + S
        else:
            self._proved("post", now)

    def cancel_answer(self, code: ErrorCode, wait_s: float, now: int, text: str = "") -> None:
        """A cancel was answered; the same terms as `post_answer`."""
        if code in LOST:
            self.silent(text or code.name, now)
            self._cancels.failed(now)
        elif (mode := MODE_OF.get(code)) is not None:
            if mode != RATE_LIMITED:                    # orders have a bucket of their own
                self._enter(mode, wait_s, now, text)
            self._cancels.failed(now)
            if mode == RATE_LIMITED and wait_s > 0:
                self._cancels.again_ns = now + int(min(wait_s, 5.0) * S)
        else:
            self._cancels.set(RULES[self.mode].cancel_ns)
            self._proved("cancel", now)

    def silent(self, why: str, now: int) -> None:
        """A request was lost: no answer, a cut connection, or an error page instead of an answer."""
        self._lost += 1
        if self._lost >= LOST_IN_A_ROW and self.mode in (NORMAL, POST_ONLY, RATE_LIMITED, SLOW, UNREACHABLE):
            self._enter(UNREACHABLE, 0.0, now, why)

    def round_trip(self, ns: int, now: int) -> None:
        """One measured round trip; for a request without an answer, how long was waited."""
        self.average_ns = average = KEEP_AVERAGE * self.average_ns + (1 - KEEP_AVERAGE) * ns
        if self.mode in (NORMAL, POST_ONLY, RATE_LIMITED):
            if average > self.slow_ns:
                self._enter(SLOW, 0.0, now, f"round trips take {average / MS:.0f} ms on average")
        elif self.mode == SLOW and average < self.fast_ns:
            self._go(NORMAL, 0, "answers are fast again")

    def tick(self, now: int) -> None:
        """Time passes: ends what ends by time, opens a trial that is due."""
        ends = RULES[self.mode].ends
        if ends == "time":
            self._go(NORMAL, 0, "its time is over")
        elif ends == "post":
            self._trial = self.rests = True
            self.due_ns = NEVER_NS

    # ---- moving ----------------------------------------------------------------------------------------------------

    @staticmethod
    def _believed(wait_s: float) -> float:
        return min(max(wait_s, 0.0), LONGEST_WAIT_S)

    def _go(self, mode: int, until_ns: int, why: str) -> None:
        rule = RULES[mode]
        if mode != self.mode:
            self._proof.set(rule.wait_ns)
            self._cancels.set(rule.cancel_ns)
        self.mode, self.until_ns, self.why = mode, until_ns, why
        self.rests, self._trial = rule.rest, False
        self.due_ns = until_ns or NEVER_NS

    def _enter(self, mode: int, wait_s: float, now: int, why: str) -> None:
        if self.mode == BANNED:
            return
        if mode == RATE_LIMITED and self.mode not in (NORMAL, POST_ONLY, RATE_LIMITED):
            return                                      # something graver holds
        rule, told = RULES[mode], int(self._believed(wait_s) * S)
        burst_due = self.due_ns if mode == self.mode and not self._trial else NEVER_NS
        until = now + told if told else self.until_ns if mode == self.mode == POST_ONLY else 0
        if mode == POST_ONLY:
            self.rereads += self.mode == RESTARTING
            until = until or now + POST_ONLY_AFTER_RESTART_NS
        self._lost = self._lost if mode == UNREACHABLE else 0
        self._go(mode, until, why)
        if mode == RATE_LIMITED and not until:
            self._proof.failed(now)
            self.until_ns = self.due_ns = self._proof.again_ns
        elif rule.ends == "post":
            if burst_due != NEVER_NS:                   # one more refusal of the same burst
                self.due_ns = burst_due
            else:
                self._proof.failed(now)
                self.due_ns = max(self._proof.again_ns, until)

    def _proved(self, kind: str, now: int) -> None:
        """The matching engine has answered a request of this kind by itself."""
        self._lost = 0
        ends = RULES[self.mode].ends
        if ends not in ("cancel", "post") or (ends == "post" and (kind != "post" or not self._trial)):
            return
        if self.mode == RESTARTING:
            self.rereads += 1
            self._go(POST_ONLY, now + POST_ONLY_AFTER_RESTART_NS, "the restart is over; post-only is assumed")
            return
        self.rereads += ends == "cancel"
        self._go(NORMAL, 0, f"a {kind} was answered")
