"""Gamma, the venue's list of markets: one answer to one window's facts, and the table of windows the bot knows.

Owns: slugs, the parsing of an event, the rule which windows to ask for, and the state of a window. Writes: the MARKETS record it is given.
No sockets, no clock: time is an argument. Can go wrong: a market we must not trade (unknown protocol version, other outcomes, another
settlement rule, another window than its name says) raises BadMarket and stays out of the table.

Source: venue protocol, Gamma and resolution rule.
"""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

import msgspec
import numpy as np

from mmbot.venues.frames import UNREADABLE
from mmbot.venues.numbers import BadValue, words_of_decimal, words_of_hex
from shm_layout import records as r

DURATIONS = {"5m": 300, "15m": 900}
#: a window that Gamma never resolves is asked for no longer than this
GIVE_UP_S = 3_600
#: the venue's word on strike and final price is waited for so long after the end
CHECK_S = 300
#: how far (as a share) the venue's JSON number may be from the exact print it stands for
STRIKE_TOLERANCE = Decimal("2e-7")
MAX_FEE_EXPONENT = 4
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


class _Metadata(msgspec.Struct):
    priceToBeat: Decimal | None = None
    finalPrice: Decimal | None = None


class _EventAnswer(msgspec.Struct):
    markets: list[_Market]
    slug: str = ""
    startTime: str | None = None
    eventMetadata: _Metadata | None = None


_EVENT = msgspec.json.Decoder(_EventAnswer)
_TEXTS = msgspec.json.Decoder(list[str])


class _ClobToken(msgspec.Struct):
    t: str
    o: str = ""


class _ClobFee(msgspec.Struct):
    r: Decimal = Decimal(0)
    e: int = 1


class _ClobAnswer(msgspec.Struct):
    c: str = ""
    t: list[_ClobToken] = []
    mts: Decimal = Decimal(0)
    mos: Decimal = Decimal(0)
    fd: _ClobFee | None = None
    ao: bool = False
    itode: bool = False
    v: str = "v1"


_CLOB_MARKET = msgspec.json.Decoder(_ClobAnswer)


class ClobMarket(NamedTuple):
    """What the CLOB itself says of a market; 0 and "" where it says nothing."""
    taker_delayed: int
    version: int
    accepting: int
    tick_e4: int
    min_size_u6: int
    fee_rate_e6: int
    fee_exponent: int
    token_up: str
    token_down: str


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
    price_to_beat: Decimal | None = None
    final_price: Decimal | None = None

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
        fee, said = m.feeSchedule or _Fee(), event.eventMetadata or _Metadata()
        accepting = bool(m.active and m.acceptingOrders and not m.closed)
        tick_e4 = _exact(m.orderPriceMinTickSize, 4, "tick size")
        if not 0 < tick_e4 <= 1000:
            raise BadMarket(f"tick size {m.orderPriceMinTickSize}")
        if not 0 <= fee.exponent <= MAX_FEE_EXPONENT:
            raise BadMarket(f"fee exponent {fee.exponent}")
        return Window(
            start_s, duration_s, m.conditionId.lower(), tokens[r.UP], tokens[r.DOWN], tick_e4, _exact(m.orderMinSize, 6, "minimum size"),
            _exact(fee.rate, 6, "fee rate") if m.feesEnabled else 0, fee.exponent, 2 if m.version == "v2" else 1, int(bool(m.negRisk)),
            int(accepting), int(bool(m.closed)), _winner(m, order), price_to_beat=said.priceToBeat, final_price=said.finalPrice)
    except (*UNREADABLE, BadValue) as e:
        raise BadMarket(f"{wanted}: Gamma's answer cannot be read: {e}") from None
    except BadMarket as e:
        raise BadMarket(str(e) if str(e).startswith(wanted) else f"{wanted}: {e}") from None


def parse_clob_market(data: bytes) -> ClobMarket:
    """The CLOB's own market info; absent keys mean false or 0. Errors: BadMarket."""
    try:
        m = _CLOB_MARKET.decode(data)
    except UNREADABLE as e:
        raise BadMarket(f"the CLOB's market info cannot be read: {e}") from None
    if m.v not in ("v1", "v2"):
        raise BadMarket(f"protocol version {m.v[:20]!r} is unknown")
    tokens = {_LABELS.get(t.o.strip().lower(), -1): t.t for t in m.t}
    if m.t and sorted(tokens) != [r.UP, r.DOWN]:
        raise BadMarket("the CLOB's outcomes are not Up and Down")
    fee = m.fd or _ClobFee()
    return ClobMarket(int(m.itode), 2 if m.v == "v2" else 1, int(m.ao), _exact(m.mts, 4, "the CLOB's tick size"),
                      _exact(m.mos, 6, "the CLOB's minimum size"), _exact(fee.r, 6, "the CLOB's fee rate"), fee.e,
                      tokens.get(r.UP, ""), tokens.get(r.DOWN, ""))


