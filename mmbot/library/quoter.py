"""The core's step, fed from a MarketState: what the running bot would want at that moment, from the same compiled code.

Owns: `Quoter` (STATE of the core, and the records it is fed) and the answer, `Quotes`. Each call continues from the last: averages, volatility and pauses carry
on, so a loop over states is a run. Account, guardian and executor count as sound; every gate that judges data stands.
Can go wrong: a state that lies before the last one (UserError).
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from mmbot import core
from mmbot.config import Settings, load
from mmbot.config_strategy import Strategy, explained, merged
from mmbot.errors import UserError
from mmbot.library.state import OUTCOMES, SIDES, VENUES, MarketState, amount, levels, px_e4, series
from mmbot.params import params_block
from mmbot.programme import Solver
from mmbot.recommendations import quotes_document
from shm_layout import records as r

_SECOND = 1_000_000_000
_BEFORE_NS = 1000 * _SECOND         # monotonic time of the first thing that is known: a core that runs long enough to be warm
_OUTCOME, _SIDE, _KIND = ("up", "down"), ("buy", "sell"), ("post_only", "fak", "fok")


@dataclass(frozen=True)
class Quote:
    """One quote that is wanted: ``outcome`` up or down, ``side`` buy or sell, ``price`` in dollars, ``size`` in shares; of a taking buy (``kind`` fak, fok) in dollars."""
    outcome: str
    side: str
    price: float
    size: float
    layer: int
    kind: str = "post_only"


@dataclass(frozen=True)
class Quotes:
    """The answer: ``quotes``; ``gates`` that are shut (none wanted if a hard one is); the ``fair`` value of Up, and the raw decision (records.TARGET)."""
    quotes: tuple[Quote, ...]
    gates: tuple[str, ...]
    fair: float
    wall_s: float
    target: np.void = field(repr=False)

    def of(self, outcome: str) -> tuple[Quote, ...]:
        """Quotes for one outcome, up or down."""
        return tuple(q for q in self.quotes if q.outcome == outcome)

    def document(self) -> dict:
        """The same as `mm_quotes.json` holds it."""
        return quotes_document(self.target, self.wall_s, int(self.target["t_decide_ns"]))

    def why(self) -> list[str]:
        """The chain from fair value to each price, or the gate that is shut with what it saw: lines of text, as `mmbot why` prints them."""
        from mmbot.clock import WallClock
        from mmbot.ops import why

        t_ns = int(self.target["t_decide_ns"])
        found = why.in_force([self.target], int(self.target["market_id"]), t_ns)
        return why.lines(why.document(found, t_ns, WallClock(int(self.wall_s * 1e9), t_ns), 0.0))


def _strategy(strategy: str | Path | Strategy | Settings, params: dict) -> Strategy:
    """What is meant by the arguments of Quoter. Errors: UserError with one line for each thing that is wrong."""
    if isinstance(strategy, Settings):
        strategy = strategy.strategy
    elif not isinstance(strategy, Strategy):
        try:
            strategy = Strategy(strategy=strategy) if strategy in r.STRATEGIES else load(strategy).strategy
        except UserError as e:
            raise UserError(f"{strategy!r} is no strategy ({', '.join(r.STRATEGIES)}), and no settings can be read from it: {e}") from None
    if not params:
        return strategy
    try:
        return Strategy.model_validate(merged(strategy.model_dump(), params))
    except ValidationError as e:
        raise UserError("\n".join(explained(e, "strategy."))) from None


class Quoter:
    """Quotes for states. ``strategy``: a name (pair, tiered, avellaneda, reversion, programme), a preset or config file, a Strategy or Settings; ``params`` replace single
    values of it: ``Quoter("tiered", levels=3, tiered={"base_spread": 0.03})``. Errors: UserError.
    """

    def __init__(self, strategy: str | Path | Strategy | Settings = "pair", **params):
        self.strategy = _strategy(strategy, params)
        self._block = params_block(self.strategy, 1)
        self._state, self._solver = np.zeros(1, core.STATE), Solver()
        self._state["attached_ns"] = 1
        self._market, self._oracle, self._spot = np.zeros(1, r.MARKET), np.zeros(1, r.ORACLE), np.zeros(1, r.SPOT)
        self._own, self._programme, self._markets = np.zeros(1, r.OWN), np.zeros(1, r.PROGRAMME), np.zeros(1, r.MARKETS)
        self._account, self._guard = np.zeros(1, r.ACCOUNT), np.zeros(1, r.GUARD)
        self._account["state"], self._account["user_ok"] = r.AS_READY, 1
        self._guard["quoting_allowed"] = 1
        self._zero_ns = 0               # wall time at which monotonic time would be 0
        self._last_s: dict[str, float] = {}

    def quote(self, state: MarketState) -> Quotes:
        """What is wanted at the moment of ``state``. Errors: UserError when it lies before the last one."""
        if state.now_s < self._last_s.get("now", 0.0):
            raise UserError(f"now_s {state.now_s:.3f} lies before the last state's {self._last_s['now']:.3f}: a Quoter goes forward; make another one")
        slot = r.slot_of(int(state.start_s), state.duration_s)
        if self._list(state, slot):
            self._hold(state, slot)         # or what is held at the start would look like a fill
        self._play(state, slot)
        self._hold(state, slot)
        self._step(r.SRC_ACCOUNT, state.now_s)
        self._show_own(state, slot)
        self._show_book(state, slot)
        if self.strategy.of(state.duration_s).strategy == "programme":
            self._solve(state, slot)
        self._last_s["now"] = state.now_s
        return self._answer(state, slot)

    # ---- one input of each kind

    def _step(self, src: int, wall_s: float) -> None:
        wall_ns = int(wall_s * 1e9)
        now_ns = self._mono_ns(wall_s)
        self._account["t_update_ns"] = self._guard["t_update_ns"] = now_ns
        core.step(self._state, src, self._market, self._oracle, self._spot, self._own, self._programme, self._markets, self._account, self._guard, self._block,
                  now_ns, wall_ns)

    def _mono_ns(self, wall_s: float) -> int:
        if not self._zero_ns:
            self._zero_ns = int(wall_s * 1e9) - _BEFORE_NS
        return int(wall_s * 1e9) - self._zero_ns

    def _list(self, state: MarketState, slot: int) -> bool:
        """The window, as discovery would list it. True when it was not there before."""
        row, market_id = self._markets["row"][0, slot], r.market_id(int(state.start_s), state.duration_s)
        new = row["market_id"] != market_id
        row["market_id"], row["slot"] = market_id, slot
        row["start_s"], row["end_s"], row["duration_s"] = state.start_s, state.start_s + state.duration_s, state.duration_s
        row["state"], row["accepting"], row["tick_e4"], row["min_size_u6"] = r.MS_OPEN, 1, round(state.tick * 1e4), amount("min_size", state.min_size)
        row["fee_rate_e6"], row["fee_exponent"] = amount("fee_rate", state.fee_rate), state.fee_exponent
        return new

    def _play(self, state: MarketState, slot: int) -> None:
        """Everything that happened since the last state, in order of time: prints, mids, trades."""
        events = [(t, 0, "oracle", px) for t, px in self._new("oracle", series("oracle", state.oracle, state.now_s))]
        for venue, points in state.spot.items():
            events += [(t, 1, venue, px) for t, px in self._new(venue, series(f"spot {venue}", points, state.now_s))]
        key = f"trades {state.start_s} {state.duration_s}"
        events += [(t, 2, *trade) for t, *trade in state.trades if self._last_s.get(key, 0.0) < t <= state.now_s]
        events.sort(key=lambda e: e[:2])
        if events:
            self._mono_ns(events[0][0])
        if state.strike is not None:
            self._print(r.OK_BOUNDARY, float(state.start_s), max(float(state.start_s), events[0][0] if events else state.now_s), state.strike)
        for t, kind, *what in events:
            if kind == 0:
                self._print(r.OK_SPOT, t, t, what[1])
            elif kind == 1:
                self._mid(what[0], t, what[1])
            else:
                self._trade(slot, t, *what)
                self._last_s[key] = t

    def _new(self, name: str, points: np.ndarray) -> np.ndarray:
        """The points of a series that were not there the last time."""
        new = points[points[:, 0] > self._last_s.get(name, 0.0)]
        if len(new):
            self._last_s[name] = float(new[-1, 0])
        return new.tolist()

    def _print(self, kind: int, obs_s: float, recv_s: float, px: float) -> None:
        o = self._oracle
        o["kind"], o["source"], o["px"], o["trusted"], o["t_obs_ms"] = kind, r.OS_RTDS, px, 1, round(obs_s * 1000)
        o["t_recv_ns"] = o["t_pub_ns"] = self._mono_ns(recv_s)
        self._step(r.SRC_ORACLE, recv_s)

    def _mid(self, venue: str, t_s: float, px: float) -> None:
        s = self._spot
        s["kind"], s["venue"], s["bid"], s["ask"], s["px"] = r.SK_BBO, VENUES[venue], px, px, px
        s["t_recv_ns"] = s["t_pub_ns"] = self._mono_ns(t_s)
        self._step(r.SRC_SPOT, t_s)

    def _trade(self, slot: int, t_s: float, side: str, px: float, shares: float) -> None:
        m = self._market
        m["kind"], m["market_id"], m["slot"] = r.MK_TRADE, self._markets["row"][0, slot]["market_id"], slot
        m["trade_side"], m["trade_px_e4"], m["trade_size_u6"] = _code(SIDES, "trades side", side), px_e4("trades price", px), amount("trades size", shares)
        m["t_recv_ns"] = m["t_pub_ns"] = self._mono_ns(t_s)
        self._step(r.SRC_MARKET, t_s)

    def _hold(self, state: MarketState, slot: int) -> None:
        """Cash and shares, all of them confirmed and to be sold freely."""
        p = self._account["position"][0, slot]
        p["market_id"] = self._markets["row"][0, slot]["market_id"]
        for name in _OUTCOME:
            shares = amount(f"{name}_shares", getattr(state, f"{name}_shares"))
            p[f"qty_{name}_u6"] = p[f"confirmed_{name}_u6"] = p[f"sellable_{name}_u6"] = shares
            p[f"cost_{name}_u6"] = amount(f"{name}_cost", getattr(state, f"{name}_cost"))
        self._account["cash_u6"] = amount("cash", state.cash)

    def _show_own(self, state: MarketState, slot: int) -> None:
        """What rests of ours, as the executor would say it."""
        if len(state.own) > r.MAX_OWN:
            raise UserError(f"own holds {len(state.own)} orders: at most {r.MAX_OWN} prices of one window")
        o, now_ns = self._own, self._mono_ns(state.now_s)
        o[:] = np.zeros(1, r.OWN)
        o["market_id"], o["slot"], o["n"], o["t_update_ns"] = self._markets["row"][0, slot]["market_id"], slot, len(state.own), now_ns
        for i, (outcome, side, px, shares) in enumerate(state.own):
            o["order"][0, i] = (_code(OUTCOMES, "own outcome", outcome), _code(SIDES, "own side", side), px_e4("own price", px), amount("own size", shares), now_ns)
        self._step(r.SRC_OWN, state.now_s)

    def _show_book(self, state: MarketState, slot: int) -> None:
        m = self._market
        m[:] = np.zeros(1, r.MARKET)
        m["kind"], m["market_id"], m["slot"], m["tick_e4"] = r.MK_BOOK, self._markets["row"][0, slot]["market_id"], slot, round(state.tick * 1e4)
        m["t_recv_ns"] = m["t_pub_ns"] = self._mono_ns(state.now_s if state.book_s is None else state.book_s)
        for side, found in (("bid", levels("bids", state.bids, -1)), ("ask", levels("asks", state.asks, 1))):
            m[f"n_{side}"] = len(found)
            for i, (px, size) in enumerate(found):
                m[f"{side}_px_e4"][0, i], m[f"{side}_size_u6"][0, i] = px, size
        self._step(r.SRC_MARKET, state.now_s)

    def _solve(self, state: MarketState, slot: int) -> None:
        """The programme process's turn, and what the core makes of it."""
        target, params = self._state["target"][0, slot], self._block["of"][0, r.DURATIONS.index(state.duration_s)]
        if target["q_up"] <= 0:
            return
        solution, _ = self._solver.turn(slot, target, self._account["position"][0, slot], self._market[0], params, int(self._block["version"][0]),
                                        self._mono_ns(state.now_s))
        self._programme[0] = solution
        self._step(r.SRC_PROGRAMME, state.now_s)

    def _answer(self, state: MarketState, slot: int) -> Quotes:
        target = self._state["target"][0, slot].copy()
        quotes = tuple(Quote(_OUTCOME[int(q["token"])], _SIDE[int(q["side"])], int(q["px_e4"]) / 1e4, int(q["size_u6"]) / 1e6, int(q["level"]), _KIND[int(q["kind"])])
                       for q in target["quote"][:int(target["n_quotes"])])
        return Quotes(quotes, tuple(r.gate_names(int(target["gates"]))), float(self._state["seen"][0]["fair"]), state.now_s, target)


def _code(codes: dict[str, int], name: str, word: str) -> int:
    if word not in codes:
        raise UserError(f"{name} is {word!r}: {' or '.join(codes)} is needed")
    return codes[word]
