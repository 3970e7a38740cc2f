"""PAPER end to end: what its tables must hold after any kill, and the rows of runs that restarts made one of.

Restarts continue open orders, so the runs of a feed are compared as one chain: ids without their run, ticks numbered
through.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.e2e.process import assert_sound, rows, run_ids
from tradebot.core.events import FINAL_STATUSES

PAPER_TABLES: Final = ("ticks", "signals", "orders", "order_events", "trades", "notices")

Row = tuple[Any, ...]

_WRONG: Final = {
    "events of no order": "SELECT * FROM order_events WHERE order_id NOT IN (SELECT event_id FROM orders)",
    "orders that no event began": (
        "SELECT * FROM orders WHERE event_id NOT IN (SELECT order_id FROM order_events WHERE n = 1)"
    ),
    "events out of turn": (
        "SELECT order_id, count(*), max(n) FROM order_events GROUP BY order_id HAVING min(n) != 1 OR max(n) != count(*)"
    ),
    "fills and events that disagree on what is left": (
        "SELECT o.event_id, o.qty, n.remaining FROM orders o JOIN orders_now n ON n.event_id = o.event_id"
        " WHERE n.status NOT IN ('CANCELED', 'EXPIRED', 'REJECTED') AND abs(o.qty - n.remaining - coalesce("
        "(SELECT sum(fill_qty) FROM trades WHERE order_id = o.event_id), 0)) > 1e-9"
    ),
    "rows of ticks that are not stored": (
        "SELECT e.order_id FROM order_events e JOIN runs r ON r.id = e.run WHERE e.tick > r.ticks"
        " UNION ALL SELECT t.event_id FROM trades t JOIN runs r ON r.id = t.run WHERE t.tick > r.ticks"
    ),
    "miscounted runs": (
        "SELECT id FROM runs WHERE order_events - pruned_order_events"
        " != (SELECT count(*) FROM order_events WHERE run = runs.id)"
    ),
}


def assert_paper_sound(db: Path) -> None:
    """Intact, no row without its cause, no part of a tick."""
    assert_sound(db)
    for what, query in _WRONG.items():
        assert not (found := rows(db, query)), f"{what}: {found[:3]}"


def open_orders(db: Path) -> list[str]:
    """The ids of the orders that have not ended, oldest first."""
    return [order for order, status in rows(db, "SELECT event_id, status FROM orders_now ORDER BY id")
            if status not in FINAL_STATUSES]  # fmt: skip


def chain(db: Path, table: str, runs: Sequence[str] | None = None) -> list[Row]:
    """The rows of `table` of consecutive `runs` (all of the database), in order, as of one run named RUN.

    Ids of rows and runs are left out, ids and numbers of ticks are counted through.
    """
    before: dict[str, int] = {}
    total = 0
    for run_id, ticks in rows(db, "SELECT run_id, ticks FROM runs ORDER BY id"):
        if runs is None or run_id in runs:
            before[run_id] = total
            total += ticks
    names = [row[1] for row in rows(db, f"PRAGMA table_info({table})")]
    found = []
    for run_id in before:
        query = f"SELECT {', '.join(names)} FROM {table} WHERE run = (SELECT id FROM runs WHERE run_id = '{run_id}')"
        for row in rows(db, f"{query} ORDER BY id"):
            found.append(tuple(
                _through(name, value, before[run_id], before)
                for name, value in zip(names, row, strict=True) if name not in ("id", "run")
            ))  # fmt: skip
    return found


_EVENT_ID: Final = re.compile(r"(\w+)-(\d{10})(-[SOT]\d*)")


def _through(name: str, value: Any, before: int, starts: dict[str, int]) -> Any:
    if name in ("tick", "ticks_before") and value is not None:
        return value + before
    if isinstance(value, str) and (match := _EVENT_ID.fullmatch(value)) and match[1] in starts:
        return f"RUN-{int(match[2]) + starts[match[1]]}{match[3]}"
    return value


def assert_replay_same(db: Path, again: Path, runs: Sequence[str] | None = None) -> None:
    """The replay in `again`, of a database alone, has the rows of the chain `runs` in `db`."""
    assert len(run_ids(again)) == 1
    for table in PAPER_TABLES:
        wanted, held = chain(db, table, runs), chain(again, table)
        for index, (one, other) in enumerate(zip(wanted, held, strict=False)):
            assert other == one, f"{table}, row {index} of {len(wanted)}: {other} in place of {one}"
        assert len(held) == len(wanted), f"{table}: {len(held)} rows in place of {len(wanted)}"
