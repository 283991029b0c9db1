"""The linear programme of document 4: where the bid and the ask should lie around the fair value, given inventory, volatility, liquidity and depth.

Owns: the statement of the programme, its solution, its base spread and how often it is solved. Written to the `programme` segment by `procs.programme`, read
by the core. Pure apart from scipy's solver, HiGHS. Can go wrong: no feasible point or parameters out of range (`Unsolved`): the last good solution stands until
it is older than valid_ns, then the default spread.

Symbols: f fair value of Up in dollars, q inventory (Up minus Down shares over max_inventory, within [-1, 1]), S base spread.

    S = min_spread + gamma sigma + delta u / (u + L) + zeta u / (u + D), within [min_spread, max_spread]

with sigma the dollars of Up per square root of a second, L the shares at the best prices and D those in all visible levels (mean of both sides), u the size of one
of our orders: thin books widen, deep ones do not.

    variables   b = f - bid, a = ask - f          offsets of the two quotes, in dollars of Up
    minimise    |alpha q S + (a - b) / 2|         inventory risk: what shifting the centre of the quotes against the inventory leaves of it
                + beta (|b| + |a|)                price risk: distance of each quote from the fair value
    subject to  S <= a + b <= max_spread
                -max_spread <= b <= f - tick      the bid is a price, and at most max_spread over fair
                -max_spread <= a <= 1 - tick - f

The absolute values become three more variables u, v, w with two rows each, which makes it linear. Where the price bounds do not bind it has a closed form
(`closed_form`), used by the tests only: a + b = S, and the centre moves by -alpha q S; not beyond half of S if beta >= 1/2, because there each further step
takes both quotes away from fair at a cost of 2 beta, and brings 1.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linprog

from mmbot.inventory import simulated
from shm_layout import records as r

#: time constant of the volatility's average that sets how often the programme is solved
EMA_S = 30.0
NONE, SOLVED, FAILED, BAD_PARAMS = range(len(r.PROGRAMME_STATUSES))
_STRATEGY = r.STRATEGIES.index("programme")
#: rows over (b, a, u, v, w); the right-hand sides of the first two and last two depend on the problem
_ROWS = np.array([[-0.5, 0.5, -1, 0, 0], [0.5, -0.5, -1, 0, 0], [1, 0, 0, -1, 0], [-1, 0, 0, -1, 0], [0, 1, 0, 0, -1], [0, -1, 0, 0, -1],
                  [-1, -1, 0, 0, 0], [1, 1, 0, 0, 0]], float)


class Unsolved(Exception):
    """The programme has no solution; says why."""


@dataclass(frozen=True)
class Problem:
    """One programme: ``fair`` and ``tick`` in dollars, ``inventory`` q in [-1, 1], ``base`` S and ``max_spread`` in dollars."""
    fair: float
    tick: float
    inventory: float
    base: float
    max_spread: float
    alpha: float
    beta: float


@dataclass(frozen=True)
class Solution:
    """Offsets of bid and ask from fair in dollars of Up, and the cost they have."""
    bid_offset: float
    ask_offset: float
    cost: float


def base_spread(own, sigma_px: float, at_best: float, depth: float, unit: float) -> float:
    """Base spread S in dollars; ``own`` is PROGRAMME_PARAMS, sizes in shares."""
    thin = [unit / (unit + max(x, 0.0)) if unit > 0 else 0.0 for x in (at_best, depth)]
    spread = own["min_spread"] + own["gamma"] * max(sigma_px, 0.0) + own["delta"] * thin[0] + own["zeta"] * thin[1]
    return float(min(max(spread, own["min_spread"]), own["max_spread"]))


def cost_of(p: Problem, bid_offset: float, ask_offset: float) -> float:
    """The objective at a point, whether feasible or not."""
    return abs(p.alpha * p.inventory * p.base + 0.5 * (ask_offset - bid_offset)) + p.beta * (abs(bid_offset) + abs(ask_offset))


def solve(p: Problem) -> Solution:
    """The optimal offsets. Raises Unsolved when there is no feasible point or an input is no finite number."""
    if not all(math.isfinite(x) for x in vars(p).values()):
        raise Unsolved("an input is no finite number")
    push = p.alpha * p.inventory * p.base
    right = np.array([-push, push, 0, 0, 0, 0, -p.base, p.max_spread])
    bounds = [(-p.max_spread, p.fair - p.tick), (-p.max_spread, 1.0 - p.tick - p.fair), (0, None), (0, None), (0, None)]
    if any(low > high for low, high in bounds[:2]):
        raise Unsolved(f"no price within a tick of the fair value {p.fair:.4f}")
    found = linprog([0, 0, 1, p.beta, p.beta], _ROWS, right, bounds=bounds, method="highs")
    if found.status != 0:
        raise Unsolved(found.message.split(".")[0])
    return Solution(float(found.x[0]), float(found.x[1]), float(found.fun))


def closed_form(p: Problem) -> Solution:
    """The optimum where neither a price bound nor max_spread binds; see the module's text."""
    centre = -p.alpha * p.inventory * p.base
    if p.beta >= 0.5:
        centre = min(max(centre, -0.5 * p.base), 0.5 * p.base)
    bid, ask = 0.5 * p.base - centre, 0.5 * p.base + centre
    return Solution(bid, ask, cost_of(p, bid, ask))


