"""The engine's database under its feet: deleted, renamed, replaced, truncated."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.unit.store_helpers import REPO, FakeRuntime, Logged, counts, full_batch, new_run, run_info, storage_of
from tradebot.core.errors import OverloadError
from tradebot.store.batch import StoredCounts
from tradebot.store.errors import FILE_REPLACED, StorageUnavailable
from tradebot.store.runs import begin_run
from tradebot.store.session import SqliteStore
from tradebot.store.writer import SqliteWriter


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


@pytest.fixture
def storage(path: Path) -> Iterator[SqliteWriter]:
    """With ten ticks in its log."""
    with storage_of(path, new_run(path)) as opened:
        opened.write(full_batch(1, 10))
        yield opened


def wal(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def replaced(path: Path) -> None:
    """By a copy, as a restored backup is."""
    shutil.copy(path, path.with_name("copy"))
    path.with_name("copy").rename(path)


def truncated(size: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, size)


def assert_found(storage: SqliteWriter, name: Path, what: str) -> None:
    """It fails for good, the message names the file and what happened, and nothing counts as stored."""
    before = storage.counts
    for _ in range(2):
        with pytest.raises(StorageUnavailable) as failure:
            storage.write(full_batch(11, 10))
        assert failure.value.code == FILE_REPLACED and not failure.value.passing
        assert f"{name} {what}" in str(failure.value)
        assert "restore the right file" in str(failure.value)
    assert storage.counts == before


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (Path.unlink, "was deleted or renamed while the engine was writing it"),
        (lambda path: path.rename(path.with_name("y.db")), "was deleted or renamed"),
        (lambda path: path.parent.rename(path.parent.with_name("away")), "was deleted or renamed"),
        (replaced, "was replaced by another file"),
        (truncated(0), "was truncated from"),
        (truncated(4096), "was truncated from"),
    ],
)
def test_a_changed_database_is_found(tmp_path: Path, change: Callable[[Path], None], what: str) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    path = directory / "x.db"
    with storage_of(path, new_run(path)) as storage:
        storage.write(full_batch(1, 10))
        change(path)
        there = path.exists()
        assert_found(storage, path, what)
    assert path.exists() == there, "no new file at the old path"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (Path.unlink, "was deleted or renamed"),
        (lambda path: path.rename(path.with_name("y.db-wal")), "was deleted or renamed"),
        (replaced, "was replaced by another file"),
        (truncated(0), "was truncated from"),
        (truncated(5000), "was truncated from"),
    ],
)
def test_a_changed_log_is_found(path: Path, storage: SqliteWriter, change: Callable[[Path], None], what: str) -> None:
    change(wal(path))
    assert_found(storage, wal(path), what)


def test_a_file_that_changes_during_a_commit_does_not_count(
    path: Path, storage: SqliteWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit went into a file that nobody finds any more."""
    transact = SqliteWriter._transact

    def late(self: SqliteWriter, *arguments: object) -> None:
        transact(self, *arguments)  # type: ignore[arg-type]
        path.rename(path.with_name("y.db"))

    monkeypatch.setattr(SqliteWriter, "_transact", late)
    before = storage.counts
    with pytest.raises(StorageUnavailable, match="deleted or renamed"):
        storage.write(full_batch(11, 10))
    assert storage.counts == before


def test_a_file_that_goes_before_it_is_opened_is_not_made_anew(path: Path) -> None:
    storage = SqliteWriter(path, "NORMAL", new_run(path))
    path.unlink()
    with pytest.raises(StorageUnavailable, match="deleted or renamed"):
        storage.write(full_batch(1, 1))
    assert not path.exists()


def test_a_file_that_is_emptied_before_it_is_opened_is_not_filled_anew(path: Path) -> None:
    """Between the start's look at the database and the first connection that writes to it."""
    run = new_run(path)
    os.truncate(path, 0)
    storage = SqliteWriter(path, "NORMAL", run)
    with pytest.raises(StorageUnavailable, match="was emptied while the engine was writing it") as failure:
        storage.write(full_batch(1, 1))
    assert failure.value.code == FILE_REPLACED
    assert path.stat().st_size == 0


