"""The exchange's WebSocket servers: market and user channel, RTDS, Binance.

Owns: sockets and subscriptions. `Hub` is the engine's listener: a frame is built once per change, at the moment of the change, and only
when somebody is subscribed. Also owns the stamps of frames out and POSTs in, from which the tick-to-order bench is computed.
What can go wrong: garbage from a client (answered, ignored); what every link has in common stands in `links`.

Source: venue protocol, WebSocket channels, RTDS, Binance spot streams.
"""

import base64
from collections import deque
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import msgspec
from picows import WSCloseCode, WSUpgradeRequest

from mmbot.clock import mono_ns
from mmbot.sim import wire
from mmbot.sim.account_rest import Accounts
from mmbot.sim.auth import Credentials, Keys
from mmbot.sim.engine import Exchange, Listener, Market, Order, Trade
from mmbot.sim.faults import NO_FAULTS, Faults
from mmbot.sim.ledger import Ledger
from mmbot.sim.links import Link, ServedLink, Shuffle, strings
from shm_layout.records import DOWN, UP

KEEP_STAMPS = 20_000
SNAPSHOT_POINTS = 120
#: filters that are called otherwise than what they look at
FILTER_KEYS = {"event_slug": "eventSlug", "market_slug": "slug"}
SPOT_TOPICS = ("crypto_prices", "crypto_prices_chainlink")

_decode = msgspec.json.Decoder(dict).decode


class Stamps:
    """Bounded list of CLOCK_MONOTONIC stamps: market-channel frames as they leave, POSTs of orders as their last byte arrives."""

    def __init__(self):
        self.count = 0
        self._frames: deque = deque(maxlen=KEEP_STAMPS)
        self._posts: deque = deque(maxlen=KEEP_STAMPS)
        self._probes = 0

    def frame(self, t_ns: int, probes: int) -> None:
        """One frame; it is a probe when the tape's count of ``probes`` has grown since the one before."""
        self.count += 1
        self._frames.append((self.count, t_ns, probes != self._probes))
        self._probes = probes

    def post(self, t_ns: int, orders: int) -> None:
        """One POST with that many orders."""
        self.count += 1
        self._posts.append((self.count, t_ns, orders))

    def since(self, n: int) -> dict:
        """Everything after the n-th stamp; ``next`` is what to ask for next."""
        frames = [{"n": k, "t_ns": t, "probe": p} for k, t, p in _tail(self._frames, n)]
        posts = [{"n": k, "t_ns": t, "orders": o} for k, t, o in _tail(self._posts, n)]
        return {"frames": frames, "posts": posts, "next": self.count}


def _tail(stamps: deque, n: int) -> list:
    out = []
    for stamp in reversed(stamps):
        if stamp[0] <= n:
            break
        out.append(stamp)
    return out[::-1]


class MarketLink(Link):
    """A client of the market channel."""

    def __init__(self, hub: "Hub"):
        super().__init__(hub.faults)
        self.hub, self.tokens, self.custom, self.shuffle = hub, set(), False, hub.new_shuffle(self.number)

    def message(self, message: dict) -> None:
        tokens, operation = strings(message.get("assets_ids")), message.get("operation", "subscribe")
        if operation == "unsubscribe":
            self.tokens.difference_update(tokens)
        elif operation == "subscribe":
            if isinstance(custom := message.get("custom_feature_enabled"), bool):
                self.custom = custom
            fresh = [t for t in dict.fromkeys(tokens) if t not in self.tokens]
            self.tokens.update(fresh)
            if message.get("initial_dump", True) and (fresh or not tokens):
                self.send(self.hub.snapshot(fresh))
        else:
            self.put(b"INVALID OPERATION")
            return
        self.hub.index(self)

    def gone(self) -> None:
        self.tokens.clear()
        self.hub.index(self, drop=True)


