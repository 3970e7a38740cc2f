"""(a) Stores the same rows with plain sqlite3: `python -m bench.plain SOURCE.db TARGET.db`.

Reads all rows of a database written by a replay, creates an empty one with the same tables and indexes (the statements
of sqlite_master) and the same PRAGMAs, and times `executemany` of those rows in transactions of 1000, table by table,
including the close. SQLite assigns the row ids, as in a replay.
"""

from __future__ import annotations

import gc
import json
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

from bench.engine import TABLES

TRANSACTION_ROWS = 1000
PRAGMAS = ("journal_mode=wal", "synchronous=NORMAL", "busy_timeout=5000", "temp_store=MEMORY", "foreign_keys=ON")

Rows = list[tuple[Any, ...]]


def load(source: Path) -> tuple[list[str], dict[str, Rows]]:
    """The statements of the schema, and for each table its INSERT statement and rows."""
    connection = sqlite3.connect(source)
    schema = [
        sql
        for (sql,) in connection.execute(
            "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY type = 'index'"
        )
    ]
    inserts: dict[str, Rows] = {}
    for table in TABLES:
        columns = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})") if name != "id"]
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        rows = connection.execute(f"SELECT {names} FROM {table} ORDER BY id").fetchall()
        inserts[f"INSERT INTO {table} ({names}) VALUES ({marks})"] = rows
    connection.close()
    return schema, inserts


def insert(target: Path, schema: list[str], inserts: dict[str, Rows]) -> float:
    """The time in seconds to store all rows in `target`, without its creation."""
    connection = sqlite3.connect(target, isolation_level=None)
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    for statement in schema:
        connection.execute(statement)
    # The rows already exist: keep the garbage collector from scanning them during the measurement.
    gc.collect()
    gc.freeze()
    begin = time.perf_counter()
    for statement, rows in inserts.items():
        for start in range(0, len(rows), TRANSACTION_ROWS):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(statement, rows[start : start + TRANSACTION_ROWS])
            connection.execute("COMMIT")
    connection.close()
    return time.perf_counter() - begin


def main() -> None:
    """Measure once; one JSON object on standard output."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    schema, inserts = load(source)
    seconds = insert(target, schema, inserts)
    print(json.dumps({"seconds": seconds, "rows": sum(map(len, inserts.values()))}))


if __name__ == "__main__":
    main()
