"""Multi-row INSERT: whatever the number of rows, the table is what one INSERT a row would have made."""

from __future__ import annotations

import itertools
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from peewee import IntegerField, Model, SchemaManager, SqliteDatabase

from tests.unit.store_helpers import ticks_st
from tradebot.core.events import Tick, TickChunk
from tradebot.store.batch import StoredCounts, WriteBatch
from tradebot.store.bulk import insert_columns
from tradebot.store.database import migrate
from tradebot.store.models import TickRow
from tradebot.store.writer import insert_batch

COLUMNS = ("run", "symbol", "price", "volume", "ts", "event_id", "seq", "taker")


@contextmanager
def memory() -> Iterator[SqliteDatabase]:
    db = SqliteDatabase(":memory:", autoconnect=False)
    db.connect()
    migrate(db)
    with closing(db):
        yield db


def all_ticks(db: SqliteDatabase) -> list[Any]:
    return db.execute_sql("SELECT * FROM ticks ORDER BY id").fetchall()


def chunked(ticks: list[Tick], sizes: list[int]) -> Iterator[TickChunk]:
    """The ticks cut into chunks, which are marked as alike where they are, as a feed does it."""
    start = 0
    for size in itertools.cycle(sizes):
        part = ticks[start : start + size]
        if not part:
            return
        start += size
        alike = {(tick.symbol, tick.event_id, tick.seq, tick.taker) for tick in part} == {(part[0].symbol, *[None] * 3)}
        yield TickChunk(part, part[0].symbol if alike else None)


@given(
    count=st.integers(1, 3000),
    pool=st.lists(ticks_st, min_size=1, max_size=5),
    sizes=st.lists(st.integers(1, 700), min_size=1, max_size=5),
)
@example(count=1000, pool=[Tick("A", 1.0, 1.0, 1)], sizes=[300])
@example(count=2999, pool=[Tick("A", 1.0, 1.0, 1), Tick("A", 1.0, 1.0, 1, event_id="x")], sizes=[1, 2])
@example(count=2999, pool=[Tick("A", 1.0, 1.0, 1), Tick("B", 1.0, 1.0, 1)], sizes=[1])
@hypothesis_settings(max_examples=20)
def test_a_batch_of_ticks_equals_executemany(count: int, pool: list[Tick], sizes: list[int]) -> None:
    """Any number of rows, any mix of symbols, ids and numbers, in order, with row ids that count on."""
    ticks = [pool[index * index % len(pool)] for index in range(count)]
    batch = WriteBatch()
    for chunk in chunked(ticks, sizes):
        batch.add(chunk)
    with memory() as db, memory() as other:
        insert_batch(db, 7, batch, StoredCounts(ticks=count))
        sql = f"INSERT INTO ticks ({', '.join(COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        values = [(7, t.symbol, t.price, t.volume, t.ts, t.event_id, t.seq, t.taker) for t in ticks]
        other.connection().executemany(sql, values)
        assert all_ticks(db) == all_ticks(other)


@given(count=st.integers(0, 3000), before=st.integers(0, 3))
@hypothesis_settings(max_examples=20)
def test_row_ids_grow_by_one_and_the_last_is_returned(count: int, before: int) -> None:
    with memory() as db:
        for _ in range(before):
            db.execute_sql("INSERT INTO ticks (symbol, price, volume, ts) VALUES ('B', 1, 1, 1)")
        varying: dict[str, list[Any]] = {"price": [1.0] * count, "volume": [1.0] * count, "ts": list(range(count))}
        last_id = insert_columns(db, TickRow, {"symbol": "A"}, varying)
        stored = db.execute_sql("SELECT id, ts FROM ticks WHERE symbol = 'A' ORDER BY id").fetchall()
    assert stored == [(before + 1 + ts, ts) for ts in range(count)]
    assert last_id == (before + count if count else 0)


def test_no_warning_on_any_python() -> None:
    """Python 3.12.0 to 3.12.3 warn of numbered placeholders; under -W error that would crash the writer."""
    with memory() as db, warnings.catch_warnings():
        warnings.simplefilter("error")
        varying: dict[str, list[Any]] = {"price": [1.0] * 20, "volume": [1.0] * 20, "ts": [1] * 20}
        insert_columns(db, TickRow, {"run": 1, "symbol": "A"}, varying)
        assert len(all_ticks(db)) == 20


def test_text_that_looks_like_sql_is_data() -> None:
    text = """'); DROP TABLE ticks; -- ?1 :a "x" """
    with memory() as db:
        insert_columns(db, TickRow, {"symbol": text}, {"price": [1.0], "volume": [1.0], "ts": [1]})
        assert [row[1] for row in all_ticks(db)] == [text]


def test_wide_rows_stay_within_the_variables_of_sqlite() -> None:
    """A thousand rows of 40 columns would be more than the 32 766 variables that a statement may have."""
    names = [f"c{index}" for index in range(40)]
    wide: Any = type("Wide", (Model,), {name: IntegerField() for name in names})
    wide._meta.set_table_name("wide")
    with memory() as db:
        SchemaManager(wide, db).create_table()
        db.connection().setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 32_766)
        insert_columns(db, wide, {}, {name: list(range(1500)) for name in names})
        stored = db.execute_sql("SELECT c0, c39 FROM wide ORDER BY id").fetchall()
    assert stored == [(index, index) for index in range(1500)]


def test_few_different_statements() -> None:
    """SQLite keeps compiled statements by their text: batches of every size must share them."""
    seen: set[str] = set()

    class Connection:
        def execute(self, sql: str, _values: object) -> Any:
            seen.add(sql)
            return self

        lastrowid = 1

    class Database:
        def connection(self) -> Connection:
            return Connection()

    for count in range(1, 4000):
        insert_columns(Database(), TickRow, {"symbol": "A"}, {"ts": [0] * count})  # type: ignore[arg-type]
    assert len(seen) <= 10
