"""A MarketState from the files of document 3: bybit.json, chainlink.json, call.json, put.json beside each other, or all in one file.

Owns: which keys are read and what they mean. Other programs write these files, so keys that are not listed here are left alone; a value that cannot be is an error
that names file and key. Times are milliseconds since 1970; numbers may be text.

    bybit, coinbase, binance, chainlink   {"price", "timestamp"}, or {"bid", "ask", "timestamp"}; "history": [[timestamp, price], ...] adds earlier ones
    chainlink                             also "strike": the price at the start of the window
    call, put                             {"bids": [{"price", "size"} or [price, size], ...], "asks": ..., "timestamp"} as the venue's GET /book answers, with its
                                          "tick_size" and "min_order_size"; or only "best_bid", "best_ask" ("bid_size", "ask_size")
    window (if there)                     "start" or "slug", "duration_s", "strike", "cash", "up_shares", "down_shares", "up_cost", "down_cost",
                                          "own": [{"outcome", "side", "price", "size"}, ...]

One of call and put is enough: a bid for one is an ask of the other. With both, the better price of the two counts, and a book that is crossed by it is not quoted on.
The present is the newest time in any of the files.
"""

import re
from pathlib import Path

import msgspec

from mmbot.errors import UserError
from mmbot.library.state import VENUES, MarketState, amount, px_e4
from shm_layout import records as r

PARTS = (*VENUES, "chainlink", "call", "put", "window")
#: shares of a price whose size the file does not say
UNSAID_SHARES = 100.0
_MS = (1_000_000_000_000, 4_102_444_800_000)      # 2001 to 2100
_SLUG = re.compile(r"btc-updown-(5|15)m-(\d{9,11})$")
_AMOUNTS = ("cash", "up_shares", "down_shares", "up_cost", "down_cost")


def read_state(path: str | Path, start_s: int | None = None, duration_s: int | None = None) -> MarketState:
    """The state in a directory of files, or in one file that holds them as {"bybit": {...}, ...}.

    ``start_s``, ``duration_s``: the window, where the files do not say; else the one of 15 minutes that runs at their newest time. Errors: UserError.
    """
    path = Path(path)
    if path.is_dir():
        parts = {name: _load(path / f"{name}.json") for name in PARTS if (path / f"{name}.json").exists()}
        if not parts:
            raise UserError(f"{path} holds none of {', '.join(f'{name}.json' for name in PARTS)}")
    else:
        parts = _load(path)
        if unknown := sorted(set(parts) - set(PARTS)):
            raise UserError(f"{path}: unknown part {unknown[0]!r}; a state has {', '.join(PARTS)}")
    return from_parts(parts, start_s, duration_s)


def _load(path: Path) -> dict:
    try:
        found = msgspec.json.decode(path.read_bytes())
    except OSError as e:
        raise UserError(f"state {path}: {e.strerror or e}") from None
    except msgspec.DecodeError as e:
        raise UserError(f"state {path}: {e}") from None
    if not isinstance(found, dict):
        raise UserError(f"state {path}: an object is needed, this is a {type(found).__name__}")
    return found


def from_parts(parts: dict[str, dict], start_s: int | None = None, duration_s: int | None = None) -> MarketState:
    """The state of parts as they are read. Errors: UserError."""
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise UserError(f"{name}: an object is needed, this is a {type(part).__name__}")
    if "chainlink" not in parts:
        raise UserError("chainlink is missing: the window settles by it")
    if "call" not in parts and "put" not in parts:
        raise UserError("call and put are missing: one of the two books is needed")
    series = {name: _series(name, parts[name]) for name in (*VENUES, "chainlink") if name in parts}
    books = {name: parts[name] for name in ("call", "put") if name in parts}
    book_s = [_time(name, "timestamp", part["timestamp"]) for name, part in books.items() if "timestamp" in part]
    now_s = max([points[-1][0] for points in series.values()] + book_s)
    window = parts.get("window", {})
    start_s, duration_s = _window(window, now_s, start_s, duration_s)
    strike = window.get("strike", parts["chainlink"].get("strike"))
    bids, asks = _book(books)
    market = next(iter(books.values()))
    more = {name: _number("window", name, window[name]) for name in _AMOUNTS if name in window}
    for key, name in (("tick_size", "tick"), ("min_order_size", "min_size")):
        if key in market:
            more[name] = _number(next(iter(books)), key, market[key])
    return MarketState(now_s=now_s, start_s=start_s, duration_s=duration_s, bids=bids, asks=asks, oracle=series.pop("chainlink"), spot=series,
                       strike=None if strike is None else _number("window", "strike", strike), book_s=min(book_s) if book_s else None, own=_own(window), **more)


