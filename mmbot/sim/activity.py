"""The exchange's public activity stream: each trade as one message per wallet that took part, on RTDS's topic ``activity``.

Owns: the shape of the message, and which trades have been shown. Reads: the trades of the exchange. Pure but for its place in the list. Can go
wrong: nothing; a topic that nobody subscribed to costs nothing. Source: venue protocol, RTDS, topic activity.
"""

import msgspec

from mmbot.sim.engine import Trade
from shm_layout.records import SELL

TOPIC, TYPE = "activity", "trades"
_OUTCOMES = ("Up", "Down")


def frames(trade: Trade) -> list[bytes]:
    """Messages of one trade: the taker's, then one per maker with a wallet."""
    legs = [(trade.taker_address, trade.outcome, trade.side, trade.px_e4, trade.size_u6)]
    legs += [(leg.address, leg.outcome, leg.side, leg.px_e4, leg.size_u6) for leg in trade.legs]
    return [_frame(trade, *leg) for leg in legs if leg[0]]


def _frame(trade: Trade, wallet: str, outcome: int, side: int, px_e4: int, size_u6: int) -> bytes:
    spec = trade.market.spec
    return msgspec.json.encode({"topic": TOPIC, "type": TYPE, "timestamp": trade.match_ms, "payload": {
        "asset": trade.market.tokens[outcome], "bio": "", "conditionId": spec.condition_id, "eventSlug": spec.slug, "icon": "", "name": "",
        "outcome": _OUTCOMES[outcome], "outcomeIndex": outcome, "price": px_e4 / 1e4, "profileImage": "", "proxyWallet": wallet,
        "pseudonym": "", "side": "SELL" if side == SELL else "BUY", "size": size_u6 / 1e6, "slug": spec.slug,
        "timestamp": trade.match_ms // 1000, "title": "Bitcoin Up or Down", "transactionHash": trade.tx}})
