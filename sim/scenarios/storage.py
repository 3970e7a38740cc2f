"""A database that is locked, full, or fails after its commit."""

from __future__ import annotations

from sim.checks.checkers import check_accepted_stored, check_database, check_run
from sim.scenarios.common import (
    check_all,
    expect,
    flat_values,
    replay_settings,
    run_id_of,
    scenario,
    synthetic_settings,
)
from sim.world.faults import StorageFaults
from sim.world.world import Faults, World
from tradebot.core.log_events import LogEvent


@scenario
def storage_busy_then_free(world: World) -> None:
    """A database locked for less than storage_retry_s: retried, nothing lost, nothing twice (I3, I6)."""
    busy_s = 1 + world.random.random() * 20
    push = world.chance(0.5)
    settings = synthetic_settings(world) if push else replay_settings(world)
    storage = StorageFaults(busy_from_s=0.0, busy_until_s=busy_s)
    outcome = world.run(settings, Faults(storage=storage))
    expect(outcome, 0)
    assert outcome.event(LogEvent.FINAL_METRICS)["persist_errors"] > 0 or busy_s <= 6.5
    check_accepted_stored(outcome)
    check_all(world, settings, outcome, push)


@scenario
def disk_full_then_freed(world: World) -> None:
    """A disk full for less than storage_retry_s: retried, then everything is stored once, nothing is spilled."""
    from_s, full_s = world.random.random() * 8, 2.0 + world.random.random() * 6
    settings = synthetic_settings(world, engine__run_seconds=30.0, persist__storage_retry_s=10.0)
    storage = StorageFaults(full_from_s=from_s, full_until_s=from_s + full_s)
    outcome = world.run(settings, Faults(storage=storage))
    expect(outcome, 0)
    waited = [line["detail"] for line in outcome.events(LogEvent.STORAGE_UNAVAILABLE)]
    assert waited and all("SQLITE_FULL" in detail for detail in waited), waited
    assert not outcome.events(LogEvent.STORAGE_FAILED) and not outcome.events(LogEvent.SPILLED)
    check_accepted_stored(outcome)
    check_all(world, settings, outcome, push=True)


@scenario
def storage_full_then_adopted(world: World) -> None:
    """Storage that stays full: exit 13, the remaining events go to the spill file, which the next start stores (G5)."""
    push = world.chance(0.5)
    from_s = world.random.random() * 10 if push else 0.0
    settings = synthetic_settings(world) if push else replay_settings(world, options={"resume": True})
    settings = world.settings(
        {**flat_values(settings), "persist.storage_retry_s": 2.0},
        {} if push else {"resume": True},
    )
    outcome = world.run(settings, Faults(storage=StorageFaults(full_from_s=from_s, full_until_s=1e9)))
    expect(outcome, 13)
    assert outcome.event(LogEvent.STORAGE_FAILED)["code"] == "SQLITE_FULL"
    ledger = outcome.event(LogEvent.LEDGER)
    assert ledger["balanced"] and ledger["not_stored"] > 0, ledger
    assert ledger["spilled"] == ledger["not_stored"], "nothing accepted is lost"
    check_database(world.db_path)
    next_start = world.run(settings)
    expect(next_start, 0)
    adopted = next_start.event(LogEvent.SPILL_ADOPTED)
    assert adopted["whole"], adopted
    check_database(world.db_path)
    ticks = [row for row in world.dump()["ticks"] if row[5] == 1]
    if push:
        assert len(ticks) == ledger["accepted"], f"{len(ticks)} stored of {ledger['accepted']} accepted"
    check_run(world.db_path, settings.config, run_id_of(outcome), whole=True)


@scenario
def commit_in_doubt(world: World) -> None:
    """A write that commits and then reports an error is noticed, not stored twice (I3)."""
    settings = replay_settings(world)
    faults = StorageFaults(fail_after_commit=(1, world.between(2, 6)))
    outcome = world.run(settings, Faults(storage=faults))
    expect(outcome, 0)
    check_accepted_stored(outcome)
    check_all(world, settings, outcome, push=False)


@scenario
def stop_while_locked(world: World) -> None:
    """A stop while the storage stays locked: ends by its deadlines, exit 13, the rest is spilled and adopted."""
    settings = world.settings(
        {**flat_values(synthetic_settings(world)), "persist.storage_retry_s": 3600.0, "persist.drain_timeout_s": 10.0}
    )
    outcome = world.run(
        settings,
        Faults(signals_at_s=(5.0,), storage=StorageFaults(busy_from_s=1.0 + world.random.random(), busy_until_s=1e9)),
    )
    expect(outcome, 13)
    # Drain (10 s) and final flush (5 s) after the signal, and one look at the clock.
    assert outcome.sim_s < 5.0 + 10.0 + 5.0 + 7.0, outcome.sim_s
    assert outcome.event(LogEvent.LEDGER)["balanced"]
    accepted = outcome.event(LogEvent.LEDGER)["accepted"]
    next_start = world.run(settings)
    expect(next_start, 0)
    assert next_start.event(LogEvent.SPILL_ADOPTED)["whole"]
    assert len([row for row in world.dump()["ticks"] if row[5] == 1]) == accepted
    check_database(world.db_path)
