"""What of the real machine is held still while a history runs, and how a runaway thread is ended."""

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
"""Real seconds without a step after which a history is given up."""
UNWIND_WAIT_S = 5.0
"""Real seconds that a history which was given up or interrupted gives its threads to unwind."""
_LOOK_EVERY_S: Final = 0.25


@contextmanager
def pinned_process() -> Iterator[None]:
    """Keep this thread and those it starts on one processor, and the cyclic garbage collector out.

    One processor: handing the baton over is then four times as fast. The collector runs when so many objects have been
    made, in whatever thread made the last: what it finalizes would run at a moment that the seed does not decide.
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
    """Whether a debugger or coverage.py uses the interpreter's one trace function already."""
    return sys.gettrace() is not None or threading.gettrace() is not None


def raise_in_thread(ident: int, error: type[BaseException]) -> None:
    """Have `error` raised in a thread (by its identifier) as soon as it runs Python code again."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(error))


def wait_for(done: LockType, steps: Callable[[], int]) -> bool:
    """Take the lock `done`, however long that lasts; False when `steps()` stood still for STUCK_AFTER_S before.

    Real time is counted in waits: under freezegun no clock tells it.
    """
    seen, quiet_s = -1, 0.0
    while not done.acquire(timeout=_LOOK_EVERY_S):
        quiet_s = quiet_s + _LOOK_EVERY_S if steps() == seen else 0.0
        seen = steps()
        if quiet_s >= STUCK_AFTER_S:
            return False
    return True
