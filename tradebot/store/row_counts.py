"""How many rows the tables of events hold, without counting them: a start takes no longer for a larger database."""

from __future__ import annotations

from typing import Any, Final

from peewee import Model, SqliteDatabase, fn

from tradebot.store.errors import storage_errors
from tradebot.store.models import EVENT_MODELS, OrderEventRow, OriginalRow, RunRow

COUNTED: Final = "counters of runs"
"""Where `row_counts` has its figures from, for the log."""


def row_counts(db: SqliteDatabase) -> dict[str, int]:
    """Rows of the tables of events: what the runs stored less what was pruned, and the original system's rows.

    Exact unless somebody else deleted or inserted rows. Raises StorageUnavailable.
    """
    with storage_errors():
        fields = RunRow._meta.fields
        models: tuple[type[Model], ...] = (*EVENT_MODELS, OrderEventRow)
        names = [model._meta.table_name for model in models]
        sums = [fn.COALESCE(fn.SUM(fields[name] - fields[f"pruned_{name}"]), 0) for name in names]
        of_runs: Any = RunRow.select(*sums).tuples().get(db)
        original = dict(OriginalRow.select(OriginalRow.table, OriginalRow.rows).tuples().execute(db))
    return {name: int(count) + original.get(name, 0) for name, count in zip(names, of_runs, strict=True)}


def count_original_rows(db: SqliteDatabase) -> None:
    """Count the rows that belong to no run, once: reads these rows and no others, since they came first.

    Inside the caller's transaction; the tables must have this version's columns.
    """
    for model in EVENT_MODELS:
        rows = _original_rows(db, model)
        if rows:
            OriginalRow.insert(table=model._meta.table_name, rows=rows).on_conflict_replace().execute(db)


def _original_rows(db: SqliteDatabase, model: type[Model]) -> int:
    fields: Any = model._meta.fields
    of_a_run = model.select(fields["id"]).where(fields["run"].is_null(False))
    first = of_a_run.order_by(fields["id"]).limit(1).scalar(db)
    original = model.select() if first is None else model.select().where(fields["id"] < first)
    return int(original.count(db))
