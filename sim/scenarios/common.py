"""Shared by all scenarios: the registry, settings small enough to reach every bound, and the checks after a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sim.checks.checkers import check_database, check_outcome, check_run
from sim.world.tick_inputs import tick_lines
from sim.world.world import ProcessOutcome, World
from tradebot.config.model import Settings
from tradebot.config.validation import flatten
from tradebot.core.log_events import LogEvent

Scenario = Callable[[World], None]
SCENARIOS: Final[dict[str, Scenario]] = {}


def scenario(function: Scenario) -> Scenario:
    """Register a scenario under its function's name."""
    SCENARIOS[function.__name__] = function
    return function


def replay_settings(world: World, lines: int = 300, options: dict[str, Any] | None = None, **keys: object) -> Settings:
    """A replay of a generated file, with channels and batches small enough to reach every bound."""
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


def synthetic_settings(world: World, **keys: object) -> Settings:
    """Synthetic ticks every 100 ms for twenty seconds, with frequent signals."""
    values: dict[str, object] = {
        "engine.ingest_mode": "synthetic",
        "engine.tick_interval_ms": 100,
        "engine.run_seconds": 20.0,
        "strategy.name": "periodic",
        "engine.signal_every_n_ticks": world.between(1, 5),
        "strategy.desired_size": 1.0,
    }
    return world.settings(values | {key.replace("__", "."): value for key, value in keys.items()})


def run_id_of(outcome: ProcessOutcome) -> str:
    """The run id that the process logged at its start."""
    return str(outcome.event(LogEvent.START)["run_id"])


def check_all(world: World, settings: Settings, outcome: ProcessOutcome, push: bool, whole: bool = True) -> None:
    """Everything that must hold after a run whose stages all ended."""
    check_outcome(outcome, settings.config, push)
    check_database(world.db_path)
    check_run(world.db_path, settings.config, run_id_of(outcome), whole)


def expect(outcome: ProcessOutcome, code: int) -> None:
    """The exit code that docs/reference/exit-codes.md names for what happened."""
    assert outcome.exit_code == code, f"exit code {outcome.exit_code} instead of {code}: {outcome.error or ''}"


def flat_values(settings: Settings) -> dict[str, object]:
    """Configuration keys with their values, as a base for changed settings."""
    return {name: value for name, value in flatten(settings.config).items() if value is not None}
