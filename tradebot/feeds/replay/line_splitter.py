"""Splits bytes in pieces of any size into lines of bounded length. Pure and incremental."""

from __future__ import annotations

from typing import Final, NamedTuple

LINE_BYTES_MAX: Final = 1 << 20
"""Longest line, without its line end."""

BOM: Final = b"\xef\xbb\xbf"
# A line still without its end is given up only when it is too long even with both of these taken off.
_PENDING_BYTES_MAX: Final = LINE_BYTES_MAX + len(BOM) + len(b"\r")
TOO_LONG: Final = f"longer than {LINE_BYTES_MAX} bytes"


class Cut(NamedTuple):
    """Whole lines, each with its LF (maybe none), and whether the line after them is too long and will be left out."""

    block: bytes
    too_long: bool


class LineCutter:
    """Feed it the bytes of a file in any pieces. Memory: one line and the piece at hand."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._skipping = False

    def feed(self, data: bytes) -> Cut:
        """What `data` completes. Never raises; never blocks."""
        if self._skipping:
            end = data.find(b"\n") + 1
            if end == 0:
                return Cut(b"", False)
            self._skipping = False
            data = data[end:]
        block = b""
        end = data.rfind(b"\n") + 1
        if end:
            block = bytes(self._pending) + data[:end] if self._pending else data[:end]
            self._pending = bytearray(data[end:])
        else:
            self._pending += data
        too_long = len(self._pending) > _PENDING_BYTES_MAX
        if too_long:
            self._pending = bytearray()
            self._skipping = True
        return Cut(block, too_long)

    def rest(self) -> bytes:
        """The last line if it had no line end, else empty. Nothing may be fed afterwards."""
        rest, self._pending = bytes(self._pending), bytearray()
        return rest
