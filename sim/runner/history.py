"""Runs one history, and searches for the smallest history that still fails. Prints nothing."""

from __future__ import annotations

import hashlib
import re
import tempfile
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

from sim.kernel.clock import SettableClock
from sim.kernel.errors import SimError
from sim.kernel.runtime import SimRuntime
from sim.scenarios import SCENARIOS
from sim.swarm.plan import Draw
from sim.world.world import World

SWARM: Final = "swarm"
PAPER_SWARM: Final = "paper_swarm"
SWARMS: Final = frozenset({SWARM, PAPER_SWARM})
"""The scenarios that draw which kinds of faults are enabled."""
SWARM_CHANCE: Final = 0.8
"""The probability that a seed which draws its scenario draws the swarm."""

PAPER: Final = {
    name: function
    for name, function in SCENARIOS.items()
    if name == PAPER_SWARM or function.__module__.startswith("sim.scenarios.paper")
}
"""The scenarios in mode PAPER."""

_PAPER_CHANCE: Final = 1 / 3
"""The probability that such a seed draws mode PAPER."""

_MAINTENANCE_CHANCE: Final = 0.15
"""The probability that a seed which does not draw the swarm draws a scenario of prune and backup."""

TRACE_LINES: Final = 60
SHRINK_HISTORIES_MAX: Final = 60
_SHORTEST_S: Final = 0.2
_ALIKE_CHARS: Final = 50


class HistoryOrder(NamedTuple):
    """What to run. For a swarm, `only` gives the exact kinds of faults, and `safety_s` the time of the last one."""

    scenario: str
    seed: int
    only: frozenset[str] | None = None
    safety_s: float | None = None

    @property
    def command(self) -> str:
        """The command that runs it again."""
        words = ["python -m sim", f"--scenario={self.scenario}", f"--seed={self.seed}"]
        if self.only is not None:
            words.append(f"--faults={','.join(sorted(self.only)) or 'none'}")
        if self.safety_s is not None:
            words.append(f"--sim-seconds={self.safety_s:g}")
        return " ".join(words)


class History(NamedTuple):
    """The result of an order. `failure` is one line, None if nothing is wrong; `details` is further information."""

    order: HistoryOrder
    digest: str
    failure: str | None
    details: str
    steps: int
    sim_s: float
    faults: tuple[str, ...]
    injected: dict[str, int]
    journal: list[str]

    @property
    def line(self) -> str:
        """The last line of the output of a history."""
        verdict = "ok" if self.failure is None else "FAIL"
        faults = ",".join(self.faults) or "none"
        return (
            f"seed={self.order.seed} history={self.digest} {verdict} steps={self.steps} sim_s={self.sim_s:.1f}"
            f" faults={faults} scenario={self.order.scenario}"
        )


class Shrunk(NamedTuple):
    """The smallest failing history found, and the number of histories tried."""

    history: History
    tried: int


def drawn_scenario(seed: int) -> str:
    """The scenario of a seed: usually the swarm, in mode SHADOW or PAPER, otherwise any other scenario."""
    draw = Draw(SimRuntime(seed).stream("which scenario"))
    if draw.chance(SWARM_CHANCE):
        # From a separate stream, and in the place of the swarm alone, for the same reason as below.
        of_mode = Draw(SimRuntime(seed).stream("which mode"))
        if not of_mode.chance(_PAPER_CHANCE):
            return SWARM
        return PAPER_SWARM if of_mode.chance(SWARM_CHANCE) else of_mode.pick([n for n in PAPER if n not in SWARMS])
    # From a separate stream: these scenarios were added later, and must not change what other seeds draw.
    late = Draw(SimRuntime(seed).stream("upkeep"))
    maintenance = [name for name, function in SCENARIOS.items() if function.__module__ == "sim.scenarios.maintenance"]
    if late.chance(_MAINTENANCE_CHANCE):
        return late.pick(maintenance)
    return draw.pick([name for name in SCENARIOS if name not in SWARMS | PAPER.keys() and name not in maintenance])


