"""The slow reads of the venue's REST interface, and the one-shot calls of the command line.

Owns: one aiohttp session per `RestClient`. Used off the hot path only: start-up, reconciliation, checks. Orders and cancels go
through `http1`.
Can go wrong: every failure is a `VenueError` with a code, and so is every answer that is not of the documented shape, down to the numbers in
its rows: HTML with status 200, half a document, a listing whose end or count does not fit. An empty list is only ever returned when the venue
said so in full.
Protocol: venue protocol, own orders and trades; market data; keys and account; cursors.
"""

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec

from mmbot.execution.credentials import Credentials
from mmbot.execution.l2 import L2Auth, l1_headers
from mmbot.execution.signing import Key
from mmbot.execution.wire import FIRST_CURSOR, LAST_CURSOR, USER_AGENT, ErrorCode, decimal_units, explain

MAX_PAGES = 1000
MAX_BODY = 16 << 20
#: what the venue answers with 200 to a question about an order it does not know
NOTHING = (b"", b"null", b"{}", b'""')


class VenueError(Exception):
    """The venue refused, was unreachable, or answered something else than it should. ``http_status`` is 0 without an answer."""

    def __init__(self, what: str, code: ErrorCode, text: str, http_status: int = 0):
        super().__init__(f"{what}: {text}")
        self.code, self.text, self.http_status = code, text, http_status


def _positive(*numbers: int) -> None:
    if min(numbers) < 0:
        raise ValueError(f"{min(numbers)} is negative")


def _named(*texts: str) -> None:
    if not all(texts):
        raise ValueError("an id or status is missing")


class OpenOrder(msgspec.Struct):
    """An order as the venue lists it. Texts are the venue's; the properties are exact integers."""
    id: str
    status: str = ""
    market: str = ""
    asset_id: str = ""
    side: str = ""
    price: str = "0"
    original_size: str = "0"
    size_matched: str = "0"
    owner: str = ""
    maker_address: str = ""
    outcome: str = ""
    order_type: str = ""
    created_at: Any = 0
    expiration: Any = "0"
    associate_trades: list[str] | None = None

    @property
    def px_e4(self) -> int:
        """Limit price, 1e-4."""
        return decimal_units(self.price, 4)

    @property
    def size_u6(self) -> int:
        """Original size, 1e-6 shares."""
        return decimal_units(self.original_size)

    @property
    def matched_u6(self) -> int:
        """Filled so far, 1e-6 shares."""
        return decimal_units(self.size_matched)

    def check(self) -> None:
        """Errors: ValueError when a number is none, or there is no id."""
        _positive(self.px_e4, self.size_u6, self.matched_u6)
        _named(self.id)


class MakerLeg(msgspec.Struct):
    """One maker order of a trade. ``price``, ``side`` and ``asset_id`` are this order's own, not the taker's."""
    order_id: str
    owner: str = ""
    maker_address: str = ""
    matched_amount: str = "0"
    price: str = "0"
    asset_id: str = ""
    outcome: str = ""
    side: str = ""
    fee_rate_bps: Any = "0"

    @property
    def px_e4(self) -> int:
        """This order's own price, 1e-4."""
        return decimal_units(self.price, 4)

    @property
    def matched_u6(self) -> int:
        """Shares of this order in the trade, 1e-6."""
        return decimal_units(self.matched_amount)

    def check(self) -> None:
        """Errors: ValueError when a number is none, or there is no id."""
        _positive(self.px_e4, self.matched_u6)
        _named(self.order_id)


