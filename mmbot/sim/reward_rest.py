"""Liquidity rewards and maker rebates: which markets have a budget, which orders score, what a maker got back of the fees.

Owns: nothing; it reads books, orders and fills. Who calls: the CLOB port (`mmbot.sim.rest`). What can go wrong: a bad date or cursor,
answered with 400. Nothing is paid out here: earnings are empty, rebates are what the fills of a day are worth.

An order scores when its market has a budget, it has rested for `MIN_AGE_MS`, holds `MIN_SIZE_U6` shares and stands within
`MAX_SPREAD_E4` of the middle. A rebate is `REBATE_SHARE` of what takers paid on the maker's own fills (the pool is that share of all fees,
divided by the same sums). A day without fills answers ``null``. Source: venue protocol, rewards and rebates, maker rebates.
"""

from datetime import UTC, date, datetime

from mmbot.sim import wire
from mmbot.sim.auth import Credentials
from mmbot.sim.engine import Exchange, Market, Order, fee_u6, u6_text
from mmbot.sim.http import ApiError, Request
from mmbot.sim.paging import page
from shm_layout.records import DOWN, UP

MIN_SIZE_U6, MAX_SPREAD_E4, MIN_AGE_MS = 50_000_000, 450, 3_500
REBATE_SHARE = (2, 10)
PUSD = "0xC011a7E12a19f7B1f670d46F03B03f3342E82DFB"
MAX_PAGE = 500


class Rewards:
    """Routes about what resting orders earn."""

    def __init__(self, exchange: Exchange):
        self.exchange = exchange

    def open_routes(self) -> dict:
        """(method, path) -> handler of routes that need no key."""
        return {("GET", "/rewards/markets/current"): lambda r: page(self._paying(), r.arg("next_cursor"), self._current),
                ("GET", "/rewards/markets/multi"): lambda r: page(self._paying(), r.arg("next_cursor"), self._listed, _page_size(r)),
                ("GET", "/rewards/markets/"): self._of_market, ("GET", "/rebates/current"): self._rebates}

    def routes(self) -> dict:
        """(method, path) -> handler(request, who)."""
        def nothing(r: Request, who: Credentials):
            _day(r.arg("date"))
            return page([], r.arg("next_cursor"), dict, _page_size(r))

        return {("GET", "/rewards/user"): nothing, ("GET", "/rewards/user/markets"): nothing,
                ("GET", "/rewards/user/total"): lambda r, who: [] if _day(r.arg("date")) else [],
                ("GET", "/rewards/user/percentages"): lambda r, who: {},
                ("GET", "/order-scoring"): lambda r, who: {"scoring": self._scores(r.arg("order_id"), who)},
                ("POST", "/orders-scoring"): lambda r, who: {i: self._scores(i, who) for i in r.json(list[str])}}

    # ---- scoring ----

    def _scores(self, order_id: str, who: Credentials) -> bool:
        order = self.exchange.orders.get(order_id)
        return order is not None and order.owner == who.api_key and self.scores(order)

    def scores(self, order: Order) -> bool:
        """Does this order earn liquidity rewards now?"""
        bid, ask = order.market.best()
        if not order.open or not bid or not ask or not self.exchange.settings.rewards_per_day:
            return False
        old_enough = self.exchange.clock.now_ns() // 1_000_000 - order.created_ms >= MIN_AGE_MS
        return old_enough and order.left_u6 >= MIN_SIZE_U6 and abs(2 * order.up_px - bid - ask) <= 2 * MAX_SPREAD_E4

    # ---- budgets ----

    def _paying(self) -> list[Market]:
        return [m for m in self.exchange.markets.values() if not m.closed] if self.exchange.settings.rewards_per_day else []

    def _config(self, market: Market) -> dict:
        rate = self.exchange.settings.rewards_per_day
        return {"id": 1, "asset_address": PUSD, "start_date": wire.iso(market.spec.end_s - 86_400)[:10],
                "end_date": wire.iso(market.spec.end_s)[:10], "rate_per_day": rate, "total_rewards": rate}

    def _current(self, market: Market) -> dict:
        rate = self.exchange.settings.rewards_per_day
        return {"condition_id": market.condition_id, "rewards_max_spread": MAX_SPREAD_E4 / 100, "rewards_min_size": MIN_SIZE_U6 / 1e6,
                "rewards_config": [self._config(market)], "native_daily_rate": rate, "sponsored_daily_rate": 0, "sponsors_count": 0,
                "total_daily_rate": rate}

    def _described(self, market: Market) -> dict:
        bid, ask = market.best()
        up = (bid + (ask or 10_000)) / 20_000
        return {"condition_id": market.condition_id, "question": "Bitcoin Up or Down", "market_slug": market.spec.slug,
                "event_slug": market.spec.slug, "image": "", "rewards_max_spread": MAX_SPREAD_E4 / 100, "rewards_min_size": MIN_SIZE_U6 / 1e6,
                "market_competitiveness": 0.0, "rewards_config": [self._config(market)],
                "tokens": [{"token_id": market.tokens[o], "outcome": wire.OUTCOMES[o], "price": up if o == UP else 1 - up} for o in (UP, DOWN)]}

    def _listed(self, market: Market) -> dict:
        bid, ask = market.best()
        return self._described(market) | {
            "market_id": market.spec.gamma_id, "event_id": str(int(market.spec.gamma_id) + 10_000_000), "group_item_title": "",
            "spread": ((ask or 10_000) - bid) / 10_000, "volume_24hr": market.volume_u6 / 1e6, "one_day_price_change": 0,
            "created_at": wire.iso(market.spec.end_s - 86_400), "end_date": wire.iso(market.spec.end_s)}

    def _of_market(self, r: Request):
        market = self.exchange.market(r.tail)
        if market is None:
            raise ApiError(404, "market not found")
        return page([market] if market in self._paying() else [], r.arg("next_cursor"), self._described)

    # ---- rebates ----

    def _rebates(self, r: Request):
        day, maker = _day(r.arg("date")), r.arg("maker_address")
        account = self.exchange.accounts.get(maker.lower())
        earned: dict[str, int] = {}
        for trade in account.fills if account is not None else ():
            if trade.status == "FAILED" or datetime.fromtimestamp(trade.match_ms / 1000, UTC).date() != day:
                continue
            for leg in trade.legs:
                if leg.account is account:
                    fee = fee_u6(trade.market.spec, leg.size_u6, leg.px_e4)
                    earned[trade.market.condition_id] = earned.get(trade.market.condition_id, 0) + fee * REBATE_SHARE[0] // REBATE_SHARE[1]
        rows = [{"date": f"{day}T00:00:00Z", "condition_id": cid, "asset_address": PUSD, "maker_address": account.address,
                 "rebated_fees_usdc": u6_text(amount)} for cid, amount in earned.items() if amount]
        return rows or None


def _page_size(r: Request) -> int:
    size = r.number("page_size", 100)
    if not 1 <= size <= MAX_PAGE:
        raise ApiError(400, "invalid page_size")
    return size


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ApiError(400, "invalid date") from None
