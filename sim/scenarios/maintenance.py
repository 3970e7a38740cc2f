"""Prune and backup as separate processes, while engines run and in between, with kills and faults at any step."""

from __future__ import annotations

from typing import Any

from mockws_server.actions import Disconnect, Skip, Ticks
from sim.checks.prune_invariants import reading
from sim.scenarios.common import (
    expect,
    flat_values,
    replay_settings,
    run_id_of,
    scenario,
    synthetic_settings,
)
from sim.scenarios.live import live_settings, script_of
from sim.world.exchange import SimExchange
from sim.world.faults import StorageFaults
from sim.world.maintenance import MaintainedDatabase, draw_command_faults, maintained_database
from sim.world.side_process import CommandFaults, opened_in_steps
from sim.world.world import World
from tradebot.config.model import Settings
from tradebot.core.log_events import LogEvent


def _feed(world: World) -> Settings:
    """Twenty ticks a second for a few seconds, with many signals."""
    return synthetic_settings(
        world,
        engine__tick_interval_ms=50,
        engine__run_seconds=1.5 + world.between(0, 3) / 2,
        persist__batch_size=world.between(1, 20),
        persist__flush_interval_ms=300,
        strategy__desired_size=(0.1, 1.0, 30.0)[world.between(0, 2)],
    )


def _quiet(database: MaintainedDatabase) -> Settings:
    """The same feed without signals, so that all signals of earlier runs may be deleted."""
    return database.world.settings({**flat_values(database.settings), "engine.signal_every_n_ticks": 1000})


def _past(database: MaintainedDatabase, runs: int) -> None:
    """Earlier runs of the feed: the first complete, others possibly killed."""
    expect(database.run_engine(), 0)
    for _ in range(runs - 1):
        database.pause(database.world.between(0, 5))
        database.run_engine(kill_at_step=database.world.between(300, 2000) if database.world.chance(0.5) else None)


def _prune_all(database: MaintainedDatabase) -> None:
    """Prune everything that may be deleted, with no engine beside it; it succeeds."""
    prune = database.prune_command(0)
    database.run_alone(prune)
    assert prune.code == 0, f"exit code {prune.code}: {prune.said}"


@scenario
def prune_between_runs(world: World) -> None:
    """Prunes, many interrupted: each restart continues as if nothing had been pruned; the last prune finishes."""
    with maintained_database(world, _feed(world)) as database:
        _past(database, world.between(1, 2))
        for _ in range(world.between(1, 3)):
            database.run_alone(
                database.prune_command(world.between(0, database.elapsed_ms), draw_command_faults(world))
            )
            if world.chance(0.5):
                expect(database.run_engine(settings=_quiet(database) if world.chance(0.5) else None), 0)
        _prune_all(database)
        expect(database.run_engine(), 0)


@scenario
def prune_while_engine_runs(world: World) -> None:
    """One or two concurrent prunes while an engine runs: it and the next engine store the same rows as without them."""
    with maintained_database(world, _feed(world)) as database:
        _past(database, 1)
        for _ in range(2):
            keep_ms, at_s = world.between(0, database.elapsed_ms), world.between(0, 250) / 100
            later_s = (0.001, 0.7)[world.between(0, 1)]
            commands = [
                database.prune_command(keep_ms, draw_command_faults(world), at_s=at_s + later_s * n, name=f"prune {n}")
                for n in range(world.between(1, 2))
            ]
            kill = world.between(300, 2000) if world.chance(0.3) else None
            outcome = database.run_engine(*commands, kill_at_step=kill)
            assert outcome.exit_code in (0, None), outcome.error
        expect(database.run_engine(database.prune_command(0, at_s=1.0)), 0)


@scenario
def concurrent_prunes(world: World) -> None:
    """A prune waits for a lock while another one deletes a run that the first had planned with: required rows stay."""
    with maintained_database(world, _feed(world)) as database:
        _past(database, 1)
        second_ms = database.elapsed_ms
        database.pause(1)
        expect(database.run_engine(), 0)
        waits = database.prune_command(0, CommandFaults(trouble={world.between(1, 3): "wait"}))
        other = database.prune_command(
            database.elapsed_ms - second_ms - 500, at_s=world.between(0, 100) / 100, name="other"
        )
        database.run_alone(waits, other)
        assert 0 in (waits.code, other.code), f"both ended with {waits.code}: {waits.said}{other.said}"
        expect(database.run_engine(), 0)


