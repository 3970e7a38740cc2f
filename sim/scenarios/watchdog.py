"""The watchdog of the service manager: a hung stage is not hidden, a quiet market is no stall."""

from __future__ import annotations

from itertools import pairwise

from mockws_server.actions import Refuse, Ticks, Wait
from sim.scenarios.common import expect, scenario, synthetic_settings
from sim.scenarios.live import exchange_of, live_settings, run_live
from sim.world.faults import StorageFaults
from sim.world.world import Faults, SimProcess, World
from tradebot.core.log_events import LogEvent

_FED_S = 1.2


def _longest_pause_s(times_s: list[float], end_s: float) -> float:
    return max(later - earlier for earlier, later in pairwise([0.0, *times_s, end_s]))


@scenario
def watchdog_hung_stage(world: World) -> None:
    """A strategy, execution or writer hangs while the other threads continue: the watchdog is no longer fed."""
    stage = ("strategy", "execution", "persist")[world.between(0, 2)]
    settings = synthetic_settings(
        world, engine__run_seconds=200.0, channels__tick_channel_size=100_000, channels__persist_channel_size=100_000,
        persist__storage_retry_s=5.0, persist__drain_timeout_s=5.0,
    )  # fmt: skip
    hang_s = 20.0 + world.between(0, 30)

    def begin(process: SimProcess) -> None:
        seam, runtime = process.seam, process.runtime
        runtime.call_at(hang_s, lambda: seam.delay_thread(f"tradebot-{stage}", 10_000.0))

    outcome = world.run(settings, Faults(begin=begin))
    expect(outcome, 13)
    fed_s = world.processes[-1].manager.alive_s
    stalled_for = outcome.event(LogEvent.STAGE_STALLED)["for_s"]
    assert stage in stalled_for, stalled_for
    last_s = max(fed_s)
    # Twenty seconds at work, a second of batching and five of patience with the storage.
    assert 24.0 <= last_s - hang_s <= 29.0, f"hung at {hang_s} s, last fed at {last_s} s"


@scenario
def watchdog_quiet_market(world: World) -> None:
    """Minutes without a tick, but with pongs: no stall."""
    exchange = exchange_of(world, Ticks(20, 10.0), Wait(300.0), Ticks(20, 10.0))
    outcome = run_live(world, live_settings(world, engine__run_seconds=310.0), exchange)
    assert not outcome.events(LogEvent.STAGE_STALLED)
    assert _longest_pause_s(world.processes[-1].manager.alive_s, outcome.sim_s) <= _FED_S


@scenario
def watchdog_lost_link(world: World) -> None:
    """Failed attempts for half a minute are no stall: the link has its own deadline."""
    exchange = exchange_of(world, Ticks(20, 10.0), Refuse(seconds=30.0), Ticks(20, 10.0), repeat=None)
    settings = live_settings(world, engine__run_seconds=60.0)
    outcome = world.run(settings, Faults(network=exchange.online))
    expect(outcome, 0)
    assert not outcome.events(LogEvent.STAGE_STALLED)
    assert _longest_pause_s(world.processes[-1].manager.alive_s, outcome.sim_s) <= _FED_S


@scenario
def watchdog_locked_database(world: World) -> None:
    """A database locked for less than storage_retry_s is no stall."""
    settings = synthetic_settings(
        world, engine__run_seconds=90.0, channels__tick_channel_size=100_000, channels__persist_channel_size=100_000,
        persist__storage_retry_s=60.0,
    )  # fmt: skip
    outcome = world.run(settings, Faults(storage=StorageFaults(busy_from_s=5.0, busy_until_s=60.0)))
    expect(outcome, 0)
    assert not outcome.events(LogEvent.STAGE_STALLED)
    assert _longest_pause_s(world.processes[-1].manager.alive_s, outcome.sim_s) <= _FED_S
