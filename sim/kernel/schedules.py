"""Which thread runs next: four policies, each blind to everything but the threads, the step number and its own dice.

A policy is asked at every scheduling point. `Uniform` gives every ready thread the same chance. `Shares` gives some
threads far fewer turns than others. `Priorities` runs the highest-priority ready thread, with few priority changes:
the probabilistic concurrency testing of Burckhardt et al. (ASPLOS 2010), which finds a bug that needs d ordered events
among k steps of n threads with a chance of at least 1/(n k^(d-1)), however many steps lie between them. `Starve`
withholds one thread for as long as any other can run.

No policy lets a loop that never blocks starve the rest for ever, which no real scheduler does either: priorities change
again and again, and the starved thread gets a turn when it stood ready for more than `patience` steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from sim.kernel.timers import BatonThread

Dice = Callable[[], float]
"""A number in [0, 1)."""


class Schedule(Protocol):
    """A policy. It must draw from its dice alone, or the seed would not decide the history."""

    def started(self, thread: BatonThread) -> None:
        """A thread has been started. Threads are numbered from 0 (main) in the order of their start."""
        ...

    def yields(self, me: BatonThread, ready: Sequence[BatonThread], step: int, drawn: bool) -> bool:
        """Whether `me`, which could go on, hands the baton to one of `ready` (never empty, longest-waiting first).

        `drawn`: dice have chosen this very place among many for a switch; a policy that goes by chance need not again.
        """
        ...

    def pick(self, ready: Sequence[BatonThread], step: int) -> int:
        """The index of the thread that runs next; `ready` has at least two."""
        ...


class Uniform:
    """Every ready thread has the same chance; a thread that could go on hands the baton on with `chance`."""

    def __init__(self, dice: Dice, chance: float) -> None:
        self._dice = dice
        self._chance = chance

    def __str__(self) -> str:
        return f"uniform chance={self._chance}"

    def started(self, thread: BatonThread) -> None:
        """All are equal."""

    def yields(self, me: BatonThread, ready: Sequence[BatonThread], step: int, drawn: bool) -> bool:
        """By chance."""
        return drawn or self._dice() < self._chance

    def pick(self, ready: Sequence[BatonThread], step: int) -> int:
        """Any."""
        return int(self._dice() * len(ready))


class Shares(Uniform):
    """As `Uniform`, but each thread draws a share of 1, 2, 4 or 16 at its start: of the turns, not of time."""

    def __init__(self, dice: Dice, chance: float) -> None:
        super().__init__(dice, chance)
        self._shares: list[int] = []

    def __str__(self) -> str:
        return f"shares chance={self._chance}"

    def started(self, thread: BatonThread) -> None:
        """Draw its share."""
        self._shares.append((1, 2, 4, 16)[int(self._dice() * 4)])

    def pick(self, ready: Sequence[BatonThread], step: int) -> int:
        """Any, weighed by the shares."""
        shares = self._shares
        ticket = int(self._dice() * sum([shares[thread.number] for thread in ready]))
        index = 0
        while ticket >= shares[ready[index].number]:
            ticket -= shares[ready[index].number]
            index += 1
        return index


class Priorities:
    """The highest-priority ready thread runs. At `changes` random steps of every `horizon` the running one becomes

    the lowest. The published algorithm knows the length of a run; here it is repeated every `horizon` steps, so that at
    least one change comes in each of them (`changes` is at least 1) and everyone's turn comes.
    """

    def __init__(self, dice: Dice, changes: int, horizon: int) -> None:
        self._dice = dice
        self._changes = changes
        self._horizon = horizon
        self._priority: list[float] = []
        self._lowest = 0.0
        self._round_end = 0
        self._change_at: list[int] = []  # steps, latest first

    def __str__(self) -> str:
        return f"priorities changes={self._changes} horizon={self._horizon}"

    def started(self, thread: BatonThread) -> None:
        """Draw its priority."""
        self._priority.append(self._dice())

    def yields(self, me: BatonThread, ready: Sequence[BatonThread], step: int, drawn: bool) -> bool:
        """When a higher one is ready."""
        if step >= self._round_end:
            self._begin_round(step)
        while self._change_at and step >= self._change_at[-1]:
            self._change_at.pop()
            self._lowest -= 1.0
            self._priority[me.number] = self._lowest
        priority = self._priority
        mine = priority[me.number]
        # A list: a generator expression would take longer.
        return any([priority[thread.number] > mine for thread in ready])

    def pick(self, ready: Sequence[BatonThread], step: int) -> int:
        """The highest."""
        priority = self._priority
        best = 0
        for index in range(1, len(ready)):
            if priority[ready[index].number] > priority[ready[best].number]:
                best = index
        return best

    def _begin_round(self, step: int) -> None:
        self._round_end = step + self._horizon
        self._change_at = sorted(
            [step + int(self._dice() * self._horizon) for _ in range(self._changes)], reverse=True
        )  # fmt: skip


class Starve:
    """As `Uniform`, but the thread with number `victim` runs only when no other can, or after `patience` steps."""

    def __init__(self, dice: Dice, chance: float, victim: int, patience: int) -> None:
        self._dice = dice
        self._chance = chance
        self._victim = victim
        self._patience = patience

    def __str__(self) -> str:
        return f"starve victim={self._victim} chance={self._chance} patience={self._patience}"

    def started(self, thread: BatonThread) -> None:
        """The victim is known by its number."""

    def yields(self, me: BatonThread, ready: Sequence[BatonThread], step: int, drawn: bool) -> bool:
        """The victim always; others by chance, and not to the victim alone unless it has waited enough."""
        if me.number == self._victim:
            return True
        if len(ready) == 1 and ready[0].number == self._victim:
            return step - ready[0].ready_at > self._patience
        return drawn or self._dice() < self._chance

    def pick(self, ready: Sequence[BatonThread], step: int) -> int:
        """Any but the victim, which comes first once it has waited enough."""
        where = -1
        for index, thread in enumerate(ready):
            if thread.number == self._victim:
                where = index
        if where < 0:
            return int(self._dice() * len(ready))
        if step - ready[where].ready_at > self._patience:
            return where
        index = int(self._dice() * (len(ready) - 1))
        return index if index < where else index + 1
