"""Reading back: ticks for a replay, exactly as they were, and what a restarted push feed takes over."""

from __future__ import annotations

import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.unit.store_helpers import (
    ORIGINAL_SCHEMA,
    batch_of,
    full_batch,
    memory_run,
    new_database,
    new_run,
    storage_of,
    tick,
    ticks_st,
)
from tradebot.core.errors import ConfigError
from tradebot.core.events import Tick, TickChunk
from tradebot.store.batch import StoredCounts, WriteBatch
from tradebot.store.database import connect, connect_readonly
from tradebot.store.errors import StorageUnavailable
from tradebot.store.feed_identity import feed_of_source
from tradebot.store.older_positions import fold_fills
from tradebot.store.reader import find_tick_source, read_ticks
from tradebot.store.writer import insert_batch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


def stored_run(
    path: Path, run_id: str, batch: WriteBatch | None, push: bool = False, source: str = "file:x.jsonl"
) -> None:
    with storage_of(path, new_run(path, run_id, push=push, source=source)) as storage:
        if batch is not None:
            storage.write(batch)


def ticks_of(path: Path, run_id: str | None = None) -> list[Tick]:
    with closing(connect_readonly(path)) as db:
        source = find_tick_source(db, run_id)
        found = [tick for chunk in read_ticks(db, source) for tick in chunk]
    assert len(found) == source.rows
    return found


def bits(ticks: list[Tick]) -> list[tuple[object, ...]]:
    return [(t.symbol, struct.pack("dd", t.price, t.volume), t.ts, t.event_id, t.seq) for t in ticks]


def test_a_run_names_the_feed_that_stored_it(path: Path) -> None:
    """The exchange says what currencies its symbols have, in a replay of its run too."""
    batch = WriteBatch()
    batch.add(TickChunk([Tick("BTCUSDT", 1.0, 1.0, 1)]))
    stored_run(path, "live", batch, push=True, source="binance:BTCUSDT")
    stored_run(path, "file", batch)
    with closing(connect_readonly(path)) as db:
        assert find_tick_source(db, "live").feed == feed_of_source("synthetic", "binance:BTCUSDT")
        assert find_tick_source(db, "file").feed == ""


