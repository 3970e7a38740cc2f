"""Storage that becomes unavailable under a push feed, and returns or not: accepted events wait in the spill file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sim.checks.checkers import check_accepted_stored, check_database, check_run
from sim.scenarios.common import check_all, expect, flat_values, run_id_of, scenario, synthetic_settings
from sim.world.faults import StorageFaults
from sim.world.world import Faults, ProcessOutcome, SimProcess, World
from tradebot.config.model import Settings
from tradebot.core.log_events import LogEvent
from tradebot.store.spill import spill_path

_RATE_MS = 5
"""At this rate the channels of a push feed (768 events) are full in less than four seconds."""


def _settings(world: World, **keys: object) -> Settings:
    """More ticks than the channels can hold while the storage is unavailable."""
    usual = {"engine__tick_interval_ms": _RATE_MS, "engine__run_seconds": 30.0, "engine__signal_every_n_ticks": 10}
    return synthetic_settings(world, **usual | keys)


def _check_nothing_happened(world: World, settings: Settings, outcome: ProcessOutcome) -> None:
    """Exit 0, everything accepted is stored once and in order, and no file is left."""
    expect(outcome, 0)
    assert (
        not outcome.events(LogEvent.OVERLOAD)
        and not outcome.events(LogEvent.SPILLED)
        and not outcome.events(LogEvent.STORAGE_FAILED)
    )
    check_accepted_stored(outcome)
    check_all(world, settings, outcome, push=True)
    assert not spill_path(world.db_path).exists()


@scenario
def database_locked_20_s(world: World) -> None:
    """A lock that outlasts the channels: events are spilled and stored in order afterwards, no exit (I6).

    More events than one transaction takes, so that others arrive while the spill is being stored.
    """
    settings = _settings(world, engine__tick_interval_ms=2)
    from_s, slow_s = world.random.random() * 4, 0.1 if world.chance(0.5) else 0.0
    storage = StorageFaults(busy_from_s=from_s, busy_until_s=from_s + 20.0, slow_s=slow_s)
    outcome = world.run(settings, Faults(storage=storage))
    _check_nothing_happened(world, settings, outcome)
    assert len(outcome.events(LogEvent.SPILL_BEGUN)) == len(outcome.events(LogEvent.SPILL_DRAINED)) == 1
    assert outcome.event(LogEvent.SPILL_DRAINED)["events"] > 1000


@scenario
def database_locked_repeatedly(world: World) -> None:
    """Each outage of the storage is a separate episode; the spill file is emptied in between."""
    settings = _settings(world)
    storage = StorageFaults()

    def begin(process: SimProcess) -> None:
        def lock(from_s: float, for_s: float) -> None:
            storage.busy_from_s, storage.busy_until_s = from_s, from_s + for_s

        at_s = 1.0
        while at_s < 22.0:
            for_s = 0.2 + world.random.random() * 6
            process.runtime.call_at(at_s, lambda at_s=at_s, for_s=for_s: lock(at_s, for_s))  # type: ignore[misc]
            at_s += for_s + 0.5 + world.random.random() * 2

    outcome = world.run(settings, Faults(storage=storage, begin=begin))
    _check_nothing_happened(world, settings, outcome)
    assert len(outcome.events(LogEvent.SPILL_BEGUN)) == len(outcome.events(LogEvent.SPILL_DRAINED)) >= 1


@scenario
def slow_commit(world: World) -> None:
    """One commit that blocks does not keep events in the channels (I6)."""
    settings = _settings(world, engine__tick_interval_ms=2, engine__run_seconds=8.0)
    storage = StorageFaults()

    def begin(process: SimProcess) -> None:
        def slow(seconds: float) -> None:
            storage.slow_s = seconds

        process.runtime.call_at(3.0, lambda: slow(2.0))
        process.runtime.call_at(3.3, lambda: slow(0.0))

    outcome = world.run(settings, Faults(storage=storage, begin=begin))
    _check_nothing_happened(world, settings, outcome)
    assert outcome.events(LogEvent.SPILL_BEGUN)


@scenario
def disk_full_spills(world: World) -> None:
    """The reserved spill space takes all events while the disk is full; they are stored when it has space again."""
    settings = _settings(world)
    from_s = world.random.random() * 8
    outcome = world.run(settings, Faults(storage=StorageFaults(full_from_s=from_s, full_until_s=from_s + 12.0)))
    _check_nothing_happened(world, settings, outcome)
    assert outcome.event(LogEvent.FINAL_METRICS)["persist_errors"] > 0


@scenario
def storage_never_returns(world: World) -> None:
    """After storage_retry_s the engine ends with 13, and the next start adopts everything that was accepted (G5)."""
    settings = _settings(world, persist__storage_retry_s=8.0)
    from_s = 1.0 + world.random.random() * 4
    lock = StorageFaults(busy_from_s=from_s, busy_until_s=1e9)
    outcome = world.run(settings, Faults(storage=lock if world.chance(0.5) else _full(lock)))
    expect(outcome, 13)
    assert outcome.events(LogEvent.STORAGE_FAILED) and not outcome.events(LogEvent.OVERLOAD)
    ledger = outcome.event(LogEvent.LEDGER)
    assert ledger["balanced"] and ledger["spilled"] == ledger["not_stored"] > 1000, ledger
    _check_adopted(world, settings, outcome, ledger["accepted"])


def _full(lock: StorageFaults) -> StorageFaults:
    return StorageFaults(full_from_s=lock.busy_from_s, full_until_s=lock.busy_until_s)


def _check_adopted(world: World, settings: Settings, outcome: ProcessOutcome, ticks: int) -> None:
    following = world.run(world.settings({**flat_values(settings), "engine.run_seconds": 3.0}))
    expect(following, 0)
    assert following.event(LogEvent.SPILL_ADOPTED)["whole"]
    assert len([row for row in world.dump()["ticks"] if row[5] == 1]) == ticks
    check_database(world.db_path)
    check_run(world.db_path, settings.config, run_id_of(outcome), whole=True)


@scenario
def kill_while_spilling(world: World) -> None:
    """kill -9 during an outage costs only events in channels and stages, nothing in the spill file."""
    settings = _settings(world)
    from_s = 1.0 + world.random.random() * 3
    storage = StorageFaults(busy_from_s=from_s, busy_until_s=from_s + 20.0)
    killed_s = from_s + 2.0 + world.random.random() * 15
    outcome = world.run(settings, Faults(storage=storage, kill_at_s=killed_s))
    _check_continued(world, settings, outcome)


@scenario
def kill_while_draining_spill(world: World) -> None:
    """kill -9 soon after the storage returned, at a commit or not: the next start completes the adoption once."""
    settings, by_commit = _settings(world), world.chance(0.5)
    from_s = 1.0 + world.random.random() * 3
    until_s, slow_s = from_s + 3.0 + world.random.random() * 10, 0.1 if world.chance(0.5) else 0.0
    storage = StorageFaults(busy_from_s=from_s, busy_until_s=until_s, slow_s=slow_s)

    def begin(process: SimProcess) -> None:
        def returned() -> None:
            assert process.storage is not None
            if by_commit:
                storage.kill_at_commit = process.storage._commits + world.between(1, 4)
            else:
                process.runtime.call_at(until_s + world.random.random() * 0.3, process.runtime.kill)

        process.runtime.call_at(until_s, returned)

    outcome = world.run(settings, Faults(storage=storage, begin=begin))
    _check_continued(world, settings, outcome)


def _check_continued(world: World, settings: Settings, outcome: ProcessOutcome) -> None:
    assert outcome.exit_code is None
    observer = world.processes[0].observer
    accepted, lost = observer.channels[0].entered, observer.handed_over - observer.in_spill
    bound = 2 * observer.channels[0].maxsize + observer.channels[2].maxsize + 2 * settings.config.persist.batch_size
    assert lost <= bound, f"{lost} of {accepted} ticks were in channels and in hands, more than {bound}"
    following = world.run(world.settings({**flat_values(settings), "engine.run_seconds": 3.0}))
    expect(following, 0)
    check_database(world.db_path)
    check_run(world.db_path, settings.config, run_id_of(outcome), whole=False)
    found = len([row for row in world.dump()["ticks"] if row[5] == 1])
    assert accepted - lost <= found <= accepted, f"{found} of {accepted} ticks are stored, {lost} were under way"
    check_run(world.db_path, settings.config, run_id_of(following), whole=True)


@scenario
def spill_full(world: World) -> None:
    """spill_max_mb is reached: the channels fill, the run ends with overload, and all ticks are accounted for (G5)."""
    settings = _settings(
        world,
        engine__tick_interval_ms=2,
        engine__run_seconds=100.0,
        persist__spill_max_mb=1,
        persist__storage_retry_s=600.0,
        persist__drain_timeout_s=60.0,
    )
    returns = world.chance(0.5)
    storage = StorageFaults(busy_from_s=2.0, busy_until_s=1e9)

    def begin(process: SimProcess) -> None:
        if returns:
            process.runtime.call_at(50.0, lambda: setattr(storage, "busy_until_s", 50.0))

    outcome = world.run(settings, Faults(storage=storage, begin=begin))
    expect(outcome, 13)
    assert outcome.events(LogEvent.OVERLOAD) and outcome.event(LogEvent.OVERLOAD)["stage"] == "persist"
    assert "spill_max_mb" in outcome.event(LogEvent.SPILL_FAILED)["detail"]
    ledger = outcome.event(LogEvent.LEDGER)
    assert ledger["balanced"], ledger
    if returns:
        _check_whole(world, settings, outcome)
        return
    assert ledger["spilled"] > 5000, ledger
    lost = outcome.event(LogEvent.NOT_STORED)["events_lost"]
    assert lost == 0, f"{lost} accepted events were lost, though some room was kept for the end"
    following = world.run(world.settings({**flat_values(settings), "engine.run_seconds": 3.0}))
    expect(following, 0)
    check_run(world.db_path, settings.config, run_id_of(outcome), whole=True)


def _check_whole(world: World, settings: Settings, outcome: ProcessOutcome) -> None:
    check_accepted_stored(outcome)
    check_all(world, settings, outcome, push=True)


def _move(path: Path, to: Path) -> Callable[[], None]:
    def move() -> None:
        for end in ("", "-wal", "-shm"):
            file = path.with_name(path.name + end)
            if file.exists():
                file.rename(to.with_name(to.name + end))

    return move


@scenario
def database_moved(world: World) -> None:
    """Database renamed under the engine: 13 names the file, the rest is spilled; restored, the next start completes."""
    settings = _settings(world)
    away = world.db_path.with_name("away")
    move = _move(world.db_path, away)
    at_s = 2.0 + world.random.random() * 10
    outcome = world.run(settings, Faults(begin=lambda process: process.runtime.call_at(at_s, move)))
    expect(outcome, 13)
    assert outcome.event(LogEvent.STORAGE_FAILED)["code"] == "FILE_REPLACED", outcome.event(LogEvent.STORAGE_FAILED)
    ledger = outcome.event(LogEvent.LEDGER)
    assert ledger["balanced"] and ledger["spilled"] == ledger["not_stored"] > 0, ledger
    assert not world.db_path.exists(), "a new file has appeared"
    _move(away, world.db_path)()
    _check_adopted(world, settings, outcome, ledger["accepted"])
