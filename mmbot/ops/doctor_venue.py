"""The doctor's checks of everything beyond this machine: account, wallet, venue, current window, streams.

Owns: these checks, their order and what to do about each finding. Reads: the venue (a handful of GETs and one short connection to each stream, all
bounded in time), the account's files, the kernel's word on the time service, the group's memory (rate tier). Writes nothing.
Can go wrong: nothing here raises on what a sick venue could cause; it becomes a finding.
"""

import asyncio
import ctypes
from collections.abc import Awaitable, Callable

from mmbot import clock
from mmbot.errors import UserError
from mmbot.execution.credentials import WALLETS, Credentials, credentials
from mmbot.execution.rest import RestClient, VenueError
from mmbot.execution.signing import EXCHANGES
from mmbot.execution.watch import clock_skew_s
from mmbot.execution.wire import ErrorCode
from mmbot.ops.finding import Finding
from mmbot.ops.streams import Stream, StreamError, documents
from mmbot.ops.wallets import type_of
from mmbot.venues import binance, bybit, coinbase
from mmbot.venues.polymarket import gamma, market_channel, polybolt, rtds, user_channel

VENUE_S, STREAM_S = 4.0, 4.0
SKEW_WARN_S = 1.0
LOW_BALANCE_U6 = 10_000_000         # ten dollars: two orders of the least size
TIME_ERROR, ADJTIMEX_BYTES = 5, 256
EOA_ONLY_FROM_OLD = "new accounts trade from a deposit wallet (signature type 3); the venue refuses other makers with 'maker address not allowed'"


def time_service() -> Finding:
    """Whether the kernel says that something keeps its clock right."""
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(ADJTIMEX_BYTES))
    if state < 0:
        return Finding("warn", "time service", "the kernel does not say whether the clock is kept right", "run chrony or systemd-timesyncd")
    synchronised = state != TIME_ERROR
    return Finding("ok" if synchronised else "warn", "time service", "the kernel's clock is " + ("synchronised" if synchronised else "not synchronised"),
                   "" if synchronised else "run chrony or systemd-timesyncd on this machine (or its host): requests are signed with the time")


def account_findings(cfg) -> tuple[list[Finding], Credentials | None]:
    """Is there an account, and does its money's address belong to its key?"""
    try:
        who = credentials(cfg)
    except UserError as e:
        return [Finding("fail", "account", str(e), "set what it names; `mmbot keys new` makes an encrypted keystore")], None
    out = [Finding("ok", "account", f"{who.address}, signature type {who.signature_type} ({WALLETS[who.signature_type]}), money at {who.funder}")]
    if cfg.profile == "live" and who.signature_type != 3:
        out.append(Finding("warn", "wallet", f"signature type {who.signature_type}: {EOA_ONLY_FROM_OLD}",
                           "`mmbot livetest` shows whether the venue takes it; else set signature_type 3 and the deposit wallet as funder"))
    if who.signature_type:
        out.append(_wallet(who))
    out.append(settlement_finding(cfg, who))
    return out, who


def settlement_finding(cfg, who: Credentials) -> Finding:
    """Can the settler reach the chain with this wallet?"""
    account, way = cfg.account, "its own transactions, paid with POL" if not who.signature_type else "the relayer"
    keyed = account.relayer_key.get_secret_value() or all(getattr(account, n).get_secret_value() for n in ("builder_key", "builder_secret", "builder_passphrase"))
    if not cfg.settlement.enabled:
        return Finding("warn", "settlement", "switched off: full sets are not merged and windows not redeemed", "set settlement.enabled = true, or do it by hand")
    if not cfg.venue.rpc_url or (who.signature_type and not cfg.venue.relayer_url):
        return Finding("fail", "settlement", "no way to the chain: nothing is merged or redeemed",
                       "set venue.rpc_url" + (" and venue.relayer_url" if who.signature_type else "") + " (see mmbot/presets/live.toml)")
    if cfg.profile == "live" and who.signature_type and not keyed:
        return Finding("fail", "settlement", f"a {WALLETS[who.signature_type]} settles through the relayer, and there is no key for it",
                       "set MMBOT_ACCOUNT__RELAYER_KEY (made on the venue's site), or the three MMBOT_ACCOUNT__BUILDER_* of a builder key")
    return Finding("ok", "settlement", f"through {way}; merges of {cfg.settlement.merge_min_sets:g} sets and more, {cfg.settlement.ops_per_min} operations a "
                                       "minute at most")


