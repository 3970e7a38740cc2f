"""A push feed faster than one of the stages."""

from __future__ import annotations

from sim.checks.checkers import check_accepted_stored
from sim.scenarios.common import (
    check_all,
    expect,
    scenario,
    synthetic_settings,
)
from sim.world.faults import StorageFaults
from sim.world.world import Faults, World
from tradebot.core.log_events import LogEvent


@scenario
def overload_by_strategy(world: World) -> None:
    """A strategy slower than the feed: exit 13 names it, everything accepted is stored (G5)."""
    settings = synthetic_settings(world, engine__tick_interval_ms=1, channels__tick_channel_size=world.between(1, 16))
    outcome = world.run(settings, Faults(delays_s={"tradebot-strategy": 0.5}))
    expect(outcome, 13)
    overload = outcome.event(LogEvent.OVERLOAD)
    assert overload["stage"] == "strategy", overload
    assert outcome.event(LogEvent.LEDGER)["refused"] >= 1
    check_accepted_stored(outcome)
    check_all(world, settings, outcome, push=True)


@scenario
def overload_by_persist(world: World) -> None:
    """Storage slower than the feed: persist fills, the strategy waits, and the tick channel overflows (G5).

    While a commit lasts, persist empties its channel every 10 ms. Ten ticks come in that time; the two channels and the
    strategy hold at most nine.
    """
    settings = synthetic_settings(
        world,
        engine__tick_interval_ms=1,
        channels__tick_channel_size=world.between(1, 3),
        channels__persist_channel_size=world.between(1, 3),
        persist__batch_size=4,
        persist__drain_timeout_s=600.0,
    )
    outcome = world.run(settings, Faults(storage=StorageFaults(slow_s=3.0)))
    expect(outcome, 13)
    assert outcome.event(LogEvent.OVERLOAD)["stage"] == "persist", outcome.event(LogEvent.OVERLOAD)
    assert outcome.event(LogEvent.FINAL_METRICS)["bp_drops_persist"] >= 1
    check_accepted_stored(outcome)
    check_all(world, settings, outcome, push=True)


@scenario
def slow_execution_drops_signals(world: World) -> None:
    """With a push feed a signal that finds its channel full is refused immediately, never executed late (G5, I6)."""
    settings = synthetic_settings(
        world, engine__tick_interval_ms=20, engine__signal_every_n_ticks=1, channels__signal_channel_size=2
    )
    outcome = world.run(settings, Faults(delays_s={"tradebot-execution": 1.0}))
    expect(outcome, 0)
    assert outcome.event(LogEvent.FINAL_METRICS)["bp_drops_signal"] > 0
    check_accepted_stored(outcome)
    check_all(world, settings, outcome, push=True)
    orders = world.dump()["orders"]
    assert len(orders) == len(world.dump()["signals"]), "each signal has its order, executed or refused"


@scenario
def overload_by_execution(world: World) -> None:
    """Execution blocks on a full persist channel: the pipeline still ends in order."""
    settings = synthetic_settings(
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
    expect(outcome, 13)
    check_accepted_stored(outcome)
    check_all(world, settings, outcome, push=True)
