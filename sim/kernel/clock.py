"""freezegun under the simulated clock: every reader that goes round the seam (loguru, peewee, tqdm) sees its time.

Starting freezegun patches every loaded module (3 to 20 ms), so `frozen` is held open around many histories; moving it
costs about a microsecond and happens only when the simulated millisecond changes.
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
"""Where simulated wall clocks start unless told otherwise: 2024-01-01T00:00:00Z, Unix ms."""


class SettableClock(Protocol):
    """What the simulator asks of a frozen clock."""

    def set_ms(self, unix_ms: int) -> None:
        """Make it `unix_ms` everywhere in this process."""
        ...


class FrozenClock:
    """A running freezegun freeze, moved by `SimRuntime`. Made by `frozen`."""

    def __init__(self, factory: freezegun.api.FrozenDateTimeFactory, unix_ms: int) -> None:
        self._factory = factory
        self._unix_ms = unix_ms

    def set_ms(self, unix_ms: int) -> None:
        """Make it `unix_ms` (Unix ms UTC) for time.time(), datetime.now() and their relatives; may go back.

        They show one microsecond more: freezegun computes time() and time_ns() in floats, which may come out a little
        too low, and a reader that rounds down to milliseconds would be one behind.

        Raises OverflowError outside the years 1 to 9999.
        """
        if unix_ms != self._unix_ms:
            self._factory.tick(timedelta(milliseconds=unix_ms - self._unix_ms))
            self._unix_ms = unix_ms


_running: FrozenClock | None = None


@contextmanager
def frozen() -> Iterator[FrozenClock]:
    """Freeze the process's clocks; inside another `frozen` block the clock already running is handed out again.

    The time zone is UTC meanwhile: freezegun takes local time for UTC. While it is open nothing in the process can
    measure real time with `time.monotonic` or `perf_counter`; waits of `threading`, `queue` and locks stay real
    (freezegun leaves those modules alone, and they take timeouts in C).
    """
    global _running
    if _running is not None:
        yield _running
        return
    # freezegun shows the real time to callers whose last few stack frames lie in `threading` or `queue`: a simulated
    # thread's own first frames. With a limit of 0 it does not look, and everyone sees frozen time.
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