class UserLink(Link):
    """A client of the user channel. Wrong credentials close the socket."""
    channel = "user"

    def __init__(self, hub: "Hub"):
        super().__init__(hub.faults)
        self.hub, self.shuffle = hub, hub.new_shuffle(self.number)
        self.who: Credentials | None = None
        self.markets: set[str] | None = None          # None: everything of the account

    def message(self, message: dict) -> None:
        auth = message.get("auth")
        if isinstance(auth, dict):
            parts = [auth.get(k) for k in ("apiKey", "secret", "passphrase")]
            self.who = self.hub.keys.user(*parts) if all(isinstance(p, str) for p in parts) else None
            if self.who is not None:
                self.hub.users.setdefault(self.who.api_key, []).append(self)
        if self.who is None:
            self.transport.send_close(WSCloseCode.POLICY_VIOLATION, b"auth failed")
            self.transport.disconnect()
            return
        markets = strings(message.get("markets"))
        if message.get("operation") == "unsubscribe":
            self.markets = (self.markets or set()) - set(markets)
        elif markets:
            self.markets = (self.markets or set()) | set(markets)

    def wants(self, condition_id: str) -> bool:
        """Is this market inside the client's filter?"""
        return self.markets is None or condition_id in self.markets

    def gone(self) -> None:
        for links in self.hub.users.values():
            if self in links:
                links.remove(self)


class Hub(Listener):
    """Turns what the engine does into frames for those who subscribed."""

    def __init__(self, keys: Keys, shuffle_ms: float = 0.0, seed: int = 0):
        """``shuffle_ms`` > 0 makes frames late and out of order by up to that."""
        self.keys, self.stamps = keys, Stamps()
        self.faults: Faults = NO_FAULTS
        self._shuffle_ms, self._seed = shuffle_ms, seed
        self.exchange: Exchange | None = None         # set by the server: the engine needs its listener first
        self.ledger: Ledger | None = None             # set by the server once the past is recovered
        self.notices: Accounts | None = None          # who keeps the notifications of accounts
        self.public: Callable[[Trade], None] = lambda trade: None      # where trades are shown to everybody
        self.links: list[MarketLink] = []
        self.users: dict[str, list[UserLink]] = {}
        self._by_market: dict[str, list[MarketLink]] = {}
        self.probes: Callable[[], int] = lambda: 0    # how many steps the probe tape has made

    # -- subscriptions --

    def new_shuffle(self, number: int) -> Shuffle | None:
        """The disorder of one link, None when frames are to leave in order."""
        return Shuffle(self._shuffle_ms, self._seed * 1000 + number) if self._shuffle_ms > 0 else None

    def accept(self, request: WSUpgradeRequest) -> Link | None:
        """Route of the WebSocket port."""
        path = request.path.split(b"?")[0]
        if path == b"/ws/market":
            return MarketLink(self)
        return UserLink(self) if path == b"/ws/user" else None

    def index(self, link: MarketLink, drop: bool = False) -> None:
        """A link's tokens changed."""
        if link in self.links:
            self.links.remove(link)
        if not drop:
            self.links.append(link)
        self._reindex()

    def _reindex(self) -> None:
        index: dict[str, list[MarketLink]] = {}
        for link in self.links:
            markets = (self.exchange.market_by_token(t) for t in link.tokens)
            for cid in {m.condition_id for m in markets if m is not None}:
                index.setdefault(cid, []).append(link)
        self._by_market = index

    def snapshot(self, tokens: list[str]) -> bytes:
        """The initial array of books of the tokens that are listed."""
        books = []
        for token in tokens:
            market = self.exchange.market_by_token(token)
            if market is not None and not market.closed:
                books.append(wire.BookText(market, UP if token == market.tokens[UP] else DOWN, market.changed_ms).frame(True))
        return f"[{','.join(books)}]".encode()

    # -- engine events, market channel --

    def on_level(self, market: Market, side: int, px_e4: int, now_ms: int) -> None:
        links = self._by_market.get(market.condition_id)
        if not links:
            return
        data = wire.price_change(market, side, px_e4, now_ms).encode()
        self.stamps.frame(mono_ns(), self.probes())
        for link in links:
            link.send(data)

    def on_book(self, market: Market, now_ms: int) -> None:
        links = self._by_market.get(market.condition_id)
        if not links:
            return
        for outcome in (UP, DOWN):
            token = market.tokens[outcome]
            book = wire.BookText(market, outcome, now_ms).frame(False).encode()
            best = wire.best_bid_ask(market, outcome, now_ms).encode()
            for link in links:
                if token in link.tokens:
                    link.send(book)
                    if link.custom:
                        link.send(best)

    def on_last_trade(self, market: Market, outcome: int, side: int, px_e4: int, size_u6: int, tx: str, now_ms: int) -> None:
        self._per_token(market, outcome, wire.last_trade_price(market, outcome, side, px_e4, size_u6, tx, now_ms))

    def on_tick(self, market: Market, old_e4: int, new_e4: int, now_ms: int) -> None:
        for outcome in (UP, DOWN):
            self._per_token(market, outcome, wire.tick_size_change(market, outcome, old_e4, new_e4, now_ms))

    def _per_token(self, market: Market, outcome: int, text: str) -> None:
        data = text.encode()
        for link in self._by_market.get(market.condition_id, ()):
            if market.tokens[outcome] in link.tokens:
                link.send(data)

    def on_market(self, market: Market, now_ms: int) -> None:
        self._reindex()
        links = [link for link in self.links if link.custom]
        data = wire.new_market(market, now_ms).encode() if links else b""
        for link in links:
            link.send(data)

    def on_resolved(self, market: Market, now_ms: int) -> None:
        if self.notices is not None:
            self.notices.resolved(market, now_ms)
        links = [link for link in self._by_market.get(market.condition_id, ()) if link.custom]
        data = wire.market_resolved(market, now_ms).encode() if links else b""
        for link in links:
            link.send(data)

    # -- engine events, user channel --

    def on_order(self, order: Order, kind: str, status: str, now_ms: int) -> None:
        if kind == "CANCELLATION" and self.notices is not None:
            self.notices.cancelled(order, now_ms)
        links = self.users.get(order.owner)
        if links:
            data = wire.order_event(order, kind, status, now_ms)
            for link in links:
                if link.wants(order.market.condition_id):
                    link.send(data)

    def on_paid(self, market: Market, now_ms: int) -> None:
        if self.ledger is not None:
            self.ledger.paid(market)

    def on_trade(self, trade: Trade, now_ms: int) -> None:
        if self.ledger is not None:
            self.ledger.trade(trade)
        if self.notices is not None:
            self.notices.traded(trade, now_ms)
        if trade.status == "MINED":
            self.public(trade)
        for owner in trade.owners():
            links = self.users.get(owner)
            if links:
                data = wire.trade_event(trade, owner, now_ms)
                for link in links:
                    if link.wants(trade.market.condition_id):
                        link.send(data)


