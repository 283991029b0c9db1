"""The exchange's JSON: market frames, user events and REST objects in the venue's field order and number forms.

Owns: texts. No sockets, no state. Market frames are built with string formatting from cached level texts because they are the bulk of
the traffic; everything else goes through msgspec. Read by the channels and the REST side.
What can go wrong: nothing at run time; a wrong field order would change the book hash, which tests recompute from the parsed frame.

Source: venue protocol, REST market data, market channel, user channel.
"""

import hashlib
import json
from datetime import UTC, datetime

import msgspec

from mmbot.sim.engine import ONE_E4, OUTCOMES, PX_TEXT, SIDES, Leg, Market, Order, Trade, u6_text
from shm_layout.records import BUY, DOWN, SELL, UP

encode = msgspec.json.encode
EXCHANGES = ("0xE111180000d2663C0091e4f400237545B87B996B", "0xe2222d279d744050d28e00520010520000310F59",
             "0xe3333700cA9d93003F00f0F71f8515005F6c00Aa")
UNLIMITED = str((1 << 256) - 1)


def last_price_text(px_e4: int) -> str:
    """The market's last trade price with three decimals (four when the tick needs them), "" before the first trade."""
    if not px_e4:
        return ""
    return f"{px_e4 // 10 / 1000:.3f}" if px_e4 % 10 == 0 else f"{px_e4 / ONE_E4:.4f}"


def best_texts(bid_e4: int, ask_e4: int) -> tuple[str, str]:
    """Best prices as frames show them: an empty side is 0 or 1."""
    return PX_TEXT[bid_e4], PX_TEXT[ask_e4] if ask_e4 else "1"


def iso(seconds: float) -> str:
    """2026-11-20T15:00:00Z."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _spaced(frame: dict) -> str:
    """JSON as the market channel writes it: a space after each comma, none after a colon."""
    return json.dumps(frame, separators=(", ", ":"))


class BookText:
    """One token's book as JSON parts, and its hash at a timestamp."""
    __slots__ = ("market", "token", "bids", "asks", "timestamp_ms", "hash")

    def __init__(self, market: Market, outcome: int, timestamp_ms: int):
        bid, ask = market.sides[BUY].texts(), market.sides[SELL].texts()
        self.bids, self.asks = (bid[0], ask[0]) if outcome == UP else (ask[1], bid[1])
        self.market, self.token, self.timestamp_ms = market, market.tokens[outcome], timestamp_ms
        self.hash = hashlib.sha1(self.rest("").encode()).hexdigest()

    def rest(self, hash_: str) -> str:
        """The book object of GET /book; with an empty hash it is the text that is hashed."""
        m = self.market
        return (f'{{"market":"{m.condition_id}","asset_id":"{self.token}","timestamp":"{self.timestamp_ms}","hash":"{hash_}",'
                f'"bids":[{self.bids}],"asks":[{self.asks}],"min_order_size":"{u6_text(m.spec.min_size_u6)}",'
                f'"tick_size":"{PX_TEXT[m.tick_e4]}","neg_risk":{"true" if m.spec.neg_risk else "false"},'
                f'"last_trade_price":"{last_price_text(m.last_px_e4)}"}}')

    def frame(self, initial: bool) -> str:
        """The book event of the market channel; the initial one also carries tick size and last trade price."""
        m = self.market
        if initial:
            return (f'{{"market":"{m.condition_id}","asset_id":"{self.token}","timestamp":"{self.timestamp_ms}","hash":"{self.hash}",'
                    f'"bids":[{self.bids}],"asks":[{self.asks}],"tick_size":"{PX_TEXT[m.tick_e4]}","event_type":"book",'
                    f'"last_trade_price":"{last_price_text(m.last_px_e4)}"}}')
        return (f'{{"market":"{m.condition_id}","asset_id":"{self.token}","bids":[{self.bids}],"asks":[{self.asks}],'
                f'"hash":"{self.hash}","timestamp":"{self.timestamp_ms}","event_type":"book"}}')


