"""Gamma's answers about one window: the event object of "venue protocol, Gamma fields", with the types the real API sends.

Owns: the JSON shape (some lists are JSON inside a string, some values are numbers, four ways to write a time). Read by the
exchange's Gamma routes. Pure: ids and rules come from the market's spec, what changes from its state, the time is an argument.
"""

import hashlib
import json
from datetime import datetime, timedelta, timezone

from mmbot.sim.engine import MarketSpec
from shm_layout.records import UP

LISTED_BEFORE_S = 86_400       # a window is listed this long before it ends
PRICE_TO_BEAT_AFTER_S = 60     # eventMetadata appears this long after the end, finalPrice somewhat later
FINAL_PRICE_AFTER_S = 90
SERIES = {900: "btc-up-or-down-15m", 300: "btc-up-or-down-5m"}
RESOLUTION_SOURCE = "https://data.chain.link/streams/btc-usd-twap-60s-streams"
DESCRIPTION = (
    'This market will resolve to "Up" if the Bitcoin TWAP-60 price at the end of the time range specified in the title is greater than '
    'or equal to the TWAP-60 price at the beginning of that range. Otherwise, it will resolve to "Down".'
)


def _iso(t_s: float, fraction: bool = False) -> str:
    at = datetime.fromtimestamp(t_s, timezone.utc)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if fraction else "%Y-%m-%dT%H:%M:%SZ")


def _eastern(t_s: int) -> datetime:
    """New York wall time (US daylight saving: second Sunday of March to first Sunday of November, 2:00)."""
    standard = datetime.fromtimestamp(t_s, timezone.utc).replace(tzinfo=None) - timedelta(hours=5)

    def sunday(month: int, nth: int) -> datetime:
        first = datetime(standard.year, month, 1, 2)
        return first + timedelta(days=(6 - first.weekday()) % 7 + 7 * (nth - 1))

    # the change back happens at 2:00 daylight time, which is 1:00 standard time
    summer = sunday(3, 2) <= standard < sunday(11, 1) - timedelta(hours=1)
    return standard + timedelta(hours=1) if summer else standard


def question(spec: MarketSpec) -> str:
    """Title of a window, in New York time: "Bitcoin Up or Down - April 1, 3:30AM-3:45AM ET"."""
    start, end = _eastern(spec.start_s), _eastern(spec.end_s)
    hours = "-".join(f"{t.hour % 12 or 12}:{t.minute:02d}{'AM' if t.hour < 12 else 'PM'}" for t in (start, end))
    return f"Bitcoin Up or Down - {start:%B} {start.day}, {hours} ET"


def _prices(state: dict) -> tuple[float, float]:
    """Displayed prices of Up and Down: 1 and 0 once resolved, else the mid."""
    if state["outcome"] >= 0:
        up = 1.0 if state["outcome"] == UP else 0.0
    else:
        up = (state["bid_e4"] + (state["ask_e4"] or 10_000)) / 20_000
    return up, round(1 - up, 6)


def _trading(spec: MarketSpec, state: dict) -> dict:
    """Rules and cached quotes of the market object."""
    bid, ask = state["bid_e4"] / 1e4, (state["ask_e4"] or 10_000) / 1e4
    up, down = _prices(state)
    return {
        "outcomes": '["Up", "Down"]', "outcomePrices": json.dumps([f"{up:g}", f"{down:g}"]),
        "volume": f"{state['volume_u6'] / 1e6:.6f}", "volumeNum": state["volume_u6"] / 1e6,
        "orderPriceMinTickSize": state["tick_e4"] / 1e4, "orderMinSize": spec.min_size_u6 // 1_000_000, "negRisk": spec.neg_risk,
        "feesEnabled": True, "feeType": "crypto_fees_v2",
        "feeSchedule": {"rate": spec.fee_rate_e6 / 1e6, "exponent": spec.fee_exponent, "takerOnly": True, "rebateRate": 0.2},
        "makerBaseFee": 1000, "takerBaseFee": 1000, "makerRebatesFeeShareBps": 10000,
        "rewardsMinSize": 50, "rewardsMaxSpread": 4.5, "clobRewards": [],
        "acceptingOrders": state["accepting"], "active": True, "closed": state["closed"], "enableOrderBook": True, "restricted": True,
        "bestBid": bid, "bestAsk": ask, "lastTradePrice": state["last_e4"] / 1e4, "spread": round(ask - bid, 4),
    }


