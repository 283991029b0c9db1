"""The level-list scanner against a JSON parser and Decimal: same answer or a refusal, never something else."""

import json
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmbot.books import levels as lv

PX, SIZE = np.zeros(64, np.int64), np.zeros(64, np.int64)


def scan(data: bytes, px=PX, size=SIZE) -> int:
    return lv.parse_levels(np.frombuffer(data, np.uint8), px, size)


def oracle(data: bytes):
    """(price, size) pairs by an ordinary parser, or None when the list is not acceptable."""
    out = []
    for level in json.loads(data, parse_float=str, parse_int=str):
        px, size = Decimal(level["price"]) * 10**4, Decimal(level["size"]) * 10**6
        if px != int(px) or size != int(size) or not 0 < px < 10**4 or not 0 <= size < 10**18:
            return None
        out.append((int(px), int(size)))
    return out


price = st.integers(1, 9999).map(lambda i: f"0.{i:04d}".rstrip("0"))
size = st.builds(lambda w, f: f"{w}.{f}" if f else str(w), st.integers(0, 10**7), st.text("0123456789", max_size=6))
level = st.builds(lambda p, s, swap: {"size": s, "price": p} if swap else {"price": p, "size": s}, price, size, st.booleans())


@given(st.lists(level, max_size=20), st.sampled_from([None, (",", ":"), (" , ", " : ")]), st.booleans())
def test_what_a_venue_may_write_is_read_exactly(levels, separators, numbers):
    text = json.dumps(levels, separators=separators)
    if numbers:
        text = json.dumps([{k: float(v) for k, v in x.items()} for x in levels], separators=separators)
        if "e" in text:
            return
    n = scan(text.encode())
    assert n == len(levels)
    assert list(zip(PX[:n].tolist(), SIZE[:n].tolist(), strict=True)) == oracle(text.encode())


@given(st.lists(level, min_size=1, max_size=3), st.data())
@settings(max_examples=300)
def test_damaged_text_is_never_half_believed(levels, data):
    """Flip, cut or insert bytes: if it still scans, an ordinary parser must read the same."""
    raw = bytearray(json.dumps(levels, separators=(",", ":")).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw)))
        what = data.draw(st.sampled_from(["flip", "cut", "insert"]))
        if what == "flip" and at < len(raw):
            raw[at] = data.draw(st.integers(32, 126))
        elif what == "cut":
            del raw[at:]
        else:
            raw[at:at] = bytes([data.draw(st.sampled_from(list(b'"{}[],:.0159e-\\ ')))])
    n = scan(bytes(raw))
    if n < 0:
        return
    try:
        expected = oracle(bytes(raw))
    except (ValueError, KeyError, TypeError, ArithmeticError, UnicodeDecodeError):
        return          # laxer than JSON in syntax (the frame's own decoder has checked that), never in numbers
    assert list(zip(PX[:n].tolist(), SIZE[:n].tolist(), strict=True)) == expected


@pytest.mark.parametrize("text, code", [
    (b"", lv.MALFORMED), (b"{}", lv.MALFORMED), (b"null", lv.MALFORMED), (b"[", lv.MALFORMED), (b'[{"price":"0.5"', lv.MALFORMED),
    (b'[{"price":"0.5"}]', lv.BAD_VALUE), (b'[{"price":"0.5","size":"x"}]', lv.BAD_VALUE), (b'[{"price":"0","size":"1"}]', lv.BAD_VALUE),
    (b'[{"price":"1","size":"1"}]', lv.BAD_VALUE), (b'[{"price":"0.50001","size":"1"}]', lv.BAD_VALUE),
    (b'[{"price":"0.5","size":"1.0000001"}]', lv.BAD_VALUE), (b'[{"price":"0.5","size":"-1"}]', lv.BAD_VALUE),
    (b'[{"price":"0.5","size":"1e3"}]', lv.BAD_VALUE), (b'[{"price":"0.5","size":"1"}', lv.MALFORMED),
    (b'[{"price":"0.\\u0035","size":"1"}]', lv.MALFORMED), (b'[{"price":"0.5","size":{"a":1}}]', lv.MALFORMED),
    (b'[{"price":"0.5","size":"' + b"9" * 30 + b'"}]', lv.BAD_VALUE)])
def test_refusals(text, code):
    assert scan(text) == code


def test_other_keys_are_passed_over_and_an_empty_list_is_empty():
    assert scan(b' [ ] ') == 0
    assert scan(b'[{"n":3,"price":"0.25","note":"x, } y","size":"7"}]') == 1
    assert (PX[0], SIZE[0]) == (2500, 7_000_000)


def test_too_many_levels_are_refused():
    text = b"[" + b",".join([b'{"price":"0.5","size":"1"}'] * 5) + b"]"
    assert scan(text, np.zeros(4, np.int64), np.zeros(4, np.int64)) == lv.TOO_MANY
