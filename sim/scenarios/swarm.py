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


@scenario
def paper_swarm(world: World) -> None:
    """The same in mode PAPER: every order, transition and fill is what a second calculation has, over all restarts."""
    history = Swarm(world, paper=True)
    history.play(after_each=check_process)
    check_final_state(history)
