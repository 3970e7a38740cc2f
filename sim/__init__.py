"""The simulator: the engine's own threads under one baton, a seeded scheduler and a simulated clock.

`SimRuntime` implements `tradebot.runtime.Runtime`; one seed is one history, in any process and on every supported
Python. tests/contract holds it and the real runtime to the same semantics.
"""

from sim.clock import FrozenClock, frozen
from sim.errors import Deadlock, Livelock, SimError, SimExit, SimKilled, Stuck, ThreadCrashed, ThreadsLeft, TimeLimit
from sim.runtime import SimRuntime
from sim.trace import Trace

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