def book_rest(market: Market, outcome: int) -> str:
    """Body of GET /book."""
    text = BookText(market, outcome, market.changed_ms)
    return text.rest(text.hash)


def price_change(market: Market, side: int, px_e4: int, now_ms: int) -> str:
    """A level's new total with its mirror entry, each with the hash of its token's book."""
    size = u6_text(market.level_u6(side, px_e4))
    bid, ask = market.best()
    up_bid, up_ask = best_texts(bid, ask)
    down_bid, down_ask = best_texts(ONE_E4 - ask if ask else 0, ONE_E4 - bid if bid else 0)
    up, down = market.tokens
    return (f'{{"market":"{market.condition_id}", "price_changes":['
            f'{{"asset_id":"{up}", "price":"{PX_TEXT[px_e4]}", "size":"{size}", "side":"{SIDES[side]}", '
            f'"hash":"{BookText(market, UP, now_ms).hash}", "best_bid":"{up_bid}", "best_ask":"{up_ask}"}}, '
            f'{{"asset_id":"{down}", "price":"{PX_TEXT[ONE_E4 - px_e4]}", "size":"{size}", "side":"{SIDES[1 - side]}", '
            f'"hash":"{BookText(market, DOWN, now_ms).hash}", "best_bid":"{down_bid}", "best_ask":"{down_ask}"}}], '
            f'"timestamp":"{now_ms}", "event_type":"price_change"}}')


def best_bid_ask(market: Market, outcome: int, now_ms: int) -> str:
    """Top of one token's book."""
    bid, ask = market.best(outcome)
    bid_text, ask_text = best_texts(bid, ask)
    return (f'{{"market":"{market.condition_id}", "asset_id":"{market.tokens[outcome]}", "best_bid":"{bid_text}", '
            f'"best_ask":"{ask_text}", "spread":"{PX_TEXT[(ask or ONE_E4) - bid]}", "timestamp":"{now_ms}", "event_type":"best_bid_ask"}}')


def last_trade_price(market: Market, outcome: int, side: int, px_e4: int, size_u6: int, tx: str, now_ms: int) -> str:
    """The public print of a trade."""
    return (f'{{"market":"{market.condition_id}", "asset_id":"{market.tokens[outcome]}", "price":"{PX_TEXT[px_e4]}", '
            f'"size":"{u6_text(size_u6)}", "fee_rate_bps":"0", "side":"{SIDES[side]}", "timestamp":"{now_ms}", '
            f'"event_type":"last_trade_price", "transaction_hash":"{tx}"}}')


def tick_size_change(market: Market, outcome: int, old_e4: int, new_e4: int, now_ms: int) -> str:
    """A finer price grid."""
    return (f'{{"market":"{market.condition_id}", "asset_id":"{market.tokens[outcome]}", "old_tick_size":"{PX_TEXT[old_e4]}", '
            f'"new_tick_size":"{PX_TEXT[new_e4]}", "timestamp":"{now_ms}", "event_type":"tick_size_change"}}')


def new_market(market: Market, now_ms: int) -> str:
    """A listing."""
    s = market.spec
    title = "Bitcoin Up or Down"
    return _spaced({
        "id": s.gamma_id, "question": title, "market": s.condition_id, "slug": s.slug, "description": "",
        "assets_ids": list(market.tokens), "outcomes": list(OUTCOMES),
        "event_message": {"id": s.gamma_id, "ticker": s.slug, "slug": s.slug, "title": title, "description": ""},
        "timestamp": str(now_ms), "event_type": "new_market", "tags": [], "condition_id": s.condition_id, "active": True,
        "clob_token_ids": list(market.tokens), "sports_market_type": "", "line": "", "game_start_time": "",
        "order_price_min_tick_size": PX_TEXT[market.tick_e4], "group_item_title": "", "taker_base_fee": "1000", "fees_enabled": True,
        "fee_schedule": {"exponent": str(s.fee_exponent), "rate": u6_text(s.fee_rate_e6), "taker_only": True, "rebate_rate": "0.2"},
    })


