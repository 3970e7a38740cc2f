"""SIGTERM in every state of a process: it exits with 0 soon, and everything accepted is stored (S13).

A second signal during the shutdown is tested in `lifecycle`: `second_signal_exits`.
"""

from __future__ import annotations

from typing import Any, Final

from mockws_server.actions import Ticks
from sim.checks.checkers import check_accepted_stored
from sim.scenarios.common import check_all, expect, replay_settings, scenario, synthetic_settings
from sim.scenarios.live import exchange_of, live_settings, run_live
from sim.world.faults import StorageFaults, bound_files
from sim.world.network import Handshake, HandshakeRefused, HandshakeUnanswered
from sim.world.world import Faults, ProcessOutcome, World
from tradebot.config.model import Settings
from tradebot.core.log_events import LogEvent

_SOON_S: Final = 2.0


def _ended_soon(outcome: ProcessOutcome, signal_s: float) -> None:
    assert outcome.sim_s - signal_s <= _SOON_S, f"{outcome.sim_s - signal_s} s from the signal to the end"


def _when(outcome: ProcessOutcome, event: LogEvent) -> float:
    """When the first line of this event was logged."""
    for at_s, line in zip(outcome.times_s, outcome.logs, strict=True):
        if line["fields"].get("event") == event:
            return at_s
    raise AssertionError(f"no log line {event}")


def _stored(world: World, settings: Settings, outcome: ProcessOutcome, push: bool = True) -> None:
    check_accepted_stored(outcome)
    check_all(world, settings, outcome, push)


@scenario
def sigterm_before_the_database_opens(world: World) -> None:
    """A push feed that has just logged its first line: nothing was accepted, the run is recorded, exit 0."""
    settings = synthetic_settings(world)
    outcome = world.run(settings, Faults(signal_on=(LogEvent.START,)))
    expect(outcome, 0)
    _ended_soon(outcome, 0.0)
    _stored(world, settings, outcome)


@scenario
def sigterm_before_a_replay_opens_its_database(world: World) -> None:
    """The same in a replay, slowed down so that it cannot finish first: --resume completes it."""
    settings = replay_settings(world, options={"resume": True}, persist__batch_size=20)
    outcome = world.run(settings, Faults(signal_on=(LogEvent.START,), storage=StorageFaults(slow_s=0.3)))
    expect(outcome, 0)
    _stored(world, settings, outcome, push=False)
    following = world.run(settings)
    expect(following, 0)
    if "already holds this whole replay" not in following.answers:  # all was under way when the signal was noticed
        _stored(world, settings, following, push=False)


@scenario
def sigterm_while_the_database_cannot_be_opened(world: World) -> None:
    """A start retries a failing disk, but a stop signal ends the retries."""
    settings = synthetic_settings(world, persist__storage_retry_s=600.0)
    outcome = world.run(
        settings, Faults(signal_on=(LogEvent.STORAGE_UNAVAILABLE,), begin=lambda _process: bound_files(0))
    )
    expect(outcome, 0)
    assert outcome.events(LogEvent.STOPPED)
    _ended_soon(outcome, _when(outcome, LogEvent.STORAGE_UNAVAILABLE))


def _without_a_link(world: World, answer: Handshake, **faults: Any) -> ProcessOutcome:
    exchange = exchange_of(world, Ticks(50, 5.0))
    exchange.answer_always(answer)
    settings = live_settings(
        world, engine__run_seconds=300.0, feed__connect_timeout_s=60.0, feed__reconnect_budget_s=80.0
    )
    return run_live(world, settings, exchange, **faults)


@scenario
def sigterm_while_connecting(world: World) -> None:
    """A handshake without an answer is cancelled."""
    at_s = 1.0 + world.random.random() * 50
    outcome = _without_a_link(world, HandshakeUnanswered(), signals_at_s=(at_s,))
    _ended_soon(outcome, at_s)


@scenario
def sigterm_while_backing_off(world: World) -> None:
    """The backoff after a refused connection is cut short."""
    outcome = _without_a_link(world, HandshakeRefused(), signal_on=(LogEvent.CONNECT_FAILED,))
    _ended_soon(outcome, _when(outcome, LogEvent.CONNECT_FAILED))


@scenario
def sigterm_while_running(world: World) -> None:
    """Ticks, signals and orders in the pipeline are drained and stored."""
    settings = synthetic_settings(world, engine__tick_interval_ms=20)
    at_s = 2.0 + world.random.random() * 3
    outcome = world.run(settings, Faults(signals_at_s=(at_s,)))
    expect(outcome, 0)
    _ended_soon(outcome, at_s)
    assert outcome.event(LogEvent.LEDGER)["accepted"] > 50
    _stored(world, settings, outcome)


@scenario
def sigterm_while_draining(world: World) -> None:
    """run_seconds has elapsed and a slow stage still drains: a first signal does not change that."""
    settings = synthetic_settings(world, persist__drain_timeout_s=30.0, engine__run_seconds=5.0)
    faults = Faults(signal_on=(LogEvent.DRAINING,), delays_s={"tradebot-strategy": 0.1})
    outcome = world.run(settings, faults)
    expect(outcome, 0)
    _stored(world, settings, outcome)


@scenario
def sigterm_while_the_storage_is_away(world: World) -> None:
    """The writer retries on a full disk that gets space before the drain timeout: everything is stored."""
    settings = synthetic_settings(world, persist__drain_timeout_s=20.0, persist__storage_retry_s=30.0)
    storage = StorageFaults(full_from_s=2.0, full_until_s=10.0)
    outcome = world.run(settings, Faults(signal_on=(LogEvent.STORAGE_UNAVAILABLE,), storage=storage))
    expect(outcome, 0)
    _stored(world, settings, outcome)


@scenario
def sigterm_during_the_final_flush(world: World) -> None:
    """A signal during the final flush."""
    settings = synthetic_settings(world, engine__run_seconds=5.0)
    storage = StorageFaults(slow_s=0.5)
    outcome = world.run(settings, Faults(signal_on=(LogEvent.FINAL_FLUSH_ON_SHUTDOWN,), storage=storage))
    expect(outcome, 0)
    _stored(world, settings, outcome)
