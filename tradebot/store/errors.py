"""Which storage failures are temporary: those of SQLite, classified by the chain of exceptions that it and peewee
raise, and those of the operating system, classified by errno.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import peewee

from tradebot.core.errors import PASSING_ERRNOS, ConfigError, ExitCode, TradebotError

# Primary result codes (https://www.sqlite.org/rescode.html) after which the same write may succeed later.
_PASSING: Final = {
    sqlite3.SQLITE_BUSY: "SQLITE_BUSY",
    sqlite3.SQLITE_LOCKED: "SQLITE_LOCKED",
    sqlite3.SQLITE_FULL: "SQLITE_FULL",
    sqlite3.SQLITE_IOERR: "SQLITE_IOERR",
    sqlite3.SQLITE_CANTOPEN: "SQLITE_CANTOPEN",
    sqlite3.SQLITE_PROTOCOL: "SQLITE_PROTOCOL",
    sqlite3.SQLITE_READONLY: "SQLITE_READONLY",
}
# Codes after which it will not: the file itself is damaged or is no database any more.
_LASTING: Final = {sqlite3.SQLITE_CORRUPT: "SQLITE_CORRUPT", sqlite3.SQLITE_NOTADB: "SQLITE_NOTADB"}
DAMAGED: Final = frozenset(_LASTING.values())

FILE_REPLACED: Final = "FILE_REPLACED"
"""The code of a database that is no longer the file that was opened: deleted, renamed, replaced or truncated."""

_HINTS: Final = {
    "SQLITE_BUSY": "another program holds a lock on it",
    "SQLITE_LOCKED": "another program holds a lock on it",
    "SQLITE_FULL": "the disk is full or max_page_count is reached",
    "SQLITE_IOERR": "the disk reported an input/output error",
    "SQLITE_CANTOPEN": "the file, or its WAL beside it, cannot be opened or made",
    "SQLITE_READONLY": "the file or its file system became read-only",
    # SQLite reports a page that the disk could not read (EIO) in the same way as a damaged page.
    "SQLITE_CORRUPT": "the file is damaged, or the disk cannot read it: see dmesg, check it with PRAGMA integrity_check"
    " and restore a backup",
    "SQLITE_NOTADB": "the file is not a SQLite database",
    "EIO": "the disk reported an input/output error",
    "ENOSPC": "the disk is full",
    "EDQUOT": "the user's disk quota is used up",
    "EROFS": "the file system is read-only: mounted so, or by the kernel after an error; see dmesg",
    "EMFILE": "raise the limit of open files (LimitNOFILE=, ulimit -n)",
    "ENFILE": "the whole system has too many open files",
}


class StorageUnavailable(TradebotError):
    """The database, or a file beside it, could not be written or read.

    `code` is the error's name (SQLITE_BUSY, ENOSPC), `passing` whether a retry makes sense.

    Without a retry, a temporary failure ends the run like a locked or full database does, another one as an
    unusable database.
    """

    def __init__(self, code: str, detail: str, passing: bool) -> None:
        hint = _HINTS.get(code)
        super().__init__(f"{detail} ({code}{': ' + hint if hint else ''})")
        self.code = code
        self.detail = detail
        self.passing = passing
        self.exit_code = ExitCode.OVERLOAD if passing else ExitCode.CONFIG

    def without_frames(self) -> StorageUnavailable:
        """The same to be kept: the frames that raised this one, and its causes, refer to cursors, and as long as there

        is one, SQLite does not really close their connection.
        """
        return StorageUnavailable(self.code, self.detail, self.passing)

    def describe(self, path: Path) -> str:
        """The message, prefixed once with the database's name: errors of opening it already contain the name."""
        text = str(self)
        named = text.startswith((f"database {path}: ", f"database {path.absolute()}: "))
        return text if named else f"database {path}: {text}"


def os_failure(error: OSError, what: str) -> StorageUnavailable | ConfigError:
    """What an error of the operating system means for opening a file: to be tried again, or a refusal to run.

    `what` says which file and what was tried, e.g. "database x.db: cannot create x.db.lock".
    """
    text = f"{what}: {error.strerror or error}"
    if error.errno in PASSING_ERRNOS:
        return StorageUnavailable(errno.errorcode[error.errno], text, passing=True)
    return ConfigError(text)


def may_access(path: Path, mode: int) -> bool:
    """Whether this user may use `path` so (`os.access`). Raises OSError: not there, or its file system is read-only.

    A read-only file system answers access() as missing permission does, but it can pass.
    """
    if os.access(path, mode):
        return True
    if mode & os.W_OK and os.statvfs(path).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
    return False


def classify(error: BaseException) -> StorageUnavailable | None:
    """The storage failure behind `error`, or None when it is something else (a bug).

    A full disk arrives as "cannot rollback" with the real cause in `__context__`, so the whole chain is read and the
    innermost storage error wins.
    """
    found: StorageUnavailable | None = None
    link: BaseException | None = error
    for _ in range(16):
        if link is None:
            break
        if isinstance(link, StorageUnavailable):
            found = link
        elif isinstance(link, sqlite3.Error):
            code = getattr(link, "sqlite_errorcode", None)
            if code is not None:
                primary = code & 0xFF
                if primary in _PASSING:
                    found = StorageUnavailable(_PASSING[primary], str(link), passing=True)
                elif primary in _LASTING:
                    found = StorageUnavailable(_LASTING[primary], str(link), passing=False)
        elif isinstance(link, OSError) and link.errno in PASSING_ERRNOS:
            where = "" if link.filename is None else f"{link.filename}: "
            text = f"{where}{link.strerror or link}"
            found = StorageUnavailable(errno.errorcode[link.errno], text, passing=True)
        link = link.__cause__ or link.__context__
    return found


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn storage failures of SQLite, peewee and the operating system into StorageUnavailable; let others through."""
    try:
        yield
    except (sqlite3.Error, peewee.PeeweeException, OSError) as error:
        failure = classify(error)
        if failure is None:
            raise
        raise failure from error
