"""The exchange's Bybit v5 server: orderbook.50, publicTrade and tickers of BTCUSDT.

Owns: sockets, subscriptions, the update ids of the book. Fed by `mmbot.sim.ladder`. Can go wrong: a request with more than ten topics, unknown
topics or garbage (answered with success false). Source: Bybit v5 WebSocket, public spot.
"""

import msgspec
from picows import WSUpgradeRequest

from mmbot.sim.faults import NO_FAULTS, Faults
from mmbot.sim.ladder import Ladder
from mmbot.sim.links import ServedLink, strings

SYMBOL = "BTCUSDT"
BOOK, TRADE, TICKER = f"orderbook.50.{SYMBOL}", f"publicTrade.{SYMBOL}", f"tickers.{SYMBOL}"
MAX_ARGS = 10
ENGINE_MS = 3           # from the engine's time to the server's
_encode = msgspec.json.encode


class BybitLink(ServedLink):
    """A client."""
    channel = "bybit"

    def __init__(self, server: "Bybit"):
        super().__init__(server)
        self.wanted = set()

    def message(self, message: dict) -> None:
        op, topics = message.get("op"), strings(message.get("args"))
        if op == "ping":
            self._answer(message, "pong")
            return
        wrong = [t for t in topics if t not in (BOOK, TRADE, TICKER)]
        if op not in ("subscribe", "unsubscribe") or wrong or not topics or len(topics) > MAX_ARGS:
            self._answer(message, "args size >10" if len(topics) > MAX_ARGS else f"handler not found: {','.join(wrong) or op}", False)
            return
        (self.wanted.update if op == "subscribe" else self.wanted.difference_update)(topics)
        self._answer(message, "")
        if op == "subscribe" and BOOK in topics:
            self.send(self.server.book(self.server.now_ms, "snapshot", [(s, px, q) for s in (0, 1) for px, q in self.server.levels(s)]))

    def _answer(self, message: dict, text: str, success: bool = True) -> None:
        more = {"req_id": message["req_id"]} if isinstance(message.get("req_id"), str) else {}
        self.put(_encode({"success": success, "ret_msg": text, "conn_id": f"link{self.number}", **more, "op": str(message.get("op", ""))}))


class Bybit:
    """The service."""

    def __init__(self, ladder: Ladder, faults: Faults = NO_FAULTS):
        self.faults, self._ladder = faults, ladder
        self.links: set[BybitLink] = set()
        self.now_ms = 0
        self._u, self._seq, self._trade = 9_000, 88_000_000, 2_290_000_000_123_456_789
        self._second = 0

    def accept(self, request: WSUpgradeRequest) -> BybitLink | None:
        """/v5/public/spot"""
        return BybitLink(self) if request.path.split(b"?")[0] == b"/v5/public/spot" else None

    def levels(self, side: int) -> list[tuple[int, int]]:
        """(price ticks, size) of a side of the book."""
        return list(self._ladder.levels[side].items())

    def push(self, now_ms: int) -> None:
        """Everything due by ``now_ms``, as long as somebody listens."""
        self.now_ms = now_ms
        if not self.links:
            return
        for t_ms, changes, trade in self._ladder.due(now_ms):
            self._u += 1
            self._seq += 4
            self._all(BOOK, self.book(t_ms, "delta", changes))
            if trade is not None:
                self._trade += 1
                self._seq += 1
                side, px, size = trade
                self._all(TRADE, _encode({"topic": TRADE, "ts": t_ms + 2, "type": "snapshot", "data": [{
                    "i": str(self._trade), "T": t_ms, "p": self._ladder.px(px), "v": self._ladder.qty(size), "S": ("Buy", "Sell")[side],
                    "s": SYMBOL, "BT": False, "RPI": False, "seq": self._seq}]}))
        if now_ms // 1000 != self._second:
            self._second = now_ms // 1000
            last = self._ladder.px(self._ladder.best(0))
            self._all(TICKER, _encode({"topic": TICKER, "ts": now_ms, "type": "snapshot", "cs": self._seq, "data": {
                "symbol": SYMBOL, "lastPrice": last, "highPrice24h": last, "lowPrice24h": last, "prevPrice24h": last, "volume24h": "8123.1",
                "turnover24h": "687000000", "price24hPcnt": "0.0042", "usdIndexPrice": last}}))

    def book(self, t_ms: int, kind: str, levels: list[tuple[int, int, int]]) -> bytes:
        """A book frame at the present update id."""
        bids, asks = ([[self._ladder.px(px), "0" if q == 0 else self._ladder.qty(q)] for s, px, q in levels if s == side] for side in (0, 1))
        return _encode({"topic": BOOK, "ts": t_ms + ENGINE_MS, "type": kind, "data": {"s": SYMBOL, "b": bids, "a": asks, "u": self._u, "seq": self._seq},
                        "cts": t_ms})

    def _all(self, topic: str, data: bytes) -> None:
        for link in list(self.links):
            if topic in link.wanted:
                link.send(data)