class TestLegitimate:
    """What SQLite and its users may do while the engine writes."""

    def write_more(self, path: Path, storage: SqliteWriter, start: int = 11) -> None:
        before = storage.counts
        storage.write(full_batch(start, 10))
        assert storage.counts == StoredCounts(
            before.ticks + 10, before.signals + 2, before.orders + 2, before.trades + 2
        )

    def test_checkpoints_of_every_kind(self, path: Path, storage: SqliteWriter) -> None:
        with closing(sqlite3.connect(path)) as other:
            for number, kind in enumerate(("PASSIVE", "FULL", "RESTART", "TRUNCATE", "TRUNCATE")):
                assert other.execute(f"PRAGMA wal_checkpoint({kind})").fetchone()[0] == 0
                self.write_more(path, storage, 11 + 10 * number)

    def test_a_log_that_is_cut_down_to_its_limit(self, path: Path, storage: SqliteWriter) -> None:
        """After a long reader has gone: SQLite truncates the log by itself."""
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT COUNT(*) FROM ticks").fetchone()
            start = 11
            while wal(path).stat().st_size < 9 * 1024 * 1024:
                storage.write(full_batch(start, 2000))
                start += 2000
        large = wal(path).stat().st_size
        for _ in range(10):
            storage.write(full_batch(start, 2000))
            start += 2000
        assert wal(path).stat().st_size < large
        self.write_more(path, storage, start)

    def test_vacuum(self, path: Path, storage: SqliteWriter) -> None:
        """By another program: the database shrinks, its file with the next checkpoint."""
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute(
                "CREATE TABLE large AS SELECT randomblob(4000) AS x FROM ticks, ticks AS y, ticks AS z LIMIT 500"
            )
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self.write_more(path, storage, 11)
            size = path.stat().st_size
            other.execute("DROP TABLE large")
            other.execute("VACUUM")
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            assert path.stat().st_size < size
            self.write_more(path, storage, 21)
            self.write_more(path, storage, 31)

    def test_other_connections_that_come_and_go(self, path: Path, storage: SqliteWriter) -> None:
        """The last of them would delete the log, were the engine's not there."""
        for number in range(3):
            with closing(sqlite3.connect(path)) as other:
                other.execute("SELECT COUNT(*) FROM ticks").fetchone()
            self.write_more(path, storage, 11 + 10 * number)

    def test_a_symbolic_link_in_its_name(self, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "x.db").symlink_to(tmp_path / "data" / "x.db")
        path = tmp_path / "x.db"
        with storage_of(path, new_run(path)) as storage:
            storage.write(full_batch(1, 10))
            storage.write(full_batch(11, 10))
        assert counts(path)[0] == 20


CLOSING = """
import shutil, sys, pathlib
from tests.unit.store_helpers import full_batch, new_run
from tradebot.store.writer import SqliteWriter
path = pathlib.Path(sys.argv[1])
storage = SqliteWriter(path, "NORMAL", new_run(path))
storage.write(full_batch(1, 10))
path.rename(path.with_name("old.db"))
wal = path.with_name("x.db-wal")
wal.rename(path.with_name("old.db-wal"))
path.with_name("x.db-shm").rename(path.with_name("old.db-shm"))
shutil.copy(sys.argv[2], path)
shutil.copy(sys.argv[2] + "-wal", wal)
try:
    storage.write(full_batch(11, 10))
except Exception as error:
    print(error)
storage.close()
"""


def test_the_log_of_another_database_is_not_deleted(path: Path, tmp_path: Path) -> None:
    """SQLite deletes the log by name with its last connection, unless the database was moved: this holds it to that."""
    other = tmp_path / "other.db"
    with storage_of(other, new_run(other, "r2")) as storage:
        storage.write(full_batch(1, 30, run_id="r2"))
        shutil.copy(other, tmp_path / "given.db")
        shutil.copy(wal(other), tmp_path / "given.db-wal")
    command = [sys.executable, "-c", CLOSING, str(path), str(tmp_path / "given.db")]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True, timeout=60, check=True
    )
    assert "was replaced by another file" in done.stdout
    assert wal(path).read_bytes() == (tmp_path / "given.db-wal").read_bytes()
    assert counts(path)[0] == 30
    assert counts(tmp_path / "old.db")[0] == 10


@pytest.mark.parametrize(
    ("change", "what"), [(Path.unlink, "was deleted or renamed"), (truncated(0), "was truncated from .* to 0 bytes")]
)
def test_the_end_of_a_run_is_not_written_into_another_file(
    path: Path, change: Callable[[Path], None], what: str
) -> None:
    """Nothing appears at the old path, in a market too quiet for a flush that would have found it."""
    runtime = FakeRuntime()
    logged = Logged(runtime)
    store = SqliteStore(path, "NORMAL", 1.0, runtime, logged.log)
    store.with_database(lambda db: begin_run(db, run_info(), 1, resume=False))
    change(path)
    there = path.exists()
    with pytest.raises(OverloadError, match=what):
        store.at_the_end(lambda db: None, 5.0)
    assert path.exists() == there and not runtime.slept
    assert not there or not path.stat().st_size
    store.close()
    logged.log.close()
