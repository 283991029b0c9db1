"""Gamma, the venue's list of markets: one answer to one window's facts, and the table of windows the bot knows.

Owns: slugs, the parsing of an event, the rule which windows to ask for, and the state of a window. Writes: the MARKETS record it is given.
No sockets, no clock: time is an argument. Can go wrong: a market we must not trade (unknown protocol version, other outcomes, another
settlement rule, another window than its name says) raises BadMarket and stays out of the table.

Source: venue protocol, Gamma and resolution rule.
"""

from datetime import datetime
from decimal import Decimal, InvalidOperation

import msgspec
import numpy as np

from mmbot.venues.frames import UNREADABLE
from mmbot.venues.numbers import BadValue, words_of_decimal, words_of_hex
from shm_layout import records as r

DURATIONS = {"5m": 300, "15m": 900}
#: a window that Gamma never resolves is asked for no longer than this
GIVE_UP_S = 3_600
_LABELS = {"up": r.UP, "down": r.DOWN}


class BadMarket(ValueError):
    """An answer that does not describe a market we can trade; the text says why."""


class _Fee(msgspec.Struct):
    rate: Decimal = Decimal(0)
    exponent: int = 1


class _Settlement(msgspec.Struct):
    twapEnabled: bool | None = None
    twapLookbackSeconds: int | None = None


class _Market(msgspec.Struct):
    conditionId: str
    outcomes: str
    slug: str = ""
    clobTokenIds: str | None = None
    positionIds: list[str] | None = None
    version: str = "v1"
    outcomePrices: str | None = None
    eventStartTime: str | None = None
    endDate: str | None = None
    orderPriceMinTickSize: Decimal = Decimal("0.01")
    orderMinSize: Decimal = Decimal(5)
    negRisk: bool | None = False
    feesEnabled: bool | None = True
    feeSchedule: _Fee | None = None
    acceptingOrders: bool | None = False
    active: bool | None = True
    closed: bool | None = False
    cryptoMarketConfig: _Settlement | None = None


class _EventAnswer(msgspec.Struct):
    markets: list[_Market]
    slug: str = ""
    startTime: str | None = None


_EVENT = msgspec.json.Decoder(_EventAnswer)
_TEXTS = msgspec.json.Decoder(list[str])


class _ClobMarket(msgspec.Struct):
    itode: bool = False
    v: str = "v1"


_CLOB_MARKET = msgspec.json.Decoder(_ClobMarket)


class Window(msgspec.Struct):
    """What is known of one window; numbers as in records.MARKET_INFO, ids as the venue writes them."""
    start_s: int
    duration_s: int
    condition_id: str
    token_up: str
    token_down: str
    tick_e4: int
    min_size_u6: int
    fee_rate_e6: int
    fee_exponent: int
    version: int
    neg_risk: int
    accepting: int
    closed: int
    outcome: int
    taker_delayed: int = 1
    asked_venue: bool = False
    strike_check: int = 0

    @property
    def end_s(self) -> int:
        return self.start_s + self.duration_s

    def state(self, now_s: float) -> int:
        """MS_* at wall time ``now_s``: OPEN means orders are accepted, also before the window starts."""
        if self.outcome != r.NO_OUTCOME:
            return r.MS_RESOLVED
        if self.closed or now_s >= self.end_s:
            return r.MS_CLOSED
        return r.MS_OPEN if self.accepting else r.MS_ANNOUNCED


def slug(start_s: int, duration_s: int) -> str:
    """Name of a window's event: btc-updown-15m-<start>."""
    return f"btc-updown-{duration_s // 60}m-{start_s}"


def event_path(start_s: int, duration_s: int) -> str:
    """Path of a window's event on Gamma."""
    return f"/events/slug/{slug(start_s, duration_s)}"


def _exact(value: Decimal, digits: int, what: str) -> int:
    try:
        scaled = value.scaleb(digits)
        if not scaled.is_finite() or scaled != scaled.to_integral_value() or not 0 <= scaled < 10 ** 17:
            raise InvalidOperation
    except InvalidOperation:
        raise BadMarket(f"{what} {str(value)[:40]!r} is not an exact number in range") from None
    return int(scaled)


def _time_s(text: str | None, what: str) -> int:
    """Seconds since 1970 of one of the venue's time formats (with or without fraction, T or space, Z or +00)."""
    try:
        stamp = datetime.fromisoformat(text or "")
        if stamp.tzinfo is None:
            raise ValueError
    except ValueError:
        raise BadMarket(f"{what} {text!r} is no time with a zone") from None
    return int(stamp.timestamp())


