"""What a stored run was given besides ticks: notices of origin INPUT, and the refusals that depended on time.

A restart and a replay repeat both instead of deciding again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct
from peewee import SQL, SqliteDatabase

from tradebot.core.errors import ConfigError
from tradebot.core.events import LimitBreach, Notice, origin_of
from tradebot.core.ids import tick_number_of
from tradebot.execution.risk import Refusal
from tradebot.execution.timing import TIMING_REASONS
from tradebot.store.bulk_read import rows_of
from tradebot.store.database import file_of
from tradebot.store.models import NoticeRow, OrderRow, fields_of

_NOTICE_FIELDS: Final = fields_of(NoticeRow, Notice)
_BREACH_FIELDS: Final = OrderRow.refused_by, OrderRow.refused_value, OrderRow.refused_limit


class StoredRefusal(NamedTuple):
    """A refusal for timing: the `number` of its tick in the run (from 1), and the id of the order."""

    number: int
    order_id: str
    refusal: Refusal


class _Breach(Struct, array_like=True):
    """The stored columns of a breach."""

    limit_key: str
    value: float
    limit: float


def input_notices(db: SqliteDatabase, run: int, which: Any) -> Iterator[list[Notice]]:
    """The notices of origin INPUT of run number `run`, restricted by the condition `which`, in order and in chunks.

    Raises ConfigError (a row is no notice), sqlite3 errors as they come.
    """
    query = NoticeRow.select(NoticeRow.id, *_NOTICE_FIELDS).where((NoticeRow.run == run) & which)
    for rows in rows_of(db, query.order_by(NoticeRow.id)):
        notices = [_notice(db, *row) for row in rows]
        yield [notice for notice in notices if origin_of(notice.kind) == "INPUT"]


def _notice(db: SqliteDatabase, row_id: int, *values: Any) -> Notice:
    try:
        return msgspec.convert(dict(zip(Notice.__struct_fields__, values, strict=True)), Notice)
    except ValueError as error:
        raise ConfigError(f"database {file_of(db)}: table notices, row with id {row_id}: {error}") from error


def timing_refusals(
    db: SqliteDatabase, run: int, after: str, before: str, last: int | None = None, most: int | None = None
) -> list[StoredRefusal]:
    """The refusals for timing of run number `run` whose order ids lie between `after` and `before`, by order id.

    `last`: the newest row id to read; `most`: how many to read. Files of earlier schemas have no breaches. Raises
    ConfigError (a row is no refusal), sqlite3 errors as they come.
    """
    present = {column.name for column in db.get_columns("orders")}
    breach = [field if field.column_name in present else SQL("NULL") for field in _BREACH_FIELDS]
    # Ids are in the order of their ticks, row ids are not: two threads stored them.
    query = OrderRow.select(OrderRow.id, OrderRow.event_id, OrderRow.reason, *breach).order_by(OrderRow.event_id)
    query = query.where((OrderRow.event_id > after) & (OrderRow.event_id < before) & (OrderRow.run == run))
    query = query.where(OrderRow.reason.in_(TIMING_REASONS))
    if last is not None:
        query = query.where(OrderRow.id <= last)
    return [_refusal(db, *row) for row in query.limit(most).tuples().execute(db)]


def _refusal(db: SqliteDatabase, row_id: int, order_id: str, reason: str, *columns: Any) -> StoredRefusal:
    try:
        breach = None if columns[0] is None else msgspec.convert(columns, _Breach)
        limit = None if breach is None else LimitBreach(breach.limit_key, breach.value, breach.limit)
        return StoredRefusal(tick_number_of(order_id), order_id, Refusal(reason, limit))
    except (ValueError, IndexError) as error:
        raise ConfigError(f"database {file_of(db)}: table orders, row with id {row_id}: {error}") from error
