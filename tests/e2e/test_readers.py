"""Readers beside an engine: neither waits for the other, and the write-ahead log stays small with a long reader."""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
from contextlib import closing
from itertools import pairwise

from tests.e2e.process import REPO, Engine, assert_sound, ticks_stored, wait_for_ticks, wait_until
from tradebot.core.log_events import LogEvent
from tradebot.store.policy import WAL_BYTES_KEPT

# A commit for each tick: the write-ahead log grows as fast as it can. The channels are wide, so that readers that take
# all processors for seconds make the engine late, and do not end it with 13.
FAST = (
    "[engine]\ntick_interval_ms = 1\n[channels]\ntick_channel_size = 200000\npersist_channel_size = 200000\n"
    "[persist]\nbatch_size = 1\n"
)


def test_four_readers_at_full_speed_never_meet_a_lock(engine: Engine) -> None:
    """No SQLITE_BUSY during writes, although these readers never wait for a lock."""
    db = engine.path("x.db")
    running = engine.start(engine.config("fast.toml", FAST), f"--db={db}", "--seconds=60")
    wait_for_ticks(db, 1)
    command = (sys.executable, "-m", "bench.storage_work", "read", str(db), "--seconds=2")
    readers = [engine.start(command=command, env={"PYTHONPATH": str(REPO)}) for _ in range(4)]
    found = [json.loads(reader.finish().expect(0).stdout) for reader in readers]
    wait_for_ticks(db, ticks_stored(db) + 1)
    running.send(signal.SIGTERM)
    done = running.finish().expect(0)
    assert [one["busy"] for one in found] == [0] * 4
    assert all(one["queries"] > 0 for one in found)
    assert not done.all(LogEvent.STORAGE_UNAVAILABLE)
    assert_sound(db)


def test_a_long_reader_makes_batches_larger(engine: Engine) -> None:
    """A write-ahead log that cannot be reset grows slowly, and is truncated when the reader has finished."""
    db = engine.path("x.db")
    wal = engine.path("x.db-wal")
    config = engine.config("fast.toml", f"{FAST}flush_interval_ms = 200\n")
    running = engine.start(config, f"--db={db}", "--seconds=60")
    wait_for_ticks(db, 1)
    with closing(sqlite3.connect(db, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM ticks").fetchone()
        wait_until(lambda: wal.stat().st_size > WAL_BYTES_KEPT, "a log beyond its usual size")
        commits = [ticks_stored(db)]
        wait_until(lambda: _note(commits, ticks_stored(db)) >= 4, "commits")
    # The first one may have started before. With one tick per commit, none would have this many.
    assert min(after - before for before, after in pairwise(commits[1:])) > 20
    wait_until(lambda: wal.stat().st_size <= WAL_BYTES_KEPT, "the log is cut down")
    running.send(signal.SIGTERM)
    running.finish().expect(0)
    assert_sound(db)


def _note(commits: list[int], ticks: int) -> int:
    """Record the number of stored ticks if it has changed; returns how many numbers were recorded."""
    if ticks != commits[-1]:
        commits.append(ticks)
    return len(commits)
