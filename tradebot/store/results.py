"""What a finished run stored, read back: the figures of its summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct
from peewee import SQL, SqliteDatabase, Table, fn

from tradebot.core.errors import ConfigError
from tradebot.core.events import Fill
from tradebot.core.ledger import Ledger
from tradebot.portfolio.positions import Positions
from tradebot.store.database import file_of, reading
from tradebot.store.models import ORDERS_NOW, NoticeRow, OrderRow, RunRow, TickRow, TradeRow, fields_of

_FILL_FIELDS: Final = fields_of(TradeRow, Fill)


class StoredResults(Struct):
    """Figures of one run; `positions` are those of its fills, at the prices of its last ticks."""

    run_no: int
    ledger: Ledger
    signals: int
    orders_by_status: dict[str, int]
    refusals_by_reason: dict[str, int]
    fills: int
    gaps: int
    positions: Positions
    last_prices: dict[str, float]
    """Of every symbol, traded or not: some are rates of others."""


def read_results(db: SqliteDatabase, run_no: int) -> StoredResults:
    """The figures of a run that has ended. Reads all its rows: 0.3 s for a million ticks.

    Raises ConfigError (its row is gone or not tradebot's), StorageUnavailable.
    """
    with reading(db):
        row = RunRow.select().where(RunRow.id == run_no).dicts().first(db)
        if row is None:
            raise ConfigError(f"database {file_of(db)}: table runs: the row with id {run_no} is gone")
        try:
            ledger = msgspec.json.decode(row["ledger"] or "{}", type=Ledger)
        except msgspec.MsgspecError as error:
            raise ConfigError(f"database {file_of(db)}: table runs, row with id {run_no}: ledger: {error}") from error
        by_status, by_reason = _orders(db, run_no, ORDERS_NOW if row["order_events"] else OrderRow._meta.table_name)
        gaps = NoticeRow.select().where((NoticeRow.run == run_no) & (NoticeRow.kind == "GAP")).count(db)
        prices = _last_prices(db, row)
        positions = _positions(db, run_no, prices)
    return StoredResults(run_no, ledger, row["signals"], by_status, by_reason, row["trades"], gaps, positions, prices)


def _orders(db: SqliteDatabase, run_no: int, table: str) -> tuple[dict[str, int], dict[str, int]]:
    """Orders by status, and the refused ones by reason, as `table` (or view) has them."""
    orders = Table(table)
    query = orders.select(orders.c.status, orders.c.reason, fn.COUNT(SQL("*"))).where(orders.c.run == run_no)
    by_status: dict[str, int] = {}
    by_reason: dict[str, int] = {}
    for status, reason, count in query.group_by(orders.c.status, orders.c.reason).tuples().execute(db):
        by_status[status] = by_status.get(status, 0) + count
        if status == "REJECTED":
            by_reason[reason] = count
    return by_status, by_reason


def _positions(db: SqliteDatabase, run_no: int, prices: Mapping[str, float]) -> Positions:
    """The positions after the fills of a run, at these prices."""
    positions = Positions()
    fills = TradeRow.select(*_FILL_FIELDS).where(TradeRow.run == run_no).order_by(TradeRow.id)
    for fields in fills.tuples().iterator(db):
        positions.apply(Fill(*fields))
    for symbol, price in prices.items():
        positions.mark(symbol, price)
    return positions


def _last_prices(db: SqliteDatabase, run: dict[str, Any]) -> dict[str, float]:
    """The price of each symbol's last tick in a run (its row of `runs`)."""
    of_run = (TickRow.run == run["id"]) & TickRow.id.between(run["first_tick_id"] or 0, run["last_tick_id"] or 0)
    newest = TickRow.select(fn.MAX(TickRow.id)).where(of_run).group_by(TickRow.symbol)
    last = TickRow.select(TickRow.symbol, TickRow.price).where(TickRow.id.in_(newest))
    return dict(last.tuples().execute(db))
