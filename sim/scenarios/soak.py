"""The soak supervisor with real engines: the throttle ladder up and down, and detection of and recovery from a
stall.
"""

from __future__ import annotations

from sim.scenarios.common import scenario
from sim.scenarios.live import live_settings
from sim.scenarios.soak_world import POLL_S, SoakWorld
from sim.world.world import World
from tradebot.ops.soak.throttle_ladder import CALM_POLLS, RUNGS

_LONG_S = 90_000.0


def soak_world(world: World, end_s: int, psi_actions: bool = True, forgetful: bool = False) -> SoakWorld:
    """Engines with the mockws feed that run until they are stopped."""
    return SoakWorld(world, live_settings(world, engine__run_seconds=_LONG_S), end_s, psi_actions, forgetful)


@scenario
def soak_ladder(world: World) -> None:
    """Three polls of pressure and three calm minutes: the engine follows each rung and finally keeps all ticks."""
    soak = soak_world(world, 240)
    up_s = 31 + world.between(0, 3)
    seen: list[int | None] = []
    soak.at(up_s, lambda: soak.press(20.01 + world.random.random() * 79))
    for polls in (1, 2, 3):
        soak.at((up_s // POLL_S + polls) * POLL_S + 4, lambda: seen.append(soak.sample_every))
    calm_s = (up_s // POLL_S + 3) * POLL_S + 1
    soak.at(calm_s, lambda: soak.press(9.9))
    for rungs in (1, 2, 3):
        soak.at(calm_s + rungs * CALM_POLLS * POLL_S + 4, lambda: seen.append(soak.sample_every))
    soak.play()
    assert seen == [5, 10, 20, 10, 5, 1], seen
    assert soak.actions["ENGINE_RESTART"] == 6 and soak.actions["STALL"] == 0, soak.actions
    assert soak.supervisor.rung == RUNGS[0] and soak.supervisor.unwell() == []


@scenario
def soak_abort(world: World) -> None:
    """Lasting pressure: THROTTLE3, three more polls, ABORT; the engine stays throttled."""
    soak = soak_world(world, 200)
    soak.at(20, lambda: soak.press(60.0))
    soak.play()
    assert soak.supervisor.aborted and soak.decisions[-1].action == "ABORT"
    assert soak.now_s == 20 + 5 * POLL_S and soak.supervisor.rung == RUNGS[3]


@scenario
def soak_stall_and_recovery(world: World) -> None:
    """A stopped engine or a hung stage: restarted after 45 s, despite earlier restarts by the ladder."""
    psi_actions = world.chance(0.5)
    soak = soak_world(world, 175, psi_actions)
    stop_s = 40 + world.between(0, 9)
    before: list[int] = []
    stage = ("", "strategy", "persist")[world.between(0, 2)]
    soak.at(stop_s, (lambda: soak.hang(stage)) if stage else soak.freeze)
    soak.at(stop_s + 1, lambda: before.append(soak.ticks))
    soak.play()
    assert soak.actions["STALL"] == 1, soak.actions
    at_s = next(line.ts_ms for line in soak.decisions if line.action == "STALL") / 1000 - soak.decisions[0].ts_ms / 1000
    assert 44 <= at_s - stop_s <= 45 + POLL_S + 1, f"stopped at {stop_s} s, STALL at {at_s} s"
    assert soak.ticks > before[0] + 50, f"{before} ticks before, {soak.ticks} at the end"
    assert soak.supervisor.unwell() == []


@scenario
def soak_stall_during_ladder(world: World) -> None:
    """An unreachable exchange while pressure causes restarts: the stall clock runs on, and STALL follows."""
    soak = soak_world(world, 130)
    soak.at(30, lambda: soak.refuse(True))
    for second in (40, 50, 60):
        soak.at(second - 1, lambda: soak.press(30.0))
        soak.at(second + 1, lambda: soak.press(15.0))
    soak.at(100, lambda: soak.refuse(False))
    soak.play()
    assert soak.actions["ENGINE_RESTART"] == 3 and soak.actions["STALL"] == 1, soak.actions
    assert soak.supervisor.unwell() == []


@scenario
def soak_quiet_market(world: World) -> None:
    """Minutes without a trade on a live link, and few trades with 1 of 20 kept: no restart for a stall."""
    soak = soak_world(world, 340)
    soak.at(20, lambda: setattr(soak, "quiet_until_s", 150))
    soak.at(161, lambda: soak.press(50.0))
    soak.at(176, lambda: soak.press(15.0))
    for second in range(180, 340):
        soak.at(second, lambda: setattr(soak, "quiet_until_s", 0 if soak.now_s % 15 == 0 else 100_000))
    soak.play()
    assert soak.actions["STALL"] == 0 and soak.actions["ENGINE_RESTART"] == 3, soak.actions
    longest_s = max(line.seconds_since_tick for line in soak.decisions)
    assert longest_s > 120, longest_s