def _number(part: str, key: str, value: object) -> float:
    try:
        if isinstance(value, bool):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise UserError(f"{part}.{key} is {value!r}: a number is needed") from None


def _time(part: str, key: str, value: object) -> float:
    """Milliseconds since 1970 as seconds."""
    ms = _number(part, key, value)
    if not _MS[0] <= ms < _MS[1]:
        raise UserError(f"{part}.{key} is {value!r}: milliseconds since 1970 are needed")
    return ms / 1000


def _series(name: str, part: dict) -> list[tuple[float, float]]:
    """Earlier points and the newest one."""
    points = []
    for point in part.get("history", ()):
        if not isinstance(point, list) or len(point) != 2:
            raise UserError(f"{name}.history must hold [timestamp, price] pairs, not {point!r}")
        points.append((_time(name, "history", point[0]), _number(name, "history", point[1])))
    if "price" in part or "bid" in part and "ask" in part:
        px = _number(name, "price", part["price"]) if "price" in part else (_number(name, "bid", part["bid"]) + _number(name, "ask", part["ask"])) / 2
        if "timestamp" not in part:
            raise UserError(f"{name}.timestamp is missing: how old the price is decides whether it is traded on")
        points.append((_time(name, "timestamp", part["timestamp"]), px))
    if not points:
        raise UserError(f"{name} has no price: \"price\" and \"timestamp\" are needed")
    return sorted(points)


def _window(window: dict, now_s: float, start_s: int | None, duration_s: int | None) -> tuple[int, int]:
    """(start_s, duration_s): what the caller says, else the file, else the window that runs."""
    if "slug" in window:
        found = _SLUG.match(str(window["slug"]))
        if not found:
            raise UserError(f"window.slug is {window['slug']!r}: btc-updown-15m-<start> or btc-updown-5m-<start> is needed")
        window = {"start": int(found[2]) * 1000, "duration_s": int(found[1]) * 60} | window
    duration_s = duration_s or int(_number("window", "duration_s", window.get("duration_s", 900)))
    if duration_s not in r.DURATIONS:
        raise UserError(f"window.duration_s is {duration_s}: a window lasts {' or '.join(map(str, r.DURATIONS))} seconds")
    if start_s is None:
        start_s = int(_time("window", "start", window["start"])) if "start" in window else int(now_s) // duration_s * duration_s
    return start_s, duration_s


def _side(name: str, part: dict, side: str) -> list[tuple[float, float]]:
    """[(price, shares)] of ``bids`` or ``asks``, from the list or from the best price alone."""
    if side in part:
        out = []
        for level in part[side] if isinstance(part[side], list) else [part[side]]:
            pair = (level.get("price"), level.get("size")) if isinstance(level, dict) else level
            if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                raise UserError(f"{name}.{side} must hold {{\"price\", \"size\"}} or [price, size], not {level!r}")
            out.append((_number(name, side, pair[0]), _number(name, side, pair[1])))
        return out
    best = f"best_{side[:-1]}"
    if part.get(best) is None:
        return []
    return [(_number(name, best, part[best]), _number(name, f"{side[:-1]}_size", part.get(f"{side[:-1]}_size", UNSAID_SHARES)))]


def _book(books: dict[str, dict]) -> tuple[list, list]:
    """Bids and asks of Up. The venue shows the same orders in both books: where two say something about one price, the larger size counts."""
    sides = {"bids": {}, "asks": {}}
    for name, part in books.items():
        for side in ("bids", "asks"):
            for px, shares in _side(name, part, side):
                e4 = px_e4(f"{name}.{side} price", px)
                amount(f"{name}.{side} size", shares)
                to, at = (side, e4) if name == "call" else ("asks" if side == "bids" else "bids", 10_000 - e4)
                sides[to][at] = max(sides[to].get(at, 0.0), shares)
    return tuple([(px / 1e4, shares) for px, shares in found.items()] for found in sides.values())


def _own(window: dict) -> list[tuple[str, str, float, float]]:
    out = []
    for order in window.get("own", ()):
        if not isinstance(order, dict) or not {"outcome", "side", "price", "size"} <= set(order):
            raise UserError(f"window.own must hold {{\"outcome\", \"side\", \"price\", \"size\"}}, not {order!r}")
        out.append((order["outcome"], order["side"], _number("window.own", "price", order["price"]), _number("window.own", "size", order["size"])))
    return out
