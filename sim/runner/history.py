"""One history from its order to its verdict, and the smallest one that still fails. Prints nothing."""

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
SWARM_CHANCE: Final = 0.8
"""How likely a seed that draws its scenario draws the swarm."""

_MAINTENANCE_CHANCE: Final = 0.15
"""How likely one that does not draws a scenario of prune and backup."""

TRACE_LINES: Final = 60
SHRINK_HISTORIES_MAX: Final = 60
_SHORTEST_S: Final = 0.2
_ALIKE_CHARS: Final = 50


class HistoryOrder(NamedTuple):
    """What to run. `only` and `safety_s` bind a swarm: exactly these kinds of faults, and none later than that."""

    scenario: str
    seed: int
    only: frozenset[str] | None = None
    safety_s: float | None = None

    @property
    def command(self) -> str:
        """What a person types to run it again."""
        words = ["python -m sim", f"--scenario={self.scenario}", f"--seed={self.seed}"]
        if self.only is not None:
            words.append(f"--faults={','.join(sorted(self.only)) or 'none'}")
        if self.safety_s is not None:
            words.append(f"--sim-seconds={self.safety_s:g}")
        return " ".join(words)


class History(NamedTuple):
    """What came of an order. `failure` is one line, None when nothing is wrong; `details` what more there is to say."""

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
        """The one line that a history ends with."""
        verdict = "ok" if self.failure is None else "FAIL"
        faults = ",".join(self.faults) or "none"
        return (
            f"seed={self.order.seed} history={self.digest} {verdict} steps={self.steps} sim_s={self.sim_s:.1f}"
            f" faults={faults} scenario={self.order.scenario}"
        )


class Shrunk(NamedTuple):
    """The smallest failing history that was found, and how many were tried."""

    history: History
    tried: int


def drawn_scenario(seed: int) -> str:
    """The scenario of a seed: the swarm mostly, else any other one."""
    draw = Draw(SimRuntime(seed).stream("which scenario"))
    if draw.chance(SWARM_CHANCE):
        return SWARM
    # From a stream of their own: they came later, and change nothing about what the other seeds draw.
    late = Draw(SimRuntime(seed).stream("upkeep"))
    maintenance = [name for name, function in SCENARIOS.items() if function.__module__ == "sim.scenarios.maintenance"]
    if late.chance(_MAINTENANCE_CHANCE):
        return late.pick(maintenance)
    return draw.pick([name for name in SCENARIOS if name != SWARM and name not in maintenance])


def play(order: HistoryOrder, freezer: SettableClock | None, lines: int | None = TRACE_LINES) -> History:
    """Run one history. `lines` of its journal are kept, None: all. Never raises for what is wrong with the history."""
    failure, details = None, ""
    with tempfile.TemporaryDirectory(prefix="tradebot-sim-", dir=_fast_directory()) as directory:
        world = World(order.seed, Path(directory), freezer)
        world.only, world.safety_s = order.only, order.safety_s
        try:
            SCENARIOS[order.scenario](world)
        except Exception as error:
            failure, details = _describe_error(error)
        # The directory's name is the only thing in it that differs from run to run.
        journal = [line.replace(directory, "WORLD") for line in world.journal.lines(lines)]
        failure = None if failure is None else failure.replace(directory, "WORLD")
    digest = hashlib.sha256("".join(outcome.history for outcome in world.outcomes).encode()).hexdigest()
    steps = sum(outcome.steps for outcome in world.outcomes)
    sim_s = sum(outcome.sim_s for outcome in world.outcomes)
    return History(
        order, digest, failure, details, steps, sim_s, world.drawn, dict(sorted(world.injected.items())), journal
    )


def _describe_error(error: Exception) -> tuple[str, str]:
    """An error as one line, and what more is to be shown: nothing for a check that says what is wrong by itself."""
    text = str(error)
    if isinstance(error, AssertionError):
        return (text.partition("\n")[0], "") if text else (_failed_check(error), traceback.format_exc())
    first = text.partition("\n")[0]
    if isinstance(error, SimError):
        return f"{type(error).__name__}: {first}", text
    return f"{type(error).__name__}: {first}", traceback.format_exc()


def _failed_check(error: AssertionError) -> str:
    """The check itself, for one that says nothing: its source and where it stands."""
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
    """Leave out kinds of faults, then the last faults, as long as the same is wrong. None for other than swarms.

    Kinds have streams of their own, so what is left out changes nothing about the rest. Runs at most `most` histories.
    """
    if failed.order.scenario != SWARM:
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
    """What two failures have in common when the same thing is wrong: how they begin, numbers aside."""
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
        """Whether it still fails with these kinds alone."""
        return self._try(only=frozenset(kinds))

    def drop_groups(self, size: int) -> bool:
        """Leave out `size` kinds at a time; whether any group could be."""
        found = False
        kinds = list(self.best.faults)
        for start in range(0, len(kinds), size):
            group = kinds[start : start + size]
            rest = [kind for kind in self.best.faults if kind not in group]
            if len(rest) < len(self.best.faults):
                found = self.try_kinds(rest) or found
        return found

    def try_times(self) -> None:
        """Halve the time in which faults may come, then take it closer to where it no longer fails."""
        low, high = 0.0, self.best.order.safety_s
        if high is None:
            high = 64.0
        while self.going and high - low > max(_SHORTEST_S, high / 8):
            middle = round((low + high) / 2, 1)
            if self._try(safety_s=middle):
                high = middle
            else:
                low = middle
