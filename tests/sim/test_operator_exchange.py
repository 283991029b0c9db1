"""The operator's commands against the exchange: the doctor on a healthy set-up and on broken ones, the live self-test, cancelling and reconciling
while the venue misbehaves."""

import asyncio
import time

import pytest
from exchange_world import World

from mmbot import clock, config
from mmbot.errors import UserError
from mmbot.execution.credentials import credentials
from mmbot.execution.rest import OpenOrder, RestClient
from mmbot.ops import flatten as fl
from mmbot.ops.compare import Ours, Theirs, differences, reconcile
from mmbot.ops.doctor_venue import account_findings, venue_findings
from mmbot.ops.flatten import Held, cancel_everything
from mmbot.ops.livetest import LiveTest
from mmbot.ops.wallets import wallets_of
from mmbot.sim import accounts
from mmbot.sim.tape import load


@pytest.fixture(scope="module")
def world():
    with World(tape=load("btc15m", config.load().sim)) as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_runs_on(world):
    yield
    world.http("DELETE", "/sim/fault", {"all": True}, {"Content-Type": "application/json"})
    assert world.l2("DELETE", "/cancel-all")[0] == 200


def fault(world, name, **params):
    status, answer, _ = world.http("POST", "/sim/fault", {"name": name, "params": params}, {"Content-Type": "application/json"})
    assert status == 200, answer


def live(world, tmp_path, timeout_s=1.0, **account):
    """The paper account as a live configuration would name it."""
    given = {"private_key": accounts.PAPER_KEY, "api_key": accounts.PAPER_API_KEY, "api_secret": accounts.PAPER_API_SECRET,
             "api_passphrase": accounts.PAPER_API_PASSPHRASE} | account
    return config.Settings(profile="live", run={"dir": tmp_path, "name": "t"}, account=given, execution={"request_timeout_s": timeout_s}, venue=world.settings.venue.model_dump())


def examined(cfg):
    """(level, what) -> finding of the doctor's venue part."""
    found, who = account_findings(cfg)
    wall = clock.sync(cfg.venue.clock_url, 4)
    found += asyncio.run(venue_findings(cfg, who, wall))
    return {f.what: f for f in found}


STREAMS = {"market stream", "user stream", "RTDS", "PolyBolt", "Binance", "Coinbase", "Bybit"}


class TestDoctor:
    def test_a_healthy_set_up(self, world, tmp_path):
        found = examined(live(world, tmp_path))
        assert {f.what for f in found.values() if f.level == "fail"} == set(), [f for f in found.values() if f.level == "fail"]
        assert {f.what for f in found.values() if f.level == "warn"} == {"wallet"}, "type 0 on live is worth a warning"
        assert STREAMS | {"account", "venue", "geoblock", "API key", "closed only", "balance", "allowance v1", "allowance v2", "window"} <= set(found)

    def broken(self, world, tmp_path, what, says, fix, **account):
        """The one line about ``what`` fails and says what to do."""
        f = examined(live(world, tmp_path, **account))[what]
        assert f.level == "fail" and says in f.detail and fix in f.fix, f
        return f

    def test_a_wrong_api_secret(self, world, tmp_path):
        self.broken(world, tmp_path, "API key", "Unauthorized", "derived from the key", api_secret="d3Jvbmc=")

    def test_a_wrong_passphrase_of_the_api_key_shuts_the_user_stream_too(self, world, tmp_path):
        self.broken(world, tmp_path, "user stream", "closed the connection", "API credentials", api_passphrase="0badc0de")

    def test_the_user_stream_alone_is_not_authorised(self, world, tmp_path, monkeypatch):
        monkeypatch.setattr(world.server.hub.keys, "user", lambda *_: None)
        found = examined(live(world, tmp_path))
        assert found["user stream"].level == "fail" and found["API key"].level == "ok"

    def test_the_funder_belongs_to_another_signature_type(self, world, tmp_path):
        self.broken(world, tmp_path, "wallet", "signs with type 2, not 3", "account.signature_type = 2", signature_type=3,
                    funder=wallets_of(accounts.PAPER_ADDRESS)["safe"])

    def test_the_funder_belongs_to_nobody_we_know(self, world, tmp_path):
        f = examined(live(world, tmp_path, signature_type=3, funder="0x" + "11" * 20))["wallet"]
        assert f.level == "warn" and "none of the wallets" in f.detail

    @pytest.mark.parametrize("kinds, says", [((3,), "1,000.00 at type 3"), ((), "0.00 dollars")])
    def test_no_balance_here_or_anywhere(self, world, tmp_path, monkeypatch, kinds, says):
        route = world.server.clob.routes["GET", "/balance-allowance"]

        def poor(r):
            answer = route(r)
            return answer if r.number("signature_type", 0) in kinds else answer | {"balance": "0"}
        monkeypatch.setitem(world.server.clob.routes, ("GET", "/balance-allowance"), poor)
        self.broken(world, tmp_path, "balance", says, "account.signature_type = 3" if kinds else "deposit")

    def test_no_allowance_for_one_of_the_exchanges(self, world, tmp_path, monkeypatch):
        route = world.server.clob.routes["GET", "/balance-allowance"]
        v3 = "0xe3333700cA9d93003F00f0F71f8515005F6c00Aa"
        monkeypatch.setitem(world.server.clob.routes, ("GET", "/balance-allowance"),
                            lambda r: (a := route(r)) | {"allowances": {k: v for k, v in a["allowances"].items() if k != v3}})
        found = examined(live(world, tmp_path))
        assert found["allowance v2"].level == "fail" and v3 in found["allowance v2"].detail and "approve" in found["allowance v2"].fix
        assert found["allowance v1"].level == "ok"

    def test_a_blocked_region(self, world, tmp_path):
        fault(world, "geoblock", country="US")
        self.broken(world, tmp_path, "geoblock", "blocked US", "does not look for a way around")

    def test_an_account_that_may_only_close(self, world, tmp_path):
        fault(world, "closed_only")
        self.broken(world, tmp_path, "closed only", "only close positions", "support")

    def test_a_clock_that_is_forty_seconds_off(self, world, tmp_path):
        fault(world, "wrong_clock", offset_s=40.0, tolerance_s=300.0)
        self.broken(world, tmp_path, "venue", "s off ours", "chrony")

    def test_a_frozen_stream_and_no_discovery(self, world, tmp_path, monkeypatch):
        monkeypatch.setattr("mmbot.ops.doctor_venue.STREAM_S", 1.5)
        fault(world, "gamma_down")
        fault(world, "freeze_binance")
        found = examined(live(world, tmp_path))
        assert found["Binance"].level == "fail" and "no price within" in found["Binance"].detail
        assert found["window"].level == "fail" and found["RTDS"].level == "ok"

    def test_nobody_is_there(self, world, tmp_path):
        cfg = live(world, tmp_path)
        away = cfg.model_copy(update={"venue": cfg.venue.model_copy(update={"clob_url": "http://127.0.0.1:9"})})
        found = asyncio.run(venue_findings(away, credentials(away), clock.sync(cfg.venue.clock_url, 4)))
        assert [(f.what, f.level) for f in found] == [("venue", "fail")]

    def test_no_finding_shows_a_secret(self, world, tmp_path):
        text = repr(examined(live(world, tmp_path, api_passphrase="0badc0de")).values())
        assert all(s not in text for s in (accounts.PAPER_KEY[2:], accounts.PAPER_API_SECRET, "0badc0de"))


