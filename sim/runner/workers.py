"""Many histories, in this process or in several, one report after the other in the order of asking."""

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
"""Histories that wait, per process: enough that none is idle, few enough that an end comes soon."""


class Report(NamedTuple):
    """A history, and for one that failed the smallest one that still does."""

    history: History
    shrunk: Shrunk | None


class _Worker:
    """What a worker process keeps; set by `_prepare`."""

    clock: FrozenClock | None = None
    stop: SharedEvent | None = None
    open = ExitStack()


def _prepare(stop: SharedEvent, started: Synchronized[int]) -> None:
    """In a new worker: a processor of its own, a frozen clock, and no Ctrl-C, which is the parent's."""
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
    """Play `orders` as they are asked for; one report each, in their order, whatever ends first.

    Leaving the block gives up what is under way, as soon as the histories being played have ended.
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
    """As `pool.submit`, which may start a worker: that one must not die of a Ctrl-C before it has come to ignore it."""
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
