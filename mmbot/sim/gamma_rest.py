"""Gamma's port: finding windows by slug, id, token or time.

Owns: routes and paging. The objects come from `mmbot.sim.gamma`, all state is the engine's. What can go wrong: bad filters, answered with
422; a slug that does not exist, 404. Lists by offset end at 2000, lists by key set go on. ``closed`` defaults to false for markets, so a
finished market vanishes from them.

Source: venue protocol, Gamma discovery.
"""

import base64
import binascii
from collections.abc import Callable
from datetime import datetime

from mmbot.sim import wire
from mmbot.sim.engine import Exchange, Market
from mmbot.sim.http import ApiError, Request, Service
from mmbot.sim.reward_rest import PUSD

MAX_OFFSET, PAGE, MAX_PAGE = 2_000, 20, 500
TAGS = ("", "up-or-down", "crypto", "bitcoin")
TAG_IDS = ("102127", "21")
FORWARD = {"endDate": lambda m: m.spec.end_s, "startDate": lambda m: m.spec.end_s, "startTime": lambda m: m.spec.start_s,
           "id": lambda m: int(m.spec.gamma_id), "volume": lambda m: m.volume_u6}


class GammaRest(Service):
    """The Gamma port."""
    name = "gamma"

    def __init__(self, exchange: Exchange, event_json: Callable, resolution: Callable):
        """``event_json(spec, market_state, now_s, resolution)`` makes one event object; ``resolution(spec)`` is the tape's verdict or None."""
        super().__init__()
        self.exchange, self.event_json, self.resolution = exchange, event_json, resolution
        get = {
            "/events/slug/": lambda r: self._event(self._one(r, "slug", lambda m: m.spec.slug)),
            "/markets/slug/": lambda r: self._market(self._one(r, "slug", lambda m: m.spec.slug)),
            "/events/": lambda r: self._event(self._one(r, "id", lambda m: str(int(m.spec.gamma_id) + 10_000_000))),
            "/markets/": lambda r: self._market(self._one(r, "id", lambda m: m.spec.gamma_id)),
            "/events": lambda r: [self._event(m) for m in self._by_offset(r, "")],
            "/markets": lambda r: [self._market(m) for m in self._by_offset(r, "false")],
            "/events/keyset": lambda r: self._by_key(r, "", "events", self._event),
            "/markets/keyset": lambda r: self._by_key(r, "false", "markets", self._market),
        }
        self.routes = {("GET", path): handler for path, handler in get.items()}

    def _event(self, market: Market) -> dict:
        event = self.event_json(market.spec, market.state(), self.exchange.clock.now_s(), self.resolution(market.spec))
        if rate := self.exchange.settings.rewards_per_day:
            event["markets"][0]["clobRewards"] = [{
                "id": "1", "conditionId": market.condition_id, "assetAddress": PUSD, "rewardsAmount": 0, "rewardsDailyRate": rate,
                "startDate": wire.iso(market.spec.end_s - 86_400)[:10], "endDate": wire.iso(market.spec.end_s)[:10]}]
        return event

    def _market(self, market: Market) -> dict:
        return self._event(market)["markets"][0]

    def _one(self, r: Request, what: str, key: Callable[[Market], str]) -> Market:
        for market in self.exchange.markets.values():
            if key(market) == r.tail:
                return market
        raise ApiError(404, {"type": "not found error", "error": f"{what} not found"})

    def _chosen(self, r: Request, closed: str) -> list[Market]:
        """Markets that pass every filter, in the order asked for (as listed when none is). ``closed``: what a missing filter means."""
        closed = r.arg("closed") or closed
        slugs, versions = r.query.getall("slug", []), r.query.getall("version", [])
        conditions, tokens = r.query.getall("condition_ids", []), set(r.query.getall("clob_token_ids", []))
        least, most = moment(r.arg("end_date_min"), 0), moment(r.arg("end_date_max"), 1 << 40)
        if r.arg("tag_slug") not in TAGS or (r.arg("tag_id") and r.arg("tag_id") not in TAG_IDS):
            return []
        chosen = [m for m in self.exchange.markets.values() if (not slugs or m.spec.slug in slugs) and least <= m.spec.end_s <= most
                  and (not closed or (closed == "true") == m.closed) and (not versions or m.spec.version in versions)
                  and (not conditions or m.condition_id in conditions) and (not tokens or tokens & set(m.tokens))]
        if order := r.arg("order"):
            if order not in FORWARD:
                raise ApiError(422, {"type": "validation error", "error": "order fields are not valid"})
            chosen.sort(key=FORWARD[order], reverse=r.arg("ascending") != "true")
        return chosen

    def _by_offset(self, r: Request, closed: str) -> list[Market]:
        offset = r.number("offset", 0)
        if offset > MAX_OFFSET:
            raise ApiError(422, {"type": "validation error", "error": f"offset exceeds {MAX_OFFSET}, use keyset"})
        return self._chosen(r, closed)[offset:offset + min(MAX_PAGE, r.number("limit", PAGE))]

    def _by_key(self, r: Request, closed: str, key: str, shape: Callable) -> dict:
        """A page and the cursor of the next one; the last page has none."""
        try:
            start = int(base64.urlsafe_b64decode(r.arg("after_cursor") or "MA=="))
        except (ValueError, binascii.Error):
            raise ApiError(422, {"type": "validation error", "error": "invalid cursor"}) from None
        size, chosen = max(1, min(MAX_PAGE, r.number("limit", PAGE))), self._chosen(r, closed)
        out = {key: [shape(m) for m in chosen[start:start + size]]}
        if start + size < len(chosen):
            out["next_cursor"] = base64.urlsafe_b64encode(str(start + size).encode()).decode()
        return out


def moment(text: str, default: int) -> float:
    """Seconds of an ISO time in a query. Errors: ApiError."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else default
    except ValueError:
        raise ApiError(422, "invalid date") from None
