"""Reading many rows: in one step of SQLite (`fetch_rows`), or in chunks (`rows_of`).

Python's sqlite3 module gives up the interpreter lock for each row that a statement returns, and beside busy threads it
waits up to 5 ms to get it back: 20 000 rows read one by one between commits of a busy engine took 1.7 s. `fetch_rows`
has SQLite pack the rows of a query into one JSON text outside the lock; `rows_of` is for what memory may not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec
from peewee import BlobField, FloatField, ModelSelect, SqliteDatabase

# quote() is exact where JSON's own numbers keep 15 digits: https://www.sqlite.org/lang_corefunc.html#quote
_PACKED: Final[dict[type, str]] = {
    float: 'iif("{0}" IS NULL, NULL, quote("{0}"))',
    bytes: 'iif("{0}" IS NULL, NULL, hex("{0}"))',
}
_UNPACK: Final[dict[type, Callable[[str], object]]] = {float: float, bytes: bytes.fromhex}
_CHUNK_ROWS: Final = 1000
_GROUP: Final = 500
_ROWS: Final = msgspec.json.Decoder(list[list[Any]])


def column_types(fields: Iterable[Any]) -> dict[str, type]:
    """For `fetch_rows`: the columns of these fields of a model."""
    kinds = {FloatField: float, BlobField: bytes}
    return {field.column_name: kinds.get(type(field), object) for field in fields}


def fetch_rows(db: SqliteDatabase, query: ModelSelect[Any], columns: Mapping[str, type]) -> list[list[Any]]:
    """All rows of `query`, in any order; the caller limits it to what memory may hold.

    `columns`: the names of what it selects, in order, each with float, bytes, or another type, which JSON knows.
    Blocks as SQLite does. Raises sqlite3 errors as they come.
    """
    sql, params = query.bind(db).sql()
    values = ", ".join(_PACKED.get(kind, '"{0}"').format(name) for name, kind in columns.items())
    cursor = db.connection().execute(f"SELECT json_group_array(json_array({values})) FROM ({sql})", params)
    rows = _ROWS.decode(cursor.fetchone()[0])
    for index, kind in enumerate(columns.values()):
        if kind in _UNPACK:
            unpack = _UNPACK[kind]
            for row in rows:
                row[index] = None if row[index] is None else unpack(row[index])
    return rows


def rows_of(db: SqliteDatabase, query: Any) -> Iterator[list[tuple[Any, ...]]]:
    """The rows of a query, in chunks. Raises sqlite3 errors as they come."""
    sql, params = query.bind(db).sql()
    cursor = db.connection().execute(sql, params)
    while chunk := cursor.fetchmany(_CHUNK_ROWS):
        yield chunk


def groups_of(values: Iterable[str], size: int = _GROUP) -> Iterator[list[str]]:
    """The values, sorted, in groups of at most `size`: SQLite limits the variables of a statement."""
    rest = sorted(values)
    for start in range(0, len(rest), size):
        yield rest[start : start + size]
