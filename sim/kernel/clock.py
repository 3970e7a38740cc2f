"""Gives the simulated time to code that does not use the seam (loguru, peewee, tqdm), by means of freezegun.

Starting freezegun patches every loaded module (3 to 20 ms), so one `frozen` block covers many histories. Setting the
time takes about a microsecond and happens only when the simulated millisecond changes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, Protocol

import freezegun
import freezegun.api

START_MS: Final = 1_704_067_200_000
"""The default start of simulated wall clocks: 2024-01-01T00:00:00Z, Unix ms."""


class SettableClock(Protocol):
    """The part of a frozen clock that the simulator uses."""

    def set_ms(self, unix_ms: int) -> None:
        """Set the time of the whole process to `unix_ms`."""
        ...


class FrozenClock:
    """An active freezegun freeze, set by `SimRuntime`. Created by `frozen`."""

    def __init__(self, factory: freezegun.api.FrozenDateTimeFactory, unix_ms: int) -> None:
        self._factory = factory
        self._unix_ms = unix_ms

    def set_ms(self, unix_ms: int) -> None:
        """Set time.time(), datetime.now() and similar functions to `unix_ms` (Unix ms UTC), forward or back.

        They return one microsecond more: freezegun computes time() and time_ns() in floats, which may be slightly too
        low, so that code which rounds down to milliseconds would get the previous one.

        Raises OverflowError outside the years 1 to 9999.
        """
        if unix_ms != self._unix_ms:
            self._factory.tick(timedelta(milliseconds=unix_ms - self._unix_ms))
            self._unix_ms = unix_ms


_running: FrozenClock | None = None


@contextmanager
def frozen() -> Iterator[FrozenClock]:
    """Freeze the clocks of the process; a nested `frozen` block gets the clock of the outer one.

    In the block the time zone is UTC, because freezegun treats local time as UTC, and nothing in the process can
    measure real time with `time.monotonic` or `perf_counter`. Waits of `threading`, `queue` and locks remain real:
    freezegun does not patch those modules, and their timeouts are implemented in C.
    """
    global _running
    if _running is not None:
        yield _running
        return
    # freezegun gives the real time to callers whose innermost stack frames are in `threading` or `queue`, as the first
    # frames of a simulated thread are. With a limit of 0 it does not check, and all callers get the frozen time.
    limit = freezegun.api.call_stack_inspection_limit
    freezegun.api.call_stack_inspection_limit = 0
    freeze = freezegun.freeze_time("2024-01-01 00:00:00.000001")
    zone = os.environ.get("TZ")
    _set_zone("UTC")
    try:
        factory = freeze.start()
        assert isinstance(factory, freezegun.api.FrozenDateTimeFactory)
        try:
            _running = FrozenClock(factory, START_MS)
            yield _running
        finally:
            _running = None
            freeze.stop()
    finally:
        freezegun.api.call_stack_inspection_limit = limit
        _set_zone(zone)


def _set_zone(zone: str | None) -> None:
    if zone is None:
        os.environ.pop("TZ", None)
    else:
        os.environ["TZ"] = zone
    time.tzset()
