"""Waiting threads and the timers that end their waits: plain bookkeeping, used only by the thread with the baton."""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from _thread import allocate_lock
from collections.abc import Callable
from typing import Final

NS: Final = 1_000_000_000
STALE_MAX: Final = 512

Call = Callable[[], None]


class BatonThread:
    """One simulated thread: a real thread and the gate on which it blocks.

    `number` counts threads in the order of their start; `ready_at` is the step since which the thread could run.
    """

    __slots__ = ("doing", "finished", "gate", "ident", "joiners", "label", "name", "number", "ready_at")

    def __init__(self, name: str, label: str, number: int) -> None:
        self.name = name
        self.label = label
        self.number = number
        self.ready_at = 0
        self.gate = allocate_lock()
        self.gate.acquire()
        self.ident = 0
        self.finished = False
        self.doing = "not yet run"
        self.joiners: list[BatonWait] = []


class BatonWait:
    """One blocking wait of one thread. It ends once, by a wake-up or by its timer."""

    __slots__ = ("ended", "thread", "timed", "timed_out")

    def __init__(self, thread: BatonThread, timed: bool) -> None:
        self.thread = thread
        self.timed = timed
        self.ended = False
        self.timed_out = False


def as_ns(seconds: float) -> int:
    """`seconds` as whole nanoseconds, rounded up so that a wait never ends early; 0 for zero and below.

    Raises OverflowError above the longest real wait, ValueError for NaN.
    """
    if seconds > threading.TIMEOUT_MAX:
        raise OverflowError(f"cannot wait {seconds} s: more than threading.TIMEOUT_MAX")
    return max(0, math.ceil(seconds * NS))


class Timers:
    """Waits and calls by simulated time; those with equal times are kept in the order in which they were added.

    A wait that ended in another way leaves a *stale* timer behind. Stale timers never fire, and are removed when there
    are many of them.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, BatonWait | Call]] = []
        self._sequence = itertools.count()
        self._stale = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, due_ns: int, item: BatonWait | Call) -> None:
        """Add an item that `pop` returns from `due_ns` on."""
        heapq.heappush(self._heap, (due_ns, next(self._sequence), item))

    def next_due_ns(self) -> int | None:
        """When the next item is due; None if nothing is pending."""
        while self._heap and _is_stale(self._heap[0][2]):
            heapq.heappop(self._heap)
            self._stale -= 1
        return self._heap[0][0] if self._heap else None

    def pop(self, now_ns: int) -> BatonWait | Call | None:
        """The next item that is due by `now_ns` and not stale, or None."""
        while self._heap and self._heap[0][0] <= now_ns:
            item = heapq.heappop(self._heap)[2]
            if not _is_stale(item):
                return item
            self._stale -= 1
        return None

    def went_stale(self) -> None:
        """A wait with a timer has ended in another way."""
        self._stale += 1
        if self._stale > STALE_MAX and 2 * self._stale > len(self._heap):
            self._heap = [entry for entry in self._heap if not _is_stale(entry[2])]
            heapq.heapify(self._heap)
            self._stale = 0


class StepCalls:
    """Calls by step: at a given step or, if `calm`, at the first from then on at which no thread is interrupted."""

    def __init__(self) -> None:
        self._any = Timers()
        self._calm = Timers()
        self.next_step: float = math.inf
        """`pop` returns None before this step."""

    def add(self, step: int, call: Call, calm: bool) -> None:
        """Add a call that `pop` returns at `step`."""
        (self._calm if calm else self._any).add(step, call)
        self.next_step = min(self.next_step, step)

    def pop(self, step: int, interrupted: bool) -> Call | None:
        """The next due call, or None."""
        item = self._any.pop(step) or (None if interrupted else self._calm.pop(step))
        assert not isinstance(item, BatonWait)
        if item is None:
            due = [timers.next_due_ns() for timers in (self._any, self._calm)]
            self.next_step = min([step for step in due if step is not None], default=math.inf)
        return item


def _is_stale(item: BatonWait | Call) -> bool:
    return isinstance(item, BatonWait) and item.ended
