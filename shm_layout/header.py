"""The first 512 bytes of every segment: what it is, who writes it, how far it has come.

Owns: word offsets and codes; nothing else in the project knows where a header word is. Written once by the creator (block 0),
then by the owner of the segment alone (blocks 1 and 2). Read by everybody. Words are int64; a block is 128 bytes (two cache
lines, because neighbouring lines are fetched in pairs), so words of different rhythm never share one.

    word   block 0: description, constant once READY is set      block 1 (byte 128): who writes
           +---------------------------------------------+       +-----------------------------------------+
      0    | MAGIC                                       |   16  | EPOCH   counts owners, 1 is the first    |
      1    | ABI                                         |   17  | PID     0 while nobody ever owned it     |
      2-5  | LAYOUT  LAYOUT_HASH, 256 bits               |   18  | START   /proc/<pid>/stat field 22, ticks |
      6    | KIND    RING, SEQLOCK, VITALS               |       +-----------------------------------------+
      7    | RECORD_BYTES                                |       block 2 (byte 256): how far
      8    | COUNT   slots of a ring, entries of seqlock |       +-----------------------------------------+
      9    | STRIDE  bytes from one slot to the next     |   32  | HEAD    last published number, -1 = none |
      10   | SIZE    bytes of the whole segment          |       +-----------------------------------------+
      11-14| NAME    of the record type, utf-8           |       block 3 (byte 384): unused
      15   | READY   1, written last                     |       byte 512 = word 64: DATA, slots or entries
           +---------------------------------------------+

Can go wrong: nothing here; `segment` checks each word on attach and says which one is off.
"""

import numpy as np

from shm_layout import records

MAGIC = 0x31304D54_4F424D4D          # "MMBOTM01" in memory order
ABI = records.ABI
RING, SEQLOCK, VITALS = 1, 2, 3
KINDS = {RING: "ring", SEQLOCK: "seqlock", VITALS: "vitals"}

W_MAGIC, W_ABI, W_LAYOUT, W_KIND, W_RECORD_BYTES, W_COUNT, W_STRIDE, W_SIZE, W_NAME, W_READY = 0, 1, 2, 6, 7, 8, 9, 10, 11, 15
W_EPOCH, W_PID, W_START = 16, 17, 18
W_HEAD = 32
DATA = 64
LAYOUT_WORDS, NAME_WORDS = 4, 4
LINE_WORDS = records.CACHE_LINE // 8


def lines(words: int) -> int:
    """``words`` rounded up to whole cache lines, in words."""
    return -(-words // LINE_WORDS) * LINE_WORDS


def hash_words(layout_hash: str) -> np.ndarray:
    """A 64 digit hex hash as 4 int64 words."""
    return np.frombuffer(bytes.fromhex(layout_hash), "<i8")


def text_words(text: str, words: int) -> np.ndarray:
    """``text`` as utf-8 in ``words`` int64 words, cut at a character border, zero-filled."""
    raw = text.encode()[:words * 8].decode(errors="ignore").encode()
    return np.frombuffer(raw.ljust(words * 8, b"\0"), "<i8")


def words_text(words: np.ndarray) -> str:
    """The text that `text_words` stored; never raises."""
    return words.tobytes().rstrip(b"\0").decode(errors="replace")