def _wallet(who: Credentials) -> Finding:
    found = type_of(who.address, who.funder)
    if found == who.signature_type:
        return Finding("ok", "wallet", f"{who.funder} is the {WALLETS[found]} of this key")
    if found is None:
        return Finding("warn", "wallet", f"{who.funder} is none of the wallets that belong to {who.address}",
                       "compare with `mmbot keys show-address`; another key's wallet makes every order fail (identity)")
    return Finding("fail", "wallet", f"{who.funder} is this key's {WALLETS[found]}, which signs with type {found}, not {who.signature_type}",
                   f"set account.signature_type = {found}, or the {WALLETS[who.signature_type]} of `mmbot keys show-address` as account.funder")


async def venue_findings(cfg, who: Credentials | None, wall: clock.WallClock) -> list[Finding]:
    """Everything the venue can be asked."""
    async with RestClient.of(cfg.venue, wall.now_s, who, VENUE_S) as rest:
        try:
            sent_s = wall.now_s()
            venue_s = await rest.server_time()
            skew_s = clock_skew_s(venue_s, sent_s, wall.now_s())
        except VenueError as e:
            return [Finding("fail", "venue", str(e), f"is {cfg.venue.clob_url} the right venue.clob_url, and does the network let you there?")]
        out = [_clock(cfg, skew_s / wall.rate)]
        if cfg.venue.geoblock_url:
            out.append(await _geoblock(rest))
        if who:
            out += await _account(cfg, rest, who)
        window, found = await _window(cfg, rest, wall)
    return out + found + await _streams(cfg, who, window)


def _clock(cfg, skew_s: float) -> Finding:
    level = "ok" if abs(skew_s) <= SKEW_WARN_S else "warn" if abs(skew_s) <= cfg.guardian.max_clock_skew_s else "fail"
    return Finding(level, "venue", f"{cfg.venue.clob_url} answers, its clock is " + (f"{skew_s:+.1f} s off ours" if skew_s else "ours"),
                   "" if level == "ok" else "set this machine's clock (chrony, systemd-timesyncd): signed requests carry the time, and beyond "
                   f"{cfg.guardian.max_clock_skew_s:g} s the guardian lets nobody quote")


async def _geoblock(rest: RestClient) -> Finding:
    try:
        g = await rest.geoblock()
    except VenueError as e:
        return Finding("warn", "geoblock", str(e), "the venue may refuse orders from here; ask it again later")
    where = " ".join(filter(None, (g.country, g.region)))
    return Finding("fail" if g.blocked else "ok", "geoblock", f"{'blocked' if g.blocked else 'not blocked'} {where}".strip(),
                   "trade from where the venue allows it; the bot halts here and does not look for a way around" if g.blocked else "")


async def _account(cfg, rest: RestClient, who: Credentials) -> list[Finding]:
    try:
        orders, balance = await rest.open_orders(), await rest.balance()
    except VenueError as e:
        if e.code is not ErrorCode.UNAUTHORIZED:
            return [Finding("fail", "API key", str(e), "the venue did not answer as it should: try again, and look at its status page")]
        return [Finding("fail", "API key", str(e), "unset MMBOT_ACCOUNT__API_KEY, _API_SECRET and _API_PASSPHRASE to have them derived from the key, or correct "
                        f"them; delete {cfg.run.path / 'api_credentials.json'} if they come from there; a wrong clock is refused in the same words")]
    out = [Finding("ok", "API key", f"accepted, {len(orders)} open orders"), await _closed_only(rest),
           await _balance(rest, who, balance.balance_u6), *_allowances(cfg, balance.allowances)]
    return out


