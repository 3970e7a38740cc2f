"""What `tradebot prune` deletes beside ticks: signals, orders, fills and transitions.

In SHADOW an order is over with its tick, and all that came of a block of ticks goes with it. In PAPER an order may
outlive its tick: it stays, with its signal, its fills and its transitions, until the tick of its last transition goes.
A bracket (an order and those that close it) goes as a whole. So no row misses the row it came from, `orders_now` is
right for every order that is there, and prune waits for no order: the ticks go.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from peewee import Model, SqliteDatabase, fn

from tradebot.core.events import FINAL_STATUSES
from tradebot.store.bulk_read import groups_of
from tradebot.store.models import OrderEventRow, OrderRow, RunRow, SignalRow, TradeRow
from tradebot.store.prune_plan import Block


def delete_decided(db: SqliteDatabase, block: Block) -> dict[str, int]:
    """Delete what goes with the ticks of a block, and count it in `runs`: inside the caller's transaction.

    Rows by table. Raises sqlite3 errors as they come.
    """
    deleted: dict[str, int] = {}
    for model, which in _going(db, block):
        table = model._meta.table_name
        run = model._meta.fields["run"]
        by_run = [(block.run.id, 0)]
        if block.run.order_events:  # what outlived its tick may be of an earlier run
            by_run = list(model.select(run, fn.COUNT()).where(which).group_by(run).tuples().execute(db))
        rows = int(model.delete().where(which).execute(db))
        for run_no, counted in by_run:
            column = RunRow._meta.fields[f"pruned_{table}"]
            RunRow.update({column: column + (counted or rows)}).where(RunRow.id == run_no).execute(db)
        deleted[table] = deleted.get(table, 0) + rows
    return deleted


def count_decided(db: SqliteDatabase, block: Block) -> dict[str, int]:
    """How many rows `delete_decided` would delete, by table."""
    found: dict[str, int] = {}
    for model, which in _going(db, block):
        table = model._meta.table_name
        found[table] = found.get(table, 0) + int(model.select().where(which).count(db))
    return found


def _going(db: SqliteDatabase, block: Block) -> Iterator[tuple[type[Model], Any]]:
    """Tables and which of their rows go; effects before their causes."""
    if not block.run.order_events:
        for model in (TradeRow, OrderRow, SignalRow):
            yield model, block.decided(model)
        return
    going: list[_Order] = []
    kept: set[str] = set()
    for family in _families(db, block):
        if _is_over(family, block):
            going += family
        else:
            kept.update(order.signal_id for order in family)
    for ids in groups_of(order.event_id for order in going):
        yield TradeRow, TradeRow.order_id.in_(ids)
        yield OrderEventRow, OrderEventRow.order_id.in_(ids)
        yield OrderRow, OrderRow.event_id.in_(ids)
    # Signals of this block, some of which gave no order; then those of orders that outlived their ticks.
    yield SignalRow, block.decided(SignalRow) & SignalRow.event_id.not_in(sorted(kept))
    for ids in groups_of({order.signal_id for order in going} - kept):
        yield SignalRow, SignalRow.event_id.in_(ids) & ~block.decided(SignalRow)


class _Order(NamedTuple):
    """An order, and its last transition: the status after it, the run that stored it and the tick in that."""

    event_id: str
    signal_id: str
    status: str
    run: int
    tick: int


def _families(db: SqliteDatabase, block: Block) -> Iterator[list[_Order]]:
    """The brackets of the orders that were made or changed by ticks of the block; most have one order."""
    made = OrderRow.select(fn.COALESCE(OrderRow.parent_id, OrderRow.event_id)).where(block.decided(OrderRow))
    in_block = (OrderEventRow.run == block.run.id) & OrderEventRow.tick.between(block.at + 1, block.upto)
    changed = OrderEventRow.select(OrderEventRow.order_id).where(in_block).distinct()
    roots = {root for (root,) in made.tuples().execute(db)}
    for ids in groups_of(order_id for (order_id,) in changed.tuples().execute(db)):
        of_ids = OrderRow.select(fn.COALESCE(OrderRow.parent_id, OrderRow.event_id)).where(OrderRow.event_id.in_(ids))
        roots.update(root for (root,) in of_ids.tuples().execute(db))
    for ids in groups_of(roots):
        yield from _bracketed(db, ids)


def _bracketed(db: SqliteDatabase, roots: list[str]) -> Iterator[list[_Order]]:
    """The orders with these ids, each with the orders whose parent it is."""
    last = OrderEventRow.select(OrderEventRow.order_id, fn.MAX(OrderEventRow.n).alias("n"))
    found: dict[str, list[_Order]] = {}
    for column in (OrderRow.event_id, OrderRow.parent_id):
        query = OrderRow.select(column, OrderRow.event_id, OrderRow.signal_id, OrderRow.status, OrderRow.run).where(
            column.in_(roots)
        )
        rows = list(query.tuples().execute(db))
        ids = [event_id for _root, event_id, *_rest in rows]
        newest: dict[str, tuple[str, int, int]] = {}
        for some in groups_of(ids):
            of_some = last.where(OrderEventRow.order_id.in_(some)).group_by(OrderEventRow.order_id)
            # SQLite takes the other columns from the row that has the maximum.
            of_some = of_some.select_extend(OrderEventRow.status, OrderEventRow.run, OrderEventRow.tick)
            for order_id, _n, status, run, tick in of_some.tuples().execute(db):
                newest[order_id] = status, run, tick
        for root, event_id, signal_id, status, run in rows:
            state = newest.get(event_id, (status, run, 0))  # SHADOW: no transitions, over with its tick
            found.setdefault(root, []).append(_Order(event_id, signal_id, *state))
    yield from found.values()


def _is_over(family: list[_Order], block: Block) -> bool:
    """Whether nothing is left of these orders after the block. The orders of a replay end with it."""
    ends_with_run = block.run.ingest == "replay"
    return all(
        (order.run, order.tick) <= (block.run.id, block.upto) and (ends_with_run or order.status in FINAL_STATUSES)
        for order in family
    )
