"""The single writer: a batch is one transaction, whole or not at all, and never twice."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from msgspec.structs import replace
from peewee import SqliteDatabase

from tests.e2e.tmpfs import small_disk
from tests.unit.store_helpers import (
    TABLES,
    assert_counters,
    batch_of,
    counts,
    decided_st,
    dump,
    dump_of,
    full_batch,
    locked,
    memory_run,
    new_run,
    order,
    rows,
    signal,
    storage_of,
    tick,
    ticks_st,
)
from tradebot.core.events import SELL, Event, LimitBreach, Order, Signal, Tick
from tradebot.store.batch import StoredCounts, WriteBatch
from tradebot.store.database import BUSY_TIMEOUT_MS, connect
from tradebot.store.errors import StorageUnavailable
from tradebot.store.runs import RunRecord
from tradebot.store.writer import SqliteWriter, insert_batch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


@pytest.fixture
def record(path: Path) -> RunRecord:
    return new_run(path)


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[SqliteDatabase]:
    """The connections that the storage makes."""
    made: list[SqliteDatabase] = []

    def remembered(*arguments: Any) -> SqliteDatabase:
        made.append(connect(*arguments))
        return made[-1]

    monkeypatch.setattr("tradebot.store.writer.connect", remembered)
    return made


class Doubtful(SqliteWriter):
    """Reports an error after its transaction: committed in truth, or not."""

    faults: Iterator[bool | None] = iter(())

    def _transact(self, db: SqliteDatabase, batch: WriteBatch, after: StoredCounts) -> None:
        committed = next(self.faults, None)
        if committed is not False:
            super()._transact(db, batch, after)
        if committed is not None:
            raise StorageUnavailable("SQLITE_IOERR", "disk I/O error", passing=True)


class TestRows:
    def test_all_columns(self, path: Path, record: RunRecord) -> None:
        """Kind, value and what links trade to order to signal."""
        with storage_of(path, record) as storage:
            storage.write(batch_of(Tick("A/B", 100.5, 2.0, 17, "id-1", 4, SELL), signal(1), order(1, fills=2)))
        assert dump(path) == {
            "ticks": [(1, "A/B", 100.5, 2.0, 17, 1, "id-1", 4, "SELL")],
            "signals": [
                (1, "TEST/USD", "BUY:SMA_CROSSOVER", 0.75, 1, "r1-0000000001-S", 0.1, 100.25, 1),
            ],
            "orders": [
                (
                    *(1, "TEST/USD", "BUY", 0.1, 100.0, "FILLED", 1, "r1-0000000001-O", "r1-0000000001-S"),
                    *("SHADOW_RECORDED", 1, 1, None, None, None, *[None] * 8),
                ),
            ],
            "trades": [
                (
                    *(n, f"r1-0000000001-F{n - 1}", "r1-0000000001-O", "TEST/USD", "BUY", 0.05, 100.25, 0.01, 1, 1, 1),
                    *(None, None, None, None),
                )
                for n in (1, 2)
            ],
        }  # fmt: skip

    @given(batches=st.lists(st.tuples(st.lists(ticks_st, max_size=8), decided_st), min_size=1, max_size=4))
    @hypothesis_settings(max_examples=20)
    def test_counters_are_the_rows(self, batches: list[tuple[list[Tick], list[Event]]]) -> None:
        """The counters of the run change with its rows, whatever a batch holds."""
        held = StoredCounts()
        with memory_run() as (db, record):
            for number, (ticks, decided) in enumerate(batches):
                batch = batch_of(*ticks, *_renamed(decided, f"b{number}"))
                held = held.plus(batch)
                insert_batch(db, record.no, batch, held)
                found = dump_of(db)
                lengths = [len(found[table]) for table in TABLES]
                sql = "SELECT ticks, signals, orders, trades, first_tick_id, last_tick_id FROM runs"
                ids = [row[0] for row in found["ticks"]] or [None]
                assert db.execute_sql(sql).fetchall() == [(*lengths, ids[0], ids[-1])]
        assert lengths == [held.ticks, held.signals, held.orders, held.trades]

    @pytest.mark.parametrize("odd", [None, 0, 1, 6])
    @pytest.mark.parametrize(
        "change",
        [
            {"symbol": "B"},
            {"confidence": 0.5},
            {"desired_size": 7.0},
            {"qty": 7.0},
            {"status": "CANCELED"},
            {"reason": "RISK_CAP"},
            {"breach": LimitBreach("risk_caps.max_exposure_usd", 2.5, 1.0)},
            {"is_shadow": 0},
            {"fill_qty": 7.0},
        ],
        ids=str,
    )
    def test_values_shared_by_all_rows_and_values_that_are_not(self, change: dict[str, Any], odd: int | None) -> None:
        """A column is bound once for all rows only where it holds the same in all of them."""

        def changed(event: Any) -> Any:
            return replace(event, **{name: value for name, value in change.items() if hasattr(event, name)})

        events: list[Event] = []
        for number in range(7):
            decided, ordered = signal(number), order(number)
            if number == odd:
                decided = changed(decided)
                ordered = changed(replace(ordered, fills=tuple(changed(fill) for fill in ordered.fills)))
            events += [decided, ordered]
        batch = batch_of(*events)
        with memory_run() as (db, record):
            insert_batch(db, record.no, batch, StoredCounts().plus(batch))
            rows = dump_of(db)
            names = {table: [column.name for column in db.get_columns(table)] for table in rows}
        fills = [fill for each in batch.orders for fill in each.fills]
        wanted: dict[str, list[Any]] = {"signals": batch.signals, "orders": batch.orders, "trades": fills}
        fields: dict[str, Callable[[Any], Any]] = {
            "value": attrgetter("confidence"),
            "refused_by": lambda each: None if each.breach is None else each.breach.limit_key,
            "refused_value": lambda each: None if each.breach is None else each.breach.value,
            "refused_limit": lambda each: None if each.breach is None else each.breach.limit,
        }
        for table, made in wanted.items():
            for name in set(names[table]) - {"id", "run", "kind"}:
                at = names[table].index(name)
                assert [row[at] for row in rows[table]] == list(map(fields.get(name, attrgetter(name)), made))

    def test_first_and_last_tick_of_interleaved_runs(self, path: Path, record: RunRecord) -> None:
        with storage_of(path, record) as storage:
            storage.write(full_batch(1, 10))
        other = new_run(path, "r2")
        with storage_of(path, other) as storage:
            storage.write(batch_of(signal(1, "r2")))
            storage.write(full_batch(1, 10, every=100, run_id="r2"))
            storage.write(full_batch(11, 3, every=100, run_id="r2"))
        assert rows(path, "SELECT first_tick_id, last_tick_id FROM runs") == [(1, 10), (11, 23)]
        assert_counters(path)


def _renamed(events: list[Event], prefix: str) -> list[Event]:
    """The same with ids of their own."""
    from msgspec.structs import replace

    found = list[Event]()
    for event in events:
        if isinstance(event, Signal):
            found.append(replace(event, event_id=prefix + event.event_id))
        elif isinstance(event, Order):
            fills = tuple(replace(f, event_id=prefix + f.event_id, order_id=prefix + f.order_id) for f in event.fills)
            found.append(
                replace(event, event_id=prefix + event.event_id, signal_id=prefix + event.signal_id, fills=fills)
            )
    return found


class TestTransaction:
    def test_one_for_a_batch(self, path: Path, record: RunRecord, connections: list[SqliteDatabase]) -> None:
        """No transaction ends between an order and its fills, nor anywhere else in a batch."""
        said: list[str] = []
        with storage_of(path, record) as storage:
            storage.open()
            connections[0].connection().set_trace_callback(said.append)
            storage.write(full_batch(1, 2500))
        verbs = [sql.split()[0] for sql in said]
        assert (verbs[0], verbs[-1]) == ("BEGIN", "COMMIT")
        assert said[0] == "BEGIN IMMEDIATE"
        assert verbs.count("BEGIN") == verbs.count("COMMIT") == 1

    def test_a_row_that_fails_leaves_nothing(self, path: Path, record: RunRecord) -> None:
        """I3: all of a batch or nothing; the error is none of the storage's, so it is let through as a bug."""
        with storage_of(path, record) as storage:
            storage.write(full_batch(1, 10))
            before = dump(path), rows(path, "SELECT * FROM runs")
            with pytest.raises(sqlite3.IntegrityError):
                storage.write(batch_of(tick(11), signal(11), order(11), order(10)))
            assert (dump(path), rows(path, "SELECT * FROM runs")) == before
            assert storage.counts == StoredCounts(10, 2, 2, 2)
            storage.write(full_batch(11, 10))
        assert_counters(path)
        assert counts(path) == (20, 4, 4, 4)

    def test_an_order_without_its_run_is_not_made_up(self, path: Path, record: RunRecord) -> None:
        """What is stored belongs to one run: another run's rows and counters stay as they are."""
        other = new_run(path, "r2")
        with storage_of(path, other) as storage:
            storage.write(full_batch(1, 10, run_id="r2"))
        assert rows(path, "SELECT ticks FROM runs ORDER BY id") == [(0,), (10,)]
        assert rows(path, "SELECT DISTINCT run FROM ticks") == [(other.no,)]

    def test_closing_is_idempotent_and_a_write_opens_again(self, path: Path, record: RunRecord) -> None:
        with storage_of(path, record) as storage:
            storage.close()
            storage.write(full_batch(1, 5))
            storage.close()
            storage.close()
            path.with_name("another").touch()  # it may get the number of the log that closing has deleted
            storage.write(full_batch(6, 5))
        assert counts(path)[0] == 10


