"""Opening the database of a run: all steps in order, with patience for what can pass and a clear no for the rest."""

from __future__ import annotations

import errno
import os
import re
import resource
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from peewee import SqliteDatabase

from tests.e2e.tmpfs import small_disk
from tests.unit.store_helpers import (
    ORIGINAL_SCHEMA,
    FakeRuntime,
    Logged,
    counts,
    full_batch,
    locked,
    new_database,
    new_run,
    rows,
    storage_of,
    unprivileged,
)
from tradebot.core.cancellation import Cancelled
from tradebot.core.errors import ConfigError, OverloadError
from tradebot.core.log_events import LogEvent
from tradebot.store.batch import StoredCounts
from tradebot.store.errors import StorageUnavailable
from tradebot.store.lock import WriterLock
from tradebot.store.session import SqliteStore
from tradebot.store.spill import Spill, spill_path


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture
def logged(runtime: FakeRuntime) -> Iterator[Logged]:
    kept = Logged(runtime)
    yield kept
    kept.log.close()


@pytest.fixture(autouse=True)
def _short_busy_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tradebot.store.database.BUSY_TIMEOUT_MS", 5)


def opened(path: Path, runtime: FakeRuntime, logged: Logged, retry_s: float = 3.0) -> SqliteStore:
    return SqliteStore(path, "NORMAL", retry_s, runtime, logged.log)


class TestOpening:
    def test_a_new_database(self, tmp_path: Path, runtime: FakeRuntime, logged: Logged) -> None:
        """G3, S1: verified PRAGMAs and the row counts are in the log."""
        opened(tmp_path / "new" / "x.db", runtime, logged).close()
        verified = logged.one(LogEvent.PRAGMA_VERIFICATION)
        assert (verified["journal_mode"], verified["synchronous"], verified["foreign_keys"]) == ("wal", 1, 1)
        state = logged.one(LogEvent.INITIAL_DATABASE_STATE)
        assert {name: state[name] for name in ("ticks", "signals", "orders", "trades")} == {
            "ticks": 0, "signals": 0, "orders": 0, "trades": 0,
        }  # fmt: skip
        assert not logged.all(LogEvent.SCHEMA_MIGRATED)

    def test_an_original_database(self, tmp_path: Path, runtime: FakeRuntime, logged: Logged) -> None:
        with closing(sqlite3.connect(tmp_path / "x.db")) as db:
            db.executescript(ORIGINAL_SCHEMA)
        opened(tmp_path / "x.db", runtime, logged).close()
        assert logged.one(LogEvent.SCHEMA_MIGRATED)["database"] == str(tmp_path / "x.db")
        assert logged.one(LogEvent.INITIAL_DATABASE_STATE)["ticks"] == 2

    def test_a_second_engine(self, tmp_path: Path, runtime: FakeRuntime, logged: Logged) -> None:
        """Refused as long as the first has it open, by any of its names."""
        (tmp_path / "link.db").symlink_to(tmp_path / "x.db")
        store = opened(tmp_path / "x.db", runtime, logged)
        for name in ("x.db", "link.db"):
            with pytest.raises(ConfigError, match="another engine"):
                opened(tmp_path / name, runtime, logged)
        store.close()
        store.close()
        opened(tmp_path / "link.db", runtime, logged).close()

    def test_a_failed_start_lets_others_in(self, tmp_path: Path, runtime: FakeRuntime, logged: Logged) -> None:
        new_database(tmp_path / "x.db").close()
        with closing(sqlite3.connect(tmp_path / "x.db")) as db:
            db.execute("PRAGMA user_version = 9")
            with pytest.raises(ConfigError, match="newer tradebot"):
                opened(tmp_path / "x.db", runtime, logged)
            db.execute("PRAGMA user_version = 1")
        opened(tmp_path / "x.db", runtime, logged).close()

    def test_a_refused_engine_makes_no_files(self, tmp_path: Path, runtime: FakeRuntime, logged: Logged) -> None:
        (tmp_path / "notes.txt").write_text("some text\n" * 10)
        with pytest.raises(ConfigError, match="not a SQLite database"):
            opened(tmp_path / "notes.txt", runtime, logged)
        assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]

    @pytest.mark.parametrize(("start", "code"), [(100, "NOTADB|CORRUPT"), (4096, "SQLITE_CORRUPT")])
    def test_a_damaged_file(self, tmp_path: Path, runtime: FakeRuntime, logged: Logged, start: int, code: str) -> None:
        """Unusable, 12, at once; retrying would not mend it."""
        path = tmp_path / "x.db"
        with storage_of(path, new_run(path)) as storage:
            storage.write(full_batch(1, 500))
        with path.open("r+b") as file:
            file.seek(start)
            file.write(b"\x5a" * (path.stat().st_size - start))
        with pytest.raises(ConfigError, match=code) as refusal:
            opened(path, runtime, logged)
        assert str(path) in str(refusal.value)
        assert runtime.slept == []