@scenario
def prune_while_engine_starts(world: World) -> None:
    """An engine opens its database and takes over its state step by step while prunes run; or it is killed."""
    with maintained_database(world, _feed(world)) as database:
        _past(database, 2)
        with opened_in_steps(lambda: world.processes[-1].runtime.checkpoint()):
            for _ in range(2):
                one = database.prune_command(world.between(0, database.elapsed_ms), draw_command_faults(world, 0.05))
                commands = [one, database.prune_command(0, at_s=(0.0, 0.001)[world.between(0, 1)], name="other")]
                kill = world.between(10, 400) if world.chance(0.5) else None
                outcome = database.run_engine(*commands, kill_at_step=kill)
                assert outcome.exit_code in (0, None), outcome.error
        expect(database.run_engine(), 0)


@scenario
def prune_killed_at_every_transaction(world: World) -> None:
    """kill -9 in the middle of each transaction in turn: it is rolled back, and the next prune continues."""
    with maintained_database(world, _feed(world)) as database:
        _past(database, 1)
        keep_ms = world.between(0, database.elapsed_ms // 2)
        for number in range(1, 100):
            command = database.prune_command(keep_ms, CommandFaults(trouble={number: "kill"}))
            database.run_alone(command)
            if command.code is not None:
                break
        assert command.code == 0, f"exit code {command.code}: {command.said}"
        expect(database.run_engine(), 0)


@scenario
def prune_database_locked(world: World) -> None:
    """Another program locks the database for longer than prune retries: exit 1; the next prune completes."""
    with maintained_database(world, _feed(world)) as database:
        _past(database, 1)
        free = world.between(1, 4)
        command = database.prune_command(0, CommandFaults(trouble=dict.fromkeys(range(free, 200), "busy")))
        database.run_alone(command)
        assert command.code == 1 and "Not finished: " in command.said and "SQLITE_BUSY" in command.said, command.said
        waited_s = world.outcomes[-1].sim_s
        assert 60 <= waited_s <= 75, f"it gave up after {waited_s} s"
        _prune_all(database)
        expect(database.run_engine(), 0)


@scenario
def prune_replay(world: World) -> None:
    """A replay is pruned completely or not at all: a partly pruned one is refused, a deleted one is stored again."""
    settings = replay_settings(world, 60, {"resume": True}, persist__batch_size=world.between(5, 30))
    with maintained_database(world, settings) as database:
        expect(database.run_engine(), 0)
        first = world.dump()
        for _ in range(world.between(1, 3)):
            database.pause(1)
            database.run_alone(database.prune_command(0, draw_command_faults(world, 0.3)))
            runs = _replays(world)
            if runs and world.chance(0.5):
                expect(database.run_engine(), 12 if runs[0][1] else 0)
        database.pause(1)
        _prune_all(database)
        assert not _replays(world), "prune kept a replay"
        expect(database.run_engine(), 0)
        assert _without_ids(world.dump()) == _without_ids(first), "stored again, it is another replay"


@scenario
def prune_live_feed(world: World) -> None:
    """Notices are pruned with the ticks before them; the next run continues the numbering."""
    exchange = SimExchange(script_of(world, Ticks(20, 30.0), Skip(2), Ticks(3, 30.0), Disconnect(), repeat=None))
    settings = live_settings(
        world, engine__run_seconds=1.5, engine__signal_every_n_ticks=world.between(1, 4), persist__flush_interval_ms=200
    )
    with maintained_database(world, settings) as database:
        expect(database.run_engine(network=exchange.online), 0)
        for _ in range(2):
            prune = database.prune_command(
                world.between(0, database.elapsed_ms), draw_command_faults(world), at_s=world.between(0, 120) / 100
            )
            expect(database.run_engine(prune, network=exchange.online), 0)
        _prune_all(database)
        expect(database.run_engine(network=exchange.online), 0)


@scenario
def prune_keeps_spilled_run(world: World) -> None:
    """A replay with events in the spill file is not pruned until a start has adopted them."""
    settings = replay_settings(world, 60, {"resume": True}, persist__storage_retry_s=0.2, persist__batch_size=5)
    with maintained_database(world, settings) as database:
        full = StorageFaults(full_from_s=0.0, full_until_s=1000.0)
        failed = database.run_engine(storage=full)
        expect(failed, 13)
        database.pause(1)
        waits = database.prune_command(0, draw_command_faults(world, 0.2))
        database.run_alone(waits)
        run_id = run_id_of(failed)
        assert [name for name, _pruned in _replays(world)] == [run_id], "the run of the spill is gone"
        if waits.code == 0:
            assert f"run {run_id}; the next start of the engine stores them" in waits.said, waits.said
        expect(database.run_engine(), 0)
        database.pause(1)
        _prune_all(database)
        assert not _replays(world), "prune kept a replay"


@scenario
def prune_during_spill_adoption(world: World) -> None:
    """Starts that adopt a spill file are killed at any step, while prunes run: no event is lost."""
    settings = synthetic_settings(world, engine__tick_interval_ms=50, persist__storage_retry_s=0.2)
    with maintained_database(world, settings) as database:
        failed = database.run_engine(storage=StorageFaults(full_from_s=1.0, full_until_s=1000.0))
        expect(failed, 13)
        run_id, ledger = run_id_of(failed), failed.event(LogEvent.LEDGER)
        with opened_in_steps(lambda: world.processes[-1].runtime.checkpoint()):
            for _ in range(world.between(1, 3)):
                prune = database.prune_command(world.between(0, database.elapsed_ms), draw_command_faults(world, 0.05))
                database.run_engine(prune, kill_at_step=world.between(2, 60))
            database.run_engine(database.prune_command(0), signals_at_s=(0.5,))
        with reading(world.db_path) as db:
            stored = db.execute("SELECT ticks FROM runs WHERE run_id = ?", (run_id,)).fetchone()[0]
        assert ledger["spilled"], "nothing was spilled"
        assert stored == ledger["stored"] + ledger["spilled"], f"{stored} ticks are stored; the ledger says {ledger}"


@scenario
def replay_during_prune(world: World) -> None:
    """A replay of a database that is being pruned: all ticks that existed at its start, or exit 12."""
    with maintained_database(world, _feed(world)) as database:
        _past(database, 1)
        before = [row[1:5] for row in world.dump()["ticks"]]
        other = world.directory / "other.db"
        values = flat_values(replay_settings(world)) | {"app.db_path": str(other)}
        values.pop("engine.replay_file")
        settings = world.settings(values, {"replay_db": str(world.db_path), "speed": world.between(1, 50)})
        with opened_in_steps(lambda: world.processes[-1].runtime.checkpoint()):
            outcome = database.run_engine(
                database.prune_command(0, at_s=world.between(0, 100) / 1e6), settings=settings
            )
        read = [row[1:5] for row in world.dump(other)["ticks"]]
        if outcome.exit_code == 0:
            assert read and before[-len(read) :] == read, f"{len(read)} ticks were read of {len(before)}"
        else:
            expect(outcome, 12)
            messages = [outcome.error or "", *(str(line["fields"].get("detail")) for line in outcome.logs)]
            assert any("was pruned while it was read" in text for text in messages), messages


@scenario
def backup_while_engine_runs(world: World) -> None:
    """A backup is a consistent copy or does not exist; prunes work on it, and an engine continues from it."""
    with maintained_database(world, _feed(world)) as database:
        _past(database, 1)
        target = world.directory / "copy.db"
        for _ in range(2):
            before = target.read_bytes() if target.exists() else None
            kill, signal = (world.between(1, 12) if world.chance(0.3) else None for _ in range(2))
            command = database.backup_command(target, CommandFaults(kill, signal), at_s=world.between(0, 200) / 100)
            prune = database.prune_command(world.between(0, database.elapsed_ms), at_s=command.at_s)
            database.run_engine(command, prune, kill_at_step=world.between(100, 2000) if world.chance(0.3) else None)
            after = target.read_bytes() if target.exists() else None
            assert command.code == 0 or after == before, "a backup that failed has changed what was there"
            if command.code == 0:
                database.check_copy(target)
        last = database.backup_command(target)
        database.run_alone(last)
        assert last.code == 0, f"exit code {last.code}: {last.said}"
        assert not target.with_name("copy.db.part").exists()
        database.check_copy(target)
        database.restore(target)
        expect(database.run_engine(database.prune_command(0, at_s=0.5)), 0)


def _replays(world: World) -> list[tuple[str, int]]:
    """The stored replays and the number of their pruned ticks."""
    with reading(world.db_path) as db:
        query = "SELECT run_id, pruned_ticks FROM runs WHERE ingest = 'replay'"
        return [(str(run_id), int(pruned)) for run_id, pruned in db.execute(query)]


def _without_ids(dumped: dict[str, list[tuple[Any, ...]]]) -> dict[str, list[tuple[Any, ...]]]:
    """Rows without row ids and run ids."""
    return {table: [row[1:-1] if table != "ticks" else row[1:5] for row in rows] for table, rows in dumped.items()}
