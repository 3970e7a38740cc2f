"""Multi-row INSERT statements built from the models: many rows a statement, bound column by column.

One statement of a thousand rows runs outside the interpreter lock as a whole, where `executemany` takes the lock back
at every row and starves beside a busy Python thread. For the same reason few large statements beat many small ones: a
statement has room for a fixed number of rows, and LIMIT says how many of them are there. Values that all rows share
are bound once.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from peewee import Model, SqliteDatabase

# SQLite compiles each size once a connection; few sizes keep that little, and close sizes keep unused room small.
_ROOMS: Final = (4000, 2000, 1000, 500, 250, 60, 10, 1)
_MAX_VARIABLES: Final = 32_766
_WELL_FILLED: Final = 0.6


@functools.lru_cache(maxsize=256)
def _statement(table: str, shared: tuple[str, ...], varying: tuple[str, ...], room: int) -> str:
    """Variables: the shared values, then the rows one after the other, then the number of rows.

    None is numbered (`?1`): Python 3.12.0 to 3.12.3 warn of that, and -W error makes a crash of it.
    """
    names = ", ".join(f'"{name}"' for name in (*shared, *varying))
    chosen = [*["?"] * len(shared), *(f"column{index + 1}" for index in range(len(varying)))]
    row = f"({', '.join('?' for _ in varying)})"
    return f'INSERT INTO "{table}" ({names}) SELECT {", ".join(chosen)} FROM (VALUES {",".join([row] * room)}) LIMIT ?'


def _pieces(rows: int, width: int) -> Iterator[tuple[int, int]]:
    """Cut `rows` into statements: (room, rows in it)."""
    rooms = [room for room in _ROOMS if room * width < _MAX_VARIABLES - 16]
    while rows:
        larger = [room for room in rooms if room >= rows >= room * _WELL_FILLED]
        room = larger[-1] if larger else next(room for room in rooms if room <= rows)
        used = min(room, rows)
        yield room, used
        rows -= used


def insert_columns(
    db: SqliteDatabase, model: type[Model], shared: Mapping[str, Any], varying: Mapping[str, Sequence[Any]]
) -> int:
    """Insert rows given as equally long columns; `shared` values are the same in every row.

    Inside the caller's transaction, on the calling thread's connection; blocks as SQLite does. Row ids grow by one from
    row to row; returns the last one, 0 when there are no rows. Raises sqlite3 errors as they come.
    """
    names, columns = tuple(varying), list(varying.values())
    width = len(names)
    execute = db.connection().execute
    start, last_id = 0, 0
    for room, rows in _pieces(len(columns[0]), width):
        end = start + rows
        values: list[Any] = [None] * (room * width)
        for offset, column in enumerate(columns):
            values[offset : rows * width : width] = column[start:end]
        sql = _statement(model._meta.table_name, tuple(shared), names, room)
        last_id = execute(sql, [*shared.values(), *values, rows]).lastrowid or 0
        start = end
    return last_id
