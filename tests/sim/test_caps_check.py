"""The check of risk caps (`sim.checks.caps`) detects a refused order whose row names the wrong limit."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sim.checks.caps import check_caps
from tests.unit.store_helpers import batch_of, new_run, signal, storage_of
from tradebot.config.model import RiskCaps
from tradebot.core.events import BUY, Signal, Tick
from tradebot.execution.shadow import ShadowExecution
from tradebot.portfolio.money import money_of

CAPS = RiskCaps(max_exposure_usd=15.0, max_symbol_exposure_usd=12.0)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A fill of A, an order of A above the symbol's cap, an order of B above the total cap, and a filled order of B."""
    path = tmp_path / "x.db"
    execution = ShadowExecution(CAPS, money_of(0.001))
    with storage_of(path, new_run(path)) as storage:
        for number, (symbol, price) in enumerate((("A", 10.0), ("A", 10.5), ("B", 9.0), ("B", 2.5)), start=1):
            one = signal(number)
            made = Signal(one.event_id, symbol, BUY, 0.75, one.reason, 1.0, price, number)
            storage.write(batch_of(Tick(symbol, price, 1.0, number), made, execution.execute(made)))
    with closing(sqlite3.connect(path)) as connection:
        yield connection


def test_what_the_engine_stores_is_right(db: sqlite3.Connection) -> None:
    check_caps(db, [1], CAPS)
    assert db.execute("SELECT status, refused_by, refused_value, refused_limit FROM orders").fetchall() == [
        ("FILLED", None, None, None),
        ("REJECTED", "risk_caps.max_symbol_exposure_usd", 21.0, 12.0),
        ("REJECTED", "risk_caps.max_exposure_usd", 19.5, 15.0),
        ("FILLED", None, None, None),
    ]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("refused_by = 'risk_caps.max_exposure_usd' WHERE id = 2", "not risk_caps.max_symbol_exposure_usd 21.0"),
        ("refused_value = 20.0 WHERE id = 2", "not risk_caps.max_symbol_exposure_usd 21.0"),
        ("refused_limit = 11.0 WHERE id = 2", "not risk_caps.max_symbol_exposure_usd 21.0"),
        ("refused_value = 9.0 WHERE id = 3", "not risk_caps.max_exposure_usd 19.5"),
        ("refused_by = NULL, refused_value = NULL, refused_limit = NULL WHERE id = 3", "not risk_caps.max_exposure"),
        ("refused_by = 'risk_caps.max_exposure_usd' WHERE id = 4", "was filled, but names a limit"),
    ],
)
def test_a_wrong_limit_is_seen(db: sqlite3.Connection, change: str, complaint: str) -> None:
    db.execute(f"UPDATE orders SET {change}")
    with pytest.raises(AssertionError, match=complaint):
        check_caps(db, [1], CAPS)
