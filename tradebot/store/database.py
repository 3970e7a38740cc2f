"""Opening the database: checks before SQLite touches it, the lock against a second engine, PRAGMAs, schema, counts."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO, Any, Final, Literal

from peewee import Model, SchemaManager, SqliteDatabase

from tradebot.exits import ConfigError
from tradebot.store.errors import storage_errors
from tradebot.store.models import EVENT_MODELS, INDEXES, MODELS, SCHEMA_VERSION

Synchronous = Literal["NORMAL", "FULL"]

BUSY_TIMEOUT_MS: Final = 5000
_SQLITE_MAGIC: Final = b"SQLite format 3\x00"
_STATEMENT_CACHE: Final = 256


def check_path(path: Path) -> None:
    """Refuse what cannot be our database before SQLite sees it. Raises ConfigError; creates the parent directory."""
    if path.is_dir():
        raise ConfigError(f"database {path}: is a directory; name a file, e.g. {path / 'tradebot.db'}")
    parent = path.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"database {path}: cannot create its directory {parent}: {error.strerror}") from error
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ConfigError(f"database {path}: its directory {parent} is not writable (SQLite keeps its WAL there)")
    if not path.exists():
        return
    if not path.is_file():
        raise ConfigError(f"database {path}: is not a regular file")
    if not os.access(path, os.R_OK | os.W_OK):
        raise ConfigError(f"database {path}: is not readable and writable for this user")
    _check_magic(path)


def _check_magic(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(len(_SQLITE_MAGIC))
    if head and head != _SQLITE_MAGIC:
        raise ConfigError(f"database {path}: exists but is not a SQLite database; name another file with --db")


class WriterLock:
    """Held as long as an engine may write the database; a second engine is refused. Ends with the process."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError when another engine holds it."""
        self.path = path.with_name(path.name + ".lock")
        try:
            self._file: IO[str] | None = open(self.path, "a+", encoding="ascii")  # noqa: SIM115 - held until release
        except OSError as error:
            raise ConfigError(f"database {path}: cannot create {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            owner = self._file.read(20).strip() or "unknown"
            self._file.close()
            raise ConfigError(
                f"database {path}: another engine (process {owner}) is writing it; stop that one or use another --db"
            ) from error
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

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
    }
    db = SqliteDatabase(
        str(path),
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


def connect_readonly(path: Path) -> SqliteDatabase:
    """A connection that cannot write, for reading another run's database. Raises ConfigError when it is unusable."""
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "does not exist"
        raise ConfigError(f"database {path}: {what}; nothing to replay from")
    _check_magic(path)
    db = SqliteDatabase(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_MS / 1000, autoconnect=False
    )
    with storage_errors():
        db.connect()
    return db


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

    Raises ConfigError when the file is newer than this program or is not tradebot's.
    """
    with storage_errors(), db.atomic("IMMEDIATE"):
        found = int(db.execute_sql("PRAGMA user_version").fetchone()[0])
        if found > SCHEMA_VERSION:
            raise ConfigError(
                f"database {db.database}: written by a newer tradebot (schema {found}, known here: {SCHEMA_VERSION});"
                " upgrade tradebot or use another --db"
            )
        if found < SCHEMA_VERSION:
            tables = set(db.get_tables())
            for model in MODELS:
                if model._meta.table_name in tables:
                    _add_missing_columns(db, model)
                else:
                    SchemaManager(model, db).create_table(safe=True)
                    if not model._meta.indexes and model._meta.table_name == "runs":
                        SchemaManager(model, db).create_indexes(safe=True)
            for index in INDEXES:
                db.execute(index)
            db.execute_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
    return found


def _add_missing_columns(db: SqliteDatabase, model: type[Model]) -> None:
    table = model._meta.table_name
    present = {column.name for column in db.get_columns(table)}
    for field in model._meta.sorted_fields:
        if field.column_name in present:
            continue
        if not field.null and field.default is None:
            raise ConfigError(
                f"database {db.database}: table {table} has no column {field.column_name}: not a tradebot database"
            )
        kind = db.get_sql_context().sql(field.ddl_datatype(db.get_sql_context())).query()[0]
        default = "" if field.default is None else f" NOT NULL DEFAULT {int(field.default)}"
        db.execute_sql(f'ALTER TABLE "{table}" ADD COLUMN "{field.column_name}" {kind}{default}')


def row_counts(db: SqliteDatabase) -> dict[str, int]:
    """Rows of the four event tables, logged at start."""
    with storage_errors():
        return {model._meta.table_name: int(model.select().count(db)) for model in EVENT_MODELS}
