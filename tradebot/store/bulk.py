"""Multi-row INSERT statements built from the models: many rows a statement, bound column by column.

One statement of a thousand rows runs outside the interpreter lock as a whole, where `executemany` takes the lock back
at every row and starves beside a busy Python thread. Values that all rows share are bound once.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from peewee import Model, SqliteDatabase

# Fewer distinct sizes keep SQLite's compiled statements few; the largest stays under its 32 766 variables.
_ROWS_A_STATEMENT: Final = (1000, 250, 50, 10, 1)
_MAX_VARIABLES: Final = 32_766


@functools.lru_cache(maxsize=256)
def _statement(table: str, shared: tuple[str, ...], varying: tuple[str, ...], rows: int) -> str:
    names = ", ".join(f'"{name}"' for name in (*shared, *varying))
    row = ", ".join((*(f"?{index}" for index in range(1, len(shared) + 1)), *("?" for _ in varying)))
    return f'INSERT INTO "{table}" ({names}) VALUES ' + ",".join([f"({row})"] * rows)


def _pieces(rows: int, width: int) -> Iterator[int]:
    for size in _ROWS_A_STATEMENT:
        if size * width > _MAX_VARIABLES:
            continue
        while rows >= size:
            yield size
            rows -= size


def insert_columns(
    db: SqliteDatabase, model: type[Model], shared: Mapping[str, Any], varying: Mapping[str, Sequence[Any]]
) -> int:
    """Insert at least one row, rows given as equally long columns; `shared` values are the same in every row.

    Inside the caller's transaction, on the calling thread's connection; blocks as SQLite does. Returns the last row id.
    Raises sqlite3 errors as they come.
    """
    shared_values = list(shared.values())
    names, columns = tuple(varying), list(varying.values())
    width = len(names)
    total = len(columns[0])
    execute = db.connection().execute
    start, last_id = 0, 0
    for rows in _pieces(total, width + len(shared_values)):
        end = start + rows
        values: list[Any] = [None] * (rows * width)
        for offset, column in enumerate(columns):
            values[offset::width] = column[start:end]
        sql = _statement(model._meta.table_name, tuple(shared), names, rows)
        last_id = execute(sql, shared_values + values).lastrowid or 0
        start = end
    return last_id