def livetest(world, tmp_path):
    test = LiveTest(live(world, tmp_path), lambda step: None)
    passed = asyncio.run(asyncio.wait_for(test.run(), 60))
    return test, passed


def resting(world):
    """How many orders of ours rest, by the exchange's own books."""
    _, books, _ = world.http("GET", "/sim/books")
    return sum(len(a["orders"]) for address, a in books["accounts"].items() if address.lower() == accounts.PAPER_ADDRESS.lower())


class TestLiveTest:
    def test_the_whole_path(self, world, tmp_path):
        test, passed = livetest(world, tmp_path)
        assert passed and test.clean, [s for s in test.steps if not s.ok]
        assert [s.name for s in test.steps] == ["connect", "window", "price", "user channel", "place", "seen on the user channel", "read by id",
                                                "cancel", "seen cancelled on the user channel", "gone"]
        assert resting(world) == 0 and all(s.ms >= 0 for s in test.steps)

    @pytest.mark.parametrize("name, params, fails", [
        ("user_lost", {"events": "order"}, "seen on the user channel"), ("cancel_lost", {"n": 1}, "cancel"), ("post_answer_lost", {"n": 1}, "place"),
        ("truncated_json", {"paths": "orders", "n": 1}, "place"), ("geoblock", {}, "place"), ("post_delayed", {"delay_s": 1.2, "n": 1}, "place")])
    def test_every_failure_leaves_nothing_behind(self, world, tmp_path, monkeypatch, name, params, fails):
        monkeypatch.setattr("mmbot.ops.livetest.SEEN_S", 0.5)
        monkeypatch.setattr("mmbot.ops.livetest.LATE_S", 2.0)
        fault(world, name, **params)
        test, passed = livetest(world, tmp_path)
        assert not passed and next(s.name for s in test.steps if not s.ok) == fails, test.steps
        assert test.clean and test.steps[-1].name == "clean up"
        time.sleep(0.6 if name == "post_delayed" else 0.0)          # what arrives only now must have been waited for
        assert resting(world) == 0

    def test_an_interrupt_leaves_nothing_behind(self, world, tmp_path, monkeypatch):
        monkeypatch.setattr("mmbot.ops.livetest.LATE_S", 0.5)
        test = LiveTest(live(world, tmp_path), lambda step: None)

        async def cut():
            task = asyncio.create_task(test.run())
            while not any(s.name == "place" for s in test.steps):
                await asyncio.sleep(0.002)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        asyncio.run(cut())
        assert test.clean and resting(world) == 0


