"""Which storage failures can pass by themselves, told from the chain of exceptions that SQLite and peewee raise."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import peewee

from tradebot.exits import ExitCode, TradebotError

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

_HINTS: Final = {
    "SQLITE_BUSY": "another program holds a lock on it",
    "SQLITE_LOCKED": "another program holds a lock on it",
    "SQLITE_FULL": "the disk is full or max_page_count is reached",
    "SQLITE_IOERR": "the disk reported an input/output error",
    "SQLITE_CANTOPEN": "the file, or its WAL beside it, cannot be opened or made",
    "SQLITE_READONLY": "the file or its file system became read-only",
    "SQLITE_CORRUPT": "the file is damaged: check it with PRAGMA integrity_check and restore a backup",
    "SQLITE_NOTADB": "the file is not a SQLite database",
}


class StorageUnavailable(TradebotError):
    """The database could not be written or read. `code` is SQLite's name, `passing` whether a retry makes sense.

    Where nobody retries, a failure that can pass ends the run as a locked or full database does, another one as an
    unusable database.
    """

    def __init__(self, code: str, detail: str, passing: bool) -> None:
        hint = _HINTS.get(code)
        super().__init__(f"{detail} ({code}{': ' + hint if hint else ''})")
        self.code = code
        self.detail = detail
        self.passing = passing
        self.exit_code = ExitCode.OVERLOAD if passing else ExitCode.CONFIG

    def told_of(self, path: Path) -> str:
        """The message with the database's name before it, once: what comes of opening it tells that itself."""
        text = str(self)
        return text if text.startswith(f"database {path.absolute()}: ") else f"database {path}: {text}"


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
        link = link.__cause__ or link.__context__
    return found


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn SQLite's and peewee's storage failures into StorageUnavailable; let everything else through."""
    try:
        yield
    except (sqlite3.Error, peewee.PeeweeException, OSError) as error:
        failure = classify(error)
        if failure is None:
            raise
        raise failure from error
