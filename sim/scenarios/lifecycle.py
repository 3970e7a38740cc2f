"""Stop signals, crashes, drains and restarts."""

from __future__ import annotations

from itertools import pairwise

from sim.checks.checkers import check_accepted_stored, check_database, check_outcome, check_run
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
from sim.world.tick_inputs import CrashingFeed, FeedWithoutPosition
from sim.world.world import Faults, World
from tradebot.config.model import Settings
from tradebot.core.log_events import LogEvent
from tradebot.threads.pipeline import STAGES

_STAGES = STAGES[::-1]


@scenario
def stop_at_any_moment(world: World) -> None:
    """One stop signal at any moment: exit 0, everything accepted is stored, the ledger balances (S13)."""
    push = world.chance(0.5)
    slow_s = 0.05 if world.chance(0.3) else 0.0
    # A replay ends within simulated milliseconds unless something is slow, so its signal comes early.
    settings = synthetic_settings(world) if push else replay_settings(world)
    at_s = world.random.random() * (25.0 if push else 0.02 + 20 * slow_s)
    outcome = world.run(settings, Faults(signals_at_s=(at_s,), storage=StorageFaults(slow_s=slow_s)))
    if outcome.exit_code is None:
        return  # it came before the engine caught signals: the process died of it, with nothing accepted
    expect(outcome, 0)
    if outcome.events(LogEvent.STOPPED):
        return
    check_accepted_stored(outcome)
    check_all(world, settings, outcome, push)


@scenario
def second_signal_exits(world: World) -> None:
    """The second stop signal ends the process with 1 and a report of what was not stored."""
    settings = synthetic_settings(world, persist__drain_timeout_s=1000.0)
    storage = StorageFaults(busy_from_s=0.0, busy_until_s=10_000.0)
    keys = {"persist.storage_retry_s": 3600.0}
    settings = world.settings({**flat_values(settings), **keys})
    outcome = world.run(settings, Faults(signals_at_s=(6.0, 7.0), storage=storage))
    expect(outcome, 1)
    assert outcome.event(LogEvent.LEDGER)["cause"] == "a second stop signal ended the run"
    assert outcome.sim_s < 8.5, outcome.sim_s
    check_database(world.db_path)


@scenario
def live_mode_refused(world: World) -> None:
    """Mode LIVE, armed or not: exit 12 naming each unmet condition, before any file or connection is made."""
    armed = world.chance(0.5)
    settings = synthetic_settings(world, mode="LIVE", live_armed=armed)
    outcome = world.run(settings)
    expect(outcome, 12)
    message = outcome.error or ""
    assert "mode LIVE is refused" in message and "proof bundle" in message and "no live gateway" in message, message
    assert ("live_armed is not true" in message) != armed
    assert not world.db_path.exists() and not outcome.logs


@scenario
def thread_crash(world: World) -> None:
    """Any stage's uncaught exception: exit 1, what reached the writer is stored, no thread is left (G5)."""
    stage = _STAGES[world.between(0, 3)]
    push = world.chance(0.5)
    settings = synthetic_settings(world) if push else replay_settings(world)
    nth = world.between(1, 60)
    if stage == "ingest" and world.chance(0.5):
        faults = Faults(wrap_feed=lambda feed, _runtime: CrashingFeed(feed, nth % 5 + 1))
    else:
        faults = Faults(crashes={f"tradebot-{stage}": nth})
    outcome = world.run(settings, faults)
    if outcome.exit_code == 0:
        # The thread ended before its turn to crash came.
        check_accepted_stored(outcome)
        check_all(world, settings, outcome, push)
        return
    expect(outcome, 1)
    check_outcome(outcome, settings.config, push)
    check_database(world.db_path)
    check_run(world.db_path, settings.config, run_id_of(outcome), whole=False)


@scenario
def main_thread_crash(world: World) -> None:
    """A bug in the main thread itself (here: the feed's position, read for the progress bar): exit 1, all stored."""
    settings = synthetic_settings(world)
    outcome = world.run(
        settings, Faults(wrap_feed=lambda feed, _runtime: FeedWithoutPosition(feed, world.between(2, 99)))
    )
    expect(outcome, 1)
    check_accepted_stored(outcome)
    check_all(world, settings, outcome, push=True)


@scenario
def drain_timeout(world: World) -> None:
    """A stage that cannot drain in time: exit 13, the ledger names the cause, what reached the writer is stored."""
    settings = synthetic_settings(
        world, engine__tick_interval_ms=20, persist__drain_timeout_s=5.0, engine__run_seconds=3600.0
    )
    outcome = world.run(
        settings, Faults(delays_s={"tradebot-strategy": 4.0}, signals_at_s=(4.5 + world.random.random(),))
    )
    expect(outcome, 13)
    ledger = outcome.event(LogEvent.LEDGER)
    assert ledger["balanced"] and ledger["cause"] == "the drain ran out of time", ledger
    check_database(world.db_path)
    check_run(world.db_path, settings.config, run_id_of(outcome), whole=False)


@scenario
def push_feed_restart(world: World) -> None:
    """Runs of one push feed, stopped or killed in between, together make the decisions of one uninterrupted run."""
    settings = synthetic_settings(world, strategy__desired_size=0.1)
    for _ in range(world.between(1, 3)):
        if world.chance(0.5):
            world.run(settings, Faults(kill_at_step=world.between(200, 4000)))
        else:
            world.run(settings, Faults(signals_at_s=(world.random.random() * 15 + 1,)))
    outcome = world.run(settings)
    expect(outcome, 0)
    _check_chain(world, settings)


def _check_chain(world: World, settings: Settings) -> None:
    dumped = world.dump()
    every = settings.config.engine.signal_every_n_ticks
    kinds = [row[2] for row in dumped["signals"]]
    wanted = len(dumped["ticks"]) // every
    # A kill may lose the last signal of a run, never more: it was decided from stored ticks, but not yet stored.
    assert wanted - len(world.outcomes) <= len(kinds) <= wanted, (
        f"{len(kinds)} signals from {len(dumped['ticks'])} ticks"
    )
    for one, other in pairwise(kinds):
        assert one != other, "sides alternate across restarts"
    check_database(world.db_path)
