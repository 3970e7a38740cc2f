"""The spill file beside the database: where accepted events go while the database stays locked or full.

Its room is reserved at start (allocated, filled with zeros), so that a disk that fills up later cannot take it away.
`tradebot.store.spill_format` has the format, `tradebot.store.adoption` stores what an earlier run left in one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from tradebot.core.errors import ConfigError
from tradebot.core.events import StoredEvent
from tradebot.core.private_files import open_private, sync_directory
from tradebot.store.batch import StoredCounts
from tradebot.store.database import beside
from tradebot.store.spill_format import (
    BYTES_AN_EVENT,
    HEADER_START,
    DamagedSpill,
    SpillReader,
    end_line,
    event_lines,
    header_line,
)

SPILL_MAX_MB: Final = 256
_RESERVE_BYTES_MAX: Final = 64 * 1024 * 1024
_ZEROS: Final = bytes(1024 * 1024)


def spill_path(db_path: Path) -> Path:
    """Where the spill file of a database lies."""
    return beside(db_path, ".spill")


class Spill:
    """Appends events to the reserved file. Used by the persist thread; may block as the disk does."""

    def __init__(self, path: Path, reserve_events: int, max_mb: int = SPILL_MAX_MB) -> None:
        """Reserve room for `reserve_events` events (bounded). Raises OSError when the disk has no room for it.

        The file never grows beyond `max_mb` MiB. Up to half of that, and no more than the reserve, is kept for the end
        of a run: what is on its way through the engine when the file is full must find room in it.
        """
        self.path = path
        self.events = 0
        self.used = False
        self.size = 0
        """Bytes written and on disk: a reader may read so far."""
        self._size_max = max_mb * 1024 * 1024
        self._reserve = min(_RESERVE_BYTES_MAX, self._size_max, BYTES_AN_EVENT * max(1, reserve_events))
        self._size_max_before_end = self._size_max - min(self._reserve, self._size_max // 2)
        self._file = os.fdopen(open_private(path, os.O_WRONLY | os.O_TRUNC), "wb", buffering=0)
        self._descriptor = self._file.fileno()
        try:
            os.posix_fallocate(self._descriptor, 0, self._reserve)
            sync_directory(path.parent)
        except OSError:
            with suppress(OSError):  # the first error is the one to report
                self.close()  # gives back what there was room for: the database needs it more
            raise

    def begin(self, run_id: str, counts: StoredCounts, events: Sequence[StoredEvent] = ()) -> None:
        """Write the header and the first events, and have them on disk. Raises OSError: then the file is as before."""
        self._write(header_line(run_id, counts) + event_lines(events))
        self.used = True
        self.events = len(events)

    def append(self, events: Sequence[StoredEvent], at_end: bool = False) -> None:
        """Write events and have them on disk. Raises OSError: then none of them is in the file.

        The error is EFBIG when the file would grow beyond its bound. `at_end`: the feed has stopped, so that they may
        take the room that is kept until then.
        """
        lines = event_lines(events)
        size_max = self._size_max if at_end else self._size_max_before_end
        if self.size + len(lines) > size_max:
            raise OSError(
                errno.EFBIG,
                f"holds {self.size:,} bytes; persist.spill_max_mb allows {size_max:,}"
                + ("" if at_end else f" and keeps {self._size_max - size_max:,} for the end of the run"),
            )
        self._write(lines)
        self.events += len(events)

    def reset(self) -> None:
        """Make the file an unused reserve again: everything in it is stored. Raises OSError.

        The header goes first, so that a kill or a power loss in between leaves a file that is either whole or empty.
        """
        written = self.size
        self._zero(0, min(written, BYTES_AN_EVENT))
        os.fdatasync(self._descriptor)
        self.size = self.events = 0
        self.used = False
        self._zero(0, min(written, self._reserve))
        os.ftruncate(self._descriptor, self._reserve)
        os.fdatasync(self._descriptor)

    def finish(self) -> None:
        """Mark the end, give unused room back, and close. Raises the first OSError, after it has done all it could."""
        if self._file.closed:
            return
        steps: list[Callable[[], None]] = []
        if self.used:
            steps = [
                lambda: self._write(end_line(self.events)),
                lambda: os.ftruncate(self._descriptor, self.size),
                lambda: os.fsync(self._descriptor),
            ]
        _do_all([*steps, self.close])

    def close(self) -> None:
        """Close; an unused reserve is deleted. Idempotent. Raises the first OSError, after it has done all it could."""
        if self._file.closed:
            return
        steps: list[Callable[[], None]] = [self._file.close]
        if not self.used:
            steps.append(lambda: self.path.unlink(missing_ok=True))
        _do_all(steps)

    def _write(self, lines: bytes) -> None:
        view, at = memoryview(lines), self.size
        try:
            while view:
                written = os.pwrite(self._descriptor, view, at)
                at += written
                view = view[written:]
            os.fdatasync(self._descriptor)
        except OSError:
            with suppress(OSError):  # the first error is the one to report
                os.ftruncate(self._descriptor, max(self.size, self._reserve))
                self._zero(self.size, min(at, self._reserve))
            raise
        self.size = at

    def _zero(self, start: int, end: int) -> None:
        while start < end:
            start += os.pwrite(self._descriptor, _ZEROS[: end - start], start)


def _do_all(steps: list[Callable[[], None]]) -> None:
    """Do every step, whether or not one before it failed. Raises the first OSError."""
    failure: OSError | None = None
    for step in steps:
        try:
            step()
        except OSError as error:
            failure = error if failure is None else failure
    if failure is not None:
        raise failure


class SpillProbe(NamedTuple):
    """What a look at a spill file found: its size where it holds events (None: none wait), and whose it is."""

    waiting_bytes: int | None
    foreign: bool = False
    """It does not begin as tradebot wrote it."""


def probe_spill(path: Path) -> SpillProbe:
    """Whether events wait in a spill file, by its first bytes. An empty reserve, and a file that is gone, hold none."""
    try:
        if not path.is_file():  # opening a fifo would wait for a writer
            return SpillProbe(None)
        with path.open("rb") as file:
            start, size = file.read(len(HEADER_START)), os.fstat(file.fileno()).st_size
    except OSError:  # adopted by a start at this moment, or not for us to read
        return SpillProbe(None)
    return SpillProbe(None) if start[:1] in (b"", b"\0") else SpillProbe(size, foreign=start != HEADER_START)


def waiting_run(path: Path) -> str | None:
    """The run of which events wait in a spill file; None when none do. May be called while it is being written.

    Raises ConfigError when that is not known: the file cannot be read, or does not begin as tradebot wrote it.
    """
    try:
        reader = SpillReader(path)
        reader.close()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"spill file {path}: {error.strerror}; correct this, or move the file elsewhere") from error
    except DamagedSpill as error:
        raise ConfigError(f"spill file {path}: {error}; the next start of the engine sets it aside") from error
    return None if reader.header is None else reader.header.run_id
