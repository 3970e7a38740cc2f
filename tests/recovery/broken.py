"""The lab with a broken engine, to show that it finds what it is there for: `python -m tests.recovery.broken NAME`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, Final

from peewee import SqliteDatabase

from tests.recovery.run import main
from tradebot.store.batch import StoredCounts, WriteBatch
from tradebot.store.database import BUSY_TIMEOUT_MS
from tradebot.store.writer import SqliteWriter


def _spill_without_sync() -> None:
    """What is spilled is not on disk when it is called safe."""
    os.fdatasync = lambda fd: None


def _adoption_without_sync() -> None:
    """The spill file is deleted before what it held is on disk in the database."""
    execute = SqliteDatabase.execute_sql

    def without(self: SqliteDatabase, sql: str, params: Any = None) -> Any:
        return execute(self, "SELECT 1" if sql == "PRAGMA synchronous = FULL" else sql, params)

    setattr(SqliteDatabase, "execute_sql", without)  # noqa: B010 - a method of another package


def _stored_too_early() -> None:
    """Each batch is called stored before it is, which it is with the next one."""
    write = SqliteWriter.write
    late: list[tuple[StoredCounts, WriteBatch]] = []

    def early(self: SqliteWriter, batch: WriteBatch, patience_ms: int = BUSY_TIMEOUT_MS) -> None:
        after = self.counts.plus(batch)
        late.append((self.counts, batch))
        if len(late) > 1:
            self.counts, earlier = late.pop(0)
            write(self, earlier, patience_ms)
        self.counts = after

    SqliteWriter.write = early  # type: ignore[method-assign]


BROKEN: Final[dict[str, Callable[[], None]]] = {
    "spill-without-sync": _spill_without_sync,
    "adoption-without-sync": _adoption_without_sync,
    "stored-too-early": _stored_too_early,
}


if __name__ == "__main__":
    name, *words = sys.argv[1:]
    BROKEN[name]()
    sys.exit(main(words, f"tests.recovery.broken {name}"))