def validate(own) -> None:
    """Check PROGRAMME_PARAMS as they stand in memory. Raises Unsolved naming the first one that is out of range."""
    for name, low, high in (("alpha", 0, 10), ("beta", 1e-9, 10), ("gamma", 0, 10), ("delta", 0, 1), ("zeta", 0, 1), ("min_spread", 1e-9, 1),
                            ("max_spread", 1e-9, 1), ("max_inventory_u6", 1, math.inf), ("fast_ns", 1, math.inf), ("slow_ns", 1, math.inf)):
        if not low <= own[name] <= high:
            raise Unsolved(f"strategy.programme.{name} = {own[name]} is not within {low} and {high}")
    if own["min_spread"] > own["max_spread"] or own["fast_ns"] > own["slow_ns"]:
        raise Unsolved("strategy.programme: min_spread above max_spread, or fast_ns above slow_ns")


def period_ns(own, ema_sigma: float, sigma_ref: float) -> int:
    """Nanoseconds between solutions: slow_ns at the reference volatility and below, in inverse proportion above it, never less than fast_ns."""
    calm = sigma_ref / ema_sigma if ema_sigma > sigma_ref else 1.0
    return int(min(max(own["slow_ns"] * calm, own["fast_ns"]), own["slow_ns"]))


def for_inventories(p: Problem, inventories) -> list[Solution]:
    """The quotes that ``p`` would have with each of the ``inventories`` (q): what if, without a trade."""
    return [solve(replace(p, inventory=float(np.clip(q, -1, 1)))) for q in inventories]


@dataclass(frozen=True)
class Path:
    """A hypothetical inventory (q) after each point, the result (dollars per unit of q, marked at that point) and the dollars traded there; which limits ended
    it ([]: none) and how it performed."""
    inventory: np.ndarray
    result: np.ndarray
    traded: np.ndarray
    broken: list[str]
    performance: simulated.Performance


def evolve_within(p: Problem, fairs, lot: float, limits: simulated.Limits, step_s: float, inventory: float = 0.0, capital: float = 1.0) -> Path:
    """A hypothetical inventory along a path of fair values, without a trade: quotes solved at each point fill when the next fair value touches them.

    ``lot``: size of one fill in units of q; ``step_s``: seconds between points; ``capital``: dollars per unit of q, for the turnover. When a limit is
    broken quoting ends: what is held then stays, and goes on being marked.
    """
    held, cash, broken, bid, ask = inventory, -inventory * fairs[0] if len(fairs) else 0.0, [], None, None
    rows: list[tuple[float, float, float]] = []
    for fair in fairs:
        before = cash
        if bid is not None and fair <= bid and held + lot <= 1.0:
            held, cash = held + lot, cash - lot * bid
        elif ask is not None and fair >= ask and held - lot >= -1.0:
            held, cash = held - lot, cash + lot * ask
        rows.append((held, cash + held * fair, abs(cash - before)))
        if not broken and limits != simulated.Limits():
            broken = limits.broken(_performance(rows, step_s, capital))
        if broken:
            bid = ask = None
            continue
        found = solve(replace(p, fair=float(fair), inventory=held))
        bid, ask = fair - found.bid_offset, fair + found.ask_offset
    path = np.array(rows).reshape(-1, 3)
    return Path(path[:, 0], path[:, 1], path[:, 2], broken, _performance(rows, step_s, capital))


