"""A full disk and a locked database: the run continues afterwards, or exits with 13 without a loss."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.e2e.process import (
    SESSION,
    SESSION_CONFIG,
    Engine,
    Finished,
    Running,
    assert_sound,
    counts,
    dump,
    rows,
    synthetic_units,
    wait_for_ticks,
    wait_until,
)
from tests.e2e.tmpfs import SmallDisk, small_disk
from tradebot.core.log_events import LogEvent

pytestmark = pytest.mark.slow

# Small channels keep the reserve of the spill file, and therefore the disk of a test, small.
CHANNELS = "[channels]\ntick_channel_size = 256\nsignal_channel_size = 64\npersist_channel_size = 512\n"
FAST = "[engine]\ntick_interval_ms = 2\n"
# The reserve takes about 9 MB; the rest is for the database, which uses a few hundred kB before the disk is filled.
DISK_MB = 16


def persist(storage_retry_s: float, drain_timeout_s: float = 5) -> str:
    return f"[persist]\nstorage_retry_s = {storage_retry_s}\ndrain_timeout_s = {drain_timeout_s}\n"


def start_replay(engine: Engine, db: Path, storage_retry_s: float, *more: str) -> Running:
    """A replay of the recorded session that takes several seconds, so that faults can be injected."""
    text = f"{SESSION_CONFIG.read_text()}\n{CHANNELS}\n{persist(storage_retry_s)}"
    config = engine.config(f"replay-{storage_retry_s}.toml", text)
    return engine.start(config, f"--replay-file={SESSION}", f"--db={db}", *more)


def start_synthetic(engine: Engine, db: Path, storage_retry_s: float, *more: str) -> Running:
    config = engine.config(f"fast-{storage_retry_s}.toml", f"{FAST}\n{CHANNELS}\n{persist(storage_retry_s)}")
    return engine.start(config, f"--db={db}", *more)


@contextmanager
def locked(db: Path) -> Iterator[None]:
    """A lock held by another program (this process): nobody else can write the database in this block."""
    connection = sqlite3.connect(db, timeout=30, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        yield
    finally:
        connection.close()


def assert_failed_and_spilled(done: Finished, code: str) -> None:
    """Exit 13; the log names the storage error, and the spill file contains what the ledger counts as not stored."""
    done.expect(13)
    assert done.one(LogEvent.STORAGE_FAILED)["code"] == code
    ledger = done.ledger
    assert ledger["not_stored"] > 0
    assert ledger["cause"] == "the storage failed"
    assert done.one(LogEvent.SPILLED)["events"] >= ledger["not_stored"]
    assert done.one(LogEvent.FINAL_METRICS)["exit_code"] == 13
    assert not done.all(LogEvent.SPILL_FAILED)


def assert_adopted(before: Finished, db: Path, after: Finished, committed: bool = False) -> None:
    """The next start stored the spill file first: everything accepted is stored exactly once."""
    adopted = after.one(LogEvent.SPILL_ADOPTED)
    assert adopted["whole"]
    assert committed or adopted["already_stored"] == 0
    assert adopted["stored"] + adopted["already_stored"] == before.one(LogEvent.SPILLED)["events"]
    assert after.one(LogEvent.INITIAL_DATABASE_STATE)["ticks"] == before.ledger["accepted"]
    assert not db.with_name(db.name + ".spill").exists()
    assert_sound(db)


@pytest.fixture
def disk(engine: Engine) -> Iterator[SmallDisk]:
    with small_disk(engine.path("disk"), DISK_MB) as mounted:
        yield mounted
        engine.close()


class TestFullDisk:
    def test_a_replay_ends_with_13_and_its_next_start_completes_it(
        self, engine: Engine, disk: SmallDisk, undisturbed: Path
    ) -> None:
        """G5: the spill is adopted, and a resume gives the undisturbed rows."""
        db = disk.place / "x.db"
        running = start_replay(engine, db, 0.2, "--speed=100x")
        wait_for_ticks(db, 1000)
        disk.fill()
        done = running.finish()
        assert_failed_and_spilled(done, "SQLITE_FULL")
        assert counts(db)["ticks"] == done.ledger["stored"]
        disk.free()
        again = start_replay(engine, db, 1, "--resume").finish().expect(0)
        assert_adopted(done, db, again)
        assert again.ledger["already_stored"] == done.ledger["accepted"]
        assert dump(db) == dump(undisturbed)

    def test_a_push_feed_ends_with_13_and_its_next_start_goes_on(self, engine: Engine, disk: SmallDisk) -> None:
        """G5: nothing accepted is missing after the next start, which continues the feed."""
        db = disk.place / "x.db"
        running = start_synthetic(engine, db, 0.2)
        wait_for_ticks(db, 200)
        disk.fill()
        done = running.finish()
        assert_failed_and_spilled(done, "SQLITE_FULL")
        disk.free()
        again = start_synthetic(engine, db, 1, "--seconds=0.2").finish().expect(0)
        assert_adopted(done, db, again)
        assert again.one(LogEvent.CARRIED_OVER)["ticks"] == done.ledger["accepted"]
        assert len(synthetic_units(db)) == counts(db)["ticks"]

    def test_a_disk_that_gets_room_again_is_waited_for(
        self, engine: Engine, disk: SmallDisk, undisturbed: Path
    ) -> None:
        """I6: writes are retried with backoff; the run exits with 0 as if undisturbed."""
        db = disk.place / "x.db"
        running = start_replay(engine, db, 30, "--speed=100x")
        wait_for_ticks(db, 1000)
        disk.fill()
        running.wait_for(LogEvent.STORAGE_UNAVAILABLE)
        disk.free()
        done = running.finish().expect(0)
        assert done.one(LogEvent.FINAL_METRICS)["persist_errors"] > 0
        assert done.ledger["not_stored"] == 0
        assert dump(db) == dump(undisturbed)
        assert not db.with_name("x.db.spill").exists()

    def test_a_disk_that_is_full_at_the_start(self, engine: Engine, disk: SmallDisk, undisturbed: Path) -> None:
        """Also at start: 13 if the disk stays full, 0 if space is freed in time."""
        db = disk.place / "x.db"
        disk.fill()
        done = start_replay(engine, db, 0.2).finish().expect(13)
        assert "full" in done.complaint
        running = start_replay(engine, db, 30)
        running.wait_for(LogEvent.STORAGE_UNAVAILABLE)
        disk.free()
        running.finish().expect(0)
        assert dump(db) == dump(undisturbed)

    def test_a_disk_full_at_the_end_of_a_run_stopped_by_a_signal(self, engine: Engine, disk: SmallDisk) -> None:
        """S13: if the disk is still full at the deadline of a stop, events are spilled and the exit code is 13."""
        db = disk.place / "x.db"
        config = engine.config("x.toml", f"{FAST}\n{CHANNELS}\n{persist(600, drain_timeout_s=0.5)}")
        running = engine.start(config, f"--db={db}")
        wait_for_ticks(db, 200)
        disk.fill()
        running.wait_for(LogEvent.STORAGE_UNAVAILABLE)
        running.process.terminate()
        done = running.finish(10)
        assert_failed_and_spilled(done, "SQLITE_FULL")
        disk.free()
        again = start_synthetic(engine, db, 1, "--seconds=0.2").finish().expect(0)
        assert_adopted(done, db, again)


class TestLockedDatabase:
    def test_released_in_time(self, engine: Engine, undisturbed: Path) -> None:
        """I6: SQLITE_BUSY is retried while the channels fill; the run exits with 0."""
        db = engine.path("x.db")
        running = start_replay(engine, db, 30, "--speed=200x")
        wait_for_ticks(db, 500)
        with locked(db):
            assert "SQLITE_BUSY" in running.wait_for(LogEvent.STORAGE_UNAVAILABLE)["detail"]
        done = running.finish().expect(0)
        assert done.ledger["not_stored"] == 0
        assert dump(db) == dump(undisturbed)

    def test_held_for_good(self, engine: Engine) -> None:
        """G5: 13 naming the storage error; the next start adopts the spill, and nothing is missing."""
        db = engine.path("x.db")
        running = start_synthetic(engine, db, 0)
        wait_for_ticks(db, 100)
        with locked(db):
            done = running.finish()
        assert_failed_and_spilled(done, "SQLITE_BUSY")
        assert "another program" in done.one(LogEvent.STORAGE_FAILED)["detail"]
        again = start_synthetic(engine, db, 1, "--seconds=0.2").finish().expect(0)
        assert_adopted(done, db, again, committed=True)  # a commit during the renaming reaches the renamed file
        assert len(synthetic_units(db)) == counts(db)["ticks"]

    def test_at_the_start(self, engine: Engine) -> None:
        """Released in time: 0; held: 13; a stop signal during the wait: 0."""
        held, stopped, released = (engine.path(f"{name}.db") for name in ("held", "stopped", "released"))
        for running in [start_synthetic(engine, db, 1, "--seconds=0.1") for db in (held, stopped, released)]:
            running.finish().expect(0)
        before = counts(held), counts(stopped), counts(released)
        with locked(held), locked(stopped), locked(released):
            # Concurrently, because each waits for the lock for SQLite's busy timeout.
            to_fail = start_synthetic(engine, held, 0, "--seconds=0.1")
            to_stop = start_synthetic(engine, stopped, 600)
            to_wait = start_synthetic(engine, released, 30, "--seconds=0.1")
            to_stop.wait_for(LogEvent.STORAGE_UNAVAILABLE)
            to_stop.process.terminate()
            to_stop.finish(10).expect(0)
            to_wait.wait_for(LogEvent.STORAGE_UNAVAILABLE)
            assert "another program holds a lock" in to_fail.finish().expect(13).complaint
        to_wait.finish().expect(0)
        assert (counts(held), counts(stopped)) == before[:2]
        assert counts(released)["ticks"] > before[2]["ticks"]


class TestAway:
    """Storage that is unavailable for longer than the channels can buffer, at 1 000 ticks a second."""

    FAST = '[engine]\ntick_interval_ms = 1\nsignal_every_n_ticks = 20\n[strategy]\nname = "periodic"\n'

    def start(self, engine: Engine, db: Path, storage_retry_s: float = 30) -> Running:
        config = engine.config("away.toml", f"{self.FAST}\n{CHANNELS}\n{persist(storage_retry_s)}")
        return engine.start(config, f"--db={db}")

    @pytest.mark.parametrize("locked_s", [5.0, 20.0], ids=["5-s", "20-s"])
    def test_a_locked_database(self, engine: Engine, locked_s: float) -> None:
        """No loss and no exit; everything is stored in order, once, when the lock is released."""
        db = engine.path("x.db")
        running = self.start(engine, db)
        wait_for_ticks(db, 300)
        with locked(db):
            began_s = time.monotonic()
            running.wait_for(LogEvent.SPILL_BEGUN)
            wait_until(lambda: time.monotonic() - began_s >= locked_s, "the lock's time", locked_s + 10)
        running.wait_for(LogEvent.SPILL_DRAINED)
        running.process.terminate()
        done = running.finish().expect(0)
        assert (
            not done.all(LogEvent.OVERLOAD) and not done.all(LogEvent.STORAGE_FAILED) and not done.all(LogEvent.SPILLED)
        )
        assert done.ledger["accepted"] == done.ledger["stored"] == counts(db)["ticks"] > 500 * locked_s
        assert len(done.all(LogEvent.SPILL_BEGUN)) == len(done.all(LogEvent.SPILL_DRAINED)) == 1
        assert len(done.all(LogEvent.STORAGE_UNAVAILABLE)) <= 2 + locked_s, "the volume of the log is bounded"
        assert len(synthetic_units(db)) == counts(db)["ticks"]
        assert not db.with_name("x.db.spill").exists()
        assert_sound(db)

    def test_a_full_disk(self, engine: Engine, disk: SmallDisk) -> None:
        """The reserved space takes the events; when there is space again, everything is stored."""
        db = disk.place / "x.db"
        running = self.start(engine, db)
        wait_for_ticks(db, 300)
        disk.fill()
        began = running.wait_for(LogEvent.SPILL_BEGUN)
        spill = db.with_name("x.db.spill")
        assert began["spill_file"] == str(spill)
        wait_until(lambda: spill.read_bytes().partition(b"\0")[0].count(b"\n") > 1500, "events in the spill")
        disk.free()
        running.wait_for(LogEvent.SPILL_DRAINED)
        running.process.terminate()
        done = running.finish().expect(0)
        assert done.ledger["accepted"] == done.ledger["stored"] == counts(db)["ticks"]
        assert len(synthetic_units(db)) == counts(db)["ticks"]

    def test_killed_while_it_spills(self, engine: Engine) -> None:
        """A kill loses the events in channels and stages; the next start stores the spill file."""
        db = engine.path("x.db")
        running = self.start(engine, db)
        wait_for_ticks(db, 300)
        spill = db.with_name("x.db.spill")
        with locked(db):
            running.wait_for(LogEvent.SPILL_BEGUN)
            wait_until(lambda: spill.read_bytes().partition(b"\0")[0].count(b"\n") > 2000, "events in the spill")
            running.kill()
        written = spill.read_bytes().partition(b"\0")[0].count(b'["t"')
        stored = counts(db)["ticks"]
        again = start_synthetic(engine, db, 1, "--seconds=0.2").finish().expect(0)
        adopted = again.one(LogEvent.SPILL_ADOPTED)
        assert adopted["stored"] > 1500 and not adopted["whole"]
        assert again.one(LogEvent.INITIAL_DATABASE_STATE)["ticks"] == stored + written
        assert len(synthetic_units(db)) == counts(db)["ticks"]
        assert_sound(db)


def test_a_reader_does_not_disturb_the_writer(engine: Engine) -> None:
    """S1: with WAL another program may read with sqlite3, for any time, while the engine writes."""
    db = engine.path("x.db")
    running = start_synthetic(engine, db, 0, "--seconds=1.5")
    wait_for_ticks(db, 50)
    reader = sqlite3.connect(db, isolation_level=None)
    reader.execute("BEGIN")
    seen = reader.execute("SELECT COUNT(*) FROM ticks").fetchone()
    wait_for_ticks(db, 400)
    assert reader.execute("SELECT COUNT(*) FROM ticks").fetchone() == seen
    reader.close()
    done = running.finish().expect(0)
    assert done.one(LogEvent.FINAL_METRICS)["persist_errors"] == 0


def test_the_database_is_whole_for_plain_sqlite(engine: Engine) -> None:
    """README: any sqlite3 can read the results; after the end there is one file and no log beside it."""
    db = engine.path("x.db")
    start_replay(engine, db, 1).finish().expect(0)
    assert not db.with_name("x.db-wal").exists()
    assert not db.with_name("x.db.spill").exists()
    subprocess.run(["cp", db, engine.path("copy.db")], check=True)
    assert_sound(engine.path("copy.db"))


def _replace(db: Path) -> None:
    """Replace the database under a running engine, as a restore of a backup does."""
    with closing(sqlite3.connect(db)) as source, closing(sqlite3.connect(db.with_name("backup.db"))) as target:
        source.backup(target)
    db.with_name("backup.db").rename(db)


class TestFilesThatChange:
    """The database is deleted, renamed, replaced or truncated under a running engine."""

    @pytest.mark.parametrize(
        ("change", "file", "what"),
        [
            (Path.unlink, "", "was deleted or renamed"),
            (lambda db: db.rename(db.with_name("y.db")), "", "was deleted or renamed"),
            (_replace, "", "was replaced by another file"),
            (lambda db: os.truncate(db, 0), "", "was truncated"),
            (lambda db: db.with_name("x.db-wal").unlink(), "-wal", "was deleted or renamed"),
            (lambda db: os.truncate(db.with_name("x.db-wal"), 0), "-wal", "was truncated"),
        ],
        ids=["deleted", "renamed", "replaced", "truncated", "log-deleted", "log-truncated"],
    )
    def test_it_is_noticed(self, engine: Engine, change: Callable[[Path], object], file: str, what: str) -> None:
        """Exit 13 naming the file; later events are spilled; no file is created at the old path."""
        (engine.home / "data").mkdir()
        db = engine.path("data/x.db")
        running = start_synthetic(engine, db, 30)
        wait_for_ticks(db, 100)
        change(db)
        there = db.exists()
        done = running.finish().expect(13)
        failed = done.one(LogEvent.STORAGE_FAILED)
        assert failed["code"] == "FILE_REPLACED"
        assert f"{db}{file} {what}" in failed["detail"] and "while the engine was writing it" in failed["detail"]
        ledger = done.ledger
        assert ledger["spilled"] == ledger["not_stored"] > 0 and ledger["cause"] == "the storage failed"
        assert db.exists() == there
        assert engine.run("health", f"--db={db}").code == 1

    def test_after_a_rename_and_back_the_next_start_completes_it(self, engine: Engine) -> None:
        """The spilled events are stored in the database to which they belong, wherever it was in the meantime."""
        db = engine.path("x.db")
        running = start_synthetic(engine, db, 30)
        wait_for_ticks(db, 100)
        moved = [(db.with_name(f"x.db{end}"), db.with_name(f"y.db{end}")) for end in ("", "-wal", "-shm")]
        for old, new in moved:
            old.rename(new)
        done = running.finish().expect(13)
        for old, new in moved:
            if new.exists():
                new.rename(old)
        again = start_synthetic(engine, db, 1, "--seconds=0.2").finish().expect(0)
        assert_adopted(done, db, again, committed=True)  # a commit during the renaming reaches the renamed file
        assert len(synthetic_units(db)) == counts(db)["ticks"]

    def test_after_a_deletion_the_next_start_sets_the_spill_aside(self, engine: Engine) -> None:
        """A new database is created; the old spill file is kept, reported in log and database, and listed by doctor."""
        db = engine.path("x.db")
        running = start_synthetic(engine, db, 30)
        wait_for_ticks(db, 100)
        db.unlink()
        done = running.finish().expect(13)
        run_id = done.one(LogEvent.START)["run_id"]
        again = start_synthetic(engine, db, 1, "--seconds=0.5").finish().expect(0)
        aside = db.with_name(f"x.db.spill.orphan-{run_id}")
        assert again.one(LogEvent.SPILL_ORPHANED)["spill_file"] == str(aside)
        assert aside.exists() and not db.with_name("x.db.spill").exists()
        ((kind, detail),) = rows(db, "SELECT kind, detail FROM notices")
        assert kind == "SPILL_ORPHANED" and aside.name in detail and run_id in detail
        assert str(aside) in engine.run("doctor", f"--db={db}").stdout
        assert_sound(db)
