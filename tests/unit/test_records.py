"""Layout of the shared records and of a segment's header."""

import numpy as np
import pytest

from shm_layout import header as h
from shm_layout import records as r


def leaves(dtype, at=0):
    """(offset, base dtype) of every number in a record."""
    if dtype.subdtype:
        base, shape = dtype.subdtype
        for i in range(int(np.prod(shape))):
            yield from leaves(base, at + i * base.itemsize)
    elif dtype.fields:
        for sub, offset in ((f[0], f[1]) for f in dtype.fields.values()):
            yield from leaves(sub, at + offset)
    else:
        yield at, dtype


@pytest.mark.parametrize("name", sorted(r._REGISTRY))
def test_every_word_of_a_record_is_one_aligned_number(name):
    found = list(leaves(r._REGISTRY[name]))
    assert [at for at, _ in found] == list(range(0, r._REGISTRY[name].itemsize, 8))
    assert {dt for _, dt in found} <= {np.dtype("<i8"), np.dtype("<f8")}


def test_a_record_with_a_hole_or_a_narrow_field_is_refused():
    with pytest.raises(AssertionError):
        r._record("BAD", [("a", "<i4"), ("b", "<i4")], 8)
    with pytest.raises(AssertionError):
        r._record("BAD", [("a", "<i8")], 16)
    assert "BAD" not in r._REGISTRY


def test_ids_survive_the_way_into_words_and_back():
    for value in (0, 1, 2**63, 2**64 - 1, 2**255 + 12345, 2**256 - 1):
        words = r.id_words(value)
        assert all(-(2**63) <= w < 2**63 for w in words)
        assert r.id_value(np.array(words, np.int64)) == value


def test_slots_of_neighbouring_windows_differ():
    for duration in (300, 900):
        slots = [r.slot_of(1775028600 // 900 * 900 + i * duration, duration) for i in range(8)]
        assert slots[:4] == slots[4:] and len(set(slots)) == 4
    assert {r.slot_of(0, 900) // 4, r.slot_of(0, 300) // 4} == {0, 1}
    assert r.window_of(r.market_id(1775028600, 900)) == (1775028600, 900)


def test_words_of_different_writers_and_rhythms_are_a_block_apart():
    assert h.W_READY < 16 <= h.W_EPOCH < h.W_START < 32 <= h.W_HEAD < 48
    assert h.DATA * 8 % 128 == 0
    assert [h.lines(n) for n in (1, 8, 9, 16)] == [8, 8, 16, 16]


def test_text_in_words_is_cut_at_a_character():
    assert h.words_text(h.text_words("grün", 4)) == "grün"
    assert h.words_text(h.text_words("ä" * 10, 1)) == "ääää"
    assert h.words_text(h.text_words("xää", 0)) == ""
    assert h.words_text(np.array([-1], np.int64))                # rubbish becomes text, never an error
