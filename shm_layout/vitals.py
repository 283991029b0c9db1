"""One page per process: what it says about itself, readable from outside when it hangs and after it died.

Owns: the layout of the page, the histogram, the writer and the reader. Written by its process alone, read by the CLI, the
guardian and the monitor without any cooperation of that process. Counters, histograms and links start at zero with each new
owner (the epoch says so); the error slots survive, because they are what one wants to read after a crash.

    word 64 (byte 512)
    +--------------------------------------------------------------------------------------------------+
    | STATE    16 words: state, heartbeat_ns, cpu, busy (1/100 %), cycles, cycle_max_ns, stalls,        |
    |          stall_ns (threshold), involuntary switches, -, -, -, name (4 words)                      |
    | EVENTS   64 counters, named by EVENTS                                                             |
    | LINKS    12 x two-cell entry of [ring name 4 words | cursor consumed lapped_polling               |
    |          lapped_reading lost lag lag_max oldest_unread_age_ns]                                    |
    | ERRORS   8 x two-cell entry of [code 4 words | count | first_ns | last_ns | text 15 words]         |
    | HOPS     7 x [count, sum_ns, max_ns, 5 unused | 1152 buckets]                                     |
    +--------------------------------------------------------------------------------------------------+

Single words are atomic; a link row and an error slot have several words that belong together, so each is a two-cell entry of
`seqlock`. The page as a whole is not one moment.

Histogram: log-linear (HdrHistogram's idea). Values below 32 ns have a bucket each; above, each octave up to 2^40 ns has 32
buckets, so a value is known within 1/32. Fixed memory, and counts of several processes simply add. Record latencies from the
intended time (the stamp in the record), or a stall hides the very samples it delayed (coordinated omission).

Can go wrong: two builds with the same records but another page; the page's own fingerprint (PAGE) is part of its header.
"""

import hashlib

import numpy as np
from numba import int64, void

from shm_layout import header as h
from shm_layout.atomics import (WORDS, add_word, kernel, load_relaxed, load_word, load_words, store_relaxed, store_release,
                                store_word)
from shm_layout.ring import LINK_FIELDS
from shm_layout.segment import Form, Segment, SegmentError, alive
from shm_layout.seqlock import entry_words, read_at, write_at

__all__ = ["BOOT", "RUN", "HALT", "STATES", "HOPS", "EVENTS", "BUCKETS", "VitalsWriter", "VitalsReader", "hist_record", "cycle",
           "hop_base", "event_word", "bucket_of", "bucket_bounds", "percentiles", "merge", "alive", "page_form", "SegmentError"]

BOOT, RUN, HALT = 1, 2, 3
STATES = {0: "NONE", BOOT: "BOOT", RUN: "RUN", HALT: "HALT"}
HOPS = ("recv_pub", "pub_poll", "poll_decide", "decide_wake", "wake_send", "send_ack", "recv_send")
#: event counters; append only, at most 64
EVENTS = (
    "frames", "frames_bad", "frames_late", "bytes", "records", "reconnects", "disconnects", "subscribes", "gaps", "suspects",
    "checks_ok", "checks_bad", "requests", "request_errors", "timeouts", "rate_limited", "bells", "bells_failed", "wakes",
    "decisions", "targets", "targets_expired", "orders", "orders_batches", "cancels", "cancel_batches", "rejects", "fills",
    "unknown", "adopted", "reconciles", "reconcile_diffs", "signed", "pool_hits", "pool_misses", "rehearsals", "throttled",
    "beats", "beats_failed", "panics", "allows", "rolls", "journal_writes", "seqlock_busy", "housekeepings", "logs_dropped",
    "freezes", "false_alarms", "probes", "duplicates", "rereads", "late_acks", "reposts", "reversals", "deaf", "halts",
    "post_pauses", "takes", "merges", "redeems", "settlements_failed",
)
EVENTS_MAX, LINKS_MAX, ERRORS_MAX = 64, 12, 8
SUB_BITS = 5                                   # 32 sub-buckets per octave
OCTAVES = 40
BUCKETS = (OCTAVES - SUB_BITS + 1) << SUB_BITS
CODE_BYTES, TEXT_BYTES = 32, 120

