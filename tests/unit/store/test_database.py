"""Opening a database: what is refused and how that reads, the lock, PRAGMAs, old and foreign files, odd paths."""

from __future__ import annotations

import os
import resource
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.e2e.tmpfs import small_disk
from tests.unit.store_helpers import (
    ORIGINAL_SCHEMA,
    batch_of,
    counts,
    dump,
    full_batch,
    new_database,
    new_run,
    order,
    python,
    rows,
    storage_of,
    unprivileged,
)
from tradebot.core.errors import ConfigError
from tradebot.core.events import LimitBreach
from tradebot.store.checks import check_path
from tradebot.store.database import (
    connect,
    connect_readonly,
    file_of,
    migrate,
    pragma_values,
    verify_pragmas,
)
from tradebot.store.errors import StorageUnavailable
from tradebot.store.models import SCHEMA_VERSION
from tradebot.store.reader import find_tick_source, read_ticks
from tradebot.store.row_counts import row_counts

ODD_NAMES = [
    "a?b.db",
    "a#b.db",
    "a%20b.db",
    "a b.db",
    "prix-€-価格.db",
    "file:x.db",
    "a&mode=rwc.db",
    "it's.db",
    ":memory:",
]


def foreign(path: Path, script: str) -> Path:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(script)
    return path