def _performance(rows, step_s: float, capital: float) -> simulated.Performance:
    return simulated.measure([row[1] for row in rows[1:]], [row[2] for row in rows[1:]], step_s, capital)


def evolve(p: Problem, fairs, lot: float, inventory: float = 0.0) -> tuple[np.ndarray, float]:
    """`evolve_within` no limits. Returns (inventory after each point, result in dollars per unit of q, marked at the last fair value)."""
    path = evolve_within(p, fairs, lot, simulated.Limits(), 1.0, inventory)
    return path.inventory, float(path.result[-1]) if len(fairs) else 0.0


class Solver:
    """The programmes of all windows over time: when each is due, the averaged volatility, and the last good solution."""

    def __init__(self):
        self.kept = np.zeros(r.MARKET_SLOTS, r.PROGRAMME)
        self._next_ns = [0] * r.MARKET_SLOTS
        self._tried_ns = 0
        self.ema_sigma = 0.0

    def due(self, slot: int, params, now_ns: int) -> bool:
        """Whether the programme of ``slot`` is to be solved now; ``params`` is PARAMS of its windows."""
        return int(params["strategy"]) == _STRATEGY and now_ns >= self._next_ns[slot]

    def turn(self, slot: int, target, position, book, params, version: int, now_ns: int):
        """Solve for one window: TARGET, its POSITION and MARKET records. Returns (the PROGRAMME to publish, why it failed or "").

        A failure keeps the offsets and the time of the last good solution.
        """
        own, kept = params["programme"], self.kept[slot]
        market_id = int(target["market_id"])
        if int(kept["market_id"]) != market_id:
            self.kept[slot] = np.zeros((), r.PROGRAMME)
            kept = self.kept[slot]
            kept["market_id"], kept["slot"] = market_id, slot
        self._average(float(target["sigma"]), now_ns)
        kept["params_version"], why = version, ""
        try:
            kept["status"] = BAD_PARAMS
            validate(own)
            kept["status"] = FAILED
            problem = self._problem(target, position, book, params)
            found = solve(problem)
            kept["bid_offset"], kept["ask_offset"], kept["cost"] = found.bid_offset, found.ask_offset, found.cost
            kept["base_spread"], kept["inventory"], kept["t_ns"], kept["status"] = problem.base, problem.inventory, now_ns, SOLVED
        except Unsolved as e:
            kept["failures"] += 1
            why = str(e)
        sane = kept["status"] != BAD_PARAMS
        kept["period_ns"] = period_ns(own, self.ema_sigma, math.sqrt(float(params["var_ref"]))) if sane else 1_000_000_000
        self._next_ns[slot] = now_ns + int(kept["period_ns"])
        return kept, why

    def _average(self, sigma: float, now_ns: int) -> None:
        if not (math.isfinite(sigma) and sigma > 0):
            return
        passed_s = (now_ns - self._tried_ns) * 1e-9
        weight = 1.0 if self.ema_sigma == 0 else 1.0 - math.exp(-max(passed_s, 0.0) / EMA_S)
        self.ema_sigma += weight * (sigma - self.ema_sigma)
        self._tried_ns = now_ns

    @staticmethod
    def _problem(target, position, book, params) -> Problem:
        own, ours = params["programme"], int(position["market_id"]) == int(target["market_id"])
        if int(book["market_id"]) != int(target["market_id"]) or int(book["tick_e4"]) <= 0:
            raise Unsolved("no book of this window")
        held_u6 = int(position["qty_up_u6"] - position["qty_down_u6"]) if ours else 0
        at_best = 0.5e-6 * float(book["bid_size_u6"][0] + book["ask_size_u6"][0])
        depth = 0.5e-6 * float(book["bid_size_u6"].sum() + book["ask_size_u6"].sum())
        base = base_spread(own, float(target["sigma_px"]), at_best, depth, float(params["base_size_u6"]) * 1e-6)
        return Problem(float(target["q_up"]), int(book["tick_e4"]) * 1e-4, float(np.clip(held_u6 / int(own["max_inventory_u6"]), -1, 1)), base,
                       float(own["max_spread"]), float(own["alpha"]), float(own["beta"]))
