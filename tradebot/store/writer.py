"""The single writer: a batch becomes one transaction, exactly once, whatever fails in between."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from peewee import Model, SqliteDatabase, fn

from tradebot.config.model import Synchronous
from tradebot.core.events import Fill, Notice, Order, OrderEvent, Signal, Tick
from tradebot.core.private_files import sync_directory
from tradebot.store.batch import StoredCounts, WriteBatch
from tradebot.store.bulk import insert_columns
from tradebot.store.database import BUSY_TIMEOUT_MS, beside, connect
from tradebot.store.errors import storage_errors
from tradebot.store.file_identity import FileWatch
from tradebot.store.models import NoticeRow, OrderEventRow, OrderRow, RunRow, SignalRow, TickRow, TradeRow
from tradebot.store.restart_state import store_checkpoint
from tradebot.store.runs import RunRecord, counts_of

_PAPER_ORDER_FIELDS: Final = Order.__struct_fields__[Order.__struct_fields__.index("order_type") :]
_PAPER_FILL_FIELDS: Final = Fill.__struct_fields__[Fill.__struct_fields__.index("liquidity") :]


class SqliteWriter:
    """A `BatchWriter` of one database file."""

    def __init__(self, path: Path, synchronous: Synchronous, run: RunRecord) -> None:
        self._path = path
        self._synchronous: Synchronous = synchronous
        self._run = run
        self._db: SqliteDatabase | None = None
        self._in_doubt = False
        self._patience_ms = BUSY_TIMEOUT_MS
        self._wal = beside(path, "-wal")
        self._files = FileWatch(beside(path, ""), self._wal)
        self.counts = run.counts

    @property
    def wal_bytes(self) -> int:
        """Size of the write-ahead log's file; SQLite cuts a large one down as soon as no reader needs it any more."""
        return self._files.wal_bytes

    def open(self) -> None:
        """Connect on the calling thread. Raises StorageUnavailable or ConfigError."""
        self._files.before_open()
        self._db = connect(self._path, self._synchronous)
        self._patience_ms = BUSY_TIMEOUT_MS
        self._files.check(self._db)

    def write(self, batch: WriteBatch, patience_ms: int = BUSY_TIMEOUT_MS) -> None:
        """Store `batch` in one transaction, or nothing of it.

        Blocks; when the database is locked at most `patience_ms`. Raises StorageUnavailable, after which the same
        batch may be written again: if the failed attempt did commit after all, that is noticed and not repeated. A
        commit counts only when, after it, the database is still the file that was opened.
        """
        if self._db is None:
            self.open()
        db = self._db
        assert db is not None
        after = self.counts.plus(batch)
        self._files.check(db)
        with storage_errors():
            if patience_ms != self._patience_ms:
                db.execute_sql(f"PRAGMA busy_timeout = {patience_ms}")
                self._patience_ms = patience_ms
            was_in_doubt, self._in_doubt = self._in_doubt, True
            if not (was_in_doubt and self._stored_counts(db) == after):
                self._transact(db, batch, after)
            elif batch.checkpoint is not None:
                # The counters do not tell whether it was committed with the rest; again, it changes nothing.
                with db.atomic("IMMEDIATE"):
                    store_checkpoint(db, self._run.no, batch.checkpoint)
        self._files.check(db)
        self._in_doubt = False  # not before: where the check fails for now, the batch comes again
        self.counts = after

    def _transact(self, db: SqliteDatabase, batch: WriteBatch, after: StoredCounts) -> None:
        with db.atomic("IMMEDIATE"):
            insert_batch(db, self._run.no, batch, after)
            if batch.checkpoint is not None:
                store_checkpoint(db, self._run.no, batch.checkpoint)

    def _stored_counts(self, db: SqliteDatabase) -> StoredCounts:
        row: Any = RunRow.select().where(RunRow.id == self._run.no).dicts().get(db)
        return counts_of(row)

    def sync_wal(self) -> None:
        """Have the write-ahead log on disk, and with it every commit so far: what is in the database file is already.

        Through a descriptor of its own, so it neither needs nor gives up a lock. Any thread. Blocks as the disk does.
        Raises OSError.
        """
        try:
            descriptor = os.open(self._wal, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # nothing was committed
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        sync_directory(self._wal.parent)

    def close(self) -> None:
        """Close the connection; an open transaction is rolled back. Idempotent. Raises StorageUnavailable."""
        db, self._db = self._db, None
        if db is None:
            return
        with storage_errors():
            # Of a database that was moved or replaced, SQLite itself leaves the log alone: at its name may be another.
            # Not peewee's close, which refuses after a rollback that failed: the disk may fail there, too.
            connection: Any = db.connection()
            connection.close()


def insert_batch(db: SqliteDatabase, run_no: int, batch: WriteBatch, after: StoredCounts) -> None:
    """Insert the rows of `batch`, advance the counters of run `run_no` to `after`: inside the caller's transaction."""
    progress: dict[str, Any] = {
        "ticks": after.ticks,
        "signals": after.signals,
        "orders": after.orders,
        "trades": after.trades,
        "notices": after.notices,
        "order_events": after.order_events,
    }
    if batch.ticks:
        last_id = _insert_ticks(db, run_no, batch.ticks, batch.symbol)
        progress["last_tick_id"] = last_id
        progress["first_tick_id"] = fn.COALESCE(RunRow.first_tick_id, last_id - len(batch.ticks) + 1)
    if batch.signals:
        _insert_signals(db, run_no, batch.signals)
    if batch.orders:
        _insert_orders(db, run_no, batch.orders)
    if batch.order_events:
        _insert_order_events(db, run_no, batch.order_events)
    if batch.fills:
        _insert_fills(db, run_no, batch.fills)
    if batch.notices:
        _insert_notices(db, run_no, batch.notices)
    RunRow.update(progress).where(RunRow.id == run_no).execute(db)


def _insert_ticks(db: SqliteDatabase, run_no: int, ticks: list[Tick], symbol: str | None) -> int:
    """`symbol` is set when all are of it, without event_id, seq and taker: then there is less to bind."""
    shared: dict[str, Any] = {"run": run_no}
    varying: dict[str, list[Any]] = {
        "price": [tick.price for tick in ticks],
        "volume": [tick.volume for tick in ticks],
        "ts": [tick.ts for tick in ticks],
    }
    if symbol is not None:
        shared["symbol"] = symbol
    else:
        varying["symbol"] = [tick.symbol for tick in ticks]
        varying["event_id"] = [tick.event_id for tick in ticks]
        varying["seq"] = [tick.seq for tick in ticks]
        varying["taker"] = [tick.taker for tick in ticks]
    return insert_columns(db, TickRow, shared, varying)


def _insert_notices(db: SqliteDatabase, run_no: int, notices: list[Notice]) -> None:
    insert_columns(db, NoticeRow, {"run": run_no}, _columns(notices, Notice.__struct_fields__))


def _insert_signals(db: SqliteDatabase, run_no: int, signals: list[Signal]) -> None:
    columns: dict[str, list[Any]] = {
        "symbol": [s.symbol for s in signals],
        "kind": [f"{s.side}:{s.reason}" for s in signals],
        "value": [s.confidence for s in signals],
        "ts": [s.ts for s in signals],
        "event_id": [s.event_id for s in signals],
        "desired_size": [s.desired_size for s in signals],
        "price": [s.price for s in signals],
    }
    _insert(db, SignalRow, run_no, columns, ("symbol", "value", "desired_size"))


def _insert_orders(db: SqliteDatabase, run_no: int, orders: list[Order]) -> None:
    columns: dict[str, list[Any]] = {
        "symbol": [o.symbol for o in orders],
        "side": [o.side for o in orders],
        "qty": [o.qty for o in orders],
        "price": [o.price for o in orders],
        "status": [o.status for o in orders],
        "ts": [o.ts for o in orders],
        "event_id": [o.event_id for o in orders],
        "signal_id": [o.signal_id for o in orders],
        "reason": [o.reason for o in orders],
        "is_shadow": [o.is_shadow for o in orders],
    }
    alike: list[tuple[str, ...]] = [("symbol", "qty", "status", "reason", "is_shadow")]
    breaches = [o.breach for o in orders]
    if any(breach is not None for breach in breaches):  # rare, and otherwise there is less to bind
        columns["refused_by"] = [None if breach is None else breach.limit_key for breach in breaches]
        columns["refused_value"] = [None if breach is None else breach.value for breach in breaches]
        columns["refused_limit"] = [None if breach is None else breach.limit for breach in breaches]
    if any(o.order_type is not None for o in orders):  # none in SHADOW
        columns |= _columns(orders, _PAPER_ORDER_FIELDS)
        alike.append(_PAPER_ORDER_FIELDS)
    _insert(db, OrderRow, run_no, columns, *alike)


def _insert_order_events(db: SqliteDatabase, run_no: int, events: list[OrderEvent]) -> None:
    insert_columns(db, OrderEventRow, {"run": run_no}, _columns(events, OrderEvent.__struct_fields__))


def _insert_fills(db: SqliteDatabase, run_no: int, fills: list[Fill]) -> None:
    columns: dict[str, list[Any]] = {
        "event_id": [f.event_id for f in fills],
        "order_id": [f.order_id for f in fills],
        "symbol": [f.symbol for f in fills],
        "side": [f.side for f in fills],
        "fill_qty": [f.fill_qty for f in fills],
        "fill_price": [f.fill_price for f in fills],
        "fees": [f.fees for f in fills],
        "ts": [f.ts for f in fills],
        "is_shadow": [f.is_shadow for f in fills],
    }
    if any(f.tick is not None for f in fills):  # none in SHADOW
        columns |= _columns(fills, _PAPER_FILL_FIELDS)
    _insert(db, TradeRow, run_no, columns, ("symbol", "fill_qty", "is_shadow"))


def _columns(rows: Sequence[Any], fields: Iterable[str]) -> dict[str, list[Any]]:
    """Fields of structs whose columns have the same names."""
    return {name: list(map(attrgetter(name), rows)) for name in fields}


def _insert(
    db: SqliteDatabase, model: type[Model], run_no: int, columns: dict[str, list[Any]], *alike: tuple[str, ...]
) -> None:
    """Insert the rows; where columns of a group of `alike` hold the same in all of them, those values are bound once.

    All columns of a group or none, so that there are few statements of each size and not dozens.
    """
    shared: dict[str, Any] = {"run": run_no}
    for group in alike:
        if all(columns[name].count(columns[name][0]) == len(columns[name]) for name in group):
            shared |= {name: columns.pop(name)[0] for name in group}
    insert_columns(db, model, shared, columns)
