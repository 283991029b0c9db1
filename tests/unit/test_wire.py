"""Requests as bytes, and the judgement of answers: batch legs, errors of every kind, answers that are not JSON."""

import json
import random

import pytest
from polymarket._internal.actions.orders import post as official
from polymarket.models.clob.order_response import AcceptedOrder

from mmbot.errors import UserError
from mmbot.execution import wire
from mmbot.execution.credentials import checked
from mmbot.execution.l2 import L2Auth
from mmbot.execution.wire import ErrorCode, NotCanceled, Outcome

KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
IDS = ["0x" + f"{i:064x}" for i in range(1, 20)]
T = 1793000000


@pytest.fixture
def requests():
    auth = L2Auth(checked(KEY, 0, "", "7d1c2f0e-5b1a-4c0e-9a5f-1f2e3d4c5b6a", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "9f0c2d"))
    return wire.Requests("http://127.0.0.1:8701", auth)


def split(data: bytes):
    """(request line, headers, body) of a request."""
    head, _, body = data.partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    headers = dict(row.split(": ", 1) for row in lines)
    assert len(headers) == len(lines), "a header twice"
    return line, headers, body


class TestRequests:
    def test_every_request_is_whole_and_signed_over_its_exact_bytes(self, requests):
        for data, line, path in [
            (requests.post_orders([b"{}", b'{"a":1}'], T), "POST /orders HTTP/1.1", "/orders"),
            (requests.post_order(b'{"a":1}', T), "POST /order HTTP/1.1", "/order"),
            (requests.cancel_order(IDS[0], T), "DELETE /order HTTP/1.1", "/order"),
            (requests.cancel_orders(IDS[:3], T), "DELETE /orders HTTP/1.1", "/orders"),
            (requests.cancel_all(T), "DELETE /cancel-all HTTP/1.1", "/cancel-all"),
            (requests.heartbeat("", T), "POST /v1/heartbeats HTTP/1.1", "/v1/heartbeats"),
            (requests.get("/data/orders", T, "next_cursor=MA%3D%3D"), "GET /data/orders?next_cursor=MA%3D%3D HTTP/1.1", "/data/orders"),
        ]:
            got, headers, body = split(data)
            assert got == line
            assert (headers["Host"], headers["User-Agent"]) == ("127.0.0.1:8701", "mmbot/0.1")
            signed = requests.auth.header_dict(line.split()[0], path, body, T)
            assert {k: v for k, v in headers.items() if k.startswith("POLY_")} == signed
            if line.startswith("GET"):
                assert body == b""
            else:
                assert headers["Content-Length"] == str(len(body))
                assert headers["Content-Type"] == "application/json"

    def test_bodies(self, requests):
        assert split(requests.post_orders([b"{}", b'{"a":1}'], T))[2] == b'[{},{"a":1}]'
        assert json.loads(split(requests.cancel_order(IDS[0], T))[2]) == {"orderID": IDS[0]}
        assert json.loads(split(requests.cancel_orders(IDS[:3], T))[2]) == IDS[:3]
        assert split(requests.heartbeat('i"d', T))[2] == b'{"heartbeat_id":"i\\"d"}'
        assert split(requests.cancel_all(T))[2] == b""

    def test_public_get_carries_no_credentials(self, requests):
        assert b"POLY" not in requests.get_public("/ok")

    def test_limits(self, requests):
        for bad in (lambda: requests.post_orders([], T), lambda: requests.post_orders([b"{}"] * 16, T),
                    lambda: requests.cancel_orders([], T), lambda: requests.cancel_orders(IDS[:1] * 1001, T)):
            with pytest.raises(ValueError):
                bad()

    @pytest.mark.parametrize("url", ["127.0.0.1:8701", "ftp://x", "http://x/api", ""])
    def test_bad_urls(self, url, requests):
        with pytest.raises(UserError, match="venue.clob_url"):
            wire.Requests(url, requests.auth)


def leg(**over):
    return {"success": True, "errorMsg": "", "orderID": IDS[0], "status": "live", "makingAmount": "", "takingAmount": "", **over}