class Trade(msgspec.Struct):
    """A trade as the venue lists it; own maker fills stand in ``maker_orders`` (owner == our API key) only."""
    id: str
    taker_order_id: str = ""
    market: str = ""
    asset_id: str = ""
    side: str = ""
    size: str = "0"
    price: str = "0"
    status: str = ""
    match_time: Any = "0"
    last_update: Any = "0"
    outcome: str = ""
    owner: str = ""
    maker_address: str = ""
    transaction_hash: str | None = ""
    trader_side: str = ""
    fee_rate_bps: Any = "0"
    bucket_index: Any = 0
    maker_orders: list[MakerLeg] = []

    @property
    def state(self) -> str:
        """MATCHED, MINED, CONFIRMED, RETRYING, FAILED or MATCHED_NOT_BROADCASTED, without the REST prefix."""
        return self.status.upper().removeprefix("TRADE_STATUS_")

    @property
    def px_e4(self) -> int:
        """The taker's price, 1e-4."""
        return decimal_units(self.price, 4)

    @property
    def size_u6(self) -> int:
        """The taker's shares, 1e-6."""
        return decimal_units(self.size)

    def check(self) -> None:
        """Errors: ValueError when a number is none, or there is no id or status."""
        _positive(self.px_e4, self.size_u6)
        _named(self.id, self.status)
        for leg in self.maker_orders:
            leg.check()


class Balance(msgspec.Struct):
    """``balance`` in 1e-6 units as the venue's text; ``allowances`` per contract."""
    balance: str
    allowances: dict[str, str] | None = None

    @property
    def balance_u6(self) -> int:
        """Dollars or shares, 1e-6."""
        return int(self.balance)

    def check(self) -> None:
        """Errors: ValueError when the balance is no whole number."""
        _positive(self.balance_u6)


class Geoblock(msgspec.Struct):
    """Where the venue believes this machine to be."""
    blocked: bool
    country: str = ""
    region: str = ""
    ip: str = ""


class ClosedOnly(msgspec.Struct):
    """Whether the account may only close positions."""
    closed_only: bool


class ApiKey(msgspec.Struct):
    """An API key. Secret: never log it."""
    apiKey: str
    secret: str
    passphrase: str

    def __repr__(self) -> str:
        return f"ApiKey({self.apiKey})"


class Page(msgspec.Struct):
    """One page of a listing. A page that does not say what comes next is not taken for the last one."""
    data: list[msgspec.Raw]
    next_cursor: str
    count: int = 0


