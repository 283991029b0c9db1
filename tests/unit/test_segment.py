"""Life of a segment: creation, checks on attach, the lock, the identity, removal. Children are real processes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import shm_layout
from mmbot import topology
from shm_layout import header as h
from shm_layout import records, ring, segment, seqlock
from shm_layout.atomics import VIEW, WORDS
from shm_layout.segment import SegmentError, Space, alive, start_time, verify, words_dtype

OTHER_LAYOUT = "0123456789abcdef" * 4
CHILD = """
import ctypes, json, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
signal.alarm(60)
from types import SimpleNamespace
from shm_layout.segment import Space, words_dtype, SegmentError
from shm_layout import ring
run, what = sys.argv[1:]
def say(**k): print(json.dumps(k), flush=True)
s = Space(run)
if what == "hold":
    seg = s.own("r"); say(epoch=seg.epoch, pid=os.getpid()); sys.stdin.readline()
elif what == "create":
    say(ready=True); sys.stdin.readline()
    say(made=s.create_missing({f"r{i}": SimpleNamespace(record=words_dtype(4), depth=8) for i in range(30)}, {}, []))
elif what == "die while creating":
    real = os.link
    os.link = lambda *a: os.kill(os.getpid(), signal.SIGKILL)
    s.create_missing({"r": SimpleNamespace(record=words_dtype(4), depth=8)}, {}, [])
elif what == "stray write":
    mem = s.attach("r").mem; say(ready=True); ctypes.memset(mem.ctypes.data + 512, 255, 8); say(survived=True)
"""


def child(run, what):
    return subprocess.Popen([sys.executable, "-c", CHILD, run, what], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def answer(process):
    return json.loads(process.stdout.readline())


def tell(process):
    process.stdin.write("go\n")
    process.stdin.flush()


def stop(*processes):
    for p in processes:
        p.kill()
        p.wait()
        p.stdin.close()
        p.stdout.close()


def ring_of(words=4, depth=8):
    return SimpleNamespace(record=words_dtype(words), depth=depth)


@pytest.fixture
def space():
    s = Space(f"t-seg-{os.getpid()}")
    s.wipe()
    s.create_missing({"r": ring_of()}, {"q": SimpleNamespace(record=records.GUARD, count=2)}, ["core"])
    yield s
    for other in Path("/dev/shm").glob(f"mmbot.{s.run_name}.*"):
        other.unlink()


def poke(space, name, word, value):
    """Change one word of a segment behind everybody's back."""
    with open(space.path(name), "r+b") as f:
        f.seek(word * 8)
        f.write(int(value).to_bytes(8, "little", signed=True))


def test_the_whole_topology_can_be_made_and_is_sound():
    s = Space(f"t-topo-{os.getpid()}")
    try:
        names = [p.name for p in topology.PROCESSES]
        made = s.create_missing(topology.RINGS, topology.SEQLOCKS, names)
        assert set(made) == {*topology.RINGS, *topology.SEQLOCKS, *(f"vitals.{n}" for n in names)} == set(s.segments())
        assert s.create_missing(topology.RINGS, topology.SEQLOCKS, names) == []
        assert all(verify(Space(s.run_name).attach(name)) == [] for name in made)
        assert Space(s.run_name).attach("md.market").record == records.MARKET
        assert set(s.holders().values()) == {0}
        assert sum(s.path(n).stat().st_size for n in made) < 40 << 20       # 32 MB of it: half an hour of decisions
    finally:
        assert len(s.wipe()) == len(made) and s.segments() == []


def test_a_missing_segment_says_how_to_start():
    with pytest.raises(SegmentError, match=r"t-none\..*does not exist.*mmbot up"):
        Space("t-none").attach("r")


@pytest.mark.parametrize("name", ["", "a.b", "UP", "x" * 25, "a/b"])
def test_run_names_that_would_confuse(name):
    with pytest.raises(SegmentError, match="run name"):
        Space(name)


