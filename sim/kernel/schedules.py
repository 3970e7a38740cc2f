"""Selects the next thread: four policies that use only the threads, the step number and their own random numbers.

A policy is asked at every scheduling point. `Uniform` gives every ready thread the same probability. `Shares` gives
some threads far fewer turns than others. `Priorities` runs the ready thread with the highest priority and changes
priorities rarely: this is probabilistic concurrency testing (Burckhardt et al., ASPLOS 2010), which finds a bug that
needs d ordered events among k steps of n threads with a probability of at least 1/(n k^(d-1)), however many steps lie
between them. `Starve` runs one thread only when no other can run.

As with a real scheduler, a loop that never blocks cannot starve the other threads forever: priorities keep changing,
and the starved thread gets a turn after it has been ready for more than `patience` steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from sim.kernel.timers import BatonThread

Dice = Callable[[], float]
"""A number in [0, 1)."""


class Schedule(Protocol):
    """A policy. It must draw only from its own dice; otherwise the seed would not determine the history."""

    def started(self, thread: BatonThread) -> None:
        """A thread was started. Threads are numbered from 0 (main) in the order of their start."""
        ...

    def yields(self, me: BatonThread, ready: Sequence[BatonThread], step: int, drawn: bool) -> bool:
        """Whether `me`, which could continue, hands over to one of `ready` (never empty, longest-waiting first).

        `drawn`: this point was already selected at random for a switch, so a random policy need not draw again.
        """
        ...

    def pick(self, ready: Sequence[BatonThread], step: int) -> int:
        """The index of the thread that runs next; `ready` has at least two."""
        ...


class Uniform:
    """All ready threads are equally probable; a thread that could continue hands over with probability `chance`."""

    def __init__(self, dice: Dice, chance: float) -> None:
        self._dice = dice
        self._chance = chance

    def __str__(self) -> str:
        return f"uniform chance={self._chance}"

    def started(self, thread: BatonThread) -> None:
        """Do nothing: all threads are equal."""

    def yields(self, me: BatonThread, ready: Sequence[BatonThread], step: int, drawn: bool) -> bool:
        """With probability `chance`."""
        return drawn or self._dice() < self._chance

    def pick(self, ready: Sequence[BatonThread], step: int) -> int:
        """Any thread."""
        return int(self._dice() * len(ready))


class Shares(Uniform):
    """Like `Uniform`, but each thread draws a weight of 1, 2, 4 or 16: its share of the turns, not of the time."""

    def __init__(self, dice: Dice, chance: float) -> None:
        super().__init__(dice, chance)
        self._shares: list[int] = []

    def __str__(self) -> str:
        return f"shares chance={self._chance}"

    def started(self, thread: BatonThread) -> None:
        """Draw the thread's share."""
        self._shares.append((1, 2, 4, 16)[int(self._dice() * 4)])

    def pick(self, ready: Sequence[BatonThread], step: int) -> int:
        """Any thread, weighted by the shares."""
        shares = self._shares
        ticket = int(self._dice() * sum([shares[thread.number] for thread in ready]))
        index = 0
        while ticket >= shares[ready[index].number]:
            ticket -= shares[ready[index].number]
            index += 1
        return index


class Priorities:
    """The ready thread with the highest priority runs.

    At `changes` random steps within every `horizon` steps, the running thread gets the lowest priority. The published
    algorithm knows the length of a run; here it is repeated every `horizon` steps. As `changes` is at least 1, each
    repetition contains a change, and every thread runs eventually.
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
        """Draw the thread's priority."""
        self._priority.append(self._dice())

    def yields(self, me: BatonThread, ready: Sequence[BatonThread], step: int, drawn: bool) -> bool:
        """If a thread with a higher priority is ready."""
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
        """The thread with the highest priority."""
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
    """Like `Uniform`, but the thread with number `victim` runs only if no other can, or after `patience` steps."""

    def __init__(self, dice: Dice, chance: float, victim: int, patience: int) -> None:
        self._dice = dice
        self._chance = chance
        self._victim = victim
        self._patience = patience

    def __str__(self) -> str:
        return f"starve victim={self._victim} chance={self._chance} patience={self._patience}"

    def started(self, thread: BatonThread) -> None:
        """Do nothing: the victim is identified by its number."""

    def yields(self, me: BatonThread, ready: Sequence[BatonThread], step: int, drawn: bool) -> bool:
        """The victim always; other threads at random, but to the victim alone only if it has waited long enough."""
        if me.number == self._victim:
            return True
        if len(ready) == 1 and ready[0].number == self._victim:
            return step - ready[0].ready_at > self._patience
        return drawn or self._dice() < self._chance

    def pick(self, ready: Sequence[BatonThread], step: int) -> int:
        """Any thread except the victim, which is first once it has waited long enough."""
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
