"""The matching core of the exchange: books, orders, money, timers. No sockets, no clock: wall time in ms is an argument.

Owns: nothing itself; the rooms build on each other: `timers`, `money` (accounts, reservations), `settlement`, `matching` (books and the
recorded market), `orders` (API participants), `exchange` (markets). Integers only: prices *_e4, shares and dollars *_u6.

Who writes: the REST side (submit, cancel, heartbeat) and the tape (set_level, take, change_tick, close_market, resolve); `advance` runs the
timers. Who reads: a `Listener`, called at the moment of each change. While a fault inside the engine runs, `Hooks` are asked as well.
"""

from mmbot.sim.engine.book import BookSide, Level, Market
from mmbot.sim.engine.exchange import Exchange
from mmbot.sim.engine.listener import Hooks, Listener
from mmbot.sim.engine.money import cost_u6, fee_u6, move
from mmbot.sim.engine.records import Account, Leg, MarketSpec, NewOrder, Order, Result, Trade
from mmbot.sim.engine.terms import (DUST_U6, E_CROSSES, E_DELAYED, E_FAK, E_FOK, E_GONE, ONE_E4, OUTCOMES, PX_TEXT, RECORDED_ADDRESS,
                                    RECORDED_OWNER, SIDES, px_text, u6_text)

__all__ = ["Account", "BookSide", "DUST_U6", "E_CROSSES", "E_DELAYED", "E_FAK", "E_FOK", "E_GONE", "Exchange", "Hooks", "Leg", "Level",
           "Listener", "Market", "MarketSpec", "NewOrder", "ONE_E4", "OUTCOMES", "Order", "PX_TEXT", "RECORDED_ADDRESS", "RECORDED_OWNER",
           "Result", "SIDES", "Trade", "cost_u6", "fee_u6", "move", "px_text", "u6_text"]
