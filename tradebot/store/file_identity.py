"""Whether the files of an open database are still those that SQLite has open: compared by stat, at every flush.

While a connection is open, no descriptor of the database file or of its `-shm` may be closed: that would give up all
POSIX locks that the process has on it, SQLite's among them. So everything here goes by name and number.

Legitimate changes: both files grow; a checkpoint after a VACUUM shrinks the database; a checkpoint, or the size limit,
shrinks the write-ahead log. The log is neither deleted nor replaced while this process has a connection.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, Final, NamedTuple

from peewee import SqliteDatabase

from tradebot.store.errors import FILE_REPLACED, StorageUnavailable, storage_errors

_WAL_HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24
_GONE: Final = (errno.ENOENT, errno.ENOTDIR)


class FileIdentity(NamedTuple):
    """Which file a name leads to, and its size in bytes."""

    device: int
    inode: int
    size: int

    def same_file(self, other: FileIdentity) -> bool:
        """Whether both are one file, whatever its size."""
        return self[:2] == other[:2]


def identity_of(path: Path) -> FileIdentity | None:
    """The file at `path`; None if it does not exist. Raises StorageUnavailable if that cannot be determined."""
    try:
        found = os.stat(path)
    except OSError as error:
        if error.errno in _GONE:
            return None
        code = errno.errorcode.get(error.errno or 0, "EIO")
        raise StorageUnavailable(code, f"{path}: cannot be examined: {error.strerror}", passing=True) from error
    return FileIdentity(found.st_dev, found.st_ino, found.st_size)


def check_same(path: Path, opened: FileIdentity) -> FileIdentity:
    """The file at `path` now. Raises StorageUnavailable (FILE_REPLACED) when it is not the one that was opened."""
    now = identity_of(path)
    if now is None:
        raise _changed(path, "was deleted or renamed")
    if not now.same_file(opened):
        raise _changed(path, "was replaced by another file")
    return now


def check_database(path: Path, opened: FileIdentity) -> FileIdentity:
    """Like `check_same`, and the file is not empty: a database that has tables never is, whatever its log holds."""
    now = check_same(path, opened)
    if not now.size:
        raise _changed(path, f"was truncated from {opened.size:,} to 0 bytes" if opened.size else "was emptied")
    return now


def _changed(path: Path, what: str) -> StorageUnavailable:
    return StorageUnavailable(
        FILE_REPLACED,
        f"{path} {what} while the engine was writing it: restore the right file and start again, or start with another"
        " --db",
        passing=False,
    )


class FileWatch:
    """The database and the write-ahead log of one connection. Used by the thread that has the connection."""

    def __init__(self, database: Path, wal: Path) -> None:
        """`database` and `wal` are real paths. What the name leads to now is the file to write."""
        self._database = database
        self._wal = wal
        self._opened = identity_of(database)
        self._log: FileIdentity | None = None
        """The log; None before there is one."""

    @property
    def wal_bytes(self) -> int:
        """Size of the write-ahead log when it was looked at last."""
        return 0 if self._log is None else self._log.size

    def before_open(self) -> None:
        """Raises StorageUnavailable when the file is gone or empty: connecting would create another one there."""
        if self._opened is not None:
            check_database(self._database, self._opened)
        self._log = None  # the last connection to close may have deleted the log

    def check(self, db: SqliteDatabase) -> None:
        """Raises StorageUnavailable (FILE_REPLACED) when one of the files is not what SQLite has open any more."""
        now = identity_of(self._database) if self._opened is None else check_same(self._database, self._opened)
        log = identity_of(self._wal) if self._log is None else check_same(self._wal, self._log)
        if now is not None and self._opened is not None and now.size < self._opened.size:
            self._check_shrunk_database(db, now, self._opened.size)
        if log is not None and self._log is not None and log.size < self._log.size:
            self._check_shrunk_log(db, log, self._log.size)
        self._opened, self._log = now, log

    def _check_shrunk_database(self, db: SqliteDatabase, now: FileIdentity, before: int) -> None:
        """A VACUUM also reduces SQLite's own page count; truncating the file changes only the file."""
        with storage_errors():
            pages = _number(db, "page_count") * _number(db, "page_size")
        if not now.size or pages >= before:
            raise _changed(self._database, f"was truncated from {before:,} to {now.size:,} bytes")

    def _check_shrunk_log(self, db: SqliteDatabase, now: FileIdentity, before: int) -> None:
        """The frames that SQLite counts must all be there. A checkpoint is what counts them without the -shm."""
        try:
            with storage_errors():
                frames = int(db.execute_sql("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1])
                needed = frames * (_number(db, "page_size") + _FRAME_HEADER_BYTES) + _WAL_HEADER_BYTES
        except StorageUnavailable as error:
            if error.code != "SQLITE_IOERR":
                raise
            needed = before  # frames that are not yet in the database could not be read
        after = identity_of(self._wal)
        if needed > _WAL_HEADER_BYTES and (after is None or after.size < needed):
            raise _changed(self._wal, f"was truncated from {before:,} to {now.size:,} bytes")


def _number(db: SqliteDatabase, pragma: str) -> int:
    row: Any = db.execute_sql(f"PRAGMA {pragma}").fetchone()
    return int(row[0])
