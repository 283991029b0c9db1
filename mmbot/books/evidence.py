"""Quiet or dead? The judge of a market's stream, from evidence that does not come through the stream alone.

Owns: what is known about the life of one market's data (`Witness`), and the rules (`verdict`, `links_to_renew`). Pure: time is an argument,
all times monotonic ns. Written and read by the market feed.

A connection that answers PING proves nothing, and a silent market looks like a dead one. So:
* silence alone never convicts. After `quiet_ns` without a frame a REST answer is asked for. The same book as ours: QUIET, verified as of the
  moment of asking, and so again every `every_ns`;
* a REST answer that is newer and different is a claim, not yet a verdict: frames may be under way. A claim that stands for `grace_ns` while no
  frame comes: DEAD. When frames come and do not explain it, a second answer has to say the same: WRONG. One REST answer alone never makes a
  book that frames contradict;
* an answer that is older than our frames, looks like a ghost (0.01/0.99, or empty) or does not carry its own right hash is no evidence;
* a stream that is silent for `dead_ns` without any proof is renewed, unproven: nobody quotes on it, as the age of data shuts the gate;
* of two links one may be dead while the other lives: the one that misses what the other brings is renewed, and quoting goes on;
* both tokens of a market are named by every change: a token that is not named while its sibling is has lost its subscription.

Can go wrong: REST and stream lie alike (nothing can tell); a stream that is late by more than `grace_ns` counts as dead until it catches up,
which is what one wants of it.
"""

ALIVE, QUIET, ASKING, CLAIMED, DEAD, WRONG, UNPROVEN = "alive", "quiet", "asking", "claimed", "dead", "wrong", "unproven"
#: what a REST answer is to our book
SAME, DIFFERENT, OLDER, GHOST, NOTHING = "same", "different", "older", "ghost", "nothing"
RENEW_NS = 5_000_000_000    # a link is renewed no more often than this
TOKEN_NS = 800_000_000      # a token that is not named for so long while its sibling is ...
MISSED = 3                  # ... or a link that has missed so many frames of the other one


class Limits:
    """How long things may take, ns: ``quiet_ns`` without a frame before REST is asked, ``every_ns`` between questions, ``grace_ns`` for frames
    that are under way, ``behind_ns`` for the second link to bring what the first one brought, ``dead_ns`` of silence without a proof."""
    __slots__ = ("quiet_ns", "every_ns", "grace_ns", "behind_ns", "dead_ns")

    def __init__(self, quiet_ns: int = 400_000_000, every_ns: int = 400_000_000, grace_ns: int = 250_000_000, behind_ns: int = 800_000_000,
                 dead_ns: int = 2_000_000_000):
        self.quiet_ns, self.every_ns, self.grace_ns, self.behind_ns, self.dead_ns = quiet_ns, every_ns, grace_ns, behind_ns, dead_ns


class Witness:
    """What is known of one market's data; 0 means never. ``heard_ns``: a frame of this market, on any link; ``proof_ns``: asked then, REST had our
    book; ``asked_ns``: last asked; ``claim_ns``: asked then, REST had a newer and different book (0: no such claim), ``claimed_ns``: when
    that answer came, ``claims``: how many answers said so; ``frozen``: judged dead and not healed since."""
    __slots__ = ("heard_ns", "proof_ns", "asked_ns", "claim_ns", "claimed_ns", "claims", "frozen")

    def __init__(self):
        self.start(0)

    def start(self, now_ns: int) -> None:
        """Another market, or a new stream: nothing is held against it."""
        self.heard_ns, self.proof_ns, self.asked_ns, self.claim_ns, self.claimed_ns, self.claims, self.frozen = now_ns, 0, 0, 0, 0, 0, False

    def fresh_ns(self) -> int:
        """The newest time at which our book is known to have been the venue's."""
        return max(self.heard_ns, self.proof_ns)


