"""Bytes of every request to the venue's REST interface, and the meaning of every answer.

Owns: request layout (HTTP/1.1 head, authentication lines, body), the error codes, and the rule by which an order counts as
accepted. Pure: no sockets, no clock. Read by: the order manager, the guardian, `rest`.
Can go wrong: an answer that is HTML, cut, or of another shape. Nothing here raises on an answer; what cannot be understood has
outcome UNKNOWN, and the caller asks the venue for the order by its id.

Protocol: venue protocol, place and cancel; heartbeat; errors; rate limits. A leg of a batch can fail inside HTTP 200 with
``success`` true: four fields are judged. There is no idempotency key, the order id is the only handle.
"""

import enum
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlsplit

import msgspec

from mmbot.errors import UserError
from mmbot.execution.l2 import L2Auth

USER_AGENT = "mmbot/0.1"            # the edge answers 403 to the defaults of common libraries
MAX_BATCH = 15
MAX_CANCELS = 1000
FIRST_CURSOR, LAST_CURSOR = "MA==", "LTE="
_SHOWN = 200
_MOST_DIGITS = 18


class ErrorCode(enum.IntEnum):
    """Why the venue refused, or why an outcome is not known. The numbers go into order events."""
    NONE = 0
    DUPLICATED = 1              # the venue has (had) an order with these very bytes
    CROSSES_BOOK = 2            # post-only order would have taken
    NOT_ENOUGH_BALANCE = 3
    TICK = 4
    MIN_SIZE = 5
    RESTARTING = 6              # matching engine restarts
    POST_ONLY_MODE = 7
    CANCEL_ONLY = 8
    DISABLED = 9                # nothing accepted, not even cancels
    RATE_LIMITED = 10
    GEOBLOCK = 11
    UNAUTHORIZED = 12
    VERSION_MISMATCH = 13       # signed for another exchange contract
    IDENTITY = 14               # owner, signer or maker does not belong to the API key
    BANNED = 15                 # address banned
    INVALID = 16                # malformed payload, expiration, id
    MARKET_NOT_READY = 17
    NOT_FILLED = 18             # FOK or FAK found nothing
    TOO_MANY = 19               # batch too long
    NOT_FOUND = 20
    HEARTBEAT_ID = 21
    FORBIDDEN = 22              # refused by the edge, not for the region
    SERVER = 23                 # 5xx: it may have happened
    NOT_UNDERSTOOD = 24         # not JSON, or JSON of another shape
    UNMATCHED = 25              # delayed order that ended without a match: resting or gone
    UNKNOWN = 26                # a refusal with a text nobody has seen
    CLOSED_ONLY = 27            # the account may only close positions


class Outcome(enum.IntEnum):
    """What is known about a request after its answer."""
    ACCEPTED = 1
    REFUSED = 2
    UNKNOWN = 3                 # ask the venue by order id before doing anything else