@pytest.mark.parametrize(("word", "value", "text"), [
    (h.W_READY, 0, "never finished"),
    (h.W_MAGIC, 7, "not an mmbot segment"),
    (h.W_ABI, 99, "has ABI 99"),
    (h.W_LAYOUT, 5, "has layout 05000000 inside"),
    (h.W_KIND, 9, "unknown kind 9"),
    (h.W_KIND, h.SEQLOCK, "is a seqlock, this build wants a ring"),
    (h.W_RECORD_BYTES, 24, "records of 24 bytes, this build has 32"),
    (h.W_COUNT, 16, "has 16 slots or entries, this build wants 8"),
    (h.W_STRIDE, 128, "has a stride of 128 bytes, this build wants 64"),
    (h.W_SIZE, 4096, "truncated or grown: 1024 bytes, its header says 4096"),
    (h.W_NAME, 65, "holds records 'A', this build wants ''"),
])
def test_each_header_word_has_its_own_error(space, word, value, text):
    poke(space, "r", word, value)
    with pytest.raises(SegmentError) as e:
        space.attach("r")
    assert text in str(e.value) and str(space.path("r")) in str(e.value) and "mmbot shm wipe" in str(e.value)
    with pytest.raises(SegmentError):
        space.own("r")
    with pytest.raises(SegmentError):
        space.create_missing({"r": ring_of()}, {}, [])


@pytest.mark.parametrize(("word", "value"), [(h.W_COUNT, 0), (h.W_COUNT, 7), (h.W_STRIDE, 8), (h.W_RECORD_BYTES, 1 << 40)])
def test_damage_is_seen_by_who_knows_no_topology(space, word, value):
    poke(space, "r", word, value)
    with pytest.raises(SegmentError):
        Space(space.run_name).attach("r")


def test_a_vitals_page_of_another_build_is_seen_by_who_knows_no_topology(space):
    poke(space, "vitals.core", h.W_NAME + 1, 65)
    with pytest.raises(SegmentError, match="holds records 'vitals .A', this build wants 'vitals "):
        Space(space.run_name).attach("vitals.core")


@pytest.mark.parametrize("size", [0, 8, 511, 513])
def test_truncated(space, size):
    os.truncate(space.path("r"), size)
    with pytest.raises(SegmentError, match=rf"truncated or not a segment, {size} bytes.*mmbot shm wipe"):
        space.attach("r")


def test_cut_in_the_middle(space):
    os.truncate(space.path("r"), 520)
    with pytest.raises(SegmentError, match="truncated or grown: 520 bytes"):
        space.attach("r")


def test_a_topology_that_changed_is_noticed(space):
    with pytest.raises(SegmentError, match="has 8 slots or entries, this build wants 16"):
        Space(space.run_name).create_missing({"r": ring_of(depth=16)}, {}, [])


def test_another_layout_is_named_with_the_command(space):
    other = Space(space.run_name, OTHER_LAYOUT)
    assert other.foreign() == sorted(space.path(n).name for n in space.segments()) and space.foreign() == []
    for call in (lambda: other.attach("r"), lambda: other.create_missing({"r": ring_of()}, {}, [])):
        with pytest.raises(SegmentError) as e:
            call()
        assert all(t in str(e.value) for t in ("01234567", records.LAYOUT_HASH[:8], "mmbot shm wipe"))
    assert len(other.wipe()) == 3 and space.segments() == []


@pytest.mark.parametrize("depth", [0, 1, 3, 100])
def test_ring_depth_must_be_a_power_of_two(depth):
    with pytest.raises(ValueError, match="power of two"):
        Space("t-depth").create_missing({"r": ring_of(depth=depth)}, {}, [])