def market_resolved(market: Market, now_ms: int) -> str:
    """An outcome."""
    return _spaced({
        "id": market.spec.gamma_id, "market": market.condition_id, "assets_ids": list(market.tokens),
        "winning_asset_id": market.tokens[market.outcome], "winning_outcome": OUTCOMES[market.outcome], "timestamp": str(now_ms),
        "event_type": "market_resolved", "tags": [],
    })


# ---- user channel ----

def order_event(order: Order, kind: str, status: str, now_ms: int) -> bytes:
    """PLACEMENT, UPDATE or CANCELLATION of one order."""
    return encode({
        "event_type": "order", "type": kind, "id": order.id, "owner": order.owner, "order_owner": order.owner,
        "market": order.market.condition_id, "asset_id": order.token, "side": SIDES[order.side], "price": PX_TEXT[order.px_e4],
        "original_size": u6_text(order.original_u6), "size_matched": u6_text(order.matched_u6), "outcome": OUTCOMES[order.outcome],
        "order_type": order.order_type, "status": status, "associate_trades": order.trades or None,
        "created_at": str(order.created_ms // 1000), "expiration": str(order.expiration_s), "maker_address": order.account.address,
        "timestamp": str(now_ms),
    })


def _leg(leg: Leg, trade: Trade) -> dict:
    return {"order_id": leg.order_id, "owner": leg.owner, "maker_address": leg.address, "matched_amount": u6_text(leg.size_u6),
            "price": PX_TEXT[leg.px_e4], "fee_rate_bps": "0", "asset_id": trade.market.tokens[leg.outcome], "side": SIDES[leg.side],
            "outcome": OUTCOMES[leg.outcome], "outcome_index": leg.outcome}


def _trade(trade: Trade) -> dict:
    return {"id": trade.id, "taker_order_id": trade.taker_id, "market": trade.market.condition_id,
            "asset_id": trade.market.tokens[trade.outcome], "side": SIDES[trade.side], "size": u6_text(trade.size_u6),
            "price": PX_TEXT[trade.px_e4], "fee_rate_bps": "0"}


def _side_of(trade: Trade, owner: str) -> str:
    return "TAKER" if trade.taker is not None and trade.taker_owner == owner else "MAKER"


def trade_event(trade: Trade, owner: str, now_ms: int) -> bytes:
    """A trade as the API key ``owner`` sees it."""
    return encode({
        "event_type": "trade", "type": "TRADE", **_trade(trade), "status": trade.status, "match_time": str(trade.match_ms // 1000),
        "last_update": str(trade.last_ms // 1000), "outcome": OUTCOMES[trade.outcome], "owner": trade.taker_owner,
        "trade_owner": trade.taker_owner, "maker_address": trade.taker_address,
        "transaction_hash": "" if trade.status == "MATCHED" else trade.tx, "bucket_index": trade.bucket,
        "trader_side": _side_of(trade, owner), "maker_orders": [_leg(leg, trade) for leg in trade.legs], "timestamp": str(now_ms),
    })


# ---- REST ----

def rest_order(order: Order) -> dict:
    """Order object of /data/order(s)."""
    return {
        "id": order.id, "status": order.status, "owner": order.owner, "maker_address": order.account.address,
        "market": order.market.condition_id, "asset_id": order.token, "side": SIDES[order.side], "price": PX_TEXT[order.px_e4],
        "original_size": u6_text(order.original_u6), "size_matched": u6_text(order.matched_u6), "outcome": OUTCOMES[order.outcome],
        "order_type": order.order_type, "associate_trades": order.trades, "created_at": order.created_ms // 1000,
        "expiration": str(order.expiration_s),
    }


def rest_trade(trade: Trade, owner: str) -> dict:
    """Trade object of /data/trades."""
    return {
        **_trade(trade), "status": f"TRADE_STATUS_{trade.status}", "match_time": str(trade.match_ms // 1000),
        "last_update": str(trade.last_ms // 1000), "outcome": OUTCOMES[trade.outcome], "bucket_index": trade.bucket,
        "owner": trade.taker_owner, "maker_address": trade.taker_address,
        "transaction_hash": "" if trade.status == "MATCHED" else trade.tx, "trader_side": _side_of(trade, owner),
        "maker_orders": [_leg(leg, trade) for leg in trade.legs],
    }


def rest_market(market: Market) -> dict:
    """The long legacy object of /markets/{condition}."""
    s = market.spec
    bid, ask = market.best()
    mid = (bid + (ask or ONE_E4)) / 2 / ONE_E4
    prices = (mid, 1 - mid) if market.outcome < 0 else (1 - market.outcome, market.outcome)
    return {
        "enable_order_book": True, "active": True, "closed": market.closed, "archived": False, "accepting_orders": market.accepting,
        "accepting_order_timestamp": iso(s.end_s - 86_400), "minimum_order_size": s.min_size_u6 / 1e6,
        "minimum_tick_size": market.tick_e4 / ONE_E4, "condition_id": s.condition_id, "question_id": s.condition_id,
        "question": "Bitcoin Up or Down", "description": "", "market_slug": s.slug, "end_date_iso": iso(s.end_s),
        "game_start_time": iso(s.start_s), "seconds_delay": 0, "fpmm": "", "maker_base_fee": 1000, "taker_base_fee": 1000,
        "notifications_enabled": False, "neg_risk": s.neg_risk, "neg_risk_market_id": "", "neg_risk_request_id": "", "icon": "", "image": "",
        "rewards": {"rates": None, "min_size": 50, "max_spread": 4.5}, "is_50_50_outcome": False,
        "tokens": [{"token_id": market.tokens[i], "outcome": OUTCOMES[i], "price": prices[i], "winner": market.outcome == i}
                   for i in (UP, DOWN)],
        "tags": ["Crypto", "Up or Down"],
    }


def simple_market(market: Market) -> dict:
    """The short object of /simplified-markets."""
    long = rest_market(market)
    return {k: long[k] for k in ("condition_id", "rewards", "tokens", "active", "closed", "archived", "accepting_orders")}


def activity_trade(trade: Trade) -> dict:
    """A trade as /markets/live-activity shows it."""
    s = trade.market.spec
    return {"event_type": "trade", "market": {"condition_id": s.condition_id, "asset_id": trade.market.tokens[trade.outcome],
                                              "question": "Bitcoin Up or Down", "icon": "", "slug": s.slug},
            "user": {"address": trade.taker_address, "username": "", "profile_picture": "", "optimized_profile_picture": "", "pseudonym": ""},
            "side": SIDES[trade.side], "size": u6_text(trade.size_u6), "fee_rate_bps": "0", "price": PX_TEXT[trade.px_e4],
            "outcome": OUTCOMES[trade.outcome], "outcome_index": trade.outcome, "transaction_hash": trade.tx,
            "timestamp": str(trade.match_ms // 1000)}


def compact_market(market: Market) -> dict:
    """The compact object of /clob-markets/{condition}; absent keys mean false or 0."""
    s = market.spec
    out = {
        "c": s.condition_id, "t": [{"t": market.tokens[i], "o": OUTCOMES[i]} for i in (UP, DOWN)], "mts": market.tick_e4 / ONE_E4,
        "mos": s.min_size_u6 / 1e6, "fd": {"r": s.fee_rate_e6 / 1e6, "e": s.fee_exponent, "to": True}, "mbf": 1000, "tbf": 1000,
        "r": {"mi": 50, "ma": 4.5, "e": True}, "aot": iso(s.end_s - 86_400), "v": s.version,
    }
    flags = {"nr": s.neg_risk, "ao": market.accepting, "itode": s.taker_delayed}
    return out | {k: True for k, on in flags.items() if on}
