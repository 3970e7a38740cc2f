"""prune and backup as processes during writes of an engine, killed at any moment, and with a full disk."""

from __future__ import annotations

import shutil
import signal
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.process import (
    SESSION,
    SESSION_CONFIG,
    Engine,
    Running,
    assert_sound,
    counts,
    dump,
    rows,
    run_ids,
    ticks_stored,
    wait_for_ticks,
    wait_until,
)
from tradebot.core.log_events import LogEvent

FAST = '[engine]\ntick_interval_ms = 2\nsignal_every_n_ticks = 3\n[strategy]\nname = "periodic"\n'
LONG_AGO_MS = 1_600_000_000_000


def with_an_old_replay(undisturbed: Path, db: Path) -> str:
    """A database with a replay that ended long ago; returns its id."""
    shutil.copy(undisturbed, db)
    with closing(sqlite3.connect(db)) as other, other:
        other.execute("UPDATE runs SET first_start_ms = ?, last_end_ms = ?", (LONG_AGO_MS, LONG_AGO_MS))
    return run_ids(db)[0]


def writing(engine: Engine, db: Path) -> Running:
    """An engine that has been writing for some time."""
    running = engine.start(engine.config("fast.toml", FAST), f"--db={db}", "--seconds=60")
    before = ticks_stored(db)
    wait_for_ticks(db, before + 100)
    return running


def pruned(db: Path, run_id: str) -> int:
    found = rows(db, f"SELECT pruned_ticks FROM runs WHERE run_id = '{run_id}'")
    return int(found[0][0]) if found else -1


def _gone_or_pruned(db: Path, run_id: str, ticks: int) -> bool:
    return not 0 <= pruned(db, run_id) < ticks


def test_prune_beside_an_engine_and_killed(engine: Engine, undisturbed: Path) -> None:
    """After any kill -9 no row lacks its cause, the engine never waits, and a pruned replay can be repeated."""
    db = engine.path("x.db")
    run_id = with_an_old_replay(undisturbed, db)
    running = writing(engine, db)
    replay = (f"--config={SESSION_CONFIG}", f"--replay-file={SESSION}", f"--db={db}")
    killed = 0
    for share in (1, 500, 1500):
        prune = engine.start("prune", f"--db={db}", "--keep=1d")
        wait_until(partial(_gone_or_pruned, db, run_id, share), "ticks that are pruned")
        killed += prune.kill().code == -9
        assert_sound(db)
    assert killed >= 1 and pruned(db, run_id) > 0
    running.send(signal.SIGTERM)
    done = running.finish().expect(0)
    assert not done.all(LogEvent.STORAGE_UNAVAILABLE) and done.ledger
    refused = engine.run(*replay, "--resume").expect(12)
    assert "were pruned, so that it can be neither resumed nor compared" in refused.complaint
    finished = engine.run("prune", f"--db={db}", "--keep=1d").expect(0)
    assert "1 replays" in finished.stdout
    assert run_id not in run_ids(db)
    engine.run(*replay).expect(0)
    assert_sound(db)
    assert counts(db)["trades"] > counts(undisturbed)["trades"]


def test_backup_beside_an_engine_and_killed(engine: Engine, undisturbed: Path) -> None:
    """A consistent and intact copy; a killed backup leaves no file with the final name."""
    db, copy = engine.path("x.db"), engine.path("copy.db")
    with_an_old_replay(undisturbed, db)
    running = writing(engine, db)
    backup = engine.start("backup", str(copy), f"--db={db}")
    part = engine.path("copy.db.part")
    wait_until(lambda: part.exists() or copy.exists() or backup.process.poll() is not None, "a file to copy to")
    if backup.kill().code == -9:
        copy.unlink(missing_ok=True)  # it may have been killed just after
    said = engine.run("backup", str(copy), f"--db={db}", "--force").expect(0)
    assert f"{copy}: " in said.stdout and not said.stderr
    assert not part.exists()
    stored = ticks_stored(copy)
    assert_sound(copy)
    wait_for_ticks(db, stored + 1)
    running.send(signal.SIGTERM)
    assert not running.finish().expect(0).all(LogEvent.STORAGE_UNAVAILABLE)
    assert "exists already" in engine.run("backup", str(copy), f"--db={db}").expect(1).complaint
    # The copy is a database like any other: an engine goes on from it.
    engine.run(engine.config("fast.toml", FAST), f"--db={copy}", "--seconds=0.5").expect(0)
    assert_sound(copy)
    assert rows(copy, "SELECT COUNT(*) FROM runs") == [(3,)]


@pytest.mark.parametrize("command", [["prune", "--keep=1d"], ["backup", "copy.db"]])
def test_a_database_that_is_not_there(engine: Engine, command: list[str]) -> None:
    done = engine.run(*command, "--db=none.db").expect(1)
    assert "database none.db: does not exist" in done.complaint
    assert not list(engine.home.glob("*.db*"))


def test_a_replay_of_a_pruned_run_says_so(engine: Engine, undisturbed: Path) -> None:
    """The remaining rows are replayed, under another id, and the log reports it."""
    db = engine.path("x.db")
    shutil.copy(undisturbed, db)
    with closing(sqlite3.connect(db)) as other, other:
        other.execute("UPDATE runs SET pruned_ticks = 1000")
        other.execute("DELETE FROM ticks WHERE id <= 1000")
    before = dump(db)
    done = engine.run("--ingest=replay", f"--replay-db={db}", "--db=y.db", f"--config={SESSION_CONFIG}").expect(0)
    assert done.one(LogEvent.PRUNED_RUN)["pruned"] == 1000
    assert ticks_stored(engine.path("y.db")) == counts(db)["ticks"]
    assert run_ids(engine.path("y.db")) != run_ids(db)
    assert dump(db) == before