class TestBatchJudgement:
    @pytest.mark.parametrize("answer, outcome, code", [
        (leg(), Outcome.ACCEPTED, ErrorCode.NONE),
        (leg(status="delayed"), Outcome.ACCEPTED, ErrorCode.NONE),
        (leg(status="matched", makingAmount="2.6", takingAmount="5", tradeIDs=["t"]), Outcome.ACCEPTED, ErrorCode.NONE),
        (leg(errorMsg=None), Outcome.ACCEPTED, ErrorCode.NONE),
        (leg(errorMsg="invalid post-only order: order crosses book", orderID="", status=""), Outcome.REFUSED, ErrorCode.CROSSES_BOOK),
        (leg(errorMsg="not enough balance / allowance", orderID="", status=""), Outcome.REFUSED, ErrorCode.NOT_ENOUGH_BALANCE),
        (leg(errorMsg=f"order {IDS[0]} is invalid. Duplicated.", orderID=""), Outcome.UNKNOWN, ErrorCode.DUPLICATED),
        (leg(success=False, orderID=""), Outcome.REFUSED, ErrorCode.UNKNOWN),
        (leg(status="unmatched"), Outcome.UNKNOWN, ErrorCode.UNMATCHED),
        (leg(orderID=""), Outcome.UNKNOWN, ErrorCode.NOT_UNDERSTOOD),
        (leg(status=""), Outcome.UNKNOWN, ErrorCode.NOT_UNDERSTOOD),
        (leg(status="resting"), Outcome.UNKNOWN, ErrorCode.NOT_UNDERSTOOD),
        (leg(errorMsg="something odd"), Outcome.UNKNOWN, ErrorCode.UNKNOWN),
        (leg(makingAmount="many"), Outcome.UNKNOWN, ErrorCode.NOT_UNDERSTOOD),
        (leg(success=None), Outcome.UNKNOWN, ErrorCode.NOT_UNDERSTOOD),
        ({}, Outcome.UNKNOWN, ErrorCode.NOT_UNDERSTOOD),
    ])
    def test_all_four_fields_decide(self, answer, outcome, code):
        for got in (wire.parse_orders(200, json.dumps([answer]).encode(), IDS[:1])[0],
                    wire.parse_order(200, json.dumps(answer).encode(), IDS[0])):
            assert (got.outcome, got.code) == (outcome, code)
            assert got.order_id == IDS[0] and not got.id_differs

    def test_amounts_and_trades(self):
        got = wire.parse_order(200, json.dumps(leg(status="MATCHED", makingAmount="2.6", takingAmount="5", tradeIDs=["t"])).encode(), IDS[0])
        assert (got.making_u6, got.taking_u6, got.trade_ids, got.status) == (2_600_000, 5_000_000, ["t"], "matched")

    def test_legs_keep_their_order(self):
        answers = [leg(orderID=IDS[0]), leg(errorMsg="order crosses the book", orderID=""), leg(orderID=IDS[2])]
        legs = wire.parse_orders(200, json.dumps(answers).encode(), IDS[:3])
        assert [g.outcome for g in legs] == [Outcome.ACCEPTED, Outcome.REFUSED, Outcome.ACCEPTED]
        assert [g.order_id for g in legs] == IDS[:3]

    def test_another_id_than_ours_is_seen(self):
        got = wire.parse_orders(200, json.dumps([leg(orderID=IDS[5])]).encode(), IDS[:1])[0]
        assert got.id_differs and got.order_id == IDS[5] and got.outcome is Outcome.ACCEPTED
        assert not wire.parse_order(200, json.dumps(leg(orderID="0xAB")).encode(), "0xab").id_differs

    @pytest.mark.parametrize("body", [b"[]", b"", b"null", b"{}", b"[{}]", b"<html>hi</html>", b"\xff\xfe", b'[{"success":"yes"},{}]'])
    def test_a_batch_answer_of_another_shape_is_unknown(self, body):
        legs = wire.parse_orders(200, body, IDS[:2])
        assert [(g.outcome, g.code, g.order_id) for g in legs] == [(Outcome.UNKNOWN, ErrorCode.NOT_UNDERSTOOD, i) for i in IDS[:2]]
        assert wire.parse_order(200, b"[]" if body == b"{}" else body, IDS[0]).outcome is Outcome.UNKNOWN

    def test_an_error_for_the_whole_batch_is_for_every_leg(self):
        legs = wire.parse_orders(400, b'{"error":"Too many orders in payload: 16, max allowed: 15"}', IDS[:3])
        assert [(g.outcome, g.code) for g in legs] == [(Outcome.REFUSED, ErrorCode.TOO_MANY)] * 3

    def test_acceptance_agrees_with_the_official_client(self):
        rng, accepted = random.Random(1), 0
        for _ in range(400):
            answer = leg(success=rng.random() < 0.8, errorMsg=rng.choice(["", "", "", "boom"]), orderID=rng.choice(["", IDS[0], IDS[0]]),
                         status=rng.choice(["live", "matched", "delayed", "unmatched", ""]))
            theirs = isinstance(official.parse_order_response(answer), AcceptedOrder)
            assert (wire.parse_order(200, json.dumps(answer).encode(), IDS[0]).outcome is Outcome.ACCEPTED) == theirs
            accepted += theirs
        assert 50 < accepted < 350


