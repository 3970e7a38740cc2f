"""Frames that could not be understood, kept for a person to look at: a small file beside the database.

One JSON object a line: `received_ms`, `reason`, `bytes` (the frame's real length in UTF-8) and the frame's first
FRAME_BYTES_MAX bytes, as `text` or, when it is no UTF-8, as `base64`. A full file is renamed to `.1`, over the one
before it, so that at most twice `bytes_max` is on disk, always with the newest frames.
"""

from __future__ import annotations

import base64
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from tradebot.core.private_files import open_private
from tradebot.store.database import beside

BYTES_MAX: Final = 1 << 20
FRAME_BYTES_MAX: Final = 4096
REASON_CHARS_MAX: Final = 500

# Longer than any line: every byte of frame and reason may need six to be written (\u0000).
_LINE_BYTES_MAX: Final = 1 << 15


def quarantine_path(db_path: Path) -> Path:
    """Where the quarantine file of a database lies."""
    return beside(db_path, ".quarantine.jsonl")


class Quarantine:
    """Appends frames to the file, which is made with the first of them. One thread (ingest); blocks as the disk does.

    `bytes_max` is at least 32 KiB. `error` is why the last frame could not be kept, or None.
    """

    def __init__(self, path: Path, bytes_max: int = BYTES_MAX) -> None:
        if bytes_max < _LINE_BYTES_MAX:
            raise ValueError(f"bytes_max {bytes_max} is below {_LINE_BYTES_MAX}")
        self.path = path
        self.error: str | None = None
        self._bytes_max = bytes_max
        self._fd: int | None = None

    def keep(self, frame: str | bytes, received_ms: int, reason: str) -> str | None:
        """Append a frame. Returns an error message for the first failure after a success.

        Never raises on disk errors: the feed continues without the frame, and the next frame is tried again.
        """
        line = _line(frame, received_ms, reason)
        try:
            self._append(line)
        except OSError as error:
            first = self.error is None
            self.error = f"quarantine file {self.path}: {error.strerror or error}; malformed frames are not saved"
            return self.error if first else None
        self.error = None
        return None

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._fd is not None:
            descriptor, self._fd = self._fd, None
            os.close(descriptor)

    def _append(self, line: bytes) -> None:
        if self._fd is None:
            self._fd = self._open()
        size = os.fstat(self._fd).st_size
        if size + len(line) > self._bytes_max:
            self.close()
            os.replace(self.path, f"{self.path}.1")
            self._fd, size = self._open(), 0
        rest = line
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, size)  # no half line
            raise

    def _open(self) -> int:
        return open_private(self.path, os.O_WRONLY | os.O_APPEND)


def _line(frame: str | bytes, received_ms: int, reason: str) -> bytes:
    data = frame.encode("utf-8", "backslashreplace") if isinstance(frame, str) else frame
    record: dict[str, int | str] = {
        "received_ms": received_ms,
        "reason": reason[:REASON_CHARS_MAX],
        "bytes": len(data),
    }
    start = data[:FRAME_BYTES_MAX]
    try:
        data.decode()
    except UnicodeDecodeError:
        record["base64"] = base64.b64encode(start).decode("ascii")
    else:
        record["text"] = start.decode("utf-8", "ignore")  # the cut may go through a character
    return json.dumps(record, separators=(",", ":")).encode("ascii") + b"\n"
