"""The capture format: the raw frames of a feed with their receive times, as JSON lines, compressed and rotated.

Every file NAME-000001.jsonl.zst begins with a header
`{"tradebot_capture":1,"exchange":...,"symbols":[...],"started_ms":...}`; each other line is a frame:
`{"received_ms":...,"connection":...,"text":...}`, where `connection` counts from 1 and changes with each reconnect.
All files of one capture have the same header. A file that begins in the middle of a connection begins with what its
exchange said to the subscriptions, once more and with the time of the frame after it: some say only there which channel
is which, and each file is to be read on its own.

Each flush appends one whole Zstandard frame, so that the file can be read at any time, also after kill -9, up to the
last flush; at 20 frames a flush that costs a fifth of the compression, at 100 nothing.

The reading side is `frame_of_line`, which also takes lines that are raw frames and nothing else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from tradebot.core.errors import ConfigError, TradebotError
from tradebot.core.events import INT64_MAX
from tradebot.core.private_files import open_private
from tradebot.feeds.exchanges.base import Unparseable

FORMAT_VERSION: Final = 1
SUFFIX: Final = ".jsonl.zst"

PIECE_BYTES: Final = 1 << 18
"""As many bytes of lines are written without waiting for a flush."""

REPEATED_CHARS_MAX: Final = 1 << 20
"""As many characters of answers are remembered for the start of the next file; those after them are not."""

_Count = Annotated[int, Meta(ge=0, le=INT64_MAX)]


class CaptureHeader(Struct, frozen=True, rename={"version": "tradebot_capture"}):
    """The first line of a capture file: what was captured, and when the capture was started (Unix ms)."""

    version: int
    exchange: str
    symbols: tuple[str, ...]
    started_ms: _Count


class Record(Struct, frozen=True, gc=False):
    """One captured frame: when it came (Unix ms), on which connection (from 1), and its text as it was."""

    received_ms: _Count
    connection: _Count
    text: str


class CaptureFailed(TradebotError):
    """A capture file cannot be written any more (disk full). What was flushed before is whole."""


_encode: Final = msgspec.json.Encoder().encode
_record: Final = msgspec.json.Decoder(Record)
_header: Final = msgspec.json.Decoder(CaptureHeader)
_LOOKS_LIKE_OURS: Final = re.compile(rb'\s*\{\s*"(?:received_ms|tradebot_capture)"\s*:')


def decode_record(line: bytes) -> Record | CaptureHeader | None:
    """The capture record or header that a line is, or None: it is something else, a raw frame.

    Fields beyond those known are passed over. Raises Unparseable for a line that begins like a record or header and is
    none, and for a header of another format version.
    """
    decoder: msgspec.json.Decoder[Record] | msgspec.json.Decoder[CaptureHeader]
    if b'"received_ms"' in line:
        decoder = _record
    elif b'"tradebot_capture"' in line:
        decoder = _header
    else:
        return None
    try:
        found = decoder.decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        if _LOOKS_LIKE_OURS.match(line):
            raise Unparseable("damaged line of a capture file") from None
        return None
    if isinstance(found, CaptureHeader) and found.version != FORMAT_VERSION:
        raise Unparseable(
            f"capture format {found.version} is not supported; this version reads format {FORMAT_VERSION}"
        )
    return found


def frame_of_line(line: bytes) -> Record | CaptureHeader | str:
    """What a line (without its LF) of a capture, or of a file of raw frames, holds; a text is a raw frame.

    Raises Unparseable, nothing else.
    """
    line = line.removesuffix(b"\r")
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise Unparseable(f"not UTF-8 (byte {error.start})") from None
    found = decode_record(line)
    return text if found is None else found


class CaptureWriter:
    """Writes frames to NAME-000001.jsonl.zst and on. Used by one thread; blocks as the disk does.

    `path` is a directory that exists, NAME then being the exchange's, or directory/NAME. Numbers continue those of the
    files that are there; none is ever overwritten. At most `files_max` files of that NAME stay, **those of earlier
    captures included**: for each further one the oldest is deleted, so a capture to be kept wants a name of its own. A
    file is at most `bytes_max_a_file` long, unless a single flush is longer. Raises ConfigError when the first file
    cannot be made.
    """

    def __init__(
        self,
        path: Path,
        exchange: str,
        symbols: Sequence[str],
        started_ms: int,
        bytes_max_a_file: int,
        files_max: int,
    ) -> None:
        import zstandard  # here, since few runs need it and it costs memory and start-up time

        if bytes_max_a_file < 1 or files_max < 1:
            raise ValueError("bytes_max_a_file and files_max are at least 1")
        if path.is_dir():
            self._directory, self._name = path, exchange
        else:
            self._directory, self._name = path.parent, path.name.removesuffix(SUFFIX)
        self._compress = zstandard.ZstdCompressor(write_checksum=True).compress
        self._header = _encode(CaptureHeader(FORMAT_VERSION, exchange, tuple(symbols), started_ms)) + b"\n"
        self._bytes_max = bytes_max_a_file
        self._files_max = files_max
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._pending_from_ms = started_ms
        self._connection = 0
        self._repeated: list[str] = []
        self._repeated_flushed = self._repeated_chars = 0
        self._fd: int | None = None
        self._size = self._size_at_start = 0
        self.path = path
        """The file being written."""
        self.frames = 0
        """Frames flushed so far."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._open_next()
        except (OSError, ValueError) as error:
            self._abandon()
            raise ConfigError(f"capture file {self.path}: {_reason(error)}") from None

    def write(self, received_ms: int, connection: int, text: str) -> None:
        """Add a frame. It is in the file after the next flush. Raises CaptureFailed."""
        if connection != self._connection:
            self.flush()
            self._connection = connection
            self._repeated = []
            self._repeated_flushed = self._repeated_chars = 0
        if not self._pending:
            self._pending_from_ms = received_ms
        line = _encode(Record(received_ms, connection, text)) + b"\n"
        self._pending.append(line)
        self._pending_bytes += len(line)
        if self._pending_bytes >= PIECE_BYTES:
            self.flush()

    def repeat(self, text: str) -> None:
        """The frame just written is an answer to a subscription: later files of this connection begin with it."""
        if self._repeated_chars + len(text) <= REPEATED_CHARS_MAX:
            self._repeated.append(text)
            self._repeated_chars += len(text)
            if not self._pending:  # it filled a piece, and is in the file
                self._repeated_flushed = len(self._repeated)

    def flush(self) -> None:
        """Have everything so far in the file; the owner calls it every second. Raises CaptureFailed, closed then."""
        if not self._pending:
            return
        if self._fd is None:
            raise CaptureFailed(f"capture file {self.path}: is closed")
        try:
            piece = self._compress(b"".join(self._pending))
            if self._size > self._size_at_start and self._size + len(piece) > self._bytes_max:
                self._open_next()
            self._append(piece)
        except OSError as error:
            lost = len(self._pending)
            self._abandon()
            raise CaptureFailed(
                f"capture file {self.path}: {_reason(error)}; {self.frames} frames were captured, {lost} are lost"
            ) from None
        self.frames += len(self._pending)
        self._repeated_flushed = len(self._repeated)
        self._forget()

    def close(self) -> None:
        """Flush and close. Idempotent. Raises CaptureFailed; the file is closed then, too."""
        try:
            if self._fd is not None:
                self.flush()
                self._close_file()
        except OSError as error:
            raise CaptureFailed(f"capture file {self.path}: {_reason(error)}") from None
        finally:
            self._abandon()

    def _open_next(self) -> None:
        """Begin the next file, with its header and the frames to repeat. Raises OSError."""
        self._close_file()
        numbers = self._numbers()
        self.path = self._path((numbers[-1] if numbers else 0) + 1)
        for number in numbers[: max(0, len(numbers) + 1 - self._files_max)]:
            self._path(number).unlink(missing_ok=True)
        # O_EXCL: if another capture of that name has just created the same number, this is an error.
        self._fd = open_private(self.path, os.O_WRONLY | os.O_EXCL)
        self._size = 0
        repeated = [
            _encode(Record(self._pending_from_ms, self._connection, text)) + b"\n"
            for text in self._repeated[: self._repeated_flushed]
        ]
        try:
            self._append(self._compress(self._header + b"".join(repeated)))
        except OSError:
            with suppress(OSError):
                self.path.unlink()  # nothing is in it
            raise
        self._size_at_start = self._size

    def _append(self, piece: bytes) -> None:
        """Write one compressed piece whole, or leave the file as it was. Raises OSError."""
        assert self._fd is not None
        view = memoryview(piece)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise
        self._size += len(piece)

    def _numbers(self) -> list[int]:
        pattern = re.compile(rf"{re.escape(self._name)}-(\d{{6}}|[1-9]\d{{6,}}){re.escape(SUFFIX)}", re.ASCII)
        matches = map(pattern.fullmatch, os.listdir(self._directory))
        return sorted(int(match[1]) for match in matches if match)

    def _path(self, number: int) -> Path:
        return self._directory / f"{self._name}-{number:06d}{SUFFIX}"

    def _forget(self) -> None:
        self._pending = []
        self._pending_bytes = 0

    def _close_file(self) -> None:
        if self._fd is not None:
            descriptor, self._fd = self._fd, None
            os.close(descriptor)

    def _abandon(self) -> None:
        self._forget()
        with suppress(OSError):  # whatever is to be said has been said by the write
            self._close_file()


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