ERRORS = [
    (400, "Invalid order payload", ErrorCode.INVALID),
    (400, "order_version_mismatch", ErrorCode.VERSION_MISMATCH),
    (400, "invalid order version", ErrorCode.VERSION_MISMATCH),
    (400, "the order owner has to be the owner of the API KEY", ErrorCode.IDENTITY),
    (400, "the order signer address has to be the address of the API KEY", ErrorCode.IDENTITY),
    (400, "maker address not allowed, please use the deposit wallet flow", ErrorCode.IDENTITY),
    (400, "'0xab' address banned", ErrorCode.BANNED),
    (400, "'0xab' address in closed only mode", ErrorCode.CLOSED_ONLY),
    (400, "order 0xab is invalid. Price (0.523) breaks minimum tick size rule: 0.01", ErrorCode.TICK),
    (400, "order 0xab is invalid. Size (1) lower than the minimum: 5", ErrorCode.MIN_SIZE),
    (400, "invalid amount for a marketable BUY order ($0.5), min size: $1", ErrorCode.MIN_SIZE),
    (400, "order 0xab is invalid. Duplicated.", ErrorCode.DUPLICATED),
    (400, "invalid post-only order: order crosses book", ErrorCode.CROSSES_BOOK),
    (400, "order 0xab crosses the book", ErrorCode.CROSSES_BOOK),
    (400, "not enough balance / allowance: the balance is not enough -> balance: 1, sum of matched orders: 0, order amount (inc. fees): 2",
     ErrorCode.NOT_ENOUGH_BALANCE),
    (400, "invalid expiration", ErrorCode.INVALID),
    (400, "order match delayed due to market conditions", ErrorCode.MARKET_NOT_READY),
    (400, "the market is not yet ready to process new orders", ErrorCode.MARKET_NOT_READY),
    (400, "order couldn't be fully filled. FOK orders are fully filled or killed.", ErrorCode.NOT_FILLED),
    (400, "no orders found to match with FAK order. FAK orders are partially filled or killed if no match is found.", ErrorCode.NOT_FILLED),
    (400, "Too many orders in payload, max allowed: 1000", ErrorCode.TOO_MANY),
    (400, "Invalid orderID", ErrorCode.INVALID),
    (400, "who knows", ErrorCode.UNKNOWN),
    (401, "Unauthorized/Invalid api key", ErrorCode.UNAUTHORIZED),
    (401, "Invalid L1 Request headers", ErrorCode.UNAUTHORIZED),
    (403, "Trading restricted in your region, please refer to available regions - https://docs.polymarket.com/x", ErrorCode.GEOBLOCK),
    (403, "error code: 1010", ErrorCode.FORBIDDEN),
    (404, "No orderbook exists for the requested token id", ErrorCode.NOT_FOUND),
    (404, "market not found", ErrorCode.NOT_FOUND),
    (425, "", ErrorCode.RESTARTING),
    (429, "Too Many Requests", ErrorCode.RATE_LIMITED),
    (503, "Trading is currently disabled. Check polymarket.com for updates", ErrorCode.DISABLED),
    (503, "Trading is currently cancel-only. New orders are not accepted, but cancels are allowed.", ErrorCode.CANCEL_ONLY),
    (503, "post-only mode: only post-only orders and cancels are allowed", ErrorCode.POST_ONLY_MODE),
]
UNCERTAIN = [
    (500, "could not insert order", ErrorCode.SERVER),
    (500, "Internal server error", ErrorCode.SERVER),
    (500, "the trade contains rounding issues", ErrorCode.SERVER),
    (500, "there are no matching orders", ErrorCode.NOT_FILLED),
    (502, "", ErrorCode.SERVER),
    (503, "", ErrorCode.SERVER),
]


