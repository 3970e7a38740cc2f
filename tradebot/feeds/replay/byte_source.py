"""Opens and reads replay input: a file, or standard input and other pipes.

The only blocking call of the replay feeds that does not go through the runtime is here: waiting for a pipe. The
simulator has no pipes, and files never block.
"""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Iterator
from typing import Final

from tradebot.core.errors import ConfigError, unreadable
from tradebot.feeds.base import READ_WAIT_S

STANDARD_INPUT: Final = "-"
BLOCK_BYTES: Final = 1 << 16

_STDIN_FD: Final = 0


class FileSource:
    """A regular file as it was when opened: bytes appended later are not read, and `changed` reports any change.

    `total` is its size in bytes, `name` is for messages. Raises ConfigError when a read fails.
    """

    def __init__(self, fd: int, name: str) -> None:
        self.name = name
        self._fd = fd
        self._before = os.fstat(fd)
        self.total = self._before.st_size
        self._closed = False

    def blocks(self) -> Iterator[bytes]:
        """The content from the start, in blocks of at most BLOCK_BYTES, none of them empty. Never blocks."""
        place = 0
        while place < self.total:
            try:
                block = os.pread(self._fd, min(BLOCK_BYTES, self.total - place), place)
            except OSError as error:
                raise unreadable(error, f"{self.name}: cannot be read after byte {place}: {_reason(error)}") from None
            if not block:
                return
            place += len(block)
            yield block

    def changed(self) -> bool:
        """Whether size or modification time of the file have changed since it was opened."""
        now = os.fstat(self._fd)
        return (now.st_size, now.st_mtime_ns) != (self._before.st_size, self._before.st_mtime_ns)

    def close(self) -> None:
        """Close the file. Idempotent."""
        if not self._closed:
            self._closed = True
            os.close(self._fd)


class StreamSource:
    """Standard input, a named pipe or a device: readable once, length unknown. Raises ConfigError when a read fails."""

    total: Final = None

    def __init__(self, fd: int, name: str, *, owns_fd: bool) -> None:
        self.name = name
        self._fd = fd
        self._owns_fd = owns_fd

    def blocks(self) -> Iterator[bytes]:
        """What comes, in blocks of at most BLOCK_BYTES; an empty block when nothing came for READ_WAIT_S. Blocks."""
        place = 0
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        while True:
            try:
                block = os.read(self._fd, BLOCK_BYTES) if poll.poll(READ_WAIT_S * 1000) else None
            except BlockingIOError:
                block = None  # another reader of the same pipe was faster
            except OSError as error:
                raise unreadable(error, f"{self.name}: cannot be read after byte {place}: {_reason(error)}") from None
            if block == b"":
                return
            place += len(block or b"")
            yield block or b""

    def changed(self) -> bool:
        """False: a stream is read only once."""
        return False

    def close(self) -> None:
        """Close the pipe, but leave standard input open. Idempotent."""
        if self._owns_fd:
            self._owns_fd = False
            os.close(self._fd)


Source = FileSource | StreamSource


def open_source(path: str, option: str = "--replay-file") -> Source:
    """Open a replay input; `-` is standard input. Never blocks. Raises ConfigError when it cannot be opened.

    `option` is what names the file on the command line, for messages.
    """
    if path == STANDARD_INPUT:
        try:
            mode = os.fstat(_STDIN_FD).st_mode
        except OSError:
            raise ConfigError("standard input is closed: give a file, or pipe the ticks in") from None
        if stat.S_ISDIR(mode):
            raise ConfigError("standard input is a directory: give a file of JSON lines")
        return StreamSource(_STDIN_FD, "standard input", owns_fd=False)
    try:
        # Without O_NONBLOCK the opening of a named pipe would wait for its writer and hold off a stop.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        hint = f"; check {option}" if isinstance(error, FileNotFoundError) else ""
        raise unreadable(error, f"replay file {path!r}: {_reason(error)}{hint}") from None
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return FileSource(fd, path)
    if stat.S_ISDIR(mode):
        os.close(fd)
        raise ConfigError(f"replay file {path!r}: is a directory; give one file of JSON lines")
    return StreamSource(fd, path, owns_fd=True)


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return str(error)