def test_no_room_is_an_error_now_and_not_a_bus_error_later(space):
    fs = os.statvfs("/dev/shm")
    depth = 1 << (fs.f_blocks * fs.f_frsize // 64).bit_length()          # more than there is at all: refused without allocating
    with pytest.raises(SegmentError, match="bytes and /dev/shm has"):
        space.create_missing({"huge": ring_of(words=4, depth=depth)}, {}, [])
    assert "huge" not in space.segments() and not list(Path("/dev/shm").glob(f"mmbot.{space.run_name}.*~*"))


def test_one_writer(space):
    process = child(space.run_name, "hold")
    try:
        holder = answer(process)
        assert holder["epoch"] == 1 and space.holders() == {"q": 0, "r": holder["pid"], "vitals.core": 0}
        watched = space.attach("r")
        assert alive(watched) and watched.identity == (holder["pid"], start_time(holder["pid"]), 1)
        with pytest.raises(SegmentError, match=f"is owned by pid {holder['pid']}"):
            space.own("r")
        with pytest.raises(SegmentError, match=f"1 segments are in use by pid {holder['pid']}.*mmbot down"):
            space.wipe()
        assert len(space.segments()) == 3
    finally:
        stop(process)
    assert not alive(watched)                # SIGKILL: the kernel let go
    mine = space.own("r")
    assert mine.epoch == 2 and mine.identity[0] == os.getpid() and alive(watched) and not watched.replaced()
    mine.release()
    assert not alive(watched)                # the process lives, but holds no lock
    space.wipe()
    assert watched.replaced()


def test_a_reused_pid_is_not_alive(space):
    space.own("r").release()
    mine = space.own("r")
    poke(space, "r", h.W_START, 1)
    assert not alive(space.attach("r"))
    mine.release()


def test_probes_do_not_keep_an_owner_out(space):
    """holders() takes the lock for microseconds; own() tries again."""
    process = child(space.run_name, "hold")
    try:
        end = time.monotonic() + 20
        while space.holders()["r"] == 0 and time.monotonic() < end:
            pass
        assert answer(process)["epoch"] == 1
    finally:
        stop(process)


def test_two_creators_one_segment():
    run = f"t-race-{os.getpid()}"
    both = [child(run, "create") for _ in range(2)]
    try:
        for p in both:
            answer(p)
        for p in both:
            tell(p)
        made = [name for p in both for name in answer(p)["made"]]
        assert sorted(made) == sorted(f"r{i}" for i in range(30))        # each exactly once
    finally:
        stop(*both)
        assert len(Space(run).wipe()) == 30


def test_a_creator_that_died_leaves_nothing_for_long():
    run = f"t-died-{os.getpid()}"
    process = child(run, "die while creating")
    process.wait()
    stop(process)
    s = Space(run)
    assert len(list(Path("/dev/shm").glob(f"mmbot.{run}.*~*"))) == 1 and s.segments() == []
    assert s.create_missing({"r": ring_of()}, {}, []) == ["r"]
    assert not list(Path("/dev/shm").glob(f"mmbot.{run}.*~*"))
    s.wipe()


def test_a_stray_write_of_a_reader_kills_the_reader(space):
    process = child(space.run_name, "stray write")
    assert answer(process) == {"ready": True} and process.wait() == -11 and process.stdout.read() == ""
    stop(process)
    assert verify(space.attach("r")) == []


def test_a_reader_cannot_write(space):
    seg = space.attach("r")
    with pytest.raises(ValueError, match="read-only"):
        seg.mem[100] = 1
    with pytest.raises(TypeError):
        ring.publish(seg.mem, np.zeros(4, np.int64))
    with pytest.raises(SegmentError, match="attached read-only"):
        ring.RingWriter(seg)
    with pytest.raises(SegmentError, match="is a ring, not a seqlock"):
        seqlock.SeqlockReader(seg)
    assert VIEW.can_convert_to(None, WORDS) is None and WORDS.can_convert_to(None, VIEW) is not None


def test_payloads_of_the_wrong_size_are_refused(space):
    w, q = ring.RingWriter(space.own("r")), seqlock.SeqlockWriter(space.own("q"))
    small = np.zeros(3, np.int64)
    for call in (lambda: ring.publish(w.mem, small), lambda: ring.poll(w.mem, 0, small),
                 lambda: ring.poll_link(w.mem, np.zeros(ring.LINK_WORDS, np.int64), small),
                 lambda: ring.poll_link(w.mem, np.zeros(8, np.int64), w.words), lambda: seqlock.write(q.mem, 0, small),
                 lambda: seqlock.read(q.mem, 0, small)):
        with pytest.raises(ValueError):
            call()
    for index in (-1, 2):
        with pytest.raises(IndexError):
            q.write(index)
        with pytest.raises(IndexError):
            seqlock.SeqlockReader(space.attach("q")).version(index)
    for seg in (w.segment, q.segment):
        seg.release()


def test_seqlock_entries_are_apart(space):
    w, r = seqlock.SeqlockWriter(space.own("q")), seqlock.SeqlockReader(space.attach("q"))
    assert r.read(0) == r.version(1) == seqlock.NEVER_WRITTEN
    for i in range(5):
        w.rec["beat"] = i
        assert w.write(i % 2) == i // 2 + 1
    assert (r.read(0), r.rec["beat"][0], r.read(1), r.rec["beat"][0]) == (3, 4, 2, 3)
    w.segment.release()


def test_ring_readers_and_laps(space):
    w = ring.RingWriter(space.own("r"))
    new, old = ring.RingReader(space.attach("r")), None
    assert ring.head(w.mem) == -1 and not new.poll()
    for i in range(20):
        w.rec["word"][0, 0] = i
        assert w.publish() == i
    old = ring.RingReader(space.attach("r"), from_head=False)
    got = []
    while old.poll():
        got.append(int(old.words[0]))
    assert got == list(range(13, 20))
    assert [ring.poll(w.mem, seq, old.words) for seq in (3, 20, 19)] == [-16, 0, 1]
    assert new.poll() and new.words[0] == 19 and not new.poll()
    assert dict(zip(ring.LINK_FIELDS, new.link.tolist(), strict=False)) == {
        "cursor": 20, "consumed": 1, "lapped_polling": 1, "lapped_reading": 0, "lost": 19, "lag": 0, "lag_max": 19,
        "oldest_unread_age_ns": 0}
    w.segment.release()


def test_lag_and_age_of_a_hung_reader():
    s = Space(f"t-lag-{os.getpid()}")
    try:
        s.create_missing({"o": SimpleNamespace(record=records.ORACLE, depth=8)}, {}, [])
        w, r = ring.RingWriter(s.own("o")), ring.RingReader(s.attach("o"))
        assert ring.backlog(r.segment, 0, 1000) == (-1, 0, 0)
        for i in range(5):
            w.rec["t_pub_ns"] = 100 + i
            w.publish()
        assert ring.backlog(r.segment, 0, 1000) == (4, 5, 900)
        assert ring.backlog(r.segment, 3, 1000) == (4, 2, 897)
        for i in range(20):
            w.rec["t_pub_ns"] = 200 + i
            w.publish()
        assert ring.backlog(r.segment, 0, 1000) == (24, 25, 1000 - 213)      # the oldest that is still there is number 18
        w.segment.release()
    finally:
        s.wipe()


@pytest.mark.parametrize(("stamp", "text"), [(4, "belongs to slot 4"), (803, "head is 9"), (-13, "head is 9"), (802, "head is 9")])
def test_verify_sees_a_damaged_slot(space, stamp, text):
    w = ring.RingWriter(space.own("r"))
    for _ in range(10):
        w.publish()
    assert verify(w.segment) == []
    poke(space, "r", h.DATA + 3 * 8, stamp)
    [problem] = verify(w.segment)
    assert text in problem and "slot 3" in problem
    w.segment.release()


def test_verify_sees_a_damaged_seqlock_and_head(space):
    poke(space, "q", h.DATA, -4)
    assert "entry 0 has version -4" in verify(space.attach("q"))[0]
    poke(space, "r", h.W_HEAD, -7)
    assert "head is -7" in verify(space.attach("r"))[0]


def test_compiled_code_is_cached_per_build(tmp_path, monkeypatch):
    assert shm_layout.CACHE_DIR.name.startswith(records.LAYOUT_HASH[:8] + "-")
    assert os.environ["NUMBA_CACHE_DIR"] == str(shm_layout.CACHE_DIR)
    monkeypatch.setenv("MMBOT_CACHE", str(tmp_path))
    assert shm_layout.cache_dir() == tmp_path / "numba" / shm_layout.CACHE_DIR.name
    old = [tmp_path / "numba" / f"old{i}" for i in range(12)]
    for i, path in enumerate(old):
        path.mkdir()
        os.utime(path, (i, i))
    (tmp_path / "numba" / shm_layout.CACHE_DIR.name).rmdir()
    shm_layout.cache_dir()
    assert [p.exists() for p in old] == [False] * 5 + [True] * 7


def test_a_cache_that_cannot_be_written_falls_back(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("MMBOT_CACHE", str(blocked))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(shm_layout.tempfile, "tempdir", None)
    assert shm_layout.cache_dir().parent == tmp_path / f"mmbot-{os.geteuid()}" / "numba"


def test_the_cache_name_follows_the_sources(tmp_path):
    (tmp_path / "shm_layout").mkdir()
    source = tmp_path / "shm_layout" / "ring.py"
    source.write_text("A = 1\n")
    before = shm_layout.sources_hash(tmp_path)
    source.write_text("A = 2\n")
    assert shm_layout.sources_hash(tmp_path) != before


def test_start_time_of_nobody():
    assert start_time(2**22 + 1) == 0 and start_time(os.getpid()) > 0 and segment.record_name(np.dtype("<i8")) == ""