# words of the page
_STATE, _HEARTBEAT, _CPU, _BUSY, _CYCLES, _CYCLE_MAX, _STALLS, _STALL_NS, _SWITCHES = range(h.DATA, h.DATA + 9)
_NAME = h.DATA + 12
_EVENTS = h.DATA + 16
_LINKS = _EVENTS + EVENTS_MAX
_LINK_WORDS = h.NAME_WORDS + len(LINK_FIELDS)
_ERRORS = _LINKS + LINKS_MAX * entry_words(_LINK_WORDS)
_CODE_WORDS, _TEXT_WORDS = CODE_BYTES // 8, TEXT_BYTES // 8
_ERROR_WORDS = _CODE_WORDS + 3 + _TEXT_WORDS
_HOPS = _ERRORS + ERRORS_MAX * entry_words(_ERROR_WORDS)
_HOP_HEAD = 8                                  # count, sum_ns, max_ns, 5 unused
_HOP_WORDS = _HOP_HEAD + BUCKETS
_END = _HOPS + len(HOPS) * _HOP_WORDS

assert len(EVENTS) <= EVENTS_MAX and len(set(EVENTS)) == len(EVENTS)
#: fingerprint of the page: event names and positions are no part of LAYOUT_HASH
PAGE = "vitals " + hashlib.sha256(repr((HOPS, EVENTS, LINKS_MAX, ERRORS_MAX, BUCKETS, _END)).encode()).hexdigest()[:8]
_EVENT_WORD = {name: _EVENTS + i for i, name in enumerate(EVENTS)}
_HOP_BASE = {name: _HOPS + i * _HOP_WORDS for i, name in enumerate(HOPS)}


def page_form() -> Form:
    """Form of a vitals segment."""
    return Form.page(_END - h.DATA, PAGE)


def hop_base(name: str) -> int:
    """Word of the histogram of hop ``name``, for `hist_record`. Errors: KeyError."""
    return _HOP_BASE[name]


def event_word(name: str) -> int:
    """Word of event counter ``name``, for `atomics.add_word`. Errors: KeyError."""
    return _EVENT_WORD[name]


@kernel(int64(int64))
def bucket_of(value_ns):
    """Bucket of a value in ns; below 0 counts as 0, at 2^40 ns and above as the last bucket."""
    if value_ns < 32:
        return max(value_ns, 0)
    if value_ns >= 1 << OCTAVES:
        return BUCKETS - 1
    octave, rest = 0, value_ns >> (SUB_BITS + 1)
    while rest:
        rest >>= 1
        octave += 1
    return (octave + 1) * 32 + ((value_ns >> octave) & 31)


@kernel(void(WORDS, int64, int64))
def hist_record(mem, base, value_ns):
    """Count one latency in the histogram at word ``base`` of the own vitals page (`hop_base`)."""
    value_ns = max(value_ns, 0)
    bucket = base + _HOP_HEAD + bucket_of(value_ns)
    store_relaxed(mem, bucket, load_relaxed(mem, bucket) + 1)
    store_relaxed(mem, base + 1, load_relaxed(mem, base + 1) + value_ns)
    if value_ns > load_relaxed(mem, base + 2):
        store_relaxed(mem, base + 2, value_ns)
    store_release(mem, base, load_relaxed(mem, base) + 1)


@kernel(void(WORDS, int64))
def cycle(mem, duration_ns):
    """Count one turn of the own run loop: longest turn, and how many were over the threshold. Catches a stall without load."""
    store_relaxed(mem, _CYCLES, load_relaxed(mem, _CYCLES) + 1)
    if duration_ns > load_relaxed(mem, _CYCLE_MAX):
        store_relaxed(mem, _CYCLE_MAX, duration_ns)
    if duration_ns > load_relaxed(mem, _STALL_NS):
        store_relaxed(mem, _STALLS, load_relaxed(mem, _STALLS) + 1)


def bucket_bounds(bucket: int) -> tuple[int, int]:
    """(least, greatest) value in ns that falls into ``bucket``."""
    octave, sub = max(0, (bucket >> SUB_BITS) - 1), bucket & 31
    if bucket < 32:
        return bucket, bucket
    return (32 + sub) << octave, ((33 + sub) << octave) - 1


