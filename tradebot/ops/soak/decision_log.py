"""The supervisor's decisions: a JSON object a line, on disk before anything else happens, in files of bounded size."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO, Any, Final, Literal

import msgspec
from msgspec import Struct

from tradebot.core.errors import ConfigError, UsageError
from tradebot.core.private_files import open_private
from tradebot.ops.soak.psi import Pressure
from tradebot.ops.soak.reasons import Cause, Obstacle, SkipReason
from tradebot.output.redaction import escape
from tradebot.store.database import beside

SUFFIX: Final = ".decisions.jsonl"
BYTES_MAX: Final = 16 * 1024 * 1024
"""When a file has grown so large it becomes FILE.1, that one FILE.2 and so on."""
FILES_KEPT: Final = 4
"""Old files beside the one that is written: about a week of decisions every five seconds."""

_BEGINS: Final = b'{"timestamp":'
"""How every line begins."""

_NOT_WRITTEN: Final = ("cause", "withheld")

Action = Cause | Literal["NONE", "ABORT"]


class SoakDecision(Struct, frozen=True, kw_only=True):
    """What one look came to. The pressure's twelve fields stand in the same JSON object, behind `reason`."""

    timestamp: str
    ts_ms: int
    state: str
    """The rung in effect: NORMAL, THROTTLE1, THROTTLE2 or THROTTLE3."""
    action: Action
    """What was done; NONE too where something should have been, and could not: the reason says so."""
    reason: str
    pressure: Pressure
    seconds_since_progress: float
    seconds_since_tick: float
    sample_every: int
    restarts: int
    """Restarts that this soak has had carried out."""
    stalls: int
    """Those of them for a stall."""
    engine_starts: int
    """Starts of the engine observed since the soak began, requested by the soak or not."""
    unit_state: str | None
    """The service manager's ActiveState; None while it does not say."""
    detail: str | None
    """What could not be read or done, and other things a person should know."""
    cause: Cause | None = None
    """What the restart was for that was made or withheld. Not in the file, whose `reason` has it in words."""
    withheld: SkipReason | Obstacle | None = None
    """Why no restart was made. Not in the file, as `cause`."""

    def as_line(self) -> bytes:
        """One line of JSON."""
        fields: dict[str, Any] = {}
        for name in self.__struct_fields__:
            if name in _NOT_WRITTEN:
                continue
            value = getattr(self, name)
            if isinstance(value, str):
                value = escape(value)  # the name of a file may hold what is no text
            fields.update(value.as_fields() if isinstance(value, Pressure) else {name: value})
        return msgspec.json.encode(fields) + b"\n"


def decisions_path(db_path: Path) -> Path:
    """The default path of the decisions about the engine that writes `db_path`."""
    return beside(db_path, SUFFIX)


class DecisionLog:
    """Appends to one file; one thread only."""

    def __init__(self, path: Path, bytes_max: int = BYTES_MAX, files_kept: int = FILES_KEPT) -> None:
        """Opens the file, creating it if necessary. Raises ConfigError if it cannot be written."""
        self.path = path
        self._bytes_max = bytes_max
        self._files_kept = files_kept
        try:
            if path.exists() and not path.is_file():
                raise UsageError(f"--decisions: {path} is not a regular file")
            for own in (path, *(Path(f"{path}.{n}") for n in range(1, files_kept + 1))):
                _check_ours(own)
            self._file: IO[bytes] | None = _open(path)
        except OSError as error:
            raise ConfigError(f"--decisions: {path} cannot be written: {error.strerror}") from error

    def write(self, decision: SoakDecision) -> None:
        """Append one line; it is on disk when this returns. Blocks. Raises OSError: then it may be missing or torn."""
        file = self._file
        removed = file is not None and not os.fstat(file.fileno()).st_nlink
        if file is None or removed or file.tell() >= self._bytes_max:
            self.close()
            if self._size() >= self._bytes_max:
                self._rotate()
            self._file = file = _open(self.path)
        try:
            _write_all(file, decision.as_line())
            os.fsync(file.fileno())
        except OSError:
            self.close()  # the next line reopens it and then begins on a new line
            raise

    def close(self) -> None:
        """Close the file. Idempotent."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def _rotate(self) -> None:
        names = [self.path, *(Path(f"{self.path}.{n}") for n in range(1, self._files_kept + 1))]
        for older, newer in reversed(list(zip(names[1:], names, strict=False))):
            if newer.exists():
                os.replace(newer, older)


def check_apart(path: Path, db_path: Path) -> None:
    """Reject a file that belongs to the database. Raises UsageError."""
    others = ("", "-wal", "-shm", "-journal", ".lock", ".soak.lock", ".spill", ".status.json", ".throttle.json")
    files = [beside(db_path, suffix) for suffix in (*others, ".quarantine.jsonl")]
    if beside(path, "") in files or any(_same(path, file) for file in files):
        raise UsageError(f"--decisions: {path} belongs to the database {db_path}; name another file")


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)  # by another name, or a hard link


def _check_ours(path: Path) -> None:
    """Refuse to append to, or to rotate away, what no supervisor has written. Raises UsageError, OSError."""
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("rb") as file:
        first = file.read(len(_BEGINS))
    # A crash may have torn the very first line.
    if not _BEGINS.startswith(first):
        raise UsageError(f"--decisions: {path} does not contain decisions; name another file")


def _open(path: Path) -> IO[bytes]:
    """Open for appending, unbuffered; completes a line torn by a crash or a full disk."""
    file = os.fdopen(open_private(path, os.O_RDWR | os.O_APPEND), "ab+", buffering=0)
    try:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.seek(0, os.SEEK_END)
    except BaseException:
        file.close()
        raise
    return file


def _write_all(file: IO[bytes], data: bytes) -> None:
    """A disk that is almost full takes a part first, and complains only at the next one."""
    while data:
        data = data[file.write(data) :]


class SoakLock:
    """Held by the supervisor of a database: two supervisors would restart its engine in turn."""

    def __init__(self, db_path: Path) -> None:
        """Raises ConfigError when another one holds it. Ends with the process."""
        path = beside(db_path, ".soak.lock")
        try:
            self._file: IO[bytes] | None = os.fdopen(open_private(path, os.O_WRONLY | os.O_APPEND), "ab")
        except OSError as error:
            raise ConfigError(f"database {db_path}: cannot create {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            busy = isinstance(error, BlockingIOError)
            what = "another soak supervises its engine already" if busy else f"cannot lock {path}: {error.strerror}"
            raise ConfigError(f"database {db_path}: {what}") from error

    def release(self) -> None:
        """Release the lock. Idempotent."""
        file, self._file = self._file, None
        if file is not None:
            file.close()
