"""Which of several links brought a frame first.

Owns: how often each link has brought each recent frame. A frame is new when its link has now brought it more often than any other: a venue
that says the same thing twice on one link is heard twice, and what comes again on the other link is heard once. Pure: no clock; two
generations of frames are kept, so memory is bounded. Read and written by one decoder.
Can go wrong: a frame that differs by a byte between two links is new on both; whoever takes frames must bear that.
"""

GENERATION = 4096           # frames; a link that is further behind than this brings everything anew
GENERAL = 15                # a frame that belongs to no single market
_LINK_BITS, _LINK_MASK = 12, (1 << 12) - 1


class FirstArrival:
    """links: how many bring the same stream (at most 4)."""

    def __init__(self, links: int):
        self._links = links
        self._new: dict[int, int] = {}
        self._old: dict[int, int] = {}
        self._key = 0

    def forget(self, link: int) -> None:
        """A link is new: what its predecessor brought does not count for it."""
        keep = ~(_LINK_MASK << (4 + _LINK_BITS * link))
        for frames in (self._new, self._old):
            for key in frames:
                frames[key] &= keep

    def seen(self, data: bytes, link: int) -> int:
        """Count a frame of ``link``. -1: its first arrival (`name` may then say which slot it is of), else its slot or GENERAL."""
        key = self._key = hash(data)
        word = self._new.get(key)
        if word is None:
            word = self._old.get(key, GENERAL)
            if len(self._new) >= GENERATION:
                self._old, self._new = self._new, {}
        shift = 4 + _LINK_BITS * link
        mine = (word >> shift & _LINK_MASK) + 1
        most = 0
        for other in range(self._links):
            if other != link:
                most = max(most, word >> (4 + _LINK_BITS * other) & _LINK_MASK)
        if mine <= _LINK_MASK:
            word += 1 << shift
        self._new[key] = word
        return -1 if mine > most else word & 15

    def name(self, slot: int) -> None:
        """Say of which slot the frame is that `seen` was asked about last."""
        self._new[self._key] = self._new[self._key] & ~15 | slot
