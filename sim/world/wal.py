"""SQLite's write-ahead log as bytes: where each commit in it ends, and how much of it a checkpoint has synced. Pure.

The formats are those of https://www.sqlite.org/walformat.html: a header of 32 bytes, then frames of 24 bytes and one
page each; the index in shared memory begins with a header that names the last valid frame.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24
_INDEX_BYTES: Final = 136
_SECTOR_BYTES: Final = 512


class WalPosition(NamedTuple):
    """A position in the log: the salts of its generation (they change when SQLite restarts the log), and an offset."""

    salts: bytes
    end: int


class Wal(NamedTuple):
    """A log with a header. `ends` are the end offsets of its commits, in order; `first`: never restarted."""

    salts: bytes
    page_bytes: int
    first: bool
    ends: tuple[int, ...]

    def frame_end(self, frames: int) -> int:
        """The offset behind that many frames."""
        return HEADER_BYTES + frames * (_FRAME_HEADER_BYTES + self.page_bytes)


def read_wal(content: bytes | memoryview) -> Wal | None:
    """The log in `content`; None when there is no whole header. Frames of earlier generations do not count."""
    if len(content) < HEADER_BYTES:
        return None
    _magic, _version, page_bytes, number = struct.unpack(">4I", content[:16])
    salts = bytes(content[16:24])
    frame_bytes = _FRAME_HEADER_BYTES + page_bytes
    ends = []
    for start in range(HEADER_BYTES, len(content) - frame_bytes + 1, frame_bytes):
        _page, pages_after = struct.unpack(">2I", content[start : start + 8])
        if bytes(content[start + 8 : start + 16]) != salts:
            break
        if pages_after:
            ends.append(start + frame_bytes)
    return Wal(salts, page_bytes, number == 0, tuple(ends))


class Index(NamedTuple):
    """The shared-memory index of the log: its generation, its valid frames, and the checkpointed ones."""

    salts: bytes
    frames: int
    backfilled: int


def read_index(content: bytes) -> Index | None:
    """The index; None when it was never filled in."""
    if len(content) < _INDEX_BYTES or not content[12]:
        return None
    (frames,) = struct.unpack("=I", content[16:20])
    (backfilled,) = struct.unpack("=I", content[96:100])
    return Index(content[32:40], frames, backfilled)


def torn(content: bytes | memoryview, cut: int, end: int, style: int, first: bool) -> bytes:
    """The log if the bytes from `cut` to `end` did not completely reach the disk: their commit is lost.

    `style` 0: none of the bytes; 1: all but one sector of the first frame; 2: the first half. If the log was restarted
    (not `first`), its file had the same length before, so missing bytes are zeros.
    """
    rest = bytearray(content[cut:])
    lost_bytes = end - cut
    if style == 1 and lost_bytes > _SECTOR_BYTES:
        rest[:_SECTOR_BYTES] = bytes(_SECTOR_BYTES)
        return bytes(content[:cut]) + bytes(rest)
    kept = lost_bytes // 2 if style == 2 else 0
    missing = 0 if first else len(rest) - kept
    return bytes(content[:cut]) + bytes(rest[:kept]) + bytes(missing)