def wants_answer(w: Witness, now_ns: int, limits: Limits, doubtful: bool) -> bool:
    """Is REST to be asked about this market now? ``doubtful``: other evidence speaks against our book."""
    if now_ns - w.asked_ns < limits.every_ns:
        return False
    return doubtful or w.frozen or w.claim_ns > 0 or now_ns - w.heard_ns >= limits.quiet_ns


def take_answer(w: Witness, asked_ns: int, now_ns: int, likeness: str) -> None:
    """One REST answer about both tokens of the market, asked for at ``asked_ns``."""
    if likeness == SAME:
        w.proof_ns = max(w.proof_ns, asked_ns)
        w.claim_ns = 0
    elif likeness == DIFFERENT:
        if not w.claim_ns:
            w.claim_ns, w.claimed_ns, w.claims = asked_ns, now_ns, 0
        w.claims += 1


def verdict(w: Witness, now_ns: int, limits: Limits, claim_stands: bool) -> str:
    """What the market's stream is. ``claim_stands``: the book REST claimed still differs from ours in what frames have not changed since.

    Call it often while a claim is open; DEAD is returned once the grace is over and until the claim falls.
    """
    if w.claim_ns and not claim_stands:
        w.claim_ns = 0
    if w.claim_ns:
        if now_ns - w.claimed_ns < limits.grace_ns:
            return CLAIMED
        if w.heard_ns <= w.claim_ns + limits.grace_ns:
            return DEAD
        return WRONG if w.claims > 1 else CLAIMED
    age_ns = now_ns - w.heard_ns
    if age_ns < limits.quiet_ns:
        return ALIVE
    if now_ns - w.proof_ns < limits.every_ns + limits.quiet_ns:
        return QUIET
    return UNPROVEN if now_ns - w.fresh_ns() >= limits.dead_ns else ASKING


class LinkWitness:
    """One of the feed's links: ``made_ns`` 0: not connected; ``missed`` frames others brought since its newest one, the first of them at
    ``missed_ns``; ``whole`` a bit for each slot whose book it has brought as a whole, so that its changes since then are all there are."""
    __slots__ = ("made_ns", "missed", "missed_ns", "renewed_ns", "whole")

    def __init__(self):
        self.made_ns = self.missed = self.missed_ns = self.whole = 0
        self.renewed_ns = -RENEW_NS

    def made(self, now_ns: int) -> None:
        """A new socket."""
        self.made_ns, self.missed, self.whole = now_ns, 0, 0

    def miss(self, now_ns: int) -> None:
        """Another link brought a frame that this one has not brought yet."""
        if not self.missed:
            self.missed_ns = now_ns
        self.missed += 1


def behind(link: LinkWitness, now_ns: int, limits: Limits) -> bool:
    """Whether a connected link has missed what others brought for longer than it may take."""
    return link.made_ns > 0 and link.missed >= MISSED and now_ns - link.missed_ns >= limits.behind_ns


def may_renew(link: LinkWitness, now_ns: int) -> bool:
    """Whether a link may be made anew now."""
    return link.made_ns > 0 and now_ns - max(link.renewed_ns, link.made_ns) >= RENEW_NS


def silent_token(heard_ns: tuple[int, int], since_ns: int, now_ns: int) -> int:
    """The token that frames stopped naming while they go on naming its sibling, -1: none. ``heard_ns`` per token, counted from ``since_ns``."""
    up, down = (max(t, since_ns) for t in heard_ns)
    if abs(up - down) < TOKEN_NS or now_ns - max(up, down) > TOKEN_NS:
        return -1
    return 0 if up < down else 1


def impossible_trade(px_e4: int, side_buy: bool, low_bid_e4: int, high_ask_e4: int) -> bool:
    """A print that our book cannot have made: bought at or below the lowest best bid, or above every best ask, of its time; or the
    mirror. ``low_bid_e4``, ``high_ask_e4``: the lowest best bid and the highest best ask around the print, Up terms; 0 and 10000: none."""
    if side_buy:
        return px_e4 <= low_bid_e4 or px_e4 > high_ask_e4
    return px_e4 >= high_ask_e4 or px_e4 < low_bid_e4
