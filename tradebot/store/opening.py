"""Opening a database for a run: lock, connection, migration, adoption of a spill file, row counts, the run's row.

A database that is locked or full at start is retried like any other storage failure.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from peewee import SqliteDatabase

from tradebot.exits import ConfigError, OverloadError
from tradebot.log import Log
from tradebot.runtime import Runtime
from tradebot.store.database import (
    Synchronous,
    WriterLock,
    check_path,
    connect,
    migrate,
    pragma_values,
    refuse_foreign,
    row_counts,
)
from tradebot.store.errors import StorageUnavailable, storage_errors
from tradebot.store.policy import RetryPolicy
from tradebot.store.spill import adopt, spill_path

T = TypeVar("T")

_SCHEMA_OF_ORIGINAL: Final = 0


class StartStopped(Exception):
    """A stop signal came before the pipeline ran: nothing was accepted, nothing is lost."""


class Store:
    """The database of one engine, held exclusively from opening to `close`. Main thread only."""

    def __init__(
        self, path: Path, synchronous: Synchronous, storage_retry_s: float, runtime: Runtime, log: Log
    ) -> None:
        """Take the lock and open. Raises ConfigError (unusable), OverloadError (stays locked or full), StartStopped."""
        self.path = path
        self.synchronous: Synchronous = synchronous
        self._retry_s = storage_retry_s
        self._is_ours = False
        self._runtime = runtime
        self._log = log.bind("store")
        check_path(path)
        self._lock = WriterLock(path)
        try:
            self.with_database(self._prepare)
        except BaseException:
            self._lock.release()
            raise

    def with_database(self, work: Callable[[SqliteDatabase], T]) -> T:
        """Run `work` on a connection of its own; again, for `storage_retry_s`, while the database is locked or full.

        Blocks. Raises OverloadError when patience ends, ConfigError when the file is damaged, StartStopped on a stop
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
        while True:
            try:
                if not self._is_ours:
                    refuse_foreign(self.path)
                    self._is_ours = True
                db = connect(self.path, self.synchronous)
                try:
                    with storage_errors():
                        return work(db)
                finally:
                    db.close()
            except StorageUnavailable as error:
                if not error.passing:
                    raise ConfigError(error.told_of(self.path)) from error
                delay_s = retry.next_delay_s(self._runtime.monotonic(), None)
                if delay_s is None:
                    raise OverloadError(error.told_of(self.path)) from error
                self._log.warning("storage unavailable", detail=str(error), retry_in_s=delay_s)
                self._runtime.sleep(delay_s)
                if stoppable and self._runtime.stop_signals():
                    raise StartStopped from error

    def _prepare(self, db: SqliteDatabase) -> None:
        self._log.info("PRAGMA verification", event="PRAGMA verification", **pragma_values(db))
        had_tables = bool(db.get_tables())
        version = migrate(db)
        if version == _SCHEMA_OF_ORIGINAL and had_tables:
            self._log.warning("database migrated from the original schema", database=str(self.path))
        # On disk before the file they come from, which was, is deleted. The connection is used for nothing later.
        db.execute_sql("PRAGMA synchronous = FULL")
        adopted = adopt(db, spill_path(self.path))
        if adopted is not None:
            self._log.warning(
                "spill adopted", event="SPILL_ADOPTED", run_id=adopted.run_id, stored=adopted.events,
                already_stored=adopted.already_stored, whole=adopted.whole,
            )  # fmt: skip
            if not adopted.whole:
                self._log.error("spill cut short", event="SPILL_CUT_SHORT", detail="what came after it is lost")
        self._log.info("initial database state", event="initial database state", **row_counts(db))

    def close(self) -> None:
        """Let another engine in. Idempotent."""
        self._lock.release()
