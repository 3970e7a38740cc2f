"""Replays: the same rows for all sizes, schedules and kills."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sim.checks.checkers import check_accepted_stored, check_database, check_run
from sim.scenarios.common import (
    check_all,
    expect,
    flat_values,
    replay_settings,
    run_id_of,
    scenario,
)
from sim.world.faults import StorageFaults
from sim.world.world import Faults, World
from tradebot.config.model import Settings
from tradebot.core.log_events import LogEvent


@scenario
def full_replay(world: World) -> None:
    """For all sizes and schedules, a replay stores the result of the single-threaded reference (S8)."""
    settings = replay_settings(world, engine__sample_every=world.between(1, 4))
    outcome = world.run(settings)
    expect(outcome, 0)
    check_accepted_stored(outcome)
    check_all(world, settings, outcome, push=False)
    ledger = outcome.event(LogEvent.LEDGER)
    good = ledger["received"] - ledger["malformed"]
    assert ledger["stored"] == good // settings.config.engine.sample_every
    again = world.run(settings)
    expect(again, 12)


@scenario
def replay_of_replay(world: World) -> None:
    """The ticks of a stored run, replayed into another database, give the same rows, run ids aside (S8)."""
    first = world.run(replay_settings(world))
    expect(first, 0)
    settings = replay_settings(world)
    values = flat_values(settings) | {"app.db_path": str(world.directory / "second.db")}
    values.pop("engine.replay_file")
    second = world.run(world.settings(values, {"replay_db": str(world.db_path)}))
    expect(second, 0)
    one, other = world.dump(), world.dump(world.directory / "second.db")
    for rows in (*one.values(), *other.values()):
        rows[:] = [
            tuple(str(field).replace(run_id_of(first), "").replace(run_id_of(second), "") for field in row)
            for row in rows
        ]
    assert one == other, "the replay of a replay differs"
    assert run_id_of(first) != run_id_of(second)


@scenario
def kill_and_resume(world: World) -> None:
    """kill -9 at any step, repeatedly: the resumed replay equals an uninterrupted one, ids included."""
    settings = replay_settings(world, options={"resume": True})
    kills = world.between(1, 4)
    for _ in range(kills):
        outcome = world.run(settings, Faults(kill_at_step=world.between(1, 1500)))
        if outcome.exit_code is None and world.db_path.exists():
            check_database(world.db_path) if _has_runs(world) else None
    outcome = world.run(settings)
    expect(outcome, 0)
    check_as_uninterrupted(world, settings)
    again = world.run(settings)
    expect(again, 0)
    assert "already holds this whole replay" in again.answers


@scenario
def kill_at_every_batch_boundary(world: World) -> None:
    """kill -9 after every batch, before or after the writer learns of the commit: nothing lost, nothing twice."""
    settings = replay_settings(world, 80, {"resume": True}, persist__batch_size=world.between(10, 40))
    stored = 0
    while True:
        after_commit = world.chance(0.5)
        faults = StorageFaults(kill_at_commit=1) if after_commit else StorageFaults(kill_at_write=2)
        outcome = world.run(settings, Faults(storage=faults))
        if outcome.exit_code is not None:
            break
        check_database(world.db_path)
        check_run(world.db_path, settings.config, run_id_of(outcome), whole=False)
        rows = sum([len(rows) for rows in world.dump().values()])
        assert rows > stored, "each process stores one batch"
        stored = rows
    expect(outcome, 0)
    check_as_uninterrupted(world, settings)


def check_as_uninterrupted(world: World, settings: Settings) -> None:
    """The rows equal those of an uninterrupted replay into another database."""
    resumed = world.dump()
    check_database(world.db_path)
    straight = World(world.seed, _subdirectory(world))
    whole = straight.run(straight.settings({**flat_values(settings), "app.db_path": str(straight.db_path)}))
    expect(whole, 0)
    for table, rows in straight.dump().items():
        assert resumed[table] == rows, f"{table}: resumed {len(resumed[table])} rows, straight {len(rows)}, or unequal"


def _has_runs(world: World) -> bool:
    db = sqlite3.connect(world.db_path)
    try:
        return bool(db.execute("SELECT name FROM sqlite_master WHERE name = 'runs'").fetchall())
    finally:
        db.close()


def _subdirectory(world: World) -> Path:
    path = world.directory / "straight"
    path.mkdir()
    return path