def percentiles(counts: np.ndarray, qs) -> list[int]:
    """Values in ns at the fractions ``qs`` (0..1) of a histogram (int64[BUCKETS]): the middle of the bucket of that rank.

    An empty histogram gives zeros. Rank: the smallest value with at least q of all values at or below it.
    """
    total, out = int(counts.sum()), []
    cumulative = np.cumsum(counts)
    for q in qs:
        rank = max(1, -int(-q * total // 1))
        low, high = bucket_bounds(int(np.searchsorted(cumulative, min(rank, total)))) if total else (0, 0)
        out.append((low + high) // 2)
    return out


def merge(histograms) -> np.ndarray:
    """Sum of several histograms (each int64[BUCKETS]); none gives an empty one."""
    return np.sum([np.zeros(BUCKETS, np.int64), *histograms], axis=0, dtype=np.int64)


class VitalsWriter:
    """The page of this process. Starts in state BOOT with all counters at zero and the errors of earlier incarnations kept.

    name: of the process; cpu: where it is pinned, -1 if nowhere; stall_ns: a turn of the loop longer than this is a stall.
    """

    def __init__(self, segment: Segment, name: str, cpu: int = -1, stall_ns: int = 1_000_000):
        segment.expect(h.VITALS, writable=True)
        self.segment, self.mem = segment, segment.mem
        for word in (*range(h.DATA, _LINKS), *range(_HOPS, _END)):
            store_word(self.mem, word, 0)
        for i, word in enumerate(h.text_words(name, h.NAME_WORDS)):
            store_word(self.mem, _NAME + i, word)
        self.links([])
        store_word(self.mem, _STALL_NS, stall_ns)
        store_word(self.mem, _CPU, cpu)
        self._errors = _read_errors(self.mem)
        self.set_state(BOOT)

    def beat(self, now_ns: int) -> None:
        """Heartbeat: ``now_ns`` is CLOCK_MONOTONIC."""
        store_word(self.mem, _HEARTBEAT, now_ns)

    def set_state(self, state: int) -> None:
        """BOOT, RUN or HALT. There is no FAILED: that is for others to see (lock free, or heartbeat old)."""
        store_word(self.mem, _STATE, state)

    def hop(self, name: str, value_ns: int) -> None:
        """Count one latency of hop ``name`` (one of HOPS)."""
        hist_record(self.mem, _HOP_BASE[name], value_ns)

    def event(self, name: str, n: int = 1) -> None:
        """Add ``n`` to an event counter (one of EVENTS)."""
        add_word(self.mem, _EVENT_WORD[name], n)

    def cycle(self, duration_ns: int) -> None:
        """Count one turn of the run loop of ``duration_ns``."""
        cycle(self.mem, duration_ns)

    def busy(self, pct: float) -> None:
        """Share of the time spent working, in percent."""
        store_word(self.mem, _BUSY, round(pct * 100))

    def switches(self, involuntary: int) -> None:
        """Involuntary context switches since the process started."""
        store_word(self.mem, _SWITCHES, involuntary)

    def links(self, rows) -> None:
        """Publish where this process stands in the rings it reads: (ring name, link of its RingReader), at most LINKS_MAX.

        Call RingReader.observe(now_ns) first so that lag and age are of this moment. Rows beyond those given become empty.
        Errors: ValueError if there are more.
        """
        if len(rows) > LINKS_MAX:
            raise ValueError(f"{len(rows)} links, a vitals page has room for {LINKS_MAX}")
        row = np.zeros(_LINK_WORDS, np.int64)
        for i in range(LINKS_MAX):
            row[:] = 0
            if i < len(rows):
                name, link = rows[i]
                row[:h.NAME_WORDS] = h.text_words(name, h.NAME_WORDS)
                row[h.NAME_WORDS:] = link[:len(LINK_FIELDS)]
            write_at(self.mem, _LINKS + i * entry_words(_LINK_WORDS), row)

    def error(self, code: str, text: str, now_ns: int) -> None:
        """Keep an error where a crash cannot take it: one slot per ``code``, with count, first and last time and the last text.

        With ERRORS_MAX codes known, the one seen longest ago makes room. code: up to 32, text: up to 120 utf-8 bytes, cut
        beyond.
        """
        code = h.words_text(h.text_words(code, _CODE_WORDS))
        slots = self._errors
        at = next((i for i, e in enumerate(slots) if e["code"] == code), None)
        if at is None:
            at = next((i for i, e in enumerate(slots) if not e["code"]), None)
            at = min(range(ERRORS_MAX), key=lambda i: slots[i]["last_ns"]) if at is None else at
            slots[at] = {"code": code, "count": 0, "first_ns": now_ns}
        slots[at].update(count=slots[at]["count"] + 1, last_ns=now_ns, text=text)
        e = slots[at]
        row = np.concatenate([h.text_words(code, _CODE_WORDS), np.array([e["count"], e["first_ns"], now_ns], np.int64),
                              h.text_words(text, _TEXT_WORDS)])
        write_at(self.mem, _ERRORS + at * entry_words(_ERROR_WORDS), row)


def _read_errors(mem) -> list[dict]:
    """All ERRORS_MAX slots; an unused one has code ""."""
    row, out = np.zeros(_ERROR_WORDS, np.int64), []
    for i in range(ERRORS_MAX):
        row[:] = 0
        read_at(mem, _ERRORS + i * entry_words(_ERROR_WORDS), row)
        count, first_ns, last_ns = row[_CODE_WORDS:_CODE_WORDS + 3].tolist()
        out.append({"code": h.words_text(row[:_CODE_WORDS]), "count": count, "first_ns": first_ns, "last_ns": last_ns,
                    "text": h.words_text(row[_CODE_WORDS + 3:])})
    return out


def _read_links(mem) -> list[dict]:
    row, out = np.zeros(_LINK_WORDS, np.int64), []
    for i in range(LINKS_MAX):
        row[:] = 0
        read_at(mem, _LINKS + i * entry_words(_LINK_WORDS), row)
        if name := h.words_text(row[:h.NAME_WORDS]):
            out.append({"ring": name, **dict(zip(LINK_FIELDS, row[h.NAME_WORDS:].tolist(), strict=True))})
    return out


class VitalsReader:
    """Reads the page of another process; needs nothing from it."""

    def __init__(self, segment: Segment):
        segment.expect(h.VITALS)
        self.segment, self.mem = segment, segment.mem
        self._page = np.zeros(_END, np.int64)

    def heartbeat_ns(self) -> int:
        """Last heartbeat, CLOCK_MONOTONIC ns; 0 if it never beat. One load, for the guardian's loop."""
        return load_word(self.mem, _HEARTBEAT)

    def state(self) -> int:
        """BOOT, RUN, HALT, or 0 if the page was never owned. One load."""
        return load_word(self.mem, _STATE)

    def snapshot(self) -> dict:
        """Everything on the page.

        name, pid, start, epoch, state (number), state_name, cpu, heartbeat_ns, busy_pct, cycles, cycle_max_ns, stalls, stall_ns,
        involuntary_switches, links: [{ring, cursor, consumed, lapped_polling, lapped_reading, lost, lag, lag_max,
        oldest_unread_age_ns}], events: {name: count}, errors: [{code, count, first_ns, last_ns, text}] newest first,
        hops: {name: int64[BUCKETS]}, hop_max_ns: {name: ns}, hop_sum_ns: {name: ns}.
        """
        pid, start, epoch = self.segment.identity
        page = self._page
        load_words(self.mem, 0, page)
        state = int(page[_STATE])
        errors = sorted((e for e in _read_errors(self.mem) if e["code"]), key=lambda e: -e["last_ns"])
        return {
            "name": h.words_text(page[_NAME:_NAME + h.NAME_WORDS]), "pid": pid, "start": start, "epoch": epoch, "state": state,
            "state_name": STATES.get(state, "?"), "cpu": int(page[_CPU]), "heartbeat_ns": int(page[_HEARTBEAT]),
            "busy_pct": int(page[_BUSY]) / 100, "cycles": int(page[_CYCLES]), "cycle_max_ns": int(page[_CYCLE_MAX]),
            "stalls": int(page[_STALLS]), "stall_ns": int(page[_STALL_NS]), "involuntary_switches": int(page[_SWITCHES]),
            "links": _read_links(self.mem), "errors": errors,
            "events": {name: int(page[word]) for name, word in _EVENT_WORD.items()},
            "hops": {name: page[b + _HOP_HEAD:b + _HOP_WORDS].copy() for name, b in _HOP_BASE.items()},
            "hop_max_ns": {name: int(page[b + 2]) for name, b in _HOP_BASE.items()},
            "hop_sum_ns": {name: int(page[b + 1]) for name, b in _HOP_BASE.items()},
        }
