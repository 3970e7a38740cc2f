"""Scheduled storage faults: busy, full, slow, errors before or after a commit, no space for a spill file."""

from __future__ import annotations

import glob
import mmap
import os
import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import Struct
from peewee import SqliteDatabase

from sim.checks.causes import Causes
from sim.kernel.runtime import SimRuntime
from sim.world.disk import Disk
from sim.world.torn_writes import TornTransaction, torn
from tradebot.config.model import Synchronous
from tradebot.core.runtime import Runtime
from tradebot.output.log import Log
from tradebot.store.batch import StoredCounts, WriteBatch
from tradebot.store.database import BUSY_TIMEOUT_MS
from tradebot.store.errors import StorageUnavailable
from tradebot.store.runs import RunRecord
from tradebot.store.session import SqliteStore
from tradebot.store.spill import spill_path
from tradebot.store.writer import SqliteWriter

_RESERVE_LEFT: Final = 4096


class StorageFaults(Struct):
    """Storage faults, in simulated seconds since the history began. May be changed while it runs."""

    busy_from_s: float = 0.0
    busy_until_s: float = 0.0
    full_from_s: float = 0.0
    full_until_s: float = 0.0
    slow_s: float = 0.0
    """Each write takes this long."""
    fail_calls: tuple[int, ...] = ()
    """Writes (from 1) that report an I/O error and store nothing."""
    fail_after_commit: tuple[int, ...] = ()
    """Commits (from 1) that succeed but report an I/O error."""
    kill_at_write: int | None = None
    """kill -9 at the start of this write (from 1): earlier batches are stored, nothing of this one."""
    kill_at_commit: int | None = None
    """kill -9 after this commit (from 1), before the engine learns of it."""
    torn_transactions: tuple[TornTransaction, ...] = ()
    no_spill: bool = False
    """There is no space for a spill file when the process starts."""


class FaultyWriter(SqliteWriter):
    """The real storage, with faults before a write and after its commit."""

    def __init__(
        self,
        path: Path,
        synchronous: Synchronous,
        run: RunRecord,
        faults: StorageFaults,
        runtime: SimRuntime,
        disk: Disk,
    ) -> None:
        super().__init__(path, synchronous, run)
        self._faults = faults
        self._disk = disk
        self._runtime = runtime
        self._calls = 0
        self._commits = 0
        self._transactions = 0
        self.causes: Causes | None = None
        """Once something is stored."""
        self.failing = False
        """Whether the last write failed."""
        self.stored_nowhere = False
        """Whether a batch counted as stored after the database had been moved away."""
        self.failing_since_s: float | None = None
        """When the current series of failed writes began; None: the last write succeeded."""
        self.insisted_s = 0.0
        """The longest time between a first failure and a retry of the same write."""
        if faults.no_spill:
            spill_path(path).mkdir()

    def write(self, batch: WriteBatch, patience_ms: int = BUSY_TIMEOUT_MS) -> None:
        """Write, unless a fault is active: a locked database first waits for `patience_ms`, as SQLite's busy handler
        does.
        """
        runtime = self._runtime
        self._calls += 1
        if self._calls == self._faults.kill_at_write:
            runtime.kill()
        if self.failing_since_s is not None:
            self.insisted_s = max(self.insisted_s, runtime.elapsed_s - self.failing_since_s)
        self.failing = True
        try:
            self._write(batch, patience_ms)
        except StorageUnavailable:
            self.failing_since_s = runtime.elapsed_s if self.failing_since_s is None else self.failing_since_s
            raise
        self.failing = False
        self.failing_since_s = None
        runtime.note("stored", batch.rows)

    def _write(self, batch: WriteBatch, patience_ms: int) -> None:
        runtime = self._runtime
        if self._faults.slow_s:
            runtime.note("storage", "slow")
            runtime.sleep(self._faults.slow_s)
        self._fail_before(patience_ms)
        runtime.checkpoint()
        was_away = self._disk.is_away
        super().write(batch)
        self.stored_nowhere = self.stored_nowhere or was_away

    def _fail_before(self, patience_ms: int) -> None:
        faults, runtime = self._faults, self._runtime
        now_s = runtime.elapsed_s
        if faults.busy_from_s <= now_s < faults.busy_until_s:
            runtime.sleep(min(patience_ms / 1000, faults.busy_until_s - now_s))
            if runtime.elapsed_s < faults.busy_until_s:
                self._disk.hold()
                runtime.note("storage", "busy")
                raise StorageUnavailable("SQLITE_BUSY", "database is locked", passing=True)
        self._disk.release()
        if faults.full_from_s <= runtime.elapsed_s < faults.full_until_s:
            runtime.note("storage", "full")
            raise StorageUnavailable("SQLITE_FULL", "database or disk is full", passing=True)
        if self._calls in faults.fail_calls:
            runtime.note("storage", "failed")
            raise StorageUnavailable("SQLITE_IOERR", "disk I/O error", passing=True)

    def _transact(self, db: SqliteDatabase, batch: WriteBatch, after: StoredCounts) -> None:
        self._transactions += 1
        torn_transactions = [tear for tear in self._faults.torn_transactions if tear.transaction == self._transactions]
        super()._transact(torn(db, torn_transactions[0], self._runtime) if torn_transactions else db, batch, after)
        if self.causes is None:
            connection: sqlite3.Connection = db.connection()  # type: ignore[no-untyped-call]
            rows = connection.execute("SELECT event_id FROM signals WHERE run = ?", (self._run.no,))
            self.causes = Causes([event_id for (event_id,) in rows])
        self.causes.committed(batch, after)
        self._commits += 1
        if self._commits == self._faults.kill_at_commit:
            self._runtime.kill()
        self._runtime.checkpoint()
        if self._commits in self._faults.fail_after_commit:
            self._runtime.note("storage", "failed after commit")
            raise StorageUnavailable("SQLITE_IOERR", "disk I/O error", passing=True)


