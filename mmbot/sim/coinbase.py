"""The exchange's Coinbase Advanced Trade server: level2, market_trades, ticker, heartbeats of BTC-USD.

Owns: sockets, subscriptions, the sequence number of each connection over all its channels. Fed by `mmbot.sim.ladder`. Can go wrong: garbage
from a client (answered by an error). Source: Coinbase Advanced Trade WebSocket channels.
"""

from datetime import datetime, timezone

import msgspec
from picows import WSUpgradeRequest

from mmbot.sim.faults import NO_FAULTS, Faults
from mmbot.sim.ladder import Ladder
from mmbot.sim.links import ServedLink, strings

PRODUCT = "BTC-USD"
CHANNELS = ("level2", "market_trades", "ticker", "heartbeats")
_SIDES = ("bid", "offer")
_encode = msgspec.json.encode


def iso(t_ms: int) -> str:
    """A time as the venue writes it."""
    return datetime.fromtimestamp(t_ms / 1000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z"


class CoinbaseLink(ServedLink):
    """A client: one channel per message, numbered frames."""
    channel = "coinbase"
    pong = None

    def __init__(self, server: "Coinbase"):
        super().__init__(server)
        self.wanted = set()
        self._sequence = 0

    def message(self, message: dict) -> None:
        verb, channel = message.get("type"), message.get("channel")
        products = strings(message.get("product_ids"))
        if verb not in ("subscribe", "unsubscribe") or channel not in CHANNELS or (channel != "heartbeats" and PRODUCT not in products):
            self.put(_encode({"type": "error", "message": f"{channel} is not a channel of this product"}))
            return
        (self.wanted.add if verb == "subscribe" else self.wanted.discard)(channel)
        self.frame("subscriptions", self.server.now_ms, [{"subscriptions": {c: [PRODUCT] for c in sorted(self.wanted)}}])
        if verb == "subscribe" and channel in ("level2", "market_trades"):
            self.frame(*self.server.snapshot(channel))

    def frame(self, name: str, t_ms: int, events: list) -> None:
        """Send the connection's next message. One that a fault drops keeps its number."""
        number, self._sequence = self._sequence, self._sequence + 1
        self.send(_encode({"channel": name, "client_id": "", "timestamp": iso(t_ms), "sequence_num": number, "events": events}))


class Coinbase:
    """The service."""

    def __init__(self, ladder: Ladder, faults: Faults = NO_FAULTS):
        self.faults, self._ladder = faults, ladder
        self.links: set[CoinbaseLink] = set()
        self.now_ms = 0
        self._second = self._beats = 0
        self._trade_id = 912_345_678

    def accept(self, request: WSUpgradeRequest) -> CoinbaseLink:
        """Every path is the same service."""
        return CoinbaseLink(self)

    def push(self, now_ms: int) -> None:
        """Everything due by ``now_ms``, as long as somebody listens."""
        self.now_ms = now_ms
        if not self.links:
            return
        for t_ms, changes, trade in self._ladder.due(now_ms):
            self._all("level2", "l2_data", t_ms, [{"type": "update", "product_id": PRODUCT, "updates": [self._level(t_ms, *c) for c in changes]}])
            if trade is not None:
                self._trade_id += 1
                side, px, size = trade
                self._all("market_trades", "market_trades", t_ms, [{"type": "update", "trades": [{
                    "trade_id": str(self._trade_id), "product_id": PRODUCT, "price": self._ladder.px(px), "size": self._ladder.qty(size),
                    "side": ("SELL", "BUY")[side], "time": iso(t_ms)}]}])       # the maker's side
        if now_ms // 1000 != self._second:
            self._second = now_ms // 1000
            self._beats += 1
            self._all("heartbeats", "heartbeats", now_ms, [{"current_time": iso(now_ms), "heartbeat_counter": self._beats}])
            self._all("ticker", "ticker", now_ms, [{"type": "update", "tickers": [{
                "type": "ticker", "product_id": PRODUCT, "price": self._ladder.px(self._ladder.best(0)),
                "best_bid": self._ladder.px(self._ladder.best(0)), "best_ask": self._ladder.px(self._ladder.best(1))}]}])

    def _all(self, channel: str, name: str, t_ms: int, events: list) -> None:
        for link in list(self.links):
            if channel in link.wanted:
                link.frame(name, t_ms, events)

    def _level(self, t_ms: int, side: int, px: int, size: int) -> dict:
        return {"side": _SIDES[side], "event_time": iso(t_ms), "price_level": self._ladder.px(px), "new_quantity": self._ladder.qty(size)}

    def snapshot(self, channel: str) -> tuple[str, int, list]:
        """Arguments of `CoinbaseLink.frame` for the first data of a subscription."""
        if channel == "market_trades":
            return channel, self.now_ms, [{"type": "snapshot", "trades": [{
                "trade_id": str(self._trade_id), "product_id": PRODUCT, "price": self._ladder.px(self._ladder.best(0)), "size": "0.01",
                "side": "BUY", "time": iso(self.now_ms)}]}]
        levels = [self._level(self.now_ms, side, px, size) for side in (0, 1) for px, size in self._ladder.levels[side].items()]
        return "l2_data", self.now_ms, [{"type": "snapshot", "product_id": PRODUCT, "updates": levels}]
