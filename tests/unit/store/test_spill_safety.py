"""What makes a spill file safe: it is on disk before anybody relies on it, and it fits every table it goes into."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.unit.store_helpers import full_batch, new_run, storage_of, tick
from tradebot.store.adoption import adopt
from tradebot.store.batch import StoredCounts
from tradebot.store.database import connect
from tradebot.store.spill import Spill, spill_path
from tradebot.store.spill_format import HEADER_START


def test_each_chunk_is_on_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is reported as spilled survives the power failing a moment later."""
    synced: list[tuple[int, int]] = []
    fdatasync, fsync = os.fdatasync, os.fsync

    def spy(descriptor: int) -> None:
        written = made.path.read_bytes().partition(b"\0")[0]
        synced.append((written.count(b"\n"), made.events))
        fdatasync(descriptor)

    sizes: list[int] = []

    def spy_end(descriptor: int) -> None:
        sizes.append(os.fstat(descriptor).st_size)
        fsync(descriptor)

    monkeypatch.setattr(os, "fdatasync", spy)
    monkeypatch.setattr(os, "fsync", spy_end)
    made = Spill(tmp_path / "x.spill", 10)
    assert len(sizes) == 1, "the directory: a power loss must not take the name of the file"
    sizes.clear()
    made.begin("r1", StoredCounts())
    made.append([tick(1), tick(2)])
    made.append([tick(3)])
    assert synced == [(1, 0), (3, 0), (4, 2)], "lines that were written, and events that counted, at each sync"
    made.finish()
    assert sizes == [(tmp_path / "x.spill").stat().st_size], "the end too, and the room that was given back"


@pytest.mark.parametrize("table", ["ticks", "signals", "orders", "trades", "notices"])
def test_a_database_that_lost_rows_of_any_table_gets_nothing_out_of_order(tmp_path: Path, table: str) -> None:
    """I3: the rows between what it holds and where the spill begins are nowhere; the file is set aside."""
    path = tmp_path / "x.db"
    with storage_of(path, new_run(path)) as storage:
        storage.write(full_batch(1, 10))
        counts = storage.counts
    ahead = {name: getattr(counts, name) + (name == table) for name in counts.__struct_fields__}
    made = Spill(spill_path(path), 10)
    made.begin("r1", StoredCounts(**ahead))
    made.append([tick(11)])
    made.finish()
    content = spill_path(path).read_bytes()
    with closing(connect(path)) as db:
        found = adopt(db, spill_path(path))
    assert found is not None and found.orphan is not None
    assert "has lost some of" in found.orphan.reason
    assert found.orphan.path == tmp_path / "x.db.spill.orphan-r1"
    assert found.orphan.path.read_bytes() == content and not spill_path(path).exists()
    with closing(sqlite3.connect(path)) as plain:
        assert plain.execute("SELECT COUNT(*) FROM ticks").fetchone() == (10,)


class Failing:
    """`os` functions that fail from now on with one error, or only for one descriptor's kind of call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int, *names: str) -> None:
        self.calls: list[str] = []

        def failing(name: str) -> Callable[..., None]:
            def call(*_arguments: object, **_named: object) -> None:
                self.calls.append(name)
                raise OSError(number, os.strerror(number))

            return call

        for name in names:
            monkeypatch.setattr(os, name, failing(name))


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO])
def test_every_step_of_finishing_is_tried_and_the_first_error_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """An end mark that cannot be written does not leave the descriptor open."""
    made = Spill(tmp_path / "x.spill", 10)
    made.begin("r1", StoredCounts())
    made.append([tick(1)])
    descriptor = made._descriptor
    failing = Failing(monkeypatch, number, "pwrite", "ftruncate", "fsync", "fdatasync")
    with pytest.raises(OSError, match=os.strerror(number)):
        made.finish()
    assert failing.calls[0] == "pwrite" and "fsync" in failing.calls
    monkeypatch.undo()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    made.finish()


def test_an_append_that_failed_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts as lost does not turn up later, and the next append follows on what was there."""
    path = tmp_path / "x.db"
    new_run(path)
    made = Spill(spill_path(path), 1000)
    made.begin("r1", StoredCounts())
    made.append([tick(1)])
    before = made.size
    with monkeypatch.context() as patch:
        Failing(patch, errno.EIO, "fdatasync")
        with pytest.raises(OSError, match="Input/output"):
            made.append([tick(number) for number in range(2, 50)])
    assert (made.size, made.events) == (before, 1)
    made.append([tick(2)])
    made.finish()
    with closing(connect(path)) as db:
        found = adopt(db, spill_path(path))
    assert found is not None and (found.events, found.whole) == (2, True)