class RestClient:
    """``async with RestClient(...)``. ``now_s`` gives wall-clock seconds (it signs requests); public reads need no ``auth``."""

    def __init__(self, clob_url: str, now_s: Callable[[], float], auth: L2Auth | None = None, signature_type: int = 0,
                 geoblock_url: str = "", timeout_s: float = 5.0):
        self._url, self._geoblock_url = clob_url.rstrip("/"), geoblock_url
        self._now_s, self._auth, self._signature_type = now_s, auth, signature_type
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def of(cls, venue, now_s: Callable[[], float], account: Credentials | None = None, timeout_s: float = 5.0) -> "RestClient":
        """Client of a [venue] section and, for private reads, an account."""
        return cls(venue.clob_url, now_s, L2Auth(account) if account else None, account.signature_type if account else 0,
                   venue.geoblock_url, timeout_s)

    async def __aenter__(self) -> "RestClient":
        self._session = aiohttp.ClientSession(timeout=self._timeout, headers={"User-Agent": USER_AGENT})
        return self

    async def __aexit__(self, *_exc) -> None:
        await self._session.close()

    async def _get(self, path: str, params: dict[str, str] | None = None, private: bool = False, url: str = "",
                   headers: dict[str, str] | None = None, method: str = "GET", body: bytes = b"") -> bytes:
        what = f"{method} {url or path}"
        if private:
            if self._auth is None:
                raise VenueError(what, ErrorCode.UNAUTHORIZED, "this read needs an account")
            headers = self._auth.header_dict(method, path, body, int(self._now_s()))
            if body:
                headers["Content-Type"] = "application/json"
        try:
            # a redirect would carry the authentication to another host: it counts as an error instead
            async with self._session.request(method, url or self._url + path, params=params, headers=headers, data=body or None,
                                             allow_redirects=False) as answer:
                got = await answer.content.read(MAX_BODY + 1)
                while len(got) <= MAX_BODY and (more := await answer.content.read(MAX_BODY)):
                    got += more
                status, kind = answer.status, answer.headers.get("Content-Type", "")
        except (aiohttp.ClientError, TimeoutError, OSError, asyncio.IncompleteReadError) as e:
            raise VenueError(what, ErrorCode.SERVER, str(e) or type(e).__name__) from None
        if status != 200:
            code, text, _ = explain(status, got)
            raise VenueError(what, code, text, status)
        if len(got) > MAX_BODY:
            raise VenueError(what, ErrorCode.NOT_UNDERSTOOD, f"the answer is longer than {MAX_BODY} bytes", status)
        if "html" in kind.lower() or got.lstrip()[:1] == b"<":
            raise VenueError(what, ErrorCode.NOT_UNDERSTOOD, f"a web page instead of data: {_excerpt(got)}", status)
        return got

    @staticmethod
    def _decode(what: str, body: bytes, shape: Any) -> Any:
        try:
            return msgspec.json.decode(body, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            # JSON is not quoted: it may hold an API secret
            shown = "" if bytes(body[:1]) in (b"{", b"[") else _excerpt(body)
            raise VenueError(what, ErrorCode.NOT_UNDERSTOOD, f"unexpected answer ({e}) {shown}".rstrip(), 200) from None

    @staticmethod
    def _row(what: str, row: Any) -> Any:
        """A row whose numbers are numbers. Errors: VenueError."""
        try:
            row.check()
        except ValueError as e:
            raise VenueError(what, ErrorCode.NOT_UNDERSTOOD, f"a row that cannot be read: {e}", 200) from None
        return row

    async def _pages(self, path: str, params: dict[str, str], shape: Any) -> list:
        """All rows of a cursor listing. The end marker is never sent back; a cursor that repeats ends it with an error."""
        rows, cursor, seen = [], FIRST_CURSOR, set()
        for _ in range(MAX_PAGES):
            seen.add(cursor)
            page = self._decode(path, await self._get(path, {**params, "next_cursor": cursor}, private=True), Page)
            if page.count > 0 and not page.data:
                raise VenueError(path, ErrorCode.NOT_UNDERSTOOD, f"a page of {page.count} rows without rows", 200)
            rows += [self._row(path, self._decode(path, bytes(raw), shape)) for raw in page.data]
            cursor = page.next_cursor
            if cursor in ("", LAST_CURSOR):
                return rows
            if cursor in seen:
                break
        raise VenueError(path, ErrorCode.NOT_UNDERSTOOD, f"the listing does not end (cursor {cursor!r})", 200)

    async def open_orders(self, market: str = "", asset_id: str = "") -> list[OpenOrder]:
        """All resting orders of the API key, or of one condition or token."""
        return await self._pages("/data/orders", _given(market=market, asset_id=asset_id), OpenOrder)

    async def trades(self, after: int = 0, market: str = "", maker_address: str = "", trade_id: str = "") -> list[Trade]:
        """All own trades, optionally only those after a Unix second."""
        return await self._pages("/data/trades", _given(after=str(after) if after else "", market=market, maker_address=maker_address,
                                                        id=trade_id), Trade)

    async def order(self, order_id: str) -> OpenOrder | None:
        """One own order by id; None when the venue says it does not know it (404, or an empty answer)."""
        path = f"/data/order/{quote(order_id, safe='')}"
        try:
            body = await self._get(path, private=True)
        except VenueError as e:
            if e.http_status == 404 and e.code is ErrorCode.NOT_FOUND and not e.text.startswith("HTTP 404"):
                return None                     # the venue's own words; a 404 of somebody on the way says nothing about the order
            raise
        if body.strip() in NOTHING:
            return None
        return self._row(path, self._decode(path, body, OpenOrder))

    async def balance(self, asset: str = "COLLATERAL", token: str = "") -> Balance:
        """Balance of "COLLATERAL", or of a token ("CONDITIONAL", "CONDITIONAL-V2" for position ids)."""
        params = _given(asset_type=asset, token_id=token, signature_type=str(self._signature_type))
        return self._row("/balance-allowance", self._decode("/balance-allowance", await self._get("/balance-allowance", params, private=True), Balance))

    async def token_balance(self, token: str) -> Balance:
        """Balance of a token: of a conditional token, or of a position when its id is one of the newer kind."""
        return await self.balance("CONDITIONAL-V2" if is_position_id(token) else "CONDITIONAL", token)

    async def balance_as(self, signature_type: int) -> Balance:
        """The dollars that this API key would trade with under another signature type."""
        params = {"asset_type": "COLLATERAL", "signature_type": str(signature_type)}
        return self._row("/balance-allowance", self._decode("/balance-allowance", await self._get("/balance-allowance", params, private=True), Balance))

    async def scoring(self, order_ids: list[str]) -> dict[str, bool]:
        """Which of these own orders earn liquidity rewards now; ids the venue does not mention are left out."""
        if not order_ids:
            return {}
        path = "/orders-scoring"
        return self._decode(path, await self._get(path, private=True, method="POST", body=msgspec.json.encode(order_ids)), dict[str, bool])

    async def closed_only(self) -> bool:
        """Whether the account may only close positions."""
        path = "/auth/ban-status/closed-only"
        return self._decode(path, await self._get(path, private=True), ClosedOnly).closed_only

    async def renew_balance(self, asset: str = "COLLATERAL", token: str = "") -> None:
        """Have the venue read a balance of `balance` anew from the chain; what it answers says nothing."""
        params = _given(asset_type=asset, token_id=token, signature_type=str(self._signature_type))
        await self._get("/balance-allowance/update", params, private=True)

    async def server_time(self) -> int:
        """The venue's clock, Unix seconds."""
        found = self._decode("/time", await self._get("/time"), Any)
        if isinstance(found, dict):
            found = found.get("time", found.get("timestamp"))
        try:
            return int(found)
        except (TypeError, ValueError):
            raise VenueError("/time", ErrorCode.NOT_UNDERSTOOD, f"{found!r} is not a time", 200) from None

    async def geoblock(self) -> Geoblock:
        """Whether this machine's address may trade."""
        if not self._geoblock_url:
            raise VenueError("geoblock", ErrorCode.INVALID, "venue.geoblock_url is not set")
        return self._decode("geoblock", await self._get("geoblock", url=self._geoblock_url), Geoblock)

    async def page(self, url: str) -> bytes:
        """The bytes behind a public address of the venue, as those of a window's event."""
        return await self._get(url, url=url)

    async def book(self, token: str) -> dict:
        """The book of one token as the venue sends it: bids ascending, asks descending, the best level last."""
        return self._decode("/book", await self._get("/book", {"token_id": token}), dict)

    async def clob_market(self, condition_id: str) -> dict:
        """The compact market description (keys as the venue abbreviates them; absent means false or 0)."""
        path = f"/clob-markets/{quote(condition_id, safe='')}"
        return self._decode(path, await self._get(path), dict)

    async def derive_api_key(self, key: Key, chain_id: int = 137, nonce: int = 0) -> ApiKey:
        """The API key of a wallet: an existing one is derived, else one is created."""
        async def ask(method: str, path: str) -> ApiKey:
            headers = l1_headers(key, int(self._now_s()), nonce, chain_id)
            return self._decode(path, await self._get(path, headers=headers, method=method), ApiKey)
        try:
            return await ask("GET", "/auth/derive-api-key")
        except VenueError as e:
            if e.http_status not in (400, 404):
                raise
            return await ask("POST", "/auth/api-key")


def _excerpt(body: bytes) -> str:
    return " ".join(body[:80].decode("utf-8", "replace").split())


def is_position_id(token: str) -> bool:
    """Whether a token id is a position id of the venue's second protocol version. Source: venue protocol, exchange versions."""
    return token.isdecimal() and int(token) >> 40 & (1 << 64) - 1 == 0


def _given(**params: str) -> dict[str, str]:
    return {name: value for name, value in params.items() if value}
