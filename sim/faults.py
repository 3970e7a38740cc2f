"""Storage that misbehaves on schedule: busy, full, slow, or failing after it did commit."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct
from peewee import SqliteDatabase

from sim.runtime import SimRuntime
from tradebot.store.batch import Batch, StoredCounts
from tradebot.store.database import BUSY_TIMEOUT_MS, Synchronous
from tradebot.store.errors import StorageUnavailable
from tradebot.store.runs import RunRecord
from tradebot.store.writer import SqliteStorage


class StorageFaults(Struct):
    """What is wrong with the storage, in simulated seconds since the history began."""

    busy_from_s: float = 0.0
    busy_until_s: float = 0.0
    full_from_s: float = 0.0
    full_until_s: float = 0.0
    slow_s: float = 0.0
    """Each write takes this long."""
    fail_after_commit: tuple[int, ...] = ()
    """Writes (from 1) that commit and then report an I/O error all the same."""


class FaultyStorage(SqliteStorage):
    """The real storage, with faults before a write and after its commit."""

    def __init__(
        self, path: Path, synchronous: Synchronous, run: RunRecord, faults: StorageFaults, runtime: SimRuntime
    ) -> None:
        super().__init__(path, synchronous, run)
        self._faults = faults
        self._runtime = runtime
        self._commits = 0

    def write(self, batch: Batch, patience_ms: int = BUSY_TIMEOUT_MS) -> None:
        """Write, unless a fault is on: a locked database first uses up the patience, as SQLite's busy handler does."""
        faults, runtime = self._faults, self._runtime
        if faults.slow_s:
            runtime.sleep(faults.slow_s)
        now_s = runtime.elapsed_s
        if faults.busy_from_s <= now_s < faults.busy_until_s:
            runtime.sleep(min(patience_ms / 1000, faults.busy_until_s - now_s))
            if runtime.elapsed_s < faults.busy_until_s:
                runtime.note("storage", "busy")
                raise StorageUnavailable("SQLITE_BUSY", "database is locked", passing=True)
        if faults.full_from_s <= runtime.elapsed_s < faults.full_until_s:
            runtime.note("storage", "full")
            raise StorageUnavailable("SQLITE_FULL", "database or disk is full", passing=True)
        super().write(batch)
        runtime.note("stored", batch.rows)

    def _transact(self, db: SqliteDatabase, batch: Batch, after: StoredCounts) -> None:
        super()._transact(db, batch, after)
        self._commits += 1
        if self._commits in self._faults.fail_after_commit:
            self._runtime.note("storage", "failed after commit")
            raise StorageUnavailable("SQLITE_IOERR", "disk I/O error", passing=True)
