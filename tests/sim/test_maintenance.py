"""Commands beside a simulated engine: they run independently, and the checks of prune and backup detect errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sim.__main__ import run_one
from sim.checks import prune_invariants as kept
from sim.kernel.clock import frozen
from sim.runner.history import SWARMS, drawn_scenario
from sim.scenarios import SCENARIOS
from sim.scenarios.common import expect, synthetic_settings
from sim.world.maintenance import KEPT, MaintainedDatabase, ScheduledCommand, maintained_database
from sim.world.side_process import CommandFaults, SideProcess, Trouble, opened_in_steps
from sim.world.world import World, dump
from tradebot.core.log_events import LogEvent
from tradebot.store import policy
from tradebot.store import session as opening

MAINTENANCE = [name for name, play in SCENARIOS.items() if play.__module__ == "sim.scenarios.maintenance"]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[MaintainedDatabase]:
    """A database with a run of forty ticks, each with a signal and a fill."""
    world = World(1, tmp_path)
    settings = synthetic_settings(
        world, engine__tick_interval_ms=50, engine__run_seconds=2.0, engine__signal_every_n_ticks=1
    )
    with maintained_database(world, settings) as maintained:
        expect(maintained.run_engine(), 0)
        yield maintained


def ticks(path: Path) -> int:
    return len(dump(path)["ticks"])


def test_what_was_pruned_put_back_is_what_was_there(database: MaintainedDatabase) -> None:
    path, copy = database.world.db_path, database.world.directory / "copy.db"
    before = dump(path)
    database.run_alone(database.prune_command(0))
    assert ticks(path) == KEPT
    assert dump(kept.unpruned(path, copy)) == before


def test_a_kill_of_a_prune_is_not_the_engines(database: MaintainedDatabase) -> None:
    """It ends in the middle of a transaction, which has no effect; the engine runs to its end."""
    before = ticks(database.world.db_path)
    command = database.prune_command(0, CommandFaults(trouble={1: "kill"}), at_s=0.5)
    outcome = database.run_engine(command)
    expect(outcome, 0)
    assert command.code is None and command.said == ""
    assert ticks(database.world.db_path) == before + outcome.event(LogEvent.LEDGER)["stored"]


def test_a_signal_for_a_prune_is_not_the_engines(database: MaintainedDatabase) -> None:
    command = database.prune_command(0, CommandFaults(signal_at_point=30), at_s=0.5)
    outcome = database.run_engine(command)
    expect(outcome, 0)
    assert outcome.sim_s >= 2.0
    assert command.code == 1 and "stopped by a signal" in command.said


@pytest.mark.parametrize("trouble", ["busy", "full", "torn", "doubt"])
def test_trouble_is_met_and_got_over(database: MaintainedDatabase, trouble: Trouble) -> None:
    command = database.prune_command(0, CommandFaults(trouble={2: trouble}))
    database.run_alone(command)
    assert command.side_process is not None and command.side_process.failures == 1
    assert command.code == 0 and ticks(database.world.db_path) == KEPT


def test_the_history_goes_on_until_all_have_ended(database: MaintainedDatabase) -> None:
    def run(side_process: SideProcess) -> int:
        side_process.sleep(100.0)
        return 7

    command = ScheduledCommand("sleeper", run)
    outcome = database.run_engine(command)
    expect(outcome, 0)
    assert command.code == 7 and outcome.sim_s >= 100


def test_nothing_of_it_stays(tmp_path: Path) -> None:
    before = policy._BLOCK_TICKS, opening.connect  # type: ignore[attr-defined]
    world = World(1, tmp_path)
    with maintained_database(world, synthetic_settings(world)), opened_in_steps(lambda: None):
        assert before != (policy._BLOCK_TICKS, opening.connect)  # type: ignore[attr-defined]
    assert before == (policy._BLOCK_TICKS, opening.connect)  # type: ignore[attr-defined]


WRONG: dict[str, tuple[str, Callable[[MaintainedDatabase, sqlite3.Connection], None]]] = {
    "DELETE FROM ticks WHERE id = 1": ("ticks left, there are", lambda _database, db: kept.check_commit(db)),
    "UPDATE runs SET pruned_trades = 1": ("trades left, there are", lambda _database, db: kept.check_commit(db)),
    "DELETE FROM ticks WHERE id = 1; UPDATE runs SET pruned_ticks = 1": (
        "is there, but its tick is gone", lambda _database, db: kept.check_commit(db),
    ),
    "UPDATE feeds SET run_ticks = 20; UPDATE runs SET pruned_ticks = 25": (
        "5 ticks of synthetic:SOL/USDC are gone that no checkpoint covers", lambda _database, db: kept.check_kept(db),
    ),
    "UPDATE runs SET pruned_ticks = ticks": (
        "ticks of synthetic:SOL/USDC are gone; the newest must stay", lambda _database, db: kept.check_kept(db),
    ),
    "DELETE FROM ticks WHERE id > 30": (
        "ticks were deleted that are not older",
        lambda database, db: kept.check_young(db, first_ms(database) + 1500, 0),
    ),
    "SELECT 1": (
        "are old and left, there need be no more", lambda database, db: kept.check_finished(db, 10**15, {1: 10**6}, 2),
    ),
    "UPDATE restart_state SET fees = fees + 0.01": (
        "SOL/USDC is .*, its fills come to", lambda database, _db: carried(database),
    ),
    "UPDATE restart_state SET last_side = NULL": (
        "SOL/USDC is .*None.*its ticks and signals come to", lambda database, _db: carried(database),
    ),
    "DELETE FROM restart_state": ("SOL/USDC is not known", lambda database, _db: carried(database)),
}  # fmt: skip
"""A change of the database, the expected message, and the check that reports it."""


def first_ms(database: MaintainedDatabase) -> int:
    return int(dump(database.world.db_path)["ticks"][0][4])


def carried(database: MaintainedDatabase) -> None:
    whole = kept.unpruned(database.world.db_path, database.world.directory / "whole.db")
    kept.check_carried(database.world.db_path, whole)


@pytest.mark.parametrize("damage", WRONG)
def test_the_checks_see(database: MaintainedDatabase, damage: str) -> None:
    """They pass before the change and fail after it."""
    said, check = WRONG[damage]
    path = database.world.db_path
    database.run_alone(database.prune_command(10**9))  # sums are kept, nothing is deleted
    with closing(sqlite3.connect(path)) as db:
        if damage != "SELECT 1":
            check(database, db)
        db.executescript(damage)
        with pytest.raises(AssertionError, match=said):
            check(database, db)


@pytest.mark.parametrize("name", ["concurrent_prunes", "prune_keeps_spilled_run"])
def test_one_seed_is_one_history(name: str) -> None:
    """S8: also with several processes at the same time."""
    with frozen() as freezer:
        one, other = run_one(name, 5, freezer), run_one(name, 5, freezer)
        assert one == other and one[1] is None
        assert one[0] != run_one(name, 6, freezer)[0]


def test_seeds_draw_them() -> None:
    """About one in seven seeds that do not draw the swarm draws one of these scenarios."""
    drawn = [drawn_scenario(seed) for seed in range(1, 3001)]
    assert set(MAINTENANCE) <= set(drawn)
    share = sum(name in MAINTENANCE for name in drawn) / sum(name not in SWARMS for name in drawn)
    assert 0.1 < share < 0.2
