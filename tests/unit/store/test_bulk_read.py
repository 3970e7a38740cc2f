"""Rows read in one step are those that SQLite returns one by one, to the last bit."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from peewee import AutoField, BlobField, FloatField, IntegerField, Model, SqliteDatabase, TextField

from tradebot.store.bulk_read import column_types, fetch_rows


class Thing(Model):
    id = AutoField()
    name = TextField(null=True)
    price = FloatField(null=True)
    data = BlobField(null=True)
    number = IntegerField(null=True)


FIELDS = [Thing.id, Thing.name, Thing.price, Thing.data, Thing.number]

rows_st = st.lists(
    st.tuples(
        st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
        st.none() | st.floats(allow_nan=False),
        st.none() | st.binary(max_size=8),
        st.none() | st.integers(-(2**63), 2**63 - 1),
    ),
    max_size=20,
)


CREATE = "CREATE TABLE thing (id INTEGER PRIMARY KEY, name TEXT, price REAL, data BLOB, number INTEGER)"


@given(rows_st)
@example([])
@example([(None, None, None, None), ('"\\\n\u2028', 0.1 + 0.2, b"\0\xff", 2**63 - 1), ("", 5e-324, b"", 0)])
@example([("A", 1.7976931348623157e308, b"a", -1), ("B", float("inf"), b"b", 1), ("C", 4.35, None, 2)])
def test_the_same_as_row_by_row(rows: list[tuple[Any, ...]]) -> None:
    with closing(SqliteDatabase(":memory:")) as db:
        db.connect()
        db.execute_sql(CREATE)
        for row in rows:
            values = [sqlite3.Binary(value) if isinstance(value, bytes) else value for value in row]
            db.execute_sql("INSERT INTO thing (name, price, data, number) VALUES (?, ?, ?, ?)", values)
        query = Thing.select(*FIELDS).order_by(Thing.id)
        one_by_one = [list(row) for row in query.tuples().execute(db)]
        assert sorted(fetch_rows(db, query, column_types(FIELDS))) == one_by_one


def test_only_what_the_query_selects() -> None:
    with closing(SqliteDatabase(":memory:")) as db:
        db.connect()
        db.execute_sql(CREATE)
        for number in range(10):
            Thing.insert(name="A", price=number / 3, number=number).execute(db)
        query = Thing.select(Thing.number, Thing.price).where(Thing.number > 6)
        assert sorted(fetch_rows(db, query, {"number": int, "price": float})) == [[7, 7 / 3], [8, 8 / 3], [9, 3.0]]
