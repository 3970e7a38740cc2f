"""Backup: one moment of the database, whole, on disk, under its name only when it is all that."""

from __future__ import annotations

import io
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.tmpfs import small_disk
from tests.unit.store_helpers import (
    NOT_OURS,
    FakeRuntime,
    counts,
    dump,
    full_batch,
    locked,
    new_run,
    rows,
    storage_of,
)
from tradebot.core.errors import ConfigError
from tradebot.ops import backup
from tradebot.ops.backup import _check_target, run_backup
from tradebot.store.database import connect


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    fake = FakeRuntime()
    monkeypatch.setattr(fake, "catch_stop_signals", lambda: None)
    return fake


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "x.db"
    with storage_of(path, new_run(path)) as storage:
        storage.write(full_batch(1, 2000))
    return path


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "_STEP_PAGES", 4)
    monkeypatch.setattr("tradebot.ops.backup.BUSY_TIMEOUT_MS", 5)


def back_up(path: Path, target: Path, runtime: FakeRuntime, force: bool = False) -> tuple[int, str, str]:
    answers, errors = io.StringIO(), io.StringIO()
    code = run_backup(path, target, force, runtime, answers, errors)
    return code, answers.getvalue(), errors.getvalue()


def names(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.iterdir())


class TestCopy:
    def test_whole_checked_and_alone(self, path: Path, tmp_path: Path, runtime: FakeRuntime) -> None:
        path.chmod(0o644)
        code, said, complaint = back_up(path, tmp_path / "copy.db", runtime)
        assert (code, complaint) == (0, "")
        assert said.startswith(f"{tmp_path / 'copy.db'}: ") and " MB, checked, " in said
        assert names(tmp_path) == ["copy.db", "data"]
        assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600
        assert rows(tmp_path / "copy.db", "PRAGMA integrity_check") == [("ok",)]
        assert dump(tmp_path / "copy.db") == dump(path)

    def test_one_moment_however_much_is_written_meanwhile(
        self, path: Path, tmp_path: Path, runtime: FakeRuntime
    ) -> None:
        """It ends although somebody commits between any two steps, and holds what was there when it began."""
        before = dump(path)
        with closing(connect(path)) as db:

            def more() -> None:
                db.execute_sql("INSERT INTO ticks (symbol, price, volume, ts) VALUES ('B', 1.0, 1.0, 1)")
                db.execute_sql("DELETE FROM orders WHERE id = (SELECT MIN(id) FROM orders)")

            runtime.on_sleep = more
            assert back_up(path, tmp_path / "copy.db", runtime)[0] == 0
        steps = len(runtime.slept)
        assert 10 < steps <= (tmp_path / "copy.db").stat().st_size // 4096 // 4 + 1
        assert counts(path)[0] == 2000 + steps
        assert dump(tmp_path / "copy.db") == before

    def test_an_engine_goes_on_from_it(self, path: Path, tmp_path: Path, runtime: FakeRuntime) -> None:
        back_up(path, tmp_path / "copy.db", runtime)
        record = new_run(tmp_path / "copy.db", "r2")
        with storage_of(tmp_path / "copy.db", record) as storage:
            storage.write(full_batch(1, 10, run_id="r2"))
        assert counts(tmp_path / "copy.db")[0] == 2010

    def test_beside_a_writer_that_is_in_a_transaction(self, path: Path, tmp_path: Path, runtime: FakeRuntime) -> None:
        with locked(path):
            assert back_up(path, tmp_path / "copy.db", runtime)[0] == 0

    def test_the_name_comes_last(
        self, path: Path, tmp_path: Path, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Synced, then named, then the name synced: a power loss leaves the old file or the new one."""
        done: list[tuple[str, str]] = []
        fsync, replace = os.fsync, os.replace

        def synced(descriptor: int) -> None:
            done.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
            fsync(descriptor)

        def named(old: Path, new: Path) -> None:
            done.append(("name", new.name))
            replace(old, new)

        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(os, "replace", named)
        back_up(path, tmp_path / "copy.db", runtime)
        assert done == [("sync", "copy.db.part"), ("name", "copy.db"), ("sync", tmp_path.name)]


class TestTarget:
    def test_what_is_there_stays_unless_told(self, path: Path, tmp_path: Path, runtime: FakeRuntime) -> None:
        target = tmp_path / "copy.db"
        target.write_text("mine")
        with pytest.raises(ConfigError, match=r"copy\.db: exists already; .* --force"):
            back_up(path, target, runtime)
        assert target.read_text() == "mine"
        assert back_up(path, target, runtime, force=True)[0] == 0
        assert counts(target)[0] == 2000

    @pytest.mark.parametrize("name", ["", "."])
    def test_no_name(self, path: Path, runtime: FakeRuntime, name: str) -> None:
        """`backup ""`, as from a variable that is not set."""
        with pytest.raises(ConfigError, match="backup: the name of the file is empty, or that of this directory"):
            back_up(path, Path(name), runtime)

    def test_what_comes_meanwhile_stays_too(self, path: Path, tmp_path: Path, runtime: FakeRuntime) -> None:
        target = tmp_path / "copy.db"
        runtime.on_sleep = lambda: target.write_text("mine")
        code, _said, complaint = back_up(path, target, runtime)
        assert code == 1 and "created by another program in the meantime; no backup was written" in complaint
        assert target.read_text() == "mine"
        assert names(tmp_path) == ["copy.db", "data"]

    @pytest.mark.parametrize("name", ["x.db", "x.db-wal", "link.db", "hard.db"])
    @pytest.mark.parametrize("force", [False, True])
    def test_the_database_itself(self, path: Path, runtime: FakeRuntime, name: str, force: bool) -> None:
        (path.parent / "link.db").symlink_to(path)
        (path.parent / "hard.db").hardlink_to(path)
        with closing(connect(path)) as db, pytest.raises(ConfigError, match="is the database itself"):
            db.execute_sql("SELECT 1 FROM ticks")
            back_up(path, path.parent / name, runtime, force)
        assert counts(path)[0] == 2000

    @pytest.mark.parametrize(
        ("name", "complaint"),
        [
            ("data", "is a directory; name a file"),
            ("none/copy.db", "there is no directory .*none"),
            ("data/x.db/copy.db", "cannot be written|there is no directory"),
            ("pipe", "is not a regular file"),
            ("n" * 300, "cannot be written: File name too long"),
        ],
    )
    def test_no_place_for_a_file(
        self, path: Path, tmp_path: Path, runtime: FakeRuntime, name: str, complaint: str
    ) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ConfigError, match=complaint):
            back_up(path, tmp_path / name, runtime)
        assert names(tmp_path) == ["data", "pipe"]

    def test_a_read_only_place(self, path: Path, tmp_path: Path, runtime: FakeRuntime) -> None:
        with small_disk(tmp_path / "disk", 8) as disk:
            disk.make_read_only()
            with pytest.raises(ConfigError, match=r"copy\.db\.part: cannot be written: Read-only file system"):
                back_up(path, disk.place / "copy.db", runtime)

    def test_another_backup_at_work(self, path: Path, tmp_path: Path, runtime: FakeRuntime) -> None:
        def second() -> None:
            runtime.on_sleep = lambda: None
            with pytest.raises(ConfigError, match="another backup is writing it"):
                back_up(path, tmp_path / "copy.db", runtime)

        runtime.on_sleep = second
        assert back_up(path, tmp_path / "copy.db", runtime)[0] == 0
        assert rows(tmp_path / "copy.db", "PRAGMA integrity_check") == [("ok",)]

    def test_what_a_killed_one_left(self, path: Path, tmp_path: Path, runtime: FakeRuntime) -> None:
        (tmp_path / "copy.db.part").write_bytes(b"SQLite format 3\x00" + b"x" * 10_000_000)
        assert back_up(path, tmp_path / "copy.db", runtime)[0] == 0
        assert names(tmp_path) == ["copy.db", "data"]
        assert dump(tmp_path / "copy.db") == dump(path)

    def test_what_no_backup_has_left_stays(self, path: Path, tmp_path: Path, runtime: FakeRuntime) -> None:
        (tmp_path / "copy.db.part").write_text("precious")
        with pytest.raises(ConfigError, match=r"copy\.db\.part: already exists"):
            back_up(path, tmp_path / "copy.db", runtime)
        assert (tmp_path / "copy.db.part").read_text() == "precious"

    def test_a_database_named_like_the_part_is_not_emptied(self, tmp_path: Path, runtime: FakeRuntime) -> None:
        """Found by a review: the source itself was the file to write to."""
        source = tmp_path / "x.db.part"
        with closing(sqlite3.connect(source)) as db:
            db.execute("CREATE TABLE ticks (x)")
        before = source.read_bytes()
        with pytest.raises(ConfigError, match="is the database itself or belongs to it"):
            _check_target(source, tmp_path / "x.db", True)
        assert source.read_bytes() == before


class TestFailures:
    def test_a_stop_signal(self, path: Path, tmp_path: Path, runtime: FakeRuntime) -> None:
        """1, what was there before is untouched, nothing half done is left."""
        (tmp_path / "copy.db").write_text("mine")
        runtime.on_sleep = runtime.signal
        code, said, complaint = back_up(path, tmp_path / "copy.db", runtime, force=True)
        assert (code, said) == (1, "")
        assert "stopped by a signal; no backup was written" in complaint
        assert names(tmp_path) == ["copy.db", "data"]
        assert (tmp_path / "copy.db").read_text() == "mine"

    def test_too_little_room_is_told_before(
        self, path: Path, tmp_path: Path, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with small_disk(tmp_path / "disk", 1) as disk:
            code, _said, complaint = back_up(path, disk.place / "copy.db", runtime)
            assert (
                code == 1
                and "needs 17.2 MB, 16.8 MB of it to spare, and" in complaint
                and "MB are free there; no backup was written" in complaint
            )
            assert names(disk.place) == []

    def test_a_disk_that_fills_up_meanwhile(
        self, path: Path, tmp_path: Path, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(backup, "_ROOM_SPARE_BYTES", 0)
        with small_disk(tmp_path / "disk", 2) as disk:

            def fill() -> None:
                disk.fill()
                runtime.on_sleep = lambda: None

            runtime.on_sleep = fill
            code, _said, complaint = back_up(path, disk.place / "copy.db", runtime)
            assert code == 1 and "full" in complaint and "no backup was written" in complaint
            assert names(disk.place) == ["ballast"]

    @pytest.mark.parametrize("name", ["ticks", "idx_ticks_ts"])
    def test_a_damaged_database(self, path: Path, tmp_path: Path, runtime: FakeRuntime, name: str) -> None:
        """A copy of it would be no backup."""
        [(page,)] = rows(path, "SELECT rootpage FROM sqlite_master WHERE name = ?", name)
        with path.open("r+b") as file:
            file.seek(4096 * (page - 1) + 12)  # the places of its rows, behind a header that is right
            file.write(b"\x5a" * 64)
        try:
            code, _said, complaint = back_up(path, tmp_path / "copy.db", runtime)
        except ConfigError as error:
            code, complaint = 12, str(error)
        assert code in (1, 12) and ("damaged" in complaint or "SQLITE_CORRUPT" in complaint)
        assert names(tmp_path) == ["data"]

    @pytest.mark.parametrize(("make", "complaint"), NOT_OURS)
    def test_what_is_no_database_of_ours(
        self, tmp_path: Path, runtime: FakeRuntime, make: Callable[[Path], Any], complaint: str
    ) -> None:
        make(tmp_path / "y.db")
        with pytest.raises(ConfigError, match=rf"y\.db: .*{complaint}"):
            back_up(tmp_path / "y.db", tmp_path / "copy.db", runtime)
        assert not (tmp_path / "copy.db").exists()