def _outcome_order(m: _Market) -> list[int]:
    """Outcome index (UP, DOWN) of each position in the market's lists, by label."""
    labels = [text.strip().lower() for text in _TEXTS.decode(m.outcomes)]
    if sorted(labels) != sorted(_LABELS):
        raise BadMarket(f"outcomes {m.outcomes[:80]!r} are not Up and Down")
    return [_LABELS[label] for label in labels]


def _tokens(m: _Market, order: list[int]) -> list[str]:
    if m.version not in ("v1", "v2"):
        raise BadMarket(f"protocol version {m.version[:20]!r} is unknown")
    texts = m.positionIds if m.version == "v2" else _TEXTS.decode(m.clobTokenIds or "[]")
    if texts is None or len(texts) != 2 or len(set(texts)) != 2:
        raise BadMarket(f"a {m.version} market without its two token ids")
    tokens = ["", ""]
    for outcome, text in zip(order, texts, strict=True):
        words_of_decimal(text)
        tokens[outcome] = text
    return tokens


def _winner(m: _Market, order: list[int]) -> int:
    """Outcome index of a resolved market (closed, prices exactly 1 and 0), else NO_OUTCOME."""
    if not m.closed or not m.outcomePrices:
        return r.NO_OUTCOME
    try:
        prices = [Decimal(text) for text in _TEXTS.decode(m.outcomePrices)]
    except InvalidOperation:
        raise BadMarket(f"outcomePrices {m.outcomePrices[:80]!r}") from None
    if len(prices) != 2 or sorted(prices) != [0, 1]:
        return r.NO_OUTCOME
    return order[prices.index(1)]


def _check_settlement(m: _Market) -> None:
    rule = m.cryptoMarketConfig
    if rule and (rule.twapEnabled is False or rule.twapLookbackSeconds not in (None, 60)):
        raise BadMarket(f"settles by another rule than TWAP-60 (twapEnabled {rule.twapEnabled}, lookback {rule.twapLookbackSeconds})")


def parse_event(data: bytes, start_s: int, duration_s: int) -> Window:
    """The window in Gamma's answer to `event_path`. Errors: BadMarket."""
    wanted = slug(start_s, duration_s)
    try:
        event = _EVENT.decode(data)
        m = next((m for m in event.markets if m.slug in ("", wanted)), None)
        if m is None:
            raise BadMarket(f"{wanted}: the event has no market of that name")
        begin = _time_s(m.eventStartTime or event.startTime, "eventStartTime")
        end = _time_s(m.endDate, "endDate")
        if (begin, end) != (start_s, start_s + duration_s):
            raise BadMarket(f"the window runs from {begin} to {end}")
        _check_settlement(m)
        order = _outcome_order(m)
        tokens = _tokens(m, order)
        words_of_hex(m.conditionId)
        fee = m.feeSchedule or _Fee()
        accepting = bool(m.active and m.acceptingOrders and not m.closed)
        tick_e4 = _exact(m.orderPriceMinTickSize, 4, "tick size")
        if not 0 < tick_e4 <= 1000:
            raise BadMarket(f"tick size {m.orderPriceMinTickSize}")
        return Window(
            start_s, duration_s, m.conditionId.lower(), tokens[r.UP], tokens[r.DOWN], tick_e4, _exact(m.orderMinSize, 6, "minimum size"),
            _exact(fee.rate, 6, "fee rate") if m.feesEnabled else 0, fee.exponent, 2 if m.version == "v2" else 1, int(bool(m.negRisk)),
            int(accepting), int(bool(m.closed)), _winner(m, order))
    except (*UNREADABLE, BadValue) as e:
        raise BadMarket(f"{wanted}: Gamma's answer cannot be read: {e}") from None
    except BadMarket as e:
        raise BadMarket(str(e) if str(e).startswith(wanted) else f"{wanted}: {e}") from None


def parse_clob_market(data: bytes) -> tuple[int, int]:
    """(taker_delayed 0/1, protocol version 1/2) of the CLOB's own market info. Errors: BadMarket."""
    try:
        m = _CLOB_MARKET.decode(data)
    except UNREADABLE as e:
        raise BadMarket(f"the CLOB's market info cannot be read: {e}") from None
    if m.v not in ("v1", "v2"):
        raise BadMarket(f"protocol version {m.v[:20]!r} is unknown")
    return int(m.itode), 2 if m.v == "v2" else 1