def market_json(spec: MarketSpec, state: dict) -> dict:
    """The market object (one per event). ``state``: `mmbot.sim.engine.Market.state`."""
    minutes = spec.duration_s // 60
    listed_s = spec.end_s - LISTED_BEFORE_S
    out = {
        "id": spec.gamma_id, "question": question(spec), "conditionId": spec.condition_id,
        "questionID": "0x" + hashlib.sha256(f"question {spec.condition_id}".encode()).hexdigest(), "slug": spec.slug,
        "description": DESCRIPTION, "version": spec.version,
        "resolutionSource": RESOLUTION_SOURCE, "umaResolutionStatuses": "[]",
        "eventStartTime": _iso(spec.start_s), "endDate": _iso(spec.end_s), "endDateIso": _iso(spec.end_s)[:10],
        "startDate": _iso(listed_s + 178.730402, True), "createdAt": _iso(listed_s + 125.044029, True),
        "acceptingOrdersTimestamp": _iso(listed_s + 130),
        "cryptoMarketConfig": {"id": f"btc-{minutes}m-twap-60", "asset": "btc", "duration": f"{minutes}m", "twapEnabled": True,
                               "twapLookbackSeconds": 60},
        **_trading(spec, state),
    }
    if spec.version == "v2":
        out["positionIds"] = [spec.token_up, spec.token_down]
    else:
        out["clobTokenIds"] = json.dumps([spec.token_up, spec.token_down])
    if state["outcome"] >= 0:
        resolved_s = state["resolved_ms"] / 1000
        out |= {"closedTime": datetime.fromtimestamp(resolved_s, timezone.utc).strftime("%Y-%m-%d %H:%M:%S+00"),
                "umaEndDate": _iso(resolved_s), "umaResolutionStatus": "resolved", "automaticallyResolved": True}
    return out


def event_json(spec: MarketSpec, state: dict, now_s: float, resolution: tuple | None = None) -> dict:
    """The event object of one window at ``now_s`` (tape time).

    ``state``: `mmbot.sim.engine.Market.state`. ``resolution``: `mmbot.sim.tape.Tape.resolution`, (outcome, price to beat, final
    price) or None; its prices show as eventMetadata some time after the end, never while the window runs.
    """
    market = market_json(spec, state)
    series = SERIES[spec.duration_s]
    out = {
        "id": str(int(spec.gamma_id) + 10_000_000), "ticker": spec.slug, "slug": spec.slug, "title": market["question"],
        "description": DESCRIPTION, "seriesSlug": series, "startTime": _iso(spec.start_s), "endDate": _iso(spec.end_s),
        "startDate": market["startDate"], "creationDate": market["createdAt"], "active": True, "closed": state["closed"],
        "restricted": True, "enableOrderBook": True, "negRisk": spec.neg_risk, "resolutionSource": RESOLUTION_SOURCE,
        "series": [{"id": "10192" if spec.duration_s == 900 else "10684", "slug": series}],
        "tags": [{"id": "102127", "label": "Up or Down", "slug": "up-or-down"}, {"id": "21", "label": "Crypto", "slug": "crypto"}],
        "markets": [market],
    }
    if state["outcome"] >= 0 and "closedTime" in market:
        out["closedTime"] = market["closedTime"]
    if resolution is not None and now_s >= spec.end_s + PRICE_TO_BEAT_AFTER_S:
        _, strike, final = resolution
        metadata = {} if strike is None else {"priceToBeat": float(strike)}
        if final is not None and now_s >= spec.end_s + FINAL_PRICE_AFTER_S:
            metadata["finalPrice"] = float(final)
        if metadata:
            out["eventMetadata"] = metadata
    return out
