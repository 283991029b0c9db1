"""Slow reads: every list is the venue's word, every failure an error, cursors end, secrets stay inside."""

import asyncio
import json

import pytest
from aiohttp import web

from mmbot.execution.credentials import checked
from mmbot.execution.l2 import L2Auth
from mmbot.execution.rest import ApiKey, RestClient, VenueError
from mmbot.execution.signing import Key
from mmbot.execution.wire import ErrorCode

KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
SECRET = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
ACCOUNT = checked(KEY, 0, "", "7d1c2f0e-5b1a-4c0e-9a5f-1f2e3d4c5b6a", SECRET, "9f0c2d")
T = 1793000000
ORDER = {"id": "0xd7", "status": "LIVE", "owner": "7d1c", "maker_address": "0xf3", "market": "0x74", "asset_id": "913", "side": "BUY",
         "price": "0.52", "original_size": "5.5", "size_matched": "1.25", "outcome": "Up", "order_type": "GTC", "associate_trades": [],
         "created_at": 1793000000, "expiration": "0"}
TRADE = {"id": "b3f6", "taker_order_id": "0x51", "market": "0x74", "asset_id": "913", "side": "BUY", "size": "12", "fee_rate_bps": "0",
         "price": "0.52", "status": "TRADE_STATUS_MATCHED", "match_time": "1793000004", "last_update": "1793000004", "outcome": "Up",
         "bucket_index": 0, "owner": "0d0d", "maker_address": "0x22", "transaction_hash": "", "trader_side": "MAKER",
         "maker_orders": [{"order_id": "0xe1", "owner": "7d1c", "maker_address": "0xf3", "matched_amount": "5", "price": "0.52",
                           "fee_rate_bps": "0", "asset_id": "913", "outcome": "Up", "side": "SELL"}]}


def ask(call, *answers, auth=True, timeout_s=2.0, now_s=lambda: T + 0.9):
    """(result or exception, requests seen) of a call against a server that gives these answers one after another.

    An answer is (status, body) with the body as bytes or as an object for JSON; None is silence.
    """
    async def main():
        seen, queue = [], list(answers)

        async def handle(request):
            seen.append(request)
            answer = queue.pop(0)
            if answer is None:
                await asyncio.sleep(timeout_s * 3)
            status, body, *headers = answer
            return web.Response(status=status, body=body if isinstance(body, bytes) else json.dumps(body).encode(),
                                headers=headers[0] if headers else None)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        async with RestClient(url, now_s, L2Auth(ACCOUNT) if auth else None, 0, url + "/api/geoblock", timeout_s) as rest:
            try:
                result = await call(rest)
            except VenueError as e:
                result = e
        await runner.cleanup()
        return result, seen
    return asyncio.run(asyncio.wait_for(main(), 20))


def page(rows, cursor):
    return 200, {"data": rows, "next_cursor": cursor, "limit": 500, "count": len(rows)}