class Table:
    """The windows that are known, by market id."""

    def __init__(self, durations: list[int], lead_s: float):
        self._durations, self._lead_s = durations, lead_s
        self.windows: dict[int, Window] = {}
        self._updated_ns: dict[int, int] = {}

    def wanted(self, now_s: float) -> list[tuple[int, int]]:
        """(start_s, duration_s) to ask Gamma for now: current windows, next ones within the lead, past ones until they are resolved."""
        out = []
        for duration in self._durations:
            current = int(now_s) // duration * duration
            out.append((current, duration))
            if current + duration - now_s <= self._lead_s:
                out.append((current + duration, duration))
            previous = self.windows.get(r.market_id(current - duration, duration))
            if previous is None or previous.outcome == r.NO_OUTCOME:
                out.append((current - duration, duration))
        for w in self.windows.values():
            if w.outcome == r.NO_OUTCOME and w.end_s <= now_s < w.end_s + GIVE_UP_S and (w.start_s, w.duration_s) not in out:
                out.append((w.start_s, w.duration_s))
        return out

    def merge(self, window: Window) -> Window:
        """Keep what was learnt of the same market before: the CLOB's word on it, an outcome, a finer tick (ticks never get coarser)."""
        old = self.windows.get(r.market_id(window.start_s, window.duration_s))
        if old is not None and old.condition_id == window.condition_id:
            window.taker_delayed, window.asked_venue = old.taker_delayed, old.asked_venue
            window.tick_e4 = min(window.tick_e4, old.tick_e4)
            if window.outcome == r.NO_OUTCOME:
                window.outcome = old.outcome
        return window

    def put(self, window: Window, now_ns: int) -> None:
        """Enter a window, answered at ``now_ns``; an older window in its slot is forgotten."""
        key = r.market_id(window.start_s, window.duration_s)
        self.windows[key] = window
        self._updated_ns[key] = now_ns
        for other in [k for k, w in self.windows.items() if k != key and w.start_s < window.start_s and r.slot_of(w.start_s, w.duration_s)
                      == r.slot_of(window.start_s, window.duration_s)]:
            del self.windows[other], self._updated_ns[other]

    def fill(self, rec, now_s: float) -> bool:
        """Write all rows into a MARKETS record (version and stamp are the caller's); true if a row changed other than in its stamp."""
        rows = rec["row"]
        changed = False
        taken = set()
        for key, w in self.windows.items():
            slot = r.slot_of(w.start_s, w.duration_s)
            taken.add(slot)
            row = rows[slot]
            new = (key, slot, w.start_s, w.end_s, w.duration_s, w.state(now_s), int(w.accepting and now_s < w.end_s), w.tick_e4, w.min_size_u6,
                   w.fee_rate_e6, w.fee_exponent, w.version, w.neg_risk, w.taker_delayed, w.outcome, w.strike_check)
            ids = (words_of_decimal(w.token_up), words_of_decimal(w.token_down), words_of_hex(w.condition_id))
            if row.item()[:len(new)] != new or any(row[f].tolist() != v for f, v in zip(("token_up", "token_down", "condition_id"), ids)):
                changed = True
            rows[slot] = (*new, self._updated_ns[key], *ids)
        for slot in set(range(r.MARKET_SLOTS)) - taken:
            if rows[slot]["market_id"]:
                rows[slot] = np.zeros((), r.MARKET_INFO)
                changed = True
        return changed

    def recover(self, rec, now_s: float) -> None:
        """Take over the rows an earlier incarnation wrote, except those that this clock has not reached or has long passed."""
        for row in rec["row"]:
            start_s, duration_s = int(row["start_s"]), int(row["duration_s"])
            if not row["market_id"] or duration_s not in self._durations or not start_s - duration_s <= now_s < start_s + GIVE_UP_S:
                continue
            key = int(row["market_id"])
            self.windows[key] = Window(
                start_s, duration_s, f"0x{r.id_value(row['condition_id']):064x}", str(r.id_value(row["token_up"])),
                str(r.id_value(row["token_down"])), *(int(row[f]) for f in ("tick_e4", "min_size_u6", "fee_rate_e6", "fee_exponent",
                                                                            "version", "neg_risk", "accepting")),
                int(row["state"] >= r.MS_CLOSED), int(row["outcome"]), int(row["taker_delayed"]), True, int(row["strike_check"]))
            self._updated_ns[key] = int(row["t_update_ns"])
