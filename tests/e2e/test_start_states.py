"""Starts of real engines on files left by a kill, or under another name: they start, or name the file immediately."""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from contextlib import closing

from tests.e2e.process import CROSSOVER, Engine, assert_sound, counts, rows, wait_for_ticks
from tests.e2e.test_bad_input import assert_one_message
from tests.unit.store.test_start_states import killed_in_a_transaction

REPLAY = ("--ingest=replay", f"--replay-file={CROSSOVER}")
FAST = "[engine]\ntick_interval_ms = 2\n[persist]\nflush_interval_ms = 50\n"
AT_ONCE_S = 10.0
"""Far below storage_retry_s; on a busy machine a start takes part of it."""


def test_a_hot_journal_of_the_first_start(engine: Engine) -> None:
    """A kill while the first schema was created."""
    killed_in_a_transaction(engine.path("x.db"))
    engine.run(*REPLAY, "--db=x.db").expect(0)
    assert counts(engine.path("x.db"))["ticks"] == 50
    assert_sound(engine.path("x.db"))


def test_a_removed_lock_file_and_a_hard_link_let_no_second_engine_in(engine: Engine) -> None:
    """The second engine is refused, and the first one continues."""
    config = engine.config("fast.toml", FAST)
    running = engine.start(config, "--db=x.db")
    wait_for_ticks(engine.path("x.db"), 10)
    engine.path("x.db.lock").unlink()
    engine.path("other").mkdir()
    os.link(engine.path("x.db"), engine.path("other/y.db"))
    for name in ("x.db", "other/y.db"):
        refused = engine.run(config, f"--db={name}", "--seconds=1").expect(12)
        assert_one_message(refused, name, f"another engine (process {running.pid})")
    wait_for_ticks(engine.path("x.db"), 100)
    running.process.terminate()
    done = running.finish(10).expect(0)
    assert counts(engine.path("x.db"))["ticks"] == done.ledger["accepted"]
    assert rows(engine.path("x.db"), "SELECT COUNT(*) FROM runs") == [(1,)]
    assert_sound(engine.path("x.db"))


def test_a_working_directory_that_was_deleted(engine: Engine) -> None:
    """A relative path is refused with a message; an absolute one works."""
    script = 'mkdir gone && cd gone && rmdir ../gone && exec "$@"'
    command = ("sh", "-c", script, "sh", sys.executable, "-m", "tradebot")
    assert_one_message(
        engine.run(*REPLAY, "--db=x.db", command=command).expect(12), "x.db", "working directory was deleted"
    )
    engine.run("--seconds=0.1", f"--db={engine.path('x.db')}", command=command).expect(0)


def test_a_working_directory_that_is_deleted_under_an_engine(engine: Engine) -> None:
    """The end of the run is recorded, although the path of the database was relative."""
    engine.config("fast.toml", FAST)
    engine.path("data").mkdir()
    engine.path("place").mkdir()
    command = ("sh", "-c", 'cd place && exec "$@"', "sh", sys.executable, "-m", "tradebot")
    running = engine.start("--config=../fast.toml", "--db=../data/x.db", command=command)
    wait_for_ticks(engine.path("data/x.db"), 10)
    engine.path("place").rmdir()
    running.process.terminate()
    running.finish(10).expect(0)
    assert rows(engine.path("data/x.db"), "SELECT exit_code FROM runs") == [(0,)]


def test_a_path_that_is_too_long(engine: Engine) -> None:
    """SQLite would only report that it cannot open the file."""
    long = "/".join(["d" * 100] * 6)
    began_s = time.monotonic()
    assert_one_message(engine.run(*REPLAY, f"--db={long}/x.db").expect(12), "x.db", "SQLite takes 504 at most")
    assert_one_message(engine.run(*REPLAY, f"--db={'x' * 250}").expect(12), "xxx", "too long")
    assert time.monotonic() - began_s < 2 * AT_ONCE_S


def test_another_programs_database_with_a_hot_journal(engine: Engine) -> None:
    """Rolled back as by any reader, then refused; its journal mode is unchanged."""
    path = engine.path("x.db")
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE accounts (name)")
    killed_in_a_transaction(path)
    assert_one_message(engine.run(*REPLAY, "--db=x.db").expect(12), "another program (tables: accounts)")
    assert rows(path, "SELECT name FROM sqlite_master") == [("accounts",)]
    assert rows(path, "PRAGMA journal_mode") == [("delete",)]
