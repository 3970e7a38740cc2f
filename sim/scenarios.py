"""Named scenarios: a script of settings, faults and expectations over a `World`. The seed draws the details.

A new one is a function with the decorator: it runs processes in the world and asserts what must have come of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from sim.checkers import check_accepted_stored, check_database, check_outcome, check_run
from sim.faults import StorageFaults
from sim.feeds import CrashingFeed, FeedWithoutPosition, tick_lines
from sim.world import Faults, Outcome, World
from tradebot.config import Settings
from tradebot.configkeys import flatten

Scenario = Callable[[World], None]
SCENARIOS: Final[dict[str, Scenario]] = {}

_STAGES: Final = ("ingest", "strategy", "execution", "persist")


def scenario(function: Scenario) -> Scenario:
    """Register a scenario under its function's name."""
    SCENARIOS[function.__name__] = function
    return function


def _replay(world: World, lines: int = 300, options: dict[str, Any] | None = None, **keys: object) -> Settings:
    """A replay of a generated file, with small channels and batches so that every bound is met."""
    path = world.directory / "input.jsonl"
    if not path.exists():
        world.write_lines("input.jsonl", tick_lines(world, lines))
    values: dict[str, object] = {
        "engine.ingest_mode": "replay",
        "engine.replay_file": str(path),
        "channels.tick_channel_size": world.between(1, 64),
        "channels.signal_channel_size": world.between(1, 16),
        "channels.persist_channel_size": world.between(1, 64),
        "persist.batch_size": world.between(1, 100),
        "strategy.short_window": 2,
        "strategy.long_window": 5,
        "engine.sample_every": 1,
    }
    return world.settings(values | {key.replace("__", "."): value for key, value in keys.items()}, options)


def _synthetic(world: World, **keys: object) -> Settings:
    values: dict[str, object] = {
        "engine.ingest_mode": "synthetic",
        "engine.tick_interval_ms": 100,
        "engine.run_seconds": 20.0,
        "strategy.name": "periodic",
        "engine.signal_every_n_ticks": world.between(1, 5),
        "strategy.desired_size": 1.0,
    }
    return world.settings(values | {key.replace("__", "."): value for key, value in keys.items()})


def _run_id(outcome: Outcome) -> str:
    return str(outcome.event("START")["run_id"])


def _check_all(world: World, settings: Settings, outcome: Outcome, push: bool, whole: bool = True) -> None:
    check_outcome(outcome, settings.config, push)
    check_database(world.db_path)
    check_run(world.db_path, settings.config, _run_id(outcome), whole)


def _expect(outcome: Outcome, code: int) -> None:
    assert outcome.exit_code == code, f"exit code {outcome.exit_code} instead of {code}: {outcome.error or ''}"


@scenario
def replay_to_the_end(world: World) -> None:
    """Whatever the sizes and the schedule, a replay stores what the straight computation gives (S8)."""
    settings = _replay(world, engine__sample_every=world.between(1, 4))
    outcome = world.run(settings)
    _expect(outcome, 0)
    check_accepted_stored(outcome)
    _check_all(world, settings, outcome, push=False)
    ledger = outcome.event("LEDGER")
    good = ledger["received"] - ledger["malformed"]
    assert ledger["stored"] == good // settings.config.engine.sample_every
    again = world.run(settings)
    _expect(again, 12)


@scenario
def overload_by_strategy(world: World) -> None:
    """A strategy slower than the feed: exit 13 naming it, everything accepted stored (G5)."""
    settings = _synthetic(world, engine__tick_interval_ms=1, channels__tick_channel_size=world.between(1, 16))
    outcome = world.run(settings, Faults(delays_s={"tradebot-strategy": 0.5}))
    _expect(outcome, 13)
    overload = outcome.event("OVERLOAD")
    assert overload["stage"] == "strategy", overload
    assert outcome.event("LEDGER")["refused"] >= 1
    check_accepted_stored(outcome)
    _check_all(world, settings, outcome, push=True)


