"""The live self-test: one order far from the market, placed, seen on the user channel, read by id, cancelled, and seen to be gone.

Owns: the order it places, until it is provably gone: every way out of the test, an interrupt included, cancels it and looks. It proves the whole
path of an order (key, signature, wallet, API key, clock, allowance, user channel) before anything trades, for the price of a few requests.
Reads: Gamma (which window), the CLOB. Who calls: `mmbot livetest`. Runs beside a group only when told to: the group's executor would find an
order that is not its own, and the venue's heartbeat belongs to the group.
Can go wrong: each step can; the report says which, how long each took, and whether the order is gone.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from mmbot import clock, config
from mmbot.clock import mono_ns
from mmbot.errors import UserError
from mmbot.execution.credentials import Credentials, credentials
from mmbot.execution.http1 import ConnectionPool, NotSent, UnknownOutcome
from mmbot.execution.l2 import L2Auth
from mmbot.execution.rest import OpenOrder, RestClient, VenueError
from mmbot.execution.signing import OrderSigner, Salts, SignedOrder
from mmbot.execution.wire import Outcome, Requests, parse_cancel, parse_order
from mmbot.ops.streams import Stream, StreamError, documents
from mmbot.venues.polymarket import gamma
from mmbot.venues.polymarket.user_channel import subscribe
from shm_layout.records import BUY

CLOCK_S, CONNECT_S, SEEN_S = 5.0, 5.0, 6.0
CLEAN_UP_S, CLEAN_UP_PAUSE_S = 20.0, 0.3
LATE_S = 10.0               # a POST without an answer may still arrive for so long: only then is an order that is not there really gone
FAR_TICKS = 10              # the best bid is at least so many ticks above our order
GONE = ("CANCELED", "CANCELLED", "INVALID")


@dataclass(frozen=True)
class Step:
    """One step: what was done, whether it worked, what was seen, ms it took."""
    name: str
    ok: bool
    detail: str
    ms: float


class StepFailed(Exception):
    """The text says what was seen instead of what should have been."""


class LiveTest:
    """One run. ``say(step)`` is called after each step. ``steps``: all of them; ``clean``: whether our order is provably not at the venue."""

    def __init__(self, cfg: config.Settings, say: Callable[[Step], None]):
        self.cfg, self.say = cfg, say
        self.steps: list[Step] = []
        self.clean = True
        self.account: Credentials = credentials(cfg)
        self.signer = OrderSigner(self.account, cfg.venue.chain_id)
        self.requests = Requests(cfg.venue.clob_url, L2Auth(self.account))
        self.wall: clock.WallClock | None = None
        self.rest: RestClient | None = None
        self.window: gamma.Window | None = None
        self.order: SignedOrder | None = None
        self.maybe_late_ns = 0          # until then an order that is not there may still come
        self.stream: Stream | None = None

    async def run(self) -> bool:
        """True when every step worked and the order is gone."""
        self.wall = clock.sync(self.cfg.venue.clock_url, CLOCK_S)
        self.pool = ConnectionPool(self.cfg.venue.clob_url, 2, self.cfg.execution.request_timeout_s)
        ok = True
        async with RestClient.of(self.cfg.venue, self.wall.now_s, self.account) as self.rest:
            try:
                await self._steps()
            except StepFailed:
                ok = False
            finally:
                await self._clean_up()
                await self.pool.close()
        return ok and self.clean

    async def _steps(self) -> None:
        await self._step("connect", self._connect)
        await self._step("window", self._find_window)
        await self._step("price", self._choose_price)
        self.stream = Stream("user channel", f"{self.cfg.venue.ws_url}/user", subscribe(
            self.account.api_key, self.account.api_secret, self.account.api_passphrase), b"PING")
        try:
            await self._step("user channel", self._listen)
            await self._step("place", self._place)
            await self._step("seen on the user channel", lambda: self._seen("PLACEMENT"))
            await self._step("read by id", self._read)
            await self._step("cancel", self._cancel)
            await self._step("seen cancelled on the user channel", lambda: self._seen("CANCELLATION"))
            await self._step("gone", self._gone)
        finally:
            await self.stream.close()

    async def _step(self, name: str, work) -> None:
        begin = mono_ns()
        try:
            detail, ok = await work(), True
        except (StepFailed, StreamError, VenueError, UserError, NotSent, UnknownOutcome, gamma.BadMarket) as e:
            detail, ok = str(e), False
        step = Step(name, ok, detail, (mono_ns() - begin) / 1e6)
        self.steps.append(step)
        self.say(step)
        if not ok:
            raise StepFailed

    def _now_s(self) -> int:
        return int(self.wall.now_s())

    async def _connect(self) -> str:
        await self.pool.start(1, CONNECT_S)
        balance = await self.rest.balance()
        return f"{self.cfg.venue.clob_url}, {balance.balance_u6 / 1e6:,.2f} dollars"

    async def _find_window(self) -> str:
        duration_s = gamma.DURATIONS[self.cfg.markets.durations[0]]
        start_s = self._now_s() // duration_s * duration_s
        trouble = "no window"
        for begin_s in (start_s, start_s + duration_s):
            try:
                window = gamma.parse_event(await self.rest.page(self.cfg.venue.gamma_url + gamma.event_path(begin_s, duration_s)), begin_s, duration_s)
            except (gamma.BadMarket, VenueError) as e:
                trouble = str(e)
                continue
            if window.accepting and not window.closed and window.end_s - self._now_s() > 20:
                self.window = window
                return gamma.slug(begin_s, duration_s)
            trouble = f"{gamma.slug(begin_s, duration_s)} takes no orders"
        raise StepFailed(trouble)

    async def _choose_price(self) -> str:
        """The lowest price there is, on the outcome whose best bid is far above it: it cannot trade."""
        w, seen = self.window, []
        for token, name in ((w.token_up, "Up"), (w.token_down, "Down")):
            book = await self.rest.book(token)
            try:
                best_e4 = max((round(float(level["price"]) * 10_000) for level in book["bids"]), default=0)
            except (KeyError, TypeError, ValueError):
                raise StepFailed(f"the book of {name} cannot be read") from None
            seen.append(f"{name} {best_e4 / 10_000:g}")
            if best_e4 >= w.tick_e4 * (1 + FAR_TICKS):
                template = self.signer.template(int(token), BUY, w.tick_e4, w.version, bool(w.neg_risk), True)
                self.order = template.build(w.tick_e4, w.min_size_u6, self.wall.now_ns() // 1_000_000, Salts()())
                return f"BUY {w.min_size_u6 / 1e6:g} {name} at {w.tick_e4 / 10_000:g}, the best bid is {best_e4 / 10_000:g}; id {self.order.order_id_hex}"
        raise StepFailed(f"no bid is far enough from the lowest price ({', '.join(seen)}): try again in the next window")

    async def _listen(self) -> str:
        await self.stream.open()
        await self.stream.until(lambda f: f.strip().upper() == b"PONG", "PONG")
        return "subscribed"

    async def _place(self) -> str:
        self.clean, self.maybe_late_ns = False, mono_ns() + int(LATE_S * 1e9)
        answer = await self.pool.request(self.requests.post_order(self.order.body, self._now_s()))
        leg = parse_order(answer.status, answer.body, self.order.order_id_hex)
        if leg.outcome is not Outcome.UNKNOWN:
            self.maybe_late_ns = 0
        if leg.outcome is not Outcome.ACCEPTED:
            raise StepFailed(f"{leg.code.name}: {leg.error or 'HTTP ' + str(answer.status)}")
        if leg.id_differs:
            raise StepFailed(f"the venue calls it {leg.order_id}, not by its digest: orders of unknown outcome could not be asked for")
        return f"{leg.status}, answered after {(answer.t_ack_ns - answer.t_send_ns) / 1e6:.1f} ms"

    async def _seen(self, kind: str) -> str:
        def ours(frame: bytes) -> bool:
            return any(d.get("event_type") == "order" and str(d.get("id", "")).lower() == self.order.order_id_hex and d.get("type") == kind
                       for d in documents(frame))
        await self.stream.until(ours, f"{kind} of our order", SEEN_S)
        return kind

    async def _read(self) -> str:
        found = await self.rest.order(self.order.order_id_hex)
        if found is None:
            raise StepFailed("the venue does not know the order that it has just accepted")
        if (found.px_e4, found.size_u6, found.matched_u6) != (self.order.px_e4, self.order.size_u6, 0):
            raise StepFailed(f"it reads {found.original_size} at {found.price}, {found.size_matched} of it matched")
        return f"{found.status}, {found.original_size} at {found.price}"

    async def _cancel(self) -> str:
        answer = await self.pool.request(self.requests.cancel_order(self.order.order_id_hex, self._now_s()))
        done = parse_cancel(answer.status, answer.body)
        if self.order.order_id_hex not in (i.lower() for i in done.canceled):
            raise StepFailed(done.error or done.not_canceled.get(self.order.order_id_hex, "the venue does not confirm the cancel"))
        return f"confirmed after {(answer.t_ack_ns - answer.t_send_ns) / 1e6:.1f} ms"

    async def _gone(self) -> str:
        if not await self._is_gone():
            raise StepFailed("it is still there")
        self.clean = True
        return "neither listed nor live"

    async def _is_gone(self) -> bool:
        order_id = self.order.order_id_hex
        listed: list[OpenOrder] = await self.rest.open_orders()
        found = await self.rest.order(order_id)
        live = found is not None and not found.status.upper().removeprefix("ORDER_STATUS_").startswith(GONE)
        return not live and all(o.id.lower() != order_id for o in listed)

    async def _clean_up(self) -> None:
        """Whatever happened: cancel the order until it is provably gone."""
        if self.clean:
            return
        begin, trouble = mono_ns(), ""
        while not self.clean and mono_ns() - begin < CLEAN_UP_S * 1e9:
            try:
                await self.pool.request(self.requests.cancel_order(self.order.order_id_hex, self._now_s()))
                self.clean = await self._is_gone() and mono_ns() > self.maybe_late_ns
                trouble = "it is still there, or may still come"
            except (VenueError, NotSent, UnknownOutcome) as e:
                trouble = str(e)
            if not self.clean:
                await asyncio.sleep(CLEAN_UP_PAUSE_S)
        step = Step("clean up", self.clean, "the order is gone" if self.clean else f"{trouble}: run `mmbot cancel-all`", (mono_ns() - begin) / 1e6)
        self.steps.append(step)
        self.say(step)
