"""The simulator: the engine's own threads under one baton, a seeded scheduler and a simulated clock.

`SimRuntime` implements `tradebot.core.runtime.Runtime`; one seed is one history, in any process and on every supported
Python. tests/contract holds it and the real runtime to the same semantics.
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
