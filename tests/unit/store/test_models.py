"""The schema: what old files and old queries rely on, as plain SQLite sees it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.unit.store_helpers import new_database

# The columns of the original system: name -> (type, NOT NULL).
ORIGINAL: dict[str, dict[str, tuple[str, bool]]] = {
    "ticks": {
        "symbol": ("TEXT", True), "price": ("REAL", True), "volume": ("REAL", True), "ts": ("INTEGER", True),
    },
    "signals": {
        "symbol": ("TEXT", True), "kind": ("TEXT", True), "value": ("REAL", True), "ts": ("INTEGER", True),
    },
    "orders": {
        "symbol": ("TEXT", True), "side": ("TEXT", True), "qty": ("REAL", True), "price": ("REAL", False),
        "status": ("TEXT", True), "ts": ("INTEGER", True),
    },
    "trades": {
        "event_id": ("TEXT", True), "order_id": ("TEXT", True), "symbol": ("TEXT", True), "side": ("TEXT", True),
        "fill_qty": ("REAL", True), "fill_price": ("REAL", True), "fees": ("REAL", True), "ts": ("INTEGER", True),
        "is_shadow": ("INTEGER", True),
    },
}  # fmt: skip
ADDED = {
    "ticks": {"run", "event_id", "seq", "taker"},
    "signals": {"run", "event_id", "desired_size", "price"},
    "orders": {
        "run", "event_id", "signal_id", "reason", "is_shadow", "refused_by", "refused_value", "refused_limit",
        "order_type", "limit_price", "stop_price", "time_in_force", "expire_ts", "post_only", "reduce_only",
        "parent_id",
    },
    "trades": {"run", "liquidity", "tick", "slippage_bps", "after_gap"},
}  # fmt: skip
# The indexes of the original system: name -> (table, column, unique).
INDEXES = {
    "idx_ticks_ts": ("ticks", "ts", 0),
    "idx_signals_ts": ("signals", "ts", 0),
    "idx_orders_ts": ("orders", "ts", 0),
    "idx_trades_ts": ("trades", "ts", 0),
    "idx_trades_order_id": ("trades", "order_id", 0),
}
# Ours, of few rows: those that have a value there.
PARTIAL_INDEXES = {"idx_orders_parent_id": ("orders", "parent_id", 0)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    new_database(tmp_path / "x.db").close()
    return tmp_path / "x.db"


def columns(path: Path, table: str) -> dict[str, tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return {name: tuple(rest) for _no, name, *rest in db.execute(f"PRAGMA table_info({table})")}


@pytest.mark.parametrize("table", ORIGINAL)
def test_columns(path: Path, table: str) -> None:
    """Names, types and NOT NULL of the original; id is the row id; what is added may be missing."""
    found = columns(path, table)
    assert found.pop("id")[::3] == ("INTEGER", 1)
    assert {
        name: (kind, bool(required)) for name, (kind, required, *_) in found.items() if name in ORIGINAL[table]
    } == (ORIGINAL[table])
    assert set(found) == set(ORIGINAL[table]) | ADDED[table]
    for name in ADDED[table]:
        _kind, required, default, _key = found[name]
        assert not required or default is not None, name


def test_shadow_is_the_default(path: Path) -> None:
    """S9: a row that does not say otherwise is a simulated one."""
    assert columns(path, "trades")["is_shadow"][2] == "1"
    assert columns(path, "orders")["is_shadow"][2] == "1"


def test_indexes(path: Path) -> None:
    """The original's indexes by name; event ids are unique (I3)."""
    with closing(sqlite3.connect(path)) as db:
        unique: set[tuple[str, tuple[str, ...]]] = set()
        named: dict[str, tuple[str, str, int]] = {}
        for table in (*ORIGINAL, "runs"):
            for _no, name, is_unique, _origin, _partial in db.execute(f"PRAGMA index_list({table})"):
                parts = tuple(row[2] for row in db.execute(f"PRAGMA index_info({name})"))
                if is_unique:
                    unique.add((table, parts))
                if name.startswith("idx_"):
                    named[name] = (table, parts[0], is_unique)
    assert named == INDEXES | PARTIAL_INDEXES
    assert unique == {
        ("signals", ("event_id",)), ("orders", ("event_id",)), ("trades", ("event_id",)), ("runs", ("run_id",)),
    }  # fmt: skip


def test_no_other_tables(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables == {
        *ORIGINAL,
        "runs",
        "notices",
        "carried",
        "feeds",
        "restart_state",
        "original_rows",
        "order_events",
        "checkpoints",
    }