class TestDoubt:
    @given(faults=st.lists(st.sampled_from([None, True, False]), max_size=12))
    @hypothesis_settings(max_examples=10)
    def test_a_write_is_repeated_until_it_is_stored_and_never_beyond(self, faults: list[bool | None]) -> None:
        """I3: an attempt that failed after its commit (True) is noticed, one that failed before (False) repeated."""
        with TemporaryDirectory() as place:
            path = Path(place, "x.db")
            storage = Doubtful(path, "NORMAL", new_run(path))
            storage.faults = iter(faults)
            for start in (1, 11, 21):
                for _ in range(20):
                    try:
                        storage.write(full_batch(start, 10))
                    except StorageUnavailable:
                        assert storage.counts.ticks == start - 1
                    else:
                        break
                assert storage.counts.ticks == start + 9
            storage.close()
            assert counts(path) == (30, 6, 6, 6)
            assert_counters(path)

    def test_a_commit_after_which_the_files_could_not_be_looked_at_is_not_repeated(
        self, path: Path, record: RunRecord, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """I3: the look at the files after a commit can fail for a moment, too; the batch is stored all the same."""
        with storage_of(path, record) as storage:
            storage.write(full_batch(1, 4, every=9))
            check, answers = storage._files.check, iter([None, StorageUnavailable("EIO", "no", passing=True)])

            def failing(db: SqliteDatabase) -> None:
                failure = next(answers, None)
                if failure is not None:
                    raise failure
                check(db)

            monkeypatch.setattr(storage._files, "check", failing)
            with pytest.raises(StorageUnavailable):
                storage.write(full_batch(5, 4, every=9))
            assert storage.counts.ticks == 4
            storage.write(full_batch(5, 4, every=9))
            assert storage.counts.ticks == 8
        assert counts(path)[0] == 8
        assert_counters(path)


class TestLocked:
    def test_gives_up_within_its_patience_and_works_afterwards(
        self, path: Path, record: RunRecord, connections: list[SqliteDatabase]
    ) -> None:
        """I6: a locked database holds the writer up for no longer than it was told."""
        with storage_of(path, record) as storage:
            storage.open()
            with locked(path):
                began = time.monotonic()
                with pytest.raises(StorageUnavailable) as failure:
                    storage.write(full_batch(1, 10), patience_ms=60)
                waited_s = time.monotonic() - began
            assert (failure.value.code, failure.value.passing) == ("SQLITE_BUSY", True)
            assert "another program" in str(failure.value)
            assert 0.03 <= waited_s < 2
            storage.write(full_batch(1, 10), BUSY_TIMEOUT_MS)
            assert connections[0].execute_sql("PRAGMA busy_timeout").fetchone() == (BUSY_TIMEOUT_MS,)
        assert counts(path) == (10, 2, 2, 2)

    def test_readers_do_not_hold_it_up(self, path: Path, record: RunRecord) -> None:
        """S1: WAL; somebody who reads, and for long, is not in the way."""
        with storage_of(path, record) as storage:
            storage.write(full_batch(1, 10))
            reader = sqlite3.connect(path, isolation_level=None)
            reader.execute("BEGIN")
            reader.execute("SELECT COUNT(*) FROM ticks").fetchone()
            storage.write(full_batch(11, 10), patience_ms=1)
            assert reader.execute("SELECT COUNT(*) FROM ticks").fetchone() == (10,)
            reader.close()
        assert counts(path)[0] == 20


class TestFull:
    def test_by_its_own_limit(self, path: Path, record: RunRecord, connections: list[SqliteDatabase]) -> None:
        """SQLITE_FULL can pass; what was written before stays, and the same batch goes in later."""
        with storage_of(path, record) as storage:
            storage.write(full_batch(1, 10))
            pages = connections[0].execute_sql("PRAGMA page_count").fetchone()[0]
            connections[0].execute_sql(f"PRAGMA max_page_count = {pages}")
            for _ in range(2):
                with pytest.raises(StorageUnavailable) as failure:
                    storage.write(full_batch(11, 5000))
                assert (failure.value.code, failure.value.passing) == ("SQLITE_FULL", True)
            assert counts(path) == (10, 2, 2, 2)
            connections[0].execute_sql("PRAGMA max_page_count = 1000000")
            storage.write(full_batch(11, 5000))
        assert counts(path) == (5010, 1002, 1002, 1002)
        assert_counters(path)

    def test_by_the_disk(self, tmp_path: Path) -> None:
        with small_disk(tmp_path / "disk", 2) as disk:
            path = disk.place / "x.db"
            with storage_of(path, new_run(path)) as storage:
                storage.write(full_batch(1, 10))
                disk.fill()
                with pytest.raises(StorageUnavailable) as failure:
                    storage.write(full_batch(11, 3000))
                assert (failure.value.code, failure.value.passing) == ("SQLITE_FULL", True)
                disk.free()
                storage.write(full_batch(11, 3000))
            assert counts(path) == (3010, 602, 602, 602)
            assert_counters(path)
            assert rows(path, "PRAGMA integrity_check") == [("ok",)]


def test_a_connection_is_closed_after_a_rollback_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Peewee takes the transaction for open and would refuse with an error that nobody expects."""
    path = tmp_path / "x.db"
    storage = SqliteWriter(path, "NORMAL", new_run(path))
    storage.write(full_batch(1, 5))

    def failing(*_arguments: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr("tradebot.store.writer.insert_batch", failing)
        patch.setattr("peewee.SqliteDatabase.rollback", failing)
        with pytest.raises(sqlite3.OperationalError):
            storage.write(full_batch(6, 5))
    storage.close()
    assert counts(path)[0] == 5
    with closing(sqlite3.connect(path, timeout=0)) as other:
        other.execute("BEGIN IMMEDIATE")