class WriterWorld(NamedTuple):
    """What a `FaultyWriter` meets, and `made`, which is called with each one that is made."""

    faults: StorageFaults
    runtime: SimRuntime
    disk: Disk
    made: Callable[[FaultyWriter], None]


class FaultyStore(SqliteStore):
    """The real store, whose writers meet faults."""

    def __init__(
        self, path: Path, synchronous: Synchronous, storage_retry_s: float, runtime: Runtime, log: Log,
        world: WriterWorld,
    ) -> None:  # fmt: skip
        """Open it. `runtime` may be a view of the world's own."""
        self._world = world
        super().__init__(path, synchronous, storage_retry_s, runtime, log)

    def writer(self, record: RunRecord) -> FaultyWriter:
        """A writer for the run."""
        faults, runtime, disk, made = self._world
        writer = FaultyWriter(self.path, self.synchronous, record, faults, runtime, disk)
        made(writer)
        return writer


@contextmanager
def files_bounded() -> Iterator[None]:
    """Undo `bound_files` at the end of the block."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def bound_files(size: int | None) -> None:
    """Limit the file size of this (real) process to `size` bytes: the kernel returns EFBIG. None: no limit."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if size is None else size, hard))


def open_files() -> list[tuple[int, str]]:
    """Descriptors of this (real) process and the files that they are open on; none where there is no /proc."""
    directory = Path("/proc/self/fd")
    found: list[tuple[int, str]] = []
    for entry in sorted(directory.iterdir()) if directory.is_dir() else ():
        with suppress(OSError):  # the descriptor of the listing itself is closed already
            found.append((int(entry.name), os.readlink(entry)))
    return found


class FileSnapshot:
    """The files of a database at the moment its process died, whatever unwinding threads have done to them since.

    A real kill runs no `finally`: SQLite's log is not checkpointed, a spill file gets no end mark.
    """

    def __init__(self, db_path: Path) -> None:
        self._db_path = db_path
        self._spill = spill_path(db_path)
        self._files: dict[Path, bytes | memoryview] | None = None

    def save(self) -> None:
        """Save the files, unless that was done before. Call it at the moment of death."""
        if self._files is not None:
            return
        self._files = {path: self._content(path) for path in self._present() if path.is_file()}

    def restore_files(self) -> None:
        """Restore the saved files. Call it when all threads have ended and closed their files."""
        if self._spill.is_dir():
            self._spill.rmdir()
        if self._files is None:
            return
        still_open = [name for _descriptor, name in open_files() if name.startswith(os.path.realpath(self._db_path))]
        if still_open:
            raise RuntimeError(f"the killed process's threads are gone, but its files are open: {still_open}")
        for path in self._present():
            path.unlink()
        for path, content in self._files.items():
            path.write_bytes(content)

    def _present(self) -> list[Path]:
        return sorted(self._db_path.parent.glob(f"{glob.escape(self._db_path.name)}*"))

    def _content(self, path: Path) -> bytes | memoryview:
        """The whole file; of a spill file the written part and a little of its large reserve of zeros."""
        if path != self._spill:
            return _mapped(path)
        with path.open("rb") as file:
            blocks = iter(lambda: file.read(1 << 16).partition(b"\0")[0], b"")
            return b"".join(blocks) + bytes(_RESERVE_LEFT)


def _mapped(path: Path) -> memoryview:
    """A file's content in an anonymous mapping: megabytes at every kill, all day, would fragment the heap."""
    size = path.stat().st_size
    content = memoryview(mmap.mmap(-1, max(1, size)))[:size]
    with path.open("rb", buffering=0) as file:
        got = 0
        while got < size:
            count = file.readinto(content[got:])
            if not count:
                raise RuntimeError(f"{path} became shorter while it was read")
            got += count
    return content
