"""Connections to the database: PRAGMAs, whose file it is, schema, counts."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from peewee import DatabaseError, InterfaceError, Model, SchemaManager, SqliteDatabase

from tradebot.config.model import Synchronous
from tradebot.core.errors import AdvisedError, ConfigError
from tradebot.store.errors import StorageUnavailable, os_failure, storage_errors
from tradebot.store.models import EVENT_MODELS, INDEXES, MODELS, SCHEMA_VERSION, VIEWS, RunRow
from tradebot.store.policy import WAL_BYTES_KEPT
from tradebot.store.row_counts import count_original_rows

BUSY_TIMEOUT_MS: Final = 5000
_STATEMENT_CACHE: Final = 256
_UNREADABLE: Final = frozenset({"SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PROTOCOL"})
"""Failures that can pass for an engine, but mean that a reader cannot read from here at all. Others can pass for
both: even reading makes files beside a database whose writer was killed, so that a full disk shows there too."""


def absolute(path: Path) -> Path:
    """The path from the root, symbolic links not resolved. Raises ConfigError when the working directory is gone."""
    try:
        return path.absolute()
    except FileNotFoundError as error:
        raise ConfigError(
            f"database {path}: the working directory was deleted; change to another one, or give an absolute path"
        ) from error


def beside(path: Path, suffix: str) -> Path:
    """The companion file of a database: next to the file that `path` finally leads to, so that every name of it agrees.

    SQLite itself resolves symbolic links in this way for its WAL. Raises ConfigError like `absolute`.
    """
    return Path(os.path.realpath(absolute(path)) + suffix)


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
        str(absolute(path)),  # so that no name, such as ":memory:" or "file:x", means anything else to SQLite
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


def connect_readonly(path: Path, lasting: Container[str] | None = None) -> SqliteDatabase:
    """A connection that cannot write, for reading another run's database.

    `lasting`: as in `reading`; unless given, what SQLite cannot open counts as lasting only where this user has no
    right to open it, or to make the files beside it that reading needs.

    Raises ConfigError when it is unusable, StorageUnavailable when it is locked or the disk fails.
    """
    try:
        if not path.is_file():
            what = "is a directory" if path.is_dir() else "is not a regular file" if path.exists() else "does not exist"
            raise ConfigError(f"database {path}: {what}; nothing to replay from")
        uri = f"{absolute(path).as_uri()}?mode=ro"
        if not os.access(beside(path, "").parent, os.W_OK) and not beside(path, "-wal").exists():
            # Reading a WAL database makes files beside it, unless it is known that no process writes it.
            uri += "&immutable=1"
        if lasting is None:
            lasting = _UNREADABLE - {"SQLITE_CANTOPEN"} if _may_read(path) else _UNREADABLE
    except OSError as error:
        raise os_failure(error, f"database {path}: cannot be opened") from error
    db = SqliteDatabase(uri, uri=True, timeout=BUSY_TIMEOUT_MS / 1000, autoconnect=False)
    try:
        with reading(db, lasting):
            db.connect()
            db.execute_sql("PRAGMA schema_version")
    except BaseException:
        db.close()
        raise
    return db


def _may_read(path: Path) -> bool:
    """Whether this user has the rights that reading takes: then a failure to open has another reason, and can pass."""
    log = [file for file in (beside(path, "-wal"), beside(path, "-shm")) if os.path.lexists(file)]
    return (
        os.access(path, os.R_OK)
        and os.access(beside(path, "").parent, os.W_OK)
        and all(os.access(file, os.R_OK | os.W_OK) for file in log)
    )


def file_of(db: SqliteDatabase) -> str:
    """The file of a connection, for messages."""
    name = str(db.database)
    return unquote(name.removeprefix("file://").partition("?")[0]) if name.startswith("file:") else name


@contextmanager
def reading(db: SqliteDatabase, lasting: Container[str] = _UNREADABLE) -> Iterator[None]:
    """Wraps statements on a database that another program may have created: every error becomes a readable one.

    Raises StorageUnavailable, ConfigError for what cannot be read; both name the file. A failure whose code is in
    `lasting` counts as one that does not pass.
    """
    try:
        with storage_errors():
            yield
    except StorageUnavailable as error:
        text = f"database {file_of(db)}: {error.detail}"
        raise StorageUnavailable(error.code, text, error.passing and error.code not in lasting) from error
    except (sqlite3.Error, DatabaseError, InterfaceError) as error:
        raise ConfigError(f"database {file_of(db)}: {error}; it is not a tradebot database") from error


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
    wrong = [
        f"{name} is {actual[name]!r}, expected {value!r}" for name, value in wanted.items() if actual[name] != value
    ]
    if wrong:
        raise ConfigError(
            f"database {db.database}: PRAGMAs had no effect: {'; '.join(wrong)}"
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
            if found < SCHEMA_VERSION:
                count_original_rows(db)
    except DatabaseError as error:
        raise ConfigError(f"database {db.database}: cannot be upgraded to schema {SCHEMA_VERSION}: {error}") from error
    return found


def refuse_foreign(path: Path) -> None:
    """Look at an existing file without changing it: setting journal_mode would mark another program's database.

    Only where a killed program has left a rollback journal, SQLite is let to roll back first, as every reader that may
    write does: what is in the file until then is no database. Raises ConfigError when it is not ours to write,
    StorageUnavailable when it is locked or the disk fails.
    """
    try:
        if not path.exists() or not path.stat().st_size:
            return
    except OSError as error:
        raise os_failure(error, f"database {path}: cannot be opened") from error
    # The file is there and may be written, so that what SQLite cannot open now (no descriptor is left) it can later.
    try:
        db = connect_readonly(path, lasting=())
    except StorageUnavailable as error:
        if error.code != "SQLITE_READONLY":
            raise
        db = _connect_existing(path)
    try:
        with reading(db, lasting=()):
            found = int(db.execute_sql("PRAGMA user_version").fetchone()[0])
            _check_ours(db, found, {name for name in db.get_tables() if not name.startswith("sqlite_")})
    finally:
        db.close()


def _connect_existing(path: Path) -> SqliteDatabase:
    """A connection that may write, but sets nothing and creates no database: SQLite recovers the file as it reads it.

    Raises StorageUnavailable.
    """
    uri = f"{absolute(path).as_uri()}?mode=rw"
    db = SqliteDatabase(uri, uri=True, timeout=BUSY_TIMEOUT_MS / 1000, autoconnect=False)
    with reading(db, lasting=()):
        db.connect()
    return db


class NewerSchemaError(AdvisedError):
    """The file is of a later version of tradebot, which may have changed what this one does not know."""


def _check_ours(db: SqliteDatabase, version: int, tables: set[str]) -> None:
    if version > SCHEMA_VERSION and RunRow._meta.table_name in tables:
        raise NewerSchemaError(
            f"database {file_of(db)}: written by a newer tradebot"
            f" (schema {version}; this version supports up to {SCHEMA_VERSION})",
            "upgrade tradebot or use another --db",
        )
    if not 0 <= version <= SCHEMA_VERSION or (tables and not _has_table_of_ours(db, tables)):
        some = ", ".join(sorted(tables)[:5]) or "none"
        raise ConfigError(f"database {file_of(db)}: belongs to another program (tables: {some}); use another --db")


def _has_table_of_ours(db: SqliteDatabase, tables: set[str]) -> bool:
    """Whether one of our tables is there, as in a schema that was made only in part; their order of making is free.

    The event tables are known by name, so that a file with different ones is reported. Others ("runs") have names
    that many programs use: they must have our columns too.
    """
    if any(model._meta.table_name in tables for model in EVENT_MODELS):
        return True
    return any(
        {field.column_name for field in model._meta.sorted_fields if not field.null and field.default is None}
        <= {column.name for column in db.get_columns(model._meta.table_name)}
        for model in MODELS
        if model._meta.table_name in tables
    )


def _upgrade(db: SqliteDatabase, tables: set[str]) -> None:
    for model in MODELS:
        if model._meta.table_name in tables:
            _add_missing_columns(db, model)
        else:
            SchemaManager(model, db).create_table(safe=True)
    for index in INDEXES:
        db.execute(index)
    for name, query in VIEWS.items():
        db.execute_sql(f'DROP VIEW IF EXISTS "{name}"')
        db.execute_sql(f'CREATE VIEW "{name}" AS {query}')
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