class TestPath:
    def test_a_new_file_in_a_new_directory(self, tmp_path: Path) -> None:
        check_path(tmp_path / "one" / "two" / "x.db")
        assert (tmp_path / "one" / "two").is_dir()

    def test_an_empty_file_is_a_new_database(self, tmp_path: Path) -> None:
        (tmp_path / "x.db").touch()
        check_path(tmp_path / "x.db")
        new_database(tmp_path / "x.db").close()
        assert counts(tmp_path / "x.db") == (0, 0, 0, 0)

    @pytest.mark.parametrize("text", ["a line of text\n", "SQLite", "\0" * 100])
    def test_a_text_file(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "x.db"
        path.write_text(text)
        with pytest.raises(ConfigError, match="not a SQLite database; name another file"):
            check_path(path)
        assert path.read_text() == text

    def test_a_directory(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"is a directory; name a file, e\.g\. .*tradebot\.db"):
            check_path(tmp_path)

    def test_something_that_is_no_file(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "x.db")
        with pytest.raises(ConfigError, match="not a regular file"):
            check_path(tmp_path / "x.db")

    def test_below_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for path in (tmp_path / "file" / "x.db", tmp_path / "file" / "deeper" / "x.db"):
            with pytest.raises(ConfigError, match="cannot create its directory"):
                check_path(path)

    def test_a_name_too_long(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="File name too long"):
            check_path(tmp_path / ("x" * 300))

    def test_links_in_a_circle(self, tmp_path: Path) -> None:
        (tmp_path / "x.db").symlink_to("y.db")
        (tmp_path / "y.db").symlink_to("x.db")
        with pytest.raises(ConfigError, match="form a loop"):
            check_path(tmp_path / "x.db")

    def test_a_link_into_a_missing_directory(self, tmp_path: Path) -> None:
        """SQLite follows the link, so it is the target's directory that must be there."""
        (tmp_path / "x.db").symlink_to(tmp_path / "data" / "real.db")
        check_path(tmp_path / "x.db")
        new_database(tmp_path / "x.db").close()
        assert (tmp_path / "data" / "real.db").exists()

    @pytest.mark.parametrize(
        ("mode", "complaint"), [(0o555, "is not writable"), (0o000, "Permission denied")], ids=["read-only", "closed"]
    )
    def test_a_directory_that_lets_us_not_write(self, mode: int, complaint: str) -> None:
        with tempfile.TemporaryDirectory() as place:
            os.chmod(place, 0o755)
            directory = Path(place, "d")
            directory.mkdir(mode=0o777)
            directory.chmod(mode)
            try:
                with unprivileged(), pytest.raises(ConfigError, match=complaint):
                    check_path(directory / "x.db")
            finally:
                directory.chmod(0o700)

    def test_a_file_that_lets_us_not_write(self) -> None:
        with tempfile.TemporaryDirectory() as place:
            os.chmod(place, 0o777)
            path = foreign(Path(place, "x.db"), "CREATE TABLE t (a)")
            path.chmod(0o444)
            with unprivileged(), pytest.raises(ConfigError, match="not readable and writable"):
                check_path(path)


class TestPragmas:
    @pytest.mark.parametrize(("name", "number"), [("NORMAL", 1), ("FULL", 2)])
    def test_are_set(self, tmp_path: Path, name: Any, number: int) -> None:
        """G3, S1."""
        with closing(connect(tmp_path / "x.db", name)) as db:
            assert pragma_values(db) == {
                "journal_mode": "wal", "synchronous": number, "busy_timeout": 5000, "temp_store": 2, "foreign_keys": 1,
            }  # fmt: skip

    @pytest.mark.parametrize(
        "changed",
        ["journal_mode = DELETE", "synchronous = OFF", "busy_timeout = 1", "temp_store = 0", "foreign_keys = 0"],
    )
    def test_a_mismatch_is_refused_by_name(self, tmp_path: Path, changed: str) -> None:
        """G3, S1: refusing to run."""
        with closing(connect(tmp_path / "x.db")) as db:
            db.execute_sql(f"PRAGMA {changed}")
            with pytest.raises(ConfigError, match=rf"PRAGMAs had no effect: {changed.split()[0]} is .*, expected"):
                verify_pragmas(db, "NORMAL")

    def test_every_connection_verifies(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """G3, S1: SQLite takes no PRAGMA's refusal for an error, so it must be asked."""
        monkeypatch.setattr("tradebot.store.database.SqliteDatabase", lambda _path, **kw: _memory(**kw))
        with pytest.raises(ConfigError, match="journal_mode is 'memory', expected 'wal'"):
            connect(tmp_path / "x.db")

    def test_a_locked_database_is_unavailable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tradebot.store.database.BUSY_TIMEOUT_MS", 5)
        with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(StorageUnavailable) as failure:
                connect(tmp_path / "x.db")
        assert (failure.value.code, failure.value.passing) == ("SQLITE_BUSY", True)


def _memory(**options: Any) -> Any:
    from peewee import SqliteDatabase

    return SqliteDatabase(":memory:", **options)


class TestOddPaths:
    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_the_file_has_the_name_it_was_given(
        self, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither '?' nor '#' nor '%' nor "file:" mean anything in a path, absolute or relative."""
        monkeypatch.chdir(tmp_path)
        for path in (Path(name), tmp_path / f"2{name}"):
            check_path(path)
            with storage_of(path, new_run(path)) as storage:
                storage.write(full_batch(1, 10))
            assert path.stat().st_size > 4096
            with closing(connect_readonly(path)) as db:
                assert file_of(db) == str(path.absolute())
                assert sum(map(len, read_ticks(db, find_tick_source(db, None)))) == 10
        made = {file.name.removesuffix("-wal").removesuffix("-shm") for file in tmp_path.iterdir()}
        assert made == {name, f"2{name}"}


class TestMigration:
    def test_an_original_file(self, tmp_path: Path) -> None:
        """Old files work: opened as they are, columns added, rows kept, old queries answered."""
        path = foreign(tmp_path / "x.db", ORIGINAL_SCHEMA)
        old_queries = [
            "SELECT id, symbol, price, volume, ts FROM ticks",
            "SELECT symbol, kind, value, ts FROM signals ORDER BY ts",
            "SELECT symbol, side, qty, price, status, ts FROM orders",
            "SELECT order_id, fees, is_shadow FROM trades",
        ]
        before = [rows(path, query) for query in old_queries]
        with closing(connect(path)) as db:
            assert migrate(db) == 0
            assert row_counts(db) == {"ticks": 2, "signals": 1, "orders": 1, "trades": 1, "order_events": 0}
            assert migrate(db) == SCHEMA_VERSION
        assert [rows(path, query) for query in old_queries] == before
        assert rows(path, "SELECT run, event_id, seq FROM ticks") == [(None, None, None)] * 2
        assert rows(path, "SELECT is_shadow, signal_id FROM orders") == [(1, None)]
        assert rows(path, "PRAGMA integrity_check") == [("ok",)]

    def test_an_original_file_takes_a_run(self, tmp_path: Path) -> None:
        path = foreign(tmp_path / "x.db", ORIGINAL_SCHEMA)
        with storage_of(path, new_run(path)) as storage:
            storage.write(full_batch(1, 20))
        assert counts(path) == (22, 5, 5, 5)
        with pytest.raises(sqlite3.IntegrityError), closing(sqlite3.connect(path)) as db:
            copied = "event_id, order_id, symbol, side, fill_qty, fill_price, fees, ts"
            db.execute(f"INSERT INTO trades ({copied}) SELECT {copied} FROM trades")

    def test_both_schemas_have_the_same_columns(self, tmp_path: Path) -> None:
        def shape(path: Path) -> list[Any]:
            tables = ("ticks", "signals", "orders", "trades", "runs")
            return [
                sorted(row[1:4] for row in rows(path, f"PRAGMA table_info({table})") if row[1] != "id")
                for table in tables
            ]

        new_database(tmp_path / "new.db").close()
        foreign(tmp_path / "old.db", ORIGINAL_SCHEMA)
        new_database(tmp_path / "old.db").close()
        assert shape(tmp_path / "old.db") == shape(tmp_path / "new.db")

    def test_a_newer_schema(self, tmp_path: Path) -> None:
        new_database(tmp_path / "x.db").close()
        foreign(tmp_path / "x.db", f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        with closing(connect(tmp_path / "x.db")) as db:
            newer, known = SCHEMA_VERSION + 1, SCHEMA_VERSION
            with pytest.raises(ConfigError, match=rf"\(schema {newer}; this version supports up to {known}\); upgrade"):
                migrate(db)
            assert not db.in_transaction()

    @pytest.mark.parametrize(
        ("script", "complaint"),
        [
            ("CREATE TABLE ticks (id INTEGER PRIMARY KEY, bid REAL)", "table ticks has no column symbol, has no"),
            ("CREATE TABLE ticks (symbol, price, volume, ts)", "table ticks has no column id"),
            (
                "CREATE TABLE ticks (id INTEGER PRIMARY KEY, symbol, price, volume, ts, venue TEXT NOT NULL)",
                "table ticks has a column venue that must have a value",
            ),
            ("CREATE TABLE ticks (id TEXT, symbol, price, volume, ts)", "a column id that is not INTEGER PRIMARY KEY"),
            ("CREATE VIEW ticks AS SELECT 1; CREATE TABLE orders (x)", "has no column symbol|cannot be upgraded"),
            ("CREATE TABLE moz_places (id INTEGER); CREATE TABLE b (x)", r"another program \(tables: b, moz_places\)"),
            ("CREATE TABLE moz_places (id INTEGER); PRAGMA user_version = 77", "belongs to another program"),
            ("CREATE TABLE moz_places (id INTEGER); PRAGMA user_version = 1", "belongs to another program"),
            ("PRAGMA user_version = -1", "belongs to another program"),
            (
                f"CREATE TABLE ticks (id INTEGER PRIMARY KEY); PRAGMA user_version = {SCHEMA_VERSION}",
                "table runs has no",
            ),
            (
                ORIGINAL_SCHEMA + "ALTER TABLE signals ADD COLUMN event_id TEXT;"
                "UPDATE signals SET event_id = 'x';"
                "INSERT INTO signals SELECT 2, symbol, kind, value, ts, 'x' FROM signals",
                f"cannot be upgraded to schema {SCHEMA_VERSION}: UNIQUE constraint failed",
            ),
        ],
    )  # fmt: skip
    def test_a_foreign_file_is_refused_and_left_as_it_is(self, tmp_path: Path, script: str, complaint: str) -> None:
        """Database unusable; nothing is changed in it."""
        path = foreign(tmp_path / "x.db", script)
        before = rows(path, "SELECT * FROM sqlite_master")
        with closing(connect(path)) as db, pytest.raises(ConfigError, match=complaint) as refusal:
            migrate(db)
        assert str(path) in str(refusal.value)
        assert rows(path, "SELECT * FROM sqlite_master") == before

    def test_an_emptied_file_is_an_empty_one(self, tmp_path: Path) -> None:
        """Tables of SQLite itself make no foreign database."""
        path = foreign(tmp_path / "x.db", "CREATE TABLE a (x); INSERT INTO a VALUES (1); ANALYZE; DROP TABLE a;")
        assert rows(path, "SELECT name FROM sqlite_master") == [("sqlite_stat1",)]
        new_database(path).close()

    def test_a_file_that_was_analyzed_and_has_tables_of_its_own(self, tmp_path: Path) -> None:
        """What people add beside our tables does not matter."""
        new_database(tmp_path / "x.db").close()
        foreign(
            tmp_path / "x.db", "ANALYZE; CREATE TABLE notes (text NOT NULL); ALTER TABLE ticks ADD COLUMN mine TEXT"
        )
        with closing(connect(tmp_path / "x.db")) as db:
            assert migrate(db) == SCHEMA_VERSION


class TestReadonly:
    def test_cannot_write(self, tmp_path: Path) -> None:
        new_run(tmp_path / "x.db")
        with closing(connect_readonly(tmp_path / "x.db")) as db, pytest.raises(Exception, match="readonly database"):
            db.execute_sql("DELETE FROM runs")

    @pytest.mark.parametrize(
        ("make", "complaint"),
        [
            (lambda path: None, "does not exist"),
            (lambda path: path.mkdir(), "is a directory"),
            (lambda path: os.mkfifo(path), "is not a regular file"),
            (lambda path: path.write_text("a line of text, longer than a header\n" * 30), "SQLITE_NOTADB"),
            (lambda path: path.write_text("short"), "SQLITE_NOTADB"),
            (lambda path: path.write_bytes(b"SQLite format 3\0" + b"\x77" * 4080), "SQLITE_NOTADB"),
        ],
    )
    def test_what_is_no_database(self, tmp_path: Path, make: Any, complaint: str) -> None:
        path = tmp_path / "x.db"
        make(path)
        with pytest.raises((ConfigError, StorageUnavailable), match=complaint) as refusal:
            connect_readonly(path)
        assert str(path) in str(refusal.value)
        assert refusal.value.exit_code == 12
        assert "mode=ro" not in str(refusal.value)

    def test_an_empty_file_is_no_source(self, tmp_path: Path) -> None:
        (tmp_path / "x.db").touch()
        with closing(connect_readonly(tmp_path / "x.db")) as db, pytest.raises(ConfigError, match="no table ticks"):
            find_tick_source(db, None)

    def test_a_directory_closed_to_us(self) -> None:
        with tempfile.TemporaryDirectory() as place:
            foreign(Path(place, "x.db"), "CREATE TABLE t (a)")
            with unprivileged():
                if os.access(place, os.X_OK):
                    os.chmod(place, 0)
                with pytest.raises(ConfigError, match="Permission denied"):
                    connect_readonly(Path(place, "x.db"))
            os.chmod(place, 0o700)

    def test_a_closed_database_on_a_read_only_disk(self, tmp_path: Path) -> None:
        """An archived database can be replayed: SQLite is informed that no process writes it, else it creates files."""
        with small_disk(tmp_path / "disk", 2) as disk:
            path = disk.place / "x.db"
            with storage_of(path, new_run(path)) as storage:
                storage.write(full_batch(1, 10))
            disk.make_read_only()
            with closing(connect_readonly(path)) as db:
                assert sum(map(len, read_ticks(db, find_tick_source(db, None)))) == 10

    def test_one_that_was_not_closed_is_refused_or_read_whole(self, tmp_path: Path) -> None:
        """With a WAL beside it the file alone would show old rows: never that."""
        with small_disk(tmp_path / "disk", 4) as disk:
            path = disk.place / "x.db"
            with crashed(path, tmp_path):
                assert Path(f"{path}-wal").stat().st_size > 0
                Path(f"{path}-shm").unlink()
                disk.make_read_only()
                with pytest.raises(StorageUnavailable, match="SQLITE_CANTOPEN") as refusal:
                    connect_readonly(path)
            assert refusal.value.exit_code == 12

    def test_a_disk_that_fails_while_reading_may_work_later(self, tmp_path: Path) -> None:
        """13, which is tried again, and not 12: even a reader makes files beside such a database."""
        path = tmp_path / "x.db"
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        with crashed(path, tmp_path):
            Path(f"{path}-shm").unlink()
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
            try:
                with pytest.raises(StorageUnavailable, match="SQLITE_IOERR") as failure:
                    connect_readonly(path)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
            connect_readonly(path).close()
        assert failure.value.passing and failure.value.exit_code == 13

    def test_reading_leaves_the_locks_of_the_same_process_alone(self, tmp_path: Path) -> None:
        """A file that is opened and closed gives up all POSIX locks that its process has on it. Then another program
        that closes the database takes itself for the last one and deletes the WAL under the writer's feet.
        """
        path = tmp_path / "x.db"
        with storage_of(path, new_run(path)) as storage:
            storage.write(full_batch(1, 10))
            connect_readonly(path).close()
            code = (
                "import sys, sqlite3; db = sqlite3.connect(sys.argv[1]); db.execute('SELECT * FROM ticks'); db.close()"
            )
            with python(code, path) as other:
                assert other.wait(30) == 0
            assert Path(f"{path}-wal").exists()
            storage.write(full_batch(11, 10))
        assert counts(path)[0] == 20


@contextmanager
def crashed(path: Path, tmp_path: Path) -> Iterator[None]:
    """A database as a killed engine leaves it: rows only in the WAL."""
    with storage_of(tmp_path / "whole.db", new_run(tmp_path / "whole.db")) as storage:
        storage.write(full_batch(1, 10))
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").write_bytes(Path(f"{tmp_path / 'whole.db'}{suffix}").read_bytes())
        yield


def test_row_counts(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with storage_of(path, new_run(path)) as storage:
        storage.write(full_batch(1, 10))
    with closing(connect(path)) as db:
        assert row_counts(db) == {"ticks": 10, "signals": 2, "orders": 2, "trades": 2, "order_events": 0}


def test_a_file_of_schema_4_gets_the_limits_of_refusals(tmp_path: Path) -> None:
    """Orders of then name no limit; those that are stored from now on do."""
    path = tmp_path / "x.db"
    record = new_run(path)
    added = ("refused_by", "refused_value", "refused_limit")
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            "".join(f"ALTER TABLE orders DROP COLUMN {name};" for name in added) + "PRAGMA user_version = 4;"
            "INSERT INTO orders (symbol, side, qty, status, ts) VALUES ('A', 'BUY', 1, 'REJECTED', 1)"
        )
    with closing(connect(path)) as db:
        assert migrate(db) == 4
        assert migrate(db) == SCHEMA_VERSION
    with storage_of(path, record) as storage:
        storage.write(batch_of(replace(order(1, fills=0), breach=LimitBreach("risk_caps.max_open_orders", 3.0, 2.0))))
    found = rows(path, f"SELECT {', '.join(added)} FROM orders ORDER BY id")
    assert found == [(None, None, None), ("risk_caps.max_open_orders", 3.0, 2.0)]


def test_a_file_of_schema_2_gets_carried(tmp_path: Path) -> None:
    """Before pruning nothing was pruned or summed up: the table comes, runs count none, and all rows stay."""
    path = tmp_path / "x.db"
    with storage_of(path, new_run(path)) as storage:
        storage.write(full_batch(1, 10))
    added = ("pruned_ticks", "pruned_signals", "pruned_orders", "pruned_trades", "pruned_notices", "folded_trades")
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            "DROP TABLE carried;" + "".join(f"ALTER TABLE runs DROP COLUMN {name};" for name in added)
            + "PRAGMA user_version = 2;"
        )  # fmt: skip
    before = dump(path)
    with closing(connect(path)) as db:
        assert migrate(db) == 2
        assert migrate(db) == SCHEMA_VERSION
        assert db.execute_sql(f"SELECT {', '.join(added)} FROM runs").fetchall() == [(0,) * 6]
        assert db.execute_sql("SELECT COUNT(*) FROM carried").fetchone() == (0,)
    assert dump(path) == before


def test_a_file_of_schema_1_gets_notices(tmp_path: Path) -> None:
    """Before the live feeds there were no notices: the table comes, runs count none, and all rows stay."""
    path = tmp_path / "x.db"
    new_run(path)
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            "DROP TABLE notices; ALTER TABLE runs DROP COLUMN notices; PRAGMA user_version = 1;"
            "INSERT INTO ticks (symbol, price, volume, ts, run) VALUES ('A', 1.0, 2.0, 3, 1);"
        )
    with closing(connect(path)) as db:
        assert migrate(db) == 1
        assert migrate(db) == SCHEMA_VERSION
        assert db.execute_sql("SELECT run_id, notices FROM runs").fetchall() == [("r1", 0)]
        assert db.execute_sql("SELECT COUNT(*) FROM notices").fetchone() == (0,)
        assert db.execute_sql("SELECT symbol FROM ticks").fetchall() == [("A",)]