def test_a_spill_has_a_bound(tmp_path: Path) -> None:
    """persist.spill_max_mb; what does not fit whole is not there in part."""
    made = Spill(tmp_path / "x.spill", 10**9, max_mb=1)
    assert made.path.stat().st_size == 1024 * 1024, "the reserve too"
    made.begin("r1", StoredCounts())
    many = [tick(number) for number in range(5000)]
    for _ in range(2):
        made.append(many)
    with pytest.raises(OSError, match=r"persist\.spill_max_mb allows 524,288 and keeps 524,288 for the end of the run"):
        made.append(many)
    assert made.events == 10_000
    for _ in range(2):
        made.append(many, at_end=True)
    with pytest.raises(OSError, match=r"persist\.spill_max_mb allows 1,048,576$"):
        made.append(many, at_end=True)
    assert made.events == 20_000
    made.append(many[:10], at_end=True)
    made.finish()
    assert made.path.stat().st_size <= 1024 * 1024


def test_a_spill_that_was_emptied_is_an_unused_reserve_again(tmp_path: Path) -> None:
    """The second time that storage is away begins as the first one did, with its room still reserved."""
    path = tmp_path / "x.db"
    new_run(path)
    made = Spill(spill_path(path), 10)
    reserve = made.path.stat().st_size
    made.begin("r1", StoredCounts())
    made.append([tick(number) for number in range(1000)])
    assert made.path.stat().st_size > reserve
    made.reset()
    assert (made.used, made.events, made.size) == (False, 0, 0)
    assert made.path.read_bytes() == bytes(reserve)
    made.begin("r1", StoredCounts())
    made.append([tick(1)])
    made.finish()
    with closing(connect(path)) as db:
        found = adopt(db, spill_path(path))
    assert found is not None and (found.events, found.whole) == (1, True)


def test_a_reset_that_was_cut_short_stores_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The header goes first, and is on disk before anything else goes."""
    made = Spill(tmp_path / "x.spill", 1000)
    made.begin("r1", StoredCounts())
    made.append([tick(number) for number in range(100)])
    content: list[bytes] = []
    fdatasync = os.fdatasync

    def spy(descriptor: int) -> None:
        content.append(made.path.read_bytes())
        fdatasync(descriptor)

    monkeypatch.setattr(os, "fdatasync", spy)
    made.reset()
    assert not content[0].startswith(HEADER_START) and b'["t"' in content[0]
    assert content[0][:1] == b"\0", "a start takes it for an unused reserve"
    made.close()


def test_the_log_is_synced_through_a_descriptor_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the header counts survives the power failing, and no lock of SQLite's is given up for it."""
    path = tmp_path / "x.db"
    opened: dict[int, str] = {}
    synced: list[str] = []
    real_open, fdatasync, fsync = os.open, os.fdatasync, os.fsync

    def spy_open(name: Any, *rest: Any, **more: Any) -> int:
        descriptor = real_open(name, *rest, **more)
        opened[descriptor] = os.fspath(name)
        return descriptor

    def spy(sync: Callable[[int], None]) -> Callable[[int], None]:
        def call(descriptor: int) -> None:
            synced.append(opened.get(descriptor, "?"))
            sync(descriptor)

        return call

    with storage_of(path, new_run(path)) as storage:
        storage.write(full_batch(1, 10))
        monkeypatch.setattr(os, "open", spy_open)
        monkeypatch.setattr(os, "fdatasync", spy(fdatasync))
        monkeypatch.setattr(os, "fsync", spy(fsync))
        storage.sync_wal()
        assert synced == [f"{path}-wal", str(tmp_path)], "the log, and the directory that has its name"
        assert not {name for name in opened.values() if name in (str(path), f"{path}-shm")}
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
            storage._db.execute_sql("BEGIN IMMEDIATE")  # type: ignore[union-attr]
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
            storage._db.execute_sql("ROLLBACK")  # type: ignore[union-attr]


def test_without_a_log_there_is_nothing_to_sync(tmp_path: Path) -> None:
    with storage_of(tmp_path / "x.db", new_run(tmp_path / "x.db")) as storage:
        (tmp_path / "x.db-wal").unlink(missing_ok=True)
        storage.sync_wal()
