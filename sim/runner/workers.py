"""Runs many histories, in this process or in several, and reports them in the order of their orders."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event as SharedEvent
from typing import Final, NamedTuple

from sim.kernel.clock import FrozenClock, frozen
from sim.runner.history import History, HistoryOrder, Shrunk, play, shrink

_AHEAD: Final = 4
"""Queued histories per process: enough that no process is idle, few enough that stopping is quick."""


class Report(NamedTuple):
    """A history and, if it failed, the smallest history found that still fails."""

    history: History
    shrunk: Shrunk | None


class _Worker:
    """The state of a worker process; set by `_prepare`."""

    clock: FrozenClock | None = None
    stop: SharedEvent | None = None
    open = ExitStack()


def _prepare(stop: SharedEvent, started: Synchronized[int]) -> None:
    """Prepare a new worker: its own processor, a frozen clock, and Ctrl-C ignored, because the parent handles it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with started.get_lock():
        number = started.value
        started.value += 1
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {allowed[number % len(allowed)]})
    _Worker.stop = stop
    _Worker.clock = _Worker.open.enter_context(frozen())


def _work(order: HistoryOrder, lines: int | None, shrinks: bool) -> Report:
    clock, stop = _Worker.clock, _Worker.stop
    history = play(order, clock, lines)
    if history.failure is None or not shrinks:
        return Report(history, None)
    return Report(history, shrink(history, clock, (lambda: False) if stop is None else stop.is_set))


@contextmanager
def reports(orders: Iterator[HistoryOrder], jobs: int, lines: int | None, shrinks: bool) -> Iterator[Iterator[Report]]:
    """Run `orders`; yields one report for each, in their order, whichever ends first.

    Leaving the block cancels the queued histories and waits for those that are running.
    """
    if jobs == 1:
        with frozen() as clock:
            _Worker.clock, _Worker.stop = clock, None
            yield (_work(order, lines, shrinks) for order in orders)
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(jobs, context, _prepare, (stop, context.Value("i", 0)))
    try:
        yield _in_order(pool, orders, jobs, lines, shrinks)
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, order: HistoryOrder, lines: int | None, shrinks: bool) -> Future[Report]:
    """Like `pool.submit`; a Ctrl-C must not end a new worker before it has started to ignore the signal."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_work, order, lines, shrinks)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _in_order(
    pool: ProcessPoolExecutor, orders: Iterator[HistoryOrder], jobs: int, lines: int | None, shrinks: bool
) -> Iterator[Report]:
    waiting: deque[Future[Report]] = deque()
    for order in orders:
        waiting.append(_submit(pool, order, lines, shrinks))
        if len(waiting) >= jobs * _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