_TEXTS = (
    ("duplicated", ErrorCode.DUPLICATED),
    ("crosses", ErrorCode.CROSSES_BOOK),
    ("not enough balance", ErrorCode.NOT_ENOUGH_BALANCE),
    ("tick size", ErrorCode.TICK),
    ("lower than the minimum", ErrorCode.MIN_SIZE),
    ("min size", ErrorCode.MIN_SIZE),
    ("post-only mode", ErrorCode.POST_ONLY_MODE),
    ("cancel-only", ErrorCode.CANCEL_ONLY),
    ("trading is currently disabled", ErrorCode.DISABLED),
    ("too many requests", ErrorCode.RATE_LIMITED),
    ("restricted in your region", ErrorCode.GEOBLOCK),
    ("geoblock", ErrorCode.GEOBLOCK),
    ("invalid api key", ErrorCode.UNAUTHORIZED),
    ("unauthorized", ErrorCode.UNAUTHORIZED),
    ("invalid l1 request", ErrorCode.UNAUTHORIZED),
    ("order_version_mismatch", ErrorCode.VERSION_MISMATCH),
    ("invalid order version", ErrorCode.VERSION_MISMATCH),
    ("order owner has to be", ErrorCode.IDENTITY),
    ("order signer address has to be", ErrorCode.IDENTITY),
    ("maker address not allowed", ErrorCode.IDENTITY),
    ("address banned", ErrorCode.BANNED),
    ("closed only mode", ErrorCode.CLOSED_ONLY),
    ("not yet ready", ErrorCode.MARKET_NOT_READY),
    ("delayed due to market conditions", ErrorCode.MARKET_NOT_READY),
    ("fok orders are", ErrorCode.NOT_FILLED),
    ("fak orders are", ErrorCode.NOT_FILLED),
    ("no matching orders", ErrorCode.NOT_FILLED),
    ("too many orders", ErrorCode.TOO_MANY),
    ("invalid heartbeat", ErrorCode.HEARTBEAT_ID),
    ("no orderbook exists", ErrorCode.NOT_FOUND),
    ("not found", ErrorCode.NOT_FOUND),
    ("invalid", ErrorCode.INVALID),
)
_STATUSES = {401: ErrorCode.UNAUTHORIZED, 403: ErrorCode.FORBIDDEN, 404: ErrorCode.NOT_FOUND, 425: ErrorCode.RESTARTING,
             429: ErrorCode.RATE_LIMITED}
_CODES = {"post_only_mode": ErrorCode.POST_ONLY_MODE}
_REFUSED_5XX = {ErrorCode.POST_ONLY_MODE, ErrorCode.CANCEL_ONLY, ErrorCode.DISABLED, ErrorCode.RESTARTING}


def classify(http_status: int, text: str, code: str = "") -> ErrorCode:
    """The error code of a refusal. ``text`` is the venue's message ("" if none), ``code`` its machine code where it has one."""
    if found := _CODES.get(code):
        return found
    lowered = text.lower()
    if http_status in (401, 425, 429):
        return _STATUSES[http_status]
    for part, found in _TEXTS:
        if part in lowered:
            return found
    if http_status in _STATUSES:
        return _STATUSES[http_status]
    return ErrorCode.SERVER if http_status >= 500 else ErrorCode.UNKNOWN


def outcome_of(http_status: int, code: ErrorCode) -> Outcome:
    """Whether a request answered with an error can still have had an effect."""
    if code is ErrorCode.DUPLICATED:                    # an earlier sending of the same bytes has arrived
        return Outcome.UNKNOWN
    if http_status >= 500 and code not in _REFUSED_5XX:
        return Outcome.UNKNOWN
    return Outcome.REFUSED if http_status >= 400 else Outcome.UNKNOWN


def decimal_units(text: Any, scale: int = 6) -> int:
    """A decimal text of the venue as an integer of 10^-scale, rounded half-even beyond that; ValueError if it is no number.

    "" and None, which the venue sends for "nothing", are 0.
    """
    if text is None or text == "":
        return 0
    try:
        value = Decimal(str(text))
        if value.adjusted() > _MOST_DIGITS:         # also keeps a hostile exponent from becoming a number of a gigabyte
            raise ValueError
        return int(value.scaleb(scale).to_integral_value())
    except (InvalidOperation, OverflowError, ValueError):
        raise ValueError(f"{str(text)[:40]!r} is not a decimal number") from None


class _ErrorBody(msgspec.Struct):
    error: Any = ""
    error_msg: Any = ""
    errorMsg: Any = ""
    message: Any = ""
    code: Any = ""
    retry_after_seconds: Any = 0
    heartbeat_id: Any = ""


_decode_error = msgspec.json.Decoder(_ErrorBody).decode