class TestPatience:
    def test_locked_at_the_start_then_free(self, tmp_path: Path, runtime: FakeRuntime, logged: Logged) -> None:
        """A database that is locked at start is waited for."""
        new_database(tmp_path / "x.db").close()
        with locked(tmp_path / "x.db") as other:
            runtime.on_sleep = lambda: other.close() if len(runtime.slept) == 3 else None
            opened(tmp_path / "x.db", runtime, logged).close()
        assert runtime.slept == [0.05, 0.1, 0.2]
        assert [line["retry_in_s"] for line in logged.all(LogEvent.STORAGE_UNAVAILABLE)] == runtime.slept

    def test_locked_for_good(self, tmp_path: Path, runtime: FakeRuntime, logged: Logged) -> None:
        """13 naming the database and what holds it, after storage_retry_s; the lock is given back."""
        new_database(tmp_path / "x.db").close()
        with locked(tmp_path / "x.db"), pytest.raises(OverloadError, match=r"x\.db: .*SQLITE_BUSY: another program"):
            opened(tmp_path / "x.db", runtime, logged)
        assert sum(runtime.slept) == pytest.approx(3.0)
        opened(tmp_path / "x.db", runtime, logged).close()

    def test_a_disk_that_fails_at_the_start(self, tmp_path: Path, runtime: FakeRuntime, logged: Logged) -> None:
        """Not even the first look at the file ends with 12 when the disk has no room for it just now."""
        new_database(tmp_path / "x.db").close()
        before = resource.getrlimit(resource.RLIMIT_FSIZE)

        def recover() -> None:
            if len(runtime.slept) == 2:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)

        runtime.on_sleep = recover
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            opened(tmp_path / "x.db", runtime, logged).close()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert runtime.slept == [0.05, 0.1]

    def test_no_descriptor_is_left(self, tmp_path: Path, runtime: FakeRuntime, logged: Logged) -> None:
        """Whatever number of descriptors is left, the start waits, and continues when there are more."""
        new_database(tmp_path / "x.db").close()
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        with (tmp_path / "x.db").open() as file:
            lowest = file.fileno()
        runtime.on_sleep = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for left in range(8):
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + left, before[1]))
            try:
                opened(tmp_path / "x.db", runtime, logged).close()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
        told = [line["detail"] for line in logged.all(LogEvent.STORAGE_UNAVAILABLE)]
        assert len(told) >= 4
        assert not any("damaged" in text for text in told)
        assert {"EMFILE", "SQLITE_CANTOPEN"} <= {text.partition("(")[2].split(":")[0] for text in told}

    def test_no_descriptor_for_good(self, tmp_path: Path, runtime: FakeRuntime, logged: Logged) -> None:
        """Exit 13, never 12, with the name of the file and the limit to raise."""
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        with (tmp_path / "x").open("w") as file:
            resource.setrlimit(resource.RLIMIT_NOFILE, (file.fileno(), before[1]))
        try:
            with pytest.raises(OverloadError, match=r"x\.db\.lock: Too many open files \(EMFILE: raise the limit"):
                opened(tmp_path / "x.db", runtime, logged)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert sum(runtime.slept) == pytest.approx(3.0)

    def test_a_read_only_file_system(self, tmp_path: Path, runtime: FakeRuntime, logged: Logged) -> None:
        """The kernel remounts a file system read-only after an error; after a repair the start continues."""
        with small_disk(tmp_path / "disk", 4) as disk:
            new_database(disk.place / "x.db").close()
            disk.make_read_only()
            for name in ("x.db", "y.db", "new/z.db"):
                with pytest.raises(OverloadError, match="EROFS: the file system is read-only"):
                    opened(disk.place / name, runtime, logged)
            runtime.on_sleep = disk.make_writable
            opened(disk.place / "x.db", runtime, logged).close()

    @pytest.mark.parametrize("where", ["tradebot.store.checks.os.access", "tradebot.store.checks.Path.is_dir"])
    @pytest.mark.parametrize("number", [errno.EIO, errno.EDQUOT, errno.ENFILE])
    def test_errors_that_pass(
        self, tmp_path: Path, runtime: FakeRuntime, logged: Logged, monkeypatch: pytest.MonkeyPatch, number: int,
        where: str,
    ) -> None:  # fmt: skip
        """The first checks of the file are retried, too."""

        def fail(*_arguments: object) -> bool:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(where, fail)
            with pytest.raises(OverloadError, match=f"x.db: .*{errno.errorcode[number]}") as failure:
                opened(tmp_path / "x.db", runtime, logged)
        assert sum(runtime.slept) == pytest.approx(3.0)
        assert "damaged" not in str(failure.value)
        opened(tmp_path / "x.db", runtime, logged).close()

    def test_a_stop_signal_ends_the_wait(self, tmp_path: Path, runtime: FakeRuntime, logged: Logged) -> None:
        """S13: nothing was accepted yet, so a stop is served at once."""
        new_database(tmp_path / "x.db").close()
        runtime.on_sleep = runtime.signal
        with locked(tmp_path / "x.db"), pytest.raises(Cancelled):
            opened(tmp_path / "x.db", runtime, logged)
        assert len(runtime.slept) == 1

    def test_at_the_end_signals_do_not_count(self, tmp_path: Path, runtime: FakeRuntime, logged: Logged) -> None:
        store = opened(tmp_path / "x.db", runtime, logged)
        runtime.signal()
        with locked(tmp_path / "x.db") as other:
            runtime.on_sleep = other.close
            store.at_the_end(lambda db: db.execute_sql("CREATE TABLE done (x)"), retry_s=1.0)
        with locked(tmp_path / "x.db"), pytest.raises(OverloadError):
            store.at_the_end(lambda db: db.execute_sql("CREATE TABLE more (x)"), retry_s=0.0)
        assert rows(tmp_path / "x.db", "SELECT COUNT(*) FROM sqlite_master WHERE name IN ('done', 'more')") == [(1,)]
        store.close()

    def test_errors_of_the_work_itself(self, tmp_path: Path, runtime: FakeRuntime, logged: Logged) -> None:
        """Whatever the work does with the connection, a passing failure is tried again and a bug is let through."""
        store = opened(tmp_path / "x.db", runtime, logged)
        attempts: list[SqliteDatabase] = []

        def work(db: SqliteDatabase) -> str:
            attempts.append(db)
            if len(attempts) < 3:
                raise StorageUnavailable("SQLITE_FULL", "database or disk is full", passing=True)
            return "done"

        def lasting(db: SqliteDatabase) -> None:
            raise StorageUnavailable("SQLITE_CORRUPT", "malformed", passing=False)

        assert store.with_database(work) == "done"
        assert all(db.is_closed() for db in attempts)
        with pytest.raises(ZeroDivisionError):
            store.with_database(lambda db: 1 // 0)
        with pytest.raises(ConfigError, match="SQLITE_CORRUPT"):
            store.with_database(lasting)
        with pytest.raises(OverloadError, match="SQLITE_CORRUPT"):
            store.at_the_end(lasting, 1.0)
        store.close()


class TestDamageInDoubt:
    """SQLite reports a page that the disk cannot read (EIO) as damaged; tradebot distinguishes the two."""

    def store(self, path: Path, runtime: FakeRuntime, logged: Logged) -> tuple[SqliteStore, list[SqliteDatabase], Any]:
        """A store, the connections of the attempts, and work that finds the file damaged until the third of them."""
        attempts: list[SqliteDatabase] = []

        def work(db: SqliteDatabase) -> str:
            attempts.append(db)
            if len(attempts) < 3:
                raise StorageUnavailable("SQLITE_CORRUPT", "database disk image is malformed", passing=False)
            return "read"

        return opened(path, runtime, logged), attempts, work

    def test_a_file_that_can_be_read_is_damaged_at_the_second_look(
        self, tmp_path: Path, runtime: FakeRuntime, logged: Logged
    ) -> None:
        store, attempts, work = self.store(tmp_path / "x.db", runtime, logged)
        with pytest.raises(ConfigError, match="SQLITE_CORRUPT: the file is damaged, or the disk cannot read it"):
            store.with_database(work)
        assert (len(attempts), runtime.slept) == (2, [])
        store.close()

    def test_one_failed_read(self, tmp_path: Path, runtime: FakeRuntime, logged: Logged) -> None:
        store, attempts, work = self.store(tmp_path / "x.db", runtime, logged)
        attempts += [SqliteDatabase(":memory:")]  # one of the two failures is over
        assert store.with_database(work) == "read"
        assert runtime.slept == []
        store.close()

    @pytest.mark.parametrize("file", ["x.db", "x.db-wal"])
    def test_a_file_that_cannot_be_read(
        self, tmp_path: Path, runtime: FakeRuntime, logged: Logged, monkeypatch: pytest.MonkeyPatch, file: str
    ) -> None:
        """Waited for like a locked one, and not called damaged."""
        store, _attempts, work = self.store(tmp_path / "x.db", runtime, logged)

        def fail(*_arguments: object) -> Iterator[None]:
            raise OSError(errno.EIO, "Input/output error")

        with closing(sqlite3.connect(tmp_path / "x.db")) as db, monkeypatch.context() as patch:
            db.execute("CREATE TABLE mine (x)")  # makes a log
            if file == "x.db":
                patch.setattr(WriterLock, "read_through", fail)
            else:
                patch.setattr("tradebot.store.session.Path.open", fail)
            assert store.with_database(work) == "read"
        assert runtime.slept == [0.05, 0.1]
        told = [line["detail"] for line in logged.all(LogEvent.STORAGE_UNAVAILABLE)]
        assert all("x.db: cannot be read: Input/output error (EIO" in text for text in told)
        assert not any("damaged" in text for text in told)
        store.close()

    def test_all_of_it_is_read(self, tmp_path: Path, runtime: FakeRuntime, logged: Logged) -> None:
        path = tmp_path / "x.db"
        with storage_of(path, new_run(path)) as storage:
            storage.write(full_batch(1, 20_000))
        lock = WriterLock(path)
        assert len(list(lock.read_through())) == -(-path.stat().st_size // (1 << 20)) > 1
        lock.release()


class TestCompanions:
    """A file beside the database that cannot be used is refused immediately, with its name."""

    @pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal", ".lock", ".spill", ".status.json"])
    def test_of_another_user(self, runtime: FakeRuntime, logged: Logged, suffix: str) -> None:
        with tempfile.TemporaryDirectory() as place:
            os.chmod(place, 0o777)
            path = Path(place, "x.db")
            new_database(path).close()
            path.chmod(0o666)
            other = Path(f"{path}{suffix}")
            other.touch(mode=0o600)
            with unprivileged():
                if not os.geteuid():
                    pytest.skip("root may open everything")
                with pytest.raises(ConfigError, match=rf"{re.escape(str(other))} belongs to root") as refusal:
                    opened(path, runtime, logged)
        assert "run as the user that wrote it" in str(refusal.value)
        assert runtime.slept == []

    @pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal", ".lock", ".spill"])
    @pytest.mark.parametrize(
        ("make", "kind"), [(Path.mkdir, "not a regular file"), (os.mkfifo, "not a regular file"), (None, "a symbolic")]
    )
    def test_of_another_kind(
        self, tmp_path: Path, runtime: FakeRuntime, logged: Logged, suffix: str, make: Any, kind: str
    ) -> None:
        path = tmp_path / "x.db"
        new_database(path).close()
        if make is None:
            Path(f"{path}{suffix}").symlink_to(tmp_path / "elsewhere")
        else:
            make(Path(f"{path}{suffix}"))
        with pytest.raises(ConfigError, match=rf"{re.escape(str(path))}{re.escape(suffix)} is {kind}"):
            opened(path, runtime, logged)
        assert runtime.slept == []
        assert not (tmp_path / "elsewhere").exists()

    def test_a_name_that_is_too_long_for_them(self, tmp_path: Path, runtime: FakeRuntime, logged: Logged) -> None:
        longest = "x" * (255 - len(".quarantine.jsonl.1"))
        opened(tmp_path / longest, runtime, logged).close()
        with pytest.raises(ConfigError, match="its name is too long for the files beside it"):
            opened(tmp_path / (longest + "x"), runtime, logged)

    def test_a_path_that_is_too_long(self, tmp_path: Path, runtime: FakeRuntime, logged: Logged) -> None:
        """SQLite has a limit of its own, below that of the system."""
        place = tmp_path
        while len(os.fsencode(place)) < 400:
            place = place / ("d" * 40)
        name = "x" * (504 - len(os.fsencode(place)) - 1)
        opened(place / name, runtime, logged).close()
        with pytest.raises(ConfigError, match="its path has 505 bytes; SQLite takes 504 at most"):
            opened(place / (name + "x"), runtime, logged)
        assert runtime.slept == []

    def test_a_working_directory_that_is_gone(
        self, tmp_path: Path, runtime: FakeRuntime, logged: Logged, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gone = tmp_path / "gone"
        gone.mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
        with pytest.raises(ConfigError, match=r"x\.db: the working directory was deleted"):
            opened(Path("x.db"), runtime, logged)
        opened(tmp_path / "x.db", runtime, logged).close()


class TestAdoption:
    def spilled(self, path: Path, finish: bool = True) -> None:
        new_run(path)
        spill = Spill(spill_path(path), 10)
        spill.begin("r1", StoredCounts())
        batch = full_batch(1, 10)
        spill.append(batch.ticks)
        spill.append(batch.signals)
        spill.append(batch.orders)
        if finish:
            spill.finish()
        spill.close()

    def test_first_of_all(self, tmp_path: Path, runtime: FakeRuntime, logged: Logged) -> None:
        """The next start adopts what was spilled, and counts it."""
        path = tmp_path / "x.db"
        self.spilled(path)
        opened(path, runtime, logged).close()
        line = logged.one(LogEvent.SPILL_ADOPTED)
        assert (line["run_id"], line["stored"], line["already_stored"], line["whole"]) == ("r1", 14, 0, True)
        assert logged.one(LogEvent.INITIAL_DATABASE_STATE)["ticks"] == 10
        assert counts(path) == (10, 2, 2, 2)
        opened(path, runtime, logged).close()
        assert len(logged.all(LogEvent.SPILL_ADOPTED)) == 1
        assert not logged.all(LogEvent.SPILL_CUT_SHORT)

    def test_one_that_was_cut_short_says_so(self, tmp_path: Path, runtime: FakeRuntime, logged: Logged) -> None:
        self.spilled(tmp_path / "x.db", finish=False)
        opened(tmp_path / "x.db", runtime, logged).close()
        assert logged.one(LogEvent.SPILL_ADOPTED)["whole"] is False
        assert "lost" in logged.one(LogEvent.SPILL_CUT_SHORT)["detail"]

    def test_by_another_name_of_the_database(self, tmp_path: Path, runtime: FakeRuntime, logged: Logged) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "link.db").symlink_to(tmp_path / "data" / "x.db")
        self.spilled(tmp_path / "link.db")
        opened(tmp_path / "data" / "x.db", runtime, logged).close()
        assert counts(tmp_path / "link.db") == (10, 2, 2, 2)

    def test_a_locked_database_keeps_it_for_later(self, tmp_path: Path, runtime: FakeRuntime, logged: Logged) -> None:
        path = tmp_path / "x.db"
        self.spilled(path)
        with locked(path), pytest.raises(OverloadError):
            opened(path, runtime, logged)
        opened(path, runtime, logged).close()
        assert counts(path) == (10, 2, 2, 2)

    def test_one_of_another_database_is_set_aside(self, tmp_path: Path, runtime: FakeRuntime, logged: Logged) -> None:
        """The engine starts; nothing of the file is lost, and where it is now is reported."""
        self.spilled(tmp_path / "old.db")
        content = spill_path(tmp_path / "old.db").read_bytes()
        spill_path(tmp_path / "old.db").rename(spill_path(tmp_path / "x.db"))
        store = opened(tmp_path / "x.db", runtime, logged)
        aside = tmp_path / "x.db.spill.orphan-r1"
        line = logged.one(LogEvent.SPILL_ORPHANED)
        assert (line["event"], line["run_id"], line["spill_file"]) == (LogEvent.SPILL_ORPHANED, "r1", str(aside))
        assert "has no run r1" in line["detail"]
        assert aside.read_bytes() == content and not spill_path(tmp_path / "x.db").exists()
        assert store.orphan is not None and store.orphan.path == aside
        assert not logged.all(LogEvent.SPILL_ADOPTED) and not logged.all(LogEvent.SPILL_CUT_SHORT)
        store.close()


def test_another_programs_database_is_not_even_marked(tmp_path: Path, runtime: FakeRuntime, logged: Logged) -> None:
    """Refused before SQLite writes the journal mode into the file: not a byte changes."""
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY)")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"belongs to another program \(tables: accounts\)"):
        opened(path, runtime, logged)
    assert path.read_bytes() == before