@scenario
def overload_by_persist(world: World) -> None:
    """A storage slower than the feed fills persist, makes strategy wait and shows at the tick channel (G5)."""
    settings = _synthetic(
        world,
        engine__tick_interval_ms=2,
        channels__tick_channel_size=world.between(1, 16),
        channels__persist_channel_size=world.between(1, 16),
        persist__batch_size=4,
        persist__drain_timeout_s=600.0,
    )
    outcome = world.run(settings, Faults(storage=StorageFaults(slow_s=3.0)))
    _expect(outcome, 13)
    assert outcome.event("OVERLOAD")["stage"] == "persist", outcome.event("OVERLOAD")
    assert outcome.event("FINAL METRICS")["bp_drops_persist"] >= 1
    check_accepted_stored(outcome)
    _check_all(world, settings, outcome, push=True)


@scenario
def slow_execution_drops_signals(world: World) -> None:
    """With a push feed a signal that meets a full channel is refused at once and never executed late (G5, I6)."""
    settings = _synthetic(
        world, engine__tick_interval_ms=20, engine__signal_every_n_ticks=1, channels__signal_channel_size=2
    )
    outcome = world.run(settings, Faults(delays_s={"tradebot-execution": 1.0}))
    _expect(outcome, 0)
    assert outcome.event("FINAL METRICS")["bp_drops_signal"] > 0
    check_accepted_stored(outcome)
    _check_all(world, settings, outcome, push=True)
    orders = world.dump()["orders"]
    assert len(orders) == len(world.dump()["signals"]), "each signal has its order, executed or refused"


@scenario
def overload_by_execution(world: World) -> None:
    """Execution that stands still while it holds persist's last room up: the pipeline still ends in order."""
    settings = _synthetic(
        world,
        engine__tick_interval_ms=1,
        engine__signal_every_n_ticks=1,
        channels__tick_channel_size=4,
        channels__signal_channel_size=1,
        channels__persist_channel_size=1,
        persist__batch_size=1,
    )
    delays = {"tradebot-execution": 0.2, "tradebot-persist": 0.05}
    outcome = world.run(settings, Faults(delays_s=delays))
    _expect(outcome, 13)
    check_accepted_stored(outcome)
    _check_all(world, settings, outcome, push=True)


@scenario
def stop_at_any_moment(world: World) -> None:
    """One stop signal, whenever it comes: exit 0, everything accepted stored, the ledger balances (S13)."""
    push = world.chance(0.5)
    slow_s = 0.05 if world.chance(0.3) else 0.0
    # A replay ends within simulated milliseconds unless something is slow, so its signal comes early.
    settings = _synthetic(world) if push else _replay(world)
    at_s = world.random.random() * (25.0 if push else 0.02 + 20 * slow_s)
    outcome = world.run(settings, Faults(signals_at_s=(at_s,), storage=StorageFaults(slow_s=slow_s)))
    if outcome.exit_code is None:
        return  # it came before the engine caught signals: the process died of it, with nothing accepted
    _expect(outcome, 0)
    if outcome.events("STOPPED"):
        return
    check_accepted_stored(outcome)
    _check_all(world, settings, outcome, push)


@scenario
def second_signal_ends_at_once(world: World) -> None:
    """The second stop signal ends the process with 1, saying what was not stored."""
    settings = _synthetic(world, persist__drain_timeout_s=1000.0)
    storage = StorageFaults(busy_from_s=0.0, busy_until_s=10_000.0)
    keys = {"persist.storage_retry_s": 3600.0}
    settings = world.settings({**_flat(settings), **keys})
    outcome = world.run(settings, Faults(signals_at_s=(6.0, 7.0), storage=storage))
    _expect(outcome, 1)
    assert outcome.event("LEDGER")["cause"] == "a second stop signal ended the run"
    assert outcome.sim_s < 8.5, outcome.sim_s
    check_database(world.db_path)


