"""What a kill or a power loss can leave where a database is to be: an engine starts on all of it, and a
database of another program is not altered by the attempt.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.unit.store_helpers import (
    FakeRuntime,
    Logged,
    a_foreign_database,
    counts,
    full_batch,
    new_database,
    new_run,
    python,
    rows,
    storage_of,
)
from tradebot.core.errors import ConfigError
from tradebot.store.models import MODELS, SCHEMA_VERSION
from tradebot.store.session import SqliteStore

SQLITE_MAGIC = b"SQLite format 3\x00"

# A transaction with a rollback journal that does not fit into the cache: pages reach the file before the commit does.
KILLED = """
import os, signal, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode = DELETE")
db.execute("PRAGMA cache_size = 1")
db.execute("BEGIN IMMEDIATE")
for number in range(100):
    db.execute(f"CREATE TABLE t{number} (text)")
    db.execute(f"INSERT INTO t{number} VALUES (?)", ("x" * 5000,))
os.kill(os.getpid(), signal.SIGKILL)
"""


def start(path: Path) -> list[str]:
    """Open `path` as an engine does, and close it; the messages that were logged."""
    runtime = FakeRuntime()
    logged = Logged(runtime)
    try:
        SqliteStore(path, "NORMAL", 3.0, runtime, logged.log).close()
    finally:
        logged.log.close()
    assert runtime.slept == []
    return [line["fields"]["message"] for line in logged.lines()]


def killed_in_a_transaction(path: Path) -> None:
    """Leaves a hot rollback journal beside `path`, and in it what must be rolled back."""
    with python(KILLED, path) as process:
        process.wait(30)
    assert Path(f"{path}-journal").stat().st_size > 512
    assert path.stat().st_size > 100_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[Path]:
    """A database that a running engine writes: its newest rows, and its schema, are in the WAL."""
    path = tmp_path / "whole.db"
    with storage_of(path, new_run(path)) as storage, closing(sqlite3.connect(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM ticks").fetchall()  # so that no checkpoint empties the WAL
        storage.write(full_batch(1, 50))
        yield path


def copy_of(path: Path, place: Path, *suffixes: str) -> None:
    for suffix in suffixes:
        shutil.copy(f"{path}{suffix}", f"{place}{suffix}")


class TestRecovery:
    def test_killed_while_the_first_schema_was_made(self, path: Path) -> None:
        """The file has no header yet: its first page is still in the cache of the killed process."""
        killed_in_a_transaction(path)
        assert path.read_bytes()[:16] == bytes(16)
        start(path)
        assert counts(path) == (0, 0, 0, 0)
        assert rows(path, "SELECT COUNT(*) FROM sqlite_master WHERE name LIKE 't_' OR name LIKE 't__'") == [(0,)]
        assert not Path(f"{path}-journal").exists()

    @pytest.mark.parametrize("cut", [0, 1, 511, 512, 4096, 5000])
    def test_killed_while_the_file_grew(self, path: Path, cut: int) -> None:
        killed_in_a_transaction(path)
        with path.open("r+b") as file:
            file.truncate(cut)
        start(path)
        assert counts(path) == (0, 0, 0, 0)

    def test_killed_in_a_transaction_of_a_database_of_ours(self, path: Path) -> None:
        """Not of an engine, whose journal is a WAL, but of a program that changed the mode."""
        with storage_of(path, new_run(path)) as storage:
            storage.write(full_batch(1, 50))
        killed_in_a_transaction(path)
        start(path)
        assert counts(path) == (50, 10, 10, 10)
        assert rows(path, "PRAGMA integrity_check") == [("ok",)]

    @pytest.mark.parametrize("shm", [None, b"", b"\xff" * 32768], ids=["none", "empty", "noise"])
    def test_a_wal_without_its_index(self, path: Path, whole: Path, shm: bytes | None) -> None:
        copy_of(whole, path, "", "-wal")
        if shm is not None:
            Path(f"{path}-shm").write_bytes(shm)
        start(path)
        assert counts(path) == (50, 10, 10, 10)

    def test_a_first_page_that_was_torn_while_the_wal_was_emptied(self, path: Path, whole: Path) -> None:
        """SQLite reads the page from the WAL."""
        with closing(sqlite3.connect(whole, isolation_level=None)) as db:
            db.execute("CREATE TABLE mine (x)")  # which changes the first page
        copy_of(whole, path, "", "-wal")
        with path.open("r+b") as file:
            file.write(bytes(512))
        start(path)
        assert counts(path) == (50, 10, 10, 10)

    @pytest.mark.parametrize("suffix", ["-journal", "-wal", "-shm"])
    def test_an_empty_database_beside_remains(self, path: Path, suffix: str) -> None:
        path.touch()
        Path(f"{path}{suffix}").touch()
        start(path)
        assert counts(path) == (0, 0, 0, 0)


class TestHalfMadeSchema:
    @pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.table_name)
    def test_one_table_alone(self, path: Path, model: type) -> None:
        table = model._meta.table_name  # type: ignore[attr-defined]
        new_database(path).close()
        with closing(sqlite3.connect(path)) as db:
            others = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for other in others:
                if other not in (table, "sqlite_sequence"):
                    db.execute(f"DROP TABLE {other}")
            db.execute("PRAGMA user_version = 0")
        start(path)
        assert counts(path) == (0, 0, 0, 0)
        assert rows(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]

    @pytest.mark.parametrize("table", ["runs (id INTEGER PRIMARY KEY, status TEXT)", "notices (text)", "carried (x)"])
    def test_a_table_that_only_shares_a_name(self, path: Path, table: str) -> None:
        """Refused before a byte of it changes."""
        with closing(sqlite3.connect(path)) as db:
            db.execute(f"CREATE TABLE {table}")
        before = path.read_bytes()
        with pytest.raises(ConfigError, match="belongs to another program"):
            start(path)
        assert path.read_bytes() == before


class TestOtherPrograms:
    def test_a_killed_one_is_rolled_back_and_no_more(self, path: Path) -> None:
        """As every reader that may write does; its mode stays, and so do its rows."""
        a_foreign_database(path)
        before = path.read_bytes()
        killed_in_a_transaction(path)
        with pytest.raises(ConfigError, match=r"belongs to another program \(tables: other\)"):
            start(path)
        assert path.read_bytes()[28:] == before[28:]  # before that: counters of changes
        assert rows(path, "PRAGMA journal_mode") == [("delete",)]

    def test_one_that_writes_a_wal(self, path: Path) -> None:
        """Not even its WAL is emptied."""
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("CREATE TABLE other (x)")
            files = [path, Path(f"{path}-wal")]
            before = [file.read_bytes() for file in files]
            with pytest.raises(ConfigError, match="belongs to another program"):
                start(path)
            assert [file.read_bytes() for file in files] == before

    @pytest.mark.parametrize("beside", [b"", b"my diary, second volume\n" * 40, bytes(1024)])
    @pytest.mark.parametrize("suffix", ["-journal", "-wal"])
    def test_a_text_file_beside_a_file_of_such_a_name(self, path: Path, suffix: str, beside: bytes) -> None:
        path.write_text("my diary\n")
        other = Path(f"{path}{suffix}")
        other.write_bytes(beside)
        with pytest.raises(ConfigError, match="not a SQLite database"):
            start(path)
        assert path.read_text() == "my diary\n"
        assert other.read_bytes() == beside


@pytest.mark.parametrize(
    ("damage", "word"),
    [(lambda path: path.write_bytes(SQLITE_MAGIC + b"\x77" * 8000), "SQLITE_NOTADB")],
)
def test_what_cannot_be_recovered_is_refused_at_once(path: Path, damage: Callable[[Path], object], word: str) -> None:
    damage(path)
    with pytest.raises(ConfigError, match=word):
        start(path)
