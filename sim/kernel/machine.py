"""Controls the real machine while a history runs: one processor, no garbage collection, an end for runaway threads."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
from _thread import LockType
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

STUCK_AFTER_S = 20.0
"""Real seconds without a step after which a history is aborted."""
UNWIND_WAIT_S = 5.0
"""Real seconds for the threads of an aborted or interrupted history to unwind."""
_LOOK_EVERY_S: Final = 0.25


@contextmanager
def pinned_process() -> Iterator[None]:
    """Run this thread and those it starts on one processor, with the cyclic garbage collector disabled.

    On one processor the hand-over between threads is four times as fast. The collector is triggered by the number of
    allocations, in any thread, so finalizers would run at a moment that the seed does not determine.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        with _on_one_cpu():
            yield
    finally:
        if collects:
            gc.enable()


@contextmanager
def _on_one_cpu() -> Iterator[None]:
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    with suppress(OSError):  # a sandbox may forbid it; it is only faster
        os.sched_setaffinity(0, {sorted(allowed)[os.getpid() % len(allowed)]})
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, allowed)


def is_traced() -> bool:
    """Whether a debugger or coverage.py already uses the interpreter's trace function."""
    return sys.gettrace() is not None or threading.gettrace() is not None


def raise_in_thread(ident: int, error: type[BaseException]) -> None:
    """Raise `error` in a thread (by its identifier) as soon as it runs Python code again."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(error))


def wait_for(done: LockType, steps: Callable[[], int]) -> bool:
    """Acquire the lock `done` without a time limit; False if `steps()` did not change for STUCK_AFTER_S.

    Real time is measured by counting waits, because freezegun stops all clocks.
    """
    seen, quiet_s = -1, 0.0
    while not done.acquire(timeout=_LOOK_EVERY_S):
        quiet_s = quiet_s + _LOOK_EVERY_S if steps() == seen else 0.0
        seen = steps()
        if quiet_s >= STUCK_AFTER_S:
            return False
    return True
