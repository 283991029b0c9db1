"""Exact numbers from a venue's text: decimal strings to integers, hex and uuid ids to words.

Owns: the rule that money never passes through a float. Reads and writes nothing.
Can go wrong: text that is no such number raises BadValue, which names it; nothing is rounded.
"""

import hashlib

from shm_layout.records import ID_WORDS, UUID_WORDS, id_words

_POW10 = tuple(10 ** i for i in range(41))
_CACHE_LIMIT = 50_000


class BadValue(ValueError):
    """A value in a venue's message that cannot be what it should be; the text names it."""


def scaled(text: str, digits: int) -> int:
    """``text`` times 10**digits as an exact integer: scaled("0.0375", 4) == 375.

    Plain non-negative decimals only (``12``, ``0.5``, ``.5``, ``5.``); zeros beyond ``digits`` are allowed, other digits there are not.
    Errors: BadValue.
    """
    whole, _, frac = text.partition(".")
    if len(frac) > digits:
        if frac[digits:].strip("0"):
            raise BadValue(f"{text[:60]!r} has more than {digits} decimals")
        frac = frac[:digits]
    joined = whole + frac
    if not (joined.isdigit() and joined.isascii()) or len(text) > 78:
        raise BadValue(f"{text[:60]!r} is not a plain decimal number")
    return int(joined) * _POW10[digits - len(frac)]


def size_u6(text: str) -> int:
    """Shares or dollars in 1e-6, exactly. Errors: BadValue, also beyond 1e12 shares."""
    value = scaled(text, 6)
    if value >= 10 ** 18:
        raise BadValue(f"size {text[:60]!r} is out of range")
    return value


def words_of_decimal(text: str) -> list[int]:
    """A 256-bit id written in decimal (a token) as words. Errors: BadValue."""
    value = scaled(text, 0)
    if value >> 256:
        raise BadValue(f"id {text[:90]!r} has more than 256 bits")
    return id_words(value)


def words_of_hex(text: str) -> list[int]:
    """A 256-bit id written in hex, with or without 0x (a condition, an order digest), as words. Errors: BadValue."""
    digits = text[2:] if text[:2] in ("0x", "0X") else text
    try:
        if not digits or len(digits) > 64 or not digits.isalnum():
            raise ValueError
        return id_words(int(digits, 16), ID_WORDS)
    except ValueError:
        raise BadValue(f"{text[:80]!r} is not a 256-bit hex id") from None


def words_of_trade(text: str) -> list[int]:
    """A trade id as two words: a uuid's own 128 bits, else the first 128 bits of the SHA-256 of the text (stable, not reversible)."""
    digits = text.replace("-", "")
    if len(text) == 36 and len(digits) == 32:
        try:
            return id_words(int(digits, 16), UUID_WORDS)
        except ValueError:
            pass                    # not hex after all: take the hash
    return id_words(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big"), UUID_WORDS)


def ms_of(stamp: int) -> int:
    """A venue stamp in ms; the venue writes some in seconds."""
    return stamp * 1000 if 0 < stamp < 100_000_000_000 else stamp


class PriceTexts(dict):
    """Price text -> 1e-4 integer 0..10000, remembered: a market has a few hundred price texts and they come thousands of times a second."""

    def __missing__(self, text: str) -> int:
        value = scaled(text, 4)
        if value > 10_000:
            raise BadValue(f"price {text[:60]!r} is above 1")
        if len(self) < _CACHE_LIMIT and len(text) <= 8:
            self[text] = value
        return value
