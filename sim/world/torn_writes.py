"""A transaction interrupted by a kill or a disk error at one of its statements.

Neither may leave a part of a batch in the database.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from msgspec import Struct
from peewee import SqliteDatabase

from sim.kernel.runtime import SimRuntime
from tradebot.store.errors import StorageUnavailable


class TornTransaction(Struct, frozen=True):
    """In the `transaction`-th transaction, instead of its `statement`-th statement (from 1): `kill` or an I/O error.

    `on_injected` is called just before.
    """

    transaction: int
    statement: int
    kill: bool
    on_injected: Callable[[], None]


def torn(db: SqliteDatabase, tear: TornTransaction, runtime: SimRuntime) -> SqliteDatabase:
    """`db`, on which one statement fails: counted from now, on its connections and by models."""
    return cast(SqliteDatabase, _Torn(db, tear, runtime))


class _Torn:
    def __init__(self, db: SqliteDatabase, tear: TornTransaction, runtime: SimRuntime) -> None:
        self._db: Any = db
        self._tear = tear
        self._runtime = runtime
        self._statements = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def connection(self) -> _TornConnection:
        return _TornConnection(self, self._db.connection())

    def execute(self, query: Any, **context: Any) -> Any:
        self.count()
        return self._db.execute(query, **context)

    def count(self) -> None:
        """One more statement is to be executed."""
        self._statements += 1
        if self._statements != self._tear.statement:
            return
        self._tear.on_injected()
        if self._tear.kill:
            self._runtime.kill()
        self._runtime.note("storage", "torn")
        raise StorageUnavailable("SQLITE_IOERR", "disk I/O error", passing=True)


class _TornConnection:
    def __init__(self, torn_db: _Torn, connection: Any) -> None:
        self._torn = torn_db
        self._connection = connection

    def execute(self, sql: str, values: Any = ()) -> Any:
        self._torn.count()
        return self._connection.execute(sql, values)
