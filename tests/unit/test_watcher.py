"""The watcher tells what has changed since it was read, over several segments, in one look; and it tells nothing else."""

import os

import numpy as np
import pytest

from shm_layout import ring, seqlock
from shm_layout.segment import Space
from shm_layout.watcher import MOST, Watcher

RECORD = np.dtype([("beat", "<i8"), ("other", "<i8")])
VALUES, ONE, RING = 3, 0b1000, 0b10000


class Spec:
    record, count, depth = RECORD, VALUES, 4


@pytest.fixture
def space():
    s = Space(f"watcher-{os.getpid()}")
    s.create_missing({"ring": Spec}, {"values": Spec, "one": Spec}, [])
    yield s
    s.wipe()


@pytest.fixture
def ends(space):
    """(writers of the values, of the one, of the ring; the ring's reader; a watcher over all), locks given up in the end."""
    writers = [seqlock.SeqlockWriter(space.own("values")), seqlock.SeqlockWriter(space.own("one")), ring.RingWriter(space.own("ring"))]
    values, one = (seqlock.SeqlockReader(space.attach(name)) for name in ("values", "one"))
    reader = ring.RingReader(space.attach("ring"))
    yield *writers, reader, Watcher([(values, i) for i in range(VALUES)] + [(one, 0)], [reader])
    for w in writers:
        w.segment.release()


def test_each_change_sets_its_own_bit_until_it_was_seen(ends):
    values, one, out, reader, watch = ends
    assert watch.changed() == 0
    for i in range(VALUES):
        watch.seen[i] = values.write(i)
        assert watch.changed() == 0
        version = values.write(i)
        assert watch.changed() == 1 << i, "a second value, not seen yet"
        watch.seen[i] = version
    one.write()
    assert watch.changed() == watch.changed() == ONE, "looking is not seeing"
    values.write(2)
    assert watch.changed() == ONE | 0b100
    watch.seen[:] = -1
    assert watch.changed() == 0b1111, "never seen: to be read, whatever the version is"


def test_a_ring_has_news_until_its_last_record_was_polled(ends):
    _, _, out, reader, watch = ends
    for _ in range(3):
        out.publish()
    for _ in range(3):
        assert watch.changed() == RING
        assert reader.poll()
    assert watch.changed() == 0 and not reader.poll()
    for _ in range(20):                 # lapped several times
        out.publish()
    assert watch.changed() == RING
    while reader.poll():
        pass
    assert watch.changed() == 0


def test_the_newest_record_again_is_news(ends):
    """A reader may set its cursor back by hand, to begin with the newest record."""
    _, _, out, reader, watch = ends
    out.publish()
    reader.poll()
    reader.link[ring.CURSOR] -= 1
    assert watch.changed() == RING and reader.poll() and watch.changed() == 0


def test_a_new_owner_of_a_segment_is_seen(space, ends):
    values, _, out, reader, watch = ends
    watch.seen[0] = values.write(0)
    values.segment.release()
    successor = seqlock.SeqlockWriter(space.own("values"))
    assert watch.changed() == 0
    successor.write(0)
    assert watch.changed() == 1
    successor.segment.release()


def test_what_cannot_be_watched_is_refused(space):
    reader = seqlock.SeqlockReader(space.attach("values"))
    for index in (-1, VALUES):
        with pytest.raises(IndexError):
            Watcher([(reader, index)])
    with pytest.raises(ValueError, match=str(MOST)):
        Watcher([(reader, 0)] * (MOST + 1))
    full = Watcher([(reader, 0)] * MOST)
    full.seen[-1] = -1
    assert full.changed() == 1 << MOST - 1


def test_words_outlive_the_names_of_their_readers(space):
    """The watcher alone keeps what it looks at mapped."""
    writer = seqlock.SeqlockWriter(space.own("one"))
    watch = Watcher([(seqlock.SeqlockReader(space.attach("one")), 0)])
    for _ in range(3):
        np.zeros(1 << 16).sum()
    writer.write()
    assert watch.changed() == 1
    writer.segment.release()