async def _closed_only(rest: RestClient) -> Finding:
    try:
        closed = await rest.closed_only()
    except VenueError as e:
        return Finding("warn", "closed only", str(e), "ask again later")
    return Finding("fail" if closed else "ok", "closed only", "the account may only close positions" if closed else "the account may open positions",
                   "ask the venue's support why; the bot does not quote with such an account" if closed else "")


async def _balance(rest: RestClient, who: Credentials, balance_u6: int) -> Finding:
    shown = f"{balance_u6 / 1e6:,.2f} dollars"
    if balance_u6 >= LOW_BALANCE_U6:
        return Finding("ok", "balance", shown)
    for other in (t for t in WALLETS if t != who.signature_type and not balance_u6):
        try:
            elsewhere_u6 = (await rest.balance_as(other)).balance_u6
        except VenueError:
            continue
        if elsewhere_u6:
            return Finding("fail", "balance", f"{shown} at signature type {who.signature_type}, but {elsewhere_u6 / 1e6:,.2f} at type {other} ({WALLETS[other]})",
                           f"set account.signature_type = {other} and account.funder to that wallet, or move the money")
    return Finding("fail" if not balance_u6 else "warn", "balance", shown, f"deposit collateral (pUSD) to {who.funder}")


def _allowances(cfg, allowances: dict[str, str] | None) -> list[Finding]:
    """One line per exchange contract that orders are signed for."""
    given = {address.lower(): text for address, text in (allowances or {}).items()}
    out = []
    for (chain, version, neg_risk), (_, contract) in EXCHANGES.items():
        if chain != cfg.venue.chain_id or neg_risk:
            continue
        text = given.get(contract.lower(), "0")
        amount = int(text) if text.isdecimal() else 0
        name = f"allowance v{version}"
        if amount >= LOW_BALANCE_U6:
            out.append(Finding("ok", name, f"{contract} may take " + (f"{amount / 1e6:,.0f} dollars" if amount < 1 << 60 else "any amount")))
        else:
            out.append(Finding("fail", name, f"{contract} may take {amount / 1e6:,.2f} dollars" if text.isdecimal() else f"{contract}: {text!r}",
                               f"approve it to spend collateral from the wallet (the venue's site does, or setup_trading_approvals of its client), for v{version} "
                               "markets; then GET /balance-allowance/update"))
    return out


async def _window(cfg, rest: RestClient, wall: clock.WallClock) -> tuple[gamma.Window | None, list[Finding]]:
    """The current window (or the next, if that is the only one) of the first duration that is traded: is it listed, with which tick and version?"""
    duration_s = gamma.DURATIONS[cfg.markets.durations[0]]
    current_s = int(wall.now_s()) // duration_s * duration_s
    trouble: list[str] = []
    for start_s in (current_s, current_s + duration_s):
        name = gamma.slug(start_s, duration_s)
        try:
            window = gamma.parse_event(await rest.page(cfg.venue.gamma_url + gamma.event_path(start_s, duration_s)), start_s, duration_s)
            compact = await rest.clob_market(window.condition_id)
            return window, [_compared(name, window, compact, round(float(compact.get("mts", 0)) * 10_000))]
        except (gamma.BadMarket, VenueError, TypeError, ValueError) as e:
            trouble.append(f"{name}: {e}")
    return None, [Finding("fail", "window", trouble[0], "without discovery nothing is quoted: look at venue.gamma_url and the venue's status page")]


def _compared(name: str, window: gamma.Window, compact: dict, tick_e4: int) -> Finding:
    version = str(compact.get("v", ""))
    agree = tick_e4 == window.tick_e4 and version == f"v{window.version}"
    shown = f"{name}: tick {window.tick_e4 / 10_000:g}, least size {window.min_size_u6 / 1e6:g}, market version v{window.version}"
    if agree:
        return Finding("ok", "window", shown)
    return Finding("warn", "window", f"{shown}; the CLOB says tick {tick_e4 / 10_000:g}, version {version or 'none'}",
                   "the tick gets finer within a window and Gamma is late: the CLOB's is used; a version that stays different is a fault of the venue")


