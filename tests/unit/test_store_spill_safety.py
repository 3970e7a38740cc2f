"""What makes a spill file safe: it is on disk before anybody relies on it, and it fits every table it goes into."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.unit.store_helpers import full_batch, new_run, storage_of, tick
from tradebot.exits import ConfigError
from tradebot.store.batch import StoredCounts
from tradebot.store.database import connect
from tradebot.store.spill import Spill, adopt, spill_path


def test_each_chunk_is_on_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contract 6: what is reported as spilled survives the power failing a moment later."""
    synced: list[tuple[int, int]] = []
    fdatasync, fsync = os.fdatasync, os.fsync

    def spy(descriptor: int) -> None:
        written = made.path.read_bytes().partition(b"\0")[0]
        synced.append((written.count(b"\n"), made.events))
        fdatasync(descriptor)

    sizes: list[int] = []

    def spy_end(descriptor: int) -> None:
        sizes.append(os.fstat(descriptor).st_size)
        fsync(descriptor)

    monkeypatch.setattr(os, "fdatasync", spy)
    monkeypatch.setattr(os, "fsync", spy_end)
    made = Spill(tmp_path / "x.spill", 10)
    made.begin("r1", StoredCounts())
    made.append([tick(1), tick(2)])
    made.append([tick(3)])
    assert synced == [(1, 0), (3, 0), (4, 2)], "lines that were written, and events that counted, at each sync"
    made.finish()
    assert sizes == [(tmp_path / "x.spill").stat().st_size], "the end too, and the room that was given back"


@pytest.mark.parametrize("table", ["ticks", "signals", "orders", "trades", "notices"])
def test_a_database_that_lost_rows_of_any_table_is_refused(tmp_path: Path, table: str) -> None:
    """I3: the rows between what it holds and where the spill begins are nowhere."""
    path = tmp_path / "x.db"
    with storage_of(path, new_run(path)) as storage:
        storage.write(full_batch(1, 10))
        counts = storage.counts
    ahead = {name: getattr(counts, name) + (name == table) for name in counts.__struct_fields__}
    made = Spill(spill_path(path), 10)
    made.begin("r1", StoredCounts(**ahead))
    made.append([tick(11)])
    made.finish()
    with closing(connect(path)) as db, pytest.raises(ConfigError, match="has lost some of its"):
        adopt(db, spill_path(path))
    assert spill_path(path).exists()
    with closing(sqlite3.connect(path)) as plain:
        assert plain.execute("SELECT COUNT(*) FROM ticks").fetchone() == (10,)