@scenario
def a_crashed_thread_ends_the_process(world: World) -> None:
    """Any stage's uncaught exception: exit 1, what reached the writer is stored, nothing lives on (G5)."""
    stage = _STAGES[world.between(0, 3)]
    push = world.chance(0.5)
    settings = _synthetic(world) if push else _replay(world)
    nth = world.between(1, 60)
    if stage == "ingest" and world.chance(0.5):
        faults = Faults(wrap_feed=lambda feed, _runtime: CrashingFeed(feed, nth % 5 + 1))
    else:
        faults = Faults(crashes={f"tradebot-{stage}": nth})
    outcome = world.run(settings, faults)
    if outcome.exit_code == 0:
        # The thread ended before its turn to crash came.
        check_accepted_stored(outcome)
        _check_all(world, settings, outcome, push)
        return
    _expect(outcome, 1)
    check_outcome(outcome, settings.config, push)
    check_database(world.db_path)
    check_run(world.db_path, settings.config, _run_id(outcome), whole=False)


@scenario
def a_crash_of_the_main_thread_still_drains(world: World) -> None:
    """A bug in the main thread itself (here: the feed's position, read for the progress bar): exit 1, all stored."""
    settings = _synthetic(world)
    outcome = world.run(
        settings, Faults(wrap_feed=lambda feed, _runtime: FeedWithoutPosition(feed, world.between(2, 99)))
    )
    _expect(outcome, 1)
    check_accepted_stored(outcome)
    _check_all(world, settings, outcome, push=True)


@scenario
def kill_and_resume(world: World) -> None:
    """kill -9 at any step, as often as it likes: the resumed replay equals an uninterrupted one, ids included."""
    settings = _replay(world, options={"resume": True})
    kills = world.between(1, 4)
    for _ in range(kills):
        outcome = world.run(settings, Faults(kill_at_step=world.between(1, 1500)))
        if outcome.exit_code is None and world.db_path.exists():
            check_database(world.db_path) if _has_runs(world) else None
    outcome = world.run(settings)
    _expect(outcome, 0)
    resumed = world.dump()
    check_database(world.db_path)
    straight = World(world.seed, _subdirectory(world))
    whole = straight.run(straight.settings({**_flat(settings), "app.db_path": str(straight.db_path)}))
    _expect(whole, 0)
    wanted = straight.dump()
    for table, rows in wanted.items():
        assert resumed[table] == rows, f"{table}: resumed {len(resumed[table])} rows, straight {len(rows)}, or unequal"
    again = world.run(settings)
    _expect(again, 0)
    assert "holds this replay already" in again.answers


@scenario
def storage_busy_then_free(world: World) -> None:
    """A locked database within the patience: retried, nothing lost, nothing twice (I3, I6)."""
    busy_s = 1 + world.random.random() * 20
    push = world.chance(0.5)
    settings = _synthetic(world) if push else _replay(world)
    storage = StorageFaults(busy_from_s=0.0, busy_until_s=busy_s)
    outcome = world.run(settings, Faults(storage=storage))
    _expect(outcome, 0)
    assert outcome.event("FINAL METRICS")["persist_errors"] > 0 or busy_s <= 6.5
    check_accepted_stored(outcome)
    _check_all(world, settings, outcome, push)


