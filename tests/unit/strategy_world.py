"""A view and parameters by hand, and what a strategy draws from them after risk has cut it. For tests only."""

import numpy as np

from mmbot.config import Strategy
from mmbot.core import decide
from mmbot.params import params_block
from mmbot.quoting import route
from mmbot.quoting.view import DRAFT, MEMORY, VIEW
from mmbot.risk import limits
from shm_layout import records as r

#: caps that do not bind, so that a test sees the strategy and not the limits
ROOMY = dict(max_exposure_u6=10**12, severe_imbalance_u6=10**11, max_imbalance_u6=10**11)


def params_of(**strategy):
    """PARAMS of windows of 15 minutes."""
    return params_block(Strategy(**strategy), 1)["of"][0, 0]


def view_of(bid_e4=4900, ask_e4=5100, tick_e4=100, **fields):
    """A quiet running window in its middle; ``imbalance_u6`` follows from the holdings."""
    view = np.zeros(1, VIEW)[0]
    mid = 0.5e-4 * (bid_e4 + ask_e4)
    known = dict(now_ns=10**12, tau_s=450.0, elapsed=0.5, duration_s=900.0, running=1, phase=r.PHASES.index("mid"), tick_e4=tick_e4, bid_e4=bid_e4,
                 ask_e4=ask_e4, bid_size=100.0, ask_size=100.0, mid=mid, spread=1e-4 * (ask_e4 - bid_e4), micro=mid, fair=mid, p_model=mid, var_s=1e-8,
                 sigma_short=1e-4, sigma_long=1e-4, sigma_px=0.0188, min_size_u6=5_000_000, cash_u6=10**12, room_u6=10**12, bankroll_u6=10**9,
                 base_size_u6=20_000_000, size_scale=1.0, may_take=1)
    for name, value in (known | fields).items():
        view[name] = value
    view["imbalance_u6"] = view["qty_up_u6"] - view["qty_down_u6"]
    return view


def draw(view, params, memory=None):
    """The DRAFT that a strategy and then risk and route make of a view: (draft, its quotes as [(token, level, side, kind, px_e4, size_u6)])."""
    draft, memory = np.zeros(1, DRAFT)[0], np.zeros(1, MEMORY)[0] if memory is None else memory
    decide.draw(view, params, memory, draft)
    limits.apply(view, params, draft)
    n = route.write(view, params, draft)
    return draft, [tuple(int(q[f]) for f in ("token", "level", "side", "kind", "px_e4", "size_u6")) for q in draft["quote"][:n]]


def bids(draft, token):
    """Buys of ``token`` that are left: [(px_e4, size_u6)]."""
    return [(int(px), int(size)) for px, size in zip(draft["px_e4"][token], draft["size_u6"][token], strict=True) if size > 0]