def rest_an_order(world, tmp_path):
    """One order of ours far from the market; returns its id."""
    test = LiveTest(live(world, tmp_path), lambda step: None)
    test.wall = clock.sync(world.settings.venue.clock_url, 4)

    async def place():
        async with RestClient.of(world.settings.venue, test.wall.now_s, test.account) as test.rest:
            await test._find_window()
            await test._choose_price()
    asyncio.run(place())
    status, answer, _ = world.l2("POST", "/order", test.order.body)
    assert status == 200 and answer["success"], answer
    return test.order.order_id_hex


class TestCancelAll:
    def test_everything_goes_and_is_verified(self, world, tmp_path):
        for _ in range(3):
            rest_an_order(world, tmp_path)
        done = cancel_everything(live(world, tmp_path))
        assert (len(done.before), len(done.cancelled), done.left, done.new, done.trouble) == (3, 3, [], [], "")

    @pytest.mark.parametrize("name, params", [("cancel_lost", {"n": 1}), ("rate_limited", {"paths": "cancels", "n": 2}), ("html_errors", {"paths": "cancels", "n": 1}),
                                              ("truncated_json", {"paths": "reads", "n": 2}), ("empty_listing", {"n": 1})])
    def test_it_goes_on_until_it_is_true(self, world, tmp_path, name, params):
        rest_an_order(world, tmp_path)
        fault(world, name, **params)
        done = cancel_everything(live(world, tmp_path))
        assert done.left == [] and done.trouble == "" and resting(world) == 0

    def test_a_venue_that_does_not_cancel_is_not_called_flat(self, world, tmp_path, monkeypatch):
        monkeypatch.setattr(fl, "PATIENCE_S", 0.5)
        rest_an_order(world, tmp_path)
        fault(world, "disabled")
        fault(world, "empty_listing")
        done = cancel_everything(live(world, tmp_path))
        assert "disabled" in done.trouble and resting(world) == 1

    def test_a_listing_that_fails_does_not_keep_the_cancel_waiting(self, world, tmp_path, monkeypatch):
        monkeypatch.setattr(fl, "PATIENCE_S", 0.5)
        rest_an_order(world, tmp_path)
        fault(world, "html_errors", paths="reads")
        done = cancel_everything(live(world, tmp_path))
        assert resting(world) == 0 and len(done.cancelled) == 1 and "cannot be read" in done.trouble

    def test_nobody_there(self, world, tmp_path, monkeypatch):
        monkeypatch.setattr(fl, "CONNECT_S", 0.3)
        cfg = live(world, tmp_path)
        away = cfg.model_copy(update={"venue": cfg.venue.model_copy(update={"clob_url": "http://127.0.0.1:9"})})
        with pytest.raises(UserError):
            cancel_everything(away)


class TestReconcile:
    def test_an_order_nobody_knows_is_a_difference(self, world, tmp_path, monkeypatch):
        monkeypatch.setattr("mmbot.ops.compare.PAUSE_S", 0.05)
        assert resting(world) == 0
        assert reconcile(live(world, tmp_path)) == ([], False)
        order_id = rest_an_order(world, tmp_path)
        (found,), _ = reconcile(live(world, tmp_path))
        assert found.what == f"order {order_id}" and found.ours == "not in the journal"

    def test_a_venue_that_cannot_be_read_is_no_agreement(self, world, tmp_path):
        fault(world, "html_errors", paths="reads")
        with pytest.raises(UserError, match="could not be read"):
            reconcile(live(world, tmp_path))

    def test_every_kind_of_difference_is_named(self):
        order = OpenOrder("0xaa", asset_id="7", side="BUY", price="0.52", original_size="10", size_matched="4")
        same = Ours({"7": ("w", "Up")}, {"7": 4_000_000}, {"7": 0}, {("7", "BUY", 5200): 6_000_000}, 1, 5, {"0xaa"})
        theirs = Theirs([order], [Held("c", "7", "Up", 4_000_000)], 5)
        assert differences(same, theirs) == []
        cases = [({"live_orders": 2}, "open orders"), ({"rest": {}}, "BUY at 0.52 of w Up"), ({"journal": set()}, "order 0xaa"),
                 ({"shares": {"7": 5_000_000}}, "shares of w Up"), ({"cash_u6": 6}, "cash")]
        for change, what in cases:
            (d,) = differences(Ours(**vars(same) | change), theirs)
            assert d.what == what
        (d,) = differences(same, Theirs([order], theirs.held, 5, {"0xbb": "MATCHED"}))
        assert d.what == "order 0xbb" and d.theirs == "matched"
        (d,) = differences(same, Theirs([order], [Held("c", "7", "Up", 4_000_000, failed_u6=1_000_000)], 5))
        assert d.what == "failed shares of w Up"