class TestListings:
    def test_orders_over_pages(self):
        orders, seen = ask(lambda r: r.open_orders(market="0x74"), page([ORDER, ORDER], "Mg=="), page([], "Mw=="), page([ORDER], "LTE="))
        assert len(orders) == 3
        assert (orders[0].px_e4, orders[0].size_u6, orders[0].matched_u6) == (5200, 5_500_000, 1_250_000)
        assert [q.query["next_cursor"] for q in seen] == ["MA==", "Mg==", "Mw=="], "the end marker is never sent"
        assert all(q.query["market"] == "0x74" and q.path == "/data/orders" for q in seen)

    def test_requests_are_signed_without_the_query(self):
        _, (request,) = ask(lambda r: r.open_orders(), page([], "LTE="))
        signed = L2Auth(ACCOUNT).header_dict("GET", "/data/orders", b"", T)
        assert {k: request.headers[k] for k in signed} == signed
        assert request.headers["User-Agent"] == "mmbot/0.1"

    def test_empty_is_empty(self):
        assert ask(lambda r: r.open_orders(), page([], "LTE="))[0] == []
        assert ask(lambda r: r.trades(), (200, {"data": [], "next_cursor": "LTE=", "limit": 500, "count": 0}))[0] == []

    def test_trades(self):
        (trade,), (request,) = ask(lambda r: r.trades(after=1793000000), page([TRADE], "LTE="))
        assert request.query["after"] == "1793000000"
        assert (trade.state, trade.trader_side, trade.maker_orders[0].matched_amount) == ("MATCHED", "MAKER", "5")

    def test_a_listing_that_turns_in_circles_is_an_error(self):
        error, seen = ask(lambda r: r.open_orders(), page([ORDER], "Mg=="), page([ORDER], "MA=="))
        assert error.code is ErrorCode.NOT_UNDERSTOOD and len(seen) == 2

    @pytest.mark.parametrize("answer, code", [
        ((500, {"error": "Internal server error"}), ErrorCode.SERVER),
        ((401, {"error": "Unauthorized/Invalid api key"}), ErrorCode.UNAUTHORIZED),
        ((425, b""), ErrorCode.RESTARTING),
        ((502, b"<html>bad gateway</html>"), ErrorCode.SERVER),
        ((200, b"<html>hello</html>"), ErrorCode.NOT_UNDERSTOOD),
        ((200, b"null"), ErrorCode.NOT_UNDERSTOOD),
        ((200, b"[]"), ErrorCode.NOT_UNDERSTOOD),
        ((200, {"data": None, "next_cursor": "LTE="}), ErrorCode.NOT_UNDERSTOOD),
        ((200, {"data": [{"no": "id"}], "next_cursor": "LTE="}), ErrorCode.NOT_UNDERSTOOD),
        ((200, {"data": []}), ErrorCode.NOT_UNDERSTOOD),
        ((200, {"data": [], "next_cursor": "LTE=", "count": 3}), ErrorCode.NOT_UNDERSTOOD),
        ((200, json.dumps({"data": [ORDER], "next_cursor": "LTE="}).encode()[:-9]), ErrorCode.NOT_UNDERSTOOD),
        ((200, {"data": [ORDER | {"price": "half"}], "next_cursor": "LTE="}), ErrorCode.NOT_UNDERSTOOD),
        ((200, {"data": [ORDER | {"original_size": "-5"}], "next_cursor": "LTE="}), ErrorCode.NOT_UNDERSTOOD),
        ((200, {"data": [ORDER | {"id": ""}], "next_cursor": "LTE="}), ErrorCode.NOT_UNDERSTOOD),
        ((200, b"", {"Content-Type": "text/html"}), ErrorCode.NOT_UNDERSTOOD),
        ((200, b'{"data":[],"next_cursor":"LTE="}', {"Content-Type": "text/html; charset=utf-8"}), ErrorCode.NOT_UNDERSTOOD),
        (None, ErrorCode.SERVER),
    ])
    def test_errors_are_not_emptiness(self, answer, code):
        error, _ = ask(lambda r: r.open_orders(), answer, timeout_s=0.3)
        assert isinstance(error, VenueError) and error.code is code
        assert "/data/orders" in str(error)

    @pytest.mark.parametrize("change", [{"size": "many"}, {"status": ""}, {"maker_orders": [{"order_id": "0xe1", "matched_amount": "x"}]},
                                        {"maker_orders": [{"order_id": ""}]}, {"maker_orders": None}])
    def test_a_trade_that_cannot_be_read_is_an_error(self, change):
        error, _ = ask(lambda r: r.trades(), page([TRADE | change], "LTE="))
        assert isinstance(error, VenueError) and error.code is ErrorCode.NOT_UNDERSTOOD

    def test_the_end_marker_is_never_sent(self):
        _, seen = ask(lambda r: r.open_orders(), page([ORDER], "Mg=="), page([ORDER], "LTE="))
        assert [r.query["next_cursor"] for r in seen] == ["MA==", "Mg=="]

    def test_an_error_on_a_later_page_is_an_error(self):
        error, _ = ask(lambda r: r.open_orders(), page([ORDER], "Mg=="), (500, b""))
        assert isinstance(error, VenueError)

    def test_nobody_listens(self):
        async def main():
            async with RestClient("http://127.0.0.1:1", lambda: T) as rest:
                await rest.server_time()
        with pytest.raises(VenueError) as e:
            asyncio.run(main())
        assert (e.value.code, e.value.http_status) == (ErrorCode.SERVER, 0)