class TestTicks:
    @given(ticks=st.lists(ticks_st, min_size=1, max_size=30))
    @hypothesis_settings(max_examples=30)
    def test_come_back_bit_for_bit_and_in_order(self, ticks: list[Tick]) -> None:
        """S8: a replay of stored ticks sees what the first run saw."""
        batch = WriteBatch()
        batch.add(TickChunk(ticks))
        with memory_run() as (db, record):
            insert_batch(db, record.no, batch, StoredCounts().plus(batch))
            found = [tick for chunk in read_ticks(db, find_tick_source(db, None)) for tick in chunk]
        assert bits(found) == bits(ticks)

    def test_in_chunks(self, path: Path) -> None:
        stored_run(path, "r1", full_batch(1, 2500))
        with closing(connect_readonly(path)) as db:
            sizes = [len(chunk) for chunk in read_ticks(db, find_tick_source(db, None))]
        assert sizes == [1000, 1000, 500]

    def test_the_newest_run_with_ticks_unless_told(self, path: Path) -> None:
        """Its newest run unless --replay-run says which."""
        for number, run_id in enumerate(("r1", "r2"), 1):
            stored_run(path, run_id, batch_of(*(tick(100 * number + n) for n in range(5))))
        stored_run(path, "r3", None)
        assert ticks_of(path) == [tick(200 + n) for n in range(5)]
        assert ticks_of(path, "r1") == [tick(100 + n) for n in range(5)]
        assert ticks_of(path, "r3") == []

    def test_an_unknown_run(self, path: Path) -> None:
        stored_run(path, "r1", batch_of(tick(1)))
        stored_run(path, "r2", batch_of(tick(1)))
        with pytest.raises(ConfigError, match=r"x\.db: holds no run r9; newest runs: r2, r1"):
            ticks_of(path, "r9")

    def test_runs_that_lie_one_in_the_other(self, path: Path) -> None:
        """An engine that adopts a spill adds to an old run after a newer one."""
        first = new_run(path, "r1")
        with storage_of(path, first) as storage:
            storage.write(batch_of(tick(1), tick(2)))
            stored_run(path, "r2", batch_of(tick(11)))
            storage.write(batch_of(tick(3)))
        assert ticks_of(path, "r1") == [tick(1), tick(2), tick(3)]
        assert ticks_of(path) == [tick(11)]

    def test_a_file_of_the_original_system(self, path: Path) -> None:
        """Old files work, untouched: they have neither runs nor our columns."""
        with closing(sqlite3.connect(path)) as db:
            db.executescript(ORIGINAL_SCHEMA)
        wanted = [Tick("OLD/USD", 1.5, 2.0, 1700000000), Tick("OLD/USD", 1.6, 0.0, 1700000001)]
        assert ticks_of(path) == wanted
        new_database(path).close()
        assert ticks_of(path) == wanted

    def test_old_rows_are_not_part_of_a_run(self, path: Path) -> None:
        with closing(sqlite3.connect(path)) as db:
            db.executescript(ORIGINAL_SCHEMA)
        stored_run(path, "r1", batch_of(tick(1)))
        assert ticks_of(path) == [tick(1)]

    def test_only_one_of_the_added_columns(self, path: Path) -> None:
        with closing(sqlite3.connect(path)) as db:
            db.executescript(ORIGINAL_SCHEMA + "ALTER TABLE ticks ADD COLUMN seq INTEGER; UPDATE ticks SET seq = id;")
        assert [(found.seq, found.taker) for found in ticks_of(path)] == [(1, None), (2, None)]

    def test_without_ticks(self, path: Path) -> None:
        new_database(path).close()
        with pytest.raises(ConfigError, match=r"x\.db: holds no ticks to replay; name a file with --replay-file"):
            ticks_of(path)

    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE ticks SET price = 'much' WHERE id = 3",
            "UPDATE ticks SET price = 0.0 WHERE id = 3",
            "UPDATE ticks SET price = -1.0 WHERE id = 3",
            "UPDATE ticks SET volume = -0.5 WHERE id = 3",
            "UPDATE ticks SET symbol = '' WHERE id = 3",
            "UPDATE ticks SET symbol = x'ff' WHERE id = 3",
            "UPDATE ticks SET symbol = CAST(x'ff' AS TEXT) WHERE id = 3",
            "UPDATE ticks SET ts = 1.5 WHERE id = 3",
            "UPDATE ticks SET ts = -1 WHERE id = 3",
            "UPDATE ticks SET ts = 'noon' WHERE id = 3",
            "UPDATE ticks SET price = 9e999 WHERE id = 3",
            "UPDATE ticks SET volume = 9e999 WHERE id = 3",
            "UPDATE ticks SET seq = -1 WHERE id = 3",
            "UPDATE ticks SET taker = 'buy' WHERE id = 3",
        ],
    )
    def test_a_row_that_is_no_tick(self, path: Path, change: str) -> None:
        """Exit 12 that names the file; what somebody wrote into it is no reason for a traceback."""
        stored_run(path, "r1", full_batch(1, 5))
        with closing(sqlite3.connect(path)) as db, db:
            db.execute(change)
        where = "Could not decode" if "CAST" in change else "table ticks, row with id 3: "
        with pytest.raises(ConfigError, match=rf"^database /.*x\.db: {where}"):
            ticks_of(path)

    def test_a_bad_row_far_down_is_named_by_row_and_column(self, path: Path) -> None:
        stored_run(path, "r1", full_batch(1, 2500))
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("DELETE FROM ticks WHERE id = 4")
            db.execute("UPDATE ticks SET volume = -1.0 WHERE id = 2004")
        with pytest.raises(ConfigError, match=r"row with id 2004: Expected `float` >= 0.0 - at `\$\.volume`$"):
            ticks_of(path)

    def test_chunks_of_one_symbol_without_ids_say_so(self, path: Path) -> None:
        """What TickChunk promises holds for each chunk, and no chunk that is alike goes unmarked."""
        batch = WriteBatch()
        batch.add(TickChunk([Tick("A", 1.0, 1.0, n) for n in range(1000)]))
        batch.add(TickChunk([Tick("B", 1.0, 1.0, n) for n in range(1000)]))
        batch.add(TickChunk([Tick("B", 1.0, 1.0, n, seq=n if n == 999 else None) for n in range(1000)]))
        batch.add(TickChunk([Tick("B", 1.0, 1.0, n, "e" if n == 999 else None) for n in range(1000)]))
        batch.add(TickChunk([Tick("B" if n == 999 else "A", 1.0, 1.0, n) for n in range(1000)]))
        batch.add(TickChunk([Tick("B", 1.0, 1.0, n, taker="SELL" if n == 999 else None) for n in range(1000)]))
        stored_run(path, "r1", batch)
        with closing(connect_readonly(path)) as db:
            chunks = list(read_ticks(db, find_tick_source(db, None)))
        assert [getattr(chunk, "symbol", None) for chunk in chunks] == ["A", "B", None, None, None, None]
        assert [tick for chunk in chunks for tick in chunk] == batch.ticks

    @pytest.mark.parametrize(
        ("script", "complaint"),
        [
            ("CREATE TABLE other (x)", "has no table ticks: not a tradebot database"),
            ("CREATE TABLE ticks (bid)", "holds no ticks|no such column"),
            ("CREATE TABLE ticks (bid); INSERT INTO ticks VALUES (1)", "no such column: .*not a tradebot database"),
            ("CREATE TABLE ticks (bid); CREATE TABLE runs (name)", "no such column: .*not a tradebot database"),
        ],
    )
    def test_a_foreign_database(self, path: Path, script: str, complaint: str) -> None:
        with closing(sqlite3.connect(path)) as db, db:
            db.executescript(script)
        with pytest.raises(ConfigError, match=complaint):
            ticks_of(path)

    def test_a_damaged_database(self, path: Path) -> None:
        stored_run(path, "r1", full_batch(1, 2000))
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\x5a" * (path.stat().st_size - 4096))
        with pytest.raises(StorageUnavailable, match=r"x\.db: .*SQLITE_CORRUPT") as failure:
            ticks_of(path)
        assert failure.value.exit_code == 12

    def test_a_locked_database(self, path: Path) -> None:
        """Exit 13: somebody else holds it; the file is named."""
        stored_run(path, "r1", full_batch(1, 5))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("PRAGMA journal_mode = DELETE")
            with closing(connect_readonly(path)) as db:
                db.execute_sql("PRAGMA busy_timeout = 1")
                other.execute("BEGIN EXCLUSIVE")
                with pytest.raises(StorageUnavailable, match=r"x\.db: .*SQLITE_BUSY") as failure:
                    find_tick_source(db, None)
        assert failure.value.exit_code == 13


def test_a_damaged_database_is_unavailable(path: Path) -> None:
    stored_run(path, "r0", full_batch(1, 2000, every=1, run_id="r0"))
    with closing(connect(path)) as db:
        db.execute_sql("SELECT COUNT(*) FROM sqlite_master")
        with path.open("r+b") as file:
            file.seek(4096 * 2)
            file.write(b"\x5a" * (path.stat().st_size - 4096 * 2))
        with pytest.raises(StorageUnavailable, match="SQLITE_CORRUPT"):
            fold_fills(db, [1])