class TestErrors:
    @pytest.mark.parametrize("status, text, code", ERRORS)
    def test_refusals(self, status, text, code):
        body = json.dumps({"error": text}).encode()
        got = wire.parse_order(status, body, IDS[0])
        assert got.code is code
        assert got.outcome is (Outcome.UNKNOWN if code is ErrorCode.DUPLICATED else Outcome.REFUSED)
        assert got.order_id == IDS[0]
        assert wire.parse_cancel(status, body).code is code

    @pytest.mark.parametrize("status, text, code", UNCERTAIN)
    def test_server_trouble_is_an_unknown_outcome(self, status, text, code):
        got = wire.parse_orders(status, json.dumps({"error": text}).encode(), IDS[:1])[0]
        assert (got.outcome, got.code) == (Outcome.UNKNOWN, code)
        assert wire.parse_cancel(status, b"{}").outcome is Outcome.UNKNOWN

    def test_post_only_mode_says_how_long(self):
        body = b'{"error":"post-only mode: only post-only orders and cancels are allowed","code":"post_only_mode","retry_after_seconds":79}'
        assert wire.explain(503, body) == (ErrorCode.POST_ONLY_MODE, "post-only mode: only post-only orders and cancels are allowed", 79.0)

    @pytest.mark.parametrize("status, code", [(401, ErrorCode.UNAUTHORIZED), (425, ErrorCode.RESTARTING), (429, ErrorCode.RATE_LIMITED)])
    def test_these_statuses_count_more_than_any_text(self, status, code):
        assert wire.classify(status, "invalid: not enough balance, order crosses the book, duplicated") is code

    def test_the_code_counts_more_than_the_text(self):
        assert wire.classify(503, "some other words", "post_only_mode") is ErrorCode.POST_ONLY_MODE

    @pytest.mark.parametrize("status, body, code, outcome", [
        (502, b"<html><head><title>502 Bad Gateway</title></head>\n<body>cloudflare</body></html>", ErrorCode.SERVER, Outcome.UNKNOWN),
        (520, b"\xff\xfe\x00", ErrorCode.SERVER, Outcome.UNKNOWN),
        (403, b"error code: 1010", ErrorCode.FORBIDDEN, Outcome.REFUSED),
        (403, b"<html>Sorry, you have been blocked</html>", ErrorCode.FORBIDDEN, Outcome.REFUSED),
        (429, b"slow down", ErrorCode.RATE_LIMITED, Outcome.REFUSED),
        (400, b"", ErrorCode.NOT_UNDERSTOOD, Outcome.REFUSED),
        (400, b"[1,2]", ErrorCode.NOT_UNDERSTOOD, Outcome.REFUSED),
        (400, b'{"error":{"deep":[1]}}', ErrorCode.UNKNOWN, Outcome.REFUSED),
        (302, b"moved", ErrorCode.NOT_UNDERSTOOD, Outcome.UNKNOWN),
        (204, b"", ErrorCode.NOT_UNDERSTOOD, Outcome.UNKNOWN),
    ])
    def test_bodies_that_are_not_json(self, status, body, code, outcome):
        got = wire.parse_orders(status, body, IDS[:1])[0]
        assert (got.code, got.outcome) == (code, outcome)
        assert "\n" not in got.error and len(got.error) < 300

    def test_random_bytes_never_raise(self):
        rng = random.Random(4)
        for _ in range(500):
            body, status = rng.randbytes(rng.randrange(60)), rng.choice([200, 400, 425, 500, 503])
            assert wire.parse_order(status, body, IDS[0]).outcome is not Outcome.ACCEPTED
            assert wire.parse_cancel(status, body).outcome is not Outcome.ACCEPTED
            assert wire.parse_heartbeat(status, body).outcome is not Outcome.ACCEPTED


