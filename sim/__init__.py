"""The simulator: runs the engine's own threads, one at a time, under a seeded scheduler and a simulated clock.

`SimRuntime` implements `tradebot.core.runtime.Runtime`; one seed is one history, in any process and on every supported
Python. tests/contract checks that it and the real runtime have the same semantics.
"""

from sim.kernel.clock import FrozenClock, frozen
from sim.kernel.errors import (
    Deadlock,
    Livelock,
    SimError,
    SimExit,
    SimKilled,
    Stuck,
    ThreadCrashed,
    ThreadsLeft,
    TimeLimit,
)
from sim.kernel.runtime import SimRuntime
from sim.kernel.trace import Trace

__all__ = [
    "Deadlock",
    "FrozenClock",
    "Livelock",
    "SimError",
    "SimExit",
    "SimKilled",
    "SimRuntime",
    "Stuck",
    "ThreadCrashed",
    "ThreadsLeft",
    "TimeLimit",
    "Trace",
    "frozen",
]
