"""A power loss or a kill during file operations; the next start continues."""

from __future__ import annotations

from sim.checks.checkers import check_database, check_run
from sim.scenarios.common import expect, run_id_of, scenario, synthetic_settings
from sim.world.faults import StorageFaults
from sim.world.world import Faults, ProcessOutcome, SimProcess, World
from tradebot.config.model import Settings
from tradebot.core.log_events import LogEvent


def check_power_cut(world: World, settings: Settings, outcome: ProcessOutcome) -> None:
    """The next start continues after the power loss; everything stored and synced, or spilled, is present."""
    process = world.processes[-1]
    assert process.loss is not None, "the power was not cut"
    kept = process.observer.ticks_kept if process.observer.began else 0
    next_start = world.run(settings)
    expect(next_start, 0)
    aside = next_start.events(LogEvent.SPILL_ORPHANED)
    assert not aside, f"power: a spill file could not be placed: {aside[0]['detail']}"
    check_database(world.db_path)
    if not outcome.events(LogEvent.START):
        return
    run_id = run_id_of(outcome)
    check_run(world.db_path, settings.config, run_id, whole=False)
    found = len([row for row in world.dump()["ticks"] if row[5] == 1])
    lost = process.loss.ticks.get(run_id, 0)
    assert not (lost and settings.config.persist.synchronous == "FULL"), f"power: {lost} synced ticks are lost"
    assert found >= kept - lost, (
        f"power: {found} ticks are stored, {kept} were stored or spilled, of which {lost} not synced"
    )


@scenario
def spill_then_power_cut(world: World) -> None:
    """Storage stays unavailable, events are spilled, then the power fails: the next start adopts them all."""
    settings = synthetic_settings(
        world, persist__storage_retry_s=1.0, persist__synchronous=("NORMAL", "FULL")[world.between(0, 1)]
    )
    from_s, points = 2.0 + world.random.random() * 8, world.between(1, 30)

    def begin(process: SimProcess) -> None:
        process.runtime.call_at(from_s, lambda: process.disk.cut_after(points, process.cut_power))

    storage = StorageFaults(busy_from_s=from_s, busy_until_s=1e9)
    outcome = world.run(settings, Faults(storage=storage, begin=begin, power_cut_at_end=True))
    check_power_cut(world, settings, outcome)


@scenario
def power_cut_at_any_moment(world: World) -> None:
    """A power loss at a random time or inside a disk call, without other faults, the first start included."""
    settings = synthetic_settings(world, persist__synchronous=("NORMAL", "FULL")[world.between(0, 1)])
    at_s, points = world.random.random() * 20, world.between(1, 30)
    if world.chance(0.3):
        at_s = 0.0

    def begin(process: SimProcess) -> None:
        process.runtime.call_at(at_s, lambda: process.disk.cut_after(points, process.cut_power))

    outcome = world.run(settings, Faults(begin=begin, power_cut_at_end=True))
    check_power_cut(world, settings, outcome)


@scenario
def first_start_interrupted(world: World) -> None:
    """A kill or a power loss while the first start creates the database: every later start works."""
    settings = synthetic_settings(world, engine__run_seconds=3.0)
    for _ in range(world.between(1, 2)):
        points, power = world.between(1, 14), world.chance(0.5)

        def begin(process: SimProcess, points: int = points, power: bool = power) -> None:
            process.disk.cut_after(points, process.cut_power if power else process.runtime.kill)

        world.run(settings, Faults(begin=begin))
    expect(world.run(settings), 0)
    check_database(world.db_path)


@scenario
def adoption_then_power_cut(world: World) -> None:
    """A start that stores spilled events is interrupted: each event is in the database or still in the spill file."""
    settings = synthetic_settings(world, persist__storage_retry_s=1.0)
    outcome = world.run(settings, Faults(storage=StorageFaults(full_from_s=3.0, full_until_s=1e9)))
    kept = world.processes[-1].observer.ticks_kept
    for _ in range(world.between(1, 3)):
        points = world.between(1, 16)

        def begin(process: SimProcess, points: int = points) -> None:
            process.disk.cut_after(points, process.cut_power)

        world.run(settings, Faults(begin=begin))
    expect(world.run(settings), 0)
    check_database(world.db_path)
    check_run(world.db_path, settings.config, run_id_of(outcome), whole=True)
    found = len([row for row in world.dump()["ticks"] if row[5] == 1])
    assert found == kept, f"power: {found} ticks are stored, {kept} were stored or spilled"