class TestCancels:
    def test_lists(self):
        got = wire.parse_cancel(200, json.dumps({"canceled": IDS[:2], "not_canceled": {IDS[2]: "already canceled or matched"}}).encode())
        assert (got.outcome, got.canceled, got.not_canceled) == (Outcome.ACCEPTED, IDS[:2], {IDS[2]: "already canceled or matched"})

    def test_missing_and_null_parts(self):
        assert wire.parse_cancel(200, b'{"canceled":null,"not_canceled":null}').canceled == []
        assert wire.parse_cancel(200, b'{"canceled":[]}').not_canceled == {}

    @pytest.mark.parametrize("body", [b"{}", b"[]", b'"OK"', b"<html>", b'{"canceled":"all"}', b'{"canceled":[1]}'])
    def test_another_shape_is_not_a_cancel(self, body):
        assert wire.parse_cancel(200, body).outcome is Outcome.UNKNOWN

    @pytest.mark.parametrize("text, reason", [
        ("already canceled or matched", NotCanceled.GONE),
        ("order can't be found - already canceled or matched", NotCanceled.GONE),
        ("the order is delayed and cannot be canceled", NotCanceled.DELAYED),
        ("order is pending, it will be matched soon", NotCanceled.DELAYED),
        ("go away", NotCanceled.OTHER),
    ])
    def test_reasons(self, text, reason):
        assert wire.not_canceled_reason(text) is reason


class TestHeartbeats:
    def test_chain(self):
        assert wire.parse_heartbeat(200, b'{"heartbeat_id":"abc"}').heartbeat_id == "abc"

    @pytest.mark.parametrize("expected", ["abc", ""])
    def test_a_wrong_id_brings_the_right_one(self, expected):
        got = wire.parse_heartbeat(400, json.dumps({"error_msg": "Invalid Heartbeat ID", "heartbeat_id": expected}).encode())
        assert (got.outcome, got.code, got.heartbeat_id) == (Outcome.REFUSED, ErrorCode.HEARTBEAT_ID, expected)

    @pytest.mark.parametrize("status, body, outcome", [(200, b"OK", Outcome.UNKNOWN), (200, b'{"status":"ok"}', Outcome.UNKNOWN),
                                                       (502, b"<html>", Outcome.UNKNOWN), (401, b'{"error":"Unauthorized"}', Outcome.REFUSED),
                                                       (400, b'{"error_msg":"Invalid Heartbeat ID","heartbeat_id":5}', Outcome.REFUSED)])
    def test_anything_else_is_not_a_beat(self, status, body, outcome):
        got = wire.parse_heartbeat(status, body)
        assert got.outcome is outcome and got.heartbeat_id == ""


def test_rate_limit_headers():
    got = wire.rate_limit({"poly-ratelimit-remaining": "12", "poly-ratelimit-reset": "1793000001", "poly-ratelimit-tier": "standard",
                           "retry-after": "1.5"})
    assert (got.remaining, got.reset_s, got.tier, got.retry_after_s) == (12, 1793000001, "standard", 1.5)
    assert wire.rate_limit({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}) == wire.RateLimit()
    assert wire.rate_limit({"poly-ratelimit-remaining": "nan", "poly-ratelimit-reset": "inf"}) == wire.RateLimit()


@pytest.mark.parametrize("text, scale, expected", [("0.52", 4, 5200), ("5", 6, 5_000_000), ("", 6, 0), (None, 6, 0), (13.5, 6, 13_500_000),
                                                   ("0.1234567", 6, 123457), ("1e-2", 4, 100), ("-1.5", 6, -1_500_000)])
def test_decimal_units(text, scale, expected):
    assert wire.decimal_units(text, scale) == expected


@pytest.mark.parametrize("text", ["abc", "nan", "inf", "1e999999999", "0x12", [], "1,5"])
def test_decimal_units_refuses(text):
    with pytest.raises(ValueError):
        wire.decimal_units(text)
