"""What happened during one run, gathered from pictures taken while it went.

Owns: the totals of `mmbot run` (its summary and its JSON document). Pure: pictures in, values out.
Can go wrong: an executor that restarts begins its counters of orders and cancels at zero; the tally adds the parts up.
"""

from dataclasses import asdict, dataclass, field, replace

from mmbot.ops.picture import Picture, lag_json, latency_json, mark_up, split_json
from shm_layout import records as r

#: counters that begin again at zero when the executor restarts; fills do not, because it reads the venue's trades
RESTARTING = ("orders", "cancels", "rejects")
#: gates and missing windows are the strategy's choice; these are not
HALT_WORDS = ("core is", "executor is", "guardian", "account is")


@dataclass
class Window:
    """One window as the run saw it: which outcomes were quoted, the last known shares and what they are worth."""
    slug: str
    quoted: list[bool] = field(default_factory=lambda: [False, False])
    shares: tuple[float, float] = (0.0, 0.0)
    cost: tuple[float, float] = (0.0, 0.0)
    mark_up: float | None = None
    outcome: int = r.NO_OUTCOME


class Tally:
    """Totals over a run. Feed it a picture as often as one is taken; at least twice a second to see every roll."""

    def __init__(self):
        self.windows: dict[int, Window] = {}
        self.halts: list[dict] = []
        self.first_order_s: float | None = None
        self._before = dict.fromkeys(RESTARTING, 0)
        self._last = dict.fromkeys(RESTARTING, 0)
        self._quoted = self._halted = False
        self._panics: int | None = None
        self.last: Picture | None = None

    def add(self, p: Picture, elapsed_s: float) -> None:
        """Take note of one picture, ``elapsed_s`` after the group's start."""
        for name in RESTARTING:
            now = getattr(p.account, name)
            if now < self._last[name]:
                self._before[name] += self._last[name]
            self._last[name] = now
        if self.first_order_s is None and p.account.live_orders:
            self.first_order_s = elapsed_s
        for m in p.markets:
            if m.quotes or m.live_orders or any(m.shares):
                self._window(m)
        self._watch_halts(p, elapsed_s)
        self.last = p

    def finish(self, p: Picture) -> None:
        """Take the last word from a picture of the stopped group: account, positions and latency, but not its lag or its silence."""
        if self.last is None:
            self.last = p
        for name in RESTARTING:
            self._last[name] = max(self._last[name], getattr(p.account, name))
        for m in p.markets:
            if m.market_id in self.windows:
                self._window(m)
        self.last = replace(p, links=self.last.links, processes=self.last.processes)

    def _window(self, m) -> None:
        w = self.windows.setdefault(m.market_id, Window(m.slug))
        for q in m.quotes:
            w.quoted[q.token] = True
        w.shares, w.cost, w.outcome = m.shares, m.cost, m.outcome
        if (mark := mark_up(m)) is not None:
            w.mark_up = mark

    def _watch_halts(self, p: Picture, elapsed_s: float) -> None:
        """A halt is quoting that stopped for another reason than the strategy's own gates."""
        self._quoted |= p.quoting
        halted = self._quoted and not p.quoting and (p.halt_reason or "").startswith(HALT_WORDS)
        panics = p.panics - self._panics if self._panics is not None else 0
        if halted and not self._halted:
            self.halts.append({"at_s": round(elapsed_s, 1), "reason": p.halt_reason})
        elif panics > 0 and not halted and not self._halted and self._quoted:
            self.halts.append({"at_s": round(elapsed_s, 1), "reason": "guardian: panic, over before it was seen"})
        self._halted, self._panics = halted, p.panics

    def total(self, name: str) -> int:
        """One counter over all lives of the executor."""
        return self._before[name] + self._last[name]

    def document(self) -> dict:
        """The one JSON document of `mmbot run --json`."""
        p = self.last
        if p is None:
            raise ValueError("a tally without pictures has no document")
        return {
            "orders": self.total("orders"), "cancels": self.total("cancels"), "fills": p.account.fills, "rejects": self.total("rejects"),
            "late": p.account.late, "late_result": round(p.account.late_result, 6),
            "positions": [{"slug": w.slug, "up": w.shares[0], "down": w.shares[1], "cost_up": round(w.cost[0], 6), "cost_down": round(w.cost[1], 6),
                           "mark_up": w.mark_up, "outcome": {r.UP: "up", r.DOWN: "down"}.get(w.outcome)}
                          for w in self.windows.values() if any(w.shares)],
            "pnl": round(p.account.pnl, 6), "split": split_json(p.account),
            "windows": [{"slug": w.slug, "quoted_up": w.quoted[r.UP], "quoted_down": w.quoted[r.DOWN]} for w in self.windows.values()],
            "settlement": asdict(p.settlement), "halts": self.halts, "latency": latency_json(p.hops), "lag": lag_json(p.links),
        }
