"""The newest tick of a database that is there, is not there, or is none."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from sim.world.faults import open_files
from tradebot.core.errors import ConfigError, TradebotError
from tradebot.ops.soak.last_tick import newest_tick
from tradebot.ops.soak.stall import Newest


def make(path: Path, *ticks: tuple[int, int]) -> None:
    """A database with ticks of that id and ts."""
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode = wal")
        db.execute("CREATE TABLE ticks (id INTEGER PRIMARY KEY, symbol, price, volume, ts)")
        db.execute("CREATE INDEX idx_ticks_ts ON ticks (ts)")
        db.executemany("INSERT INTO ticks (id, ts) VALUES (?, ?)", ticks)
    db.close()


def test_greatest_id_and_greatest_time(tmp_path: Path) -> None:
    make(tmp_path / "x.db", (1, 50), (2, 90), (3, 70))
    assert newest_tick(tmp_path / "x.db") == Newest(3, 90)


def test_nothing_yet(tmp_path: Path) -> None:
    assert newest_tick(tmp_path / "none" / "x.db") == Newest(None, None, made=False)
    (tmp_path / "empty.db").touch()
    assert newest_tick(tmp_path / "empty.db") == Newest(None, None, made=False)
    make(tmp_path / "x.db")
    assert newest_tick(tmp_path / "x.db") == Newest(None, None)


def test_what_is_no_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("something else, and long enough to be looked at by SQLite" * 100)
    for path in (tmp_path, tmp_path / "x.db"):
        with pytest.raises(TradebotError, match=path.name):
            newest_tick(path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError):
        newest_tick(tmp_path / ("x" * 300))


def test_a_file_that_was_replaced_is_seen_and_none_stays_open(tmp_path: Path) -> None:
    make(tmp_path / "x.db", (9, 9))
    assert newest_tick(tmp_path / "x.db").id == 9
    make(tmp_path / "other.db", (4, 4))
    os.replace(tmp_path / "other.db", tmp_path / "x.db")
    assert newest_tick(tmp_path / "x.db").id == 4
    assert [name for _descriptor, name in open_files() if name.startswith(str(tmp_path))] == []


def test_it_waits_for_no_writer_and_holds_none_up(tmp_path: Path) -> None:
    make(tmp_path / "x.db", (1, 1))
    writer = sqlite3.connect(tmp_path / "x.db", timeout=0, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("INSERT INTO ticks (id, ts) VALUES (2, 2)")
    assert newest_tick(tmp_path / "x.db") == Newest(1, 1)
    writer.execute("COMMIT")
    assert newest_tick(tmp_path / "x.db") == Newest(2, 2)
    assert writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    writer.close()