async def _streams(cfg, who: Credentials | None, window: gamma.Window | None) -> list[Finding]:
    """One short connection to each stream, all at once."""
    v, looks = cfg.venue, []
    if window is not None:
        first = market_channel.subscribe_first([window.token_up, window.token_down])
        looks.append(_stream("market stream", Stream("market channel", f"{v.ws_url}/market", first), _has(lambda d: "bids" in d), "book", "venue.ws_url"))
    if who is not None:
        looks.append(_user_stream(cfg, who))
    looks.append(_stream("RTDS", Stream("RTDS", v.rtds_url, rtds.SUBSCRIBE), _has(lambda d: "payload" in d), "price", "venue.rtds_url"))
    if v.polybolt_url and who is not None:
        auth = polybolt.authenticate(who.api_key, who.api_secret, who.api_passphrase)
        looks.append(_polybolt(Stream("PolyBolt", v.polybolt_url, auth)))
    looks.append(_stream("Binance", Stream("Binance", v.binance_ws_url + binance.PATH), _has(lambda d: "stream" in d), "price", "venue.binance_ws_url"))
    if cfg.feeds.coinbase:
        looks.append(_stream("Coinbase", Stream("Coinbase", v.coinbase_ws_url, *coinbase.subscribe(coinbase.BOOK)), _has(lambda d: "events" in d), "book",
                             "venue.coinbase_ws_url, or feeds.coinbase = false"))
    if cfg.feeds.bybit:
        looks.append(_stream("Bybit", Stream("Bybit", v.bybit_ws_url, *bybit.subscribe(bybit.T_BOOK)), _has(lambda d: "topic" in d), "book",
                             "venue.bybit_ws_url, or feeds.bybit = false"))
    return list(await asyncio.gather(*looks))


def _has(test: Callable[[dict], bool]) -> Callable[[bytes], bool]:
    return lambda frame: any(test(d) for d in documents(frame))


async def _stream(name: str, stream: Stream, found: Callable[[bytes], bool], what: str, setting: str) -> Finding:
    begin = clock.mono_ns()
    stream.timeout_s = STREAM_S
    try:
        async with stream:
            await stream.until(found, what)
    except StreamError as e:
        return Finding("fail", name, str(e), f"look at {setting} and at the network; a stream that accepts and says nothing is frozen at the venue")
    return Finding("ok", name, f"{what} after {(clock.mono_ns() - begin) / 1e6:.0f} ms")


async def _polybolt(stream: Stream) -> Finding:
    async def talk() -> None:
        async with stream:
            answer = await stream.until(_has(lambda d: "op" in d), "an answer to the credentials")
            if any(d.get("op") == "error" for d in documents(answer)):
                raise StreamError("PolyBolt refuses the API credentials")
            stream.send(polybolt.SUBSCRIBE)
            await stream.until(_has(lambda d: "payload" in d), "price")
    return await _talk("PolyBolt", talk, "price", "PolyBolt is the second source of the oracle: RTDS alone will do, but nothing covers for it; look at "
                       "venue.polybolt_url (empty: not used) and the API credentials", "warn")


async def _user_stream(cfg, who: Credentials) -> Finding:
    """The subscription is accepted when the connection stays and answers: the venue closes one with wrong credentials."""
    async def talk() -> None:
        hello = user_channel.subscribe(who.api_key, who.api_secret, who.api_passphrase)
        async with Stream("user channel", f"{cfg.venue.ws_url}/user", hello, b"PING", timeout_s=STREAM_S) as stream:
            for _ in range(2):      # a refusal may come after the first answer
                await stream.until(lambda f: f.strip().upper() == b"PONG", "PONG")
                stream.send(b"PING")
    return await _talk("user stream", talk, "subscribed", "without it fills are learned late and nothing is quoted: correct the API credentials "
                       "(unset them to have them derived), look at venue.ws_url", "fail")


async def _talk(name: str, talk: Callable[[], Awaitable[None]], done: str, fix: str, level: str) -> Finding:
    begin = clock.mono_ns()
    try:
        await talk()
    except StreamError as e:
        return Finding(level, name, str(e), fix)
    return Finding("ok", name, f"{done} after {(clock.mono_ns() - begin) / 1e6:.0f} ms")
