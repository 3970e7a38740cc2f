"""(a) What plain sqlite3 does with the same rows: `python -m bench.plain SOURCE.db TARGET.db`.

Reads all rows of a database that a replay made, makes an empty one with the same tables and indexes (the statements of
sqlite_master) and the same PRAGMAs, and times `executemany` of those rows in transactions of 1000, table by table, up
to and including the close. Row ids are left to SQLite, as the replay leaves them.
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
    """The schema's statements, and for each table its INSERT statement with the rows for it."""
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
    """Seconds that it takes to store all rows in `target`, which is made before the clock starts."""
    connection = sqlite3.connect(target, isolation_level=None)
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    for statement in schema:
        connection.execute(statement)
    # The rows are prepared: the collector need not look at them while the clock runs.
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