class RtdsLink(ServedLink):
    """A client of RTDS: per topic one type and one filter. The server does not answer PING."""
    channel = "rtds"
    pong = None

    def __init__(self, rtds: "Rtds"):
        super().__init__(rtds)
        self.topics: dict[str, tuple[str, dict | None]] = {}     # topic -> (type, filter); a filter of None matches nothing
        self._id = b'{"connection_id":"%s",' % base64.b64encode(b"%011d" % self.number)

    def message(self, message: dict) -> None:
        wanted = message.get("subscriptions")
        for sub in wanted if isinstance(wanted, list) else ():
            topic = sub.get("topic") if isinstance(sub, dict) else None
            if not isinstance(topic, str):
                continue
            if message.get("action") == "unsubscribe":
                self.topics.pop(topic, None)
            elif message.get("action") == "subscribe":
                self._subscribe(topic, str(sub.get("type", "*")), sub.get("filters", ""))

    def _subscribe(self, topic: str, kind: str, filters) -> None:
        """A second subscription of a topic replaces the first. An array as filter is accepted, and then nothing comes."""
        wanted: dict | None = {}
        if isinstance(filters, list):
            wanted = None
        elif filters:
            try:
                decoded = msgspec.json.decode(filters)
            except (msgspec.MsgspecError, TypeError, UnicodeDecodeError):
                decoded = 0
            if isinstance(decoded, dict) and decoded:
                wanted = {k: str(v).lower() for k, v in decoded.items()}
            elif isinstance(decoded, list):
                wanted = None
            else:
                self.put(b'{"message":"invalid Subscription.Filters: value does not match regex"}')
                return
        self.topics[topic] = kind, wanted
        if wanted and (snapshot := self.server.snapshot(topic, wanted.get("symbol", ""))):
            self.send(snapshot)

    def take(self, topic: str, kind: str, payload: dict, data: bytes) -> None:
        """Send a frame if it was asked for."""
        asked = self.topics.get(topic)
        if asked is None or asked[0] not in ("*", kind) or asked[1] is None:
            return
        if all(str(payload.get(FILTER_KEYS.get(k, k), "")).lower() == v for k, v in asked[1].items()):
            self.send(self._id + data[1:])


