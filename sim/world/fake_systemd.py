"""A service manager that records the notifications of an engine and can kill an engine that stops feeding its
watchdog.
"""

from __future__ import annotations

from typing import Final

from sim.kernel.runtime import SimRuntime

WATCHDOG_S: Final = 60.0
"""WatchdogSec as in etc/systemd."""


class FakeSystemd:
    """The `Notifier` of a simulated process. Times are simulated seconds of that process."""

    def __init__(self, runtime: SimRuntime) -> None:
        self._runtime = runtime
        self.ready_s: float | None = None
        self.stopping_s: float | None = None
        self.alive_s: list[float] = []
        """When the watchdog was fed."""
        self.line = ""
        """The newest status line."""

    def ready(self) -> None:
        """The pipeline runs."""
        if self.ready_s is not None:
            raise AssertionError("READY was said twice")
        self.ready_s = self._runtime.elapsed_s

    def status(self, line: str) -> None:
        """Record a status line."""
        self.line = line

    def alive(self) -> None:
        """The watchdog is fed."""
        self.alive_s.append(self._runtime.elapsed_s)

    def stopping(self) -> None:
        """A stop is under way."""
        if self.stopping_s is not None:
            raise AssertionError("STOPPING was said twice")
        self.stopping_s = self._runtime.elapsed_s

    def kill_if_starved(self) -> None:
        """Kill the process once the watchdog has not been fed for WATCHDOG_S, looking every second from now on."""
        now_s = self._runtime.elapsed_s
        if now_s - max([self.ready_s or now_s, *self.alive_s[-1:]]) > WATCHDOG_S:
            self._runtime.note("the watchdog bites")
            self._runtime.kill()
        else:
            self._runtime.call_at(now_s + 1.0, self.kill_if_starved)

    def close(self) -> None:
        """Nothing more will be said."""
