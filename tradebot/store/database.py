"""Opening the database: checks before SQLite touches it, the lock against a second engine, PRAGMAs, schema, counts."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, Literal
from urllib.parse import unquote

from peewee import DatabaseError, InterfaceError, Model, SchemaManager, SqliteDatabase

from tradebot.exits import ConfigError
from tradebot.store.errors import StorageUnavailable, storage_errors
from tradebot.store.models import EVENT_MODELS, INDEXES, MODELS, SCHEMA_VERSION, RunRow
from tradebot.store.policy import WAL_BYTES_KEPT

Synchronous = Literal["NORMAL", "FULL"]

BUSY_TIMEOUT_MS: Final = 5000
_SQLITE_MAGIC: Final = b"SQLite format 3\x00"
_STATEMENT_CACHE: Final = 256
_PASSING: Final = frozenset({"SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR"})
"""Failures after which reading may succeed later: even reading makes files beside a database whose writer was killed,
so that a full or failing disk shows there too. Others say that it cannot be read from here at all."""


def beside(path: Path, suffix: str) -> Path:
    """The companion file of a database: next to the file that `path` finally leads to, so that every name of it agrees.

    SQLite itself resolves symbolic links in this way for its WAL.
    """
    return Path(os.path.realpath(path) + suffix)


def check_path(path: Path) -> None:
    """Refuse what cannot be our database before SQLite sees it. Raises ConfigError; creates the parent directory."""
    try:
        if path.is_dir():
            raise ConfigError(f"database {path}: is a directory; name a file, e.g. {path / 'tradebot.db'}")
        target = beside(path, "")
        if target.is_symlink():
            raise ConfigError(f"database {path}: its symbolic links lead in a circle")
        _check_directory(path, target.parent)
        if target.exists():
            _check_file(path, target)
    except OSError as error:
        raise ConfigError(f"database {path}: cannot be opened: {error.strerror}") from error


def _check_directory(path: Path, directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"database {path}: cannot create its directory {directory}: {error.strerror}") from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigError(f"database {path}: its directory {directory} is not writable (SQLite keeps its WAL there)")


def _check_file(path: Path, target: Path) -> None:
    if not target.is_file():
        raise ConfigError(f"database {path}: is not a regular file")
    if not os.access(target, os.R_OK | os.W_OK):
        raise ConfigError(f"database {path}: is not readable and writable for this user")
    # Only before this process has a connection to it: closing a file gives up all locks that the process has on it.
    with target.open("rb") as file:
        head = file.read(len(_SQLITE_MAGIC))
    if head and head != _SQLITE_MAGIC:
        raise ConfigError(f"database {path}: exists but is not a SQLite database; name another file with --db")


class WriterLock:
    """Held as long as an engine may write the database; a second engine is refused. Ends with the process."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError when another engine holds it."""
        self.path = beside(path, ".lock")
        try:
            self._file: IO[str] | None = open(self.path, "a+", encoding="ascii", errors="replace")  # noqa: SIM115 - held
        except OSError as error:
            raise ConfigError(f"database {path}: cannot create {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.seek(0)
            owner = self._file.read(20).strip() or "unknown"
            self._file.close()
            raise ConfigError(
                f"database {path}: another engine (process {owner}) is writing it; stop that one or use another --db"
            ) from error
        except OSError as error:
            self._file.close()
            raise ConfigError(f"database {path}: cannot lock {self.path}: {error.strerror}") from error
        with suppress(OSError):  # a full disk: who holds the lock is only told, the lock itself takes no room
            self._file.truncate(0)
            os.write(self._file.fileno(), f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let another engine in. Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None


def connect(path: Path, synchronous: Synchronous = "NORMAL") -> SqliteDatabase:
    """A writing connection with its PRAGMAs set and verified (G3, S1). For use by the calling thread.

    May block up to the busy timeout. Raises StorageUnavailable (locked, full), ConfigError (a PRAGMA did not take).
    """
    pragmas = {
        "busy_timeout": BUSY_TIMEOUT_MS,
        "journal_mode": "wal",
        "synchronous": synchronous,
        "temp_store": "MEMORY",
        "foreign_keys": 1,
        # After a long reader has let the WAL grow, its file is cut down again.
        "journal_size_limit": WAL_BYTES_KEPT,
    }
    db = SqliteDatabase(
        str(path.absolute()),  # so that no name, such as ":memory:" or "file:x", means anything else to SQLite
        pragmas=pragmas,
        timeout=BUSY_TIMEOUT_MS / 1000,
        cached_statements=_STATEMENT_CACHE,
        autoconnect=False,
    )
    with storage_errors():
        try:
            db.connect()
            verify_pragmas(db, synchronous)
        except BaseException:
            db.close()
            raise
    return db


def open_existing(path: Path) -> SqliteDatabase:
    """A writing connection to a database of this version, as an engine made it; one may be writing it now.

    Raises ConfigError when there is none or it is not ours, StorageUnavailable.
    """
    check_existing(path)
    refuse_foreign(path)
    db = connect(path)
    try:
        with reading(db):
            found = int(db.execute_sql("PRAGMA user_version").fetchone()[0])
        if found < SCHEMA_VERSION:
            raise ConfigError(
                f"database {path}: of an older tradebot (schema {found}, here {SCHEMA_VERSION}); start the engine with"
                " it once, which brings it up to date"
            )
    except BaseException:
        db.close()
        raise
    return db


def check_existing(path: Path) -> None:
    """Refuse what is no database file that this user may write. Raises ConfigError; makes nothing."""
    try:
        if not path.exists():
            raise ConfigError(f"database {path}: does not exist")
        if path.is_file() and not path.stat().st_size:
            raise ConfigError(f"database {path}: is empty: no engine has run with it")
    except OSError as error:
        raise ConfigError(f"database {path}: cannot be opened: {error.strerror}") from error
    check_path(path)


def connect_readonly(path: Path) -> SqliteDatabase:
    """A connection that cannot write, for reading another run's database.

    Raises ConfigError when it is unusable, StorageUnavailable when it is locked or the disk fails.
    """
    try:
        if not path.is_file():
            what = "is a directory" if path.is_dir() else "is not a regular file" if path.exists() else "does not exist"
            raise ConfigError(f"database {path}: {what}; nothing to replay from")
        uri = f"{path.absolute().as_uri()}?mode=ro"
        if not os.access(beside(path, "").parent, os.W_OK) and not beside(path, "-wal").exists():
            # Reading a WAL database makes files beside it, unless it is known that nobody writes it.
            uri += "&immutable=1"
    except OSError as error:
        raise ConfigError(f"database {path}: cannot be opened: {error.strerror}") from error
    db = SqliteDatabase(uri, uri=True, timeout=BUSY_TIMEOUT_MS / 1000, autoconnect=False)
    try:
        with reading(db):
            db.connect()
            db.execute_sql("PRAGMA schema_version")
    except BaseException:
        db.close()
        raise
    return db


def file_of(db: SqliteDatabase) -> str:
    """The file of a connection, for messages."""
    name = str(db.database)
    return unquote(name.removeprefix("file://").partition("?")[0]) if name.startswith("file:") else name


@contextmanager
def reading(db: SqliteDatabase) -> Iterator[None]:
    """Around statements on a database that somebody else may have made: every error becomes a readable one.

    Raises StorageUnavailable, ConfigError for what cannot be read; both name the file.
    """
    try:
        with storage_errors():
            yield
    except StorageUnavailable as error:
        text = f"database {file_of(db)}: {error.detail}"
        raise StorageUnavailable(error.code, text, error.code in _PASSING) from error
    except (sqlite3.Error, DatabaseError, InterfaceError) as error:
        raise ConfigError(f"database {file_of(db)}: {error}; it is damaged or not a tradebot database") from error


def pragma_values(db: SqliteDatabase) -> dict[str, Any]:
    """The PRAGMAs that are verified at start, as SQLite reports them."""
    names = ("journal_mode", "synchronous", "busy_timeout", "temp_store", "foreign_keys")
    return {name: db.execute_sql(f"PRAGMA {name}").fetchone()[0] for name in names}


def verify_pragmas(db: SqliteDatabase, synchronous: Synchronous) -> None:
    """Raises ConfigError naming each PRAGMA that SQLite did not accept (G3, S1)."""
    wanted = {
        "journal_mode": "wal",
        "synchronous": {"NORMAL": 1, "FULL": 2}[synchronous],
        "busy_timeout": BUSY_TIMEOUT_MS,
        "temp_store": 2,
        "foreign_keys": 1,
    }
    actual = pragma_values(db)
    wrong = [f"{name} is {actual[name]!r}, wanted {value!r}" for name, value in wanted.items() if actual[name] != value]
    if wrong:
        raise ConfigError(
            f"database {db.database}: PRAGMAs did not take: {'; '.join(wrong)}"
            " (a network or read-only file system cannot hold a WAL database)"
        )


def migrate(db: SqliteDatabase) -> int:
    """Bring an empty, older or original-schema file to this version; the version it had. One transaction.

    Raises ConfigError when the file is newer than this program or is not tradebot's, StorageUnavailable.
    """
    try:
        with storage_errors(), db.atomic("IMMEDIATE"):
            found = int(db.execute_sql("PRAGMA user_version").fetchone()[0])
            tables = {name for name in db.get_tables() if not name.startswith("sqlite_")}
            _check_ours(db, found, tables)
            if found < SCHEMA_VERSION:
                _upgrade(db, tables)
            for model in MODELS:
                _check_columns(db, model)
    except DatabaseError as error:
        raise ConfigError(f"database {db.database}: cannot be brought to schema {SCHEMA_VERSION}: {error}") from error
    return found


def refuse_foreign(path: Path) -> None:
    """Look at an existing file without changing it: setting journal_mode would mark another program's database.

    Raises ConfigError when it is not ours to write, StorageUnavailable when it is locked or the disk fails.
    """
    if not path.exists() or not path.stat().st_size:
        return
    db = connect_readonly(path)
    try:
        with reading(db):
            found = int(db.execute_sql("PRAGMA user_version").fetchone()[0])
            _check_ours(db, found, {name for name in db.get_tables() if not name.startswith("sqlite_")})
    finally:
        db.close()


def _check_ours(db: SqliteDatabase, version: int, tables: set[str]) -> None:
    if version > SCHEMA_VERSION and RunRow._meta.table_name in tables:
        raise ConfigError(
            f"database {file_of(db)}: written by a newer tradebot (schema {version}, known here: {SCHEMA_VERSION});"
            " upgrade tradebot or use another --db"
        )
    known = {model._meta.table_name for model in EVENT_MODELS}
    if not 0 <= version <= SCHEMA_VERSION or (tables and not tables & known):
        some = ", ".join(sorted(tables)[:5]) or "none"
        raise ConfigError(f"database {file_of(db)}: belongs to another program (tables: {some}); use another --db")


def _upgrade(db: SqliteDatabase, tables: set[str]) -> None:
    for model in MODELS:
        if model._meta.table_name in tables:
            _add_missing_columns(db, model)
        else:
            SchemaManager(model, db).create_table(safe=True)
    for index in INDEXES:
        db.execute(index)
    db.execute_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _add_missing_columns(db: SqliteDatabase, model: type[Model]) -> None:
    """Add what came after the original schema; columns that rows cannot do without are left to `_check_columns`."""
    table = model._meta.table_name
    present = {column.name for column in db.get_columns(table)}
    for field in model._meta.sorted_fields:
        if field.column_name in present or (not field.null and field.default is None):
            continue
        kind = db.get_sql_context().sql(field.ddl_datatype(db.get_sql_context())).query()[0]
        default = "" if field.default is None else f" NOT NULL DEFAULT {int(field.default)}"
        db.execute_sql(f'ALTER TABLE "{table}" ADD COLUMN "{field.column_name}" {kind}{default}')


def _check_columns(db: SqliteDatabase, model: type[Model]) -> None:
    table = model._meta.table_name
    present = {column.name: column for column in db.get_columns(table)}
    wanted = [field.column_name for field in model._meta.sorted_fields]
    faults = [f"has no column {name}" for name in wanted if name not in present]
    if "id" in present and not present["id"].identity:
        faults.append("has a column id that is not INTEGER PRIMARY KEY")
    faults += [
        f"has a column {name} that must have a value"
        for name, column in present.items()
        if name not in wanted and not column.null and column.default is None
    ]
    if faults:
        raise ConfigError(
            f"database {db.database}: table {table} {', '.join(faults)}: not a tradebot database; use another --db"
        )


def row_counts(db: SqliteDatabase) -> dict[str, int]:
    """Rows of the four event tables, logged at start."""
    with storage_errors():
        return {model._meta.table_name: int(model.select().count(db)) for model in EVENT_MODELS}