def agree(window: Window, clob: ClobMarket) -> list[str]:
    """Correct a window by the CLOB's word, the safer of the two where they differ. Returns the differences.

    Errors: BadMarket when they do not describe the same market.
    """
    name = slug(window.start_s, window.duration_s)
    if clob.version != window.version:
        raise BadMarket(f"{name}: Gamma says protocol version {window.version}, the CLOB says {clob.version}")
    if clob.token_up and (clob.token_up, clob.token_down) != (window.token_up, window.token_down):
        raise BadMarket(f"{name}: Gamma and the CLOB name different tokens")
    window.taker_delayed = clob.taker_delayed
    window.accepting = min(window.accepting, clob.accepting)
    differences = []
    for field, better in (("tick_e4", min), ("min_size_u6", max), ("fee_rate_e6", max)):
        mine, theirs = getattr(window, field), getattr(clob, field)
        if theirs and theirs != mine:
            setattr(window, field, better(mine, theirs))
            differences.append(f"{name}: {field} is {mine} by Gamma and {theirs} by the CLOB")
    return differences


def check_strike(window: Window, value_at: Callable[[int], Decimal | None]) -> list[str]:
    """Compare the venue's word after the end of a window with our prints at its two ends; sets ``strike_check``, returns the differences.

    value_at(second) -> the print stamped exactly then, None when there is none.
    """
    wrong = []
    for t_s, said, good, bad in ((window.start_s, window.price_to_beat, r.SC_START_OK, r.SC_START_BAD),
                                 (window.end_s, window.final_price, r.SC_END_OK, r.SC_END_BAD)):
        mine = value_at(t_s)
        if said is None or mine is None or window.strike_check & (good | bad):
            continue
        same = said > 0 and abs(said - mine) <= STRIKE_TOLERANCE * said
        window.strike_check |= good if same else bad
        if not same:
            wrong.append(f"{slug(window.start_s, window.duration_s)}: the venue's TWAP-60 of {t_s} is {said}, ours is {mine}")
    return wrong


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
            open_question = w.outcome == r.NO_OUTCOME and now_s < w.end_s + GIVE_UP_S or now_s < w.end_s + CHECK_S and w.final_price is None
            if w.end_s <= now_s and open_question and (w.start_s, w.duration_s) not in out:
                out.append((w.start_s, w.duration_s))
        return out

    def resolved(self, market_id: int, outcome: int) -> bool:
        """The market channel says who won; false when that contradicts what is known (which then stands)."""
        w = self.windows.get(market_id)
        if w is None or outcome not in (r.UP, r.DOWN):
            return True
        if w.outcome == r.NO_OUTCOME:
            w.outcome = outcome
        return w.outcome == outcome

    def finer(self, market_id: int, tick_e4: int) -> None:
        """The market channel shows a tick; it only ever gets finer."""
        w = self.windows.get(market_id)
        if w is not None and 0 < tick_e4 < w.tick_e4:
            w.tick_e4 = tick_e4

    def merge(self, window: Window) -> Window:
        """Keep what was learnt of the same market before: the CLOB's word on it, an outcome, a finer tick (ticks never get coarser)."""
        old = self.windows.get(r.market_id(window.start_s, window.duration_s))
        if old is not None and old.condition_id == window.condition_id:
            if old.asked_venue:
                window.taker_delayed, window.asked_venue = old.taker_delayed, True
                window.min_size_u6, window.fee_rate_e6 = old.min_size_u6, old.fee_rate_e6
            window.tick_e4 = min(window.tick_e4, old.tick_e4)
            window.strike_check = old.strike_check
            window.price_to_beat = window.price_to_beat or old.price_to_beat
            window.final_price = window.final_price or old.final_price
            if window.outcome == r.NO_OUTCOME:
                window.outcome = old.outcome
        return window

    def put(self, window: Window, now_ns: int) -> None:
        """Enter a window, answered at ``now_ns``. A slot is its newest window's: an older one is forgotten, and a late answer about an older one is not entered."""
        key, slot = r.market_id(window.start_s, window.duration_s), r.slot_of(window.start_s, window.duration_s)
        others = [k for k, w in self.windows.items() if k != key and r.slot_of(w.start_s, w.duration_s) == slot]
        if any(self.windows[k].start_s > window.start_s for k in others):
            return
        self.windows[key] = window
        self._updated_ns[key] = now_ns
        for other in others:
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
