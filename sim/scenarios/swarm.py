"""Swarm testing: each seed draws the feed, the settings, and which kinds of faults are enabled."""

from __future__ import annotations

from sim.scenarios.common import scenario
from sim.swarm.final_state import check_final_state
from sim.swarm.invariants import check_process
from sim.swarm.swarm import Swarm
from sim.world.world import World


@scenario
def swarm(world: World) -> None:
    """Any feed under any mixture of faults: exit codes are correct, and surviving processes are live afterwards."""
    history = Swarm(world)
    history.play(after_each=check_process)
    check_final_state(history)