def play(order: HistoryOrder, freezer: SettableClock | None, lines: int | None = TRACE_LINES) -> History:
    """Run one history. Keeps `lines` lines of its journal, None: all. A failure of the history raises no exception."""
    failure, details = None, ""
    with tempfile.TemporaryDirectory(prefix="tradebot-sim-", dir=_fast_directory()) as directory:
        world = World(order.seed, Path(directory), freezer)
        world.only, world.safety_s = order.only, order.safety_s
        try:
            SCENARIOS[order.scenario](world)
        except Exception as error:
            failure, details = _describe_error(error)
        # Only the name of the directory differs from run to run.
        journal = [line.replace(directory, "WORLD") for line in world.journal.lines(lines)]
        failure = None if failure is None else failure.replace(directory, "WORLD")
    digest = hashlib.sha256("".join(outcome.history for outcome in world.outcomes).encode()).hexdigest()
    steps = sum(outcome.steps for outcome in world.outcomes)
    sim_s = sum(outcome.sim_s for outcome in world.outcomes)
    return History(
        order, digest, failure, details, steps, sim_s, world.drawn, dict(sorted(world.injected.items())), journal
    )


def _describe_error(error: Exception) -> tuple[str, str]:
    """An error as one line, and further text to show; empty for a check whose message is sufficient."""
    text = str(error)
    if isinstance(error, AssertionError):
        return (text.partition("\n")[0], "") if text else (_failed_check(error), traceback.format_exc())
    first = text.partition("\n")[0]
    if isinstance(error, SimError):
        return f"{type(error).__name__}: {first}", text
    return f"{type(error).__name__}: {first}", traceback.format_exc()


def _failed_check(error: AssertionError) -> str:
    """The source line and position of a check that has no message."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.line or 'a check failed'} ({Path(frame.filename).name}:{frame.lineno})"


def _fast_directory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def shrink(
    failed: History,
    freezer: SettableClock | None,
    stopped: Callable[[], bool] = lambda: False,
    most: int = SHRINK_HISTORIES_MAX,
) -> Shrunk | None:
    """Remove kinds of faults, then the last faults, as long as the failure stays the same. None unless it is a swarm.

    Each kind has its own random stream, so removing one does not change the others. Runs at most `most` histories.
    """
    if failed.order.scenario not in SWARMS:
        return None
    search = _Search(failed, freezer, stopped, most)
    search.try_kinds([])
    size = len(search.best.faults) // 2
    while size and search.going:
        smaller = search.drop_groups(size)
        size = min(size, len(search.best.faults)) if smaller else size // 2
    search.try_times()
    return Shrunk(search.best, search.tried)


def _sort(failure: str) -> str:
    """The beginning of a failure without its numbers: equal for two failures of the same sort."""
    return re.sub(r"[\d.]+", "#", failure)[:_ALIKE_CHARS]


class _Search:
    def __init__(self, failed: History, freezer: SettableClock | None, stopped: Callable[[], bool], most: int) -> None:
        self.best = failed
        self.tried = 0
        self._freezer = freezer
        self._stopped = stopped
        self._most = most

    @property
    def going(self) -> bool:
        return self.tried < self._most and not self._stopped()

    def _try(self, **changes: Any) -> bool:
        if not self.going:
            return False
        self.tried += 1
        history = play(self.best.order._replace(**changes), self._freezer)
        if history.failure is None or _sort(history.failure) != _sort(self.best.failure or ""):
            return False
        self.best = history
        return True

    def try_kinds(self, kinds: Iterable[str]) -> bool:
        """Whether the history still fails with only these kinds."""
        return self._try(only=frozenset(kinds))

    def drop_groups(self, size: int) -> bool:
        """Remove `size` kinds at a time; whether any group could be removed."""
        found = False
        kinds = list(self.best.faults)
        for start in range(0, len(kinds), size):
            group = kinds[start : start + size]
            rest = [kind for kind in self.best.faults if kind not in group]
            if len(rest) < len(self.best.faults):
                found = self.try_kinds(rest) or found
        return found

    def try_times(self) -> None:
        """Search for the shortest time with faults in which the history still fails, by bisection."""
        low, high = 0.0, self.best.order.safety_s
        if high is None:
            high = 64.0
        while self.going and high - low > max(_SHORTEST_S, high / 8):
            middle = round((low + high) / 2, 1)
            if self._try(safety_s=middle):
                high = middle
            else:
                low = middle
