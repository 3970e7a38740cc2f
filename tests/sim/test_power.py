"""The image after a power loss: synced data always, other data in part, and nothing that SQLite excludes."""

from __future__ import annotations

import os
import random
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from sim.kernel.clock import frozen
from sim.scenarios.common import synthetic_settings
from sim.world.calls import recording
from sim.world.disk import Disk, rollback_journal
from sim.world.faults import FileSnapshot
from sim.world.power import lose_power
from sim.world.wal import HEADER_BYTES, read_wal, torn
from sim.world.world import Faults, World
from tradebot.store.database import connect

SEEDS = range(30)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory in which syncs are fast."""
    fast = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=fast if fast.is_dir() else None) as name:
        yield Path(name)


class Dead(Exception):
    """The process was killed."""


@contextmanager
def process(path: Path, opened: list[sqlite3.Connection]) -> Iterator[Disk]:
    """Records the calls in the block as those of a process, which then dies: closing its connections has no effect."""
    disk, snapshot = Disk(path), FileSnapshot(path)
    with recording(disk, lambda: True):
        with suppress(Dead):
            yield disk
        snapshot.save()
    for connection in opened:
        connection.close()
    snapshot.restore_files()
    for file, content in disk.instead.items():
        file.write_bytes(content or b"")


def die() -> None:
    raise Dead


def rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if not db.execute("SELECT name FROM sqlite_master").fetchall():
            return 0
        return int(db.execute("SELECT COUNT(*) FROM t").fetchone()[0])


def commit(db: sqlite3.Connection, count: int) -> None:
    for number in range(count):
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO t VALUES (?)", (str(number) * 3000,))
        db.execute("COMMIT")


def images(path: Path, work: Callable[[Disk, sqlite3.Connection], None], full: bool = False) -> Counter[int]:
    """The row counts after power losses, with their frequency: `work` starts with an empty table, for each seed."""
    found: Counter[int] = Counter()
    for seed in SEEDS:
        for old in path.parent.glob(f"{path.name}*"):
            old.unlink()
        opened: list[sqlite3.Connection] = []
        with process(path, opened) as disk:
            db = connect(path, "FULL" if full else "NORMAL").connection()
            opened.append(db)
            db.execute("CREATE TABLE t (text)")
            sync(path)
            work(disk, db)
        lose_power(disk, random.Random(seed))
        found[rows(path)] += 1
    return found


def sync(path: Path) -> None:
    descriptor = os.open(f"{path}-wal", os.O_RDONLY)
    os.fdatasync(descriptor)
    os.close(descriptor)


# ---- SQLite's files ------------------------------------------------------------------------------------------------


def test_each_commit_of_a_log_is_found(place: Path) -> None:
    path = place / "x.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = wal")
        db.execute("CREATE TABLE t (text)")
        commit(db, 5)
        content = (place / "x.db-wal").read_bytes()
        wal = read_wal(content)
        assert wal is not None and len(wal.ends) == 6 and wal.ends[-1] == len(content)
        db.execute("PRAGMA wal_checkpoint")
        commit(db, 2)  # over the first of the old frames, which have other salts
        begun_anew = read_wal((place / "x.db-wal").read_bytes())
    assert begun_anew is not None and len(begun_anew.ends) == 2 and begun_anew.salts != wal.salts
    assert read_wal(content[: HEADER_BYTES - 1]) is None


@pytest.mark.parametrize("style", [0, 1, 2])
@pytest.mark.parametrize("first", [True, False])
def test_a_torn_log_ends_before_the_lost_commit(place: Path, style: int, first: bool) -> None:
    path = place / "x.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = wal")
        db.execute("CREATE TABLE t (text)")
        commit(db, 5)
        content, database = (place / "x.db-wal").read_bytes(), path.read_bytes()
    wal = read_wal(content)
    assert wal is not None
    copy = place / "copy.db"
    copy.write_bytes(database)
    (place / "copy.db-wal").write_bytes(torn(content, wal.ends[3], wal.ends[4], style, first))
    assert rows(copy) == 3


def test_under_normal_any_number_of_commits_since_the_last_sync_is_lost(place: Path) -> None:
    def work(_disk: Disk, db: sqlite3.Connection) -> None:
        commit(db, 3)
        sync(place / "x.db")
        commit(db, 4)

    found = images(place / "x.db", work)
    assert set(found) == {3, 4, 5, 6, 7}, found


def test_under_full_none_is_lost(place: Path) -> None:
    assert set(images(place / "x.db", lambda _disk, db: commit(db, 5), full=True)) == {5}


def test_under_full_the_commit_that_was_going_on_may_be_lost(place: Path) -> None:
    def work(disk: Disk, db: sqlite3.Connection) -> None:
        commit(db, 4)
        disk.cut_after(1, die)
        commit(db, 1)

    assert set(images(place / "x.db", work, full=True)) == {4}


def test_what_a_checkpoint_moved_is_there(place: Path) -> None:
    def work(_disk: Disk, db: sqlite3.Connection) -> None:
        commit(db, 3)
        db.execute("PRAGMA wal_checkpoint").fetchall()
        commit(db, 2)

    assert set(images(place / "x.db", work)) == {3, 4, 5}


def test_a_checkpoint_that_was_going_on_is_repeated(place: Path) -> None:
    """It began after the frames of the commit were synced, so all pages of the commit are in the database."""
    found = []
    for before in range(1, 7):

        def work(disk: Disk, db: sqlite3.Connection, before: int = before) -> None:
            db.execute("PRAGMA wal_autocheckpoint = 12")
            commit(db, before)
            disk.cut_after(1, die)
            commit(db, 1)

        found.append(set(images(place / "x.db", work)))
    assert [counts for number, counts in enumerate(found, 1) if counts == {number + 1}], found


def test_a_rollback_journal_is_one_for_sqlite(place: Path) -> None:
    path = place / "x.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = wal").fetchall()
    assert path.stat().st_size == 4096
    (place / "x.db-journal").write_bytes(rollback_journal())
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db, pytest.raises(sqlite3.OperationalError):
        db.execute("PRAGMA schema_version")
    assert rows(path) == 0 and path.stat().st_size == 0


# ---- the engine's own ----------------------------------------------------------------------------------------------


def own(path: Path, work: Callable[[Path], None]) -> Counter[str]:
    """The contents of `x.db.own` after `work` and a power loss ("-": no such file), for each seed."""
    found: Counter[str] = Counter()
    name = path.with_name(f"{path.name}.own")
    for seed in SEEDS:
        for old in path.parent.glob(f"{path.name}*"):
            old.unlink()
        with process(path, []) as disk:
            work(name)
        lose_power(disk, random.Random(seed))
        found[name.read_text() if name.exists() else "-"] += 1
    return found


def write(path: Path, text: str, synced: bool) -> None:
    with path.open("a") as file:
        file.write(text)
        file.flush()
        if synced:
            os.fsync(file.fileno())


def test_of_a_file_what_was_synced_is_there(place: Path) -> None:
    def work(path: Path) -> None:
        write(path, "synced", True)
        write(path, "notsynced", False)

    found = own(place / "x.db", work)
    assert all(text.startswith("synced") for text in found), found
    assert {"synced", "syncednotsynced"} < set(found), found
    assert set(own(place / "x.db", lambda path: write(path, "synced", True))) == {"synced"}


def test_a_file_that_was_never_synced_may_be_anything(place: Path) -> None:
    found = own(place / "x.db", lambda path: write(path, "text", False))
    assert {"-", "text"} < set(found) and any("\0" in text or text in ("", "te") for text in found), found


def test_names_are_undone_unless_something_was_synced_since(place: Path) -> None:
    def delete(path: Path) -> None:
        write(path, "text", True)
        path.unlink()

    def replace(path: Path) -> None:
        write(path, "old", True)
        part = path.with_name(path.name + "2")
        write(part, "new", True)
        part.replace(path)

    def delete_then_sync(path: Path) -> None:
        delete(path)
        write(path.with_name(path.name + "2"), "another", True)

    assert set(own(place / "x.db", delete)) == {"-", "text"}
    assert set(own(place / "x.db", replace)) == {"old", "new"}
    assert set(own(place / "x.db", delete_then_sync)) == {"-"}


# ---- the engine ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [False, True], ids=["kill", "power cut"])
def test_every_point_of_a_first_start(place: Path, power: bool) -> None:
    """After an interruption at any point of a first start the next one succeeds; the points leave different files."""
    left = set()
    for point in range(1, 20):
        directory = place / str(point)
        directory.mkdir()
        with frozen() as clock:
            world = World(point, directory, clock)
            settings = synthetic_settings(world, engine__run_seconds=1.0)

            def begin(one: object, point: int = point, world: World = world) -> None:
                process = world.processes[-1]
                world.disk.cut_after(point, process.cut_power if power else process.runtime.kill)

            assert world.run(settings, Faults(begin=begin)).exit_code is None
            left.add(tuple(sorted((path.name, path.stat().st_size) for path in directory.iterdir())))
            assert world.run(settings).exit_code == 0
    assert len(left) > 6
    assert any(("sim.db", 4096) in files and ("sim.db-journal", 512) in files for files in left), "a hot journal"


def test_nothing_is_patched_afterwards(place: Path) -> None:
    before = os.fsync, os.unlink, os.pwrite, sqlite3.connect
    with pytest.raises(KeyError), recording(Disk(place / "x.db"), lambda: True):
        assert os.fsync is not before[0]
        raise KeyError
    assert (os.fsync, os.unlink, os.pwrite, sqlite3.connect) == before
