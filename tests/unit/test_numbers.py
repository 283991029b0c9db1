"""Exact numbers from venue text: money never passes through a float, and nothing is rounded."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmbot.venues.numbers import BadValue, PriceTexts, ms_of, scaled, size_u6, words_of_decimal, words_of_hex, words_of_trade
from shm_layout import records as r

plain = st.builds(lambda a, b: f"{a}.{b}" if b else a, st.integers(0, 10**11).map(str), st.text("0123456789", max_size=6))


@given(plain)
def test_sizes_are_exact(text):
    assert size_u6(text) == int(Decimal(text) * 10**6)


@pytest.mark.parametrize("text, e4", [("0.51", 5100), ("0.0375", 375), (".48", 4800), ("0.5100000", 5100), ("1", 10000), ("0", 0)])
def test_prices(text, e4):
    assert PriceTexts()[text] == e4


def test_price_texts_are_remembered_and_bounded():
    texts = PriceTexts()
    assert texts["0.51"] == 5100 and "0.51" in texts
    assert texts["0.510000000"] == 5100 and "0.510000000" not in texts


@pytest.mark.parametrize("text", ["0.00005", "1.01", "-0.5", "0.5e1", "nan", "", ".", "0x1", "1_0", " 0.5", "0.5\n", "٠.٥", "0.5.1", "inf"])
def test_bad_prices_are_refused(text):
    with pytest.raises(BadValue):
        PriceTexts()[text]


@pytest.mark.parametrize("text", ["1.0000001", "1000000000000", "-1", "1e6", "9" * 300])
def test_bad_sizes_are_refused(text):
    with pytest.raises(BadValue):
        size_u6(text)


@given(st.integers(0, 2**256 - 1))
def test_ids_become_words_and_back(value):
    assert r.id_value(words_of_decimal(str(value))) == value
    assert r.id_value(words_of_hex(f"0x{value:064x}")) == value


@pytest.mark.parametrize("text", ["0x", "", "0x" + "g" * 64, "0x" + "1" * 65, "0x1_0", "-0x1"])
def test_bad_hex_ids_are_refused(text):
    with pytest.raises(BadValue):
        words_of_hex(text)


def test_a_decimal_id_beyond_256_bits_is_refused():
    with pytest.raises(BadValue):
        words_of_decimal(str(2**256))


def test_trade_ids_are_two_words_and_stable():
    uuid = "b3f6f8b2-6c57-4a44-9a3c-0f8c1f5b7d10"
    assert r.id_value(words_of_trade(uuid)) == int(uuid.replace("-", ""), 16)
    odd = words_of_trade("trade-0xabcdef1234")
    assert odd == words_of_trade("trade-0xabcdef1234") != words_of_trade("trade-0xabcdef1235")
    assert len(odd) == r.UUID_WORDS


def test_stamps_in_seconds_become_milliseconds():
    assert ms_of(1793000000) == ms_of(1793000000000) == 1793000000000
    assert scaled("5.", 6) == 5_000_000
