"""A small world around `mmbot.core.step`: one call per kind of input, a clock moved by hand. For tests only."""

import math

import numpy as np

from mmbot import core
from mmbot.config import Strategy
from mmbot.params import params_block
from shm_layout import records as r

START_S = 1_775_028_600         # a 15 minute boundary
SECOND = 1_000_000_000
PX = 84_000.0


class World:
    """Inputs and state of a core. ``offset_s`` is the wall clock's distance from START_S; monotonic time starts at 1000 s."""

    def __init__(self, offset_s=300.0, **strategy):
        self.params = params_block(Strategy(**{"warmup_ns": 0, **strategy}), 1)
        self.state = np.zeros(1, core.STATE)
        self.market, self.oracle, self.spot = np.zeros(1, r.MARKET), np.zeros(1, r.ORACLE), np.zeros(1, r.SPOT)
        self.own, self.programme = np.zeros(1, r.OWN), np.zeros(1, r.PROGRAMME)
        self.markets, self.account, self.guard = np.zeros(1, r.MARKETS), np.zeros(1, r.ACCOUNT), np.zeros(1, r.GUARD)
        self.now_ns, self.rtt_ns = 1000 * SECOND, 0
        self.wall_ns = int((START_S + offset_s) * SECOND)
        self.account["t_update_ns"], self.account["state"], self.account["user_ok"] = self.now_ns, r.AS_READY, 1
        self.account["cash_u6"] = 1_000_000_000
        self.guard["t_update_ns"], self.guard["quoting_allowed"] = self.now_ns, 1

    def add_window(self, start_s=START_S, tick_e4=100, duration_s=900, **fields):
        slot = r.slot_of(start_s, duration_s)
        row = self.markets["row"][0, slot]
        row["market_id"], row["slot"] = r.market_id(start_s, duration_s), slot
        row["start_s"], row["end_s"], row["duration_s"] = start_s, start_s + duration_s, duration_s
        row["state"], row["accepting"], row["tick_e4"], row["min_size_u6"] = r.MS_OPEN, 1, tick_e4, 5_000_000
        for name, value in fields.items():
            row[name] = value
        self.markets["t_update_ns"] = self.now_ns
        return slot

    def wait(self, seconds):
        self.now_ns += int(seconds * SECOND)
        self.wall_ns += int(seconds * SECOND)
        return self

    def step(self, src):
        return core.step(self.state, src, self.market, self.oracle, self.spot, self.own, self.programme, self.markets, self.account,
                         self.guard, self.params, self.now_ns, self.wall_ns)

    def timer(self):
        return self.step(r.SRC_TIMER)

    def book(self, bid_e4=5000, ask_e4=5100, start_s=START_S, kind=r.MK_BOOK, tick_e4=100, flags=0, duration_s=900):
        m = self.market
        m[:] = np.zeros(1, r.MARKET)
        m["kind"], m["market_id"], m["slot"] = kind, r.market_id(start_s, duration_s), r.slot_of(start_s, duration_s)
        m["t_exch_ns"], m["t_recv_ns"], m["t_pub_ns"] = self.wall_ns, self.now_ns - 5000, self.now_ns - 2000
        m["tick_e4"], m["flags"], m["rtt_ns"] = tick_e4, flags, self.rtt_ns
        for side, px in (("bid", bid_e4), ("ask", ask_e4)):
            if px:
                m[f"n_{side}"] = 1
                m[f"{side}_px_e4"][0, 0], m[f"{side}_size_u6"][0, 0] = px, 100_000_000
        return self.step(r.SRC_MARKET)

    def levels(self, bids, asks, start_s=START_S):
        """A book of several levels, [(px_e4, shares)] best first."""
        m = self.market
        m["kind"], m["market_id"], m["slot"], m["flags"] = r.MK_BOOK, r.market_id(start_s, 900), r.slot_of(start_s, 900), 0
        m["t_exch_ns"], m["t_recv_ns"], m["t_pub_ns"], m["tick_e4"] = self.wall_ns, self.now_ns, self.now_ns, 100
        for side, found in (("bid", bids), ("ask", asks)):
            m[f"n_{side}"] = min(len(found), r.TOP_N)
            m[f"{side}_px_e4"] = m[f"{side}_size_u6"] = 0
            for i, (px, shares) in enumerate(found[:r.TOP_N]):
                m[f"{side}_px_e4"][0, i], m[f"{side}_size_u6"][0, i] = px, round(shares * 1e6)
        return self.step(r.SRC_MARKET)

    def trade(self, side=r.BUY, shares=100.0, px_e4=5000, start_s=START_S):
        """A trade of the market in the book of the newest record; ``side`` of its taker in Up terms."""
        m = self.market
        m["kind"], m["market_id"], m["slot"] = r.MK_TRADE, r.market_id(start_s, 900), r.slot_of(start_s, 900)
        m["t_recv_ns"], m["t_pub_ns"] = self.now_ns, self.now_ns
        m["trade_side"], m["trade_size_u6"], m["trade_px_e4"] = side, round(shares * 1e6), px_e4
        return self.step(r.SRC_MARKET)

    def fill(self, slot, token=r.UP, shares=10.0, px=0.5, fills=1):
        """The account shows a buy (sale: negative shares) that it did not show before, made of ``fills`` trades."""
        p, name = self.account["position"][0, slot], ("up", "down")[token]
        if p["market_id"] != self.markets["row"][0, slot]["market_id"]:
            p["market_id"] = self.markets["row"][0, slot]["market_id"]
        held, cost = int(p[f"qty_{name}_u6"]), int(p[f"cost_{name}_u6"])
        size = round(shares * 1e6)
        if size > 0:
            p[f"cost_{name}_u6"] += round(size * px)
        else:
            freed = -size * cost // held
            p[f"cost_{name}_u6"] -= freed
            p["realized_u6"] += round(-size * px) - freed
        p[f"qty_{name}_u6"] += size
        p[f"fills_{name}"] += fills
        self.account["t_update_ns"] = self.now_ns
        return self.step(r.SRC_ACCOUNT)

    def rest(self, *orders, start_s=START_S):
        """The executor says what may rest of ours: (token, px_e4, shares) bids, or (token, px_e4, shares, side)."""
        o = self.own
        o[:] = np.zeros(1, r.OWN)
        o["market_id"], o["slot"] = r.market_id(start_s, 900), r.slot_of(start_s, 900)
        o["n"], o["t_update_ns"] = len(orders), self.now_ns
        for i, (token, px, shares, *side) in enumerate(orders):
            o["order"][0, i] = (token, side[0] if side else r.BUY, px, round(shares * 1e6), self.now_ns)
        return self.step(r.SRC_OWN)

    def print(self, px=PX, kind=r.OK_SPOT, obs_s=None, trusted=1):
        o = self.oracle
        o["kind"], o["source"], o["px"], o["trusted"] = kind, r.OS_RTDS, px, trusted
        o["t_obs_ms"] = int((self.wall_ns / SECOND if obs_s is None else obs_s) * 1000)
        o["t_recv_ns"], o["t_pub_ns"] = self.now_ns - 4000, self.now_ns - 1000
        return self.step(r.SRC_ORACLE)

    def strike(self, px=PX, start_s=START_S, trusted=1, late_s=0):
        return self.print(px, r.OK_BOUNDARY, start_s + late_s, trusted)

    def lead(self, mid=PX, kind=r.SK_BBO, venue=r.SV_BINANCE):
        s = self.spot
        s["kind"], s["venue"], s["bid"], s["ask"], s["px"] = kind, venue, mid - 0.005, mid + 0.005, mid
        s["t_recv_ns"], s["t_pub_ns"] = self.now_ns - 3000, self.now_ns - 1000
        return self.step(r.SRC_SPOT)

    def hold(self, slot, up=0, down=0, cost=0.0):
        """Give the account shares of a window (whole shares, dollars)."""
        p = self.account["position"][0, slot]
        p["market_id"] = self.markets["row"][0, slot]["market_id"]
        p["qty_up_u6"], p["qty_down_u6"], p["cost_up_u6"] = up * 1_000_000, down * 1_000_000, int(cost * 1e6)
        return self.step(r.SRC_ACCOUNT)

    def view(self, slot):
        """What the last look at a window saw (one look at it by itself)."""
        self.market["kind"] = r.MK_VERIFIED
        self.market["market_id"], self.market["slot"] = self.markets["row"][0, slot]["market_id"], slot
        self.step(r.SRC_MARKET)
        return self.state["seen"][0]

    def target(self, slot):
        return self.state["target"][0, slot]

    def gates(self, slot):
        return set(r.gate_names(int(self.target(slot)["gates"])))

    def quotes(self, slot):
        """[(token, level, px_e4, size_u6)] of a slot's target."""
        t = self.target(slot)
        return [(int(q["token"]), int(q["level"]), int(q["px_e4"]), int(q["size_u6"])) for q in t["quote"][:int(t["n_quotes"])]]


def quoting(offset_s=300.0, bid_e4=5000, ask_e4=5100, tick_e4=100, px=PX, **strategy):
    """A world with one running window whose gates are all open; returns (world, slot)."""
    world = World(offset_s, **strategy)
    slot = world.add_window(tick_e4=tick_e4)
    world.strike()
    world.lead(px)
    world.print(px)
    world.book(bid_e4, ask_e4, tick_e4=tick_e4)
    return world, slot


def gauss_var(duration_s, var_s):
    """Standard deviation of ln price over a duration."""
    return math.sqrt(duration_s * var_s)