def explain(http_status: int, body: bytes) -> tuple[ErrorCode, str, float]:
    """(code, text, seconds to wait as the body says or 0) of an answer that is not a success. HTML and plain text too."""
    try:
        parsed = _decode_error(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = " ".join(body[:_SHOWN].decode("utf-8", "replace").split())
        found = classify(http_status, text)
        return (found if found is not ErrorCode.UNKNOWN else ErrorCode.NOT_UNDERSTOOD), f"HTTP {http_status}: {text}", 0.0
    text = next((str(t) for t in (parsed.error, parsed.error_msg, parsed.errorMsg, parsed.message) if t), "")
    wait = parsed.retry_after_seconds
    return (classify(http_status, text, parsed.code if isinstance(parsed.code, str) else ""), text or f"HTTP {http_status}",
            float(wait) if isinstance(wait, int | float) else 0.0)


class Leg(msgspec.Struct):
    """What became of one order of a POST. ``order_id`` is the venue's if it gave one, else the one that was sent."""
    outcome: Outcome
    order_id: str
    code: ErrorCode = ErrorCode.NONE
    status: str = ""                # live, matched, delayed, unmatched or ""
    error: str = ""
    making_u6: int = 0
    taking_u6: int = 0
    trade_ids: list[str] = []
    id_differs: bool = False        # the venue knows the order under another id than the digest we computed


class _OrderBody(msgspec.Struct):
    success: bool | None = None
    errorMsg: str | None = None
    orderID: str | None = None
    status: str | None = None
    makingAmount: Any = None
    takingAmount: Any = None
    tradeIDs: list[str] | None = None


_decode_orders = msgspec.json.Decoder(list[_OrderBody]).decode
_decode_order = msgspec.json.Decoder(_OrderBody).decode
_ACCEPTED = ("live", "matched", "delayed")


def _judge(answer: _OrderBody, expected_id: str) -> Leg:
    """The acceptance test: success, no error text, an order id, and a status that means the venue has it."""
    status, error, order_id = (answer.status or "").lower(), answer.errorMsg or "", answer.orderID or ""
    if error or answer.success is False:
        code = classify(200, error)
        outcome = Outcome.UNKNOWN if order_id or code is ErrorCode.DUPLICATED else Outcome.REFUSED
        return Leg(outcome, order_id or expected_id, code, status, error)
    try:
        making_u6, taking_u6 = decimal_units(answer.makingAmount), decimal_units(answer.takingAmount)
    except ValueError as e:
        return Leg(Outcome.UNKNOWN, order_id or expected_id, ErrorCode.NOT_UNDERSTOOD, status, str(e))
    if answer.success and order_id and status in _ACCEPTED:
        return Leg(Outcome.ACCEPTED, order_id, ErrorCode.NONE, status, "", making_u6, taking_u6, answer.tradeIDs or [],
                   order_id.lower() != expected_id.lower())
    code = ErrorCode.UNMATCHED if status == "unmatched" else ErrorCode.NOT_UNDERSTOOD
    return Leg(Outcome.UNKNOWN, order_id or expected_id, code, status, error, making_u6, taking_u6)


def _all(expected_ids: Sequence[str], http_status: int, body: bytes) -> list[Leg]:
    code, text, _ = explain(http_status, body)
    if http_status < 400:
        code = ErrorCode.NOT_UNDERSTOOD
    outcome = outcome_of(http_status, code)
    return [Leg(outcome, order_id, code, "", text) for order_id in expected_ids]


def parse_orders(http_status: int, body: bytes, expected_ids: Sequence[str]) -> list[Leg]:
    """Legs of a POST /orders answer, one per order sent and in that order. ``expected_ids``: the digests, 0x hex."""
    if http_status == 200:
        try:
            answers = _decode_orders(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            answers = []
        if len(answers) == len(expected_ids):
            return [_judge(a, i) for a, i in zip(answers, expected_ids, strict=True)]
    return _all(expected_ids, http_status, body)


def parse_order(http_status: int, body: bytes, expected_id: str) -> Leg:
    """The answer to POST /order."""
    if http_status == 200:
        try:
            return _judge(_decode_order(body), expected_id)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return Leg(Outcome.UNKNOWN, expected_id, ErrorCode.NOT_UNDERSTOOD, "", "HTTP 200 with a body of another shape")
    return _all([expected_id], http_status, body)[0]


class CancelAnswer(msgspec.Struct):
    """What a cancel request did. UNKNOWN and REFUSED say nothing about any order: read the open orders."""
    outcome: Outcome
    canceled: list[str] = []
    not_canceled: dict[str, str] = {}
    code: ErrorCode = ErrorCode.NONE
    error: str = ""


class _CancelBody(msgspec.Struct):
    canceled: list[str] | None
    not_canceled: dict[str, str] | None = None


_decode_cancel = msgspec.json.Decoder(_CancelBody).decode


class NotCanceled(enum.IntEnum):
    """Why one order was not cancelled."""
    GONE = 1                    # already cancelled or matched: no longer live
    DELAYED = 2                 # held by the taker delay: cannot be cancelled, can still match
    OTHER = 3


def not_canceled_reason(text: str) -> NotCanceled:
    """Meaning of a reason text of ``not_canceled``."""
    lowered = text.lower()
    if "delayed" in lowered or "pending" in lowered:
        return NotCanceled.DELAYED
    if "already" in lowered or "matched" in lowered or "not found" in lowered or "can't be found" in lowered:
        return NotCanceled.GONE
    return NotCanceled.OTHER


def parse_cancel(http_status: int, body: bytes) -> CancelAnswer:
    """The answer to DELETE /order, /orders and /cancel-all."""
    if http_status == 200:
        try:
            answer = _decode_cancel(body)
            return CancelAnswer(Outcome.ACCEPTED, answer.canceled or [], answer.not_canceled or {})
        except (msgspec.DecodeError, UnicodeDecodeError):
            return CancelAnswer(Outcome.UNKNOWN, code=ErrorCode.NOT_UNDERSTOOD, error="HTTP 200 with a body of another shape")
    code, text, _ = explain(http_status, body)
    return CancelAnswer(outcome_of(http_status, code), code=code, error=text)


class HeartbeatAnswer(msgspec.Struct):
    """``heartbeat_id`` is what to send next: after a refusal for a wrong id it is the one the venue expects ("" starts anew)."""
    outcome: Outcome
    heartbeat_id: str = ""
    code: ErrorCode = ErrorCode.NONE
    error: str = ""


class _HeartbeatBody(msgspec.Struct):
    heartbeat_id: str


_decode_heartbeat = msgspec.json.Decoder(_HeartbeatBody).decode


def parse_heartbeat(http_status: int, body: bytes) -> HeartbeatAnswer:
    """The answer to POST /v1/heartbeats. Only ACCEPTED moved the deadline."""
    if http_status == 200:
        try:
            return HeartbeatAnswer(Outcome.ACCEPTED, _decode_heartbeat(body).heartbeat_id)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return HeartbeatAnswer(Outcome.UNKNOWN, "", ErrorCode.NOT_UNDERSTOOD, "HTTP 200 with a body of another shape")
    code, text, _ = explain(http_status, body)
    expected = ""
    if code is ErrorCode.HEARTBEAT_ID:
        try:
            expected = _decode_error(body).heartbeat_id
        except (msgspec.DecodeError, UnicodeDecodeError):
            expected = ""
    return HeartbeatAnswer(outcome_of(http_status, code), expected if isinstance(expected, str) else "", code, text)


class RateLimit(msgspec.Struct):
    """What the answer's headers say about the signer's token bucket. -1: not said."""
    remaining: int = -1
    reset_s: int = -1
    tier: str = ""
    warning: str = ""
    retry_after_s: float = -1.0


def rate_limit(headers: Mapping[str, str]) -> RateLimit:
    """Rate-limit headers of an answer (names in lower case). Unreadable ones count as not said."""
    def number(name: str) -> float:
        try:
            value = float(headers.get(name, "-1"))
        except ValueError:
            return -1.0
        return value if math.isfinite(value) else -1.0
    return RateLimit(int(number("poly-ratelimit-remaining")), int(number("poly-ratelimit-reset")),
                     headers.get("poly-ratelimit-tier", ""), headers.get("poly-ratelimit-warning", ""), number("retry-after"))


class Requests:
    """Builds requests to one CLOB base URL as bytes, authenticated by ``auth``. Timestamps are wall-clock seconds."""

    def __init__(self, clob_url: str, auth: L2Auth):
        parts = urlsplit(clob_url)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/"):
            raise UserError(f"venue.clob_url {clob_url!r} is not a base URL like https://host or http://host:port")
        self.auth = auth
        self._common = f"Host: {parts.netloc}\r\nUser-Agent: {USER_AGENT}\r\nAccept: */*\r\n".encode()
        self._routes = {}
        for method, path in (("POST", "/orders"), ("POST", "/order"), ("DELETE", "/order"), ("DELETE", "/orders"),
                             ("DELETE", "/cancel-all"), ("POST", "/v1/heartbeats")):
            self._routes[method, path] = (self._head(method, path) + b"Content-Type: application/json\r\n", f"{method}{path}".encode())

    def _head(self, method: str, target: str) -> bytes:
        return f"{method} {target} HTTP/1.1\r\n".encode() + self._common

    def _with_body(self, route: tuple[str, str], body: bytes, timestamp_s: int) -> bytes:
        head, method_path = self._routes[route]
        return b"%b%bContent-Length: %d\r\n\r\n%b" % (head, self.auth.header_lines(method_path, body, timestamp_s), len(body), body)

    def post_orders(self, bodies: Sequence[bytes], timestamp_s: int) -> bytes:
        """POST /orders with 1 to 15 `SignedOrder.body`. Errors: ValueError if there are more."""
        if not 1 <= len(bodies) <= MAX_BATCH:
            raise ValueError(f"a batch has 1 to {MAX_BATCH} orders, not {len(bodies)}")
        return self._with_body(("POST", "/orders"), b"[%b]" % b",".join(bodies), timestamp_s)

    def post_order(self, body: bytes, timestamp_s: int) -> bytes:
        """POST /order with one `SignedOrder.body`."""
        return self._with_body(("POST", "/order"), body, timestamp_s)

    def cancel_order(self, order_id: str, timestamp_s: int) -> bytes:
        """DELETE /order; ``order_id`` is 0x hex."""
        return self._with_body(("DELETE", "/order"), b'{"orderID":"%b"}' % order_id.encode(), timestamp_s)

    def cancel_orders(self, order_ids: Sequence[str], timestamp_s: int) -> bytes:
        """DELETE /orders with 1 to 1000 ids. Errors: ValueError if there are more."""
        if not 1 <= len(order_ids) <= MAX_CANCELS:
            raise ValueError(f"a cancel list has 1 to {MAX_CANCELS} orders, not {len(order_ids)}")
        return self._with_body(("DELETE", "/orders"), b'["%b"]' % '","'.join(order_ids).encode(), timestamp_s)

    def cancel_all(self, timestamp_s: int) -> bytes:
        """DELETE /cancel-all: every open order of the account."""
        return self._with_body(("DELETE", "/cancel-all"), b"", timestamp_s)

    def heartbeat(self, heartbeat_id: str, timestamp_s: int) -> bytes:
        """POST /v1/heartbeats; "" starts a chain. One chain per API key, strictly serial."""
        return self._with_body(("POST", "/v1/heartbeats"), msgspec.json.encode({"heartbeat_id": heartbeat_id}), timestamp_s)

    def get(self, path: str, timestamp_s: int, query: str = "") -> bytes:
        """An authenticated GET. The query ("a=1&b=2", already escaped) is not part of what is signed."""
        target = f"{path}?{query}" if query else path
        return b"%b%b\r\n" % (self._head("GET", target), self.auth.headers_for("GET", path, b"", timestamp_s))

    def get_public(self, target: str) -> bytes:
        """A GET without authentication, as the keep-alive probe /ok."""
        return self._head("GET", target) + b"\r\n"