class Rtds:
    """Reference prices and the public activity: passes frames on by topic; spot topics have two minutes of history for filtered subscriptions."""

    def __init__(self):
        self.links: set[RtdsLink] = set()
        self.faults: Faults = NO_FAULTS
        self._history: dict[tuple[str, str], deque] = {}

    def accept(self, request: WSUpgradeRequest) -> RtdsLink:
        """Every path is the same service."""
        return RtdsLink(self)

    def push(self, frames: list[bytes]) -> None:
        """Frames that are due: objects with topic, type, timestamp and payload, without a connection id."""
        for data in frames:
            frame = _decode(data)
            topic, kind, payload = frame["topic"], frame["type"], frame["payload"]
            if topic in SPOT_TOPICS:
                points = self._history.setdefault((topic, payload["symbol"]), deque(maxlen=SNAPSHOT_POINTS))
                points.append({"timestamp": payload["timestamp"], "value": payload["value"]})
            for link in list(self.links):
                link.take(topic, kind, payload, data)

    def snapshot(self, topic: str, symbol: str) -> bytes:
        """First frame of a filtered spot subscription, b"" when there is none; its topic is crypto_prices whatever was asked for."""
        points = self._history.get((topic, symbol))
        if not points:
            return b""
        return wire.encode({"payload": {"data": list(points), "symbol": symbol}, "timestamp": points[-1]["timestamp"],
                            "topic": "crypto_prices", "type": "subscribe"})


class BinanceLink(ServedLink):
    """A client of the Binance streams, raw or wrapped."""
    channel = "binance"

    def __init__(self, binance: "Binance", streams: list[str], wrapped: bool):
        super().__init__(binance)
        self.streams, self.wrapped = set(streams), wrapped

    def message(self, message: dict) -> None:
        method, names = message.get("method"), strings(message.get("params"))
        if method == "SUBSCRIBE":
            self.streams.update(names)
        elif method == "UNSUBSCRIBE":
            self.streams.difference_update(names)
        elif method != "LIST_SUBSCRIPTIONS":
            self.send(b'{"error":{"code":2,"msg":"Invalid request: unknown variant"}}')
            return
        result = sorted(self.streams) if method == "LIST_SUBSCRIPTIONS" else None
        self.send(wire.encode({"result": result, "id": message.get("id")}))


class Binance:
    """Spot streams: passes the tape's frames on by stream name."""

    def __init__(self):
        self.links: set[BinanceLink] = set()
        self.faults: Faults = NO_FAULTS

    def accept(self, request: WSUpgradeRequest) -> BinanceLink | None:
        """/ws, /ws/<stream>/<stream> (raw) or /stream?streams=<stream>/<stream> (wrapped)."""
        url = urlsplit(request.path.decode("latin-1"))
        head, _, rest = url.path.strip("/").partition("/")
        if head == "ws":
            return BinanceLink(self, [s for s in rest.split("/") if s], False)
        if head == "stream":
            names = parse_qs(url.query).get("streams", [""])[0]
            return BinanceLink(self, [s for s in names.split("/") if s], True)
        return None

    def push(self, frames: list[tuple[str, bytes]]) -> None:
        """(stream, frame) pairs of the tape that are due."""
        for stream, data in frames:
            for link in list(self.links):
                if stream in link.streams:
                    link.send(b'{"stream":"%s","data":%s}' % (stream.encode(), data) if link.wrapped else data)