class TestSingle:
    @pytest.mark.parametrize("answer", [(200, b"null"), (200, b""), (200, {}), (404, {"error": "order not found"})])
    def test_an_unknown_order_is_none(self, answer):
        assert ask(lambda r: r.order("0xd7"), answer)[0] is None

    @pytest.mark.parametrize("answer", [(500, b""), (200, b"[]"), (401, {"error": "Unauthorized"}), (404, b"<html>404 not found</html>"), (404, b""),
                                        (200, b"", {"Content-Type": "text/html"}), (200, ORDER | {"size_matched": "?"}), (200, b'{"id":"0xd7"')])
    def test_an_error_is_not_an_unknown_order(self, answer):
        assert isinstance(ask(lambda r: r.order("0xd7"), answer)[0], VenueError)

    def test_a_known_order(self):
        order, (request,) = ask(lambda r: r.order("0xd7"), (200, ORDER))
        assert order.id == "0xd7" and request.path == "/data/order/0xd7"

    @pytest.mark.parametrize("token, asset", [("21742633143463906290569050155826241533067272736897614950488156847949938836455", "CONDITIONAL"),
                                              (str(7 << 200 | 5), "CONDITIONAL-V2")])
    def test_the_balance_of_a_token_is_asked_for_by_its_kind(self, token, asset):
        _, (request,) = ask(lambda r: r.token_balance(token), (200, {"balance": "5"}))
        assert request.query["asset_type"] == asset and request.query["token_id"] == token

    @pytest.mark.parametrize("body, expected", [(b"1793000000", T), (b'"1793000000"', T), (b'{"time":1793000000}', T), (b'{"timestamp":"1793000000"}', T)])
    def test_time(self, body, expected):
        assert ask(lambda r: r.server_time(), (200, body), auth=False)[0] == expected

    @pytest.mark.parametrize("body", [b"null", b'{"x":1}', b'"soon"', b"oops"])
    def test_time_of_another_shape(self, body):
        assert ask(lambda r: r.server_time(), (200, body))[0].code is ErrorCode.NOT_UNDERSTOOD

    def test_balance(self):
        balance, (request,) = ask(lambda r: r.balance(), (200, {"balance": "125000000", "allowances": {"0xE1": "115"}}))
        assert balance.balance_u6 == 125_000_000
        assert dict(request.query) == {"asset_type": "COLLATERAL", "signature_type": "0"}
        assert ask(lambda r: r.balance(), (200, {"balance": "1.5"}))[0].code is ErrorCode.NOT_UNDERSTOOD
        _, (request,) = ask(lambda r: r.balance("CONDITIONAL", "913"), (200, {"balance": "5", "allowance": "1"}))
        assert dict(request.query) == {"asset_type": "CONDITIONAL", "token_id": "913", "signature_type": "0"}

    def test_a_redirect_is_an_error_and_is_not_followed(self):
        error, seen = ask(lambda r: r.open_orders(), (302, b"", {"Location": "/elsewhere"}))
        assert error.http_status == 302 and len(seen) == 1

    def test_geoblock_without_an_address_to_ask(self):
        async def main():
            async with RestClient("http://127.0.0.1:1", lambda: T) as rest:
                await rest.geoblock()
        with pytest.raises(VenueError, match="venue.geoblock_url is not set"):
            asyncio.run(main())

    def test_geoblock(self):
        found, (request,) = ask(lambda r: r.geoblock(), (200, {"blocked": True, "ip": "203.0.113.9", "country": "US", "region": "NY"}))
        assert (found.blocked, found.country) == (True, "US") and request.path == "/api/geoblock"

    def test_book_and_market(self):
        assert ask(lambda r: r.book("913"), (200, {"bids": [], "asks": []}))[0] == {"bids": [], "asks": []}
        assert ask(lambda r: r.clob_market("0x74"), (200, {"v": "v1"}))[0] == {"v": "v1"}
        assert ask(lambda r: r.book("913"), (404, {"error": "No orderbook exists for the requested token id"}))[0].code is ErrorCode.NOT_FOUND

    def test_private_reads_need_an_account(self):
        assert ask(lambda r: r.open_orders(), auth=False)[0].code is ErrorCode.UNAUTHORIZED


class TestApiKeys:
    MADE = {"apiKey": "7d1c", "secret": "topsecret", "passphrase": "hidden"}

    def test_an_existing_key_is_derived(self):
        key, (request,) = ask(lambda r: r.derive_api_key(Key(bytes.fromhex(KEY[2:]))), (200, self.MADE), auth=False)
        assert key.secret == "topsecret" and (request.method, request.path) == ("GET", "/auth/derive-api-key")
        assert request.headers["POLY_SIGNATURE"].startswith("0x716192a9") and request.headers["POLY_NONCE"] == "0"

    def test_a_missing_key_is_created(self):
        key, seen = ask(lambda r: r.derive_api_key(Key(bytes.fromhex(KEY[2:]))), (400, {"error": "Could not derive api key!"}), (200, self.MADE))
        assert key.apiKey == "7d1c" and [(q.method, q.path) for q in seen] == [("GET", "/auth/derive-api-key"), ("POST", "/auth/api-key")]

    def test_other_errors_do_not_create(self):
        error, seen = ask(lambda r: r.derive_api_key(Key(bytes.fromhex(KEY[2:]))), (500, b""))
        assert isinstance(error, VenueError) and len(seen) == 1

    def test_an_answer_of_another_shape_is_not_quoted(self):
        error, _ = ask(lambda r: r.derive_api_key(Key(bytes.fromhex(KEY[2:]))), (200, {"apiKey": 5, "secret": "topsecret"}))
        assert error.code is ErrorCode.NOT_UNDERSTOOD and "topsecret" not in str(error)

    def test_keys_do_not_print(self):
        assert "topsecret" not in repr(ApiKey("a", "topsecret", "hidden")) and "hidden" not in repr(ApiKey("a", "topsecret", "hidden"))
