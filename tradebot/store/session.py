"""Opening a database for a run: locks, connection, migration, adoption of a spill file, row counts, the run's row.

What can pass (locked, disk full, no descriptor left) is retried like any other storage failure, whichever file it met.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from peewee import SqliteDatabase

from tradebot.config.model import Synchronous
from tradebot.core.cancellation import Cancelled
from tradebot.core.errors import ConfigError, OverloadError
from tradebot.core.events import Tick
from tradebot.core.log_events import LogEvent
from tradebot.core.runtime import Runtime
from tradebot.output.log import Log
from tradebot.store import runs
from tradebot.store.adoption import Adopted, Orphan, adopt
from tradebot.store.checks import check_companions, check_existing, check_path
from tradebot.store.database import (
    beside,
    connect,
    migrate,
    pragma_values,
    reading,
    refuse_foreign,
)
from tradebot.store.errors import DAMAGED, FILE_REPLACED, StorageUnavailable, storage_errors
from tradebot.store.file_identity import FileIdentity, check_database, identity_of
from tradebot.store.lock import WriterLock
from tradebot.store.models import SCHEMA_VERSION, RunRow
from tradebot.store.policy import RetryPolicy
from tradebot.store.protocol import BatchWriter, M
from tradebot.store.reader import stored_ticks
from tradebot.store.results import StoredResults, read_results
from tradebot.store.row_counts import COUNTED, row_counts
from tradebot.store.runs import RunEnd, RunInfo, RunRecord
from tradebot.store.saved_state import SavedState, StoredItem, newest_state, stored_since
from tradebot.store.spill import spill_path
from tradebot.store.takeover import Carried, take_over
from tradebot.store.writer import SqliteWriter

T = TypeVar("T")

_SCHEMA_OF_ORIGINAL: Final = 0
_BLOCK_BYTES: Final = 1 << 20


class SqliteStore:
    """The `Store` of one engine in a database file, held exclusively from opening to `close`. Main thread only.

    A connection lives as long as one method; the writer has one of its own.
    """

    def __init__(
        self, path: Path, synchronous: Synchronous, storage_retry_s: float, runtime: Runtime, log: Log
    ) -> None:
        """Take the locks and open. Retries what can pass for `storage_retry_s`.

        Raises ConfigError (unusable), OverloadError (stays locked or full), Cancelled.
        """
        self.path = path
        self.synchronous: Synchronous = synchronous
        self._retry_s = storage_retry_s
        self._lock: WriterLock | None = None
        self._is_ours = False
        self._opened: FileIdentity | None = None
        """The file that was opened, once it was."""
        self.orphan: Orphan | None = None
        """The spill file that this start could not place, or not to its end, and has set aside."""
        self._runtime = runtime
        self._log = log.bind("store")
        try:
            self.with_database(self._prepare)
            self._opened = identity_of(beside(path, ""))
        except BaseException:
            self.close()
            raise

    def begin_run(self, info: RunInfo, started_ms: int, resume: bool) -> RunRecord:
        """As `Store.begin_run`."""
        return self.with_database(lambda db: runs.begin_run(db, info, started_ms, resume))

    def read_restart_state(self, record: RunRecord, lookback: int, make_memory: Callable[[], M]) -> tuple[Carried, M]:
        """As `Store.read_restart_state`."""

        def read(db: SqliteDatabase) -> tuple[Carried, M]:
            memory = make_memory()
            return take_over(db, record.no, lookback, memory), memory

        return self.with_database(read)

    def read_saved_state(self, record: RunRecord) -> SavedState | None:
        """As `Store.read_saved_state`."""

        def read(db: SqliteDatabase) -> SavedState | None:
            feed_id = RunRow.select(RunRow.feed).where(RunRow.id == record.no).scalar(db)
            return None if feed_id is None else newest_state(db, feed_id)

        return self.with_database(read)

    def stored_since(self, record: RunRecord, saved: SavedState | None) -> Generator[StoredItem, None, None]:
        """As `Store.stored_since`."""
        return stored_since(self.path, record.no, saved)

    def stored_ticks(self, record: RunRecord) -> Generator[Tick, None, None]:
        """As `Store.stored_ticks`."""
        return stored_ticks(self.path, record)

    def read_results(self, record: RunRecord) -> StoredResults:
        """As `Store.read_results`."""
        return self.with_database(lambda db: read_results(db, record.no))

    def writer(self, record: RunRecord) -> BatchWriter:
        """As `Store.writer`."""
        return SqliteWriter(self.path, self.synchronous, record)

    def finish_run(self, record: RunRecord, end: RunEnd, patience_s: float) -> None:
        """As `Store.finish_run`."""
        self.at_the_end(lambda db: runs.finish_run(db, record.no, end), patience_s)

    def with_database(self, work: Callable[[SqliteDatabase], T]) -> T:
        """Run `work` on a connection of its own; again, for `storage_retry_s`, while the database is locked or full.

        Blocks. Raises OverloadError when patience ends, ConfigError when the file is damaged, Cancelled on a stop
        signal while waiting.
        """
        return self._insist(work, self._retry_s, stoppable=True)

    def at_the_end(self, work: Callable[[SqliteDatabase], T], retry_s: float) -> T:
        """Like `with_database`, but with its own patience and whatever signals have come; a run is over by now.

        Raises OverloadError whatever is wrong with the storage.
        """
        try:
            return self._insist(work, retry_s, stoppable=False)
        except ConfigError as error:
            raise OverloadError(str(error)) from error

    def _insist(self, work: Callable[[SqliteDatabase], T], retry_s: float, stoppable: bool) -> T:
        retry = RetryPolicy(retry_s)
        damaged = False
        while True:
            try:
                self._claim()
                if self._opened is not None:
                    check_database(beside(self.path, ""), self._opened)
                db = connect(self.path, self.synchronous)
                try:
                    with storage_errors():
                        return work(db)
                finally:
                    db.close()
            except StorageUnavailable as error:
                if error.code == FILE_REPLACED:
                    raise OverloadError(str(error)) from error
                failure = error
                if error.code in DAMAGED and not damaged:
                    unreadable = self._unreadable(stoppable)
                    if unreadable is None:
                        damaged = True  # if so: every byte can be read, and a second attempt tells
                        continue
                    failure = unreadable
                if not failure.passing:
                    raise ConfigError(failure.describe(self.path)) from error
                delay_s = retry.next_delay_s(self._runtime.monotonic(), None)
                if delay_s is None:
                    raise OverloadError(failure.describe(self.path)) from error
                self._log.warning(
                    "storage unavailable", event=LogEvent.STORAGE_UNAVAILABLE, detail=str(failure), retry_in_s=delay_s
                )
                self._runtime.sleep(delay_s)
                if stoppable and self._runtime.stop_signals():
                    raise Cancelled from error

    def _unreadable(self, stoppable: bool) -> StorageUnavailable | None:
        """Why the database or its log cannot be read, or None when it can.

        SQLite calls a page that the disk cannot read damaged (https://www.sqlite.org/rescode.html#ioerr_corruptfs).
        """
        try:
            if self._lock is not None:
                for _ in self._lock.read_through():
                    if stoppable and self._runtime.stop_signals():
                        raise Cancelled
            with suppress(FileNotFoundError), beside(self.path, "-wal").open("rb") as log:
                while log.read(_BLOCK_BYTES):
                    pass
        except OSError as error:
            code = errno.errorcode.get(error.errno or 0, "EIO")
            return StorageUnavailable(code, f"database {self.path}: cannot be read: {error.strerror}", passing=True)
        return None

    def _claim(self) -> None:
        """What comes before the first connection that sets anything: checks, the locks, and that the file is ours."""
        if self._lock is None:
            check_path(self.path)
            check_companions(self.path)
            self._lock = WriterLock(self.path)
            if self._lock.unguarded is not None:
                self._log.warning(
                    "only the lock file prevents a second engine", event=LogEvent.DATABASE_NOT_LOCKED,
                    database=str(self.path), detail=self._lock.unguarded,
                )  # fmt: skip
        if not self._is_ours:
            refuse_foreign(self.path)
            self._is_ours = True

    def _prepare(self, db: SqliteDatabase) -> None:
        self._log.info("PRAGMA verification", event=LogEvent.PRAGMA_VERIFICATION, **pragma_values(db))
        had_tables = bool(db.get_tables())
        version = migrate(db)
        if version == _SCHEMA_OF_ORIGINAL and had_tables:
            self._log.warning(
                "database migrated from the original schema", event=LogEvent.SCHEMA_MIGRATED, database=str(self.path)
            )
        # On disk before the file they come from, which was, is deleted. The connection is used for nothing later.
        db.execute_sql("PRAGMA synchronous = FULL")
        adopted = adopt(db, spill_path(self.path))
        if adopted is not None:
            self._report(adopted)
        self._log.info(
            "initial database state", event=LogEvent.INITIAL_DATABASE_STATE, counted=COUNTED, **row_counts(db)
        )

    def _report(self, adopted: Adopted) -> None:
        log, orphan = self._log, adopted.orphan
        if orphan is None or adopted.events or adopted.already_stored:
            log.warning(
                "spill file found: its events are stored", event=LogEvent.SPILL_ADOPTED, run_id=adopted.run_id,
                stored=adopted.events, already_stored=adopted.already_stored, whole=adopted.whole,
            )  # fmt: skip
        if orphan is not None:
            self.orphan = orphan
            log.error(
                "spill file set aside", event=LogEvent.SPILL_ORPHANED, run_id=orphan.run_id,
                spill_file=str(orphan.path), detail=orphan.reason,
                hint="its events are not in this database; tradebot doctor lists such files",
            )  # fmt: skip
        elif not adopted.whole:
            log.error(
                "spill file is incomplete", event=LogEvent.SPILL_CUT_SHORT,
                detail="the spill file has no end mark: the engine was killed or stopped while it was spilling;"
                " events that it had not yet written are lost",
            )  # fmt: skip

    def close(self) -> None:
        """Let another engine in. Call when no connection of this process is open any more. Idempotent."""
        if self._lock is not None:
            self._lock.release()


def open_existing(path: Path) -> SqliteDatabase:
    """A writing connection to a database of this version, as an engine made it; one may be writing it now.

    Raises ConfigError if the file does not exist or is not ours, StorageUnavailable.
    """
    check_existing(path)
    refuse_foreign(path)
    db = connect(path)
    try:
        with reading(db):
            found = int(db.execute_sql("PRAGMA user_version").fetchone()[0])
        if found < SCHEMA_VERSION:
            raise ConfigError(
                f"database {path}: written by an older tradebot (schema {found}; this version uses {SCHEMA_VERSION});"
                " start the engine with it once to upgrade it"
            )
    except BaseException:
        db.close()
        raise
    return db
