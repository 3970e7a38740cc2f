"""Storage that misbehaves on schedule: busy, full, slow, or failing before or after it did commit; no room to spill."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from msgspec import Struct
from peewee import SqliteDatabase

from sim.runtime import SimRuntime
from tradebot.store.batch import Batch, StoredCounts
from tradebot.store.database import BUSY_TIMEOUT_MS, Synchronous
from tradebot.store.errors import StorageUnavailable
from tradebot.store.runs import RunRecord
from tradebot.store.spill import spill_path
from tradebot.store.writer import SqliteStorage

_RESERVE_LEFT: Final = 4096


class StorageFaults(Struct):
    """What is wrong with the storage, in simulated seconds since the history began. May be changed while it runs."""

    busy_from_s: float = 0.0
    busy_until_s: float = 0.0
    full_from_s: float = 0.0
    full_until_s: float = 0.0
    slow_s: float = 0.0
    """Each write takes this long."""
    fail_calls: tuple[int, ...] = ()
    """Writes (from 1) that report an I/O error and store nothing."""
    fail_after_commit: tuple[int, ...] = ()
    """Commits (from 1) after which an I/O error is reported all the same."""
    no_spill: bool = False
    """There is no room for a spill file when the process starts."""


class FaultyStorage(SqliteStorage):
    """The real storage, with faults before a write and after its commit."""

    def __init__(
        self, path: Path, synchronous: Synchronous, run: RunRecord, faults: StorageFaults, runtime: SimRuntime
    ) -> None:
        super().__init__(path, synchronous, run)
        self._faults = faults
        self._runtime = runtime
        self._calls = 0
        self._commits = 0
        self.failing = False
        """Whether the last write failed."""
        if faults.no_spill:
            spill_path(path).mkdir()

    def write(self, batch: Batch, patience_ms: int = BUSY_TIMEOUT_MS) -> None:
        """Write, unless a fault is on: a locked database first uses up the patience, as SQLite's busy handler does."""
        runtime = self._runtime
        self._calls += 1
        self.failing = True
        if self._faults.slow_s:
            runtime.note("storage", "slow")
            runtime.sleep(self._faults.slow_s)
        self._fail_before(patience_ms)
        runtime.checkpoint()
        super().write(batch)
        self.failing = False
        runtime.note("stored", batch.rows)

    def _fail_before(self, patience_ms: int) -> None:
        faults, runtime = self._faults, self._runtime
        now_s = runtime.elapsed_s
        if faults.busy_from_s <= now_s < faults.busy_until_s:
            runtime.sleep(min(patience_ms / 1000, faults.busy_until_s - now_s))
            if runtime.elapsed_s < faults.busy_until_s:
                runtime.note("storage", "busy")
                raise StorageUnavailable("SQLITE_BUSY", "database is locked", passing=True)
        if faults.full_from_s <= runtime.elapsed_s < faults.full_until_s:
            runtime.note("storage", "full")
            raise StorageUnavailable("SQLITE_FULL", "database or disk is full", passing=True)
        if self._calls in faults.fail_calls:
            runtime.note("storage", "failed")
            raise StorageUnavailable("SQLITE_IOERR", "disk I/O error", passing=True)

    def _transact(self, db: SqliteDatabase, batch: Batch, after: StoredCounts) -> None:
        super()._transact(db, batch, after)
        self._commits += 1
        self._runtime.checkpoint()
        if self._commits in self._faults.fail_after_commit:
            self._runtime.note("storage", "failed after commit")
            raise StorageUnavailable("SQLITE_IOERR", "disk I/O error", passing=True)


@contextmanager
def files_bounded() -> Iterator[None]:
    """Lift what `bound_files` did in here."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def bound_files(size: int | None) -> None:
    """From now on no file of this (real) process can be written past `size` bytes: the kernel says EFBIG. None: any."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if size is None else size, hard))


class Remains:
    """What a killed process leaves of its spill file, which its unwinding threads would tidy up."""

    def __init__(self, db_path: Path) -> None:
        self._path = spill_path(db_path)
        self._written: bytes | None = None

    def take(self) -> None:
        """Remember what is written now. To be called in the moment of death."""
        if self._path.is_file():
            with self._path.open("rb") as file:
                blocks = iter(lambda: file.read(1 << 16).partition(b"\0")[0], b"")
                self._written = b"".join(blocks)

    def put_back(self) -> None:
        """Make the file as it was, with a little of its reserve. To be called when all threads are gone."""
        if self._path.is_dir():
            self._path.rmdir()
        if self._written is not None:
            self._path.write_bytes(self._written + bytes(_RESERVE_LEFT))
