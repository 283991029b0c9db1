"""One book per condition, in Up terms: a Down bid at p is an Up ask at 1-p.

Owns: levels, their order, and their cached texts (a frame shows the whole book, so texts are kept per level). Written by `matching`, read
by everybody. What can go wrong: a level changed without `BookSide.touched` keeps its old text, and with it a wrong hash.
"""

import bisect

from mmbot.sim.engine.records import MarketSpec
from mmbot.sim.engine.terms import ONE_E4, PX_TEXT, u6_text
from shm_layout.records import BUY, SELL, UP


class Level:
    """One price level: total shares, those of the recorded market, the queue, and cached JSON texts for both tokens."""
    __slots__ = ("px", "total", "recorded", "queue", "up_json", "down_json")

    def __init__(self, px: int):
        self.px, self.total, self.recorded, self.queue, self.up_json, self.down_json = px, 0, 0, [], "", ""


class BookSide:
    """Levels of one side in Up terms. ``keys`` ascend to the best: prices for bids, negated prices for asks."""
    __slots__ = ("sign", "keys", "levels", "up_text", "down_text")

    def __init__(self, sign: int):
        self.sign, self.keys, self.levels = sign, [], {}
        self.up_text: str | None = ""
        self.down_text = ""

    def best(self) -> int:
        """Best price, 0 when empty."""
        return self.keys[-1] * self.sign if self.keys else 0

    def texts(self) -> tuple[str, str]:
        """JSON level arrays (without brackets) worst first: as seen from the Up token, and mirrored for the Down token."""
        if self.up_text is None:
            ladder = [self.levels[key * self.sign] for key in self.keys]
            self.up_text = ",".join([level.up_json for level in ladder])
            self.down_text = ",".join([level.down_json for level in ladder])
        return self.up_text, self.down_text

    def touched(self, level: Level) -> None:
        """Refresh the cached texts of a level whose total changed; drop the level when it is empty."""
        if level.total <= 0:
            del self.levels[level.px]
            del self.keys[bisect.bisect_left(self.keys, level.px * self.sign)]
        else:
            size = u6_text(level.total)
            level.up_json = f'{{"price":"{PX_TEXT[level.px]}","size":"{size}"}}'
            level.down_json = f'{{"price":"{PX_TEXT[ONE_E4 - level.px]}","size":"{size}"}}'
        self.up_text = None

    def at(self, px: int) -> Level:
        """The level at ``px``, created empty when missing (its owner must call `touched`)."""
        level = self.levels.get(px)
        if level is None:
            level = self.levels[px] = Level(px)
            bisect.insort(self.keys, px * self.sign)
        return level


class Market:
    """One condition: its spec, its book, its state. ``sides[BUY]`` are bids and ``sides[SELL]`` asks in Up terms."""

    def __init__(self, spec: MarketSpec):
        self.spec, self.condition_id = spec, spec.condition_id
        self.tokens = (spec.token_up, spec.token_down)
        self.tick_e4 = spec.tick_e4
        self.sides = (BookSide(1), BookSide(-1))
        self.accepting, self.closed, self.paid, self.outcome = True, False, False, -1
        self.closed_ms = self.resolved_ms = 0
        self.last_px_e4, self.last_side = 0, -1       # of the market, not complemented; px 0: never traded
        self.changed_ms = 0
        self.volume_u6 = 0

    @property
    def bids(self) -> dict[int, list]:
        """Up bids: price -> queue of orders, oldest first."""
        return {px: level.queue for px, level in self.sides[BUY].levels.items()}

    @property
    def asks(self) -> dict[int, list]:
        """Up asks: price -> queue of orders, oldest first."""
        return {px: level.queue for px, level in self.sides[SELL].levels.items()}

    def best(self, outcome: int = UP) -> tuple[int, int]:
        """(bid, ask) of a token in 1e-4; 0 stands for an empty side."""
        bid, ask = self.sides[BUY].best(), self.sides[SELL].best()
        if outcome == UP:
            return bid, ask
        return (ONE_E4 - ask if ask else 0), (ONE_E4 - bid if bid else 0)

    def level_u6(self, side: int, px_e4: int) -> int:
        """Total shares at a level in Up terms."""
        level = self.sides[side].levels.get(px_e4)
        return level.total if level else 0

    def recorded_u6(self, side: int, px_e4: int) -> int:
        """Shares of the recorded market at a level in Up terms."""
        level = self.sides[side].levels.get(px_e4)
        return level.recorded if level else 0

    def state(self) -> dict:
        """What Gamma shows of a market beside its spec (prices in 1e-4, 0 when unknown; outcome -1 until resolved)."""
        bid, ask = self.best()
        return {"tick_e4": self.tick_e4, "accepting": self.accepting, "closed": self.closed, "outcome": self.outcome,
                "closed_ms": self.closed_ms, "resolved_ms": self.resolved_ms, "bid_e4": bid, "ask_e4": ask,
                "last_e4": self.last_px_e4, "volume_u6": self.volume_u6}
