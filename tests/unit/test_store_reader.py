"""Reading back: ticks for a replay, exactly as they were, and what a restarted push feed takes over."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable
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
    order,
    run_info,
    signal,
    storage_of,
    tick,
    ticks_st,
)
from tradebot.events import BUY, SELL, Tick
from tradebot.exits import ConfigError
from tradebot.feeds import sequence
from tradebot.feeds.sequence import SequenceGuard
from tradebot.inputs import restore_guard
from tradebot.store import reader
from tradebot.store.batch import Batch, StoredCounts
from tradebot.store.carryover import fold_fills
from tradebot.store.database import connect, connect_readonly
from tradebot.store.errors import StorageUnavailable
from tradebot.store.reader import Carried, CarriedSymbol, find_tick_source, read_carried, read_ticks
from tradebot.store.writer import insert_batch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


def stored_run(path: Path, run_id: str, batch: Batch | None, push: bool = False, source: str = "file:x.jsonl") -> None:
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


class TestTicks:
    @given(ticks=st.lists(ticks_st, min_size=1, max_size=30))
    @hypothesis_settings(max_examples=60)
    def test_come_back_bit_for_bit_and_in_order(self, ticks: list[Tick]) -> None:
        """S8, contract 3: a replay of stored ticks sees what the first run saw."""
        batch = Batch()
        batch.add(ticks)
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
        """Contract 3: its newest run unless --replay-run says which."""
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
        """Contract 2: old files work, untouched: they have neither runs nor our columns."""
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
        assert [found.seq for found in ticks_of(path)] == [1, 2]

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
        batch = Batch()
        batch.add([Tick("A", 1.0, 1.0, n) for n in range(1000)])
        batch.add([Tick("B", 1.0, 1.0, n) for n in range(1000)])
        batch.add([Tick("B", 1.0, 1.0, n, seq=n if n == 999 else None) for n in range(1000)])
        batch.add([Tick("B", 1.0, 1.0, n, "e" if n == 999 else None) for n in range(1000)])
        batch.add([Tick("B" if n == 999 else "A", 1.0, 1.0, n) for n in range(1000)])
        stored_run(path, "r1", batch)
        with closing(connect_readonly(path)) as db:
            chunks = list(read_ticks(db, find_tick_source(db, None)))
        assert [getattr(chunk, "symbol", None) for chunk in chunks] == ["A", "B", None, None, None]
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


SOURCE = "synthetic:TEST/USD"


def carried(path: Path, lookback: int = 3, source: str = SOURCE) -> Carried:
    with closing(connect(path)) as db:
        return read_carried(db, run_info("new", push=True, source=source), lookback)


def push_run(path: Path, run_id: str, batch: Batch, source: str = SOURCE) -> None:
    stored_run(path, run_id, batch, push=True, source=source)


class TestCarried:
    def test_the_first_run_takes_nothing_over(self, path: Path) -> None:
        new_database(path).close()
        assert carried(path) == Carried((), 0, None, {})

    def test_prices_side_and_ticks_since_the_signal(self, path: Path) -> None:
        """Contract 6: windows continue, from the newest prices, oldest first."""
        push_run(path, "l1", full_batch(1, 12, every=5, run_id="l1"))
        found = carried(path)
        assert (found.runs, found.ticks, found.last_price) == ((1,), 12, tick(12).price)
        prices = tuple(tick(n).price for n in (10, 11, 12))
        assert found.symbols == {"TEST/USD": CarriedSymbol(prices, SELL, 2)}

    def test_a_signal_of_the_last_tick(self, path: Path) -> None:
        push_run(path, "l1", full_batch(1, 5, run_id="l1"))
        assert carried(path).symbols["TEST/USD"].ticks_since_signal == 0

    def test_no_signal_yet(self, path: Path) -> None:
        """A count cannot be known beyond what is looked at, so it is left to the prices."""
        push_run(path, "l1", full_batch(1, 4, run_id="l1"))
        assert carried(path, lookback=10).symbols["TEST/USD"] == CarriedSymbol(
            tuple(tick(n).price for n in (1, 2, 3, 4)), None, None
        )

    def test_over_several_runs(self, path: Path) -> None:
        """All of them, for each continued the one before it; replays, other sources and other modes are not ours."""
        push_run(path, "l1", full_batch(1, 5, run_id="l1"))
        stored_run(path, "r1", full_batch(501, 7, every=1))
        push_run(path, "l2", full_batch(1, 2, run_id="l2"))
        push_run(path, "x1", full_batch(801, 7, every=1, run_id="x1"), source="synthetic:OTHER")
        with closing(connect(path)) as db:
            db.execute_sql("UPDATE runs SET mode = 'PAPER' WHERE run_id = 'x1'")
        push_run(path, "l3", full_batch(1, 1, run_id="l3"))
        found = carried(path)
        assert (found.runs, found.ticks) == ((1, 3, 5), 8)
        prices = tuple(tick(n).price for n in (1, 2, 1))
        assert found.symbols["TEST/USD"] == CarriedSymbol(prices, BUY if 5 % 10 else SELL, 3)
        assert carried(path, source="synthetic:OTHER") == Carried((), 0, None, {})

    def test_several_symbols(self, path: Path) -> None:
        batch = batch_of(
            tick(1, "A"), tick(2, "B"), tick(3, "A"), signal(3, "l1", "A", SELL), tick(4, "B"), tick(5, "A")
        )
        push_run(path, "l1", batch)
        found = carried(path, lookback=2)
        assert found.last_price == tick(5).price
        assert found.symbols == {
            "A": CarriedSymbol((tick(3).price, tick(5).price), SELL, 1),
            "B": CarriedSymbol((tick(2).price, tick(4).price), None, None),
        }

    def test_after_a_kill_that_lost_the_last_signal(self, path: Path) -> None:
        """Ticks are stored before what was decided from them: the signal before counts, and all ticks since."""
        push_run(path, "l1", batch_of(*(tick(n) for n in range(1, 6)), signal(5, "l1", side=BUY), order(5, "l1")))
        push_run(path, "l2", batch_of(*(tick(n) for n in range(1, 8))))
        assert carried(path).symbols["TEST/USD"] == CarriedSymbol(tuple(tick(n).price for n in (5, 6, 7)), BUY, 7)

    def test_looks_back_only_so_far(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reader, "RESTORE_TICKS_MAX", 5)
        push_run(path, "l1", batch_of(tick(1, "A"), *(tick(n) for n in range(2, 12)), signal(2, "l1")))
        found = carried(path, lookback=20)
        assert found.ticks == 11
        assert found.symbols == {"TEST/USD": CarriedSymbol(tuple(tick(n).price for n in range(7, 12)), BUY, 5)}

    def test_a_run_id_with_dashes(self, path: Path) -> None:
        push_run(path, "my-own-id", full_batch(1, 6, run_id="my-own-id"))
        assert carried(path).symbols["TEST/USD"].ticks_since_signal == 1

    def test_a_service_that_was_restarted_very_often(self, path: Path) -> None:
        """More runs than SQLite has variables."""
        push_run(path, "l0", full_batch(1, 5, run_id="l0"))
        with closing(connect(path)) as db:
            db.connection().setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 50)
            columns = (
                "version, mode, ingest, source, config_hash, first_start_ms, complete, ticks, signals, orders, trades,"
                " notices"
            )
            db.execute_sql(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)"
                f" INSERT INTO runs (run_id, {columns})"
                " SELECT 'l' || i, '1', 'SHADOW', 'synthetic', ?, '', 1, 0, 0, 0, 0, 0, 0 FROM n", (SOURCE,),
            )  # fmt: skip
            found = read_carried(db, run_info("new", push=True, source=SOURCE), 3)
            assert len(found.runs) == 201
            assert found.ticks == 5
            assert len(fold_fills(db, found.runs).states()) == 1


def numbered(symbol: str, seq: int | None = None, event_id: str | None = None) -> Tick:
    return Tick(symbol, 1.0, 1.0, 1_700_000_000_000, event_id, seq)


class TestCarriedNumbers:
    """Contract 6: sequence state continues, so that nothing is stored twice across a restart."""

    def test_oldest_first_and_by_symbol(self, path: Path) -> None:
        push_run(path, "l1", batch_of(numbered("A", 1), numbered("B", 7), numbered("A", 3)))
        push_run(path, "l2", batch_of(numbered("A", 2), numbered("C", event_id="x"), numbered("C", event_id="y")))
        found = carried(path).symbols
        assert {symbol: known.numbered for symbol, known in found.items()} == {
            "A": (numbered("A", 1), numbered("A", 3), numbered("A", 2)),
            "B": (numbered("B", 7),),
            "C": (numbered("C", event_id="x"), numbered("C", event_id="y")),
        }

    def test_those_with_a_number_only(self, path: Path) -> None:
        numbers = (numbered("A", 1, "x"), numbered("A", None, "y"))
        push_run(path, "l1", batch_of(*numbers, numbered("A")))
        assert carried(path).symbols["A"] == CarriedSymbol((1.0, 1.0, 1.0), None, None, numbers)

    def test_the_newest_of_many(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reader, "SEEN_MAX", 3)
        numbers = range(1, 9)
        push_run(path, "l1", batch_of(*(numbered("A", n) for n in numbers)))
        push_run(path, "l2", batch_of(*(numbered("B", None, f"id{n}") for n in numbers)))
        found = carried(path).symbols
        assert [known.seq for known in found["A"].numbered] == [6, 7, 8]
        assert [known.event_id for known in found["B"].numbered] == ["id6", "id7", "id8"]

    def test_as_many_as_the_window_of_duplicates(self) -> None:
        assert reader.SEEN_MAX == sequence.WINDOW

    @pytest.mark.parametrize("by_seq", [True, False])
    def test_a_restarted_feed_knows_what_is_stored(self, path: Path, by_seq: bool) -> None:
        """The feed opened with what was carried over drops what is sent again, and sees the gap of its absence."""

        def trade(n: int) -> Tick:
            return numbered("A", n) if by_seq else numbered("A", event_id=f"id{n}")

        push_run(path, "l1", batch_of(trade(1), trade(2), trade(3)))
        guard = SequenceGuard(10)
        restore_guard(guard, carried(path))
        taken = guard.take([trade(2), trade(3), trade(6)])
        assert (taken.ticks, taken.duplicates) == ([trade(6)], 2)
        assert [gap.missing for _index, gap in taken.gaps] == ([2] if by_seq else [])

    def test_the_first_start_knows_nothing(self) -> None:
        guard = SequenceGuard(10)
        restore_guard(guard, None)
        assert guard.take([numbered("A", 5)]).gaps == ()


@pytest.mark.parametrize("read", [lambda db: read_carried(db, run_info(push=True), 3), lambda db: fold_fills(db, [1])])
def test_a_damaged_database_is_unavailable(path: Path, read: Callable[[object], object]) -> None:
    push_run(path, "r0", full_batch(1, 2000, every=1, run_id="r0"), source="file:x.jsonl")
    with closing(connect(path)) as db:
        db.execute_sql("SELECT COUNT(*) FROM sqlite_master")
        with path.open("r+b") as file:
            file.seek(4096 * 2)
            file.write(b"\x5a" * (path.stat().st_size - 4096 * 2))
        with pytest.raises(StorageUnavailable, match="SQLITE_CORRUPT"):
            read(db)
