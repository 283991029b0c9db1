"""Accounts of the exchange: dollars, shares, what open orders have reserved, and whether an order can be paid.

Owns: accounts and the table of orders (their reservations are money). Open BUY orders of one market may together reserve at most the
dollars; SELL orders need settled shares. What can go wrong: too little money, the venue's text with the figures.

Source: venue protocol, balances, fees.
"""

from collections import deque

from mmbot.quoting.fees import taker_fee_u6
from mmbot.sim.engine.records import Account, MarketSpec, Order
from mmbot.sim.engine.terms import KEEP_CLOSED, ONE_E4, RECORDED_ADDRESS, u6_text
from mmbot.sim.engine.timers import Timers
from shm_layout.records import BUY, SELL


class Money(Timers):
    """Accounts, reservations, affordability."""

    def __init__(self, *args):
        super().__init__(*args)
        self.accounts: dict[str, Account] = {}
        self.recorded = Account(RECORDED_ADDRESS, 0, unlimited=True)
        self.fees_u6 = 0                        # what takers have paid: the venue's own money
        self.orders: dict[str, Order] = {}
        self._closed: deque[str] = deque()

    def account(self, address: str) -> Account:
        """The account of an address; a new one is funded with ``sim.cash_u6``."""
        key = address.lower()
        found = self.accounts.get(key)
        if found is None:
            found = self.accounts[key] = Account(address, self.settings.cash_u6)
        return found

    def _money_error(self, order: Order, crosses: bool) -> str:
        account, market = order.account, order.market
        if order.side == SELL:
            have = account.sellable_u6(order.token) + account.reserved_shares.get(order.token, 0)
            used, need, asset, key = account.reserved_shares.get(order.token, 0), order.size_u6, order.token, order.token
        else:
            if crosses and order.maker_u6 < 1_000_000:
                return f"invalid amount for a marketable BUY order (${u6_text(order.maker_u6)}), min size: $1"
            have, used = account.cash_u6, account.reserved_cash.get(market.condition_id, 0)
            need = order.maker_u6 + (self._fee_bound(order) if crosses else 0)
            order.reserved_u6, asset, key = need, "", market.condition_id
        if self.hooks is not None:
            have, used = self.hooks.known_u6(account, asset, have), used + self.hooks.stale_u6(account, key)
        if used + need > have:
            return (f"not enough balance / allowance: the balance is not enough -> balance: {have}, "
                    f"sum of matched orders: {used}, order amount (inc. fees): {need}")
        return ""

    def _fee_bound(self, order: Order) -> int:
        """The most a BUY can pay in fees: at its limit for a share-sized order, at the best price for a dollar-sized one."""
        if not order.budget_u6:
            return fee_u6(order.market.spec, order.size_u6, order.px_e4)
        best = order.market.best(order.outcome)[1] or order.px_e4
        return fee_u6(order.market.spec, order.budget_u6 * ONE_E4 // best, best) + 10

    def _open(self, order: Order) -> None:
        """Register an accepted order and its reservation."""
        account = order.account
        self.orders[order.id] = account.orders[order.id] = order
        order.open = True
        if order.side == BUY:
            cid = order.market.condition_id
            account.reserved_cash[cid] = account.reserved_cash.get(cid, 0) + order.reserved_u6
        else:
            order.reserved_u6 = order.size_u6
            account.reserved_shares[order.token] = account.reserved_shares.get(order.token, 0) + order.size_u6

    def _reserve(self, order: Order, reserved_u6: int) -> None:
        table, key = ((order.account.reserved_cash, order.market.condition_id) if order.side == BUY
                      else (order.account.reserved_shares, order.token))
        table[key] += reserved_u6 - order.reserved_u6
        order.reserved_u6 = reserved_u6
        if not table[key]:
            del table[key]

    def _retire(self, order: Order, status: str) -> None:
        """The order's life is over: reservation back, kept for questions among the last KEEP_CLOSED."""
        order.status = status
        if order.open:
            order.open = False
            self._reserve(order, 0)
            del order.account.orders[order.id]
        self._closed.append(order.id)
        if len(self._closed) > KEEP_CLOSED:
            self.orders.pop(self._closed.popleft(), None)


def charge(money: Money, account: Account, fee: int) -> None:
    """An account pays a taker fee to the venue; a negative one is paid back."""
    account.cash_u6 -= fee
    money.fees_u6 += fee


def move(account: Account, token: str, side: int, size_u6: int, cash_u6: int) -> None:
    """One account buys or sells shares of a token for dollars."""
    sign = 1 if side == BUY else -1
    account.cash_u6 -= sign * cash_u6
    account.shares[token] = account.shares.get(token, 0) + sign * size_u6


def cost_u6(size_u6: int, px_e4: int) -> int:
    """Dollars of a share amount at a price, rounded up."""
    return -(-size_u6 * px_e4 // ONE_E4)


def fee_u6(spec: MarketSpec, size_u6: int, px_e4: int) -> int:
    """Taker fee of a market, 1e-6 dollars (`mmbot.quoting.fees`)."""
    return taker_fee_u6(size_u6, px_e4 * 100, spec.fee_rate_e6, spec.fee_exponent)