@scenario
def storage_full_then_adopted(world: World) -> None:
    """A storage that stays full: exit 13, the rest in the spill file, which the next start stores (G5)."""
    push = world.chance(0.5)
    from_s = world.random.random() * 10 if push else 0.0
    settings = _synthetic(world) if push else _replay(world, options={"resume": True})
    settings = world.settings(
        {**_flat(settings), "persist.storage_retry_s": 2.0},
        {} if push else {"resume": True},
    )
    outcome = world.run(settings, Faults(storage=StorageFaults(full_from_s=from_s, full_until_s=1e9)))
    _expect(outcome, 13)
    assert outcome.event("STORAGE_FAILED")["code"] == "SQLITE_FULL"
    ledger = outcome.event("LEDGER")
    assert ledger["balanced"] and ledger["not_stored"] > 0, ledger
    assert ledger["spilled"] == ledger["not_stored"], "nothing accepted is lost"
    check_database(world.db_path)
    next_start = world.run(settings)
    _expect(next_start, 0)
    adopted = next_start.event("SPILL_ADOPTED")
    assert adopted["whole"], adopted
    check_database(world.db_path)
    ticks = [row for row in world.dump()["ticks"] if row[5] == 1]
    if push:
        assert len(ticks) == ledger["accepted"], f"{len(ticks)} stored of {ledger['accepted']} accepted"
    check_run(world.db_path, settings.config, _run_id(outcome), whole=True)


@scenario
def a_commit_in_doubt_is_not_repeated(world: World) -> None:
    """A write that commits and then reports an error is noticed, not stored twice (I3)."""
    settings = _replay(world)
    faults = StorageFaults(fail_after_commit=(1, world.between(2, 6)))
    outcome = world.run(settings, Faults(storage=faults))
    _expect(outcome, 0)
    check_accepted_stored(outcome)
    _check_all(world, settings, outcome, push=False)


@scenario
def drain_out_of_time(world: World) -> None:
    """A stage that cannot drain in time: exit 13, the ledger names the cause, what reached the writer is stored."""
    settings = _synthetic(world, engine__tick_interval_ms=20, persist__drain_timeout_s=5.0, engine__run_seconds=3600.0)
    outcome = world.run(
        settings, Faults(delays_s={"tradebot-strategy": 4.0}, signals_at_s=(4.5 + world.random.random(),))
    )
    _expect(outcome, 13)
    ledger = outcome.event("LEDGER")
    assert ledger["balanced"] and ledger["cause"] == "the drain ran out of time", ledger
    check_database(world.db_path)
    check_run(world.db_path, settings.config, _run_id(outcome), whole=False)


@scenario
def locked_while_stopping(world: World) -> None:
    """A stop while the storage is locked for good: ended by its deadlines, exit 13, the rest spilled and adopted."""
    settings = world.settings(
        {**_flat(_synthetic(world)), "persist.storage_retry_s": 3600.0, "persist.drain_timeout_s": 10.0}
    )
    outcome = world.run(
        settings,
        Faults(signals_at_s=(5.0,), storage=StorageFaults(busy_from_s=1.0 + world.random.random(), busy_until_s=1e9)),
    )
    _expect(outcome, 13)
    # Drain (10 s) and final flush (5 s) after the signal, and one look at the clock.
    assert outcome.sim_s < 5.0 + 10.0 + 5.0 + 7.0, outcome.sim_s
    assert outcome.event("LEDGER")["balanced"]
    accepted = outcome.event("LEDGER")["accepted"]
    next_start = world.run(settings)
    _expect(next_start, 0)
    assert next_start.event("SPILL_ADOPTED")["whole"]
    assert len([row for row in world.dump()["ticks"] if row[5] == 1]) == accepted
    check_database(world.db_path)


@scenario
def restart_continues_a_push_feed(world: World) -> None:
    """Runs of one push feed, stopped or killed in between, decide together what one uninterrupted run decides."""
    settings = _synthetic(world, strategy__desired_size=0.1)
    for _ in range(world.between(1, 3)):
        if world.chance(0.5):
            world.run(settings, Faults(kill_at_step=world.between(200, 4000)))
        else:
            world.run(settings, Faults(signals_at_s=(world.random.random() * 15 + 1,)))
    outcome = world.run(settings)
    _expect(outcome, 0)
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


def _flat(settings: Settings) -> dict[str, object]:
    return {name: value for name, value in flatten(settings.config).items() if value is not None}
